//! Feature flags as the DSL needs them: names, where the reference counts live, which are per dataset
//! (`zpool_feature_init`, zfeature_common.c; `feature_do_action`, zfeature.c).

/// One feature flag.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Feature {
    /// Short name, as in `feature@NAME`.
    pub name: &'static str,
    /// The name on disk.
    pub guid: &'static str,
    /// The sentence stored beside it in the pool (`feature_descriptions`).
    pub description: &'static str,
    /// Pools with it active can be read by software that does not know it.
    pub readonly_compat: bool,
    /// Must be known before the MOS can be read: listed in the labels too while active.
    pub mos: bool,
    /// Counted per dataset, with an entry in the dataset object.
    pub per_dataset: bool,
    /// Active as soon as enabled.
    pub activate_on_enable: bool,
    /// Guids of features enabled with it.
    pub depends: &'static [&'static str],
}

const EXT: &str = "com.delphix:extensible_dataset";

macro_rules! features {
    ($($konst:ident $name:literal $guid:literal $flags:literal [$($dep:expr),*] $text:literal;)*) => {
        #[allow(missing_docs)] // names are OpenZFS's
        impl Feature {
            $(pub const $konst: Feature = Feature {
                name: $name, guid: $guid, description: $text,
                readonly_compat: has($flags, b'r'), mos: has($flags, b'm'),
                per_dataset: has($flags, b'd'), activate_on_enable: has($flags, b'a'),
                depends: &[$($dep),*],
            };)*
            /// Every feature this crate knows, in OpenZFS's order.
            pub const ALL: &'static [Feature] = &[$(Feature::$konst),*];
        }
    };
}
const fn has(flags: &str, c: u8) -> bool {
    let b = flags.as_bytes();
    let mut i = 0;
    while i < b.len() {
        if b[i] == c {
            return true;
        }
        i += 1;
    }
    false
}

