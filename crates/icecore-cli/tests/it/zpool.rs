//! `zpool`: making, finding, taking and giving back pools.

use crate::support::{Desk, MIB};
use icecore_env::{Access, Device, Env, FileDevice};
use icecore_pool::{CreateSpec, Host, Pool};
use icecore_vdev::create::{NewKind, NewLeaf, NewTop, build};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::sync::Arc;

#[test]
fn a_mirror_and_what_is_said_of_it() {
    let desk = Desk::new();
    let (a, b) = (desk.drive("twin/a.img", 96), desk.drive("twin/b.img", 96));
    let line = format!("zpool create -o ashift=12 -m none twin mirror {} {}", a.display(), b.display());
    let would = desk.ok(&line.replace("create", "create -n"));
    assert!(would.contains("would create 'twin'"), "{would}");
    assert_eq!(desk.run("zpool list -H").text(), "");
    desk.ok(&line);
    let status = desk.ok("zpool status twin");
    for words in [
        " state: ONLINE",
        "mirror-0",
        &a.display().to_string(),
        &b.display().to_string(),
        "errors: No known data errors",
    ] {
        assert!(status.contains(words), "{status}\nand not: {words}");
    }
    assert_eq!(desk.ok("zpool status -x"), "all pools are healthy\n");
    assert_eq!(desk.ok("zpool list -H -o name,health"), "twin\tONLINE\n");
    assert_eq!(desk.ok("zpool get -H -o value health twin"), "ONLINE\n");
    let (psize, list) = (96 << 20, desk.ok("zpool list -Hpv -o name,size,alloc,free,cap,frag,health twin"));
    let lines: Vec<Vec<&str>> = list.lines().map(|l| l.split('\t').collect()).collect();
    let [pool, mirror, a_line, b_line] = lines.as_slice() else { panic!("{list}") };
    assert_eq!(mirror[..2], ["", "mirror-0"]);
    assert_eq!(mirror[2..], pool[1..], "all of the pool is in the mirror");
    for (line, path) in [(a_line, &a), (b_line, &b)] {
        assert_eq!(line[..3], ["", &path.display().to_string(), &psize.to_string()]);
        assert_eq!(line[3..], ["-", "-", "-", "-", "ONLINE"]);
    }
    let shown = desk.ok("zpool list -v twin");
    let mirror = shown.lines().nth(2).unwrap();
    assert!(mirror.starts_with("  mirror-0 ") && mirror.contains("  0."), "{shown}");
    let guid = desk.ok("zpool list -Hvg -o name twin").lines().nth(2).unwrap().trim().parse::<u64>();
    assert!(guid.is_ok_and(|g| g > 0));
    assert_eq!(desk.ok("zpool get -H -o value,source ashift twin"), "12\tlocal\n");
    let wide = desk.drive("wide.img", 96);
    desk.ok(&format!("zpool create -m none wide {}", wide.display()));
    assert_eq!(desk.ok("zpool get -H -o value,source ashift wide"), "0\tdefault\n", "nobody asked for one");
    desk.ok("zpool destroy wide");
    std::fs::remove_file(wide).unwrap();
    desk.ok("zfs create twin/x");
    // One side alone: the pool is there, degraded, and can be written.
    std::fs::rename(&b, desk.path("b.away")).unwrap();
    desk.ok("icecore service stop"); // which has it open still
    let status = desk.ok("zpool status -x twin");
    assert!(status.contains(" state: DEGRADED") && status.contains("UNAVAIL"), "{status}");
    desk.ok("zfs snapshot twin/x@half");
    desk.ok("zpool export twin");
    std::fs::rename(desk.path("b.away"), &b).unwrap();
    // Back, but behind: that is no healthy pool.
    desk.ok("zpool import -o readonly=on -d twin twin");
    let status = desk.ok("zpool status -x twin");
    for words in [
        " state: DEGRADED",
        "has missed writes",
        "Import the pool for writing: what they missed is copied to them then",
        "mirror-0",
    ] {
        assert!(status.contains(words), "{status}\nand not: {words}");
    }
    assert!(status.lines().all(|l| l.trim_end() == l), "{status}");
    assert_eq!(desk.ok("zpool list -H -o health twin"), "DEGRADED\n");
    desk.ok("zpool export twin");
    desk.import("twin");
    desk.ok("zpool wait -t resilver twin");
    assert_eq!(desk.ok("zpool status -x"), "all pools are healthy\n");
    desk.ok("zpool export twin");
    assert_eq!(desk.ok("zpool status"), "no pools available\n");
    desk.judge("twin");
}

