//! Objects: allocate, claim, edit, free.

use super::{Obj, Objset, RawDnodeBlock, slot_starts};
use crate::store::{BlockStore, BlockWriter, RawCrypt, ReadError, WriteError};
use icecore_format::dnode::{MAX_OBJECT, SLOTS_PER_BLOCK};
use icecore_format::{Blkptr, Bookmark, Checksum, Compress, Dnode, ObjectId, ObjectType};

/// The shape of a new object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewObject {
    /// What it holds.
    pub kind: ObjectType,
    /// Data block size in bytes, a multiple of 512.
    pub block_size: u64,
    /// log2 of the indirect block size, 12 to 17.
    pub indblkshift: u8,
    /// Height of the tree to begin with, usually 1.
    pub nlevels: u8,
    /// Block pointers in the dnode; 0 for as many as the bonus leaves room for.
    pub nblkptr: u8,
    /// What the bonus holds.
    pub bonus_type: ObjectType,
    /// Bytes of bonus.
    pub bonuslen: u16,
    /// Slots of 512 bytes, 1 to 32.
    pub slots: u8,
    /// The object's own checksum setting; INHERIT for the objset's.
    pub checksum: Checksum,
    /// The object's own compression setting; INHERIT for the objset's.
    pub compress: Compress,
}

impl NewObject {
    /// An object of `kind` with blocks of `block_size` and no bonus.
    #[must_use]
    pub fn plain(kind: ObjectType, block_size: u64) -> Self {
        Self {
            kind,
            block_size,
            indblkshift: super::INDBLKSHIFT,
            nlevels: 1,
            nblkptr: 0,
            bonus_type: ObjectType::NONE,
            bonuslen: 0,
            slots: 1,
            checksum: Checksum::INHERIT,
            compress: Compress::INHERIT,
        }
    }
    /// The same with a bonus area.
    #[must_use]
    pub fn with_bonus(mut self, kind: ObjectType, len: u16) -> Self {
        (self.bonus_type, self.bonuslen) = (kind, len);
        self
    }

    pub(super) fn dnode(&self) -> Result<Dnode, WriteError> {
        let bad = |why: String| WriteError::Invalid(format!("object of type {:?}: {why}", self.kind));
        if !(1..=32).contains(&self.slots)
            || !(12..=17).contains(&self.indblkshift)
            || !(1..=12).contains(&self.nlevels)
        {
            return Err(bad(format!(
                "{} slots, indirect shift {}, {} levels",
                self.slots, self.indblkshift, self.nlevels
            )));
        }
        if self.block_size == 0
            || !self.block_size.is_multiple_of(512)
            || self.block_size > icecore_format::units::MAX_BLOCK
        {
            return Err(bad(format!("block size {}", self.block_size)));
        }
        let mut dn = Dnode::empty(usize::from(self.slots));
        dn.set_kind(self.kind);
        dn.set_indblkshift(self.indblkshift);
        dn.set_nlevels(self.nlevels);
        dn.set_block_size(self.block_size);
        dn.set_bonus_type(self.bonus_type);
        dn.set_checksum(self.checksum);
        dn.set_compress(self.compress);
        let nblkptr = if self.nblkptr == 0 {
            deduce_nblkptr(self.bonus_type, self.bonuslen, self.slots)
        } else {
            self.nblkptr
        };
        dn.set_nblkptr(nblkptr);
        if !(1..=3).contains(&nblkptr) || usize::from(self.bonuslen) > dn.max_bonuslen() {
            return Err(bad(format!(
                "bonus of {} bytes beside {nblkptr} block pointers in {} slots",
                self.bonuslen, self.slots
            )));
        }
        dn.set_bonuslen(self.bonuslen);
        dn.set_used_bytes(0);
        Ok(dn)
    }
}

/// Block pointers that fit beside a bonus: one for SA, else what the first slot has room for, at most 3
/// (`deduce_nblkptr`, dmu_recv.c; the tail of larger dnodes counts too).
#[must_use]
pub fn deduce_nblkptr(bonus_type: ObjectType, bonuslen: u16, slots: u8) -> u8 {
    if bonus_type == ObjectType::SA {
        return 1;
    }
    let tail = usize::from(slots.max(1)) * 512 - 64 - 128;
    let extra = tail.saturating_sub(usize::from(bonuslen)) / 128;
    1 + extra.min(2) as u8
}

