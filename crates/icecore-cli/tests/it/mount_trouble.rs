//! Mounts where something goes wrong: services and devices that are gone, directories that would be hidden, unmounting that
//! fails, names that are not there.

use crate::mounts::{Mounts, PASSPHRASE, can_mount, errno};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Mounts a file system and tells what lies in the directories of those below it.
fn left_below(m: &Mounts, names: &[&str]) -> Vec<PathBuf> {
    m.desk.ok("zfs unmount -a");
    let mut left: Vec<PathBuf> = Vec::new();
    let mut look =
        |dir: PathBuf| left.extend(fs::read_dir(dir).into_iter().flatten().map(|e| e.unwrap().path()));
    look(m.dir("tank"));
    for name in names {
        look(m.dir(name));
        m.desk.ok(&format!("zfs mount {name}"));
        // All that is below it but nothing is mounted there yet.
        let below = names.iter().filter(|n| n.strip_prefix(name).is_some_and(|rest| rest.starts_with('/')));
        below.for_each(|n| look(m.dir(n)));
    }
    m.desk.ok("zfs mount -a");
    let mount_points = names.iter().map(|n| m.dir(n)).collect::<Vec<_>>();
    left.retain(|path| !mount_points.contains(path));
    left
}

/// Programs that try again while their file systems are gone: nothing of theirs comes into the directory of another file
/// system, least of all what was to be encrypted.
#[test]
fn what_is_written_while_the_service_is_dead_goes_nowhere_else() {
    if !can_mount() {
        return;
    }
    let m = Mounts::new();
    let d = &m.desk;
    d.ok("zfs create -p tank/plain/sub");
    d.feed("zfs create -o encryption=on -o keyformat=passphrase tank/plain/enc", PASSPHRASE);
    d.ok("zfs create tank/plain/enc/deep");
    let names = ["tank", "tank/plain", "tank/plain/enc", "tank/plain/enc/deep", "tank/plain/sub"];
    let stop = AtomicBool::new(false);
    /// However it ends, the writers do.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let written: Vec<AtomicU64> = names.iter().map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for (name, count) in names.iter().zip(&written) {
            for hand in 0..2 {
                let (dir, stop) = (m.dir(name), &stop);
                scope.spawn(move || {
                    let mut n = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        n += 1;
                        let path = dir.join(format!("file-{hand}-{}", n % 5000));
                        let done = File::create(path).and_then(|mut f| f.write_all(b"secret"));
                        match done {
                            Ok(()) => drop(count.fetch_add(1, Ordering::Relaxed)),
                            Err(_) => std::thread::sleep(Duration::from_micros(200)),
                        }
                        if n.is_multiple_of(64) {
                            let _ = fs::create_dir(dir.join(format!("dir-{hand}")));
                        }
                    }
                });
            }
        }
        let _stop = Stop(&stop);
        for round in 0..10 {
            std::thread::sleep(Duration::from_millis(100));
            m.kill();
            d.ok("zfs list");
            let enc = m.dir("tank/plain/enc");
            assert_eq!(fs::read_dir(&enc).err().map(|e| errno(&e)), Some(126), "round {round}");
            assert_eq!(d.get("mounted", "tank/plain/enc"), "no");
            assert_eq!(m.mounted(), ["tank", "tank/plain", "tank/plain/sub"]);
            if round % 3 == 2 {
                // The next one to die never had the key.
                continue;
            }
            d.feed("zfs load-key tank/plain/enc", PASSPHRASE);
            d.ok("zfs mount -a");
            assert_eq!(m.mounted().len(), names.len());
            assert!(fs::read_dir(&enc).is_ok());
        }
    });
    d.feed("zfs load-key -a", PASSPHRASE);
    assert!(written.iter().all(|n| n.load(Ordering::Relaxed) > 0));
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = table.lines().filter(|l| l.contains(&d.path("").display().to_string()));
    assert_eq!(ours.count(), names.len(), "{table}");
    assert_eq!(left_below(&m, &names), Vec::<PathBuf>::new());
    m.judge();
}

