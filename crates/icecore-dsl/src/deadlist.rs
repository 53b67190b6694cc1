//! Deadlists: for a dataset, the blocks that the snapshot before it references and it does not, sorted by
//! which older snapshot saw them born (dsl_deadlist.c).
//!
//! On disk a ZAP from the creation txg of a snapshot (hexadecimal) to a bpobj with the blocks born after
//! it and not after the next key; the sums stand in the ZAP's bonus. Pools before version 26 have one bare
//! bpobj instead.
//!
//! Invariants:
//! 1. The sums in the bonus are those of all its bpobjs.
//! 2. All entries that were never filled share the pool's one empty bpobj, counted by the feature
//!    `empty_bpobj`.
//! 3. A block of birth `b` is in the entry with the greatest key below `b`.

use crate::error::{DslError, Result};
use crate::feature::Feature;
use crate::mos::int_key;
use crate::{DIRECTORY, Dsl};
use icecore_dmu::zap;
use icecore_dmu::{BlockStore, BlockWriter, Space, bpobj};
use icecore_format::reader::{put_u64_at, u64_at};
use icecore_format::{Blkptr, Corrupt, ObjectId, ObjectType};
use std::collections::BTreeMap;
use zerocopy::FromBytes;

/// Bytes of the bonus (`dsl_deadlist_phys_t`).
const HEADER_LEN: u16 = 320;

/// Entries of a deadlist: key to bpobj.
pub(crate) type Entries = BTreeMap<u64, u64>;

impl Dsl {
    fn deadlist_is_old(&self, io: &dyn BlockStore, obj: u64) -> Result<bool> {
        Ok(self.mos.dnode(io, ObjectId(obj))?.kind() == ObjectType::BPOBJ)
    }

    pub(crate) fn deadlist_entries(&self, io: &dyn BlockStore, obj: u64) -> Result<Entries> {
        let mut out = Entries::new();
        for (name, v) in self.zap_list_u64(io, obj)? {
            let key = u64::from_str_radix(&name, 16)
                .map_err(|_| Corrupt::new("deadlist", format!("key {name} in object {obj}")))?;
            out.insert(key, v);
        }
        Ok(out)
    }

    pub(crate) fn bpobj_space(&self, io: &dyn BlockStore, obj: u64) -> Result<Space> {
        if obj == self.empty_bpobj && obj != 0 {
            return Ok(Space::default());
        }
        Ok(bpobj::header(&self.mos, io, ObjectId(obj))?.space())
    }

    /// Space of all blocks in the deadlist.
    pub(crate) fn deadlist_space(&self, io: &dyn BlockStore, obj: u64) -> Result<Space> {
        if obj == 0 {
            return Ok(Space::default());
        }
        if self.deadlist_is_old(io, obj)? {
            return self.bpobj_space(io, obj);
        }
        let b = self.mos.bonus(io, ObjectId(obj))?;
        Ok(Space {
            used: signed(u64_at(&b, 0)),
            compressed: signed(u64_at(&b, 8)),
            uncompressed: signed(u64_at(&b, 16)),
        })
    }

    /// Space of the blocks born in `(mintxg, maxtxg]`, both creation txgs of snapshots (or 0, or MAX).
    pub(crate) fn deadlist_space_range(
        &self,
        io: &dyn BlockStore,
        obj: u64,
        mintxg: u64,
        maxtxg: u64,
    ) -> Result<Space> {
        let mut sum = Space::default();
        if obj == 0 || mintxg >= maxtxg {
            return Ok(sum);
        }
        if self.deadlist_is_old(io, obj)? {
            bpobj::for_each::<DslError>(&self.mos, io, ObjectId(obj), &mut |bp, freed| {
                let birth = bp.alloc_birth().0;
                if birth > mintxg && birth <= maxtxg {
                    if freed { sum.sub(Space::of(bp)) } else { sum.add(Space::of(bp)) }
                }
                Ok(())
            })?;
            return Ok(sum);
        }
        for (_, sub) in self.deadlist_entries(io, obj)?.range(mintxg..maxtxg) {
            sum.add(self.bpobj_space(io, *sub)?);
        }
        Ok(sum)
    }

    fn deadlist_add_space(&mut self, io: &dyn BlockStore, obj: u64, delta: Space) -> Result<()> {
        let mut b = self.mos.bonus(io, ObjectId(obj))?;
        for (at, d) in [(0, delta.used), (8, delta.compressed), (16, delta.uncompressed)] {
            let now = crate::space::add(u64_at(&b, at), d);
            let _ = put_u64_at(&mut b, at, now);
        }
        self.put_bonus(io, obj, &b)
    }

