//! Encryption and authentication of blocks (zio_crypt.c).
//!
//! Invariants:
//! 1. Nothing decrypted is handed out before its MAC was found good; on failure the buffer holds zeros or
//!    the ciphertext, never unproven plaintext.
//! 2. Lengths inside a block are checked before any cipher runs: the MAC proves who wrote them, not that they
//!    are sane, and on the way to the MAC they are anybody's.
//! 3. This module draws no random numbers: salts and IVs come from the caller, who must never use a pair of
//!    data key and IV twice.
//! 4. Keys are wiped when dropped and are not printable.

mod aead;
pub mod block;
mod dnode;
pub mod keys;
pub mod objset;
pub mod portable;
mod zil;

pub use block::{Nonce, check_indirect, decrypt_block, encrypt_block, verify_block};
pub use keys::{DataKey, MasterKeys, WrappedKey, WrappingKey, unwrap_key, wrap_key};
pub use objset::{objset_macs, verify_objset};
pub use portable::indirect_mac;

use icecore_format::Corrupt;
use std::fmt;

/// An algorithm suite by its on-disk number (`enum zio_encrypt`, zio.h; `zio_crypt_table`, zio_crypt.c).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Suite {
    /// AES-128 in CCM.
    Aes128Ccm = 3,
    /// AES-192 in CCM.
    Aes192Ccm = 4,
    /// AES-256 in CCM.
    Aes256Ccm = 5,
    /// AES-128 in GCM.
    Aes128Gcm = 6,
    /// AES-192 in GCM.
    Aes192Gcm = 7,
    /// AES-256 in GCM: the default.
    Aes256Gcm = 8,
}

impl Suite {
    /// All suites, by number.
    pub const ALL: [Self; 6] = [
        Self::Aes128Ccm,
        Self::Aes192Ccm,
        Self::Aes256Ccm,
        Self::Aes128Gcm,
        Self::Aes192Gcm,
        Self::Aes256Gcm,
    ];

    /// From the number in the key object or property; `None` for off, on, inherit and unknown ones.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.number() == number)
    }
    /// The on-disk number.
    #[must_use]
    pub fn number(self) -> u64 {
        self as u64
    }
    /// The property value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128Ccm => "aes-128-ccm",
            Self::Aes192Ccm => "aes-192-ccm",
            Self::Aes256Ccm => "aes-256-ccm",
            Self::Aes128Gcm => "aes-128-gcm",
            Self::Aes192Gcm => "aes-192-gcm",
            Self::Aes256Gcm => "aes-256-gcm",
        }
    }
    /// From the property value.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }
    /// Bytes of master and data keys.
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128Ccm | Self::Aes128Gcm => 16,
            Self::Aes192Ccm | Self::Aes192Gcm => 24,
            Self::Aes256Ccm | Self::Aes256Gcm => 32,
        }
    }
    /// Whether the mode is CCM.
    #[must_use]
    pub fn is_ccm(self) -> bool {
        matches!(self, Self::Aes128Ccm | Self::Aes192Ccm | Self::Aes256Ccm)
    }
}

/// Why a block was not encrypted, decrypted or believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CryptError {
    /// The MAC does not fit: damaged, forged, or another key.
    Authentication,
    /// Lengths inside the block point out of it.
    Malformed(Corrupt),
    /// The cipher does not take this (CCM ends below 16 MiB), or the key version is from the future.
    Unsupported(&'static str),
}

impl CryptError {
    fn malformed(what: &'static str, why: impl Into<String>) -> Self {
        Self::Malformed(Corrupt::new(what, why))
    }
}
impl fmt::Display for CryptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authentication => f.write_str("authentication failed"),
            Self::Malformed(e) => e.fmt(f),
            Self::Unsupported(what) => write!(f, "not supported: {what}"),
        }
    }
}
impl std::error::Error for CryptError {}

/// Compares without telling by the time taken where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}

/// The bytes of all `ranges` of `block` in a row. Ranges outside the block are skipped: the layouts that
/// make them have checked them.
fn gather(block: &[u8], ranges: &[std::ops::Range<usize>]) -> Vec<u8> {
    ranges.iter().filter_map(|r| block.get(r.clone())).flatten().copied().collect()
}

/// The inverse of [`gather`].
fn scatter(block: &mut [u8], ranges: &[std::ops::Range<usize>], mut bytes: &[u8]) {
    for range in ranges {
        if let Some(to) = block.get_mut(range.clone())
            && let Some((now, later)) = bytes.split_at_checked(to.len())
        {
            to.copy_from_slice(now);
            bytes = later;
        }
    }
}

#[cfg(test)]
mod tests;
