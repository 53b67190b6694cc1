//! What others' tools and OpenZFS's own tests need of the commands (`cargo xtask peers`): one test for each mend.

use crate::support::{Desk, failure};

/// `zpool destroy` gives the name and the devices free, and leaves the pool for `zpool import -D` of OpenZFS.
#[test]
fn a_destroyed_pool_is_gone_and_its_device_free() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create tank/fs");
    desk.refused("zpool destroy", 2, &["missing pool argument", "usage:"]);
    desk.refused("zpool destroy tank other", 2, &["too many arguments"]);
    desk.refused("zpool destroy nosuch", 1, &["cannot open 'nosuch': no such pool"]);
    desk.ok("zpool destroy tank");
    assert_eq!(desk.run("zpool list").err, "no pools available\n");
    let drive = desk.path("tank/drive.img");
    let found = desk.run(&format!("zpool import -d {}", desk.path("tank").display()));
    assert!(!found.text().contains("tank"), "{}", found.text());
    // What was destroyed does not stand against a new pool (`check_slice`, zpool_vdev.c).
    desk.ok(&format!("zpool create -m none again {}", drive.display()));
    desk.refused("zfs list tank/fs", 1, &["cannot open 'tank/fs': dataset does not exist"]);
}

/// As with a kernel, a pool lives on when the name of its file is gone.
#[test]
fn a_pool_outlives_the_name_of_its_file() {
    let desk = Desk::with_pool("tank");
    std::fs::remove_file(desk.path("tank/drive.img")).unwrap();
    desk.ok("zfs create tank/fs");
    desk.ok("zfs snapshot tank/fs@a");
    assert_eq!(desk.names("-t all -r tank"), ["tank", "tank/fs", "tank/fs@a"]);
    desk.ok("zpool destroy tank");
}

#[test]
fn pool_properties_are_set_as_libzfs_checks_them() {
    let desk = Desk::with_pool("tank");
    let value = |p: &str| desk.ok(&format!("zpool get -Hp -o value,source {p} tank"));
    for (set, shown) in [
        ("comment=archive", "archive\tlocal\n"),
        ("autotrim=on", "on\tlocal\n"),
        ("failmode=continue", "continue\tlocal\n"),
        ("listsnaps=on", "on\tlocal\n"),
        ("ashift=13", "13\tlocal\n"),
    ] {
        desk.ok(&format!("zpool set {set} tank"));
        assert_eq!(value(set.split('=').next().unwrap()), shown, "{set}");
    }
    for (set, status, words) in [
        ("size=1G", 1, "cannot set property for 'tank': 'size' is readonly"),
        ("nosuch=1", 1, "cannot set property for 'tank': invalid property 'nosuch'"),
        ("altroot=/x", 1, "property 'altroot' can only be set during pool creation or import"),
        ("ashift=40", 1, "property 'ashift' number 40 is invalid, only values between 9 and 16 are allowed."),
        ("feature@nosuch=enabled", 1, "feature 'nosuch' unsupported by kernel"),
        ("feature@lz4_compress=disabled", 1, "can only be set to 'disabled' at creation time"),
        ("comment=123456789012345678901234567890123", 1, "comment must not exceed 32 characters"),
        ("comment", 2, "missing value in property=value argument"),
    ] {
        desk.refused(&format!("zpool set {set} tank"), status, &[words]);
    }
    desk.refused("zpool set comment=x nosuch", 22, &["cannot open 'nosuch': is not a pool"]);
    desk.refused("zpool set", 2, &["missing property=value argument"]);
    // They are on the devices, the remark in the labels.
    desk.export_and_judge("tank");
    desk.import("tank");
    assert_eq!(value("comment"), "archive\tlocal\n");
    assert_eq!(value("autotrim"), "on\tlocal\n");
    desk.ok("zpool set comment= tank");
    assert_eq!(value("comment"), "-\tdefault\n");
}

#[test]
fn a_feature_can_be_enabled_later() {
    let desk = Desk::new();
    let drive = desk.drive("tank/drive.img", 128);
    desk.ok(&format!("zpool create -m none -o feature@zstd_compress=disabled tank {}", drive.display()));
    let state = || desk.ok("zpool get -H -o value feature@zstd_compress tank");
    assert_eq!(state(), "disabled\n");
    desk.ok("zpool set feature@zstd_compress=enabled tank");
    assert_eq!(state(), "enabled\n");
    desk.ok("zfs create -o compress=zstd-3 tank/fs");
    desk.export_and_judge("tank");
}

