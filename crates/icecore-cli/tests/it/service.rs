//! The service: one process that owns the pools, many callers.

use crate::support::{Desk, stream, wait_for};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PASSPHRASE: &[u8] = b"open sesame please\n";

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// A pool with a dataset of some megabytes, snapshotted as `@root`.
fn with_data() -> Desk {
    let desk = Desk::new();
    desk.pool("tank", 512);
    desk.feed("zfs receive tank/data", &stream("main@root.raw-R.zfs"));
    desk
}

/// The stream of one snapshot, longer than a pipe holds.
fn long_stream(desk: &Desk) -> Vec<u8> {
    let bytes = desk.bytes(&format!("zfs send -w {LONG}"));
    assert!(bytes.len() > 3 << 20);
    bytes
}

const LONG: &str = "tank/data/encrypted/photos@root";

#[test]
fn it_comes_with_the_first_pool_and_goes_with_the_last() {
    let desk = Desk::new();
    assert_eq!(desk.service(), None);
    desk.pool("one", 128);
    let first = desk.service().unwrap();
    desk.pool("two", 128);
    desk.ok("zfs create one/a");
    assert_eq!(desk.service(), Some(first));
    let said = desk.ok("icecore service status");
    assert!(said.contains("pool one: open\n"), "{said}");
    desk.export_and_judge("one");
    assert_eq!(desk.service(), Some(first));
    desk.export_and_judge("two");
    wait_for("the service goes", || desk.service().is_none());
    // Stopped, it comes again with the next command, and pools are as they were.
    desk.import("one");
    let second = desk.service().unwrap();
    desk.ok("icecore service stop");
    assert_eq!(desk.service(), None);
    assert_eq!(desk.names("-r one"), ["one", "one/a"]);
    assert_ne!(desk.service().unwrap(), second);
    // Its folder gone, it goes.
    let pid = desk.service().unwrap();
    std::fs::remove_dir_all(desk.path("state")).unwrap();
    wait_for("the service goes with its folder", || {
        !std::path::Path::new(&format!("/proc/{pid}/fd/0")).exists()
    });
}

/// What the one who happens to start it has limited for their own programs is no limit of others.
#[test]
fn limits_of_who_starts_it_are_not_its_own() {
    let desk = Desk::new();
    let drive = desk.drive("tank/drive.img", 128).display().to_string();
    let create = desk.command(&format!("zpool create tank {drive}"));
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -Sn 40; ulimit -Sf 100; exec \"$@\"", "sh"]);
    limited.arg(create.get_program()).args(create.get_args());
    limited.envs(create.get_envs().filter_map(|(k, v)| Some((k, v?)))).stdin(Stdio::null());
    assert!(limited.status().unwrap().success());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", desk.service().unwrap())).unwrap();
    for what in ["Max open files", "Max file size"] {
        let line = limits.lines().find_map(|l| l.strip_prefix(what)).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], words[1], "{what}: {line}");
    }
    for i in 0..60 {
        desk.ok(&format!("zfs create tank/fs{i}"));
    }
    desk.export_and_judge("tank");
}

#[test]
fn many_commands_at_once_on_one_pool() {
    let desk = with_data();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let desk = &desk;
            scope.spawn(move || {
                for round in 0..3 {
                    let here = format!("tank/w{worker}-{round}");
                    desk.ok(&format!("zfs create {here}"));
                    desk.ok(&format!("zfs snapshot {here}@s"));
                    desk.piped("zfs send -w tank/data@root", &format!("zfs receive {here}/copy"));
                    desk.piped(
                        &format!("zfs send -w {here}/copy@root"),
                        &format!("zfs receive -s {here}/again"),
                    );
                    assert!(desk.names("-r tank").contains(&format!("{here}/again")));
                    desk.ok(&format!("zfs destroy -r {here}/copy"));
                }
            });
        }
    });
    assert_eq!(desk.names("-r tank").iter().filter(|n| n.ends_with("/again")).count(), 24);
    desk.export_and_judge("tank");
}

