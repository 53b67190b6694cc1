//! Reading free space from the MOS: the metaslab array, space map heads, the pool's space map logs.
//!
//! Invariants:
//! 1. A range outside its metaslab, allocated twice or freed twice is damage, never a panic.
//! 2. The logs are folded in txg order; an entry older than its metaslab's unflushed txg is skipped, because
//!    the metaslab's own space map has it (spa_log_spacemap.c, `spa_ld_log_sm_cb`).

use super::{Allocator, Metaslab, Top};
use crate::range_tree::RangeTree;
use crate::space_map::{self, Kind, Phys};
use icecore_dmu::{BlockStore, Objset, ReadError};
use icecore_format::{Corrupt, ObjectId};

/// Space map bytes read at a time.
const CHUNK: u64 = 1 << 20;
/// No metaslab was ever smaller than the largest block of its time.
const MS_SHIFT_MIN: u32 = 17;
/// Twice what OpenZFS makes (`zfs_vdev_ms_count_limit`).
const METASLABS_MAX: u64 = 1 << 18;
/// A space map longer than this is damage (entries of a whole metaslab of single sectors fit).
const LENGTH_MAX: u64 = 1 << 34;

fn corrupt(why: String) -> ReadError {
    ReadError::Corrupt(Corrupt::new("space map", why))
}

/// What a top-level vdev's configuration says about its metaslabs.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Number of the vdev.
    pub id: u32,
    /// log2 of the allocation unit.
    pub ashift: u32,
    /// log2 of the metaslab size.
    pub ms_shift: u32,
    /// Object of the metaslab array; 0 before the first sync of a new vdev.
    pub array: u64,
    /// Allocatable bytes.
    pub asize: u64,
    /// The vdev's ZAP in the MOS, 0 for none.
    pub top_zap: u64,
    /// What allocations are multiples of (a sector, or a stripe of a draid): metaslabs begin and end at one.
    pub unit: u64,
}

impl Geometry {
    /// Number of metaslabs.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.asize.checked_shr(self.ms_shift).unwrap_or(0)
    }
}

/// Opens the metaslabs of one vdev: heads only.
pub fn open_top(mos: &Objset, io: &dyn BlockStore, geo: &Geometry, unflushed: u64) -> Result<Top, ReadError> {
    let count = geo.count();
    let sane = (MS_SHIFT_MIN..=60).contains(&geo.ms_shift)
        && (9..=16).contains(&geo.ashift)
        && (1..=1 << geo.ms_shift).contains(&geo.unit);
    if !sane || count > METASLABS_MAX || geo.array == 0 {
        return Err(corrupt(format!("vdev {} with {count} metaslabs of 2^{}", geo.id, geo.ms_shift)));
    }
    let words = |object: u64| -> Result<Vec<u8>, ReadError> {
        if object == 0 {
            return Ok(vec![0; count as usize * 8]);
        }
        mos.read(io, ObjectId(object), 0, count as usize * 8)
    };
    let (objects, txgs) = (words(geo.array)?, words(unflushed)?);
    let mut slabs = Vec::with_capacity(count as usize);
    let word = |bytes: &[u8], i: usize| icecore_format::reader::u64_at(bytes, i * 8);
    for i in 0..count as usize {
        let object = word(&objects, i);
        let phys = if object == 0 { Phys::new() } else { Phys::parse(&mos.bonus(io, ObjectId(object))?)? };
        if !(0..=1 << geo.ms_shift).contains(&phys.alloc()) {
            return Err(corrupt(format!("object {object}: {} bytes allocated", phys.alloc())));
        }
        // As `vdev_draid_metaslab_init` does; elsewhere a metaslab is whole units anyhow.
        let (from, to) = ((i as u64) << geo.ms_shift, (i as u64 + 1) << geo.ms_shift);
        let start = from.next_multiple_of(geo.unit);
        let size = to.saturating_sub(start) / geo.unit * geo.unit;
        let mut slab = Metaslab::new(start, size, object, phys);
        slab.unflushed_txg = word(&txgs, i);
        slabs.push(slab);
    }
    let mut top = Top::new(geo.id, geo.ashift, geo.ms_shift, geo.array, slabs);
    top.unflushed_object = unflushed;
    Ok(top)
}

