//! ZAP objects: name-value maps in blocks (`mzap_phys_t`, `zap_phys_t`, `zap_leaf_phys_t`; zap_impl.h,
//! zap_leaf.h). Here are the layouts and all that happens within one block; growing a map over blocks is the
//! DMU's.
//!
//! A micro ZAP is one block of 64-byte entries. A fat ZAP is a header, a table of block numbers indexed by
//! the high bits of the hash, and leaves.

mod leaf;
pub mod micro;

pub use leaf::{Entry, Full, Leaf};

use crate::Corrupt;
use crate::reader::{put_u64_at, u64_at};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First word of a leaf block (`ZBT_LEAF`).
pub const BLOCK_LEAF: u64 = 1 << 63;
/// First word of a fat ZAP's header (`ZBT_HEADER`).
pub const BLOCK_HEADER: u64 = BLOCK_LEAF + 1;
/// First word of a micro ZAP (`ZBT_MICRO`).
pub const BLOCK_MICRO: u64 = BLOCK_LEAF + 3;
/// Second word of a fat ZAP's header (`ZAP_MAGIC`).
pub const MAGIC: u64 = 0x2_f52a_b2ab;
/// Longest value in bytes (`ZAP_MAXVALUELEN`).
pub const MAX_VALUE: usize = 8192;
/// Longest name in bytes, NUL included (`ZAP_MAXNAMELEN`).
pub const MAX_NAME: usize = 256;
/// Longest name in bytes under the longname feature (`ZAP_MAXNAMELEN_NEW`).
pub const MAX_LONG_NAME: usize = 1024;
/// log2 of the block size new fat ZAPs get (`fzap_default_block_shift`).
pub const FAT_BLOCK_SHIFT: u32 = 14;

/// 48 bits of hash count, and collision differentiators have 16 (`ZAP_FLAG_HASH64`).
pub const FLAG_HASH64: u64 = 1;
/// Keys are arrays of 64-bit numbers (`ZAP_FLAG_UINT64_KEY`).
pub const FLAG_UINT64_KEY: u64 = 2;
/// The first word of the key is its hash (`ZAP_FLAG_PRE_HASHED_KEY`).
pub const FLAG_PRE_HASHED_KEY: u64 = 4;

/// A key as a leaf stores it: a name with its NUL, or 64-bit numbers in big-endian order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    int_size: u8,
    raw: Vec<u8>,
}
impl Key {
    /// A name; without NUL.
    #[must_use]
    pub fn name(name: &[u8]) -> Self {
        let mut raw = name.to_vec();
        raw.push(0);
        Self { int_size: 1, raw }
    }
    /// An array of numbers.
    #[must_use]
    pub fn words(words: &[u64]) -> Self {
        Self { int_size: 8, raw: words.iter().flat_map(|w| w.to_be_bytes()).collect() }
    }
    /// The name without NUL; empty if the key is numbers.
    #[must_use]
    pub fn as_name(&self) -> &[u8] {
        match self.raw.as_slice() {
            [name @ .., 0] if self.int_size == 1 => name,
            raw if self.int_size == 1 => raw,
            _ => &[],
        }
    }
    /// The numbers; empty if the key is a name.
    #[must_use]
    pub fn as_words(&self) -> Vec<u64> {
        if self.int_size == 8 { be_words(&self.raw) } else { Vec::new() }
    }
    /// The hash that decides where the key lives (`zap_hash`, zap_impl.c): CRC-64 begun with the ZAP's salt,
    /// the high bits of which count. Names of a normalizing ZAP must come normalized.
    #[must_use]
    pub fn hash(&self, salt: u64, flags: u64) -> u64 {
        let hash = if flags & FLAG_PRE_HASHED_KEY != 0 {
            self.as_words().first().copied().unwrap_or(0)
        } else if self.int_size == 8 {
            self.raw.chunks_exact(8).fold(salt, |h, word| word.iter().rev().fold(h, crc_byte))
        } else {
            self.as_name().iter().fold(salt, crc_byte)
        };
        let bits = if flags & FLAG_HASH64 != 0 { 48 } else { 28 };
        hash & !(u64::MAX.wrapping_shr(bits))
    }
}

