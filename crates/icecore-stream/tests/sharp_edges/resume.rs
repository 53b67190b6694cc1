//! Resuming, rollback, `-F`, clones, properties: B51 to B65.

use crate::make::{
    Records, begin, end, free_objects, put_together, raw_begin, raw_full, raw_next, resumed, set_guid,
};
use crate::support::{SimPool, force, to};
use crate::world::{KEY, PLAIN, RAW, RAW_FORM};
use crate::{is, refused};
use icecore_dmu::zap;
use icecore_format::ObjectId;
use icecore_format::stream::{Object, Record};
use icecore_stream::receive::{Engine, ReceiveError, ReceiveSpec, abort};
use icecore_stream::send::{PackageSpec, Packing, SendSpec, resolve_token, send_one, send_package};
use icecore_stream::token::ResumeToken;

fn resumable(target: &str) -> ReceiveSpec {
    ReceiveSpec { resumable: true, commit_bytes: 20_000, ..to(target) }
}

/// Stops a receive in the middle.
fn interrupt(pool: &mut SimPool, records: &Records, spec: &ReceiveSpec) -> Vec<u8> {
    let stream = put_together(records);
    let got = pool.receive(&stream[..stream.len() * 2 / 3], spec).unwrap_err();
    assert!(got.is_transport(), "{got:?}");
    pool.reopen();
    let (object, offset) = pool.resume_point(&spec.target);
    put_together(&resumed(records, object, offset))
}

/// The raw stream `raw_full`, of other names and guids.
fn another_full(toname: &str, guid: u64) -> Records {
    let mut out = raw_full();
    out[0] = raw_begin(toname, (0, guid), (0, guid + 1), 9);
    for (r, _) in &mut out[1..] {
        set_guid(r, guid);
    }
    out
}

#[test]
fn b51_partial_state_is_not_mixed_with_another_stream() {
    let mut pool = SimPool::new("b51");
    let rest = interrupt(&mut pool, &raw_full(), &resumable("b51/x"));
    let point = pool.resume_point("b51/x");
    let other = put_together(&another_full("src/fs@other", 0x7000));
    for stream in [put_together(&raw_full()), other.clone()] {
        // That it is there at all is said first, as by `zfs_receive_one`.
        for spec in [to("b51/x"), resumable("b51/x")] {
            is!(refused(&mut pool, &stream, &spec), ReceiveError::Exists(_));
        }
        let got = refused(&mut pool, &stream, &force("b51/x"));
        is!(&got, ReceiveError::PartialState(_));
        assert!(got.to_string().contains("contains partially-complete state"), "{got}");
    }
    // A resuming stream of another snapshot neither.
    let mut records = another_full("src/fs@other", 0x7000);
    records = resumed(&records, point.0, point.1);
    is!(refused(&mut pool, &put_together(&records), &resumable("b51/x")), ReceiveError::NotResumable(_));
    assert_eq!(pool.resume_point("b51/x"), point);
    pool.receive(&rest, &resumable("b51/x")).unwrap();
}

fn plain_full(toname: &str, guid: u64) -> Records {
    let file = |object| crate::make::file(object, 4096, 5, guid);
    let mut out: Records = vec![(begin(toname, guid, 0, 0).into(), vec![])];
    for object in 8..20 {
        out.push(file(object));
        out.push(crate::make::chunk(object, 0, 4096, object as u8, guid));
    }
    out.extend([free_objects(guid, 20, 1000), end(guid)]);
    out
}

#[test]
fn b52_what_was_there_is_not_read_after_a_resumed_replacement() {
    let mut pool = SimPool::new("b52");
    pool.filesystem("b52/x");
    pool.file("b52/x", 9, 4096, 0..1, 77);
    let old = pool.read("b52/x", 9, 0, 4096);
    let spec = ReceiveSpec { force: true, commit_bytes: 1, ..resumable("b52/x") };
    let rest = interrupt(&mut pool, &plain_full("a@s", 0x30), &spec);
    assert_eq!(pool.read("b52/x", 9, 0, 4096), old, "the old is there until the end");
    pool.receive(&rest, &spec).unwrap();
    // In the same process, without opening anything again.
    assert_eq!(pool.read("b52/x", 9, 0, 4096), [9; 4096]);
    pool.file("b52/x", 9, 4096, 1..2, 3);
    pool.reopen();
    assert_eq!(pool.read("b52/x@s", 9, 0, 4096), [9; 4096]);
    pool.judge_blocks();
}

