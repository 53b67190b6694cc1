//! Gang headers: a block pointer whose data did not fit in one piece leads to one (`zio_gbh_phys_t`, zio.h).

use crate::label::{ECK_SIZE, EckPhys};
use crate::{Blkptr, Corrupt, Txg};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of a classic gang header; larger ones need the dynamic_gang_header feature.
pub const OLD_SIZE: usize = 512;
/// Pointers of a classic gang header.
pub const OLD_NBLKPTRS: usize = 3;

/// How many pointers a header of `size` bytes holds (`gbh_nblkptrs`).
#[must_use]
pub fn nblkptrs(size: usize) -> usize {
    size.saturating_sub(ECK_SIZE).checked_div(size_of::<Blkptr>()).unwrap_or(0)
}

/// The pointers of a gang header, in order; unused ones are holes.
pub fn parse(header: &[u8]) -> Result<Vec<Blkptr>, Corrupt> {
    let n = nblkptrs(header.len());
    if n == 0 || header.len() > 1 << 17 || EckPhys::of(header).and_then(|e| e.is_swapped()) != Some(false) {
        return Err(Corrupt::new("gang header", format!("{} bytes, no magic", header.len())));
    }
    let whole = header.as_chunks::<128>().0.iter().take(n);
    Ok(whole.map(|b| Blkptr::read_from_bytes(b).unwrap_or_default()).collect())
}

/// A header of `size` bytes with up to [`nblkptrs`] pointers and `verifier` in the checksum's place; `None`
/// if they do not fit.
#[must_use]
pub fn build(size: usize, pointers: &[Blkptr], verifier: [u64; 4]) -> Option<Vec<u8>> {
    if pointers.len() > nblkptrs(size) {
        return None;
    }
    let mut header: Vec<u8> = pointers.iter().flat_map(|bp| bp.as_bytes().to_vec()).collect();
    header.resize(size, 0);
    EckPhys::put(&mut header, verifier).then_some(header)
}

/// What stands in the checksum's place while a gang header's sum is computed: its first address and birth
/// (`zio_checksum_gang_verifier`).
#[must_use]
pub fn verifier(vdev: u32, offset: u64, birth: Txg) -> [u64; 4] {
    [u64::from(vdev), offset, birth.0, 0]
}
