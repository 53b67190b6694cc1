//! Intent log blocks: frames of both kinds, and records of any bytes.
#![no_main]
use icecore_format::zil::record::{block, heads, records};
use icecore_format::{Blkptr, Checksum};
use libfuzzer_sys::fuzz_target;
use zerocopy::FromBytes;

fuzz_target!(|data: &[u8]| {
    let count = records(data).filter(Result::is_ok).count();
    assert!(count <= data.len() / 32);
    // What a claim sees without the key is what a replay sees with it.
    for (head, record) in heads(data).zip(records(data)).take_while(|(h, r)| h.is_ok() && r.is_ok()) {
        let (head, record) = (head.unwrap(), record.unwrap());
        assert_eq!((head.kind, head.seq, head.txg), (record.kind, record.seq, record.txg));
    }
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
