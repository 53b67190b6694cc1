//! Exchanging the contents of a dataset with those of its clone: the last step of a receive into an
//! existing dataset, and of a rollback (`dsl_dataset_clone_swap_sync_impl`). And moving directories.

use crate::error::{DslError, Result};
use crate::lookup::DatasetRef;
use crate::name;
use crate::phys::Used;
use crate::resume::RECV_CLONE;
use crate::{DatasetEvent, Dsl};
use icecore_dmu::zap::ZapValue;
use icecore_dmu::{BlockStore, BlockWriter, Space};

/// Name of the clone a rollback makes.
const ROLLBACK_CLONE: &str = "%rollback";
/// So much may a received dataset be over its refquota: what one transaction of the sender may have written over
/// its own (`DMU_MAX_ACCESS * spa_asize_inflation` in `dsl_dataset_clone_swap_check_impl`, dsl_dataset.c).
const REFQUOTA_SLACK: u64 = (64 << 20) * 24;

impl Dsl {
    /// The half-received clone below `head`, if there is one.
    pub fn receive_clone(&self, io: &dyn BlockStore, head: DatasetRef) -> Result<Option<DatasetRef>> {
        let dd = self.dir(io, head.dir)?;
        match self.zap_u64(io, dd.child_dir_zapobj, RECV_CLONE)? {
            Some(dir) => {
                let obj = self.dir(io, dir)?.head_dataset_obj;
                Ok(Some(DatasetRef { obj, dir, snapshot: false }))
            }
            None => Ok(None),
        }
    }

    /// Swaps `clone` (a child of `head`, cloned from its newest snapshot) with `head`. The clone then holds
    /// what the head held, and is to be destroyed.
    pub fn clone_swap(
        &mut self,
        io: &mut dyn BlockWriter,
        clone: DatasetRef,
        head: DatasetRef,
    ) -> Result<()> {
        self.sync_dataset(io, clone.obj)?;
        self.sync_dataset(io, head.obj)?;
        self.swap_check(io, clone, head)?;
        self.livelist_remove(io, clone.dir)?;
        self.livelist_remove(io, head.dir)?;
        self.swap_features(io, clone.obj, head.obj)?;
        self.forget(clone.obj);
        self.forget(head.obj);
        let mut c = self.dataset(io, clone.obj)?;
        let mut h = self.dataset(io, head.obj)?;
        let reserved = self.prop_number(io, head, "refreservation")?;
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let unused = signed(h.unique_bytes.min(reserved)) - signed(c.unique_bytes.min(reserved));
        let origin = self.by_object(io, c.prev_snap_obj)?;
        let mut o = self.dataset(io, origin.obj)?;
        let now_unique = self.deadlist_space_range(io, c.deadlist_obj, o.prev_snap_txg, u64::MAX)?;
        o.unique_bytes = u64::try_from(now_unique.used).unwrap_or(0);
        self.put_dataset(io, origin.obj, &o)?;
        self.swap_space(io, clone, head)?;
        std::mem::swap(&mut c.bp, &mut h.bp);
        std::mem::swap(&mut c.referenced_bytes, &mut h.referenced_bytes);
        std::mem::swap(&mut c.compressed_bytes, &mut h.compressed_bytes);
        std::mem::swap(&mut c.uncompressed_bytes, &mut h.uncompressed_bytes);
        std::mem::swap(&mut c.unique_bytes, &mut h.unique_bytes);
        std::mem::swap(&mut c.deadlist_obj, &mut h.deadlist_obj);
        self.put_dataset(io, clone.obj, &c)?;
        self.put_dataset(io, head.obj, &h)?;
        self.events.push(DatasetEvent::Swapped(clone.obj, head.obj));
        self.diduse(io, head.dir, Used::RefRsrv, Space { used: unused, ..Space::default() })?;
        self.bookmarks_next_changed(io, head.obj, origin)
    }

