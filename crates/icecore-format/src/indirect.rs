//! Removed vdevs: where their contents went (`vdev_indirect_mapping_phys_t`, vdev_indirect_mapping.h) and
//! when (vdev_indirect_births.h).

use crate::{Corrupt, Dva};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bonus without a counts object.
pub const SIZE_V0: usize = 24;

/// The bonus of a mapping object.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug, Default,
)]
#[repr(C)]
pub struct MappingPhys {
    /// End of the last entry.
    pub max_offset: U64,
    /// Bytes of all entries.
    pub bytes_mapped: U64,
    /// Entries in the object.
    pub num_entries: U64,
    /// The object that counts obsolete bytes per entry; 0 if none.
    pub counts_object: U64,
}
const _: () = assert!(size_of::<MappingPhys>() == 32);

impl MappingPhys {
    /// The structure in a bonus buffer of either version.
    pub fn parse(bonus: &[u8]) -> Result<Self, Corrupt> {
        let len = bonus.len().min(32);
        if len < SIZE_V0 {
            return Err(Corrupt::new("indirect mapping", format!("a bonus of {len} bytes")));
        }
        let mut phys = Self::default();
        if let (Some(to), Some(from)) = (phys.as_mut_bytes().get_mut(..len), bonus.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(phys)
    }
}

/// A run of bytes and its new place; entries are sorted by source.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug, Default,
)]
#[repr(C)]
pub struct MappingEntryPhys {
    src: U64,
    /// The new place; its allocated size is the run's length.
    pub dst: Dva,
}
const _: () = assert!(size_of::<MappingEntryPhys>() == 24);

impl MappingEntryPhys {
    /// An entry for the run that began at byte `src`.
    #[must_use]
    pub fn new(src: u64, dst: Dva) -> Self {
        Self { src: U64::new((src >> 9) & (u64::MAX >> 1)), dst }
    }
    /// Where the run began on the removed vdev, in bytes.
    #[must_use]
    pub fn src(&self) -> u64 {
        (self.src.get() & (u64::MAX >> 1)).wrapping_shl(9)
    }
    /// Length of the run.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.dst.asize()
    }
    /// Whether the run has no length, which no valid entry has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Everything before `offset` (and after the entry before) was copied in `phys_birth_txg`.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug, Default,
)]
#[repr(C)]
pub struct BirthEntryPhys {
    /// End of the range.
    pub offset: U64,
    /// When it was copied.
    pub phys_birth_txg: U64,
}
const _: () = assert!(size_of::<BirthEntryPhys>() == 16);
