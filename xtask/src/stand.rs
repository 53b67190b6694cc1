//! Throw-away pools on files with an encrypted file system that is mounted: what `posix`, `load` and `bench fs` work on.
//!
//! Commands are run as a person types them: the service owns the pool and serves the mount. However a run ends, nothing
//! stays: mounts are taken away and the service is stopped when a [`Stand`] is dropped.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use icecore_check::zdb;

use crate::shell::{Outcome, output, program, run as shell};

pub const PASSPHRASE: &str = "correct horse battery staple";

pub struct Stand {
    pub dir: PathBuf,
    icecore: PathBuf,
}

/// Why nothing can be mounted here, if that is so.
pub fn no_mounts() -> Option<&'static str> {
    let possible = rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists();
    (!possible).then_some("mounts need root and /dev/fuse")
}

impl Stand {
    /// In the folder `dir`, which is made, and emptied before.
    pub fn new(icecore: PathBuf, dir: PathBuf) -> Outcome<Self> {
        let stand = Stand { dir, icecore };
        stand.clear();
        fs::create_dir_all(stand.dir.join("state")).map_err(|e| format!("{}: {e}", stand.dir.display()))?;
        Ok(stand)
    }

    /// The command line program, with its own state folder.
    pub fn command(&self) -> Command {
        let mut command = program(&self.icecore);
        command.env("ICECORE_STATE_DIR", self.dir.join("state"));
        command
    }

    pub fn icecore(&self, args: &[&str]) -> Outcome {
        shell(self.command().args(args))
    }

    pub fn ask(&self, args: &[&str]) -> Outcome<String> {
        output(self.command().args(args))
    }

    /// A pool of one file of so many MiB.
    pub fn pool(&self, name: &str, mib: u64) -> Outcome {
        let folder = self.disks(name);
        let image = folder.join("disk.img");
        let place = || -> std::io::Result<()> {
            fs::create_dir_all(&folder)?;
            File::create(&image)?.set_len(mib << 20)
        };
        place().map_err(|e| format!("{}: {e}", image.display()))?;
        shell(self.command().args(["zpool", "create", "-m", "none", name]).arg(image))
    }

    /// The folder of a pool's disk.
    fn disks(&self, pool: &str) -> PathBuf {
        self.dir.join("disks").join(pool)
    }

    /// An encrypted file system with the properties `with`; it is mounted on the folder that is returned.
    pub fn encrypted(&self, name: &str, with: &[&str]) -> Outcome<PathBuf> {
        let (dir, mut create) = self.create(name, with);
        create.args(["-o", "encryption=on", "-o", "keyformat=passphrase", name]);
        let mut child = create.stdin(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
        let mut key = child.stdin.take().ok_or("no pipe")?;
        key.write_all(format!("{PASSPHRASE}\n").as_bytes()).map_err(|e| e.to_string())?;
        drop(key);
        let status = child.wait().map_err(|e| e.to_string())?;
        if !status.success() {
            return Err(format!("zfs create {name}: {status}"));
        }
        is_mounted(&dir)?;
        Ok(dir)
    }

    /// The same, not encrypted.
    pub fn plain(&self, name: &str, with: &[&str]) -> Outcome<PathBuf> {
        let (dir, mut create) = self.create(name, with);
        shell(create.arg(name))?;
        is_mounted(&dir)?;
        Ok(dir)
    }

    fn create(&self, name: &str, with: &[&str]) -> (PathBuf, Command) {
        let dir = self.dir.join("mnt").join(name.replace('/', "-"));
        let mut create = self.command();
        create.args(["zfs", "create", "-o", &format!("mountpoint={}", dir.display())]);
        with.iter().for_each(|property| {
            create.args(["-o", property]);
        });
        (dir, create)
    }

    /// Unmounts and mounts again: nothing of it stays in the kernel's cache.
    pub fn remount(&self, name: &str, dir: &Path) -> Outcome {
        self.icecore(&["zfs", "unmount", name])?;
        self.icecore(&["zfs", "mount", name])?;
        is_mounted(dir)
    }

    /// The most memory that the service has had, in MiB.
    pub fn service_peak_mib(&self) -> Outcome<f64> {
        let told = self.ask(&["service", "status"])?;
        let pid = told
            .split(|c: char| !c.is_ascii_digit())
            .find(|w| Path::new("/proc").join(w).join("status").exists() && !w.is_empty());
        let pid = pid.ok_or_else(|| format!("no process in: {told}"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|e| e.to_string())?;
        let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        let kib: f64 = peak.trim().trim_end_matches(" kB").parse().map_err(|e| format!("{peak}: {e}"))?;
        Ok(kib / 1024.0)
    }

    /// Exports the pool and lets zdb judge it.
    pub fn judged(&self, pool: &str) -> Outcome {
        self.icecore(&["zpool", "export", pool])?;
        if !zdb::zdb_available() {
            return Err("zdb is not installed: nothing was judged".into());
        }
        zdb::zdb_clean(&self.disks(pool), pool)
    }

    fn clear(&self) {
        let _ = self.command().args(["service", "stop"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        for dir in mounts_below(&self.dir) {
            let _ = program("umount").arg("-l").arg(dir).status();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What is worked on must be the pool's file system, not the folder below it.
fn is_mounted(dir: &Path) -> Outcome {
    if mounts_below(dir).iter().any(|d| d == dir) {
        return Ok(());
    }
    Err(format!("nothing is mounted on {}", dir.display()))
}

/// The innermost first.
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let mut found: Vec<PathBuf> = places.filter(|place| place.starts_with(dir)).collect();
    found.reverse();
    found
}
