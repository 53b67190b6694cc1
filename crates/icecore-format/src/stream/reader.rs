//! Takes a stream apart, one record with its payload at a time, and checks it.
//!
//! Invariants:
//! 1. A stream that ends anywhere but after its END is an error, and so is a record whose checksum is
//!    present and differs, or an END that names another sum than what was read.
//! 2. Memory follows the bytes really read, up to [`MAX_PAYLOAD`] (a BEGIN's list: [`MAX_BEGIN_PAYLOAD`]).
//! 3. Nothing past the last END is read, so the input may be a connection with more to come.
//!
//! The running sum starts anew at each BEGIN (`dump_record` of dmu_send.c and libzfs_sendrecv.c). A package
//! is BEGIN with header type 2, END, the streams, and an END of zeros; only that last one has no sum.

use super::record::{End, Order, Record};
use super::{CHECKSUM_AT, MAX_BEGIN_PAYLOAD, MAX_PAYLOAD, RECORD_SIZE};
use crate::Corrupt;
use crate::fletcher::{Fletcher4, HashFn};
use std::fmt;
use std::io::{self, Read};

/// Bytes of an END record in use: type, payload length, checksum and guid.
const END_FIELDS: usize = 48;
const _: () = assert!(MAX_PAYLOAD <= MAX_BEGIN_PAYLOAD);

/// Bytes by which the buffer of a payload grows while it is read.
const GROW_STEP: usize = 1 << 20;

/// A record with its place in the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Byte offset of the record in the stream.
    pub offset: u64,
    /// Number of the record in the stream, from 0.
    pub number: u64,
    /// The record.
    pub record: Record,
    /// fletcher4 of the payload.
    pub payload_sum: Fletcher4,
}

/// Where and how a stream is wrong.
#[derive(Debug)]
pub struct StreamError {
    /// Number of the record, from 0.
    pub record: u64,
    /// Byte offset of the record in the stream.
    pub offset: u64,
    /// What is wrong with it.
    pub kind: StreamErrorKind,
}

/// How a stream is wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum StreamErrorKind {
    /// The input failed.
    Io(io::Error),
    /// The stream ended early. `between_records` where a saved stream (`send -S`) ends on purpose.
    Truncated {
        /// No byte of the record was there.
        between_records: bool,
    },
    /// What the input begins with is no BEGIN.
    NotAStream,
    /// The record's fields make no sense.
    Corrupt(Corrupt),
    /// The bytes read so far have another sum than the record says.
    Checksum {
        /// The field: the record's own or that of END.
        field: &'static str,
        /// What it says.
        expected: [u64; 4],
        /// What was read.
        actual: [u64; 4],
    },
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream record {} at byte {}: ", self.record, self.offset)?;
        match &self.kind {
            StreamErrorKind::Io(e) => write!(f, "{e}"),
            StreamErrorKind::Truncated { between_records: true } => write!(f, "the stream ends without END"),
            StreamErrorKind::Truncated { .. } => write!(f, "the stream ends in the middle"),
            StreamErrorKind::NotAStream => write!(f, "this is not a ZFS send stream"),
            StreamErrorKind::Corrupt(c) => write!(f, "{c}"),
            StreamErrorKind::Checksum { field, .. } => write!(f, "{field} does not match what was read"),
        }
    }
}
impl std::error::Error for StreamError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            StreamErrorKind::Io(e) => Some(e),
            StreamErrorKind::Corrupt(c) => Some(c),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first BEGIN.
    Start,
    /// Between BEGIN and END.
    Inside,
    /// After the END of a stream; within a package another BEGIN or the last END follows.
    Between,
    /// Nothing more is read.
    Done,
}

/// Reads a stream.
pub struct StreamReader<R> {
    input: R,
    hash: HashFn,
    state: State,
    in_package: bool,
    /// The last BEGIN opened a package.
    package_head: bool,
    concatenated: bool,
    order: Order,
    sum: Fletcher4,
    offset: u64,
    number: u64,
}

impl<R: Read> StreamReader<R> {
    /// A reader at the start of a stream. `hash` sums payloads of little-endian streams; [`Fletcher4::of`]
    /// is the slow one.
    pub fn new(input: R, hash: HashFn) -> Self {
        Self {
            input,
            hash,
            state: State::Start,
            in_package: false,
            package_head: false,
            concatenated: false,
            order: Order::Little,
            sum: Fletcher4::ZERO,
            offset: 0,
            number: 0,
        }
    }
    /// Goes on after a complete stream, if more follows: streams one after the other in a file.
    #[must_use]
    pub fn concatenated(mut self) -> Self {
        self.concatenated = true;
        self
    }
    /// The byte order that the last BEGIN told.
    #[must_use]
    pub fn order(&self) -> Order {
        self.order
    }
    /// Bytes read so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }
    /// Whether a package was opened and not yet closed.
    #[must_use]
    pub fn in_package(&self) -> bool {
        self.in_package
    }
    /// The input back.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next record; its payload replaces what is in `payload`. `None` after the last END. After `None` or an
    /// error `payload` holds anything.
    pub fn next(&mut self, payload: &mut Vec<u8>) -> Result<Option<Entry>, StreamError> {
        let (offset, number) = (self.offset, self.number);
        match self.step(payload) {
            Ok(Some((record, payload_sum))) => {
                self.number = number.saturating_add(1);
                Ok(Some(Entry { offset, number, record, payload_sum }))
            }
            Ok(None) => Ok(None),
            Err(kind) => {
                self.state = State::Done;
                Err(StreamError { record: number, offset, kind })
            }
        }
    }

