//! Probing for import: which devices belong to which pool, and what can be said of each pool before opening
//! it.
//!
//! Facts: `zpool_find_import_impl`, `get_configs` (zutil_import.c): labels are grouped by pool, then by
//! top-level vdev; the newest label of each decides. An uberblock older than a label makes that label
//! invalid (head of vdev_label.c).
//!
//! Invariants:
//! 1. Probing reads only, and locks nothing.
//! 2. No device is used whose guid the chosen configuration does not name; what is left over is reported:
//!    stale, duplicate or stranger, each with its path.
//! 3. The result depends on the labels and on the order of the candidates alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use icecore_env::{Access, Device, DeviceError, FileDevice, SubDevice, Workers};
use icecore_format::{Guid, Txg};

use crate::config::{PoolConfig, PoolState, VdevConfig, VdevKind};
use crate::error::VdevError;
use crate::gpt;
use crate::label::{self, FoundUberblock, LabelFault, Labels};
use crate::tree::{Health, VdevSet};

/// Most top-level vdevs believed of a label: far beyond any real pool, few enough to list.
const TOPS_MAX: u64 = 1 << 16;

/// Where a device was found, to open it again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// The file or block device.
    pub path: PathBuf,
    /// The partition within it (start and length in bytes) that was looked at, if not the whole.
    pub window: Option<(u64, u64)>,
}

impl Source {
    /// Opens it.
    pub fn open(&self, access: Access) -> Result<Arc<dyn Device>, DeviceError> {
        let whole: Arc<dyn Device> = Arc::new(FileDevice::open(&self.path, access)?);
        Ok(match self.window {
            None => whole,
            Some((start, len)) => Arc::new(SubDevice::new(whole, start, len, &format!("+{start}"))?),
        })
    }
}

/// A device with at least one sound label.
#[derive(Clone)]
pub struct Candidate {
    /// The device, open for reading.
    pub device: Arc<dyn Device>,
    /// Where it came from; `None` if the caller gave it.
    pub source: Option<Source>,
    /// Its labels.
    pub labels: Labels,
    /// Its newest uberblock.
    pub uberblock: Option<FoundUberblock>,
}

impl Candidate {
    /// Looks at a device; `None` without a sound label.
    #[must_use]
    pub fn examine(device: Arc<dyn Device>, source: Option<Source>) -> Option<Self> {
        let labels = Labels::read(&*device);
        let ashift = labels.best(Txg(u64::MAX))?.vdev_tree.as_ref().and_then(|t| t.ashift);
        let uberblock = label::newest_uberblock(&*device, ashift.filter(|a| *a != 0), Txg(u64::MAX));
        Some(Self { device, source, labels, uberblock })
    }
    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        self.device.name()
    }
    /// Its newest label not newer than `max`.
    #[must_use]
    pub fn config(&self, max: Txg) -> Option<&PoolConfig> {
        self.labels.best(max)
    }
    fn newest(&self) -> Option<&PoolConfig> {
        self.labels.best(Txg(u64::MAX))
    }
    fn uberblock_txg(&self) -> Txg {
        self.uberblock.map_or(Txg(0), |u| u.txg())
    }
}

/// What probing found.
#[derive(Default)]
pub struct Probe {
    /// Devices with labels.
    pub candidates: Vec<Candidate>,
    /// Devices without a sound label that have something in a label's place.
    pub unlabelled: Vec<Unlabelled>,
    /// Paths that could not be opened or read, and why.
    pub unreadable: Vec<(PathBuf, DeviceError)>,
}

/// A device whose labels are all damaged, or that never was part of a pool.
#[derive(Clone, Debug)]
pub struct Unlabelled {
    /// Where it is.
    pub path: PathBuf,
    /// Its newest uberblock: uberblocks are apart from the labels' configurations, so they may have survived.
    pub uberblock: Option<FoundUberblock>,
}

