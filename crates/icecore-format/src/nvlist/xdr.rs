//! The XDR encoding (`nvs_xdr_*`, nvpair.c): big-endian, 4-byte units.

use super::{
    Collector, MAX_DEPTH, NvList, NvStr, NvValue, align, bad, check_count, count, decoded_size, len64,
    saturate,
};
use crate::Corrupt;
use crate::reader::Reader;

/// Decodes what follows the 4-byte head; gives the bytes used.
pub fn decode(bytes: &[u8]) -> Result<(NvList, usize), Corrupt> {
    let mut r = Reader::new("nvlist", bytes);
    let list = decode_list(&mut r, 0)?;
    Ok((list, r.position()))
}

fn decode_list(r: &mut Reader<'_>, depth: u32) -> Result<NvList, Corrupt> {
    if depth > MAX_DEPTH {
        return Err(bad("nested too deep"));
    }
    let mut list = Collector::new(r.u32_be()?, r.u32_be()?)?;
    loop {
        let (_encoded, decoded) = (r.u32_be()?, r.u32_be()?);
        if decoded == 0 {
            return Ok(list.finish());
        }
        let name = string(r)?;
        let (kind, count) = (r.u32_be()?, r.u32_be()?);
        check_count(kind, count)?;
        let value = value(r, kind, count, depth)?;
        let least = decoded_size(&name, &value).1;
        if u64::from(decoded) < least || decoded > i32::MAX.unsigned_abs() {
            return Err(bad(format!("«{name}» wants {least} bytes in memory and says {decoded}")));
        }
        list.push(name, value)?;
    }
}

fn string(r: &mut Reader<'_>) -> Result<NvStr, Corrupt> {
    let len = to_len(r.u32_be()?)?;
    let s = NvStr::parse(r.take(len)?)?;
    r.take(padding(len))?;
    Ok(s)
}

/// An array as XDR has it: its own count again, then the elements. `at_least` is an element's size.
fn array<'a, T>(
    r: &mut Reader<'a>,
    count: u32,
    at_least: usize,
    one: impl Fn(&mut Reader<'a>) -> Result<T, Corrupt>,
) -> Result<Vec<T>, Corrupt> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let inner = r.u32_be()?;
    if inner != count {
        return Err(bad(format!("an array of {count} elements that says {inner}")));
    }
    elements(r, count, at_least, one)
}

fn elements<'a, T>(
    r: &mut Reader<'a>,
    count: u32,
    at_least: usize,
    one: impl Fn(&mut Reader<'a>) -> Result<T, Corrupt>,
) -> Result<Vec<T>, Corrupt> {
    let count = to_len(count)?;
    if count.saturating_mul(at_least) > r.remaining() {
        return Err(bad(format!("{count} elements in {} bytes", r.remaining())));
    }
    (0..count).map(|_| one(r)).collect()
}

#[allow(clippy::cast_possible_wrap)] // bit patterns of signed numbers
fn value(r: &mut Reader<'_>, kind: u32, count: u32, depth: u32) -> Result<NvValue, Corrupt> {
    let deeper = depth.saturating_add(1);
    Ok(match kind {
        1 => NvValue::Flag,
        2 => NvValue::Byte(byte(r)?),
        3 => NvValue::I16(short(r)? as i16),
        4 => NvValue::U16(short(r)?),
        5 => NvValue::I32(r.u32_be()? as i32),
        6 => NvValue::U32(r.u32_be()?),
        7 => NvValue::I64(r.u64_be()? as i64),
        8 => NvValue::U64(r.u64_be()?),
        9 => NvValue::Str(string(r)?),
        10 => {
            let len = to_len(count)?;
            let bytes = r.take(len)?.to_vec();
            r.take(padding(len))?;
            NvValue::ByteArray(bytes)
        }
        11 => NvValue::I16Array(array(r, count, 4, |r| Ok(short(r)? as i16))?),
        12 => NvValue::U16Array(array(r, count, 4, short)?),
        13 => NvValue::I32Array(array(r, count, 4, |r| Ok(r.u32_be()? as i32))?),
        14 => NvValue::U32Array(array(r, count, 4, Reader::u32_be)?),
        15 => NvValue::I64Array(array(r, count, 8, |r| Ok(r.u64_be()? as i64))?),
        16 => NvValue::U64Array(array(r, count, 8, Reader::u64_be)?),
        17 => NvValue::StrArray(elements(r, count, 4, string)?),
        18 => NvValue::Hrtime(r.u64_be()? as i64),
        19 => NvValue::List(decode_list(r, deeper)?),
        20 => NvValue::ListArray(elements(r, count, 16, |r| decode_list(r, deeper))?),
        21 => NvValue::Bool(truth(r)?),
        22 => NvValue::I8(byte(r)? as i8),
        23 => NvValue::U8(byte(r)?),
        24 => NvValue::BoolArray(array(r, count, 4, truth)?),
        25 => NvValue::I8Array(array(r, count, 4, |r| Ok(byte(r)? as i8))?),
        26 => NvValue::U8Array(array(r, count, 4, byte)?),
        27 => NvValue::Double(r.u64_be()?),
        _ => return Err(bad(format!("type {kind}"))),
    })
}

