//! Faults of older OpenZFS that a pool carries on: told, not mended.
//!
//! Facts: `zpool_errata_t` (sys/fs/zfs.h); encryption without `bookmark_v2` is errata 4 (`spa_ld_check_features`, spa.c);
//! a stored key without a version is errata 3 (`dsl_dir_hold_obj`, dsl_dir.c), which outdoes 4.

use crate::pool::Pool;
use icecore_dsl::Feature;

impl Pool {
    /// The number of the errata that OpenZFS would tell of this pool. What of it cannot be read tells of none.
    #[must_use]
    pub fn errata(&self) -> Option<u64> {
        let (io, dsl) = (&self.io, &self.dsl);
        let enabled = |f: Feature| dsl.feature_enabled(io, f).unwrap_or(false);
        if !enabled(Feature::ENCRYPTION) {
            return None;
        }
        let old_key = |name: &String| {
            let dir = dsl.lookup_dir(io, name).ok()?;
            Some(dsl.key_object(io, dir).ok()??.version == 0)
        };
        let names = dsl.descendants(io, self.name()).unwrap_or_default();
        if names.iter().any(|name| old_key(name) == Some(true)) {
            return Some(3);
        }
        (!enabled(Feature::BOOKMARK_V2)).then_some(4)
    }
}
