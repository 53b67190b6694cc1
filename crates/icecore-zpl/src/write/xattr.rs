//! Extended attributes: in the file's own attributes as one packed list, or as files of a hidden directory
//! (zpl_xattr.c; `zfs_sa_set_xattr`, zfs_sa.c; `zfs_make_xattrdir`, zfs_dir.c).
//!
//! Invariants:
//! 1. A name is in one of the two forms: what is written in one is taken out of the other.
//! 2. A user's attribute is stored under its Linux name, and read under the bare one too, which other systems write.
//! 3. Lists of access control are attributes like others on disk; whoever sets them goes through
//!    [`super::posix_acl`], so that the mode says the same.

use super::node::{Node, What};
use super::{New, Writer, XattrForm};
use crate::error::{Result, ZplError};
use crate::sa::Attr;
use crate::xattr::{VALUE_MAX, Xattr};
use crate::znode::{FileKind, Time};
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockStore, BlockWriter, NewObject, Objset};
use icecore_format::reader::u64_at;
use icecore_format::{NvList, NvValue, ObjectId, ObjectType};
use std::collections::BTreeMap;

/// Longest name (`XATTR_NAME_MAX`).
const NAME_MAX: usize = 255;
/// Longest value in the packed list (`DXATTR_MAX_ENTRY_SIZE`).
const PACKED_VALUE_MAX: usize = 32768;
/// The list takes nothing more beyond this (`DXATTR_MAX_SA_SIZE`), nor above what a length can say
/// (`SA_ATTR_MAX_LEN`).
const PACKED_FULL: usize = 65536;
const PACKED_MAX: usize = 65535;
/// Mode of the hidden directory (`zfs_get_xattrdir`) and of the files in it.
const DIR_MODE: u32 = 0o1777;
const FILE_MODE: u32 = 0o644;
const USER: &[u8] = b"user.";

/// What must be there already, or must not (`XATTR_CREATE`, `XATTR_REPLACE`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct XattrFlags {
    /// Refused if the attribute is there.
    pub create: bool,
    /// Refused if it is not.
    pub replace: bool,
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// The packed list of a file.
fn packed(w: &Writer, node: &Node) -> Result<NvList> {
    match node.bytes(w, Attr::Dxattr).filter(|b| !b.is_empty()) {
        Some(bytes) => Ok(NvList::decode(bytes)?.0),
        None => Ok(NvList::new()),
    }
}

fn value_in(list: &NvList, name: &[u8], id: ObjectId) -> Result<Option<Vec<u8>>> {
    match list.iter().find(|(n, _)| n.as_bytes() == name) {
        None => Ok(None),
        Some((_, NvValue::ByteArray(value))) => Ok(Some(value.clone())),
        Some((n, _)) => Err(ZplError::corrupt("extended attributes", id, format!("{n} is not bytes"))),
    }
}

impl Writer {
    /// The hidden directory of a file's attributes.
    pub(super) fn xattr_dir(&self, node: &Node) -> Option<ObjectId> {
        let dir = node.bytes(self, Attr::Xattr).filter(|b| b.len() >= 8).map(|b| u64_at(b, 0));
        dir.filter(|d| *d != 0).map(ObjectId)
    }

    fn xattr_file(
        &self,
        os: &Objset,
        io: &dyn BlockStore,
        node: &Node,
        name: &[u8],
    ) -> Result<Option<ObjectId>> {
        match self.xattr_dir(node) {
            Some(dir) => self.lookup(os, io, dir, name),
            None => Ok(None),
        }
    }

    fn file_value(&self, os: &Objset, io: &dyn BlockStore, file: ObjectId) -> Result<Vec<u8>> {
        let node = Node::load(self, os, io, file)?;
        if node.kind(self)? != FileKind::Regular {
            return Err(ZplError::corrupt("extended attributes", file, "no file where a value belongs"));
        }
        let size = node.word(self, Attr::Size)?;
        if size > VALUE_MAX {
            return Err(ZplError::TooLarge(format!("an extended attribute of {size} bytes")));
        }
        Ok(os.read(io, file, 0, usize::try_from(size).unwrap_or(0))?)
    }

    fn stored_value(
        &self,
        os: &Objset,
        io: &dyn BlockStore,
        node: &Node,
        name: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        if let Some(value) = value_in(&packed(self, node)?, name, node.id)? {
            return Ok(Some(value));
        }
        match self.xattr_file(os, io, node, name)? {
            Some(file) => self.file_value(os, io, file).map(Some),
            None => Ok(None),
        }
    }

