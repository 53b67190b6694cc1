//! Directories and datasets as plain numbers, to be computed with: the checked, native form of what
//! `icecore_format::dsl` lays out over the bonus areas of their MOS objects (`dsl_dir_phys_t`, dsl_dir.h;
//! `dsl_dataset_phys_t`, dsl_dataset.h).
//!
//! Invariants:
//! 1. `decode` accepts any bytes: missing words (old, shorter bonus areas) are 0, unknown bits are kept.
//! 2. `encode(decode(b)) == b` for every `b` of full length.

use icecore_format::Blkptr;
use icecore_format::reader::{put_u64_at, u64_at};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of a directory's bonus.
pub const DIR_LEN: usize = 256;
/// Bytes of a dataset's bonus.
pub const DATASET_LEN: usize = 320;

/// A half-received or half-destroyed dataset (`DS_FLAG_INCONSISTENT`).
pub const DS_FLAG_INCONSISTENT: u64 = 1;
/// `unique` has been kept right since creation (`DS_FLAG_UNIQUE_ACCURATE`).
pub const DS_FLAG_UNIQUE_ACCURATE: u64 = 1 << 2;
/// Destroy when the last hold and clone are gone (`DS_FLAG_DEFER_DESTROY`).
pub const DS_FLAG_DEFER_DESTROY: u64 = 1 << 3;
/// File names are compared without case (`DS_FLAG_CI_DATASET`).
pub const DS_FLAG_CI_DATASET: u64 = 1 << 16;
/// The breakdown of used space is kept (`DD_FLAG_USED_BREAKDOWN`).
pub const DD_FLAG_USED_BREAKDOWN: u64 = 1;

/// Why space is used in a directory (`dd_used_t`); indices of [`Dir::used_breakdown`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Used {
    /// By the live dataset.
    Head = 0,
    /// By snapshots only.
    Snap = 1,
    /// By child directories.
    Child = 2,
    /// By the unused part of children's reservations.
    ChildRsrv = 3,
    /// By the unused part of the refreservation.
    RefRsrv = 4,
}

macro_rules! native {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident $at:literal,)* } $($rest:tt)*) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct $name { $($(#[$fdoc])* pub $field: u64,)* $($rest)* }
        impl $name {
            fn decode_words(&mut self, b: &[u8]) { $(self.$field = u64_at(b, $at * 8);)* }
            fn encode_words(&self, b: &mut [u8]) { $(let _ = put_u64_at(b, $at * 8, self.$field);)* }
        }
    };
}

native! {
    /// A DSL directory: the node of the name tree, holder of properties and of space accounting.
    Dir {
        /// Unused by OpenZFS.
        creation_time 0,
        /// The live dataset, 0 for `$MOS` and `$FREE`.
        head_dataset_obj 1,
        /// 0 for the root.
        parent_obj 2,
        /// Snapshot this directory was cloned from (often the pool's `$ORIGIN@$ORIGIN`).
        origin_obj 3,
        /// ZAP: child name to directory object.
        child_dir_zapobj 4,
        /// All space charged here, reservations of children included.
        used_bytes 5,
        /// The same, physical sizes.
        compressed_bytes 6,
        /// The same, logical sizes.
        uncompressed_bytes 7,
        /// 0 = none.
        quota 8,
        /// 0 = none.
        reserved 9,
        /// ZAP of properties.
        props_zapobj 10,
        /// ZAP of delegated permissions, 0 = none.
        deleg_zapobj 11,
        /// `DD_FLAG_*`.
        flags 12,
        /// ZAP of the head datasets of clones of this directory's snapshots.
        clones 18,
    }
    /// Space by reason, see [`Used`].
    pub used_breakdown: [u64; 5],
    /// Reserved words, kept.
    pub pad: [u64; 13],
}

impl Dir {
    /// From the bonus bytes.
    #[must_use]
    pub fn decode(b: &[u8]) -> Self {
        let mut d = Self::default();
        d.decode_words(b);
        for (i, w) in d.used_breakdown.iter_mut().enumerate() {
            *w = u64_at(b, 13 * 8 + i * 8);
        }
        for (i, w) in d.pad.iter_mut().enumerate() {
            *w = u64_at(b, 19 * 8 + i * 8);
        }
        d
    }
    /// To the bonus bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut b = vec![0; DIR_LEN];
        self.encode_words(&mut b);
        for (i, w) in self.used_breakdown.iter().enumerate() {
            let _ = put_u64_at(&mut b, 13 * 8 + i * 8, *w);
        }
        for (i, w) in self.pad.iter().enumerate() {
            let _ = put_u64_at(&mut b, 19 * 8 + i * 8, *w);
        }
        b
    }
}