#[test]
fn found_taken_and_given_back() {
    let desk = Desk::with_pool("tank");
    let dir = desk.path("tank");
    let import = format!("zpool import -d {}", dir.display());
    desk.refused(&format!("{import} tank"), 1, &["a pool with that name already exists"]);
    let guid = desk.get("guid", "tank");
    assert_ne!(guid, "-");
    let id = desk.ok("zpool get -Hp -o value guid tank");
    desk.ok("zpool export tank");
    desk.refused("zpool export tank", 1, &["cannot open 'tank': no such pool"]);
    let found = desk.ok(&import);
    for words in [
        "  pool: tank\n",
        &format!("    id: {id}"),
        " state: ONLINE\n",
        "using its name or numeric identifier",
    ] {
        assert!(found.contains(words), "{found}\nand not: {words}");
    }
    // The drive has been carried elsewhere: it is shown where it lies.
    let moved = dir.join("moved.img");
    std::fs::rename(dir.join("drive.img"), &moved).unwrap();
    desk.ok(&format!("{import} -o readonly=on {}", id.trim_end()));
    let status = desk.ok("zpool status tank");
    assert!(status.contains("moved.img") && !status.contains("drive.img"), "{status}");
    desk.refused("zfs snapshot tank@x", 1, &["cannot open 'tank@x'", "readonly=on"]);
    desk.ok("zpool export tank");
    desk.refused(&format!("{import} none"), 1, &["cannot import 'none': no such pool available"]);
    desk.refused("zpool import -d nowhere tank", 1, &["nowhere"]);
    let empty = desk.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let none = desk.run(&format!("zpool import -d {}", empty.display()));
    assert_eq!((none.status, none.err.as_str()), (0, "no pools available to import\n"));
    desk.ok(&format!("{import} -a"));
    desk.ok("zpool export -a");
    desk.judge("tank");
}

/// A pool that another host has in use is refused, by that host's name, until -f says so.
#[test]
fn another_hosts_pool() {
    let desk = Desk::new();
    let path = desk.drive("far/drive.img", 96);
    let device: Arc<dyn Device> = Arc::new(FileDevice::open(&path, Access::Exclusive).unwrap());
    let leaf = NewLeaf { device, path: path.display().to_string(), whole_disk: None };
    let top = NewTop { kind: NewKind::Single, leaves: vec![leaf], log: false, ashift: Some(12) };
    let env = Env::os();
    let tree = build(vec![top], &*env.entropy).unwrap();
    let host = Host { id: 0x0bad_cafe, name: "elsewhere".into() };
    let spec = CreateSpec {
        name: "far".into(),
        root: tree.root,
        devices: tree.devices,
        host,
        comment: None,
        features: icecore_pool::features::of_new_pools().collect(),
    };
    // In use there, and never exported.
    drop(Pool::create(env, spec).unwrap());
    let import = format!("zpool import -d {}", desk.path("far").display());
    let found = desk.ok(&import);
    assert!(found.contains("last accessed by another system (elsewhere, hostid=badcafe)"), "{found}");
    assert!(found.contains("'-f' flag"), "{found}");
    desk.refused(
        &format!("{import} far"),
        1,
        &[
            "cannot import 'far': pool was previously in use from another system",
            "elsewhere (hostid=badcafe)",
            "zpool import -f far",
        ],
    );
    assert_eq!(desk.ok("zpool status"), "no pools available\n");
    desk.ok(&format!("{import} -f far"));
    desk.export_and_judge("far");
    desk.ok(&format!("{import} far"));
}

