//! Datasets in real pools: what OpenZFS printed of its own pools must be what we print, and what we do to
//! datasets must leave a pool that `zdb` finds no fault with.
//!
//! The repository has one such pool, `main`. `ICECORE_ZOO` is the folder of more images, `ICECORE_ZOO_EXPECTED`
//! that of the `NAME.expected` folders (at any depth below) with what `zfs get` and `zfs list` said.

use crate::support::{create, disks, env, host, judge, open};
use icecore_check::zoo;
use icecore_dmu::{BlockStore, NewObject};
use icecore_dsl::{Feature, KeyForm, NewKey};
use icecore_env::{Access, Device, FileDevice};
use icecore_format::{ObjectId, ObjectType};
use icecore_pool::{Mode, OpenSpec, Pool};
use icecore_transform::crypt::{Suite, WrappingKey};
use icecore_vdev::create::NewKind;
use std::path::Path;
use std::sync::Arc;

#[test]
fn every_property_as_openzfs_prints_it() {
    let mut expected = vec![icecore_check::fixture::tests_data()];
    expected.extend(zoo::folders().map(|(_, expected)| expected));
    let mut bad = Vec::new();
    for image in zoo::IMAGES {
        let name = image.pool;
        let Some(files) = crate::walk::zoo(image.files) else { continue };
        let dir = expected.iter().find_map(|under| zoo::find(under, &format!("{name}.expected")));
        let Some(dir) = dir.filter(|dir| dir.join("get.tsv").exists()) else {
            eprintln!("SKIPPED: no {name}.expected/get.tsv in the repository or below ICECORE_ZOO_EXPECTED");
            continue;
        };
        let pool = zoo::open(&files).unwrap();
        let case = zoo::Case { pool: name.into(), files, expected: None, keys: dir.clone(), damaged: false };
        let wrong = zoo::words(&case, &pool, &dir).get;
        eprintln!("{name}: {} lines differ", wrong.len());
        bad.extend(wrong);
    }
    assert!(bad.is_empty(), "{}\n{} lines differ", bad.join("\n"), bad.len());
}

fn write(pool: &mut Pool, name: &str, object: u64, blocks: std::ops::Range<u64>, seed: u64) {
    let (io, dsl) = pool.parts();
    let head = dsl.lookup_dataset(io, name).unwrap();
    let os = dsl.open_dataset(io, head.obj).unwrap();
    if os.dnode(io, ObjectId(object)).is_err() {
        os.claim(io, ObjectId(object), &NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, 16384)).unwrap();
    }
    for b in blocks {
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b;
        let data: Vec<u8> = (0..16384)
            .map(|_| {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (x >> 40) as u8
            })
            .collect();
        os.write(io, ObjectId(object), b * 16384, &data).unwrap();
    }
}

fn snap(pool: &mut Pool, name: &str) {
    let (io, dsl) = pool.parts();
    dsl.snapshot(io, &[name], &[]).unwrap();
    pool.commit().unwrap();
}

#[test]
fn a_life_of_snapshots_clones_and_bookmarks_that_zdb_believes() {
    let disks = disks(2, 96 << 20);
    let mut pool = create(env(3), "life", &disks, NewKind::Mirror, 12);
    {
        let (io, dsl) = pool.parts();
        dsl.create_filesystem(io, "life/a", &[("compression", "off"), ("recordsize", "16K")]).unwrap();
        dsl.create_filesystem(io, "life/a/b", &[]).unwrap();
    }
    pool.commit().unwrap();
    write(&mut pool, "life/a", 20, 0..40, 1);
    pool.commit().unwrap();
    snap(&mut pool, "life/a@one");
    write(&mut pool, "life/a", 20, 10..30, 2);
    write(&mut pool, "life/a/b", 20, 0..9, 3);
    pool.commit().unwrap();
    snap(&mut pool, "life/a@two");
    write(&mut pool, "life/a", 20, 20..60, 4);
    pool.commit().unwrap();
    snap(&mut pool, "life/a@three");
    {
        let (io, dsl) = pool.parts();
        let two = dsl.lookup_snapshot(io, "life/a@two").unwrap();
        dsl.clone_snapshot(io, two, "life/clone").unwrap();
        dsl.bookmark_create(io, "life/a#two", "life/a@two").unwrap();
        dsl.hold(io, "life/a@three", "keep").unwrap();
    }
    pool.commit().unwrap();
    write(&mut pool, "life/clone", 20, 5..25, 5);
    pool.commit().unwrap();
    judge("life", &disks);
    {
        let (io, dsl) = pool.parts();
        dsl.destroy_snapshot(io, "life/a@one", false).unwrap();
        assert!(dsl.destroy_snapshot(io, "life/a@two", false).is_err());
    }
    pool.commit().unwrap();
    judge("life", &disks);
    {
        let (io, dsl) = pool.parts();
        dsl.destroy_head(io, "life/clone").unwrap();
        dsl.destroy_snapshot(io, "life/a@two", false).unwrap();
    }
    pool.commit().unwrap();
    write(&mut pool, "life/a", 20, 0..5, 6);
    pool.commit().unwrap();
    {
        let (io, dsl) = pool.parts();
        dsl.rollback(io, "life/a", Some("three")).unwrap();
    }
    pool.commit().unwrap();
    judge("life", &disks);
    {
        let (io, dsl) = pool.parts();
        dsl.bookmark_destroy(io, "life/a#two").unwrap();
        dsl.release(io, "life/a@three", "keep").unwrap();
        dsl.destroy_snapshot(io, "life/a@three", false).unwrap();
        dsl.destroy_head(io, "life/a/b").unwrap();
        dsl.destroy_head(io, "life/a").unwrap();
    }
    pool.commit().unwrap();
    pool.export().unwrap();
    judge("life", &disks);
    let pool = open(env(4), &disks, Mode::ReadOnly).unwrap();
    assert_eq!(pool.dsl.descendants(pool.io(), "life").unwrap(), ["life"]);
}

