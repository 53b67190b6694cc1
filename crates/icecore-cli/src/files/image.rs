//! `icecore cp FILE POOL/VOLUME`: an image into a volume, as `cp` or `dd` would write it to the volume's device.
//!
//! Invariants:
//! 1. What does not fit is refused before anything is changed.
//! 2. A command that ends half-way leaves what it committed: the beginning of the image, and behind it what was there.
//! 3. Blocks of zeros become holes, and holes of the image are not read.

use super::put::{commit_bytes, open_head};
use crate::fail::{Fail, Outcome};
use crate::session::{self, For, Open};
use icecore_dmu::{BlockWriter, Objset};
use icecore_dsl::Kind;
use icecore_zpl::write::VolumeWriter;
use rustix::fs::{Mode, OFlags, SeekFrom};
use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

/// Bytes read at once, where blocks are no larger.
const CHUNK: u64 = 8 << 20;
/// Blocks freed in one call: their pointers take 8 MiB.
const STEP_BLOCKS: u64 = 1 << 16;

/// Whether this names a volume of an imported pool, or a file system in which no path is named.
pub(super) fn is_target(typed: &str) -> bool {
    // No pool of that name is the rule: most destinations are folders.
    if crate::state::find(session::pool_of(typed)).ok().flatten().is_none() {
        return false;
    }
    let kind = |pool: &Open| pool.dsl.kind(pool.io(), pool.dsl.lookup_dataset(pool.io(), typed).ok()?).ok();
    match session::open(typed, For::Read).ok().as_ref().and_then(kind) {
        Some(Kind::Volume | Kind::VolumeSnapshot) => true,
        Some(_) => !typed.contains(':'),
        None => false,
    }
}

/// Writes `source` into the volume `dataset` from byte `offset` on.
pub(super) fn cp(source: &Path, dataset: &str, offset: u64) -> Outcome {
    crate::mounts::refuse(source, session::pool_of(dataset))?;
    let cannot =
        |why: &dyn std::fmt::Display| Fail::new(format!("cannot copy '{}': {why}", source.display()));
    let (file, len) = open(source).map_err(|e| cannot(&e))?;
    let (mut pool, head) = open_head(dataset, Kind::Volume)?;
    let (io, dsl) = pool.parts();
    let writer = VolumeWriter::open(io, dsl.open_dataset(io, head.obj)?)?;
    if offset.checked_add(len).is_none_or(|end| end > writer.size()) {
        let at = if offset == 0 { String::new() } else { format!(" at {offset}") };
        let why = format!("{len} bytes{at} do not fit into '{dataset}', whose volsize is {}", writer.size());
        return Err(cannot(&why));
    }
    let mut copy = Copy { pool, dataset: head.obj, writer, offset, waiting: 0, kept: 0 };
    copy.all(&file, len).map_err(|f| {
        let kept = match copy.kept {
            0 => "the volume is as it was".to_string(),
            n => format!("the volume has its first {n} bytes"),
        };
        Fail { message: format!("{}; {kept}", cannot(&f.message).message), ..f }
    })
}

/// The file and how many bytes it has.
fn open(path: &Path) -> std::io::Result<(File, u64)> {
    // A pipe would wait for who writes into it.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let meta = file.metadata()?;
    let len = match meta.file_type() {
        kind if kind.is_file() => meta.len(),
        kind if kind.is_block_device() => rustix::fs::seek(&file, SeekFrom::End(0))?,
        _ => return Err(std::io::Error::other("it is neither a regular file nor a block device")),
    };
    Ok((file, len))
}

struct Copy {
    pool: Open,
    dataset: u64,
    writer: VolumeWriter,
    /// Where the image begins in the volume.
    offset: u64,
    /// Bytes and freed blocks not yet committed, in bytes.
    waiting: u64,
    /// Bytes of the image that are committed.
    kept: u64,
}

impl Copy {
    fn all(&mut self, file: &File, len: u64) -> Outcome {
        let block = self.writer.block_size();
        let mut buf = vec![0; usize::try_from(CHUNK.max(block)).unwrap_or(1 << 20)];
        let mut at = 0;
        while at < len {
            let data = next_data(file, at, len);
            if at < data {
                let part = (data - at).min(STEP_BLOCKS.saturating_mul(block));
                let to = self.offset + at;
                self.change(|w, os, io| w.zero(os, io, to, part))?;
                at += part;
                self.breathe(at, part.div_ceil(block).saturating_mul(1024))?;
                continue;
            }
            // Up to the end of a block, so that all but the first and the last are whole.
            let room = buf.len() as u64 - (self.offset + at) % block;
            let part = usize::try_from(room.min(len - at)).unwrap_or(buf.len());
            let bytes = &mut buf[..part];
            file.read_exact_at(bytes, at)?;
            let to = self.offset + at;
            self.change(|w, os, io| w.write(os, io, to, bytes))?;
            at += part as u64;
            self.breathe(at, part as u64)?;
        }
        self.commit(len)
    }

    fn change(
        &mut self,
        f: impl FnOnce(&VolumeWriter, &mut Objset, &mut dyn BlockWriter) -> icecore_zpl::Result<()>,
    ) -> Outcome {
        let (io, dsl) = self.pool.parts();
        let os = dsl.open_dataset(io, self.dataset)?;
        Ok(f(&self.writer, os, io)?)
    }

    fn breathe(&mut self, at: u64, more: u64) -> Outcome {
        self.waiting += more;
        if self.waiting >= commit_bytes(&self.pool) { self.commit(at) } else { Ok(()) }
    }

    fn commit(&mut self, at: u64) -> Outcome {
        self.pool.commit()?;
        (self.waiting, self.kept) = (0, at);
        Ok(())
    }
}

/// Where the next bytes that are no hole begin, from `at` on; `len` if there are none.
fn next_data(file: &File, at: u64, len: u64) -> u64 {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => data.clamp(at, len),
        Err(rustix::io::Errno::NXIO) => len,
        // A device or file system that knows no holes.
        Err(_) => at,
    }
}
