//! The intent log's header in an objset and the frame of its blocks (`zil_header_t`, `zil_chain_t`, zil.h); its records
//! are in [`record`].

pub mod record;

use crate::label::EckPhys;
use crate::{Blkptr, Corrupt};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A replay is due once the log is claimed (`ZIL_REPLAY_NEEDED`).
pub const FLAG_REPLAY_NEEDED: u64 = 1;
/// `claim_lr_seq` is valid (`ZIL_CLAIM_LR_SEQ_VALID`).
pub const FLAG_CLAIM_LR_SEQ_VALID: u64 = 2;

/// The header.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug, Default,
)]
#[repr(C)]
pub struct ZilHeaderPhys {
    /// The txg in which the blocks were claimed; 0 if not.
    pub claim_txg: U64,
    /// Highest sequence number replayed.
    pub replay_seq: U64,
    /// The first block of the log.
    pub log: Blkptr,
    /// Highest block sequence number claimed.
    pub claim_blk_seq: U64,
    /// `FLAG_*`.
    pub flags: U64,
    /// Highest record sequence number claimed.
    pub claim_lr_seq: U64,
    /// Zero.
    pub pad: [U64; 3],
}
const _: () = assert!(size_of::<ZilHeaderPhys>() == crate::objset::ZIL_LEN);

impl ZilHeaderPhys {
    /// The header from an objset's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Corrupt> {
        let short = |_| Corrupt::new("intent log header", format!("{} bytes", bytes.len()));
        Self::read_from_prefix(bytes).map(|(h, _)| h).map_err(short)
    }
    /// Whether there is no log at all: what every snapshot and every clean export has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.log.is_hole()
    }
    /// Whether a chain of blocks hangs here that may hold records nobody replayed. Only reading it tells: a
    /// log may also be a single empty block allocated ahead.
    #[must_use]
    pub fn may_need_replay(&self) -> bool {
        !self.is_empty()
    }
}

/// The frame of a log block: at its start if checksummed as [`crate::Checksum::ZILOG2`], at its end if as
/// [`crate::Checksum::ZILOG`].
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct ZilChainPhys {
    /// Zero.
    pub pad: U64,
    /// The next block.
    pub next: Blkptr,
    /// Bytes of this block in use.
    pub nused: U64,
    /// Its checksum.
    pub eck: EckPhys,
}
const _: () = assert!(size_of::<ZilChainPhys>() == 184);
