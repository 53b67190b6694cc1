//! `icecore inspect`: what it says of a pool that OpenZFS made is what OpenZFS's own debugger says.

use crate::support::Desk;
use icecore_check::fixture::fixture;
use icecore_check::zdb;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn json(desk: &Desk, line: &str) -> Value {
    serde_json::from_str(&desk.ok(line)).unwrap()
}

/// What `zdb FLAGS main ARGS` prints of the repository's pool; `None` where there is no zdb.
fn zdb_says(args: &[&str]) -> Option<String> {
    if !zdb::zdb_available() {
        eprintln!("SKIPPED: zdb is not installed");
        return None;
    }
    let image = fixture("cold/main.img");
    let mut command = zdb::command();
    let out = command.arg("-e").arg("-p").arg(image.parent().unwrap()).args(args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8(out.stdout).unwrap())
}

#[test]
fn objects_are_those_of_zdb() {
    let desk = Desk::with_main();
    for dataset in ["main/plain", "main/plain@newsnapshot", "main/encrypted/photos@root"] {
        let found = json(&desk, &format!("icecore inspect objects --json {dataset}"));
        let ours: BTreeMap<u64, (u64, String)> = found["objects"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| {
                let text = |k: &str| o[k].as_str().unwrap().to_string();
                (o["object"].as_u64().unwrap(), (o["levels"].as_u64().unwrap(), text("type")))
            })
            .collect();
        assert!(ours.len() > 5, "{found}");
        let Some(listing) = zdb_says(&["-dd", dataset]) else { return };
        let theirs: BTreeMap<u64, (u64, String)> = listing
            .lines()
            .filter_map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let object = words.first()?.parse::<u64>().ok().filter(|o| *o > 0)?;
                Some((object, (words.get(1)?.parse().ok()?, words.get(8..)?.join(" "))))
            })
            .collect();
        let numbers = |m: &BTreeMap<u64, (u64, String)>| -> Vec<(u64, u64)> {
            m.iter().map(|(o, (levels, _))| (*o, *levels)).collect()
        };
        assert_eq!(numbers(&ours), numbers(&theirs), "{dataset}");
    }
}

#[test]
fn pointers_are_those_of_zdb_and_blocks_are_read_by_them() {
    let desk = Desk::with_main();
    let found = json(&desk, "icecore inspect pointers --json main/plain 2");
    let pointers = found["pointers"].as_array().unwrap();
    let ours: BTreeSet<String> = pointers
        .iter()
        .flat_map(|p| p["places"].as_array().unwrap())
        .map(|d| {
            let n = |k: &str| d[k].as_u64().unwrap();
            format!("{:x}:{:x}:{:x}", n("vdev"), n("offset"), n("size"))
        })
        .collect();
    if let Some(text) = zdb_says(&["-ddddddbbbbbb", "main/plain", "2"]) {
        let lines = text.lines().filter(|l| l.contains(" ZFS plain file] "));
        let dvas = lines.flat_map(|l| l.split_whitespace().filter(|w| w.starts_with("DVA[")));
        let theirs: BTreeSet<String> =
            dvas.map(|w| w.split_once("=<").unwrap().1.trim_end_matches('>').to_string()).collect();
        assert_eq!(ours, theirs);
    }
    let lowest = pointers.iter().filter(|p| p["level"] == 0).count() as u64;
    let held = json(&desk, "icecore inspect objects --json main/plain 2");
    assert_eq!(held["objects"][0]["max_block"].as_u64().unwrap() + 1, lowest);

    // A block's bytes are the file's.
    let listing = desk.ok("icecore find main/plain");
    let file = listing.lines().find(|l| !l.ends_with('/') && l.contains('.')).unwrap().to_string();
    let size = held["objects"][0]["block_size"].as_u64().unwrap() as usize;
    let whole = desk.bytes(&format!("icecore cat {}", place(&file)));
    let block = desk.bytes("icecore inspect block --data main/plain 2 0 1");
    assert_eq!(block.len(), size);
    assert_eq!(&whole[size..2 * size.min(whole.len() / 2)], &block[..2 * size.min(whole.len() / 2) - size]);
    assert!(desk.ok("icecore inspect block main/plain 2 1 0").contains("bad: 0"));
    desk.refused("icecore inspect block main/plain 2 0 4000", 1, &["of level 0 blocks up to"]);
    desk.refused("icecore inspect block main/plain 77 0 0", 1, &["object 77"]);
    desk.refused("icecore inspect block main/plain two 0 0", 2, &["object 'two' is not a number"]);
}

/// What `find` prints, as `cat` wants it.
fn place(found: &str) -> String {
    if found.contains(':') { found.to_string() } else { format!("main/plain:{found}") }
}

#[test]
fn space_maps_add_up() {
    let desk = Desk::with_main();
    let found = json(&desk, "icecore inspect spacemaps --json -v main");
    let slabs = found["metaslabs"].as_array().unwrap();
    let used: u64 = slabs.iter().map(|s| s["size"].as_u64().unwrap() - s["free"].as_u64().unwrap()).sum();
    let blocks = json(&desk, "icecore inspect blocks --json main");
    assert_eq!(blocks["space_maps"].as_u64(), Some(used));
    for s in slabs {
        let ranges = s["ranges"].as_array().unwrap();
        let sum: u64 = ranges.iter().map(|r| r["size"].as_u64().unwrap()).sum();
        assert_eq!((s["free"].as_u64(), s["pieces"].as_u64()), (Some(sum), Some(ranges.len() as u64)));
    }
    let Some(text) = zdb_says(&["-m", "main"]) else { return };
    // metaslab N offset X spacemap OBJECT free SIZE
    let theirs: Vec<(u64, u64)> = text
        .lines()
        .filter_map(|l| {
            let w: Vec<&str> = l.split_whitespace().collect();
            let at = |name: &str| w.iter().position(|x| *x == name).and_then(|i| w.get(i + 1)).copied();
            w.first().filter(|x| **x == "metaslab")?;
            Some((u64::from_str_radix(at("offset")?, 16).ok()?, at("spacemap")?.parse().ok()?))
        })
        .collect();
    let ours: Vec<(u64, u64)> =
        slabs.iter().map(|s| (s["offset"].as_u64().unwrap(), s["object"].as_u64().unwrap())).collect();
    assert_eq!(ours, theirs);
}
