//! Datasets, snapshots, bookmarks, holds: made, shown, kept and destroyed.

use crate::support::{Desk, stream};

/// A pool with data in it, which changed between `@root` and `@newsnapshot`.
fn desk() -> Desk {
    let desk = Desk::with_pool("tank");
    desk.feed("zfs receive tank/plain", &stream("plain@newsnapshot.R.zfs"));
    desk
}

const SNAPS: [&str; 3] = ["tank/plain@root", "tank/plain@2023-09-27", "tank/plain@newsnapshot"];

#[test]
fn lists_as_scripts_read_them() {
    let desk = desk();
    desk.ok("zfs create -p tank/x/y");
    let head = desk.ok("zfs list");
    assert!(head.starts_with("NAME "), "{head}");
    assert!(head.lines().next().unwrap().ends_with("MOUNTPOINT"), "{head}");
    assert_eq!(desk.names(""), ["tank", "tank/plain", "tank/x", "tank/x/y"]);
    assert_eq!(desk.names("-r -d 1 tank"), ["tank", "tank/plain", "tank/x"]);
    assert_eq!(desk.names("-t snapshot tank/plain"), SNAPS);
    assert_eq!(desk.names("-t snap -S createtxg tank/plain"), [SNAPS[2], SNAPS[1], SNAPS[0]]);
    let line = desk
        .ok("zfs list -Hp -o name,guid,createtxg,creation -t snapshot,bookmark -d 1 -s createtxg tank/plain");
    assert_eq!(line.lines().count(), 3);
    assert!(line.lines().all(|l| l.split('\t').count() == 4 && !l.contains(' ')), "{line}");
    let written = desk.ok("zfs get -H -o value -p written@root tank/plain");
    assert!(written.trim_end().parse::<u64>().is_ok_and(|n| n > 0), "{written}");
    assert!(desk.ok("zfs get -Hp all tank/plain").lines().all(|l| l.split('\t').count() == 4));
    let json: serde_json::Value = serde_json::from_str(&desk.ok("zfs list -j -r -t all tank")).unwrap();
    assert_eq!(json["output_version"]["command"], "zfs list");
    assert_eq!(json["datasets"]["tank/plain@root"]["snapshot_name"], "root");
    desk.refused("zfs list tank/none", 1, &["cannot open 'tank/none': dataset does not exist"]);
    desk.refused("zfs list -o nonsense tank", 2, &["bad property list: invalid property 'nonsense'"]);
    desk.refused("zfs list -t nonsense tank", 2, &["invalid type 'nonsense'"]);
    let first = desk.ok("zfs version");
    assert!(first.starts_with("zfs-") && desk.ok("zfs --version") == first, "{first}");
    desk.ok("zfs set org.example:a=b tank/x");
    assert_eq!(desk.ok("zfs get -H -o value,source org.example:a tank/x/y"), "b\tinherited from tank/x\n");
    desk.ok("zfs inherit org.example:a tank/x");
    assert_eq!(desk.get("org.example:a", "tank/x/y"), "-");
    desk.refused("zfs set compression=nonsense tank", 255, &["tank", "compression"]);
}

#[test]
fn ranges_dry_runs_and_what_they_would_free() {
    let desk = desk();
    desk.ok("zfs create tank/plain/below");
    desk.ok("zfs snapshot -r -o org.example:why=test tank@all");
    assert_eq!(desk.get("org.example:why", "tank/plain/below@all"), "test");
    desk.refused("zfs snapshot tank@all", 1, &["cannot create snapshot 'tank@all': dataset already exists"]);
    let before = desk.seen("tank");
    let said = desk.ok("zfs destroy -nv tank/plain@root%newsnapshot");
    let mut lines: Vec<String> = SNAPS.iter().map(|s| format!("would destroy {s}")).collect();
    lines.push("would reclaim".into());
    assert!(said.lines().zip(&lines).all(|(s, l)| s.starts_with(l.as_str())), "{said}");
    let said = desk.ok("zfs destroy -nvp tank/plain@%2023-09-27,all");
    let parts: Vec<&str> = said.lines().collect();
    assert_eq!(
        parts[..3],
        ["destroy\ttank/plain@root", "destroy\ttank/plain@2023-09-27", "destroy\ttank/plain@all"]
    );
    let freed: u64 = parts[3].strip_prefix("reclaim\t").unwrap().parse().unwrap();
    assert_eq!(desk.seen("tank"), before, "a dry run changes nothing");
    let used = |name: &str| desk.get("used", name).parse::<u64>().unwrap();
    let was = used("tank/plain");
    desk.ok("zfs destroy tank/plain@%2023-09-27,all");
    assert_eq!(was - used("tank/plain"), freed, "what was announced is what came free");
    assert_eq!(desk.names("-t snapshot tank/plain"), [SNAPS[2]]);
    desk.ok("zfs destroy -r tank@all");
    assert_eq!(desk.names("-t snapshot -r tank"), [SNAPS[2]]);
    desk.refused(
        "zfs destroy tank/plain@none",
        1,
        &["could not find any snapshots to destroy; check snapshot names."],
    );
    desk.export_and_judge("tank");
}

