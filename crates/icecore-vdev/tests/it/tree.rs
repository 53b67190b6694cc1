//! The opened tree: reads, repair, writes, bounds; over simulated disks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use icecore_env::Device;
use icecore_format::label::START_SIZE;
use icecore_format::{Dva, Guid};
use icecore_sim::{ShuffledWorkers, SimDisk, SimEntropy};
use icecore_vdev::create::{NewKind, NewLeaf, NewTop, NewTree, build};
use icecore_vdev::tree::{Bad, Health};
use icecore_vdev::{VdevError, VdevSet};

const DISK: u64 = 64 << 20;

fn disks(n: usize) -> Vec<Arc<SimDisk>> {
    (0..n).map(|i| Arc::new(SimDisk::new(&format!("disk{i}"), DISK))).collect()
}

fn new_tree(kind: NewKind, disks: &[Arc<SimDisk>], ashift: u64) -> NewTree {
    let leaf = |d: &Arc<SimDisk>| NewLeaf {
        device: d.clone() as Arc<dyn Device>,
        path: format!("/{}", d.name()),
        whole_disk: None,
    };
    let leaves = disks.iter().map(leaf).collect();
    build(vec![NewTop { kind, leaves, log: false, ashift: Some(ashift) }], &SimEntropy::new(3)).unwrap()
}

fn open(kind: NewKind, disks: &[Arc<SimDisk>], ashift: u64) -> VdevSet {
    let tree = new_tree(kind, disks, ashift);
    VdevSet::open(&tree.root, &tree.devices).unwrap()
}

fn block(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed) ^ (i >> 8) as u8).collect()
}

fn dva(offset: u64) -> Dva {
    Dva::new(0, offset, 4096, false)
}

#[test]
fn what_is_written_is_read_behind_the_labels() {
    let d = disks(1);
    let set = open(NewKind::Single, &d, 12);
    let data = block(8192, 1);
    set.write(0, 1 << 20, &data).unwrap();
    let mut raw = vec![0; 8192];
    d[0].peek(START_SIZE + (1 << 20), &mut raw);
    assert_eq!(raw, data);
    let got = set.read(&dva(1 << 20), 8192, &mut |b| b == data).unwrap();
    assert_eq!((got.data == data, got.bad.len(), got.repaired), (true, 0, 0));
    set.flush().unwrap();
    assert_eq!(d[0].unflushed(), 0);
}

#[test]
fn data_short_of_a_sector_is_filled_up_with_zeros() {
    let d = disks(1);
    let set = open(NewKind::Single, &d, 12);
    set.write(0, 0, &block(4096, 9)).unwrap();
    set.write(0, 0, &block(512, 1)).unwrap();
    let mut raw = vec![0; 4096];
    d[0].peek(START_SIZE, &mut raw);
    assert_eq!(raw[..512], block(512, 1));
    assert!(raw[512..].iter().all(|b| *b == 0));
}

#[test]
fn a_mirror_repairs_wrong_and_unreadable_copies() {
    let d = disks(3);
    let set = open(NewKind::Mirror, &d, 12);
    let data = block(4096, 2);
    for offset in [0, 1 << 20, 2 << 20] {
        set.write(0, offset, &data).unwrap();
        // Two of three copies are bad, whichever is asked first.
        d[0].flip(START_SIZE + offset + 77, 0);
        d[1].flip(START_SIZE + offset + 4000, 7);
        let mut repaired = 0;
        while repaired < 2 {
            let got = set.read(&dva(offset), 4096, &mut |b| b == data).unwrap();
            assert_eq!(got.data, data);
            assert_eq!(got.repaired, got.bad.len());
            assert!(got.bad.iter().all(|b| matches!(b.why, Bad::Checksum)));
            repaired += got.repaired;
            if got.bad.is_empty() {
                break;
            }
        }
        let copies = set.read_all_copies(&dva(offset), 4096).unwrap();
        let good = copies.iter().filter(|(_, c)| c.as_ref().is_ok_and(|c| *c == data)).count();
        assert_eq!(good, 1 + repaired, "every bad copy met was repaired");
    }
    d[0].plan(|f| f.unreadable.push(0..DISK));
    d[1].plan(|f| f.unreadable.push(0..DISK));
    d[2].plan(|f| f.unreadable.push(0..DISK));
    match set.read(&dva(0), 4096, &mut |_| true) {
        Err(VdevError::NoGoodCopy(bad)) => assert_eq!(bad.len(), 3),
        other => panic!("{other:?}"),
    }
    assert!(set.leaves().iter().all(|l| l.counts().read.load(Ordering::Relaxed) > 0));
}

