//! Opening datasets for change, writing their changes, and accounting for every block that came or went
//! (`dsl_dataset_sync`, `dsl_dataset_block_born`, `dsl_dataset_block_kill`, dsl_dataset.c).
//!
//! Invariants:
//! 1. Only heads are opened. One head has at most one objset open.
//! 2. A killed block born after the previous snapshot is freed; any other goes to the deadlist.
//! 3. A head that was snapshotted in this txg is not changed again in it: its blocks of this txg are the
//!    snapshot's.

use crate::error::{DslError, KeyError, Result};
use crate::feature::Feature;
use crate::lookup::DatasetRef;
use crate::phys::{Dataset, Used};
use crate::space::add;
use crate::{Dsl, resume};
use icecore_dmu::{BlockStore, BlockWriter, Delta, Objset, Policy, Space, Want};
use icecore_format::objset::ObjsetType;
use icecore_format::units::OLD_MAX_BLOCK;
use icecore_format::{Blkptr, Checksum, Compress};

const LIVELIST: &str = "com.delphix:livelist";

impl Dsl {
    /// The head `obj`, open for change; opened now if it is not yet. An encrypted one without its key is
    /// opened raw.
    pub fn open_dataset(&mut self, io: &dyn BlockStore, obj: u64) -> Result<&mut Objset> {
        let r = self.by_object(io, obj)?;
        let want = match self.encryption_root(io, r.dir)? {
            Some(root) if !self.wrapping.contains_key(&root) => Want::NoKey,
            _ => Want::Logical,
        };
        self.open_dataset_as(io, obj, want)
    }

    /// The head `obj`, open for change with or without the use of its key.
    pub fn open_dataset_as(&mut self, io: &dyn BlockStore, obj: u64, want: Want) -> Result<&mut Objset> {
        self.renew_policies(io)?;
        let reopen = match self.open.get(&obj) {
            Some(os) if os.want() == want => false,
            Some(os) if os.is_dirty() => {
                return Err(DslError::Busy(format!("dataset {obj} has unwritten changes")));
            }
            _ => true,
        };
        if reopen {
            let ds = self.dataset(io, obj)?;
            if ds.is_snapshot() {
                return Err(DslError::Invalid(format!("dataset {obj} is a snapshot")));
            }
            if ds.bp.is_hole() {
                return Err(DslError::Invalid(format!("dataset {obj} is empty")));
            }
            let policy = self.policy(io, DatasetRef { obj, dir: ds.dir_obj, snapshot: false })?;
            let mut os = Objset::open(io, obj, &ds.bp, want)?;
            os.set_policy(policy);
            if os.phys().kind() == ObjsetType::Zfs {
                os.set_owners(Some(crate::owners::owners_of));
            }
            self.open.insert(obj, os);
        }
        self.renew_room(io, obj)?;
        self.open.get_mut(&obj).ok_or_else(|| DslError::Invalid("not open".into()))
    }

    /// Blocks of datasets that are open are written by the properties of now, also where those changed above them.
    fn renew_policies(&mut self, io: &dyn BlockStore) -> Result<()> {
        if !self.stale_policies {
            return Ok(());
        }
        let open: Vec<u64> = self.open.keys().copied().collect();
        for obj in open {
            let dir = self.dataset(io, obj)?.dir_obj;
            let policy = self.policy(io, DatasetRef { obj, dir, snapshot: false })?;
            self.open.get_mut(&obj).into_iter().for_each(|os| os.set_policy(policy));
        }
        self.stale_policies = false;
        Ok(())
    }

