//! Taking snapshots, one or many in one txg (`dsl_dataset_snapshot_sync_impl`), and renaming them.

use crate::error::{DslError, Result};
use crate::feature::Feature;
use crate::limits::Counted;
use crate::lookup::DatasetRef;
use crate::name::{self, Part};
use crate::phys::{DS_FLAG_UNIQUE_ACCURATE, Dataset, Used};
use crate::prop::SetSource;
use crate::{DatasetEvent, Dsl, ORIGIN_DIR};
use icecore_dmu::{BlockStore, BlockWriter, Space};

impl Dsl {
    /// Snapshots all of `names` (`pool/fs@snap`) in this txg, with user properties. Nothing is done unless
    /// all can be.
    pub fn snapshot(
        &mut self,
        io: &mut dyn BlockWriter,
        names: &[&str],
        props: &[(&str, &str)],
    ) -> Result<Vec<DatasetRef>> {
        let mut heads = Vec::new();
        for full in names {
            let (path, Part::Snapshot(snap)) = name::split(full)? else {
                return Err(DslError::Name(format!("'{full}' is not a snapshot name")));
            };
            let head = self.lookup_head(io, path)?;
            if heads.iter().any(|(h, _): &(DatasetRef, &str)| h.obj == head.obj) {
                return Err(DslError::Invalid("multiple snapshots of same fs not allowed".into()));
            }
            self.snapshot_check(io, head, snap, full)?;
            heads.push((head, snap));
        }
        let dirs: Vec<u64> = heads.iter().map(|(head, _)| head.dir).collect();
        self.snapshots_limit_check(io, &dirs)?;
        let mut out = Vec::new();
        for (head, snap) in heads {
            let obj = self.snapshot_head(io, head.obj, snap)?;
            let r = DatasetRef { obj, dir: head.dir, snapshot: true };
            for (prop, value) in props {
                let value = crate::prop::parse_new_snapshot(prop, value)?;
                self.prop_set_raw(io, r, prop, &value, SetSource::Local)?;
            }
            out.push(r);
        }
        Ok(out)
    }

    /// `path` and all datasets below it, each as `dataset@snap` (`zfs snapshot -r`).
    pub fn snapshot_names_below(&self, io: &dyn BlockStore, path: &str, snap: &str) -> Result<Vec<String>> {
        Ok(self.descendants(io, path)?.into_iter().map(|n| format!("{n}@{snap}")).collect())
    }

    fn snapshot_check(&self, io: &dyn BlockStore, head: DatasetRef, snap: &str, full: &str) -> Result<()> {
        let ds = self.dataset(io, head.obj)?;
        if ds.prev_snap_txg >= io.txg().0 {
            return Err(DslError::Busy(format!("{full}: a snapshot was taken in this txg already")));
        }
        if self.zap_u64(io, ds.snapnames_zapobj, snap)?.is_some() {
            return Err(DslError::Exists(full.into()));
        }
        if ds.is_inconsistent() {
            return Err(DslError::Busy(format!("{full}: the dataset is half-received")));
        }
        let reserved = self.prop_number(io, head, "refreservation")?;
        if ds.unique_bytes.min(reserved) > self.dir_available(io, head.dir)? {
            return Err(DslError::NoSpace);
        }
        Ok(())
    }

    /// The snapshot itself. The head's changes are written first; afterwards it must not change in this txg.
    pub(crate) fn snapshot_head(&mut self, io: &mut dyn BlockWriter, head: u64, snap: &str) -> Result<u64> {
        self.sync_dataset(io, head)?;
        let mut ds = self.dataset(io, head)?;
        let dir = ds.dir_obj;
        self.count_adjust(io, dir, Counted::Snapshots, 1)?;
        let txg = if snap == ORIGIN_DIR { 1 } else { io.txg().0 };
        let obj = self.new_dataset_object(io)?;
        let new = Dataset {
            dir_obj: dir,
            fsid_guid: self.new_fsid(),
            guid: self.chance.number(),
            prev_snap_obj: ds.prev_snap_obj,
            prev_snap_txg: ds.prev_snap_txg,
            next_snap_obj: head,
            num_children: 1,
            creation_time: self.chance.now().0,
            creation_txg: txg,
            deadlist_obj: ds.deadlist_obj,
            referenced_bytes: ds.referenced_bytes,
            compressed_bytes: ds.compressed_bytes,
            uncompressed_bytes: ds.uncompressed_bytes,
            // What only the head held is now shared with it: nothing is the snapshot's alone yet.
            unique_bytes: 0,
            flags: ds.flags,
            bp: ds.bp,
            ..Dataset::default()
        };
        self.put_dataset(io, obj, &new)?;
        self.copy_features(io, head, obj)?;
        self.relink_previous(io, head, &ds, obj)?;
        self.reserve_again(io, head, &ds)?;
        ds.deadlist_obj = self.deadlist_clone(io, new.deadlist_obj, u64::MAX, ds.prev_snap_obj)?;
        self.deadlist_add_key(io, ds.deadlist_obj, ds.prev_snap_txg)?;
        self.bookmarks_snapshotted(io, head, ds.deadlist_obj, ds.prev_snap_txg)?;
        if self.crypto_obj(io, dir)?.is_some() && self.feature_enabled(io, Feature::BOOKMARK_V2)? {
            let ivset = self.chance.number();
            self.set_ivset_guid(io, obj, ivset)?;
        }
        self.move_remap_deadlist(io, head, obj)?;
        ds.prev_snap_obj = obj;
        ds.prev_snap_txg = txg;
        ds.unique_bytes = 0;
        ds.flags |= DS_FLAG_UNIQUE_ACCURATE;
        self.put_dataset(io, head, &ds)?;
        self.zap_put_u64(io, ds.snapnames_zapobj, snap, obj)?;
        self.snapshots_changed(io, dir)?;
        self.events.push(DatasetEvent::Snapshotted { head, snap: obj });
        Ok(obj)
    }