#[test]
fn b53_resuming_over_a_dataset_needs_force_again() {
    let mut pool = SimPool::new("b53");
    pool.filesystem("b53/x");
    pool.file("b53/x", 9, 4096, 0..1, 77);
    let spec = ReceiveSpec { force: true, commit_bytes: 1, ..resumable("b53/x") };
    let rest = interrupt(&mut pool, &plain_full("a@s", 0x30), &spec);
    let want = pool.contents("b53/x");
    is!(refused(&mut pool, &rest, &resumable("b53/x")), ReceiveError::ResumeExists(_));
    assert_eq!(pool.contents("b53/x"), want);
    // A snapshot made meanwhile is no more replaced with force than without.
    pool.snapshot("b53/x@mine");
    is!(refused(&mut pool, &rest, &spec), ReceiveError::HasSnapshots { .. });
    pool.destroy_snapshots("b53/x");
    pool.receive(&rest, &spec).unwrap();
    assert_eq!(pool.names(), ["b53", "b53/x@s", "b53/x"].map(String::from));
}

/// Between the two halves somebody made a snapshot, or changed a file: nothing of that is lost.
#[test]
fn b53_what_was_made_meanwhile_is_not_destroyed() {
    let mut pool = SimPool::new("b53m");
    pool.receive(&put_together(&raw_full()), &to("b53m/x")).unwrap();
    let rest = interrupt(&mut pool, &raw_next(9), &resumable("b53m/x"));
    pool.snapshot("b53m/x@mine");
    match refused(&mut pool, &rest, &resumable("b53m/x")) {
        ReceiveError::Modified { since, newer, .. } => {
            assert_eq!((since.as_str(), newer), ("b53m/x@one", vec!["b53m/x@mine".to_string()]));
        }
        e => panic!("{e:?}"),
    }
    let got = pool.receive(&rest, &ReceiveSpec { force: true, ..resumable("b53m/x") }).unwrap();
    assert_eq!(got.destroyed, ["b53m/x@mine"]);
    // The same with a file.
    let mut pool = SimPool::new("b53f");
    pool.receive(&put_together(&plain_full("a@s", 0x30)), &to("b53f/x")).unwrap();
    let mut next = plain_full("a@t", 0x31);
    if let Record::Begin(b) = &mut next[0].0 {
        b.fromguid = 0x30;
    }
    let rest = interrupt(&mut pool, &next, &ReceiveSpec { commit_bytes: 1, ..resumable("b53f/x") });
    pool.file("b53f/x", 30, 4096, 0..1, 77);
    is!(refused(&mut pool, &rest, &resumable("b53f/x")), ReceiveError::Modified { .. });
    assert!(pool.contents("b53f/x").contains_key(&30));
}

#[test]
fn b54_every_attempt_gets_further() {
    // Objects without data: no WRITE ever moves the point.
    let g = 7;
    let o = |object| {
        let o = Object {
            object,
            object_type: crate::make::FILE,
            blksz: 4096,
            dn_slots: 1,
            toguid: g,
            ..Object::default()
        };
        (Record::from(o), Vec::new())
    };
    let mut records: Records = vec![(begin("a@s", g, 0, 0).into(), vec![])];
    records.extend((8..200).map(o));
    records.push(end(g));
    let mut pool = SimPool::new("b54");
    let spec = resumable("b54/x");
    let mut last = (0, 0);
    let mut stream = put_together(&records);
    for attempt in 0.. {
        assert!(attempt < 100, "no progress");
        // Each attempt gets through ten records.
        let part = &stream[..stream.len().min(312 * 13 + 200)];
        let whole = part.len() == stream.len();
        match pool.receive(part, &spec) {
            Ok(_) => break,
            Err(e) => assert!(e.is_transport() && !whole, "{e:?}"),
        }
        pool.reopen();
        let point = pool.resume_point("b54/x");
        assert!(point > last, "{point:?} after {last:?}");
        last = point;
        stream = put_together(&resumed(&records, point.0, point.1));
    }
    assert_eq!(pool.contents("b54/x@s").len(), 192);
}

