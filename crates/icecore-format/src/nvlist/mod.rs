//! Name-value lists (`nvlist_t`, nvpair.h): labels, pool configurations, stream headers.
//!
//! Invariants:
//! 1. Order is kept: decoding and encoding again gives the same bytes for anything libnvpair wrote.
//! 2. Within a list that forbids it, no name stands twice: decoding refuses, [`NvList::set`] replaces.
//! 3. Nesting goes at most [`MAX_DEPTH`] deep, and memory grows with bytes read, never with a count alone.

mod native;
mod text;
mod xdr;

pub use text::{dump, print};

use crate::Corrupt;
use std::collections::BTreeSet;
use std::fmt;

/// Deepest nesting accepted (`nvpair_max_recursion` of the kernel, nvpair.c).
pub const MAX_DEPTH: u32 = 20;
/// Names are unique within the list (`NV_UNIQUE_NAME`).
pub const UNIQUE_NAME: u32 = 1;
/// Names are unique among pairs of the same type (`NV_UNIQUE_NAME_TYPE`).
pub const UNIQUE_NAME_TYPE: u32 = 2;

const ENCODE_NATIVE: u8 = 0;
const ENCODE_XDR: u8 = 1;

/// A string as nvlists hold it: bytes without NUL, usually UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NvStr(Vec<u8>);

impl NvStr {
    fn parse(bytes: &[u8]) -> Result<Self, Corrupt> {
        if bytes.contains(&0) {
            return Err(bad("a string with a NUL inside"));
        }
        Ok(Self(bytes.to_vec()))
    }
    /// The bytes, without terminator.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    /// The text, if it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}
impl From<&str> for NvStr {
    /// Takes the text up to its first NUL.
    fn from(s: &str) -> Self {
        Self(s.bytes().take_while(|b| *b != 0).collect())
    }
}
impl From<String> for NvStr {
    fn from(s: String) -> Self {
        Self::from(s.as_str())
    }
}
impl PartialEq<str> for NvStr {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}
impl fmt::Display for NvStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}
impl fmt::Debug for NvStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

