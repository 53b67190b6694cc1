//! One block between its stored and its logical form: everything from the checksum to the byte order, as
//! pure functions. Used by reads, by scrub and by inspection.
//!
//! Invariants:
//! 1. `open` never returns bytes whose MAC was due and did not verify.
//! 2. What `close` makes, `open` undoes; the pointer's fields are those OpenZFS's `zio_write_compress` and
//!    `zio_encrypt` (zio.c) set.
//!
//! Does not do: device I/O, allocation, holes and embedded pointers on the way in (see `write`).

use icecore_dmu::{Form, NewBlock, RawCrypt, ReadError, Want, WriteError};
use icecore_format::byteswap::swap_block;
use icecore_format::fletcher::Fletcher4;
use icecore_format::object_type::Bswap;
use icecore_format::{Blkptr, Bookmark, Checksum, Compress, Corrupt, ObjectType, Txg};
use icecore_transform::checksum::{self, PoolSalt};
use icecore_transform::compress::{self, AllocSizes, Compressed, Embed};
use icecore_transform::crypt::{self, CryptError, MasterKeys, Nonce};
use std::sync::Arc;

/// The keys of an encrypted dataset.
pub type Keys = Arc<MasterKeys>;

/// The logical (or, for [`Want::NoKey`], half-logical) contents of a block whose checksum was right. What is unpacked goes into
/// `room`, whatever was in it.
pub fn open(
    bp: &Blkptr,
    at: &Bookmark,
    mut stored: Vec<u8>,
    want: Want,
    keys: Option<&Keys>,
    room: Vec<u8>,
) -> Result<Vec<u8>, ReadError> {
    if want == Want::Stored {
        return Ok(stored);
    }
    let failed = |e: CryptError| match e {
        CryptError::Unsupported(what) => ReadError::Unsupported(what.into()),
        CryptError::Malformed(c) => ReadError::Corrupt(c),
        CryptError::Authentication => ReadError::Checksum { at: *at, bp: Box::new(*bp) },
    };
    if bp.has_indirect_mac() {
        crypt::check_indirect(bp, &stored).map_err(failed)?;
    } else if bp.uses_crypt() && want != Want::NoKey {
        let keys = keys.ok_or(ReadError::KeyUnavailable { objset: at.objset })?;
        crypt::decrypt_block(keys, bp, &mut stored).map_err(failed)?;
    } else if bp.is_encrypted() {
        return if bp.kind() == ObjectType::DNODE {
            unpack(bp, at, stored, room) // in the stored byte order: its MAC is over that
        } else {
            Err(ReadError::KeyUnavailable { objset: at.objset })
        };
    }
    if want == Want::Compressed {
        return Ok(stored);
    }
    let mut logical = unpack(bp, at, stored, room)?;
    to_little_endian(bp, &mut logical);
    Ok(logical)
}

fn to_little_endian(bp: &Blkptr, logical: &mut [u8]) {
    if bp.is_little_endian() {
        return;
    }
    swap_block(if bp.level() > 0 { Bswap::U64 } else { bp.kind().bswap() }, logical);
}

/// Decompresses to exactly the logical size.
fn unpack(bp: &Blkptr, at: &Bookmark, stored: Vec<u8>, mut room: Vec<u8>) -> Result<Vec<u8>, ReadError> {
    let lsize = usize::try_from(bp.lsize()).unwrap_or(usize::MAX);
    if bp.compress().is_off() {
        let mut out = stored;
        if out.len() < lsize {
            return Err(Corrupt::new("block", format!("{} bytes of {lsize} at {at}", out.len())).into());
        }
        out.truncate(lsize);
        return Ok(out);
    }
    room.resize(lsize, 0);
    compress::decompress_into(bp.compress(), &stored, &mut room)
        .map_err(|e| Corrupt::new("block", format!("does not decompress at {at}: {e}")))?;
    Ok(room)
}

/// Contents of an embedded pointer.
pub fn open_embedded(bp: &Blkptr, at: &Bookmark, want: Want) -> Result<Vec<u8>, ReadError> {
    if bp.is_redacted() {
        return Err(ReadError::Unsupported(format!("{at} was left out of a redacted snapshot")));
    }
    let payload = bp.embedded_payload();
    if matches!(want, Want::Stored | Want::Compressed) {
        return Ok(payload);
    }
    let mut logical = unpack(bp, at, payload, Vec::new())?;
    to_little_endian(bp, &mut logical);
    Ok(logical)
}

/// What a new block needs besides itself.
#[derive(Clone)]
pub(crate) struct Context<'a> {
    pub txg: Txg,
    pub salt: &'a PoolSalt,
    /// log2 of the smallest allocation of any vdev.
    pub min_shift: u32,
    pub keys: Option<Keys>,
    /// Salt and IV drawn for this block, where it is going to be encrypted.
    pub nonce: Option<Nonce>,
    /// Never compress (late passes of a sync).
    pub no_compress: bool,
}

/// A block ready for its place.
pub(crate) enum Closed {
    /// All zeros.
    Hole,
    /// The whole of it in the pointer.
    Embedded(Blkptr),
    /// Everything set but DVAs; `data` is psize bytes.
    Block { bp: Blkptr, data: Vec<u8> },
}

