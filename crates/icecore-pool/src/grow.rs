//! Further top-level vdevs for a pool (`spa_vdev_add`, spa.c; `vdev_metaslab_init`, `vdev_construct_zaps`, vdev.c).
//!
//! Invariant: the new devices become part of the pool with one commit. Cut short before its uberblock they are in no pool.

use crate::create::{fresh, metaslab_array};
use crate::error::{PoolError, Result};
use crate::pool::Pool;
use icecore_env::Device;
use icecore_format::{Guid, Txg};
use icecore_vdev::create::{self, NewTop};
use icecore_vdev::{VdevConfig, label};
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
            device.flush().map_err(icecore_vdev::VdevError::Device)?;
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
