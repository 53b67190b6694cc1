//! The datasets of a mount: the one at the top, snapshots that were entered, children of a tree.
//!
//! Invariants:
//! 1. A view keeps its number while the mount lives, so a number never changes its meaning.
//! 2. [`Views::open`] answers for the txg the pool is at: a file system whose root pointer has moved is opened anew, a
//!    dataset that is gone or whose object is another's by now is `NotFound`.
//! 3. At most [`OPEN_MAX`] file systems are open.

use crate::ino::{Node, VIEWS_MAX, ViewId};
use crate::live::Live;
use icecore_dsl::{DatasetRef, DslError, Kind};
use icecore_format::{Blkptr, ObjectId};
use icecore_pool::Pool;
use icecore_zpl::{Dataset, Files, Filesystem, Result, ZplError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// File systems kept open.
const OPEN_MAX: usize = 64;

/// Whether `.zfs` is shown (property `snapdir`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Snapdir {
    /// There, but not listed.
    Hidden,
    /// Listed.
    Visible,
    /// Not there: a snapshot, or `disabled`.
    Absent,
}

/// What is known of an open file system besides its files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Tells this opening from all others of the mount.
    pub id: u64,
    /// The dataset.
    pub dataset: DatasetRef,
    /// Property `acltype` is `posix`.
    pub posix_acl: bool,
    /// `.zfs`.
    pub snapdir: Snapdir,
    /// Nothing in it can ever change.
    pub frozen: bool,
}

/// A file system that is open, as of a txg.
pub(crate) struct Open {
    /// The files.
    pub fs: Filesystem,
    /// The rest.
    pub facts: Facts,
    root: Blkptr,
}

/// What a request has at hand.
pub(crate) struct Cx<'a> {
    /// The pool.
    pub pool: &'a Pool,
    /// The datasets of the mount.
    pub views: &'a Views,
    /// The dataset at the top, if that is open for change.
    pub live: Option<&'a Live>,
}

enum Held<'a> {
    Kept(Arc<Open>),
    Live(Box<Files<'a>>),
}

/// A dataset of a mount, as it is now.
pub(crate) struct At<'a> {
    held: Held<'a>,
    /// What is known of it.
    pub facts: Facts,
}

impl At<'_> {
    /// Its files.
    pub fn fs(&self) -> &Files<'_> {
        match &self.held {
            Held::Kept(open) => &open.fs,
            Held::Live(files) => files,
        }
    }
    /// The opening to go on with, of what cannot change under it.
    pub fn kept(&self) -> Option<&Arc<Open>> {
        match &self.held {
            Held::Kept(open) => Some(open),
            Held::Live(_) => None,
        }
    }
}

impl<'a> Cx<'a> {
    /// The dataset of a view.
    pub fn at(&self, view: ViewId) -> Result<At<'a>> {
        match self.live {
            Some(live) if view == 0 => {
                let os = self.pool.dsl.peek(live.facts.dataset.obj);
                let os = os.ok_or_else(|| ZplError::NotFound("its dataset".into()))?;
                Ok(At { held: Held::Live(Box::new(live.writer.files(os))), facts: live.facts })
            }
            _ => {
                let open = self.views.open(self.pool, view)?;
                Ok(At { facts: open.facts, held: Held::Kept(open) })
            }
        }
    }
    /// View, object and dataset of a number; directories on no disk have none.
    pub fn place(&self, node: Node) -> Result<Option<(ViewId, ObjectId, At<'a>)>> {
        Ok(match node {
            Node::Top => {
                let at = self.at(0)?;
                Some((0, at.fs().root(), at))
            }
            Node::Object(view, id) => Some((view, id, self.at(view)?)),
            Node::Control(_) | Node::Snapshots(_) => None,
        })
    }
}

struct View {
    object: u64,
    guid: u64,
    /// The view it was entered from.
    above: ViewId,
    open: Option<(Arc<Open>, u64)>,
    used: u64,
}

struct Table {
    views: BTreeMap<ViewId, View>,
    clock: u64,
    opened: u64,
}

/// The table.
pub(crate) struct Views {
    tree: bool,
    table: Mutex<Table>,
}

