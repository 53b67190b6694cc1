//! Every check that OpenZFS's receiver makes, and the test that hits ours.
//!
//! Before the first change (`recv_begin_check_existing_impl`, `dmu_recv_begin_check`,
//! `dmu_recv_resume_begin_check`, dmu_recv.c):
//!
//! | situation | test |
//! |---|---|
//! | unknown feature bit; deduplicated; objset type; raw with embedded blocks; raw without the spill flag | `refusals::streams_that_cannot_be` |
//! | a feature of the stream that the pool lacks, each; `-s` without extensible_dataset | `features_the_pool_lacks` |
//! | partial state here (also with `-F`, `-s`) | `sharp_edges::resume::b51_…`, `damage::an_interrupted_receive_can_be_given_up` |
//! | the snapshot's name is taken; the dataset exists | `names_that_are_taken` |
//! | a volume over a dataset with children, or in the place of a pool's root; anything below a volume | `volumes_and_trees` |
//! | incremental: raw upon plain; embedded into encrypted; no such base; modified, or later snapshots | `sharp_edges::streams::what_does_not_fit_here_is_refused`, `refusals::incrementals_that_do_not_fit`, `sharp_edges::features::b46_…`, `sharp_edges::iv::b06_…` |
//! | redaction that does not fit | `sharp_edges::features::b47_…`, `sharp_edges::latent::l04_…` |
//! | large blocks here, none in the stream; at the origin of a clone; when resuming | `sharp_edges::features::b43_…`, `sharp_edges::latent::l09_…`, `resumed_without_large_blocks` |
//! | full over an existing one: without `-F`; with snapshots; a clone; encrypted; raw | `names_that_are_taken`, `what_force_does_not_replace`, `sharp_edges::iv::b07_…` |
//! | no destination; no parent; a name that cannot be | `refusals::streams_that_cannot_be` |
//! | a clone: full without FREERECORDS; another origin; no such origin; several; origin no snapshot; raw upon plain; key not loaded | `clones_that_cannot_be`, `sharp_edges::resume::b60_…` |
//! | plain below an encrypted parent | `sharp_edges::keys::b36_…` |
//! | plain into an encrypted dataset whose key is not loaded, or that was received raw | `sharp_edges::iv::b05_…` |
//! | resume: nothing there; another stream; another point; over a dataset without `-F`; something newer since | `damage::resumed_after_a_cut_anywhere_is_the_same`, `resumes_that_do_not_fit`, `sharp_edges::resume::b53_…` |
//!
//! Keys and objset of raw streams (`dsl_crypto_recv_raw_key_check`, `dsl_crypto_recv_raw_objset_check`):
//! `refusals::keys_that_cannot_be`, `refusals::incrementals_that_do_not_fit`, `sharp_edges::iv::b01_…` to `b04_…`.
//!
//! Records (`recv_check_drr_*`), one case for each rule and kind of stream: `rules::every_rule_is_hit`.
//! Objects that exist (`receive_handle_existing_object`): `sharp_edges::structure::b10_…` to `b28_…`,
//! `sharp_edges::features::b43_…`. Tokens: `token::tests`, `sharp_edges::resume::b56_…`, `sharp_edges::latent::l06_…`.
//! Corrective receive is not there to be refused.

use crate::make::{Records, begin, end, free_objects, put_together, raw_full, resumed};
use crate::support::{SimPool, force, to};
use icecore_dmu::zap;
use icecore_dsl::Feature;
use icecore_format::ObjectId;
use icecore_format::stream::{Record, begin_flag, feature};
use icecore_stream::receive::{Engine, ReceiveError, ReceiveSpec};

fn plain(toname: &str, fromguid: u64, toguid: u64, bits: u64) -> Records {
    vec![(begin(toname, toguid, fromguid, bits).into(), Vec::new()), free_objects(toguid, 0, 32), end(toguid)]
}

