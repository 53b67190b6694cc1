//! ZAPs: name to value maps as objects, micro (one block, one u64 a name) and fat (hashed leaves).
//! Facts from zap_micro.c, zap_fat.c, zap_leaf.c, zap_impl.c and zap_leaf.h of OpenZFS.
//!
//! Invariants:
//! 1. Every number read from a block is checked against the block before use; chains are bounded by the
//!    number of chunks; so damage is an error, never a loop.
//! 2. A leaf is decoded whole and written back whole: what goes to disk is always a well-formed leaf, its
//!    chains sorted by collision differentiator as OpenZFS expects.
//! 3. Names are raw bytes. Case folding for hashing is ASCII only; a ZAP that normalizes is searched
//!    entry by entry for names beyond ASCII, and refuses to take such names.

mod cursor;
mod fat;
mod hash;
mod leaf;
mod micro;

pub use cursor::Cursor;

use crate::objset::{NewObject, Objset};
use crate::store::{BlockStore, BlockWriter, ReadError, WriteError};
use icecore_format::reader::u64_at;
use icecore_format::{Corrupt, Dnode, ObjectId, ObjectType};
use std::sync::Arc;

/// The value of a name: integers of one size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ZapValue {
    /// Bytes; strings end with a NUL.
    U8(Vec<u8>),
    /// 16-bit integers.
    U16(Vec<u16>),
    /// 32-bit integers.
    U32(Vec<u32>),
    /// 64-bit integers.
    U64(Vec<u64>),
}

impl ZapValue {
    /// A string value, with its NUL.
    #[must_use]
    pub fn string(s: &str) -> Self {
        let mut bytes = s.as_bytes().to_vec();
        bytes.push(0);
        Self::U8(bytes)
    }
    /// A single u64.
    #[must_use]
    pub fn u64(v: u64) -> Self {
        Self::U64(vec![v])
    }
    /// The single u64 this is.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::U64(v) => v.first().copied(),
            _ => None,
        }
    }
    /// The string this is, up to its NUL.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::U8(b) => std::str::from_utf8(b.split(|c| *c == 0).next().unwrap_or(&[])).ok(),
            _ => None,
        }
    }
    fn int_len(&self) -> u8 {
        match self {
            Self::U8(_) => 1,
            Self::U16(_) => 2,
            Self::U32(_) => 4,
            Self::U64(_) => 8,
        }
    }
    /// Big-endian bytes, as leaves hold them.
    fn to_be(&self) -> Vec<u8> {
        match self {
            Self::U8(v) => v.clone(),
            Self::U16(v) => v.iter().flat_map(|x| x.to_be_bytes()).collect(),
            Self::U32(v) => v.iter().flat_map(|x| x.to_be_bytes()).collect(),
            Self::U64(v) => v.iter().flat_map(|x| x.to_be_bytes()).collect(),
        }
    }
    fn from_be(int_len: u8, bytes: &[u8]) -> Result<Self, Corrupt> {
        fn words<const N: usize, T>(bytes: &[u8], f: fn([u8; N]) -> T) -> Vec<T> {
            bytes.as_chunks::<N>().0.iter().map(|c| f(*c)).collect()
        }
        Ok(match int_len {
            1 => Self::U8(bytes.to_vec()),
            2 => Self::U16(words(bytes, u16::from_be_bytes)),
            4 => Self::U32(words(bytes, u32::from_be_bytes)),
            8 => Self::U64(words(bytes, u64::from_be_bytes)),
            n => return Err(Corrupt::new("ZAP leaf", format!("integers of {n} bytes"))),
        })
    }
}

/// One name and its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZapEntry {
    /// The name, without a NUL. Binary keys: their big-endian words.
    pub name: Vec<u8>,
    /// The value.
    pub value: ZapValue,
}

