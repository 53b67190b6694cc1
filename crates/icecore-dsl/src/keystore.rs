//! Loading, unloading, making and changing keys (`spa_keystore_*`, dsl_crypt.c).
//!
//! Invariants:
//! 1. A wrapping key is kept only after it has opened the key object of its root.
//! 2. Data keys never change; a new wrapping key, or another root, rewraps every key object below that
//!    depended on the old one, in one txg.
//! 3. Salts and IVs are fresh from the door of randomness each time.

use crate::crypt::{KEYFORMAT_HEX, KEYFORMAT_PASSPHRASE, KEYFORMAT_RAW, KeyObject};
use crate::error::{DslError, KeyError, Result};
use crate::feature::Feature;
use crate::lookup::DatasetRef;
use crate::name::NESTING_MAX;
use crate::prop::{SetSource, Value};
use crate::{Dir, Dsl};
use icecore_dmu::{BlockStore, BlockWriter};
use icecore_format::{Corrupt, Guid};
use icecore_secret::Secret;
use icecore_transform::crypt::{MasterKeys, Suite, WrappedKey, WrappingKey, unwrap_key, wrap_key};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A passphrase has at least this many bytes (`MIN_PASSPHRASE_LEN`).
pub const PASSPHRASE_LEN_MIN: usize = 8;
/// And at most these (`MAX_PASSPHRASE_LEN`).
pub const PASSPHRASE_LEN_MAX: usize = 512;
/// Iterations a new passphrase needs at least (`MIN_PBKDF2_ITERATIONS`).
pub const ITERATIONS_MIN: u64 = 100_000;
/// Iterations we are willing to do: a stream could ask for years.
pub const ITERATIONS_MAX: u64 = 50_000_000;
/// What `zfs create` uses (`DEFAULT_PBKDF2_ITERATIONS`).
pub const ITERATIONS_DEFAULT: u64 = 350_000;

/// Data keys of one objset.
pub type ObjsetKeys = (u64, Arc<MasterKeys>);

/// Which form a key has, and what stretches a passphrase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyForm {
    /// `KEYFORMAT_*`.
    pub keyformat: u64,
    /// PBKDF2 salt, 0 unless a passphrase.
    pub salt: u64,
    /// PBKDF2 iterations, 0 unless a passphrase.
    pub iters: u64,
}

/// The wrapping key that `material` stands for: 32 bytes, 64 hexadecimal digits or a passphrase, as the
/// form says. A line end has been taken off already. How long a passphrase may be binds new ones only, and whoever asks for
/// one (`validate_key`, libzfs_crypto.c).
pub fn wrapping_key(form: KeyForm, material: &[u8]) -> Result<WrappingKey> {
    let bad = |why: &str| Err(DslError::Key(KeyError::Form(why.into())));
    match form.keyformat {
        KEYFORMAT_RAW => match <&[u8; 32]>::try_from(material) {
            Ok(key) => Ok(WrappingKey::from_bytes(key)),
            Err(_) => bad("Raw key must be exactly 32 bytes."),
        },
        KEYFORMAT_HEX => {
            if material.len() != 64 {
                return bad("Hex key must be exactly 64 digits.");
            }
            let mut key = Secret::<[u8; 32]>::zeros();
            for (to, pair) in key.iter_mut().zip(material.chunks_exact(2)) {
                let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
                match (digit(pair[0]), digit(pair[1])) {
                    (Some(hi), Some(lo)) => *to = hi << 4 | lo,
                    _ => return bad("Invalid hex key provided."),
                }
            }
            Ok(WrappingKey::from_bytes(&key))
        }
        KEYFORMAT_PASSPHRASE => {
            // OpenZFS measures a string of C: what stands behind a zero byte is not part of it.
            let material = material.split(|b| *b == 0).next().unwrap_or(&[]);
            match u32::try_from(form.iters) {
                Ok(iters) if iters > 0 && form.iters <= ITERATIONS_MAX => {
                    Ok(WrappingKey::from_passphrase(material, form.salt, iters))
                }
                _ => bad("the number of PBKDF2 iterations is out of range"),
            }
        }
        _ => bad("keyformat is none"),
    }
}

