//! The four labels of a device: what it says of its pool, and its ring of uberblocks.
//!
//! Facts: layout from vdev_impl.h (`vdev_label_t`, `vdev_phys_t`); placement `vdev_label_offset`; order of
//! uberblocks `vdev_uberblock_compare`; which slot `vdev_uberblock_sync`; new labels `vdev_label_init` (all
//! vdev_label.c).
//!
//! Invariants:
//! 1. A configuration or uberblock is believed only if the checksum embedded in it holds, which also proves
//!    that it lies where it was written to.
//! 2. Uberblocks come out little-endian whoever wrote them.
//! 3. A write touches the parts it names and nothing else; none of them flushes: order is the caller's.

use std::cmp::Ordering;
use std::fmt;

use icecore_env::{Device, DeviceError, What};
use icecore_format::label::{self as layout, label_offset};
use icecore_format::nvlist::NvList;
use icecore_format::uberblock::{self, UberblockPhys};
use icecore_format::{Corrupt, Guid, Txg};
use icecore_transform::checksum::embedded::{label_seal, label_verify};

use crate::config::PoolConfig;
use crate::error::VdevError;

/// Labels on a device.
pub const LABELS: usize = layout::LABELS as usize;
const CONFIG_SIZE: usize = layout::CONFIG_SIZE as usize;
const RING_SIZE: usize = layout::RING_SIZE as usize;

/// Which labels of a device a write goes to. A commit writes the even ones before the uberblocks and the
/// odd ones after them, so that one pair is always whole and fits some uberblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LabelSet {
    /// Labels 0 and 2.
    Even,
    /// Labels 1 and 3.
    Odd,
    /// All four.
    All,
}

impl LabelSet {
    /// Their numbers.
    #[must_use]
    pub fn indices(self) -> &'static [usize] {
        match self {
            Self::Even => &[0, 2],
            Self::Odd => &[1, 3],
            Self::All => &[0, 1, 2, 3],
        }
    }
}

/// Why a label gives no configuration.
#[derive(Clone, Debug)]
pub enum LabelFault {
    /// The device is too small to have one.
    NoRoom,
    /// It cannot be read.
    Device(DeviceError),
    /// All zeros: never written, or cleared.
    Blank,
    /// Its checksum does not hold: something else is there, or it is damaged.
    Checksum,
    /// Its checksum holds and its contents make no sense.
    Corrupt(Corrupt),
}

impl fmt::Display for LabelFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom => f.write_str("no room for a label"),
            Self::Device(e) => e.fmt(f),
            Self::Blank => f.write_str("blank"),
            Self::Checksum => f.write_str("bad checksum"),
            Self::Corrupt(c) => c.fmt(f),
        }
    }
}

/// What the four labels of a device say.
#[derive(Clone, Debug)]
pub struct Labels {
    /// Label by label.
    pub each: Vec<Result<PoolConfig, LabelFault>>,
}

impl Labels {
    /// Reads the configurations of all four.
    #[must_use]
    pub fn read(device: &dyn Device) -> Self {
        let mut buf = vec![0; CONFIG_SIZE];
        Self { each: (0..LABELS).map(|l| read_config(device, l, &mut buf)).collect() }
    }

    /// The sound ones with their numbers.
    pub fn good(&self) -> impl Iterator<Item = (usize, &PoolConfig)> {
        self.each.iter().enumerate().filter_map(|(l, c)| c.as_ref().ok().map(|c| (l, c)))
    }

    /// The newest configuration not newer than `max` (`vdev_label_read_config`); one without a txg (spare,
    /// cache, not yet part of a pool) counts if there is no other.
    #[must_use]
    pub fn best(&self, max: Txg) -> Option<&PoolConfig> {
        let mut best: Option<&PoolConfig> = None;
        for (_, c) in self.good() {
            let fits = c.written() <= max;
            if fits && best.is_none_or(|b| c.written() > b.written()) {
                best = Some(c);
            }
        }
        best
    }
}

/// The configuration in label `l`, by way of `buf`, which has [`CONFIG_SIZE`] bytes.
fn read_config(device: &dyn Device, l: usize, buf: &mut [u8]) -> Result<PoolConfig, LabelFault> {
    let at = label_offset(device.size(), l as u64).ok_or(LabelFault::NoRoom)? + layout::CONFIG_AT;
    device.read_at(at, buf).map_err(LabelFault::Device)?;
    if label_verify(buf, at).is_err() {
        let blank = buf.iter().all(|b| *b == 0);
        return Err(if blank { LabelFault::Blank } else { LabelFault::Checksum });
    }
    let list = layout::parse_config(buf).map_err(LabelFault::Corrupt)?;
    PoolConfig::parse(&list).map_err(LabelFault::Corrupt)
}

/// An uberblock whose checksum held, and where it was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FoundUberblock {
    /// Label it was in.
    pub label: usize,
    /// Slot of the ring it was in.
    pub slot: usize,
    /// Whether the machine that wrote it was big-endian.
    pub foreign: bool,
    /// What it says, little-endian.
    pub uberblock: UberblockPhys,
}

