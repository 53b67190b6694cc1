//! `zfs receive -c`: what rots in a snapshot comes back from streams of it.

use crate::support::Desk;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that compress a little: half of them noise.
fn contents(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 700_000];
    icecore_sim::Rng::new(seed).fill(&mut bytes);
    for chunk in bytes.chunks_mut(1024) {
        let half = chunk.len() / 2;
        chunk[..half].fill(b'a');
    }
    bytes
}

/// Where the blocks of the file `f` lie, by number.
fn places(desk: &Desk, fs: &str) -> Vec<u64> {
    let listed = desk.ok(&format!("icecore ls -i {fs}"));
    let object = listed.split_whitespace().next().unwrap();
    let blocks = desk.ok(&format!("icecore inspect pointers {fs} {object}"));
    let data = blocks.lines().filter(|l| l.trim().starts_with("L0 "));
    let offset = |l: &str| {
        let first = l.split("dva=[").nth(1).unwrap().split(']').next().unwrap();
        u64::from_str_radix(first.split(':').nth(1).unwrap(), 16).unwrap() + (4 << 20)
    };
    data.map(offset).collect()
}

/// Damages blocks behind the pool's back; the scrub that follows finds them lost.
fn rot(desk: &Desk, image: &Path, places: &[u64]) {
    desk.ok("icecore service stop");
    let file = std::fs::OpenOptions::new().write(true).open(image).unwrap();
    places.iter().for_each(|at| file.write_all_at(b"rotten", at + 100).unwrap());
    let found = desk.ok("zpool scrub -w tank");
    assert!(found.contains(&format!(" {} errors", places.len())), "{found}");
}

#[test]
fn streams_heal_their_snapshots() {
    let desk = Desk::new();
    let image = desk.pool("tank", 192);
    let key = desk.key_file("key", b"correct horse battery\n");
    std::fs::write(desk.path("f"), contents(1)).unwrap();
    std::fs::write(desk.path("g"), contents(2)).unwrap();
    for (name, options) in [
        ("plain", "-o compression=lz4"),
        ("packed", "-o compression=zstd-7"),
        ("gzip", "-o compression=gzip"),
        ("as-it-is", "-o compression=off -o checksum=sha256"),
        (
            "secret",
            &format!("-o encryption=on -o keyformat=passphrase -o keylocation={key} -o compression=lz4"),
        ),
    ] {
        let fs = format!("tank/{name}");
        desk.ok(&format!("zfs create {options} {fs}"));
        desk.ok(&format!("icecore cp f {fs}:f"));
        desk.ok(&format!("zfs snapshot {fs}@s"));
        for flags in ["", "-c", "-w", "-Lec"] {
            let stream = desk.bytes(&format!("zfs send {flags} {fs}@s"));
            let all = places(&desk, &fs);
            rot(&desk, &image, &[all[1], all[3]]);
            assert_eq!(desk.run(&format!("icecore cat {fs}@s:f")).status, 1);
            if name == "secret" && flags != "-w" {
                desk.ok(&format!("zfs load-key {fs}"));
            }
            let said = desk.feed(&format!("zfs receive -cv {fs}@s"), &stream);
            assert!(said.ends_with("healed 2 blocks\n"), "{fs} {flags}: {said}");
            assert!(
                said.contains(&format!("receiving corrective full stream of {fs}@s into {fs}@s")),
                "{said}"
            );
            let status = desk.ok("zpool status -v tank");
            assert!(status.contains("errors: No known data errors"), "{status}");
            assert!(desk.bytes(&format!("icecore cat {fs}@s:f")) == contents(1), "{fs} {flags}");
            assert!(desk.ok("zpool scrub -w tank").contains("repaired 0B, 0 errors"), "{fs} {flags}");
            // What is sound is left alone.
            let said = desk.feed(&format!("zfs receive -cv {fs}@s"), &stream);
            assert!(said.ends_with("healed 0 blocks\n"), "{fs} {flags}: {said}");
        }
    }
    desk.export_and_judge("tank");
}

/// An increment has what came since; a backup's streams do as well as one's own; what is short is said to be.
#[test]
fn what_streams_can_heal_and_what_not() {
    let desk = Desk::new();
    let image = desk.pool("tank", 128);
    desk.pool("backup", 128);
    std::fs::write(desk.path("f"), contents(3)).unwrap();
    desk.ok("zfs create tank/fs");
    desk.ok("zfs snapshot tank/fs@empty");
    desk.ok("icecore cp f tank/fs:f");
    desk.ok("zfs snapshot tank/fs@s");
    desk.piped("zfs send -R tank/fs@s", "zfs receive backup/fs");
    let all = places(&desk, "tank/fs");
    rot(&desk, &image, &[all[0], all[4]]);
    let stream = desk.bytes("zfs send -i @empty backup/fs@s");
    // A dry run, flags that do not go with it, other snapshots, and half a stream.
    desk.feed("zfs receive -cn tank/fs@s", &stream);
    let inc = "cannot receive incremental stream: ";
    for flag in ["-F", "-s", "-u", "-d", "-e", "-h"] {
        let words = [format!("{inc}corrective recv can not be used when combined with this flag")];
        desk.feed_refused(&format!("zfs receive -c {flag} tank/fs@s"), &stream, &[&words[0]]);
    }
    for (target, why) in [
        ("tank/fs@empty", "local snapshot doesn't match the snapshot in the provided stream"),
        ("tank/fs@none", "corrective recv must specify an existing snapshot to heal"),
        ("none", "corrective recv must specify an existing snapshot to heal"),
    ] {
        desk.feed_refused(&format!("zfs receive -c {target}"), &stream, &[&format!("{inc}{why}")]);
    }
    desk.feed_refused(
        "zfs receive -c tank/fs@s",
        &stream[..stream.len() / 2],
        &[
            "corrective receive was not able to reconstruct the data needed for healing.",
            "(1 blocks were put right, 0 are still damaged)",
        ],
    );
    assert!(desk.ok("zpool status -v tank").contains("tank/fs@s:/f"));
    // The name of the snapshot is the stream's, where none is said.
    desk.feed("zfs receive -c tank/fs", &stream);
    assert!(desk.bytes("icecore cat tank/fs:f") == contents(3), "the head shares its blocks");
    assert!(desk.ok("zpool scrub -w tank").contains("repaired 0B, 0 errors"));
    desk.export_and_judge("tank");
}
