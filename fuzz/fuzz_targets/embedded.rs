//! Block pointers: every accessor of any 128 bytes; payloads embedded and taken out again.
#![no_main]
use icecore_format::{Blkptr, Compress, ObjectType, Txg};
use libfuzzer_sys::fuzz_target;
use zerocopy::{FromBytes, IntoBytes};

fuzz_target!(|data: &[u8]| {
    if let Ok((bp, _)) = Blkptr::read_from_prefix(data) {
        let _ = (bp.check(), bp.asize(), bp.ucsize(), bp.fill(), bp.iv(), bp.mac(), format!("{bp:?}"));
        assert!(bp.embedded_payload().len() <= 112);
        assert!(bp.dvas().len() <= 3);
        assert_eq!(Blkptr::read_from_bytes(bp.as_bytes()), Ok(bp));
    }
    let kind = ObjectType::PLAIN_FILE_CONTENTS;
    if let Some(bp) = Blkptr::embed(data, data.len() as u64, Compress::LZ4, kind, 0, Txg(9)) {
        assert_eq!(bp.embedded_payload(), data);
    }
});
