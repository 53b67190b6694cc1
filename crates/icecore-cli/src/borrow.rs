//! A pool in the hands of one command.
//!
//! Invariants:
//! 1. A command that waits for a person or a pipe does so in [`Open::away`], or has turned what it holds into a [`Store`].
//! 2. What a command changed and did not commit is gone when its [`Open`] is dropped.

use crate::caller::Held;
use crate::fail::Outcome;
use crate::pools::{Kept, Loan, Owned};
use crate::session::For;
use icecore_dmu::{BlockStore, Fetch, ReadError, Want};
use icecore_format::{Blkptr, Bookmark, Txg};
use icecore_pool::Pool;
use icecore_pool::shared::{ReadGuard, WriteGuard};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// An open pool.
pub struct Open {
    pub(crate) has: Has,
    /// Given back after the pool itself.
    pub(crate) loans: Vec<Loan>,
}

/// Root pointers of heads that are mounted, when the pool was taken.
type Roots = std::collections::BTreeMap<u64, Blkptr>;

/// What there is of it.
pub enum Has {
    /// The pool itself, opened for this command alone.
    Own(Box<Pool>),
    /// The service's, for reading.
    Read(ReadGuard, Held, Arc<Owned>),
    /// The service's, for changing it.
    Write(WriteGuard, Held, Arc<Owned>, Roots),
    /// Nothing, for the moment.
    Nothing,
}

impl Has {
    fn read(owned: Arc<Owned>) -> Outcome<Self> {
        let guard = owned.read()?;
        Ok(Self::Read(guard, Held::new(&owned), owned))
    }
    fn write(owned: Arc<Owned>) -> Outcome<Self> {
        let mut guard = owned.write()?;
        guard.note_command(crate::caller::command_line());
        Ok(Self::writing(guard, owned))
    }
    /// The pool in hand, for changing it.
    pub fn writing(guard: WriteGuard, owned: Arc<Owned>) -> Self {
        let roots = crate::mounts::roots(&guard);
        Self::Write(guard, Held::new(&owned), owned, roots)
    }
    /// Lets go; what is left to come back with, and whether it was for writing.
    fn let_go(&mut self) -> Option<(Arc<Owned>, bool)> {
        match std::mem::replace(self, Self::Nothing) {
            own @ Self::Own(_) => {
                *self = own;
                None
            }
            Self::Nothing => None,
            Self::Read(guard, held, owned) => {
                drop(guard);
                drop(held);
                Some((owned, false))
            }
            Self::Write(mut guard, held, owned, before) => {
                owned.settle(&mut guard);
                let now = crate::mounts::roots(&guard);
                drop(guard);
                drop(held);
                // Without the pool: the kernel may wait for requests that wait for it.
                crate::mounts::changed(owned.name(), &before, &now);
                Some((owned, true))
            }
        }
    }
    fn take(&mut self, (owned, write): (Arc<Owned>, bool)) -> Outcome {
        *self = if write { Self::write(owned)? } else { Self::read(owned)? };
        Ok(())
    }
}

