//! One pool, many threads: the commands, mounts and streams that a service has at work.
//!
//! Invariants:
//! 1. Commands change the pool one at a time. Whoever holds [`Shared::write`] commits before letting go, or leaves it
//!    exactly as it found it. So whoever takes it next finds nothing half done.
//! 2. Mounts change files, and only files, with [`Shared::files`]: each change is whole when the guard is let go, and is
//!    committed later: at most [`COMMIT_EVERY`] after the first, when there is much ([`WEIGHT_MAX`], `PoolInfo::at_once`), when it is asked for
//!    ([`Shared::commit_files`]), and always before [`Shared::write`] hands the pool out. So what a command takes back to
//!    the last commit is its own work and nobody else's.
//! 3. Those who ask for a commit at the same time share one.
//! 4. A change of files that broke off in its middle takes the pool back to its last commit ([`Shared::torn`]): what was
//!    changed since is lost, as after a power cut, and everybody who then asks for it to be durable is told so once.
//! 5. The lock is fair: who waits gets it before who comes back. A long operation asks [`Shared::wanted`] between
//!    its steps and lets others pass.
//! 6. Nobody waits for a person, a pipe, a file of a mount or another pool's lock while holding it.

use crate::Pool;
use crate::error::{PoolError, Result};
use icecore_env::Clock as Watch;
use parking_lot::{ArcRwLockReadGuard, ArcRwLockWriteGuard, RawRwLock, RwLock};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// The pool, for reading. Many at once.
pub type ReadGuard = ArcRwLockReadGuard<RawRwLock, Pool>;
/// The pool, for changing it. One at a time.
pub type WriteGuard = ArcRwLockWriteGuard<RawRwLock, Pool>;

/// Changes of files wait no longer than this for their commit (`zfs_txg_timeout`).
pub const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// Nor when they come to this weight.
pub const WEIGHT_MAX: u64 = 96 << 20;

type Abandon = Box<dyn Fn(&mut Pool) + Send + Sync>;

/// What a change of files brings.
#[derive(Clone, Copy, Default, Debug)]
pub struct Load {
    /// About the bytes that it holds in memory.
    pub weight: u64,
    /// Bytes of data that take new places ([`icecore_dmu::Objset::placed`]).
    pub placed: u64,
}

/// When the changes that wait began, and what they weigh.
#[derive(Default)]
struct Waiting {
    /// By the pool's clock.
    since: Option<u64>,
    load: Load,
    /// The pool is gone.
    over: bool,
}

