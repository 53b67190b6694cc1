//! `zpool import -F` of a pool of which devices or metadata are gone for good: what is left of it is read, and what is
//! lost is told by file.
//!
//! Invariants:
//! 1. It is tried only where the pool does not open as a whole at any of its uberblocks.
//! 2. Nothing is written: neither now nor while the pool is imported so.
//! 3. What is told as lost is what has no copy on a device that is here. What is damaged on devices that are here is not
//!    looked for: a scrub reads every block.

use super::errors::Names;
use icecore_format::{Blkptr, Dva, Txg};
use icecore_pool::walk::every_block;
use icecore_pool::{Mode, Pool, PoolError};
use icecore_vdev::tree::Health;
use icecore_vdev::{Top, VdevSet};
use std::collections::BTreeMap;

/// Files told one by one; the rest is counted.
const TOLD: usize = 100;

/// The header of a block in pieces; the pieces are blocks of their own.
const GANG_HEADER: u64 = 512;

/// Whether something is missing or damaged that can be passed by.
pub fn may_help(e: &PoolError) -> bool {
    matches!(e, PoolError::Devices(_) | PoolError::Read(_) | PoolError::Vdev(_) | PoolError::Dsl(_))
}

/// What is left of the pool at the newest txg, or the newest up to `limit`, at which its list of datasets can be read.
pub fn open(
    uberblocks: &[(Txg, u64)],
    limit: Option<Txg>,
    open: impl Fn(Mode, Option<Txg>) -> icecore_pool::Result<Pool>,
) -> icecore_pool::Result<(Pool, Option<Txg>)> {
    let mut first_error = None;
    for (at, (txg, _)) in uberblocks.iter().enumerate().filter(|(_, u)| limit.is_none_or(|l| u.0 <= l)) {
        match open(Mode::Salvage, Some(*txg)) {
            Ok(pool) => return Ok((pool, (at > 0).then_some(*txg))),
            Err(e) => {
                first_error.get_or_insert(e);
            }
        }
    }
    Err(first_error.unwrap_or_else(|| PoolError::NotAPool("no uberblock has a sound checksum".into())))
}

/// Says what was passed by, and which files have blocks on missing vdevs only.
pub fn tell_what_is_lost(pool: &Pool) {
    eprintln!("{} is not whole. What is left of it can be read; nothing is written.", pool.name());
    pool.passed_by().iter().for_each(|line| eprintln!("  {line}"));
    let mut names = Names::new(pool);
    let mut lost: BTreeMap<String, u64> = BTreeMap::new();
    let mut bytes = 0;
    let unseen = every_block(pool, &mut |bp, at| {
        if is_lost(pool.io().vdevs(), bp) {
            bytes += bp.lsize();
            *lost.entry(names.place(at)).or_default() += 1;
        }
        !crate::caller::cancelled()
    });
    if lost.is_empty() && unseen.is_empty() {
        eprintln!("No file has lost anything with the devices that are missing.");
        return;
    }
    eprintln!(
        "Lost with the devices that are missing ({} in {} places):",
        crate::human::bytes(bytes),
        lost.len()
    );
    for (place, blocks) in lost.iter().take(TOLD) {
        eprintln!("        {place} ({blocks} blocks)");
    }
    if lost.len() > TOLD {
        eprintln!("        and {} more; 'zpool scrub -n {}' names them all", lost.len() - TOLD, pool.name());
    }
    for u in unseen.iter().take(TOLD) {
        let dataset = icecore_pool::heal::dataset_name(pool, u.at.objset);
        eprintln!("        {dataset}:<{:#x}>: not seen: {}", u.at.object.0, u.why);
    }
}

/// Whether every copy of a block has a part on a vdev that cannot be read.
fn is_lost(vdevs: &VdevSet, bp: &Blkptr) -> bool {
    let readable = |top: &Top| vdevs.top_health(top) != Health::Unavail;
    let here = |id: u64| usize::try_from(id).ok().and_then(|i| vdevs.tops().get(i)).is_some_and(readable);
    let copy = |dva: &Dva| {
        let len = if dva.is_gang() { GANG_HEADER } else { bp.psize() };
        vdevs.places(dva, len).is_ok_and(|places| places.iter().all(|(vdev, ..)| here(*vdev)))
    };
    !bp.is_embedded() && !bp.is_hole() && !bp.dvas().iter().any(copy)
}