/// The stored form of a new block and its pointer, without DVAs. Takes the bytes of blocks of data.
pub(crate) fn close(new: &mut NewBlock, cx: &Context<'_>) -> Result<Closed, WriteError> {
    let mut sum = None;
    let (data, algorithm) = match new.form {
        Form::Logical { compress, level, .. } => {
            let algorithm = if cx.no_compress { Compress::OFF } else { compress };
            match pack(new, algorithm, level, cx.min_shift)? {
                Compressed::Hole => return Ok(Closed::Hole),
                Compressed::Embedded(payload) => {
                    let bp = Blkptr::embed(&payload, new.lsize, algorithm, new.kind, new.level, cx.txg);
                    return bp.map(Closed::Embedded).ok_or_else(|| WriteError::Invalid("embedding".into()));
                }
                Compressed::Packed(data) => (data, algorithm),
                Compressed::Stored if new.level == 0 => (std::mem::take(&mut new.data), Compress::OFF),
                Compressed::Stored => (new.data.clone(), Compress::OFF),
            }
        }
        Form::Stored { compress, crypt, sum: known, .. } => {
            if crypt.is_some() && new.kind == ObjectType::DNODE && new.data.iter().all(|b| *b == 0) {
                return Ok(Closed::Hole);
            }
            let len = new.data.len();
            let data = stored_size(new, crypt.is_some(), cx.min_shift);
            sum = known.and_then(|known| padded_sum(known, len, data.len()));
            (data, compress)
        }
    };
    let mut bp = Blkptr::default();
    bp.set_lsize(new.lsize);
    bp.set_psize(data.len() as u64);
    bp.set_compress(algorithm);
    bp.set_checksum(new.checksum);
    bp.set_type(new.kind);
    bp.set_level(new.level);
    bp.set_little_endian(true);
    bp.set_birth(cx.txg);
    let data = protect(new, &mut bp, data, cx)?;
    bp.set_fill(new.fill);
    match sum {
        Some(sum) if bp.checksum() == Checksum::FLETCHER_4 && bp.is_little_endian() => {
            checksum::seal_with(&mut bp, sum.words());
            debug_assert!(checksum::verify(&bp, &data, None).is_ok(), "a known sum is that of the bytes");
        }
        _ => {
            checksum::seal(&mut bp, &data, Some(cx.salt)).map_err(|e| WriteError::Invalid(e.to_string()))?;
        }
    }
    Ok(Closed::Block { bp, data })
}

fn round_up(len: usize, shift: u32) -> usize {
    len.next_multiple_of(1 << shift)
}

fn pack(new: &NewBlock, algorithm: Compress, level: u8, min_shift: u32) -> Result<Compressed, WriteError> {
    if new.data.len() as u64 != new.lsize {
        return Err(WriteError::Invalid(format!("{} bytes for a block of {}", new.data.len(), new.lsize)));
    }
    let has_fill = matches!(new.kind, ObjectType::DNODE | ObjectType::OBJSET);
    let embed = if new.may_embed && new.level == 0 && !has_fill { Embed::Allowed } else { Embed::Never };
    let sizes = AllocSizes::uniform(1 << min_shift);
    Ok(compress::compress_block(algorithm, level, &new.data, sizes, embed))
}

/// Bytes given in stored form, padded: to whole sectors of this pool where nothing is encrypted, else only
/// to 512, because the MAC is over exactly those bytes.
fn stored_size(new: &mut NewBlock, crypt: bool, min_shift: u32) -> Vec<u8> {
    let mut data = std::mem::take(&mut new.data);
    let lsize = usize::try_from(new.lsize).unwrap_or(usize::MAX);
    let rounded = round_up(data.len(), 9);
    let padded = if crypt { rounded } else { round_up(data.len(), min_shift).min(lsize.max(rounded)) };
    data.resize(padded, 0);
    data
}

/// The fletcher4 of `len` bytes with that sum, filled up with zeros; unknown if they end within a word.
fn padded_sum(sum: Fletcher4, len: usize, padded: usize) -> Option<Fletcher4> {
    let zeros = padded.checked_sub(len)?;
    (len.is_multiple_of(4) && zeros.is_multiple_of(4)).then(|| sum.combine(&Fletcher4::ZERO, zeros as u64))
}

/// Encrypts or authenticates, or takes over what the sender did. Sets crypt bit, salt, IV and MAC.
fn protect(new: &NewBlock, bp: &mut Blkptr, data: Vec<u8>, cx: &Context<'_>) -> Result<Vec<u8>, WriteError> {
    let no_key = || WriteError::Read(ReadError::KeyUnavailable { objset: new.at.objset });
    match &new.form {
        Form::Logical { encrypt: false, .. } => Ok(data),
        Form::Stored { little_endian, crypt, .. } => {
            bp.set_little_endian(*little_endian);
            if let Some(RawCrypt { salt, iv, mac }) = crypt {
                bp.set_crypt(true);
                if new.kind != ObjectType::OBJSET {
                    bp.set_mac(*mac);
                }
                if new.kind.is_encrypted() && new.level == 0 {
                    bp.set_salt_iv(*salt, *iv);
                }
            }
            Ok(data)
        }
        Form::Logical { encrypt: true, .. } => {
            let failed = |e: CryptError| WriteError::Invalid(e.to_string());
            bp.set_crypt(true);
            assert!(
                new.level > 0 || !new.kind.is_encrypted() || cx.nonce.is_some() || cx.keys.is_none(),
                "no IV drawn"
            );
            if new.level > 0 {
                bp.set_mac(crypt::indirect_mac(&new.data, true).map_err(failed)?);
                return Ok(data);
            }
            let keys = cx.keys.as_ref().ok_or_else(no_key)?;
            let mut data = data;
            crypt::encrypt_block(keys, bp, &mut data, cx.nonce.unwrap_or(NO_NONCE)).map_err(failed)?;
            Ok(data)
        }
    }
}

/// For blocks that are authenticated only: never used.
const NO_NONCE: Nonce = Nonce { salt: [0; 8], iv: [0; 12] };

/// Whether the algorithm's number is one that data may be summed with.
pub(crate) fn summable(kind: Checksum) -> bool {
    kind.is_none() || kind == Checksum::FLETCHER_2 || kind.fits_metadata()
}
