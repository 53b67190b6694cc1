//! `stream verify` and `stream dump` over streams that real OpenZFS made, whole and damaged.

use icecore_check::fixture::fixture;
use icecore_check::zdb::zdb_available;
use icecore_format::fletcher::Fletcher4;
use icecore_format::stream::{Record, StreamReader, StreamWriter};
use icecore_stream::dump::dump;
use icecore_stream::verify::{Defect, Verified, Why, verify};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const PASSPHRASE: &[u8] = b"correct horse battery staple";

/// The streams of the repository, with how many snapshots' streams each has.
const STREAMS: [(&str, usize); 7] = [
    ("cold/docs-kept-newsnapshot.raw-i.zfs", 1),
    ("cold/docs@root-newsnapshot.decrypted.zfs", 1),
    ("cold/docs@root.decrypted.zfs", 1),
    ("cold/main@root-newsnapshot.raw-R-I.zfs", 15),
    ("cold/main@root.raw-R.zfs", 6),
    ("cold/plain@newsnapshot.Lecp.zfs", 1),
    ("cold/plain@newsnapshot.R.zfs", 3),
];

/// Every stream there is: those above and, where `ICECORE_ZOO` says where they lie, all others.
fn all_streams() -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = STREAMS.iter().map(|(name, _)| fixture(name)).collect();
    let Some(zoo) = std::env::var_os("ICECORE_ZOO") else {
        eprintln!("ICECORE_ZOO is not set: only the {} streams of the repository are looked at", out.len());
        return out;
    };
    let mut folders = vec![PathBuf::from(zoo)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension().and_then(|e| e.to_str()) {
                _ if path.is_dir() => folders.push(path),
                Some("zfs" | "zsend") => out.push(path),
                _ => {}
            }
        }
    }
    out
}

fn check(stream: &[u8], secret: Option<&[u8]>) -> Result<Verified, Defect> {
    verify(&mut &*stream, secret, &mut |_| {})
}

#[test]
fn every_stream_of_openzfs_passes() {
    for path in all_streams() {
        let bytes = fs::read(&path).unwrap();
        let v = check(&bytes, None).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(v.bytes, bytes.len() as u64);
        assert_eq!(v.records, v.streams.iter().map(|s| s.records).sum::<u64>() + 3 * v.packages);
    }
    for (name, streams) in STREAMS {
        let v = check(&fs::read(fixture(name)).unwrap(), None).unwrap();
        assert_eq!(v.streams.len(), streams, "{name}");
    }
}

#[test]
fn the_dump_is_that_of_zstream() {
    if !zdb_available() {
        return;
    }
    for path in all_streams() {
        let bytes = fs::read(&path).unwrap();
        if bytes.get(8) == Some(&0) {
            continue; // big-endian: zstream 2.3 stops at the first record there
        }
        for verbose in [false, true] {
            let mut ours = Vec::new();
            dump(&mut bytes.as_slice(), verbose, &mut ours).unwrap();
            let mut zstream = Command::new("zstream");
            zstream.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("dump");
            if verbose {
                zstream.arg("-v");
            }
            let theirs = zstream.arg(&path).output().unwrap();
            assert!(theirs.status.success(), "{}", path.display());
            let (ours, theirs) = (String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs.stdout));
            if let Some((a, b)) = ours.lines().zip(theirs.lines()).find(|(a, b)| a != b) {
                panic!("{}: we say '{a}', zstream '{b}'", path.display());
            }
            assert_eq!(ours.len(), theirs.len(), "{}", path.display());
        }
    }
}

#[test]
fn a_key_proves_the_blocks() {
    let bytes = fs::read(fixture("cold/main@root.raw-R.zfs")).unwrap();
    let sealed = |v: &Verified| -> (u64, u64) {
        v.streams.iter().fold((0, 0), |(m, l), s| (m + s.macs, l + s.locked))
    };
    let (none, locked) = sealed(&check(&bytes, None).unwrap());
    assert_eq!(none, 0);
    assert!(locked > 100, "{locked}");
    assert_eq!(sealed(&check(&bytes, Some(PASSPHRASE)).unwrap()), (locked, 0));
    assert_eq!(sealed(&check(&bytes, Some(b"not the passphrase")).unwrap()), (0, locked));
}

