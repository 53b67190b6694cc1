//! One turn of a scan: walking on until there is a fill, or examining a part of it.
//!
//! Invariants:
//! 1. Every turn gets further, however short it is cut: the walk by one block at least, the examination by one [`HAND`].
//! 2. A dataset is queued by the one before it alone, and only if it names that one as its previous: so no chain of
//!    datasets, however damaged, is walked for ever.

use super::phys::{BETWEEN, ScanPhys};
use super::{FILL_BYTES, Scan, Task};
use crate::io::{Examined, Io};
use crate::pool::Pool;
use crate::scrub::{DAMAGE_MAX, Damage};
use crate::walk::{Part, Unseen, datasets, walk_part};
use icecore_dmu::zap;
use icecore_dsl::Dataset;
use icecore_format::{Blkptr, Bookmark, ObjectId, Txg};

/// Blocks handed to the workers at a time, at most, and their bytes.
const HAND: usize = 512;
const HAND_BYTES: u64 = 16 << 20;
/// The pool is told at least that often how far a scan is, if fills end (`zfs_scan_checkpoint_intval` is two hours: what is
/// done there costs more).
const SAVE_NS: u64 = 15_000_000_000;

/// What is to be done after a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// There is nothing to go on with: no scan, or it is paused.
    Idle,
    /// The next turn.
    More,
    /// [`Pool::scan_save`], then the next turn.
    Save,
    /// [`Pool::scan_finish`].
    Done,
    /// [`Pool::resilver_finish`]: all was copied, or cannot be.
    Copied,
}

/// Where the walk is to go on.
enum Visited {
    /// In the next dataset.
    All,
    /// In this one, at a block of level 0.
    Until((u64, u64)),
}

impl Pool {
    /// Does a piece of the scan that is under way, of a resilver before a scrub, until `go_on` says no. To be called with the
    /// pool's lock held for reading: others may read, and nobody changes anything meanwhile.
    pub fn scan_turn(&self, go_on: &dyn Fn() -> bool) -> Turn {
        if let Some(copying) = self.copying.lock().as_deref_mut() {
            let turn = self.turn(copying, go_on);
            return if copying.given_up.is_some() || turn == Turn::Done { Turn::Copied } else { turn };
        }
        match self.scanning.lock().as_deref_mut().filter(|s| !s.now.phys.is_paused()) {
            Some(scan) => self.turn(scan, go_on),
            None => Turn::Idle,
        }
    }

    fn turn(&self, scan: &mut Scan, go_on: &dyn Fn() -> bool) -> Turn {
        loop {
            let Some(done) = scan.done else {
                fill(self, scan, go_on);
                if scan.now.is_end() || scan.is_full() {
                    scan.todo
                        .sort_unstable_by_key(|(bp, _)| bp.dvas().first().map(|d| (d.vdev(), d.offset())));
                    scan.done = Some(0);
                } else if !go_on() {
                    return Turn::More;
                }
                continue;
            };
            if done < scan.todo.len() {
                examine(&self.io, scan, done);
                if go_on() && scan.given_up.is_none() {
                    continue;
                }
                return Turn::More;
            }
            scan.next_fill();
            if scan.now.is_end() {
                return Turn::Done;
            }
            let waited = self.io.env.clock.monotonic_ns().saturating_sub(scan.saved_ns);
            if waited >= SAVE_NS && matches!(scan.task, Task::Scrub) {
                return Turn::Save;
            }
        }
    }
}

impl Scan {
    fn is_full(&self) -> bool {
        self.todo.len() >= self.room || self.bytes >= FILL_BYTES
    }

    fn wants(&self, bp: &Blkptr) -> bool {
        match &self.task {
            Task::Scrub => true,
            Task::Copy { missed, .. } => missed.contains(bp.physical_birth().0, 1),
        }
    }

    /// All of the fill was examined.
    fn next_fill(&mut self) {
        self.began = self.now.clone();
        self.todo.clear();
        self.freed.clear();
        (self.bytes, self.done, self.room) = (0, None, self.fill);
    }

