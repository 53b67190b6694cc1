//! Turns ranges into records, byte for byte as OpenZFS does (`do_dump` and the `dump_*` of dmu_send.c).
//!
//! Invariants:
//! 1. At most one record waits: a FREE, FREEOBJECTS or REDACT that the next range may make longer.
//!    Everything else pushes it out first.
//! 2. WRITE records come with growing (object, offset), each block once.
//! 3. What is written has been verified: the payload is what the store returned for its pointer.

use super::SendError;
use icecore_dmu::Fetch;
use icecore_format::fletcher::HashFn;
use icecore_format::stream::{
    Free, FreeObjects, Object, ObjectRange, Record, Redact, Spill, StreamWriter, Write as WriteRecord,
    WriteEmbedded, feature, record_flag,
};
use icecore_format::units::OLD_MAX_BLOCK;
use icecore_format::{Blkptr, Checksum, Compress, Dnode, ObjectType, Txg};
use std::io::Write;

/// To the end of the object (`DMU_OBJECT_END`).
const OBJECT_END: u64 = u64::MAX;

/// Writes the records of one stream.
pub(crate) struct Records<'a, W> {
    out: &'a mut StreamWriter<W>,
    hash: HashFn,
    pending: Option<Record>,
    /// Guid in every record.
    toguid: u64,
    /// What is older need not be told again; an old spill block is told with a flag.
    since: Txg,
    features: u64,
    /// Objects the metadnode has room for; 0 does not bound.
    objects_max: u64,
}

/// One block's place, as a WRITE record tells it.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) object: u64,
    pub(crate) blkid: u64,
    pub(crate) kind: ObjectType,
    pub(crate) block_size: u64,
}