    fn swap_check(&self, io: &dyn BlockStore, clone: DatasetRef, head: DatasetRef) -> Result<()> {
        let (c, h) = (self.dataset(io, clone.obj)?, self.dataset(io, head.obj)?);
        if c.is_snapshot() || h.is_snapshot() || c.prev_snap_obj == 0 || c.prev_snap_obj != h.prev_snap_obj {
            return Err(DslError::Invalid(
                "the clone does not start at the dataset's newest snapshot".into(),
            ));
        }
        if self.dir(io, clone.dir)?.parent_obj != head.dir {
            return Err(DslError::Invalid("the clone is not a child of the dataset".into()));
        }
        self.log_block(io, head.obj)?;
        let quota = self.prop_number(io, head, "refquota")?;
        if quota != 0 && c.referenced_bytes > quota.saturating_add(REFQUOTA_SLACK) {
            return Err(DslError::Quota);
        }
        let reserved = self.prop_number(io, head, "refreservation")?;
        let again = h.unique_bytes.min(reserved).saturating_sub(c.unique_bytes.min(reserved));
        if again > 0 && again > self.dir_available(io, head.dir)? {
            return Err(DslError::NoSpace);
        }
        Ok(())
    }

    fn swap_features(&mut self, io: &mut dyn BlockWriter, a: u64, b: u64) -> Result<()> {
        let of = |dsl: &Self, io: &dyn BlockStore, obj: u64| -> Result<Vec<(crate::Feature, Vec<u64>)>> {
            let mut out = Vec::new();
            for f in dsl.dataset_features(io, obj)? {
                let value = match dsl.zap_get(io, obj, f.guid)? {
                    Some(ZapValue::U64(v)) => v,
                    _ => vec![0],
                };
                out.push((f, value));
            }
            Ok(out)
        };
        let (was_a, was_b) = (of(self, io, a)?, of(self, io, b)?);
        self.deactivate_features(io, a)?;
        self.deactivate_features(io, b)?;
        for (obj, features) in [(a, was_b), (b, was_a)] {
            for (f, value) in features {
                self.activate_feature_with(io, obj, f, &value)?;
            }
        }
        Ok(())
    }

    /// What the one directory gains the other loses; blocks that only deadlists hold are the snapshots'.
    fn swap_space(&mut self, io: &mut dyn BlockWriter, clone: DatasetRef, head: DatasetRef) -> Result<()> {
        let (c, h) = (self.dataset(io, clone.obj)?, self.dataset(io, head.obj)?);
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let refers = |d: &crate::Dataset| Space {
            used: signed(d.referenced_bytes),
            compressed: signed(d.compressed_bytes),
            uncompressed: signed(d.uncompressed_bytes),
        };
        let mut delta = refers(&c);
        delta.add(self.deadlist_space(io, c.deadlist_obj)?);
        delta.sub(refers(&h));
        delta.sub(self.deadlist_space(io, h.deadlist_obj)?);
        let mut less = Space::default();
        less.sub(delta);
        self.diduse(io, head.dir, Used::Head, delta)?;
        self.diduse(io, clone.dir, Used::Head, less)?;
        let hdd = self.dir(io, head.dir)?;
        let txg = self.origin_txg(io, &hdd)?;
        let dead_c = self.deadlist_space_range(io, c.deadlist_obj, txg, u64::MAX)?;
        let dead_h = self.deadlist_space_range(io, h.deadlist_obj, txg, u64::MAX)?;
        self.transfer(io, head.dir, dead_c.used - dead_h.used, Used::Head, Used::Snap)
    }

    /// Takes the head back to its newest snapshot, which must be `to` if that is given
    /// (`dsl_dataset_rollback_sync`). Newer snapshots and bookmarks are the caller's to destroy first.
    pub fn rollback(&mut self, io: &mut dyn BlockWriter, path: &str, to: Option<&str>) -> Result<()> {
        let head = self.lookup_head(io, path)?;
        self.check_idle(head.obj)?;
        let ds = self.dataset(io, head.obj)?;
        if ds.prev_snap_obj == 0 || ds.prev_snap_obj == self.origin_snap {
            return Err(DslError::NotFound(format!("a snapshot of {path}")));
        }
        if let Some(to) = to {
            let snap = self.lookup_snapshot(io, &format!("{path}@{to}"))?;
            if snap.obj != ds.prev_snap_obj {
                return Err(DslError::NotLatest(format!("{path}@{to}")));
            }
        }
        if self.bookmark_latest_txg(io, head.obj)? > ds.prev_snap_txg {
            return Err(DslError::NotLatest(format!("the newest snapshot of {path}")));
        }
        let quota = self.prop_number(io, head, "refquota")?;
        if quota != 0 && self.dataset(io, ds.prev_snap_obj)?.referenced_bytes > quota {
            return Err(DslError::Quota);
        }
        if ds.prev_snap_txg >= io.txg().0 {
            return Err(DslError::Busy(format!("{path} was snapshotted in this txg")));
        }
        self.log_block(io, head.obj)?;
        self.sync_dataset(io, head.obj)?;
        let dir = self.dir_create(io, head.dir, ROLLBACK_CLONE)?;
        let obj = self.dataset_create(io, dir, Some(ds.prev_snap_obj), 0)?;
        let clone = DatasetRef { obj, dir, snapshot: false };
        self.clone_swap(io, clone, head)?;
        self.destroy_head_object(io, clone)
    }

