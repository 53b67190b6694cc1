//! Leaves of fat ZAPs (`zap_leaf_phys_t`, zap_leaf.h; zap_leaf.c): a head of 48 bytes, a table of hash
//! chains, and 24-byte chunks that are entries, pieces of names and values, or free.
//!
//! Invariants:
//! 1. Every walk over chunks ends after as many steps as there are chunks, or it is [`Corrupt`].
//! 2. A change is made only after the free list has proved long enough and the chains touched have been walked.
//! 3. Chains are sorted by differentiator, as OpenZFS leaves them; freed chunks are zeroed.

use super::{BLOCK_LEAF, Key, MAX_VALUE, Value};
use crate::Corrupt;
use crate::reader::{put_u64_at, u64_at};

const LEAF_MAGIC: u32 = 0x02ab_1eaf;
const HEAD: usize = 48;
const CHUNK: usize = 24;
/// Payload bytes of an array chunk.
const PIECE: usize = 21;
const END: u16 = 0xffff;
const FREE: u8 = 253;
const ENTRY: u8 = 252;
const ARRAY: u8 = 251;

const PREFIX_AT: usize = 16;
const MAGIC_AT: usize = 24;
const NFREE_AT: usize = 28;
const NENTRIES_AT: usize = 30;
const PREFIX_LEN_AT: usize = 32;
const FREELIST_AT: usize = 34;
const FLAGS_AT: usize = 36;
const FLAG_CDSORTED: u8 = 1;

// Offsets in an entry chunk.
const INT_SIZE: usize = 1;
const NEXT: usize = 2;
const NAME: usize = 4;
const NAME_INTS: usize = 6;
const VALUE: usize = 8;
const VALUE_INTS: usize = 10;
const CD: usize = 12;
const HASH: usize = 16;
/// Offset of the next pointer in array and free chunks.
const LINK: usize = 22;

/// An entry of a leaf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The chunk it lives in; good until the leaf is changed.
    pub chunk: u16,
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// The key's hash.
    pub hash: u64,
    /// Tells entries of equal hash apart.
    pub cd: u32,
}

/// Why nothing was stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Full {
    /// Not enough free chunks: split the leaf and try again.
    Split,
    /// Too big for any leaf of this size.
    TooBig,
    /// The leaf makes no sense.
    Corrupt(Corrupt),
}
impl From<Corrupt> for Full {
    fn from(c: Corrupt) -> Self {
        Self::Corrupt(c)
    }
}

/// A leaf over its block's bytes.
pub struct Leaf<B> {
    bytes: B,
}

fn bad<T>(why: impl Into<String>) -> Result<T, Corrupt> {
    Err(Corrupt::new("ZAP leaf", why))
}