macro_rules! values {
    ($($(#[$doc:meta])* $name:ident $(($payload:ty))? = $number:literal;)*) => {
        /// One value; the variants are libnvpair's types (`data_type_t`, nvpair.h).
        #[derive(Clone, PartialEq, Debug)]
        pub enum NvValue { $($(#[$doc])* $name $(($payload))?,)* }
        impl NvValue {
            /// The number of the type on disk.
            #[must_use]
            pub fn type_number(&self) -> u32 {
                match self { $(values!(@pat $name $($payload)?) => $number,)* }
            }
        }
    };
    (@pat $name:ident $payload:ty) => { Self::$name(_) };
    (@pat $name:ident) => { Self::$name };
}

values! {
    /// Present or not; carries no value.
    Flag = 1;
    /// One byte.
    Byte(u8) = 2;
    /// Signed 16 bits.
    I16(i16) = 3;
    /// Unsigned 16 bits.
    U16(u16) = 4;
    /// Signed 32 bits.
    I32(i32) = 5;
    /// Unsigned 32 bits.
    U32(u32) = 6;
    /// Signed 64 bits.
    I64(i64) = 7;
    /// Unsigned 64 bits.
    U64(u64) = 8;
    /// A string.
    Str(NvStr) = 9;
    /// Bytes.
    ByteArray(Vec<u8>) = 10;
    /// Signed 16-bit numbers.
    I16Array(Vec<i16>) = 11;
    /// Unsigned 16-bit numbers.
    U16Array(Vec<u16>) = 12;
    /// Signed 32-bit numbers.
    I32Array(Vec<i32>) = 13;
    /// Unsigned 32-bit numbers.
    U32Array(Vec<u32>) = 14;
    /// Signed 64-bit numbers.
    I64Array(Vec<i64>) = 15;
    /// Unsigned 64-bit numbers.
    U64Array(Vec<u64>) = 16;
    /// Strings.
    StrArray(Vec<NvStr>) = 17;
    /// Nanoseconds (`hrtime_t`).
    Hrtime(i64) = 18;
    /// A list.
    List(NvList) = 19;
    /// Lists.
    ListArray(Vec<NvList>) = 20;
    /// True or false.
    Bool(bool) = 21;
    /// Signed byte.
    I8(i8) = 22;
    /// Unsigned byte.
    U8(u8) = 23;
    /// Truths.
    BoolArray(Vec<bool>) = 24;
    /// Signed bytes.
    I8Array(Vec<i8>) = 25;
    /// Unsigned bytes (key material travels so).
    U8Array(Vec<u8>) = 26;
    /// A double, by its bits.
    Double(u64) = 27;
}

macro_rules! from {
    ($($t:ty => $v:ident;)*) => {$(
        impl From<$t> for NvValue { fn from(v: $t) -> Self { Self::$v(v.into()) } }
    )*};
}
from! {
    u64 => U64; u32 => U32; i64 => I64; i32 => I32; bool => Bool; &str => Str; String => Str; NvStr => Str;
    NvList => List; Vec<NvList> => ListArray; Vec<u64> => U64Array; &[u64] => U64Array;
    Vec<NvStr> => StrArray;
}

/// A name-value list in its order.
#[derive(Clone, PartialEq, Debug)]
pub struct NvList {
    flags: u32,
    pairs: Vec<(NvStr, NvValue)>,
}
impl Default for NvList {
    fn default() -> Self {
        Self { flags: UNIQUE_NAME, pairs: Vec::new() }
    }
}

macro_rules! getters {
    ($($(#[$doc:meta])* $get:ident $variant:ident $out:ty;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $get(&self, name: &str) -> Option<$out> {
            match self.get(name) { Some(NvValue::$variant(v)) => Some(v), _ => None }
        }
    )*};
}

impl NvList {
    /// An empty list with unique names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&NvStr, &NvValue)> {
        self.pairs.iter().map(|(n, v)| (n, v))
    }
    /// How many pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }
    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
    /// The first value under `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&NvValue> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }
    /// The first value under `name`, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut NvValue> {
        self.pairs.iter_mut().find(|(n, _)| n == name).map(|(_, v)| v)
    }
    /// Whether a pair of any type has the name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
    /// Whether the valueless pair `name` is present.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some(NvValue::Flag))
    }
    /// The u64 under `name`.
    #[must_use]
    pub fn u64(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(NvValue::U64(v)) => Some(*v),
            _ => None,
        }
    }
    /// The i64 under `name`.
    #[must_use]
    pub fn i64(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Some(NvValue::I64(v)) => Some(*v),
            _ => None,
        }
    }
    /// The i32 under `name`.
    #[must_use]
    pub fn i32(&self, name: &str) -> Option<i32> {
        match self.get(name) {
            Some(NvValue::I32(v)) => Some(*v),
            _ => None,
        }
    }
    /// The boolean value under `name`.
    #[must_use]
    pub fn bool(&self, name: &str) -> Option<bool> {
        match self.get(name) {
            Some(NvValue::Bool(v)) => Some(*v),
            _ => None,
        }
    }
    /// The string under `name`, if it is UTF-8.
    #[must_use]
    pub fn str(&self, name: &str) -> Option<&str> {
        self.nvstr(name).and_then(NvStr::as_str)
    }
    getters! {
        /// The string under `name`, whatever its bytes.
        nvstr Str &NvStr;
        /// The list under `name`.
        list List &NvList;
        /// The lists under `name`.
        list_array ListArray &[NvList];
        /// The u64 array under `name`.
        u64_array U64Array &[u64];
        /// The u8 array under `name`.
        u8_array U8Array &[u8];
        /// The byte array under `name`.
        byte_array ByteArray &[u8];
        /// The strings under `name`.
        str_array StrArray &[NvStr];
    }
    /// Puts `name` at the end; an older pair of the name goes (`nvlist_add_*` on a unique-name list).
    pub fn set(&mut self, name: impl Into<NvStr>, value: impl Into<NvValue>) -> &mut Self {
        let (name, value) = (name.into(), value.into());
        self.pairs.retain(|(n, _)| *n != name);
        self.pairs.push((name, value));
        self
    }
    /// Replaces the value in place, keeping its position; appends if there is none.
    pub fn replace(&mut self, name: &str, value: impl Into<NvValue>) -> &mut Self {
        match self.get_mut(name) {
            Some(old) => *old = value.into(),
            None => self.pairs.push((name.into(), value.into())),
        }
        self
    }
    /// Sets the valueless pair `name`.
    pub fn set_flag(&mut self, name: impl Into<NvStr>) -> &mut Self {
        self.set(name, NvValue::Flag)
    }
    /// Sets a u8 array.
    pub fn set_u8_array(&mut self, name: impl Into<NvStr>, bytes: &[u8]) -> &mut Self {
        self.set(name, NvValue::U8Array(bytes.to_vec()))
    }
    /// As [`Self::set`], for building in one expression.
    #[must_use]
    pub fn with(mut self, name: impl Into<NvStr>, value: impl Into<NvValue>) -> Self {
        self.set(name, value);
        self
    }
    /// Takes the pair out and gives its value.
    pub fn remove(&mut self, name: &str) -> Option<NvValue> {
        let at = self.pairs.iter().position(|(n, _)| n == name)?;
        Some(self.pairs.remove(at).1)
    }

    /// Reads a packed list with its 4-byte head (`nvlist_unpack`, nvpair.c): XDR, or the native layout of
    /// either byte order. Gives the bytes used; what follows is the caller's.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), Corrupt> {
        match bytes {
            [ENCODE_XDR, _, _, _, rest @ ..] => xdr::decode(rest),
            [ENCODE_NATIVE, 1, _, _, rest @ ..] => native::decode(rest, native::Order::Little),
            [ENCODE_NATIVE, 0, _, _, rest @ ..] => native::decode(rest, native::Order::Big),
            [encoding, endian, _, _, ..] => Err(bad(format!("encoding {encoding}, byte order {endian}"))),
            _ => Err(bad(format!("{} bytes", bytes.len()))),
        }
        .map(|(list, used)| (list, used.saturating_add(4)))
    }
    /// The packed list as OpenZFS writes it: head and XDR (`nvlist_pack` with `NV_ENCODE_XDR`).
    #[must_use]
    pub fn encode_xdr(&self) -> Vec<u8> {
        let mut out = vec![ENCODE_XDR, 1, 0, 0];
        xdr::encode(self, &mut out);
        out
    }
    /// The packed list as little-endian kernels write it into stream headers: head and native layout
    /// (`fnvlist_pack`, fnvpair.c).
    #[must_use]
    pub fn encode_native(&self) -> Vec<u8> {
        let mut out = vec![ENCODE_NATIVE, 1, 0, 0];
        native::encode(self, &mut out);
        out
    }
}