#[test]
fn what_holds_something_is_not_overwritten() {
    let desk = Desk::with_pool("tank");
    let drive = desk.path("tank/drive.img");
    let create = |force: &str| format!("zpool create {force} -m none new {}", drive.display());
    desk.refused(&create(""), 1, &["part of active pool 'tank'"]);
    desk.refused(&create("-f"), 1, &["part of active pool 'tank'"]);
    desk.refused(
        &format!("zpool labelclear -f {}", drive.display()),
        1,
        &["is a member (ACTIVE) of pool \"tank\"", "imported here"],
    );
    desk.ok("zpool export tank");
    // Imported for reading only, nothing on the drive tells so; and the drive goes by other names too.
    let link = desk.path("link.img");
    std::os::unix::fs::symlink(&drive, &link).unwrap();
    desk.ok(&format!("zpool import -d {} -o readonly=on tank", desk.path("tank").display()));
    desk.refused(&create("-f").replace("tank/drive.img", "link.img"), 1, &["part of active pool 'tank'"]);
    desk.ok("zpool export tank");
    let bytes = std::fs::read(&drive).unwrap();
    desk.refused(&create(""), 1, &["use '-f' to override", "tank"]);
    assert!(std::fs::read(&drive).unwrap() == bytes, "a refusal writes nothing");
    for wrong in ["-O compression=nonsense", "-o ashift=99", "-o nonsense=1", "-O nonsense=1"] {
        let fresh = desk.drive("fresh.img", 96);
        desk.refused(&format!("zpool create {wrong} new {}", fresh.display()), 1, &[]);
        assert!(std::fs::read(&fresh).unwrap().iter().all(|b| *b == 0), "{wrong}: something was written");
    }
    // Another file system.
    let other = desk.drive("other.img", 96);
    let file = OpenOptions::new().write(true).open(&other).unwrap();
    file.write_all_at(&[0x53, 0xef], 1024 + 56).unwrap();
    desk.refused(&format!("zpool create new {}", other.display()), 1, &["use '-f' to override", "ext"]);
    desk.refused("zpool create new nothing.img", 1, &["nothing.img"]);
    desk.refused(&format!("zpool create new {}", desk.drive("small.img", 8).display()), 1, &["small.img"]);
    desk.refused(
        &format!("zpool create new mirror {}", other.display()),
        1,
        &["mirror requires at least 2 devices"],
    );
    desk.refused(
        &format!("zpool create new raidz {}", other.display()),
        1,
        &["raidz requires at least 2 devices"],
    );
    let third = desk.drive("third.img", 96).display().to_string();
    let fourth = desk.drive("fourth.img", 96).display().to_string();
    desk.refused(&format!("zpool create new raidz {third} {fourth}"), 1, &["'raidz' is not supported"]);
    desk.refused(&format!("zpool create bad/name {}", desk.drive("n.img", 96).display()), 1, &["bad/name"]);
    assert_eq!(desk.run("zpool list -H").text(), "");

    desk.refused(
        &format!("zpool labelclear {}", drive.display()),
        1,
        &["use '-f' to override", "exported pool \"tank\""],
    );
    assert!(std::fs::read(&drive).unwrap() == bytes);
    desk.ok(&format!("zpool labelclear -f {}", drive.display()));
    desk.refused(
        &format!("zpool labelclear -f {}", drive.display()),
        255,
        &["failed to clear label", "it has none"],
    );
    desk.ok(&create(""));
    desk.ok("icecore service stop"); // which has it open still
    std::fs::create_dir(desk.path("new")).unwrap();
    std::fs::rename(&drive, desk.path("new/drive.img")).unwrap();
    desk.refused("zpool export new", 1, &["cannot export 'new'", "drive.img"]);
    std::fs::rename(desk.path("new/drive.img"), &drive).unwrap();
    desk.ok("zpool export new");
    assert_eq!(std::fs::metadata(&drive).unwrap().len(), 128 * MIB);
}

#[test]
fn features_can_be_chosen() {
    let desk = Desk::new();
    let drive = desk.drive("some/drive.img", 128).display().to_string();
    let make = |o: &str| format!("zpool create -o {o} -m none some {drive}");
    desk.refused(
        &make("feature@draid=enabled"),
        1,
        &["cannot create 'some'", "could not be written to here"],
    );
    desk.refused(&make("feature@lz4_compress=disabled"), 1, &["cannot be disabled"]);
    desk.refused(&make("feature@bookmark_v2=disabled"), 1, &["disable both"]);
    desk.refused(&make("feature@tea=enabled"), 1, &["feature 'tea' unsupported by kernel"]);
    desk.refused(&make("feature@livelist=maybe"), 1, &["'enabled' or 'disabled'"]);
    desk.ok(&make("feature@log_spacemap=disabled -o feature@livelist=enabled"));
    let features = desk.ok("zpool get -H -o property,value all some");
    assert!(features.contains("feature@log_spacemap\tdisabled\n"), "{features}");
    assert!(features.contains("feature@livelist\tenabled\n"), "{features}");
    desk.export_and_judge("some");
}