#[test]
fn what_is_in_use_is_busy() {
    let desk = with_data();
    let bytes = long_stream(&desk);
    let mut receive = desk.spawn("zfs receive -s tank/new", Stdio::piped());
    let mut stdin = receive.stdin.take().unwrap();
    stdin.write_all(&bytes[..bytes.len() / 3]).unwrap();
    // A receive that waits for its stream keeps nobody waiting.
    wait_for("the receive to begin", || desk.names("-r tank").contains(&"tank/new".into()));
    desk.ok("zfs snapshot tank@meanwhile");
    desk.refused("zfs destroy -r tank/new", 1, &["dataset is busy"]);
    desk.refused("zfs rename tank/new tank/other", 1, &["dataset is busy"]);
    desk.refused("zpool export tank", 1, &["cannot export 'tank': pool is busy"]);
    // A send whose reader is slow does not either.
    let mut send = desk.spawn(&format!("zfs send -w {LONG}"), Stdio::null());
    let mut first = [0; 1000];
    send.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    desk.refused(&format!("zfs destroy {LONG}"), 1, &["dataset is busy"]);
    desk.refused(&format!("zfs rename {LONG} @other"), 1, &["dataset is busy"]);
    desk.ok("zfs create tank/third");
    // Callers who are killed leave nothing stuck, and nothing busy.
    send.kill().unwrap();
    send.wait().unwrap();
    receive.kill().unwrap();
    receive.wait().unwrap();
    wait_for("both to end", || !desk.ok("icecore service status").contains("\nrunning:"));
    drop(stdin);
    assert_ne!(desk.get("receive_resume_token", "tank/new"), "-");
    desk.ok("zfs receive -A tank/new");
    desk.ok(&format!("zfs rename {LONG} @other"));
    desk.export_and_judge("tank");
}

#[test]
fn killed_in_the_middle_it_comes_again() {
    let desk = with_data();
    desk.feed("zfs create -o encryption=on -o keyformat=passphrase tank/secret", PASSPHRASE);
    assert_eq!(desk.get("keystatus", "tank/secret"), "available");
    let bytes = long_stream(&desk);
    for resumable in ["-s ", ""] {
        let line = format!("zfs receive {resumable}tank/new");
        let mut receive = desk.spawn(&line, Stdio::piped());
        let mut stdin = receive.stdin.take().unwrap();
        stdin.write_all(&bytes[..bytes.len() / 2]).unwrap();
        wait_for("the receive to begin", || desk.names("-r tank").contains(&"tank/new".into()));
        let pid = desk.service().unwrap();
        signal("-9", pid);
        let ended = receive.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(1));
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(said.contains("the service ended while the command ran"), "{said}");
        drop(stdin);
        // The next command starts it again; keys were in the memory of the one that died.
        assert_eq!(desk.get("keystatus", "tank/secret"), "unavailable");
        assert_ne!(desk.service(), Some(pid));
        assert_eq!(desk.get("receive_resume_token", "tank/new") == "-", resumable.is_empty());
        if resumable.is_empty() {
            // What a plain receive left is removed by the next.
            desk.feed("zfs receive tank/new", &bytes);
            desk.ok("zfs destroy -r tank/new");
        } else {
            desk.ok("zfs receive -A tank/new");
        }
    }
    desk.refused("zfs create tank/secret/child", 1, &["encryption root's key is not loaded or provided"]);
    desk.export_and_judge("tank");
}

/// The folder in which pools are remembered, as a crash may leave it: older than the devices, or newer.
#[test]
fn what_a_crash_makes_of_the_memory_of_pools() {
    let desk = with_data();
    let record = desk.path("state/pools/tank.json");
    let kept = std::fs::read(&record).unwrap();
    desk.ok("zfs create tank/new");
    desk.export_and_judge("tank");
    assert!(!record.exists());
    // A pool that was exported is remembered again: it is there with all it has, and can be exported again.
    std::fs::write(&record, &kept).unwrap();
    assert!(desk.names("-r tank").contains(&"tank/new".into()));
    desk.ok("zfs create tank/newer");
    desk.export_and_judge("tank");
    // One that was imported is not: it is found as any other.
    desk.import("tank");
    signal("-9", desk.service().unwrap());
    std::fs::remove_file(&record).unwrap();
    assert_eq!(desk.ok("zpool list -H"), "");
    desk.import("tank");
    assert!(desk.names("-r tank").contains(&"tank/newer".into()));
    // A record that is no record is named, and nothing is done.
    desk.ok("zpool export tank");
    std::fs::write(&record, &kept[..kept.len() / 2]).unwrap();
    desk.refused("zpool list", 1, &["tank.json is damaged", "remove it and import the pool again"]);
    std::fs::remove_file(&record).unwrap();
    desk.import("tank");
    desk.export_and_judge("tank");
}

