//! Objsets and dnodes of raw streams: B10 to B29.
//!
//! The judge of most: datasets encrypted with a key at hand go raw from one pool to another, snapshot by
//! snapshot, and are then read with the key. Their dnodes, block ids, heights and holes are under MACs that
//! hang together up to the objset: what differs does not open.

use crate::is;
use crate::make::{
    FILE, begin, chunk, end, free, free_objects, put_together, range, raw_begin, raw_full, raw_next,
    raw_object, raw_write, take_apart,
};
use crate::support::{SimPool, to};
use crate::world::{KEY, LEC, PLAIN, RAW, RAW_FORM};
use icecore_check::accounts;
use icecore_dmu::store::Form;
use icecore_dmu::{BlockStore, BlockWriter, NewObject, Objset, ReadError, Want};
use icecore_format::objset::{
    FLAG_PROJECTQUOTA_COMPLETE, FLAG_USERACCOUNTING_COMPLETE, FLAG_USEROBJACCOUNTING_COMPLETE,
};
use icecore_format::stream::{Object, Record, ToName, feature};
use icecore_format::{Blkptr, Compress, ObjectId, ObjectType};
use icecore_stream::receive::rules::{Rule, nblkptr_for};
use icecore_stream::receive::{Engine, ReceiveError, ReceiveSpec};

type Step<'a> = &'a dyn Fn(&mut dyn BlockWriter, &mut Objset);

/// Everything in a dataset, read with its key: dnodes without their pointers, bonus, blocks, spill blocks.
fn with_key(pool: &mut SimPool, name: &str) -> Vec<String> {
    let (io, dsl) = pool.pool().parts();
    let r = dsl.lookup_dataset(io, name).unwrap();
    let ds = dsl.dataset(io, r.obj).unwrap();
    let os = Objset::open(io, r.obj, &ds.bp, Want::Logical).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut out = vec![format!("metadnode {:?}", (os.meta().maxblkid(), os.meta().nlevels()))];
    let mut at = ObjectId(0);
    while let Some(obj) = os.next_object(io, at).unwrap_or_else(|e| panic!("{name} after {at}: {e}")) {
        at = obj;
        let dn = os.dnode(io, obj).unwrap();
        let shape = (dn.kind(), dn.block_size(), dn.slots(), dn.maxblkid(), dn.nlevels(), dn.indblkshift());
        let mut sum = icecore_format::fletcher::Fletcher4::ZERO;
        let mut holes = 0;
        for blkid in 0..=dn.maxblkid() {
            match os.block(io, obj, &dn, blkid).unwrap_or_else(|e| panic!("{name} {obj} {blkid}: {e}")) {
                Some(block) => sum.update(&block),
                None => holes += 1,
            }
        }
        let spill = os.spill(io, obj, &dn).unwrap_or_else(|e| panic!("{name} {obj} spill: {e}"));
        let spill = spill.map(|s| icecore_format::fletcher::Fletcher4::of(&s).words());
        out.push(format!("{obj} {shape:?} {:?} holes {holes} {spill:?} {:?}", sum.words(), dn.bonus()));
    }
    out
}

