//! Taking names away, and the files that have none left (`zfs_remove`, `zfs_rmdir`, zfs_vnops_os.c; `zfs_rmnode`).
//!
//! A file without a name is freed at once: nothing here keeps files open, so the queue of those that are unlinked but
//! still in use (`DELETE_QUEUE` of the master node) stays empty.

use super::Writer;
use super::node::Node;
use crate::error::{Result, ZplError};
use crate::sa::Attr;
use crate::znode::{FileKind, Time};
use icecore_dmu::zap;
use icecore_dmu::{BlockWriter, Objset};
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
        let mut parent = self.directory(os, io, dir)?;
        let id = self.need(os, io, dir, name)?;
        let mut node = Node::load(self, os, io, id)?;
        if node.kind(self)? == FileKind::Directory {
            return Err(ZplError::IsDirectory(String::from_utf8_lossy(name).into_owned()));
        }
        let links = node.word(self, Attr::Links)?;
        let hidden = self.hidden_files(os, io, &node)?;
        self.named(&mut parent, -1, false, now)?;
        zap::remove_bytes(os, io, dir, name)?;
        parent.store(self, os, io)?;
        if links > 1 {
            node.set_word(self, Attr::Links, links - 1)?;
            node.set_time(self, Attr::Ctime, now)?;
            return node.store(self, os, io);
        }
        for id in hidden.into_iter().chain([id]) {
            os.free_object(io, id)?;
        }
        Ok(())
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
    fn hidden_files(&self, os: &Objset, io: &dyn BlockWriter, node: &Node) -> Result<Vec<ObjectId>> {
        let dir = match node.bytes(self, Attr::Xattr) {
            Some(b) if b.len() >= 8 => ObjectId(icecore_format::reader::u64_at(b, 0)),
            _ => return Ok(Vec::new()),
        };
        if dir.0 == 0 {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        for e in zap::iter(os, io, dir)? {
            let word = e.value.as_u64().unwrap_or(0);
            let id = ObjectId(word & ((1 << 48) - 1));
            if Node::load(self, os, io, id)?.kind(self)? != FileKind::Regular {
                return Err(ZplError::corrupt("extended attributes", id, "no file"));
            }
            all.push(id);
        }
        all.push(dir);
        Ok(all)
    }
}
