//! Making files and giving them names: create, link, rename (`zfs_link_create`, `zfs_link_destroy`, zfs_dir.c).

use super::node::{Node, What};
use super::{Change, New, Writer, XattrFlags};
use crate::error::{Result, ZplError};
use crate::sa::Attr;
use crate::znode::{FileKind, Time};
use icecore_dmu::objset::accounts::Owners;
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockStore, BlockWriter, NewObject, Objset};
use icecore_format::{ObjectId, ObjectType};

/// Longest target of a symbolic link (`PATH_MAX` with its end).
const TARGET_MAX: usize = 4096;
/// Levels above a directory that are climbed before the tree counts as a knot.
const DEPTH_MAX: u32 = 1 << 16;

/// What tells whether a file changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// What it is.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Contents last changed.
    pub mtime: Time,
}

/// All that a copy of a file is compared by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// What it is.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permissions and set-id bits.
    pub mode: u32,
    /// Owner as stored.
    pub uid: u64,
    /// Group as stored.
    pub gid: u64,
    /// Contents last changed.
    pub mtime: Time,
    /// The number of a device, as Linux's kernel has it; else 0.
    pub device: u64,
    /// Where a symbolic link leads; else empty.
    pub target: Vec<u8>,
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

impl Writer {
    pub(super) fn directory(&self, os: &Objset, io: &dyn BlockStore, id: ObjectId) -> Result<Node> {
        let node = Node::load(self, os, io, id)?;
        if node.kind(self)? != FileKind::Directory {
            return Err(ZplError::NotDirectory(format!("object {id}")));
        }
        if node.word(self, Attr::Links)? == 0 {
            return Err(ZplError::NotFound(format!("object {id}")));
        }
        Ok(node)
    }

    /// What `name` in `dir` leads to.
    pub fn lookup(
        &self,
        os: &Objset,
        io: &dyn BlockStore,
        dir: ObjectId,
        name: &[u8],
    ) -> Result<Option<ObjectId>> {
        let found = zap::lookup_bytes(os, io, dir, name)?;
        let word = found.map(|v| {
            let not =
                || ZplError::corrupt("directory", dir, format!("{} does not lead to an object", shown(name)));
            v.as_u64().ok_or_else(not)
        });
        Ok(word.transpose()?.map(|w| ObjectId(w & ((1 << 48) - 1))))
    }

    pub(super) fn need(
        &self,
        os: &Objset,
        io: &dyn BlockStore,
        dir: ObjectId,
        name: &[u8],
    ) -> Result<ObjectId> {
        self.lookup(os, io, dir, name)?.ok_or_else(|| ZplError::NotFound(shown(name)))
    }

    /// Kind, size and time of change of a file, changes not yet committed included.
    pub fn stat(&self, os: &Objset, io: &dyn BlockStore, id: ObjectId) -> Result<Stat> {
        let node = Node::load(self, os, io, id)?;
        let mtime = node.time(self, Attr::Mtime)?;
        Ok(Stat { kind: node.kind(self)?, size: node.word(self, Attr::Size)?, mtime })
    }

    /// All attributes of a file that a copy of it should have, changes not yet committed included.
    ///
    /// # Errors
    /// Damage.
    pub fn attributes(&self, os: &Objset, io: &dyn BlockStore, id: ObjectId) -> Result<Attributes> {
        let node = Node::load(self, os, io, id)?;
        let kind = node.kind(self)?;
        let device = match kind {
            FileKind::CharDevice | FileKind::BlockDevice => node.word(self, Attr::Rdev)?,
            _ => 0,
        };
        Ok(Attributes {
            kind,
            size: node.word(self, Attr::Size)?,
            mode: (node.word(self, Attr::Mode)? & 0o7777) as u32,
            uid: node.word(self, Attr::Uid)?,
            gid: node.word(self, Attr::Gid)?,
            mtime: node.time(self, Attr::Mtime)?,
            device,
            target: node.bytes(self, Attr::Symlink).unwrap_or(&[]).to_vec(),
        })
    }

    /// Makes a file and names it.
    pub fn create(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        dir: ObjectId,
        name: &[u8],
        new: &New,
    ) -> Result<ObjectId> {
        self.check_name(name)?;
        let mut parent = self.directory(os, io, dir)?;
        if self.lookup(os, io, dir, name)?.is_some() {
            return Err(ZplError::Exists(shown(name)));
        }
        if let What::Symlink(target) = &new.what
            && (target.is_empty() || target.len() >= TARGET_MAX || target.contains(&0))
        {
            return Err(ZplError::NameTooLong(format!("a link's target of {} bytes", target.len())));
        }
        let directory = new.what == What::Directory;
        let (mode, lists) = match new.what {
            What::Symlink(_) => (new.mode, Vec::new()),
            _ => self.inherited_acls(os, io, dir, directory, new.mode)?,
        };
        let mut node = Node::new(self, &New { mode, ..new.clone() }, &parent, io.txg().0)?;
        self.check_quota(os, io, node.owners(self)?, true)?;
        os.check_room(lists.iter().map(|(_, value)| value.len() as u64).sum())?;
        let slots = self.options.dnode_slots;
        let len = node.bonus_len(self, slots);
        let kind = if directory { ObjectType::DIRECTORY_CONTENTS } else { ObjectType::PLAIN_FILE_CONTENTS };
        let object = NewObject::plain(kind, 512).with_bonus(ObjectType::SA, len);
        node.id = os.allocate(io, &NewObject { nblkptr: 1, slots, ..object })?;
        if directory {
            zap::init(os, io, node.id, 0)?;
        }
        node.store(self, os, io)?;
        for (list, value) in lists {
            self.put_xattr(os, io, node.id, list, Some(&value), XattrFlags::default(), new.now)?;
        }
        let word = node.entry_word(self)?;
        zap::add_bytes(os, io, dir, name, &ZapValue::u64(word))?;
        self.named(&mut parent, 1, directory, new.now)?;
        parent.store(self, os, io)?;
        Ok(node.id)
    }