impl fmt::Display for NvList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(self, f, 0)
    }
}

fn write_list(list: &NvList, f: &mut fmt::Formatter<'_>, indent: usize) -> fmt::Result {
    let deeper = indent.saturating_add(4);
    for (name, value) in list.iter() {
        match value {
            NvValue::List(inner) => {
                writeln!(f, "{:indent$}{name}:", "")?;
                write_list(inner, f, deeper)?;
            }
            NvValue::ListArray(lists) => {
                for (i, inner) in lists.iter().enumerate() {
                    writeln!(f, "{:indent$}{name}[{i}]:", "")?;
                    write_list(inner, f, deeper)?;
                }
            }
            NvValue::Flag => writeln!(f, "{:indent$}{name}", "")?,
            NvValue::U64(v) => writeln!(f, "{:indent$}{name}: {v}", "")?,
            NvValue::Str(v) => writeln!(f, "{:indent$}{name}: '{v}'", "")?,
            other => writeln!(f, "{:indent$}{name}: {other:?}", "")?,
        }
    }
    Ok(())
}

fn bad(why: impl Into<String>) -> Corrupt {
    Corrupt::new("nvlist", why)
}

/// Collects pairs while decoding and keeps names unique where the list's flags ask for it.
struct Collector {
    flags: u32,
    pairs: Vec<(NvStr, NvValue)>,
    seen: BTreeSet<(NvStr, u32)>,
}
impl Collector {
    fn new(version: u32, flags: u32) -> Result<Self, Corrupt> {
        if version != 0 {
            return Err(bad(format!("version {version}")));
        }
        Ok(Self { flags, pairs: Vec::new(), seen: BTreeSet::new() })
    }
    fn push(&mut self, name: NvStr, value: NvValue) -> Result<(), Corrupt> {
        if self.flags & (UNIQUE_NAME | UNIQUE_NAME_TYPE) != 0 {
            let kind = if self.flags & UNIQUE_NAME != 0 { 0 } else { value.type_number() };
            if !self.seen.insert((name.clone(), kind)) {
                return Err(bad(format!("«{name}» twice")));
            }
        }
        self.pairs.push((name, value));
        Ok(())
    }
    fn finish(self) -> NvList {
        NvList { flags: self.flags, pairs: self.pairs }
    }
}

