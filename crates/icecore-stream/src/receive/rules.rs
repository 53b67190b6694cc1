//! What a record of a stream may say: pure checks, made before a byte of it reaches the pool.
//!
//! Facts: the `recv_check_drr_*` functions and `deduce_nblkptr` of dmu_recv.c. Rules of our own, stricter
//! than OpenZFS, are marked "ours".
//!
//! Invariants:
//! 1. No check reads anything but the record, the stream's BEGIN and the pool's limits.
//! 2. A record that passes has no sum that overflows, no size above the pool's limits, and no field set
//!    that its kind of stream does not have.
//! 3. Every refusal says which field, what it holds, and what the limit is.

use icecore_format::dnode::{CORE, MAX_LEVELS, MAX_OBJECT, SLOT, SLOTS_PER_BLOCK};
use icecore_format::stream::{
    Begin, Free, FreeObjects, Object, ObjectRange, Record, Spill, Write, WriteEmbedded, begin_flag, feature,
    object_type, record_flag,
};
use icecore_format::units::{MIN_BLOCK, OLD_MAX_BLOCK};
use icecore_format::{Compress, ObjectType};
use std::fmt;

/// Bytes of a block pointer.
const BLKPTR: u64 = 128;
/// Bytes an embedded pointer holds.
const EMBEDDED_MAX: u64 = 112;
/// Checksum algorithms OpenZFS knows (`ZIO_CHECKSUM_FUNCTIONS`).
const CHECKSUMS: u64 = 15;
/// Compression algorithms OpenZFS knows (`ZIO_COMPRESS_FUNCTIONS`).
const COMPRESSIONS: u64 = 17;

/// What the pool can take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest block in bytes (`spa_maxblocksize`).
    pub block_max: u64,
    /// Largest dnode in bytes (`spa_maxdnodesize`).
    pub dnode_max: u64,
}

/// Which rule a field breaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Rule {
    /// An object number is 0 or 2^48 and more.
    ObjectNumber,
    /// The type of an object is 0.
    TypeNone,
    /// A number that no object type has.
    TypeInvalid,
    /// Bonus type and bonus length contradict each other.
    BonusPair,
    /// The feature with this bit is not among the stream's.
    NeedsFeature,
    /// No such checksum algorithm.
    ChecksumInvalid,
    /// No such compression algorithm.
    CompressInvalid,
    /// Not a multiple of the limit.
    NotMultiple,
    /// Less than the limit.
    BelowMinimum,
    /// More than the limit.
    AboveMaximum,
    /// The sum of start and length passes 2^64, or the last object passes 2^48.
    Overflow,
    /// Flag bits that the record cannot have.
    FlagsInvalid,
    /// A spill flag in a stream whose BEGIN does not have its own.
    SpillFlagWithoutBegin,
    /// Set, though streams of this kind do not have the field.
    MustBeZero,
    /// Zero, though streams of this kind need the field.
    MustNotBeZero,
    /// The record belongs to raw streams only.
    RawOnly,
    /// The record belongs to streams that are not raw only.
    NonRawOnly,
    /// Not the number of block pointers that the bonus leaves room for.
    NblkptrMismatch,
    /// Not equal to the limit.
    NotEqual,
    /// The last block lies beyond what the tree's height can hold (ours).
    TreeTooLow,
    /// Several blocks of a size that is no power of two (ours).
    NotPowerOfTwo,
    /// The snapshot guid differs from the records before (ours).
    ToGuid,
    /// Deduplicated streams are no longer accepted.
    Byref,
    /// A raw object without the OBJECT_RANGE it lies in.
    OutsideRange,
    /// Objects and offsets go backwards.
    OutOfOrder,
    /// No such object.
    NoObject,
    /// A raw block that is not one whole block of its object (ours).
    NotOneBlock,
    /// A raw block after its object's last (ours).
    BeyondLastBlock,
    /// The block size of a file shrinks, though it is the same file.
    BlockSizeShrinks,
    /// A block of dnodes in the other byte order, which we cannot take yet (ours).
    ForeignDnodes,
    /// A slot of the object belongs to another object.
    SlotInUse,
    /// The payload does not decompress to its logical size.
    Payload,
    /// The record has no business inside a stream.
    Unexpected,
}

