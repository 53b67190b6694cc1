//! The six AEAD ciphers behind one type: 12-byte nonce, 16-byte tag, in place.

use super::{CryptError, Suite};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::AesGcm;
use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{AeadInOut, KeyInit};
use ccm::Ccm;
use icecore_secret::Secret;

/// A cipher with its key schedule, in locked memory. Made and used within `scrubbed`.
pub(super) enum Aead {
    Ccm128(Secret<Ccm<Aes128, U16, U12>>),
    Ccm192(Secret<Ccm<Aes192, U16, U12>>),
    Ccm256(Secret<Ccm<Aes256, U16, U12>>),
    Gcm128(Secret<AesGcm<Aes128, U12>>),
    Gcm192(Secret<AesGcm<Aes192, U12>>),
    Gcm256(Secret<AesGcm<Aes256, U12>>),
}

macro_rules! each {
    ($aead:expr, $cipher:ident => $body:expr) => {
        match $aead {
            Aead::Ccm128($cipher) => $body,
            Aead::Ccm192($cipher) => $body,
            Aead::Ccm256($cipher) => $body,
            Aead::Gcm128($cipher) => $body,
            Aead::Gcm192($cipher) => $body,
            Aead::Gcm256($cipher) => $body,
        }
    };
}

impl Aead {
    /// The suite's cipher under `key`, of which the suite's key length is used.
    pub(super) fn new(suite: Suite, key: &[u8; 32]) -> Self {
        let short: &[u8; 16] = key.first_chunk().unwrap_or(&[0; 16]);
        let middle: &[u8; 24] = key.first_chunk().unwrap_or(&[0; 24]);
        match suite {
            Suite::Aes128Ccm => Self::Ccm128(Secret::new(Ccm::new(short.into()))),
            Suite::Aes192Ccm => Self::Ccm192(Secret::new(Ccm::new(middle.into()))),
            Suite::Aes256Ccm => Self::Ccm256(Secret::new(Ccm::new(key.into()))),
            Suite::Aes128Gcm => Self::Gcm128(Secret::new(AesGcm::new(short.into()))),
            Suite::Aes192Gcm => Self::Gcm192(Secret::new(AesGcm::new(middle.into()))),
            Suite::Aes256Gcm => Self::Gcm256(Secret::new(AesGcm::new(key.into()))),
        }
    }

    pub(super) fn seal(&self, iv: &[u8; 12], aad: &[u8], data: &mut [u8]) -> Result<[u8; 16], CryptError> {
        each!(self, cipher => cipher.encrypt_inout_detached(iv.into(), aad, data.into()))
            .map(Into::into)
            .map_err(|_| CryptError::Unsupported("block too long for the cipher"))
    }

    /// On failure `data` is wiped: CCM has decrypted it by the time it knows.
    pub(super) fn open(
        &self,
        iv: &[u8; 12],
        aad: &[u8],
        data: &mut [u8],
        mac: &[u8; 16],
    ) -> Result<(), CryptError> {
        each!(self, cipher => cipher.decrypt_inout_detached(iv.into(), aad, (&mut *data).into(), mac.into()))
            .map_err(|_| {
                data.fill(0);
                CryptError::Authentication
            })
    }
}
