//! Records to changes of an objset, raw and not.
//!
//! Facts: `receive_object`, `receive_handle_existing_object`, `receive_write_embedded`, `receive_spill`,
//! `receive_free` and their callers, dmu_recv.c.
//!
//! Invariants:
//! 1. A record reaches the objset only after [`Rules::check`], and only if it fits what is there: what is
//!    refused here changes nothing.
//! 2. In a raw stream every block is stored as it came: one whole block of its object, not after the last
//!    one, with the sender's salt, IV and MAC. FREE does not change the last block.
//! 3. Whole blocks wait in a batch that is written as one, across objects. The resume point never passes
//!    a record that still waits: [`Applier::flush`] comes before each commit.
//! 4. Memory is bounded by the batch and by the objset's dirty metadata.

use super::rules::{Limits, Refusal, Rule, Rules, nblkptr_for, refuse, slots_of};
use icecore_dmu::store::RawCrypt;
use icecore_dmu::{BlockStore, BlockWriter, Form, NewObject, Objset, ReadError, WriteError};
use icecore_format::byteswap::swap_block;
use icecore_format::dnode::SLOTS_PER_BLOCK;
use icecore_format::fletcher::Fletcher4;
use icecore_format::stream::{
    Begin, Entry, FreeObjects, Object, ObjectRange, Order, Record, Spill, Write, WriteEmbedded, record_flag,
};
use icecore_format::{Blkptr, Checksum, Compress, Dnode, ObjectId, ObjectType};
use icecore_transform::compress::decompress;
use std::collections::BTreeSet;

/// Bytes of blocks that wait to be written as one batch.
const BATCH_BYTES: usize = 8 << 20;
/// Blocks that wait at most.
const BATCH_BLOCKS: usize = 2048;

/// A batch is written as one while so many of its size fit: what blocks take on disk is not known before, with copies and padding.
const NEAR_THE_END: u64 = 8;

/// Why a record could not be applied.
#[derive(Debug)]
pub enum ApplyError {
    /// The stream is wrong.
    Refused(Refusal),
    /// The pool could not write or read. The open txg must be abandoned.
    Write(WriteError),
}

impl From<Refusal> for ApplyError {
    fn from(r: Refusal) -> Self {
        Self::Refused(r)
    }
}
impl From<WriteError> for ApplyError {
    fn from(e: WriteError) -> Self {
        Self::Write(e)
    }
}
impl From<ReadError> for ApplyError {
    fn from(e: ReadError) -> Self {
        Self::Write(WriteError::Read(e))
    }
}

type Result<T, E = ApplyError> = std::result::Result<T, E>;

/// Where a receive can go on: the last record that was applied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Point {
    /// Object of the record.
    pub object: u64,
    /// Offset of the record in it.
    pub offset: u64,
    /// Bytes of the stream up to it, over all attempts.
    pub bytes: u64,
}

/// Things in a stream that make a feature active on the dataset.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Seen {
    /// A block compressed with Zstandard.
    pub zstd: bool,
    /// A dnode of several slots.
    pub large_dnode: bool,
    /// A block of more than 128 KiB.
    pub large_block: bool,
}

/// The last OBJECT_RANGE, used up by the first OBJECT in it.
#[derive(Clone, Copy)]
struct Range {
    first: u64,
    crypt: RawCrypt,
    little_endian: bool,
    fresh: bool,
}

/// The head of the object that WRITEs go to, as far as they depend on it.
#[derive(Clone, Copy)]
struct Head {
    object: u64,
    kind: ObjectType,
    compress: Compress,
    blksz: u64,
    maxblkid: u64,
}

/// A block that waits to be written: object, number, contents.
type Waiting = (ObjectId, u64, Vec<u8>, Form);

/// Applies the records of one stream.
pub struct Applier {
    rules: Rules,
    order: Order,
    full: bool,
    range: Option<Range>,
    last_write: (u64, u64),
    max_object: u64,
    head: Option<Head>,
    batch: Vec<(Waiting, Point)>,
    batch_objects: BTreeSet<u64>,
    batch_bytes: usize,
    batch_point: Option<Point>,
    point: Point,
    written: u64,
    seen: Seen,
}

