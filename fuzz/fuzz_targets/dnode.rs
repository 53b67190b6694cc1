//! Dnodes and objsets: every accessor of whatever parses.
#![no_main]
use icecore_format::Dnode;
use icecore_format::objset::ObjsetPhys;
use libfuzzer_sys::fuzz_target;

fn walk(dn: &Dnode) {
    let _ = (dn.capacity(), dn.epb(), dn.used_bytes(), dn.max_bonuslen(), format!("{dn:?}"));
    assert!(dn.bonus().len() <= dn.bonus_area().len());
    for i in 0..4 {
        let _ = (dn.blkptr(i).check(), format!("{:?}", dn.blkptr(i)));
    }
    let _ = dn.spill().map(|bp| bp.check());
    let mut other = dn.clone();
    other.set_spill(None);
    other.bonus_area_mut().fill(0);
}

fuzz_target!(|data: &[u8]| {
    if let Ok(dn) = Dnode::parse(data) {
        walk(&dn);
    }
    if let Ok(os) = ObjsetPhys::parse(data) {
        let all = [os.meta_dnode(), os.userused_dnode(), os.groupused_dnode(), os.projectused_dnode()];
        all.iter().flatten().for_each(walk);
        let _ = (os.kind(), os.flags(), os.portable_mac(), os.zil_header().len());
    }
});
