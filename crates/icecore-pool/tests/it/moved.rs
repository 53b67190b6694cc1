//! Small pools made by OpenZFS's own code (tests-data/recipes/layouts.c): removed vdevs, one of which leads to the
//! other, and a draid with a distributed spare in use. Every sector of their data is known.

use crate::support::{self, env};
use crate::walk::{open, read_datasets, read_mos};
use icecore_check::fixture::fixture;
use icecore_dmu::{BlockStore, Objset, Want};
use icecore_format::label::START_SIZE;
use icecore_format::{Blkptr, Guid, ObjectId};
use icecore_pool::{Mode, Pool, PoolError};
use icecore_sim::SimDisk;
use icecore_vdev::probe::{Unused, assemble, probe};
use icecore_vdev::tree::Health;
use std::path::PathBuf;
use std::sync::Arc;

fn images(pool: &str, which: &[usize]) -> Vec<PathBuf> {
    which.iter().map(|i| fixture(&format!("layouts/{pool}-{i}.img"))).collect()
}

/// Calls `each` with object, block number and pointer of every block of POOL/data that holds data.
fn data_blocks(pool: &Pool, mut each: impl FnMut(&Objset, ObjectId, u64, &Blkptr)) {
    let io: &dyn BlockStore = pool.io();
    let head = pool.dsl.lookup_head(io, &format!("{}/data", pool.name())).unwrap();
    let ds = pool.dsl.dataset(io, head.obj).unwrap();
    let os = Objset::open(io, head.obj, &ds.bp, Want::Logical).unwrap();
    let mut at = ObjectId(0);
    while let Some(id) = os.next_object(io, at).unwrap() {
        at = id;
        let dn = os.dnode(io, id).unwrap();
        for blkid in 0..=dn.maxblkid() {
            let bp = os.blkptr(io, id, &dn, 0, blkid).unwrap();
            if dn.block_size() == 128 << 10 && !bp.is_hole() {
                each(&os, id, blkid, &bp);
            }
        }
    }
}

/// Reads all data and compares it with what the recipe wrote; how many blocks.
fn compare(pool: &Pool) -> u64 {
    let mut blocks = 0;
    data_blocks(pool, |os, id, blkid, _| {
        let data = os.read(pool.io(), id, blkid << 17, 128 << 10).unwrap();
        for (sector, bytes) in (blkid << 8..).zip(data.chunks(512)) {
            let word = (id.0 << 48 | sector).to_le_bytes();
            assert!(bytes.chunks(8).all(|b| b == word), "object {id} sector {sector}");
        }
        blocks += 1;
    });
    blocks
}

#[test]
fn removed_vdevs_read_from_where_their_contents_went() {
    for sides in [&[0, 1][..], &[0], &[1]] {
        let pool = open(&images("gone", sides), Mode::ReadOnly).unwrap();
        assert_eq!(compare(&pool), 6 * 3 + 3 * 2 + 1);
        read_mos(&pool);
        read_datasets("gone", &pool);
        let (mut moved, mut in_pieces, mut twice) = (0, 0, 0);
        data_blocks(&pool, |_, _, _, bp| {
            let dva = &bp.dvas()[0];
            let places = pool.io().vdevs().places(dva, bp.psize()).unwrap();
            assert!(places.iter().all(|p| p.0 == 0), "only the mirror is left: {places:?}");
            moved += u64::from(dva.vdev() != 0);
            in_pieces += u64::from(places.len() > 1);
            twice += u64::from(dva.vdev() == 1);
        });
        eprintln!(
            "{sides:?}: {moved} blocks moved, {in_pieces} in pieces, {twice} from the vdev removed first"
        );
        assert!(moved > 10 && in_pieces > 10 && twice > 5);
    }
}

/// As `zdb -b` finds: every allocated byte is pointed to, by way of the removed vdevs too.
#[test]
fn space_adds_up() {
    for (pool, devices) in [("gone", vec![0, 1]), ("spared", vec![0, 1, 2, 3, 4, 5])] {
        let pool = open(&images(pool, &devices), Mode::ReadOnly).unwrap();
        let balance = icecore_pool::leaks::balance(&pool).unwrap();
        assert!(balance.leaked.is_empty() && balance.unallocated.is_empty(), "{balance:?}");
        assert_eq!((balance.allocated, balance.shared), (balance.used, 0));
        assert_eq!(balance.allocated, pool.space().allocated);
    }
}

