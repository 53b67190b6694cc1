//! Coordinates and identifiers, each its own type so that they do not mix by accident.

use std::fmt;

/// A transaction group number; the pool's only notion of order in time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Txg(pub u64);

/// The number of an object within its objset. 0 is the metadnode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ObjectId(pub u64);

/// A random 64-bit identifier of a pool, vdev, dataset or snapshot that never changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Guid(pub u64);

macro_rules! show {
    ($($t:ty),*) => {$(
        impl fmt::Debug for $t { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}", self.0) } }
        impl fmt::Display for $t { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}", self.0) } }
    )*};
}
show!(Txg, ObjectId, Guid);

/// A checksum algorithm by its on-disk number (`enum zio_checksum`, zio.h). Open: unknown numbers survive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Checksum(pub u8);

impl Checksum {
    /// Take the parent's setting (property value only).
    pub const INHERIT: Self = Self(0);
    /// The default algorithm (property value only); fletcher4 for data and metadata.
    pub const ON: Self = Self(1);
    /// None.
    pub const OFF: Self = Self(2);
    /// SHA-256 embedded at the tail of a label block.
    pub const LABEL: Self = Self(3);
    /// SHA-256 embedded at the tail of a gang header.
    pub const GANG_HEADER: Self = Self(4);
    /// Old intent log.
    pub const ZILOG: Self = Self(5);
    /// fletcher2.
    pub const FLETCHER_2: Self = Self(6);
    /// fletcher4.
    pub const FLETCHER_4: Self = Self(7);
    /// SHA-256.
    pub const SHA256: Self = Self(8);
    /// Intent log.
    pub const ZILOG2: Self = Self(9);
    /// No parity at all.
    pub const NOPARITY: Self = Self(10);
    /// SHA-512/256.
    pub const SHA512: Self = Self(11);
    /// Skein-512-256 keyed by the pool's salt.
    pub const SKEIN: Self = Self(12);
    /// Edon-R keyed by the pool's salt.
    pub const EDONR: Self = Self(13);
    /// BLAKE3 keyed by the pool's salt.
    pub const BLAKE3: Self = Self(14);

    /// The algorithm that a property value of `self` stands for, given the parent's choice
    /// (`zio_checksum_select`, zio_checksum.c).
    #[must_use]
    pub fn select(self, parent: Self) -> Self {
        let own = if self == Self::INHERIT { parent } else { self };
        if own == Self::ON || own == Self::INHERIT { Self::FLETCHER_4 } else { own }
    }

    /// Whether blocks have no checksum: off, and noparity, which was meant for raidz without parity.
    #[must_use]
    pub fn is_none(self) -> bool {
        matches!(self, Self::OFF | Self::NOPARITY)
    }
    /// Whether the algorithm is good enough for metadata (`ZCHECKSUM_FLAG_METADATA`): all but off,
    /// fletcher2 and the embedded ones.
    #[must_use]
    pub fn fits_metadata(self) -> bool {
        matches!(
            self,
            Self::FLETCHER_4 | Self::SHA256 | Self::SHA512 | Self::SKEIN | Self::EDONR | Self::BLAKE3
        )
    }
    /// Whether blocks with the same sum may be taken for the same block (`ZCHECKSUM_FLAG_NOPWRITE`).
    #[must_use]
    pub fn tells_contents(self) -> bool {
        matches!(self, Self::SHA256 | Self::SHA512 | Self::SKEIN | Self::EDONR | Self::BLAKE3)
    }
}

/// A compression algorithm by its on-disk number (`enum zio_compress`, zio_compress.h). Open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Compress(pub u8);

impl Compress {
    /// Take the parent's setting (property value only).
    pub const INHERIT: Self = Self(0);
    /// The default algorithm (property value only).
    pub const ON: Self = Self(1);
    /// None.
    pub const OFF: Self = Self(2);
    /// LZJB.
    pub const LZJB: Self = Self(3);
    /// Only all-zero blocks are compressed (to holes).
    pub const EMPTY: Self = Self(4);
    /// zlib level 1; levels 2 to 9 follow.
    pub const GZIP_1: Self = Self(5);
    /// zlib level 9.
    pub const GZIP_9: Self = Self(13);
    /// Zero-length encoding.
    pub const ZLE: Self = Self(14);
    /// LZ4.
    pub const LZ4: Self = Self(15);
    /// Zstandard.
    pub const ZSTD: Self = Self(16);

    /// Whether blocks with this number are stored as they are.
    #[must_use]
    pub fn is_off(self) -> bool {
        matches!(self, Self::OFF | Self::EMPTY)
    }
}

/// Smallest block and sector unit: 512 bytes (`SPA_MINBLOCKSIZE`).
pub const MIN_BLOCK: u64 = 512;
/// Largest block: 16 MiB (`SPA_MAXBLOCKSIZE`).
pub const MAX_BLOCK: u64 = 16 << 20;
/// Largest block without the large_blocks feature: 128 KiB (`SPA_OLD_MAXBLOCKSIZE`).
pub const OLD_MAX_BLOCK: u64 = 128 << 10;