#[test]
fn encrypted_datasets_are_made_locked_and_unlocked() {
    let disks = disks(1, 96 << 20);
    let mut pool = create(env(5), "vault", &disks, NewKind::Single, 12);
    let pass = b"correct horse battery staple";
    let form = KeyForm { keyformat: 3, salt: 0x1234_5678, iters: 100_000 };
    {
        let (io, dsl) = pool.parts();
        let wrapping = icecore_dsl::keystore::wrapping_key(form, pass).unwrap();
        let key = NewKey { suite: Suite::Aes256Gcm, form, wrapping, keylocation: "prompt".into() };
        let root = dsl.create_encrypted(io, "vault/e", &[], &key).unwrap();
        let child = dsl.create_filesystem(io, "vault/e/child", &[]).unwrap();
        for r in [root, child] {
            let keys = dsl.master_keys(io, r.dir).unwrap().unwrap();
            io.add_key(r.obj, keys);
        }
    }
    pool.commit().unwrap();
    write(&mut pool, "vault/e/child", 20, 0..9, 1);
    pool.commit().unwrap();
    snap(&mut pool, "vault/e/child@s");
    assert_eq!(pool.dsl.feature_refcount(pool.io(), Feature::ENCRYPTION).unwrap(), Some(3));
    pool.export().unwrap();
    judge("vault", &disks);

    let mut pool = open(env(6), &disks, Mode::Write).unwrap();
    let get =
        |pool: &Pool, name: &str, prop: &str| pool.dsl.prop(pool.io(), name, prop).unwrap().unwrap().value;
    assert_eq!(get(&pool, "vault/e/child", "keystatus"), "unavailable");
    assert_eq!(get(&pool, "vault/e/child", "encryptionroot"), "vault/e");
    assert!(pool.dsl.check_key(pool.io(), "vault/e", b"wrong horse").is_err());
    {
        let (io, dsl) = pool.parts();
        for (objset, keys) in dsl.load_key(io, "vault/e", pass).unwrap() {
            io.add_key(objset, keys);
        }
        let snap = dsl.lookup_snapshot(io, "vault/e/child@s").unwrap();
        let os = dsl.objset(io, snap.obj, icecore_dmu::Want::Logical).unwrap();
        let read = os.read(io as &dyn BlockStore, ObjectId(20), 8 * 16384, 16384).unwrap();
        assert!(read.iter().any(|b| *b != 0));
        let raw = KeyForm { keyformat: 1, salt: 0, iters: 0 };
        let wrapping = WrappingKey::from_bytes(&[7; 32]);
        let new = NewKey { suite: Suite::Aes256Gcm, form: raw, wrapping, keylocation: "file:///key".into() };
        dsl.change_key(io, "vault/e", new).unwrap();
    }
    pool.commit().unwrap();
    pool.export().unwrap();
    judge("vault", &disks);
    let mut pool = open(env(7), &disks, Mode::ReadOnly).unwrap();
    assert_eq!(get(&pool, "vault/e/child", "keyformat"), "raw");
    let (io, dsl) = pool.parts();
    assert!(dsl.load_key(io, "vault/e", pass).is_err());
    assert_eq!(dsl.load_key(io, "vault/e", &[7; 32]).unwrap().len(), 3);
}

