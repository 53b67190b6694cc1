//! The opened vdev tree: `(top-level vdev, offset)` to device I/O, with repair of bad copies.
//!
//! Facts: allocatable space starts 4 MiB into each leaf (`VDEV_LABEL_START_SIZE`); mirrors hold the same
//! bytes at the same offset in each child (vdev_mirror.c); raidz in [`crate::raidz`], draid in [`crate::draid`],
//! removed vdevs in [`crate::indirect`].
//!
//! Invariants:
//! 1. Data is returned only after the caller's check passed on exactly those bytes.
//! 2. No address outside a top-level vdev's `asize` reaches a device; labels are never overwritten by data.
//! 3. A write or flush reports every present leaf that did not take it. Absent leaves are known from
//!    [`VdevSet::absent`]; whether to write to a pool that has some is the pool's decision.
//! 4. A bad copy is rewritten only with bytes that passed the check, and only on devices opened for writing.
//!
//! It does not choose where to write, count references, or know what a block holds.

mod health;
mod lose;
mod read;
mod repair;
mod write;

pub use health::Health;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use icecore_env::{Device, DeviceError};
use icecore_format::nvlist::NvList;
use icecore_format::uberblock::{self, UberblockPhys};
use icecore_format::{Corrupt, Guid, Txg};

use crate::config::{VdevConfig, VdevKind};
use crate::draid::Draid;
use crate::error::VdevError;
use crate::indirect::Mapping;
use crate::label::{self, FoundUberblock, LabelSet};
use crate::raidz::{self, Reflow};
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
    lack: Lack,
    counts: Counts,
}

/// What a leaf has of that which its vdev holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lack {
    Nothing,
    /// It missed txgs.
    Txgs,
    /// It missed some, and is being given them.
    Filling,
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