impl Rule {
    /// All of them, for tests.
    pub const ALL: &'static [Self] = &[
        Self::ObjectNumber,
        Self::TypeNone,
        Self::TypeInvalid,
        Self::BonusPair,
        Self::NeedsFeature,
        Self::ChecksumInvalid,
        Self::CompressInvalid,
        Self::NotMultiple,
        Self::BelowMinimum,
        Self::AboveMaximum,
        Self::Overflow,
        Self::FlagsInvalid,
        Self::SpillFlagWithoutBegin,
        Self::MustBeZero,
        Self::MustNotBeZero,
        Self::RawOnly,
        Self::NonRawOnly,
        Self::NblkptrMismatch,
        Self::NotEqual,
        Self::TreeTooLow,
        Self::NotPowerOfTwo,
        Self::ToGuid,
        Self::Byref,
        Self::OutsideRange,
        Self::OutOfOrder,
        Self::NoObject,
        Self::NotOneBlock,
        Self::BeyondLastBlock,
        Self::BlockSizeShrinks,
        Self::ForeignDnodes,
        Self::SlotInUse,
        Self::Payload,
        Self::Unexpected,
    ];
}

/// A field that breaks a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The rule.
    pub rule: Rule,
    /// The record and field.
    pub field: &'static str,
    /// What it holds.
    pub value: u64,
    /// What it is measured by: a bound, a mask, a feature bit, the value expected.
    pub limit: u64,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, field, value, limit } = self;
        match rule {
            Rule::ObjectNumber => write!(f, "{field} {value} outside the valid range 1-{}", limit - 1),
            Rule::TypeNone => write!(f, "{field} is none"),
            Rule::TypeInvalid => write!(f, "{field} {value} is no object type"),
            Rule::BonusPair => write!(f, "{field} {value} contradicts the bonus length {limit}"),
            Rule::NeedsFeature => {
                write!(f, "{field} {value} requires stream feature bit {}", limit.trailing_zeros())
            }
            Rule::ChecksumInvalid => write!(f, "{field} {value} is no checksum algorithm"),
            Rule::CompressInvalid => write!(f, "{field} {value} is no compression algorithm"),
            Rule::NotMultiple => write!(f, "{field} {value} is not a multiple of {limit}"),
            Rule::BelowMinimum => write!(f, "{field} {value} below the minimum {limit}"),
            Rule::AboveMaximum => write!(f, "{field} {value} exceeds the maximum {limit}"),
            Rule::Overflow => write!(f, "{field} {value} + {limit} overflows"),
            Rule::FlagsInvalid => write!(f, "{field} {value:#x} has bits outside {limit:#x}"),
            Rule::SpillFlagWithoutBegin => write!(f, "{field} set, but the stream's BEGIN has no spill flag"),
            Rule::MustBeZero => write!(f, "{field} {value} must be zero here"),
            Rule::MustNotBeZero => write!(f, "{field} must not be zero here"),
            Rule::RawOnly => write!(f, "{field} is only valid in raw streams"),
            Rule::NonRawOnly => write!(f, "{field} is invalid in raw streams"),
            Rule::NblkptrMismatch => write!(f, "{field} {value}, but the bonus leaves room for {limit}"),
            Rule::NotEqual => write!(f, "{field} {value} must be {limit}"),
            Rule::TreeTooLow => write!(f, "{field} {value} lies beyond the {limit} blocks its tree can hold"),
            Rule::NotPowerOfTwo => write!(f, "{field} {value} is no power of two, so one block is all"),
            Rule::ToGuid => write!(f, "{field} {value:#x}, but {limit:#x} in the records before"),
            Rule::Byref => write!(f, "{field}: deduplicated streams are not accepted"),
            Rule::OutsideRange => write!(f, "{field} {value} lies outside the last OBJECT_RANGE ({limit})"),
            Rule::OutOfOrder => write!(f, "{field} {value} comes after {limit}"),
            Rule::NoObject => write!(f, "{field} {value} does not exist"),
            Rule::NotOneBlock => write!(f, "{field} {value} is not one whole block of {limit} bytes"),
            Rule::BeyondLastBlock => write!(f, "{field} {value} lies after the object's last block {limit}"),
            Rule::BlockSizeShrinks => write!(f, "{field} {value} is less than the {limit} the file has"),
            Rule::ForeignDnodes => write!(f, "{field} {value}: dnodes in big-endian order"),
            Rule::SlotInUse => write!(f, "{field} {value}: one of its {limit} slots is in use"),
            Rule::Payload => write!(f, "{field}: the payload does not decompress to {limit} bytes"),
            Rule::Unexpected => write!(f, "{field} out of place"),
        }
    }
}
impl std::error::Error for Refusal {}

