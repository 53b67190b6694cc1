//! Changing the sides of a mirror: attach, detach, replace, offline, online, and the resilver that goes with
//! them (`spa_vdev_attach`, `spa_vdev_detach`, spa.c; `vdev_offline`, `vdev_online`, `vdev_add_parent`,
//! `vdev_remove_parent`, vdev.c).
//!
//! A resilver here runs to its end within the operation, and only then is the new configuration committed. No
//! state between is ever on the devices: power lost in the middle leaves the pool as it was before, and the
//! operation begins anew.
//!
//! Invariants:
//! 1. A side becomes part of the configuration, or leaves its time log, in the very txg before which every
//!    block it should have was read from another side, verified, and made durable on it.
//! 2. While a resilver runs nothing is allocated or committed: the blocks to copy are those under the last
//!    uberblock.
//! 3. A side is only taken away if another side of its mirror is whole.
//! 4. A device is written to from its first label on only after all checks have passed.

use crate::dtl::store;
use crate::error::{PoolError, Result};
use crate::pool::Pool;
use crate::range_tree::RangeTree;
use crate::scrub::{Progress, Scrubbed, resilver};
use crate::space_map::Phys;
use icecore_dmu::zap::{self, ZapValue};
use icecore_dsl::Feature;
use icecore_env::Device;
use icecore_format::{Guid, ObjectId, ObjectType, Txg};
use icecore_vdev::create::NewLeaf;
use icecore_vdev::{VdevConfig, VdevKind, VdevSet, label};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The map of all vdevs' ZAPs (`DMU_POOL_VDEV_ZAP_MAP`).
const ZAP_MAP: &str = "com.delphix:vdev_zap_map";

/// Told of the progress of a resilver; false ends it, and the operation with it.
pub type Watch<'a> = &'a mut dyn FnMut(Progress) -> bool;

fn refused<T>(why: &str) -> Result<T> {
    Err(PoolError::Invalid(why.into()))
}

impl Pool {
    /// Takes a device out of service (`zpool offline`): from the next txg on it misses what is written.
    ///
    /// # Errors
    /// No other side is whole (`no valid replicas`).
    pub fn offline(&mut self, leaf: Guid) -> Result<()> {
        self.io.check_writable()?;
        self.other_side(leaf)?;
        let mut tree = self.tree()?;
        let Some(config) = tree.find_mut(leaf) else { return refused("no such device in pool") };
        if config.offline.unwrap_or(0) != 0 {
            return Ok(());
        }
        config.offline = Some(1);
        self.missing.insert(leaf);
        self.rewire(tree, &BTreeSet::new())?;
        self.commit().map(|_| ())
    }

    /// Brings a device back (`zpool online`): what it missed is copied to it, and nothing else.
    ///
    /// # Errors
    /// It is not there, or the copy failed: it stays as it was.
    pub fn online(&mut self, leaf: Guid, watch: Watch<'_>) -> Result<Scrubbed> {
        self.io.check_writable()?;
        let mut tree = self.tree()?;
        let Some(config) = tree.find_mut(leaf) else { return refused("no such device in pool") };
        let was_out = config.out_of_service();
        config.offline = None;
        config.removed = None;
        config.faulted = None;
        config.aux_state = None;
        config.not_present = None;
        config.resilver_txg = None;
        if !was_out && !self.missing.contains(&leaf) {
            return Ok(Scrubbed::default());
        }
        let log = config.dtl.filter(|o| *o != 0);
        if !self.devices.contains_key(&leaf) {
            return refused("the device cannot be opened");
        }
        let missed = match log {
            Some(object) => crate::dtl::read(&self.dsl.mos, &self.io, ObjectId(object))?.0,
            None => RangeTree::of(0, u64::MAX),
        };
        let before = self.tree()?;
        let began = self.io.env.clock.now();
        let done = self.copy_to(leaf, tree, &missed, watch);
        let done = match done {
            Ok(done) => done,
            Err(e) => {
                self.rewire(before, &BTreeSet::new())?;
                return Err(e);
            }
        };
        self.missing.remove(&leaf);
        // It has all now: from here on it is a side like the others.
        let tree = self.tree()?;
        self.rewire(tree, &BTreeSet::new())?;
        if let Some(object) = log {
            self.clear_log(ObjectId(object))?;
        }
        self.remember_resilver(began, &done)?;
        self.took_it(leaf)?;
        Ok(done)
    }