impl Unlabelled {
    fn examine(device: &dyn Device, path: &Path) -> Option<Self> {
        let labels = Labels::read(device);
        let odd = |l: &Result<PoolConfig, LabelFault>| {
            matches!(l, Err(LabelFault::Checksum | LabelFault::Corrupt(_) | LabelFault::Device(_)))
        };
        if !labels.each.iter().any(odd) {
            return None;
        }
        let uberblock = label::newest_uberblock(device, None, Txg(u64::MAX));
        Some(Self { path: path.to_owned(), uberblock })
    }
}

/// Looks at each path and, where it is a partitioned disk or image, at its ZFS partitions.
#[must_use]
pub fn probe(paths: &[PathBuf], workers: &dyn Workers) -> Probe {
    let mut out = Probe::default();
    let found = icecore_env::map(workers, paths.len(), |i| look(&paths[i]));
    for (path, result) in paths.iter().zip(found) {
        match result {
            Ok((candidates, unlabelled)) => {
                out.candidates.extend(candidates);
                out.unlabelled.extend(unlabelled);
            }
            Err(e) => out.unreadable.push((path.clone(), e)),
        }
    }
    out
}

fn look(path: &Path) -> Result<(Vec<Candidate>, Option<Unlabelled>), DeviceError> {
    let whole: Arc<dyn Device> = Arc::new(FileDevice::open(path, Access::Probe)?);
    whole.read_at(0, &mut vec![0; 512.min(whole.size() as usize)])?;
    let source = |window| Some(Source { path: path.to_owned(), window });
    // A whole disk that ZFS partitioned has its last two labels, and perhaps old ones, at its own end too:
    // where there is a ZFS partition with labels, it alone counts.
    let partitions = gpt::zfs_partitions(&whole);
    let inner = partitions.into_iter().filter_map(|p| {
        let window = (p.start(), p.size());
        Candidate::examine(Arc::new(p), source(Some(window)))
    });
    let inner: Vec<Candidate> = inner.collect();
    if !inner.is_empty() {
        return Ok((inner, None));
    }
    match Candidate::examine(whole.clone(), source(None)) {
        Some(one) => Ok((vec![one], None)),
        None => Ok((Vec::new(), Unlabelled::examine(&*whole, path))),
    }
}

/// A device named by the configuration that was not found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AbsentDevice {
    /// Its guid.
    pub guid: Guid,
    /// Where it was last seen.
    pub path: String,
    /// Why it is not used.
    pub why: String,
}

/// A device with a label of the pool that is not used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftOver {
    /// Its guid.
    pub guid: Guid,
    /// Its name.
    pub device: String,
    /// Why it is not used.
    pub why: Unused,
}

/// Why a device with a label of the pool is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unused {
    /// Another device with the same guid has a label or uberblock at least as new: a copy.
    Duplicate,
    /// The pool's configuration does not name it: replaced, removed or split off.
    Stranger,
    /// Its label says that it left the pool: detached or removed (`vdev_label_init` with `VDEV_LABEL_REMOVE`).
    Detached,
}

impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duplicate => "another device with the same guid is at least as new: a copy",
            Self::Stranger => "the pool does not name it: replaced, removed or split off",
            Self::Detached => "it was detached or removed from the pool",
        })
    }
}

/// A device some of whose labels are damaged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedLabels {
    /// Its guid.
    pub guid: Guid,
    /// Its name.
    pub device: String,
    /// Which labels, and what is wrong with each.
    pub faults: Vec<(usize, String)>,
}

/// A pool as far as labels tell.
pub struct FoundPool {
    /// Its name.
    pub name: String,
    /// Its guid.
    pub guid: Guid,
    /// Cleanly left, in use, or destroyed.
    pub state: PoolState,
    /// Pool version.
    pub version: u64,
    /// The newest label's configuration with a root `vdev_tree` put together from all labels.
    pub config: PoolConfig,
    /// Its newest uberblock.
    pub uberblock: Option<FoundUberblock>,
    /// What could be opened, and how well.
    pub vdevs: VdevSet,
    /// The devices used, by guid.
    pub devices: BTreeMap<Guid, Candidate>,
    /// Devices used though they missed txgs.
    pub stale: BTreeSet<Guid>,
    /// Devices named and not used.
    pub absent: Vec<AbsentDevice>,
    /// Devices with labels of this pool and no place in it.
    pub left_over: Vec<LeftOver>,
    /// Whether the tree is whole: its guids add up to what the uberblock says.
    pub complete: bool,
}

