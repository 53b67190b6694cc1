//! Contents: writing at a place, cutting and stretching, and the block size that goes with it (`zfs_write`,
//! zfs_vnops.c; `zfs_grow_blocksize`, `zfs_extend`, `zfs_trunc`, zfs_znode_os.c).

use super::Writer;
use super::node::Node;
use crate::error::{Result, ZplError};
use crate::sa::Attr;
use crate::znode::{FileKind, Time};
use icecore_dmu::{BlockStore, BlockWriter, Form, Objset, WriteError};
use icecore_format::ObjectId;

/// Largest file.
const SIZE_MAX: u64 = i64::MAX as u64;

impl Writer {
    pub(super) fn regular(&self, os: &Objset, io: &dyn BlockStore, id: ObjectId) -> Result<Node> {
        let node = Node::load(self, os, io, id)?;
        match node.kind(self)? {
            FileKind::Regular => Ok(node),
            FileKind::Directory => Err(ZplError::IsDirectory(format!("object {id}"))),
            _ => Err(ZplError::NoContents(format!("object {id}"))),
        }
    }

    /// The largest block that a file of a block size can come to need: the caller makes the dataset's feature for
    /// large blocks active before such are written.
    #[must_use]
    pub fn record(&self) -> u64 {
        self.record
    }

    /// Lets a file of one block have a larger one, for a size of `end` bytes: the size while that is below a record,
    /// else a record. A file of more blocks keeps their size.
    fn grow_block(&self, os: &mut Objset, io: &dyn BlockStore, id: ObjectId, end: u64) -> Result<()> {
        let dn = os.dnode(io, id)?;
        let block = dn.block_size();
        if end <= block || (block.is_power_of_two() && block >= self.record) {
            return Ok(());
        }
        if dn.maxblkid() > 0 || dn.nlevels() > 1 {
            return Ok(());
        }
        // A lowered record size: what has no power of two comes to the next.
        let most = if block > self.record { block.next_power_of_two() } else { self.record };
        let new = end.min(most).next_multiple_of(512);
        if new <= block {
            return Ok(());
        }
        let empty = dn.blkptr(0).is_hole() && os.block(io, id, &dn, 0)?.is_none();
        match empty {
            true => os.set_block_size(io, id, new, dn.indblkshift())?,
            false => os.resize_only_block(io, id, new)?,
        }
        Ok(())
    }

    /// Writes into a file at byte `offset`.
    ///
    /// # Errors
    /// [`WriteError::Quota`] where a quota is used up, [`WriteError::NoSpace`] where the pool is full: then the file ends
    /// where it ended, and the txg can go on.
    pub fn write(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        id: ObjectId,
        offset: u64,
        data: &[u8],
        now: Time,
    ) -> Result<()> {
        let node = self.regular(os, io, id)?;
        self.check_quota(os, io, node.owners(self)?, false)?;
        self.write_into(os, io, node, offset, data, now)
    }

    /// The same, where the quotas of owners were asked already.
    pub(super) fn write_into(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        node: Node,
        offset: u64,
        data: &[u8],
        now: Time,
    ) -> Result<()> {
        let eof = offset.saturating_add(data.len() as u64);
        self.write_sized(os, io, node, offset, data, eof, now)
    }

