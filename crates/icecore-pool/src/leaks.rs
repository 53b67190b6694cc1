//! Compares what the space maps call allocated with what the block pointers use (what `zdb -b` does, zdb.c).
//!
//! Invariants:
//! 1. Both sides are built independently: the one from space maps and their logs, the other from the walk of all
//!    pointers, of what waits to be freed, of what only the checkpoint has, and the intent logs.
//! 2. Memory is two range sets: neighbours are merged, so it follows fragmentation, not size.

use crate::metaslab::load::{free_space, iterate};
use crate::metaslab::{self, Metaslab};
use crate::pool::Pool;
use crate::range_tree::RangeTree;
use crate::space_map::Kind;
use crate::walk::{DNODES, Part, Unseen, datasets, every_block, walk_part};
use crate::zil;
use icecore_dmu::{BlockStore, ReadError, Want, bpobj, zap};
use icecore_format::dsl::pool as entry;
use icecore_format::reader::u64_at;
use icecore_format::{Blkptr, Bookmark, Dva, ObjectId, ObjectType, Txg};
use icecore_vdev::Top;
use std::collections::BTreeMap;
use zerocopy::FromBytes as _;

/// A range of a top-level vdev.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The vdev.
    pub vdev: u32,
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// Numbers of the blocks of one kind.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// How many.
    pub blocks: u64,
    /// Bytes before compression.
    pub logical: u64,
    /// Bytes after compression.
    pub physical: u64,
    /// Bytes allocated, all copies.
    pub allocated: u64,
}

/// What the comparison gave.
#[derive(Clone, Default, Debug)]
pub struct Balance {
    /// By type of object and level.
    pub kinds: BTreeMap<(ObjectType, u8), Tally>,
    /// Bytes that the space maps call allocated.
    pub allocated: u64,
    /// Bytes that pointers use.
    pub used: u64,
    /// Allocated, but nothing points there.
    pub leaked: Vec<Place>,
    /// Pointed to, but free according to the space maps: the next write may overwrite it.
    pub unallocated: Vec<Place>,
    /// Pointed to more than once. Rightly so by deduplication and block cloning.
    pub shared: u64,
    /// Metadata that could not be followed: with any of it, leaks below are none.
    pub unseen: Vec<Unseen>,
}

/// The free space of a metaslab: its space map and what the logs have since.
fn free_of(pool: &Pool, top: &metaslab::Top, slab: &Metaslab) -> Result<RangeTree, ReadError> {
    let mut free = if slab.object == 0 {
        RangeTree::of(slab.start, slab.size)
    } else {
        free_space(&pool.dsl.mos, &pool.io, slab, top.ashift)?
    };
    slab.unflushed_frees.iter().for_each(|(s, l)| free.cover(s, l));
    slab.unflushed_allocs.iter().for_each(|(s, l)| free.clip(s, l));
    Ok(free)
}

/// One metaslab, as its space map has it.
#[derive(Clone, Debug)]
pub struct Slab {
    /// Its place in all of its vdev.
    pub place: Place,
    /// Its number in the vdev.
    pub number: usize,
    /// Space map object in the MOS; 0 before the first allocation.
    pub object: u64,
    /// Bytes of entries the space map has.
    pub length: u64,
    /// Whether the pool's logs hold changes that the space map has not.
    pub unflushed: bool,
    /// Free ranges, in order.
    pub free: Vec<Place>,
}

/// Tells every metaslab with its free ranges, vdev by vdev; memory is one metaslab's.
///
/// # Errors
/// A space map cannot be read.
pub fn metaslabs(pool: &Pool, tell: &mut dyn FnMut(&Slab)) -> Result<(), ReadError> {
    for top in pool.io.alloc.tops.iter().flatten() {
        for (number, slab) in top.slabs.iter().enumerate() {
            let place = |(start, len)| Place { vdev: top.id, start, len };
            tell(&Slab {
                place: place((slab.start, slab.size)),
                number,
                object: slab.object,
                length: slab.phys.length(),
                unflushed: slab.unflushed_txg != 0,
                free: free_of(pool, top, slab)?.iter().map(place).collect(),
            });
        }
    }
    Ok(())
}

