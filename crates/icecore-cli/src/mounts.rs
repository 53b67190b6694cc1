//! The mounts that the service serves, and where file systems belong.
//!
//! Invariants:
//! 1. Nothing here touches a path while it holds a pool: the path may lead through a mount of that very pool. What is needed of
//!    the pool is read first ([`Home`]).
//! 2. What is mounted is written down in the state folder (`mounts/POOL.json`). A service that died is followed by one that
//!    mounts it again in the place of the dead mounts ([`restore`]); keys are gone by then, so the directories of encrypted
//!    ones stay closed until they are mounted ([`closed`]).
//! 3. A mount ends with the kernel's word, not with ours: one that somebody unmounts with umount(8) is forgotten when it is
//!    next looked for.

pub mod closed;
mod restore;

pub use restore::restore;

use crate::fail::{Fail, Outcome};
use crate::pools::{self, Owned};
use crate::session::{self, For};
use crate::state;
use icecore_dsl::{Hold, Kind, Source};
use icecore_format::Blkptr;
use icecore_fuse::stage::Stage;
use icecore_fuse::{MountError, Mounted, Options, Said, What};
use icecore_pool::{Pool, Shared};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the end of a mount is waited for once the kernel has let it go.
const END_MAX: Duration = Duration::from_secs(20);

static MOUNTS: Mutex<Vec<Arc<Mount>>> = Mutex::new(Vec::new());
/// What the next command tells its caller: about mounts that did not come back.
static NEWS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A file system that is mounted.
pub struct Mount {
    pool: String,
    /// Its pool's identity, also when that changes.
    pool_guid: Arc<AtomicU64>,
    /// The dataset object.
    object: u64,
    guid: u64,
    /// What it was told instead of its properties.
    said: Mutex<Said>,
    mounted: Mounted,
}

/// What is written down of one.
#[derive(Clone, Serialize, Deserialize)]
pub struct Kept {
    #[serde(default)]
    object: u64,
    guid: u64,
    dir: PathBuf,
    #[serde(default)]
    read_only: Option<bool>,
    #[serde(default)]
    atime: Option<bool>,
    #[serde(default)]
    devices: Option<bool>,
    #[serde(default)]
    exec: Option<bool>,
    #[serde(default)]
    setuid: Option<bool>,
}

/// A file system, or a snapshot of one, and where it belongs.
#[derive(Clone, Debug)]
pub struct Home {
    /// Its name.
    pub name: String,
    object: u64,
    guid: u64,
    /// Property `mountpoint`: a path, `none` or `legacy`.
    pub mountpoint: String,
    /// Where the property comes from.
    pub source: Source,
    /// Property `canmount`.
    pub canmount: String,
    overlay: bool,
    /// The key is loaded, or none is needed.
    pub unlocked: bool,
    /// Half received.
    pub partial: bool,
    /// It is mounted.
    pub mounted: bool,
}

