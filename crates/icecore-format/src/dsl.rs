//! The DSL's structures in the MOS: directories and datasets (`dsl_dir_phys_t`, dsl_dir.h;
//! `dsl_dataset_phys_t`, dsl_dataset.h). Both are bonus buffers; newer fields live in a ZAP over the same object.

use crate::{Blkptr, Corrupt};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `dd_used_breakdown` holds real numbers (`DD_FLAG_USED_BREAKDOWN`).
pub const DD_FLAG_USED_BREAKDOWN: u64 = 1;

/// What the space of a directory is used for; an index into `used_breakdown` (`dd_used_t`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DdUsed {
    /// The head dataset.
    Head = 0,
    /// Snapshots.
    Snap = 1,
    /// Children.
    Child = 2,
    /// Reservations of children.
    ChildRsrv = 3,
    /// The head dataset's own reservation.
    RefRsrv = 4,
}

/// A directory: a named place in the hierarchy, with a head dataset, children and limits.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug, Default,
)]
#[repr(C)]
#[allow(missing_docs)] // OpenZFS's names without their prefix
pub struct DslDirPhys {
    pub creation_time: U64,
    /// The dataset object of the head; 0 for `$MOS` and the like.
    pub head_dataset_obj: U64,
    pub parent_obj: U64,
    /// The snapshot a clone began as.
    pub origin_obj: U64,
    pub child_dir_zapobj: U64,
    pub used_bytes: U64,
    pub compressed_bytes: U64,
    pub uncompressed_bytes: U64,
    pub quota: U64,
    pub reserved: U64,
    pub props_zapobj: U64,
    pub deleg_zapobj: U64,
    /// `DD_FLAG_*`.
    pub flags: U64,
    /// By [`DdUsed`].
    pub used_breakdown: [U64; 5],
    /// A ZAP of the directories whose origin is a snapshot here.
    pub clones: U64,
    pub pad: [U64; 13],
}
const _: () = assert!(size_of::<DslDirPhys>() == 256);

impl DslDirPhys {
    /// The structure at the start of a bonus buffer.
    pub fn parse(bonus: &[u8]) -> Result<Self, Corrupt> {
        let short = |_| Corrupt::new("DSL directory", format!("a bonus of {} bytes", bonus.len()));
        Self::read_from_prefix(bonus).map(|(dir, _)| dir).map_err(short)
    }
    /// Space used for `what`.
    #[must_use]
    pub fn used(&self, what: DdUsed) -> u64 {
        self.used_breakdown.get(what as usize).map_or(0, |n| n.get())
    }
}

/// A receive into the dataset is not finished.
pub const DS_FLAG_INCONSISTENT: u64 = 1 << 0;
/// May not be promoted.
pub const DS_FLAG_NOPROMOTE: u64 = 1 << 1;
/// `unique_bytes` of a head is right.
pub const DS_FLAG_UNIQUE_ACCURATE: u64 = 1 << 2;
/// Goes with its last hold or clone (`zfs destroy -d`).
pub const DS_FLAG_DEFER_DESTROY: u64 = 1 << 3;
/// Names are looked up without regard to case.
pub const DS_FLAG_CI_DATASET: u64 = 1 << 16;

/// A dataset: a head or a snapshot.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug, Default,
)]
#[repr(C)]
#[allow(missing_docs)] // OpenZFS's names without their prefix
pub struct DslDatasetPhys {
    pub dir_obj: U64,
    pub prev_snap_obj: U64,
    pub prev_snap_txg: U64,
    pub next_snap_obj: U64,
    /// Names of the head's snapshots; 0 in a snapshot.
    pub snapnames_zapobj: U64,
    /// Clones and next snapshot; 0 in a head.
    pub num_children: U64,
    pub creation_time: U64,
    pub creation_txg: U64,
    pub deadlist_obj: U64,
    pub referenced_bytes: U64,
    pub compressed_bytes: U64,
    pub uncompressed_bytes: U64,
    pub unique_bytes: U64,
    /// 56 bits that may change to stay unique on one machine.
    pub fsid_guid: U64,
    pub guid: U64,
    /// `DS_FLAG_*`.
    pub flags: U64,
    /// The objset.
    pub bp: Blkptr,
    pub next_clones_obj: U64,
    /// Properties of a snapshot.
    pub props_obj: U64,
    /// Holds of a snapshot.
    pub userrefs_obj: U64,
    pub pad: [U64; 5],
}
const _: () = assert!(size_of::<DslDatasetPhys>() == 320);
const _: () = assert!(std::mem::offset_of!(DslDatasetPhys, bp) == 128);

impl DslDatasetPhys {
    /// The structure at the start of a bonus buffer.
    pub fn parse(bonus: &[u8]) -> Result<Self, Corrupt> {
        let short = |_| Corrupt::new("DSL dataset", format!("a bonus of {} bytes", bonus.len()));
        Self::read_from_prefix(bonus).map(|(ds, _)| ds).map_err(short)
    }
    /// Whether this is a snapshot and not a head (`ds_num_children` counts for snapshots only).
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        self.num_children.get() != 0
    }
    /// Whether all of the `DS_FLAG_*` bits are set.
    #[must_use]
    pub fn has_flag(&self, flag: u64) -> bool {
        self.flags.get() & flag == flag
    }
}

/// Names in the ZAP over a directory (`DD_FIELD_*`).
pub mod dd_field {
    /// How many file systems are below.
    pub const FILESYSTEM_COUNT: &str = "com.joyent:filesystem_count";
    /// How many snapshots are below.
    pub const SNAPSHOT_COUNT: &str = "com.joyent:snapshot_count";
    /// The object of the wrapped key.
    pub const CRYPTO_KEY_OBJ: &str = "com.datto:crypto_key_obj";
    /// The livelist of a clone.
    pub const LIVELIST: &str = "com.delphix:livelist";
    /// When the list of snapshots last changed.
    pub const SNAPSHOTS_CHANGED: &str = "com.ixsystems:snapshots_changed";
}

