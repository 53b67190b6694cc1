//! Replaying intent log records: what was done to files or a volume, and promised, before power went.
//!
//! Facts: zfs_replay.c, `zvol_replay_vector` (zvol.c), `zil_replay_log_record` (zil.c), `zfs_mknode` (zfs_znode_os.c).
//!
//! Invariants:
//! 1. A record is applied as OpenZFS applies it: objects get the number, slots, generation and time that the record has;
//!    what else changes gets the time of the replay.
//! 2. Records that may be logged out of order and whose object is gone are passed over (`TX_OOO`). Anything else that does
//!    not fit is an error, after which the txg is to be abandoned.
//! 3. Not replayed, but told by name: access lists of NFSv4 (`TX_ACL` and creates with one; Linux logs none) and owners of
//!    foreign domains.

use super::node::{FLAG_PROJECT, FLAG_XATTR, Node, What};
use super::volume::VolumeWriter;
use super::{Change, New, Writer};
use crate::error::{Result, ZplError};
use crate::sa::Attr;
use crate::znode::{FileKind, Time};
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockStore, BlockWriter, NewObject, Objset, ReadError, Want};
use icecore_dsl::volume::CONTENTS;
use icecore_format::objset::ObjsetType;
use icecore_format::units::MAX_BLOCK;
use icecore_format::zil::record::{Attrs, Body, LogRecord, Make};
use icecore_format::{Blkptr, Bookmark, NvList, NvValue, ObjectId, ObjectType};

/// Longest value of a packed attribute, and most of them all (`DXATTR_MAX_ENTRY_SIZE`, `DXATTR_MAX_SA_SIZE`).
const XATTR_MAX: usize = 32 << 10;
const XATTRS_MAX: usize = 64 << 10;
/// `ATTR_*` of Linux, as the mask of a `TX_SETATTR` has them.
const MODE: u64 = 1;
const UID: u64 = 2;
const GID: u64 = 4;
const SIZE: u64 = 8;
const ATIME: u64 = 16;
const MTIME: u64 = 32;
/// Optional attributes (`XAT0_*`, xvattr.h) that are flags, and where the file keeps them (`ZFS_*`, zfs_znode.h).
const FLAGS: [(u32, u64); 14] = [
    (0x8, 1 << 32),
    (0x10, 1 << 33),
    (0x4, 1 << 34),
    (0x2, 1 << 35),
    (0x40, 1 << 36),
    (0x20, 1 << 37),
    (0x80, 1 << 38),
    (0x100, 1 << 39),
    (0x200, 1 << 40),
    (0x400, 1 << 41),
    (0x800, 1 << 42),
    (0x8000, 1 << 44),
    (0x1_0000, 1 << 45),
    (0x2_0000, 1 << 46),
];
const CREATE_TIME: u32 = 0x1;
const PROJECT: u32 = 0x4_0000;

/// Applies the records of one head's log.
pub struct Replay {
    to: To,
    now: Time,
}

/// What the log is of.
enum To {
    Files(Box<Writer>),
    Volume(VolumeWriter),
}

fn unsupported<T>(what: &str) -> Result<T> {
    Err(ZplError::Unsupported(what.into()))
}

fn time(words: [u64; 2]) -> Time {
    Time { seconds: words[0].cast_signed(), nanos: u32::try_from(words[1]).unwrap_or(0) }
}

fn id32(id: u64) -> Result<u32> {
    u32::try_from(id).or_else(|_| unsupported("owners of foreign domains"))
}

impl Replay {
    /// For the head in `os`, whose new files get blocks of up to `record` bytes; `now` is the time of the replay.
    ///
    /// # Errors
    /// As [`Writer::open`].
    pub fn open(io: &dyn BlockStore, os: &Objset, record: u64, now: Time) -> Result<Self> {
        let to = match os.phys().kind() {
            ObjsetType::Zvol => To::Volume(VolumeWriter::open(io, os)?),
            _ => {
                let mut files = Writer::open(io, os, record)?;
                // What was promised is kept, whatever its owner has by now.
                files.quotas.clear();
                To::Files(Box::new(files))
            }
        };
        Ok(Self { to, now })
    }