    fn count(&mut self, bp: &Blkptr, at: &Bookmark, seen: Examined) {
        self.pass.issued += bp.asize();
        self.found.blocks += 1;
        self.found.bytes += bp.asize();
        if seen == Examined::default() {
            return;
        }
        if seen.repaired > 0 {
            let bytes = bp.psize().saturating_mul(seen.repaired);
            self.found.repaired_bytes += bytes;
            self.now.phys.processed += bytes;
            self.unflushed = true;
        }
        if seen.lost {
            self.found.lost += 1;
            self.now.phys.errors += 1;
            self.unlogged.push((*at, bp.physical_birth()));
        }
        if let (Task::Copy { .. }, true) = (&self.task, seen.bad > 0) {
            self.given_up = Some("the device could not be written".into());
        }
        if seen.bad == 0 && !seen.lost {
            return;
        }
        self.found.damaged += 1;
        if self.found.damage.len() < DAMAGE_MAX {
            self.found.damage.push(Damage { at: *at, bp: Box::new(*bp), seen });
        }
    }

    fn note_unseen(&mut self, unseen: Vec<Unseen>) {
        for u in unseen {
            if self.unseen.len() < DAMAGE_MAX && self.unseen.insert(u.at) {
                self.now.phys.errors += 1;
                self.unlogged.push((u.at, Txg(0)));
                self.found.unseen.push(u);
            }
        }
    }
}

/// Examines the next hand of the fill.
fn examine(io: &Io, scan: &mut Scan, done: usize) {
    let mut bytes = 0;
    let more = |(bp, _): &&(Blkptr, Bookmark)| {
        bytes += bp.asize();
        bytes <= HAND_BYTES
    };
    let rest = scan.todo.get(done..).unwrap_or_default();
    let len = rest.iter().take(HAND).take_while(more).count().max(1);
    let hand: Vec<(Blkptr, Bookmark)> =
        rest.iter().take(len).filter(|(bp, _)| !scan.was_freed(bp)).copied().collect();
    let none = Examined::default();
    let seen = icecore_env::map(&*io.env.workers, hand.len(), |i| {
        hand.get(i).map_or(none, |(bp, _)| match &scan.task {
            Task::Scrub => io.examine(bp),
            Task::Copy { to, .. } => io.supply(bp, *to),
        })
    });
    for ((bp, at), seen) in hand.iter().zip(seen) {
        scan.count(bp, at, seen);
    }
    scan.done = Some(done + len);
}

/// Walks on until the fill is full, all is walked, or `go_on` says no.
fn fill(pool: &Pool, scan: &mut Scan, go_on: &dyn Fn() -> bool) {
    while !scan.now.is_end() && !scan.is_full() {
        let at = scan.now.phys.at;
        let visited = match at[0] {
            0 => visit_mos(pool, scan, go_on),
            BETWEEN => next_dataset(pool, scan),
            objset => visit_dataset(pool, scan, objset, go_on),
        };
        if let Visited::Until((object, block)) = visited {
            scan.now.phys.at = [scan.now.phys.at[0], object, 0, block];
        }
        if !go_on() {
            return;
        }
    }
}

fn between(phys: &mut ScanPhys) -> Visited {
    phys.at = [BETWEEN, 0, 0, 0];
    Visited::All
}

/// The MOS; then the datasets that come from `$ORIGIN`, which are all.
fn visit_mos(pool: &Pool, scan: &mut Scan, go_on: &dyn Fn() -> bool) -> Visited {
    let phys = &mut scan.now.phys;
    (phys.cur_min_txg, phys.cur_max_txg) = (phys.min_txg, phys.max_txg);
    let root = pool.io.mos_root;
    if let Some(at) = walk(pool, scan, &root, false, go_on) {
        return Visited::Until(at);
    }
    let origin = pool.dsl.origin_snap();
    match pool.dsl.dataset(&pool.io, origin) {
        Ok(ds) => queue_children(pool, scan, origin, &ds),
        Err(e) => scan.note_unseen(vec![Unseen { at: Bookmark::root(origin), why: e.to_string() }]),
    }
    between(&mut scan.now.phys)
}

