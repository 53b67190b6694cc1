//! Whether we may write to a pool: every reason against it, in words.
//!
//! The rule behind each: whatever a change of ours would have to keep up and we do not keep up, forbids it.

use super::{DIRECTORY, Opened};
use crate::error::Result;
use crate::features::{self, Support};
use icecore_dmu::{ReadError, zap};
use icecore_format::ObjectId;
use icecore_vdev::{Leaf, VdevConfig, VdevKind};

/// Why the pool cannot be written to; empty if it can.
pub(super) fn reasons_against(pool: &Opened) -> Result<Vec<String>> {
    let mut why = Vec::new();
    if pool.uberblock.version.get() != icecore_format::uberblock::VERSION_FEATURES {
        why.push(format!("pool version {} has no feature flags", pool.uberblock.version.get()));
        return Ok(why);
    }
    features_against(pool, &mut why);
    vdevs_against(pool, &mut why)?;
    if pool.uberblock.checkpoint_txg.get() != 0 || pool.entry("com.delphix:zpool_checkpoint") != 0 {
        why.push("the pool has a checkpoint".into());
    }
    if pool.uberblock.mmp_active() {
        why.push("multihost is on: another system may have the pool open".into());
    }
    for (name, object) in &pool.directory {
        let table = name.starts_with("DDT-") && name != "DDT-statistics";
        if table && zap::count(&pool.mos, &pool.io, ObjectId(*object)).is_ok_and(|n| n > 0) {
            why.push(format!("the pool has deduplicated blocks ({name})"));
        }
    }
    for (entry, what) in [
        ("com.delphix:removing", "a device is being removed"),
        ("com.delphix:condensing_indirect", "an indirect vdev is being condensed"),
    ] {
        if pool.directory.contains_key(entry) {
            why.push(what.into());
        }
    }
    if let Some(zap::ZapValue::U64(scan)) = zap::lookup(&pool.mos, &pool.io, DIRECTORY, "scan")?
        && scan.get(1) == Some(&1)
        && scan.first() != Some(&crate::scan::phys::SCRUB)
    {
        why.push("a resilver is under way".into());
    }
    Ok(why)
}

fn features_against(pool: &Opened, why: &mut Vec<String>) {
    for guid in features::NEEDED.iter().filter(|guid| !pool.features.contains_key(**guid)) {
        why.push(format!("feature {} is not enabled", features::title(guid)));
    }
    for (guid, count) in &pool.features {
        if *count > 0 && features::support(guid) != Support::Write {
            why.push(format!("feature {} is active", features::title(guid)));
        }
    }
}

fn vdevs_against(pool: &Opened, why: &mut Vec<String>) -> Result<()> {
    for leaf in pool.io.vdevs.leaves() {
        if leaf.device().is_some_and(|d| d.read_only()) {
            why.push(format!("device {} is opened read-only", leaf.name()));
        }
    }
    let Some(tree) = &pool.config.vdev_tree else { return Ok(()) };
    for top in &tree.children {
        let id = top.id.unwrap_or(0);
        match &top.kind {
            VdevKind::Disk | VdevKind::File | VdevKind::Hole => {}
            VdevKind::Mirror if top.children.iter().all(|c| c.kind.is_leaf()) => {}
            other => why.push(format!("vdev {id} is of kind {other}, which we do not write yet")),
        }
        let sound = |l: &&Leaf| l.device().is_some() && !pool.stale.contains_key(&l.guid);
        let sound = pool.io.vdevs.leaves().iter().filter(|l| top.find(l.guid).is_some()).filter(sound);
        if top.kind != VdevKind::Hole && sound.count() == 0 {
            why.push(format!("no device of vdev {id} is whole: a resilver is needed"));
        }
        if top.holds_log() {
            why.push(format!("vdev {id} is a separate intent log"));
        }
        if top.removing.unwrap_or(0) != 0 {
            why.push(format!("vdev {id} is being removed"));
        }
        if bias(pool, top)?.is_some() {
            why.push(format!("vdev {id} is reserved for a special class"));
        }
    }
    Ok(())
}

/// What a top-level vdev is reserved for (`vdev_load`, vdev.c): `special` or `dedup`; or `log`.
pub(super) fn bias(pool: &Opened, top: &VdevConfig) -> Result<Option<String>, ReadError> {
    let Some(object) = top.vdev_zap_top.filter(|o| *o != 0) else { return Ok(None) };
    let key = "org.zfsonlinux:allocation_bias";
    Ok(match zap::lookup(&pool.mos, &pool.io, ObjectId(object), key)? {
        Some(zap::ZapValue::U8(name)) => {
            Some(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned())
        }
        Some(_) => Some("unknown".into()),
        None => None,
    })
}