/// With `ICECORE_KEEP` set to a folder, leaves a pool there for OpenZFS in a virtual machine to live with:
/// `zpool import`, mount, write, scrub, destroy, promote.
#[test]
fn a_pool_for_openzfs_to_live_with() {
    let disks = disks(2, 96 << 20);
    let mut pool = create(env(9), "gift", &disks, NewKind::Mirror, 12);
    let form = KeyForm { keyformat: 3, salt: 0x1234_5678, iters: 100_000 };
    {
        let (io, dsl) = pool.parts();
        dsl.create_filesystem(io, "gift/a", &[("compression", "zstd"), ("org.x:note", "hello")]).unwrap();
        dsl.create_filesystem(io, "gift/a/b", &[("casesensitivity", "insensitive")]).unwrap();
        dsl.prop_set(io, "gift/a", "quota", "50M").unwrap();
        dsl.prop_set(io, "gift/a/b", "refreservation", "2M").unwrap();
        let wrapping = icecore_dsl::keystore::wrapping_key(form, b"a long passphrase").unwrap();
        let key = NewKey { suite: Suite::Aes256Gcm, form, wrapping, keylocation: "prompt".into() };
        let root = dsl.create_encrypted(io, "gift/e", &[], &key).unwrap();
        let child = dsl.create_filesystem(io, "gift/e/child", &[]).unwrap();
        for r in [root, child] {
            let keys = dsl.master_keys(io, r.dir).unwrap().unwrap();
            io.add_key(r.obj, keys);
        }
    }
    pool.commit().unwrap();
    {
        let (io, dsl) = pool.parts();
        let names = dsl.snapshot_names_below(io, "gift", "first").unwrap();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        dsl.snapshot(io, &names, &[]).unwrap();
    }
    pool.commit().unwrap();
    snap(&mut pool, "gift/a@second");
    {
        let (io, dsl) = pool.parts();
        let first = dsl.lookup_snapshot(io, "gift/a@first").unwrap();
        dsl.clone_snapshot(io, first, "gift/clone").unwrap();
        dsl.bookmark_create(io, "gift/a#mark", "gift/a@first").unwrap();
        dsl.bookmark_create(io, "gift/e/child#mark", "gift/e/child@first").unwrap();
        dsl.hold(io, "gift/a@second", "mine").unwrap();
        dsl.rename(io, "gift/a/b", "gift/bee").unwrap();
    }
    pool.commit().unwrap();
    pool.export().unwrap();
    judge("gift", &disks);
    if let Some(keep) = std::env::var_os("ICECORE_KEEP") {
        for (i, d) in disks.iter().enumerate() {
            d.save(&Path::new(&keep).join(format!("gift-{i}.img"))).unwrap();
        }
    }
}

/// Pools made by OpenZFS, changed by us: every snapshot that may go goes, one txg each, from the middle
/// outwards; then every dataset without dependents. `zdb` judges each stage.
#[test]
fn openzfs_pools_lose_their_snapshots_and_datasets() {
    for name in ["main", "crypt", "codecs", "backup-a", "gang", "nofeat", "shapes"] {
        let Some(zoo) = icecore_check::fixture::zoo(&format!("{name}.img")) else { continue };
        let dir = std::env::temp_dir().join(format!("icecore-lose-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let image = dir.join(format!("{name}.img"));
        std::fs::write(&image, std::fs::read(zoo).unwrap()).unwrap();
        let device = Arc::new(FileDevice::open(&image, Access::Exclusive).unwrap()) as Arc<dyn Device>;
        let spec = OpenSpec {
            devices: vec![device],
            pool: None,
            mode: Mode::Write,
            force: true,
            host: host(),
            max_txg: None,
        };
        let mut pool = match Pool::open(env(1), spec) {
            Ok(pool) => pool,
            Err(e) => {
                eprintln!("{name}: {e}");
                std::fs::remove_dir_all(&dir).unwrap();
                continue;
            }
        };
        let root = pool.name().to_string();
        let (gone, kept) = destroy_snapshots(&mut pool, &root);
        crate::support::judge_dir(&dir, &root);
        let lost = destroy_datasets(&mut pool, &root);
        crate::support::judge_dir(&dir, &root);
        eprintln!("{name}: {gone} snapshots destroyed, {kept:?} kept, {lost:?} datasets destroyed");
        drop(pool);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

fn destroy_snapshots(pool: &mut Pool, root: &str) -> (usize, Vec<String>) {
    let (mut gone, mut kept) = (0, Vec::new());
    for path in pool.dsl.descendants(pool.io(), root).unwrap() {
        let mut names: Vec<String> =
            pool.dsl.snapshots(pool.io(), &path).unwrap().into_iter().map(|(n, _)| n).collect();
        while !names.is_empty() {
            let full = format!("{path}@{}", names.remove(names.len() / 2));
            let (io, dsl) = pool.parts();
            match dsl.destroy_snapshot(io, &full, false) {
                Ok(_) => {
                    pool.commit().unwrap();
                    gone += 1;
                }
                Err(e) => kept.push(format!("{full}: {e}")),
            }
        }
    }
    (gone, kept)
}

fn destroy_datasets(pool: &mut Pool, root: &str) -> Vec<String> {
    let mut lost = Vec::new();
    let mut all = pool.dsl.descendants(pool.io(), root).unwrap();
    all.reverse();
    for path in all.iter().filter(|p| *p != root) {
        let (io, dsl) = pool.parts();
        match dsl.destroy_head(io, path) {
            Ok(()) => {
                pool.commit().unwrap();
                lost.push(path.clone());
            }
            Err(e) => lost.push(format!("not {path}: {e}")),
        }
    }
    lost
}
