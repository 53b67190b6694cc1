//! Bookmarks and redaction lists as stored (`zfs_bookmark_phys_t`, `redaction_list_phys_t`, dsl_bookmark.h).
//! (The logical address of a block, which OpenZFS also calls a bookmark, is in [`crate::bookmark`].)

use crate::Corrupt;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Words of a bookmark as first defined.
pub const WORDS_V1: usize = 3;
/// Words of a bookmark under the bookmark_v2 feature.
pub const WORDS_V2: usize = 12;
/// The `*_freed_before_next_snap` fields are right (`ZBM_FLAG_HAS_FBN`).
pub const FLAG_HAS_FBN: u64 = 1;
/// The snapshot still exists (`ZBM_FLAG_SNAPSHOT_EXISTS`).
pub const FLAG_SNAPSHOT_EXISTS: u64 = 2;

/// A bookmark: a value of 64-bit numbers in the dataset's ZAP of bookmarks.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug, Default,
)]
#[repr(C)]
pub struct BookmarkPhys {
    /// Guid of the snapshot.
    pub guid: U64,
    /// Its txg.
    pub creation_txg: U64,
    /// Its time.
    pub creation_time: U64,
    /// The redaction list, if any.
    pub redaction_obj: U64,
    /// `FLAG_*`.
    pub flags: U64,
    /// Allocated bytes the snapshot referenced.
    pub referenced_bytes_refd: U64,
    /// Physical bytes the snapshot referenced.
    pub compressed_bytes_refd: U64,
    /// Logical bytes the snapshot referenced.
    pub uncompressed_bytes_refd: U64,
    /// Allocated bytes freed before the next snapshot.
    pub referenced_freed_before_next_snap: U64,
    /// Physical bytes freed before the next snapshot.
    pub compressed_freed_before_next_snap: U64,
    /// Logical bytes freed before the next snapshot.
    pub uncompressed_freed_before_next_snap: U64,
    /// The set of IVs, for raw sends from here.
    pub ivset_guid: U64,
}
const _: () = assert!(size_of::<BookmarkPhys>() == 8 * WORDS_V2);

impl BookmarkPhys {
    /// From the numbers of a ZAP value; missing ones are zero, surplus ones ignored.
    pub fn from_words(words: &[u64]) -> Result<Self, Corrupt> {
        if words.len() < WORDS_V1 {
            return Err(Corrupt::new("bookmark", format!("{} words", words.len())));
        }
        let mut phys = Self::default();
        for (to, word) in phys.as_mut_bytes().chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        Ok(phys)
    }
    /// The numbers of a ZAP value: [`WORDS_V1`] unless `v2`.
    #[must_use]
    pub fn to_words(&self, v2: bool) -> Vec<u64> {
        let n = if v2 { WORDS_V2 } else { WORDS_V1 };
        self.as_bytes().as_chunks::<8>().0.iter().take(n).map(|w| u64::from_le_bytes(*w)).collect()
    }
}

/// The head of a redaction list, in its object's bonus; guids of snapshots follow.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug, Default,
)]
#[repr(C)]
pub struct RedactionListPhys {
    /// Last object looked at; all ones when complete.
    pub last_object: U64,
    /// Last block looked at; all ones when complete.
    pub last_blkid: U64,
    /// Entries in the object.
    pub num_entries: U64,
    /// Guids that follow.
    pub num_snaps: U64,
}
const _: () = assert!(size_of::<RedactionListPhys>() == 32);

impl RedactionListPhys {
    /// The head and the guids from a bonus (or spill) buffer.
    pub fn parse(bytes: &[u8]) -> Result<(Self, Vec<u64>), Corrupt> {
        let bad = || Corrupt::new("redaction list", format!("a head of {} bytes", bytes.len()));
        let (head, rest) = Self::read_from_prefix(bytes).map_err(|_| bad())?;
        let n = usize::try_from(head.num_snaps.get()).map_err(|_| bad())?;
        let words = rest.as_chunks::<8>().0.get(..n).ok_or_else(bad)?;
        Ok((head, words.iter().map(|w| u64::from_le_bytes(*w)).collect()))
    }
}

/// A run of redacted blocks.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug, Default,
)]
#[repr(C)]
pub struct RedactBlockPhys {
    /// The object.
    pub object: U64,
    /// The first block.
    pub blkid: U64,
    /// Block size in sectors (high 16 bits) and number of blocks (low 48 bits).
    pub size_count: U64,
    /// Zero.
    pub pad: U64,
}
const _: () = assert!(size_of::<RedactBlockPhys>() == 32);

impl RedactBlockPhys {
    /// Bytes of a block.
    #[must_use]
    pub fn block_size(&self) -> u64 {
        (self.size_count.get() >> 48).wrapping_shl(9)
    }
    /// How many blocks.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.size_count.get() & ((1 << 48) - 1)
    }
}
