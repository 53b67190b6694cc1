//! Sides of mirrors come and go: each step leaves a pool that `zdb` believes whole and from each side alone
//! (`ICECORE_ZDB=1`), and a resilver reads and writes only what was missed.

use crate::support::{back_to_last_commit, create, disks, env, judge, open};
use icecore_dmu::{BlockStore, NewObject, Want};
use icecore_env::Device;
use icecore_format::{Guid, ObjectId, ObjectType};
use icecore_pool::scan::Turn;
use icecore_pool::{Mode, Pool};
use icecore_sim::SimDisk;
use icecore_vdev::create::{NewKind, NewLeaf};
use std::sync::Arc;

const SIZE: u64 = 96 << 20;
const BLOCK: u64 = 16384;

fn fill(pool: &mut Pool, blocks: std::ops::Range<u64>, seed: u8) {
    let (io, dsl) = pool.parts();
    let head = dsl.lookup_dataset(io, "mir").unwrap();
    let os = dsl.open_dataset(io, head.obj).unwrap();
    if os.dnode(io, ObjectId(20)).is_err() {
        os.claim(io, ObjectId(20), &NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, BLOCK)).unwrap();
    }
    for b in blocks {
        os.write(io, ObjectId(20), b * BLOCK, &block(b, seed)).unwrap();
    }
    pool.commit().unwrap();
}

fn block(b: u64, seed: u8) -> Vec<u8> {
    (0..BLOCK).map(|i| (i.wrapping_mul(b * 7 + 11) >> 3) as u8 ^ seed).collect()
}

fn reads(pool: &Pool, b: u64, seed: u8) {
    let (io, dsl): (&dyn BlockStore, _) = (pool.io(), &pool.dsl);
    let r = dsl.lookup_dataset(io, "mir").unwrap();
    let os = dsl.objset(io, r.obj, Want::Logical).unwrap();
    assert!(os.read(io, ObjectId(20), b * BLOCK, 16384).unwrap() == block(b, seed), "block {b}");
}

fn leaf(pool: &Pool, path: &str) -> Guid {
    let tree = pool.config().vdev_tree.as_ref().unwrap();
    let found = tree.leaves().into_iter().find(|l| l.path.as_deref() == Some(path));
    found.unwrap_or_else(|| panic!("no {path}")).guid
}

fn shape(pool: &Pool) -> Vec<String> {
    let tree = pool.config().vdev_tree.as_ref().unwrap();
    tree.walk().iter().skip(1).map(|v| v.path.clone().unwrap_or_else(|| v.kind.to_string())).collect()
}

fn side(disk: &Arc<SimDisk>, path: &str) -> NewLeaf {
    NewLeaf { device: disk.clone(), path: path.into(), whole_disk: None }
}

/// What a side was brought is not what its device did wrong.
fn no_errors_counted(pool: &Pool) {
    for l in pool.io().vdevs().leaves() {
        assert_eq!(l.counts().numbers(), [0; 3], "{}", l.name());
    }
}

fn go(_: icecore_pool::scrub::Progress) -> bool {
    true
}

/// Each of these disks is enough for the whole pool: read by us in every block, and judged by `zdb`.
fn each_alone(disks: &[Arc<SimDisk>]) {
    for (i, d) in disks.iter().enumerate() {
        let one = [d.clone()];
        let mut pool = open(env(70 + i as u64), &one, Mode::ReadOnly).unwrap();
        let found = icecore_pool::scrub::scrub(&mut pool, &mut go).unwrap();
        assert_eq!((found.damaged, found.unseen.len()), (0, 0), "side {i}");
        drop(pool);
        judge("mir", &one);
    }
}

