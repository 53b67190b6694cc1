//! `zfs mount`, and file systems at work: what programs do in them, and what commands do to them meanwhile.

use crate::support::{Desk, wait_for};
use icecore_check::zdb;
use rustix::fs::{FallocateFlags, SeekFrom, XattrFlags};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const PASSPHRASE: &[u8] = b"open sesame please\n";
/// No test takes longer: then its service is killed, and whatever waits for a mount fails.
const PATIENCE: Duration = Duration::from_secs(240);

/// Whether mounts can be made here. Says so loudly where they cannot.
pub fn can_mount() -> bool {
    let can = OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok()
        && rustix::process::geteuid().is_root();
    if !can {
        eprintln!("SKIPPED: no /dev/fuse, or not root: NOTHING WAS MOUNTED HERE");
    }
    can
}

/// A pool `tank`, mounted below a folder of its own.
pub struct Mounts {
    pub desk: Desk,
    over: Arc<AtomicBool>,
}

impl Mounts {
    pub fn new() -> Self {
        Self::on(512)
    }
    /// On a drive of so many MiB.
    pub fn on(mib: u64) -> Self {
        let desk = Desk::mounting();
        let drive = desk.drive("tank/drive.img", mib);
        let root = desk.path("root");
        desk.ok(&format!("zpool create -o ashift=12 -R {} tank {}", root.display(), drive.display()));
        Self::watched(desk)
    }
    pub fn watched(desk: Desk) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        watch(desk.path("state"), Arc::clone(&over));
        Self { desk, over }
    }
    /// Where a file system is mounted.
    pub fn dir(&self, name: &str) -> PathBuf {
        self.desk.path("root").join(name)
    }
    /// A file system, mounted.
    pub fn with(name: &str) -> (Self, PathBuf) {
        let m = Self::new();
        m.desk.ok(&format!("zfs create {name}"));
        let dir = m.dir(name);
        (m, dir)
    }
    pub fn mounted(&self) -> Vec<String> {
        let all = self.desk.ok("zfs mount");
        all.lines().map(|l| l.split_whitespace().next().unwrap().to_string()).collect()
    }
    pub fn kill(&self) {
        for pid in services(&self.desk.path("state")) {
            assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        }
        wait_for("the service to be gone", || services(&self.desk.path("state")).is_empty());
    }
    pub fn judge(&self) {
        self.desk.export_and_judge("tank");
        let table = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!table.contains(&self.desk.path("root").display().to_string()), "{table}");
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Ends the mounts too, whatever uses them.
        let _ = self.desk.command("icecore service stop").output();
    }
}

/// The services of a state folder.
fn services(state: &Path) -> Vec<u32> {
    let wanted = format!("ICECORE_STATE_DIR={}", state.display());
    let is = |pid: &u32| {
        let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        line.contains("service run") && read("environ").split(|b| *b == 0).any(|v| v == wanted.as_bytes())
    };
    let pids = fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(is).collect()
}

/// What hangs in a mount is only ended by the end of who serves it.
fn watch(state: PathBuf, over: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let start = Instant::now();
        while !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(200));
            if start.elapsed() > PATIENCE {
                eprintln!("WATCHDOG: killing the service of {}", state.display());
                for pid in services(&state) {
                    let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
                }
                return;
            }
        }
    });
}

/// Numbers that come again with each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

pub fn errno(e: &std::io::Error) -> i32 {
    e.raw_os_error().unwrap_or(0)
}

#[test]
fn file_systems_come_and_go_with_their_datasets() {
    if !can_mount() {
        return;
    }
    let m = Mounts::new();
    let (d, root) = (&m.desk, m.desk.path("root"));
    assert_eq!(m.mounted(), ["tank"]);
    d.ok("zfs create tank/a");
    d.ok("zfs create -p tank/a/b/c");
    d.ok("zfs create -u tank/not");
    d.ok("zfs create -o canmount=noauto tank/later");
    d.ok("zfs create -o canmount=off tank/never");
    d.ok("zfs create -o mountpoint=legacy tank/old");
    d.ok("zfs create -o mountpoint=none tank/nowhere");
    assert_eq!(m.mounted(), ["tank", "tank/a", "tank/a/b", "tank/a/b/c"]);
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(table.contains(&format!("tank/a/b {} fuse.zfs rw,", m.dir("tank/a/b").display())), "{table}");
    assert_eq!((d.get("mounted", "tank/a"), d.get("mounted", "tank/not")), ("yes".into(), "no".into()));
    assert_eq!(d.get("mountpoint", "tank/a"), m.dir("tank/a").display().to_string());
    // By name, and why not.
    d.ok("zfs mount tank/later");
    d.refused("zfs mount tank/later", 1, &["cannot mount 'tank/later': filesystem already mounted"]);
    d.refused("zfs mount tank/never", 1, &["cannot mount 'tank/never': 'canmount' property is set to 'off'"]);
    d.refused(
        "zfs mount tank/old",
        1,
        &["cannot mount 'tank/old': legacy mountpoint\nuse mount(8) to mount"],
    );
    d.refused("zfs mount tank/nowhere", 1, &["cannot mount 'tank/nowhere': no mountpoint set"]);
    d.refused("zfs mount tank/none", 1, &["cannot open 'tank/none': dataset does not exist"]);
    d.refused("zfs mount tank a", 2, &["too many arguments"]);
    d.refused("zfs unmount", 2, &["missing filesystem argument"]);
    d.refused("zfs unmount tank/not", 1, &["cannot unmount 'tank/not': not currently mounted"]);
    d.ok("zfs mount -a");
    assert!(m.mounted().contains(&"tank/not".into()));
    // A directory that is not empty hides nothing where that is not wanted.
    fs::create_dir_all(m.dir("tank/full/of")).unwrap();
    d.refused(
        "zfs create -o overlay=off tank/full",
        1,
        &["directory is not empty", "successfully created, but not mounted"],
    );
    d.ok("zfs mount -O tank/full");
    // With the name and the property they move, and what lies below moves with them.
    fs::write(m.dir("tank/a/b/c").join("file"), "here").unwrap();
    d.ok("zfs rename tank/a tank/z");
    assert_eq!(fs::read_to_string(m.dir("tank/z/b/c").join("file")).unwrap(), "here");
    d.ok("zfs set mountpoint=/elsewhere tank/z");
    assert_eq!(fs::read_to_string(root.join("elsewhere/b/c/file")).unwrap(), "here");
    d.ok("zfs set mountpoint=none tank/z/b");
    assert!(!m.mounted().iter().any(|n| n.starts_with("tank/z/b")));
    d.ok("zfs inherit mountpoint tank/z/b");
    assert_eq!(fs::read_to_string(root.join("elsewhere/b/c/file")).unwrap(), "here");
    d.ok("zfs set canmount=off tank/later");
    assert!(!m.mounted().contains(&"tank/later".into()));
    // For reading only, and back.
    d.ok("zfs set readonly=on tank/z/b/c");
    let file = root.join("elsewhere/b/c/file");
    assert_eq!(errno(&fs::write(&file, "x").unwrap_err()), 30);
    d.ok("zfs inherit readonly tank/z/b/c");
    fs::write(&file, "x").unwrap();
    // What is in use stays, also with -f, as on Linux.
    let open = File::open(&file).unwrap();
    d.refused("zfs unmount tank/z/b/c", 1, &["cannot unmount '", "/elsewhere/b/c': pool or dataset is busy"]);
    d.refused("zfs destroy tank/z/b/c", 1, &["pool or dataset is busy"]);
    d.refused("zpool export tank", 1, &["pool or dataset is busy"]);
    assert!(m.mounted().contains(&"tank/z/b/c".into()));
    d.refused("zfs unmount -f tank/z/b/c", 1, &["pool or dataset is busy"]);
    d.refused("zfs destroy -f tank/z/b/c", 1, &["pool or dataset is busy"]);
    assert!(open.metadata().is_ok());
    drop(open);
    // What becomes legacy is unmounted: only mount(8) knows where it is wanted.
    d.ok("zfs set mountpoint=legacy tank/z/b/c");
    assert!(!m.mounted().contains(&"tank/z/b/c".into()));
    d.ok("zfs inherit mountpoint tank/z/b/c");
    assert!(m.mounted().contains(&"tank/z/b/c".into()));
    d.ok(&format!("zfs unmount {}", root.join("elsewhere/b/c").display()));
    d.ok("zfs destroy -r tank/z");
    assert!(!m.mounted().iter().any(|n| n.starts_with("tank/z")));
    // umount(8) is as good.
    assert!(Command::new("umount").arg(m.dir("tank/not")).status().unwrap().success());
    wait_for("umount(8) to be seen", || !m.mounted().contains(&"tank/not".into()));
    d.ok("zfs unmount -a");
    assert_eq!(m.mounted(), Vec::<String>::new());
    d.ok("zfs set overlay=on tank/full");
    d.ok("zpool export tank");
    d.ok(&format!("zpool import -d {} -R {} tank", d.path("tank").display(), root.display()));
    assert_eq!(m.mounted()[0], "tank");
    m.judge();
}

