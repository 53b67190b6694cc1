//! Files changed through a mount, as programs change them.
//!
//! What the model has to know of a file that is changed in place is made from bytes whose hash it knew before.

use super::look::tree_of;
use super::model::{Entry, within};
use super::{Outcome, Step, Walk};
use crate::manifest::sha256_of;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

/// Changes of one step at most.
const CHANGES: u64 = 8;
/// The longest piece written into a file there is, in bytes.
const PIECE: u64 = 200_000;

impl Walk {
    /// Mounts a file system, changes files, looks, and unmounts it; now and then with a snapshot of it meanwhile, or with
    /// the service killed after all is durable.
    pub fn mounted(&mut self) -> Outcome<Step> {
        let dir = self.desk.path("mnt");
        fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
        let root = dir.metadata().is_ok_and(|m| m.uid() == 0);
        if !root || !Path::new("/dev/fuse").exists() {
            return Ok(Step::Skipped);
        }
        let Some(name) = self.some_files()?.filter(|n| n.contains('/')) else { return Ok(Step::Skipped) };
        self.desk.ok(&["zfs", "set", &format!("mountpoint={}", dir.display()), &name])?;
        self.desk.ok(&["zfs", "mount", &name])?;
        self.written(&name);
        let done = self.while_mounted(&name, &dir);
        let left = self.desk.ok(&["zfs", "unmount", &name]);
        done.map_err(|why| format!("in the mount of {name}: {why}"))?;
        left?;
        self.desk.ok(&["zfs", "inherit", "mountpoint", &name])?;
        self.compare_head(&name)?;
        Ok(Step::Done)
    }

    fn while_mounted(&mut self, name: &str, dir: &Path) -> Outcome {
        for _ in 0..=self.rng.below(CHANGES) {
            self.change(name, dir)?;
        }
        if self.rng.one_in(4) {
            // It has what programs wrote up to now, durable or not.
            let snap = self.fresh("s");
            self.desk.ok(&["zfs", "snapshot", &format!("{name}@{snap}")])?;
            self.model.snapshot(name, &snap);
            self.change(name, dir)?;
        }
        if self.rng.one_in(5) {
            self.desk.ok(&["zpool", "sync"])?;
            self.desk.kill_service()?;
            // Mounts come back with the next command; but keys are forgotten.
            let mounted = self.desk.ok(&["zfs", "get", "-H", "-o", "value", "mounted", name])?;
            match (mounted.trim_end(), self.model.sets[name].key.is_some()) {
                ("yes", false) => {}
                ("no", true) if self.unlock(name)? => {
                    self.desk.ok(&["zfs", "mount", name])?;
                }
                (mounted, _) => return Err(format!("after the service was killed: mounted is {mounted}")),
            }
        }
        let mut is = tree_of(dir)?;
        // With snapdir=visible.
        is.retain(|path, _| !within(path, ".zfs"));
        let must = &self.model.sets[name].tree;
        if is == *must {
            return Ok(());
        }
        let wrong = |path: &&String| is.get(*path) != must.get(*path);
        let paths: Vec<&String> = is.keys().chain(must.keys()).filter(wrong).collect();
        Err(format!("these are not as they were left: {paths:?}"))
    }

    fn change(&mut self, name: &str, dir: &Path) -> Outcome {
        let failed = |e: io::Error| e.to_string();
        let paths: Vec<String> = self.model.sets[name].tree.keys().cloned().collect();
        let old = self.pick(&paths);
        match (self.rng.below(8), old) {
            (0, _) => {
                let path = self.some_dir(name) + &self.fresh("dir");
                fs::create_dir(dir.join(&path)).map_err(failed)?;
                self.model.ds(name).tree.insert(path, Entry::Dir);
            }
            (1, _) => {
                let path = self.some_dir(name) + &self.fresh("link");
                symlink("somewhere/else", dir.join(&path)).map_err(failed)?;
                self.model.ds(name).tree.insert(path, Entry::Link("somewhere/else".into()));
            }
            (2, Some(path)) => {
                let there = dir.join(&path);
                let gone = if there.is_dir() { fs::remove_dir_all(&there) } else { fs::remove_file(&there) };
                gone.map_err(|e| format!("{path}: {e}"))?;
                self.model.ds(name).tree.retain(|p, _| !within(p, &path));
            }
            (3, Some(path)) => {
                let new = self.fresh("moved");
                fs::rename(dir.join(&path), dir.join(&new)).map_err(|e| format!("{path}: {e}"))?;
                let tree = &mut self.model.ds(name).tree;
                let moved: Vec<String> = tree.keys().filter(|p| within(p, &path)).cloned().collect();
                for from in moved {
                    let entry = tree.remove(&from).unwrap_or(Entry::Dir);
                    tree.insert(format!("{new}{}", &from[path.len()..]), entry);
                }
            }
            (4..=6, Some(path)) if matches!(self.model.sets[name].tree[&path], Entry::File(..)) => {
                self.change_inside(name, &dir.join(&path), path)?;
            }
            _ => {
                let path = self.some_dir(name) + &self.fresh("file");
                let entry = self.contents(&dir.join(&path))?;
                self.model.ds(name).tree.insert(path, entry);
            }
        }
        Ok(())
    }

    /// Writes over a part of a file, behind its end too, or cuts it.
    fn change_inside(&mut self, name: &str, there: &Path, path: String) -> Outcome {
        let failed = |e: io::Error| format!("{path}: {e}");
        let mut bytes = fs::read(there).map_err(failed)?;
        if self.model.sets[name].tree[&path] != Entry::File(bytes.len() as u64, sha256_of(&bytes)) {
            return Err(format!("{path} is not as it was left"));
        }
        let len = bytes.len() as u64;
        let file = OpenOptions::new().read(true).write(true).open(there).map_err(failed)?;
        if self.rng.one_in(3) {
            let cut = self.rng.below(len + len / 2 + 1);
            file.set_len(cut).map_err(failed)?;
            bytes.resize(cut as usize, 0);
        } else {
            let mut piece = vec![0; 1 + self.rng.below(PIECE) as usize];
            self.rng.fill(&mut piece);
            let at = self.rng.below(len + len / 4 + 1);
            let end = at as usize + piece.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[at as usize..end].copy_from_slice(&piece);
            file.write_all_at(&piece, at).map_err(failed)?;
        }
        if self.rng.one_in(2) {
            file.sync_all().map_err(failed)?;
        }
        self.model.ds(name).tree.insert(path, Entry::File(bytes.len() as u64, sha256_of(&bytes)));
        Ok(())
    }
}
