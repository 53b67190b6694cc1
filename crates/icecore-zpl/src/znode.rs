//! One file's attributes (`znode_phys_t` and its successors as system attributes; zfs_znode.h).

use crate::error::{Result, ZplError};
use crate::sa::{self, Attr, Attrs};
use icecore_format::{Dnode, ObjectId, ObjectType};

/// What a file is, from the format bits of its mode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FileKind {
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A directory.
    Directory,
    /// A block device.
    BlockDevice,
    /// A regular file.
    Regular,
    /// A symbolic link.
    Symlink,
    /// A socket.
    Socket,
}

impl FileKind {
    /// From a mode's format bits (`S_IFMT`), which are also the types of directory entries times 4096.
    #[must_use]
    pub fn from_mode(mode: u64) -> Option<Self> {
        Some(match mode >> 12 & 0xf {
            1 => Self::Fifo,
            2 => Self::CharDevice,
            4 => Self::Directory,
            6 => Self::BlockDevice,
            8 => Self::Regular,
            10 => Self::Symlink,
            12 => Self::Socket,
            _ => return None,
        })
    }
    /// The letter of `find -type`.
    #[must_use]
    pub fn find_letter(self) -> char {
        match self {
            Self::Regular => 'f',
            other => other.ls_letter(),
        }
    }
    /// The letter of `ls -l`.
    #[must_use]
    pub fn ls_letter(self) -> char {
        match self {
            Self::Fifo => 'p',
            Self::CharDevice => 'c',
            Self::Directory => 'd',
            Self::BlockDevice => 'b',
            Self::Regular => '-',
            Self::Symlink => 'l',
            Self::Socket => 's',
        }
    }
}

/// A point in time: seconds since 1970 (negative before) and nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanos: u32,
}

/// Bits of `ZPL_FLAGS` (zfs_znode.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub u64);

const PROJID: u64 = 0x8000_0000_0000;
const TRIVIAL_ACL: u64 = 4;
/// Name and bit of the flags users set, as `zdb` and other tools call them.
const FLAG_NAMES: [(&str, u64); 15] = [
    ("readonly", 0x1_0000_0000),
    ("hidden", 0x2_0000_0000),
    ("system", 0x4_0000_0000),
    ("archive", 0x8_0000_0000),
    ("immutable", 0x10_0000_0000),
    ("nounlink", 0x20_0000_0000),
    ("appendonly", 0x40_0000_0000),
    ("nodump", 0x80_0000_0000),
    ("opaque", 0x100_0000_0000),
    ("av_quarantined", 0x200_0000_0000),
    ("av_modified", 0x400_0000_0000),
    ("reparse", 0x800_0000_0000),
    ("offline", 0x1000_0000_0000),
    ("sparse", 0x2000_0000_0000),
    ("projinherit", 0x4000_0000_0000),
];

impl Flags {
    /// The file may not be changed.
    #[must_use]
    pub fn is_immutable(self) -> bool {
        self.0 & 0x10_0000_0000 != 0
    }
    /// The file may only be appended to.
    #[must_use]
    pub fn is_append_only(self) -> bool {
        self.0 & 0x40_0000_0000 != 0
    }
    /// The access control list says no more than the mode.
    #[must_use]
    pub fn has_trivial_acl(self) -> bool {
        self.0 & TRIVIAL_ACL != 0
    }
    /// The object is an extended attribute or the directory of them.
    #[must_use]
    pub fn is_xattr(self) -> bool {
        self.0 & 1 != 0
    }
    /// Names of the flags that are set, those about access control lists left out.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        FLAG_NAMES.into_iter().filter(move |(_, bit)| self.0 & bit != 0).map(|(name, _)| name)
    }
}

/// A file's attributes.
#[derive(Clone, Debug)]
pub struct Znode {
    /// The object: the inode number.
    pub id: ObjectId,
    /// What it is.
    pub kind: FileKind,
    /// Mode with its format bits, as `st_mode`.
    pub mode: u32,
    /// Size in bytes; of a directory its entries and 2, of a symbolic link its target's length.
    pub size: u64,
    /// Names that lead here.
    pub links: u64,
    /// Owner as stored: a FUID (see [`crate::Filesystem::posix_id`]).
    pub uid: u64,
    /// Group as stored: a FUID.
    pub gid: u64,
    /// Flags.
    pub flags: Flags,
    /// Txg of creation; tells objects of one number apart.
    pub generation: u64,
    /// The directory it was made in or moved to.
    pub parent: ObjectId,
    /// Device number as stored; see [`Self::device`].
    pub rdev: u64,
    /// Project, where projects are accounted.
    pub project: Option<u64>,
    /// Last read.
    pub atime: Time,
    /// Contents last changed.
    pub mtime: Time,
    /// Attributes last changed.
    pub ctime: Time,
    /// Created.
    pub crtime: Time,
    pub(crate) dn: Dnode,
}

