//! Keys: the wrapped data keys of encrypted datasets, their encryption roots, loading and unloading
//! (dsl_crypt.c).
//!
//! A key object is a ZAP that a directory names in its own ZAP; clones share that of their origin. It holds
//! the data keys encrypted by the wrapping key, which belongs to the encryption root: the directory named
//! by `DSL_CRYPTO_ROOT_DDOBJ`.
//!
//! Invariants:
//! 1. A wrapping key is held only after it has opened the key object of its root.
//! 2. A key object is freed with its last reference.
//! 3. The wrapped form is taken over as it is from a raw stream; nothing here can be learned from it.

use crate::Dsl;
use crate::error::{DslError, KeyError, Result};
use crate::feature::Feature;
use crate::lookup::DatasetRef;
use crate::mos::OTN_ZAP_METADATA;
use crate::prop::{SetSource, Value};
use icecore_dmu::zap::ZapValue;
use icecore_dmu::{BlockStore, BlockWriter};
use icecore_format::Corrupt;

const DIR_FIELD: &str = "com.datto:crypto_key_obj";
const IVSET: &str = "com.datto:ivset_guid";
/// A raw stream was received (`DS_FIELD_RAW_RECEIVED`).
const RAW_RECEIVED: &str = "org.openzfs:raw_received";
/// The only version of key objects that is written (`ZIO_CRYPT_KEY_CURRENT_VERSION`).
pub const KEY_VERSION: u64 = 1;

/// Property `keyformat`: none.
pub const KEYFORMAT_NONE: u64 = 0;
/// 32 raw bytes.
pub const KEYFORMAT_RAW: u64 = 1;
/// 64 hexadecimal digits.
pub const KEYFORMAT_HEX: u64 = 2;
/// A passphrase of 8 to 512 bytes, stretched by PBKDF2.
pub const KEYFORMAT_PASSPHRASE: u64 = 3;

/// A key object as stored: everything wrapped.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyObject {
    /// `enum zio_encrypt`: 3 to 8.
    pub suite: u64,
    /// Identity of the data keys.
    pub guid: u64,
    /// 1; 0 for pools with errata 3.
    pub version: u64,
    /// Wrapped master key.
    pub master: [u8; 32],
    /// Wrapped HMAC key.
    pub hmac: [u8; 64],
    /// IV of the wrapping.
    pub iv: [u8; 12],
    /// MAC of the wrapping.
    pub mac: [u8; 16],
    /// `KEYFORMAT_*` of the wrapping key.
    pub keyformat: u64,
    /// PBKDF2 salt.
    pub salt: u64,
    /// PBKDF2 iterations.
    pub iters: u64,
}

impl std::fmt::Debug for KeyObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "key {:x} of suite {}, version {}", self.guid, self.suite, self.version)
    }
}

/// What properties show of a directory's encryption.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KeyStats {
    pub(crate) available: bool,
    pub(crate) suite: u64,
    pub(crate) guid: u64,
    pub(crate) keyformat: u64,
    pub(crate) salt: u64,
    pub(crate) iters: u64,
    pub(crate) root_dir: u64,
}

impl Dsl {
    /// The key object of a directory, `None` if it is not encrypted.
    pub fn crypto_obj(&self, io: &dyn BlockStore, dir: u64) -> Result<Option<u64>> {
        self.field_u64(io, dir, DIR_FIELD)
    }

    /// The encryption root of a directory, `None` if it is not encrypted.
    pub fn encryption_root(&self, io: &dyn BlockStore, dir: u64) -> Result<Option<u64>> {
        match self.crypto_obj(io, dir)? {
            Some(obj) => self.zap_u64(io, obj, "DSL_CRYPTO_ROOT_DDOBJ"),
            None => Ok(None),
        }
    }

    /// The stored key object of a directory.
    pub fn key_object(&self, io: &dyn BlockStore, dir: u64) -> Result<Option<KeyObject>> {
        let Some(obj) = self.crypto_obj(io, dir)? else { return Ok(None) };
        let number = |name: &str| Ok::<_, DslError>(self.zap_u64(io, obj, name)?.unwrap_or(0));
        Ok(Some(KeyObject {
            suite: number("DSL_CRYPTO_SUITE")?,
            guid: number("DSL_CRYPTO_GUID")?,
            version: number("DSL_CRYPTO_VERSION")?,
            master: self.key_bytes(io, obj, "DSL_CRYPTO_MASTER_KEY_1")?,
            hmac: self.key_bytes(io, obj, "DSL_CRYPTO_HMAC_KEY_1")?,
            iv: self.key_bytes(io, obj, "DSL_CRYPTO_IV")?,
            mac: self.key_bytes(io, obj, "DSL_CRYPTO_MAC")?,
            keyformat: number("keyformat")?,
            salt: number("pbkdf2salt")?,
            iters: number("pbkdf2iters")?,
        }))
    }