/// One of many things that a program does, in one of two trees.
fn step(top: &Path, dice: &mut Dice) -> Result<(), i32> {
    let name = |dice: &mut Dice| {
        let depth = dice.below(3);
        let mut path = top.to_path_buf();
        for _ in 0..depth {
            path.push(format!("d{}", dice.below(3)));
        }
        path.join(format!("{}{}", ["f", "d", "l"][dice.below(3) as usize], dice.below(4)))
    };
    let (a, b) = (name(dice), name(dice));
    let what = dice.below(15);
    let (place, len) = (dice.below(300_000), dice.below(40_000) as usize);
    let seed = dice.below(u64::MAX);
    let bytes = Dice(seed | 1).bytes(len);
    let done = match what {
        0 | 1 => fs::create_dir(&a),
        2 => fs::write(&a, &bytes),
        3 => OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&a)
            .and_then(|f| f.write_all_at(&bytes, place)),
        4 => OpenOptions::new().append(true).open(&a).and_then(|mut f| f.write_all(&bytes)),
        5 => OpenOptions::new().write(true).open(&a).and_then(|f| f.set_len(place)),
        6 => fs::rename(&a, &b),
        7 => fs::hard_link(&a, &b),
        8 => fs::remove_file(&a),
        9 => fs::remove_dir(&a),
        10 => std::os::unix::fs::symlink(format!("f{}", place % 4), &a),
        11 => fs::set_permissions(&a, fs::Permissions::from_mode(0o600 | (place % 0o200) as u32)),
        12 => rustix::fs::renameat_with(
            rustix::fs::CWD,
            &a,
            rustix::fs::CWD,
            &b,
            [rustix::fs::RenameFlags::EXCHANGE, rustix::fs::RenameFlags::NOREPLACE][(place % 2) as usize],
        )
        .map_err(Into::into),
        13 => OpenOptions::new().write(true).open(&a).and_then(|f| {
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            Ok(rustix::fs::fallocate(&f, how, place, len as u64 + 1)?)
        }),
        _ => rustix::fs::lsetxattr(
            &a,
            format!("user.x{}", place % 3),
            &bytes[..len.min(500)],
            XattrFlags::empty(),
        )
        .map_err(Into::into),
    };
    done.map_err(|e| errno(&e))
}

/// Everything about a tree that must be the same in two.
fn tree(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut out = BTreeMap::new();
    let mut todo = vec![top.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for e in fs::read_dir(&dir).unwrap().map(|e| e.unwrap()) {
            let (path, meta) = (e.path(), e.path().symlink_metadata().unwrap());
            let mut said = format!("{:o}", meta.mode());
            if meta.is_dir() {
                todo.push(path.clone());
            } else {
                said += &format!(" {} links", meta.nlink());
            }
            if meta.is_file() {
                let mut buffer = vec![0; 1000];
                for x in ["user.x0", "user.x1", "user.x2"] {
                    if let Ok(n) = rustix::fs::lgetxattr(&path, x, &mut buffer) {
                        said += &format!(" {x}={:x?}", &buffer[..n]);
                    }
                }
                let bytes = fs::read(&path).unwrap();
                let sum = bytes.iter().fold(7_u64, |s, b| s.wrapping_mul(31).wrapping_add((*b).into()));
                said += &format!(" {} bytes, {sum:x}", bytes.len());
            } else if meta.is_symlink() {
                said += &format!(" -> {}", fs::read_link(&path).unwrap().display());
            }
            out.insert(path.strip_prefix(top).unwrap().to_path_buf(), said);
        }
    }
    out
}

#[test]
fn the_same_steps_in_a_mount_and_beside_it() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/fs");
    let beside = tempfile::tempdir_in(m.desk.path("")).unwrap();
    // Xattrs of users need a file system that has them; the model's must too.
    File::create(beside.path().join("probe")).unwrap();
    let xattrs =
        rustix::fs::lsetxattr(beside.path().join("probe"), "user.x", b"y", XattrFlags::empty()).is_ok();
    fs::remove_file(beside.path().join("probe")).unwrap();
    for seed in 1..=2_u64 {
        let (mut one, mut other) = (Dice(seed * 77 + 1), Dice(seed * 77 + 1));
        for n in 0..1200 {
            let before = one.0;
            let (a, b) = (step(&dir, &mut one), step(beside.path(), &mut other));
            if xattrs || b != Err(95) {
                assert_eq!(a, b, "seed {seed}, step {n} (dice {before})");
            }
            if n % 400 == 399 {
                assert_eq!(tree(&dir), tree(beside.path()), "seed {seed}, after step {n}");
                m.desk.ok(&format!("zfs snapshot tank/fs@{seed}-{n}"));
                let snap = dir.join(format!(".zfs/snapshot/{seed}-{n}"));
                assert_eq!(tree(&snap), tree(beside.path()), "snapshot after step {n}");
            }
        }
    }
    // The same after an unmount, and after a crash that came after a sync.
    m.desk.ok("zfs unmount tank/fs");
    m.desk.ok("zfs mount tank/fs");
    assert_eq!(tree(&dir), tree(beside.path()));
    m.kill();
    m.desk.ok("zfs list");
    assert_eq!(tree(&dir), tree(beside.path()));
    m.judge();
}

/// Memory that is a file.
struct Map(*mut u8, usize);

impl Map {
    #[expect(unsafe_code, reason = "there is no other way to map a file")]
    fn new(file: &File, len: usize) -> Self {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, of a file that only this test changes.
        let at = unsafe { mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, file, 0) }.unwrap();
        Self(at.cast(), len)
    }
    #[expect(unsafe_code, reason = "there is no other way to map a file")]
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping has this length and lives as long as `self`.
        unsafe { std::slice::from_raw_parts_mut(self.0, self.1) }
    }
}

impl Drop for Map {
    #[expect(unsafe_code, reason = "there is no other way to map a file")]
    fn drop(&mut self) {
        // SAFETY: nothing refers to it any more.
        unsafe { rustix::mm::munmap(self.0.cast(), self.1) }.unwrap();
    }
}

