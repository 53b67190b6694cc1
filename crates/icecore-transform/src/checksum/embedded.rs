//! Checksums that stand in the block itself, because its pointer is written before it or there is none:
//! labels and uberblocks, gang headers, intent log blocks (`zio_eck_t`, zio.h; `zio_checksum_compute` and
//! `zio_checksum_error_impl`, zio_checksum.c).
//!
//! Invariants:
//! 1. The sum is taken over the block with a *verifier* in the checksum's place: something only this block at
//!    this place can have, so that a valid block found elsewhere does not pass (misdirected writes).
//! 2. The trailer's magic number says the byte order; a block without it never passes.

use super::{VerifyError, carries_mac, compare, fletcher, fold, sha256_of};
use icecore_format::{Blkptr, Checksum};

/// `ZEC_MAGIC`: what the trailer begins with.
pub const MAGIC: u64 = 0x0210_da7a_b10c_7a11;
/// Bytes of a trailer: magic and four words.
pub const TRAILER: usize = 40;
/// Offset of the trailer in an intent log block's header (`zil_chain_t`).
pub const ZIL_TRAILER_AT: usize = 144;
/// Bytes of an intent log block's header.
pub const ZIL_HEADER: usize = ZIL_TRAILER_AT + TRAILER;
const ZIL_USED_AT: usize = 136;
const ZIL_GRAIN: u64 = 4096;

/// The words of a label part (phys, uberblock, boot header): `buf` ends in a trailer, `offset` is the byte
/// offset of `buf` on the device. The trailer's present contents do not count.
#[must_use]
pub fn label_checksum(buf: &[u8], offset: u64) -> Option<[u64; 4]> {
    Some(tail_checksum(buf, [offset, 0, 0, 0], true)?.0)
}

/// Checks a label part, of either byte order.
pub fn label_verify(buf: &[u8], offset: u64) -> Result<(), VerifyError> {
    tail_verify(buf, [offset, 0, 0, 0])
}

/// Writes magic and checksum into the trailer at the end of `buf`. False if `buf` is too short for one.
#[must_use]
pub fn label_seal(buf: &mut [u8], offset: u64) -> bool {
    tail_seal(buf, [offset, 0, 0, 0])
}

/// Checks a gang header read through `bp`; `header` is 512 bytes, or larger with dynamic gang headers.
///
/// Where the block is encrypted the checksum is halved though no MAC stands in its other half: OpenZFS goes
/// by the pointer's crypt bit for every checksum that is not the objset's (`zio_checksum_compute`).
pub fn gang_verify(bp: &Blkptr, header: &[u8]) -> Result<(), VerifyError> {
    let (actual, expected) = tail_words(header, gang_verifier(bp))?;
    compare(bp, Checksum::GANG_HEADER, expected, actual)
}

/// Writes magic and checksum into the gang header that `bp` will lead to.
#[must_use]
pub fn gang_seal(bp: &Blkptr, header: &mut [u8]) -> bool {
    let Some((words, at)) = tail_checksum(header, gang_verifier(bp), true) else {
        return false;
    };
    let words = if carries_mac(bp) { fold(Checksum::GANG_HEADER, words, [0; 2]) } else { words };
    write_trailer(header, at, words, true).is_some()
}

/// Place and time of a gang header: vdev, offset, txg of the write.
fn gang_verifier(bp: &Blkptr) -> [u64; 4] {
    [u64::from(bp.dva[0].vdev()), bp.dva[0].offset(), bp.physical_birth().0, 0]
}

fn tail_verify(buf: &[u8], verifier: [u64; 4]) -> Result<(), VerifyError> {
    let (actual, expected) = tail_words(buf, verifier)?;
    if actual == expected { Ok(()) } else { Err(VerifyError::Mismatch { expected, actual }) }
}

/// The words that a trailer should have, and those it has.
fn tail_words(buf: &[u8], verifier: [u64; 4]) -> Result<([u64; 4], [u64; 4]), VerifyError> {
    let at = buf.len().checked_sub(TRAILER).ok_or(VerifyError::NoTrailer)?;
    let (little_endian, expected) = read_trailer(buf, at).ok_or(VerifyError::NoTrailer)?;
    let (actual, _) = tail_checksum(buf, verifier, little_endian).ok_or(VerifyError::NoTrailer)?;
    Ok((actual, expected))
}

fn tail_seal(buf: &mut [u8], verifier: [u64; 4]) -> bool {
    let Some((words, at)) = tail_checksum(buf, verifier, true) else {
        return false;
    };
    write_trailer(buf, at, words, true).is_some()
}

/// SHA-256 of the block with magic and verifier in its trailer; the words and the trailer's offset.
fn tail_checksum(buf: &[u8], verifier: [u64; 4], little_endian: bool) -> Option<([u64; 4], usize)> {
    let at = buf.len().checked_sub(TRAILER)?;
    let mut trailer = [0; TRAILER];
    write_trailer(&mut trailer, 0, verifier, little_endian)?;
    Some((sha256_of([buf.get(..at)?, &trailer]), at))
}

/// Checks an intent log block against the pointer that leads to it: the pointer's checksum words are the
/// verifier (a random pair, the objset, the sequence number). New-style blocks (ZILOG2) have their trailer
/// in the header and are summed as far as they are used; the old ones have it at the end.
pub fn zil_verify(bp: &Blkptr, block: &[u8]) -> Result<(), VerifyError> {
    let (mut copy, at, little_endian, kind) = zil_summed(bp, block)?;
    let (_, expected) = read_trailer(&copy, at).ok_or(VerifyError::NoTrailer)?;
    write_trailer(&mut copy, at, bp.cksum(), little_endian).ok_or(VerifyError::NoTrailer)?;
    compare(bp, kind, expected, zil_sum(kind, &copy, little_endian))
}

