//! What is refused, why, and that nothing changes by it; and the options that allow more.

use crate::make::{
    Records, begin, end, free, free_objects, keydata, packed, put_together, raw_begin, raw_full, raw_next,
    set_guid,
};
use crate::support::{SimPool, force, kinds, to};
use icecore_format::NvList;
use icecore_format::stream::{Begin, PayloadLen, Record, begin_flag, feature};
use icecore_stream::receive::{Naming, ReceiveError, ReceiveSpec, abort};

/// A small stream that is not raw.
fn plain(toname: &str, fromguid: u64, toguid: u64, bits: u64) -> Records {
    vec![(begin(toname, toguid, fromguid, bits).into(), Vec::new()), free_objects(toguid, 0, 32), end(toguid)]
}

fn with_list(mut b: Begin, list: &NvList) -> (Record, Vec<u8>) {
    let payload = packed(list);
    b.payload_len = PayloadLen(payload.len() as u32);
    (b.into(), payload)
}

/// Receives, expects a refusal, and that nothing has changed.
fn refused(pool: &mut SimPool, records: &[(Record, Vec<u8>)], spec: &ReceiveSpec) -> ReceiveError {
    let before = (pool.names(), pool.pool().space().allocated);
    let got = pool.receive(&put_together(records), spec).unwrap_err();
    assert_eq!((pool.names(), pool.pool().space().allocated), before, "{got:?}");
    got
}

macro_rules! expect {
    ($got:expr, $want:pat) => {{
        let got = $got;
        assert!(matches!(got, $want), "{got:?}");
    }};
}

#[test]
fn streams_that_cannot_be() {
    let mut pool = SimPool::new("cannot");
    let p = &mut pool;
    let bits = |bits| plain("a/b@s", 0, 5, bits);
    expect!(refused(p, &bits(feature::DEDUP), &to("cannot/x")), ReceiveError::Deduplicated);
    expect!(refused(p, &bits(1 << 40), &to("cannot/x")), ReceiveError::UnknownFeatures(_));
    expect!(refused(p, &bits(feature::RAW), &to("cannot/x")), ReceiveError::BadStream(_));
    let mut other = begin("a/b@s", 5, 0, 0);
    other.objset_type = 1;
    expect!(refused(p, &[(other.into(), vec![]), end(5)], &to("cannot/x")), ReceiveError::BadStream(_));
    let mut b = raw_full();
    if let Record::Begin(r) = &mut b[0].0 {
        r.flags &= !begin_flag::SPILL_BLOCK;
    }
    expect!(refused(p, &b, &to("cannot/x")), ReceiveError::SpillFlagMissing);
    let mut b = raw_full();
    if let Record::Begin(r) = &mut b[0].0 {
        r.set_features(r.features() | feature::EMBED_DATA);
    }
    expect!(refused(p, &b, &to("cannot/x")), ReceiveError::BadStream(_));
    for name in ["a/b", "a/../b@s", "a/%recv@s", "a/b@", "a@b@c", "a//b@s", "a/b@%s"] {
        let spec = ReceiveSpec { naming: Naming::Prefix, ..to("cannot") };
        let e = refused(p, &plain(name, 0, 5, 0), &spec);
        assert!(matches!(e, ReceiveError::Name(_) | ReceiveError::BadStream(_)), "{name}: {e:?}");
    }
    expect!(refused(p, &plain("a/b@s", 0, 5, 0), &to("elsewhere/x")), ReceiveError::NoParent(_));
    expect!(refused(p, &plain("a/b@s", 3, 5, 0), &to("cannot/x")), ReceiveError::NoDestination(_));
    expect!(refused(p, &plain("a/b@s", 0, 5, 0), &to("cannot")), ReceiveError::Exists(_));
}

