//! Block pointers and data virtual addresses (`blkptr_t`, `dva_t`, spa.h).
//!
//! A [`Blkptr`] is raw: any bit pattern is legal to hold. [`Blkptr::check`] says whether it may be followed.

use crate::{Checksum, Compress, Corrupt, ObjectType, Txg};
use std::fmt;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Where one copy of a block lies: a top-level vdev and a byte offset in its allocatable area.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Dva {
    word: [U64; 2],
}
const _: () = assert!(size_of::<Dva>() == 16);

const ASIZE_BITS: u32 = 24;
const VDEV_BITS: u32 = 24;

const fn bits(word: u64, low: u32, len: u32) -> u64 {
    word.wrapping_shr(low) & mask(len)
}
const fn mask(len: u32) -> u64 {
    if len >= 64 { u64::MAX } else { 1_u64.wrapping_shl(len).wrapping_sub(1) }
}
const fn with_bits(word: u64, low: u32, len: u32, value: u64) -> u64 {
    (word & !mask(len).wrapping_shl(low)) | (value & mask(len)).wrapping_shl(low)
}

impl Dva {
    /// A DVA on top-level vdev `vdev` at byte `offset`, `asize` bytes allocated (both multiples of 512).
    #[must_use]
    pub fn new(vdev: u32, offset: u64, asize: u64, gang: bool) -> Self {
        let w0 = with_bits(with_bits(0, 0, ASIZE_BITS, asize >> 9), 32, VDEV_BITS, u64::from(vdev));
        let w1 = with_bits(with_bits(0, 0, 63, offset >> 9), 63, 1, u64::from(gang));
        Self { word: [U64::new(w0), U64::new(w1)] }
    }
    /// Top-level vdev number.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)]
    pub fn vdev(&self) -> u32 {
        bits(self.word[0].get(), 32, VDEV_BITS) as u32
    }
    /// Bytes allocated, parity and gang headers included.
    #[must_use]
    pub fn asize(&self) -> u64 {
        bits(self.word[0].get(), 0, ASIZE_BITS).wrapping_shl(9)
    }
    /// Byte offset in the vdev's allocatable area (after the front labels and boot block).
    #[must_use]
    pub fn offset(&self) -> u64 {
        bits(self.word[1].get(), 0, 63).wrapping_shl(9)
    }
    /// Whether a gang header lies here instead of the data.
    #[must_use]
    pub fn is_gang(&self) -> bool {
        bits(self.word[1].get(), 63, 1) == 1
    }
    /// Whether the slot is unused (both words zero).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.word[0].get() == 0 && self.word[1].get() == 0
    }
    /// The two raw words.
    #[must_use]
    pub fn words(&self) -> [u64; 2] {
        [self.word[0].get(), self.word[1].get()]
    }
    /// A slot from two raw words (salt and IV of an encrypted block).
    #[must_use]
    pub fn from_words(words: [u64; 2]) -> Self {
        Self { word: [U64::new(words[0]), U64::new(words[1])] }
    }
}
impl fmt::Debug for Dva {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{:x}:{:x}{}",
            self.vdev(),
            self.offset(),
            self.asize(),
            if self.is_gang() { ":gang" } else { "" }
        )
    }
}

/// A block pointer: 128 bytes that say where a block is, how it is stored and what its checksum is.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Blkptr {
    /// Up to three copies; the third slot holds salt and IV of an encrypted block.
    pub dva: [Dva; 3],
    prop: U64,
    prop2: U64,
    pad: U64,
    physical_birth: U64,
    birth: U64,
    fill: U64,
    cksum: [U64; 4],
}
const _: () = assert!(size_of::<Blkptr>() == 128);
const _: () = assert!(std::mem::offset_of!(Blkptr, prop) == 0x30);
const _: () = assert!(std::mem::offset_of!(Blkptr, birth) == 0x50);
const _: () = assert!(std::mem::offset_of!(Blkptr, cksum) == 0x60);

