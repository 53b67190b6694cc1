//! Walks a snapshot and tells, in the order of a stream, what is new since a txg: dnodes, data, holes.
//!
//! Decides which subtrees are visited (`traverse_visitbp`, `traverse_dnode` of dmu_traverse.c) and what each
//! visited pointer means for a stream (`send_cb`, dmu_send.c).
//!
//! Invariants:
//! 1. A subtree whose pointer was born at or before the txg is not read: the cost is the difference.
//! 2. Holes without a birth are always told, whatever the pool's hole_birth feature says: a freed and reused
//!    object number may hide behind them (`send_holes_without_birth_time`, on by default).
//! 3. Order: objects ascending; of an object its dnode, its blocks ascending, its spill block. Before the
//!    dnodes of a block of them stands the block itself.
//! 4. The depth of the walk is bound by the dnode's levels; a pointer of another level is refused.
//!
//! It reads metadata only; blocks of data are named, not read.

use super::SendError;
use icecore_dmu::{BlockStore, Want};
use icecore_format::dnode::{DNODE_BLOCK, SLOT};
use icecore_format::objset::ObjsetPhys;
use icecore_format::{Blkptr, Bookmark, Corrupt, Dnode, ObjectId, ObjectType, Txg};
use std::sync::Arc;
use zerocopy::FromBytes;

/// One piece of the difference.
#[derive(Clone, Debug)]
pub(crate) enum Range {
    /// A block of dnodes follows.
    DnodeBlock { first_object: u64, slots: u64, bp: Blkptr },
    /// An object's head; free slots come as free dnodes.
    Object { object: u64, dnode: Box<Dnode>, block: Blkptr },
    /// A block with contents.
    Data { object: u64, blkid: u64, kind: ObjectType, block_size: u64, bp: Blkptr },
    /// Blocks `start..end` (`end` wraps to 0 at the end of all numbers) without contents.
    Hole { object: u64, start: u64, end: u64, block_size: u64 },
    /// Blocks left out by redaction.
    Redacted { object: u64, start: u64, end: u64, block_size: u64 },
}

/// Where an interrupted stream goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Resume {
    pub(crate) object: u64,
    pub(crate) blkid: u64,
}

/// What to walk.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) io: &'a dyn BlockStore,
    /// The dataset object: selects the key.
    pub(crate) objset: u64,
    /// Only what was born later; 0 for everything.
    pub(crate) since: Txg,
    /// How metadata is read.
    pub(crate) want: Want,
    /// The objset is encrypted: every block must be.
    pub(crate) encrypted: bool,
    pub(crate) resume: Option<Resume>,
}

/// Children read ahead at once.
const AHEAD: usize = 16;

type Tell<'a> = &'a mut dyn FnMut(Range) -> Result<(), SendError>;

/// Walks the objset `phys`.
pub(crate) fn walk(scope: &Scope<'_>, phys: &ObjsetPhys, tell: Tell<'_>) -> Result<(), SendError> {
    let meta = phys.meta_dnode()?;
    if meta.block_size() != DNODE_BLOCK as u64 {
        return Err(Corrupt::new("metadnode", format!("block size {}", meta.block_size())).into());
    }
    Walk { s: scope, tell }.tree(&meta, 0)
}

struct Walk<'a, 'b> {
    s: &'a Scope<'a>,
    tell: Tell<'b>,
}

impl Walk<'_, '_> {
    /// All blocks of `dn`, the spill block last.
    fn tree(&mut self, dn: &Dnode, object: u64) -> Result<(), SendError> {
        if dn.is_free() {
            return Ok(());
        }
        let top = dn.nlevels().saturating_sub(1);
        let pointers: Vec<Blkptr> = (0..usize::from(dn.nblkptr())).map(|i| dn.blkptr(i)).collect();
        self.children(dn, object, top, 0, &pointers)?;
        match dn.spill() {
            Some(bp) => self.visit(dn, object, 0, Bookmark::SPILL, &bp, None),
            None => Ok(()),
        }
    }