    /// The snapshot before now comes before the new one: as its next, or among its clones.
    fn relink_previous(&mut self, io: &mut dyn BlockWriter, head: u64, ds: &Dataset, new: u64) -> Result<()> {
        if ds.prev_snap_obj == 0 {
            return Ok(());
        }
        let mut prev = self.dataset(io, ds.prev_snap_obj)?;
        if prev.next_snap_obj == head {
            prev.next_snap_obj = new;
            return self.put_dataset(io, ds.prev_snap_obj, &prev);
        }
        if prev.next_clones_obj != 0 {
            self.zap_del(io, prev.next_clones_obj, &crate::mos::int_key(head))?;
            self.zap_put_u64(io, prev.next_clones_obj, &crate::mos::int_key(new), new)?;
        }
        Ok(())
    }

    /// The head's refreservation covered its unique blocks; now that they are the snapshot's too, it stands
    /// for blocks to come.
    fn reserve_again(&mut self, io: &mut dyn BlockWriter, head: u64, ds: &Dataset) -> Result<()> {
        let r = DatasetRef { obj: head, dir: ds.dir_obj, snapshot: false };
        let reserved = self.prop_number(io, r, "refreservation")?;
        if reserved == 0 {
            return Ok(());
        }
        let delta = i64::try_from(ds.unique_bytes.min(reserved)).unwrap_or(i64::MAX);
        self.diduse(io, ds.dir_obj, Used::RefRsrv, Space { used: delta, ..Space::default() })
    }

    /// Pools with removed vdevs keep a second deadlist of remapped blocks; it goes with the snapshot.
    fn move_remap_deadlist(&mut self, io: &mut dyn BlockWriter, head: u64, snap: u64) -> Result<()> {
        const FIELD: &str = "com.delphix:remap_deadlist";
        if let Some(list) = self.field_u64(io, head, FIELD)? {
            self.zap_del(io, head, FIELD)?;
            self.zapify(io, snap)?;
            self.zap_put_u64(io, snap, FIELD, list)?;
        }
        Ok(())
    }

    /// Renames a snapshot of `path` (`dsl_dataset_rename_snapshot_sync_impl`).
    pub fn rename_snapshot(
        &mut self,
        io: &mut dyn BlockWriter,
        path: &str,
        from: &str,
        to: &str,
    ) -> Result<()> {
        name::check(&format!("{path}@{to}"))?;
        let head = self.lookup_head(io, path)?;
        let map = self.dataset(io, head.obj)?.snapnames_zapobj;
        let obj = self.zap_u64(io, map, from)?.ok_or_else(|| DslError::NotFound(format!("{path}@{from}")))?;
        self.check_idle(obj)?;
        if self.zap_u64(io, map, to)?.is_some() {
            return Err(DslError::Exists(format!("{path}@{to}")));
        }
        self.zap_del(io, map, from)?;
        self.zap_put_u64(io, map, to, obj)
    }

    /// Gives a snapshot the identity of the one it was received from (`dmu_recv_end_sync`).
    pub fn set_snapshot_identity(
        &mut self,
        io: &dyn BlockStore,
        snap: u64,
        guid: u64,
        creation_time: u64,
    ) -> Result<()> {
        let mut ds = self.dataset(io, snap)?;
        ds.guid = guid;
        ds.creation_time = creation_time;
        self.put_dataset(io, snap, &ds)
    }

    /// Ends a receive into `head`: the snapshot is taken although the dataset is half-received, and both
    /// become consistent.
    pub fn snapshot_received(
        &mut self,
        io: &mut dyn BlockWriter,
        head: DatasetRef,
        snap: &str,
    ) -> Result<DatasetRef> {
        let path = self.dir_name(io, head.dir)?;
        name::check(&format!("{path}@{snap}"))?;
        let ds = self.dataset(io, head.obj)?;
        if ds.prev_snap_txg >= io.txg().0 {
            return Err(DslError::Busy("a snapshot was taken in this txg already".into()));
        }
        if self.zap_u64(io, ds.snapnames_zapobj, snap)?.is_some() {
            return Err(DslError::Exists(format!("{path}@{snap}")));
        }
        self.limit_check(io, head.dir, Counted::Snapshots, 1, 0)?;
        let obj = self.snapshot_head(io, head.obj, snap)?;
        self.set_inconsistent(io, obj, false)?;
        self.set_inconsistent(io, head.obj, false)?;
        Ok(DatasetRef { obj, dir: head.dir, snapshot: true })
    }
}