    /// Gives a head without an objset (fresh from [`Dsl::create_for_receive`]) an empty one.
    pub fn create_objset(
        &mut self,
        io: &dyn BlockStore,
        obj: u64,
        kind: ObjsetType,
        want: Want,
    ) -> Result<&mut Objset> {
        let ds = self.dataset(io, obj)?;
        if !ds.bp.is_hole() || self.open.contains_key(&obj) {
            return Err(DslError::Exists(format!("objset of dataset {obj}")));
        }
        let policy = self.policy(io, DatasetRef { obj, dir: ds.dir_obj, snapshot: false })?;
        self.open.insert(obj, Objset::create(obj, kind, policy, want));
        self.renew_room(io, obj)?;
        self.open.get_mut(&obj).ok_or_else(|| DslError::Invalid("not open".into()))
    }

    /// Begins the accounting of space by owner in the fresh, open objset of a file system, as OpenZFS does when it makes
    /// one (`dmu_objset_create_impl_dnstats`, dmu_objset.c).
    pub fn begin_accounts(&mut self, io: &mut dyn BlockWriter, obj: u64) -> Result<()> {
        let mut has = [false; 2];
        for (has, f) in has.iter_mut().zip([Feature::USEROBJ_ACCOUNTING, Feature::PROJECT_QUOTA]) {
            *has = self.feature_enabled(io, f)?;
            if *has {
                self.activate_feature(io, obj, f)?;
            }
        }
        let [objects, projects] = has;
        match self.open.get_mut(&obj) {
            Some(os) => Ok(os.begin_accounts(io, crate::owners::owners_of, objects, projects)?),
            None => Err(DslError::Invalid("not open".into())),
        }
    }

    /// The objset of a head that is open already.
    pub fn opened(&mut self, obj: u64) -> Option<&mut Objset> {
        self.open.get_mut(&obj)
    }

    /// The same, for reading.
    #[must_use]
    pub fn peek(&self, obj: u64) -> Option<&Objset> {
        self.open.get(&obj)
    }

    /// Forgets the open objset of a head. Unwritten changes are lost: for what is about to be destroyed.
    pub fn forget(&mut self, obj: u64) {
        self.open.remove(&obj);
        self.resume.remove(&obj);
        self.activate.remove(&obj);
    }