    /// Applies a record.
    ///
    /// # Errors
    /// It does not fit what is there, or is of a kind that is not replayed: the open txg must be abandoned.
    pub fn apply(&mut self, os: &mut Objset, io: &mut dyn BlockWriter, record: &LogRecord<'_>) -> Result<()> {
        if record.case_folded {
            return unsupported("names compared without case");
        }
        match &mut self.to {
            To::Files(w) => w.replay(os, io, &record.body, self.now),
            To::Volume(w) => w.replay(os, io, &record.body),
        }
    }
}

/// The data of a `TX_WRITE`, and where it begins: all of a block where the record leads to one.
fn data_of(
    io: &dyn BlockStore,
    at: Bookmark,
    (offset, length): (u64, u64),
    pointer: &Blkptr,
    data: &[u8],
) -> Result<(u64, Vec<u8>)> {
    if !data.is_empty() || length == 0 {
        return Ok((offset, data.to_vec()));
    }
    let size = pointer.lsize();
    if pointer.is_hole() {
        if length > MAX_BLOCK {
            return Err(ZplError::TooLarge(format!("a write of {length} bytes")));
        }
        return Ok((offset, vec![0; usize::try_from(length).unwrap_or(0)]));
    }
    if length > size {
        return Err(ZplError::corrupt(
            "intent log",
            at.object,
            format!("{length} bytes in a block of {size}"),
        ));
    }
    let bytes = io.read(pointer, &at, Want::Logical)?.to_vec();
    Ok((if length < size { offset - offset % size.max(1) } else { offset }, bytes))
}

/// The parts of a range that a `TX_CLONE_RANGE` fills: offset, bytes, pointer. Its blocks are copied, not shared.
fn cloned(
    (offset, length): (u64, u64),
    block: u64,
    pointers: &[Blkptr],
) -> Result<Vec<(u64, usize, Blkptr)>> {
    let fits = block != 0 && block <= MAX_BLOCK && offset % block == 0;
    if !fits || length.div_ceil(block) != pointers.len() as u64 {
        return Err(ZplError::TooLarge(format!("{length} bytes in {} blocks of {block}", pointers.len())));
    }
    let mut parts = Vec::with_capacity(pointers.len());
    let mut left = length;
    for (i, bp) in (0_u64..).zip(pointers) {
        let at = i.checked_mul(block).and_then(|o| offset.checked_add(o));
        let at = at.ok_or_else(|| ZplError::TooLarge(format!("a clone at {offset}")))?;
        parts.push((at, usize::try_from(left.min(block)).unwrap_or(0), *bp));
        left = left.saturating_sub(block);
    }
    Ok(parts)
}

/// Bytes of a cloned block; zeros for a hole.
fn cloned_bytes(io: &dyn BlockStore, at: Bookmark, bp: &Blkptr, len: usize) -> Result<Vec<u8>> {
    let mut bytes = match bp.is_hole() {
        true => Vec::new(),
        false => io.read(bp, &at, Want::Logical)?.to_vec(),
    };
    bytes.resize(len, 0);
    Ok(bytes)
}

fn bookmark(os: &Objset, id: ObjectId) -> Bookmark {
    Bookmark { objset: os.id(), object: id, level: 0, blkid: 0 }
}

impl VolumeWriter {
    fn replay(&self, os: &mut Objset, io: &mut dyn BlockWriter, body: &Body<'_>) -> Result<()> {
        let at = bookmark(os, CONTENTS);
        match body {
            Body::Write { offset, length, pointer, data, .. } => {
                let (offset, data) = data_of(io, at, (*offset, *length), pointer, data)?;
                self.write(os, io, offset, &data)
            }
            Body::Truncate { offset, length, .. } => self.zero(os, io, *offset, *length),
            Body::Clone { offset, length, block, pointers, .. } => {
                for (offset, len, bp) in cloned((*offset, *length), *block, pointers)? {
                    let bytes = cloned_bytes(io, at, &bp, len)?;
                    self.write(os, io, offset, &bytes)?;
                }
                Ok(())
            }
            // The data is there, and the size of a volume stays.
            Body::Grow { .. } => Ok(()),
            _ => unsupported("files in a volume"),
        }
    }
}

