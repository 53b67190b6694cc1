//! Stream files without a pool: checked, shown, and files taken out of them.

use crate::support::Desk;
use icecore_check::fixture::fixture;
use std::fs;

const FULL: &str = "cold/main@root.raw-R.zfs";
const NEXT: &str = "cold/main@root-newsnapshot.raw-R-I.zfs";
const PLAIN: &str = "cold/plain@newsnapshot.R.zfs";

#[test]
fn a_stream_file_is_verified() {
    let desk = Desk::new();
    let file = fixture(FULL).display().to_string();
    let text = desk.ok(&format!("icecore stream verify {file}"));
    assert!(text.contains("main/encrypted/docs@root: full raw"), "{text}");
    assert!(text.contains("OK: 6 streams, 453 records, 6965864 bytes"), "{text}");
    let key = desk.key_file("key", b"correct horse battery staple\n").replace("file://", "");
    let text = desk.ok(&format!("icecore stream verify --key-file {key} {file}"));
    assert!(text.contains("all MACs up to the objset's") && !text.contains("need a key"), "{text}");
    // An increment is proven on the files before it; alone it says what is missing.
    let next = fixture(NEXT).display().to_string();
    let chain = desk.ok(&format!("icecore stream verify --key-file {key} {file} {next}"));
    assert!(!chain.contains("not proven"), "{chain}");
    let alone = desk.ok(&format!("icecore stream verify --key-file {key} {next}"));
    assert!(alone.contains("are not proven: the stream it builds on was not verified before it"), "{alone}");
    let json = desk.ok(&format!("icecore stream verify --json {file}"));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["files"][0]["streams"].as_array().unwrap().len(), 6);

    let mut bytes = fs::read(fixture(FULL)).unwrap();
    bytes[2_000_000] ^= 4;
    fs::write(desk.path("bad.zfs"), &bytes).unwrap();
    desk.refused("icecore stream verify bad.zfs", 1, &["DAMAGED: stream record", "at byte"]);
    fs::write(desk.path("bad.zfs"), &bytes[..1_000_000]).unwrap();
    desk.refused("icecore stream verify bad.zfs", 1, &["ends in the middle"]);
    desk.refused("icecore stream verify nothing.zfs", 1, &["cannot open 'nothing.zfs'"]);
    desk.refused("icecore stream verify", 2, &["missing file argument"]);
    desk.refused("icecore stream chop bad.zfs", 2, &["unrecognized command 'chop'"]);
}

#[test]
fn files_come_out_of_a_stream() {
    let desk = Desk::new();
    let plain = fixture(PLAIN).display().to_string();
    let list = desk.ok(&format!("icecore stream ls {plain}"));
    assert!(list.contains("main/plain@newsnapshot:") && list.contains("notes.txt"), "{list}");
    let cat = desk.bytes(&format!("icecore stream cat --at main/plain:/notes.txt {plain}"));
    desk.ok(&format!("icecore stream extract {plain} out"));
    assert_eq!(fs::read(desk.path("out/main/plain/notes.txt")).unwrap(), cat);
    // The same file, out of the pool that the stream was made from.
    let desk = Desk::with_main();
    assert_eq!(desk.bytes("icecore cat main/plain@newsnapshot:/notes.txt"), cat);
    desk.refused(&format!("icecore stream cat {plain}"), 2, &["missing --at"]);
}

#[test]
fn a_chain_of_encrypted_streams_is_put_together() {
    let desk = Desk::new();
    let (full, next) = (fixture(FULL).display().to_string(), fixture(NEXT).display().to_string());
    let line = format!("icecore stream ls --at main/encrypted/docs {full} {next}");
    let list = desk.feed(&line, b"correct horse battery staple\n");
    assert!(list.contains("main/encrypted/docs@newsnapshot:") && list.contains("diary.txt"), "{list}");
    desk.feed_refused(&line, b"wrong horse\n", &["Incorrect key"]);
    // An increment alone has nothing to build on.
    desk.refused(&format!("icecore stream ls {next}"), 1, &["give the whole chain"]);
}