/// Checks the element count of a pair against its type (`i_validate_type_nelem`, nvpair.c).
fn check_count(kind: u32, count: u32) -> Result<(), Corrupt> {
    let fine = match kind {
        1 => count == 0,
        2..=9 | 18 | 19 | 21..=23 | 27 => count == 1,
        10..=17 | 20 | 24..=26 => true,
        _ => return Err(bad(format!("type {kind}"))),
    };
    if fine { Ok(()) } else { Err(bad(format!("{count} elements of type {kind}"))) }
}

/// Elements as the pair's count field has them.
fn count(value: &NvValue) -> u64 {
    let n = match value {
        NvValue::Flag => 0,
        NvValue::ByteArray(v) | NvValue::U8Array(v) => v.len(),
        NvValue::I16Array(v) => v.len(),
        NvValue::U16Array(v) => v.len(),
        NvValue::I32Array(v) => v.len(),
        NvValue::U32Array(v) => v.len(),
        NvValue::I64Array(v) => v.len(),
        NvValue::U64Array(v) => v.len(),
        NvValue::StrArray(v) => v.len(),
        NvValue::ListArray(v) => v.len(),
        NvValue::BoolArray(v) => v.len(),
        NvValue::I8Array(v) => v.len(),
        _ => 1,
    };
    len64(n)
}

/// Bytes of the pair in libnvpair's memory on a 64-bit machine: as it writes it, and the least it takes.
fn decoded_size(name: &NvStr, value: &NvValue) -> (u64, u64) {
    let n = count(value);
    let data = match value {
        NvValue::Flag => 0,
        NvValue::Byte(_) | NvValue::I8(_) | NvValue::U8(_) => 1,
        NvValue::I16(_) | NvValue::U16(_) => 2,
        NvValue::I32(_) | NvValue::U32(_) | NvValue::Bool(_) => 4,
        NvValue::I64(_) | NvValue::U64(_) | NvValue::Hrtime(_) | NvValue::Double(_) => 8,
        NvValue::Str(s) => c_string_size(s),
        NvValue::ByteArray(_) | NvValue::I8Array(_) | NvValue::U8Array(_) => n,
        NvValue::I16Array(_) | NvValue::U16Array(_) => n.saturating_mul(2),
        NvValue::I32Array(_) | NvValue::U32Array(_) | NvValue::BoolArray(_) => n.saturating_mul(4),
        NvValue::I64Array(_) | NvValue::U64Array(_) => n.saturating_mul(8),
        NvValue::StrArray(v) => {
            v.iter().fold(n.saturating_mul(8), |sum, s| sum.saturating_add(c_string_size(s)))
        }
        NvValue::List(_) => 24,
        NvValue::ListArray(_) => n.saturating_mul(32),
    };
    let head = align(c_string_size(name).saturating_add(16), 8);
    (head.saturating_add(align(data, 8)), head.saturating_add(data))
}