/// A file system whose key went with the service stays closed until somebody says what is to become of it.
#[test]
fn closed_directories_go_with_what_belongs_there() {
    if !can_mount() {
        return;
    }
    let m = Mounts::new();
    let d = &m.desk;
    let closed = |name: &str| fs::read_dir(m.dir(name)).err().map(|e| errno(&e)) == Some(126);
    let mut names = Vec::new();
    for name in ["unmounted", "by-path", "by-umount", "destroyed", "renamed", "moved", "off", "kept"] {
        d.feed(&format!("zfs create -o encryption=on -o keyformat=passphrase tank/{name}"), PASSPHRASE);
        names.push(name);
    }
    d.ok("zfs create tank/kept/in");
    fs::write(m.dir("tank/kept/in").join("file"), "there").unwrap();
    d.ok("zfs create tank/plain");
    d.feed("zfs create -o encryption=on -o keyformat=passphrase tank/plain/enc", PASSPHRASE);
    m.kill();
    d.ok("zfs list");
    assert!(names.iter().all(|n| closed(&format!("tank/{n}"))));
    assert!(closed("tank/plain/enc") && closed("tank/kept/in"));
    assert_eq!(m.mounted(), ["tank", "tank/plain"]);
    // Nothing is said of it where there is nothing to be said, and it has no room.
    let room = rustix::fs::statvfs(m.dir("tank/kept")).unwrap();
    assert_eq!((room.f_blocks, room.f_bavail), (0, 0));
    d.refused("zfs mount tank/kept", 1, &["encryption key not loaded"]);
    d.ok("zfs unmount tank/unmounted");
    assert!(!closed("tank/unmounted") && fs::read_dir(m.dir("tank/unmounted")).unwrap().count() == 0);
    d.refused("zfs unmount tank/unmounted", 1, &["not currently mounted"]);
    d.ok(&format!("zfs unmount {}", m.dir("tank/by-path").display()));
    assert!(Command::new("umount").arg(m.dir("tank/by-umount")).status().unwrap().success());
    d.ok("zfs destroy tank/destroyed");
    d.ok("zfs rename tank/renamed tank/new");
    d.ok(&format!("zfs set mountpoint={} tank/moved", "/elsewhere"));
    d.ok("zfs set mountpoint=none tank/off");
    for gone in ["unmounted", "by-path", "by-umount", "destroyed", "renamed", "moved", "off"] {
        assert!(!closed(&format!("tank/{gone}")), "{gone}");
    }
    assert!(closed("tank/new") && closed("elsewhere"));
    // What lies in another steps aside with it, and comes again with it.
    d.ok("zfs rename tank/plain tank/plainer");
    assert!(closed("tank/plainer/enc") && !closed("tank/plain/enc"));
    // So it is for the next one, which never had the keys.
    m.kill();
    d.ok("zfs list");
    for still in ["tank/new", "elsewhere", "tank/plainer/enc", "tank/kept", "tank/kept/in"] {
        assert!(closed(still), "{still}");
    }
    assert!(!closed("tank/unmounted"));
    // What lies in one that is mounted again stays closed for itself.
    d.feed("zfs mount -l tank/kept", PASSPHRASE);
    assert_eq!(m.mounted(), ["tank", "tank/plainer", "tank/kept"]);
    assert!(closed("tank/kept/in") && !closed("tank/kept"));
    d.ok("zfs mount -a");
    assert_eq!(fs::read_to_string(m.dir("tank/kept/in").join("file")).unwrap(), "there");
    // A pool that ends, or a service, closes nothing.
    d.ok("icecore service stop");
    assert!(!closed("tank/new"));
    d.ok("zfs list");
    assert!(closed("tank/new") && closed("elsewhere") && closed("tank/kept"));
    d.ok("zfs unmount -a");
    assert!(!closed("tank/new") && !closed("elsewhere") && !closed("tank/kept"));
    d.ok("zfs mount -a");
    d.feed("zfs mount -l tank/kept", PASSPHRASE);
    m.kill();
    d.ok("zfs list");
    assert!(closed("tank/kept"));
    // So are they all where the pool is not there.
    m.kill();
    let (drive, away) = (d.path("tank/drive.img"), d.path("away.img"));
    fs::rename(&drive, &away).unwrap();
    assert!(d.run("zfs list").err.contains("not mounted again"));
    assert_eq!(fs::read_dir(m.dir("tank")).err().map(|e| errno(&e)), Some(5));
    fs::rename(&away, &drive).unwrap();
    d.ok("zfs mount -a");
    assert_eq!(m.mounted(), ["tank", "tank/plainer"]);
    assert!(fs::read_dir(m.dir("tank/kept")).is_err());
    m.judge();
}

