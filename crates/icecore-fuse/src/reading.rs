//! Contents of files, with what is likely to be asked for next.
//!
//! Invariant: a failure in a block that was only read ahead is nobody's; it is met again by who asks for it.

use crate::blocks::{Block, Blocks, Key};
use crate::serve::locked;
use crate::views::At;
use icecore_dmu::{BlockStore, DataBlock, Objset};
use icecore_format::{Blkptr, Bookmark, ObjectId};
use icecore_zpl::{FileKind, Files, Result, Znode, ZplError};
use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::sync::Mutex;

/// Bytes read ahead at once, at first and at most; twice that may lie ahead of a reader.
const AHEAD_MIN: u64 = 256 << 10;
const AHEAD_MAX: u64 = 2 << 20;
/// How far requests of one reader come out of order.
const NEAR: u64 = 2 << 20;
/// Blocks looked at in one step for data or holes.
const SEEK_BLOCKS: usize = 1024;

/// What an open file remembers.
#[derive(Default)]
pub(crate) struct Reader {
    place: Mutex<Place>,
    /// Where what was read ahead ends. Held by who fetches: nothing is fetched twice.
    fetched: Mutex<u64>,
}

#[derive(Default)]
struct Place {
    next: u64,
    ahead: u64,
}

impl Place {
    /// Takes note of a request that ends at `end`.
    fn asked(&mut self, offset: u64, end: u64) {
        let near = offset <= self.next.saturating_add(NEAR) && self.next <= offset.saturating_add(NEAR);
        self.ahead = match (near, offset) {
            (true, 0) if self.next == 0 => 0,
            (true, _) => (self.ahead * 2).clamp(AHEAD_MIN, AHEAD_MAX),
            (false, _) => 0,
        };
        self.next = if near { self.next.max(end) } else { end };
    }

    /// What is to be read ahead now, where that was done to `fetched`: always as much again as is still to be asked for.
    fn due(&self, fetched: u64) -> Option<Range<u64>> {
        let most = self.next.saturating_add(2 * AHEAD_MAX);
        // Another place is that of a reader who jumped.
        let from = if (self.next..=most).contains(&fetched) { fetched } else { self.next };
        (self.ahead > 0 && from - self.next <= self.ahead).then(|| from..from.saturating_add(self.ahead))
    }
}

impl Reader {
    /// Whether [`ahead`] has something to do.
    pub fn is_due(&self) -> bool {
        self.fetched.try_lock().is_ok_and(|fetched| locked(&self.place).due(*fetched).is_some())
    }
}

/// What was read.
pub(crate) enum Bytes {
    /// A part of one block, not copied.
    Part(Block, Range<usize>),
    /// Of several blocks, or of a hole.
    Joined(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Part(block, range) => block.get(range.clone()).unwrap_or(&[]),
            Self::Joined(bytes) => bytes,
        }
    }
}

/// `len` bytes of a file from `offset`, fewer at its end.
pub(crate) fn read(
    blocks: &Mutex<Blocks>,
    at: &At<'_>,
    io: &dyn BlockStore,
    z: &Znode,
    reader: &Reader,
    offset: u64,
    len: u32,
) -> Result<Bytes> {
    if z.kind != FileKind::Regular {
        return Err(ZplError::IsDirectory(format!("object {}", z.id)));
    }
    let end = offset.saturating_add(len.into()).min(z.size);
    if offset >= end {
        return Ok(Bytes::Joined(Vec::new()));
    }
    let size = z.dnode().block_size();
    let (first, last) = (offset / size, (end - 1) / size);
    locked(&reader.place).asked(offset, end);
    let have = load(blocks, at.fs(), io, z, reader, (first, last))?;
    let part = |from: u64, to: u64, base: u64| {
        Some(usize::try_from(from.checked_sub(base)?).ok()?..usize::try_from(to.checked_sub(base)?).ok()?)
    };
    if let (Some(block), true) = (have.get(&first), first == last)
        && let Some(range) = part(offset, end, first.saturating_mul(size))
    {
        return Ok(Bytes::Part(block.clone(), range));
    }
    let mut out = vec![0; usize::try_from(end - offset).unwrap_or(0)];
    for (blkid, block) in have {
        let at = blkid.saturating_mul(size);
        let (from, to) = (at.max(offset), at.saturating_add(size).min(end));
        if let (Some(source), Some(target)) = (part(from, to, at), part(from, to, offset))
            && let (Some(source), Some(target)) = (block.get(source), out.get_mut(target))
        {
            target.copy_from_slice(source);
        }
    }
    Ok(Bytes::Joined(out))
}

/// The place of a block, its birth and its checksum: whatever else may come to its place has others. What lies in its
/// pointer is nowhere.
fn key_of(bp: &Blkptr) -> Option<Key> {
    let [d0, d1] = bp.dva.first().filter(|_| !bp.is_embedded())?.words();
    let [c0, c1, c2, c3] = bp.cksum();
    Some([d0, d1, bp.birth().0, c0, c1, c2, c3])
}

/// Reads ahead what is due, if nobody does: for after a request was answered, so that who reads on works meanwhile.
pub(crate) fn ahead(blocks: &Mutex<Blocks>, at: &At<'_>, io: &dyn BlockStore, z: &Znode, reader: &Reader) {
    let Ok(mut fetched) = reader.fetched.try_lock() else { return };
    let Some(due) = locked(&reader.place).due(*fetched).filter(|due| due.start < z.size) else { return };
    *fetched = due.end;
    let (size, os) = (z.dnode().block_size(), at.fs().objset());
    let last = (due.end.min(z.size) - 1) / size;
    let mut more = find(os, io, z, (due.start / size, last)).unwrap_or_default();
    {
        let blocks = locked(blocks);
        more.retain(|b| b.bp.as_ref().and_then(key_of).is_some_and(|key| !blocks.has(&key)));
    }
    fetch(blocks, os, io, z, more).for_each(drop);
}