#[test]
fn b55_nothing_hidden_stays_and_giving_up_always_works() {
    let mut pool = SimPool::new("b55");
    let token = |p: &mut SimPool, path: &str| {
        let (io, dsl) = p.pool().parts();
        let head = dsl.lookup_head(io, path).unwrap();
        dsl.resume_token(io, head).unwrap()
    };
    // New, over an existing one, resumed once and broken again; given up each time.
    pool.receive(&put_together(&raw_full()), &to("b55/old")).unwrap();
    assert_eq!(token(&mut pool, "b55/old"), None);
    let before = pool.state();
    for again in [false, true] {
        for (records, target) in [(another_full("src/a@a", 0x5000), "b55/new"), (raw_next(9), "b55/old")] {
            let rest = interrupt(&mut pool, &records, &resumable(target));
            if again {
                pool.receive(&rest[..rest.len() - 320], &resumable(target)).unwrap_err();
            }
            assert!(token(&mut pool, target).is_some());
            abort(&mut pool, target).unwrap();
            pool.commit_and_reopen();
            let now = pool.state();
            assert_eq!((&now.0, &now.1), (&before.0, &before.1), "{target}");
            is!(abort(&mut pool, "b55/old").unwrap_err(), ReceiveError::NothingToAbort(_));
        }
    }
    // What is being received leaves what was there readable, and can be destroyed as a whole.
    let want = pool.contents("b55/old@one");
    let rest = interrupt(&mut pool, &raw_next(9), &resumable("b55/old"));
    assert_eq!(pool.contents("b55/old@one"), want);
    pool.receive(&rest, &resumable("b55/old")).unwrap();
    assert_eq!(token(&mut pool, "b55/old"), None);
    assert!(!pool.names().iter().any(|n| n.contains('%')));
    interrupt(&mut pool, &another_full("src/a@a", 0x5000), &resumable("b55/new"));
    let (io, dsl) = pool.pool().parts();
    dsl.destroy_head(io, "b55/new").unwrap();
    pool.commit().unwrap();
    pool.judge_blocks();
}

#[test]
fn b56_tokens_of_snapshots_that_are_gone() {
    let (mut far, mut pool) = (SimPool::new("b56far"), SimPool::new("b56"));
    far.filesystem("b56far/p");
    for snap in ["a", "b"] {
        far.file("b56far/p", 20, 4096, 0..30, 1);
        far.snapshot(&format!("b56far/p@{snap}"));
    }
    pool.receive(&far.send(None, "b56far/p@a", PLAIN).unwrap(), &to("b56/p")).unwrap();
    let next = far.send(Some("b56far/p@a"), "b56far/p@b", PLAIN).unwrap();
    pool.receive(&next[..next.len() / 2], &resumable("b56/p")).unwrap_err();
    let (io, dsl) = pool.pool().parts();
    let head = dsl.lookup_head(io, "b56/p").unwrap();
    let token = ResumeToken::parse(&dsl.resume_token(io, head).unwrap().unwrap()).unwrap();
    let resolve = |far: &mut SimPool| {
        let (io, dsl) = far.pool().parts();
        resolve_token(io, dsl, &token).map(|(spec, _)| spec.to).map_err(|e| e.to_string())
    };
    assert_eq!(resolve(&mut far).unwrap(), "b56far/p@b");
    let change = |far: &mut SimPool, work: &dyn Fn(&mut SimPool)| work(far);
    change(&mut far, &|far| {
        let (io, dsl) = far.pool().parts();
        dsl.rename_snapshot(io, "b56far/p", "b", "renamed").unwrap();
        far.commit_now();
    });
    assert_eq!(resolve(&mut far).unwrap(), "b56far/p@renamed");
    let destroy = |far: &mut SimPool, name: &str| {
        let (io, dsl) = far.pool().parts();
        dsl.destroy_snapshot(io, name, false).unwrap();
        far.commit_now();
    };
    let disk = far.disk.fork();
    destroy(&mut far, "b56far/p@a");
    let want = format!("cannot resume send: incremental source {:#x} no longer exists", token.fromguid);
    assert_eq!(resolve(&mut far).unwrap_err(), want);
    far.disk = std::sync::Arc::new(disk);
    far.reopen();
    destroy(&mut far, "b56far/p@renamed");
    assert_eq!(
        resolve(&mut far).unwrap_err(),
        "cannot resume send: 'b56far/p@b' used in the initial send no longer exists"
    );
    far.snapshot("b56far/p@b");
    assert_eq!(
        resolve(&mut far).unwrap_err(),
        "cannot resume send: 'b56far/p@b' is no longer the same snapshot used in the initial send"
    );
}

