//! What a service that died had mounted is mounted again by the next one.
//!
//! Programs that use those mounts try again and again meanwhile. So there is no moment at which they could reach what lies below:
//! each tree of mounts is put together unseen, with covers for what cannot be mounted, and then comes in the place of the dead
//! one in one step ([`icecore_fuse::stage`]). Without root there is no such step: each dead mount goes, and the new one comes.

use super::closed::{self, Closed};
use super::{How, Kept, NEWS, file, home_of, lock, remember};
use crate::fail::Outcome;
use crate::pools::{self, Owned};
use crate::session::NotOpen;
use crate::state::{self, Imported};
use icecore_fuse::Said;
use icecore_fuse::cover::Lack;
use icecore_fuse::stage::{Stage, clear, clear_stages};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Mounts everything again.
pub fn restore() {
    let mut all: Vec<(Imported, Kept)> = Vec::new();
    for record in state::all().unwrap_or_default() {
        let kept = file(&record.name).ok().and_then(|p| std::fs::read(p).ok());
        let kept: Vec<Kept> = kept.and_then(|k| serde_json::from_slice(&k).ok()).unwrap_or_default();
        all.extend(kept.into_iter().map(|k| (record.clone(), k)));
    }
    if all.is_empty() {
        return;
    }
    // What lies in another comes after it.
    all.sort_by(|a, b| a.1.dir.cmp(&b.1.dir));
    let mut work = Restore::new();
    for (record, kept) in &all {
        if let Err(f) = work.one(record, kept) {
            lock(&NEWS).push(f.message);
        }
    }
    work.end();
}

/// A tree of mounts.
struct Tree {
    /// Where it belongs, and where it is put together.
    dir: PathBuf,
    spot: PathBuf,
}

struct Restore {
    stage: Option<Stage>,
    trees: Vec<Tree>,
    /// None is that which cannot be opened.
    pools: BTreeMap<String, Option<Arc<Owned>>>,
    /// Names of file systems without their keys.
    locked: Vec<String>,
    /// Directories that nobody can enter now.
    closed: Vec<PathBuf>,
}

impl Restore {
    fn new() -> Self {
        let stage = super::stages().and_then(|folder| {
            clear_stages(&folder);
            Stage::new(&folder).inspect_err(|e| eprintln!("{}: {e}", folder.display())).ok()
        });
        Self { stage, trees: Vec::new(), pools: BTreeMap::new(), locked: Vec::new(), closed: Vec::new() }
    }

    fn one(&mut self, record: &Imported, kept: &Kept) -> Outcome {
        let owned = self.pools.entry(record.name.clone()).or_insert_with(|| find(record)).clone();
        let found = owned.as_ref().map(|o| home_of(&o.shared().read(), kept.object, kept.guid)).transpose();
        let (home, unknown) = match found {
            Ok(Some(None)) => {
                // Destroyed, just before the service died.
                clear(&kept.dir);
                return Ok(());
            }
            Ok(home) => (home.flatten(), Ok(())),
            Err(f) => (None, Err(f)),
        };
        let lack = match &home {
            Some(home) if !home.unlocked => Lack::Key,
            _ => Lack::Other,
        };
        let as_closed = || Closed::new(&record.name, home.as_ref(), kept.clone(), lack);
        if let (Lack::Key, Some(home)) = (lack, &home) {
            self.locked.push(home.name.clone());
        }
        if self.closed.iter().any(|dir| kept.dir.starts_with(dir)) {
            closed::note(as_closed());
            return Ok(());
        }
        let path = match self.path(&kept.dir) {
            Ok(path) => path,
            Err(f) => {
                closed::note(as_closed());
                return Err(f);
            }
        };
        let mounted = match (&home, owned) {
            (Some(home), Some(owned)) if lack == Lack::Other => {
                let Kept { read_only, atime, devices, exec, setuid, .. } = *kept;
                let how = How { overlay: true, said: Said { read_only, atime, devices, exec, setuid } };
                Some(home.serve(&owned, &path, &kept.dir, how))
            }
            _ => None,
        };
        if let Some(Ok(())) = mounted {
            return Ok(());
        }
        closed::close(as_closed(), &path);
        self.closed.push(kept.dir.clone());
        mounted.unwrap_or(unknown)
    }

    /// Where what belongs at `dir` is to be mounted for now.
    fn path(&mut self, dir: &Path) -> Outcome<PathBuf> {
        let Some(stage) = &mut self.stage else {
            clear(dir);
            return Ok(dir.into());
        };
        for tree in &self.trees {
            if let Ok(rest) = dir.strip_prefix(&tree.dir) {
                return Ok(tree.spot.join(rest));
            }
        }
        let spot = stage.spot()?;
        self.trees.push(Tree { dir: dir.into(), spot: spot.clone() });
        Ok(spot)
    }

    /// Shows what was put together, and says what is lacking.
    fn end(self) {
        for Tree { dir, spot } in &self.trees {
            let shown = self.stage.as_ref().map(|stage| {
                if std::fs::symlink_metadata(dir).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
                    let _ = std::fs::create_dir_all(dir);
                }
                stage.show(spot, dir)
            });
            if let Some(Err(e)) = shown {
                lock(&NEWS).push(format!("cannot mount '{}': {}", dir.display(), super::reason(&e)));
            }
        }
        self.pools.keys().for_each(|name| remember(name));
        if !self.locked.is_empty() {
            lock(&NEWS).push(format!(
                "the service had ended, and with it the keys: no longer mounted until 'zfs mount -l': {}\n\
                 (their directories stay closed until then, or until 'zfs unmount')",
                self.locked.join(", ")
            ));
        }
    }
}

/// Opens a pool; what hinders that is told.
fn find(record: &Imported) -> Option<Arc<Owned>> {
    let tell =
        |n: &NotOpen| lock(&NEWS).push(format!("{}: not mounted again: {}", record.name, n.fail.message));
    pools::get(record).inspect_err(tell).ok()
}
