//! Keys, encryption roots, hierarchy: B30 to B42.

use crate::make::{put_together, raw_full, raw_next};
use crate::support::{SimPool, to};
use crate::world::{KEY, LEC, OTHER_KEY, PLAIN, RAW, RAW_FORM, passphrase};
use crate::{is, refused};
use icecore_dmu::ReadError;
use icecore_dsl::keystore::wrapping_key;
use icecore_dsl::{DslError, KeyError, KeyForm};
use icecore_stream::receive::{
    Encryption, Engine, Naming, ReceiveError, ReceiveSpec, SharedRoot, inherit_root,
};
use icecore_stream::send::SendError;
use std::sync::Arc;

const PASS: &[u8] = b"correct horse battery staple";
const PASS2: &[u8] = b"a later and longer passphrase";

/// A tree `NAME/r` over `a`, `b` and `a/c`, all under one root, with a snapshot.
fn tree(name: &str, form: KeyForm, material: &[u8]) -> SimPool {
    let mut pool = SimPool::new(name);
    let r = format!("{name}/r");
    pool.encrypted(&r, form, material);
    for below in ["a", "b", "a/c"] {
        pool.filesystem(&format!("{r}/{below}"));
        pool.file(&format!("{r}/{below}"), 20, 4096, 0..3, 7);
    }
    pool.snapshot_tree(&r, "one");
    pool
}

/// Every dataset of the tree opens with the key of its root.
fn all_open(pool: &mut SimPool, top: &str, material: &[u8]) {
    for below in ["", "/a", "/b", "/a/c"] {
        let path = format!("{top}{below}");
        assert!(pool.opens(&path, material), "{path} does not open, its root is {}", pool.root_of(&path));
    }
}

#[test]
fn b30_a_failed_increment_leaves_the_key() {
    let mut pool = SimPool::new("b30");
    pool.receive(&put_together(&raw_full()), &to("b30/x")).unwrap();
    let key = pool.key("b30/x");
    let next = put_together(&raw_next(8));
    for resumable in [false, true] {
        let spec = ReceiveSpec { resumable, commit_bytes: 1, ..to("b30/x") };
        pool.receive(&next[..next.len() - 400], &spec).unwrap_err();
        pool.reopen();
        assert_eq!(pool.key("b30/x"), key);
    }
    icecore_stream::receive::abort(&mut pool, "b30/x").unwrap();
    // Power ends at any write: the new wrapping is there with the new snapshot, or not at all.
    let base = pool.disk.fork();
    let mut seen = [0; 2];
    for cut in (0..).step_by(5) {
        pool.disk = Arc::new(base.fork());
        pool.reopen();
        pool.disk.cut_after(cut);
        let done = pool.receive(&next, &ReceiveSpec { commit_bytes: 1, ..to("b30/x") }).is_ok();
        pool.disk = Arc::new(pool.disk.crash(cut));
        pool.reopen();
        let arrived = pool.names().contains(&"b30/x@two".to_string());
        assert_eq!(pool.key("b30/x") != key, arrived, "cut {cut}");
        seen[usize::from(arrived)] += 1;
        if done {
            break;
        }
    }
    assert!(seen[0] > 10 && seen[1] > 0, "{seen:?}");
}

/// OpenZFS stores the sender's wrapping over the one made here: the passphrase of yesterday opens nothing.
#[test]
fn b31_a_wrapping_made_here_stays() {
    let mut far = tree("b31far", passphrase(1), PASS);
    let mut pool = SimPool::new("b31");
    pool.receive(&far.send_tree(None, "b31far/r@one", RAW), &to("b31/r")).unwrap();
    all_open(&mut pool, "b31/r", PASS);
    // Here another passphrase is given; there, another one again.
    pool.unlock("b31/r", PASS).unwrap();
    pool.change_key("b31/r", passphrase(2), PASS2);
    far.change_key("b31far/r", passphrase(3), b"the sender's new one");
    far.file("b31far/r/a", 20, 4096, 1..2, 8);
    far.snapshot_tree("b31far/r", "two");
    let got = pool.receive(&far.send_tree(Some("b31far/r@one"), "b31far/r@two", RAW), &to("b31/r")).unwrap();
    assert_eq!(got.snapshots.len(), 4);
    assert!(got.warnings.iter().any(|w| w.contains("stays as it is")), "{:?}", got.warnings);
    pool.reopen();
    all_open(&mut pool, "b31/r", PASS2);
    pool.unlock("b31/r", PASS2).unwrap();
    assert_eq!(pool.try_read("b31/r/a@two", 20, 4096, 8).unwrap(), far.read("b31far/r/a", 20, 4096, 8));
    pool.judge_blocks();
}