/// A pool whose drive is gone is shown so, keeps no other from being seen, and can be forgotten.
#[test]
fn a_pool_whose_drive_is_gone() {
    let desk = Desk::with_pool("here");
    let drive = desk.pool("gone", 96);
    let away = desk.path("away.img");
    desk.ok("icecore service stop"); // which has it open still
    std::fs::rename(&drive, &away).unwrap();
    assert_eq!(desk.ok("zpool list -H -o name,size,free,health").lines().next(), Some("gone\t-\t-\tUNAVAIL"));
    assert_eq!(desk.ok("zpool list -H -o name"), "gone\nhere\n");
    let listed = desk.run("zfs list -H -o name");
    assert_eq!((listed.status, listed.text().as_str()), (0, "here\n"));
    assert!(listed.err.contains("cannot open 'gone'"), "{}", listed.err);
    desk.refused("zfs list gone", 1, &["cannot open 'gone'", "drive.img"]);
    desk.refused("zpool export gone", 1, &["cannot export 'gone'", "zpool export -f gone"]);
    let done = desk.run("zpool export -f gone");
    assert_eq!(done.status, 0, "{}", done.err);
    assert!(done.err.contains("still say that it is in use"), "{}", done.err);
    assert_eq!(desk.ok("zpool list -H -o name"), "here\n");
    std::fs::rename(&away, &drive).unwrap();
    desk.import("gone");
    // With its drive there, -f exports like any other.
    desk.ok("zpool export -f gone");
    assert_eq!(desk.run("zpool export -f gone").status, 1);
    desk.import("gone");
    desk.export_and_judge("gone");
}

/// What stands against a pool is found before any of its devices is written.
#[test]
fn all_is_checked_before_anything_is_written() {
    let desk = Desk::with_pool("tank");
    let (a, b) = (desk.drive("a.img", 96), desk.drive("b.img", 96));
    let (a, b) = (a.display().to_string(), b.display().to_string());
    let small = desk.drive("small.img", 8).display().to_string();
    std::os::unix::fs::symlink(&a, desk.path("link.img")).unwrap();
    let link = desk.path("link.img").display().to_string();
    let tank = desk.path("tank/drive.img").display().to_string();
    for (line, words) in [
        (format!("new mirror {a} {link}"), "more than once"),
        (format!("new {a} {a}"), "more than once"),
        (format!("new mirror {a} {tank}"), "is part of active pool 'tank'"),
        (format!("new mirror {a} {b}.none"), "b.img.none"),
        (format!("new mirror {a} {small}"), "small.img"),
        (format!("log {a}"), "name is reserved"),
        (format!("mirrors {a}"), "name is reserved"),
        (format!("raidz9 {a}"), "name is reserved"),
        (format!("draid-x {a}"), "name is reserved"),
        (format!("spare {a}"), "name is reserved"),
        (format!("-m relative new {a}"), "must be an absolute path"),
        (format!("-O mountpoint=relative new {a}"), "absolute path"),
    ] {
        desk.refused(&format!("zpool create -f {line}"), 1, &[words]);
        assert!(std::fs::read(&a).unwrap().iter().all(|b| *b == 0), "{line}: something was written");
    }
    // A state that cannot be kept.
    std::fs::create_dir(desk.path("state/pools/new.new")).unwrap();
    desk.refused(&format!("zpool create new {a}"), 1, &["could not be remembered", "nothing was done"]);
    assert!(std::fs::read(&a).unwrap().iter().all(|b| *b == 0));
    desk.ok("zpool export tank");
    std::fs::create_dir(desk.path("state/pools/tank.new")).unwrap();
    let before = std::fs::read(&tank).unwrap();
    let import = format!("zpool import -d {} tank", desk.path("tank").display());
    desk.refused(&import, 1, &["could not be remembered"]);
    assert!(std::fs::read(&tank).unwrap() == before, "a refused import writes nothing");
    let would = desk.ok(&format!("zpool create -n two mirror {a} {b}"));
    assert!(would.contains(&format!("\ttwo\n\t  mirror\n\t    {a}\n\t    {b}\n")), "{would}");
}

/// Columns apart, whatever the length of the names; pools apart; nothing at the ends of lines.
#[test]
fn the_layout_of_status() {
    let desk = Desk::with_pool("tank");
    let long = "a".repeat(60);
    desk.pool(&long, 96);
    assert_eq!(desk.ok("zpool status -x tank"), "pool 'tank' is healthy\n");
    let status = desk.ok("zpool status");
    assert!(status.lines().all(|l| l.trim_end() == l), "{status}");
    assert!(status.contains("errors: No known data errors\n\n  pool: tank\n"), "{status}");
    let rows: Vec<&str> = status.lines().filter(|l| l.contains("ONLINE  ")).collect();
    assert_eq!(rows.len(), 4, "{status}");
    assert!(rows.iter().all(|r| r.split_whitespace().count() == 5), "{status}");
    for pool in status.split("\n\n  pool:") {
        let header = pool.lines().find(|l| l.contains("NAME")).unwrap();
        let at = header.find("STATE").unwrap();
        let rows = pool.lines().filter(|l| l.contains("ONLINE  "));
        rows.for_each(|r| assert_eq!(r.find("ONLINE"), Some(at), "{pool}"));
    }
}