/// Small numbers fill a 4-byte unit: zero-extended by the kernel, sign-extended by user space XDR.
fn byte(r: &mut Reader<'_>) -> Result<u8, Corrupt> {
    let [a, b, c, low] = r.array()?;
    match [a, b, c] {
        [0, 0, 0] => Ok(low),
        [0xff, 0xff, 0xff] if low >= 0x80 => Ok(low),
        _ => Err(bad("a byte out of range")),
    }
}
fn short(r: &mut Reader<'_>) -> Result<u16, Corrupt> {
    let [a, b, c, d] = r.array()?;
    match [a, b] {
        [0, 0] => Ok(u16::from_be_bytes([c, d])),
        [0xff, 0xff] if c >= 0x80 => Ok(u16::from_be_bytes([c, d])),
        _ => Err(bad("a short out of range")),
    }
}
fn truth(r: &mut Reader<'_>) -> Result<bool, Corrupt> {
    match r.u32_be()? {
        0 => Ok(false),
        1 => Ok(true),
        n => Err(bad(format!("a truth value of {n}"))),
    }
}

/// Writes what follows the 4-byte head.
pub fn encode(list: &NvList, out: &mut Vec<u8>) {
    let from = out.len();
    encode_list(list, out);
    // libnvpair sizes its buffer by the announced sizes, which exceed what is written where arrays are empty.
    let announced = usize::try_from(list_size(list)).unwrap_or(usize::MAX);
    out.resize(out.len().max(from.saturating_add(announced)), 0);
}

fn encode_list(list: &NvList, out: &mut Vec<u8>) {
    put_u32(out, 0);
    put_u32(out, list.flags);
    for (name, value) in &list.pairs {
        put_u32(out, saturate(encoded_size(name, value)));
        put_u32(out, saturate(decoded_size(name, value).0));
        put_string(out, name);
        put_u32(out, value.type_number());
        put_u32(out, saturate(count(value)));
        if count(value) > 0 {
            encode_value(value, out);
        }
    }
    out.extend_from_slice(&[0; 8]);
}

#[allow(clippy::cast_sign_loss)] // bit patterns of signed numbers
fn encode_value(value: &NvValue, out: &mut Vec<u8>) {
    match value {
        NvValue::Flag => {}
        NvValue::Byte(v) | NvValue::U8(v) => put_u32(out, u32::from(*v)),
        NvValue::I8(v) => put_u32(out, u32::from(*v as u8)),
        NvValue::U16(v) => put_u32(out, u32::from(*v)),
        NvValue::I16(v) => put_u32(out, u32::from(*v as u16)),
        NvValue::I32(v) => put_u32(out, *v as u32),
        NvValue::U32(v) => put_u32(out, *v),
        NvValue::I64(v) | NvValue::Hrtime(v) => put_u64(out, *v as u64),
        NvValue::U64(v) | NvValue::Double(v) => put_u64(out, *v),
        NvValue::Bool(v) => put_u32(out, u32::from(*v)),
        NvValue::Str(s) => put_string(out, s),
        NvValue::ByteArray(b) => {
            out.extend_from_slice(b);
            pad(out, b.len());
        }
        NvValue::StrArray(v) => v.iter().for_each(|s| put_string(out, s)),
        NvValue::List(l) => encode_list(l, out),
        NvValue::ListArray(v) => v.iter().for_each(|l| encode_list(l, out)),
        other => {
            put_u32(out, saturate(count(other)));
            encode_array(other, out);
        }
    }
}