/// What a destroyed file system still has and what only the checkpoint has is allocated, and no leak.
#[test]
fn what_waits_to_be_freed_and_what_a_checkpoint_keeps_adds_up() {
    let pool = open(&[fixture("odds/odds.img")], Mode::ReadOnly).unwrap();
    let balance = icecore_pool::leaks::balance(&pool).unwrap();
    assert!(balance.leaked.is_empty() && balance.unallocated.is_empty(), "{balance:?}");
    assert_eq!((balance.used, pool.space().allocated), (balance.allocated, balance.allocated));
    assert_eq!(
        (pool.dsl.freeing(pool.io()).unwrap(), pool.checkpoint_space().unwrap()),
        (229_376, Some(1_101_824))
    );
    let pointers: u64 = balance.kinds.values().map(|t| t.allocated).sum();
    assert_eq!(pointers, 880_640, "as zdb -bcc counts them");
}

/// A destroyed clone's list of its own blocks is freed part by part: what is left of it is allocated, and no leak.
#[test]
fn what_a_destroyed_clones_list_still_has_adds_up() {
    let pool = open(&[fixture("odds/livel.img")], Mode::ReadOnly).unwrap();
    let balance = icecore_pool::leaks::balance(&pool).unwrap();
    assert!(balance.leaked.is_empty() && balance.unallocated.is_empty(), "{balance:?}");
    assert_eq!((balance.used, pool.space().allocated), (balance.allocated, balance.allocated));
    assert_eq!(balance.allocated, 2_936_832, "as zdb -bcc counts them");
    assert_eq!(pool.dsl.freeing(pool.io()).unwrap(), 1_753_088, "as zpool get says");
}

/// The header of a block in parts takes a sector of the vdev it was written to, after that was removed too.
#[test]
fn headers_of_parts_on_a_removed_vdev_take_whole_sectors() {
    let files = [0, 2].map(|i| fixture(&format!("odds/gangrm-{i}.img")));
    let pool = open(&files, Mode::ReadOnly).unwrap();
    let mut headers = 0;
    let unseen = icecore_pool::walk::every_block(&pool, &mut |bp, _| {
        headers += bp.dvas().iter().filter(|dva| bp.is_gang() && dva.vdev() == 1).count();
        true
    });
    assert!(unseen.is_empty() && headers > 5, "{headers} {unseen:?}");
    let balance = icecore_pool::leaks::balance(&pool).unwrap();
    assert!(balance.leaked.is_empty() && balance.unallocated.is_empty(), "{balance:?}");
    assert_eq!(balance.allocated, 1_773_568, "as zdb -bcc counts them");
}

#[test]
fn a_removed_device_is_recognised_by_its_label() {
    let found = assemble(&probe(&images("gone", &[0, 1, 2]), &*env(1).workers).candidates).0;
    let [pool] = found.as_slice() else { panic!("{} pools", found.len()) };
    assert_eq!(pool.health(), Health::Unavail, "labels do not tell that vdevs were removed; the MOS does");
    assert_eq!(pool.left_over.len(), 1);
    assert_eq!(pool.left_over[0].why, Unused::Detached);
    assert!(pool.left_over[0].device.ends_with("gone-2.img"));
}

