//! Labels: configuration and boot environment.
#![no_main]
use icecore_format::label;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(config) = label::parse_config(data) {
        let _ = label::config_block(&config);
    }
    let _ = label::parse_bootenv(data);
    let _ = label::EckPhys::of(data).map(|eck| (eck.is_swapped(), eck.words()));
    let _ = icecore_format::gang::parse(data);
});
