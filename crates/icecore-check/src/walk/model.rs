//! What has to be there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A file, by its path below the root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    Dir,
    /// Length and hash.
    File(u64, String),
    Link(String),
}

/// Of a volume: one file, [`IMAGE`].
pub(crate) type Tree = BTreeMap<String, Entry>;

/// What the model calls the contents of a volume.
pub(crate) const IMAGE: &str = "image";

/// What opens an encrypted dataset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub format: &'static str,
    /// Its file in the folder of keys.
    pub file: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Snap {
    pub name: String,
    /// The same in copies of it.
    pub guid: u64,
    /// Its own.
    pub id: u64,
    pub tree: Arc<Tree>,
    pub held: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Ds {
    pub volume: bool,
    pub tree: Tree,
    /// Oldest first.
    pub snaps: Vec<Snap>,
    /// With the id of what they mark.
    pub bookmarks: BTreeMap<String, u64>,
    /// The snapshot it is a clone of.
    pub origin: Option<u64>,
    pub key: Option<Key>,
    /// It was received raw: only raw increments go on it.
    pub raw: bool,
    /// It was received and not touched since: an increment goes on without -F.
    pub pristine: bool,
    /// It was received at all.
    pub received: bool,
    /// The key changed on the way here or there: an increment may not fit any more.
    pub estranged: bool,
    /// Properties set here.
    pub props: BTreeMap<&'static str, String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub sets: BTreeMap<String, Ds>,
    ids: u64,
}

pub(crate) fn pool_of(name: &str) -> &str {
    name.split(['/', '@', '#']).next().unwrap_or(name)
}

/// Whether `name` is `of` or below it.
pub(crate) fn within(name: &str, of: &str) -> bool {
    name.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Model {
    pub fn new(pools: &[&str]) -> Self {
        let root = |p: &&str| ((*p).to_string(), Ds::default());
        Self { sets: pools.iter().map(root).collect(), ids: 0 }
    }

    pub fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// The dataset and snapshot of an id.
    pub fn find(&self, id: u64) -> Option<(&str, &Snap)> {
        self.sets
            .iter()
            .find_map(|(name, ds)| ds.snaps.iter().find(|s| s.id == id).map(|s| (name.as_str(), s)))
    }

    /// Names of `of` and all below.
    pub fn subtree(&self, of: &str) -> Vec<String> {
        self.sets.keys().filter(|n| within(n, of)).cloned().collect()
    }

    /// Clones of a snapshot.
    pub fn clones(&self, id: u64) -> Vec<String> {
        self.sets.iter().filter(|(_, d)| d.origin == Some(id)).map(|(n, _)| n.clone()).collect()
    }

    /// Whether something outside of these datasets is a clone of their snapshots.
    pub fn cloned_outside(&self, names: &[String]) -> bool {
        let ids: BTreeSet<u64> = names
            .iter()
            .filter_map(|n| self.sets.get(n))
            .flat_map(|d| d.snaps.iter().map(|s| s.id))
            .collect();
        self.sets.iter().any(|(n, d)| !names.contains(n) && d.origin.is_some_and(|o| ids.contains(&o)))
    }

    /// Every name there has to be: datasets, snapshots, bookmarks.
    pub fn names(&self, pool: &str) -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        for (name, ds) in self.sets.iter().filter(|(n, _)| pool_of(n) == pool) {
            out.insert(name.clone());
            out.extend(ds.snaps.iter().map(|s| format!("{name}@{}", s.name)));
            out.extend(ds.bookmarks.keys().map(|b| format!("{name}#{b}")));
        }
        out
    }

    pub fn ds(&mut self, name: &str) -> &mut Ds {
        self.sets.entry(name.to_string()).or_default()
    }

    /// A snapshot of what a head is now.
    pub fn snapshot(&mut self, name: &str, snap: &str) {
        let (id, guid) = (self.id(), self.id());
        let ds = self.ds(name);
        let tree = Arc::new(ds.tree.clone());
        ds.snaps.push(Snap { name: snap.to_string(), guid, id, tree, held: false });
    }
}