/// How something is to be mounted.
#[derive(Clone, Copy, Default)]
pub struct How {
    /// Over a directory that is not empty.
    pub overlay: bool,
    /// What overrides properties.
    pub said: Said,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether commands mount by themselves: in the service, unless the caller's environment says `ICECORE_MOUNT=off`.
pub fn automatic() -> bool {
    pools::serving() && crate::caller::var("ICECORE_MOUNT").is_none_or(|v| v != "off")
}

/// All mounts that are still there.
pub fn all() -> Vec<Arc<Mount>> {
    let mut all = lock(&MOUNTS);
    all.retain(|m| !m.mounted.is_over());
    all.clone()
}

/// Those of a pool.
pub fn of_pool(name: &str) -> Vec<Arc<Mount>> {
    all().into_iter().filter(|m| m.pool == name).collect()
}

impl Mount {
    fn is_of(&self, pool: u64) -> bool {
        self.pool_guid.load(Ordering::SeqCst) == pool
    }
    /// Where.
    pub fn dir(&self) -> &Path {
        self.mounted.dir()
    }
    /// The name of the file system, as it is now.
    pub fn named(&self) -> Outcome<String> {
        let record = state::find(&self.pool)?.ok_or_else(|| session::no_pool(&self.pool))?;
        let owned = pools::get(&record).map_err(|n| n.fail)?;
        let pool = owned.shared().read();
        let r = pool.dsl.by_object(pool.io(), self.object)?;
        Ok(pool.dsl.name(pool.io(), r)?)
    }
    /// What it was mounted with instead of a property's value.
    fn instead(&self, prop: &str) -> Option<bool> {
        match prop {
            "atime" => self.said().atime,
            "devices" => self.said().devices,
            "exec" => self.said().exec,
            "setuid" => self.said().setuid,
            "readonly" => self.said().read_only,
            _ => None,
        }
    }
    fn said(&self) -> Said {
        *lock(&self.said)
    }
    /// Whether it is a snapshot's.
    pub fn is_snapshot(&self) -> bool {
        self.mounted.name().contains('@')
    }
    /// Changes how it is mounted.
    pub fn remount(&self, said: Said) -> Outcome {
        self.mounted.remount(&said).map_err(|e| {
            Fail::new(format!("filesystem '{}' can not be mounted: {}", self.mounted.name(), reason(&e)))
        })?;
        let mut own = lock(&self.said);
        own.read_only = said.read_only.or(own.read_only);
        own.atime = said.atime.or(own.atime);
        own.devices = said.devices.or(own.devices);
        own.exec = said.exec.or(own.exec);
        own.setuid = said.setuid.or(own.setuid);
        drop(own);
        remember(&self.pool);
        Ok(())
    }
    fn kept(&self) -> Kept {
        let Said { read_only, atime, devices, exec, setuid } = self.said();
        let dir = self.dir().to_path_buf();
        Kept { object: self.object, guid: self.guid, dir, read_only, atime, devices, exec, setuid }
    }
    /// Where what it shows belongs by now, if that is still there.
    fn home(&self, pool: &Pool) -> Outcome<Option<Home>> {
        home_of(pool, self.object, self.guid)
    }
}

/// What is known of file system `name`; `None` of what has no files.
pub fn home(pool: &Pool, name: &str) -> Outcome<Option<Home>> {
    let (io, dsl) = (pool.io(), &pool.dsl);
    let r = dsl.lookup_head(io, name).map_err(|e| crate::zfs::cannot("open", name, &e))?;
    if dsl.kind(io, r)? != Kind::Filesystem {
        return Ok(None);
    }
    let row = |prop: &str| -> Outcome<(String, Source)> {
        Ok(dsl.prop(io, name, prop)?.map_or_else(|| (String::new(), Source::None), |p| (p.value, p.source)))
    };
    let (mountpoint, source) = row("mountpoint")?;
    let ds = dsl.dataset(io, r.obj)?;
    Ok(Some(Home {
        name: name.into(),
        object: r.obj,
        guid: ds.guid,
        mountpoint,
        source,
        canmount: row("canmount")?.0,
        overlay: row("overlay")?.0 != "off",
        unlocked: dsl.key_loaded(io, r.dir)?,
        partial: ds.is_inconsistent(),
        mounted: dsl.busy().is_mounted(r.obj),
    }))
}

/// What is known of the file system or snapshot that is dataset `object`; `None` if that is another's by now.
fn home_of(pool: &Pool, object: u64, guid: u64) -> Outcome<Option<Home>> {
    let (io, dsl) = (pool.io(), &pool.dsl);
    let Ok(name) = dsl.by_object(io, object).and_then(|r| dsl.name(io, r)) else { return Ok(None) };
    let found = if name.contains('@') { snapshot(pool, &name)? } else { home(pool, &name)? };
    Ok(found.filter(|h| h.guid == guid))
}

/// What is known of snapshot `name`, which belongs nowhere; `None` of a volume's.
pub fn snapshot(pool: &Pool, name: &str) -> Outcome<Option<Home>> {
    let (io, dsl) = (pool.io(), &pool.dsl);
    let r = dsl.lookup_snapshot(io, name).map_err(|e| crate::zfs::cannot("open", name, &e))?;
    if dsl.kind(io, r)? != Kind::Snapshot {
        return Ok(None);
    }
    Ok(Some(Home {
        name: name.into(),
        object: r.obj,
        guid: dsl.dataset(io, r.obj)?.guid,
        mountpoint: "legacy".into(),
        source: Source::None,
        canmount: "noauto".into(),
        overlay: true,
        unlocked: dsl.key_loaded(io, r.dir)?,
        partial: false,
        mounted: dsl.busy().is_mounted(r.obj),
    }))
}

/// The file systems from `name` down, by where they belong: what lies in another comes after it. False if some cannot be
/// known for damage: that is told, and they are left out.
pub fn homes(pool: &Pool, name: &str) -> Outcome<(Vec<Home>, bool)> {
    let names = pool.dsl.descendants(pool.io(), name).map_err(|e| crate::zfs::cannot("open", name, &e))?;
    let (mut out, mut well) = (Vec::new(), true);
    for name in names.iter().filter(|n| !n.contains('%')) {
        match home(pool, name) {
            Ok(home) => out.extend(home),
            Err(f) => {
                eprintln!("{}", f.message);
                well = false;
            }
        }
    }
    out.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
    Ok((out, well))
}

impl Home {
    /// Its identity.
    pub fn guid(&self) -> u64 {
        self.guid
    }
    /// Whether it is not mounted when nobody asks for it by name.
    /// With `asking` its key is asked for first.
    pub fn stays_out(&self, asking: bool) -> bool {
        !self.mountpoint.starts_with('/')
            || self.canmount != "on"
            || !(self.unlocked || asking)
            || self.partial
            || self.mounted
    }

