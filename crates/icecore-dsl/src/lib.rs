//! The dataset and snapshot layer: what stands between a pool's meta objset and the objsets of users.
//!
//! A [`Dsl`] owns the MOS and the objsets opened for writing. Reading methods take a [`BlockStore`],
//! changing ones a [`BlockWriter`]; a change is checked first and then made, within the one open txg.
//!
//! Invariants:
//! 1. Every changing method refuses before its first change, or its error means the txg must be abandoned.
//! 2. Space is conserved: used of a directory = sum of its breakdown, and what a dataset gains or loses
//!    reaches every ancestor (less what reservations absorb).
//! 3. A block is freed exactly when no dataset references it: born after the previous snapshot, or on a
//!    deadlist that no older snapshot shares.
//! 4. Time and randomness come through [`Chance`] only; nothing iterates in hash order.
#![forbid(unsafe_code)]

pub mod bookmark;
pub mod busy;
pub mod create;
pub mod crypt;
mod deadlist;
pub mod destroy;
mod errlog;
pub mod error;
pub mod feature;
pub mod hold;
pub mod keystore;
mod limits;
mod lookup;
mod mos;
pub mod name;
pub mod owners;
pub mod phys;
mod promote;
pub mod prop;
mod quota;
pub mod resume;
pub mod snapshot;
mod space;
pub mod swap;
mod sync;
#[cfg(test)]
mod tests;
pub mod volume;
pub mod zpl;

pub use bookmark::BookmarkPhys;
pub use busy::{Busy, Hold};
pub use create::{NewContents, NewCrypt, RootDataset};
pub use errlog::ErrorLog;
pub use error::{DslError, KeyError, Result};
pub use feature::Feature;
pub use keystore::{ForceRoot, KeyForm, NewKey, ObjsetKeys, wrapping_key};
pub use lookup::{DatasetRef, Found, Kind, Known};
pub use phys::{Dataset, Dir};
pub use prop::{Asking, PropRow, Source, Value};
pub use sync::block_size_feature;

use icecore_dmu::zap::ZapValue;
use icecore_dmu::{BlockStore, BlockWriter, Objset, ReadError, Want};
use icecore_format::{Blkptr, ObjectId};
use icecore_transform::crypt::WrappingKey;
use std::collections::BTreeMap;

/// Name of the directory that the pool's own space is charged to.
pub const MOS_DIR: &str = "$MOS";
/// Name of the directory that space still to be freed is charged to.
pub const FREE_DIR: &str = "$FREE";
/// Name of the directory whose one snapshot is the origin of every dataset that is no clone.
pub const ORIGIN_DIR: &str = "$ORIGIN";

/// The object directory of the MOS.
pub(crate) const DIRECTORY: u64 = 1;

/// The doors for time and randomness.
pub trait Chance: Send + Sync {
    /// Seconds and nanoseconds since 1970.
    fn now(&mut self) -> (u64, u32);
    /// Fills `out` with random bytes fit for keys.
    fn fill(&mut self, out: &mut [u8]);
    /// A random number, never 0.
    fn number(&mut self) -> u64 {
        let mut b = [0; 8];
        self.fill(&mut b);
        u64::from_le_bytes(b).max(1)
    }
}

/// What the DSL must know about its pool.
#[derive(Clone, Debug)]
pub struct PoolInfo {
    /// Name: the first component of every dataset's name.
    pub name: String,
    /// SPA version: 5000 for pools with feature flags.
    pub version: u64,
    /// Bytes datasets can use in all: the class's deflated space less slop (`dsl_pool_adjustedsize`). What was freed
    /// in the last txgs counts as free: until it can be used, slop stands in for it.
    pub usable: u64,
    /// Bytes that one txg should write before it is committed, however much there is room for.
    pub at_once: u64,
}

