//! Promotions in real pools, each step judged by `zdb` (`ICECORE_ZDB=1`): clones of clones, also encrypted ones,
//! whose encryption root moves with the promotion.

use crate::support::{create, disks, env, judge, open};
use icecore_dmu::{BlockStore, NewObject, Want};
use icecore_dsl::keystore::wrapping_key;
use icecore_dsl::{DslError, KeyForm, NewKey};
use icecore_format::{ObjectId, ObjectType};
use icecore_pool::{Mode, Pool};
use icecore_transform::crypt::Suite;
use icecore_vdev::create::NewKind;

const BLOCK: u64 = 16384;

fn write(pool: &mut Pool, name: &str, blocks: std::ops::Range<u64>, seed: u64) {
    let (io, dsl) = pool.parts();
    let head = dsl.lookup_dataset(io, name).unwrap();
    let os = dsl.open_dataset(io, head.obj).unwrap();
    if os.dnode(io, ObjectId(20)).is_err() {
        let new = NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, BLOCK);
        os.claim(io, ObjectId(20), &new).unwrap();
    }
    for b in blocks {
        os.write(io, ObjectId(20), b * BLOCK, &block(b, seed)).unwrap();
    }
    pool.commit().unwrap();
}

fn block(b: u64, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b;
    let mut next = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (x >> 40) as u8
    };
    (0..BLOCK).map(|_| next()).collect()
}

fn reads(pool: &Pool, name: &str, b: u64, seed: u64) {
    let (io, dsl): (&dyn BlockStore, _) = (pool.io(), &pool.dsl);
    let r = dsl.lookup_dataset(io, name).unwrap();
    let os = dsl.objset(io, r.obj, Want::Logical).unwrap();
    assert!(os.read(io, ObjectId(20), b * BLOCK, 16384).unwrap() == block(b, seed), "{name} {b}");
}

fn snap(pool: &mut Pool, name: &str) {
    let (io, dsl) = pool.parts();
    dsl.snapshot(io, &[name], &[]).unwrap();
    pool.commit().unwrap();
}

fn clone(pool: &mut Pool, snap: &str, name: &str) {
    let (io, dsl) = pool.parts();
    let origin = dsl.lookup_snapshot(io, snap).unwrap();
    let made = dsl.clone_snapshot(io, origin, name).unwrap();
    if let Some(keys) = dsl.master_keys(io, made.dir).unwrap() {
        io.add_key(made.obj, keys);
    }
    pool.commit().unwrap();
}

fn promote(pool: &mut Pool, name: &str) -> Result<(), DslError> {
    let (io, dsl) = pool.parts();
    dsl.promote(io, name)?;
    pool.commit().unwrap();
    Ok(())
}

fn get(pool: &Pool, name: &str, prop: &str) -> String {
    pool.dsl.prop(pool.io(), name, prop).unwrap().unwrap().value
}

#[test]
fn clones_of_clones_change_places() {
    let disks = disks(1, 96 << 20);
    let mut pool = create(env(31), "prom", &disks, NewKind::Single, 12);
    {
        let (io, dsl) = pool.parts();
        dsl.create_filesystem(io, "prom/a", &[("compression", "off"), ("recordsize", "16K")]).unwrap();
    }
    write(&mut pool, "prom/a", 0..20, 1);
    snap(&mut pool, "prom/a@1");
    write(&mut pool, "prom/a", 5..15, 2);
    snap(&mut pool, "prom/a@2");
    {
        let (io, dsl) = pool.parts();
        dsl.bookmark_create(io, "prom/a#one", "prom/a@1").unwrap();
    }
    clone(&mut pool, "prom/a@2", "prom/b");
    write(&mut pool, "prom/a", 10..25, 3);
    write(&mut pool, "prom/b", 0..8, 4);
    snap(&mut pool, "prom/b@3");
    clone(&mut pool, "prom/b@3", "prom/c");
    clone(&mut pool, "prom/a@1", "prom/d");
    write(&mut pool, "prom/c", 3..4, 5);
    write(&mut pool, "prom/d", 3..9, 6);
    judge("prom", &disks);
    // The youngest first: from its parent, then from the root of all.
    for (step, name) in ["prom/c", "prom/c", "prom/d", "prom/a", "prom/b"].into_iter().enumerate() {
        promote(&mut pool, name).unwrap_or_else(|e| panic!("{step} {name}: {e}"));
        judge("prom", &disks);
        for (name, at, seed) in
            [("a", 12, 3), ("a", 7, 2), ("b", 2, 4), ("b", 12, 2), ("c", 3, 5), ("d", 3, 6), ("d", 12, 1)]
        {
            reads(&pool, &format!("prom/{name}"), at, seed);
        }
    }
    // All of it goes again: nothing may stay behind.
    {
        let (io, dsl) = pool.parts();
        let mut left: Vec<String> = dsl.descendants(io, "prom").unwrap().split_off(1);
        while !left.is_empty() {
            let n = left.len();
            left.retain(|name| {
                for (s, _) in dsl.snapshots(io, name).unwrap() {
                    drop(dsl.destroy_snapshot(io, &format!("{name}@{s}"), false));
                }
                dsl.destroy_head(io, name).is_err()
            });
            assert!(left.len() < n, "{left:?}");
        }
    }
    pool.commit().unwrap();
    pool.export().unwrap();
    judge("prom", &disks);
}

