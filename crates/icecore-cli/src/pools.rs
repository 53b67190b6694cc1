//! The pools that the service holds open, for all its callers.
//!
//! In a process of its own there are none: each command opens the pool alone, and `session` does that.
//!
//! Invariants:
//! 1. An imported pool is opened by the first command that needs it and stays open until it is exported, or fails. Of one
//!    that is imported for reading only, nothing is ever written, and others may read its devices too.
//! 2. Whoever changed a pool and did not commit leaves it, by dropping its guard, as its last commit left it.
//! 3. A pool whose devices failed is let go at once: its commands fail without touching the devices, until `zpool clear`
//!    or `zpool import` opens it again.
//! 4. Locks are taken in this order: a slot, a pool, a table of loans. A thread that holds one pool waits for another only
//!    for a limited time.

use crate::fail::{Fail, Outcome};
use crate::mounts;
use crate::session::{self, NotOpen, Why};
use crate::state::Imported;
use icecore_dsl::Hold;
use icecore_format::{Guid, Txg};
use icecore_pool::shared::{ReadGuard, WriteGuard};
use icecore_pool::{Pool, PoolError, Shared};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a command that holds one pool waits for another.
const SECOND_POOL_WAIT: Duration = Duration::from_secs(10);

/// How long an export waits for those who had just looked at the pool.
const LAST_MAX: Duration = Duration::from_secs(2);

static SERVING: AtomicBool = AtomicBool::new(false);
static POOLS: Mutex<BTreeMap<String, Arc<Mutex<Slot>>>> = Mutex::new(BTreeMap::new());

/// What there is of an imported pool.
#[derive(Default)]
enum Slot {
    #[default]
    Closed,
    Open(Arc<Owned>),
    /// Why.
    Failed(String),
}

/// A pool that this process owns.
pub struct Owned {
    /// As it was when it was opened.
    record: Imported,
    /// Its identity, which may change; mounts know it too.
    guid: Arc<AtomicU64>,
    shared: Arc<Shared>,
    /// Sends and receives under way.
    streams: AtomicUsize,
    /// Why nobody may use it any more, once that is so.
    over: Mutex<Option<Over>>,
    /// Keys loaded for as long as commands run, by root directory: how many.
    loans: Mutex<BTreeMap<u64, usize>>,
    /// The thread of its scans.
    scan: crate::scan::Run,
}

