//! The records of a stream as text, in the layout of `zstream dump` (zstream_dump.c), which people read and
//! scripts parse.
//!
//! Invariant: the stream is checked while it is printed; what was printed before an error was right.

use crate::payload_sum;
use icecore_format::nvlist::{self, NvList};
use icecore_format::stream::{Begin, Entry, Record, StreamError, StreamReader};
use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};

/// Why a dump ended early.
#[derive(Debug)]
pub enum DumpError {
    /// The stream is damaged.
    Stream(StreamError),
    /// The output failed.
    Output(io::Error),
}
impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(e) => write!(f, "{e}"),
            Self::Output(e) => write!(f, "{e}"),
        }
    }
}
impl std::error::Error for DumpError {}
impl From<io::Error> for DumpError {
    fn from(e: io::Error) -> Self {
        Self::Output(e)
    }
}

/// Types of the summary and their order in OpenZFS 2.3; OBJECT_RANGE and REDACT count in its totals only.
const SUMMARY: [(u32, &str); 9] = [
    (0, "BEGIN"),
    (5, "END"),
    (1, "OBJECT"),
    (2, "FREEOBJECTS"),
    (3, "WRITE"),
    (6, "WRITE_BYREF"),
    (8, "WRITE_EMBEDDED"),
    (4, "FREE"),
    (7, "SPILL"),
];

/// Prints the stream: BEGIN, END and a summary, and with `verbose` every record (`zstream dump -v`).
pub fn dump(input: &mut dyn Read, verbose: bool, out: &mut dyn Write) -> Result<(), DumpError> {
    let mut reader = StreamReader::new(input, payload_sum).concatenated();
    let mut payload = Vec::new();
    let mut counts = [(0_u64, 0_u64); 11];
    while let Some(Entry { record, .. }) = reader.next(&mut payload).map_err(DumpError::Stream)? {
        let mut text = String::new();
        match &record {
            Record::Begin(b) => begin(b, &payload, verbose, &mut text),
            Record::End(e) => {
                let [a, b, c, d] = e.checksum;
                writeln!(text, "END checksum = {a:x}/{b:x}/{c:x}/{d:x}")
            }
            r if verbose => line(r, payload.len(), &mut text),
            _ => Ok(()),
        }
        .map_err(|_| io::Error::other("formatting failed"))?;
        out.write_all(text.as_bytes())?;
        if let Some((records, bytes)) = counts.get_mut(record.type_number() as usize) {
            *records += 1;
            *bytes += payload.len() as u64;
        }
    }
    writeln!(out, "SUMMARY:")?;
    for (number, name) in SUMMARY {
        let (records, bytes) = counts[number as usize];
        writeln!(out, "\tTotal DRR_{name} records = {records} ({bytes} bytes)")?;
    }
    let (records, bytes) = counts.iter().fold((0, 0), |(r, b), (dr, db)| (r + dr, b + db));
    let head = records * icecore_format::stream::RECORD_SIZE as u64;
    writeln!(out, "\tTotal records = {records}")?;
    for (what, n) in [("payload size", bytes), ("header overhead", head), ("stream length", head + bytes)] {
        writeln!(out, "\tTotal {what} = {n} ({n:#x})")?;
    }
    Ok(())
}

fn begin(b: &Begin, payload: &[u8], verbose: bool, out: &mut String) -> fmt::Result {
    writeln!(out, "BEGIN record")?;
    writeln!(out, "\thdrtype = {}", b.header_type())?;
    writeln!(out, "\tfeatures = {:x}", b.features())?;
    writeln!(out, "\tmagic = {:x}", b.magic)?;
    writeln!(out, "\tcreation_time = {:x}", b.creation_time)?;
    writeln!(out, "\ttype = {}", b.objset_type)?;
    writeln!(out, "\tflags = {:#x}", b.flags)?;
    writeln!(out, "\ttoguid = {:x}", b.toguid)?;
    writeln!(out, "\tfromguid = {:x}", b.fromguid)?;
    writeln!(out, "\ttoname = {}", String::from_utf8_lossy(b.toname.as_bytes()))?;
    writeln!(out, "\tpayloadlen = {}", payload.len())?;
    if verbose {
        writeln!(out)?;
    }
    if payload.is_empty() {
        return Ok(());
    }
    match NvList::decode(payload) {
        Ok((list, _)) => nvlist::print(&list, out),
        Err(why) => writeln!(out, "the list of this BEGIN cannot be read: {why}"),
    }
}

