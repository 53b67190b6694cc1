//! Makes a stream: encodes records and keeps the running checksum (`dump_record`, dmu_send.c).

use super::record::Record;
use super::{CHECKSUM_AT, RECORD_SIZE};
use crate::fletcher::{Fletcher4, HashFn};
use std::io::{self, IoSlice, Write};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Outside,
    Inside,
    /// Between the BEGIN and the END that make the head of a package.
    PackageHead,
}

/// Writes a stream, byte for byte as OpenZFS does.
pub struct StreamWriter<W> {
    out: W,
    hash: HashFn,
    sum: Fletcher4,
    offset: u64,
    state: State,
}

impl<W: Write> StreamWriter<W> {
    /// A writer at the start of a stream. `hash` sums payloads; [`Fletcher4::of`] is the slow one.
    pub fn new(out: W, hash: HashFn) -> Self {
        Self { out, hash, sum: Fletcher4::ZERO, offset: 0, state: State::Outside }
    }
    /// Bytes written so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }
    /// The output back.
    pub fn into_inner(self) -> W {
        self.out
    }
    /// The output.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }
    /// Writes a record and its payload. An END gets its checksum here: the running one after a stream, the
    /// package's after a compound BEGIN, zeros where it closes a package.
    pub fn write(&mut self, record: &Record, payload: &[u8]) -> io::Result<()> {
        self.write_summed(record, payload, (self.hash)(payload))
    }
    /// As [`Self::write`], where the payload's fletcher4 is known already.
    pub fn write_summed(&mut self, record: &Record, payload: &[u8], sum: Fletcher4) -> io::Result<()> {
        let len = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        if len != record.payload_len() {
            let why = format!("{} wants {} bytes, got {len}", record.type_name(), record.payload_len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let head = self.head(record)?;
        write_both(&mut self.out, &head, payload)?;
        self.sum = self.sum.combine(&sum, len);
        self.offset = self.offset.saturating_add(RECORD_SIZE as u64).saturating_add(len);
        Ok(())
    }
    /// Flushes the output.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn head(&mut self, record: &Record) -> io::Result<[u8; RECORD_SIZE]> {
        let misplaced = || {
            let why = format!("{} out of place", record.type_name());
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        };
        match (record, self.state) {
            (Record::Begin(begin), State::Outside) => {
                self.sum = Fletcher4::ZERO;
                self.state = if begin.is_compound() { State::PackageHead } else { State::Inside };
                Ok(self.seal(record.encode(), false))
            }
            (Record::End(end), State::Inside | State::PackageHead) => {
                let mut end = end.clone();
                end.checksum = self.sum.words();
                let sealed = self.state == State::Inside;
                self.state = State::Outside;
                Ok(self.seal(Record::End(end).encode(), sealed))
            }
            (Record::End(_), State::Outside) => Ok(record.encode()),
            (Record::Begin(_), _) | (_, State::Outside | State::PackageHead) => misplaced(),
            (_, State::Inside) => Ok(self.seal(record.encode(), true)),
        }
    }

    /// Adds the record to the running sum, and the sum to the record.
    fn seal(&mut self, mut head: [u8; RECORD_SIZE], with_sum: bool) -> [u8; RECORD_SIZE] {
        let (fields, checksum) = head.split_at_mut(CHECKSUM_AT);
        self.sum.update(fields);
        if with_sum {
            for (to, word) in checksum.chunks_exact_mut(8).zip(self.sum.words()) {
                to.copy_from_slice(&word.to_le_bytes());
            }
        }
        self.sum.update(checksum);
        head
    }
}

/// Writes one after the other, with one call where the output can.
fn write_both(out: &mut impl Write, head: &[u8], payload: &[u8]) -> io::Result<()> {
    let mut done = 0_usize;
    while let Some(rest) = head.get(done..).filter(|rest| !rest.is_empty()) {
        if payload.is_empty() {
            return out.write_all(rest);
        }
        match out.write_vectored(&[IoSlice::new(rest), IoSlice::new(payload)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done = done.saturating_add(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    out.write_all(payload.get(done.saturating_sub(head.len())..).unwrap_or(&[]))
}
