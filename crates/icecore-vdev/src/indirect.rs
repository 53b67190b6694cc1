//! Where the contents of a removed top-level vdev went.
//!
//! Facts: `vdev_indirect_mapping_entry_for_offset`, entries in order of their source
//! (vdev_indirect_mapping.c); a block may lie in several entries, and an entry may lead to another removed vdev
//! (`vdev_indirect_remap`, vdev_indirect.c).
//!
//! Invariants:
//! 1. Entries are in order, do not overlap and are not empty.
//! 2. What of the source is mapped may be less than all of it: the rest was free when the vdev was removed.
//!
//! Does not do: obsolete maps. They tell which entries no block needs any more, which readers need not know.

use icecore_format::Corrupt;
use icecore_format::indirect::MappingEntryPhys;

/// The new places of a removed vdev's contents.
#[derive(Clone, Default, Debug)]
pub struct Mapping {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    src: u64,
    len: u64,
    vdev: u64,
    offset: u64,
}

/// A part of a range, in its new place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    /// Top-level vdev.
    pub vdev: u64,
    /// Offset within it.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Where in the range it begins.
    pub at: u64,
}

impl Mapping {
    /// Adds the next entries of a mapping object.
    pub fn extend(&mut self, entries: &[MappingEntryPhys]) -> Result<(), Corrupt> {
        for e in entries {
            let entry =
                Entry { src: e.src(), len: e.len(), vdev: u64::from(e.dst.vdev()), offset: e.dst.offset() };
            let bad = |why| Corrupt::new("indirect mapping", format!("{why}: {entry:?}"));
            let (Some(_), Some(_)) = (entry.src.checked_add(entry.len), entry.offset.checked_add(entry.len))
            else {
                return Err(bad("past all addresses"));
            };
            if entry.len == 0 {
                return Err(bad("an empty entry"));
            }
            if self.entries.last().is_some_and(|last| last.src + last.len > entry.src) {
                return Err(bad("out of order"));
            }
            self.entries.push(entry);
        }
        Ok(())
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Whether nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The places of a range; `None` if a part of it is not mapped.
    pub(crate) fn pieces(&self, offset: u64, len: u64) -> Option<Vec<Piece>> {
        let mut out = Vec::new();
        let first = self.entries.partition_point(|e| e.src + e.len <= offset);
        let mut done = 0;
        for e in self.entries.get(first..)? {
            let at = offset.checked_add(done)?;
            if e.src > at {
                return None;
            }
            let skip = at - e.src;
            let piece = Piece {
                vdev: e.vdev,
                offset: e.offset + skip,
                len: (e.len - skip).min(len - done),
                at: done,
            };
            out.push(piece);
            done += piece.len;
            if done == len {
                return Some(out);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use icecore_format::Dva;

    fn mapping(entries: &[(u64, u64, u32, u64)]) -> Result<Mapping, Corrupt> {
        let phys = |e: &(u64, u64, u32, u64)| MappingEntryPhys::new(e.0, Dva::new(e.2, e.3, e.1, false));
        let mut mapping = Mapping::default();
        mapping.extend(&entries.iter().map(phys).collect::<Vec<_>>())?;
        Ok(mapping)
    }

    #[test]
    fn a_range_is_found_in_as_many_pieces_as_entries_hold_it() {
        let m =
            mapping(&[(0x1000, 0x1000, 0, 0x8000), (0x2000, 0x800, 2, 0), (0x4000, 0x1000, 0, 0)]).unwrap();
        let places = |offset, len| {
            let pieces = m.pieces(offset, len)?;
            Some(pieces.iter().map(|p| (p.vdev, p.offset, p.len, p.at)).collect::<Vec<_>>())
        };
        assert_eq!(places(0x1200, 0x400), Some(vec![(0, 0x8200, 0x400, 0)]));
        assert_eq!(places(0x1e00, 0x600), Some(vec![(0, 0x8e00, 0x200, 0), (2, 0, 0x400, 0x200)]));
        assert_eq!(places(0x4000, 0x1000), Some(vec![(0, 0, 0x1000, 0)]));
        // before the first, into a gap, past the end
        assert_eq!(places(0, 0x200), None);
        assert_eq!(places(0x2600, 0x400), None);
        assert_eq!(places(0x4e00, 0x400), None);
        assert_eq!(places(u64::MAX - 511, 0x400), None);
    }

    #[test]
    fn entries_that_overlap_or_are_empty_are_damage() {
        assert!(mapping(&[(0x1000, 0x1000, 0, 0), (0x1e00, 0x200, 0, 0)]).is_err());
        assert!(mapping(&[(0x1000, 0x1000, 0, 0), (0, 0x200, 0, 0)]).is_err());
        assert!(mapping(&[(0x1000, 0, 0, 0)]).is_err());
    }
}
