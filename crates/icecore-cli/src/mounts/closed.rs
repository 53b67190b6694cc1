//! File systems that were mounted when a service ended and cannot be mounted now: their keys went with it, or their pool
//! cannot be opened.
//!
//! Programs go on using their directories. The ones below are other file systems', so they stay closed: each of these has a
//! cover ([`icecore_fuse::cover`]) in its place until it is mounted, unmounted, destroyed, exported, or belongs elsewhere.
//!
//! Invariants:
//! 1. None of them counts as mounted. All are written down as mounts are, so that the next service closes them too.
//! 2. One that lies in another that is not there has no cover; it gets it with the mount of that other, before that is seen.
//! 3. The list is not locked while a path is touched, and no pool is in hand then.

use super::{Home, Kept, lock, served};
use crate::fail::Outcome;
use crate::state;
use icecore_fuse::cover::{Cover, Lack};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

static CLOSED: Mutex<Vec<Arc<Closed>>> = Mutex::new(Vec::new());

/// A file system that is not there, though it was mounted.
pub struct Closed {
    pool: String,
    name: String,
    /// Property `mountpoint`, as it was seen last; empty if it was not.
    belongs: String,
    kept: Kept,
    lack: Lack,
    cover: Mutex<Option<Cover>>,
}

impl Closed {
    pub fn new(pool: &str, home: Option<&Home>, kept: Kept, lack: Lack) -> Self {
        let name = home.map_or(pool, |h| &h.name).to_string();
        let belongs = home.map(|h| h.mountpoint.clone()).unwrap_or_default();
        Self { pool: pool.into(), name, belongs, kept, lack, cover: Mutex::default() }
    }
    fn dir(&self) -> &Path {
        &self.kept.dir
    }
    fn is_covered(&self) -> bool {
        lock(&self.cover).is_some()
    }
    /// Closes its directory, which is at `path` for now. Where that lies in another that is closed it cannot be reached anyway.
    fn close(&self, path: &Path) {
        if self.is_covered() {
            return;
        }
        if std::fs::symlink_metadata(path).is_err() {
            let _ = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
        }
        match served(|| icecore_fuse::cover::cover(&self.name, path, self.lack)) {
            Ok(cover) => *lock(&self.cover) = Some(cover.at(self.dir())),
            Err(e) => eprintln!("{}: not closed: {e}", self.dir().display()),
        }
    }
    /// Opens its directory.
    fn lift(&self) {
        let cover = lock(&self.cover).take();
        match cover.map(Cover::lift) {
            None => {}
            Some(Ok(())) => icecore_fuse::stage::clear(self.dir()),
            Some(Err(e)) => eprintln!("{}: still closed: {e}", self.dir().display()),
        }
    }
}

/// Those that nobody took away.
fn all() -> Vec<Arc<Closed>> {
    let mut all = lock(&CLOSED);
    all.retain(|c| lock(&c.cover).as_ref().is_none_or(|cover| !cover.is_over()));
    all.clone()
}

fn inside(dir: &Path) -> impl Iterator<Item = Arc<Closed>> {
    let mut found: Vec<_> =
        all().into_iter().filter(|c| c.dir() != dir && c.dir().starts_with(dir)).collect();
    found.sort_by(|a, b| a.dir().cmp(b.dir()));
    found.into_iter()
}

/// Closes the directory of one, which is at `path` for now.
pub fn close(closed: Closed, path: &Path) {
    let closed = Arc::new(closed);
    closed.close(path);
    lock(&CLOSED).push(closed);
}

/// Notes one that lies in another that is closed.
pub fn note(closed: Closed) {
    lock(&CLOSED).push(Arc::new(closed));
}

/// What is written down of those of a pool.
pub fn kept(pool: &str) -> Vec<Kept> {
    all().iter().filter(|c| c.pool == pool).map(|c| c.kept.clone()).collect()
}

/// Whether the directory `dir` is closed for the file system `guid`.
pub fn is_at(guid: u64, dir: &Path) -> bool {
    all().iter().any(|c| c.kept.guid == guid && c.dir() == dir && c.is_covered())
}

/// Whether one belongs in `dir` that has no cover.
pub fn lacks_cover(dir: &Path) -> bool {
    inside(dir).any(|c| !c.is_covered())
}

