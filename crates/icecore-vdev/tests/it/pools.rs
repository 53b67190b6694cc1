//! From new devices to labels to probing, without OpenZFS: the two directions agree.

use std::collections::BTreeSet;
use std::sync::Arc;

use icecore_env::{Device, What};
use icecore_format::Guid;
use icecore_format::uberblock::{MAGIC, UberblockPhys};
use icecore_sim::{SimDisk, SimEntropy};
use icecore_vdev::create::{self, NewKind, NewLeaf, NewTop, NewTree, build, check_unused};
use icecore_vdev::label::{self, LabelSet};
use icecore_vdev::probe::{Candidate, Unused, assemble};
use icecore_vdev::tree::Health;
use icecore_vdev::{PoolConfig, VdevError, VdevSet};
use zerocopy::little_endian::U64;

struct Made {
    tree: NewTree,
    config: PoolConfig,
    set: VdevSet,
    disks: Vec<Arc<SimDisk>>,
}

fn top(kind: NewKind, disks: &[Arc<SimDisk>], log: bool) -> NewTop {
    let leaf = |d: &Arc<SimDisk>| NewLeaf {
        device: d.clone() as Arc<dyn Device>,
        path: format!("/{}", d.name()),
        whole_disk: None,
    };
    NewTop { kind, leaves: disks.iter().map(leaf).collect(), log, ashift: None }
}

fn new_disks(n: usize) -> Vec<Arc<SimDisk>> {
    (0..n).map(|i| Arc::new(SimDisk::new(&format!("disk{i}"), 64 << 20))).collect()
}

/// A pool of a mirror of three, a single disk and a log, labelled at txg 4.
fn make() -> Made {
    let disks = new_disks(5);
    let tops = vec![
        top(NewKind::Mirror, &disks[..3], false),
        top(NewKind::Single, &disks[3..4], false),
        top(NewKind::Single, &disks[4..], true),
    ];
    let tree = build(tops, &SimEntropy::new(11)).unwrap();
    let config = create::pool_config("tank", &tree, 7, "here");
    let set = VdevSet::open(&tree.root, &tree.devices).unwrap();
    let made = Made { tree, config, set, disks };
    for leaf in made.set.leaves() {
        label::init(&**leaf.device().unwrap(), &made.label(leaf.guid, 0)).unwrap();
    }
    made.commit(4);
    made
}

impl Made {
    fn label(&self, leaf: Guid, txg: u64) -> icecore_format::nvlist::NvList {
        let mut config = self.config.clone();
        config.txg = Some(txg);
        config.label_for(leaf, &BTreeSet::from(["org.example:feature".to_owned()])).unwrap().to_nvlist()
    }
    fn commit(&self, txg: u64) {
        self.set.write_labels(LabelSet::Even, &|l| Some(self.label(l.guid, txg))).unwrap();
        self.set.write_uberblock(&self.uberblock(txg), false).unwrap();
        self.set.write_labels(LabelSet::Odd, &|l| Some(self.label(l.guid, txg))).unwrap();
        self.set.flush().unwrap();
    }
    fn uberblock(&self, txg: u64) -> UberblockPhys {
        UberblockPhys {
            magic: U64::new(MAGIC),
            version: U64::new(5000),
            txg: U64::new(txg),
            guid_sum: U64::new(self.tree.root.guid_sum()),
            ..UberblockPhys::default()
        }
    }
}

fn candidates(disks: &[Arc<SimDisk>]) -> Vec<Candidate> {
    disks.iter().filter_map(|d| Candidate::examine(d.clone(), None)).collect()
}

#[test]
fn a_new_pool_is_found_whole() {
    let made = make();
    let (pools, aux) = assemble(&candidates(&made.disks));
    assert!(aux.is_empty());
    let [pool] = pools.as_slice() else { panic!("{} pools", pools.len()) };
    assert_eq!((pool.name.as_str(), pool.guid), ("tank", made.tree.root.guid));
    assert_eq!(pool.health(), Health::Online);
    assert!(pool.complete && pool.absent.is_empty() && pool.left_over.is_empty() && pool.stale.is_empty());
    assert_eq!(pool.uberblock.unwrap().txg().0, 4);
    assert_eq!(pool.other_host(7), None);
    assert_eq!(pool.other_host(8), Some((7, "here")));
    assert_eq!(pool.vdevs.tops().len(), 3);
    assert!(pool.vdevs.tops()[2].is_log());
    // The MOS's copy of the tree and the labels' one differ in nothing but what only the MOS has.
    let root = pool.config.vdev_tree.as_ref().unwrap();
    let stripped: Vec<_> = made.tree.root.children.iter().map(|t| t.for_label().to_nvlist()).collect();
    assert_eq!(root.children.iter().map(|t| t.to_nvlist()).collect::<Vec<_>>(), stripped);
}

