//! Features, block sizes, embedded and compressed blocks, packages: B43 to B50.

use crate::make::{
    FILE, Records, begin, chunk, end, file, free, packed, put_together, raw_full, raw_next, take_apart,
};
use crate::support::{SimPool, kinds, to};
use crate::world::{KEY, LEC, PLAIN, RAW, RAW_FORM};
use crate::{is, refused};
use icecore_dmu::NewObject;
use icecore_dsl::Feature;
use icecore_format::stream::{Object, PayloadLen, Record, Redact, ToName, WriteByref, feature};
use icecore_format::{NvList, ObjectId, ObjectType};
use icecore_stream::receive::rules::Rule;
use icecore_stream::receive::{ReceiveError, ReceiveSpec};
use icecore_stream::send::{PackageSpec, SendSpec, send_package};

/// A file sent in pieces first and whole later keeps its blocks and what is not sent again; another file of
/// the same number does not (B43).
#[test]
fn b43_block_sizes_over_incrementals() {
    let mut pool = SimPool::new("sizes");
    let stream = |bits, from, to, records: Records| {
        let mut all = vec![(begin("a@s", to, from, bits).into(), Vec::new())];
        if let Record::Begin(b) = &mut all[0].0 {
            b.toname = ToName::new(&format!("a@s{to}")).unwrap();
        }
        all.extend(records);
        all.push(end(to));
        put_together(&all)
    };
    let k = 1 << 17;
    let mut first = vec![file(2, k as u32, 5, 1)];
    first.extend((0..4).map(|i| chunk(2, i * k, k, 1 + i as u8, 1)));
    first.extend([file(3, k as u32, 6, 1), chunk(3, 0, k, 7, 1), chunk(3, k, k, 8, 1)]);
    let spec = to("sizes/x");
    pool.receive(&stream(0, 0, 1, first), &spec).unwrap();
    // Now in blocks of 512 KiB: the same file 2, and a new file 3.
    let large = feature::LARGE_BLOCKS;
    let mut second = vec![file(2, 4 * k as u32, 5, 2), file(3, 4 * k as u32, 9, 2)];
    second.push(chunk(3, 0, 4 * k, 9, 2));
    pool.receive(&stream(large, 1, 2, second), &spec).unwrap();
    assert_eq!(pool.read("sizes/x", 2, 2 * k, 4), [3; 4]);
    assert_eq!(pool.read("sizes/x", 3, k, 4), [9; 4]);
    // A whole block into the file that kept its small ones.
    let third = vec![file(2, 4 * k as u32, 5, 3), chunk(2, 0, 4 * k, 0x55, 3)];
    pool.receive(&stream(large, 2, 3, third), &spec).unwrap();
    assert_eq!(pool.read("sizes/x", 2, 3 * k, 4), [0x55; 4]);
    // Back to pieces is refused at once, and a file that shrinks its blocks as well.
    let back = stream(0, 3, 4, vec![file(2, k as u32, 5, 4)]);
    let got = pool.receive(&back, &spec).unwrap_err();
    assert!(matches!(got, ReceiveError::LargeBlockMismatch(_)), "{got:?}");
    let back = stream(large, 3, 4, vec![file(2, 4096, 5, 4)]);
    let got = pool.receive(&back, &spec).unwrap_err();
    let ReceiveError::Record { refusal, .. } = got else { panic!("{got:?}") };
    assert_eq!(refusal.rule, Rule::BlockSizeShrinks);
    // Unaligned frees zero what they touch.
    let fourth = vec![file(2, 4 * k as u32, 5, 4), free(4, 2, 100, 50), free(4, 2, k + 8, u64::MAX)];
    pool.receive(&stream(large, 3, 4, fourth), &spec).unwrap();
    assert_eq!(pool.read("sizes/x", 2, 98, 4), [0x55, 0x55, 0, 0]);
    assert_eq!(pool.read("sizes/x", 2, 148, 4), [0, 0, 0x55, 0x55]);
    assert_eq!(pool.read("sizes/x", 2, k + 6, 4), [0x55, 0x55, 0, 0]);
    assert_eq!(pool.read("sizes/x", 2, 3 * k, 4), [0; 4]);
    pool.judge_blocks();
}

