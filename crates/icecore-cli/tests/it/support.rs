//! A desk to type at.

use icecore_check::fixture::fixture;
use icecore_check::zdb;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// Size of the drives, unless a test says otherwise.
pub const MIB: u64 = 1 << 20;

/// A folder with the two links, a state, and whatever drives a test makes.
pub struct Desk {
    dir: TempDir,
    /// `ICECORE_MOUNT`.
    mounts: &'static str,
    /// Who types, if not whoever runs the tests.
    user: Option<u32>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Done {
    pub status: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Done {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

impl From<Output> for Done {
    fn from(o: Output) -> Self {
        let err = String::from_utf8_lossy(&o.stderr).into_owned();
        // A panic or a signal is never an answer.
        assert!(!err.contains("panicked"), "{err}");
        Self { status: o.status.code().unwrap_or(-1), out: o.stdout, err }
    }
}

impl Desk {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for link in ["zfs", "zpool", "icecore"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_icecore"), dir.path().join(link)).unwrap();
        }
        Self { dir, mounts: "off", user: None }
    }

    /// Where file systems are mounted as they come, which is elsewhere left off: they belong where the machine may have its own.
    pub fn mounting() -> Self {
        Self { mounts: "on", ..Self::new() }
    }

    /// That of another user (only root can do that), with file systems mounted as they come.
    pub fn of_user(id: u32) -> Self {
        let desk = Self { user: Some(id), ..Self::mounting() };
        // What was built may lie where only its builder can go.
        std::fs::remove_file(desk.path("icecore")).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_icecore"), desk.path("icecore")).unwrap();
        for link in ["zfs", "zpool"] {
            std::fs::remove_file(desk.path(link)).unwrap();
            std::os::unix::fs::symlink("icecore", desk.path(link)).unwrap();
        }
        std::os::unix::fs::chown(desk.dir.path(), Some(id), Some(id)).unwrap();
        desk
    }

    /// With the pool of the fixture `main.img`, as OpenZFS made it, imported for reading.
    pub fn with_main() -> Self {
        let desk = Self::new();
        let source = desk.path("source");
        std::fs::create_dir(&source).unwrap();
        std::os::unix::fs::symlink(fixture("cold/main.img"), source.join("main.img")).unwrap();
        desk.ok(&format!("zpool import -d {} -o readonly=on main", source.display()));
        desk
    }

    /// With a pool on a drive of its own, in a folder of its name.
    pub fn with_pool(name: &str) -> Self {
        let desk = Self::new();
        desk.pool(name, 128);
        desk
    }

    /// Makes a pool on a new drive.
    pub fn pool(&self, name: &str, mib: u64) -> PathBuf {
        let drive = self.drive(&format!("{name}/drive.img"), mib);
        self.ok(&format!("zpool create -o ashift=12 -m none {name} {}", drive.display()));
        drive
    }

    /// A new sparse file.
    pub fn drive(&self, name: &str, mib: u64) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(&path).unwrap().set_len(mib * MIB).unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file and gives its place as a keylocation.
    pub fn key_file(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        format!("file://{}", self.path(name).display())
    }

    pub fn command(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let mut c = Command::new(self.path(words.next().unwrap()));
        c.args(words)
            .env("ICECORE_STATE_DIR", self.path("state"))
            .env("ICECORE_MOUNT", self.mounts)
            .env("TZ", "UTC")
            .current_dir(self.dir.path());
        if let Some(id) = self.user {
            c.uid(id).gid(id);
        }
        c.stdin(Stdio::null());
        c
    }

    /// Types a line.
    pub fn run(&self, line: &str) -> Done {
        self.command(line).output().unwrap().into()
    }

    /// Types a line that has to work; what it printed.
    pub fn ok(&self, line: &str) -> String {
        let done = self.run(line);
        assert_eq!(done.status, 0, "{line}\n{}{}", done.text(), done.err);
        done.text()
    }

    /// What a stream-making line sends.
    pub fn bytes(&self, line: &str) -> Vec<u8> {
        let done = self.run(line);
        assert_eq!(done.status, 0, "{line}\n{}", done.err);
        done.out
    }

    /// Types a line that has to be refused with this status and these words.
    pub fn refused(&self, line: &str, status: i32, words: &[&str]) -> Done {
        self.checked(line, self.run(line), status, words)
    }

    fn checked(&self, line: &str, done: Done, status: i32, words: &[&str]) -> Done {
        assert_eq!(done.status, status, "{line}\n{}{}", done.text(), done.err);
        for w in words {
            assert!(done.err.contains(w), "{line}\nsays:\n{}\nand not: {w}", done.err);
        }
        done
    }

    /// Types a line with `input` at its standard input.
    pub fn with_input(&self, line: &str, input: &[u8]) -> Done {
        let mut child = self.spawn(line, Stdio::piped());
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|s| {
            // A command that refuses does not read on.
            s.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().unwrap().into()
        })
    }

    pub fn feed(&self, line: &str, input: &[u8]) -> String {
        let done = self.with_input(line, input);
        assert_eq!(done.status, 0, "{line}\n{}{}", done.text(), done.err);
        done.text()
    }

    pub fn feed_refused(&self, line: &str, input: &[u8], words: &[&str]) -> Done {
        self.checked(line, self.with_input(line, input), failure(line), words)
    }

    pub fn spawn(&self, line: &str, stdin: Stdio) -> Child {
        self.command(line).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// `left | right`: how both ended.
    pub fn pipe(&self, left: &str, right: &str) -> (Done, Done) {
        let mut from = self.spawn(left, Stdio::null());
        let mut errors = from.stderr.take().unwrap();
        let to = self.spawn(right, from.stdout.take().unwrap().into());
        std::thread::scope(|s| {
            let err = s.spawn(move || {
                let mut text = String::new();
                errors.read_to_string(&mut text).unwrap();
                text
            });
            let right = to.wait_with_output().unwrap().into();
            let status = from.wait().unwrap().code().unwrap_or(-1);
            (Done { status, out: Vec::new(), err: err.join().unwrap() }, right)
        })
    }

    /// The same where both have to work; what the right one printed.
    pub fn piped(&self, left: &str, right: &str) -> String {
        let (l, r) = self.pipe(left, right);
        assert_eq!((l.status, r.status), (0, 0), "{left} | {right}\n{}{}", l.err, r.err);
        r.text()
    }

    /// The service's process; `None` if there is none.
    pub fn service(&self) -> Option<u32> {
        let said = self.ok("icecore service status");
        let (_, rest) = said.split_once("process ")?;
        Some(rest.split(',').next().unwrap().parse().unwrap())
    }

    /// Exports the pool and lets `zdb` judge it.
    pub fn export_and_judge(&self, pool: &str) {
        self.ok(&format!("zpool export {pool}"));
        self.judge(pool);
    }

    pub fn judge(&self, pool: &str) {
        if zdb::zdb_available() {
            assert_eq!(zdb::zdb_clean(&self.path(pool), pool), Ok(()));
        }
    }

    pub fn import(&self, pool: &str) {
        self.ok(&format!("zpool import -d {} {pool}", self.path(pool).display()));
    }

    /// Everything a user can see of a pool: for what must not change.
    pub fn seen(&self, pool: &str) -> String {
        // Not `available`: what was freed lately comes back to it some transactions later.
        let props = "name,type,guid,createtxg,used,referenced,logicalused,written,origin";
        let space = self.ok(&format!("zpool list -Hp -o name,size,allocated,free,guid {pool}"));
        space + &self.ok(&format!("zfs list -Hp -r -t all -o {props} {pool}"))
    }

    /// Names, one a line, of what `zfs list -H -o name` with these arguments shows.
    pub fn names(&self, args: &str) -> Vec<String> {
        self.ok(&format!("zfs list -H -o name {args}")).lines().map(String::from).collect()
    }

    pub fn get(&self, prop: &str, name: &str) -> String {
        self.ok(&format!("zfs get -Hp -o value {prop} {name}")).trim_end().to_string()
    }
}

/// The status with which OpenZFS's command ends where what it is asked for fails.
pub fn failure(line: &str) -> i32 {
    match line.split_whitespace().nth(1) {
        Some("set" | "load-key" | "unload-key" | "change-key") => 255,
        _ => 1,
    }
}

/// The contents of a fixture.
pub fn stream(name: &str) -> Vec<u8> {
    std::fs::read(fixture(&format!("cold/{name}"))).unwrap()
}

/// What OpenZFS sends of a dataset, by `zdb -B`; `None` where there is no `zdb`.
pub fn zdb_sends(dir: &Path, pool: &str, objset: &str, flags: &str) -> Option<Vec<u8>> {
    if !zdb::zdb_available() {
        return None;
    }
    let mut c = zdb::command();
    c.arg("-e").arg("-p").arg(dir).arg("-B").arg(format!("{pool}/{objset}"));
    Some(c.args((!flags.is_empty()).then_some(flags)).output().unwrap().stdout)
}

/// Waits until something is so; not for ever.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