#[test]
fn keys_that_cannot_be() {
    use icecore_stream::receive::keydata::KeyRefusal as K;
    let mut pool = SimPool::new("keys");
    let mut check = |name: &str, change: &dyn Fn(&mut NvList)| {
        let mut key = keydata(4, (0, 0x51), 9);
        change(&mut key);
        let mut b = raw_full();
        let Record::Begin(begin) = b[0].0.clone() else { panic!() };
        b[0] = with_list(begin, &NvList::new().with("crypt_keydata", key));
        match refused(&mut pool, &b, &to("keys/x")) {
            ReceiveError::Key(k) => k,
            e => panic!("{name}: {e:?}"),
        }
    };
    let set = |name: &'static str, v: u64| {
        move |k: &mut NvList| {
            k.replace(name, v);
        }
    };
    for name in ["DSL_CRYPTO_GUID", "DSL_CRYPTO_MASTER_KEY_1", "portable_mac", "mdn_maxblkid", "keyformat"] {
        let got = check(name, &|k| drop(k.remove(name)));
        assert!(matches!(got, K::Missing(n) if n == name), "{got:?}");
    }
    let short = check("short", &|k| {
        k.remove("DSL_CRYPTO_HMAC_KEY_1");
        k.set_u8_array("DSL_CRYPTO_HMAC_KEY_1", &[0; 63]);
    });
    assert!(matches!(short, K::Missing("DSL_CRYPTO_HMAC_KEY_1")));
    assert!(matches!(check("suite", &set("DSL_CRYPTO_SUITE", 9)), K::Suite(9)));
    assert!(matches!(check("version", &set("DSL_CRYPTO_VERSION", 0)), K::Version(0)));
    let numbers = [
        ("DSL_CRYPTO_SUITE", 2),
        ("keyformat", 0),
        ("keyformat", 4),
        ("keyformat", 1),
        ("pbkdf2iters", 0),
        ("pbkdf2iters", 1 << 63),
        ("pbkdf2salt", 0),
        ("mdn_compress", 15),
        ("mdn_checksum", 9),
        ("mdn_nlevels", 0),
        ("mdn_nlevels", 13),
        ("mdn_blksz", 512),
        ("mdn_indblkshift", 11),
        ("mdn_indblkshift", 18),
        ("mdn_nblkptr", 1),
        ("mdn_maxblkid", u64::MAX),
    ];
    for (name, v) in numbers {
        let got = check(name, &set(name, v));
        assert!(matches!(got, K::Number(_)), "{name} {v}: {got:?}");
    }
}

#[test]
fn incrementals_that_do_not_fit() {
    let mut pool = SimPool::new("inc");
    let p = &mut pool;
    p.receive(&put_together(&raw_full()), &to("inc/x")).unwrap();
    let next = |from: u64, iv: u64| {
        let mut b = raw_next(9);
        b[0] = raw_begin("src/fs@two", (from, 0x2000), (iv, 0x52), 9);
        b
    };
    let x = to("inc/x");
    match refused(p, &next(0x77, 0x51), &x) {
        ReceiveError::NoIncrementalBase { want: 0x77, have, .. } => {
            assert_eq!(have, [("one".to_string(), 0x1000)]);
        }
        e => panic!("{e:?}"),
    }
    expect!(refused(p, &next(0x1000, 0), &x), ReceiveError::IvsetMissing { stream: 0, local: 0x51 });
    expect!(refused(p, &next(0x1000, 0x99), &x), ReceiveError::IvsetMismatch { stream: 0x99, local: 0x51 });
    let mut other = raw_next(9);
    let mut key = keydata(4, (0x51, 0x52), 9);
    key.replace("DSL_CRYPTO_GUID", 0xdef_u64);
    let Record::Begin(b) = other[0].0.clone() else { panic!() };
    other[0] = with_list(b, &NvList::new().with("crypt_keydata", key));
    expect!(refused(p, &other, &x), ReceiveError::KeyMismatch { stream: 0xdef, local: 0xabc });
    // Another metadnode than the one that is here.
    let mut other = raw_next(9);
    let mut key = keydata(4, (0x51, 0x52), 9);
    key.replace("mdn_nlevels", 5_u64);
    let Record::Begin(b) = other[0].0.clone() else { panic!() };
    other[0] = with_list(b, &NvList::new().with("crypt_keydata", key));
    expect!(refused(p, &other, &x), ReceiveError::Key(_));
    // Not raw upon raw: the key is not loaded, so it cannot even be tried.
    expect!(refused(p, &plain("src/fs@two", 0x1000, 9, 0), &x), ReceiveError::KeyNotLoaded(_));
    let embed = plain("src/fs@two", 0x1000, 9, feature::EMBED_DATA);
    expect!(refused(p, &embed, &x), ReceiveError::EmbeddedIntoEncrypted(_));
    // Raw upon plain, plain below raw, -F over encrypted.
    p.receive(&put_together(&plain("src/p@a", 0, 0x30, 0)), &to("inc/p")).unwrap();
    let mut b = raw_next(9);
    b[0] = raw_begin("src/p@b", (0x30, 0x2000), (0x51, 0x52), 9);
    expect!(refused(p, &b, &to("inc/p")), ReceiveError::RawOverPlain(_));
    expect!(refused(p, &plain("q@a", 0, 1, 0), &to("inc/x/below")), ReceiveError::KeyNotLoaded(_));
    let mut other = raw_full();
    other[0] = raw_begin("src/o@other", (0, 0x1000), (0, 1), 9);
    p.receive(&put_together(&plain("src/e@a", 0, 0x31, 0)), &to("inc/e")).unwrap();
    expect!(refused(p, &other, &force("inc/e")), ReceiveError::HasSnapshots { .. });
    let bare = ReceiveSpec::default();
    assert!(!bare.force);
    p.judge();
}

