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
        ("zfs send -R -X tank tank@a", "not a valid non-root dataset name"),
        ("zfs receive", "missing snapshot argument"),
        ("zfs receive -o nonsense tank/x", "missing '='"),
        ("zfs snapshot", "missing snapshot argument"),
        ("zfs snapshot tank", "invalid snapshot name"),
        ("zfs rollback tank", "not a snapshot"),
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
    assert!(!send.contains("redact") && !send.contains("--saved"), "{send}");
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
