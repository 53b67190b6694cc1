//! Block compression: the framing each algorithm has on disk, and when a block is worth storing compressed
//! (`zio_compress_table`, zio_compress.c; `zio_write_compress`, zio.c).
//!
//! Invariants:
//! 1. Decompression yields exactly the logical size or fails; padding behind the compressed bytes is ignored.
//! 2. What is compressed here decompresses in OpenZFS. It need not be the same bytes OpenZFS would write.
//! 3. A packed block is shorter than its logical size, saves at least an eighth (unless it fits a block
//!    pointer), and is zero-padded to the allocation size.

mod gzip;
mod lz4;
mod lzjb;
mod zle;
pub mod zstd;

use icecore_format::{Compress, blkptr::EMBEDDED_MAX};
use std::fmt;

/// The stored bytes do not decompress to the size the block pointer gives, or the algorithm is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecompressError {
    /// The bytes are not a stream of this algorithm, or of another length.
    Damaged(Compress),
    /// No such algorithm.
    Unsupported(Compress),
}

impl fmt::Display for DecompressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(c) => write!(f, "data does not decompress (algorithm {})", c.0),
            Self::Unsupported(c) => write!(f, "unknown compression algorithm {}", c.0),
        }
    }
}
impl std::error::Error for DecompressError {}

/// The `lsize` logical bytes that `src` stores.
pub fn decompress(kind: Compress, src: &[u8], lsize: usize) -> Result<Vec<u8>, DecompressError> {
    let mut out = vec![0; lsize];
    decompress_into(kind, src, &mut out)?;
    Ok(out)
}

/// Fills `out`, whose length is the logical size, from the stored bytes. After an error its contents mean
/// nothing.
pub fn decompress_into(kind: Compress, src: &[u8], out: &mut [u8]) -> Result<(), DecompressError> {
    let done = match kind {
        Compress::OFF | Compress::EMPTY => match src.get(..out.len()) {
            Some(stored) => {
                out.copy_from_slice(stored);
                Some(())
            }
            None => None,
        },
        Compress::LZJB => lzjb::decompress(src, out),
        Compress(n) if (Compress::GZIP_1.0..=Compress::GZIP_9.0).contains(&n) => gzip::decompress(src, out),
        Compress::ZLE => zle::decompress(src, out),
        Compress::LZ4 => lz4::decompress(src, out),
        Compress::ZSTD => zstd::decompress(src, out),
        _ => return Err(DecompressError::Unsupported(kind)),
    };
    done.ok_or(DecompressError::Damaged(kind))
}

/// `src` compressed into at most `max` bytes, framing included, without padding. `None` if it does not fit
/// or there is nothing to do (OFF, EMPTY, unknown). `level` is the ZFS level of zstd (0 and 255: the
/// default, 3) and means nothing to the others.
#[must_use]
pub fn compress(kind: Compress, level: u8, src: &[u8], max: usize) -> Option<Vec<u8>> {
    let out = match kind {
        Compress::LZJB => lzjb::compress(src, max),
        Compress(n) if (Compress::GZIP_1.0..=Compress::GZIP_9.0).contains(&n) => {
            gzip::compress(src, max, n - Compress::GZIP_1.0 + 1)
        }
        Compress::ZLE => zle::compress(src, max),
        Compress::LZ4 => lz4::compress(src, max),
        Compress::ZSTD => zstd::compress(src, max, level),
        _ => None,
    }?;
    (out.len() <= max).then_some(out)
}

/// The allocation sizes of a pool's normal class that decide how compressed blocks are rounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AllocSizes {
    /// Smallest allocation of any device (`spa_min_alloc`): 512 or more.
    pub min: u32,
    /// What every allocation size is a multiple of (`spa_gcd_alloc`).
    pub gcd: u32,
}

impl AllocSizes {
    /// All devices have this sector size.
    #[must_use]
    pub fn uniform(sector: u32) -> Self {
        Self { min: sector, gcd: sector }
    }
    /// What `size` bytes occupy at least (`zio_roundup_alloc_size`).
    #[must_use]
    pub fn round_up(self, size: usize) -> usize {
        let (min, gcd) = (self.min.max(1) as usize, self.gcd.max(1) as usize);
        if size > min { size.checked_next_multiple_of(gcd).unwrap_or(size) } else { min }
    }
    /// The most bytes a compressed block of `lsize` may have to be worth it
    /// (`zio_get_compression_max_size`): seven eighths in whole allocations, or what fits a block pointer.
    #[must_use]
    pub fn packed_max(self, kind: Compress, lsize: usize) -> usize {
        let max = lsize - (lsize >> 3);
        if kind == Compress::ZLE {
            return max;
        }
        let max = max - max % self.gcd.max(1) as usize;
        if max < self.min as usize { EMBEDDED_MAX } else { max }
    }
}

/// Whether a block may be stored in its pointer. The caller decides: level 0, not encrypted, not a type with
/// fill counts, the pool's feature enabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Embed {
    /// Up to [`EMBEDDED_MAX`] compressed bytes may go there.
    Allowed,
    /// Never.
    Never,
}

/// How a block is to be stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compressed {
    /// All zeros: not at all.
    Hole,
    /// As it is, with compression OFF in the pointer.
    Stored,
    /// In the pointer itself, these bytes (1 to [`EMBEDDED_MAX`]).
    Embedded(Vec<u8>),
    /// These bytes, padded with zeros to the allocation size; their length is the physical size.
    Packed(Vec<u8>),
}

/// Decides how to store the logical bytes `src` (`zio_write_compress`, zio.c). With compression OFF zeros
/// are stored like anything else.
#[must_use]
pub fn compress_block(kind: Compress, level: u8, src: &[u8], alloc: AllocSizes, embed: Embed) -> Compressed {
    if kind == Compress::OFF {
        return Compressed::Stored;
    }
    if is_zero(src) {
        return Compressed::Hole;
    }
    let Some(mut packed) = compress(kind, level, src, alloc.packed_max(kind, src.len())) else {
        return Compressed::Stored;
    };
    if packed.len() >= src.len() {
        return Compressed::Stored;
    }
    if packed.len() <= EMBEDDED_MAX && embed == Embed::Allowed {
        return Compressed::Embedded(packed);
    }
    let rounded = alloc.round_up(packed.len());
    if rounded >= src.len() {
        return Compressed::Stored;
    }
    packed.resize(rounded, 0);
    Compressed::Packed(packed)
}

/// Whether every byte is zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, tail) = bytes.as_chunks::<64>();
    words.iter().all(|w| w.iter().fold(0, |a, b| a | b) == 0) && tail.iter().all(|b| *b == 0)
}

/// The payload after a big-endian length word: lz4 and zstd say how long they are, as the padding would
/// otherwise be taken for more of them.
fn framed(src: &[u8], header: usize) -> Option<&[u8]> {
    let (length, _) = src.split_first_chunk::<4>()?;
    let end = header.checked_add(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    src.get(header..end)
}

#[cfg(test)]
mod tests;
