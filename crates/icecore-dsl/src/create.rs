//! Making directories, datasets, clones, and the DSL of a new pool (`dsl_dir_create_sync`,
//! `dsl_dataset_create_sync_dd`, `dsl_pool_create`).
//!
//! Invariants:
//! 1. Every dataset but `$ORIGIN`'s has a previous snapshot from birth: its origin, or `$ORIGIN@$ORIGIN`.
//! 2. A clone's deadlist has the keys of its origin's dataset below the origin's creation txg.

use crate::error::{DslError, Result};
use crate::feature::Feature;
use crate::limits::Counted;
use crate::lookup::{DatasetRef, Kind};
use crate::name;
use crate::phys::{
    DD_FLAG_USED_BREAKDOWN, DS_FLAG_CI_DATASET, DS_FLAG_INCONSISTENT, DS_FLAG_UNIQUE_ACCURATE, Dataset, Dir,
};
use crate::prop::{SetSource, parse_new, parse_new_volume};
use crate::{Chance, DIRECTORY, Dsl, FREE_DIR, MOS_DIR, NewKey, ORIGIN_DIR, PoolInfo, Who, zpl};
use icecore_dmu::{BlockStore, BlockWriter, NewObject, Objset, Policy, Want, zap};
use icecore_format::objset::ObjsetType;
use icecore_format::units::MIN_BLOCK;
use icecore_format::{ObjectId, ObjectType};
use icecore_transform::crypt::Suite;

const SNAPSHOTS_CHANGED: &str = "com.ixsystems:snapshots_changed";

/// What a new dataset is made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewContents {
    /// The objects of an empty file system.
    Filesystem,
    /// The objects of an empty volume.
    Volume {
        /// Bytes, a multiple of the block size.
        size: u64,
        /// Bytes of a block.
        block: u64,
    },
}

/// How a new dataset is encrypted.
#[derive(Clone, Copy)]
pub enum NewCrypt<'a> {
    /// As its parent, under its key.
    Inherit,
    /// Under its parent's key, with a suite of its own.
    Suite(Suite),
    /// Not, whatever the parent is.
    Off,
    /// As an encryption root.
    Root(&'a NewKey),
}

/// What the root file system of a new pool is made with.
#[derive(Default)]
pub struct RootDataset {
    /// What is fixed at its creation.
    pub zpl: zpl::ZplProps,
    /// Its key, if it is to be encrypted.
    pub key: Option<NewKey>,
    /// Whose pool it is. OpenZFS makes the root file system root's, since only root makes pools there.
    pub who: Who,
}

impl Dsl {
    /// The DSL of a new pool in txg 4: object directory, special directories, origin snapshot, features,
    /// and an empty root file system. The MOS is left dirty; the pool adds its own objects and commits. Where the root is
    /// encrypted the block store needs its keys ([`Dsl::master_keys`]) before that.
    pub fn create(
        io: &mut dyn BlockWriter,
        info: PoolInfo,
        chance: Box<dyn Chance>,
        features: &[Feature],
        root: &RootDataset,
    ) -> Result<Self> {
        name::check_pool(&info.name)?;
        let mos = Objset::create(0, ObjsetType::Meta, Policy::mos(), Want::Logical);
        let mut dsl = Self::empty(mos, info, chance);
        let directory = NewObject::plain(ObjectType::OBJECT_DIRECTORY, 512);
        dsl.mos.claim(io, ObjectId(DIRECTORY), &directory)?;
        zap::init(&mut dsl.mos, io, ObjectId(DIRECTORY), 0)?;
        dsl.who = root.who;
        dsl.features_for_read = dsl.linked_zap(io, "features_for_read")?;
        dsl.features_for_write = dsl.linked_zap(io, "features_for_write")?;
        dsl.feature_descriptions = dsl.linked_zap(io, "feature_descriptions")?;
        for f in features {
            dsl.feature_enable(io, *f)?;
        }
        dsl.root_dir = dsl.dir_create(io, 0, "")?;
        dsl.mos_dir = dsl.dir_create(io, dsl.root_dir, MOS_DIR)?;
        dsl.free_dir = dsl.dir_create(io, dsl.root_dir, FREE_DIR)?;
        dsl.free_bpobj = dsl.bpobj_new(io)?;
        dsl.zap_put_u64(io, DIRECTORY, "free_bpobj", dsl.free_bpobj)?;
        dsl.create_origin(io)?;
        let flags = if root.zpl.folds_case() { DS_FLAG_CI_DATASET } else { 0 };
        let obj = dsl.dataset_create(io, dsl.root_dir, None, flags)?;
        if let Some(key) = &root.key {
            dsl.new_key_check(io, key)?;
            let head = DatasetRef { obj, dir: dsl.root_dir, snapshot: false };
            dsl.key_make(io, head, key)?;
        }
        dsl.fill_filesystem(io, obj, &root.zpl)?;
        Ok(dsl)
    }

