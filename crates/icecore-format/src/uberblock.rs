//! Uberblocks: the roots of the pool, one per txg, in a ring at the end of each label (`struct uberblock`,
//! uberblock_impl.h).

use std::cmp::Ordering;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::label::{ECK_SIZE, EckPhys, RING_AT, RING_SIZE};
use crate::{Blkptr, Corrupt, Txg};

/// Magic of an uberblock (`UBERBLOCK_MAGIC`).
pub const MAGIC: u64 = 0x00ba_b10c;
/// Magic of the multihost fields (`MMP_MAGIC`).
pub const MMP_MAGIC: u64 = 0xa11c_ea11;
/// The pool version of feature flags (`SPA_VERSION_FEATURES`).
pub const VERSION_FEATURES: u64 = 5000;
/// The last pool version before feature flags.
pub const VERSION_LAST_NUMBERED: u64 = 28;
/// What a raidz expansion has moved lies in the boot area still (`RRSS_SCRATCH_VALID`, uberblock_impl.h).
pub const REFLOW_SCRATCH_VALID: u64 = 1;

/// An uberblock as it lies at the start of its slot.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug, Default,
)]
#[repr(C)]
pub struct UberblockPhys {
    /// [`MAGIC`], which tells the byte order.
    pub magic: U64,
    /// Pool version.
    pub version: U64,
    /// The txg it is the root of.
    pub txg: U64,
    /// Sum of the guids of all vdevs: guards against a missing top-level vdev.
    pub guid_sum: U64,
    /// When it was written, seconds.
    pub timestamp: U64,
    /// The MOS.
    pub rootbp: Blkptr,
    /// Highest version the writing software knows.
    pub software_version: U64,
    /// [`MMP_MAGIC`] if the multihost fields mean something.
    pub mmp_magic: U64,
    /// Nanoseconds since the last multihost write; 0 if multihost is off.
    pub mmp_delay: U64,
    /// Valid bits, write interval, sequence number, fail intervals.
    pub mmp_config: U64,
    /// Not 0: this is a checkpoint, made in that txg.
    pub checkpoint_txg: U64,
    /// Progress and state of a raidz expansion.
    pub raidz_reflow_info: U64,
}
const _: () = assert!(size_of::<UberblockPhys>() == 216);
const _: () = assert!(std::mem::offset_of!(UberblockPhys, rootbp) == 40);
const _: () = assert!(std::mem::offset_of!(UberblockPhys, mmp_magic) == 176);

/// Bytes of a slot in the ring (`VDEV_UBERBLOCK_SIZE`): a sector, between 1 and 8 KiB.
#[must_use]
pub fn slot_size(ashift: u32) -> u64 {
    1_u64.wrapping_shl(ashift.clamp(10, 13))
}
/// Slots in the ring (`VDEV_UBERBLOCK_COUNT`).
#[must_use]
pub fn slot_count(ashift: u32) -> u64 {
    RING_SIZE.wrapping_shr(ashift.clamp(10, 13))
}
/// Offset of slot `n` in a label, wrapping around the ring.
#[must_use]
pub fn slot_offset(ashift: u32, n: u64) -> u64 {
    let n = n.checked_rem(slot_count(ashift)).unwrap_or(0);
    n.wrapping_mul(slot_size(ashift)).wrapping_add(RING_AT)
}
/// The slot a txg's uberblock belongs in; multihost pools keep the last slot for heartbeats
/// (`vdev_uberblock_sync`, vdev_label.c).
#[must_use]
pub fn slot_of(ashift: u32, txg: Txg, multihost: bool) -> u64 {
    txg.0.checked_rem(slot_count(ashift).saturating_sub(u64::from(multihost))).unwrap_or(0)
}