/// What became of a dataset, for whoever walks the datasets over many txgs (`dsl_scan_ds_destroyed`,
/// `dsl_scan_ds_snapshotted`, `dsl_scan_ds_clone_swapped`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DatasetEvent {
    /// The dataset is gone. What a snapshot had and others still have is in `next`.
    Destroyed {
        /// Its object.
        object: u64,
        /// Of a snapshot, the one after it, or the head.
        next: Option<u64>,
    },
    /// The head's blocks are those of its new snapshot.
    Snapshotted {
        /// The head's object.
        head: u64,
        /// The snapshot's.
        snap: u64,
    },
    /// The contents of two heads changed places.
    Swapped(u64, u64),
}

/// On whose behalf a pool is changed: the owner of new file systems (`zfs_create_fs`, zfs_znode_os.c). Limits on the number
/// of file systems and snapshots bind all but the administrator, who could lift them (`dsl_enforce_ds_ss_limits`, dsl_dir.c).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Who {
    /// The user.
    pub uid: u32,
    /// The user's group.
    pub gid: u32,
}

impl Who {
    /// The administrator.
    #[must_use]
    pub fn is_root(self) -> bool {
        self.uid == 0
    }
}

/// Directories, datasets, snapshots and all that hangs on them.
pub struct Dsl {
    /// The meta objset.
    pub mos: Objset,
    /// What the pool told us about itself.
    pub info: PoolInfo,
    /// Time and randomness.
    pub chance: Box<dyn Chance>,
    /// Who is at work.
    pub who: Who,
    root_dir: u64,
    mos_dir: u64,
    free_dir: u64,
    origin_snap: u64,
    features_for_write: u64,
    features_for_read: u64,
    feature_descriptions: u64,
    feature_enabled_txg: u64,
    free_bpobj: u64,
    empty_bpobj: u64,
    /// Datasets open for change, by dataset object.
    open: BTreeMap<u64, Objset>,
    /// Properties changed since those were told how their blocks are written.
    stale_policies: bool,
    /// Resume points to be stored with the next sync of a dataset.
    resume: BTreeMap<u64, resume::Point>,
    /// Wrapping keys by directory object of their encryption root.
    wrapping: BTreeMap<u64, WrappingKey>,
    /// Datasets that something uses beyond one transaction.
    busy: busy::Busy,
    /// Heads whose intent logs wait to be replayed.
    unreplayed: std::collections::BTreeSet<u64>,
    /// Features blocks of a dataset made active since the last sync.
    activate: BTreeMap<u64, Vec<Feature>>,
    /// Feature changes since open that the pool must copy into its labels.
    pub mos_features_changed: bool,
    /// The directory that stands before all mountpoints, for as long as the pool is imported (property `altroot`).
    pub altroot: String,
    /// What became of datasets in the open txg, in order.
    pub events: Vec<DatasetEvent>,
}

impl Dsl {
    /// Reads the object directory of the MOS under `root`.
    pub fn open(io: &dyn BlockStore, root: &Blkptr, info: PoolInfo, chance: Box<dyn Chance>) -> Result<Self> {
        let mos = Objset::open(io, 0, root, Want::Logical)?;
        let mut dsl = Self::empty(mos, info, chance);
        dsl.root_dir = dsl.directory_entry(io, "root_dataset")?.ok_or_else(|| {
            ReadError::Corrupt(icecore_format::Corrupt::new("object directory", "no root_dataset"))
        })?;
        dsl.features_for_write = dsl.directory_entry(io, "features_for_write")?.unwrap_or(0);
        dsl.features_for_read = dsl.directory_entry(io, "features_for_read")?.unwrap_or(0);
        dsl.feature_descriptions = dsl.directory_entry(io, "feature_descriptions")?.unwrap_or(0);
        dsl.feature_enabled_txg = dsl.directory_entry(io, "feature_enabled_txg")?.unwrap_or(0);
        dsl.free_bpobj = dsl.directory_entry(io, "free_bpobj")?.unwrap_or(0);
        dsl.empty_bpobj = dsl.directory_entry(io, "empty_bpobj")?.unwrap_or(0);
        let root = dsl.dir(io, dsl.root_dir)?;
        dsl.mos_dir = dsl.zap_u64(io, root.child_dir_zapobj, MOS_DIR)?.unwrap_or(0);
        dsl.free_dir = dsl.zap_u64(io, root.child_dir_zapobj, FREE_DIR)?.unwrap_or(0);
        if let Some(origin) = dsl.zap_u64(io, root.child_dir_zapobj, ORIGIN_DIR)? {
            let head = dsl.dir(io, origin)?.head_dataset_obj;
            dsl.origin_snap = dsl.dataset(io, head)?.prev_snap_obj;
        }
        Ok(dsl)
    }