/// The stream with one payload changed and all of the stream's own sums made to fit.
fn forged(stream: &[u8], mut change: impl FnMut(&Record, &mut Vec<u8>) -> bool) -> Vec<u8> {
    let mut reader = StreamReader::new(stream, Fletcher4::of);
    let mut writer = StreamWriter::new(Vec::new(), Fletcher4::of);
    let (mut payload, mut done) = (Vec::new(), false);
    while let Some(entry) = reader.next(&mut payload).unwrap() {
        done = done || change(&entry.record, &mut payload);
        writer.write(&entry.record, &payload).unwrap();
    }
    assert!(done, "nothing to change");
    writer.into_inner()
}

#[test]
fn only_a_key_sees_a_forged_block() {
    let bytes = fs::read(fixture("cold/docs-kept-newsnapshot.raw-i.zfs")).unwrap();
    let bad = forged(&bytes, |record, payload| {
        let hit = matches!(record, Record::Write(w) if w.mac != [0; 16]);
        if hit {
            payload[7] ^= 1;
        }
        hit
    });
    check(&bad, None).unwrap();
    let got = check(&bad, Some(PASSPHRASE));
    assert!(matches!(got, Err(Defect::Record { name: "WRITE", why: Why::Mac { .. }, .. })), "{got:?}");
}

#[test]
fn a_forged_compressed_block_is_seen_without_a_key() {
    let bytes = fs::read(fixture("cold/plain@newsnapshot.Lecp.zfs")).unwrap();
    let bad = forged(&bytes, |record, payload| {
        let hit = matches!(record, Record::Write(w) if w.compression_type > 2);
        if hit {
            payload[..4].fill(0xff); // the length that an LZ4 block begins with
        }
        hit
    });
    let got = check(&bad, None);
    assert!(matches!(got, Err(Defect::Record { name: "WRITE", why: Why::Rule(_), .. })), "{got:?}");
}

/// Where the records of a stream begin.
fn boundaries(stream: &[u8]) -> Vec<usize> {
    let mut reader = StreamReader::new(stream, Fletcher4::of);
    let mut payload = Vec::new();
    let mut out = Vec::new();
    while let Some(entry) = reader.next(&mut payload).unwrap() {
        out.push(entry.offset as usize);
    }
    out
}

#[test]
fn every_cut_is_seen() {
    for name in ["cold/docs-kept-newsnapshot.raw-i.zfs", "cold/plain@newsnapshot.Lecp.zfs"] {
        let bytes = fs::read(fixture(name)).unwrap();
        for at in boundaries(&bytes).into_iter().skip(1) {
            for cut in [at - 1, at, at + 1] {
                let defect = check(&bytes[..cut], None).expect_err("a cut stream passed");
                let Defect::Stream(e) = &defect else { panic!("{name} cut at {cut}: {defect}") };
                assert!(e.offset <= cut as u64 && e.offset + 312 + (16 << 20) > cut as u64, "{defect}");
            }
        }
        assert!(check(&bytes[..bytes.len() - 1], None).is_err());
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(check(&longer, None).is_err(), "a byte too many passed");
    }
}

#[test]
fn every_flipped_bit_is_seen() {
    for name in ["cold/docs-kept-newsnapshot.raw-i.zfs", "cold/plain@newsnapshot.Lecp.zfs"] {
        let bytes = fs::read(fixture(name)).unwrap();
        let mut bad = bytes.clone();
        // All bytes of every record but those of the payloads, and a few of each payload.
        let mut places: Vec<usize> = boundaries(&bytes).iter().flat_map(|at| *at..*at + 312).collect();
        places.extend((0..bytes.len()).step_by(bytes.len() / 400));
        // Whole streams are summed for each: one bit a byte, another one each time.
        for (i, at) in places.into_iter().enumerate().step_by(11) {
            let bit = 1 << (i % 8);
            bad[at] ^= bit;
            let seen = check(&bad, None);
            assert!(seen.is_err(), "{name}: bit {bit:#x} of byte {at} flipped, and it passed");
            bad[at] ^= bit;
        }
    }
}

#[test]
fn what_is_no_stream_is_called_so() {
    for garbage in [&[0_u8; 1000][..], b"PK\x03\x04 something else entirely", &[0xff; 400]] {
        let text = check(garbage, None).expect_err("garbage passed").to_string();
        let short = garbage.len() < 312;
        assert!(short || text.contains("not a ZFS send stream"), "{text}");
    }
    assert!(check(&[], None).is_err());
}