/// Writes magic and checksum into an intent log block's trailer. Where the pointer has the crypt bit the MAC
/// must already stand in the trailer's words 2 and 3.
pub fn zil_seal(bp: &Blkptr, block: &mut [u8]) -> Result<(), VerifyError> {
    let at = zil_trailer_at(bp, block).ok_or(VerifyError::NoTrailer)?;
    put_words(block, at, &[MAGIC]).ok_or(VerifyError::NoTrailer)?;
    let (mut copy, at, _, kind) = zil_summed(bp, block)?;
    let (_, [_, _, mac0, mac1]) = read_trailer(&copy, at).ok_or(VerifyError::NoTrailer)?;
    write_trailer(&mut copy, at, bp.cksum(), true).ok_or(VerifyError::NoTrailer)?;
    let words = zil_sum(kind, &copy, true);
    let words = if carries_mac(bp) { fold(kind, words, [mac0, mac1]) } else { words };
    write_trailer(block, at, words, true).ok_or(VerifyError::NoTrailer)
}

fn zil_trailer_at(bp: &Blkptr, block: &[u8]) -> Option<usize> {
    if bp.checksum() == Checksum::ZILOG2 { Some(ZIL_TRAILER_AT) } else { block.len().checked_sub(TRAILER) }
}

/// A copy of the part of the block that is summed, the trailer's offset in it, the order, the algorithm.
fn zil_summed(bp: &Blkptr, block: &[u8]) -> Result<(Vec<u8>, usize, bool, Checksum), VerifyError> {
    let kind = bp.checksum();
    let at = zil_trailer_at(bp, block).ok_or(VerifyError::NoTrailer)?;
    let (little_endian, _) = read_trailer(block, at).ok_or(VerifyError::NoTrailer)?;
    let mut size = block.len();
    if kind == Checksum::ZILOG2 {
        let used = get_word(block, ZIL_USED_AT, little_endian).ok_or(VerifyError::NoTrailer)?;
        let summed = used.checked_next_multiple_of(ZIL_GRAIN).ok_or(VerifyError::NoTrailer)?;
        size = usize::try_from(summed).map_err(|_| VerifyError::NoTrailer)?;
    }
    let summed = block.get(..size).ok_or(VerifyError::NoTrailer)?;
    Ok((summed.to_vec(), at, little_endian, kind))
}

fn zil_sum(kind: Checksum, data: &[u8], little_endian: bool) -> [u64; 4] {
    if kind == Checksum::ZILOG2 {
        fletcher::fletcher4(data, little_endian)
    } else {
        fletcher::fletcher2(data, little_endian)
    }
}

/// Byte order and words of the trailer at `at`, if its magic is there.
fn read_trailer(buf: &[u8], at: usize) -> Option<(bool, [u64; 4])> {
    let little_endian = match get_word(buf, at, true)? {
        MAGIC => true,
        other if other == MAGIC.swap_bytes() => false,
        _ => return None,
    };
    let mut words = [0; 4];
    for (i, word) in words.iter_mut().enumerate() {
        *word = get_word(buf, at + 8 + 8 * i, little_endian)?;
    }
    Some((little_endian, words))
}

fn write_trailer(buf: &mut [u8], at: usize, words: [u64; 4], little_endian: bool) -> Option<()> {
    let order = |w: u64| if little_endian { w } else { w.swap_bytes() };
    let [a, b, c, d] = words.map(order);
    put_words(buf, at, &[order(MAGIC), a, b, c, d])
}

fn put_words(buf: &mut [u8], at: usize, words: &[u64]) -> Option<()> {
    let to = buf.get_mut(at..at.checked_add(words.len() * 8)?)?;
    for (to, word) in to.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    Some(())
}

fn get_word(buf: &[u8], at: usize, little_endian: bool) -> Option<u64> {
    let bytes: [u8; 8] = buf.get(at..at.checked_add(8)?)?.try_into().ok()?;
    Some(if little_endian { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_passes_only_at_its_place() {
        let mut buf = vec![7_u8; 1024];
        assert!(label_seal(&mut buf, 4096));
        assert_eq!(label_verify(&buf, 4096), Ok(()));
        assert_eq!(label_checksum(&buf, 4096), read_trailer(&buf, 1024 - TRAILER).map(|t| t.1));
        assert!(matches!(label_verify(&buf, 8192), Err(VerifyError::Mismatch { .. })));
        buf[3] ^= 1;
        assert!(label_verify(&buf, 4096).is_err());
        assert_eq!(label_verify(&[0; 39], 0), Err(VerifyError::NoTrailer));
        assert_eq!(label_verify(&[0; 64], 0), Err(VerifyError::NoTrailer));
    }

    #[test]
    fn intent_log_blocks() {
        let mut bp = Blkptr::default();
        bp.set_checksum(Checksum::ZILOG2);
        bp.set_cksum([1, 2, 3, 4]);
        let mut block = vec![0x11_u8; 12288];
        block[ZIL_USED_AT..ZIL_USED_AT + 8].copy_from_slice(&5000_u64.to_le_bytes());
        zil_seal(&bp, &mut block).unwrap();
        assert_eq!(zil_verify(&bp, &block), Ok(()));
        block[8192] ^= 1; // past what is used, rounded up
        assert_eq!(zil_verify(&bp, &block), Ok(()));
        bp.set_cksum([1, 2, 3, 5]);
        assert!(zil_verify(&bp, &block).is_err());
        bp.set_cksum([1, 2, 3, 4]);
        block[ZIL_USED_AT..ZIL_USED_AT + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(zil_verify(&bp, &block), Err(VerifyError::NoTrailer));
    }
}