#[test]
fn rollback_names_what_stands_in_the_way() {
    let desk = desk();
    let before = desk.seen("tank");
    desk.refused(
        "zfs rollback tank/plain@root",
        1,
        &[
            "cannot rollback to 'tank/plain@root': more recent snapshots or bookmarks exist",
            "use '-r' to force deletion of the following snapshots and bookmarks:\ntank/plain@2023-09-27\ntank/plain@newsnapshot",
        ],
    );
    assert_eq!(desk.seen("tank"), before);
    let then = desk.get("referenced", "tank/plain@root");
    assert_ne!(desk.get("referenced", "tank/plain"), then);
    desk.ok("zfs hold keep tank/plain@newsnapshot");
    let before = desk.seen("tank");
    desk.refused(
        "zfs rollback -r tank/plain@root",
        1,
        &["cannot destroy 'tank/plain@newsnapshot': dataset is busy"],
    );
    assert_eq!(desk.seen("tank"), before, "all or nothing");
    desk.ok("zfs release keep tank/plain@newsnapshot");
    desk.ok("zfs rollback -r tank/plain@root");
    assert_eq!(desk.names("-t snapshot tank/plain"), [SNAPS[0]]);
    assert_eq!(desk.get("referenced", "tank/plain"), then);
    desk.export_and_judge("tank");
}

#[test]
fn holds_and_bookmarks() {
    let desk = desk();
    desk.ok("zfs hold one tank/plain@root");
    desk.ok("zfs hold -r two tank/plain@root");
    desk.refused("zfs hold one tank/plain@root", 1, &["tag already exists on this dataset"]);
    let holds = desk.ok("zfs holds -H tank/plain@root");
    assert_eq!(holds.lines().map(|l| l.split('\t').nth(1).unwrap()).collect::<Vec<_>>(), ["one", "two"]);
    desk.refused(
        "zfs destroy tank/plain@root",
        1,
        &["it's being held. Run 'zfs holds -r tank/plain@root' to see holders."],
    );
    desk.ok("zfs destroy -d tank/plain@root");
    assert_eq!(desk.names("-t snapshot tank/plain"), SNAPS);
    desk.refused("zfs release three tank/plain@root", 1, &["no such tag on this dataset"]);
    desk.ok("zfs release one tank/plain@root");
    desk.ok("zfs release two tank/plain@root");
    // Where some have the tag and others have not, the first are released.
    for line in ["create tank/plain/in", "snapshot -r tank/plain@r", "hold four tank/plain/in@r"] {
        desk.ok(&format!("zfs {line}"));
    }
    assert_eq!(desk.run("zfs holds -r tank/plain@none").err, "no datasets available\n");
    desk.refused("zfs release -r five tank/plain@r", 1, &["no such tag on this dataset"]);
    desk.ok("zfs release -r four tank/plain@r");
    assert_eq!(desk.ok("zfs holds -rH tank/plain@r"), "");
    desk.ok("zfs destroy tank/plain@r");
    desk.ok("zfs destroy -r tank/plain/in");
    assert_eq!(desk.names("-t snapshot tank/plain"), SNAPS[1..], "destroyed with its last hold");

    desk.ok("zfs bookmark tank/plain@2023-09-27 tank/plain#mark");
    desk.ok("zfs bookmark tank/plain#mark #copy");
    desk.refused(
        "zfs bookmark @newsnapshot tank/plain#mark",
        1,
        &["cannot create bookmark 'tank/plain#mark': bookmark exists"],
    );
    desk.ok("zfs destroy tank/plain@2023-09-27");
    assert_eq!(desk.names("-t bookmark tank/plain"), ["tank/plain#copy", "tank/plain#mark"]);
    desk.refused("zfs destroy tank/plain#none", 1, &["bookmark 'tank/plain#none' does not exist"]);
    desk.refused("zfs destroy -n tank/plain#mark", 255, &["dryrun is not supported with bookmark"]);
    desk.ok("zfs destroy tank/plain#copy");
    // The bookmark is enough to build on.
    desk.pool("other", 128);
    desk.feed("zfs receive other/plain", &stream("plain@newsnapshot.R.zfs"));
    desk.ok("zfs destroy other/plain@newsnapshot");
    desk.ok("zfs rollback other/plain@2023-09-27");
    desk.piped("zfs send -i #mark tank/plain@newsnapshot", "zfs receive other/plain");
    assert_eq!(desk.get("guid", "other/plain@newsnapshot"), desk.get("guid", "tank/plain@newsnapshot"));
    desk.export_and_judge("tank");
    desk.export_and_judge("other");
}