#[test]
fn removed_vdevs_forbid_writing() {
    let disks = load(&images("gone", &[0, 1]));
    match support::open(env(1), &disks, Mode::Write) {
        Err(PoolError::ReadOnlyOnly(why)) => {
            assert!(why.iter().any(|w| w.contains("device_removal")), "{why:?}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened for writing"),
    }
}

fn load(files: &[PathBuf]) -> Vec<Arc<SimDisk>> {
    files.iter().map(|f| Arc::new(SimDisk::load(f).unwrap())).collect()
}

/// A block in pieces whose sides of the mirror are each damaged in another piece is put together from both. With
/// one piece damaged on both sides it is lost, and said to be.
#[test]
fn pieces_are_put_together_from_the_good_sides() {
    let disks = load(&images("gone", &[0, 1]));
    let pool = support::open(env(1), &disks, Mode::ReadOnly).unwrap();
    let mut blocks = Vec::new();
    data_blocks(&pool, |_, id, blkid, bp| {
        let places = pool.io().vdevs().places(&bp.dvas()[0], bp.psize()).unwrap();
        if places.len() > 2 {
            blocks.push((id, blkid, *bp, places));
        }
    });
    assert!(blocks.len() > 3);
    let damage = |places: &[(u64, u64, u64)]| {
        disks[0].flip(START_SIZE + places[0].1 + 100, 3);
        disks[1].flip(START_SIZE + places[1].1 + 200, 5);
        disks[0].flip(START_SIZE + places[2].1, 0);
    };
    blocks.iter().for_each(|(_, _, _, places)| damage(places));
    compare(&pool);
    // These devices take writes: reading has put right what it met.
    let (_, _, bp, places) = &blocks[0];
    let good = &mut |b: &[u8]| icecore_transform::checksum::verify(bp, b, Some(pool.io().salt())).is_ok();
    let scrub = |good: &mut dyn FnMut(&[u8]) -> bool| {
        pool.io().vdevs().scrub(&bp.dvas()[0], bp.psize(), None, good).unwrap().bad.len()
    };
    assert_eq!(scrub(good), 0);
    damage(places);
    assert_eq!(scrub(good), 3);
    assert_eq!(scrub(good), 0);
    damage(places);
    disks[1].flip(START_SIZE + places[0].1 + 100, 4);
    assert!(pool.io().vdevs().read(&bp.dvas()[0], bp.psize(), good).is_err());
}

#[test]
fn a_distributed_spare_stands_in_for_a_device() {
    let all = [0, 1, 2, 3, 4, 5];
    let mut sets = vec![all.to_vec()];
    // Beside the device that is offline any one other may be missing.
    for gone in all {
        sets.push(all.into_iter().filter(|i| *i != gone).collect());
        sets.push(all.into_iter().filter(|i| *i != gone && *i != 0).collect());
    }
    for set in &sets {
        let pool = open(&images("spared", set), Mode::ReadOnly).unwrap_or_else(|e| panic!("{set:?}: {e}"));
        assert_eq!(compare(&pool), 4 * 3 + 3 * 2, "{set:?}");
        read_mos(&pool);
        read_datasets("spared", &pool);
        assert_eq!(pool.io().vdevs().health(), Health::Degraded);
    }
    for (a, b) in [(1, 2), (2, 5), (3, 4)] {
        let set: Vec<usize> = all.into_iter().filter(|i| *i != a && *i != b).collect();
        match open(&images("spared", &set), Mode::ReadOnly) {
            Err(PoolError::Devices(why)) => {
                assert!(
                    why.contains("draid1:2d:6c:2s-0")
                        && why.contains("5 of its 6 devices are needed, 4 are here")
                );
                for gone in [a, b] {
                    assert!(why.contains(&format!("spared-{gone}.img (guid ")), "{why}");
                }
            }
            Err(other) => panic!("{set:?}: {other}"),
            Ok(_) => panic!("{set:?} was opened"),
        }
    }
}

/// The spare is listed, and its place in the tree is known.
#[test]
fn spares_are_known() {
    let pool = open(&images("spared", &[0, 1, 2, 3, 4, 5]), Mode::ReadOnly).unwrap();
    let names: Vec<String> = pool.spares().unwrap().iter().map(|s| s.path.clone().unwrap()).collect();
    assert_eq!(names, ["draid1-0-0", "draid1-0-1"]);
    assert!(pool.caches().unwrap().is_empty());
    let vdevs = pool.io().vdevs();
    let spare = &vdevs.config().children[0].children[0];
    assert_eq!(spare.kind.name(), "spare");
    assert_eq!(vdevs.health_of(spare.guid), Some(Health::Degraded));
    assert_eq!(vdevs.health_of(spare.children[1].guid), Some(Health::Online));
    assert_eq!(vdevs.health_of(Guid(1)), None);
}