/// The sender's passphrase changes and nobody touched ours: it follows, for all datasets at once or for none.
#[test]
fn b31_a_new_wrapping_comes_for_all_or_none() {
    let mut far = tree("b31bfar", passphrase(1), PASS);
    let mut pool = SimPool::new("b31b");
    pool.receive(&far.send_tree(None, "b31bfar/r@one", RAW), &to("b31b/r")).unwrap();
    assert_eq!(pool.root_of("b31b/r/a/c"), "b31b/r");
    far.change_key("b31bfar/r", passphrase(2), PASS2);
    far.snapshot_tree("b31bfar/r", "two");
    // One by one, as `sync` and plain `zfs send -w -i` do: until the last, the old passphrase opens all.
    for (i, below) in ["", "/a/c", "/b", "/a"].iter().enumerate() {
        let (from, snap) = (format!("b31bfar/r{below}@one"), format!("b31bfar/r{below}@two"));
        let stream = far.send(Some(&from), &snap, RAW).unwrap();
        let got = pool.receive(&stream, &to(&format!("b31b/r{below}"))).unwrap();
        pool.reopen();
        all_open(&mut pool, "b31b/r", if i < 3 { PASS } else { PASS2 });
        assert_eq!(got.warnings.len(), usize::from(i < 3), "{:?}", got.warnings);
    }
    assert!(!pool.opens("b31b/r", PASS));
    pool.judge_blocks();
}

/// The same with keys that have no salt: only a package tells that they belong together.
#[test]
fn b31_a_new_raw_key_comes_with_a_package() {
    let mut far = tree("b31cfar", RAW_FORM, &KEY);
    let mut pool = SimPool::new("b31c");
    pool.receive(&far.send_tree(None, "b31cfar/r@one", RAW), &to("b31c/r")).unwrap();
    assert_eq!(pool.root_of("b31c/r/a/c"), "b31c/r");
    all_open(&mut pool, "b31c/r", &KEY);
    far.change_key("b31cfar/r", RAW_FORM, &OTHER_KEY);
    far.snapshot_tree("b31cfar/r", "two");
    for below in ["", "/a"] {
        let (from, snap) = (format!("b31cfar/r{below}@one"), format!("b31cfar/r{below}@two"));
        let stream = far.send(Some(&from), &snap, RAW).unwrap();
        pool.receive(&stream, &to(&format!("b31c/r{below}"))).unwrap();
        all_open(&mut pool, "b31c/r", &KEY);
    }
    let got =
        pool.receive(&far.send_tree(Some("b31cfar/r@one"), "b31cfar/r@two", RAW), &to("b31c/r")).unwrap();
    assert_eq!((got.warnings.len(), got.present.len()), (0, 2), "{got:?}");
    pool.reopen();
    all_open(&mut pool, "b31c/r", &OTHER_KEY);
}

