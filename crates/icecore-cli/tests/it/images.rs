//! Images into volumes: `icecore cp FILE POOL/VOLUME`, and back with `cat` and `cp`.

use crate::support::{Desk, MIB};
use std::os::unix::fs::FileExt;

/// Bytes that no compression makes smaller.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let mut step = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut step).take(len.div_ceil(8)).flatten().collect();
    bytes.truncate(len);
    bytes
}

fn number(desk: &Desk, prop: &str, name: &str) -> u64 {
    desk.get(prop, name).parse().unwrap()
}

fn write(desk: &Desk, name: &str, bytes: &[u8]) {
    std::fs::write(desk.path(name), bytes).unwrap();
}

#[test]
fn an_image_goes_into_a_volume_and_comes_back() {
    let desk = Desk::with_pool("tank");
    let size = 3 * MIB as usize;
    for (name, options) in [
        ("plain", "-V 3M"),
        ("small", "-V 3M -b 512 -s"),
        ("raw", "-V 3M -o compression=off -o checksum=sha256"),
        ("large", "-V 3M -b 1M -o compression=zstd"),
    ] {
        desk.ok(&format!("zfs create {options} tank/{name}"));
        // Noise, a long run of zeros, text, and an end that is no whole block.
        let mut image = noise(900_000, 7);
        image.resize(2_000_000, 0);
        image.extend(b"cold backup ".repeat(20_000));
        write(&desk, "image", &image);
        desk.ok(&format!("icecore cp image tank/{name}"));
        let mut whole = image.clone();
        whole.resize(size, 0);
        assert!(desk.bytes(&format!("icecore cat tank/{name}")) == whole, "{name}");
        desk.ok(&format!("icecore cp tank/{name} back"));
        assert!(std::fs::read(desk.path("back")).unwrap() == whole, "{name}");
        // A second, shorter one, over a part of it; the rest stays.
        desk.ok(&format!("zfs snapshot tank/{name}@first"));
        let second = noise(70_001, 9);
        write(&desk, "second", &second);
        desk.ok(&format!("icecore cp --offset 100003 second tank/{name}"));
        desk.ok(&format!("icecore cp second tank/{name} --offset=2998000"));
        let mut changed = whole.clone();
        changed[100_003..170_004].copy_from_slice(&second);
        changed[2_998_000..3_068_001].copy_from_slice(&second);
        assert!(desk.bytes(&format!("icecore cat tank/{name}")) == changed, "{name}");
        assert!(desk.bytes(&format!("icecore cat tank/{name}@first")) == whole, "{name}");
        desk.ok(&format!("zfs rollback tank/{name}@first"));
        assert!(desk.bytes(&format!("icecore cat tank/{name}")) == whole, "{name}");
    }
    desk.export_and_judge("tank");
}

#[test]
fn zeros_of_an_image_become_holes() {
    let desk = Desk::with_pool("tank");
    // A block that is all zeros is one whatever the compression is.
    desk.ok("zfs create -s -V 64M -o compression=off tank/v");
    let sparse = std::fs::File::create(desk.path("sparse")).unwrap();
    sparse.set_len(64 * MIB).unwrap();
    sparse.write_all_at(&noise(MIB as usize, 3), 40 * MIB).unwrap();
    // Zeros that are written, and no hole.
    sparse.write_all_at(&vec![0; 4 * MIB as usize], 50 * MIB).unwrap();
    desk.ok("icecore cp sparse tank/v");
    let used = number(&desk, "referenced", "tank/v");
    assert!((MIB..2 * MIB).contains(&used), "{used}");
    let image = std::fs::read(desk.path("sparse")).unwrap();
    assert!(desk.bytes("icecore cat tank/v") == image);
    // What is written over with zeros is given back, also by a hole of the file; but for parts of blocks.
    std::fs::File::create(desk.path("hole")).unwrap().set_len(MIB - 5000).unwrap();
    desk.ok("icecore cp --offset 41945040 hole tank/v");
    let used = number(&desk, "referenced", "tank/v");
    assert!(used < 200 << 10, "{used}");
    let mut want = image;
    want[41_945_040..41_945_040 + MIB as usize - 5000].fill(0);
    assert!(desk.bytes("icecore cat tank/v") == want);
    desk.export_and_judge("tank");
    desk.import("tank");
    assert!(desk.bytes("icecore cat tank/v") == want);
}

