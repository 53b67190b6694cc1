//! Scrubs and resilvers, going on behind the commands.
//!
//! Invariants:
//! 1. A pool that the service has open has at most one thread here, and has one as long as a resilver, or a scrub that is not
//!    paused, is under way. It ends when they do, the pool is let go, or its devices fail.
//! 2. The thread holds the pool's lock for [`TURN`] at most, and for less when others want it: for reading while it examines,
//!    for writing while the pool is told how far it is.
//! 3. In a process of its own the command that begins a scrub or resilver carries it out.
//! 4. A side of a mirror that has come back is brought up to date without being asked for, whenever a pool is opened or
//!    another side is done.

use crate::fail::{Fail, Outcome};
use crate::pools::Owned;
use crate::session::{self, For, Open};
use icecore_format::Guid;
use icecore_pool::Pool;
use icecore_pool::heal::{Source, heal};
use icecore_pool::scan::Turn;
use icecore_pool::scrub::Scrubbed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the pool is held at a time.
const TURN: Duration = Duration::from_millis(150);
/// The same while others want it.
const TURN_WANTED: Duration = Duration::from_millis(15);
/// How long a pool that is let go waits for the turn to end.
const END_MAX: Duration = Duration::from_secs(30);

/// What a pool knows of the thread of its scans.
#[derive(Default)]
pub struct Run {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    running: bool,
    stop: bool,
    /// How often it was asked to go on.
    asked: u64,
    /// The pool that lost blocks are fetched from.
    from: Option<String>,
    fetched: u64,
    /// What the last one to end has found.
    found: Option<Scrubbed>,
    /// Why it could not go on.
    failed: Option<String>,
    /// The side that was filled last, and what came of it.
    filled: Option<(Guid, Result<(), String>)>,
}

fn lock(run: &Run) -> MutexGuard<'_, State> {
    run.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a scrub ended.
pub struct Ended {
    /// What it found.
    pub found: Scrubbed,
    /// Blocks that came from another pool.
    pub fetched: u64,
}

/// Goes on with the pool's scrub, if there is one, behind the commands.
pub fn go_on(owned: &Arc<Owned>, from: Option<&str>) {
    let mut state = lock(owned.scan());
    if let Some(from) = from {
        state.from = Some(from.to_string());
    }
    state.asked += 1;
    if state.running || state.stop {
        return;
    }
    (state.running, state.failed, state.found, state.fetched) = (true, None, None, 0);
    let mine = Arc::clone(owned);
    let spawned = std::thread::Builder::new().name("scrub".into()).spawn(move || work(&mine));
    if spawned.is_err() {
        state.running = false;
    }
}

/// Waits until nothing goes on; how the scrub ended, if it came to its end.
pub fn wait(owned: &Arc<Owned>, mut watch: impl FnMut()) -> Outcome<Option<Ended>> {
    loop {
        watch();
        if crate::caller::cancelled() {
            return Ok(None);
        }
        let state = lock(owned.scan());
        if !state.running {
            if let Some(why) = &state.failed {
                return Err(Fail::new(why.clone()));
            }
            return Ok(state.found.clone().map(|found| Ended { found, fetched: state.fetched }));
        }
        let _ = owned.scan().ended.wait_timeout(state, Duration::from_millis(200));
    }
}

/// Fills the side of a mirror for which `begin` begins a resilver, and waits for it; false if it lacks nothing. Others use the pool
/// meanwhile. Where the caller goes away the resilver is given up, and the pool is as it was before.
pub fn fill(
    pool: &mut Open,
    begin: impl FnOnce(&mut Pool) -> icecore_pool::Result<bool>,
    watch: &mut dyn FnMut(&Pool),
) -> Outcome<bool> {
    if !begin(pool)? {
        return Ok(false);
    }
    let Some(owned) = pool.owned().cloned() else {
        pool.resilver_through(&mut |_| !crate::caller::cancelled())?;
        return Ok(true);
    };
    let Some(leaf) = pool.resilvering() else { return Ok(false) };
    lock(owned.scan()).filled = None;
    go_on(&owned, None);
    pool.away(|| filled(&owned, leaf, watch))??;
    Ok(true)
}

fn filled(owned: &Arc<Owned>, leaf: Guid, watch: &mut dyn FnMut(&Pool)) -> Outcome {
    let stopped = |why: Option<String>| Fail::new(why.unwrap_or_else(|| "the resilver was stopped".into()));
    loop {
        let over = {
            let pool = owned.read()?;
            watch(&pool);
            let state = lock(owned.scan());
            if let Some((_, done)) = state.filled.as_ref().filter(|(of, _)| *of == leaf) {
                return done.clone().map_err(Fail::new);
            }
            if pool.resilvering() != Some(leaf) {
                return Err(stopped(None));
            }
            (!state.running).then(|| state.failed.clone())
        };
        if over.is_some() || crate::caller::cancelled() {
            owned.write()?.resilver_cancel();
            return Err(stopped(over.flatten()));
        }
        let state = lock(owned.scan());
        let _ = owned.scan().ended.wait_timeout(state, Duration::from_millis(200));
    }
}

