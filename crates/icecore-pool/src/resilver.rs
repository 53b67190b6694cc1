//! Bringing a side of a mirror up to what the others have, while the pool is in use (`vdev_online`, vdev.c;
//! `spa_vdev_attach`, spa.c; `dsl_scan_setup_sync`, dsl_scan.c).
//!
//! Two streams fill the side: each block that is written from now on goes to it as to the others, and a scan
//! ([`crate::scan`]) copies what was born before. When the scan is through it has all.
//!
//! Invariants:
//! 1. Nothing of it is on the other devices before it is done: the configuration says of the side what it said before, or
//!    nothing, and the time log of one that was away goes on. Power lost in the middle leaves the pool as it was, and the
//!    resilver begins anew.
//! 2. Until then nothing is read from the side, and no label or uberblock is written on it: nobody takes it for whole.
//! 3. It becomes part of the configuration, or leaves its time log, in the very txg before which every block it should have
//!    was read from another side, verified, and made durable on it.
//! 4. A side that fails to take anything gets nothing more, and is not taken for whole.
//! 5. There is one at a time, and meanwhile nobody changes the tree of vdevs.

use crate::error::{PoolError, Result};
use crate::mirror::{mirror_above, refused, renumber};
use crate::pool::Pool;
use crate::range_tree::RangeTree;
use crate::scan::phys::RESILVER;
use crate::scan::{Scanning, Turn};
use crate::scrub::{Progress, Scrubbed};
use icecore_env::Device;
use icecore_format::{Guid, ObjectId, Txg};
use icecore_vdev::{PoolConfig, VdevConfig, VdevKind, VdevSet, label};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Told of the progress of a resilver; false ends it, and the operation with it.
pub type Watch<'a> = &'a mut dyn FnMut(Progress) -> bool;

/// A resilver under way.
pub(crate) struct Resilver {
    /// The side.
    pub leaf: Guid,
    pub what: What,
    /// Seconds since 1970.
    pub began: u64,
}

/// Why there is a side to be filled.
pub(crate) enum What {
    /// It was away.
    Returned,
    /// It is new: where it comes, and what goes when it has all.
    New(Box<New>),
}

/// A new side.
pub(crate) struct New {
    /// The leaf beside which it comes.
    pub beside: Guid,
    /// What is to be known of it.
    pub side: VdevConfig,
    /// The mirror above the two, if there is none yet.
    pub mirror: Guid,
    /// Whether it takes the place of the other.
    pub instead: bool,
    /// It.
    pub device: Arc<dyn Device>,
}

impl Resilver {
    /// `tree` with the side in its place, in service.
    pub fn tree(&self, mut tree: VdevConfig) -> Result<VdevConfig> {
        match &self.what {
            What::Returned => {
                let Some(side) = tree.find_mut(self.leaf) else { return refused("no such device in pool") };
                side.offline = None;
                side.removed = None;
                side.faulted = None;
                side.aux_state = None;
                side.not_present = None;
                side.resilver_txg = None;
            }
            What::New(new) => {
                let Some(group) = tree.children.iter_mut().find(|t| t.find(new.beside).is_some()) else {
                    return refused("no such device in pool");
                };
                if group.kind != VdevKind::Mirror {
                    *group = mirror_above(group.clone(), new.mirror);
                }
                group.children.push(new.side.clone());
                renumber(group);
            }
        }
        Ok(tree)
    }
}

impl Pool {
    /// The side of a mirror that is being brought up to date.
    #[must_use]
    pub fn resilvering(&self) -> Option<Guid> {
        self.resilver.as_ref().map(|r| r.leaf)
    }

    /// Whether the tree of vdevs may be changed now.
    pub(crate) fn may_rewire(&self) -> Result<()> {
        match self.resilver {
            Some(_) => refused("a resilver is under way: 'zpool wait -t resilver' waits for its end"),
            None => Ok(()),
        }
    }

