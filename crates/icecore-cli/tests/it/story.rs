//! The story the program is for, typed as its user types it.

use crate::support::{Desk, stream};
use icecore_check::fixture::tests_data;

/// A pool of OpenZFS goes onto a cold drive, first whole, then what changed; the drive is unplugged in between.
#[test]
fn the_cold_backup() {
    let desk = Desk::with_main();
    desk.pool("backup", 256);
    desk.piped("zfs send -w -R main@root", "zfs receive -F backup");
    desk.export_and_judge("backup");

    desk.import("backup");
    desk.piped("zfs send -w -R -I main@root main@newsnapshot", "zfs receive backup");
    let list = desk.ok("zfs list -Hp -r -t all -o name,type,guid,logicalreferenced backup");
    desk.export_and_judge("backup");

    // OpenZFS received the same two streams into backup-a/main.
    let theirs = std::fs::read_to_string(tests_data().join("cold/backup-a.list.tsv")).unwrap();
    let mut expected = Vec::new();
    for line in theirs.lines().filter(|l| l.starts_with("backup-a/main")) {
        let f: Vec<&str> = line.split('\t').collect();
        let (name, kind) = (f[0].replacen("backup-a/main", "backup", 1), f[1]);
        // A head has a guid of its own on every pool.
        let guid = if kind == "snapshot" { f[2] } else { "" };
        expected.push([&name, kind, guid, f[5]].join("\t"));
    }
    let mut ours: Vec<String> = Vec::new();
    for line in list.lines() {
        let mut f: Vec<&str> = line.split('\t').collect();
        if f[1] != "snapshot" {
            f[2] = "";
        }
        ours.push(f.join("\t"));
    }
    ours.sort();
    expected.sort();
    assert_eq!(ours, expected);
}

/// The same streams from files that OpenZFS wrote, and back out of the backup to a third pool.
#[test]
fn streams_of_openzfs_and_home_again() {
    let desk = Desk::with_pool("backup");
    let said = desk.feed("zfs receive -v -u -F backup", &stream("main@root.raw-R.zfs"));
    assert!(said.contains("receiving full stream of main@root into backup@root"), "{said}");
    assert!(said.contains("received ") && said.contains("/sec)"), "{said}");
    let said = desk.feed("zfs receive -v -u backup", &stream("main@root-newsnapshot.raw-R-I.zfs"));
    assert!(
        said.contains("receiving incremental stream of main@2023-09-27 into backup@2023-09-27"),
        "{said}"
    );
    desk.pool("home", 128);
    desk.piped("zfs send -w -R backup@newsnapshot", "zfs receive -F home");
    let strip = |pool: &str| {
        desk.ok(&format!("zfs list -Hp -r -t snapshot -o name,guid,logicalreferenced {pool}"))
            .replace(pool, "")
    };
    assert_eq!(strip("home"), strip("backup"));
    assert_eq!(desk.get("encryptionroot", "home/encrypted/docs"), "home/encrypted");
    desk.export_and_judge("backup");
    desk.export_and_judge("home");
}

/// The demo is the story again, told by the program itself.
#[test]
fn the_demo_says_what_it_proved() {
    let desk = Desk::new();
    let dir = desk.path("demo");
    let said = desk.ok(&format!("icecore demo {}", dir.display()));
    for words in [
        "$ zfs send -w -R main@root | zfs receive -F backup-a/main ",
        "$ zfs send -w -R main@root | zfs receive -F backup-b/main ",
        "ok only @monday is left",
        "ok found and healed",
        "ok nothing is left to heal",
        "ok refused: destination has been modified",
        "ok 6 files, 2.81M: every byte the same",
        "ok no key is loaded",
        "ok 21 snapshots, 1087 blocks",
        "Proven",
    ] {
        assert!(said.contains(words), "{said}\nand not: {words}");
    }
    assert!(!said.contains('\x1b'), "colours, and this is no terminal");
    // Its drives stay, OpenZFS believes them, and no service is left.
    for (folder, pool) in [("main", "main"), ("a", "backup-a"), ("rescue", "rescue"), ("copy", "copy")] {
        if icecore_check::zdb::zdb_available() {
            assert_eq!(icecore_check::zdb::zdb_clean(&dir.join(folder), pool), Ok(()));
        }
    }
    assert!(
        std::fs::read(dir.join("restored/photo.raw")).unwrap()
            == std::fs::read(dir.join("folder/photo.raw")).unwrap()
    );
    let status =
        desk.command("icecore service status").env("ICECORE_STATE_DIR", dir.join("state")).output().unwrap();
    assert!(!String::from_utf8_lossy(&status.stdout).contains("process "), "{status:?}");
    desk.refused(&format!("icecore demo {}", dir.display()), 1, &["holds drives of an earlier demo"]);
}
