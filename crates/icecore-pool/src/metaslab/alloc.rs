//! Where a block goes: vdevs in turn, within one the metaslab in use until it cannot serve.
//!
//! Invariants:
//! 1. The copies of a block lie on different vdevs, or else in different metaslabs, where that is possible.
//! 2. A request that fails leaves everything as it was.

use super::{Allocator, Metaslab, Top};
use crate::range_tree::{Conflict, RangeTree};
use icecore_dmu::{ReadError, WriteError};
use icecore_format::{Corrupt, Dva};

/// Bytes laid on one vdev before the next one's turn.
const ALIQUOT: u64 = 1 << 20;
/// Ranges looked at behind the cursor before the tightest fit is taken (`metaslab_df_max_search` in spirit).
const TRIES: usize = 64;

/// Reads the free space of a metaslab that has a space map.
pub(crate) type Load<'a> = dyn FnMut(&Metaslab, &Top) -> Result<RangeTree, ReadError> + 'a;

pub(crate) fn conflict(c: Conflict) -> WriteError {
    let why = format!("{} bytes at {:#x} are allocated or freed twice", c.len, c.start);
    WriteError::Read(ReadError::Corrupt(Corrupt::new("space map", why)))
}

impl Allocator {
    /// Places for `copies` copies of `psize` bytes.
    pub(crate) fn allocate(
        &mut self,
        psize: u64,
        copies: usize,
        load: &mut Load<'_>,
    ) -> Result<Vec<Dva>, WriteError> {
        let mut dvas = Vec::with_capacity(copies);
        for copy in 0..copies.min(3) {
            match self.allocate_one(psize, copy, &dvas, load) {
                Ok(dva) => dvas.push(dva),
                Err(e) => {
                    for dva in dvas {
                        self.free(&dva)?;
                    }
                    return Err(e);
                }
            }
        }
        Ok(dvas)
    }

    fn allocate_one(
        &mut self,
        psize: u64,
        copy: usize,
        taken: &[Dva],
        load: &mut Load<'_>,
    ) -> Result<Dva, WriteError> {
        let count = self.tops.len().max(1);
        // first round: fresh vdevs; second: fresh metaslabs; third: anywhere
        for round in 0..3 {
            for turn in 0..count {
                let at = (self.rotor + copy + turn) % count;
                let Some(Some(top)) = self.tops.get_mut(at) else { continue };
                let used = taken.iter().any(|d| d.vdev() == top.id);
                if !top.allocating || (round == 0 && used) || (round > 0 && !used && copy > 0) {
                    continue;
                }
                let avoid = if round < 2 { taken } else { &[] };
                if let Some(offset) = top.allocate(psize, copy, avoid, load)? {
                    let asize = top.asize(psize);
                    let dva = Dva::new(top.id, offset, asize, false);
                    self.space.allocated += asize;
                    self.turn(at, copy, asize);
                    return Ok(dva);
                }
            }
            if copy == 0 {
                break;
            }
        }
        Err(WriteError::NoSpace)
    }

    fn turn(&mut self, at: usize, copy: usize, asize: u64) {
        if copy > 0 {
            return;
        }
        if at != self.rotor {
            (self.rotor, self.rotor_bytes) = (at, 0);
        }
        self.rotor_bytes += asize;
        if self.rotor_bytes >= ALIQUOT {
            (self.rotor, self.rotor_bytes) = ((at + 1) % self.tops.len().max(1), 0);
        }
    }

    /// Takes a place that somebody was given after the last commit: a block of an intent log (`metaslab_claim_impl`).
    /// Refused if any of it is not free.
    pub(crate) fn claim(&mut self, dva: &Dva, load: &mut Load<'_>) -> Result<(), WriteError> {
        let bad =
            || WriteError::Read(ReadError::Corrupt(Corrupt::new("intent log", format!("no place: {dva:?}"))));
        let top = self.tops.get_mut(dva.vdev() as usize).and_then(Option::as_mut).ok_or_else(bad)?;
        top.slab_of(dva.offset(), dva.asize()).filter(|_| dva.asize() > 0).ok_or_else(bad)?;
        let at = usize::try_from(dva.offset() >> top.ms_shift).map_err(|_| bad())?;
        top.ensure_loaded(at, load)?;
        let slab = top.slabs.get_mut(at).filter(|s| s.allocatable.is_some()).ok_or_else(bad)?;
        slab.take(dva.offset(), dva.asize()).map_err(conflict)?;
        self.space.allocated += dva.asize();
        Ok(())
    }

