//! `icecore sync`: what is done, said and refused, and a run that is killed anywhere.

use crate::support::{Desk, stream};
use std::process::{Command, Stdio};

/// Every snapshot of `main` by its guid, and where it has to be.
fn guids(desk: &Desk, root: &str) -> Vec<String> {
    let list = desk.ok(&format!("zfs list -Hp -r -t snapshot -o name,guid,creation {root}"));
    list.lines().map(|l| l.strip_prefix(root).unwrap().to_string()).collect()
}

fn objects(said: &str) -> Vec<serde_json::Value> {
    said.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

#[test]
fn first_again_and_more() {
    let desk = Desk::with_main();
    desk.pool("backup", 256);
    let before = desk.seen("backup");
    let said = desk.ok("icecore sync --dry-run main backup/main");
    assert!(said.contains("main/plain -> backup/main/plain: not on the destination yet, about "), "{said}");
    assert!(
        said.contains(
            "# zfs send -w -p main/encrypted/docs@root | zfs receive -s -u backup/main/encrypted/docs"
        ),
        "{said}"
    );
    assert_eq!(desk.seen("backup"), before, "a dry run changes nothing");

    let said = desk.ok("icecore sync -v main backup/main");
    assert!(said.contains("main is imported read-only: backing up the snapshots that are there"), "{said}");
    assert!(said.contains("# zfs send -L -e -c -p -i @root main/plain@2023-09-27"), "{said}");
    assert!(said.contains("read back from the device, every checksum right"), "{said}");
    assert_eq!(guids(&desk, "backup/main"), guids(&desk, "main"));
    assert_eq!(desk.get("encryptionroot", "backup/main/encrypted/docs"), "backup/main/encrypted");
    assert_eq!(desk.get("org.example:owner", "backup/main/encrypted/docs"), "ben");

    let after = desk.seen("backup");
    let said = desk.ok("icecore sync main backup/main");
    assert!(said.contains("up to date: backup/main has every snapshot of main"), "{said}");
    assert_eq!(desk.seen("backup"), after);
    let lines = objects(&desk.ok("icecore sync --json main backup/main"));
    assert_eq!(lines.last().unwrap()["message_type"], "summary");
    assert_eq!(lines.last().unwrap()["streams"], 0);
    assert!(lines.iter().filter(|l| l["message_type"] == "plan").count() == 7, "{lines:?}");

    desk.ok("icecore sync --export main backup/main");
    assert_eq!(desk.ok("zpool list -H -o name"), "main\n");
    desk.judge("backup");
}

/// A plain dataset below an encrypted one, with small blocks that lie in their pointers, stays plain on the copy: no key is
/// loaded there that could encrypt it.
#[test]
fn plain_below_encrypted() {
    let desk = Desk::with_pool("tank");
    desk.pool("backup", 128);
    let key = desk.key_file("key", &[7; 32]);
    desk.ok(&format!("zfs create -o encryption=on -o keyformat=raw -o keylocation={key} tank/hidden"));
    desk.ok("zfs create -o encryption=off -o compression=lz4 tank/hidden/open");
    let small = desk.path("small");
    std::fs::write(&small, "all the same ".repeat(300)).unwrap();
    desk.ok(&format!("icecore cp {} tank/hidden/open:/small", small.display()));
    desk.ok("zfs snapshot -r tank@one");
    desk.ok("icecore sync tank backup/tank");
    assert_eq!(desk.get("encryption", "backup/tank/hidden/open"), "off");
    assert_eq!(desk.get("keystatus", "backup/tank/hidden"), "unavailable");
    desk.ok(&format!("icecore cp {} tank/hidden/open:/more", small.display()));
    desk.ok("icecore sync --snapshot two tank backup/tank");
    assert_eq!(desk.ok("icecore cat backup/tank/hidden/open@two:/more"), "all the same ".repeat(300));
    desk.export_and_judge("backup");
}

/// A source that lives: each run makes its snapshot and sends the difference.
#[test]
fn a_source_that_goes_on() {
    let desk = Desk::with_pool("tank");
    desk.pool("backup", 128);
    desk.ok("zfs create tank/a");
    desk.ok("icecore sync --snapshot one tank backup/tank");
    assert_eq!(desk.names("-t snapshot -r backup"), ["backup/tank@one", "backup/tank/a@one"]);
    desk.feed("zfs receive tank/b", &stream("plain@newsnapshot.R.zfs"));
    let lines = objects(&desk.ok("icecore sync --json --snapshot two tank backup/tank"));
    let plan: Vec<_> = lines.iter().filter(|l| l["message_type"] == "plan").collect();
    assert!(plan.iter().any(|l| l["source"] == "tank/a" && l["reason"] == "from @one"), "{plan:?}");
    assert!(
        plan.iter().any(|l| l["source"] == "tank/b" && l["reason"] == "not on the destination yet"),
        "{plan:?}"
    );
    assert!(
        lines.iter().any(|l| l["message_type"] == "status" && l["bytes"].as_u64() > Some(1000)),
        "{lines:?}"
    );
    assert_eq!(guids(&desk, "backup/tank"), guids(&desk, "tank"));
    // No new snapshots: nothing to do. And the default name is a time in UTC.
    desk.ok("icecore sync --no-snapshot tank backup/tank");
    assert_eq!(desk.names("-t snapshot backup/tank"), ["backup/tank@one", "backup/tank@two"]);
    desk.ok("icecore sync tank backup/tank");
    let newest = desk.names("-t snapshot backup/tank").pop().unwrap();
    assert!(newest.starts_with("backup/tank@icecore_2") && newest.ends_with('Z'), "{newest}");
    // A bookmark is enough when the base itself is gone at the source.
    desk.ok(&format!("zfs bookmark {} tank#base", newest.replace("backup/", "")));
    for snap in desk.names("-t snapshot tank") {
        desk.ok(&format!("zfs destroy {snap}"));
    }
    let said = desk.ok("icecore sync -v --snapshot after tank backup/tank");
    assert!(said.contains("-i #base tank@after"), "{said}");
    desk.export_and_judge("tank");
    desk.export_and_judge("backup");
}

/// What cannot work is refused before the first byte, and before the snapshot.
#[test]
fn pairs_that_do_not_fit() {
    let desk = Desk::with_main();
    desk.pool("backup", 256);
    desk.ok("zfs create backup/m");
    desk.ok("zfs create backup/m/encrypted");
    desk.ok("zfs snapshot backup/m/encrypted@other");
    let check = |line: &str, words: &[&str]| {
        let before = desk.seen("backup");
        desk.refused(line, 1, words);
        assert_eq!(desk.seen("backup"), before, "{line}");
    };
    check(
        "icecore sync main/encrypted backup/m/encrypted",
        &[
            "cannot back up main/encrypted to backup/m/encrypted: the source is encrypted and the destination's copy is not",
            "nothing was done",
        ],
    );
    desk.ok("zfs create backup/p");
    desk.ok("zfs snapshot backup/p@mine");
    check(
        "icecore sync main/plain backup/p",
        &["no snapshot or bookmark in common", "@newsnapshot", "@mine"],
    );
    desk.piped("zfs send main/plain@root", "zfs receive backup/plain");
    desk.ok("zfs snapshot backup/plain@mine");
    check(
        "icecore sync main/plain backup/plain",
        &[
            "the destination has snapshots after the common @root (@mine)",
            "'zfs rollback -r backup/plain@root'",
        ],
    );
    desk.ok("zfs destroy backup/plain@mine");
    // What a snapshot brought stays when the snapshot goes: the dataset is no longer as @root was.
    desk.piped("zfs send -i @root main/plain@newsnapshot", "zfs receive backup/plain");
    desk.ok("zfs destroy backup/plain@newsnapshot");
    check(
        "icecore sync main/plain backup/plain",
        &["the destination was changed since @root", "'zfs rollback backup/plain@root'"],
    );
    desk.ok("zfs rollback backup/plain@root");
    desk.ok("icecore sync main/plain backup/plain");
    check("icecore sync main/none backup/x", &["cannot open 'main/none': dataset does not exist"]);
    check("icecore sync none backup/x", &["cannot open 'none': dataset does not exist"]);
    check("icecore sync main main/copy", &["same pool"]);
    let done = desk.run("icecore sync --json main/plain backup/p");
    let lines = objects(&done.text());
    assert_eq!(done.status, 1);
    assert_eq!(lines[0]["message_type"], "conflict");
    assert_eq!(lines.last().unwrap()["message_type"], "exit_error");
    // A source that could be snapshotted is not, when the pair does not fit.
    desk.pool("tank", 96);
    desk.ok("zfs snapshot tank@x");
    let before = desk.seen("tank");
    check("icecore sync tank backup/p", &["no snapshot or bookmark in common"]);
    check("icecore sync tank none/p", &["cannot open 'none/p': dataset does not exist"]);
    check(
        "icecore sync tank backup/no/such",
        &["dataset 'backup/no' does not exist", "zfs create -p backup/no"],
    );
    desk.ok("zpool export backup");
    desk.ok(&format!("zpool import -d {} -o readonly=on backup", desk.path("backup").display()));
    check("icecore sync tank backup/new", &["cannot back up to 'backup/new'", "readonly=on"]);
    assert_eq!(desk.seen("tank"), before);
    desk.export_and_judge("backup");
}

/// What only the new snapshot would bring to light is refused before it is taken, and by the dry run too.
#[test]
fn refused_before_the_snapshot() {
    let desk = Desk::with_pool("tank");
    desk.pool("backup", 128);
    desk.ok("zfs create tank/a");
    desk.ok("icecore sync --snapshot one tank backup/one");
    desk.ok("zfs destroy -r tank@one");
    let check = |line: &str, words: &[&str]| {
        let before = (desk.seen("tank"), desk.seen("backup"));
        for dry in ["", "-n "] {
            let done = desk.refused(&format!("icecore sync {dry}{line}"), 1, words);
            assert!(!done.text().contains("zfs snapshot"), "{}", done.text());
        }
        assert_eq!((desk.seen("tank"), desk.seen("backup")), before, "{line}");
    };
    check(
        "tank backup/one",
        &[
            "cannot back up tank/a to backup/one/a: no snapshot or bookmark in common (the source has none",
            "nothing was done: 2 datasets cannot be backed up as they are",
        ],
    );
    desk.ok("icecore sync --snapshot two tank backup/two");
    desk.ok("zfs snapshot backup/two/a@mine");
    check(
        "tank backup/two",
        &["'zfs rollback -r backup/two/a@two'", "nothing was done: 1 dataset cannot be backed up as it is"],
    );
    desk.ok("zfs destroy backup/two/a@mine");

    // The dry run has the increment to the snapshot that it would take.
    let before = (desk.seen("tank"), desk.seen("backup"));
    let said = desk.ok("icecore sync -n tank backup/two");
    let snap = said.lines().find_map(|l| l.strip_prefix("# zfs snapshot -r tank@")).expect(&said);
    assert!(
        said.contains("tank/a -> backup/two/a: from @two, bytes unknown until the snapshot exists"),
        "{said}"
    );
    assert!(
        said.contains(&format!(
            "# zfs send -L -e -c -p -i @two tank/a@{snap} | zfs receive -s -u backup/two/a"
        )),
        "{said}"
    );
    let lines = objects(&desk.ok("icecore sync -n --json --snapshot next tank backup/new"));
    assert_eq!(lines[0]["message_type"], "snapshot");
    assert_eq!((&lines[0]["name"], &lines[0]["dry_run"]), (&"tank@next".into(), &true.into()));
    assert!(lines[1]["zfs"][1].as_str().unwrap().contains("-i @two tank@next"), "{lines:?}");
    assert_eq!(lines[1]["more_bytes_unknown"], true);
    check("--snapshot two tank backup/two", &["cannot create snapshot 'tank@two': dataset already exists"]);
    assert_eq!((desk.seen("tank"), desk.seen("backup")), before);
    desk.ok("icecore sync tank backup/two");
    desk.export_and_judge("tank");
    desk.export_and_judge("backup");
}

/// Half a stream of a snapshot that the source no longer has.
#[test]
fn half_of_what_is_gone() {
    let desk = Desk::with_pool("tank");
    desk.pool("backup", 128);
    desk.feed("zfs receive tank/b", &stream("plain@newsnapshot.R.zfs"));
    let snap = desk.names("-t snapshot tank/b").remove(0);
    let whole = desk.bytes(&format!("zfs send {snap}"));
    desk.feed_refused("zfs receive -s backup/b", &whole[..whole.len() / 2], &["is saved"]);
    let said = desk.ok("icecore sync -n --snapshot new tank/b backup/b");
    assert!(said.contains("# zfs send -t 1-") && said.contains("tank/b@new |"), "{said}");
    for snap in desk.names("-t snapshot tank/b") {
        desk.ok(&format!("zfs destroy {snap}"));
    }
    let before = desk.seen("tank");
    for line in ["icecore sync tank/b backup/b", "icecore sync -n tank/b backup/b"] {
        desk.refused(
            line,
            1,
            &["the source has no such snapshot any more", "'zfs receive -A backup/b'", &snap],
        );
    }
    assert_eq!(desk.seen("tank"), before);
    desk.ok("zfs receive -A backup/b");
    desk.ok("icecore sync tank/b backup/b");
    assert_eq!(guids(&desk, "backup/b"), guids(&desk, "tank/b"));
    desk.export_and_judge("backup");
}

/// Names have a second in them; of two runs within one the other gets a number.
#[test]
fn within_one_second() {
    let desk = Desk::with_pool("tank");
    desk.pool("backup", 128);
    desk.ok("zfs create tank/a");
    let now = jiff::Timestamp::now().as_second();
    for second in now..now + 10 {
        let time = jiff::Timestamp::from_second(second).unwrap();
        desk.ok(&format!("zfs snapshot tank/a@{}", time.strftime("icecore_%Y-%m-%d_%H%M%SZ")));
    }
    desk.ok("icecore sync tank backup/tank");
    let newest = desk.names("-t snapshot backup/tank").pop().unwrap();
    assert!(newest.ends_with("Z-1"), "{newest}");
    desk.ok("icecore sync tank/a backup/a");
    desk.ok("icecore sync tank/a backup/a");
    assert_eq!(guids(&desk, "backup/a"), guids(&desk, "tank/a"));
}

#[test]
fn lines_that_make_no_sense() {
    let desk = Desk::with_main();
    desk.pool("backup", 96);
    desk.pool("tank", 96);
    let seen = || (desk.seen("tank"), desk.seen("backup"));
    let before = seen();
    for (line, words) in [
        ("icecore sync tank backup@x", "'backup@x' is not one"),
        ("icecore sync tank#x backup", "'tank#x' is not one"),
        ("icecore sync tank backup//x", "backup//x"),
        ("icecore sync --no-snapshot --snapshot x tank backup/t", "exclude each other"),
        ("icecore sync --snapshot a/b tank backup/t", "'a/b' cannot be a snapshot's name"),
        ("icecore sync tank", "takes a source and a destination"),
        ("icecore sync --bogus tank backup/t", "invalid option '--bogus'"),
    ] {
        desk.refused(line, 2, &[words, "icecore sync [-nv]"]);
        let json = line.replace("icecore sync", "icecore sync --json");
        let lines = objects(&desk.refused(&json, 2, &[words]).text());
        assert_eq!(lines.len(), 1);
        assert_eq!((&lines[0]["message_type"], &lines[0]["code"]), (&"exit_error".into(), &2.into()));
    }
    for line in ["icecore sync --snapshot x main backup/m", "icecore sync -n --snapshot x main backup/m"] {
        desk.refused(line, 1, &["cannot create snapshot 'main@x'", "read-only"]);
    }
    assert_eq!(seen(), before);
}

/// What programs read: every step has its object, and the last status has everything done.
#[test]
fn the_objects_of_a_run() {
    let desk = Desk::with_pool("tank");
    desk.pool("backup", 128);
    desk.feed("zfs receive tank/b", &stream("plain@newsnapshot.R.zfs"));
    let lines = objects(&desk.ok("icecore sync --json --export --snapshot one tank backup/tank"));
    let kind = |l: &serde_json::Value| l["message_type"].as_str().unwrap().to_string();
    assert_eq!(kind(&lines[0]), "snapshot");
    assert_eq!((&lines[0]["name"], &lines[0]["datasets"]), (&"tank@one".into(), &2.into()));
    let tail: Vec<_> = lines[lines.len() - 3..].iter().map(kind).collect();
    assert_eq!(tail, ["read_back", "summary", "export"]);
    let [read, summary, export] = &lines[lines.len() - 3..] else { unreachable!() };
    assert!(read["bytes"].as_u64() > Some(1000) && read["bytes"] == summary["read_back"], "{read}");
    assert_eq!(export["pool"], "backup");
    let status: Vec<_> = lines.iter().filter(|l| kind(l) == "status").collect();
    let streams = summary["streams"].as_u64().unwrap();
    assert!(streams > 1 && status.len() as u64 >= 2 * streams, "{status:?}");
    let mut done = 0;
    for s in &status {
        let (now, total) = (s["bytes_done"].as_u64().unwrap(), s["total_bytes"].as_u64().unwrap());
        assert!(now >= done && now <= total, "{s}");
        assert!((0.0..=1.0).contains(&s["percent_done"].as_f64().unwrap()), "{s}");
        assert!(s.get("seconds_remaining").is_some(), "{s}");
        done = now;
    }
    assert_eq!(status[0]["percent_done"], 0.0);
    let last = status.last().unwrap();
    assert_eq!((&last["percent_done"], &last["seconds_remaining"]), (&1.0.into(), &0.into()));
    assert_eq!(last["bytes_done"], summary["bytes"]);
    assert_eq!(desk.ok("zpool list -H -o name"), "tank\n");
    desk.judge("backup");
}

/// A stream that `zfs receive -s` has half of is gone on with, and then what comes after it.
#[test]
fn half_a_stream_is_gone_on_with() {
    let desk = Desk::with_main();
    desk.pool("backup", 256);
    let whole = desk.bytes("zfs send -w -p main/encrypted/photos@root");
    desk.feed_refused("zfs receive -s backup/photos", &whole[..whole.len() / 2], &["is saved"]);
    let said = desk.ok("icecore sync -v main/encrypted/photos backup/photos");
    assert!(said.contains("a stream was cut here; it goes on where it was"), "{said}");
    assert!(said.contains("# zfs send -t 1-") && said.contains("from @root"), "{said}");
    assert_eq!(guids(&desk, "backup/photos"), guids(&desk, "main/encrypted/photos"));
    desk.export_and_judge("backup");
}

/// Bytes that a process has written so far, to its drives and through its pipes.
fn written(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let counter = io.lines().find_map(|l| l.strip_prefix("wchar: "));
    counter.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The service is killed without a chance to tidy up, or the command is, at several bytes, and it is run again until it
/// is done: each time the pool is whole, what was complete stays, and in the end nothing lacks.
#[test]
fn killed_anywhere_and_started_again() {
    let desk = Desk::with_main();
    desk.pool("backup", 256);
    let line = "icecore sync main backup/main";
    let mut killed = 0;
    let mut complete = 0;
    for (kib, service) in
        [200, 700, 1500, 2500, 4000, 5500, 7000, 9000].into_iter().zip([true, false].into_iter().cycle())
    {
        let at_work = desk.service().or_else(|| {
            desk.names("-r backup");
            desk.service()
        });
        let at_work = at_work.unwrap();
        let before = written(at_work);
        let mut child = desk.spawn(line, Stdio::null());
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if written(at_work).saturating_sub(before) >= kib << 10 {
                if service {
                    assert!(
                        Command::new("kill").args(["-9", &at_work.to_string()]).status().unwrap().success()
                    );
                } else {
                    child.kill().unwrap();
                }
                break None;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        };
        let done: crate::support::Done = child.wait_with_output().unwrap().into();
        if let Some(status) = ended {
            assert!(status.success(), "{}", done.err);
        } else {
            killed += 1;
        }
        // Locks die with their holder: the next command reads a pool that is whole. And it waits for one whose caller
        // has died to notice that.
        crate::support::wait_for("the command to end", || {
            !desk.ok("icecore service status").contains("running: icecore sync")
        });
        let snaps = desk.names("-t snapshot -r backup").len();
        assert!(snaps >= complete, "a snapshot that was complete is gone");
        complete = snaps;
    }
    assert!(killed >= 4, "killed {killed} times only");
    let said = desk.ok(line);
    assert!(said.contains("every checksum right") || said.contains("up to date"), "{said}");
    assert_eq!(guids(&desk, "backup/main"), guids(&desk, "main"));
    assert_eq!(desk.get("encryptionroot", "backup/main/encrypted/vol"), "backup/main/encrypted");
    desk.export_and_judge("backup");
}
