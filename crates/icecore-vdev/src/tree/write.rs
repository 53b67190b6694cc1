//! Writing at addresses the pool chose: whole sectors, on every leaf that holds a copy.
//!
//! Invariants:
//! 1. Each leaf gets its pieces in the order given; leaves do not wait for each other.
//! 2. A piece counts as written only if no present leaf failed to take it, and at least one did.

use super::{Bad, BadCopy, Leaf, Node, Top, VdevSet};
use crate::error::VdevError;
use crate::{raidz, size};
use icecore_env::Workers;

impl VdevSet {
    /// Writes at `offset` of top-level vdev `top`, on all present children. Filled up with zeros to the
    /// sector size.
    pub fn write(&self, top: u64, offset: u64, data: &[u8]) -> Result<(), VdevError> {
        self.write_on(top, offset, data, None)?.finish()
    }

    /// Writes `(top, offset, data)` in order on each leaf, on all leaves at the same time. A leaf that failed to take a
    /// piece gets none of those behind it; every leaf that failed is told.
    pub fn write_many(&self, workers: &dyn Workers, pieces: &[(u64, u64, Vec<u8>)]) -> Result<(), VdevError> {
        let plain = self.tops.iter().all(|t| matches!(t.node, Node::Leaf(_) | Node::Mirror(_)));
        if self.leaves.len() < 2 || !plain {
            return pieces.iter().try_for_each(|(top, offset, data)| self.write(*top, *offset, data));
        }
        let by_leaf = icecore_env::map(workers, self.leaves.len(), |leaf| {
            let mut outcomes = Vec::with_capacity(pieces.len());
            for (top, offset, data) in pieces {
                let outcome = self.write_on(*top, *offset, data, Some(leaf))?;
                let failed = !outcome.failed.is_empty();
                outcomes.push(outcome);
                if failed {
                    break;
                }
            }
            Ok::<_, VdevError>(outcomes.into_iter())
        });
        let mut by_leaf = by_leaf.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut sum = Outcome { done: usize::MAX, ..Outcome::default() };
        for _ in pieces {
            let mut piece = Outcome::default();
            by_leaf.iter_mut().filter_map(Iterator::next).for_each(|part| piece.add(part));
            sum.done = sum.done.min(piece.done);
            sum.failed.extend(piece.failed);
            if piece.done == 0 {
                sum.absent.extend(piece.absent);
            }
        }
        sum.finish()
    }

    /// Writes one piece, filled up to whole sectors, on all leaves of its vdev or on `only` one.
    fn write_on(
        &self,
        top: u64,
        offset: u64,
        data: &[u8],
        only: Option<usize>,
    ) -> Result<Outcome, VdevError> {
        let top = self.locate(top, offset, data.len() as u64)?;
        if matches!(top.node, Node::Draid { .. } | Node::Indirect(_)) {
            let kind = format!("writing to {}", top.config.kind);
            return Err(VdevError::Unsupported { kind, guid: top.config.guid });
        }
        let sector = 1_u64 << top.ashift;
        assert!(offset.is_multiple_of(sector), "allocations are sector-aligned");
        let len = size::psize_to_asize(data.len() as u64, top.ashift) as usize;
        let padded;
        let data = if len == data.len() {
            data
        } else {
            let mut copy = data.to_vec();
            copy.resize(len, 0);
            padded = copy;
            &padded
        };
        let mut out = Outcome::default();
        self.write_node(top, &top.node, offset, data, only, &mut out);
        Ok(out)
    }

    fn write_node(
        &self,
        top: &Top,
        node: &Node,
        offset: u64,
        data: &[u8],
        only: Option<usize>,
        out: &mut Outcome,
    ) {
        match node {
            Node::Leaf(i) if only.is_some_and(|only| only != *i) => {}
            Node::Leaf(i) => out.count(&self.leaves[*i], offset, |l| l.write(offset, data)),
            Node::Mirror(children) => {
                children.iter().for_each(|c| self.write_node(top, c, offset, data, only, out));
            }
            Node::Raidz { children, nparity } => {
                let shape = *top.raidz_shapes(*nparity, children.len()).first().expect("it has a shape");
                for (child, at, bytes) in raidz::columns(shape, offset, data) {
                    for i in self.copies_at(top, &children[child], at) {
                        out.count(&self.leaves[i], at, |l| l.write(at, &bytes));
                    }
                }
            }
            Node::Draid { .. }
            | Node::DraidSpare(_)
            | Node::Indirect(_)
            | Node::Nothing
            | Node::Unsupported(_) => unreachable!("refused before"),
        }
    }
}

/// Adds up what became of a write on its leaves.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) done: usize,
    pub(super) failed: Vec<BadCopy>,
    absent: Vec<BadCopy>,
}

impl Outcome {
    fn count(&mut self, leaf: &Leaf, offset: u64, f: impl FnOnce(&Leaf) -> Result<(), Bad>) {
        match f(leaf) {
            Ok(()) => self.done += 1,
            Err(Bad::Absent) => self.absent.push(leaf.bad(offset, Bad::Absent)),
            Err(why) => self.failed.push(leaf.bad(offset, why)),
        }
    }
    fn add(&mut self, other: Self) {
        self.done += other.done;
        self.failed.extend(other.failed);
        self.absent.extend(other.absent);
    }
    pub(super) fn finish(mut self) -> Result<(), VdevError> {
        if self.failed.is_empty() && self.done > 0 {
            return Ok(());
        }
        self.failed.append(&mut self.absent);
        Err(VdevError::Partial { done: self.done, failed: self.failed })
    }
}
