//! Vdev labels: where they lie and how they are divided (`vdev_label_t`, vdev_impl.h), and the checksum that
//! a block carries at its own tail (`zio_eck_t`, zio.h).
//!
//! A device has four labels of 256 KiB, two at its start and two at its end. In each: 8 KiB left blank,
//! 8 KiB boot environment, 112 KiB configuration, 128 KiB ring of uberblocks.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Corrupt;
use crate::nvlist::NvList;

/// Bytes of a label.
pub const LABEL_SIZE: u64 = 256 << 10;
/// Labels of a device (`VDEV_LABELS`).
pub const LABELS: u64 = 4;
/// Offset of the boot environment in a label.
pub const BOOTENV_AT: u64 = 8 << 10;
/// Bytes of the blank area, and of the boot environment (`VDEV_PAD_SIZE`).
pub const PAD_SIZE: u64 = 8 << 10;
/// Offset of the configuration in a label.
pub const CONFIG_AT: u64 = 16 << 10;
/// Bytes of the configuration, embedded checksum included (`VDEV_PHYS_SIZE`).
pub const CONFIG_SIZE: u64 = 112 << 10;
/// Offset of the uberblock ring in a label.
pub const RING_AT: u64 = 128 << 10;
/// Bytes of the uberblock ring (`VDEV_UBERBLOCK_RING`).
pub const RING_SIZE: u64 = 128 << 10;
/// Bytes of the boot block between the front labels and the allocatable area (`VDEV_BOOT_SIZE`).
pub const BOOT_SIZE: u64 = 7 << 19;
/// Where the allocatable area begins: DVA offset 0 (`VDEV_LABEL_START_SIZE`).
pub const START_SIZE: u64 = 2 * LABEL_SIZE + BOOT_SIZE;
/// Bytes behind the allocatable area (`VDEV_LABEL_END_SIZE`).
pub const END_SIZE: u64 = 2 * LABEL_SIZE;
/// Smallest device a pool can have (`SPA_MINDEVSIZE`).
pub const MIN_DEVICE: u64 = 64 << 20;
const _: () = assert!(RING_AT + RING_SIZE == LABEL_SIZE && CONFIG_AT + CONFIG_SIZE == RING_AT);

/// Magic of an embedded checksum (`ZEC_MAGIC`).
pub const ECK_MAGIC: u64 = 0x0210_da7a_b10c_7a11;

/// The usable size of a device of `bytes`: whole labels.
#[must_use]
pub fn usable_size(bytes: u64) -> u64 {
    bytes & !LABEL_SIZE.wrapping_sub(1)
}

/// Byte offset on the device of label `n` (0 to 3) on a device of `size` bytes, or `None` if the device is
/// too small or there is no such label (`vdev_label_offset`, vdev_label.c).
#[must_use]
pub fn label_offset(size: u64, n: u64) -> Option<u64> {
    let size = usable_size(size);
    let back = size.checked_sub(LABELS.saturating_mul(LABEL_SIZE))?;
    if n >= LABELS {
        return None;
    }
    n.checked_mul(LABEL_SIZE)?.checked_add(if n < 2 { 0 } else { back })
}

/// The trailer of a block that carries its own checksum.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct EckPhys {
    /// [`ECK_MAGIC`], which tells the byte order.
    pub magic: U64,
    /// SHA-256 words over the block with the verifier in this place.
    pub cksum: [U64; 4],
}
/// Bytes of the trailer.
pub const ECK_SIZE: usize = 40;
const _: () = assert!(size_of::<EckPhys>() == ECK_SIZE);