/// In the manner of fsx: one file, changed at random in every way there is, compared with memory all the time.
#[test]
fn one_file_changed_in_every_way() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/fs");
    m.desk.feed("zfs create -o encryption=on -o keyformat=passphrase -o recordsize=16k tank/enc", PASSPHRASE);
    for (dir, seed) in [(dir, 5), (m.dir("tank/enc"), 9)] {
        let path = dir.join("file");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        let mut dice = Dice(seed);
        let mut model: Vec<u8> = Vec::new();
        const MOST: u64 = 600_000;
        for n in 0..700 {
            let (at, len) = (dice.below(MOST), 1 + dice.below(60_000));
            let what = dice.below(9);
            match what {
                0..=2 => {
                    let bytes = dice.bytes(len as usize);
                    file.write_all_at(&bytes, at).unwrap();
                    model.resize(model.len().max((at + len) as usize), 0);
                    model[at as usize..(at + len) as usize].copy_from_slice(&bytes);
                }
                3 => {
                    file.set_len(at).unwrap();
                    model.resize(at as usize, 0);
                }
                4 => {
                    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    rustix::fs::fallocate(&file, how, at, len).unwrap();
                    let (from, to) = ((at as usize).min(model.len()), ((at + len) as usize).min(model.len()));
                    model[from..to].fill(0);
                }
                5 if !model.is_empty() => {
                    let mut map = Map::new(&file, model.len());
                    let at = (at as usize) % model.len();
                    let to = (at + len as usize).min(model.len());
                    assert_eq!(map.bytes()[at..to], model[at..to], "mapped, step {n}");
                    let bytes = dice.bytes(to - at);
                    map.bytes()[at..to].copy_from_slice(&bytes);
                    model[at..to].copy_from_slice(&bytes);
                }
                6 if n % 3 == 0 => file.sync_all().unwrap(),
                7 if !model.is_empty() => {
                    // Where data is said to be there may be zeros; where a hole is, there must be.
                    let at = at % model.len() as u64;
                    let hole = rustix::fs::seek(&file, SeekFrom::Hole(at)).unwrap();
                    let data = rustix::fs::seek(&file, SeekFrom::Data(at));
                    let data = data.unwrap_or(model.len() as u64).min(model.len() as u64);
                    assert!(hole >= at && hole <= model.len() as u64);
                    assert!(model[at as usize..data as usize].iter().all(|b| *b == 0), "a hole, step {n}");
                }
                _ => {
                    let mut bytes = vec![0; len as usize];
                    let got = file.read_at(&mut bytes, at).unwrap();
                    let from = (at as usize).min(model.len());
                    let to = (from + len as usize).min(model.len());
                    assert_eq!(bytes[..got], model[from..to], "step {n}");
                }
            }
            assert_eq!(file.metadata().unwrap().len(), model.len() as u64, "step {n} ({what})");
            if n % 100 == 99 {
                assert!(fs::read(&path).unwrap() == model, "step {n}");
            }
        }
        drop(file);
        m.desk.ok("zfs snapshot -r tank@fsx");
        assert!(fs::read(dir.join(".zfs/snapshot/fsx/file")).unwrap() == model);
        m.desk.ok("zfs destroy -r tank@fsx");
    }
    m.judge();
}

/// Blocks that go out before the commit, far behind the beginning of a new file.
#[test]
fn what_was_written_far_into_a_file_is_read_back() {
    if !can_mount() {
        return;
    }
    let m = Mounts::new();
    let path = m.dir("tank").join("far");
    for (i, at) in [130 << 20, 40 << 30, 1_u64 << 50].into_iter().enumerate() {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let data = vec![i as u8 + 7; 300_000];
        file.write_all_at(&data, at).unwrap();
        let mut back = vec![0; data.len()];
        file.read_exact_at(&mut back, at).unwrap();
        assert!(back == data, "at {at}");
        file.sync_all().unwrap();
        file.read_exact_at(&mut back, at).unwrap();
        assert!(back == data, "at {at}, committed");
    }
    m.judge();
}

#[test]
fn what_fsync_returned_for_is_there_after_a_crash() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/fs");
    fs::create_dir(dir.join("sub")).unwrap();
    for round in 0..3 {
        let mut said = Vec::new();
        for n in 0..10 {
            let path = dir.join(format!("sub/{round}-{n}"));
            let flags = if n % 3 == 0 { 0o4010000 } else { 0 }; // O_SYNC
            let mut file =
                OpenOptions::new().write(true).create_new(true).custom_flags(flags).open(&path).unwrap();
            file.write_all(&vec![n as u8; 5000 * n]).unwrap();
            if n % 3 == 1 {
                file.sync_data().unwrap();
            }
            if n % 3 == 2 {
                fs::rename(&path, dir.join(format!("moved{round}-{n}"))).unwrap();
                file.sync_all().unwrap();
                said.push((dir.join(format!("moved{round}-{n}")), 5000 * n));
            } else {
                said.push((path, 5000 * n));
            }
        }
        // What was not asked for may be there or not, but whole.
        fs::write(dir.join("unasked"), vec![1; 100_000]).unwrap();
        m.kill();
        assert!(fs::metadata(&dir).is_err());
        m.desk.ok("zfs list");
        assert!(m.mounted().contains(&"tank/fs".into()));
        for (path, len) in said {
            assert_eq!(fs::metadata(&path).unwrap().len(), len as u64, "{}", path.display());
        }
        let left = fs::read(dir.join("unasked")).unwrap_or_default();
        assert!(left.iter().all(|b| *b == 1));
    }
    m.judge();
}

/// A system that is shut down sends this before it kills: everything that was written is there afterwards.
#[test]
fn a_signal_that_ends_the_service_loses_nothing() {
    if !can_mount() {
        return;
    }
    let m = Mounts::new();
    m.desk.ok("zfs create tank/fs");
    for (round, signal) in ["-TERM", "-INT", "-HUP"].into_iter().enumerate() {
        let file = m.dir("tank/fs").join(format!("file{round}"));
        fs::write(&file, vec![round as u8; 300_000]).unwrap();
        let pid = m.desk.service().unwrap();
        assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
        wait_for("the service ends", || m.desk.service() != Some(pid));
        m.desk.ok("zfs list");
        assert!(fs::read(&file).unwrap() == vec![round as u8; 300_000], "after {signal}");
    }
    m.judge();
}

#[test]
fn snapshots_have_what_was_written_before_them() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/fs");
    let written = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let floor = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::create(dir.join("log")).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let n = written.load(Ordering::Relaxed);
                file.write_all(format!("{n:07}\n").as_bytes()).unwrap();
                written.store(n + 1, Ordering::Relaxed);
            }
        });
        let mut floor = Vec::new();
        for n in 0..12 {
            std::thread::sleep(Duration::from_millis(20));
            let before = written.load(Ordering::Relaxed);
            m.desk.ok(&format!("zfs snapshot tank/fs@{n}"));
            floor.push((before, written.load(Ordering::Relaxed)));
            // Commands that fail take nothing along.
            m.desk.refused("zfs snapshot tank/fs@0", 1, &["dataset already exists"]);
        }
        stop.store(true, Ordering::Relaxed);
        floor
    });
    for (n, (least, most)) in floor.into_iter().enumerate() {
        let text = fs::read_to_string(dir.join(format!(".zfs/snapshot/{n}/log")));
        // The first may have come before the file.
        let text = if least == 0 { text.unwrap_or_default() } else { text.unwrap() };
        let lines = text.lines().count() as u64;
        assert!(least <= lines && lines <= most + 1, "{least} <= {lines} <= {most}");
        assert!(text.lines().enumerate().all(|(at, l)| l == format!("{at:07}")));
    }
    assert_eq!(
        fs::read_to_string(dir.join("log")).unwrap().lines().count() as u64,
        written.load(Ordering::Relaxed)
    );
    m.judge();
}

#[test]
fn contents_change_under_a_mount() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/fs");
    let d = &m.desk;
    fs::write(dir.join("kept"), "old").unwrap();
    fs::write(dir.join("removed"), "old").unwrap();
    d.ok("zfs snapshot tank/fs@a");
    // Rolled back, also with a file open.
    fs::write(dir.join("kept"), "new contents").unwrap();
    fs::remove_file(dir.join("removed")).unwrap();
    fs::write(dir.join("made"), "later").unwrap();
    let mut open = File::open(dir.join("kept")).unwrap();
    d.ok("zfs rollback tank/fs@a");
    let names = |dir: &Path| {
        let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        all.sort();
        all
    };
    assert_eq!(names(&dir), ["kept", "removed"]);
    assert!(fs::metadata(dir.join("made")).is_err());
    assert_eq!(fs::read_to_string(dir.join("kept")).unwrap(), "old");
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
    drop(open);
    // Received into.
    d.ok("zfs create -u -o mountpoint=none tank/x");
    d.piped("zfs send tank/fs@a", "zfs receive -u tank/copy");
    fs::write(dir.join("second"), "2").unwrap();
    d.ok("zfs snapshot tank/fs@b");
    d.ok("zfs mount tank/copy");
    assert_eq!(names(&m.dir("tank/copy")), ["kept", "removed"]);
    d.ok("zfs set atime=off tank/copy");
    d.piped("zfs send -i @a tank/fs@b", "zfs receive -F tank/copy");
    assert_eq!(names(&m.dir("tank/copy")), ["kept", "removed", "second"]);
    fs::write(m.dir("tank/copy").join("own"), "x").unwrap();
    // Our own commands that write files.
    fs::write(d.path("outside"), "from outside").unwrap();
    d.ok(&format!("icecore cp {} tank/fs:kept", d.path("outside").display()));
    assert_eq!(fs::read_to_string(dir.join("kept")).unwrap(), "from outside");
    d.ok("icecore rm tank/fs:second");
    assert!(fs::metadata(dir.join("second")).is_err());
    fs::write(dir.join("unsaved"), "seen at once").unwrap();
    assert_eq!(d.ok("icecore cat tank/fs:unsaved"), "seen at once");
    // What would wait for itself is refused.
    let into = dir.join("loop").display().to_string();
    d.refused(&format!("icecore cp tank/fs:kept {into}"), 1, &["would wait for itself"]);
    d.refused(
        &format!("icecore cp {} tank/fs:again", dir.join("kept").display()),
        1,
        &["would wait for itself"],
    );
    d.refused(
        &format!("icecore import-tree {} tank/fs", d.path("root").display()),
        1,
        &["would wait for itself"],
    );
    // A stream from a file in the mount into its own pool, a command whose folder is in it, a key that lies in it.
    let stream = d.bytes("zfs send tank/fs@b");
    fs::write(dir.join("stream"), &stream).unwrap();
    let from = File::open(dir.join("stream")).unwrap();
    let got = d.command("zfs receive -u tank/again").stdin(Stdio::from(from)).output().unwrap();
    assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
    let to = File::create(dir.join("sent")).unwrap();
    assert!(d.command("zfs send tank/fs@b").stdout(to).status().unwrap().success());
    assert_eq!(fs::read(dir.join("sent")).unwrap().len(), stream.len());
    assert!(d.command("zfs list").current_dir(&dir).output().unwrap().status.success());
    fs::write(dir.join("key"), PASSPHRASE).unwrap();
    let key = format!("file://{}", dir.join("key").display());
    d.ok(&format!("zfs create -o encryption=on -o keyformat=passphrase -o keylocation={key} tank/enc"));
    assert!(m.mounted().contains(&"tank/enc".into()));
    m.judge();
}

