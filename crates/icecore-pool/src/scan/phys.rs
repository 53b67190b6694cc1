//! A scan as the pool keeps it: 24 words in the MOS directory (`dsl_scan_phys_t`, dsl_scan.h), and beside them the
//! datasets still to be visited (`scn_queue_obj`).

use icecore_dsl::DatasetEvent;
use std::collections::BTreeMap;

/// The entry of the MOS directory (`DMU_POOL_SCAN`).
pub(crate) const ENTRY: &str = "scan";
/// Words of it.
const WORDS: usize = 24;

/// `POOL_SCAN_SCRUB`.
pub const SCRUB: u64 = 1;
/// `POOL_SCAN_RESILVER`.
pub const RESILVER: u64 = 2;
/// `DSS_SCANNING`.
pub const SCANNING: u64 = 1;
/// `DSS_FINISHED`.
pub const FINISHED: u64 = 2;
/// `DSS_CANCELED`.
pub const CANCELED: u64 = 3;

/// `DSF_VISIT_DS_AGAIN`: the dataset being visited took the place of one that was destroyed.
const AGAIN: u64 = 1;
/// `DSF_SCRUB_PAUSED`.
const PAUSED: u64 = 2;
/// `ZB_DESTROYED_OBJSET`: in no dataset at present; the queue tells the next.
pub(super) const BETWEEN: u64 = u64::MAX;
/// Of deduplicated blocks those in more than one place are visited by their table first (`zfs_scrub_ddt_class_max`).
const DDT_CLASS_MAX: u64 = 1;
/// Past all of the tables (`DDT_CLASSES`).
const DDT_DONE: u64 = 3;

/// What is known of a scan.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ScanPhys {
    /// `POOL_SCAN_*`.
    pub func: u64,
    /// `DSS_*`.
    pub state: u64,
    /// Object of the datasets to be visited, 0 for none.
    pub queue_obj: u64,
    /// Blocks born up to then are passed over.
    pub min_txg: u64,
    /// Blocks born later are none of its business.
    pub max_txg: u64,
    /// The same of the dataset being visited.
    pub cur_min_txg: u64,
    /// The same of the dataset being visited.
    pub cur_max_txg: u64,
    /// Seconds since 1970.
    pub start: u64,
    /// Seconds since 1970.
    pub end: u64,
    /// Bytes allocated when it began.
    pub to_examine: u64,
    /// Bytes visited.
    pub examined: u64,
    /// Of these, passed over.
    pub skipped: u64,
    /// Bytes rewritten.
    pub processed: u64,
    /// Blocks that could not be repaired.
    pub errors: u64,
    /// Classes of dedup tables to be visited.
    pub ddt_class_max: u64,
    /// Where in the tables it is.
    pub ddt: [u64; 4],
    /// Where it is: objset, object, level, block. Zeros are the beginning of the MOS.
    pub at: [u64; 4],
    /// `DSF_*`.
    pub flags: u64,
}

impl ScanPhys {
    /// A scan of what was born after `min_txg` and is there in `max_txg`.
    pub(super) fn new(func: u64, min_txg: u64, max_txg: u64, start: u64, to_examine: u64) -> Self {
        Self {
            func,
            state: SCANNING,
            min_txg,
            max_txg,
            cur_min_txg: min_txg,
            cur_max_txg: max_txg,
            start,
            to_examine,
            ddt_class_max: DDT_CLASS_MAX,
            // Pools with entries in them are not written to.
            ddt: [DDT_DONE, 0, 0, 0],
            ..Self::default()
        }
    }

    /// From the words of a pool; what is missing is 0.
    pub(crate) fn parse(words: &[u64]) -> Self {
        let w = |i: usize| words.get(i).copied().unwrap_or(0);
        Self {
            func: w(0),
            state: w(1),
            queue_obj: w(2),
            min_txg: w(3),
            max_txg: w(4),
            cur_min_txg: w(5),
            cur_max_txg: w(6),
            start: w(7),
            end: w(8),
            to_examine: w(9),
            examined: w(10),
            skipped: w(11),
            processed: w(12),
            errors: w(13),
            ddt_class_max: w(14),
            ddt: [w(15), w(16), w(17), w(18)],
            at: [w(19), w(20), w(21), w(22)],
            flags: w(23),
        }
    }

