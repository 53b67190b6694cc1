//! Raw streams of any size, made without a kernel.
//!
//! A raw receive never decrypts, so a stream that OpenZFS made stays receivable when one of its files grows by blocks
//! of noise: same keys, same guids, same objects. [`enlarge`] does that to one file of the fixture's `docs`, in the
//! full stream and, so that it still fits, in the increment, where some of its blocks can be changed too. The file cannot be read back with the key (its MACs are
//! not its own); everything that does not decrypt treats it as any other.

use std::fs::File;
use std::io::{self, BufReader, Write};

use icecore_check::fixture::fixture;
use icecore_format::fletcher::Fletcher4;
use icecore_format::stream::{Record, StreamReader, StreamWriter, Write as WriteRecord};

use crate::shell::Outcome;

/// Size of the blocks the file is made of.
pub const BLOCK_BYTES: u64 = 128 << 10;

/// `docs/deep/er/still/ledger.csv`: the one file of several blocks, and unchanged by the first increment.
const LEDGER: u64 = 157;

/// Which of the fixture's streams of `docs` to enlarge.
#[derive(Clone, Copy)]
pub enum Source {
    /// `docs@root`
    Full,
    /// `docs@root` to `docs@2023-09-27`, with so many blocks of the ledger changed, evenly spread.
    Increment(u64),
}

impl Source {
    fn fixture(self) -> &'static str {
        match self {
            Source::Full => "cold/main@root.raw-R.zfs",
            Source::Increment(_) => "cold/main@root-newsnapshot.raw-R-I.zfs",
        }
    }

    fn toname(self) -> &'static str {
        match self {
            Source::Full => "main/encrypted/docs@root",
            Source::Increment(_) => "main/encrypted/docs@2023-09-27",
        }
    }
}

/// Writes the stream of `source` to `out`, its ledger `blocks` long (at least 1,025, so that its height is 3).
pub fn enlarge(source: Source, blocks: u64, out: impl Write) -> Outcome {
    let input = File::open(fixture(source.fixture())).map_err(|e| e.to_string())?;
    let mut reader = StreamReader::new(BufReader::new(input), Fletcher4::of).concatenated();
    let mut writer = StreamWriter::new(out, Fletcher4::of);
    let mut payload = Vec::new();
    let mut wanted = false;
    while let Some(entry) = reader.next(&mut payload).map_err(|e| format!("{}: {e:?}", source.fixture()))? {
        if let Record::Begin(begin) = &entry.record {
            wanted = begin.toname.as_str() == Some(source.toname());
        }
        if wanted {
            let done = matches!(entry.record, Record::End(_));
            grow(&mut writer, source, entry.record, &payload, blocks)
                .map_err(|e| format!("writing the stream: {e}"))?;
            if done {
                return writer.flush().map_err(|e| format!("writing the stream: {e}"));
            }
        }
    }
    Err(format!("{} holds no {}", source.fixture(), source.toname()))
}

/// Passes one record on, or what stands for it in the larger stream.
fn grow<W: Write>(
    out: &mut StreamWriter<W>,
    source: Source,
    record: Record,
    payload: &[u8],
    blocks: u64,
) -> io::Result<()> {
    match record {
        Record::Object(mut object) if object.object == LEDGER => {
            object.maxblkid = blocks - 1;
            object.nlevels = 3;
            out.write(&object.into(), payload)
        }
        Record::Free(mut free) if free.object == LEDGER => {
            free.offset = blocks * BLOCK_BYTES;
            let toguid = free.toguid;
            out.write(&free.into(), payload)?;
            match source {
                Source::Full => Ok(()),
                Source::Increment(changed) => {
                    let places = (0..changed.min(blocks)).map(|i| i * (blocks / changed));
                    noise(out, &ledger_write(toguid), places)
                }
            }
        }
        Record::Write(template) if template.object == LEDGER => {
            if template.offset != 0 {
                return Ok(());
            }
            noise(out, &template, 0..blocks)
        }
        other => out.write(&other, payload),
    }
}

/// A WRITE of the ledger where the stream has none to go by.
fn ledger_write(toguid: u64) -> WriteRecord {
    WriteRecord {
        object: LEDGER,
        object_type: 19,  // DMU_OT_PLAIN_FILE_CONTENTS
        checksum_type: 7, // ZIO_CHECKSUM_FLETCHER_4
        toguid,
        salt: *b"benchmrk",
        ..WriteRecord::default()
    }
}

/// Blocks of noise, each a WRITE like `template`.
fn noise<W: Write>(
    out: &mut StreamWriter<W>,
    template: &WriteRecord,
    places: impl Iterator<Item = u64>,
) -> io::Result<()> {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut data = vec![0; BLOCK_BYTES as usize];
    for block in places {
        noise.fill(&mut data);
        let mut write = template.clone();
        write.offset = block * BLOCK_BYTES;
        write.logical_size = BLOCK_BYTES;
        write.compressed_size = BLOCK_BYTES;
        write.compression_type = 2; // ZIO_COMPRESS_OFF, as OpenZFS writes incompressible blocks
        write.key_prop = 0x82_00ff_00ff; // 256 sectors both ways, not compressed, encrypted
        write.iv[..8].copy_from_slice(&block.to_le_bytes());
        write.mac[..8].copy_from_slice(&data[..8]);
        out.write(&write.into(), &data)?;
    }
    Ok(())
}

/// Incompressible, reproducible bytes (xorshift64).
struct Noise(u64);

impl Noise {
    fn fill(&mut self, data: &mut [u8]) {
        for word in data.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader that knows nothing of us finds in the enlarged stream.
    #[test]
    fn an_enlarged_stream_holds_what_it_says() {
        for (source, writes) in [(Source::Full, 40), (Source::Increment(10), 10), (Source::Increment(0), 0)] {
            let mut stream = Vec::new();
            enlarge(source, 40, &mut stream).expect("enlarge");
            let mut reader = StreamReader::new(stream.as_slice(), Fletcher4::of);
            let (mut found, mut shaped, mut payload) = (0, 0, Vec::new());
            while let Some(entry) = reader.next(&mut payload).expect("a stream whose checksums hold") {
                match entry.record {
                    Record::Write(write) if write.object == LEDGER => {
                        let place = found * (40 / writes) * BLOCK_BYTES;
                        assert_eq!((write.offset, payload.len() as u64), (place, BLOCK_BYTES));
                        found += 1;
                    }
                    Record::Object(object) if object.object == LEDGER => {
                        assert_eq!((object.maxblkid, object.nlevels), (39, 3));
                        shaped += 1;
                    }
                    _ => {}
                }
            }
            assert_eq!((found, shaped), (writes, 1));
        }
    }
}
