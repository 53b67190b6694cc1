//! Reads every copy and all parity of every block that the pool's uberblock reaches, mends what can be mended, and
//! names what is lost (`dsl_scan.c`).
//!
//! Invariants:
//! 1. Which blocks there are is told by [`crate::walk`].
//! 2. Blocks are examined in the order of their place on the devices within each batch of [`BATCH`]; memory is that
//!    batch, and the metadata above the blocks.

use crate::io::{Examined, Io};
use crate::pool::Pool;
use crate::walk::{Unseen, blocks_since};
use icecore_dsl::ErrorLog;
use icecore_format::{Blkptr, Bookmark, Txg};

/// Blocks sorted at a time: 160 bytes each.
const BATCH: usize = 128 << 10;
/// Blocks handed to the workers at a time.
const HAND: usize = 512;

/// A block with at least one bad copy.
#[derive(Clone, Debug)]
pub struct Damage {
    /// Where it belongs; `objset` is the object of the oldest dataset that has it, 0 for the pool's own metadata.
    pub at: Bookmark,
    /// Its pointer.
    pub bp: Box<Blkptr>,
    /// What was found and done.
    pub seen: Examined,
}

/// What a scrub found.
#[derive(Clone, Default, Debug)]
pub struct Scrubbed {
    /// Blocks examined.
    pub blocks: u64,
    /// Bytes examined, as allocated.
    pub bytes: u64,
    /// Bytes of blocks of which a copy was rewritten.
    pub repaired_bytes: u64,
    /// Every block with a bad copy, up to [`DAMAGE_MAX`].
    pub damage: Vec<Damage>,
    /// Blocks with bad copies in all, listed or not.
    pub damaged: u64,
    /// Blocks without a good copy in all.
    pub lost: u64,
    /// Subtrees that were not seen although they are not damaged as blocks.
    pub unseen: Vec<Unseen>,
}

/// Damaged blocks listed one by one; the rest is counted.
pub const DAMAGE_MAX: usize = 100_000;

/// What one wants to know while it runs.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Bytes examined so far.
    pub bytes: u64,
    /// Bytes allocated to datasets and the pool's metadata.
    pub total: u64,
    /// Blocks with bad copies so far.
    pub damaged: u64,
}

/// Scrubs the pool. `progress` is called between batches; it returns false to stop. Repairs happen only where the
/// devices are open for writing, and are durable when this returns.
///
/// # Errors
/// Repairs could not be made durable.
pub fn scrub(
    pool: &mut Pool,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Scrubbed, crate::PoolError> {
    let found = resilver(pool, Txg(0), &|_| true, progress);
    if found.repaired_bytes > 0 {
        pool.io.flush_repairs().map_err(|e| pool.failed(e))?;
    }
    Ok(found)
}

/// The same for blocks born after `since` whose own birth `wanted` says yes to: what a side of a mirror missed.
/// What was repaired is not durable yet.
pub(crate) fn resilver(
    pool: &mut Pool,
    since: Txg,
    wanted: &dyn Fn(Txg) -> bool,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Scrubbed {
    let total = pool.dsl.dir(pool.io(), pool.dsl.root_dir()).map(|d| d.used_bytes).unwrap_or(0);
    let found = Scrubbed::default();
    let mut examiner = Examiner { io: &pool.io, queue: Vec::new(), found, total, progress, stopped: false };
    let unseen = blocks_since(pool, since, &mut |bp, at| {
        if wanted(bp.alloc_birth()) {
            examiner.queue.push((*bp, *at));
        }
        if examiner.queue.len() >= BATCH {
            examiner.drain();
        }
        !examiner.stopped
    });
    examiner.drain();
    Scrubbed { unseen, ..examiner.found }
}

struct Examiner<'a> {
    io: &'a Io,
    queue: Vec<(Blkptr, Bookmark)>,
    found: Scrubbed,
    total: u64,
    progress: &'a mut dyn FnMut(Progress) -> bool,
    stopped: bool,
}

impl Examiner<'_> {
    /// Examines all that is queued, in the order of places.
    fn drain(&mut self) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.sort_unstable_by_key(|(bp, _)| bp.dvas().first().map(|d| (d.vdev(), d.offset())));
        let io = self.io;
        for hand in queue.chunks(HAND) {
            if self.stopped {
                break;
            }
            let none = Examined::default();
            let seen = icecore_env::map(&*io.env.workers, hand.len(), |i| {
                hand.get(i).map_or(none, |(bp, _)| io.examine(bp))
            });
            for ((bp, at), seen) in hand.iter().zip(seen) {
                self.count(bp, at, seen);
            }
            let p = Progress { bytes: self.found.bytes, total: self.total, damaged: self.found.damaged };
            self.stopped = !(self.progress)(p);
        }
        queue.clear();
        self.queue = queue;
    }

    fn count(&mut self, bp: &Blkptr, at: &Bookmark, seen: Examined) {
        self.found.blocks += 1;
        self.found.bytes += bp.asize();
        if seen == Examined::default() {
            return;
        }
        self.found.damaged += 1;
        self.found.lost += u64::from(seen.lost);
        if seen.repaired > 0 {
            self.found.repaired_bytes += bp.psize().saturating_mul(seen.repaired);
        }
        if self.found.damage.len() < DAMAGE_MAX {
            self.found.damage.push(Damage { at: *at, bp: Box::new(*bp), seen });
        }
    }
}