    /// Visits pointers that stand side by side, reading ahead what must be read.
    fn children(
        &mut self,
        dn: &Dnode,
        object: u64,
        level: u8,
        first: u64,
        pointers: &[Blkptr],
    ) -> Result<(), SendError> {
        let reads = level > 0 || object == 0;
        for (chunk_at, chunk) in pointers.chunks(AHEAD).enumerate() {
            let first = first.wrapping_add((chunk_at * AHEAD) as u64);
            let numbered = || (0_u64..).zip(chunk).map(|(i, bp)| (first.wrapping_add(i), bp));
            let ahead: Vec<(Blkptr, Bookmark)> = if reads {
                numbered()
                    .filter(|(blkid, bp)| is_followed(bp) && self.wanted(dn, object, level, *blkid, bp))
                    .filter(|(blkid, _)| !self.past_end(dn, level, *blkid))
                    .map(|(blkid, bp)| (*bp, self.at(object, level, blkid)))
                    .collect()
            } else {
                Vec::new()
            };
            for (bp, at) in &ahead {
                self.check(bp, at)?;
            }
            let mut read =
                if ahead.is_empty() { Vec::new() } else { self.s.io.read_many(&ahead, self.s.want) }
                    .into_iter();
            for (blkid, bp) in numbered() {
                if !self.wanted(dn, object, level, blkid, bp) {
                    continue;
                }
                let contents = if reads && is_followed(bp) && !self.past_end(dn, level, blkid) {
                    read.next().transpose()?
                } else {
                    None
                };
                self.visit(dn, object, level, blkid, bp, contents)?;
            }
        }
        Ok(())
    }

    /// Whether the subtree can hold anything new that was not sent before the interruption.
    fn wanted(&self, dn: &Dnode, object: u64, level: u8, blkid: u64, bp: &Blkptr) -> bool {
        let unborn = bp.birth() == Txg(0);
        (unborn || bp.birth() > self.s.since) && !self.done(dn, object, level, blkid)
    }

    /// Whether the subtree lies past the last block a file or volume has: nothing there counts, whatever it
    /// is.
    fn past_end(&self, dn: &Dnode, level: u8, blkid: u64) -> bool {
        if blkid == Bookmark::SPILL || dn.kind().is_metadata() {
            return false;
        }
        let shift = u32::from(level).saturating_mul(dn.epbs());
        let start = 1_u64.checked_shl(shift).and_then(|span| span.checked_mul(blkid));
        start.is_none_or(|start| start > dn.maxblkid())
    }

    /// Whether all of the subtree lies before the point of resumption (`zbookmark_subtree_completed`).
    fn done(&self, dn: &Dnode, object: u64, level: u8, blkid: u64) -> bool {
        let Some(resume) = self.s.resume else { return false };
        let shift = u32::from(level).saturating_mul(dn.epbs());
        let end = u128::from(blkid.wrapping_add(1));
        let end = if shift < 64 { end << shift } else { u128::MAX };
        if object == 0 {
            let end_object = end.saturating_mul((DNODE_BLOCK / SLOT) as u128);
            return end_object <= u128::from(resume.object);
        }
        object < resume.object || (object == resume.object && end <= u128::from(resume.blkid))
    }

    fn at(&self, object: u64, level: u8, blkid: u64) -> Bookmark {
        #[allow(clippy::cast_possible_wrap)] // levels are below 12
        Bookmark { objset: self.s.objset, object: ObjectId(object), level: level as i8, blkid }
    }

    /// A block pointer that is followed has the level and, in an encrypted objset, the crypt bit it must
    /// have. OpenZFS calls the lack of the latter tampering, but its own block cloning has made such blocks.
    fn check(&self, bp: &Blkptr, at: &Bookmark) -> Result<(), SendError> {
        if self.s.encrypted && !bp.uses_crypt() {
            return Err(SendError::UnencryptedBlock { at: *at });
        }
        if i64::from(at.level) != i64::from(bp.level()) {
            return Err(Corrupt::new("block pointer", format!("level {} at {at}", bp.level())).into());
        }
        Ok(())
    }

    fn visit(
        &mut self,
        dn: &Dnode,
        object: u64,
        level: u8,
        blkid: u64,
        bp: &Blkptr,
        contents: Option<Arc<[u8]>>,
    ) -> Result<(), SendError> {
        if !self.wanted(dn, object, level, blkid, bp) {
            return Ok(());
        }
        if !is_followed(bp) {
            return self.tell_without_contents(dn, object, level, blkid, bp);
        }
        if self.past_end(dn, level, blkid) {
            return Ok(());
        }
        let at = self.at(object, level, blkid);
        self.check(bp, &at)?;
        match contents {
            Some(bytes) if level > 0 => self.indirect(dn, object, level, blkid, &bytes),
            Some(bytes) => self.dnodes(blkid, bp, &bytes),
            None => self.tell_data(dn, object, blkid, bp),
        }
    }

