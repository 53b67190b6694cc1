//! Every settable property: what it takes, what it refuses, in which words, and that a refusal changes nothing.

use crate::support::{Desk, failure};
use icecore_check::fixture::{fixture, tests_data};
use icecore_dsl::prop::table::{self, PROPS};

/// What a bad word is answered with.
const ONE_OF: &str = "must be one of";
const NUMBER: &str = "bad numeric value 'x'";
const BLOCK: &str = "must be power of 2 from 512B to 16M";

type Row = (&'static str, &'static str, &'static str, &'static str, Option<(&'static str, &'static str)>);

/// Property, dataset, a value and how `get -p` shows it, a bad value and the words of its refusal (none: any
/// text is taken).
const TABLE: &[Row] = &[
    ("quota", "tank/fs", "64M", "67108864", Some(("1", "size is less than current used or reserved space"))),
    ("quota", "tank/fs", "none", "0", Some(("0", "use 'none' to disable quota/refquota"))),
    (
        "refquota",
        "tank/fs",
        "60M",
        "62914560",
        Some(("1K", "size is less than current used or reserved space")),
    ),
    ("reservation", "tank/fs", "2M", "2097152", Some(("1P", "size is greater than available space"))),
    ("reservation", "tank/fs", "none", "0", Some(("x", NUMBER))),
    (
        "refreservation",
        "tank/fs",
        "1.5M",
        "1572864",
        Some(("auto", "'refreservation=auto' only allowed on volumes")),
    ),
    ("refreservation", "tank/fs", "none", "0", Some(("1Q", "invalid numeric suffix 'Q'"))),
    (
        "volsize",
        "tank/v",
        "2M",
        "2097152",
        Some(("2000000", "must be a multiple of volume block size (16K)")),
    ),
    ("recordsize", "tank/fs", "1M", "1048576", Some(("1000", BLOCK))),
    ("recordsize", "tank/fs", "512", "512", Some(("32M", BLOCK))),
    (
        "mountpoint",
        "tank/fs",
        "/mnt/x",
        "/mnt/x",
        Some(("rel", "must be an absolute path, 'none', or 'legacy'")),
    ),
    ("sharenfs", "tank/fs", "on", "on", None),
    ("sharesmb", "tank/fs", "on", "on", None),
    ("checksum", "tank/fs", "blake3", "blake3", Some(("md5", ONE_OF))),
    ("compression", "tank/v", "zstd-fast-10", "zstd-fast-10", Some(("zstd-20", ONE_OF))),
    ("atime", "tank/fs", "off", "off", Some(("maybe", "'atime' must be one of 'on | off'"))),
    ("devices", "tank/fs", "off", "off", Some(("1", ONE_OF))),
    ("exec", "tank/fs", "off", "off", Some(("no", ONE_OF))),
    ("setuid", "tank/fs", "off", "off", Some(("no", ONE_OF))),
    ("readonly", "tank/fs", "on", "on", Some(("yes", ONE_OF))),
    ("readonly", "tank/fs", "off", "off", Some(("", ONE_OF))),
    ("zoned", "tank/fs", "off", "off", Some(("yes", ONE_OF))),
    (
        "snapdir",
        "tank/fs",
        "visible",
        "visible",
        Some(("on", "'snapdir' must be one of 'disabled | hidden | visible'")),
    ),
    ("aclmode", "tank/fs", "passthrough", "passthrough", Some(("x", ONE_OF))),
    ("aclinherit", "tank/fs", "passthrough-x", "passthrough-x", Some(("x", ONE_OF))),
    (
        "acltype",
        "tank/fs",
        "posixacl",
        "posix",
        Some(("x", "'acltype' must be one of 'off | nfsv4 | posix'")),
    ),
    ("canmount", "tank/fs", "noauto", "noauto", Some(("x", "'canmount' must be one of 'on | off | noauto'"))),
    ("xattr", "tank/fs", "dir", "dir", Some(("x", ONE_OF))),
    ("copies", "tank/fs", "2", "2", Some(("4", "'copies' must be one of '1 | 2 | 3'"))),
    ("copies", "tank/e", "2", "2", Some(("3", "encrypted datasets cannot have 3 copies"))),
    ("version", "tank/fs", "5", "5", Some(("4", "Can not downgrade; already at version 5"))),
    ("vscan", "tank/fs", "on", "on", Some(("x", ONE_OF))),
    ("nbmand", "tank/fs", "on", "on", Some(("x", ONE_OF))),
    ("filesystem_limit", "tank/fs", "7", "7", Some(("x", NUMBER))),
    ("snapshot_limit", "tank/fs", "7", "7", Some(("auto", "'auto' is invalid value for 'snapshot_limit'"))),
    ("primarycache", "tank/fs", "metadata", "metadata", Some(("x", ONE_OF))),
    ("secondarycache", "tank/fs", "none", "none", Some(("x", ONE_OF))),
    ("prefetch", "tank/fs", "none", "none", Some(("x", ONE_OF))),
    ("logbias", "tank/v", "throughput", "throughput", Some(("x", ONE_OF))),
    ("dedup", "tank/fs", "off", "off", Some(("edonr", ONE_OF))),
    (
        "sync",
        "tank/fs",
        "always",
        "always",
        Some(("on", "'sync' must be one of 'standard | always | disabled'")),
    ),
    ("dnodesize", "tank/fs", "auto", "auto", Some(("32k", ONE_OF))),
    ("volmode", "tank/v", "dev", "dev", Some(("x", ONE_OF))),
    ("snapdev", "tank/v", "visible", "visible", Some(("x", ONE_OF))),
    ("context", "tank/fs", "none", "none", None),
    ("fscontext", "tank/fs", "none", "none", None),
    ("defcontext", "tank/fs", "none", "none", None),
    ("rootcontext", "tank/fs", "none", "none", None),
    ("relatime", "tank/fs", "off", "off", Some(("x", ONE_OF))),
    ("redundant_metadata", "tank/fs", "some", "some", Some(("x", ONE_OF))),
    ("overlay", "tank/fs", "off", "off", Some(("x", ONE_OF))),
    (
        "keylocation",
        "tank/e",
        "prompt",
        "prompt",
        Some(("none", "keylocation must not be 'none' for encrypted datasets")),
    ),
    (
        "keylocation",
        "tank/fs",
        "none",
        "none",
        Some(("prompt", "keylocation must be 'none' for unencrypted datasets")),
    ),
    ("keylocation", "tank/e", "file:///x", "file:///x", Some(("ftp://x", "invalid keylocation"))),
    (
        "special_small_blocks",
        "tank/fs",
        "32K",
        "32768",
        Some(("1G", "must be zero or a power of 2 from 512B to 16M")),
    ),
    ("volthreading", "tank/v", "off", "off", Some(("x", ONE_OF))),
    ("direct", "tank/fs", "always", "always", Some(("x", ONE_OF))),
    ("longname", "tank/fs", "on", "on", Some(("x", ONE_OF))),
    ("org.example:note", "tank/fs", "some text", "some text", None),
];

