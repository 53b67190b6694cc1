//! The opened vdev tree: `(top-level vdev, offset)` to device I/O, with repair of bad copies.
//!
//! Facts: allocatable space starts 4 MiB into each leaf (`VDEV_LABEL_START_SIZE`); mirrors hold the same
//! bytes at the same offset in each child (vdev_mirror.c); raidz in [`crate::raidz`].
//!
//! Invariants:
//! 1. Data is returned only after the caller's check passed on exactly those bytes.
//! 2. No address outside a top-level vdev's `asize` reaches a device; labels are never overwritten by data.
//! 3. A write or flush reports every present leaf that did not take it. Absent leaves are known from
//!    [`VdevSet::absent`]; whether to write to a pool that has some is the pool's decision.
//! 4. A bad copy is rewritten only with bytes that passed the check, and only on devices opened for writing.
//!
//! It does not choose where to write, count references, or know what a block holds.

mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use icecore_env::{Device, DeviceError, Workers};
use icecore_format::nvlist::NvList;
use icecore_format::uberblock::{self, UberblockPhys};
use icecore_format::{Corrupt, Dva, Guid};

use crate::config::{VdevConfig, VdevKind};
use crate::error::VdevError;
use crate::label::{self, FoundUberblock, LabelSet};
mod lose;

use crate::raidz;
use crate::size::{self, START_SIZE, leaf_asize};
use write::Outcome;

/// Largest transfer: the largest block.
const MAX_TRANSFER: u64 = icecore_format::units::MAX_BLOCK;

/// A device of the pool, present or not.
pub struct Leaf {
    /// Its guid.
    pub guid: Guid,
    /// Number of its top-level vdev.
    pub top: usize,
    /// What the configuration says of it.
    pub config: VdevConfig,
    /// Its top-level vdev's ashift.
    pub ashift: u64,
    device: Option<Arc<dyn Device>>,
    /// Why there is no device.
    absence: String,
    stale: bool,
    counts: Counts,
}

/// Errors seen on a leaf since it was opened.
#[derive(Default)]
pub struct Counts {
    /// Failed reads.
    pub read: AtomicU64,
    /// Failed writes and flushes.
    pub write: AtomicU64,
    /// Reads whose contents were wrong.
    pub checksum: AtomicU64,
}

impl Leaf {
    /// Its device, if present.
    #[must_use]
    pub fn device(&self) -> Option<&Arc<dyn Device>> {
        self.device.as_ref()
    }
    /// Why it has no device; empty if it has.
    #[must_use]
    pub fn absence(&self) -> &str {
        &self.absence
    }
    /// Whether it missed txgs: read last.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }
    /// Errors seen so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
    /// Its name for people: the device's own, or the last known path.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.device, &self.config.path) {
            (Some(d), _) => d.name(),
            (None, Some(path)) => path.clone(),
            (None, None) => format!("guid {}", self.guid),
        }
    }

    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Bad> {
        let device = self.device.as_ref().ok_or(Bad::Absent)?;
        device.read_at(START_SIZE + offset, out).map_err(|e| {
            self.counts.read.fetch_add(1, Ordering::Relaxed);
            Bad::Device(e)
        })
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<(), Bad> {
        let device = self.device.as_ref().ok_or(Bad::Absent)?;
        device.write_at(START_SIZE + offset, data).map_err(|e| {
            self.counts.write.fetch_add(1, Ordering::Relaxed);
            Bad::Device(e)
        })
    }

    pub(crate) fn bad(&self, offset: u64, why: Bad) -> BadCopy {
        if matches!(why, Bad::Checksum) {
            self.counts.checksum.fetch_add(1, Ordering::Relaxed);
        }
        BadCopy { guid: self.guid, device: self.name(), offset, why }
    }

    pub(crate) fn writable(&self) -> bool {
        self.device.as_ref().is_some_and(|d| !d.read_only())
    }
}

/// What is wrong with a copy.
#[derive(Clone, Debug)]
pub enum Bad {
    /// Its device is not there.
    Absent,
    /// Its contents do not pass the check.
    Checksum,
    /// Its device failed.
    Device(DeviceError),
}

