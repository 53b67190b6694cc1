//! Keys: from what the user holds to the wrapping key, from that to the dataset's master keys, from those to
//! the key of a block (`zio_crypt_key_unwrap`, zio_crypt.c; `derive_key`, libzfs_crypto.c).

use super::aead::Aead;
use super::{CryptError, Suite};
use hmac::{Hmac, KeyInit, Mac};
use icecore_format::Guid;
use icecore_secret::{Secret, scrubbed};
use sha2::Sha512;
use std::fmt;

/// The newest key version: block pointers are authenticated with a padding word and all non-portable bits
/// masked. Version 0 only exists in pools of development releases.
pub const VERSION: u64 = 1;

/// What the user's passphrase or key file comes down to; encrypts the master keys. Always 32 bytes, the
/// cipher is AES-256 in the suite's mode.
#[derive(Clone)]
pub struct WrappingKey(Secret<[u8; 32]>);

impl WrappingKey {
    /// A raw or decoded hex key.
    #[must_use]
    pub fn from_bytes(key: &[u8; 32]) -> Self {
        let mut own = Secret::zeros();
        own.copy_from_slice(key);
        Self(own)
    }
    /// PBKDF2-HMAC-SHA1 of a passphrase with the dataset's `pbkdf2salt` and `pbkdf2iters`. The time this takes
    /// grows with `iterations`, which may come from a stream: the caller sets a limit.
    #[must_use]
    pub fn from_passphrase(passphrase: &[u8], salt: u64, iterations: u32) -> Self {
        let mut key = Secret::zeros();
        scrubbed(|| {
            pbkdf2::pbkdf2_hmac::<sha1::Sha1>(passphrase, &salt.to_le_bytes(), iterations, &mut *key);
        });
        Self(key)
    }
    /// The key itself: for tests that look for it where it must not be.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}
impl fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrappingKey(..)")
    }
}

/// The master keys as the key object (and the raw stream's `crypt_keydata`) holds them: ciphertext.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrappedKey {
    /// `DSL_CRYPTO_SUITE`.
    pub suite: Suite,
    /// `DSL_CRYPTO_GUID`; bound by the MAC.
    pub guid: Guid,
    /// `DSL_CRYPTO_VERSION`.
    pub version: u64,
    /// `DSL_CRYPTO_IV`.
    pub iv: [u8; 12],
    /// `DSL_CRYPTO_MAC`.
    pub mac: [u8; 16],
    /// `DSL_CRYPTO_MASTER_KEY_1`: the suite's key length counts, the rest is zero.
    pub master: [u8; 32],
    /// `DSL_CRYPTO_HMAC_KEY_1`.
    pub hmac: [u8; 64],
}

/// The secrets of a dataset and all its clones; never change, whatever the wrapping key does.
#[derive(Clone)]
pub struct MasterKeys {
    suite: Suite,
    guid: u64,
    version: u64,
    master: Secret<[u8; 32]>,
    hmac: Secret<[u8; 64]>,
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKeys({}, guid {}, ..)", self.suite.name(), self.guid)
    }
}

impl MasterKeys {
    /// New keys of the newest version, from 96 random bytes.
    #[must_use]
    pub fn generate(suite: Suite, guid: Guid, random: &Secret<[u8; 96]>) -> Self {
        let mut keys =
            Self { suite, guid: guid.0, version: VERSION, master: Secret::zeros(), hmac: Secret::zeros() };
        let (master, hmac) = random.split_at(32);
        for (to, from) in keys.master.iter_mut().zip(master).take(suite.key_len()) {
            *to = *from;
        }
        keys.hmac.copy_from_slice(hmac);
        keys
    }
    /// The algorithm suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }
    /// The key's identity: equal guids, equal keys.
    #[must_use]
    pub fn guid(&self) -> Guid {
        Guid(self.guid)
    }
    /// The key version, which decides what of a block pointer is authenticated.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }
    /// The secrets themselves, of encryption and of authentication: for tests that look for them where they must not be.
    #[must_use]
    pub fn expose(&self) -> (&[u8], &[u8; 64]) {
        (self.master.get(..self.suite.key_len()).unwrap_or(&[]), &self.hmac)
    }
    /// The key of all blocks with this salt: HKDF-SHA512 without salt, the block salt as info.
    #[must_use]
    pub fn data_key(&self, salt: [u8; 8]) -> DataKey {
        let mut key = Secret::<[u8; 32]>::zeros();
        let len = self.suite.key_len();
        scrubbed(|| {
            let (ikm, okm) = (self.master.get(..len).unwrap_or(&[]), key.get_mut(..len).unwrap_or(&mut []));
            let expanded = hkdf::Hkdf::<Sha512>::new(None, ikm).expand(&salt, okm);
            assert!(expanded.is_ok(), "at most 32 of HKDF's 16320 bytes are asked for");
        });
        DataKey { salt, aead: scrubbed(|| Aead::new(self.suite, &key)) }
    }
    /// Salt and IV of a block to be deduplicated: from its (compressed) contents, so that equal blocks have
    /// equal ciphertext (`zio_crypt_generate_iv_salt_dedup`).
    #[must_use]
    pub fn dedup_nonce(&self, data: &[u8]) -> ([u8; 8], [u8; 12]) {
        let [a, b, c, d, e, f, g, h, rest @ ..] = self.hmac_sha512(&[data]);
        let mut iv = [0; 12];
        for (to, from) in iv.iter_mut().zip(rest) {
            *to = from;
        }
        ([a, b, c, d, e, f, g, h], iv)
    }
    /// The 16-byte MAC of a block that is authenticated only.
    #[must_use]
    pub fn block_hmac(&self, data: &[u8]) -> [u8; 16] {
        *self.hmac_sha512(&[data]).first_chunk().unwrap_or(&[0; 16])
    }
    /// HMAC-SHA512 over the parts in a row.
    pub(super) fn hmac_sha512(&self, parts: &[&[u8]]) -> [u8; 64] {
        scrubbed(|| {
            let mut mac = match Hmac::<Sha512>::new_from_slice(&*self.hmac) {
                Ok(mac) => mac,
                Err(_) => unreachable!("HMAC takes keys of any length"),
            };
            for part in parts {
                mac.update(part);
            }
            mac.finalize().into_bytes().into()
        })
    }
}

