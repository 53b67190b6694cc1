//! Contents of files, with what is likely to be asked for next.
//!
//! Invariant: a failure in a block that was only read ahead is nobody's; it is met again by who asks for it.

use crate::blocks::{Block, Blocks, Key};
use crate::views::{At, Open};
use icecore_dmu::BlockStore;
use icecore_format::{Blkptr, Bookmark, ObjectId};
use icecore_zpl::{FileKind, Files, Result, Znode, ZplError};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Bytes read ahead at first and at most.
const AHEAD_MIN: u64 = 256 << 10;
const AHEAD_MAX: u64 = 4 << 20;
/// How far requests of one reader come out of order.
const NEAR: u64 = 2 << 20;
/// Blocks looked at in one step for data or holes.
const SEEK_BLOCKS: usize = 1024;

/// What an open file remembers.
#[derive(Default)]
pub(crate) struct Reader {
    next: u64,
    ahead: u64,
}

impl Reader {
    /// Bytes to be read ahead of a request that ends at `end`.
    fn ahead(&mut self, offset: u64, end: u64) -> u64 {
        let near = offset <= self.next.saturating_add(NEAR) && self.next <= offset.saturating_add(NEAR);
        self.ahead = match (near, offset) {
            (true, 0) if self.next == 0 => 0,
            (true, _) => (self.ahead * 2).clamp(AHEAD_MIN, AHEAD_MAX),
            (false, _) => 0,
        };
        self.next = if near { self.next.max(end) } else { end };
        self.ahead
    }
}

/// `len` bytes of a file from `offset`, fewer at its end.
pub(crate) fn read(
    blocks: &Mutex<Blocks>,
    at: &At<'_>,
    io: &dyn BlockStore,
    z: &Znode,
    reader: &mut Reader,
    offset: u64,
    len: u32,
) -> Result<Vec<u8>> {
    if z.kind != FileKind::Regular {
        return Err(ZplError::IsDirectory(format!("object {}", z.id)));
    }
    let end = offset.saturating_add(len.into()).min(z.size);
    if offset >= end {
        return Ok(Vec::new());
    }
    let size = z.dnode().block_size();
    let (first, last) = (offset / size, (end - 1) / size);
    let until = end.saturating_add(reader.ahead(offset, end)).min(z.size);
    let range = (first, last, (until - 1) / size);
    let have = match at.kept() {
        Some(open) => still(blocks, open, io, z, range)?,
        None => live(blocks, at.fs(), io, z, range)?,
    };
    let mut out = vec![0; usize::try_from(end - offset).unwrap_or(0)];
    for (blkid, block) in have {
        let Some(block) = block.filter(|_| blkid <= last) else { continue };
        let at = blkid.saturating_mul(size);
        let (from, to) = (at.max(offset), at.saturating_add(size).min(end));
        let part = |base: u64| {
            Some(
                usize::try_from(from.checked_sub(base)?).ok()?
                    ..usize::try_from(to.checked_sub(base)?).ok()?,
            )
        };
        if let (Some(source), Some(target)) = (part(at), part(offset))
            && let (Some(source), Some(target)) = (block.get(source), out.get_mut(target))
        {
            target.copy_from_slice(source);
        }
    }
    Ok(out)
}

/// Blocks `first` to `last` of what does not change; more is read ahead.
fn still(
    blocks: &Mutex<Blocks>,
    open: &Open,
    io: &dyn BlockStore,
    z: &Znode,
    (first, last, ahead): (u64, u64, u64),
) -> Result<BTreeMap<u64, Block>> {
    let mut have: BTreeMap<u64, Block> = BTreeMap::new();
    {
        let mut blocks = blocks.lock().unwrap_or_else(PoisonError::into_inner);
        for blkid in first..=last {
            if let Some(block) = blocks.get(key(open, z, blkid)) {
                have.insert(blkid, block);
            }
        }
    }
    if let Some(missing) = (first..=last).find(|b| !have.contains_key(b)) {
        load(blocks, open, io, z, (missing, last, ahead), &mut have)?;
    }
    Ok(have)
}

fn key(open: &Open, z: &Znode, blkid: u64) -> Key {
    [0, open.facts.id, z.id.0, blkid, 0, 0, 0]
}

/// The place of a block, its birth and its checksum: whatever else may come to its place has others.
fn key_of(bp: &Blkptr) -> Key {
    let [d0, d1] = bp.dva.first().map_or([0; 2], icecore_format::Dva::words);
    let [c0, c1, c2, c3] = bp.cksum();
    [d0 | 1 << 63, d1, bp.birth().0, c0, c1, c2, c3]
}

