//! Where a resumable receive stands: entries in the dataset's ZAP, and the token made of them
//! (`get_receive_resume_token_impl`, dsl_dataset.c).

use crate::error::Result;
use crate::lookup::DatasetRef;
use crate::{Dsl, Feature};
use icecore_dmu::zap::ZapValue;
use icecore_dmu::{BlockStore, BlockWriter};
use icecore_format::Compress;
use icecore_format::nvlist::NvList;
use icecore_transform::compress;

/// Name of the child into which a stream for an existing dataset is received (`recv_clone_name`).
pub const RECV_CLONE: &str = "%recv";

pub(crate) const FROMGUID: &str = "com.delphix:resume_fromguid";
pub(crate) const TONAME: &str = "com.delphix:resume_toname";
pub(crate) const TOGUID: &str = "com.delphix:resume_toguid";
pub(crate) const OBJECT: &str = "com.delphix:resume_object";
pub(crate) const OFFSET: &str = "com.delphix:resume_offset";
pub(crate) const BYTES: &str = "com.delphix:resume_bytes";
pub(crate) const LARGEBLOCK: &str = "com.delphix:resume_largeblockok";
pub(crate) const EMBEDOK: &str = "com.delphix:resume_embedok";
pub(crate) const COMPRESSOK: &str = "com.delphix:resume_compressok";
pub(crate) const RAWOK: &str = "com.datto:resume_rawok";
pub(crate) const REDACT: &str = "com.delphix:resume_redact_book_snaps";
const ALL: [&str; 11] =
    [FROMGUID, TONAME, TOGUID, OBJECT, OFFSET, BYTES, LARGEBLOCK, EMBEDOK, COMPRESSOK, RAWOK, REDACT];

/// Where to go on: the last record applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Point {
    /// Object of the last record.
    pub object: u64,
    /// Byte offset of the last record in it.
    pub offset: u64,
    /// Bytes received so far.
    pub bytes: u64,
}

/// Everything the token says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResumeState {
    /// The incremental source's guid, 0 for a full stream.
    pub fromguid: u64,
    /// The snapshot to be.
    pub toguid: u64,
    /// Its name at the sender.
    pub toname: String,
    /// Where to go on.
    pub point: Point,
    /// Blocks above 128 KiB.
    pub largeblock: bool,
    /// Embedded blocks.
    pub embed: bool,
    /// Compressed records.
    pub compress: bool,
    /// Raw records.
    pub raw: bool,
    /// Snapshots the redaction bookmark was made for.
    pub redact_book_snaps: Option<Vec<u64>>,
}

impl Dsl {
    /// The resume state stored in a dataset, if any (`dsl_dataset_has_resume_receive_state` asks for `toguid`).
    pub fn resume_state(&self, io: &dyn BlockStore, obj: u64) -> Result<Option<ResumeState>> {
        let Some(toguid) = self.field_u64(io, obj, TOGUID)? else { return Ok(None) };
        let number = |name| Ok::<_, crate::DslError>(self.field_u64(io, obj, name)?.unwrap_or(0));
        let flag = |name| Ok::<_, crate::DslError>(self.field(io, obj, name)?.is_some());
        let toname = match self.field(io, obj, TONAME)? {
            Some(v) => v.as_str().unwrap_or("").to_string(),
            None => String::new(),
        };
        let redact = match self.field(io, obj, REDACT)? {
            Some(ZapValue::U64(v)) => Some(v),
            _ => None,
        };
        Ok(Some(ResumeState {
            fromguid: number(FROMGUID)?,
            toguid,
            toname,
            point: Point { object: number(OBJECT)?, offset: number(OFFSET)?, bytes: number(BYTES)? },
            largeblock: flag(LARGEBLOCK)?,
            embed: flag(EMBEDOK)?,
            compress: flag(COMPRESSOK)?,
            raw: flag(RAWOK)?,
            redact_book_snaps: redact,
        }))
    }

    /// Stores the state at the beginning of a receive (`dmu_recv_begin_sync`).
    pub fn set_resume_state(&mut self, io: &mut dyn BlockWriter, obj: u64, s: &ResumeState) -> Result<()> {
        self.zapify(io, obj)?;
        if s.fromguid != 0 {
            self.zap_put_u64(io, obj, FROMGUID, s.fromguid)?;
        }
        self.zap_put_u64(io, obj, TOGUID, s.toguid)?;
        self.zap_put(io, obj, TONAME, &ZapValue::string(&s.toname))?;
        self.put_point(io, obj, s.point)?;
        for (on, name) in
            [(s.largeblock, LARGEBLOCK), (s.embed, EMBEDOK), (s.compress, COMPRESSOK), (s.raw, RAWOK)]
        {
            if on {
                self.zap_put_u64(io, obj, name, 1)?;
            }
        }
        if let Some(snaps) = &s.redact_book_snaps {
            self.zap_put(io, obj, REDACT, &ZapValue::U64(snaps.clone()))?;
        }
        Ok(())
    }

