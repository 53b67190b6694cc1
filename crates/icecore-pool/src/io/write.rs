//! Writing a batch: form, encrypt and sum all blocks in parallel, give them places in order, write.
//!
//! Invariants:
//! 1. Places are given in input order, so the layout does not depend on scheduling.
//! 2. Only blocks of the MOS are rewritten in place, and only if they were born in this txg: nothing
//!    committed and no snapshot refers to them, and there is no IV to be used twice. Passes converge by it.
//! 3. A batch that finds no space has taken none. After any other error the caller abandons the txg.
//! 4. A block that may be kept is told by its pointer, as it is: it takes no place and is not written.

use super::behind::Pieces;
use super::codec::{self, Closed, Context};
use super::gang::DEPTH_NEW;
use super::{Io, SALT_USES};
use crate::metaslab::alloc::Load;
use crate::metaslab::{Allocator, load};
use icecore_dmu::{BlockStore, BlockWriter, Form, NewBlock, Objset, ReadError, Want, WriteError};
use icecore_env::map;
use icecore_format::{Blkptr, Corrupt, Dva};
use icecore_transform::crypt::Nonce;
use std::sync::{Mutex, PoisonError};

/// From this pass on, blocks rewritten in the same txg are not compressed, so that their sizes stay put
/// (`zfs_sync_pass_dont_compress`).
const PASS_DONT_COMPRESS: u32 = 8;
/// Adjacent writes are joined up to this size.
const JOIN_MAX: usize = 1 << 20;
/// From this size on, a piece is written by itself: copying it would cost more than another call.
const JOIN_BELOW: usize = 64 << 10;

/// The same bytes for each copy.
fn split(bp: &Blkptr, data: Vec<u8>) -> Vec<(Dva, Vec<u8>)> {
    let dvas = bp.dvas();
    let mut all: Vec<(Dva, Vec<u8>)> = dvas.iter().skip(1).map(|d| (*d, data.clone())).collect();
    all.extend(dvas.first().map(|d| (*d, data)));
    all
}

/// Whether a new block is stored as `old` is, byte for byte, as far as its sum tells (`zio_nop_write`, zio.c).
fn has_contents_of(old: &Blkptr, new: &Blkptr) -> bool {
    !old.is_hole() && !old.is_embedded() && !old.uses_crypt() && !new.uses_crypt() && old.is_stored_as(new)
}

impl Io {
    fn close_all(&mut self, blocks: &mut [NewBlock]) -> Result<Vec<Closed>, WriteError> {
        let mut nonces = Vec::with_capacity(blocks.len());
        for new in blocks.iter() {
            nonces.push(self.nonce(new));
        }
        let this = &*self;
        let close = |new: &mut NewBlock, nonce: Option<Nonce>| {
            let cx = Context {
                txg: this.txg,
                salt: &this.salt,
                min_shift: this.min_shift,
                keys: this.keys.get(&new.at.objset).map(|l| l.keys.clone()),
                nonce,
                no_compress: this.pass >= PASS_DONT_COMPRESS && this.rewrites(new),
            };
            codec::close(new, &cx)
        };
        if blocks.iter().all(|new| matches!(new.form, Form::Stored { sum: Some(_), .. })) {
            // Nothing to compute: not worth a thread.
            return blocks.iter_mut().zip(nonces).map(|(new, nonce)| close(new, nonce)).collect();
        }
        let slots: Vec<_> = blocks.iter_mut().zip(nonces).map(Mutex::new).collect();
        let closed = map(&*this.env.workers, slots.len(), |i| match slots.get(i) {
            Some(slot) => {
                let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
                let (new, nonce) = &mut *slot;
                close(new, *nonce)
            }
            None => Err(WriteError::Invalid("index".into())),
        });
        closed.into_iter().collect()
    }

    /// Whether the block replaces one of the MOS born in this txg.
    fn rewrites(&self, new: &NewBlock) -> bool {
        new.at.objset == 0 && !new.old.is_hole() && new.old.birth() == self.txg
    }

