//! A folder of this machine that files are copied into, and nothing beside it.
//!
//! Invariants:
//! 1. Every name is used relative to an open directory, alone: never a path, never `..`. [`safe`] is the only way in.
//! 2. Symbolic links that lie in the folder (from an earlier copy, say) are never followed, only replaced.
//! 3. A file is made anew, and only for its owner until its mode is set.

use icecore_zpl::{FileKind, Time, Xattr, Znode, is_safe_name};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags, fchmod, fchown,
    fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, openat2, symlinkat, unlinkat, utimensat,
};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Results of operations on the machine's files.
pub type Done<T = ()> = Result<T, Errno>;

/// A name that may be used in a directory.
fn safe(name: &[u8]) -> Done<&OsStr> {
    if is_safe_name(name) { Ok(OsStr::from_bytes(name)) } else { Err(Errno::INVAL) }
}

/// Opens a directory that the user named; links in what was typed are the user's own.
pub fn open_typed(path: &str) -> Done<OwnedFd> {
    openat(rustix::fs::CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Makes a directory, or takes the one that is there. Until it is left only its owner can use it.
pub fn directory(parent: BorrowedFd<'_>, name: &[u8]) -> Done<OwnedFd> {
    let name = safe(name)?;
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    openat(parent, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Takes away what has the name, unless it is a directory.
fn clear(parent: BorrowedFd<'_>, name: &OsStr) -> Done {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e),
    }
}

/// A new, empty regular file.
pub fn file(parent: BorrowedFd<'_>, name: &[u8]) -> Done<File> {
    let name = safe(name)?;
    clear(parent, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// A symbolic link.
pub fn symlink(parent: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> Done {
    let name = safe(name)?;
    clear(parent, name)?;
    symlinkat(OsStr::from_bytes(target), parent, name)
}

/// A pipe, socket or device.
pub fn special(parent: BorrowedFd<'_>, name: &[u8], z: &Znode) -> Done {
    let kind = match z.kind {
        FileKind::Fifo => FileType::Fifo,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharacterDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        _ => return Err(Errno::INVAL),
    };
    let (major, minor) = z.device();
    let name = safe(name)?;
    clear(parent, name)?;
    mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, makedev(major, minor))
}

/// Another name for a file copied before; `first` is its path below `top`, of names that this copy made.
pub fn hard_link(top: BorrowedFd<'_>, first: &[u8], parent: BorrowedFd<'_>, name: &[u8]) -> Done {
    let name = safe(name)?;
    let (dir, file) = match first.iter().rposition(|b| *b == b'/') {
        Some(at) => (&first[..at], &first[at + 1..]),
        None => (&b"."[..], first),
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat2(top, OsStr::from_bytes(dir), flags, Mode::empty(), resolve)?;
    clear(parent, name)?;
    linkat(&dir, safe(file)?, parent, name, AtFlags::empty())
}

/// Permissions that a copy gets: all with `preserve`, else those the user's mask leaves.
pub fn set_mode(fd: impl AsFd, mode: u32, umask: Option<Mode>) -> Done {
    match umask {
        None => fchmod(fd, Mode::from_raw_mode(mode & 0o7777)),
        Some(mask) => fchmod(fd, Mode::from_raw_mode(mode & 0o777) & !mask),
    }
}

/// Sets owner and group.
pub fn set_owner(fd: impl AsFd, uid: u32, gid: u32) -> Done {
    let (uid, gid) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(gid));
    fchown(fd, Some::<Uid>(uid), Some::<Gid>(gid))
}

/// The same for what cannot be opened.
pub fn set_owner_at(parent: BorrowedFd<'_>, name: &[u8], uid: u32, gid: u32) -> Done {
    let (uid, gid) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(gid));
    rustix::fs::chownat(parent, safe(name)?, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets the mode of what cannot be opened and is no symbolic link.
pub fn set_mode_at(parent: BorrowedFd<'_>, name: &[u8], mode: u32, umask: Option<Mode>) -> Done {
    let bits = match umask {
        None => Mode::from_raw_mode(mode & 0o7777),
        Some(mask) => Mode::from_raw_mode(mode & 0o777) & !mask,
    };
    rustix::fs::chmodat(parent, safe(name)?, bits, AtFlags::empty())
}

fn times(atime: Time, mtime: Time) -> Timestamps {
    let at = |t: Time| Timespec { tv_sec: t.seconds, tv_nsec: i64::from(t.nanos) as _ };
    Timestamps { last_access: at(atime), last_modification: at(mtime) }
}

/// Sets the times of reading and writing.
pub fn set_times(fd: impl AsFd, z: &Znode) -> Done {
    futimens(fd, &times(z.atime, z.mtime))
}

/// The same for what cannot be opened.
pub fn set_times_at(parent: BorrowedFd<'_>, name: &[u8], z: &Znode) -> Done {
    utimensat(parent, safe(name)?, &times(z.atime, z.mtime), AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets an extended attribute by the name Linux gives it; those of other systems are not for here.
pub fn set_xattr(fd: impl AsFd, x: &Xattr) -> Done {
    let Some(name) = x.linux_name() else { return Err(Errno::OPNOTSUPP) };
    fsetxattr(fd, OsStr::from_bytes(&name), &x.value, XattrFlags::empty())
}
