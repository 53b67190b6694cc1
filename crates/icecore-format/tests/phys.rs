//! Blocks written by OpenZFS (pulled out of a pool with `zdb -R`), against what `zdb` says of them.
#![allow(clippy::unwrap_used, missing_docs)]

use icecore_format::feature;
use icecore_format::space_map::{self, MapType};
use icecore_format::zap::{Key, Leaf};
use std::collections::BTreeMap;

/// The leaf of the ZAP `feature_descriptions`, salt and all.
const LEAF: &[u8] = include_bytes!("data/zap-leaf.block");
const SALT: u64 = 0x0f33_6f6b;
/// The log of one metaslab: `smp_length = 0x11c0`, `smp_alloc = 0x651400`.
const SPACE_MAP: &[u8] = include_bytes!("data/space-map.log");

#[test]
fn zap_leaf() {
    let leaf = Leaf::parse(LEAF).unwrap();
    leaf.check(false).unwrap();
    assert_eq!((leaf.nentries(), leaf.prefix_len()), (44, 0));
    for entry in leaf.entries(false) {
        let entry = entry.unwrap();
        assert_eq!(entry.key.hash(SALT, 0), entry.hash);
        assert_eq!(leaf.lookup(&entry.key, entry.hash).unwrap(), Some(entry.clone()));
        let guid = std::str::from_utf8(entry.key.as_name()).unwrap();
        assert!(feature::by_guid(guid).is_some(), "{guid}");
    }
    let key = Key::name(b"com.datto:encryption");
    let entry = leaf.lookup(&key, key.hash(SALT, 0)).unwrap().unwrap();
    assert_eq!(entry.value.as_bytes(), Some(&b"Support for dataset level encryption\0"[..]));
}

/// Adding the same entries in the same order makes the very same block.
#[test]
fn zap_leaf_again() {
    let theirs = Leaf::parse(LEAF).unwrap();
    let mut ours = Leaf::init(vec![0; LEAF.len()], false).unwrap();
    for entry in theirs.entries(false) {
        let entry = entry.unwrap();
        ours.insert(&entry.key, entry.hash, None, &entry.value).unwrap();
    }
    assert!(ours.into_inner() == LEAF);
}

/// Any flipped bit is either found by the check or changes only contents; nothing panics or loops.
#[test]
fn zap_leaf_damage() {
    let mut bytes = LEAF.to_vec();
    for at in (0..64).chain((64..bytes.len()).step_by(29)) {
        for bit in [0, 3, 7] {
            bytes[at] ^= 1 << bit;
            if let Ok(mut leaf) = Leaf::parse(bytes.clone()) {
                let whole = leaf.check(false).is_ok();
                let all: Result<Vec<_>, _> = leaf.entries(false).collect();
                assert!(!whole || all.is_ok());
                let key = Key::name(b"com.datto:encryption");
                if let Ok(Some(entry)) = leaf.lookup(&key, key.hash(SALT, 0)) {
                    let _ = leaf.remove(&entry);
                }
            }
            bytes[at] ^= 1 << bit;
        }
    }
}

#[test]
fn space_map_log() {
    let mut allocated: BTreeMap<u64, u64> = BTreeMap::new();
    let mut last_txg = 0;
    for entry in space_map::entries(SPACE_MAP) {
        let entry = entry.unwrap();
        assert!(entry.txg >= last_txg);
        last_txg = entry.txg;
        for unit in entry.offset..entry.offset + entry.run {
            match entry.kind {
                MapType::Alloc => assert_eq!(allocated.insert(unit, entry.txg), None, "unit {unit} twice"),
                MapType::Free => assert!(allocated.remove(&unit).is_some(), "unit {unit} was not allocated"),
            }
        }
    }
    assert_eq!(allocated.len() as u64 * 512, 0x65_1400);
    assert!(last_txg > 0);
}

/// A free dnode keeps stale fields: what they say must not reach past the bonus area.
#[test]
fn a_free_dnode_with_a_stale_bonus_length() {
    let mut raw = vec![0_u8; 512];
    raw[3] = 1; // one block pointer
    raw[10..12].copy_from_slice(&0xffff_u16.to_le_bytes());
    let mut dn = icecore_format::Dnode::parse(&raw).unwrap();
    assert!(dn.is_free());
    assert_eq!(dn.bonus().len(), dn.max_bonuslen());
    assert_eq!(dn.bonus_mut().len(), 512 - 64 - 128);
}
