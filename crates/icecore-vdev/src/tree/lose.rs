//! Going on without a device that failed while the pool was open.

use super::{BadCopy, Leaf, VdevSet};
use icecore_format::Guid;
use std::collections::BTreeSet;

impl VdevSet {
    /// Treats the leaves that did not take a write or flush as absent from now on, if each top-level vdev
    /// still has a sound one that did. Gives the leaves so lost; empty if the pool cannot go on.
    pub fn lose(&mut self, failed: &[BadCopy]) -> BTreeSet<Guid> {
        let gone: BTreeSet<Guid> = failed.iter().map(|bad| bad.guid).collect();
        let stays = |leaf: &Leaf| leaf.device.is_some() && !leaf.is_stale() && !gone.contains(&leaf.guid);
        let goes_on = self.tops.iter().filter(|top| top.is_concrete()).all(|top| {
            let copies = self.copies_at(top, &top.node, 0);
            copies.iter().filter_map(|i| self.leaves.get(*i)).any(stays)
        });
        let mut lost = BTreeSet::new();
        if !goes_on {
            return lost;
        }
        for bad in failed {
            let leaf = self.leaves.iter_mut().find(|l| l.guid == bad.guid && l.device.is_some());
            if let Some(leaf) = leaf {
                leaf.absence = bad.to_string();
                leaf.device = None;
                lost.insert(leaf.guid);
            }
        }
        lost
    }
}
