//! An objset in memory: what is on disk under its root pointer, overlaid by the changes of the open txg.
//!
//! Invariants:
//! 1. Reads see the overlay: an object in `objs` hides its slot on disk, a buffer in `bufs` its block.
//! 2. Nothing is written until [`Objset::sync`], but for [`Objset::write_through`], whose blocks go out at
//!    once while only their pointers stay in memory. Memory is bounded by the dirty metadata.
//! 3. `sync` goes leaves to root, in the order level, object, block id: the bytes on disk do not depend on
//!    the order in which changes were made within the txg, or on scheduling.
//! 4. Every pointer that leaves the tree is either freed at once (born in this txg) or handed to the owner
//!    in [`Delta::killed`]; every pointer that enters is counted in [`Delta::born`].
//! 5. A raw objset (encrypted, key not used) keeps `maxblkid` and `nlevels` exactly as its sender says:
//!    they are under the MAC.

pub mod accounts;
mod free;
mod many;
mod object;
mod room;
mod scan;
mod sync;
mod tree;

use crate::store::{BlockStore, RawCrypt, ReadError, Want, WriteError};
use icecore_format::dnode::SLOTS_PER_BLOCK;
use icecore_format::objset::{ObjsetPhys, ObjsetType};
use icecore_format::{Blkptr, Bookmark, Checksum, Compress, Corrupt, Dnode, ObjectId, ObjectType, Txg};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use many::Picked;
pub use object::NewObject;
pub use room::Room;
pub use scan::DataBlock;

/// How an objset's blocks are written (the outcome of its properties; `dmu_write_policy`, dmu.c).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Checksum for data; metadata falls back to fletcher4 if it is too weak.
    pub checksum: Checksum,
    /// Compression for data: a concrete algorithm or off.
    pub compress: Compress,
    /// zstd level as the property stores it.
    pub level: u8,
    /// Compression for metadata: LZ4, or LZJB in pools without the feature.
    pub meta_compress: Compress,
    /// Copies of data, 1 to 3.
    pub copies: u8,
    /// Property redundant_metadata by index: 0 all, 1 most, 2 some, 3 none.
    pub redundant_metadata: u8,
    /// The dataset is encrypted.
    pub encrypted: bool,
    /// Small blocks may be embedded in their pointers (never where `encrypted`).
    pub embed: bool,
}

impl Policy {
    /// The MOS: fletcher4, LZ4, three copies.
    #[must_use]
    pub fn mos() -> Self {
        Self { copies: 3, ..Self::default() }
    }
}
impl Default for Policy {
    fn default() -> Self {
        Self {
            checksum: Checksum::FLETCHER_4,
            compress: Compress::LZ4,
            level: 0,
            meta_compress: Compress::LZ4,
            copies: 1,
            redundant_metadata: 0,
            encrypted: false,
            embed: false,
        }
    }
}

/// Sizes of a set of blocks: allocated, stored, and before compression. Signed: a difference.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Space {
    /// Bytes allocated (asize).
    pub used: i64,
    /// Bytes stored (psize).
    pub compressed: i64,
    /// Bytes before compression (lsize for data, psize for metadata).
    pub uncompressed: i64,
}

#[allow(clippy::cast_possible_wrap)] // block sizes are far below 2^63
impl Space {
    /// The sizes of one block; all zero for a hole.
    #[must_use]
    pub fn of(bp: &Blkptr) -> Self {
        if bp.is_hole() {
            return Self::default();
        }
        Self { used: bp.asize() as i64, compressed: bp.psize() as i64, uncompressed: bp.ucsize() as i64 }
    }
    /// Adds `other`.
    pub fn add(&mut self, other: Self) {
        self.used += other.used;
        self.compressed += other.compressed;
        self.uncompressed += other.uncompressed;
    }
    /// Subtracts `other`.
    pub fn sub(&mut self, other: Self) {
        self.used -= other.used;
        self.compressed -= other.compressed;
        self.uncompressed -= other.uncompressed;
    }
}

/// What a sync changed, for the owner's accounting.
#[derive(Clone, Default, Debug)]
pub struct Delta {
    /// Blocks that entered the tree in this txg (and did not leave it again).
    pub born: Space,
    /// Pointers of earlier txgs that left the tree: the owner frees them or puts them on a deadlist.
    pub killed: Vec<Blkptr>,
    /// The new root pointer.
    pub root: Blkptr,
}

