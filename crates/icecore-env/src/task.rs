//! One job beside its caller: how a device writes while the next bytes are being prepared.
//!
//! Invariants:
//! 1. Waiting for a task, or dropping it, returns only once the job has ended: nothing it holds outlives it.
//! 2. Whether it is done cannot be asked, only waited for. So what a caller does cannot depend on timing.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::Workers;

/// A job handed to [`Workers::start`].
pub struct Task(State);

enum State {
    Done,
    Later(Box<dyn FnOnce() + Send>),
    Thread(JoinHandle<()>),
}

impl Task {
    /// A job that has run.
    #[must_use]
    pub fn done() -> Self {
        Self(State::Done)
    }
    /// A job that runs when it is waited for.
    #[must_use]
    pub fn later(job: Box<dyn FnOnce() + Send>) -> Self {
        Self(State::Later(job))
    }
    /// A job that runs on a thread of its own.
    #[must_use]
    pub fn thread(handle: JoinHandle<()>) -> Self {
        Self(State::Thread(handle))
    }

    /// Returns when the job has ended. A panic in it is passed on.
    pub fn wait(mut self) {
        if let Err(panic) = self.end() {
            std::panic::resume_unwind(panic);
        }
    }

    fn end(&mut self) -> std::thread::Result<()> {
        match std::mem::replace(&mut self.0, State::Done) {
            State::Done => Ok(()),
            State::Later(job) => {
                job();
                Ok(())
            }
            State::Thread(handle) => handle.join(),
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // Whoever drops a task does not want to know.
        let _ = self.end();
    }
}

/// A [`Task`] with a result.
pub struct Pending<T> {
    task: Task,
    result: Arc<Mutex<Option<T>>>,
}

impl<T> Pending<T> {
    /// The job's result, once there is one. A panic in the job is passed on.
    ///
    /// # Panics
    /// When the job did.
    pub fn wait(self) -> T {
        self.task.wait();
        let result = self.result.lock().unwrap_or_else(|e| e.into_inner()).take();
        result.expect("a job that ended has a result")
    }
}

/// Hands `job` to `workers`.
pub fn start<T: Send + 'static>(
    workers: &dyn Workers,
    job: impl FnOnce() -> T + Send + 'static,
) -> Pending<T> {
    let result = Arc::new(Mutex::new(None));
    let slot = result.clone();
    let task = workers.start(Box::new(move || {
        let value = job();
        *slot.lock().unwrap_or_else(|e| e.into_inner()) = Some(value);
    }));
    Pending { task, result }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OsWorkers;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    #[test]
    fn results_come_back_and_a_dropped_task_has_ended() {
        for width in [1, 2] {
            let workers = OsWorkers::new(width);
            assert_eq!(start(&workers, || 7).wait(), 7);
            let ended = Arc::new(AtomicBool::new(false));
            let flag = ended.clone();
            drop(start(&workers, move || {
                std::thread::sleep(Duration::from_millis(20));
                flag.store(true, Ordering::SeqCst);
            }));
            assert!(ended.load(Ordering::SeqCst));
        }
    }

    #[test]
    fn a_panic_reaches_the_one_who_waits() {
        let pending = start(&OsWorkers::new(2), || panic!("as it should"));
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pending.wait()));
        assert!(waited.is_err());
    }
}
