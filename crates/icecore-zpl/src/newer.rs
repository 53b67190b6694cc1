//! Which objects of a file system may have changed since a txg: the tree of dnodes, pruned by birth
//! (`diff_cb`, dmu_diff.c, over `traverse_visitbp`, dmu_traverse.c).
//!
//! Invariants:
//! 1. A subtree whose pointer was born at or before the txg is not read: the cost is the difference.
//! 2. Holes without a birth are always told: whatever was freed before the pool kept births may hide behind them.
//! 3. Objects come in ascending order, none twice.
//! 4. The depth is bound by the levels of the metadnode; a pointer of another level is refused.

use crate::error::{Result, ZplError};
use icecore_dmu::objset::slot_starts;
use icecore_dmu::{BlockStore, Objset};
use icecore_format::dnode::{DNODE_BLOCK, MAX_OBJECT, SLOTS_PER_BLOCK};
use icecore_format::{Blkptr, Bookmark, Corrupt, ObjectId, Txg};
use zerocopy::FromBytes;

/// Blocks read at once.
const AHEAD: usize = 16;

/// A piece of the difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Piece {
    /// The object lies in a block of dnodes that was written later.
    Used(ObjectId),
    /// No object begins at these numbers, both included; some may have before.
    Free(ObjectId, ObjectId),
}

type Tell<'a, E> = &'a mut dyn FnMut(Piece) -> Result<(), E>;

/// Tells what of `os`, as it lies on disk, is in blocks of dnodes born after `since`.
pub(crate) fn walk<E: From<ZplError>>(
    io: &dyn BlockStore,
    os: &Objset,
    since: Txg,
    tell: Tell<'_, E>,
) -> Result<(), E> {
    let meta = os.meta();
    let pointers: Vec<Blkptr> = (0..usize::from(meta.nblkptr())).map(|i| meta.blkptr(i)).collect();
    Newer { io, os, since, tell }.children(meta.nlevels().saturating_sub(1), 0, &pointers)
}

struct Newer<'a, 'b, E> {
    io: &'a dyn BlockStore,
    os: &'a Objset,
    since: Txg,
    tell: Tell<'b, E>,
}

impl<E: From<ZplError>> Newer<'_, '_, E> {
    /// Pointers that stand side by side, of which the first is number `first` of its level.
    fn children(&mut self, level: u8, first: u64, pointers: &[Blkptr]) -> Result<(), E> {
        for (at, chunk) in pointers.chunks(AHEAD).enumerate() {
            let first = first.saturating_add((at * AHEAD) as u64);
            let wanted: Vec<(u64, &Blkptr)> = (first..)
                .zip(chunk)
                .filter(|(_, bp)| bp.birth() == Txg(0) || bp.birth() > self.since)
                .collect();
            let mut ahead = Vec::new();
            for (blkid, bp) in wanted.iter().filter(|(_, bp)| !bp.is_hole()) {
                #[allow(clippy::cast_possible_wrap)] // levels are below 12
                let at =
                    Bookmark { objset: self.os.id(), object: ObjectId(0), level: level as i8, blkid: *blkid };
                if bp.level() != level || bp.is_redacted() {
                    let why = format!("level {} at {at}", bp.level());
                    return Err(damaged("block pointer", why).into());
                }
                ahead.push((**bp, at));
            }
            let mut read = self.io.read_many(&ahead, self.os.want()).into_iter();
            for (blkid, bp) in wanted {
                if bp.is_hole() {
                    self.hole(level, blkid)?;
                    continue;
                }
                let Some(block) = read.next() else { continue };
                let block = block.map_err(ZplError::from)?;
                match level {
                    0 => self.dnodes(blkid, &block)?,
                    _ => self.indirect(level, blkid, &block)?,
                }
            }
        }
        Ok(())
    }

    fn indirect(&mut self, level: u8, blkid: u64, block: &[u8]) -> Result<(), E> {
        let pointers = <[Blkptr]>::ref_from_bytes(block).ok();
        let pointers = pointers.filter(|p| p.len() as u64 == self.os.meta().epb());
        let pointers = pointers.ok_or_else(|| damaged("indirect block", format!("{} bytes", block.len())))?;
        let Some(first) = blkid.checked_mul(pointers.len() as u64) else { return Ok(()) };
        self.children(level.saturating_sub(1), first, pointers)
    }

    fn hole(&mut self, level: u8, blkid: u64) -> Result<(), E> {
        let shift = u32::from(level).saturating_mul(self.os.meta().epbs());
        let span = if shift < 64 { (1_u128 << shift) * u128::from(SLOTS_PER_BLOCK) } else { u128::MAX };
        let first = u128::from(blkid).saturating_mul(span);
        let end = first.saturating_add(span).min(u128::from(MAX_OBJECT));
        match (u64::try_from(first), u64::try_from(end)) {
            (Ok(first), Ok(end)) => self.free(first, end),
            _ => Ok(()),
        }
    }

    /// Numbers `first..end`.
    fn free(&mut self, first: u64, end: u64) -> Result<(), E> {
        let first = first.max(1);
        if first >= end {
            return Ok(());
        }
        (self.tell)(Piece::Free(ObjectId(first), ObjectId(end - 1)))
    }

    fn dnodes(&mut self, blkid: u64, block: &[u8]) -> Result<(), E> {
        if block.len() != DNODE_BLOCK {
            return Err(damaged("dnode block", format!("{} bytes", block.len())).into());
        }
        let first = blkid.saturating_mul(SLOTS_PER_BLOCK);
        let end = first.saturating_add(SLOTS_PER_BLOCK);
        let mut next = first;
        for (slot, _) in slot_starts(block).map_err(ZplError::from)? {
            let object = first.saturating_add(slot as u64);
            // Slots in the middle of a large dnode are free ones too: what had them before is gone. OpenZFS passes them
            // by (`diff_cb`), and with them the objects that made room.
            self.free(next, object)?;
            if object != 0 {
                (self.tell)(Piece::Used(ObjectId(object)))?;
            }
            next = object.saturating_add(1);
        }
        self.free(next, end)
    }
}

fn damaged(what: &'static str, why: String) -> ZplError {
    ZplError::Corrupt(Corrupt::new(what, why))
}
