//! Command lines that make no sense: 2 for the line itself, 1 for what it asks of a pool, and words tools look for.

use crate::support::Desk;

#[test]
fn exit_two_and_usage() {
    let desk = Desk::with_pool("tank");
    let before = desk.seen("tank");
    for (line, words) in [
        ("zfs", "missing command"),
        // `zfs_do_snapshot` ends so where the dataset cannot be opened.
        ("zfs snapshot tank/none@a", "cannot open 'tank/none': dataset does not exist"),
        ("zfs nonsense", "unrecognized command 'nonsense'"),
        ("zpool", "missing command"),
        ("zpool nonsense", "unrecognized command 'nonsense'"),
        ("icecore", "usage: icecore"),
        ("icecore nonsense", "unrecognized command 'nonsense'"),
        ("zfs list --nonsense", "invalid option '--nonsense'"),
        ("zfs send -Z tank@a", "invalid option 'Z'"),
        ("zfs send -V", "missing snapshot argument"),
        ("zfs send", "missing snapshot argument"),
        ("zfs send tank@a tank@b", "too many arguments"),
        ("zfs send -i", "missing argument for 'i' option"),
        ("zfs send -i a -I b tank@c", "-i and -I"),
        ("zfs send -R -t 1-abc", "invalid flags combined with -t"),
        ("zfs send -t 1-abc tank@a", "too many arguments"),
        ("zfs send -s tank@a", "skip-missing"),
        ("zfs send -S -R tank", "incompatible flags combined with saved send flag"),
        ("zfs send --saved tank@a", "saved send must specify the dataset with partially-received state"),
        ("zfs send -S -t 1-abc", "invalid flags combined with -t"),
        ("zfs send -R -X tank tank@a", "not a valid non-root dataset name"),
        ("zfs receive", "missing snapshot argument"),
        ("zfs receive -o nonsense tank/x", "missing '='"),
        ("zfs snapshot", "missing snapshot argument"),
        ("zfs snapshot tank", "invalid snapshot name"),
        ("zfs bookmark tank@a", "missing"),
        ("zfs bookmark tank@a tank/b", "must contain a '#'"),
        ("zfs hold tag", "missing snapshot argument"),
        ("zfs release", "missing tag argument"),
        ("zfs destroy", "missing dataset argument"),
        ("zfs set", "missing arguments"),
        ("zfs set tank", "missing property=value argument"),
        ("zfs set a:b=c tank a:b=d", "invalid argument order"),
        ("zfs set tank a:b=c", "invalid argument order"),
        ("zfs promote", "missing clone filesystem argument"),
        ("zfs promote tank/a tank/b", "too many arguments"),
        ("zfs create -s tank/v", "'-s' and '-b' can only be used when creating a volume"),
        ("zfs create -u -V 1M tank/v", "'-u' can only be used when creating a filesystem"),
        ("zfs create -V 1M", "missing volume argument"),
        ("zfs inherit Up:per tank", "invalid property 'Up:per'"),
        ("zfs set a=b", "missing dataset name"),
        ("zfs get", "missing property"),
        ("zfs get -s nosuch all tank", "invalid source 'nosuch'"),
        ("zfs list -s nosuch", "invalid property 'nosuch'"),
        ("zfs list -S nosuch", "invalid property 'nosuch'"),
        ("zfs load-key", "Missing dataset argument or -a option"),
        ("zfs load-key -a tank", "Cannot specify dataset with -a option"),
        ("zfs load-key -r -L file:///x tank", "may only be 'prompt'"),
        ("zfs change-key", "Missing dataset argument"),
        ("zfs clone tank@a", "missing target dataset argument"),
        ("zfs rename tank", "missing target dataset argument"),
        ("zpool create tank2", "missing vdev specification"),
        ("zpool create", "missing pool name"),
        ("zpool export", "missing pool argument"),
        ("zpool import a b c", "too many arguments"),
        ("zpool import -o nonsense=1 tank", "nonsense"),
        ("zpool labelclear", "missing vdev name"),
        ("zpool list -o nonsense", "bad property list: invalid property 'nonsense'"),
        ("icecore sync tank", "sync takes a source and a destination"),
        ("icecore demo a b", "too many arguments"),
    ] {
        let done = desk.refused(line, 2, &[words]);
        assert!(done.err.contains("usage"), "{line}\n{}", done.err);
        assert_eq!(done.text(), "", "{line}");
    }
    assert_eq!(desk.seen("tank"), before);
}