    /// A directory has `by` names more, of files or of directories.
    pub(super) fn named(&self, dir: &mut Node, by: i64, directory: bool, now: Time) -> Result<()> {
        let few = || ZplError::corrupt("directory", dir.id, "it counts fewer names than it has");
        let size = dir.word(self, Attr::Size)?.checked_add_signed(by).ok_or_else(few)?;
        let links = dir.word(self, Attr::Links)?.checked_add_signed(if directory { by } else { 0 });
        let links = links.ok_or_else(few)?;
        dir.set_word(self, Attr::Size, size)?;
        dir.set_word(self, Attr::Links, links)?;
        dir.changed(self, now)
    }

    /// One more name for a file that is no directory.
    pub fn link(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        id: ObjectId,
        dir: ObjectId,
        name: &[u8],
        now: Time,
    ) -> Result<()> {
        self.check_name(name)?;
        let mut node = Node::load(self, os, io, id)?;
        let mut parent = self.directory(os, io, dir)?;
        if node.kind(self)? == FileKind::Directory {
            return Err(ZplError::NotPossible("a directory has one name".into()));
        }
        if self.lookup(os, io, dir, name)?.is_some() {
            return Err(ZplError::Exists(shown(name)));
        }
        let links = node.word(self, Attr::Links)?.saturating_add(1);
        zap::add_bytes(os, io, dir, name, &ZapValue::u64(node.entry_word(self)?))?;
        node.set_word(self, Attr::Links, links)?;
        node.set_word(self, Attr::Parent, dir.0)?;
        node.set_time(self, Attr::Ctime, now)?;
        node.store(self, os, io)?;
        self.named(&mut parent, 1, false, now)?;
        parent.store(self, os, io)
    }

    /// Moves a name, over what the new one led to if that can be removed (`rename(2)`).
    pub fn rename(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        (from, name): (ObjectId, &[u8]),
        (to, new_name): (ObjectId, &[u8]),
        now: Time,
    ) -> Result<()> {
        self.move_name(os, io, (from, name), (to, new_name), false, now).map(drop)
    }

    /// The same, but a file that the new name led to and that has no other is kept, and given back:
    /// [`Writer::orphan`].
    ///
    /// # Errors
    /// As [`Writer::rename`].
    pub fn rename_keeping(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        from: (ObjectId, &[u8]),
        to: (ObjectId, &[u8]),
        now: Time,
    ) -> Result<Option<ObjectId>> {
        self.move_name(os, io, from, to, true, now)
    }

    fn move_name(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        (from, name): (ObjectId, &[u8]),
        (to, new_name): (ObjectId, &[u8]),
        keep: bool,
        now: Time,
    ) -> Result<Option<ObjectId>> {
        let mut kept = None;
        self.check_name(new_name)?;
        self.directory(os, io, from)?;
        self.directory(os, io, to)?;
        let id = self.need(os, io, from, name)?;
        let node = Node::load(self, os, io, id)?;
        let directory = node.kind(self)? == FileKind::Directory;
        if directory {
            self.refuse_inside(os, io, to, id)?;
        }
        if let Some(old) = self.lookup(os, io, to, new_name)? {
            if old == id {
                return Ok(None);
            }
            let old_directory = Node::load(self, os, io, old)?.kind(self)? == FileKind::Directory;
            match (directory, old_directory) {
                (true, false) => return Err(ZplError::NotDirectory(shown(new_name))),
                (false, true) => return Err(ZplError::IsDirectory(shown(new_name))),
                (true, true) => self.rmdir(os, io, to, new_name, now)?,
                (false, false) => kept = self.take_name(os, io, to, new_name, keep, now)?,
            }
        }
        let mut node = Node::load(self, os, io, id)?;
        node.set_word(self, Attr::Parent, to.0)?;
        node.set_time(self, Attr::Ctime, now)?;
        node.store(self, os, io)?;
        zap::add_bytes(os, io, to, new_name, &ZapValue::u64(node.entry_word(self)?))?;
        zap::remove_bytes(os, io, from, name)?;
        // One after the other: they may be the same directory.
        for (dir, by) in [(to, 1), (from, -1)] {
            let mut parent = Node::load(self, os, io, dir)?;
            self.named(&mut parent, by, directory, now)?;
            parent.store(self, os, io)?;
        }
        Ok(kept)
    }

