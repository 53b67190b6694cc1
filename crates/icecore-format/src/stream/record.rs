//! One record: 312 bytes in either byte order to a typed value, and back in little-endian order.
//!
//! Invariant: encoding a parsed record gives the same bytes, checksum and slack after the fields aside; both
//! are zero in what OpenZFS writes, but for the checksum, which is the writer's business.

use super::{CHECKSUM_AT, COMPOUND, MAGIC, MAX_BEGIN_PAYLOAD, MAX_PAYLOAD, RECORD_SIZE, SUBSTREAM};
use crate::reader::Reader;
use crate::{Corrupt, ObjectType};
use std::fmt;

/// The byte order of a stream, told by its magic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

trait Field: Sized {
    fn get(r: &mut Reader<'_>, order: Order) -> Result<Self, Corrupt>;
    fn put(&self, out: &mut Vec<u8>);
}
impl Field for u8 {
    fn get(r: &mut Reader<'_>, _: Order) -> Result<Self, Corrupt> {
        r.u8()
    }
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }
}
impl Field for u32 {
    fn get(r: &mut Reader<'_>, order: Order) -> Result<Self, Corrupt> {
        match order {
            Order::Little => r.u32_le(),
            Order::Big => r.u32_be(),
        }
    }
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
}
impl Field for u64 {
    fn get(r: &mut Reader<'_>, order: Order) -> Result<Self, Corrupt> {
        match order {
            Order::Little => r.u64_le(),
            Order::Big => r.u64_be(),
        }
    }
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
}
impl<const N: usize> Field for [u8; N] {
    fn get(r: &mut Reader<'_>, _: Order) -> Result<Self, Corrupt> {
        r.array()
    }
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}
impl<const N: usize> Field for [u64; N] {
    fn get(r: &mut Reader<'_>, order: Order) -> Result<Self, Corrupt> {
        let mut words = [0; N];
        for word in &mut words {
            *word = u64::get(r, order)?;
        }
        Ok(words)
    }
    fn put(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|w| w.put(out));
    }
}