/// Closes those in `dir`, which is at `path` for now.
pub fn fill(dir: &Path, path: &Path) {
    for closed in inside(dir) {
        // Those in others that are closed.
        let deeper = inside(dir).any(|c| c.dir() != closed.dir() && closed.dir().starts_with(c.dir()));
        if let (Ok(rest), false) = (closed.dir().strip_prefix(dir), deeper) {
            closed.close(&path.join(rest));
        }
    }
}

/// Takes the covers in `dir` away for a while, because what they lie in is unmounted.
pub fn lift_inside(dir: &Path) {
    inside(dir).for_each(|c| c.lift());
}

/// The cover of file system `guid` goes, because that comes.
pub fn lift(guid: u64) {
    all().iter().filter(|c| c.kept.guid == guid).for_each(|c| c.lift());
}

/// File system `guid` is mounted, at `dir`, in the place of its cover if that was there.
pub fn mounted(guid: u64, dir: &Path) {
    for closed in take(|c| c.kept.guid == guid) {
        if closed.dir() != dir {
            closed.lift();
        }
    }
}

/// Those of a pool that this is so of are unmounted for good. Whether there were any.
pub fn forget(pool: &str, which: impl Fn(u64, &Path) -> bool) -> bool {
    let taken = take(|c| c.pool == pool && which(c.kept.guid, c.dir()));
    taken.iter().rev().for_each(|c| c.lift());
    if !taken.is_empty() {
        super::remember(pool);
    }
    !taken.is_empty()
}

/// All are unmounted for good.
pub fn forget_all() {
    for closed in all() {
        forget(&closed.pool, |_, _| true);
    }
}

/// The same of that which is at `dir`. Whether there was one.
pub fn forget_at(dir: &Path) -> bool {
    let at = all().into_iter().find(|c| c.dir() == dir);
    at.is_some_and(|c| forget(&c.pool, |_, at| at == dir))
}

fn take(which: impl Fn(&Closed) -> bool) -> Vec<Arc<Closed>> {
    let mut taken = Vec::new();
    lock(&CLOSED).retain(|c| {
        let goes = which(c);
        if goes {
            taken.push(Arc::clone(c));
        }
        !goes
    });
    taken.sort_by(|a, b| a.dir().cmp(b.dir()));
    taken
}

/// Before the service ends: all directories are open. They stay written down.
pub fn open_all() {
    take(|_| true).iter().rev().for_each(|c| c.lift());
}

/// After a command: those that are gone are forgotten, and those that belong elsewhere by now are closed there.
pub fn follow() {
    for closed in all() {
        // While its pool cannot be asked it stays as it is.
        if let Ok(home) = home_now(&closed) {
            follow_one(&closed, home.as_ref());
        }
    }
}

/// Where one belongs by now; none if it is gone.
fn home_now(closed: &Closed) -> Outcome<Option<Home>> {
    let record = state::find(&closed.pool)?.ok_or_else(|| crate::session::no_pool(&closed.pool))?;
    let owned = crate::pools::get(&record).map_err(|n| n.fail)?;
    let pool = owned.read()?;
    super::home_of(&pool, closed.kept.object, closed.kept.guid)
}

fn follow_one(closed: &Arc<Closed>, home: Option<&Home>) {
    let goes = home.is_none_or(|h| h.mounted || h.canmount == "off" || h.mountpoint == "none");
    let moves = !goes && home.is_some_and(|h| h.mountpoint != closed.belongs);
    if !goes && !moves {
        return;
    }
    take(|c| std::ptr::eq(c, Arc::as_ptr(closed)));
    let place = home.filter(|_| moves).map(|h| (h, Path::new(&h.mountpoint)));
    match place {
        // Where it is was seen for the first time, or only who mounted it knew where.
        Some((h, dir)) if closed.belongs.is_empty() || !dir.is_absolute() || dir == closed.dir() => {
            let cover = Mutex::new(lock(&closed.cover).take());
            let (pool, kept) = (closed.pool.clone(), closed.kept.clone());
            let (name, belongs, lack) = (h.name.clone(), h.mountpoint.clone(), closed.lack);
            lock(&CLOSED).push(Arc::new(Closed { pool, name, belongs, kept, lack, cover }));
        }
        Some((h, dir)) => {
            closed.lift();
            let kept = Kept { dir: crate::fuse::real_path(dir), ..closed.kept.clone() };
            let path = kept.dir.clone();
            close(Closed::new(&closed.pool, Some(h), kept, closed.lack), &path);
        }
        None => closed.lift(),
    }
    super::remember(&closed.pool);
}