/// Children received one by one stay roots until it is certain what opens them.
#[test]
fn b32_no_child_under_a_root_that_does_not_open_it() {
    let mut far = tree("b32far", RAW_FORM, &KEY);
    far.encrypted("b32far/s", RAW_FORM, &OTHER_KEY);
    far.filesystem("b32far/s/a");
    far.snapshot_tree("b32far/s", "one");
    let mut pool = SimPool::new("b32");
    let take = |pool: &mut SimPool, far: &mut SimPool, from: &str, target: &str| {
        let stream = far.send(None, from, RAW).unwrap();
        pool.receive(&stream, &to(target)).unwrap();
    };
    take(&mut pool, &mut far, "b32far/r@one", "b32/r");
    take(&mut pool, &mut far, "b32far/r/a@one", "b32/r/a");
    // Of another root, whose key looks the same from outside.
    take(&mut pool, &mut far, "b32far/s/a@one", "b32/r/stranger");
    for path in ["b32/r", "b32/r/a", "b32/r/stranger"] {
        assert_eq!(pool.root_of(path), path);
    }
    // Nobody knows: both stay what they are.
    assert!(!inherit_root(&mut pool, "b32/r/a", None).unwrap());
    assert!(!inherit_root(&mut pool, "b32/r/stranger", None).unwrap());
    // What the sender says holds for the keys it says it of, and for no others.
    let sent = SharedRoot { root: far.key("b32far/s"), dataset: far.key("b32far/s/a") };
    assert!(!inherit_root(&mut pool, "b32/r/stranger", Some(&sent)).unwrap());
    let sent = SharedRoot { root: far.key("b32far/r"), dataset: far.key("b32far/r/a") };
    assert!(!inherit_root(&mut pool, "b32/r/stranger", Some(&sent)).unwrap());
    let base = pool.disk.fork();
    assert!(inherit_root(&mut pool, "b32/r/a", Some(&sent)).unwrap());
    assert_eq!(pool.root_of("b32/r/a"), "b32/r");
    assert!(pool.opens("b32/r/a", &KEY));
    // A loaded key knows without being told, and knows better.
    pool.disk = Arc::new(base);
    pool.reopen();
    pool.unlock("b32/r", &KEY).unwrap();
    let lie = SharedRoot { root: pool.key("b32/r"), dataset: pool.key("b32/r/stranger") };
    assert!(!inherit_root(&mut pool, "b32/r/stranger", Some(&lie)).unwrap());
    assert!(inherit_root(&mut pool, "b32/r/a", None).unwrap());
    assert!(pool.opens("b32/r/a", &KEY) && pool.opens("b32/r/stranger", &OTHER_KEY));
    pool.reopen();
    pool.unlock("b32/r", &KEY).unwrap();
    assert_eq!(pool.try_read("b32/r/a@one", 20, 0, 64).unwrap(), far.read("b32far/r/a", 20, 0, 64));
    pool.judge_blocks();
}

/// Whole trees: the hierarchy of the sender comes over, also where it changed in between.
#[test]
fn b32_the_hierarchy_of_a_package() {
    let mut far = tree("b32tfar", RAW_FORM, &KEY);
    let mut pool = SimPool::new("b32t");
    pool.receive(&far.send_tree(None, "b32tfar/r@one", RAW), &to("b32t/r")).unwrap();
    // A child becomes a root with a key of its own, with what is below it.
    far.change_key("b32tfar/r/a", RAW_FORM, &OTHER_KEY);
    assert_eq!(far.root_of("b32tfar/r/a/c"), "b32tfar/r/a");
    far.snapshot_tree("b32tfar/r", "two");
    let next = far.send_tree(Some("b32tfar/r@one"), "b32tfar/r@two", RAW);
    // Cut anywhere between its streams: everything opens with the key of its root.
    let base = pool.disk.fork();
    let ends: Vec<u64> = crate::make::take_apart(&next)
        .iter()
        .filter(|(_, r, _)| matches!(r, icecore_format::stream::Record::End(_)))
        .map(|(at, ..)| at + 312)
        .collect();
    for end in ends {
        pool.disk = Arc::new(base.fork());
        pool.reopen();
        let _ = pool.receive(&next[..end as usize], &to("b32t/r"));
        pool.reopen();
        check_split(&mut pool);
    }
    pool.disk = Arc::new(base);
    pool.reopen();
    let got = pool.receive(&next, &to("b32t/r")).unwrap();
    assert!(got.warnings.is_empty(), "{:?}", got.warnings);
    pool.reopen();
    assert_eq!(
        ["b32t/r/a", "b32t/r/a/c", "b32t/r/b"].map(|p| pool.root_of(p)),
        ["b32t/r/a", "b32t/r/a", "b32t/r"]
    );
    check_split(&mut pool);
    assert!(pool.opens("b32t/r/a/c", &OTHER_KEY));
    pool.judge_blocks();
}

fn check_split(pool: &mut SimPool) {
    for path in ["b32t/r", "b32t/r/a", "b32t/r/b", "b32t/r/a/c"] {
        let own = pool.root_of(path) == "b32t/r/a";
        assert!(pool.opens(path, if own { &OTHER_KEY } else { &KEY }), "{path} under {}", pool.root_of(path));
    }
}

