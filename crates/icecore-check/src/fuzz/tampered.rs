//! Foreign bytes where a checksum or a seal would otherwise keep them out: edits of what real OpenZFS made, applied
//! after verification (blocks) or before sealing (streams).

use icecore_dmu::{BlockStore, ReadError, Want};
use icecore_format::{Blkptr, Bookmark, Txg};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Edits taken from one input at most.
const EDITS_MAX: usize = 48;

/// One change of a few bytes.
#[derive(Clone, Copy, Debug)]
pub struct Edit {
    /// Which block or record.
    pub place: usize,
    offset: usize,
    value: u16,
    kind: u8,
}

/// The edits that an input stands for: seven bytes each.
pub fn edits(data: &[u8]) -> Vec<Edit> {
    let words = data.chunks_exact(7).take(EDITS_MAX);
    words
        .map(|w| Edit {
            place: usize::from(u16::from_le_bytes([w[0], w[1]])),
            offset: usize::from(u16::from_le_bytes([w[2], w[3]])),
            value: u16::from_le_bytes([w[4], w[5]]),
            kind: w[6],
        })
        .collect()
}

impl Edit {
    /// Changes `bytes`, wherever the offset falls in them.
    pub fn apply(&self, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        let at = self.offset % bytes.len();
        let word = match self.kind >> 4 {
            0 => u64::MAX,
            1 => u64::from(self.value) << 48,
            2 => u64::from(self.value) << 32,
            3 => 0x8000_0000_0000_0000 | u64::from(self.value),
            _ => u64::from(self.value),
        };
        match self.kind & 3 {
            0 => bytes[at] = self.value as u8,
            1 => bytes[at] = bytes[at].wrapping_add(self.value as u8),
            2 => bytes[at] ^= 1 << (self.value & 7),
            _ => {
                let at = at & !7;
                let len = (bytes.len() - at).min(8);
                bytes[at..at + len].copy_from_slice(&word.to_le_bytes()[..len]);
            }
        }
    }
}

/// A block store whose answers are edited: by the order in which blocks are asked for.
pub struct Tampered<'a> {
    inner: &'a dyn BlockStore,
    edits: Vec<Edit>,
    asked: AtomicUsize,
    limit: usize,
}

impl<'a> Tampered<'a> {
    /// Edits what `inner` says by `data`; after `limit` blocks everything fails, so that an input has an end.
    pub fn new(inner: &'a dyn BlockStore, data: &[u8], limit: usize) -> Self {
        Self { inner, edits: edits(data), asked: AtomicUsize::new(0), limit }
    }
}

impl BlockStore for Tampered<'_> {
    fn read(&self, bp: &Blkptr, at: &Bookmark, want: Want) -> Result<Arc<[u8]>, ReadError> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        if number > self.limit {
            return Err(ReadError::Device("enough".into()));
        }
        let block = self.inner.read(bp, at, want)?;
        let mut own: Option<Vec<u8>> = None;
        for edit in self.edits.iter().filter(|e| e.place % 512 == number) {
            edit.apply(own.get_or_insert_with(|| block.to_vec()));
        }
        Ok(own.map_or(block, Arc::from))
    }
    fn txg(&self) -> Txg {
        self.inner.txg()
    }
    fn hole_birth(&self) -> bool {
        self.inner.hole_birth()
    }
}

/// A pool made by OpenZFS: the one with the oddest files where the folder of them is named, else the repository's.
pub fn image() -> PathBuf {
    let odd = std::env::var_os("ICECORE_ZOO").map(|zoo| PathBuf::from(zoo).join("shapes.img"));
    odd.filter(|path| path.exists()).unwrap_or_else(|| crate::fixture::fixture("cold/main.img"))
}

/// Time that stands still, chance that is none.
pub struct NoChance;

impl icecore_dsl::Chance for NoChance {
    fn now(&mut self) -> (u64, u32) {
        (1_700_000_000, 0)
    }
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(7);
    }
}