/// Takes a dataset through `steps` with a snapshot after each, sends each raw, and reads both sides.
fn through(name: &str, ashift: (u64, u64), props: &[(&str, &str)], steps: &[Step<'_>]) -> SimPool {
    let far_name = format!("{name}far");
    let size = &[256 << 20];
    let mut far = SimPool::made(&far_name, 1, size, ashift.0);
    let mut pool = SimPool::made(name, 2, size, ashift.1);
    let (src, dst) = (format!("{far_name}/e"), format!("{name}/e"));
    far.encrypted(&src, RAW_FORM, &KEY);
    {
        let (io, dsl) = far.pool().parts();
        let head = dsl.lookup_head(io, &src).unwrap();
        dsl.activate_feature(io, head.obj, icecore_dsl::Feature::LARGE_DNODE).unwrap();
    }
    for (prop, value) in props {
        let (io, dsl) = far.pool().parts();
        dsl.prop_set(io, &src, prop, value).unwrap();
        far.commit().unwrap();
    }
    let mut before: Option<String> = None;
    for (i, step) in steps.iter().enumerate() {
        far.change(&src, step);
        let snap = format!("s{i}");
        far.snapshot(&format!("{src}@{snap}"));
        let from = before.as_ref().map(|b| format!("{src}@{b}"));
        let stream = far.send(from.as_deref(), &format!("{src}@{snap}"), RAW).unwrap();
        // A txg for each record that carries data: nothing may depend on two of them sharing one.
        let spec = ReceiveSpec { commit_bytes: 1, ..to(&dst) };
        pool.receive(&stream, &spec).unwrap_or_else(|e| panic!("{name} step {i}: {e:?}"));
        pool.reopen();
        pool.unlock(&dst, &KEY).unwrap();
        far.reopen();
        far.unlock(&src, &KEY).unwrap();
        let names = [format!("{src}@{snap}"), format!("{dst}@{snap}")];
        let (theirs, ours) = (with_key(&mut far, &names[0]), with_key(&mut pool, &names[1]));
        assert_eq!(ours, theirs, "{name} step {i}");
        before = Some(snap);
    }
    pool.judge_blocks();
    pool
}

const ALIKE: (u64, u64) = (12, 12);

/// Noise of which half compresses.
fn fill(seed: u64, len: u64) -> Vec<u8> {
    let mut out = crate::make::noise(seed, len as usize);
    out[len as usize / 2..].fill(0);
    out
}

fn claim(io: &mut dyn BlockWriter, os: &mut Objset, id: u64, new: NewObject, blocks: &[u64]) {
    os.claim(io, ObjectId(id), &new).unwrap();
    for b in blocks {
        os.write(io, ObjectId(id), b * new.block_size, &fill(id + (b << 9), new.block_size)).unwrap();
    }
}
fn plain_file(size: u64) -> NewObject {
    NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, size)
}
/// A file with system attributes in its bonus.
fn sa_file(size: u64, len: u16) -> NewObject {
    plain_file(size).with_bonus(ObjectType::SA, len)
}
fn set_bonus(io: &dyn BlockStore, os: &mut Objset, id: u64, seed: u64) {
    let dn = os.edit(io, ObjectId(id)).unwrap();
    let mut bytes = crate::make::noise(seed, dn.bonus().len());
    bytes[..8].copy_from_slice(&[0x5a, 0x50, 0x2f, 0, 2, 8, 0, 0]);
    dn.bonus_mut().copy_from_slice(&bytes);
}
fn set_spill(io: &mut dyn BlockWriter, os: &mut Objset, id: u64, seed: u64, len: u64) {
    let compress = os.policy().meta_compress;
    let form = Form::Logical { compress, level: 0, encrypt: os.policy().encrypted };
    os.write_spill(io, ObjectId(id), len, fill(seed, len), form).unwrap();
}

#[test]
fn b10_a_truncated_file_is_as_short_as_the_senders() {
    let pool = &mut through(
        "b10",
        ALIKE,
        &[],
        &[
            &|io, os| {
                claim(io, os, 20, NewObject { indblkshift: 12, ..plain_file(4096) }, &[0, 1, 2, 40, 70])
            },
            &|io, os| os.free_range(io, ObjectId(20), 2, u64::MAX).unwrap(),
            &|io, os| os.write(io, ObjectId(20), 9 * 4096, &[3; 4096]).unwrap(),
            &|io, os| os.free_range(io, ObjectId(20), 0, u64::MAX).unwrap(),
        ],
    );
    let last = ["s0", "s1", "s2", "s3"].map(|s| pool.dnode(&format!("b10/e@{s}"), 20).maxblkid());
    assert_eq!(last, [70, 1, 9, 0]);
}

#[test]
fn b11_a_raw_free_does_not_shorten() {
    let g = 0x1000;
    let mut pool = SimPool::new("b11");
    let mut records = vec![raw_begin("a@s", (0, g), (0, 1), 9), range(g, 0, 1)];
    records.extend([
        raw_object(g, 2, 4096, 2, 9),
        raw_write(g, 2, 0, 4096, 4096),
        free(g, 2, 4096, u64::MAX),
    ]);
    records.extend([free(g, 2, 0, u64::MAX), end(g)]);
    pool.receive(&put_together(&records), &to("b11/x")).unwrap();
    let dn = pool.dnode("b11/x@s", 2);
    assert_eq!((dn.maxblkid(), dn.nlevels()), (9, 2));
}

#[test]
fn b12_objects_of_another_size_where_others_were() {
    let wide = |slots| NewObject { slots, ..sa_file(4096, 168) };
    through(
        "b12",
        ALIKE,
        &[],
        &[
            &|io, os| {
                for id in [132, 133, 134, 135, 140] {
                    claim(io, os, id, wide(1), &[0]);
                }
                claim(io, os, 136, wide(4), &[0, 1]);
            },
            &|io, os| {
                for id in [132, 133, 134, 135] {
                    os.free_object(io, ObjectId(id)).unwrap();
                }
                claim(io, os, 132, wide(4), &[0]); // over all four
                os.free_object(io, ObjectId(136)).unwrap();
                claim(io, os, 138, wide(2), &[0]); // inside what was wide
            },
            &|io, os| {
                os.free_object(io, ObjectId(132)).unwrap();
                os.free_object(io, ObjectId(138)).unwrap();
                for id in [132, 133, 134, 139] {
                    claim(io, os, id, wide(1), &[0, 3]);
                }
            },
        ],
    );
}

#[test]
fn b13_a_lower_tree() {
    let small = |size| NewObject { indblkshift: 12, ..plain_file(size) };
    let pool = &mut through(
        "b13",
        ALIKE,
        &[],
        &[&|io, os| claim(io, os, 20, small(512), &[0, 31, 40, 1100]), &|io, os| {
            os.free_object(io, ObjectId(20)).unwrap();
            claim(io, os, 20, small(512), &[0, 1]);
        }],
    );
    assert_eq!(pool.dnode("b13/e@s0", 20).nlevels(), 3);
    assert_eq!(pool.dnode("b13/e@s1", 20).nlevels(), 1);
}

