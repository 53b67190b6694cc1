//! Freeing ranges of blocks: every pointer below is killed, whole subtrees become one hole.

use super::{Obj, Objset, hole_after};
use crate::store::{BlockStore, BlockWriter, WriteError};
use icecore_format::{Blkptr, ObjectId};

/// A range of level-0 block ids, end exclusive.
#[derive(Clone, Copy)]
struct Range {
    first: u64,
    end: u64,
}

impl Objset {
    /// Frees data blocks `first .. first + count` of `obj` (`u64::MAX` for all that follow). Freeing to the
    /// end lowers `maxblkid`, except in a raw objset (`dnode_sync_free_range_impl`, `free_children`).
    pub fn free_range(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: ObjectId,
        first: u64,
        count: u64,
    ) -> Result<(), WriteError> {
        self.with_obj_io(io, obj, |os, io, o| {
            let last = o.dn.maxblkid();
            let range = Range { first, end: first.saturating_add(count).min(last.saturating_add(1)) };
            if first <= last {
                os.free_blocks(io, obj, o, range)?;
            }
            if !os.is_raw() && first <= last && range.end > last {
                o.dn.set_maxblkid(first.saturating_sub(1));
            }
            Ok(())
        })
    }

    fn free_blocks(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: ObjectId,
        o: &mut Obj,
        range: Range,
    ) -> Result<(), WriteError> {
        let top = o.dn.nlevels().saturating_sub(1);
        let shift = o.dn.epbs() * u32::from(top);
        for i in 0..u64::from(o.dn.nblkptr()) {
            if i.checked_shl(shift).is_some_and(|lo| lo < range.end) {
                self.free_at(io, obj, o, top, i, range)?;
            }
        }
        Ok(())
    }

    /// Frees what lies in `range` below (level, blkid), the block itself included if all of it does.
    fn free_at(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: ObjectId,
        o: &mut Obj,
        level: u8,
        blkid: u64,
        range: Range,
    ) -> Result<(), WriteError> {
        let shift = o.dn.epbs() * u32::from(level);
        let lo = blkid.checked_shl(shift).unwrap_or(u64::MAX);
        let hi = (blkid + 1).checked_shl(shift).filter(|h| *h > lo).unwrap_or(u64::MAX);
        if hi <= range.first || lo >= range.end {
            return Ok(());
        }
        // The end of the object counts as the end of the block: nothing lies beyond.
        let whole = range.first <= lo && (hi <= range.end || range.end > o.dn.maxblkid());
        let bp = self.get_bp(io, obj, o, level, blkid)?;
        let buffered = o.bufs.range((0, lo)..(0, hi)).next().is_some()
            || o.bufs.contains_key(&(level, blkid))
            || has_buffers_below(o, level, blkid);
        if bp.is_hole() && !buffered {
            return Ok(());
        }
        if level > 0 {
            for child in self.children(io, obj, o, level, blkid, lo, range)? {
                self.free_at(io, obj, o, level - 1, child, range)?;
            }
        }
        if !whole {
            return Ok(());
        }
        o.bufs.remove(&(level, blkid));
        if !bp.is_hole() {
            let kind = o.dn.kind();
            let lsize = if level == 0 { o.dn.block_size() } else { 1 << o.dn.indblkshift() };
            let hole = hole_after(&bp, io.hole_birth(), io.txg(), kind, level, lsize);
            self.replace(io, obj, o, level, blkid, &hole)?;
        }
        Ok(())
    }

    /// Ids of the children of (level, blkid) that are worth a visit: in range, and not untouched holes.
    #[allow(clippy::too_many_arguments)]
    fn children(
        &self,
        io: &dyn BlockStore,
        obj: ObjectId,
        o: &Obj,
        level: u8,
        blkid: u64,
        lo: u64,
        range: Range,
    ) -> Result<Vec<u64>, WriteError> {
        let below = o.dn.epbs() * u32::from(level - 1);
        let epb = o.dn.epb();
        let first =
            if range.first > lo { range.first.checked_shr(below).unwrap_or(0) } else { blkid << o.dn.epbs() };
        let mut out = Vec::new();
        for child in first..(blkid + 1).saturating_mul(epb) {
            if child.checked_shl(below).is_none_or(|at| at >= range.end) {
                break;
            }
            let bp: Blkptr = self.get_bp(io, obj, o, level - 1, child)?;
            if !bp.is_hole()
                || o.bufs.contains_key(&(level - 1, child))
                || has_buffers_below(o, level - 1, child)
            {
                out.push(child);
            }
        }
        Ok(out)
    }
}

/// Whether anything below a block was changed in memory.
pub(super) fn has_buffers_below(o: &Obj, level: u8, blkid: u64) -> bool {
    (0..level).any(|l| {
        let shift = o.dn.epbs() * u32::from(level - l);
        let lo = blkid.checked_shl(shift).unwrap_or(u64::MAX);
        let hi = (blkid + 1).checked_shl(shift).unwrap_or(u64::MAX);
        lo < hi && o.bufs.range((l, lo)..(l, hi)).next().is_some()
    })
}