#[test]
fn b33_a_step_that_was_left_out_is_told() {
    let mut far = tree("b33far", RAW_FORM, &KEY);
    let mut pool = SimPool::new("b33");
    pool.receive(&far.send_tree(None, "b33far/r@one", RAW), &to("b33/r")).unwrap();
    // A child that does not come with the package hangs on the root: the root keeps its wrapping.
    far.filesystem("b33far/r/late");
    far.snapshot("b33far/r/late@zero");
    pool.receive(&far.send(None, "b33far/r/late@zero", RAW).unwrap(), &to("b33/r/late")).unwrap();
    let sent = SharedRoot { root: far.key("b33far/r"), dataset: far.key("b33far/r/late") };
    assert!(inherit_root(&mut pool, "b33/r/late", Some(&sent)).unwrap());
    let (io, dsl) = far.pool().parts();
    dsl.destroy_snapshot(io, "b33far/r/late@zero", false).unwrap();
    dsl.destroy_head(io, "b33far/r/late").unwrap();
    far.commit().unwrap();
    far.change_key("b33far/r", RAW_FORM, &OTHER_KEY);
    far.snapshot_tree("b33far/r", "two");
    let got = pool.receive(&far.send_tree(Some("b33far/r@one"), "b33far/r@two", RAW), &to("b33/r")).unwrap();
    assert!(got.warnings.iter().any(|w| w.starts_with("b33/r: ") && w.contains("old key")), "{got:?}");
    all_open(&mut pool, "b33/r", &KEY);
    assert!(pool.opens("b33/r/late", &KEY));
}

#[test]
fn b34_a_clone_is_no_root_of_its_own() {
    let mut far = tree("b34far", RAW_FORM, &KEY);
    let (io, dsl) = far.pool().parts();
    let origin = dsl.lookup_snapshot(io, "b34far/r/a@one").unwrap();
    let clone = dsl.clone_snapshot(io, origin, "b34far/r/clone").unwrap();
    let keys = dsl.master_keys(io, clone.dir).unwrap().unwrap();
    io.add_key(clone.obj, keys);
    far.commit().unwrap();
    far.file("b34far/r/clone", 21, 4096, 0..2, 3);
    far.snapshot_tree("b34far/r", "two");
    let mut pool = SimPool::new("b34");
    pool.receive(&far.send_tree(None, "b34far/r@two", RAW), &to("b34/r")).unwrap();
    assert_eq!(pool.root_of("b34/r/clone"), "b34/r");
    let origin = pool.prop("b34/r/clone", "origin");
    assert_eq!(origin.0, "b34/r/a@one");
    assert!(pool.opens("b34/r/clone", &KEY));
    let (io, dsl) = pool.pool().parts();
    let dirs = ["b34/r/a", "b34/r/clone"].map(|p| dsl.lookup_dir(io, p).unwrap());
    assert_eq!(dsl.crypto_obj(io, dirs[0]).unwrap(), dsl.crypto_obj(io, dirs[1]).unwrap(), "one key object");
    assert!(!inherit_root(&mut pool, "b34/r/clone", None).unwrap());
    pool.judge_blocks();
}

