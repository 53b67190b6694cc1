//! One conversion of a foreign-order block to little-endian, by the class of its contents
//! (`dmu_ot_byteswap`, dmu.c). Everything above the read pipeline sees little-endian only.
//!
//! Contents that do not fit their class are converted as far as they make sense; the parsers above complain.

use crate::object_type::{Bswap, ObjectType};

/// Reverses the bytes of each word of `N` bytes; a short tail stays.
pub fn swap_words<const N: usize>(bytes: &mut [u8]) {
    for word in bytes.chunks_exact_mut(N) {
        word.reverse();
    }
}

/// Converts the level-0 contents of a foreign-order block of the given class.
pub fn swap_block(class: Bswap, bytes: &mut [u8]) {
    swap_nested(class, bytes, 0);
}

/// Bonus buffers of dnodes in bonus buffers: no real one goes deeper than this.
const MAX_NESTING: u32 = 3;

fn swap_nested(class: Bswap, bytes: &mut [u8], depth: u32) {
    if depth > MAX_NESTING {
        return;
    }
    match class {
        Bswap::U8 => {}
        Bswap::U16 => swap_words::<2>(bytes),
        Bswap::U32 => swap_words::<4>(bytes),
        Bswap::U64 => swap_words::<8>(bytes),
        Bswap::Zap => zap(bytes),
        Bswap::Dnode => dnodes(bytes, depth),
        Bswap::Objset => objset(bytes, depth),
        Bswap::Znode => znode(bytes),
        Bswap::OldAcl => old_aces(bytes),
        Bswap::Acl => aces(bytes),
    }
}

/// Reverses the bytes of `len` bytes at `at` as words of `N`; nothing if they are not all there.
fn field<const N: usize>(bytes: &mut [u8], at: usize, len: usize) {
    if let Some(part) = bytes.get_mut(at..at.saturating_add(len)) {
        swap_words::<N>(part);
    }
}

/// `zap_byteswap`, `mzap_byteswap`, `fzap_byteswap`, `zap_leaf_byteswap`.
fn zap(bytes: &mut [u8]) {
    let kind = bytes.first_chunk::<8>().map_or(0, |w| u64::from_be_bytes(*w));
    match kind {
        crate::zap::BLOCK_MICRO => {
            field::<8>(bytes, 0, 24);
            for entry in bytes.chunks_exact_mut(crate::zap::micro::ENTRY_SIZE).skip(1) {
                field::<8>(entry, 0, 8);
                field::<4>(entry, 8, 4);
            }
        }
        crate::zap::BLOCK_LEAF => zap_leaf(bytes),
        _ => swap_words::<8>(bytes),
    }
}

fn zap_leaf(bytes: &mut [u8]) {
    const HEAD: usize = 48;
    field::<8>(bytes, 0, 8);
    field::<8>(bytes, 16, 8);
    field::<4>(bytes, 24, 4);
    field::<2>(bytes, 28, 8);
    let buckets = (bytes.len() >> 5).saturating_mul(2);
    field::<2>(bytes, HEAD, buckets);
    let chunks = bytes.get_mut(HEAD.saturating_add(buckets)..).unwrap_or(&mut []);
    for chunk in chunks.chunks_exact_mut(24) {
        match chunk.first() {
            Some(252) => {
                field::<2>(chunk, 2, 10);
                field::<4>(chunk, 12, 4);
                field::<8>(chunk, 16, 8);
            }
            Some(251 | 253) => field::<2>(chunk, 22, 2),
            _ => {}
        }
    }
}

/// `dnode_buf_byteswap`.
fn dnodes(mut bytes: &mut [u8], depth: u32) {
    while bytes.len() >= crate::dnode::SLOT {
        let kind = bytes.first().copied().unwrap_or(0);
        let extra = if kind == 0 { 0 } else { usize::from(bytes.get(12).copied().unwrap_or(0)) };
        let len = extra.saturating_add(1).saturating_mul(crate::dnode::SLOT).min(bytes.len());
        let (one, rest) = bytes.split_at_mut(len);
        dnode(one, depth);
        bytes = rest;
    }
}