/// The same of a file that may change at any time: where its blocks are is looked up each time.
fn live(
    cache: &Mutex<Blocks>,
    fs: &Files<'_>,
    io: &dyn BlockStore,
    z: &Znode,
    (first, last, ahead): (u64, u64, u64),
) -> Result<BTreeMap<u64, Block>> {
    let os = fs.objset();
    let count = |to: u64| usize::try_from(to - first + 1).unwrap_or(1);
    let mut found = os.data_blocks(io, z.id, z.dnode(), first, count(last))?;
    found.retain(|b| b.blkid <= last);
    let mut have: BTreeMap<u64, Block> = BTreeMap::new();
    let mut wanted = Vec::new();
    {
        let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
        for b in found {
            match b.bp.filter(|bp| !bp.is_embedded()).map(|bp| (bp, cache.get(key_of(&bp)))) {
                Some((_, Some(block))) => drop(have.insert(b.blkid, block)),
                _ => wanted.push(b),
            }
        }
    }
    if !wanted.is_empty() && ahead > last {
        // One look at the disk fetches what is likely to come, too.
        let more = os.data_blocks(io, z.id, z.dnode(), last + 1, count(ahead) - count(last));
        wanted.extend(more.unwrap_or_default().into_iter().filter(|b| b.blkid <= ahead && b.bp.is_some()));
    }
    let at = |blkid| Bookmark { objset: os.id(), object: z.id, level: 0, blkid };
    let batch: Vec<_> = wanted.iter().filter_map(|b| Some((b.bp?, at(b.blkid)))).collect();
    let mut read = io.read_many(&batch, os.want()).into_iter();
    for b in wanted {
        let block = match b.bp {
            Some(_) => read.next().transpose(),
            None => os.block(io, z.id, z.dnode(), b.blkid),
        };
        match block.map_err(ZplError::from) {
            Ok(Some(block)) if block.len() as u64 == z.dnode().block_size() => {
                if let Some(bp) = b.bp.filter(|bp| !bp.is_embedded()) {
                    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
                    cache.put(key_of(&bp), Some(block.clone()));
                }
                have.insert(b.blkid, Some(block));
            }
            Ok(Some(block)) if b.blkid <= last => return Err(wrong_size(z.id, b.blkid, block.len())),
            Err(e) if b.blkid <= last => return Err(e),
            _ => {}
        }
    }
    Ok(have)
}

/// Reads blocks `from` to `ahead`; those to `last` are wanted.
fn load(
    cache: &Mutex<Blocks>,
    open: &Open,
    io: &dyn BlockStore,
    z: &Znode,
    (from, last, ahead): (u64, u64, u64),
    have: &mut BTreeMap<u64, Block>,
) -> Result<()> {
    let os = open.fs.objset();
    let count = usize::try_from(ahead - from + 1).unwrap_or(1);
    let mut found = os.data_blocks(io, z.id, z.dnode(), from, count)?;
    found.retain(|b| b.blkid <= ahead);
    let at = |blkid| Bookmark { objset: os.id(), object: z.id, level: 0, blkid };
    let batch: Vec<_> = found.iter().filter_map(|b| Some((b.bp?, at(b.blkid)))).collect();
    let mut read = io.read_many(&batch, os.want()).into_iter();
    let mut got: BTreeMap<u64, Block> = (from..=last).map(|b| (b, None)).collect();
    for b in found {
        let block = match b.bp {
            Some(_) => read.next().transpose(),
            None => os.block(io, z.id, z.dnode(), b.blkid),
        };
        let block = block.map_err(ZplError::from);
        match block {
            Ok(Some(block)) if block.len() as u64 == z.dnode().block_size() => {
                got.insert(b.blkid, Some(block));
            }
            Ok(Some(block)) if b.blkid <= last => return Err(wrong_size(z.id, b.blkid, block.len())),
            Err(e) if b.blkid <= last => return Err(e),
            _ => {}
        }
    }
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    for (blkid, block) in got {
        cache.put(key(open, z, blkid), block.clone());
        if blkid <= last {
            have.insert(blkid, block);
        }
    }
    Ok(())
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
        let mut r = Reader::default();
        assert_eq!(r.ahead(0, 4096), 0);
        assert_eq!(r.ahead(4096, 8192), AHEAD_MIN);
        assert_eq!(r.ahead(8192, 12_288), AHEAD_MIN * 2);
        assert_eq!(r.ahead(1 << 30, (1 << 30) + 4096), 0);
        assert_eq!(r.ahead((1 << 30) + 4096, (1 << 30) + 8192), AHEAD_MIN);
    }
}
