//! Scans of a pool in use, in turns, between which others change the pool (dsl_scan.c): the scrub, known to the pool, so that
//! it goes on after an export, a crash, or with another system; and what copies to a side of a mirror what it lacks
//! ([`crate::resilver`]), of which the pool is told when it is done.
//!
//! A *fill* is a number of blocks that the walk found, sorted by their places on the devices. Turns walk until there is a fill,
//! then examine it, then walk on.
//!
//! Invariants:
//! 1. What the pool knows of a scrub is where the last fill began: everything before was examined, and what was repaired is durable.
//!    Who begins there again misses nothing. It is in the form, and walked in the order, of OpenZFS: the MOS, then
//!    datasets from `$ORIGIN` on, each after the one whose blocks it shares.
//! 2. A turn reads the pool, and repairs blocks in their places. It is short ([`Pool::scan_turn`] asks whether to go on
//!    between blocks), and its caller holds the pool's lock for reading: nobody changes the pool meanwhile.
//! 3. A block that was freed since it was found is not examined: something else may be in its place. [`Scan::freed`] has
//!    all that was freed since the fill began; what is newer than the scan is in no fill.
//! 4. While something is copied the scrub waits. Places follow their datasets in the very txg that destroys, snapshots or swaps these, in memory and in the pool
//!    ([`Pool::sync_scan`]): no place ever names a dataset that is gone.
//! 5. Memory is [`FILL`] blocks, the datasets still to be visited, and what is lost.

mod errors;
pub mod phys;
mod turn;

use crate::error::{PoolError, Result};
use crate::pool::Pool;
use crate::range_tree::RangeTree;
use crate::scrub::{Damage, Scrubbed};
use icecore_dmu::zap::{self, ZapValue};
use icecore_dsl::ErrorLog;
use icecore_format::{Blkptr, Bookmark, Guid, ObjectId, ObjectType, Txg};
use phys::{CANCELED, ENTRY, FINISHED, Place, RESILVER, SCRUB, ScanPhys};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use turn::Turn;

/// Blocks of a fill: 160 bytes each.
const FILL: usize = 128 << 10;
/// Bytes of a fill: what is examined again after a crash.
const FILL_BYTES: u64 = 16 << 30;
/// Ranges remembered as freed; with more of them the fill is given up and walked anew.
const FREED_MAX: usize = 1 << 18;
/// Up to which txg the pool was scrubbed (`DMU_POOL_LAST_SCRUBBED_TXG`, dmu.h).
pub(crate) const LAST_SCRUBBED: &str = "last_scrubbed_txg";

/// A scan of a pool open for writing, if there is one under way.
#[derive(Default)]
pub(crate) struct Scanning(Mutex<Option<Box<Scan>>>);

impl Scanning {
    fn lock(&self) -> MutexGuard<'_, Option<Box<Scan>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// One that gives `to` what was born by `max_txg` and in the txgs that it `missed`.
    pub(crate) fn copying(pool: &Pool, to: Guid, missed: RangeTree, max_txg: Txg) -> Self {
        let clock = &pool.io.env.clock;
        let since = missed.iter().next().map_or(u64::MAX, |(start, _)| start.saturating_sub(1));
        let phys = ScanPhys::new(RESILVER, since, max_txg.0, clock.now(), pool.io.space().allocated);
        let place = Place { phys, queue: BTreeMap::new() };
        let mut scan = Scan::new(place, clock.now(), clock.monotonic_ns());
        scan.task = Task::Copy { to, missed };
        Self::new(Some(scan))
    }
    /// What one that copies has done, if it copied all that it should; or why not.
    pub(crate) fn copied(&mut self) -> std::result::Result<Scrubbed, String> {
        let Some(scan) = self.lock().take() else { return Err("nothing was copied".into()) };
        if let Some(why) = scan.given_up {
            return Err(why);
        }
        if !scan.now.is_end() || scan.done.is_some() {
            return Err("the resilver was stopped".into());
        }
        match scan.found.unseen.first() {
            Some(first) => Err(format!("not all of the pool could be read: {}", first.why)),
            None => Ok(scan.found),
        }
    }
    fn new(scan: Option<Scan>) -> Self {
        Self(Mutex::new(scan.map(Box::new)))
    }
}

/// What is done to each block.
enum Task {
    /// All its copies are read, and mended.
    Scrub,
    /// A side of a mirror gets its copies of those born in the txgs that it missed.
    Copy { to: Guid, missed: RangeTree },
}