fn line(record: &Record, payload: usize, out: &mut String) -> fmt::Result {
    match record {
        Record::Begin(_) | Record::End(_) => Ok(()),
        Record::Object(o) => writeln!(
            out,
            "OBJECT object = {} type = {} bonustype = {} blksz = {} bonuslen = {} dn_slots = {} raw_bonuslen = {} \
             flags = {} maxblkid = {} indblkshift = {} nlevels = {} nblkptr = {}",
            o.object,
            o.object_type,
            o.bonus_type,
            o.blksz,
            o.bonuslen,
            o.dn_slots,
            o.raw_bonuslen,
            o.flags,
            o.maxblkid,
            o.indblkshift,
            o.nlevels,
            o.nblkptr
        ),
        Record::FreeObjects(r) => {
            writeln!(out, "FREEOBJECTS firstobj = {} numobjs = {}", r.firstobj, r.numobjs)
        }
        Record::Write(w) => writeln!(
            out,
            "WRITE object = {} type = {} checksum type = {} compression type = {} flags = {} offset = {} \
             logical_size = {} compressed_size = {} payload_size = {payload} props = {:x} {}",
            w.object,
            w.object_type,
            w.checksum_type,
            w.compression_type,
            w.flags,
            w.offset,
            w.logical_size,
            w.compressed_size,
            w.key_prop,
            Crypt(&w.salt, &w.iv, &w.mac)
        ),
        // The length is signed there: -1 means to the end.
        Record::Free(r) => {
            writeln!(
                out,
                "FREE object = {} offset = {} length = {}",
                r.object,
                r.offset,
                r.length.cast_signed()
            )
        }
        Record::WriteByref(w) => writeln!(
            out,
            "WRITE_BYREF object = {} checksum type = {} props = {:x} offset = {} length = {} toguid = {:x} \
             refguid = {:x} refobject = {} refoffset = {}",
            w.object,
            w.checksum_type,
            w.key_prop,
            w.offset,
            w.length,
            w.toguid,
            w.refguid,
            w.refobject,
            w.refoffset
        ),
        Record::Spill(s) => writeln!(
            out,
            "SPILL block for object = {} length = {} flags = {} compression type = {} compressed_size = {} \
             payload_size = {payload} {}",
            s.object,
            s.length,
            s.flags,
            s.compression_type,
            s.compressed_size,
            Crypt(&s.salt, &s.iv, &s.mac)
        ),
        Record::WriteEmbedded(w) => writeln!(
            out,
            "WRITE_EMBEDDED object = {} offset = {} length = {} toguid = {:x} comp = {} etype = {} lsize = {} \
             psize = {}",
            w.object, w.offset, w.length, w.toguid, w.compression, w.etype, w.lsize, w.psize
        ),
        Record::ObjectRange(r) => writeln!(
            out,
            "OBJECT_RANGE firstobj = {} numslots = {} flags = {} {}",
            r.firstobj,
            r.numslots,
            r.flags,
            Crypt(&r.salt, &r.iv, &r.mac)
        ),
        Record::Redact(r) => {
            writeln!(out, "REDACT object = {} offset = {} length = {}", r.object, r.offset, r.length)
        }
    }
}

/// Salt, IV and MAC as `zstream` shows them: also of records that have none.
struct Crypt<'a>(&'a [u8; 8], &'a [u8; 12], &'a [u8; 16]);
impl fmt::Display for Crypt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, bytes) in [("salt = ", self.0.as_slice()), (" iv = ", self.1), (" mac = ", self.2)] {
            f.write_str(name)?;
            bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        }
        Ok(())
    }
}