impl FoundUberblock {
    /// The txg it commits.
    #[must_use]
    pub fn txg(&self) -> Txg {
        self.uberblock.txg()
    }
}

impl fmt::Debug for FoundUberblock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uberblock txg {} in label {} slot {}", self.txg(), self.label, self.slot)
    }
}

/// Every sound uberblock of a device, in label and slot order. Without an ashift all slot sizes are tried.
#[must_use]
pub fn read_uberblocks(device: &dyn Device, ashift: Option<u64>) -> Vec<FoundUberblock> {
    let mut all = Vec::new();
    each_ring(device, |ring| all.extend(slots(ring, ashift).filter(Slot::is_sound).map(|s| s.claim)));
    all
}

/// What [`best_uberblock`] finds among all of [`read_uberblocks`], at the price of a few checksums: who claims to be newest is
/// asked for proof first.
#[must_use]
pub fn newest_uberblock(device: &dyn Device, ashift: Option<u64>, max: Txg) -> Option<FoundUberblock> {
    let mut best: Option<FoundUberblock> = None;
    each_ring(device, |ring| {
        let newer = |s: &Slot<'_>| best.is_none_or(|b| s.claim.uberblock.cmp_age(&b.uberblock).is_gt());
        let mut claims: Vec<Slot<'_>> = slots(ring, ashift).filter(|s| s.claim.txg() <= max).collect();
        // Stable: among equals the first, as there.
        claims.sort_by(|a, b| b.claim.uberblock.cmp_age(&a.claim.uberblock));
        let sound = claims.into_iter().take_while(newer).find(Slot::is_sound);
        best = sound.map(|s| s.claim).or(best);
    });
    best
}

/// A label's ring of uberblocks and where on the device it begins.
struct Ring<'a> {
    label: usize,
    at: u64,
    bytes: &'a [u8],
}

/// A slot that begins as an uberblock does.
struct Slot<'a> {
    claim: FoundUberblock,
    at: u64,
    bytes: &'a [u8],
}

impl Slot<'_> {
    fn is_sound(&self) -> bool {
        label_verify(self.bytes, self.at).is_ok()
    }
}

/// Shows `look` the ring of each label, in their order.
fn each_ring(device: &dyn Device, mut look: impl FnMut(&Ring<'_>)) {
    let mut bytes = vec![0; RING_SIZE];
    for label in 0..LABELS {
        let Some(at) = label_offset(device.size(), label as u64) else { continue };
        let at = at + layout::RING_AT;
        if device.read_at(at, &mut bytes).is_err() {
            // One bad sector must not hide the other slots.
            for (chunk, i) in bytes.chunks_mut(1 << 10).zip(0_u64..) {
                if device.read_at(at + (i << 10), chunk).is_err() {
                    chunk.fill(0);
                }
            }
        }
        look(&Ring { label, at, bytes: &bytes });
    }
}

/// The slots of a ring that are in use, in their order; without an ashift in every size that slots can have.
fn slots<'a>(ring: &Ring<'a>, ashift: Option<u64>) -> impl Iterator<Item = Slot<'a>> {
    let shifts = ashift.map_or(10..=13, |a| slot_shift(a)..=slot_shift(a));
    let Ring { label, at, bytes } = *ring;
    shifts.flat_map(move |shift| {
        bytes.chunks_exact(1 << shift).enumerate().filter_map(move |(slot, bytes)| {
            let uberblock = UberblockPhys::parse(bytes)?;
            let foreign = !bytes.starts_with(&uberblock::MAGIC.to_le_bytes());
            let claim = FoundUberblock { label, slot, foreign, uberblock };
            Some(Slot { claim, at: at + ((slot as u64) << shift), bytes })
        })
    })
}

/// log2 of the slot size of a ring.
fn slot_shift(ashift: u64) -> u32 {
    ashift.clamp(10, 13) as u32
}

/// The newest of `found` that commits at most `max`.
pub fn best_uberblock<'a>(
    found: impl IntoIterator<Item = &'a FoundUberblock>,
    max: Txg,
) -> Option<&'a FoundUberblock> {
    // Among equals the first found, as OpenZFS keeps the one it has.
    let fitting = found.into_iter().filter(|u| u.txg() <= max);
    fitting.fold(None, |best: Option<&FoundUberblock>, u| match best {
        Some(b) if u.uberblock.cmp_age(&b.uberblock) != Ordering::Greater => best,
        _ => Some(u),
    })
}

/// Writes a configuration to some labels of a device.
pub fn write_config(device: &dyn Device, set: LabelSet, config: &NvList) -> Result<(), VdevError> {
    let too_large = || VdevError::LabelTooLarge { size: config.encode_xdr().len() };
    let mut block = layout::config_block(config).ok_or_else(too_large)?;
    for l in set.indices() {
        write_sealed(device, *l, layout::CONFIG_AT, &mut block)?;
    }
    Ok(())
}