#[test]
fn files_without_a_name_and_many_writers() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/fs");
    let path = dir.join("gone");
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(&[7; 300_000]).unwrap();
    fs::write(dir.join("over"), "x").unwrap();
    let over = File::open(dir.join("over")).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(dir.join("new"), "y").unwrap();
    fs::rename(dir.join("new"), dir.join("over")).unwrap();
    m.desk.ok("zfs snapshot tank/fs@with");
    file.write_all(b"more").unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    let mut bytes = vec![0; 4];
    file.read_exact_at(&mut bytes, 300_000).unwrap();
    assert_eq!(bytes, b"more");
    let mut text = String::new();
    (&over).read_to_string(&mut text).unwrap();
    assert_eq!(text, "x");
    // Still open when the service dies: the next one clears up.
    m.kill();
    drop((file, over));
    m.desk.ok("zfs list");
    assert_eq!(fs::read_to_string(dir.join("over")).unwrap(), "y");
    m.desk.ok("zfs destroy tank/fs@with");
    std::thread::scope(|scope| {
        for worker in 0..6_u64 {
            let dir = &dir;
            scope.spawn(move || {
                let mut dice = Dice(worker * 31 + 3);
                let shared = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(dir.join("shared"))
                    .unwrap();
                for n in 0..40 {
                    let at = worker * 1000 + n * 6000;
                    shared.write_all_at(&[worker as u8 + 1; 1000], at).unwrap();
                    let own = dir.join(format!("w{worker}-{}", n % 7));
                    let bytes = dice.bytes(3000);
                    fs::write(&own, &bytes).unwrap();
                    assert_eq!(fs::read(&own).unwrap(), bytes);
                    if n % 5 == 0 {
                        shared.sync_data().unwrap();
                        fs::remove_file(&own).unwrap();
                    }
                }
            });
        }
    });
    let all = fs::read(dir.join("shared")).unwrap();
    for (at, byte) in all.iter().enumerate() {
        assert_eq!(u64::from(*byte), (at as u64 / 1000) % 6 + 1, "at {at}");
    }
    m.judge();
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_half() {
    if !can_mount() {
        return;
    }
    let m = Mounts::new();
    let d = &m.desk;
    d.ok("zfs create -o refquota=20M -o compression=off tank/small");
    let dir = m.dir("tank/small");
    let mut dice = Dice(3);
    let block = dice.bytes(1 << 20);
    let fill = |name: &str| -> (u64, i32) {
        let mut file = File::create(dir.join(name)).unwrap();
        let mut n = 0;
        loop {
            match file.write_all(&block) {
                Ok(()) => n += 1,
                Err(e) => return (n, errno(&e)),
            }
            assert!(n < 400);
        }
    };
    let (wrote, why) = fill("a");
    assert!((15..=20).contains(&wrote) && why == 122, "{wrote} MiB, errno {why}");
    // What is left is less than another MiB: nothing of that comes in, and no part of it shows.
    assert_eq!(errno(&fs::write(dir.join("b"), &block).unwrap_err()), 122);
    assert_eq!(fs::metadata(dir.join("b")).map_or(0, |m| m.len()), 0);
    assert!(fs::read(dir.join("a")).unwrap().chunks(1 << 20).all(|c| *c == block[..c.len()]));
    // What a snapshot keeps is not referenced any more: it makes room at once, with the txg.
    d.ok("zfs snapshot tank/small@kept");
    fs::remove_file(dir.join("a")).unwrap();
    let (wrote, why) = fill("a");
    assert!((15..=20).contains(&wrote) && why == 122, "{wrote} MiB, errno {why}");
    d.ok("zfs destroy tank/small@kept");
    // Statfs knows, and what is removed makes room.
    let free = |dir: &Path| rustix::fs::statvfs(dir).map(|s| s.f_bavail * s.f_frsize).unwrap();
    assert!(free(&dir) < 2 << 20, "{}", free(&dir));
    fs::remove_file(dir.join("a")).unwrap();
    d.ok("zfs list");
    assert!(free(&dir) > 15 << 20, "{}", free(&dir));
    fs::write(dir.join("c"), &block).unwrap();
    // The pool itself.
    d.ok("zfs set refquota=none tank/small");
    let (wrote, why) = fill("d");
    assert!(wrote > 200 && why == 28, "{wrote} MiB, errno {why}");
    fs::remove_file(dir.join("d")).unwrap();
    d.ok("zfs list");
    fs::write(dir.join("e"), &block).unwrap();
    m.judge();
}

/// A key that is not to be had keeps nothing else from being mounted (`do_import`, zpool_main.c).
#[test]
fn an_import_with_one_key_that_is_wrong() {
    if !can_mount() {
        return;
    }
    let m = Mounts::new();
    let d = &m.desk;
    for name in ["tank/one", "tank/two"] {
        d.feed(&format!("zfs create -o encryption=on -o keyformat=passphrase {name}"), PASSPHRASE);
    }
    d.ok("zpool export tank");
    let import = format!("zpool import -l -R {} -d tank tank", d.path("root").display());
    let done = d.with_input(&import, &[PASSPHRASE, b"not the passphrase\n"].concat());
    assert_eq!(done.status, 1, "{}", done.err);
    assert!(done.err.contains("Incorrect key provided for 'tank/two'"), "{}", done.err);
    assert_eq!(m.mounted(), ["tank", "tank/one"]);
    m.judge();
}

#[test]
fn keys_and_mounts() {
    if !can_mount() {
        return;
    }
    let m = Mounts::new();
    let d = &m.desk;
    d.feed("zfs create -o encryption=on -o keyformat=passphrase tank/enc", PASSPHRASE);
    d.ok("zfs create tank/enc/sub");
    let file = m.dir("tank/enc/sub").join("file");
    fs::write(&file, "secret").unwrap();
    d.refused("zfs unload-key tank/enc", 255, &["Key unload error: 'tank/enc' is busy."]);
    d.ok("zfs unmount tank/enc");
    d.ok("zfs unload-key tank/enc");
    d.refused("zfs mount tank/enc", 1, &["cannot mount 'tank/enc': encryption key not loaded"]);
    d.feed("zfs mount -l tank/enc", PASSPHRASE);
    d.ok("zfs mount -a");
    assert_eq!(fs::read_to_string(&file).unwrap(), "secret");
    // Another identity of the pool is nothing to those who use it.
    let mut open = OpenOptions::new().append(true).open(&file).unwrap();
    d.ok("zpool reguid -g 77 tank");
    open.write_all(b", and more").unwrap();
    open.sync_all().unwrap();
    drop(open);
    assert_eq!((d.get("keystatus", "tank/enc").as_str(), m.mounted().len()), ("available", 3));
    d.ok("zfs snapshot tank/enc@under-another-guid");
    // A service that died has no keys: it says so, and all the rest is there.
    m.kill();
    let said = d.run("zfs list");
    assert!(
        said.status == 0 && said.err.contains("no longer mounted until 'zfs mount -l': tank/enc"),
        "{}",
        said.err
    );
    assert_eq!(m.mounted(), ["tank"]);
    d.feed("zfs load-key tank/enc", PASSPHRASE);
    d.ok("zfs mount -a");
    assert_eq!(fs::read_to_string(&file).unwrap(), "secret, and more");
    d.ok("zfs unmount -u tank/enc");
    assert_eq!(d.get("keystatus", "tank/enc"), "unavailable");
    m.judge();
}