    /// Exchanges what two names lead to (`renameat2` with `RENAME_EXCHANGE`).
    ///
    /// # Errors
    /// As [`Writer::rename`]; both names must be there.
    pub fn exchange(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        (a, a_name): (ObjectId, &[u8]),
        (b, b_name): (ObjectId, &[u8]),
        now: Time,
    ) -> Result<()> {
        self.directory(os, io, a)?;
        self.directory(os, io, b)?;
        let (first, second) = (self.need(os, io, a, a_name)?, self.need(os, io, b, b_name)?);
        if first == second {
            return Ok(());
        }
        let kind = |w: &Self, id: ObjectId| Node::load(w, os, io, id)?.kind(w);
        let directories = [kind(self, first)?, kind(self, second)?].map(|k| k == FileKind::Directory);
        for (id, into, directory) in [(first, b, directories[0]), (second, a, directories[1])] {
            if directory {
                self.refuse_inside(os, io, into, id)?;
            }
        }
        for (id, dir, name) in [(first, b, b_name), (second, a, a_name)] {
            let mut node = Node::load(self, os, io, id)?;
            node.set_word(self, Attr::Parent, dir.0)?;
            node.set_time(self, Attr::Ctime, now)?;
            node.store(self, os, io)?;
            let word = ZapValue::u64(node.entry_word(self)?);
            zap::remove_bytes(os, io, dir, name)?;
            zap::add_bytes(os, io, dir, name, &word)?;
        }
        // Each directory has as many names as before; of directories among them perhaps not.
        let by = i64::from(directories[1]) - i64::from(directories[0]);
        for (dir, by) in [(a, by), (b, -by)] {
            let mut parent = Node::load(self, os, io, dir)?;
            let links = if a == b { 0 } else { by };
            let links = parent.word(self, Attr::Links)?.saturating_add_signed(links);
            parent.set_word(self, Attr::Links, links)?;
            parent.changed(self, now)?;
            parent.store(self, os, io)?;
        }
        Ok(())
    }

    /// Takes the set-user and, of what its group may execute, the set-group bit away: what a change by others does
    /// (`zfs_clear_setid_bits_if_necessary`, zfs_vnops.c).
    ///
    /// # Errors
    /// Damage.
    pub fn strip_set_ids(&mut self, os: &mut Objset, io: &mut dyn BlockWriter, id: ObjectId) -> Result<()> {
        let mut node = Node::load(self, os, io, id)?;
        let mode = node.word(self, Attr::Mode)?;
        let mut new = mode & !0o4000;
        if mode & 0o010 != 0 {
            new &= !0o2000;
        }
        if new == mode || node.kind(self)? == FileKind::Directory {
            return Ok(());
        }
        node.set_mode(self, new)?;
        node.store(self, os, io)
    }

    /// A file was read; nothing else about it changes.
    ///
    /// # Errors
    /// Damage.
    pub fn accessed(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        id: ObjectId,
        now: Time,
    ) -> Result<()> {
        let mut node = Node::load(self, os, io, id)?;
        node.set_time(self, Attr::Atime, now)?;
        node.store(self, os, io)
    }

    /// Whether new files in `dir` get an access control list from it: the umask of who makes them counts for nothing then.
    ///
    /// # Errors
    /// Damage.
    pub fn hands_on_acl(&self, os: &Objset, io: &dyn BlockStore, dir: ObjectId) -> Result<bool> {
        Ok(self.options().posix_acls && self.get_xattr(os, io, dir, super::POSIX_ACL_DEFAULT)?.is_some())
    }

    /// Refuses to move directory `id` into `dir` that lies in it.
    fn refuse_inside(&self, os: &Objset, io: &dyn BlockStore, dir: ObjectId, id: ObjectId) -> Result<()> {
        let mut at = dir;
        for _ in 0..DEPTH_MAX {
            if at == id {
                return Err(ZplError::NotPossible("a directory cannot be moved into itself".into()));
            }
            if at == self.root {
                return Ok(());
            }
            at = ObjectId(Node::load(self, os, io, at)?.word(self, Attr::Parent)?);
        }
        Err(ZplError::corrupt("directory", dir, "its parents lead in a circle"))
    }

    /// Sets attributes.
    pub fn set_attributes(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        id: ObjectId,
        change: &Change,
        now: Time,
    ) -> Result<()> {
        let mut node = Node::load(self, os, io, id)?;
        let old = node.owners(self)?;
        node.apply(self, change, now)?;
        let new = node.owners(self)?;
        // Only whom it is given to has to have room for it.
        let asked = |old: u64, new: u64| if old == new { u64::MAX } else { new };
        if old != new {
            let (user, group) = (asked(old.user, new.user), asked(old.group, new.group));
            self.check_quota(os, io, Owners { user, group, project: 0 }, true)?;
        }
        node.store(self, os, io)?;
        match change.mode {
            Some(mode) => self.chmod_acl(os, io, id, mode.into(), now),
            None => Ok(()),
        }
    }
}
