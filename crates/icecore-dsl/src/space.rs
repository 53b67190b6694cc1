//! Space accounting of directories: who is charged for what (dsl_dir.c), and what is left to use.
//!
//! Invariants:
//! 1. The breakdown of a directory sums up to its used bytes (where the breakdown is kept).
//! 2. A change reaches the parent lessened by what the directory's reservation absorbs; compressed and
//!    uncompressed sizes reach it whole.

use crate::error::Result;
use crate::phys::{DD_FLAG_USED_BREAKDOWN, Dataset, Dir, Used};
use crate::{DatasetRef, Dsl};
use icecore_dmu::{BlockStore, Space};
use icecore_format::Corrupt;

#[allow(clippy::cast_possible_wrap, clippy::cast_sign_loss)] // pool sizes are below 2^63
pub(crate) fn add(value: u64, delta: i64) -> u64 {
    // Sums of a pool made elsewhere may be off: they must not panic, and never go below nothing.
    value.saturating_add_signed(delta)
}

/// How much of `delta` a parent sees through a reservation of `reserved` (`parent_delta`).
pub(crate) fn through(reserved: u64, old: u64, delta: i64) -> i64 {
    let new = add(old, delta);
    i64::try_from(new.max(reserved)).unwrap_or(i64::MAX)
        - i64::try_from(old.max(reserved)).unwrap_or(i64::MAX)
}

fn breakdown(dd: &mut Dir, kind: Used, delta: i64) {
    if dd.flags & DD_FLAG_USED_BREAKDOWN != 0 {
        let w = &mut dd.used_breakdown[kind as usize];
        *w = add(*w, delta);
    }
}

impl Dsl {
    /// Charges `space` to a directory under `kind`, and to its ancestors (`dsl_dir_diduse_space`).
    pub(crate) fn diduse(&mut self, io: &dyn BlockStore, dir: u64, kind: Used, space: Space) -> Result<()> {
        let mut dd = self.dir(io, dir)?;
        let seen = through(dd.reserved, dd.used_bytes, space.used);
        dd.used_bytes = add(dd.used_bytes, space.used);
        dd.compressed_bytes = add(dd.compressed_bytes, space.compressed);
        dd.uncompressed_bytes = add(dd.uncompressed_bytes, space.uncompressed);
        breakdown(&mut dd, kind, space.used);
        self.put_dir(io, dir, &dd)?;
        self.diduse_parents(io, dd.parent_obj, seen, space)
    }

    /// Charges `space`, of which only `charged` bytes are new to the directory: the rest moves from `from`
    /// to `to` (`dsl_dir_diduse_transfer_space`).
    pub(crate) fn diduse_transfer(
        &mut self,
        io: &dyn BlockStore,
        dir: u64,
        charged: i64,
        space: Space,
        from: Used,
        to: Used,
    ) -> Result<()> {
        let mut dd = self.dir(io, dir)?;
        let seen = self.charge(&mut dd, charged, space, from, to);
        self.put_dir(io, dir, &dd)?;
        self.diduse_parents(io, dd.parent_obj, seen, Space { used: charged, ..space })
    }

    fn charge(&self, dd: &mut Dir, charged: i64, space: Space, from: Used, to: Used) -> i64 {
        let seen = through(dd.reserved, dd.used_bytes, charged);
        dd.used_bytes = add(dd.used_bytes, charged);
        dd.compressed_bytes = add(dd.compressed_bytes, space.compressed);
        dd.uncompressed_bytes = add(dd.uncompressed_bytes, space.uncompressed);
        breakdown(dd, from, charged - space.used);
        breakdown(dd, to, space.used);
        seen
    }

