//! Which pools the labels on a set of devices tell of, and which configuration and uberblock are current
//! (`spa_load_impl`, spa.c; `zpool_find_config`, zutil_import.c).
//!
//! Invariant: labels are hearsay. They only lead to the MOS, whose own configuration is then used.

use super::OpenSpec;
use crate::error::{PoolError, Result};
use icecore_env::Device;
use icecore_format::{Guid, Txg};
use icecore_vdev::label;
use icecore_vdev::{FoundUberblock, Labels, PoolConfig, PoolState, VdevConfig, VdevKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// More top-level vdevs than this are damage.
const TOPS_MAX: u64 = 1 << 16;

/// A pool as its labels describe it.
pub struct Candidate {
    /// Its name in the newest label.
    pub name: String,
    /// Its identity.
    pub guid: Guid,
    /// The newest label's configuration.
    pub config: PoolConfig,
    /// Devices found, by leaf guid.
    pub devices: BTreeMap<Guid, Arc<dyn Device>>,
    labels: BTreeMap<Guid, Labels>,
}

/// All pools of the devices, by guid.
#[must_use]
pub fn find(devices: &[Arc<dyn Device>]) -> Vec<Candidate> {
    let mut pools: BTreeMap<u64, Candidate> = BTreeMap::new();
    for device in devices {
        let labels = Labels::read(&**device);
        let Some(config) = labels.best(Txg(u64::MAX)).cloned() else { continue };
        let (Some(pool), Some(leaf)) = (config.pool_guid, config.guid) else { continue };
        // A spare or cache device; or one that left its pool, whose label OpenZFS has set back to txg 0.
        if config.vdev_tree.is_none() || config.written() == Txg(0) {
            continue;
        }
        let known = pools.entry(pool).or_insert_with(|| Candidate {
            name: config.name.clone().unwrap_or_default(),
            guid: Guid(pool),
            config: config.clone(),
            devices: BTreeMap::new(),
            labels: BTreeMap::new(),
        });
        known.add(Guid(leaf), device, labels, config);
    }
    pools.into_values().collect()
}

/// The one pool that is meant.
pub(super) fn choose(devices: &[Arc<dyn Device>], wanted: Option<&str>) -> Result<Candidate> {
    let guid = wanted.and_then(|w| w.parse::<u64>().ok());
    let all = find(devices);
    let mut fitting: Vec<Candidate> =
        all.into_iter().filter(|c| wanted.is_none_or(|w| c.name == w || guid == Some(c.guid.0))).collect();
    match (fitting.pop(), fitting.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(last), false) => {
            fitting.push(last);
            Err(PoolError::Ambiguous(fitting.into_iter().map(|c| (c.name, c.guid)).collect()))
        }
        (None, _) => Err(PoolError::NotAPool(match wanted {
            Some(w) => format!("no pool '{w}' on the given devices"),
            None => "no pool on the given devices".into(),
        })),
    }
}

impl Candidate {
    fn add(&mut self, leaf: Guid, device: &Arc<dyn Device>, labels: Labels, config: PoolConfig) {
        // The same leaf twice is a copy of the device, or a device seen by two names: the newest counts.
        let older = self.label_txg(leaf, Txg(u64::MAX)).is_some_and(|had| had >= config.written());
        if older {
            return;
        }
        if config.written() > self.config.written() {
            self.name = config.name.clone().unwrap_or_default();
            self.config = config;
        }
        self.devices.insert(leaf, device.clone());
        self.labels.insert(leaf, labels);
    }

    /// When the leaf's newest label not newer than `max` was written. Labels newer than the uberblock belong
    /// to a commit that did not happen.
    #[must_use]
    pub fn label_txg(&self, leaf: Guid, max: Txg) -> Option<Txg> {
        self.labels.get(&leaf)?.best(max).map(PoolConfig::written)
    }