/// What the thread that commits looks at.
#[derive(Default)]
struct Clock {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Clock {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pool that several threads use.
pub struct Shared {
    pool: Arc<RwLock<Pool>>,
    watch: Arc<dyn Watch>,
    waiting: AtomicUsize,
    /// Grows whenever a command may have changed anything.
    epoch: AtomicU64,
    /// Changes of files so far, and those of them that are durable.
    changes: AtomicU64,
    durable: AtomicU64,
    /// Times that changes of files were lost.
    losses: AtomicU64,
    clock: Arc<Clock>,
    abandon: OnceLock<Abandon>,
    committer: OnceLock<()>,
}

impl Shared {
    /// Takes a pool to be shared.
    #[must_use]
    pub fn new(pool: Pool) -> Arc<Self> {
        Arc::new(Self {
            watch: Arc::clone(&pool.io.env.clock),
            pool: Arc::new(RwLock::new(pool)),
            waiting: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            clock: Arc::default(),
            abandon: OnceLock::new(),
            committer: OnceLock::new(),
        })
    }
    /// How the pool is taken back to its last commit, for those who do not know its devices. The first one said counts.
    pub fn set_abandon(&self, abandon: impl Fn(&mut Pool) + Send + Sync + 'static) {
        let _ = self.abandon.set(Box::new(abandon));
    }
    /// The pool for reading; waits while somebody changes it. Of files it has what was committed, and in memory
    /// ([`icecore_dsl::Dsl::peek`]) what was changed since.
    pub fn read(&self) -> ReadGuard {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = self.pool.read_arc();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        guard
    }
    /// The pool for changing it; waits for everybody else. What mounts have changed is committed. Where that fails the
    /// pool is suspended, and takes no changes.
    pub fn write(&self) -> WriteGuard {
        let guard = self.files();
        self.taken(guard)
    }
    fn taken(&self, mut guard: WriteGuard) -> WriteGuard {
        let _ = self.commit_under(&mut guard);
        self.epoch.fetch_add(1, Ordering::SeqCst);
        guard
    }
    /// The pool for changing files of it, by somebody who then says so with [`Shared::changed`] or [`Shared::torn`].
    pub fn files(&self) -> WriteGuard {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = self.pool.write_arc();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        guard
    }
    /// The pool for reading, or `None` if that takes longer than `limit`: for a thread that holds another pool already.
    #[must_use]
    pub fn read_within(&self, limit: Duration) -> Option<ReadGuard> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = self.pool.try_read_arc_for(limit);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        guard
    }
    /// The pool for changing it, or `None` if that takes longer than `limit`.
    #[must_use]
    pub fn write_within(&self, limit: Duration) -> Option<WriteGuard> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = self.pool.try_write_arc_for(limit);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        guard.map(|guard| self.taken(guard))
    }
    /// Whether somebody waits for the pool.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Tells commands apart: as long as it stays the same, nobody but mounts has changed anything.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }
    /// Whether changes of files wait for their commit.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.changes.load(Ordering::SeqCst) > self.durable.load(Ordering::SeqCst)
    }
    /// How often changes of files were lost.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::SeqCst)
    }
    /// Files were changed under this guard; commits if much waits by now.
    pub fn changed(self: &Arc<Self>, pool: &mut Pool, load: Load) -> Result<()> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let heavy = {
            let mut waiting = self.clock.lock();
            waiting.load.weight = waiting.load.weight.saturating_add(load.weight);
            waiting.load.placed = waiting.load.placed.saturating_add(load.placed);
            if waiting.since.is_none() {
                waiting.since = Some(self.watch.monotonic_ns());
                self.clock.changed.notify_all();
            }
            waiting.load.weight > WEIGHT_MAX || waiting.load.placed > pool.dsl.info.at_once
        };
        self.committer.get_or_init(|| self.start());
        if heavy { self.commit_under(pool) } else { Ok(()) }
    }
    /// Makes durable what was changed before this was called.
    pub fn commit_files(&self) -> Result<()> {
        let until = self.changes.load(Ordering::SeqCst);
        if self.durable.load(Ordering::SeqCst) >= until {
            return Ok(());
        }
        let mut pool = self.files();
        // Another's commit may have taken it along.
        if self.durable.load(Ordering::SeqCst) >= until {
            return Ok(());
        }
        self.commit_under(&mut pool)
    }
    /// The same, by who has the pool already.
    pub fn commit_under(&self, pool: &mut Pool) -> Result<()> {
        if pool.io().suspended().is_some() {
            return if self.has_changes() {
                Err(PoolError::Invalid("the pool is suspended".into()))
            } else {
                Ok(())
            };
        }
        if self.has_changes() || pool.is_dirty() {
            pool.commit()?;
        }
        self.settled();
        Ok(())
    }
    fn settled(&self) {
        self.durable.store(self.changes.load(Ordering::SeqCst), Ordering::SeqCst);
        let mut waiting = self.clock.lock();
        (waiting.since, waiting.load) = (None, Load::default());
    }
    /// A change of files broke off half-way: takes the pool back to its last commit.
    pub fn torn(&self, pool: &mut Pool) {
        match self.abandon.get() {
            Some(abandon) => abandon(pool),
            None => pool.suspend("a change broke off half-way"),
        }
        if self.has_changes() {
            self.losses.fetch_add(1, Ordering::SeqCst);
        }
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.settled();
    }

    /// Starts the thread that commits in time. It ends with the pool.
    fn start(self: &Arc<Self>) {
        let (weak, clock, watch) = (Arc::downgrade(self), Arc::clone(&self.clock), Arc::clone(&self.watch));
        let spawned =
            std::thread::Builder::new().name("commit".into()).spawn(move || tick(&weak, &clock, &*watch));
        if let Err(e) = spawned {
            // Then commits come with fsync, with volume and with commands.
            eprintln!("no thread that commits in time: {e}");
        }
    }
}

fn tick(shared: &Weak<Shared>, clock: &Clock, watch: &dyn Watch) {
    let mut waiting = clock.lock();
    while !waiting.over {
        let waited = |since: u64| Duration::from_nanos(watch.monotonic_ns().saturating_sub(since));
        let left = waiting.since.map(|since| COMMIT_EVERY.saturating_sub(waited(since)));
        match left {
            Some(Duration::ZERO) => {
                drop(waiting);
                let Some(shared) = shared.upgrade() else { return };
                let failed = shared.commit_files().is_err();
                drop(shared);
                waiting = clock.lock();
                if failed {
                    // The pool is suspended; whoever uses it is told.
                    waiting.since = None;
                }
            }
            Some(left) => {
                let woken = clock.changed.wait_timeout(waiting, left);
                waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
            None => waiting = clock.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.clock.lock().over = true;
        self.clock.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_can_go_between_threads() {
        fn both<T: Send + Sync>() {}
        both::<Shared>();
    }
}
