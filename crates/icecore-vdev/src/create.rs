//! New pools: from a wished layout to a root configuration, and refusing devices that hold something.
//!
//! Facts: `vdev_open` and `vdev_metaslab_set_size` (vdev.c) through [`crate::size`]; new vdevs carry
//! `create_txg` 4 (`TXG_INITIAL`); `check_device` and libblkid's magics for what counts as in use
//! (zpool_vdev.c).
//!
//! Invariants:
//! 1. Nothing is written here; [`crate::label::init`] does that once the pool has decided.
//! 2. Guids come from `Entropy` in tree order: same seed, same tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use icecore_env::{Device, Entropy};
use icecore_format::{Guid, Txg};

use crate::config::{PoolConfig, PoolState, VERSION_FEATURES, VdevConfig, VdevKind};
use crate::error::VdevError;
use crate::gpt;
use crate::label::Labels;
use crate::size::{
    ASHIFT_MAX, SPA_MINDEVSIZE, choose_ashift, leaf_asize, metaslab_geometry, mirror_asize, raidz_asize,
};

/// The txg a new pool begins with (`TXG_INITIAL`).
pub const TXG_INITIAL: u64 = 4;

/// A device for a new pool.
pub struct NewLeaf {
    /// The device: of a whole disk, its data partition.
    pub device: Arc<dyn Device>,
    /// The absolute path the pool will know it by.
    pub path: String,
    /// For block devices: whether ZFS partitioned the disk. `None` for files.
    pub whole_disk: Option<bool>,
}

/// How the devices of a new top-level vdev relate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewKind {
    /// One device alone.
    Single,
    /// Copies on each.
    Mirror,
    /// That many parity devices.
    Raidz(u8),
}

/// A top-level vdev for a new pool.
pub struct NewTop {
    /// How its devices relate.
    pub kind: NewKind,
    /// Its devices.
    pub leaves: Vec<NewLeaf>,
    /// Only for the intent log.
    pub log: bool,
    /// log2 of the smallest write, instead of what the devices suggest.
    pub ashift: Option<u64>,
}

/// A tree ready to be labelled.
pub struct NewTree {
    /// The root configuration; its guid is the pool's.
    pub root: VdevConfig,
    /// The devices, by leaf guid.
    pub devices: BTreeMap<Guid, Arc<dyn Device>>,
}

/// Builds the configuration of a new pool.
pub fn build(tops: Vec<NewTop>, entropy: &dyn Entropy) -> Result<NewTree, VdevError> {
    if !tops.iter().any(|t| !t.log) {
        return Err(VdevError::BadLayout("a pool needs a vdev that is not a log".into()));
    }
    let mut root = VdevConfig::new(VdevKind::Root, Guid(entropy.guid()));
    root.id = Some(0);
    root.create_txg = Some(TXG_INITIAL);
    let mut devices = BTreeMap::new();
    for (id, top) in tops.into_iter().enumerate() {
        root.children.push(build_top(id as u64, top, entropy, &mut devices)?);
    }
    Ok(NewTree { root, devices })
}

/// Builds further top-level vdevs for the pool that has `root`; they come to be in `txg` (`spa_vdev_add`, spa.c). Their
/// configurations in order, and their devices by leaf guid.
#[allow(clippy::type_complexity)]
pub fn further(
    root: &VdevConfig,
    tops: Vec<NewTop>,
    txg: Txg,
    entropy: &dyn Entropy,
) -> Result<(Vec<VdevConfig>, BTreeMap<Guid, Arc<dyn Device>>), VdevError> {
    let mut devices = BTreeMap::new();
    let mut made = Vec::new();
    for (id, top) in (root.children.len() as u64..).zip(tops) {
        let mut vdev = build_top(id, top, entropy, &mut devices)?;
        vdev.create_txg = Some(txg.0);
        for side in &mut vdev.children {
            side.create_txg = Some(txg.0);
        }
        made.push(vdev);
    }
    Ok((made, devices))
}

fn build_top(
    id: u64,
    top: NewTop,
    entropy: &dyn Entropy,
    devices: &mut BTreeMap<Guid, Arc<dyn Device>>,
) -> Result<VdevConfig, VdevError> {
    check_shape(&top)?;
    let sectors: Vec<(u32, u32)> =
        top.leaves.iter().map(|l| (l.device.sector(), l.device.physical_sector())).collect();
    let ashift = choose_ashift(&sectors, top.ashift);
    if ashift > ASHIFT_MAX {
        return Err(VdevError::BadLayout(format!("sectors of 2^{ashift} bytes are too large")));
    }
    let mut sizes = Vec::new();
    for leaf in &top.leaves {
        let size = leaf.device.size();
        let too_small = || VdevError::TooSmall { device: leaf.path.clone(), size, needed: SPA_MINDEVSIZE };
        sizes.push(leaf_asize(size).ok_or_else(too_small)?);
    }
    let (group, asize) = match top.kind {
        NewKind::Single => (None, sizes.first().copied()),
        NewKind::Mirror => (Some(VdevKind::Mirror), mirror_asize(sizes)),
        NewKind::Raidz(_) => (Some(VdevKind::Raidz), raidz_asize(&sizes)),
    };
    let asize = asize.ok_or_else(|| VdevError::BadLayout("no devices".into()))?;

    let mut made = group.map(|kind| VdevConfig::new(kind, Guid(entropy.guid())));
    for (i, leaf) in top.leaves.into_iter().enumerate() {
        let (vdev, device) = new_leaf(i as u64, leaf, entropy);
        devices.insert(vdev.guid, device);
        match &mut made {
            Some(parent) => parent.children.push(vdev),
            None => made = Some(vdev),
        }
    }
    let mut vdev = made.expect("a group or a device");
    vdev.id = Some(id);
    vdev.nparity = if let NewKind::Raidz(p) = top.kind { Some(u64::from(p)) } else { None };
    vdev.create_txg = Some(TXG_INITIAL);
    vdev.ashift = Some(ashift);
    vdev.asize = Some(asize);
    vdev.metaslab_array = Some(0);
    vdev.metaslab_shift = Some(metaslab_geometry(asize).0);
    vdev.is_log = Some(u64::from(top.log));
    Ok(vdev)
}