#[test]
fn permissions_owners_and_lists() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/fs");
    m.desk.ok("zfs set acltype=posix tank/fs");
    let mode = |p: &Path| p.symlink_metadata().unwrap().mode() & 0o7777;
    // Who is given a file gets no program that acts for another.
    let file = dir.join("prog");
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o6755)).unwrap();
    std::os::unix::fs::chown(&file, Some(1000), Some(1000)).unwrap();
    assert_eq!(mode(&file), 0o755);
    // Directories that hand on their group.
    let shared = dir.join("shared");
    fs::create_dir(&shared).unwrap();
    std::os::unix::fs::chown(&shared, None, Some(1234)).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o2775)).unwrap();
    fs::create_dir(shared.join("sub")).unwrap();
    fs::write(shared.join("file"), "").unwrap();
    assert_eq!(
        (mode(&shared.join("sub")) & 0o2000, fs::metadata(shared.join("sub")).unwrap().gid()),
        (0o2000, 1234)
    );
    assert_eq!(fs::metadata(shared.join("file")).unwrap().gid(), 1234);
    // A default list counts, and the umask does not where there is one.
    let tools = Command::new("setfacl").arg("--version").output().is_ok();
    if tools {
        let acl = |args: &[&str], p: &Path| {
            assert!(Command::new("setfacl").args(args).arg(p).status().unwrap().success())
        };
        acl(&["-d", "-m", "u:1001:rwx,g::rwx,o::---"], &shared);
        fs::write(shared.join("listed"), "").unwrap();
        let said = Command::new("getfacl").args(["-n", "-c"]).arg(shared.join("listed")).output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("user:1001:rwx") && said.contains("mask::rw-"), "{said}");
    } else {
        eprintln!("no setfacl here: lists are not tried");
    }
    // Another user may what the mode says, and no more.
    fs::write(dir.join("mine"), "x").unwrap();
    fs::set_permissions(dir.join("mine"), fs::Permissions::from_mode(0o600)).unwrap();
    for p in [m.desk.path(""), m.desk.path("root")] {
        fs::set_permissions(&p, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let as_other = |line: &str| {
        let words = ["--reuid=65534", "--regid=65534", "--clear-groups", "--", "sh", "-c", line];
        Command::new("setpriv")
            .args(words)
            .current_dir(&dir)
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    };
    assert!(as_other("cat prog") && !as_other("cat mine") && !as_other("touch new") && !as_other("rm prog"));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(as_other("touch new") && !as_other("rm prog") && as_other("rm new"));
    // What another writes into loses its bit.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4777)).unwrap();
    assert!(as_other("echo y >> prog"));
    assert_eq!(mode(&file), 0o777);
    // Pipes, sockets and devices keep what they are.
    for kind in ["p", "c 1 3", "b 7 300"] {
        let words: Vec<&str> = kind.split(' ').collect();
        let node = dir.join(format!("node-{}", words[0]));
        assert!(Command::new("mknod").arg(&node).args(&words).status().unwrap().success());
    }
    let rdev = fs::metadata(dir.join("node-b")).unwrap().rdev();
    assert_eq!((rustix::fs::major(rdev), rustix::fs::minor(rdev)), (7, 300));
    // Times are set as asked, and reading sets one where that is wanted.
    let t = std::time::UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123_456_789);
    File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_times(fs::FileTimes::new().set_accessed(t).set_modified(t))
        .unwrap();
    assert_eq!(
        (fs::metadata(&file).unwrap().atime_nsec(), fs::metadata(&file).unwrap().mtime()),
        (123_456_789, 1_234_567_890)
    );
    fs::read(&file).unwrap();
    wait_for("its time of reading", || fs::metadata(&file).unwrap().atime() > 1_234_567_890);
    m.desk.ok("zfs set atime=off tank/fs");
    File::options().write(true).open(&file).unwrap().set_times(fs::FileTimes::new().set_accessed(t)).unwrap();
    fs::read(&file).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(fs::metadata(&file).unwrap().atime(), 1_234_567_890);
    m.judge();
}

#[test]
fn commands_find_their_way_among_mounts() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/a");
    let d = &m.desk;
    let seen = || fs::read_to_string(dir.join(".zfs/snapshot/s/file"));
    // A snapshot's name may be another's the next moment.
    for text in ["first", "second"] {
        fs::write(dir.join("file"), text).unwrap();
        d.ok("zfs snapshot tank/a@s");
        assert_eq!(seen().unwrap(), text);
        d.ok("zfs destroy tank/a@s");
        assert!(seen().is_err());
    }
    d.refused(
        "zfs send tank/a",
        1,
        &["cannot send 'tank/a': target is busy; if a filesystem, it must not be mounted"],
    );
    // Clones are mounted, and go with what they hang on.
    d.ok("zfs snapshot tank/a@s");
    d.ok("zfs snapshot tank/a@t");
    d.ok("zfs clone tank/a@t tank/clone");
    assert_eq!(fs::read_to_string(m.dir("tank/clone/file")).unwrap(), "second");
    d.refused(
        "zfs rollback -r tank/a@s",
        1,
        &["clones of previous snapshots exist", "use '-R'", "tank/clone"],
    );
    let open = File::open(m.dir("tank/clone/file")).unwrap();
    d.refused("zfs rollback -R tank/a@s", 1, &["pool or dataset is busy"]);
    d.refused("zfs destroy -R tank/a@t", 1, &["pool or dataset is busy"]);
    assert!(m.mounted().contains(&"tank/clone".into()));
    drop(open);
    d.ok("zfs destroy -R tank/a@t");
    d.ok("zfs snapshot tank/a@t");
    d.ok("zfs clone tank/a@t tank/clone");
    d.ok("zfs rollback -R tank/a@s");
    assert_eq!(m.mounted(), ["tank", "tank/a"]);
    // Options of a mount are properties while it lasts.
    d.ok("zfs unmount tank/a");
    d.ok("zfs mount -o noatime,ro tank/a");
    assert_eq!((d.get("atime", "tank/a"), d.get("readonly", "tank/a")), ("off".into(), "on".into()));
    assert_eq!(d.ok("zfs get -H -o source atime tank/a").trim(), "temporary");
    d.ok("zfs unmount tank/a");
    assert_eq!((d.get("atime", "tank/a"), d.get("readonly", "tank/a")), ("on".into(), "off".into()));
    // Where something belongs is said, and there it is.
    d.ok("zfs set mountpoint=/there tank/a");
    assert_eq!(fs::read_to_string(m.dir("there/file")).unwrap(), "second");
    // What lies below steps aside.
    d.ok("zfs create tank/a/below");
    d.ok("zfs set canmount=off tank/a");
    assert_eq!(m.mounted(), ["tank", "tank/a/below"]);
    m.judge();
}

#[test]
fn clones_of_encrypted_file_systems_are_mounted_and_keys_go_with_the_last() {
    if !can_mount() {
        return;
    }
    let m = Mounts::new();
    let d = &m.desk;
    d.feed("zfs create -o encryption=on -o keyformat=passphrase tank/enc", PASSPHRASE);
    fs::write(m.dir("tank/enc/file"), "secret").unwrap();
    d.ok("zfs snapshot tank/enc@s");
    d.ok("zfs clone tank/enc@s tank/clone");
    assert_eq!(fs::read_to_string(m.dir("tank/clone/file")).unwrap(), "secret");
    // A key that a clone needs stays, and so does the mount that was to go with it.
    d.refused("zfs unmount -u tank/enc", 1, &["Key unload error", "'tank/enc' is busy"]);
    assert_eq!(d.get("keystatus", "tank/enc"), "available");
    assert_eq!(fs::read_to_string(m.dir("tank/enc/file")).unwrap(), "secret");
    d.ok("zfs destroy tank/clone");
    d.feed("zfs create -o encryption=on -o keyformat=passphrase tank/enc/own", PASSPHRASE);
    d.ok("zfs unmount -u tank/enc");
    assert_eq!(d.get("keystatus", "tank/enc"), "unavailable");
    assert_eq!(d.get("keystatus", "tank/enc/own"), "unavailable");
    m.judge();
}