#[test]
fn later_snapshots_are_named_and_only_force_removes_them() {
    let mut pool = SimPool::new("later");
    let p = &mut pool;
    p.receive(&put_together(&raw_full()), &to("later/x")).unwrap();
    p.snapshot("later/x@mine");
    let next = raw_next(9);
    match refused(p, &next, &to("later/x")) {
        ReceiveError::Modified { since, newer, .. } => {
            assert_eq!((since.as_str(), newer), ("later/x@one", vec!["later/x@mine".to_string()]));
        }
        e => panic!("{e:?}"),
    }
    let got = p.receive(&put_together(&next), &force("later/x")).unwrap();
    assert_eq!(got.destroyed, ["later/x@mine"]);
    assert_eq!(p.names(), ["later", "later/x@one", "later/x@two", "later/x"].map(String::from));
    // Once more: it is here.
    let got = p.receive(&put_together(&next), &to("later/x")).unwrap();
    assert_eq!(got.present, ["later/x@two"]);
    p.judge();
}

#[test]
fn force_never_replaces_what_is_encrypted() {
    let mut pool = SimPool::new("force");
    let p = &mut pool;
    p.receive(&put_together(&raw_full()), &to("force/x")).unwrap();
    p.receive(&put_together(&plain("a@s", 0, 5, 0)), &force("force")).unwrap();
    let names = p.names();
    assert!(names.contains(&"force@s".to_string()), "{names:?}");
    // The snapshots are gone, the head is not: still nothing may take its place.
    p.destroy_snapshots("force/x");
    let mut other = raw_full();
    other[0] = raw_begin("src/o@other", (0, 0x1000), (0, 1), 9);
    expect!(refused(p, &other, &force("force/x")), ReceiveError::ForceOverEncrypted(_));
    expect!(refused(p, &plain("a@s", 0, 6, 0), &force("force/x")), ReceiveError::ForceOverEncrypted(_));
    p.judge();
}

#[test]
fn a_key_wrapped_anew_here_stays() {
    let mut pool = SimPool::new("wrap");
    let p = &mut pool;
    p.receive(&put_together(&raw_full()), &to("wrap/x")).unwrap();
    // The sender changed its passphrase: nobody touched ours, so it follows.
    let got = p.receive(&put_together(&raw_next(8)), &to("wrap/x")).unwrap();
    assert_eq!((got.warnings.len(), p.key_iv("wrap/x")), (0, [8; 12]));
    // Now ours is changed, as change-key does.
    p.rewrap("wrap/x", [66; 12]);
    let mut third = raw_next(8);
    third[0] = raw_begin("src/fs@three", (0x2000, 0x3000), (0x52, 0x53), 7);
    for (r, _) in &mut third[1..] {
        set_guid(r, 0x3000);
    }
    let got = p.receive(&put_together(&third), &to("wrap/x")).unwrap();
    assert_eq!((got.warnings.len(), p.key_iv("wrap/x")), (1, [66; 12]));
    p.judge();
}

#[test]
fn what_a_stream_wants_for_the_machine_does_not_rule() {
    let mut pool = SimPool::new("props");
    let p = &mut pool;
    let spec = ReceiveSpec {
        set: vec![("atime".into(), "off".into())],
        exclude: vec!["compression".into()],
        ..to("props/k")
    };
    let got = p.receive(&kinds(), &spec).unwrap();
    assert!(got.warnings.is_empty(), "{:?}", got.warnings);
    let (_, source) = p.prop("props/k", "mountpoint");
    assert_ne!(source, "received");
    assert_eq!(p.prop("props/k", "atime"), ("off".into(), "local".into()));
    p.judge();
}

#[test]
fn a_dry_run_changes_nothing_and_reads_all() {
    let mut pool = SimPool::new("dry");
    let before = pool.names();
    let stream = kinds();
    let spec = ReceiveSpec { dry_run: true, ..to("dry/k") };
    let got = pool.receive(&stream, &spec).unwrap();
    assert_eq!((got.snapshots.len(), got.bytes), (1, stream.len() as u64));
    assert_eq!(pool.names(), before);
    let bad = put_together(&[(begin("a@s", 5, 0, 0).into(), vec![]), free(5, 0, 0, 1), end(5)]);
    let got = pool.receive(&bad, &spec).unwrap_err();
    assert!(matches!(got, ReceiveError::Record { number: 1, offset: 312, .. }), "{got:?}");
    assert!(matches!(abort(&mut pool, "dry/k").unwrap_err(), ReceiveError::Dsl(_)));
}