/// A wrapping key for a new encryption root.
pub struct NewKey {
    /// Algorithm for the data; ignored when an existing root is rewrapped.
    pub suite: Suite,
    /// Form of the key, as later loads will need it.
    pub form: KeyForm,
    /// The key.
    pub wrapping: WrappingKey,
    /// Property `keylocation`: `prompt` or `file:///…`.
    pub keylocation: String,
}

/// How a dataset's place under a root is changed without its keys (`zfs receive -R` of raw streams).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForceRoot {
    /// Becomes its own root: what is stored was wrapped by its own key (`DCP_CMD_FORCE_NEW_KEY`).
    New,
    /// Comes under its parent's root: what is stored was wrapped by the parent's (`DCP_CMD_FORCE_INHERIT`).
    Inherit,
}

impl Dsl {
    /// What form the key of an encrypted dataset has: that of its root.
    pub fn key_form(&self, io: &dyn BlockStore, dir: u64) -> Result<KeyForm> {
        let (keyformat, salt, iters) = self.wrapping_form(io, dir)?;
        Ok(KeyForm { keyformat, salt, iters })
    }

    /// The encryption root `name`, which must be one.
    fn root_by_name(&self, io: &dyn BlockStore, name: &str) -> Result<u64> {
        let dir = self.lookup_head(io, name)?.dir;
        match self.encryption_root(io, dir)? {
            None => Err(DslError::Key(KeyError::NotEncrypted)),
            Some(root) if root != dir => Err(DslError::Key(KeyError::NotRoot(self.dir_name(io, root)?))),
            Some(root) => Ok(root),
        }
    }

    /// Whether `material` is the key of the root `name` (`zfs load-key -n`).
    pub fn check_key(&self, io: &dyn BlockStore, name: &str, material: &[u8]) -> Result<WrappingKey> {
        let root = self.root_by_name(io, name)?;
        let key = wrapping_key(self.key_form(io, root)?, material)?;
        self.unwrap_dir(io, root, &key)?;
        Ok(key)
    }

    /// Loads the key of the root `name`. Gives the data keys of every objset it opens, snapshots too, for
    /// the block store.
    pub fn load_key(&mut self, io: &dyn BlockStore, name: &str, material: &[u8]) -> Result<Vec<ObjsetKeys>> {
        let root = self.root_by_name(io, name)?;
        if self.wrapping.contains_key(&root) {
            return Err(DslError::Key(KeyError::Loaded));
        }
        let key = self.check_key(io, name, material)?;
        self.wrapping.insert(root, key);
        self.keys_below(io, root)
    }

    /// Forgets the key of the root `name`. Gives the objsets whose data keys the block store must forget.
    pub fn unload_key(&mut self, io: &dyn BlockStore, name: &str) -> Result<Vec<u64>> {
        let root = self.root_by_name(io, name)?;
        if !self.wrapping.contains_key(&root) {
            return Err(DslError::Key(KeyError::NotLoaded(name.into())));
        }
        self.unload_root(io, root)
    }

    /// [`Dsl::unload_key`] of the root whose directory is `root`. Nothing to forget where its key is not loaded.
    pub fn unload_root(&mut self, io: &dyn BlockStore, root: u64) -> Result<Vec<u64>> {
        let all = self.objsets_below(io, root)?;
        if let Some(used) = all.iter().find(|o| self.busy().is(**o)) {
            return Err(DslError::Busy(format!("dataset object {used} is in use")));
        }
        if all.iter().any(|o| self.open.get(o).is_some_and(icecore_dmu::Objset::is_dirty)) {
            return Err(DslError::Busy("it has unwritten changes".into()));
        }
        for o in &all {
            self.forget(*o);
        }
        self.wrapping.remove(&root);
        Ok(all)
    }

