//! Pools that are not whole, or that were damaged when OpenZFS had them: what is said of them, and what is left.

use crate::support::Desk;
use icecore_check::fixture::{fixture, fixture_copy, tests_data};
use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// A folder with copies of images of `tests-data/states`.
fn folder(desk: &Desk, images: &[&str]) -> PathBuf {
    let folder = desk.path("images");
    std::fs::create_dir_all(&folder).unwrap();
    for image in images {
        fixture_copy(&format!("states/{image}.img"), &folder.join(format!("{image}.img")));
    }
    folder
}

/// The same damage, logged with the feature `head_errlog` and without: the files that OpenZFS named. It leaves out
/// snapshots made in the txg in which the block was born (`check_filesystem` asks for later ones only), we do not.
#[test]
fn errors_that_openzfs_logged() {
    for pool in ["errnew", "errold"] {
        let desk = Desk::new();
        let image = fixture(&format!("states/{pool}.img"));
        desk.ok(&format!("zpool import -d {} -o readonly=on {pool}", image.display()));
        let status = desk.ok(&format!("zpool status -v {pool}"));
        let theirs = std::fs::read_to_string(tests_data().join(format!("states/{pool}.errors"))).unwrap();
        let files = |text: &str| -> BTreeSet<String> {
            let list = text.split("following files:").nth(1).unwrap_or_default();
            list.lines().map(|l| l.trim_start().to_owned()).filter(|l| !l.is_empty()).collect()
        };
        assert!(files(&theirs).len() > 4);
        assert!(files(&status).is_superset(&files(&theirs)), "{pool}: {status}");
        let more: Vec<String> = files(&status).difference(&files(&theirs)).cloned().collect();
        let known: &[&str] = if pool == "errnew" { &["errnew/d/sp ace@s:/q"] } else { &[] };
        assert_eq!(more, known, "{pool}");
        desk.ok(&format!("zpool export {pool}"));
    }
}

#[test]
fn without_one_of_its_vdevs() {
    let desk = Desk::new();
    // What holds most data is not there; the metadata is on the special vdevs.
    let dir = folder(&desk, &["classes-0", "classes-2", "classes-3", "classes-4", "classes-5"]);
    let import = format!("zpool import -d {}", dir.display());
    desk.refused(
        &format!("{import} -o readonly=on classes"),
        1,
        &["classes-1.img", "'zpool import -F classes'"],
    );
    let done = desk.run(&format!("{import} -F classes"));
    assert_eq!(done.status, 0, "{}", done.err);
    for words in ["classes is not whole", "classes-1.img", "Lost with the devices that are missing"] {
        assert!(done.err.contains(words), "{}", done.err);
    }
    let listed = desk.ok("zfs list -H -o name -t all -r classes");
    assert!(listed.contains("classes/data@s") && listed.contains("classes/dd"), "{listed}");
    assert!(desk.ok("icecore ls classes/data").contains("text"));
    // What is left is copied, what is not is named.
    let out = desk.path("out");
    std::fs::create_dir(&out).unwrap();
    let done = desk.run(&format!("icecore cp -r classes/data@s classes/dd {}", out.display()));
    assert_eq!(done.status, 1, "{}", done.err);
    assert!(done.err.contains("text") && done.err.contains("is absent"), "{}", done.err);
    assert_eq!(std::fs::read_to_string(out.join("dd/s1")).unwrap().lines().count(), 60);
    desk.refused("zfs snapshot classes@x", 1, &["readonly=on"]);
    desk.ok("zpool export classes");
}

/// Its names are gone; its files are not.
#[test]
fn with_a_rotten_directory() {
    let desk = Desk::new();
    let dir = folder(&desk, &["salvage"]);
    let import = format!("zpool import -d {} -o readonly=on salvage", dir.display());
    desk.ok(&import);
    let object = desk.ok("icecore ls -di salvage/tree:many");
    let object = object.split_whitespace().next().unwrap().to_owned();
    let names = desk.ok("icecore ls -i salvage/tree:many");
    let seventh = names.lines().find(|l| l.contains("file number 7,")).unwrap();
    let seventh = seventh.split_whitespace().next().unwrap().to_owned();
    let blocks = desk.ok(&format!("icecore inspect pointers salvage/tree {object}"));
    desk.ok("zpool export salvage");
    let image = std::fs::File::options().write(true).open(dir.join("salvage.img")).unwrap();
    let copies = blocks.split("dva=[").skip(1).filter_map(|b| b.split(']').next());
    let copies = copies.flat_map(|c| c.split(", "));
    let places: Vec<u64> =
        copies.map(|c| u64::from_str_radix(c.split(':').nth(1).unwrap(), 16).unwrap()).collect();
    assert!(places.len() > 1, "{blocks}");
    for place in places {
        image.write_all_at(b"rot", place + (4 << 20) + 8).unwrap();
    }
    desk.ok(&import);
    let done = desk.run("icecore ls -R salvage/tree");
    assert_eq!(done.status, 1);
    assert!(done.err.contains("checksum error"), "{}", done.err);
    assert!(done.text().contains(&format!("#{seventh}\n")), "{}", done.text());
    assert!(done.text().contains("small"), "the walk goes on");
    assert_eq!(desk.ok(&format!("icecore cat salvage/tree:many/#{seventh}")), "7\n");
    assert_eq!(desk.run(&format!("icecore cat salvage/tree:a/#{seventh}")).status, 1, "it is not in there");
    let out = desk.path("out");
    let done = desk.run(&format!("icecore cp -r salvage/tree {}", out.display()));
    assert_eq!(done.status, 1);
    assert_eq!(std::fs::read_to_string(out.join(format!("many/#{seventh}"))).unwrap(), "7\n");
    assert!(out.join("a/b/text").exists());
    desk.ok("zpool export salvage");
}

/// A destroyed pool is listed and taken with `-D` only, and stands in nobody's way.
#[test]
fn destroyed_pools() {
    let desk = Desk::with_pool("gone");
    let import = format!("zpool import -d {}", desk.path("gone").display());
    desk.ok("zpool destroy -f gone");
    assert!(!desk.ok(&import).contains("gone"));
    let listed = desk.ok(&format!("{import} -D"));
    assert!(listed.contains("pool: gone\n") && listed.contains("(DESTROYED)"), "{listed}");
    desk.refused(&format!("{import} -D gone"), 1, &["'-f'"]);
    desk.ok(&format!("{import} -D -f gone"));
    desk.ok("zpool export gone");
    assert!(desk.ok(&import).contains("pool: gone\n"));
}
