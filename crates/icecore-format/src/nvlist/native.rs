//! The native encoding (`nvs_native_*`, nvpair.c): structures as they lay in the memory of a 64-bit machine,
//! read in either byte order and written little-endian. Kernels use it for what they put into stream headers.

use super::{
    Collector, MAX_DEPTH, NvList, NvStr, NvValue, bad, check_count, count, decoded_size, len64, saturate,
};
use crate::Corrupt;
use crate::reader::Reader;

/// The byte order of the machine that wrote the list.
#[derive(Clone, Copy)]
pub enum Order {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl Order {
    fn u16(self, b: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(b),
            Self::Big => u16::from_be_bytes(b),
        }
    }
    fn u32(self, b: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(b),
            Self::Big => u32::from_be_bytes(b),
        }
    }
    fn u64(self, b: [u8; 8]) -> u64 {
        match self {
            Self::Little => u64::from_le_bytes(b),
            Self::Big => u64::from_be_bytes(b),
        }
    }
}

/// Decodes what follows the 4-byte head; gives the bytes used.
pub fn decode(bytes: &[u8], order: Order) -> Result<(NvList, usize), Corrupt> {
    let mut r = Reader::new("nvlist", bytes);
    let head = Collector::new(order.u32(r.array()?), order.u32(r.array()?))?;
    let list = pairs(&mut r, order, head, 0)?;
    Ok((list, r.position()))
}

fn pairs(r: &mut Reader<'_>, order: Order, mut list: Collector, depth: u32) -> Result<NvList, Corrupt> {
    if depth > MAX_DEPTH {
        return Err(bad("nested too deep"));
    }
    loop {
        let size = order.u32(r.array()?);
        if size == 0 {
            return Ok(list.finish());
        }
        let size = usize::try_from(size).map_err(|_| bad("a length past the address space"))?;
        let body = size.checked_sub(4).ok_or_else(|| bad(format!("a pair of {size} bytes")))?;
        let mut pair = r.sub(body)?;
        let name_size = usize::from(order.u16(pair.array()?));
        pair.take(2)?;
        let (count, kind) = (order.u32(pair.array()?), order.u32(pair.array()?));
        check_count(kind, count)?;
        let name = match pair.take(name_size)? {
            [name @ .., 0] => NvStr::parse(name)?,
            _ => return Err(bad("a name without end")),
        };
        // The head is 16 bytes, so the value begins at the next multiple of 8 after head and name.
        pair.take(name_size.wrapping_neg() & 7)?;
        let value = value(r, &mut pair, order, (kind, count), depth)?;
        list.push(name, value)?;
    }
}

#[allow(clippy::cast_possible_wrap)] // bit patterns of signed numbers
fn value(
    r: &mut Reader<'_>,
    pair: &mut Reader<'_>,
    order: Order,
    (kind, count): (u32, u32),
    depth: u32,
) -> Result<NvValue, Corrupt> {
    let p = pair;
    let deeper = depth.saturating_add(1);
    Ok(match kind {
        1 => NvValue::Flag,
        2 => NvValue::Byte(p.u8()?),
        3 => NvValue::I16(order.u16(p.array()?) as i16),
        4 => NvValue::U16(order.u16(p.array()?)),
        5 => NvValue::I32(order.u32(p.array()?) as i32),
        6 => NvValue::U32(order.u32(p.array()?)),
        7 => NvValue::I64(order.u64(p.array()?) as i64),
        8 => NvValue::U64(order.u64(p.array()?)),
        9 => NvValue::Str(c_string(p)?),
        10 => NvValue::ByteArray(many(p, count, 1, Reader::u8)?),
        11 => NvValue::I16Array(many(p, count, 2, |p| Ok(order.u16(p.array()?) as i16))?),
        12 => NvValue::U16Array(many(p, count, 2, |p| Ok(order.u16(p.array()?)))?),
        13 => NvValue::I32Array(many(p, count, 4, |p| Ok(order.u32(p.array()?) as i32))?),
        14 => NvValue::U32Array(many(p, count, 4, |p| Ok(order.u32(p.array()?)))?),
        15 => NvValue::I64Array(many(p, count, 8, |p| Ok(order.u64(p.array()?) as i64))?),
        16 => NvValue::U64Array(many(p, count, 8, |p| Ok(order.u64(p.array()?)))?),
        17 => {
            many(p, count, 8, Reader::u64_le)?; // dead pointers
            NvValue::StrArray(many(p, count, 1, c_string)?)
        }
        18 => NvValue::Hrtime(order.u64(p.array()?) as i64),
        19 => {
            let head = list_head(p, order)?;
            NvValue::List(pairs(r, order, head, deeper)?)
        }
        20 => {
            many(p, count, 8, Reader::u64_le)?; // dead pointers
            let heads = many(p, count, 24, |p| list_head(p, order))?;
            let lists = heads.into_iter().map(|head| pairs(r, order, head, deeper));
            NvValue::ListArray(lists.collect::<Result<_, _>>()?)
        }
        21 => NvValue::Bool(truth(p, order)?),
        22 => NvValue::I8(p.u8()? as i8),
        23 => NvValue::U8(p.u8()?),
        24 => NvValue::BoolArray(many(p, count, 4, |p| truth(p, order))?),
        25 => NvValue::I8Array(many(p, count, 1, |p| Ok(p.u8()? as i8))?),
        26 => NvValue::U8Array(many(p, count, 1, Reader::u8)?),
        27 => NvValue::Double(order.u64(p.array()?)),
        _ => return Err(bad(format!("type {kind}"))),
    })
}

