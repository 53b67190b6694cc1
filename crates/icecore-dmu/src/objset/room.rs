//! How far an objset may grow in the open txg: where quotas and reservations meet what is written.
//!
//! The owner knows quotas and sets a [`Room`]; every way to write data asks it before anything changes.
//!
//! Invariants:
//! 1. Data that does not fit is refused before the tree changes: the objset is as it was, and the txg need not be abandoned.
//! 2. Only data is refused. Metadata, all of `sync`, and everything that frees goes on, so that a full
//!    dataset can be emptied (OpenZFS lets the one transaction that crosses a limit through as well).

use super::sync::is_kept;
use super::{Obj, Objset, Space};
use crate::store::{BlockStore, BlockWriter, WriteError};
use icecore_format::{Blkptr, ObjectId, Txg};

/// What may yet be written to an objset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Bytes by which it may grow in the open txg, as allocated on disk.
    pub bytes: u64,
    /// Blocks born after this txg (that of the newest snapshot) give their space back when they are replaced.
    pub own_after: Txg,
    /// A quota is what ends it: [`WriteError::Quota`]; else the pool is full: [`WriteError::NoSpace`].
    pub quota: bool,
}

/// Bytes by which the open txg made an objset grow so far.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Growth {
    /// Allocated for blocks of earlier txgs that were replaced and are given back.
    freed: u64,
    /// The same for those that a snapshot still has: the objset will be smaller without them, once the txg is committed.
    left: u64,
    /// Data that waits in buffers, uncompressed, for blocks that make it grow.
    buffered: u64,
    /// The same for all blocks.
    rewritten: u64,
}

impl Objset {
    /// Sets how far the objset may grow in the open txg, what it grew in it included; `None`: without limit.
    pub fn set_room(&mut self, room: Option<Room>) {
        self.room = room;
    }

    /// Bytes by which the open txg makes the objset grow, as far as is known before the sync; 0 if it shrinks.
    #[must_use]
    pub fn growth(&self) -> u64 {
        let born = u64::try_from(self.delta.born.used).unwrap_or(0);
        born.saturating_sub(self.grown.freed).saturating_add(self.grown.buffered)
    }

    /// Whether there will be more room after the txg than is known before.
    #[must_use]
    pub fn shrinks_later(&self) -> bool {
        self.room.is_some_and(|room| room.quota) && self.grown.left > 0
    }

    /// Bytes of data for which the open txg takes or will take new places, whatever it gives back: that can be used again only
    /// some txgs later.
    #[must_use]
    pub fn placed(&self) -> u64 {
        u64::try_from(self.delta.born.used).unwrap_or(0).saturating_add(self.grown.rewritten)
    }

    /// Bytes of data that still fit, as far as is known.
    #[must_use]
    pub fn room_left(&self) -> u64 {
        self.room.map_or(u64::MAX, |room| room.bytes.saturating_sub(self.growth()))
    }

    /// Whether `more` bytes of data still fit. Whoever makes files that hold nothing yet asks with 0.
    ///
    /// # Errors
    /// [`WriteError::Quota`] or [`WriteError::NoSpace`]; nothing has changed.
    pub fn check_room(&self, more: u64) -> Result<(), WriteError> {
        let Some(room) = self.room else { return Ok(()) };
        match self.growth().saturating_add(more) {
            // At the limit nothing fits, not even what would need no space.
            grown if grown < room.bytes || (more > 0 && grown == room.bytes) => Ok(()),
            _ if room.quota => Err(WriteError::Quota),
            _ => Err(WriteError::NoSpace),
        }
    }

    /// Before data is put into a buffer: its block counts as it is, uncompressed, unless it replaces one that
    /// is given back.
    pub(super) fn admit_buffer(
        &mut self,
        io: &dyn BlockStore,
        obj: ObjectId,
        o: &Obj,
        blkid: u64,
    ) -> Result<(), WriteError> {
        let Some(room) = self.room else { return Ok(()) };
        if o.dn.kind().is_metadata() || o.bufs.contains_key(&(0, blkid)) {
            return Ok(());
        }
        let old =
            if blkid <= o.dn.maxblkid() { self.get_bp(io, obj, o, 0, blkid)? } else { Blkptr::default() };
        let own = !old.is_hole() && old.alloc_birth() > room.own_after;
        let more = if own { 0 } else { o.dn.block_size() };
        self.check_room(more)?;
        self.grown.buffered = self.grown.buffered.saturating_add(more);
        self.grown.rewritten = self.grown.rewritten.saturating_add(o.dn.block_size());
        Ok(())
    }

    /// After blocks were written and before they enter the tree: gives them back if they do not fit.
    pub(super) fn admit_written(
        &self,
        io: &mut dyn BlockWriter,
        places: &[(ObjectId, u64, Blkptr)],
        written: &[Blkptr],
    ) -> Result<(), WriteError> {
        let Some(room) = self.room else { return Ok(()) };
        let changed = || places.iter().zip(written).filter(|((.., old), bp)| !is_kept(old, bp));
        let born: u64 = changed().map(|(_, bp)| bp.asize()).fold(0, u64::saturating_add);
        if self.growth().saturating_add(born) <= room.bytes {
            return Ok(());
        }
        let mut given_back = 0_u64;
        let mut new = Vec::with_capacity(written.len());
        for ((obj, blkid, _), bp) in changed() {
            let dn = self.dnode(io, *obj)?;
            let old = match *blkid <= dn.maxblkid() {
                true => self.blkptr(io, *obj, &dn, 0, *blkid)?,
                false => Blkptr::default(),
            };
            if !old.is_hole() && old.alloc_birth() > room.own_after {
                given_back = given_back.saturating_add(old.asize());
            }
            // What was written over the old block in its place is still the tree's.
            if bp.dva.first() != old.dva.first() {
                new.push(bp);
            }
        }
        let fits = self.check_room(born.saturating_sub(given_back));
        if fits.is_err() {
            new.into_iter().try_for_each(|bp| io.free(bp))?;
        }
        fits
    }

    /// Notes that a block of an earlier txg left the tree.
    pub(super) fn note_killed(&mut self, bp: &Blkptr) {
        let Some(room) = self.room else { return };
        let used = u64::try_from(Space::of(bp).used).unwrap_or(0);
        let sum =
            if bp.alloc_birth() > room.own_after { &mut self.grown.freed } else { &mut self.grown.left };
        *sum = sum.saturating_add(used);
    }
}
