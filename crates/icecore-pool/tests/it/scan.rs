//! Scrubs in turns, of a pool that goes on being changed, exported and opened again.

use crate::support::{back_to_last_commit, blocks, create, disks, env, host, judge, open};
use icecore_check::fixture::fixture;
use icecore_dmu::NewObject;
use icecore_env::Device;
use icecore_format::{Blkptr, Bookmark, ObjectId, ObjectType};
use icecore_pool::scan::Turn;
use icecore_pool::scan::phys::{CANCELED, FINISHED, SCANNING};
use icecore_pool::{Mode, OpenSpec, Pool};
use icecore_sim::{Rng, SimDisk};
use icecore_vdev::create::{NewKind, NewLeaf};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where the space of a vdev begins on its devices.
const DATA_START: u64 = 4 << 20;

fn open_main(disk: &Arc<SimDisk>) -> Pool {
    let devices = vec![disk.clone() as Arc<dyn Device>];
    let spec = OpenSpec { devices, pool: None, mode: Mode::Write, force: true, host: host(), max_txg: None };
    Pool::open(env(1), spec).unwrap()
}

/// One turn, cut as short as can be. False at the end of the scrub.
fn turn(pool: &mut Pool) -> bool {
    match pool.scan_turn(&|| false) {
        Turn::Idle => panic!("there is a scrub to go on with"),
        Turn::More => true,
        Turn::Save => {
            pool.scan_save().unwrap();
            true
        }
        Turn::Done | Turn::Copied => false,
    }
}

/// Flips a bit in one copy of some blocks of datasets; the places, and how many copies each block has.
fn flip(disk: &SimDisk, all: &[(Blkptr, Bookmark)], rng: &mut Rng) -> BTreeMap<Bookmark, (u64, usize)> {
    let mut hit = BTreeMap::new();
    for (bp, at) in all.iter().filter(|(_, at)| at.objset != 0) {
        if rng.below(4) == 0 && bp.birth().0 > 0 {
            let dva = bp.dvas()[rng.below(bp.dvas().len() as u64) as usize];
            let place = DATA_START + dva.offset() + rng.below(bp.psize() - 4);
            disk.flip(place, rng.below(8) as u8);
            hit.insert(*at, (place, bp.dvas().len()));
        }
    }
    hit
}

fn byte(disk: &SimDisk, place: u64) -> u8 {
    let mut byte = [0];
    disk.peek(place, &mut byte);
    byte[0]
}

/// Turns as short as they come, fills of few blocks, and the pool opened anew every so often: as it was exported, or as its
/// last commit left it.
#[test]
fn a_scrub_goes_on_where_it_was() {
    let disk = Arc::new(SimDisk::load(&fixture("cold/main.img")).unwrap());
    let original = disk.fork();
    let all = blocks(&open_main(&disk));
    let hit = flip(&disk, &all, &mut Rng::new(5));
    let mut pool = open_main(&disk);
    pool.scan_start().unwrap();
    assert!(pool.scan_start().is_err(), "one at a time");
    let (mut turns, mut examined) = (0, 0);
    pool.scan_fill(16);
    while turn(&mut pool) {
        turns += 1;
        if turns % 20 == 19 {
            pool.scan_save().unwrap();
        }
        if turns % 70 == 69 {
            let now = pool.scan_status().unwrap().unwrap();
            assert_eq!(now.phys.state, SCANNING);
            if turns % 140 == 139 {
                pool.mark_exported().unwrap();
            }
            drop(pool);
            pool = open_main(&disk);
            let then = pool.scan_status().unwrap().unwrap();
            assert!(then.issued >= examined && then.issued <= now.phys.examined, "{then:?} {now:?}");
            examined = then.issued;
            pool.scan_fill(16);
        }
    }
    assert!(turns > 300 && examined > 4 << 20, "{turns} turns, {examined} bytes");
    pool.scan_finish().unwrap();
    let done = pool.scan_status().unwrap().unwrap().phys;
    assert_eq!((done.state, done.queue_obj), (FINISHED, 0));
    let bytes: u64 = all.iter().map(|(bp, _)| bp.asize()).sum();
    assert!(
        done.examined >= bytes * 9 / 10 && done.examined < bytes * 12 / 10,
        "{} of {bytes}",
        done.examined
    );
    let log = pool.dsl.errlog(pool.io()).unwrap();
    for (at, (place, copies)) in &hit {
        let whole = byte(&disk, *place) == byte(&original, *place);
        assert_eq!(whole, *copies > 1, "{at} in {copies} copies");
        assert!(
            whole || log.iter().any(|l| (l.object, l.level, l.blkid) == (at.object, at.level, at.blkid)),
            "{at}"
        );
    }
    assert!(done.errors >= hit.values().filter(|(_, copies)| *copies == 1).count() as u64);
}

