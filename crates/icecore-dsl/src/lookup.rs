//! From names to objects and back: the tree of directories, the snapshots of a dataset.
//!
//! Invariant: a damaged MOS cannot make these walks endless. Names have at most [`NESTING_MAX`] levels,
//! chains of snapshots must fall in creation txg.

use crate::Dsl;
use crate::bookmark::BookmarkPhys;
use crate::error::{DslError, Result};
use crate::name::{self, NESTING_MAX, Part};
use crate::phys::{Brief, Dataset};
use icecore_dmu::{BlockStore, Objset, Passing, Want, look_each, map_each};
use icecore_format::objset::{ObjsetPhys, ObjsetType};
use icecore_format::{Blkptr, Bookmark, Corrupt, Txg};

/// A head or snapshot, by object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DatasetRef {
    /// The dataset object in the MOS: the objset id.
    pub obj: u64,
    /// The directory object.
    pub dir: u64,
    /// Whether it is a snapshot.
    pub snapshot: bool,
}

/// What a name led to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// A head or snapshot.
    Dataset(DatasetRef),
    /// A bookmark of a head.
    Bookmark {
        /// The head it belongs to.
        head: DatasetRef,
        /// Its name after `#`.
        name: String,
        /// What it remembers.
        phys: BookmarkPhys,
    },
}

/// What kind of thing a dataset is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A file system.
    Filesystem,
    /// A volume.
    Volume,
    /// A snapshot of a file system.
    Snapshot,
    /// A snapshot of a volume.
    VolumeSnapshot,
    /// A bookmark.
    Bookmark,
}

/// A dataset that was looked up: nothing of this need be read again.
#[derive(Clone, Debug)]
pub struct Known {
    /// Where it is.
    pub r: DatasetRef,
    /// What it is.
    pub kind: Kind,
    /// What its object says, if it was read.
    pub brief: Option<Brief>,
}

impl Kind {
    /// As the property `type` says it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Filesystem => "filesystem",
            Self::Volume => "volume",
            Self::Snapshot | Self::VolumeSnapshot => "snapshot",
            Self::Bookmark => "bookmark",
        }
    }
}

impl Dsl {
    /// What `name` leads to; [`DslError::NotFound`] if nothing.
    pub fn lookup(&self, io: &dyn BlockStore, name: &str) -> Result<Found> {
        let (path, part) = name::split(name)?;
        let head = self.lookup_head(io, path)?;
        match part {
            Part::Head => Ok(Found::Dataset(head)),
            Part::Snapshot(snap) => {
                let ds = self.dataset(io, head.obj)?;
                match self.zap_u64(io, ds.snapnames_zapobj, snap)? {
                    Some(obj) => Ok(Found::Dataset(DatasetRef { obj, dir: head.dir, snapshot: true })),
                    None => Err(DslError::NotFound(name.into())),
                }
            }
            Part::Bookmark(mark) => match self.bookmark(io, head, mark)? {
                Some(phys) => Ok(Found::Bookmark { head, name: mark.into(), phys }),
                None => Err(DslError::NotFound(name.into())),
            },
        }
    }

    /// The head or snapshot `name`; a bookmark is an error.
    pub fn lookup_dataset(&self, io: &dyn BlockStore, name: &str) -> Result<DatasetRef> {
        match self.lookup(io, name)? {
            Found::Dataset(d) => Ok(d),
            Found::Bookmark { .. } => Err(DslError::Invalid(format!("{name} is a bookmark"))),
        }
    }

    /// The snapshot `name`.
    pub fn lookup_snapshot(&self, io: &dyn BlockStore, name: &str) -> Result<DatasetRef> {
        match self.lookup_dataset(io, name)? {
            d if d.snapshot => Ok(d),
            _ => Err(DslError::Invalid(format!("{name} is not a snapshot"))),
        }
    }

    /// The head of the directory `path` (without `@` or `#`).
    pub fn lookup_head(&self, io: &dyn BlockStore, path: &str) -> Result<DatasetRef> {
        self.head_in(io, self.lookup_dir(io, path)?)?.ok_or_else(|| DslError::NotFound(path.into()))
    }

    /// The head of the directory object `dir`, if it has one.
    pub fn head_in(&self, io: &dyn BlockStore, dir: u64) -> Result<Option<DatasetRef>> {
        let obj = self.dir(io, dir)?.head_dataset_obj;
        Ok((obj != 0).then_some(DatasetRef { obj, dir, snapshot: false }))
    }

