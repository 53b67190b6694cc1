//! Heads that lie: no walk may run on for ever, no count may be allocated unseen.

use icecore_dmu::mem::MemStore;
use icecore_dmu::{BlockWriter, NewObject, Objset, Policy, Want, bpobj};
use icecore_format::objset::ObjsetType;
use icecore_format::reader::put_u64_at;
use icecore_format::{Blkptr, Dva, ObjectId, ObjectType, Txg};

fn synced(io: &mut MemStore, os: &mut Objset) {
    for bp in os.sync(io).unwrap().killed {
        io.free(&bp).unwrap();
    }
    io.advance();
}

#[test]
fn a_metadnode_that_claims_all_objects_is_walked_in_bounded_time() {
    let mut io = MemStore::default();
    let mut os = Objset::create(0, ObjsetType::Meta, Policy::mos(), Want::Logical);
    let obj = os.allocate(&io, &NewObject::plain(ObjectType::PLAIN_OTHER, 512)).unwrap();
    os.edit(&io, ObjectId(0)).unwrap().set_maxblkid(u64::MAX);
    synced(&mut io, &mut os);
    let os = Objset::open(&io, 0, &os.root(), Want::Logical).unwrap();
    assert_eq!(os.meta().maxblkid(), u64::MAX);
    assert_eq!(os.next_object(&io, ObjectId(0)).unwrap(), Some(obj));
    assert_eq!(os.next_object(&io, obj).unwrap(), None);
}

#[test]
fn a_list_that_claims_more_lists_than_memory_is_damage() {
    let mut io = MemStore::default();
    let mut os = Objset::create(0, ObjsetType::Meta, Policy::mos(), Want::Logical);
    let list = bpobj::create(&mut os, &io, bpobj::SIZE_V2).unwrap();
    let sub = bpobj::create(&mut os, &io, bpobj::SIZE_V2).unwrap();
    let mut bp = Blkptr::default();
    bp.set_lsize(512);
    bp.set_psize(512);
    bp.set_birth(Txg(3));
    bp.dva[0] = Dva::new(0, 512, 512, false);
    bpobj::enqueue(&mut os, &io, sub, &bp, false).unwrap();
    bpobj::enqueue_subobj(&mut os, &mut io, list, sub).unwrap();
    assert_eq!(bpobj::lists(&os, &io, list).unwrap(), [list, sub]);
    let holder = ObjectId(bpobj::header(&os, &io, list).unwrap().subobjs);
    os.edit(&io, holder).unwrap().set_maxblkid(1 << 50);
    assert!(put_u64_at(os.edit(&io, list).unwrap().bonus_mut(), 40, 1 << 45));
    assert!(bpobj::lists(&os, &io, list).is_err());
}