fn check_shape(top: &NewTop) -> Result<(), VdevError> {
    let n = top.leaves.len();
    let bad = |why: &str| Err(VdevError::BadLayout(format!("{why}, {n} given")));
    match top.kind {
        NewKind::Single if n != 1 => bad("a single vdev is one device"),
        NewKind::Mirror if n < 2 => bad("a mirror needs at least two devices"),
        NewKind::Raidz(p) if !(1..=3).contains(&p) => bad("raidz has one to three parity devices"),
        NewKind::Raidz(p) if n <= usize::from(p) => bad("raidz needs more devices than parity"),
        NewKind::Raidz(_) if n > 255 => bad("raidz has at most 255 devices"),
        NewKind::Raidz(_) if top.log => bad("a log cannot be raidz"),
        _ => Ok(()),
    }
}

fn new_leaf(id: u64, leaf: NewLeaf, entropy: &dyn Entropy) -> (VdevConfig, Arc<dyn Device>) {
    let kind = if leaf.whole_disk.is_some() { VdevKind::Disk } else { VdevKind::File };
    let mut vdev = VdevConfig::new(kind, Guid(entropy.guid()));
    vdev.id = Some(id);
    vdev.path = Some(leaf.path);
    vdev.whole_disk = leaf.whole_disk.map(u64::from);
    vdev.create_txg = Some(TXG_INITIAL);
    (vdev, leaf.device)
}

/// The configuration of a new feature-flag pool around a tree, as the MOS will hold it.
#[must_use]
pub fn pool_config(name: &str, tree: &NewTree, hostid: u64, hostname: &str) -> PoolConfig {
    PoolConfig {
        version: Some(VERSION_FEATURES),
        name: Some(name.to_owned()),
        state: Some(PoolState::ACTIVE.0),
        txg: Some(0),
        pool_guid: Some(tree.root.guid.0),
        errata: Some(0),
        hostid: (hostid != 0).then_some(hostid),
        hostname: Some(hostname.to_owned()),
        has_per_vdev_zaps: true,
        vdev_children: Some(tree.root.children.len() as u64),
        vdev_tree: Some(tree.root.clone()),
        ..PoolConfig::default()
    }
}

/// Refuses a device that holds a pool, a file system or a partition table.
pub fn check_unused(device: &dyn Device) -> Result<(), VdevError> {
    match holds(device) {
        None => Ok(()),
        Some(holds) => Err(VdevError::InUse { device: device.name(), holds }),
    }
}

/// What a device holds, in words; `None` if nothing known.
#[must_use]
pub fn holds(device: &dyn Device) -> Option<String> {
    let labels = Labels::read(device);
    if let Some(config) = labels.best(Txg(u64::MAX)) {
        let name = config.name.as_deref().unwrap_or("?");
        return Some(match config.pool_state() {
            PoolState::ACTIVE => format!("is part of potentially active pool '{name}'"),
            PoolState::EXPORTED => format!("is part of exported pool '{name}'"),
            PoolState::DESTROYED => return file_system(device),
            PoolState::SPARE => "is a reserved hot spare".to_owned(),
            PoolState::L2CACHE => "is a cache device".to_owned(),
            other => format!("is part of pool '{name}' ({other})"),
        });
    }
    if let Some(gpt) = gpt::read(device) {
        return Some(format!("contains a GPT with {} partitions", gpt.partitions.len()));
    }
    file_system(device)
}

/// (what it is, where its magic lies, the magic)
const MAGICS: [(&str, u64, &[u8]); 18] = [
    ("ext2, ext3 or ext4", 0x438, &[0x53, 0xef]),
    ("XFS", 0, b"XFSB"),
    ("btrfs", 0x10040, b"_BHRfS_M"),
    ("NTFS", 3, b"NTFS    "),
    ("exFAT", 3, b"EXFAT   "),
    ("FAT", 82, b"FAT32   "),
    ("FAT", 54, b"FAT16   "),
    ("FAT", 54, b"FAT12   "),
    ("swap", 4086, b"SWAPSPACE2"),
    ("LUKS", 0, b"LUKS\xba\xbe"),
    ("LVM", 512, b"LABELONE"),
    ("Linux RAID", 4096, &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("ISO 9660", 32769, b"CD001"),
    ("APFS", 32, b"NXSB"),
    ("HFS+", 1024, b"H+"),
    ("HFSX", 1024, b"HX"),
    ("F2FS", 1024, &[0x10, 0x20, 0xf5, 0xf2]),
    ("bcachefs", 4120, &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9]),
];

fn file_system(device: &dyn Device) -> Option<String> {
    for (what, at, magic) in MAGICS {
        let mut found = vec![0; magic.len()];
        if device.read_at(at, &mut found).is_ok() && found == magic {
            return Some(format!("contains a file system or volume of type {what}"));
        }
    }
    let mut mbr = [0; 512];
    device.read_at(0, &mut mbr).ok()?;
    let entries = mbr[446..510].chunks_exact(16);
    let sane = entries.clone().all(|e| e[0] == 0 || e[0] == 0x80);
    let used = entries.filter(|e| e[4] != 0).count();
    let signed = mbr[510..] == [0x55, 0xaa];
    (signed && sane && used > 0).then(|| format!("contains a partition table with {used} partitions"))
}
