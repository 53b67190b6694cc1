//! Free space: metaslabs of the top-level vdevs and what the open txg does to them.
//!
//! A metaslab's life in a txg: `allocatable` → `allocating` → (space map, ALLOC) and `freeing` → (space map,
//! FREE) → `freed` → `defer` for two txgs → `allocatable`.
//!
//! Invariants:
//! 1. A byte is in at most one of allocatable, allocating, freeing, freed, defer.
//! 2. What a committed uberblock of the last two txgs references is not handed out again.
//! 3. The choice of place is a function of the space maps and the order of requests.
//! 4. Only metaslabs that allocate are loaded; frees need no loading.
//!
//! Does not do: special and log classes, gang blocks (see `io`).

pub(crate) mod alloc;
pub(crate) mod load;
pub(crate) mod sync;

use crate::range_tree::{Conflict, RangeTree};
use crate::space_map::Phys;

/// Txgs for which freed space stays untouched (`TXG_DEFER_SIZE`).
pub const DEFER: usize = 2;

/// A part of a top-level vdev with its own space map.
#[derive(Debug)]
pub struct Metaslab {
    /// First byte.
    pub start: u64,
    /// Bytes: a power of two, the same for all of a vdev.
    pub size: u64,
    /// Space map object in the MOS, 0 before the first allocation.
    pub object: u64,
    /// Its head.
    pub phys: Phys,
    /// Txg from which on the pool's space map logs hold changes of this metaslab; 0 for none.
    pub unflushed_txg: u64,
    /// Changes from the logs, not in the space map.
    pub unflushed_allocs: RangeTree,
    /// Likewise.
    pub unflushed_frees: RangeTree,
    /// This txg wrote them into the space map. They stay until the commit: until then the committed map,
    /// from which this metaslab may yet be loaded, does not have them.
    flushed: bool,
    allocatable: Option<RangeTree>,
    allocating: RangeTree,
    freeing: RangeTree,
    freed: RangeTree,
    defer: [RangeTree; DEFER],
    /// Bytes allocated at the last commit and by this txg so far.
    alloc: i64,
}

impl Metaslab {
    /// A metaslab as its space map's head and the unflushed changes describe it.
    #[must_use]
    pub fn new(start: u64, size: u64, object: u64, phys: Phys) -> Self {
        let alloc = phys.alloc();
        Self {
            start,
            size,
            object,
            phys,
            unflushed_txg: 0,
            unflushed_allocs: RangeTree::new(),
            unflushed_frees: RangeTree::new(),
            flushed: false,
            allocatable: None,
            allocating: RangeTree::new(),
            freeing: RangeTree::new(),
            freed: RangeTree::new(),
            defer: Default::default(),
            alloc,
        }
    }
    /// Bytes not allocated (some may still be deferred).
    #[must_use]
    pub fn free_space(&self) -> u64 {
        self.size.saturating_sub(u64::try_from(self.alloc).unwrap_or(0))
    }
    /// Bytes allocated.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        u64::try_from(self.alloc).unwrap_or(0)
    }
    fn deferred(&self) -> u64 {
        self.defer.iter().map(RangeTree::space).sum::<u64>() + self.freed.space() + self.freeing.space()
    }
    fn is_dirty(&self) -> bool {
        !self.allocating.is_empty() || !self.freeing.is_empty()
    }
    fn has_unflushed(&self) -> bool {
        let any = !self.unflushed_allocs.is_empty() || !self.unflushed_frees.is_empty();
        !self.flushed && (any || self.unflushed_txg != 0)
    }
    /// After the log's changes were read: counts them in.
    pub(crate) fn count_unflushed(&mut self) {
        let (a, f) = (self.unflushed_allocs.space(), self.unflushed_frees.space());
        self.alloc = self.alloc.saturating_add_unsigned(a).saturating_sub_unsigned(f);
    }

    pub(crate) fn adds_up(&self) -> bool {
        u64::try_from(self.alloc).is_ok_and(|a| a <= self.size)
    }

    fn take(&mut self, offset: u64, asize: u64) -> Result<(), Conflict> {
        if let Some(free) = &mut self.allocatable {
            free.remove(offset, asize)?;
        }
        self.allocating.add(offset, asize)?;
        self.alloc = self.alloc.saturating_add_unsigned(asize);
        Ok(())
    }

    /// Gives a range back in the open txg. What this txg allocated and has not yet logged is free at once.
    fn release(&mut self, offset: u64, asize: u64) -> Result<(), Conflict> {
        if self.allocating.contains(offset, asize) {
            self.allocating.remove(offset, asize)?;
            if let Some(free) = &mut self.allocatable {
                free.add(offset, asize)?;
            }
        } else {
            let known_free = self.allocatable.as_ref().is_some_and(|t| t.touches(offset, asize));
            let twice = known_free
                || self.freed.touches(offset, asize)
                || self.defer.iter().any(|d| d.touches(offset, asize));
            if twice {
                return Err(Conflict { start: offset, len: asize });
            }
            self.freeing.add(offset, asize)?;
        }
        self.alloc = self.alloc.saturating_sub_unsigned(asize);
        Ok(())
    }

    /// After the commit of `txg`: what was freed two txgs ago may be used again. Without `defer`, at once.
    fn synced(&mut self, txg: u64, defer: bool) -> Result<(), Conflict> {
        assert!(!self.is_dirty(), "metaslab changed after its space map was written");
        if std::mem::take(&mut self.flushed) {
            self.unflushed_allocs.clear();
            self.unflushed_frees.clear();
        }
        let freed = std::mem::take(&mut self.freed);
        let Some(slot) = self.defer.get_mut((txg % DEFER as u64) as usize) else { return Ok(()) };
        let old = std::mem::replace(slot, if defer { freed.clone() } else { RangeTree::new() });
        if let Some(free) = &mut self.allocatable {
            free.add_all(&old)?;
            if !defer {
                free.add_all(&freed)?;
            }
        }
        Ok(())
    }
}

