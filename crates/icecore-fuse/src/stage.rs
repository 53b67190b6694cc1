//! Where mounts are put together before anybody sees them: a folder that only root may enter, from which a tree of mounts is
//! moved to its place in one step. It takes root.
//!
//! A tree often has to come where one lies whose process is gone, or a cover of ours. Whoever tries a path through those gets
//! errors; were they taken away first, he would for a moment find the directory below, which is another file system's. So the
//! new tree comes below the old one, which is then taken off it (`MOVE_MOUNT_BENEATH`, Linux 6.5), or on top of it, where the
//! kernel cannot do that. What then stays below is for [`clear`] when the tree goes.

use crate::{cover, table, unmount};
use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// More than these were never stacked by us.
const STACK_MAX: usize = 100;

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A place to put mounts together. What was not shown when it is dropped is gone with it.
pub struct Stage {
    dir: PathBuf,
    spots: u32,
}

impl Stage {
    /// Makes one in `folder`.
    ///
    /// # Errors
    /// The system's; that of who is not root.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let dir = folder.join(SERIAL.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let dir = dir.canonicalize()?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("icecore", &dir, "tmpfs", flags, Some(c"mode=0700,size=1m"))?;
        let stage = Self { dir, spots: 0 };
        // Nothing can be moved out of what other namespaces share.
        rustix::mount::mount_change(&stage.dir, MountPropagationFlags::PRIVATE)?;
        Ok(stage)
    }
    /// A directory for the root of a tree.
    ///
    /// # Errors
    /// The system's.
    pub fn spot(&mut self) -> io::Result<PathBuf> {
        self.spots += 1;
        let spot = self.dir.join(self.spots.to_string());
        std::fs::create_dir(&spot)?;
        Ok(spot)
    }
    /// Moves the tree at `spot` to `dir`: in the place of what is dead or a cover there, else on top of what is there.
    ///
    /// # Errors
    /// The system's.
    pub fn show(&self, spot: &Path, dir: &Path) -> io::Result<()> {
        if is_left(dir) {
            let below = MoveMountFlags::MOVE_MOUNT_BENEATH;
            if rustix::mount::move_mount(CWD, spot, CWD, dir, below).is_ok() {
                return unmount(dir, true);
            }
        }
        Ok(rustix::mount::mount_move(spot, dir)?)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.dir, UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// Takes away the stages in `folder` of a process that died.
pub fn clear_stages(folder: &Path) {
    let Ok(folder) = folder.canonicalize() else { return };
    for line in table::all().iter().filter(|l| l.kind == b"tmpfs" && l.dir.parent() == Some(&folder)) {
        let _ = rustix::mount::unmount(&line.dir, UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(&line.dir);
    }
}

/// Whether a mount of ours is at `dir` that is dead, or a cover.
#[must_use]
pub fn is_left(dir: &Path) -> bool {
    table::top(dir).is_some_and(|top| top.kind == cover::TYPE || is_ours(&top.kind) && is_dead(dir))
}

/// Whether nobody answers there. What the kernel has in memory is no answer.
fn is_dead(dir: &Path) -> bool {
    use rustix::io::Errno;
    let asked = rustix::fs::statx(CWD, dir, AtFlags::STATX_FORCE_SYNC, StatxFlags::MODE);
    // Aborted: it waited while the connection ended.
    matches!(asked, Err(Errno::NOTCONN | Errno::CONNABORTED))
}

/// Takes away what [`is_left`] finds, one above the other.
pub fn clear(dir: &Path) {
    for _ in 0..STACK_MAX {
        if !is_left(dir) || unmount(dir, true).is_err() {
            return;
        }
    }
}

/// Whether a mount of this type (`table::Line`) is one of ours.
#[must_use]
pub fn is_ours(kind: &[u8]) -> bool {
    // What root mounts without fusermount3 has no second part.
    matches!(kind, b"fuse.zfs" | b"fuse.icecore" | b"fuse") || kind == cover::TYPE
}
