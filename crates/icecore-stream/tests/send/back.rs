//! There and back: what we received raw from OpenZFS's streams, sent raw again, is what OpenZFS sent.
//!
//! This binds the two halves together: the portable MAC, the dnodes' ciphertext, levels and block ids must
//! all have survived, or OpenZFS could not read what is restored from our pools.

use crate::sim::{SimPool, to};
use crate::support::*;
use icecore_format::nvlist::NvList;
use icecore_format::stream::Record;
use icecore_stream::send::{Packing, resolve, send_one};
use icecore_stream::token::ResumeToken;
use std::collections::BTreeMap;

/// Records that carry contents, and the ranges without, joined.
#[derive(PartialEq, Debug)]
struct Essence {
    key: Option<String>,
    records: Vec<(Record, Vec<u8>)>,
    /// By object: first byte, and the one behind the last.
    free: BTreeMap<u64, Vec<(u64, u64)>>,
}

fn essence(bytes: &[u8]) -> Essence {
    let mut out = Essence { key: None, records: Vec::new(), free: BTreeMap::new() };
    for (record, payload) in records_of(bytes) {
        match record {
            Record::Begin(_) => {
                let list = NvList::decode(&payload).unwrap().0;
                out.key = list.list("crypt_keydata").map(ToString::to_string);
            }
            Record::Free(f) => {
                let end = f.offset.saturating_add(f.length);
                out.free.entry(f.object).or_default().push((f.offset, end));
            }
            Record::FreeObjects(_) | Record::End(_) => {}
            other => out.records.push((other, payload)),
        }
    }
    for ranges in out.free.values_mut() {
        ranges.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (from, to) in ranges.drain(..) {
            match joined.last_mut() {
                Some(last) if last.1 >= from => last.1 = last.1.max(to),
                _ => joined.push((from, to)),
            }
        }
        *ranges = joined;
    }
    out
}

fn back(pool: &mut SimPool, from: Option<&str>, to: &str) -> Vec<u8> {
    let (io, dsl) = pool.pool().parts();
    let source = resolve(io, dsl, &spec(from, to, RAW)).unwrap();
    let mut out = Vec::new();
    send_one(io, &source, RAW, Packing::Native, &mut out, &mut |_| {}).unwrap();
    out
}

fn assert_same_essence(made: &[u8], want: &[u8], what: &str) {
    let (made, want) = (essence(made), essence(want));
    assert_eq!(made.key, want.key, "{what}");
    assert_eq!(made.records.len(), want.records.len(), "{what}");
    for (i, (m, w)) in made.records.iter().zip(&want.records).enumerate() {
        assert_eq!(m.0, w.0, "{what}: record {i}");
        assert!(m.1 == w.1, "{what}: payload of record {i}, {:?}", m.0);
    }
    assert_eq!(made.free, want.free, "{what}");
}

#[test]
fn the_cold_backup_goes_home() {
    let mut pool = SimPool::new("back");
    let main = main_pool();
    for dataset in ["docs", "photos", "vol"] {
        let there = |snap: &str| format!("main/encrypted/{dataset}@{snap}");
        let here = |snap: &str| format!("back/{dataset}@{snap}");
        let full = send(&main, &spec(None, &there("root"), RAW)).unwrap();
        let next = send(&main, &spec(Some(&there("root")), &there("newsnapshot"), RAW)).unwrap();
        for stream in [&full, &next] {
            pool.receive(stream, &to(&format!("back/{dataset}"))).unwrap();
        }
        pool.reopen();
        assert_same_essence(&back(&mut pool, None, &here("root")), &full, dataset);
        let again = back(&mut pool, Some(&here("root")), &here("newsnapshot"));
        assert_same_essence(&again, &next, dataset);
        let full = send(&main, &spec(None, &there("newsnapshot"), RAW)).unwrap();
        assert_same_essence(&back(&mut pool, None, &here("newsnapshot")), &full, dataset);
    }
}

#[test]
fn holes_and_reused_objects_go_home() {
    let Some(image) = zoo("send/holes.img") else { return };
    let from_openzfs = open(&[&image]);
    let mut pool = SimPool::new("back2");
    let there = |snap: &str| format!("holes/enc@{snap}");
    let here = |snap: &str| format!("back2/enc@{snap}");
    let mut before = None;
    for snap in ["a", "b", "c", "d"] {
        let from = before.map(there);
        let stream = send(&from_openzfs, &spec(from.as_deref(), &there(snap), RAW)).unwrap();
        pool.receive(&stream, &to("back2/enc")).unwrap();
        pool.reopen();
        let again = back(&mut pool, before.map(here).as_deref(), &here(snap));
        assert_same_essence(&again, &stream, &format!("{before:?} to {snap}"));
        let full = send(&from_openzfs, &spec(None, &there(snap), RAW)).unwrap();
        assert_same_essence(&back(&mut pool, None, &here(snap)), &full, &format!("all of {snap}"));
        before = Some(snap);
    }
}

#[test]
fn a_token_of_ours_resumes_a_send() {
    let main = main_pool();
    let name = "main/encrypted/photos@root";
    let whole = send(&main, &spec(None, name, RAW)).unwrap();
    let mut pool = SimPool::new("back3");
    let mut into = to("back3/photos");
    into.resumable = true;
    into.commit_bytes = 1 << 20;
    pool.receive(&whole[..whole.len() / 2], &into).unwrap_err();
    let (io, dsl) = pool.pool().parts();
    let head = dsl.lookup_head(io, "back3/photos").unwrap();
    let text = dsl.resume_token(io, head).unwrap().unwrap();
    let token = ResumeToken::parse(&text).unwrap();
    assert_eq!((token.toname.as_str(), token.raw), (name, true));
    let (spec, source) = icecore_stream::send::resolve_token(main.io(), &main.dsl, &token).unwrap();
    let mut rest = Vec::new();
    send_one(main.io(), &source, spec.flags, Packing::Native, &mut rest, &mut |_| {}).unwrap();
    assert!(rest.len() < whole.len());
    pool.receive(&rest, &into).unwrap();
    pool.reopen();
    assert_same_essence(&back(&mut pool, None, "back3/photos@root"), &whole, "resumed");
}