/// A copy that could not be used.
#[derive(Clone, Debug)]
pub struct BadCopy {
    /// The leaf.
    pub guid: Guid,
    /// The leaf's name.
    pub device: String,
    /// Offset within the leaf's allocatable space.
    pub offset: u64,
    /// What is wrong.
    pub why: Bad,
}

impl fmt::Display for BadCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Bad::Absent => write!(f, "{} is absent", self.device),
            Bad::Checksum => write!(f, "{} has wrong contents at {:#x}", self.device, self.offset),
            Bad::Device(e) => e.fmt(f),
        }
    }
}

/// A block as read, and what was found wrong on the way.
#[derive(Debug)]
pub struct Read {
    /// Bytes that passed the check.
    pub data: Vec<u8>,
    /// Copies that could not be used. Absent ones are not listed: they are known.
    pub bad: Vec<BadCopy>,
    /// How many of them were rewritten.
    pub repaired: usize,
}

/// What one leaf holds of a block: its guid, and the bytes or why there are none.
pub type LeafCopy = (Guid, Result<Vec<u8>, BadCopy>);

/// Good bytes, and of raidz the shape they were found by.
type Found = (Vec<u8>, Option<raidz::Shape>);

/// How much a read looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copies {
    UntilGood,
    All,
}

/// What a read must find, and in how many places.
pub(crate) struct Judge<'a> {
    check: &'a mut dyn FnMut(&[u8]) -> bool,
    copies: Copies,
}

/// How the bytes of a top-level vdev lie on leaves. Leaves are indices into the set's list.
pub(crate) enum Node {
    Leaf(usize),
    Mirror(Vec<Node>),
    Raidz { children: Vec<Node>, nparity: usize },
    Nothing,
    Unsupported(VdevKind),
}

/// A top-level vdev.
pub struct Top {
    /// Its number: what DVAs call it.
    pub id: u64,
    /// Its configuration.
    pub config: VdevConfig,
    /// log2 of its smallest write.
    pub ashift: u64,
    /// Its allocatable bytes.
    pub asize: u64,
    pub(crate) node: Node,
}

/// The state of a vdev, as `zpool status` has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Health {
    /// All there.
    Online,
    /// Works without some.
    Degraded,
    /// Does not work.
    Unavail,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Online => "ONLINE",
            Self::Degraded => "DEGRADED",
            Self::Unavail => "UNAVAIL",
        })
    }
}

impl Top {
    /// Whether its number is taken by nothing any more.
    #[must_use]
    pub fn is_hole(&self) -> bool {
        self.config.is_hole()
    }
    /// Whether it holds only the intent log.
    #[must_use]
    pub fn is_log(&self) -> bool {
        self.config.holds_log()
    }
    /// Whether blocks can be allocated from it: not a hole, missing, indirect, or of an unsupported kind.
    #[must_use]
    pub fn is_concrete(&self) -> bool {
        !matches!(self.node, Node::Nothing | Node::Unsupported(_))
    }
    /// What a block of `psize` bytes takes of it.
    #[must_use]
    pub fn psize_to_asize(&self, psize: u64) -> u64 {
        match &self.node {
            Node::Raidz { children, nparity } => {
                size::raidz_psize_to_asize(psize, self.ashift, children.len() as u64, *nparity as u64)
            }
            _ => size::psize_to_asize(psize, self.ashift),
        }
    }
    fn raidz_shape(&self, nparity: usize, width: usize, born: usize) -> raidz::Shape {
        raidz::Shape { width, born, nparity, ashift: self.ashift }
    }
    /// The shapes its blocks may have, the newest first: each expansion added a child.
    fn raidz_shapes(&self, nparity: usize, width: usize) -> Vec<raidz::Shape> {
        let oldest = width.saturating_sub(self.config.raidz_expand_txgs.len()).max(nparity + 1);
        (oldest..=width).rev().map(|born| self.raidz_shape(nparity, width, born)).collect()
    }
    /// The cut of its space into metaslabs: log2 of their size, and how many whole ones.
    #[must_use]
    pub fn metaslabs(&self) -> (u64, u64) {
        match self.config.metaslab_shift {
            Some(shift @ 1..=62) => (shift, self.asize >> shift),
            _ => size::metaslab_geometry(self.asize),
        }
    }
}

