//! Receiving where there is no room: a full pool, and quotas. What does not fit leaves the pool as it was, and what
//! is full can be emptied.

use crate::make::{put_together, raw_full};
use crate::support::{SimPool, kinds, to};
use icecore_dmu::{Form, NewObject, WriteError};
use icecore_dsl::DslError;
use icecore_format::{Compress, ObjectId, ObjectType};
use icecore_stream::receive::{Engine, ReceiveError, ReceiveSpec, abort};

const OBJECT: ObjectId = ObjectId(128);

/// Writes blocks that do not compress to a new object of `path`, until nothing more fits; how many did.
fn fill(pool: &mut SimPool, path: &str, object: ObjectId, block: u64) -> u64 {
    let (io, dsl) = pool.pool().parts();
    let head = dsl.lookup_head(io, path).unwrap();
    let os = dsl.open_dataset(io, head.obj).unwrap();
    os.claim(io, object, &NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, block)).unwrap();
    let form = Form::Logical { compress: Compress::OFF, level: 0, encrypt: false };
    for n in 0.. {
        let data = (0..block).map(|i| ((i ^ n).wrapping_mul(0x9e37_79b9) >> 13) as u8 | 1).collect();
        match os.write_through(io, object, vec![(n, data, form)]) {
            Ok(()) => {}
            Err(WriteError::NoSpace) => {
                pool.commit().unwrap();
                return n;
            }
            Err(e) => panic!("block {n}: {e}"),
        }
    }
    unreachable!()
}

fn create(pool: &mut SimPool, path: &str) {
    let (io, dsl) = pool.pool().parts();
    dsl.create_filesystem(io, path, &[]).unwrap();
    pool.commit().unwrap();
}

fn set(pool: &mut SimPool, path: &str, prop: &str, value: &str) {
    let (io, dsl) = pool.pool().parts();
    dsl.prop_set(io, path, prop, value).unwrap();
    pool.commit().unwrap();
}

fn streams() -> [(&'static str, Vec<u8>); 2] {
    [("raw", put_together(&raw_full())), ("plain", kinds())]
}

#[test]
fn a_full_pool_refuses_a_stream_whole_and_can_be_emptied() {
    for (kind, stream) in streams() {
        let name = format!("full{kind}");
        let mut pool = SimPool::made(&name, 5, &[96 << 20], 12);
        let filler = format!("{name}/filler");
        create(&mut pool, &filler);
        assert!(fill(&mut pool, &filler, OBJECT, 128 << 10) > 100);
        fill(&mut pool, &filler, ObjectId(OBJECT.0 + 1), 4096);
        pool.reopen();
        let (names, space) = (pool.names(), pool.pool().space().allocated);
        for resumable in [false, true] {
            let spec = ReceiveSpec { resumable, commit_bytes: 8192, ..to(&format!("{name}/x")) };
            let got = pool.receive(&stream, &spec);
            let full = |e: &ReceiveError| {
                matches!(e, ReceiveError::Write(WriteError::NoSpace) | ReceiveError::Dsl(DslError::NoSpace))
            };
            assert!(got.as_ref().is_err_and(full), "{kind}: {got:?}");
            if resumable && pool.names() != names {
                abort(&mut pool, &format!("{name}/x")).unwrap();
            }
            assert_eq!(pool.names(), names);
            assert!(pool.pool().space().allocated <= space, "nothing of it takes room");
        }
        pool.judge_blocks();
        // Freeing part of a file, the rest of it, and the dataset.
        let (io, dsl) = pool.pool().parts();
        let head = dsl.lookup_head(io, &filler).unwrap();
        let os = dsl.open_dataset(io, head.obj).unwrap();
        os.free_range(io, OBJECT, 0, 50).unwrap();
        pool.commit().unwrap();
        assert!(pool.pool().space().allocated < space - (6 << 20));
        pool.destroy(&filler);
        pool.receive(&stream, &to(&format!("{name}/x"))).unwrap();
        pool.judge();
    }
}

#[test]
fn a_quota_above_the_destination_ends_a_receive() {
    for (kind, stream) in streams() {
        let name = format!("quota{kind}");
        let mut pool = SimPool::new(&name);
        let (above, x) = (format!("{name}/above"), format!("{name}/above/x"));
        create(&mut pool, &above);
        set(&mut pool, &above, "quota", "130K");
        let (names, space) = (pool.names(), pool.pool().space().allocated);
        let got = pool.receive(&stream, &to(&x));
        assert!(matches!(got, Err(ReceiveError::Write(WriteError::Quota))), "{kind}: {got:?}");
        assert_eq!((pool.names(), pool.pool().space().allocated), (names, space));
        set(&mut pool, &above, "quota", "none");
        pool.receive(&stream, &to(&x)).unwrap();
        pool.judge();
    }
}
