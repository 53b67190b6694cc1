//! New pools are what OpenZFS expects of one.

use crate::support::{create, disks, env, judge, open};
use icecore_pool::{Mode, TXG_INITIAL};
use icecore_vdev::create::NewKind;

#[test]
fn single_disk() {
    let disks = disks(1, 128 << 20);
    let pool = create(env(1), "single", &disks, NewKind::Single, 12);
    assert_eq!(pool.synced().0, TXG_INITIAL);
    judge("single", &disks);
    let again = open(env(2), &disks, Mode::ReadOnly).unwrap();
    assert_eq!((again.name(), again.guid(), again.space()), ("single", pool.guid(), pool.space()));
}

#[test]
fn mirror_with_small_sectors() {
    let disks = disks(2, 96 << 20);
    let pool = create(env(3), "mirror2", &disks, NewKind::Mirror, 9);
    pool.export().unwrap();
    judge("mirror2", &disks);
}

#[test]
fn same_seed_same_bytes() {
    let [a, b] = [7, 7].map(|seed| {
        let disks = disks(2, 96 << 20);
        let mut pool = create(env(seed), "twin", &disks, NewKind::Mirror, 12);
        pool.commit().unwrap();
        disks.iter().map(|d| d.fingerprint()).collect::<Vec<_>>()
    });
    assert_eq!(a, b);
}