/// The vdevs of an open pool.
pub struct VdevSet {
    tops: Vec<Top>,
    leaves: Vec<Leaf>,
    root: VdevConfig,
}

impl VdevSet {
    /// Opens the tree below a root configuration with the devices at hand, by leaf guid. Absent devices, or
    /// ones too small or out of service, are no error here: ask [`VdevSet::health`].
    pub fn open(root: &VdevConfig, devices: &BTreeMap<Guid, Arc<dyn Device>>) -> Result<Self, VdevError> {
        Self::open_with_stale(root, devices, &BTreeSet::new())
    }

    /// As [`VdevSet::open`]; leaves in `stale` missed txgs and are read only if nothing better is there.
    pub fn open_with_stale(
        root: &VdevConfig,
        devices: &BTreeMap<Guid, Arc<dyn Device>>,
        stale: &BTreeSet<Guid>,
    ) -> Result<Self, VdevError> {
        if root.kind != VdevKind::Root {
            return Err(Corrupt::new("vdev config", format!("{} where the root should be", root.kind)).into());
        }
        let mut leaves = Vec::new();
        let mut tops = Vec::new();
        for (i, config) in root.children.iter().enumerate() {
            tops.push(open_top(i, config, &mut leaves, devices, stale)?);
        }
        Ok(Self { tops, leaves, root: root.clone() })
    }

