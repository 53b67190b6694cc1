//! What `stat` says (`zfs_getattr_fast`, zfs_vnops_os.c).

use crate::ino::{Node, ViewId};
use crate::views::{At, Snapdir};
use fuser::{FileAttr, FileType, INodeNo};
use icecore_zpl::{FileKind, Filesystem, Time, Znode};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Socket => FileType::Socket,
    }
}

/// Seconds from 1970 that a file's time may be away; a hostile one beyond would overflow in conversions.
const SECONDS_MAX: i64 = 1 << 56;

/// A time as the system has it.
pub(crate) fn system_time(t: Time) -> SystemTime {
    let seconds = t.seconds.clamp(-SECONDS_MAX, SECONDS_MAX);
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    base.and_then(|b| b.checked_add(Duration::from_nanos(t.nanos.into()))).unwrap_or(UNIX_EPOCH)
}

/// Of a file.
pub(crate) fn of(at: &At<'_>, view: ViewId, z: &Znode) -> FileAttr {
    let is_root = z.id == at.fs().root();
    // A directory that shows has its `..` counted.
    let control = u64::from(is_root && at.facts.snapdir == Snapdir::Visible);
    let (major, minor) = z.device();
    FileAttr {
        ino: INodeNo(Node::Object(view, z.id).number()),
        size: z.size,
        blocks: blocks(at, z),
        atime: system_time(z.atime),
        mtime: system_time(z.mtime),
        ctime: system_time(z.ctime),
        crtime: system_time(z.crtime),
        kind: file_type(z.kind),
        perm: (z.mode & 0o7777) as u16,
        nlink: u32::try_from(z.links.saturating_add(control)).unwrap_or(u32::MAX),
        uid: Filesystem::posix_id(z.uid),
        gid: Filesystem::posix_id(z.gid),
        rdev: device_word(major, minor),
        blksize: u32::try_from(z.dnode().block_size()).unwrap_or(u32::MAX),
        flags: 0,
    }
}

/// Blocks of 512 bytes, the head's own among them (`dmu_object_size_from_db`, dmu.c): none would say that a file is all holes. What
/// waits in memory counts as if it were written, as far as the file has room for it beside what is.
fn blocks(at: &At<'_>, z: &Znode) -> u64 {
    let block = z.dnode().block_size().max(1);
    let waiting = (at.fs().objset().buffers(z.id) as u64).saturating_mul(block);
    let whole = z.size.checked_next_multiple_of(block).unwrap_or(z.size).max(z.allocated());
    let bytes = z.allocated().saturating_add(waiting).min(whole);
    bytes.saturating_add(256) / 512 + 1 + u64::from(z.dnode().extra_slots())
}

/// Major and minor as FUSE packs them (`new_encode_dev`, Linux).
fn device_word(major: u32, minor: u32) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12
}

/// Of a directory that is on no disk: read and entered by all, like the root it belongs to in its times.
pub(crate) fn made_up(node: Node, root: &FileAttr) -> FileAttr {
    FileAttr {
        ino: INodeNo(node.number()),
        size: 2,
        blocks: 0,
        kind: FileType::Directory,
        perm: 0o555,
        nlink: 2,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 512,
        ..*root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_beyond_all_clocks() {
        let before = system_time(Time { seconds: -1, nanos: 250_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(before).unwrap(), Duration::from_millis(750));
        let least = system_time(Time { seconds: i64::MIN, nanos: 0 });
        assert_eq!(UNIX_EPOCH.duration_since(least).unwrap(), Duration::from_secs(1 << 56));
        assert_eq!(device_word(8, 1), 0x801);
        assert_eq!(device_word(259, 0x12345), 0x1231_0345);
    }
}