impl ZapEntry {
    /// The name as text, replacing what is not UTF-8.
    #[must_use]
    pub fn name_str(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

const BLOCK_LEAF: u64 = 1 << 63;
const BLOCK_HEADER: u64 = (1 << 63) + 1;
const BLOCK_MICRO: u64 = (1 << 63) + 3;

/// Names are folded to upper case for hashing (`U8_TEXTPREP_TOUPPER`).
pub const NORM_TOUPPER: u64 = 2;
/// Keys are arrays of 64-bit words.
pub const FLAG_UINT64_KEY: u64 = 2;

/// Which of the two kinds an object is, with its first block.
enum Kind {
    Micro(Arc<[u8]>),
    Fat(fat::Header),
}

fn kind_of(os: &Objset, io: &dyn BlockStore, obj: ObjectId, dn: &Dnode) -> Result<Kind, ReadError> {
    let Some(block) = os.block(io, obj, dn, 0)? else {
        return Err(Corrupt::new("ZAP", format!("object {obj} has no first block")).into());
    };
    match u64_at(&block, 0) {
        BLOCK_MICRO => Ok(Kind::Micro(block)),
        BLOCK_HEADER => Ok(Kind::Fat(fat::Header::parse(&block, dn)?)),
        other => Err(Corrupt::new("ZAP", format!("object {obj} begins with {other:#x}")).into()),
    }
}

/// The value of `name`, or `None`.
pub fn lookup(
    os: &Objset,
    io: &dyn BlockStore,
    obj: ObjectId,
    name: &str,
) -> Result<Option<ZapValue>, ReadError> {
    lookup_bytes(os, io, obj, name.as_bytes())
}

/// [`lookup`] for names that are not UTF-8.
pub fn lookup_bytes(
    os: &Objset,
    io: &dyn BlockStore,
    obj: ObjectId,
    name: &[u8],
) -> Result<Option<ZapValue>, ReadError> {
    let dn = os.dnode(io, obj)?;
    match kind_of(os, io, obj, &dn)? {
        Kind::Micro(block) => {
            Ok(micro::entries(&block).find(|e| e.name == name).map(|e| ZapValue::u64(e.value)))
        }
        Kind::Fat(head) => fat::lookup(os, io, obj, &dn, &head, name),
    }
}

/// The single u64 under `name`, or `None`; another kind of value is damage.
pub fn lookup_u64(
    os: &Objset,
    io: &dyn BlockStore,
    obj: ObjectId,
    name: &str,
) -> Result<Option<u64>, ReadError> {
    match lookup(os, io, obj, name)? {
        None => Ok(None),
        Some(v) => match v.as_u64() {
            Some(n) => Ok(Some(n)),
            None => Err(Corrupt::new("ZAP", format!("object {obj}: {name} is not a number")).into()),
        },
    }
}

/// All names and values, in the order of their place on disk.
pub fn iter(os: &Objset, io: &dyn BlockStore, obj: ObjectId) -> Result<Vec<ZapEntry>, ReadError> {
    let dn = os.dnode(io, obj)?;
    match kind_of(os, io, obj, &dn)? {
        Kind::Micro(block) => Ok(micro::entries(&block)
            .map(|e| ZapEntry { name: e.name.to_vec(), value: ZapValue::u64(e.value) })
            .collect()),
        Kind::Fat(head) => fat::iter(os, io, obj, &dn, &head),
    }
}

/// All names, as text, with the one number each has, in the order of names; another kind of value is damage.
pub fn numbers(os: &Objset, io: &dyn BlockStore, obj: ObjectId) -> Result<Vec<(String, u64)>, ReadError> {
    let dn = os.dnode(io, obj)?;
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let mut all: Vec<(String, u64)> = match kind_of(os, io, obj, &dn)? {
        Kind::Micro(block) => micro::entries(&block).map(|e| (text(e.name), e.value)).collect(),
        Kind::Fat(head) => {
            let number = |e: ZapEntry| match e.value.as_u64() {
                Some(n) => Ok((text(&e.name), n)),
                None => Err(Corrupt::new("ZAP", format!("object {obj}: {} is no number", e.name_str()))),
            };
            fat::iter(os, io, obj, &dn, &head)?.into_iter().map(number).collect::<Result<_, _>>()?
        }
    };
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}

/// How many names there are.
pub fn count(os: &Objset, io: &dyn BlockStore, obj: ObjectId) -> Result<u64, ReadError> {
    let dn = os.dnode(io, obj)?;
    match kind_of(os, io, obj, &dn)? {
        Kind::Micro(block) => Ok(micro::entries(&block).count() as u64),
        Kind::Fat(head) => Ok(head.num_entries),
    }
}

/// A new, empty ZAP object of type `kind`, with a bonus if `bonus` says so; `norm` is 0 or [`NORM_TOUPPER`].
pub fn create(
    os: &mut Objset,
    io: &dyn BlockStore,
    kind: ObjectType,
    bonus: Option<(ObjectType, u16)>,
    norm: u64,
) -> Result<ObjectId, WriteError> {
    let mut new = NewObject::plain(kind, 512);
    if let Some((t, len)) = bonus {
        new = new.with_bonus(t, len);
    }
    let obj = os.allocate(io, &new)?;
    init(os, io, obj, norm)?;
    Ok(obj)
}

/// Makes the (empty) object `obj` a micro ZAP: `zap_create_claim`, and datasets that become ZAPs
/// (`dmu_object_zapify`).
pub fn init(os: &mut Objset, io: &dyn BlockStore, obj: ObjectId, norm: u64) -> Result<(), WriteError> {
    let size = os.dnode(io, obj)?.block_size() as usize;
    // The salt only has to differ between ZAPs: made of what tells them apart, so that a replay of the
    // same operations gives the same bytes.
    let salt = hash::mix(obj.0 ^ (os.id() << 32) ^ (io.txg().0 << 16)) | 1;
    os.write(io, obj, 0, &micro::empty(size, salt, norm))
}

/// Sets `name` to `value`, new or not.
pub fn update(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    obj: ObjectId,
    name: &str,
    value: &ZapValue,
) -> Result<(), WriteError> {
    put(os, io, obj, name.as_bytes(), value, true)
}

/// Adds `name`; an error if it is there.
pub fn add(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    obj: ObjectId,
    name: &str,
    value: &ZapValue,
) -> Result<(), WriteError> {
    put(os, io, obj, name.as_bytes(), value, false)
}

/// [`add`] for names that are not UTF-8.
pub fn add_bytes(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    obj: ObjectId,
    name: &[u8],
    value: &ZapValue,
) -> Result<(), WriteError> {
    put(os, io, obj, name, value, false)
}

fn put(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    obj: ObjectId,
    name: &[u8],
    value: &ZapValue,
    replace: bool,
) -> Result<(), WriteError> {
    if name.is_empty() || name.len() >= 1024 || name.contains(&0) {
        return Err(WriteError::Invalid(format!("a ZAP name of {} bytes", name.len())));
    }
    let dn = os.dnode(io, obj)?;
    let mut head = match kind_of(os, io, obj, &dn)? {
        Kind::Fat(head) => head,
        Kind::Micro(block) => {
            let mut block = block.to_vec();
            if !replace && micro::entries(&block).any(|e| e.name == name) {
                return Err(WriteError::Invalid(format!(
                    "ZAP object {obj} already has {}",
                    String::from_utf8_lossy(name)
                )));
            }
            if let (true, Some(v)) = (matches!(value, ZapValue::U64(v) if v.len() == 1), value.as_u64())
                && micro::put(&mut block, name, v)
            {
                let grown = block.len() as u64 != dn.block_size();
                if grown {
                    os.resize_only_block(io, obj, block.len() as u64)?;
                }
                return os.write(io, obj, 0, &block);
            }
            fat::upgrade(os, io, obj, &block)?
        }
    };
    fat::put(os, io, obj, &mut head, name, value, replace)
}

/// Removes `name`; false if it was not there.
pub fn remove(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    obj: ObjectId,
    name: &str,
) -> Result<bool, WriteError> {
    remove_bytes(os, io, obj, name.as_bytes())
}

/// [`remove`] for names that are not UTF-8.
pub fn remove_bytes(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    obj: ObjectId,
    name: &[u8],
) -> Result<bool, WriteError> {
    let dn = os.dnode(io, obj)?;
    match kind_of(os, io, obj, &dn)? {
        Kind::Micro(block) => {
            let mut block = block.to_vec();
            let found = micro::remove(&mut block, name);
            if found {
                os.write(io, obj, 0, &block)?;
            }
            Ok(found)
        }
        Kind::Fat(mut head) => fat::remove(os, io, obj, &mut head, name),
    }
}

/// Adds `by` to the number under `name` (absent counts as 0), removing it when it becomes 0: reference
/// counts of features and of snapshots' clones (`zap_increment`).
pub fn increment(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    obj: ObjectId,
    name: &str,
    by: i64,
) -> Result<u64, WriteError> {
    let now = lookup_u64(os, io, obj, name)?.unwrap_or(0).wrapping_add_signed(by);
    if now == 0 {
        remove(os, io, obj, name)?;
    } else {
        update(os, io, obj, name, &ZapValue::u64(now))?;
    }
    Ok(now)
}