    fn linked_zap(&mut self, io: &mut dyn BlockWriter, entry: &str) -> Result<u64> {
        let obj = self.zap_new(io, crate::mos::OTN_ZAP_METADATA)?;
        self.zap_put_u64(io, DIRECTORY, entry, obj)?;
        Ok(obj)
    }

    /// `dsl_pool_create_origin`: an empty dataset with one snapshot of txg 1, from which all others start.
    fn create_origin(&mut self, io: &mut dyn BlockWriter) -> Result<()> {
        let dir = self.dir_create(io, self.root_dir, ORIGIN_DIR)?;
        let head = self.dataset_create(io, dir, None, 0)?;
        self.origin_snap = self.snapshot_head(io, head, ORIGIN_DIR)?;
        Ok(())
    }

    /// A new directory below `parent` (0: the pool's root).
    pub(crate) fn dir_create(&mut self, io: &mut dyn BlockWriter, parent: u64, name: &str) -> Result<u64> {
        let obj = self.new_dir_object(io)?;
        let dd = Dir {
            creation_time: self.chance.now().0,
            parent_obj: parent,
            props_zapobj: self.zap_new(io, ObjectType::DSL_PROPS)?,
            child_dir_zapobj: self.zap_new(io, ObjectType::DSL_DIR_CHILD_MAP)?,
            flags: DD_FLAG_USED_BREAKDOWN,
            ..Dir::default()
        };
        self.put_dir(io, obj, &dd)?;
        if parent == 0 {
            self.zap_put_u64(io, DIRECTORY, "root_dataset", obj)?;
        } else {
            let map = self.dir(io, parent)?.child_dir_zapobj;
            self.zap_put_u64(io, map, name, obj)?;
            if !name.starts_with('$') {
                self.count_adjust(io, parent, Counted::Filesystems, 1)?;
            }
        }
        Ok(obj)
    }

    /// Notes when the set of snapshots changed (`dsl_dir_snap_cmtime_update`).
    pub(crate) fn snapshots_changed(&mut self, io: &mut dyn BlockWriter, dir: u64) -> Result<()> {
        let (sec, nsec) = self.chance.now();
        if self.feature_enabled(io, Feature::EXTENSIBLE_DATASET)? {
            self.zapify(io, dir)?;
            self.zap_put(io, dir, SNAPSHOTS_CHANGED, &zap::ZapValue::U64(vec![sec, u64::from(nsec)]))?;
        }
        Ok(())
    }

    pub(crate) fn new_fsid(&mut self) -> u64 {
        self.chance.number() & ((1 << 56) - 1)
    }

