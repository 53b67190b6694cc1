//! Typed view of a pool configuration: what a label, the MOS config object or a cache file says of a pool.
//!
//! Facts: pair names from `include/sys/fs/zfs.h` (`ZPOOL_CONFIG_*`); which pair is written when, and in
//! which order, from `vdev_config_generate` (vdev_label.c) and `spa_config_generate` (spa_config.c).
//!
//! Invariants:
//! 1. A configuration that is parsed and serialised untouched is the same nvlist, pair for pair and in
//!    order: pairs we do not know survive.
//! 2. A configuration made here has its pairs in the order OpenZFS writes them.
//! 3. A parsed tree is at most as deep as nvlists may nest; child numbers are not trusted for indexing.

use std::collections::BTreeSet;
use std::fmt;

use icecore_format::nvlist::{NvList, NvStr, NvValue};
use icecore_format::{Corrupt, Guid, Txg};

/// The pool version whose capabilities are feature flags (`SPA_VERSION_FEATURES`).
pub const VERSION_FEATURES: u64 = 5000;

/// Kinds of vdev, by their `type` string. Open: a kind from the future keeps its name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum VdevKind {
    /// The pool itself, above the top-level vdevs.
    Root,
    /// A block device.
    Disk,
    /// An image file.
    File,
    /// Copies.
    Mirror,
    /// Parity.
    Raidz,
    /// Parity with distributed spares.
    Draid,
    /// A distributed spare.
    DraidSpare,
    /// A device and the one that takes its place, until resilvered.
    Replacing,
    /// A device and the hot spare that stands in for it.
    Spare,
    /// A number once used by a removed log device.
    Hole,
    /// A top-level vdev whose devices are all absent.
    Missing,
    /// A removed top-level vdev: its offsets are mapped to others.
    Indirect,
    /// A cache device.
    L2cache,
    /// Something newer.
    Other(String),
}

const KINDS: [(&str, VdevKind); 13] = [
    ("root", VdevKind::Root),
    ("disk", VdevKind::Disk),
    ("file", VdevKind::File),
    ("mirror", VdevKind::Mirror),
    ("raidz", VdevKind::Raidz),
    ("draid", VdevKind::Draid),
    ("dspare", VdevKind::DraidSpare),
    ("replacing", VdevKind::Replacing),
    ("spare", VdevKind::Spare),
    ("hole", VdevKind::Hole),
    ("missing", VdevKind::Missing),
    ("indirect", VdevKind::Indirect),
    ("l2cache", VdevKind::L2cache),
];

impl VdevKind {
    /// The kind named `s`.
    #[must_use]
    pub fn from_name(s: &str) -> Self {
        let known = KINDS.iter().find(|(name, _)| *name == s);
        known.map_or_else(|| Self::Other(s.to_owned()), |(_, kind)| kind.clone())
    }
    /// Its name on disk.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Other(s) => s,
            known => KINDS.iter().find(|(_, k)| k == known).map_or("", |(name, _)| name),
        }
    }
    /// Whether it is a device of its own, with labels.
    #[must_use]
    pub fn is_leaf(&self) -> bool {
        matches!(self, Self::Disk | Self::File)
    }
}

impl fmt::Display for VdevKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the label says the pool's life stage is (`pool_state_t`, fs/zfs.h). Open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct PoolState(pub u64);

impl PoolState {
    /// In use, or not cleanly left.
    pub const ACTIVE: Self = Self(0);
    /// Cleanly left.
    pub const EXPORTED: Self = Self(1);
    /// Destroyed; can still be imported with `-D`.
    pub const DESTROYED: Self = Self(2);
    /// A shared hot spare, of no pool in particular.
    pub const SPARE: Self = Self(3);
    /// A cache device, of no pool in particular.
    pub const L2CACHE: Self = Self(4);
}

impl fmt::Display for PoolState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("ACTIVE"),
            1 => f.write_str("EXPORTED"),
            2 => f.write_str("DESTROYED"),
            3 => f.write_str("SPARE"),
            4 => f.write_str("L2CACHE"),
            other => write!(f, "state {other}"),
        }
    }
}