/// A scan under way.
struct Scan {
    task: Task,
    /// Why it cannot come to its end.
    given_up: Option<String>,
    /// Behind the last block in `todo`.
    now: Place,
    /// Before the first one.
    began: Place,
    /// What the pool knows.
    saved: Place,
    /// The fill; sorted, once it is complete.
    todo: Vec<(Blkptr, Bookmark)>,
    /// Bytes in it.
    bytes: u64,
    /// How many of it have been examined; `None` while it grows.
    done: Option<usize>,
    /// Blocks that a fill takes, and the present one.
    fill: usize,
    room: usize,
    freed: BTreeMap<u32, RangeTree>,
    pass: Pass,
    found: Scrubbed,
    /// Metadata not seen, each told once.
    unseen: BTreeSet<Bookmark>,
    /// Lost, and not in the pool's log yet.
    unlogged: Vec<(Bookmark, Txg)>,
    /// How much of `found.damage` was tried to be fetched from elsewhere.
    tried: usize,
    /// Repairs were written since the last flush.
    unflushed: bool,
    saved_ns: u64,
}

/// What is counted since this process goes on with the scan (`spa_scan_stat_init`).
#[derive(Clone, Copy, Default, Debug)]
struct Pass {
    start: u64,
    paused: Option<u64>,
    spent_paused: u64,
    exam: u64,
    issued: u64,
    issued_before: u64,
}

/// A scan for people.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ScanStatus {
    /// As the pool has it, or would have it now.
    pub phys: ScanPhys,
    /// Bytes examined, not only found.
    pub issued: u64,
    /// Of these, since this process goes on with it.
    pub pass_issued: u64,
    /// Bytes found since this process goes on with it.
    pub pass_exam: u64,
    /// Seconds of work since.
    pub elapsed: u64,
    /// Since when it is paused.
    pub paused: Option<u64>,
    /// When this process began to go on with it; 0 if it does not.
    pub pass_start: u64,
    /// Seconds of that in which it was paused.
    pub spent_paused: u64,
}

impl Scan {
    fn new(place: Place, now: u64, now_ns: u64) -> Self {
        let phys = &place.phys;
        let pass = Pass {
            start: now,
            paused: phys.is_paused().then_some(now),
            issued_before: phys.examined.saturating_sub(phys.skipped),
            ..Pass::default()
        };
        Self {
            task: Task::Scrub,
            given_up: None,
            began: place.clone(),
            saved: place.clone(),
            now: place,
            todo: Vec::new(),
            bytes: 0,
            done: None,
            fill: FILL,
            room: FILL,
            freed: BTreeMap::new(),
            pass,
            found: Scrubbed::default(),
            unseen: BTreeSet::new(),
            unlogged: Vec::new(),
            tried: 0,
            unflushed: false,
            saved_ns: now_ns,
        }
    }

    /// Gives the present fill up, to be walked anew in smaller pieces.
    fn rewind(&mut self) {
        let processed = self.now.phys.processed;
        self.now = self.began.clone();
        self.now.phys.processed = processed;
        self.room = (self.room / 2).max(self.fill.min(1 << 12));
        (self.bytes, self.done) = (0, None);
        self.todo.clear();
        self.freed.clear();
    }

    /// What the pool may know: where the fill began, and what was repaired until now.
    fn place(&self) -> Place {
        let mut place = self.began.clone();
        place.phys.processed = self.now.phys.processed;
        place
    }

    fn took_back(&mut self, freed: &BTreeMap<u32, RangeTree>) {
        for (vdev, ranges) in freed {
            let known = self.freed.entry(*vdev).or_default();
            ranges.iter().for_each(|(start, len)| known.cover(start, len));
        }
        if self.freed.values().map(RangeTree::count).sum::<usize>() > FREED_MAX {
            self.rewind();
        }
    }

    fn was_freed(&self, bp: &Blkptr) -> bool {
        let gone =
            |d: &icecore_format::Dva| self.freed.get(&d.vdev()).is_some_and(|f| f.touches(d.offset(), 512));
        bp.dvas().iter().any(gone)
    }
}

const UNDER_WAY: &str = "currently scrubbing; use 'zpool scrub -s' to cancel scrub";

fn refused<T>(why: &str) -> Result<T> {
    Err(PoolError::Invalid(why.into()))
}