/// A value: an array of integers of 1, 2, 4 or 8 bytes, kept in the big-endian order of the leaf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    int_size: u8,
    raw: Vec<u8>,
}
impl Value {
    /// One 64-bit number.
    #[must_use]
    pub fn word(n: u64) -> Self {
        Self::words(&[n])
    }
    /// 64-bit numbers.
    #[must_use]
    pub fn words(words: &[u64]) -> Self {
        Self { int_size: 8, raw: words.iter().flat_map(|w| w.to_be_bytes()).collect() }
    }
    /// 16-bit numbers (SA layouts).
    #[must_use]
    pub fn shorts(shorts: &[u16]) -> Self {
        Self { int_size: 2, raw: shorts.iter().flat_map(|w| w.to_be_bytes()).collect() }
    }
    /// 32-bit numbers.
    #[must_use]
    pub fn ints(ints: &[u32]) -> Self {
        Self { int_size: 4, raw: ints.iter().flat_map(|w| w.to_be_bytes()).collect() }
    }
    /// Bytes.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> Self {
        Self { int_size: 1, raw: bytes.to_vec() }
    }
    /// A string with its NUL.
    #[must_use]
    pub fn string(s: &str) -> Self {
        let mut raw = s.as_bytes().to_vec();
        raw.push(0);
        Self { int_size: 1, raw }
    }
    /// Bytes of each integer.
    #[must_use]
    pub fn int_size(&self) -> u8 {
        self.int_size
    }
    /// How many integers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.raw.len().checked_div(usize::from(self.int_size)).unwrap_or(0)
    }
    /// Whether the array is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }
    /// The integers, widened.
    #[must_use]
    pub fn to_words(&self) -> Vec<u64> {
        let one = |int: &[u8]| int.iter().fold(0_u64, |n, b| n.wrapping_shl(8) | u64::from(*b));
        self.raw.chunks_exact(usize::from(self.int_size).max(1)).map(one).collect()
    }
    /// The single 64-bit number, if that is what it is.
    #[must_use]
    pub fn as_word(&self) -> Option<u64> {
        match (self.int_size, <[u8; 8]>::try_from(self.raw.as_slice())) {
            (8, Ok(raw)) => Some(u64::from_be_bytes(raw)),
            _ => None,
        }
    }
    /// The bytes, if the integers are bytes.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        (self.int_size == 1).then_some(self.raw.as_slice())
    }
}

fn be_words(raw: &[u8]) -> Vec<u64> {
    raw.as_chunks::<8>().0.iter().map(|w| u64::from_be_bytes(*w)).collect()
}

#[allow(clippy::indexing_slicing, clippy::cast_possible_truncation)] // 256 entries, indexed by a byte
fn crc_byte(crc: u64, byte: &u8) -> u64 {
    (crc >> 8) ^ CRC64[usize::from(crc as u8 ^ byte)]
}

/// CRC-64 with the reflected ECMA polynomial (`ZFS_CRC64_POLY`).
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)] // evaluated while compiling
static CRC64: [u64; 256] = {
    let mut table = [0_u64; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (if crc & 1 == 1 { 0xc96c_5795_d787_0f42 } else { 0 });
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

/// The head of a fat ZAP, at the start of its block 0.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug, Default,
)]
#[repr(C)]
pub struct HeaderPhys {
    /// [`BLOCK_HEADER`].
    pub block_type: U64,
    /// [`MAGIC`].
    pub magic: U64,
    /// First block of the pointer table; 0 while it is in the second half of block 0.
    pub ptrtbl_blk: U64,
    /// Blocks of the pointer table.
    pub ptrtbl_numblks: U64,
    /// log2 of the pointers in the table.
    pub ptrtbl_shift: U64,
    /// Where the doubled table is being built; 0 if it is not.
    pub ptrtbl_nextblk: U64,
    /// Blocks of the table copied so far.
    pub ptrtbl_blks_copied: U64,
    /// The next block never used.
    pub freeblk: U64,
    /// Leaves.
    pub num_leafs: U64,
    /// Entries in all leaves.
    pub num_entries: U64,
    /// Start of the hash: not 0.
    pub salt: U64,
    /// How names are normalized before hashing; 0 for not.
    pub normflags: U64,
    /// `FLAG_*` bits.
    pub flags: U64,
}
const _: () = assert!(size_of::<HeaderPhys>() == 104);