    /// Whether anything is waiting to be written: datasets, or the MOS.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.mos.is_dirty() || self.open.values().any(Objset::is_dirty)
    }

    /// Writes every dirty dataset and accounts for it, then gives back what waits to be freed.
    pub fn sync_datasets(&mut self, io: &mut dyn BlockWriter) -> Result<()> {
        let ids: Vec<u64> = self.open.keys().copied().collect();
        for obj in &ids {
            self.sync_dataset(io, *obj)?;
        }
        self.process_frees(io)?;
        ids.into_iter().try_for_each(|obj| self.renew_room(io, obj))
    }

    /// Writes one dataset, if it is open and dirty.
    pub fn sync_dataset(&mut self, io: &mut dyn BlockWriter, obj: u64) -> Result<()> {
        let Some(mut os) = self.open.remove(&obj) else { return Ok(()) };
        let synced = self.sync_open(io, obj, &mut os);
        self.open.insert(obj, os);
        synced
    }

    fn sync_open(&mut self, io: &mut dyn BlockWriter, obj: u64, os: &mut Objset) -> Result<()> {
        if let Some(point) = self.resume.remove(&obj)
            && self.field(io, obj, resume::TOGUID)?.is_some()
        {
            self.put_point(io, obj, point)?;
        }
        for f in self.activate.remove(&obj).unwrap_or_default() {
            self.activate_feature(io, obj, f)?;
        }
        if !os.is_dirty() {
            return Ok(());
        }
        let ds = self.dataset(io, obj)?;
        if ds.prev_snap_txg >= io.txg().0 {
            return Err(DslError::Busy("the dataset was snapshotted in this txg already".into()));
        }
        for f in policy_features(&os.policy()) {
            if self.feature_enabled(io, f)? {
                self.activate_feature(io, obj, f)?;
            }
        }
        self.livelist_remove(io, ds.dir_obj)?;
        let delta = os.sync(io)?;
        self.account(io, obj, &delta)
    }

    fn account(&mut self, io: &mut dyn BlockWriter, obj: u64, delta: &Delta) -> Result<()> {
        let mut ds = self.dataset(io, obj)?;
        let head = DatasetRef { obj, dir: ds.dir_obj, snapshot: false };
        let reserved = self.prop_number(io, head, "refreservation")?;
        self.born(io, &mut ds, reserved, delta.born)?;
        let killed: Vec<Blkptr> =
            delta.killed.iter().filter(|bp| !bp.is_hole() && !bp.is_redacted()).copied().collect();
        self.killed(io, obj, &mut ds, reserved, &killed)?;
        ds.bp = delta.root;
        self.put_dataset(io, obj, &ds)
    }

    fn born(&mut self, io: &dyn BlockStore, ds: &mut Dataset, reserved: u64, space: Space) -> Result<()> {
        let charged = Self::ds_parent_delta(ds, reserved, space.used);
        refer(ds, space);
        ds.unique_bytes = add(ds.unique_bytes, space.used);
        self.diduse_transfer(io, ds.dir_obj, charged, space, Used::RefRsrv, Used::Head)
    }

    /// Blocks that left head `obj`. `ds` is changed in memory, to be stored by the caller.
    pub(crate) fn killed(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: u64,
        ds: &mut Dataset,
        reserved: u64,
        killed: &[Blkptr],
    ) -> Result<()> {
        if killed.is_empty() {
            return Ok(());
        }
        let (own, shared): (Vec<Blkptr>, Vec<Blkptr>) =
            killed.iter().partition(|bp| bp.alloc_birth().0 > ds.prev_snap_txg);
        let mut less = Space::default();
        for bp in &own {
            io.free(bp)?;
            less.sub(Space::of(bp));
        }
        let charged = Self::ds_parent_delta(ds, reserved, less.used);
        ds.unique_bytes = add(ds.unique_bytes, less.used);
        self.diduse_transfer(io, ds.dir_obj, charged, less, Used::RefRsrv, Used::Head)?;
        self.killed_shared(io, obj, ds, &shared)?;
        self.bookmarks_blocks_killed(io, obj, ds.prev_snap_txg, killed)?;
        let mut all = Space::default();
        for bp in killed {
            all.sub(Space::of(bp));
        }
        refer(ds, all);
        Ok(())
    }

    /// Blocks a snapshot still references: they die for this head only, and may now be the snapshot's alone.
    fn killed_shared(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: u64,
        ds: &Dataset,
        shared: &[Blkptr],
    ) -> Result<()> {
        if shared.is_empty() {
            return Ok(());
        }
        self.deadlist_insert(io, ds.deadlist_obj, shared)?;
        let mut prev = self.dataset(io, ds.prev_snap_obj)?;
        if prev.next_snap_obj == obj {
            for bp in shared.iter().filter(|bp| bp.alloc_birth().0 > prev.prev_snap_txg) {
                prev.unique_bytes = prev.unique_bytes.saturating_add(bp.asize());
            }
            self.put_dataset(io, ds.prev_snap_obj, &prev)?;
        }
        let dd = self.dir(io, ds.dir_obj)?;
        let origin_txg = self.origin_txg(io, &dd)?;
        let moved: u64 = shared
            .iter()
            .filter(|bp| bp.alloc_birth().0 > origin_txg)
            .map(Blkptr::asize)
            .fold(0, u64::saturating_add);
        self.transfer(io, ds.dir_obj, i64::try_from(moved).unwrap_or(i64::MAX), Used::Head, Used::Snap)
    }

    /// Notes that dataset `obj` uses `f`; counted at once. Does nothing if it does already.
    pub fn activate_feature(&mut self, io: &mut dyn BlockWriter, obj: u64, f: Feature) -> Result<()> {
        self.activate_feature_with(io, obj, f, &[0])
    }

    /// The same for a feature whose entry holds numbers (`redacted_datasets`: guids of snapshots).
    pub fn activate_feature_with(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: u64,
        f: Feature,
        value: &[u64],
    ) -> Result<()> {
        if !f.per_dataset {
            return Err(DslError::Invalid(format!("feature {} is not counted per dataset", f.name)));
        }
        if self.dataset_feature_active(io, obj, f)? {
            return Ok(());
        }
        self.feature_incr(io, f)?;
        self.zapify(io, obj)?;
        self.zap_put(io, obj, f.guid, &icecore_dmu::zap::ZapValue::U64(value.to_vec()))
    }

    /// Like [`Dsl::activate_feature`], but with the dataset's next sync: for use while its objset is borrowed.
    pub fn activate_feature_later(&mut self, obj: u64, f: Feature) {
        let list = self.activate.entry(obj).or_default();
        if !list.contains(&f) {
            list.push(f);
        }
    }

    pub(crate) fn deactivate_features(&mut self, io: &mut dyn BlockWriter, obj: u64) -> Result<()> {
        for f in self.dataset_features(io, obj)? {
            self.zap_del(io, obj, f.guid)?;
            self.feature_decr(io, f)?;
        }
        Ok(())
    }

    /// Copies the active features of one dataset to a new one.
    pub(crate) fn copy_features(&mut self, io: &mut dyn BlockWriter, from: u64, to: u64) -> Result<()> {
        for f in self.dataset_features(io, from)? {
            let value = match self.zap_get(io, from, f.guid)? {
                Some(icecore_dmu::zap::ZapValue::U64(v)) => v,
                _ => vec![0],
            };
            self.activate_feature_with(io, to, f, &value)?;
        }
        Ok(())
    }

    /// Clones keep a list of their own blocks for quick destruction; we do not keep it up, and a list that
    /// is not kept up must go (`dsl_dir_remove_livelist`).
    pub(crate) fn livelist_remove(&mut self, io: &mut dyn BlockWriter, dir: u64) -> Result<()> {
        if let Some(list) = self.field_u64(io, dir, LIVELIST)? {
            self.zap_del(io, dir, LIVELIST)?;
            self.deadlist_free(io, list)?;
            self.feature_decr(io, Feature::LIVELIST)?;
        }
        Ok(())
    }

    /// Refuses what needs a dataset's key when it is not loaded.
    pub fn require_key(&self, io: &dyn BlockStore, r: DatasetRef) -> Result<()> {
        match self.encryption_root(io, r.dir)? {
            Some(root) if !self.wrapping.contains_key(&root) => {
                Err(DslError::Key(KeyError::NotLoaded(self.dir_name(io, root)?)))
            }
            _ => Ok(()),
        }
    }
}

fn refer(ds: &mut Dataset, space: Space) {
    ds.referenced_bytes = add(ds.referenced_bytes, space.used);
    ds.compressed_bytes = add(ds.compressed_bytes, space.compressed);
    ds.uncompressed_bytes = add(ds.uncompressed_bytes, space.uncompressed);
}

/// Features that blocks written under a policy need (`zio_checksum_to_feature`, `zio_compress_to_feature`).
fn policy_features(p: &Policy) -> Vec<Feature> {
    let mut out = Vec::new();
    match p.checksum {
        Checksum::SHA512 => out.push(Feature::SHA512),
        Checksum::SKEIN => out.push(Feature::SKEIN),
        Checksum::EDONR => out.push(Feature::EDONR),
        Checksum::BLAKE3 => out.push(Feature::BLAKE3),
        _ => {}
    }
    if p.compress == Compress::ZSTD {
        out.push(Feature::ZSTD_COMPRESS);
    }
    out
}

/// The feature that blocks of this size need, if any.
#[must_use]
pub fn block_size_feature(size: u64) -> Option<Feature> {
    (size > OLD_MAX_BLOCK).then_some(Feature::LARGE_BLOCKS)
}