#[test]
fn nothing_good_left_names_every_copy() {
    let d = disks(2);
    let set = open(NewKind::Mirror, &d, 9);
    match set.read(&dva(512), 512, &mut |_| false) {
        Err(e @ VdevError::NoGoodCopy(_)) => {
            let text = e.to_string();
            assert!(text.contains("disk0") && text.contains("disk1"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_write_that_fails_on_one_side_names_it() {
    let d = disks(2);
    let set = open(NewKind::Mirror, &d, 12);
    d[1].plan(|f| f.unwritable.push(0..DISK));
    match set.write(0, 0, &block(4096, 1)) {
        Err(VdevError::Partial { done: 1, failed }) => assert_eq!(failed[0].device, "disk1"),
        other => panic!("{other:?}"),
    }
    d[1].plan(|f| f.failing_flushes = [0].into());
    assert!(matches!(set.flush(), Err(VdevError::Partial { done: 1, .. })));
}

#[test]
fn addresses_outside_the_vdev_are_refused() {
    let set = open(NewKind::Single, &disks(1), 12);
    let asize = set.tops()[0].asize;
    for (vdev, offset, len) in [
        (1, 0, 4096),
        (0, asize, 4096),
        (0, asize - 4096, 8192),
        (0, 0, 0),
        (0, 0, 100),
        (0, 0, 32 << 20),
        (0, (1 << 63) - 512, 512),
    ] {
        let got = set.read(&Dva::new(vdev, offset, 4096, false), len, &mut |_| true);
        assert!(matches!(got, Err(VdevError::BadAddress { .. })), "{vdev} {offset} {len}: {got:?}");
    }
}

#[test]
fn missing_devices_degrade_or_break() {
    let d = disks(3);
    let tree = new_tree(NewKind::Mirror, &d, 12);
    let guids: Vec<Guid> = tree.devices.keys().copied().collect();
    let mut some: BTreeMap<_, _> = tree.devices.clone();
    some.remove(&guids[0]);
    some.remove(&guids[1]);
    let set = VdevSet::open(&tree.root, &some).unwrap();
    assert_eq!(set.health(), Health::Degraded);
    assert_eq!(set.absent().len(), 2);
    set.check_readable().unwrap();
    set.write(0, 0, &block(512, 1)).unwrap();
    set.read(&dva(0), 512, &mut |_| true).unwrap();
    let none = VdevSet::open(&tree.root, &BTreeMap::new()).unwrap();
    assert_eq!(none.health(), Health::Unavail);
    match none.check_readable() {
        Err(VdevError::Missing { leaves, .. }) => assert_eq!(leaves.len(), 3),
        other => panic!("{other:?}"),
    }
    assert!(none.write(0, 0, &block(512, 1)).is_err());
    assert!(matches!(none.flush(), Err(VdevError::Partial { done: 0, .. })));
}

#[test]
fn a_device_that_shrank_is_not_used() {
    let d = disks(2);
    let tree = new_tree(NewKind::Mirror, &d, 12);
    let mut devices = tree.devices.clone();
    let first = *devices.keys().next().unwrap();
    devices.insert(first, Arc::new(SimDisk::new("small", DISK - (1 << 20))));
    let set = VdevSet::open(&tree.root, &devices).unwrap();
    assert_eq!(set.health(), Health::Degraded);
    assert!(set.absent()[0].absence().contains("too small"));
}

#[test]
fn raidz_survives_as_many_losses_as_it_has_parity() {
    for (kind, width) in [(NewKind::Raidz(1), 3), (NewKind::Raidz(2), 4), (NewKind::Raidz(3), 5)] {
        let NewKind::Raidz(p) = kind else { unreachable!() };
        let d = disks(width);
        let set = open(kind, &d, 12);
        let blocks: Vec<(u64, Vec<u8>)> = (0..20)
            .scan(0, |at, i| {
                let data = block((1 + i % 9) * 4096, i as u8);
                let here = *at;
                *at += set.tops()[0].psize_to_asize(data.len() as u64) + ((i as u64 % 3) << 20);
                Some((here, data))
            })
            .collect();
        for (at, data) in &blocks {
            set.write(0, *at, data).unwrap();
        }
        // Silent damage on as many children as there is parity; afterwards nothing is wrong any more.
        for disk in d.iter().take(usize::from(p)) {
            for (at, _) in &blocks {
                let row = (at >> 12) / width as u64;
                for r in 0..3 {
                    disk.flip(START_SIZE + ((row + r) << 12) + 9, 2);
                }
            }
        }
        let before = d[width - 1].fingerprint();
        for pass in 0..2 {
            for (at, data) in &blocks {
                let got = set.scrub(&dva(*at), data.len() as u64, None, &mut |b| b == data).unwrap();
                assert_eq!(&got.data, data);
                assert_eq!(got.repaired, got.bad.len());
                assert!(pass == 0 || got.bad.is_empty(), "repaired in the first pass");
            }
        }
        assert_eq!(d[width - 1].fingerprint(), before, "sound children are left alone");
        for disk in d.iter().skip(width - usize::from(p)) {
            disk.unplug();
        }
        for (at, data) in &blocks {
            let got = set.read(&dva(*at), data.len() as u64, &mut |b| b == data).unwrap();
            assert_eq!(&got.data, data);
        }
        d[0].unplug();
        let (at, data) = &blocks[8];
        let got = set.read(&dva(*at), data.len() as u64, &mut |b| b == data);
        assert!(matches!(got, Err(VdevError::NoGoodCopy(_))));
    }
}

#[test]
fn batches_keep_their_order_whatever_the_workers_do() {
    let d = disks(2);
    let set = open(NewKind::Mirror, &d, 9);
    let data: Vec<Vec<u8>> = (0..50).map(|i| block(512, i)).collect();
    let writes: Vec<(u64, u64, Vec<u8>)> =
        data.iter().zip(0..).map(|(b, i)| (0, i * 512, b.clone())).collect();
    set.write_many(&ShuffledWorkers::new(1), &writes).unwrap();
    let reads: Vec<(Dva, u64)> = (0..50).map(|i| (dva(i * 512), 512)).collect();
    let got = set.read_many(&ShuffledWorkers::new(2), &reads, &|i, b| b == data[i]);
    assert!(got.into_iter().zip(&data).all(|(g, b)| g.unwrap().data == *b));
    for (at, b) in (0..50).map(|i| dva(i * 512)).zip(&data) {
        let sides = set.read_all_copies(&at, 512).unwrap();
        assert!(sides.len() == 2 && sides.iter().all(|(_, side)| side.as_ref().is_ok_and(|s| s == b)));
    }
}

#[test]
fn a_batch_that_one_side_did_not_take_is_an_error() {
    let d = disks(2);
    let set = open(NewKind::Mirror, &d, 9);
    let writes: Vec<(u64, u64, Vec<u8>)> = (0..9).map(|i| (0, i * 512, block(512, i as u8))).collect();
    d[1].unplug();
    let failed = set.write_many(&ShuffledWorkers::new(1), &writes);
    assert!(matches!(failed, Err(VdevError::Partial { done: 1, .. })), "{failed:?}");
}