impl Objset {
    /// Slots in use in block `blkid` of dnodes, with the overlay applied; `freed` ones of this txg count where said so.
    fn occupied(
        &self,
        io: &dyn BlockStore,
        blkid: u64,
        freed: bool,
    ) -> Result<[bool; SLOTS_PER_BLOCK as usize], WriteError> {
        let mut used = [false; SLOTS_PER_BLOCK as usize];
        let base = blkid * SLOTS_PER_BLOCK;
        if let Some(block) = self.meta_block(io, blkid)? {
            for (at, slots) in slot_starts(&block)? {
                if !self.objs.contains_key(&(base + at as u64)) {
                    used[at..at + slots].fill(true);
                }
            }
        }
        for (id, o) in self.objs.range(base..base + SLOTS_PER_BLOCK) {
            let slots = match o.dn.is_free() {
                false => o.dn.slots(),
                true if freed => o.clear_slots.max(1),
                true => continue,
            };
            let at = (id - base) as usize;
            let end = (at + slots).min(used.len());
            used[at..end].fill(true);
        }
        used[0] |= blkid == 0; // object 0 is the metadnode
        Ok(used)
    }

    /// A new object at the first place with room. Its id is small and dense, and none that was freed in this txg, as in
    /// OpenZFS (`dnode_hold_impl`): who knows a file by its number and the txg of its birth never takes one for another.
    pub fn allocate(&mut self, io: &dyn BlockStore, new: &NewObject) -> Result<ObjectId, WriteError> {
        let want = usize::from(new.slots.max(1));
        let mut blkid = self.free_hint / SLOTS_PER_BLOCK;
        loop {
            let used = self.occupied(io, blkid, true)?;
            let base = blkid * SLOTS_PER_BLOCK;
            let fits =
                (0..=used.len().saturating_sub(want)).find(|at| used[*at..at + want].iter().all(|u| !u));
            if let Some(at) = fits {
                let obj = ObjectId(base + at as u64);
                self.insert_new(io, obj, new)?;
                if want == 1 {
                    self.free_hint = obj.0 + 1;
                }
                return Ok(obj);
            }
            blkid += 1;
            if blkid * SLOTS_PER_BLOCK >= MAX_OBJECT {
                return Err(WriteError::NoSpace);
            }
        }
    }

    /// A new object with the given id; refused if any of its slots is in use.
    pub fn claim(&mut self, io: &dyn BlockStore, obj: ObjectId, new: &NewObject) -> Result<(), WriteError> {
        let (blkid, at) = (obj.0 / SLOTS_PER_BLOCK, (obj.0 % SLOTS_PER_BLOCK) as usize);
        let end = at + usize::from(new.slots.max(1));
        if obj.0 == 0 || obj.0 >= MAX_OBJECT || end > SLOTS_PER_BLOCK as usize {
            return Err(WriteError::Invalid(format!(
                "object {obj} with {} slots does not fit its block",
                new.slots
            )));
        }
        let used = self.occupied(io, blkid, false)?;
        if let Some(taken) = (at..end).find(|s| used[*s]) {
            return Err(WriteError::Invalid(format!(
                "object {obj}: slot {} is in use",
                blkid * SLOTS_PER_BLOCK + taken as u64
            )));
        }
        self.insert_new(io, obj, new)
    }

    fn insert_new(&mut self, io: &dyn BlockStore, obj: ObjectId, new: &NewObject) -> Result<(), WriteError> {
        let dn = new.dnode()?;
        let slots = dn.slots();
        self.touched += 1;
        // Heads freed in this txg whose slots the new one covers give way; their zeroing is ours now.
        let mut clear = slots;
        for id in obj.0..obj.0 + slots as u64 {
            if let Some(old) = self.objs.remove(&id) {
                clear = clear.max((id - obj.0) as usize + old.clear_slots);
            }
        }
        self.grow_meta(io, obj)?;
        self.objs.insert(obj.0, Obj { dn, bufs: std::collections::BTreeMap::new(), clear_slots: clear });
        Ok(())
    }