/// Receives, expects a refusal, and that nothing has changed, now or in a later txg.
fn refused(pool: &mut SimPool, records: &[(Record, Vec<u8>)], spec: &ReceiveSpec) -> ReceiveError {
    let before = (pool.names(), pool.snapshots(), pool.pool().space().allocated);
    let got = pool.receive(&put_together(records), spec).unwrap_err();
    pool.commit_and_reopen();
    assert_eq!((pool.names(), pool.snapshots(), pool.pool().space().allocated), before, "{got:?}");
    assert!(!got.to_string().is_empty());
    got
}

macro_rules! is {
    ($got:expr, $want:pat) => {{
        let got = $got;
        assert!(matches!(got, $want), "{got:?}");
    }};
}

#[test]
fn features_the_pool_lacks() {
    let cases: [(u64, Feature); 9] = [
        (feature::LZ4, Feature::by_name("lz4_compress").unwrap()),
        (feature::ZSTD, Feature::ZSTD_COMPRESS),
        (feature::EMBED_DATA, Feature::by_name("embedded_data").unwrap()),
        (feature::LARGE_BLOCKS, Feature::LARGE_BLOCKS),
        (feature::LARGE_DNODE, Feature::LARGE_DNODE),
        (feature::LARGE_MICROZAP, Feature::by_name("large_microzap").unwrap()),
        (feature::REDACTED, Feature::REDACTED_DATASETS),
        (feature::LONGNAME, Feature::by_name("longname").unwrap()),
        (feature::RAW, Feature::ENCRYPTION),
    ];
    let base = SimPool::new("lacks").disk.fork();
    for (bit, f) in cases {
        let mut pool = SimPool::on("lacks", std::sync::Arc::new(base.fork()), 1);
        disable(&mut pool, f);
        let stream = if bit == feature::RAW { raw_full() } else { plain("a@s", 0, 5, bit) };
        let got = pool.receive(&put_together(&stream), &to("lacks/x")).unwrap_err();
        match got {
            ReceiveError::PoolFeature(name) => assert_eq!(Feature::by_name(name), Some(f)),
            e => panic!("{f:?}: {e:?}"),
        }
        assert_eq!(pool.names(), ["lacks"]);
    }
    let mut pool = SimPool::on("lacks", std::sync::Arc::new(base.fork()), 1);
    disable(&mut pool, Feature::EXTENSIBLE_DATASET);
    let spec = ReceiveSpec { resumable: true, ..to("lacks/x") };
    let got = pool.receive(&put_together(&plain("a@s", 0, 5, 0)), &spec).unwrap_err();
    is!(got, ReceiveError::PoolFeature("extensible_dataset"));
}

/// As a pool in which the feature was never enabled.
fn disable(pool: &mut SimPool, f: Feature) {
    let (io, dsl) = pool.pool().parts();
    for list in ["features_for_write", "features_for_read"] {
        let obj = dsl.directory_entry(io, list).unwrap().unwrap();
        if zap::lookup(&dsl.mos, io, ObjectId(obj), f.guid).unwrap().is_some() {
            zap::remove(&mut dsl.mos, io, ObjectId(obj), f.guid).unwrap();
        }
    }
    assert!(!dsl.feature_enabled(io, f).unwrap());
}

#[test]
fn names_that_are_taken() {
    let mut pool = SimPool::new("taken");
    let p = &mut pool;
    p.receive(&put_together(&plain("a@s", 0, 5, 0)), &to("taken/x")).unwrap();
    is!(refused(p, &plain("a@s", 0, 6, 0), &to("taken/x")), ReceiveError::Exists(_));
    is!(refused(p, &plain("a@s", 0, 6, 0), &force("taken/x")), ReceiveError::SnapshotExists(_));
    is!(refused(p, &plain("a@s", 5, 6, 0), &to("taken/x")), ReceiveError::SnapshotExists(_));
    is!(refused(p, &plain("a@t", 0, 6, 0), &to("taken/x")), ReceiveError::Exists(_));
    is!(refused(p, &plain("a@t", 0, 6, 0), &force("taken/x")), ReceiveError::HasSnapshots { .. });
}