    /// Whether the directory it is mounted on goes with it: that of one that does not say itself where it belongs.
    fn dir_goes(&self) -> bool {
        matches!(self.source, Source::Default | Source::Inherited(_))
            && self.mountpoint.starts_with('/')
            && self.canmount != "off"
    }

    fn cannot_mount(what: &str, why: &dyn std::fmt::Display) -> Fail {
        Fail::new(format!("cannot mount '{what}': {why}"))
    }

    /// Mounts it at `dir`.
    pub fn mount_at(&self, owned: &Arc<Owned>, dir: &Path, how: How) -> Outcome {
        let real = crate::fuse::real_path(dir);
        let covered = closed::is_at(self.guid, &real);
        let dir = if covered { real } else { self.prepared(dir, how)? };
        // What is mounted in the directory would be hidden.
        let hidden: Vec<_> =
            all().into_iter().filter(|m| m.dir() != dir && m.dir().starts_with(&dir)).collect();
        unmount_all(hidden.clone(), false).map_err(|f| {
            Self::cannot_mount(
                &self.name,
                &format!("what is mounted in its directory is in use\n{}", f.message),
            )
        })?;
        closed::lift_inside(&dir);
        let mounted = self.put(owned, &dir, how, covered);
        if mounted.is_ok() {
            closed::mounted(self.guid, &dir);
        }
        closed::fill(&dir, &dir);
        again_all(&hidden);
        remember(owned.name());
        mounted
    }

    /// The directory `dir`, which is there and may be mounted on.
    fn prepared(&self, dir: &Path, how: How) -> Outcome<PathBuf> {
        let shown = dir.display().to_string();
        let cannot = Self::cannot_mount;
        if std::fs::symlink_metadata(dir).is_err() {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
            made.map_err(|e| cannot(&shown, &format!("failed to create mountpoint: {}", reason(&e))))?;
        }
        if !self.overlay && !how.overlay && !is_empty(dir) {
            return Err(cannot(&shown, &"directory is not empty"));
        }
        let dir = dir.canonicalize().map_err(|e| cannot(&self.name, &reason(&e)))?;
        if !Options::default().allow_other && is_fuse(&dir) {
            let why = format!(
                "{shown} lies in another mount of yours, which only you may enter, and not the program that mounts for you; \
                 put it elsewhere ('zfs set mountpoint=DIR {}'), or have root add the line user_allow_other to /etc/fuse.conf",
                self.name
            );
            return Err(cannot(&self.name, &why));
        }
        Ok(dir)
    }

    /// Mounts it at `dir`: unseen first, where that is closed for it or where something in it is to be.
    fn put(&self, owned: &Arc<Owned>, dir: &Path, how: How, covered: bool) -> Outcome {
        if let Some(folder) = stages().filter(|_| covered || closed::lacks_cover(dir)) {
            let cannot = |e: io::Error| Self::cannot_mount(&self.name, &reason(&e));
            let mut stage = Stage::new(&folder).map_err(cannot)?;
            let spot = stage.spot().map_err(cannot)?;
            self.serve(owned, &spot, dir, how)?;
            closed::fill(dir, &spot);
            return stage.show(&spot, dir).map_err(cannot);
        }
        if covered {
            closed::lift(self.guid);
        }
        self.serve(owned, dir, dir, how)
    }

