//! The block tree of one object: pointers by (level, block id), the overlay of buffers, growth.

use super::free::has_buffers_below;
use super::sync::is_kept;
use super::{Obj, Objset, hole_after};
use crate::store::{BlockStore, BlockWriter, Form, NewBlock, ReadError, WriteError};
use icecore_format::{Blkptr, Corrupt, ObjectId};
use std::collections::BTreeSet;
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

/// Pointer `index` in an indirect block.
pub(crate) fn bp_in(block: &[u8], index: u64) -> Blkptr {
    let at = (index as usize).saturating_mul(128);
    block.get(at..at.saturating_add(128)).and_then(|b| Blkptr::read_from_bytes(b).ok()).unwrap_or_default()
}

impl Objset {
    /// The pointer to (level, blkid) of `o`, through the overlay.
    pub(crate) fn get_bp(
        &self,
        io: &dyn BlockStore,
        obj: ObjectId,
        o: &Obj,
        level: u8,
        blkid: u64,
    ) -> Result<Blkptr, ReadError> {
        let (dn, epbs) = (&o.dn, o.dn.epbs());
        let top = dn.nlevels().saturating_sub(1);
        if level > top {
            return Ok(Blkptr::default());
        }
        // Find the lowest buffered ancestor, or the dnode, then walk down from there.
        let shift = |l: u8| blkid.checked_shr(epbs * u32::from(l - level)).unwrap_or(0);
        let mut from = top;
        let mut bp = Blkptr::default();
        let mut found = false;
        for l in level + 1..=top {
            if let Some(buf) = o.bufs.get(&(l, shift(l))) {
                (bp, from, found) = (bp_in(buf, shift(l - 1) & (dn.epb() - 1)), l - 1, true);
                break;
            }
        }
        if !found {
            if shift(top) >= u64::from(dn.nblkptr()) {
                return Ok(Blkptr::default());
            }
            bp = dn.blkptr(shift(top) as usize);
        }
        while from > level {
            if bp.is_hole() {
                return Ok(child_hole(&bp, dn, level + 1));
            }
            let block = self.read_indirect(io, obj, o, &bp, from, shift(from))?;
            bp = bp_in(&block, shift(from - 1) & (dn.epb() - 1));
            from -= 1;
        }
        Ok(bp)
    }

    pub(super) fn read_indirect(
        &self,
        io: &dyn BlockStore,
        obj: ObjectId,
        o: &Obj,
        bp: &Blkptr,
        level: u8,
        blkid: u64,
    ) -> Result<Arc<[u8]>, ReadError> {
        if bp.level() != level {
            return Err(Corrupt::new(
                "block tree",
                format!("object {obj}: level {} where {level} belongs", bp.level()),
            )
            .into());
        }
        let block = io.read(bp, &self.at(obj, level, blkid), self.want)?;
        if block.len() as u64 != 1 << o.dn.indblkshift() {
            return Err(Corrupt::new(
                "block tree",
                format!("object {obj}: indirect block of {} bytes", block.len()),
            )
            .into());
        }
        Ok(block)
    }

    /// Data block `blkid`, through the overlay.
    pub(crate) fn block_of(
        &self,
        io: &dyn BlockStore,
        obj: ObjectId,
        o: &Obj,
        blkid: u64,
    ) -> Result<Option<Arc<[u8]>>, ReadError> {
        if let Some(buf) = o.bufs.get(&(0, blkid)) {
            return Ok(Some(Arc::from(buf.as_slice())));
        }
        let bp = self.get_bp(io, obj, o, 0, blkid)?;
        if bp.is_hole() {
            return Ok(None);
        }
        io.read(&bp, &self.at(obj, 0, blkid), self.want).map(Some)
    }