#[test]
fn datasets_are_destroyed_with_care() {
    let desk = desk();
    desk.ok("zfs create tank/plain/below");
    desk.ok("zfs snapshot -r tank@all");
    desk.ok("zfs clone tank/plain@root tank/clone");
    desk.ok("zfs clone -o org.example:a=b tank/plain@root tank/plain/inner");
    assert_eq!(desk.get("origin", "tank/clone"), "tank/plain@root");
    let before = desk.seen("tank");
    desk.refused(
        "zfs destroy tank/plain",
        1,
        &[
            "cannot destroy 'tank/plain': filesystem has children",
            "use '-r' to destroy the following datasets:",
            "tank/plain/below@all",
        ],
    );
    desk.refused(
        "zfs destroy -r tank/plain",
        1,
        &["cannot destroy 'tank/plain': filesystem has dependent clones", "tank/clone"],
    );
    desk.refused("zfs destroy tank/plain@root", 1, &["snapshot has dependent clones", "tank/clone"]);
    desk.refused("zfs destroy tank", 1, &["operation does not apply to pools"]);
    desk.refused("zfs destroy -d tank/plain", 1, &["missing '@' delimiter in snapshot name"]);
    desk.refused("zfs destroy tank/none", 1, &["cannot open 'tank/none': dataset does not exist"]);
    assert_eq!(desk.seen("tank"), before, "nothing of all that was done");
    desk.ok("zfs destroy tank/clone");
    let said = desk.ok("zfs destroy -rnvp tank/plain");
    assert!(said.lines().any(|l| l == "destroy\ttank/plain/inner"), "{said}");
    assert_eq!(said.lines().last(), Some("destroy\ttank/plain"));
    assert_eq!(desk.names("-r tank").len(), 4);
    desk.ok("zfs destroy -r tank/plain");
    assert_eq!(desk.names("-r -t all tank"), ["tank", "tank@all"]);
    desk.export_and_judge("tank");
}

#[test]
fn clones_go_with_what_they_were_cloned_from_if_asked() {
    let desk = desk();
    desk.ok("zfs create tank/plain/below");
    desk.ok("zfs clone tank/plain@root tank/clone");
    desk.ok("zfs snapshot tank/clone@x");
    desk.ok("zfs clone tank/clone@x tank/plain/inner");
    desk.ok("zfs clone tank/plain@2023-09-27 tank/other");
    desk.ok("zfs create tank/other/child");
    desk.ok("zfs create tank/stays");
    desk.ok("zfs hold keep tank/plain@root");
    let before = desk.seen("tank");
    let plan = desk.ok("zfs destroy -Rnv tank/plain@root");
    let names: Vec<&str> = plan.lines().filter(|l| !l.contains("reclaim")).collect();
    for (first, then) in [("tank/plain/inner", "tank/clone@x"), ("tank/clone@x", "tank/clone")] {
        let at = |n: &str| names.iter().position(|l| *l == format!("would destroy {n}")).unwrap();
        assert!(at(first) < at(then), "{plan}");
    }
    desk.refused(
        "zfs destroy -r tank/plain",
        1,
        &[
            "filesystem has dependent clones\nuse '-R' to destroy the following datasets:\n",
            "tank/other/child\n",
        ],
    );
    desk.refused("zfs destroy -R tank/plain", 1, &["tank/plain@root: it's being held"]);
    assert_eq!(desk.seen("tank"), before, "all or nothing");
    desk.ok("zfs release keep tank/plain@root");
    desk.ok("zfs destroy -R tank/plain@root");
    assert_eq!(
        desk.names("-r tank"),
        ["tank", "tank/other", "tank/other/child", "tank/plain", "tank/plain/below", "tank/stays"]
    );
    let said = desk.ok("zfs destroy -Rv tank/plain");
    assert_eq!(said.lines().last(), Some("will destroy tank/plain"));
    assert_eq!(desk.names("-r -t all tank"), ["tank", "tank/stays"]);
    desk.ok("zfs destroy -r tank");
    assert_eq!(desk.names("-r -t all tank"), ["tank"]);
    desk.export_and_judge("tank");
}