fn c_string_size(s: &NvStr) -> u64 {
    len64(s.as_bytes().len()).saturating_add(1)
}
fn align(n: u64, to: u64) -> u64 {
    n.checked_next_multiple_of(to).unwrap_or(u64::MAX)
}
fn len64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
fn saturate(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> NvList {
        let inner = NvList::new().with("deep", 7_u64);
        let mut l = NvList::new();
        l.set_flag("flag")
            .set("byte", NvValue::Byte(0xff))
            .set("i16", NvValue::I16(-2))
            .set("u16", NvValue::U16(0xfffe))
            .set("i32", -3_i32)
            .set("u32", 0xffff_fffd_u32)
            .set("i64", -4_i64)
            .set("u64", u64::MAX)
            .set("str", "text")
            .set("bytes", NvValue::ByteArray(vec![1, 2, 3]))
            .set("i16s", NvValue::I16Array(vec![-1, 2]))
            .set("u16s", NvValue::U16Array(vec![1, 0xffff, 3]))
            .set("i32s", NvValue::I32Array(vec![-1]))
            .set("u32s", NvValue::U32Array(vec![1, 2]))
            .set("i64s", NvValue::I64Array(vec![-1, 5]))
            .set("u64s", vec![1_u64, 2, 3])
            .set("none", NvValue::U64Array(vec![]))
            .set("strs", vec![NvStr::from("a"), NvStr::from(""), NvStr::from("ccccc")])
            .set("hrtime", NvValue::Hrtime(-9))
            .set("list", inner.clone())
            .set("lists", vec![inner.clone(), NvList::new(), inner])
            .set("bool", true)
            .set("i8", NvValue::I8(-128))
            .set("u8", NvValue::U8(200))
            .set("bools", NvValue::BoolArray(vec![true, false]))
            .set("i8s", NvValue::I8Array(vec![-1, 1]))
            .set_u8_array("u8s", &[0, 128, 255])
            .set("double", NvValue::Double(1.5_f64.to_bits()));
        l
    }

    #[test]
    fn every_type_round_trips() {
        let list = everything();
        let packed = list.encode_xdr();
        let (back, used) = NvList::decode(&packed).unwrap();
        assert_eq!(back, list);
        // libnvpair counts four bytes for the inner count of an empty array but never writes them.
        assert_eq!(used + 4, packed.len());
        assert_eq!(packed.len() % 4, 0);
    }

    #[test]
    fn truncation_is_an_error_at_every_byte() {
        let packed = everything().encode_xdr();
        for cut in 0..packed.len() - 4 {
            NvList::decode(&packed[..cut]).unwrap_err();
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let mut list = NvList::new();
        for _ in 0..MAX_DEPTH {
            list = NvList::new().with("x", list);
        }
        NvList::decode(&list.encode_xdr()).unwrap();
        list = NvList::new().with("x", list);
        NvList::decode(&list.encode_xdr()).unwrap_err();
    }

    #[test]
    fn names_are_unique() {
        let mut list = NvList::new().with("a", 1_u64).with("b", 2_u64);
        list.set("a", 3_u64);
        assert_eq!(list.iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>(), ["b", "a"]);
        list.pairs.push(("a".into(), 4_u64.into()));
        NvList::decode(&list.encode_xdr()).unwrap_err();
    }
}
