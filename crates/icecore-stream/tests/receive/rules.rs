//! Every rule of records, hit once at least: a record that breaks it is refused with its number, its field,
//! what it holds and what the limit is, and what was applied before it is removed again.

use crate::make::{
    FILE, Records, begin, end, free, free_objects, put_together, range, raw_full, raw_object, raw_write,
};
use crate::support::{SimPool, to};
use icecore_format::ObjectType;
use icecore_format::stream::{
    Object, ObjectRange, Record, Redact, Spill, Write, WriteByref, WriteEmbedded, begin_flag, feature,
    record_flag,
};
use icecore_stream::receive::ReceiveError;
use icecore_stream::receive::rules::Rule;
use std::collections::BTreeSet;

const G: u64 = 7;

fn object() -> Object {
    Object { object: 9, object_type: FILE, blksz: 4096, dn_slots: 1, toguid: G, ..Object::default() }
}
fn write() -> Write {
    Write { object: 9, object_type: FILE, logical_size: 4096, toguid: G, ..Write::default() }
}
fn spill() -> Spill {
    Spill { object: 9, length: 512, toguid: G, ..Spill::default() }
}
fn embedded() -> WriteEmbedded {
    let b = WriteEmbedded { object: 9, length: 4096, toguid: G, compression: 15, ..WriteEmbedded::default() };
    WriteEmbedded { lsize: 4096, psize: 40, ..b }
}

/// The record with as many bytes of payload as it announces.
fn with_payload(r: impl Into<Record>) -> (Record, Vec<u8>) {
    let r = r.into();
    let len = r.payload_len() as usize;
    (r, vec![0; len])
}

struct Case {
    want: Rule,
    field: &'static str,
    stream: Records,
}

/// Cases of streams that are not raw: BEGIN with `bits`, the good `first`, then the one to be refused.
fn plain(bits: u64, first: &[Record], bad: impl Into<Record>, want: Rule, field: &'static str) -> Case {
    let mut stream = vec![(begin("a@s", G, 0, bits).into(), Vec::new())];
    stream.extend(first.iter().cloned().map(with_payload));
    stream.push(with_payload(bad));
    stream.push(end(G));
    Case { want, field, stream }
}

fn object_cases() -> Vec<Case> {
    use Rule::*;
    let p = |o: Object, want, field| plain(feature::LARGE_DNODE, &[], o, want, field);
    let sa = u32::from(ObjectType::SA.0);
    let mut no_spill =
        p(Object { flags: record_flag::OBJECT_SPILL, ..object() }, SpillFlagWithoutBegin, "OBJECT flags");
    if let Record::Begin(b) = &mut no_spill.stream[0].0 {
        b.flags = begin_flag::FREERECORDS;
    }
    vec![
        no_spill,
        p(Object { object: 0, ..object() }, ObjectNumber, "OBJECT object"),
        p(Object { object: 1 << 48, ..object() }, ObjectNumber, "OBJECT object"),
        p(Object { object_type: 0, ..object() }, TypeNone, "OBJECT type"),
        p(Object { object_type: 54, ..object() }, TypeInvalid, "OBJECT type"),
        p(Object { object_type: 1 << 31, ..object() }, TypeInvalid, "OBJECT type"),
        p(Object { bonus_type: 255, ..object() }, TypeInvalid, "OBJECT bonus type"),
        p(Object { bonuslen: 8, ..object() }, BonusPair, "OBJECT bonus type"),
        p(Object { bonus_type: 17, ..object() }, BonusPair, "OBJECT bonus type"),
        plain(0, &[], Object { dn_slots: 2, ..object() }, NeedsFeature, "OBJECT dnode slots"),
        p(Object { dn_slots: 33, object: 32, ..object() }, AboveMaximum, "OBJECT dnode slots"),
        p(Object { dn_slots: 24, ..object() }, AboveMaximum, "OBJECT slots"),
        p(Object { object: (1 << 48) - 1, dn_slots: 2, ..object() }, Overflow, "OBJECT object"),
        p(Object { blksz: 4097, ..object() }, NotMultiple, "OBJECT block size"),
        p(Object { blksz: 0, ..object() }, BelowMinimum, "OBJECT block size"),
        p(Object { blksz: 256 << 10, ..object() }, NeedsFeature, "OBJECT block size"),
        plain(
            feature::LARGE_BLOCKS,
            &[],
            Object { blksz: 32 << 20, ..object() },
            AboveMaximum,
            "OBJECT block size",
        ),
        p(Object { checksum_type: 15, ..object() }, ChecksumInvalid, "OBJECT checksum"),
        p(Object { compress: 17, ..object() }, CompressInvalid, "OBJECT compression"),
        p(Object { flags: 2, ..object() }, FlagsInvalid, "OBJECT flags"),
        p(Object { raw_bonuslen: 8, ..object() }, MustBeZero, "OBJECT raw bonus length"),
        p(Object { nblkptr: 1, ..object() }, MustBeZero, "OBJECT block pointers"),
        p(Object { indblkshift: 17, ..object() }, MustBeZero, "OBJECT indirect block shift"),
        p(Object { nlevels: 1, ..object() }, MustBeZero, "OBJECT levels"),
        p(Object { bonus_type: sa, bonuslen: 328, ..object() }, AboveMaximum, "OBJECT bonus length"),
    ]
}

