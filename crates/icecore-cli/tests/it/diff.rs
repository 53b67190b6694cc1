//! `zfs diff` as it is typed: flags, refusals and statuses. What is told is compared in icecore-zpl's tests.

use crate::support::Desk;

#[test]
fn lines_as_scripts_read_them() {
    let desk = Desk::with_main();
    let plain = desk.ok("zfs diff main/plain@root main/plain@newsnapshot");
    assert!(plain.lines().any(|l| l == "-\t/main/plain/blob"), "{plain}");
    assert_eq!(desk.ok("zfs diff main/plain@root @newsnapshot"), plain);
    assert_eq!(desk.ok("zfs diff @root main/plain@newsnapshot"), plain);
    let typed = desk.ok("zfs diff -F main/plain@root main/plain@newsnapshot");
    assert!(typed.lines().any(|l| l == "-\tF\t/main/plain/blob"), "{typed}");
    assert!(typed.lines().any(|l| l == "M\t/\t/main/plain/"), "{typed}");
    let timed = desk.ok("zfs diff -Ht main/plain@root main/plain@newsnapshot");
    for line in timed.lines() {
        let (seconds, nanos) = line.split('\t').next().unwrap().split_once('.').unwrap();
        assert!(seconds.trim_start().parse::<u64>().is_ok() && nanos.len() == 9, "{line}");
    }
    // The head is as its last snapshot left it.
    assert_eq!(desk.ok("zfs diff main/plain@newsnapshot"), "");
}

#[test]
fn encrypted_file_systems_need_their_key() {
    let desk = Desk::with_main();
    let key = desk.key_file("key", b"correct horse battery staple\n");
    let docs = "main/encrypted/docs@root main/encrypted/docs@newsnapshot";
    let at = "/main/encrypted/docs";
    let lines = desk.ok(&format!("zfs diff --keylocation {key} {docs}"));
    assert!(lines.contains(&format!("R\t{at}/letter-9.txt -> {at}/deep/letter-nine.txt\n")), "{lines}");
    let lines = desk.ok(&format!("zfs diff -H --keylocation {key} {docs}"));
    assert!(lines.contains(&format!("R\t{at}/letter-9.txt\t{at}/deep/letter-nine.txt\n")), "{lines}");
    desk.refused(&format!("zfs diff {docs}"), 1, &["encryption key not loaded"]);
}

#[test]
fn what_cannot_be_compared() {
    let desk = Desk::with_main();
    for (line, status, words) in [
        ("zfs diff", 2, "must provide at least one snapshot name"),
        ("zfs diff -Z main@root", 2, "invalid option 'Z'"),
        ("zfs diff main@root main main", 2, "too many arguments"),
        ("zfs diff @root", 2, "diff [-FHth]"),
        ("zfs diff main", 1, "Badly formed snapshot name main: missing '@' delimiter in snapshot name"),
        ("zfs diff main main@root", 1, "Unable to determine which snapshots to compare: invalid name"),
        ("zfs diff main/none@a", 1, "cannot open 'main/none': dataset does not exist"),
        ("zfs diff main@none", 1, "Unable to obtain diffs: No such file or directory"),
        ("zfs diff main@newsnapshot main@root", 1, "Not an earlier snapshot from the same fs"),
        ("zfs diff main@root main/plain", 1, "Not an earlier snapshot from the same fs: invalid name"),
        ("zfs diff main/encrypted/vol@root", 1, "operation not applicable to datasets of this type"),
        ("zfs diff main#kept", 1, "bookmark delimiter '#' is not expected here"),
    ] {
        desk.refused(line, status, &[words]);
    }
}
