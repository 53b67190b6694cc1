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
}

#[test]
fn exit_one_where_the_pool_says_no() {
    let desk = Desk::with_pool("tank");
    let before = desk.seen("tank");
    for (line, words) in [
        ("zfs create tank", "cannot create 'tank': missing dataset name"),
        ("zfs create tank/a/b", "cannot create 'tank/a/b': parent does not exist"),
        ("zfs create tank/a@b", "tank/a@b"),
        ("zfs create -o compression=nonsense tank/a", "compression"),
        ("zfs create none/a", "cannot create 'none/a': no such pool 'none'"),
        ("zfs rollback tank@none", "cannot open 'tank@none': dataset does not exist"),
        ("zfs create -o compression tank/a", "missing '=' for property=value argument"),
        ("zfs receive -c tank", "cannot receive: failed to read from stream"),
        ("zpool import -o nonsense=1 tank", "property 'nonsense' is not a valid pool or vdev property"),
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

/// Wrong lines and what OpenZFS 2.3.2 itself answered to each, on pools of the same making: its status, the line, and the first
/// line of its complaint (none where it printed its usage only), with tabs between. `DIR` is the folder of the drives, `LONG` a
/// word of 300 letters. Left out are lines that are answered otherwise here, which SHORTCOMINGS.md tells of.
const LINES: &str = include_str!("wrong.txt");

/// Words of a line; some are quoted, and the last may be `< FILE`.
fn words(line: &str) -> (Vec<String>, Option<String>) {
    let (line, input) = match line.split_once(" < ") {
        Some((line, file)) => (line, Some(file.to_string())),
        None => (line, None),
    };
    let mut out = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        match at % 2 {
            0 => out.extend(part.split_whitespace().map(String::from)),
            _ => out.push(part.to_string()),
        }
    }
    (out, input)
}

/// Pools with one of everything that a line can be wrong about.
fn every_kind() -> Desk {
    let desk = Desk::new();
    let dir = desk.path("");
    let dir = dir.display().to_string().trim_end_matches('/').to_string();
    (0..8).for_each(|n| drop(desk.drive(&format!("d{n}"), 128)));
    desk.drive("small", 1);
    desk.drive("large", 512);
    std::fs::create_dir(desk.path("dir")).unwrap();
    for (name, bytes) in [
        ("text", b"hello\n".to_vec()),
        ("pass", b"correct horse\n".to_vec()),
        ("raw", vec![b'k'; 32]),
        ("hex", format!("{:064}\n", 1).into_bytes()),
        ("zeros", vec![0; 100_000]),
        ("bytes", (0..4_000_000_u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 11) as u8).collect()),
    ] {
        std::fs::write(desk.path(name), bytes).unwrap();
    }
    let key = format!("-o encryption=on -o keyformat=passphrase -o keylocation=file://{dir}/pass");
    for line in [
        format!("zpool create -o ashift=12 -O mountpoint=none -O compression=off tank {dir}/d0"),
        format!("zpool create -o ashift=12 -O mountpoint=none pond mirror {dir}/d1 {dir}/d2"),
        format!("zpool create -o ashift=12 -O mountpoint=none away {dir}/d3"),
        "zpool export away".into(),
        "zfs create tank/fs".into(),
        "zfs create tank/fs/kid".into(),
        "zfs create -s -V 8M tank/v".into(),
        format!("zfs create {key} tank/e"),
        format!("zfs create {key} tank/e2"),
        "zfs create tank/e2/in".into(),
        format!("zfs create -o keyformat=raw -o keylocation=file://{dir}/raw tank/e2/k"),
        format!("zfs create -o mountpoint={dir}/mnt/m tank/m"),
        "zfs create -o mountpoint=legacy tank/legacy".into(),
        format!("zfs create -o canmount=off -o mountpoint={dir}/mnt/off tank/off"),
        format!("zfs create -o mountpoint={dir}/mnt/un tank/un"),
        format!("zfs create -o mountpoint={dir}/mnt/z pond/z"),
        "icecore cp bytes tank/m:data".into(),
        "zfs snapshot tank/m@s".into(),
        "icecore cp text tank/m:more".into(),
        "zfs snapshot tank/m@t".into(),
        "zfs snapshot tank/fs@a".into(),
        "zfs snapshot tank/fs@b".into(),
        "zfs snapshot tank/fs@c".into(),
        "zfs snapshot tank/e@a".into(),
        "zfs clone tank/fs@a tank/c".into(),
        "zfs snapshot tank/c@x".into(),
        "zfs bookmark tank/fs@a tank/fs#m".into(),
        "zfs hold tag tank/fs@b".into(),
        "zfs snapshot tank/v@a".into(),
        "zfs create tank/q".into(),
        "zfs snapshot tank/q@only".into(),
        "zfs clone tank/q@only tank/q/inner".into(),
        "zfs unload-key tank/e".into(),
    ] {
        desk.ok(&line);
    }
    let full = desk.bytes("zfs send tank/m@s");
    std::fs::write(desk.path("inc.zs"), desk.bytes("zfs send -i @s tank/m@t")).unwrap();
    std::fs::write(desk.path("pack.zs"), desk.bytes("zfs send -R tank/m@t")).unwrap();
    std::fs::write(desk.path("cut.zs"), &full[..2_000_000]).unwrap();
    desk.feed_refused("zfs receive -s -u tank/part", &full[..2_000_000], &["is saved"]);
    std::fs::write(desk.path("full.zs"), full).unwrap();
    desk
}

