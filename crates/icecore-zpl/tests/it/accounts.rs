//! Space and objects by user, group and project: kept up in file systems that OpenZFS had mounted, compared with the sums
//! over all heads after each commit and with what zdb prints.

use crate::write::{Bench, Dice, Model, step};
use icecore_check::fixture::{fixture, tests_data};
use icecore_check::{accounts, zdb, zoo};
use icecore_format::objset::{
    FLAG_PROJECTQUOTA_COMPLETE, FLAG_USERACCOUNTING_COMPLETE, FLAG_USEROBJACCOUNTING_COMPLETE,
};
use icecore_zpl::Dataset;
use icecore_zpl::write::{Change, What};
use std::collections::BTreeMap;

fn check(b: &Bench) {
    let fs = b.fs();
    accounts::check(b.pool.io(), &fs).unwrap();
}

/// The lines "NAME = NUMBER" below the head of object `id` in zdb's listing.
fn printed(text: &str, id: i64) -> BTreeMap<String, u64> {
    let head = |line: &str| line.split_whitespace().next().and_then(|n| n.parse::<i64>().ok());
    let mut lines =
        text.lines().skip_while(|l| !(head(l) == Some(id) && l.contains("ZFS user/group/project used")));
    lines.next();
    lines
        .take_while(|l| !l.contains("Object  lvl"))
        .filter_map(|l| l.trim().split_once(" = "))
        .filter_map(|(name, value)| Some((name.to_string(), value.parse().ok()?)))
        .collect()
}

fn walk(name: &str, dataset: &str, seed: u64) {
    let mut b = Bench::counted(name, dataset);
    check(&b);
    let (mut model, mut dice) = (Model::default(), Dice(seed));
    let top = b.create(b.root(), "walked", What::Directory).unwrap();
    b.home(top);
    for n in 0..300 {
        step(&mut b, &mut model, &mut dice, n);
        if dice.roll(6) == 0 {
            let files: Vec<_> = model.names.values().map(|(_, id)| *id).collect();
            let owner = |dice: &mut Dice| Some(1000 + dice.roll(5) as u32).filter(|_| dice.roll(3) > 0);
            if let Some(id) = dice.pick(&files).copied() {
                let (uid, gid) = (owner(&mut dice), owner(&mut dice));
                let change = Change { uid, gid, ..Change::default() };
                b.op(|w, os, io, now| w.set_attributes(os, io, id, &change, now)).unwrap();
            }
        }
        if n % 25 == 24 {
            b.pool.commit().unwrap();
            check(&b);
        }
    }
    b.pool.commit().unwrap();
    check(&b);
    let kept = accounts::kept(b.pool.io(), b.fs().objset()).unwrap();
    assert!(kept[0].len() > 6 && kept[1].len() > 6 && !kept[2].is_empty(), "{kept:?}");
    let phys = b.fs().objset().phys().clone();
    assert_ne!(phys.flags() & FLAG_USERACCOUNTING_COMPLETE, 0);
    assert_eq!(phys.local_mac() != [0; 32], dataset.contains("encrypted"));
    b.pool.export().unwrap();
    if zdb::zdb_available() {
        zdb::zdb_clean(&b.dir, "main").unwrap();
        // Sums of encrypted datasets are encrypted: zdb without the key prints none.
        if !dataset.contains("encrypted") {
            let text = zdb::run(&b.dir, dataset, "-dddd").unwrap();
            for (id, sums) in [-1, -2, -3].into_iter().zip(&kept) {
                assert_eq!(&printed(&text, id), sums, "object {id}");
            }
        }
    }
    std::fs::remove_dir_all(&b.dir).unwrap();
}

#[test]
fn sums_follow_every_change() {
    walk("sums", "main/plain", 11);
}

#[test]
fn sums_of_encrypted_file_systems() {
    walk("crypt-sums", "main/encrypted/docs", 12);
}

/// A file system made here is accounted for from its first object on.
#[test]
fn begun_with_the_file_system() {
    for (name, dataset) in [("begun", "main/new"), ("crypt-begun", "main/encrypted/new")] {
        let mut b = Bench::new(name, dataset, &[], 128 << 10);
        check(&b);
        b.create(b.root(), "file", What::Regular).unwrap();
        b.pool.commit().unwrap();
        check(&b);
        let (kept, flags) = {
            let fs = b.fs();
            (accounts::kept(b.pool.io(), fs.objset()).unwrap(), fs.objset().phys().flags())
        };
        assert_eq!((kept[0].get("obj-3e8"), kept[1].get("obj-64")), (Some(&1), Some(&1)), "{kept:?}");
        assert!(kept[0].contains_key("0") && kept[2].contains_key("0"), "{kept:?}");
        assert_eq!(
            flags,
            FLAG_USERACCOUNTING_COMPLETE | FLAG_USEROBJACCOUNTING_COMPLETE | FLAG_PROJECTQUOTA_COMPLETE
        );
        b.judge();
    }
}

/// What OpenZFS itself counted, in every pool of the zoo that it accounted for: the sums are of what we take them for.
#[test]
fn sums_that_openzfs_made() {
    let mut pools = vec![("main".to_string(), vec![fixture("cold/main.img")])];
    let folder = zoo::folders().map_or_else(tests_data, |(images, expected)| {
        for image in zoo::IMAGES {
            let files: Option<Vec<_>> =
                image.files.iter().map(|f| zoo::find(&images, &format!("{f}.img"))).collect();
            pools.extend(files.map(|files| (image.pool.to_string(), files)));
        }
        expected
    });
    let mut seen = 0;
    for (name, files) in pools {
        let Ok(mut pool) = zoo::open(&files) else { continue };
        zoo::load_keys(&mut pool, &folder);
        for dataset in zoo::manifests_of(&folder, &name) {
            let Ok(Dataset::Filesystem(fs)) = icecore_zpl::open(pool.io(), &pool.dsl, &dataset) else {
                continue;
            };
            let all =
                FLAG_USERACCOUNTING_COMPLETE | FLAG_USEROBJACCOUNTING_COMPLETE | FLAG_PROJECTQUOTA_COMPLETE;
            if fs.objset().phys().flags() & all == all {
                accounts::check(pool.io(), &fs).unwrap_or_else(|e| panic!("{dataset}: {e}"));
                seen += 1;
            }
        }
    }
    eprintln!("{seen} file systems and snapshots are accounted for");
    assert!(seen >= 10, "{seen}");
}