    fn key_bytes<const N: usize>(&self, io: &dyn BlockStore, obj: u64, name: &str) -> Result<[u8; N]> {
        match self.zap_get(io, obj, name)? {
            Some(ZapValue::U8(b)) if b.len() == N => {
                let mut out = [0; N];
                out.copy_from_slice(&b);
                Ok(out)
            }
            _ => Err(Corrupt::new("key object", format!("{name} of object {obj} is not {N} bytes")).into()),
        }
    }

    pub(crate) fn key_stats(&self, io: &dyn BlockStore, dir: u64) -> Result<Option<KeyStats>> {
        let Some(obj) = self.crypto_obj(io, dir)? else { return Ok(None) };
        let number = |name: &str| Ok::<_, DslError>(self.zap_u64(io, obj, name)?.unwrap_or(0));
        let root_dir = number("DSL_CRYPTO_ROOT_DDOBJ")?;
        Ok(Some(KeyStats {
            available: self.wrapping.contains_key(&root_dir),
            suite: number("DSL_CRYPTO_SUITE")?,
            guid: number("DSL_CRYPTO_GUID")?,
            keyformat: number("keyformat")?,
            salt: number("pbkdf2salt")?,
            iters: number("pbkdf2iters")?,
            root_dir,
        }))
    }

    /// Format, salt and iterations of the wrapping key of a dataset: those of its encryption root.
    pub fn wrapping_form(&self, io: &dyn BlockStore, dir: u64) -> Result<(u64, u64, u64)> {
        let root = self.encryption_root(io, dir)?.ok_or(DslError::Key(KeyError::NotEncrypted))?;
        let k = self.key_stats(io, root)?.ok_or(DslError::Key(KeyError::NotEncrypted))?;
        Ok((k.keyformat, k.salt, k.iters))
    }

    /// Whether a dataset is encrypted.
    pub fn is_encrypted(&self, io: &dyn BlockStore, r: DatasetRef) -> Result<bool> {
        Ok(self.crypto_obj(io, r.dir)?.is_some())
    }

    /// The IV set of a snapshot: which run of encryption its blocks belong to.
    pub fn ivset_guid(&self, io: &dyn BlockStore, snap: u64) -> Result<Option<u64>> {
        self.field_u64(io, snap, IVSET)
    }

    /// Sets the IV set of a snapshot (raw receive).
    pub fn set_ivset_guid(&mut self, io: &mut dyn BlockWriter, snap: u64, guid: u64) -> Result<()> {
        self.zapify(io, snap)?;
        self.zap_put_u64(io, snap, IVSET, guid)
    }

    /// Marks a snapshot as received raw.
    pub fn set_raw_received(&mut self, io: &mut dyn BlockWriter, snap: u64) -> Result<()> {
        self.zapify(io, snap)?;
        self.zap_put_u64(io, snap, RAW_RECEIVED, 1)
    }

    /// Whether a snapshot was received raw.
    pub fn is_raw_received(&self, io: &dyn BlockStore, snap: u64) -> Result<bool> {
        Ok(self.field_u64(io, snap, RAW_RECEIVED)?.unwrap_or(0) != 0)
    }

    pub(crate) fn put_key(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: u64,
        root: u64,
        k: &KeyObject,
    ) -> Result<()> {
        self.zap_put_u64(io, obj, "DSL_CRYPTO_SUITE", k.suite)?;
        self.zap_put_u64(io, obj, "DSL_CRYPTO_ROOT_DDOBJ", root)?;
        self.zap_put_u64(io, obj, "DSL_CRYPTO_GUID", k.guid)?;
        self.zap_put(io, obj, "DSL_CRYPTO_IV", &ZapValue::U8(k.iv.to_vec()))?;
        self.zap_put(io, obj, "DSL_CRYPTO_MAC", &ZapValue::U8(k.mac.to_vec()))?;
        self.zap_put(io, obj, "DSL_CRYPTO_MASTER_KEY_1", &ZapValue::U8(k.master.to_vec()))?;
        self.zap_put(io, obj, "DSL_CRYPTO_HMAC_KEY_1", &ZapValue::U8(k.hmac.to_vec()))?;
        self.zap_put_u64(io, obj, "keyformat", k.keyformat)?;
        self.zap_put_u64(io, obj, "pbkdf2salt", k.salt)?;
        self.zap_put_u64(io, obj, "pbkdf2iters", k.iters)
    }