impl Counts {
    fn all(&self) -> [&AtomicU64; 3] {
        [&self.read, &self.write, &self.checksum]
    }
    /// As numbers: reads, writes, checksums.
    #[must_use]
    pub fn numbers(&self) -> [u64; 3] {
        self.all().map(|n| n.load(Ordering::Relaxed))
    }
    /// Begins anew (`zpool clear`).
    pub fn reset(&self) {
        self.all().into_iter().for_each(|n| n.store(0, Ordering::Relaxed));
    }
    fn set(&self, numbers: [u64; 3]) {
        for (own, n) in self.all().into_iter().zip(numbers) {
            own.store(n, Ordering::Relaxed);
        }
    }
    fn add(&self, other: &Self) {
        for (own, more) in self.all().into_iter().zip(other.numbers()) {
            own.fetch_add(more, Ordering::Relaxed);
        }
    }
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
        self.lack != Lack::Nothing
    }
    /// Whether it missed txgs and gets them now: what is written to its vdev goes to it too, but for labels and uberblocks.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        self.lack == Lack::Filling
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
        device.read_at(START_SIZE.wrapping_add(offset), out).map_err(|e| {
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
        // That a side which missed txgs has other contents is no fault of its device.
        if matches!(why, Bad::Checksum) && !self.is_stale() {
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
    /// When the block was allocated, if that is known.
    born: Option<Born>,
}

/// When a block was allocated: on a raidz that was expanded it tells how the block lies.
#[derive(Clone, Copy, Debug)]
pub struct Born {
    /// The txg.
    pub txg: Txg,
    /// The block has no checksum that could tell right bytes from others.
    pub unchecked: bool,
}

/// How the bytes of a top-level vdev lie on leaves. Leaves are indices into the set's list.
pub(crate) enum Node {
    Leaf(usize),
    Mirror(Vec<Node>),
    Raidz {
        children: Vec<Node>,
        nparity: usize,
    },
    Draid {
        children: Vec<Node>,
        layout: Box<Draid>,
    },
    /// A distributed spare in use, by its number.
    DraidSpare(u64),
    /// A removed vdev, once its mapping was read.
    Indirect(OnceLock<Arc<Mapping>>),
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
    /// How far it has come if it is in the middle of an expansion.
    reflow: Option<Reflow>,
    pub(crate) node: Node,
    pub(crate) counts: Counts,
}

impl Top {
    fn new(index: usize, config: &VdevConfig, ashift: u64, asize: u64, node: Node) -> Self {
        let (id, config) = (index as u64, config.clone());
        Self { id, config, ashift, asize, reflow: None, node, counts: Counts::default() }
    }
    /// Errors seen on it as a whole: blocks of a raidz or draid that could not be put together.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
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
        !matches!(self.node, Node::Nothing | Node::Unsupported(_) | Node::Indirect(_) | Node::DraidSpare(_))
    }
    /// Whether it was removed and its contents are elsewhere.
    #[must_use]
    pub fn is_indirect(&self) -> bool {
        matches!(self.node, Node::Indirect(_))
    }
    /// Its name as `zpool status` has it: a device's own, or kind and number.
    #[must_use]
    pub fn name(&self) -> String {
        let c = &self.config;
        match &c.path {
            Some(path) if c.kind.is_leaf() => path.clone(),
            _ => c.name(self.id),
        }
    }
    /// What space comes in: allocations are multiples of it, at multiples of it.
    #[must_use]
    pub fn unit(&self) -> u64 {
        match &self.node {
            Node::Draid { layout, .. } => layout.unit(),
            _ => 1 << self.ashift,
        }
    }
    /// What a block of `psize` bytes takes of it.
    #[must_use]
    pub fn psize_to_asize(&self, psize: u64) -> u64 {
        match &self.node {
            Node::Raidz { children, nparity } => {
                size::raidz_psize_to_asize(psize, self.ashift, children.len() as u64, *nparity as u64)
            }
            Node::Draid { layout, .. } => layout.psize_to_asize(psize),
            _ => size::psize_to_asize(psize, self.ashift),
        }
    }
    /// Bytes that 512 allocated bytes count for in datasets: as many as a block of 128 KiB has of them
    /// (`vdev_set_deflate_ratio`, vdev.c).
    #[must_use]
    pub fn deflate_ratio(&self) -> u64 {
        const BLOCK: u64 = 1 << 17;
        // A raidz counts for ever as it was made: `vdev_raidz_psize_to_asize` of txg 0.
        let asize = match &self.node {
            Node::Raidz { children, nparity } => {
                let shape = self.raidz_shapes(*nparity, children.len()).pop();
                let width = shape.map_or(children.len(), |s| s.born) as u64;
                size::raidz_psize_to_asize(BLOCK, self.ashift, width, *nparity as u64)
            }
            _ => self.psize_to_asize(BLOCK),
        };
        BLOCK / (asize >> 9)
    }
    /// The shape of blocks born in `birth`.
    fn raidz_shape_of(&self, nparity: usize, width: usize, birth: Txg) -> raidz::Shape {
        let born = self.raidz_width_at(width, birth).max(nparity + 1);
        raidz::Shape { width, born, nparity, ashift: self.ashift, reflow: self.reflow }
    }
    /// The shapes its blocks may have, the newest first: each expansion added a child. Nothing is of the width of an
    /// expansion that is not complete.
    fn raidz_shapes(&self, nparity: usize, width: usize) -> Vec<raidz::Shape> {
        let now = width - usize::from(self.config.raidz_expanding);
        let oldest = now.saturating_sub(self.config.raidz_expand_txgs.len()).max(nparity + 1);
        let shape = |born| raidz::Shape { width, born, nparity, ashift: self.ashift, reflow: self.reflow };
        (oldest..=now).rev().map(shape).collect()
    }
    /// The children that a raidz had for blocks of a txg (`vdev_raidz_get_logical_width`, vdev_raidz.c).
    fn raidz_width_at(&self, width: usize, txg: Txg) -> usize {
        let later = self.config.raidz_expand_txgs.iter().filter(|t| **t > txg.0).count();
        width.saturating_sub(usize::from(self.config.raidz_expanding) + later)
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

    /// Reads what may rightly be anything, such as the end of an intent log: errors met in `f` do not count.
    pub fn uncounted<T>(&self, f: impl FnOnce() -> T) -> T {
        let before: Vec<[u64; 3]> = self.leaves.iter().map(|l| l.counts.numbers()).collect();
        let done = f();
        self.leaves.iter().zip(before).for_each(|(l, n)| l.counts.set(n));
        done
    }

    /// Goes on counting errors where another view of the same devices ended.
    pub fn inherit_counts(&self, old: &Self) {
        for leaf in &self.leaves {
            old.leaves.iter().filter(|o| o.guid == leaf.guid).for_each(|o| leaf.counts.add(&o.counts));
        }
        for top in &self.tops {
            let same = old.tops.iter().filter(|o| o.config.guid == top.config.guid);
            same.for_each(|o| top.counts.add(&o.counts));
        }
    }

    /// Takes in where the contents of the removed vdev `top` went, once. Until then its blocks cannot be read.
    pub fn set_mapping(&self, top: u64, mapping: Arc<Mapping>) -> Result<(), Corrupt> {
        let top_of = usize::try_from(top).ok().and_then(|i| self.tops.get(i));
        match top_of.map(|t| &t.node) {
            Some(Node::Indirect(slot)) if slot.set(mapping).is_ok() => Ok(()),
            Some(Node::Indirect(_)) => Err(Corrupt::new("indirect mapping", format!("two of vdev {top}"))),
            _ => Err(Corrupt::new("indirect mapping", format!("of vdev {top}, which was not removed"))),
        }
    }

    /// Takes in how far the expansion of a raidz had come when an uberblock was written: without it nothing is taken to
    /// have moved.
    #[must_use]
    pub fn at(mut self, uberblock: &UberblockPhys) -> Self {
        let reflow = Reflow {
            offset: uberblock.reflow_offset(),
            scratch: uberblock.reflow_state() == uberblock::REFLOW_SCRATCH_VALID,
        };
        for top in self.tops.iter_mut().filter(|t| t.config.raidz_expanding) {
            top.reflow = Some(reflow);
        }
        self
    }

    /// Makes everything written to any present leaf durable.
    pub fn flush(&self) -> Result<(), VdevError> {
        self.on_leaves(|device, _| device.flush().map_err(VdevError::Device))
    }

    /// Lets a leaf count as one that missed txgs and gets them now ([`Leaf::is_filling`]).
    #[must_use]
    pub fn filling(mut self, guid: Guid) -> Self {
        self.leaves.iter_mut().filter(|l| l.guid == guid).for_each(|l| l.lack = Lack::Filling);
        self
    }

    /// Writes labels of all present leaves that are not [`Leaf::is_filling`]; `make` gives each leaf's configuration, or
    /// `None` to leave it.
    pub fn write_labels(
        &self,
        set: LabelSet,
        make: &dyn Fn(&Leaf) -> Option<NvList>,
    ) -> Result<(), VdevError> {
        self.on_leaves(|device, leaf| match make(leaf).filter(|_| !leaf.is_filling()) {
            Some(config) => label::write_config(device, set, &config),
            None => Ok(()),
        })
    }

    /// Writes an uberblock into its txg's slot of all labels of the same leaves.
    pub fn write_uberblock(&self, ub: &UberblockPhys, multihost: bool) -> Result<(), VdevError> {
        self.on_leaves(|device, leaf| {
            if leaf.is_filling() {
                return Ok(());
            }
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
            Node::DraidSpare(_) => return Err(bad("a distributed spare is no vdev of its own")),
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
    let concrete =
        !matches!(node, Node::Nothing | Node::Unsupported(_) | Node::Indirect(_) | Node::DraidSpare(_));
    let (Some(asize), Some(ashift)) = (config.asize, ashift) else {
        if concrete {
            return Err(Corrupt::new("vdev config", format!("no size or ashift of {}", config.guid)).into());
        }
        let (asize, ashift) = (config.asize.unwrap_or(0), opener.ashift);
        return Ok(Top::new(index, config, ashift, asize, node));
    };
    // A child must reach as far as the offsets of its parent do.
    let needed = match &node {
        // The space that an expansion adds counts once it is complete.
        Node::Raidz { children, .. } => asize / (children.len() - usize::from(config.raidz_expanding)) as u64,
        Node::Draid { layout, .. } => layout.child_asize(asize),
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
    Ok(Top::new(index, config, ashift, asize, node))
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
            VdevKind::Raidz => {
                let nparity = config.nparity.unwrap_or(1) as usize;
                let children: Vec<Node> = children()?;
                if children.len() <= nparity + usize::from(config.raidz_expanding) {
                    return Err(Corrupt::new("vdev config", format!("a raidz{nparity} of too few")).into());
                }
                Node::Raidz { children, nparity }
            }
            VdevKind::Draid if config.draid_nchildren.is_some_and(|n| n != config.children.len() as u64) => {
                let _: Vec<Node> = children()?;
                Node::Unsupported(VdevKind::Other("draid with failure domains".into()))
            }
            VdevKind::Draid => {
                let layout = Box::new(Draid::new(config, self.ashift)?);
                Node::Draid { children: children()?, layout }
            }
            VdevKind::DraidSpare => match config.spare_id {
                Some(id) => Node::DraidSpare(id),
                None => return Err(Corrupt::new("vdev config", "a distributed spare without number").into()),
            },
            VdevKind::Indirect => Node::Indirect(OnceLock::new()),
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
            lack: if self.stale.contains(&config.guid) { Lack::Txgs } else { Lack::Nothing },
            counts: Counts::default(),
        }
    }
}
