//! Resume tokens: the text by which an interrupted receive tells its sender where to go on
//! (`get_receive_resume_token_impl`, dsl_dataset.c; `zfs_send_resume_token_to_nvlist`, libzfs_sendrecv.c).
//!
//! Invariants:
//! 1. A token is foreign text: nothing is allocated by what it claims beyond [`PACKED_MAX`].
//! 2. Fields not known here are kept in [`ResumeToken::list`].

use icecore_format::nvlist::NvList;
use icecore_format::{Compress, fletcher::Fletcher4};
use icecore_transform::compress;
use std::fmt;

/// Longest unpacked list accepted.
pub const PACKED_MAX: usize = 64 << 10;
/// The version of the text form (`ZFS_SEND_RESUME_TOKEN_VERSION`).
const VERSION: u32 = 1;
/// zlib at level 6, as OpenZFS packs tokens.
const ZLIB: Compress = Compress(Compress::GZIP_1.0 + 5);

/// Where a send goes on, and with which flags.
#[derive(Clone, PartialEq, Debug)]
pub struct ResumeToken {
    /// The snapshot's name at the sender.
    pub toname: String,
    /// Its guid.
    pub toguid: u64,
    /// Guid of the incremental source; 0 for a full stream.
    pub fromguid: u64,
    /// Object of the last record.
    pub object: u64,
    /// Byte offset of the last record in it.
    pub offset: u64,
    /// Bytes received so far.
    pub bytes: u64,
    /// `-L`.
    pub large_block: bool,
    /// `-e`.
    pub embed: bool,
    /// `-c`.
    pub compress: bool,
    /// `-w`.
    pub raw: bool,
    /// `-S`.
    pub saved: bool,
    /// All the token says.
    pub list: NvList,
}

/// What is wrong with a token.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TokenError {
    /// Not `version-checksum-length-payload`.
    Format,
    /// Of a version not known.
    Version(u32),
    /// The payload is not hexadecimal.
    Hex,
    /// The payload is damaged.
    Checksum,
    /// The payload does not unpack to the length it claims, or to more than [`PACKED_MAX`].
    Decompression,
    /// The payload is no list.
    List,
    /// The list lacks a field that must be there.
    Missing(&'static str),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "resume token is corrupt (")?;
        match self {
            Self::Format => write!(f, "invalid format"),
            Self::Version(v) => write!(f, "invalid version {v}"),
            Self::Hex => write!(f, "payload is not hex-encoded"),
            Self::Checksum => write!(f, "incorrect checksum"),
            Self::Decompression => write!(f, "decompression failed"),
            Self::List => write!(f, "nvlist_unpack failed"),
            Self::Missing(field) => write!(f, "no {field}"),
        }?;
        write!(f, ")")
    }
}
impl std::error::Error for TokenError {}

impl ResumeToken {
    /// Reads a token's text.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        Self::from_list(decode(text.trim())?)
    }

    fn from_list(list: NvList) -> Result<Self, TokenError> {
        let number = |name: &'static str| list.u64(name).ok_or(TokenError::Missing(name));
        let has = |name| list.contains(name);
        Ok(Self {
            toname: list.str("toname").ok_or(TokenError::Missing("toname"))?.to_owned(),
            toguid: number("toguid")?,
            fromguid: list.u64("fromguid").unwrap_or(0),
            object: number("object")?,
            offset: number("offset")?,
            bytes: number("bytes")?,
            large_block: has("largeblockok"),
            embed: has("embedok"),
            compress: has("compressok"),
            raw: has("rawok"),
            saved: has("savedok"),
            list,
        })
    }

    /// The list a receiver packs, in its order.
    #[must_use]
    pub fn to_list(&self) -> NvList {
        let mut list = NvList::new();
        if self.fromguid != 0 {
            list.set("fromguid", self.fromguid);
        }
        list.set("object", self.object)
            .set("offset", self.offset)
            .set("bytes", self.bytes)
            .set("toguid", self.toguid)
            .set("toname", self.toname.as_str());
        let flags = [
            (self.large_block, "largeblockok"),
            (self.embed, "embedok"),
            (self.compress, "compressok"),
            (self.raw, "rawok"),
            (self.saved, "savedok"),
        ];
        for (_, name) in flags.iter().filter(|(on, _)| *on) {
            list.set_flag(*name);
        }
        for name in ["redact_snaps", "book_redact_snaps"] {
            if let Some(snaps) = self.list.u64_array(name) {
                list.set(name, snaps);
            }
        }
        list
    }
}

/// The list inside a token's text.
pub fn decode(text: &str) -> Result<NvList, TokenError> {
    let mut parts = text.splitn(4, '-');
    let mut part = || parts.next().ok_or(TokenError::Format);
    let version = part()?.parse::<u32>().map_err(|_| TokenError::Format)?;
    let sum = u64::from_str_radix(part()?, 16).map_err(|_| TokenError::Format)?;
    let packed_len = usize::from_str_radix(part()?, 16).map_err(|_| TokenError::Format)?;
    // What stands after the last dash (`zfs_send_resume_token_to_nvlist`, libzfs_sendrecv.c).
    let payload = part()?.rsplit('-').next().and_then(from_hex).ok_or(TokenError::Hex)?;
    if version != VERSION {
        return Err(TokenError::Version(version));
    }
    if Fletcher4::of(&payload).a != sum {
        return Err(TokenError::Checksum);
    }
    if packed_len > PACKED_MAX {
        return Err(TokenError::Decompression);
    }
    let packed = compress::decompress(ZLIB, &payload, packed_len).map_err(|_| TokenError::Decompression)?;
    NvList::decode(&packed).map(|(list, _)| list).map_err(|_| TokenError::List)
}

pub use icecore_dsl::resume::encode_token as encode;

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    // Half a byte at the end is nobody's (`zfs_send_resume_token_to_nvlist`).
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| Some(digit(pair[0])?.wrapping_mul(16) | digit(pair[1])?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> NvList {
        let mut list = NvList::new();
        list.set("fromguid", 3_u64).set("object", 7_u64).set("offset", 131_072_u64).set("bytes", 99_u64);
        list.set("toguid", 0xdead_beef_u64).set("toname", "p/a@s").set_flag("rawok");
        list
    }

    #[test]
    fn tokens_round_trip_in_both_packings() {
        for packed in [list().encode_native(), list().encode_xdr()] {
            let token = ResumeToken::parse(&encode(&packed)).unwrap();
            assert_eq!((token.object, token.offset, token.fromguid), (7, 131_072, 3));
            assert!(token.raw && !token.compress);
            assert_eq!(token.to_list(), list());
        }
    }

    #[test]
    fn damaged_tokens_are_refused() {
        let good = encode(&list().encode_native());
        let (head, payload) = good.rsplit_once('-').unwrap();
        let check =
            |text: &str, want: TokenError| assert_eq!(ResumeToken::parse(text).unwrap_err(), want, "{text}");
        check("", TokenError::Format);
        check("1-2-3", TokenError::Format);
        check(&good.replacen('1', "2", 1), TokenError::Version(2));
        check(&format!("{head}-{payload}zz"), TokenError::Hex);
        check(&format!("{head}-{payload}00000001"), TokenError::Checksum);
        let mut parts: Vec<&str> = good.split('-').collect();
        parts[2] = "ffffffffff";
        check(&parts.join("-"), TokenError::Decompression);
        parts[2] = "8";
        check(&parts.join("-"), TokenError::Decompression);
        check(&encode(b"no list at all"), TokenError::List);
        check(&encode(&NvList::new().with("toname", "a@b").encode_native()), TokenError::Missing("toguid"));
    }
}
