//! Uberblocks, intent log headers and the DSL's bonus buffers.
#![no_main]
use icecore_format::{bookmark_phys, bpobj, dsl, indirect, space_map, uberblock, zil};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(ub) = uberblock::UberblockPhys::parse(data) {
        let _ = (ub.check(), ub.cmp_age(&ub), ub.mmp_seq(), ub.reflow_offset(), format!("{ub:?}"));
        let slot = ub.slot(1024, [0; 4]).unwrap();
        assert_eq!(uberblock::UberblockPhys::parse(&slot), Some(ub));
    }
    let _ = zil::ZilHeaderPhys::parse(data).map(|h| (h.is_empty(), format!("{h:?}")));
    let _ = dsl::DslDirPhys::parse(data);
    let _ = dsl::DslDatasetPhys::parse(data).map(|d| (d.is_snapshot(), d.bp.check()));
    let _ = bpobj::BpobjPhys::parse(data);
    let _ = bpobj::DeadlistPhys::parse(data);
    let _ = bookmark_phys::RedactionListPhys::parse(data);
    let _ = indirect::MappingPhys::parse(data);
    let _ = space_map::SpaceMapPhys::parse(data);
});