    /// The directory object of `path`.
    pub fn lookup_dir(&self, io: &dyn BlockStore, path: &str) -> Result<u64> {
        let mut parts = path.split('/');
        if parts.next() != Some(self.info.name.as_str()) {
            return Err(DslError::NotFound(path.into()));
        }
        let mut obj = self.root_dir;
        for part in parts {
            let dd = self.dir(io, obj)?;
            obj = self
                .zap_u64(io, dd.child_dir_zapobj, part)?
                .ok_or_else(|| DslError::NotFound(path.into()))?;
        }
        Ok(obj)
    }

    /// The full name of a directory.
    pub fn dir_name(&self, io: &dyn BlockStore, dir: u64) -> Result<String> {
        let mut parts: Vec<String> = Vec::new();
        let mut obj = dir;
        while obj != self.root_dir {
            if parts.len() > NESTING_MAX {
                return Err(Corrupt::new("DSL directory", format!("{dir} is nested without end")).into());
            }
            let parent = self.dir(io, obj)?.parent_obj;
            if parent == 0 {
                return Err(Corrupt::new("DSL directory", format!("{dir} does not reach the root")).into());
            }
            let children = self.zap_list_u64(io, self.dir(io, parent)?.child_dir_zapobj)?;
            let own = children.into_iter().find(|(_, o)| *o == obj).map(|(n, _)| n);
            parts.push(
                own.ok_or_else(|| Corrupt::new("DSL directory", format!("{parent} does not name {obj}")))?,
            );
            obj = parent;
        }
        parts.push(self.info.name.clone());
        parts.reverse();
        Ok(parts.join("/"))
    }

    /// The full name of a head or snapshot.
    pub fn name(&self, io: &dyn BlockStore, r: DatasetRef) -> Result<String> {
        let dir = self.dir_name(io, r.dir)?;
        if !r.snapshot {
            return Ok(dir);
        }
        Ok(format!("{dir}@{}", self.snapshot_name(io, r)?))
    }

    /// The name after `@`.
    pub fn snapshot_name(&self, io: &dyn BlockStore, r: DatasetRef) -> Result<String> {
        let head = self.dir(io, r.dir)?.head_dataset_obj;
        let names = self.zap_list_u64(io, self.dataset(io, head)?.snapnames_zapobj)?;
        names
            .into_iter()
            .find(|(_, o)| *o == r.obj)
            .map(|(n, _)| n)
            .ok_or_else(|| Corrupt::new("DSL dataset", format!("snapshot {} has no name", r.obj)).into())
    }

    /// A dataset by its object.
    pub fn by_object(&self, io: &dyn BlockStore, obj: u64) -> Result<DatasetRef> {
        let ds = self.dataset(io, obj)?;
        Ok(DatasetRef { obj, dir: ds.dir_obj, snapshot: ds.is_snapshot() })
    }

    /// Child datasets of `path` in the order of names, without OpenZFS's own (`$MOS`, `%recv`, …).
    pub fn children(&self, io: &dyn BlockStore, path: &str) -> Result<Vec<String>> {
        let dir = self.lookup_dir(io, path)?;
        Ok(self.children_of(io, dir)?.into_iter().map(|(name, _)| format!("{path}/{name}")).collect())
    }

    /// The same of the directory object `dir`: the last part of their names, and their directory objects.
    pub fn children_of(&self, io: &dyn BlockStore, dir: u64) -> Result<Vec<(String, u64)>> {
        let mut all = self.zap_list_u64(io, self.dir(io, dir)?.child_dir_zapobj)?;
        all.retain(|(name, _)| !name.starts_with(['$', '%']));
        Ok(all)
    }

    /// `path` and everything below it, parents before children, each level in the order of names.
    pub fn descendants(&self, io: &dyn BlockStore, path: &str) -> Result<Vec<String>> {
        let mut out = vec![path.to_string()];
        if path.matches('/').count() > NESTING_MAX {
            return Ok(out);
        }
        for child in self.children(io, path)? {
            out.extend(self.descendants(io, &child)?);
        }
        Ok(out)
    }

    /// Snapshots of the head `path`, oldest first: name after `@`, and where.
    pub fn snapshots(&self, io: &dyn BlockStore, path: &str) -> Result<Vec<(String, DatasetRef)>> {
        let head = self.lookup_head(io, path)?;
        self.snapshots_of(io, head)
    }

    pub(crate) fn snapshots_of(
        &self,
        io: &dyn BlockStore,
        head: DatasetRef,
    ) -> Result<Vec<(String, DatasetRef)>> {
        let all =
            self.snapshots_known(io, &[(head, Kind::Snapshot)]).next().unwrap_or_else(|| Ok(Vec::new()));
        Ok(all?.into_iter().map(|(name, known)| (name, known.r)).collect())
    }

