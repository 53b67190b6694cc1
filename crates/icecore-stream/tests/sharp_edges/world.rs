//! Pools with encrypted datasets whose keys are at hand, and what is sent from them.

use crate::support::SimPool;
use icecore_dmu::{NewObject, Objset, Want};
use icecore_dsl::keystore::wrapping_key;
use icecore_dsl::{DslError, KeyForm, NewKey};
use icecore_format::{Guid, ObjectId, ObjectType};
use icecore_stream::receive::Engine;
use icecore_stream::send::{
    PackageSpec, Packing, SendError, SendFlags, SendSpec, resolve, send_one, send_package,
};
use icecore_transform::crypt::{Suite, WrappedKey, WrappingKey, unwrap_key};

pub const PLAIN: SendFlags = SendFlags { raw: false, large_block: false, embed: false, compress: false };
pub const RAW: SendFlags = SendFlags { raw: true, ..PLAIN };
pub const LEC: SendFlags = SendFlags { raw: false, large_block: true, embed: true, compress: true };

/// A key of 32 bytes.
pub const KEY: [u8; 32] = [7; 32];
pub const OTHER_KEY: [u8; 32] = [9; 32];
pub const RAW_FORM: KeyForm = KeyForm { keyformat: 1, salt: 0, iters: 0 };
/// Passphrases: the salt tells one from another.
pub fn passphrase(salt: u64) -> KeyForm {
    KeyForm { keyformat: 3, salt, iters: 100_000 }
}

pub fn new_key(form: KeyForm, material: &[u8]) -> NewKey {
    let wrapping = wrapping_key(form, material).unwrap();
    NewKey { suite: Suite::Aes256Gcm, form, wrapping, keylocation: "prompt".into() }
}

/// What tests do to datasets. `file` stands for an object that holds a file's contents.
impl SimPool {
    pub fn encrypted(&mut self, path: &str, form: KeyForm, material: &[u8]) {
        let key = new_key(form, material);
        let (io, dsl) = self.pool().parts();
        let r = dsl.create_encrypted(io, path, &[], &key).unwrap();
        let keys = dsl.master_keys(io, r.dir).unwrap().unwrap();
        io.add_key(r.obj, keys);
        self.commit().unwrap();
    }

    pub fn filesystem(&mut self, path: &str) {
        let (io, dsl) = self.pool().parts();
        let r = dsl.create_filesystem(io, path, &[]).unwrap();
        if let Some(keys) = dsl.master_keys(io, r.dir).unwrap() {
            io.add_key(r.obj, keys);
        }
        self.commit().unwrap();
    }

    /// Loads the key of an encryption root, and gives it to the block store.
    pub fn unlock(&mut self, path: &str, material: &[u8]) -> Result<(), DslError> {
        let (io, dsl) = self.pool().parts();
        for (objset, keys) in dsl.load_key(io, path, material)? {
            io.add_key(objset, keys);
        }
        Ok(())
    }

    pub fn change_key(&mut self, path: &str, form: KeyForm, material: &[u8]) {
        let (io, dsl) = self.pool().parts();
        dsl.change_key(io, path, new_key(form, material)).unwrap();
        self.commit().unwrap();
    }

    /// Works on the head of a dataset, in one txg.
    pub fn change<T>(
        &mut self,
        path: &str,
        work: impl FnOnce(&mut dyn icecore_dmu::BlockWriter, &mut Objset) -> T,
    ) -> T {
        let (io, dsl) = self.pool().parts();
        let head = dsl.lookup_head(io, path).unwrap();
        let os = dsl.open_dataset(io, head.obj).unwrap();
        let out = work(io, os);
        self.commit().unwrap();
        out
    }

