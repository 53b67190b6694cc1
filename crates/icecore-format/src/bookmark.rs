//! Where in the block tree a block belongs (`zbookmark_phys`, zio.h).

use crate::ObjectId;
use std::fmt;

/// The logical address of a block: objset, object, level, block id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bookmark {
    /// The dataset object in the MOS, 0 for the MOS itself.
    pub objset: u64,
    /// The object; 0 for the metadnode.
    pub object: ObjectId,
    /// 0 for data; -1 for the objset block itself, -2 for an intent log block or spill as OpenZFS counts.
    pub level: i8,
    /// The index of the block among those of its level. [`Bookmark::SPILL`] for a spill block.
    pub blkid: u64,
}

impl Bookmark {
    /// The block id that stands for an object's spill block (`DMU_SPILL_BLKID`).
    pub const SPILL: u64 = u64::MAX - 1;
    /// The objset block of `objset`.
    #[must_use]
    pub fn root(objset: u64) -> Self {
        Self { objset, object: ObjectId(0), level: -1, blkid: 0 }
    }
}

impl fmt::Debug for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}, {}, {}, {}>", self.objset, self.object, self.level, self.blkid)
    }
}
impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "objset {} object {} level {} block {}", self.objset, self.object, self.level, self.blkid)
    }
}