/// Calls `each` for all entries of a space map object; its head.
pub fn iterate(
    mos: &Objset,
    io: &dyn BlockStore,
    object: u64,
    shift: u32,
    mut each: impl FnMut(space_map::Entry) -> Result<(), Corrupt>,
) -> Result<Phys, ReadError> {
    let id = ObjectId(object);
    let phys = Phys::parse(&mos.bonus(io, id)?)?;
    let length = phys.length();
    if length > LENGTH_MAX {
        return Err(corrupt(format!("object {object} claims {length} bytes")));
    }
    let mut at = 0;
    while at < length {
        // Pairs of words stay within blocks, and a chunk is a multiple of any block: none is cut.
        let len = CHUNK.min(length - at);
        space_map::decode(&mos.read(io, id, at, len as usize)?, shift, &mut each)?;
        at += len;
    }
    Ok(phys)
}

/// The free space of a metaslab according to its own space map.
pub fn free_space(
    mos: &Objset,
    io: &dyn BlockStore,
    slab: &Metaslab,
    shift: u32,
) -> Result<RangeTree, ReadError> {
    let mut free = RangeTree::of(slab.start, slab.size);
    let phys = iterate(mos, io, slab.object, shift, |e| {
        let out = || {
            let why = format!("{:?} of {} at {:#x} in object {}", e.kind, e.run, e.offset, slab.object);
            Corrupt::new("space map", why)
        };
        if e.offset.checked_add(e.run).is_none_or(|end| end > slab.size) {
            return Err(out());
        }
        let start = slab.start + e.offset;
        match e.kind {
            Kind::Alloc => free.remove(start, e.run),
            Kind::Free => free.add(start, e.run),
        }
        .map_err(|_| out())
    })?;
    if phys.alloc() != (slab.size - free.space()).cast_signed() {
        return Err(corrupt(format!("object {} says {} bytes are allocated", slab.object, phys.alloc())));
    }
    Ok(free)
}

impl Allocator {
    /// Folds the log space map `object` of `txg` into the metaslabs' unflushed changes.
    pub fn read_log(
        &mut self,
        mos: &Objset,
        io: &dyn BlockStore,
        txg: u64,
        object: u64,
    ) -> Result<(), ReadError> {
        iterate(mos, io, object, 9, |e| {
            let bad = |why: &str| {
                Corrupt::new("log space map", format!("{why}: {e:?} in object {object} of txg {txg}"))
            };
            let vdev = e.vdev.ok_or_else(|| bad("no vdev named"))?;
            let Some(top) = self.tops.get_mut(vdev as usize).and_then(Option::as_mut) else {
                return Ok(()); // removed since
            };
            let slab = top.slab_of(e.offset, e.run).ok_or_else(|| bad("out of bounds"))?;
            if txg < slab.unflushed_txg {
                return Ok(());
            }
            let (allocs, frees) = (&mut slab.unflushed_allocs, &mut slab.unflushed_frees);
            match e.kind {
                Kind::Alloc => allocs.xor_add(e.offset, e.run, frees),
                Kind::Free => frees.xor_add(e.offset, e.run, allocs),
            }
            .map_err(|_| bad("twice"))
        })?;
        Ok(())
    }

    /// After all logs were read.
    pub fn logs_done(&mut self) {
        for slab in self.tops.iter_mut().flatten().flat_map(|t| &mut t.slabs) {
            slab.count_unflushed();
        }
        self.recount();
    }

    /// Whether the logs and the space maps add up to no less than nothing and no more than all.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        let slabs = self.tops.iter().flatten().flat_map(|t| &t.slabs);
        slabs.into_iter().all(Metaslab::adds_up)
    }
}