    /// Whether any key is loaded.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        !self.wrapping.is_empty()
    }

    /// Takes over the wrapping keys and the datasets in use of `old`, the same pool before it was opened again: those
    /// keys that still open their roots. Gives the data keys for the block store.
    pub fn take_over(&mut self, io: &dyn BlockStore, old: &mut Self) -> Result<Vec<ObjsetKeys>> {
        self.busy = old.busy.clone();
        self.altroot = std::mem::take(&mut old.altroot);
        self.who = old.who;
        let mut out = Vec::new();
        for (root, key) in std::mem::take(&mut old.wrapping) {
            if self.encryption_root(io, root).ok().flatten() == Some(root)
                && self.unwrap_dir(io, root, &key).is_ok()
            {
                self.wrapping.insert(root, key);
                out.extend(self.keys_below(io, root)?);
            }
        }
        Ok(out)
    }

    /// Whether the key of a dataset is loaded; true for those that are not encrypted.
    pub fn key_loaded(&self, io: &dyn BlockStore, dir: u64) -> Result<bool> {
        Ok(self.encryption_root(io, dir)?.is_none_or(|root| self.wrapping.contains_key(&root)))
    }

    /// The data keys of a directory, if it is encrypted and its root's key is loaded.
    pub fn master_keys(&self, io: &dyn BlockStore, dir: u64) -> Result<Option<Arc<MasterKeys>>> {
        let Some(root) = self.encryption_root(io, dir)? else { return Ok(None) };
        match self.wrapping.get(&root) {
            Some(key) => Ok(Some(Arc::new(self.unwrap_dir(io, dir, key)?))),
            None => Ok(None),
        }
    }

    /// Data keys of every objset under an encryption root whose key is loaded. A key object that does not
    /// open (a damaged one) is left out: its dataset stays locked.
    pub fn keys_below(&self, io: &dyn BlockStore, root: u64) -> Result<Vec<ObjsetKeys>> {
        let Some(key) = self.wrapping.get(&root) else { return Ok(Vec::new()) };
        let mut out = Vec::new();
        for dir in self.dirs_of_root(io, root)? {
            let Ok(keys) = self.unwrap_dir(io, dir, key).map(Arc::new) else { continue };
            out.extend(self.objsets_of(io, dir)?.into_iter().map(|o| (o, Arc::clone(&keys))));
        }
        Ok(out)
    }

    fn objsets_below(&self, io: &dyn BlockStore, root: u64) -> Result<Vec<u64>> {
        let mut out = Vec::new();
        for dir in self.dirs_of_root(io, root)? {
            out.extend(self.objsets_of(io, dir)?);
        }
        Ok(out)
    }

    /// The dataset objects of a directory: its head and all snapshots of that.
    pub fn objsets_of(&self, io: &dyn BlockStore, dir: u64) -> Result<Vec<u64>> {
        let head = self.dir(io, dir)?.head_dataset_obj;
        if head == 0 {
            return Ok(Vec::new());
        }
        let names = self.dataset(io, head)?.snapnames_zapobj;
        let mut out = vec![head];
        out.extend(self.zap_list_u64(io, names)?.into_iter().map(|(_, o)| o));
        Ok(out)
    }

    /// Whether the wrapping key loaded for `root` opens the stored key `k`; `None` if none is loaded.
    #[must_use]
    pub fn opens(&self, root: u64, k: &KeyObject) -> Option<bool> {
        self.wrapping.get(&root).map(|key| unwrap_object(key, k).is_ok())
    }

    /// Forgets the wrapping key loaded for `root` if it does not open `k`: a stream has brought another
    /// wrapping, so what was loaded is the key of yesterday.
    pub(crate) fn forget_unless_opens(&mut self, root: u64, k: &KeyObject) {
        if self.opens(root, k) == Some(false) {
            self.wrapping.remove(&root);
        }
    }

    /// Every directory under an encryption root, wherever clones have taken them, by object number.
    pub fn dirs_of_root(&self, io: &dyn BlockStore, root: u64) -> Result<Vec<u64>> {
        let mut out = Vec::new();
        let mut todo = vec![(self.root_dir, 0_usize)];
        while let Some((dir, depth)) = todo.pop() {
            if depth > NESTING_MAX + 8 {
                return Err(Corrupt::new("DSL directory", "children without end").into());
            }
            if self.encryption_root(io, dir)? == Some(root) {
                out.push(dir);
            }
            let children = self.zap_list_u64(io, self.dir(io, dir)?.child_dir_zapobj)?;
            todo.extend(children.into_iter().map(|(_, d)| (d, depth + 1)));
        }
        out.sort_unstable();
        Ok(out)
    }

    fn unwrap_dir(&self, io: &dyn BlockStore, dir: u64, key: &WrappingKey) -> Result<MasterKeys> {
        let k = self.key_object(io, dir)?.ok_or(DslError::Key(KeyError::NotEncrypted))?;
        unwrap_object(key, &k)
    }

    fn wrap(&mut self, keys: &MasterKeys, key: &WrappingKey, form: KeyForm) -> Result<KeyObject> {
        let mut iv = [0; 12];
        self.chance.fill(&mut iv);
        let w = wrap_key(key, keys, iv).map_err(|e| DslError::Invalid(format!("wrapping failed: {e:?}")))?;
        Ok(KeyObject {
            suite: w.suite.number(),
            guid: w.guid.0,
            version: w.version,
            master: w.master,
            hmac: w.hmac,
            iv: w.iv,
            mac: w.mac,
            keyformat: form.keyformat,
            salt: form.salt,
            iters: form.iters,
        })
    }

    fn generate(&mut self, suite: Suite) -> MasterKeys {
        let mut random = Secret::<[u8; 96]>::zeros();
        self.chance.fill(&mut *random);
        let guid = Guid(self.chance.number());
        MasterKeys::generate(suite, guid, &random)
    }

    /// Whether a root with this key may be made (`dmu_objset_create_crypt_check`).
    pub(crate) fn new_key_check(&self, io: &dyn BlockStore, new: &NewKey) -> Result<()> {
        for f in [Feature::ENCRYPTION, Feature::BOOKMARK_V2] {
            if !self.feature_enabled(io, f)? {
                return Err(DslError::Unsupported(format!("feature {} is not enabled", f.name)));
            }
        }
        let passphrase = new.form.keyformat == KEYFORMAT_PASSPHRASE;
        let stretched = new.form.salt != 0 && (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&new.form.iters);
        let plain = new.form.salt == 0 && new.form.iters == 0;
        if !(KEYFORMAT_RAW..=KEYFORMAT_PASSPHRASE).contains(&new.form.keyformat)
            || !(if passphrase { stretched } else { plain })
        {
            return Err(DslError::Key(KeyError::Form("PBKDF2 parameters do not fit the keyformat".into())));
        }
        let place = ["file:///", "https://", "http://"].iter().any(|p| new.keylocation.starts_with(p));
        if new.keylocation != "prompt" && !place {
            return Err(DslError::Invalid(format!("invalid keylocation '{}'", new.keylocation)));
        }
        Ok(())
    }

    /// Makes a fresh head an encryption root with data keys of its own.
    pub(crate) fn key_make(
        &mut self,
        io: &mut dyn BlockWriter,
        head: DatasetRef,
        new: &NewKey,
    ) -> Result<()> {
        let keys = self.generate(new.suite);
        let stored = self.wrap(&keys, &new.wrapping, new.form)?;
        self.key_new(io, head, head.dir, &stored)?;
        self.wrapping.insert(head.dir, new.wrapping.clone());
        let location = Value::Text(new.keylocation.clone());
        self.prop_set_raw(io, head, "keylocation", &location, SetSource::Local)
    }

    /// Gives a fresh head below an encrypted dataset data keys of its own under the parent's root,
    /// of its suite or another.
    pub(crate) fn key_inherit(
        &mut self,
        io: &mut dyn BlockWriter,
        head: DatasetRef,
        parent: u64,
        suite: Option<Suite>,
    ) -> Result<()> {
        let Some(root) = self.encryption_root(io, parent)? else {
            return match suite {
                Some(_) => Err(DslError::Key(KeyError::NotEncrypted)),
                None => Ok(()),
            };
        };
        let Some(key) = self.wrapping.get(&root).cloned() else {
            return Err(DslError::Key(KeyError::NotLoaded(self.dir_name(io, root)?)));
        };
        let above = self.key_stats(io, parent)?.map_or(0, |k| k.suite);
        let suite = suite
            .or_else(|| Suite::from_number(above))
            .ok_or_else(|| DslError::Unsupported(format!("encryption suite {above}")))?;
        let form = self.key_form(io, root)?;
        let keys = self.generate(suite);
        let stored = self.wrap(&keys, &key, form)?;
        self.key_new(io, head, root, &stored)
    }

    /// Rewraps a dataset and all that depends on the same root below it with a new key; it becomes a root
    /// if it was none (`zfs change-key`). Its present key must be loaded.
    pub fn change_key(&mut self, io: &mut dyn BlockWriter, name: &str, new: NewKey) -> Result<()> {
        let head = self.lookup_head(io, name)?;
        self.new_key_check(io, &new)?;
        let old = self.rewrap_check(io, head)?;
        self.require_key(io, head)?;
        let rewrap = Some((new.wrapping.clone(), new.form));
        self.rewrap(io, head.dir, old, head.dir, rewrap.as_ref())?;
        self.wrapping.insert(head.dir, new.wrapping);
        self.prop_set_raw(io, head, "keylocation", &Value::Text(new.keylocation), SetSource::Local)
    }

    /// Puts a root under its parent's root, rewrapped with that one's key (`zfs change-key -i`).
    pub fn change_key_inherit(&mut self, io: &mut dyn BlockWriter, name: &str) -> Result<()> {
        let head = self.lookup_head(io, name)?;
        let parent_root = self.inherit_check(io, head)?;
        self.require_key(io, head)?;
        let Some(key) = self.wrapping.get(&parent_root).cloned() else {
            return Err(DslError::Key(KeyError::NotLoaded(self.dir_name(io, parent_root)?)));
        };
        let form = self.key_form(io, parent_root)?;
        self.rewrap(io, head.dir, head.dir, parent_root, Some(&(key, form)))?;
        self.wrapping.remove(&head.dir);
        self.prop_clear(io, head, "keylocation", false)
    }

    /// Changes the root alone, without any key: for the hierarchy of received raw streams.
    pub fn force_root(&mut self, io: &mut dyn BlockWriter, name: &str, how: ForceRoot) -> Result<()> {
        let head = self.lookup_head(io, name)?;
        match how {
            ForceRoot::New => {
                let old = self.rewrap_check(io, head)?;
                if old == head.dir {
                    return Err(DslError::Invalid(format!("{name} is an encryption root already")));
                }
                self.rewrap(io, head.dir, old, head.dir, None)?;
                let prompt = Value::Text("prompt".into());
                self.prop_set_raw(io, head, "keylocation", &prompt, SetSource::Local)
            }
            ForceRoot::Inherit => {
                let parent_root = self.inherit_check(io, head)?;
                self.rewrap(io, head.dir, head.dir, parent_root, None)?;
                self.wrapping.remove(&head.dir);
                self.prop_clear(io, head, "keylocation", false)
            }
        }
    }

    /// `to` becomes the encryption root in the place of `from`, for all that hangs on it
    /// (`dsl_dataset_promote_crypt_sync`).
    pub(crate) fn move_root(&mut self, io: &mut dyn BlockWriter, from: u64, to: u64) -> Result<()> {
        self.rewrap(io, from, from, to, None)?;
        if let Some(key) = self.wrapping.remove(&from) {
            self.wrapping.insert(to, key);
        }
        Ok(())
    }

    fn rewrap_check(&self, io: &dyn BlockStore, head: DatasetRef) -> Result<u64> {
        let root = self.encryption_root(io, head.dir)?.ok_or(DslError::Key(KeyError::NotEncrypted))?;
        if self.is_clone(&self.dir(io, head.dir)?) {
            return Err(DslError::Invalid("Keys cannot be changed on clones.".into()));
        }
        Ok(root)
    }

    fn inherit_check(&self, io: &dyn BlockStore, head: DatasetRef) -> Result<u64> {
        let root = self.rewrap_check(io, head)?;
        if root != head.dir {
            return Err(DslError::Key(KeyError::NotRoot(self.dir_name(io, root)?)));
        }
        let parent = self.dir(io, head.dir)?.parent_obj;
        let none = || DslError::Invalid("Parent must be encrypted.".into());
        if parent == 0 {
            return Err(none());
        }
        self.encryption_root(io, parent)?.ok_or_else(none)
    }

    /// Every key object from `top` down that hangs on root `old` comes under `new`, rewrapped if a key is
    /// given. Clones share their origin's key object, but what is below them may hang on the root too
    /// (`spa_keystore_change_key_sync_impl`).
    fn rewrap(
        &mut self,
        io: &mut dyn BlockWriter,
        top: u64,
        old: u64,
        new: u64,
        key: Option<&(WrappingKey, KeyForm)>,
    ) -> Result<()> {
        let mut seen = BTreeSet::new();
        let mut todo = vec![(top, false)];
        while let Some((dir, skip)) = todo.pop() {
            // A clone below its own root is met twice: as a child, when it is left alone, and as a clone.
            if !seen.insert((dir, skip)) {
                continue;
            }
            let dd: Dir = self.dir(io, dir)?;
            let root = self.encryption_root(io, dir)?;
            if root.is_none() || (!skip && (root != Some(old) || self.is_clone(&dd))) {
                continue;
            }
            if !skip && let Some(obj) = self.crypto_obj(io, dir)? {
                match key {
                    None => self.zap_put_u64(io, obj, "DSL_CRYPTO_ROOT_DDOBJ", new)?,
                    Some((key, form)) => {
                        let present = self.wrapping.get(&old).cloned();
                        let present =
                            present.ok_or_else(|| DslError::Key(KeyError::NotLoaded(String::new())))?;
                        let keys = self.unwrap_dir(io, dir, &present)?;
                        let stored = self.wrap(&keys, key, *form)?;
                        self.put_key(io, obj, new, &stored)?;
                    }
                }
            }
            for (name, child) in self.zap_list_u64(io, dd.child_dir_zapobj)? {
                if !name.starts_with(['$', '%']) {
                    todo.push((child, false));
                }
            }
            for (_, clone) in self.zap_list_u64(io, dd.clones)? {
                todo.push((self.dataset(io, clone)?.dir_obj, true));
            }
        }
        Ok(())
    }
}