fn volume(toname: &str, guid: u64) -> Records {
    let mut b = begin(toname, guid, 0, 0);
    b.objset_type = 3;
    let o = |object, object_type| {
        let o = icecore_format::stream::Object {
            object,
            object_type,
            blksz: 8192,
            dn_slots: 1,
            toguid: guid,
            ..icecore_format::stream::Object::default()
        };
        (Record::from(o), Vec::new())
    };
    vec![(b.into(), vec![]), o(1, 23), o(2, 24), end(guid)]
}

#[test]
fn volumes_and_trees() {
    let mut pool = SimPool::new("vols");
    let p = &mut pool;
    p.receive(&put_together(&volume("a@s", 5)), &to("vols/v")).unwrap();
    let (io, dsl) = p.pool().parts();
    let head = dsl.lookup_head(io, "vols/v").unwrap();
    assert_eq!(dsl.kind(io, head).unwrap(), icecore_dsl::Kind::Volume);
    is!(refused(p, &plain("b@s", 0, 6, 0), &to("vols/v/below")), ReceiveError::WrongParent(_));
    is!(refused(p, &volume("b@s", 6), &to("vols/v/below")), ReceiveError::WrongParent(_));
    p.receive(&put_together(&plain("b@s", 0, 7, 0)), &to("vols/fs")).unwrap();
    p.receive(&put_together(&plain("b@s", 0, 8, 0)), &to("vols/fs/child")).unwrap();
    p.destroy_snapshots("vols/fs");
    is!(refused(p, &volume("b@t", 9), &force("vols/fs")), ReceiveError::WrongParent(_));
    let mut root = SimPool::new("volroot");
    is!(refused(&mut root, &volume("b@t", 9), &force("volroot")), ReceiveError::WrongParent(_));
}

#[test]
fn what_force_does_not_replace() {
    let mut pool = SimPool::new("norepl");
    let p = &mut pool;
    p.receive(&put_together(&plain("a@s", 0, 5, 0)), &to("norepl/x")).unwrap();
    let (io, dsl) = p.pool().parts();
    let origin = dsl.lookup_snapshot(io, "norepl/x@s").unwrap();
    dsl.clone_snapshot(io, origin, "norepl/c").unwrap();
    p.commit().unwrap();
    is!(refused(p, &plain("b@t", 0, 6, 0), &force("norepl/c")), ReceiveError::IsClone(_));
    let mut clone = plain("b@t", 5, 6, 0);
    if let Record::Begin(b) = &mut clone[0].0 {
        b.flags |= begin_flag::CLONE;
    }
    is!(refused(p, &clone, &force("norepl/c")), ReceiveError::BadStream(_));
    is!(refused(p, &clone, &to("norepl/c")), ReceiveError::Exists(_));
}

#[test]
fn clones_that_cannot_be() {
    let mut pool = SimPool::new("noclone");
    let p = &mut pool;
    p.receive(&put_together(&plain("a@s", 0, 5, 0)), &to("noclone/x")).unwrap();
    p.receive(&put_together(&raw_full()), &to("noclone/e")).unwrap();
    let named = |origin: &str| ReceiveSpec { origin: Some(origin.into()), ..to("noclone/c") };
    let mut full = plain("b@t", 0, 6, 0);
    if let Record::Begin(b) = &mut full[0].0 {
        b.flags &= !begin_flag::FREERECORDS;
    }
    is!(refused(p, &full, &named("noclone/x@s")), ReceiveError::NoFreeRecords);
    is!(
        refused(p, &plain("b@t", 9, 6, 0), &named("noclone/x@s")),
        ReceiveError::OriginMismatch { want: 9, have: 5 }
    );
    for origin in ["noclone/x", "noclone/x@none", "noclone/none@s", "elsewhere/x@s", ""] {
        let got = refused(p, &plain("b@t", 5, 6, 0), &named(origin));
        assert!(matches!(got, ReceiveError::Dsl(_)), "{origin}: {got:?}");
    }
    is!(refused(p, &plain("b@t", 0x1000, 6, 0), &named("noclone/e@one")), ReceiveError::KeyNotLoaded(_));
    is!(refused(p, &raw_full(), &named("noclone/x@s")), ReceiveError::RawOverPlain(_));
    // A full stream as a clone leaves nothing of the origin behind but what it sent.
    p.receive(&put_together(&plain("b@t", 0, 6, 0)), &named("noclone/x@s")).unwrap();
    assert_eq!(p.prop("noclone/c", "origin").0, "noclone/x@s");
    p.judge_blocks();
}

