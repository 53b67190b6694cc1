//! What the MACs of single blocks cannot prove: that a raw stream's dnodes are the sender's, that each block lies where
//! it belongs and that none is missing. The root of all that is the MAC of the objset, and to reach it the tree has to be
//! there: so the records are applied as a receive applies them, to a store in memory that keeps dnodes and block pointers
//! and forgets the data.
//!
//! Invariants:
//! 1. A stream is proven whole only if every block of dnodes that it touches has its MAC, and the objset the keyed one
//!    that `crypt_keydata` carries. Indirect blocks need no check: their MACs are computed here from their children's.
//! 2. Blocks of dnodes are looked at when the stream has ended: before, objects of them are still to come.
//! 3. An increment can be proven only on the snapshot it builds on, which was proven here before. What cannot be proven
//!    says why; it is never an error.
//! 4. Memory is what the metadata holds without its zeros (about a thousandth of the data), up to [`KEPT_MAX`].

use super::Why;
use crate::receive::apply::{Applier, ApplyError};
use crate::receive::keydata::KeyData;
use crate::receive::rules::Limits;
use icecore_dmu::{
    BlockStore, BlockWriter, Form, NewBlock, NewObject, Objset, Policy, ReadError, Want, WriteError,
};
use icecore_format::dnode::{DNODE_BLOCK, SLOTS_PER_BLOCK};
use icecore_format::objset::ObjsetType;
use icecore_format::stream::{Begin, Entry, Order, feature};
use icecore_format::{Blkptr, Bookmark, Checksum, Compress, Dva, ObjectType, Txg};
use icecore_transform::crypt::{MasterKeys, indirect_mac, objset_macs, verify_block};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of metadata held at most: that of about 2 TiB in blocks of 128 KiB.
const KEPT_MAX: u64 = 2 << 30;
/// Bytes of dirty buffers that are written out before the stream ends.
const DIRTY_MAX: u64 = 16 << 20;
/// Records between two looks at them.
const DIRTY_LOOK: u64 = 256;
/// Number of the one objset that is worked on.
const OBJSET: u64 = 1;

/// How far the MACs of a stream were proven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// It has none, or no key opens it.
    None,
    /// All, up to the objset's: nothing was changed, moved, added or left out.
    Whole,
    /// Those of data and spill blocks. Not those of dnodes (names, owners, modes, sizes) nor the objset's (which block
    /// lies where, and that none is missing), for this reason.
    Blocks(&'static str),
}

/// No snapshot to build on.
const NO_BASE: &str = "the stream it builds on was not verified before it";
/// The rest of it is elsewhere.
const RESUMING: &str = "it goes on with an interrupted stream";
/// Receives refuse raw streams of such senders.
const FOREIGN: &str = "its sender is of the other byte order";
/// Blocks by reference: receivers of today do not take them either.
const DEDUP: &str = "it is deduplicated";
/// See [`KEPT_MAX`].
const TOO_LARGE: &str = "it has more metadata than is held in memory";

/// The snapshots that were proven so far.
#[derive(Default)]
pub(super) struct Chain {
    store: Metadata,
    roots: BTreeMap<u64, Blkptr>,
}

/// A stream on its way to being proven.
pub(super) struct Tree {
    os: Objset,
    applier: Applier,
    keys: Arc<MasterKeys>,
    portable_mac: [u8; 32],
    toguid: u64,
    records: u64,
}

/// What became of a record.
type Step = Result<Option<&'static str>, Why>;