/// `dnode_byteswap`, on the dnode's slots.
fn dnode(bytes: &mut [u8], depth: u32) {
    let byte = |at: usize, bytes: &[u8]| bytes.get(at).copied().unwrap_or(0);
    if byte(0, bytes) == 0 {
        bytes.fill(0);
        return;
    }
    field::<2>(bytes, 8, 4);
    field::<8>(bytes, 16, 16);
    let pointers = usize::from(byte(3, bytes)).min(3).saturating_mul(128);
    field::<8>(bytes, crate::dnode::CORE, pointers);
    let spill = if byte(7, bytes) & crate::dnode::FLAG_SPILL_BLKPTR != 0 { 128 } else { 0 };
    let bonus_at = pointers.saturating_add(crate::dnode::CORE);
    let bonus_end = bytes.len().saturating_sub(spill);
    let has_bonus = byte(10, bytes) != 0 || byte(11, bytes) != 0;
    let class = ObjectType(byte(4, bytes)).bswap();
    if let (true, Some(bonus)) = (has_bonus, bytes.get_mut(bonus_at..bonus_end)) {
        swap_nested(class, bonus, depth.saturating_add(1));
    }
    field::<8>(bytes, bonus_end, spill);
}

/// `dmu_objset_byteswap`. The MACs are bytes.
fn objset(bytes: &mut [u8], depth: u32) {
    for (at, needs) in [(0, 512), (1024, 2048), (1536, 2048), (2048, 4096)] {
        if bytes.len() < needs {
            continue;
        }
        if let Some(slot) = bytes.get_mut(at..).and_then(|b| b.get_mut(..512)) {
            dnode(slot, depth);
        }
    }
    field::<8>(bytes, crate::objset::ZIL_AT, crate::objset::ZIL_LEN);
    field::<8>(bytes, 704, 16);
}

const ZNODE_ACL_AT: usize = 176;
const ZNODE_ACES_AT: usize = 192;
const ZNODE_SIZE: usize = 264;

/// `zfs_znode_byteswap`: `znode_phys_t` with its embedded ACL of either version.
fn znode(bytes: &mut [u8]) {
    let Some(znode) = bytes.get_mut(..ZNODE_SIZE) else { return };
    field::<8>(znode, 0, ZNODE_ACL_AT);
    field::<8>(znode, ZNODE_ACL_AT, 8);
    field::<4>(znode, 184, 4);
    field::<2>(znode, 188, 4);
    let version = znode.get(188..).and_then(|b| b.first_chunk()).map_or(0, |v| u16::from_le_bytes(*v));
    let list = znode.get_mut(ZNODE_ACES_AT..).unwrap_or(&mut []);
    if version == 1 { aces(list) } else { old_aces(list) }
}

/// `zfs_oldace_byteswap`: who, mask, flags, type, in 12 bytes.
fn old_aces(bytes: &mut [u8]) {
    for ace in bytes.chunks_exact_mut(12) {
        field::<4>(ace, 0, 8);
        field::<2>(ace, 8, 4);
    }
}

const ACE_GROUP: u16 = 0x2000;
const ACE_IDENTIFIER_GROUP: u16 = 0x40;
const ACE_OWNER: u16 = 0x1000;
const ACE_EVERYONE: u16 = 0x4000;
const ACE_TYPE_FLAGS: u16 = ACE_OWNER | ACE_GROUP | ACE_EVERYONE | ACE_IDENTIFIER_GROUP;
const OWNING_GROUP: u16 = ACE_GROUP | ACE_IDENTIFIER_GROUP;