/// Tools find out what a `zfs` can do by what its usage names.
#[test]
fn usage_names_what_tools_look_for_and_nothing_that_is_refused() {
    let desk = Desk::new();
    for (line, words) in [
        ("zfs send --help", "receive_resume_token"),
        ("zfs receive --help", "-A <filesystem|volume>"),
        ("zfs destroy --help", "<filesystem|volume>@<snap>[%<snap>][,...]"),
        ("zfs load-key --help", "keylocation"),
        ("zfs help load-key", "load-key"),
        ("zfs --help", "usage: zfs command args"),
        ("zpool --help", "usage: zpool command args"),
        ("icecore --help", "usage: icecore"),
        ("icecore sync --help", "usage: icecore sync"),
        ("icecore sync a b -h", "usage: icecore sync"),
        ("icecore help sync", "--no-snapshot"),
        ("icecore demo --help", "usage: icecore demo"),
        ("icecore zfs send --help", "send"),
        ("icecore version", "zfs-"),
    ] {
        let said = desk.ok(line);
        assert!(said.contains(words), "{line}\n{said}");
    }
    let send = desk.ok("zfs send --help");
    assert!(!send.contains("redact"), "{send}");
    assert!(!desk.ok("zfs receive --help").contains("-c"), "corrective receive is refused");
}

#[test]
fn exit_one_where_the_pool_says_no() {
    let desk = Desk::with_pool("tank");
    let before = desk.seen("tank");
    for (line, words) in [
        ("zfs create tank", "cannot create 'tank': dataset already exists"),
        ("zfs create tank/a/b", "cannot create 'tank/a/b': parent does not exist"),
        ("zfs create tank/a@b", "tank/a@b"),
        ("zfs create -o compression=nonsense tank/a", "compression"),
        ("zfs create none/a", "cannot open 'none/a': dataset does not exist"),
        ("zfs snapshot none@a", "cannot open 'none@a': dataset does not exist"),
        ("zfs rollback tank@none", "cannot open 'tank@none': dataset does not exist"),
        ("zfs create -o compression tank/a", "missing '=' for property=value argument"),
        ("zfs receive -c tank", "not supported yet"),
        ("zpool status none", "cannot open 'none': no such pool"),
        ("zpool list none", "cannot open 'none': no such pool"),
        ("zpool export none", "cannot open 'none': no such pool"),
        ("icecore sync tank none", "none"),
        ("icecore sync tank tank/x", "same pool"),
    ] {
        desk.refused(line, 1, &[words]);
    }
    assert_eq!(desk.seen("tank"), before);
    desk.export_and_judge("tank");
}