#[test]
fn b14_other_indirect_blocks() {
    let with = |indblkshift| NewObject { indblkshift, ..plain_file(4096) };
    let pool = &mut through(
        "b14",
        ALIKE,
        &[],
        &[&|io, os| claim(io, os, 20, with(12), &[0, 33, 60]), &|io, os| {
            os.free_object(io, ObjectId(20)).unwrap();
            claim(io, os, 20, with(15), &[1, 300]);
        }],
    );
    let shifts = ["s0", "s1"].map(|s| pool.dnode(&format!("b14/e@{s}"), 20).indblkshift());
    assert_eq!(shifts, [12, 15]);
}

#[test]
fn b15_a_block_of_dnodes_that_are_all_free_is_a_hole() {
    let pool = &mut through(
        "b15",
        ALIKE,
        &[],
        &[
            &|io, os| {
                claim(io, os, 20, plain_file(4096), &[0]);
                claim(io, os, 70, plain_file(4096), &[0]);
                claim(io, os, 130, plain_file(4096), &[0]);
            },
            &|io, os| os.free_object(io, ObjectId(70)).unwrap(),
        ],
    );
    let (io, dsl) = pool.pool().parts();
    let block_of = |snap: &str| {
        let r = dsl.lookup_dataset(io, snap).unwrap();
        let os = dsl.objset(io, r.obj, Want::NoKey).unwrap();
        os.blkptr(io, ObjectId(0), os.meta(), 0, 2).unwrap()
    };
    assert!(!block_of("b15/e@s0").is_hole());
    assert!(block_of("b15/e@s1").is_hole());
}

/// Salt, IV and MAC of a block of dnodes come with one record and the dnodes with others: a commit between
/// any two of them loses nothing (`through` commits at each).
#[test]
fn b16_commits_between_a_range_and_its_objects() {
    let many = |io: &mut dyn BlockWriter, os: &mut Objset| {
        for id in 33..60 {
            claim(io, os, id, sa_file(512, 168), &[0]);
            set_bonus(io, os, id, id);
        }
    };
    through(
        "b16",
        ALIKE,
        &[],
        &[&|io, os| many(io, os), &|io, os| set_bonus(io, os, 47, 99), &|io, os| {
            os.write(io, ObjectId(59), 0, &[1; 512]).unwrap()
        }],
    );
}

#[test]
fn b17_frees_before_the_first_object_of_a_block() {
    through(
        "b17",
        ALIKE,
        &[],
        &[
            &|io, os| (32..64).for_each(|id| claim(io, os, id, plain_file(512), &[0])),
            // All go, and one comes back, at the end of the block.
            &|io, os| {
                (32..64).for_each(|id| os.free_object(io, ObjectId(id)).unwrap());
                claim(io, os, 63, plain_file(1024), &[0, 2]);
            },
        ],
    );
}

/// There, changed with the key, and back again.
#[test]
fn b18_back_to_where_it_came_from() {
    let (mut far, mut pool) = (SimPool::new("b18far"), SimPool::new("b18"));
    far.encrypted("b18far/e", RAW_FORM, &KEY);
    far.file("b18far/e", 20, 4096, 0..6, 1);
    far.snapshot("b18far/e@a");
    pool.receive(&far.send(None, "b18far/e@a", RAW).unwrap(), &to("b18/e")).unwrap();
    // What was not recomputed is not claimed: no local MAC, and it opens all the same.
    assert_eq!(pool.objset_phys("b18/e").local_mac(), [0; 32]);
    pool.unlock("b18/e", &KEY).unwrap();
    assert_eq!(with_key(&mut pool, "b18/e@a").len(), with_key_of(&mut far, "b18far/e@a").len());
    pool.file("b18/e", 20, 4096, 3..9, 2);
    pool.file("b18/e", 21, 512, 0..2, 3);
    pool.snapshot("b18/e@b");
    let back = pool.send(Some("b18/e@a"), "b18/e@b", RAW).unwrap();
    far.receive(&back, &to("b18far/e")).unwrap();
    far.reopen();
    far.unlock("b18far/e", &KEY).unwrap();
    assert_eq!(with_key(&mut far, "b18far/e@b"), with_key_of(&mut pool, "b18/e@b"));
    // And on from there.
    far.file("b18far/e", 21, 512, 1..5, 4);
    far.snapshot("b18far/e@c");
    pool.receive(&far.send(Some("b18far/e@b"), "b18far/e@c", RAW).unwrap(), &to("b18/e")).unwrap();
    pool.reopen();
    pool.unlock("b18/e", &KEY).unwrap();
    far.reopen();
    far.unlock("b18far/e", &KEY).unwrap();
    assert_eq!(with_key(&mut pool, "b18/e@c"), with_key(&mut far, "b18far/e@c"));
    far.judge_blocks();
    pool.judge_blocks();
}