    /// Salt and IV for a block to be encrypted.
    fn nonce(&mut self, new: &NewBlock) -> Option<Nonce> {
        let wanted = matches!(new.form, Form::Logical { encrypt: true, .. });
        if !wanted || new.level > 0 || !new.kind.is_encrypted() {
            return None;
        }
        let loaded = self.keys.get_mut(&new.at.objset)?;
        let salt = match &mut loaded.salt {
            Some((salt, uses)) if *uses < SALT_USES => {
                *uses += 1;
                *salt
            }
            slot => {
                let mut salt = [0; 8];
                self.env.entropy.fill(&mut salt);
                *slot = Some((salt, 1));
                salt
            }
        };
        let mut iv = [0; 12];
        self.env.entropy.fill(&mut iv);
        Some(Nonce { salt, iv })
    }

    /// Gives a formed block its places: those of the block it replaces, or new ones, or parts of it several.
    /// What is to be written where, is added to `out`.
    fn place(
        &mut self,
        new: &NewBlock,
        bp: &mut Blkptr,
        data: Vec<u8>,
        out: &mut Vec<(Dva, Vec<u8>)>,
    ) -> Result<(), WriteError> {
        let max = if bp.is_encrypted() { 2 } else { 3 };
        let copies = usize::from(new.copies.clamp(1, max));
        let old = &new.old;
        if new.may_keep && has_contents_of(old, bp) && old.dvas().len() == copies {
            *bp = *old;
            return Ok(());
        }
        let in_place = self.rewrites(new)
            && !old.is_embedded()
            && !old.is_gang()
            && old.psize() == bp.psize()
            && old.dvas().len() == copies;
        if in_place {
            self.forget_block(old);
            bp.dva = old.dva;
            out.extend(split(bp, data));
            return Ok(());
        }
        if new.at.objset != 0 {
            let space = self.alloc.space();
            let metadata = new.level > 0 || new.kind.is_metadata();
            let left = if metadata { space.available_for_metadata() } else { space.available() };
            if left < bp.psize() * copies as u64 {
                return Err(WriteError::NoSpace);
            }
        }
        match self.try_allocate(bp.psize(), copies, new.at.objset != 0) {
            Ok(dvas) => {
                for (slot, dva) in bp.dva.iter_mut().zip(dvas) {
                    *slot = dva;
                }
                out.extend(split(bp, data));
                Ok(())
            }
            // A ganged block of the MOS could not be rewritten in place, and passes would not converge.
            Err(WriteError::NoSpace) if new.at.objset != 0 => {
                self.place_ganged(bp, &data, copies, DEPTH_NEW, out)
            }
            Err(other) => Err(other),
        }
    }

    /// As `allocate`, but with no place for what tests want ganged.
    pub(super) fn try_allocate(
        &mut self,
        psize: u64,
        copies: usize,
        may_gang: bool,
    ) -> Result<Vec<Dva>, WriteError> {
        if may_gang && psize > self.gang_above {
            return Err(WriteError::NoSpace);
        }
        self.allocate(psize, copies)
    }

    pub(super) fn allocate(&mut self, psize: u64, copies: usize) -> Result<Vec<Dva>, WriteError> {
        self.with_alloc(|alloc, load| alloc.allocate(psize, copies, load))
    }

    /// Takes a place that the last commit calls free: of a block that an intent log leads to.
    pub(crate) fn claim(&mut self, dva: &Dva) -> Result<(), WriteError> {
        self.with_alloc(|alloc, load| alloc.claim(dva, load))
    }