/// Names of the words of `dsl_scan_phys_t` (dsl_scan.h) that we fill, by place; there are 24.
mod word {
    pub const FUNC: usize = 0;
    pub const STATE: usize = 1;
    pub const MAX_TXG: usize = 4;
    pub const CUR_MAX_TXG: usize = 6;
    pub const START: usize = 7;
    pub const END: usize = 8;
    pub const TO_EXAMINE: usize = 9;
    pub const EXAMINED: usize = 10;
    pub const PROCESSED: usize = 12;
    pub const ERRORS: usize = 13;
    pub const COUNT: usize = 24;
}
/// `POOL_SCAN_SCRUB`.
const SCRUB: u64 = 1;
/// `POOL_SCAN_RESILVER`.
pub(crate) const RESILVER: u64 = 2;
/// The entry of the MOS directory that holds them (`DMU_POOL_SCAN`).
const SCAN: &str = "scan";

/// What kind of scan the pool remembers, and how it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastScan {
    /// `POOL_SCAN_*`: 1 scrub, 2 resilver.
    pub func: u64,
    /// `DSS_*`: 1 under way, 2 finished, 3 cancelled.
    pub state: u64,
    /// Seconds since 1970.
    pub start: u64,
    /// Seconds since 1970.
    pub end: u64,
    /// Bytes repaired.
    pub repaired: u64,
    /// Blocks that could not be repaired.
    pub errors: u64,
}

impl Pool {
    /// The last scrub or resilver, by whichever system.
    ///
    /// # Errors
    /// The MOS directory cannot be read.
    pub fn last_scan(&self) -> Result<Option<LastScan>, icecore_dsl::DslError> {
        let Some(words) = self.dsl.directory_words(&self.io, SCAN)? else { return Ok(None) };
        let at = |i: usize| words.get(i).copied().unwrap_or(0);
        let scan = LastScan {
            func: at(word::FUNC),
            state: at(word::STATE),
            start: at(word::START),
            end: at(word::END),
            repaired: at(word::PROCESSED),
            errors: at(word::ERRORS),
        };
        Ok((scan.func != 0).then_some(scan))
    }

    /// Remembers a finished scrub where OpenZFS keeps it, so that any system's `zpool status` tells of it; and what it
    /// found lost in the pool's error log, in place of what that had.
    ///
    /// # Errors
    /// As any write.
    pub fn record_scrub(&mut self, start: u64, end: u64, found: &Scrubbed) -> Result<(), crate::PoolError> {
        self.record_scan(SCRUB, start, end, found)
    }

    /// The same for a scan of kind `func`.
    pub(crate) fn record_scan(
        &mut self,
        func: u64,
        start: u64,
        end: u64,
        found: &Scrubbed,
    ) -> Result<(), crate::PoolError> {
        let mut words = vec![0; word::COUNT];
        let txg = self.synced().0;
        for (at, value) in [
            (word::FUNC, func),
            (word::STATE, 2),
            (word::MAX_TXG, txg),
            (word::CUR_MAX_TXG, txg),
            (word::START, start),
            (word::END, end),
            (word::TO_EXAMINE, found.bytes),
            (word::EXAMINED, found.bytes),
            (word::PROCESSED, found.repaired_bytes),
            (word::ERRORS, found.lost),
        ] {
            words[at] = value;
        }
        let (io, dsl) = self.parts();
        // A resilver reads a part of the pool only: what it loses joins what is known.
        let log = if func == SCRUB { ErrorLog::Scrub } else { ErrorLog::Last };
        for lost in found.damage.iter().filter(|d| d.seen.lost) {
            dsl.errlog_add(io, log, &lost.at, lost.bp.physical_birth())?;
        }
        if func == SCRUB {
            dsl.errlog_rotate(io)?;
        }
        dsl.set_directory_words(io, SCAN, &words)?;
        self.commit().map(|_| ())
    }
}