impl Pool {
    /// Takes in the scan that was under way when the pool was last written.
    pub(crate) fn load_scan(&mut self) -> Result<()> {
        let Some(words) = self.dsl.directory_words(&self.io, ENTRY)? else { return Ok(()) };
        let phys = ScanPhys::parse(&words);
        if !phys.is_active() || phys.func != SCRUB {
            return Ok(());
        }
        let mut queue = BTreeMap::new();
        if phys.queue_obj != 0 {
            for entry in zap::iter(&self.dsl.mos, &self.io, ObjectId(phys.queue_obj))? {
                let object = u64::from_str_radix(&entry.name_str(), 16);
                if let (Ok(object), Some(since)) = (object, entry.value.as_u64()) {
                    queue.insert(object, since);
                }
            }
        }
        let clock = &self.io.env.clock;
        let scan = Scan::new(Place { phys, queue }, clock.now(), clock.monotonic_ns());
        self.io.watch_frees(true);
        self.scanning = Scanning::new(Some(scan));
        Ok(())
    }

    /// What scans have to know of what is freed, they are told.
    pub(crate) fn watch_frees(&mut self) {
        let watch = self.is_scanning() || self.resilvering().is_some();
        self.io.watch_frees(watch);
    }

    /// Whether a scrub is under way, paused or not.
    #[must_use]
    pub fn is_scanning(&self) -> bool {
        self.scanning.lock().is_some()
    }

    /// Begins a scrub (`dsl_scan_setup_sync`), or goes on with the one that is paused. All labels are written anew, so damage to
    /// them is repaired by it.
    ///
    /// # Errors
    /// One is under way; or as any write.
    pub fn scan_start(&mut self) -> Result<()> {
        self.scan_start_from(0)
    }

    /// The same of what was written after the pool was last scrubbed to the end (`zpool scrub -C`; `spa_scan_range`, spa.c).
    ///
    /// # Errors
    /// As [`Pool::scan_start`].
    pub fn scan_start_since_last(&mut self) -> Result<()> {
        let last = self.dsl.directory_entry(&self.io, LAST_SCRUBBED)?;
        self.scan_start_from(last.unwrap_or(0))
    }

    fn scan_start_from(&mut self, min_txg: u64) -> Result<()> {
        self.io.check_writable()?;
        if self.resilvering().is_some() {
            return refused("currently resilvering");
        }
        if let Some(scan) = &*self.scanning.lock() {
            if !scan.now.phys.is_paused() {
                return refused(UNDER_WAY);
            }
        } else {
            return self.scan_begin(min_txg);
        }
        self.scan_set_paused(false)
    }

    fn scan_begin(&mut self, min_txg: u64) -> Result<()> {
        let (now, now_ns) = (self.io.env.clock.now(), self.io.env.clock.monotonic_ns());
        let mut phys = ScanPhys::new(SCRUB, min_txg, self.io.txg.0, now, self.io.space().allocated);
        let (labels, labels_left) = self.scrub_labels();
        let (io, dsl) = self.parts();
        dsl.errlog_drop_scrub(io)?;
        phys.queue_obj = zap::create(&mut dsl.mos, io, ObjectType::SCAN_QUEUE, None, 0)?.0;
        dsl.set_directory_words(io, ENTRY, &phys.words())?;
        self.config_dirty = true;
        self.commit()?;
        let place = Place { phys, queue: BTreeMap::new() };
        self.io.watch_frees(true);
        let mut scan = Scan::new(place, now, now_ns);
        (scan.found.labels, scan.found.labels_left) = (labels, labels_left);
        self.scanning = Scanning::new(Some(scan));
        Ok(())
    }

    /// For tests: a fill has so many blocks.
    pub fn scan_fill(&self, blocks: usize) {
        for scans in [&self.scanning, &self.copying] {
            if let Some(scan) = &mut *scans.lock() {
                (scan.fill, scan.room) = (blocks, blocks);
            }
        }
    }

    /// Pauses a scrub (`dsl_scrub_pause_resume_sync`); [`Pool::scan_start`] resumes it.
    ///
    /// # Errors
    /// There is none, or it is paused; or as any write.
    pub fn scan_pause(&mut self) -> Result<()> {
        match &*self.scanning.lock() {
            None => return refused("there is no active scrub"),
            Some(scan) if scan.now.phys.is_paused() => {
                return refused("scrub is paused; use 'zpool scrub' to resume scrub");
            }
            Some(_) => {}
        }
        self.scan_set_paused(true)
    }

