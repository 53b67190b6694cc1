//! "gzip-1" to "gzip-9": zlib streams (`zfs_gzip_compress`, gzip.c).

use flate2::{Compression, Decompress, FlushCompress, FlushDecompress, Status};

pub(super) fn decompress(src: &[u8], out: &mut [u8]) -> Option<()> {
    let mut stream = Decompress::new(true);
    let status = stream.decompress(src, out, FlushDecompress::Finish).ok()?;
    (status == Status::StreamEnd && stream.total_out() == out.len() as u64).then_some(())
}

pub(super) fn compress(src: &[u8], max: usize, level: u8) -> Option<Vec<u8>> {
    let mut out = vec![0; max];
    let mut stream = flate2::Compress::new(Compression::new(u32::from(level)), true);
    let status = stream.compress(src, &mut out, FlushCompress::Finish).ok()?;
    if status != Status::StreamEnd {
        return None;
    }
    out.truncate(usize::try_from(stream.total_out()).ok()?);
    Some(out)
}