fn unwrap_object(key: &WrappingKey, k: &KeyObject) -> Result<MasterKeys> {
    let suite = Suite::from_number(k.suite)
        .ok_or_else(|| DslError::Unsupported(format!("encryption suite {}", k.suite)))?;
    let wrapped = WrappedKey {
        suite,
        guid: Guid(k.guid),
        version: k.version,
        iv: k.iv,
        mac: k.mac,
        master: k.master,
        hmac: k.hmac,
    };
    unwrap_key(key, &wrapped).map_err(|_| DslError::Key(KeyError::Wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_in_the_form_the_dataset_wants() {
        let form = |keyformat| KeyForm { keyformat, salt: 7, iters: 1000 };
        assert!(wrapping_key(form(KEYFORMAT_RAW), &[1; 32]).is_ok());
        assert!(wrapping_key(form(KEYFORMAT_RAW), &[1; 31]).is_err());
        assert!(wrapping_key(form(KEYFORMAT_HEX), &[b'a'; 64]).is_ok());
        assert!(wrapping_key(form(KEYFORMAT_HEX), &[b'g'; 64]).is_err());
        assert!(wrapping_key(form(KEYFORMAT_PASSPHRASE), b"12345678").is_ok());
        // Short ones, and what stands before a zero byte, may have been keys of OpenZFS.
        let expose =
            |text: &[u8]| wrapping_key(form(KEYFORMAT_PASSPHRASE), text).map(|k| *k.expose()).unwrap();
        assert_eq!(expose(b"1234567\0longer"), expose(b"1234567"));
        assert_ne!(expose(b"1234567"), expose(b"12345678"));
        let years = KeyForm { keyformat: KEYFORMAT_PASSPHRASE, salt: 7, iters: u64::MAX };
        assert!(wrapping_key(years, b"12345678").is_err());
    }
}
