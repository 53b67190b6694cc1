//! An uberblock written by OpenZFS, checked against what `zdb -lu` says of it.
#![allow(clippy::unwrap_used, missing_docs)]

use icecore_format::label::EckPhys;
use icecore_format::uberblock::{UberblockPhys, slot_of};
use icecore_format::{Compress, Txg};
use zerocopy::IntoBytes;

const SLOT: &[u8] = include_bytes!("data/uberblock.slot");

#[test]
fn newest_uberblock() {
    let ub = UberblockPhys::parse(SLOT).unwrap();
    ub.check().unwrap();
    assert_eq!((ub.txg(), ub.version.get()), (Txg(27), 5000));
    assert_eq!(ub.guid_sum.get(), 4_888_337_988_372_240_072);
    assert_eq!(ub.timestamp.get(), 1_795_382_284);
    assert_eq!(slot_of(9, ub.txg(), false), 27);
    assert!(ub.mmp_valid() && !ub.mmp_active());
    let bp = ub.rootbp;
    assert_eq!((bp.lsize(), bp.psize(), bp.fill(), bp.birth()), (0x1000, 0x200, 61, Txg(27)));
    assert_eq!(bp.compress(), Compress::LZ4);
    assert_eq!(bp.dvas().iter().map(|d| d.offset()).collect::<Vec<_>>(), [0x3b_2200, 0x209_1800, 0x405_a000]);
    assert_eq!(bp.cksum()[0], 0xc_822e_ab5f);
    let eck = EckPhys::of(SLOT).unwrap();
    assert_eq!(eck.is_swapped(), Some(false));
    let again = ub.slot(SLOT.len() as u64, eck.words()).unwrap();
    assert_eq!(again.as_bytes(), SLOT);
}