/// The same after giving the newest snapshots their keys.
fn with_key_of(pool: &mut SimPool, snapshot: &str) -> Vec<String> {
    let (path, _) = snapshot.split_once('@').unwrap();
    let (io, dsl) = pool.pool().parts();
    let dir = dsl.lookup_dir(io, path).unwrap();
    let keys = dsl.master_keys(io, dir).unwrap().unwrap();
    for (_, snap) in dsl.snapshots(io, path).unwrap() {
        io.add_key(snap.obj, keys.clone());
    }
    with_key(pool, snapshot)
}

#[test]
fn b19_the_portable_mac_is_checked_though_the_local_one_is_absent() {
    let (mut far, mut pool) = (SimPool::new("b19far"), SimPool::new("b19"));
    far.encrypted("b19far/e", RAW_FORM, &KEY);
    far.file("b19far/e", 20, 4096, 0..6, 1);
    far.snapshot("b19far/e@a");
    let mut records: Vec<_> =
        take_apart(&far.send(None, "b19far/e@a", RAW).unwrap()).into_iter().map(|(_, r, p)| (r, p)).collect();
    // A forged MAC: the list in BEGIN holds it as it is.
    let mac = far.objset_phys("b19far/e@a").portable_mac();
    let list = &mut records[0].1;
    let at: Vec<usize> = (0..list.len() - 32).filter(|i| u8_words(&list[*i..], &mac)).collect();
    assert_eq!(at.len(), 1, "the list names the MAC once");
    list[at[0]] ^= 1;
    pool.receive(&put_together(&records), &to("b19/e")).unwrap();
    assert_eq!(pool.objset_phys("b19/e").local_mac(), [0; 32]);
    pool.unlock("b19/e", &KEY).unwrap();
    let got = pool.try_read("b19/e@a", 20, 0, 64).unwrap_err();
    is!(got, ReadError::Checksum { .. });
}

/// Byte arrays in a native list lie there byte by byte.
fn u8_words(list: &[u8], bytes: &[u8]) -> bool {
    list.starts_with(bytes)
}

#[test]
fn b20_accounting_is_not_claimed_complete() {
    let complete =
        FLAG_USERACCOUNTING_COMPLETE | FLAG_USEROBJACCOUNTING_COMPLETE | FLAG_PROJECTQUOTA_COMPLETE;
    let stream = std::fs::read(icecore_check::fixture::fixture("cold/main@root.raw-R.zfs")).unwrap();
    let mut pool = SimPool::new("b20");
    pool.receive(&stream, &crate::support::force("b20")).unwrap();
    for name in ["b20/encrypted/docs", "b20/encrypted/docs@root"] {
        assert_eq!(pool.objset_phys(name).flags() & complete, 0, "{name}");
    }
    // What comes plain is counted as it comes.
    for name in ["b20/plain", "b20/plain@root"] {
        assert_eq!(pool.objset_phys(name).flags() & complete, complete, "{name}");
        accounts::check_dataset(pool.pool(), name).unwrap();
    }
    // An increment over a dataset whose accounting is complete, as OpenZFS's own are.
    let image = icecore_sim::SimDisk::load(&icecore_check::fixture::fixture("cold/main.img")).unwrap();
    let mut pool = SimPool::on("main", std::sync::Arc::new(image), 1);
    assert_ne!(pool.objset_phys("main/encrypted/docs").flags() & complete, 0);
    let mut far = SimPool::new("b20far");
    let raw = pool.send(None, "main/encrypted/docs@newsnapshot", RAW).unwrap();
    far.receive(&raw, &to("b20far/docs")).unwrap();
    far.unlock("b20far/docs", b"correct horse battery staple").unwrap();
    far.file("b20far/docs", 5000, 4096, 0..1, 1);
    far.snapshot("b20far/docs@more");
    let next = far.send(Some("b20far/docs@newsnapshot"), "b20far/docs@more", RAW).unwrap();
    pool.receive(&next, &crate::support::force("main/encrypted/docs")).unwrap();
    let phys = pool.objset_phys("main/encrypted/docs");
    assert_eq!((phys.flags() & complete, phys.local_mac()), (0, [0; 32]));
    // Nothing of it was written with a key that is not there: it opens with the one that is.
    pool.reopen();
    pool.unlock("main/encrypted", b"correct horse battery staple").unwrap();
    assert_eq!(
        pool.try_read("main/encrypted/docs", 5000, 0, 64).unwrap(),
        far.read("b20far/docs", 5000, 0, 64)
    );
    // And whoever counts begins from nothing, so that what the stream changed is counted right.
    accounts::is_uncounted(pool.pool(), "main/encrypted/docs").unwrap();
    accounts::check_dataset(pool.pool(), "main/encrypted/docs@newsnapshot").unwrap();
    pool.judge();
}