    fn grow_meta(&mut self, _io: &dyn BlockStore, obj: ObjectId) -> Result<(), WriteError> {
        let blkid = obj.0 / SLOTS_PER_BLOCK;
        let mut meta = std::mem::replace(&mut self.meta, Obj::clean(Dnode::empty(1)));
        let grown = self.grow_for(&mut meta, 0, blkid);
        if grown.is_ok() && !self.is_raw() && blkid > meta.dn.maxblkid() {
            meta.dn.set_maxblkid(blkid);
        }
        self.meta = meta;
        grown
    }

    /// The head of `obj`, to be changed (bonus, settings). Block size, levels and spill have their own calls.
    pub fn edit(&mut self, io: &dyn BlockStore, obj: ObjectId) -> Result<&mut Dnode, WriteError> {
        if obj.0 == 0 {
            self.phys_dirty = true;
            return Ok(&mut self.meta.dn);
        }
        let o = self.take_obj(io, obj)?;
        self.touched += 1;
        self.objs.insert(obj.0, o);
        self.objs.get_mut(&obj.0).map(|o| &mut o.dn).ok_or(WriteError::Read(ReadError::NoObject(obj)))
    }

    /// Frees `obj`: all its blocks, its spill block, its slots.
    pub fn free_object(&mut self, io: &mut dyn BlockWriter, obj: ObjectId) -> Result<(), WriteError> {
        self.free_blocks_of(io, obj)?;
        let mut o = self.take_obj(io, obj)?;
        if let Some(spill) = o.dn.spill() {
            self.kill(io, &spill)?;
        }
        o.bufs.clear();
        o.dn = Dnode::empty(1);
        self.objs.insert(obj.0, o);
        self.lowest_freed = self.lowest_freed.min(obj.0);
        Ok(())
    }

    fn free_blocks_of(&mut self, io: &mut dyn BlockWriter, obj: ObjectId) -> Result<(), WriteError> {
        self.free_range(io, obj, 0, u64::MAX)
    }

    /// Sets block size and indirect block size of an object that holds no blocks.
    pub fn set_block_size(
        &mut self,
        io: &dyn BlockStore,
        obj: ObjectId,
        bytes: u64,
        indblkshift: u8,
    ) -> Result<(), WriteError> {
        let o = self.take_obj(io, obj)?;
        let empty = (0..usize::from(o.dn.nblkptr())).all(|i| o.dn.blkptr(i).is_hole()) && o.bufs.is_empty();
        let dn = &o.dn;
        let same = dn.block_size() == bytes && dn.indblkshift() == indblkshift;
        let fits = bytes != 0
            && bytes.is_multiple_of(512)
            && bytes <= icecore_format::units::MAX_BLOCK
            && (12..=17).contains(&indblkshift);
        let (ok, mut o) = (same || (empty && fits), o);
        if ok {
            self.touched += 1;
            o.dn.set_block_size(bytes);
            o.dn.set_indblkshift(indblkshift);
        }
        self.put_obj(obj, o);
        if ok {
            Ok(())
        } else {
            Err(WriteError::Invalid(format!("object {obj}: cannot change its block size to {bytes}")))
        }
    }

    /// Changes the block size of an object that has at most block 0, keeping its contents (a micro ZAP
    /// that grows; `dnode_set_blksz`).
    pub fn resize_only_block(
        &mut self,
        io: &dyn BlockStore,
        obj: ObjectId,
        bytes: u64,
    ) -> Result<(), WriteError> {
        self.with_obj(io, obj, |os, o| {
            if o.dn.maxblkid() > 0
                || o.dn.nlevels() != 1
                || bytes < o.dn.block_size()
                || !bytes.is_multiple_of(512)
                || bytes > icecore_format::units::MAX_BLOCK
            {
                return Err(WriteError::Invalid(format!("object {obj}: cannot grow its block to {bytes}")));
            }
            os.buf_mut(io, obj, o, 0, 0)?.resize(bytes as usize, 0);
            os.touched += 1;
            o.dn.set_block_size(bytes);
            Ok(())
        })
    }

