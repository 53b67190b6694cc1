//! Names and numbers of native encryption: the key object (dsl_crypt.h), suites (`enum zio_encrypt`, zio.h;
//! `zio_crypt_table`, zio_crypt.c) and key formats (`zfs_keyformat_t`, fs/zfs.h). The ciphers are elsewhere.

/// Names in the key object's ZAP and in a raw stream's key list (`DSL_CRYPTO_KEY_*`).
pub mod key {
    /// The suite's number.
    pub const CRYPTO_SUITE: &str = "DSL_CRYPTO_SUITE";
    /// The key's guid.
    pub const GUID: &str = "DSL_CRYPTO_GUID";
    /// IV of the wrapping.
    pub const IV: &str = "DSL_CRYPTO_IV";
    /// MAC of the wrapping.
    pub const MAC: &str = "DSL_CRYPTO_MAC";
    /// The wrapped master key.
    pub const MASTER_KEY: &str = "DSL_CRYPTO_MASTER_KEY_1";
    /// The wrapped HMAC key.
    pub const HMAC_KEY: &str = "DSL_CRYPTO_HMAC_KEY_1";
    /// The encryption root's directory object.
    pub const ROOT_DDOBJ: &str = "DSL_CRYPTO_ROOT_DDOBJ";
    /// How many datasets share the key.
    pub const REFCOUNT: &str = "DSL_CRYPTO_REFCOUNT";
    /// Version of the key object.
    pub const VERSION: &str = "DSL_CRYPTO_VERSION";
    /// Property: how the wrapping key is given.
    pub const KEYFORMAT: &str = "keyformat";
    /// Property: rounds of PBKDF2.
    pub const PBKDF2_ITERS: &str = "pbkdf2iters";
    /// Property: salt of PBKDF2.
    pub const PBKDF2_SALT: &str = "pbkdf2salt";
}

/// The version of key objects written today (`ZIO_CRYPT_KEY_CURRENT_VERSION`).
pub const KEY_VERSION: u64 = 1;
/// Bytes of a wrapping key.
pub const WRAPPING_KEY_LEN: usize = 32;
/// Longest master key.
pub const MASTER_KEY_MAX_LEN: usize = 32;
/// Bytes of the HMAC key.
pub const HMAC_KEY_LEN: usize = 64;
/// Bytes of an IV.
pub const IV_LEN: usize = 12;
/// Bytes of a salt.
pub const SALT_LEN: usize = 8;
/// Bytes of a block's MAC.
pub const MAC_LEN: usize = 16;
/// Bytes of an objset's MACs.
pub const OBJSET_MAC_LEN: usize = 32;
/// Blocks encrypted under one salt before it changes (`ZFS_KEY_MAX_SALT_USES_DEFAULT`).
pub const MAX_SALT_USES: u64 = 400_000_000;

/// An encryption suite by its on-disk number. Open: unknown numbers survive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Suite(pub u64);

impl Suite {
    /// Take the parent's (property value only).
    pub const INHERIT: Self = Self(0);
    /// The default: AES-256-GCM (property value only).
    pub const ON: Self = Self(1);
    /// None.
    pub const OFF: Self = Self(2);
    /// AES-128-CCM.
    pub const AES_128_CCM: Self = Self(3);
    /// AES-192-CCM.
    pub const AES_192_CCM: Self = Self(4);
    /// AES-256-CCM.
    pub const AES_256_CCM: Self = Self(5);
    /// AES-128-GCM.
    pub const AES_128_GCM: Self = Self(6);
    /// AES-192-GCM.
    pub const AES_192_GCM: Self = Self(7);
    /// AES-256-GCM.
    pub const AES_256_GCM: Self = Self(8);

    /// The suite that a property value stands for.
    #[must_use]
    pub fn select(self) -> Self {
        if self == Self::ON { Self::AES_256_GCM } else { self }
    }
    /// Bytes of the key, or `None` if this is no cipher.
    #[must_use]
    pub fn key_len(self) -> Option<usize> {
        match self {
            Self::AES_128_CCM | Self::AES_128_GCM => Some(16),
            Self::AES_192_CCM | Self::AES_192_GCM => Some(24),
            Self::AES_256_CCM | Self::AES_256_GCM => Some(32),
            _ => None,
        }
    }
    /// Whether the mode is CCM.
    #[must_use]
    pub fn is_ccm(self) -> bool {
        matches!(self, Self::AES_128_CCM | Self::AES_192_CCM | Self::AES_256_CCM)
    }
    /// The property's text.
    #[must_use]
    pub fn text(self) -> &'static str {
        NAMES.iter().find(|(s, _)| *s == self).map_or("unknown", |(_, n)| n)
    }
    /// From the property's text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        NAMES.iter().find(|(_, n)| *n == text).map(|(s, _)| *s)
    }
}

const NAMES: [(Suite, &str); 9] = [
    (Suite::INHERIT, "inherit"),
    (Suite::ON, "on"),
    (Suite::OFF, "off"),
    (Suite::AES_128_CCM, "aes-128-ccm"),
    (Suite::AES_192_CCM, "aes-192-ccm"),
    (Suite::AES_256_CCM, "aes-256-ccm"),
    (Suite::AES_128_GCM, "aes-128-gcm"),
    (Suite::AES_192_GCM, "aes-192-gcm"),
    (Suite::AES_256_GCM, "aes-256-gcm"),
];

/// How a wrapping key is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyFormat {
    /// Not at all.
    None,
    /// 32 bytes.
    Raw,
    /// 64 hexadecimal digits.
    Hex,
    /// Words, through PBKDF2.
    Passphrase,
}

impl KeyFormat {
    /// From the on-disk number.
    #[must_use]
    pub fn from_raw(n: u64) -> Option<Self> {
        match n {
            0 => Some(Self::None),
            1 => Some(Self::Raw),
            2 => Some(Self::Hex),
            3 => Some(Self::Passphrase),
            _ => None,
        }
    }
    /// The on-disk number.
    #[must_use]
    pub fn raw(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Raw => 1,
            Self::Hex => 2,
            Self::Passphrase => 3,
        }
    }
    /// The property's text.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Raw => "raw",
            Self::Hex => "hex",
            Self::Passphrase => "passphrase",
        }
    }
}
