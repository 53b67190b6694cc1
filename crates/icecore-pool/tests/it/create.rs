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

/// A pool without each feature that can be done without, in turn, works and is sound.
#[test]
fn pools_without_single_features() {
    use icecore_pool::features::{Unsaid, chosen, of_new_pools};
    let mut made = 0;
    for feature in of_new_pools() {
        // What needs it goes with it.
        let mut off = vec![feature];
        while let Some(more) = of_new_pools().find(|f| {
            !off.iter().any(|o| o.guid == f.guid)
                && f.depends.iter().any(|d| off.iter().any(|o| o.guid == *d))
        }) {
            off.push(more);
        }
        let asked: Vec<(String, bool)> = off.iter().map(|f| (f.name.to_string(), false)).collect();
        let Ok(features) = chosen(&asked, Unsaid::Enabled) else { continue };
        made += 1;
        let name = format!("without{made}");
        let disks = crate::support::disks(1, 80 << 20);
        let mut pool =
            crate::support::create_with(crate::support::env(2), &name, &disks, NewKind::Single, 12, features);
        for i in 0..3 {
            let (io, dsl) = pool.parts();
            dsl.create_filesystem(io, &format!("{name}/fs{i}"), &[]).unwrap();
            pool.commit().unwrap();
            let (io, dsl) = pool.parts();
            dsl.snapshot(io, &[&format!("{name}/fs{i}@now")], &[]).unwrap();
            pool.commit().unwrap();
        }
        let (io, dsl) = (pool.io(), &pool.dsl);
        let enabled = dsl.features(io).unwrap();
        assert!(off.iter().all(|f| enabled.iter().all(|(guid, _)| guid != f.guid)), "{}", feature.name);
        pool.export().unwrap();
        open(env(3), &disks, Mode::Write).unwrap();
        // The judge takes its time: the features that change how space and metadata are kept, one by one.
        if ["log_spacemap", "spacemap_v2", "vdev_zaps_v2", "bookmark_v2"].contains(&feature.name) {
            judge(&name, &disks);
        }
    }
    assert!(made > 25, "{made}");
}