#[test]
fn the_encryption_root_moves_with_the_promotion() {
    let disks = disks(1, 96 << 20);
    let mut pool = create(env(32), "prom", &disks, NewKind::Single, 12);
    let form = KeyForm { keyformat: 1, salt: 0, iters: 0 };
    let key = |b: u8| NewKey {
        suite: Suite::Aes256Gcm,
        form,
        wrapping: wrapping_key(form, &[b; 32]).unwrap(),
        keylocation: format!("file:///key{b}"),
    };
    {
        let (io, dsl) = pool.parts();
        for (name, root) in [("prom/e", Some(1)), ("prom/e/k", None), ("prom/f", Some(2))] {
            let made = match root {
                Some(b) => dsl.create_encrypted(io, name, &[], &key(b)).unwrap(),
                None => dsl.create_filesystem(io, name, &[]).unwrap(),
            };
            let keys = dsl.master_keys(io, made.dir).unwrap().unwrap();
            io.add_key(made.obj, keys);
        }
    }
    pool.commit().unwrap();
    write(&mut pool, "prom/e", 0..6, 1);
    write(&mut pool, "prom/e/k", 0..6, 2);
    snap(&mut pool, "prom/e@s");
    snap(&mut pool, "prom/e/k@s");
    clone(&mut pool, "prom/e@s", "prom/c");
    clone(&mut pool, "prom/e/k@s", "prom/f/k");
    clone(&mut pool, "prom/e/k@s", "prom/e/l");
    write(&mut pool, "prom/c", 2..3, 3);
    judge("prom", &disks);
    // Its origin takes its key from a root that the clone does not hang below.
    let refused = promote(&mut pool, "prom/f/k");
    assert!(matches!(refused, Err(DslError::OutsideRoot(_))), "{refused:?}");
    promote(&mut pool, "prom/e/l").unwrap();
    judge("prom", &disks);
    promote(&mut pool, "prom/c").unwrap();
    judge("prom", &disks);
    for (name, root) in
        [("prom/e", "prom/c"), ("prom/e/k", "prom/c"), ("prom/c", "prom/c"), ("prom/f", "prom/f")]
    {
        assert_eq!(get(&pool, name, "encryptionroot"), root, "{name}");
    }
    assert_eq!(get(&pool, "prom/c", "keylocation"), "file:///key1");
    assert_eq!(get(&pool, "prom/c", "keystatus"), "available");
    pool.export().unwrap();
    let mut pool = open(env(33), &disks, Mode::Write).unwrap();
    {
        let (io, dsl) = pool.parts();
        for (objset, keys) in dsl.load_key(io, "prom/c", &[1; 32]).unwrap() {
            io.add_key(objset, keys);
        }
        dsl.change_key(io, "prom/c", key(9)).unwrap();
    }
    pool.commit().unwrap();
    pool.export().unwrap();
    judge("prom", &disks);
    let mut pool = open(env(34), &disks, Mode::ReadOnly).unwrap();
    {
        let (io, dsl) = pool.parts();
        for (objset, keys) in dsl.load_key(io, "prom/c", &[9; 32]).unwrap() {
            io.add_key(objset, keys);
        }
    }
    reads(&pool, "prom/e", 2, 1);
    reads(&pool, "prom/c", 2, 3);
    reads(&pool, "prom/e/k", 5, 2);
    reads(&pool, "prom/f/k", 5, 2);
}
