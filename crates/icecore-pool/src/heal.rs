//! Fetches a lost block from another pool that has the same snapshot.
//!
//! A backup made by send and receive has the same objects and blocks under the same guids, on other devices. What it
//! gives is believed only if it is, byte for byte, what our own pointer's checksum (and with it the MAC of an encrypted
//! block) stands for; so a source that is wrong, old or hostile can do no harm.
//!
//! Invariants:
//! 1. Nothing is written but the very bytes that were lost, in their own places.
//! 2. Only data and spill blocks can be fetched: metadata holds addresses, which differ from pool to pool.

use crate::pool::Pool;
use crate::scrub::Damage;
use crate::walk::datasets;
use icecore_dmu::{BlockStore, Want};
use icecore_dsl::DatasetRef;
use icecore_format::{Blkptr, Bookmark, Compress, ObjectId};
use icecore_transform::compress::compress;
use std::collections::BTreeMap;

/// Snapshots that are followed to find one that the source has.
const CHAIN_MAX: usize = 100_000;
/// Levels of Zstandard there are; which one made a lost block is not known.
const ZSTD_LEVELS: std::ops::RangeInclusive<u8> = 1..=19;

/// The snapshots of a pool by guid.
pub struct Source<'a> {
    pool: &'a Pool,
    snapshots: BTreeMap<u64, u64>,
}

impl<'a> Source<'a> {
    /// Lists what `pool` has.
    #[must_use]
    pub fn new(pool: &'a Pool) -> Self {
        let all = datasets(&pool.dsl, &pool.io).into_iter();
        let snapshots =
            all.filter(|(_, ds)| ds.is_snapshot()).map(|(object, ds)| (ds.guid, object)).collect();
        Self { pool, snapshots }
    }

    /// All forms in which the source has what belongs at `at` of the snapshot `guid`, likely ones first.
    fn forms(&self, guid: u64, at: &Bookmark, lost: &Blkptr) -> Option<Vec<Vec<u8>>> {
        let objset = *self.snapshots.get(&guid)?;
        let io = self.pool.io();
        let bp = pointer(self.pool, objset, at).filter(|bp| !bp.is_hole())?;
        let here = Bookmark { objset, ..*at };
        let mut out = Vec::new();
        if let Ok(stored) = io.read(&bp, &here, Want::Stored) {
            out.push(stored.to_vec());
        }
        if lost.uses_crypt() || bp.uses_crypt() {
            return Some(out);
        }
        let Ok(logical) = io.read(&bp, &here, Want::Logical) else { return Some(out) };
        let psize = usize::try_from(lost.psize()).ok()?;
        let pack = |level: u8| {
            let mut packed = compress(lost.compress(), level, &logical, psize)?;
            packed.resize(psize, 0);
            Some(packed)
        };
        match lost.compress() {
            Compress::OFF => out.push(logical.to_vec()),
            Compress::ZSTD => out.extend(ZSTD_LEVELS.filter_map(pack)),
            _ => out.extend(pack(0)),
        }
        Some(out)
    }
}

/// The pointer at a place of an objset, the MOS being 0; `None` where what leads to it cannot be read, and for the blocks in which
/// an objset keeps its objects.
pub(crate) fn pointer(pool: &Pool, objset: u64, at: &Bookmark) -> Option<Blkptr> {
    let io = pool.io();
    let opened;
    let os = match objset {
        0 => &pool.dsl.mos,
        _ => {
            opened = pool.dsl.objset(io, objset, Want::NoKey).ok()?;
            &opened
        }
    };
    let dn = os.dnode(io, at.object).ok()?;
    if at.blkid == Bookmark::SPILL {
        return dn.spill();
    }
    os.blkptr(io, at.object, &dn, u8::try_from(at.level).ok()?, at.blkid).ok()
}

/// Tries to put back what was lost; true if the block is whole again. Durable after [`crate::Io::flush_repairs`].
pub fn heal(pool: &mut Pool, source: &Source<'_>, damage: &Damage) -> bool {
    let at = damage.at;
    if at.objset == 0 || at.level != 0 || at.object == ObjectId(0) {
        return false;
    }
    let mut ds_obj = at.objset;
    for _ in 0..CHAIN_MAX {
        let Ok(ds) = pool.dsl.dataset(pool.io(), ds_obj) else { return false };
        let same = pointer(pool, ds_obj, &at)
            .is_some_and(|bp| bp.dvas() == damage.bp.dvas() && bp.birth() == damage.bp.birth());
        if !same {
            return false;
        }
        for form in source.forms(ds.guid, &at, &damage.bp).unwrap_or_default() {
            if form.len() as u64 == damage.bp.psize() && pool.io_mut().heal(&damage.bp, &form).is_ok() {
                return true;
            }
        }
        if ds.next_snap_obj == 0 {
            return false;
        }
        ds_obj = ds.next_snap_obj;
    }
    false
}

/// The name of the dataset that a place belongs to; `<metadata>` for the pool's own, as OpenZFS says.
#[must_use]
pub fn dataset_name(pool: &Pool, objset: u64) -> String {
    if objset == 0 {
        return "<metadata>".into();
    }
    let name = pool.dsl.by_object(pool.io(), objset).and_then(|r: DatasetRef| pool.dsl.name(pool.io(), r));
    name.unwrap_or_else(|_| format!("<{objset:#x}>"))
}