#[test]
fn a_side_that_was_away_gets_what_it_missed_and_no_more() {
    let all = disks(2, SIZE);
    let mut pool = create(env(40), "mir", &all, NewKind::Mirror, 12);
    fill(&mut pool, 0..600, 1);
    let away = leaf(&pool, "/sim/mir-1.img");
    pool.offline(away).unwrap();
    let no = pool.offline(leaf(&pool, "/sim/mir-0.img")).unwrap_err();
    assert!(no.to_string().contains("no valid replicas"), "{no}");
    let before = all[1].stats();
    fill(&mut pool, 100..110, 2);
    fill(&mut pool, 200..205, 3);
    assert_eq!(all[1].stats().writes, before.writes, "what is offline is left alone");
    pool.export().unwrap();
    judge("mir", &all);
    // Given up in the middle: all is as before.
    let forks: Vec<Arc<SimDisk>> = all.iter().map(|d| Arc::new(d.fork())).collect();
    let mut pool = open(env(41), &forks, Mode::Write).unwrap();
    assert!(pool.missing().contains(&away));
    let stopped = pool.online(away, &mut |_| false).unwrap_err();
    assert!(stopped.to_string().contains("stopped"), "{stopped}");
    assert!(pool.missing().contains(&away));
    fill(&mut pool, 400..402, 9);
    drop(pool);
    judge("mir", &forks);
    let mut pool = open(env(42), &all, Mode::Write).unwrap();
    assert!(pool.missing().contains(&away));
    let done = pool.online(away, &mut go).unwrap();
    assert!(
        done.repaired_bytes >= 15 * BLOCK && done.blocks < 150,
        "{} of {}",
        done.repaired_bytes,
        done.blocks
    );
    assert!(pool.missing().is_empty());
    no_errors_counted(&pool);
    fill(&mut pool, 300..305, 4);
    let scan = pool.scan_status().unwrap().unwrap().phys;
    assert_eq!((scan.func, scan.state, scan.errors), (2, 2, 0));
    assert!(pool.online(away, &mut go).unwrap().blocks == 0, "nothing to do");
    pool.export().unwrap();
    each_alone(&all);
    let pool = open(env(43), &all[1..], Mode::ReadOnly).unwrap();
    for (b, seed) in [(99, 1), (105, 2), (204, 3), (302, 4)] {
        reads(&pool, b, seed);
    }
}

#[test]
fn sides_are_attached_replaced_and_detached() {
    let all = disks(4, SIZE);
    let mut pool = create(env(44), "mir", &all[..1], NewKind::Single, 12);
    fill(&mut pool, 0..400, 1);
    let first = leaf(&pool, "/sim/mir-0.img");
    pool.attach(first, side(&all[1], "/sim/mir-1.img"), &mut go).unwrap();
    assert_eq!(shape(&pool), ["mirror", "/sim/mir-0.img", "/sim/mir-1.img"]);
    no_errors_counted(&pool);
    fill(&mut pool, 50..60, 2);
    pool.export().unwrap();
    judge("mir", &all[..2]);
    each_alone(&all[..2]);
    let mut pool = open(env(45), &all[..2], Mode::Write).unwrap();
    pool.replace(leaf(&pool, "/sim/mir-0.img"), side(&all[2], "/sim/mir-2.img"), &mut go).unwrap();
    assert_eq!(shape(&pool), ["mirror", "/sim/mir-1.img", "/sim/mir-2.img"]);
    assert!(open(env(46), &all[..1], Mode::ReadOnly).is_err(), "what was replaced is of no pool");
    fill(&mut pool, 70..80, 3);
    pool.attach(leaf(&pool, "/sim/mir-2.img"), side(&all[3], "/sim/mir-3.img"), &mut go).unwrap();
    pool.export().unwrap();
    judge("mir", &all[1..]);
    each_alone(&all[1..]);
    let mut pool = open(env(47), &all[1..], Mode::Write).unwrap();
    pool.detach(leaf(&pool, "/sim/mir-1.img")).unwrap();
    pool.detach(leaf(&pool, "/sim/mir-2.img")).unwrap();
    assert_eq!(shape(&pool), ["/sim/mir-3.img"]);
    let no = pool.detach(leaf(&pool, "/sim/mir-3.img")).unwrap_err();
    assert!(no.to_string().contains("only applicable to mirror"), "{no}");
    fill(&mut pool, 90..95, 4);
    // Alone again, and then in another's place.
    pool.replace(leaf(&pool, "/sim/mir-3.img"), side(&all[0], "/sim/mir-0.img"), &mut go).unwrap();
    assert_eq!(shape(&pool), ["/sim/mir-0.img"]);
    pool.export().unwrap();
    judge("mir", &all[..1]);
    let pool = open(env(48), &all[..1], Mode::ReadOnly).unwrap();
    for (b, seed) in [(10, 1), (55, 2), (75, 3), (92, 4)] {
        reads(&pool, b, seed);
    }
}