/// The `fs@snap` of a BEGIN record: 256 bytes, ended by a NUL.
#[derive(Clone, PartialEq, Eq)]
pub struct ToName(pub [u8; 256]);
impl Default for ToName {
    fn default() -> Self {
        Self([0; 256])
    }
}
impl ToName {
    /// The bytes before the first NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|b| *b == 0).next().unwrap_or(&[])
    }
    /// The text before the first NUL, if UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()).ok()
    }
    /// `name` with its NUL, or `None` if it exceeds 255 bytes or holds a NUL.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let mut out = Self::default();
        if name.len() > 255 || name.contains('\0') {
            return None;
        }
        out.0.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(out)
    }
}
impl fmt::Debug for ToName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}
impl Field for ToName {
    fn get(r: &mut Reader<'_>, _: Order) -> Result<Self, Corrupt> {
        r.array().map(Self)
    }
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

macro_rules! records {
    ($($(#[$doc:meta])* $name:ident = $number:literal $text:literal {
        $($(#[$fdoc:meta])* $field:ident: $t:ty,)*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, PartialEq, Eq, Debug, Default)]
            pub struct $name { $($(#[$fdoc])* pub $field: $t,)* }
            impl $name {
                fn get(r: &mut Reader<'_>, order: Order) -> Result<Self, Corrupt> {
                    Ok(Self { $($field: Field::get(r, order)?,)* })
                }
                fn put(&self, out: &mut Vec<u8>) {
                    $(self.$field.put(out);)*
                }
            }
            impl From<$name> for Record {
                fn from(r: $name) -> Self { Self::$name(r) }
            }
        )*
        /// A record of a stream.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum Record { $($(#[$doc])* $name($name),)* }
        impl Record {
            /// The number of the record's type.
            #[must_use]
            pub fn type_number(&self) -> u32 {
                match self { $(Self::$name(_) => $number,)* }
            }
            /// OpenZFS's name for the record's type.
            #[must_use]
            pub fn type_name(&self) -> &'static str {
                match self { $(Self::$name(_) => $text,)* }
            }
            fn get(number: u32, r: &mut Reader<'_>, order: Order) -> Result<Self, Corrupt> {
                match number {
                    $($number => $name::get(r, order).map(Self::$name),)*
                    n => Err(Corrupt::new("stream record", format!("type {n}"))),
                }
            }
            fn put(&self, out: &mut Vec<u8>) {
                match self { $(Self::$name(r) => r.put(out),)* }
            }
        }
    };
}

records! {
    /// Opens a stream; followed by a packed list if `payload_len` is not 0.
    Begin = 0 "BEGIN" {
        /// [`MAGIC`].
        magic: u64,
        /// Header type and feature flags.
        versioninfo: u64,
        /// When the snapshot was made, seconds.
        creation_time: u64,
        /// What kind of dataset (`dmu_objset_type_t`).
        objset_type: u32,
        /// `begin_flag` bits.
        flags: u32,
        /// The snapshot sent.
        toguid: u64,
        /// The snapshot the stream builds on; 0 for none.
        fromguid: u64,
        /// The snapshot's name.
        toname: ToName,
        /// Bytes of the packed list that follows. (The record's second word, not behind the name.)
        payload_len: PayloadLen,
    }
    /// An object's shape; the bonus follows.
    Object = 1 "OBJECT" {
        /// The object.
        object: u64,
        /// Its type.
        object_type: u32,
        /// Its bonus type.
        bonus_type: u32,
        /// Block size in bytes.
        blksz: u32,
        /// Bytes of bonus in use.
        bonuslen: u32,
        /// Its checksum setting.
        checksum_type: u8,
        /// Its compression setting.
        compress: u8,
        /// Slots its dnode takes; 0 means 1.
        dn_slots: u8,
        /// `record_flag` bits.
        flags: u8,
        /// Raw streams: bytes of bonus area that follow.
        raw_bonuslen: u32,
        /// The snapshot sent.
        toguid: u64,
        /// Raw streams: log2 of the indirect block size.
        indblkshift: u8,
        /// Raw streams: levels.
        nlevels: u8,
        /// Raw streams: block pointers.
        nblkptr: u8,
        /// Zero.
        pad: [u8; 5],
        /// Raw streams: largest block id.
        maxblkid: u64,
    }
    /// Objects to be freed.
    FreeObjects = 2 "FREEOBJECTS" {
        /// The first.
        firstobj: u64,
        /// How many; all ones means all from there on.
        numobjs: u64,
        /// The snapshot sent.
        toguid: u64,
    }
    /// A block of data; its contents follow.
    Write = 3 "WRITE" {
        /// The object.
        object: u64,
        /// Its type.
        object_type: u32,
        /// Zero.
        pad: u32,
        /// Byte offset in the object.
        offset: u64,
        /// Bytes uncompressed.
        logical_size: u64,
        /// The snapshot sent.
        toguid: u64,
        /// Checksum the block has on disk.
        checksum_type: u8,
        /// `record_flag` bits.
        flags: u8,
        /// Compression of the payload; 0 for none.
        compression_type: u8,
        /// Zero.
        pad2: [u8; 5],
        /// Checksum words of the block on disk.
        key_cksum: [u64; 4],
        /// Sizes and compression of the block on disk (`ddk_prop`).
        key_prop: u64,
        /// Bytes of payload if compressed.
        compressed_size: u64,
        /// Raw streams: salt.
        salt: [u8; 8],
        /// Raw streams: IV.
        iv: [u8; 12],
        /// Raw streams: MAC.
        mac: [u8; 16],
    }
    /// A range without data.
    Free = 4 "FREE" {
        /// The object.
        object: u64,
        /// First byte.
        offset: u64,
        /// How many bytes; all ones means to the end.
        length: u64,
        /// The snapshot sent.
        toguid: u64,
    }
    /// Closes a stream.
    End = 5 "END" {
        /// fletcher4 of all before this record.
        checksum: [u64; 4],
        /// The snapshot sent.
        toguid: u64,
    }
    /// Data equal to that of another place (deduplicated streams of old).
    WriteByref = 6 "WRITE_BYREF" {
        /// The object.
        object: u64,
        /// Byte offset.
        offset: u64,
        /// Bytes.
        length: u64,
        /// The snapshot sent.
        toguid: u64,
        /// Snapshot that has the data.
        refguid: u64,
        /// Object that has the data.
        refobject: u64,
        /// Offset there.
        refoffset: u64,
        /// Checksum of the block.
        checksum_type: u8,
        /// `record_flag` bits.
        flags: u8,
        /// Zero.
        pad2: [u8; 6],
        /// Checksum words of the block on disk.
        key_cksum: [u64; 4],
        /// Sizes and compression of the block on disk.
        key_prop: u64,
    }
    /// An object's spill block; its contents follow.
    Spill = 7 "SPILL" {
        /// The object.
        object: u64,
        /// Bytes uncompressed.
        length: u64,
        /// The snapshot sent.
        toguid: u64,
        /// `record_flag` bits.
        flags: u8,
        /// Compression of the payload.
        compression_type: u8,
        /// Zero.
        pad: [u8; 6],
        /// Raw streams: bytes of payload.
        compressed_size: u64,
        /// Raw streams: salt.
        salt: [u8; 8],
        /// Raw streams: IV.
        iv: [u8; 12],
        /// Raw streams: MAC.
        mac: [u8; 16],
        /// Raw streams: type of the contents.
        object_type: u32,
    }
    /// A block that lives in its pointer; its compressed contents follow.
    WriteEmbedded = 8 "WRITE_EMBEDDED" {
        /// The object.
        object: u64,
        /// Byte offset.
        offset: u64,
        /// Bytes of the block.
        length: u64,
        /// The snapshot sent.
        toguid: u64,
        /// Compression of the payload.
        compression: u8,
        /// What the payload is (`bp_embedded_type_t`).
        etype: u8,
        /// Zero.
        pad: [u8; 6],
        /// Bytes uncompressed.
        lsize: u32,
        /// Bytes compressed; the payload is rounded up to 8.
        psize: u32,
    }
    /// Raw streams: salt, IV and MAC of the dnodes that follow.
    ObjectRange = 9 "OBJECT_RANGE" {
        /// First object.
        firstobj: u64,
        /// Slots.
        numslots: u64,
        /// The snapshot sent.
        toguid: u64,
        /// Salt.
        salt: [u8; 8],
        /// IV.
        iv: [u8; 12],
        /// MAC.
        mac: [u8; 16],
        /// `record_flag` bits.
        flags: u8,
        /// Zero.
        pad: [u8; 3],
    }
    /// A range left out by redaction.
    Redact = 10 "REDACT" {
        /// The object.
        object: u64,
        /// First byte.
        offset: u64,
        /// How many bytes.
        length: u64,
        /// The snapshot sent.
        toguid: u64,
    }
}

/// The length word of a BEGIN record; lies before the fields, so it takes no place among them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PayloadLen(pub u32);
impl Field for PayloadLen {
    fn get(_: &mut Reader<'_>, _: Order) -> Result<Self, Corrupt> {
        Ok(Self(0))
    }
    fn put(&self, _: &mut Vec<u8>) {}
}

impl Begin {
    /// A BEGIN record of the header type ([`SUBSTREAM`] or [`COMPOUND`]) and features given.
    #[must_use]
    pub fn new(header_type: u64, features: u64) -> Self {
        let versioninfo = (header_type & 3) | ((features & FEATURE_MASK) << 2);
        Self { magic: MAGIC, versioninfo, ..Self::default() }
    }
    /// [`SUBSTREAM`] or [`COMPOUND`] (`DMU_GET_STREAM_HDRTYPE`).
    #[must_use]
    pub fn header_type(&self) -> u64 {
        self.versioninfo & 3
    }
    /// The `feature` flags (`DMU_GET_FEATUREFLAGS`).
    #[must_use]
    pub fn features(&self) -> u64 {
        (self.versioninfo >> 2) & FEATURE_MASK
    }
    /// Whether the stream has all of `features`.
    #[must_use]
    pub fn has(&self, features: u64) -> bool {
        self.features() & features == features
    }
    /// Sets the feature flags.
    pub fn set_features(&mut self, features: u64) {
        self.versioninfo = (self.versioninfo & !(FEATURE_MASK << 2)) | ((features & FEATURE_MASK) << 2);
    }
    /// Whether this opens a package.
    #[must_use]
    pub fn is_compound(&self) -> bool {
        self.header_type() == COMPOUND
    }
}
const FEATURE_MASK: u64 = (1 << 56) - 1;

impl Record {
    /// The byte order of the stream that a BEGIN record's bytes open, by its magic.
    pub fn order_of_begin(bytes: &[u8; RECORD_SIZE]) -> Result<Order, Corrupt> {
        let mut r = Reader::new("stream", bytes);
        r.take(8)?;
        let magic = r.array()?;
        if u64::from_le_bytes(magic) == MAGIC {
            Ok(Order::Little)
        } else if u64::from_be_bytes(magic) == MAGIC {
            Ok(Order::Big)
        } else {
            Err(Corrupt::new("stream", format!("magic {:#x}", u64::from_le_bytes(magic))))
        }
    }
    /// A record from its bytes.
    pub fn parse(bytes: &[u8; RECORD_SIZE], order: Order) -> Result<Self, Corrupt> {
        let mut r = Reader::new("stream record", bytes);
        let (number, payload_len) = (u32::get(&mut r, order)?, u32::get(&mut r, order)?);
        let mut record = Self::get(number, &mut r, order)?;
        if let Self::Begin(begin) = &mut record {
            begin.payload_len = PayloadLen(payload_len);
            if begin.magic != MAGIC {
                return Err(Corrupt::new("stream", format!("magic {:#x}", begin.magic)));
            }
            if !matches!(begin.header_type(), SUBSTREAM | COMPOUND) {
                return Err(Corrupt::new("stream", format!("header type {}", begin.header_type())));
            }
        }
        record.check_payload_len()?;
        Ok(record)
    }
    /// The checksum field of a record's bytes (not of BEGIN, which has none).
    #[must_use]
    pub fn checksum_field(bytes: &[u8; RECORD_SIZE], order: Order) -> [u64; 4] {
        let mut r = Reader::new("stream record", bytes);
        r.take(CHECKSUM_AT).and_then(|_| Field::get(&mut r, order)).unwrap_or_default()
    }
    /// The record's bytes, little-endian, checksum field zero.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_SIZE] {
        let mut out = Vec::with_capacity(RECORD_SIZE);
        self.type_number().put(&mut out);
        if let Self::Begin(begin) = self { begin.payload_len.0 } else { 0 }.put(&mut out);
        self.put(&mut out);
        out.resize(RECORD_SIZE, 0);
        let mut bytes = [0; RECORD_SIZE];
        bytes.copy_from_slice(&out);
        bytes
    }
    /// Bytes of payload that follow the record (the `DRR_*_PAYLOAD_SIZE` rules, zfs_ioctl.h).
    #[must_use]
    pub fn payload_len(&self) -> u64 {
        match self {
            Self::Begin(b) => u64::from(b.payload_len.0),
            Self::Object(o) if o.raw_bonuslen != 0 => u64::from(o.raw_bonuslen),
            Self::Object(o) => u64::from(o.bonuslen).next_multiple_of(8),
            Self::Write(w) if w.compression_type != 0 => w.compressed_size,
            Self::Write(w) => w.logical_size,
            Self::Spill(s) if s.compressed_size != 0 => s.compressed_size,
            Self::Spill(s) => s.length,
            Self::WriteEmbedded(e) => u64::from(e.psize).next_multiple_of(8),
            _ => 0,
        }
    }
    fn check_payload_len(&self) -> Result<(), Corrupt> {
        let max = if matches!(self, Self::Begin(_)) { MAX_BEGIN_PAYLOAD } else { MAX_PAYLOAD };
        let len = self.payload_len();
        if len > max {
            return Err(Corrupt::new("stream record", format!("{} with {len} bytes", self.type_name())));
        }
        Ok(())
    }
}

/// An object type field of a record as a type, if it is a number a type can have.
#[must_use]
pub fn object_type(field: u32) -> Option<ObjectType> {
    u8::try_from(field).ok().map(ObjectType).filter(|t| t.is_valid())
}
