//! IV sets, lineage, raw and other streams mixed: B1 to B9.

use crate::make::{keydata, packed, put_together, raw_begin, raw_full, raw_next, resumed, take_apart};
use crate::support::{SimPool, force, to};
use crate::world::{KEY, PLAIN, RAW, RAW_FORM};
use crate::{is, refused};
use icecore_dmu::{ReadError, zap};
use icecore_format::stream::{PayloadLen, Record};
use icecore_format::{NvList, ObjectId};
use icecore_stream::receive::keydata::KeyRefusal;
use icecore_stream::receive::{ReceiveError, ReceiveSpec};
use icecore_stream::send::SendError;

fn resumable(target: &str) -> ReceiveSpec {
    ReceiveSpec { resumable: true, commit_bytes: 20_000, ..to(target) }
}

/// The good raw stream with its key changed.
fn with_key(stream: Vec<(Record, Vec<u8>)>, ivsets: (u64, u64), change: impl Fn(&mut NvList)) -> Vec<u8> {
    let mut key = keydata(4, ivsets, 9);
    change(&mut key);
    let mut stream = stream;
    let Record::Begin(mut begin) = stream[0].0.clone() else { panic!("no BEGIN") };
    let payload = packed(&NvList::new().with("crypt_keydata", key));
    begin.payload_len = PayloadLen(payload.len() as u32);
    stream[0] = (begin.into(), payload);
    put_together(&stream)
}

#[test]
fn b01_keys_of_the_first_version() {
    let mut pool = SimPool::new("b01");
    for version in [0, 2] {
        let stream = with_key(raw_full(), (0, 0x51), |k| {
            k.replace("DSL_CRYPTO_VERSION", version);
        });
        let got = refused(&mut pool, &stream, &to("b01/x"));
        assert!(matches!(got, ReceiveError::Key(KeyRefusal::Version(v)) if v == version), "{got:?}");
    }
    // A dataset that has such a key (errata 3) is not sent raw.
    pool.encrypted("b01/old", RAW_FORM, &KEY);
    pool.file("b01/old", 20, 4096, 0..2, 1);
    pool.snapshot("b01/old@s");
    assert!(pool.send(None, "b01/old@s", RAW).is_ok());
    let (io, dsl) = pool.pool().parts();
    let dir = dsl.lookup_dir(io, "b01/old").unwrap();
    let obj = dsl.crypto_obj(io, dir).unwrap().unwrap();
    zap::update(&mut dsl.mos, io, ObjectId(obj), "DSL_CRYPTO_VERSION", &zap::ZapValue::U64(vec![0])).unwrap();
    let got = pool.send(None, "b01/old@s", RAW).unwrap_err();
    assert!(matches!(&got, SendError::Unsupported(why) if why.contains("errata 3")), "{got:?}");
}

#[test]
fn b02_raw_increment_of_another_iv_set() {
    let mut pool = SimPool::new("b02");
    pool.receive(&put_together(&raw_full()), &to("b02/x")).unwrap();
    let next = |iv| with_key(raw_next(9), (iv, 0x52), |_| {});
    let x = to("b02/x");
    is!(refused(&mut pool, &next(0), &x), ReceiveError::IvsetMissing { stream: 0, local: 0x51 });
    is!(refused(&mut pool, &next(0x99), &x), ReceiveError::IvsetMismatch { stream: 0x99, local: 0x51 });
    // Forcing it changes nothing.
    is!(refused(&mut pool, &next(0x99), &force("b02/x")), ReceiveError::IvsetMismatch { .. });
    pool.receive(&next(0x51), &x).unwrap();
    assert_eq!(pool.ivset("b02/x@two"), Some(0x52));
}

#[test]
fn b03_resumed_raw_increment_is_checked_again() {
    let mut pool = SimPool::new("b03");
    pool.receive(&put_together(&raw_full()), &to("b03/x")).unwrap();
    // What fails the first checks leaves nothing to resume, asked for or not.
    let wrong = with_key(raw_next(9), (0x99, 0x52), |_| {});
    is!(refused(&mut pool, &wrong, &resumable("b03/x")), ReceiveError::IvsetMismatch { .. });
    assert_eq!(pool.stopped_at("b03/x"), None);
    // What was begun rightly is not continued wrongly.
    let next = put_together(&raw_next(9));
    pool.receive(&next[..next.len() - 800], &resumable("b03/x")).unwrap_err();
    let (object, offset) = pool.resume_point("b03/x");
    let rest = resumed(&raw_next(9), object, offset);
    let mut list = NvList::decode(&rest[0].1).unwrap().0;
    list.replace("crypt_keydata", keydata(4, (0x99, 0x52), 9));
    let mut bad = rest.clone();
    let Record::Begin(mut begin) = bad[0].0.clone() else { panic!("no BEGIN") };
    let payload = packed(&list);
    begin.payload_len = PayloadLen(payload.len() as u32);
    bad[0] = (begin.into(), payload);
    is!(
        refused(&mut pool, &put_together(&bad), &resumable("b03/x")),
        ReceiveError::IvsetMismatch { stream: 0x99, local: 0x51 }
    );
    assert_eq!(pool.resume_point("b03/x"), (object, offset));
    pool.receive(&put_together(&rest), &resumable("b03/x")).unwrap();
    assert_eq!(pool.ivset("b03/x@two"), Some(0x52));
}