/// `Err` with the parts of a refusal.
pub(crate) fn refuse<T>(rule: Rule, field: &'static str, value: u64, limit: u64) -> Result<T, Refusal> {
    Err(Refusal { rule, field, value, limit })
}

fn ensure(ok: bool, rule: Rule, field: &'static str, value: u64, limit: u64) -> Result<(), Refusal> {
    if ok { Ok(()) } else { refuse(rule, field, value, limit) }
}

/// Block pointers an object's dnode has for its bonus (`deduce_nblkptr`).
#[must_use]
pub fn nblkptr_for(bonus_type: ObjectType, bonuslen: u64, slots: u64) -> u64 {
    if bonus_type == ObjectType::SA {
        return 1;
    }
    let tail = bonus_capacity(slots);
    1 + (tail.saturating_sub(bonuslen) / BLKPTR).min(2)
}

/// Bonus bytes of a dnode with one block pointer (`DN_SLOTS_TO_BONUSLEN`).
fn bonus_capacity(slots: u64) -> u64 {
    (slots * SLOT as u64).saturating_sub(CORE as u64 + BLKPTR)
}

/// Blocks a tree of this shape can hold.
#[must_use]
pub fn tree_capacity(nblkptr: u64, indblkshift: u64, nlevels: u64) -> u64 {
    let shift = indblkshift.saturating_sub(7).saturating_mul(nlevels.saturating_sub(1));
    if shift >= 62 { u64::MAX } else { nblkptr << shift }
}

/// Slots of an OBJECT record: senders from before large dnodes leave 0.
#[must_use]
pub fn slots_of(o: &Object) -> u64 {
    u64::from(o.dn_slots.max(1))
}

/// The checks of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Payloads are as on disk of the sender.
    pub raw: bool,
    /// Spill flags mean something.
    pub spill: bool,
    /// Feature flags of BEGIN.
    pub features: u64,
    /// What the pool can take.
    pub limits: Limits,
    toguid: Option<u64>,
}

impl Rules {
    /// The rules for the stream that `begin` opens.
    #[must_use]
    pub fn new(begin: &Begin, limits: Limits) -> Self {
        Self {
            raw: begin.has(feature::RAW),
            spill: begin.flags & begin_flag::SPILL_BLOCK != 0,
            features: begin.features(),
            limits,
            toguid: None,
        }
    }

    fn has(&self, bit: u64) -> bool {
        self.features & bit != 0
    }

    /// Checks one record between BEGIN and END.
    pub fn check(&mut self, record: &Record) -> Result<(), Refusal> {
        match record {
            Record::Object(o) => self.object(o)?,
            Record::FreeObjects(o) => free_objects(o)?,
            Record::Write(w) => self.write(w)?,
            Record::Free(r) => free("FREE object", r)?,
            Record::Spill(s) => self.spill_record(s)?,
            Record::WriteEmbedded(w) => self.embedded(w)?,
            Record::ObjectRange(r) => self.object_range(r)?,
            Record::Redact(r) => {
                let same = Free { object: r.object, offset: r.offset, length: r.length, toguid: r.toguid };
                free("REDACT object", &same)?;
            }
            Record::WriteByref(w) => refuse(Rule::Byref, "WRITE_BYREF", w.object, 0)?,
            Record::Begin(_) | Record::End(_) => refuse(Rule::Unexpected, record.type_name(), 0, 0)?,
        }
        self.toguid(record)
    }

    /// One stream, one snapshot. BEGIN itself may name another: that of a saved stream does.
    fn toguid(&mut self, record: &Record) -> Result<(), Refusal> {
        let guid = match record {
            Record::Object(r) => r.toguid,
            Record::FreeObjects(r) => r.toguid,
            Record::Write(r) => r.toguid,
            Record::Free(r) => r.toguid,
            Record::Spill(r) => r.toguid,
            Record::WriteEmbedded(r) => r.toguid,
            Record::ObjectRange(r) => r.toguid,
            Record::Redact(r) => r.toguid,
            Record::WriteByref(_) | Record::Begin(_) | Record::End(_) => return Ok(()),
        };
        let first = *self.toguid.get_or_insert(guid);
        ensure(guid == first, Rule::ToGuid, "toguid", guid, first)
    }