    /// Gives back a place claimed in this txg. The last commit still leads to what is there, so it is not used again
    /// before the commits after this one, as if it had been allocated and freed.
    pub(crate) fn unclaim(&mut self, dva: &Dva) -> Result<(), WriteError> {
        let bad = || WriteError::Invalid(format!("{dva:?} was not claimed"));
        let top = self.tops.get_mut(dva.vdev() as usize).and_then(Option::as_mut).ok_or_else(bad)?;
        let slab = top.slab_of(dva.offset(), dva.asize()).ok_or_else(bad)?;
        slab.allocating.remove(dva.offset(), dva.asize()).map_err(conflict)?;
        slab.freed.add(dva.offset(), dva.asize()).map_err(conflict)?;
        slab.alloc = slab.alloc.saturating_sub_unsigned(dva.asize());
        self.space.allocated = self.space.allocated.saturating_sub(dva.asize());
        self.space.deferred += dva.asize();
        Ok(())
    }

    /// Gives back the place of one copy.
    pub(crate) fn free(&mut self, dva: &Dva) -> Result<(), WriteError> {
        let bad = |why: &str| {
            WriteError::Read(ReadError::Corrupt(Corrupt::new("blkptr", format!("{why}: {dva:?}"))))
        };
        let top = self.tops.get_mut(dva.vdev() as usize).and_then(Option::as_mut);
        let top = top.ok_or_else(|| bad("no such vdev to free from"))?;
        let slab = top.slab_of(dva.offset(), dva.asize()).ok_or_else(|| bad("past the end of the vdev"))?;
        let was = slab.allocating.space();
        slab.release(dva.offset(), dva.asize()).map_err(conflict)?;
        self.space.allocated = self.space.allocated.saturating_sub(dva.asize());
        if slab.allocating.space() == was {
            self.space.deferred += dva.asize();
        }
        Ok(())
    }
}

impl Top {
    fn allocate(
        &mut self,
        psize: u64,
        copy: usize,
        avoid: &[Dva],
        load: &mut Load<'_>,
    ) -> Result<Option<u64>, WriteError> {
        let asize = self.asize(psize);
        let avoid: Vec<usize> = avoid
            .iter()
            .filter(|d| d.vdev() == self.id)
            .filter_map(|d| usize::try_from(d.offset() >> self.ms_shift).ok())
            .collect();
        if let Some((at, cursor)) = self.active.get(copy).copied().flatten()
            && !avoid.contains(&at)
            && let Some(offset) = self.slabs.get(at).and_then(|s| s.place(asize, cursor))
        {
            return self.take(at, copy, offset, asize).map(Some);
        }
        let others: Vec<usize> = self.active.iter().flatten().map(|&(at, _)| at).collect();
        let mut order: Vec<usize> = (0..self.slabs.len()).filter(|at| !avoid.contains(at)).collect();
        order.sort_by_key(|&at| {
            let free = self.slabs.get(at).map_or(0, Metaslab::free_space);
            (others.contains(&at), std::cmp::Reverse(free), at)
        });
        for at in order {
            self.ensure_loaded(at, load)?;
            let Some(slab) = self.slabs.get(at) else { continue };
            if let Some(offset) = slab.place(asize, slab.start) {
                return self.take(at, copy, offset, asize).map(Some);
            }
        }
        Ok(None)
    }

    fn ensure_loaded(&mut self, at: usize, load: &mut Load<'_>) -> Result<(), WriteError> {
        let Some(slab) = self.slabs.get(at).filter(|s| s.allocatable.is_none()) else { return Ok(()) };
        if slab.free_space() == 0 {
            return Ok(());
        }
        let mut free =
            if slab.object == 0 { RangeTree::of(slab.start, slab.size) } else { load(slab, self)? };
        slab.subtract_pending(&mut free).map_err(conflict)?;
        if let Some(slab) = self.slabs.get_mut(at) {
            slab.allocatable = Some(free);
        }
        Ok(())
    }

    fn take(&mut self, at: usize, copy: usize, offset: u64, asize: u64) -> Result<u64, WriteError> {
        if let Some(slab) = self.slabs.get_mut(at) {
            slab.take(offset, asize).map_err(conflict)?;
        }
        if let Some(active) = self.active.get_mut(copy) {
            *active = Some((at, offset + asize));
        }
        Ok(offset)
    }
}

impl Metaslab {
    fn place(&self, asize: u64, cursor: u64) -> Option<u64> {
        self.allocatable.as_ref()?.find(asize, cursor, TRIES)
    }
    /// From what the committed space map calls free, takes what the logs, the deferral and (for a map that
    /// is only in this txg's trees) the open txg know better.
    fn subtract_pending(&self, free: &mut RangeTree) -> Result<(), Conflict> {
        for (start, len) in self.unflushed_allocs.iter() {
            free.remove(start, len)?;
        }
        for (start, len) in self.unflushed_frees.iter() {
            free.add(start, len)?;
        }
        for tree in self.defer.iter().chain([&self.allocating]) {
            for (start, len) in tree.iter() {
                free.clip(start, len);
            }
        }
        Ok(())
    }
}