impl UberblockPhys {
    /// The uberblock at the start of `slot`, in this machine's order, or `None` where no uberblock is. The
    /// checksum is the caller's.
    #[must_use]
    pub fn parse(slot: &[u8]) -> Option<Self> {
        let (mut ub, _) = Self::read_from_prefix(slot).ok()?;
        if ub.magic.get().swap_bytes() == MAGIC {
            crate::byteswap::swap_words::<8>(ub.as_mut_bytes());
        }
        (ub.magic.get() == MAGIC).then_some(ub)
    }
    /// Whether the pool can be opened from here at all: a known version and a root that may be followed.
    pub fn check(&self) -> Result<(), Corrupt> {
        let version = self.version.get();
        if !((1..=VERSION_LAST_NUMBERED).contains(&version) || version == VERSION_FEATURES) {
            return Err(Corrupt::new("uberblock", format!("version {version}")));
        }
        if self.txg.get() == 0 || self.rootbp.is_hole() || self.rootbp.is_embedded() {
            return Err(Corrupt::new("uberblock", "no root"));
        }
        self.rootbp.check()
    }
    /// A slot of `size` bytes with the uberblock, the magic of its checksum and `verifier` in the
    /// checksum's place. `None` if it does not fit.
    #[must_use]
    pub fn slot(&self, size: u64, verifier: [u64; 4]) -> Option<Vec<u8>> {
        let size = usize::try_from(size).ok()?;
        if size < size_of::<Self>().saturating_add(ECK_SIZE) {
            return None;
        }
        let mut slot = self.as_bytes().to_vec();
        slot.resize(size, 0);
        EckPhys::put(&mut slot, verifier).then_some(slot)
    }
    /// The txg.
    #[must_use]
    pub fn txg(&self) -> Txg {
        Txg(self.txg.get())
    }
    /// Which of two uberblocks is newer (`vdev_uberblock_compare`): txg, then time, then heartbeat.
    #[must_use]
    pub fn cmp_age(&self, other: &Self) -> Ordering {
        let key = |u: &Self| (u.txg.get(), u.timestamp.get(), u.mmp_seq().unwrap_or(0));
        key(self).cmp(&key(other))
    }
    /// Whether the multihost fields mean something.
    #[must_use]
    pub fn mmp_valid(&self) -> bool {
        self.mmp_magic.get() == MMP_MAGIC
    }
    fn mmp_bits(&self, valid: u64, low: u32, mask: u64) -> Option<u64> {
        let config = self.mmp_config.get();
        (self.mmp_valid() && config & valid != 0).then_some(config.wrapping_shr(low) & mask)
    }
    /// Milliseconds between heartbeats.
    #[must_use]
    pub fn mmp_interval_ms(&self) -> Option<u64> {
        self.mmp_bits(1, 8, 0xff_ffff)
    }
    /// Sequence number of the heartbeat.
    #[must_use]
    pub fn mmp_seq(&self) -> Option<u64> {
        self.mmp_bits(2, 32, 0xffff)
    }
    /// Missed heartbeats after which the pool suspends.
    #[must_use]
    pub fn mmp_fail_intervals(&self) -> Option<u64> {
        self.mmp_bits(4, 48, 0xffff)
    }
    /// Whether another machine may have the pool open: multihost was on when this was written.
    #[must_use]
    pub fn mmp_active(&self) -> bool {
        self.mmp_valid() && self.mmp_delay.get() != 0
    }
    /// Marks multihost as off, as every uberblock of a pool without it is.
    pub fn set_mmp_off(&mut self) {
        self.mmp_magic = U64::new(MMP_MAGIC);
        self.mmp_delay = U64::new(0);
        self.mmp_config = U64::new(0);
    }
    /// Bytes of a raidz vdev already moved to its wider layout (`RRSS_GET_OFFSET`).
    #[must_use]
    pub fn reflow_offset(&self) -> u64 {
        (self.raidz_reflow_info.get() & ((1 << 55) - 1)).wrapping_shl(9)
    }
    /// State of the scratch area of a raidz expansion (`RRSS_GET_STATE`).
    #[must_use]
    pub fn reflow_state(&self) -> u64 {
        self.raidz_reflow_info.get() >> 55
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots() {
        assert_eq!((slot_size(9), slot_count(9)), (1024, 128));
        assert_eq!((slot_size(12), slot_count(12)), (4096, 32));
        assert_eq!((slot_size(16), slot_count(16)), (8192, 16));
        assert_eq!(slot_offset(12, slot_of(12, Txg(33), false)), RING_AT + 4096);
        assert_eq!(slot_of(12, Txg(31), true), 0);
    }

    #[test]
    fn either_order() {
        let ub = UberblockPhys {
            magic: U64::new(MAGIC),
            version: U64::new(5000),
            txg: U64::new(77),
            ..Default::default()
        };
        let mut slot = ub.slot(1024, [0; 4]).unwrap();
        assert_eq!(UberblockPhys::parse(&slot), Some(ub));
        crate::byteswap::swap_words::<8>(&mut slot);
        assert_eq!(UberblockPhys::parse(&slot), Some(ub));
        assert_eq!(UberblockPhys::parse(&slot[..100]), None);
        assert_eq!(UberblockPhys::parse(&[0; 1024]), None);
    }
}
