//! Making files and giving them names: create, link, rename (`zfs_link_create`, `zfs_link_destroy`, zfs_dir.c).

use super::node::{Node, What};
use super::{Change, New, Writer};
use crate::error::{Result, ZplError};
use crate::sa::Attr;
use crate::znode::{FileKind, Time};
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockStore, BlockWriter, NewObject, Objset};
use icecore_format::reader::u64_at;
use icecore_format::{ObjectId, ObjectType};

/// Bytes a bonus of one slot has for attributes (`DN_OLD_MAX_BONUSLEN`).
const BONUS_MAX: u16 = 320;
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
        let mtime = node.bytes(self, Attr::Mtime).filter(|b| b.len() >= 16);
        let mtime = mtime.ok_or_else(|| ZplError::corrupt("znode", id, "no Mtime"))?;
        let (seconds, nanos) = (u64_at(mtime, 0).cast_signed(), u32::try_from(u64_at(mtime, 8)).unwrap_or(0));
        let mtime = Time { seconds, nanos };
        Ok(Stat { kind: node.kind(self)?, size: node.word(self, Attr::Size)?, mtime })
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
        let mut node = Node::new(self, new, dir, io.txg().0)?;
        let len = u16::try_from(node.len(self)).unwrap_or(u16::MAX).min(BONUS_MAX);
        node.id = if new.what == What::Directory {
            let bonus = Some((ObjectType::SA, len));
            zap::create(os, io, ObjectType::DIRECTORY_CONTENTS, bonus, 0)?
        } else {
            let plain = NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, 512);
            os.allocate(io, &NewObject { nblkptr: 1, ..plain.with_bonus(ObjectType::SA, len) })?
        };
        node.store(self, os, io)?;
        let word = node.entry_word(self)?;
        zap::add_bytes(os, io, dir, name, &ZapValue::u64(word))?;
        self.named(&mut parent, 1, new.what == What::Directory, new.now)?;
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
                return Ok(());
            }
            let old_directory = Node::load(self, os, io, old)?.kind(self)? == FileKind::Directory;
            match (directory, old_directory) {
                (true, false) => return Err(ZplError::NotDirectory(shown(new_name))),
                (false, true) => return Err(ZplError::IsDirectory(shown(new_name))),
                (true, true) => self.rmdir(os, io, to, new_name, now)?,
                (false, false) => self.unlink(os, io, to, new_name, now)?,
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
        Ok(())
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
        node.apply(self, change, now)?;
        node.store(self, os, io)
    }
}
