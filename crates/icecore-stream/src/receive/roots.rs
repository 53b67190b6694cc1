//! Encryption roots of what was received raw, and when a key wrapped anew by the sender is taken over.
//!
//! A wrapped key is of use only to who has the key it was wrapped with, and that one belongs to the
//! encryption root. A raw stream carries its dataset's key wrapped as it is at the sender, where the
//! hierarchy of roots may be another one, or may have been given another key since.
//!
//! Invariants:
//! 1. No commit leaves a dataset under a root whose key does not open it, as far as can be known. What
//!    cannot be known is not assumed: the dataset keeps the root and the wrapping it has.
//! 2. A new wrapping is stored for a root and for all that hang on it in one txg, or for none. Until all of
//!    them have got theirs, the old wrapping stays in force and the new one waits in the directory
//!    ([`WAITING`]), so that streams that come one by one end where a package ends.
//! 3. A key that was wrapped anew here (`change-key`) stays: the data keys are the same, and the passphrase
//!    that opened it yesterday opens it tomorrow.
//!
//! Two keys are wrapped by the same key if (a) the loaded key of a root opens both; (b) both ask for the
//! same stretching of a passphrase: the salt is 64 random bits drawn anew with each passphrase; (c) the
//! sender says so: the two were under one root there, and both are wrapped here as they were sent, in one
//! and the same package. Raw and hexadecimal keys have no salt, so that (b) says nothing of them.
//!
//! Facts: `dsl_crypto_recv_raw_key_sync`, `spa_keystore_change_key`, dsl_crypt.c;
//! `recv_fix_encryption_hierarchy`, libzfs_sendrecv.c. OpenZFS overwrites the wrapping of a dataset with the
//! sender's whatever its root is here, and believes the package.

use super::error::ReceiveError;
use super::keydata::WrappedKey;
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockStore, BlockWriter};
use icecore_dsl::crypt::{KEY_VERSION, KEYFORMAT_PASSPHRASE, KeyObject};
use icecore_dsl::prop::SetSource;
use icecore_dsl::{DatasetRef, Dsl, Value};
use icecore_format::{NvList, ObjectId};
use std::collections::{BTreeMap, BTreeSet};

type Result<T, E = ReceiveError> = std::result::Result<T, E>;

/// Entry of an encrypted dataset's directory: IV of the wrapping its last stream carried. Ours; others
/// leave it alone.
const RECEIVED_WRAPPING: &str = "org.icecore:received_wrapping";
/// Entry of an encrypted dataset's directory: the key as the last stream wrapped it, not yet in force.
const WAITING: &str = "org.icecore:waiting_wrapping";

/// What became of the key of a raw stream for a dataset that exists.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Renewed {
    /// It is wrapped as it was, or the new wrapping is in force.
    #[default]
    Done,
    /// It was wrapped anew here and stays so.
    KeptOurs,
    /// Others share its root: the new wrapping waits until they have theirs.
    Waits,
}

/// Two keys of a sender that are wrapped by one and the same key there: those of a dataset and of its
/// encryption root.
#[derive(Clone, Debug)]
pub struct SharedRoot {
    /// The root's key.
    pub root: KeyObject,
    /// The dataset's key.
    pub dataset: KeyObject,
}

/// What the sender tells of encryption roots.
pub(crate) trait Sender {
    /// Whether it had both directories under one root, with their keys wrapped as they are in `keys`.
    fn shared(&self, a: (u64, &KeyObject), b: (u64, &KeyObject)) -> bool;
}
/// A sender that says nothing.
pub(crate) struct Silent;
impl Sender for Silent {
    fn shared(&self, _: (u64, &KeyObject), _: (u64, &KeyObject)) -> bool {
        false
    }
}