    /// A new, empty deadlist without keys (`dsl_deadlist_alloc`).
    pub(crate) fn deadlist_new(&mut self, io: &mut dyn BlockWriter) -> Result<u64> {
        Ok(zap::create(
            &mut self.mos,
            io,
            ObjectType::DEADLIST,
            Some((ObjectType::DEADLIST_HDR, HEADER_LEN)),
            0,
        )?
        .0)
    }

    /// Frees a deadlist and its bpobjs, not the blocks in them (`dsl_deadlist_free`).
    pub(crate) fn deadlist_free(&mut self, io: &mut dyn BlockWriter, obj: u64) -> Result<()> {
        if obj == 0 {
            return Ok(());
        }
        if self.deadlist_is_old(io, obj)? {
            return Ok(bpobj::free(&mut self.mos, io, ObjectId(obj))?);
        }
        for sub in self.deadlist_entries(io, obj)?.into_values() {
            if sub == self.empty_bpobj {
                self.bpobj_decr_empty(io)?;
            } else {
                bpobj::free(&mut self.mos, io, ObjectId(sub))?;
            }
        }
        self.free_obj(io, obj)
    }

    pub(crate) fn bpobj_new(&mut self, io: &mut dyn BlockWriter) -> Result<u64> {
        let len = if self.feature_active(io, Feature::LIVELIST)? { bpobj::SIZE_V3 } else { bpobj::SIZE_V2 };
        Ok(bpobj::create(&mut self.mos, io, len)?.0)
    }

    /// All blocks in a bpobj and below it.
    pub(crate) fn bpobj_blocks(&self, io: &dyn BlockStore, obj: u64) -> Result<Vec<Blkptr>> {
        let mut all = Vec::new();
        bpobj::for_each::<DslError>(&self.mos, io, ObjectId(obj), &mut |bp, _| {
            all.push(*bp);
            Ok(())
        })?;
        Ok(all)
    }

    /// The shared empty bpobj, counted once more; a bpobj of its own where the feature is missing
    /// (`bpobj_alloc_empty`, bpobj.c).
    fn bpobj_alloc_empty(&mut self, io: &mut dyn BlockWriter) -> Result<u64> {
        if !self.feature_enabled(io, Feature::EMPTY_BPOBJ)? {
            return self.bpobj_new(io);
        }
        if !self.feature_active(io, Feature::EMPTY_BPOBJ)? {
            self.empty_bpobj = self.bpobj_new(io)?;
            self.zap_put_u64(io, DIRECTORY, "empty_bpobj", self.empty_bpobj)?;
        }
        self.feature_incr(io, Feature::EMPTY_BPOBJ)?;
        Ok(self.empty_bpobj)
    }

    fn bpobj_decr_empty(&mut self, io: &mut dyn BlockWriter) -> Result<()> {
        self.feature_decr(io, Feature::EMPTY_BPOBJ)?;
        if !self.feature_active(io, Feature::EMPTY_BPOBJ)? {
            self.zap_del(io, DIRECTORY, "empty_bpobj")?;
            self.free_obj(io, self.empty_bpobj)?;
            self.empty_bpobj = 0;
        }
        Ok(())
    }

    /// Appends bpobj `sub` to `to`; `sub` belongs to `to` afterwards or is gone (`bpobj_enqueue_subobj`).
    fn bpobj_append(&mut self, io: &mut dyn BlockWriter, to: u64, sub: u64) -> Result<()> {
        if sub == self.empty_bpobj {
            return self.bpobj_decr_empty(io);
        }
        Ok(bpobj::enqueue_subobj(&mut self.mos, io, ObjectId(to), ObjectId(sub))?)
    }