impl<'a, W: Write> Records<'a, W> {
    pub(crate) fn new(
        out: &'a mut StreamWriter<W>,
        hash: HashFn,
        toguid: u64,
        since: Txg,
        features: u64,
        objects_max: u64,
    ) -> Self {
        Self { out, hash, pending: None, toguid, since, features, objects_max }
    }
    pub(crate) fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }
    pub(crate) fn since(&self) -> Txg {
        self.since
    }
    pub(crate) fn offset(&self) -> u64 {
        self.out.offset()
    }

    /// Pushes out what waits.
    pub(crate) fn flush(&mut self) -> Result<(), SendError> {
        if let Some(record) = self.pending.take() {
            self.out.write(&record, &[])?;
        }
        Ok(())
    }
    fn put(&mut self, record: &Record, payload: &[u8]) -> Result<(), SendError> {
        self.flush()?;
        Ok(self.out.write(record, payload)?)
    }

    /// Salt, IV and MAC of the dnodes that follow; nothing in streams that are not raw.
    pub(crate) fn object_range(
        &mut self,
        firstobj: u64,
        numslots: u64,
        bp: &Blkptr,
    ) -> Result<(), SendError> {
        if !self.has(feature::RAW) {
            return Ok(());
        }
        let record = ObjectRange {
            firstobj,
            numslots,
            toguid: self.toguid,
            salt: bp.salt(),
            iv: bp.iv(),
            mac: bp.mac(),
            flags: byteswap_flag(bp),
            ..ObjectRange::default()
        };
        self.put(&record.into(), &[])
    }

    /// An object's head, with a FREE of all past its end; a free slot is FREEOBJECTS.
    pub(crate) fn dnode(&mut self, object: u64, dn: &Dnode, block: &Blkptr) -> Result<(), SendError> {
        if dn.is_free() {
            return self.free_objects(object, 1);
        }
        let mut record = Object {
            object,
            object_type: u32::from(dn.kind().0),
            bonus_type: u32::from(dn.bonus_type().0),
            blksz: u32::try_from(dn.block_size()).unwrap_or(u32::MAX),
            bonuslen: u32::from(dn.bonuslen()),
            checksum_type: dn.checksum().0,
            compress: dn.compress().0,
            dn_slots: dn.extra_slots().saturating_add(1),
            toguid: self.toguid,
            ..Object::default()
        };
        if !self.has(feature::LARGE_BLOCKS) {
            record.blksz = record.blksz.min(u32::try_from(OLD_MAX_BLOCK).unwrap_or(u32::MAX));
        }
        if dn.has_spill() {
            record.flags |= record_flag::OBJECT_SPILL;
        }
        let bonus = if self.has(feature::RAW) {
            record.flags |= byteswap_flag(block);
            record.maxblkid = dn.maxblkid();
            record.indblkshift = dn.indblkshift();
            record.nlevels = dn.nlevels();
            record.nblkptr = dn.nblkptr();
            // The cipher covers the whole area, so all of it goes, used or not.
            let area = if record.bonuslen == 0 { &[] } else { dn.bonus_area() };
            record.raw_bonuslen = u32::try_from(area.len()).unwrap_or(u32::MAX);
            area
        } else {
            let padded = usize::from(dn.bonuslen()).next_multiple_of(8);
            // The area may end before the next multiple of 8 only if the length itself is odd to begin with.
            dn.bonus_area().get(..padded).ok_or_else(|| {
                SendError::from(icecore_format::Corrupt::new(
                    "bonus",
                    format!("{padded} bytes in object {object}"),
                ))
            })?
        };
        self.put(&record.into(), bonus)?;
        let end = dn.maxblkid().wrapping_add(1).wrapping_mul(dn.block_size());
        self.free(object, end, OBJECT_END)
    }

    /// A range of an object without contents.
    pub(crate) fn free(&mut self, object: u64, offset: u64, length: u64) -> Result<(), SendError> {
        let to_end = offset.checked_add(length).is_none();
        if let Some(Record::Free(last)) = &mut self.pending
            && last.object == object
            && last.offset.wrapping_add(last.length) == offset
        {
            last.length =
                if to_end || length == OBJECT_END { OBJECT_END } else { last.length.wrapping_add(length) };
            return Ok(());
        }
        self.flush()?;
        let length = if to_end { OBJECT_END } else { length };
        let record = Free { object, offset, length, toguid: self.toguid }.into();
        if length == OBJECT_END { self.put(&record, &[]) } else { self.wait(record) }
    }

    /// A range left out by redaction.
    pub(crate) fn redact(&mut self, object: u64, offset: u64, length: u64) -> Result<(), SendError> {
        if let Some(Record::Redact(last)) = &mut self.pending
            && last.object == object
            && last.offset.wrapping_add(last.length) == offset
        {
            last.length = last.length.wrapping_add(length);
            return Ok(());
        }
        self.flush()?;
        self.wait(Redact { object, offset, length, toguid: self.toguid }.into())
    }

    /// Free objects, but for numbers the sender's metadnode has no room for: some receivers of old never
    /// came to an end over those.
    pub(crate) fn free_objects(&mut self, first: u64, count: u64) -> Result<(), SendError> {
        let mut count = count;
        if self.objects_max > 0 {
            if self.objects_max <= first {
                return Ok(());
            }
            if self.objects_max < first.wrapping_add(count) {
                count = self.objects_max.saturating_sub(first);
            }
        }
        if let Some(Record::FreeObjects(last)) = &mut self.pending
            && last.firstobj.wrapping_add(last.numobjs) == first
        {
            last.numobjs = last.numobjs.wrapping_add(count);
            return Ok(());
        }
        self.flush()?;
        self.wait(FreeObjects { firstobj: first, numobjs: count, toguid: self.toguid }.into())
    }
    fn wait(&mut self, record: Record) -> Result<(), SendError> {
        self.pending = Some(record);
        Ok(())
    }

    /// Blocks `start..end` of an object without contents; of the metadnode, its objects.
    pub(crate) fn hole(
        &mut self,
        object: u64,
        start: u64,
        end: u64,
        block_size: u64,
    ) -> Result<(), SendError> {
        if object == 0 {
            let span = block_size / 512;
            let first = start.wrapping_mul(span);
            return self.free_objects(first, end.wrapping_mul(span).wrapping_sub(first));
        }
        let Some(offset) = start.checked_mul(block_size) else { return Ok(()) };
        let end = end.saturating_mul(block_size);
        self.free(object, offset, end.wrapping_sub(offset))
    }

    /// A spill block. `payload` is as stored in raw streams, else logical.
    pub(crate) fn spill(&mut self, object: u64, bp: &Blkptr, payload: &[u8]) -> Result<(), SendError> {
        let mut record = Spill { object, length: bp.lsize(), toguid: self.toguid, ..Spill::default() };
        if bp.birth() <= self.since {
            record.flags |= record_flag::SPILL_UNMODIFIED;
        }
        if self.has(feature::RAW) {
            record.flags |= byteswap_flag(bp);
            record.compression_type = bp.compress().0;
            record.compressed_size = bp.psize();
            (record.salt, record.iv, record.mac) = (bp.salt(), bp.iv(), bp.mac());
        }
        self.put(&record.into(), payload)
    }

    /// A block that lives in its pointer.
    pub(crate) fn embedded(&mut self, place: Place, bp: &Blkptr) -> Result<(), SendError> {
        let record = WriteEmbedded {
            object: place.object,
            offset: place.blkid.wrapping_mul(place.block_size),
            length: place.block_size,
            toguid: self.toguid,
            compression: bp.compress().0,
            etype: bp.embedded_type(),
            lsize: u32::try_from(bp.lsize()).unwrap_or(u32::MAX),
            psize: u32::try_from(bp.embedded_psize()).unwrap_or(u32::MAX),
            ..WriteEmbedded::default()
        };
        let mut payload = bp.embedded_payload();
        payload.resize(payload.len().next_multiple_of(8), 0);
        self.put(&record.into(), &payload)
    }

    /// A block of data; `stored` says that its bytes are as on disk.
    pub(crate) fn write(&mut self, place: Place, block: &Fetch, stored: bool) -> Result<(), SendError> {
        let (bp, payload) = (&block.bp, block.bytes.as_slice());
        let offset = place.blkid.wrapping_mul(place.block_size);
        if place.block_size > OLD_MAX_BLOCK && !self.has(feature::LARGE_BLOCKS) {
            let step = usize::try_from(OLD_MAX_BLOCK).unwrap_or(usize::MAX);
            for (i, part) in (0_u64..).zip(payload.chunks(step)) {
                let offset = offset.wrapping_add(i.wrapping_mul(OLD_MAX_BLOCK));
                let record = self.write_record(place, offset, part.len() as u64);
                self.put(&Record::from(WriteRecord { checksum_type: Checksum::OFF.0, ..record }), part)?;
            }
            return Ok(());
        }
        let mut record = self.write_record(place, offset, place.block_size);
        let raw = self.has(feature::RAW);
        if raw {
            record.flags |= byteswap_flag(bp);
            (record.salt, record.iv, record.mac) = (bp.salt(), bp.iv(), bp.mac());
        }
        if raw || (stored && bp.compress() != Compress::OFF) {
            record.compression_type = bp.compress().0;
            record.compressed_size = bp.psize();
        }
        if bp.is_embedded() || (is_protected(bp) && !raw) {
            record.checksum_type = Checksum::OFF.0;
        } else {
            record.checksum_type = bp.checksum().0;
            if fits_dedup(bp.checksum()) {
                record.flags |= record_flag::CHECKSUM_DEDUP;
            }
            record.key_cksum = bp.cksum();
            record.key_prop = key_prop(bp);
        }
        let sum = block.sum.unwrap_or_else(|| (self.hash)(payload));
        self.flush()?;
        Ok(self.out.write_summed(&record.into(), payload, sum)?)
    }
    fn write_record(&self, place: Place, offset: u64, logical_size: u64) -> WriteRecord {
        WriteRecord {
            object: place.object,
            object_type: u32::from(place.kind.0),
            offset,
            logical_size,
            toguid: self.toguid,
            ..WriteRecord::default()
        }
    }
}

fn byteswap_flag(bp: &Blkptr) -> u8 {
    if bp.is_little_endian() { 0 } else { record_flag::RAW_BYTESWAP }
}

/// Ciphertext or plain text with a MAC (`BP_IS_PROTECTED`).
fn is_protected(bp: &Blkptr) -> bool {
    bp.is_encrypted() || bp.is_authenticated()
}

/// The checksums good enough to deduplicate by (`ZCHECKSUM_FLAG_DEDUP`, zio_checksum.c).
fn fits_dedup(c: Checksum) -> bool {
    matches!(c, Checksum::SHA256 | Checksum::SHA512 | Checksum::SKEIN | Checksum::BLAKE3)
}

/// Sizes, compression and crypt bit as a dedup key has them (`DDK_SET_*`, ddt.h).
fn key_prop(bp: &Blkptr) -> u64 {
    bp.lsize_bits()
        | (bp.psize_bits() << 16)
        | (u64::from(bp.compress().0) << 32)
        | (u64::from(is_protected(bp)) << 39)
}
