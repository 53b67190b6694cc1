//! Fetches a lost block from another pool that has the same snapshot, or from a stream of that ([`mend`]).
//!
//! A backup made by send and receive has the same objects and blocks under the same guids, on other devices. What it
//! gives is believed only if it is, byte for byte, what our own pointer's checksum (and with it the MAC of an encrypted
//! block) stands for; so a source that is wrong, old or hostile can do no harm.
//!
//! Invariants:
//! 1. Nothing is written but the very bytes that were lost, in their own places.
//! 2. Only data and spill blocks can be fetched: metadata holds addresses, which differ from pool to pool.

use crate::pool::Pool;
use crate::scrub::Damage;
use crate::walk::datasets;
use icecore_dmu::{BlockStore, Want};
use icecore_dsl::DatasetRef;
use icecore_format::byteswap::swap_block;
use icecore_format::{Blkptr, Bookmark, Compress, ObjectId};
use icecore_transform::compress::{compress, decompress};
use icecore_transform::crypt::{Nonce, encrypt_block};
use std::collections::BTreeMap;

/// Snapshots that are followed to find one that the source has.
const CHAIN_MAX: usize = 100_000;
/// Levels of Zstandard there are; which one made a lost block is not known.
const ZSTD_LEVELS: std::ops::RangeInclusive<u8> = 1..=19;

/// The snapshots of a pool by guid.
pub struct Source<'a> {
    pool: &'a Pool,
    snapshots: BTreeMap<u64, u64>,
}

impl<'a> Source<'a> {
    /// Lists what `pool` has.
    #[must_use]
    pub fn new(pool: &'a Pool) -> Self {
        let all = datasets(&pool.dsl, &pool.io).into_iter();
        let snapshots =
            all.filter(|(_, ds)| ds.is_snapshot()).map(|(object, ds)| (ds.guid, object)).collect();
        Self { pool, snapshots }
    }

    /// All forms in which the source has what belongs at `at` of the snapshot `guid`, likely ones first.
    fn forms(&self, guid: u64, at: &Bookmark, lost: &Blkptr) -> Option<Vec<Vec<u8>>> {
        let objset = *self.snapshots.get(&guid)?;
        let io = self.pool.io();
        let bp = pointer(self.pool, objset, at).filter(|bp| !bp.is_hole())?;
        let here = Bookmark { objset, ..*at };
        let mut out = Vec::new();
        if let Ok(stored) = io.read(&bp, &here, Want::Stored) {
            out.push(stored.to_vec());
        }
        if lost.uses_crypt() || bp.uses_crypt() {
            return Some(out);
        }
        if let Ok(logical) = io.read(&bp, &here, Want::Logical) {
            out.extend(packed(lost, &logical));
        }
        Some(out)
    }
}

/// All forms in which `logical` can have been stored at `lost`, before it was encrypted.
fn packed(lost: &Blkptr, logical: &[u8]) -> Vec<Vec<u8>> {
    let Ok(psize) = usize::try_from(lost.psize()) else { return Vec::new() };
    let pack = |level: u8| {
        let mut packed = compress(lost.compress(), level, logical, psize)?;
        packed.resize(psize, 0);
        Some(packed)
    };
    match lost.compress() {
        Compress::OFF => vec![logical.to_vec()],
        Compress::ZSTD => ZSTD_LEVELS.filter_map(pack).collect(),
        _ => pack(0).into_iter().collect(),
    }
}

/// What a stream says of a part of an object.
#[derive(Debug)]
pub struct Given<'a> {
    /// Object.
    pub object: ObjectId,
    /// Where in it.
    pub offset: u64,
    /// Bytes of contents.
    pub size: u64,
    /// What came: the contents, or their stored form.
    pub bytes: &'a [u8],
    /// What they are compressed with, or nothing.
    pub compress: Compress,
    /// The bytes are encrypted.
    pub raw: bool,
    /// Byte order of the contents.
    pub little_endian: bool,
}

/// How a block is after [`mend`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mended {
    /// It was not lost.
    Sound,
    /// It was, and is whole again.
    Healed,
    /// It is lost: what was given is not what its checksum stands for, or what leads to it is lost too.
    Lost,
    /// It is lost, and was given in pieces of another size.
    Unlike,
}