impl Tree {
    /// For the stream that `begin` opens with the keys of `data`; or why it cannot be proven.
    pub(super) fn begin(
        chain: &mut Chain,
        begin: &Begin,
        order: Order,
        limits: Limits,
        data: &KeyData,
        keys: Arc<MasterKeys>,
        resuming: bool,
    ) -> Result<Self, &'static str> {
        if resuming {
            return Err(RESUMING);
        }
        if order != Order::Little {
            return Err(FOREIGN);
        }
        if begin.has(feature::DEDUP) {
            return Err(DEDUP);
        }
        chain.store.begin(keys.clone());
        let mut os = if begin.fromguid == 0 {
            let policy = Policy { encrypted: true, embed: false, ..Policy::default() };
            let kind = ObjsetType::from_raw(begin.objset_type.into());
            Objset::create(OBJSET, kind, policy, Want::NoKey)
        } else {
            let root = chain.roots.get(&begin.fromguid).ok_or(NO_BASE)?;
            Objset::open(&chain.store, OBJSET, root, Want::NoKey).map_err(|_| NO_BASE)?
        };
        let shape = NewObject {
            nlevels: data.meta.nlevels,
            indblkshift: data.meta.indblkshift,
            nblkptr: 3,
            checksum: data.meta.checksum,
            compress: data.meta.compress,
            ..NewObject::plain(ObjectType::DNODE, DNODE_BLOCK as u64)
        };
        os.set_meta_shape(&shape, data.meta.maxblkid).map_err(|_| NO_BASE)?;
        os.phys_mut();
        let applier = Applier::new(begin, order, limits);
        let (portable_mac, toguid) = (data.portable_mac, begin.toguid);
        Ok(Self { os, applier, keys, portable_mac, toguid, records: 0 })
    }

    /// Applies a record with the payload as it came; says so when the proof has to be given up.
    pub(super) fn apply(&mut self, chain: &mut Chain, entry: &Entry, payload: Vec<u8>) -> Step {
        self.records += 1;
        let applied = self.applier.apply(&mut chain.store, &mut self.os, entry, payload, 0);
        if let step @ (Ok(Some(_)) | Err(_)) = outcome(applied) {
            return step;
        }
        if self.records.is_multiple_of(DIRTY_LOOK) && self.os.dirty_bytes() >= DIRTY_MAX {
            return self.sync(chain);
        }
        Ok(None)
    }

    fn sync(&mut self, chain: &mut Chain) -> Step {
        let flushed = self.applier.flush(&mut chain.store, &mut self.os);
        if let step @ (Ok(Some(_)) | Err(_)) = outcome(flushed) {
            return step;
        }
        outcome(self.os.sync(&mut chain.store).map(|_| ()).map_err(ApplyError::Write))
    }

    /// At the END: every MAC that is not a block's own.
    pub(super) fn end(mut self, chain: &mut Chain) -> Result<Proof, Why> {
        if let Some(why) = self.sync(chain)? {
            return Ok(Proof::Blocks(why));
        }
        chain.store.check_dnodes(&self.keys)?;
        let macs = objset_macs(&self.keys, self.os.phys().as_bytes(), true);
        if macs.map_err(|e| Why::Tree(e.to_string()))?.0 != self.portable_mac {
            return Err(Why::Root);
        }
        chain.roots.insert(self.toguid, self.os.root());
        Ok(Proof::Whole)
    }
}

fn outcome(applied: Result<(), ApplyError>) -> Step {
    match applied {
        Ok(()) => Ok(None),
        Err(ApplyError::Refused(refusal)) => Err(refusal.into()),
        Err(ApplyError::Write(WriteError::NoSpace)) => Ok(Some(TOO_LARGE)),
        Err(ApplyError::Write(e)) => Err(Why::Tree(e.to_string())),
    }
}

/// Dnodes and block pointers of all snapshots proven so far and of the one at hand.
#[derive(Default)]
struct Metadata {
    /// Blocks without the zeros at their ends, by a made-up offset.
    blocks: BTreeMap<u64, Arc<[u8]>>,
    bytes: u64,
    next: u64,
    txg: u64,
    keys: Option<Arc<MasterKeys>>,
    /// Blocks of dnodes written for the stream at hand: their numbers and pointers by offset.
    dnodes: BTreeMap<u64, (u64, Blkptr)>,
}

impl Metadata {
    fn begin(&mut self, keys: Arc<MasterKeys>) {
        self.txg += 1;
        self.keys = Some(keys);
        self.dnodes.clear();
    }

    fn check_dnodes(&mut self, keys: &MasterKeys) -> Result<(), Why> {
        let written: BTreeMap<u64, Blkptr> = std::mem::take(&mut self.dnodes).into_values().collect();
        for (blkid, bp) in written {
            let block =
                self.kept(&bp).ok_or_else(|| Why::Tree(format!("block {blkid} of dnodes is gone")))?;
            if verify_block(keys, &bp, &block).is_err() {
                return Err(Why::Dnodes(blkid.saturating_mul(SLOTS_PER_BLOCK)));
            }
        }
        Ok(())
    }

