//! Objsets on the in-memory store, against a model.

use icecore_dmu::mem::MemStore;
use icecore_dmu::{BlockStore, NewObject, Objset, Policy, ReadError, Want};
use icecore_format::objset::ObjsetType;
use icecore_format::{ObjectId, ObjectType};
use std::collections::{BTreeMap, BTreeSet};

fn fresh() -> (MemStore, Objset) {
    (MemStore::default(), Objset::create(21, ObjsetType::Zfs, Policy::default(), Want::Logical))
}

fn sync(io: &mut MemStore, os: &mut Objset) {
    let delta = os.sync(io).expect("sync");
    for bp in delta.killed {
        icecore_dmu::BlockWriter::free(io, &bp).expect("killed blocks exist");
    }
    io.advance();
    assert!(!os.is_dirty());
}

/// A small generator, so that a failure can be replayed by its seed.
struct Rng(u64);
impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

#[test]
fn random_writes_frees_and_syncs_equal_a_model() {
    for seed in 0..20 {
        let (mut io, mut os) = fresh();
        let mut rng = Rng(seed);
        let shape = NewObject { indblkshift: 12, ..NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, 512) };
        let objs: Vec<ObjectId> = (0..3).map(|_| os.allocate(&io, &shape).unwrap()).collect();
        let mut model: BTreeMap<(ObjectId, u64), u8> = BTreeMap::new();
        for step in 0..400_u64 {
            let obj = objs[rng.below(3) as usize];
            let reach = if rng.below(10) == 0 { 40_000 } else { 300 };
            let blk = rng.below(reach);
            match rng.below(10) {
                0 => {
                    let n = rng.below(200);
                    os.free_range(&mut io, obj, blk, n).unwrap();
                    let gone: Vec<_> = model.range((obj, blk)..(obj, blk + n)).map(|(k, _)| *k).collect();
                    model.retain(|k, _| !gone.contains(k));
                }
                1 => sync(&mut io, &mut os),
                2 => {
                    os = {
                        sync(&mut io, &mut os);
                        Objset::open(&io, 21, &os.root(), Want::Logical).unwrap()
                    }
                }
                _ => {
                    let byte = (step % 255 + 1) as u8;
                    os.write(&io, obj, blk * 512, &[byte; 512]).unwrap();
                    model.insert((obj, blk), byte);
                }
            }
            if step % 40 == 0 {
                for ((obj, blk), byte) in &model {
                    assert_eq!(
                        os.read(&io, *obj, blk * 512, 512).unwrap(),
                        vec![*byte; 512],
                        "seed {seed} step {step}"
                    );
                }
            }
        }
        // Everything freed again: nothing but the metadata of empty objects is left.
        sync(&mut io, &mut os);
        let full = io.len();
        for obj in &objs {
            os.free_object(&mut io, *obj).unwrap();
        }
        sync(&mut io, &mut os);
        assert!(io.len() <= 2 && full > 2, "seed {seed}: {} of {full} blocks left", io.len());
        assert!(matches!(os.dnode(&io, objs[0]), Err(ReadError::NoObject(_))));
    }
}

#[test]
fn objects_of_many_slots_come_and_go() {
    for seed in 0..20 {
        let (mut io, mut os) = fresh();
        let mut rng = Rng(seed);
        let mut model: BTreeMap<u64, u8> = BTreeMap::new();
        let mut freed = BTreeSet::new();
        for _ in 0..300 {
            match rng.below(6) {
                0 => {
                    sync(&mut io, &mut os);
                    freed.clear();
                }
                1 | 2 if !model.is_empty() => {
                    let nth = rng.below(model.len() as u64) as usize;
                    let id = *model.keys().nth(nth).unwrap();
                    os.free_object(&mut io, ObjectId(id)).unwrap();
                    model.remove(&id);
                    freed.insert(id);
                }
                _ => {
                    let slots = [1, 1, 1, 2, 5, 16][rng.below(6) as usize];
                    let new = NewObject { slots, ..NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, 4096) };
                    let id = os.allocate(&io, &new).unwrap();
                    assert!(model.insert(id.0, slots).is_none(), "seed {seed}: {id} given out twice");
                    assert!(!freed.contains(&id.0), "seed {seed}: {id} was freed in the same txg");
                }
            }
        }
        sync(&mut io, &mut os);
        let os = Objset::open(&io, 21, &os.root(), Want::Logical).unwrap();
        let mut seen = BTreeMap::new();
        let mut at = ObjectId(0);
        while let Some(id) = os.next_object(&io, at).unwrap() {
            seen.insert(id.0, os.dnode(&io, id).unwrap().slots() as u8);
            at = id;
        }
        assert_eq!(seen, model, "seed {seed}");
        assert_eq!(os.root().fill(), model.len() as u64);
        assert_eq!(io.txg(), BlockStore::txg(&io));
    }
}
