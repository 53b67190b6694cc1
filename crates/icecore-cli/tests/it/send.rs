//! `zfs send`: OpenZFS's bytes, its words, and its refusals.

use crate::support::{Desk, stream, zdb_sends};
use std::io::Read;
use std::process::Stdio;

#[test]
fn the_bytes_are_openzfs_own() {
    let desk = Desk::with_main();
    // A package begins with a list whose order is a matter of taste; the streams after it are not.
    let streams = |bytes: &[u8]| match bytes[16] & 3 {
        2 => 2 * 312 + u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize,
        _ => 0,
    };
    let check = |line: &str, fixture: &str| {
        let (ours, theirs) = (desk.bytes(line), stream(fixture));
        assert_eq!((ours.len(), streams(&ours)), (theirs.len(), streams(&theirs)), "{line}");
        assert!(ours[streams(&ours)..] == theirs[streams(&theirs)..], "{line} differs from {fixture}");
    };
    check("zfs send --raw --replicate main@root", "main@root.raw-R.zfs");
    check("zfs send -w -R -I main@root main@newsnapshot", "main@root-newsnapshot.raw-R-I.zfs");
    check("zfs send -wRI root main@newsnapshot", "main@root-newsnapshot.raw-R-I.zfs");
    let kept = "docs-kept-newsnapshot.raw-i.zfs";
    check("zfs send -w -i main/encrypted/docs#kept main/encrypted/docs@newsnapshot", kept);
    check("zfs send -w -i #kept main/encrypted/docs@newsnapshot", kept);
    check("zfs send -R main/plain@newsnapshot", "plain@newsnapshot.R.zfs");
    check("zfs send -L -e -c -p main/plain@newsnapshot", "plain@newsnapshot.Lecp.zfs");
    check("zfs send -Lecp main/plain@newsnapshot", "plain@newsnapshot.Lecp.zfs");
}

/// A dataset as it is now, without a snapshot: `zdb -B` sends the same.
#[test]
fn a_dataset_as_it_is_now() {
    let desk = Desk::with_main();
    for (name, flags) in [("main/plain", ""), ("main/plain", "Lec"), ("main", ""), ("main", "w")] {
        let dash = if flags.is_empty() { String::new() } else { format!("-{flags} ") };
        let ours = desk.bytes(&format!("zfs send {dash}{name}"));
        assert!(ours.windows(16).any(|w| w.starts_with(b"@--head--")), "{name} {flags}");
        let objset = desk.get("objsetid", name);
        if let Some(theirs) = zdb_sends(&desk.path("source"), "main", &objset, flags) {
            assert!(
                !theirs.is_empty() && ours == theirs,
                "{name} {flags}: {} and {}",
                ours.len(),
                theirs.len()
            );
        }
    }
    desk.pool("tank", 128);
    desk.piped("zfs send main/plain@root", "zfs receive tank/plain");
    desk.piped("zfs send -i @root main/plain", "zfs receive tank/plain@now");
    assert_eq!(desk.get("logicalreferenced", "tank/plain"), desk.get("logicalreferenced", "main/plain"));
    desk.export_and_judge("tank");
    desk.refused("zfs send -p main/plain", 1, &["snapshot main/plain@ does not exist"]);
    desk.refused("zfs send -w main/encrypted/docs", 1, &["main/encrypted/docs", "make one"]);
}

#[test]
fn dry_runs_and_progress_say_what_tools_read() {
    let desk = Desk::with_main();
    let check = |line: &str, expected: &[&str]| {
        let said = desk.ok(line);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{line}\n{said}");
        for (l, e) in lines.iter().zip(expected) {
            assert!(l.starts_with(e), "{line}\n{said}\nand not: {e}");
        }
    };
    check("zfs send -n main/plain@root", &[]);
    check(
        "zfs send -nv main/plain@root",
        &["full send of main/plain@root estimated size is 2.18M", "total estimated size is 2.18M"],
    );
    check("zfs send -nP main/plain@root", &["full\tmain/plain@root\t2287", "size\t2287"]);
    check("zfs send --dryrun --parsable main/plain@root", &["full\tmain/plain@root\t", "size\t"]);
    check(
        "zfs send -nvP -i @root main/plain@newsnapshot",
        &["incremental\tmain/plain@root\tmain/plain@newsnapshot\t", "size\t"],
    );
    check(
        "zfs send -nP -I @root main/plain@newsnapshot",
        &[
            "incremental\troot\tmain/plain@2023-09-27\t",
            "incremental\t2023-09-27\tmain/plain@newsnapshot\t",
            "size\t",
        ],
    );
    check(
        "zfs send -nv -w -R -X main/encrypted main@root",
        &["full send of main@root ", "full send of main/plain@root ", "total estimated size is "],
    );
    // Where the stream has standard output, the words go to standard error.
    let done = desk.run("zfs send -v main@root");
    assert_eq!(done.status, 0);
    assert!(done.err.starts_with("full send of main@root estimated size is "), "{}", done.err);
    assert_eq!(done.out, desk.bytes("zfs send main@root"));
}