    fn scan_set_paused(&mut self, paused: bool) -> Result<()> {
        let mut scan = self.scanning.lock().take();
        let now = self.io.env.clock.now();
        if let Some(scan) = &mut scan {
            scan.now.phys.set_paused(paused);
            scan.began.phys.set_paused(paused);
            if let Some(since) = scan.pass.paused.take() {
                scan.pass.spent_paused += now.saturating_sub(since);
            }
            scan.pass.paused = paused.then_some(now);
        }
        self.scan_store(scan)
    }

    /// Ends a scrub before its end. What it found stays known; if it found nothing, what was known before does.
    ///
    /// # Errors
    /// There is none; or as any write.
    pub fn scan_cancel(&mut self) -> Result<()> {
        if self.scanning.lock().is_none() {
            return refused("there is no active scrub");
        }
        self.scan_over(CANCELED).map(|_| ())
    }

    /// Ends a scrub that has examined all (`dsl_scan_done`). What it found.
    ///
    /// # Errors
    /// As any write.
    pub fn scan_finish(&mut self) -> Result<Scrubbed> {
        self.scan_over(FINISHED)
    }

    fn scan_over(&mut self, state: u64) -> Result<Scrubbed> {
        let Some(mut scan) = self.scanning.lock().take() else { return refused("there is no active scrub") };
        let done = self.scan_close(&mut scan, state);
        if let Err(e) = done {
            *self.scanning.lock() = Some(scan);
            return Err(e);
        }
        self.watch_frees();
        Ok(scan.found)
    }

    fn scan_close(&mut self, scan: &mut Scan, state: u64) -> Result<()> {
        self.scan_flush(scan)?;
        self.scan_log(scan)?;
        let mut phys = scan.now.phys;
        let errors = phys.errors;
        let old_queue = std::mem::take(&mut phys.queue_obj);
        (phys.state, phys.end) = (state, self.io.env.clock.now());
        phys.set_paused(false);
        let (io, dsl) = self.parts();
        if old_queue != 0 {
            dsl.mos.free_object(io, ObjectId(old_queue))?;
        }
        if state == FINISHED {
            dsl.set_directory_entry(io, LAST_SCRUBBED, phys.max_txg)?;
        }
        if state == FINISHED || errors > 0 {
            dsl.errlog_rotate(io)?;
        } else {
            dsl.errlog_drop_scrub(io)?;
        }
        dsl.set_directory_words(io, ENTRY, &phys.words())?;
        self.commit().map(|_| ())
    }

    /// Lets the pool know how far the scan is.
    ///
    /// # Errors
    /// As any write.
    pub fn scan_save(&mut self) -> Result<()> {
        let scan = self.scanning.lock().take();
        self.scan_store(scan)
    }

    fn scan_store(&mut self, scan: Option<Box<Scan>>) -> Result<()> {
        let Some(mut scan) = scan else { return Ok(()) };
        let done = self.scan_write(&mut scan);
        scan.saved_ns = self.io.env.clock.monotonic_ns();
        // The commit has to know of it: what it frees may be in the fill.
        *self.scanning.lock() = Some(scan);
        done?;
        self.commit().map(|_| ())
    }

    /// Puts the place of `scan` into the open txg, with what it lost.
    fn scan_write(&mut self, scan: &mut Scan) -> Result<()> {
        self.scan_flush(scan)?;
        self.scan_log(scan)?;
        let mut place = scan.place();
        let (io, dsl) = self.parts();
        if place.queue != scan.saved.queue || place.phys.queue_obj == 0 {
            if place.phys.queue_obj != 0 {
                dsl.mos.free_object(io, ObjectId(place.phys.queue_obj))?;
            }
            let object = zap::create(&mut dsl.mos, io, ObjectType::SCAN_QUEUE, None, 0)?;
            for (dataset, since) in &place.queue {
                zap::add(&mut dsl.mos, io, object, &format!("{dataset:x}"), &ZapValue::u64(*since))?;
            }
            for place in [&mut place, &mut scan.began, &mut scan.now] {
                place.phys.queue_obj = object.0;
            }
        }
        dsl.set_directory_words(io, ENTRY, &place.phys.words())?;
        scan.saved = place;
        Ok(())
    }