/// Settable, but of other machines, of none that we print, or not to be had here.
const NOT_HERE: &[&str] = &["iscsioptions", "stmf_sbd_lu", "mlslabel"];

#[test]
fn every_settable_property() {
    let desk = Desk::with_pool("tank");
    let key = desk.key_file("key", &[7; 32]);
    desk.ok("zfs create tank/fs");
    desk.ok("zfs create -s -V 1M tank/v");
    desk.ok(&format!("zfs create -o encryption=on -o keyformat=raw -o keylocation={key} tank/e"));
    let missing: Vec<&str> = PROPS
        .iter()
        .filter(|p| !p.readonly() && !NOT_HERE.contains(&p.name))
        .map(|p| p.name)
        .filter(|name| !TABLE.iter().any(|(p, ..)| p == name))
        .collect();
    assert!(missing.is_empty(), "without a row: {missing:?}");
    for (prop, name, good, shown, bad) in TABLE {
        let set = |value: &str| {
            let mut c = desk.command("zfs set");
            crate::support::Done::from(c.arg(format!("{prop}={value}")).arg(name).output().unwrap())
        };
        let done = set(good);
        assert_eq!(done.status, 0, "{prop}={good} {name}: {}", done.err);
        assert_eq!(desk.get(prop, name), *shown, "{prop}={good} {name}");
        if let Some((bad, words)) = bad {
            let done = set(bad);
            assert_eq!(done.status, 255, "{prop}={bad} {name}: {}", done.err);
            let begin = format!("cannot set property for '{name}': ");
            let warned = format!("{prop}: property requires a special device in the pool\n");
            let said = done.err.strip_prefix(&warned).unwrap_or(&done.err);
            assert!(said.starts_with(&begin) && said.contains(words), "{prop}={bad}: {}", done.err);
            assert_eq!(desk.get(prop, name), *shown, "{prop}={bad} changed something");
        }
        if table::find(prop).is_none_or(table::Prop::inheritable) {
            desk.ok(&format!("zfs inherit {prop} {name}"));
            assert_ne!(desk.ok(&format!("zfs get -H -o source {prop} {name}")), "local\n", "{prop}");
        }
    }
    desk.export_and_judge("tank");
}

