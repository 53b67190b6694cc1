//! Every stream at hand, made again.

use crate::support::*;
use icecore_format::Guid;
use icecore_pool::Pool;
use icecore_stream::send::{PackageSpec, SendFlags, SendSpec};
use std::path::Path;

const PASSPHRASE: &str = "correct horse battery staple";

fn whole(to: &str, from: Option<&str>, flags: SendFlags) -> PackageSpec {
    PackageSpec { send: spec(from, to, flags), replicate: true, ..PackageSpec::default() }
}

#[test]
fn a_raw_increment_from_a_bookmark() {
    let spec = spec(Some("main/encrypted/docs#kept"), "main/encrypted/docs@newsnapshot", RAW);
    assert_same(&send(&main_pool(), &spec).unwrap(), &fixture("docs-kept-newsnapshot.raw-i.zfs"));
}

#[test]
fn decrypted_with_the_key() {
    let mut pool = main_pool();
    let (root, new) = ("main/encrypted/docs@root", "main/encrypted/docs@newsnapshot");
    unlock(&mut pool, root, PASSPHRASE);
    unlock(&mut pool, new, PASSPHRASE);
    assert_same(&send(&pool, &spec(None, root, PLAIN)).unwrap(), &fixture("docs@root.decrypted.zfs"));
    let increment = send(&pool, &spec(Some(root), new, PLAIN)).unwrap();
    assert_same(&increment, &fixture("docs@root-newsnapshot.decrypted.zfs"));
}

#[test]
fn a_raw_tree() {
    let (sent, made) = package(&main_pool(), &whole("main@root", None, RAW)).unwrap();
    assert!(sent.warnings.is_empty());
    // The owner has been changed since that stream was sent.
    assert_same_but(&made, &fixture("main@root.raw-R.zfs"), ("'ben'", "'anna'"));
}

#[test]
fn raw_increments_of_a_tree() {
    let mut spec = whole("main@newsnapshot", Some("main@root"), RAW);
    spec.intermediates = true;
    assert_same(&package(&main_pool(), &spec).unwrap().1, &fixture("main@root-newsnapshot.raw-R-I.zfs"));
}

#[test]
fn all_snapshots_of_a_dataset() {
    let made = package(&main_pool(), &whole("main/plain@newsnapshot", None, PLAIN)).unwrap().1;
    assert_same(&made, &fixture("plain@newsnapshot.R.zfs"));
}

#[test]
fn large_embedded_compressed_with_properties() {
    let spec = PackageSpec {
        send: spec(None, "main/plain@newsnapshot", LEC),
        properties: true,
        ..PackageSpec::default()
    };
    assert_same(&package(&main_pool(), &spec).unwrap().1, &fixture("plain@newsnapshot.Lecp.zfs"));
}

fn check_package(pool: &Pool, file: &str, spec: &PackageSpec) {
    eprintln!("{file}");
    assert_same(&package(pool, spec).unwrap().1, &zoo(file).unwrap());
}

#[test]
fn the_larger_zoo_cold() {
    if zoo("main@newsnapshot.raw-R.zfs").is_some() {
        check_package(&main_pool(), "main@newsnapshot.raw-R.zfs", &whole("main@newsnapshot", None, RAW));
    }
}

#[test]
fn the_larger_zoo_crypt() {
    let Some(image) = zoo("crypt.img") else { return };
    let pool = open(&[&image]);
    streams_again(&pool, "crypt-ccm@two.raw.zfs", RAW);
    streams_again(&pool, "crypt-pass@two.raw-R.zfs", RAW);
    streams_again(&pool, "crypt-pass@one-two.raw-R-I.zfs", RAW);
    check_package(&pool, "crypt-pass@two.raw-R.zfs", &whole("crypt/pass@two", None, RAW));
    let mut spec = whole("crypt/pass@two", Some("crypt/pass@one"), RAW);
    spec.intermediates = true;
    check_package(&pool, "crypt-pass@one-two.raw-R-I.zfs", &spec);
}

#[test]
fn the_larger_zoo_shapes() {
    let Some(image) = zoo("shapes.img") else { return };
    let pool = open(&[&image]);
    for (file, flags) in [
        ("shapes-dedup.zfs", PLAIN),
        ("shapes-deep.Lec.zfs", LEC),
        ("shapes-kinds@first.phb.zfs", PLAIN),
        ("shapes-kinds@second.R-Lec.zfs", LEC),
        ("shapes-promoted.R.zfs", PLAIN),
        ("shapes-sparse.zfs", PLAIN),
    ] {
        streams_again(&pool, file, flags);
    }
    let phb = PackageSpec {
        send: spec(None, "shapes/kinds@first", PLAIN),
        properties: true,
        holds: true,
        backup: true,
        ..PackageSpec::default()
    };
    check_package(&pool, "shapes-kinds@first.phb.zfs", &phb);
    check_package(&pool, "shapes-kinds@second.R-Lec.zfs", &whole("shapes/kinds@second", None, LEC));
    let promoted = &streams_of(&std::fs::read(zoo("shapes-promoted.R.zfs").unwrap()).unwrap());
    let last = promoted.last().unwrap().0.toname.as_str().unwrap().to_owned();
    check_package(&pool, "shapes-promoted.R.zfs", &whole(&last, None, PLAIN));
}

#[test]
fn the_larger_zoo_without_features() {
    let Some(image) = zoo("v28.img") else { return };
    let pool = open(&[&image]);
    streams_again(&pool, "v28-data@s.R.zfs", PLAIN);
    check_package(&pool, "v28-data@s.R.zfs", &whole("v28/data@s", None, PLAIN));
}

/// Sends every stream of the file by itself.
fn streams_again(pool: &Pool, file: &str, flags: SendFlags) {
    let bytes = std::fs::read(Path::new(&zoo(file).unwrap())).unwrap();
    for (begin, at) in streams_of(&bytes) {
        let to = begin.toname.as_str().unwrap();
        let from = (begin.fromguid != 0).then(|| name_of(pool, Guid(begin.fromguid)));
        check_stream(pool, &bytes[at], &spec(from.as_deref(), to, flags));
    }
}
fn name_of(pool: &Pool, guid: Guid) -> String {
    pool.dsl.find_guid(pool.io(), pool.name(), guid.0).unwrap().unwrap()
}
fn check_stream(pool: &Pool, want: &[u8], spec: &SendSpec) {
    let made = send(pool, spec).unwrap();
    let differs = made.iter().zip(want).position(|(a, b)| a != b);
    assert_eq!((made.len(), differs), (want.len(), None), "{spec:?}: length, first difference");
}