    fn compress(&self, field: &'static str, c: u8) -> Result<(), Refusal> {
        ensure(u64::from(c) < COMPRESSIONS, Rule::CompressInvalid, field, c.into(), COMPRESSIONS)?;
        let needs = match Compress(c) {
            Compress::ZSTD => feature::ZSTD,
            c if c >= Compress::LZ4 => feature::LZ4,
            _ => return Ok(()),
        };
        ensure(self.has(needs), Rule::NeedsFeature, field, c.into(), needs)
    }

    fn large(&self, field: &'static str, bytes: u64) -> Result<(), Refusal> {
        let ok = bytes <= OLD_MAX_BLOCK || self.has(feature::LARGE_BLOCKS);
        ensure(ok, Rule::NeedsFeature, field, bytes, feature::LARGE_BLOCKS)?;
        at_most(field, bytes, self.limits.block_max)
    }

    fn object(&self, o: &Object) -> Result<(), Refusal> {
        object_number("OBJECT object", o.object)?;
        ensure(o.object_type != 0, Rule::TypeNone, "OBJECT type", 0, 0)?;
        valid_type("OBJECT type", o.object_type)?;
        let bonus = valid_type("OBJECT bonus type", o.bonus_type)?;
        let bonuslen = u64::from(o.bonuslen);
        let may_be_empty =
            matches!(bonus, ObjectType::NONE | ObjectType::SA | ObjectType::OTN_UINT64_METADATA);
        let pair = if bonuslen == 0 { may_be_empty } else { bonus != ObjectType::NONE };
        ensure(pair, Rule::BonusPair, "OBJECT bonus type", bonus.0.into(), bonuslen)?;

        let slots = slots_of(o);
        let ok = slots == 1 || self.has(feature::LARGE_DNODE);
        ensure(ok, Rule::NeedsFeature, "OBJECT dnode slots", slots, feature::LARGE_DNODE)?;
        at_most("OBJECT dnode slots", slots, self.limits.dnode_max / SLOT as u64)?;
        let end = o.object.checked_add(slots).filter(|end| *end <= MAX_OBJECT);
        ensure(end.is_some(), Rule::Overflow, "OBJECT object", o.object, slots)?;
        let at = o.object % SLOTS_PER_BLOCK;
        ensure(
            at + slots <= SLOTS_PER_BLOCK,
            Rule::AboveMaximum,
            "OBJECT slots",
            at + slots,
            SLOTS_PER_BLOCK,
        )?;

        let blksz = u64::from(o.blksz);
        multiple("OBJECT block size", blksz, MIN_BLOCK)?;
        at_least("OBJECT block size", blksz, MIN_BLOCK)?;
        self.large("OBJECT block size", blksz)?;
        checksum("OBJECT checksum", o.checksum_type)?;
        ensure(
            u64::from(o.compress) < COMPRESSIONS,
            Rule::CompressInvalid,
            "OBJECT compression",
            o.compress.into(),
            COMPRESSIONS,
        )?;
        let spilled = o.flags & record_flag::OBJECT_SPILL != 0;
        ensure(self.spill || !spilled, Rule::SpillFlagWithoutBegin, "OBJECT flags", o.flags.into(), 0)?;
        if self.raw { raw_object(o, bonus, slots) } else { plain_object(o, slots) }
    }

    fn write(&self, w: &Write) -> Result<(), Refusal> {
        object_number("WRITE object", w.object)?;
        valid_type("WRITE type", w.object_type)?;
        checksum("WRITE checksum", w.checksum_type)?;
        at_least("WRITE logical size", w.logical_size, MIN_BLOCK)?;
        self.large("WRITE logical size", w.logical_size)?;
        sum("WRITE offset", w.offset, w.logical_size)?;
        if self.raw || w.compression_type != 0 {
            let ok = self.raw || self.has(feature::COMPRESSED);
            let bit = feature::COMPRESSED;
            ensure(ok, Rule::NeedsFeature, "WRITE compression", w.compression_type.into(), bit)?;
            self.compress("WRITE compression", w.compression_type)?;
            let size = w.compressed_size;
            ensure(size != 0, Rule::MustNotBeZero, "WRITE compressed size", 0, 0)?;
            at_most("WRITE compressed size", size, w.logical_size)?;
            if self.raw {
                ensure(w.compression_type != 0, Rule::MustNotBeZero, "WRITE compression", 0, 0)?;
            }
            Ok(())
        } else {
            let size = w.compressed_size;
            ensure(size == 0, Rule::MustBeZero, "WRITE compressed size", size, 0)
        }
    }