#[test]
fn an_image_in_an_encrypted_volume() {
    let desk = Desk::with_pool("tank");
    let key = desk.key_file("key", &[7; 32]);
    for suite in ["aes-256-gcm", "aes-128-ccm"] {
        let vol = format!("tank/{suite}");
        desk.ok(&format!(
            "zfs create -V 4M -o encryption={suite} -o keyformat=raw -o keylocation={key} {vol}"
        ));
        let image = noise(3 * MIB as usize + 77, 5);
        write(&desk, "image", &image);
        desk.ok(&format!("icecore cp image {vol}"));
        desk.ok(&format!("zfs snapshot {vol}@s"));
        desk.ok(&format!("zfs unload-key {vol}"));
        // The key is looked for where the volume says it is.
        std::fs::rename(desk.path("key"), desk.path("away")).unwrap();
        desk.refused(&format!("icecore cp image {vol}"), 1, &[&format!("cannot open '{vol}': ")]);
        std::fs::rename(desk.path("away"), desk.path("key")).unwrap();
        let mut whole = image;
        whole.resize(4 * MIB as usize, 0);
        assert!(desk.bytes(&format!("icecore cat {vol}")) == whole);
        // Raw, and back.
        desk.piped(&format!("zfs send -w {vol}@s"), &format!("zfs receive tank/{suite}-copy"));
        desk.ok(&format!("zfs load-key -L {key} {vol}-copy"));
        assert!(desk.bytes(&format!("icecore cat {vol}-copy@s")) == whole);
        desk.ok(&format!("icecore cp --offset 1001 image {vol}-copy"));
    }
    desk.export_and_judge("tank");
}

#[test]
fn what_does_not_fit_or_may_not_be_written_changes_nothing() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create -V 1M tank/v");
    desk.ok("zfs create tank/fs");
    write(&desk, "image", &noise(600_000, 1));
    desk.ok("icecore cp image tank/v");
    desk.ok("zfs snapshot tank/v@s");
    write(&desk, "larger", &noise(MIB as usize + 1, 2));
    let (seen, bytes) = (desk.seen("tank"), desk.bytes("icecore cat tank/v"));
    for (line, status, words) in [
        (
            "larger tank/v",
            1,
            "cannot copy 'larger': 1048577 bytes do not fit into 'tank/v', whose volsize is 1048576",
        ),
        ("--offset 500K image tank/v", 1, "600000 bytes at 512000 do not fit into 'tank/v'"),
        ("--offset 1G image tank/v", 1, "do not fit"),
        ("--offset 16E image tank/v", 2, "bad offset"),
        ("--offset x image tank/v", 2, "bad offset"),
        ("image larger tank/v", 2, "a volume takes one file"),
        ("none tank/v", 1, "cannot copy 'none': No such file"),
        (". tank/v", 1, "cannot copy '.': it is neither a regular file nor a block device"),
        ("/dev/zero tank/v", 1, "neither a regular file nor a block device"),
        ("image tank/v@s", 1, "cannot open 'tank/v@s': snapshots cannot be changed"),
        ("image tank/v:x", 1, "a volume has no files"),
        ("image tank/fs", 1, "its name, a colon and a path name one"),
        ("--offset 0 image tank/fs:x", 2, "--offset is for a file that is copied into a volume"),
    ] {
        desk.refused(&format!("icecore cp {line}"), status, &[words]);
    }
    desk.ok("zfs set readonly=on tank/v");
    desk.refused("icecore cp image tank/v", 1, &["cannot open 'tank/v': the volume is read-only"]);
    desk.ok("zfs inherit readonly tank/v");
    assert_eq!(desk.seen("tank"), seen);
    assert!(desk.bytes("icecore cat tank/v") == bytes);
    desk.export_and_judge("tank");
}

#[test]
fn a_volume_that_came_only_in_part_takes_no_image() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create -V 4M tank/v");
    write(&desk, "image", &noise(3_000_000, 1));
    desk.ok("icecore cp image tank/v");
    desk.ok("zfs snapshot tank/v@s");
    let stream = desk.bytes("zfs send tank/v@s");
    desk.feed_refused("zfs receive -s tank/part", &stream[..stream.len() / 2], &[]);
    assert_eq!(desk.get("type", "tank/part"), "volume");
    desk.refused("icecore cp image tank/part", 1, &["cannot open 'tank/part': it was received only in part"]);
    let token = desk.get("receive_resume_token", "tank/part");
    let rest = desk.bytes(&format!("zfs send -t {token}"));
    desk.feed("zfs receive -s tank/part", &rest);
    assert!(desk.bytes("icecore cat tank/part@s") == desk.bytes("icecore cat tank/v@s"));
    desk.export_and_judge("tank");
}

#[test]
fn a_full_pool_leaves_the_volume_readable() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create -s -V 200M tank/v");
    let image = noise(150 * MIB as usize, 1);
    write(&desk, "image", &image);
    let said = desk
        .refused(
            "icecore cp image tank/v",
            1,
            &["cannot copy 'image': out of space; the volume has its first "],
        )
        .err;
    // What was committed before is told, and is there.
    let kept = said.split(' ').rev().nth(1).unwrap().parse::<usize>().unwrap();
    let there = desk.bytes("icecore cat tank/v");
    assert!(kept > 0 && there[..kept] == image[..kept] && there[kept..].iter().all(|b| *b == 0), "{said}");
    write(&desk, "image", &noise(MIB as usize, 1));
    desk.ok("icecore cp image tank/v");
    desk.export_and_judge("tank");
}