/// Whether a bonus of this type makes an object a file.
pub(crate) fn has_znode(dn: &Dnode) -> bool {
    matches!(dn.bonus_type(), ObjectType::SA | ObjectType::ZNODE)
}

impl Znode {
    /// The object's head.
    #[must_use]
    pub fn dnode(&self) -> &Dnode {
        &self.dn
    }
    /// Bytes allocated on disk, copies and parity counted as OpenZFS does.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.dn.used_bytes()
    }
    /// Whether the bonus is a `znode_phys_t`.
    pub(crate) fn is_legacy(&self) -> bool {
        self.dn.bonus_type() == ObjectType::ZNODE
    }
    /// Major and minor number of a device. Linux stores its kernel's 12 and 20 bits (zfs_znode_os.c hands them to
    /// `init_special_inode` as they are), Solaris a major of 32 bits above a minor of 32 bits.
    #[must_use]
    pub fn device(&self) -> (u32, u32) {
        let (high, low) = ((self.rdev >> 32) as u32, self.rdev as u32);
        if high != 0 { (high, low) } else { (low >> 20, low & 0xf_ffff) }
    }

    /// In the place of a directory whose attributes are lost: it can be looked into, for what is known of its files.
    pub(crate) fn lost_directory(id: ObjectId) -> Self {
        let never = Time::default();
        Self {
            id,
            kind: FileKind::Directory,
            mode: 0o40_755,
            size: 2,
            links: 2,
            uid: 0,
            gid: 0,
            flags: Flags(TRIVIAL_ACL),
            generation: 0,
            parent: ObjectId(0),
            rdev: 0,
            project: None,
            atime: never,
            mtime: never,
            ctime: never,
            crtime: never,
            dn: Dnode::empty(1),
        }
    }

    /// From bonus and, where needed, spill. `spill` is asked for once if an attribute is not in the bonus.
    pub(crate) fn new(id: ObjectId, dn: Dnode, bonus: &Attrs<'_>, spill: &Attrs<'_>) -> Result<Self> {
        let word = |attr: Attr, i: usize| bonus.word(attr, i).or_else(|| spill.word(attr, i));
        let need = |attr: Attr, i: usize| {
            word(attr, i).ok_or_else(|| ZplError::corrupt("znode", id, format!("no {attr:?}")))
        };
        let mode = need(Attr::Mode, 0)?;
        let kind = FileKind::from_mode(mode);
        let kind = kind.ok_or_else(|| ZplError::corrupt("znode", id, format!("mode {mode:o}")))?;
        let flags = Flags(need(Attr::Flags, 0)?);
        let time = |attr: Attr| -> Result<Time> {
            #[allow(clippy::cast_possible_wrap)] // stored as the bits of a signed number
            let seconds = need(attr, 0)? as i64;
            let nanos = u32::try_from(need(attr, 1)?).ok().filter(|n| *n < 1_000_000_000);
            Ok(Time { seconds, nanos: nanos.unwrap_or(0) })
        };
        Ok(Self {
            id,
            kind,
            mode: (mode & 0xffff) as u32,
            size: need(Attr::Size, 0)?,
            links: need(Attr::Links, 0)?,
            uid: need(Attr::Uid, 0)?,
            gid: need(Attr::Gid, 0)?,
            flags,
            generation: need(Attr::Gen, 0)?,
            parent: ObjectId(need(Attr::Parent, 0)?),
            rdev: word(Attr::Rdev, 0).unwrap_or(0),
            project: word(Attr::Projid, 0).filter(|_| flags.0 & PROJID != 0),
            atime: time(Attr::Atime)?,
            mtime: time(Attr::Mtime)?,
            ctime: time(Attr::Ctime)?,
            crtime: time(Attr::Crtime).unwrap_or_default(),
            dn,
        })
    }

    /// Whether all attributes that [`Self::new`] looks for are in the bonus.
    pub(crate) fn complete(bonus: &Attrs<'_>) -> bool {
        let always = [Attr::Mode, Attr::Size, Attr::Gen, Attr::Uid, Attr::Gid, Attr::Parent, Attr::Flags];
        let times = [Attr::Atime, Attr::Mtime, Attr::Ctime, Attr::Crtime, Attr::Links];
        let flags = bonus.word(Attr::Flags, 0).unwrap_or(0);
        let kind = FileKind::from_mode(bonus.word(Attr::Mode, 0).unwrap_or(0));
        let device = matches!(kind, Some(FileKind::CharDevice | FileKind::BlockDevice));
        always.iter().chain(&times).all(|a| bonus.get(*a).is_some())
            && (flags & PROJID == 0 || bonus.get(Attr::Projid).is_some())
            && (!device || bonus.get(Attr::Rdev).is_some())
    }

    /// The target of a symbolic link that follows a `znode_phys_t` in the bonus (`zfs_sa_readlink`, zfs_sa.c).
    pub(crate) fn legacy_tail(&self) -> &[u8] {
        self.dn.bonus().get(sa::ZNODE_SIZE..).unwrap_or(&[])
    }
}
