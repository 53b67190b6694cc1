//! What a send reads, and what it tells beforehand.

use crate::support::*;
use icecore_dmu::{BlockStore, ReadError, Want};
use icecore_format::nvlist::NvList;
use icecore_format::stream::{Record, feature};
use icecore_format::{Blkptr, Bookmark, Txg};
use icecore_stream::send::{Packing, SendSpec, exact_size, resolve, send_one};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what is asked for.
struct Counting<'a> {
    store: &'a dyn BlockStore,
    blocks: AtomicU64,
    bytes: AtomicU64,
}
impl BlockStore for Counting<'_> {
    fn read(&self, bp: &Blkptr, at: &Bookmark, want: Want) -> Result<Arc<[u8]>, ReadError> {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bp.psize(), Ordering::Relaxed);
        self.store.read(bp, at, want)
    }
    fn txg(&self) -> Txg {
        self.store.txg()
    }
    fn hole_birth(&self) -> bool {
        self.store.hole_birth()
    }
}

fn cost(spec: &SendSpec) -> (u64, u64) {
    let pool = main_pool();
    let source = resolve(pool.io(), &pool.dsl, spec).unwrap();
    let store = Counting { store: pool.io(), blocks: AtomicU64::new(0), bytes: AtomicU64::new(0) };
    send_one(&store, &source, spec.flags, Packing::Native, &mut std::io::sink(), &mut |_| {}).unwrap();
    (store.blocks.into_inner(), store.bytes.into_inner())
}

#[test]
fn an_increment_costs_the_difference() {
    let to = "main/encrypted/docs@newsnapshot";
    let full = cost(&spec(None, to, RAW));
    let increment = cost(&spec(Some("main/encrypted/docs#kept"), to, RAW));
    assert!(increment.0 * 4 < full.0 && increment.1 * 4 < full.1, "{increment:?} of {full:?}");
}

#[test]
fn a_resumed_stream_is_the_rest_and_its_dry_run_is_exact() {
    let pool = main_pool();
    let to = "main/encrypted/photos@root";
    let all = records_of(&send(&pool, &spec(None, to, RAW)).unwrap());
    let writes: Vec<usize> = (0..all.len()).filter(|i| matches!(all[*i].0, Record::Write(_))).collect();
    for at in [writes[0], writes[writes.len() / 2], *writes.last().unwrap()] {
        let Record::Write(w) = &all[at].0 else { unreachable!() };
        let resume = (w.object, w.offset);
        let spec = SendSpec { resume: Some(resume), ..spec(None, to, RAW) };
        let bytes = send(&pool, &spec).unwrap();
        assert_eq!(exact_size(pool.io(), &pool.dsl, &spec).unwrap(), bytes.len() as u64);
        let rest = records_of(&bytes);
        let Record::Begin(begin) = &rest[0].0 else { panic!() };
        assert!(begin.has(feature::RESUMING));
        let list = NvList::decode(&rest[0].1).unwrap().0;
        assert_eq!(list.u64("resume_object").zip(list.u64("resume_offset")), Some(resume));
        // OBJECT_RANGE, OBJECT and FREE come again, then what is missing; END has another sum.
        let tail = all.len() - at;
        assert_eq!(rest.len(), 1 + 3 + tail, "{resume:?}");
        assert!(rest[4..3 + tail] == all[at..all.len() - 1], "{resume:?}");
    }
}
