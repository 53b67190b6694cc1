//! Zstandard without magic number, content size and checksum, behind a header of two big-endian words: the
//! length, and library version with level (zfs_zstd.c, zstd.h of OpenZFS).
//!
//! The level on disk is the ZFS number of the level, not zstd's: 1 to 19 are themselves, the fast levels
//! begin at 103.

use zstd_safe::{CCtx, CParameter, DCtx, DParameter, FrameFormat};

const HEADER: usize = 8;
const LEVEL_DEFAULT: u8 = 3;
const LEVEL_MAX: u8 = 19;
/// `ZIO_ZSTD_LEVEL_FAST_1`.
const FAST_FIRST: u8 = 103;
/// What the fast levels mean to zstd, negated, in their order.
const FAST: [i32; 20] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 500];
const FAST_LAST: i32 = 1000;
/// Blocks from this size on are tried with faster algorithms first (`zstd_abort_size`).
const TRY_FIRST_SIZE: usize = 128 << 10;

/// The zstd level behind a ZFS level number; `None` for numbers that are none.
#[must_use]
pub fn level_to_zstd(level: u8) -> Option<i32> {
    match level {
        1..=LEVEL_MAX => Some(i32::from(level)),
        FAST_FIRST.. => {
            let index = usize::from(level - FAST_FIRST);
            let depth = FAST.get(index).copied().or((index == FAST.len()).then_some(FAST_LAST))?;
            Some(-depth)
        }
        _ => None,
    }
}

/// The ZFS level number for a zstd level (1 to 19, or negative); `None` if ZFS has no such level.
#[must_use]
pub fn level_from_zstd(level: i32) -> Option<u8> {
    (1..=u8::MAX).find(|n| level_to_zstd(*n) == Some(level))
}

/// The ZFS level a stored block says it was compressed with.
#[must_use]
pub fn stored_level(src: &[u8]) -> Option<u8> {
    let [_, _, _, _, a, b, _, d] = *src.first_chunk::<HEADER>()?;
    // The version's top byte is zero and tells the two orders in the wild apart: level first, or last.
    let level = match (a, b) {
        (_, 0) => a,
        (0, _) => d,
        _ => return None,
    };
    level_to_zstd(level).map(|_| level)
}

pub(super) fn decompress(src: &[u8], out: &mut [u8]) -> Option<()> {
    stored_level(src)?;
    let payload = super::framed(src, HEADER)?;
    let mut context = DCtx::try_create()?;
    context.set_parameter(DParameter::Format(FrameFormat::Magicless)).ok()?;
    let written = context.decompress(out, payload).ok()?;
    (written == out.len()).then_some(())
}

pub(super) fn compress(src: &[u8], max: usize, level: u8) -> Option<Vec<u8>> {
    let level = if matches!(level, 0 | u8::MAX) { LEVEL_DEFAULT } else { level };
    let depth = level_to_zstd(level)?;
    if depth >= 3 && src.len() >= TRY_FIRST_SIZE {
        // What neither lz4 nor zstd-1 shrinks is not worth the time of the higher levels.
        let promising = super::lz4::compress(src, max).is_some() || at_level(src, max, 1, 1).is_some();
        if !promising {
            return None;
        }
    }
    at_level(src, max, level, depth)
}

fn at_level(src: &[u8], max: usize, level: u8, depth: i32) -> Option<Vec<u8>> {
    let mut out = vec![0; max];
    let (header, body) = out.split_first_chunk_mut::<HEADER>()?;
    let mut context = CCtx::try_create()?;
    for parameter in [
        CParameter::CompressionLevel(depth),
        CParameter::Format(FrameFormat::Magicless),
        CParameter::ChecksumFlag(false),
        CParameter::ContentSizeFlag(false),
    ] {
        context.set_parameter(parameter).ok()?;
    }
    let written = context.compress2(body, src).ok()?;
    let [_, major, middle, minor] = zstd_safe::version_number().to_be_bytes();
    let [a, b, c, d] = u32::try_from(written).ok()?.to_be_bytes();
    *header = [a, b, c, d, level, major, middle, minor];
    out.truncate(HEADER + written);
    Some(out)
}