    /// The words.
    pub(crate) fn words(&self) -> [u64; WORDS] {
        let Self { ddt: [d0, d1, d2, d3], at: [a0, a1, a2, a3], .. } = *self;
        [
            self.func,
            self.state,
            self.queue_obj,
            self.min_txg,
            self.max_txg,
            self.cur_min_txg,
            self.cur_max_txg,
            self.start,
            self.end,
            self.to_examine,
            self.examined,
            self.skipped,
            self.processed,
            self.errors,
            self.ddt_class_max,
            d0,
            d1,
            d2,
            d3,
            a0,
            a1,
            a2,
            a3,
            self.flags,
        ]
    }

    /// Whether it is under way, paused or not.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state == SCANNING
    }
    /// Whether it rests until somebody resumes it.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.is_active() && self.flags & PAUSED != 0
    }
    pub(super) fn set_paused(&mut self, paused: bool) {
        self.flags = if paused { self.flags | PAUSED } else { self.flags & !PAUSED };
    }
    pub(super) fn visits_again(&self) -> bool {
        self.flags & AGAIN != 0
    }
    pub(super) fn set_again(&mut self, again: bool) {
        self.flags = if again { self.flags | AGAIN } else { self.flags & !AGAIN };
    }
}

/// How far a scan is: everything before is done.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub phys: ScanPhys,
    /// Datasets to be visited, and since which txg.
    pub queue: BTreeMap<u64, u64>,
}

impl Place {
    /// Whether all datasets were visited.
    pub fn is_end(&self) -> bool {
        self.phys.at[0] == BETWEEN && self.queue.is_empty()
    }

    /// Moves on with a dataset that was destroyed, snapshotted or swapped. True if the place changed.
    pub fn follow(&mut self, event: &DatasetEvent) -> bool {
        let before = (self.phys.at, self.phys.flags);
        let here = self.phys.at[0];
        let (object, instead) = match *event {
            DatasetEvent::Destroyed { object, next } => {
                if here == object && next.is_some() {
                    self.phys.set_again(true);
                }
                (object, next)
            }
            DatasetEvent::Snapshotted { head, snap } => (head, Some(snap)),
            DatasetEvent::Swapped(a, b) => return self.swap(a, b),
        };
        if here == object {
            self.phys.at = match instead {
                Some(next) => [next, self.phys.at[1], self.phys.at[2], self.phys.at[3]],
                None => [BETWEEN, 0, 0, 0],
            };
        }
        let queued = self.queue.remove(&object);
        if let (Some(since), Some(next)) = (queued, instead) {
            let known = self.queue.entry(next).or_insert(since);
            *known = since.min(*known);
        }
        queued.is_some() || before != (self.phys.at, self.phys.flags)
    }

    fn swap(&mut self, a: u64, b: u64) -> bool {
        let here = self.phys.at[0];
        let changed = here == a || here == b;
        if changed {
            self.phys.at[0] = if here == a { b } else { a };
        }
        match (self.queue.remove(&a), self.queue.remove(&b)) {
            (None, None) => return changed,
            (of_a, of_b) => {
                self.queue.extend(of_a.map(|since| (b, since)));
                self.queue.extend(of_b.map(|since| (a, since)));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_go_and_come() {
        let words: [u64; WORDS] = std::array::from_fn(|i| i as u64 + 100);
        assert_eq!(ScanPhys::parse(&words).words(), words);
        assert_eq!(ScanPhys::parse(&[1, 2]).words()[..3], [1, 2, 0]);
    }

    #[test]
    fn a_place_follows_its_datasets() {
        let mut phys = ScanPhys::new(SCRUB, 0, 50, 0, 0);
        phys.at = [10, 7, 0, 3];
        let mut place = Place { phys, queue: BTreeMap::from([(20, 5), (30, 6)]) };
        assert!(!place.follow(&DatasetEvent::Snapshotted { head: 40, snap: 41 }));
        assert!(place.follow(&DatasetEvent::Destroyed { object: 10, next: Some(11) }));
        assert_eq!((place.phys.at, place.phys.visits_again()), ([11, 7, 0, 3], true));
        assert!(place.follow(&DatasetEvent::Snapshotted { head: 20, snap: 21 }));
        assert!(place.follow(&DatasetEvent::Destroyed { object: 30, next: None }));
        assert_eq!(place.queue, BTreeMap::from([(21, 5)]));
        assert!(place.follow(&DatasetEvent::Swapped(11, 21)));
        assert_eq!((place.phys.at[0], &place.queue), (21, &BTreeMap::from([(11, 5)])));
        assert!(place.follow(&DatasetEvent::Destroyed { object: 21, next: None }));
        assert_eq!(place.phys.at, [BETWEEN, 0, 0, 0]);
        assert!(!place.is_end());
    }
}
