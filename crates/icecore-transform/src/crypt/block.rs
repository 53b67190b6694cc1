//! One block, encrypted or proven, by what its pointer says it is (`zio_encrypt`, `zio_decrypt`, zio.c).
//!
//! | level | contents | protection | MAC in |
//! |---|---|---|---|
//! | > 0 | block pointers | sum of the children's MACs, no key needed | pointer |
//! | 0 | objset | two HMACs | the block |
//! | 0 | a type left plain | HMAC | pointer |
//! | 0 | dnodes | AEAD, bonus encrypted | pointer |
//! | 0 | intent log | AEAD, record bodies encrypted | the block's trailer |
//! | 0 | any other | AEAD, all encrypted | pointer |

use super::objset::{seal_objset, verify_objset};
use super::portable::indirect_mac_version;
use super::{CryptError, MasterKeys, dnode, gather, same, scatter, zil};
use crate::compress;
use icecore_format::{Blkptr, ObjectType};

/// Salt and IV of a block. The IV must be fresh for the salt; for dedup take [`MasterKeys::dedup_nonce`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nonce {
    /// Chooses the data key.
    pub salt: [u8; 8],
    /// Used once under that key.
    pub iv: [u8; 12],
}

impl Nonce {
    /// What the pointer of an encrypted block holds.
    #[must_use]
    pub fn of(bp: &Blkptr) -> Self {
        Self { salt: bp.salt(), iv: bp.iv() }
    }
}

/// Turns the physical bytes of a block, checksum verified, into its (still compressed) plaintext, in place.
/// Blocks without the crypt bit and holes pass untouched.
pub fn decrypt_block(keys: &MasterKeys, bp: &Blkptr, data: &mut [u8]) -> Result<(), CryptError> {
    if !bp.uses_crypt() || bp.is_hole() || bp.is_embedded() {
        return Ok(());
    }
    if bp.level() > 0 {
        return check_indirect(bp, data);
    }
    if bp.is_authenticated() {
        return verify_authenticated(keys, bp, data);
    }
    let Nonce { salt, iv } = Nonce::of(bp);
    let key = keys.data_key(salt);
    match bp.kind() {
        ObjectType::DNODE => {
            let layout = dnode::layout(data, bp.is_little_endian(), keys.version())?;
            let mut secret = gather(data, &layout.secret);
            key.open(&iv, &layout.aad, &mut secret, &bp.mac())?;
            scatter(data, &layout.secret, &secret);
            Ok(())
        }
        ObjectType::INTENT_LOG => {
            let (layout, used) = zil::layout(data, bp.is_little_endian())?;
            let mac = data.get(zil::MAC_AT..).and_then(|m| m.first_chunk()).copied().unwrap_or_default();
            let mut secret = gather(data, &layout.secret);
            key.open(&iv, &layout.aad, &mut secret, &mac)?;
            scatter(data, &layout.secret, &secret);
            data.get_mut(used..).unwrap_or_default().fill(0);
            Ok(())
        }
        _ => key.open(&iv, &[], data, &bp.mac()),
    }
}

/// As [`decrypt_block`], without changing the caller's bytes or giving any plaintext: for scrub and verify.
pub fn verify_block(keys: &MasterKeys, bp: &Blkptr, data: &[u8]) -> Result<(), CryptError> {
    decrypt_block(keys, bp, &mut data.to_vec())
}

/// Encrypts or authenticates the (compressed) bytes of a block in place and records MAC, salt and IV in the
/// pointer, with the crypt bit. The pointer must have type, level, sizes, compression and byte order; the
/// fill count is set afterwards. An intent log block's pointer has its salt and IV before, and `nonce` must
/// repeat them.
pub fn encrypt_block(
    keys: &MasterKeys,
    bp: &mut Blkptr,
    data: &mut [u8],
    nonce: Nonce,
) -> Result<(), CryptError> {
    bp.set_crypt(true);
    let little_endian = bp.is_little_endian();
    if bp.level() > 0 {
        let mac = with_logical(bp, data, |logical| {
            indirect_mac_version(logical, little_endian, super::keys::VERSION)
        })?;
        bp.set_mac(mac);
        return Ok(());
    }
    if bp.kind() == ObjectType::OBJSET {
        return seal_objset(keys, data, little_endian);
    }
    if bp.is_authenticated() {
        bp.set_mac(keys.block_hmac(data));
        return Ok(());
    }
    let key = keys.data_key(nonce.salt);
    let mac = match bp.kind() {
        ObjectType::DNODE => {
            let layout = dnode::layout(data, little_endian, keys.version())?;
            let mut secret = gather(data, &layout.secret);
            let mac = key.seal(&nonce.iv, &layout.aad, &mut secret)?;
            scatter(data, &layout.secret, &secret);
            mac
        }
        ObjectType::INTENT_LOG => {
            let (layout, used) = zil::layout(data, little_endian)?;
            let mut secret = gather(data, &layout.secret);
            let mac = key.seal(&nonce.iv, &layout.aad, &mut secret)?;
            scatter(data, &layout.secret, &secret);
            data.get_mut(used..).unwrap_or_default().fill(0);
            if let Some(to) = data.get_mut(zil::MAC_AT..zil::MAC_AT + 16) {
                to.copy_from_slice(&mac);
            }
            bp.set_salt_iv(nonce.salt, nonce.iv);
            return Ok(());
        }
        _ => key.seal(&nonce.iv, &[], data)?,
    };
    bp.set_salt_iv(nonce.salt, nonce.iv);
    bp.set_mac(mac);
    Ok(())
}

/// Checks the MAC of an indirect block against its children's; needs no key. The key version is not known
/// here, so either form will do (`zio_crypt_do_indirect_mac_checksum`).
pub fn check_indirect(bp: &Blkptr, data: &[u8]) -> Result<(), CryptError> {
    let fits = with_logical(bp, data, |logical| {
        for version in [super::keys::VERSION, 0] {
            if same(&indirect_mac_version(logical, bp.is_little_endian(), version)?, &bp.mac()) {
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    if fits { Ok(()) } else { Err(CryptError::Authentication) }
}

fn verify_authenticated(keys: &MasterKeys, bp: &Blkptr, data: &[u8]) -> Result<(), CryptError> {
    if bp.kind() == ObjectType::OBJSET {
        return verify_objset(keys, data, bp.is_little_endian());
    }
    if same(&keys.block_hmac(data), &bp.mac()) { Ok(()) } else { Err(CryptError::Authentication) }
}

fn with_logical<T>(
    bp: &Blkptr,
    data: &[u8],
    then: impl FnOnce(&[u8]) -> Result<T, CryptError>,
) -> Result<T, CryptError> {
    if bp.compress().is_off() {
        return then(data);
    }
    if bp.lsize() > icecore_format::units::MAX_BLOCK {
        return Err(CryptError::malformed("blkptr", format!("size {}", bp.lsize())));
    }
    let logical = compress::decompress(bp.compress(), data, bp.lsize() as usize)
        .map_err(|e| CryptError::malformed("indirect block", e.to_string()))?;
    then(&logical)
}
