//! Lists of block pointers as objects (`bpobj_phys_t`, bpobj.h and bpobj.c): an array of pointers, and an
//! array of further lists that count as part of it. Deadlists and pending frees are kept in these.
//!
//! Invariants:
//! 1. The space counters in the bonus are the sums over the pointers and over the lists below.
//! 2. The walk is bounded: a list may be met once, and nothing is read past `num_blkptrs` entries.
//! 3. The pool's shared empty list is never changed; its owner handles it before calling here.

use crate::objset::{NewObject, Objset, Space};
use crate::store::{BlockStore, BlockWriter, ReadError, WriteError};
use icecore_format::reader::{put_u64_at, u64_at};
use icecore_format::units::OLD_MAX_BLOCK;
use icecore_format::{Blkptr, Corrupt, ObjectId, ObjectType};
use std::collections::BTreeSet;
use zerocopy::{FromBytes, IntoBytes};

/// Bonus with pointer count and bytes.
pub const SIZE_V0: u16 = 16;
/// Bonus with compressed and uncompressed sums.
pub const SIZE_V1: u16 = 32;
/// Bonus with sub-lists.
pub const SIZE_V2: u16 = 48;
/// Bonus with a count of freed entries (feature livelist).
pub const SIZE_V3: u16 = 56;

/// Ids of sub-lists read together.
const IDS_AT_ONCE: usize = 1024;

/// The counters of a list, from its bonus.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Header {
    /// Pointers in the list itself.
    pub num_blkptrs: u64,
    /// Bytes allocated.
    pub bytes: u64,
    /// Bytes stored.
    pub comp: u64,
    /// Bytes before compression.
    pub uncomp: u64,
    /// The object that holds the ids of the sub-lists, or 0.
    pub subobjs: u64,
    /// How many there are.
    pub num_subobjs: u64,
    /// Entries that stand for frees (livelists).
    pub num_freed: u64,
    len: u16,
}

impl Header {
    fn parse(bonus: &[u8], obj: ObjectId) -> Result<Self, Corrupt> {
        let len = bonus.len() as u16;
        if len < SIZE_V0 {
            return Err(Corrupt::new("bpobj", format!("object {obj}: bonus of {len} bytes")));
        }
        let word = |i: usize| u64_at(bonus, i * 8);
        Ok(Self {
            num_blkptrs: word(0),
            bytes: word(1),
            comp: word(2),
            uncomp: word(3),
            subobjs: word(4),
            num_subobjs: word(5),
            num_freed: word(6),
            len,
        })
    }
    fn store(&self, bonus: &mut [u8]) {
        let words = [
            self.num_blkptrs,
            self.bytes,
            self.comp,
            self.uncomp,
            self.subobjs,
            self.num_subobjs,
            self.num_freed,
        ];
        for (i, w) in words.into_iter().enumerate() {
            let _ = put_u64_at(bonus, i * 8, w); // older, shorter headers end earlier
        }
    }
    /// Whether the list and all below it are empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.num_blkptrs == 0 && self.num_subobjs == 0
    }
    /// The sums as a [`Space`].
    #[must_use]
    #[allow(clippy::cast_possible_wrap)]
    pub fn space(&self) -> Space {
        Space { used: self.bytes as i64, compressed: self.comp as i64, uncompressed: self.uncomp as i64 }
    }
}

/// The counters of list `obj`.
pub fn header(os: &Objset, io: &dyn BlockStore, obj: ObjectId) -> Result<Header, ReadError> {
    let dn = os.dnode(io, obj)?;
    if dn.kind() != ObjectType::BPOBJ {
        return Err(Corrupt::new("bpobj", format!("object {obj} is of type {:?}", dn.kind())).into());
    }
    Ok(Header::parse(dn.bonus(), obj)?)
}

/// A new, empty list; `len` is the bonus size, [`SIZE_V2`] or, with the livelist feature active, [`SIZE_V3`].
pub fn create(os: &mut Objset, io: &dyn BlockStore, len: u16) -> Result<ObjectId, WriteError> {
    os.allocate(
        io,
        &NewObject::plain(ObjectType::BPOBJ, OLD_MAX_BLOCK).with_bonus(ObjectType::BPOBJ_HDR, len),
    )
}

/// Appends `bp` to list `obj`. `freed` marks a free in a livelist.
pub fn enqueue(
    os: &mut Objset,
    io: &dyn BlockStore,
    obj: ObjectId,
    bp: &Blkptr,
    freed: bool,
) -> Result<(), WriteError> {
    let mut head = header(os, io, obj)?;
    os.write(io, obj, head.num_blkptrs * 128, stored(bp, freed).as_bytes())?;
    head.num_blkptrs += 1;
    let space = Space::of(bp);
    let signed =
        |sum: u64, by: i64| if freed { sum.wrapping_sub(by as u64) } else { sum.wrapping_add(by as u64) };
    head.bytes = signed(head.bytes, space.used);
    head.comp = signed(head.comp, space.compressed);
    head.uncomp = signed(head.uncomp, space.uncompressed);
    head.num_freed += u64::from(freed);
    head.store(os.edit(io, obj)?.bonus_mut());
    Ok(())
}

/// What of a pointer is kept in a list: not the payload, nor the checksum (but for deduplicated blocks).
fn stored(bp: &Blkptr, freed: bool) -> Blkptr {
    let mut out = *bp;
    if bp.is_embedded() {
        out = Blkptr::default();
        out.set_prop(bp.prop());
        out.set_birth(bp.birth());
    } else if !bp.is_dedup() {
        out.set_cksum([0; 4]);
    }
    let fill_at = 0x58;
    let bytes = out.as_mut_bytes();
    let _ = put_u64_at(bytes, fill_at, u64::from(freed));
    out
}

