//! The data blocks of an object that are not holes, many at a time: what reading ahead and sparse copies need.
//!
//! Invariant: a damaged tree cannot make a scan endless. Indirect blocks without any data below them do not occur
//! (they would have become holes); after [`BARREN_MAX`] of them in a row the tree counts as damaged.

use super::free::has_buffers_below;
use super::tree::bp_in;
use super::{Obj, Objset};
use crate::store::{BlockStore, ReadError};
use icecore_format::{Blkptr, Corrupt, Dnode, ObjectId};
use std::collections::BTreeMap;

/// Indirect blocks without data that are borne in a row.
const BARREN_MAX: u32 = 4096;

/// A data block that is not a hole.
#[derive(Clone, Copy, Debug)]
pub struct DataBlock {
    /// Which: its offset divided by the object's block size.
    pub blkid: u64,
    /// Where it is on disk; `None` if it was changed in memory ([`Objset::block`] has it).
    pub bp: Option<Blkptr>,
}

struct Scan {
    from: u64,
    limit: usize,
    found: BTreeMap<u64, Option<Blkptr>>,
    barren: u32,
}

impl Objset {
    /// The first `limit` data blocks of `obj` from block `from` on that are no holes, in order. Fewer than `limit`
    /// means there are no more.
    pub fn data_blocks(
        &self,
        io: &dyn BlockStore,
        obj: ObjectId,
        dn: &Dnode,
        from: u64,
        limit: usize,
    ) -> Result<Vec<DataBlock>, ReadError> {
        let own;
        let o = match self.overlay(obj) {
            Some(o) => o,
            None => {
                own = Obj::clean(dn.clone());
                &own
            }
        };
        let mut scan = Scan { from, limit, found: BTreeMap::new(), barren: 0 };
        let top = o.dn.nlevels().saturating_sub(1);
        for i in 0..u64::from(o.dn.nblkptr()) {
            self.scan_below(io, obj, o, top, i, &o.dn.blkptr(i as usize), &mut scan)?;
        }
        for ((level, blkid), _) in o.bufs.range((0, from)..) {
            if *level != 0 {
                break;
            }
            scan.found.insert(*blkid, None);
        }
        Ok(scan.found.into_iter().take(limit).map(|(blkid, bp)| DataBlock { blkid, bp }).collect())
    }

    #[allow(clippy::too_many_arguments)] // one step of a recursion over (level, id, pointer)
    fn scan_below(
        &self,
        io: &dyn BlockStore,
        obj: ObjectId,
        o: &Obj,
        level: u8,
        id: u64,
        bp: &Blkptr,
        scan: &mut Scan,
    ) -> Result<(), ReadError> {
        let shift = o.dn.epbs() * u32::from(level);
        let Some(first) = id.checked_mul(1_u64.checked_shl(shift).unwrap_or(0)).filter(|f| id == 0 || *f > 0)
        else {
            return Ok(());
        };
        let last = first.saturating_add(1_u64.checked_shl(shift).map_or(u64::MAX, |n| n - 1));
        let buffer = o.bufs.get(&(level, id)).filter(|_| level > 0);
        let done = scan.found.len() >= scan.limit || last < scan.from || first > o.dn.maxblkid();
        // What was written since may hang on pointers in memory, below holes that are not rewritten yet.
        let nothing = bp.is_hole() && buffer.is_none();
        if done || nothing && !has_buffers_below(o, level, id) {
            return Ok(());
        }
        if level == 0 {
            scan.found.insert(id, Some(*bp));
            scan.barren = 0;
            return Ok(());
        }
        let read;
        let block: &[u8] = match buffer {
            Some(buf) => buf,
            // All its children are holes, as far as it knows.
            None if nothing => &[],
            None => {
                read = self.read_indirect(io, obj, o, bp, level, id)?;
                &read
            }
        };
        scan.barren += 1;
        if scan.barren > BARREN_MAX {
            let why = format!("object {obj}: {BARREN_MAX} indirect blocks without data");
            return Err(Corrupt::new("block tree", why).into());
        }
        // Children before `from` need not be looked at.
        let child_shift = o.dn.epbs() * u32::from(level - 1);
        let skip = scan.from.saturating_sub(first).checked_shr(child_shift).unwrap_or(0);
        for index in skip..o.dn.epb() {
            let child = bp_in(block, index);
            self.scan_below(io, obj, o, level - 1, id * o.dn.epb() + index, &child, scan)?;
            if scan.found.len() >= scan.limit {
                break;
            }
        }
        Ok(())
    }
}