/// A change of the datasets by its number.
fn change(pool: &mut Pool, n: u64, rng: &mut Rng) {
    let (io, dsl) = pool.parts();
    let name = |n: u64| format!("main/plain@s{n}");
    match rng.below(8) {
        0 | 1 => drop(dsl.snapshot(io, &[&name(n)], &[])),
        2 => drop(dsl.destroy_snapshot(io, &name(rng.below(n + 1)), false)),
        3 => {
            if let Ok(origin) = dsl.lookup_dataset(io, &name(rng.below(n + 1))) {
                dsl.clone_snapshot(io, origin, &format!("main/c{n}")).unwrap();
            }
        }
        4 => drop(dsl.promote(io, &format!("main/c{}", rng.below(n + 1)))),
        5 => drop(dsl.destroy_head(io, &format!("main/c{}", rng.below(n + 1)))),
        6 => drop(dsl.destroy_snapshot(
            io,
            ["main/plain@root", "main/plain@newsnapshot"][rng.below(2) as usize],
            false,
        )),
        _ => drop(dsl.rollback(io, "main/plain", None)),
    }
    pool.commit().unwrap();
}

/// Datasets are made, snapshotted, promoted, rolled back and destroyed while the scrub is at them: it reports nothing that is not
/// so, and what it was to see it has seen.
#[test]
fn the_pool_changes_under_a_scrub() {
    let original = SimDisk::load(&fixture("cold/main.img")).unwrap();
    for seed in 0..6 {
        let disk = Arc::new(original.fork());
        let mut rng = Rng::new(seed);
        let mut pool = open_main(&disk);
        for n in 0..10 {
            change(&mut pool, n, &mut rng);
        }
        let all = blocks(&pool);
        drop(pool);
        let hit: BTreeMap<_, _> =
            flip(&disk, &all, &mut rng).into_iter().filter(|(_, (_, copies))| *copies > 1).collect();
        let mut lost = 0;
        for (bp, _) in &all {
            lost += u64::from(bp.dvas().is_empty());
        }
        assert_eq!(lost, 0);
        let mut pool = open_main(&disk);
        pool.scan_start().unwrap();
        pool.scan_fill(8 + 40 * (seed as usize % 3));
        let mut n = 10;
        while turn(&mut pool) {
            if rng.below(12) == 0 {
                change(&mut pool, n, &mut rng);
                n += 1;
            }
            if rng.below(400) == 0 {
                drop(pool);
                pool = open_main(&disk);
                pool.scan_fill(16);
            }
        }
        pool.scan_finish().unwrap();
        // What is still there of the blocks that were damaged in one of their copies is whole.
        let alive: BTreeMap<_, _> =
            blocks(&pool).into_iter().map(|(bp, _)| (bp.dvas()[0].words(), bp.birth())).collect();
        let by_place: BTreeMap<_, _> = all.iter().map(|(bp, at)| (*at, *bp)).collect();
        let mut whole = 0;
        for (at, (place, _)) in &hit {
            let bp = by_place[at];
            if alive.get(&bp.dvas()[0].words()) == Some(&bp.birth()) {
                let _ = place;
                assert_eq!(pool.io().examine(&bp).bad, 0, "seed {seed}: {at} was not seen");
                whole += 1;
            }
        }
        assert!(whole > 20, "seed {seed}: only {whole} blocks lived");
        assert!(pool.scan_status().unwrap().unwrap().phys.queue_obj == 0);
        drop(pool);
        let mut pool = open_main(&disk);
        pool.scan_start().unwrap();
        while turn(&mut pool) {}
        let again = pool.scan_finish().unwrap();
        assert_eq!(again.damaged, again.lost, "seed {seed}");
    }
}

/// Writes blocks of an object of `main/new`, and commits.
fn write(pool: &mut Pool, rng: &mut Rng) {
    let (io, dsl) = pool.parts();
    if dsl.lookup_dataset(io, "main/new").is_err() {
        dsl.create_filesystem(io, "main/new", &[]).unwrap();
    }
    let head = dsl.lookup_dataset(io, "main/new").unwrap();
    let os = dsl.open_dataset(io, head.obj).unwrap();
    if os.dnode(io, ObjectId(20)).is_err() {
        os.claim(io, ObjectId(20), &NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, 4096)).unwrap();
    }
    let mut data = vec![0; 4096];
    for _ in 0..rng.below(6) {
        data.fill_with(|| rng.below(256) as u8);
        os.write(io, ObjectId(20), rng.below(200) * 4096, &data).unwrap();
    }
    pool.commit().unwrap();
}

