//! Feature flags: everything a pool can have since versions gave way to features (`zfeature_common.c`). The
//! table knows all of OpenZFS 2.3 and of its main branch after it; whether a feature is supported is decided
//! elsewhere.

/// Pools with the feature active may be read, not written, by software that does not know it.
pub const READONLY_COMPAT: u8 = 1;
/// Needed before the MOS can be read at all, so labels list it too.
pub const MOS: u8 = 2;
/// Becomes active when enabled.
pub const ACTIVATE_ON_ENABLE: u8 = 4;
/// Each dataset that uses it says so.
pub const PER_DATASET: u8 = 8;
/// `zpool upgrade` leaves it off.
pub const NO_UPGRADE: u8 = 16;

/// A feature flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feature {
    /// Its name on disk.
    pub guid: &'static str,
    /// Its name for users, after `feature@`.
    pub name: &'static str,
    /// [`READONLY_COMPAT`] and so on.
    pub flags: u8,
    /// Guids of the features it needs.
    pub depends: &'static [&'static str],
    /// A dataset's field is an array of u64 and not a mere mark.
    pub has_value: bool,
}

impl Feature {
    /// Whether one of the `flags` is set.
    #[must_use]
    pub fn is(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }
}

/// The feature of that name on disk.
#[must_use]
pub fn by_guid(guid: &str) -> Option<&'static Feature> {
    TABLE.iter().find(|f| f.guid == guid)
}
/// The feature of that name for users.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Feature> {
    TABLE.iter().find(|f| f.name == name)
}

macro_rules! features {
    ($($id:ident $guid:literal $name:literal [$($flag:ident)*] [$($dep:ident)*] $value:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub const $id: &str = $guid;
        )*
        /// All features, in the order of OpenZFS's documentation of them.
        pub static TABLE: &[Feature] = &[$(Feature {
            guid: $guid,
            name: $name,
            flags: 0 $(| $flag)*,
            depends: &[$($dep),*],
            has_value: $value,
        },)*];
    };
}

