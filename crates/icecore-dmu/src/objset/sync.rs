//! Writing an objset's changes: data, indirect blocks, dnodes, objset block, in that order.

use super::accounts::Sums;
use super::{Delta, INDBLKSHIFT, Obj, Objset, hole_after};
use crate::objset::tree::bp_in;
use crate::store::{BlockWriter, Form, NewBlock, RawCrypt, WriteError};
use icecore_format::dnode::{DNODE_BLOCK, MAX_LEVELS, SLOTS_PER_BLOCK};
use icecore_format::{Blkptr, Bookmark, Checksum, Compress, ObjectId, ObjectType};
use std::collections::BTreeMap;

/// Bytes of buffers handed to the store at once.
const BATCH_BYTES: usize = 8 << 20;

/// One buffer on its way out.
struct Out {
    obj: u64,
    blkid: u64,
    data: Vec<u8>,
}

impl Objset {
    /// Writes everything dirty and gives back what changed. Afterwards the objset is clean and its root
    /// pointer is [`Delta::root`]. On an error the txg must be abandoned.
    pub fn sync(&mut self, io: &mut dyn BlockWriter) -> Result<Delta, WriteError> {
        if self.is_dirty() {
            for level in 0..MAX_LEVELS {
                self.sync_level(io, level)?;
            }
            let sums = self.store_dnodes(io)?;
            self.put_sums(io, sums)?;
            self.sync_meta(io)?;
            self.sync_root(io)?;
            self.objs.clear();
            self.free_hint = self.free_hint.min(std::mem::replace(&mut self.lowest_freed, u64::MAX));
            self.raw_dnode_blocks.clear();
        }
        let mut delta = std::mem::take(&mut self.delta);
        self.grown = super::room::Growth::default();
        delta.root = self.root;
        Ok(delta)
    }

    /// Writes all buffers of `level` of all objects, in the order object, block id.
    fn sync_level(&mut self, io: &mut dyn BlockWriter, level: u8) -> Result<(), WriteError> {
        let ids = dirty_at(&self.objs, level);
        self.sync_objects(io, level, ids)
    }

    /// The same for the accounting objects, whose heads are in the objset block.
    pub(super) fn sync_accounts(&mut self, io: &mut dyn BlockWriter, level: u8) -> Result<(), WriteError> {
        let ids = dirty_at(&self.accounts, level);
        self.sync_objects(io, level, ids)
    }

    fn sync_objects(&mut self, io: &mut dyn BlockWriter, level: u8, ids: Vec<u64>) -> Result<(), WriteError> {
        let mut batch: Vec<Out> = Vec::new();
        let mut bytes = 0;
        for id in ids {
            let Some(o) = self.table(ObjectId(id)).get(&id) else { continue };
            let keys: Vec<u64> = o.bufs.range((level, 0)..=(level, u64::MAX)).map(|(k, _)| k.1).collect();
            for blkid in keys {
                let o = self.table_mut(ObjectId(id)).get_mut(&id);
                let Some(data) = o.and_then(|o| o.bufs.remove(&(level, blkid))) else { continue };
                bytes += data.len();
                batch.push(Out { obj: id, blkid, data });
                if bytes >= BATCH_BYTES {
                    self.write_out(io, level, std::mem::take(&mut batch))?;
                    bytes = 0;
                }
            }
        }
        self.write_out(io, level, batch)
    }