/// What the payload of an embedded block pointer means (`bp_embedded_type_t`).
pub const EMBEDDED_DATA: u8 = 0;
/// The block was left out of a redacted snapshot.
pub const EMBEDDED_REDACTED: u8 = 2;
/// Bytes of payload an embedded block pointer can hold (`BPE_PAYLOAD_SIZE`).
pub const EMBEDDED_MAX: usize = 112;

macro_rules! prop_bits {
    ($($(#[$doc:meta])* $get:ident $set:ident $low:literal $len:literal;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $get(&self) -> u64 { bits(self.prop.get(), $low, $len) }
        /// Sets the field of the same name.
        pub fn $set(&mut self, value: u64) { self.prop = U64::new(with_bits(self.prop.get(), $low, $len, value)); }
    )*};
}

#[allow(clippy::cast_possible_truncation)] // every field is masked to its width first
impl Blkptr {
    prop_bits! {
        /// Raw bits 0..16 of the property word.
        lsize_bits set_lsize_bits 0 16;
        /// Raw bits 16..32.
        psize_bits set_psize_bits 16 16;
        /// Compression number.
        compress_bits set_compress_bits 32 7;
        /// Checksum number, or the embedded type.
        checksum_bits set_checksum_bits 40 8;
        /// Object type number.
        type_bits set_type_bits 48 8;
        /// Level bits.
        level_bits set_level_bits 56 5;
    }
    /// A hole that remembers its birth and shape.
    #[must_use]
    pub fn hole(birth: Txg, kind: ObjectType, level: u8, lsize: u64) -> Self {
        let mut bp = Self::default();
        if birth.0 != 0 {
            bp.set_type(kind);
            bp.set_level(level);
            bp.set_lsize(lsize);
            bp.set_birth(birth);
        }
        bp
    }
    /// Nothing is stored: reads as zeros.
    #[must_use]
    pub fn is_hole(&self) -> bool {
        !self.is_embedded() && self.dva[0].is_empty()
    }
    /// The payload is in the pointer itself.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        bits(self.prop.get(), 39, 1) == 1
    }
    /// Marks the pointer as embedded or not.
    pub fn set_embedded(&mut self, on: bool) {
        self.prop = U64::new(with_bits(self.prop.get(), 39, 1, u64::from(on)));
    }
    /// How to interpret the payload of an embedded pointer.
    #[must_use]
    pub fn embedded_type(&self) -> u8 {
        self.checksum_bits() as u8
    }
    /// Left out by redaction.
    #[must_use]
    pub fn is_redacted(&self) -> bool {
        self.is_embedded() && self.embedded_type() == EMBEDDED_REDACTED
    }
    /// The first DVA leads to a gang header.
    #[must_use]
    pub fn is_gang(&self) -> bool {
        !self.is_embedded() && self.dva[0].is_gang()
    }
    /// Logical size in bytes: uncompressed.
    #[must_use]
    pub fn lsize(&self) -> u64 {
        if self.is_embedded() {
            return if self.embedded_type() == EMBEDDED_DATA {
                bits(self.prop.get(), 0, 25).wrapping_add(1)
            } else {
                0
            };
        }
        self.lsize_bits().wrapping_add(1).wrapping_shl(9)
    }
    /// Sets the logical size of a pointer that is not embedded; `bytes` a multiple of 512.
    pub fn set_lsize(&mut self, bytes: u64) {
        self.set_lsize_bits((bytes >> 9).wrapping_sub(1));
    }
    /// Physical size in bytes: compressed. 0 for embedded pointers, see [`Self::embedded_psize`].
    #[must_use]
    pub fn psize(&self) -> u64 {
        if self.is_embedded() { 0 } else { self.psize_bits().wrapping_add(1).wrapping_shl(9) }
    }
    /// Sets the physical size of a pointer that is not embedded; `bytes` a multiple of 512.
    pub fn set_psize(&mut self, bytes: u64) {
        self.set_psize_bits((bytes >> 9).wrapping_sub(1));
    }
    /// Bytes of (compressed) payload in an embedded pointer.
    #[must_use]
    pub fn embedded_psize(&self) -> u64 {
        bits(self.prop.get(), 25, 7).wrapping_add(1)
    }
    /// Sum of the allocated sizes of all copies, in bytes.
    #[must_use]
    pub fn asize(&self) -> u64 {
        if self.is_embedded() { 0 } else { self.dvas().iter().fold(0_u64, |a, d| a.wrapping_add(d.asize())) }
    }
    /// Uncompressed size as space accounting counts it: physical for metadata, logical for data.
    #[must_use]
    pub fn ucsize(&self) -> u64 {
        if self.level() > 0 || self.kind().is_metadata() { self.psize() } else { self.lsize() }
    }
    /// The copies in use; never the salt and IV slot of an encrypted block.
    #[must_use]
    pub fn dvas(&self) -> &[Dva] {
        if self.is_embedded() {
            return &[];
        }
        let max = if self.is_encrypted() { 2 } else { 3 };
        let n = self.dva.iter().take(max).take_while(|d| d.asize() != 0).count();
        self.dva.get(..n).unwrap_or(&[])
    }
    /// Compression of the stored bytes.
    #[must_use]
    pub fn compress(&self) -> Compress {
        Compress(self.compress_bits() as u8)
    }
    /// Sets the compression.
    pub fn set_compress(&mut self, c: Compress) {
        self.set_compress_bits(u64::from(c.0));
    }
    /// Checksum algorithm; off for embedded pointers.
    #[must_use]
    pub fn checksum(&self) -> Checksum {
        if self.is_embedded() { Checksum::OFF } else { Checksum(self.checksum_bits() as u8) }
    }
    /// Sets the checksum algorithm.
    pub fn set_checksum(&mut self, c: Checksum) {
        self.set_checksum_bits(u64::from(c.0));
    }
    /// Object type of the contents.
    #[must_use]
    pub fn kind(&self) -> ObjectType {
        ObjectType(self.type_bits() as u8)
    }
    /// Sets the object type.
    pub fn set_type(&mut self, t: ObjectType) {
        self.set_type_bits(u64::from(t.0));
    }
    /// Level of indirection: 0 is data.
    #[must_use]
    pub fn level(&self) -> u8 {
        self.level_bits() as u8
    }
    /// Sets the level.
    pub fn set_level(&mut self, level: u8) {
        self.set_level_bits(u64::from(level));
    }
    /// Whether `other` says the same of its block, wherever that lies: sizes, type, algorithms, byte order and sum.
    #[must_use]
    pub fn is_stored_as(&self, other: &Self) -> bool {
        self.prop == other.prop && self.cksum == other.cksum
    }
    /// The crypt bit: encrypted, authenticated or MAC-summed (`BP_USES_CRYPT`).
    #[must_use]
    pub fn uses_crypt(&self) -> bool {
        bits(self.prop.get(), 61, 1) == 1
    }
    /// Sets the crypt bit.
    pub fn set_crypt(&mut self, on: bool) {
        self.prop = U64::new(with_bits(self.prop.get(), 61, 1, u64::from(on)));
    }
    /// The contents are ciphertext (`BP_IS_ENCRYPTED`).
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.uses_crypt() && self.level() == 0 && self.kind().is_encrypted()
    }
    /// The contents are plain, with a keyed MAC (`BP_IS_AUTHENTICATED`).
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.uses_crypt() && self.level() == 0 && !self.kind().is_encrypted()
    }
    /// An indirect block with a sum over its children's MACs (`BP_HAS_INDIRECT_MAC_CKSUM`).
    #[must_use]
    pub fn has_indirect_mac(&self) -> bool {
        self.uses_crypt() && self.level() > 0
    }
    /// In the dedup table.
    #[must_use]
    pub fn is_dedup(&self) -> bool {
        bits(self.prop.get(), 62, 1) == 1
    }
    /// Sets the dedup bit.
    pub fn set_dedup(&mut self, on: bool) {
        self.prop = U64::new(with_bits(self.prop.get(), 62, 1, u64::from(on)));
    }
    /// Contents are little-endian.
    #[must_use]
    pub fn is_little_endian(&self) -> bool {
        bits(self.prop.get(), 63, 1) == 1
    }
    /// Sets the byte order of the contents.
    pub fn set_little_endian(&mut self, on: bool) {
        self.prop = U64::new(with_bits(self.prop.get(), 63, 1, u64::from(on)));
    }
    /// The whole property word (as in the MAC computations).
    #[must_use]
    pub fn prop(&self) -> u64 {
        self.prop.get()
    }
    /// Sets the whole property word.
    pub fn set_prop(&mut self, prop: u64) {
        self.prop = U64::new(prop);
    }
    /// Logical birth: the txg in which the contents were last changed.
    #[must_use]
    pub fn birth(&self) -> Txg {
        Txg(self.birth.get())
    }
    /// Sets the logical birth; the physical birth becomes «the same» (0).
    pub fn set_birth(&mut self, txg: Txg) {
        self.birth = U64::new(txg.0);
        if !self.is_embedded() {
            self.physical_birth = U64::new(0);
        }
    }
    /// The txg in which the copies were written; as the logical birth unless remapped or cloned.
    #[must_use]
    pub fn physical_birth(&self) -> Txg {
        if self.is_embedded() {
            return Txg(0);
        }
        if self.physical_birth.get() == 0 { self.birth() } else { Txg(self.physical_birth.get()) }
    }
    /// Sets the raw physical birth word.
    pub fn set_physical_birth_word(&mut self, txg: u64) {
        self.physical_birth = U64::new(txg);
    }
    /// The block was rewritten in place of another with the same contents (`BP_GET_REWRITE`).
    #[must_use]
    pub fn is_rewrite(&self) -> bool {
        !self.is_embedded() && bits(self.prop2.get(), 63, 1) == 1
    }
    /// When the block was allocated (`BP_GET_BIRTH`): what decides whether a snapshot holds it.
    #[must_use]
    pub fn alloc_birth(&self) -> Txg {
        if self.is_rewrite() { self.physical_birth() } else { self.birth() }
    }
    /// Number of non-hole level-0 blocks (of used dnodes, for the metadnode) below.
    #[must_use]
    pub fn fill(&self) -> u64 {
        if self.is_embedded() {
            1
        } else if self.is_encrypted() {
            bits(self.fill.get(), 0, 32)
        } else {
            self.fill.get()
        }
    }
    /// Sets the fill count, leaving the IV bits of an encrypted block. Set type, level and crypt bit first.
    pub fn set_fill(&mut self, fill: u64) {
        let word = if self.is_encrypted() { with_bits(self.fill.get(), 0, 32, fill) } else { fill };
        self.fill = U64::new(word);
    }
    /// The four checksum words.
    #[must_use]
    pub fn cksum(&self) -> [u64; 4] {
        self.cksum.map(U64::get)
    }
    /// Sets the four checksum words.
    pub fn set_cksum(&mut self, words: [u64; 4]) {
        self.cksum = words.map(U64::new);
    }
    /// Salt of an encrypted block: 8 bytes. Salt, IV and MAC are byte strings in words of the block's own
    /// order (`zio_crypt_decode_params_bp`, zio_crypt.c): set the byte order before them.
    #[must_use]
    pub fn salt(&self) -> [u8; 8] {
        self.word_bytes(self.dva[2].words()[0])
    }
    /// 96-bit IV of an encrypted block.
    #[must_use]
    pub fn iv(&self) -> [u8; 12] {
        let tail = bits(self.fill.get(), 32, 32) as u32;
        let tail = if self.is_little_endian() { tail.to_le_bytes() } else { tail.to_be_bytes() };
        let mut iv = [0; 12];
        let (a, b) = iv.split_at_mut(8);
        a.copy_from_slice(&self.word_bytes(self.dva[2].words()[1]));
        b.copy_from_slice(&tail);
        iv
    }
    /// Stores salt and IV; type, level, byte order and crypt bit must be set before.
    pub fn set_salt_iv(&mut self, salt: [u8; 8], iv: [u8; 12]) {
        let [a, b, c, d, e, f, g, h, tail @ ..] = iv;
        let tail = if self.is_little_endian() { u32::from_le_bytes(tail) } else { u32::from_be_bytes(tail) };
        self.dva[2] = Dva::from_words([self.bytes_word(salt), self.bytes_word([a, b, c, d, e, f, g, h])]);
        self.fill = U64::new(with_bits(self.fill.get(), 32, 32, u64::from(tail)));
    }
    /// The 128-bit MAC in checksum words 2 and 3.
    #[must_use]
    pub fn mac(&self) -> [u8; 16] {
        let mut mac = [0; 16];
        let (a, b) = mac.split_at_mut(8);
        a.copy_from_slice(&self.word_bytes(self.cksum[2].get()));
        b.copy_from_slice(&self.word_bytes(self.cksum[3].get()));
        mac
    }
    /// Stores the MAC, leaving checksum words 0 and 1; the byte order must be set before.
    pub fn set_mac(&mut self, mac: [u8; 16]) {
        let [a, b, c, d, e, f, g, h, rest @ ..] = mac;
        self.cksum[2] = U64::new(self.bytes_word([a, b, c, d, e, f, g, h]));
        self.cksum[3] = U64::new(self.bytes_word(rest));
    }
    fn word_bytes(&self, word: u64) -> [u8; 8] {
        if self.is_little_endian() { word.to_le_bytes() } else { word.to_be_bytes() }
    }
    fn bytes_word(&self, bytes: [u8; 8]) -> u64 {
        if self.is_little_endian() { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) }
    }
    /// The payload bytes of an embedded pointer, still compressed; at most [`EMBEDDED_MAX`].
    #[must_use]
    pub fn embedded_payload(&self) -> Vec<u8> {
        let mut out: Vec<u8> = Vec::with_capacity(EMBEDDED_MAX);
        for (i, word) in self.as_bytes().chunks_exact(8).enumerate() {
            if i != 6 && i != 10 {
                out.extend_from_slice(word);
            }
        }
        out.truncate(self.embedded_psize() as usize);
        out
    }
    /// An embedded data pointer (`encode_embedded_bp_compressed`, blkptr.c), or `None` if `payload` is
    /// empty or longer than [`EMBEDDED_MAX`].
    #[must_use]
    pub fn embed(
        payload: &[u8],
        lsize: u64,
        compress: Compress,
        kind: ObjectType,
        level: u8,
        birth: Txg,
    ) -> Option<Self> {
        let psize = u64::try_from(payload.len()).ok()?;
        if payload.is_empty() || payload.len() > EMBEDDED_MAX || lsize == 0 || lsize > mask(25) {
            return None;
        }
        let mut padded = [0_u8; EMBEDDED_MAX];
        padded.get_mut(..payload.len())?.copy_from_slice(payload);
        let mut bp = Self::default();
        let mut from = padded.chunks_exact(8);
        for (i, word) in bp.as_mut_bytes().chunks_exact_mut(8).enumerate() {
            if i != 6 && i != 10 {
                word.copy_from_slice(from.next()?);
            }
        }
        bp.set_embedded(true);
        bp.set_little_endian(true);
        bp.set_compress(compress);
        bp.set_type(kind);
        bp.set_level(level);
        bp.prop = U64::new(with_bits(
            with_bits(bp.prop.get(), 0, 25, lsize.wrapping_sub(1)),
            25,
            7,
            psize.wrapping_sub(1),
        ));
        bp.birth = U64::new(birth.0);
        Some(bp)
    }
    /// Whether the pointer may be followed: known sizes and algorithms, a sane birth.
    pub fn check(&self) -> Result<(), Corrupt> {
        let bad = |why: String| Err(Corrupt::new("blkptr", why));
        if self.is_hole() {
            return Ok(());
        }
        if self.compress().0 > Compress::ZSTD.0 || self.compress().0 < Compress::OFF.0 {
            return bad(format!("compression {}", self.compress().0));
        }
        if self.is_embedded() {
            return match self.embedded_type() {
                EMBEDDED_DATA
                    if self.embedded_psize() <= EMBEDDED_MAX as u64
                        && self.lsize() <= crate::units::MAX_BLOCK =>
                {
                    Ok(())
                }
                EMBEDDED_REDACTED => Ok(()),
                other => bad(format!(
                    "embedded type {other} with {} bytes of {}",
                    self.embedded_psize(),
                    self.lsize()
                )),
            };
        }
        if self.checksum().0 > Checksum::BLAKE3.0 || self.checksum().0 < Checksum::OFF.0 {
            return bad(format!("checksum {}", self.checksum().0));
        }
        if self.lsize() > crate::units::MAX_BLOCK || self.psize() > crate::units::MAX_BLOCK {
            return bad(format!("size {} stored as {}", self.lsize(), self.psize()));
        }
        if self.compress().is_off() && !self.is_gang() && self.psize() < self.lsize() {
            return bad(format!("{} bytes stored uncompressed in {}", self.lsize(), self.psize()));
        }
        if self.dvas().is_empty() {
            return bad("no copy".into());
        }
        if !self.kind().is_valid() {
            return bad(format!("type {}", self.kind().0));
        }
        Ok(())
    }
}