impl Applier {
    /// For the stream that `begin` opens.
    #[must_use]
    pub fn new(begin: &Begin, order: Order, limits: Limits) -> Self {
        Self {
            rules: Rules::new(begin, limits),
            order,
            full: begin.fromguid == 0,
            range: None,
            last_write: (0, 0),
            max_object: 0,
            head: None,
            batch: Vec::new(),
            batch_objects: BTreeSet::new(),
            batch_bytes: 0,
            batch_point: None,
            point: Point::default(),
            written: 0,
            seen: Seen::default(),
        }
    }

    /// The last record applied, of those that a stream can be resumed from.
    #[must_use]
    pub fn point(&self) -> Point {
        self.point
    }
    /// Bytes of data written since the last call.
    pub fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }
    /// Features that what was applied so far needs.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Checks and applies one record with its payload. `bytes` is how far into the stream it begins, over all
    /// attempts.
    pub fn apply(
        &mut self,
        io: &mut dyn BlockWriter,
        os: &mut Objset,
        entry: &Entry,
        payload: Vec<u8>,
        bytes: u64,
    ) -> Result<()> {
        let record = &entry.record;
        // Of a big-endian stream it is another sum than that of the blocks we write.
        let sum = (self.order == Order::Little).then_some(entry.payload_sum);
        self.rules.check(record)?;
        let at = |object, offset| Point { object, offset, bytes };
        match record {
            Record::Object(o) => {
                if self.batch_objects.range(o.object..o.object + slots_of(o)).next().is_some() {
                    self.flush(io, os)?;
                }
                self.object(io, os, o, &payload)?;
                self.reach(at(o.object, 0));
            }
            Record::FreeObjects(r) => {
                self.flush(io, os)?;
                self.free_objects(io, os, r)?;
            }
            Record::Write(w) => self.write(io, os, w, (payload, sum), at(w.object, w.offset))?,
            Record::WriteEmbedded(w) => {
                self.settle(io, os, w.object)?;
                self.embedded(io, os, w, &payload)?;
                self.reach(at(w.object, w.offset));
            }
            Record::Free(r) => {
                self.settle(io, os, r.object)?;
                self.free(io, os, r.object, r.offset, r.length)?;
            }
            Record::Redact(r) => {
                self.settle(io, os, r.object)?;
                self.free(io, os, r.object, r.offset, r.length)?;
            }
            Record::Spill(s) => {
                self.settle(io, os, s.object)?;
                self.spill(io, os, s, payload)?;
            }
            Record::ObjectRange(r) => self.object_range(r)?,
            Record::WriteByref(_) | Record::Begin(_) | Record::End(_) => {}
        }
        Ok(())
    }

    /// Moves the resume point, behind the blocks that still wait.
    fn reach(&mut self, point: Point) {
        if self.batch.is_empty() { self.point = point } else { self.batch_point = Some(point) }
    }

    /// Writes the waiting blocks if any belongs to `object`.
    fn settle(&mut self, io: &mut dyn BlockWriter, os: &mut Objset, object: u64) -> Result<()> {
        self.max_object = self.max_object.max(object);
        if self.batch_objects.contains(&object) {
            self.flush(io, os)?;
        }
        self.head = None;
        Ok(())
    }

    /// Writes all waiting blocks.
    pub fn flush(&mut self, io: &mut dyn BlockWriter, os: &mut Objset) -> Result<()> {
        self.head = None;
        self.batch_objects.clear();
        let bytes = std::mem::take(&mut self.batch_bytes) as u64;
        let batch = std::mem::take(&mut self.batch);
        if os.room_left() < bytes.saturating_mul(NEAR_THE_END) {
            // One by one, so that what fits is there when one does not.
            for (block, point) in batch {
                os.write_through_many(io, vec![block])?;
                self.point = point;
            }
        } else if !batch.is_empty() {
            os.write_through_many(io, batch.into_iter().map(|(block, _)| block).collect())?;
        }
        if let Some(point) = self.batch_point.take() {
            self.point = point;
        }
        Ok(())
    }

    /// A full stream received as a clone: what lies above its last object is not in it.
    pub fn free_the_rest(&mut self, io: &mut dyn BlockWriter, os: &mut Objset) -> Result<()> {
        self.flush(io, os)?;
        while let Some(obj) = os.next_object(io, ObjectId(self.max_object))? {
            os.free_object(io, obj)?;
        }
        Ok(())
    }

    // ---- objects ----

    fn object_range(&mut self, r: &ObjectRange) -> Result<()> {
        self.max_object = self.max_object.max(r.firstobj);
        let crypt = RawCrypt { salt: r.salt, iv: r.iv, mac: r.mac };
        let little_endian = self.little_endian(r.flags);
        if !little_endian {
            refuse(Rule::ForeignDnodes, "OBJECT_RANGE first object", r.firstobj, 0)?;
        }
        self.range = Some(Range { first: r.firstobj, crypt, little_endian, fresh: true });
        Ok(())
    }

    /// Byte order of a raw block: that of the stream, or the other one if so flagged.
    fn little_endian(&self, flags: u8) -> bool {
        (self.order == Order::Little) != (flags & record_flag::RAW_BYTESWAP != 0)
    }

    fn object(&mut self, io: &mut dyn BlockWriter, os: &mut Objset, o: &Object, bonus: &[u8]) -> Result<()> {
        let id = ObjectId(o.object);
        if self.rules.raw {
            let first = self.range.map_or(u64::MAX, |r| r.first);
            if o.object.checked_sub(first).is_none_or(|at| at >= SLOTS_PER_BLOCK) {
                refuse(Rule::OutsideRange, "OBJECT object", o.object, first)?;
            }
        }
        let existing = found(os.dnode(io, id))?;
        let plan = self.plan(o, existing.as_ref(), bonus)?;
        self.max_object = self.max_object.max(o.object);
        self.seen.large_dnode |= slots_of(o) > 1;
        self.seen.large_block |= u64::from(o.blksz) > icecore_format::units::OLD_MAX_BLOCK;
        self.head = None;

        match (&existing, plan.reclaim) {
            (Some(_), true) => os.free_object(io, id)?,
            (Some(_), false) if plan.free => os.free_range(io, id, 0, u64::MAX)?,
            (Some(_), false) if self.rules.raw => os.free_range(io, id, o.maxblkid + 1, u64::MAX)?,
            _ => {}
        }
        for slot in o.object + 1..o.object + slots_of(o) {
            if found(os.dnode(io, ObjectId(slot)))?.is_some() {
                os.free_object(io, ObjectId(slot))?;
            }
        }
        match existing {
            Some(dn) if !plan.reclaim => self.reshape(io, os, o, &dn, plan.blksz)?,
            _ => self.claim(io, os, o)?,
        }
        if let Some(range) = self.range.as_mut().filter(|r| r.fresh) {
            range.fresh = false;
            os.set_raw_dnode_block(range.first / SLOTS_PER_BLOCK, range.crypt, range.little_endian);
        }
        if self.rules.raw {
            os.set_shape(io, id, o.nlevels, o.maxblkid)?;
        }
        self.fill_head(io, os, o, bonus)
    }

    /// What must go before an object can take the shape of `o` (`receive_handle_existing_object`).
    fn plan(&self, o: &Object, existing: Option<&Dnode>, bonus: &[u8]) -> Result<Plan> {
        let blksz = u64::from(o.blksz);
        let Some(dn) = existing else { return Ok(Plan { free: false, reclaim: false, blksz }) };
        let mut plan = Plan { free: false, reclaim: false, blksz };
        let bonus_type = ObjectType(o.bonus_type as u8);
        let nblkptr = nblkptr_for(bonus_type, o.bonuslen.into(), slots_of(o));
        let other_slots = slots_of(o) != dn.slots() as u64;
        if blksz != dn.block_size() {
            let file = ObjectType::PLAIN_FILE_CONTENTS;
            let both_files = o.object_type == u32::from(file.0) && dn.kind() == file;
            if self.rules.raw || self.full || !both_files || dn.maxblkid() == 0 {
                plan.free = true;
            } else if self.same_generation(dn, bonus_type, bonus)? {
                // The stream was split before and is not any more: what it does not repeat must stay.
                if blksz <= dn.block_size() {
                    refuse(Rule::BlockSizeShrinks, "OBJECT block size", blksz, dn.block_size())?;
                }
                plan.blksz = dn.block_size();
            } else {
                plan.free = true;
            }
        }
        plan.free |= nblkptr < u64::from(dn.nblkptr()) || other_slots;
        plan.reclaim = other_slots;
        if self.rules.raw {
            let other_indirect = o.indblkshift != 0 && o.indblkshift != dn.indblkshift();
            let lower = o.nlevels < dn.nlevels();
            plan.free |= other_indirect || lower;
            plan.reclaim |= lower || (other_indirect && dn.nlevels() > 1);
        }
        Ok(plan)
    }

    fn same_generation(&self, dn: &Dnode, bonus_type: ObjectType, bonus: &[u8]) -> Result<bool> {
        let old = generation(dn.bonus_type(), dn.bonus(), Order::Little);
        let new = generation(bonus_type, bonus, self.order);
        match (old, new) {
            (Some(old), Some(new)) => Ok(old == new),
            _ => Ok(refuse(Rule::BonusPair, "OBJECT bonus type", bonus_type.0.into(), bonus.len() as u64)?),
        }
    }

    fn claim(&self, io: &mut dyn BlockWriter, os: &mut Objset, o: &Object) -> Result<()> {
        let raw = self.rules.raw;
        let new = NewObject {
            kind: ObjectType(o.object_type as u8),
            block_size: o.blksz.into(),
            indblkshift: if raw && o.indblkshift != 0 {
                o.indblkshift
            } else {
                icecore_dmu::objset::INDBLKSHIFT
            },
            nlevels: if raw { o.nlevels } else { 1 },
            nblkptr: if raw { o.nblkptr } else { 0 },
            bonus_type: ObjectType(o.bonus_type as u8),
            bonuslen: o.bonuslen as u16,
            slots: slots_of(o) as u8,
            checksum: Checksum(o.checksum_type),
            compress: Compress(o.compress),
        };
        match os.claim(io, ObjectId(o.object), &new) {
            Err(WriteError::Invalid(_)) => {
                Ok(refuse(Rule::SlotInUse, "OBJECT object", o.object, slots_of(o))?)
            }
            other => Ok(other?),
        }
    }

    /// Gives an object that stays its new type, sizes and bonus length.
    fn reshape(
        &self,
        io: &mut dyn BlockWriter,
        os: &mut Objset,
        o: &Object,
        was: &Dnode,
        blksz: u64,
    ) -> Result<()> {
        let id = ObjectId(o.object);
        let (kind, bonus_type) = (ObjectType(o.object_type as u8), ObjectType(o.bonus_type as u8));
        let changed = kind != was.kind()
            || blksz != was.block_size()
            || bonus_type != was.bonus_type()
            || o.bonuslen != u32::from(was.bonuslen());
        let keeps_spill = o.flags & record_flag::OBJECT_SPILL != 0;
        let remove_spill =
            if changed { !(self.rules.spill && keeps_spill) } else { self.rules.spill && !keeps_spill };
        if remove_spill && was.has_spill() {
            os.remove_spill(io, id)?;
        }
        let ibs = if self.rules.raw && o.indblkshift != 0 { o.indblkshift } else { was.indblkshift() };
        os.set_block_size(io, id, blksz, ibs)?;
        let nblkptr = nblkptr_for(bonus_type, o.bonuslen.into(), slots_of(o)) as u8;
        let dn = os.edit(io, id)?;
        dn.set_kind(kind);
        dn.set_bonus_type(bonus_type);
        dn.set_bonuslen(o.bonuslen as u16);
        dn.set_nblkptr(nblkptr);
        for i in was.nblkptr()..nblkptr {
            dn.set_blkptr(i.into(), &Blkptr::default());
        }
        if usize::from(dn.bonuslen()) > dn.max_bonuslen() {
            // Only a kept spill pointer can take the room away.
            refuse(Rule::AboveMaximum, "OBJECT bonus length", o.bonuslen.into(), dn.max_bonuslen() as u64)?;
        }
        Ok(())
    }

    /// Checksum and compression settings and the bonus, as the record has them.
    fn fill_head(&self, io: &dyn BlockStore, os: &mut Objset, o: &Object, bonus: &[u8]) -> Result<()> {
        let dn = os.edit(io, ObjectId(o.object))?;
        dn.set_checksum(Checksum(o.checksum_type));
        dn.set_compress(Compress(o.compress));
        let len = if self.rules.raw { o.raw_bonuslen } else { o.bonuslen };
        let mut bytes = bonus.get(..len as usize).unwrap_or(bonus).to_vec();
        if self.order == Order::Big && !self.rules.raw {
            swap_block(dn.bonus_type().bswap(), &mut bytes);
        }
        let area = dn.bonus_area_mut();
        area.fill(0);
        let n = bytes.len().min(area.len());
        if let (Some(to), Some(from)) = (area.get_mut(..n), bytes.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(())
    }

    fn free_objects(&mut self, io: &mut dyn BlockWriter, os: &mut Objset, r: &FreeObjects) -> Result<()> {
        let end = r.firstobj.saturating_add(r.numobjs);
        let mut after = ObjectId(r.firstobj.saturating_sub(1));
        while let Some(obj) = os.next_object(io, after)? {
            if obj.0 >= end {
                break;
            }
            os.free_object(io, obj)?;
            after = obj;
        }
        Ok(())
    }

    // ---- data ----

    fn head(&mut self, io: &dyn BlockStore, os: &Objset, field: &'static str, object: u64) -> Result<Head> {
        if let Some(head) = self.head.filter(|h| h.object == object) {
            return Ok(head);
        }
        let Some(dn) = found(os.dnode(io, ObjectId(object)))? else {
            return Ok(refuse(Rule::NoObject, field, object, 0)?);
        };
        let head = Head {
            object,
            kind: dn.kind(),
            compress: dn.compress(),
            blksz: dn.block_size(),
            maxblkid: dn.maxblkid(),
        };
        self.head = Some(head);
        Ok(head)
    }

    fn write(
        &mut self,
        io: &mut dyn BlockWriter,
        os: &mut Objset,
        w: &Write,
        (payload, sum): (Vec<u8>, Option<Fletcher4>),
        point: Point,
    ) -> Result<()> {
        if (w.object, w.offset) < self.last_write {
            let field = if w.object < self.last_write.0 { "WRITE object" } else { "WRITE offset" };
            let (value, limit) = if w.object < self.last_write.0 {
                (w.object, self.last_write.0)
            } else {
                (w.offset, self.last_write.1)
            };
            refuse(Rule::OutOfOrder, field, value, limit)?;
        }
        let head = self.head(io, os, "WRITE object", w.object)?;
        self.check_place(&head, "WRITE offset", w.offset, w.logical_size)?;
        self.last_write = (w.object, w.offset);
        self.max_object = self.max_object.max(w.object);
        self.seen.zstd |= Compress(w.compression_type) == Compress::ZSTD;
        self.written += payload.len() as u64;
        let whole = w.logical_size == head.blksz && w.offset.is_multiple_of(head.blksz);
        if !whole {
            let data = self.contents(&head, w.compression_type, payload, w.logical_size, "WRITE payload")?;
            self.settle(io, os, w.object)?;
            os.write(io, ObjectId(w.object), w.offset, &data)?;
            self.reach(point);
            return Ok(());
        }
        let (data, form) = self.form(os, &head, w, payload, sum)?;
        self.batch_bytes += data.len();
        self.batch.push(((ObjectId(w.object), w.offset / head.blksz, data, form), point));
        self.batch_objects.insert(w.object);
        self.batch_point = Some(point);
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_BLOCKS {
            self.flush(io, os)?;
        }
        Ok(())
    }

    /// Whether data may go to `offset`: a raw block is one of its object's, and objects with blocks of
    /// an odd size have one only.
    fn check_place(&self, head: &Head, field: &'static str, offset: u64, size: u64) -> Result<()> {
        if self.rules.raw {
            if size != head.blksz || !offset.is_multiple_of(head.blksz) {
                refuse(Rule::NotOneBlock, field, offset, head.blksz)?;
            }
            if offset / head.blksz > head.maxblkid {
                refuse(Rule::BeyondLastBlock, field, offset, head.maxblkid)?;
            }
        }
        if !head.blksz.is_power_of_two() && offset.saturating_add(size) > head.blksz {
            refuse(Rule::NotPowerOfTwo, field, head.blksz, 0)?;
        }
        Ok(())
    }

    /// How a whole block is written.
    fn form(
        &self,
        os: &Objset,
        head: &Head,
        w: &Write,
        payload: Vec<u8>,
        sum: Option<Fletcher4>,
    ) -> Result<(Vec<u8>, Form)> {
        let compress = Compress(w.compression_type);
        if self.rules.raw {
            let crypt = RawCrypt { salt: w.salt, iv: w.iv, mac: w.mac };
            let little_endian = self.little_endian(w.flags);
            return Ok((payload, Form::Stored { compress, little_endian, crypt: Some(crypt), sum }));
        }
        let policy = os.policy();
        let swap = self.order == Order::Big && head.kind.bswap() != icecore_format::object_type::Bswap::U8;
        if w.compression_type != 0 && !policy.encrypted && !swap {
            return Ok((payload, Form::Stored { compress, little_endian: true, crypt: None, sum }));
        }
        let data = self.contents(head, w.compression_type, payload, w.logical_size, "WRITE payload")?;
        let own = match head.compress {
            _ if head.kind.is_metadata() => policy.meta_compress,
            Compress::INHERIT => policy.compress,
            Compress::ON => policy.meta_compress,
            c => c,
        };
        Ok((data, Form::Logical { compress: own, level: policy.level, encrypt: policy.encrypted }))
    }

    /// The payload decompressed and in our byte order.
    fn contents(
        &self,
        head: &Head,
        compression: u8,
        payload: Vec<u8>,
        size: u64,
        field: &'static str,
    ) -> Result<Vec<u8>> {
        let wrong = Refusal { rule: Rule::Payload, field, value: payload.len() as u64, limit: size };
        let mut data = match Compress(compression) {
            Compress::INHERIT | Compress::OFF => payload,
            c => decompress(c, &payload, size as usize).map_err(|_| wrong)?,
        };
        if data.len() as u64 != size {
            return Err(wrong.into());
        }
        if self.order == Order::Big {
            swap_block(head.kind.bswap(), &mut data);
        }
        Ok(data)
    }

    fn embedded(
        &mut self,
        io: &mut dyn BlockWriter,
        os: &mut Objset,
        w: &WriteEmbedded,
        payload: &[u8],
    ) -> Result<()> {
        let head = self.head(io, os, "WRITE_EMBEDDED object", w.object)?;
        self.check_place(&head, "WRITE_EMBEDDED offset", w.offset, w.length)?;
        self.seen.zstd |= Compress(w.compression) == Compress::ZSTD;
        let payload = payload.get(..w.psize as usize).unwrap_or(payload);
        let (id, lsize) = (ObjectId(w.object), u64::from(w.lsize));
        let whole = w.length == head.blksz && lsize == head.blksz && w.offset.is_multiple_of(head.blksz);
        let pointer = Blkptr::embed(payload, lsize, Compress(w.compression), head.kind, 0, io.txg());
        match pointer {
            Some(mut bp) if whole && !os.policy().encrypted => {
                bp.set_little_endian(self.order == Order::Little);
                os.write_pointer(io, id, w.offset / head.blksz, &bp)?;
            }
            _ => {
                let field = "WRITE_EMBEDDED payload";
                let mut data = self.contents(&head, w.compression, payload.to_vec(), lsize, field)?;
                data.resize(w.length as usize, 0);
                os.write(io, id, w.offset, &data)?;
            }
        }
        self.head = None;
        Ok(())
    }

    fn spill(
        &mut self,
        io: &mut dyn BlockWriter,
        os: &mut Objset,
        s: &Spill,
        mut payload: Vec<u8>,
    ) -> Result<()> {
        let id = ObjectId(s.object);
        let Some(dn) = found(os.dnode(io, id))? else {
            return Ok(refuse(Rule::NoObject, "SPILL object", s.object, 0)?);
        };
        if self.rules.spill && s.flags & record_flag::SPILL_UNMODIFIED != 0 && dn.has_spill() {
            return Ok(()); // sent for receivers that would have dropped the one they have
        }
        let sa = ObjectType::SA;
        if dn.bonus_type() != sa {
            refuse(Rule::NotEqual, "SPILL object's bonus type", dn.bonus_type().0.into(), sa.0.into())?;
        }
        let room = dn.bonus_area().len().saturating_sub(if dn.has_spill() { 0 } else { 128 });
        if usize::from(dn.bonuslen()) > room {
            refuse(Rule::AboveMaximum, "SPILL object's bonus length", dn.bonuslen().into(), room as u64)?;
        }
        let compress = Compress(s.compression_type);
        let form = if self.rules.raw {
            self.seen.zstd |= compress == Compress::ZSTD;
            let crypt = RawCrypt { salt: s.salt, iv: s.iv, mac: s.mac };
            Form::Stored {
                compress,
                little_endian: self.little_endian(s.flags),
                crypt: Some(crypt),
                sum: None,
            }
        } else {
            if self.order == Order::Big {
                swap_block(dn.bonus_type().bswap(), &mut payload);
            }
            let policy = os.policy();
            Form::Logical { compress: policy.meta_compress, level: 0, encrypt: policy.encrypted }
        };
        self.written += payload.len() as u64;
        Ok(os.write_spill(io, id, s.length, payload, form)?)
    }

    fn free(
        &mut self,
        io: &mut dyn BlockWriter,
        os: &mut Objset,
        object: u64,
        offset: u64,
        length: u64,
    ) -> Result<()> {
        let head = self.head(io, os, "FREE object", object)?;
        let (id, blksz) = (ObjectId(object), head.blksz);
        let size = head.maxblkid.saturating_add(1).saturating_mul(blksz);
        let end = if length == u64::MAX { u64::MAX } else { offset.saturating_add(length) };
        self.head = None;
        if offset >= size || length == 0 {
            return Ok(());
        }
        let first = offset.div_ceil(blksz);
        let last = if end >= size { u64::MAX } else { end / blksz };
        let aligned = offset.is_multiple_of(blksz) && (last == u64::MAX || end.is_multiple_of(blksz));
        if self.rules.raw && !aligned {
            refuse(Rule::NotOneBlock, "FREE offset", offset, blksz)?;
        }
        if !offset.is_multiple_of(blksz) {
            self.zero(io, os, id, offset, end.min(first * blksz))?;
        }
        if last != u64::MAX && !end.is_multiple_of(blksz) && last >= first {
            self.zero(io, os, id, last * blksz, end)?;
        }
        if last > first {
            os.free_range(io, id, first, last - first)?;
        }
        Ok(())
    }

    /// Zeros part of a block, if there is one.
    fn zero(
        &self,
        io: &mut dyn BlockWriter,
        os: &mut Objset,
        id: ObjectId,
        from: u64,
        to: u64,
    ) -> Result<()> {
        let dn = os.dnode(io, id)?;
        if os.block(io, id, &dn, from / dn.block_size())?.is_some() {
            os.write(io, id, from, &vec![0; to.saturating_sub(from) as usize])?;
        }
        Ok(())
    }
}