/// Someone who is not root makes a pool on a file, mounts through `fusermount3`, and owns what is made.
#[test]
fn a_user_who_is_not_root() {
    if !can_mount() {
        return;
    }
    if Command::new("fusermount3").arg("-V").output().is_err() {
        eprintln!("SKIPPED: no fusermount3: NOTHING WAS MOUNTED AS A USER HERE");
        return;
    }
    const USER: u32 = 65534;
    let m = Mounts::watched(Desk::of_user(USER));
    let desk = &m.desk;
    let drive = desk.drive("disk/drive.img", 128);
    std::os::unix::fs::chown(&drive, Some(USER), Some(USER)).unwrap();
    desk.ok(&format!(
        "zpool create -o ashift=12 -m {} tank {}",
        desk.path("tank").display(),
        drive.display()
    ));
    let at = desk.path("own");
    let new = format!(
        "zfs create -o encryption=on -o keyformat=passphrase -o mountpoint={} tank/own",
        at.display()
    );
    desk.feed(&new, PASSPHRASE);
    let sh = |line: &str| {
        let mut as_user = Command::new("sh");
        as_user.args(["-c", line]).current_dir(desk.path("")).uid(USER).gid(USER);
        let done = as_user.output().unwrap();
        assert!(done.status.success(), "{line}\n{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    assert_eq!(sh("stat -c %u:%g tank own"), "65534:65534\n65534:65534\n");
    sh("mkdir own/d && echo mine > own/d/f && cp -r own/d tank/e");
    desk.ok("zfs snapshot -r tank@one");
    sh("rm own/d/f");
    assert_eq!(sh("cat own/.zfs/snapshot/one/d/f tank/e/f"), "mine\nmine\n");
    desk.ok("zfs unmount -a");
    desk.ok("zfs unload-key tank/own");
    desk.feed("zfs load-key tank/own", PASSPHRASE);
    desk.ok("zfs mount -a");
    assert_eq!(sh("ls own own/d tank"), "own:\nd\n\nown/d:\n\ntank:\ne\n");
    // After a service that died what has its key is there, and the other is closed.
    m.kill();
    desk.ok("zfs list");
    assert_eq!(sh("ls tank"), "e\n");
    assert!(sh("ls own 2>&1 || true").contains("Required key not available"));
    desk.feed("zfs mount -l tank/own", PASSPHRASE);
    assert_eq!(sh("ls own"), "d\n");
    // Below a mount that only its user may enter nothing can be mounted, and that is said.
    if !fs::read_to_string("/etc/fuse.conf")
        .unwrap_or_default()
        .lines()
        .any(|l| l.trim() == "user_allow_other")
    {
        let said = desk.run("zfs create tank/below");
        assert!(said.err.contains("lies in another mount of yours") && said.status == 0, "{said:?}");
        assert!(!desk.ok("zfs mount").contains("tank/below"));
    }
    desk.ok("zpool export tank");
    if zdb::zdb_available() {
        assert_eq!(zdb::zdb_clean(&desk.path("disk"), "tank"), Ok(()));
    }
}

/// What is written into a mounted head while a stream comes in for it is not lost to that stream: it is refused at its end, as
/// if the head had been changed before, and `-F` takes it.
#[test]
fn a_head_is_changed_while_a_stream_comes_in() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/fs");
    let d = &m.desk;
    d.ok("zfs snapshot tank/fs@a");
    d.piped("zfs send tank/fs@a", "zfs receive -o atime=off tank/copy");
    let mut dice = Dice(7);
    let noise: Vec<u8> = (0..6_000_000).map(|_| dice.below(256) as u8).collect();
    fs::write(dir.join("big"), &noise).unwrap();
    d.ok("zfs snapshot tank/fs@b");
    let stream = d.bytes("zfs send -i @a tank/fs@b");
    let copy = m.dir("tank/copy");
    let mut coming = d.spawn("zfs receive tank/copy", Stdio::piped());
    let mut into = coming.stdin.take().unwrap();
    into.write_all(&stream[..stream.len() / 2]).unwrap();
    fs::write(copy.join("mine"), "typed meanwhile").unwrap();
    into.write_all(&stream[stream.len() / 2..]).unwrap();
    drop(into);
    let done = coming.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && said.contains("destination tank/copy has been modified"), "{said}");
    assert_eq!(fs::read_to_string(copy.join("mine")).unwrap(), "typed meanwhile");
    assert_eq!(d.names("-t snapshot -r tank/copy"), ["tank/copy@a"]);
    d.feed("zfs receive -F tank/copy", &stream);
    assert!(fs::metadata(copy.join("mine")).is_err());
    assert!(fs::read(copy.join("big")).unwrap() == noise);
    m.judge();
}

/// What the sender destroyed, renamed and promoted comes upon file systems that are mounted.
#[test]
fn a_package_brings_its_changes_to_what_is_mounted() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/s");
    let d = &m.desk;
    let (far, root) = (d.drive("far/drive.img", 128), d.path("root"));
    d.ok(&format!("zpool create -o ashift=12 -R {} far {}", root.display(), far.display()));
    for line in ["zfs create tank/s/gone", "zfs create tank/s/old", "zfs create tank/s/old/deep"] {
        d.ok(line);
    }
    d.ok("zfs snapshot tank/s/old@first");
    d.ok("zfs clone tank/s/old@first tank/s/clone");
    d.ok("zfs snapshot -r tank/s@a");
    d.piped("zfs send -R tank/s@a", "zfs receive far/d");
    let all = ["far/d", "far/d/clone", "far/d/gone", "far/d/old", "far/d/old/deep"];
    assert!(all.iter().all(|n| m.mounted().contains(&n.to_string())), "{:?}", m.mounted());
    for line in ["zfs destroy -r tank/s/gone", "zfs rename tank/s/old tank/s/new", "zfs promote tank/s/clone"]
    {
        d.ok(line);
    }
    fs::write(dir.join("file"), "later").unwrap();
    fs::write(m.dir("tank/s/new/deep").join("file"), "deeper").unwrap();
    d.ok("zfs snapshot -r tank/s@b");
    d.piped("zfs send -R -i @a tank/s@b", "zfs receive -F far/d");
    assert_eq!(d.names("-r -t filesystem far/d"), ["far/d", "far/d/clone", "far/d/new", "far/d/new/deep"]);
    assert_eq!(d.get("origin", "far/d/clone"), "-");
    assert_eq!(d.get("origin", "far/d/new"), "far/d/clone@first");
    let all = ["far/d", "far/d/clone", "far/d/new", "far/d/new/deep"];
    assert!(all.iter().all(|n| m.mounted().contains(&n.to_string())), "{:?}", m.mounted());
    assert_eq!(fs::read_to_string(m.dir("far/d").join("file")).unwrap(), "later");
    assert_eq!(fs::read_to_string(m.dir("far/d/new/deep").join("file")).unwrap(), "deeper");
    // What is in use is not replaced under whoever uses it.
    d.ok("zfs create far/other");
    let path = m.dir("far/other").join("file");
    fs::write(&path, "in use").unwrap();
    let (open, full) = (File::open(&path).unwrap(), d.bytes("zfs send tank/s@b"));
    d.feed_refused("zfs receive -F far/other", &full, &["cannot unmount '", "pool or dataset is busy"]);
    drop(open);
    assert_eq!(fs::read_to_string(&path).unwrap(), "in use");
    d.feed("zfs receive -F far/other", &full);
    assert_eq!(fs::read_to_string(&path).unwrap(), "later");
    d.export_and_judge("far");
    m.judge();
}

