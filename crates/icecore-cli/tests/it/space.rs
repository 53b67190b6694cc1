//! Quotas, reservations, and pools without room: what is refused, in which words, and that the pool stays as it was.

use crate::support::{Desk, stream};

/// A quota ends a receive: whole, in OpenZFS's words, and what has come is kept only if that was asked for.
#[test]
fn a_receive_over_quota() {
    let desk = Desk::with_main();
    desk.pool("tank", 128);
    let whole = stream("plain@newsnapshot.Lecp.zfs");
    desk.ok("zfs create tank/q");
    for (prop, value) in [("quota", "400K"), ("quota", "none"), ("refquota", "100K")] {
        desk.ok(&format!("zfs set {prop}={value} tank/q"));
    }
    // A refquota is of the dataset alone.
    desk.feed("zfs receive tank/q/free", &whole);
    desk.ok("zfs destroy tank/q/free@newsnapshot");
    desk.ok("zfs destroy -r tank/q/free");
    desk.ok("zfs set quota=400K tank/q");
    let before = desk.seen("tank");
    let words = [
        "cannot receive new filesystem stream: destination tank/q/x space quota exceeded.",
        "Nothing of it was kept",
    ];
    desk.feed_refused("zfs receive tank/q/x", &whole, &words);
    assert_eq!(desk.seen("tank"), before);
    desk.ok("zfs set quota=10M tank/q");
    desk.feed("zfs receive tank/q/x", &whole);
    desk.ok("zfs destroy -r tank/q/x");

    // An increment, by receive and by sync: a quota that is used up takes no data.
    for (ds, raw) in [("plain", ""), ("encrypted/docs", "-w ")] {
        let to = format!("tank/q/{}", ds.rsplit('/').next().unwrap());
        desk.ok("zfs set quota=none tank/q");
        desk.piped(&format!("zfs send {raw}main/{ds}@root"), &format!("zfs receive {to}"));
        desk.ok(&format!("zfs set quota={} tank/q", desk.get("used", "tank/q")));
        let next = desk.bytes(&format!("zfs send {raw}-i @root main/{ds}@newsnapshot"));
        let before = desk.seen("tank");
        let words = format!("cannot receive incremental stream: destination {to} space quota exceeded.");
        desk.feed_refused(&format!("zfs receive {to}"), &next, &[&words]);
        assert_eq!(desk.seen("tank"), before);
        if raw.is_empty() {
            continue; // sync sends it embedded, which takes no space
        }
        let sync = format!("icecore sync --no-snapshot main/{ds} {to}");
        desk.refused(&sync, 1, &[&words]);
        assert!(!desk.names("-t snapshot -r tank/q").contains(&format!("{to}@newsnapshot")));
        desk.ok("zfs set quota=none tank/q");
        desk.ok(&sync);
        assert!(desk.names("-t snapshot -r tank/q").contains(&format!("{to}@newsnapshot")));
    }
    desk.export_and_judge("tank");
}

/// Limits that do not fit what is there, or what there is to give.
#[test]
fn limits_that_cannot_be() {
    let desk = Desk::with_pool("tank");
    desk.feed("zfs receive tank/x", &stream("plain@newsnapshot.Lecp.zfs"));
    let before = desk.seen("tank");
    for prop in ["quota", "refquota"] {
        let words = ["cannot set property for 'tank/x': size is less than current used or reserved space"];
        desk.refused(&format!("zfs set {prop}=100K tank/x"), 255, &words);
    }
    for prop in ["reservation", "refreservation"] {
        let words = ["cannot set property for 'tank/x': size is greater than available space"];
        desk.refused(&format!("zfs set {prop}=10G tank/x"), 255, &words);
        desk.refused(
            &format!("zfs create -o {prop}=10G tank/new"),
            1,
            &["cannot create 'tank/new': out of space"],
        );
    }
    assert_eq!(desk.seen("tank"), before);
    // What is reserved for one is not there for others, and is there for its dataset.
    desk.ok("zfs create tank/r");
    let available: u64 = desk.get("available", "tank").parse().unwrap();
    desk.ok(&format!("zfs set reservation={} tank/r", available - (400 << 10)));
    let whole = stream("plain@newsnapshot.Lecp.zfs");
    let words = ["cannot receive new filesystem stream: out of space\n", "reserved for others"];
    desk.feed_refused("zfs receive tank/y", &whole, &words);
    desk.feed("zfs receive tank/r/y", &whole);
    desk.export_and_judge("tank");
}

/// A pool that is full in truth: the receive that does not fit fails whole, and everything can still be destroyed.
#[test]
fn a_full_pool() {
    let desk = Desk::new();
    desk.pool("tank", 64);
    let package = stream("main@root.raw-R.zfs");
    let mut received = 0;
    let (before, done) = loop {
        let before = desk.seen("tank");
        let done = desk.with_input(&format!("zfs receive -u tank/c{received}"), &package);
        if done.status != 0 {
            break (before, done);
        }
        received += 1;
        assert!(received < 20, "64 MiB do not hold so many");
    };
    assert!(received > 0 && done.err.contains("out of space\n"), "{received}: {}", done.err);
    assert!(done.err.contains("cannot receive new filesystem stream"), "{}", done.err);
    // Streams of the package that were complete stay, as with OpenZFS; nothing of the others does.
    let kept = desk.names(&format!("-t snapshot -r tank/c{received}"));
    assert!(kept.iter().all(|n| n.ends_with("@root")), "{kept:?}");
    if kept.is_empty() {
        assert_eq!(desk.seen("tank"), before);
    }
    // Single streams until nothing fits any more, however small.
    let small = stream("plain@newsnapshot.Lecp.zfs");
    let mut n = 0;
    while desk.with_input(&format!("zfs receive -u tank/s{n}"), &small).status == 0 {
        n += 1;
        assert!(n < 200, "64 MiB do not hold so many");
    }
    let before = desk.seen("tank");
    let token = desk.feed_refused("zfs receive -s -u tank/more", &small, &["out of space\n"]);
    assert!(!token.err.contains("panicked"));
    if desk.names("-r tank").contains(&"tank/more".into()) {
        desk.ok("zfs receive -A tank/more");
    }
    assert_eq!(desk.seen("tank"), before);
    desk.export_and_judge("tank");
    desk.import("tank");
    // Freeing works, and gives room.
    for i in 0..n {
        desk.ok(&format!("zfs destroy -r tank/s{i}"));
    }
    desk.ok("zfs destroy -r tank/c0");
    desk.feed("zfs receive -u tank/again", &small);
    desk.export_and_judge("tank");
}