/// Blocks `first` to `last` but holes.
fn load(
    blocks: &Mutex<Blocks>,
    fs: &Files<'_>,
    io: &dyn BlockStore,
    z: &Znode,
    reader: &Reader,
    range: (u64, u64),
) -> Result<BTreeMap<u64, Block>> {
    let os = fs.objset();
    let mut have = BTreeMap::new();
    let mut wanted = find(os, io, z, range)?;
    take_known(blocks, &mut wanted, &mut have);
    if wanted.is_empty() {
        return Ok(have);
    }
    let _fetching = locked(&reader.fetched);
    // Who had it may have fetched them.
    take_known(blocks, &mut wanted, &mut have);
    for got in fetch(blocks, os, io, z, wanted) {
        let (blkid, block) = got?;
        have.extend(block.map(|block| (blkid, block)));
    }
    Ok(have)
}

/// Where blocks `first` to `last` are, but for holes. Looked up each time: the file may change at any time.
fn find(os: &Objset, io: &dyn BlockStore, z: &Znode, (first, last): (u64, u64)) -> Result<Vec<DataBlock>> {
    let count = usize::try_from(last - first + 1).unwrap_or(1);
    let mut found = os.data_blocks(io, z.id, z.dnode(), first, count)?;
    found.retain(|b| b.blkid <= last);
    Ok(found)
}

/// Moves what is in memory from `wanted` to `have`.
fn take_known(blocks: &Mutex<Blocks>, wanted: &mut Vec<DataBlock>, have: &mut BTreeMap<u64, Block>) {
    let mut blocks = locked(blocks);
    wanted.retain(|b| {
        let known = b.bp.as_ref().and_then(key_of).and_then(|key| blocks.get(key));
        let lacking = known.is_none();
        have.extend(known.map(|block| (b.blkid, block)));
        lacking
    });
}

/// Reads `wanted` as one batch, each answered for itself, and keeps what has a place on disk.
fn fetch(
    blocks: &Mutex<Blocks>,
    os: &Objset,
    io: &dyn BlockStore,
    z: &Znode,
    wanted: Vec<DataBlock>,
) -> impl Iterator<Item = Result<(u64, Option<Block>)>> {
    let at = |blkid| Bookmark { objset: os.id(), object: z.id, level: 0, blkid };
    let batch: Vec<_> = wanted.iter().filter_map(|b| Some((b.bp?, at(b.blkid)))).collect();
    let mut read = io.read_many(&batch, os.want()).into_iter();
    wanted.into_iter().map(move |b| {
        let block = match b.bp {
            Some(_) => read.next().transpose()?,
            None => os.block(io, z.id, z.dnode(), b.blkid)?,
        };
        match &block {
            Some(block) if block.len() as u64 != z.dnode().block_size() => {
                return Err(wrong_size(z.id, b.blkid, block.len()));
            }
            Some(block) => {
                if let Some(key) = b.bp.as_ref().and_then(key_of) {
                    locked(blocks).put(key, block.clone());
                }
            }
            None => {}
        }
        Ok((b.blkid, block))
    })
}

fn wrong_size(id: ObjectId, blkid: u64, len: usize) -> ZplError {
    let why = format!("object {id}: block {blkid} has {len} bytes");
    ZplError::Corrupt(icecore_format::Corrupt::new("file", why))
}

/// The first byte at or after `offset` that is data, or with `hole` that is not; `None` past the end (`lseek`).
pub(crate) fn seek(
    fs: &Files<'_>,
    io: &dyn BlockStore,
    z: &Znode,
    offset: u64,
    hole: bool,
) -> Result<Option<u64>> {
    if offset >= z.size {
        return Ok(None);
    }
    let (os, size) = (fs.objset(), z.dnode().block_size());
    let mut at = offset / size;
    loop {
        let limit = if hole { SEEK_BLOCKS } else { 1 };
        let found = os.data_blocks(io, z.id, z.dnode(), at, limit)?;
        if !hole {
            let data = found.first().map(|b| b.blkid.saturating_mul(size).max(offset));
            return Ok(data.filter(|d| *d < z.size));
        }
        let full = found.len() == limit;
        for b in found {
            if b.blkid != at {
                return Ok(Some(at.saturating_mul(size).max(offset).min(z.size)));
            }
            at += 1;
        }
        // The end of the file is a hole too.
        if !full || at.saturating_mul(size) >= z.size {
            return Ok(Some(at.saturating_mul(size).max(offset).min(z.size)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_on_gets_more_who_jumps_gets_none() {
        let mut place = Place::default();
        let mut check = |(offset, end, fetched), due: Option<Range<u64>>| {
            place.asked(offset, end);
            assert_eq!(place.due(fetched), due, "{offset} to {end}");
        };
        check((0, 4096, 0), None);
        check((4096, 8192, 0), Some(8192..8192 + AHEAD_MIN));
        let first = 8192 + AHEAD_MIN;
        check((8192, 12_288, first), Some(first..first + 2 * AHEAD_MIN));
        check((12_288, 16_384, first + 6 * AHEAD_MIN), None);
        check((1 << 30, (1 << 30) + 4096, first), None);
        let there = (1 << 30) + 8192;
        check((there - 4096, there, first), Some(there..there + AHEAD_MIN));
        check((0, 4096, there + AHEAD_MIN), None);
        check((4096, 8192, there + AHEAD_MIN), Some(8192..8192 + AHEAD_MIN));
    }
}
