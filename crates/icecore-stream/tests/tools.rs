//! `stream verify` and `stream dump` over streams that real OpenZFS made, whole and damaged.

use icecore_check::fixture::fixture;
use icecore_check::zdb::zdb_available;
use icecore_format::fletcher::Fletcher4;
use icecore_format::stream::{Record, StreamReader, StreamWriter};
use icecore_stream::dump::dump;
use icecore_stream::verify::{Defect, Proof, Verified, Verifier, Why, verify};
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

/// A stream of records changed at will, with all of the stream's own sums made to fit.
fn rewritten(stream: &[u8], mut each: impl FnMut(&mut Record, &mut Vec<u8>) -> bool) -> Vec<u8> {
    let mut reader = StreamReader::new(stream, Fletcher4::of).concatenated();
    let mut writer = StreamWriter::new(Vec::new(), Fletcher4::of);
    let mut payload = Vec::new();
    while let Some(entry) = reader.next(&mut payload).unwrap() {
        let mut record = entry.record;
        if each(&mut record, &mut payload) {
            writer.write(&record, &payload).unwrap();
        }
    }
    writer.into_inner()
}

/// The proofs of the streams of both inputs, the second verified after the first.
fn chain(first: &[u8], second: &[u8]) -> Result<Vec<Proof>, Defect> {
    let mut verifier = Verifier::default();
    let mut proofs = Vec::new();
    for stream in [first, second] {
        let v = verifier.verify(&mut &*stream, Some(PASSPHRASE), &mut |_| {})?;
        proofs.extend(v.streams.iter().map(|s| s.proof));
    }
    Ok(proofs)
}

#[test]
fn a_full_stream_and_what_builds_on_it_is_proven_whole() {
    let full = fs::read(fixture("cold/main@root.raw-R.zfs")).unwrap();
    let increments = fs::read(fixture("cold/main@root-newsnapshot.raw-R-I.zfs")).unwrap();
    let encrypted = |proofs: &[Proof]| proofs.iter().filter(|p| **p != Proof::None).count();
    let proofs = chain(&full, &increments).unwrap();
    assert!(proofs.iter().all(|p| matches!(p, Proof::Whole | Proof::None)), "{proofs:?}");
    assert!(encrypted(&proofs) > 8, "{proofs:?}");
    // Alone, increments cannot be, and say so; without the key nothing is.
    let alone = check(&increments, Some(PASSPHRASE)).unwrap();
    let alone: Vec<Proof> = alone.streams.iter().map(|s| s.proof).collect();
    assert!(alone.iter().any(|p| matches!(p, Proof::Blocks(why) if why.contains("builds on"))), "{alone:?}");
    assert!(check(&full, None).unwrap().streams.iter().all(|s| s.proof == Proof::None));
}

