//! Dirty time logs: which txgs a device missed, so that it can be resilvered when it comes back
//! (`vdev_dtl_sync`, vdev.c).
//!
//! Invariants:
//! 1. Every txg committed while a leaf is absent or stale is in its log, in the same txg.
//! 2. A leaf that missed something is not written to until it was resilvered ([`Pool::online`], or by OpenZFS): it
//!    counts as absent.

use crate::error::Result;
use crate::io::Io;
use crate::metaslab::load;
use crate::pool::Pool;
use crate::range_tree::RangeTree;
use crate::space_map::{self, Encoding, Kind, PHYS_SIZE, Phys};
use icecore_dmu::{NewObject, Objset};
use icecore_dsl::Feature;
use icecore_format::{Guid, ObjectId, ObjectType};

/// Block size of a log (`zfs_vdev_dtl_sm_blksz`).
const BLOCK: u64 = 1 << 12;

impl Pool {
    /// Devices that are not written to, because they are absent or missed something before.
    #[must_use]
    pub fn missing(&self) -> &std::collections::BTreeSet<Guid> {
        &self.missing
    }

    /// Notes in the log of every missing leaf that it misses the open txg.
    pub(crate) fn sync_dtls(&mut self) -> Result<()> {
        let lost = std::mem::take(&mut self.io.lost);
        if !lost.is_empty() {
            // The labels of the others get ahead of its own: another sign that it is behind.
            self.config_dirty = true;
            self.missing.extend(lost.iter().copied());
        }
        for leaf in self.missing.clone() {
            let tree = self.config.vdev_tree.as_ref();
            let Some(config) = tree.and_then(|t| t.find(leaf)) else { continue };
            let object = match config.dtl.filter(|o| *o != 0) {
                Some(object) => ObjectId(object),
                None => self.new_dtl(leaf)?,
            };
            // What failed may have failed at the very end of the txg before.
            let first = self.io.txg.0.saturating_sub(u64::from(lost.contains(&leaf)));
            self.extend_dtl(object, first)?;
        }
        Ok(())
    }

    fn new_dtl(&mut self, leaf: Guid) -> Result<ObjectId> {
        let mut new = NewObject::plain(ObjectType::SPACE_MAP, BLOCK)
            .with_bonus(ObjectType::SPACE_MAP_HEADER, PHYS_SIZE as u16);
        new.indblkshift = 14;
        let object = self.dsl.mos.allocate(&self.io, &new)?;
        self.dsl.feature_incr(&mut self.io, Feature::SPACEMAP_HISTOGRAM)?;
        let tree = self.config.vdev_tree.as_mut();
        if let Some(config) = tree.and_then(|t| t.find_mut(leaf)) {
            config.dtl = Some(object.0);
        }
        self.config_dirty = true;
        Ok(object)
    }

    /// Rewrites a log with the txgs from `first` to the open one added: units are txgs, missed ones are
    /// «allocated».
    fn extend_dtl(&mut self, object: ObjectId, first: u64) -> Result<()> {
        let (mut missed, mut phys) = read(&self.dsl.mos, &self.io, object)?;
        missed.cover(first, self.io.txg.0.saturating_sub(first).saturating_add(1));
        let mos = &mut self.dsl.mos;
        mos.free_range(&mut self.io, object, 0, u64::MAX)?;
        let block = mos.dnode(&self.io, object)?.block_size();
        let how = Encoding { start: 0, shift: 0, block, two_words: false };
        let words = space_map::encode(&missed, Kind::Alloc, &how, 0, self.io.txg.0, 1);
        mos.write(&self.io, object, 0, &words)?;
        phys.set_object(object.0);
        phys.set_length(words.len() as u64);
        phys.set_alloc(i64::try_from(missed.space()).unwrap_or(i64::MAX));
        store(mos.edit(&self.io, object)?.bonus_mut(), &phys);
        Ok(())
    }
}

/// The txgs that a log names, and its head.
pub(crate) fn read(mos: &Objset, io: &Io, object: ObjectId) -> Result<(RangeTree, Phys)> {
    let mut missed = RangeTree::new();
    let phys = load::iterate(mos, io, object.0, 0, |e| {
        match e.kind {
            Kind::Alloc => missed.cover(e.offset, e.run),
            Kind::Free => missed.clip(e.offset, e.run),
        }
        Ok(())
    })?;
    Ok((missed, phys))
}

/// Copies a space map's head into the bonus of its object.
pub(crate) fn store(bonus: &mut [u8], phys: &Phys) {
    let len = bonus.len().min(phys.as_bytes().len());
    if let (Some(to), Some(from)) = (bonus.get_mut(..len), phys.as_bytes().get(..len)) {
        to.copy_from_slice(from);
    }
}
