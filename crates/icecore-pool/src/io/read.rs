//! Reading a block: embedded, plain or ganged, from the first copy whose checksum is right.

use super::cache::Key;
use super::{Block, Io, codec};
use icecore_dmu::{BlockStore, ReadError, Want};
use icecore_env::map;
use icecore_format::{Blkptr, Bookmark, Corrupt, Dva, Txg};
use icecore_transform::checksum;
use icecore_vdev::{VdevError, tree};
use std::sync::Arc;

/// Fewer blocks than this are not worth handing to workers.
const BATCH_MIN: usize = 2;

impl Io {
    fn read_block(&self, bp: &Blkptr, at: &Bookmark, want: Want) -> Block {
        bp.check()?;
        if bp.is_hole() {
            return Err(Corrupt::new("blkptr", format!("a hole is read at {at}")).into());
        }
        if bp.is_embedded() {
            return codec::open_embedded(bp, at, want).map(Into::into);
        }
        let key = Key::of(bp, at, want);
        if let Some(key) = &key
            && let Ok(mut cache) = self.cache.lock()
            && let Some(block) = cache.get(key)
        {
            return Ok(block);
        }
        let stored = self.read_stored(bp, at)?;
        let keys = self.keys.get(&at.objset).map(|l| &l.keys);
        let block: Arc<[u8]> = codec::open(bp, at, stored, want, keys)?.into();
        if let Some(key) = key
            && let Ok(mut cache) = self.cache.lock()
        {
            cache.put(key, &block);
        }
        Ok(block)
    }

    /// The stored bytes of a block that is not embedded, checksum verified.
    pub(super) fn read_stored(&self, bp: &Blkptr, at: &Bookmark) -> Result<Vec<u8>, ReadError> {
        let mut worst = None;
        for dva in bp.dvas() {
            let read = if dva.is_gang() { self.read_ganged(bp, dva) } else { self.read_copy(bp, dva) };
            match read {
                Ok(data) => return Ok(data),
                Err(Bad::Unsupported(why)) => return Err(ReadError::Unsupported(why)),
                // a wrong checksum says more than a device that is away
                Err(Bad::Checksum) => worst = Some(ReadError::Checksum { at: *at, bp: Box::new(*bp) }),
                Err(Bad::Device(why)) => worst = worst.or(Some(ReadError::Device(why))),
            }
        }
        Err(worst.unwrap_or_else(|| Corrupt::new("blkptr", format!("no copy at {at}")).into()))
    }

    /// One copy, whole; on a mirror any side whose bytes have the right checksum.
    pub(super) fn read_copy(&self, bp: &Blkptr, dva: &Dva) -> Result<Vec<u8>, Bad> {
        let mut unsupported = None;
        let mut accept = |data: &[u8]| match checksum::verify(bp, data, Some(&self.salt)) {
            Ok(()) => true,
            Err(checksum::VerifyError::Unsupported(e)) => {
                unsupported = Some(e.to_string());
                false
            }
            Err(_) => false,
        };
        let read = self.read_raw(dva, bp.psize(), &mut accept);
        match (read, unsupported) {
            (Err(_), Some(why)) => Err(Bad::Unsupported(why)),
            (read, _) => read,
        }
    }

    pub(super) fn read_raw(
        &self,
        dva: &Dva,
        len: u64,
        accept: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Vec<u8>, Bad> {
        match self.vdevs.read(dva, len, accept) {
            Ok(read) => Ok(read.data),
            Err(VdevError::NoGoodCopy(bad)) if bad.iter().any(|b| matches!(b.why, tree::Bad::Checksum)) => {
                Err(Bad::Checksum)
            }
            Err(e @ VdevError::Unsupported { .. }) => Err(Bad::Unsupported(e.to_string())),
            Err(e) => Err(Bad::Device(e.to_string())),
        }
    }
}

/// Why a copy was no good.
pub(super) enum Bad {
    Device(String),
    Checksum,
    Unsupported(String),
}

impl BlockStore for Io {
    fn read(&self, bp: &Blkptr, at: &Bookmark, want: Want) -> Block {
        self.read_block(bp, at, want)
    }

    fn read_many(&self, blocks: &[(Blkptr, Bookmark)], want: Want) -> Vec<Block> {
        if blocks.len() < BATCH_MIN {
            return blocks.iter().map(|(bp, at)| self.read_block(bp, at, want)).collect();
        }
        map(&*self.env.workers, blocks.len(), |i| match blocks.get(i) {
            Some((bp, at)) => self.read_block(bp, at, want),
            None => Err(Corrupt::new("batch", "index").into()),
        })
    }

    fn txg(&self) -> Txg {
        self.txg
    }

    fn hole_birth(&self) -> bool {
        self.hole_birth
    }
}
