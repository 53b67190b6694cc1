//! Reading a block: embedded, plain or ganged, from the first copy whose checksum is right.

use super::cache::Key;
use super::{Block, Io, codec};
use icecore_dmu::{BlockStore, Fetch, Look, ReadError, Want};
use icecore_env::map;
use icecore_format::fletcher::Fletcher4;
use icecore_format::{Blkptr, Bookmark, Checksum, Corrupt, Dva, Txg};
use icecore_transform::checksum;
use icecore_vdev::VdevError;
use icecore_vdev::tree::{self, Born};
use std::sync::{Arc, Mutex, PoisonError};

/// Fewer blocks than this are not worth handing to workers.
const BATCH_MIN: usize = 2;

impl Io {
    fn read_block(&self, bp: &Blkptr, at: &Bookmark, want: Want) -> Block {
        if bp.is_embedded() {
            bp.check()?;
            return codec::open_embedded(bp, at, want).map(Into::into);
        }
        let key = Key::of(bp, at, want);
        if let Some(block) = self.cached(key.as_ref()) {
            return Ok(block);
        }
        let block: Arc<[u8]> = self.read_open(bp, at, want, Vec::new())?.into();
        if let Some(key) = key
            && let Ok(mut cache) = self.cache.lock()
        {
            cache.put(key, &block);
        }
        Ok(block)
    }

    fn cached(&self, key: Option<&Key>) -> Option<Arc<[u8]>> {
        self.cache.lock().ok()?.get(key?)
    }

    /// A block that is not embedded, from a device, in the form wanted; `room` may be used for it.
    fn read_open(&self, bp: &Blkptr, at: &Bookmark, want: Want, room: Vec<u8>) -> Result<Vec<u8>, ReadError> {
        bp.check()?;
        if bp.is_hole() {
            return Err(Corrupt::new("blkptr", format!("a hole is read at {at}")).into());
        }
        let (stored, _) = self.read_stored(bp, at, &mut Vec::new())?;
        let keys = self.keys.get(&at.objset).map(|l| &l.keys);
        codec::open(bp, at, stored, want, keys, room)
    }

    /// The answer to one question of a batch. It goes straight into its buffer, and is not kept: a batch passes by.
    fn fetch_one(&self, fetch: &mut Fetch) {
        let (bp, at, want) = (&fetch.bp, &fetch.at, fetch.want);
        if bp.is_embedded() || bp.is_hole() {
            return fetch.answer(self.read_block(bp, at, want));
        }
        if let Some(block) = self.cached(Key::of(bp, at, want).as_ref()) {
            return fetch.answer(Ok(block));
        }
        let mut buffer = std::mem::take(&mut fetch.bytes);
        if want != Want::Stored {
            match self.read_open(bp, at, want, buffer) {
                Ok(bytes) => (fetch.bytes, fetch.result) = (bytes, Ok(())),
                Err(e) => fetch.result = Err(e),
            }
            return;
        }
        let checked = bp.check().map_err(ReadError::from);
        match checked.and_then(|_| self.read_stored(bp, at, &mut buffer)) {
            Ok((bytes, sum)) => (fetch.bytes, fetch.sum, fetch.result) = (bytes, sum, Ok(())),
            Err(e) => (fetch.bytes, fetch.result) = (buffer, Err(e)),
        }
    }

    /// The stored bytes of a block that is not embedded, checksum verified; their fletcher4, where that was
    /// what verified them. `buffer` may be used for them.
    fn read_stored(&self, bp: &Blkptr, at: &Bookmark, buffer: &mut Vec<u8>) -> Result<Summed, ReadError> {
        let mut worst = None;
        let mut failed = Vec::new();
        for dva in bp.dvas() {
            let read = if dva.is_gang() {
                self.read_ganged(bp, dva).map(|data| (data, None))
            } else {
                self.read_copy(bp, dva, buffer)
            };
            match read {
                Ok(read) => {
                    self.heal_copies(bp, &failed, &read.0);
                    return Ok(read);
                }
                // another copy may lie on a vdev that we can read
                Err(Bad::Unsupported(why)) => worst = worst.or(Some(ReadError::Unsupported(why))),
                // a wrong checksum says more than a device that is away
                Err(Bad::Checksum) => worst = Some(ReadError::Checksum { at: *at, bp: Box::new(*bp) }),
                Err(Bad::Device(why)) => worst = worst.or(Some(ReadError::Device(why))),
            }
            failed.push(dva);
        }
        Err(worst.unwrap_or_else(|| Corrupt::new("blkptr", format!("no copy at {at}")).into()))
    }

