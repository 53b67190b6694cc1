//! Fat ZAPs: a header block with a pointer table (embedded, or in blocks of its own), leaves by hash
//! prefix (`zap_phys_t`, zap_impl.h; zap_fat.c).

use super::leaf::{Entry, Leaf};
use super::{BLOCK_HEADER, FLAG_UINT64_KEY, ZapEntry, ZapValue, hash, micro};
use crate::objset::Objset;
use crate::store::{BlockStore, BlockWriter, ReadError, WriteError};
use icecore_format::reader::{put_u64_at, u64_at};
use icecore_format::{Corrupt, Dnode, ObjectId};

const MAGIC: u64 = 0x2_F52A_B2AB;
/// Block size of a ZAP that outgrows its micro form.
const BLOCK: u64 = 16384;

/// The header block's fields; the embedded pointer table stays in `block`.
#[derive(Clone, Debug)]
pub(super) struct Header {
    table_blk: u64,
    table_blocks: u64,
    pub(super) table_shift: u64,
    free_blk: u64,
    num_leafs: u64,
    pub(super) num_entries: u64,
    salt: u64,
    norm: u64,
    pub(super) flags: u64,
    block: Vec<u8>,
}

impl Header {
    pub(super) fn parse(block: &[u8], dn: &Dnode) -> Result<Self, Corrupt> {
        let w = |i: usize| u64_at(block, i * 8);
        let head = Self {
            table_blk: w(2),
            table_blocks: w(3),
            table_shift: w(4),
            free_blk: w(7),
            num_leafs: w(8),
            num_entries: w(9),
            salt: w(10),
            norm: w(11),
            flags: w(12),
            block: block.to_vec(),
        };
        let size = block.len() as u64;
        let room = if head.table_blk == 0 { size / 16 } else { head.table_blocks.saturating_mul(size / 8) };
        let sane =
            w(1) == MAGIC && size.is_power_of_two() && size >= 1024 && (1..=48).contains(&head.table_shift);
        let blocks = dn.maxblkid().saturating_add(1);
        let placed = head.table_blk == 0 || head.table_blk.saturating_add(head.table_blocks) <= blocks;
        if !sane || 1_u64 << head.table_shift != room || !placed || head.free_blk > blocks.saturating_add(1) {
            return Err(Corrupt::new(
                "ZAP header",
                format!("magic {:#x}, pointer table of {} bits in {room} entries", w(1), head.table_shift),
            ));
        }
        Ok(head)
    }

    fn store(&mut self, os: &mut Objset, io: &dyn BlockStore, obj: ObjectId) -> Result<(), WriteError> {
        let words = [
            BLOCK_HEADER,
            MAGIC,
            self.table_blk,
            self.table_blocks,
            self.table_shift,
            0,
            0,
            self.free_blk,
            self.num_leafs,
            self.num_entries,
            self.salt,
            self.norm,
            self.flags,
        ];
        for (i, w) in words.into_iter().enumerate() {
            let _ = put_u64_at(&mut self.block, i * 8, w);
        }
        os.write(io, obj, 0, &self.block)
    }

    fn size(&self) -> u64 {
        self.block.len() as u64
    }

    /// Pointer table entry `index`: the block id of a leaf.
    pub(super) fn pointer(
        &self,
        os: &Objset,
        io: &dyn BlockStore,
        obj: ObjectId,
        index: u64,
    ) -> Result<u64, ReadError> {
        if self.table_blk == 0 {
            return Ok(u64_at(&self.block, self.block.len() / 2 + index as usize * 8));
        }
        let bytes = os.read(io, obj, self.table_blk * self.size() + index * 8, 8)?;
        Ok(u64_at(&bytes, 0))
    }

    fn set_pointers(
        &mut self,
        os: &mut Objset,
        io: &dyn BlockStore,
        obj: ObjectId,
        first: u64,
        count: u64,
        leaf: u64,
    ) -> Result<(), WriteError> {
        if self.table_blk == 0 {
            for i in first..first + count {
                let at = self.block.len() / 2 + i as usize * 8;
                let _ = put_u64_at(&mut self.block, at, leaf);
            }
            return Ok(());
        }
        let bytes: Vec<u8> = (0..count).flat_map(|_| leaf.to_le_bytes()).collect();
        os.write(io, obj, self.table_blk * self.size() + first * 8, &bytes)
    }

    /// The leaf that `hash` belongs to, with its block id.
    fn leaf(
        &self,
        os: &Objset,
        io: &dyn BlockStore,
        obj: ObjectId,
        dn: &Dnode,
        hash: u64,
    ) -> Result<(u64, Leaf), ReadError> {
        let blkid = self.pointer(os, io, obj, hash >> (64 - self.table_shift))?;
        let leaf = self.leaf_at(os, io, obj, dn, blkid)?;
        if leaf.prefix_len > 0 && hash >> (64 - leaf.prefix_len) != leaf.prefix {
            return Err(Corrupt::new(
                "ZAP leaf",
                format!("object {obj} block {blkid} has prefix {:#x}", leaf.prefix),
            )
            .into());
        }
        Ok((blkid, leaf))
    }