/// While another command has the pool, nothing is known of it; that is not a missing drive.
#[test]
fn a_pool_in_use_by_another_command() {
    let desk = Desk::with_pool("tank");
    desk.ok("icecore service stop"); // which has it open still
    let held = FileDevice::open(desk.path("tank/drive.img"), Access::Exclusive).unwrap();
    let status = desk.ok("zpool status");
    for words in [" state: -\n", "Another command is using the pool", "action: Wait"] {
        assert!(status.contains(words), "{status}\nand not: {words}");
    }
    assert!(!status.contains("UNAVAIL") && !status.contains("Attach"), "{status}");
    desk.refused("zpool export -f tank", 1, &["in use by another command"]);
    // `list` waits for it, says so, and does not wait for ever.
    desk.refused("zpool list", 1, &["tank is in use by another command; waiting up to 10 s\n", "one writer"]);
    let mut list = desk.spawn("zpool list -H -o name,health", Stdio::null());
    let mut says = BufReader::new(list.stderr.take().unwrap());
    let mut line = String::new();
    says.read_line(&mut line).unwrap();
    assert_eq!(line, "tank is in use by another command; waiting up to 10 s\n");
    drop(held);
    let list = list.wait_with_output().unwrap();
    assert_eq!((list.status.code(), &*String::from_utf8_lossy(&list.stdout)), (Some(0), "tank\tONLINE\n"));
    desk.ok("zpool status tank");
    desk.export_and_judge("tank");
}

/// Pool properties are stored where OpenZFS keeps them, or refused.
#[test]
fn pool_properties() {
    let desk = Desk::new();
    let drive = desk.drive("props/drive.img", 96).display().to_string();
    for (o, words) in [
        ("autotrim=maybe", "'autotrim' must be one of 'on | off'"),
        ("compatibility=openzfs-2.1", "could not read/parse feature file(s): openzfs-2.1"),
        ("cachefile=/etc/x", "no cache file"),
        ("multihost=on", "multihost"),
    ] {
        desk.refused(&format!("zpool create -o {o} props {drive}"), 1, &[words]);
    }
    desk.ok(&format!(
        "zpool create -o autotrim=on -o autoexpand=on -o failmode=continue -o cachefile=none -o compatibility=off -o ashift=12 -o altroot=/alt -m none props {drive}"
    ));
    assert_eq!(desk.ok("zpool get -H -o value altroot props"), "/alt\n");
    desk.ok("zpool export props");
    desk.ok(&format!("zpool import -d {drive} -o altroot=/b -o cachefile=none props"));
    assert_eq!(desk.ok("zpool get -H -o value altroot props"), "/b\n");
    desk.export_and_judge("props");
    desk.import("props");
    for (prop, value, source) in [
        ("autotrim", "on", "local"),
        ("autoexpand", "on", "local"),
        ("failmode", "continue", "local"),
        ("autoreplace", "off", "default"),
        ("multihost", "off", "default"),
        ("delegation", "on", "default"),
        ("listsnapshots", "off", "default"),
        ("compatibility", "off", "default"),
        ("ashift", "12", "local"),
        ("bcloneused", "0B", "-"),
        ("bclonesaved", "0B", "-"),
        ("bcloneratio", "1.00x", "-"),
    ] {
        let shown = desk.ok(&format!("zpool get -H -o value,source {prop} props"));
        assert_eq!(shown, format!("{value}\t{source}\n"), "{prop}");
        assert!(desk.ok("zpool get -H -o property all props").lines().any(|p| p == prop), "{prop}");
    }
}