/// What goes beside the data: properties, received ones, holds; and what is left out.
#[test]
fn properties_holds_and_exclusions() {
    let desk = Desk::with_pool("tank");
    desk.pool("other", 128);
    desk.ok("zfs create -o org.example:owner=anna tank/a");
    desk.ok("zfs create tank/a/b");
    desk.ok("zfs create tank/a/c");
    desk.ok("zfs snapshot -r tank/a@s");
    desk.ok("zfs hold keep tank/a@s");
    desk.piped("zfs send -R -h -X tank/a/c tank/a@s", "zfs receive other/a");
    assert_eq!(desk.names("-r -t all other/a"), ["other/a", "other/a@s", "other/a/b", "other/a/b@s"]);
    assert!(desk.ok("zfs holds -H other/a@s").starts_with("other/a@s\tkeep\t"));
    let owner = desk.ok("zfs get -H -o value,source org.example:owner other/a");
    assert_eq!(owner, "anna\treceived\n");
    // -b sends what was received, although another value rules here.
    desk.ok("zfs set org.example:owner=ben other/a");
    desk.piped("zfs send -b other/a@s", "zfs receive tank/back");
    assert_eq!(desk.get("org.example:owner", "tank/back"), "anna");
    desk.piped("zfs send -p other/a@s", "zfs receive tank/forth");
    assert_eq!(desk.get("org.example:owner", "tank/forth"), "ben");
    // A dataset below that lacks the snapshot.
    desk.ok("zfs destroy tank/a/b@s");
    desk.refused("zfs send -R tank/a@s", 1, &["snapshot tank/a/b@s does not exist"]);
    let done = desk.run("zfs send -R -s tank/a@s");
    assert!(done.err.contains("tank/a/b") && !done.out.is_empty(), "{}", done.err);
    desk.export_and_judge("tank");
    desk.ok("zfs release keep other/a@s");
    desk.export_and_judge("other");
}

/// A receiver that goes away is told about by the receiver: the sender says nothing and ends with 1.
#[test]
fn a_reader_that_goes_away() {
    let desk = Desk::with_main();
    for line in ["zfs send -w -R main@root", "zfs send -Lec main/plain@root"] {
        let mut child = desk.spawn(line, Stdio::null());
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut [0; 1000]).unwrap();
        drop(out);
        let done: crate::support::Done = child.wait_with_output().unwrap().into();
        assert_eq!((done.status, done.err.as_str()), (1, ""), "{line}");
    }
    let mut child = desk.spawn("zfs get -r -t all all main", Stdio::null());
    drop(child.stdout.take());
    let done: crate::support::Done = child.wait_with_output().unwrap().into();
    assert_eq!((done.status, done.err.as_str()), (1, ""));
    // And so in a pipe whose receiver refuses.
    desk.pool("tank", 128);
    let (left, right) = desk.pipe("zfs send -w -R -I main@root main@newsnapshot", "zfs receive tank/none");
    assert_eq!((left.status, right.status), (1, 1), "{}", left.err);
    assert_eq!(left.err, "");
    assert!(right.err.contains("tank/none"), "{}", right.err);
}

