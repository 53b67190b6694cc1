//! File systems and snapshots of a pool as mounts of this machine, through FUSE.
//!
//! A file system of a pool that is open for writing is read and changed through its open objset, so what one program wrote the
//! next one reads, long before it is committed. The kernel caches what it read and what was written through it; it holds back
//! no writes but those to memory that is mapped. So what write(2) was told is done, a snapshot that comes after it has.
//!
//! Invariants:
//! 1. The pool is asked through [`Shared`], for one request at a time: no guard outlives a request, none is held while
//!    the kernel is answered or waits for somebody else. A thread of a mount never waits for a mount.
//! 2. Numbers of files are a function of dataset and object (`ino`). What is kept of files (`known`) is what the kernel itself
//!    would have to say: losing it with the process loses nothing.
//! 3. What a dataset holds is looked up again after each command that may have changed it, and what is only read, after each
//!    txg: a mount never follows a pointer of a txg that is gone.
//! 4. Every failure becomes an errno in one place (`errno`), and no request waits for anything but its own work.
//! 5. Where a file system was and cannot be, its directory can be closed ([`cover`]); what comes in the place of something does so
//!    in one step ([`stage`]).
//! 6. Memory is bounded: open file systems, data read ahead and lists of names each have their limit; what is changed, that of
//!    [`icecore_pool::shared::WEIGHT_MAX`].
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod attr;
mod blocks;
mod change;
pub mod cover;
mod errno;
mod ino;
mod kernel;
mod known;
mod listing;
mod live;
mod names;
mod reading;
mod requests;
mod serve;
pub mod stage;
pub mod table;
mod views;
mod visitors;

use fuser::{BackgroundSession, Notifier};
use icecore_dsl::{DslError, Kind};
use icecore_pool::Shared;
use icecore_zpl::ZplError;
use serve::{Server, locked};
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

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
    /// What overrides properties.
    pub said: Said,
}

/// What a mount may be told instead of its dataset's properties: `None` leaves it to them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Said {
    /// `ro`, `rw`. A snapshot, or a pool that is imported for reading, cannot be changed all the same.
    pub read_only: Option<bool>,
    /// `atime`, `noatime`.
    pub atime: Option<bool>,
    /// `dev`, `nodev`.
    pub devices: Option<bool>,
    /// `exec`, `noexec`.
    pub exec: Option<bool>,
    /// `suid`, `nosuid`.
    pub setuid: Option<bool>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_other: rustix::process::geteuid().is_root() || kernel::users_may_allow_others(),
            threads: 4,
            said: Said::default(),
        }
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
impl From<io::Error> for MountError {
    fn from(e: io::Error) -> Self {
        Self::Fuse(e)
    }
}
impl From<icecore_dsl::DslError> for MountError {
    fn from(e: icecore_dsl::DslError) -> Self {
        Self::Zpl(e.into())
    }
}

/// A mount at work. Dropping it lets it go on until it is unmounted.
pub struct Mounted {
    session: BackgroundSession,
    notifier: Notifier,
    server: Arc<Server>,
    dir: PathBuf,
    name: String,
    /// Of its connection to the kernel.
    number: Option<u32>,
    /// The dataset at the top.
    object: u64,
}

/// What fuser owns of the server.
struct Served(Arc<Server>);