    pub(super) fn leaf_at(
        &self,
        os: &Objset,
        io: &dyn BlockStore,
        obj: ObjectId,
        dn: &Dnode,
        blkid: u64,
    ) -> Result<Leaf, ReadError> {
        let block = if blkid == 0 || blkid > dn.maxblkid() { None } else { os.block(io, obj, dn, blkid)? };
        let Some(block) = block else {
            return Err(Corrupt::new("ZAP header", format!("object {obj}: pointer to block {blkid}")).into());
        };
        Ok(if self.flags & FLAG_UINT64_KEY != 0 { Leaf::parse_binary(&block)? } else { Leaf::parse(&block)? })
    }

    fn hash(&self, name: &[u8]) -> Option<u64> {
        hash::of_name(name, self.salt, self.norm, self.flags)
    }
}

/// The name as a leaf stores it.
fn stored_name(name: &[u8]) -> Vec<u8> {
    let mut out = name.to_vec();
    out.push(0);
    out
}

pub(super) fn lookup(
    os: &Objset,
    io: &dyn BlockStore,
    obj: ObjectId,
    dn: &Dnode,
    head: &Header,
    name: &[u8],
) -> Result<Option<ZapValue>, ReadError> {
    let Some(hash) = head.hash(name) else {
        return Ok(iter(os, io, obj, dn, head)?.into_iter().find(|e| e.name == name).map(|e| e.value));
    };
    let stored = stored_name(name);
    let (_, leaf) = head.leaf(os, io, obj, dn, hash)?;
    Ok(leaf.entries.into_iter().find(|e| e.hash == hash && e.name == stored).map(|e| e.value))
}

pub(super) fn iter(
    os: &Objset,
    io: &dyn BlockStore,
    obj: ObjectId,
    dn: &Dnode,
    head: &Header,
) -> Result<Vec<ZapEntry>, ReadError> {
    let mut out = Vec::new();
    let mut index = 0;
    while index < 1 << head.table_shift {
        let blkid = head.pointer(os, io, obj, index)?;
        let leaf = head.leaf_at(os, io, obj, dn, blkid)?;
        // A leaf says one prefix, so it is met once: the walk ends with the leaves that are on disk.
        let below = head.table_shift.checked_sub(u64::from(leaf.prefix_len));
        if below.is_none_or(|below| leaf.prefix != index >> below) {
            let why = format!("object {obj} block {blkid} at entry {index}: prefix {:#x}", leaf.prefix);
            return Err(Corrupt::new("ZAP leaf", why).into());
        }
        for mut e in leaf.entries {
            if head.flags & FLAG_UINT64_KEY == 0 && e.name.last() == Some(&0) {
                e.name.pop();
            }
            out.push(ZapEntry { name: e.name, value: e.value });
        }
        index += 1 << (head.table_shift - u64::from(leaf.prefix_len));
    }
    Ok(out)
}

/// Turns the micro ZAP in `block` into a fat one with the same entries (`mzap_upgrade`, `fzap_upgrade`).
pub(super) fn upgrade(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    obj: ObjectId,
    block: &[u8],
) -> Result<Header, WriteError> {
    let shift = os.dnode(io, obj)?.indblkshift();
    os.free_range(io, obj, 0, u64::MAX)?;
    os.set_block_size(io, obj, BLOCK, shift)?;
    let mut head = Header {
        table_blk: 0,
        table_blocks: 0,
        table_shift: u64::from((BLOCK / 16).trailing_zeros()),
        free_blk: 2,
        num_leafs: 1,
        num_entries: 0,
        salt: micro::salt(block),
        norm: micro::norm(block),
        flags: 0,
        block: vec![0; BLOCK as usize],
    };
    head.set_pointers(os, io, obj, 0, BLOCK / 16, 1)?;
    head.store(os, io, obj)?;
    os.write(io, obj, BLOCK, &Leaf::default().encode(BLOCK as usize))?;
    for e in micro::entries(block) {
        put(os, io, obj, &mut head, e.name, &ZapValue::u64(e.value), false)?;
    }
    Ok(head)
}

