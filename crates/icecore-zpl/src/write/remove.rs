//! Taking names away, and the files that have none left (`zfs_remove`, `zfs_rmdir`, zfs_vnops_os.c; `zfs_rmnode`).
//!
//! A file without a name is freed at once, unless it is large: then it goes by way of the set of [`super::orphans`].

use super::Writer;
use super::node::Node;
use crate::error::{Result, ZplError};
use crate::sa::Attr;
use crate::znode::{FileKind, Time};
use icecore_dmu::zap;
use icecore_dmu::{BlockStore, BlockWriter, Objset};
use icecore_format::ObjectId;

impl Writer {
    /// Takes a name that is no directory's away; the file goes with its last one.
    pub fn unlink(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        dir: ObjectId,
        name: &[u8],
        now: Time,
    ) -> Result<()> {
        self.take_name(os, io, dir, name, false, now).map(drop)
    }

    /// Takes a name away. A file that loses its last one is freed, or kept without a name and given back.
    pub(super) fn take_name(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        dir: ObjectId,
        name: &[u8],
        keep: bool,
        now: Time,
    ) -> Result<Option<ObjectId>> {
        let mut parent = self.directory(os, io, dir)?;
        let id = self.need(os, io, dir, name)?;
        let mut node = Node::load(self, os, io, id)?;
        if node.kind(self)? == FileKind::Directory {
            return Err(ZplError::IsDirectory(String::from_utf8_lossy(name).into_owned()));
        }
        let links = node.word(self, Attr::Links)?;
        let hidden = self.hidden_files(os, io, &node)?;
        let large = self.is_large(os, io, id)?;
        self.named(&mut parent, -1, false, now)?;
        zap::remove_bytes(os, io, dir, name)?;
        parent.store(self, os, io)?;
        if links > 1 {
            node.set_word(self, Attr::Links, links - 1)?;
            node.set_time(self, Attr::Ctime, now)?;
            node.store(self, os, io)?;
            return Ok(None);
        }
        if keep || large {
            self.enter_queue(os, io, &mut node, now)?;
            return Ok(Some(id).filter(|_| keep));
        }
        for id in hidden.into_iter().chain([id]) {
            os.free_object(io, id)?;
        }
        Ok(None)
    }

    /// Removes an empty directory.
    pub fn rmdir(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        dir: ObjectId,
        name: &[u8],
        now: Time,
    ) -> Result<()> {
        let mut parent = self.directory(os, io, dir)?;
        let id = self.need(os, io, dir, name)?;
        let node = self.directory(os, io, id)?;
        // The names themselves, not the size: what is there must not be lost to a wrong count.
        if zap::count(os, io, id)? != 0 {
            return Err(ZplError::NotEmpty(String::from_utf8_lossy(name).into_owned()));
        }
        let hidden = self.hidden_files(os, io, &node)?;
        self.named(&mut parent, -1, true, now)?;
        zap::remove_bytes(os, io, dir, name)?;
        parent.store(self, os, io)?;
        for id in hidden.into_iter().chain([id]) {
            os.free_object(io, id)?;
        }
        Ok(())
    }

    /// The extended attributes that a file has as files, and their directory.
    pub(super) fn hidden_files(
        &self,
        os: &Objset,
        io: &dyn BlockStore,
        node: &Node,
    ) -> Result<Vec<ObjectId>> {
        let Some(dir) = self.xattr_dir(node) else { return Ok(Vec::new()) };
        let mut all = self.xattr_files(os, io, dir)?;
        all.push(dir);
        Ok(all)
    }

    /// The files in a directory of extended attributes.
    pub(super) fn xattr_files(
        &self,
        os: &Objset,
        io: &dyn BlockStore,
        dir: ObjectId,
    ) -> Result<Vec<ObjectId>> {
        let mut all = Vec::new();
        for e in zap::iter(os, io, dir)? {
            let word = e.value.as_u64().unwrap_or(0);
            let id = ObjectId(word & ((1 << 48) - 1));
            if Node::load(self, os, io, id)?.kind(self)? != FileKind::Regular {
                return Err(ZplError::corrupt("extended attributes", id, "no file"));
            }
            all.push(id);
        }
        Ok(all)
    }
}
