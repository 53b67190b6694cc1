//! The act "scrub": a scrub that one system pauses half-way and the other finishes, in both directions.
//!
//! A pool of very many small files of noise, for icecore keeps the place between one hundred thousand blocks and the next, in
//! which single bits of some files have rotted. Whoever finishes must tell of every one of them, those that
//! the other had met too, and of nothing else (`interop/scrub-pause.sh`, `interop/scrub-finish.sh`).

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use icecore_check::files;

use super::Stage;
use crate::bench::noise;
use crate::shell::{Outcome, output};

const IMAGE: &str = "scrubbed.img";
const FILES: usize = 250_000;
const FILE_BYTES: usize = 1 << 10;
/// One of so many files has rotted.
const ROTTEN: usize = 40_000;
/// A scrub may be over before it can be paused.
const TRIES: u32 = 80;
/// Moments of a scrub at which it is tried.
const STEPS: u32 = 20;

impl Stage {
    pub(super) fn scrub(&self) -> Outcome {
        let image = self.dir.join(IMAGE);
        File::create(&image).and_then(|f| f.set_len(512 << 20)).map_err(|e| format!("{IMAGE}: {e}"))?;
        self.icecore(&["zpool", "create", "-o", "ashift=9", "-m", "none", "scrubbed", &self.path(IMAGE)])?;
        self.icecore(&["zfs", "create", "scrubbed/fs"])?;
        self.icecore(&["zpool", "export", "scrubbed"])?;
        files::fill(&image, "scrubbed/fs", FILES, |i| noise(i, FILE_BYTES))?;
        self.let_files_rot()?;
        self.guest("scrub-pause.sh", &["rotten"], &[IMAGE])?;
        let took = self.finish_theirs()?;
        self.pause_ours(took)?;
        self.guest("scrub-finish.sh", &["rotten"], &[IMAGE]).map(drop)
    }

    /// Flips a bit in the middle of some files, whose noise is stored as it is, and notes their names.
    fn let_files_rot(&self) -> Outcome {
        let failed = |e: std::io::Error| format!("{IMAGE}: {e}");
        let whole = fs::read(self.dir.join(IMAGE)).map_err(failed)?;
        let file = File::options().write(true).open(self.dir.join(IMAGE)).map_err(failed)?;
        let mut names = String::new();
        for i in (0..FILES).step_by(ROTTEN) {
            let record = noise(i, FILE_BYTES);
            let head = record.get(FILE_BYTES / 2..).and_then(|r| r.get(..512)).ok_or("a short file")?;
            let sectors = (0..whole.len()).step_by(512);
            let place = sectors.into_iter().find(|at| whole.get(*at..).is_some_and(|b| b.starts_with(head)));
            let place = place.ok_or_else(|| format!("file-{i} is not in the image"))?;
            let byte = whole.get(place + 77).ok_or("past the end")? ^ 4;
            file.write_all_at(&[byte], place as u64 + 77).map_err(failed)?;
            names += &format!("file-{i}\n");
        }
        fs::write(self.dir.join("rotten"), names).map_err(failed)
    }

    /// What OpenZFS paused is known as that, goes on, and tells of all that has rotted. How long that took.
    fn finish_theirs(&self) -> Outcome<Duration> {
        self.import()?;
        let status = self.status()?;
        if !status.contains("scan: scrub paused since ") {
            return Err(format!("the scrub that OpenZFS paused is not known:\n{status}"));
        }
        let began = Instant::now();
        self.icecore(&["zpool", "scrub", "-w", "scrubbed"])?;
        let took = began.elapsed();
        self.told_of_all(&self.status()?)?;
        Ok(took)
    }

    /// Half-way is what the pool knows when it is imported again.
    fn pause_ours(&self, took: Duration) -> Outcome {
        for i in 0..TRIES {
            self.icecore(&["zpool", "scrub", "scrubbed"])?;
            // Sooner or later, so that one of them is after the place was kept for the first time.
            thread::sleep(took * (i % STEPS) / STEPS);
            self.icecore(&["zpool", "scrub", "-p", "scrubbed"])?;
            self.icecore(&["zpool", "export", "scrubbed"])?;
            self.import()?;
            let status = self.status()?;
            let done =
                status.split("% done").next().and_then(|s| s.rsplit([' ', '\t', '\n']).next()?.parse().ok());
            if status.contains("scan: scrub paused since ") && done.is_some_and(|d: f64| d > 5.0 && d < 95.0)
            {
                eprintln!("icecore has paused at {} %", done.unwrap_or_default());
                return self.icecore(&["zpool", "export", "scrubbed"]);
            }
            if status.contains("scan: scrub paused since ") {
                self.icecore(&["zpool", "scrub", "-w", "scrubbed"])?;
            }
        }
        Err(format!("no scrub of {TRIES} was caught half-way"))
    }

    fn import(&self) -> Outcome {
        self.icecore(&["zpool", "import", "-N", "-d", &self.path(IMAGE), "scrubbed"])
    }

    fn told_of_all(&self, status: &str) -> Outcome {
        let names = fs::read_to_string(self.dir.join("rotten")).map_err(|e| e.to_string())?;
        let count = names.lines().count();
        let told = |name: &str| status.lines().any(|l| l.trim() == format!("scrubbed/fs:/{name}"));
        let ended = status.contains(&format!(" with {count} errors on "));
        if ended && names.lines().all(told) && status.matches("scrubbed/fs:").count() == count {
            Ok(())
        } else {
            Err(format!("{count} files have rotted, and this is told:\n{status}"))
        }
    }

    fn status(&self) -> Outcome<String> {
        output(self.command().args(["zpool", "status", "-v", "scrubbed"]))
    }
}