    /// The head of directory `dir`, cloned from snapshot `origin` (`None`: from `$ORIGIN`).
    pub(crate) fn dataset_create(
        &mut self,
        io: &mut dyn BlockWriter,
        dir: u64,
        origin: Option<u64>,
        flags: u64,
    ) -> Result<u64> {
        let obj = self.new_dataset_object(io)?;
        let txg = io.txg().0;
        let mut ds = Dataset {
            dir_obj: dir,
            flags: flags | DS_FLAG_UNIQUE_ACCURATE,
            fsid_guid: self.new_fsid(),
            guid: self.chance.number(),
            snapnames_zapobj: self.zap_new_folded(io, ObjectType::DSL_DS_SNAP_MAP)?,
            creation_time: self.chance.now().0,
            creation_txg: if self.origin_snap == 0 && txg <= 4 { 1 } else { txg },
            ..Dataset::default()
        };
        if dir == self.root_dir && txg <= 4 {
            ds.creation_txg = 1;
        }
        match origin.unwrap_or(self.origin_snap) {
            0 => ds.deadlist_obj = self.deadlist_new(io)?,
            origin => self.link_origin(io, obj, dir, &mut ds, origin)?,
        }
        self.put_dataset(io, obj, &ds)?;
        if let Some(origin) = origin {
            self.copy_features(io, origin, obj)?;
            let from = self.dataset(io, origin)?.dir_obj;
            self.key_clone(io, from, dir)?;
        }
        let mut dd = self.dir(io, dir)?;
        dd.head_dataset_obj = obj;
        self.put_dir(io, dir, &dd)?;
        if origin.is_some() {
            self.zero_log(io, obj)?;
        }
        Ok(obj)
    }

    fn link_origin(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: u64,
        dir: u64,
        ds: &mut Dataset,
        origin: u64,
    ) -> Result<()> {
        let mut o = self.dataset(io, origin)?;
        ds.prev_snap_obj = origin;
        ds.prev_snap_txg = o.creation_txg;
        ds.referenced_bytes = o.referenced_bytes;
        ds.compressed_bytes = o.compressed_bytes;
        ds.uncompressed_bytes = o.uncompressed_bytes;
        ds.bp = o.bp;
        ds.flags |= o.flags & (DS_FLAG_INCONSISTENT | DS_FLAG_CI_DATASET);
        let origin_head = self.dir(io, o.dir_obj)?.head_dataset_obj;
        let deadlist = self.dataset(io, origin_head)?.deadlist_obj;
        ds.deadlist_obj = self.deadlist_clone(io, deadlist, o.creation_txg, origin)?;
        o.num_children = o.num_children.saturating_add(1);
        if o.next_clones_obj == 0 {
            o.next_clones_obj = self.zap_new(io, ObjectType::NEXT_CLONES)?;
        }
        self.put_dataset(io, origin, &o)?;
        self.zap_put_u64(io, o.next_clones_obj, &crate::mos::int_key(obj), obj)?;
        let mut dd = self.dir(io, dir)?;
        dd.origin_obj = origin;
        self.put_dir(io, dir, &dd)?;
        let mut odd = self.dir(io, o.dir_obj)?;
        if odd.clones == 0 {
            odd.clones = self.zap_new(io, ObjectType::DSL_CLONES)?;
            self.put_dir(io, o.dir_obj, &odd)?;
        }
        self.zap_put_u64(io, odd.clones, &crate::mos::int_key(obj), obj)
    }