/// Compares the two.
///
/// # Errors
/// The space maps, or the list of deferred frees, cannot be read.
pub fn balance(pool: &Pool) -> Result<Balance, ReadError> {
    let mut out = Balance::default();
    let mut used: BTreeMap<u32, RangeTree> = BTreeMap::new();
    let mut kinds: BTreeMap<(ObjectType, u8), Tally> = BTreeMap::new();
    let mut shared = 0;
    let mut take = |bp: &Blkptr, kinds: &mut BTreeMap<(ObjectType, u8), Tally>| {
        let tally = kinds.entry((bp.kind(), bp.level())).or_default();
        tally.blocks += 1;
        tally.logical += bp.lsize();
        tally.physical += bp.psize();
        tally.allocated += bp.asize();
        // A gang whose header cannot be read takes at least what its pointer says.
        let places = pool.io.places(bp).unwrap_or_else(|_| bp.dvas().to_vec());
        for (vdev, start, len) in places.iter().flat_map(|dva| now_at(pool, dva)) {
            if used.entry(vdev).or_default().add(start, len).is_err() {
                shared += 1;
            }
        }
    };
    out.unseen = every_block(pool, &mut |bp, _| {
        take(bp, &mut kinds);
        true
    });
    // What a snapshot has in the place of the log is left from the time it was taken and means nothing.
    let next = pool.synced().0.saturating_add(1);
    for (object, _) in datasets(&pool.dsl, &pool.io).into_iter().filter(|(_, ds)| !ds.is_snapshot()) {
        if let Ok(Some(log)) = zil::header(pool, object) {
            zil::blocks(&pool.io, object, &log, next, &mut |bp| {
                // What can be read of a claimed one was among the blocks.
                let at = zil::place(object, bp);
                if log.claim_txg.get() == 0 || pool.io.read(bp, &at, Want::Stored).is_err() {
                    take(bp, &mut kinds);
                }
            });
        }
    }
    let mut waiting = destroyed(pool)?;
    waiting.extend(deleted_clones(pool)?);
    for list in ["sync_bplist", "free_bpobj"] {
        let Ok(Some(deferred)) = pool.dsl.directory_entry(&pool.io, list) else { continue };
        bpobj::for_each(&pool.dsl.mos, &pool.io, ObjectId(deferred), &mut |bp: &Blkptr, _: bool| {
            waiting.push(*bp);
            Ok::<(), ReadError>(())
        })?;
    }
    waiting.iter().for_each(|bp| take(bp, &mut kinds));
    for top in pool.io.alloc.tops.iter().flatten() {
        let kept = kept_by_checkpoint(pool, top)?;
        kept.iter().for_each(|(s, l)| used.entry(top.id).or_default().cover(s, l));
    }
    out.kinds = kinds;
    out.shared = shared;
    out.used = used.values().map(RangeTree::space).sum();
    for top in pool.io.alloc.tops.iter().flatten() {
        let points = used.remove(&top.id).unwrap_or_default();
        for slab in &top.slabs {
            let free = free_of(pool, top, slab)?;
            out.allocated += slab.size - free.space();
            let place = |(start, len)| Place { vdev: top.id, start, len };
            // What is neither free nor pointed to has leaked; what is both is in danger.
            let mut lost = RangeTree::of(slab.start, slab.size);
            free.iter().for_each(|(s, l)| lost.clip(s, l));
            for (s, l) in points.within(slab.start, slab.size) {
                lost.clip(s, l);
                out.unallocated.extend(free.within(s, l).map(place));
            }
            out.leaked.extend(lost.iter().map(place));
        }
    }
    Ok(out)
}

impl Pool {
    /// Bytes that only the checkpoint has; `None` without one.
    ///
    /// # Errors
    /// A list of them cannot be read.
    pub fn checkpoint_space(&self) -> crate::Result<Option<u64>> {
        if self.dsl.directory_entry(&self.io, entry::ZPOOL_CHECKPOINT)?.is_none() {
            return Ok(None);
        }
        let tops = self.io.alloc.tops.iter().flatten();
        tops.map(|top| kept_by_checkpoint(self, top).map(|kept| kept.space()))
            .sum::<Result<u64, ReadError>>()
            .map(Some)
            .map_err(crate::PoolError::Read)
    }
}

/// What was freed since the checkpoint was made: allocated until it is discarded (`vdev_checkpoint_sm`, vdev.c).
fn kept_by_checkpoint(pool: &Pool, top: &metaslab::Top) -> Result<RangeTree, ReadError> {
    let mut kept = RangeTree::new();
    let vdev = pool.io.vdevs().config().children.get(top.id as usize);
    let Some(zap) = vdev.and_then(|v| v.vdev_zap_top).filter(|o| *o != 0) else { return Ok(kept) };
    let key = "com.delphix:pool_checkpoint_sm";
    let mos = &pool.dsl.mos;
    let Some(object) = zap::lookup_u64(mos, &pool.io, ObjectId(zap), key)? else {
        return Ok(kept);
    };
    iterate(mos, &pool.io, object, top.ashift, |e| {
        match e.kind {
            Kind::Free => kept.cover(e.offset, e.run),
            Kind::Alloc => kept.clip(e.offset, e.run),
        }
        Ok(())
    })?;
    Ok(kept)
}