    /// One copy, whole; on a mirror any side whose bytes have the right checksum.
    pub(super) fn read_copy(&self, bp: &Blkptr, dva: &Dva, buffer: &mut Vec<u8>) -> Result<Summed, Bad> {
        let mut unsupported = None;
        let mut sum = None;
        let is_sum = bp.checksum() == Checksum::FLETCHER_4 && bp.is_little_endian();
        let mut accept = |data: &[u8]| match checksum::verify_words(bp, data, Some(&self.salt)) {
            Ok(words) => {
                sum = words.filter(|_| is_sum).map(Fletcher4::from_words);
                true
            }
            Err(checksum::VerifyError::Unsupported(e)) => {
                unsupported = Some(e.to_string());
                false
            }
            Err(_) => false,
        };
        let read = self.read_raw(dva, bp.psize(), born(bp), &mut accept, buffer);
        match (read, unsupported) {
            (Err(_), Some(why)) => Err(Bad::Unsupported(why)),
            (read, _) => read.map(|data| (data, sum)),
        }
    }

    pub(super) fn read_raw(
        &self,
        dva: &Dva,
        len: u64,
        born: Born,
        accept: &mut dyn FnMut(&[u8]) -> bool,
        buffer: &mut Vec<u8>,
    ) -> Result<Vec<u8>, Bad> {
        match self.settled().read_born(dva, len, Some(born), accept, buffer) {
            Ok(read) => Ok(read.data),
            Err(VdevError::NoGoodCopy(bad)) if bad.iter().any(|b| matches!(b.why, tree::Bad::Checksum)) => {
                Err(Bad::Checksum)
            }
            Err(e @ VdevError::Unsupported { .. }) => Err(Bad::Unsupported(e.to_string())),
            Err(e) => Err(Bad::Device(e.to_string())),
        }
    }
}

/// When a block was allocated, and whether its checksum tells wrong bytes.
pub(super) fn born(bp: &Blkptr) -> Born {
    Born { txg: bp.physical_birth(), unchecked: bp.checksum().is_none() }
}

/// Stored bytes and, if it is known, their fletcher4 as little-endian words.
pub(super) type Summed = (Vec<u8>, Option<Fletcher4>);

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

    fn fetch(&self, blocks: &mut [Fetch], meanwhile: &mut dyn FnMut()) {
        let slots: Vec<Mutex<&mut Fetch>> = blocks.iter_mut().map(Mutex::new).collect();
        let job = |i: usize| {
            if let Some(slot) = slots.get(i) {
                self.fetch_one(&mut slot.lock().unwrap_or_else(PoisonError::into_inner));
            }
        };
        self.env.workers.for_each_index_beside(slots.len(), &job, meanwhile);
    }

    fn for_each(&self, n: usize, job: &(dyn Fn(usize) + Sync)) {
        match n {
            0 => {}
            1 => job(0),
            _ => self.env.workers.for_each_index(n, job),
        }
    }

    fn read_each(&self, blocks: &[(Blkptr, Bookmark)], want: Want, look: &Look<'_>) {
        let spare: Mutex<Vec<Vec<u8>>> = Mutex::default();
        let spare = || spare.lock().unwrap_or_else(PoisonError::into_inner);
        self.for_each(blocks.len(), &|i| {
            let Some((bp, at)) = blocks.get(i) else { return };
            let buffer = spare().pop().unwrap_or_default();
            let mut fetch = Fetch::new(*bp, *at, want, buffer);
            self.fetch_one(&mut fetch);
            look(i, fetch.result.map(|()| fetch.bytes.as_slice()));
            spare().push(fetch.bytes);
        });
    }

    fn txg(&self) -> Txg {
        self.txg
    }

    fn hole_birth(&self) -> bool {
        self.hole_birth
    }
}