#[test]
fn a_side_that_is_gone_is_replaced() {
    let all = disks(3, SIZE);
    let mut pool = create(env(49), "mir", &all[..2], NewKind::Mirror, 12);
    fill(&mut pool, 0..200, 1);
    pool.export().unwrap();
    let mut pool = open(env(50), &all[..1], Mode::Write).unwrap();
    fill(&mut pool, 20..30, 2);
    pool.export().unwrap();
    let mut pool = open(env(51), &all[..1], Mode::Write).unwrap();
    let no = pool.detach(leaf(&pool, "/sim/mir-0.img")).unwrap_err();
    assert!(no.to_string().contains("no valid replicas"), "{no}");
    pool.replace(leaf(&pool, "/sim/mir-1.img"), side(&all[2], "/sim/mir-2.img"), &mut go).unwrap();
    pool.export().unwrap();
    let now = [all[0].clone(), all[2].clone()];
    judge("mir", &now);
    each_alone(&now);
}

/// A new side is cut off at many points of its way in: the pool is then as before, or has it; and a second try works.
#[test]
fn a_new_side_that_fails_leaves_the_pool_as_it_was() {
    let base = disks(1, SIZE);
    let mut pool = create(env(52), "mir", &base, NewKind::Single, 12);
    fill(&mut pool, 0..40, 1);
    pool.export().unwrap();
    for cut in [0, 20, 60, 120] {
        let old = Arc::new(base[0].fork());
        let new = Arc::new(SimDisk::with_sector("new", SIZE, 512));
        let mut pool = open(env(53), std::slice::from_ref(&old), Mode::Write).unwrap();
        new.cut_after(cut);
        let before = shape(&pool);
        let tried = pool.attach(leaf(&pool, "/sim/mir-0.img"), side(&new, "/sim/new.img"), &mut go);
        match tried {
            Err(e) => {
                assert_eq!(shape(&pool), before, "cut {cut}: {e}");
                // And it goes on without.
                fill(&mut pool, 5..8, 2);
            }
            Ok(_) => assert_eq!(shape(&pool).len(), 3, "cut {cut}"),
        }
        pool.export().unwrap();
        judge("mir", std::slice::from_ref(&old));
        let again = Arc::new(SimDisk::with_sector("again", SIZE, 512));
        let mut pool = open(env(54), std::slice::from_ref(&old), Mode::Write).unwrap();
        pool.attach(leaf(&pool, "/sim/mir-0.img"), side(&again, "/sim/again.img"), &mut go).unwrap();
        pool.export().unwrap();
        each_alone(&[again]);
    }
}

