//! What stands in the place of a file system that cannot be mounted: a root directory that nobody can enter.
//!
//! A program that had its files there would otherwise find the directory below, which is another file system's, and put them
//! into that one: plain, if the missing one is encrypted.

use crate::{Options, kernel, table, unmount};
use fuser::{
    BackgroundSession, BsdFileFlags, Errno, FileHandle, Filesystem, INodeNo, OpenFlags, ReplyAttr,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request, TimeOrNow,
};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Covers, as tools show them after `fuse.`.
const KIND: &str = "zfs-closed";
/// The same as the kernel's table has it.
pub(crate) const TYPE: &[u8] = b"fuse.zfs-closed";
/// "Required key not available" of Linux.
const ENOKEY: i32 = 126;

/// Why the file system is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lack {
    /// Its key is not loaded: programs get `ENOKEY`.
    Key,
    /// Something else: `EIO`.
    Other,
}

/// A directory that nobody can enter. Dropping it lets it stay until it is lifted.
pub struct Cover {
    session: BackgroundSession,
    dir: PathBuf,
}

/// Covers `dir` in the place of the file system `name`.
///
/// # Errors
/// The system's.
pub fn cover(name: &str, dir: &Path, lack: Lack) -> io::Result<Cover> {
    let flags = kernel::Flags { read_only: false, atime: false, devices: false, exec: false, setuid: false };
    let options = Options { threads: 1, ..Options::default() };
    let session = kernel::mount(Closed(lack), (name, KIND), dir, flags, &options)?;
    Ok(Cover { session, dir: dir.to_path_buf() })
}

impl Cover {
    /// The same, to be moved to `dir` ([`crate::stage`]).
    #[must_use]
    pub fn at(self, dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), ..self }
    }
    /// Whether it was taken away from outside.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.session.guard.is_finished()
    }
    /// Takes it away, if it is there still.
    ///
    /// # Errors
    /// The system's.
    pub fn lift(self) -> io::Result<()> {
        match table::top(&self.dir) {
            Some(top) if top.kind == TYPE => unmount(&self.dir, true),
            _ => Ok(()),
        }
    }
}

/// The server: whatever can be asked of a root directory fails.
struct Closed(Lack);

impl Closed {
    fn errno(&self) -> Errno {
        match self.0 {
            Lack::Key => Errno::from_i32(ENOKEY),
            Lack::Other => Errno::EIO,
        }
    }
}

impl Filesystem for Closed {
    fn lookup(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(self.errno());
    }
    fn getattr(&self, _: &Request, _: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.error(self.errno());
    }
    fn setattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(self.errno());
    }
    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(self.errno());
    }
    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(self.errno());
    }
    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(self.errno());
    }
    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(self.errno());
    }
    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(self.errno());
    }
    /// Nothing holds no blocks, which `df` leaves out of its list; a failure it would complain of each time.
    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, 512, 255, 512);
    }
}