#[test]
fn what_cannot_be_sent_is_refused_by_name() {
    let desk = Desk::with_main();
    let no_key =
        ["dataset 'main/encrypted/docs' is encrypted", "encryption key not loaded", "-w", "--keylocation"];
    let done = desk.refused("zfs send main/encrypted/docs@root", 1, &no_key);
    assert!(done.out.is_empty());
    desk.refused("zfs send -p main/encrypted/docs@root", 1, &["main/encrypted/docs"]);
    desk.refused(
        "zfs send -R main@root",
        1,
        &["cannot send main@root: encrypted dataset main/encrypted may not be sent with properties without the raw flag"],
    );
    desk.refused("zfs send main/plain@none", 1, &["cannot open 'main/plain@none': dataset does not exist"]);
    desk.refused("zfs send -L zfs_autobackup_option_test", 1, &["dataset does not exist"]);
    desk.refused(
        "zfs send -i @newsnapshot main/plain@root",
        1,
        &["not an earlier snapshot from the same fs"],
    );
    desk.refused(
        "zfs send -R -i @root main/plain@root",
        1,
        &["WARNING: could not send main/plain@root:\nincremental source (main/plain@root) is not earlier than it"],
    );
    desk.refused("zfs send -i @none main/plain@root", 1, &["main/plain@none", "does not exist"]);
    desk.refused("zfs send -i #none main/plain@root", 1, &["main/plain#none", "does not exist"]);
    desk.refused("zfs send -I #kept main/encrypted/docs@newsnapshot", 1, &["cannot be sent from a bookmark"]);
    desk.refused("zfs send -t 1-abc-def-123", 255, &["cannot resume send", "resume token is corrupt"]);
}

/// What came of a stream before it was cut goes on to the next pool, and both end with the rest of it.
#[test]
fn what_was_half_received_is_sent_on() {
    let desk = Desk::with_main();
    for pool in ["near", "far"] {
        desk.pool(pool, 128);
    }
    desk.refused("zfs send --saved near", 1, &["'near' has no partially received state"]);
    desk.refused("zfs send -S near/none", 1, &["cannot open 'near/none': dataset does not exist"]);
    let (first, second) = ("zfs send main/plain@root", "zfs send -i @root main/plain@newsnapshot");
    let raw =
        ["zfs send -w main/encrypted/docs@root", "zfs send -w -i @root main/encrypted/docs@newsnapshot"];
    for (line, to) in [(first, "x"), (second, "x"), (raw[0], "y"), (raw[1], "y")] {
        let whole = desk.bytes(line);
        desk.feed_refused(&format!("zfs receive -s near/{to}"), &whole[..whole.len() / 2], &["is saved"]);
        let said = desk.ok(&format!("zfs send -nv --saved near/{to}"));
        assert!(
            said.contains(&format!("\ttoname = near/{to}\n")) && said.contains("\tobject = 0x0\n"),
            "{said}"
        );
        let part = desk.bytes(&format!("zfs send --saved near/{to}"));
        assert!(part.len() > 312 && part.len() < whole.len(), "{} of {}", part.len(), whole.len());
        desk.feed_refused(&format!("zfs receive -s far/{to}"), &part, &["is saved"]);
        for pool in ["near", "far"] {
            let token = desk.get("receive_resume_token", &format!("{pool}/{to}"));
            assert_ne!(token, "-", "{pool}");
            desk.piped(&format!("zfs send -t {token}"), &format!("zfs receive -s {pool}/{to}"));
        }
    }
    // But for its name and the sums over it.
    let sent = ["near", "far", "main"].map(|pool| {
        let name = if pool == "main" { "main/plain".into() } else { format!("{pool}/x") };
        desk.bytes(&format!("zfs send {name}@newsnapshot")).len()
    });
    assert!(sent[0] == sent[1] && sent[1] == sent[2], "{sent:?}");
    assert_eq!(desk.get("guid", "far/x@newsnapshot"), desk.get("guid", "main/plain@newsnapshot"));
    // Raw, byte for byte.
    let docs = ["near/y", "far/y", "main/encrypted/docs"];
    let sent = docs.map(|name| {
        let name = format!("{name}@newsnapshot");
        (desk.get("guid", &name), desk.bytes(&format!("zfs send -w {name}")).len())
    });
    assert!(sent[0] == sent[1] && sent[1].0 == sent[2].0, "{sent:?}");
    desk.export_and_judge("near");
    desk.export_and_judge("far");
}
