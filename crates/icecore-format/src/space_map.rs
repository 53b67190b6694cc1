//! Space maps: logs of allocations and frees (`space_map_phys_t` and the entry encodings, space_map.h;
//! `space_map_iterate` and `space_map_write_seg`, space_map.c).
//!
//! Offsets and runs here are in units of the map (its shift), relative to its start. Invariant: the writer's
//! two-word entries never straddle a block, and the reader takes none that does.

use crate::Corrupt;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bonus without a histogram.
pub const SIZE_V0: usize = 24;
/// Bonus with a histogram.
pub const SIZE_V1: usize = 320;
/// Buckets of the histogram.
pub const HISTOGRAM_SIZE: usize = 32;
/// Largest offset of a one-word entry.
pub const OFFSET_MAX: u64 = (1 << 47) - 1;
/// Largest run of a one-word entry.
pub const RUN_MAX: u64 = 1 << 15;
/// Largest run of a two-word entry.
pub const RUN_MAX_V2: u64 = 1 << 36;
const VDEV_BITS: u32 = 24;

/// The bonus of a space map object.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug, Default,
)]
#[repr(C)]
pub struct SpaceMapPhys {
    /// The object's own number, once.
    pub object: U64,
    /// Bytes of log.
    pub length: U64,
    /// Bytes allocated, as a signed number.
    pub alloc: U64,
    /// Zero.
    pub pad: [U64; 5],
    /// Free regions by size: bucket i holds those of 2^(i + shift) bytes and up.
    pub histogram: [U64; HISTOGRAM_SIZE],
}
const _: () = assert!(size_of::<SpaceMapPhys>() == SIZE_V1);

impl SpaceMapPhys {
    /// The structure in a bonus buffer with or without histogram.
    pub fn parse(bonus: &[u8]) -> Result<Self, Corrupt> {
        let len = bonus.len().min(SIZE_V1);
        if len < SIZE_V0 {
            return Err(Corrupt::new("space map", format!("a bonus of {len} bytes")));
        }
        let mut phys = Self::default();
        if let (Some(to), Some(from)) = (phys.as_mut_bytes().get_mut(..len), bonus.get(..len)) {
            to.copy_from_slice(from);
        }
        if !phys.length.get().is_multiple_of(8) {
            return Err(Corrupt::new("space map", format!("a length of {}", phys.length)));
        }
        Ok(phys)
    }
    /// Writes as much as the bonus has room for.
    pub fn store(&self, bonus: &mut [u8]) {
        let len = bonus.len().min(SIZE_V1);
        if let (Some(to), Some(from)) = (bonus.get_mut(..len), self.as_bytes().get(..len)) {
            to.copy_from_slice(from);
        }
    }
}

/// What an entry says of its range.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MapType {
    /// It was allocated.
    Alloc,
    /// It was freed.
    Free,
}

/// An entry of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Allocated or freed.
    pub kind: MapType,
    /// The top-level vdev, in the pool-wide log of space map changes; 0 in all other maps.
    pub vdev: u32,
    /// First unit.
    pub offset: u64,
    /// How many units.
    pub run: u64,
    /// The txg the last debug entry named; 0 if none.
    pub txg: u64,
    /// The sync pass the last debug entry named.
    pub sync_pass: u16,
}

/// Reads the log, which may be given in pieces if they end at block boundaries.
pub struct Entries<'a> {
    words: std::slice::Iter<'a, [u8; 8]>,
    txg: u64,
    sync_pass: u16,
}

/// The entries of `bytes`: the first `length` bytes of the object, or one block of it.
#[must_use]
pub fn entries(bytes: &[u8]) -> Entries<'_> {
    Entries { words: bytes.as_chunks::<8>().0.iter(), txg: 0, sync_pass: 0 }
}

impl<'a> Entries<'a> {
    /// Goes on with the next block's bytes, remembering the txg.
    #[must_use]
    pub fn continue_with(self, bytes: &[u8]) -> Entries<'_> {
        Entries { words: bytes.as_chunks::<8>().0.iter(), txg: self.txg, sync_pass: self.sync_pass }
    }
    fn word(&mut self) -> Option<u64> {
        self.words.next().map(|w| u64::from_le_bytes(*w))
    }
}

const fn bits(word: u64, low: u32, len: u32) -> u64 {
    word.wrapping_shr(low) & 1_u64.wrapping_shl(len).wrapping_sub(1)
}
fn kind(bit: u64) -> MapType {
    if bit == 0 { MapType::Alloc } else { MapType::Free }
}

