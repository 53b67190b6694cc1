//! Micro ZAPs: one block of 64-byte entries after a 64-byte head (`mzap_phys_t`, zap_impl.h).

use super::{BLOCK_MICRO, hash};
use icecore_format::reader::{put_u64_at, u64_at};
use icecore_format::units::OLD_MAX_BLOCK;

const ENTRY: usize = 64;
const NAME_AT: usize = 14;
const NAME_MAX: usize = 49;

/// One entry in use.
pub(super) struct Entry<'a> {
    pub name: &'a [u8],
    pub value: u64,
    pub cd: u32,
}

pub(super) fn empty(size: usize, salt: u64, norm: u64) -> Vec<u8> {
    let mut block = vec![0; size.max(512)];
    for (at, v) in [(0, BLOCK_MICRO), (8, salt), (16, norm)] {
        let _ = put_u64_at(&mut block, at, v);
    }
    block
}

pub(super) fn salt(block: &[u8]) -> u64 {
    u64_at(block, 8)
}
pub(super) fn norm(block: &[u8]) -> u64 {
    u64_at(block, 16)
}

pub(super) fn entries(block: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    block.chunks_exact(ENTRY).skip(1).filter_map(parse)
}

fn parse(e: &[u8]) -> Option<Entry<'_>> {
    let name = e[NAME_AT..].split(|b| *b == 0).next().unwrap_or(&[]);
    let cd = u32::from_le_bytes([e[8], e[9], e[10], e[11]]);
    (!name.is_empty()).then(|| Entry { name, value: u64_at(e, 0), cd })
}

/// Sets `name`, growing the block (a multiple of 512, up to 128 KiB) where needed. False if it cannot hold it.
pub(super) fn put(block: &mut Vec<u8>, name: &[u8], value: u64) -> bool {
    if name.len() > NAME_MAX {
        return false;
    }
    if let Some(e) = block.chunks_exact_mut(ENTRY).skip(1).find(|e| parse(e).is_some_and(|e| e.name == name))
    {
        return put_u64_at(e, 0, value);
    }
    let Some(cd) = free_cd(block, name) else { return false };
    let free = block.chunks_exact(ENTRY).skip(1).position(|e| e[NAME_AT] == 0);
    let index = match free {
        Some(i) => i + 1,
        None if block.len() as u64 + 512 <= OLD_MAX_BLOCK => {
            block.resize(block.len() + 512, 0);
            block.len() / ENTRY - 8
        }
        None => return false,
    };
    let e = &mut block[index * ENTRY..(index + 1) * ENTRY];
    e.fill(0);
    e[8..12].copy_from_slice(&cd.to_le_bytes());
    e[NAME_AT..NAME_AT + name.len()].copy_from_slice(name);
    put_u64_at(e, 0, value)
}

/// The lowest collision differentiator free among entries with the same hash; `None` where the name
/// cannot be hashed.
fn free_cd(block: &[u8], name: &[u8]) -> Option<u32> {
    let (salt, norm) = (salt(block), norm(block));
    let own = hash::of_name(name, salt, norm, 0)?;
    let mut taken: Vec<u32> =
        entries(block).filter(|e| hash::of_name(e.name, salt, norm, 0) == Some(own)).map(|e| e.cd).collect();
    taken.sort_unstable();
    Some(taken.iter().zip(0_u32..).take_while(|(t, i)| *t == i).count() as u32)
}

pub(super) fn remove(block: &mut [u8], name: &[u8]) -> bool {
    match block.chunks_exact_mut(ENTRY).skip(1).find(|e| parse(e).is_some_and(|e| e.name == name)) {
        Some(e) => {
            e.fill(0);
            true
        }
        None => false,
    }
}