    /// A file of `blocks` blocks of `size` bytes, each filled with noise.
    pub fn file(&mut self, path: &str, object: u64, size: u64, blocks: std::ops::Range<u64>, seed: u64) {
        self.change(path, |io, os| {
            let id = ObjectId(object);
            if os.dnode(io, id).is_err() {
                os.claim(io, id, &NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, size)).unwrap();
            }
            for b in blocks {
                os.write(io, id, b * size, &crate::make::noise(seed ^ (b << 8), size as usize)).unwrap();
            }
        });
    }

    /// Sends a snapshot.
    pub fn send(&mut self, from: Option<&str>, to: &str, flags: SendFlags) -> Result<Vec<u8>, SendError> {
        let spec = SendSpec { to: to.into(), from: from.map(Into::into), flags, ..SendSpec::default() };
        let (io, dsl) = self.pool().parts();
        let source = resolve(io, dsl, &spec)?;
        let mut out = Vec::new();
        send_one(io, &source, flags, Packing::Native, &mut out, &mut |_| {})?;
        Ok(out)
    }

    /// `zfs send -w -R [-I from] to`.
    pub fn send_tree(&mut self, from: Option<&str>, to: &str, flags: SendFlags) -> Vec<u8> {
        let send = SendSpec { to: to.into(), from: from.map(Into::into), flags, ..SendSpec::default() };
        let intermediates = from.is_some();
        let spec = PackageSpec { send, replicate: true, intermediates, ..PackageSpec::default() };
        let mut out = Vec::new();
        let (io, dsl) = self.pool().parts();
        send_package(io, dsl, &spec, &mut out, &mut |_| {}).unwrap();
        out
    }

    /// Snapshots a dataset and all below it.
    pub fn snapshot_tree(&mut self, path: &str, snap: &str) {
        let (io, dsl) = self.pool().parts();
        let names = dsl.snapshot_names_below(io, path, snap).unwrap();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        dsl.snapshot(io, &names, &[]).unwrap();
        self.commit().unwrap();
    }

    /// Name of the encryption root; empty if not encrypted.
    pub fn root_of(&mut self, path: &str) -> String {
        let (io, dsl) = self.pool().parts();
        let dir = dsl.lookup_dir(io, path).unwrap();
        let root = dsl.encryption_root(io, dir).unwrap();
        root.map_or(String::new(), |r| dsl.dir_name(io, r).unwrap())
    }

    /// Whether `material`, in the form the root of `path` says, opens the data keys of `path` itself: what
    /// must hold for every encrypted dataset at any time.
    pub fn opens(&mut self, path: &str, material: &[u8]) -> bool {
        let (io, dsl) = self.pool().parts();
        let dir = dsl.lookup_dir(io, path).unwrap();
        let key = dsl.key_object(io, dir).unwrap().unwrap();
        let wrapping = wrapping_key(dsl.key_form(io, dir).unwrap(), material).unwrap();
        unwraps(&wrapping, &key)
    }

    /// Wrapped key of a dataset.
    pub fn key(&mut self, path: &str) -> icecore_dsl::crypt::KeyObject {
        let (io, dsl) = self.pool().parts();
        let dir = dsl.lookup_dir(io, path).unwrap();
        dsl.key_object(io, dir).unwrap().unwrap()
    }

    pub fn ivset(&mut self, snapshot: &str) -> Option<u64> {
        let (io, dsl) = self.pool().parts();
        let r = dsl.lookup_snapshot(io, snapshot).unwrap();
        dsl.ivset_guid(io, r.obj).unwrap()
    }

    pub fn guid(&mut self, snapshot: &str) -> u64 {
        let (io, dsl) = self.pool().parts();
        let r = dsl.lookup_snapshot(io, snapshot).unwrap();
        dsl.dataset(io, r.obj).unwrap().guid
    }

    /// Opens a dataset with its loaded key (which checks both MACs of the objset), and reads.
    pub fn try_read(
        &mut self,
        name: &str,
        object: u64,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, icecore_dmu::ReadError> {
        let (io, dsl) = self.pool().parts();
        let r = dsl.lookup_dataset(io, name).unwrap();
        let ds = dsl.dataset(io, r.obj).unwrap();
        let os = Objset::open(io, r.obj, &ds.bp, Want::Logical)?;
        os.read(io, ObjectId(object), offset, len)
    }

    /// The dnode of an object, its bonus perhaps encrypted.
    pub fn dnode(&mut self, name: &str, object: u64) -> icecore_format::Dnode {
        let (io, dsl) = self.pool().parts();
        let r = dsl.lookup_dataset(io, name).unwrap();
        let os = dsl.objset(io, r.obj, Want::NoKey).unwrap();
        os.dnode(io, ObjectId(object)).unwrap()
    }

    /// The head of the objset: type, flags, MACs.
    pub fn objset_phys(&mut self, name: &str) -> icecore_format::objset::ObjsetPhys {
        let (io, dsl) = self.pool().parts();
        let r = dsl.lookup_dataset(io, name).unwrap();
        dsl.objset(io, r.obj, Want::NoKey).unwrap().phys().clone()
    }

    pub fn feature_active(&mut self, name: &str, feature: icecore_dsl::Feature) -> bool {
        let (io, dsl) = self.pool().parts();
        let r = dsl.lookup_dataset(io, name).unwrap();
        dsl.dataset_feature_active(io, r.obj, feature).unwrap()
    }

    /// All there is to see from outside: datasets, snapshots and their guids, space.
    pub fn state(&mut self) -> (Vec<String>, std::collections::BTreeMap<String, u64>, u64) {
        (self.names(), self.snapshots(), self.pool().space().allocated)
    }
}

pub fn unwraps(wrapping: &WrappingKey, key: &icecore_dsl::crypt::KeyObject) -> bool {
    let wrapped = WrappedKey {
        suite: Suite::from_number(key.suite).unwrap(),
        guid: Guid(key.guid),
        version: key.version,
        iv: key.iv,
        mac: key.mac,
        master: key.master,
        hmac: key.hmac,
    };
    unwrap_key(wrapping, &wrapped).is_ok()
}