    fn spill_record(&self, s: &Spill) -> Result<(), Refusal> {
        object_number("SPILL object", s.object)?;
        valid_type("SPILL type", s.object_type)?;
        at_least("SPILL length", s.length, MIN_BLOCK)?;
        multiple("SPILL length", s.length, MIN_BLOCK)?;
        at_most("SPILL length", s.length, self.limits.block_max)?;
        let size = s.compressed_size;
        if self.raw {
            ensure(size != 0, Rule::MustNotBeZero, "SPILL compressed size", 0, 0)?;
            ensure(s.compression_type != 0, Rule::MustNotBeZero, "SPILL compression", 0, 0)?;
            self.compress("SPILL compression", s.compression_type)?;
            at_most("SPILL compressed size", size, s.length)
        } else {
            ensure(size == 0, Rule::MustBeZero, "SPILL compressed size", size, 0)?;
            let c = s.compression_type;
            ensure(c == 0, Rule::MustBeZero, "SPILL compression", c.into(), 0)
        }
    }

    fn embedded(&self, w: &WriteEmbedded) -> Result<(), Refusal> {
        ensure(!self.raw, Rule::NonRawOnly, "WRITE_EMBEDDED", w.object, 0)?;
        let bit = feature::EMBED_DATA;
        ensure(self.has(bit), Rule::NeedsFeature, "WRITE_EMBEDDED object", w.object, bit)?;
        object_number("WRITE_EMBEDDED object", w.object)?;
        self.large("WRITE_EMBEDDED length", w.length)?;
        let (lsize, psize) = (u64::from(w.lsize), u64::from(w.psize));
        at_most("WRITE_EMBEDDED logical size", lsize, w.length.min(self.limits.block_max))?;
        at_most("WRITE_EMBEDDED payload size", psize, EMBEDDED_MAX)?;
        at_least("WRITE_EMBEDDED payload size", psize, 1)?;
        self.compress("WRITE_EMBEDDED compression", w.compression)?;
        if Compress(w.compression) == Compress::OFF {
            ensure(lsize == psize, Rule::NotEqual, "WRITE_EMBEDDED logical size", lsize, psize)?;
        }
        at_least("WRITE_EMBEDDED logical size", lsize, psize)?;
        sum("WRITE_EMBEDDED offset", w.offset, w.length)?;
        // Types 1 and 2 mark blocks of the intent log and redacted ones: no contents for a file.
        ensure(w.etype == 0, Rule::NotEqual, "WRITE_EMBEDDED embedded type", w.etype.into(), 0)
    }

    fn object_range(&self, r: &ObjectRange) -> Result<(), Refusal> {
        ensure(self.raw, Rule::RawOnly, "OBJECT_RANGE", r.firstobj, 0)?;
        let per_block = SLOTS_PER_BLOCK;
        ensure(r.numslots == per_block, Rule::NotEqual, "OBJECT_RANGE slots", r.numslots, per_block)?;
        multiple("OBJECT_RANGE first object", r.firstobj, per_block)?;
        let end = r.firstobj.checked_add(per_block).filter(|end| *end <= MAX_OBJECT);
        ensure(end.is_some(), Rule::Overflow, "OBJECT_RANGE first object", r.firstobj, per_block)
    }
}