fn data_cases() -> Vec<Case> {
    use Rule::*;
    let c = feature::COMPRESSED | feature::LZ4;
    let o = [Record::from(object())];
    let p = |w: Write, want, field| plain(c, &o, w, want, field);
    let compressed = || Write { compression_type: 15, compressed_size: 512, ..write() };
    let wrong_order = [object().into(), Write { offset: 8192, ..write() }.into()];
    let odd = [Record::from(Object { blksz: 1536, ..object() })];
    vec![
        p(Write { object: 0, ..write() }, ObjectNumber, "WRITE object"),
        p(Write { object: 10, ..write() }, NoObject, "WRITE object"),
        p(Write { object_type: 99, ..write() }, TypeInvalid, "WRITE type"),
        p(Write { checksum_type: 200, ..write() }, ChecksumInvalid, "WRITE checksum"),
        p(Write { logical_size: 0, ..write() }, BelowMinimum, "WRITE logical size"),
        p(Write { logical_size: 1 << 20, ..write() }, NeedsFeature, "WRITE logical size"),
        p(Write { offset: u64::MAX - 5, ..write() }, Overflow, "WRITE offset"),
        plain(0, &o, compressed(), NeedsFeature, "WRITE compression"),
        plain(feature::COMPRESSED, &o, compressed(), NeedsFeature, "WRITE compression"),
        p(Write { compression_type: 16, ..compressed() }, NeedsFeature, "WRITE compression"),
        p(Write { compression_type: 90, ..compressed() }, CompressInvalid, "WRITE compression"),
        p(Write { compressed_size: 0, ..compressed() }, MustNotBeZero, "WRITE compressed size"),
        p(Write { compressed_size: 4608, ..compressed() }, AboveMaximum, "WRITE compressed size"),
        p(Write { compressed_size: 4096, ..write() }, MustBeZero, "WRITE compressed size"),
        plain(c, &wrong_order, write(), OutOfOrder, "WRITE offset"),
        plain(c, &odd, Write { offset: 1536, logical_size: 1536, ..write() }, NotPowerOfTwo, "WRITE offset"),
        p(Write { offset: 512, logical_size: 1024, ..compressed() }, Payload, "WRITE payload"),
        plain(c, &o, spill(), NotEqual, "SPILL object's bonus type"),
        plain(c, &o, Spill { object: 10, ..spill() }, NoObject, "SPILL object"),
        plain(c, &o, Spill { length: 100, ..spill() }, BelowMinimum, "SPILL length"),
        plain(c, &o, Spill { length: 600, ..spill() }, NotMultiple, "SPILL length"),
        plain(c, &o, Spill { compressed_size: 512, ..spill() }, MustBeZero, "SPILL compressed size"),
        plain(c, &o, Spill { compression_type: 15, ..spill() }, MustBeZero, "SPILL compression"),
    ]
}