#[test]
fn a_deferred_snapshot_goes_with_its_last_clone() {
    let desk = desk();
    desk.ok("zfs clone tank/plain@root tank/clone");
    desk.ok("zfs destroy -d tank/plain@root");
    assert_eq!(desk.get("defer_destroy", "tank/plain@root"), "on");
    desk.ok("zfs destroy tank/clone");
    assert_eq!(desk.names("-t snapshot tank/plain"), SNAPS[1..]);
    desk.export_and_judge("tank");
}

#[test]
fn a_clone_takes_over_and_gives_back() {
    let desk = desk();
    desk.ok("zfs bookmark tank/plain@root #mark");
    desk.ok("zfs clone tank/plain@2023-09-27 tank/clone");
    let guid = desk.get("guid", "tank/plain@root");
    let shape = "name,guid,createtxg,used,usedbysnapshots,referenced,logicalused,written,origin";
    let before = desk.ok(&format!("zfs list -Hp -r -t all -o {shape} tank/plain tank/clone"));
    desk.refused("zfs promote tank/plain", 1, &["cannot promote 'tank/plain': not a cloned filesystem"]);
    desk.refused("zfs promote tank/plain@root", 1, &["snapshot delimiter '@' is not expected here"]);
    desk.refused("zfs promote tank/none", 1, &["cannot open 'tank/none': dataset does not exist"]);
    desk.ok("zfs snapshot tank/clone@root");
    desk.refused(
        "zfs promote tank/clone",
        1,
        &["cannot promote 'tank/clone': conflicting snapshot 'root' from parent 'tank/plain@2023-09-27'"],
    );
    desk.ok("zfs destroy tank/clone@root");
    desk.ok("zfs promote tank/clone");
    assert_eq!(desk.get("origin", "tank/plain"), "tank/clone@2023-09-27");
    assert_eq!(desk.get("origin", "tank/clone"), "-");
    assert_eq!(desk.get("guid", "tank/clone@root"), guid);
    assert_eq!(desk.names("-t bookmark -r tank"), ["tank/clone#mark"]);
    assert_eq!(desk.names("-t snapshot tank/plain"), [SNAPS[2]]);
    desk.ok("zpool export tank");
    desk.judge("tank");
    desk.import("tank");
    desk.ok("zfs promote tank/plain");
    assert_eq!(desk.ok(&format!("zfs list -Hp -r -t all -o {shape} tank/plain tank/clone")), before);
    desk.export_and_judge("tank");
}

#[test]
fn names_change_and_nothing_else() {
    let desk = desk();
    let guid = desk.get("guid", "tank/plain@root");
    desk.ok("zfs create tank/house");
    desk.ok("zfs rename tank/plain tank/house/letters");
    desk.ok("zfs rename tank/house/letters@root @first");
    assert_eq!(desk.get("guid", "tank/house/letters@first"), guid);
    desk.ok("zfs snapshot -r tank/house@s");
    desk.ok("zfs rename -r tank/house@s tank/house@t");
    assert_eq!(desk.get("name", "tank/house/letters@t"), "tank/house/letters@t");
    desk.ok("zfs rename -p tank/house/letters tank/far/away/letters");
    desk.ok("zfs clone -p tank/far/away/letters@first tank/near/by/letters");
    desk.ok("zfs rename tank/far/away/letters tank/house/letters");
    assert_eq!(desk.get("origin", "tank/near/by/letters"), "tank/house/letters@first");
    let before = desk.seen("tank");
    desk.refused(
        "zfs rename tank/house/letters tank/no/letters",
        1,
        &["cannot create 'tank/no/letters': parent does not exist"],
    );
    desk.refused(
        "zfs rename tank/house tank/house/letters/x",
        1,
        &["cannot rename to 'tank/house/letters/x': New dataset name"],
    );
    desk.refused("zfs rename tank/house other/x", 1, &["cannot create 'other/x': no such pool 'other'"]);
    desk.refused("zfs rename tank/house/letters@first @t", 1, &["dataset already exists"]);
    desk.refused("zfs rename tank/none tank/x", 1, &["cannot open 'tank/none': dataset does not exist"]);
    assert_eq!(desk.seen("tank"), before);
    desk.export_and_judge("tank");
}