#[test]
fn resumes_that_do_not_fit() {
    let mut pool = SimPool::new("nores");
    let p = &mut pool;
    let again = |object, offset| resumed(&raw_full(), object, offset);
    let spec = ReceiveSpec { resumable: true, commit_bytes: 1, ..to("nores/x") };
    is!(refused(p, &again(2, 0), &spec), ReceiveError::NotResumable(_));
    p.receive(&put_together(&plain("a@s", 0, 5, 0)), &to("nores/whole")).unwrap();
    let whole = ReceiveSpec { target: "nores/whole".into(), ..spec.clone() };
    is!(refused(p, &again(2, 0), &whole), ReceiveError::NotResumable(_));
    let stream = put_together(&raw_full());
    p.receive(&stream[..stream.len() / 2], &spec).unwrap_err();
    let (object, offset) = p.resume_point("nores/x");
    for (o, at) in [(object, offset + 512), (object + 1, offset), (0, 0), (u64::MAX, u64::MAX)] {
        is!(refused(p, &again(o, at), &spec), ReceiveError::ResumePoint { .. });
    }
    // Without a point in its list, not raw any more, of another source.
    let mut bare = raw_full();
    if let Record::Begin(b) = &mut bare[0].0 {
        b.set_features(b.features() | feature::RESUMING);
    }
    is!(refused(p, &bare, &spec), ReceiveError::BadStream(_));
    let mut other = again(object, offset);
    if let Record::Begin(b) = &mut other[0].0 {
        b.set_features(b.features() & !feature::RAW);
    }
    is!(refused(p, &other, &spec), ReceiveError::NotResumable(_));
    let mut other = again(object, offset);
    if let Record::Begin(b) = &mut other[0].0 {
        b.fromguid = 0x77;
    }
    is!(refused(p, &other, &spec), ReceiveError::NotResumable(_));
    p.receive(&put_together(&again(object, offset)), &spec).unwrap();
}

#[test]
fn resumed_without_large_blocks() {
    let mut pool = SimPool::new("reslarge");
    let g = 7;
    let mut records: Records = vec![(begin("a@s", g, 0, feature::LARGE_BLOCKS).into(), vec![])];
    for object in 8..40 {
        records.push(crate::make::file(object, 4096, 5, g));
        records.push(crate::make::chunk(object, 0, 4096, 1, g));
    }
    records.push(end(g));
    let stream = put_together(&records);
    let spec = ReceiveSpec { resumable: true, commit_bytes: 1, ..to("reslarge/x") };
    pool.receive(&stream[..stream.len() / 2], &spec).unwrap_err();
    let (object, offset) = pool.resume_point("reslarge/x");
    let mut rest = resumed(&records, object, offset);
    if let Record::Begin(b) = &mut rest[0].0 {
        b.set_features(b.features() & !feature::LARGE_BLOCKS);
    }
    is!(refused(&mut pool, &rest, &spec), ReceiveError::LargeBlockMismatch(_));
    pool.receive(&put_together(&resumed(&records, object, offset)), &spec).unwrap();
}
