//! What a simulated disk does wrong, as plain data: a fault plan.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A fault plan. Operations are counted from 0: writes and flushes together (`ops`), flushes alone
/// (`flushes`), writes alone (`writes`), over the life of the disk it is given to.
#[derive(Clone, Default, Debug)]
pub struct Faults {
    /// Power ends at this write or flush: it and all later operations (reads too) fail with `Gone`. A
    /// write at the cut itself may land in part when the disk is then crashed.
    pub cut_at_op: Option<u64>,
    /// Flushes that report success and do nothing.
    pub lying_flushes: BTreeSet<u64>,
    /// Flushes that fail, doing nothing.
    pub failing_flushes: BTreeSet<u64>,
    /// Reads touching these byte ranges fail.
    pub unreadable: Vec<Range<u64>>,
    /// Writes touching these byte ranges fail.
    pub unwritable: Vec<Range<u64>>,
    /// Writes that report success and go nowhere.
    pub lost_writes: BTreeSet<u64>,
    /// Writes that land this many bytes away (if that is on the disk).
    pub misdirected_writes: BTreeMap<u64, i64>,
    /// Writes to sectors never written before fail with `NoSpace` once this many are in use.
    pub sectors_max: Option<u64>,
    /// Writes are refused.
    pub read_only: bool,
}

impl Faults {
    /// No faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }
    pub(crate) fn hits(ranges: &[Range<u64>], offset: u64, len: u64) -> bool {
        ranges.iter().any(|r| offset < r.end && offset.saturating_add(len) > r.start)
    }
}