impl FoundPool {
    /// Its state as `zpool import` shows it.
    #[must_use]
    pub fn health(&self) -> Health {
        self.vdevs.health()
    }
    /// Devices used of whose labels some are damaged.
    #[must_use]
    pub fn damaged_labels(&self) -> Vec<DamagedLabels> {
        let faults = |c: &Candidate| -> Vec<(usize, String)> {
            let each = c.labels.each.iter().enumerate();
            each.filter_map(|(l, r)| Some((l, r.as_ref().err()?.to_string()))).collect()
        };
        let of = |(guid, c): (&Guid, &Candidate)| DamagedLabels {
            guid: *guid,
            device: c.name(),
            faults: faults(c),
        };
        self.devices.iter().map(of).filter(|d| !d.faults.is_empty()).collect()
    }
    /// Whether a device without sound labels seems to be one of those missing: its uberblock is of this very
    /// set of devices, or it lies where a missing one was.
    #[must_use]
    pub fn may_own(&self, device: &Unlabelled) -> bool {
        let of_us = |u: &FoundUberblock| {
            self.uberblock.is_some_and(|own| own.uberblock.guid_sum == u.uberblock.guid_sum)
        };
        let here = |a: &AbsentDevice| Path::new(&a.path) == device.path;
        !self.absent.is_empty()
            && (device.uberblock.as_ref().is_some_and(of_us) || self.absent.iter().any(here))
    }
    /// The host that has it, if that is not `own` and the pool was not cleanly left: hostid and name.
    #[must_use]
    pub fn other_host(&self, own: u64) -> Option<(u64, &str)> {
        let id = self.config.hostid.filter(|id| *id != 0 && *id != own)?;
        let name = self.config.hostname.as_deref().unwrap_or("unknown host");
        (self.state == PoolState::ACTIVE).then_some((id, name))
    }
    /// Whether a multihost heartbeat was active when its newest uberblock was written.
    #[must_use]
    pub fn multihost(&self) -> bool {
        self.uberblock.is_some_and(|u| u.uberblock.mmp_active())
    }
    /// Opens its devices again with `access` and puts the tree together: what import does once decided.
    pub fn reopen(&self, access: Access) -> Result<VdevSet, VdevError> {
        let mut devices = BTreeMap::new();
        for (guid, candidate) in &self.devices {
            let device = match &candidate.source {
                Some(source) => source.open(access)?,
                None => candidate.device.clone(),
            };
            devices.insert(*guid, device);
        }
        let root = self.config.vdev_tree.as_ref().expect("put together from labels");
        VdevSet::open_with_stale(root, &devices, &self.stale)
    }
}

/// A shared spare or cache device: of no pool in particular.
#[derive(Clone, Debug)]
pub struct AuxDevice {
    /// Its guid.
    pub guid: Guid,
    /// Spare or cache.
    pub state: PoolState,
    /// Its name.
    pub device: String,
}