/// The part of OBJECT that only raw streams fill.
fn raw_object(o: &Object, bonus: ObjectType, slots: u64) -> Result<(), Refusal> {
    let mask = record_flag::OBJECT_SPILL | record_flag::RAW_BYTESWAP;
    flags("OBJECT flags", o.flags, mask)?;
    at_least("OBJECT raw bonus length", o.raw_bonuslen.into(), o.bonuslen.into())?;
    let ibs = u64::from(o.indblkshift);
    if ibs != 0 {
        at_least("OBJECT indirect block shift", ibs, 12)?;
        at_most("OBJECT indirect block shift", ibs, 17)?;
    }
    at_least("OBJECT levels", o.nlevels.into(), 1)?;
    at_most("OBJECT levels", o.nlevels.into(), MAX_LEVELS.into())?;
    let nblkptr = u64::from(o.nblkptr);
    at_least("OBJECT block pointers", nblkptr, 1)?;
    at_most("OBJECT block pointers", nblkptr, 3)?;
    let deduced = nblkptr_for(bonus, o.bonuslen.into(), slots);
    ensure(nblkptr == deduced, Rule::NblkptrMismatch, "OBJECT block pointers", nblkptr, deduced)?;
    let spill = if o.flags & record_flag::OBJECT_SPILL != 0 { BLKPTR } else { 0 };
    let room = bonus_capacity(slots).saturating_sub((nblkptr - 1) * BLKPTR + spill);
    at_most("OBJECT raw bonus length", o.raw_bonuslen.into(), room)?;

    let shift = if ibs == 0 { 17 } else { ibs };
    let capacity = tree_capacity(nblkptr, shift, o.nlevels.into());
    ensure(o.maxblkid < capacity, Rule::TreeTooLow, "OBJECT last block", o.maxblkid, capacity)?;
    let blksz = u64::from(o.blksz);
    let one = o.maxblkid == 0 || blksz.is_power_of_two();
    ensure(one, Rule::NotPowerOfTwo, "OBJECT block size", blksz, 0)
}

/// What OBJECT must leave empty in streams that are not raw.
fn plain_object(o: &Object, slots: u64) -> Result<(), Refusal> {
    flags("OBJECT flags", o.flags, record_flag::OBJECT_SPILL)?;
    let zero = |field, value: u64| ensure(value == 0, Rule::MustBeZero, field, value, 0);
    zero("OBJECT raw bonus length", o.raw_bonuslen.into())?;
    zero("OBJECT block pointers", o.nblkptr.into())?;
    zero("OBJECT indirect block shift", o.indblkshift.into())?;
    zero("OBJECT levels", o.nlevels.into())?;
    let spill = if o.flags & record_flag::OBJECT_SPILL != 0 { BLKPTR } else { 0 };
    at_most("OBJECT bonus length", o.bonuslen.into(), bonus_capacity(slots).saturating_sub(spill))
}

fn free_objects(r: &FreeObjects) -> Result<(), Refusal> {
    sum("FREEOBJECTS first object", r.firstobj, r.numobjs)
}

fn free(field: &'static str, r: &Free) -> Result<(), Refusal> {
    object_number(field, r.object)?;
    if r.length == u64::MAX { Ok(()) } else { sum("FREE offset", r.offset, r.length) }
}

fn object_number(field: &'static str, object: u64) -> Result<(), Refusal> {
    ensure((1..MAX_OBJECT).contains(&object), Rule::ObjectNumber, field, object, MAX_OBJECT)
}
fn valid_type(field: &'static str, number: u32) -> Result<ObjectType, Refusal> {
    object_type(number).ok_or(Refusal { rule: Rule::TypeInvalid, field, value: number.into(), limit: 0 })
}
fn checksum(field: &'static str, number: u8) -> Result<(), Refusal> {
    ensure(u64::from(number) < CHECKSUMS, Rule::ChecksumInvalid, field, number.into(), CHECKSUMS)
}
fn multiple(field: &'static str, value: u64, of: u64) -> Result<(), Refusal> {
    ensure(value.is_multiple_of(of), Rule::NotMultiple, field, value, of)
}
fn at_least(field: &'static str, value: u64, min: u64) -> Result<(), Refusal> {
    ensure(value >= min, Rule::BelowMinimum, field, value, min)
}
fn at_most(field: &'static str, value: u64, max: u64) -> Result<(), Refusal> {
    ensure(value <= max, Rule::AboveMaximum, field, value, max)
}
fn flags(field: &'static str, value: u8, mask: u8) -> Result<(), Refusal> {
    ensure(value & !mask == 0, Rule::FlagsInvalid, field, value.into(), mask.into())
}
fn sum(field: &'static str, start: u64, length: u64) -> Result<(), Refusal> {
    ensure(start.checked_add(length).is_some(), Rule::Overflow, field, start, length)
}
