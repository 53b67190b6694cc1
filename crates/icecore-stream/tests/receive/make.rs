//! Streams taken apart and put together: for cuts, flips and resumed ones, and streams from nothing.

use icecore_format::fletcher::Fletcher4;
use icecore_format::stream::{
    Begin, End, Free, FreeObjects, Object, ObjectRange, PayloadLen, Record, SUBSTREAM, StreamReader,
    StreamWriter, ToName, Write, begin_flag, feature,
};
use icecore_format::{NvList, ObjectType};

pub type Records = Vec<(Record, Vec<u8>)>;

/// All records with the offsets at which they begin.
pub fn take_apart(stream: &[u8]) -> Vec<(u64, Record, Vec<u8>)> {
    let mut reader = StreamReader::new(stream, Fletcher4::of);
    let mut out = Vec::new();
    let mut payload = Vec::new();
    while let Some(e) = reader.next(&mut payload).unwrap() {
        out.push((e.offset, e.record, payload.clone()));
    }
    out
}

/// A stream with right checksums.
pub fn put_together(records: &[(Record, Vec<u8>)]) -> Vec<u8> {
    let mut w = StreamWriter::new(Vec::new(), Fletcher4::of);
    for (r, payload) in records {
        w.write(r, payload).unwrap();
    }
    w.into_inner()
}

