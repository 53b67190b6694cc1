//! What we can do with a pool by its feature flags: read it, write it, and which flags new pools get.
//!
//! A flag in `features_for_read` with a count must be understood by readers, any flag with a count by
//! writers (`spa_features_check`, zfeature.c).

use icecore_dsl::Feature;

/// What we can do with a pool in which a feature is active.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Support {
    /// Nothing.
    No,
    /// Read it.
    Read,
    /// Read and write it.
    Write,
}

/// Whether new pools get the feature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewPools {
    /// Enabled.
    Yes,
    /// Left out: once OpenZFS used it we could not write to the pool any more, or it makes no sense here.
    No,
}

use NewPools::{No as Not, Yes};
use Support::{No, Read, Write};

/// One row for each feature OpenZFS knows.
const TABLE: &[(Feature, Support, NewPools)] = &[
    (Feature::ASYNC_DESTROY, Write, Yes),
    (Feature::EMPTY_BPOBJ, Write, Yes),
    (Feature::LZ4_COMPRESS, Write, Yes),
    (Feature::MULTI_VDEV_CRASH_DUMP, Read, Not),
    (Feature::SPACEMAP_HISTOGRAM, Write, Yes),
    (Feature::ENABLED_TXG, Write, Yes),
    (Feature::HOLE_BIRTH, Write, Yes),
    (Feature::POOL_CHECKPOINT, Read, Not),
    (Feature::SPACEMAP_V2, Write, Yes),
    (Feature::EXTENSIBLE_DATASET, Write, Yes),
    (Feature::BOOKMARKS, Write, Yes),
    (Feature::FS_SS_LIMIT, Write, Yes),
    (Feature::EMBEDDED_DATA, Write, Yes),
    (Feature::LIVELIST, Write, Not),
    (Feature::LOG_SPACEMAP, Write, Yes),
    (Feature::LARGE_BLOCKS, Write, Yes),
    (Feature::LARGE_DNODE, Write, Yes),
    (Feature::SHA512, Write, Yes),
    (Feature::SKEIN, Write, Yes),
    (Feature::EDONR, Write, Yes),
    (Feature::REDACTION_BOOKMARKS, Write, Yes),
    (Feature::REDACTED_DATASETS, Write, Yes),
    (Feature::BOOKMARK_WRITTEN, Write, Yes),
    (Feature::DEVICE_REMOVAL, Read, Not),
    (Feature::OBSOLETE_COUNTS, Read, Not),
    (Feature::USEROBJ_ACCOUNTING, Write, Yes),
    (Feature::BOOKMARK_V2, Write, Yes),
    (Feature::ENCRYPTION, Write, Yes),
    (Feature::PROJECT_QUOTA, Write, Yes),
    (Feature::ALLOCATION_CLASSES, Read, Not),
    (Feature::RESILVER_DEFER, Read, Yes),
    (Feature::DEVICE_REBUILD, Write, Yes),
    (Feature::ZSTD_COMPRESS, Write, Yes),
    (Feature::DRAID, Read, Not),
    (Feature::ZILSAXATTR, Write, Yes),
    (Feature::HEAD_ERRLOG, Write, Yes),
    (Feature::BLAKE3, Write, Yes),
    (Feature::BLOCK_CLONING, Read, Not),
    (Feature::AVZ_V2, Write, Yes),
    (Feature::REDACTION_LIST_SPILL, Write, Yes),
    (Feature::RAIDZ_EXPANSION, Read, Not),
    (Feature::FAST_DEDUP, Read, Not),
    (Feature::LONGNAME, Write, Yes),
    (Feature::LARGE_MICROZAP, Write, Yes),
    (Feature::DYNAMIC_GANG_HEADER, No, Not),
    (Feature::BLOCK_CLONING_ENDIAN, Read, Not),
    (Feature::PHYSICAL_REWRITE, Write, Not),
];

/// Features that all we write relies on.
pub(crate) const NEEDED: [&str; 5] = [
    "org.illumos:lz4_compress",
    "com.delphix:spacemap_histogram",
    "com.delphix:extensible_dataset",
    "com.delphix:empty_bpobj",
    "com.delphix:hole_birth",
];

/// What we can do with a pool in which the feature of this on-disk name is active.
#[must_use]
pub fn support(guid: &str) -> Support {
    TABLE.iter().find(|(f, ..)| f.guid == guid).map_or(No, |(_, s, _)| *s)
}

/// The features of new pools, in OpenZFS's order.
pub fn of_new_pools() -> impl Iterator<Item = Feature> {
    TABLE.iter().filter(|(.., new)| *new == Yes).map(|(f, ..)| *f)
}

/// What a new pool gets where nothing is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsaid {
    /// All that new pools have.
    Enabled,
    /// Nothing but what the features asked for depend on (`zpool create -d`).
    Disabled,
}