/// `zpool status -j` in the shape of OpenZFS 2.3: compared with what its `zpool` says of a mirror that it scrubbed.
#[test]
fn status_as_json_has_openzfs_shape() {
    let keys = |v: &serde_json::Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let desk = Desk::new();
    let (a, b) = (desk.drive("twin/a.img", 96), desk.drive("twin/b.img", 96));
    desk.ok(&format!("zpool create -o ashift=12 -m none twin mirror {} {}", a.display(), b.display()));
    desk.ok("zpool scrub -w twin");
    let all: serde_json::Value = serde_json::from_str(&desk.ok("zpool status -j")).unwrap();
    assert_eq!(all["output_version"]["command"], "zpool status");
    let pool = &all["pools"]["twin"];
    let pool_keys = [
        "error_count",
        "name",
        "pool_guid",
        "scan_stats",
        "spa_version",
        "state",
        "txg",
        "vdevs",
        "zpl_version",
    ];
    assert_eq!(keys(pool), pool_keys);
    assert_eq!((pool["state"].as_str(), pool["error_count"].as_str()), (Some("ONLINE"), Some("0")));
    let scan = &pool["scan_stats"];
    assert_eq!((scan["function"].as_str(), scan["state"].as_str()), (Some("SCRUB"), Some("FINISHED")));
    assert!(scan["start_time"].as_str().unwrap().contains(" UTC 20"), "{scan}");
    assert_eq!((keys(scan).len(), scan["scrub_pause"].as_str()), (15, Some("-")));
    let root = &pool["vdevs"]["twin"];
    let mirror = &root["vdevs"]["mirror-0"];
    assert_eq!((root["vdev_type"].as_str(), mirror["vdev_type"].as_str()), (Some("root"), Some("mirror")));
    let space = ["alloc_space", "total_space", "def_space"].map(|k| mirror[k].as_str().unwrap().to_string());
    assert_eq!(space[1], space[2]);
    assert_eq!(root["alloc_space"], mirror["alloc_space"]);
    let leaf = &mirror["vdevs"][a.to_str().unwrap()];
    let leaf_keys = [
        "checksum_errors",
        "class",
        "guid",
        "name",
        "path",
        "phys_space",
        "read_errors",
        "slow_ios",
        "state",
        "vdev_type",
        "write_errors",
    ];
    assert_eq!(keys(leaf), leaf_keys);
    assert_eq!((leaf["phys_space"].as_str(), leaf["class"].as_str()), (Some("96M"), Some("normal")));
    let guid = desk.ok("zpool get -Hp -o value guid twin").trim().to_string();
    let flat = desk.ok("zpool status -j --json-int --json-flat-vdevs --json-pool-key-guid");
    let flat: serde_json::Value = serde_json::from_str(&flat).unwrap();
    let pool = &flat["pools"][&guid];
    assert_eq!(pool["pool_guid"].as_u64().unwrap().to_string(), guid);
    let leaf = &pool["vdevs"][b.to_str().unwrap()];
    assert_eq!((leaf["parent"].as_str(), leaf["phys_space"].as_u64()), (Some("mirror-0"), Some(96 * MIB)));
    assert_eq!(pool["vdevs"]["mirror-0"]["parent"], "twin");
    // Only trouble.
    let well: serde_json::Value = serde_json::from_str(&desk.ok("zpool status -jx")).unwrap();
    assert_eq!(well["pools"], serde_json::json!({}));
    std::fs::rename(&b, desk.path("b.away")).unwrap();
    desk.ok("icecore service stop"); // which has it open still
    let trouble: serde_json::Value = serde_json::from_str(&desk.ok("zpool status -jx")).unwrap();
    let pool = &trouble["pools"]["twin"];
    assert_eq!(pool["state"], "DEGRADED");
    assert!(
        pool["status"].as_str().unwrap().starts_with("One or more devices could not be opened"),
        "{pool}"
    );
    assert!(pool["action"].as_str().unwrap().starts_with("Attach the missing devices"), "{pool}");
    let leaf = &pool["vdevs"]["twin"]["vdevs"]["mirror-0"]["vdevs"][b.to_str().unwrap()];
    assert_eq!((leaf["state"].as_str(), leaf["aux"].as_str()), (Some("CANT_OPEN"), Some("OPEN_FAILED")));
    for (line, words) in [
        ("--json-int", "'--json-int' only works with '-j' option"),
        ("--json-flat-vdevs", "'--json-flat-vdevs' only works with '-j' option"),
        ("--json-pool-key-guid", "'json-pool-key-guid' only works with '-j' option"),
    ] {
        desk.refused(&format!("zpool status {line}"), 2, &[words]);
    }
    assert_eq!(desk.refused("zpool status -j none", 1, &["cannot open 'none': no such pool"]).text(), "");
}

