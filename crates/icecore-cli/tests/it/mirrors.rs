//! Sides of mirrors as they are typed: attached, taken offline, brought back, replaced, detached.

use crate::support::{Desk, stream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[test]
fn a_mirror_grows_loses_a_side_and_gets_it_back() {
    let desk = Desk::with_pool("tank");
    let first = desk.path("tank/drive.img").display().to_string();
    desk.feed("zfs receive tank/plain", &stream("plain@newsnapshot.R.zfs"));
    let seen = |desk: &Desk| desk.bytes("zfs send -R tank/plain@newsnapshot");
    let before = seen(&desk);
    let second = desk.drive("tank/two.img", 128).display().to_string();
    desk.ok(&format!("zpool attach tank {first} {second}"));
    let status = desk.ok("zpool status tank");
    assert!(status.contains("mirror-0") && status.contains("scan: resilvered "), "{status}");
    assert!(status.contains(" with 0 errors on "), "{status}");
    desk.ok(&format!("zpool offline tank {second}"));
    let status = desk.ok("zpool status tank");
    assert!(status.contains("DEGRADED") && status.contains("OFFLINE"), "{status}");
    assert!(status.contains("taken offline by the administrator"), "{status}");
    // Only what is not well, by other names, and when.
    let part = desk.ok("zpool status -e tank");
    assert!(part.contains("two.img") && part.contains("mirror-0") && !part.contains("drive.img"), "{part}");
    let guids = desk.ok("zpool status -g -T u tank");
    assert!(guids.starts_with("1") && !guids.contains("two.img") && !guids.contains("mirror-0"), "{guids}");
    desk.refused("zpool status -T x tank", 2, &["usage"]);
    desk.refused(
        &format!("zpool offline tank {first}"),
        1,
        &[&format!("cannot offline {first}: no valid replicas")],
    );
    desk.ok("zfs create tank/later");
    desk.ok("zfs snapshot -r tank@s");
    desk.ok("zpool online tank two.img");
    let status = desk.ok("zpool status tank");
    assert!(status.contains(" state: ONLINE") && !status.contains("OFFLINE"), "{status}");
    let third = desk.drive("tank/three.img", 128).display().to_string();
    desk.ok(&format!("zpool replace tank {first} {third}"));
    assert_eq!(seen(&desk), before);
    // What was replaced belongs to nobody, and can be used again.
    desk.ok(&format!("zpool create -m none other {first}"));
    desk.ok("zpool export other");
    desk.ok(&format!("zpool labelclear -f {first}"));
    std::fs::remove_file(&first).unwrap();
    desk.ok("zpool export tank");
    desk.judge("tank");
    each_alone(&desk, &["two.img", "three.img"]);
    desk.import("tank");
    desk.ok("zpool detach tank two.img");
    let status = desk.ok("zpool status tank");
    assert!(!status.contains("mirror-0") && status.contains("three.img"), "{status}");
    assert_eq!(seen(&desk), before);
    std::fs::remove_file(desk.path("tank/two.img")).unwrap();
    desk.export_and_judge("tank");
}

#[test]
fn what_cannot_become_a_side_or_leave() {
    let desk = Desk::with_pool("tank");
    let first = desk.path("tank/drive.img").display().to_string();
    let small = desk.drive("small.img", 70).display().to_string();
    let used = desk.pool("used", 128).display().to_string();
    desk.ok("zpool export used");
    let before = (desk.seen("tank"), desk.ok("zpool status tank"));
    for (line, words) in [
        (
            format!("attach tank {first} {small}"),
            format!("cannot attach {small} to {first}: device is too small"),
        ),
        (
            format!("replace tank {first} {small}"),
            format!("cannot replace {first} with {small}: device is too small"),
        ),
        (format!("attach tank {first} {used}"), "is part of exported pool 'used'".into()),
        (format!("attach tank {first} {first}"), "is part of active pool 'tank'".into()),
        (
            format!("attach tank nosuch {small}"),
            format!("cannot attach {small} to nosuch: no such device in pool"),
        ),
        (format!("attach none {first} {small}"), "cannot open 'none': no such pool".into()),
        (format!("detach tank {first}"), "only applicable to mirror and replacing vdevs".into()),
        ("detach tank nosuch".into(), "cannot detach nosuch: no such device in pool".into()),
        (format!("offline tank {first}"), format!("cannot offline {first}: no valid replicas")),
        ("online tank nosuch".into(), "couldn't find device \"nosuch\" in pool \"tank\"".into()),
    ] {
        // What OpenZFS's kernel refuses of these ends with -1, what its command refuses with 1.
        let kernel = ["cannot attach", "cannot replace"].iter().any(|w| words.starts_with(w));
        let status = if kernel || line.starts_with("detach") { 255 } else { 1 };
        desk.refused(&format!("zpool {line}"), status, &[&words]);
    }
    for (line, words) in [
        ("attach", "missing pool name argument"),
        ("attach tank", "missing <device> specification"),
        ("attach tank a", "missing <new_device> specification"),
        ("attach tank a b c", "too many arguments"),
        ("detach tank", "missing <device> specification"),
        ("offline", "missing pool name"),
        ("online tank", "missing device name"),
    ] {
        desk.refused(&format!("zpool {line}"), 2, &[words]);
    }
    assert_eq!((desk.seen("tank"), desk.ok("zpool status tank")), before);
    desk.import("used");
    desk.export_and_judge("tank");
}

/// What a device has grown by is the pool's once it is asked for, and `zdb` finds the pool sound there.
#[test]
fn devices_that_have_grown() {
    let desk = Desk::with_pool("tank");
    let first = desk.path("tank/drive.img");
    let grow = |path: &std::path::Path, mib: u64| {
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(mib << 20).unwrap();
    };
    let size = |desk: &Desk| desk.ok("zpool list -Hp -o size tank").trim().parse::<u64>().unwrap();
    let before = size(&desk);
    desk.ok(&format!("zpool online -e tank {}", first.display()));
    assert_eq!(size(&desk), before, "there was nothing to grow by");
    // The end of what is added is not empty: it has the newest labels of another pool.
    let other = desk.pool("other", 512);
    desk.ok("zpool export other");
    let labels = std::fs::read(&other).unwrap();
    grow(&first, 512);
    let file = std::fs::OpenOptions::new().write(true).open(&first).unwrap();
    let end = labels.len() - (512 << 10);
    std::os::unix::fs::FileExt::write_all_at(&file, &labels[end..], end as u64).unwrap();
    desk.ok("zfs create tank/fs");
    assert_eq!(size(&desk), before, "nobody asked for it");
    desk.ok(&format!("zpool online -e tank {}", first.display()));
    let after = size(&desk);
    assert!(after > before + (350 << 20), "{before} {after}");
    // More than there was room for before.
    let mut bytes = vec![0; 200 << 20];
    icecore_sim::Rng::new(7).fill(&mut bytes);
    std::fs::write(desk.path("bytes"), &bytes).unwrap();
    desk.ok("icecore cp bytes tank/fs:bytes");
    desk.export_and_judge("tank");
    desk.import("tank");
    assert_eq!(size(&desk), after);
    assert!(desk.bytes("icecore cat tank/fs:bytes") == bytes);
    assert!(desk.ok("zpool scrub -w tank").contains("0 errors"));
    // Both sides of a mirror have to have it.
    let second = desk.drive("tank/two.img", 512).display().to_string();
    desk.ok(&format!("zpool attach tank {} {second}", first.display()));
    grow(&first, 700);
    desk.ok(&format!("zpool online -e tank {}", first.display()));
    assert_eq!(size(&desk), after);
    let device = icecore_env::FileDevice::open(&first, icecore_env::Access::Probe).unwrap();
    assert_eq!(icecore_vdev::Labels::read(&device).good().count(), 4, "the last two are where it ends now");
    grow(second.as_ref(), 700);
    desk.ok("zpool online -e tank mirror-0");
    assert!(size(&desk) > after + (150 << 20));
    desk.export_and_judge("tank");
}

/// Each side by itself is the whole pool.
fn each_alone(desk: &Desk, names: &[&str]) {
    for name in names {
        let alone = desk.path("alone");
        std::fs::create_dir_all(&alone).unwrap();
        std::fs::copy(desk.path(&format!("tank/{name}")), alone.join(name)).unwrap();
        if icecore_check::zdb::zdb_available() {
            assert_eq!(icecore_check::zdb::zdb_clean(&alone, "tank"), Ok(()), "{name}");
        }
        std::fs::remove_dir_all(&alone).unwrap();
    }
}

#[test]
fn a_side_that_comes_back_is_brought_up_to_date_by_itself() {
    let desk = Desk::with_pool("tank");
    let first = desk.path("tank/drive.img").display().to_string();
    let second = desk.drive("tank/two.img", 128).display().to_string();
    desk.ok(&format!("zpool attach tank {first} {second}"));
    desk.ok("zpool export tank");
    let (there, away) = (desk.path("tank/two.img"), desk.path("away.img"));
    std::fs::rename(&there, &away).unwrap();
    desk.import("tank");
    let status = desk.ok("zpool status tank");
    assert!(status.contains("DEGRADED") && status.contains("UNAVAIL"), "{status}");
    desk.feed("zfs receive tank/plain", &stream("plain@newsnapshot.R.zfs"));
    desk.ok("zpool export tank");
    std::fs::rename(&away, &there).unwrap();
    desk.import("tank");
    desk.ok("zpool wait -t resilver tank");
    let status = desk.ok("zpool status tank");
    assert!(status.contains(" state: ONLINE") && status.contains("scan: resilvered "), "{status}");
    assert!(!status.contains("missed writes") && !status.contains("(resilvering)"), "{status}");
    desk.ok("zpool export tank");
    each_alone(&desk, &["drive.img", "two.img"]);
    // Nobody brings back what was taken out of service by hand. Nor are drives where the pool's configuration says.
    for name in ["drive.img", "two.img"] {
        std::fs::create_dir_all(desk.path("elsewhere/tank")).unwrap();
        std::fs::rename(desk.path(&format!("tank/{name}")), desk.path(&format!("elsewhere/tank/{name}")))
            .unwrap();
    }
    let elsewhere = desk.path("elsewhere/tank");
    let second = elsewhere.join("two.img").display().to_string();
    desk.ok(&format!("zpool import -d {} tank", elsewhere.display()));
    desk.ok(&format!("zpool offline tank {second}"));
    desk.ok("zfs snapshot -r tank@later");
    desk.ok("zpool export tank");
    desk.ok(&format!("zpool import -d {} tank", elsewhere.display()));
    desk.ok("zpool wait tank");
    let status = desk.ok("zpool status tank");
    assert!(status.contains("DEGRADED") && status.contains("OFFLINE"), "{status}");
    desk.ok("zpool online tank two.img");
    assert!(desk.ok("zpool status tank").contains(" state: ONLINE"));
    desk.ok("zpool export tank");
    std::fs::remove_dir_all(desk.path("tank")).unwrap();
    std::fs::rename(elsewhere, desk.path("tank")).unwrap();
    each_alone(&desk, &["drive.img", "two.img"]);
}

/// A side is gone when the pool is opened, and is plugged in while it is in use.
#[test]
fn a_side_is_brought_back_without_an_export() {
    let desk = Desk::with_pool("tank");
    let first = desk.path("tank/drive.img").display().to_string();
    let second = desk.drive("tank/two.img", 128).display().to_string();
    desk.ok(&format!("zpool attach tank {first} {second}"));
    for (n, line) in [format!("zpool online tank {second}"), "zpool clear tank".into()].iter().enumerate() {
        let copy = std::fs::read(&second).unwrap();
        desk.ok("icecore service stop");
        std::fs::remove_file(&second).unwrap();
        desk.feed(&format!("zfs receive tank/plain{n}"), &stream("plain@newsnapshot.R.zfs"));
        let status = desk.ok("zpool status tank");
        assert!(status.contains("DEGRADED") && status.contains("UNAVAIL"), "{status}");
        desk.refused(&format!("zpool online tank {second}"), 1, &["the device cannot be opened"]);
        std::fs::write(&second, copy).unwrap();
        desk.ok(line);
        desk.ok("zpool wait -t resilver tank");
        let status = desk.ok("zpool status tank");
        assert!(status.contains(" state: ONLINE") && status.contains("scan: resilvered "), "{status}");
        desk.ok("zpool clear tank");
        assert_eq!(desk.ok("zpool status -x"), "all pools are healthy\n");
    }
    desk.ok("zpool export tank");
    each_alone(&desk, &["drive.img", "two.img"]);
}

/// Sides come and go while others make, snapshot, receive and destroy.
#[test]
fn the_pool_is_in_use_while_sides_are_filled() {
    let desk = Desk::with_pool("tank");
    let first = desk.path("tank/drive.img").display().to_string();
    let package = stream("plain@newsnapshot.R.zfs");
    desk.feed("zfs receive tank/plain", &package);
    let (over, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let rounds = rounds.fetch_add(1, Ordering::Relaxed);
                desk.ok(&format!("zfs create tank/r{rounds}"));
                desk.ok(&format!("zfs snapshot -r tank@s{rounds}"));
                desk.feed(&format!("zfs receive tank/r{rounds}/plain"), &package);
                if rounds > 0 {
                    desk.ok(&format!("zfs destroy -r tank/r{}", rounds - 1));
                    desk.ok(&format!("zfs destroy -r tank@s{}", rounds - 1));
                }
            }
        });
        let second = desk.drive("tank/two.img", 128).display().to_string();
        let third = desk.drive("tank/three.img", 128).display().to_string();
        desk.ok(&format!("zpool attach tank {first} {second}"));
        desk.ok(&format!("zpool replace tank {first} {third}"));
        while rounds.load(Ordering::Relaxed) < 4 && !others.is_finished() {
            desk.ok(&format!("zpool offline tank {second}"));
            desk.ok("zfs snapshot -r tank@between");
            desk.ok("zfs destroy -r tank@between");
            desk.ok(&format!("zpool online tank {second}"));
        }
        over.store(true, Ordering::Relaxed);
    });
    let status = desk.ok("zpool status tank");
    assert!(status.contains(" state: ONLINE") && status.contains("No known data errors"), "{status}");
    std::fs::remove_file(&first).unwrap();
    desk.ok("zpool export tank");
    each_alone(&desk, &["two.img", "three.img"]);
}