    /// [`Dsl::snapshots`] of each of `heads`, in their order, with what their objects say, which has to be read for the order
    /// of snapshots. The heads come with the kind that their snapshots have.
    pub fn snapshots_known(
        &self,
        io: &dyn BlockStore,
        heads: &[(DatasetRef, Kind)],
    ) -> impl Iterator<Item = Result<Vec<(String, Known)>>> {
        let objs: Vec<u64> = heads.iter().map(|(head, _)| head.obj).collect();
        let zaps: Vec<Result<u64>> = self.datasets(io, &objs, |ds| ds.snapnames_zapobj).collect();
        let names: Vec<Result<Vec<(String, u64)>>> = map_each(io, zaps.len(), |i| match &zaps[i] {
            Ok(zap) => self.zap_list_u64(&Passing(io), *zap),
            Err(e) => Err(e.clone()),
        });
        // Snapshots of many datasets lie mixed, as they were made: their blocks are read once for all of them.
        let objs: Vec<u64> = names.iter().flatten().flatten().map(|(_, obj)| *obj).collect();
        let mut read = self.datasets(io, &objs, |ds| Brief::of(&ds));
        names.into_iter().zip(heads).map(move |(names, (head, kind))| {
            let names = names?;
            // Each takes its own, also where one cannot be read.
            let own: Vec<_> = read.by_ref().take(names.len()).collect();
            let mut all = Vec::with_capacity(names.len());
            for ((name, obj), brief) in names.into_iter().zip(own) {
                let r = DatasetRef { obj, dir: head.dir, snapshot: true };
                let brief = brief?;
                all.push((brief.creation_txg, name, Known { r, kind: *kind, brief: Some(brief) }));
            }
            all.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
            Ok(all.into_iter().map(|(_, name, known)| (name, known)).collect())
        })
    }

    /// The snapshot of `path` with this guid, or of the snapshots it was cloned from.
    pub fn snapshot_by_guid(&self, io: &dyn BlockStore, path: &str, guid: u64) -> Result<Option<DatasetRef>> {
        let head = self.lookup_head(io, path)?;
        let mut txg = u64::MAX;
        let mut obj = self.dataset(io, head.obj)?.prev_snap_obj;
        while obj != 0 {
            let snap = self.dataset(io, obj)?;
            if snap.creation_txg >= txg {
                return Err(Corrupt::new(
                    "DSL dataset",
                    format!("snapshot {obj} is not older than its next"),
                )
                .into());
            }
            if snap.guid == guid {
                return Ok(Some(DatasetRef { obj, dir: snap.dir_obj, snapshot: true }));
            }
            txg = snap.creation_txg;
            obj = snap.prev_snap_obj;
        }
        Ok(None)
    }

    /// Any dataset or snapshot below `path` with this guid.
    pub fn find_guid(&self, io: &dyn BlockStore, path: &str, guid: u64) -> Result<Option<String>> {
        for name in self.descendants(io, path)? {
            let head = self.lookup_head(io, &name)?;
            if self.dataset(io, head.obj)?.guid == guid {
                return Ok(Some(name));
            }
            for (snap, r) in self.snapshots_of(io, head)? {
                if self.dataset(io, r.obj)?.guid == guid {
                    return Ok(Some(format!("{name}@{snap}")));
                }
            }
        }
        Ok(None)
    }

    /// Whether `earlier` lies in the past of `later`: an older snapshot of it, of its origin, and so on
    /// (`dsl_dataset_is_before`). `txg` replaces `earlier`'s own creation txg (bookmarks).
    pub fn is_before(&self, io: &dyn BlockStore, later: u64, earlier: u64, txg: Option<u64>) -> Result<bool> {
        let e = self.dataset(io, earlier)?;
        let at = txg.unwrap_or(e.creation_txg);
        let mut l = self.dataset(io, later)?;
        let mut last = u64::MAX;
        loop {
            if l.is_snapshot() && at >= l.creation_txg {
                return Ok(false);
            }
            if l.dir_obj == e.dir_obj {
                return Ok(true);
            }
            let dd = self.dir(io, l.dir_obj)?;
            if dd.origin_obj == 0 {
                return Ok(false);
            }
            l = self.dataset(io, dd.origin_obj)?;
            // The origin itself: as a snapshot, or as a bookmark that was made of it.
            if l.creation_txg == at && l.dir_obj == e.dir_obj {
                return Ok(true);
            }
            if l.creation_txg >= last {
                return Ok(false);
            }
            last = l.creation_txg;
        }
    }

    /// Whether a directory was cloned from a snapshot other than the pool's origin.
    #[must_use]
    pub fn is_clone(&self, dd: &crate::Dir) -> bool {
        dd.origin_obj != 0 && dd.origin_obj != self.origin_snap
    }

