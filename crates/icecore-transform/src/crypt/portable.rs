//! What of a block pointer is authenticated: the MAC of the block it leads to and those properties that a raw
//! send carries to another pool (`zio_crypt_bp_auth_init`, zio_crypt.c).

use super::CryptError;
use icecore_format::Blkptr;
use sha2::{Digest, Sha512};
use zerocopy::FromBytes;

const POINTER: usize = 128;

/// The authenticated part of the block pointer in `bytes` (128 of them, in the block's order): masked
/// properties, MAC, and from key version 1 on a zero word. Little-endian whatever the block.
pub(super) fn portable(bytes: &[u8], little_endian: bool, version: u64) -> Result<Vec<u8>, CryptError> {
    let mut raw: [u8; POINTER] =
        bytes.try_into().map_err(|_| CryptError::malformed("blkptr", "cut short"))?;
    if !little_endian {
        icecore_format::byteswap::swap_words::<8>(&mut raw);
    }
    let bp = Blkptr::read_from_bytes(&raw).unwrap_or_default();
    let mut out = Vec::with_capacity(32);
    out.extend_from_slice(&masked_prop(bp, version).to_le_bytes());
    out.extend_from_slice(&bp.mac());
    if version > 0 {
        out.extend_from_slice(&[0; 8]);
    }
    Ok(out)
}

/// The property word without what may differ between pools: checksum and dedup always; for indirect blocks
/// also order, compression and physical size; everything of a hole.
fn masked_prop(mut bp: Blkptr, version: u64) -> u64 {
    if version == 0 {
        bp.set_psize_bits(0);
    } else if bp.is_hole() {
        return 0;
    } else if bp.level() > 0 {
        bp.set_little_endian(false);
        bp.set_compress_bits(0);
        bp.set_psize_bits(0);
    }
    bp.set_dedup(false);
    bp.set_checksum_bits(0);
    bp.prop()
}

/// The MAC of an indirect block, from its logical bytes: SHA-512 over its children's portable parts, cut to
/// 16 bytes. Not keyed; the root of the tree is (`zio_crypt_do_indirect_mac_checksum`).
pub fn indirect_mac(logical: &[u8], little_endian: bool) -> Result<[u8; 16], CryptError> {
    indirect_mac_version(logical, little_endian, super::keys::VERSION)
}

pub(super) fn indirect_mac_version(
    logical: &[u8],
    little_endian: bool,
    version: u64,
) -> Result<[u8; 16], CryptError> {
    let mut sum = Sha512::new();
    for pointer in logical.chunks_exact(POINTER) {
        sum.update(portable(pointer, little_endian, version)?);
    }
    let digest: [u8; 64] = sum.finalize().into();
    Ok(*digest.first_chunk().unwrap_or(&[0; 16]))
}