/// People are shown times, scripts seconds; and there is no word about what was written since a snapshot that is not.
#[test]
fn times_and_what_was_written() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create tank/a");
    desk.ok("zfs snapshot tank/a@s");
    for (prop, name, words) in [("creation", "tank/a@s", 5), ("snapshots_changed", "tank/a", 5)] {
        let seconds: i64 = desk.get(prop, name).parse().unwrap();
        let shown = desk.ok(&format!("zfs get -H -o value {prop} {name}"));
        let shown = shown.trim_end();
        let parts: Vec<&str> = shown.split_whitespace().collect();
        assert_eq!(parts.len(), words, "{shown}");
        let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
        let clock = if prop == "creation" {
            format!(" {hour:2}:{minute:02} ")
        } else {
            format!(" {hour:2}:{minute:02}:{:02} ", seconds % 60)
        };
        assert!(shown.contains(&clock), "{shown} has no {clock}");
        assert_eq!(desk.ok(&format!("zfs list -H -d 0 -o {prop} {name}")).trim_end(), shown);
        assert_eq!(desk.ok(&format!("zfs list -Hp -d 0 -o {prop} {name}")).trim_end(), seconds.to_string());
    }
    assert_eq!(desk.ok("zfs get -Hp -o value,source written@s tank/a"), "0\tlocal\n");
    for nothing in ["written@none", "written#none", "written@tank/none@s"] {
        assert_eq!(desk.ok(&format!("zfs get -H -o value,source {nothing} tank/a")), "-\t-\n");
        assert_eq!(desk.ok(&format!("zfs list -H -o name,{nothing} tank/a")), "tank/a\t-\n");
    }
    desk.refused("zfs get written@s tank/none", 1, &["dataset does not exist"]);
}

/// What a cut receive hangs on cannot be destroyed, and it is said how it could.
#[test]
fn the_base_of_a_partial_receive() {
    let desk = Desk::with_pool("tank");
    let back = desk.pool("back", 128);
    desk.feed("zfs receive tank/plain", &stream("plain@newsnapshot.R.zfs"));
    desk.piped("zfs send tank/plain@root", "zfs receive back/plain");
    let whole = desk.bytes("zfs send -i @root tank/plain@newsnapshot");
    let cut = desk.with_input("zfs receive -s back/plain", &whole[..whole.len() / 2]);
    assert_eq!(cut.status, 1, "{}", cut.err);
    assert_ne!(desk.get("receive_resume_token", "back/plain"), "-");
    desk.refused("zfs destroy back/plain@root", 1, &["cut short", "zfs receive -A back/plain"]);
    desk.ok("zfs receive -A back/plain");
    desk.ok("zfs destroy back/plain@root");
    desk.export_and_judge("back");
    assert!(back.exists());
}

/// A clone with its origin below it is refused as a whole, as OpenZFS does.
#[test]
fn a_clone_that_contains_its_origin_is_not_destroyed() {
    let desk = Desk::with_pool("tank");
    for line in ["create tank/o", "snapshot tank/o@s", "clone tank/o@s tank/c", "rename tank/o tank/c/o"] {
        desk.ok(&format!("zfs {line}"));
    }
    let before = desk.seen("tank");
    for (name, at) in [("tank/c", "tank/c"), ("tank/c/o", "tank/c/o")] {
        let words = format!("cannot determine dependent datasets: recursive dependency at '{at}'");
        desk.refused(&format!("zfs destroy -R {name}"), 1, &[&words]);
        desk.refused(&format!("zfs destroy -Rn {name}"), 1, &[&words]);
    }
    assert_eq!(desk.seen("tank"), before);
    // Promoted, the way is free.
    desk.ok("zfs promote tank/c");
    desk.ok("zfs destroy -r tank/c");
    assert_eq!(desk.names("-r -t all tank"), ["tank"]);
    desk.export_and_judge("tank");
}