/// What OpenZFS 2.3 itself answered to these lines, on a pool of the same making. The pool is as
/// before after each.
#[test]
fn bad_input_is_answered_as_openzfs_answers_it() {
    const LINES: &[(&str, i32, &str)] = &[
        ("zfs create tank/fs", 1, "cannot create 'tank/fs': dataset already exists"),
        ("zfs create tank/none/x", 1, "cannot create 'tank/none/x': parent does not exist"),
        ("zfs create -V 0 tank/new", 1, "cannot create 'tank/new': volume size cannot be zero"),
        ("zfs create -V 8M tank/v", 1, "cannot create 'tank/v': dataset already exists"),
        ("zfs create -o nonsense=1 tank/new", 1, "cannot create 'tank/new': invalid property 'nonsense'"),
        ("zfs snapshot tank/fs@a", 1, "cannot create snapshot 'tank/fs@a': dataset already exists"),
        ("zfs snapshot tank/none@x", 2, "cannot open 'tank/none': dataset does not exist"),
        ("zfs rollback tank/fs", 1, "cannot open 'tank/fs': missing '@' delimiter in snapshot name"),
        ("zfs rollback tank/fs@none", 1, "cannot open 'tank/fs@none': dataset does not exist"),
        (
            "zfs rollback tank/fs@a",
            1,
            "cannot rollback to 'tank/fs@a': more recent snapshots or bookmarks exist",
        ),
        ("zfs clone tank/fs@none tank/new", 1, "cannot open 'tank/fs@none': dataset does not exist"),
        ("zfs clone tank/fs tank/new", 1, "cannot open 'tank/fs': missing '@' delimiter in snapshot name"),
        ("zfs clone tank/fs@a tank/c", 1, "cannot create 'tank/c': dataset already exists"),
        (
            "zfs clone -o encryption=on tank/fs@a tank/new",
            1,
            "cannot create 'tank/new': 'encryption' is readonly",
        ),
        (
            "zfs clone -o keyformat=raw tank/fs@a tank/new",
            1,
            "cannot create 'tank/new': Encryption properties must inherit from origin dataset.",
        ),
        (
            "zfs clone -o casesensitivity=mixed tank/fs@a tank/new",
            1,
            "cannot create 'tank/new': 'casesensitivity' is readonly",
        ),
        ("zfs clone -o nonsense tank/fs@a tank/new", 1, "missing '=' for property=value argument"),
        ("zfs promote tank/none", 1, "cannot open 'tank/none': dataset does not exist"),
        ("zfs rename -r tank/fs tank/x", 2, "source dataset for recursive rename must be a snapshot"),
        ("zfs rename tank/none tank/x", 1, "cannot open 'tank/none': dataset does not exist"),
        ("zfs bookmark tank/fs@a tank/fs#m", 1, "cannot create bookmark 'tank/fs#m': bookmark exists"),
        ("zfs bookmark tank/fs@none tank/fs#x", 2, "cannot open 'tank/fs@none': dataset does not exist"),
        ("zfs bookmark tank/fs tank/fs#x", 2, "invalid source name 'tank/fs': must contain a '@' or '#'"),
        ("zfs destroy tank/none", 1, "cannot open 'tank/none': dataset does not exist"),
        ("zfs destroy tank/fs@none", 1, "could not find any snapshots to destroy; check snapshot names."),
        ("zfs destroy tank/fs#none", 1, "bookmark 'tank/fs#none' does not exist."),
        ("zfs hold tag tank/fs", 1, "'tank/fs' is not a snapshot"),
        ("zfs hold .tag tank/fs@a", 2, "tag may not start with '.'"),
        ("zfs hold tag tank/fs@b", 1, "cannot hold snapshot 'tank/fs@b': tag already exists on this dataset"),
        (
            "zfs release tag tank/fs@a",
            1,
            "cannot release hold from snapshot 'tank/fs@a': no such tag on this dataset",
        ),
        ("zfs release tag tank/fs", 1, "'tank/fs' is not a snapshot"),
        ("zfs holds tank/fs", 1, "'tank/fs' is not a snapshot"),
        (
            "zfs set compression=nope tank/fs",
            255,
            "cannot set property for 'tank/fs': 'compression' must be one of",
        ),
        ("zfs set nonsense=1 tank/fs", 255, "cannot set property for 'tank/fs': invalid property 'nonsense'"),
        ("zfs set a:b=c tank/none", 1, "cannot open 'tank/none': dataset does not exist"),
        (
            "zfs set a:b=c tank/fs#m",
            1,
            "cannot open 'tank/fs#m': bookmark delimiter '#' is not expected here",
        ),
        ("zfs set type=volume tank/fs", 255, "cannot set property for 'tank/fs': 'type' is readonly"),
        ("zfs inherit compression tank/none", 1, "cannot open 'tank/none': dataset does not exist"),
        ("zfs get all tank/fs@none", 1, "cannot open 'tank/fs@none': dataset does not exist"),
        ("zfs get nonsense tank/fs", 2, "bad property list: invalid property 'nonsense'"),
        ("zfs list tank/none", 1, "cannot open 'tank/none': dataset does not exist"),
        ("zfs list -d x", 2, "x is not an integer"),
        ("zfs send tank/none@a", 1, "cannot open 'tank/none@a': dataset does not exist"),
        ("zfs send -i @none tank/fs@b", 1, "cannot open 'tank/fs@none': dataset does not exist"),
        (
            "zfs send -i @b tank/fs@a",
            1,
            "warning: cannot send 'tank/fs@a': not an earlier snapshot from the same fs",
        ),
        (
            "zfs send -i #none tank/fs@b",
            1,
            "warning: cannot send 'tank/fs@b': incremental source (tank/fs#none) does not exist",
        ),
        ("zfs send tank/fs#m", 1, "cannot open 'tank/fs#m': bookmark delimiter '#' is not expected here"),
        ("zfs send tank/e@a", 1, "warning: cannot send 'tank/e@a': dataset key must be loaded"),
        ("zfs load-key tank/fs", 255, "Key load error: 'tank/fs' is not encrypted."),
        ("zfs load-key tank/none", 1, "cannot open 'tank/none': dataset does not exist"),
        ("zfs unload-key tank/fs", 255, "Key unload error: 'tank/fs' is not encrypted."),
        ("zfs unload-key tank/e", 255, "Key unload error: Key already unloaded for 'tank/e'."),
        ("zfs change-key tank/fs", 255, "Key change error: Dataset not encrypted."),
        ("zfs change-key tank/none", 2, "cannot open 'tank/none': dataset does not exist"),
        ("zfs change-key tank/e", 255, "Key change error: Key must be loaded."),
        ("zfs change-key -i tank/e", 255, "Key change error: Parent must be encrypted."),
        ("zfs change-key -i -o keyformat=raw tank/e", 2, "Properties not allowed for inheriting"),
        (
            "zfs userspace tank/v",
            1,
            "cannot open 'tank/v': operation not applicable to datasets of this type",
        ),
        ("zpool destroy none", 1, "cannot open 'none': no such pool"),
        ("zpool export none", 1, "cannot open 'none': no such pool"),
        ("zpool status none", 1, "cannot open 'none': no such pool"),
        ("zpool detach tank none", 255, "cannot detach none: no such device in pool"),
        ("zpool scrub none", 1, "cannot open 'none': no such pool"),
        ("zpool scrub -s -p tank", 2, "invalid option combination: -s and -p are mutually exclusive"),
        ("zpool set a=b none", 22, "cannot open 'none': is not a pool"),
        ("zpool reguid none", 1, "cannot open 'none': no such pool"),
        ("zpool upgrade none", 1, "cannot open 'none': no such pool"),
    ];
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create tank/fs");
    desk.ok("zfs create -s -V 8M tank/v");
    desk.feed("zfs create -o encryption=on -o keyformat=passphrase tank/e", b"correct horse\n");
    for line in ["snapshot tank/fs@a", "snapshot tank/fs@b", "snapshot tank/e@a", "clone tank/fs@a tank/c"] {
        desk.ok(&format!("zfs {line}"));
    }
    desk.ok("zfs bookmark tank/fs@a tank/fs#m");
    desk.ok("zfs hold tag tank/fs@b");
    desk.ok("zfs unload-key tank/e");
    let txg = || {
        let status: serde_json::Value = serde_json::from_str(&desk.ok("zpool status -j tank")).unwrap();
        status["pools"]["tank"]["txg"].as_str().unwrap().to_string()
    };
    let before = (desk.seen("tank"), txg());
    for (line, status, words) in LINES {
        let done = desk.refused(line, *status, &[words]);
        assert!(done.err.starts_with(words), "{line}\n{}", done.err);
        assert_eq!(*status == 2, done.err.contains("\nusage:"), "{line}\n{}", done.err);
        assert_eq!(txg(), before.1, "{line}");
    }
    assert_eq!(desk.seen("tank"), before.0);
    desk.export_and_judge("tank");
}