features! {
    ASYNC_DESTROY "com.delphix:async_destroy" "async_destroy" [READONLY_COMPAT] [] false;
    EMPTY_BPOBJ "com.delphix:empty_bpobj" "empty_bpobj" [READONLY_COMPAT] [] false;
    LZ4_COMPRESS "org.illumos:lz4_compress" "lz4_compress" [ACTIVATE_ON_ENABLE] [] false;
    MULTI_VDEV_CRASH_DUMP "com.joyent:multi_vdev_crash_dump" "multi_vdev_crash_dump" [] [] false;
    SPACEMAP_HISTOGRAM "com.delphix:spacemap_histogram" "spacemap_histogram" [READONLY_COMPAT] [] false;
    ENABLED_TXG "com.delphix:enabled_txg" "enabled_txg" [READONLY_COMPAT] [] false;
    HOLE_BIRTH "com.delphix:hole_birth" "hole_birth" [MOS ACTIVATE_ON_ENABLE] [ENABLED_TXG] false;
    POOL_CHECKPOINT "com.delphix:zpool_checkpoint" "zpool_checkpoint" [READONLY_COMPAT] [] false;
    SPACEMAP_V2 "com.delphix:spacemap_v2" "spacemap_v2" [READONLY_COMPAT ACTIVATE_ON_ENABLE] [] false;
    EXTENSIBLE_DATASET "com.delphix:extensible_dataset" "extensible_dataset" [] [] false;
    BOOKMARKS "com.delphix:bookmarks" "bookmarks" [READONLY_COMPAT] [EXTENSIBLE_DATASET] false;
    FS_SS_LIMIT "com.joyent:filesystem_limits" "filesystem_limits" [READONLY_COMPAT] [EXTENSIBLE_DATASET] false;
    EMBEDDED_DATA "com.delphix:embedded_data" "embedded_data" [MOS ACTIVATE_ON_ENABLE] [] false;
    LIVELIST "com.delphix:livelist" "livelist" [READONLY_COMPAT] [EXTENSIBLE_DATASET] false;
    LOG_SPACEMAP "com.delphix:log_spacemap" "log_spacemap" [READONLY_COMPAT] [SPACEMAP_V2] false;
    LARGE_BLOCKS "org.open-zfs:large_blocks" "large_blocks" [PER_DATASET] [EXTENSIBLE_DATASET] false;
    LARGE_DNODE "org.zfsonlinux:large_dnode" "large_dnode" [PER_DATASET] [EXTENSIBLE_DATASET] false;
    SHA512 "org.illumos:sha512" "sha512" [PER_DATASET] [EXTENSIBLE_DATASET] false;
    SKEIN "org.illumos:skein" "skein" [PER_DATASET] [EXTENSIBLE_DATASET] false;
    EDONR "org.illumos:edonr" "edonr" [PER_DATASET] [EXTENSIBLE_DATASET] false;
    REDACTION_BOOKMARKS "com.delphix:redaction_bookmarks" "redaction_bookmarks" [] [BOOKMARK_V2 EXTENSIBLE_DATASET BOOKMARKS] false;
    REDACTED_DATASETS "com.delphix:redacted_datasets" "redacted_datasets" [PER_DATASET] [EXTENSIBLE_DATASET] true;
    BOOKMARK_WRITTEN "com.delphix:bookmark_written" "bookmark_written" [] [BOOKMARK_V2 EXTENSIBLE_DATASET BOOKMARKS] false;
    DEVICE_REMOVAL "com.delphix:device_removal" "device_removal" [MOS] [] false;
    OBSOLETE_COUNTS "com.delphix:obsolete_counts" "obsolete_counts" [READONLY_COMPAT] [EXTENSIBLE_DATASET DEVICE_REMOVAL] false;
    USEROBJ_ACCOUNTING "org.zfsonlinux:userobj_accounting" "userobj_accounting" [READONLY_COMPAT PER_DATASET] [EXTENSIBLE_DATASET] false;
    BOOKMARK_V2 "com.datto:bookmark_v2" "bookmark_v2" [] [EXTENSIBLE_DATASET BOOKMARKS] false;
    ENCRYPTION "com.datto:encryption" "encryption" [PER_DATASET] [EXTENSIBLE_DATASET BOOKMARK_V2] false;
    PROJECT_QUOTA "org.zfsonlinux:project_quota" "project_quota" [READONLY_COMPAT PER_DATASET] [EXTENSIBLE_DATASET] false;
    ALLOCATION_CLASSES "org.zfsonlinux:allocation_classes" "allocation_classes" [READONLY_COMPAT] [] false;
    RESILVER_DEFER "com.datto:resilver_defer" "resilver_defer" [READONLY_COMPAT] [] false;
    DEVICE_REBUILD "org.openzfs:device_rebuild" "device_rebuild" [READONLY_COMPAT] [] false;
    ZSTD_COMPRESS "org.freebsd:zstd_compress" "zstd_compress" [PER_DATASET] [EXTENSIBLE_DATASET] false;
    DRAID "org.openzfs:draid" "draid" [MOS] [] false;
    DRAID_FAIL_DOMAINS "com.seagate:draid_failure_domains" "draid_failure_domains" [MOS] [DRAID] false;
    ZILSAXATTR "org.openzfs:zilsaxattr" "zilsaxattr" [PER_DATASET READONLY_COMPAT] [EXTENSIBLE_DATASET] false;
    HEAD_ERRLOG "com.delphix:head_errlog" "head_errlog" [ACTIVATE_ON_ENABLE] [] false;
    BLAKE3 "org.openzfs:blake3" "blake3" [PER_DATASET] [EXTENSIBLE_DATASET] false;
    BLOCK_CLONING "com.fudosecurity:block_cloning" "block_cloning" [READONLY_COMPAT] [] false;
    BLOCK_CLONING_ENDIAN "com.truenas:block_cloning_endian" "block_cloning_endian" [READONLY_COMPAT] [] false;
    AVZ_V2 "com.klarasystems:vdev_zaps_v2" "vdev_zaps_v2" [MOS] [] false;
    REDACTION_LIST_SPILL "com.delphix:redaction_list_spill" "redaction_list_spill" [] [REDACTION_BOOKMARKS] false;
    RAIDZ_EXPANSION "org.openzfs:raidz_expansion" "raidz_expansion" [MOS] [] false;
    FAST_DEDUP "com.klarasystems:fast_dedup" "fast_dedup" [READONLY_COMPAT] [] false;
    LONGNAME "org.zfsonlinux:longname" "longname" [PER_DATASET] [EXTENSIBLE_DATASET] false;
    LARGE_MICROZAP "com.klarasystems:large_microzap" "large_microzap" [PER_DATASET READONLY_COMPAT] [EXTENSIBLE_DATASET LARGE_BLOCKS] false;
    DYNAMIC_GANG_HEADER "com.klarasystems:dynamic_gang_header" "dynamic_gang_header" [MOS NO_UPGRADE] [] false;
    PHYSICAL_REWRITE "com.truenas:physical_rewrite" "physical_rewrite" [READONLY_COMPAT PER_DATASET] [EXTENSIBLE_DATASET] false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_closed_and_unique() {
        let mut guids: Vec<_> = TABLE.iter().map(|f| f.guid).collect();
        guids.sort_unstable();
        guids.dedup();
        assert_eq!(guids.len(), TABLE.len());
        for feature in TABLE {
            assert!(feature.depends.iter().all(|d| by_guid(d).is_some()), "{}", feature.name);
            assert!(
                !feature.is(PER_DATASET) || feature.depends.contains(&EXTENSIBLE_DATASET),
                "{}",
                feature.name
            );
            assert!(!(feature.is(READONLY_COMPAT) && feature.is(MOS)), "{}", feature.name);
            assert_eq!(by_name(feature.name), Some(feature));
        }
    }
}