    /// Makes `new` a further side of the mirror that `old` is in, or of `old` alone (`zpool attach`).
    ///
    /// # Errors
    /// The new device does not fit, or could not be written: the pool is as before.
    pub fn attach(&mut self, old: Guid, new: NewLeaf, watch: Watch<'_>) -> Result<Scrubbed> {
        self.add_side(old, new, false, watch)
    }

    /// Puts `new` in the place of `old`, which may be gone (`zpool replace`).
    ///
    /// # Errors
    /// As of [`Pool::attach`].
    pub fn replace(&mut self, old: Guid, new: NewLeaf, watch: Watch<'_>) -> Result<Scrubbed> {
        self.add_side(old, new, true, watch)
    }

    fn add_side(&mut self, old: Guid, new: NewLeaf, instead: bool, watch: Watch<'_>) -> Result<Scrubbed> {
        self.io.check_writable()?;
        let before = self.tree()?;
        let Some(top) = before.children.iter().position(|t| t.find(old).is_some()) else {
            return refused("no such device in pool");
        };
        self.fits(old, &*new.device)?;
        let device = Arc::clone(&new.device);
        let side = new_side(&before, old, new, Guid(self.io.env.entropy.guid()))?;
        let guid = side.guid;
        let mut with = before.clone();
        let group = &mut with.children[top];
        if group.kind != VdevKind::Mirror {
            *group = mirror_above(group.clone(), Guid(self.io.env.entropy.guid()));
        }
        group.children.push(side);
        renumber(group);
        // Nothing of another pool may be found on it; what it gets now is no pool's yet.
        label::clear(&*device).map_err(|e| PoolError::Devices(e.to_string()))?;
        self.devices.insert(guid, Arc::clone(&device));
        let began = self.io.env.clock.now();
        let copied = self.copy_to(guid, with, &RangeTree::of(0, u64::MAX), watch);
        let done = match copied {
            Ok(done) => done,
            Err(e) => {
                self.devices.remove(&guid);
                self.rewire(before, &BTreeSet::new())?;
                return Err(e);
            }
        };
        let zap = self.new_vdev_zap()?;
        let mut tree = self.tree()?;
        if let Some(side) = tree.find_mut(guid) {
            side.vdev_zap_leaf = zap;
        }
        let gone = if instead { Some(self.take_out(&mut tree, old)?) } else { None };
        self.rewire(tree, &BTreeSet::new())?;
        self.remember_resilver(began, &done)?;
        self.took_it(guid)?;
        if let Some(device) = gone.flatten() {
            // The pool no longer needs it; a device that cannot be cleared is only a nuisance.
            let _ = label::clear(&*device);
        }
        Ok(done)
    }

    /// Takes a side out of a mirror for good (`zpool detach`); its labels are cleared.
    ///
    /// # Errors
    /// It is not in a mirror, or no other side is whole.
    pub fn detach(&mut self, leaf: Guid) -> Result<()> {
        self.io.check_writable()?;
        let mut tree = self.tree()?;
        match tree.children.iter().find(|t| t.find(leaf).is_some()) {
            None => return refused("no such device in pool"),
            Some(top) if top.kind != VdevKind::Mirror => {
                return refused("only applicable to mirror and replacing vdevs");
            }
            Some(_) => {}
        }
        self.other_side(leaf)?;
        let device = self.take_out(&mut tree, leaf)?;
        self.rewire(tree, &BTreeSet::new())?;
        self.commit()?;
        if let Some(device) = device {
            let _ = label::clear(&*device);
        }
        Ok(())
    }

    pub(crate) fn tree(&self) -> Result<VdevConfig> {
        let tree = self.config.vdev_tree.clone();
        tree.ok_or_else(|| PoolError::Invalid("the configuration has no vdevs".into()))
    }

    /// Whether a side also took the commit that brought it in. If not, its time log has begun with that txg.
    fn took_it(&self, leaf: Guid) -> Result<()> {
        if self.missing.contains(&leaf) {
            return refused("the device failed when all was copied to it: the pool goes on without it");
        }
        Ok(())
    }

    /// Whether a side besides `leaf` is present and has all (`vdev_dtl_required`, vdev.c).
    ///
    /// # Errors
    /// None is.
    pub fn other_side(&self, leaf: Guid) -> Result<()> {
        let tree = self.tree()?;
        let Some(top) = tree.children.iter().find(|t| t.find(leaf).is_some()) else {
            return refused("no such device in pool");
        };
        let whole = |l: &&VdevConfig| {
            let present = self.io.vdevs.leaves().iter().any(|o| o.guid == l.guid && o.device().is_some());
            l.guid != leaf && present && !self.missing.contains(&l.guid)
        };
        if top.leaves().iter().any(whole) { Ok(()) } else { refused("no valid replicas") }
    }