/// A pool whose only device loses its end: that is told, and it can be got rid of whoever uses it.
#[test]
fn a_pool_that_cannot_be_read_any_more_is_let_go() {
    if !can_mount() {
        return;
    }
    for how in ["export", "stop"] {
        let (m, dir) = Mounts::with("tank/fs");
        let d = &m.desk;
        d.ok("zfs create tank/fs/in");
        fs::write(m.dir("tank/fs/in").join("file"), vec![7; 1 << 20]).unwrap();
        fs::write(dir.join("file"), vec![7; 8 << 20]).unwrap();
        // From the devices, and not from memory.
        d.export_and_judge("tank");
        d.ok(&format!("zpool import -d {} -R {} tank", d.path("tank").display(), d.path("root").display()));
        let open = File::open(m.dir("tank/fs/in").join("file")).unwrap();
        let drive = d.path("tank/drive.img");
        OpenOptions::new().write(true).open(&drive).unwrap().set_len(5 << 20).unwrap();
        assert!(fs::read(dir.join("file")).is_err());
        assert!(fs::read(m.dir("tank/fs/in").join("file")).is_err());
        let said = d.ok("zpool status tank");
        assert!(
            said.contains("status: One or more devices are faulted") && said.contains("action: "),
            "{said}"
        );
        assert!(d.ok("zpool status -x").contains("pool: tank"));
        let begun = Instant::now();
        if how == "stop" {
            d.ok("icecore service stop");
        } else {
            d.refused("zpool export tank", 1, &["cannot "]);
            let done = d.run("zpool export -f tank");
            assert!(done.status == 0 && done.err.contains("could not be exported"), "{done:?}");
            assert_eq!(d.ok("zpool list -H"), "");
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "{how}: {:?}", begun.elapsed());
        let table = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!table.contains(&d.path("root").display().to_string()), "{how}: {table}");
        drop(open);
        let _ = d.run("zpool export -f tank");
    }
}

/// What is made above a file system that is mounted comes below it, not over it.
#[test]
fn new_parents_hide_nothing() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/fs");
    let d = &m.desk;
    fs::write(dir.join("file"), "there").unwrap();
    d.ok("zfs rename -p tank/fs tank/new/er/fs");
    assert_eq!(fs::read_to_string(m.dir("tank/new/er/fs/file")).unwrap(), "there");
    d.ok("zfs snapshot tank/new/er/fs@s");
    d.ok("zfs clone -p tank/new/er/fs@s tank/other/clone");
    assert_eq!(fs::read_to_string(m.dir("tank/other/clone/file")).unwrap(), "there");
    d.ok("zfs create tank/in");
    d.piped("zfs send tank/new/er/fs@s", "zfs receive -d tank/in");
    assert_eq!(fs::read_to_string(m.dir("tank/in/new/er/fs/file")).unwrap(), "there");
    // The same where somebody mounts what lies above last.
    d.ok("zfs unmount tank/new");
    d.ok("zfs mount tank/new/er/fs");
    d.ok("zfs mount tank/new");
    assert_eq!(fs::read_to_string(m.dir("tank/new/er/fs/file")).unwrap(), "there");
    d.ok("zfs unmount tank/new/er/fs");
    d.ok("zfs mount -a");
    let open = File::open(m.dir("tank/new/er/fs/file")).unwrap();
    d.refused("zfs unmount tank/new", 1, &["pool or dataset is busy"]);
    drop(open);
    for line in ["zfs unmount tank/new/er/fs", "zfs destroy tank/new/er/fs@s -R", "zfs destroy -r tank/new"] {
        d.ok(line);
    }
    m.judge();
}