/// What happens to an object before it takes its new shape.
#[derive(Clone, Copy)]
struct Plan {
    /// Its blocks are freed.
    free: bool,
    /// It is freed as a whole and claimed anew.
    reclaim: bool,
    /// The block size it gets.
    blksz: u64,
}

fn found(dn: std::result::Result<Dnode, ReadError>) -> Result<Option<Dnode>> {
    match dn {
        Ok(dn) => Ok(Some(dn)),
        Err(ReadError::NoObject(_)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The ZPL's generation number of a file, from its bonus (`zpl_get_file_info`): it tells a file from
/// another one that has got its number.
fn generation(kind: ObjectType, bonus: &[u8], order: Order) -> Option<u64> {
    /// `SA_MAGIC`, sa_impl.h.
    const SA_MAGIC: u32 = 0x2F_505A;
    let word = |at: usize, big: bool| {
        let b: [u8; 8] = bonus.get(at..at.checked_add(8)?)?.try_into().ok()?;
        Some(if big { u64::from_be_bytes(b) } else { u64::from_le_bytes(b) })
    };
    match kind {
        ObjectType::ZNODE => word(64, order == Order::Big),
        ObjectType::SA => {
            let magic: [u8; 4] = bonus.get(..4)?.try_into().ok()?;
            let info: [u8; 2] = bonus.get(4..6)?.try_into().ok()?;
            let big = match magic {
                m if u32::from_le_bytes(m) == SA_MAGIC => false,
                m if u32::from_be_bytes(m) == SA_MAGIC => true,
                [0, 0, 0, 0] => return Some(0), // a file just made, not yet filled in
                _ => return None,
            };
            let info = if big { u16::from_be_bytes(info) } else { u16::from_le_bytes(info) };
            // Header length in units of 8 bytes is in the upper bits; the generation is the third word.
            word(usize::from(info >> 10) * 8 + 16, big)
        }
        _ => None,
    }
}