native! {
    /// A dataset: a head or a snapshot, with its root block pointer and its neighbours in time.
    Dataset {
        /// Directory it belongs to.
        dir_obj 0,
        /// The snapshot before, 0 = none (only `$ORIGIN`'s own).
        prev_snap_obj 1,
        /// Creation txg of that snapshot: blocks born later are this dataset's own.
        prev_snap_txg 2,
        /// The next snapshot or the head; 0 for a head.
        next_snap_obj 3,
        /// ZAP: snapshot name to object; 0 for a snapshot.
        snapnames_zapobj 4,
        /// Snapshots and heads that follow (1 + clones); 0 for a head.
        num_children 5,
        /// Seconds since 1970.
        creation_time 6,
        /// The txg in which it was made.
        creation_txg 7,
        /// Blocks referenced by the snapshot before and not by this dataset.
        deadlist_obj 8,
        /// Bytes reachable from `bp`, shared or not.
        referenced_bytes 9,
        /// The same, physical sizes.
        compressed_bytes 10,
        /// The same, logical sizes.
        uncompressed_bytes 11,
        /// Bytes that only this dataset holds.
        unique_bytes 12,
        /// 56-bit id for NFS, may change.
        fsid_guid 13,
        /// Identity for ever, carried over by send and receive for snapshots.
        guid 14,
        /// `DS_FLAG_*`.
        flags 15,
        /// ZAP of the datasets that follow as clones; 0 = none.
        next_clones_obj 32,
        /// ZAP of a snapshot's own properties; 0 = none.
        props_obj 33,
        /// ZAP of user holds; 0 = none.
        userrefs_obj 34,
    }
    /// Pointer to the objset block.
    pub bp: Blkptr,
    /// Reserved words, kept.
    pub pad: [u64; 5],
}

/// What properties tell of a dataset's object: a third of it, for there may be very many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Brief {
    pub(crate) prev_snap_obj: u64,
    pub(crate) num_children: u64,
    pub(crate) creation_time: u64,
    pub(crate) creation_txg: u64,
    pub(crate) referenced_bytes: u64,
    pub(crate) compressed_bytes: u64,
    pub(crate) uncompressed_bytes: u64,
    pub(crate) unique_bytes: u64,
    pub(crate) guid: u64,
    pub(crate) flags: u64,
    pub(crate) props_obj: u64,
    pub(crate) userrefs_obj: u64,
}

impl Brief {
    pub(crate) fn of(ds: &Dataset) -> Self {
        Self {
            prev_snap_obj: ds.prev_snap_obj,
            num_children: ds.num_children,
            creation_time: ds.creation_time,
            creation_txg: ds.creation_txg,
            referenced_bytes: ds.referenced_bytes,
            compressed_bytes: ds.compressed_bytes,
            uncompressed_bytes: ds.uncompressed_bytes,
            unique_bytes: ds.unique_bytes,
            guid: ds.guid,
            flags: ds.flags,
            props_obj: ds.props_obj,
            userrefs_obj: ds.userrefs_obj,
        }
    }
}

impl Dataset {
    /// From the bonus bytes.
    #[must_use]
    pub fn decode(b: &[u8]) -> Self {
        let mut d = Self::default();
        d.decode_words(b);
        d.bp = b.get(128..256).and_then(|s| Blkptr::read_from_bytes(s).ok()).unwrap_or_default();
        for (i, w) in d.pad.iter_mut().enumerate() {
            *w = u64_at(b, 35 * 8 + i * 8);
        }
        d
    }
    /// To the bonus bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut b = vec![0; DATASET_LEN];
        self.encode_words(&mut b);
        if let Some(s) = b.get_mut(128..256) {
            s.copy_from_slice(self.bp.as_bytes());
        }
        for (i, w) in self.pad.iter().enumerate() {
            let _ = put_u64_at(&mut b, 35 * 8 + i * 8, *w);
        }
        b
    }
    /// Only heads have a table of snapshot names (`dsl_dataset_is_snapshot` asks `ds_num_children`).
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        self.num_children != 0
    }
    /// Half-received or half-destroyed.
    #[must_use]
    pub fn is_inconsistent(&self) -> bool {
        self.flags & DS_FLAG_INCONSISTENT != 0
    }
    /// Marked for destruction.
    #[must_use]
    pub fn is_defer_destroy(&self) -> bool {
        self.flags & DS_FLAG_DEFER_DESTROY != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use icecore_format::dsl::{DslDatasetPhys, DslDirPhys};

    #[test]
    fn both_structures_survive_a_round_trip() {
        let bytes: Vec<u8> = (0..DATASET_LEN).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
        assert_eq!(Dataset::decode(&bytes).encode(), bytes);
        assert_eq!(Dir::decode(&bytes[..DIR_LEN]).encode(), bytes[..DIR_LEN]);
    }

    #[test]
    fn the_layout_is_that_of_the_format_crate() {
        let bytes: Vec<u8> = (0..DATASET_LEN).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
        let (ds, phys) = (Dataset::decode(&bytes), DslDatasetPhys::parse(&bytes).unwrap());
        assert_eq!((ds.dir_obj, ds.flags, ds.bp), (phys.dir_obj.get(), phys.flags.get(), phys.bp));
        assert_eq!((ds.deadlist_obj, ds.unique_bytes), (phys.deadlist_obj.get(), phys.unique_bytes.get()));
        assert_eq!((ds.guid, ds.userrefs_obj), (phys.guid.get(), phys.userrefs_obj.get()));
        assert_eq!(ds.pad[0], phys.pad[0].get());
        let (dd, phys) = (Dir::decode(&bytes), DslDirPhys::parse(&bytes[..DIR_LEN]).unwrap());
        assert_eq!((dd.head_dataset_obj, dd.flags), (phys.head_dataset_obj.get(), phys.flags.get()));
        assert_eq!(dd.used_breakdown, phys.used_breakdown.map(|w| w.get()));
        assert_eq!((dd.clones, dd.pad[12]), (phys.clones.get(), phys.pad[12].get()));
    }
}