    /// Whether `device` could be a further side where `old` is, or take its place (`spa_vdev_attach`). Of a
    /// disk to be partitioned, whether it could as it is now.
    ///
    /// # Errors
    /// Why it could not.
    pub fn fits(&self, old: Guid, device: &dyn Device) -> Result<()> {
        let tree = self.tree()?;
        let Some(top) = tree.children.iter().find(|t| t.find(old).is_some()) else {
            return refused("no such device in pool");
        };
        let plain = top.kind == VdevKind::Mirror && top.children.iter().all(|c| c.kind.is_leaf());
        if !plain && !top.kind.is_leaf() {
            return refused("can only attach to mirrors and top-level disks");
        }
        let has = icecore_vdev::size::leaf_asize(device.size()).unwrap_or(0);
        if has < top.asize.unwrap_or(u64::MAX) {
            return refused("device is too small");
        }
        let sector = u64::from(device.sector().max(1).ilog2());
        if sector > top.ashift.unwrap_or(9) {
            return refused(
                "The new device cannot have a higher alignment requirement than the top-level vdev.",
            );
        }
        Ok(())
    }

    /// Opens the vdevs anew by `tree`, without the devices that miss something, but for those in `stale`.
    pub(crate) fn rewire(&mut self, tree: VdevConfig, stale: &BTreeSet<Guid>) -> Result<()> {
        self.io.flush()?;
        let here: BTreeMap<Guid, Arc<dyn Device>> = self
            .devices
            .iter()
            .filter(|(guid, _)| stale.contains(guid) || !self.missing.contains(guid))
            .map(|(guid, device)| (*guid, Arc::clone(device)))
            .collect();
        let vdevs = VdevSet::open_with_stale(&tree, &here, stale)?;
        vdevs.inherit_counts(&self.io.vdevs);
        self.io.vdevs = Arc::new(vdevs);
        self.config.vdev_tree = Some(tree);
        self.config_dirty = true;
        Ok(())
    }

    /// Opens the pool by `tree`, in which `leaf` is a side that misses `missed`, and copies that to it.
    fn copy_to(
        &mut self,
        leaf: Guid,
        tree: VdevConfig,
        missed: &RangeTree,
        watch: Watch<'_>,
    ) -> Result<Scrubbed> {
        self.rewire(tree, &BTreeSet::from([leaf]))?;
        let since = missed.iter().next().map_or(u64::MAX, |(start, _)| start.saturating_sub(1));
        let wanted = |birth: Txg| missed.contains(birth.0, 1);
        let mut stopped = false;
        let done = resilver(self, Txg(since), &wanted, &mut |p| {
            stopped = !watch(p);
            !stopped
        });
        if stopped {
            return refused("the resilver was stopped");
        }
        if let Some(first) = done.unseen.first() {
            return Err(PoolError::Invalid(format!("not all of the pool could be read: {}", first.why)));
        }
        let whole =
            self.io.vdevs.leaves().iter().any(|l| {
                l.guid == leaf && l.device().is_some() && l.counts().write.load(Ordering::Relaxed) == 0
            });
        // A failing side is a failed operation, not a failed pool: nothing of it was committed.
        if !whole || self.io.vdevs.flush().is_err() {
            return refused("the device could not be written");
        }
        Ok(done)
    }

    /// Empties a time log: the device has all.
    fn clear_log(&mut self, object: ObjectId) -> Result<()> {
        let mut phys = Phys::parse(&self.dsl.mos.bonus(&self.io, object)?)?;
        let mos = &mut self.dsl.mos;
        mos.free_range(&mut self.io, object, 0, u64::MAX)?;
        phys.set_length(0);
        phys.set_alloc(0);
        store(mos.edit(&self.io, object)?.bonus_mut(), &phys);
        Ok(())
    }