    fn scan_flush(&mut self, scan: &mut Scan) -> Result<()> {
        if std::mem::take(&mut scan.unflushed) {
            self.io.flush_repairs().map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    fn scan_log(&mut self, scan: &mut Scan) -> Result<()> {
        let (io, dsl) = self.parts();
        for (at, birth) in std::mem::take(&mut scan.unlogged) {
            dsl.errlog_add(io, ErrorLog::Scrub, &at, birth)?;
        }
        Ok(())
    }

    /// Part of every commit, before it: what happened to datasets in this txg happens to the scan's places.
    pub(crate) fn sync_scan(&mut self) -> Result<()> {
        let events = std::mem::take(&mut self.dsl.events);
        if let Some(copying) = &mut *self.copying.lock() {
            for event in &events {
                copying.now.follow(event);
                copying.began.follow(event);
            }
        }
        self.forget_bootfs(&events)?;
        let Some(mut scan) = self.scanning.lock().take() else { return Ok(()) };
        let mut moved = false;
        for event in &events {
            scan.now.follow(event);
            moved |= scan.began.follow(event);
        }
        let done = if moved { self.scan_write(&mut scan) } else { Ok(()) };
        *self.scanning.lock() = Some(scan);
        done
    }

    /// Puts the place of the scan into the open txg.
    pub(crate) fn stage_scan(&mut self) -> Result<()> {
        let Some(mut scan) = self.scanning.lock().take() else { return Ok(()) };
        let done = self.scan_write(&mut scan);
        *self.scanning.lock() = Some(scan);
        done
    }

    /// After a commit: the freed blocks of its txg are free.
    pub(crate) fn scan_committed(&mut self) {
        let freed = self.io.take_freed();
        for scans in [&self.scanning, &self.copying] {
            if let Some(scan) = &mut *scans.lock() {
                scan.took_back(&freed);
            }
        }
    }

    /// The last scan, or the one under way, a resilver before a scrub; `None` if there never was one.
    ///
    /// # Errors
    /// The MOS directory cannot be read.
    pub fn scan_status(&self) -> std::result::Result<Option<ScanStatus>, icecore_dsl::DslError> {
        let now = self.io.env.clock.now();
        let copying = self.copying.lock();
        let scanning = self.scanning.lock();
        if let Some(scan) = copying.as_ref().or(scanning.as_ref()) {
            let pass = &scan.pass;
            let worked = pass.paused.unwrap_or(now).saturating_sub(pass.start);
            return Ok(Some(ScanStatus {
                phys: scan.now.phys,
                issued: pass.issued_before + pass.issued,
                pass_issued: pass.issued,
                pass_exam: pass.exam,
                elapsed: worked.saturating_sub(pass.spent_paused).max(1),
                paused: pass.paused,
                pass_start: pass.start,
                spent_paused: pass.spent_paused,
            }));
        }
        let Some(words) = self.dsl.directory_words(&self.io, ENTRY)? else { return Ok(None) };
        let phys = ScanPhys::parse(&words);
        let paused = phys.is_paused().then_some(now);
        let issued = phys.examined.saturating_sub(phys.skipped);
        let status = ScanStatus { phys, issued, elapsed: 1, paused, ..ScanStatus::default() };
        Ok((phys.func != 0).then_some(status))
    }

    /// What is lost and was not yet tried to be fetched elsewhere (see [`crate::heal`]).
    #[must_use]
    pub fn scan_lost(&self) -> Vec<Damage> {
        let mut scan = self.scanning.lock();
        let Some(scan) = &mut *scan else { return Vec::new() };
        let new = scan.found.damage.get(scan.tried..).unwrap_or_default();
        let lost = new.iter().filter(|d| d.seen.lost).cloned().collect();
        scan.tried = scan.found.damage.len();
        lost
    }

    /// A lost block was put back from elsewhere.
    pub fn scan_fetched(&self, damage: &Damage) {
        let mut scan = self.scanning.lock();
        let Some(scan) = &mut *scan else { return };
        if let Some(known) = scan.found.damage.iter_mut().find(|d| d.at == damage.at && d.seen.lost) {
            known.seen.lost = false;
            known.seen.repaired += 1;
            scan.found.lost -= 1;
            scan.found.repaired_bytes += damage.bp.psize();
            scan.now.phys.errors = scan.now.phys.errors.saturating_sub(1);
            scan.now.phys.processed += damage.bp.psize();
            scan.unlogged.retain(|(at, _)| *at != damage.at);
            scan.unflushed = true;
        }
    }
}