#[test]
fn b04_resumed_raw_full_stream_has_no_source_to_check() {
    let mut pool = SimPool::new("b04");
    let stream = put_together(&raw_full());
    pool.receive(&stream[..stream.len() / 2], &resumable("b04/x")).unwrap_err();
    pool.reopen();
    let (object, offset) = pool.resume_point("b04/x");
    pool.receive(&put_together(&resumed(&raw_full(), object, offset)), &resumable("b04/x")).unwrap();
    assert_eq!((pool.guid("b04/x@one"), pool.ivset("b04/x@one")), (0x1000, Some(0x51)));
    assert_eq!(pool.stopped_at("b04/x"), None);
}

/// OpenZFS accepts the stream that is not raw, and no raw stream can ever follow; since 2026 it warns.
#[test]
fn b05_plain_increment_upon_raw_needs_its_own_word() {
    let mut pool = SimPool::new("b05");
    pool.encrypted("b05/src", RAW_FORM, &KEY);
    pool.file("b05/src", 20, 4096, 0..8, 1);
    pool.snapshot("b05/src@a");
    pool.file("b05/src", 20, 4096, 2..4, 2);
    pool.snapshot("b05/src@b");
    pool.file("b05/src", 20, 4096, 6..9, 3);
    pool.snapshot("b05/src@c");
    let mut far = SimPool::new("b05far");
    far.receive(&pool.send(None, "b05/src@a", RAW).unwrap(), &to("b05far/x")).unwrap();
    unlock_snapshots(&mut pool, "b05/src");
    let plain = pool.send(Some("b05/src@a"), "b05/src@b", PLAIN).unwrap();
    // Without the key it is refused for that reason; with it, because it would part the line for ever.
    is!(far.receive(&plain, &to("b05far/x")).unwrap_err(), ReceiveError::KeyNotLoaded(_));
    far.unlock("b05far/x", &KEY).unwrap();
    let (names, want) = (far.names(), far.contents("b05far/x"));
    match far.receive(&plain, &to("b05far/x")).unwrap_err() {
        ReceiveError::IvsetDiverges { since } => assert_eq!(since, "b05far/x@a"),
        e => panic!("{e:?}"),
    }
    assert_eq!((far.names(), far.contents("b05far/x")), (names, want));
    // Asked for, it is done: readable with the key, of an IV set of its own, and the next raw one says so.
    let asked = ReceiveSpec { allow_ivset_divergence: true, ..to("b05far/x") };
    far.receive(&plain, &asked).unwrap();
    assert_eq!(far.guid("b05far/x@b"), pool.guid("b05/src@b"));
    let read = |p: &mut SimPool, name: &str| p.try_read(name, 20, 0, 8 * 4096).unwrap();
    assert_eq!(read(&mut far, "b05far/x"), read(&mut pool, "b05/src@b"));
    assert_ne!(far.ivset("b05far/x@b"), pool.ivset("b05/src@b"));
    let raw = pool.send(Some("b05/src@b"), "b05/src@c", RAW).unwrap();
    is!(refused(&mut far, &raw, &to("b05far/x")), ReceiveError::IvsetMismatch { .. });
    far.judge_blocks();
}

/// Snapshots made after a key was loaded need it as well.
fn unlock_snapshots(pool: &mut SimPool, path: &str) {
    let (io, dsl) = pool.pool().parts();
    let dir = dsl.lookup_dir(io, path).unwrap();
    let keys = dsl.master_keys(io, dir).unwrap().unwrap();
    for (_, snap) in dsl.snapshots(io, path).unwrap() {
        io.add_key(snap.obj, keys.clone());
    }
}