    /// Where a new dataset `path` may be made: its parent's directory and its own last name.
    fn create_check<'a>(&self, io: &dyn BlockStore, path: &'a str) -> Result<(u64, &'a str)> {
        name::check(path)?;
        if path.contains(['@', '#']) {
            return Err(DslError::Name("a dataset's name has no '@' or '#'".into()));
        }
        let Some((parent, last)) = name::parent(path) else {
            return Err(DslError::Exists(path.into()));
        };
        if self.lookup_dir(io, path).is_ok() {
            return Err(DslError::Exists(path.into()));
        }
        let head = self.lookup_head(io, parent)?;
        if self.kind(io, head)? != Kind::Filesystem && !last.starts_with('%') {
            return Err(DslError::Invalid(format!("parent '{parent}' is not a filesystem")));
        }
        // What a receive works in is no file system for long.
        if !last.starts_with('%') {
            self.limit_check(io, head.dir, Counted::Filesystems, 1, 0)?;
        }
        Ok((head.dir, last))
    }

    fn create_entry(
        &mut self,
        io: &mut dyn BlockWriter,
        parent: u64,
        last: &str,
        origin: Option<u64>,
        flags: u64,
    ) -> Result<DatasetRef> {
        let dir = self.dir_create(io, parent, last)?;
        let obj = self.dataset_create(io, dir, origin, flags)?;
        self.begin_counts_of_new(io, dir)?;
        Ok(DatasetRef { obj, dir, snapshot: false })
    }

    /// A new, empty file system (`zfs create`). Below an encrypted parent the parent's key must be loaded;
    /// the block store needs the new dataset's keys ([`Dsl::master_keys`]) before the next sync.
    pub fn create_filesystem(
        &mut self,
        io: &mut dyn BlockWriter,
        path: &str,
        props: &[(&str, &str)],
    ) -> Result<DatasetRef> {
        self.create_dataset(io, path, NewContents::Filesystem, props, NewCrypt::Inherit)
    }

    /// The same as an encryption root of its own (`zfs create -o encryption=…`).
    pub fn create_encrypted(
        &mut self,
        io: &mut dyn BlockWriter,
        path: &str,
        props: &[(&str, &str)],
        key: &NewKey,
    ) -> Result<DatasetRef> {
        self.create_dataset(io, path, NewContents::Filesystem, props, NewCrypt::Root(key))
    }

    /// A new, empty file system or volume with local properties, encrypted as asked for
    /// (`dmu_objset_create_check`, `dmu_objset_create_crypt_check`, dsl_crypt.c).
    pub fn create_dataset(
        &mut self,
        io: &mut dyn BlockWriter,
        path: &str,
        contents: NewContents,
        props: &[(&str, &str)],
        crypt: NewCrypt<'_>,
    ) -> Result<DatasetRef> {
        let (parent, last) = self.create_check(io, path)?;
        let mut zpl_props = zpl::ZplProps::default();
        let mut rest = Vec::new();
        for (name, value) in props {
            match contents {
                NewContents::Filesystem if zpl_props.take(name, value)? => {}
                NewContents::Filesystem => rest.push((*name, parse_new(name, value)?)),
                NewContents::Volume { .. } => rest.push((*name, parse_new_volume(name, value)?)),
            }
        }
        if let NewContents::Volume { size, block } = contents {
            self.volume_check(io, size, block)?;
        }
        self.new_crypt_check(io, parent, crypt)?;
        let flags = if zpl_props.folds_case() { DS_FLAG_CI_DATASET } else { 0 };
        let r = self.create_entry(io, parent, last, None, flags)?;
        self.give_new_key(io, r, parent, crypt)?;
        for (name, value) in rest {
            self.prop_set_raw(io, r, name, &value, SetSource::Local)?;
        }
        match contents {
            NewContents::Filesystem => self.fill_filesystem(io, r.obj, &zpl_props)?,
            NewContents::Volume { size, block } => {
                if let Some(f) = crate::block_size_feature(block) {
                    self.activate_feature(io, r.obj, f)?;
                }
                let os = self.create_objset(io, r.obj, ObjsetType::Zvol, Want::Logical)?;
                crate::volume::fill(io, os, size, block)?;
            }
        }
        Ok(r)
    }

    /// What must hold for a new dataset below directory `parent` to be encrypted so.
    fn new_crypt_check(&self, io: &dyn BlockStore, parent: u64, crypt: NewCrypt<'_>) -> Result<()> {
        match crypt {
            NewCrypt::Root(key) => self.new_key_check(io, key),
            NewCrypt::Off => Ok(()),
            NewCrypt::Inherit | NewCrypt::Suite(_) => {
                let head = self.dir(io, parent)?.head_dataset_obj;
                self.require_key(io, DatasetRef { obj: head, dir: parent, snapshot: false })
            }
        }
    }

    fn give_new_key(
        &mut self,
        io: &mut dyn BlockWriter,
        r: DatasetRef,
        parent: u64,
        crypt: NewCrypt<'_>,
    ) -> Result<()> {
        match crypt {
            NewCrypt::Root(key) => self.key_make(io, r, key),
            NewCrypt::Inherit => self.key_inherit(io, r, parent, None),
            NewCrypt::Suite(suite) => self.key_inherit(io, r, parent, Some(suite)),
            NewCrypt::Off => Ok(()),
        }
    }

    /// Encrypts a dataset of [`Dsl::create_for_receive`] that has no objset yet: what a stream that is not raw brings is
    /// encrypted as it is written.
    pub fn encrypt_received(
        &mut self,
        io: &mut dyn BlockWriter,
        r: DatasetRef,
        crypt: NewCrypt<'_>,
    ) -> Result<()> {
        let parent = self.dir(io, r.dir)?.parent_obj;
        self.new_crypt_check(io, parent, crypt)?;
        self.give_new_key(io, r, parent, crypt)
    }

    /// The rules of `zfs_create` (libzfs_dataset.c) for the size and block size of a volume.
    fn volume_check(&self, io: &dyn BlockStore, size: u64, block: u64) -> Result<()> {
        let bad = |why: String| Err(DslError::Invalid(why));
        let max = self.max_block(io)?;
        if !block.is_power_of_two() || !(MIN_BLOCK..=max).contains(&block) {
            return bad(crate::prop::block_size("volblocksize", max));
        }
        if size == 0 {
            return bad("volume size cannot be zero".into());
        }
        if !size.is_multiple_of(block) {
            return bad("volume size must be a multiple of volume block size".into());
        }
        Ok(())
    }

    fn fill_filesystem(&mut self, io: &mut dyn BlockWriter, obj: u64, props: &zpl::ZplProps) -> Result<()> {
        let (who, now) = (self.who, self.chance.now());
        self.create_objset(io, obj, ObjsetType::Zfs, Want::Logical)?;
        self.begin_accounts(io, obj)?;
        let os = self.opened(obj).ok_or_else(|| DslError::Invalid("not open".into()))?;
        zpl::create_empty(io, os, props, who, now)
    }

    /// A dataset for a stream to be received into: inconsistent, without an objset where there is no
    /// `origin`, whose contents it has otherwise (`dmu_recv_begin_sync`). No key is made for it.
    pub fn create_for_receive(
        &mut self,
        io: &mut dyn BlockWriter,
        path: &str,
        origin: Option<DatasetRef>,
        case_folded: bool,
    ) -> Result<DatasetRef> {
        let (parent, last) = self.create_check(io, path)?;
        if origin.is_some_and(|o| !o.snapshot) {
            return Err(DslError::Invalid("the origin is not a snapshot".into()));
        }
        let flags = DS_FLAG_INCONSISTENT | if case_folded { DS_FLAG_CI_DATASET } else { 0 };
        self.create_entry(io, parent, last, origin.map(|o| o.obj), flags)
    }

    /// A clone of snapshot `origin` (`zfs clone`).
    pub fn clone_snapshot(
        &mut self,
        io: &mut dyn BlockWriter,
        origin: DatasetRef,
        path: &str,
    ) -> Result<DatasetRef> {
        let (parent, last) = self.create_check(io, path)?;
        if !origin.snapshot {
            return Err(DslError::Invalid("the origin is not a snapshot".into()));
        }
        self.create_entry(io, parent, last, Some(origin.obj), 0)
    }

    /// Sets or clears «half-received».
    pub fn set_inconsistent(&mut self, io: &dyn BlockStore, obj: u64, on: bool) -> Result<()> {
        let mut ds = self.dataset(io, obj)?;
        ds.flags = if on { ds.flags | DS_FLAG_INCONSISTENT } else { ds.flags & !DS_FLAG_INCONSISTENT };
        self.put_dataset(io, obj, &ds)
    }
}