    fn kept(&self, bp: &Blkptr) -> Option<Vec<u8>> {
        let mut block = self.blocks.get(&bp.dva[0].offset())?.to_vec();
        block.resize(usize::try_from(bp.lsize()).ok()?.max(block.len()), 0);
        Some(block)
    }

    /// The pointer that a pool would make, but for the place.
    fn close(&mut self, new: &NewBlock) -> Result<Blkptr, WriteError> {
        let blank = new.data.iter().all(|b| *b == 0);
        let mut bp = Blkptr::default();
        bp.set_lsize(new.lsize);
        bp.set_psize((new.data.len() as u64).next_multiple_of(512));
        bp.set_checksum(Checksum::FLETCHER_4);
        bp.set_type(new.kind);
        bp.set_level(new.level);
        bp.set_little_endian(true);
        bp.set_birth(Txg(self.txg));
        bp.set_compress(Compress::OFF);
        match new.form {
            Form::Logical { .. } if blank => return Ok(self.hole(new)),
            Form::Stored { crypt: Some(_), .. } if blank && new.kind == ObjectType::DNODE => {
                return Ok(self.hole(new));
            }
            Form::Logical { encrypt: true, .. } if new.level > 0 => {
                bp.set_crypt(true);
                bp.set_mac(indirect_mac(&new.data, true).map_err(|e| WriteError::Invalid(e.to_string()))?);
            }
            Form::Stored { compress, little_endian, crypt: Some(crypt), .. } => {
                bp.set_compress(compress);
                bp.set_little_endian(little_endian);
                bp.set_crypt(true);
                if new.kind != ObjectType::OBJSET {
                    bp.set_mac(crypt.mac);
                }
                if new.kind.is_encrypted() && new.level == 0 {
                    bp.set_salt_iv(crypt.salt, crypt.iv);
                }
            }
            _ => return Err(WriteError::Invalid(format!("a block without encryption at {}", new.at))),
        }
        bp.set_fill(new.fill);
        self.next += bp.psize().max(512);
        bp.dva[0] = Dva::new(0, self.next, bp.psize(), false);
        Ok(bp)
    }

    fn hole(&self, new: &NewBlock) -> Blkptr {
        let birth = if new.old.birth().0 == 0 { 0 } else { self.txg };
        Blkptr::hole(Txg(birth), new.kind, new.level, new.lsize)
    }

    fn keep(&mut self, new: &NewBlock, bp: &Blkptr) -> Result<(), WriteError> {
        let used = new.data.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        self.bytes += used as u64;
        if self.bytes > KEPT_MAX {
            return Err(WriteError::NoSpace);
        }
        self.blocks.insert(bp.dva[0].offset(), Arc::from(&new.data[..used]));
        if new.kind == ObjectType::DNODE && new.level == 0 {
            self.dnodes.insert(bp.dva[0].offset(), (new.at.blkid, *bp));
        }
        Ok(())
    }

    fn forget(&mut self, bp: &Blkptr) {
        self.dnodes.remove(&bp.dva[0].offset());
        // What was born before belongs to a snapshot that others may build on.
        if bp.birth() == Txg(self.txg)
            && let Some(block) = self.blocks.remove(&bp.dva[0].offset())
        {
            self.bytes -= block.len() as u64;
        }
    }
}

impl BlockStore for Metadata {
    fn read(&self, bp: &Blkptr, at: &Bookmark, _want: Want) -> Result<Arc<[u8]>, ReadError> {
        let kept = self.kept(bp).map(Arc::from);
        kept.ok_or_else(|| ReadError::Device(format!("the data of {at} is not kept")))
    }
    fn txg(&self) -> Txg {
        Txg(self.txg)
    }
    fn hole_birth(&self) -> bool {
        true
    }
}

impl BlockWriter for Metadata {
    fn write_batch(&mut self, blocks: Vec<NewBlock>) -> Result<Vec<Blkptr>, WriteError> {
        let mut out = Vec::with_capacity(blocks.len());
        for new in blocks {
            let bp = self.close(&new)?;
            if !bp.is_hole() && (new.level > 0 || matches!(new.kind, ObjectType::DNODE | ObjectType::OBJSET))
            {
                self.keep(&new, &bp)?;
            }
            out.push(bp);
        }
        Ok(out)
    }
    fn free(&mut self, bp: &Blkptr) -> Result<(), WriteError> {
        if !bp.is_hole() {
            self.forget(bp);
        }
        Ok(())
    }
}