/// Waits until no side of a mirror is being filled.
pub fn wait_for_sides(owned: &Arc<Owned>) -> Outcome {
    while owned.read()?.resilvering().is_some() && !crate::caller::cancelled() {
        let state = lock(owned.scan());
        if !state.running {
            break;
        }
        let _ = owned.scan().ended.wait_timeout(state, Duration::from_millis(200));
    }
    Ok(())
}

/// Ends the thread, if there is one, for good: the pool is let go.
pub fn stop(owned: &Owned) {
    let mut state = lock(owned.scan());
    state.stop = true;
    let until = Instant::now() + END_MAX;
    while state.running && Instant::now() < until {
        let waited = owned.scan().ended.wait_timeout(state, Duration::from_millis(200));
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// However the thread ends, it is known.
struct Ending<'a>(&'a Owned);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut state = lock(self.0.scan());
        if std::mem::take(&mut state.running) {
            state.failed = Some("internal error: the scrub panicked (the service's log has where)".into());
        }
        self.0.scan().ended.notify_all();
    }
}

fn work(owned: &Arc<Owned>) {
    let _ending = Ending(owned);
    loop {
        let asked = lock(owned.scan()).asked;
        let step = step(owned);
        let mut state = lock(owned.scan());
        let ends = match step {
            Ok(Step::More) => state.stop,
            Ok(Step::Ended(found)) => {
                state.found = Some(*found);
                true
            }
            // Whoever resumed it meanwhile counts on this thread.
            Ok(Step::Idle) => state.stop || asked == state.asked,
            Err(f) => {
                state.failed = Some(f.message);
                true
            }
        };
        if ends {
            state.running = false;
            state.from = None;
            return;
        }
    }
}

/// A side has all, or cannot get it. The next one, if there is one.
fn side_ended(owned: &Arc<Owned>) -> Outcome {
    let mut pool = Open::of(Arc::clone(owned), For::Write)?;
    let Some(leaf) = pool.resilvering() else { return Ok(()) };
    let done = pool.resilver_finish().map(|_| ()).map_err(|e| e.to_string());
    let more = done.is_ok();
    lock(owned.scan()).filled = Some((leaf, done));
    if more {
        pool.resilver_returned()?;
    }
    drop(pool);
    owned.scan().ended.notify_all();
    Ok(())
}

enum Step {
    More,
    Idle,
    Ended(Box<Scrubbed>),
}

fn step(owned: &Arc<Owned>) -> Outcome<Step> {
    let turn = {
        let pool = owned.read()?;
        let since = Instant::now();
        pool.scan_turn(&|| since.elapsed() < if owned.wanted() { TURN_WANTED } else { TURN })
    };
    match turn {
        Turn::Idle => Ok(Step::Idle),
        Turn::More => Ok(Step::More),
        Turn::Copied => {
            side_ended(owned)?;
            Ok(Step::More)
        }
        Turn::Save | Turn::Done => {
            let from = lock(owned.scan()).from.clone();
            let mut pool = Open::of(Arc::clone(owned), For::Write)?;
            let pool = &mut *pool;
            let fetched = from.map_or(Ok(0), |from| fetch(pool, &from))?;
            lock(owned.scan()).fetched += fetched;
            if turn == Turn::Save {
                pool.scan_save()?;
                return Ok(Step::More);
            }
            Ok(Step::Ended(Box::new(pool.scan_finish()?)))
        }
    }
}

/// Puts back what is lost from another imported pool that has the same snapshots.
pub fn fetch(pool: &mut Pool, from: &str) -> Outcome<u64> {
    let lost = pool.scan_lost();
    if lost.is_empty() {
        return Ok(0);
    }
    let other = session::open(from, For::Read)?;
    let source = Source::new(&other);
    let mut fetched = 0;
    for damage in &lost {
        if heal(pool, &source, damage) {
            pool.scan_fetched(damage);
            fetched += 1;
        }
    }
    Ok(fetched)
}

/// Carries the scrub of a pool that this command has for itself out. `None` if `watch` says to stop before its end: then the
/// pool knows how far it is.
pub fn carry_out(
    pool: &mut Pool,
    from: Option<&str>,
    watch: &mut dyn FnMut(&Pool) -> bool,
) -> Outcome<Option<Ended>> {
    let mut fetched = 0;
    loop {
        let since = Instant::now();
        let turn = pool.scan_turn(&|| since.elapsed() < TURN);
        let go_on = watch(pool);
        match turn {
            Turn::Idle | Turn::Copied => return Ok(None),
            _ if !go_on => {
                pool.scan_save()?;
                return Ok(None);
            }
            Turn::More => {}
            Turn::Save | Turn::Done => {
                fetched += from.map_or(Ok(0), |from| fetch(pool, from))?;
                if turn == Turn::Done {
                    return Ok(Some(Ended { found: pool.scan_finish()?, fetched }));
                }
                pool.scan_save()?;
            }
        }
    }
}