/// `zfs_ace_byteswap`: type, flags, mask in 8 bytes; a FUID unless the entry is for owner, group or everyone;
/// two more identifiers for object entries.
fn aces(mut bytes: &mut [u8]) {
    while bytes.len() >= 8 {
        field::<2>(bytes, 0, 4);
        field::<4>(bytes, 4, 4);
        let half = |at: usize, b: &[u8]| {
            b.get(at..).and_then(|b| b.first_chunk()).map_or(0, |v| u16::from_le_bytes(*v))
        };
        let (kind, flags) = (half(0, bytes), half(2, bytes) & ACE_TYPE_FLAGS);
        let len = match flags {
            ACE_OWNER | ACE_EVERYONE | OWNING_GROUP => 8,
            _ if bytes.len() < 16 => 16,
            _ => {
                field::<8>(bytes, 8, 8);
                if (5..=8).contains(&kind) { 48 } else { 16 }
            }
        };
        let len = len.min(bytes.len());
        bytes = bytes.split_at_mut(len).1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zap::{Key, Leaf, Value, micro};

    /// Swapping twice gives the same bytes; the class sees what it must through its own parser.
    #[test]
    fn zap_blocks() {
        let mut block = vec![0; 4096];
        micro::init(&mut block, 5, 0);
        assert!(micro::insert(&mut block, b"name", 0x0102_0304));
        let swapped = foreign_micro(&block);
        let mut back = swapped;
        swap_block(Bswap::Zap, &mut back);
        assert!(back == block);

        let mut leaf = Leaf::init(vec![0; 4096], false).unwrap();
        leaf.insert(&Key::name(b"a longer name than fits a chunk"), 7 << 60, None, &Value::word(9)).unwrap();
        let native = leaf.into_inner();
        let mut once = native.clone();
        zap_leaf(&mut once);
        assert!(once != native);
        swap_block(Bswap::Zap, &mut once);
        assert!(once == native);
        Leaf::parse(once).unwrap().check(false).unwrap();
    }
    fn foreign_micro(block: &[u8]) -> Vec<u8> {
        let mut b = block.to_vec();
        b[..24].chunks_exact_mut(8).for_each(<[u8]>::reverse);
        for e in b.chunks_exact_mut(64).skip(1) {
            e[..8].reverse();
            e[8..12].reverse();
        }
        b
    }

    #[test]
    fn dnodes_and_objsets() {
        let mut dn = crate::Dnode::empty(2);
        dn.set_kind(ObjectType::DSL_DATASET);
        dn.set_nblkptr(1);
        dn.set_nlevels(1);
        dn.set_indblkshift(17);
        dn.set_block_size(512);
        dn.set_bonus_type(ObjectType::DSL_DATASET);
        dn.set_bonuslen(320);
        dn.bonus_mut().copy_from_slice(&(0..320).map(|i| i as u8).collect::<Vec<_>>());
        dn.set_maxblkid(99);
        let mut block = dn.as_bytes().to_vec();
        block.resize(16384, 0);
        let native = block.clone();
        swap_block(Bswap::Dnode, &mut block);
        assert!(block != native);
        assert_eq!(&block[16..24], &[0, 0, 0, 0, 0, 0, 0, 99]);
        assert_eq!(&block[192..200], &[7, 6, 5, 4, 3, 2, 1, 0]);
        swap_block(Bswap::Dnode, &mut block);
        assert!(block == native);

        let mut os = vec![0; 4096];
        os[..512].copy_from_slice(&native[..512]);
        os[12] = 0;
        os[704] = 2;
        os[720] = 0xaa;
        let native = os.clone();
        swap_block(Bswap::Objset, &mut os);
        assert_eq!((os[711], os[720]), (2, 0xaa));
        swap_block(Bswap::Objset, &mut os);
        assert!(os == native);
    }

    #[test]
    fn nothing_panics_on_any_bytes() {
        let mut seed = 1_u64;
        let classes = [Bswap::Zap, Bswap::Dnode, Bswap::Objset, Bswap::Znode, Bswap::OldAcl, Bswap::Acl];
        for len in [0, 1, 7, 8, 24, 64, 511, 512, 1024, 4096] {
            for class in classes {
                let mut bytes = vec![0_u8; len];
                for b in &mut bytes {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    *b = (seed >> 56) as u8;
                }
                swap_block(class, &mut bytes);
            }
        }
    }
}
