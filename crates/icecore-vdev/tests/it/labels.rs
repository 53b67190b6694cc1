//! Reading and writing labels.

use icecore_env::Device;
use icecore_format::Txg;
use icecore_format::label::label_offset;
use icecore_sim::SimDisk;
use icecore_vdev::label::{self, LabelFault, LabelSet, Labels};
use icecore_vdev::{PoolConfig, PoolState, VdevKind};

use crate::fixture::{MAIN_SIZE, main_labels};

const ALL: Txg = Txg(u64::MAX);

#[test]
fn labels_by_openzfs_say_what_zdb_says() {
    let disk = main_labels();
    let labels = Labels::read(&disk);
    assert_eq!(labels.good().count(), 4);
    let c = labels.best(ALL).unwrap();
    assert_eq!(c.version, Some(5000));
    assert_eq!(c.name.as_deref(), Some("main"));
    assert_eq!(c.pool_state(), PoolState::EXPORTED);
    assert_eq!(c.written(), Txg(104));
    assert_eq!(c.pool_guid, Some(4_757_920_022_321_401_414));
    assert_eq!((c.hostid, c.hostname.as_deref()), (Some(1_072_962), Some("vmhost")));
    assert_eq!(c.vdev_children, Some(1));
    let top = c.vdev_tree.as_ref().unwrap();
    assert_eq!(top.kind, VdevKind::File);
    assert_eq!((top.ashift, top.asize), (Some(12), Some(263_716_864)));
    assert_eq!((top.metaslab_array, top.metaslab_shift), (Some(132), Some(24)));
    assert_eq!(top.path.as_deref(), Some("/tmp/main.img"));
    let features: Vec<&str> = c.features_for_read.as_ref().unwrap().iter().map(String::as_str).collect();
    assert_eq!(
        features,
        ["com.delphix:embedded_data", "com.delphix:hole_birth", "com.klarasystems:vdev_zaps_v2"]
    );
    assert_eq!(c.to_nvlist(), *c.raw(), "untouched, it is the same nvlist");
}

#[test]
fn uberblocks_by_openzfs_are_found_and_the_newest_wins() {
    let disk = main_labels();
    let found = label::read_uberblocks(&disk, Some(12));
    assert_eq!(found, label::read_uberblocks(&disk, None), "the slot size can be found out");
    assert!(found.len() > 30);
    let best = label::best_uberblock(&found, ALL).unwrap();
    assert_eq!(best.txg(), found.iter().map(|u| u.txg()).max().unwrap());
    assert!(best.txg() >= Txg(104) && !best.foreign);
    best.uberblock.check().unwrap();
    let older = label::best_uberblock(&found, Txg(best.txg().0 - 1)).unwrap();
    assert!(older.txg() < best.txg());
    // Written again by us, the slot is the same to the byte.
    let slot = icecore_format::uberblock::slot_of(12, best.txg(), false);
    assert_eq!(best.slot as u64, slot);
    let at = label_offset(MAIN_SIZE, best.label as u64).unwrap()
        + icecore_format::uberblock::slot_offset(12, slot);
    let (mut before, mut after) = (vec![0; 4096], vec![0; 4096]);
    disk.read_at(at, &mut before).unwrap();
    label::write_uberblock(&disk, &best.uberblock, 12, slot).unwrap();
    disk.read_at(at, &mut after).unwrap();
    assert_eq!(before, after);
}

#[test]
fn a_label_written_by_us_is_the_one_openzfs_wrote() {
    let disk = main_labels();
    let before = disk.fingerprint();
    let list = Labels::read(&disk).best(ALL).unwrap().to_nvlist();
    label::write_config(&disk, LabelSet::All, &list).unwrap();
    assert_eq!(disk.fingerprint(), before);
}

#[test]
fn any_flipped_bit_disqualifies_a_label_and_leaves_the_others() {
    for (l, at) in [(0, 20 << 10), (1, (128 << 10) - 1), (2, (16 << 10) + 3), (3, (128 << 10) - 40)] {
        let disk = main_labels();
        disk.flip(label_offset(MAIN_SIZE, l).unwrap() + at, 5);
        let labels = Labels::read(&disk);
        assert!(matches!(labels.each[l as usize], Err(LabelFault::Checksum)), "label {l}");
        assert_eq!(labels.good().count(), 3);
    }
}

#[test]
fn a_label_in_the_wrong_place_is_no_label() {
    let disk = main_labels();
    let mut label = vec![0; 256 << 10];
    disk.read_at(0, &mut label).unwrap();
    let other = SimDisk::new("other", MAIN_SIZE);
    other.write_at(256 << 10, &label).unwrap();
    let labels = Labels::read(&other);
    assert!(matches!(labels.each[0], Err(LabelFault::Blank)));
    assert!(matches!(labels.each[1], Err(LabelFault::Checksum)));
    assert!(label::read_uberblocks(&other, Some(12)).is_empty());
}