/// The pools that the candidates make up, by name and then guid; and the spares and cache devices.
#[must_use]
pub fn assemble(candidates: &[Candidate]) -> (Vec<FoundPool>, Vec<AuxDevice>) {
    let mut by_pool: BTreeMap<Guid, Vec<&Candidate>> = BTreeMap::new();
    let (mut aux, mut gone) = (Vec::new(), Vec::new());
    for c in candidates {
        let Some(config) = c.newest() else { continue };
        match (config.pool_guid, config.guid) {
            // A label of txg 0 is of no pool: `zpool_read_label` passes it by too (zutil_import.c).
            (Some(pool), Some(guid)) if config.vdev_tree.is_some() && config.written() == Txg(0) => {
                let why = Unused::Detached;
                gone.push((Guid(pool), LeftOver { guid: Guid(guid), device: c.name(), why }));
            }
            (Some(_), Some(guid)) if config.vdev_tree.is_none() => {
                aux.push(AuxDevice { guid: Guid(guid), state: config.pool_state(), device: c.name() });
            }
            (Some(pool), Some(_)) => by_pool.entry(Guid(pool)).or_default().push(c),
            (None, Some(guid)) => {
                aux.push(AuxDevice { guid: Guid(guid), state: config.pool_state(), device: c.name() });
            }
            _ => {}
        }
    }
    let mut pools: Vec<FoundPool> = by_pool.into_iter().filter_map(|(g, c)| pool(g, &c)).collect();
    for (guid, device) in gone {
        if let Some(pool) = pools.iter_mut().find(|p| p.guid == guid) {
            pool.left_over.push(device);
        }
    }
    pools.sort_by(|a, b| (&a.name, a.guid).cmp(&(&b.name, b.guid)));
    (pools, aux)
}

fn pool(guid: Guid, candidates: &[&Candidate]) -> Option<FoundPool> {
    let uberblock =
        label::best_uberblock(candidates.iter().filter_map(|c| c.uberblock.as_ref()), Txg(u64::MAX));
    // Labels newer than every uberblock are of a commit that did not come about. If no label is old
    // enough the newest must do: the configuration is checked against the MOS later anyway.
    let limit = uberblock.map_or(Txg(u64::MAX), |u| u.txg());
    let label = |c: &Candidate| -> Option<PoolConfig> { c.config(limit).or_else(|| c.newest()).cloned() };
    let labelled: Vec<(&Candidate, PoolConfig)> =
        candidates.iter().filter_map(|c| label(c).map(|l| (*c, l))).collect();
    let best = newest(labelled.iter().map(|(_, l)| l))?.clone();

    let mut root = put_together(guid, &best, labelled.iter().map(|(_, l)| l));
    let (devices, stale, left_over) = choose_devices(&root, &labelled);
    for (leaf, candidate) in &devices {
        // Where it is now, not where it was.
        if let (Some(v), Some(Source { path, window: None })) = (root.find_mut(*leaf), &candidate.source) {
            v.path = Some(path.display().to_string());
        }
    }
    let open: BTreeMap<Guid, Arc<dyn Device>> = devices.iter().map(|(g, c)| (*g, c.device.clone())).collect();
    let vdevs = open_what_makes_sense(&mut root, &open, &stale)?;
    let absent = vdevs.absent().into_iter().map(|l| AbsentDevice {
        guid: l.guid,
        path: l.config.path.clone().unwrap_or_default(),
        why: l.absence().to_owned(),
    });
    let absent = absent.collect();
    let complete = uberblock.is_some_and(|u| u.uberblock.guid_sum.get() == root.guid_sum());
    let mut config = best;
    config.vdev_tree = Some(root);
    Some(FoundPool {
        name: config.name.clone().unwrap_or_else(|| guid.to_string()),
        guid,
        state: config.pool_state(),
        version: config.version.unwrap_or_default(),
        uberblock: uberblock.copied(),
        config,
        vdevs,
        devices,
        stale,
        absent,
        left_over,
        complete,
    })
}

/// A top-level vdev whose configuration makes no sense counts as missing; the rest of the pool still shows.
fn open_what_makes_sense(
    root: &mut VdevConfig,
    devices: &BTreeMap<Guid, Arc<dyn Device>>,
    stale: &BTreeSet<Guid>,
) -> Option<VdevSet> {
    if let Ok(vdevs) = VdevSet::open_with_stale(root, devices, stale) {
        return Some(vdevs);
    }
    for i in 0..root.children.len() {
        let mut alone = VdevConfig::new(VdevKind::Root, root.guid);
        alone.children.push(root.children[i].clone());
        if VdevSet::open(&alone, devices).is_err() {
            root.children[i] = VdevConfig::missing(i as u64);
        }
    }
    VdevSet::open_with_stale(root, devices, stale).ok()
}