#[test]
fn same_seed_same_labels() {
    let (a, b) = (make(), make());
    let prints = |m: &Made| m.disks.iter().map(|d| d.fingerprint()).collect::<Vec<_>>();
    assert_eq!(prints(&a), prints(&b));
}

#[test]
fn missing_stale_and_copied_devices_are_told_apart() {
    let made = make();
    let old = made.disks[1].fork();
    made.commit(9);
    let mut disks = made.disks.clone();
    disks[1] = Arc::new(old);
    disks[2] = made.disks[0].clone(); // the same device a second time, and disk2 away
    disks.remove(3);
    let (pools, _) = assemble(&candidates(&disks));
    let pool = &pools[0];
    assert_eq!(pool.health(), Health::Unavail);
    assert!(!pool.complete);
    assert_eq!(pool.uberblock.unwrap().txg().0, 9);
    let guid = |i: usize| made.set.leaves()[i].guid;
    assert_eq!(pool.stale, BTreeSet::from([guid(1)]));
    assert_eq!(pool.left_over.len(), 1);
    assert_eq!((pool.left_over[0].guid, pool.left_over[0].why), (guid(0), Unused::Duplicate));
    assert_eq!(pool.absent.iter().map(|a| a.guid).collect::<Vec<_>>(), [guid(2)]);
    assert_eq!(pool.absent[0].path, "/disk2");
    // Number 1 is known to exist and by nothing else.
    assert!(matches!(pool.vdevs.check_readable(), Err(VdevError::Missing { .. })));
}

#[test]
fn a_stale_copy_loses_to_the_newer_device_whatever_the_order() {
    let made = make();
    let old = Arc::new(made.disks[0].fork());
    made.commit(9);
    for swap in [false, true] {
        let mut disks = made.disks.clone();
        disks.push(old.clone());
        if swap {
            disks.rotate_right(1);
        }
        let (pools, _) = assemble(&candidates(&disks));
        assert!(pools[0].stale.is_empty());
        assert_eq!(pools[0].left_over.len(), 1);
        let used = &pools[0].devices[&made.set.leaves()[0].guid];
        assert_eq!(used.uberblock.unwrap().txg().0, 9);
    }
}

#[test]
fn a_label_newer_than_every_uberblock_does_not_count() {
    let made = make();
    let mut renamed = made.config.clone();
    renamed.name = Some("never".into());
    renamed.txg = Some(5);
    let features = BTreeSet::new();
    let label = |g| renamed.label_for(g, &features).map(|l| l.to_nvlist());
    made.set.write_labels(LabelSet::Even, &|l| label(l.guid)).unwrap();
    let (pools, _) = assemble(&candidates(&made.disks));
    assert_eq!(pools[0].name, "tank");
    // Once the uberblock is there it does.
    made.set.write_uberblock(&made.uberblock(5), false).unwrap();
    let (pools, _) = assemble(&candidates(&made.disks));
    assert_eq!(pools[0].name, "never");
}

#[test]
fn strangers_are_named() {
    let made = make();
    // disk2 is detached: the others' labels no longer name it.
    let mut smaller = made.config.clone();
    smaller.vdev_tree.as_mut().unwrap().children[0].children.truncate(2);
    smaller.txg = Some(6);
    let features = BTreeSet::new();
    let label = |g| smaller.label_for(g, &features).map(|l| l.to_nvlist());
    made.set.write_labels(LabelSet::All, &|l| label(l.guid)).unwrap();
    made.set.write_uberblock(&made.uberblock(6), false).unwrap();
    let (pools, _) = assemble(&candidates(&made.disks));
    assert_eq!(pools[0].left_over.len(), 1);
    assert_eq!(pools[0].left_over[0].why, Unused::Stranger);
    assert_eq!(pools[0].health(), Health::Online);
}

#[test]
fn pools_of_one_name_are_told_apart_by_guid() {
    let made = make();
    let other = new_disks(1);
    let tree = build(vec![top(NewKind::Single, &other, false)], &SimEntropy::new(12)).unwrap();
    let config = create::pool_config("tank", &tree, 7, "here");
    let mut label = config.label_for(tree.root.children[0].guid, &BTreeSet::new()).unwrap();
    label.txg = Some(99);
    label::init(&*other[0], &label.to_nvlist()).unwrap();
    let both: Vec<Arc<SimDisk>> = made.disks.iter().chain(&other).cloned().collect();
    let (pools, _) = assemble(&candidates(&both));
    let mut guids: Vec<Guid> = pools.iter().map(|p| p.guid).collect();
    guids.sort();
    let mut expected = vec![made.tree.root.guid, tree.root.guid];
    expected.sort();
    assert_eq!(guids, expected);
    let tank = pools.iter().find(|p| p.guid == made.tree.root.guid).unwrap();
    assert_eq!((tank.devices.len(), tank.left_over.len(), tank.uberblock.unwrap().txg().0), (5, 0, 4));
}

