//! A file's attributes on their way back to bonus and spill.
//!
//! Invariant: attributes that are not understood keep their bytes and their place.

use super::Writer;
use crate::error::{Result, ZplError};
use crate::sa::{Attr, Placed};
use crate::znode::{FileKind, Time};
use icecore_dmu::objset::accounts::Owners;
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockStore, BlockWriter, Form, Objset};
use icecore_format::reader::u64_at;
use icecore_format::{ObjectId, ObjectType};

/// What a new file is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// An empty regular file.
    Regular,
    /// An empty directory.
    Directory,
    /// A symbolic link and where it leads.
    Symlink(Vec<u8>),
    /// A pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device, its number as Linux's kernel has it (12 bits major, 20 minor).
    CharDevice(u64),
    /// A block device.
    BlockDevice(u64),
}

impl What {
    fn format(&self) -> u64 {
        match self {
            Self::Fifo => 1,
            Self::CharDevice(_) => 2,
            Self::Directory => 4,
            Self::BlockDevice(_) => 6,
            Self::Regular => 8,
            Self::Symlink(_) => 10,
            Self::Socket => 12,
        }
    }
}

/// A file to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct New {
    /// What it is.
    pub what: What,
    /// Permissions and set-id bits; what stands above 0o7777 is ignored.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Now.
    pub now: Time,
}

/// Attributes to be set; the others stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// Permissions and set-id bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last read.
    pub atime: Option<Time>,
    /// Contents last changed.
    pub mtime: Option<Time>,
}

const FLAG_XATTR: u64 = 0x1;
const FLAG_TRIVIAL: u64 = 0x4;
const FLAG_AUTO_INHERIT: u64 = 0x40;
const FLAG_NO_EXECS_DENIED: u64 = 0x100;
const FLAG_ARCHIVE: u64 = 0x8_0000_0000;
const FLAG_AV_MODIFIED: u64 = 0x400_0000_0000;
const FLAG_PROJECT_INHERIT: u64 = 0x4000_0000_0000;
const FLAG_PROJECT: u64 = 0x8000_0000_0000;
/// Bytes of the spill pointer at the end of a bonus area.
const SPILL_POINTER: usize = 128;

/// A file's attributes in their order.
pub(super) struct Node {
    pub id: ObjectId,
    attrs: Vec<Placed>,
}

fn words(t: Time) -> Vec<u8> {
    [t.seconds.to_le_bytes(), i64::from(t.nanos).to_le_bytes()].concat()
}

/// The entries that say what the mode says: owner, what is denied before others are asked, group, everyone
/// (`acl_trivial_access_masks`, `zfs_acl_chmod`, zfs_acl.c). Count and bytes.
fn trivial_acl(mode: u64, directory: bool) -> (u64, Vec<u8>) {
    const OWNER: u32 = 0x001e_0198;
    const OTHERS: u32 = 0x0012_0088;
    let write = if directory { 0x46 } else { 0x6 };
    let masks = [(4, 1_u32), (2, write), (1, 0x20)];
    let of = |shift: u32, f: &dyn Fn(u64) -> bool| -> u32 {
        masks.iter().filter(|(bit, _)| f(*bit << shift)).fold(0, |all, (_, mask)| all | mask)
    };
    let (owner, group, other) =
        (of(6, &|b| mode & b != 0), of(3, &|b| mode & b != 0), of(0, &|b| mode & b != 0));
    let allow0 = owner & !group & other;
    let deny1 = !owner & (group | other);
    let deny2 = !group & other;
    let mut entries: Vec<(u16, u16, u32)> = Vec::new();
    if allow0 != 0 {
        entries.push((0, 0x1000, allow0));
    }
    if deny1 != 0 {
        entries.push((1, 0x1000, deny1));
    }
    if deny2 != 0 {
        entries.push((1, 0x2040, deny2));
    }
    entries.extend([(0, 0x1000, OWNER | owner), (0, 0x2040, OTHERS | group), (0, 0x4000, OTHERS | other)]);
    let bytes = entries.iter().flat_map(|(kind, flags, mask)| {
        [&kind.to_le_bytes()[..], &flags.to_le_bytes()[..], &mask.to_le_bytes()[..]].concat()
    });
    (entries.len() as u64, bytes.collect())
}