/// A token stands for one stream, not for the package it was part of.
#[test]
fn b57_a_resumed_stream_is_one_of_a_package() {
    let (mut far, mut pool) = (SimPool::new("b57far"), SimPool::new("b57"));
    far.filesystem("b57far/p");
    far.filesystem("b57far/p/below");
    for path in ["b57far/p", "b57far/p/below"] {
        far.file(path, 20, 4096, 0..30, 1);
    }
    far.snapshot_tree("b57far/p", "a");
    let package = far.send_tree(None, "b57far/p@a", PLAIN);
    pool.receive(&package[..package.len() / 4], &resumable("b57/p")).unwrap_err();
    let (io, dsl) = pool.pool().parts();
    let head = dsl.lookup_head(io, "b57/p").unwrap();
    let token = ResumeToken::parse(&dsl.resume_token(io, head).unwrap().unwrap()).unwrap();
    let (io, dsl) = far.pool().parts();
    let (spec, source) = resolve_token(io, dsl, &token).unwrap();
    let mut rest = Vec::new();
    send_one(io, &source, spec.flags, Packing::Native, &mut rest, &mut |_| {}).unwrap();
    let got = pool.receive(&rest, &resumable("b57/p")).unwrap();
    // What it says it has received is what is there: one snapshot, and nothing below.
    assert_eq!(got.snapshots.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["b57/p@a"]);
    assert_eq!(pool.names(), ["b57", "b57/p@a", "b57/p"].map(String::from));
    // The package once more brings what is missing.
    let got = pool.receive(&package, &to("b57/p")).unwrap();
    assert_eq!((got.present.len(), got.snapshots.len()), (1, 1));
    assert_eq!(pool.contents("b57/p/below@a"), far.contents("b57far/p/below@a"));
}

#[test]
fn b58_counts_of_filesystems_and_snapshots() {
    let mut pool = SimPool::new("b58");
    pool.encrypted("b58/e", RAW_FORM, &KEY);
    // As OpenZFS keeps them once a limit was set.
    const FS: &str = "com.joyent:filesystem_count";
    const SNAP: &str = "com.joyent:snapshot_count";
    {
        let (io, dsl) = pool.pool().parts();
        let dir = dsl.lookup_dir(io, "b58/e").unwrap();
        dsl.feature_incr(io, icecore_dsl::Feature::FS_SS_LIMIT).unwrap();
        for field in [FS, SNAP] {
            zap::update(&mut dsl.mos, io, ObjectId(dir), field, &zap::ZapValue::U64(vec![0])).unwrap();
        }
    }
    pool.commit().unwrap();
    // The hidden clone counts while it is there, as in OpenZFS, which takes it off again when it destroys it.
    let check = |pool: &mut SimPool, when: &str| {
        let hidden = usize::from(pool.names().iter().any(|n| n.contains('%')));
        let (io, dsl) = pool.pool().parts();
        for path in dsl.descendants(io, "b58/e").unwrap() {
            let dir = dsl.lookup_dir(io, &path).unwrap();
            let stored = |field| zap::lookup(&dsl.mos, io, ObjectId(dir), field).unwrap();
            let below = dsl.descendants(io, &path).unwrap();
            let snaps: usize = below.iter().map(|p| dsl.snapshots(io, p).unwrap().len()).sum();
            let want = |n: usize| Some(zap::ZapValue::U64(vec![n as u64]));
            assert_eq!(
                (stored(FS), stored(SNAP)),
                (want(below.len() - 1 + hidden), want(snaps)),
                "{when}: {path}"
            );
        }
    };
    pool.receive(&put_together(&raw_full()), &to("b58/e/x")).unwrap();
    check(&mut pool, "full");
    let rest = interrupt(&mut pool, &raw_next(9), &resumable("b58/e/x"));
    check(&mut pool, "partial");
    pool.receive(&rest, &resumable("b58/e/x")).unwrap();
    check(&mut pool, "resumed");
    pool.snapshot("b58/e/x@mine");
    let mut third = raw_next(9);
    third[0] = raw_begin("src/fs@three", (0x2000, 0x3000), (0x52, 0x53), 9);
    third[1..].iter_mut().for_each(|(r, _)| set_guid(r, 0x3000));
    pool.receive(&put_together(&third), &force("b58/e/x")).unwrap();
    check(&mut pool, "forced");
    interrupt(&mut pool, &another_full("src/a@a", 0x5000), &resumable("b58/e/y"));
    abort(&mut pool, "b58/e/y").unwrap();
    check(&mut pool, "given up");
    let (io, dsl) = pool.pool().parts();
    dsl.rollback(io, "b58/e/x", Some("three")).unwrap();
    pool.commit().unwrap();
    check(&mut pool, "rolled back");
    let (io, dsl) = pool.pool().parts();
    dsl.destroy_snapshot(io, "b58/e/x@two", false).unwrap();
    pool.commit().unwrap();
    check(&mut pool, "destroyed");
}