/// Makes list `sub` part of list `obj`; an empty one is freed instead.
pub fn enqueue_subobj(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    obj: ObjectId,
    sub: ObjectId,
) -> Result<(), WriteError> {
    let below = header(os, io, sub)?;
    if below.is_empty() {
        return free(os, io, sub);
    }
    let mut head = header(os, io, obj)?;
    if head.len < SIZE_V2 {
        return Err(WriteError::Invalid(format!("bpobj {obj} is too old to hold lists")));
    }
    if head.subobjs == 0 {
        head.subobjs = os.allocate(io, &NewObject::plain(ObjectType::BPOBJ_SUBOBJ, OLD_MAX_BLOCK))?.0;
    }
    os.write(io, ObjectId(head.subobjs), head.num_subobjs * 8, &sub.0.to_le_bytes())?;
    head.num_subobjs += 1;
    head.bytes = head.bytes.wrapping_add(below.bytes);
    head.comp = head.comp.wrapping_add(below.comp);
    head.uncomp = head.uncomp.wrapping_add(below.uncomp);
    head.store(os.edit(io, obj)?.bonus_mut());
    Ok(())
}

/// Frees list `obj` and all lists below it (not the blocks they point to).
pub fn free(os: &mut Objset, io: &mut dyn BlockWriter, obj: ObjectId) -> Result<(), WriteError> {
    for id in lists(os, io, obj)? {
        let head = header(os, io, id)?;
        if head.subobjs != 0 {
            os.free_object(io, ObjectId(head.subobjs))?;
        }
        os.free_object(io, id)?;
    }
    Ok(())
}

/// `obj` and all lists below it, each once; a list met twice is damage.
pub fn lists(os: &Objset, io: &dyn BlockStore, obj: ObjectId) -> Result<Vec<ObjectId>, ReadError> {
    let mut seen = BTreeSet::new();
    let mut todo = vec![obj];
    let mut out = Vec::new();
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            return Err(Corrupt::new("bpobj", format!("list {id} is part of itself")).into());
        }
        out.push(id);
        let head = header(os, io, id)?;
        if head.subobjs == 0 {
            continue;
        }
        let sub = ObjectId(head.subobjs);
        let dn = os.dnode(io, sub)?;
        let room = dn.maxblkid().saturating_add(1).saturating_mul(dn.block_size()) / 8;
        if head.num_subobjs > room {
            return Err(Corrupt::new(
                "bpobj",
                format!("list {id}: {} sub-lists where {room} fit", head.num_subobjs),
            )
            .into());
        }
        // A piece at a time: the count is only as good as the disk, and a hole (id 0) ends it as damage.
        for first in (0..head.num_subobjs).step_by(IDS_AT_ONCE) {
            let count = (head.num_subobjs - first).min(IDS_AT_ONCE as u64) as usize;
            let ids = os.read(io, sub, first * 8, count * 8)?;
            for below in ids.chunks_exact(8).map(|c| u64_at(c, 0)) {
                if below == 0 {
                    return Err(Corrupt::new("bpobj", format!("list {id}: a sub-list is missing")).into());
                }
                todo.push(ObjectId(below));
            }
        }
    }
    Ok(out)
}

/// Calls `f` with every pointer of `obj` and the lists below it, and whether it stands for a free.
pub fn for_each<E: From<ReadError>>(
    os: &Objset,
    io: &dyn BlockStore,
    obj: ObjectId,
    f: &mut dyn FnMut(&Blkptr, bool) -> Result<(), E>,
) -> Result<(), E> {
    for id in lists(os, io, obj)? {
        let head = header(os, io, id)?;
        let dn = os.dnode(io, id)?;
        let per_block = dn.block_size() / 128;
        if head.num_blkptrs.div_ceil(per_block.max(1)) > dn.maxblkid().saturating_add(1) {
            return Err(ReadError::from(Corrupt::new(
                "bpobj",
                format!("list {id}: {} pointers do not fit", head.num_blkptrs),
            ))
            .into());
        }
        for blkid in 0..head.num_blkptrs.div_ceil(per_block.max(1)) {
            let count = per_block.min(head.num_blkptrs - blkid * per_block);
            let Some(block) = os.block(io, id, &dn, blkid)? else {
                return Err(ReadError::from(Corrupt::new(
                    "bpobj",
                    format!("list {id}: block {blkid} is missing"),
                ))
                .into());
            };
            for entry in block.chunks_exact(128).take(count as usize) {
                let bp = Blkptr::read_from_bytes(entry).unwrap_or_default();
                let freed = u64_at(entry, 0x58) & 1 == 1;
                f(&bp, freed)?;
            }
        }
    }
    Ok(())
}

/// Removes every pointer: the list stays, empty, and what was below it is freed.
pub fn clear(os: &mut Objset, io: &mut dyn BlockWriter, obj: ObjectId) -> Result<(), WriteError> {
    let head = header(os, io, obj)?;
    if head.is_empty() {
        return Ok(());
    }
    for id in lists(os, io, obj)?.into_iter().skip(1) {
        let below = header(os, io, id)?;
        if below.subobjs != 0 {
            os.free_object(io, ObjectId(below.subobjs))?;
        }
        os.free_object(io, id)?;
    }
    if head.subobjs != 0 {
        os.free_object(io, ObjectId(head.subobjs))?;
    }
    os.free_range(io, obj, 0, u64::MAX)?;
    Header { len: head.len, ..Header::default() }.store(os.edit(io, obj)?.bonus_mut());
    Ok(())
}
