//! Streams of big-endian machines: the same contents as those of little-endian ones.

use crate::damage::single;
use crate::make::{put_together, take_apart};
use crate::support::{SimPool, kinds, to};
use icecore_format::ObjectType;
use icecore_format::byteswap::swap_words;
use icecore_format::fletcher::Fletcher4;
use icecore_format::object_type::Bswap;
use icecore_format::stream::Record;

/// First word of a micro ZAP (`ZBT_MICRO`), of a fat ZAP's leaf (`ZBT_LEAF`); zap_impl.h.
const MICRO: u64 = (1 << 63) + 3;
const LEAF: u64 = 1 << 63;

/// Contents as a big-endian machine has them; written anew here, as a judge of what turns them back.
fn to_big(kind: ObjectType, bytes: &mut [u8]) {
    match kind.bswap() {
        Bswap::U8 => {}
        Bswap::U64 => swap_words::<8>(bytes),
        Bswap::Zap => zap(bytes),
        other => panic!("{other:?} in this stream"),
    }
}

/// Reverses the `len` bytes at `at`, if they are there.
fn swap_at(bytes: &mut [u8], at: usize, len: usize) {
    if let Some(word) = bytes.get_mut(at..at.saturating_add(len)) {
        word.reverse();
    }
}

fn swap_all(bytes: &mut [u8], fields: &[(usize, usize)]) {
    for (at, len) in fields {
        swap_at(bytes, *at, *len);
    }
}

/// `zap_byteswap`, zap.c: the first word tells the kind, in whichever order.
fn zap(bytes: &mut [u8]) {
    let first = bytes.get(..8).and_then(|b| <[u8; 8]>::try_from(b).ok()).unwrap_or_default();
    let is = |kind: u64| u64::from_le_bytes(first) == kind || u64::from_be_bytes(first) == kind;
    if is(MICRO) {
        micro_zap(bytes);
    } else if is(LEAF) {
        zap_leaf(bytes);
    } else {
        swap_words::<8>(bytes); // the header with its pointer table, or a block of pointers
    }
}

/// A head of three words in 64 bytes, then entries of 64: value, collision differentiator, name.
fn micro_zap(bytes: &mut [u8]) {
    let mut chunks = bytes.chunks_exact_mut(64);
    if let Some(head) = chunks.next() {
        swap_all(head, &[(0, 8), (8, 8), (16, 8)]);
    }
    for entry in chunks {
        swap_all(entry, &[(0, 8), (8, 4)]);
    }
}

/// `zap_leaf_byteswap`: head, hash table, chunks of 24 bytes by type. Array chunks hold big-endian bytes
/// whatever the block's order is.
fn zap_leaf(bytes: &mut [u8]) {
    const HEAD: usize = 48;
    const CHUNK: usize = 24;
    const ENTRY: u8 = 252;
    let hash = bytes.len().next_power_of_two() >> 5;
    let hash_len = hash.saturating_mul(2);
    swap_all(bytes, &[(0, 8), (16, 8), (24, 4), (28, 2), (30, 2), (32, 2), (34, 2)]);
    if let Some(table) = bytes.get_mut(HEAD..HEAD.saturating_add(hash_len)) {
        swap_words::<2>(table);
    }
    let chunks = bytes.get_mut(HEAD.saturating_add(hash_len)..).unwrap_or(&mut []);
    for chunk in chunks.chunks_exact_mut(CHUNK) {
        if chunk.first() == Some(&ENTRY) {
            swap_all(chunk, &[(2, 2), (4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 8)]);
        } else {
            swap_at(chunk, 22, 2); // free and array chunks: the next one
        }
    }
}

/// Offsets and lengths of the numbers in a record, after type and payload length.
fn numbers(r: &Record) -> &'static [(usize, usize)] {
    match r {
        Record::Begin(_) => &[(8, 8), (16, 8), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8)],
        Record::Object(_) => &[(8, 8), (16, 4), (20, 4), (24, 4), (28, 4), (36, 4), (40, 8), (56, 8)],
        Record::FreeObjects(_) | Record::ObjectRange(_) => &[(8, 8), (16, 8), (24, 8)],
        Record::Write(_) => &[
            (8, 8),
            (16, 4),
            (24, 8),
            (32, 8),
            (40, 8),
            (56, 8),
            (64, 8),
            (72, 8),
            (80, 8),
            (88, 8),
            (96, 8),
        ],
        Record::Free(_) | Record::Redact(_) => &[(8, 8), (16, 8), (24, 8), (32, 8)],
        Record::End(_) => &[(8, 8), (16, 8), (24, 8), (32, 8), (40, 8)],
        Record::Spill(_) => &[(8, 8), (16, 8), (24, 8), (40, 8), (84, 4)],
        Record::WriteEmbedded(_) => &[(8, 8), (16, 8), (24, 8), (32, 8), (48, 4), (52, 4)],
        Record::WriteByref(_) => &[],
    }
}

/// The stream as a big-endian machine sends it.
fn big_endian(records: &[(Record, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut sum = Fletcher4::ZERO;
    let put = |to: &mut [u8], words: [u64; 4]| {
        for (to, w) in to.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&w.to_be_bytes());
        }
    };
    for (r, payload) in records {
        let mut head = r.encode();
        for (at, len) in [(0, 4), (4, 4)].iter().chain(numbers(r)) {
            head[*at..at + len].reverse();
        }
        let mut payload = payload.clone();
        let kind = |n: u32| ObjectType(u8::try_from(n).unwrap());
        match r {
            Record::Begin(_) => sum = Fletcher4::ZERO,
            Record::End(_) => put(&mut head[8..40], sum.words()),
            Record::Object(o) => to_big(kind(o.bonus_type), &mut payload),
            Record::Write(w) => to_big(kind(w.object_type), &mut payload),
            _ => {}
        }
        sum.update_swapped(&head[..280]);
        if !matches!(r, Record::Begin(_)) {
            put(&mut head[280..], sum.words());
        }
        sum.update_swapped(&head[280..]);
        sum.update_swapped(&payload);
        out.extend(head);
        out.extend(payload);
    }
    out
}

#[test]
fn a_big_endian_stream_gives_the_same() {
    let records = single(&kinds());
    let little = put_together(&records);
    let big = big_endian(&records);
    assert_ne!(little, big);
    let back: Vec<Record> = take_apart(&big).into_iter().map(|(_, r, _)| r).collect();
    let mut want: Vec<Record> = records.iter().map(|(r, _)| r.clone()).collect();
    let (Some(Record::End(a)), Some(Record::End(b))) = (want.last_mut(), back.last()) else { panic!() };
    a.checksum = b.checksum; // of other bytes
    assert_eq!(back, want);
    let [one, two] = [&little, &big].map(|stream| {
        let mut pool = SimPool::new("endian");
        pool.receive(stream, &to("endian/x")).unwrap();
        pool.judge();
        pool.contents("endian/x")
    });
    assert_eq!(one, two);
}
