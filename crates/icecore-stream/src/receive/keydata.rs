//! The `crypt_keydata` list of a raw stream's BEGIN: the wrapped key and the shape of the metadnode.
//!
//! Facts: `dsl_crypto_populate_key_nvlist`, `dsl_crypto_recv_raw_objset_check` and
//! `dsl_crypto_recv_raw_key_check` of dsl_crypt.c. Stricter here: the metadnode has at least one level and
//! blocks of 16 KiB, its last block fits its height, and the iterations of a passphrase have a ceiling, so
//! that loading a foreign key cannot take for ever.

use super::rules::{Refusal, Rule, refuse, tree_capacity};
use icecore_format::dnode::{DNODE_BLOCK, MAX_LEVELS};
use icecore_format::{Checksum, Compress, NvList};

/// Most iterations of PBKDF2 a received key may ask for.
pub const PBKDF2_ITERS_MAX: u64 = 100_000_000;
/// The one version of wrapped keys that travels (`ZIO_CRYPT_KEY_CURRENT_VERSION`).
const KEY_VERSION: u64 = 1;
/// Number of key formats (`ZFS_KEYFORMAT_FORMATS`): none, raw, hex, passphrase.
const KEYFORMATS: u64 = 4;
const KEYFORMAT_PASSPHRASE: u64 = 3;
/// First number that is no cipher suite (`ZIO_CRYPT_FUNCTIONS`).
const SUITES: u64 = 9;
/// Suites 0 to 2 stand for inherit, on and off.
const SUITE_OFF: u64 = 2;
/// Smallest number of a compression that is not legacy (`ZIO_COMPRESS_LEGACY_FUNCTIONS`, LZ4).
const COMPRESS_LEGACY: u64 = 15;
/// The same for checksums (`ZIO_CHECKSUM_LEGACY_FUNCTIONS`).
const CHECKSUM_LEGACY: u64 = 9;

/// A wrapped key, as a stream carries it and the DSL stores it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrappedKey {
    /// Cipher suite by number.
    pub suite: u64,
    /// The key's own guid: the same for all who have the master key.
    pub guid: u64,
    /// Wrapped master key.
    pub master: [u8; 32],
    /// Wrapped HMAC key.
    pub hmac: [u8; 64],
    /// IV of the wrapping.
    pub iv: [u8; 12],
    /// MAC of the wrapping.
    pub mac: [u8; 16],
    /// Key format by number: raw, hex, passphrase.
    pub keyformat: u64,
    /// PBKDF2 iterations; 0 unless a passphrase.
    pub iters: u64,
    /// PBKDF2 salt; 0 unless a passphrase.
    pub salt: u64,
}

impl WrappedKey {
    /// Checks the part of `crypt_keydata` that is the key.
    pub fn parse(list: &NvList) -> Result<Self, KeyRefusal> {
        key(&Fields(list))
    }

    /// That part again.
    #[must_use]
    pub fn to_list(&self) -> NvList {
        let mut list = NvList::new();
        list.set("DSL_CRYPTO_SUITE", self.suite)
            .set("DSL_CRYPTO_GUID", self.guid)
            .set("DSL_CRYPTO_VERSION", KEY_VERSION)
            .set_u8_array("DSL_CRYPTO_MASTER_KEY_1", &self.master)
            .set_u8_array("DSL_CRYPTO_HMAC_KEY_1", &self.hmac)
            .set_u8_array("DSL_CRYPTO_IV", &self.iv)
            .set_u8_array("DSL_CRYPTO_MAC", &self.mac)
            .set("keyformat", self.keyformat)
            .set("pbkdf2iters", self.iters)
            .set("pbkdf2salt", self.salt);
        list
    }
}

/// The metadnode's shape, which is under the MAC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MetaShape {
    /// Checksum setting.
    pub checksum: Checksum,
    /// Compression setting.
    pub compress: Compress,
    /// Levels.
    pub nlevels: u8,
    /// log2 of the indirect block size.
    pub indblkshift: u8,
    /// Last block.
    pub maxblkid: u64,
}

/// All that `crypt_keydata` holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyData {
    /// The key.
    pub key: WrappedKey,
    /// The metadnode's shape.
    pub meta: MetaShape,
    /// MAC over the objset's portable part.
    pub portable_mac: [u8; 32],
    /// IV set of the snapshot sent; 0 from senders that have none.
    pub to_ivset_guid: u64,
    /// IV set of the snapshot the stream builds on; 0 for full streams and old senders.
    pub from_ivset_guid: u64,
}

/// Why `crypt_keydata` is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyRefusal {
    /// A key of the list is absent or of the wrong type or length.
    Missing(&'static str),
    /// A cipher suite from the future (`ZFS_ERR_CRYPTO_NOTSUP`).
    Suite(u64),
    /// A wrapped key of the first, flawed version.
    Version(u64),
    /// A number out of bounds.
    Number(Refusal),
}