    fn empty(mos: Objset, info: PoolInfo, chance: Box<dyn Chance>) -> Self {
        Self {
            mos,
            info,
            chance,
            who: Who::default(),
            root_dir: 0,
            mos_dir: 0,
            free_dir: 0,
            origin_snap: 0,
            features_for_write: 0,
            features_for_read: 0,
            feature_descriptions: 0,
            feature_enabled_txg: 0,
            free_bpobj: 0,
            empty_bpobj: 0,
            open: BTreeMap::new(),
            stale_policies: false,
            resume: BTreeMap::new(),
            wrapping: BTreeMap::new(),
            busy: busy::Busy::default(),
            unreplayed: std::collections::BTreeSet::new(),
            activate: BTreeMap::new(),
            mos_features_changed: false,
            altroot: String::new(),
            events: Vec::new(),
        }
    }

    /// The entry `name` of the MOS's object directory.
    pub fn directory_entry(&self, io: &dyn BlockStore, name: &str) -> Result<Option<u64>> {
        self.zap_u64(io, DIRECTORY, name)
    }

    /// Bytes of what was destroyed and is not yet free.
    pub fn freeing(&self, io: &dyn BlockStore) -> Result<u64> {
        if self.free_dir == 0 { Ok(0) } else { Ok(self.dir(io, self.free_dir)?.used_bytes) }
    }

    /// Bytes of what was destroyed and could not be freed, for it could not be read (`$LEAK`; `dsl_scan_destroy`).
    pub fn leaked(&self, io: &dyn BlockStore) -> Result<u64> {
        let children = self.dir(io, self.root_dir)?.child_dir_zapobj;
        self.zap_u64(io, children, "$LEAK")?.map_or(Ok(0), |dir| Ok(self.dir(io, dir)?.used_bytes))
    }

    /// An entry of the MOS directory that is an array of words, such as `scan`.
    pub fn directory_words(&self, io: &dyn BlockStore, name: &str) -> Result<Option<Vec<u64>>> {
        match icecore_dmu::zap::lookup(&self.mos, io, ObjectId(DIRECTORY), name)? {
            Some(ZapValue::U64(words)) => Ok(Some(words)),
            _ => Ok(None),
        }
    }
    /// Sets such an entry, new or not.
    pub fn set_directory_words(&mut self, io: &mut dyn BlockWriter, name: &str, words: &[u64]) -> Result<()> {
        let value = ZapValue::U64(words.to_vec());
        Ok(icecore_dmu::zap::update(&mut self.mos, io, ObjectId(DIRECTORY), name, &value)?)
    }
    /// Adds or replaces an entry of the object directory.
    pub fn set_directory_entry(&mut self, io: &mut dyn BlockWriter, name: &str, obj: u64) -> Result<()> {
        self.zap_put_u64(io, DIRECTORY, name, obj)
    }

    /// The directory object of the pool's root.
    #[must_use]
    pub fn root_dir(&self) -> u64 {
        self.root_dir
    }

    /// The pool's `$ORIGIN@$ORIGIN` snapshot, 0 in pools too old to have one.
    #[must_use]
    pub fn origin_snap(&self) -> u64 {
        self.origin_snap
    }

    /// The object of blocks still to be freed, 0 in pools too old to have one.
    #[must_use]
    pub fn free_bpobj(&self) -> u64 {
        self.free_bpobj
    }
}