    fn write_out(&mut self, io: &mut dyn BlockWriter, level: u8, batch: Vec<Out>) -> Result<(), WriteError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut new = Vec::with_capacity(batch.len());
        let mut places = Vec::with_capacity(batch.len());
        for Out { obj, blkid, data } in batch {
            let Some(o) = self.table(ObjectId(obj)).get(&obj) else { continue };
            let old = self.get_bp(io, ObjectId(obj), o, level, blkid)?;
            let mut block = self.new_block(ObjectId(obj), o, level, blkid, data, self.logical_form(o, level));
            block.old = old;
            places.push((obj, blkid, old, block.lsize));
            new.push(block);
        }
        let written = io.write_batch(new)?;
        for ((obj, blkid, old, lsize), bp) in places.into_iter().zip(written) {
            if is_kept(&old, &bp) {
                continue;
            }
            self.with_obj_io(io, ObjectId(obj), |os, io, o| {
                let bp = if bp.is_hole() {
                    hole_after(&old, io.hole_birth(), io.txg(), o.dn.kind(), level, lsize)
                } else {
                    bp
                };
                os.replace(io, ObjectId(obj), o, level, blkid, &bp)
            })?;
        }
        Ok(())
    }

    /// How data of `o` is compressed.
    fn compress(&self, o: &Obj) -> Compress {
        match o.dn.compress() {
            Compress::INHERIT => self.policy.compress,
            Compress::ON => self.policy.meta_compress,
            c => c,
        }
    }

    fn logical_form(&self, o: &Obj, level: u8) -> Form {
        let meta = level > 0 || o.dn.kind().is_metadata();
        // Indirect blocks of a raw objset are plain metadata; the store adds the sum over the MACs.
        Form::Logical {
            compress: if meta { self.policy.meta_compress } else { self.compress(o) },
            level: self.policy.level,
            encrypt: self.policy.encrypted,
        }
    }

    pub(crate) fn meta_checksum(&self) -> Checksum {
        let own = self.policy.checksum.select(Checksum::ON);
        if own.fits_metadata() { own } else { Checksum::FLETCHER_4 }
    }

    /// Copies of a metadata block by the redundant_metadata property (`dmu_write_policy`).
    pub(crate) fn meta_copies(&self, level: u8, kind: ObjectType, spill: bool) -> u8 {
        let extra = match self.policy.redundant_metadata {
            0 => true,
            1 => level >= 2 || kind.is_metadata() || spill,
            _ => false,
        };
        (self.policy.copies + u8::from(extra)).clamp(1, 3)
    }

    /// The request to write `data` as (level, blkid) of `o`, with everything the policy decides.
    pub(crate) fn new_block(
        &self,
        obj: ObjectId,
        o: &Obj,
        level: u8,
        blkid: u64,
        data: Vec<u8>,
        form: Form,
    ) -> NewBlock {
        let kind = o.dn.kind();
        let meta = level > 0 || kind.is_metadata();
        let own = o.dn.checksum().select(self.policy.checksum.select(Checksum::ON));
        let lsize = if level > 0 { 1 << o.dn.indblkshift() } else { o.dn.block_size() };
        let fill = if level > 0 {
            (0..o.dn.epb()).map(|i| bp_in(&data, i).fill()).fold(0_u64, u64::wrapping_add)
        } else {
            1
        };
        NewBlock {
            at: self.at(obj, level, blkid),
            kind,
            level,
            lsize,
            data: if level > 0 { blank_if_holes(data) } else { data },
            form,
            checksum: if meta { self.meta_checksum() } else { own },
            copies: if meta { self.meta_copies(level, kind, false) } else { self.policy.copies.clamp(1, 3) },
            fill,
            may_embed: self.policy.embed && !self.policy.encrypted && level == 0,
            // As `dmu_write_policy` has it (dmu.c): who does not want it turns compression off.
            may_keep: !meta
                && !self.policy.encrypted
                && own.tells_contents()
                && self.compress(o) != Compress::OFF,
            old: Blkptr::default(),
        }
    }

    /// Puts every changed head into its block of dnodes: first all zeroing, then all storing, since a new
    /// head may lie in slots that another one left.
    ///
    /// What the old and the new heads say is allocated, for their owners, is given back.
    fn store_dnodes(&mut self, io: &dyn crate::store::BlockStore) -> Result<Sums, WriteError> {
        let rules = self.rules()?;
        let mut sums = Sums::new();
        if let Some(rules) = rules {
            self.mark_accounted(rules);
            self.enter_sums(io, &mut sums, rules)?;
        }
        let heads: Vec<(u64, usize, Option<Vec<u8>>)> = self
            .objs
            .iter()
            .map(|(id, o)| (*id, o.clear_slots, (!o.dn.is_free()).then(|| o.dn.as_bytes().to_vec())))
            .collect();
        self.with_obj(io, ObjectId(0), |os, meta| {
            let put = |buf: &mut [u8], id: u64, bytes: &[u8]| {
                let at = (id % SLOTS_PER_BLOCK) as usize * 512;
                let end = (at + bytes.len()).min(DNODE_BLOCK);
                buf[at..end].copy_from_slice(&bytes[..end - at]);
            };
            for (id, clear, _) in &heads {
                let buf = os.buf_mut(io, ObjectId(0), meta, 0, id / SLOTS_PER_BLOCK)?;
                if let Some(rules) = rules {
                    let slot = (id % SLOTS_PER_BLOCK) as usize;
                    let first = id - slot as u64;
                    os.leave_sums(io, &mut sums, rules, (first, buf), slot..slot + clear)?;
                }
                put(buf, *id, &vec![0; *clear * 512]);
            }
            for (id, _, head) in &heads {
                if let Some(bytes) = head {
                    put(os.buf_mut(io, ObjectId(0), meta, 0, id / SLOTS_PER_BLOCK)?, *id, bytes);
                }
            }
            Ok(())
        })?;
        Ok(sums)
    }

    /// Writes the metadnode's own tree.
    fn sync_meta(&mut self, io: &mut dyn BlockWriter) -> Result<(), WriteError> {
        (0..MAX_LEVELS).try_for_each(|level| self.sync_meta_level(io, level))
    }

    /// Writes what is dirty of one level of it.
    pub(super) fn sync_meta_level(&mut self, io: &mut dyn BlockWriter, level: u8) -> Result<(), WriteError> {
        let keys: Vec<u64> = self.meta.bufs.range((level, 0)..=(level, u64::MAX)).map(|(k, _)| k.1).collect();
        let mut new = Vec::new();
        let mut places = Vec::new();
        for blkid in keys {
            let Some(data) = self.meta.bufs.remove(&(level, blkid)) else { continue };
            let old = self.get_bp(io, ObjectId(0), &self.meta, level, blkid)?;
            let mut block = self.meta_new_block(level, blkid, data, &old)?;
            block.old = old;
            places.push((blkid, old, block.lsize, block.data.iter().all(|b| *b == 0)));
            new.push(block);
        }
        // An empty block of dnodes is a hole in every form: the sender's tree has one there too.
        let written = self.write_but_zero(io, new, &places.iter().map(|p| p.3).collect::<Vec<_>>())?;
        for ((blkid, old, lsize, _), bp) in places.into_iter().zip(written) {
            let bp = if bp.is_hole() {
                hole_after(&old, io.hole_birth(), io.txg(), ObjectType::DNODE, level, lsize)
            } else {
                bp
            };
            self.with_obj_io(io, ObjectId(0), |os, io, o| os.replace(io, ObjectId(0), o, level, blkid, &bp))?;
        }
        Ok(())
    }

    fn write_but_zero(
        &self,
        io: &mut dyn BlockWriter,
        new: Vec<NewBlock>,
        zero: &[bool],
    ) -> Result<Vec<Blkptr>, WriteError> {
        let kept: Vec<NewBlock> = new.into_iter().zip(zero).filter(|(_, z)| !**z).map(|(b, _)| b).collect();
        let mut written = if kept.is_empty() { Vec::new() } else { io.write_batch(kept)? }.into_iter();
        Ok(zero
            .iter()
            .map(|z| if *z { Blkptr::default() } else { written.next().unwrap_or_default() })
            .collect())
    }

    fn meta_new_block(
        &self,
        level: u8,
        blkid: u64,
        data: Vec<u8>,
        old: &Blkptr,
    ) -> Result<NewBlock, WriteError> {
        let form = if level == 0 {
            self.dnode_block_form(blkid, &data, old)?
        } else {
            self.logical_form(&self.meta, level)
        };
        let fill = if level == 0 { super::slot_starts(&data)?.len() as u64 } else { 0 };
        let mut block = self.new_block(ObjectId(0), &self.meta, level, blkid, data, form);
        if level == 0 {
            block.fill = fill;
        }
        block.may_embed = false;
        Ok(block)
    }

    /// Blocks of dnodes are not compressed where the objset is encrypted; raw ones keep the parameters
    /// of their OBJECT_RANGE, or of the block they replace.
    fn dnode_block_form(&self, blkid: u64, data: &[u8], old: &Blkptr) -> Result<Form, WriteError> {
        if !self.policy.encrypted {
            return Ok(Form::Logical { compress: self.policy.meta_compress, level: 0, encrypt: false });
        }
        if !self.is_raw() {
            return Ok(Form::Logical { compress: Compress::EMPTY, level: 0, encrypt: true });
        }
        let (crypt, little_endian) = match self.raw_dnode_blocks.get(&blkid) {
            Some(r) => (r.crypt, r.little_endian),
            None if old.is_encrypted() => {
                (RawCrypt { salt: old.salt(), iv: old.iv(), mac: old.mac() }, old.is_little_endian())
            }
            None if data.iter().all(|b| *b == 0) => {
                (RawCrypt { salt: [0; 8], iv: [0; 12], mac: [0; 16] }, true)
            }
            None => {
                return Err(WriteError::Invalid(format!(
                    "block {blkid} of dnodes came without its encryption parameters"
                )));
            }
        };
        Ok(Form::Stored { compress: Compress::OFF, little_endian, crypt: Some(crypt), sum: None })
    }

    fn sync_root(&mut self, io: &mut dyn BlockWriter) -> Result<(), WriteError> {
        self.phys.set_meta_dnode(&self.meta.dn);
        let fill = (0..usize::from(self.meta.dn.nblkptr()))
            .map(|i| self.meta.dn.blkptr(i).fill())
            .fold(0_u64, u64::wrapping_add);
        let form = match (self.policy.encrypted, self.is_raw()) {
            (false, _) => Form::Logical { compress: self.policy.meta_compress, level: 0, encrypt: false },
            (true, false) => Form::Logical { compress: Compress::EMPTY, level: 0, encrypt: true },
            (true, true) => Form::Stored {
                compress: Compress::OFF,
                little_endian: true,
                crypt: Some(RawCrypt { salt: [0; 8], iv: [0; 12], mac: [0; 16] }),
                sum: None,
            },
        };
        let old = self.root;
        let new = NewBlock {
            at: Bookmark::root(self.id),
            kind: ObjectType::OBJSET,
            level: 0,
            lsize: self.phys.as_bytes().len() as u64,
            data: self.phys.as_bytes().to_vec(),
            form,
            checksum: self.meta_checksum(),
            copies: self.meta_copies(0, ObjectType::OBJSET, false),
            fill,
            may_embed: false,
            may_keep: false,
            old,
        };
        let bp = io
            .write_batch(vec![new])?
            .pop()
            .ok_or_else(|| WriteError::Invalid("no pointer came back".into()))?;
        self.exchange(io, &old, &bp)?;
        self.root = bp;
        self.phys_dirty = false;
        Ok(())
    }
}

/// Whether a block that was to be replaced stays what it is.
pub(super) fn is_kept(old: &Blkptr, new: &Blkptr) -> bool {
    !new.is_hole() && !new.is_embedded() && old == new
}

/// Objects with buffers of `level`.
fn dirty_at(objs: &BTreeMap<u64, Obj>, level: u8) -> Vec<u64> {
    objs.iter().filter(|(_, o)| o.bufs.keys().any(|k| k.0 == level)).map(|(id, _)| *id).collect()
}

/// An indirect block of nothing but holes is a hole itself, whatever births they remember
/// (`dbuf_write_children_ready`, dbuf.c).
fn blank_if_holes(data: Vec<u8>) -> Vec<u8> {
    let all_holes = (0..(data.len() / 128) as u64).all(|i| bp_in(&data, i).is_hole());
    if all_holes { vec![0; data.len()] } else { data }
}

const _: () = assert!(INDBLKSHIFT >= 12);