    /// The leaves that are left alone, with the paths they had: their devices are absent, failed, or have missed something.
    #[must_use]
    pub fn left_alone(&self) -> Vec<(Guid, Option<String>)> {
        let path = |leaf: &Guid| self.config.vdev_tree.as_ref()?.find(*leaf)?.path.clone();
        let idle = self.missing.iter().filter(|leaf| Some(**leaf) != self.resilvering());
        idle.map(|leaf| (*leaf, path(leaf))).collect()
    }

    /// Whether the labels of a device say that it is that leaf of this pool.
    #[must_use]
    pub fn is_labelled(&self, leaf: Guid, device: &dyn Device) -> bool {
        let labels = label::Labels::read(device);
        let own =
            |config: &PoolConfig| config.guid == Some(leaf.0) && config.pool_guid == self.config.pool_guid;
        labels.best(Txg(u64::MAX)).is_some_and(own)
    }

    /// Lets the device of a leaf that is left alone go, so that it can be opened anew.
    pub fn let_device_go(&mut self, leaf: Guid) {
        if self.left_alone().iter().any(|(l, _)| *l == leaf) {
            self.devices.remove(&leaf);
        }
    }

    /// Takes a device for a leaf that is left alone and has none, if its labels say that it is that one. Whether it was taken.
    pub fn take_device(&mut self, leaf: Guid, device: Arc<dyn Device>) -> bool {
        let vacant = self.missing.contains(&leaf) && !self.devices.contains_key(&leaf);
        let taken = vacant && self.is_labelled(leaf, &*device);
        if taken {
            self.devices.insert(leaf, device);
        }
        taken
    }

    /// Begins to bring up to date a side that has come back, if there is one that nobody took out of service. Which.
    ///
    /// # Errors
    /// As any write.
    pub fn resilver_returned(&mut self) -> Result<Option<Guid>> {
        if self.resilver.is_some() || !self.io.writable {
            return Ok(None);
        }
        let tree = self.tree()?;
        let here = |leaf: &&Guid| {
            self.devices.contains_key(*leaf) && tree.find(**leaf).is_some_and(|l| !l.out_of_service())
        };
        let Some(leaf) = self.missing.iter().find(here).copied() else { return Ok(None) };
        Ok(self.begin_online(leaf)?.then_some(leaf))
    }

    /// Begins a resilver. The pool must have been committed just now; after an error it is as before.
    pub(crate) fn begin_resilver(&mut self, resilver: Resilver, missed: RangeTree) -> Result<()> {
        let leaf = resilver.leaf;
        self.wire(&resilver.tree(self.tree()?)?, Some(leaf))?;
        self.resilver = Some(resilver);
        self.copying = Scanning::copying(self, leaf, missed, self.synced());
        self.watch_frees();
        Ok(())
    }

    /// Does a whole resilver that was begun, in one go.
    ///
    /// # Errors
    /// As [`Pool::resilver_finish`].
    pub fn resilver_through(&mut self, watch: Watch<'_>) -> Result<Scrubbed> {
        loop {
            let turn = self.scan_turn(&|| false);
            let seen = self.scan_status().ok().flatten().unwrap_or_default();
            let progress =
                Progress { bytes: seen.issued, total: seen.phys.to_examine, damaged: seen.phys.errors };
            if !watch(progress) || matches!(turn, Turn::Copied | Turn::Idle) {
                return self.resilver_finish();
            }
        }
    }

    /// Ends a resilver that has copied all, or cannot, or shall not go on: then the pool is as it was before it began.
    ///
    /// # Errors
    /// Why the side has not all; or as any write.
    pub fn resilver_finish(&mut self) -> Result<Scrubbed> {
        let Some(resilver) = self.resilver.take() else { return refused("there is no resilver under way") };
        let copied = self.copying.copied().map_err(PoolError::Invalid);
        self.watch_frees();
        let done = copied.and_then(|done| self.has_taken_all(resilver.leaf).map(|()| done));
        match done {
            Ok(done) => self.take_in(resilver, done),
            Err(e) => {
                self.leave_out(&resilver)?;
                Err(e)
            }
        }
    }

    /// Gives a resilver up, if there is one that is not through yet: the pool is as it was before.
    pub fn resilver_cancel(&mut self) {
        // Whatever became of it, there is none any more.
        let _ = self.resilver_finish();
    }