impl fmt::Debug for Blkptr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_hole() {
            return write!(
                f,
                "[L{} {} HOLE {}L birth={}]",
                self.level(),
                self.kind().text(),
                self.lsize(),
                self.birth()
            );
        }
        if self.is_embedded() {
            return write!(
                f,
                "[L{} {} EMBEDDED {}L/{}P birth={}]",
                self.level(),
                self.kind().text(),
                self.lsize(),
                self.embedded_psize(),
                self.birth()
            );
        }
        write!(
            f,
            "[L{} {} {:?} {:?} {}{}{}L/{}P birth={}/{} fill={} cksum={:x?} dva={:?}]",
            self.level(),
            self.kind().text(),
            self.checksum(),
            self.compress(),
            if self.uses_crypt() { "crypt " } else { "" },
            if self.is_dedup() { "dedup " } else { "" },
            self.lsize(),
            self.psize(),
            self.birth(),
            self.physical_birth(),
            self.fill(),
            self.cksum(),
            self.dvas()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_round_trip() {
        let data: Vec<u8> = (0..100).collect();
        let bp =
            Blkptr::embed(&data, 512, Compress::LZ4, ObjectType::PLAIN_FILE_CONTENTS, 0, Txg(7)).unwrap();
        assert!(bp.is_embedded() && !bp.is_hole());
        assert_eq!(
            (bp.embedded_payload(), bp.lsize(), bp.birth(), bp.compress()),
            (data, 512, Txg(7), Compress::LZ4)
        );
    }

    #[test]
    fn iv_and_fill_share_a_word() {
        let mut bp = Blkptr::default();
        bp.set_type(ObjectType::PLAIN_FILE_CONTENTS);
        bp.set_crypt(true);
        bp.set_salt_iv([1; 8], [2; 12]);
        bp.set_fill(1);
        assert_eq!((bp.iv(), bp.salt(), bp.fill()), ([2; 12], [1; 8], 1));
    }
}