/// Every raw stream there is, with whatever key of the zoo opens it: nothing is called damaged, and full ones are whole.
#[test]
fn raw_streams_of_openzfs_keep_what_their_macs_promise() {
    let mut secrets: Vec<Vec<u8>> = vec![PASSPHRASE.to_vec()];
    if std::env::var_os("ICECORE_ZOO").is_some() {
        secrets
            .extend([&b"winter is for backups"[..], b"changed since then", b"password"].map(<[u8]>::to_vec));
        let files = ["crypt/crypt.raw.key", "crypt/crypt.hex.key"].map(icecore_check::fixture::zoo);
        secrets.extend(files.into_iter().flatten().map(|file| fs::read(file).unwrap()));
    }
    let mut whole = 0;
    for path in all_streams() {
        let bytes = fs::read(&path).unwrap();
        if check(&bytes, None).unwrap().streams.iter().all(|s| s.locked == 0) {
            continue;
        }
        for secret in &secrets {
            let v = check(&bytes, Some(secret)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            for s in v.streams.iter().filter(|s| s.macs > 0) {
                let provable = s.fromguid == 0 && !s.resuming && !s.dedup && bytes.get(8) != Some(&0);
                assert!(!provable || s.proof == Proof::Whole, "{} {}: {:?}", path.display(), s.name, s.proof);
                whole += usize::from(s.proof == Proof::Whole);
            }
        }
    }
    assert!(whole >= 4, "{whole} streams were proven whole");
}

/// What a thief of the stream could do, and none of it shows in the stream's own sums or in the MAC of any block.
#[test]
fn only_a_key_sees_a_forged_whole() {
    let full = fs::read(fixture("cold/main@root.raw-R.zfs")).unwrap();
    let sealed = |w: &icecore_format::stream::Write| w.mac != [0; 16];
    let mut forgeries: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut once = |name, change: &mut dyn FnMut(&mut Record, &mut Vec<u8>) -> Option<bool>| {
        let (mut done, mut raw) = (false, false);
        let stream = rewritten(&full, |record, payload| {
            if let Record::Begin(b) = record {
                raw = b.has(icecore_format::stream::feature::RAW);
            }
            let verdict = if done || !raw { None } else { change(record, payload) };
            done |= verdict.is_some();
            verdict.unwrap_or(true)
        });
        assert!(done, "{name}: nothing to change");
        forgeries.push((name, stream));
    };
    // Mode, owner, times and size of a file, or where its attributes are.
    once("bonus", &mut |record, payload| {
        let hit = matches!(record, Record::Object(o) if o.bonuslen > 0) && payload.len() > 16;
        hit.then(|| payload[9] ^= 1).map(|()| true)
    });
    once("last block", &mut |record, _| match record {
        Record::Object(o) if o.maxblkid > 0 => {
            o.maxblkid += 1;
            Some(true)
        }
        _ => None,
    });
    once("compression of an object", &mut |record, _| match record {
        Record::Object(o) if o.object_type == 19 => {
            o.compress = 15;
            Some(true)
        }
        _ => None,
    });
    once("a block left out", &mut |record, _| match record {
        Record::Write(w) if sealed(w) => Some(false),
        _ => None,
    });
    // Two blocks of a file exchanged, each with its own salt, IV and MAC.
    let mut blocks = Vec::new();
    rewritten(&full, |record, payload| {
        if let Record::Write(w) = record
            && sealed(w)
        {
            blocks.push((w.object, w.offset, w.clone(), payload.clone()));
        }
        true
    });
    let pair = blocks.windows(2).find(|p| p[0].0 == p[1].0 && p[0].2.logical_size == p[1].2.logical_size);
    let pair = pair.expect("a file of two blocks").to_vec();
    let mut turn = 0;
    let exchanged = rewritten(&full, |record, payload| {
        let Record::Write(w) = record else { return true };
        if turn < 2 && sealed(w) && (w.mac == pair[turn].2.mac) {
            let (_, _, other, bytes) = &pair[1 - turn];
            let (object, offset) = (w.object, w.offset);
            *w = other.clone();
            (w.object, w.offset) = (object, offset);
            payload.clone_from(bytes);
            turn += 1;
        }
        true
    });
    assert_eq!(turn, 2);
    forgeries.push(("blocks exchanged", exchanged));

    for (name, stream) in forgeries {
        check(&stream, None).unwrap_or_else(|e| panic!("{name}: {e}"));
        let got = check(&stream, Some(PASSPHRASE));
        assert!(
            matches!(got, Err(Defect::Record { name: "END", why: Why::Dnodes(_) | Why::Root, .. })),
            "{name}: {got:?}"
        );
    }
}

#[test]
fn a_forged_increment_is_seen_on_its_base() {
    let full = fs::read(fixture("cold/main@root.raw-R.zfs")).unwrap();
    let increments = fs::read(fixture("cold/main@root-newsnapshot.raw-R-I.zfs")).unwrap();
    let mut left_out = false;
    let forged = rewritten(&increments, |record, _| {
        let hit = !left_out && matches!(record, Record::Write(w) if w.mac != [0; 16]);
        left_out |= hit;
        !hit
    });
    assert!(left_out);
    check(&forged, Some(PASSPHRASE)).unwrap();
    let got = chain(&full, &forged);
    assert!(matches!(got, Err(Defect::Record { why: Why::Dnodes(_) | Why::Root, .. })), "{got:?}");
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