    /// A ZAP for a new vdev, listed with the others; none where the pool keeps none.
    pub(crate) fn new_vdev_zap(&mut self) -> Result<Option<u64>> {
        let Some(map) = self.dsl.directory_entry(&self.io, ZAP_MAP)? else { return Ok(None) };
        let object = zap::create(&mut self.dsl.mos, &self.io, ObjectType::OTN_ZAP_METADATA, None, 0)?;
        let key = format!("{:x}", object.0);
        zap::add(&mut self.dsl.mos, &mut self.io, ObjectId(map), &key, &ZapValue::u64(object.0))?;
        Ok(Some(object.0))
    }

    /// Takes `leaf` out of its mirror, with its objects in the MOS. A mirror left with one side becomes that
    /// side, under the mirror's guid. The device, if it is here.
    fn take_out(&mut self, tree: &mut VdevConfig, leaf: Guid) -> Result<Option<Arc<dyn Device>>> {
        let Some(top) = tree.children.iter_mut().find(|t| t.find(leaf).is_some()) else {
            return refused("no such device in pool");
        };
        let Some(at) = top.children.iter().position(|c| c.guid == leaf) else {
            return refused("only applicable to mirror and replacing vdevs");
        };
        let gone = top.children.remove(at);
        renumber(top);
        if let [only] = top.children.as_slice() {
            let (was, guid) = (only.guid, top.guid);
            let mut alone = only.clone();
            move_top(top, &mut alone);
            alone.id = top.id;
            alone.orig_guid = Some(was.0);
            alone.guid = guid;
            *top = alone;
            if let Some(device) = self.devices.remove(&was) {
                self.devices.insert(guid, device);
            }
            if self.missing.remove(&was) {
                self.missing.insert(guid);
            }
        }
        if let Some(object) = gone.dtl.filter(|o| *o != 0) {
            self.dsl.mos.free_object(&mut self.io, ObjectId(object))?;
            self.dsl.feature_decr(&mut self.io, Feature::SPACEMAP_HISTOGRAM)?;
        }
        if let (Some(object), Some(map)) =
            (gone.vdev_zap_leaf.filter(|o| *o != 0), self.dsl.directory_entry(&self.io, ZAP_MAP)?)
        {
            zap::remove(&mut self.dsl.mos, &mut self.io, ObjectId(map), &format!("{object:x}"))?;
            self.dsl.mos.free_object(&mut self.io, ObjectId(object))?;
        }
        self.missing.remove(&leaf);
        Ok(self.devices.remove(&leaf))
    }

    /// Commits, with the resilver where OpenZFS keeps the last scan.
    fn remember_resilver(&mut self, began: u64, done: &Scrubbed) -> Result<()> {
        let now = self.io.env.clock.now();
        self.record_scan(crate::scan::phys::RESILVER, began, now, done)
    }
}

/// The configuration of a new side beside or instead of `old`.
fn new_side(tree: &VdevConfig, old: Guid, new: NewLeaf, guid: Guid) -> Result<VdevConfig> {
    let Some(old) = tree.find(old).filter(|o| o.kind.is_leaf()) else {
        return refused("no such device in pool");
    };
    let kind = if new.whole_disk.is_some() { VdevKind::Disk } else { VdevKind::File };
    let mut side = VdevConfig::new(kind, guid);
    side.path = Some(new.path);
    side.whole_disk = new.whole_disk.map(u64::from);
    side.create_txg = old.create_txg;
    Ok(side)
}

/// A mirror in the place of a device that was alone (`vdev_add_parent`).
fn mirror_above(mut leaf: VdevConfig, guid: Guid) -> VdevConfig {
    let mut mirror = VdevConfig::new(VdevKind::Mirror, guid);
    mirror.id = leaf.id;
    mirror.create_txg = leaf.create_txg;
    move_top(&mut leaf, &mut mirror);
    mirror.children.push(leaf);
    mirror
}

/// What a top-level vdev has and a side has not goes from the one to the other (`vdev_top_transfer`).
fn move_top(from: &mut VdevConfig, to: &mut VdevConfig) {
    to.metaslab_array = from.metaslab_array.take();
    to.metaslab_shift = from.metaslab_shift.take();
    to.ashift = from.ashift.take();
    to.asize = from.asize.take();
    to.min_alloc = from.min_alloc.take();
    to.is_log = from.is_log.take();
    to.non_allocating = from.non_allocating.take();
    to.removing = from.removing.take();
    to.alloc_bias = from.alloc_bias.take();
    to.vdev_zap_top = from.vdev_zap_top.take();
}

fn renumber(group: &mut VdevConfig) {
    for (i, child) in (0_u64..).zip(&mut group.children) {
        child.id = Some(i);
    }
}