pub fn packed(list: &NvList) -> Vec<u8> {
    let mut out = list.encode_xdr();
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

/// What a sender makes of `records` for the resume point (object, offset).
pub fn resumed(records: &[(Record, Vec<u8>)], object: u64, offset: u64) -> Records {
    let mut out = Records::new();
    let mut range: Option<(Record, Vec<u8>)> = None;
    for (r, payload) in records {
        match r {
            Record::Begin(b) => {
                let mut list =
                    if payload.is_empty() { NvList::new() } else { NvList::decode(payload).unwrap().0 };
                list.set("resume_object", object);
                list.set("resume_offset", offset);
                let mut b = b.clone();
                b.set_features(b.features() | feature::RESUMING);
                let payload = packed(&list);
                b.payload_len = PayloadLen(payload.len() as u32);
                out.push((b.into(), payload));
            }
            Record::ObjectRange(o) if o.firstobj <= object && object < o.firstobj + 32 => {
                range = Some((r.clone(), payload.clone()));
            }
            Record::ObjectRange(o) if o.firstobj < object => {}
            Record::Object(o) if o.object < object => {}
            Record::Free(o) if o.object < object => {}
            Record::Spill(o) if o.object < object => {}
            Record::WriteEmbedded(o) if (o.object, o.offset) < (object, offset) => {}
            Record::Write(o) if (o.object, o.offset) < (object, offset) => {}
            Record::FreeObjects(o) if o.firstobj < object => {}
            _ => {
                out.extend(range.take());
                out.push((r.clone(), payload.clone()));
            }
        }
    }
    out
}

/// Bytes that look like nothing.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

pub fn begin(toname: &str, toguid: u64, fromguid: u64, features: u64) -> Begin {
    let mut b = Begin::new(SUBSTREAM, features | feature::SA_SPILL);
    (b.toguid, b.fromguid, b.creation_time, b.objset_type) = (toguid, fromguid, 1_600_000_000, 2);
    b.flags = begin_flag::SPILL_BLOCK | begin_flag::FREERECORDS;
    b.toname = ToName::new(toname).unwrap();
    b
}

pub const FILE: u32 = ObjectType::PLAIN_FILE_CONTENTS.0 as u32;

/// `crypt_keydata` of a key that nobody has.
pub fn keydata(maxblkid: u64, ivsets: (u64, u64), wrapping: u8) -> NvList {
    let mut k = NvList::new();
    k.set("DSL_CRYPTO_SUITE", 8_u64).set("DSL_CRYPTO_GUID", 0xabc_u64).set("DSL_CRYPTO_VERSION", 1_u64);
    k.set_u8_array("DSL_CRYPTO_MASTER_KEY_1", &[wrapping; 32])
        .set_u8_array("DSL_CRYPTO_HMAC_KEY_1", &[2; 64]);
    k.set_u8_array("DSL_CRYPTO_IV", &[wrapping; 12]).set_u8_array("DSL_CRYPTO_MAC", &[4; 16]);
    k.set_u8_array("portable_mac", &[5; 32]);
    k.set("keyformat", 3_u64).set("pbkdf2iters", 350_000_u64).set("pbkdf2salt", 77_u64);
    k.set("mdn_checksum", 0_u64).set("mdn_compress", 0_u64).set("mdn_nlevels", 6_u64);
    k.set("mdn_blksz", 16384_u64).set("mdn_indblkshift", 17_u64).set("mdn_nblkptr", 3_u64);
    k.set("mdn_maxblkid", maxblkid).set("to_ivset_guid", ivsets.1).set("from_ivset_guid", ivsets.0);
    k
}

/// Opens a raw stream.
pub fn raw_begin(toname: &str, guids: (u64, u64), ivsets: (u64, u64), wrapping: u8) -> (Record, Vec<u8>) {
    let bits =
        feature::RAW | feature::COMPRESSED | feature::LZ4 | feature::LARGE_BLOCKS | feature::LARGE_DNODE;
    let mut b = begin(toname, guids.1, guids.0, bits);
    let payload = packed(&NvList::new().with("crypt_keydata", keydata(4, ivsets, wrapping)));
    b.payload_len = PayloadLen(payload.len() as u32);
    (b.into(), payload)
}

pub fn range(toguid: u64, firstobj: u64, seed: u8) -> (Record, Vec<u8>) {
    let r = ObjectRange {
        firstobj,
        numslots: 32,
        toguid,
        salt: [seed; 8],
        iv: [seed; 12],
        mac: [seed; 16],
        ..ObjectRange::default()
    };
    (r.into(), Vec::new())
}

/// A raw file.
pub fn raw_object(toguid: u64, object: u64, blksz: u32, nlevels: u8, maxblkid: u64) -> (Record, Vec<u8>) {
    let o = Object {
        object,
        object_type: FILE,
        bonus_type: u32::from(ObjectType::SA.0),
        blksz,
        bonuslen: 168,
        raw_bonuslen: 320,
        dn_slots: 1,
        toguid,
        indblkshift: 17,
        nlevels,
        nblkptr: 1,
        maxblkid,
        ..Object::default()
    };
    (o.into(), noise(object ^ toguid, 320))
}

pub fn raw_write(toguid: u64, object: u64, offset: u64, blksz: u64, psize: usize) -> (Record, Vec<u8>) {
    let w = Write {
        object,
        object_type: FILE,
        offset,
        logical_size: blksz,
        toguid,
        checksum_type: 7,
        compression_type: if psize as u64 == blksz { 2 } else { 15 },
        compressed_size: psize as u64,
        salt: [1; 8],
        iv: [object as u8; 12],
        mac: [offset as u8; 16],
        ..Write::default()
    };
    (w.into(), noise(object + offset + toguid, psize))
}

pub fn free(toguid: u64, object: u64, offset: u64, length: u64) -> (Record, Vec<u8>) {
    (Free { object, offset, length, toguid }.into(), Vec::new())
}
pub fn free_objects(toguid: u64, firstobj: u64, numobjs: u64) -> (Record, Vec<u8>) {
    (FreeObjects { firstobj, numobjs, toguid }.into(), Vec::new())
}
pub fn end(toguid: u64) -> (Record, Vec<u8>) {
    (End { toguid, ..End::default() }.into(), Vec::new())
}

/// A full raw stream: files of one and of many blocks, with holes, over two blocks of dnodes.
pub fn raw_full() -> Records {
    let g = 0x1000;
    let mut out = vec![raw_begin("src/fs@one", (0, g), (0, 0x51), 9), range(g, 0, 3)];
    for object in 2..8 {
        out.push(raw_object(g, object, 131_072, 2, 9));
        out.push(free(g, object, 10 * 131_072, u64::MAX));
        for blk in [0, 1, 2, 5, 9] {
            out.push(raw_write(g, object, blk * 131_072, 131_072, 4096 * (1 + blk as usize)));
        }
    }
    out.push(free_objects(g, 8, 24));
    out.push(range(g, 32, 4));
    for object in 32..40 {
        out.push(raw_object(g, object, 4096, 1, 0));
        out.push(free(g, object, 4096, u64::MAX));
        out.push(raw_write(g, object, 0, 4096, 4096));
    }
    out.push(free_objects(g, 40, 24));
    out.push(end(g));
    out
}

/// What follows it: a file cut short, one gone, one with another block size, one new.
pub fn raw_next(wrapping: u8) -> Records {
    let g = 0x2000;
    let mut out = vec![raw_begin("src/fs@two", (0x1000, g), (0x51, 0x52), wrapping), range(g, 0, 6)];
    out.push(raw_object(g, 2, 131_072, 2, 1)); // truncated, as tall as before
    out.push(free(g, 2, 2 * 131_072, u64::MAX));
    out.push(raw_object(g, 3, 16_384, 1, 0)); // another file: smaller blocks, lower tree
    out.push(free(g, 3, 16_384, u64::MAX));
    out.push(raw_write(g, 3, 0, 16_384, 8192));
    out.push(free_objects(g, 4, 1));
    out.push(raw_object(g, 5, 131_072, 2, 12));
    out.push(free(g, 5, 13 * 131_072, u64::MAX));
    out.push(raw_write(g, 5, 12 * 131_072, 131_072, 512));
    out.push(raw_object(g, 20, 512, 1, 0));
    out.push(free(g, 20, 512, u64::MAX));
    out.push(raw_write(g, 20, 0, 512, 512));
    out.push(end(g));
    out
}

/// Makes a record one of another snapshot.
pub fn set_guid(r: &mut Record, guid: u64) {
    match r {
        Record::Object(o) => o.toguid = guid,
        Record::Free(o) => o.toguid = guid,
        Record::FreeObjects(o) => o.toguid = guid,
        Record::Write(o) => o.toguid = guid,
        Record::ObjectRange(o) => o.toguid = guid,
        Record::End(o) => o.toguid = guid,
        _ => {}
    }
}

/// The bonus of a file of generation `generation`.
pub fn file_bonus(generation: u64) -> Vec<u8> {
    let mut b = 0x2F_505A_u32.to_le_bytes().to_vec();
    b.extend([2, 8, 0, 0]); // layout 2, a header of 8 bytes
    b.resize(168, 0);
    b[8 + 16..8 + 24].copy_from_slice(&generation.to_le_bytes());
    b
}

pub fn file(object: u64, blksz: u32, generation: u64, toguid: u64) -> (Record, Vec<u8>) {
    let o = Object {
        object,
        object_type: FILE,
        bonus_type: u32::from(ObjectType::SA.0),
        bonuslen: 168,
        blksz,
        dn_slots: 1,
        toguid,
        ..Object::default()
    };
    (o.into(), file_bonus(generation))
}

pub fn chunk(object: u64, offset: u64, size: u64, fill: u8, toguid: u64) -> (Record, Vec<u8>) {
    let w = Write { object, object_type: FILE, offset, logical_size: size, toguid, ..Write::default() };
    (w.into(), vec![fill; size as usize])
}