#[test]
fn what_cannot_be_set_or_inherited() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create tank/fs");
    desk.ok("zfs create -s -V 1M tank/v");
    desk.ok("zfs snapshot tank/fs@s");
    desk.ok("zfs set org.example:a=b tank/fs@s");
    let before = desk.seen("tank");
    // Whoever asks without a word is told what there is, and of all datasets, snapshots too.
    for line in ["zfs get", "zfs set", "zfs inherit"] {
        let row = |name: &str, rest: &str| format!("\n\t{name:<24}{rest}");
        let rows = [
            row("PROPERTY", "EDIT  INHERIT  VALUES\n"),
            row("atime", "YES   YES      on | off\n"),
            row("quota", "YES   NO       <size> | none\n"),
            row("creation", "NO    NO       <number>\n"),
        ];
        desk.refused(line, 2, &rows.each_ref().map(String::as_str));
    }
    assert_eq!(desk.ok("zfs get -H -o name type"), "tank\ntank/fs\ntank/fs@s\ntank/v\n");
    for p in PROPS.iter().filter(|p| p.readonly() && p.types & table::FS != 0 && p.name != "name") {
        let line = format!("zfs set {}=x tank/fs", p.name);
        desk.refused(&line, 255, &[&format!("cannot set property for 'tank/fs': '{}' is readonly", p.name)]);
        desk.refused(&format!("zfs inherit {} tank/fs", p.name), 1, &["property is read-only"]);
    }
    let long = "x".repeat(300);
    for (line, words) in [
        ("set written@s=1 tank/fs".into(), "'written@s' is readonly"),
        ("set nonsense=1 tank/fs".into(), "invalid property 'nonsense'"),
        ("set Org:a=1 tank/fs".into(), "invalid property 'Org:a'"),
        (format!("set a:{long}=1 tank/fs"), "is too long"),
        (format!("set a:b={} tank/fs", "x".repeat(8192)), "property value too long"),
        (format!("set mountpoint=/a/{long} tank/fs"), "component of 'mountpoint' is too long"),
        ("set compression=lz4 tank/fs@s".into(), "this property can not be modified for snapshots"),
        ("set recordsize=8k tank/v".into(), "'recordsize' does not apply to datasets of this type"),
        ("set atime=off atime=on tank/fs".into(), "property 'atime' specified multiple times"),
        ("set atime=off nonsense=1 tank/fs".into(), "invalid property 'nonsense'"),
        ("set quota=99999999999999999999 tank/fs".into(), "numeric value is too large"),
        ("set mlslabel=x tank/fs".into(), "mlslabels are unsupported"),
        ("set atime=off tank/none".into(), "cannot open 'tank/none': dataset does not exist"),
        (
            "inherit quota tank/fs".into(),
            "'quota' property cannot be inherited\nuse 'zfs set quota=none' to clear\nuse 'zfs inherit -S quota' to revert to received value",
        ),
        ("inherit canmount tank/fs".into(), "'canmount' property cannot be inherited"),
        ("inherit -S volsize tank/v".into(), "'volsize' property cannot be reverted to a received value"),
        (
            "inherit recordsize tank/v".into(),
            "cannot inherit recordsize for 'tank/v': property doesn't apply to datasets of this type",
        ),
    ] {
        let line = format!("zfs {line}");
        let status = if words.starts_with("cannot open") { 1 } else { failure(&line) };
        desk.refused(&line, status, &[words]);
    }
    assert_eq!(desk.seen("tank"), before);
    assert_eq!(desk.get("atime", "tank/fs"), "on", "all properties of a line or none");
    // One dataset that fails does not keep the others from being changed.
    desk.refused("zfs set recordsize=8K tank/none tank/v tank/fs", 255, &["does not apply"]);
    assert_eq!(desk.get("recordsize", "tank/fs"), "8192");
    desk.ok("zfs inherit -r recordsize tank");
    assert_eq!(desk.get("recordsize", "tank/fs"), "131072");
    desk.ok("zfs inherit org.example:a tank/fs@s");
    assert_eq!(desk.get("org.example:a", "tank/fs@s"), "-");
}

