//! Names of a ZAP a leaf at a time, for maps that may be larger than memory (directories of files).
//!
//! Invariant: every leaf must lie where the pointer table leads to it. A leaf says one prefix, so it is met once, and
//! a walk takes no longer than the leaves that are really on disk, whatever the table says.

use super::{FLAG_UINT64_KEY, Kind, ZapEntry, ZapValue, fat, kind_of, micro};
use crate::objset::Objset;
use crate::store::{BlockStore, ReadError};
use icecore_format::{Corrupt, Dnode, ObjectId};

/// A place in a ZAP between two leaves.
pub struct Cursor {
    obj: ObjectId,
    dn: Dnode,
    rest: Rest,
}

enum Rest {
    Done,
    Micro(Vec<u8>),
    Fat(Box<fat::Header>, u64),
}

impl Cursor {
    /// Before the first name of `obj`, whose head is `dn`.
    pub fn new(os: &Objset, io: &dyn BlockStore, obj: ObjectId, dn: Dnode) -> Result<Self, ReadError> {
        let rest = match kind_of(os, io, obj, &dn)? {
            Kind::Micro(block) => Rest::Micro(block),
            Kind::Fat(head) => Rest::Fat(Box::new(head), 0),
        };
        Ok(Self { obj, dn, rest })
    }

    /// The entries of the next leaf (of all of a micro ZAP), perhaps none; `None` after the last.
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
        let leaf = head.leaf_at(os, io, self.obj, &self.dn, blkid)?;
        let shift = head.table_shift;
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
