//! Files without a name: those still open, and those too large to go at once (`zfs_unlinked_add`, `zfs_unlinked_drain`,
//! `zfs_rmnode`, zfs_dir.c).
//!
//! They stand in the set that the master node's `DELETE_QUEUE` leads to, under their number in hexadecimal, with no links.
//! Whoever opens the file system for writing next frees what a crash left there, OpenZFS as well as we.
//!
//! Invariants:
//! 1. A file enters the set in the txg in which its last name goes, and leaves it in the one in which its head goes.
//! 2. Between two calls a file in the set may be cut short from its end, never anywhere else.
//! 3. A call frees at most [`STEP_BLOCKS`] blocks of a tree, so the pointers it holds are bounded.

use super::Writer;
use super::node::Node;
use crate::error::{Result, ZplError};
use crate::sa::Attr;
use crate::znode::{FileKind, Time};
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockStore, BlockWriter, Objset};
use icecore_format::{Dnode, ObjectId};

/// Data blocks freed in one call: their pointers take 8 MiB.
const STEP_BLOCKS: u64 = 1 << 16;

/// Data blocks below a head, those in memory only not counted.
fn blocks_of(dn: &Dnode) -> u64 {
    (0..usize::from(dn.nblkptr())).map(|i| dn.blkptr(i).fill()).fold(0, u64::saturating_add)
}

impl Writer {
    /// Takes a name that is no directory's away, as [`Writer::unlink`] does, but keeps the file if that was its last:
    /// it stays, without a name, until [`Writer::reap`]. Whether that is so.
    ///
    /// # Errors
    /// As [`Writer::unlink`].
    pub fn orphan(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        dir: ObjectId,
        name: &[u8],
        now: Time,
    ) -> Result<bool> {
        Ok(self.take_name(os, io, dir, name, true, now)?.is_some())
    }

    /// A file whose last name went enters the set.
    pub(super) fn enter_queue(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        node: &mut Node,
        now: Time,
    ) -> Result<()> {
        let queue = self.queue()?;
        node.set_word(self, Attr::Links, 0)?;
        node.set_time(self, Attr::Ctime, now)?;
        node.store(self, os, io)?;
        Ok(zap::add(os, io, queue, &format!("{:x}", node.id.0), &ZapValue::u64(node.id.0))?)
    }

    fn queue(&self) -> Result<ObjectId> {
        self.queue.ok_or_else(|| ZplError::Unsupported("a file system without a DELETE_QUEUE".into()))
    }

    /// Whether a file is too large to be freed in one call.
    pub(super) fn is_large(&self, os: &Objset, io: &dyn BlockStore, id: ObjectId) -> Result<bool> {
        Ok(self.queue.is_some() && blocks_of(&os.dnode(io, id)?) > STEP_BLOCKS)
    }

    /// Frees a file of the set, or a part of it from its end: true once it is gone. The caller calls again otherwise,
    /// and commits between calls. A file that is not in the set is left alone.
    ///
    /// # Errors
    /// Damage: the txg must be abandoned after [`ZplError::Write`].
    pub fn reap(&mut self, os: &mut Objset, io: &mut dyn BlockWriter, id: ObjectId) -> Result<bool> {
        let queue = self.queue()?;
        let name = format!("{:x}", id.0);
        if zap::lookup_u64(os, io, queue, &name)? != Some(id.0) {
            return Ok(true);
        }
        if matches!(os.dnode(io, id), Err(icecore_dmu::ReadError::NoObject(_))) {
            zap::remove(os, io, queue, &name)?;
            return Ok(true);
        }
        let node = Node::load(self, os, io, id)?;
        if node.word(self, Attr::Links)? != 0 {
            return Err(ZplError::corrupt("delete queue", id, "a file that has names"));
        }
        if node.kind(self)? == FileKind::Directory && !node.is_xattr(self)? && zap::count(os, io, id)? != 0 {
            return Err(ZplError::corrupt("delete queue", id, "a directory with names in it"));
        }
        let hidden = if node.kind(self)? == FileKind::Directory && node.is_xattr(self)? {
            self.xattr_files(os, io, id)?
        } else {
            if !self.cut_short(os, io, id)? {
                return Ok(false);
            }
            self.hidden_files(os, io, &node)?
        };
        for id in hidden.into_iter().chain([id]) {
            os.free_object(io, id)?;
        }
        zap::remove(os, io, queue, &name)?;
        Ok(true)
    }

    /// Frees blocks from the end of a large file; true if what is left is no longer large.
    fn cut_short(&self, os: &mut Objset, io: &mut dyn BlockWriter, id: ObjectId) -> Result<bool> {
        let dn = os.dnode(io, id)?;
        if blocks_of(&dn) <= STEP_BLOCKS {
            return Ok(true);
        }
        let first = self.tail(os, io, id, &dn)?;
        os.free_range(io, id, first, u64::MAX)?;
        Ok(false)
    }

    /// The first block of a tail that has about [`STEP_BLOCKS`] blocks, found by the counts in the pointers above them.
    fn tail(&self, os: &Objset, io: &dyn BlockStore, id: ObjectId, dn: &Dnode) -> Result<u64> {
        let epbs = dn.epbs();
        let mut level = dn.nlevels().saturating_sub(1);
        let (mut from, mut to) = (0_u64, u64::from(dn.nblkptr()));
        let mut taken = 0_u64;
        loop {
            let mut at = to;
            let mut inside = None;
            while at > from {
                at -= 1;
                let fill = os.blkptr(io, id, dn, level, at)?.fill();
                if taken.saturating_add(fill) > STEP_BLOCKS {
                    inside = Some(at);
                    break;
                }
                taken = taken.saturating_add(fill);
            }
            let shift = epbs.saturating_mul(u32::from(level));
            match inside {
                // Part of it is to go: which, its children tell. At the lowest level one block more or less is no matter.
                Some(at) if level > 0 => {
                    (from, to) = (at << epbs, (at + 1) << epbs);
                    level -= 1;
                }
                Some(at) => return Ok(at.checked_shl(shift).unwrap_or(0)),
                None => return Ok(from.checked_shl(shift).unwrap_or(0)),
            }
        }
    }

    /// Files of the set, at most as many as are worth a call.
    ///
    /// # Errors
    /// Damage of the set.
    pub fn orphans(&self, os: &Objset, io: &dyn BlockStore) -> Result<Vec<ObjectId>> {
        let Some(queue) = self.queue else { return Ok(Vec::new()) };
        let mut cursor = zap::Cursor::new(os, io, queue, os.dnode(io, queue)?)?;
        while let Some(entries) = cursor.next_leaf(os, io)? {
            let found: Vec<ObjectId> =
                entries.iter().filter_map(|e| e.value.as_u64()).filter(|id| *id != 0).map(ObjectId).collect();
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// Frees what the set holds, but for those in `open`, one step a call: true once nothing is left to do. The caller
    /// calls again otherwise, and commits between calls. What is damaged stays in the set.
    ///
    /// # Errors
    /// As [`Writer::reap`].
    pub fn drain(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        open: &dyn Fn(ObjectId) -> bool,
    ) -> Result<bool> {
        for id in self.orphans(os, io)? {
            if open(id) || self.damaged.contains(&id) {
                continue;
            }
            match self.reap(os, io, id) {
                Ok(_) => return Ok(false),
                Err(ZplError::Corrupt(_)) => {
                    self.damaged.insert(id);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}