/// What is left to free of destroyed clones that kept lists of their own blocks: in each part of such a list, which is dropped
/// as a whole when its blocks are freed, what it takes in and does not give back (`dsl_process_sub_livelist`,
/// dsl_deadlist.c; `spa_livelist_delete_cb`, spa.c).
fn deleted_clones(pool: &Pool) -> Result<Vec<Blkptr>, ReadError> {
    let mut left = Vec::new();
    let mos = &pool.dsl.mos;
    let Ok(Some(clones)) = pool.dsl.directory_entry(&pool.io, entry::DELETED_CLONES) else { return Ok(left) };
    for (_, list) in zap::numbers(mos, &pool.io, ObjectId(clones))? {
        for (_, part) in zap::numbers(mos, &pool.io, ObjectId(list))? {
            let mut own: BTreeMap<[u64; 3], (i64, Blkptr)> = BTreeMap::new();
            bpobj::for_each(mos, &pool.io, ObjectId(part), &mut |bp: &Blkptr, freed: bool| {
                if let Some(dva) = bp.dvas().first() {
                    let key = [dva.vdev().into(), dva.offset(), bp.alloc_birth().0];
                    own.entry(key).or_insert((0, *bp)).0 += if freed { -1 } else { 1 };
                }
                Ok::<(), ReadError>(())
            })?;
            left.extend(own.into_values().filter(|(times, _)| *times > 0).map(|(_, bp)| bp));
        }
    }
    Ok(left)
}

/// Bytes of an entry of a `bptree`: a root, the txg up to which its blocks are not its own, where freeing has come to
/// (`bptree_entry_phys_t`, bptree.h).
const DESTROYED: usize = 168;
/// More destroyed datasets than a pool has at once.
const DESTROYED_MAX: u64 = 1 << 20;

/// What is left to free of destroyed datasets. Blocks of level 0 go first, those that lead to them after them, object by
/// object, the accounting's last (`traverse_visitbp` with `TRAVERSE_POST`, dmu_traverse.c).
fn destroyed(pool: &Pool) -> Result<Vec<Blkptr>, ReadError> {
    let mut left = Vec::new();
    let Ok(Some(object)) = pool.dsl.directory_entry(&pool.io, entry::BPTREE_OBJ) else { return Ok(left) };
    let (mos, object) = (&pool.dsl.mos, ObjectId(object));
    let head = mos.bonus(&pool.io, object)?;
    if head.len() < 16 {
        return Ok(left);
    }
    let (begin, end) = (u64_at(&head, 0), u64_at(&head, 8));
    for i in begin..end.min(begin.saturating_add(DESTROYED_MAX)) {
        let bytes = mos.read(&pool.io, object, i.saturating_mul(DESTROYED as u64), DESTROYED)?;
        let Some((root, rest)) = Blkptr::read_from_prefix(&bytes).ok().filter(|(bp, _)| !bp.is_hole()) else {
            continue;
        };
        let since = Txg(u64_at(rest, 0));
        let level = u64_at(rest, 24);
        let to = (u64_at(rest, 16), level.cast_signed(), u64_at(rest, 32));
        let mut blocks: Vec<(Blkptr, Bookmark)> = Vec::new();
        let part = Part {
            objset: u64_at(rest, 8),
            root: &root,
            since,
            until: Txg(u64::MAX),
            from: (0, 0),
            log: false,
        };
        // What was freed may be overwritten: the walk passes by what it cannot read.
        walk_part(pool, &part, &|| true, &mut |bp, at| {
            blocks.push((*bp, *at));
            true
        });
        let fan = blocks.iter().filter(|(_, at)| at.level > 0 && at.object.0 == to.0);
        let fan = fan.map(|(bp, _)| bp.lsize() / 128).next().unwrap_or(1);
        left.extend(blocks.iter().filter(|(bp, at)| !is_behind(at, bp, to, fan)).map(|(bp, _)| *bp));
    }
    Ok(left)
}

/// Whether freeing has passed a block, which is at `to`: object, level, block. `fan`: pointers in an indirect block there.
fn is_behind(at: &Bookmark, bp: &Blkptr, to: (u64, i64, u64), fan: u64) -> bool {
    let (object, level, block) = to;
    let end = |blkid: u64, fan: u64, level: i64| {
        let span = fan.checked_pow(level.clamp(0, 64) as u32).unwrap_or(u64::MAX);
        blkid.saturating_add(1).saturating_mul(span)
    };
    match at.object.0 {
        _ if to == (0, 0, 0) || at.level == -1 => false,
        0 if object != 0 => {
            let fan = if at.level > 0 { bp.lsize() / 128 } else { 1 };
            end(at.blkid, fan, at.level.into()).saturating_mul(DNODES) <= object
        }
        o if o != object => o < object,
        _ => (end(at.blkid, fan, at.level.into()), i64::from(at.level)) < (end(block, fan, level), level),
    }
}

/// Where the space of a DVA is: elsewhere, if its vdev was removed.
fn now_at(pool: &Pool, dva: &Dva) -> Vec<(u32, u64, u64)> {
    let vdevs = pool.io.vdevs();
    let itself = (dva.vdev(), dva.offset(), dva.asize());
    if !vdevs.tops().get(dva.vdev() as usize).is_some_and(Top::is_indirect) {
        return vec![itself];
    }
    let places = vdevs.places(dva, dva.asize());
    places.map_or(vec![itself], |p| p.into_iter().map(|(v, start, len)| (v as u32, start, len)).collect())
}
