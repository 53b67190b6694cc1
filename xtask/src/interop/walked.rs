//! The act "walked": pools of a random walk, in the hands of real OpenZFS.
//!
//! Every so many steps the walk keeps its pools and what has to be in them (`icecore_check::walk`). OpenZFS imports each,
//! loads the keys, mounts, compares, scrubs, and `zdb` judges what became of it (`interop/walked.sh`).

use std::path::{Path, PathBuf};

use super::Stage;
use crate::shell::Outcome;
use crate::walk::{self, Length};

/// The walk of a full run.
const LENGTH: Length = Length { steps: 200, seed: 1, power: false, lies: false };
/// Moments of one boot: each is a disk.
const AT_ONCE: usize = 16;

impl Stage {
    pub(super) fn walked(&self) -> Outcome {
        let kept = self.dir.join("kept");
        walk::go(&self.icecore, LENGTH, Some(kept.clone()))?;
        self.moments(&kept)
    }

    /// Those that a walk kept in a folder.
    pub(super) fn moments(&self, kept: &Path) -> Outcome {
        let failed = |e: std::io::Error| format!("{}: {e}", kept.display());
        let entries = std::fs::read_dir(kept.canonicalize().map_err(failed)?).map_err(failed)?;
        let paths = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<PathBuf>, _>>();
        let mut tars = paths.map_err(failed)?;
        tars.retain(|p| p.extension().is_some_and(|e| e == "tar"));
        tars.sort();
        if tars.is_empty() {
            return Err(format!("{}: no moment of a walk was kept there", kept.display()));
        }
        for some in tars.chunks(AT_ONCE) {
            let disks: Vec<&str> = some.iter().filter_map(|p| p.to_str()).collect();
            self.guest("walked.sh", &[], &disks)?;
        }
        Ok(())
    }
}
