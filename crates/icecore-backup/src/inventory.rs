//! What one side of a backup has: datasets below a root, their snapshots and bookmarks, by GUID.

use icecore_dmu::{BlockStore, Want, zap};
use icecore_dsl::{Dsl, DslError, Kind};
use icecore_format::ObjectId;
use icecore_format::objset::ObjsetType;
use icecore_stream::token::ResumeToken;

/// A snapshot or bookmark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Its name after `@` or `#`.
    pub name: String,
    /// What identifies it on every pool.
    pub guid: u64,
    /// The txg of its pool in which it was made: order within one dataset.
    pub createtxg: u64,
    /// Unix seconds.
    pub creation: u64,
    /// The IV set of an encrypted snapshot, 0 if unknown or none.
    pub ivset: u64,
}

impl Mark {
    /// A snapshot that is about to be taken: newer than all there are, its guid not known yet.
    #[must_use]
    pub fn pending(name: &str) -> Self {
        Self { name: name.into(), guid: 0, createtxg: u64::MAX, creation: u64::MAX, ivset: 0 }
    }
    /// Whether it is still to be taken.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.createtxg == u64::MAX
    }
}

/// Half a stream, as its resume token describes it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Partial {
    /// The token's text.
    pub token: String,
    /// The snapshot's name at the sender.
    pub to_name: String,
    /// The snapshot's guid; 0 if the token cannot be read.
    pub to: u64,
    /// Guid of what the stream builds on; 0 for a full stream.
    pub from: u64,
    /// A raw stream.
    pub raw: bool,
}

impl Partial {
    /// Reads the token; one that cannot be read matches no snapshot.
    #[must_use]
    pub fn of(token: String) -> Self {
        match ResumeToken::parse(&token) {
            Ok(t) => Self { token, to_name: t.toname, to: t.toguid, from: t.fromguid, raw: t.raw },
            Err(_) => Self { token, ..Self::default() },
        }
    }
}

/// One dataset.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dataset {
    /// Its path below the root of the tree: empty for the root itself, else `docs/letters`.
    pub path: String,
    /// Encrypted: its streams are raw.
    pub encrypted: bool,
    /// A volume.
    pub volume: bool,
    /// Snapshots, oldest first.
    pub snapshots: Vec<Mark>,
    /// Bookmarks, oldest first.
    pub bookmarks: Vec<Mark>,
    /// Changed since its newest snapshot.
    pub modified: bool,
    /// Half a stream was received.
    pub partial: Option<Partial>,
    /// Path of the dataset whose key unlocks it, below the root of the tree; `None` if it lies outside or
    /// the dataset is not encrypted.
    pub encryption_root: Option<String>,
    /// A file system without a single entry in its root directory, or a volume never written.
    pub empty: bool,
    /// Bytes referenced.
    pub referenced: u64,
}

/// A tree of datasets, parents before children.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree {
    /// Full name of its root.
    pub root: String,
    /// The datasets; empty if the root does not exist.
    pub datasets: Vec<Dataset>,
}

impl Tree {
    /// The dataset at `path`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Dataset> {
        self.datasets.iter().find(|d| d.path == path)
    }
    /// The full name of the dataset at `path`.
    #[must_use]
    pub fn full(&self, path: &str) -> String {
        if path.is_empty() { self.root.clone() } else { format!("{}/{path}", self.root) }
    }

    /// Whether any dataset of the tree has a snapshot of this name.
    #[must_use]
    pub fn has_snapshot(&self, name: &str) -> bool {
        self.datasets.iter().any(|d| d.snapshots.iter().any(|s| s.name == name))
    }
    /// The tree as it will be once a recursive snapshot called `name` is taken.
    #[must_use]
    pub fn with_snapshot(mut self, name: &str) -> Self {
        for dataset in &mut self.datasets {
            dataset.snapshots.push(Mark::pending(name));
        }
        self
    }

    /// Reads the tree under `root` from an open pool; an empty tree if there is no such dataset.
    pub fn read(dsl: &Dsl, io: &dyn BlockStore, root: &str) -> Result<Self, DslError> {
        let mut tree = Self { root: root.to_string(), datasets: Vec::new() };
        match dsl.lookup_head(io, root) {
            Ok(_) => tree.descend(dsl, io, root)?,
            Err(DslError::NotFound(_)) => {}
            Err(e) => return Err(e),
        }
        Ok(tree)
    }

    fn descend(&mut self, dsl: &Dsl, io: &dyn BlockStore, name: &str) -> Result<(), DslError> {
        let dataset = dataset(dsl, io, &self.root, name)?;
        self.datasets.push(dataset);
        for child in dsl.children(io, name)? {
            self.descend(dsl, io, &child)?;
        }
        Ok(())
    }
}

fn dataset(dsl: &Dsl, io: &dyn BlockStore, root: &str, name: &str) -> Result<Dataset, DslError> {
    let head = dsl.lookup_head(io, name)?;
    let ds = dsl.dataset(io, head.obj)?;
    let encrypted = dsl.is_encrypted(io, head)?;
    let below = |full: &str| full.strip_prefix(root).map(|p| p.trim_start_matches('/').to_string());
    let encryption_root = match dsl.encryption_root(io, head.dir)? {
        Some(dir) => below(&dsl.dir_name(io, dir)?),
        None => None,
    };
    let mut snapshots = Vec::new();
    for (snap, r) in dsl.snapshots(io, name)? {
        let s = dsl.dataset(io, r.obj)?;
        let ivset = dsl.ivset_guid(io, r.obj)?.unwrap_or(0);
        snapshots.push(Mark {
            name: snap,
            guid: s.guid,
            createtxg: s.creation_txg,
            creation: s.creation_time,
            ivset,
        });
    }
    let bookmarks = dsl.bookmarks(io, name)?.into_iter().map(|(mark, p)| Mark {
        name: mark,
        guid: p.guid,
        createtxg: p.creation_txg,
        creation: p.creation_time,
        ivset: p.ivset_guid,
    });
    Ok(Dataset {
        path: below(name).unwrap_or_default(),
        encrypted,
        volume: dsl.kind(io, head)? == Kind::Volume,
        bookmarks: bookmarks.collect(),
        modified: dsl.modified_since_snapshot(io, head)?,
        partial: dsl.resume_token(io, head)?.map(Partial::of),
        encryption_root,
        // Of what is half received the root directory may be missing still.
        empty: !encrypted && !ds.is_inconsistent() && is_empty(dsl, io, head.obj)?,
        referenced: ds.referenced_bytes,
        snapshots,
    })
}

/// Whether the root directory of a file system has no entry. Anything else counts as not empty.
fn is_empty(dsl: &Dsl, io: &dyn BlockStore, obj: u64) -> Result<bool, DslError> {
    let os = dsl.objset(io, obj, Want::Logical)?;
    if os.phys().kind() != ObjsetType::Zfs {
        return Ok(false);
    }
    match zap::lookup_u64(&os, io, ObjectId(1), "ROOT")? {
        Some(root) => Ok(zap::count(&os, io, ObjectId(root))? == 0),
        None => Ok(false),
    }
}
