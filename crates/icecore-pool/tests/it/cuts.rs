//! Power cut at every write and flush of some commits: the pool opens at the last committed txg or at the one
//! in flight, and everything in it is readable.

use crate::support::{create, disks, env, open};
use icecore_dmu::{BlockStore, NewObject};
use icecore_format::{ObjectId, ObjectType};
use icecore_pool::{Mode, Pool};
use icecore_sim::{Rng, SimDisk};
use icecore_vdev::create::NewKind;
use std::sync::Arc;

const LEN: usize = 300 << 10;

fn contents(txg: u64) -> Vec<u8> {
    let mut data = vec![0; LEN];
    Rng::new(txg).fill(&mut data);
    data
}

/// Commits one txg in which the file says which txg it is.
fn step(pool: &mut Pool) -> Result<(), String> {
    let (io, dsl) = pool.parts();
    let txg = io.txg().0;
    let name = dsl.info.name.clone();
    let head = dsl.lookup_dataset(io, &name).map_err(|e| e.to_string())?;
    let os = dsl.open_dataset(io, head.obj).map_err(|e| e.to_string())?;
    let file = ObjectId(200);
    if os.dnode(io, file).is_err() {
        let new = NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, 128 << 10);
        os.claim(io, file, &new).map_err(|e| e.to_string())?;
    }
    os.write(io, file, 0, &contents(txg)).map_err(|e| e.to_string())?;
    pool.commit().map(|_| ()).map_err(|e| e.to_string())
}

/// Opens for reading and for writing; checks all; the txg found.
fn check(disks: &[Arc<SimDisk>]) -> u64 {
    let pool = open(env(9), disks, Mode::ReadOnly).unwrap();
    let (io, mos): (&dyn BlockStore, _) = (pool.io(), &pool.dsl.mos);
    let mut at = ObjectId(0);
    while let Some(object) = mos.next_object(io, at).unwrap() {
        at = object;
        let dn = mos.dnode(io, object).unwrap();
        (0..=dn.maxblkid()).for_each(|b| drop(mos.block(io, object, &dn, b).unwrap()));
    }
    let txg = pool.synced().0;
    drop(pool);
    let mut pool = open(env(9), disks, Mode::Write).unwrap();
    let (io, dsl) = pool.parts();
    let name = dsl.info.name.clone();
    let head = dsl.lookup_dataset(io, &name).unwrap();
    let os = dsl.open_dataset(io, head.obj).unwrap();
    if let Ok(dn) = os.dnode(io, ObjectId(200)) {
        assert!(dn.maxblkid() > 0);
        assert_eq!(os.read(io, ObjectId(200), 0, LEN).unwrap(), contents(txg));
    }
    step(&mut pool).unwrap();
    txg
}

fn sweep(kind: NewKind, n: usize, stride: u64) {
    let base = disks(n, 80 << 20);
    let mut pool = create(env(1), "cut", &base, kind, 12);
    step(&mut pool).unwrap();
    step(&mut pool).unwrap();
    let last = pool.synced().0;
    drop(pool);
    let mut seen = std::collections::BTreeSet::new();
    let mut cut = 0;
    loop {
        let disks: Vec<Arc<SimDisk>> = base.iter().map(|d| Arc::new(d.fork())).collect();
        let mut pool = open(env(2), &disks, Mode::Write).unwrap();
        disks.iter().for_each(|d| d.cut_after(cut));
        let done = step(&mut pool).is_ok();
        drop(pool);
        for seed in 0..3 {
            let crashed: Vec<Arc<SimDisk>> =
                disks.iter().enumerate().map(|(i, d)| Arc::new(d.crash(seed + 10 * i as u64))).collect();
            let txg = check(&crashed);
            assert!(txg == last + 1 || (!done && txg == last), "cut {cut}: txg {txg}, last {last}, {done}");
            seen.insert(txg);
        }
        if done {
            break;
        }
        cut += stride;
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [last, last + 1]);
}

#[test]
fn single_disk_at_every_write() {
    sweep(NewKind::Single, 1, 1);
}

#[test]
fn mirror_at_every_third_write() {
    sweep(NewKind::Mirror, 2, 3);
}

#[test]
fn without_the_flushes_it_breaks() {
    // A checker that cannot fail proves nothing: with all flushes ignored some crash must be seen.
    let base = disks(1, 80 << 20);
    let mut pool = create(env(1), "cut", &base, NewKind::Single, 12);
    step(&mut pool).unwrap();
    let last = pool.synced().0;
    drop(pool);
    let broken = (0..40).any(|seed| {
        let disks: Vec<Arc<SimDisk>> = base.iter().map(|d| Arc::new(d.fork())).collect();
        let mut pool = open(env(2), &disks, Mode::Write).unwrap();
        (0..4).for_each(|k| disks[0].ignore_flush(k));
        step(&mut pool).unwrap();
        drop(pool);
        let crashed = vec![Arc::new(disks[0].crash(seed))];
        std::panic::catch_unwind(|| check(&crashed)).map_or(true, |txg| txg != last && txg != last + 1)
    });
    assert!(broken);
}