fn other_cases() -> Vec<Case> {
    use Rule::*;
    let e = feature::EMBED_DATA | feature::LZ4;
    let o = [Record::from(object())];
    let p = |w: WriteEmbedded, want, field| plain(e, &o, w, want, field);
    let f = |object, offset, length| free(G, object, offset, length).0;
    let none: &[Record] = &[];
    let byref = WriteByref { object: 9, toguid: G, ..WriteByref::default() };
    let redact = Redact { object: 0, toguid: G, ..Redact::default() };
    let block = ObjectRange { numslots: 32, toguid: G, ..ObjectRange::default() };
    vec![
        plain(0, &o, embedded(), NeedsFeature, "WRITE_EMBEDDED object"),
        plain(feature::EMBED_DATA, &o, embedded(), NeedsFeature, "WRITE_EMBEDDED compression"),
        p(WriteEmbedded { object: 0, ..embedded() }, ObjectNumber, "WRITE_EMBEDDED object"),
        p(WriteEmbedded { length: 1 << 30, ..embedded() }, NeedsFeature, "WRITE_EMBEDDED length"),
        p(WriteEmbedded { lsize: 4097, ..embedded() }, AboveMaximum, "WRITE_EMBEDDED logical size"),
        p(WriteEmbedded { psize: 113, ..embedded() }, AboveMaximum, "WRITE_EMBEDDED payload size"),
        p(WriteEmbedded { psize: 0, ..embedded() }, BelowMinimum, "WRITE_EMBEDDED payload size"),
        p(WriteEmbedded { compression: 2, ..embedded() }, NotEqual, "WRITE_EMBEDDED logical size"),
        p(WriteEmbedded { lsize: 39, ..embedded() }, BelowMinimum, "WRITE_EMBEDDED logical size"),
        p(WriteEmbedded { offset: u64::MAX, ..embedded() }, Overflow, "WRITE_EMBEDDED offset"),
        p(WriteEmbedded { etype: 1, ..embedded() }, NotEqual, "WRITE_EMBEDDED embedded type"),
        plain(0, none, f(0, 0, 1), ObjectNumber, "FREE object"),
        plain(0, none, f(9, 5, u64::MAX - 1), Overflow, "FREE offset"),
        plain(0, none, f(9, 5, u64::MAX), NoObject, "FREE object"),
        plain(0, none, redact, ObjectNumber, "REDACT object"),
        plain(0, none, free_objects(G, 8, u64::MAX - 3).0, Overflow, "FREEOBJECTS first object"),
        plain(0, none, block, RawOnly, "OBJECT_RANGE"),
        plain(0, none, byref, Byref, "WRITE_BYREF"),
        plain(0, &o, Write { toguid: 8, ..write() }, ToGuid, "toguid"),
        plain(
            feature::LARGE_DNODE,
            &[Object { object: 8, dn_slots: 2, ..object() }.into()],
            object(),
            SlotInUse,
            "OBJECT object",
        ),
    ]
}

/// The good raw stream with one more record before its END.
fn raw(bad: (Record, Vec<u8>), want: Rule, field: &'static str) -> Case {
    let mut stream = raw_full();
    let last = stream.len() - 1;
    stream.insert(last, bad);
    Case { want, field, stream }
}