/// Writes an uberblock to a slot of all four labels; for which slot see
/// [`icecore_format::uberblock::slot_of`].
pub fn write_uberblock(
    device: &dyn Device,
    uberblock: &UberblockPhys,
    ashift: u64,
    slot: u64,
) -> Result<(), VdevError> {
    let ashift = slot_shift(ashift);
    let mut block = uberblock.slot(uberblock::slot_size(ashift), [0; 4]).expect("an uberblock fits its slot");
    for l in LabelSet::All.indices() {
        write_sealed(device, *l, uberblock::slot_offset(ashift, slot), &mut block)?;
    }
    Ok(())
}

/// Writes fresh labels: the configuration, an empty boot environment and an empty ring, so that nothing of
/// an older pool can be found (`vdev_label_init`).
pub fn init(device: &dyn Device, config: &NvList) -> Result<(), VdevError> {
    for l in LabelSet::All.indices() {
        write_sealed(device, *l, layout::BOOTENV_AT, &mut vec![0; layout::PAD_SIZE as usize])?;
        write_sealed(device, *l, layout::RING_AT, &mut vec![0; RING_SIZE])?;
    }
    write_config(device, LabelSet::All, config)
}

/// Zeroes all four labels (`zpool labelclear`) and flushes.
pub fn clear(device: &dyn Device) -> Result<(), DeviceError> {
    zero(device, 0..layout::LABELS)
}

/// Zeroes the labels at the end and flushes, unless they are of that pool: where a device has grown, what lies there may be of
/// a pool before it, and its uberblocks newer. Whether it did.
pub fn renew_end(device: &dyn Device, pool: Guid) -> Result<bool, DeviceError> {
    let ends = layout::LABELS / 2..layout::LABELS;
    let ours =
        |(l, config): (usize, &PoolConfig)| ends.contains(&(l as u64)) && config.pool_guid == Some(pool.0);
    if Labels::read(device).good().any(ours) {
        return Ok(false);
    }
    zero(device, ends)?;
    Ok(true)
}

fn zero(device: &dyn Device, labels: std::ops::Range<u64>) -> Result<(), DeviceError> {
    for l in labels {
        if let Some(at) = label_offset(device.size(), l) {
            device.write_at(at, &vec![0; layout::LABEL_SIZE as usize])?;
        }
    }
    device.flush()
}

/// Puts damaged configurations and uberblocks right from the sound ones in the other labels of the same device, if it is open for
/// writing. How many were damaged, and how many still are. Durable once the device is flushed.
pub fn mend(device: &dyn Device, ashift: u64) -> (u64, u64) {
    let labels: Vec<Option<Vec<u8>>> = (0..layout::LABELS).map(|l| read_label(device, l)).collect();
    let slot = 1_usize << slot_shift(ashift);
    let ring = layout::RING_AT as usize;
    let config = layout::CONFIG_AT as usize;
    let slots = (0..RING_SIZE / slot).map(|i| (ring + i * slot, slot));
    let mut sum = (0, 0);
    for (part, len) in std::iter::once((config, CONFIG_SIZE)).chain(slots) {
        let (bad, left) = mend_part(device, &labels, part, len);
        sum = (sum.0 + bad, sum.1 + left);
    }
    sum
}

/// A label, zeros where it cannot be read.
fn read_label(device: &dyn Device, l: u64) -> Option<Vec<u8>> {
    let at = label_offset(device.size(), l)?;
    let mut bytes = vec![0; layout::LABEL_SIZE as usize];
    if device.read_at(at, &mut bytes).is_err() {
        for (sector, i) in bytes.chunks_mut(1 << 12).zip(0_u64..) {
            if device.read_at(at + (i << 12), sector).is_err() {
                sector.fill(0);
            }
        }
    }
    Some(bytes)
}

/// One part of the labels. It is told from a slot that was not used yet, or that one system writes to one label only, by two
/// sound copies at least.
fn mend_part(device: &dyn Device, labels: &[Option<Vec<u8>>], part: usize, len: usize) -> (u64, u64) {
    let mut good: Vec<&[u8]> = Vec::new();
    let mut bad = Vec::new();
    for (l, label) in labels.iter().enumerate() {
        let Some(bytes) = label.as_ref().and_then(|b| b.get(part..part + len)) else { continue };
        let at = label_offset(device.size(), l as u64).unwrap_or(0) + part as u64;
        if label_verify(bytes, at).is_ok() { good.push(bytes) } else { bad.push(l) }
    }
    let Some(source) = good.first().filter(|_| good.len() >= 2) else { return (0, 0) };
    let mend = |l: &&usize| {
        !device.read_only() && write_sealed(device, **l, part as u64, &mut source.to_vec()).is_ok()
    };
    let mended = bad.iter().filter(mend).count();
    (bad.len() as u64, (bad.len() - mended) as u64)
}

/// Seals a part of a label with its place on the device and writes it.
fn write_sealed(device: &dyn Device, l: usize, part: u64, block: &mut [u8]) -> Result<(), DeviceError> {
    let too_small = || DeviceError::new(What::NoSpace, device.name(), "too small for labels");
    let at = label_offset(device.size(), l as u64).ok_or_else(too_small)? + part;
    let sealed = label_seal(block, at);
    assert!(sealed, "label parts have room for their checksum");
    device.write_at(at, block)
}