    pub(crate) fn put_point(&mut self, io: &mut dyn BlockWriter, obj: u64, p: Point) -> Result<()> {
        self.zap_put_u64(io, obj, OBJECT, p.object)?;
        self.zap_put_u64(io, obj, OFFSET, p.offset)?;
        self.zap_put_u64(io, obj, BYTES, p.bytes)
    }

    /// Notes how far the receive into `obj` has come; stored with the dataset's next sync, in the txg of
    /// the data it describes.
    pub fn set_resume_point(&mut self, obj: u64, p: Point) {
        self.resume.insert(obj, p);
    }

    /// Removes every resume entry (end or abort of a receive).
    pub fn clear_resume_state(&mut self, io: &mut dyn BlockWriter, obj: u64) -> Result<()> {
        self.resume.remove(&obj);
        if self.is_zapified(io, obj)? {
            for name in ALL {
                self.zap_del(io, obj, name)?;
            }
        }
        Ok(())
    }

    /// The property `receive_resume_token` of a head: its own state, or that of its `%recv`.
    pub fn resume_token(&self, io: &dyn BlockStore, head: DatasetRef) -> Result<Option<String>> {
        if let Some(state) = self.resume_state(io, head.obj)? {
            return self.token(io, head.obj, &state).map(Some);
        }
        let dd = self.dir(io, head.dir)?;
        let Some(clone) = self.zap_u64(io, dd.child_dir_zapobj, RECV_CLONE)? else { return Ok(None) };
        let obj = self.dir(io, clone)?.head_dataset_obj;
        match self.resume_state(io, obj)? {
            Some(state) => self.token(io, obj, &state).map(Some),
            None => Ok(None),
        }
    }

    fn token(&self, io: &dyn BlockStore, obj: u64, s: &ResumeState) -> Result<String> {
        let mut nv = NvList::new();
        if s.fromguid != 0 {
            nv.set("fromguid", s.fromguid);
        }
        nv.set("object", s.point.object);
        nv.set("offset", s.point.offset);
        nv.set("bytes", s.point.bytes);
        nv.set("toguid", s.toguid);
        nv.set("toname", s.toname.as_str());
        for (on, name) in [
            (s.largeblock, "largeblockok"),
            (s.embed, "embedok"),
            (s.compress, "compressok"),
            (s.raw, "rawok"),
        ] {
            if on {
                nv.set_flag(name);
            }
        }
        if let Some(ZapValue::U64(snaps)) = self.field(io, obj, Feature::REDACTED_DATASETS.guid)? {
            nv.set("redact_snaps", snaps);
        }
        if let Some(snaps) = &s.redact_book_snaps {
            nv.set("book_redact_snaps", snaps.clone());
        }
        // As the kernel packs it (`fnvlist_pack`).
        Ok(encode_token(&nv.encode_native()))
    }
}

/// The text form of a token whose list was packed to `packed` (readers take both packings): version, checksum, packed
/// length, zlib stream (`ZFS_SEND_RESUME_TOKEN_VERSION` 1).
#[must_use]
pub fn encode_token(packed: &[u8]) -> String {
    let gzip6 = Compress(Compress::GZIP_1.0 + 5);
    // A token that zlib cannot shorten still has to be a zlib stream: give it room.
    let zipped = compress::compress(gzip6, 0, packed, packed.len().saturating_add(64)).unwrap_or_default();
    // The first word of fletcher4 over whole words: their sum.
    let sum = zipped
        .chunks_exact(4)
        .map(|w| u64::from(u32::from_le_bytes([w[0], w[1], w[2], w[3]])))
        .fold(0_u64, u64::wrapping_add);
    let hex: String = zipped.iter().map(|b| format!("{b:02x}")).collect();
    format!("1-{sum:x}-{:x}-{hex}", packed.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_unpacks_to_what_went_in() {
        let nv = NvList::new().with("object", 7_u64).with("toguid", 0xdead_beef_u64).with("toname", "p/a@s");
        let token = encode_token(&nv.encode_native());
        let mut parts = token.split('-');
        assert_eq!(parts.next(), Some("1"));
        let _sum = parts.next().unwrap();
        let len = usize::from_str_radix(parts.next().unwrap(), 16).unwrap();
        let hex = parts.next().unwrap();
        let bytes: Vec<u8> =
            (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
        let packed = compress::decompress(Compress(Compress::GZIP_1.0 + 5), &bytes, len).unwrap();
        assert_eq!(NvList::decode(&packed).unwrap().0, nv);
    }
}