/// The features of a new pool for which some are asked for or not wanted, by short name (`feature@NAME=enabled` or
/// `disabled`). The error says which cannot be had, and why.
pub fn chosen(asked: &[(String, bool)], unsaid: Unsaid) -> Result<Vec<Feature>, String> {
    let mut out: Vec<Feature> = match unsaid {
        Unsaid::Enabled => of_new_pools().collect(),
        Unsaid::Disabled => Vec::new(),
    };
    for (name, wanted) in asked {
        let Some(&(feature, support, _)) = TABLE.iter().find(|(f, ..)| f.name == name) else {
            return Err(format!("feature '{name}' unsupported by kernel"));
        };
        match (wanted, support) {
            (true, Write) => out.push(feature),
            (true, _) => {
                return Err(format!(
                    "feature@{name} cannot be enabled: once it is used the pool could not be written to here any more"
                ));
            }
            (false, _) if NEEDED.contains(&feature.guid) => {
                return Err(format!(
                    "feature@{name} cannot be disabled: pools without it cannot be written to here"
                ));
            }
            (false, _) => out.retain(|f| f.guid != feature.guid),
        }
    }
    if unsaid == Unsaid::Disabled {
        // With what they depend on, and what that depends on (feature_enable_sync in zfeature.c).
        let mut at = 0;
        while let Some(feature) = out.get(at).copied() {
            let depends = feature.depends.iter().filter_map(|d| Feature::by_guid(d));
            let unwanted = |f: &Feature| asked.iter().any(|(name, wanted)| !wanted && name == f.name);
            let more: Vec<Feature> = depends.filter(|f| !out.contains(f) && !unwanted(f)).collect();
            out.extend(more);
            at += 1;
        }
    }
    let lacking: Vec<&str> = NEEDED
        .iter()
        .filter(|guid| out.iter().all(|f| f.guid != **guid))
        .filter_map(|guid| Feature::by_guid(guid).map(|f| f.name))
        .collect();
    if !lacking.is_empty() {
        return Err(format!(
            "pools without {} cannot be written to here: with -d, enable them by '-o feature@NAME=enabled'",
            lacking.join(", ")
        ));
    }
    // In the table's order, each once.
    let all: Vec<Feature> =
        TABLE.iter().map(|(f, ..)| *f).filter(|f| out.iter().any(|o| o.guid == f.guid)).collect();
    for f in &all {
        if let Some(lacks) = f.depends.iter().find(|d| all.iter().all(|o| o.guid != **d)) {
            return Err(format!(
                "feature@{} needs {}, which is disabled: disable both",
                f.name,
                title(lacks)
            ));
        }
    }
    Ok(all)
}

/// A feature's name for people: the short one if known.
#[must_use]
pub fn title(guid: &str) -> String {
    Feature::by_guid(guid).map_or_else(|| guid.to_owned(), |f| format!("{} ({guid})", f.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_feature_has_a_row() {
        for f in Feature::ALL {
            assert_eq!(TABLE.iter().filter(|(t, ..)| t == f).count(), 1, "{}", f.name);
        }
        assert_eq!(support("com.example:new"), No);
    }

    #[test]
    fn choices_that_cannot_be_are_refused_with_the_reason() {
        let ask = |name: &str, on: bool| chosen(&[(name.into(), on)], Unsaid::Enabled);
        assert_eq!(chosen(&[], Unsaid::Enabled).unwrap(), of_new_pools().collect::<Vec<_>>());
        assert!(ask("draid", true).unwrap_err().contains("could not be written"));
        assert!(ask("lz4_compress", false).unwrap_err().contains("cannot be disabled"));
        assert!(ask("bookmark_v2", false).unwrap_err().contains("needs bookmark_v2"));
        assert!(ask("lz5", true).unwrap_err().contains("feature 'lz5' unsupported by kernel"));
        let less = ask("large_microzap", false).unwrap();
        assert_eq!(less.len() + 1, of_new_pools().count());
        assert!(ask("livelist", true).unwrap().contains(&Feature::LIVELIST));
        assert!(chosen(&[], Unsaid::Disabled).unwrap_err().contains("hole_birth"));
        let needed: Vec<_> = NEEDED
            .iter()
            .map(|guid| (Feature::by_guid(guid).unwrap().name.to_string(), true))
            .chain([("encryption".to_string(), true)])
            .collect();
        let bare = chosen(&needed, Unsaid::Disabled).unwrap();
        assert!(bare.contains(&Feature::ENABLED_TXG) && bare.contains(&Feature::BOOKMARK_V2), "{bare:?}");
        assert!(!bare.contains(&Feature::LARGE_BLOCKS), "{bare:?}");
    }

    #[test]
    fn new_pools_get_only_what_we_can_write() {
        for f in of_new_pools() {
            let depends = f.depends.iter().all(|d| of_new_pools().any(|n| n.guid == *d));
            assert!(depends, "{} depends on a feature left out", f.name);
        }
    }
}