/// One object with changes: its head, and the blocks to be written.
#[derive(Clone, Debug)]
pub(crate) struct Obj {
    pub(crate) dn: Dnode,
    pub(crate) bufs: BTreeMap<(u8, u64), Vec<u8>>,
    /// Slots to be zeroed on disk before the new head is stored.
    pub(crate) clear_slots: usize,
}

impl Obj {
    fn clean(dn: Dnode) -> Self {
        let clear_slots = if dn.is_free() { 0 } else { dn.slots() };
        Self { dn, bufs: BTreeMap::new(), clear_slots }
    }
}

/// Salt, IV, MAC and byte order of a block of dnodes in a raw objset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawDnodeBlock {
    pub(crate) crypt: RawCrypt,
    pub(crate) little_endian: bool,
}

/// An objset; see the module's head.
#[derive(Clone, Debug)]
pub struct Objset {
    id: u64,
    root: Blkptr,
    phys: ObjsetPhys,
    phys_dirty: bool,
    want: Want,
    policy: Policy,
    meta: Obj,
    objs: BTreeMap<u64, Obj>,
    /// The accounting objects while they are changed.
    accounts: BTreeMap<u64, Obj>,
    owners: Option<accounts::OwnersOf>,
    raw_dnode_blocks: BTreeMap<u64, RawDnodeBlock>,
    delta: Delta,
    room: Option<Room>,
    grown: room::Growth,
    free_hint: u64,
    /// Freed in this txg; to be had again in the next.
    lowest_freed: u64,
    touched: u64,
}

/// log2 of the indirect block size of new metadnodes and objects (128 KiB).
pub const INDBLKSHIFT: u8 = 17;

impl Objset {
    /// The objset under `root`. `want` is [`Want::Logical`], or [`Want::NoKey`] for an encrypted dataset
    /// whose key is not used: then data and bonus areas are ciphertext, and what is written is written as
    /// it was received.
    pub fn open(io: &dyn BlockStore, id: u64, root: &Blkptr, want: Want) -> Result<Self, ReadError> {
        let bytes = io.read(root, &Bookmark::root(id), want)?;
        let phys = ObjsetPhys::parse(&bytes)?;
        let meta = phys.meta_dnode()?;
        if meta.is_free() || meta.block_size() != icecore_format::dnode::DNODE_BLOCK as u64 {
            return Err(Corrupt::new(
                "objset",
                format!("objset {id} has a metadnode of type {:?}", meta.kind()),
            )
            .into());
        }
        let mut policy = Policy { encrypted: root.uses_crypt(), ..Policy::default() };
        if id == 0 {
            policy = Policy::mos();
        }
        Ok(Self::with(id, *root, phys, Obj::clean(meta), want, policy))
    }

    /// A new, empty objset, to be written by the next sync.
    #[must_use]
    pub fn create(id: u64, kind: ObjsetType, policy: Policy, want: Want) -> Self {
        let mut meta = Dnode::empty(1);
        meta.set_kind(ObjectType::DNODE);
        meta.set_indblkshift(INDBLKSHIFT);
        meta.set_nlevels(if id == 0 { 1 } else { Self::default_meta_levels() });
        meta.set_nblkptr(3);
        meta.set_block_size(icecore_format::dnode::DNODE_BLOCK as u64);
        let mut phys = ObjsetPhys::new(kind);
        phys.set_meta_dnode(&meta);
        let mut os = Self::with(id, Blkptr::default(), phys, Obj::clean(meta), want, policy);
        os.phys_dirty = true;
        os
    }

    /// Levels OpenZFS gives a new metadnode: enough for 2^48 objects, less one top block of three
    /// (`dmu_objset_create_impl_dnstats`).
    fn default_meta_levels() -> u8 {
        let epbs = u32::from(INDBLKSHIFT) - 7;
        let mut levels = 1_u8;
        while (3_u64 << (5 + (u32::from(levels) - 1) * epbs)) < icecore_format::dnode::MAX_OBJECT {
            levels += 1;
        }
        levels
    }

