//! Reading all of a pool that OpenZFS made, and finding such pools.

use crate::support::{env, host};
use icecore_dmu::{BlockStore, Objset, Want};
use icecore_env::Device;
use icecore_format::{Blkptr, Bookmark, ObjectId, ObjectType};
use icecore_pool::{Mode, OpenSpec, Pool, PoolError};
use icecore_transform::checksum::verify;
use std::path::PathBuf;
use std::sync::Arc;

/// The images of a pool made by OpenZFS; none, having said so, where there are none to look at.
pub fn zoo(names: &[&str]) -> Option<Vec<PathBuf>> {
    names.iter().map(|n| icecore_check::fixture::zoo(&format!("{n}.img"))).collect()
}

/// Opens the pool on some files.
pub fn open(files: &[PathBuf], mode: Mode) -> Result<Pool, PoolError> {
    let found = icecore_vdev::probe::probe(files, &*env(1).workers);
    let devices: Vec<Arc<dyn Device>> = found.candidates.into_iter().map(|c| c.device).collect();
    let spec = OpenSpec { devices, pool: None, mode, force: true, host: host(), max_txg: None };
    Pool::open(env(1), spec)
}

/// Every block of the MOS; objects and blocks.
pub fn read_mos(pool: &Pool) -> (u64, u64) {
    let (mos, io): (_, &dyn BlockStore) = (&pool.dsl.mos, pool.io());
    let (mut objects, mut blocks) = (0, 0);
    let mut at = ObjectId(0);
    while let Some(object) = mos.next_object(io, at).unwrap() {
        at = object;
        objects += 1;
        blocks += read_object(pool.name(), pool, mos, object);
    }
    (objects, blocks)
}

/// Every block of every dataset, in logical form where no key is needed; datasets and blocks.
pub fn read_datasets(name: &str, pool: &Pool) -> (u64, u64) {
    let (mos, io): (_, &dyn BlockStore) = (&pool.dsl.mos, pool.io());
    let (mut datasets, mut blocks) = (0, 0);
    let mut at = ObjectId(0);
    while let Some(object) = mos.next_object(io, at).unwrap() {
        at = object;
        let dn = mos.dnode(io, object).unwrap();
        if dn.bonus_type() != ObjectType::DSL_DATASET {
            continue;
        }
        let ds = pool.dsl.dataset(io, object.0).unwrap();
        if ds.bp.is_hole() {
            continue;
        }
        let want = if ds.bp.uses_crypt() { Want::NoKey } else { Want::Logical };
        let os = Objset::open(io, object.0, &ds.bp, want).unwrap_or_else(|e| panic!("{name}: {e}"));
        datasets += 1;
        let mut at = ObjectId(0);
        while let Some(id) = os.next_object(io, at).unwrap_or_else(|e| panic!("{name}: {e}")) {
            at = id;
            blocks += read_object(name, pool, &os, id);
        }
    }
    (datasets, blocks)
}

fn read_object(name: &str, pool: &Pool, os: &Objset, id: ObjectId) -> u64 {
    let io: &dyn BlockStore = pool.io();
    let dn = os.dnode(io, id).unwrap();
    let mut blocks = 0;
    // sparse files have more block numbers than blocks
    for blkid in (0..=dn.maxblkid()).take(4000) {
        let bp = os.blkptr(io, id, &dn, 0, blkid).unwrap_or_else(|e| panic!("{name} {id} {blkid}: {e}"));
        if bp.is_hole() || bp.is_redacted() {
            continue;
        }
        let at = Bookmark { objset: os.id(), object: id, level: 0, blkid };
        let want = if bp.is_encrypted() { Want::Stored } else { os.want() };
        let data = io.read(&bp, &at, want).unwrap_or_else(|e| panic!("{name}: {e}"));
        let expected = if want == Want::Stored { bp.psize() } else { bp.lsize() };
        assert_eq!(data.len() as u64, expected);
        read_every_copy(name, pool, &bp);
        blocks += 1;
    }
    blocks
}

/// A block is read from its first good copy; here each must be good.
fn read_every_copy(name: &str, pool: &Pool, bp: &Blkptr) {
    let salt = pool.io().salt();
    for dva in bp.dvas().iter().filter(|d| !d.is_gang()) {
        let good = &mut |b: &[u8]| verify(bp, b, Some(salt)).is_ok();
        let read = pool.io().vdevs().read(dva, bp.psize(), good);
        read.unwrap_or_else(|e| panic!("{name}: copy {dva:?} of {bp:?}: {e}"));
    }
}