/// The cipher of all blocks that share a salt. OpenZFS changes the salt every 400 million blocks.
pub struct DataKey {
    salt: [u8; 8],
    aead: Aead,
}

impl DataKey {
    /// The salt it was derived with.
    #[must_use]
    pub fn salt(&self) -> [u8; 8] {
        self.salt
    }
    /// Encrypts `data` in place; the MAC.
    pub fn seal(&self, iv: &[u8; 12], aad: &[u8], data: &mut [u8]) -> Result<[u8; 16], CryptError> {
        scrubbed(|| self.aead.seal(iv, aad, data))
    }
    /// Decrypts `data` in place; wiped if the MAC does not fit.
    pub fn open(&self, iv: &[u8; 12], aad: &[u8], data: &mut [u8], mac: &[u8; 16]) -> Result<(), CryptError> {
        scrubbed(|| self.aead.open(iv, aad, data, mac))
    }
}
impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

/// The master keys, if this is the wrapping key they were wrapped with; [`CryptError::Authentication`] if not.
pub fn unwrap_key(wrapping: &WrappingKey, wrapped: &WrappedKey) -> Result<MasterKeys, CryptError> {
    let WrappedKey { suite, guid, version, iv, mac, master, hmac } = wrapped;
    if *version > VERSION {
        return Err(CryptError::Unsupported("key version"));
    }
    let len = suite.key_len();
    let mut secret = both(master.get(..len).unwrap_or(&[]), hmac);
    let secret = secret.get_mut(..len + hmac.len()).unwrap_or_default();
    scrubbed(|| {
        wrapping_cipher(wrapping, *suite).open(iv, &wrapping_aad(*suite, *guid, *version), secret, mac)
    })?;
    let (suite, guid, version) = (*suite, guid.0, *version);
    let mut keys = MasterKeys { suite, guid, version, master: Secret::zeros(), hmac: Secret::zeros() };
    for (to, from) in keys.master.iter_mut().take(len).chain(&mut *keys.hmac).zip(secret.iter()) {
        *to = *from;
    }
    Ok(keys)
}

/// Encrypts the master keys. The IV must be fresh for every wrapping.
pub fn wrap_key(wrapping: &WrappingKey, keys: &MasterKeys, iv: [u8; 12]) -> Result<WrappedKey, CryptError> {
    let (suite, guid, version) = (keys.suite, keys.guid(), keys.version);
    let len = suite.key_len();
    let mut secret = both(keys.master.get(..len).unwrap_or(&[]), &keys.hmac);
    let secret = secret.get_mut(..len + keys.hmac.len()).unwrap_or_default();
    let mac =
        scrubbed(|| wrapping_cipher(wrapping, suite).seal(&iv, &wrapping_aad(suite, guid, version), secret))?;
    let mut wrapped = WrappedKey { suite, guid, version, iv, mac, master: [0; 32], hmac: [0; 64] };
    for (to, from) in wrapped.master.iter_mut().take(len).chain(&mut wrapped.hmac).zip(secret.iter()) {
        *to = *from;
    }
    Ok(wrapped)
}

/// Master and HMAC key in a row, as they are wrapped.
fn both(master: &[u8], hmac: &[u8; 64]) -> Secret<[u8; 96]> {
    let mut out = Secret::<[u8; 96]>::zeros();
    for (to, from) in out.iter_mut().zip(master.iter().chain(hmac)) {
        *to = *from;
    }
    out
}

/// Wrapping is always with 256 bits, only the mode follows the suite (`WRAPPING_KEY_LEN`, zio_crypt.h).
fn wrapping_cipher(wrapping: &WrappingKey, suite: Suite) -> Aead {
    Aead::new(if suite.is_ccm() { Suite::Aes256Ccm } else { Suite::Aes256Gcm }, &wrapping.0)
}

/// Guid, suite and version are bound to the ciphertext, so that none can be exchanged; version 0 bound the
/// guid only.
fn wrapping_aad(suite: Suite, guid: Guid, version: u64) -> Vec<u8> {
    let words: &[u64] = if version == 0 { &[guid.0] } else { &[guid.0, suite.number(), version] };
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}
