//! All targets in one binary, since they share nearly all of their code: `ICECORE_FUZZ` names the one to run.
//! `cargo xtask fuzz` builds it, lays out the seeds and runs each target for a while.
#![no_main]
use icecore_check::fuzz::{Target, target};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static CHOSEN: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("ICECORE_FUZZ").unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("ICECORE_FUZZ={name}: no such target"))
});

fuzz_target!(|data: &[u8]| (CHOSEN.run)(data));