/// How much a free range counts as a fragment, by the power of two it has reached from 512 bytes on; larger ones do not
/// (`zfs_frag_table`, metaslab.c).
const FRAGMENT_PERCENT: [u64; 20] =
    [100, 99, 97, 93, 88, 83, 77, 71, 64, 57, 50, 43, 36, 29, 23, 17, 12, 7, 3, 1];

impl Metaslab {
    /// How fragmented its free space is by its space map's histogram, whose units are `1 << shift` bytes; `None` where the
    /// map has none (`metaslab_set_fragmentation`).
    fn fragmentation(&self, shift: u32) -> Option<u64> {
        if self.object != 0 && !self.phys.has_histogram() {
            return None;
        }
        let (mut weighed, mut total) = (0_u128, 0_u128);
        for (count, power) in self.phys.histogram().into_iter().zip(shift..) {
            let space = u128::from(count) << power;
            let step = power.saturating_sub(9) as usize;
            let percent = FRAGMENT_PERCENT.get(step).copied().unwrap_or(0);
            weighed += space * u128::from(percent);
            total += space;
        }
        Some(weighed.checked_div(total).unwrap_or(0) as u64)
    }
}

/// What a top-level vdev is for (`vdev_metaslab_group_create`, vdev.c).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Everything.
    Normal,
    /// Metadata and small blocks.
    Special,
    /// Dedup tables.
    Dedup,
    /// The intent log only.
    Log,
}

/// A top-level vdev's metaslabs.
#[derive(Debug)]
pub struct Top {
    /// Its number, as in DVAs.
    pub id: u32,
    /// log2 of the allocation unit.
    pub ashift: u32,
    /// log2 of the metaslab size.
    pub ms_shift: u32,
    /// The object that lists the space map objects.
    pub array: u64,
    /// What it is for.
    pub class: Class,
    /// Bytes that 512 bytes of it count for in datasets: 512 without parity (`vdev_set_deflate_ratio`, vdev.c).
    pub deflate: u64,
    /// Whether new blocks may go here.
    pub allocating: bool,
    /// By number.
    pub slabs: Vec<Metaslab>,
    /// The object that lists from which txg on each metaslab's changes are in the logs, if there is one.
    pub unflushed_object: u64,
    /// Metaslab in use for the first, second, third copy, and the offset after the last allocation.
    active: [Option<(usize, u64)>; 3],
}

impl Top {
    /// A top-level vdev with the given metaslabs.
    #[must_use]
    pub fn new(id: u32, ashift: u32, ms_shift: u32, array: u64, slabs: Vec<Metaslab>) -> Self {
        Self {
            id,
            ashift,
            ms_shift,
            array,
            class: Class::Normal,
            deflate: 512,
            allocating: true,
            slabs,
            unflushed_object: 0,
            active: [None; 3],
        }
    }
    /// Bytes a block of `psize` takes: whole sectors (mirrors and single devices only).
    #[must_use]
    pub fn asize(&self, psize: u64) -> u64 {
        psize.next_multiple_of(1 << self.ashift)
    }
    /// Sums over its metaslabs.
    #[must_use]
    pub fn space(&self) -> Space {
        let sum = |f: fn(&Metaslab) -> u64| self.slabs.iter().map(f).sum::<u64>();
        let size = sum(|s| s.size);
        Space {
            size,
            allocated: sum(Metaslab::allocated),
            deferred: sum(Metaslab::deferred),
            dspace: (size >> 9).saturating_mul(self.deflate),
        }
    }
    /// The mean over its metaslabs, if more than half of them tell (`metaslab_group_fragmentation`).
    pub(crate) fn fragmentation(&self) -> Option<u64> {
        let told: Vec<u64> = self.slabs.iter().filter_map(|s| s.fragmentation(self.ashift)).collect();
        let count = told.len();
        (count > self.slabs.len() / 2).then(|| told.iter().sum::<u64>() / count as u64)
    }
    fn slab_of(&mut self, offset: u64, asize: u64) -> Option<&mut Metaslab> {
        let slab = self.slabs.get_mut(usize::try_from(offset >> self.ms_shift).ok()?)?;
        (offset >= slab.start && offset.checked_add(asize)? <= slab.start + slab.size).then_some(slab)
    }
}