impl From<Refusal> for KeyRefusal {
    fn from(r: Refusal) -> Self {
        Self::Number(r)
    }
}
impl std::fmt::Display for KeyRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "crypt_keydata has no proper {name}"),
            Self::Suite(n) => write!(f, "cipher suite {n} is not known"),
            Self::Version(n) => write!(f, "keys of version {n} are not accepted, only version {KEY_VERSION}"),
            Self::Number(r) => write!(f, "{r}"),
        }
    }
}

struct Fields<'a>(&'a NvList);

impl Fields<'_> {
    fn number(&self, name: &'static str) -> Result<u64, KeyRefusal> {
        self.0.u64(name).ok_or(KeyRefusal::Missing(name))
    }
    fn bytes<const N: usize>(&self, name: &'static str) -> Result<[u8; N], KeyRefusal> {
        let found = self.0.u8_array(name).ok_or(KeyRefusal::Missing(name))?;
        <[u8; N]>::try_from(found).map_err(|_| KeyRefusal::Missing(name))
    }
    fn between(&self, name: &'static str, min: u64, max: u64) -> Result<u64, KeyRefusal> {
        let n = self.number(name)?;
        if n < min {
            refuse(Rule::BelowMinimum, name, n, min)?;
        }
        if n > max {
            refuse(Rule::AboveMaximum, name, n, max)?;
        }
        Ok(n)
    }
}

impl KeyData {
    /// Checks the whole list.
    pub fn parse(list: &NvList) -> Result<Self, KeyRefusal> {
        let f = Fields(list);
        Ok(Self {
            key: WrappedKey::parse(list)?,
            meta: meta(&f)?,
            portable_mac: f.bytes("portable_mac")?,
            to_ivset_guid: list.u64("to_ivset_guid").unwrap_or(0),
            from_ivset_guid: list.u64("from_ivset_guid").unwrap_or(0),
        })
    }
}

fn meta(f: &Fields<'_>) -> Result<MetaShape, KeyRefusal> {
    let narrow = |n: u64| u8::try_from(n).unwrap_or(u8::MAX);
    let compress = f.between("mdn_compress", 0, COMPRESS_LEGACY - 1)?;
    let checksum = f.between("mdn_checksum", 0, CHECKSUM_LEGACY - 1)?;
    let nlevels = f.between("mdn_nlevels", 1, MAX_LEVELS.into())?;
    let blksz = f.number("mdn_blksz")?;
    if blksz != DNODE_BLOCK as u64 {
        refuse(Rule::NotEqual, "mdn_blksz", blksz, DNODE_BLOCK as u64)?;
    }
    let indblkshift = f.between("mdn_indblkshift", 12, 17)?;
    let nblkptr = f.number("mdn_nblkptr")?;
    if nblkptr != 3 {
        refuse(Rule::NotEqual, "mdn_nblkptr", nblkptr, 3)?;
    }
    let maxblkid = f.number("mdn_maxblkid")?;
    let capacity = tree_capacity(nblkptr, indblkshift, nlevels);
    if maxblkid >= capacity {
        refuse(Rule::TreeTooLow, "mdn_maxblkid", maxblkid, capacity)?;
    }
    Ok(MetaShape {
        checksum: Checksum(narrow(checksum)),
        compress: Compress(narrow(compress)),
        nlevels: narrow(nlevels),
        indblkshift: narrow(indblkshift),
        maxblkid,
    })
}

fn key(f: &Fields<'_>) -> Result<WrappedKey, KeyRefusal> {
    let suite = f.number("DSL_CRYPTO_SUITE")?;
    if suite <= SUITE_OFF {
        refuse(Rule::BelowMinimum, "DSL_CRYPTO_SUITE", suite, SUITE_OFF + 1)?;
    }
    if suite >= SUITES {
        return Err(KeyRefusal::Suite(suite));
    }
    let version = f.number("DSL_CRYPTO_VERSION")?;
    if version != KEY_VERSION {
        return Err(KeyRefusal::Version(version));
    }
    let keyformat = f.between("keyformat", 1, KEYFORMATS - 1)?;
    let passphrase = keyformat == KEYFORMAT_PASSPHRASE;
    let iters = f.between("pbkdf2iters", 0, PBKDF2_ITERS_MAX)?;
    let salt = f.number("pbkdf2salt")?;
    for (name, n) in [("pbkdf2iters", iters), ("pbkdf2salt", salt)] {
        if passphrase && n == 0 {
            refuse(Rule::MustNotBeZero, name, n, 0)?;
        }
        if !passphrase && n != 0 {
            refuse(Rule::MustBeZero, name, n, 0)?;
        }
    }
    Ok(WrappedKey {
        suite,
        guid: f.number("DSL_CRYPTO_GUID")?,
        master: f.bytes("DSL_CRYPTO_MASTER_KEY_1")?,
        hmac: f.bytes("DSL_CRYPTO_HMAC_KEY_1")?,
        iv: f.bytes("DSL_CRYPTO_IV")?,
        mac: f.bytes("DSL_CRYPTO_MAC")?,
        keyformat,
        iters,
        salt,
    })
}
