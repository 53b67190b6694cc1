//! Leaves of fat ZAPs: a head, a hash table, chunks of 24 bytes (`zap_leaf_phys_t`, zap_leaf.h).
//!
//! Decoded whole, encoded whole: see the invariants of [`super`].

use super::{BLOCK_LEAF, ZapValue};
use icecore_format::Corrupt;
use icecore_format::reader::u64_at;

const MAGIC: u32 = 0x02AB_1EAF;
const HEAD: usize = 48;
const CHUNK: usize = 24;
const ARRAY: usize = 21;
const END: u16 = 0xffff;
const KIND_FREE: u8 = 253;
const KIND_ENTRY: u8 = 252;
const KIND_ARRAY: u8 = 251;
const FLAG_CD_SORTED: u8 = 1;

/// One entry, its name without the NUL for string keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub hash: u64,
    pub cd: u32,
    /// Stored name bytes: with the NUL for strings, big-endian words for binary keys.
    pub name: Vec<u8>,
    /// Integers the name counts as: its bytes, or its words.
    pub name_ints: u16,
    pub value: ZapValue,
}

/// A leaf in memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Leaf {
    pub prefix: u64,
    pub prefix_len: u16,
    pub entries: Vec<Entry>,
}

fn le16(b: &[u8], at: usize) -> u16 {
    b.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

/// Slots in the hash table and number of chunks of a leaf of `size` bytes.
fn shape(size: usize) -> (usize, usize) {
    let slots = size / 32;
    (slots, (size - 2 * slots) / CHUNK - 2)
}

impl Entry {
    fn chunks(&self) -> usize {
        let ints = match &self.value {
            ZapValue::U8(v) => v.len(),
            ZapValue::U16(v) => v.len() * 2,
            ZapValue::U32(v) => v.len() * 4,
            ZapValue::U64(v) => v.len() * 8,
        };
        1 + self.name.len().div_ceil(ARRAY) + ints.div_ceil(ARRAY)
    }
}

impl Leaf {
    pub(super) fn parse(block: &[u8]) -> Result<Self, Corrupt> {
        let bad = |why: String| Corrupt::new("ZAP leaf", why);
        if block.len() < 1024 || u64_at(block, 0) != BLOCK_LEAF || u64_at(block, 24) as u32 != MAGIC {
            return Err(bad(format!("{} bytes that begin with {:#x}", block.len(), u64_at(block, 0))));
        }
        let (slots, chunks) = shape(block.len());
        let at = |i: usize| HEAD + 2 * slots + i * CHUNK;
        let mut leaf = Self { prefix: u64_at(block, 16), prefix_len: le16(block, 32), entries: Vec::new() };
        if leaf.prefix_len > 63 {
            return Err(bad(format!("prefix of {} bits", leaf.prefix_len)));
        }
        for i in 0..chunks {
            let c = &block[at(i)..at(i) + CHUNK];
            if c[0] != KIND_ENTRY {
                continue;
            }
            let int_len = c[1];
            let (name_chunk, name_ints, value_chunk, value_ints) =
                (le16(c, 4), le16(c, 6), le16(c, 8), le16(c, 10));
            let cd = u32::from_le_bytes([c[12], c[13], c[14], c[15]]);
            let value = Self::array(
                block,
                at(0),
                chunks,
                value_chunk,
                usize::from(value_ints) * usize::from(int_len),
            )?;
            let name = Self::array(block, at(0), chunks, name_chunk, usize::from(name_ints))?;
            leaf.entries.push(Entry {
                hash: u64_at(c, 16),
                cd,
                name,
                name_ints,
                value: ZapValue::from_be(int_len, &value)?,
            });
        }
        if leaf.entries.len() != usize::from(le16(block, 30)) {
            return Err(bad(format!("{} entries where {} are counted", leaf.entries.len(), le16(block, 30))));
        }
        Ok(leaf)
    }

    /// For binary keys the stored name is `ints` words of 8 bytes: read again at the right length.
    pub(super) fn parse_binary(block: &[u8]) -> Result<Self, Corrupt> {
        let mut leaf = Self::parse(block)?;
        let (slots, chunks) = shape(block.len());
        let base = HEAD + 2 * slots;
        let mut found = (0..chunks)
            .map(|i| &block[base + i * CHUNK..base + (i + 1) * CHUNK])
            .filter(|c| c[0] == KIND_ENTRY);
        for e in &mut leaf.entries {
            if let Some(c) = found.next() {
                e.name = Self::array(block, base, chunks, le16(c, 4), usize::from(e.name_ints) * 8)?;
            }
        }
        Ok(leaf)
    }

    fn array(block: &[u8], base: usize, chunks: usize, first: u16, len: usize) -> Result<Vec<u8>, Corrupt> {
        let mut out = Vec::with_capacity(len.min(block.len()));
        let mut next = first;
        while out.len() < len {
            let i = usize::from(next);
            if i >= chunks || out.len() > block.len() {
                return Err(Corrupt::new(
                    "ZAP leaf",
                    format!("a value of {len} bytes leads to chunk {next}"),
                ));
            }
            let c = &block[base + i * CHUNK..base + (i + 1) * CHUNK];
            if c[0] != KIND_ARRAY {
                return Err(Corrupt::new("ZAP leaf", format!("chunk {next} is not part of a value")));
            }
            let take = ARRAY.min(len - out.len());
            out.extend_from_slice(&c[1..1 + take]);
            next = le16(c, 22);
        }
        Ok(out)
    }

    /// Whether the entries fit a leaf of `size` bytes.
    pub(super) fn fits(&self, size: usize) -> bool {
        self.entries.iter().map(Entry::chunks).sum::<usize>() <= shape(size).1
    }

    /// Whether `e` alone would fit.
    pub(super) fn could_hold(e: &Entry, size: usize) -> bool {
        e.chunks() <= shape(size).1
    }

    pub(super) fn encode(&self, size: usize) -> Vec<u8> {
        let (slots, chunks) = shape(size);
        let mut block = vec![0_u8; size];
        let put16 =
            |block: &mut Vec<u8>, at: usize, v: u16| block[at..at + 2].copy_from_slice(&v.to_le_bytes());
        block[HEAD..HEAD + 2 * slots].fill(0xff);
        let at = |i: usize| HEAD + 2 * slots + i * CHUNK;
        let mut next = 0_usize;
        let bits = slots.trailing_zeros();
        for e in &self.entries {
            let entry = next;
            let value = e.value.to_be();
            let name_at = entry + 1;
            let value_at = name_at + e.name.len().div_ceil(ARRAY);
            next = value_at + value.len().div_ceil(ARRAY);
            for (first, bytes) in [(name_at, &e.name), (value_at, &value)] {
                let n = bytes.len().div_ceil(ARRAY);
                for (k, part) in bytes.chunks(ARRAY).enumerate() {
                    let c = at(first + k);
                    block[c] = KIND_ARRAY;
                    block[c + 1..c + 1 + part.len()].copy_from_slice(part);
                    put16(&mut block, c + 22, if k + 1 == n { END } else { (first + k + 1) as u16 });
                }
            }
            let c = at(entry);
            block[c] = KIND_ENTRY;
            block[c + 1] = e.value.int_len();
            put16(&mut block, c + 4, name_at as u16);
            put16(&mut block, c + 6, e.name_ints);
            put16(&mut block, c + 8, if value.is_empty() { END } else { value_at as u16 });
            put16(&mut block, c + 10, (value.len() / usize::from(e.value.int_len())) as u16);
            block[c + 12..c + 16].copy_from_slice(&e.cd.to_le_bytes());
            block[c + 16..c + 24].copy_from_slice(&e.hash.to_le_bytes());
            // Into its chain, before the first entry with a larger differentiator.
            let slot = (e.hash << self.prefix_len) >> (64 - bits);
            let mut link = HEAD + 2 * slot as usize;
            loop {
                let to = le16(&block, link);
                if to == END {
                    break;
                }
                let other = at(usize::from(to));
                let cd = u32::from_le_bytes([
                    block[other + 12],
                    block[other + 13],
                    block[other + 14],
                    block[other + 15],
                ]);
                if cd > e.cd {
                    break;
                }
                link = other + 2;
            }
            let to = le16(&block, link);
            put16(&mut block, c + 2, to);
            put16(&mut block, link, entry as u16);
        }
        for i in next..chunks {
            block[at(i)] = KIND_FREE;
            put16(&mut block, at(i) + 22, if i + 1 == chunks { END } else { (i + 1) as u16 });
        }
        block[0..8].copy_from_slice(&BLOCK_LEAF.to_le_bytes());
        block[16..24].copy_from_slice(&self.prefix.to_le_bytes());
        block[24..28].copy_from_slice(&MAGIC.to_le_bytes());
        put16(&mut block, 28, (chunks - next) as u16);
        put16(&mut block, 30, self.entries.len() as u16);
        put16(&mut block, 32, self.prefix_len);
        put16(&mut block, 34, if next == chunks { END } else { next as u16 });
        block[36] = FLAG_CD_SORTED;
        block
    }
}