    fn with(id: u64, root: Blkptr, phys: ObjsetPhys, meta: Obj, want: Want, policy: Policy) -> Self {
        Self {
            id,
            root,
            phys,
            phys_dirty: false,
            want,
            policy,
            meta,
            objs: BTreeMap::new(),
            accounts: BTreeMap::new(),
            owners: None,
            raw_dnode_blocks: BTreeMap::new(),
            delta: Delta::default(),
            room: None,
            grown: room::Growth::default(),
            free_hint: 1,
            lowest_freed: u64::MAX,
            touched: 0,
        }
    }

    /// The dataset object this objset belongs to; 0 for the MOS.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }
    /// The objset block.
    #[must_use]
    pub fn phys(&self) -> &ObjsetPhys {
        &self.phys
    }
    /// The objset block, to be changed (MACs, flags); it will be written.
    pub fn phys_mut(&mut self) -> &mut ObjsetPhys {
        self.phys_dirty = true;
        &mut self.phys
    }
    /// The root pointer as of the last sync.
    #[must_use]
    pub fn root(&self) -> Blkptr {
        self.root
    }
    /// How blocks are written.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }
    /// Changes how blocks are written from now on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }
    /// How blocks are read.
    #[must_use]
    pub fn want(&self) -> Want {
        self.want
    }
    /// Encrypted, and handled without its key.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.policy.encrypted && self.want == Want::NoKey
    }
    /// Whether a sync would write anything.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.phys_dirty || !self.objs.is_empty() || !self.meta.bufs.is_empty()
    }
    /// Blocks of `obj` that wait in memory.
    #[must_use]
    pub fn buffers(&self, obj: ObjectId) -> usize {
        self.objs.get(&obj.0).map_or(0, |o| o.bufs.len())
    }
    /// Counts every step that changes something: whoever compares it before and after a failed operation knows whether that
    /// left a part of itself behind.
    #[must_use]
    pub fn touched(&self) -> u64 {
        self.touched
    }
    /// Bytes of dirty buffers held in memory.
    #[must_use]
    pub fn dirty_bytes(&self) -> u64 {
        let of = |o: &Obj| o.bufs.values().map(Vec::len).sum::<usize>() + 1024;
        (self.objs.values().map(of).sum::<usize>() + of(&self.meta)) as u64
    }
    /// The metadnode.
    #[must_use]
    pub fn meta(&self) -> &Dnode {
        &self.meta.dn
    }

    /// Blocks of dnodes the metadnode can have.
    fn meta_blocks(&self) -> u64 {
        self.meta.dn.maxblkid().saturating_add(1)
    }

    /// The head of `obj`; [`ReadError::NoObject`] if it is free or absent.
    pub fn dnode(&self, io: &dyn BlockStore, obj: ObjectId) -> Result<Dnode, ReadError> {
        if let Some(known) = self.dnode_in_memory(obj) {
            return known;
        }
        let Some(block) = self.meta_block(io, obj.0 / SLOTS_PER_BLOCK)? else {
            return Err(ReadError::NoObject(obj));
        };
        dnode_in(&block, &Starts::of(&block), obj)
    }

    /// What need not be read to know the head of `obj`: it was changed, lies in the objset block, or cannot be.
    fn dnode_in_memory(&self, obj: ObjectId) -> Option<Result<Dnode, ReadError>> {
        if obj.0 == 0 {
            return Some(Ok(self.meta.dn.clone()));
        }
        if let Some(o) = self.table(obj).get(&obj.0) {
            return Some(if o.dn.is_free() { Err(ReadError::NoObject(obj)) } else { Ok(o.dn.clone()) });
        }
        if accounts::is_account(obj) {
            return Some(self.account_dnode(obj));
        }
        self.covered(obj.0).then_some(Err(ReadError::NoObject(obj)))
    }

    /// Block `blkid` of dnodes as it is on disk (the overlay of `objs` not applied).
    pub(crate) fn meta_block(&self, io: &dyn BlockStore, blkid: u64) -> Result<Option<Arc<[u8]>>, ReadError> {
        if blkid >= self.meta_blocks() {
            return Ok(None);
        }
        self.block_of(io, ObjectId(0), &self.meta, blkid)?.map(whole).transpose()
    }

    /// The first allocated object after `after`.
    pub fn next_object(&self, io: &dyn BlockStore, after: ObjectId) -> Result<Option<ObjectId>, ReadError> {
        let slots = SLOTS_PER_BLOCK;
        let mut from = after.0.saturating_add(1);
        loop {
            let on_disk = self.next_object_on_disk(io, from)?;
            let in_memory = self.objs.range(from..).find(|(_, o)| !o.dn.is_free()).map(|(id, _)| *id);
            let next = match (on_disk, in_memory) {
                (Some(d), Some(m)) => d.min(m),
                (Some(n), None) | (None, Some(n)) => n,
                (None, None) => return Ok(None),
            };
            let hidden = self.objs.get(&next).is_some_and(|o| o.dn.is_free()) || self.covered(next);
            if !hidden {
                return Ok(Some(ObjectId(next)));
            }
            from = next.saturating_add(1);
            debug_assert!(from / slots <= self.meta_blocks().max(from / slots));
        }
    }

    /// Whether a larger object of the overlay covers slot `id` as an interior slot.
    fn covered(&self, id: u64) -> bool {
        self.objs
            .range(id.saturating_sub(31)..id)
            .any(|(at, o)| !o.dn.is_free() && at + o.dn.slots() as u64 > id)
    }

    fn next_object_on_disk(&self, io: &dyn BlockStore, from: u64) -> Result<Option<u64>, ReadError> {
        let slots = SLOTS_PER_BLOCK;
        let mut blkid = from / slots;
        while let Some(at) = self.next_block(io, ObjectId(0), &self.meta, blkid)? {
            if let Some(block) = self.meta_block(io, at)? {
                let found = slot_starts(&block)?
                    .into_iter()
                    .map(|(s, _)| at * slots + s as u64)
                    .find(|id| *id >= from && *id > 0);
                if found.is_some() {
                    return Ok(found);
                }
            }
            blkid = at + 1;
        }
        Ok(None)
    }

    /// The pointer to block `blkid` of `level` of `obj`; a hole if there is none.
    pub fn blkptr(
        &self,
        io: &dyn BlockStore,
        obj: ObjectId,
        dn: &Dnode,
        level: u8,
        blkid: u64,
    ) -> Result<Blkptr, ReadError> {
        match self.overlay(obj) {
            Some(o) => self.get_bp(io, obj, o, level, blkid),
            None => self.get_bp(io, obj, &Obj::clean(dn.clone()), level, blkid),
        }
    }

    /// Data block `blkid` of `obj`, or `None` for a hole.
    pub fn block(
        &self,
        io: &dyn BlockStore,
        obj: ObjectId,
        dn: &Dnode,
        blkid: u64,
    ) -> Result<Option<Arc<[u8]>>, ReadError> {
        match self.overlay(obj) {
            Some(o) => self.block_of(io, obj, o, blkid),
            None => self.block_of(io, obj, &Obj::clean(dn.clone()), blkid),
        }
    }

    pub(crate) fn overlay(&self, obj: ObjectId) -> Option<&Obj> {
        if obj.0 == 0 { Some(&self.meta) } else { self.table(obj).get(&obj.0) }
    }

    /// `len` bytes of `obj` from `offset`; holes and what lies past the end read as zeros.
    pub fn read(
        &self,
        io: &dyn BlockStore,
        obj: ObjectId,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, ReadError> {
        let dn = self.dnode(io, obj)?;
        let size = dn.block_size();
        let mut out = vec![0; len];
        let mut done = 0_usize;
        while done < len {
            let at = offset.saturating_add(done as u64);
            let (blkid, skip) = (at / size, (at % size) as usize);
            let take = (size as usize - skip).min(len - done);
            if blkid <= dn.maxblkid()
                && let Some(block) = self.block(io, obj, &dn, blkid)?
            {
                let from = block.get(skip..).unwrap_or(&[]);
                let n = take.min(from.len());
                out[done..done + n].copy_from_slice(&from[..n]);
            }
            done += take;
        }
        Ok(out)
    }

    /// The bonus bytes of `obj`.
    pub fn bonus(&self, io: &dyn BlockStore, obj: ObjectId) -> Result<Vec<u8>, ReadError> {
        Ok(self.dnode(io, obj)?.bonus().to_vec())
    }

    /// The spill block of `dn`, if it has one.
    pub fn spill(
        &self,
        io: &dyn BlockStore,
        obj: ObjectId,
        dn: &Dnode,
    ) -> Result<Option<Arc<[u8]>>, ReadError> {
        match dn.spill() {
            Some(bp) if !bp.is_hole() => {
                let at = Bookmark { objset: self.id, object: obj, level: 0, blkid: Bookmark::SPILL };
                io.read(&bp, &at, self.want).map(Some)
            }
            _ => Ok(None),
        }
    }

    pub(crate) fn at(&self, obj: ObjectId, level: u8, blkid: u64) -> Bookmark {
        Bookmark { objset: self.id, object: obj, level: level as i8, blkid }
    }

    /// Takes a pointer out of the tree: freed at once if it was born in this txg, else owed to the owner.
    pub(crate) fn kill(
        &mut self,
        io: &mut dyn crate::store::BlockWriter,
        bp: &Blkptr,
    ) -> Result<(), WriteError> {
        if bp.is_hole() {
            return Ok(());
        }
        self.touched += 1;
        if bp.alloc_birth() == io.txg() {
            self.delta.born.sub(Space::of(bp));
            io.free(bp)
        } else {
            self.note_killed(bp);
            self.delta.killed.push(*bp);
            Ok(())
        }
    }

    /// Objects with changes not yet synced.
    #[must_use]
    pub fn dirty_objects(&self) -> BTreeSet<u64> {
        self.objs.keys().copied().collect()
    }
}

