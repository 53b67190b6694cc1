//! Reads every copy and all parity of every block that the pool's uberblock reaches, mends what can be mended, and
//! names what is lost (`dsl_scan.c`).
//!
//! Invariants:
//! 1. Which blocks there are is told by [`crate::walk`].
//! 2. Blocks are examined in the order of their place on the devices within each batch of [`BATCH`]; memory is that
//!    batch, and the metadata above the blocks.

use crate::io::{Examined, Io};
use crate::pool::Pool;
use crate::scan::phys::{ENTRY, FINISHED, SCRUB, ScanPhys};
use crate::walk::{Unseen, every_block};
use icecore_dsl::ErrorLog;
use icecore_format::{Blkptr, Bookmark};

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
    /// Blocks of which a side of a mirror is known to lack its copy ([`Io::behind`]): they wait for a resilver.
    pub awaited: u64,
    /// Subtrees that were not seen although they are not damaged as blocks.
    pub unseen: Vec<Unseen>,
    /// Labels and uberblocks that were damaged, each copy.
    pub labels: u64,
    /// How many of these still are.
    pub labels_left: u64,
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
    let (labels, labels_left) = pool.scrub_labels();
    let mut found = examine_all(pool, progress);
    (found.labels, found.labels_left) = (labels, labels_left);
    if found.repaired_bytes > 0 || labels > labels_left {
        pool.io.flush_repairs().map_err(|e| pool.failed(e))?;
    }
    Ok(found)
}

fn examine_all(pool: &mut Pool, progress: &mut dyn FnMut(Progress) -> bool) -> Scrubbed {
    let total = pool.dsl.dir(pool.io(), pool.dsl.root_dir()).map(|d| d.used_bytes).unwrap_or(0);
    let found = Scrubbed::default();
    let mut examiner = Examiner { io: &pool.io, queue: Vec::new(), found, total, progress, stopped: false };
    let unseen = every_block(pool, &mut |bp, at| {
        examiner.queue.push((*bp, *at));
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
        self.found.awaited += u64::from(seen.awaited > 0);
        if seen.bad == 0 && !seen.lost {
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

impl Pool {
    /// Remembers a finished scrub where OpenZFS keeps it, so that any system's `zpool status` tells of it; and what it
    /// found lost in the pool's error log, in place of what that had.
    ///
    /// # Errors
    /// As any write.
    pub fn record_scrub(&mut self, start: u64, end: u64, found: &Scrubbed) -> Result<(), crate::PoolError> {
        self.record_scan(SCRUB, start, end, found)
    }

    /// The same for a scan of kind `func`. A scrub under way stays what the pool remembers.
    pub(crate) fn record_scan(
        &mut self,
        func: u64,
        start: u64,
        end: u64,
        found: &Scrubbed,
    ) -> Result<(), crate::PoolError> {
        let txg = self.synced().0;
        let phys = ScanPhys {
            func,
            state: FINISHED,
            max_txg: txg,
            cur_max_txg: txg,
            start,
            end,
            to_examine: found.bytes,
            examined: found.bytes,
            processed: found.repaired_bytes,
            errors: found.lost,
            ..ScanPhys::default()
        };
        let scanning = self.is_scanning();
        let (io, dsl) = self.parts();
        // A resilver reads a part of the pool only: what it loses joins what is known.
        let log = if func == SCRUB { ErrorLog::Scrub } else { ErrorLog::Last };
        for lost in found.damage.iter().filter(|d| d.seen.lost) {
            dsl.errlog_add(io, log, &lost.at, lost.bp.physical_birth())?;
        }
        if !scanning {
            if func == SCRUB {
                dsl.errlog_rotate(io)?;
            }
            dsl.set_directory_words(io, ENTRY, &phys.words())?;
        }
        self.commit().map(|_| ())
    }

    /// Looks at the labels and uberblocks of every device, and puts damaged ones right from the others of the same device
    /// where the devices are open for writing. How many were damaged, and how many still are.
    pub fn scrub_labels(&self) -> (u64, u64) {
        let mut sum = (0, 0);
        for leaf in self.io.settled().leaves().iter().filter(|l| !l.is_filling()) {
            if let Some(device) = leaf.device() {
                let (bad, left) = icecore_vdev::label::mend(&**device, leaf.ashift);
                sum = (sum.0 + bad, sum.1 + left);
            }
        }
        sum
    }
}