    /// The value of an extended attribute by its Linux name, changes not yet committed included.
    ///
    /// # Errors
    /// Damage, or values of more than [`VALUE_MAX`] bytes.
    pub fn get_xattr(
        &self,
        os: &Objset,
        io: &dyn BlockStore,
        id: ObjectId,
        name: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        let node = Node::load(self, os, io, id)?;
        match (self.stored_value(os, io, &node, name)?, name.strip_prefix(USER)) {
            (None, Some(bare)) if !bare.is_empty() => self.stored_value(os, io, &node, bare),
            (value, _) => Ok(value),
        }
    }

    /// All extended attributes of a file under the names they are stored by ([`Xattr::linux_name`]), changes not yet
    /// committed included.
    ///
    /// # Errors
    /// Damage, or more of them than we are willing to hold in memory.
    pub fn list_xattrs(&self, os: &Objset, io: &dyn BlockStore, id: ObjectId) -> Result<Vec<Xattr>> {
        let node = Node::load(self, os, io, id)?;
        let mut all: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut total = 0_u64;
        if let Some(dir) = self.xattr_dir(&node) {
            let mut cursor = zap::Cursor::new(os, io, dir, os.dnode(io, dir)?)?;
            while let Some(entries) = cursor.next_leaf(os, io)? {
                for e in entries {
                    let file = ObjectId(e.value.as_u64().unwrap_or(0) & ((1 << 48) - 1));
                    let value = self.file_value(os, io, file)?;
                    total = total.saturating_add((value.len() + e.name.len() + 64) as u64);
                    if total > 4 * VALUE_MAX {
                        let why = format!("object {id}: extended attributes of more than {total} bytes");
                        return Err(ZplError::TooLarge(why));
                    }
                    all.insert(e.name, value);
                }
            }
        }
        let list = packed(self, &node)?;
        for (name, _) in list.iter() {
            if let Some(value) = value_in(&list, name.as_bytes(), id)? {
                all.insert(name.as_bytes().to_vec(), value);
            }
        }
        Ok(all.into_iter().map(|(name, value)| Xattr { name, value }).collect())
    }

    /// Sets an extended attribute by its Linux name, or takes it away (`None`; one that is not there is no error unless
    /// `replace` is set). POSIX access control lists are checked and bring the mode with them.
    ///
    /// # Errors
    /// [`ZplError::Exists`] and [`ZplError::NoAttribute`] by `flags`; [`ZplError::TooLarge`],
    /// [`ZplError::Unsupported`] where the property forbids; all before anything changes.
    #[allow(clippy::too_many_arguments)] // each is a word of setxattr(2)
    pub fn set_xattr(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        id: ObjectId,
        name: &[u8],
        value: Option<&[u8]>,
        flags: XattrFlags,
        now: Time,
    ) -> Result<()> {
        if super::posix_acl::is_name(name) {
            return self.set_posix_acl(os, io, id, name, value, now);
        }
        let mut flags = flags;
        if let Some(bare) = name.strip_prefix(USER).filter(|b| !b.is_empty()) {
            if self.options.xattrs == XattrForm::Off {
                return Err(ZplError::Unsupported("extended attributes (property xattr is off)".into()));
            }
            let node = Node::load(self, os, io, id)?;
            if self.stored_value(os, io, &node, bare)?.is_some() {
                if flags.create {
                    return Err(ZplError::Exists(shown(name)));
                }
                self.check_xattr(name, value)?;
                self.put_xattr(os, io, id, bare, None, XattrFlags::default(), now)?;
                flags.replace = false;
            }
        }
        self.put_xattr(os, io, id, name, value, flags, now)
    }

    fn check_xattr(&self, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        if name.len() > NAME_MAX {
            return Err(ZplError::NameTooLong(shown(name)));
        }
        if name.is_empty() || name.contains(&0) || std::str::from_utf8(name).is_err() {
            return Err(ZplError::UnsafeName(shown(name)));
        }
        match value {
            Some(v) if v.len() as u64 > VALUE_MAX => {
                Err(ZplError::TooLarge(format!("an extended attribute of {} bytes", v.len())))
            }
            _ => Ok(()),
        }
    }