impl Deref for Served {
    type Target = Server;
    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Mounted {
    /// Where.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// The same, to be moved to `dir` ([`stage`]).
    #[must_use]
    pub fn at(mut self, dir: &Path) -> Self {
        self.dir = dir.to_path_buf();
        self
    }
    /// The dataset at the top, by the name it had when it was mounted.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Whether it was unmounted from outside.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.session.guard.is_finished()
    }
    /// Whether files can be changed.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.server.head.is_some() && self.server.writable.load(Ordering::Relaxed)
    }
    /// Whether they ever can be.
    #[must_use]
    pub fn is_of_head(&self) -> bool {
        self.server.head.is_some()
    }
    /// Whether a process works in snapshot `object` where this mount shows it, below `.zfs/snapshot`. The pool may be in hand.
    #[must_use]
    pub fn is_visited(&self, object: u64) -> bool {
        let Some(view) = self.server.views.entered(object) else { return false };
        let table = table::all();
        let Some(line) = table.iter().rev().find(|line| line.dir == self.dir) else { return false };
        visitors::any(line.device, |ino| ino::Node::from_number(ino).is_some_and(|n| n.view() == view))
    }
    /// The pool that is behind it, unless that is let go.
    #[must_use]
    pub fn is_of(&self, shared: &Arc<Shared>) -> bool {
        self.server.pool().is_ok_and(|own| Arc::ptr_eq(&own, shared))
    }
    /// Waits a while until the kernel is done with it: everything is committed then, and the pool let go.
    pub fn is_over_within(&self, limit: Duration) -> bool {
        const LOOK: Duration = Duration::from_millis(1);
        let mut waited = Duration::ZERO;
        while !self.is_over() && waited < limit {
            std::thread::sleep(LOOK);
            waited += LOOK;
        }
        self.is_over()
    }
    /// Unmounts. The system's refusal (busy) leaves it mounted. Everything that was written is durable then.
    pub fn unmount(self) -> io::Result<()> {
        unmount(&self.dir, false)?;
        self.wait()
    }
    /// Waits until somebody unmounts it.
    pub fn wait(self) -> io::Result<()> {
        self.session.join()
    }
    /// Takes it away under those who use it, whose files are cut off, also where its pool answers nothing but errors. What was
    /// written is kept where the devices take it.
    ///
    /// # Errors
    /// The mount could not be taken off its directory: a directory above it cannot be entered any more. What uses it gets
    /// errors all the same, and it goes with what it lies in.
    pub fn cut_off(&self) -> io::Result<()> {
        let own = || table::top(&self.dir).is_none_or(|top| self.number.is_none_or(|n| n == top.device.1));
        let gone = if own() {
            if let Ok(root) = std::fs::File::open(&self.dir) {
                // What is mapped and not yet written.
                let _ = rustix::fs::syncfs(&root);
            }
            unmount(&self.dir, true)
        } else {
            Err(io::ErrorKind::ResourceBusy.into())
        };
        if let Some(number) = self.number {
            // Without the rights for that it ends when the last who uses it does.
            let _ = kernel::abort(number);
        }
        gone
    }
    /// Lets the pool go, whose devices failed: every request fails until [`Self::attach`].
    pub fn detach(&self) {
        drop(locked(&self.server.hold).take());
        *self.server.shared.write().unwrap_or_else(PoisonError::into_inner) = None;
        *self.server.live.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
    /// Goes on with the pool, opened anew.
    pub fn attach(&self, shared: Arc<Shared>) {
        let hold = shared.read().dsl.busy().mount(self.object);
        *self.server.shared.write().unwrap_or_else(PoisonError::into_inner) = Some(shared);
        *self.server.live.write().unwrap_or_else(PoisonError::into_inner) = None;
        *locked(&self.server.hold) = Some(hold);
    }
    /// Changes how it is mounted: what is said; the rest stays.
    ///
    /// # Errors
    /// The system's refusal: files are open for writing (busy), or what can only be read is to be changed. Nothing has changed.
    pub fn remount(&self, said: &Said) -> io::Result<()> {
        let writable = said.read_only.map(|read_only| !read_only);
        if writable == Some(true) && self.server.head.is_none() {
            return Err(rustix::io::Errno::ROFS.into());
        }
        // What the kernel lets through is never refused here: the server allows it first and forbids it last.
        let before = self.server.writable.load(Ordering::Relaxed);
        let allow = |on: bool| self.server.writable.store(on, Ordering::Relaxed);
        allow(before || writable == Some(true));
        let done = kernel::remount(&self.dir, said);
        allow(if done.is_ok() { writable.unwrap_or(before) } else { before });
        done
    }
    /// Tells the kernel to forget what it has of the dataset's files, because somebody else changed them. Must not be called
    /// with the pool in hand: the kernel may wait for requests that wait for it.
    pub fn forget_caches(&self) {
        // A name on the way to another mount would take that mount with it.
        let inside = |line: &table::Line| Some(line.dir.strip_prefix(&self.dir).ok()?.to_path_buf());
        let mounts: Vec<PathBuf> = table::all().iter().filter_map(inside).collect();
        let all = locked(&self.server.known).all(&mounts);
        // What it does not have any more it need not forget.
        let _ = self.notifier.inval_inode(fuser::INodeNo::ROOT, 0, 0);
        for known in all {
            if !known.leads_to_mount {
                let _ = self.notifier.inval_entry(known.parent, OsStr::from_bytes(&known.name));
            }
            let _ = self.notifier.inval_inode(known.ino, 0, 0);
        }
    }
}