/// Where the owners are seen, an increment is accounted for as it comes: over a dataset that OpenZFS had counted.
#[test]
fn b20_accounts_follow_a_decrypted_increment() {
    for (n, dataset) in ["main/plain", "main/encrypted/docs"].into_iter().enumerate() {
        let image = icecore_sim::SimDisk::load(&icecore_check::fixture::fixture("cold/main.img")).unwrap();
        let mut pool = SimPool::on("main", std::sync::Arc::new(image), 1);
        pool.unlock("main/encrypted", b"correct horse battery staple").unwrap();
        let mut far = SimPool::new(&format!("b20plain{n}"));
        let copy = format!("b20plain{n}/copy");
        let full = pool.send(None, &format!("{dataset}@newsnapshot"), PLAIN).unwrap();
        far.receive(&full, &to(&copy)).unwrap();
        accounts::work(far.pool(), &copy).unwrap();
        far.snapshot(&format!("{copy}@more"));
        let next = far.send(Some(&format!("{copy}@newsnapshot")), &format!("{copy}@more"), PLAIN).unwrap();
        pool.receive(&next, &crate::support::force(dataset)).unwrap();
        accounts::check_dataset(pool.pool(), dataset).unwrap();
        pool.reopen();
        pool.unlock("main/encrypted", b"correct horse battery staple").unwrap();
        accounts::check_dataset(pool.pool(), &format!("{dataset}@more")).unwrap();
        assert_ne!(pool.objset_phys(dataset).flags() & FLAG_USERACCOUNTING_COMPLETE, 0);
        pool.judge();
    }
}

#[test]
fn b21_opening_a_pool_changes_no_locked_dataset() {
    let image = icecore_sim::SimDisk::load(&icecore_check::fixture::fixture("cold/main.img")).unwrap();
    let mut pool = SimPool::on("main", std::sync::Arc::new(image), 1);
    let roots = |pool: &mut SimPool| {
        let (io, dsl) = pool.pool().parts();
        let mut out = Vec::new();
        for path in dsl.descendants(io, "main").unwrap() {
            let head = dsl.lookup_head(io, &path).unwrap();
            out.push((path, dsl.dataset(io, head.obj).unwrap().bp));
        }
        out
    };
    // The volume has an intent log, which waits for the key: it is claimed, once, as OpenZFS does it. That changes the
    // log's header, which no MAC covers, and nothing else of the objset.
    let logged = "main/encrypted/vol";
    let others =
        |all: &[(String, Blkptr)]| all.iter().filter(|(n, _)| n != logged).cloned().collect::<Vec<_>>();
    let without_log = |pool: &mut SimPool| {
        let mut bytes = pool.objset_phys(logged).as_bytes().to_vec();
        bytes[ZIL_HEADER].fill(0);
        bytes
    };
    let (before, objset) = (roots(&mut pool), without_log(&mut pool));
    pool.commit_and_reopen();
    let claimed = roots(&mut pool);
    assert!(others(&claimed) == others(&before));
    assert!(without_log(&mut pool) == objset);
    for _ in 0..2 {
        pool.commit_and_reopen();
    }
    assert!(roots(&mut pool) == claimed);
}

/// Where `objset_phys_t` has the header of its log (dmu_objset.h).
const ZIL_HEADER: std::ops::Range<usize> = 512..512 + 192;

/// From small sectors to large ones and back: what is stored is as long as the stream says, not as its space.
#[test]
fn b22_ciphertext_into_larger_sectors() {
    for ashift in [(9, 12), (9, 13), (12, 9), (12, 13), (13, 9)] {
        let name = format!("b22x{}x{}", ashift.0, ashift.1);
        let step = |seed: u64| {
            move |io: &mut dyn BlockWriter, os: &mut Objset| {
                let id = 20 + seed;
                os.claim(io, ObjectId(id), &plain_file(16384)).unwrap();
                for b in 0..12_u64 {
                    let mut data = vec![0; 16384];
                    let len = (700 + 1300 * b) as usize;
                    data[..len].copy_from_slice(&crate::make::noise(seed + b, len));
                    os.write(io, ObjectId(id), b * 16384, &data).unwrap();
                }
            }
        };
        let pool = &mut through(&name, ashift, &[("compression", "lz4")], &[&step(1), &step(2)]);
        let sizes: Vec<u64> = blocks(pool, &format!("{name}/e@s1"), 21).iter().map(Blkptr::psize).collect();
        assert!(sizes.iter().any(|s| *s < 16384), "{sizes:?}");
    }
}

/// Pointers of the blocks of an object.
fn blocks(pool: &mut SimPool, name: &str, object: u64) -> Vec<Blkptr> {
    let (io, dsl) = pool.pool().parts();
    let r = dsl.lookup_dataset(io, name).unwrap();
    let os = dsl.objset(io, r.obj, Want::NoKey).unwrap();
    let dn = os.dnode(io, ObjectId(object)).unwrap();
    (0..=dn.maxblkid()).map(|b| os.blkptr(io, ObjectId(object), &dn, 0, b).unwrap()).collect()
}