/// A side fails while it is filled and the pool goes on being changed, also where that is taken back to its last commit: it is
/// never taken for whole, and a second try brings it up to date.
#[test]
fn a_side_that_fails_while_it_is_filled() {
    let base = disks(2, SIZE);
    let mut pool = create(env(63), "mir", &base, NewKind::Mirror, 12);
    fill(&mut pool, 0..60, 1);
    let away = leaf(&pool, "/sim/mir-1.img");
    pool.export().unwrap();
    let mut pool = open(env(66), &base[..1], Mode::Write).unwrap();
    fill(&mut pool, 10..50, 2);
    pool.export().unwrap();
    let (mut failed, mut done) = (0, 0);
    for cut in [0, 3, 30, 90, 150, 300, 500, 700, 900, 1100, 1 << 40] {
        let now: Vec<Arc<SimDisk>> = base.iter().map(|d| Arc::new(d.fork())).collect();
        let mut pool = open(env(64), &now, Mode::Write).unwrap();
        assert_eq!(pool.resilver_returned().unwrap(), Some(away));
        assert_eq!(pool.resilvering(), Some(away));
        pool.scan_fill(16);
        now[1].cut_after(cut);
        let mut turns = 0;
        while !matches!(pool.scan_turn(&|| false), Turn::Copied | Turn::Idle) {
            turns += 1;
            if turns % 3 == 0 {
                fill(&mut pool, turns % 50..turns % 50 + 2, turns as u8);
            }
            if turns % 20 == 0 {
                back_to_last_commit(&mut pool);
                pool.scan_fill(16);
            }
        }
        let whole = pool.resilver_finish().is_ok();
        assert_eq!(whole, !pool.missing().contains(&away), "cut {cut}");
        (failed, done) = (failed + u64::from(!whole), done + u64::from(whole));
        fill(&mut pool, 3..4, 9);
        let behind = pool.missing().contains(&away);
        drop(pool);
        let after = [now[0].clone(), Arc::new(now[1].crash(cut))];
        let mut pool = open(env(65), &after, Mode::Write).unwrap();
        assert_eq!(pool.missing().contains(&away), behind, "cut {cut}");
        if behind {
            assert_eq!(pool.resilver_returned().unwrap(), Some(away));
            pool.resilver_through(&mut go).unwrap();
        }
        assert_eq!(pool.resilver_returned().unwrap(), None);
        reads(&pool, 3, 9);
        pool.export().unwrap();
        each_alone(&after);
    }
    assert!(failed > 4 && done > 0, "{failed} failed, {done} done");
}

/// The power fails while a side is brought back: after any write the pool opens, and online goes on.
#[test]
fn power_lost_in_a_resilver() {
    let base = disks(2, SIZE);
    let mut pool = create(env(55), "mir", &base, NewKind::Mirror, 12);
    fill(&mut pool, 0..40, 1);
    let away = leaf(&pool, "/sim/mir-1.img");
    pool.offline(away).unwrap();
    fill(&mut pool, 10..30, 2);
    pool.export().unwrap();
    for cut in [1, 25, 60, 80] {
        let now: Vec<Arc<SimDisk>> = base.iter().map(|d| Arc::new(d.fork())).collect();
        let mut pool = open(env(56), &now, Mode::Write).unwrap();
        for d in &now {
            d.cut_after(cut);
        }
        let done = pool.online(away, &mut go).is_ok();
        drop(pool);
        let after: Vec<Arc<SimDisk>> = now.iter().map(|d| Arc::new(d.crash(cut))).collect();
        let mut pool = open(env(57), &after, Mode::Write).unwrap_or_else(|e| panic!("cut {cut}: {e}"));
        assert!(!done || !pool.missing().contains(&away), "cut {cut}: it was said to be back");
        // The other side may have gone first, and be behind now.
        for side in pool.missing().clone() {
            pool.online(side, &mut go).unwrap();
        }
        reads(&pool, 15, 2);
        reads(&pool, 35, 1);
        pool.export().unwrap();
        each_alone(&after);
    }
}

