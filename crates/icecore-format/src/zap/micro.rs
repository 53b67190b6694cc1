//! Micro ZAPs: a 64-byte head and 64-byte entries, each a name of up to 49 bytes and one 64-bit number.

use super::{BLOCK_MICRO, Key};
use crate::Corrupt;
use crate::reader::{put_u64_at, u64_at};

/// Bytes of the head and of an entry (`MZAP_ENT_LEN`).
pub const ENTRY_SIZE: usize = 64;
/// Bytes of a name, NUL included (`MZAP_NAME_LEN`).
pub const NAME_SIZE: usize = 50;
const NAME_AT: usize = 14;
const CD_AT: usize = 8;

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MicroEntry<'a> {
    /// Which 64-byte slot, counted without the head.
    pub slot: usize,
    /// The name without NUL.
    pub name: &'a [u8],
    /// The number.
    pub value: u64,
    /// Tells entries of equal hash apart.
    pub cd: u32,
}

/// Checks the head of a micro ZAP; gives its salt and normalization flags.
pub fn parse(block: &[u8]) -> Result<(u64, u64), Corrupt> {
    let bad = |why: String| Err(Corrupt::new("micro ZAP", why));
    if u64_at(block, 0) != BLOCK_MICRO {
        return bad(format!("block type {:#x}", u64_at(block, 0)));
    }
    if block.len() < ENTRY_SIZE.saturating_mul(2) || !block.len().is_multiple_of(512) {
        return bad(format!("a block of {} bytes", block.len()));
    }
    Ok((u64_at(block, 8), u64_at(block, 16)))
}

/// Makes `block` an empty micro ZAP. The salt must not be 0.
pub fn init(block: &mut [u8], salt: u64, normflags: u64) {
    block.fill(0);
    let _ = put_u64_at(block, 0, BLOCK_MICRO);
    let _ = put_u64_at(block, 8, salt);
    let _ = put_u64_at(block, 16, normflags);
}

/// The entries in use, in order of their slots.
pub fn entries(block: &[u8]) -> impl Iterator<Item = MicroEntry<'_>> {
    block.chunks_exact(ENTRY_SIZE).skip(1).enumerate().filter_map(|(slot, entry)| {
        let name = entry.get(NAME_AT..)?.split(|b| *b == 0).next()?;
        let cd = entry.get(CD_AT..)?.first_chunk::<4>()?;
        let cd = u32::from_le_bytes(*cd);
        (!name.is_empty()).then(|| MicroEntry { slot, name, value: u64_at(entry, 0), cd })
    })
}

/// The entry of exactly this name.
#[must_use]
pub fn lookup<'a>(block: &'a [u8], name: &[u8]) -> Option<MicroEntry<'a>> {
    entries(block).find(|e| e.name == name)
}

/// Slots of a block.
#[must_use]
pub fn slots(block_len: usize) -> usize {
    block_len.checked_div(ENTRY_SIZE).unwrap_or(0).saturating_sub(1)
}

/// Whether the name can be in a micro ZAP at all.
#[must_use]
pub fn fits(name: &[u8]) -> bool {
    !name.is_empty() && name.len() < NAME_SIZE && !name.contains(&0)
}

/// Adds a name that is not there yet. False if no slot is free or the name does not fit: the block must
/// grow, or the ZAP become fat.
#[must_use]
pub fn insert(block: &mut [u8], name: &[u8], value: u64) -> bool {
    let Some(slot) = free_slot(block).filter(|_| fits(name)) else { return false };
    let cd = free_cd(block, name);
    let Some(entry) = entry_mut(block, slot) else { return false };
    entry.fill(0);
    let _ = put_u64_at(entry, 0, value);
    if let Some(to) = entry.get_mut(CD_AT..).and_then(|e| e.first_chunk_mut::<4>()) {
        *to = cd.to_le_bytes();
    }
    let end = NAME_AT.saturating_add(name.len());
    entry.get_mut(NAME_AT..end).is_some_and(|to| {
        to.copy_from_slice(name);
        true
    })
}

/// Sets the number of slot `slot`; false if there is none.
#[must_use]
pub fn set_value(block: &mut [u8], slot: usize, value: u64) -> bool {
    entry_mut(block, slot).is_some_and(|e| put_u64_at(e, 0, value))
}

/// Frees slot `slot`.
pub fn remove(block: &mut [u8], slot: usize) {
    if let Some(entry) = entry_mut(block, slot) {
        entry.fill(0);
    }
}

fn entry_mut(block: &mut [u8], slot: usize) -> Option<&mut [u8]> {
    block.chunks_exact_mut(ENTRY_SIZE).nth(slot.checked_add(1)?)
}
fn free_slot(block: &[u8]) -> Option<usize> {
    block.chunks_exact(ENTRY_SIZE).skip(1).position(|e| e.get(NAME_AT) == Some(&0))
}
/// The lowest differentiator not taken by an entry of equal hash (`mze_find_unused_cd`, zap_micro.c).
fn free_cd(block: &[u8], name: &[u8]) -> u32 {
    let salt = u64_at(block, 8);
    let hash = |name: &[u8]| Key::name(name).hash(salt, 0);
    let wanted = hash(name);
    let taken: Vec<u32> = entries(block).filter(|e| hash(e.name) == wanted).map(|e| e.cd).collect();
    (0..=u32::MAX).find(|cd| !taken.contains(cd)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fill_and_empty() {
        let mut block = vec![0; 512];
        init(&mut block, 3, 0);
        assert_eq!(parse(&block).unwrap(), (3, 0));
        for i in 0..7_u64 {
            assert!(insert(&mut block, format!("name{i}").as_bytes(), i * 10));
        }
        assert!(!insert(&mut block, b"more", 1));
        assert_eq!(lookup(&block, b"name3").map(|e| (e.slot, e.value, e.cd)), Some((3, 30, 0)));
        remove(&mut block, 3);
        assert_eq!((lookup(&block, b"name3"), entries(&block).count()), (None, 6));
        assert!(!insert(&mut block, &[b'x'; 50], 1) && insert(&mut block, &[b'x'; 49], 1));
        assert!(set_value(&mut block, 0, 5) && lookup(&block, b"name0").unwrap().value == 5);
    }
}