impl HeaderPhys {
    /// The header of a fat ZAP's block 0.
    pub fn parse(block: &[u8]) -> Result<Self, Corrupt> {
        let bad = |why: String| Corrupt::new("fat ZAP header", why);
        if !block.len().is_power_of_two() || block.len() < 512 {
            return Err(bad(format!("a block of {} bytes", block.len())));
        }
        let (head, _) = Self::read_from_prefix(block).map_err(|_| bad("too short".into()))?;
        if head.block_type.get() != BLOCK_HEADER || head.magic.get() != MAGIC {
            return Err(bad(format!("block type {:#x}, magic {:#x}", head.block_type, head.magic)));
        }
        let embedded = head.ptrtbl_numblks.get() == 0;
        let shift = head.ptrtbl_shift.get();
        if shift > 46 || (embedded && shift != u64::from(embedded_shift(block.len()))) {
            return Err(bad(format!("a pointer table of 2^{shift}")));
        }
        Ok(head)
    }
    /// Writes the header to the start of `block`; false if it is too short.
    #[must_use]
    pub fn store(&self, block: &mut [u8]) -> bool {
        self.write_to_prefix(block).is_ok()
    }
    /// Makes `block` the header of a new ZAP whose only leaf is block 1 (`fzap_upgrade`, zap_fat.c).
    pub fn init(block: &mut [u8], salt: u64, normflags: u64, flags: u64) -> Self {
        block.fill(0);
        let shift = embedded_shift(block.len());
        let head = Self {
            block_type: U64::new(BLOCK_HEADER),
            magic: U64::new(MAGIC),
            ptrtbl_shift: U64::new(u64::from(shift)),
            freeblk: U64::new(2),
            num_leafs: U64::new(1),
            salt: U64::new(salt),
            normflags: U64::new(normflags),
            flags: U64::new(flags),
            ..Self::default()
        };
        let _ = head.store(block);
        for i in 0..1_u64.wrapping_shl(shift) {
            let _ = set_embedded_ptr(block, i, 1);
        }
        head
    }
    /// Whether the pointer table is in block 0.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.ptrtbl_numblks.get() == 0
    }
    /// The index into the pointer table for `hash`: its high bits.
    #[must_use]
    pub fn index(&self, hash: u64) -> u64 {
        hash_index(hash, self.ptrtbl_shift.get())
    }
}

/// The high `bits` of `hash` (`ZAP_HASH_IDX`).
#[must_use]
pub fn hash_index(hash: u64, bits: u64) -> u64 {
    match u32::try_from(bits) {
        Ok(0) | Err(_) => 0,
        Ok(bits) => hash.wrapping_shr(64_u32.saturating_sub(bits)),
    }
}

/// log2 of the pointers in the second half of a header block (`ZAP_EMBEDDED_PTRTBL_SHIFT`).
#[must_use]
pub fn embedded_shift(block_len: usize) -> u32 {
    block_len.checked_ilog2().unwrap_or(0).saturating_sub(4)
}
fn embedded_at(block_len: usize, index: u64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    let half = block_len.checked_div(2)?;
    (index < half.checked_div(8)?).then_some(half.checked_add(index.checked_mul(8)?)?)
}
/// Pointer `index` of the table in a header block.
#[must_use]
pub fn embedded_ptr(block: &[u8], index: u64) -> Option<u64> {
    embedded_at(block.len(), index).map(|at| u64_at(block, at))
}
/// Sets pointer `index` of the table in a header block; false past its end.
#[must_use]
pub fn set_embedded_ptr(block: &mut [u8], index: u64, leaf_block: u64) -> bool {
    embedded_at(block.len(), index).is_some_and(|at| put_u64_at(block, at, leaf_block))
}

/// What a ZAP's block 0 is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// One block of 64-byte entries.
    Micro,
    /// The header of a fat ZAP.
    Fat,
}
/// Tells by the first word of block 0.
pub fn kind(block: &[u8]) -> Result<Kind, Corrupt> {
    match u64_at(block, 0) {
        BLOCK_MICRO => Ok(Kind::Micro),
        BLOCK_HEADER => Ok(Kind::Fat),
        n => Err(Corrupt::new("ZAP", format!("block type {n:#x}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_table() {
        assert_eq!(CRC64[128], 0xc96c_5795_d787_0f42); // as OpenZFS asserts
    }

    #[test]
    fn new_header() {
        let mut block = vec![9; 16384];
        let head = HeaderPhys::init(&mut block, 77, 0, 0);
        assert_eq!(HeaderPhys::parse(&block).unwrap(), head);
        assert_eq!(head.ptrtbl_shift.get(), 10);
        assert_eq!((embedded_ptr(&block, 0), embedded_ptr(&block, 1023)), (Some(1), Some(1)));
        assert_eq!(embedded_ptr(&block, 1024), None);
        assert_eq!(head.index(u64::MAX), 1023);
    }
}
