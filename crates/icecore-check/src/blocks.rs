//! Which blocks a listing of a pool has to read: for a yardstick that reads the same ones and does nothing else.

use crate::zoo::open;
use icecore_dmu::{BlockStore, ReadError, Want};
use icecore_dsl::{Chance, DatasetRef, Dsl, Kind, PoolInfo};
use icecore_format::{Blkptr, Bookmark, Txg};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Seen {
    places: BTreeSet<[u64; 2]>,
    blocks: Vec<Blkptr>,
}

/// Passes reads on and remembers them, each block once.
struct Recorder<'a> {
    inner: &'a dyn BlockStore,
    seen: Mutex<Seen>,
}

impl BlockStore for Recorder<'_> {
    fn read(&self, bp: &Blkptr, at: &Bookmark, want: Want) -> Result<Arc<[u8]>, ReadError> {
        let first = bp.dvas().first().filter(|_| !bp.is_embedded());
        if let (Some(dva), Ok(mut seen)) = (first, self.seen.lock())
            && seen.places.insert(dva.words())
        {
            seen.blocks.push(*bp);
        }
        self.inner.read(bp, at, want)
    }
    fn txg(&self) -> Txg {
        self.inner.txg()
    }
    fn hole_birth(&self) -> bool {
        self.inner.hole_birth()
    }
}

struct NoChance;

impl Chance for NoChance {
    fn now(&mut self) -> (u64, u32) {
        (0, 0)
    }
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(0);
    }
}

/// The blocks behind `zfs list -t snapshot` of the exported pool in one file, in the order in which they are met.
///
/// # Errors
/// The pool cannot be opened or read.
pub fn of_snapshot_list(image: &Path) -> Result<Vec<Blkptr>, String> {
    let pool = open(&[image.to_path_buf()])?;
    let io: &dyn BlockStore = pool.io();
    let recorder = Recorder { inner: io, seen: Mutex::default() };
    let info = PoolInfo { name: pool.name().into(), version: 5000, usable: 1 << 30, at_once: 1 << 23 };
    let text = |e: icecore_dsl::DslError| e.to_string();
    let dsl = Dsl::open(&recorder, &pool.uberblock().rootbp, info, Box::new(NoChance)).map_err(text)?;
    let names = dsl.descendants(&recorder, pool.name()).map_err(text)?;
    let heads: Vec<DatasetRef> =
        names.iter().map(|name| dsl.lookup_head(&recorder, name)).collect::<Result<_, _>>().map_err(text)?;
    dsl.kinds(&recorder, &heads).into_iter().collect::<Result<Vec<_>, _>>().map_err(text)?;
    let heads: Vec<(DatasetRef, Kind)> = heads.into_iter().map(|head| (head, Kind::Snapshot)).collect();
    for (snapshots, name) in dsl.snapshots_known(&recorder, &heads).zip(names) {
        let asking = dsl.asking(&recorder, &["used", "referenced"]);
        for (snap, known) in snapshots.map_err(text)? {
            asking.rows(&format!("{name}@{snap}"), Some(&known)).map_err(text)?;
        }
    }
    Ok(recorder.seen.into_inner().map_err(|e| e.to_string())?.blocks)
}
