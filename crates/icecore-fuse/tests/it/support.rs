//! Mounting for tests.

use icecore_check::fixture::{fixture, tests_data};
use icecore_check::zoo;
use icecore_fuse::{Mounted, Options, What};
use icecore_pool::{Pool, Shared};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// Whether mounts can be made here. Says so loudly where they cannot.
pub fn can_mount() -> bool {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let may = std::fs::read_to_string("/proc/self/status").unwrap_or_default().lines().any(|l| {
        let caps = l.strip_prefix("CapEff:").and_then(|c| u64::from_str_radix(c.trim(), 16).ok());
        caps.is_some_and(|c| c >> 21 & 1 != 0)
    });
    let helper = || std::process::Command::new("fusermount3").arg("-V").output().is_ok();
    let can = device.is_ok() && (may || helper());
    if !can {
        eprintln!("SKIPPED: neither /dev/fuse as root nor fusermount3 can be used: NOTHING WAS MOUNTED HERE");
    }
    can
}

/// A directory with something mounted on it; unmounted in the end.
pub struct Mount {
    mounted: Option<Mounted>,
    dir: TempDir,
}

impl Mount {
    pub fn new(shared: &Arc<Shared>, what: &What) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = icecore_fuse::mount(shared.clone(), what, dir.path(), &Options::default()).unwrap();
        Self { mounted: Some(mounted), dir }
    }
    pub fn dataset(shared: &Arc<Shared>, name: &str) -> Self {
        Self::new(shared, &What::Dataset(name.into()))
    }
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
    pub fn unmount(mut self) {
        self.mounted.take().unwrap().unmount().unwrap();
        let here = self.dir.path().display().to_string();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(&here), "{here} is still mounted");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted.is_some() {
            // A test that failed half-way: what is in use goes when it ends.
            let _ = icecore_fuse::unmount(self.dir.path(), true);
        }
    }
}

/// The pool of the repository, all keys loaded.
pub fn main_pool() -> Pool {
    let mut pool = zoo::open(&[fixture("cold/main.img")]).unwrap();
    zoo::load_keys(&mut pool, &tests_data());
    pool
}

/// Where OpenZFS's manifests of it are.
pub fn main_expected() -> PathBuf {
    tests_data().join("cold/main.expected")
}
