//! File systems and snapshots of a pool as mounts of this machine, through FUSE. For reading only so far.
//!
//! Invariants:
//! 1. The pool is asked through [`Shared`], for one request at a time: no guard outlives a request, none is held while
//!    the kernel is answered or waits for somebody else.
//! 2. Numbers of files are a function of dataset and object (`ino`), nothing is kept for a file the kernel knows:
//!    a mount has no state that could be lost but the places of open files and directories.
//! 3. What a dataset holds is looked up again after each txg: a mount of a head never follows a pointer of a txg that
//!    is gone.
//! 4. Every failure becomes an errno in one place (`errno`), and no request waits for anything but its own reading.
//! 5. Memory is bounded: open file systems, data read ahead and lists of names each have their limit.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod attr;
mod blocks;
mod errno;
mod ino;
mod listing;
mod names;
mod reading;
mod serve;
mod views;

use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use icecore_dsl::Kind;
use icecore_pool::Shared;
use icecore_zpl::ZplError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// What is mounted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// A file system or a snapshot of one, by name.
    Dataset(String),
    /// A file system and those below it, each as the directory of its name in its parent's root.
    Tree(String),
}

impl What {
    /// The name of the dataset at the top.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Dataset(name) | Self::Tree(name) => name,
        }
    }
}

/// How it is mounted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Others than who mounts may enter (root's mounts; others need `user_allow_other` in fuse.conf).
    pub allow_other: bool,
    /// Requests that are worked on at once.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { allow_other: rustix::process::geteuid().is_root(), threads: 4 }
    }
}

/// Why something could not be mounted.
#[derive(Debug)]
#[non_exhaustive]
pub enum MountError {
    /// A volume has no files.
    Volume,
    /// It cannot be read.
    Zpl(ZplError),
    /// The system refuses.
    Fuse(io::Error),
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume => write!(f, "a volume has no files"),
            Self::Zpl(ZplError::KeyNotLoaded(_)) => write!(f, "encryption key not loaded"),
            Self::Zpl(e) => write!(f, "{e}"),
            Self::Fuse(e) => write!(f, "{e}"),
        }
    }
}
impl std::error::Error for MountError {}
impl From<ZplError> for MountError {
    fn from(e: ZplError) -> Self {
        Self::Zpl(e)
    }
}
impl From<icecore_dsl::DslError> for MountError {
    fn from(e: icecore_dsl::DslError) -> Self {
        Self::Zpl(e.into())
    }
}

/// A mount at work. Dropping it unmounts.
pub struct Mounted {
    session: BackgroundSession,
    dir: PathBuf,
    name: String,
}

impl Mounted {
    /// Where.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// The dataset at the top.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Whether it was unmounted from outside.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.session.guard.is_finished()
    }
    /// Unmounts. The system's refusal (busy) leaves it mounted.
    pub fn unmount(self) -> io::Result<()> {
        unmount(&self.dir, false)?;
        self.session.join()
    }
    /// Waits until somebody unmounts it.
    pub fn wait(self) -> io::Result<()> {
        self.session.join()
    }
}

/// Mounts `what` of the pool on the directory `dir`. Works on in the background once this returns.
///
/// Without root this takes `fusermount3`. The flags of the mount follow the properties `devices`, `exec` and `setuid`.
pub fn mount(shared: Arc<Shared>, what: &What, dir: &Path, options: &Options) -> Result<Mounted, MountError> {
    let name = what.name().to_string();
    let mut flags = vec![
        MountOption::FSName(name.clone()),
        MountOption::Subtype("icecore".into()),
        MountOption::DefaultPermissions,
        MountOption::RO,
    ];
    let (views, mount_flags) = {
        let pool = shared.read();
        let (io, dsl) = (pool.io(), &pool.dsl);
        let r = dsl.lookup_dataset(io, &name)?;
        if matches!(dsl.kind(io, r)?, Kind::Volume | Kind::VolumeSnapshot) {
            return Err(MountError::Volume);
        }
        let on = |prop: &str| -> Result<bool, MountError> { Ok(dsl.prop_number(io, r, prop)? != 0) };
        let mount_flags = [
            if on("devices")? { MountOption::Dev } else { MountOption::NoDev },
            if on("exec")? { MountOption::Exec } else { MountOption::NoExec },
            if on("setuid")? { MountOption::Suid } else { MountOption::NoSuid },
        ];
        (views::Views::new(&pool, r.obj, matches!(what, What::Tree(_)))?, mount_flags)
    };
    flags.extend(mount_flags);
    let mut config = Config::default();
    config.mount_options = flags;
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(options.threads.max(1));
    let server = serve::Server::new(shared, views);
    let session = Session::new(server, dir, &config).and_then(Session::spawn).map_err(MountError::Fuse)?;
    Ok(Mounted { session, dir: dir.to_path_buf(), name })
}

/// Unmounts what is mounted on `dir`, by whomever; with `lazy` also what is in use, which then ends when it no longer is.
pub fn unmount(dir: &Path, lazy: bool) -> io::Result<()> {
    use rustix::mount::UnmountFlags;
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(dir, flags) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let how = if lazy { "-uz" } else { "-u" };
    let done = Command::new("fusermount3").arg(how).arg("--").arg(dir).output()?;
    if done.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&done.stderr).trim().to_string()))
}