/// The label written last; the first of equals.
fn newest<'a>(labels: impl Iterator<Item = &'a PoolConfig>) -> Option<&'a PoolConfig> {
    labels.fold(None, |best, l| match best {
        Some(b) if b.written() >= l.written() => best,
        _ => Some(l),
    })
}

/// The whole tree: for each number the newest top-level vdev that some label knows, or a hole, or missing.
fn put_together<'a>(
    pool: Guid,
    best: &PoolConfig,
    labels: impl Iterator<Item = &'a PoolConfig>,
) -> VdevConfig {
    let mut tops: BTreeMap<u64, &PoolConfig> = BTreeMap::new();
    for l in labels {
        let Some(id) = l.vdev_tree.as_ref().and_then(|t| t.id) else { continue };
        if tops.get(&id).is_none_or(|old| l.written() > old.written()) {
            tops.insert(id, l);
        }
    }
    // Old pools do not say how many there are.
    let known = tops.keys().next_back().map_or(0, |id| id.saturating_add(1));
    let count = best.vdev_children.unwrap_or(known).min(TOPS_MAX);
    let mut root = VdevConfig::new(VdevKind::Root, pool);
    root.id = Some(0);
    root.children = (0..count)
        .map(|id| match tops.get(&id).and_then(|l| l.vdev_tree.clone()) {
            _ if best.hole_array.contains(&id) => VdevConfig::hole(id),
            Some(tree) => tree,
            None => VdevConfig::missing(id),
        })
        .collect();
    root
}

type Chosen = (BTreeMap<Guid, Candidate>, BTreeSet<Guid>, Vec<LeftOver>);

fn choose_devices(root: &VdevConfig, labelled: &[(&Candidate, PoolConfig)]) -> Chosen {
    let mut chosen: BTreeMap<Guid, (&Candidate, &PoolConfig)> = BTreeMap::new();
    let mut left_over = Vec::new();
    let age = |c: &Candidate, l: &PoolConfig| (l.written(), c.uberblock_txg());
    for (candidate, label) in labelled {
        let guid = Guid(label.guid.unwrap_or_default());
        let unused = |c: &Candidate, why| LeftOver { guid, device: c.name(), why };
        if !root.find(guid).is_some_and(|v| v.kind.is_leaf()) {
            left_over.push(unused(candidate, Unused::Stranger));
            continue;
        }
        match chosen.get(&guid).copied() {
            Some((old, old_label)) if age(old, old_label) >= age(candidate, label) => {
                left_over.push(unused(candidate, Unused::Duplicate));
            }
            old => {
                if let Some((old, _)) = old {
                    left_over.push(unused(old, Unused::Duplicate));
                }
                chosen.insert(guid, (candidate, label));
            }
        }
    }
    let stale = stale(root, &chosen);
    (chosen.into_iter().map(|(g, (c, _))| (g, c.clone())).collect(), stale, left_over)
}

/// Within a top-level vdev every device gets every label and uberblock: one whose newest is older than its
/// siblings' was away.
fn stale(root: &VdevConfig, chosen: &BTreeMap<Guid, (&Candidate, &PoolConfig)>) -> BTreeSet<Guid> {
    let mut out = BTreeSet::new();
    for top in &root.children {
        let here: Vec<(Guid, Txg, Txg)> = top
            .leaves()
            .iter()
            .filter_map(|l| {
                chosen.get(&l.guid).map(|(c, label)| (l.guid, label.written(), c.uberblock_txg()))
            })
            .collect();
        let label_max = here.iter().map(|h| h.1).max();
        let uberblock_max = here.iter().map(|h| h.2).max();
        let behind = |h: &&(Guid, Txg, Txg)| Some(h.1) < label_max || Some(h.2) < uberblock_max;
        out.extend(here.iter().filter(behind).map(|h| h.0));
    }
    out
}