#[allow(clippy::cast_sign_loss)]
fn encode_array(value: &NvValue, out: &mut Vec<u8>) {
    match value {
        NvValue::I8Array(v) => v.iter().for_each(|n| put_u32(out, u32::from(*n as u8))),
        NvValue::U8Array(v) => v.iter().for_each(|n| put_u32(out, u32::from(*n))),
        NvValue::I16Array(v) => v.iter().for_each(|n| put_u32(out, u32::from(*n as u16))),
        NvValue::U16Array(v) => v.iter().for_each(|n| put_u32(out, u32::from(*n))),
        NvValue::I32Array(v) => v.iter().for_each(|n| put_u32(out, *n as u32)),
        NvValue::U32Array(v) => v.iter().for_each(|n| put_u32(out, *n)),
        NvValue::I64Array(v) => v.iter().for_each(|n| put_u64(out, *n as u64)),
        NvValue::U64Array(v) => v.iter().for_each(|n| put_u64(out, *n)),
        NvValue::BoolArray(v) => v.iter().for_each(|n| put_u32(out, u32::from(*n))),
        _ => {}
    }
}

/// Bytes of the packed list as libnvpair computes them (`nvs_getsize_pairs`).
fn list_size(list: &NvList) -> u64 {
    list.pairs.iter().fold(16, |sum: u64, (n, v)| sum.saturating_add(encoded_size(n, v)))
}

/// Bytes of the packed pair as libnvpair announces them (`nvs_xdr_nvp_size`); 4 too many for an empty array.
fn encoded_size(name: &NvStr, value: &NvValue) -> u64 {
    let n = count(value);
    let data = match value {
        NvValue::Flag => 0,
        NvValue::I64(_) | NvValue::U64(_) | NvValue::Hrtime(_) | NvValue::Double(_) => 8,
        NvValue::Str(s) => string_size(s),
        NvValue::ByteArray(_) => align(n, 4),
        NvValue::I64Array(_) | NvValue::U64Array(_) => n.saturating_mul(8).saturating_add(4),
        NvValue::StrArray(v) => v.iter().fold(0, |sum: u64, s| sum.saturating_add(string_size(s))),
        NvValue::List(l) => list_size(l),
        NvValue::ListArray(v) => v.iter().fold(0, |sum: u64, l| sum.saturating_add(list_size(l))),
        NvValue::I8Array(_)
        | NvValue::U8Array(_)
        | NvValue::I16Array(_)
        | NvValue::U16Array(_)
        | NvValue::I32Array(_)
        | NvValue::U32Array(_)
        | NvValue::BoolArray(_) => n.saturating_mul(4).saturating_add(4),
        _ => 4,
    };
    string_size(name).saturating_add(16).saturating_add(data)
}

fn string_size(s: &NvStr) -> u64 {
    align(len64(s.as_bytes().len()), 4).saturating_add(4)
}
fn put_string(out: &mut Vec<u8>, s: &NvStr) {
    put_u32(out, saturate(len64(s.as_bytes().len())));
    out.extend_from_slice(s.as_bytes());
    pad(out, s.as_bytes().len());
}
fn put_u32(out: &mut Vec<u8>, n: u32) {
    out.extend_from_slice(&n.to_be_bytes());
}
fn put_u64(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&n.to_be_bytes());
}
fn pad(out: &mut Vec<u8>, len: usize) {
    out.extend(std::iter::repeat_n(0_u8, padding(len)));
}
fn padding(len: usize) -> usize {
    len.wrapping_neg() & 3
}
fn to_len(n: u32) -> Result<usize, Corrupt> {
    usize::try_from(n).map_err(|_| bad("a length past the address space"))
}