impl Views {
    /// A mount with dataset `object` of the pool at its top; with `tree` its children show below.
    pub fn new(pool: &Pool, object: u64, tree: bool) -> Result<Self> {
        let table = Table { views: BTreeMap::new(), clock: 0, opened: 0 };
        let own = Self { tree, table: Mutex::new(table) };
        own.enter(pool, 0, object)?;
        own.open(pool, 0)?;
        Ok(own)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held; were it so, the table would still be whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the view of dataset `object`, given now if it has none: as near as can be to the object's own
    /// number, so that it is likely the same the next time.
    fn enter(&self, pool: &Pool, above: ViewId, object: u64) -> Result<ViewId> {
        let guid = pool.dsl.dataset(pool.io(), object)?.guid;
        let mut table = self.table();
        if let Some((id, _)) = table.views.iter().find(|(_, v)| v.object == object && v.guid == guid) {
            return Ok(*id);
        }
        let first = if table.views.is_empty() { 0 } else { (object % u64::from(VIEWS_MAX)) as ViewId + 1 };
        let free = (0..VIEWS_MAX).map(|i| 1 + (first.wrapping_sub(1).wrapping_add(i)) % VIEWS_MAX);
        let id = match first {
            0 => Some(0),
            _ => free.into_iter().find(|id| !table.views.contains_key(id)),
        };
        let id = id.ok_or_else(|| ZplError::TooLarge("more snapshots than a mount can show".into()))?;
        table.views.insert(id, View { object, guid, above, open: None, used: 0 });
        Ok(id)
    }

    /// The view of dataset `object`, if that is not at the top and was ever entered.
    pub fn entered(&self, object: u64) -> Option<ViewId> {
        self.table().views.iter().find(|(id, v)| **id != 0 && v.object == object).map(|(id, _)| *id)
    }

    /// The view this one was entered from; of the top itself.
    pub fn above(&self, view: ViewId) -> ViewId {
        self.table().views.get(&view).map_or(0, |v| v.above)
    }

    /// The dataset of a view, if it is still the same.
    pub fn dataset(&self, pool: &Pool, view: ViewId) -> Result<DatasetRef> {
        let gone = || ZplError::NotFound("its dataset".into());
        let (object, guid) = self.table().views.get(&view).map(|v| (v.object, v.guid)).ok_or_else(gone)?;
        if pool.dsl.dataset(pool.io(), object)?.guid != guid {
            return Err(gone());
        }
        Ok(pool.dsl.by_object(pool.io(), object)?)
    }

    /// The file system of a view, as the pool has it now.
    pub fn open(&self, pool: &Pool, view: ViewId) -> Result<Arc<Open>> {
        let gone = || ZplError::NotFound("its dataset".into());
        let txg = pool.synced().0;
        let (object, guid, old) = {
            let mut table = self.table();
            table.clock += 1;
            let now = table.clock;
            let v = table.views.get_mut(&view).ok_or_else(gone)?;
            v.used = now;
            match &v.open {
                Some((open, seen)) if *seen == txg => return Ok(open.clone()),
                old => (v.object, v.guid, old.as_ref().map(|(open, _)| open.clone())),
            }
        };
        let (io, dsl) = (pool.io(), &pool.dsl);
        let ds = dsl.dataset(io, object)?;
        if ds.guid != guid {
            return Err(gone());
        }
        let open = match old.filter(|o| o.root == ds.bp) {
            Some(open) => open,
            None => {
                let dataset = dsl.by_object(io, object)?;
                let Dataset::Filesystem(fs) = icecore_zpl::open_object(io, dsl, object)? else {
                    return Err(ZplError::Unsupported("a volume has no files".into()));
                };
                let id = {
                    let mut table = self.table();
                    table.opened += 1;
                    table.opened
                };
                Arc::new(opened(pool, dataset, *fs, id, ds.bp)?)
            }
        };
        let mut table = self.table();
        if let Some(v) = table.views.get_mut(&view) {
            v.open = Some((open.clone(), txg));
        }
        table.close_some();
        Ok(open)
    }

    /// The root directory of a view.
    pub fn root(&self, pool: &Pool, view: ViewId) -> Result<Node> {
        Ok(match view {
            0 => Node::Top,
            _ => Node::Object(view, self.open(pool, view)?.fs.root()),
        })
    }

    /// Children of a view's dataset that show in a tree, by their last name.
    pub fn children(&self, pool: &Pool, facts: &Facts) -> Result<Vec<String>> {
        if !self.tree || facts.dataset.snapshot {
            return Ok(Vec::new());
        }
        let (io, dsl) = (pool.io(), &pool.dsl);
        let path = dsl.name(io, facts.dataset)?;
        let mut out = Vec::new();
        for name in dsl.children(io, &path)? {
            let last = name.rsplit('/').next().unwrap_or(&name).to_string();
            if mounted_below(pool, &path, &last)?.is_some() {
                out.push(last);
            }
        }
        Ok(out)
    }

    /// The root directory of child `name` of a view's dataset, if it shows.
    pub fn child(&self, pool: &Pool, view: ViewId, facts: &Facts, name: &[u8]) -> Result<Option<Node>> {
        let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
        if !self.tree || facts.dataset.snapshot {
            return Ok(None);
        }
        let path = pool.dsl.name(pool.io(), facts.dataset)?;
        match mounted_below(pool, &path, name)? {
            Some(object) => {
                let id = self.enter(pool, view, object)?;
                self.root(pool, id).map(Some)
            }
            None => Ok(None),
        }
    }

    /// The root directory of snapshot `name` of a view's dataset.
    pub fn snapshot(&self, pool: &Pool, view: ViewId, name: &str) -> Result<Node> {
        let (io, dsl) = (pool.io(), &pool.dsl);
        let path = dsl.name(io, self.dataset(pool, view)?)?;
        let found = dsl.lookup_snapshot(io, &format!("{path}@{name}")).map_err(|e| match e {
            // Of the name that was asked for, not of the dataset.
            DslError::NotFound(_) | DslError::Name(_) => ZplError::NotFound(name.into()),
            e => e.into(),
        })?;
        let id = self.enter(pool, view, found.obj)?;
        self.root(pool, id)
    }

    /// Names of the snapshots of a view's dataset.
    pub fn snapshots(&self, pool: &Pool, view: ViewId) -> Result<Vec<String>> {
        let (io, dsl) = (pool.io(), &pool.dsl);
        let path = dsl.name(io, self.dataset(pool, view)?)?;
        Ok(dsl.snapshots(io, &path)?.into_iter().map(|(name, _)| name).collect())
    }
}

impl Table {
    /// Lets the file systems go that were not used for longest.
    fn close_some(&mut self) {
        while self.views.values().filter(|v| v.open.is_some()).count() > OPEN_MAX {
            let oldest = self.views.values_mut().filter(|v| v.open.is_some()).min_by_key(|v| v.used);
            if let Some(v) = oldest {
                v.open = None;
            }
        }
    }
}

/// The dataset `path`/`last`, if `zfs mount -a` would mount it on `last` in the root of `path`. What is locked stays
/// out as it does there: the directory below shows.
fn mounted_below(pool: &Pool, path: &str, last: &str) -> Result<Option<u64>> {
    let (io, dsl) = (pool.io(), &pool.dsl);
    let name = format!("{path}/{last}");
    let r = match dsl.lookup_head(io, &name) {
        Ok(r) => r,
        Err(DslError::NotFound(_) | DslError::Name(_)) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    if dsl.kind(io, r)? != Kind::Filesystem || !dsl.key_loaded(io, r.dir)? {
        return Ok(None);
    }
    let value = |name: &str, prop: &str| -> Result<String> {
        Ok(dsl.prop(io, name, prop)?.map(|row| row.value).unwrap_or_default())
    };
    let here = value(path, "mountpoint")?;
    let inside =
        value(&name, "mountpoint")?.strip_prefix(here.trim_end_matches('/')) == Some(&format!("/{last}"));
    Ok((inside && value(&name, "canmount")? == "on").then_some(r.obj))
}

fn opened(pool: &Pool, dataset: DatasetRef, fs: Filesystem, id: u64, root: Blkptr) -> Result<Open, DslError> {
    let mut facts = facts(pool, dataset)?;
    facts.id = id;
    Ok(Open { fs, facts, root })
}

/// What the properties say of a dataset.
pub(crate) fn facts(pool: &Pool, dataset: DatasetRef) -> Result<Facts, DslError> {
    let (io, dsl) = (pool.io(), &pool.dsl);
    let posix = icecore_dsl::prop::table::find("acltype").and_then(|p| p.index("posix"));
    let posix_acl = Some(dsl.prop_number(io, dataset, "acltype")?) == posix;
    let snapdir = match dataset.snapshot {
        true => Snapdir::Absent,
        false => match dsl.prop_number(io, dataset, "snapdir")? {
            0 => Snapdir::Hidden,
            1 => Snapdir::Visible,
            _ => Snapdir::Absent,
        },
    };
    Ok(Facts { id: 0, dataset, posix_acl, snapdir, frozen: dataset.snapshot || !pool.writable() })
}
