//! Space map logs: what is read can be written and read again.
#![no_main]
use icecore_format::space_map::{Writer, entries};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let all: Vec<_> = entries(data).map_while(Result::ok).collect();
    let mut writer = Writer::new(0, 4096);
    for entry in &all {
        writer.intro(entry.kind, entry.txg, u64::from(entry.sync_pass));
        writer.range(entry.kind, Some(entry.vdev), entry.offset, entry.run, true);
    }
    let bytes = writer.into_bytes();
    let mut again = Vec::new();
    for block in bytes.chunks(4096) {
        again.extend(entries(block).map(Result::unwrap));
    }
    let key = |e: &icecore_format::space_map::Entry| (e.kind, e.vdev, e.offset, e.run);
    assert_eq!(all.iter().map(key).collect::<Vec<_>>(), again.iter().map(key).collect::<Vec<_>>());
});