/// Keys that came with the streams of one package, and the root each had at the sender.
#[derive(Default)]
pub(crate) struct Arrived {
    /// By directory: the key, and which file system of the package was its root there.
    pub keys: BTreeMap<u64, (KeyObject, Option<usize>)>,
}
impl Sender for Arrived {
    fn shared(&self, a: (u64, &KeyObject), b: (u64, &KeyObject)) -> bool {
        let root = |(dir, key): (u64, &KeyObject)| {
            self.keys.get(&dir).filter(|(sent, _)| sent == key).and_then(|(_, root)| *root)
        };
        matches!((root(a), root(b)), (Some(a), Some(b)) if a == b)
    }
}
impl Sender for SharedRoot {
    fn shared(&self, a: (u64, &KeyObject), b: (u64, &KeyObject)) -> bool {
        *a.1 == self.root && *b.1 == self.dataset
    }
}

pub(crate) fn key_object(k: &WrappedKey) -> KeyObject {
    KeyObject {
        suite: k.suite,
        guid: k.guid,
        version: KEY_VERSION,
        master: k.master,
        hmac: k.hmac,
        iv: k.iv,
        mac: k.mac,
        keyformat: k.keyformat,
        salt: k.salt,
        iters: k.iters,
    }
}

/// Stores a stream's key, and remembers which wrapping it was.
pub(crate) fn store_key(
    dsl: &mut Dsl,
    io: &mut dyn BlockWriter,
    ds: DatasetRef,
    key: &WrappedKey,
) -> Result<()> {
    dsl.raw_key_store(io, ds, &key_object(key))?;
    let iv = ZapValue::U8(key.iv.to_vec());
    zap::update(&mut dsl.mos, io, ObjectId(ds.dir), RECEIVED_WRAPPING, &iv)?;
    no_longer_waits(dsl, io, ds.dir)
}

/// Whether a key is still wrapped as its last stream left it.
fn untouched(dsl: &Dsl, io: &dyn BlockStore, dir: u64, own: &KeyObject) -> Result<bool> {
    let noted = zap::lookup(&dsl.mos, io, ObjectId(dir), RECEIVED_WRAPPING)?;
    Ok(noted == Some(ZapValue::U8(own.iv.to_vec())))
}

fn waiting(dsl: &Dsl, io: &dyn BlockStore, dir: u64, own: &KeyObject) -> Result<Option<WrappedKey>> {
    let Some(ZapValue::U8(packed)) = zap::lookup(&dsl.mos, io, ObjectId(dir), WAITING)? else {
        return Ok(None);
    };
    let key = NvList::decode(&packed).ok().and_then(|(list, _)| WrappedKey::parse(&list).ok());
    // What waits is of the same data keys, and for a wrapping that nobody has changed since.
    let fits = key.filter(|k| k.guid == own.guid && k.suite == own.suite);
    Ok(if untouched(dsl, io, dir, own)? { fits } else { None })
}

fn no_longer_waits(dsl: &mut Dsl, io: &mut dyn BlockWriter, dir: u64) -> Result<()> {
    if zap::lookup(&dsl.mos, io, ObjectId(dir), WAITING)?.is_some() {
        zap::remove(&mut dsl.mos, io, ObjectId(dir), WAITING)?;
    }
    Ok(())
}

/// The key of a raw stream for a dataset that exists, wrapped differently perhaps.
pub(crate) fn renew_key(
    dsl: &mut Dsl,
    io: &mut dyn BlockWriter,
    head: DatasetRef,
    key: &WrappedKey,
) -> Result<Renewed> {
    let Some(own) = dsl.key_object(io, head.dir)? else { return Ok(Renewed::Done) };
    if own == key_object(key) {
        no_longer_waits(dsl, io, head.dir)?;
        return Ok(Renewed::Done);
    }
    if !untouched(dsl, io, head.dir, &own)? {
        no_longer_waits(dsl, io, head.dir)?;
        return Ok(Renewed::KeptOurs);
    }
    let packed = ZapValue::U8(key.to_list().encode_xdr());
    zap::update(&mut dsl.mos, io, ObjectId(head.dir), WAITING, &packed)?;
    let root = dsl.encryption_root(io, head.dir)?.unwrap_or(head.dir);
    settle(dsl, io, root, &Silent)
}

