//! Foreign-order blocks of every class.
#![no_main]
use icecore_format::byteswap::swap_block;
use icecore_format::object_type::Bswap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((class, rest)) = data.split_first() else { return };
    let classes = [
        Bswap::U16, Bswap::U32, Bswap::U64, Bswap::Zap, Bswap::Dnode, Bswap::Objset, Bswap::Znode,
        Bswap::OldAcl, Bswap::Acl,
    ];
    let mut block = rest.to_vec();
    swap_block(classes[usize::from(*class) % classes.len()], &mut block);
    assert_eq!(block.len(), rest.len());
});
