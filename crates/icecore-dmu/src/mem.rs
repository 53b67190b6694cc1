//! A block store in memory, without compression or checksums: for tests of what stands on the DMU.

use crate::store::{BlockStore, BlockWriter, Form, NewBlock, ReadError, Want, WriteError};
use icecore_format::{Blkptr, Bookmark, Checksum, Compress, Dva, Txg};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Blocks by their (made-up) offset.
#[derive(Clone, Debug)]
pub struct MemStore {
    blocks: BTreeMap<u64, Arc<[u8]>>,
    next: u64,
    txg: Txg,
}

impl Default for MemStore {
    fn default() -> Self {
        Self { blocks: BTreeMap::new(), next: 512, txg: Txg(4) }
    }
}

impl MemStore {
    /// Goes on to the next txg.
    pub fn advance(&mut self) {
        self.txg.0 += 1;
    }
    /// Blocks held: a leak check.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }
    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

impl BlockStore for MemStore {
    fn read(&self, bp: &Blkptr, at: &Bookmark, _want: Want) -> Result<Arc<[u8]>, ReadError> {
        if bp.is_embedded() {
            return Ok(bp.embedded_payload().into());
        }
        let block = self.blocks.get(&bp.dva[0].offset());
        block.cloned().ok_or_else(|| ReadError::Checksum { at: *at, bp: Box::new(*bp) })
    }
    fn txg(&self) -> Txg {
        self.txg
    }
    fn hole_birth(&self) -> bool {
        true
    }
}

impl BlockWriter for MemStore {
    fn write_batch(&mut self, blocks: Vec<NewBlock>) -> Result<Vec<Blkptr>, WriteError> {
        let mut out = Vec::new();
        for b in blocks {
            if matches!(b.form, Form::Logical { .. }) && b.data.iter().all(|x| *x == 0) {
                out.push(Blkptr::default());
                continue;
            }
            let old = self.blocks.get(&b.old.dva[0].offset()).filter(|_| b.may_keep && !b.old.is_embedded());
            if old.is_some_and(|old| **old == *b.data) {
                out.push(b.old);
                continue;
            }
            let mut bp = Blkptr::default();
            bp.set_type(b.kind);
            bp.set_level(b.level);
            bp.set_lsize(b.lsize);
            bp.set_psize((b.data.len() as u64).next_multiple_of(512));
            bp.set_compress(Compress::OFF);
            bp.set_checksum(Checksum::FLETCHER_4);
            bp.set_little_endian(true);
            bp.set_birth(self.txg);
            if let Form::Stored { crypt: Some(c), .. } = b.form {
                bp.set_crypt(true);
                bp.set_salt_iv(c.salt, c.iv);
                bp.set_mac(c.mac);
            }
            bp.set_fill(b.fill);
            let reuse = b.old.birth() == self.txg && !b.old.is_hole() && b.old.psize() == bp.psize();
            let offset = if reuse { b.old.dva[0].offset() } else { self.next };
            self.next = self.next.max(offset + bp.psize());
            bp.dva[0] = Dva::new(0, offset, bp.psize(), false);
            self.blocks.insert(offset, b.data.into());
            out.push(bp);
        }
        Ok(out)
    }
    fn free(&mut self, bp: &Blkptr) -> Result<(), WriteError> {
        if bp.is_hole() || bp.is_embedded() {
            return Ok(());
        }
        match self.blocks.remove(&bp.dva[0].offset()) {
            Some(_) => Ok(()),
            None => Err(WriteError::Invalid(format!("double free of {bp:?}"))),
        }
    }
}