/// Types the lines whose command is `tool`, and sees that nothing changes.
fn answered_as_openzfs_does(tool: &str) {
    let desk = every_kind();
    let dir = desk.path("");
    let dir = dir.display().to_string().trim_end_matches('/').to_string();
    let long = "a".repeat(300);
    let spelled = |text: &str| text.replace("DIR", &dir).replace("LONG", &long);
    let seen = || desk.seen("tank") + &desk.seen("pond");
    let txgs = || {
        let status: serde_json::Value = serde_json::from_str(&desk.ok("zpool status -j")).unwrap();
        ["tank", "pond"].map(|pool| status["pools"][pool]["txg"].as_str().unwrap().to_string())
    };
    let before = seen();
    let (mut wrong, mut typed, mut since) = (Vec::new(), 0, txgs());
    let mut lately: Vec<String> = Vec::new();
    for row in LINES.lines() {
        let [status, line, complaint] = row.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let (words, input) = words(&spelled(line));
        if words[0] != tool {
            continue;
        }
        let mut command = desk.command(&words[0]);
        command.args(&words[1..]);
        if let Some(file) = input {
            command.stdin(std::fs::File::open(desk.path(&file)).unwrap());
        }
        let done: crate::support::Done = command.output().unwrap().into();
        typed += 1;
        let complaint = spelled(complaint);
        let first = done.err.lines().find(|l| !l.trim().is_empty()).unwrap_or("");
        let usage = status == "2";
        if done.status.to_string() != status
            || (!complaint.is_empty() && first.trim_end() != complaint)
            || usage != done.err.contains("usage:")
        {
            wrong.push(format!("{line}\n  {status} {complaint}\n  {} {}", done.status, done.err.trim_end()));
        }
        // A receive may have begun before its stream is found wanting.
        if words.get(1).is_some_and(|w| w == "receive") {
            since = txgs();
            lately.clear();
            continue;
        }
        lately.push(line.into());
        if lately.len() == 32 {
            let now = txgs();
            if now != since {
                wrong.push(format!("one of these changed a pool: {lately:#?}"));
                since = now;
            }
            lately.clear();
        }
    }
    assert!(typed > 200, "{typed} lines");
    assert!(wrong.is_empty(), "{} of {typed} lines\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(txgs(), since, "{lately:#?}");
    assert_eq!(seen(), before);
    desk.ok("zpool export -a");
}

#[test]
fn bad_input_to_zfs_is_answered_as_openzfs_answers_it() {
    answered_as_openzfs_does("zfs");
}

#[test]
fn bad_input_to_zpool_is_answered_as_openzfs_answers_it() {
    answered_as_openzfs_does("zpool");
}

/// Commands of OpenZFS that are not here say so, by the status with which tools find out that there is none.
#[test]
fn what_is_not_here_is_refused_by_name() {
    let desk = Desk::new();
    for (tool, commands) in [
        ("zfs", "allow unallow share unshare program redact project wait jail unjail zone unzone rewrite"),
        ("zpool", "events iostat reopen resilver trim initialize checkpoint remove split prefetch ddtprune"),
    ] {
        let help = desk.ok(&format!("{tool} help"));
        for command in commands.split(' ') {
            let words = format!("'{tool} {command}' is not supported: ");
            desk.refused(&format!("{tool} {command} tank"), 2, &[&words]);
            assert!(!help.contains(&format!("\t{command} ")), "{help}");
        }
    }
}

#[test]
fn bad_input_to_icecore_changes_nothing() {
    const NOWHERE: &str = "cannot open 'none': dataset does not exist";
    let lines = [
        ("ls", 2, "missing dataset"),
        ("ls none", 1, NOWHERE),
        ("ls tank/none", 1, "cannot open 'tank/none': dataset does not exist"),
        ("ls tank/fs:none", 1, "no such file or directory"),
        ("ls tank/v", 1, "'tank/v' is a volume: it has no files"),
        ("ls -Z tank/fs", 2, "invalid option 'Z'"),
        ("cat", 2, "missing file"),
        ("cat tank/fs", 1, "is a directory"),
        ("cat tank/fs:none", 1, "no such file or directory"),
        ("cp tank/fs:file", 2, "a source and a destination are needed"),
        ("cp tank/fs:none out", 1, "no such file or directory"),
        ("cp none tank/fs:x", 1, "none"),
        ("cp f tank/none:x", 1, "cannot open 'tank/none': dataset does not exist"),
        ("cp f tank/fs@a:x", 1, "cannot open 'tank/fs@a': snapshots cannot be changed"),
        ("cp f tank/fs:none/x", 1, "no such file or directory"),
        ("find", 2, "missing dataset"),
        ("find none", 1, NOWHERE),
        ("find tank/fs -name", 2, "missing argument to '-name'"),
        ("find -Z tank/fs", 2, "unknown option '-Z'"),
        ("du", 2, "missing dataset"),
        ("du none", 1, NOWHERE),
        ("du tank/fs:none", 1, "no such file or directory"),
        ("mkdir", 2, "missing path"),
        ("mkdir none:x", 2, "is not POOL/FS:PATH of an imported pool"),
        ("mkdir tank/fs:file", 1, "file exists"),
        ("mkdir tank/fs:a/b/c", 1, "no such file or directory"),
        ("rm", 2, "missing path"),
        ("rm tank/fs:none", 1, "no such file or directory"),
        ("rm tank/fs:", 1, "the root of a dataset cannot be removed"),
        ("rm tank/fs@a:file", 1, "snapshots cannot be changed"),
        ("import-tree", 2, "a folder and a file system are needed"),
        ("import-tree none tank/fs", 1, "none"),
        ("import-tree folder none", 1, NOWHERE),
        ("import-tree f tank/fs", 1, "not a directory"),
        ("mount", 2, "a dataset or snapshot and a directory are needed"),
        ("mount none folder", 1, NOWHERE),
        ("mount -Z tank folder", 2, "invalid option 'Z'"),
        ("unmount", 2, "missing directory"),
        ("unmount /none", 1, "cannot unmount '/none': not currently mounted"),
        ("unmount folder", 1, "cannot unmount 'folder': not currently mounted"),
        ("service", 2, "missing command"),
        ("service none", 2, "unrecognized command 'none'"),
        ("service stop x", 2, "too many arguments"),
        ("service status -Z", 2, "invalid option 'Z'"),
        ("sync tank", 2, "sync takes a source and a destination"),
        ("sync tank none", 1, NOWHERE),
        ("sync none tank", 1, NOWHERE),
        ("sync -Z a b", 2, "invalid option 'Z'"),
        ("demo -Z", 2, "invalid option 'Z'"),
        ("demo a b", 2, "too many arguments"),
        ("stream", 2, "missing command"),
        ("stream verify", 2, "missing file argument"),
        ("stream verify none", 1, "cannot open 'none'"),
        ("stream verify f", 1, "DAMAGED"),
        ("stream dump f", 1, "the stream ends in the middle"),
        ("stream ls none", 1, "cannot open 'none'"),
        ("stream cat f", 2, "missing --at"),
        ("stream extract f", 2, "missing file argument"),
        ("inspect", 2, "missing command"),
        ("inspect label none", 1, "cannot open none"),
        ("inspect uberblocks none", 1, "cannot open none"),
        ("inspect config none", 1, NOWHERE),
        ("inspect blocks none", 1, NOWHERE),
        ("inspect objects none", 1, NOWHERE),
        ("inspect pointers tank", 2, "wrong number of arguments"),
        ("inspect block tank x", 2, "wrong number of arguments"),
        ("inspect spacemaps none", 1, NOWHERE),
        ("inspect log none", 1, NOWHERE),
        ("version x", 2, "too many arguments"),
    ];
    let desk = Desk::with_pool("tank");
    std::fs::write(desk.path("f"), "hi\n").unwrap();
    std::fs::create_dir(desk.path("folder")).unwrap();
    for line in [
        "zfs create tank/fs",
        "zfs create -s -V 8M tank/v",
        "icecore cp f tank/fs:file",
        "zfs snapshot tank/fs@a",
    ] {
        desk.ok(line);
    }
    let txg = || {
        let status: serde_json::Value = serde_json::from_str(&desk.ok("zpool status -j tank")).unwrap();
        status["pools"]["tank"]["txg"].as_str().unwrap().to_string()
    };
    let before = (desk.seen("tank"), txg());
    for (line, status, words) in lines {
        desk.refused(&format!("icecore {line}"), status, &[words]);
        assert_eq!(txg(), before.1, "{line}");
    }
    assert_eq!(desk.seen("tank"), before.0);
    desk.export_and_judge("tank");
}
