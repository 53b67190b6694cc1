//! A bounded cursor over foreign bytes: the only way to a child is a checked sub-slice.

use crate::Corrupt;

/// Reads fixed-size values from a slice; every step is checked.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader over `bytes`; `what` names the structure in errors.
    #[must_use]
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }
    /// Bytes consumed so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }
    /// Bytes left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }
    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Corrupt> {
        let end = self.at.checked_add(n);
        let got = end.and_then(|end| self.bytes.get(self.at..end));
        match (got, end) {
            (Some(got), Some(end)) => {
                self.at = end;
                Ok(got)
            }
            _ => Err(Corrupt::new(
                self.what,
                format!("{n} bytes wanted at offset {}, {} left", self.at, self.remaining()),
            )),
        }
    }
    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }
    /// A reader over exactly the next `n` bytes, which are consumed here.
    pub fn sub(&mut self, n: usize) -> Result<Reader<'a>, Corrupt> {
        Ok(Reader::new(self.what, self.take(n)?))
    }
    /// Next byte.
    pub fn u8(&mut self) -> Result<u8, Corrupt> {
        self.array::<1>().map(|[b]| b)
    }
    /// Next little-endian u16.
    pub fn u16_le(&mut self) -> Result<u16, Corrupt> {
        self.array().map(u16::from_le_bytes)
    }
    /// Next little-endian u32.
    pub fn u32_le(&mut self) -> Result<u32, Corrupt> {
        self.array().map(u32::from_le_bytes)
    }
    /// Next little-endian u64.
    pub fn u64_le(&mut self) -> Result<u64, Corrupt> {
        self.array().map(u64::from_le_bytes)
    }
    /// Next big-endian u32.
    pub fn u32_be(&mut self) -> Result<u32, Corrupt> {
        self.array().map(u32::from_be_bytes)
    }
    /// Next big-endian u64.
    pub fn u64_be(&mut self) -> Result<u64, Corrupt> {
        self.array().map(u64::from_be_bytes)
    }
}

/// The little-endian u64 at byte `offset` of `bytes`, or 0 past its end (old, shorter structures).
#[must_use]
pub fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let end = offset.saturating_add(8);
    let mut word = [0; 8];
    match bytes.get(offset..end) {
        Some(b) => {
            word.copy_from_slice(b);
            u64::from_le_bytes(word)
        }
        None => 0,
    }
}

/// Stores a little-endian u64 at byte `offset`; false if it does not fit.
#[must_use]
pub fn put_u64_at(bytes: &mut [u8], offset: usize, value: u64) -> bool {
    let end = offset.saturating_add(8);
    match bytes.get_mut(offset..end) {
        Some(b) => {
            b.copy_from_slice(&value.to_le_bytes());
            true
        }
        None => false,
    }
}