    /// The trees step aside while space maps are read through `self`.
    fn with_alloc<T>(&mut self, f: impl FnOnce(&mut Allocator, &mut Load<'_>) -> T) -> T {
        let mut alloc = std::mem::take(&mut self.alloc);
        let mut mos: Option<Objset> = None;
        let done = f(&mut alloc, &mut |slab, top| {
            if mos.is_none() {
                mos = Some(Objset::open(self, 0, &self.mos_root, Want::Logical)?);
            }
            match &mos {
                Some(mos) => load::free_space(mos, self, slab, top.ashift),
                None => Err(ReadError::Corrupt(Corrupt::new("space map", "no MOS"))),
            }
        });
        self.alloc = alloc;
        done
    }

    /// Gives back the places of a batch that does not fit as a whole: whoever goes on with the txg loses no space by it.
    /// In the MOS some are those of older blocks; its txg is abandoned.
    fn take_back(&mut self, blocks: &[NewBlock], writes: &[(Dva, Vec<u8>)]) -> Result<(), WriteError> {
        if blocks.iter().all(|new| new.at.objset != 0) {
            for (dva, _) in writes {
                self.alloc.free(dva)?;
            }
        }
        Ok(())
    }

    /// Sends everything to the devices, once the batch before has arrived.
    fn write_out(&mut self, writes: Vec<(Dva, Vec<u8>)>) -> Result<(), WriteError> {
        if writes.is_empty() {
            return Ok(());
        }
        self.settle()?;
        self.unflushed_writes = true;
        let pieces = self.pieces(writes);
        self.behind.write(&self.env.workers, &self.vdevs, pieces);
        Ok(())
    }

    /// Whole sectors by place, small neighbours joined.
    fn pieces(&self, mut writes: Vec<(Dva, Vec<u8>)>) -> Pieces {
        writes.sort_by_key(|(dva, _)| (dva.vdev(), dva.offset()));
        let mut pieces = Pieces::new();
        for (dva, mut data) in writes {
            data.resize(data.len().next_multiple_of(1 << self.alloc.ashift(dva.vdev())), 0);
            let vdev = u64::from(dva.vdev());
            match pieces.last_mut() {
                Some((last, offset, joined))
                    if *last == vdev
                        && *offset + joined.len() as u64 == dva.offset()
                        && data.len() < JOIN_BELOW
                        && joined.len() + data.len() <= JOIN_MAX =>
                {
                    joined.extend_from_slice(&data);
                }
                _ => pieces.push((vdev, dva.offset(), data)),
            }
        }
        pieces
    }
}

impl BlockWriter for Io {
    fn write_batch(&mut self, mut blocks: Vec<NewBlock>) -> Result<Vec<Blkptr>, WriteError> {
        self.check_writable()?;
        if let Some(new) = blocks.iter().find(|b| !codec::summable(b.checksum)) {
            return Err(WriteError::Invalid(format!("checksum {:?} at {}", new.checksum, new.at)));
        }
        let closed = self.close_all(&mut blocks)?;
        let mut out = Vec::with_capacity(blocks.len());
        let mut writes = Vec::new();
        for (new, closed) in blocks.iter().zip(closed) {
            match closed {
                Closed::Hole => {
                    let birth = self.hole_birth() && new.old.birth().0 != 0;
                    let txg = if birth { self.txg } else { icecore_format::Txg(0) };
                    out.push(Blkptr::hole(txg, new.kind, new.level, new.lsize));
                }
                Closed::Embedded(bp) => out.push(bp),
                Closed::Block { mut bp, data } => {
                    if let Err(e) = self.place(new, &mut bp, data, &mut writes) {
                        self.take_back(&blocks, &writes)?;
                        return Err(e);
                    }
                    out.push(bp);
                }
            }
        }
        self.write_out(writes)?;
        Ok(out)
    }

    fn buffer(&mut self, len: usize) -> Vec<u8> {
        self.behind.buffer(len)
    }

    fn free(&mut self, bp: &Blkptr) -> Result<(), WriteError> {
        self.check_writable()?;
        if bp.is_hole() || bp.is_embedded() {
            return Ok(());
        }
        if bp.is_dedup() {
            return Err(WriteError::Invalid("a deduplicated block cannot be freed".into()));
        }
        for dva in self.places(bp)? {
            self.release(&dva)?;
        }
        self.forget_block(bp);
        Ok(())
    }
}
