//! LZ4 blocks behind a big-endian length word (`zfs_lz4_compress`, lz4_zfs.c).

pub(super) fn decompress(src: &[u8], out: &mut [u8]) -> Option<()> {
    let payload = super::framed(src, 4)?;
    let written = lz4_flex::block::decompress_into(payload, out).ok()?;
    (written == out.len()).then_some(())
}

pub(super) fn compress(src: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut out = vec![0; 4 + lz4_flex::block::get_maximum_output_size(src.len())];
    let (length, body) = out.split_first_chunk_mut::<4>()?;
    let written = lz4_flex::block::compress_into(src, body).ok()?;
    *length = u32::try_from(written).ok()?.to_be_bytes();
    out.truncate(4 + written);
    (out.len() <= max).then_some(out)
}
