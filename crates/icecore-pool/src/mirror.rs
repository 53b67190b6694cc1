//! Changing the sides of a mirror: attach, detach, replace, offline, online (`spa_vdev_attach`, `spa_vdev_detach`, spa.c;
//! `vdev_offline`, `vdev_online`, `vdev_add_parent`, `vdev_remove_parent`, vdev.c). What a side lacks it gets by a resilver
//! ([`crate::resilver`]), and only when it has all the new configuration is committed.
//!
//! Invariants:
//! 1. A side is only taken away if another side of its mirror is whole.
//! 2. A device is written to from its first label on only after all checks have passed.

use crate::dtl::store;
use crate::error::{PoolError, Result};
use crate::pool::Pool;
use crate::range_tree::RangeTree;
use crate::resilver::{New, Resilver, Watch, What};
use crate::scrub::Scrubbed;
use crate::space_map::Phys;
use icecore_dmu::zap::{self, ZapValue};
use icecore_dsl::Feature;
use icecore_env::Device;
use icecore_format::{Guid, ObjectId, ObjectType};
use icecore_vdev::create::NewLeaf;
use icecore_vdev::{VdevConfig, VdevKind, label};
use std::sync::Arc;

/// The map of all vdevs' ZAPs (`DMU_POOL_VDEV_ZAP_MAP`).
const ZAP_MAP: &str = "com.delphix:vdev_zap_map";

pub(crate) fn refused<T>(why: &str) -> Result<T> {
    Err(PoolError::Invalid(why.into()))
}

impl Pool {
    /// Takes a device out of service (`zpool offline`): from the next txg on it misses what is written. A resilver of it ends.
    ///
    /// # Errors
    /// No other side is whole (`no valid replicas`).
    pub fn offline(&mut self, leaf: Guid) -> Result<()> {
        self.io.check_writable()?;
        if self.resilvering() == Some(leaf) {
            self.resilver_cancel();
        }
        self.may_rewire()?;
        self.other_side(leaf)?;
        let mut tree = self.tree()?;
        let Some(config) = tree.find_mut(leaf) else { return refused("no such device in pool") };
        if config.offline.unwrap_or(0) != 0 {
            return Ok(());
        }
        config.offline = Some(1);
        self.missing.insert(leaf);
        self.rewire(tree)?;
        self.commit().map(|_| ())
    }

    /// Brings a device back (`zpool online`): what it missed is copied to it, and nothing else.
    ///
    /// # Errors
    /// It is not there, or the copy failed: it stays as it was.
    pub fn online(&mut self, leaf: Guid, watch: Watch<'_>) -> Result<Scrubbed> {
        if self.begin_online(leaf)? { self.resilver_through(watch) } else { Ok(Scrubbed::default()) }
    }

    /// Begins the same; false if the device lacks nothing.
    ///
    /// # Errors
    /// It is not there; or as any write.
    pub fn begin_online(&mut self, leaf: Guid) -> Result<bool> {
        self.io.check_writable()?;
        if self.resilvering() == Some(leaf) {
            return Ok(true);
        }
        self.may_rewire()?;
        // Its time log then has all that it missed.
        self.commit()?;
        let tree = self.tree()?;
        let Some(config) = tree.find(leaf) else { return refused("no such device in pool") };
        if !config.out_of_service() && !self.missing.contains(&leaf) {
            return Ok(false);
        }
        if !self.devices.contains_key(&leaf) {
            return refused("the device cannot be opened");
        }
        let missed = match config.dtl.filter(|o| *o != 0) {
            Some(object) => crate::dtl::read(&self.dsl.mos, &self.io, ObjectId(object))?.0,
            None => RangeTree::of(0, u64::MAX),
        };
        let began = self.io.env.clock.now();
        self.begin_resilver(Resilver { leaf, what: What::Returned, began }, missed)?;
        Ok(true)
    }

    /// Makes `new` a further side of the mirror that `old` is in, or of `old` alone (`zpool attach`).
    ///
    /// # Errors
    /// The new device does not fit, or could not be written: the pool is as before.
    pub fn attach(&mut self, old: Guid, new: NewLeaf, watch: Watch<'_>) -> Result<Scrubbed> {
        self.begin_side(old, new, false)?;
        self.resilver_through(watch)
    }

    /// Puts `new` in the place of `old`, which may be gone (`zpool replace`).
    ///
    /// # Errors
    /// As of [`Pool::attach`].
    pub fn replace(&mut self, old: Guid, new: NewLeaf, watch: Watch<'_>) -> Result<Scrubbed> {
        self.begin_side(old, new, true)?;
        self.resilver_through(watch)
    }

    /// Begins to fill a further side, or with `instead` one that takes the place of `old`.
    ///
    /// # Errors
    /// The new device does not fit, or cannot be written: the pool is as before.
    pub fn begin_side(&mut self, old: Guid, new: NewLeaf, instead: bool) -> Result<()> {
        self.io.check_writable()?;
        self.may_rewire()?;
        self.fits(old, &*new.device)?;
        self.commit()?;
        let device = Arc::clone(&new.device);
        let entropy = Arc::clone(&self.io.env.entropy);
        let side = new_side(&self.tree()?, old, new, Guid(entropy.guid()))?;
        let leaf = side.guid;
        // Nothing of another pool may be found on it; what it gets now is no pool's yet.
        label::clear(&*device).map_err(|e| PoolError::Devices(e.to_string()))?;
        self.devices.insert(leaf, Arc::clone(&device));
        let new = New { beside: old, side, mirror: Guid(entropy.guid()), instead, device };
        let began = self.io.env.clock.now();
        let resilver = Resilver { leaf, what: What::New(Box::new(new)), began };
        let begun = self.begin_resilver(resilver, RangeTree::of(0, u64::MAX));
        if begun.is_err() {
            self.devices.remove(&leaf);
        }
        begun
    }

    /// Takes a side out of a mirror for good (`zpool detach`); its labels are cleared.
    ///
    /// # Errors
    /// It is not in a mirror, or no other side is whole.
    pub fn detach(&mut self, leaf: Guid) -> Result<()> {
        self.io.check_writable()?;
        if self.resilvering() == Some(leaf) {
            self.resilver_cancel();
            if self.tree()?.find(leaf).is_none() {
                return Ok(());
            }
        }
        self.may_rewire()?;
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
        self.rewire(tree)?;
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

    /// Empties a time log: the device has all.
    pub(crate) fn clear_log(&mut self, object: ObjectId) -> Result<()> {
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
    pub(crate) fn take_out(&mut self, tree: &mut VdevConfig, leaf: Guid) -> Result<Option<Arc<dyn Device>>> {
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
pub(crate) fn mirror_above(mut leaf: VdevConfig, guid: Guid) -> VdevConfig {
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

pub(crate) fn renumber(group: &mut VdevConfig) {
    for (i, child) in (0_u64..).zip(&mut group.children) {
        child.id = Some(i);
    }
}
