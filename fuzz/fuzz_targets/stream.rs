//! Send streams: records that parse encode to records that parse to the same. Checksums mean that a fuzzer
//! never gets past the second record unless they are absent, so single records are tried as well.
#![no_main]
use icecore_format::Fletcher4;
use icecore_format::stream::{Order, RECORD_SIZE, Record, StreamReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut reader = StreamReader::new(data, Fletcher4::of).concatenated();
    let mut payload = Vec::new();
    while let Ok(Some(entry)) = reader.next(&mut payload) {
        assert_eq!(payload.len() as u64, entry.record.payload_len());
    }
    if let Some(head) = data.first_chunk::<RECORD_SIZE>() {
        for order in [Order::Little, Order::Big] {
            if let Ok(record) = Record::parse(head, order) {
                assert_eq!(Record::parse(&record.encode(), Order::Little), Ok(record));
            }
        }
    }
});