    /// The first data block at or after `blkid` that is not a hole.
    pub(crate) fn next_block(
        &self,
        io: &dyn BlockStore,
        obj: ObjectId,
        o: &Obj,
        blkid: u64,
    ) -> Result<Option<u64>, ReadError> {
        let dn = &o.dn;
        let epbs = dn.epbs();
        let mut at = blkid;
        // Past the tree's capacity there is nothing, whatever a damaged head says of its last block.
        'outer: while at <= dn.maxblkid() && at < dn.capacity() {
            if o.bufs.contains_key(&(0, at)) {
                return Ok(Some(at));
            }
            // Skip the largest subtree that is a hole, nothing in it changed in memory.
            for level in (0..dn.nlevels()).rev() {
                let shift = epbs * u32::from(level);
                let id = at.checked_shr(shift).unwrap_or(0);
                let buffered = o.bufs.contains_key(&(level, id)) || has_buffers_below(o, level, id);
                if !buffered && self.get_bp(io, obj, o, level, id)?.is_hole() {
                    at = (id + 1).checked_shl(shift).filter(|n| *n > at).unwrap_or(u64::MAX);
                    continue 'outer;
                }
            }
            return Ok(Some(at));
        }
        Ok(None)
    }

    /// Runs `f` on the overlay object `obj` taken out of the map, so that it can call methods of `self`.
    pub(crate) fn with_obj<T>(
        &mut self,
        io: &dyn BlockStore,
        obj: ObjectId,
        f: impl FnOnce(&mut Self, &mut Obj) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let mut o = self.take_obj(io, obj)?;
        let result = f(self, &mut o);
        self.put_obj(obj, o);
        result
    }

    /// The same for `f` that writes.
    pub(crate) fn with_obj_io<T>(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: ObjectId,
        f: impl FnOnce(&mut Self, &mut dyn BlockWriter, &mut Obj) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let mut o = self.take_obj(io, obj)?;
        let result = f(self, io, &mut o);
        self.put_obj(obj, o);
        result
    }

    pub(crate) fn take_obj(&mut self, io: &dyn BlockStore, obj: ObjectId) -> Result<Obj, WriteError> {
        if obj.0 == 0 {
            return Ok(std::mem::replace(&mut self.meta, Obj::clean(icecore_format::Dnode::empty(1))));
        }
        match self.table_mut(obj).remove(&obj.0) {
            Some(o) if o.dn.is_free() => {
                self.table_mut(obj).insert(obj.0, o);
                Err(ReadError::NoObject(obj).into())
            }
            Some(o) => Ok(o),
            None => Ok(Obj::clean(self.dnode(io, obj)?)),
        }
    }

    pub(crate) fn put_obj(&mut self, obj: ObjectId, o: Obj) {
        if obj.0 == 0 {
            self.meta = o;
        } else {
            self.table_mut(obj).insert(obj.0, o);
        }
    }

    /// The buffer of (level, blkid), loaded from disk or made of zeros (of remembered holes).
    pub(crate) fn buf_mut<'o>(
        &self,
        io: &dyn BlockStore,
        obj: ObjectId,
        o: &'o mut Obj,
        level: u8,
        blkid: u64,
    ) -> Result<&'o mut Vec<u8>, WriteError> {
        if !o.bufs.contains_key(&(level, blkid)) {
            let bp = self.get_bp(io, obj, o, level, blkid)?;
            let buf = if level > 0 {
                self.load_indirect(io, obj, o, &bp, level, blkid)?
            } else {
                self.load_data(io, obj, o, &bp, blkid)?
            };
            o.bufs.insert((level, blkid), buf);
        }
        match o.bufs.get_mut(&(level, blkid)) {
            Some(buf) => Ok(buf),
            None => Err(WriteError::Invalid("a buffer vanished".into())),
        }
    }

    fn load_data(
        &self,
        io: &dyn BlockStore,
        obj: ObjectId,
        o: &Obj,
        bp: &Blkptr,
        blkid: u64,
    ) -> Result<Vec<u8>, WriteError> {
        let size = o.dn.block_size() as usize;
        if bp.is_hole() {
            return Ok(vec![0; size]);
        }
        let mut data = io.read(bp, &self.at(obj, 0, blkid), self.want)?.to_vec();
        data.resize(size, 0);
        Ok(data)
    }

    fn load_indirect(
        &self,
        io: &dyn BlockStore,
        obj: ObjectId,
        o: &Obj,
        bp: &Blkptr,
        level: u8,
        blkid: u64,
    ) -> Result<Vec<u8>, WriteError> {
        if !bp.is_hole() {
            return Ok(self.read_indirect(io, obj, o, bp, level, blkid)?.to_vec());
        }
        let mut buf = vec![0; 1 << o.dn.indblkshift()];
        let child = child_hole(bp, &o.dn, level);
        if child != Blkptr::default() {
            buf.chunks_exact_mut(128).for_each(|c| c.copy_from_slice(child.as_bytes()));
        }
        Ok(buf)
    }

    /// Makes the tree tall enough for block `blkid` of `level` (`dnode_increase_indirection`).
    pub(crate) fn grow_for(&self, o: &mut Obj, level: u8, blkid: u64) -> Result<(), WriteError> {
        loop {
            let above = u32::from(o.dn.nlevels().saturating_sub(1).saturating_sub(level));
            let shift = o.dn.epbs() * above;
            let fits = o.dn.nlevels() > level && (shift >= 62 || blkid < u64::from(o.dn.nblkptr()) << shift);
            if fits {
                return Ok(());
            }
            if self.is_raw() || o.dn.nlevels() >= icecore_format::dnode::MAX_LEVELS {
                return Err(WriteError::Invalid(format!(
                    "block {blkid} lies beyond the {} levels of its object",
                    o.dn.nlevels()
                )));
            }
            self.grow_one(o);
        }
    }

    pub(crate) fn grow_one(&self, o: &mut Obj) {
        let level = o.dn.nlevels();
        let nblkptr = usize::from(o.dn.nblkptr());
        if (0..nblkptr).any(|i| !o.dn.blkptr(i).is_hole() || o.dn.blkptr(i).birth().0 != 0)
            || o.bufs.keys().any(|(l, _)| *l == level - 1)
        {
            let mut buf = vec![0; 1 << o.dn.indblkshift()];
            for i in 0..nblkptr {
                buf[i * 128..(i + 1) * 128].copy_from_slice(o.dn.blkptr(i).as_bytes());
            }
            o.bufs.insert((level, 0), buf);
        }
        for i in 0..nblkptr {
            o.dn.set_blkptr(i, &Blkptr::default());
        }
        o.dn.set_nlevels(level + 1);
    }

    /// Puts `bp` in the tree and gives back what was there.
    pub(crate) fn set_bp(
        &self,
        io: &dyn BlockStore,
        obj: ObjectId,
        o: &mut Obj,
        level: u8,
        blkid: u64,
        bp: &Blkptr,
    ) -> Result<Blkptr, WriteError> {
        self.grow_for(o, level, blkid)?;
        if level == 0 && blkid > o.dn.maxblkid() {
            if self.is_raw() {
                return Err(WriteError::Invalid(format!(
                    "object {obj}: block {blkid} lies beyond its last block {}",
                    o.dn.maxblkid()
                )));
            }
            o.dn.set_maxblkid(blkid);
        }
        if level + 1 == o.dn.nlevels() {
            let old = o.dn.blkptr(blkid as usize);
            o.dn.set_blkptr(blkid as usize, bp);
            return Ok(old);
        }
        let (epbs, mask) = (o.dn.epbs(), o.dn.epb() - 1);
        let parent = self.buf_mut(io, obj, o, level + 1, blkid >> epbs)?;
        let at = ((blkid & mask) as usize) * 128;
        let slot = parent
            .get_mut(at..at + 128)
            .ok_or_else(|| WriteError::Invalid("indirect block too small".into()))?;
        let old = Blkptr::read_from_bytes(slot).unwrap_or_default();
        slot.copy_from_slice(bp.as_bytes());
        Ok(old)
    }

    /// Writes into `obj` at byte `offset`; kept in memory until the sync.
    pub fn write(
        &mut self,
        io: &dyn BlockStore,
        obj: ObjectId,
        offset: u64,
        data: &[u8],
    ) -> Result<(), WriteError> {
        self.with_obj(io, obj, |os, o| {
            let size = o.dn.block_size();
            let mut done = 0_usize;
            while done < data.len() {
                let at = offset + done as u64;
                let (blkid, skip) = (at / size, (at % size) as usize);
                let take = (size as usize - skip).min(data.len() - done);
                os.admit_buffer(io, obj, o, blkid)?;
                os.grow_for(o, 0, blkid)?;
                if blkid > o.dn.maxblkid() {
                    o.dn.set_maxblkid(blkid);
                }
                os.touched += 1;
                let buf = os.buf_mut(io, obj, o, 0, blkid)?;
                buf[skip..skip + take].copy_from_slice(&data[done..done + take]);
                done += take;
            }
            Ok(())
        })
    }

    /// Writes whole data blocks at once and keeps only their pointers in memory. Stored-form blocks keep
    /// their logical size from the object's block size.
    pub fn write_through(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: ObjectId,
        blocks: Vec<(u64, Vec<u8>, Form)>,
    ) -> Result<(), WriteError> {
        self.write_through_many(
            io,
            blocks.into_iter().map(|(id, data, form)| (obj, id, data, form)).collect(),
        )
    }

    /// The same for blocks of several objects, handed to the store as one batch.
    pub fn write_through_many(
        &mut self,
        io: &mut dyn BlockWriter,
        blocks: Vec<(ObjectId, u64, Vec<u8>, Form)>,
    ) -> Result<(), WriteError> {
        if !blocks.is_empty() {
            self.check_room(0)?;
        }
        let mut new: Vec<NewBlock> = Vec::with_capacity(blocks.len());
        let mut places = Vec::with_capacity(blocks.len());
        let mut first = BTreeSet::new();
        for (obj, blkid, data, form) in blocks {
            // Written twice, what is there now is gone by the second time.
            let first = first.insert((obj, blkid));
            let block = self.with_obj(io, obj, |os, o| {
                let mut block = os.new_block(obj, o, 0, blkid, data, form);
                block.may_keep &= first && blkid <= o.dn.maxblkid();
                if block.may_keep {
                    block.old = os.get_bp(io, obj, o, 0, blkid)?;
                }
                Ok(block)
            })?;
            places.push((obj, blkid, block.old));
            new.push(block);
        }
        let written = io.write_batch(new)?;
        self.admit_written(io, &places, &written)?;
        for ((obj, blkid, old), mut bp) in places.into_iter().zip(written) {
            self.with_obj_io(io, obj, |os, io, o| {
                o.bufs.remove(&(0, blkid));
                if is_kept(&old, &bp) {
                    return Ok(());
                }
                if bp.is_hole() {
                    let old = os.get_bp(io, obj, o, 0, blkid)?;
                    bp = hole_after(&old, io.hole_birth(), io.txg(), o.dn.kind(), 0, o.dn.block_size());
                }
                os.replace(io, obj, o, 0, blkid, &bp)
            })?;
        }
        Ok(())
    }

    /// Puts an existing pointer (an embedded one from a stream) in place of data block `blkid`.
    pub fn write_pointer(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: ObjectId,
        blkid: u64,
        bp: &Blkptr,
    ) -> Result<(), WriteError> {
        self.with_obj_io(io, obj, |os, io, o| {
            o.bufs.remove(&(0, blkid));
            os.replace(io, obj, o, 0, blkid, bp)
        })
    }

    /// `set_bp` with the accounting: the new pointer is born, the old one killed.
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_wrap)]
    pub(crate) fn replace(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: ObjectId,
        o: &mut Obj,
        level: u8,
        blkid: u64,
        bp: &Blkptr,
    ) -> Result<(), WriteError> {
        let old = self.set_bp(io, obj, o, level, blkid, bp)?;
        self.touched += 1;
        self.account(io, o, &old, bp)
    }

    pub(crate) fn account(
        &mut self,
        io: &mut dyn BlockWriter,
        o: &mut Obj,
        old: &Blkptr,
        new: &Blkptr,
    ) -> Result<(), WriteError> {
        let used = o.dn.used_bytes().saturating_add(new.asize()).saturating_sub(old.asize());
        o.dn.set_used_bytes(used);
        self.exchange(io, old, new)
    }

    /// Counts `new` as born and kills `old`, unless `new` was written over it in place.
    pub(crate) fn exchange(
        &mut self,
        io: &mut dyn BlockWriter,
        old: &Blkptr,
        new: &Blkptr,
    ) -> Result<(), WriteError> {
        let in_place = !new.is_hole()
            && !new.is_embedded()
            && !old.is_embedded()
            && new.dva[0] == old.dva[0]
            && old.alloc_birth() == io.txg();
        self.delta.born.add(super::Space::of(new));
        if in_place {
            self.delta.born.sub(super::Space::of(old));
            return Ok(());
        }
        self.kill(io, old)
    }
}

/// What a child of a hole of `level` looks like: it inherits the hole's birth (`dbuf_handle_indirect_hole`).
fn child_hole(bp: &Blkptr, dn: &icecore_format::Dnode, level: u8) -> Blkptr {
    let child = level.saturating_sub(1);
    let lsize = if child == 0 { dn.block_size() } else { 1 << dn.indblkshift() };
    Blkptr::hole(bp.birth(), dn.kind(), child, lsize)
}