    /// The top-level vdevs, by number.
    #[must_use]
    pub fn tops(&self) -> &[Top] {
        &self.tops
    }
    /// All leaves, in tree order.
    #[must_use]
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }
    /// The root configuration it was opened by.
    #[must_use]
    pub fn config(&self) -> &VdevConfig {
        &self.root
    }
    /// Leaves without a device.
    #[must_use]
    pub fn absent(&self) -> Vec<&Leaf> {
        self.leaves.iter().filter(|l| l.device.is_none()).collect()
    }

    /// The state of the whole.
    #[must_use]
    pub fn health(&self) -> Health {
        // A pool is readable, with losses said, without its log.
        let of = |t: &Top| match self.top_health(t) {
            Health::Unavail if t.is_log() => Health::Degraded,
            h => h,
        };
        self.tops.iter().map(of).max().unwrap_or(Health::Online)
    }
    /// The state of one top-level vdev.
    #[must_use]
    pub fn top_health(&self, top: &Top) -> Health {
        if top.config.kind == VdevKind::Missing { Health::Unavail } else { self.node_health(&top.node) }
    }
    fn node_health(&self, node: &Node) -> Health {
        match node {
            Node::Leaf(i) if self.leaves[*i].device.is_some() => Health::Online,
            Node::Leaf(_) => Health::Unavail,
            Node::Mirror(children) => self.group_health(children, children.len().saturating_sub(1)),
            Node::Raidz { children, nparity } => self.group_health(children, *nparity),
            Node::Nothing => Health::Online,
            Node::Unsupported(_) => Health::Unavail,
        }
    }
    fn group_health(&self, children: &[Node], spare: usize) -> Health {
        let states: Vec<Health> = children.iter().map(|c| self.node_health(c)).collect();
        match states.iter().filter(|s| **s == Health::Unavail).count() {
            0 => states.into_iter().max().unwrap_or(Health::Unavail),
            gone if gone <= spare => Health::Degraded,
            _ => Health::Unavail,
        }
    }

    /// Fails with what is missing unless every top-level vdev can be read.
    pub fn check_readable(&self) -> Result<(), VdevError> {
        for (i, top) in self.tops.iter().enumerate() {
            // Reading a block there says so; a pool without any can still be read.
            let unsupported = matches!(top.node, Node::Unsupported(_));
            if !unsupported && self.top_health(top) == Health::Unavail && !top.is_log() {
                let gone = self.leaves.iter().filter(|l| l.top == i && l.device.is_none());
                return Err(VdevError::Missing {
                    guid: top.config.guid,
                    leaves: gone.map(|l| (l.guid, l.name())).collect(),
                });
            }
        }
        Ok(())
    }

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
        self.read_with(dva, psize, check, Copies::UntilGood, buffer)
    }

    /// As [`VdevSet::read`], but looks at every copy and all parity, and repairs what is wrong.
    pub fn scrub(
        &self,
        dva: &Dva,
        psize: u64,
        check: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Read, VdevError> {
        self.read_with(dva, psize, check, Copies::All, &mut Vec::new())
    }

    fn read_with(
        &self,
        dva: &Dva,
        psize: u64,
        check: &mut dyn FnMut(&[u8]) -> bool,
        copies: Copies,
        buffer: &mut Vec<u8>,
    ) -> Result<Read, VdevError> {
        let top = self.locate(u64::from(dva.vdev()), dva.offset(), psize)?;
        let mut bad = Vec::new();
        let judge = Judge { check, copies };
        let data = self.read_node(top, dva.offset(), psize, judge, &mut bad, buffer)?;
        let Some((data, shape)) = data else { return Err(VdevError::NoGoodCopy(bad)) };
        bad.retain(|b| !matches!(b.why, Bad::Absent));
        let repaired = self.repair(top, shape, dva.offset(), &data, &bad);
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

    /// What each leaf copy of a plain or mirrored block holds, for scrubs and diagnosis. Empty for raidz.
    pub fn read_all_copies(&self, dva: &Dva, psize: u64) -> Result<Vec<LeafCopy>, VdevError> {
        let top = self.locate(u64::from(dva.vdev()), dva.offset(), psize)?;
        let read = |i: usize| {
            let leaf = &self.leaves[i];
            let mut buf = vec![0; psize as usize];
            let got = leaf.read(dva.offset(), &mut buf);
            (leaf.guid, got.map(|()| buf).map_err(|why| leaf.bad(dva.offset(), why)))
        };
        Ok(self.copies_of(&top.node).into_iter().map(read).collect())
    }

    /// Makes everything written to any present leaf durable.
    pub fn flush(&self) -> Result<(), VdevError> {
        self.on_leaves(|device, _| device.flush().map_err(VdevError::Device))
    }

    /// Writes labels of all present leaves; `make` gives each leaf's configuration, or `None` to leave it.
    pub fn write_labels(
        &self,
        set: LabelSet,
        make: &dyn Fn(&Leaf) -> Option<NvList>,
    ) -> Result<(), VdevError> {
        self.on_leaves(|device, leaf| match make(leaf) {
            Some(config) => label::write_config(device, set, &config),
            None => Ok(()),
        })
    }

    /// Writes an uberblock into its txg's slot of all labels of all present leaves.
    pub fn write_uberblock(&self, ub: &UberblockPhys, multihost: bool) -> Result<(), VdevError> {
        self.on_leaves(|device, leaf| {
            let slot = uberblock::slot_of(leaf.ashift as u32, ub.txg(), multihost);
            label::write_uberblock(device, ub, leaf.ashift, slot)
        })
    }

    /// All sound uberblocks of all present leaves, newest first.
    #[must_use]
    pub fn uberblocks(&self) -> Vec<FoundUberblock> {
        let present = self.leaves.iter().filter_map(|l| l.device.as_ref().map(|d| (l, d)));
        let mut found: Vec<FoundUberblock> =
            present.flat_map(|(l, d)| label::read_uberblocks(&**d, Some(l.ashift))).collect();
        found.sort_by(|a, b| b.uberblock.cmp_age(&a.uberblock));
        found
    }

    fn on_leaves(
        &self,
        mut f: impl FnMut(&dyn Device, &Leaf) -> Result<(), VdevError>,
    ) -> Result<(), VdevError> {
        let mut out = Outcome::default();
        for leaf in &self.leaves {
            let Some(device) = &leaf.device else { continue };
            match f(&**device, leaf) {
                Ok(()) => out.done += 1,
                Err(VdevError::Device(e)) => {
                    leaf.counts.write.fetch_add(1, Ordering::Relaxed);
                    out.failed.push(leaf.bad(e.offset, Bad::Device(e)));
                }
                Err(other) => return Err(other),
            }
        }
        out.finish()
    }

    /// The top-level vdev of an address, once the address is known to be in it.
    pub(crate) fn locate(&self, vdev: u64, offset: u64, len: u64) -> Result<&Top, VdevError> {
        let bad = |why| VdevError::BadAddress { vdev, offset, len, why };
        let index = usize::try_from(vdev).map_err(|_| bad("no such vdev"))?;
        let top = self.tops.get(index).ok_or_else(|| bad("no such vdev"))?;
        match &top.node {
            Node::Nothing => return Err(bad("the vdev is a hole or missing")),
            Node::Unsupported(kind) => {
                return Err(VdevError::Unsupported { kind: kind.to_string(), guid: top.config.guid });
            }
            _ => {}
        }
        if len == 0 || len > MAX_TRANSFER || !len.is_multiple_of(512) {
            return Err(bad("not a block size"));
        }
        if !offset.is_multiple_of(512) {
            return Err(bad("not a sector offset"));
        }
        match offset.checked_add(top.psize_to_asize(len)) {
            Some(end) if end <= top.asize => Ok(top),
            _ => Err(bad("past the end of the vdev")),
        }
    }

    fn read_node(
        &self,
        top: &Top,
        offset: u64,
        len: u64,
        Judge { check, copies }: Judge<'_>,
        bad: &mut Vec<BadCopy>,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Found>, VdevError> {
        if let Node::Raidz { children, nparity } = &top.node {
            let columns: Option<Vec<usize>> = children.iter().map(|c| self.only_leaf(c)).collect();
            let Some(columns) = columns else {
                return Err(VdevError::Unsupported {
                    kind: "raidz of mirrors".into(),
                    guid: top.config.guid,
                });
            };
            let leaves: Vec<&Leaf> = columns.iter().map(|i| &self.leaves[*i]).collect();
            let mut shapes = top.raidz_shapes(*nparity, children.len());
            // How wide the raidz was when the block was born is not in its address; the check tells.
            for shape in shapes.clone() {
                if let Some(data) = raidz::read_plain(&leaves, shape, (offset, len), check) {
                    if copies == Copies::UntilGood {
                        return Ok(Some((data, Some(shape))));
                    }
                    shapes = vec![shape];
                }
            }
            for shape in shapes {
                bad.clear();
                if let Some(data) = raidz::read_all(&leaves, shape, (offset, len), check, bad) {
                    return Ok(Some((data, Some(shape))));
                }
            }
            return Ok(None);
        }
        let mut good = None;
        for i in self.read_order(&top.node, offset) {
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
        Ok(good.map(|data| (data, None)))
    }

    /// The one leaf below a child of raidz: itself, or the readable side of a replacing or spare pair.
    fn only_leaf(&self, node: &Node) -> Option<usize> {
        let copies = self.copies_of(node);
        let present = copies.iter().find(|i| self.leaves[**i].device.is_some() && !self.leaves[**i].stale);
        present.or_else(|| copies.first()).copied()
    }

    fn copies_of(&self, node: &Node) -> Vec<usize> {
        match node {
            Node::Leaf(i) => vec![*i],
            Node::Mirror(children) => children.iter().flat_map(|c| self.copies_of(c)).collect(),
            Node::Raidz { .. } | Node::Nothing | Node::Unsupported(_) => Vec::new(),
        }
    }

    /// Copies in the order to try them: sound before stale; which of the sound ones comes first changes
    /// every MiB, so that neighbours share a device and the load is spread.
    fn read_order(&self, node: &Node, offset: u64) -> Vec<usize> {
        let mut copies = self.copies_of(node);
        if !copies.is_empty() {
            let first = (offset >> 20) as usize % copies.len();
            copies.rotate_left(first);
        }
        copies.sort_by_key(|i| {
            let leaf = &self.leaves[*i];
            (leaf.device.is_none(), leaf.stale)
        });
        copies
    }

    /// Rewrites bad copies; how many succeeded. A failure here is only counted: the data was delivered.
    fn repair(
        &self,
        top: &Top,
        shape: Option<raidz::Shape>,
        offset: u64,
        data: &[u8],
        bad: &[BadCopy],
    ) -> usize {
        let fix = |b: &BadCopy, bytes: &[u8]| {
            let leaf = self.leaves.iter().find(|l| l.guid == b.guid && l.writable());
            leaf.is_some_and(|l| l.write(b.offset, bytes).is_ok())
        };
        let (Node::Raidz { children, .. }, Some(shape), false) = (&top.node, shape, bad.is_empty()) else {
            return bad.iter().filter(|b| fix(b, data)).count();
        };
        let mut padded = data.to_vec();
        padded.resize(size::psize_to_asize(data.len() as u64, top.ashift) as usize, 0);
        let columns = raidz::columns(shape, offset, &padded);
        let of = |b: &BadCopy, child: usize| {
            self.copies_of(&children[child]).iter().any(|i| self.leaves[*i].guid == b.guid)
        };
        let fixed = bad.iter().filter(|b| {
            let own = columns.iter().find(|(child, at, _)| *at == b.offset && of(b, *child));
            own.is_some_and(|(_, _, bytes)| fix(b, bytes))
        });
        fixed.count()
    }
}

fn open_top(
    index: usize,
    config: &VdevConfig,
    leaves: &mut Vec<Leaf>,
    devices: &BTreeMap<Guid, Arc<dyn Device>>,
    stale: &BTreeSet<Guid>,
) -> Result<Top, VdevError> {
    let first = leaves.len();
    let ashift = config.ashift.filter(|a| *a != 0);
    let opener = Opener { top: index, ashift: ashift.unwrap_or(9), devices, stale };
    let node = opener.node(config, leaves)?;
    let concrete = !matches!(node, Node::Nothing | Node::Unsupported(_));
    let (Some(asize), Some(ashift)) = (config.asize, ashift) else {
        if concrete {
            return Err(Corrupt::new("vdev config", format!("no size or ashift of {}", config.guid)).into());
        }
        let (asize, ashift) = (config.asize.unwrap_or(0), opener.ashift);
        return Ok(Top { id: index as u64, config: config.clone(), ashift, asize, node });
    };
    // A child must reach as far as the offsets of its parent do.
    let needed = match &node {
        Node::Raidz { children, .. } => asize / children.len() as u64,
        _ => asize,
    };
    for leaf in leaves.iter_mut().skip(first).filter(|_| concrete) {
        let Some(device) = &leaf.device else { continue };
        let has = leaf_asize(device.size()).unwrap_or(0);
        if has < needed {
            leaf.absence = format!("too small: {has} of {needed} allocatable bytes");
            leaf.device = None;
        }
    }
    Ok(Top { id: index as u64, config: config.clone(), ashift, asize, node })
}

struct Opener<'a> {
    top: usize,
    ashift: u64,
    devices: &'a BTreeMap<Guid, Arc<dyn Device>>,
    stale: &'a BTreeSet<Guid>,
}

impl Opener<'_> {
    fn node(&self, config: &VdevConfig, leaves: &mut Vec<Leaf>) -> Result<Node, VdevError> {
        let mut children = || config.children.iter().map(|c| self.node(c, leaves)).collect::<Result<_, _>>();
        Ok(match &config.kind {
            VdevKind::Disk | VdevKind::File => {
                leaves.push(self.leaf(config));
                Node::Leaf(leaves.len() - 1)
            }
            VdevKind::Mirror | VdevKind::Replacing | VdevKind::Spare => Node::Mirror(children()?),
            VdevKind::Raidz if config.raidz_expanding => {
                let _: Vec<Node> = children()?;
                Node::Unsupported(VdevKind::Other("raidz during its expansion".into()))
            }
            VdevKind::Raidz => {
                let nparity = config.nparity.unwrap_or(1) as usize;
                Node::Raidz { children: children()?, nparity }
            }
            VdevKind::Hole | VdevKind::Missing => Node::Nothing,
            VdevKind::Root => {
                return Err(Corrupt::new("vdev config", "a root below the root").into());
            }
            // Opened all the same: their leaves have labels and uberblocks.
            other => {
                let _: Vec<Node> = children()?;
                Node::Unsupported(other.clone())
            }
        })
    }

    fn leaf(&self, config: &VdevConfig) -> Leaf {
        let found = self.devices.get(&config.guid);
        let absence = match found {
            _ if config.out_of_service() => "taken out of service",
            None => "not found",
            Some(_) => "",
        };
        Leaf {
            guid: config.guid,
            top: self.top,
            config: config.clone(),
            ashift: self.ashift,
            device: if absence.is_empty() { found.cloned() } else { None },
            absence: absence.to_owned(),
            stale: self.stale.contains(&config.guid),
            counts: Counts::default(),
        }
    }
}