    /// Creation txg of the snapshot a clone started from, 0 otherwise (`dd_origin_txg`).
    pub(crate) fn origin_txg(&self, io: &dyn BlockStore, dd: &crate::Dir) -> Result<u64> {
        if self.is_clone(dd) { Ok(self.dataset(io, dd.origin_obj)?.creation_txg) } else { Ok(0) }
    }

    /// Whether a head was changed since the snapshot before it (`dsl_dataset_modified_since_snap`: a root
    /// block born later does not yet mean so; only what differs from the snapshot's pointer does).
    pub fn modified_since_snapshot(&self, io: &dyn BlockStore, head: DatasetRef) -> Result<bool> {
        let ds = self.dataset(io, head.obj)?;
        if ds.prev_snap_obj == 0 {
            return Ok(false);
        }
        let birth = ds.bp.alloc_birth();
        if birth <= Txg(ds.prev_snap_txg) {
            return Ok(false);
        }
        let snap = self.dataset(io, ds.prev_snap_obj)?;
        if ds.bp.is_hole() || snap.bp.is_hole() {
            return Ok(ds.bp.is_hole() != snap.bp.is_hole());
        }
        // The root may have been rewritten for its intent log header or accounting alone: what counts is
        // the metadnode.
        let now = Objset::open(io, head.obj, &ds.bp, Want::NoKey)?;
        let then = Objset::open(io, ds.prev_snap_obj, &snap.bp, Want::NoKey)?;
        Ok(now.meta().as_bytes() != then.meta().as_bytes())
    }

    /// The kinds of heads, in their order, from their objsets, which are read together.
    pub fn kinds(&self, io: &dyn BlockStore, heads: &[DatasetRef]) -> Vec<Result<Kind>> {
        let objs: Vec<u64> = heads.iter().map(|head| head.obj).collect();
        let all: Vec<Result<Blkptr>> = self.datasets(io, &objs, |ds| ds.bp).collect();
        let root = |(head, bp): (&DatasetRef, &Result<Blkptr>)| {
            let bp = *bp.as_ref().ok()?;
            (!bp.is_hole()).then(|| (bp, Bookmark::root(head.obj)))
        };
        let roots: Vec<(Blkptr, Bookmark)> = heads.iter().zip(&all).filter_map(root).collect();
        let types = look_each(io, &roots, Want::NoKey, |block| Ok(ObjsetPhys::parse(block?)?.kind()));
        let mut types = types.into_iter();
        let kind = |bp: Result<Blkptr>| {
            let kind: Option<Result<ObjsetType>> = if bp?.is_hole() { None } else { types.next() };
            Ok(match kind.transpose()? {
                Some(ObjsetType::Zvol) => Kind::Volume,
                _ => Kind::Filesystem,
            })
        };
        all.into_iter().map(kind).collect()
    }

    /// Filesystem, volume or snapshot, from the objset itself.
    pub fn kind(&self, io: &dyn BlockStore, r: DatasetRef) -> Result<Kind> {
        let ds = self.dataset(io, r.obj)?;
        let vol = !ds.bp.is_hole() && {
            let os = Objset::open(io, r.obj, &ds.bp, Want::NoKey)?;
            os.phys().kind() == ObjsetType::Zvol
        };
        Ok(match (r.snapshot, vol) {
            (false, false) => Kind::Filesystem,
            (false, true) => Kind::Volume,
            (true, false) => Kind::Snapshot,
            (true, true) => Kind::VolumeSnapshot,
        })
    }

    /// Per-dataset features active in `obj`.
    pub fn dataset_features(&self, io: &dyn BlockStore, obj: u64) -> Result<Vec<crate::Feature>> {
        let mut out = Vec::new();
        if self.is_zapified(io, obj)? {
            for f in crate::Feature::per_dataset() {
                if self.zap_get(io, obj, f.guid)?.is_some() {
                    out.push(f);
                }
            }
        }
        Ok(out)
    }

    /// Whether `f` is active in dataset `obj`.
    pub fn dataset_feature_active(&self, io: &dyn BlockStore, obj: u64, f: crate::Feature) -> Result<bool> {
        Ok(self.field(io, obj, f.guid)?.is_some())
    }

    /// A fresh read-only view of a dataset's objset. With [`Want::Logical`] the key of an encrypted one
    /// must be loaded.
    pub fn objset(&self, io: &dyn BlockStore, obj: u64, want: Want) -> Result<Objset> {
        let ds: Dataset = self.dataset(io, obj)?;
        if ds.bp.is_hole() {
            return Err(DslError::Invalid(format!("dataset {obj} is empty")));
        }
        Ok(Objset::open(io, obj, &ds.bp, want)?)
    }
}