#[test]
fn b59_what_force_destroys_is_listed_beforehand() {
    let (mut far, mut pool) = (SimPool::new("b59far"), SimPool::new("b59"));
    far.filesystem("b59far/p");
    far.filesystem("b59far/p/goes");
    far.filesystem("b59far/p/stays");
    for snap in ["a", "b"] {
        far.file("b59far/p/stays", 20, 4096, 0..3, 1);
        far.snapshot_tree("b59far/p", snap);
    }
    let mut seed = Vec::new();
    let send = SendSpec { to: "b59far/p@b".into(), flags: PLAIN, ..SendSpec::default() };
    let spec = PackageSpec { send, replicate: true, ..PackageSpec::default() };
    let (io, dsl) = far.pool().parts();
    send_package(io, dsl, &spec, &mut seed, &mut |_| {}).unwrap();
    pool.receive(&seed, &to("b59/p")).unwrap();
    // There a dataset and an old snapshot go; here a snapshot is added.
    let (io, dsl) = far.pool().parts();
    for snap in ["a", "b"] {
        dsl.destroy_snapshot(io, &format!("b59far/p/goes@{snap}"), false).unwrap();
    }
    dsl.destroy_head(io, "b59far/p/goes").unwrap();
    dsl.destroy_snapshot(io, "b59far/p/stays@a", false).unwrap();
    far.commit_now();
    far.snapshot_tree("b59far/p", "c");
    pool.snapshot("b59/p/stays@here");
    let next = far.send_tree(Some("b59far/p@b"), "b59far/p@c", PLAIN);
    // Without force nothing goes, whatever else happens.
    let disk = pool.disk.fork();
    let before = pool.names();
    let _ = pool.receive(&next, &to("b59/p"));
    assert!(before.iter().all(|n| pool.names().contains(n)));
    pool.disk = std::sync::Arc::new(disk);
    pool.reopen();
    let dry = ReceiveSpec { dry_run: true, ..force("b59/p") };
    let mut listed = pool.receive(&next, &dry).unwrap().destroyed;
    assert_eq!(pool.names(), before);
    let mut done = pool.receive(&next, &force("b59/p")).unwrap().destroyed;
    listed.sort();
    done.sort();
    assert_eq!(listed, done);
    let want = ["b59/p/goes", "b59/p/goes@a", "b59/p/goes@b", "b59/p/stays@a", "b59/p/stays@here"];
    assert_eq!(done, want);
    let gone: Vec<&String> = before.iter().filter(|n| !pool.names().contains(n)).collect();
    assert_eq!(gone.len(), want.len());
}