fn many<'a, T>(
    p: &mut Reader<'a>,
    count: u32,
    at_least: usize,
    one: impl Fn(&mut Reader<'a>) -> Result<T, Corrupt>,
) -> Result<Vec<T>, Corrupt> {
    let fits = usize::try_from(count).is_ok_and(|n| n.saturating_mul(at_least) <= p.remaining());
    if !fits {
        return Err(bad(format!("{count} elements in {} bytes", p.remaining())));
    }
    (0..count).map(|_| one(p)).collect()
}

/// `nvlist_t` as embedded in a pair: version, flags, a dead pointer, two words of no meaning.
fn list_head(p: &mut Reader<'_>, order: Order) -> Result<Collector, Corrupt> {
    let (version, flags) = (order.u32(p.array()?), order.u32(p.array()?));
    p.take(16)?;
    Collector::new(version, flags)
}

fn c_string(p: &mut Reader<'_>) -> Result<NvStr, Corrupt> {
    let mut bytes = Vec::new();
    loop {
        match p.u8()? {
            0 => return NvStr::parse(&bytes),
            b => bytes.push(b),
        }
    }
}

fn truth(p: &mut Reader<'_>, order: Order) -> Result<bool, Corrupt> {
    match order.u32(p.array()?) {
        0 => Ok(false),
        1 => Ok(true),
        n => Err(bad(format!("a truth value of {n}"))),
    }
}

/// Writes what follows the 4-byte head, little-endian.
pub fn encode(list: &NvList, out: &mut Vec<u8>) {
    out.extend_from_slice(&0_u32.to_le_bytes());
    out.extend_from_slice(&list.flags.to_le_bytes());
    encode_pairs(list, out);
}

fn encode_pairs(list: &NvList, out: &mut Vec<u8>) {
    for (name, value) in &list.pairs {
        let size = decoded_size(name, value).0;
        let name_size = saturate(len64(name.as_bytes().len()).saturating_add(1));
        let mut pair = Vec::new();
        pair.extend_from_slice(&saturate(size).to_le_bytes());
        pair.extend_from_slice(&u16::try_from(name_size).unwrap_or(u16::MAX).to_le_bytes());
        pair.extend_from_slice(&[0; 2]);
        pair.extend_from_slice(&saturate(count(value)).to_le_bytes());
        pair.extend_from_slice(&value.type_number().to_le_bytes());
        pair.extend_from_slice(name.as_bytes());
        pair.push(0);
        align_to_8(&mut pair);
        encode_value(value, &mut pair);
        align_to_8(&mut pair);
        out.extend_from_slice(&pair);
        match value {
            NvValue::List(l) => encode_pairs(l, out),
            NvValue::ListArray(v) => v.iter().for_each(|l| encode_pairs(l, out)),
            _ => {}
        }
    }
    out.extend_from_slice(&[0; 4]);
}

#[allow(clippy::cast_sign_loss)] // bit patterns of signed numbers
fn encode_value(value: &NvValue, out: &mut Vec<u8>) {
    match value {
        NvValue::Flag => {}
        NvValue::Byte(v) | NvValue::U8(v) => out.push(*v),
        NvValue::I8(v) => out.push(*v as u8),
        NvValue::I16(v) => out.extend_from_slice(&v.to_le_bytes()),
        NvValue::U16(v) => out.extend_from_slice(&v.to_le_bytes()),
        NvValue::I32(v) => out.extend_from_slice(&v.to_le_bytes()),
        NvValue::U32(v) => out.extend_from_slice(&v.to_le_bytes()),
        NvValue::I64(v) | NvValue::Hrtime(v) => out.extend_from_slice(&v.to_le_bytes()),
        NvValue::U64(v) | NvValue::Double(v) => out.extend_from_slice(&v.to_le_bytes()),
        NvValue::Bool(v) => out.extend_from_slice(&u32::from(*v).to_le_bytes()),
        NvValue::Str(s) => put_c_string(out, s),
        NvValue::ByteArray(v) | NvValue::U8Array(v) => out.extend_from_slice(v),
        NvValue::I8Array(v) => out.extend(v.iter().map(|n| *n as u8)),
        NvValue::I16Array(v) => out.extend(v.iter().flat_map(|n| n.to_le_bytes())),
        NvValue::U16Array(v) => out.extend(v.iter().flat_map(|n| n.to_le_bytes())),
        NvValue::I32Array(v) => out.extend(v.iter().flat_map(|n| n.to_le_bytes())),
        NvValue::U32Array(v) => out.extend(v.iter().flat_map(|n| n.to_le_bytes())),
        NvValue::I64Array(v) => out.extend(v.iter().flat_map(|n| n.to_le_bytes())),
        NvValue::U64Array(v) => out.extend(v.iter().flat_map(|n| n.to_le_bytes())),
        NvValue::BoolArray(v) => out.extend(v.iter().flat_map(|b| u32::from(*b).to_le_bytes())),
        NvValue::StrArray(v) => {
            v.iter().for_each(|_| out.extend_from_slice(&[0; 8])); // dead pointers
            v.iter().for_each(|s| put_c_string(out, s));
        }
        NvValue::List(l) => put_list_head(out, l),
        NvValue::ListArray(v) => {
            v.iter().for_each(|_| out.extend_from_slice(&[0; 8])); // dead pointers
            v.iter().for_each(|l| put_list_head(out, l));
        }
    }
}

fn put_list_head(out: &mut Vec<u8>, list: &NvList) {
    out.extend_from_slice(&0_u32.to_le_bytes());
    out.extend_from_slice(&list.flags.to_le_bytes());
    out.extend_from_slice(&[0; 16]);
}
fn put_c_string(out: &mut Vec<u8>, s: &NvStr) {
    out.extend_from_slice(s.as_bytes());
    out.push(0);
}
fn align_to_8(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}