#[test]
fn b35_partly_received_datasets_can_be_listed() {
    let mut pool = SimPool::new("b35");
    let full = put_together(&raw_full());
    let spec = |t: &str| ReceiveSpec { resumable: true, commit_bytes: 1, ..to(t) };
    pool.receive(&full[..full.len() / 2], &spec("b35/new")).unwrap_err();
    pool.receive(&full, &to("b35/over")).unwrap();
    let next = put_together(&raw_next(9));
    pool.receive(&next[..next.len() / 2], &spec("b35/over")).unwrap_err();
    pool.receive(&full[..3000], &spec("b35/little")).unwrap_err();
    for path in ["b35/new", "b35/over", "b35/little", "b35/over/%recv"] {
        let (io, dsl) = pool.pool().parts();
        let rows = dsl.props(io, path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let got = |name: &str| rows.iter().find(|r| r.name == name).map(|r| r.value.clone());
        assert!(rows.len() > 20, "{path}: {}", rows.len());
        assert_eq!(got("keystatus").as_deref(), Some("unavailable"), "{path}");
        let token = got("receive_resume_token");
        assert!(token.is_some_and(|t| t.starts_with("1-")), "{path}");
        for prop in ["used", "written", "referenced", "type"] {
            assert!(got(prop).is_some(), "{path} {prop}");
        }
    }
}

#[test]
fn b36_nothing_plain_comes_below_an_encrypted_parent() {
    let mut pool = SimPool::new("b36");
    pool.filesystem("b36/src");
    pool.file("b36/src", 20, 4096, 0..4, 1);
    pool.snapshot("b36/src@s");
    let plain = pool.send(None, "b36/src@s", PLAIN).unwrap();
    pool.encrypted("b36/e", RAW_FORM, &KEY);
    pool.reopen(); // and so the key is not loaded
    let writes = pool.disk.stats().writes;
    let got = pool.receive(&plain, &to("b36/e/x")).unwrap_err();
    assert!(matches!(&got, ReceiveError::KeyNotLoaded(p) if p == "b36/e"), "{got:?}");
    let prefix = ReceiveSpec { naming: Naming::Prefix, ..to("b36/e") };
    let got = pool.receive(&plain, &prefix).unwrap_err();
    is!(got, ReceiveError::KeyNotLoaded(_));
    assert_eq!(pool.disk.stats().writes, writes, "refused before the first write");
    // Nor deeper, where parents would have to be made: they need the key.
    let mut far = SimPool::new("b36far");
    far.filesystem("b36far/y");
    far.filesystem("b36far/y/z");
    far.snapshot("b36far/y/z@s");
    let deep = far.send(None, "b36far/y/z@s", PLAIN).unwrap();
    let got = refused(&mut pool, &deep, &prefix);
    assert!(
        matches!(&got, ReceiveError::Dsl(DslError::Key(KeyError::NotLoaded(n))) if n == "b36/e"),
        "{got:?}"
    );
    // Asked for by name, it is.
    let off = ReceiveSpec { crypt: Encryption::Off, ..to("b36/e/x") };
    pool.receive(&plain, &off).unwrap();
    assert_eq!(pool.root_of("b36/e/x"), "");
    // With the key loaded it is encrypted as it comes in; what cannot be encrypted is refused.
    pool.unlock("b36/e", &KEY).unwrap();
    pool.receive(&plain, &to("b36/e/y")).unwrap();
    assert_eq!(pool.root_of("b36/e/y"), "b36/e");
}

#[test]
fn b37_what_only_creation_sets_is_not_set_again() {
    let mut pool = SimPool::new("b37");
    pool.filesystem("b37/src");
    for snap in ["a", "b"] {
        pool.file("b37/src", 20, 4096, 0..4, 1);
        pool.snapshot(&format!("b37/src@{snap}"));
    }
    let first = pool.send(None, "b37/src@a", PLAIN).unwrap();
    let next = pool.send(Some("b37/src@a"), "b37/src@b", PLAIN).unwrap();
    pool.encrypted("b37/e", RAW_FORM, &KEY);
    let set = vec![("encryption".into(), "off".into()), ("atime".into(), "off".into())];
    let spec =
        ReceiveSpec { set, crypt: Encryption::Off, exclude: vec!["keylocation".into()], ..to("b37/e/x") };
    pool.receive(&first, &spec).unwrap();
    let got = pool.receive(&next, &spec).unwrap();
    assert!(got.warnings.is_empty(), "{:?}", got.warnings);
    assert_eq!(pool.prop("b37/e/x", "atime"), ("off".into(), "local".into()));
    assert_eq!(pool.root_of("b37/e/x"), "");
    pool.judge_blocks();
}

#[test]
fn b38_a_key_that_is_unloaded_is_missed_not_mistaken_for_damage() {
    let mut pool = SimPool::new("b38");
    pool.encrypted("b38/e", RAW_FORM, &KEY);
    pool.file("b38/e", 20, 4096, 0..3, 1);
    // While something waits to be written with it, the key stays.
    let (io, dsl) = pool.pool().parts();
    let head = dsl.lookup_head(io, "b38/e").unwrap();
    let os = dsl.open_dataset(io, head.obj).unwrap();
    os.write(io, icecore_format::ObjectId(20), 0, &[1; 4096]).unwrap();
    assert!(matches!(dsl.unload_key(io, "b38/e"), Err(DslError::Busy(_))));
    pool.commit().unwrap();
    pool.snapshot("b38/e@s");
    let (io, dsl) = pool.pool().parts();
    for objset in dsl.unload_key(io, "b38/e").unwrap() {
        io.remove_key(objset);
    }
    let got = pool.send(None, "b38/e@s", PLAIN).unwrap_err();
    assert!(matches!(got, SendError::Read(ReadError::KeyUnavailable { .. })), "{got:?}");
    pool.unlock("b38/e", &KEY).unwrap();
    assert!(pool.send(None, "b38/e@s", LEC).is_ok());
    assert_eq!(pool.try_read("b38/e@s", 20, 0, 4).unwrap(), [1; 4]);
}

#[test]
fn b40_parents_made_on_the_way_are_as_encrypted_as_what_is_above() {
    let mut far = SimPool::new("b40far");
    far.filesystem("b40far/y");
    far.encrypted("b40far/y/z", RAW_FORM, &OTHER_KEY);
    far.snapshot("b40far/y/z@s");
    let raw = far.send(None, "b40far/y/z@s", RAW).unwrap();
    let mut pool = SimPool::new("b40");
    pool.encrypted("b40/e", RAW_FORM, &KEY);
    let prefix = ReceiveSpec { naming: Naming::Prefix, ..to("b40/e") };
    pool.receive(&raw, &prefix).unwrap();
    assert_eq!((pool.root_of("b40/e/y"), pool.root_of("b40/e/y/z")), ("b40/e".into(), "b40/e/y/z".into()));
    assert!(pool.opens("b40/e/y", &KEY) && pool.opens("b40/e/y/z", &OTHER_KEY));
    pool.judge_blocks();
    // With the key not loaded there is no parent to be made, and none is left.
    let mut pool = SimPool::new("b40");
    pool.encrypted("b40/e", RAW_FORM, &KEY);
    pool.reopen();
    is!(refused(&mut pool, &raw, &prefix), ReceiveError::Dsl(DslError::Key(KeyError::NotLoaded(_))));
    // A stream that fails takes the parents made for it along, committed in between or not.
    let mut pool = SimPool::new("b40");
    for commit_bytes in [0, 1] {
        let spec = ReceiveSpec { naming: Naming::Prefix, commit_bytes, ..to("b40") };
        refused_names(&mut pool, &raw[..raw.len() - 700], &spec);
        let with_y = ReceiveSpec { target: "b40".into(), ..spec };
        let mut bad = raw.clone();
        let at = bad.len() - 650;
        bad[at] ^= 1;
        refused_names(&mut pool, &bad, &with_y);
    }
    pool.judge_blocks();
}

fn refused_names(pool: &mut SimPool, stream: &[u8], spec: &ReceiveSpec) {
    let before = pool.names();
    let got = pool.receive(stream, spec).unwrap_err();
    assert!(got.is_transport(), "{got:?}");
    pool.commit_and_reopen();
    assert_eq!(pool.names(), before);
}

#[test]
fn b42_what_a_key_may_look_like() {
    let form = |keyformat| KeyForm { keyformat, salt: 7, iters: 1000 };
    let ok = |keyformat, material: &[u8]| wrapping_key(form(keyformat), material).is_ok();
    let cases: &[(u64, &[u8], bool)] = &[
        (1, &[0; 32], true),
        (1, &[b'\n'; 32], true),
        (1, &[0; 31], false),
        (1, &[0; 33], false),
        (2, &[b'A'; 64], true),
        (2, &[b'f'; 64], true),
        (2, &[b'g'; 64], false),
        (2, &[b'a'; 63], false),
        (2, &[b'a'; 66], false),
        // The limits of passphrases bind new ones only, and those who ask for one (icecore-cli, `keys`).
        (3, b"1234567", true),
        (3, b"12345678", true),
        (3, &[b'x'; 513], true),
        (0, b"12345678", false),
        (4, b"12345678", false),
    ];
    for (keyformat, material, want) in cases {
        assert_eq!(ok(*keyformat, material), *want, "keyformat {keyformat}, {} bytes", material.len());
    }
    // What stands behind a zero byte is not part of a passphrase, as OpenZFS measures it.
    let key = |text: &[u8]| *wrapping_key(form(3), text).unwrap().expose();
    assert_eq!(key(b"12345678\0more"), key(b"12345678"));
    // Upper and lower case are one key.
    let mut pool = SimPool::new("b42");
    pool.encrypted("b42/hex", KeyForm { keyformat: 2, salt: 0, iters: 0 }, &[b'a'; 64]);
    assert!(pool.opens("b42/hex", &[b'A'; 64]) && !pool.opens("b42/hex", &[b'b'; 64]));
}