#[test]
fn b06_snapshots_in_the_way_of_a_raw_increment_are_named() {
    let mut pool = SimPool::new("b06");
    pool.receive(&put_together(&raw_full()), &to("b06/x")).unwrap();
    pool.snapshot("b06/x@empty");
    let got = refused(&mut pool, &put_together(&raw_next(9)), &to("b06/x"));
    match &got {
        ReceiveError::Modified { dataset, since, newer } => {
            assert_eq!((dataset.as_str(), since.as_str()), ("b06/x", "b06/x@one"));
            assert_eq!(newer, &["b06/x@empty"]);
        }
        e => panic!("{e:?}"),
    }
    // The way out.
    let done = pool.receive(&put_together(&raw_next(9)), &force("b06/x")).unwrap();
    assert_eq!(done.destroyed, ["b06/x@empty"]);
}

#[test]
fn b07_force_destroys_nothing_before_it_refuses() {
    let mut pool = SimPool::new("b07");
    pool.receive(&put_together(&raw_full()), &to("b07/enc")).unwrap();
    pool.filesystem("b07/plain");
    pool.file("b07/plain", 20, 4096, 0..3, 1);
    let mut other = raw_full();
    other[0] = raw_begin("src/o@other", (0, 0x9999), (0, 1), 9);
    for (r, _) in &mut other[1..] {
        crate::make::set_guid(r, 0x9999);
    }
    let raw = put_together(&other);
    pool.filesystem("b07/src");
    pool.snapshot("b07/src@s");
    let plain = pool.send(None, "b07/src@s", PLAIN).unwrap();
    let contents = |p: &mut SimPool| (p.contents("b07/enc"), p.contents("b07/plain"));
    let before = contents(&mut pool);
    is!(refused(&mut pool, &plain, &force("b07/enc")), ReceiveError::HasSnapshots { .. });
    is!(refused(&mut pool, &raw, &force("b07/enc")), ReceiveError::HasSnapshots { .. });
    is!(refused(&mut pool, &raw, &force("b07/plain")), ReceiveError::ForceOverEncrypted(_));
    assert_eq!(contents(&mut pool), before);
    pool.destroy_snapshots("b07/enc");
    let before = contents(&mut pool);
    is!(refused(&mut pool, &plain, &force("b07/enc")), ReceiveError::ForceOverEncrypted(_));
    is!(refused(&mut pool, &raw, &force("b07/enc")), ReceiveError::ForceOverEncrypted(_));
    assert_eq!(contents(&mut pool), before);
    pool.judge_blocks();
}

/// OpenZFS decrypts garbage, says version 0 and logs permanent errors.
#[test]
fn b08_properties_of_a_locked_dataset_are_not_made_up() {
    let mut pool = SimPool::new("b08");
    pool.encrypted("b08/src", RAW_FORM, &KEY);
    pool.snapshot("b08/src@a");
    let want = pool.prop("b08/src", "version");
    let raw = pool.send(None, "b08/src@a", RAW).unwrap();
    pool.receive(&raw, &to("b08/x")).unwrap();
    pool.reopen();
    let before = pool.pool().synced();
    let (io, dsl) = pool.pool().parts();
    assert!(!dsl.key_loaded(io, dsl.lookup_dir(io, "b08/x").unwrap()).unwrap());
    let rows = dsl.props(io, "b08/x").unwrap();
    let got = |name: &str| rows.iter().find(|r| r.name == name).map(|r| r.value.as_str());
    assert_eq!((got("keystatus"), got("encryptionroot")), (Some("unavailable"), Some("b08/x")));
    // Either the true version (the master node may be readable) or none at all.
    assert!(got("version").is_none_or(|v| v == want.0 || v == "-"), "{:?}", got("version"));
    assert_eq!(pool.commit_now(), before, "reading properties wrote something");
}

#[test]
fn b09_no_key_is_no_damage() {
    let mut pool = SimPool::new("b09");
    pool.encrypted("b09/e", RAW_FORM, &KEY);
    pool.file("b09/e", 20, 4096, 0..3, 1);
    pool.snapshot("b09/e@s");
    pool.reopen();
    let before = pool.pool().synced();
    for name in ["b09/e", "b09/e@s"] {
        let got = pool.try_read(name, 20, 0, 4096).unwrap_err();
        assert!(matches!(got, ReadError::KeyUnavailable { .. }), "{name}: {got:?}");
    }
    let got = pool.send(None, "b09/e@s", PLAIN).unwrap_err();
    assert!(matches!(got, SendError::Read(ReadError::KeyUnavailable { .. })), "{got:?}");
    // Raw needs none.
    let raw = pool.send(None, "b09/e@s", RAW).unwrap();
    assert!(take_apart(&raw).len() > 5);
    assert_eq!(pool.commit_now(), before);
}