/// What is in the way of a package's streams, and `-F` destroys or renames, is in a dry run's way neither.
#[test]
fn b59_a_dry_run_counts_on_what_force_makes_room_for() {
    let (mut far, mut pool) = (SimPool::new("b59rfar"), SimPool::new("b59r"));
    far.filesystem("b59rfar/p");
    far.filesystem("b59rfar/p/old");
    far.file("b59rfar/p/old", 20, 4096, 0..3, 1);
    far.snapshot_tree("b59rfar/p", "a");
    let first = far.send_tree(None, "b59rfar/p@a", PLAIN);
    pool.receive(&first, &to("b59r/p")).unwrap();
    // There a dataset gets another name, and new ones come: one with the old name, one with that of a
    // dataset which is only here and has a snapshot of its own.
    let (io, dsl) = far.pool().parts();
    dsl.rename(io, "b59rfar/p/old", "b59rfar/p/other").unwrap();
    far.commit_now();
    far.filesystem("b59rfar/p/new");
    far.filesystem("b59rfar/p/old");
    far.file("b59rfar/p/new", 20, 4096, 0..3, 2);
    far.snapshot_tree("b59rfar/p", "b");
    pool.filesystem("b59r/p/new");
    pool.snapshot("b59r/p/new@b");
    let next = far.send_tree(Some("b59rfar/p@a"), "b59rfar/p@b", PLAIN);
    let before = pool.names();
    let would = pool.receive(&next, &ReceiveSpec { dry_run: true, ..force("b59r/p") }).unwrap();
    assert_eq!(pool.names(), before);
    let did = pool.receive(&next, &force("b59r/p")).unwrap();
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        names
    };
    assert_eq!(sorted(&would.destroyed), ["b59r/p/new", "b59r/p/new@b"]);
    assert_eq!(sorted(&would.destroyed), sorted(&did.destroyed));
    assert_eq!(would.renamed, [("b59r/p/old".to_string(), "b59r/p/other".to_string())]);
    assert_eq!(would.renamed, did.renamed);
    let guids =
        |r: &icecore_stream::receive::Received| r.snapshots.iter().map(|s| s.guid).collect::<Vec<_>>();
    assert_eq!(guids(&would), guids(&did));
}

#[test]
fn b60_an_origin_is_found_by_guid_or_not_at_all() {
    let mut pool = SimPool::new("b60");
    // The same snapshot in two places.
    let full = put_together(&plain_full("src/p@s", 0x30));
    pool.receive(&full, &to("b60/one")).unwrap();
    let clone = |from: u64| {
        let mut b = begin("src/c@t", 0x31, from, 0);
        b.flags |= icecore_format::stream::begin_flag::CLONE;
        put_together(&[(b.into(), vec![]), end(0x31)])
    };
    match refused(&mut pool, &clone(0x99), &to("b60/c")) {
        ReceiveError::NoOrigin { want } => assert_eq!(want, 0x99),
        e => panic!("{e:?}"),
    }
    pool.receive(&clone(0x30), &to("b60/c")).unwrap();
    assert_eq!(pool.prop("b60/c", "origin").0, "b60/one@s");
    pool.destroy("b60/c");
    pool.receive(&full, &to("b60/two")).unwrap();
    match refused(&mut pool, &clone(0x30), &to("b60/c")) {
        ReceiveError::AmbiguousOrigin { want: 0x30, found } => {
            assert_eq!(found.len(), 2);
            assert!(found.contains(&"b60/one@s".to_string()) && found.contains(&"b60/two@s".to_string()));
        }
        e => panic!("{e:?}"),
    }
    let named = |origin: &str| ReceiveSpec { origin: Some(origin.into()), ..to("b60/c") };
    pool.snapshot("b60/one@other");
    is!(
        refused(&mut pool, &clone(0x30), &named("b60/one@other")),
        ReceiveError::OriginMismatch { want: 0x30, .. }
    );
    pool.receive(&clone(0x30), &named("b60/two@s")).unwrap();
    assert_eq!(pool.prop("b60/c", "origin").0, "b60/two@s");
}

