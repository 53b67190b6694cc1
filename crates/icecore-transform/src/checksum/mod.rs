//! Block checksums: which algorithm a number stands for, how its 256 bits become the four words of a block
//! pointer, and what a MAC leaves of them (`zio_checksum_table`, zio_checksum.c).
//!
//! Invariants:
//! 1. The words are those a little-endian machine holds in memory. A block of foreign byte order has its
//!    words swapped; SHA-256 alone has the same words in both orders.
//! 2. Of a block with the crypt bit (objsets excepted) only words 0 and 1 are the checksum; 2 and 3 are the
//!    MAC, which is proven elsewhere. Algorithms too weak for dedup fold the lost half in by XOR.
//! 3. Checksums at the tail of the block itself (labels, gang headers, intent log) live in [`embedded`].

pub mod edonr;
pub mod embedded;
pub mod fletcher;
mod fletcher_avx2;
pub mod skein;

use icecore_format::{Blkptr, Checksum, ObjectType};
use sha2::{Digest, Sha256, Sha512_256};
use std::fmt;

/// The pool's 32 secret bytes that key skein, edonr and blake3 (`org.illumos:checksum_salt` in the MOS).
#[derive(Clone, PartialEq, Eq)]
pub struct PoolSalt(pub [u8; 32]);

impl fmt::Debug for PoolSalt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PoolSalt(..)")
    }
}

/// The algorithm is unknown, needs a salt that was not given, or is not a checksum of plain data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsupported(pub Checksum);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checksum algorithm {} can not be computed here", self.0.0)
    }
}
impl std::error::Error for Unsupported {}

/// Why a block was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VerifyError {
    /// The bytes are not those that were written. Another copy may do.
    Mismatch {
        /// What the pointer, or the block's tail, says.
        expected: [u64; 4],
        /// What the bytes give.
        actual: [u64; 4],
    },
    /// The block's own trailer makes no sense, so there is nothing to compare with.
    NoTrailer,
    /// The algorithm can not be computed.
    Unsupported(Unsupported),
}

impl From<Unsupported> for VerifyError {
    fn from(e: Unsupported) -> Self {
        Self::Unsupported(e)
    }
}
impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch { expected, actual } => {
                write!(f, "checksum {actual:x?} where {expected:x?} was expected")
            }
            Self::NoTrailer => f.write_str("no checksum trailer"),
            Self::Unsupported(e) => e.fmt(f),
        }
    }
}
impl std::error::Error for VerifyError {}

/// The four words of `data` under algorithm `kind`. `little_endian` is the byte order the block was written
/// in. OFF and NOPARITY give zeros.
pub fn compute(
    kind: Checksum,
    data: &[u8],
    salt: Option<&PoolSalt>,
    little_endian: bool,
) -> Result<[u64; 4], Unsupported> {
    let salted = || salt.ok_or(Unsupported(kind));
    let words = match kind {
        Checksum::OFF | Checksum::NOPARITY => [0; 4],
        Checksum::FLETCHER_2 | Checksum::ZILOG => return Ok(fletcher::fletcher2(data, little_endian)),
        Checksum::FLETCHER_4 | Checksum::ZILOG2 => return Ok(fletcher::fletcher4(data, little_endian)),
        Checksum::SHA256 | Checksum::LABEL | Checksum::GANG_HEADER => return Ok(sha256(data)),
        Checksum::SHA512 => words_le(&Sha512_256::digest(data).into()),
        Checksum::SKEIN => words_le(&skein::skein_512_256(&salted()?.0, data)),
        Checksum::EDONR => words_le(&edonr::edonr_512_keyed(&salted()?.0, data)),
        Checksum::BLAKE3 => words_le(blake3::keyed_hash(&salted()?.0, data).as_bytes()),
        _ => return Err(Unsupported(kind)),
    };
    Ok(if little_endian { words } else { words.map(u64::swap_bytes) })
}

/// SHA-256 as four big-endian words, which is how ZFS holds it whatever the machine.
#[must_use]
pub fn sha256(data: &[u8]) -> [u64; 4] {
    words_le(&Sha256::digest(data).into()).map(u64::swap_bytes)
}