/// Whatever stands in the way of unmounting is told.
#[test]
fn unmounting_all_says_what_it_did_not() {
    if !can_mount() {
        return;
    }
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let (m, _) = Mounts::with("tank/fs");
    let pid = Pid::from_raw(m.desk.service().unwrap() as i32);
    let files =
        || fs::read_dir(format!("/proc/{}/fd", pid.unwrap().as_raw_nonzero())).unwrap().count() as u64;
    let most = rustix::process::getrlimit(Resource::Nofile).maximum;
    let mut failed = 0;
    for more in 0..40 {
        let limit = Rlimit { current: Some(files() + more), maximum: most };
        let old = prlimit(pid, Resource::Nofile, limit).unwrap();
        let mut child = m.desk.spawn("zfs unmount -a", Stdio::null());
        let start = Instant::now();
        let mut ended = None;
        while ended.is_none() && start.elapsed() < Duration::from_millis(700) {
            std::thread::sleep(Duration::from_millis(5));
            ended = child.try_wait().unwrap();
        }
        prlimit(pid, Resource::Nofile, old).unwrap();
        // It may have waited for its turn until now.
        let done = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() {
            assert_eq!(m.mounted(), Vec::<String>::new(), "{more}: {said}");
            m.desk.ok("zfs mount -a");
        } else {
            assert!(!said.is_empty());
            failed += 1;
        }
    }
    assert!(failed > 0);
    m.judge();
}

#[test]
fn snapshots_that_are_not_there_and_blocks_that_are_not_written_yet() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/fs");
    m.desk.ok("zfs set compression=off tank/fs");
    m.desk.ok("zfs snapshot tank/fs@s");
    let snaps = dir.join(".zfs/snapshot");
    assert_eq!(errno(&fs::metadata(snaps.join("none")).unwrap_err()), 2);
    assert_eq!(errno(&fs::metadata(snaps.join("no@name")).unwrap_err()), 2);
    assert_eq!(errno(&fs::create_dir(snaps.join("none")).unwrap_err()), 13);
    assert_eq!(errno(&fs::remove_dir(snaps.join("s")).unwrap_err()), 13);
    assert_eq!(errno(&fs::create_dir(dir.join(".zfs/none")).unwrap_err()), 1);
    assert!(fs::metadata(snaps.join("s")).unwrap().is_dir());
    // What is written counts before it is on the disk, and no more than once.
    let path = dir.join("file");
    let mut file = File::create(&path).unwrap();
    assert!(fs::metadata(&path).unwrap().blocks() > 0);
    file.write_all(&vec![7; 1 << 20]).unwrap();
    let blocks = || fs::metadata(&path).unwrap().blocks();
    assert!((2048..2100).contains(&blocks()), "{}", blocks());
    file.sync_all().unwrap();
    m.desk.ok("zfs list");
    file.write_all_at(&vec![8; 1 << 20], 0).unwrap();
    assert!((2048..2100).contains(&blocks()), "{}", blocks());
    drop(file);
    // One that is all hole has no more than its head.
    File::create(dir.join("hole")).unwrap().set_len(1 << 30).unwrap();
    assert_eq!(fs::metadata(dir.join("hole")).unwrap().blocks(), 1);
    let small = dir.join("small");
    fs::write(&small, "some words").unwrap();
    assert!(fs::metadata(&small).unwrap().blocks() > 0);
    let tar =
        Command::new("tar").arg("-cSf").arg(m.desk.path("x.tar")).arg("-C").arg(&dir).arg("small").status();
    if tar.is_ok_and(|s| s.success()) {
        let words = Command::new("tar").arg("-xOf").arg(m.desk.path("x.tar")).output().unwrap();
        assert_eq!(words.stdout, b"some words");
    }
    m.judge();
}

/// The kernel forgets what it had of a file system that was changed, but not what is mounted in its directories.
#[test]
fn what_lies_in_a_changed_file_system_stays_mounted() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/fs");
    let d = &m.desk;
    d.ok("zfs create tank/fs/in");
    let inner = m.dir("tank/fs/in").join("file");
    fs::write(&inner, "there").unwrap();
    for name in ["one", "two"] {
        fs::write(dir.join(name), name).unwrap();
    }
    d.ok("zfs snapshot tank/fs@a");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
    fs::remove_file(dir.join("two")).unwrap();
    d.ok("zfs rollback tank/fs@a");
    assert_eq!(fs::read_to_string(dir.join("two")).unwrap(), "two");
    assert_eq!(fs::read_to_string(&inner).unwrap(), "there");
    assert!(m.mounted().contains(&"tank/fs/in".into()));
    m.judge();
}