/// How a field of a struct goes to and from a pair.
trait Field: Sized {
    fn get(list: &NvList, name: &str) -> Self;
    fn value(&self) -> Option<NvValue>;
}
impl Field for Option<u64> {
    fn get(list: &NvList, name: &str) -> Self {
        list.u64(name)
    }
    fn value(&self) -> Option<NvValue> {
        (*self).map(NvValue::U64)
    }
}
impl Field for Option<String> {
    fn get(list: &NvList, name: &str) -> Self {
        list.str(name).map(str::to_owned)
    }
    fn value(&self) -> Option<NvValue> {
        self.as_deref().map(NvValue::from)
    }
}
impl Field for Vec<u64> {
    fn get(list: &NvList, name: &str) -> Self {
        list.u64_array(name).map(<[u64]>::to_vec).unwrap_or_default()
    }
    fn value(&self) -> Option<NvValue> {
        (!self.is_empty()).then(|| NvValue::U64Array(self.clone()))
    }
}
impl Field for bool {
    fn get(list: &NvList, name: &str) -> Self {
        list.flag(name)
    }
    fn value(&self) -> Option<NvValue> {
        self.then_some(NvValue::Flag)
    }
}

/// Lays fresh pairs over the list they were read from: a known pair changes in place or goes, an unknown
/// one stays, a new one comes last. With no old list the result has the order of `fresh`.
fn lay_over(old: &NvList, fresh: Vec<(&'static str, Option<NvValue>)>) -> NvList {
    let mut out = old.clone();
    for (name, value) in fresh {
        match value {
            Some(value) => {
                out.replace(name, value);
            }
            None => {
                // What does not read as the field's type was never ours to drop.
                let ours = match out.get(name) {
                    Some(NvValue::U64(_) | NvValue::U64Array(_) | NvValue::ListArray(_) | NvValue::Flag) => {
                        true
                    }
                    Some(NvValue::Str(s)) => s.as_str().is_some(),
                    _ => false,
                };
                if ours {
                    out.remove(name);
                }
            }
        }
    }
    out
}

macro_rules! vdev_config {
    ($($(#[$doc:meta])* $field:ident: $t:ty = $name:literal;)*) => {
        /// One vdev of a configuration, with all below it.
        #[derive(Clone, PartialEq, Debug)]
        pub struct VdevConfig {
            /// What it is.
            pub kind: VdevKind,
            /// Its identity for ever.
            pub guid: Guid,
            $($(#[$doc])* pub $field: $t,)*
            /// What it is made of.
            pub children: Vec<VdevConfig>,
            raw: NvList,
        }

        impl VdevConfig {
            /// A fresh vdev with nothing but its identity.
            #[must_use]
            pub fn new(kind: VdevKind, guid: Guid) -> Self {
                Self { kind, guid, $($field: <$t>::default(),)* children: Vec::new(), raw: NvList::new() }
            }

            /// Reads a `vdev_tree` nvlist.
            pub fn parse(list: &NvList) -> Result<Self, Corrupt> {
                let bad = |why: &str| Corrupt::new("vdev config", why);
                let kind = list.str("type").ok_or_else(|| bad("no type"))?;
                let guid = list.u64("guid").ok_or_else(|| bad("no guid"))?;
                let children = list.list_array("children").unwrap_or_default();
                let vdev = Self {
                    kind: VdevKind::from_name(kind),
                    guid: Guid(guid),
                    $($field: <$t as Field>::get(list, $name),)*
                    children: children.iter().map(Self::parse).collect::<Result<_, _>>()?,
                    raw: list.clone(),
                };
                vdev.check()?;
                Ok(vdev)
            }

            /// The nvlist of this vdev as a label or the MOS holds it.
            #[must_use]
            pub fn to_nvlist(&self) -> NvList {
                let mut pairs = vec![("type", Some(NvValue::from(self.kind.name())))];
                let fields: Vec<(&'static str, Option<NvValue>)> = vec![$(($name, self.$field.value()),)*];
                let (id, rest) = fields.split_at(1);
                pairs.extend_from_slice(id);
                pairs.push(("guid", Some(NvValue::U64(self.guid.0))));
                let (own, leaf) = rest.split_at(Self::fields_before_children());
                pairs.extend_from_slice(own);
                if !self.children.is_empty() {
                    let lists = self.children.iter().map(Self::to_nvlist).collect::<Vec<_>>();
                    pairs.push(("children", Some(NvValue::ListArray(lists))));
                } else {
                    pairs.push(("children", None));
                }
                pairs.extend_from_slice(leaf);
                lay_over(&self.raw, pairs)
            }

            /// Fields between the guid and the children in the order below.
            fn fields_before_children() -> usize {
                let names = [$($name),*];
                names.iter().position(|n| *n == "offline").map_or(0, |p| p - 1)
            }
        }
    };
}

vdev_config! {
    /// Its number among its siblings.
    id: Option<u64> = "id";
    /// The top-level vdev it belongs to (written by newer releases).
    top_guid: Option<u64> = "top_guid";
    /// Where it was last seen.
    path: Option<String> = "path";
    /// The disk's own identity.
    devid: Option<String> = "devid";
    /// The way to it by bus and slot.
    phys_path: Option<String> = "phys_path";
    /// Its enclosure slot in sysfs.
    enc_sysfs_path: Option<String> = "vdev_enc_sysfs_path";
    /// Field-replaceable unit.
    fru: Option<String> = "fru";
    /// Parity devices of raidz and draid.
    nparity: Option<u64> = "nparity";
    /// A raidz expansion is under way.
    raidz_expanding: bool = "raidz_expanding";
    /// When raidz expansions were completed.
    raidz_expand_txgs: Vec<u64> = "raidz_expand_txgs";
    /// Data devices in each draid group.
    draid_ndata: Option<u64> = "draid_ndata";
    /// Distributed spares of a draid.
    draid_nspares: Option<u64> = "draid_nspares";
    /// Groups of a draid.
    draid_ngroups: Option<u64> = "draid_ngroups";
    /// Children of each failure domain of a draid, if there are several (newer releases).
    draid_nchildren: Option<u64> = "draid_nchildren";
    /// Number of a distributed spare.
    spare_id: Option<u64> = "spareid";
    /// Whether ZFS partitioned the disk itself.
    whole_disk: Option<u64> = "whole_disk";
    /// It could not be found for long.
    not_present: Option<u64> = "not_present";
    /// It is, or came as, a hot spare.
    is_spare: Option<u64> = "is_spare";
    /// MOS object listing its metaslabs' space maps. Top-level.
    metaslab_array: Option<u64> = "metaslab_array";
    /// log2 of the metaslab size. Top-level.
    metaslab_shift: Option<u64> = "metaslab_shift";
    /// log2 of the smallest write. Top-level.
    ashift: Option<u64> = "ashift";
    /// Allocatable bytes. Top-level.
    asize: Option<u64> = "asize";
    /// Smallest allocation (newer releases). Top-level.
    min_alloc: Option<u64> = "min_alloc";
    /// Intent log only. Top-level.
    is_log: Option<u64> = "is_log";
    /// Nothing is allocated from it. Top-level.
    non_allocating: Option<u64> = "non_allocating";
    /// It is being removed. Top-level.
    removing: Option<u64> = "removing";
    /// What it is reserved for: `log`, `special`, `dedup` (not stored in labels).
    alloc_bias: Option<String> = "alloc_bias";
    /// MOS object (space map) of the txgs it missed. Leaf.
    dtl: Option<u64> = "DTL";
    /// MOS object of the mapping of an indirect vdev.
    indirect_object: Option<u64> = "com.delphix:indirect_object";
    /// MOS object of the births of an indirect vdev.
    indirect_births: Option<u64> = "com.delphix:indirect_births";
    /// The indirect vdev removed before this one.
    prev_indirect_vdev: Option<u64> = "com.delphix:prev_indirect_vdev";
    /// When it joined the pool.
    create_txg: Option<u64> = "create_txg";
    /// When it was last expanded.
    expansion_time: Option<u64> = "expansion_time";
    /// ZAP of per-leaf properties. MOS only.
    vdev_zap_leaf: Option<u64> = "com.delphix:vdev_zap_leaf";
    /// ZAP of per-top-level properties. MOS only.
    vdev_zap_top: Option<u64> = "com.delphix:vdev_zap_top";
    /// ZAP of the root vdev. MOS only.
    vdev_zap_root: Option<u64> = "com.klarasystems:vdev_zap_root";
    /// It waits for another resilver to end. MOS only.
    resilver_defer: bool = "com.datto:resilver_defer";
    /// Taken offline by the administrator.
    offline: Option<u64> = "offline";
    /// Resilvering began here.
    resilver_txg: Option<u64> = "resilver_txg";
    /// Rebuilding began here.
    rebuild_txg: Option<u64> = "rebuild_txg";
    /// Too many errors.
    faulted: Option<u64> = "faulted";
    /// Many errors.
    degraded: Option<u64> = "degraded";
    /// Unplugged while in use.
    removed: Option<u64> = "removed";
    /// A spare on its way out.
    unspare: Option<u64> = "unspare";
    /// A hole.
    is_hole: Option<u64> = "is_hole";
    /// Why it is faulted or degraded.
    aux_state: Option<String> = "aux_state";
    /// Its guid before a split.
    orig_guid: Option<u64> = "orig_guid";
}

impl VdevConfig {
    /// Rejects numbers that later arithmetic (shifts above all) relies on.
    fn check(&self) -> Result<(), Corrupt> {
        let bad = |why: String| Err(Corrupt::new("vdev config", why));
        if self.ashift.is_some_and(|a| a != 0 && !(9..=16).contains(&a)) {
            return bad(format!("ashift {:?} of {}", self.ashift, self.guid));
        }
        // 0: a top-level vdev so fresh that no metaslab exists yet.
        if self.metaslab_shift.is_some_and(|s| s != 0 && !(9..=62).contains(&s)) {
            return bad(format!("metaslab_shift {:?} of {}", self.metaslab_shift, self.guid));
        }
        if self.asize.is_some_and(|a| a > 1 << 62) {
            return bad(format!("asize {:?} of {}", self.asize, self.guid));
        }
        if self.kind == VdevKind::Raidz {
            let enough = |p: u64| (1..=3).contains(&p) && (self.children.len() as u64) > p;
            // Before version 3 there was single parity only, and no word of it (`vdev_raidz_init`).
            if !enough(self.nparity.unwrap_or(1)) {
                return bad(format!("nparity {:?} with {} children", self.nparity, self.children.len()));
            }
        }
        Ok(())
    }

    /// Whether the pair under `name` is set to something but 0.
    fn on(field: Option<u64>) -> bool {
        field.is_some_and(|v| v != 0)
    }
    /// What `zpool status` calls a vdev that is no device (`zpool_vdev_name`, libzfs_pool.c): its kind with its
    /// layout, and its number.
    #[must_use]
    pub fn name(&self, id: u64) -> String {
        let n = |field: Option<u64>| field.unwrap_or(0);
        match self.kind {
            VdevKind::Raidz => format!("raidz{}-{id}", self.nparity.unwrap_or(1)),
            VdevKind::Draid => format!(
                "draid{}:{}d:{}c:{}s-{id}",
                n(self.nparity),
                n(self.draid_ndata),
                self.children.len(),
                n(self.draid_nspares)
            ),
            VdevKind::DraidSpare => self.path.clone().unwrap_or_else(|| format!("dspare-{id}")),
            _ => format!("{}-{id}", self.kind),
        }
    }
    /// Whether it holds only the intent log.
    #[must_use]
    pub fn holds_log(&self) -> bool {
        Self::on(self.is_log)
    }
    /// Whether the administrator or ZFS took it out of service.
    #[must_use]
    pub fn out_of_service(&self) -> bool {
        Self::on(self.offline) || Self::on(self.faulted) || Self::on(self.removed)
    }
    /// Whether its number is taken by nothing any more.
    #[must_use]
    pub fn is_hole(&self) -> bool {
        self.kind == VdevKind::Hole || Self::on(self.is_hole)
    }
    /// A placeholder for a top-level vdev that is gone for good.
    #[must_use]
    pub fn hole(id: u64) -> Self {
        let mut hole = Self::new(VdevKind::Hole, Guid(0));
        hole.id = Some(id);
        hole.is_hole = Some(1);
        hole
    }
    /// A placeholder for a top-level vdev that cannot be found.
    #[must_use]
    pub fn missing(id: u64) -> Self {
        let mut missing = Self::new(VdevKind::Missing, Guid(0));
        missing.id = Some(id);
        missing
    }
    /// All vdevs of the subtree, parents first.
    #[must_use]
    pub fn walk(&self) -> Vec<&Self> {
        let mut out = vec![self];
        for child in &self.children {
            out.extend(child.walk());
        }
        out
    }
    /// All devices of the subtree.
    #[must_use]
    pub fn leaves(&self) -> Vec<&Self> {
        self.walk().into_iter().filter(|v| v.kind.is_leaf()).collect()
    }
    /// The vdev with `guid` in the subtree.
    #[must_use]
    pub fn find(&self, guid: Guid) -> Option<&Self> {
        if self.guid == guid { Some(self) } else { self.children.iter().find_map(|c| c.find(guid)) }
    }
    /// The vdev with `guid` in the subtree, to be changed.
    pub fn find_mut(&mut self, guid: Guid) -> Option<&mut Self> {
        if self.guid == guid { Some(self) } else { self.children.iter_mut().find_map(|c| c.find_mut(guid)) }
    }
    /// The sum of all guids of the subtree, wrapping (`vdev_guid_sum`): the uberblock's proof that the
    /// tree is complete.
    #[must_use]
    pub fn guid_sum(&self) -> u64 {
        self.walk().iter().fold(0, |sum, v| sum.wrapping_add(v.guid.0))
    }
    /// The same subtree without what only the MOS's copy of the configuration holds.
    #[must_use]
    pub fn for_label(&self) -> Self {
        let mut v = self.clone();
        v.vdev_zap_leaf = None;
        v.vdev_zap_top = None;
        v.vdev_zap_root = None;
        v.resilver_defer = false;
        v.children = self.children.iter().map(Self::for_label).collect();
        v
    }
}

macro_rules! pool_config {
    ($($(#[$doc:meta])* $field:ident: $t:ty = $name:literal;)*) => {
        /// What a label or the MOS says of a pool. Spares and cache devices have only a part of it.
        #[derive(Clone, PartialEq, Debug, Default)]
        pub struct PoolConfig {
            $($(#[$doc])* pub $field: $t,)*
            /// The vdevs: of a label the top-level one it belongs to, of the MOS the root.
            pub vdev_tree: Option<VdevConfig>,
            /// Features without which the MOS cannot be read; only labels have it.
            pub features_for_read: Option<BTreeSet<String>>,
            pub(crate) raw: NvList,
        }

        impl PoolConfig {
            /// Reads a configuration.
            pub fn parse(list: &NvList) -> Result<Self, Corrupt> {
                let tree = list.list("vdev_tree").map(VdevConfig::parse).transpose()?;
                let features = list.list("features_for_read");
                Ok(Self {
                    $($field: <$t as Field>::get(list, $name),)*
                    vdev_tree: tree,
                    features_for_read: features.map(|f| f.iter().map(|(n, _)| n.to_string()).collect()),
                    raw: list.clone(),
                })
            }

            /// The configuration as an nvlist.
            #[must_use]
            pub fn to_nvlist(&self) -> NvList {
                let mut pairs: Vec<(&'static str, Option<NvValue>)> = vec![$(($name, self.$field.value()),)*];
                if let Some(tree) = &self.vdev_tree {
                    pairs.push(("vdev_tree", Some(NvValue::List(tree.to_nvlist()))));
                }
                if let Some(features) = &self.features_for_read {
                    pairs.push(("features_for_read", Some(NvValue::List(self.features_list(features)))));
                }
                lay_over(&self.raw, pairs)
            }
        }
    };
}

pool_config! {
    /// On-disk version: 1 to 28, or 5000 for feature flags.
    version: Option<u64> = "version";
    /// The pool's name.
    name: Option<String> = "name";
    /// Its life stage, see [`PoolConfig::pool_state`].
    state: Option<u64> = "state";
    /// When this label was written.
    txg: Option<u64> = "txg";
    /// The pool's identity.
    pool_guid: Option<u64> = "pool_guid";
    /// Known defects of the pool's past.
    errata: Option<u64> = "errata";
    /// Smallest allocation (newer releases).
    min_alloc: Option<u64> = "min_alloc";
    /// Largest allocation (newer releases).
    max_alloc: Option<u64> = "max_alloc";
    /// The administrator's remark.
    comment: Option<String> = "comment";
    /// The feature sets it is kept compatible with.
    compatibility: Option<String> = "compatibility";
    /// Who had it last.
    hostid: Option<u64> = "hostid";
    /// Who had it last, by name.
    hostname: Option<String> = "hostname";
    /// The top-level vdev the label's device belongs to.
    top_guid: Option<u64> = "top_guid";
    /// The label's device.
    guid: Option<u64> = "guid";
    /// The label's device is a spare in use.
    is_spare: Option<u64> = "is_spare";
    /// The label's device belongs to a log vdev.
    is_log: Option<u64> = "is_log";
    /// Every vdev has its ZAP. MOS only.
    has_per_vdev_zaps: bool = "com.delphix:has_per_vdev_zaps";
    /// Numbers of the top-level vdevs that are holes.
    hole_array: Vec<u64> = "hole_array";
    /// How many top-level vdevs the pool has, holes included.
    vdev_children: Option<u64> = "vdev_children";
    /// The pool this one was split from.
    split_guid: Option<u64> = "split_guid";
    /// Only in labels not yet part of a pool (`vdev_label_init`): when they will be.
    create_txg: Option<u64> = "create_txg";
}

impl PoolConfig {
    /// Keeps the old list where it says the same: the order within is OpenZFS's own.
    fn features_list(&self, features: &BTreeSet<String>) -> NvList {
        let mut list = self.raw.list("features_for_read").cloned().unwrap_or_default();
        // Names that are not UTF-8 stand in the set as they print.
        let gone: Vec<NvStr> =
            list.iter().map(|(n, _)| n.clone()).filter(|n| !features.contains(&n.to_string())).collect();
        for name in gone.iter().filter_map(NvStr::as_str) {
            list.remove(name);
        }
        let present: BTreeSet<String> = list.iter().map(|(n, _)| n.to_string()).collect();
        for name in features.difference(&present) {
            list.set_flag(name.as_str());
        }
        list
    }

    /// The nvlist it was read from.
    #[must_use]
    pub fn raw(&self) -> &NvList {
        &self.raw
    }
    /// Its life stage; `ACTIVE` if it does not say.
    #[must_use]
    pub fn pool_state(&self) -> PoolState {
        PoolState(self.state.unwrap_or_default())
    }
    /// When it was written; 0 if it does not say.
    #[must_use]
    pub fn written(&self) -> Txg {
        Txg(self.txg.unwrap_or_default())
    }

    /// The label of one leaf of a pool, from the pool's whole configuration (a root `vdev_tree`) as
    /// `spa_config_generate` makes it from a leaf. `None` if the leaf is not in the tree.
    #[must_use]
    pub fn label_for(&self, leaf: Guid, features: &BTreeSet<String>) -> Option<Self> {
        let root = self.vdev_tree.as_ref()?;
        let top = root.children.iter().find(|t| t.find(leaf).is_some())?;
        let holes = root.children.iter().enumerate().filter(|(_, t)| t.is_hole());
        let mut label = self.clone();
        label.raw = NvList::new();
        label.has_per_vdev_zaps = false;
        label.top_guid = Some(top.guid.0);
        label.guid = Some(leaf.0);
        label.is_log = top.holds_log().then_some(1);
        label.is_spare = top.find(leaf)?.is_spare.filter(|s| *s != 0);
        label.hole_array = holes.map(|(i, _)| i as u64).collect();
        label.vdev_children = Some(root.children.len() as u64);
        label.vdev_tree = Some(top.for_label());
        label.features_for_read = Some(features.clone());
        Some(label)
    }
}