/// Mounts `what` of the pool on the directory `dir`. Works on in the background once this returns.
///
/// A file system of a pool that is open for writing can be changed, unless the options or its property `readonly` say no.
/// Without root this takes `fusermount3`. The flags of the mount follow the properties `devices`, `exec` and `setuid`.
pub fn mount(shared: Arc<Shared>, what: &What, dir: &Path, options: &Options) -> Result<Mounted, MountError> {
    let name = what.name().to_string();
    let tree = matches!(what, What::Tree(_));
    lend_keys(&shared, &name)?;
    let (views, flags, head, writable, object, hold) = {
        let pool = shared.read();
        let (io, dsl) = (pool.io(), &pool.dsl);
        let r = dsl.lookup_dataset(io, &name)?;
        if matches!(dsl.kind(io, r)?, Kind::Volume | Kind::VolumeSnapshot) {
            return Err(MountError::Volume);
        }
        let on = |prop: &str, said: Option<bool>| -> Result<bool, DslError> {
            Ok(said.unwrap_or(dsl.prop_number(io, r, prop)? != 0))
        };
        let can_change = pool.writable() && !r.snapshot && !tree;
        let writable = can_change && !on("readonly", options.said.read_only)?;
        let flags = kernel::Flags {
            read_only: !writable,
            atime: on("atime", options.said.atime)?,
            devices: on("devices", options.said.devices)?,
            exec: on("exec", options.said.exec)?,
            setuid: on("setuid", options.said.setuid)?,
        };
        let head = can_change.then_some((r.obj, dsl.dataset(io, r.obj)?.guid));
        let hold = dsl.busy().mount(r.obj);
        (views::Views::new(&pool, r.obj, tree)?, flags, head, writable, r.obj, hold)
    };
    let opened = match head {
        Some(head) => live::Live::open(&mut shared.files(), head, shared.epoch()).map(Some),
        None => Ok(None),
    };
    let opened = match opened {
        // What we do not write to is for reading.
        Err(ZplError::Unsupported(_)) => None,
        opened => opened?,
    };
    let head = head.filter(|_| opened.is_some());
    let writable = writable && head.is_some();
    let flags = kernel::Flags { read_only: !writable, ..flags };
    let server = Server::new(shared, views, head, writable);
    *locked(&server.hold) = Some(hold);
    *server.live.write().unwrap_or_else(PoisonError::into_inner) = opened;
    let server = Arc::new(server);
    let session = kernel::mount(Served(server.clone()), (&name, kernel::ZFS), dir, flags, options)?;
    let number = table::top(dir).map(|line| line.device.1);
    let notifier = session.notifier();
    if writable {
        // What a crash left without a name.
        server.drain();
    }
    Ok(Mounted { session, notifier, server, dir: dir.to_path_buf(), name, number, object })
}

/// A clone, or what was made since the key was loaded, has its data keys still in the pool only.
fn lend_keys(shared: &Shared, name: &str) -> Result<(), MountError> {
    let lacking = {
        let pool = shared.read();
        let (io, dsl) = (pool.io(), &pool.dsl);
        let r = dsl.lookup_dataset(io, name)?;
        let locked = !dsl.is_encrypted(io, r)? || !dsl.key_loaded(io, r.dir)?;
        (!locked && !pool.without_keys(r.dir).is_ok_and(|all| all.is_empty())).then_some(r.dir)
    };
    if let Some(dir) = lacking {
        shared.files().lend_keys(dir).map_err(|e| ZplError::Unsupported(e.to_string()))?;
    }
    Ok(())
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