    fn step(&mut self, payload: &mut Vec<u8>) -> Result<Option<(Record, Fletcher4)>, StreamErrorKind> {
        let may_end = self.state == State::Between && !self.in_package;
        if self.state == State::Done || (may_end && !self.concatenated) {
            return Ok(None);
        }
        let Some(head) = self.read_head(may_end)? else {
            self.state = State::Done;
            return Ok(None);
        };
        let record = self.parse(&head)?;
        self.check_head(&head, &record)?;
        self.read_payload(record.payload_len(), payload)?;
        let payload_sum = match self.order {
            Order::Little => (self.hash)(payload),
            Order::Big => {
                let mut sum = Fletcher4::ZERO;
                sum.update_swapped(payload);
                sum
            }
        };
        self.sum = self.sum.combine(&payload_sum, record.payload_len());
        Ok(Some((record, payload_sum)))
    }

    fn read_head(&mut self, may_end: bool) -> Result<Option<[u8; RECORD_SIZE]>, StreamErrorKind> {
        let mut head = [0; RECORD_SIZE];
        match self.fill(&mut head)? {
            RECORD_SIZE => Ok(Some(head)),
            0 if may_end => Ok(None),
            got => Err(StreamErrorKind::Truncated { between_records: got == 0 }),
        }
    }

    /// Reads into what `payload` has and then lets it grow step by step: a length alone takes no memory, and a
    /// buffer that comes back is not zeroed again.
    fn read_payload(&mut self, len: u64, payload: &mut Vec<u8>) -> Result<(), StreamErrorKind> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        payload.truncate(len);
        let mut done = 0_usize;
        loop {
            let part = payload.get_mut(done..).unwrap_or(&mut []);
            if self.fill(part)? < part.len() {
                return Err(StreamErrorKind::Truncated { between_records: false });
            }
            done = payload.len();
            if done == len {
                return Ok(());
            }
            payload.resize(done.saturating_add(GROW_STEP).min(len), 0);
        }
    }

    /// Reads until `out` is full or the input ends; how much was read.
    fn fill(&mut self, out: &mut [u8]) -> Result<usize, StreamErrorKind> {
        let mut done = 0_usize;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(n) => done = done.saturating_add(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(StreamErrorKind::Io(e)),
            }
        }
        self.offset = self.offset.saturating_add(done as u64);
        Ok(done)
    }

    /// Parses the record and moves on in the order of records.
    fn parse(&mut self, head: &[u8; RECORD_SIZE]) -> Result<Record, StreamErrorKind> {
        let out_of_place = |r: &Record| {
            StreamErrorKind::Corrupt(Corrupt::new("stream", format!("{} out of place", r.type_name())))
        };
        let begins = matches!(head, [0, 0, 0, 0, ..]);
        if self.state == State::Start && (!begins || Record::order_of_begin(head).is_err()) {
            return Err(StreamErrorKind::NotAStream);
        }
        if begins {
            self.order = Record::order_of_begin(head).map_err(StreamErrorKind::Corrupt)?;
        }
        let record = Record::parse(head, self.order).map_err(StreamErrorKind::Corrupt)?;
        match (&record, self.state) {
            (Record::Begin(_), State::Inside) => return Err(out_of_place(&record)),
            (Record::Begin(begin), State::Start | State::Between) => {
                if begin.is_compound() && self.in_package {
                    return Err(out_of_place(&record));
                }
                self.package_head = begin.is_compound();
                self.in_package |= self.package_head;
                self.sum = Fletcher4::ZERO;
                self.state = State::Inside;
            }
            (Record::End(_), State::Inside) => self.state = State::Between,
            (Record::End(end), State::Between) if self.in_package && *end == End::default() => {
                self.in_package = false;
                self.sum = Fletcher4::ZERO;
            }
            (_, State::Inside) => {}
            _ => return Err(out_of_place(&record)),
        }
        Ok(record)
    }

    /// Checks the sums a record carries and adds its bytes to the running one.
    fn check_head(&mut self, head: &[u8; RECORD_SIZE], record: &Record) -> Result<(), StreamErrorKind> {
        let (fields, checksum) = head.split_at(CHECKSUM_AT);
        if let Record::End(end) = record {
            compare("END checksum", end.checksum, &self.sum)?;
            // The ENDs of a package carry no sum of their own, so nothing else would see damage here.
            let unused = fields.get(4..8).into_iter().chain(fields.get(END_FIELDS..)).flatten();
            let stray_guid = self.package_head && end.toguid != 0;
            if stray_guid || unused.into_iter().any(|b| *b != 0) {
                let why = Corrupt::new("stream record", "END with bytes set that have no meaning");
                return Err(StreamErrorKind::Corrupt(why));
            }
        }
        self.add(fields);
        if !matches!(record, Record::Begin(_)) {
            let said = Record::checksum_field(head, self.order);
            if said != [0; 4] {
                compare("record checksum", said, &self.sum)?;
            }
        }
        self.add(checksum);
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) {
        match self.order {
            Order::Little => self.sum.update(bytes),
            Order::Big => self.sum.update_swapped(bytes),
        }
    }
}

fn compare(field: &'static str, expected: [u64; 4], sum: &Fletcher4) -> Result<(), StreamErrorKind> {
    let actual = sum.words();
    if expected == actual { Ok(()) } else { Err(StreamErrorKind::Checksum { field, expected, actual }) }
}