    /// Sets height and last block exactly (raw receive). The height may only rise here; to lower it free
    /// the object and claim it again.
    pub fn set_shape(
        &mut self,
        io: &dyn BlockStore,
        obj: ObjectId,
        nlevels: u8,
        maxblkid: u64,
    ) -> Result<(), WriteError> {
        let mut o = self.take_obj(io, obj)?;
        let ok = nlevels >= o.dn.nlevels() && nlevels <= icecore_format::dnode::MAX_LEVELS;
        if ok {
            while o.dn.nlevels() < nlevels {
                self.grow_one(&mut o);
            }
            o.dn.set_maxblkid(maxblkid);
        }
        self.put_obj(obj, o);
        if ok { Ok(()) } else { Err(WriteError::Invalid(format!("object {obj}: {nlevels} levels"))) }
    }

    /// Gives the metadnode of a new raw objset the sender's shape. Only before anything is in it, but for
    /// `maxblkid`, checksum and compression, which each stream sets anew.
    pub fn set_meta_shape(&mut self, shape: &NewObject, maxblkid: u64) -> Result<(), WriteError> {
        let fresh = self.root.is_hole() && self.objs.is_empty() && self.meta.bufs.is_empty();
        let dn = &mut self.meta.dn;
        if fresh {
            dn.set_nlevels(shape.nlevels);
            dn.set_indblkshift(shape.indblkshift);
            dn.set_nblkptr(shape.nblkptr);
            dn.set_block_size(shape.block_size);
        } else if dn.indblkshift() != shape.indblkshift
            || dn.nblkptr() != shape.nblkptr
            || dn.block_size() != shape.block_size
            || dn.nlevels() != shape.nlevels
        {
            return Err(WriteError::Invalid("the metadnode's shape differs from the one received".into()));
        }
        dn.set_checksum(shape.checksum);
        dn.set_compress(shape.compress);
        dn.set_maxblkid(maxblkid);
        self.phys_dirty = true;
        Ok(())
    }

    /// Salt, IV, MAC and byte order for block `blkid` of dnodes (raw receive, OBJECT_RANGE).
    pub fn set_raw_dnode_block(&mut self, blkid: u64, crypt: RawCrypt, little_endian: bool) {
        self.raw_dnode_blocks.insert(blkid, RawDnodeBlock { crypt, little_endian });
    }

    /// Writes the spill block of `obj` at once, replacing the one it has.
    pub fn write_spill(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: ObjectId,
        lsize: u64,
        data: Vec<u8>,
        form: crate::store::Form,
    ) -> Result<(), WriteError> {
        self.with_obj_io(io, obj, |os, io, o| {
            let old = o.dn.spill().unwrap_or_default();
            let mut new = os.new_block(obj, o, 0, Bookmark::SPILL, data, form);
            new.kind = o.dn.bonus_type();
            new.lsize = lsize;
            new.copies = os.meta_copies(0, new.kind, true);
            new.checksum = os.meta_checksum();
            let bp = io
                .write_batch(vec![new])?
                .pop()
                .ok_or_else(|| WriteError::Invalid("no pointer came back".into()))?;
            os.set_spill_bp(io, o, &old, Some(&bp))
        })
    }

    /// Removes the spill block of `obj`, if it has one.
    pub fn remove_spill(&mut self, io: &mut dyn BlockWriter, obj: ObjectId) -> Result<(), WriteError> {
        self.with_obj_io(io, obj, |os, io, o| match o.dn.spill() {
            Some(old) => os.set_spill_bp(io, o, &old, None),
            None => Ok(()),
        })
    }

    fn set_spill_bp(
        &mut self,
        io: &mut dyn BlockWriter,
        o: &mut Obj,
        old: &Blkptr,
        new: Option<&Blkptr>,
    ) -> Result<(), WriteError> {
        self.touched += 1;
        o.dn.set_spill(new);
        self.account(io, o, old, &new.copied().unwrap_or_default())
    }
}