    /// Mounts it at `path`, from where it comes to `dir`.
    fn serve(&self, owned: &Arc<Owned>, path: &Path, dir: &Path, how: How) -> Outcome {
        let mut said = how.said;
        if owned.is_read_only() {
            // As every mount of such a pool (`zfs_mount_at`, libzfs_mount.c).
            said.read_only = Some(true);
        }
        let options = Options { said, ..Options::default() };
        if std::fs::symlink_metadata(path).is_err() {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        }
        let what = What::Dataset(self.name.clone());
        let mounted = served(|| icecore_fuse::mount(Arc::clone(owned.shared()), &what, path, &options));
        let mounted = mounted.map_err(|e| match e {
            MountError::Fuse(e) => Self::cannot_mount(&self.name, &reason(&e)),
            e => Self::cannot_mount(&self.name, &e),
        })?;
        let mount = Arc::new(Mount {
            pool: owned.name().to_string(),
            pool_guid: owned.guid_of_now(),
            object: self.object,
            guid: self.guid,
            said: Mutex::new(said),
            mounted: mounted.at(dir),
        });
        lock(&MOUNTS).push(mount);
        Ok(())
    }
    /// Mounts it where it belongs.
    pub fn mount(&self, owned: &Arc<Owned>, how: How) -> Outcome {
        self.mount_at(owned, Path::new(&self.mountpoint), how)
    }
}

/// Runs `f`, which starts threads that stay, where they keep no folder of the caller's in use.
fn served<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Ok(root) = std::fs::File::open("/") {
                let _ = icecore_service::server::settle(&root.into(), 0o022);
            }
            f()
        });
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn reason(e: &io::Error) -> String {
    match e.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::BUSY) => "mountpoint or dataset is busy".into(),
        Some(rustix::io::Errno::PERM) => "Insufficient privileges".into(),
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV) if !Path::new("/dev/fuse").exists() => {
            "FUSE is not available here: there is no /dev/fuse".into()
        }
        _ => crate::human::os_error(e),
    }
}