#[test]
fn keys_stay_loaded_until_they_are_unloaded() {
    let desk = Desk::with_pool("tank");
    desk.feed("zfs create -o encryption=on -o keyformat=passphrase tank/a", PASSPHRASE);
    desk.ok("zfs create tank/a/b");
    desk.ok("zfs snapshot -r tank/a@s");
    desk.piped("zfs send tank/a/b@s", "zfs receive tank/plain");
    desk.refused("zfs load-key tank/a", 255, &["Key load error: Key already loaded for 'tank/a'."]);
    desk.refused(
        "zfs unload-key tank/a/b",
        255,
        &["Keys must be unloaded for encryption root of 'tank/a/b' (tank/a)."],
    );
    desk.ok("zfs unload-key tank/a");
    desk.refused("zfs unload-key tank/a", 255, &["Key unload error: Key already unloaded for 'tank/a'."]);
    assert_eq!(desk.get("keystatus", "tank/a/b"), "unavailable");
    desk.feed_refused("zfs load-key tank/a", b"something else\n", &["Incorrect key provided for 'tank/a'."]);
    assert_eq!(desk.feed("zfs load-key -r tank", PASSPHRASE), "1 / 1 key(s) successfully loaded\n");
    assert_eq!(desk.get("keystatus", "tank/a/b"), "available");
    assert_eq!(desk.ok("zfs unload-key -a"), "1 / 1 key(s) successfully unloaded\n");
    // A key given for one command is gone with it.
    let key = desk.key_file("key", PASSPHRASE);
    desk.ok(&format!("zfs create --keylocation {key} tank/a/c"));
    assert_eq!(desk.get("keystatus", "tank/a"), "unavailable");
    // A failed command takes the pool back, and leaves keys where they were.
    desk.feed("zfs load-key tank/a", PASSPHRASE);
    desk.refused("zfs create tank/a/b", 1, &["dataset already exists"]);
    let cut = &stream("plain@newsnapshot.Lecp.zfs")[..100_000];
    assert_eq!(desk.with_input("zfs receive tank/cut", cut).status, 1);
    desk.ok("zfs create tank/a/d");
    assert_eq!(desk.get("keystatus", "tank/a"), "available");
    assert!(!desk.names("-r tank").contains(&"tank/cut".into()));
    desk.export_and_judge("tank");
    desk.import("tank");
    assert_eq!(desk.get("keystatus", "tank/a"), "unavailable");
}

#[test]
fn nobody_else_may_talk_to_it() {
    let desk = Desk::with_pool("tank");
    let state = desk.path("state");
    let mode = |name: &str| {
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(state.join(name)).unwrap()) & 0o777
    };
    assert_eq!((mode("."), mode("service.sock")), (0o700, 0o600));
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: another user is not tried");
        return;
    }
    // Even where the permissions of the files would let them.
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    for folder in [desk.path(""), state.clone(), state.join("pools")] {
        open(&folder, 0o755);
    }
    open(&state.join("service.sock"), 0o777);
    let mut words = vec!["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let exe = desk.path("zfs");
    words.extend([exe.to_str().unwrap(), "list"]);
    let done = Command::new("setpriv").args(words).env("ICECORE_STATE_DIR", &state).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(1) && said.contains("permission denied"), "{said}");
}

#[test]
fn a_device_that_fails_suspends_its_pool_until_it_is_back() {
    let desk = with_data();
    let drive = desk.path("tank/drive.img");
    let whole = std::fs::metadata(&drive).unwrap().len();
    let copy = std::fs::read(&drive).unwrap();
    // Everything past the labels is gone.
    std::fs::OpenOptions::new().write(true).open(&drive).unwrap().set_len(1 << 20).unwrap();
    desk.ok("icecore service stop");
    let start = Instant::now();
    let done = desk.run("zfs create tank/x");
    assert!(done.status == 1 && start.elapsed() < Duration::from_secs(5), "{}", done.err);
    std::fs::OpenOptions::new().write(true).open(&drive).unwrap().set_len(whole).unwrap();
    let mut file = std::fs::OpenOptions::new().write(true).open(&drive).unwrap();
    file.write_all(&copy).unwrap();
    desk.ok("zpool clear tank");
    desk.ok("zfs create tank/x");
    desk.export_and_judge("tank");
}

#[test]
fn without_the_service_a_command_works_alone() {
    let desk = Desk::with_pool("tank");
    desk.ok("icecore service stop");
    let alone = |line: &str| desk.command(line).env("ICECORE_SERVICE", "off").output().unwrap();
    assert!(alone("zfs create tank/a").status.success());
    assert_eq!(desk.service(), None);
    assert_eq!(desk.names("-r tank"), ["tank", "tank/a"]);
    let done = alone("zfs create tank/b");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.contains("in use by another command"), "{said}");
    desk.export_and_judge("tank");
}

#[test]
fn output_nobody_reads_and_folders_of_the_callers() {
    let desk = with_data();
    // A relative path is the caller's, and a file it makes has the caller's umask.
    let at = desk.path("elsewhere");
    std::fs::create_dir(&at).unwrap();
    std::fs::write(at.join("key"), PASSPHRASE).unwrap();
    std::fs::File::create(at.join("d.img")).unwrap().set_len(128 << 20).unwrap();
    let done = desk.command("zpool create -m none near ./d.img").current_dir(&at).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    desk.ok("zpool export near");
    // The reader of a list has gone: quietly status 1, and the service is none the worse.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = desk.command("zfs list -r -t all tank").stdout(writer).output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.len()), (Some(1), 0));
    assert!(desk.service().is_some());
}