    fn indirect(
        &mut self,
        dn: &Dnode,
        object: u64,
        level: u8,
        blkid: u64,
        bytes: &[u8],
    ) -> Result<(), SendError> {
        let per_block = dn.epb();
        if bytes.len() as u64 != per_block.wrapping_mul(size_of::<Blkptr>() as u64) {
            let why = format!("{} bytes at {}", bytes.len(), self.at(object, level, blkid));
            return Err(Corrupt::new("indirect block", why).into());
        }
        let pointers = <[Blkptr]>::ref_from_bytes(bytes)
            .map_err(|_| Corrupt::new("indirect block", format!("{} bytes", bytes.len())))?;
        let Some(first) = blkid.checked_mul(per_block) else { return Ok(()) };
        self.children(dn, object, level.saturating_sub(1), first, pointers)
    }

    fn dnodes(&mut self, blkid: u64, bp: &Blkptr, bytes: &[u8]) -> Result<(), SendError> {
        let slots = (bytes.len() / SLOT) as u64;
        if bytes.len() != DNODE_BLOCK {
            return Err(Corrupt::new("dnode block", format!("{} bytes in block {blkid}", bytes.len())).into());
        }
        if self.s.want == Want::NoKey && bp.uses_crypt() && !bp.is_little_endian() {
            return Err(SendError::Unsupported("raw streams of big-endian dnodes".into()));
        }
        let first_object = blkid.saturating_mul(slots);
        (self.tell)(Range::DnodeBlock { first_object, slots, bp: *bp })?;
        let mut slot = 0_u64;
        while slot < slots {
            let at = usize::try_from(slot).unwrap_or(usize::MAX).saturating_mul(SLOT);
            let dnode = Dnode::parse(bytes.get(at..).unwrap_or(&[]))?;
            let object = first_object.saturating_add(slot);
            slot = slot.saturating_add(dnode.slots() as u64);
            self.object(object, dnode, bp)?;
        }
        Ok(())
    }

    fn object(&mut self, object: u64, dnode: Dnode, block: &Blkptr) -> Result<(), SendError> {
        if object == 0 || self.s.resume.is_some_and(|r| object < r.object) {
            return Ok(());
        }
        (self.tell)(Range::Object { object, dnode: Box::new(dnode.clone()), block: *block })?;
        self.tree(&dnode, object)
    }

    fn tell_data(&mut self, dn: &Dnode, object: u64, blkid: u64, bp: &Blkptr) -> Result<(), SendError> {
        let spill = blkid == Bookmark::SPILL;
        if spill != (bp.kind() == ObjectType::SA) {
            let why = format!("{:?} at {}", bp.kind(), self.at(object, 0, blkid));
            return Err(Corrupt::new("spill block", why).into());
        }
        let block_size = if spill { bp.lsize() } else { dn.block_size() };
        if bp.lsize() != block_size {
            let why = format!("{} bytes, not {block_size}, at {}", bp.lsize(), self.at(object, 0, blkid));
            return Err(Corrupt::new("block pointer", why).into());
        }
        (self.tell)(Range::Data { object, blkid, kind: dn.kind(), block_size, bp: *bp })
    }

    fn tell_without_contents(
        &mut self,
        dn: &Dnode,
        object: u64,
        level: u8,
        blkid: u64,
        bp: &Blkptr,
    ) -> Result<(), SendError> {
        // What overflows can never have held anything: nothing to say about it.
        let shift = u32::from(level).saturating_mul(dn.epbs());
        let Some(span) = 1_u64.checked_shl(shift) else { return Ok(()) };
        let Some(start) = span.checked_mul(blkid) else { return Ok(()) };
        if self.past_end(dn, level, blkid) {
            return Ok(());
        }
        let end = start.checked_add(span).unwrap_or(0);
        let block_size = if blkid == Bookmark::SPILL { bp.lsize() } else { dn.block_size() };
        (self.tell)(if bp.is_redacted() {
            Range::Redacted { object, start, end, block_size }
        } else {
            Range::Hole { object, start, end, block_size }
        })
    }
}

fn is_followed(bp: &Blkptr) -> bool {
    !bp.is_hole() && !bp.is_redacted()
}