/// A pool is filled, with files that are written over meanwhile: what does not fit is refused, and all that was taken is there.
/// What replaces blocks needs places before theirs are free again.
#[test]
fn a_full_pool_keeps_what_it_took() {
    if !can_mount() {
        return;
    }
    let m = Mounts::on(96);
    m.desk.ok("zfs create -o compression=off tank/f");
    let dir = m.dir("tank/f");
    let mut dice = Dice(0x1ce_c04e);
    let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut refused = 0;
    while refused < 60 {
        let name = format!("f{}", dice.below(150));
        let file = match OpenOptions::new().write(true).create(true).truncate(false).open(dir.join(&name)) {
            Ok(file) => file,
            Err(e) => {
                assert_eq!(e.kind(), std::io::ErrorKind::StorageFull, "{e}");
                refused += 1;
                continue;
            }
        };
        let known = model.entry(name.clone()).or_default();
        let len = [100, 4096, 20_000, 131_072, 300_000][dice.below(5) as usize];
        let at = if dice.below(3) == 0 { known.len() } else { 0 };
        let fill = dice.below(256) as u8;
        let data: Vec<u8> =
            (0..len).map(|i| fill ^ (i as u32).wrapping_mul(0x9e37_79b1).to_le_bytes()[3]).collect();
        let mut done = 0;
        while done < len {
            match file.write_at(&data[done..], (at + done) as u64) {
                Ok(n) => done += n,
                Err(e) => {
                    assert_eq!(e.kind(), std::io::ErrorKind::StorageFull, "{e}");
                    refused += 1;
                    break;
                }
            }
        }
        known.resize(known.len().max(at + done), 0);
        known[at..at + done].copy_from_slice(&data[..done]);
        if dice.below(50) == 0 {
            file.sync_all().unwrap();
        }
        if refused > 30 && dice.below(20) == 0 {
            fs::remove_file(dir.join(&name)).unwrap();
            model.remove(&name);
        }
    }
    let compare = |dir: &Path| {
        for (name, data) in &model {
            assert!(fs::read(dir.join(name)).unwrap() == *data, "{name}");
        }
    };
    compare(&dir);
    m.desk.ok("zfs unmount tank/f");
    m.desk.ok("zfs mount tank/f");
    compare(&dir);
    m.judge();
}

/// What a property says of blocks holds at once for what is mounted, also where it is inherited.
#[test]
fn properties_of_blocks_hold_while_mounted() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/fs");
    let d = &m.desk;
    let write = |name: &str| {
        let mut file = File::create(dir.join(name)).unwrap();
        file.write_all(&vec![0; 4 << 20]).unwrap();
        file.sync_all().unwrap();
    };
    let used = || d.get("referenced", "tank/fs").parse::<u64>().unwrap();
    write("hole");
    assert!(used() < 1 << 20, "{}", used());
    d.ok("zfs set compression=off tank");
    write("zeros");
    assert!(used() > 4 << 20, "{}", used());
    d.ok("zfs set copies=2 tank/fs");
    write("twice");
    assert!(used() > 12 << 20, "{}", used());
    d.ok("zfs inherit copies tank/fs");
    d.ok("zfs inherit compression tank");
    let before = used();
    write("hole-again");
    assert!(used() < before + (1 << 20), "{} after {before}", used());
    // Written while there is nothing to tell whether it is whole.
    d.ok("zfs set compression=off checksum=noparity tank/fs");
    write("unsummed");
    assert!(used() > before + (3 << 20), "{} after {before}", used());
    m.judge();
}

/// What is imported for reading only is mounted all the same, keeps its keys, and is not written to by anybody.
#[test]
fn a_pool_imported_for_reading_is_mounted() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/a");
    let d = &m.desk;
    fs::write(dir.join("f"), "for good").unwrap();
    d.ok("zfs snapshot tank/a@s");
    let key = d.key_file("key", PASSPHRASE);
    d.ok(&format!("zfs create -o encryption=on -o keyformat=passphrase -o keylocation={key} tank/e"));
    fs::write(m.dir("tank/e").join("g"), "secret").unwrap();
    d.ok("zfs create -o mountpoint=legacy tank/l");
    d.ok("zpool export tank");
    let drive = d.path("tank/drive.img");
    let before = fs::read(&drive).unwrap();
    let import = format!("zpool import -o readonly=on -R {} -d tank", d.path("root").display());
    d.ok(&format!("{import} -N tank"));
    assert!(m.mounted().is_empty());
    d.ok("zfs mount -a");
    assert_eq!(m.mounted(), ["tank", "tank/a"]);
    assert_eq!(fs::read_to_string(dir.join("f")).unwrap(), "for good");
    assert_eq!(fs::read_to_string(dir.join(".zfs/snapshot/s/f")).unwrap(), "for good");
    let read_only = rustix::io::Errno::ROFS.raw_os_error();
    assert_eq!(errno(&fs::write(dir.join("f"), "x").unwrap_err()), read_only);
    assert_eq!(errno(&fs::create_dir(dir.join("d")).unwrap_err()), read_only);
    assert_eq!(d.ok("zfs get -H -o value,source readonly tank/a"), "on\ttemporary\n");
    d.refused("zfs mount tank/e", 1, &["encryption key not loaded"]);
    d.ok("zfs load-key tank/e");
    d.ok("zfs mount tank/e");
    assert_eq!(fs::read_to_string(m.dir("tank/e").join("g")).unwrap(), "secret");
    d.refused("zfs unload-key tank/e", 255, &["'tank/e' is busy"]);
    d.ok("zfs unmount -u tank/e");
    assert_eq!(d.get("keystatus", "tank/e"), "unavailable");
    d.refused("zfs snapshot tank@new", 1, &["readonly=on"]);
    let load = d.ok("zpool get -H -o value load_guid tank");
    assert_eq!(d.ok("zpool get -H -o value load_guid tank"), load);
    // A repair wants the devices for itself: the mounts step aside, unless they are in use.
    let open = File::open(dir.join("f")).unwrap();
    d.refused("zpool scrub --repair tank", 1, &["pool or dataset is busy"]);
    drop(open);
    d.ok("zpool scrub --repair tank");
    assert_eq!(m.mounted(), ["tank", "tank/a"]);
    d.ok("zfs load-key tank/e");
    d.refused("zpool scrub --repair tank", 1, &["zfs unload-key -a"]);
    d.ok("zfs unload-key tank/e");
    // Whoever else reads the devices may go on doing so.
    d.ok("zpool scrub -n tank");
    let elsewhere = d.command("icecore ls tank/a").env("ICECORE_SERVICE", "off").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&elsewhere.stdout), "f\n");
    // The next service mounts again what this one had.
    m.kill();
    assert_eq!(m.mounted(), ["tank", "tank/a"]);
    assert_eq!(fs::read_to_string(dir.join("f")).unwrap(), "for good");
    d.ok("zpool export tank");
    assert!(!dir.join("f").exists());
    wait_for("the service goes", || d.service().is_none());
    // By itself, and under another name.
    d.ok(&format!("{import} -l tank other"));
    assert_eq!(m.mounted(), ["other", "other/a", "other/e"]);
    assert_eq!(fs::read_to_string(m.dir("other/e").join("g")).unwrap(), "secret");
    d.ok("zfs unmount -a");
    assert!(m.mounted().is_empty());
    // Devices that are gone do not keep it.
    fs::rename(&drive, d.path("away")).unwrap();
    m.kill();
    d.ok("zpool export other");
    fs::rename(d.path("away"), &drive).unwrap();
    assert!(fs::read(&drive).unwrap() == before, "something was written");
    d.ok(&format!("zpool import -R {} -d tank tank", d.path("root").display()));
    m.judge();
}

/// What a program writes over with the same bytes takes no new space, where the checksum tells contents.
#[test]
fn what_is_written_over_with_the_same_stays() {
    if !can_mount() {
        return;
    }
    let m = Mounts::new();
    let bytes = Dice(11).bytes(4 << 20);
    for (name, checksum, stays) in [("strong", "sha512", true), ("weak", "fletcher4", false)] {
        let name = format!("tank/{name}");
        m.desk.ok(&format!("zfs create -o compression=lz4 -o checksum={checksum} {name}"));
        let file = m.dir(&name).join("f");
        fs::write(&file, &bytes).unwrap();
        m.desk.ok(&format!("zfs snapshot {name}@s"));
        let open = OpenOptions::new().write(true).open(&file).unwrap();
        open.write_all_at(&bytes, 0).unwrap();
        open.sync_all().unwrap();
        let written: u64 = m.desk.get("written", &name).parse().unwrap();
        assert_eq!(written < 1 << 20, stays, "{name}: {written}");
        assert!(fs::read(&file).unwrap() == bytes);
    }
    m.judge();
}