#[derive(Clone)]
enum Over {
    Exported,
    /// Somebody needs its devices alone, for a while.
    Closed,
    Failed(String),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on this process owns the pools it opens.
pub fn serve() {
    SERVING.store(true, Ordering::Relaxed);
}

/// Whether this process is the service.
pub fn serving() -> bool {
    SERVING.load(Ordering::Relaxed)
}

fn slot(name: &str) -> Arc<Mutex<Slot>> {
    Arc::clone(lock(&POOLS).entry(name.to_string()).or_default())
}

/// The pool of `record`, opened if it is not yet.
pub fn get(record: &Imported) -> Result<Arc<Owned>, NotOpen> {
    let slot = slot(&record.name);
    let mut slot = lock(&slot);
    match &*slot {
        Slot::Open(owned) if [owned.guid(), owned.record.guid].contains(&record.guid) => {
            return Ok(Arc::clone(owned));
        }
        Slot::Failed(why) => return Err(suspended(&record.name, why)),
        _ => {}
    }
    let (access, what_for) = session::by_owner(record);
    let owned = Owned::new(record, session::open_alone(record, access, what_for)?);
    *slot = Slot::Open(Arc::clone(&owned));
    mounts::attach(record.guid, &owned.shared);
    owned.begun();
    Ok(owned)
}

/// Takes a pool that a command made or imported: its devices stay open, so that it is here though their names
/// may go, as with a kernel. In a process of its own the pool is closed.
pub fn adopt(record: &Imported, mut pool: Pool) -> Outcome {
    if !serving() {
        return Ok(());
    }
    let spec = session::open_spec(record, pool.devices(), session::by_owner(record).1);
    pool.reopen(spec)?;
    session::dress(&mut pool, record);
    let owned = Owned::new(record, pool);
    *lock(&slot(&record.name)) = Slot::Open(Arc::clone(&owned));
    owned.begun();
    Ok(())
}

fn suspended(name: &str, why: &str) -> NotOpen {
    let fail = Fail::new(format!(
        "pool I/O is currently suspended\n({why})\nattach the device again, then run 'zpool clear {name}'"
    ));
    NotOpen { why: Why::Suspended, fail }
}

/// Opens a pool again whose devices had failed. False where there was nothing to do.
pub fn clear(record: &Imported) -> Outcome<bool> {
    {
        let slot = slot(&record.name);
        let mut slot = lock(&slot);
        if !matches!(*slot, Slot::Failed(_)) {
            return Ok(false);
        }
        *slot = Slot::Closed;
    }
    match get(record) {
        Ok(_) => Ok(true),
        Err(n) => {
            *lock(&slot(&record.name)) = Slot::Failed(n.fail.message.clone());
            Err(n.fail)
        }
    }
}

/// Marks a pool exported on its devices, if it is written to at all, and lets it go.
pub fn export(record: &Imported, force: bool) -> Outcome {
    leave(record, Pool::mark_exported, force)
}

/// Marks a pool destroyed on its devices and lets it go.
pub fn destroy(record: &Imported, force: bool) -> Outcome {
    leave(record, Pool::mark_destroyed, force)
}

/// Gives a pool another identity, while its file systems stay mounted and its keys loaded.
pub fn reguid(record: &Imported, guid: Guid) -> Outcome {
    let owned = get(record).map_err(|n| n.fail)?;
    let mut pool = owned.write()?;
    // A stream opens its pool by the identity it began with.
    if owned.streams.load(Ordering::SeqCst) > 0 {
        return Err(Fail::new("pool is busy"));
    }
    pool.note_command(crate::caller::command_line());
    pool.set_guid(guid)?;
    pool.commit().inspect_err(|e| owned.fail(&e.to_string()))?;
    owned.guid.store(guid.0, Ordering::SeqCst);
    Ok(())
}

fn leave(
    record: &Imported,
    mark: impl FnOnce(&mut Pool) -> icecore_pool::Result<Txg>,
    force: bool,
) -> Outcome {
    let owned = match get(record) {
        Ok(owned) => owned,
        // Nothing is to be written, so its devices need not be there.
        Err(_) if record.readonly => {
            forget(&record.name);
            return Ok(());
        }
        Err(n) => return Err(n.fail),
    };
    if owned.streams.load(Ordering::SeqCst) > 0 {
        return Err(Fail::new("pool is busy"));
    }
    let mounts = mounts::of_pool(&record.name);
    let dirs = mounts::dirs_of(&owned.shared.read(), &mounts);
    mounts::unmount_all(mounts, force)?;
    let mut guard = owned.unused()?;
    if !record.readonly {
        guard.note_command(crate::caller::command_line());
        mark(&mut guard).map_err(|e| {
            owned.fail(&e.to_string());
            Fail::new(e.to_string())
        })?;
    }
    *lock(&owned.over) = Some(Over::Exported);
    drop(guard);
    crate::scan::stop(&owned);
    forget(&record.name);
    owned.wait_for_last();
    mounts::remove_dirs(dirs);
    Ok(())
}

/// Closes a pool that is imported for reading only, for who needs its devices alone. Whoever comes after that opens it again.
pub fn close_for_repair(record: &Imported) -> Outcome {
    let slot = slot(&record.name);
    let mut slot = lock(&slot);
    let Slot::Open(owned) = &*slot else { return Ok(()) };
    let guard = owned.unused()?;
    if guard.dsl.has_keys() {
        return Err(Fail::new("keys are loaded, which would be forgotten: 'zfs unload-key -a' first"));
    }
    *lock(&owned.over) = Some(Over::Closed);
    drop(guard);
    owned.wait_for_last();
    *slot = Slot::Closed;
    Ok(())
}

/// Lets a pool go without a word to its devices.
pub fn forget(name: &str) {
    mounts::closed::forget(name, |_, _| true);
    let slot = lock(&POOLS).remove(name);
    if let Some(Slot::Open(owned)) = slot.as_deref().map(|slot| std::mem::take(&mut *lock(slot))) {
        mounts::detach(owned.guid());
    }
}

/// Whether a pool's devices failed.
pub fn is_failed(name: &str) -> bool {
    matches!(&*lock(&slot(name)), Slot::Failed(_))
}

/// Lets a pool go that cannot be exported, and cuts its mounts off.
pub fn abandon(name: &str) -> Outcome {
    let unmounted = mounts::unmount_all(mounts::of_pool(name), true);
    forget(name);
    unmounted
}

/// Lets all pools go: their devices are closed when this returns. Those with a scrub under way know how far it is.
pub fn close() {
    mounts::close();
    let slots: Vec<_> = std::mem::take(&mut *lock(&POOLS)).into_values().collect();
    for slot in slots {
        let Slot::Open(owned) = std::mem::take(&mut *lock(&slot)) else { continue };
        crate::scan::stop(&owned);
        if let Ok(mut pool) = owned.write()
            && pool.is_scanning()
        {
            // What cannot be written now is done again.
            let _ = pool.scan_save();
        }
    }
}

/// Makes durable what mounts have changed in all pools.
pub fn commit() {
    let slots: Vec<_> = lock(&POOLS).values().cloned().collect();
    for slot in slots {
        let owned = match &*lock(&slot) {
            Slot::Open(owned) => Arc::clone(owned),
            Slot::Closed | Slot::Failed(_) => continue,
        };
        // Who asked for it to be durable is told of a failure; here nobody waits.
        let _ = owned.shared.commit_files();
    }
}

/// The pools that are open, and those that failed with the reason.
pub fn all() -> Vec<(String, Option<String>)> {
    let slots: Vec<_> = lock(&POOLS).iter().map(|(n, s)| (n.clone(), Arc::clone(s))).collect();
    let of = |(name, slot): (String, Arc<Mutex<Slot>>)| match &*lock(&slot) {
        Slot::Open(_) => Some((name, None)),
        Slot::Failed(why) => Some((name, Some(why.clone()))),
        Slot::Closed => None,
    };
    slots.into_iter().filter_map(of).collect()
}

impl Owned {
    fn new(record: &Imported, mut pool: Pool) -> Arc<Self> {
        // What cannot be brought up to date stays away, as it was.
        let _ = pool.resilver_returned();
        let shared = Shared::new(pool);
        let guid = Arc::new(AtomicU64::new(record.guid));
        let (own, of_now) = (record.clone(), Arc::clone(&guid));
        shared.set_abandon(move |pool| {
            let own = Imported { guid: of_now.load(Ordering::SeqCst), ..own.clone() };
            let spec = session::open_spec(&own, pool.devices(), session::by_owner(&own).1);
            if let Err(e) = pool.reopen(spec) {
                pool.suspend(&e.to_string());
            }
        });
        Arc::new(Self {
            record: record.clone(),
            guid,
            shared,
            streams: AtomicUsize::new(0),
            over: Mutex::new(None),
            loans: Mutex::new(BTreeMap::new()),
            scan: crate::scan::Run::default(),
        })
    }
    /// What goes on behind the commands begins.
    fn begun(self: &Arc<Self>) {
        if !self.is_read_only() {
            crate::scan::go_on(self, None);
        }
    }
    /// Whether it is imported for reading only.
    pub fn is_read_only(&self) -> bool {
        self.record.readonly
    }
    /// The pool, if nothing uses it. Nobody begins to: who waits for it finds it gone.
    fn unused(&self) -> Outcome<WriteGuard> {
        let guard = self.write()?;
        if self.streams.load(Ordering::SeqCst) > 0 || !guard.dsl.busy().all().is_empty() {
            return Err(Fail::new("pool is busy"));
        }
        Ok(guard)
    }
    /// Whoever looked at it last lets its devices go.
    fn wait_for_last(&self) {
        let until = Instant::now() + LAST_MAX;
        while Arc::strong_count(&self.shared) > 1 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    /// Its name.
    pub fn name(&self) -> &str {
        &self.record.name
    }
    /// Its identity.
    pub fn guid(&self) -> u64 {
        self.guid.load(Ordering::SeqCst)
    }
    /// The same for those who must follow when it changes.
    pub fn guid_of_now(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.guid)
    }
    /// Its record, with the identity it has now.
    fn now(&self) -> Imported {
        Imported { guid: self.guid(), ..self.record.clone() }
    }
    /// The thread of its scans.
    pub fn scan(&self) -> &crate::scan::Run {
        &self.scan
    }
    /// The pool for reading. What mounts have changed is there for all to see.
    pub fn read(&self) -> Outcome<ReadGuard> {
        if self.shared.has_changes() && !crate::caller::holds_any() {
            // Where that fails, whoever changes the pool is told.
            let _ = self.shared.commit_files();
        }
        let guard = if crate::caller::holds_any() {
            self.shared.read_within(SECOND_POOL_WAIT).ok_or_else(|| self.taken())?
        } else {
            self.shared.read()
        };
        self.check()?;
        Ok(guard)
    }
    /// The pool for changing it.
    pub fn write(&self) -> Outcome<WriteGuard> {
        let guard = if crate::caller::holds_any() {
            self.shared.write_within(SECOND_POOL_WAIT).ok_or_else(|| self.taken())?
        } else {
            self.shared.write()
        };
        self.check()?;
        match guard.io().suspended().map(String::from) {
            // A commit of what mounts had changed failed.
            Some(why) => {
                drop(guard);
                self.fail(&why);
                Err(suspended(&self.record.name, &why).fail)
            }
            None => Ok(guard),
        }
    }
    fn taken(&self) -> Fail {
        Fail::new(format!("pool '{}' is busy: another command has it", self.record.name))
    }
    fn check(&self) -> Outcome {
        match lock(&self.over).clone() {
            None => Ok(()),
            Some(Over::Exported) => Err(session::no_pool(&self.record.name)),
            Some(Over::Closed) => Err(self.taken()),
            Some(Over::Failed(why)) => Err(suspended(&self.record.name, &why).fail),
        }
    }
    /// What others may share with it: mounts.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
    /// Whether somebody waits for the pool.
    pub fn wanted(&self) -> bool {
        self.shared.wanted()
    }
    /// What a guard leaves behind: nothing that is not committed.
    pub fn settle(&self, pool: &mut Pool) {
        pool.note_command(None);
        if let Some(why) = pool.io().suspended() {
            let why = why.to_string();
            self.fail(&why);
        } else if pool.is_dirty() {
            // The reason is kept with the pool; whoever comes next is told.
            let _ = self.reopen(pool);
        }
    }
    /// Takes the pool back to its last commit.
    pub fn reopen(&self, pool: &mut Pool) -> Result<(), PoolError> {
        let spec = session::open_spec(&self.now(), pool.devices(), session::by_owner(&self.record).1);
        pool.reopen(spec).inspect_err(|e| {
            pool.suspend(&e.to_string());
            self.fail(&e.to_string());
        })
    }
    fn fail(&self, why: &str) {
        let first = lock(&self.over).replace(Over::Failed(why.to_string())).is_none();
        if first {
            *lock(&slot(&self.record.name)) = Slot::Failed(why.to_string());
            mounts::detach(self.guid());
        }
    }
    /// Something long begins: the pool is not exported before it ends.
    pub fn begin(self: &Arc<Self>) -> Stream {
        self.streams.fetch_add(1, Ordering::SeqCst);
        Stream(Arc::clone(self))
    }
    /// The key of the root directory `root` was loaded for one command (`fresh`), or is used by another.
    pub fn lend(self: &Arc<Self>, root: u64, fresh: bool) -> Option<Loan> {
        let mut loans = lock(&self.loans);
        if !fresh && !loans.contains_key(&root) {
            return None; // Loaded to stay.
        }
        *loans.entry(root).or_default() += 1;
        Some(Loan { owned: Arc::clone(self), root })
    }
    /// The key of `root` stays loaded. True if it was loaded for a command only.
    pub fn keep(&self, root: u64) -> bool {
        lock(&self.loans).remove(&root).is_some()
    }
    /// Whether the key of `root` is loaded for commands only.
    pub fn is_lent(&self, root: u64) -> bool {
        lock(&self.loans).contains_key(&root)
    }
}

/// A send or receive under way.
pub struct Stream(Arc<Owned>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A key that is loaded as long as this lives. Must be dropped without the pool's lock.
pub struct Loan {
    owned: Arc<Owned>,
    root: u64,
}

impl Drop for Loan {
    fn drop(&mut self) {
        let Ok(mut pool) = self.owned.write() else { return };
        let mut loans = lock(&self.owned.loans);
        let Some(n) = loans.get_mut(&self.root) else { return };
        *n -= 1;
        if *n > 0 {
            return;
        }
        loans.remove(&self.root);
        let (io, dsl) = pool.parts();
        for objset in dsl.unload_root(io, self.root).unwrap_or_default() {
            io.remove_key(objset);
        }
    }
}

/// Datasets in use, keys and the pool itself, kept for a stream.
#[derive(Default)]
pub struct Kept {
    /// Dropped first: a key in use is not unloaded.
    pub holds: Vec<Hold>,
    /// Keys that the stream needs.
    pub loans: Vec<Loan>,
    /// The pool is not exported.
    pub stream: Option<Stream>,
}
