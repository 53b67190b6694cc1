//! ZAPs against a model: micro, the step to fat, splits, a pointer table that outgrows the header.

use icecore_dmu::mem::MemStore;
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockWriter, Objset, Policy, Want};
use icecore_format::objset::ObjsetType;
use icecore_format::{ObjectId, ObjectType};
use std::collections::BTreeMap;

fn fresh(norm: u64) -> (MemStore, Objset, ObjectId) {
    let io = MemStore::default();
    let mut os = Objset::create(0, ObjsetType::Meta, Policy::mos(), Want::Logical);
    let obj = zap::create(&mut os, &io, ObjectType::ZAP_OTHER, None, norm).unwrap();
    (io, os, obj)
}

fn reopen(io: &mut MemStore, os: &mut Objset) {
    for bp in os.sync(io).unwrap().killed {
        io.free(&bp).unwrap();
    }
    io.advance();
    *os = Objset::open(io, 0, &os.root(), Want::Logical).unwrap();
}

fn check(io: &MemStore, os: &Objset, obj: ObjectId, model: &BTreeMap<String, ZapValue>) {
    let got: BTreeMap<String, ZapValue> =
        zap::iter(os, io, obj).unwrap().into_iter().map(|e| (e.name_str(), e.value)).collect();
    assert_eq!(&got, model);
    assert_eq!(zap::count(os, io, obj).unwrap(), model.len() as u64);
    for (name, value) in model {
        assert_eq!(zap::lookup(os, io, obj, name).unwrap().as_ref(), Some(value));
    }
    assert_eq!(zap::lookup(os, io, obj, "no such name").unwrap(), None);
}

#[test]
fn grows_from_micro_to_fat_and_shrinks_again() {
    let (mut io, mut os, obj) = fresh(zap::NORM_TOUPPER);
    let mut model = BTreeMap::new();
    for i in 0..3000_u64 {
        let name = format!("{}-{i}", if i % 2 == 0 { "Snap" } else { "snap" });
        zap::add(&mut os, &mut io, obj, &name, &ZapValue::u64(i)).unwrap();
        assert!(zap::add(&mut os, &mut io, obj, &name, &ZapValue::u64(0)).is_err());
        model.insert(name, ZapValue::u64(i));
        if [3, 7, 8, 500, 2040, 2050, 2999].contains(&i) {
            check(&io, &os, obj, &model);
            reopen(&mut io, &mut os);
            check(&io, &os, obj, &model);
        }
    }
    for i in (0..3000_u64).step_by(3) {
        let name = format!("{}-{i}", if i % 2 == 0 { "Snap" } else { "snap" });
        assert!(zap::remove(&mut os, &mut io, obj, &name).unwrap());
        assert!(!zap::remove(&mut os, &mut io, obj, &name).unwrap());
        model.remove(&name);
    }
    reopen(&mut io, &mut os);
    check(&io, &os, obj, &model);
}

#[test]
fn values_of_every_size_and_long_names() {
    let (mut io, mut os, obj) = fresh(0);
    let mut model = BTreeMap::new();
    let values = [
        ZapValue::string("hello"),
        ZapValue::U8((0..=255).collect()),
        ZapValue::U16(vec![1, 0xfffe]),
        ZapValue::U32(vec![7; 40]),
        ZapValue::U64((0..100).collect()),
        ZapValue::u64(u64::MAX),
    ];
    for (i, v) in values.into_iter().enumerate() {
        for name in [format!("n{i}"), format!("{i}").repeat(200)] {
            zap::update(&mut os, &mut io, obj, &name, &ZapValue::u64(1)).unwrap();
            zap::update(&mut os, &mut io, obj, &name, &v).unwrap();
            model.insert(name, v.clone());
        }
    }
    reopen(&mut io, &mut os);
    check(&io, &os, obj, &model);
    assert_eq!(zap::increment(&mut os, &mut io, obj, "count", 2).unwrap(), 2);
    assert_eq!(zap::increment(&mut os, &mut io, obj, "count", -2).unwrap(), 0);
    check(&io, &os, obj, &model);
}

#[test]
fn the_pointer_table_leaves_the_header() {
    let (mut io, mut os, obj) = fresh(0);
    let mut model = BTreeMap::new();
    for i in 0..12_000_u64 {
        let value = ZapValue::U8(vec![i as u8; 1500]);
        zap::add(&mut os, &mut io, obj, &format!("key{i}"), &value).unwrap();
        model.insert(format!("key{i}"), value);
        if i % 3000 == 2999 {
            reopen(&mut io, &mut os);
        }
    }
    check(&io, &os, obj, &model);
}