/// The power fails in the commit that puts a new device in the place of the only one: the pool is on the one or on the
/// other, and whole.
#[test]
fn power_lost_when_the_only_device_is_replaced() {
    let base = disks(1, SIZE);
    let mut pool = create(env(60), "mir", &base, NewKind::Single, 12);
    fill(&mut pool, 0..20, 1);
    pool.export().unwrap();
    let attempt = |cut: Option<(u64, u64)>| {
        let old = Arc::new(base[0].fork());
        let new = Arc::new(SimDisk::with_sector("new", SIZE, 512));
        let mut pool = open(env(61), std::slice::from_ref(&old), Mode::Write).unwrap();
        let before = old.stats().ops;
        if let Some((o, n)) = cut {
            old.cut_after(o);
            new.cut_after(n);
        }
        let done = pool.replace(leaf(&pool, "/sim/mir-0.img"), side(&new, "/sim/new.img"), &mut go).is_ok();
        drop(pool);
        (done, old.stats().ops - before, old, new)
    };
    let (done, ops_old, _, new) = attempt(None);
    let ops_new = new.stats().ops;
    assert!(done && ops_new > 40);
    let (mut on_old, mut on_new) = (0, 0);
    for back in 0..40 {
        let (_, _, old, new) = attempt(Some((ops_old, ops_new - 1 - back)));
        for seed in 0..3 {
            let after = [Arc::new(old.crash(seed)), Arc::new(new.crash(seed + 7))];
            let mut pool = open(env(62), &after, Mode::Write).unwrap_or_else(|e| panic!("{back}: {e}"));
            match shape(&pool)[0].as_str() {
                "/sim/new.img" => on_new += 1,
                _ => on_old += 1,
            }
            assert_eq!(shape(&pool).len(), 1);
            let found = icecore_pool::scrub::scrub(&mut pool, &mut go).unwrap();
            assert_eq!((found.damaged, found.unseen.len()), (0, 0), "{back}");
            reads(&pool, 15, 1);
            fill(&mut pool, 3..4, 2);
        }
    }
    assert!(on_old > 0 && on_new > 0, "{on_old} {on_new}");
}

/// A mirror of OpenZFS's, of which a side was taken offline before the last writes: it gets what its time log says, and each side is
/// enough then.
#[test]
fn a_side_that_openzfs_left_behind() {
    let Some(files) = crate::walk::zoo(&["m3-0", "m3-1", "m3-2"]) else { return };
    let disks: Vec<Arc<SimDisk>> = files.iter().map(|f| Arc::new(SimDisk::load(f).unwrap())).collect();
    let mut pool = open(env(67), &disks, Mode::Write).unwrap();
    let [behind] = pool.missing().iter().copied().collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!(pool.resilver_returned().unwrap(), None, "somebody took it out by hand");
    let done = pool.online(behind, &mut go).unwrap();
    assert!(done.repaired_bytes > 100_000 && done.lost == 0, "{done:?}");
    pool.export().unwrap();
    for (i, disk) in disks.iter().enumerate() {
        let one = std::slice::from_ref(disk);
        let mut pool = open(env(68), one, Mode::ReadOnly).unwrap();
        let found = icecore_pool::scrub::scrub(&mut pool, &mut go).unwrap();
        assert_eq!((found.damaged, found.unseen.len()), (0, 0), "side {i}");
        drop(pool);
        judge("mir3", one);
    }
}

#[test]
fn devices_that_do_not_fit() {
    let all = disks(1, SIZE);
    let mut pool = create(env(58), "mir", &all, NewKind::Single, 9);
    let first = leaf(&pool, "/sim/mir-0.img");
    let small = Arc::new(SimDisk::with_sector("small", SIZE / 2, 512));
    let coarse = Arc::new(SimDisk::with_sector("coarse", SIZE, 4096));
    for (disk, why) in [(small, "device is too small"), (coarse, "higher alignment requirement")] {
        let e = pool.attach(first, side(&disk, "/sim/x.img"), &mut go).unwrap_err();
        assert!(e.to_string().contains(why), "{e}");
        assert_eq!(disk.stats().writes, 0, "nothing was written to it");
    }
    assert!(pool.attach(Guid(5), side(&all[0], "/sim/x.img"), &mut go).is_err());
    let device: &dyn Device = &*all[0];
    assert!(device.size() == SIZE && !pool.is_dirty());
}