pub(super) fn put(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    obj: ObjectId,
    head: &mut Header,
    name: &[u8],
    value: &ZapValue,
    replace: bool,
) -> Result<(), WriteError> {
    let invalid = |why: &str| {
        WriteError::Invalid(format!("ZAP object {obj}, name {}: {why}", String::from_utf8_lossy(name)))
    };
    if head.flags & FLAG_UINT64_KEY != 0 {
        return Err(invalid("keys are binary"));
    }
    let Some(hash) = head.hash(name) else { return Err(invalid("cannot be normalized")) };
    let stored = stored_name(name);
    loop {
        let dn = os.dnode(io, obj)?;
        let (blkid, mut leaf) = head.leaf(os, io, obj, &dn, hash)?;
        let place = leaf.entries.iter().position(|e| e.hash == hash && e.name == stored);
        match place {
            Some(_) if !replace => return Err(invalid("already exists")),
            Some(i) => leaf.entries[i].value = value.clone(),
            None => {
                let mut taken: Vec<u32> =
                    leaf.entries.iter().filter(|e| e.hash == hash).map(|e| e.cd).collect();
                taken.sort_unstable();
                let cd = taken.iter().zip(0_u32..).take_while(|(t, i)| *t == i).count() as u32;
                let entry = Entry {
                    hash,
                    cd,
                    name_ints: stored.len() as u16,
                    name: stored.clone(),
                    value: value.clone(),
                };
                if !Leaf::could_hold(&entry, head.size() as usize) {
                    return Err(invalid("value too large"));
                }
                leaf.entries.push(entry);
            }
        }
        if leaf.fits(head.size() as usize) {
            os.write(io, obj, blkid * head.size(), &leaf.encode(head.size() as usize))?;
            head.num_entries += u64::from(place.is_none());
            return head.store(os, io, obj);
        }
        split(os, io, obj, head, &dn, blkid, hash)?;
    }
}

/// Splits leaf `blkid` by the next bit of the hash, making the pointer table longer first if it cannot
/// tell the halves apart (`zap_expand_leaf`).
fn split(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    obj: ObjectId,
    head: &mut Header,
    dn: &Dnode,
    blkid: u64,
    hash: u64,
) -> Result<(), WriteError> {
    let leaf = head.leaf_at(os, io, obj, dn, blkid)?;
    if u64::from(leaf.prefix_len) == head.table_shift {
        grow_table(os, io, obj, head)?;
    }
    let bit = 63 - leaf.prefix_len;
    let (right, left): (Vec<Entry>, Vec<Entry>) =
        leaf.entries.into_iter().partition(|e| e.hash >> bit & 1 == 1);
    let prefix_len = leaf.prefix_len + 1;
    let left = Leaf { prefix: leaf.prefix << 1, prefix_len, entries: left };
    let right = Leaf { prefix: leaf.prefix << 1 | 1, prefix_len, entries: right };
    let new = head.free_blk;
    head.free_blk += 1;
    head.num_leafs += 1;
    let size = head.size();
    os.write(io, obj, blkid * size, &left.encode(size as usize))?;
    os.write(io, obj, new * size, &right.encode(size as usize))?;
    let span = 1_u64 << (head.table_shift - u64::from(prefix_len));
    debug_assert!(hash >> (64 - u32::from(prefix_len)) >> 1 == leaf.prefix);
    head.set_pointers(os, io, obj, right.prefix * span, span, new)?;
    head.store(os, io, obj)
}

/// Doubles the pointer table: every pointer twice (`zap_grow_ptrtbl`, `zap_table_grow`).
fn grow_table(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    obj: ObjectId,
    head: &mut Header,
) -> Result<(), WriteError> {
    if head.table_shift >= 28 {
        return Err(WriteError::Invalid(format!("ZAP object {obj}: too many names of one hash")));
    }
    let size = head.size();
    let old_bytes = 8 << head.table_shift;
    let old = if head.table_blk == 0 {
        head.block[head.block.len() / 2..].to_vec()
    } else {
        os.read(io, obj, head.table_blk * size, old_bytes)?
    };
    let doubled: Vec<u8> = old.chunks_exact(8).flat_map(|p| [p, p].concat()).collect();
    let blocks = if head.table_blk == 0 { 1 } else { head.table_blocks * 2 };
    let at = head.free_blk;
    head.free_blk += blocks;
    os.write(io, obj, at * size, &doubled)?;
    if head.table_blk == 0 {
        let half = head.block.len() / 2;
        head.block[half..].fill(0);
    } else {
        let (first, count) = (head.table_blk, head.table_blocks);
        os.free_range(io, obj, first, count)?;
    }
    head.table_blk = at;
    head.table_blocks = blocks;
    head.table_shift += 1;
    head.store(os, io, obj)
}

pub(super) fn remove(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    obj: ObjectId,
    head: &mut Header,
    name: &[u8],
) -> Result<bool, WriteError> {
    let dn = os.dnode(io, obj)?;
    let stored = stored_name(name);
    let Some(hash) = head.hash(name) else {
        return Err(WriteError::Invalid(format!(
            "ZAP object {obj}: {} cannot be normalized",
            String::from_utf8_lossy(name)
        )));
    };
    let (blkid, mut leaf) = head.leaf(os, io, obj, &dn, hash)?;
    let before = leaf.entries.len();
    leaf.entries.retain(|e| e.hash != hash || e.name != stored);
    if leaf.entries.len() == before {
        return Ok(false);
    }
    os.write(io, obj, blkid * head.size(), &leaf.encode(head.size() as usize))?;
    head.num_entries = head.num_entries.saturating_sub(1);
    head.store(os, io, obj)?;
    Ok(true)
}
