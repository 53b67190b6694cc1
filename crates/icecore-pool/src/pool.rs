//! A pool in use: its I/O, its datasets, its configuration.
//!
//! Invariants:
//! 1. One owner, one open txg: everything changed since the last commit is committed by [`Pool::commit`], whole
//!    or not at all.
//! 2. The configuration here is the one in the MOS; labels hold what `PoolConfig::label_for` makes of it.
//! 3. After an error of a commit or an operation the pool object is of no more use: drop it and open again.

use crate::error::{PoolError, Result};
use crate::io::Io;
use crate::metaslab::{Class, Space};
use icecore_dmu::WriteError;
use icecore_dsl::{Chance, Dsl};
use icecore_env::{Device, Env};
use icecore_format::uberblock::UberblockPhys;
use icecore_format::{Guid, Txg};
use icecore_vdev::{PoolConfig, VdevConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who we are, for the labels: other systems refuse a pool that somebody else has in use.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Host {
    /// As `hostid` says; 0 for none.
    pub id: u64,
    /// As `hostname` says.
    pub name: String,
}

/// Objects of the MOS that belong to the pool itself; 0 for none.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Objects {
    pub config: u64,
    pub log_spacemap_zap: u64,
    pub sync_bpobj: u64,
    pub history: u64,
}

/// An open pool.
pub struct Pool {
    pub(crate) io: Io,
    /// Directories, datasets, snapshots.
    pub dsl: Dsl,
    pub(crate) config: PoolConfig,
    pub(crate) uberblock: UberblockPhys,
    /// Active features without which the MOS cannot be read: the labels list them.
    pub(crate) label_features: BTreeSet<String>,
    /// The configuration changed: MOS object and labels are written with the next commit.
    pub(crate) config_dirty: bool,
    /// The command, and whose, that the next commit enters in the history.
    pub(crate) note: Option<(String, u64)>,
    /// The next commit tells the labels that the pool is in use, and by whom.
    pub(crate) announce: bool,
    pub(crate) objects: Objects,
    pub(crate) host: Host,
    /// What tells this opening of the pool from others, once somebody asks (`spa_load_guid`).
    pub(crate) load_guid: std::sync::OnceLock<u64>,
    /// Leaves that are not written to: absent, or stale.
    pub(crate) missing: BTreeSet<Guid>,
    /// Every device that was found, by the leaf it is; also of those in `missing`.
    pub(crate) devices: BTreeMap<Guid, Arc<dyn Device>>,
    /// Passes the last commit took.
    pub(crate) passes: u32,
    /// Intent logs that wait to be replayed, by head.
    pub(crate) logs: BTreeMap<u64, crate::claim::Log>,
    /// What a salvage passed by.
    pub(crate) passed: Vec<String>,
    /// The scrub under way.
    pub(crate) scanning: crate::scan::Scanning,
    /// The side of a mirror that is being filled, and how far.
    pub(crate) resilver: Option<crate::resilver::Resilver>,
    pub(crate) copying: crate::scan::Scanning,
}