    /// The same, but the file comes to end no later than `eof` by it: what is written beyond is kept for a size to come.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn write_sized(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        mut node: Node,
        offset: u64,
        data: &[u8],
        eof: u64,
        now: Time,
    ) -> Result<()> {
        let id = node.id;
        let end = offset.checked_add(data.len() as u64).filter(|e| *e <= SIZE_MAX && eof <= SIZE_MAX);
        let end = end.ok_or_else(|| ZplError::TooLarge(format!("a file of {offset} bytes and more")))?;
        if data.is_empty() {
            return Ok(());
        }
        let old = node.word(self, Attr::Size)?;
        let size = old.max(end);
        self.grow_block(os, io, id, size)?;
        if let Err(e) = self.put(os, io, id, offset, data, size) {
            if matches!(e, ZplError::Write(WriteError::Quota | WriteError::NoSpace)) {
                // What came in before the room ended would show if the file were stretched later.
                self.punch(os, io, id, old, u64::MAX)?;
            }
            return Err(e);
        }
        node.set_word(self, Attr::Size, old.max(eof))?;
        node.changed(self, now)?;
        node.store(self, os, io)
    }

    /// Whole blocks go out at once, also the last of the file; parts of blocks stay in memory.
    fn put(
        &self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        id: ObjectId,
        offset: u64,
        data: &[u8],
        size: u64,
    ) -> Result<()> {
        let block = os.dnode(io, id)?.block_size();
        let policy = os.policy();
        let form =
            Form::Logical { compress: policy.compress, level: policy.level, encrypt: policy.encrypted };
        let mut whole = Vec::new();
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let skip = at % block;
            let take = usize::try_from(block - skip).unwrap_or(usize::MAX).min(rest.len());
            let (part, more) = rest.split_at(take);
            let to = at + take as u64;
            if skip == 0 && (take as u64 == block || to == size) {
                let mut bytes = part.to_vec();
                bytes.resize(usize::try_from(block).unwrap_or(take), 0);
                whole.push((at / block, bytes, form));
            } else {
                os.write(io, id, at, part)?;
            }
            (at, rest) = (to, more);
        }
        if !whole.is_empty() {
            os.write_through(io, id, whole)?;
        }
        Ok(())
    }

    /// Gives a file another size; what is added reads as zeros.
    pub fn truncate(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        id: ObjectId,
        size: u64,
        now: Time,
    ) -> Result<()> {
        let mut node = self.regular(os, io, id)?;
        if size > SIZE_MAX {
            return Err(ZplError::TooLarge(format!("a file of {size} bytes")));
        }
        let old = node.word(self, Attr::Size)?;
        if size > old {
            self.grow_block(os, io, id, size)?;
        } else if size < old {
            self.punch(os, io, id, size, u64::MAX)?;
        }
        node.set_word(self, Attr::Size, size)?;
        node.changed(self, now)?;
        node.store(self, os, io)
    }

    /// Makes bytes `from` to `to` of a file zeros: whole blocks become holes.
    fn punch(
        &self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        id: ObjectId,
        from: u64,
        to: u64,
    ) -> Result<()> {
        let dn = os.dnode(io, id)?;
        let block = dn.block_size();
        let first = from.div_ceil(block);
        if !from.is_multiple_of(block) {
            let blkid = from / block;
            let end = to.min(blkid.saturating_add(1).saturating_mul(block));
            if os.block(io, id, &dn, blkid)?.is_some() {
                let zeros = vec![0; usize::try_from(end.saturating_sub(from)).unwrap_or(0)];
                os.write(io, id, from, &zeros)?;
            }
        }
        let last = if to == u64::MAX { u64::MAX } else { to / block };
        if first < last {
            os.free_range(io, id, first, last - first)?;
        }
        Ok(())
    }

    /// Frees the space of a range within a file (`fallocate` with `FALLOC_FL_PUNCH_HOLE`); its size stays.
    pub fn punch_hole(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        id: ObjectId,
        (offset, len): (u64, u64),
        now: Time,
    ) -> Result<()> {
        let mut node = self.regular(os, io, id)?;
        let size = node.word(self, Attr::Size)?;
        let end = offset.saturating_add(len).min(size);
        if offset < end {
            let to = if end == size { u64::MAX } else { end };
            self.punch(os, io, id, offset, to)?;
            let dn = os.dnode(io, id)?;
            let tail = end / dn.block_size() * dn.block_size();
            if to != u64::MAX
                && tail >= offset
                && tail < end
                && os.block(io, id, &dn, tail / dn.block_size())?.is_some()
            {
                os.write(io, id, tail, &vec![0; usize::try_from(end - tail).unwrap_or(0)])?;
            }
        }
        node.changed(self, now)?;
        node.store(self, os, io)
    }
}
