//! Streams made by OpenZFS, taken apart and put together again byte for byte. With `ICECORE_ZOO` set to a
//! folder, every `*.zfs` in it as well.
#![allow(clippy::unwrap_used, missing_docs)]

use icecore_format::Fletcher4;
use icecore_format::NvList;
use icecore_format::stream::{
    Begin, COMPOUND, Entry, FreeObjects, RECORD_SIZE, Record, SUBSTREAM, StreamError, StreamErrorKind,
    StreamReader, StreamWriter, feature,
};
use std::collections::BTreeMap;

const RAW: &[u8] = include_bytes!("data/raw-incremental.zfs");

fn read_all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, StreamError> {
    let mut reader = StreamReader::new(bytes, Fletcher4::of);
    let mut out = Vec::new();
    let mut payload = Vec::new();
    while let Some(entry) = reader.next(&mut payload)? {
        out.push((entry, std::mem::take(&mut payload)));
    }
    Ok(out)
}

fn write_all(records: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = StreamWriter::new(Vec::new(), Fletcher4::of);
    for (entry, payload) in records {
        assert_eq!(writer.offset(), entry.offset);
        writer.write_summed(&entry.record, payload, entry.payload_sum).unwrap();
    }
    writer.into_inner()
}

#[test]
fn raw_incremental_again() {
    let records = read_all(RAW).unwrap();
    assert!(write_all(&records) == RAW);
    let Record::Begin(begin) = &records[0].0.record else { panic!("no BEGIN") };
    assert!(begin.has(feature::RAW | feature::COMPRESSED) && begin.fromguid != 0);
    assert_eq!(begin.toname.as_str(), Some("main/encrypted/docs@newsnapshot"));
    let (list, _) = NvList::decode(&records[0].1).unwrap();
    assert!(list.contains("crypt_keydata"));
    assert_eq!(list.encode_native(), records[0].1);
}

#[test]
fn zoo() {
    let Some(folder) = std::env::var_os("ICECORE_ZOO") else { return };
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    let mut streams = 0;
    for path in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
        if path.extension().is_none_or(|e| e != "zfs") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let records = read_all(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(write_all(&records) == bytes, "{} differs", path.display());
        for (entry, payload) in &records {
            *kinds.entry(entry.record.type_name()).or_default() += 1;
            if let (Record::Begin(begin), false) = (&entry.record, payload.is_empty()) {
                let (list, _) = NvList::decode(payload).unwrap();
                let packed = if begin.is_compound() { list.encode_xdr() } else { list.encode_native() };
                assert!(packed == *payload, "list of record {} of {}", entry.number, path.display());
            }
        }
        streams += 1;
    }
    println!("{streams} streams: {kinds:?}");
    assert!(streams > 0);
}

/// Every cut is an error; a cut between records is told from one within.
#[test]
fn truncation() {
    let ends: Vec<u64> = read_all(RAW).unwrap().iter().map(|(e, _)| e.offset).collect();
    let near_a_record = |cut: u64| ends.iter().any(|e| cut.abs_diff(*e) < 400);
    for cut in (0..RAW.len()).filter(|cut| *cut < 4096 || near_a_record(*cut as u64)) {
        let error = read_all(&RAW[..cut]).unwrap_err();
        let StreamErrorKind::Truncated { between_records } = error.kind else { panic!("cut {cut}: {error}") };
        assert_eq!(between_records, ends.contains(&(cut as u64)), "cut {cut}");
    }
}

/// A flipped bit anywhere is found, but for what no checksum covers twice: the checksum field of a record may
/// become «absent» only by being all zero, so a single flip never hides.
#[test]
fn flips() {
    let mut bytes = RAW.to_vec();
    for at in (0..bytes.len()).step_by(211).chain(0..700).chain(bytes.len() - 700..bytes.len()) {
        for bit in [0, 7] {
            bytes[at] ^= 1 << bit;
            assert!(read_all(&bytes).is_err(), "byte {at} bit {bit}");
            bytes[at] ^= 1 << bit;
        }
    }
}

/// A package of two streams, as libzfs frames it.
#[test]
fn package() {
    let mut writer = StreamWriter::new(Vec::new(), Fletcher4::of);
    let list = include_bytes!("data/package-header.nvlist");
    let mut begin = Begin::new(COMPOUND, feature::SA_SPILL);
    begin.payload_len.0 = list.len() as u32;
    writer.write(&begin.into(), list).unwrap();
    writer.write(&Record::End(Default::default()), &[]).unwrap();
    for guid in [1, 2] {
        writer.write(&Begin { toguid: guid, ..Begin::new(SUBSTREAM, 0) }.into(), &[]).unwrap();
        let free = FreeObjects { firstobj: 9, numobjs: u64::MAX, toguid: guid };
        writer.write(&free.into(), &[]).unwrap();
        writer.write(&Record::End(Default::default()), &[]).unwrap();
    }
    let open = writer.get_mut().clone();
    writer.write(&Record::End(Default::default()), &[]).unwrap();
    let closed = writer.into_inner();
    assert_eq!(closed.len(), RECORD_SIZE * 9 + list.len());
    assert_eq!(closed[closed.len() - RECORD_SIZE..][..4], [5, 0, 0, 0]);
    assert!(closed[closed.len() - RECORD_SIZE + 4..].iter().all(|b| *b == 0));
    let records = read_all(&closed).unwrap();
    assert_eq!((records.len(), write_all(&records)), (9, closed));
    assert!(matches!(
        read_all(&open).unwrap_err().kind,
        StreamErrorKind::Truncated { between_records: true }
    ));
}

/// The same stream as a big-endian machine would send it.
#[test]
fn big_endian() {
    let words = |bytes: &mut [u8], n: usize| bytes.chunks_exact_mut(n).for_each(<[u8]>::reverse);
    let mut sum = Fletcher4::ZERO;
    let mut out = Vec::new();
    let records: [Record; 3] = [
        Begin { toguid: 7, flags: 12, ..Begin::new(SUBSTREAM, feature::LZ4) }.into(),
        FreeObjects { firstobj: 1, numobjs: 2, toguid: 7 }.into(),
        Record::End(Default::default()),
    ];
    for record in &records {
        let mut record = record.clone();
        if let Record::End(end) = &mut record {
            end.checksum = sum.words();
        }
        let mut head = record.encode();
        words(&mut head[..8], 4);
        let (a, b) = head[8..].split_at_mut(24);
        words(a, 8);
        if matches!(record, Record::Begin(_)) {
            words(&mut b[..8], 4);
            words(&mut b[8..24], 8);
        } else {
            words(&mut b[..16], 8);
        }
        sum.update_swapped(&head[..280]);
        if !matches!(record, Record::Begin(_)) {
            for (to, word) in head[280..].chunks_exact_mut(8).zip(sum.words()) {
                to.copy_from_slice(&word.to_be_bytes());
            }
        }
        sum.update_swapped(&head[280..]);
        out.extend_from_slice(&head);
    }
    let back = read_all(&out).unwrap();
    assert_eq!(back[0].0.record, records[0]);
    assert_eq!(back[1].0.record, records[1]);
    assert_eq!(back.len(), 3);
}