#[test]
fn a_device_is_known_by_any_one_of_its_labels() {
    let made = make();
    let guid = made.tree.root.children[1].guid;
    for kept in 0..4 {
        let disk = Arc::new(SimDisk::from_bytes("disk3", &made.disks[3].to_bytes()));
        for l in (0..4).filter(|l| *l != kept) {
            let label = icecore_format::label::label_offset(disk.size(), l).unwrap();
            disk.poke(label + icecore_format::label::CONFIG_AT + 200, &[0x5a; 8]);
        }
        let all = [&made.disks[..3], std::slice::from_ref(&disk), &made.disks[4..]].concat();
        let (pools, _) = assemble(&candidates(&all));
        assert_eq!((pools[0].health(), pools[0].absent.len()), (Health::Online, 0));
        let damaged = pools[0].damaged_labels();
        let [one] = damaged.as_slice() else { panic!("{damaged:?}") };
        assert_eq!((one.guid, one.device.as_str()), (guid, "disk3"));
        let lost: Vec<usize> = (0..4).filter(|l| *l != kept as usize).collect();
        assert_eq!(one.faults.iter().map(|f| f.0).collect::<Vec<_>>(), lost);
    }
    assert!(assemble(&candidates(&made.disks)).0[0].damaged_labels().is_empty());
}

#[test]
fn devices_that_hold_something_are_refused() {
    let made = make();
    let text = check_unused(&*made.disks[0]).unwrap_err().to_string();
    assert!(text.contains("potentially active pool 'tank'"), "{text}");
    let disk = SimDisk::new("disk", 64 << 20);
    check_unused(&disk).unwrap();
    disk.poke(0x438, &[0x53, 0xef]);
    assert!(check_unused(&disk).unwrap_err().to_string().contains("ext4"));
    let disk: Arc<dyn Device> = Arc::new(SimDisk::new("disk", 256 << 20));
    icecore_vdev::gpt::write(&disk, &SimEntropy::new(1)).unwrap();
    assert!(check_unused(&*disk).unwrap_err().to_string().contains("GPT with 2"));
}

#[test]
fn impossible_layouts_are_refused() {
    let disks = new_disks(3);
    let small = vec![Arc::new(SimDisk::new("small", (64 << 20) - 512))];
    let entropy = SimEntropy::new(1);
    for tops in [
        vec![],
        vec![top(NewKind::Single, &disks, false)],
        vec![top(NewKind::Mirror, &disks[..1], false)],
        vec![top(NewKind::Raidz(3), &disks, false)],
        vec![top(NewKind::Raidz(0), &disks, false)],
        vec![top(NewKind::Single, &disks[..1], true)],
        vec![top(NewKind::Single, &small, false)],
    ] {
        assert!(build(tops, &entropy).is_err());
    }
}

#[test]
fn a_device_unplugged_during_a_label_write_is_named() {
    let made = make();
    made.disks[3].unplug();
    match made.set.write_uberblock(&made.uberblock(5), false) {
        Err(VdevError::Partial { done: 4, failed }) => {
            assert_eq!(failed[0].device, "disk3");
            let icecore_vdev::tree::Bad::Device(e) = &failed[0].why else { panic!() };
            assert_eq!(e.what, What::Gone);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn zdb_reads_our_labels() {
    if std::process::Command::new("zdb").arg("-h").output().is_err() {
        eprintln!("SKIPPED: no zdb on this machine");
        return;
    }
    let made = make();
    let dir = tempfile::tempdir().unwrap();
    for (disk, kind) in made.disks.iter().zip(["mirror", "mirror", "mirror", "file", "file"]) {
        let path = dir.path().join(disk.name());
        disk.save(&path).unwrap();
        let out = std::process::Command::new("zdb").arg("-lu").arg(&path).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{text}");
        let pool = format!("pool_guid: {}", made.tree.root.guid);
        let kind = format!("type: '{kind}'");
        for wanted in ["name: 'tank'", "vdev_children: 3", "labels = 0 1 2 3", "txg = 4", &pool, &kind] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
        assert!(!text.to_lowercase().contains("bad"), "{text}");
    }
}