/// As mount(8) calls it: snapshots, and what is mounted already, to be mounted otherwise.
#[test]
fn what_mount_8_asks_for() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/a");
    let d = &m.desk;
    for link in ["mount.zfs", "mount.fuse.zfs"] {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_icecore"), d.path(link)).unwrap();
    }
    let read_only = rustix::io::Errno::ROFS.raw_os_error();
    let refuses = |path: &Path| assert_eq!(errno(&fs::write(path, "x").unwrap_err()), read_only);
    fs::write(dir.join("f"), "then").unwrap();
    d.ok("zfs snapshot tank/a@s");
    fs::write(dir.join("f"), "now").unwrap();
    let at = d.path("snap");
    fs::create_dir(&at).unwrap();
    d.ok(&format!("mount.zfs tank/a@s {} -o rw", at.display()));
    assert_eq!(fs::read_to_string(at.join("f")).unwrap(), "then");
    refuses(&at.join("f"));
    let again = format!("mount.fuse.zfs tank/a@s {} -o rw,remount -t fuse.zfs", at.display());
    d.refused(&again, 1, &["filesystem 'tank/a@s' can not be mounted: Read-only file system"]);
    d.ok(&again.replace("rw,", "ro,"));
    d.refused(&again.replace("@s", "@none"), 1, &["not currently mounted there"]);
    // Among file systems it does not show; it is in use, goes with no other, and comes back with the next service.
    assert_eq!(m.mounted(), ["tank", "tank/a"]);
    d.refused("zfs destroy tank/a@s", 1, &["dataset is busy"]);
    d.ok("zfs unmount -a");
    d.ok("zfs rename tank/a tank/b");
    d.ok("zfs mount -a");
    m.kill();
    assert_eq!(m.mounted(), ["tank", "tank/b"]);
    assert_eq!(fs::read_to_string(at.join("f")).unwrap(), "then");
    assert!(Command::new("umount").arg(&at).status().unwrap().success());
    d.ok("zfs destroy tank/b@s");
    // A head, for reading and back; the property's new value counts more.
    let (dir, file) = (m.dir("tank/b"), m.dir("tank/b").join("f"));
    let again = format!("mount.fuse.zfs tank/b {} -o ro,remount -t fuse.zfs", dir.display());
    let open = OpenOptions::new().write(true).open(&file).unwrap();
    d.refused(&again, 1, &["busy"]);
    (&open).write_all(b"more").unwrap();
    drop(open);
    // The kernel tells of the end of a file when it comes to it.
    wait_for("the file to be let go", || d.run(&again).status == 0);
    refuses(&file);
    assert_eq!(d.ok("zfs get -H -o value,source readonly tank/b"), "on\ttemporary\n");
    d.ok("zfs mount -o remount,rw,noexec tank/b");
    assert_eq!(d.ok("zfs get -H -o value,source exec tank/b"), "off\ttemporary\n");
    fs::write(&file, "x").unwrap();
    let flags = |word: &str| {
        let table = fs::read_to_string("/proc/self/mounts").unwrap();
        let line = table.lines().find(|l| l.contains(&format!(" {} ", dir.display()))).unwrap().to_string();
        line.split(' ').nth(3).unwrap().split(',').any(|w| w == word)
    };
    assert!(flags("rw") && flags("noexec"));
    d.ok("zfs set readonly=on tank/b");
    refuses(&file);
    assert!(flags("ro") && flags("noexec"));
    d.ok("zfs mount -o remount,rw tank/b");
    fs::write(&file, "x").unwrap();
    assert_eq!(d.ok("zfs get -H -o value,source readonly tank/b"), "off\ttemporary\n");
    // What is in use keeps its pool from being destroyed, with -f too.
    let open = File::open(&file).unwrap();
    d.refused("zpool destroy -f tank", 1, &["could not destroy 'tank': could not unmount datasets"]);
    drop(open);
    m.judge();
}

/// Who stands in `.zfs/snapshot`, or has a file of it open, keeps that snapshot from being destroyed, and no other.
#[test]
fn who_works_in_a_snapshot_keeps_it() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/a");
    let d = &m.desk;
    fs::write(dir.join("f"), "kept").unwrap();
    for snap in ["one", "two", "three"] {
        d.ok(&format!("zfs snapshot tank/a@{snap}"));
    }
    let of = |snap: &str| dir.join(".zfs/snapshot").join(snap);
    let busy = ["cannot destroy snapshot tank/a@two: dataset is busy"];
    // A look is no work.
    assert_eq!(fs::read_to_string(of("two").join("f")).unwrap(), "kept");
    d.ok("zfs destroy -n tank/a@two");
    let mut stands = Command::new("sleep").arg("1000").current_dir(of("two")).spawn().unwrap();
    d.refused("zfs destroy tank/a@two", 1, &busy);
    d.refused("zfs destroy tank/a@one%three", 1, &busy);
    assert_eq!(d.names("-t snapshot -r tank"), ["tank/a@one", "tank/a@two", "tank/a@three"]);
    d.refused("zfs rollback -r tank/a@one", 1, &["'tank/a@two'", "dataset is busy"]);
    assert_eq!(fs::read_to_string(of("two").join("f")).unwrap(), "kept");
    d.ok("zfs destroy tank/a@three");
    stands.kill().unwrap();
    stands.wait().unwrap();
    let open = File::open(of("two").join("f")).unwrap();
    d.refused("zfs destroy tank/a@two", 1, &busy);
    drop(open);
    wait_for("the file to be closed", || d.run("zfs destroy tank/a@two").status == 0);
    d.ok("zfs rollback -r tank/a@one");
    // The root of a pool is not destroyed, and stays mounted.
    d.ok("zfs snapshot tank@root");
    let mut stands =
        Command::new("sleep").arg("1000").current_dir(m.dir("tank/.zfs/snapshot/root")).spawn().unwrap();
    d.refused("zfs destroy -r tank", 1, &["cannot destroy snapshot tank@root: dataset is busy"]);
    assert_eq!(m.mounted(), ["tank", "tank/a"]);
    stands.kill().unwrap();
    stands.wait().unwrap();
    d.ok("zfs destroy -r tank");
    assert_eq!(d.names("-r -t all tank"), ["tank"]);
    m.judge();
}

/// What was mounted leaves no empty directory where it inherited its place; one it was given, or one with something in it, stays.
#[test]
fn directories_go_with_what_was_mounted() {
    if !can_mount() {
        return;
    }
    let (m, dir) = Mounts::with("tank/a");
    let (d, root) = (&m.desk, m.desk.path("root"));
    d.ok("zfs create -o mountpoint=/own tank/own");
    d.ok("zfs rename tank/a tank/b");
    assert!(!dir.exists() && m.dir("tank/b").exists());
    d.ok("zfs create tank/b/c");
    d.ok("zfs set mountpoint=/elsewhere tank/b");
    assert!(!m.dir("tank/b").exists() && root.join("elsewhere/c").exists());
    d.ok("zfs inherit mountpoint tank/b");
    assert!(root.join("elsewhere").exists());
    assert!(m.mounted().contains(&"tank/b/c".into()) && m.dir("tank/b/c").exists());
    d.ok("zfs unmount tank/b");
    assert!(m.dir("tank/b").exists());
    fs::write(m.dir("tank/b").join("below"), "kept").unwrap();
    d.ok("zfs mount -a");
    d.ok("zfs destroy -r tank/b");
    assert_eq!(fs::read_to_string(m.dir("tank/b").join("below")).unwrap(), "kept");
    assert!(!m.dir("tank/b/c").exists());
    d.ok("zfs create tank/f");
    d.ok("zfs snapshot tank/f@s");
    d.ok("zfs clone tank/f@s tank/g");
    d.ok("zfs destroy -R tank/f@s");
    assert!(m.dir("tank/f").exists() && !m.dir("tank/g").exists());
    d.ok("zfs destroy tank/own");
    assert!(root.join("own").exists());
    d.export_and_judge("tank");
    assert!(!m.dir("tank").exists() && root.exists());
}