    /// Features the labels list as needed to read the MOS.
    #[must_use]
    pub fn label_features(&self) -> BTreeSet<String> {
        self.config.features_for_read.clone().unwrap_or_default()
    }

    /// Whether another system may have it (`spa_ld_check_for_config_update` and zpool's own check).
    pub(super) fn check_state(&self, spec: &OpenSpec) -> Result<()> {
        if spec.force {
            return Ok(());
        }
        if self.config.pool_state() == PoolState::DESTROYED {
            return Err(PoolError::Destroyed);
        }
        let hostid = self.config.hostid.unwrap_or(0);
        if self.config.pool_state() == PoolState::ACTIVE && hostid != 0 && hostid != spec.host.id {
            let last_access = self.uberblocks(None).first().map_or(0, |u| u.uberblock.timestamp.get());
            let hostname = self.config.hostname.clone().unwrap_or_default();
            return Err(PoolError::InUse { hostname, hostid, last_access });
        }
        Ok(())
    }

    fn uberblocks(&self, max: Option<Txg>) -> Vec<FoundUberblock> {
        let max = max.unwrap_or(Txg(u64::MAX));
        let of = |(leaf, device): (&Guid, &Arc<dyn Device>)| {
            let ashift = self.labels.get(leaf)?.best(Txg(u64::MAX))?.vdev_tree.as_ref()?.ashift;
            label::newest_uberblock(&**device, ashift.filter(|a| *a != 0), max)
        };
        let mut best: Vec<FoundUberblock> = self.devices.iter().filter_map(of).collect();
        best.sort_by(|a, b| b.uberblock.cmp_age(&a.uberblock));
        best
    }

    /// The newest txg that any uberblock or label tells of, where `found` is the newest uberblock up to `max`.
    pub(super) fn newest_txg(&self, found: &FoundUberblock, max: Option<Txg>) -> Txg {
        let newest = match max {
            None => found.uberblock.txg(),
            Some(_) => self.uberblocks(None).first().map_or(Txg(0), |u| u.uberblock.txg()),
        };
        let labels = self.devices.keys().filter_map(|leaf| self.label_txg(*leaf, Txg(u64::MAX)));
        labels.fold(newest, Txg::max)
    }

    /// The newest uberblock and the vdev tree its labels describe: of each top-level vdev the newest label
    /// that is not newer than the uberblock.
    pub(super) fn newest(&self, max: Option<Txg>) -> Result<(VdevConfig, FoundUberblock)> {
        let found = self.uberblocks(max).into_iter().next();
        let found = found.ok_or_else(|| PoolError::NotAPool("no sound uberblock on any device".into()))?;
        let mut tops: BTreeMap<u64, (Txg, VdevConfig)> = BTreeMap::new();
        let (mut count, mut holes, mut newest) = (None, Vec::new(), Txg(0));
        for labels in self.labels.values() {
            let config = labels.best(found.uberblock.txg()).or_else(|| labels.best(Txg(u64::MAX)));
            let Some((config, top)) = config.and_then(|c| Some((c, c.vdev_tree.as_ref()?))) else { continue };
            if config.written() >= newest {
                newest = config.written();
                count = config.vdev_children;
                holes = config.hole_array.clone();
            }
            let id = top.id.unwrap_or(0);
            if tops.get(&id).is_none_or(|(txg, _)| *txg < config.written()) {
                tops.insert(id, (config.written(), top.clone()));
            }
        }
        // Old pools do not say how many there are.
        let known = tops.keys().next_back().map_or(1, |id| id.saturating_add(1));
        let mut root = VdevConfig::new(VdevKind::Root, self.guid);
        root.id = Some(0);
        for id in 0..count.unwrap_or(known).min(TOPS_MAX) {
            root.children.push(match tops.remove(&id) {
                Some((_, top)) => top,
                None if holes.contains(&id) => VdevConfig::hole(id),
                None => VdevConfig::missing(id),
            });
        }
        Ok((root, found))
    }
}