/// The pool goes on being changed while a second device gets all of it, and is taken back to its last commit now and then:
/// afterwards either device is enough for everything.
#[test]
fn the_pool_changes_under_a_resilver() {
    let original = SimDisk::load(&fixture("cold/main.img")).unwrap();
    let size = Device::size(&original);
    for seed in 0..6 {
        let disk = Arc::new(original.fork());
        let new = Arc::new(SimDisk::with_sector("new", size, 512));
        let mut rng = Rng::new(seed + 20);
        let mut pool = open_main(&disk);
        for n in 0..10 {
            change(&mut pool, n, &mut rng);
            write(&mut pool, &mut rng);
        }
        let old = pool.config().vdev_tree.as_ref().unwrap().leaves()[0].guid;
        let side = NewLeaf { device: new.clone(), path: "/sim/new.img".into(), whole_disk: None };
        pool.begin_side(old, side, seed % 2 == 1).unwrap();
        assert!(pool.scan_start().unwrap_err().to_string().contains("currently resilvering"));
        pool.scan_fill(8 + 40 * (seed as usize % 3));
        let (mut n, mut turns) = (10, 0);
        while turn(&mut pool) {
            turns += 1;
            if rng.below(12) == 0 {
                change(&mut pool, n, &mut rng);
                n += 1;
            }
            if rng.below(8) == 0 {
                write(&mut pool, &mut rng);
            }
            if rng.below(300) == 0 {
                // Changed, and not committed.
                let (io, dsl) = pool.parts();
                dsl.create_filesystem(io, "main/never", &[]).unwrap();
                back_to_last_commit(&mut pool);
                pool.scan_fill(16);
            }
        }
        write(&mut pool, &mut rng);
        assert!(turns > 100 && n > 20, "seed {seed}: {turns} turns, {n} changes");
        let done = pool.resilver_finish().unwrap();
        assert!(done.repaired_bytes > 1 << 20 && done.lost == 0, "seed {seed}: {done:?}");
        write(&mut pool, &mut rng);
        pool.mark_exported().unwrap();
        drop(pool);
        let sides = if seed % 2 == 1 { vec![new] } else { vec![disk, new] };
        for side in sides {
            let mut pool = open(env(9), std::slice::from_ref(&side), Mode::ReadOnly).unwrap();
            let found = icecore_pool::scrub::scrub(&mut pool, &mut |_| true).unwrap();
            assert_eq!((found.damaged, found.unseen.len()), (0, 0), "seed {seed}");
            drop(pool);
            judge("main", &[side]);
        }
    }
}

/// What is freed while it waits to be examined is no error, and nothing is written to where it was.
#[test]
fn what_is_freed_meanwhile_is_no_error() {
    let disks = disks(1, 96 << 20);
    let mut pool = create(env(3), "freed", &disks, NewKind::Single, 12);
    for i in 0..60 {
        let (io, dsl) = pool.parts();
        dsl.create_filesystem(io, &format!("freed/fs{i}"), &[]).unwrap();
    }
    pool.commit().unwrap();
    pool.scan_start().unwrap();
    // All is found, nothing examined yet.
    while pool.scan_status().unwrap().unwrap().phys.at[0] != u64::MAX {
        assert!(turn(&mut pool));
    }
    for i in 0..60 {
        let (io, dsl) = pool.parts();
        dsl.destroy_head(io, &format!("freed/fs{i}")).unwrap();
        if i % 10 == 9 {
            pool.commit().unwrap();
        }
    }
    // What was freed is used again.
    for i in 0..60 {
        let (io, dsl) = pool.parts();
        dsl.create_filesystem(io, &format!("freed/new{i}"), &[]).unwrap();
        if i % 10 == 9 {
            pool.commit().unwrap();
        }
    }
    pool.commit().unwrap();
    while turn(&mut pool) {}
    let found = pool.scan_finish().unwrap();
    assert_eq!((found.damaged, found.lost), (0, 0));
    assert_eq!(pool.dsl.errlog_count(pool.io()).unwrap(), 0);
    drop(pool);
    judge("freed", &disks);
}

#[test]
fn a_scrub_is_paused_resumed_and_cancelled() {
    let disks = disks(1, 80 << 20);
    let mut pool = create(env(3), "paused", &disks, NewKind::Single, 12);
    let (io, dsl) = pool.parts();
    dsl.create_filesystem(io, "paused/fs", &[]).unwrap();
    pool.commit().unwrap();
    assert_eq!(pool.scan_status().unwrap(), None);
    assert!(pool.scan_pause().is_err() && pool.scan_cancel().is_err());
    pool.scan_start().unwrap();
    pool.scan_fill(8);
    for _ in 0..40 {
        assert!(turn(&mut pool));
    }
    pool.scan_pause().unwrap();
    assert!(pool.scan_pause().unwrap_err().to_string().contains("scrub is paused"));
    assert_eq!(pool.scan_turn(&|| true), Turn::Idle);
    pool.mark_exported().unwrap();
    drop(pool);
    judge("paused", &disks);
    let mut pool = open(env(5), &disks, Mode::Write).unwrap();
    let status = pool.scan_status().unwrap().unwrap();
    assert!(status.phys.is_paused() && status.paused.is_some() && status.issued > 0, "{status:?}");
    assert_eq!(pool.scan_turn(&|| true), Turn::Idle);
    pool.scan_start().unwrap();
    assert!(turn(&mut pool));
    pool.scan_cancel().unwrap();
    assert_eq!(pool.scan_turn(&|| true), Turn::Idle);
    let status = pool.scan_status().unwrap().unwrap();
    assert_eq!((status.phys.state, status.phys.queue_obj), (CANCELED, 0));
    pool.mark_exported().unwrap();
    drop(pool);
    judge("paused", &disks);
}
