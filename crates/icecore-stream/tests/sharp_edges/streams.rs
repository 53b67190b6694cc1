//! Bad streams onto pools that hold something: cut, flipped, of another base, of nothing.
//!
//! (`receive/damage.rs` does the same with full streams onto an empty pool.)

use crate::make::{
    Records, begin, chunk, end, file, free, free_objects, noise, put_together, raw_begin, raw_full, raw_next,
    take_apart,
};
use crate::support::{SimPool, force, to};
use crate::{is, refused};
use icecore_format::stream::Record;
use icecore_stream::receive::{ReceiveError, ReceiveSpec};

fn plain(from: u64, guid: u64, fill: u8) -> Vec<u8> {
    let mut out: Records = vec![(begin(&format!("a@s{guid}"), guid, from, 0).into(), vec![])];
    for object in 8..12 {
        out.push(file(object, 4096, 5, guid));
        out.push(free(guid, object, 8 * 4096, u64::MAX));
        out.extend((0..2).map(|b| chunk(object, b * 4096, 4096, fill + b as u8, guid)));
    }
    out.extend([free_objects(guid, 12, 20), end(guid)]);
    put_together(&out)
}

/// A pool with an encrypted dataset, a plain one, and the next streams for both.
fn prepared(name: &str) -> (SimPool, [(String, Vec<u8>); 2]) {
    let mut pool = SimPool::new(name);
    pool.receive(&put_together(&raw_full()), &to(&format!("{name}/e"))).unwrap();
    pool.receive(&plain(0, 0x10, 1), &to(&format!("{name}/p"))).unwrap();
    let streams =
        [(format!("{name}/e"), put_together(&raw_next(8))), (format!("{name}/p"), plain(0x10, 0x11, 5))];
    (pool, streams)
}

/// All there is: names, guids, space, contents, keys.
fn all(pool: &mut SimPool, name: &str) -> impl PartialEq + std::fmt::Debug + use<> {
    let (e, p) = (format!("{name}/e"), format!("{name}/p"));
    (pool.state(), pool.contents(&e), pool.contents(&p), pool.key_iv(&e))
}

#[test]
fn an_increment_cut_anywhere_changes_nothing() {
    let (mut pool, streams) = prepared("inccut");
    for (target, stream) in &streams {
        let before = all(&mut pool, "inccut");
        for (at, record, payload) in take_apart(stream) {
            let end = at as usize + 312 + payload.len();
            for cut in [end - 311, end - 1, end, end + 7, end + 8] {
                let Some(part) = stream.get(..cut).filter(|p| p.len() < stream.len()) else { continue };
                let got = pool.receive(part, &to(target)).unwrap_err();
                assert!(got.is_transport(), "{record:?} {cut}: {got:?}");
                assert!(all(&mut pool, "inccut") == before, "{record:?} {cut}");
            }
        }
        // In between, commits do not show either, but for the space of a partial dataset that is gone again.
        let spec = ReceiveSpec { commit_bytes: 1, ..to(target) };
        let names = pool.names();
        pool.receive(&stream[..stream.len() - 400], &spec).unwrap_err();
        pool.commit_and_reopen();
        assert_eq!(pool.names(), names);
    }
    pool.judge_blocks();
    for (target, stream) in &streams {
        pool.receive(stream, &to(target)).unwrap();
    }
}

#[test]
fn an_increment_with_a_flipped_bit_changes_nothing() {
    let (mut pool, streams) = prepared("incflip");
    let before = all(&mut pool, "incflip");
    let mut kinds = std::collections::BTreeSet::new();
    for (target, stream) in &streams {
        for (n, (at, record, payload)) in take_apart(stream).into_iter().enumerate() {
            kinds.insert(record.type_name());
            for byte in [0, 5, 9, 33, 60, 200, 285, 312, 311 + payload.len()] {
                if byte >= 312 + payload.len() {
                    continue;
                }
                // Of END only the checksum over all before it means anything.
                if matches!(record, Record::End(_)) && byte >= 40 {
                    continue;
                }
                let mut bad = stream.clone();
                bad[at as usize + byte] ^= 1 << (n % 8);
                let got = pool.receive(&bad, &to(target));
                assert!(got.is_err(), "{record:?} byte {byte}: {got:?}");
                assert!(!got.unwrap_err().to_string().is_empty());
                assert!(all(&mut pool, "incflip") == before, "{record:?} byte {byte}");
            }
        }
    }
    assert_eq!(kinds.len(), 7, "{kinds:?}");
    pool.judge_blocks();
}

#[test]
fn records_dropped_doubled_or_exchanged_change_nothing() {
    let (mut pool, streams) = prepared("incorder");
    let before = all(&mut pool, "incorder");
    for (target, stream) in &streams {
        let parts: Vec<&[u8]> = {
            let starts: Vec<usize> = take_apart(stream).iter().map(|(at, ..)| *at as usize).collect();
            let ends = starts.iter().skip(1).copied().chain([stream.len()]);
            starts.iter().zip(ends).map(|(a, b)| &stream[*a..b]).collect()
        };
        for i in 0..parts.len() {
            let mut dropped = parts.clone();
            dropped.remove(i);
            let mut doubled = parts.clone();
            doubled.insert(i, parts[i]);
            let mut exchanged = parts.clone();
            exchanged.swap(i, (i + 1) % parts.len());
            for (how, all_parts) in [("dropped", dropped), ("doubled", doubled), ("exchanged", exchanged)] {
                // A second END comes after the stream: it is not read.
                if how == "doubled" && i + 1 == parts.len() {
                    continue;
                }
                let bad = all_parts.concat();
                let got = pool.receive(&bad, &to(target));
                assert!(got.is_err(), "{how} {i}: {got:?}");
                assert!(all(&mut pool, "incorder") == before, "{how} {i}");
            }
        }
    }
    pool.judge_blocks();
}