/// A pool made with as little as can be gets the rest later.
#[test]
fn features_are_enabled_by_upgrade() {
    const NEEDED: [&str; 5] =
        ["lz4_compress", "spacemap_histogram", "extensible_dataset", "empty_bpobj", "hole_birth"];
    let desk = Desk::new();
    let drive = desk.drive("bare/drive.img", 96);
    let none = format!("zpool create -d -m none bare {}", drive.display());
    desk.refused(&none, 1, &["cannot create 'bare': pools without lz4_compress, spacemap_histogram"]);
    let needed: Vec<String> = NEEDED.iter().map(|f| format!("-o feature@{f}=enabled")).collect();
    desk.ok(&none.replace("-m none", &format!("-m none {}", needed.join(" "))));
    let feature = |name: &str| desk.ok(&format!("zpool get -H -o value feature@{name} bare"));
    assert_eq!((feature("large_blocks"), feature("enabled_txg")), ("disabled\n".into(), "active\n".into()));
    let listed = desk.ok("zpool upgrade");
    assert!(listed.contains("POOL  FEATURE\n---------------\nbare\n      async_destroy\n"), "{listed}");
    assert!(!listed.contains("      hole_birth\n") && !listed.contains("      draid\n"), "{listed}");
    let again = desk.path("bare");
    desk.export_and_judge("bare");
    desk.ok(&format!("zpool import -d {} bare", again.display()));
    for (line, status, words) in [
        ("none", 1, "cannot open 'none': no such pool"),
        ("-a bare", 2, "-a option should not be used along with a pool name"),
        ("-v bare", 2, "-v option is incompatible with other arguments"),
        ("-V 28", 2, "-V option is incompatible with other arguments"),
        ("-V 29 bare", 2, "invalid version '29'"),
    ] {
        desk.refused(&format!("zpool upgrade {line}"), status, &[words]);
    }
    let newer = desk.ok("zpool upgrade -V 28 bare");
    assert!(newer.contains("is already formatted using more current version '5000'"), "{newer}");
    assert_eq!(feature("large_blocks"), "disabled\n");
    let done = desk.ok("zpool upgrade bare");
    assert!(done.contains("Enabled the following features on 'bare':\n  async_destroy\n"), "{done}");
    assert_eq!((feature("large_blocks"), feature("draid")), ("enabled\n".into(), "disabled\n".into()));
    let words = "Pool 'bare' already has all supported and requested features enabled.";
    assert!(desk.ok("zpool upgrade bare").contains(words));
    let words = "Every feature flags pool already has all supported and requested features enabled.";
    assert!(desk.ok("zpool upgrade -a").contains(words));
    let words = "Every feature flags pool has all supported and requested features enabled.";
    assert!(desk.ok("zpool upgrade").contains(words));
    assert!(desk.ok("zpool upgrade -v").contains("\nencryption                           \n     Support"));
    // What it got is of use.
    desk.ok("zfs create -o recordsize=1M -o checksum=blake3 -o compression=zstd bare/fs");
    std::fs::write(desk.path("letter"), vec![7; 1 << 20]).unwrap();
    desk.ok("icecore cp letter bare/fs:/letter");
    desk.ok("zfs snapshot bare/fs@s");
    assert_eq!(feature("large_blocks"), "active\n");
    desk.export_and_judge("bare");
}

/// Another identity, in all labels, and everything else as it was.
#[test]
fn a_pool_gets_another_guid() {
    let desk = Desk::new();
    let (a, b) = (desk.drive("twin/a.img", 96), desk.drive("twin/b.img", 96));
    desk.ok(&format!("zpool create -o ashift=12 -m none twin mirror {} {}", a.display(), b.display()));
    desk.pool("tank", 96);
    desk.ok("zfs create twin/fs");
    let guid = |pool: &str| desk.ok(&format!("zpool get -Hp -o value guid {pool}")).trim().to_string();
    let first = guid("twin");
    let before = desk.seen("twin");
    for (line, status, words) in [
        ("", 2, "missing pool name"),
        ("twin tank", 2, "too many arguments"),
        ("-g none twin", 2, "invalid GUID: none"),
        ("-g 0 twin", 255, "cannot reguid 'twin': invalid argument for this pool operation"),
        (&format!("-g {} twin", guid("tank")), 255, "cannot reguid 'twin': pool already exists"),
        ("none", 1, "cannot open 'none': no such pool"),
    ] {
        desk.refused(&format!("zpool reguid {line}"), status, &[words]);
    }
    assert_eq!(desk.seen("twin"), before);
    desk.ok("zpool reguid twin");
    let second = guid("twin");
    assert_ne!(first, second);
    desk.ok("zpool reguid -g 1234567890123 twin");
    assert_eq!(guid("twin"), "1234567890123");
    desk.ok("zfs snapshot twin/fs@s");
    desk.ok("icecore service stop");
    assert_eq!(desk.names("-r twin -t all"), ["twin", "twin/fs", "twin/fs@s"]);
    // Of a side that is away nobody would know any more that it belongs here.
    std::fs::rename(&b, desk.path("b.away")).unwrap();
    desk.ok("icecore service stop");
    let words = "cannot reguid 'twin': one or more devices is currently unavailable";
    desk.refused("zpool reguid twin", 255, &[words]);
    std::fs::rename(desk.path("b.away"), &b).unwrap();
    desk.ok("icecore service stop");
    assert_eq!(
        (guid("twin").as_str(), desk.ok("zpool list -H -o health twin").trim()),
        ("1234567890123", "ONLINE")
    );
    desk.export_and_judge("twin");
    desk.import("twin");
    assert_eq!(guid("twin"), "1234567890123");
}