/// OpenZFS forgot to mark the received dataset, and the next raw send panicked.
#[test]
fn b44_large_blocks_mark_the_dataset_that_has_them() {
    let (mut far, mut pool) = (SimPool::new("b44far"), SimPool::new("b44"));
    let large = |p: &mut SimPool, path: &str, object, seed| {
        p.change(path, |io, os| {
            if os.dnode(io, ObjectId(object)).is_err() {
                let new = NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, 1 << 20);
                os.claim(io, ObjectId(object), &new).unwrap();
            }
            os.write(io, ObjectId(object), seed << 20, &crate::make::noise(seed, 1 << 20)).unwrap();
        });
    };
    far.encrypted("b44far/e", RAW_FORM, &KEY);
    far.filesystem("b44far/p");
    for path in ["b44far/e", "b44far/p"] {
        let (io, dsl) = far.pool().parts();
        let head = dsl.lookup_head(io, path).unwrap();
        dsl.activate_feature(io, head.obj, Feature::LARGE_BLOCKS).unwrap();
        large(&mut far, path, 20, 1);
        far.snapshot(&format!("{path}@a"));
        large(&mut far, path, 20, 2);
        far.snapshot(&format!("{path}@b"));
    }
    for (path, flags) in [("e", RAW), ("p", LEC)] {
        let (there, here) = (format!("b44far/{path}"), format!("b44/{path}"));
        let first = far.send(None, &format!("{there}@a"), flags).unwrap();
        pool.receive(&first, &to(&here)).unwrap();
        for name in [here.clone(), format!("{here}@a")] {
            assert!(pool.feature_active(&name, Feature::LARGE_BLOCKS), "{name}");
        }
        // There and back and on: it can be sent again as it was sent.
        let again = pool.send(None, &format!("{here}@a"), flags).unwrap();
        assert_eq!(take_apart(&again).len(), take_apart(&first).len());
        let next = far.send(Some(&format!("{there}@a")), &format!("{there}@b"), flags).unwrap();
        pool.receive(&next, &to(&here)).unwrap();
        assert!(pool.feature_active(&format!("{here}@b"), Feature::LARGE_BLOCKS));
        assert_eq!(pool.contents(&format!("{here}@b")), far.contents(&format!("{there}@b")));
    }
    // Marked by the stream's flag alone, though no block is large.
    let empty = put_together(&[(begin("a@s", 5, 0, feature::LARGE_BLOCKS).into(), vec![]), end(5)]);
    pool.receive(&empty, &to("b44/flag")).unwrap();
    assert!(pool.feature_active("b44/flag@s", Feature::LARGE_BLOCKS));
    pool.judge_blocks();
}

#[test]
fn b45_a_last_piece_that_is_short() {
    let (mut far, mut pool) = (SimPool::new("b45far"), SimPool::new("b45"));
    far.filesystem("b45far/p");
    let (io, dsl) = far.pool().parts();
    let head = dsl.lookup_head(io, "b45far/p").unwrap();
    dsl.activate_feature(io, head.obj, Feature::LARGE_BLOCKS).unwrap();
    for (object, size) in [(20, 200_704_u64), (21, 131_584), (22, 1536), (23, 262_144)] {
        far.file("b45far/p", object, size, 0..1, object);
    }
    far.snapshot("b45far/p@s");
    for (target, flags) in [("b45/small", PLAIN), ("b45/large", LEC)] {
        pool.receive(&far.send(None, "b45far/p@s", flags).unwrap(), &to(target)).unwrap();
        for (object, size) in [(20, 200_704), (21, 131_584), (22, 1536), (23, 262_144)] {
            let name = format!("{target}@s");
            assert!(
                pool.read(&name, object, 0, size) == far.read("b45far/p@s", object, 0, size),
                "{name} {object}"
            );
        }
    }
    pool.judge_blocks();
}

#[test]
fn b46_embedded_blocks_and_encryption() {
    let mut pool = SimPool::new("b46");
    pool.receive(&put_together(&raw_full()), &to("b46/x")).unwrap();
    let stream = |from| {
        let b = begin("src/fs@e", 0x77, from, feature::EMBED_DATA | feature::LZ4);
        put_together(&[(b.into(), vec![]), end(0x77)])
    };
    let got = refused(&mut pool, &stream(0x1000), &to("b46/x"));
    assert!(matches!(&got, ReceiveError::EmbeddedIntoEncrypted(n) if n == "b46/x"), "{got:?}");
    assert_eq!(got.to_string(), "incompatible embedded data stream feature with encrypted receive.");
    // As a clone of an encrypted snapshot as well.
    let clone = ReceiveSpec { origin: Some("b46/x@one".into()), ..to("b46/c") };
    is!(refused(&mut pool, &stream(0x1000), &clone), ReceiveError::EmbeddedIntoEncrypted(_));
}