/// The same over two parts, one behind the other.
fn sha256_of(parts: [&[u8]; 2]) -> [u64; 4] {
    let sum = parts.iter().fold(Sha256::new(), |sum, part| sum.chain_update(part));
    words_le(&sum.finalize().into()).map(u64::swap_bytes)
}

/// Whether the algorithm is strong enough for dedup (`ZCHECKSUM_FLAG_DEDUP`), and so may simply be cut in
/// half to make room for a MAC.
#[must_use]
pub fn fits_dedup(kind: Checksum) -> bool {
    matches!(kind, Checksum::SHA256 | Checksum::SHA512 | Checksum::SKEIN | Checksum::BLAKE3)
}

/// The words as they stand in a block pointer that carries a MAC: halved (with XOR for the weak
/// algorithms), the given MAC words behind them (`zio_checksum_handle_crypt`, zio_checksum.c).
#[must_use]
pub fn fold(kind: Checksum, words: [u64; 4], mac_words: [u64; 2]) -> [u64; 4] {
    let [a, b, c, d] = words;
    let (a, b) = if fits_dedup(kind) { (a, b) } else { (a ^ c, b ^ d) };
    [a, b, mac_words[0], mac_words[1]]
}

/// Whether words 2 and 3 of the pointer's checksum are a MAC.
#[must_use]
pub fn carries_mac(bp: &Blkptr) -> bool {
    bp.uses_crypt() && bp.kind() != ObjectType::OBJSET
}

/// Checks the physical bytes of a block against its pointer. Always true where nothing was summed: holes,
/// embedded pointers, OFF. A ganged block is checked once put together; its headers are checked by
/// [`embedded::gang_verify`].
pub fn verify(bp: &Blkptr, data: &[u8], salt: Option<&PoolSalt>) -> Result<(), VerifyError> {
    verify_words(bp, data, salt).map(|_| ())
}

/// As [`verify`]; gives all four words where they had to be computed over the whole of `data`. A pointer with
/// a MAC holds but half of them.
pub fn verify_words(
    bp: &Blkptr,
    data: &[u8],
    salt: Option<&PoolSalt>,
) -> Result<Option<[u64; 4]>, VerifyError> {
    let kind = bp.checksum();
    match kind {
        _ if bp.is_hole() || bp.is_embedded() => return Ok(None),
        Checksum::OFF | Checksum::NOPARITY => return Ok(None),
        Checksum::ZILOG | Checksum::ZILOG2 => return embedded::zil_verify(bp, data).map(|()| None),
        Checksum::LABEL | Checksum::GANG_HEADER => return Err(Unsupported(kind).into()),
        _ => {}
    }
    let actual = compute(kind, data, salt, bp.is_little_endian())?;
    compare(bp, kind, bp.cksum(), actual).map(|()| Some(actual))
}

/// Computes the checksum of the physical bytes by the pointer's algorithm and stores it in the pointer.
/// Where a MAC lives in words 2 and 3 it must be there already and stays.
pub fn seal(bp: &mut Blkptr, data: &[u8], salt: Option<&PoolSalt>) -> Result<(), Unsupported> {
    let words = compute(bp.checksum(), data, salt, bp.is_little_endian())?;
    seal_with(bp, words);
    Ok(())
}

/// As [`seal`], where the four words are known already.
pub fn seal_with(bp: &mut Blkptr, words: [u64; 4]) {
    let [_, _, mac0, mac1] = bp.cksum();
    bp.set_cksum(if carries_mac(bp) { fold(bp.checksum(), words, [mac0, mac1]) } else { words });
}

fn compare(
    bp: &Blkptr,
    kind: Checksum,
    mut expected: [u64; 4],
    mut actual: [u64; 4],
) -> Result<(), VerifyError> {
    if carries_mac(bp) {
        actual = fold(kind, actual, [0; 2]);
        expected = [expected[0], expected[1], 0, 0];
    }
    if actual == expected { Ok(()) } else { Err(VerifyError::Mismatch { expected, actual }) }
}

fn words_le(digest: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(digest.chunks_exact(8)) {
        *word = bytes.try_into().map_or(0, u64::from_le_bytes);
    }
    words
}