/// Names in the ZAP over a dataset (`DS_FIELD_*`).
pub mod ds_field {
    /// The ZAP of bookmarks.
    pub const BOOKMARK_NAMES: &str = "com.delphix:bookmarks";
    /// Large dnodes may be there.
    pub const LARGE_DNODE: &str = "org.zfsonlinux:large_dnode";
    /// Interrupted receive: guid of the snapshot it builds on.
    pub const RESUME_FROMGUID: &str = "com.delphix:resume_fromguid";
    /// Interrupted receive: name of the snapshot sent.
    pub const RESUME_TONAME: &str = "com.delphix:resume_toname";
    /// Interrupted receive: guid of the snapshot sent.
    pub const RESUME_TOGUID: &str = "com.delphix:resume_toguid";
    /// Interrupted receive: object to go on with.
    pub const RESUME_OBJECT: &str = "com.delphix:resume_object";
    /// Interrupted receive: offset to go on at.
    pub const RESUME_OFFSET: &str = "com.delphix:resume_offset";
    /// Interrupted receive: bytes received.
    pub const RESUME_BYTES: &str = "com.delphix:resume_bytes";
    /// Interrupted receive: sent with -L.
    pub const RESUME_LARGEBLOCK: &str = "com.delphix:resume_largeblockok";
    /// Interrupted receive: sent with -e.
    pub const RESUME_EMBEDOK: &str = "com.delphix:resume_embedok";
    /// Interrupted receive: sent with -c.
    pub const RESUME_COMPRESSOK: &str = "com.delphix:resume_compressok";
    /// Interrupted receive: sent with -w.
    pub const RESUME_RAWOK: &str = "com.datto:resume_rawok";
    /// Interrupted receive: redaction snapshots of the bookmark it builds on.
    pub const RESUME_REDACT_BOOKMARK_SNAPS: &str = "com.delphix:resume_redact_book_snaps";
    /// Blocks remapped from a removed vdev.
    pub const REMAP_DEADLIST: &str = "com.delphix:remap_deadlist";
    /// Which set of IVs the ciphertext has: guards a raw incremental against another history.
    pub const IVSET_GUID: &str = "com.datto:ivset_guid";
    /// The snapshot was received raw.
    pub const RAW_RECEIVED: &str = "org.openzfs:raw_received";
}

/// Names in the MOS's object directory, object 1 (`DMU_POOL_*`, dmu.h).
pub mod pool {
    /// The object directory itself.
    pub const DIRECTORY_OBJECT: u64 = 1;
    /// The packed configuration.
    pub const CONFIG: &str = "config";
    /// Feature refcounts for writing.
    pub const FEATURES_FOR_WRITE: &str = "features_for_write";
    /// Feature refcounts for reading.
    pub const FEATURES_FOR_READ: &str = "features_for_read";
    /// Feature descriptions.
    pub const FEATURE_DESCRIPTIONS: &str = "feature_descriptions";
    /// When features were enabled.
    pub const FEATURE_ENABLED_TXG: &str = "feature_enabled_txg";
    /// The root directory of the DSL.
    pub const ROOT_DATASET: &str = "root_dataset";
    /// Blocks waiting to be freed.
    pub const SYNC_BPOBJ: &str = "sync_bplist";
    /// Errors the running scrub has found.
    pub const ERRLOG_SCRUB: &str = "errlog_scrub";
    /// Errors since the last scrub.
    pub const ERRLOG_LAST: &str = "errlog_last";
    /// Hot spares.
    pub const SPARES: &str = "spares";
    /// The deflation flag.
    pub const DEFLATE: &str = "deflate";
    /// History.
    pub const HISTORY: &str = "history";
    /// Pool properties.
    pub const PROPS: &str = "pool_props";
    /// Cache devices.
    pub const L2CACHE: &str = "l2cache";
    /// Temporary holds.
    pub const TMP_USERREFS: &str = "tmp_userrefs";
    /// Statistics of the dedup tables.
    pub const DDT_STATS: &str = "DDT-statistics";
    /// Version at creation.
    pub const CREATION_VERSION: &str = "creation_version";
    /// Scrub and resilver state.
    pub const SCAN: &str = "scan";
    /// Blocks of destroyed datasets.
    pub const FREE_BPOBJ: &str = "free_bpobj";
    /// Trees of destroyed datasets.
    pub const BPTREE_OBJ: &str = "bptree_obj";
    /// The one empty bpobj that all deadlists share.
    pub const EMPTY_BPOBJ: &str = "empty_bpobj";
    /// Salt of the keyed checksums.
    pub const CHECKSUM_SALT: &str = "org.illumos:checksum_salt";
    /// ZAPs of vdevs.
    pub const VDEV_ZAP_MAP: &str = "com.delphix:vdev_zap_map";
    /// Removal in progress.
    pub const REMOVING: &str = "com.delphix:removing";
    /// Obsolete entries of an indirect vdev.
    pub const OBSOLETE_BPOBJ: &str = "com.delphix:obsolete_bpobj";
    /// Condensing in progress.
    pub const CONDENSING_INDIRECT: &str = "com.delphix:condensing_indirect";
    /// The checkpointed uberblock.
    pub const ZPOOL_CHECKPOINT: &str = "com.delphix:zpool_checkpoint";
    /// The log of space map changes, by txg.
    pub const LOG_SPACEMAP_ZAP: &str = "com.delphix:log_spacemap_zap";
    /// Clones whose livelists are being freed.
    pub const DELETED_CLONES: &str = "com.delphix:deleted_clones";
}