#[test]
fn mountpoints_follow_their_parents() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create -p tank/a/b");
    for (pair, a, b) in [
        ("mountpoint=/srv", "/srv", "/srv/b"),
        ("mountpoint=legacy", "legacy", "legacy"),
        ("mountpoint=none", "none", "none"),
    ] {
        desk.ok(&format!("zfs set {pair} tank/a"));
        assert_eq!(
            (desk.get("mountpoint", "tank/a").as_str(), desk.get("mountpoint", "tank/a/b").as_str()),
            (a, b)
        );
        assert_eq!(desk.ok("zfs get -H -o source mountpoint tank/a/b"), "inherited from tank/a\n");
    }
    desk.ok("zfs set mountpoint=/own tank/a/b");
    assert_eq!(desk.get("mountpoint", "tank/a/b"), "/own");
    desk.ok("zfs inherit -r mountpoint tank/a");
    assert_eq!(desk.get("mountpoint", "tank/a/b"), "none", "as the root says");
}

/// A pool has properties of its users too: they stand between its own and the features, last until they are taken away, and zdb
/// knows the object they are in.
#[test]
fn users_properties_of_a_pool() {
    let desk = Desk::new();
    let drive = desk.drive("tank/drive.img", 128);
    desk.ok(&format!("zpool create -m none -o org.example:shelf=cellar tank {}", drive.display()));
    desk.ok("zpool set org.example:drive=b tank");
    desk.refused(
        "zpool set org.Example:drive=b tank",
        1,
        &["cannot set property for 'tank': invalid property"],
    );
    let long = "x".repeat(256);
    desk.refused(&format!("zpool set org.example:{long}=b tank"), 1, &["is too long"]);
    desk.ok("zpool export tank");
    desk.ok(&format!("zpool import -d {} tank", desk.path("tank").display()));
    assert_eq!(desk.ok("zpool get -H org.example:drive tank"), "tank\torg.example:drive\tb\tlocal\n");
    assert_eq!(desk.ok("zpool get -H org.example:none tank"), "tank\torg.example:none\t-\tdefault\n");
    assert_eq!(desk.ok("zpool list -H -o name,org.example:shelf"), "tank\tcellar\n");
    let all = desk.ok("zpool get -H -o property all tank");
    let all: Vec<&str> = all.lines().collect();
    let at = |p: &str| all.iter().position(|l| *l == p).unwrap();
    assert!(
        at("org.example:drive").max(at("org.example:shelf")) + 1 == at("feature@async_destroy"),
        "{all:?}"
    );
    desk.ok("zpool set org.example:drive= tank");
    assert!(!desk.ok("zpool get -H -o property all tank").contains("org.example:drive"));
    desk.export_and_judge("tank");
}