impl Open {
    /// The service's pool.
    pub fn of(owned: Arc<Owned>, what_for: For) -> Outcome<Self> {
        let has = if what_for == For::Read { Has::read(owned)? } else { Has::write(owned)? };
        Ok(Self { has, loans: Vec::new() })
    }
    /// The service's pool, if this is it.
    pub fn owned(&self) -> Option<&Arc<Owned>> {
        match &self.has {
            Has::Read(_, _, owned) | Has::Write(_, _, owned, _) => Some(owned),
            Has::Own(_) | Has::Nothing => None,
        }
    }
    /// The pool itself, if this command opened it for itself alone.
    pub fn into_own(mut self) -> Option<Pool> {
        match std::mem::replace(&mut self.has, Has::Nothing) {
            Has::Own(pool) => Some(*pool),
            other => {
                self.has = other;
                None
            }
        }
    }
    /// Does something that may take a person's time. Others may have changed the pool when it ends; what was not committed
    /// before is gone.
    pub fn away<T>(&mut self, f: impl FnOnce() -> T) -> Outcome<T> {
        let back = self.has.let_go();
        let done = f();
        if let Some(back) = back {
            self.has.take(back)?;
        }
        Ok(done)
    }
    /// Does something that changes what is in memory, and nothing on disk, whatever the pool was opened for.
    pub fn in_memory<T>(&mut self, f: impl FnOnce(&mut Pool) -> T) -> Outcome<T> {
        if !matches!(self.has, Has::Read(..)) {
            return Ok(f(self));
        }
        let Some((owned, _)) = self.has.let_go() else { return Ok(f(self)) };
        let done = f(&mut *owned.write()?);
        self.has = Has::read(owned)?;
        Ok(done)
    }
    /// Lets the pool go but for its blocks: those of the dataset objects `objects`, which stay as they are.
    pub fn into_store(mut self, objects: impl Iterator<Item = u64>) -> Store {
        let mut kept = Kept::default();
        if let Some(owned) = self.owned() {
            kept.stream = Some(owned.begin());
            kept.holds = objects.map(|obj| self.dsl.busy().hold(obj)).collect();
        }
        kept.loans = std::mem::take(&mut self.loans);
        match self.has.let_go() {
            Some((owned, _)) => Store { of: Of::Service(owned), _kept: kept },
            None => Store { of: Of::Own(self), _kept: kept },
        }
    }
}

impl Deref for Open {
    type Target = Pool;
    fn deref(&self) -> &Pool {
        match &self.has {
            Has::Own(pool) => pool,
            Has::Read(guard, ..) => guard,
            Has::Write(guard, ..) => guard,
            Has::Nothing => unreachable!("only while `away` has it"),
        }
    }
}

impl DerefMut for Open {
    fn deref_mut(&mut self) -> &mut Pool {
        match &mut self.has {
            Has::Own(pool) => pool,
            Has::Write(guard, ..) => guard,
            Has::Read(..) => unreachable!("a command that changes the pool opens it for that"),
            Has::Nothing => unreachable!("only while `away` has it"),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.has.let_go();
    }
}

/// The blocks of snapshots, for a stream that takes its time: the pool is locked for each read, not for the stream.
pub struct Store {
    of: Of,
    _kept: Kept,
}

enum Of {
    Own(Open),
    Service(Arc<Owned>),
}

impl Store {
    fn with<T>(&self, f: impl FnOnce(&Pool) -> T) -> T {
        match &self.of {
            Of::Own(pool) => f(pool),
            Of::Service(owned) => f(&owned.shared().read()),
        }
    }
}

impl BlockStore for Store {
    fn read(&self, bp: &Blkptr, at: &Bookmark, want: Want) -> Result<Arc<[u8]>, ReadError> {
        self.with(|pool| pool.io().read(bp, at, want))
    }
    fn read_many(&self, blocks: &[(Blkptr, Bookmark)], want: Want) -> Vec<Result<Arc<[u8]>, ReadError>> {
        self.with(|pool| pool.io().read_many(blocks, want))
    }
    fn fetch(&self, blocks: &mut [Fetch], meanwhile: &mut dyn FnMut()) {
        match &self.of {
            Of::Own(pool) => pool.io().fetch(blocks, meanwhile),
            // What happens meanwhile may wait for a pipe: not under the lock.
            Of::Service(owned) => std::thread::scope(|scope| {
                scope.spawn(|| owned.shared().read().io().fetch(blocks, &mut || {}));
                meanwhile();
            }),
        }
    }
    fn txg(&self) -> Txg {
        self.with(|pool| pool.io().txg())
    }
    fn hole_birth(&self) -> bool {
        self.with(|pool| pool.io().hole_birth())
    }
}
