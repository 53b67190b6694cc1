//! Further top-level vdevs for a pool, and more room on those it has (`spa_vdev_add`, spa.c; `vdev_metaslab_init`,
//! `vdev_construct_zaps`, `vdev_expand`, vdev.c).
//!
//! Invariants:
//! 1. New devices become part of the pool with one commit. Cut short before its uberblock they are in no pool.
//! 2. What a device has grown by is used from one commit on. Before it only the labels at the new end are written.

use crate::create::{fresh, metaslab_array};
use crate::error::{PoolError, Result};
use crate::metaslab::Metaslab;
use crate::pool::Pool;
use crate::space_map::Phys;
use icecore_env::Device;
use icecore_format::{Guid, Txg};
use icecore_vdev::create::{self, NewTop};
use icecore_vdev::size::{leaf_asize, mirror_asize};
use icecore_vdev::{VdevConfig, VdevError, VdevKind, label};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Pool {
    /// Adds top-level vdevs and commits (`zpool add`). The devices lose what labels they had.
    ///
    /// # Errors
    /// The layout cannot be, or a device could not be written; after the latter the pool object is of no more use.
    pub fn add(&mut self, tops: Vec<NewTop>) -> Result<Txg> {
        self.io.check_writable()?;
        self.may_rewire()?;
        let mut tree = self.tree()?;
        let first = tree.children.len();
        let (mut new, devices) = create::further(&tree, tops, self.io.txg, &*self.io.env.entropy)?;
        for top in &mut new {
            self.objects_of(top)?;
        }
        tree.children.extend(new);
        self.config.vdev_children = Some(tree.children.len() as u64);
        self.first_labels(&tree, &devices)?;
        self.devices.extend(devices);
        let arrays: Vec<u64> = tree.children[first..].iter().filter_map(|t| t.metaslab_array).collect();
        self.rewire(tree)?;
        for (top, array) in self.io.vdevs.tops()[first..].iter().zip(arrays) {
            let mut top = fresh(top);
            top.iter_mut().for_each(|t| t.array = array);
            self.io.alloc.tops.push(top);
        }
        self.io.alloc.recount();
        self.commit()
    }

    /// Lets the top-level vdev that `leaf` is of, or is, have what its devices have grown by (`zpool online -e`), and commits. False
    /// where that makes no metaslab more.
    ///
    /// # Errors
    /// It is neither a disk nor a mirror, one of its devices is not here or behind, or as any write.
    pub fn expand(&mut self, leaf: Guid) -> Result<bool> {
        self.io.check_writable()?;
        self.may_rewire()?;
        let mut tree = self.tree()?;
        let at = tree.children.iter().position(|top| top.find(leaf).is_some());
        let refused = |why: &str| PoolError::Invalid(why.into());
        let Some((at, top)) = at.and_then(|at| Some((at, tree.children.get_mut(at)?))) else {
            return Err(refused("no such device in pool"));
        };
        if !top.kind.is_leaf() && top.kind != VdevKind::Mirror {
            return Err(refused("operation not supported on this type of pool"));
        }
        let mut devices = Vec::new();
        for side in top.leaves() {
            match self.devices.get(&side.guid).filter(|_| !self.missing.contains(&side.guid)) {
                Some(device) => devices.push(Arc::clone(device)),
                None => return Err(refused("one or more devices is currently unavailable")),
            }
        }
        let sizes = devices.iter().filter_map(|d| leaf_asize(d.measure()));
        let asize = if top.kind.is_leaf() { sizes.min() } else { mirror_asize(sizes) };
        let (Some(shift), Some(before), Some(asize)) = (top.metaslab_shift, top.asize, asize) else {
            return Ok(false);
        };
        // From now on the last labels are looked for at the new ends, be there enough for a metaslab or not.
        let mut moved = false;
        for device in &devices {
            moved |= label::renew_end(&**device, self.guid()).map_err(VdevError::Device)?;
        }
        if asize >> shift <= before >> shift {
            if moved {
                self.config_dirty = true;
                self.commit()?;
            }
            return Ok(false);
        }
        top.asize = Some(asize);
        self.rewire(tree)?;
        if let (Some(vdev), Some(Some(top))) = (self.io.vdevs.tops().get(at), self.io.alloc.tops.get_mut(at))
        {
            let (shift, count) = vdev.metaslabs();
            let new = top.slabs.len() as u64..count;
            top.slabs.extend(new.map(|i| Metaslab::new(i << shift, 1 << shift, 0, Phys::new())));
        }
        self.io.alloc.recount();
        self.commit()?;
        Ok(true)
    }

    /// Labels that say whose the devices are to be, of no txg yet: a device that cannot be written to, and flushed, does not
    /// become part of the pool (`vdev_label_init`, vdev_label.c).
    fn first_labels(&self, tree: &VdevConfig, devices: &BTreeMap<Guid, Arc<dyn Device>>) -> Result<()> {
        let mut config = self.config.clone();
        config.vdev_tree = Some(tree.clone());
        config.txg = Some(0);
        for (leaf, device) in devices {
            let label = config.label_for(*leaf, &self.label_features);
            let label = label.ok_or_else(|| PoolError::Invalid(format!("device {leaf} is in no vdev")))?;
            label::init(&**device, &label.to_nvlist())?;
            device.flush().map_err(VdevError::Device)?;
        }
        Ok(())
    }

    /// What the MOS has of each vdev from its first txg on.
    fn objects_of(&mut self, top: &mut VdevConfig) -> Result<()> {
        top.metaslab_array = Some(self.dsl.mos.allocate(&self.io, &metaslab_array())?.0);
        if top.kind.is_leaf() {
            top.vdev_zap_leaf = self.new_vdev_zap()?;
        }
        for side in &mut top.children {
            side.vdev_zap_leaf = self.new_vdev_zap()?;
        }
        top.vdev_zap_top = self.new_vdev_zap()?;
        Ok(())
    }
}