/// OpenZFS lost the last block of ranges that an earlier stream had left out.
#[test]
fn b47_the_last_redacted_block_comes_back() {
    let mut pool = SimPool::new("b47");
    let k = 4096;
    let b = |name: &str, to, from, bits, list: &NvList| {
        let payload = packed(list);
        let mut b = begin(name, to, from, bits);
        b.payload_len = PayloadLen(payload.len() as u32);
        (Record::from(b), payload)
    };
    let redact = |object, offset, length, toguid| {
        (Record::from(Redact { object, offset, length, toguid }), Vec::new())
    };
    let mut left_out = NvList::new();
    left_out.set("redact_snaps", vec![0x99_u64]);
    let mut first = vec![b("a@s1", 1, 0, feature::REDACTED, &left_out), file(2, k as u32, 5, 1)];
    first.extend((0..8).map(|i| chunk(2, i * k, k, 1 + i as u8, 1)));
    first.extend([redact(2, 3 * k, 5 * k, 1), end(1)]);
    pool.receive(&put_together(&first), &to("b47/x")).unwrap();
    assert_eq!(pool.read("b47/x@s1", 2, 2 * k, k as usize + 1)[..4], [3; 4]);
    assert_eq!(pool.read("b47/x@s1", 2, 3 * k, 5 * k as usize), vec![0; 5 * k as usize]);
    assert!(pool.feature_active("b47/x@s1", Feature::REDACTED_DATASETS));
    // What was left out, all of it and no more, from the snapshot it was redacted by.
    let mut second = vec![(begin("a@s2", 0x99, 1, 0).into(), vec![]), file(2, k as u32, 5, 0x99)];
    second.extend((3..8).map(|i| chunk(2, i * k, k, 1 + i as u8, 0x99)));
    second.push(end(0x99));
    pool.receive(&put_together(&second), &to("b47/x")).unwrap();
    for i in 0..8 {
        assert_eq!(pool.read("b47/x@s2", 2, i * k, k as usize), vec![1 + i as u8; k as usize], "block {i}");
    }
    // Another snapshot, or one that is redacted by others, does not fit.
    let other = put_together(&[(begin("a@s3", 0x98, 1, 0).into(), vec![]), end(0x98)]);
    let mut fresh = SimPool::new("b47");
    fresh.receive(&put_together(&first), &to("b47/x")).unwrap();
    is!(refused(&mut fresh, &other, &to("b47/x")), ReceiveError::RedactionMismatch);
    let mut more = NvList::new();
    more.set("redact_from_snaps", vec![0x99_u64, 0x98]);
    let other = put_together(&[b("a@s3", 0x97, 1, feature::REDACTED, &more), end(0x97)]);
    is!(refused(&mut fresh, &other, &to("b47/x")), ReceiveError::RedactionMismatch);
    pool.judge_blocks();
}

/// Lists as today's and as older senders pack them. (Records of the other byte order: `receive/endian.rs`.)
#[test]
fn b48_lists_in_both_packings() {
    let [one, two] = [false, true].map(|native| {
        let mut records = raw_full();
        let list = NvList::decode(&records[0].1).unwrap().0;
        let mut payload = if native { list.encode_native() } else { list.encode_xdr() };
        payload.resize(payload.len().next_multiple_of(8) + 16, 0); // padded, more than needed
        let Record::Begin(mut b) = records[0].0.clone() else { panic!("no BEGIN") };
        b.payload_len = PayloadLen(payload.len() as u32);
        records[0] = (b.into(), payload);
        let mut pool = SimPool::new("b48");
        pool.receive(&put_together(&records), &to("b48/x")).unwrap();
        (pool.contents("b48/x@one"), pool.key("b48/x"), pool.ivset("b48/x@one"))
    });
    assert!(one == two);
}

/// A package that says less than usual: `zfs send -w -h` has no properties.
#[test]
fn b49_packages_without_what_is_optional() {
    let mut far = SimPool::new("b49far");
    far.encrypted("b49far/e", RAW_FORM, &KEY);
    far.snapshot("b49far/e@s");
    let (io, dsl) = far.pool().parts();
    dsl.hold(io, "b49far/e@s", "mine").unwrap();
    far.commit_now();
    let send = SendSpec { to: "b49far/e@s".into(), flags: RAW, ..SendSpec::default() };
    let spec = PackageSpec { send, holds: true, ..PackageSpec::default() };
    let mut stream = Vec::new();
    let (io, dsl) = far.pool().parts();
    send_package(io, dsl, &spec, &mut stream, &mut |_| {}).unwrap();
    let records = take_apart(&stream);
    let (_, Record::Begin(head), list) = &records[0] else { panic!("no package") };
    assert!(head.is_compound());
    let list = NvList::decode(list).unwrap().0;
    let mut pool = SimPool::new("b49");
    let mut check = |n: usize, list: &NvList, held: bool| {
        let mut all: Vec<_> = records.iter().map(|(_, r, p)| (r.clone(), p.clone())).collect();
        let payload = packed(list);
        let mut b = head.clone();
        b.payload_len = PayloadLen(payload.len() as u32);
        all[0] = (b.into(), payload);
        let target = format!("b49/x{n}");
        let got = pool.receive(&put_together(&all), &to(&target)).unwrap();
        assert_eq!(got.snapshots.len(), 1, "{n}");
        let (io, dsl) = pool.pool().parts();
        let snap = dsl.lookup_snapshot(io, &format!("{target}@s")).unwrap();
        assert_eq!(!dsl.holds(io, snap).unwrap().is_empty(), held, "{n}");
    };
    check(0, &list, true);
    let without = |name: &str| {
        let mut list = list.clone();
        let fss = list.list("fss").unwrap().clone();
        let mut out = NvList::new();
        for (guid, fs) in fss.iter() {
            let icecore_format::nvlist::NvValue::List(fs) = fs else { panic!("no list") };
            let mut fs = fs.clone();
            fs.remove(name);
            out.set(guid.as_str().unwrap(), fs);
        }
        list.replace("fss", out);
        list
    };
    for (i, name) in
        ["props", "snapprops", "is_encroot", "parentfromsnap", "name", "origin"].iter().enumerate()
    {
        check(1 + i, &without(name), true);
    }
    check(10, &without("snapholds"), false);
    check(11, &without("snaps"), false);
    let mut bare = list.clone();
    bare.remove("fss");
    check(12, &bare, false);
    check(13, &NvList::new(), false);
}