/// A block of dnodes, if it has the size of one.
fn whole<B: AsRef<[u8]>>(block: B) -> Result<B, ReadError> {
    match block.as_ref().len() {
        icecore_format::dnode::DNODE_BLOCK => Ok(block),
        other => Err(Corrupt::new("dnode block", format!("{other} bytes")).into()),
    }
}

/// Where dnodes begin in a block of them: one bit a slot, and the damage behind which nothing is known.
struct Starts {
    slots: u32,
    damage: Option<Corrupt>,
}

impl Starts {
    fn of(block: &[u8]) -> Self {
        let mut starts = Self { slots: 0, damage: None };
        for found in slots_of(block) {
            match found {
                Ok((at, _)) => starts.slots |= 1_u32.checked_shl(at as u32).unwrap_or(0),
                Err(damage) => starts.damage = Some(damage),
            }
        }
        starts
    }
}

/// The dnode of `obj` in the block of dnodes that it belongs into.
fn dnode_in(block: &[u8], starts: &Starts, obj: ObjectId) -> Result<Dnode, ReadError> {
    let index = (obj.0 % SLOTS_PER_BLOCK) as usize;
    if starts.slots & (1 << index) == 0 {
        // Not there, or what is before it runs past the end.
        return Err(starts.damage.clone().map_or(ReadError::NoObject(obj), ReadError::Corrupt));
    }
    let bytes = block.get(index * 512..).ok_or(ReadError::NoObject(obj))?;
    Ok(Dnode::parse(bytes)?)
}

