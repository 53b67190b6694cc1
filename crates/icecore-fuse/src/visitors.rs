//! Who works in a place of a mount: the kernel tells a file system of this kind what is opened, but not where programs stand, so
//! they are asked.
//!
//! Invariants:
//! 1. No request comes of it, and no path of a mount is walked: the kernel says what it has at hand. So the pool may be in hand.
//! 2. It is a look and no lock: who comes a moment later is not seen.

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the paths have in them that are worth asking about: file systems of others may make who asks wait.
const WITHIN: &[u8] = b"/.zfs/";

/// Whether a process stands in, or has open, a file of this device (major, minor) whose number is one of those that `is_inside`
/// takes. Of those that this process may look at.
pub(crate) fn any(device: (u32, u32), is_inside: impl Fn(u64) -> bool) -> bool {
    let number = |e: &std::fs::DirEntry| e.file_name().as_bytes().iter().all(u8::is_ascii_digit);
    let processes = entries(Path::new("/proc")).filter(number).map(|e| e.path());
    let mut links = processes.flat_map(|process| {
        let open = entries(&process.join("fd")).map(|e| e.path()).collect::<Vec<PathBuf>>();
        [process.join("cwd"), process.join("root")].into_iter().chain(open)
    });
    links.any(|link| {
        let Ok(target) = std::fs::read_link(&link) else { return false };
        if !target.as_os_str().as_bytes().windows(WITHIN.len()).any(|w| w == WITHIN) {
            return false;
        }
        statx(CWD, &link, AtFlags::STATX_DONT_SYNC, StatxFlags::INO)
            .is_ok_and(|s| (s.stx_dev_major, s.stx_dev_minor) == device && is_inside(s.stx_ino))
    })
}

/// What is in a folder; nothing where it cannot be read.
fn entries(folder: &Path) -> impl Iterator<Item = std::fs::DirEntry> {
    std::fs::read_dir(folder).into_iter().flatten().flatten()
}
