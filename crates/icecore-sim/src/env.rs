//! Virtual time, seeded randomness, and workers without threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use icecore_env::{Clock, Entropy, Env, Task, Workers};

use crate::rng::Rng;

/// A clock that moves by a fixed step at each look, and by hand.
pub struct SimClock {
    ns: AtomicU64,
    epoch: u64,
    step_ns: u64,
}

impl SimClock {
    /// Starts at `epoch` (unix seconds); every look advances it by `step_ns`.
    #[must_use]
    pub fn new(epoch: u64, step_ns: u64) -> Self {
        Self { ns: AtomicU64::new(0), epoch, step_ns }
    }
    /// Moves on by `ns`.
    pub fn advance_ns(&self, ns: u64) {
        self.ns.fetch_add(ns, Ordering::SeqCst);
    }
    /// Moves on by whole seconds.
    pub fn advance(&self, secs: u64) {
        self.advance_ns(secs.saturating_mul(1_000_000_000));
    }
    fn look(&self) -> u64 {
        self.ns.fetch_add(self.step_ns, Ordering::SeqCst)
    }
}

impl Clock for SimClock {
    fn now(&self) -> u64 {
        self.epoch + self.look() / 1_000_000_000
    }
    fn monotonic_ns(&self) -> u64 {
        self.look()
    }
}

/// Seeded bytes. Fit for tests only: they can be foretold.
pub struct SimEntropy(Mutex<Rng>);

impl SimEntropy {
    /// The bytes of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Rng::new(seed)))
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).fill(out);
    }
}

/// Runs jobs one after the other, in order.
pub struct InlineWorkers;

impl Workers for InlineWorkers {
    fn for_each_index(&self, n: usize, f: &(dyn Fn(usize) + Sync)) {
        (0..n).for_each(f);
    }
}

/// Runs jobs one after the other, in an order chosen by a seed: finds whoever depends on the order.
pub struct ShuffledWorkers(Mutex<Rng>);

impl ShuffledWorkers {
    /// The orders of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Rng::new(seed)))
    }
    fn coin(&self) -> bool {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).below(2) == 0
    }
}

impl Workers for ShuffledWorkers {
    fn for_each_index(&self, n: usize, f: &(dyn Fn(usize) + Sync)) {
        let mut order: Vec<usize> = (0..n).collect();
        {
            // Not held while jobs run: a job may itself ask for workers.
            let mut rng = self.0.lock().unwrap_or_else(|e| e.into_inner());
            for i in (1..n).rev() {
                order.swap(i, rng.below(i as u64 + 1) as usize);
            }
        }
        order.into_iter().for_each(f);
    }
    fn for_each_index_beside(&self, n: usize, f: &(dyn Fn(usize) + Sync), meanwhile: &mut dyn FnMut()) {
        let early = self.coin();
        if early {
            meanwhile();
        }
        self.for_each_index(n, f);
        if !early {
            meanwhile();
        }
    }
    /// At once, or only when somebody waits for it.
    fn start(&self, job: Box<dyn FnOnce() + Send>) -> Task {
        if self.coin() {
            return Task::later(job);
        }
        job();
        Task::done()
    }
    fn width(&self) -> usize {
        4
    }
}

/// A whole simulated environment: 2023-11-14 22:13:20 UTC, a microsecond a look, jobs shuffled by `seed`.
#[must_use]
pub fn sim_env(seed: u64) -> Env {
    Env {
        clock: Arc::new(SimClock::new(1_700_000_000, 1_000)),
        entropy: Arc::new(SimEntropy::new(seed)),
        workers: Arc::new(ShuffledWorkers::new(seed ^ 0x5bd1_e995)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_world() {
        let (a, b) = (sim_env(7), sim_env(7));
        for _ in 0..100 {
            assert_eq!(a.entropy.u64(), b.entropy.u64());
            assert_eq!(a.clock.monotonic_ns(), b.clock.monotonic_ns());
        }
        assert_ne!(sim_env(8).entropy.u64(), sim_env(7).entropy.u64());
    }

    #[test]
    fn shuffled_workers_run_all_in_another_order() {
        let seen = Mutex::new(Vec::new());
        ShuffledWorkers::new(1).for_each_index(50, &|i| seen.lock().unwrap().push(i));
        let seen = seen.into_inner().unwrap();
        assert_ne!(seen, (0..50).collect::<Vec<_>>());
        assert_eq!(icecore_env::map(&ShuffledWorkers::new(1), 50, |i| i), (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn shuffled_tasks_end_when_they_must_and_not_always_before() {
        let workers = ShuffledWorkers::new(3);
        let early = (0..50).filter(|_| {
            let ran = Arc::new(Mutex::new(false));
            let flag = ran.clone();
            let task = workers.start(Box::new(move || *flag.lock().unwrap() = true));
            let early = *ran.lock().unwrap();
            task.wait();
            assert!(*ran.lock().unwrap());
            early
        });
        assert!((1..50).contains(&early.count()));
    }

    #[test]
    fn time_moves_only_when_told() {
        let c = SimClock::new(1000, 0);
        assert_eq!((c.now(), c.now()), (1000, 1000));
        c.advance(5);
        assert_eq!(c.now(), 1005);
    }
}
