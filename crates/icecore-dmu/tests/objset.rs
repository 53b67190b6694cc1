//! Objsets on the in-memory store, against a model.

use icecore_dmu::mem::MemStore;
use icecore_dmu::{BlockStore, Form, NewObject, Objset, Policy, ReadError, Want};
use icecore_format::objset::ObjsetType;
use icecore_format::{Blkptr, Bookmark, Checksum, Compress, ObjectId, ObjectType, Txg};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
                n => {
                    let byte = (step % 255 + 1) as u8;
                    if n < 5 {
                        let form = Form::Logical { compress: Compress::OFF, level: 0, encrypt: false };
                        let block = (blk, vec![byte; 512], form);
                        os.write_through(&mut io, obj, vec![block]).unwrap();
                    } else {
                        os.write(&io, obj, blk * 512, &[byte; 512]).unwrap();
                    }
                    model.insert((obj, blk), byte);
                }
            }
            if step % 10 == 0 {
                let dn = os.dnode(&io, obj).unwrap();
                let from = rng.below(2) * blk;
                let found = os.data_blocks(&io, obj, &dn, from, usize::MAX).unwrap();
                let ids: Vec<u64> = found.iter().map(|b| b.blkid).collect();
                let must: Vec<u64> =
                    model.range((obj, from)..=(obj, u64::MAX)).map(|((_, b), _)| *b).collect();
                assert_eq!(ids, must, "seed {seed} step {step} from {from}");
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

/// What is written over itself stays where it is, if its checksum tells contents and it is compressed; written twice in
/// one batch, the second time counts.
#[test]
fn blocks_with_the_same_contents_stay() {
    let strong = Policy { checksum: Checksum::SHA256, ..Policy::default() };
    let weak = Policy { checksum: Checksum::FLETCHER_4, ..strong };
    let plain = Policy { compress: Compress::OFF, ..strong };
    for (policy, stays) in [(strong, true), (weak, false), (plain, false)] {
        let (mut io, mut os) = fresh();
        os.set_policy(policy);
        let shape = NewObject { indblkshift: 12, ..NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, 512) };
        let obj = os.allocate(&io, &shape).unwrap();
        let block = |blkid: u64, byte: u8| {
            let form = Form::Logical { compress: policy.compress, level: 0, encrypt: false };
            (blkid, vec![byte; 512], form)
        };
        os.write_through(&mut io, obj, (0..100).map(|b| block(b, b as u8 + 1)).collect()).unwrap();
        sync(&mut io, &mut os);
        let pointers = |os: &Objset, io: &MemStore| -> Vec<Blkptr> {
            let dn = os.dnode(io, obj).unwrap();
            (0..100).map(|b| os.blkptr(io, obj, &dn, 0, b).unwrap()).collect()
        };
        let (before, held) = (pointers(&os, &io), io.len());
        let used = os.dnode(&io, obj).unwrap().used_bytes();
        os.write_through(&mut io, obj, (0..100).map(|b| block(b, b as u8 + 1)).collect()).unwrap();
        assert_eq!(pointers(&os, &io) == before, stays, "{policy:?}");
        sync(&mut io, &mut os);
        // Through memory, and with one that differs.
        let before = pointers(&os, &io);
        os.write(&io, obj, 0, &[1; 512]).unwrap();
        os.write(&io, obj, 512, &[77; 512]).unwrap();
        sync(&mut io, &mut os);
        let after = pointers(&os, &io);
        assert_eq!(after[0] == before[0], stays);
        assert!(after[1] != before[1] && after[2..] == before[2..]);
        // The first of two is as it was, the second is not; and the other way round.
        let twice = vec![block(2, 3), block(2, 88), block(3, 99), block(3, 4)];
        os.write_through(&mut io, obj, twice).unwrap();
        sync(&mut io, &mut os);
        let first = |b: u64| os.read(&io, obj, b * 512, 512).unwrap()[0];
        assert_eq!([first(0), first(1), first(2), first(3)], [1, 77, 88, 4]);
        assert_eq!(os.dnode(&io, obj).unwrap().used_bytes(), used);
        assert_eq!(io.len(), held, "something was lost, or freed twice");
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

/// A store whose jobs go from two ends to the middle at once, that cannot read one block, and that counts what is read.
struct Two<'a> {
    inner: &'a MemStore,
    broken: Option<u64>,
    reads: AtomicUsize,
}

impl BlockStore for Two<'_> {
    fn read(&self, bp: &Blkptr, at: &Bookmark, want: Want) -> Result<Arc<[u8]>, ReadError> {
        if at.object == ObjectId(0) && at.level == 0 {
            self.reads.fetch_add(1, Ordering::Relaxed);
            if self.broken == Some(at.blkid) {
                return Err(ReadError::Device("gone".into()));
            }
        }
        self.inner.read(bp, at, want)
    }
    fn for_each(&self, n: usize, job: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            scope.spawn(|| (n / 2..n).rev().for_each(job));
            (0..n / 2).for_each(job);
        });
    }
    fn txg(&self) -> Txg {
        self.inner.txg()
    }
    fn hole_birth(&self) -> bool {
        true
    }
}

/// Asked for together, in any order, twice, gone, changed or in a block that cannot be read: each is what it is alone.
#[test]
fn many_heads_are_those_that_are_read_one_by_one() {
    let (mut io, mut os) = fresh();
    let shape = |i: u16| {
        NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, 512).with_bonus(ObjectType::ZNODE, 8 + i % 200)
    };
    let objs: Vec<ObjectId> = (0..1000).map(|i| os.allocate(&io, &shape(i)).unwrap()).collect();
    sync(&mut io, &mut os);
    for obj in objs.iter().step_by(7) {
        os.free_object(&mut io, *obj).unwrap();
    }
    sync(&mut io, &mut os);
    let mut os = Objset::open(&io, 21, &os.root(), Want::Logical).unwrap();
    os.edit(&io, objs[1]).unwrap().set_flags(1);
    let mut asked: Vec<ObjectId> = objs.iter().rev().copied().chain([objs[2], ObjectId(1 << 30)]).collect();
    asked.swap(3, 500);
    for broken in [None, Some(4)] {
        let two = Two { inner: &io, broken, reads: AtomicUsize::new(0) };
        let together: Vec<String> = os.dnodes(&two, &asked, |i, dn| format!("{i} {dn:?}")).collect();
        assert_eq!(two.reads.load(Ordering::Relaxed), 32, "each block once");
        let alone = asked.iter().enumerate().map(|(i, obj)| format!("{i} {:?}", os.dnode(&two, *obj)));
        assert_eq!(together, alone.collect::<Vec<_>>());
        assert_eq!(together.iter().any(|t| t.contains("gone")), broken.is_some());
    }
}
