//! `POOL/FS[@SNAP][:PATH]`: a file in a dataset or snapshot.
//!
//! Names of datasets may have colons too: the text before the first colon that names a dataset is the dataset.

use crate::fail::{Fail, Outcome};
use crate::keys::{Ask, How, unlock};
use crate::session::{self, For, Open};
use icecore_pool::Io;
use icecore_zpl::{Dataset, Filesystem, Follow, Resolved, Volume};
use std::collections::BTreeMap;

/// Pools opened by this command, by name.
#[derive(Default)]
pub struct Pools {
    open: BTreeMap<String, Open>,
}

/// A place as typed, found.
pub struct Place {
    /// The pool's name.
    pub pool: String,
    /// The dataset or snapshot.
    pub dataset: String,
    /// What is in it.
    pub content: Dataset,
    /// The path in it; empty for its root.
    pub path: String,
    /// As typed.
    pub typed: String,
}

impl Pools {
    /// Finds the dataset, asks for its key if need be, and opens it.
    pub fn place(&mut self, typed: &str) -> Outcome<Place> {
        let mut splits: Vec<(&str, &str)> =
            typed.match_indices(':').map(|(at, _)| (&typed[..at], &typed[at + 1..])).collect();
        splits.push((typed, ""));
        let mut first_error = None;
        for (dataset, path) in splits {
            let name = session::pool_of(dataset);
            if name.is_empty() {
                continue;
            }
            if !self.open.contains_key(name) {
                match session::open(dataset, For::Read) {
                    Ok(pool) => {
                        self.open.insert(name.to_string(), pool);
                    }
                    Err(e) => {
                        first_error.get_or_insert(e);
                        continue;
                    }
                }
            }
            let Some(pool) = self.open.get_mut(name) else { continue };
            if let Err(e) = pool.dsl.lookup_dataset(pool.io(), dataset) {
                first_error.get_or_insert(crate::zfs::cannot("open", dataset, &e));
                continue;
            }
            unlock(pool, dataset, How { location: None, ask: Ask::Input, ..How::default() })
                .map_err(|f| Fail { message: format!("cannot open '{dataset}': {}", f.message), ..f })?;
            let content = icecore_zpl::open(pool.io(), &pool.dsl, dataset)
                .map_err(|e| Fail::new(format!("cannot open '{dataset}': {e}")))?;
            return Ok(Place {
                pool: name.into(),
                dataset: dataset.into(),
                content,
                path: path.into(),
                typed: typed.into(),
            });
        }
        Err(first_error
            .unwrap_or_else(|| Fail::new(format!("cannot open '{typed}': not the name of a dataset"))))
    }

    /// What the place's blocks are read from.
    pub fn io(&self, place: &Place) -> Outcome<&Io> {
        let pool = self.open.get(&place.pool);
        pool.map(|p| p.io()).ok_or_else(|| Fail::new(format!("pool '{}' is not open", place.pool)))
    }
}

impl Place {
    /// The file system; a volume has no files.
    pub fn filesystem(&self) -> Outcome<&Filesystem> {
        match &self.content {
            Dataset::Filesystem(fs) => Ok(fs),
            Dataset::Volume(_) => Err(Fail::new(format!("'{}' is a volume: it has no files", self.dataset))),
        }
    }
    /// The volume, if it is one.
    pub fn volume(&self) -> Outcome<Option<&Volume>> {
        match &self.content {
            Dataset::Volume(_) if !self.path.is_empty() => {
                Err(Fail::new(format!("'{}' is a volume: it has no files", self.dataset)))
            }
            Dataset::Volume(volume) => Ok(Some(volume)),
            Dataset::Filesystem(_) => Ok(None),
        }
    }
    /// The file at the path.
    pub fn resolve(&self, io: &Io, follow: Follow) -> Outcome<Resolved> {
        let found = self.filesystem()?.resolve(io, self.path.as_bytes(), follow);
        found.map_err(|e| Fail::new(e.to_string()))
    }
    /// What stands before paths below this one, so that they can be typed again.
    pub fn prefix(&self) -> String {
        match (self.typed.len() == self.dataset.len(), self.path.is_empty() || self.path.ends_with('/')) {
            (true, _) => format!("{}:", self.typed),
            (false, true) => self.typed.clone(),
            (false, false) => format!("{}/", self.typed),
        }
    }
}

/// Says what went wrong with one of several things, and goes on.
pub fn complain(command: &str, what: &str, why: &dyn std::fmt::Display) {
    eprintln!("icecore {command}: {}: {why}", super::out::escaped(what.as_bytes()));
}
