//! Intent log blocks: frames of both kinds, and records of any bytes.
#![no_main]
use icecore_format::zil::record::{block, records};
use icecore_format::{Blkptr, Checksum};
use libfuzzer_sys::fuzz_target;
use zerocopy::FromBytes;

fuzz_target!(|data: &[u8]| {
    let count = records(data).filter(Result::is_ok).count();
    assert!(count <= data.len() / 32);
    let Some((head, rest)) = data.split_at_checked(128) else { return };
    let Ok(mut bp) = Blkptr::read_from_bytes(head) else { return };
    for kind in [Checksum::ZILOG, Checksum::ZILOG2] {
        bp.set_checksum(kind);
        if let Ok(frame) = block(&bp, rest) {
            assert!(frame.records.len() <= rest.len());
            records(frame.records).for_each(drop);
        }
    }
});
