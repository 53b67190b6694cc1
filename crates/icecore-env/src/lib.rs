//! Device, clock, entropy and workers, and their real versions: the only engine crate that touches the
//! operating system.
//!
//! Every source of chance has its door here, so that a pool's bytes are a function of (operations, clock,
//! entropy) and never of scheduling. The simulated versions live in `icecore-sim`.
//!
//! Invariants:
//! 1. A [`Device`] reads and writes whole ranges or returns an error that names device, offset and length.
//! 2. [`Device::flush`] is the only ordering point: what was written before a successful flush is durable
//!    before anything written after it.
//! 3. [`Workers`] may run jobs in any order and at once; their callers must not be able to tell.
#![forbid(unsafe_code)]

pub mod device;
pub mod file;
pub mod os;
#[cfg(feature = "power-cuts")]
mod power;
pub mod scan;
pub mod sub;
pub mod task;

use std::sync::Arc;

pub use device::{Device, DeviceError, What};
pub use file::{Access, FileDevice, mounted_at};
pub use os::{OsClock, OsEntropy, OsWorkers};
pub use sub::SubDevice;
pub use task::{Pending, Task, start};

/// Time, as the engine may see it.
pub trait Clock: Send + Sync {
    /// Seconds since 1970, UTC.
    fn now(&self) -> u64;
    /// Nanoseconds from an arbitrary start, never going back.
    fn monotonic_ns(&self) -> u64;
    /// Seconds since 1970 and nanoseconds: what files have as times.
    fn wall(&self) -> (u64, u32) {
        (self.now(), u32::try_from(self.monotonic_ns() % 1_000_000_000).unwrap_or(0))
    }
}

/// Randomness, as the engine may see it.
pub trait Entropy: Send + Sync {
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);
    /// A random number.
    fn u64(&self) -> u64 {
        let mut b = [0; 8];
        self.fill(&mut b);
        u64::from_le_bytes(b)
    }
    /// A random number that is not 0, for guids.
    fn guid(&self) -> u64 {
        loop {
            match self.u64() {
                0 => {}
                guid => return guid,
            }
        }
    }
}

/// Threads, as the engine may see them: a batch of independent jobs.
pub trait Workers: Send + Sync {
    /// Calls `f(0)`, … `f(n - 1)`, each once, in any order and possibly at the same time; returns when all
    /// are done. A panic in a job is passed on to the caller.
    fn for_each_index(&self, n: usize, f: &(dyn Fn(usize) + Sync));
    /// As [`Workers::for_each_index`], and calls `meanwhile` once, on the caller's own thread: before, after or
    /// during the jobs.
    fn for_each_index_beside(&self, n: usize, f: &(dyn Fn(usize) + Sync), meanwhile: &mut dyn FnMut()) {
        self.for_each_index(n, f);
        meanwhile();
    }
    /// Takes a job that may run at any time until its [`Task`] is waited for or dropped.
    fn start(&self, job: Box<dyn FnOnce() + Send>) -> Task {
        job();
        Task::done()
    }
    /// How many jobs can run at once.
    fn width(&self) -> usize {
        1
    }
}

/// Runs `f` for each index on `workers` and gives the results in index order.
pub fn map<T: Send>(workers: &dyn Workers, n: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let slots: Vec<std::sync::Mutex<Option<T>>> = (0..n).map(|_| std::sync::Mutex::new(None)).collect();
    workers.for_each_index(n, &|i| {
        let value = f(i);
        *slots[i].lock().unwrap_or_else(|e| e.into_inner()) = Some(value);
    });
    let done = slots.into_iter().map(|s| s.into_inner().unwrap_or_else(|e| e.into_inner()));
    done.map(|v| v.expect("Workers ran every index")).collect()
}

/// Everything the engine may know of the machine, apart from its devices.
#[derive(Clone)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Threads.
    pub workers: Arc<dyn Workers>,
}

impl Env {
    /// The real machine.
    #[must_use]
    pub fn os() -> Self {
        Self {
            clock: Arc::new(OsClock::default()),
            entropy: Arc::new(OsEntropy),
            workers: Arc::new(OsWorkers::default()),
        }
    }
}