#[test]
fn b23_compressed_or_not_is_said_not_guessed() {
    for (from, into) in [(9, 12), (9, 13), (12, 9)] {
        let (mut far, mut pool) =
            (SimPool::made("b23far", 1, &[128 << 20], from), SimPool::made("b23", 2, &[128 << 20], into));
        far.filesystem("b23far/p");
        let (io, dsl) = far.pool().parts();
        dsl.prop_set(io, "b23far/p", "compression", "lz4").unwrap();
        far.change("b23far/p", |io, os| {
            os.claim(io, ObjectId(20), &plain_file(4096)).unwrap();
            // One that lz4 cannot shorten, one that it shortens to what a large sector pads to a whole.
            os.write(io, ObjectId(20), 0, &crate::make::noise(1, 4096)).unwrap();
            let mut data = crate::make::noise(2, 4096);
            data[3000..].fill(0);
            os.write(io, ObjectId(20), 4096, &data).unwrap();
        });
        far.snapshot("b23far/p@s");
        let stream = far.send(None, "b23far/p@s", LEC).unwrap();
        pool.receive(&stream, &to("b23/p")).unwrap();
        let got = blocks(&mut pool, "b23/p@s", 20);
        assert_eq!(got[0].compress(), Compress::OFF);
        assert_eq!(pool.contents("b23/p@s"), far.contents("b23far/p@s"));
        pool.judge_blocks();
    }
}

/// Salt and IV of an encrypted block live where a gang's third pointer would be.
#[test]
fn b24_encrypted_blocks_in_parts() {
    let (mut far, mut pool) = (SimPool::new("b24far"), SimPool::new("b24"));
    far.pool().io_mut().force_ganging(12 << 10);
    far.encrypted("b24far/e", RAW_FORM, &KEY);
    far.file("b24far/e", 20, 65536, 0..5, 1);
    far.snapshot("b24far/e@a");
    far.file("b24far/e", 20, 65536, 3..7, 2);
    far.snapshot("b24far/e@b");
    pool.pool().io_mut().force_ganging(8 << 10);
    pool.receive(&far.send(None, "b24far/e@a", RAW).unwrap(), &to("b24/e")).unwrap();
    pool.pool().io_mut().force_ganging(4 << 10); // parts of parts
    pool.receive(&far.send(Some("b24far/e@a"), "b24far/e@b", RAW).unwrap(), &to("b24/e")).unwrap();
    assert!(blocks(&mut pool, "b24/e@b", 20).iter().all(Blkptr::is_gang));
    assert!(blocks(&mut far, "b24far/e@b", 20).iter().all(Blkptr::is_gang));
    pool.reopen();
    pool.unlock("b24/e", &KEY).unwrap();
    assert_eq!(with_key(&mut pool, "b24/e@b"), with_key_of(&mut far, "b24far/e@b"));
    pool.judge_blocks();
}

#[test]
fn b25_spill_blocks_travel_as_they_are_stored() {
    through(
        "b25",
        (9, 12),
        &[("compression", "lz4")],
        &[&|io, os| {
            for (id, len) in [(20, 512), (21, 1536), (22, 16384), (23, 131_072)] {
                claim(io, os, id, sa_file(4096, 168), &[0]);
                set_bonus(io, os, id, id);
                set_spill(io, os, id, id, len);
            }
        }],
    );
}

/// Attributes that grow into a spill block, change there, shrink, and go; with the file's blocks as they
/// were, and with a file that shrinks at the same time.
#[test]
fn b26_spill_blocks_come_and_go_with_increments() {
    let steps: &[Step<'_>] = &[
        &|io, os| {
            for id in 20..26 {
                claim(io, os, id, NewObject { indblkshift: 12, ..sa_file(4096, 168) }, &[0, 40]);
                set_bonus(io, os, id, id);
            }
            set_spill(io, os, 21, 1, 512);
            set_spill(io, os, 22, 1, 1024);
            set_spill(io, os, 24, 1, 512);
        },
        &|io, os| {
            set_spill(io, os, 20, 2, 512); // grown
            set_spill(io, os, 21, 2, 8192); // larger
            os.remove_spill(io, ObjectId(22)).unwrap(); // gone
            os.write(io, ObjectId(24), 0, &[9; 4096]).unwrap(); // only the data
            os.free_range(io, ObjectId(24), 1, u64::MAX).unwrap();
        },
        &|io, os| {
            set_spill(io, os, 21, 3, 512); // smaller
            set_bonus(io, os, 20, 77); // beside one that stays
            os.free_object(io, ObjectId(24)).unwrap(); // another file, without
            claim(io, os, 24, sa_file(4096, 168), &[0]);
            os.free_object(io, ObjectId(25)).unwrap(); // another file, with
            claim(io, os, 25, sa_file(512, 168), &[0]);
            set_spill(io, os, 25, 4, 512);
        },
    ];
    through("b26", ALIKE, &[], steps);
    // And decrypted by the sender.
    let (mut far, mut pool) = (SimPool::new("b26pfar"), SimPool::new("b26p"));
    far.filesystem("b26pfar/p");
    let mut before: Option<String> = None;
    for (i, step) in steps.iter().enumerate() {
        far.change("b26pfar/p", step);
        let snap = format!("b26pfar/p@s{i}");
        far.snapshot(&snap);
        let stream = far.send(before.as_deref(), &snap, PLAIN).unwrap();
        pool.receive(&stream, &ReceiveSpec { commit_bytes: 1, ..to("b26p/p") }).unwrap();
        assert_eq!(spills(&mut pool, &format!("b26p/p@s{i}")), spills(&mut far, &snap), "step {i}");
        before = Some(snap);
    }
}

