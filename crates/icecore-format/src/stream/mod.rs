//! Send streams: the records of `zfs send` (`dmu_replay_record_t`, zfs_ioctl.h), read and written.
//!
//! `record` says what a record is, `reader` takes a stream apart and checks it, `writer` makes one. What the
//! records mean for a dataset is decided elsewhere.

mod reader;
mod record;
mod writer;

pub use reader::{Entry, StreamError, StreamErrorKind, StreamReader};
pub use record::{
    Begin, End, Free, FreeObjects, Object, ObjectRange, Order, PayloadLen, Record, Redact, Spill, ToName,
    Write, WriteByref, WriteEmbedded, object_type,
};
pub use writer::StreamWriter;

/// Bytes of a record.
pub const RECORD_SIZE: usize = 312;
/// Bytes of a record before its checksum.
pub const CHECKSUM_AT: usize = 280;
/// Longest payload of a record other than BEGIN.
pub const MAX_PAYLOAD: u64 = crate::units::MAX_BLOCK;
/// Longest payload of BEGIN (`ZFS_SENDRECV_MAX_NVLIST`, libzfs).
pub const MAX_BEGIN_PAYLOAD: u64 = 64 << 20;
/// What a BEGIN record begins with (`DMU_BACKUP_MAGIC`).
pub const MAGIC: u64 = 0x2_f5ba_cbac;

/// The header type of a stream of one snapshot (`DMU_SUBSTREAM`).
pub const SUBSTREAM: u64 = 1;
/// The header type of a package of streams (`DMU_COMPOUNDSTREAM`).
pub const COMPOUND: u64 = 2;

/// Feature flags of a stream: what a receiver must understand (`DMU_BACKUP_FEATURE_*`).
pub mod feature {
    /// Has WRITE_BYREF records; no longer accepted.
    pub const DEDUP: u64 = 1 << 0;
    /// Deduplicated with properties; no longer accepted.
    pub const DEDUPPROPS: u64 = 1 << 1;
    /// Has SPILL records.
    pub const SA_SPILL: u64 = 1 << 2;
    /// Has WRITE_EMBEDDED records.
    pub const EMBED_DATA: u64 = 1 << 16;
    /// Payloads may be LZ4.
    pub const LZ4: u64 = 1 << 17;
    /// Blocks may exceed 128 KiB.
    pub const LARGE_BLOCKS: u64 = 1 << 19;
    /// Continues an interrupted receive.
    pub const RESUMING: u64 = 1 << 20;
    /// Leaves out redacted blocks.
    pub const REDACTED: u64 = 1 << 21;
    /// Payloads are compressed as on disk.
    pub const COMPRESSED: u64 = 1 << 22;
    /// Dnodes may exceed 512 bytes.
    pub const LARGE_DNODE: u64 = 1 << 23;
    /// Payloads are as on disk, ciphertext included.
    pub const RAW: u64 = 1 << 24;
    /// Payloads may be Zstandard.
    pub const ZSTD: u64 = 1 << 25;
    /// The package lists holds.
    pub const HOLDS: u64 = 1 << 26;
    /// May follow a stream that split large blocks.
    pub const SWITCH_TO_LARGE_BLOCKS: u64 = 1 << 27;
    /// Names may exceed 255 bytes.
    pub const LONGNAME: u64 = 1 << 28;
    /// Micro ZAPs may exceed 128 KiB.
    pub const LARGE_MICROZAP: u64 = 1 << 29;
    /// All that OpenZFS 2.3 accepts (`DMU_BACKUP_FEATURE_MASK`).
    pub const MASK: u64 = SA_SPILL
        | EMBED_DATA
        | LZ4
        | LARGE_BLOCKS
        | RESUMING
        | REDACTED
        | COMPRESSED
        | LARGE_DNODE
        | RAW
        | ZSTD
        | HOLDS
        | SWITCH_TO_LARGE_BLOCKS
        | LONGNAME
        | LARGE_MICROZAP;
}

/// Flags of a BEGIN record (`DRR_FLAG_*`).
pub mod begin_flag {
    /// The snapshot belongs to a clone; without its origin's contents.
    pub const CLONE: u32 = 1 << 0;
    /// Names are case-insensitive.
    pub const CI_DATA: u32 = 1 << 1;
    /// A full stream with all FREE records: may be received as a clone.
    pub const FREERECORDS: u32 = 1 << 2;
    /// The spill flags of OBJECT and SPILL records mean something.
    pub const SPILL_BLOCK: u32 = 1 << 3;
}

/// Flags of OBJECT, WRITE, WRITE_BYREF, SPILL and OBJECT_RANGE records.
pub mod record_flag {
    /// The checksum is good enough to deduplicate by.
    pub const CHECKSUM_DEDUP: u8 = 1 << 0;
    /// The raw payload is of the other byte order.
    pub const RAW_BYTESWAP: u8 = 1 << 1;
    /// In OBJECT: the object has a spill block.
    pub const OBJECT_SPILL: u8 = 1 << 2;
    /// In SPILL: sent for old receivers only, nothing changed.
    pub const SPILL_UNMODIFIED: u8 = 1 << 2;
}