impl Writer {
    fn replay(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        body: &Body<'_>,
        now: Time,
    ) -> Result<()> {
        match body {
            Body::Create { acl: Some(_), .. } | Body::SetAcl { .. } => unsupported("access lists"),
            Body::Create { make: Make::Xattrs, .. } => self.replay_xattr_directory(os, io, body),
            Body::Create { .. } => self.replay_create(os, io, body, now),
            Body::Remove { dir, directory: false, name } => self.unlink(os, io, ObjectId(*dir), name, now),
            Body::Remove { dir, directory: true, name } => self.rmdir(os, io, ObjectId(*dir), name, now),
            Body::Link { dir, object, name } => {
                self.link(os, io, ObjectId(*object), ObjectId(*dir), name, now)
            }
            Body::Rename { .. } => self.replay_rename(os, io, body, now),
            Body::Write { object, .. }
            | Body::Truncate { object, .. }
            | Body::Clone { object, .. }
            | Body::Grow { object, .. }
            | Body::SetAttr { object, .. }
            | Body::SetXattr { object, .. } => match os.dnode(io, ObjectId(*object)) {
                Err(ReadError::NoObject(_)) => Ok(()),
                Err(e) => Err(e.into()),
                Ok(_) => self.replay_file(os, io, ObjectId(*object), body, now),
            },
            _ => unsupported("a record of this kind"),
        }
    }

    fn replay_file(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        id: ObjectId,
        body: &Body<'_>,
        now: Time,
    ) -> Result<()> {
        match body {
            Body::Write { offset, length, pointer, data, .. } => {
                let (from, bytes) = data_of(io, bookmark(os, id), (*offset, *length), pointer, data)?;
                let node = self.regular(os, io, id)?;
                self.write_sized(os, io, node, from, &bytes, offset.saturating_add(*length), now)
            }
            Body::Grow { offset, length, .. } => {
                let mut node = self.regular(os, io, id)?;
                let end = offset.saturating_add(*length);
                if end <= node.word(self, Attr::Size)? {
                    return Ok(());
                }
                node.set_word(self, Attr::Size, end)?;
                node.store(self, os, io)
            }
            Body::Truncate { offset, length, .. } => self.replay_truncate(os, io, id, *offset, *length, now),
            Body::Clone { offset, length, block, pointers, .. } => {
                for (at, len, bp) in cloned((*offset, *length), *block, pointers)? {
                    let bytes = cloned_bytes(io, bookmark(os, id), &bp, len)?;
                    self.write(os, io, id, at, &bytes, now)?;
                }
                Ok(())
            }
            Body::SetAttr { mask, mode, uid, gid, size, atime, mtime, attrs, .. } => {
                let asked = |bit: u64| mask & bit != 0;
                if asked(SIZE) {
                    self.truncate(os, io, id, *size, now)?;
                }
                let change = Change {
                    mode: asked(MODE).then_some((*mode & 0o7777) as u32),
                    uid: asked(UID).then(|| id32(*uid)).transpose()?,
                    gid: asked(GID).then(|| id32(*gid)).transpose()?,
                    atime: asked(ATIME).then(|| time(*atime)),
                    mtime: asked(MTIME).then(|| time(*mtime)),
                };
                self.set_attributes(os, io, id, &change, now)?;
                match attrs {
                    Some(attrs) => {
                        let mut node = Node::load(self, os, io, id)?;
                        optional(self, &mut node, attrs)?;
                        node.store(self, os, io)
                    }
                    None => Ok(()),
                }
            }
            Body::SetXattr { name, value, .. } => {
                let mut node = Node::load(self, os, io, id)?;
                packed(self, &mut node, name, value)?;
                node.set_time(self, Attr::Ctime, now)?;
                node.store(self, os, io)
            }
            _ => unsupported("a record of this kind"),
        }
    }

    /// `zfs_freesp`.
    fn replay_truncate(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        id: ObjectId,
        offset: u64,
        length: u64,
        now: Time,
    ) -> Result<()> {
        let size = self.regular(os, io, id)?.word(self, Attr::Size)?;
        let end = offset.saturating_add(length);
        if offset > size || length == 0 {
            return self.truncate(os, io, id, end, now);
        }
        self.punch_hole(os, io, id, (offset, length), now)?;
        if end > size { self.truncate(os, io, id, end, now) } else { Ok(()) }
    }