fn spills(pool: &mut SimPool, name: &str) -> Vec<(u64, Option<Vec<u8>>)> {
    let (io, dsl) = pool.pool().parts();
    let r = dsl.lookup_dataset(io, name).unwrap();
    let os = dsl.objset(io, r.obj, Want::Logical).unwrap();
    let of = |id| {
        let dn = os.dnode(io, ObjectId(id)).unwrap();
        (id, os.spill(io, ObjectId(id), &dn).unwrap().map(|s| s.to_vec()))
    };
    (20..26).map(of).collect()
}

#[test]
fn b27_block_pointers_of_large_dnodes() {
    // Bonus room of a dnode with one pointer is 512 * slots - 192; each pointer more takes 128 bytes.
    let none = ObjectType::NONE;
    let acl = ObjectType::ACL;
    for (kind, len, slots, want) in [
        (none, 0, 1, 3),
        (acl, 64, 1, 3),
        (acl, 65, 1, 2),
        (acl, 192, 1, 2),
        (acl, 193, 1, 1),
        (acl, 320, 1, 1),
        (acl, 192, 2, 3),
        (acl, 577, 2, 2),
        (acl, 832, 2, 1),
        (acl, 16192 - 256, 32, 3),
        (acl, 16192 - 255, 32, 2),
        (acl, 16192, 32, 1),
        (ObjectType::SA, 0, 1, 1),
        (ObjectType::SA, 168, 32, 1),
    ] {
        assert_eq!(nblkptr_for(kind, len, slots), want, "{kind:?} {len} {slots}");
    }
    for slots in 1..=32_u8 {
        let kinds = [plain_file(4096).with_bonus(ObjectType::ACL, 120), sa_file(4096, 168), plain_file(4096)];
        if ![1, 2, 3, 8, 31, 32].contains(&slots) {
            continue;
        }
        through(
            &format!("b27x{slots}"),
            ALIKE,
            &[],
            &[&|io, os| {
                for (i, kind) in kinds.iter().enumerate() {
                    claim(io, os, 32 * (1 + i as u64), NewObject { slots, ..*kind }, &[0, 5]);
                }
            }],
        );
    }
    // Senders from before large dnodes leave the number of slots 0.
    let mut pool = SimPool::new("b27");
    let o = Object { object: 9, object_type: FILE, blksz: 4096, dn_slots: 0, toguid: 7, ..Object::default() };
    let records =
        [(begin("a@s", 7, 0, 0).into(), vec![]), (o.into(), vec![]), chunk(9, 0, 4096, 5, 7), end(7)];
    pool.receive(&put_together(&records), &to("b27/x")).unwrap();
    let dn = pool.dnode("b27/x@s", 9);
    assert_eq!((dn.slots(), dn.nblkptr()), (1, 3));
    pool.judge_blocks();
}

/// OpenZFS says "destination already exists" where a freed number lies inside a large dnode.
#[test]
fn b28_frees_of_what_lies_inside_a_dnode_or_never_was() {
    let mut pool = SimPool::new("b28");
    let file = |object, dn_slots, toguid| {
        let o = Object { object, object_type: FILE, blksz: 4096, dn_slots, toguid, ..Object::default() };
        (Record::from(o), Vec::new())
    };
    let stream = |from, to: u64, middle: Vec<(Record, Vec<u8>)>| {
        let first = begin(&format!("a@s{to}"), to, from, feature::LARGE_DNODE);
        let mut all = vec![(first.into(), Vec::new())];
        all.extend(middle);
        all.push(end(to));
        put_together(&all)
    };
    let first = vec![file(8, 8, 1), chunk(8, 0, 4096, 1, 1), file(20, 1, 1), chunk(20, 0, 4096, 2, 1)];
    let spec = ReceiveSpec { commit_bytes: 1, ..to("b28/x") };
    pool.receive(&stream(0, 1, first), &spec).unwrap();
    let before = pool.contents("b28/x");
    let second = vec![
        free_objects(2, 0, 1),
        free_objects(2, 9, 3),        // inside 8
        free_objects(2, 15, 5),       // inside 8 and behind it
        free_objects(2, 21, 1 << 47), // never were
        free_objects(2, 1 << 47, 9),
    ];
    pool.receive(&stream(1, 2, second), &spec).unwrap();
    assert_eq!(pool.contents("b28/x"), before);
    pool.receive(&stream(2, 3, vec![free_objects(3, 8, 1), file(12, 2, 3), free_objects(3, 14, 40)]), &spec)
        .unwrap();
    assert_eq!(pool.contents("b28/x").into_keys().collect::<Vec<_>>(), [12]);
    // Raw, over blocks of dnodes that then are holes.
    pool.receive(&put_together(&raw_full()), &to("b28/r")).unwrap();
    let mut next = raw_next(9);
    next.insert(1, free_objects(0x2000, 9, 3));
    let last = next.len() - 1;
    next.insert(last, free_objects(0x2000, 32, 1 << 46));
    pool.receive(&put_together(&next), &to("b28/r")).unwrap();
    assert!(pool.contents("b28/r").into_keys().all(|id| id < 32));
    pool.judge_blocks();
}