features! {
    ASYNC_DESTROY "async_destroy" "com.delphix:async_destroy" "r" [] "Destroy filesystems asynchronously.";
    EMPTY_BPOBJ "empty_bpobj" "com.delphix:empty_bpobj" "r" [] "Snapshots use less space.";
    LZ4_COMPRESS "lz4_compress" "org.illumos:lz4_compress" "a" [] "LZ4 compression algorithm support.";
    MULTI_VDEV_CRASH_DUMP "multi_vdev_crash_dump" "com.joyent:multi_vdev_crash_dump" "" [] "Crash dumps to multiple vdev pools.";
    SPACEMAP_HISTOGRAM "spacemap_histogram" "com.delphix:spacemap_histogram" "r" [] "Spacemaps maintain space histograms.";
    ENABLED_TXG "enabled_txg" "com.delphix:enabled_txg" "r" [] "Record txg at which a feature is enabled";
    HOLE_BIRTH "hole_birth" "com.delphix:hole_birth" "ma" ["com.delphix:enabled_txg"] "Retain hole birth txg for more precise zfs send";
    EXTENSIBLE_DATASET "extensible_dataset" "com.delphix:extensible_dataset" "" [] "Enhanced dataset functionality, used by other features.";
    EMBEDDED_DATA "embedded_data" "com.delphix:embedded_data" "ma" [] "Blocks which compress very well use even less space.";
    BOOKMARKS "bookmarks" "com.delphix:bookmarks" "r" [EXT] "\"zfs bookmark\" command";
    FS_SS_LIMIT "filesystem_limits" "com.joyent:filesystem_limits" "r" [EXT] "Filesystem and snapshot limits.";
    LARGE_BLOCKS "large_blocks" "org.open-zfs:large_blocks" "d" [EXT] "Support for blocks larger than 128KB.";
    LARGE_DNODE "large_dnode" "org.zfsonlinux:large_dnode" "d" [EXT] "Variable on-disk size of dnodes.";
    SHA512 "sha512" "org.illumos:sha512" "d" [EXT] "SHA-512/256 hash algorithm.";
    SKEIN "skein" "org.illumos:skein" "d" [EXT] "Skein hash algorithm.";
    EDONR "edonr" "org.illumos:edonr" "d" [EXT] "Edon-R hash algorithm.";
    USEROBJ_ACCOUNTING "userobj_accounting" "org.zfsonlinux:userobj_accounting" "rd" [EXT] "User/Group object accounting.";
    ENCRYPTION "encryption" "com.datto:encryption" "d" [EXT, "com.datto:bookmark_v2"] "Support for dataset level encryption";
    PROJECT_QUOTA "project_quota" "org.zfsonlinux:project_quota" "rd" [EXT] "space/object accounting based on project ID.";
    DEVICE_REMOVAL "device_removal" "com.delphix:device_removal" "m" [] "Top-level vdevs can be removed, reducing logical pool size.";
    OBSOLETE_COUNTS "obsolete_counts" "com.delphix:obsolete_counts" "r" [EXT, "com.delphix:device_removal"] "Reduce memory used by removed devices when their blocks are freed or remapped.";
    POOL_CHECKPOINT "zpool_checkpoint" "com.delphix:zpool_checkpoint" "r" [] "Pool state can be checkpointed, allowing rewind later.";
    SPACEMAP_V2 "spacemap_v2" "com.delphix:spacemap_v2" "ra" [] "Space maps representing large segments are more efficient.";
    ALLOCATION_CLASSES "allocation_classes" "org.zfsonlinux:allocation_classes" "r" [] "Support for separate allocation classes.";
    RESILVER_DEFER "resilver_defer" "com.datto:resilver_defer" "r" [] "Support for deferring new resilvers when one is already running.";
    BOOKMARK_V2 "bookmark_v2" "com.datto:bookmark_v2" "" [EXT, "com.delphix:bookmarks"] "Support for larger bookmarks";
    REDACTION_BOOKMARKS "redaction_bookmarks" "com.delphix:redaction_bookmarks" "" ["com.datto:bookmark_v2", EXT, "com.delphix:bookmarks"] "Support for bookmarks which store redaction lists for zfs redacted send/recv.";
    REDACTED_DATASETS "redacted_datasets" "com.delphix:redacted_datasets" "d" [EXT] "Support for redacted datasets, produced by receiving a redacted zfs send stream.";
    BOOKMARK_WRITTEN "bookmark_written" "com.delphix:bookmark_written" "" ["com.datto:bookmark_v2", EXT, "com.delphix:bookmarks"] "Additional accounting, enabling the written#<bookmark> property (space written since a bookmark), and estimates of send stream sizes for incrementals from bookmarks.";
    LOG_SPACEMAP "log_spacemap" "com.delphix:log_spacemap" "r" ["com.delphix:spacemap_v2"] "Log metaslab changes on a single spacemap and flush them periodically.";
    LIVELIST "livelist" "com.delphix:livelist" "r" [EXT] "Improved clone deletion performance.";
    DEVICE_REBUILD "device_rebuild" "org.openzfs:device_rebuild" "r" [] "Support for sequential mirror/dRAID device rebuilds";
    ZSTD_COMPRESS "zstd_compress" "org.freebsd:zstd_compress" "d" [EXT] "zstd compression algorithm support.";
    DRAID "draid" "org.openzfs:draid" "m" [] "Support for distributed spare RAID";
    ZILSAXATTR "zilsaxattr" "org.openzfs:zilsaxattr" "rd" [EXT] "Support for xattr=sa extended attribute logging in ZIL.";
    HEAD_ERRLOG "head_errlog" "com.delphix:head_errlog" "a" [] "Support for per-dataset on-disk error logs.";
    BLAKE3 "blake3" "org.openzfs:blake3" "d" [EXT] "BLAKE3 hash algorithm.";
    BLOCK_CLONING "block_cloning" "com.fudosecurity:block_cloning" "r" [] "Support for block cloning via Block Reference Table.";
    AVZ_V2 "vdev_zaps_v2" "com.klarasystems:vdev_zaps_v2" "m" [] "Support for root vdev ZAP.";
    REDACTION_LIST_SPILL "redaction_list_spill" "com.delphix:redaction_list_spill" "" ["com.delphix:redaction_bookmarks"] "Support for increased number of redaction_snapshot arguments in zfs redact.";
    RAIDZ_EXPANSION "raidz_expansion" "org.openzfs:raidz_expansion" "m" [] "Support for raidz expansion";
    FAST_DEDUP "fast_dedup" "com.klarasystems:fast_dedup" "r" [] "Support for advanced deduplication";
    LONGNAME "longname" "org.zfsonlinux:longname" "d" [EXT] "support filename up to 1024 bytes";
    LARGE_MICROZAP "large_microzap" "com.klarasystems:large_microzap" "rd" [EXT, "org.open-zfs:large_blocks"] "Support for microzaps larger than 128KB.";
    DYNAMIC_GANG_HEADER "dynamic_gang_header" "com.klarasystems:dynamic_gang_header" "m" [] "Support for dynamically sized gang headers";
    BLOCK_CLONING_ENDIAN "block_cloning_endian" "com.truenas:block_cloning_endian" "r" [] "Fixes BRT ZAP endianness on new pools.";
    PHYSICAL_REWRITE "physical_rewrite" "com.truenas:physical_rewrite" "rd" [EXT] "Support for preserving logical birth time during rewrite.";
}

impl Feature {
    /// The feature with this on-disk name.
    #[must_use]
    pub fn by_guid(guid: &str) -> Option<Feature> {
        Self::ALL.iter().find(|f| f.guid == guid).copied()
    }
    /// The feature with this short name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Feature> {
        Self::ALL.iter().find(|f| f.name == name).copied()
    }
    /// The features that count per dataset.
    pub fn per_dataset() -> impl Iterator<Item = Feature> {
        Self::ALL.iter().filter(|f| f.per_dataset).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_name_known_features() {
        for f in Feature::ALL {
            for d in f.depends {
                assert!(Feature::by_guid(d).is_some(), "{} depends on {d}", f.name);
            }
        }
    }
}