fn raw_cases() -> Vec<Case> {
    use Rule::*;
    let g = 0x1000;
    let o = |change: &dyn Fn(&mut Object), want, field| {
        let (r, payload) = raw_object(g, 41, 4096, 1, 0);
        let Record::Object(mut o) = r else { panic!() };
        change(&mut o);
        let mut payload = payload;
        payload.resize(Record::from(o.clone()).payload_len() as usize, 0);
        raw((o.into(), payload), want, field)
    };
    let w = |change: &dyn Fn(&mut Write), want, field| {
        let (r, _) = raw_write(g, 39, 0, 4096, 4096);
        let Record::Write(mut w) = r else { panic!() };
        change(&mut w);
        raw(with_payload(w), want, field)
    };
    let r = |change: &dyn Fn(&mut ObjectRange), want, field| {
        let Record::ObjectRange(mut r) = range(g, 64, 1).0 else { panic!() };
        change(&mut r);
        raw((r.into(), Vec::new()), want, field)
    };
    let emb = WriteEmbedded { toguid: g, ..embedded() };
    vec![
        o(&|o| o.object = 64, OutsideRange, "OBJECT object"),
        o(&|o| o.flags = 8, FlagsInvalid, "OBJECT flags"),
        o(&|o| o.raw_bonuslen = 160, BelowMinimum, "OBJECT raw bonus length"),
        o(&|o| o.raw_bonuslen = 328, AboveMaximum, "OBJECT raw bonus length"),
        o(&|o| o.flags = record_flag::OBJECT_SPILL, AboveMaximum, "OBJECT raw bonus length"),
        o(&|o| o.indblkshift = 11, BelowMinimum, "OBJECT indirect block shift"),
        o(&|o| o.indblkshift = 18, AboveMaximum, "OBJECT indirect block shift"),
        o(&|o| o.nlevels = 0, BelowMinimum, "OBJECT levels"),
        o(&|o| o.nlevels = 13, AboveMaximum, "OBJECT levels"),
        o(&|o| o.nblkptr = 4, AboveMaximum, "OBJECT block pointers"),
        o(&|o| o.nblkptr = 3, NblkptrMismatch, "OBJECT block pointers"),
        o(&|o| o.maxblkid = 1, TreeTooLow, "OBJECT last block"),
        o(&|o| o.maxblkid = u64::MAX, TreeTooLow, "OBJECT last block"),
        o(&|o| (o.blksz, o.maxblkid, o.nlevels) = (1536, 1, 2), NotPowerOfTwo, "OBJECT block size"),
        w(&|w| w.compressed_size = 0, MustNotBeZero, "WRITE compressed size"),
        w(&|w| w.logical_size = 8192, NotOneBlock, "WRITE offset"),
        w(&|w| w.offset = 512, NotOneBlock, "WRITE offset"),
        w(&|w| w.offset = 4096, BeyondLastBlock, "WRITE offset"),
        w(&|w| w.object = 3, OutOfOrder, "WRITE object"),
        r(&|r| r.numslots = 31, NotEqual, "OBJECT_RANGE slots"),
        r(&|r| r.firstobj = 63, NotMultiple, "OBJECT_RANGE first object"),
        r(&|r| r.firstobj = 1 << 48, Overflow, "OBJECT_RANGE first object"),
        r(&|r| r.flags = record_flag::RAW_BYTESWAP, ForeignDnodes, "OBJECT_RANGE first object"),
        raw(with_payload(emb), NonRawOnly, "WRITE_EMBEDDED"),
        raw(free(g, 39, 100, u64::MAX), NotOneBlock, "FREE offset"),
        raw(with_payload(Spill { object: 39, toguid: g, ..spill() }), MustNotBeZero, "SPILL compressed size"),
    ]
}

#[test]
fn every_rule_is_hit() {
    let mut pool = SimPool::new("rules");
    let before = pool.names();
    let mut hit = BTreeSet::new();
    // Two that need more than a record: see the tests below, and the reader's order of records.
    hit.extend([Rule::BlockSizeShrinks, Rule::Unexpected]);
    let cases = [object_cases(), data_cases(), other_cases(), raw_cases()];
    for case in cases.into_iter().flatten() {
        let number = case.stream.len() as u64 - 2;
        let got = pool.receive(&put_together(&case.stream), &to("rules/x"));
        match got {
            Err(ReceiveError::Record { number: n, refusal, .. }) => {
                assert_eq!((refusal.rule, refusal.field, n), (case.want, case.field, number), "{refusal}");
                assert!(!refusal.to_string().is_empty());
            }
            other => panic!("{:?} {}: {other:?}", case.want, case.field),
        }
        assert_eq!(pool.names(), before, "{:?} {}", case.want, case.field);
        hit.insert(case.want);
    }
    let missed: Vec<_> = Rule::ALL.iter().filter(|r| !hit.contains(r)).collect();
    assert!(missed.is_empty(), "{missed:?}");
    pool.judge();
}