    /// Passes a change on upwards. At each level `seen` bytes are new, and the child's part has grown by
    /// what the child itself was charged (`space.used`).
    fn diduse_parents(&mut self, io: &dyn BlockStore, parent: u64, seen: i64, below: Space) -> Result<()> {
        let (mut obj, mut seen, mut below) = (parent, seen, below);
        for _ in 0..crate::name::NESTING_MAX + 8 {
            if obj == 0 {
                return Ok(());
            }
            let mut dd = self.dir(io, obj)?;
            let next = self.charge(&mut dd, seen, below, Used::ChildRsrv, Used::Child);
            self.put_dir(io, obj, &dd)?;
            below.used = seen;
            (obj, seen) = (dd.parent_obj, next);
        }
        Err(Corrupt::new("DSL directory", "parents without end").into())
    }

    /// Moves `delta` bytes of a directory's use from one reason to another (`dsl_dir_transfer_space`).
    pub(crate) fn transfer(
        &mut self,
        io: &dyn BlockStore,
        dir: u64,
        delta: i64,
        from: Used,
        to: Used,
    ) -> Result<()> {
        if delta == 0 {
            return Ok(());
        }
        let mut dd = self.dir(io, dir)?;
        breakdown(&mut dd, from, -delta);
        breakdown(&mut dd, to, delta);
        self.put_dir(io, dir, &dd)
    }

    /// How much of a change of `ds`'s unique bytes its directory sees: a refreservation absorbs the part
    /// below it (`parent_delta`, dsl_dataset.c).
    pub(crate) fn ds_parent_delta(ds: &Dataset, refreservation: u64, delta: i64) -> i64 {
        if refreservation == 0 { delta } else { through(refreservation, ds.unique_bytes, delta) }
    }

    /// Charges the pool's own growth to `$MOS` (`dsl_pool_sync`).
    pub fn mos_diduse(&mut self, io: &dyn BlockStore, space: Space) -> Result<()> {
        if self.mos_dir == 0 { Ok(()) } else { self.diduse(io, self.mos_dir, Used::Head, space) }
    }

    /// A directory and all above it, itself first.
    pub(crate) fn ancestors(&self, io: &dyn BlockStore, dir: u64) -> Result<Vec<u64>> {
        let mut chain = Vec::new();
        let mut obj = dir;
        while obj != 0 {
            if chain.len() > crate::name::NESTING_MAX + 8 {
                return Err(Corrupt::new("DSL directory", "parents without end").into());
            }
            chain.push(obj);
            obj = self.dir(io, obj)?.parent_obj;
        }
        Ok(chain)
    }

    /// Bytes that could still be written into a directory, by its quota and those of its ancestors.
    pub(crate) fn dir_available(&self, io: &dyn BlockStore, dir: u64) -> Result<u64> {
        self.dir_available_after(io, dir, 0, 0)
    }

    /// The same once `delta` bytes (not above 0) have been charged to the directory or ancestor `at`
    /// (`dsl_dir_space_available`).
    pub(crate) fn dir_available_after(
        &self,
        io: &dyn BlockStore,
        dir: u64,
        at: u64,
        delta: i64,
    ) -> Result<u64> {
        let mut space = u64::MAX;
        for obj in self.ancestors(io, dir)?.into_iter().rev() {
            let dd = self.dir(io, obj)?;
            let mut used = dd.used_bytes;
            let mut quota = if dd.quota == 0 { u64::MAX } else { dd.quota };
            if dd.parent_obj == 0 {
                quota = quota.min(self.info.usable);
            }
            if dd.reserved > used && space != u64::MAX {
                space = space.saturating_add(dd.reserved - used);
            }
            if obj == at {
                used = add(used, delta);
                if space != u64::MAX {
                    space = add(space, -delta);
                }
            }
            space = space.min(quota.saturating_sub(used));
        }
        Ok(space)
    }

    /// The property `available` of a head: what its directory has left, plus the unused part of its
    /// refreservation, within its refquota (`dsl_get_available`).
    pub fn available(&self, io: &dyn BlockStore, head: DatasetRef) -> Result<u64> {
        let ds = self.dataset(io, head.obj)?;
        let mut space = self.dir_available(io, head.dir)?;
        let reserved = self.prop_number(io, head, "refreservation")?;
        space = space.saturating_add(reserved.saturating_sub(ds.unique_bytes));
        let quota = self.prop_number(io, head, "refquota")?;
        if quota != 0 {
            space = space.min(quota.saturating_sub(ds.referenced_bytes));
        }
        Ok(space)
    }