/// Takes the next dataset from the queue.
fn next_dataset(pool: &Pool, scan: &mut Scan) -> Visited {
    let Some((objset, since)) = scan.now.queue.pop_first() else { return Visited::All };
    let ds = match pool.dsl.dataset(&pool.io, objset) {
        Ok(ds) => ds,
        Err(e) => {
            scan.note_unseen(vec![Unseen { at: Bookmark::root(objset), why: e.to_string() }]);
            return Visited::All;
        }
    };
    let phys = &mut scan.now.phys;
    let since = if since == 0 { ds.prev_snap_txg } else { since };
    phys.cur_min_txg = phys.min_txg.max(since);
    phys.cur_max_txg = if ds.is_snapshot() { phys.max_txg.min(ds.creation_txg) } else { phys.max_txg };
    phys.at = [objset, 0, 0, 0];
    Visited::All
}

/// The dataset at which the scan is, from there on (`dsl_scan_visitds`).
fn visit_dataset(pool: &Pool, scan: &mut Scan, objset: u64, go_on: &dyn Fn() -> bool) -> Visited {
    let ds = match pool.dsl.dataset(&pool.io, objset) {
        Ok(ds) => ds,
        Err(e) => {
            scan.note_unseen(vec![Unseen { at: Bookmark::root(objset), why: e.to_string() }]);
            return between(&mut scan.now.phys);
        }
    };
    if scan.now.phys.cur_min_txg >= scan.now.phys.max_txg {
        // What comes after it is newer still.
        return between(&mut scan.now.phys);
    }
    if let Some(at) = walk(pool, scan, &ds.bp, !ds.is_snapshot(), go_on) {
        return Visited::Until(at);
    }
    let phys = &mut scan.now.phys;
    if phys.visits_again() {
        phys.set_again(false);
        let since = phys.cur_max_txg;
        scan.now.queue.insert(objset, since);
    } else {
        queue_children(pool, scan, objset, &ds);
    }
    between(&mut scan.now.phys)
}

/// Queues the next snapshot or head, and the clones.
fn queue_children(pool: &Pool, scan: &mut Scan, objset: u64, ds: &Dataset) {
    let mut children: Vec<u64> = Vec::new();
    children.extend(Some(ds.next_snap_obj).filter(|o| *o != 0));
    if ds.num_children > 1 {
        let listed = if ds.next_clones_obj == 0 {
            Vec::new()
        } else {
            zap::iter(&pool.dsl.mos, &pool.io, ObjectId(ds.next_clones_obj)).unwrap_or_default()
        };
        if listed.len() as u64 == ds.num_children - 1 {
            children.extend(listed.iter().filter_map(|e| e.value.as_u64()));
        } else {
            // Old software left some out: then all are asked.
            let all = datasets(&pool.dsl, &pool.io).into_iter();
            children.extend(all.filter(|(_, d)| d.prev_snap_obj == objset).map(|(object, _)| object));
        }
    }
    for child in children {
        match pool.dsl.dataset(&pool.io, child) {
            Ok(d) if d.prev_snap_obj == objset => {
                scan.now.queue.insert(child, ds.creation_txg);
            }
            Ok(_) => {}
            Err(e) => scan.note_unseen(vec![Unseen { at: Bookmark::root(child), why: e.to_string() }]),
        }
    }
}

/// Walks the objset at which the scan is. Where it was ended, if it was.
fn walk(
    pool: &Pool,
    scan: &mut Scan,
    root: &Blkptr,
    log: bool,
    go_on: &dyn Fn() -> bool,
) -> Option<(u64, u64)> {
    let phys = scan.now.phys;
    let [objset, object, _, block] = phys.at;
    let (since, until) = (Txg(phys.cur_min_txg), Txg(phys.cur_max_txg));
    let from = (object, block);
    let part = Part { objset, root, since, until, from, log: log && from == (0, 0) };
    let walked = walk_part(pool, &part, go_on, &mut |bp, at| {
        scan.now.phys.examined += bp.asize();
        scan.pass.exam += bp.asize();
        if scan.wants(bp) {
            scan.bytes += bp.asize();
            scan.todo.push((*bp, *at));
        }
        !scan.is_full()
    });
    scan.note_unseen(walked.unseen);
    walked.ended_at
}
