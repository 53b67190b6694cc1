//! The log of allocations and frees that a metaslab keeps in the MOS (`space_map_phys_t` and the entry
//! layouts, space_map.h): reading and writing its words. No I/O here.
//!
//! Invariants:
//! 1. A two-word entry never straddles a block: the last word of a block is padded with an empty debug entry.
//! 2. `alloc` is the sum of all ALLOC runs less that of all FREE runs; `length` is the bytes in use.

use icecore_format::Corrupt;
use icecore_format::reader::{put_u64_at, u64_at};

use crate::range_tree::RangeTree;

/// Bytes of the head (bonus) with the histogram (`sizeof (space_map_phys_t)`).
pub const PHYS_SIZE: usize = 320;
/// Bytes of the head in pools without the spacemap_histogram feature (`SPACE_MAP_SIZE_V0`).
pub const PHYS_SIZE_V0: usize = 24;
const HISTOGRAM_AT: usize = 64;
const BUCKETS: usize = 32;
const RUN_MAX: u64 = 1 << 15;
const OFFSET_MAX: u64 = 1 << 47;
const RUN_MAX_2: u64 = 1 << 36;
/// In a two-word entry: no vdev named (`SM_NO_VDEVID` cut to 24 bits).
const NO_VDEV: u64 = 0;

/// Whether an entry allocates or frees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The range was allocated.
    Alloc,
    /// The range was freed.
    Free,
}

/// One change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What happened.
    pub kind: Kind,
    /// Top-level vdev, in two-word entries (logs of the whole pool).
    pub vdev: Option<u32>,
    /// First byte, relative to the map's start.
    pub offset: u64,
    /// Bytes.
    pub run: u64,
}

/// Calls `each` for every entry in `bytes` (a prefix of the map, whole words). `shift`: log2 of the unit.
pub fn decode(
    bytes: &[u8],
    shift: u32,
    mut each: impl FnMut(Entry) -> Result<(), Corrupt>,
) -> Result<(), Corrupt> {
    let bad = |why: String| Corrupt::new("space map", why);
    if shift > 40 {
        return Err(bad(format!("unit shift {shift}")));
    }
    let mut words = bytes.chunks_exact(8).map(|w| u64_at(w, 0));
    while let Some(w) = words.next() {
        let entry = match w >> 62 {
            2 => continue,
            3 => {
                let w2 = words.next().ok_or_else(|| bad("half an entry at the end".into()))?;
                Entry {
                    kind: if w2 >> 63 == 0 { Kind::Alloc } else { Kind::Free },
                    vdev: Some((w & 0xff_ffff) as u32),
                    offset: (w2 & (u64::MAX >> 1)) << shift,
                    run: ((w >> 24 & (RUN_MAX_2 - 1)) + 1) << shift,
                }
            }
            _ => Entry {
                kind: if w >> 15 & 1 == 0 { Kind::Alloc } else { Kind::Free },
                vdev: None,
                offset: (w >> 16 & (OFFSET_MAX - 1)) << shift,
                run: ((w & (RUN_MAX - 1)) + 1) << shift,
            },
        };
        if entry.offset.checked_add(entry.run).is_none() {
            return Err(bad(format!("{} bytes at {:#x}", entry.run, entry.offset)));
        }
        each(entry)?;
    }
    Ok(())
}

/// Where and how entries are written.
#[derive(Clone, Copy, Debug)]
pub struct Encoding {
    /// First byte of the metaslab.
    pub start: u64,
    /// log2 of the unit: the vdev's ashift.
    pub shift: u32,
    /// Block size of the map's object.
    pub block: u64,
    /// Whether two-word entries may be used (spacemap_v2 active).
    pub two_words: bool,
}

/// The words that append `tree` to a map of `length` bytes: an introducing debug entry, then the ranges.
#[must_use]
pub fn encode(tree: &RangeTree, kind: Kind, how: &Encoding, length: u64, txg: u64, pass: u32) -> Vec<u8> {
    let mut out = Vec::new();
    if tree.is_empty() {
        return out;
    }
    let bit = u64::from(kind == Kind::Free);
    let push = |out: &mut Vec<u8>, w: u64| out.extend_from_slice(&w.to_le_bytes());
    push(&mut out, 2 << 62 | bit << 60 | u64::from(pass & 0x3ff) << 50 | (txg & ((1 << 50) - 1)));
    for (start, len) in tree.iter() {
        let (mut offset, mut left) = ((start - how.start) >> how.shift, len >> how.shift);
        let double = how.two_words && (left > RUN_MAX || offset >= OFFSET_MAX);
        while left > 0 {
            if !double {
                let run = left.min(RUN_MAX);
                push(&mut out, offset << 16 | bit << 15 | (run - 1));
                (offset, left) = (offset + run, left - run);
                continue;
            }
            if (length + out.len() as u64) % how.block == how.block - 8 {
                push(&mut out, 2 << 62);
            }
            let run = left.min(RUN_MAX_2);
            push(&mut out, 3 << 62 | (run - 1) << 24 | NO_VDEV);
            push(&mut out, bit << 63 | offset);
            (offset, left) = (offset + run, left - run);
        }
    }
    out
}

