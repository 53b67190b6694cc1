//! How far a run is, as restic's `--json` says it: `status` objects with `percent_done` (0 to 1),
//! `seconds_remaining`, `bytes_done` and `total_bytes` of the whole run.
//!
//! Sizes of streams are guesses until they are sent; each that ends corrects the total, so that the last
//! object of a run has all of it done.

use crate::bar;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Counts bytes over the streams of one run.
pub struct Meter {
    start: Instant,
    /// Bytes of streams that ended.
    before: AtomicU64,
    /// Bytes of the stream at hand so far.
    now: AtomicU64,
    /// The guess at the stream at hand.
    guess: AtomicU64,
    /// The guess at all that follow.
    rest: AtomicU64,
}

impl Meter {
    /// Of a run that will send about `total` bytes.
    pub fn new(total: u64) -> Self {
        Self {
            start: Instant::now(),
            before: AtomicU64::new(0),
            now: AtomicU64::new(0),
            guess: AtomicU64::new(0),
            rest: AtomicU64::new(total),
        }
    }
    /// A stream of about `guess` bytes begins.
    pub fn begin(&self, guess: u64) {
        self.rest.store(self.rest.load(Relaxed).saturating_sub(guess), Relaxed);
        self.guess.store(guess, Relaxed);
    }
    /// So many bytes of it have arrived.
    pub fn at(&self, bytes: u64) {
        self.now.store(bytes, Relaxed);
    }
    /// It is complete; its bytes.
    pub fn end(&self) -> u64 {
        let bytes = self.now.swap(0, Relaxed);
        self.before.fetch_add(bytes, Relaxed);
        self.guess.store(0, Relaxed);
        bytes
    }
    /// Bytes of the whole run that are done, and that are left.
    fn sums(&self) -> (u64, u64) {
        let now = self.now.load(Relaxed);
        let left = self.guess.load(Relaxed).saturating_sub(now) + self.rest.load(Relaxed);
        (self.before.load(Relaxed) + now, left)
    }
    /// Sets the bar over the whole run to this moment.
    pub fn show(&self, bar: &ProgressBar) {
        let (done, left) = self.sums();
        bar::show(bar, done, done + left);
    }
    /// The object for this moment.
    pub fn status(&self, destination: &str) -> Value {
        let (done, left) = self.sums();
        let total = done + left;
        let elapsed = self.start.elapsed().as_secs_f64();
        let percent = if total == 0 { 1.0 } else { done as f64 / total as f64 };
        let remaining = if done == 0 { None } else { Some((elapsed * left as f64 / done as f64) as u64) };
        json!({"message_type": "status", "destination": destination, "percent_done": percent,
               "seconds_elapsed": elapsed as u64, "seconds_remaining": remaining,
               "bytes_done": done, "total_bytes": total})
    }

    /// Hands the object to `say` every `tick` until the other end of `stop` is dropped.
    pub fn report(
        &self,
        destination: &str,
        tick: Duration,
        stop: &Receiver<()>,
        mut say: impl FnMut(&Value),
    ) {
        while stop.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
            say(&self.status(destination));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_corrected_by_what_was_sent() {
        let m = Meter::new(1000);
        let seen = |m: &Meter| {
            let s = m.status("b/x");
            (
                s["bytes_done"].as_u64().unwrap(),
                s["total_bytes"].as_u64().unwrap(),
                s["percent_done"].as_f64().unwrap(),
            )
        };
        m.begin(400);
        assert_eq!(seen(&m), (0, 1000, 0.0));
        assert!(m.status("b/x")["seconds_remaining"].is_null());
        m.at(100);
        assert_eq!(seen(&m), (100, 1000, 0.1));
        m.at(500);
        assert_eq!(seen(&m), (500, 1100, 500.0 / 1100.0));
        assert_eq!(m.end(), 500);
        m.begin(600);
        m.at(300);
        assert_eq!(m.end(), 300);
        assert_eq!(seen(&m), (800, 800, 1.0));
        assert_eq!(m.status("b/x")["seconds_remaining"], 0);
        assert_eq!(seen(&Meter::new(0)), (0, 0, 1.0));
    }

    #[test]
    fn one_bar_goes_over_all_streams_of_a_run() {
        let (m, bar) = (Meter::new(1000), bar::bytes("", false));
        let mut seen = Vec::new();
        for (guess, steps) in [(400, [100, 400]), (600, [200, 700])] {
            m.begin(guess);
            for bytes in steps {
                m.at(bytes);
                m.show(&bar);
                seen.push((bar.position(), bar.length().unwrap()));
            }
            m.end();
        }
        assert_eq!(seen, [(100, 1000), (400, 1000), (600, 1000), (1100, 1100)]);
    }

    #[test]
    fn reports_come_until_the_stream_ends() {
        let m = Meter::new(10);
        m.begin(10);
        let (go, stop) = std::sync::mpsc::channel();
        let (said, heard) = std::sync::mpsc::channel();
        std::thread::scope(|s| {
            let m = &m;
            let reporter = s.spawn(move || {
                m.report("b/x", Duration::from_millis(1), &stop, |v| drop(said.send(v.clone())));
            });
            assert_eq!(heard.recv().unwrap()["bytes_done"], 0);
            m.at(4);
            let later = heard.iter().find(|v| v["bytes_done"] == 4).unwrap();
            assert_eq!((&later["percent_done"], &later["destination"]), (&0.4.into(), &"b/x".into()));
            drop(go);
            reporter.join().unwrap();
            assert!(heard.iter().all(|v| v["total_bytes"] == 10), "and then no more");
        });
    }
}
