//! One pool, many threads: the commands, mounts and streams that a service has at work.
//!
//! Invariants:
//! 1. Whoever changes the pool holds the [`WriteGuard`], and commits before letting it go, or leaves it exactly as it
//!    found it. So whoever takes it next finds nothing half done.
//! 2. The lock is fair: who waits gets it before who comes back. A long operation asks [`Shared::wanted`] between
//!    its steps and lets others pass.
//! 3. Nobody waits for a person, a pipe or another pool's lock while holding it.

use crate::Pool;
use parking_lot::{ArcRwLockReadGuard, ArcRwLockWriteGuard, RawRwLock, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The pool, for reading. Many at once.
pub type ReadGuard = ArcRwLockReadGuard<RawRwLock, Pool>;
/// The pool, for changing it. One at a time.
pub type WriteGuard = ArcRwLockWriteGuard<RawRwLock, Pool>;

/// A pool that several threads use.
pub struct Shared {
    pool: Arc<RwLock<Pool>>,
    waiting: AtomicUsize,
}

impl Shared {
    /// Takes a pool to be shared.
    #[must_use]
    pub fn new(pool: Pool) -> Arc<Self> {
        Arc::new(Self { pool: Arc::new(RwLock::new(pool)), waiting: AtomicUsize::new(0) })
    }
    /// The pool for reading; waits while somebody changes it.
    pub fn read(&self) -> ReadGuard {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = self.pool.read_arc();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        guard
    }
    /// The pool for changing it; waits for everybody else.
    pub fn write(&self) -> WriteGuard {
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
        guard
    }
    /// Whether somebody waits for the pool.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
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
