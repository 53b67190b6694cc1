//! Reading where the contents of removed vdevs went.
//!
//! Facts: `spa_remove_init` (vdev_removal.c): everything read before it lies on vdevs that were not removed; a
//! mapping may lie on a vdev that was removed later, so the last removed comes first. The object's layout is
//! `vdev_indirect_mapping_open` (vdev_indirect_mapping.c).
//!
//! Invariants:
//! 1. Memory is bounded by what the objects really hold: a hole in one is damage.
//! 2. Each vdev's mapping is read once, however the list of removals runs.

use super::DIRECTORY;
use crate::error::Result;
use crate::io::Io;
use icecore_dmu::{Objset, zap};
use icecore_format::indirect::{MappingEntryPhys, MappingPhys};
use icecore_format::{Corrupt, ObjectId};
use icecore_vdev::indirect::Mapping;
use icecore_vdev::{VdevConfig, VdevKind, VdevSet};
use std::collections::BTreeMap;
use std::sync::Arc;
use zerocopy::FromBytes;

/// Index of `sr_prev_indirect_vdev` in the pool's state of removals (`spa_removing_phys_t`).
const LAST_REMOVED: usize = 2;
/// Entries read at a time.
const BATCH: u64 = 1 << 15;

/// The mappings of a pool, by number of the removed vdev.
#[derive(Default)]
pub(super) struct Mappings(BTreeMap<u64, Arc<Mapping>>);

impl Mappings {
    /// Gives them to a tree.
    pub fn install(&self, vdevs: &VdevSet) -> Result<()> {
        for (vdev, mapping) in &self.0 {
            vdevs.set_mapping(*vdev, mapping.clone())?;
        }
        Ok(())
    }
}

/// Reads all mappings, giving each to `io`'s tree at once: the next may lie behind it.
pub(super) fn load(mos: &Objset, io: &Io, tree: &VdevConfig) -> Result<Mappings> {
    let mut all = Mappings::default();
    for (vdev, object) in in_order(mos, io, tree)? {
        let mapping = Arc::new(read(mos, io, object)?);
        io.vdevs.set_mapping(vdev, mapping.clone())?;
        all.0.insert(vdev, mapping);
    }
    Ok(all)
}

/// Removed vdevs and their mapping objects, the last removed first.
fn in_order(mos: &Objset, io: &Io, tree: &VdevConfig) -> Result<Vec<(u64, ObjectId)>> {
    let removed = (0..).zip(&tree.children).filter(|(_, c)| c.kind == VdevKind::Indirect);
    let mut removed: BTreeMap<u64, &VdevConfig> = removed.collect();
    if removed.is_empty() {
        return Ok(Vec::new());
    }
    let object = |c: &VdevConfig| {
        let object = c.indirect_object.filter(|o| *o != 0);
        object.map(ObjectId).ok_or_else(|| Corrupt::new("vdev config", format!("{} has no mapping", c.guid)))
    };
    let mut order = Vec::new();
    let mut next = match zap::lookup(mos, io, DIRECTORY, "com.delphix:removing")? {
        Some(zap::ZapValue::U64(state)) => state.get(LAST_REMOVED).copied(),
        _ => None,
    };
    while let Some(vdev) = next
        && let Some(config) = removed.remove(&vdev)
    {
        order.push((vdev, object(config)?));
        next = config.prev_indirect_vdev;
    }
    for (vdev, config) in removed.into_iter().rev() {
        order.push((vdev, object(config)?));
    }
    Ok(order)
}

fn read(mos: &Objset, io: &Io, object: ObjectId) -> Result<Mapping> {
    const SIZE: u64 = size_of::<MappingEntryPhys>() as u64;
    let phys = MappingPhys::parse(&mos.bonus(io, object)?)?;
    let count = phys.num_entries.get();
    if count.checked_mul(SIZE).is_none() {
        return Err(Corrupt::new("indirect mapping", format!("{count} entries")).into());
    }
    let mut mapping = Mapping::default();
    let mut done = 0;
    while done < count {
        let batch = BATCH.min(count - done);
        let bytes = mos.read(io, object, done * SIZE, (batch * SIZE) as usize)?;
        let entries = <[MappingEntryPhys]>::ref_from_bytes(&bytes);
        let entries = entries.map_err(|_| Corrupt::new("indirect mapping", "entries are cut short"))?;
        if entries.len() as u64 != batch {
            return Err(Corrupt::new("indirect mapping", "entries are missing").into());
        }
        mapping.extend(entries)?;
        done += batch;
    }
    Ok(mapping)
}
