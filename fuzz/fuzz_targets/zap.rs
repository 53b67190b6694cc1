//! ZAP blocks: walks end, whole leaves stay whole through changes. The first byte chooses block size and kind
//! of keys; the rest is the block, after a head that makes it a leaf.
#![no_main]
use icecore_format::zap::{self, HeaderPhys, Key, Leaf, Value, micro};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let size = 512_usize << (choice & 3);
    let word_keys = choice & 4 != 0;
    let mut block = rest.to_vec();
    block.resize(size, 0);
    let _ = (zap::kind(&block), HeaderPhys::parse(&block), micro::parse(&block));
    let _ = micro::entries(&block).count();
    let mut small = block.clone();
    let _ = micro::insert(&mut small, b"name", 1);

    block[..8].copy_from_slice(&zap::BLOCK_LEAF.to_le_bytes());
    block[24..28].copy_from_slice(&0x02ab_1eaf_u32.to_le_bytes());
    let Ok(mut leaf) = Leaf::parse(block) else { return };
    let whole = leaf.check(word_keys).is_ok();
    let entries: Result<Vec<_>, _> = leaf.entries(word_keys).collect();
    assert!(!whole || entries.is_ok());
    let key = Key::name(b"name");
    let _ = leaf.lookup(&key, 0);
    let hash = leaf.prefix().checked_shl(64 - u32::from(leaf.prefix_len())).unwrap_or(0);
    let _ = leaf.insert(&key, hash, None, &Value::word(1));
    if whole {
        leaf.check(false).ok();
    }
    if let Ok(Some(entry)) = leaf.lookup(&key, hash) {
        let _ = leaf.update(&entry, &Value::bytes(&[7; 100]));
        let _ = leaf.remove(&entry);
    }
    let mut sibling = Leaf::init(vec![0; size], false).unwrap();
    let split = leaf.split(&mut sibling);
    if whole && split.is_ok() && !word_keys {
        leaf.check(false).unwrap();
        sibling.check(false).unwrap();
    }
});
