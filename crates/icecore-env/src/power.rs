//! Only with the feature `power-cuts`, for tests: writes to device files are written down until a flush, so that whoever
//! ends this process can play what a disk with a volatile cache loses when power goes.
//!
//! The folder is `ICECORE_POWER_DIR`; without it nothing happens. In it:
//! - `INODE.log`: the writes to that file since its last flush, oldest first, each as offset and length (two words of 64 bits,
//!   little-endian), the bytes that were there, the bytes that were written;
//! - `cut`: a number in decimal. The process that sees it takes it away, and dies before that many writes and flushes more
//!   are done. A write that power interrupts is in the log, and not in the file;
//! - `lies`: while it is there flushes keep nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Writes and flushes left until the cut.
static LEFT: Mutex<Option<u64>> = Mutex::new(None);

/// The device files, which do one thing after another as long as somebody has this.
pub(crate) struct Turn {
    _left: MutexGuard<'static, Option<u64>>,
}

fn folder() -> Option<&'static PathBuf> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(|| std::env::var_os("ICECORE_POWER_DIR").map(PathBuf::from)).as_ref()
}

fn log_of(folder: &std::path::Path, file: &File) -> io::Result<PathBuf> {
    Ok(folder.join(format!("{}.log", file.metadata()?.ino())))
}

/// Takes the turn; whether power goes with it.
fn take(folder: &std::path::Path) -> (Turn, bool) {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    let cut = folder.join("cut");
    if let Some(n) = fs::read_to_string(&cut).ok().and_then(|text| text.trim().parse().ok()) {
        let _ = fs::remove_file(&cut);
        *left = Some(n);
    }
    let over = *left == Some(0);
    *left = left.map(|n| n.saturating_sub(1));
    (Turn { _left: left }, over)
}

/// A file was opened for writing: what an earlier process wrote has reached it.
pub(crate) fn opened(file: &File) -> io::Result<()> {
    let Some(folder) = folder() else { return Ok(()) };
    match fs::remove_file(log_of(folder, file)?) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Before a write.
pub(crate) fn write(file: &File, offset: u64, data: &[u8]) -> io::Result<Option<Turn>> {
    let Some(folder) = folder() else { return Ok(None) };
    let (turn, over) = take(folder);
    let mut old = vec![0; data.len()];
    file.read_exact_at(&mut old, offset)?;
    let entry = [&offset.to_le_bytes()[..], &(data.len() as u64).to_le_bytes(), &old, data].concat();
    OpenOptions::new().create(true).append(true).open(log_of(folder, file)?)?.write_all(&entry)?;
    if over {
        std::process::abort();
    }
    Ok(Some(turn))
}

/// Before a flush.
pub(crate) fn flush() -> Option<Turn> {
    let (turn, over) = take(folder()?);
    if over {
        std::process::abort();
    }
    Some(turn)
}

impl Turn {
    /// After a flush that went well.
    pub(crate) fn flushed(self, file: &File) -> io::Result<()> {
        match folder() {
            Some(folder) if folder.join("lies").exists() => Ok(()),
            _ => opened(file),
        }
    }
}