/// Dnodes grow over their neighbours and shrink again, with commits between all records (B12, B28).
#[test]
fn b28_dnodes_of_changing_size() {
    let mut pool = SimPool::new("slots");
    let o = |object, dn_slots, toguid| {
        let o = Object { object, object_type: FILE, blksz: 4096, dn_slots, toguid, ..Object::default() };
        (Record::from(o), Vec::new())
    };
    let stream = |from, to: u64, records: Vec<(Record, Vec<u8>)>| {
        let mut all = vec![(begin(&format!("a@s{to}"), to, from, feature::LARGE_DNODE).into(), Vec::new())];
        all.extend(records);
        all.push(end(to));
        put_together(&all)
    };
    let w = |object, toguid| chunk(object, 0, 4096, object as u8, toguid);
    let first = vec![o(4, 1, 1), w(4, 1), o(5, 1, 1), w(5, 1), o(8, 4, 1), w(8, 1), o(12, 1, 1), w(12, 1)];
    let spec = ReceiveSpec { commit_bytes: 1, ..to("slots/x") };
    pool.receive(&stream(0, 1, first), &spec).unwrap();
    let second = vec![
        o(4, 4, 2),
        w(4, 2),
        free_objects(2, 8, 1),
        free_objects(2, 9, 2), // slots inside what was just freed
        o(9, 2, 2),
        w(9, 2),
        free_objects(2, 14, 18),
    ];
    pool.receive(&stream(1, 2, second), &spec).unwrap();
    let shapes: Vec<u64> = pool.contents("slots/x").into_keys().collect();
    assert_eq!(shapes, [4, 9, 12]);
    assert_eq!(pool.contents("slots/x@s1").into_keys().collect::<Vec<_>>(), [4, 5, 8, 12]);
    pool.judge();
}

/// No block of an encrypted dataset is without its crypt bit, and one that claims to be is not taken.
#[test]
fn b29_no_plain_block_in_an_encrypted_dataset() {
    let (mut far, mut pool) = (SimPool::new("b29far"), SimPool::new("b29"));
    far.encrypted("b29far/e", RAW_FORM, &KEY);
    for object in [20, 21] {
        far.file("b29far/e", object, 4096, 0..40, object);
    }
    far.snapshot("b29far/e@a");
    far.file("b29far/e", 20, 4096, 30..60, 5);
    far.snapshot("b29far/e@b");
    pool.receive(&far.send(None, "b29far/e@a", RAW).unwrap(), &to("b29/e")).unwrap();
    pool.unlock("b29/e", &KEY).unwrap();
    with_key_of(&mut far, "b29far/e@b");
    let plain = far.send(Some("b29far/e@a"), "b29far/e@b", PLAIN).unwrap();
    pool.receive(&plain, &ReceiveSpec { allow_ivset_divergence: true, ..to("b29/e") }).unwrap();
    for snap in ["b29/e@a", "b29/e@b"] {
        for object in [20, 21] {
            let bps = blocks(&mut pool, snap, object);
            assert!(bps.iter().all(|bp| bp.is_hole() || bp.is_encrypted()), "{snap} {object}");
        }
    }
    // Embedded blocks have no room for a MAC: they are not for encrypted datasets.
    let mut records: Vec<_> = take_apart(&plain).into_iter().map(|(_, r, p)| (r, p)).collect();
    if let Record::Begin(b) = &mut records[0].0 {
        b.set_features(b.features() | feature::EMBED_DATA | feature::LZ4);
        b.toguid = 0x77;
        b.toname = ToName::new("b29far/e@c").unwrap();
    }
    let got = pool.receive(&put_together(&records), &to("b29/e")).unwrap_err();
    is!(got, ReceiveError::EmbeddedIntoEncrypted(_));
    // A raw record without compression or with no stored length has no ciphertext.
    let mut bad = raw_full();
    for (r, payload) in &mut bad {
        if let Record::Write(w) = r {
            w.compression_type = 0;
            payload.resize(w.logical_size as usize, 0);
        }
    }
    let got = pool.receive(&put_together(&bad), &to("b29/r")).unwrap_err();
    let ReceiveError::Record { refusal, .. } = got else { panic!("{got:?}") };
    assert_eq!(refusal.rule, Rule::MustNotBeZero);
}