#[test]
fn what_does_not_fit_here_is_refused() {
    let (mut pool, streams) = prepared("fit");
    let p = &mut pool;
    let before = all(p, "fit");
    let raw_upon = |from, iv| {
        let mut next = raw_next(9);
        next[0] = raw_begin("src/fs@two", (from, 0x2000), (iv, 0x52), 9);
        put_together(&next)
    };
    // Raw upon plain, and the reverse.
    is!(refused(p, &raw_upon(0x10, 0x51), &to("fit/p")), ReceiveError::RawOverPlain(_));
    is!(refused(p, &plain(0x1000, 0x11, 5), &to("fit/e")), ReceiveError::KeyNotLoaded(_));
    // Another base, of another dataset, of nobody; with force too.
    for spec in [to("fit/e"), force("fit/e")] {
        match refused(p, &raw_upon(0x99, 0x51), &spec) {
            ReceiveError::NoIncrementalBase { dataset, want, have } => {
                assert_eq!((dataset.as_str(), want, have), ("fit/e", 0x99, vec![("one".into(), 0x1000)]));
            }
            e => panic!("{e:?}"),
        }
        is!(refused(p, &raw_upon(0x10, 0x51), &spec), ReceiveError::NoIncrementalBase { .. });
    }
    is!(refused(p, &plain(0x1000, 0x11, 5), &to("fit/p")), ReceiveError::NoIncrementalBase { .. });
    is!(refused(p, &streams[1].1, &to("fit/none")), ReceiveError::NoDestination(_));
    is!(refused(p, &plain(0, 0x12, 1), &to("fit/p")), ReceiveError::Exists(_));
    assert!(all(p, "fit") == before);
    // Changed here since.
    p.file("fit/p", 30, 4096, 0..1, 1);
    match refused(p, &streams[1].1, &to("fit/p")) {
        ReceiveError::Modified { dataset, since, newer } => {
            assert_eq!((dataset.as_str(), since.as_str(), newer.len()), ("fit/p", "fit/p@s16", 0));
        }
        e => panic!("{e:?}"),
    }
    assert!(p.contents("fit/p").contains_key(&30));
    p.snapshot("fit/p@mine");
    match refused(p, &streams[1].1, &to("fit/p")) {
        ReceiveError::Modified { newer, .. } => assert_eq!(newer, ["fit/p@mine"]),
        e => panic!("{e:?}"),
    }
    p.judge_blocks();
}

#[test]
fn garbage_as_a_stream() {
    let (mut pool, streams) = prepared("trash");
    let before = all(&mut pool, "trash");
    let raw = &streams[0].1;
    let mut trash: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("a byte", vec![0]),
        ("zeros", vec![0; 100_000]),
        ("ones", vec![0xff; 100_000]),
        ("noise", noise(3, 1 << 20)),
        ("text", b"cannot open 'tank': dataset does not exist\n".repeat(50)),
        ("half a record", raw[..300].to_vec()),
        ("a record", raw[..312].to_vec()),
        ("without its BEGIN", raw[312..].to_vec()),
        ("a byte late", raw[1..].to_vec()),
        (
            "packed",
            icecore_transform::compress::compress(icecore_format::Compress::GZIP_9, 0, raw, raw.len())
                .unwrap(),
        ),
    ];
    for seed in 0..40 {
        // The right magic, and nothing else.
        let mut b = noise(seed, 4000);
        b[..4].fill(0);
        b[8..16].copy_from_slice(&raw[8..16]);
        trash.push(("magic and noise", b));
    }
    for (what, stream) in trash {
        for target in ["trash/e", "trash/p", "trash/new"] {
            for resumable in [false, true] {
                let got = pool.receive(&stream, &ReceiveSpec { resumable, ..force(target) });
                let e = got.map(|_| ()).expect_err(what);
                assert!(!e.to_string().is_empty(), "{what}");
                assert!(all(&mut pool, "trash") == before, "{what} into {target}: {e:?}");
            }
        }
    }
    // What comes after a whole stream is not ours to read.
    let mut more = raw.clone();
    more.extend(noise(1, 5000));
    let got = pool.receive(&more, &to("trash/e")).unwrap();
    assert_eq!(got.bytes, raw.len() as u64);
}

#[test]
fn a_stream_that_drips_is_the_same() {
    struct Drip<'a>(&'a [u8]);
    impl std::io::Read for Drip<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let n = out.len().min(1).min(self.0.len());
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }
    let (mut one, streams) = prepared("drip");
    let (mut two, _) = prepared("drip");
    for (target, stream) in &streams {
        one.receive(stream, &to(target)).unwrap();
        icecore_stream::receive::receive_plain(&mut two, &mut Drip(stream), &to(target)).unwrap();
    }
    assert!(all(&mut one, "drip") == all(&mut two, "drip"));
}
