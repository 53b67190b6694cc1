//! Name-value lists: what decodes encodes to something that decodes to the same.
#![no_main]
use icecore_format::NvList;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok((list, used)) = NvList::decode(data) {
        assert!(used <= data.len());
        for packed in [list.encode_xdr(), list.encode_native()] {
            assert_eq!(NvList::decode(&packed).map(|(l, _)| l), Ok(list.clone()));
        }
        let _ = list.to_string();
    }
});