    /// Ends a receive through `%recv`: the clone's contents become the head's, the clone goes.
    pub fn swap_and_destroy(
        &mut self,
        io: &mut dyn BlockWriter,
        clone: DatasetRef,
        head: DatasetRef,
    ) -> Result<()> {
        self.clone_swap(io, clone, head)?;
        self.destroy_head_object(io, clone)
    }

    /// Gives a dataset and all below it another name in the same pool (`dsl_dir_rename_sync`).
    pub fn rename(&mut self, io: &mut dyn BlockWriter, from: &str, to: &str) -> Result<()> {
        name::check(to)?;
        let (Some((from_parent, from_last)), Some((to_parent, to_last))) =
            (name::parent(from), name::parent(to))
        else {
            return Err(DslError::Invalid("the root dataset has the pool's name".into()));
        };
        if to.contains(['@', '#']) || to == from || to.starts_with(&format!("{from}/")) {
            return Err(DslError::Invalid(format!("cannot rename to '{to}'")));
        }
        // Of all below, and of their snapshots (`dsl_valid_rename`, dsl_dir.c).
        let mut longest = from.len();
        let depth = |name: &str| name.matches('/').count();
        for n in self.descendants(io, from)? {
            if depth(&n) - depth(from) + depth(to) >= name::NESTING_MAX {
                return Err(DslError::Name(format!("nested more than {} levels", name::NESTING_MAX)));
            }
            let tail = self.snapshots(io, &n)?.iter().map(|(s, _)| s.len() + 1).max().unwrap_or(0);
            longest = longest.max(n.len() + tail);
        }
        if longest - from.len() + to.len() >= name::NAME_LEN_MAX {
            return Err(DslError::Name("a descendant's name would be too long".into()));
        }
        let above = self.lookup_head(io, to_parent)?;
        if self.kind(io, above)? != crate::Kind::Filesystem {
            return Err(DslError::Invalid("parent is not a filesystem".into()));
        }
        if self.lookup_dir(io, to).is_ok() {
            return Err(DslError::Exists(to.into()));
        }
        self.check_idle_below(io, from)?;
        let dir = self.lookup_dir(io, from)?;
        let (old_parent, new_parent) = (self.lookup_dir(io, from_parent)?, self.lookup_dir(io, to_parent)?);
        let root = self.encryption_root(io, dir)?;
        if root.is_some_and(|r| r != dir) && self.encryption_root(io, new_parent)? != root {
            return Err(DslError::Invalid(
                "cannot move encrypted child outside of its encryption root".into(),
            ));
        }
        // What it inherits may be something else now.
        self.stale_policies = true;
        if old_parent != new_parent {
            self.move_counts(io, dir, old_parent, new_parent)?;
            self.move_space(io, dir, old_parent, new_parent)?;
        }
        let old_map = self.dir(io, old_parent)?.child_dir_zapobj;
        let new_map = self.dir(io, new_parent)?.child_dir_zapobj;
        self.zap_del(io, old_map, from_last)?;
        self.zap_put_u64(io, new_map, to_last, dir)?;
        let mut dd = self.dir(io, dir)?;
        dd.parent_obj = new_parent;
        self.put_dir(io, dir, &dd)
    }

    fn move_space(&mut self, io: &mut dyn BlockWriter, dir: u64, from: u64, to: u64) -> Result<()> {
        let dd = self.dir(io, dir)?;
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let space = Space {
            used: signed(dd.used_bytes),
            compressed: signed(dd.compressed_bytes),
            uncompressed: signed(dd.uncompressed_bytes),
        };
        let mut less = Space::default();
        less.sub(space);
        let unused = signed(dd.reserved.saturating_sub(dd.used_bytes));
        self.diduse(io, from, Used::Child, less)?;
        self.diduse(io, to, Used::Child, space)?;
        self.diduse(io, from, Used::ChildRsrv, Space { used: -unused, ..Space::default() })?;
        self.diduse(io, to, Used::ChildRsrv, Space { used: unused, ..Space::default() })
    }
}
