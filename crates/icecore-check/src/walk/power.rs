//! Power goes during a change, and with it what the drives had in their caches.
//!
//! The program, made with the feature `power-cuts` of `icecore_env`, writes down what it wrote since the last flush of each
//! drive. Of each sector written since some version stays: what was there, or any that was written, each sector for
//! itself. So writes are lost, torn and reordered, but never across a flush.

use super::{COLD, Outcome, POOLS, Step, Walk};
use icecore_sim::Rng;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const SECTOR: usize = 512;
/// Writes and flushes until the cut, at most.
const OPERATIONS: u64 = 120;

/// Contents of a sector, from the durable ones on.
type Versions = BTreeMap<u64, Vec<Vec<u8>>>;

/// The sectors a log tells of. What the process was killed in the midst of writing down counts for nothing: it never came
/// to be written.
fn versions(log: &[u8]) -> Outcome<Versions> {
    let mut out = Versions::new();
    let mut rest = log;
    while let Some((head, more)) = rest.split_at_checked(16) {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        let (offset, len) = (word(0), word(8) as usize);
        let Some((old, more)) = more.split_at_checked(len) else { break };
        let Some((new, more)) = more.split_at_checked(len) else { break };
        rest = more;
        if !offset.is_multiple_of(SECTOR as u64) || !len.is_multiple_of(SECTOR) {
            return Err(format!("{len} bytes were written at {offset}: no whole sectors"));
        }
        for (i, (old, new)) in old.chunks(SECTOR).zip(new.chunks(SECTOR)).enumerate() {
            let known = out.entry(offset / SECTOR as u64 + i as u64).or_insert_with(|| vec![old.to_vec()]);
            known.push(new.to_vec());
        }
    }
    Ok(out)
}

/// What stays of the unflushed writes to a drive.
fn lose(rng: &mut Rng, image: &Path, log: &[u8]) -> Outcome<u64> {
    let failed = |e: std::io::Error| format!("{}: {e}", image.display());
    let file = OpenOptions::new().write(true).open(image).map_err(failed)?;
    let how = rng.below(4);
    let mut lost = 0;
    for (sector, known) in versions(log)? {
        let newest = known.len() - 1;
        let kept = match how {
            0 => 0,
            1 => newest,
            2 => rng.below(known.len() as u64) as usize,
            // Most of it.
            _ => {
                if rng.one_in(8) {
                    rng.below(known.len() as u64) as usize
                } else {
                    newest
                }
            }
        };
        lost += u64::from(kept != newest);
        file.write_all_at(&known[kept], sector * SECTOR as u64).map_err(failed)?;
    }
    Ok(lost)
}

impl Walk {
    /// A command during which, or after which, power goes.
    pub(super) fn power_cut(&mut self) -> Outcome<Step> {
        let operations = self.rng.below(OPERATIONS);
        let outcome = self.dies(|walk, words, input| {
            let cut = walk.desk.power().join("cut");
            fs::write(&cut, operations.to_string()).map_err(|e| e.to_string())?;
            let acknowledged = walk.desk.doomed(words, input, || Ok(()))?;
            walk.desk.kill_service()?;
            if cut.exists() {
                fs::remove_file(&cut).map_err(|e| e.to_string())?;
            }
            walk.lose_power()?;
            Ok(acknowledged)
        })?;
        // What was there before is there still.
        if outcome != Step::Skipped {
            self.compare_some()?;
        }
        Ok(outcome)
    }

    /// All drives lose what they did not flush.
    fn lose_power(&mut self) -> Outcome {
        let failed = |e: std::io::Error| format!("losing power: {e}");
        for pool in POOLS.into_iter().chain([COLD]) {
            let mut images = Vec::new();
            for entry in fs::read_dir(self.desk.path(pool)).map_err(failed)? {
                images.push(entry.map_err(failed)?.path());
            }
            images.sort();
            for image in images {
                let inode = image.metadata().map_err(failed)?.ino();
                let log = self.desk.power().join(format!("{inode}.log"));
                let Ok(bytes) = fs::read(&log) else { continue };
                self.report.lost += lose(&mut self.rng, &image, &bytes)?;
                fs::remove_file(&log).map_err(failed)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_all_versions_of_each_sector() {
        let entry = |offset: u64, old: &[u8], new: &[u8]| {
            [&offset.to_le_bytes()[..], &(old.len() as u64).to_le_bytes(), old, new].concat()
        };
        let (a, b, c) = ([1; SECTOR], [2; SECTOR], [3; SECTOR]);
        let log = [entry(1024, &[a, a].concat(), &[b, a].concat()), entry(1024, &b, &c)].concat();
        let known = versions(&log).unwrap();
        assert_eq!(known.keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(known[&2], [a.to_vec(), b.to_vec(), c.to_vec()]);
        assert_eq!(versions(&log[..log.len() - 1]).unwrap()[&2], [a.to_vec(), b.to_vec()]);
        assert!(versions(&entry(100, &a, &b)).is_err());
    }
}