impl EckPhys {
    /// The trailer of `block`.
    #[must_use]
    pub fn of(block: &[u8]) -> Option<Self> {
        Self::read_from_suffix(block).ok().map(|(_, eck)| eck)
    }
    /// Whether the block was written in the other byte order; `None` without magic.
    #[must_use]
    pub fn is_swapped(&self) -> Option<bool> {
        match self.magic.get() {
            ECK_MAGIC => Some(false),
            m if m.swap_bytes() == ECK_MAGIC => Some(true),
            _ => None,
        }
    }
    /// The checksum words in the order of this machine.
    #[must_use]
    pub fn words(&self) -> [u64; 4] {
        let swapped = self.is_swapped() == Some(true);
        self.cksum.map(|w| if swapped { w.get().swap_bytes() } else { w.get() })
    }
    /// What stands in the checksum's place while the sum of a label block at byte `offset` of the device is
    /// computed (`zio_checksum_label_verifier`): it guards against a misdirected write.
    #[must_use]
    pub fn label_verifier(offset: u64) -> [u64; 4] {
        [offset, 0, 0, 0]
    }
    /// Puts magic and `words` at the tail of `block`; false if it is too short.
    #[must_use]
    pub fn put(block: &mut [u8], words: [u64; 4]) -> bool {
        let eck = Self { magic: U64::new(ECK_MAGIC), cksum: words.map(U64::new) };
        eck.write_to_suffix(block).is_ok()
    }
    /// Puts the `words` alone, in the order the block's magic tells: for checking a block of either order.
    #[must_use]
    pub fn put_words(block: &mut [u8], words: [u64; 4]) -> bool {
        let Some(mut eck) = Self::of(block) else { return false };
        let swapped = eck.is_swapped() == Some(true);
        eck.cksum = words.map(|w| U64::new(if swapped { w.swap_bytes() } else { w }));
        eck.write_to_suffix(block).is_ok()
    }
}

/// The configuration in a label's 112 KiB block, whose checksum the caller has checked.
pub fn parse_config(block: &[u8]) -> Result<NvList, Corrupt> {
    let end = block.len().saturating_sub(ECK_SIZE);
    NvList::decode(block.get(..end).unwrap_or(&[])).map(|(list, _)| list)
}

/// A label's 112 KiB configuration block without its checksum, or `None` if the list is too long.
#[must_use]
pub fn config_block(config: &NvList) -> Option<Vec<u8>> {
    let mut block = config.encode_xdr();
    let size = usize::try_from(CONFIG_SIZE).ok()?;
    if block.len() > size.saturating_sub(ECK_SIZE) {
        return None;
    }
    block.resize(size, 0);
    EckPhys::put(&mut block, [0; 4]).then_some(block)
}

/// What the boot environment area holds (`vbe_vers_t`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BootEnv {
    /// Version 0: raw text for the boot loader.
    Raw(Vec<u8>),
    /// Version 1: a packed list.
    List(Vec<u8>),
    /// Some other version.
    Other(u64),
}

/// The contents of the 8 KiB boot environment block, whose checksum the caller has checked. The version is
/// big-endian on disk.
pub fn parse_bootenv(block: &[u8]) -> Result<BootEnv, Corrupt> {
    let mut r = crate::reader::Reader::new("boot environment", block);
    let version = r.u64_be()?;
    let body = r.take(r.remaining().saturating_sub(ECK_SIZE))?.to_vec();
    Ok(match version {
        0 => BootEnv::Raw(body),
        1 => BootEnv::List(body),
        n => BootEnv::Other(n),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_labels() {
        let size = (64 << 20) + 5000;
        let at: Vec<_> = (0..5).map(|n| label_offset(size, n)).collect();
        let end = 64 << 20;
        assert_eq!(at, [Some(0), Some(LABEL_SIZE), Some(end - 2 * LABEL_SIZE), Some(end - LABEL_SIZE), None]);
        assert_eq!(label_offset(LABEL_SIZE, 0), None);
        assert_eq!(START_SIZE, 4 << 20);
    }

    #[test]
    fn trailer_of_either_order() {
        let mut block = vec![7; 512];
        assert!(EckPhys::put(&mut block, [1, 2, 3, 4]));
        assert_eq!(EckPhys::of(&block).unwrap().words(), [1, 2, 3, 4]);
        crate::byteswap::swap_words::<8>(&mut block);
        let eck = EckPhys::of(&block).unwrap();
        assert_eq!((eck.is_swapped(), eck.words()), (Some(true), [1, 2, 3, 4]));
        assert!(EckPhys::put_words(&mut block, [9, 0, 0, 0]));
        assert_eq!(EckPhys::of(&block).unwrap().words(), [9, 0, 0, 0]);
    }
}
