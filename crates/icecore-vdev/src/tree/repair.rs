//! Rewriting what was found bad, in its place.
//!
//! Invariants:
//! 1. What is written passed the block's own check as a whole.
//! 2. It goes where that block's map has it and nowhere else: of a raidz that was expanded, by the width the block was born
//!    with. Neighbours in the same sectors there are none.
//! 3. A failure is only counted: the data was delivered, and the copy is no worse than before.

use super::{BadCopy, Leaf, Node, Top, VdevSet};
use crate::error::VdevError;
use crate::indirect::Piece;
use crate::raidz::{self, Map};
use icecore_format::{Dva, Guid, Txg};

/// Bytes on a leaf, at an offset in its allocatable space.
struct Spot {
    leaf: usize,
    offset: u64,
    bytes: Vec<u8>,
}

impl VdevSet {
    /// Rewrites bad copies; how many succeeded. None in the middle of an expansion: what is moved there is not ours to write.
    pub(super) fn repair(&self, top: &Top, map: Option<&Map>, data: &[u8], bad: &[BadCopy]) -> usize {
        if bad.is_empty() || top.config.raidz_expanding {
            return 0;
        }
        let (Node::Raidz { children, .. } | Node::Draid { children, .. }, Some(map)) = (&top.node, map)
        else {
            return bad.iter().filter(|b| self.fix(b, data)).count();
        };
        let columns = raidz::columns_of(map, data);
        let of = |b: &BadCopy, child: usize| {
            let copies = children.get(child).map(|node| self.copies_at(top, node, b.offset));
            copies.unwrap_or_default().iter().any(|i| self.leaves[*i].guid == b.guid)
        };
        let fixed = bad.iter().filter(|b| {
            let own = columns.iter().find(|(child, at, _)| *at == b.offset && of(b, *child));
            own.is_some_and(|(_, _, bytes)| self.fix(b, bytes))
        });
        fixed.count()
    }

    /// The same for a block in pieces on the vdevs that took a removed one's contents.
    pub(super) fn repair_pieces(&self, pieces: &[Piece], data: &[u8], bad: &[BadCopy]) -> usize {
        let own = |b: &BadCopy| {
            let top = self.leaves.iter().find(|l| l.guid == b.guid)?.top as u64;
            let piece = pieces.iter().find(|p| p.vdev == top && p.offset == b.offset)?;
            let (at, len) = (usize::try_from(piece.at).ok()?, usize::try_from(piece.len).ok()?);
            data.get(at..at.checked_add(len)?)
        };
        bad.iter().filter(|b| own(b).is_some_and(|bytes| self.fix(b, bytes))).count()
    }

    fn fix(&self, b: &BadCopy, bytes: &[u8]) -> bool {
        let leaf = self.leaves.iter().find(|l| l.guid == b.guid && l.writable());
        leaf.is_some_and(|l| l.write(b.offset, bytes).is_ok())
    }

    /// Puts the bytes of a block born in `birth` in all its places behind a DVA, parity too. Whether every device that is there
    /// took them, and at least one did.
    pub fn rewrite(&self, dva: &Dva, birth: Txg, data: &[u8]) -> bool {
        self.rewrite_on(dva, birth, data, |leaf| leaf.device.is_some())
    }

    /// The same of its places on one leaf.
    pub fn supply(&self, dva: &Dva, birth: Txg, data: &[u8], to: Guid) -> bool {
        self.rewrite_on(dva, birth, data, |leaf| leaf.guid == to)
    }

    /// Whether a leaf is in the top-level vdev that a DVA leads to.
    #[must_use]
    pub fn is_behind(&self, dva: &Dva, leaf: Guid) -> bool {
        self.leaves.iter().any(|l| l.guid == leaf && l.top as u64 == u64::from(dva.vdev()))
    }

    fn rewrite_on(&self, dva: &Dva, birth: Txg, data: &[u8], which: impl Fn(&Leaf) -> bool) -> bool {
        let Ok(spots) = self.spots(dva, birth, data) else { return false };
        let here: Vec<&Spot> = spots.iter().filter(|s| which(&self.leaves[s.leaf])).collect();
        let took = |s: &&Spot| {
            let leaf: &Leaf = &self.leaves[s.leaf];
            leaf.writable() && leaf.write(s.offset, &s.bytes).is_ok()
        };
        !here.is_empty() && here.iter().all(took)
    }

    /// Where a block of `psize` bytes born in `birth` is on the leaves, behind a DVA: guid, offset in the leaf's allocatable space,
    /// bytes. Every copy, all parity, whole sectors.
    ///
    /// # Errors
    /// There is no such place.
    pub fn leaf_places(&self, dva: &Dva, birth: Txg, psize: u64) -> Result<Vec<(Guid, u64, u64)>, VdevError> {
        let zeros = vec![0; usize::try_from(psize).unwrap_or(0)];
        let spots = self.spots(dva, birth, &zeros)?;
        Ok(spots.iter().map(|s| (self.leaves[s.leaf].guid, s.offset, s.bytes.len() as u64)).collect())
    }

    fn spots(&self, dva: &Dva, birth: Txg, data: &[u8]) -> Result<Vec<Spot>, VdevError> {
        let len = data.len() as u64;
        let top = self.locate(u64::from(dva.vdev()), dva.offset(), len)?;
        let mut out = Vec::new();
        for piece in self.pieces(top, dva.offset(), len)? {
            let top = self.locate(piece.vdev, piece.offset, piece.len)?;
            let (at, end) = (piece.at as usize, (piece.at + piece.len) as usize);
            self.spots_at(top, piece.offset, birth, data.get(at..end).unwrap_or_default(), &mut out)?;
        }
        Ok(out)
    }

    fn spots_at(
        &self,
        top: &Top,
        offset: u64,
        birth: Txg,
        data: &[u8],
        out: &mut Vec<Spot>,
    ) -> Result<(), VdevError> {
        let len = data.len() as u64;
        let (children, map) = match &top.node {
            Node::Raidz { .. } if top.config.raidz_expanding => {
                let why = "its raidz is in the middle of an expansion";
                return Err(VdevError::BadAddress { vdev: top.id, offset, len, why });
            }
            Node::Raidz { children, nparity } => {
                let shape = top.raidz_shape_of(*nparity, children.len(), birth);
                (children, raidz::map(shape, offset, len))
            }
            Node::Draid { children, layout } => {
                let bad = VdevError::BadAddress { vdev: top.id, offset, len, why: "no block begins there" };
                (children, layout.map(offset, len).ok_or(bad)?)
            }
            node => {
                let copies = self.copies_at(top, node, offset).into_iter();
                out.extend(copies.map(|leaf| Spot { leaf, offset, bytes: data.to_vec() }));
                return Ok(());
            }
        };
        for (child, at, bytes) in raidz::columns_of(&map, data) {
            let copies = children.get(child).map(|node| self.copies_at(top, node, at)).unwrap_or_default();
            out.extend(copies.into_iter().map(|leaf| Spot { leaf, offset: at, bytes: bytes.clone() }));
        }
        Ok(())
    }
}