/// What OpenZFS said of its pools of `odds` beside their files, line for line: the history with all that happened inside,
/// space by owner, properties that are counted.
#[test]
fn what_openzfs_said_of_odd_pools() {
    for pool in ["odds", "v13", "ratio"] {
        let desk = Desk::new();
        let expected = tests_data().join(format!("odds/{pool}.expected"));
        let theirs = |name: &str| std::fs::read_to_string(expected.join(name)).unwrap();
        let image = fixture(&format!("odds/{pool}.img"));
        desk.ok(&format!("zpool import -d {} -N -o readonly=on {pool}", image.display()));

        // Their guest knows no name for user 0; the export came after.
        let ours = desk.ok(&format!("zpool history -il {pool}")).replace("[user 0 (root) on", "[user 0 on");
        let mut ours: Vec<&str> = ours.trim_end().lines().collect();
        assert!(ours.pop().unwrap().contains(" zpool export -f "), "{ours:?}");
        let history = theirs("history.txt");
        assert!(ours.len() > 30);
        assert_eq!(ours, history.trim_end().lines().collect::<Vec<_>>(), "{pool}");

        let space = theirs("space.txt");
        let mut lists = space.split("## ").skip(1).peekable();
        assert!(lists.peek().is_some());
        for (head, rows) in
            lists.filter_map(|l| l.split_once('\n')).filter(|(_, rows)| !rows.starts_with("cannot"))
        {
            let (command, dataset) = head.split_once(' ').unwrap();
            let numbers = if command == "projectspace" { "-Hp" } else { "-Hpn" };
            assert_eq!(desk.ok(&format!("zfs {command} {numbers} {dataset}")), rows, "{head}");
        }

        let props = theirs("zpool-get.tsv");
        let counted =
            ["dedupratio", "version", "bcloneratio", "leaked", "dedup_table_quota", "last_scrubbed_txg"];
        for counted in counted {
            let row = props.lines().find(|l| l.split('\t').nth(1) == Some(counted)).unwrap();
            assert_eq!(desk.ok(&format!("zpool get -Hp {counted} {pool}")).trim_end(), row);
        }
        // All that both know stands in one order.
        let all = desk.ok(&format!("zpool get -Hp -o property all {pool}"));
        let theirs: Vec<&str> = props.lines().filter_map(|l| l.split('\t').nth(1)).collect();
        let shared = |list: &[&str], of: &[&str]| -> Vec<String> {
            list.iter().filter(|p| of.contains(p)).map(ToString::to_string).collect()
        };
        let ours: Vec<&str> = all.lines().collect();
        assert!(shared(&ours, &theirs).len() > 70);
        assert_eq!(shared(&ours, &theirs), shared(&theirs, &ours), "{pool}");
        // Of one these went on until the export: this is what `zdb -M` and `zdb -D` say of it.
        let row = |name: &str| props.lines().find_map(|l| l.split_once(&format!("\t{name}\t"))).unwrap().1;
        let told = ["fragmentation", "dedup_table_size"].map(|p| row(p).trim_end_matches("\t-"));
        let expected = if pool == "ratio" { ["25", "36864"] } else { told };
        let ours = desk.ok(&format!("zpool get -Hp -o value fragmentation,dedup_table_size {pool}"));
        assert_eq!(ours.lines().collect::<Vec<_>>(), expected);
        // These two went on until the export: how far is told where the blocks are counted.
        let now = desk.ok(&format!("zpool get -Hp -o value freeing,checkpoint {pool}"));
        assert_eq!(now, if pool == "odds" { "229376\n1101824\n" } else { "0\n-\n" });
        desk.ok(&format!("zpool export {pool}"));
    }
}