    /// The object that a record has the number and slots of, with its attributes still to be stored.
    fn claim_object(
        &self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        id: ObjectId,
        slots: u8,
        directory: bool,
    ) -> Result<()> {
        let slots = slots.clamp(1, 32);
        let room = u16::from(slots) * 512 - 64 - 128;
        let kind = if directory { ObjectType::DIRECTORY_CONTENTS } else { ObjectType::PLAIN_FILE_CONTENTS };
        let plain = NewObject::plain(kind, 512).with_bonus(ObjectType::SA, room);
        os.claim(io, id, &NewObject { nblkptr: 1, slots, ..plain })?;
        if directory {
            zap::init(os, io, id, 0)?;
        }
        Ok(())
    }

    fn replay_create(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        body: &Body<'_>,
        now: Time,
    ) -> Result<()> {
        let Body::Create {
            make, dir, new, mode, uid, gid, generation, crtime, rdev, attrs, name, link, ..
        } = body
        else {
            return unsupported("a record of this kind");
        };
        let target = link.map(<[u8]>::to_vec);
        let what = what(*mode, *rdev, target)?;
        let directory = what == What::Directory;
        if directory != (*make == Make::Directory)
            || matches!(what, What::Symlink(_)) != (*make == Make::Link)
        {
            let why = format!("a mode of {mode:o} for another kind of file");
            return Err(ZplError::corrupt("intent log", ObjectId(new.object), why));
        }
        let made = New {
            what,
            mode: (*mode & 0o7777) as u32,
            uid: id32(*uid)?,
            gid: id32(*gid)?,
            now: time(*crtime),
        };
        self.create_as(os, io, ObjectId(*dir), name, &made, (new.object, new.slots, *generation), now)?;
        if let Some(attrs) = attrs {
            let mut node = Node::load(self, os, io, ObjectId(new.object))?;
            optional(self, &mut node, attrs)?;
            node.store(self, os, io)?;
        }
        Ok(())
    }

    /// [`Writer::create`] with number, slots and generation given; `new.now` is when it was made, `now` when it gets its
    /// name.
    #[allow(clippy::too_many_arguments)]
    fn create_as(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        dir: ObjectId,
        name: &[u8],
        new: &New,
        (object, slots, generation): (u64, u8, u64),
        now: Time,
    ) -> Result<()> {
        self.check_name(name)?;
        let mut parent = self.directory(os, io, dir)?;
        if self.lookup(os, io, dir, name)?.is_some() {
            return Err(ZplError::Exists(String::from_utf8_lossy(name).into_owned()));
        }
        let directory = new.what == What::Directory;
        let mut node = Node::new(self, new, &parent, generation)?;
        node.id = ObjectId(object);
        if parent.word(self, Attr::Flags)? & FLAG_XATTR != 0 {
            let flags = node.word(self, Attr::Flags)? | FLAG_XATTR;
            node.set_word(self, Attr::Flags, flags)?;
        }
        self.claim_object(os, io, node.id, slots, directory)?;
        node.store(self, os, io)?;
        zap::add_bytes(os, io, dir, name, &ZapValue::u64(node.entry_word(self)?))?;
        self.named(&mut parent, 1, directory, now)?;
        parent.store(self, os, io)
    }

    /// `zfs_make_xattrdir`: a directory that no name leads to, but its file.
    fn replay_xattr_directory(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        body: &Body<'_>,
    ) -> Result<()> {
        let Body::Create { dir, new, mode, uid, gid, generation, crtime, .. } = body else {
            return unsupported("a record of this kind");
        };
        let mut file = Node::load(self, os, io, ObjectId(*dir))?;
        if file.word(self, Attr::Xattr).unwrap_or(0) != 0 {
            return Err(ZplError::Exists(format!("the extended attributes of object {dir}")));
        }
        let made = New {
            what: What::Directory,
            mode: (*mode & 0o7777) as u32,
            uid: id32(*uid)?,
            gid: id32(*gid)?,
            now: time(*crtime),
        };
        let mut node = Node::new(self, &made, &file, *generation)?;
        node.id = ObjectId(new.object);
        let flags = node.word(self, Attr::Flags)? | FLAG_XATTR;
        node.set_word(self, Attr::Flags, flags)?;
        self.claim_object(os, io, node.id, new.slots, true)?;
        node.store(self, os, io)?;
        file.set_word(self, Attr::Xattr, new.object)?;
        file.store(self, os, io)
    }