impl Pool {
    /// Block I/O and datasets at once, for operations that need both.
    pub fn parts(&mut self) -> (&mut Io, &mut Dsl) {
        (&mut self.io, &mut self.dsl)
    }
    /// Block I/O, for reading.
    #[must_use]
    pub fn io(&self) -> &Io {
        &self.io
    }
    /// Block I/O.
    pub fn io_mut(&mut self) -> &mut Io {
        &mut self.io
    }
    /// The configuration as the MOS has it.
    #[must_use]
    pub fn config(&self) -> &PoolConfig {
        &self.config
    }
    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.dsl.info.name
    }
    /// The pool's identity.
    #[must_use]
    pub fn guid(&self) -> Guid {
        Guid(self.config.pool_guid.unwrap_or_default())
    }
    /// The last committed uberblock.
    #[must_use]
    pub fn uberblock(&self) -> &UberblockPhys {
        &self.uberblock
    }
    /// The last committed txg.
    #[must_use]
    pub fn synced(&self) -> Txg {
        self.uberblock.txg()
    }
    /// What of the pool itself could not be had and was passed by, line by line: of one opened with
    /// [`crate::Mode::Salvage`].
    #[must_use]
    pub fn passed_by(&self) -> &[String] {
        &self.passed
    }
    /// Whether anything can be written.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.io.writable
    }
    /// Bytes in the pool, allocated, deferred. Read from the space maps also for pools opened read-only.
    #[must_use]
    pub fn space(&self) -> Space {
        self.io.space()
    }
    /// What a top-level vdev is for; `None` where nothing can be allocated (holes, removed vdevs).
    #[must_use]
    pub fn class(&self, vdev: usize) -> Option<Class> {
        self.io.alloc.tops.get(vdev)?.as_ref().map(|t| t.class)
    }
    /// The space of a top-level vdev; `None` where nothing can be allocated.
    #[must_use]
    pub fn space_of(&self, vdev: usize) -> Option<Space> {
        self.io.alloc.tops.get(vdev)?.as_ref().map(crate::metaslab::Top::space)
    }
    /// How fragmented the free space of a top-level vdev is, in percent; `None` where nobody knows.
    #[must_use]
    pub fn fragmentation_of(&self, vdev: usize) -> Option<u64> {
        self.io.alloc.tops.get(vdev)?.as_ref()?.fragmentation()
    }
    /// The hot and distributed spares it has.
    pub fn spares(&self) -> Result<Vec<VdevConfig>> {
        crate::open::aux_devices(&self.dsl.mos, &self.io, "spares")
    }
    /// The cache devices it has.
    pub fn caches(&self) -> Result<Vec<VdevConfig>> {
        crate::open::aux_devices(&self.dsl.mos, &self.io, "l2cache")
    }
    /// The devices it is on, as far as they were found.
    #[must_use]
    pub fn devices(&self) -> Vec<Arc<dyn Device>> {
        self.devices.values().cloned().collect()
    }
    /// Passes the last commit took to converge.
    #[must_use]
    pub fn last_passes(&self) -> u32 {
        self.passes
    }
    /// Opens the pool again as its last commit left it: what was changed since is forgotten. Keys stay loaded, and datasets
    /// in use stay so. After an error the pool is as before, and of no more use.
    pub fn reopen(&mut self, spec: crate::OpenSpec) -> Result<()> {
        // What is still on its way to the devices must not land in the new pool's space later.
        self.io.settled();
        let mut new = Self::open(self.io.env.clone(), spec)?;
        new.announce = self.announce;
        new.call(self.name());
        // How far a scan is was not committed, nor has it to be: what it follows is. Frees of what was not committed are none.
        new.io.vdevs.inherit_counts(&self.io.vdevs);
        new.scanning = std::mem::take(&mut self.scanning);
        new.inherit_resilver(self);
        for (objset, keys) in new.dsl.take_over(&new.io, &mut self.dsl)? {
            new.io.add_key(objset, keys);
        }
        *self = new;
        Ok(())
    }
    /// Lets nothing be written any more: the pool could not be taken back to its last commit.
    pub fn suspend(&mut self, why: &str) {
        self.io.suspend(why.to_string());
    }
    /// Gives the block store the data keys of the directory `dir` for its head and snapshots, if its root's key is loaded:
    /// for those made since that was.
    pub fn lend_keys(&mut self, dir: u64) -> Result<()> {
        if let Some(keys) = self.dsl.master_keys(&self.io, dir)? {
            for obj in self.without_keys(dir)? {
                self.io.add_key(obj, std::sync::Arc::clone(&keys));
            }
        }
        Ok(())
    }
    /// The dataset objects of a directory whose data keys the block store lacks.
    pub fn without_keys(&self, dir: u64) -> Result<Vec<u64>> {
        let all = self.dsl.objsets_of(&self.io, dir)?;
        Ok(all.into_iter().filter(|obj| self.io.key(*obj).is_none()).collect())
    }
    /// Lets the next commit tell all labels that this host has the pool in use, even if nothing else changed:
    /// what `zpool import` does, so that other systems refuse it.
    pub fn claim(&mut self) {
        self.config_dirty |= std::mem::take(&mut self.announce);
    }
    /// Calls it by another name, which the next commit writes into its labels, if there can be one.
    pub fn rename(&mut self, name: &str) {
        self.call(name);
        self.config.name = Some(name.into());
        self.config_dirty |= self.io.writable;
    }
    /// Calls it by another name here only: its labels keep theirs (`ZFS_IMPORT_TEMP_NAME`).
    pub fn call(&mut self, name: &str) {
        name.clone_into(&mut self.dsl.info.name);
    }
    /// Whether it may get another identity: of a device that is not here, or has missed something, nobody could tell any
    /// more that it is of this pool (`spa_change_guid_check`, spa.c).
    pub fn may_set_guid(&self) -> Result<()> {
        self.io.check_writable()?;
        match self.io.vdevs().leaves().iter().any(|l| l.device().is_none() || l.is_stale()) {
            true => Err(PoolError::Invalid("one or more devices is currently unavailable".into())),
            false => Ok(()),
        }
    }
    /// Gives it another identity, which the next commit writes into its labels (`spa_change_guid`, spa.c).
    pub fn set_guid(&mut self, guid: Guid) -> Result<()> {
        self.may_set_guid()?;
        let Some(mut tree) = self.config.vdev_tree.clone() else {
            return Err(PoolError::Invalid("the configuration has no vdevs".into()));
        };
        tree.guid = guid;
        self.config.pool_guid = Some(guid.0);
        self.rewire(tree)
    }
    pub(crate) fn failed(&mut self, error: WriteError) -> PoolError {
        let txg = Some(self.io.txg);
        let error = if self.io.suspended().is_some() { error } else { self.io.suspend(error.to_string()) };
        PoolError::Write { error, txg }
    }
}

/// Time and randomness for the DSL, from the environment.
pub(crate) struct EnvChance(pub Env);

impl Chance for EnvChance {
    fn now(&mut self) -> (u64, u32) {
        let ns = self.0.clock.monotonic_ns() % 1_000_000_000;
        (self.0.clock.now(), u32::try_from(ns).unwrap_or(0))
    }
    fn fill(&mut self, out: &mut [u8]) {
        self.0.entropy.fill(out);
    }
}
