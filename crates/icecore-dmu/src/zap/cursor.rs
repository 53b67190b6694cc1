//! Names of a ZAP a leaf at a time, for maps that may be larger than memory (directories of files).
//!
//! Invariants:
//! 1. Every leaf must lie where the pointer table leads to it. A leaf says one prefix, so it is met once, and a walk
//!    takes no longer than the leaves that are really on disk, whatever the table says.
//! 2. A leaf that cannot be read is one error; the next call goes on behind it, [`FAILURES_MAX`] times at most.

use super::{FLAG_UINT64_KEY, Kind, ZapEntry, ZapValue, fat, kind_of, micro};
use crate::objset::Objset;
use crate::store::{BlockStore, ReadError};
use icecore_format::{Corrupt, Dnode, ObjectId};
use std::sync::Arc;

/// Bad leaves gone past in one ZAP; after more it has ended.
pub const FAILURES_MAX: u32 = 1024;

/// A place in a ZAP between two leaves.
pub struct Cursor {
    obj: ObjectId,
    dn: Dnode,
    rest: Rest,
    failures: u32,
}

enum Rest {
    Done,
    Micro(Arc<[u8]>),
    Fat(Box<fat::Header>, u64),
}

impl Cursor {
    /// Before the first name of `obj`, whose head is `dn`.
    pub fn new(os: &Objset, io: &dyn BlockStore, obj: ObjectId, dn: Dnode) -> Result<Self, ReadError> {
        let rest = match kind_of(os, io, obj, &dn)? {
            Kind::Micro(block) => Rest::Micro(block),
            Kind::Fat(head) => Rest::Fat(Box::new(head), 0),
        };
        Ok(Self { obj, dn, rest, failures: 0 })
    }

    /// The entries of the next leaf (of all of a micro ZAP), perhaps none; `None` after the last. After an error the next
    /// call goes on with the leaf behind the bad one.
    pub fn next_leaf(
        &mut self,
        os: &Objset,
        io: &dyn BlockStore,
    ) -> Result<Option<Vec<ZapEntry>>, ReadError> {
        match std::mem::replace(&mut self.rest, Rest::Done) {
            Rest::Done => Ok(None),
            Rest::Micro(block) => {
                let entry =
                    |e: micro::Entry<'_>| ZapEntry { name: e.name.to_vec(), value: ZapValue::u64(e.value) };
                Ok(Some(micro::entries(&block).map(entry).collect()))
            }
            Rest::Fat(head, index) => self.fat_leaf(os, io, head, index).map(Some),
        }
    }

    fn fat_leaf(
        &mut self,
        os: &Objset,
        io: &dyn BlockStore,
        head: Box<fat::Header>,
        index: u64,
    ) -> Result<Vec<ZapEntry>, ReadError> {
        let blkid = head.pointer(os, io, self.obj, index)?;
        let shift = head.table_shift;
        let leaf = match head.leaf_at(os, io, self.obj, &self.dn, blkid) {
            Ok(leaf) => leaf,
            Err(error) => {
                self.failures += 1;
                let mut others = (index + 1)..1 << shift;
                let other = |i: &u64| head.pointer(os, io, self.obj, *i).map_or(true, |p| p != blkid);
                if let Some(next) = others.find(other).filter(|_| self.failures < FAILURES_MAX) {
                    self.rest = Rest::Fat(head, next);
                }
                return Err(error);
            }
        };
        let below = shift.checked_sub(u64::from(leaf.prefix_len));
        let Some(below) = below.filter(|below| leaf.prefix == index >> below) else {
            let why = format!(
                "object {} block {blkid}: prefix {:#x} of {} bits at entry {index} of {shift} bits",
                self.obj, leaf.prefix, leaf.prefix_len
            );
            return Err(Corrupt::new("ZAP leaf", why).into());
        };
        let next = index + (1 << below);
        let text = head.flags & FLAG_UINT64_KEY == 0;
        if next < 1 << shift {
            self.rest = Rest::Fat(head, next);
        }
        let entries = leaf.entries.into_iter().map(|mut e| {
            if text && e.name.last() == Some(&0) {
                e.name.pop();
            }
            ZapEntry { name: e.name, value: e.value }
        });
        Ok(entries.collect())
    }
}