    /// All that was written to the side is durable, and nothing failed.
    fn has_taken_all(&mut self, leaf: Guid) -> Result<()> {
        self.io.unflushed_writes = true;
        self.io.flush()?;
        match self.is_here(leaf) {
            true => Ok(()),
            false => refused("the device could not be written"),
        }
    }

    fn is_here(&self, leaf: Guid) -> bool {
        self.io.vdevs.leaves().iter().any(|l| l.guid == leaf && l.device().is_some())
    }

    fn leave_out(&mut self, resilver: &Resilver) -> Result<()> {
        if let What::New(_) = resilver.what {
            self.devices.remove(&resilver.leaf);
            self.missing.remove(&resilver.leaf);
            self.io.lost.remove(&resilver.leaf);
        }
        self.wire(&self.tree()?, None)
    }

    /// The side has all: it becomes one like the others.
    fn take_in(&mut self, resilver: Resilver, done: Scrubbed) -> Result<Scrubbed> {
        let leaf = resilver.leaf;
        let mut tree = resilver.tree(self.tree()?)?;
        self.missing.remove(&leaf);
        let mut gone = None;
        let mut log = None;
        match &resilver.what {
            What::Returned => log = tree.find(leaf).and_then(|l| l.dtl).filter(|o| *o != 0),
            What::New(new) => {
                let zap = self.new_vdev_zap()?;
                if let Some(side) = tree.find_mut(leaf) {
                    side.vdev_zap_leaf = zap;
                }
                if new.instead {
                    gone = self.take_out(&mut tree, new.beside)?;
                }
            }
        }
        self.rewire(tree)?;
        if let Some(object) = log {
            self.clear_log(ObjectId(object))?;
        }
        self.record_scan(RESILVER, resilver.began, self.io.env.clock.now(), &done)?;
        if self.missing.contains(&leaf) {
            // It did not take the commit that brought it in: its time log has begun with that txg.
            return refused("the device failed when all was copied to it: the pool goes on without it");
        }
        if let Some(device) = gone {
            // The pool no longer needs it; a device that cannot be cleared is only a nuisance.
            let _ = label::clear(&*device);
        }
        Ok(done)
    }

    /// What a pool that is opened again takes over from before. A side that failed meanwhile is not taken over.
    pub(crate) fn inherit_resilver(&mut self, old: &mut Self) {
        let Some(resilver) = old.resilver.take() else { return };
        if !old.is_here(resilver.leaf) {
            return;
        }
        if let What::New(new) = &resilver.what {
            self.devices.insert(resilver.leaf, Arc::clone(&new.device));
        }
        let wired =
            self.tree().and_then(|tree| resilver.tree(tree)).and_then(|t| self.wire(&t, Some(resilver.leaf)));
        if wired.is_ok() {
            self.copying = std::mem::take(&mut old.copying);
            self.resilver = Some(resilver);
        }
        self.watch_frees();
    }

    /// Opens the vdevs anew by `tree`, without the devices that miss something, but for the one that is being filled.
    fn wire(&mut self, tree: &VdevConfig, filling: Option<Guid>) -> Result<()> {
        self.io.flush()?;
        let here: BTreeMap<Guid, Arc<dyn Device>> = self
            .devices
            .iter()
            .filter(|(guid, _)| Some(**guid) == filling || !self.missing.contains(guid))
            .map(|(guid, device)| (*guid, Arc::clone(device)))
            .collect();
        let mut vdevs = VdevSet::open(tree, &here)?;
        if let Some(leaf) = filling {
            vdevs = vdevs.filling(leaf);
        }
        vdevs.inherit_counts(&self.io.vdevs);
        self.io.vdevs = Arc::new(vdevs);
        Ok(())
    }

    /// The same by a tree that the next commit writes into the configuration.
    pub(crate) fn rewire(&mut self, tree: VdevConfig) -> Result<()> {
        self.wire(&tree, None)?;
        self.config.vdev_tree = Some(tree);
        self.config_dirty = true;
        Ok(())
    }
}