/// One key object under a root: a directory that has it, what is stored, what it would be.
struct Member {
    dir: u64,
    next: KeyObject,
    waiting: Option<WrappedKey>,
}

fn members(dsl: &Dsl, io: &dyn BlockStore, root: u64, only: Option<&BTreeSet<u64>>) -> Result<Vec<Member>> {
    let mut out: BTreeMap<u64, Member> = BTreeMap::new();
    for dir in dsl.dirs_of_root(io, root)? {
        let Some(obj) = dsl.crypto_obj(io, dir)? else { continue };
        if only.is_some_and(|only| !only.contains(&dir)) {
            continue;
        }
        let Some(own) = dsl.key_object(io, dir)? else { continue };
        let waits = waiting(dsl, io, dir, &own)?;
        // Clones share the key object of their origin: any of them may have got the new wrapping.
        let known = out.entry(obj).or_insert_with(|| Member { dir, next: own, waiting: None });
        if let Some(key) = waits.filter(|_| known.waiting.is_none() || dir == root) {
            *known = Member { dir, next: key_object(&key), waiting: Some(key) };
        } else if dir == root {
            known.dir = dir;
        }
    }
    Ok(out.into_values().collect())
}

/// Puts the wrappings that wait under `root` in force if all its datasets then hang together.
pub(crate) fn settle(
    dsl: &mut Dsl,
    io: &mut dyn BlockWriter,
    root: u64,
    sender: &dyn Sender,
) -> Result<Renewed> {
    let all = members(dsl, io, root, None)?;
    if all.iter().all(|m| m.waiting.is_none()) {
        return Ok(Renewed::Done);
    }
    let root_obj = dsl.crypto_obj(io, root)?;
    let mut head = None;
    for m in &all {
        if dsl.crypto_obj(io, m.dir)? == root_obj {
            head = Some(m);
        }
    }
    let Some(head) = head else { return Ok(Renewed::Waits) };
    // A root whose own wrapping stays may have its key loaded: that one can be asked.
    let loaded = if head.waiting.is_none() { Some(root) } else { None };
    let fits = all.iter().all(|m| {
        m.dir == head.dir
            || loaded.and_then(|root| dsl.opens(root, &m.next)).unwrap_or_else(|| {
                same_stretching(&head.next, &m.next)
                    || sender.shared((head.dir, &head.next), (m.dir, &m.next))
            })
    });
    if !fits {
        return Ok(Renewed::Waits);
    }
    store_waiting(dsl, io, &all)?;
    Ok(Renewed::Done)
}

fn store_waiting(dsl: &mut Dsl, io: &mut dyn BlockWriter, all: &[Member]) -> Result<()> {
    for m in all {
        if let Some(key) = &m.waiting {
            let obj = dsl.dir(io, m.dir)?.head_dataset_obj;
            store_key(dsl, io, DatasetRef { obj, dir: m.dir, snapshot: false }, key)?;
        }
    }
    Ok(())
}

/// Whether both keys are wrapped by the same passphrase.
fn same_stretching(a: &KeyObject, b: &KeyObject) -> bool {
    a.keyformat == KEYFORMAT_PASSPHRASE
        && a.salt != 0
        && (a.keyformat, a.salt, a.iters) == (b.keyformat, b.salt, b.iters)
}

/// The root of the parent, if it is certain that its key opens the key of `dir`, which is its own root.
pub(crate) fn inheritable_root(
    dsl: &Dsl,
    io: &dyn BlockStore,
    dir: u64,
    sender: &dyn Sender,
) -> Result<Option<u64>> {
    let parent = dsl.dir(io, dir)?.parent_obj;
    if parent == 0 || dsl.is_clone(&dsl.dir(io, dir)?) {
        return Ok(None);
    }
    let Some(root) = dsl.encryption_root(io, parent)? else { return Ok(None) };
    let (Some(own), Some(above)) = (dsl.key_object(io, dir)?, dsl.key_object(io, root)?) else {
        return Ok(None);
    };
    let form = |k: &KeyObject| (k.keyformat, k.salt, k.iters);
    if form(&own) != form(&above) {
        return Ok(None);
    }
    // A key that is loaded, of either root, knows better than any claim.
    let tried = dsl.opens(root, &own).or_else(|| dsl.opens(dir, &above));
    let same =
        tried.unwrap_or_else(|| same_stretching(&own, &above) || sender.shared((root, &above), (dir, &own)));
    Ok(same.then_some(root))
}