/// Where allocated dnodes begin in a block of them: (slot, slots). Interior slots are not starts.
pub fn slot_starts(block: &[u8]) -> Result<Vec<(usize, usize)>, Corrupt> {
    slots_of(block).collect()
}

/// The same one after another, up to the first that makes no sense.
fn slots_of(block: &[u8]) -> impl Iterator<Item = Result<(usize, usize), Corrupt>> + '_ {
    let total = block.len() / 512;
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < total {
            let (here, kind) = (at, block[at * 512]);
            let slots = if kind == 0 { 1 } else { usize::from(block[at * 512 + 12]) + 1 };
            if here + slots > total {
                at = total;
                let why = format!("slot {here}: {slots} slots run past the end");
                return Some(Err(Corrupt::new("dnode block", why)));
            }
            at += slots;
            if kind != 0 {
                return Some(Ok((here, slots)));
            }
        }
        None
    })
}

/// A hole that took the place of `old`: it remembers its birth if the pool's holes do and anything had
/// ever been there (`zio_write_compress`, zio.c).
pub(crate) fn hole_after(
    old: &Blkptr,
    hole_birth: bool,
    txg: Txg,
    kind: ObjectType,
    level: u8,
    lsize: u64,
) -> Blkptr {
    if hole_birth && old.birth().0 != 0 { Blkptr::hole(txg, kind, level, lsize) } else { Blkptr::default() }
}