    /// Space written to `new` since the snapshot `old` in its past (`dsl_dataset_space_written`).
    pub fn space_written(&self, io: &dyn BlockStore, old: u64, new: u64) -> Result<Space> {
        let o = self.dataset(io, old)?;
        if !self.is_before(io, new, old, None)? {
            return Err(crate::DslError::Invalid("not an earlier snapshot from the same file system".into()));
        }
        self.written_since(
            io,
            o.creation_txg,
            [o.referenced_bytes, o.compressed_bytes, o.uncompressed_bytes],
            None,
            new,
        )
    }

    /// Space written to `new` since a bookmark that has counted frees (`dsl_dataset_space_written_bookmark`).
    pub fn space_written_bookmark(
        &self,
        io: &dyn BlockStore,
        mark: &crate::BookmarkPhys,
        new: u64,
    ) -> Result<Space> {
        if !mark.has_freed_before_next() {
            return Err(crate::DslError::Unsupported("the bookmark has no space accounting".into()));
        }
        self.written_since(io, mark.creation_txg, mark.referenced, Some(mark.freed_before_next), new)
    }

    fn written_since(
        &self,
        io: &dyn BlockStore,
        txg: u64,
        referenced: [u64; 3],
        freed: Option<[u64; 3]>,
        new: u64,
    ) -> Result<Space> {
        let n = self.dataset(io, new)?;
        let signed = |w: u64| i64::try_from(w).unwrap_or(i64::MAX);
        let mut space = Space {
            used: signed(n.referenced_bytes) - signed(referenced[0]),
            compressed: signed(n.compressed_bytes) - signed(referenced[1]),
            uncompressed: signed(n.uncompressed_bytes) - signed(referenced[2]),
        };
        let mut snap = n;
        while snap.prev_snap_txg > txg {
            space.add(self.deadlist_space_range(io, snap.deadlist_obj, 0, txg)?);
            let before = self.dataset(io, snap.prev_snap_obj)?;
            if before.prev_snap_txg >= snap.prev_snap_txg {
                return Err(Corrupt::new("DSL dataset", "snapshots out of order").into());
            }
            snap = before;
        }
        match freed {
            Some(f) => {
                space.add(Space { used: signed(f[0]), compressed: signed(f[1]), uncompressed: signed(f[2]) })
            }
            None => space.add(self.deadlist_space(io, snap.deadlist_obj)?),
        }
        Ok(space)
    }

    /// Bytes freed by destroying the snapshots from `first` to `last` of one dataset
    /// (`dsl_dataset_space_wouldfree`).
    pub fn space_would_free(&self, io: &dyn BlockStore, first: u64, last: u64) -> Result<Space> {
        let f = self.dataset(io, first)?;
        let mut space = Space::default();
        let mut obj = self.dataset(io, last)?.next_snap_obj;
        let mut txg = u64::MAX;
        while obj != first {
            let ds = self.dataset(io, obj)?;
            if obj == 0 || ds.prev_snap_txg >= txg {
                return Err(crate::DslError::Invalid(
                    "the snapshots are not of one dataset, oldest first".into(),
                ));
            }
            txg = ds.prev_snap_txg;
            space.add(self.deadlist_space_range(io, ds.deadlist_obj, f.prev_snap_txg, u64::MAX)?);
            obj = ds.prev_snap_obj;
        }
        Ok(space)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_absorbs_what_lies_below_it() {
        assert_eq!(through(0, 100, 50), 50);
        assert_eq!(through(200, 100, 50), 0);
        assert_eq!(through(120, 100, 50), 30);
        assert_eq!(through(120, 150, -50), -30);
    }
}
