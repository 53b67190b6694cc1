//! Contents of files and volumes: their data blocks in order, holes left out.
//!
//! Invariant: a [`Content`] hands out each offset at most once, ascending, and nothing past the size.

use crate::error::{Result, ZplError};
use crate::filesystem::Files;
use crate::znode::{FileKind, Znode};
use icecore_dmu::{BlockStore, DataBlock, Objset};
use icecore_format::{Blkptr, Bookmark, Dnode, ObjectId};
use std::sync::Arc;

/// Bytes of one window, at least a block.
const WINDOW_BYTES: u64 = 8 << 20;

/// Bytes of a file that are on disk.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Where they begin in the file.
    pub offset: u64,
    block: Arc<[u8]>,
    len: usize,
}

impl Extent {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.block.get(..self.len).unwrap_or(&self.block)
    }
}

/// A place in the contents of an object.
pub struct Content {
    id: ObjectId,
    dn: Dnode,
    size: u64,
    next: u64,
}

impl Content {
    pub(crate) fn new(id: ObjectId, dn: Dnode, size: u64) -> Self {
        Self { id, dn, size, next: 0 }
    }

    /// Size in bytes; what is in no extent reads as zeros.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next data of the file, read as one batch; empty at its end.
    pub fn next_window(&mut self, os: &Objset, io: &dyn BlockStore) -> Result<Vec<Extent>> {
        let block = self.dn.block_size();
        let limit = usize::try_from((WINDOW_BYTES / block).max(1)).unwrap_or(1);
        let blocks = self.blocks(os, io, limit)?;
        self.next = match blocks.last() {
            Some(last) if blocks.len() == limit => last.blkid.saturating_add(1),
            _ => u64::MAX,
        };
        let batch = batch_of(os, self.id, &blocks);
        let mut read = io.read_many(&batch, os.want()).into_iter();
        let mut out = Vec::with_capacity(blocks.len());
        for b in &blocks {
            let data = match b.bp {
                Some(_) => read.next().transpose()?,
                None => os.block(io, self.id, &self.dn, b.blkid)?,
            };
            out.extend(data.map(|data| self.extent(b.blkid, data)).transpose()?);
        }
        Ok(out)
    }

    fn blocks(&self, os: &Objset, io: &dyn BlockStore, limit: usize) -> Result<Vec<DataBlock>> {
        let block = self.dn.block_size();
        if self.next == u64::MAX || self.size.div_ceil(block) <= self.next {
            return Ok(Vec::new());
        }
        let mut blocks = os.data_blocks(io, self.id, &self.dn, self.next, limit)?;
        blocks.retain(|b| b.blkid < self.size.div_ceil(block));
        Ok(blocks)
    }

    fn extent(&self, blkid: u64, block: Arc<[u8]>) -> Result<Extent> {
        let size = self.dn.block_size();
        if block.len() as u64 != size {
            let why = format!("block {blkid} has {} bytes, not {size}", block.len());
            return Err(ZplError::corrupt("file", self.id, why));
        }
        let offset = blkid.saturating_mul(size);
        let len = usize::try_from(self.size.saturating_sub(offset).min(size)).unwrap_or(0);
        Ok(Extent { offset, block, len })
    }

    /// The bytes of a whole small file, holes as zeros; [`ZplError::TooLarge`] if there are more than `max`.
    pub fn read_all(mut self, os: &Objset, io: &dyn BlockStore, max: u64) -> Result<Vec<u8>> {
        let len = usize::try_from(self.size).ok().filter(|_| self.size <= max);
        let len =
            len.ok_or_else(|| ZplError::TooLarge(format!("object {} has {} bytes", self.id, self.size)))?;
        let mut out = vec![0; len];
        loop {
            let window = self.next_window(os, io)?;
            if window.is_empty() {
                return Ok(out);
            }
            for e in window {
                let at = usize::try_from(e.offset).unwrap_or(usize::MAX);
                if let Some(to) = out.get_mut(at..at.saturating_add(e.bytes().len())) {
                    to.copy_from_slice(e.bytes());
                }
            }
        }
    }
}

fn batch_of(os: &Objset, object: ObjectId, blocks: &[DataBlock]) -> Vec<(Blkptr, Bookmark)> {
    let at = |blkid| Bookmark { objset: os.id(), object, level: 0, blkid };
    blocks.iter().filter_map(|b| b.bp.map(|bp| (bp, at(b.blkid)))).collect()
}

impl Files<'_> {
    /// The contents of a regular file, from its beginning.
    pub fn content(&self, z: &Znode) -> Result<Content> {
        match z.kind {
            FileKind::Regular => Ok(Content::new(z.id, z.dnode().clone(), z.size)),
            FileKind::Directory => Err(ZplError::IsDirectory(format!("object {}", z.id))),
            _ => Err(ZplError::NoContents(format!("object {}", z.id))),
        }
    }

    /// The contents of many regular files of one block each at most, read as one batch and each answered for itself.
    /// A file of more blocks (or no regular file) gets `None`: ask for its [`Self::content`]. The caller bounds the sum
    /// of the sizes.
    pub fn contents_small(&self, io: &dyn BlockStore, files: &[&Znode]) -> Vec<Option<Result<Vec<Extent>>>> {
        let os = self.objset();
        let single = |z: &Znode| z.kind == FileKind::Regular && z.size <= z.dnode().block_size();
        let found: Vec<Option<Result<Vec<DataBlock>>>> = files
            .iter()
            .map(|z| single(z).then(|| Content::new(z.id, z.dnode().clone(), z.size).blocks(os, io, 1)))
            .collect();
        let mut batch = Vec::new();
        for (z, blocks) in files.iter().zip(&found) {
            if let Some(Ok(blocks)) = blocks {
                batch.extend(batch_of(os, z.id, blocks));
            }
        }
        let mut read = io.read_many(&batch, os.want()).into_iter();
        let mut out = Vec::with_capacity(files.len());
        for (z, blocks) in files.iter().zip(found) {
            let content = Content::new(z.id, z.dnode().clone(), z.size);
            out.push(blocks.map(|blocks| {
                let mut extents = Vec::new();
                for b in blocks? {
                    let data = match b.bp {
                        Some(_) => read.next().transpose()?,
                        None => os.block(io, z.id, z.dnode(), b.blkid)?,
                    };
                    extents.extend(data.map(|data| content.extent(b.blkid, data)).transpose()?);
                }
                Ok(extents)
            }));
        }
        out
    }
}