/// The record is in the pool: what changed it, in order, and nothing else.
#[test]
fn the_history_has_the_commands_that_changed_the_pool() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create tank/fs");
    desk.ok("zfs list");
    desk.refused("zfs create tank/fs", 1, &["dataset already exists"]);
    desk.ok("zfs snapshot tank/fs@a");
    let commands = || {
        let text = desk.ok("zpool history tank");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("History for 'tank':"));
        let words = |l: &str| l.split_once(' ').map(|(_, c)| c.to_string());
        lines.filter_map(words).collect::<Vec<_>>()
    };
    let made = format!("zpool create -o ashift=12 -m none tank {}", desk.path("tank/drive.img").display());
    assert_eq!(commands(), [made.as_str(), "zfs create tank/fs", "zfs snapshot tank/fs@a"]);
    let long = desk.ok("zpool history -l tank");
    assert!(long.lines().nth(2).unwrap().contains("zfs create tank/fs [user "), "{long}");
    desk.refused("zpool history nosuch", 1, &["cannot open 'nosuch': no such pool"]);
    desk.export_and_judge("tank");
    desk.import("tank");
    assert_eq!(commands().len(), 5, "the export and the import too");
}

#[test]
fn sync_is_a_command() {
    let desk = Desk::with_pool("tank");
    assert_eq!(desk.ok("zpool sync"), "");
    assert_eq!(desk.ok("zpool sync tank"), "");
    desk.refused("zpool sync nosuch", 1, &["cannot open 'nosuch': no such pool"]);
}

/// Snapshots of one line are taken together or not at all.
#[test]
fn snapshots_of_one_line_are_one_txg() {
    let desk = Desk::with_pool("tank");
    desk.pool("other", 128);
    desk.ok("zfs create tank/a");
    desk.ok("zfs create tank/b");
    desk.ok("zfs snapshot tank/a@one tank/b@two");
    assert_eq!(desk.get("createtxg", "tank/a@one"), desk.get("createtxg", "tank/b@two"));
    let seen = desk.seen("tank");
    for (line, words) in [
        ("zfs snapshot tank/a@x tank/a@y", "multiple snapshots of same fs not allowed"),
        ("zfs snapshot tank/a@x other@x", "multiple snapshots of same fs not allowed"),
        ("zfs snapshot tank/a@new tank/b@two", "cannot create snapshot 'tank/b@two': dataset already exists"),
        (
            "zfs snapshot tank/a@bad%name tank/b@new",
            "cannot create snapshot 'tank/a@bad%name': invalid character % in name",
        ),
    ] {
        desk.refused(line, 1, &[words, "no snapshots were created"]);
    }
    desk.refused(
        "zfs snapshot tank/a@x tank/nosuch@x",
        2,
        &["cannot open 'tank/nosuch': dataset does not exist"],
    );
    assert_eq!(desk.seen("tank"), seen);
}

/// A clone may have a bookmark of the snapshot it was cloned from, made from a bookmark of that (`dsl_dataset_is_before`).
#[test]
fn bookmarks_of_an_origin_are_a_clones_past() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create tank/fs");
    desk.ok("zfs snapshot tank/fs@one");
    desk.ok("zfs bookmark tank/fs@one tank/fs#one");
    desk.ok("zfs snapshot tank/fs@two");
    desk.ok("zfs bookmark tank/fs@two tank/fs#two");
    desk.ok("zfs clone tank/fs@one tank/clone");
    desk.ok("zfs bookmark tank/fs#one tank/clone#one");
    desk.refused(
        "zfs bookmark tank/fs#two tank/clone#two",
        1,
        &["source is not an ancestor of the new bookmark's dataset"],
    );
    // And what was sent up to there goes on from there.
    desk.ok("zfs snapshot tank/clone@later");
    assert!(!desk.bytes("zfs send -i tank/fs#one tank/clone@later").is_empty());
    desk.export_and_judge("tank");
}

#[test]
fn names_and_values_that_openzfs_refuses() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create tank/fs");
    desk.ok("zfs snapshot tank/fs@a");
    let long = "x".repeat(240);
    desk.ok(&format!("zfs snapshot tank/fs@{long}"));
    let seen = desk.seen("tank");
    for (line, words) in [
        ("zfs create tank/a%b", "cannot create 'tank/a%b': invalid character % in name"),
        ("zfs clone tank/fs@a tank/a%b", "cannot create 'tank/a%b': invalid character % in name"),
        ("zfs rename tank/fs tank/a%b", "cannot rename to 'tank/a%b': invalid character % in name"),
        ("zfs create -p -V 8M tank", "cannot create 'tank': missing dataset name"),
        ("zfs create -o sharenfs=ON tank/new", "'sharenfs' cannot be set to invalid options"),
        ("zfs set sharenfs= tank/fs", "'sharenfs' cannot be set to invalid options"),
        ("zfs set sharesmb=maybe tank/fs", "'sharesmb' cannot be set to invalid options"),
        ("zfs clone -o quota=1G -o quota=2G tank/fs@a tank/new", "property 'quota' specified multiple times"),
        (
            "zfs rename tank/fs tank/filesystems",
            "cannot rename 'tank/fs': a descendant's name would be too long",
        ),
    ] {
        desk.refused(line, failure(line), &[words]);
    }
    assert_eq!(desk.seen("tank"), seen);
    desk.ok("zfs create -p tank/fs");
    desk.ok("zfs set sharenfs=rw=@10.0.0.0/8,no_root_squash,sync tank/fs");
    desk.ok("zfs destroy tank/fs@a");
}

