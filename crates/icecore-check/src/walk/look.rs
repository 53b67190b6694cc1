//! Comparing what is there with what has to be.

use super::model::{Entry, Tree};
use super::volumes::tree_of_image;
use super::{Outcome, POOLS, Walk};
use crate::manifest::sha256_of;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Trees compared now and then, each time.
const SAMPLE: usize = 6;

/// The tree below a folder of this machine.
pub(super) fn tree_of(folder: &Path) -> Outcome<Tree> {
    let mut tree = Tree::new();
    let mut folders = vec![(folder.to_path_buf(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().map_err(failed)?;
            let found = if kind.is_dir() {
                folders.push((entry.path(), format!("{path}/")));
                Entry::Dir
            } else if kind.is_symlink() {
                Entry::Link(fs::read_link(entry.path()).map_err(failed)?.to_string_lossy().into_owned())
            } else {
                let bytes = fs::read(entry.path()).map_err(failed)?;
                Entry::File(bytes.len() as u64, sha256_of(&bytes))
            };
            tree.insert(path, found);
        }
    }
    Ok(tree)
}

fn differences<T: Ord + std::fmt::Display>(is: &BTreeSet<T>, must: &BTreeSet<T>) -> String {
    let more = is.difference(must).map(|n| format!("  there is {n}\n"));
    let less = must.difference(is).map(|n| format!("  there is no {n}\n"));
    more.chain(less).collect()
}

impl Walk {
    /// All names, and the properties that were set.
    pub fn compare_names(&self) -> Outcome {
        for pool in POOLS {
            let listed = self.desk.ok(&["zfs", "list", "-H", "-r", "-t", "all", "-o", "name", pool])?;
            let is: BTreeSet<String> = listed.lines().map(str::to_string).collect();
            let must = self.model.names(pool);
            if is != must {
                return Err(format!("the names in {pool} are wrong:\n{}", differences(&is, &must)));
            }
        }
        Ok(())
    }

    fn compare_properties(&self) -> Outcome {
        for (name, ds) in &self.model.sets {
            for (property, value) in &ds.props {
                let is = self.desk.ok(&["zfs", "get", "-Hp", "-o", "value,source", property, name])?;
                let must = format!("{value}\tlocal");
                if is.trim_end() != must {
                    return Err(format!("{property} of {name} is {is:?}, not {must:?}"));
                }
            }
            let origin = match ds.origin.and_then(|id| self.model.find(id)) {
                Some((of, snap)) => format!("{of}@{}", snap.name),
                None => "-".into(),
            };
            let is = self.desk.ok(&["zfs", "get", "-H", "-o", "value", "origin", name])?;
            if is.trim_end() != origin {
                return Err(format!("the origin of {name} is {is:?}, not {origin}"));
            }
        }
        Ok(())
    }

    /// Contents of some heads and snapshots.
    pub fn compare_some(&mut self) -> Outcome {
        self.compare_properties()?;
        let all = self.trees();
        for _ in 0..SAMPLE.min(all.len()) {
            let at = self.rng.below(all.len() as u64) as usize;
            self.compare(&all[at].0, &all[at].1)?;
        }
        Ok(())
    }

    /// Contents of everything.
    pub fn compare_all(&mut self) -> Outcome {
        self.compare_properties()?;
        for (name, tree) in self.trees() {
            self.compare(&name, &tree)?;
        }
        Ok(())
    }

    /// Contents of one head.
    pub fn compare_head(&mut self, name: &str) -> Outcome {
        match self.model.sets.get(name).map(|d| d.tree.clone()) {
            Some(tree) => self.compare(name, &tree),
            None => Ok(()),
        }
    }

    /// Heads and snapshots of all file systems and volumes.
    fn trees(&self) -> Vec<(String, Tree)> {
        let mut out = Vec::new();
        for (name, ds) in &self.model.sets {
            out.push((name.clone(), ds.tree.clone()));
            out.extend(ds.snaps.iter().map(|s| (format!("{name}@{}", s.name), (*s.tree).clone())));
        }
        out
    }

    fn compare(&mut self, name: &str, must: &Tree) -> Outcome {
        let dataset = name.split('@').next().unwrap_or(name).to_string();
        if !self.unlock(&dataset)? {
            return Ok(());
        }
        let out = self.desk.path("out/tree");
        if out.exists() {
            fs::remove_dir_all(&out).map_err(|e| e.to_string())?;
        }
        let is = if self.model.sets[&dataset].volume {
            tree_of_image(&self.image_of(name)?)
        } else {
            self.desk.ok(&["cp", "-r", name, &out.display().to_string()])?;
            tree_of(&out)?
        };
        self.report.looked += 1;
        if is == *must {
            return Ok(());
        }
        let lines = |t: &Tree| t.iter().map(|(p, e)| format!("{p} {e:?}")).collect::<BTreeSet<_>>();
        Err(format!("the files of {name} are wrong:\n{}", differences(&lines(&is), &lines(must))))
    }
}