    /// Puts blocks on a deadlist (`dsl_deadlist_insert`).
    pub(crate) fn deadlist_insert(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: u64,
        blocks: &[Blkptr],
    ) -> Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        if self.deadlist_is_old(io, obj)? {
            for bp in blocks {
                bpobj::enqueue(&mut self.mos, io, ObjectId(obj), bp, false)?;
            }
            return Ok(());
        }
        let mut entries = self.deadlist_entries(io, obj)?;
        let mut sum = Space::default();
        for bp in blocks {
            let birth = bp.alloc_birth().0;
            let key = entries
                .range(..birth)
                .next_back()
                .or_else(|| entries.iter().next())
                .map(|(k, _)| *k)
                .ok_or_else(|| Corrupt::new("deadlist", format!("object {obj} has no keys")))?;
            let mut sub = entries[&key];
            if sub == self.empty_bpobj {
                sub = self.bpobj_new(io)?;
                self.bpobj_decr_empty(io)?;
                self.zap_put_u64(io, obj, &int_key(key), sub)?;
                entries.insert(key, sub);
            }
            bpobj::enqueue(&mut self.mos, io, ObjectId(sub), bp, false)?;
            sum.add(Space::of(bp));
        }
        self.deadlist_add_space(io, obj, sum)
    }

    /// A new key, with the shared empty bpobj (`dsl_deadlist_add_key`).
    pub(crate) fn deadlist_add_key(&mut self, io: &mut dyn BlockWriter, obj: u64, mintxg: u64) -> Result<()> {
        if self.deadlist_is_old(io, obj)? {
            return Ok(());
        }
        if self.zap_u64(io, obj, &int_key(mintxg))?.is_some() {
            return Err(Corrupt::new("deadlist", format!("object {obj} has key {mintxg} already")).into());
        }
        let sub = self.bpobj_alloc_empty(io)?;
        self.zap_put_u64(io, obj, &int_key(mintxg), sub)
    }

    /// Removes a key; its blocks go to the entry before (`dsl_deadlist_remove_key`).
    pub(crate) fn deadlist_remove_key(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: u64,
        mintxg: u64,
    ) -> Result<()> {
        if self.deadlist_is_old(io, obj)? {
            return Ok(());
        }
        let entries = self.deadlist_entries(io, obj)?;
        let (Some(sub), Some((prev, prev_sub))) = (entries.get(&mintxg), entries.range(..mintxg).next_back())
        else {
            return Err(
                Corrupt::new("deadlist", format!("object {obj} has no key {mintxg} or none before")).into()
            );
        };
        self.deadlist_entry_append(io, obj, (*prev, *prev_sub), *sub)?;
        self.zap_del(io, obj, &int_key(mintxg))?;
        Ok(())
    }

    /// Appends `sub` to an entry, or puts it in the place of the shared empty one (`dle_enqueue_subobj`).
    fn deadlist_entry_append(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: u64,
        entry: (u64, u64),
        sub: u64,
    ) -> Result<()> {
        let (key, own) = entry;
        if own != self.empty_bpobj {
            return self.bpobj_append(io, own, sub);
        }
        if sub == self.empty_bpobj {
            // One empty entry swallows another: the count falls, the entry stays.
            return self.bpobj_decr_empty(io);
        }
        self.bpobj_decr_empty(io)?;
        self.zap_put_u64(io, obj, &int_key(key), sub)
    }

    /// A new deadlist with the keys of `obj` below `maxtxg`, all empty. For one of the old format the keys
    /// come from the snapshots from `newest_snap` back (`dsl_deadlist_clone`, `dsl_deadlist_regenerate`).
    pub(crate) fn deadlist_clone(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: u64,
        maxtxg: u64,
        newest_snap: u64,
    ) -> Result<u64> {
        let new = self.deadlist_new(io)?;
        let mut keys: Vec<u64> = Vec::new();
        if self.deadlist_is_old(io, obj)? {
            let (mut snap, mut txg) = (newest_snap, u64::MAX);
            while snap != 0 {
                let ds = self.dataset(io, snap)?;
                if ds.creation_txg >= txg {
                    return Err(Corrupt::new("DSL dataset", "snapshots out of order").into());
                }
                keys.push(ds.prev_snap_txg);
                (snap, txg) = (ds.prev_snap_obj, ds.creation_txg);
            }
        } else {
            keys.extend(self.deadlist_entries(io, obj)?.range(..maxtxg).map(|(k, _)| *k));
        }
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let sub = self.bpobj_alloc_empty(io)?;
            self.zap_put_u64(io, new, &int_key(key), sub)?;
        }
        Ok(new)
    }

    /// Empties deadlist `from` into `to` (`dsl_deadlist_merge`).
    pub(crate) fn deadlist_merge(&mut self, io: &mut dyn BlockWriter, to: u64, from: u64) -> Result<()> {
        if self.deadlist_is_old(io, from)? {
            let all = self.bpobj_blocks(io, from)?;
            return self.deadlist_insert(io, to, &all);
        }
        for (key, sub) in self.deadlist_entries(io, from)? {
            let space = self.bpobj_space(io, sub)?;
            let entries = self.deadlist_entries(io, to)?;
            let entry = entries
                .range(..=key)
                .next_back()
                .map(|(k, v)| (*k, *v))
                .ok_or_else(|| Corrupt::new("deadlist", format!("object {to} has no key up to {key}")))?;
            self.deadlist_add_space(io, to, space)?;
            self.deadlist_entry_append(io, to, entry, sub)?;
            self.zap_del(io, from, &int_key(key))?;
        }
        self.put_bonus(io, from, &[0; HEADER_LEN as usize])
    }

    /// Moves the blocks born after `mintxg` to bpobj `to`, their keys vanish (`dsl_deadlist_move_bpobj`).
    pub(crate) fn deadlist_move(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: u64,
        to: u64,
        mintxg: u64,
    ) -> Result<()> {
        if to == 0 {
            return Err(DslError::Unsupported("the pool is too old for this".into()));
        }
        let moved: Vec<(u64, u64)> =
            self.deadlist_entries(io, obj)?.range(mintxg..).map(|(k, v)| (*k, *v)).collect();
        for (key, sub) in moved {
            let space = self.bpobj_space(io, sub)?;
            self.bpobj_append(io, to, sub)?;
            let mut less = Space::default();
            less.sub(space);
            self.deadlist_add_space(io, obj, less)?;
            self.zap_del(io, obj, &int_key(key))?;
        }
        Ok(())
    }

    /// Whether a deadlist is one bare bpobj of a pool before version 26.
    pub(crate) fn deadlist_old_format(&self, io: &dyn BlockStore, obj: u64) -> Result<bool> {
        self.deadlist_is_old(io, obj)
    }

    pub(crate) fn free_list(&self) -> Result<u64> {
        if self.free_bpobj == 0 {
            return Err(DslError::Unsupported("the pool is too old for this".into()));
        }
        Ok(self.free_bpobj)
    }

    /// Frees the blocks of one list, not of those below it, a few at a time.
    fn free_list_blocks(&self, io: &mut dyn BlockWriter, list: ObjectId, sum: &mut Space) -> Result<usize> {
        const CHUNK: u64 = 8192;
        let total = bpobj::header(&self.mos, io, list)?.num_blkptrs;
        let dn = self.mos.dnode(io, list)?;
        let room = dn.maxblkid().saturating_add(1).saturating_mul(dn.block_size()) / 128;
        if total > room {
            return Err(
                Corrupt::new("bpobj", format!("list {list}: {total} pointers in room for {room}")).into()
            );
        }
        let mut at = 0;
        while at < total {
            let n = CHUNK.min(total - at);
            let bytes = self.mos.read(io, list, at * 128, usize::try_from(n * 128).unwrap_or(0))?;
            for entry in bytes.chunks_exact(128) {
                let bp = Blkptr::read_from_bytes(entry).unwrap_or_default();
                io.free(&bp)?;
                sum.sub(Space::of(&bp));
            }
            at += n;
        }
        Ok(usize::try_from(total).unwrap_or(usize::MAX))
    }

    /// Gives back the blocks waiting in the pool's free list, and their charge to `$FREE`
    /// (`dsl_process_async_destroys`). Returns how many there were.
    pub fn process_frees(&mut self, io: &mut dyn BlockWriter) -> Result<usize> {
        if self.free_bpobj == 0 {
            return Ok(0);
        }
        let mut sum = Space::default();
        let mut freed = 0;
        for list in bpobj::lists(&self.mos, io, ObjectId(self.free_bpobj))? {
            freed += self.free_list_blocks(io, list, &mut sum)?;
        }
        if freed == 0 {
            return Ok(0);
        }
        bpobj::clear(&mut self.mos, io, ObjectId(self.free_bpobj))?;
        if self.free_dir != 0 {
            self.diduse(io, self.free_dir, crate::phys::Used::Head, sum)?;
        }
        Ok(freed)
    }

    /// Sums of a whole deadlist as its bpobjs have them, for checks.
    #[cfg(test)]
    #[allow(dead_code)]
    pub(crate) fn deadlist_sum(&self, io: &dyn BlockStore, obj: u64) -> Result<Space> {
        self.deadlist_space_range(io, obj, 0, u64::MAX)
    }
}

fn signed(w: u64) -> i64 {
    i64::try_from(w).unwrap_or(i64::MAX)
}