/// Gives the dataset at `path`, received raw on its own and so its own encryption root, the root of its
/// parent, if it is certain that the parent's key opens it: a loaded key says so, or both are wrapped by
/// the same passphrase, or the keys of both are those of `sent`. False if it stays as it was.
pub fn inherit_root(engine: &mut dyn super::Engine, path: &str, sent: Option<&SharedRoot>) -> Result<bool> {
    let (io, dsl) = engine.parts();
    let head = dsl.lookup_head(io, path)?;
    if dsl.encryption_root(io, head.dir)? != Some(head.dir) {
        return Ok(false);
    }
    let sender: &dyn Sender = match sent {
        Some(sent) => sent,
        None => &Silent,
    };
    let Some(root) = inheritable_root(dsl, io, head.dir, sender)? else { return Ok(false) };
    inherit(dsl, io, path, head, root)?;
    engine.commit().map_err(ReceiveError::Commit)?;
    Ok(true)
}

/// Moves a root, and all that hang on it, under `root`, whose key opens them.
pub(crate) fn inherit(
    dsl: &mut Dsl,
    io: &mut dyn BlockWriter,
    path: &str,
    head: DatasetRef,
    root: u64,
) -> Result<()> {
    set_root(dsl, io, path, root)?;
    Ok(dsl.prop_clear(io, head, "keylocation", false)?)
}

/// Makes the dataset at `path` a root, as it is at the sender, with all below it that hang on the same root
/// now. If a new wrapping waits for it, all of them need theirs. False if that cannot be.
pub(crate) fn split_off(
    dsl: &mut Dsl,
    io: &mut dyn BlockWriter,
    path: &str,
    head: DatasetRef,
    sender: &dyn Sender,
) -> Result<bool> {
    let Some(was) = dsl.encryption_root(io, head.dir)? else { return Ok(false) };
    let mut below = BTreeSet::new();
    for name in dsl.descendants(io, path)? {
        below.insert(dsl.lookup_dir(io, &name)?);
    }
    let all = members(dsl, io, was, Some(&below))?;
    let Some(own) = all.iter().find(|m| m.dir == head.dir) else { return Ok(false) };
    let together = all.iter().all(|m| {
        m.dir == own.dir
            || (m.waiting.is_none() && own.waiting.is_none())
            || same_stretching(&own.next, &m.next)
            || sender.shared((own.dir, &own.next), (m.dir, &m.next))
    });
    if !together {
        return Ok(false);
    }
    set_root(dsl, io, path, head.dir)?;
    store_waiting(dsl, io, &all)?;
    let prompt = Value::Text("prompt".into());
    dsl.prop_set_raw(io, head, "keylocation", &prompt, SetSource::Local)?;
    Ok(true)
}

/// Moves a dataset, and all below it that shared its root, to another encryption root. The keys stay
/// wrapped as they are.
fn set_root(dsl: &mut Dsl, io: &mut dyn BlockWriter, path: &str, root: u64) -> Result<()> {
    let was = dsl.lookup_head(io, path)?.dir;
    let was = dsl.encryption_root(io, was)?.unwrap_or(was);
    for name in dsl.descendants(io, path)? {
        let dir = dsl.lookup_dir(io, &name)?;
        if let Some(obj) = dsl.crypto_obj(io, dir)?
            && dsl.encryption_root(io, dir)? == Some(was)
        {
            let value = ZapValue::U64(vec![root]);
            zap::update(&mut dsl.mos, io, ObjectId(obj), "DSL_CRYPTO_ROOT_DDOBJ", &value)?;
        }
    }
    Ok(())
}
