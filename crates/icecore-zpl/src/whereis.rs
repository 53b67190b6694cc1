//! From an object to a path that leads to it (`zfs_obj_to_path`, zfs_znode.c): for naming what is damaged or changed.
//!
//! Invariants:
//! 1. At most [`DEPTH_MAX`] directories are followed, in a loop.
//! 2. What [`Names`] keeps is bound by [`KEPT_MAX`]; a directory that alone has more is read through each time.

use crate::error::{Result, ZplError};
use crate::filesystem::Files;
use crate::znode::{FileKind, Znode};
use icecore_dmu::BlockStore;
use icecore_format::ObjectId;
use std::collections::BTreeMap;

/// Directories above each other that are followed; more is a knot.
const DEPTH_MAX: usize = 2048;
/// Bytes of names kept.
const KEPT_MAX: usize = 64 << 20;
/// Bytes that an entry costs beside its name, roughly.
const ENTRY_COST: usize = 64;

/// Names of objects in the directories met before, for those who ask for many paths of one file system.
#[derive(Default)]
pub(crate) struct Names {
    /// Of each directory the first name of each object; `None` of one that is too large.
    dirs: BTreeMap<ObjectId, Option<BTreeMap<ObjectId, Vec<u8>>>>,
    bytes: usize,
}

impl Files<'_> {
    /// The path of object `id` from the root, `/` first: the name it was made under or moved to. Of an extended
    /// attribute it is the file's, with `<xattrdir>` and the attribute behind it, as OpenZFS shows it.
    ///
    /// # Errors
    /// The object is no file, or damage hides a directory above it, or the directory does not know it any more
    /// (a file that was deleted while open).
    pub fn path_of(&self, io: &dyn BlockStore, id: ObjectId) -> Result<Vec<u8>> {
        let z = self.znode(io, id)?;
        self.path_with(io, &z, &mut |dir, id| self.name_in(io, dir, id))
    }

    /// The same for many.
    pub(crate) fn path_kept(&self, io: &dyn BlockStore, z: &Znode, names: &mut Names) -> Result<Vec<u8>> {
        self.path_with(io, z, &mut |dir, id| names.find(self, io, dir, id))
    }

    fn path_with(
        &self,
        io: &dyn BlockStore,
        z: &Znode,
        name_in: &mut dyn FnMut(&Znode, ObjectId) -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut at = z.clone();
        while at.id != self.root() && at.id != at.parent {
            if parts.len() > DEPTH_MAX {
                return Err(ZplError::corrupt("path", z.id, "directories without end"));
            }
            let parent = self.znode(io, at.parent)?;
            // The hidden directory of a file's extended attributes has no name of its own.
            let part = if at.flags.is_xattr() && at.kind == FileKind::Directory {
                b"<xattrdir>".to_vec()
            } else {
                name_in(&parent, at.id)?
            };
            parts.push(part);
            at = parent;
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Ok(path)
    }

    fn name_in(&self, io: &dyn BlockStore, dir: &Znode, id: ObjectId) -> Result<Vec<u8>> {
        let mut cursor = self.entries(io, dir)?;
        while let Some(entries) = cursor.next_batch(self, io)? {
            if let Some(found) = entries.into_iter().find(|e| e.object == id) {
                return Ok(found.name);
            }
        }
        Err(no_name(dir, id))
    }
}

impl Names {
    fn find(&mut self, fs: &Files<'_>, io: &dyn BlockStore, dir: &Znode, id: ObjectId) -> Result<Vec<u8>> {
        if !self.dirs.contains_key(&dir.id) {
            let (names, bytes) = Self::read(fs, io, dir)?;
            if self.bytes.saturating_add(bytes) > KEPT_MAX {
                self.dirs.clear();
                self.bytes = 0;
            }
            self.bytes = self.bytes.saturating_add(bytes);
            self.dirs.insert(dir.id, names);
        }
        match self.dirs.get(&dir.id) {
            Some(Some(names)) => names.get(&id).cloned().ok_or_else(|| no_name(dir, id)),
            _ => fs.name_in(io, dir, id),
        }
    }

    #[allow(clippy::type_complexity)] // the value of the map, and what it costs
    fn read(
        fs: &Files<'_>,
        io: &dyn BlockStore,
        dir: &Znode,
    ) -> Result<(Option<BTreeMap<ObjectId, Vec<u8>>>, usize)> {
        let mut names = BTreeMap::new();
        let mut bytes = ENTRY_COST;
        let mut cursor = fs.entries(io, dir)?;
        while let Some(entries) = cursor.next_batch(fs, io)? {
            for e in entries {
                bytes = bytes.saturating_add(e.name.len()).saturating_add(ENTRY_COST);
                names.entry(e.object).or_insert(e.name);
            }
            if bytes > KEPT_MAX {
                return Ok((None, ENTRY_COST));
            }
        }
        Ok((Some(names), bytes))
    }
}

fn no_name(dir: &Znode, id: ObjectId) -> ZplError {
    ZplError::NotFound(format!("object {id} in directory {}", dir.id))
}
