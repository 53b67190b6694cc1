//! The pool's command history: a ring of packed records in one MOS object; the first command stays for ever
//! (spa_history.c).
//!
//! Invariant: a damaged history never stops a command. What cannot be appended is left out.

use crate::error::Result;
use crate::pool::Pool;
use icecore_format::ObjectId;
use icecore_format::nvlist::{NvList, NvValue};
use icecore_format::reader::{put_u64_at, u64_at};

/// Records longer than this are damage.
const RECORD_MAX: u64 = 1 << 20;

/// The counters in the object's bonus (`spa_history_phys_t`).
#[derive(Clone, Copy)]
struct Ring {
    create_len: u64,
    size: u64,
    bof: u64,
    eof: u64,
    lost: u64,
}

impl Ring {
    fn parse(bonus: &[u8]) -> Option<Self> {
        let [create_len, size, bof, eof, lost] = [0, 8, 16, 24, 32].map(|at| u64_at(bonus, at));
        let sane = create_len < size && create_len <= bof && bof <= eof && eof - bof < size - create_len;
        sane.then_some(Self { create_len, size, bof, eof, lost })
    }
    fn store(&self, bonus: &mut [u8]) {
        let words = [self.create_len, self.size, self.bof, self.eof, self.lost];
        for (i, word) in words.into_iter().enumerate() {
            let _ = put_u64_at(bonus, i * 8, word);
        }
    }
    /// Where logical offset `at` lies in the object: the first command, then the ring.
    fn place(&self, at: u64) -> u64 {
        (at - self.create_len) % (self.size - self.create_len) + self.create_len
    }
    fn free(&self) -> u64 {
        self.size - self.create_len - (self.eof - self.bof)
    }
    /// `len` bytes at logical offset `at` as one or two stretches of the object.
    fn stretches(&self, at: u64, len: u64) -> [(u64, u64); 2] {
        let first = len.min(self.size - self.place(at));
        [(self.place(at), first), (self.create_len, len - first)]
    }
}

impl Pool {
    /// Appends a command to the history, as `zpool history` shows it. Durable with the next commit.
    pub fn log_command(&mut self, command: &str, uid: u64) -> Result<()> {
        let mut record = NvList::new();
        record.replace("history time", NvValue::U64(self.io.env.clock.now()));
        record.replace("history command", NvValue::from(command));
        record.replace("history who", NvValue::U64(uid));
        record.replace("history hostname", NvValue::from(self.host.name.as_str()));
        let packed = record.encode_native();
        let mut bytes = (packed.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(&packed);
        self.append_history(&bytes)
    }

    /// The command that the next commit is the work of, entered in the history with it; `None` takes it back. Without
    /// a change there is no commit, and no record.
    pub fn note_command(&mut self, command: Option<(String, u64)>) {
        self.note = command;
    }

    fn append_history(&mut self, bytes: &[u8]) -> Result<()> {
        let object = ObjectId(self.objects.history);
        if object.0 == 0 {
            return Ok(());
        }
        let Some(mut ring) = Ring::parse(&self.dsl.mos.bonus(&self.io, object)?) else { return Ok(()) };
        let len = bytes.len() as u64;
        while ring.free() <= len {
            let old = self.read_history(&ring, ring.bof, 8)?;
            let record = u64_at(&old, 0);
            if ring.bof >= ring.eof || record > RECORD_MAX || ring.bof + 8 + record > ring.eof {
                return Ok(());
            }
            ring.bof += 8 + record;
            ring.lost += 1;
        }
        let mut rest = bytes;
        for (at, len) in ring.stretches(ring.eof, len) {
            let (now, later) = rest.split_at((len as usize).min(rest.len()));
            if !now.is_empty() {
                self.dsl.mos.write(&self.io, object, at, now)?;
            }
            rest = later;
        }
        ring.eof += len;
        if ring.create_len == 0 {
            (ring.create_len, ring.bof) = (ring.eof, ring.eof);
        }
        ring.store(self.dsl.mos.edit(&self.io, object)?.bonus_mut());
        Ok(())
    }

    fn read_history(&self, ring: &Ring, at: u64, len: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for (at, len) in ring.stretches(at, len) {
            out.extend(self.dsl.mos.read(&self.io, ObjectId(self.objects.history), at, len as usize)?);
        }
        Ok(out)
    }

    /// The records of the history, oldest first, as far as they are sound.
    pub fn history(&self) -> Result<Vec<NvList>> {
        let object = ObjectId(self.objects.history);
        let mut records = Vec::new();
        if object.0 == 0 {
            return Ok(records);
        }
        let Some(ring) = Ring::parse(&self.dsl.mos.bonus(&self.io, object)?) else { return Ok(records) };
        let head = self.dsl.mos.read(&self.io, object, 0, ring.create_len.min(RECORD_MAX) as usize)?;
        take_records(&head, &mut records);
        let len = (ring.eof - ring.bof).min(1 << 30);
        take_records(&self.read_history(&ring, ring.bof, len)?, &mut records);
        Ok(records)
    }
}

fn take_records(mut bytes: &[u8], records: &mut Vec<NvList>) {
    while bytes.len() > 8 {
        let len = usize::try_from(u64_at(bytes, 0)).unwrap_or(usize::MAX);
        let Some(record) = len.checked_add(8).and_then(|end| bytes.get(8..end)) else { return };
        if let Ok((list, _)) = NvList::decode(record) {
            records.push(list);
        }
        bytes = bytes.get(len + 8..).unwrap_or(&[]);
    }
}
