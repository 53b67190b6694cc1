//! What of the tree is there, and whether it is enough.
//!
//! Facts: `vdev_root_open`, `vdev_mirror_state_change`, `vdev_raidz_state_change`, `vdev_draid_state_change`.

use std::fmt;

use icecore_format::Guid;

use super::{Node, Top, VdevSet};
use crate::config::{VdevConfig, VdevKind};
use crate::error::VdevError;

/// The state of a vdev, as `zpool status` has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Health {
    /// All there.
    Online,
    /// Works without some.
    Degraded,
    /// Does not work.
    Unavail,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Online => "ONLINE",
            Self::Degraded => "DEGRADED",
            Self::Unavail => "UNAVAIL",
        })
    }
}

impl VdevSet {
    /// The state of the whole.
    #[must_use]
    pub fn health(&self) -> Health {
        // A pool is readable, with losses said, without its log.
        let of = |t: &Top| match self.top_health(t) {
            Health::Unavail if t.is_log() => Health::Degraded,
            h => h,
        };
        self.tops.iter().map(of).max().unwrap_or(Health::Online)
    }
    /// The state of one top-level vdev.
    #[must_use]
    pub fn top_health(&self, top: &Top) -> Health {
        if top.config.kind == VdevKind::Missing { Health::Unavail } else { self.node_health(&top.node) }
    }
    /// The state of any vdev of the tree.
    #[must_use]
    pub fn health_of(&self, guid: Guid) -> Option<Health> {
        self.tops.iter().find_map(|top| match self.find_node(&top.config, &top.node, guid)? {
            // a top-level vdev may be one that could not be found
            _ if top.config.guid == guid => Some(self.top_health(top)),
            node => Some(self.node_health(node)),
        })
    }
    fn find_node<'a>(&'a self, config: &VdevConfig, node: &'a Node, guid: Guid) -> Option<&'a Node> {
        if config.guid == guid {
            return Some(node);
        }
        let children = match node {
            Node::Mirror(children) | Node::Raidz { children, .. } | Node::Draid { children, .. } => children,
            _ => return None,
        };
        config.children.iter().zip(children).find_map(|(c, n)| self.find_node(c, n, guid))
    }
    fn node_health(&self, node: &Node) -> Health {
        match node {
            Node::Leaf(i) if self.leaves[*i].device.is_some() => Health::Online,
            Node::Leaf(_) => Health::Unavail,
            Node::Mirror(children) | Node::Raidz { children, .. } | Node::Draid { children, .. } => {
                let states: Vec<Health> = children.iter().map(|c| self.node_health(c)).collect();
                match states.iter().filter(|s| **s != Health::Unavail).count() {
                    all if all == states.len() => states.into_iter().max().unwrap_or(Health::Unavail),
                    here if here >= needed(node) => Health::Degraded,
                    _ => Health::Unavail,
                }
            }
            // It is as well as the children of its draid, which are counted themselves.
            Node::DraidSpare(_) | Node::Indirect(_) | Node::Nothing => Health::Online,
            Node::Unsupported(_) => Health::Unavail,
        }
    }

    /// Fails with what is missing unless every top-level vdev can be read.
    pub fn check_readable(&self) -> Result<(), VdevError> {
        self.check(true)
    }

    /// As [`VdevSet::check_readable`], but a top-level vdev of which no label tells may be one that was removed:
    /// only the MOS knows.
    pub fn check_readable_by_labels(&self) -> Result<(), VdevError> {
        self.check(false)
    }

    fn check(&self, whole: bool) -> Result<(), VdevError> {
        for (i, top) in self.tops.iter().enumerate() {
            // Reading a block there says so; a pool without any can still be read.
            let unsupported = matches!(top.node, Node::Unsupported(_));
            let unknown = top.config.kind == VdevKind::Missing;
            if unsupported || unknown && !whole || top.is_log() || self.top_health(top) != Health::Unavail {
                continue;
            }
            let children = match &top.node {
                Node::Mirror(children) | Node::Raidz { children, .. } | Node::Draid { children, .. } => {
                    children
                }
                one => std::slice::from_ref(one),
            };
            let here = children.iter().filter(|c| self.node_health(c) != Health::Unavail).count();
            let gone = self.leaves.iter().filter(|l| l.top == i && l.device.is_none());
            return Err(VdevError::Missing {
                name: top.name(),
                guid: top.config.guid,
                here,
                needed: needed(&top.node),
                of: children.len(),
                leaves: gone.map(|l| (l.guid, l.name(), l.absence.clone())).collect(),
            });
        }
        Ok(())
    }
}

/// Children without which a node cannot be read.
fn needed(node: &Node) -> usize {
    match node {
        Node::Raidz { children, nparity } => children.len().saturating_sub(*nparity),
        Node::Draid { children, layout } => children.len().saturating_sub(layout.nparity),
        _ => 1,
    }
}
