//! What OpenZFS lets pass and we do not: L4 to L12. (L1 to L3, L10, L11 are rules of records and keys:
//! `receive/rules.rs` and `receive/refusals.rs`.)

use crate::make::{
    Records, begin, chunk, end, file, free_objects, packed, put_together, resumed, take_apart,
};
use crate::support::{SimPool, to};
use crate::world::{KEY, RAW, RAW_FORM};
use crate::{is, refused};
use icecore_dmu::Objset;
use icecore_dmu::Want;
use icecore_dsl::Feature;
use icecore_format::NvList;
use icecore_format::stream::{PayloadLen, Record, begin_flag, feature};
use icecore_stream::receive::{ReceiveError, ReceiveSpec};
use icecore_stream::send::{PackageSpec, SendSpec, send_package};
use icecore_stream::token::{ResumeToken, TokenError};
use std::time::Instant;

fn with_list(toname: &str, guids: (u64, u64), bits: u64, list: &NvList) -> (Record, Vec<u8>) {
    let payload = packed(list);
    let mut b = begin(toname, guids.1, guids.0, bits);
    b.payload_len = PayloadLen(payload.len() as u32);
    (b.into(), payload)
}

/// The list of a resumed redacted stream may be shorter or longer than what is here, and is compared whole.
#[test]
fn l04_redaction_lists_of_other_lengths() {
    let g = 7;
    let list = |snaps: &[u64]| {
        let mut l = NvList::new();
        l.set("redact_snaps", snaps.to_vec());
        l
    };
    let mut records: Records = vec![with_list("a@s", (0, g), feature::REDACTED, &list(&[11, 12, 13]))];
    for object in 8..40 {
        records.extend([file(object, 4096, 5, g), chunk(object, 0, 4096, object as u8, g)]);
    }
    records.push(end(g));
    let stream = put_together(&records);
    let spec = ReceiveSpec { resumable: true, commit_bytes: 1, ..to("l04/x") };
    let mut pool = SimPool::new("l04");
    pool.receive(&stream[..stream.len() / 2], &spec).unwrap_err();
    let (object, offset) = pool.resume_point("l04/x");
    let rest = |snaps: Option<&[u64]>| {
        let mut records = records.clone();
        records[0] = with_list("a@s", (0, g), feature::REDACTED, &snaps.map_or(NvList::new(), list));
        put_together(&resumed(&records, object, offset))
    };
    let others: [Option<&[u64]>; 6] =
        [None, Some(&[]), Some(&[11]), Some(&[11, 12]), Some(&[11, 12, 14]), Some(&[11, 12, 13, 14])];
    for snaps in others {
        is!(refused(&mut pool, &rest(snaps), &spec), ReceiveError::RedactionMismatch);
    }
    pool.receive(&rest(Some(&[13, 11, 12])), &spec).unwrap();
}

#[test]
fn l05_frees_of_all_objects_there_could_be_take_no_time() {
    let mut pool = SimPool::new("l05");
    let g = 7;
    let mut records: Records = vec![(begin("a@s", g, 0, 0).into(), vec![])];
    records.extend((0..400).map(|i| free_objects(g, i, (1 << 48) - 1 - i)));
    records.push(end(g));
    let start = Instant::now();
    pool.receive(&put_together(&records), &to("l05/x")).unwrap();
    assert!(start.elapsed().as_secs() < 20);
}

#[test]
fn l06_tokens_claim_nothing_that_is_allocated() {
    let good = icecore_stream::token::encode(&NvList::new().with("toname", "a@b").encode_native());
    let parts: Vec<&str> = good.split('-').collect();
    for claimed in ["ffffffffffffffff", "7fffffffffffffff", "ffffffff", "10001"] {
        let text = format!("{}-{}-{claimed}-{}", parts[0], parts[1], parts[3]);
        assert_eq!(ResumeToken::parse(&text).unwrap_err(), TokenError::Decompression, "{claimed}");
    }
    assert!(ResumeToken::parse(&"f".repeat(1 << 20)).is_err());
}

#[test]
fn l07_payloads_that_are_announced_and_do_not_come() {
    let mut pool = SimPool::new("l07");
    let mut stream = put_together(&[(begin("a@s", 7, 0, 0).into(), vec![]), end(7)]);
    for len in [u32::MAX, 1 << 31, 64 << 20, (64 << 20) + 8, 4096] {
        stream[4..8].copy_from_slice(&len.to_le_bytes());
        let got = refused(&mut pool, &stream[..312], &to("l07/x"));
        is!(&got, ReceiveError::Stream(_));
    }
}

