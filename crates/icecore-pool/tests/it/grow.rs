//! Further top-level vdevs: what they bring can be used, and a device that fails on its way in leaves the pool to be opened.

use crate::support::{create, disks, env, judge, open};
use icecore_dmu::{BlockStore, NewObject, Want};
use icecore_format::{ObjectId, ObjectType};
use icecore_pool::{Mode, Pool};
use icecore_sim::SimDisk;
use icecore_vdev::create::{NewKind, NewLeaf, NewTop};
use std::sync::Arc;

const SIZE: u64 = 96 << 20;
const BLOCK: u64 = 16384;

fn block(b: u64) -> Vec<u8> {
    (0..BLOCK).map(|i| (i.wrapping_mul(b * 7 + 11) >> 3) as u8).collect()
}

fn fill(pool: &mut Pool, blocks: std::ops::Range<u64>) {
    let (io, dsl) = pool.parts();
    let head = dsl.lookup_dataset(io, "grow").unwrap();
    let os = dsl.open_dataset(io, head.obj).unwrap();
    if os.dnode(io, ObjectId(20)).is_err() {
        os.claim(io, ObjectId(20), &NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, BLOCK)).unwrap();
    }
    for b in blocks {
        os.write(io, ObjectId(20), b * BLOCK, &block(b)).unwrap();
    }
    pool.commit().unwrap();
}

fn reads(pool: &Pool, b: u64) {
    let (io, dsl): (&dyn BlockStore, _) = (pool.io(), &pool.dsl);
    let r = dsl.lookup_dataset(io, "grow").unwrap();
    let os = dsl.objset(io, r.obj, Want::Logical).unwrap();
    assert!(os.read(io, ObjectId(20), b * BLOCK, BLOCK as usize).unwrap() == block(b), "block {b}");
}

fn top(kind: NewKind, disks: &[Arc<SimDisk>]) -> NewTop {
    let leaf = |(i, d): (usize, &Arc<SimDisk>)| NewLeaf {
        device: d.clone(),
        path: format!("/sim/new-{i}.img"),
        whole_disk: None,
    };
    NewTop { kind, leaves: disks.iter().enumerate().map(leaf).collect(), log: false, ashift: Some(12) }
}

#[test]
fn vdevs_join_a_pool() {
    let all = disks(4, SIZE);
    let mut pool = create(env(60), "grow", &all[..1], NewKind::Single, 12);
    fill(&mut pool, 0..200);
    let small = pool.space();
    pool.add(vec![top(NewKind::Single, &all[1..2]), top(NewKind::Mirror, &all[2..])]).unwrap();
    let large = pool.space();
    assert!(large.size > 2 * small.size && large.usable() > small.usable(), "{small:?} {large:?}");
    assert_eq!(pool.dsl.info.usable, large.usable());
    // More than the first device holds.
    fill(&mut pool, 200..7000);
    for vdev in 0..3 {
        assert!(pool.space_of(vdev).unwrap().allocated > 1 << 20, "vdev {vdev}");
    }
    pool.export().unwrap();
    judge("grow", &all);
    assert!(open(env(61), &all[..1], Mode::ReadOnly).is_err(), "a part of it is no pool");
    // A side of the mirror may be away.
    let mut pool = open(env(62), &all[..3], Mode::ReadOnly).unwrap();
    for b in [3, 199, 4000, 6999] {
        reads(&pool, b);
    }
    drop(pool);
    pool = open(env(63), &all, Mode::Write).unwrap();
    let found = icecore_pool::scrub::scrub(&mut pool, &mut |_| true).unwrap();
    assert_eq!((found.damaged, found.unseen.len()), (0, 0));
    pool.export().unwrap();
}

#[test]
fn a_new_vdev_that_fails_leaves_a_pool() {
    let base = disks(1, SIZE);
    let mut pool = create(env(64), "grow", &base, NewKind::Single, 12);
    fill(&mut pool, 0..40);
    pool.export().unwrap();
    let mut without = 0;
    for cut in [0, 1, 2, 4, 8, 12, 16, 24, 32, 1000] {
        let old = Arc::new(base[0].fork());
        let new = Arc::new(SimDisk::with_sector("new", SIZE, 512));
        let mut pool = open(env(65), std::slice::from_ref(&old), Mode::Write).unwrap();
        new.cut_after(cut);
        let added = pool.add(vec![top(NewKind::Single, std::slice::from_ref(&new))]);
        drop(pool);
        assert!(added.is_ok() || cut < 1000, "{:?}", added.err());
        // As before, or with it; what was in it is there.
        let both = [old.clone(), Arc::new(new.crash_losing_all())];
        let alone = open(env(66), &both[..1], Mode::ReadOnly);
        without += u32::from(alone.is_ok());
        assert!(alone.is_err() || added.is_err(), "cut {cut}: it was added, and is not missed");
        let pool = alone.or_else(|_| open(env(67), &both, Mode::ReadOnly)).unwrap();
        for b in [0, 17, 39] {
            reads(&pool, b);
        }
    }
    assert!(without > 2, "{without} failed before they were in");
}