/// One parser for receiving, dry runs and what is skipped: the same stream fails in the same place.
#[test]
fn b50_a_dry_run_reads_with_the_same_eyes() {
    let mut pool = SimPool::new("b50");
    let dry = |t: &str| ReceiveSpec { dry_run: true, ..to(t) };
    let whole = [kinds(), put_together(&raw_full())];
    for stream in &whole {
        let before = pool.state();
        let got = pool.receive(stream, &dry("b50/x")).unwrap();
        assert_eq!(got.bytes, stream.len() as u64);
        assert_eq!(pool.state(), before);
    }
    // All kinds of records, also those that OpenZFS's skipping does not know.
    let g = 7;
    let redact = Redact { object: 9, offset: 0, length: 512, toguid: g };
    let o = Object { object: 9, object_type: FILE, blksz: 4096, dn_slots: 1, toguid: g, ..Object::default() };
    let with = |bad: Record| {
        let len = bad.payload_len() as usize;
        let all = [
            (begin("a@s", g, 0, feature::REDACTED).into(), vec![]),
            (o.clone().into(), vec![]),
            (redact.clone().into(), vec![]),
            (bad, vec![0; len]),
            end(g),
        ];
        put_together(&all)
    };
    let bad = [
        Record::from(WriteByref { object: 9, toguid: g, ..WriteByref::default() }),
        Object { object: 0, ..o.clone() }.into(),
        Object { blksz: 513, ..o.clone() }.into(),
        Redact { object: 0, ..redact.clone() }.into(),
    ];
    for record in bad {
        let stream = with(record.clone());
        let errors = [dry("b50/x"), to("b50/x")].map(|spec| pool.receive(&stream, &spec).unwrap_err());
        assert_eq!(format!("{:?}", errors[0]), format!("{:?}", errors[1]), "{record:?}");
    }
    let mut unknown = with(o.clone().into());
    unknown[3 * 312] = 77; // the type of a record
    let mut long = with(o.clone().into());
    long[3 * 312 + 4..3 * 312 + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    for stream in [unknown, long] {
        let errors = [dry("b50/x"), to("b50/x")].map(|spec| pool.receive(&stream, &spec).unwrap_err());
        assert_eq!(format!("{:?}", errors[0]), format!("{:?}", errors[1]));
    }
    // What is here already is skipped with all checks.
    pool.receive(&whole[1], &to("b50/x")).unwrap();
    let next = put_together(&raw_next(9));
    pool.receive(&next, &to("b50/x")).unwrap();
    let mut flipped = next.clone();
    let at = flipped.len() - 400;
    flipped[at] ^= 1;
    for spec in [dry("b50/x"), to("b50/x")] {
        assert_eq!(pool.receive(&next, &spec).unwrap().present, ["b50/x@two"]);
        assert!(pool.receive(&flipped, &spec).unwrap_err().is_transport());
    }
    // A package whose later streams build on its earlier ones.
    let mut far = SimPool::new("b50far");
    far.filesystem("b50far/p");
    for snap in ["a", "b", "c"] {
        far.file("b50far/p", 20, 4096, 0..3, 1);
        far.snapshot_tree("b50far/p", snap);
    }
    let package = far.send_tree(None, "b50far/p@c", PLAIN);
    let before = pool.state();
    let got = pool.receive(&package, &dry("b50/p")).unwrap();
    assert_eq!(pool.state(), before);
    let names = |r: &icecore_stream::receive::Received| {
        r.snapshots.iter().map(|s| (s.name.clone(), s.guid)).collect::<Vec<_>>()
    };
    let really = pool.receive(&package, &to("b50/p")).unwrap();
    assert_eq!(names(&got), names(&really));
}