/// A stream that names a file or an address for the key would have us read it at the next load-key.
#[test]
fn l08_no_keylocation_from_a_stream() {
    let mut far = SimPool::new("l08far");
    far.encrypted("l08far/e", RAW_FORM, &KEY);
    far.snapshot("l08far/e@s");
    let send = SendSpec { to: "l08far/e@s".into(), flags: RAW, ..SendSpec::default() };
    let spec = PackageSpec { send, replicate: true, properties: true, ..PackageSpec::default() };
    let mut stream = Vec::new();
    let (io, dsl) = far.pool().parts();
    send_package(io, dsl, &spec, &mut stream, &mut |_| {}).unwrap();
    let mut records: Records = take_apart(&stream).into_iter().map(|(_, r, p)| (r, p)).collect();
    let mut list = NvList::decode(&records[0].1).unwrap().0;
    let fss = list.list("fss").unwrap().clone();
    let mut changed = NvList::new();
    for (guid, fs) in fss.iter() {
        let icecore_format::nvlist::NvValue::List(fs) = fs else { panic!("no list") };
        let mut fs = fs.clone();
        let mut props = fs.list("props").unwrap().clone();
        props.replace("keylocation", "https://evil.example/key");
        fs.replace("props", props);
        changed.set(guid.as_str().unwrap(), fs);
    }
    list.replace("fss", changed);
    let payload = packed(&list);
    let Record::Begin(mut b) = records[0].0.clone() else { panic!("no package") };
    b.payload_len = PayloadLen(payload.len() as u32);
    records[0] = (b.into(), payload);
    let mut pool = SimPool::new("l08");
    pool.receive(&put_together(&records), &ReceiveSpec { trust_props: true, ..to("l08/e") }).unwrap();
    assert_eq!(pool.prop("l08/e", "keylocation").0, "prompt");
    assert!(pool.opens("l08/e", &KEY));
}

/// A clone's large blocks are those of its origin, wherever it is put.
#[test]
fn l09_large_blocks_of_a_clone_are_its_origins() {
    let mut pool = SimPool::new("l09");
    let full = put_together(&[(begin("a@s", 7, 0, feature::LARGE_BLOCKS).into(), vec![]), end(7)]);
    pool.receive(&full, &to("l09/large")).unwrap();
    let plain = put_together(&[(begin("b@s", 8, 0, 0).into(), vec![]), end(8)]);
    pool.receive(&plain, &to("l09/small")).unwrap();
    assert!(pool.feature_active("l09/large@s", Feature::LARGE_BLOCKS));
    let clone = |from, bits| {
        let mut b = begin("c@t", 9, from, bits);
        b.flags |= begin_flag::CLONE;
        put_together(&[(b.into(), vec![]), end(9)])
    };
    // Below a parent without any: still the origin counts.
    match refused(&mut pool, &clone(7, 0), &to("l09/small/c")) {
        ReceiveError::LargeBlockMismatch(name) => assert_eq!(name, "l09/large@s"),
        e => panic!("{e:?}"),
    }
    pool.receive(&clone(7, feature::LARGE_BLOCKS), &to("l09/small/c")).unwrap();
    pool.receive(&clone(8, 0), &to("l09/large/c")).unwrap();
}

/// Dnodes received raw are walked before any MAC can be checked: whatever they claim, that ends well.
#[test]
fn l12_dnodes_from_strangers_are_bounded_first() {
    let mut far = SimPool::new("l12far");
    far.encrypted("l12far/e", RAW_FORM, &KEY);
    far.file("l12far/e", 40, 4096, 0..4, 1);
    far.snapshot("l12far/e@s");
    let stream = far.send(None, "l12far/e@s", RAW).unwrap();
    let records: Records = take_apart(&stream).into_iter().map(|(_, r, p)| (r, p)).collect();
    let (mut refused, mut locked) = (0, 0);
    let mut pool = SimPool::new("l12");
    let base = pool.disk.fork();
    for seed in 0..120_u64 {
        let mut changed = records.clone();
        let dice = crate::make::noise(seed, 16);
        let objects: Vec<usize> =
            (0..changed.len()).filter(|i| matches!(changed[*i].0, Record::Object(_))).collect();
        let at = objects[usize::from(dice[0]) % objects.len()];
        let Record::Object(o) = &mut changed[at].0 else { panic!("no OBJECT") };
        match dice[1] % 7 {
            0 => o.nlevels = dice[2],
            1 => o.nblkptr = dice[2],
            2 => o.dn_slots = dice[2],
            3 => o.maxblkid = u64::from(dice[2]) << (dice[3] % 56),
            4 => o.indblkshift = dice[2] % 32,
            5 => o.bonus_type = u32::from(dice[2]),
            _ => o.blksz = u32::from(dice[2]) * 512,
        }
        pool.disk = std::sync::Arc::new(base.fork());
        pool.reopen();
        match pool.receive(&put_together(&changed), &to("l12/e")) {
            Err(e) => {
                refused += 1;
                assert!(matches!(e, ReceiveError::Record { .. }), "{e:?}");
                assert_eq!(pool.names(), ["l12"]);
            }
            Ok(_) => {
                // Taken as it came; with the key it either opens as it was sent, or is seen to be wrong.
                pool.reopen();
                pool.unlock("l12/e", &KEY).unwrap();
                let (io, dsl) = pool.pool().parts();
                let r = dsl.lookup_dataset(io, "l12/e@s").unwrap();
                let ds = dsl.dataset(io, r.obj).unwrap();
                if let Ok(os) = Objset::open(io, r.obj, &ds.bp, Want::Logical) {
                    let mut at = icecore_format::ObjectId(0);
                    while let Ok(Some(next)) = os.next_object(io, at) {
                        at = next;
                    }
                }
                locked += 1;
            }
        }
    }
    assert!(refused > 20 && locked > 0, "{refused} refused, {locked} taken");
}