    /// Sets the attribute of exactly this stored name.
    #[allow(clippy::too_many_arguments)] // as `set_xattr`
    pub(super) fn put_xattr(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        id: ObjectId,
        name: &[u8],
        value: Option<&[u8]>,
        flags: XattrFlags,
        now: Time,
    ) -> Result<()> {
        self.check_xattr(name, value)?;
        let mut node = Node::load(self, os, io, id)?;
        let mut list = packed(self, &node)?;
        let in_list = list.iter().any(|(n, _)| n.as_bytes() == name);
        let in_dir = self.xattr_file(os, io, &node, name)?;
        match in_list || in_dir.is_some() {
            true if flags.create => return Err(ZplError::Exists(shown(name))),
            false if flags.replace => return Err(ZplError::NoAttribute(shown(name))),
            false if value.is_none() => return Ok(()),
            _ => {}
        }
        if let Some(v) = value {
            // All is asked here: blocks as they are before they are compressed, and perhaps two files more.
            let len = v.len() as u64;
            let blocks = len.next_multiple_of(if len > self.record { self.record } else { 512 });
            os.check_room(blocks)?;
            self.check_quota(os, io, node.owners(self)?, true)?;
        }
        let text = std::str::from_utf8(name).unwrap_or_default();
        let before = list.encode_xdr().len();
        let packs = match value {
            Some(v) if self.options.xattrs == XattrForm::Sa => {
                let fits = v.len() <= PACKED_VALUE_MAX && before <= PACKED_FULL;
                fits && {
                    list.set(text, NvValue::ByteArray(v.to_vec()));
                    list.encode_xdr().len() <= PACKED_MAX
                }
            }
            _ => false,
        };
        if packs {
            node.set(self, Attr::Dxattr, list.encode_xdr())?;
        } else if in_list {
            list.remove(text);
            node.set(self, Attr::Dxattr, list.encode_xdr())?;
        }
        let into_file = value.filter(|_| !packs);
        let dir = match (self.xattr_dir(&node), into_file) {
            (None, Some(_)) => {
                let dir = self.make_xattr_dir(os, io, &node, now)?;
                node.set_word(self, Attr::Xattr, dir.0)?;
                Some(dir)
            }
            (dir, _) => dir,
        };
        node.set_time(self, Attr::Ctime, now)?;
        node.store(self, os, io)?;
        match (dir, into_file, in_dir) {
            (Some(dir), Some(v), file) => self.put_xattr_file(os, io, dir, name, file, v, now),
            (Some(dir), None, Some(_)) => self.unlink(os, io, dir, name, now),
            _ => Ok(()),
        }
    }

    /// A file or directory among the hidden ones: it belongs to whom its parent belongs to.
    fn make_hidden(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        parent: &Node,
        (what, mode): (What, u32),
        now: Time,
    ) -> Result<Node> {
        let id = |attr: Attr| parent.word(self, attr);
        let (uid, gid) = (id(Attr::Uid)?, id(Attr::Gid)?);
        let directory = what == What::Directory;
        let new = New { what, mode, uid: 0, gid: 0, now };
        let mut node = Node::new(self, &new, parent, io.txg().0)?;
        node.set_word(self, Attr::Uid, uid)?;
        node.set_word(self, Attr::Gid, gid)?;
        node.mark_xattr(self)?;
        let len = node.bonus_len(self, 1);
        node.id = if directory {
            zap::create(os, io, ObjectType::DIRECTORY_CONTENTS, Some((ObjectType::SA, len)), 0)?
        } else {
            let plain = NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, 512);
            os.allocate(io, &NewObject { nblkptr: 1, ..plain.with_bonus(ObjectType::SA, len) })?
        };
        node.store(self, os, io)?;
        Ok(node)
    }

    fn make_xattr_dir(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        file: &Node,
        now: Time,
    ) -> Result<ObjectId> {
        Ok(self.make_hidden(os, io, file, (What::Directory, DIR_MODE), now)?.id)
    }

    #[allow(clippy::too_many_arguments)] // one place calls it
    fn put_xattr_file(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        dir: ObjectId,
        name: &[u8],
        file: Option<ObjectId>,
        value: &[u8],
        now: Time,
    ) -> Result<()> {
        let file = match file {
            Some(file) => {
                self.truncate(os, io, file, 0, now)?;
                file
            }
            None => {
                let mut parent = self.directory(os, io, dir)?;
                let node = self.make_hidden(os, io, &parent, (What::Regular, FILE_MODE), now)?;
                zap::add_bytes(os, io, dir, name, &ZapValue::u64(node.entry_word(self)?))?;
                self.named(&mut parent, 1, false, now)?;
                parent.store(self, os, io)?;
                node.id
            }
        };
        let node = self.regular(os, io, file)?;
        self.write_into(os, io, node, 0, value, now)
    }
}
