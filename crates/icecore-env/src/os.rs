//! The machine's own clock, random source and threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::{Clock, Entropy, Task, Workers};

/// The system clock.
pub struct OsClock {
    start: Instant,
}

impl Default for OsClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for OsClock {
    fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }
    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
    fn wall(&self) -> (u64, u32) {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or((0, 0), |d| (d.as_secs(), d.subsec_nanos()))
    }
}

/// The kernel's random source.
pub struct OsEntropy;

impl Entropy for OsEntropy {
    /// Panics if the kernel has no random source: keys and guids made without one would be worse.
    fn fill(&self, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            match rustix::rand::getrandom(&mut out[done..], rustix::rand::GetRandomFlags::empty()) {
                Ok(n) => done += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => panic!("the kernel gives no random bytes: {e}"),
            }
        }
    }
}

/// A scoped pool: threads live for one batch, indices are taken one by one so uneven jobs balance.
pub struct OsWorkers {
    width: usize,
}

impl Default for OsWorkers {
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }
}

impl OsWorkers {
    /// `width` threads at most, at least one.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self { width: width.max(1) }
    }
}

impl Workers for OsWorkers {
    fn for_each_index(&self, n: usize, f: &(dyn Fn(usize) + Sync)) {
        self.run(n, f, self.width.min(n).saturating_sub(1), &mut || {});
    }
    fn for_each_index_beside(&self, n: usize, f: &(dyn Fn(usize) + Sync), meanwhile: &mut dyn FnMut()) {
        // Even on one core: the caller may wait for somebody else meanwhile.
        self.run(n, f, self.width.saturating_sub(1).max(1).min(n), meanwhile);
    }
    fn start(&self, job: Box<dyn FnOnce() + Send>) -> Task {
        Task::thread(std::thread::spawn(job))
    }
    fn width(&self) -> usize {
        self.width
    }
}

impl OsWorkers {
    /// All jobs, on the caller's thread and at most `helpers` others; the caller does `meanwhile` first.
    fn run(&self, n: usize, f: &(dyn Fn(usize) + Sync), helpers: usize, meanwhile: &mut dyn FnMut()) {
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n {
                    return;
                }
                f(i);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(work);
            }
            meanwhile();
            work();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_runs_once_and_results_keep_their_order() {
        for width in [1, 2, 7] {
            let w = OsWorkers::new(width);
            assert_eq!(crate::map(&w, 1000, |i| i * 3), (0..1000).map(|i| i * 3).collect::<Vec<_>>());
            assert!(crate::map(&w, 0, |i| i).is_empty());
        }
    }

    #[test]
    fn the_caller_has_its_turn_once_beside_the_jobs() {
        for (width, n) in [(1, 0), (1, 1), (1, 100), (4, 100)] {
            let (mut turns, count) = (0, AtomicUsize::new(0));
            let job = |_| {
                count.fetch_add(1, Ordering::Relaxed);
            };
            OsWorkers::new(width).for_each_index_beside(n, &job, &mut || turns += 1);
            assert_eq!((turns, count.into_inner()), (1, n));
        }
    }

    #[test]
    fn random_bytes_differ() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        OsEntropy.fill(&mut a);
        OsEntropy.fill(&mut b);
        assert_ne!(a, b);
        assert_ne!(OsEntropy.guid(), 0);
    }
}