/// Sums over the pool, in bytes. Log devices are in none of them (`spa_prop_get_config`, spa.c).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Space {
    /// In metaslabs.
    pub size: u64,
    /// Allocated, the open txg included.
    pub allocated: u64,
    /// Freed, but not yet to be used again.
    pub deferred: u64,
    /// What users' blocks may take, as datasets count it: of normal vdevs that allocate, without parity
    /// (`spa_update_dspace`, spa_misc.c).
    pub dspace: u64,
}

impl Space {
    /// What is kept back so that freeing always works (`spa_get_slop_space`): 1/32 of the pool, at least
    /// 128 MiB or half of a small pool, at most 128 GiB.
    #[must_use]
    pub fn slop(&self) -> u64 {
        (self.dspace >> 5).min(128 << 30).max((self.dspace >> 1).min(128 << 20))
    }
    /// What all datasets together may use.
    #[must_use]
    pub fn usable(&self) -> u64 {
        self.dspace.saturating_sub(self.slop())
    }
    /// Bytes not allocated.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.size.saturating_sub(self.allocated)
    }
    /// Bytes that users' blocks may still take. How far datasets may grow was asked before ([`Space::usable`]); but what
    /// replaces blocks needs its place before theirs can be used again. A quarter of what is kept back is for the pointers
    /// to data that found a place, and as much for what frees (`ZFS_SPACE_CHECK_RESERVED`, dsl_synctask.h).
    #[must_use]
    pub fn available(&self) -> u64 {
        self.free().saturating_sub(self.slop() / 2)
    }
    /// Bytes that the metadata of datasets may still take.
    #[must_use]
    pub fn available_for_metadata(&self) -> u64 {
        self.free().saturating_sub(self.slop() / 4)
    }
    /// Bytes that one txg should write before it is committed. The places of what it replaces are free two txgs later
    /// (`TXG_DEFER_SIZE`): three such txgs fit into the half of what is kept back that data may take in passing.
    #[must_use]
    pub fn at_once(&self) -> u64 {
        self.slop() / 8
    }
}

/// All of a pool's metaslabs.
#[derive(Default, Debug)]
pub struct Allocator {
    /// By number; vdevs that hold nothing allocatable are `None`.
    pub tops: Vec<Option<Top>>,
    rotor: usize,
    rotor_bytes: u64,
    space: Space,
}

impl Allocator {
    /// An allocator over the given vdevs.
    #[must_use]
    pub fn new(tops: Vec<Option<Top>>) -> Self {
        let mut new = Self { tops, ..Self::default() };
        new.recount();
        new
    }
    /// Sums over all metaslabs.
    #[must_use]
    pub fn space(&self) -> Space {
        self.space
    }
    pub(crate) fn recount(&mut self) {
        let mut sum = Space::default();
        for top in self.tops.iter().flatten().filter(|t| t.class != Class::Log) {
            let own = top.space();
            sum.size += own.size;
            sum.allocated += own.allocated;
            sum.deferred += own.deferred;
            if top.class == Class::Normal && top.allocating {
                sum.dspace += own.dspace;
            }
        }
        self.space = sum;
    }
    /// How fragmented the free space of the vdevs for everything is, in percent, weighed by their sizes; `None` where one
    /// of them does not tell (`metaslab_class_fragmentation`).
    #[must_use]
    pub fn fragmentation(&self) -> Option<u64> {
        let (mut weighed, mut size) = (0_u128, 0_u128);
        for top in self.tops.iter().flatten().filter(|t| t.class == Class::Normal) {
            let own = u128::from(top.space().size);
            weighed += u128::from(top.fragmentation()?) * own;
            size += own;
        }
        Some(weighed.checked_div(size)? as u64)
    }
    fn slabs(&self) -> impl Iterator<Item = &Metaslab> {
        self.tops.iter().flatten().flat_map(|t| &t.slabs)
    }
    /// Whether the open txg changed anything that is not yet in the space maps.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.slabs().any(Metaslab::is_dirty)
    }
    /// Whether the pool's space map logs hold changes.
    #[must_use]
    pub fn has_unflushed(&self) -> bool {
        self.slabs().any(Metaslab::has_unflushed)
    }
    /// Bytes of all space maps.
    #[must_use]
    pub fn space_map_bytes(&self) -> u64 {
        self.slabs().map(|s| s.phys.length()).sum()
    }
    /// log2 of the sector of a vdev.
    #[must_use]
    pub fn ashift(&self, vdev: u32) -> u32 {
        self.tops.get(vdev as usize).and_then(Option::as_ref).map_or(9, |t| t.ashift)
    }
    /// After the commit of `txg`.
    pub fn synced(&mut self, txg: u64) -> Result<(), Conflict> {
        let defer = self.space.free() > self.space.slop();
        let slabs = self.tops.iter_mut().flatten().flat_map(|t| &mut t.slabs);
        slabs.into_iter().try_for_each(|s| s.synced(txg, defer))?;
        self.recount();
        Ok(())
    }
}