/// The head of a space map object: its bonus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Phys {
    raw: Vec<u8>,
}

impl Phys {
    /// An empty map with room for a histogram.
    #[must_use]
    pub fn new() -> Self {
        Self { raw: vec![0; PHYS_SIZE] }
    }
    /// From the bonus of a space map object.
    pub fn parse(bonus: &[u8]) -> Result<Self, Corrupt> {
        if bonus.len() < PHYS_SIZE_V0 {
            return Err(Corrupt::new("space map head", format!("{} bytes", bonus.len())));
        }
        Ok(Self { raw: bonus.to_vec() })
    }
    /// The bonus.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.raw
    }
    /// The map's own object number (kept only for old readers).
    pub fn set_object(&mut self, object: u64) {
        let _ = put_u64_at(&mut self.raw, 0, object);
    }
    /// Bytes of entries.
    #[must_use]
    pub fn length(&self) -> u64 {
        u64_at(&self.raw, 8)
    }
    /// Sets the bytes of entries.
    pub fn set_length(&mut self, length: u64) {
        let _ = put_u64_at(&mut self.raw, 8, length);
    }
    /// Bytes allocated according to the entries.
    #[must_use]
    pub fn alloc(&self) -> i64 {
        u64_at(&self.raw, 16).cast_signed()
    }
    /// Sets the bytes allocated.
    pub fn set_alloc(&mut self, alloc: i64) {
        let _ = put_u64_at(&mut self.raw, 16, alloc.cast_unsigned());
    }
    /// Free regions by size: bucket i counts those of 2^(i+shift) bytes and more.
    #[must_use]
    pub fn histogram(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|i| u64_at(&self.raw, HISTOGRAM_AT + 8 * i))
    }
    /// Whether there is room for one: not in pools that were older when the map was made.
    #[must_use]
    pub fn has_histogram(&self) -> bool {
        self.raw.len() >= PHYS_SIZE
    }
    /// Forgets the histogram.
    pub fn clear_histogram(&mut self) {
        if let Some(h) = self.raw.get_mut(HISTOGRAM_AT..) {
            h.fill(0);
        }
    }
    /// Counts the ranges of `tree` in; larger ones than the last bucket count as several of it
    /// (`space_map_histogram_add`).
    pub fn add_histogram(&mut self, tree: &RangeTree, shift: u32) {
        if self.raw.len() < PHYS_SIZE {
            return;
        }
        for (i, count) in tree.histogram().into_iter().enumerate().skip(shift as usize) {
            let over = i - shift as usize;
            let bucket = over.min(BUCKETS - 1);
            let at = HISTOGRAM_AT + 8 * bucket;
            let scaled = count.checked_shl((over - bucket) as u32).unwrap_or(u64::MAX);
            let sum = u64_at(&self.raw, at).saturating_add(scaled);
            let _ = put_u64_at(&mut self.raw, at, sum);
        }
    }
}

impl Default for Phys {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(two_words: bool) {
        let mut tree = RangeTree::of(1 << 30, 5 << 12);
        tree.add((1 << 30) + (1 << 20), 70_000 << 12).unwrap();
        for i in 0..600 {
            tree.add((1 << 30) + (400 << 20) + i * (300 << 20), 200 << 20).unwrap();
        }
        let how = Encoding { start: 1 << 30, shift: 12, block: 4096, two_words };
        let words = encode(&tree, Kind::Free, &how, 4096 * 3 - 16, 77, 2);
        let mut back = RangeTree::new();
        decode(&words, 12, |e| {
            assert_eq!(e.kind, Kind::Free);
            back.add(e.offset + (1 << 30), e.run).unwrap();
            Ok(())
        })
        .unwrap();
        assert_eq!(back, tree);
        if two_words {
            // a pair may not cross from one block into the next
            let mut at = 4096 * 3 - 16;
            let mut words = words.chunks_exact(8).map(|w| u64_at(w, 0));
            while let Some(w) = words.next() {
                if w >> 62 == 3 {
                    assert_ne!(at % 4096, 4088);
                    words.next();
                    at += 8;
                }
                at += 8;
            }
        }
    }

    #[test]
    fn one_word_entries() {
        round_trip(false);
    }
    #[test]
    fn two_word_entries() {
        round_trip(true);
    }
    #[test]
    fn histogram_folds_large_ranges() {
        let mut phys = Phys::new();
        phys.add_histogram(&RangeTree::of(0, 1 << 45), 9);
        assert_eq!(phys.histogram()[31], 32);
        assert!(decode(&[0xff; 8], 9, |_| Ok(())).is_err());
    }
}