#[test]
fn unreadable_labels_and_tiny_devices_are_faults_not_panics() {
    let disk = main_labels();
    disk.plan(|f| f.unreadable.push(0..512 << 10));
    let labels = Labels::read(&disk);
    assert!(matches!(labels.each[0], Err(LabelFault::Device(_))));
    assert_eq!(labels.good().count(), 2);
    assert!(!label::read_uberblocks(&disk, Some(12)).is_empty());
    for size in [0, 512, 256 << 10, (1 << 20) - 512] {
        let tiny = SimDisk::new("tiny", size);
        assert!(Labels::read(&tiny).each.iter().all(|l| matches!(l, Err(LabelFault::NoRoom))));
        assert!(label::read_uberblocks(&tiny, None).is_empty());
    }
}

#[test]
fn one_bad_sector_hides_one_uberblock() {
    let disk = main_labels();
    let all = label::read_uberblocks(&disk, Some(12)).len();
    let ring = label_offset(MAIN_SIZE, 0).unwrap() + (128 << 10);
    disk.plan(|f| f.unreadable.push(ring + 5 * 4096..ring + 5 * 4096 + 512));
    assert_eq!(label::read_uberblocks(&disk, Some(12)).len(), all - 1);
}

#[test]
fn clearing_and_fresh_labels_leave_nothing_of_the_old_pool() {
    let disk = main_labels();
    let list = Labels::read(&disk).best(ALL).unwrap().to_nvlist();
    label::init(&disk, &list).unwrap();
    assert_eq!(Labels::read(&disk).good().count(), 4);
    assert!(label::read_uberblocks(&disk, None).is_empty());
    label::clear(&disk).unwrap();
    assert!(Labels::read(&disk).each.iter().all(|l| matches!(l, Err(LabelFault::Blank))));
    assert_eq!(disk.fingerprint(), SimDisk::new("blank", MAIN_SIZE).fingerprint());
}

#[test]
fn even_and_odd_labels_are_written_apart() {
    let disk = main_labels();
    let mut config = Labels::read(&disk).best(ALL).unwrap().clone();
    config.txg = Some(200);
    label::write_config(&disk, LabelSet::Even, &config.to_nvlist()).unwrap();
    let labels = Labels::read(&disk);
    let txgs: Vec<Txg> = labels.good().map(|(_, c)| c.written()).collect();
    assert_eq!(txgs, [Txg(200), Txg(104), Txg(200), Txg(104)]);
    assert_eq!(labels.best(ALL).unwrap().written(), Txg(200));
    assert_eq!(labels.best(Txg(199)).unwrap().written(), Txg(104), "newer than the uberblock: not valid");
}

#[test]
fn too_large_a_label_is_refused_before_anything_is_written() {
    let disk = main_labels();
    let before = disk.stats();
    let mut config = Labels::read(&disk).best(ALL).unwrap().clone();
    config.comment = Some("x".repeat(120_000));
    assert!(label::write_config(&disk, LabelSet::All, &config.to_nvlist()).is_err());
    assert_eq!(disk.stats().writes, before.writes);
}

#[test]
fn senseless_configurations_are_corrupt() {
    let list = Labels::read(&main_labels()).best(ALL).unwrap().to_nvlist();
    let check = |change: &dyn Fn(&mut icecore_format::nvlist::NvList)| {
        let mut bad = list.clone();
        let mut tree = bad.list("vdev_tree").unwrap().clone();
        change(&mut tree);
        bad.replace("vdev_tree", tree);
        assert!(PoolConfig::parse(&bad).is_err());
    };
    check(&|t| _ = t.remove("guid"));
    check(&|t| _ = t.remove("type"));
    check(&|t| _ = t.replace("ashift", 64_u64));
    check(&|t| _ = t.replace("metaslab_shift", 200_u64));
    check(&|t| _ = t.replace("asize", u64::MAX));
    check(&|t| _ = t.replace("type", "raidz"));
}

#[test]
fn the_newest_uberblock_is_the_best_of_all_whatever_is_damaged() {
    let disk = main_labels();
    let all = label::read_uberblocks(&disk, Some(12));
    let newest = label::best_uberblock(&all, ALL).unwrap().txg();
    let check = |disk: &SimDisk| {
        let all = label::read_uberblocks(disk, Some(12));
        for max in [ALL, newest, Txg(newest.0 - 1), Txg(newest.0 - 2), Txg(0)] {
            for ashift in [Some(12), None] {
                let best = label::best_uberblock(&all, max).copied();
                assert_eq!(label::newest_uberblock(disk, ashift, max), best, "up to {max}");
            }
        }
        label::newest_uberblock(disk, Some(12), ALL)
    };
    assert_eq!(check(&disk).unwrap().txg(), newest);
    // Whichever is the newest rots, one after another.
    for _ in 0..12 {
        let best = check(&disk).unwrap();
        let at = label_offset(MAIN_SIZE, best.label as u64).unwrap();
        disk.flip(at + icecore_format::uberblock::slot_offset(12, best.slot as u64) + 60, 1);
        assert_ne!(check(&disk), Some(best));
    }
    assert!(check(&disk).unwrap().txg() < newest);
    disk.plan(|f| f.unreadable.push(0..512 << 10));
    check(&disk);
}