impl<B: AsRef<[u8]>> Leaf<B> {
    /// Checks size, type and head of a leaf block.
    pub fn parse(bytes: B) -> Result<Self, Corrupt> {
        let leaf = Self { bytes };
        let len = leaf.bytes.as_ref().len();
        if !len.is_power_of_two() || !(512..=1 << 20).contains(&len) {
            return bad(format!("a block of {len} bytes"));
        }
        let magic = leaf.bytes.as_ref().get(MAGIC_AT..).and_then(|b| b.first_chunk::<4>());
        if u64_at(leaf.bytes.as_ref(), 0) != BLOCK_LEAF || magic != Some(&LEAF_MAGIC.to_le_bytes()) {
            return bad("no leaf");
        }
        if leaf.prefix_len() > 48 || leaf.nfree() > leaf.chunks() {
            return bad(format!("prefix of {} bits, {} free chunks", leaf.prefix_len(), leaf.nfree()));
        }
        Ok(leaf)
    }
    /// The block's bytes back.
    pub fn into_inner(self) -> B {
        self.bytes
    }
    /// Chunks of the block (`ZAP_LEAF_NUMCHUNKS`).
    #[must_use]
    pub fn chunks(&self) -> u16 {
        let len = self.bytes.as_ref().len();
        let n = len.saturating_sub(self.buckets().saturating_mul(2)).checked_div(CHUNK).unwrap_or(0);
        u16::try_from(n.saturating_sub(2)).unwrap_or(END)
    }
    /// Free chunks.
    #[must_use]
    pub fn nfree(&self) -> u16 {
        self.u16_at(NFREE_AT)
    }
    /// Entries.
    #[must_use]
    pub fn nentries(&self) -> u16 {
        self.u16_at(NENTRIES_AT)
    }
    /// The bits that all hashes here begin with.
    #[must_use]
    pub fn prefix(&self) -> u64 {
        u64_at(self.bytes.as_ref(), PREFIX_AT)
    }
    /// How many bits [`Self::prefix`] has.
    #[must_use]
    pub fn prefix_len(&self) -> u16 {
        self.u16_at(PREFIX_LEN_AT)
    }
    fn buckets(&self) -> usize {
        self.bytes.as_ref().len() >> 5
    }
    fn u16_at(&self, at: usize) -> u16 {
        self.bytes.as_ref().get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b))
    }
    /// Offset of the bucket's head in the block.
    fn bucket_at(&self, hash: u64) -> usize {
        let bits = self.buckets().checked_ilog2().unwrap_or(0);
        let shift = 64_u32.saturating_sub(bits).saturating_sub(u32::from(self.prefix_len()));
        let bucket =
            usize::try_from(hash.wrapping_shr(shift)).unwrap_or(0) & self.buckets().saturating_sub(1);
        bucket.saturating_mul(2).saturating_add(HEAD)
    }
    /// Offset of field `field` of chunk `chunk`.
    fn at(&self, chunk: u16, field: usize) -> usize {
        let base = self.buckets().saturating_mul(2).saturating_add(HEAD);
        usize::from(chunk).saturating_mul(CHUNK).saturating_add(base).saturating_add(field)
    }
    fn chunk_type(&self, chunk: u16) -> u8 {
        if chunk >= self.chunks() {
            return 0;
        }
        self.bytes.as_ref().get(self.at(chunk, 0)).copied().unwrap_or(0)
    }
    fn expect(&self, chunk: u16, kind: u8) -> Result<(), Corrupt> {
        if self.chunk_type(chunk) == kind {
            return Ok(());
        }
        bad(format!("chunk {chunk} is of type {} instead of {kind}", self.chunk_type(chunk)))
    }
    fn field(&self, chunk: u16, field: usize) -> u16 {
        self.u16_at(self.at(chunk, field))
    }
    fn cd(&self, chunk: u16) -> u32 {
        let at = self.at(chunk, CD);
        self.bytes.as_ref().get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
    }
    fn hash_of(&self, chunk: u16) -> u64 {
        u64_at(self.bytes.as_ref(), self.at(chunk, HASH))
    }
    fn int_size(&self, chunk: u16) -> u8 {
        self.bytes.as_ref().get(self.at(chunk, INT_SIZE)).copied().unwrap_or(0)
    }

    /// The chunks of the chain whose first is `chunk`, all of type `kind`, linked at `link`.
    fn chain(&self, mut chunk: u16, kind: u8, link: usize) -> Result<Vec<u16>, Corrupt> {
        let mut out = Vec::new();
        while chunk != END {
            self.expect(chunk, kind)?;
            if out.len() >= usize::from(self.chunks()) {
                return bad("a chain that does not end");
            }
            out.push(chunk);
            chunk = self.field(chunk, link);
        }
        Ok(out)
    }
    /// The first `len` bytes of the array that begins at `chunk`.
    fn array(&self, mut chunk: u16, len: usize) -> Result<Vec<u8>, Corrupt> {
        if len > usize::from(self.chunks()).saturating_mul(PIECE) {
            return bad(format!("an array of {len} bytes"));
        }
        let mut out = Vec::with_capacity(len);
        while out.len() < len {
            self.expect(chunk, ARRAY)?;
            let (from, to) = (self.at(chunk, 1), self.at(chunk, LINK));
            out.extend_from_slice(self.bytes.as_ref().get(from..to).unwrap_or(&[0; PIECE]));
            chunk = self.field(chunk, LINK);
        }
        out.truncate(len);
        Ok(out)
    }
    fn entry(&self, chunk: u16, word_keys: bool) -> Result<Entry, Corrupt> {
        self.expect(chunk, ENTRY)?;
        let int_size = self.int_size(chunk);
        if !matches!(int_size, 1 | 2 | 4 | 8) {
            return bad(format!("integers of {int_size} bytes"));
        }
        let key_size: u8 = if word_keys { 8 } else { 1 };
        let name_len = usize::from(self.field(chunk, NAME_INTS)).saturating_mul(usize::from(key_size));
        let value_len = usize::from(self.field(chunk, VALUE_INTS)).saturating_mul(usize::from(int_size));
        let raw = self.array(self.field(chunk, NAME), name_len)?;
        if !word_keys && !matches!(raw.as_slice(), [.., 0]) {
            return bad("a name without end");
        }
        Ok(Entry {
            chunk,
            key: Key { int_size: key_size, raw },
            value: Value { int_size, raw: self.array(self.field(chunk, VALUE), value_len)? },
            hash: self.hash_of(chunk),
            cd: self.cd(chunk),
        })
    }

    /// The entry of exactly this key.
    pub fn lookup(&self, key: &Key, hash: u64) -> Result<Option<Entry>, Corrupt> {
        for chunk in self.chain(self.u16_at(self.bucket_at(hash)), ENTRY, NEXT)? {
            if self.hash_of(chunk) == hash {
                let entry = self.entry(chunk, key.int_size == 8)?;
                if entry.key == *key {
                    return Ok(Some(entry));
                }
            }
        }
        Ok(None)
    }
    /// All entries, in order of their chunks; `word_keys` by the ZAP's `FLAG_UINT64_KEY`.
    pub fn entries(&self, word_keys: bool) -> impl Iterator<Item = Result<Entry, Corrupt>> + '_ {
        (0..self.chunks())
            .filter(|chunk| self.chunk_type(*chunk) == ENTRY)
            .map(move |chunk| self.entry(chunk, word_keys))
    }

    /// Whether the leaf is whole: every entry in the chain of its hash and under the prefix, every chunk in
    /// exactly one place, counts right. What `zdb` and OpenZFS's debug builds would insist on.
    pub fn check(&self, word_keys: bool) -> Result<(), Corrupt> {
        let mut used = vec![false; usize::from(self.chunks())];
        let mut claim = |chunks: Vec<u16>| {
            for chunk in chunks {
                match used.get_mut(usize::from(chunk)) {
                    Some(seen) if !*seen => *seen = true,
                    _ => return bad(format!("chunk {chunk} is used twice")),
                }
            }
            Ok(())
        };
        let free = self.chain(self.u16_at(FREELIST_AT), FREE, LINK)?;
        if free.len() != usize::from(self.nfree()) {
            return bad(format!("{} free chunks and not {}", free.len(), self.nfree()));
        }
        claim(free)?;
        let mut entries = 0_u16;
        for bucket in 0..self.buckets() {
            let at = bucket.saturating_mul(2).saturating_add(HEAD);
            let chain = self.chain(self.u16_at(at), ENTRY, NEXT)?;
            for chunk in &chain {
                entries = entries.saturating_add(1);
                let hash = self.hash_of(*chunk);
                let in_prefix = super::hash_index(hash, self.prefix_len().into()) == self.prefix();
                if self.bucket_at(hash) != at || !in_prefix {
                    return bad(format!("chunk {chunk} has a hash that belongs elsewhere"));
                }
                self.entry(*chunk, word_keys)?;
                claim(self.chain(self.field(*chunk, NAME), ARRAY, LINK)?)?;
                claim(self.chain(self.field(*chunk, VALUE), ARRAY, LINK)?)?;
            }
            claim(chain)?;
        }
        if entries != self.nentries() || used.contains(&false) {
            return bad(format!("{entries} entries and not {}, or lost chunks", self.nentries()));
        }
        Ok(())
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Leaf<B> {
    /// Makes the block an empty leaf (`zap_leaf_init`). `sorted` if the ZAP normalizes names.
    pub fn init(mut bytes: B, sorted: bool) -> Result<Self, Corrupt> {
        let len = bytes.as_ref().len();
        if !len.is_power_of_two() || !(512..=1 << 20).contains(&len) {
            return bad(format!("a block of {len} bytes"));
        }
        bytes.as_mut().fill(0);
        let mut leaf = Self { bytes };
        let _ = put_u64_at(leaf.bytes.as_mut(), 0, BLOCK_LEAF);
        leaf.put(MAGIC_AT, &LEAF_MAGIC.to_le_bytes());
        leaf.put(FLAGS_AT, &[if sorted { FLAG_CDSORTED } else { 0 }]);
        leaf.clear_buckets();
        let chunks = leaf.chunks();
        for chunk in 0..chunks {
            let next = chunk.saturating_add(1);
            leaf.put(leaf.at(chunk, 0), &[FREE]);
            leaf.put_u16(leaf.at(chunk, LINK), if next == chunks { END } else { next });
        }
        leaf.put_u16(NFREE_AT, chunks);
        Ok(leaf)
    }
    fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = at.saturating_add(bytes.len());
        if let Some(to) = self.bytes.as_mut().get_mut(at..end) {
            to.copy_from_slice(bytes);
        }
    }
    fn put_u16(&mut self, at: usize, n: u16) {
        self.put(at, &n.to_le_bytes());
    }
    fn clear_buckets(&mut self) {
        let end = self.buckets().saturating_mul(2).saturating_add(HEAD);
        if let Some(buckets) = self.bytes.as_mut().get_mut(HEAD..end) {
            buckets.fill(0xff);
        }
    }

    /// Takes `n` chunks off the free list, or says that there are not as many.
    fn take_free(&mut self, n: usize) -> Result<std::vec::IntoIter<u16>, Full> {
        if usize::from(self.nfree()) < n {
            return Err(Full::Split);
        }
        let mut taken = Vec::new();
        let mut next = self.u16_at(FREELIST_AT);
        for _ in 0..n {
            self.expect(next, FREE)?;
            taken.push(next);
            next = self.field(next, LINK);
        }
        self.put_u16(FREELIST_AT, next);
        let n = u16::try_from(n).unwrap_or(END);
        self.put_u16(NFREE_AT, self.nfree().saturating_sub(n));
        Ok(taken.into_iter())
    }
    /// Puts chunks at the head of the free list in their order, zeroed.
    fn give_free(&mut self, chunks: &[u16]) {
        let mut next = self.u16_at(FREELIST_AT);
        for chunk in chunks.iter().rev() {
            self.put(self.at(*chunk, 0), &[0; CHUNK]);
            self.put(self.at(*chunk, 0), &[FREE]);
            self.put_u16(self.at(*chunk, LINK), next);
            next = *chunk;
        }
        self.put_u16(FREELIST_AT, next);
        let n = u16::try_from(chunks.len()).unwrap_or(END);
        self.put_u16(NFREE_AT, self.nfree().saturating_add(n));
    }
    /// Writes an array into chunks taken before; gives the first of them.
    fn put_array(&mut self, raw: &[u8], chunks: &mut std::vec::IntoIter<u16>) -> u16 {
        let own: Vec<u16> = raw.chunks(PIECE).map_while(|_| chunks.next()).collect();
        let links = own.iter().skip(1).chain(&[END]);
        for ((chunk, link), piece) in own.iter().zip(links).zip(raw.chunks(PIECE)) {
            self.put(self.at(*chunk, 0), &[0; CHUNK]);
            self.put(self.at(*chunk, 0), &[ARRAY]);
            self.put(self.at(*chunk, 1), piece);
            self.put_u16(self.at(*chunk, LINK), *link);
        }
        own.first().copied().unwrap_or(END)
    }
    /// Where a link to `chunk` belongs so that its chain stays sorted: the offset to change, the rest after it.
    fn link_in(&mut self, chunk: u16) -> Result<(), Corrupt> {
        let mut at = self.bucket_at(self.hash_of(chunk));
        for other in self.chain(self.u16_at(at), ENTRY, NEXT)? {
            if self.cd(other) > self.cd(chunk) {
                break;
            }
            at = self.at(other, NEXT);
        }
        let rest = self.u16_at(at);
        self.put_u16(self.at(chunk, NEXT), rest);
        self.put_u16(at, chunk);
        Ok(())
    }

    /// Adds a key that is not there yet (`zap_entry_create`). With `cd` `None` the lowest free one is taken.
    pub fn insert(&mut self, key: &Key, hash: u64, cd: Option<u32>, value: &Value) -> Result<(), Full> {
        let pieces = |raw: &[u8]| raw.len().div_ceil(PIECE);
        let want = pieces(&key.raw).saturating_add(pieces(&value.raw)).saturating_add(1);
        if want > usize::from(self.chunks()) || value.raw.len() > MAX_VALUE {
            return Err(Full::TooBig);
        }
        let chain = self.chain(self.u16_at(self.bucket_at(hash)), ENTRY, NEXT)?;
        let taken: Vec<u32> =
            chain.iter().filter(|c| self.hash_of(**c) == hash).map(|c| self.cd(*c)).collect();
        let free_cd = (0..=u32::MAX).find(|cd| !taken.contains(cd)).unwrap_or(0);
        let mut chunks = self.take_free(want)?;
        let Some(chunk) = chunks.next() else { return Err(Full::TooBig) };
        let name = self.put_array(&key.raw, &mut chunks);
        let body = self.put_array(&value.raw, &mut chunks);
        let name_ints = key.raw.len().checked_div(usize::from(key.int_size)).unwrap_or(0);
        self.put(self.at(chunk, 0), &[ENTRY, value.int_size]);
        self.put_u16(self.at(chunk, NAME), name);
        self.put_u16(self.at(chunk, NAME_INTS), u16::try_from(name_ints).unwrap_or(END));
        self.put_u16(self.at(chunk, VALUE), body);
        self.put_u16(self.at(chunk, VALUE_INTS), u16::try_from(value.len()).unwrap_or(END));
        self.put(self.at(chunk, CD), &cd.unwrap_or(free_cd).to_le_bytes());
        self.put(self.at(chunk, HASH), &hash.to_le_bytes());
        self.link_in(chunk)?;
        self.put_u16(NENTRIES_AT, self.nentries().saturating_add(1));
        Ok(())
    }

    /// Replaces an entry's value (`zap_entry_update`).
    pub fn update(&mut self, entry: &Entry, value: &Value) -> Result<(), Full> {
        self.expect(entry.chunk, ENTRY)?;
        let old = self.chain(self.field(entry.chunk, VALUE), ARRAY, LINK)?;
        let want = value.raw.len().div_ceil(PIECE);
        if want > usize::from(self.chunks()) || value.raw.len() > MAX_VALUE {
            return Err(Full::TooBig);
        }
        if usize::from(self.nfree()).saturating_add(old.len()) < want {
            return Err(Full::Split);
        }
        self.give_free(&old);
        let mut chunks = self.take_free(want)?;
        let body = self.put_array(&value.raw, &mut chunks);
        self.put(self.at(entry.chunk, INT_SIZE), &[value.int_size]);
        self.put_u16(self.at(entry.chunk, VALUE), body);
        self.put_u16(self.at(entry.chunk, VALUE_INTS), u16::try_from(value.len()).unwrap_or(END));
        Ok(())
    }

    /// Removes an entry (`zap_entry_remove`).
    pub fn remove(&mut self, entry: &Entry) -> Result<(), Corrupt> {
        let mut at = self.bucket_at(entry.hash);
        let chain = self.chain(self.u16_at(at), ENTRY, NEXT)?;
        for chunk in chain {
            if chunk == entry.chunk {
                let value = self.chain(self.field(chunk, VALUE), ARRAY, LINK)?;
                let name = self.chain(self.field(chunk, NAME), ARRAY, LINK)?;
                self.put_u16(at, self.field(chunk, NEXT));
                self.give_free(&value);
                self.give_free(&name);
                self.give_free(&[chunk]);
                self.put_u16(NENTRIES_AT, self.nentries().saturating_sub(1));
                return Ok(());
            }
            at = self.at(chunk, NEXT);
        }
        bad(format!("chunk {} is not in the chain of its hash", entry.chunk))
    }

    /// Moves the entries whose next hash bit is 1 to `sibling`, a fresh leaf of equal size, and lengthens
    /// both prefixes by that bit (`zap_leaf_split`).
    pub fn split<C: AsRef<[u8]> + AsMut<[u8]>>(&mut self, sibling: &mut Leaf<C>) -> Result<(), Full> {
        if self.prefix_len() >= 48 || sibling.nentries() != 0 || sibling.chunks() != self.chunks() {
            return Err(Full::TooBig);
        }
        let bit = 63_u32.saturating_sub(u32::from(self.prefix_len()));
        let prefix = self.prefix().wrapping_shl(1);
        let prefix_len = self.prefix_len().saturating_add(1);
        let _ = put_u64_at(self.bytes.as_mut(), PREFIX_AT, prefix);
        let _ = put_u64_at(sibling.bytes.as_mut(), PREFIX_AT, prefix | 1);
        self.put_u16(PREFIX_LEN_AT, prefix_len);
        sibling.put_u16(PREFIX_LEN_AT, prefix_len);
        self.clear_buckets();
        let entries: Vec<u16> = (0..self.chunks()).filter(|c| self.chunk_type(*c) == ENTRY).collect();
        for chunk in entries {
            if self.hash_of(chunk).wrapping_shr(bit) & 1 == 1 {
                self.transfer(chunk, sibling)?;
            } else {
                self.link_in(chunk)?;
            }
        }
        Ok(())
    }
    fn transfer<C: AsRef<[u8]> + AsMut<[u8]>>(
        &mut self,
        chunk: u16,
        sibling: &mut Leaf<C>,
    ) -> Result<(), Full> {
        let value = self.chain(self.field(chunk, VALUE), ARRAY, LINK)?;
        let name = self.chain(self.field(chunk, NAME), ARRAY, LINK)?;
        let all = |chain: &[u16]| {
            self.array(chain.first().copied().unwrap_or(END), chain.len().saturating_mul(PIECE))
        };
        let (value_raw, name_raw) = (all(&value)?, all(&name)?);
        let mut to = sibling.take_free(name.len().saturating_add(value.len()).saturating_add(1))?;
        let Some(new) = to.next() else { return Err(Full::Split) };
        let (from, end) = (self.at(chunk, 0), self.at(chunk, CHUNK));
        let copy = self.bytes.as_ref().get(from..end).unwrap_or(&[]).to_vec();
        sibling.put(sibling.at(new, 0), &copy);
        let name_at = sibling.put_array(&name_raw, &mut to);
        let value_at = sibling.put_array(&value_raw, &mut to);
        sibling.put_u16(sibling.at(new, NAME), name_at);
        sibling.put_u16(sibling.at(new, VALUE), value_at);
        sibling.link_in(new)?;
        sibling.put_u16(NENTRIES_AT, sibling.nentries().saturating_add(1));
        self.give_free(&value);
        self.give_free(&name);
        self.give_free(&[chunk]);
        self.put_u16(NENTRIES_AT, self.nentries().saturating_sub(1));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 0x1234_5677;

    fn key(i: u64) -> (Key, u64) {
        let key = Key::name(format!("some name of more than one chunk {i}").as_bytes());
        let hash = key.hash(SALT, 0);
        (key, hash)
    }

    #[test]
    fn fill_split_and_empty() {
        let mut leaf = Leaf::init(vec![0; 16384], false).unwrap();
        assert_eq!(leaf.chunks(), 638);
        let mut n = 0;
        loop {
            let (key, hash) = key(n);
            match leaf.insert(&key, hash, None, &Value::words(&[n, n + 1, n + 2])) {
                Ok(()) => n += 1,
                Err(full) => {
                    assert_eq!(full, Full::Split);
                    break;
                }
            }
        }
        assert!(n > 100);
        leaf.check(false).unwrap();
        let mut sibling = Leaf::init(vec![0; 16384], false).unwrap();
        leaf.split(&mut sibling).unwrap();
        leaf.check(false).unwrap();
        sibling.check(false).unwrap();
        assert!(leaf.nentries() > 20 && sibling.nentries() > 20);
        for i in 0..n {
            let (key, hash) = key(i);
            let home = if hash >> 63 == 1 { &mut sibling } else { &mut leaf };
            let entry = home.lookup(&key, hash).unwrap().unwrap();
            assert_eq!(entry.value.to_words(), [i, i + 1, i + 2]);
            home.update(&entry, &Value::shorts(&[7; 40])).unwrap();
            let entry = home.lookup(&key, hash).unwrap().unwrap();
            assert_eq!((entry.value.int_size(), entry.value.to_words()), (2, vec![7; 40]));
            home.remove(&entry).unwrap();
            assert_eq!(home.lookup(&key, hash).unwrap(), None);
        }
        for leaf in [leaf, sibling] {
            leaf.check(false).unwrap();
            assert_eq!((leaf.nentries(), leaf.nfree()), (0, 638));
        }
    }

    #[test]
    fn equal_hashes_and_word_keys() {
        let mut leaf = Leaf::init(vec![0; 4096], false).unwrap();
        for i in 0..5_u64 {
            leaf.insert(&Key::words(&[i, 9]), 1 << 63, None, &Value::word(i)).unwrap();
        }
        leaf.check(true).unwrap();
        let cds: Vec<u32> = leaf.entries(true).map(|e| e.unwrap().cd).collect();
        assert_eq!(cds, [0, 1, 2, 3, 4]);
        let entry = leaf.lookup(&Key::words(&[2, 9]), 1 << 63).unwrap().unwrap();
        leaf.remove(&entry).unwrap();
        leaf.insert(&Key::words(&[7, 7]), 1 << 63, None, &Value::word(0)).unwrap();
        assert_eq!(leaf.lookup(&Key::words(&[7, 7]), 1 << 63).unwrap().unwrap().cd, 2);
        leaf.insert(&Key::words(&[8]), 1 << 63, None, &Value::bytes(&[])).unwrap();
        leaf.check(true).unwrap();
    }

    #[test]
    fn loops_are_found() {
        let mut leaf = Leaf::init(vec![0; 512], false).unwrap();
        let (key, hash) = (Key::name(b"x"), 0);
        leaf.insert(&key, hash, None, &Value::word(1)).unwrap();
        let at = leaf.at(0, NEXT);
        leaf.put_u16(at, 0);
        leaf.lookup(&Key::name(b"y"), hash).unwrap_err();
        assert!(matches!(leaf.insert(&Key::name(b"y"), hash, None, &Value::word(1)), Err(Full::Corrupt(_))));
    }
}