#[allow(clippy::cast_possible_truncation)] // fields are masked to their width
impl Iterator for Entries<'_> {
    type Item = Result<Entry, Corrupt>;
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let word = self.word()?;
            let (txg, sync_pass) = (self.txg, self.sync_pass);
            match bits(word, 62, 2) {
                2 => {
                    // A debug entry of txg 0 only fills the end of a block.
                    if bits(word, 0, 50) != 0 {
                        (self.txg, self.sync_pass) = (bits(word, 0, 50), bits(word, 50, 10) as u16);
                    }
                }
                3 => {
                    let Some(second) = self.word() else {
                        return Some(Err(Corrupt::new("space map", "half an entry at the end of a block")));
                    };
                    return Some(Ok(Entry {
                        kind: kind(bits(second, 63, 1)),
                        vdev: bits(word, 0, VDEV_BITS) as u32,
                        offset: bits(second, 0, 63),
                        run: bits(word, VDEV_BITS, 36).wrapping_add(1),
                        txg,
                        sync_pass,
                    }));
                }
                _ => {
                    return Some(Ok(Entry {
                        kind: kind(bits(word, 15, 1)),
                        vdev: 0,
                        offset: bits(word, 16, 47),
                        run: bits(word, 0, 15).wrapping_add(1),
                        txg,
                        sync_pass,
                    }));
                }
            }
        }
    }
}

/// Appends entries to a log whose last block is partly filled.
pub struct Writer {
    /// The words to append at the log's end.
    out: Vec<u8>,
    block: u64,
    at: u64,
}

impl Writer {
    /// A writer for a log of `length` bytes in blocks of `block` bytes.
    #[must_use]
    pub fn new(length: u64, block: u64) -> Self {
        Self { out: Vec::new(), block: block.max(16), at: length }
    }
    /// Opens the changes of one kind in one sync pass of one txg (`space_map_write_intro_debug`).
    pub fn intro(&mut self, kind: MapType, txg: u64, sync_pass: u64) {
        let action = if kind == MapType::Free { 1_u64 } else { 0 };
        let word = (2 << 62) | (action << 60) | (bits(sync_pass, 0, 10) << 50) | bits(txg, 0, 50);
        self.put(word);
    }
    /// Adds a range, cut into as many entries as it needs. Two-word entries are used if `v2` (the
    /// spacemap_v2 feature is active) and the range or a vdev call for them.
    pub fn range(&mut self, kind: MapType, vdev: Option<u32>, offset: u64, run: u64, v2: bool) {
        let two_words = v2 && (offset > OFFSET_MAX || run > RUN_MAX || vdev.is_some());
        let (mut offset, mut left) = (offset, run);
        let free = u64::from(kind == MapType::Free);
        while left > 0 {
            if two_words {
                if self.at.checked_rem(self.block) == Some(self.block.saturating_sub(8)) {
                    self.put(2 << 62);
                }
                let run = left.min(RUN_MAX_V2);
                let vdev = u64::from(vdev.unwrap_or(0));
                self.put((3 << 62) | (run.saturating_sub(1) << VDEV_BITS) | bits(vdev, 0, VDEV_BITS));
                self.put((free << 63) | bits(offset, 0, 63));
                (offset, left) = (offset.saturating_add(run), left.saturating_sub(run));
            } else {
                let run = left.min(RUN_MAX);
                self.put((bits(offset, 0, 47) << 16) | (free << 15) | run.saturating_sub(1));
                (offset, left) = (offset.saturating_add(run), left.saturating_sub(run));
            }
        }
    }
    fn put(&mut self, word: u64) {
        self.out.extend_from_slice(&word.to_le_bytes());
        self.at = self.at.saturating_add(8);
    }
    /// Bytes of the log with what was added.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.at
    }
    /// The bytes to append.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let ranges = [(0, 1), (7, RUN_MAX), (100_000, RUN_MAX + 5), (OFFSET_MAX + 9, 3), (5, RUN_MAX_V2 + 1)];
        for v2 in [false, true] {
            let mut writer = Writer::new(64, 64);
            writer.intro(MapType::Free, 12_345, 3);
            let some = if v2 { &ranges[..] } else { &ranges[..3] };
            for (offset, run) in some {
                writer.range(MapType::Free, None, *offset, *run, v2);
            }
            let length = writer.length();
            let bytes = writer.into_bytes();
            assert_eq!(length, 64 + bytes.len() as u64);
            let mut covered = Vec::new();
            for block in bytes.chunks(64) {
                for entry in entries(block) {
                    let entry = entry.unwrap();
                    assert_eq!((entry.kind, entry.vdev), (MapType::Free, 0));
                    match covered.last_mut() {
                        Some((at, run)) if *at + *run == entry.offset => *run += entry.run,
                        _ => covered.push((entry.offset, entry.run)),
                    }
                }
            }
            assert_eq!(covered, some);
        }
    }

    #[test]
    fn debug_entries_tell_the_txg() {
        let mut writer = Writer::new(0, 4096);
        writer.range(MapType::Alloc, Some(5), 1, 1, true);
        writer.intro(MapType::Alloc, 77, 2);
        writer.range(MapType::Alloc, None, 2, 1, true);
        let got: Vec<_> = entries(&writer.into_bytes()).map(|e| e.unwrap()).collect();
        assert_eq!((got[0].vdev, got[0].txg), (5, 0));
        assert_eq!((got[1].vdev, got[1].txg, got[1].sync_pass), (0, 77, 2));
    }

    #[test]
    fn half_an_entry() {
        let word = (3_u64 << 62).to_le_bytes();
        assert!(entries(&word).next().unwrap().is_err());
    }
}