#[test]
fn b61_a_received_dataset_is_as_it_was_received() {
    let (mut far, mut pool) = (SimPool::new("b61far"), SimPool::new("b61"));
    far.filesystem("b61far/x");
    for snap in ["s", "t"] {
        far.file("b61far/x", 20, 4096, 0..3, 1);
        far.snapshot(&format!("b61far/x@{snap}"));
    }
    pool.receive(&far.send(None, "b61far/x@s", PLAIN).unwrap(), &to("b61/x")).unwrap();
    let (io, dsl) = pool.pool().parts();
    let head = dsl.lookup_head(io, "b61/x").unwrap();
    assert!(!dsl.modified_since_snapshot(io, head).unwrap());
    // Opened, listed and sent many times: nothing is written, and the next increment fits.
    let writes = pool.disk.stats().writes;
    for _ in 0..3 {
        pool.commit_and_reopen();
        let (io, dsl) = pool.pool().parts();
        dsl.props(io, "b61/x").unwrap();
        pool.send(None, "b61/x@s", PLAIN).unwrap();
    }
    assert_eq!(pool.disk.stats().writes, writes);
    pool.receive(&far.send(Some("b61far/x@s"), "b61far/x@t", PLAIN).unwrap(), &to("b61/x")).unwrap();
}

#[test]
fn b62_what_a_stream_wants_for_the_machine_does_not_rule() {
    let mut far = SimPool::new("b62far");
    far.filesystem("b62far/p");
    let wants = [
        ("mountpoint", "/etc"),
        ("canmount", "on"),
        ("sharenfs", "on"),
        ("exec", "on"),
        ("setuid", "on"),
        ("devices", "on"),
        ("overlay", "on"),
        ("recordsize", "64K"),
        ("org.example:note", "hello"),
    ];
    for (name, value) in wants {
        let (io, dsl) = far.pool().parts();
        dsl.prop_set(io, "b62far/p", name, value).unwrap();
    }
    far.commit_now();
    far.snapshot("b62far/p@s");
    let send = SendSpec { to: "b62far/p@s".into(), flags: PLAIN, ..SendSpec::default() };
    let spec = PackageSpec { send, properties: true, ..PackageSpec::default() };
    let mut stream = Vec::new();
    let (io, dsl) = far.pool().parts();
    send_package(io, dsl, &spec, &mut stream, &mut |_| {}).unwrap();
    let mut pool = SimPool::new("b62");
    pool.receive(&stream, &to("b62/p")).unwrap();
    for (name, value) in wants {
        let (now, source) = pool.prop("b62/p", name);
        let rules = source == "received";
        assert_eq!(rules, ["recordsize", "org.example:note"].contains(&name), "{name}: {now} {source}");
        if name == "mountpoint" {
            assert_ne!(now, value);
        }
    }
    // Kept, for who asks for them.
    let (io, dsl) = pool.pool().parts();
    let head = dsl.lookup_head(io, "b62/p").unwrap();
    let kept = dsl.own_props(io, head, true).unwrap();
    assert!(kept.iter().any(|p| p.name == "mountpoint"), "received values are kept");
    // Trusted by word only.
    pool.receive(&stream, &ReceiveSpec { trust_props: true, ..to("b62/q") }).unwrap();
    assert_eq!(pool.prop("b62/q", "mountpoint"), ("/etc".into(), "received".into()));
}

#[test]
fn b64_a_snapshot_destroyed_between_two_sends() {
    let mut pool = SimPool::new("b64");
    pool.encrypted("b64/e", RAW_FORM, &KEY);
    for (i, snap) in ["a", "b", "c"].iter().enumerate() {
        pool.file("b64/e", 20, 4096, 0..9, i as u64);
        pool.snapshot(&format!("b64/e@{snap}"));
    }
    let mut far = SimPool::new("b64far");
    far.receive(&pool.send(None, "b64/e@a", RAW).unwrap(), &to("b64far/e")).unwrap();
    let (io, dsl) = pool.pool().parts();
    dsl.destroy_snapshot(io, "b64/e@b", false).unwrap();
    // Also before that is committed.
    far.receive(&pool.send(Some("b64/e@a"), "b64/e@c", RAW).unwrap(), &to("b64far/e")).unwrap();
    pool.commit_now();
    assert_eq!(far.contents("b64far/e@c"), pool.contents("b64/e@c"));
    assert!(pool.send(None, "b64/e@b", RAW).is_err());
    far.judge_blocks();
}