impl Node {
    /// The attributes of a new file, in OpenZFS's order (`zfs_mknode`).
    pub fn new(w: &Writer, new: &New, parent: &Self, txg: u64) -> Result<Self> {
        let directory = new.what == What::Directory;
        let mode = new.what.format() << 12 | u64::from(new.mode & 0o7777);
        let (count, aces) = trivial_acl(mode, directory);
        let inherit = if directory { FLAG_AUTO_INHERIT } else { 0 };
        let mut flags = FLAG_ARCHIVE | FLAG_AV_MODIFIED | FLAG_TRIVIAL | inherit | execs(mode);
        let project = w.projects.then(|| parent.project(w)).transpose()?;
        if project.is_some() {
            flags |= FLAG_PROJECT;
            let hands_on = parent.word(w, Attr::Flags)? & FLAG_PROJECT_INHERIT;
            flags |= if directory || new.what == What::Regular { hands_on } else { 0 };
        }
        let size = match &new.what {
            What::Directory => 2,
            What::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        let mut node = Self { id: ObjectId(0), attrs: Vec::new() };
        let mut put = |attr: Attr, bytes: Vec<u8>| node.set(w, attr, bytes);
        for (attr, word) in [
            (Attr::Mode, mode),
            (Attr::Size, size),
            (Attr::Gen, txg),
            (Attr::Uid, new.uid.into()),
            (Attr::Gid, new.gid.into()),
            (Attr::Parent, parent.id.0),
            (Attr::Flags, flags),
        ] {
            put(attr, word.to_le_bytes().to_vec())?;
        }
        for attr in [Attr::Atime, Attr::Mtime, Attr::Ctime, Attr::Crtime] {
            put(attr, words(new.now))?;
        }
        put(Attr::Links, (if directory { 2_u64 } else { 1 }).to_le_bytes().to_vec())?;
        if let Some(project) = project {
            put(Attr::Projid, project.to_le_bytes().to_vec())?;
        }
        if let What::CharDevice(device) | What::BlockDevice(device) = new.what {
            put(Attr::Rdev, device.to_le_bytes().to_vec())?;
        }
        put(Attr::DaclCount, count.to_le_bytes().to_vec())?;
        put(Attr::DaclAces, aces)?;
        if let What::Symlink(target) = &new.what {
            put(Attr::Symlink, target.clone())?;
        }
        Ok(node)
    }

    /// Who pays for it.
    pub fn owners(&self, w: &Writer) -> Result<Owners> {
        let project =
            if self.word(w, Attr::Flags)? & FLAG_PROJECT != 0 { self.word(w, Attr::Projid)? } else { 0 };
        Ok(Owners { user: self.word(w, Attr::Uid)?, group: self.word(w, Attr::Gid)?, project })
    }

    /// The project that files below this directory get (`zfs_inherit_projid`, zfs_znode.h).
    fn project(&self, w: &Writer) -> Result<u64> {
        let flags = self.word(w, Attr::Flags)?;
        if flags & FLAG_PROJECT == 0 || flags & FLAG_PROJECT_INHERIT == 0 {
            return Ok(0);
        }
        self.word(w, Attr::Projid)
    }

    /// The attributes of a file.
    pub fn load(w: &Writer, os: &Objset, io: &dyn BlockStore, id: ObjectId) -> Result<Self> {
        let dn = os.dnode(io, id)?;
        if dn.bonus_type() != ObjectType::SA {
            let why = format!("a bonus of type {:?} where attributes belong", dn.bonus_type());
            return Err(ZplError::corrupt("znode", id, why));
        }
        let mut attrs = w.registry.placed(&w.registry.native(dn.bonus())?)?;
        if let Some(spill) = os.spill(io, id, &dn)? {
            attrs.extend(w.registry.placed(&w.registry.native(&spill)?)?);
        }
        Ok(Self { id, attrs })
    }

    pub fn bytes(&self, w: &Writer, attr: Attr) -> Option<&[u8]> {
        let number = w.registry.number(attr)?;
        self.attrs.iter().find(|p| p.number == number).map(|p| p.bytes.as_slice())
    }
    /// A word that every file has.
    pub fn word(&self, w: &Writer, attr: Attr) -> Result<u64> {
        let bytes = self.bytes(w, attr).filter(|b| b.len() >= 8);
        let none = || ZplError::corrupt("znode", self.id, format!("no {attr:?}"));
        bytes.map(|b| u64_at(b, 0)).ok_or_else(none)
    }
    pub fn time(&self, w: &Writer, attr: Attr) -> Result<Time> {
        let bytes = self.bytes(w, attr).filter(|b| b.len() >= 16);
        let bytes = bytes.ok_or_else(|| ZplError::corrupt("znode", self.id, format!("no {attr:?}")))?;
        Ok(Time {
            seconds: u64_at(bytes, 0).cast_signed(),
            nanos: u32::try_from(u64_at(bytes, 8)).unwrap_or(0),
        })
    }
    pub fn set(&mut self, w: &Writer, attr: Attr, bytes: Vec<u8>) -> Result<()> {
        let none = || ZplError::Unsupported(format!("a file system that has not registered {attr:?}"));
        let number = w.registry.number(attr).ok_or_else(none)?;
        match self.attrs.iter_mut().find(|p| p.number == number) {
            Some(p) => p.bytes = bytes,
            None => self.attrs.push(Placed { number, bytes }),
        }
        Ok(())
    }
    pub fn set_word(&mut self, w: &Writer, attr: Attr, word: u64) -> Result<()> {
        self.set(w, attr, word.to_le_bytes().to_vec())
    }
    pub fn set_time(&mut self, w: &Writer, attr: Attr, t: Time) -> Result<()> {
        self.set(w, attr, words(t))
    }
    /// Contents or names changed (`zfs_tstamp_update_setup`).
    pub fn changed(&mut self, w: &Writer, now: Time) -> Result<()> {
        let flags = self.word(w, Attr::Flags)? | FLAG_ARCHIVE | FLAG_AV_MODIFIED;
        self.set_word(w, Attr::Flags, flags)?;
        self.set_time(w, Attr::Mtime, now)?;
        self.set_time(w, Attr::Ctime, now)
    }
    pub fn kind(&self, w: &Writer) -> Result<FileKind> {
        let mode = self.word(w, Attr::Mode)?;
        FileKind::from_mode(mode).ok_or_else(|| ZplError::corrupt("znode", self.id, format!("mode {mode:o}")))
    }
    /// The type in a directory entry.
    pub fn entry_word(&self, w: &Writer) -> Result<u64> {
        Ok((self.word(w, Attr::Mode)? >> 12 & 0xf) << 60 | self.id.0)
    }

    /// Sets the mode, and the NFSv4 list and flags that say the same.
    pub fn set_mode(&mut self, w: &Writer, mode: u64) -> Result<()> {
        let (count, aces) = trivial_acl(mode, mode >> 12 & 0xf == 4);
        self.set_word(w, Attr::Mode, mode)?;
        self.set_word(w, Attr::DaclCount, count)?;
        self.set(w, Attr::DaclAces, aces)?;
        let flags = self.word(w, Attr::Flags)? & !FLAG_NO_EXECS_DENIED;
        self.set_word(w, Attr::Flags, flags | FLAG_TRIVIAL | execs(mode))
    }
    /// Whether it is an extended attribute or the directory of them.
    pub fn is_xattr(&self, w: &Writer) -> Result<bool> {
        Ok(self.word(w, Attr::Flags)? & FLAG_XATTR != 0)
    }
    /// Makes it one.
    pub fn mark_xattr(&mut self, w: &Writer) -> Result<()> {
        let flags = self.word(w, Attr::Flags)? | FLAG_XATTR;
        self.set_word(w, Attr::Flags, flags)
    }

    pub fn apply(&mut self, w: &Writer, change: &Change, now: Time) -> Result<()> {
        if let Some(mode) = change.mode {
            self.set_mode(w, self.word(w, Attr::Mode)? & !0o7777 | u64::from(mode & 0o7777))?;
        }
        for (attr, value) in [(Attr::Uid, change.uid), (Attr::Gid, change.gid)] {
            if let Some(id) = value {
                self.set_word(w, attr, id.into())?;
            }
        }
        for (attr, value) in [(Attr::Atime, change.atime), (Attr::Mtime, change.mtime)] {
            if let Some(t) = value {
                self.set_time(w, attr, t)?;
            }
        }
        self.set_time(w, Attr::Ctime, now)
    }

    /// Room that all attributes take in one buffer.
    fn len(&self, w: &Writer) -> usize {
        w.registry.buffer_len(&self.attrs)
    }
    /// The length of a new object's bonus, in a head of `slots` slots.
    pub fn bonus_len(&self, w: &Writer, slots: u8) -> u16 {
        let max = usize::from(slots.max(1)) * 512 - 64 - 128;
        u16::try_from(self.len(w).min(max)).unwrap_or(0)
    }

    /// Puts the attributes back: all in the bonus where they fit, else those of the end in the spill block.
    pub fn store(&self, w: &mut Writer, os: &mut Objset, io: &mut dyn BlockWriter) -> Result<()> {
        let max = os.dnode(io, self.id)?.slots() * 512 - 64 - 128;
        let mut first = self.attrs.len();
        if self.len(w) > max {
            while first > 0
                && w.registry.buffer_len(self.attrs.get(..first).unwrap_or(&[])) > max - SPILL_POINTER
            {
                first -= 1;
            }
        }
        let (bonus, spill) = self.attrs.split_at(first);
        let had = os.dnode(io, self.id)?.has_spill();
        if spill.is_empty() && had {
            os.remove_spill(io, self.id)?;
        }
        let bytes = w.buffer(os, io, bonus)?;
        let len = u16::try_from(bytes.len()).map_err(|_| ZplError::TooLarge("attributes".into()))?;
        let dn = os.edit(io, self.id)?;
        dn.set_bonuslen(len);
        dn.bonus_mut().copy_from_slice(&bytes);
        if !spill.is_empty() {
            let mut bytes = w.buffer(os, io, spill)?;
            let size = bytes.len().next_multiple_of(512);
            bytes.resize(size, 0);
            let p = os.policy();
            let form = Form::Logical { compress: p.meta_compress, level: p.level, encrypt: p.encrypted };
            os.write_spill(io, self.id, size as u64, bytes, form)?;
        }
        Ok(())
    }
}

fn execs(mode: u64) -> u64 {
    if mode & 0o111 == 0o111 { FLAG_NO_EXECS_DENIED } else { 0 }
}

impl Writer {
    /// A buffer of these attributes, under a layout that the dataset has or gets now (`sa_find_layout`).
    fn buffer(&mut self, os: &mut Objset, io: &mut dyn BlockWriter, attrs: &[Placed]) -> Result<Vec<u8>> {
        let numbers: Vec<u16> = attrs.iter().map(|p| p.number).collect();
        let layout = match self.registry.layout_of(&numbers) {
            Some(layout) => layout,
            None => {
                let layout = self.registry.next_layout().ok_or_else(|| {
                    ZplError::Unsupported("more attribute layouts than a dataset can have".into())
                })?;
                let value = ZapValue::U16(numbers.clone());
                zap::add(os, io, self.layouts, &layout.to_string(), &value)?;
                self.registry.keep_layout(layout, numbers);
                layout
            }
        };
        Ok(self.registry.build(layout, attrs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_say_what_modes_say() {
        // As OpenZFS wrote them for directories of 0755 (icecore-dsl, `ROOT_ACES`).
        let (count, bytes) = trivial_acl(0o40755, true);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            (count, hex.as_str()),
            (3, "00000010ff011e0000004020a9001200000000 40a9001200".replace(' ', "").as_str())
        );
        // An owner with less than the others: a denial comes first.
        let (count, bytes) = trivial_acl(0o100_077, false);
        assert_eq!((count, &bytes[..8]), (4, &[1, 0, 0, 0x10, 0x27, 0, 0, 0][..]));
        // Others with more than the group, which the owner keeps.
        assert_eq!(trivial_acl(0o100_705, false).0, 5);
    }
}
