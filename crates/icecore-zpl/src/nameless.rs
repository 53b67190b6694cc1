//! Files of which damage has taken the names: the directory cannot be read, in parts or at all, but their own attributes
//! tell what directory they were made in or moved to (`ZPL_PARENT`). They are shown as `#NUMBER`, their object.
//!
//! Invariants:
//! 1. A file is nameless only if nothing of the directory that can be read leads to it.
//! 2. All objects are read for it, once for a file system that is not being changed, and only after damage was met: what
//!    is kept are two numbers a file.

use crate::dir::DirEntry;
use crate::filesystem::Files;
use crate::znode::Znode;
use icecore_dmu::BlockStore;
use icecore_format::ObjectId;
use icecore_format::dnode::SLOTS_PER_BLOCK;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Files by the directory they say they are in.
pub(crate) type ByParent = BTreeMap<ObjectId, Vec<ObjectId>>;

/// Objects whose attributes are read at once.
const BATCH: usize = 1024;
/// Blocks of dnodes that cannot be read which are gone past.
const FAILURES_MAX: u32 = 1 << 20;

/// Whether it is a name that nameless files are shown by.
pub(crate) fn is_number(name: &[u8]) -> bool {
    name.strip_prefix(b"#").is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit))
}

impl Files<'_> {
    /// The files that belong into directory `dir` and that nothing readable of it names.
    #[must_use]
    pub fn nameless(&self, io: &dyn BlockStore, dir: ObjectId) -> Vec<DirEntry> {
        let all = self.by_parent(io);
        let Some(children) = all.get(&dir) else { return Vec::new() };
        let named = self.named(io, dir);
        let lost = children.iter().filter(|id| !named.contains(id));
        lost.map(|id| DirEntry { name: format!("#{id}").into_bytes(), object: *id, kind: None }).collect()
    }

    /// What the readable part of a directory leads to.
    fn named(&self, io: &dyn BlockStore, dir: ObjectId) -> BTreeSet<ObjectId> {
        let mut named = BTreeSet::new();
        let Ok(mut cursor) = self.znode(io, dir).and_then(|z| self.entries(io, &z)) else { return named };
        loop {
            match cursor.next_leaf(self, io) {
                Ok(Some(entries)) => named.extend(entries.into_iter().map(|e| e.object)),
                Ok(None) => return named,
                Err(e) if e.is_damage() => {}
                Err(_) => return named,
            }
        }
    }

    fn by_parent(&self, io: &dyn BlockStore) -> Arc<ByParent> {
        if self.objset().is_dirty() {
            return Arc::new(self.scan(io));
        }
        self.parents().get_or_init(|| Arc::new(self.scan(io))).clone()
    }

    fn scan(&self, io: &dyn BlockStore) -> ByParent {
        let mut found = ByParent::new();
        let mut batch = Vec::with_capacity(BATCH);
        let (mut after, mut failures) = (ObjectId(0), 0);
        loop {
            match self.objset().next_object(io, after) {
                Ok(Some(id)) => {
                    after = id;
                    batch.push(id);
                }
                Ok(None) => break,
                // Past the block of dnodes that cannot be read.
                Err(_) if failures < FAILURES_MAX => {
                    failures += 1;
                    after = ObjectId((after.0 + 1) / SLOTS_PER_BLOCK * SLOTS_PER_BLOCK + SLOTS_PER_BLOCK - 1);
                    if after.0 >= icecore_format::dnode::MAX_OBJECT {
                        break;
                    }
                }
                Err(_) => break,
            }
            if batch.len() == BATCH {
                self.sort_in(io, &mut batch, &mut found);
            }
        }
        self.sort_in(io, &mut batch, &mut found);
        found
    }

    fn sort_in(&self, io: &dyn BlockStore, batch: &mut Vec<ObjectId>, found: &mut ByParent) {
        let is_child = |z: &Znode| z.links > 0 && z.id != z.parent && !z.flags.is_xattr();
        for z in self.znodes(io, batch).into_iter().flatten().filter(is_child) {
            found.entry(z.parent).or_default().push(z.id);
        }
        batch.clear();
    }
}