    /// Whether a raw stream's key may be written over that of `head`: the same data keys
    /// (`dsl_crypto_recv_raw_key_check`).
    pub fn raw_key_check(&self, io: &dyn BlockStore, head: DatasetRef, k: &KeyObject) -> Result<()> {
        let form = |why: &str| Err(DslError::Key(KeyError::Form(why.into())));
        if !(3..=8).contains(&k.suite) {
            return Err(DslError::Unsupported(format!("encryption suite {}", k.suite)));
        }
        if k.version != KEY_VERSION {
            return Err(DslError::Unsupported(format!("key version {}", k.version)));
        }
        if !(KEYFORMAT_RAW..=KEYFORMAT_PASSPHRASE).contains(&k.keyformat) {
            return form("keyformat is out of range");
        }
        let passphrase = k.keyformat == KEYFORMAT_PASSPHRASE;
        if passphrase != (k.iters != 0) || passphrase != (k.salt != 0) {
            return form("PBKDF2 parameters do not fit the keyformat");
        }
        match self.key_object(io, head.dir)? {
            Some(own) if own.guid != k.guid => Err(DslError::Key(KeyError::Wrong)),
            _ => Ok(()),
        }
    }

    /// Stores the wrapped key of a raw stream: a new dataset becomes its own encryption root, an existing
    /// one keeps its root (`dsl_crypto_recv_raw_key_sync`).
    pub fn raw_key_store(&mut self, io: &mut dyn BlockWriter, head: DatasetRef, k: &KeyObject) -> Result<()> {
        self.raw_key_check(io, head, k)?;
        if let Some(obj) = self.crypto_obj(io, head.dir)? {
            let root = self.encryption_root(io, head.dir)?.unwrap_or(head.dir);
            if root == head.dir {
                self.forget_unless_opens(root, k);
            }
            return self.put_key(io, obj, root, k);
        }
        self.key_new(io, head, head.dir, k)?;
        let prompt = Value::Text("prompt".into());
        self.prop_set_raw(io, head, "keylocation", &prompt, SetSource::Local)
    }

    pub(crate) fn key_new(
        &mut self,
        io: &mut dyn BlockWriter,
        head: DatasetRef,
        root: u64,
        k: &KeyObject,
    ) -> Result<()> {
        self.zapify(io, head.dir)?;
        let obj = self.zap_new(io, OTN_ZAP_METADATA)?;
        self.put_key(io, obj, root, k)?;
        self.zap_put_u64(io, obj, "DSL_CRYPTO_REFCOUNT", 1)?;
        self.zap_put_u64(io, obj, "DSL_CRYPTO_VERSION", KEY_VERSION)?;
        self.zap_put_u64(io, head.dir, DIR_FIELD, obj)?;
        self.activate_feature(io, head.obj, Feature::ENCRYPTION)
    }

    /// A clone shares its origin's key object (`dsl_crypto_key_clone_sync`).
    pub(crate) fn key_clone(&mut self, io: &mut dyn BlockWriter, origin_dir: u64, dir: u64) -> Result<()> {
        if let Some(obj) = self.crypto_obj(io, origin_dir)? {
            let n = self.zap_u64(io, obj, "DSL_CRYPTO_REFCOUNT")?.unwrap_or(1);
            self.zap_put_u64(io, obj, "DSL_CRYPTO_REFCOUNT", n.saturating_add(1))?;
            self.zapify(io, dir)?;
            self.zap_put_u64(io, dir, DIR_FIELD, obj)?;
        }
        Ok(())
    }

    /// A directory with a key is going (`dsl_crypto_key_destroy_sync`).
    pub(crate) fn key_release(&mut self, io: &mut dyn BlockWriter, dir: u64) -> Result<()> {
        if let Some(obj) = self.crypto_obj(io, dir)? {
            let n = self.zap_u64(io, obj, "DSL_CRYPTO_REFCOUNT")?.unwrap_or(1);
            if n > 1 {
                self.zap_put_u64(io, obj, "DSL_CRYPTO_REFCOUNT", n - 1)?;
            } else {
                self.free_obj(io, obj)?;
            }
            self.wrapping.remove(&dir);
        }
        Ok(())
    }
}
