//! Reading a block: from which leaves, by which map, and rewriting the copies that were bad.
//!
//! Facts: children of raidz `vdev_raidz_io_start` (vdev_raidz.c), distributed spares
//! `vdev_draid_spare_io_start` (vdev_draid.c), blocks on removed vdevs `vdev_indirect_io_start` and
//! `vdev_indirect_reconstruct_io_done` (vdev_indirect.c).

use icecore_env::Workers;
use icecore_format::Dva;
use std::sync::atomic::Ordering;

use super::{Bad, BadCopy, Born, Copies, Judge, Leaf, LeafCopy, Node, Read, Top, VdevSet};
use crate::error::VdevError;
use crate::indirect::Piece;
use crate::raidz::{self, Children, GUESSES_MAX, Map};

/// Good bytes, and of raidz and draid the map they were found by.
type Found = (Vec<u8>, Option<Map>);

impl VdevSet {
    /// Reads `psize` bytes at a DVA. `check` is called on each candidate until it says yes; bad copies met
    /// before that are rewritten where possible.
    pub fn read(
        &self,
        dva: &Dva,
        psize: u64,
        check: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Read, VdevError> {
        self.read_into(dva, psize, check, &mut Vec::new())
    }

    /// As [`VdevSet::read`], into `buffer` if that spares an allocation: what comes back has taken its place,
    /// and what was in it is lost.
    pub fn read_into(
        &self,
        dva: &Dva,
        psize: u64,
        check: &mut dyn FnMut(&[u8]) -> bool,
        buffer: &mut Vec<u8>,
    ) -> Result<Read, VdevError> {
        self.read_born(dva, psize, None, check, buffer)
    }

    /// As [`VdevSet::read_into`], of a block of which it is known when it was allocated. On a raidz that was expanded
    /// nothing else tells where the bytes of a block without a checksum are.
    pub fn read_born(
        &self,
        dva: &Dva,
        psize: u64,
        born: Option<Born>,
        check: &mut dyn FnMut(&[u8]) -> bool,
        buffer: &mut Vec<u8>,
    ) -> Result<Read, VdevError> {
        self.read_with(dva, psize, Judge { check, copies: Copies::UntilGood, born }, buffer)
    }

    /// As [`VdevSet::read_born`], but looks at every copy and all parity, and repairs what is wrong.
    pub fn scrub(
        &self,
        dva: &Dva,
        psize: u64,
        born: Option<Born>,
        check: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Read, VdevError> {
        self.read_with(dva, psize, Judge { check, copies: Copies::All, born }, &mut Vec::new())
    }

    fn read_with(
        &self,
        dva: &Dva,
        psize: u64,
        judge: Judge<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<Read, VdevError> {
        let top = self.locate(u64::from(dva.vdev()), dva.offset(), psize)?;
        if !matches!(top.node, Node::Indirect(_)) {
            return self.read_at(top, dva.offset(), psize, judge, buffer);
        }
        let pieces = self.pieces(top, dva.offset(), psize)?;
        if let [one] = pieces.as_slice() {
            let top = self.locate(one.vdev, one.offset, psize)?;
            return self.read_at(top, one.offset, psize, judge, buffer);
        }
        let mut bad = Vec::new();
        let data = self.read_pieces(&pieces, psize as usize, judge, &mut bad)?;
        let Some(data) = data else { return Err(VdevError::NoGoodCopy(bad)) };
        bad.retain(|b| !matches!(b.why, Bad::Absent));
        let repaired = self.repair_pieces(&pieces, &data, &bad);
        Ok(Read { data, bad, repaired })
    }

    fn read_at(
        &self,
        top: &Top,
        offset: u64,
        psize: u64,
        judge: Judge<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<Read, VdevError> {
        let mut bad = Vec::new();
        let data = self.read_node(top, offset, psize, judge, &mut bad, buffer)?;
        let Some((data, map)) = data else {
            if matches!(top.node, Node::Raidz { .. } | Node::Draid { .. }) {
                // Which child is wrong, nobody knows.
                top.counts.checksum.fetch_add(1, Ordering::Relaxed);
            }
            return Err(VdevError::NoGoodCopy(bad));
        };
        bad.retain(|b| !matches!(b.why, Bad::Absent));
        let repaired = self.repair(top, map.as_ref(), &data, &bad);
        Ok(Read { data, bad, repaired })
    }

    /// Reads many blocks at once; results in request order. `check(i, bytes)` judges request `i`.
    pub fn read_many(
        &self,
        workers: &dyn Workers,
        requests: &[(Dva, u64)],
        check: &(dyn Fn(usize, &[u8]) -> bool + Sync),
    ) -> Vec<Result<Read, VdevError>> {
        icecore_env::map(workers, requests.len(), |i| {
            let (dva, psize) = &requests[i];
            self.read(dva, *psize, &mut |bytes| check(i, bytes))
        })
    }

    /// What each leaf copy of a plain or mirrored block holds, for scrubs and diagnosis. Empty for raidz, draid
    /// and removed vdevs.
    pub fn read_all_copies(&self, dva: &Dva, psize: u64) -> Result<Vec<LeafCopy>, VdevError> {
        let top = self.locate(u64::from(dva.vdev()), dva.offset(), psize)?;
        let read = |i: usize| {
            let leaf = &self.leaves[i];
            let mut buf = vec![0; psize as usize];
            let got = leaf.read(dva.offset(), &mut buf);
            (leaf.guid, got.map(|()| buf).map_err(|why| leaf.bad(dva.offset(), why)))
        };
        Ok(self.copies_at(top, &top.node, dva.offset()).into_iter().map(read).collect())
    }

    /// Where a range is that is addressed by a DVA: itself, or for one on a removed vdev the places it was moved
    /// to, in order: top-level vdev, offset and length in bytes.
    pub fn places(&self, dva: &Dva, len: u64) -> Result<Vec<(u64, u64, u64)>, VdevError> {
        let top = self.locate(u64::from(dva.vdev()), dva.offset(), len)?;
        let pieces = self.pieces(top, dva.offset(), len)?;
        Ok(pieces.into_iter().map(|p| (p.vdev, p.offset, p.len)).collect())
    }

    fn read_node(
        &self,
        top: &Top,
        offset: u64,
        len: u64,
        judge: Judge<'_>,
        bad: &mut Vec<BadCopy>,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Found>, VdevError> {
        match &top.node {
            Node::Raidz { children, nparity } => {
                let below = Below { set: self, top, nodes: children };
                // How wide the raidz was when the block was born is not in its address: its txg or the check tells.
                let mut shapes = top.raidz_shapes(*nparity, children.len());
                if let Some(born) = judge.born {
                    let width = top.raidz_width_at(children.len(), born.txg);
                    shapes.sort_by_key(|s| s.born != width);
                    shapes.truncate(if born.unchecked { 1 } else { shapes.len() });
                }
                let maps = shapes.iter().map(|s| raidz::map(*s, offset, len));
                Ok(read_maps(&below, maps.collect(), judge, bad))
            }
            Node::Draid { children, layout } => {
                let below = Below { set: self, top, nodes: children };
                let why = "no block begins there";
                let map = layout.map(offset, len);
                let map = map.ok_or(VdevError::BadAddress { vdev: top.id, offset, len, why })?;
                Ok(read_maps(&below, vec![map], judge, bad))
            }
            _ => Ok(self.read_copies(top, offset, len, judge, bad, buffer).map(|data| (data, None))),
        }
    }

    fn read_copies(
        &self,
        top: &Top,
        offset: u64,
        len: u64,
        Judge { check, copies, .. }: Judge<'_>,
        bad: &mut Vec<BadCopy>,
        buffer: &mut Vec<u8>,
    ) -> Option<Vec<u8>> {
        let mut good = None;
        for i in self.read_order(top, &top.node, offset) {
            let leaf = &self.leaves[i];
            let mut buf = std::mem::take(buffer);
            buf.resize(len as usize, 0);
            let wrong = match leaf.read(offset, &mut buf) {
                Ok(()) if check(&buf) => {
                    good = Some(buf);
                    if copies == Copies::UntilGood {
                        break;
                    }
                    continue;
                }
                Ok(()) => Bad::Checksum,
                Err(why) => why,
            };
            bad.push(leaf.bad(offset, wrong));
            *buffer = buf;
        }
        good
    }

    /// Where a range of a removed vdev is now: on vdevs that were not removed. Each step of the way is another
    /// vdev, so the steps are bounded by their number.
    pub(super) fn pieces(&self, top: &Top, offset: u64, len: u64) -> Result<Vec<Piece>, VdevError> {
        let bad = |vdev, offset, len, why| VdevError::BadAddress { vdev, offset, len, why };
        let mut todo = vec![(Piece { vdev: top.id, offset, len, at: 0 }, 0)];
        let mut out = Vec::new();
        while let Some((piece, steps)) = todo.pop() {
            let Piece { vdev, offset, len, at } = piece;
            let top = usize::try_from(vdev).ok().and_then(|v| self.tops.get(v));
            let top = top.ok_or_else(|| bad(vdev, offset, len, "no such vdev"))?;
            let Node::Indirect(mapping) = &top.node else {
                out.push(piece);
                continue;
            };
            let Some(mapping) = mapping.get() else {
                return Err(bad(vdev, offset, len, "the mapping of the removed vdev is not read yet"));
            };
            let next = mapping.pieces(offset, len);
            let next =
                next.ok_or_else(|| bad(vdev, offset, len, "not mapped: it was free on the removed vdev"))?;
            if steps >= self.tops.len() {
                return Err(bad(vdev, offset, len, "removed vdevs are mapped to each other"));
            }
            todo.extend(next.into_iter().map(|p| (Piece { at: at + p.at, ..p }, steps + 1)));
        }
        out.sort_by_key(|p| p.at);
        Ok(out)
    }

    /// A block in several pieces. Only the whole can be checked, so where the first copies of the pieces do not
    /// make it up, all combinations of copies that differ are tried, up to [`GUESSES_MAX`].
    fn read_pieces(
        &self,
        pieces: &[Piece],
        len: usize,
        Judge { check, copies, .. }: Judge<'_>,
        bad: &mut Vec<BadCopy>,
    ) -> Result<Option<Vec<u8>>, VdevError> {
        let mut versions = Vec::new();
        for piece in pieces {
            versions.push(self.versions(piece, copies, bad)?);
        }
        if copies == Copies::UntilGood {
            if let Some(data) = joined(&versions, &vec![0; pieces.len()], len).filter(|d| check(d)) {
                return Ok(Some(data));
            }
            bad.clear();
            versions.clear();
            for piece in pieces {
                versions.push(self.versions(piece, Copies::All, bad)?);
            }
        }
        let mut choice = vec![0; pieces.len()];
        for _ in 0..GUESSES_MAX {
            if let Some(data) = joined(&versions, &choice, len).filter(|d| check(d)) {
                for ((piece, versions), chosen) in pieces.iter().zip(&versions).zip(&choice) {
                    let wrong = versions.iter().enumerate().filter(|(i, _)| i != chosen);
                    let leaves = wrong.flat_map(|(_, v)| &v.leaves);
                    bad.extend(leaves.map(|i| self.leaves[*i].bad(piece.offset, Bad::Checksum)));
                }
                return Ok(Some(data));
            }
            // Counts up, the first piece fastest.
            let more = choice.iter_mut().zip(&versions).any(|(c, v)| {
                *c += 1;
                if *c >= v.len() {
                    *c = 0;
                }
                *c != 0
            });
            if !more {
                break;
            }
        }
        Ok(None)
    }

    /// What the copies of a piece hold, each content once; one copy that can be read, or all.
    fn versions(
        &self,
        piece: &Piece,
        copies: Copies,
        bad: &mut Vec<BadCopy>,
    ) -> Result<Vec<Version>, VdevError> {
        let top = self.locate(piece.vdev, piece.offset, piece.len)?;
        if matches!(top.node, Node::Raidz { .. } | Node::Draid { .. }) {
            // OpenZFS removes no vdev from a pool that has any of these.
            let kind = format!("a block in pieces on {}", top.config.kind);
            return Err(VdevError::Unsupported { kind, guid: top.config.guid });
        }
        let mut versions: Vec<Version> = Vec::new();
        for i in self.read_order(top, &top.node, piece.offset) {
            let leaf = &self.leaves[i];
            let mut bytes = vec![0; piece.len as usize];
            match leaf.read(piece.offset, &mut bytes) {
                Ok(()) => match versions.iter_mut().find(|v| v.bytes == bytes) {
                    Some(same) => same.leaves.push(i),
                    None => versions.push(Version { bytes, leaves: vec![i] }),
                },
                Err(why) => bad.push(leaf.bad(piece.offset, why)),
            }
            if copies == Copies::UntilGood && !versions.is_empty() {
                break;
            }
        }
        Ok(versions)
    }

    /// The leaves that have the bytes of a node at an offset.
    pub(super) fn copies_at(&self, top: &Top, node: &Node, offset: u64) -> Vec<usize> {
        let mut out = Vec::new();
        self.collect_copies(top, node, offset, &mut Vec::new(), &mut out);
        out
    }

    /// `spares` are the distributed spares on the way: one that leads back to itself has no bytes.
    fn collect_copies(
        &self,
        top: &Top,
        node: &Node,
        offset: u64,
        spares: &mut Vec<u64>,
        out: &mut Vec<usize>,
    ) {
        match node {
            Node::Leaf(i) => out.push(*i),
            Node::Mirror(children) => {
                children.iter().for_each(|c| self.collect_copies(top, c, offset, spares, out));
            }
            Node::DraidSpare(id) => {
                if let Node::Draid { children, layout } = &top.node
                    && !spares.contains(id)
                    && let Some(child) = layout.spare_child(*id, offset).and_then(|c| children.get(c))
                {
                    spares.push(*id);
                    self.collect_copies(top, child, offset, spares, out);
                    spares.pop();
                }
            }
            Node::Raidz { .. }
            | Node::Draid { .. }
            | Node::Indirect(_)
            | Node::Nothing
            | Node::Unsupported(_) => {}
        }
    }

    /// Copies in the order to try them: sound before stale; which of the sound ones comes first changes
    /// every MiB, so that neighbours share a device and the load is spread.
    fn read_order(&self, top: &Top, node: &Node, offset: u64) -> Vec<usize> {
        let mut copies = self.copies_at(top, node, offset);
        if !copies.is_empty() {
            let first = (offset >> 20) as usize % copies.len();
            copies.rotate_left(first);
        }
        self.sound_first(&mut copies);
        copies
    }

    fn sound_first(&self, copies: &mut [usize]) {
        copies.sort_by_key(|i| {
            let leaf = &self.leaves[*i];
            (leaf.device.is_none(), leaf.is_stale())
        });
    }
}

/// By the first map that fits: first with the data as it is, then with parity.
fn read_maps(
    below: &Below,
    mut maps: Vec<Map>,
    Judge { check, copies, .. }: Judge<'_>,
    bad: &mut Vec<BadCopy>,
) -> Option<Found> {
    for i in 0..maps.len() {
        if let Some(data) = raidz::read_plain(below, &maps[i], check) {
            let map = maps.swap_remove(i);
            if copies == Copies::UntilGood {
                return Some((data, Some(map)));
            }
            maps = vec![map];
            break;
        }
    }
    for map in maps {
        bad.clear();
        if let Some(data) = raidz::read_all(below, &map, check, bad) {
            return Some((data, Some(map)));
        }
    }
    None
}

/// Bytes that some copies of a piece have in common.
struct Version {
    bytes: Vec<u8>,
    leaves: Vec<usize>,
}

fn joined(versions: &[Vec<Version>], choice: &[usize], len: usize) -> Option<Vec<u8>> {
    let mut data = Vec::with_capacity(len);
    for (versions, chosen) in versions.iter().zip(choice) {
        data.extend_from_slice(&versions.get(*chosen)?.bytes);
    }
    (data.len() == len).then_some(data)
}

/// The children of one raidz or draid: each a leaf, or several that hold the same (a device and its
/// replacement or spare).
struct Below<'a> {
    set: &'a VdevSet,
    top: &'a Top,
    nodes: &'a [Node],
}

impl Below<'_> {
    fn leaves(&self, child: usize, offset: u64) -> Vec<&Leaf> {
        let Some(node) = self.nodes.get(child) else { return Vec::new() };
        let mut copies = self.set.copies_at(self.top, node, offset);
        self.set.sound_first(&mut copies);
        copies.into_iter().map(|i| &self.set.leaves[i]).collect()
    }
}

impl Children for Below<'_> {
    fn read(&self, child: usize, offset: u64, out: &mut [u8]) -> Result<(), Bad> {
        let mut why = Bad::Absent;
        for leaf in self.leaves(child, offset) {
            match leaf.read(offset, out) {
                Ok(()) => return Ok(()),
                Err(Bad::Absent) => {}
                Err(worse) => why = worse,
            }
        }
        Err(why)
    }

    fn bad(&self, child: usize, offset: u64, why: Bad) -> BadCopy {
        match self.leaves(child, offset).first() {
            Some(leaf) => leaf.bad(offset, why),
            None => BadCopy { guid: self.top.config.guid, device: format!("child {child}"), offset, why },
        }
    }
}