/// Puts a block of the snapshot `objset` right from a stream, if it is lost (`do_corrective_recv`, dmu_recv.c). Durable after
/// [`crate::Io::flush_repairs`].
pub fn mend(pool: &mut Pool, objset: u64, given: &Given<'_>) -> Mended {
    let io = pool.io();
    let found = pool.dsl.objset(io, objset, Want::NoKey).and_then(|os| Ok(os.dnode(io, given.object)?));
    let Ok(dn) = found else { return Mended::Lost };
    let size = dn.block_size();
    let blkid = given.offset / size.max(1);
    let at = Bookmark { objset, object: given.object, level: 0, blkid };
    let Some(lost) = pointer(pool, objset, &at) else { return Mended::Lost };
    if lost.is_hole() || lost.is_embedded() || !pool.io().examine(&lost).lost {
        return Mended::Sound;
    }
    if given.size != size || given.offset != blkid.saturating_mul(size) {
        return Mended::Unlike;
    }
    for form in forms_of(pool, &lost, objset, given) {
        if pool.io_mut().heal(&lost, &form).is_ok() {
            return Mended::Healed;
        }
    }
    Mended::Lost
}

/// All forms in which what a stream says of a block can have been stored.
fn forms_of(pool: &Pool, lost: &Blkptr, objset: u64, given: &Given<'_>) -> Vec<Vec<u8>> {
    let Ok(psize) = usize::try_from(lost.psize()) else { return Vec::new() };
    let stored = || {
        let mut bytes = given.bytes.to_vec();
        bytes.resize(psize.max(bytes.len()), 0);
        bytes
    };
    if given.raw {
        return vec![stored()];
    }
    let mut out = Vec::new();
    let plain = match given.compress {
        Compress::OFF | Compress::INHERIT => Some(given.bytes.to_vec()),
        c => {
            // A block that left as it lay.
            out.extend((c == lost.compress()).then(stored));
            usize::try_from(given.size).ok().and_then(|size| decompress(c, given.bytes, size).ok())
        }
    };
    if let Some(mut logical) = plain.filter(|p| p.len() as u64 == lost.lsize()) {
        if given.little_endian != lost.is_little_endian() {
            swap_block(lost.kind().bswap(), &mut logical);
        }
        out.extend(packed(lost, &logical));
    }
    if !lost.uses_crypt() {
        return out;
    }
    let Some(keys) = pool.io().key(objset) else { return Vec::new() };
    let nonce = Nonce { salt: lost.salt(), iv: lost.iv() };
    let seal = |mut form: Vec<u8>| {
        let mut bp = *lost;
        let sealed = encrypt_block(keys, &mut bp, &mut form, nonce).is_ok() && bp.mac() == lost.mac();
        sealed.then_some(form)
    };
    out.into_iter().filter(|form| form.len() == psize).filter_map(seal).collect()
}

/// The pointer at a place of an objset, the MOS being 0; `None` where what leads to it cannot be read, and for the blocks in which
/// an objset keeps its objects.
pub(crate) fn pointer(pool: &Pool, objset: u64, at: &Bookmark) -> Option<Blkptr> {
    let io = pool.io();
    let opened;
    let os = match objset {
        0 => &pool.dsl.mos,
        _ => {
            opened = pool.dsl.objset(io, objset, Want::NoKey).ok()?;
            &opened
        }
    };
    let dn = os.dnode(io, at.object).ok()?;
    if at.blkid == Bookmark::SPILL {
        return dn.spill();
    }
    os.blkptr(io, at.object, &dn, u8::try_from(at.level).ok()?, at.blkid).ok()
}

/// Tries to put back what was lost; true if the block is whole again. Durable after [`crate::Io::flush_repairs`].
pub fn heal(pool: &mut Pool, source: &Source<'_>, damage: &Damage) -> bool {
    let at = damage.at;
    if at.objset == 0 || at.level != 0 || at.object == ObjectId(0) {
        return false;
    }
    let mut ds_obj = at.objset;
    for _ in 0..CHAIN_MAX {
        let Ok(ds) = pool.dsl.dataset(pool.io(), ds_obj) else { return false };
        let same = pointer(pool, ds_obj, &at)
            .is_some_and(|bp| bp.dvas() == damage.bp.dvas() && bp.birth() == damage.bp.birth());
        if !same {
            return false;
        }
        for form in source.forms(ds.guid, &at, &damage.bp).unwrap_or_default() {
            if form.len() as u64 == damage.bp.psize() && pool.io_mut().heal(&damage.bp, &form).is_ok() {
                return true;
            }
        }
        if ds.next_snap_obj == 0 {
            return false;
        }
        ds_obj = ds.next_snap_obj;
    }
    false
}

/// The name of the dataset that a place belongs to; `<metadata>` for the pool's own, as OpenZFS says.
#[must_use]
pub fn dataset_name(pool: &Pool, objset: u64) -> String {
    if objset == 0 {
        return "<metadata>".into();
    }
    let name = pool.dsl.by_object(pool.io(), objset).and_then(|r: DatasetRef| pool.dsl.name(pool.io(), r));
    name.unwrap_or_else(|_| format!("<{objset:#x}>"))
}
