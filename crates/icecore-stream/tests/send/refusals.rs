//! What cannot be sent, and in which words that is said.

use crate::support::*;
use icecore_dmu::ReadError;
use icecore_stream::send::{PackageSpec, SendError, SendFlags, resolve_token};
use icecore_stream::token::{self, ResumeToken};

fn refused(from: Option<&str>, to: &str, flags: SendFlags, words: &str) -> SendError {
    let error = send(&main_pool(), &spec(from, to, flags)).unwrap_err();
    assert_eq!(error.to_string(), words);
    error
}

#[test]
fn what_is_not_there() {
    let to = "main/plain@newsnapshot";
    let e = refused(None, "main/plain@nothing", PLAIN, "main/plain@nothing does not exist");
    assert!(matches!(e, SendError::NoSnapshot(_)));
    let e = refused(Some("main/plain#no"), to, PLAIN, "incremental source (main/plain#no) does not exist");
    assert!(matches!(e, SendError::NoSource { .. }));
    let mark = "main/encrypted/docs#kept";
    refused(None, mark, PLAIN, "not supported: main/encrypted/docs#kept is a bookmark");
    // A dataset as it is now has no IV set.
    let words =
        "not supported: a raw stream of main/encrypted/docs, which is encrypted and no snapshot: make one";
    refused(None, "main/encrypted/docs", RAW, words);
}

#[test]
fn sources_out_of_history() {
    for (from, to) in [
        ("main/plain@newsnapshot", "main/plain@root"),
        ("main/plain@root", "main/plain@root"),
        ("main/encrypted/docs@root", "main/plain@newsnapshot"),
        ("main/encrypted/docs#kept", "main/encrypted/docs@root"),
    ] {
        let words = format!("incremental source ({from}) is not earlier than {to} in its history");
        let e = refused(Some(from), to, PLAIN, &words);
        assert!(matches!(e, SendError::NotEarlier { .. }));
    }
}

#[test]
fn ciphertext_without_its_key() {
    let e = send(&main_pool(), &spec(None, "main/encrypted/docs@root", PLAIN)).unwrap_err();
    assert!(matches!(e, SendError::Read(ReadError::KeyUnavailable { .. })), "{e}");
}

#[test]
fn encrypted_datasets_with_properties_go_raw_only() {
    let spec =
        PackageSpec { send: spec(None, "main@root", PLAIN), replicate: true, ..PackageSpec::default() };
    let e = package(&main_pool(), &spec).unwrap_err();
    assert!(matches!(&e, SendError::EncryptedWithProperties { dataset, .. } if dataset == "main/encrypted"));
}

#[test]
fn a_tree_that_lacks_the_snapshot() {
    let mut spec = PackageSpec {
        send: spec(None, "main/encrypted@only-docs", RAW),
        replicate: true,
        ..PackageSpec::default()
    };
    assert!(matches!(package(&main_pool(), &spec).unwrap_err(), SendError::NoSnapshot(_)));
    spec.send.to = "main@root".into();
    spec.send.from = Some("main@no".into());
    assert!(matches!(package(&main_pool(), &spec).unwrap_err(), SendError::NoSource { .. }));
    spec.send.from = Some("main/encrypted/docs#kept".into());
    assert!(matches!(package(&main_pool(), &spec).unwrap_err(), SendError::Options(_)));
}

#[test]
fn tokens_of_what_is_gone() {
    let pool = main_pool();
    let snapshot = |name: &str| {
        let r = pool.dsl.lookup_snapshot(pool.io(), name).unwrap();
        pool.dsl.dataset(pool.io(), r.obj).unwrap().guid
    };
    let token = |toname: &str, toguid: u64, fromguid: u64| {
        let mut list = icecore_format::nvlist::NvList::new();
        if fromguid != 0 {
            list.set("fromguid", fromguid);
        }
        list.set("object", 8_u64).set("offset", 0_u64).set("bytes", 1_u64).set("toguid", toguid);
        list.set("toname", toname).set_flag("rawok");
        ResumeToken::parse(&token::encode(&list.encode_native())).unwrap()
    };
    let resolve = |t: &ResumeToken| resolve_token(pool.io(), &pool.dsl, t);
    let (root, guid) = ("main/encrypted/docs@root", snapshot("main/encrypted/docs@root"));
    let (spec, source) = resolve(&token(root, guid, 0)).unwrap();
    assert_eq!((spec.to.as_str(), source.resume, spec.flags), (root, Some((8, 0)), RAW));
    // Renamed since: found by its guid.
    assert_eq!(resolve(&token("main/elsewhere@root", guid, 0)).unwrap().0.to, root);
    let kept = snapshot("main/encrypted/docs@only-docs");
    let new = "main/encrypted/docs@newsnapshot";
    let spec = resolve(&token(new, snapshot(new), kept)).unwrap().0;
    assert_eq!(spec.from.as_deref(), Some("main/encrypted/docs@only-docs"));

    let words = |t: &ResumeToken| resolve(t).unwrap_err().to_string();
    assert_eq!(
        words(&token(root, 17, 0)),
        format!("cannot resume send: '{root}' is no longer the same snapshot used in the initial send")
    );
    assert_eq!(
        words(&token("main/gone@x", 17, 0)),
        "cannot resume send: 'main/gone@x' used in the initial send no longer exists"
    );
    assert_eq!(
        words(&token(new, snapshot(new), 0x17)),
        "cannot resume send: incremental source 0x17 no longer exists"
    );
}