/// Single disks and mirrors join a pool; what is unlike it only with -f, and what is no device of ours not at all.
#[test]
fn vdevs_are_added() {
    let desk = Desk::with_pool("tank");
    let (a, b, c) =
        (desk.drive("tank/a.img", 256), desk.drive("tank/b.img", 256), desk.drive("tank/c.img", 256));
    let (a, b, c) = (a.display().to_string(), b.display().to_string(), c.display().to_string());
    let first = desk.path("tank/drive.img").display().to_string();
    let before = desk.seen("tank");
    let unlike = "invalid vdev specification\nuse '-f' to override the following errors:\nmismatched replication level: pool uses file and new vdev is mirror\n";
    for (line, status, words) in [
        (format!("tank mirror {a} {b}"), 1, unlike),
        (format!("none {a}"), 1, "cannot open 'none': no such pool\n"),
        (format!("tank/fs {a}"), 1, "cannot open 'tank/fs': invalid character '/' in pool name\n"),
        (
            format!("-f tank {first}"),
            1,
            &*format!(
                "invalid vdev specification\nthe following errors must be manually repaired:\n{first} is part of active pool 'tank'\n"
            ),
        ),
        (format!("tank {a} {a}"), 1, "cannot add to 'tank': one or more vdevs refer to the same device\n"),
        (
            format!("-o ashift=9 tank {a}"),
            1,
            "cannot add to 'tank': adding devices with different physical sector sizes is not allowed\n",
        ),
        (
            format!("tank {}", desk.drive("small.img", 8).display()),
            1,
            "cannot add to 'tank': device is less than the minimum size (64M)\n",
        ),
        (format!("tank {a}.none"), 1, &*format!("cannot resolve path '{a}.none'\n")),
        ("tank none".into(), 1, "cannot open 'none': no such device in /dev\n"),
        ("tank mirror".into(), 1, "invalid vdev specification: mirror requires at least 2 devices\n"),
        (format!("-o ashift tank {a}"), 2, "missing '=' for -o option\n"),
    ] {
        let done = desk.refused(&format!("zpool add {line}"), status, &[words]);
        assert!(done.err.starts_with(words), "{line}\n{}", done.err);
        assert!(std::fs::read(&a).unwrap().iter().all(|b| *b == 0), "{line}: something was written");
    }
    assert_eq!(
        desk.ok(&format!("zpool add -n tank {a}")),
        format!("would update 'tank' to the following configuration:\n\n\ttank\n\t  {first}\n\t  {a}\n")
    );
    assert_eq!(desk.seen("tank"), before);
    let size = |desk: &Desk| desk.ok("zpool list -Hp -o size tank").trim().parse::<u64>().unwrap();
    let small = size(&desk);
    desk.ok(&format!("zpool add tank {a}"));
    assert!(size(&desk) > small + 200 * MIB, "{} after {small}", size(&desk));
    desk.ok("zfs create -o compression=off tank/fs");
    desk.ok(&format!("zpool add -f tank mirror {b} {c}"));
    let status = desk.ok("zpool status tank");
    for device in [&first, &a, &b, &c, &"mirror-2".to_string()] {
        assert!(status.contains(device.as_str()), "{status}");
    }
    // More than the first device holds.
    let data: Vec<u8> = (0..200 * MIB).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 11) as u8).collect();
    std::fs::write(desk.path("data"), &data).unwrap();
    desk.ok(&format!("icecore cp {} tank/fs:data", desk.path("data").display()));
    desk.export_and_judge("tank");
    desk.import("tank");
    assert!(desk.bytes("icecore cat tank/fs:data") == data);
    desk.ok("zpool scrub -w tank");
    assert!(desk.ok("zpool status tank").contains("with 0 errors"));
    desk.export_and_judge("tank");
}