    fn replay_rename(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        body: &Body<'_>,
        now: Time,
    ) -> Result<()> {
        let Body::Rename { from, to, exchange, whiteout, old, new } = body else {
            return unsupported("a record of this kind");
        };
        let (from, to) = (ObjectId(*from), ObjectId(*to));
        if *exchange {
            return self.exchange(os, io, (from, old), (to, new), now);
        }
        self.rename(os, io, (from, old), (to, new), now)?;
        let Some(w) = whiteout else { return Ok(()) };
        let made = New {
            what: what(w.mode, w.rdev, None)?,
            mode: (w.mode & 0o7777) as u32,
            uid: id32(w.uid)?,
            gid: id32(w.gid)?,
            now: time(w.crtime),
        };
        self.create_as(os, io, from, old, &made, (w.new.object, w.new.slots, w.generation), now)
    }
}

/// What a mode makes.
fn what(mode: u64, rdev: u64, target: Option<Vec<u8>>) -> Result<What> {
    Ok(match (FileKind::from_mode(mode), target) {
        (Some(FileKind::Regular), None) => What::Regular,
        (Some(FileKind::Directory), None) => What::Directory,
        (Some(FileKind::Symlink), Some(target)) if !target.is_empty() => What::Symlink(target),
        (Some(FileKind::Fifo), None) => What::Fifo,
        (Some(FileKind::Socket), None) => What::Socket,
        (Some(FileKind::CharDevice), None) => What::CharDevice(rdev),
        (Some(FileKind::BlockDevice), None) => What::BlockDevice(rdev),
        _ => return Err(ZplError::Unsupported(format!("files of mode {mode:o}"))),
    })
}

/// Optional attributes (`zfs_xvattr_set`).
fn optional(w: &Writer, node: &mut Node, attrs: &Attrs<'_>) -> Result<()> {
    let word = |at: usize| attrs.mask.get(at..at.saturating_add(4)).and_then(|b| b.try_into().ok());
    let asked = u32::from_le_bytes(word(0).unwrap_or_default());
    if (4..attrs.mask.len()).any(|at| attrs.mask.get(at).is_some_and(|b| *b != 0)) {
        return unsupported("attributes that are not known");
    }
    let known = FLAGS.iter().fold(CREATE_TIME | PROJECT, |all, (bit, _)| all | bit);
    if asked & !known != 0 {
        return unsupported("scan stamps and reparse points");
    }
    let mut flags = node.word(w, Attr::Flags)?;
    for (bit, flag) in FLAGS.iter().filter(|(bit, _)| asked & bit != 0) {
        flags = if attrs.flags & u64::from(*bit) != 0 { flags | flag } else { flags & !flag };
    }
    if asked & CREATE_TIME != 0 {
        node.set_time(w, Attr::Crtime, time(attrs.crtime))?;
    }
    if asked & PROJECT != 0 {
        let id = attrs.scanstamp.get(..8).and_then(|b| b.try_into().ok()).unwrap_or_default();
        // Its place among the attributes is fixed: what was made without one would have to be laid out anew.
        if flags & FLAG_PROJECT == 0 {
            return unsupported("a project for a file that has none");
        }
        node.set_word(w, Attr::Projid, u64::from_le_bytes(id))?;
    }
    node.set_word(w, Attr::Flags, flags)
}

/// Sets or, without a value, removes a packed extended attribute (`zfs_replay_setsaxattr`).
fn packed(w: &Writer, node: &mut Node, name: &[u8], value: &[u8]) -> Result<()> {
    let mut list = match node.bytes(w, Attr::Dxattr).filter(|b| !b.is_empty()) {
        Some(bytes) => NvList::decode(bytes)?.0,
        None => NvList::new(),
    };
    let text = || ZplError::Unsupported("names of attributes that are not UTF-8".into());
    let name = std::str::from_utf8(name).map_err(|_| text())?;
    list.remove(name);
    if value.len() > XATTR_MAX {
        return Err(ZplError::TooLarge(format!("an attribute of {} bytes", value.len())));
    }
    if !value.is_empty() {
        list.set(name, NvValue::ByteArray(value.to_vec()));
    }
    let bytes = list.encode_xdr();
    if bytes.len() > XATTRS_MAX {
        return Err(ZplError::TooLarge(format!("attributes of {} bytes", bytes.len())));
    }
    node.set(w, Attr::Dxattr, bytes)
}