/// Whether `dir` lies in a file system that is mounted through FUSE.
fn is_fuse(dir: &Path) -> bool {
    const FUSE_SUPER_MAGIC: rustix::fs::FsWord = 0x6573_5546;
    rustix::fs::statfs(dir).is_ok_and(|s| s.f_type == FUSE_SUPER_MAGIC)
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

/// Mounts what is to be mounted of these by itself; every failure is told, and the rest goes on. Whether all went well.
pub fn mount_all(owned: &Arc<Owned>, homes: &[Home]) -> bool {
    let mut well = true;
    for home in homes.iter().filter(|h| !h.stays_out(false)) {
        if let Err(f) = home.mount(owned, How::default()) {
            eprintln!("{}", f.message);
            well = false;
        }
    }
    well
}

/// A new file system `name`: mounted, unless it is to stay out. What hinders that does not undo it.
pub fn created(name: &str) -> Outcome {
    if !automatic() {
        return Ok(());
    }
    let (owned, home) = {
        let pool = session::open(name, For::Read)?;
        let (Some(owned), Some(home)) = (pool.owned().cloned(), home(&pool, name)?) else { return Ok(()) };
        (owned, home)
    };
    if home.stays_out(false) {
        return Ok(());
    }
    match home.mount(&owned, How::default()) {
        Ok(()) => Ok(()),
        Err(f) if rustix::process::geteuid().is_root() => {
            Err(Fail::new(format!("{}\nfilesystem successfully created, but not mounted", f.message)))
        }
        Err(f) => {
            eprintln!("{}\nfilesystem successfully created, but not mounted", f.message);
            Ok(())
        }
    }
}

/// File systems of a pool that the service owns.
struct OwnedHomes {
    owned: Arc<Owned>,
    homes: Vec<Home>,
    /// None was left out.
    well: bool,
}

/// The file systems from `name` down and who owns their pool, if it is the service; the pool is let go.
fn owned_homes(name: &str) -> Outcome<Option<OwnedHomes>> {
    let pool = session::open(name, For::Read)?;
    let Some(owned) = pool.owned().cloned() else { return Ok(None) };
    let (homes, well) = homes(&pool, name)?;
    Ok(Some(OwnedHomes { owned, homes, well }))
}

/// Mounts what a receive made or changed from `name` down; but nothing where a stream alone says so.
pub fn received(name: &str) -> Outcome {
    if !automatic() {
        return Ok(());
    }
    let Some(OwnedHomes { owned, homes, .. }) = owned_homes(name)? else { return Ok(()) };
    let homes: Vec<Home> = homes.into_iter().filter(|h| h.source != Source::Received).collect();
    mount_all(&owned, &homes);
    Ok(())
}

/// Mounts what belongs mounted from `name` down.
pub fn settle_below(name: &str) -> Outcome<bool> {
    if !automatic() {
        return Ok(true);
    }
    let Some(OwnedHomes { owned, homes, well }) = owned_homes(name)? else { return Ok(true) };
    Ok(mount_all(&owned, &homes) && well)
}

/// Mounts `name`, whose mountpoint was set, and what inherits it from there, where it belongs mounted.
pub fn settle_heirs(name: &str) -> Outcome {
    if !automatic() {
        return Ok(());
    }
    let Some(OwnedHomes { owned, homes, .. }) = owned_homes(name)? else { return Ok(()) };
    let inside = |from: &str| from.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    let heir = |h: &Home| match &h.source {
        Source::Inherited(from) => !inside(from),
        Source::Default => true,
        _ => h.name == name,
    };
    mount_all(&owned, &homes.into_iter().filter(heir).collect::<Vec<_>>());
    Ok(())
}

/// Unmounts one. With `force` also what is in use or cannot be reached: its open files are cut off.
pub fn unmount(mount: &Mount, force: bool) -> Outcome {
    let dir = mount.dir().to_path_buf();
    closed::lift_inside(&dir);
    let gone = unmount_one(mount, force)
        .map_err(|why| Fail::new(format!("cannot unmount '{}': {why}", dir.display())));
    match gone {
        Ok(()) => icecore_fuse::stage::clear(&dir),
        Err(_) => closed::fill(&dir, &dir),
    }
    remember(&mount.pool);
    gone
}

fn unmount_one(mount: &Mount, force: bool) -> Result<(), String> {
    match icecore_fuse::unmount(mount.dir(), false) {
        Ok(()) => {}
        // What cannot be reached goes with what it lies in.
        Err(_) if force => drop(mount.mounted.cut_off()),
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => return Err("pool or dataset is busy".into()),
        // Somebody else was faster.
        Err(_) if mount.mounted.is_over_within(Duration::from_millis(200)) => {}
        Err(e) => return Err(reason(&e)),
    }
    if mount.mounted.is_over_within(END_MAX) { Ok(()) } else { Err("pool or dataset is busy".into()) }
}

/// Unmounts many, what lies in another first. All or, as far as it can be had again, none.
pub fn unmount_all(mut mounts: Vec<Arc<Mount>>, force: bool) -> Outcome {
    mounts.sort_by(|a, b| b.dir().cmp(a.dir()));
    let mut gone: Vec<Arc<Mount>> = Vec::new();
    for mount in mounts {
        if let Err(f) = unmount(&mount, force) {
            for mount in gone.iter().rev() {
                let _ = again(mount, None);
            }
            return Err(f);
        }
        gone.push(mount);
    }
    Ok(())
}

/// Mounts what was unmounted, where it was or elsewhere.
fn again(mount: &Mount, dir: Option<&Path>) -> Outcome {
    let record = state::find(&mount.pool)?.ok_or_else(|| session::no_pool(&mount.pool))?;
    let owned = pools::get(&record).map_err(|n| n.fail)?;
    let home = mount.home(&owned.shared().read())?;
    let Some(home) = home else { return Ok(()) };
    let how = How { overlay: true, said: mount.said() };
    home.mount_at(&owned, dir.unwrap_or(mount.dir()), how)
}

/// Mounts again what was unmounted for nothing.
pub fn again_all(mounts: &[Arc<Mount>]) {
    let mut mounts = mounts.to_vec();
    mounts.sort_by(|a, b| a.dir().cmp(b.dir()));
    for mount in mounts {
        if let Err(f) = again(&mount, None) {
            eprintln!("{}", f.message);
        }
    }
}

/// The mounts of `name` itself.
pub fn exactly(pool: &Pool, name: &str) -> Vec<Arc<Mount>> {
    let object = pool.dsl.lookup_head(pool.io(), name).map(|r| r.obj).ok();
    of_pool(pool.name()).into_iter().filter(|m| Some(m.object) == object).collect()
}

/// The directories of these mounts that go with what is mounted (`remove_mountpoint`, libzfs_mount.c).
pub fn dirs_of(pool: &Pool, mounts: &[Arc<Mount>]) -> Vec<PathBuf> {
    let goes = |m: &&Arc<Mount>| m.home(pool).ok().flatten().is_some_and(|home| home.dir_goes());
    mounts.iter().filter(goes).map(|m| m.dir().to_path_buf()).collect()
}

/// Removes them when nothing is mounted there any more, as far as they are empty. The pool must not be in hand.
pub fn remove_dirs(mut dirs: Vec<PathBuf>) {
    dirs.sort();
    for dir in dirs.iter().rev() {
        // Whatever hinders it, nobody misses anything.
        let _ = std::fs::remove_dir(dir);
    }
}

/// Holds on those of these that are snapshots in which somebody works where a mount shows them, below `.zfs/snapshot`: they are in use as
/// if each were mounted there, as OpenZFS does it.
pub fn visits(pool: &Pool, snaps: &[String]) -> Vec<Hold> {
    let mounts = of_pool(pool.name());
    if mounts.is_empty() {
        return Vec::new();
    }
    let objects = snaps.iter().filter_map(|s| Some(pool.dsl.lookup_snapshot(pool.io(), s).ok()?.obj));
    let visited = |object: &u64| mounts.iter().any(|m| m.mounted.is_visited(*object));
    objects.filter(visited).map(|object| pool.dsl.busy().mount(object)).collect()
}

/// What is so of `name` only while it is mounted as it is, where that is not what the property says.
pub fn temporary(pool: &Pool, name: &str, prop: &str) -> Option<bool> {
    if name.contains(['@', '#']) {
        return None;
    }
    exactly(pool, name).first()?.instead(prop)
}

/// The mounts of `name` and of all file systems below it.
pub fn below(pool: &Pool, name: &str) -> Vec<Arc<Mount>> {
    let (io, dsl) = (pool.io(), &pool.dsl);
    let inside = |m: &&Arc<Mount>| {
        let path = dsl.by_object(io, m.object).and_then(|r| dsl.name(io, r));
        m.pool == pool.name()
            && !m.is_snapshot()
            && path.is_ok_and(|p| {
                p.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    };
    all().iter().filter(inside).cloned().collect()
}

/// Mounts that step aside while a command changes where file systems belong: unmounted before, and mounted again after,
/// where they belong then.
#[derive(Default)]
pub struct Aside {
    mounts: Vec<Away>,
}

/// A mount that stepped aside.
struct Away {
    mount: Arc<Mount>,
    /// Only who mounted it knew where.
    legacy: bool,
    /// Its directory goes when it is elsewhere.
    dir_goes: bool,
}

impl Away {
    fn of(mount: Arc<Mount>, pool: &Pool) -> Self {
        let home = mount.home(pool).ok().flatten();
        let legacy = home.as_ref().is_some_and(|h| h.mountpoint == "legacy");
        Self { mount, legacy, dir_goes: home.is_some_and(|h| h.dir_goes()) }
    }
}

impl Aside {
    /// Unmounts what is mounted of `name` and below, the pool not in hand.
    pub fn of(name: &str) -> Outcome<Self> {
        if !pools::serving() {
            return Ok(Self::default());
        }
        let pool = session::open(name, For::Read)?;
        let away = Self::find(&pool, below(&pool, name));
        drop(pool);
        away.go()
    }
    /// Unmounts `name`, and first what is mounted of those below in its directories.
    pub fn inside(name: &str) -> Outcome<Self> {
        if !pools::serving() {
            return Ok(Self::default());
        }
        let pool = session::open(name, For::Read)?;
        let (own, mut mounts) = (exactly(&pool, name), below(&pool, name));
        mounts.retain(|m| own.iter().any(|o| m.dir().starts_with(o.dir())));
        let away = Self::find(&pool, mounts);
        drop(pool);
        away.go()
    }
    fn find(pool: &Pool, mounts: Vec<Arc<Mount>>) -> Self {
        Self { mounts: mounts.into_iter().map(|m| Away::of(m, pool)).collect() }
    }
    fn go(self) -> Outcome<Self> {
        unmount_all(self.mounts.iter().map(|a| Arc::clone(&a.mount)).collect(), false)?;
        Ok(self)
    }
    /// What is mounted of these and below them, to step aside when `pool` is let go.
    pub fn of_these(pool: &Pool, names: &[String]) -> Self {
        let mut mounts: Vec<_> = names.iter().flat_map(|name| below(pool, name)).collect();
        mounts.sort_by(|a, b| b.dir().cmp(a.dir()));
        mounts.dedup_by(|a, b| Arc::ptr_eq(a, b));
        Self::find(pool, mounts)
    }
    /// Unmounts what another found; what is in use stays where it is, and the first of that is told.
    pub fn also(&mut self, other: Self) -> Outcome {
        let mut busy = Ok(());
        for away in other.mounts {
            match unmount(&away.mount, false) {
                Ok(()) => self.mounts.push(away),
                Err(f) => busy = busy.and(Err(f)),
            }
        }
        busy
    }
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty()
    }
    /// Mounts again, where they belong by now, those that may be; the ones that are there already stay.
    pub fn back(self) -> Outcome {
        let mut mounts = self.mounts;
        mounts.sort_by(|a, b| a.mount.dir().cmp(b.mount.dir()));
        let (mut failed, mut left) = (None, Vec::new());
        for Away { mount, legacy, dir_goes } in mounts {
            let belongs = {
                let Some(record) = state::find(&mount.pool)? else { continue };
                let owned = pools::get(&record).map_err(|n| n.fail)?;
                mount.home(&owned.shared().read())?
            };
            if dir_goes && belongs.as_ref().is_none_or(|h| Path::new(&h.mountpoint) != mount.dir()) {
                left.push(mount.dir().to_path_buf());
            }
            let Some(home) = belongs.filter(|h| !h.mounted && h.canmount != "off" && h.mountpoint != "none")
            else {
                continue;
            };
            if home.mountpoint == "legacy" && !legacy {
                continue;
            }
            let dir = (home.mountpoint != "legacy").then(|| PathBuf::from(&home.mountpoint));
            if let Err(f) = again(&mount, dir.as_deref()) {
                failed.get_or_insert(f);
            }
        }
        remove_dirs(left);
        failed.map_or(Ok(()), Err)
    }
}

/// After properties of `name` changed: mounts follow `readonly`, also those that were told otherwise, if it is among them.
pub fn follow(name: &str, read_only_is_new: bool) -> Outcome {
    if !pools::serving() {
        return Ok(());
    }
    let changed: Vec<(Arc<Mount>, bool)> = {
        let pool = session::open(name, For::Read)?;
        let (io, dsl) = (pool.io(), &pool.dsl);
        let of = |m: Arc<Mount>| {
            let r = dsl.by_object(io, m.object).ok()?;
            let property = dsl.prop_number(io, r, "readonly").ok()? != 0;
            if read_only_is_new {
                lock(&m.said).read_only = None;
            }
            let read_only = m.said().read_only.unwrap_or(property);
            (m.mounted.is_writable() == read_only).then_some((m, read_only))
        };
        below(&pool, name).into_iter().filter(|m| m.mounted.is_of_head()).filter_map(of).collect()
    };
    for (mount, read_only) in changed {
        let said = Said { read_only: Some(read_only), ..Said::default() };
        mount.mounted.remount(&said).map_err(|e| {
            Fail::new(format!("property may be set but unable to remount filesystem: {}", reason(&e)))
        })?;
    }
    Ok(())
}

/// The root pointers of the heads of this pool that are mounted.
pub fn roots(pool: &Pool) -> BTreeMap<u64, Blkptr> {
    let root = |m: &Arc<Mount>| Some((m.object, pool.dsl.dataset(pool.io(), m.object).ok()?.bp));
    of_pool(pool.name()).iter().filter_map(root).collect()
}

/// After a command let the pool go: tells the kernel to forget what it has of heads that the command changed.
pub fn changed(pool: &str, before: &BTreeMap<u64, Blkptr>, now: &BTreeMap<u64, Blkptr>) {
    for mount in of_pool(pool).iter().filter(|m| before.get(&m.object) != now.get(&m.object)) {
        mount.mounted.forget_caches();
    }
}

/// The devices of a pool failed: its mounts let it go, and answer errors.
pub fn detach(guid: u64) {
    for mount in lock(&MOUNTS).iter().filter(|m| m.is_of(guid)) {
        mount.mounted.detach();
    }
}

/// A pool was opened anew: its mounts go on with it.
pub fn attach(guid: u64, shared: &Arc<Shared>) {
    for mount in all().iter().filter(|m| m.is_of(guid) && !m.mounted.is_of(shared)) {
        mount.mounted.attach(Arc::clone(shared));
    }
}

/// Whether `path` lies in a mount of pool `name`, or has one in it: reading or writing there with the pool in hand would wait
/// for itself.
fn meets(path: &Path, name: &str) -> Option<PathBuf> {
    let mounts = of_pool(name);
    if mounts.is_empty() {
        return None;
    }
    let path = std::path::absolute(path).ok()?;
    // As far as it is there: what is to be made lies where its parent lies.
    let real = path.ancestors().find_map(|p| Some((p.canonicalize().ok()?, p)));
    let real =
        real.map_or(path.clone(), |(real, p)| real.join(path.strip_prefix(p).unwrap_or(Path::new(""))));
    mounts
        .iter()
        .map(|m| m.dir())
        .find(|dir| real.starts_with(dir) || dir.starts_with(&real))
        .map(Path::to_path_buf)
}

/// Refuses to read or write at `path` with pool `name` in hand, where that would wait for itself.
pub fn refuse(path: &Path, name: &str) -> Outcome {
    match meets(path, name) {
        Some(dir) => Err(Fail::new(format!(
            "{}: a file system of pool '{name}' is mounted at {}: this command has the pool in hand, and would wait for itself\n\
             copy between mounted file systems with cp(1), or unmount it first",
            path.display(),
            dir.display()
        ))),
        None => Ok(()),
    }
}

fn file(pool: &str) -> Outcome<PathBuf> {
    Ok(state::folder()?.join("mounts").join(format!("{pool}.json")))
}

/// Where mounts are put together before they are seen; `None` for those who are not root.
fn stages() -> Option<PathBuf> {
    let root = rustix::process::geteuid().is_root();
    state::folder().ok().filter(|_| root).map(|folder| folder.join("stage"))
}

/// Writes down what is mounted of a pool, or would be. A failure costs no more than that a service that dies leaves dead mounts.
fn remember(pool: &str) {
    let mut kept: Vec<Kept> = of_pool(pool).iter().map(|m| m.kept()).collect();
    kept.extend(closed::kept(pool));
    let Ok(path) = file(pool) else { return };
    let write = || -> io::Result<()> {
        if kept.is_empty() {
            return std::fs::remove_file(&path);
        }
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let temp = path.with_extension("new");
        std::fs::write(&temp, serde_json::to_string(&kept)?)?;
        std::fs::rename(&temp, &path)
    };
    if let Err(e) = write()
        && e.kind() != io::ErrorKind::NotFound
    {
        eprintln!("{}: {e}", path.display());
    }
}

/// Tells the caller what there is to be told.
pub fn tell() {
    for line in std::mem::take(&mut *lock(&NEWS)) {
        eprintln!("{line}");
    }
}

/// Before the service ends: everything is written, and the mounts are detached. They stay written down.
pub fn close() {
    closed::open_all();
    let mut mounts = all();
    mounts.sort_by(|a, b| b.dir().cmp(a.dir()));
    for mount in &mounts {
        let _ = unmount_one(mount, true);
        icecore_fuse::stage::clear(mount.dir());
    }
    lock(&MOUNTS).clear();
}