/// A rename that would put something below too deep is refused: the pool could not be walked any more.
#[test]
fn a_rename_counts_the_levels_below() {
    let desk = Desk::with_pool("tank");
    let tower = |root: &str, n: usize| format!("tank/{root}{}", "/x".repeat(n));
    desk.ok(&format!("zfs create -p {}", tower("a", 30)));
    desk.ok(&format!("zfs create -p {}", tower("b", 18)));
    let seen = desk.seen("tank");
    desk.refused(&format!("zfs rename tank/a {}/a", tower("b", 18)), 1, &["nested more than 50 levels"]);
    assert_eq!(desk.seen("tank"), seen);
    desk.ok(&format!("zfs rename tank/a {}/a", tower("b", 17)));
    desk.ok("zfs snapshot -r tank@all");
    desk.ok("zfs rename tank@all short");
    assert_eq!(desk.names("-t snapshot tank"), ["tank@short"]);
    desk.export_and_judge("tank");
}

#[test]
fn short_property_names_stand_for_the_long_ones() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create -o compress=gzip -o recsize=16K -o rdonly=on tank/fs");
    assert_eq!(desk.get("compression,recordsize,readonly", "tank/fs"), "gzip\n16384\non");
    desk.ok("zfs set reserv=1M rdonly=off tank/fs");
    assert_eq!(desk.get("reservation,readonly", "tank/fs"), "1048576\noff");
    desk.ok("zfs inherit compress tank/fs");
    assert_eq!(desk.ok("zfs get -H -o source compress tank/fs"), "default\n");
    assert_eq!(desk.get("userquota@1000,groupused@0", "tank/fs").lines().count(), 2);
    desk.refused("zfs get userquota@ tank/fs", 2, &["bad property list: invalid property 'userquota@'"]);
}

#[test]
fn versions_are_told_to_people_and_tools() {
    let desk = Desk::with_pool("tank");
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(&desk.ok(line)).unwrap();
    for tool in ["zfs", "zpool"] {
        let v = json(&format!("{tool} version -j"));
        assert_eq!(v["output_version"]["command"], format!("{tool} version"));
        assert!(v["zfs_version"]["userland"].as_str().unwrap().starts_with("zfs-"));
    }
    let list = json("zpool list -j --json-int");
    assert_eq!(list["output_version"]["command"], "zpool list");
    let tank = &list["pools"]["tank"];
    assert_eq!((&tank["type"], &tank["state"]), (&"POOL".into(), &"ONLINE".into()));
    assert_eq!(tank["properties"]["size"]["source"]["type"], "NONE");
    let size = desk.ok("zpool list -Hp -o size tank");
    assert_eq!(tank["properties"]["size"]["value"], size.trim_end().parse::<u64>().unwrap());
    assert_eq!(json("zpool list -jp")["pools"]["tank"]["properties"]["size"]["value"], size.trim_end());
    let of = |line: &str| json(line)["datasets"]["tank"].take();
    let (text, number) =
        (of("zfs get -jp used,compression tank"), of("zfs get -j --json-int used,compression tank"));
    let used = desk.get("used", "tank");
    assert_eq!(text["properties"]["used"]["value"], used);
    assert_eq!(number["properties"]["used"]["value"], used.parse::<u64>().unwrap());
    assert_eq!(number["createtxg"].as_u64().map(|n| n.to_string()).as_deref(), text["createtxg"].as_str());
    assert_eq!(number["properties"]["compression"]["value"], "on");
    assert_eq!(
        of("zfs list -j --json-int tank")["properties"]["used"]["value"],
        used.parse::<u64>().unwrap()
    );
    let get = json("zpool get -j guid,failmode tank");
    assert_eq!(get["pools"]["tank"]["properties"]["failmode"]["source"]["type"], "DEFAULT");
    let said = desk.ok("zfs upgrade");
    assert!(said.starts_with("This system is currently running ZFS filesystem version 5.\n"), "{said}");
    assert!(desk.ok("zfs upgrade -v").contains(" 5   System attributes\n"));
    let done = desk.ok("zfs upgrade -r tank");
    assert_eq!(done, "0 filesystems upgraded\n1 filesystems already at this version\n");
    desk.refused("zfs upgrade -r", 2, &["usage:"]);
}

/// Options after operands are options, unless the environment asks for POSIX.
#[test]
fn posixly_correct_ends_the_options() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs get type tank -H");
    let done = desk.command("zfs get type tank -H").env("POSIXLY_CORRECT", "1").output().unwrap();
    assert_eq!(done.status.code(), Some(1), "'-H' is no dataset");
}

/// `ZPOOL_IMPORT_PATH` stands for `-d`.
#[test]
fn pools_are_looked_for_where_the_environment_says() {
    let desk = Desk::with_pool("tank");
    desk.ok("zpool export tank");
    desk.refused("zpool import tank", 1, &["cannot import 'tank': no such pool available"]);
    let path = format!("/nonexistent:{}", desk.path("tank").display());
    let done = desk.command("zpool import tank").env("ZPOOL_IMPORT_PATH", path).output().unwrap();
    assert!(done.status.success());
    assert_eq!(desk.ok("zpool list -H -o name"), "tank\n");
}
