//! How far a dataset may grow: quotas, reservations and the pool's size, as the block tree asks for them.
//!
//! Facts: `dsl_dir_tempreserve_impl` (dsl_dir.c), `dsl_dataset_check_quota` (dsl_dataset.c),
//! `dsl_pool_unreserved_space` (dsl_pool.c).
//!
//! Invariants:
//! 1. A reservation stands for itself: what it covers is charged already, and no quota above is asked.
//! 2. What other open datasets wrote in this txg counts, although it is charged only with the sync.
//! 3. A directory's quota may be passed by 1/32 within one txg, as in OpenZFS, once; a refquota and the pool's
//!    size not at all. Metadata is not stopped (see [`Room`]).

use crate::error::Result;
use crate::{Dsl, name};
use icecore_dmu::{BlockStore, Objset, Room};
use icecore_format::{Corrupt, Txg};
use std::collections::BTreeMap;

/// The nearest limit so far.
struct Nearest {
    bytes: u64,
    quota: bool,
}

impl Nearest {
    fn limit(&mut self, bytes: u64, quota: bool) {
        if bytes < self.bytes {
            *self = Self { bytes, quota };
        }
    }
}

impl Dsl {
    /// Tells the open objset of head `obj` how far it may grow.
    pub(crate) fn renew_room(&mut self, io: &dyn BlockStore, obj: u64) -> Result<()> {
        if !self.open.contains_key(&obj) {
            return Ok(());
        }
        let room = self.room(io, obj)?;
        if let Some(os) = self.open.get_mut(&obj) {
            os.set_room(Some(room));
        }
        Ok(())
    }

    fn room(&self, io: &dyn BlockStore, obj: u64) -> Result<Room> {
        let ds = self.dataset(io, obj)?;
        let head = crate::DatasetRef { obj, dir: ds.dir_obj, snapshot: false };
        let own_after = Txg(ds.prev_snap_txg);
        let mut nearest = Nearest { bytes: u64::MAX, quota: false };
        let refquota = self.prop_number(io, head, "refquota")?;
        if refquota != 0 {
            nearest.limit(refquota.saturating_sub(ds.referenced_bytes), true);
        }
        let reserved = self.prop_number(io, head, "refreservation")?;
        let unused = reserved.saturating_sub(ds.unique_bytes);
        // Growth that reservations below a directory cover does not reach it.
        let mut covered = unused;
        let others = self.growth_of_others(io, obj)?;
        let mut dir = ds.dir_obj;
        for depth in 0..name::NESTING_MAX + 8 {
            let dd = self.dir(io, dir)?;
            let charged = if depth == 0 { dd.used_bytes.saturating_sub(unused) } else { dd.used_bytes };
            let used = charged.saturating_add(others.get(&dir).copied().unwrap_or(0));
            // At the dataset's own directory its refreservation is no longer counted as used, so it covers nothing.
            let beyond = if depth == 0 { 0 } else { covered };
            if dd.quota != 0 {
                let most = dd.quota.saturating_add(dd.quota >> 5);
                let left = if used < dd.quota { most - used } else { 0 };
                nearest.limit(left.saturating_add(beyond), true);
            }
            if dd.parent_obj == 0 {
                let left = self.info.usable.saturating_sub(used);
                nearest.limit(left.saturating_add(beyond), false);
                return Ok(Room { bytes: nearest.bytes, own_after, quota: nearest.quota });
            }
            covered = covered.saturating_add(dd.reserved.saturating_sub(dd.used_bytes));
            dir = dd.parent_obj;
        }
        Err(Corrupt::new("DSL directory", "parents without end").into())
    }

    /// What the other open datasets wrote in this txg, by the directories it will be charged to.
    fn growth_of_others(&self, io: &dyn BlockStore, obj: u64) -> Result<BTreeMap<u64, u64>> {
        let mut sums = BTreeMap::new();
        let others = self.open.iter().filter(|(id, _)| **id != obj);
        for (id, grown) in others.map(|(id, os)| (*id, Objset::growth(os))).filter(|(_, grown)| *grown > 0) {
            let mut dir = self.dataset(io, id)?.dir_obj;
            for _ in 0..name::NESTING_MAX + 8 {
                if dir == 0 {
                    break;
                }
                let sum: &mut u64 = sums.entry(dir).or_default();
                *sum = sum.saturating_add(grown);
                dir = self.dir(io, dir)?.parent_obj;
            }
        }
        Ok(sums)
    }
}
