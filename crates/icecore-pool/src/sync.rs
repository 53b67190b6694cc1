//! From the open txg to a MOS root: passes until nothing changes any more (`spa_sync`, spa.c).
//!
//! Writing the MOS allocates and frees blocks; that changes space maps, which lie in the MOS; so it is
//! written again. The passes converge because blocks of the MOS born in this txg are rewritten in place
//! where their size allows, and from pass 8 on they are not compressed, so their sizes stay.
//!
//! Invariants:
//! 1. When `run` returns, the space maps under the new root say exactly what is allocated under it.
//! 2. Nothing here is visible to a reader of the disk: the uberblock is `commit`'s business.

use crate::error::{PoolError, Result};
use crate::metaslab::sync::{Pass, sync_top};
use crate::pool::Pool;
use crate::space_map::PHYS_SIZE;
use icecore_dmu::{BlockWriter, Space, WriteError, zap};
use icecore_dsl::Feature;
use icecore_format::reader::put_u64_at;
use icecore_format::{Blkptr, ObjectId};
use std::collections::BTreeSet;

/// More passes than this cannot be: sizes are fixed from pass 8, two more settle the space maps.
const PASSES_MAX: u32 = 40;
/// Block size of the configuration object (`SPA_CONFIG_BLOCKSIZE`).
pub(crate) const CONFIG_BLOCK: usize = 16 << 10;

impl Pool {
    /// Whether a commit would write anything.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.config_dirty || !self.io.lost.is_empty() || self.dsl.is_dirty() || self.io.alloc.is_dirty()
    }

    /// Writes all that changed. The new root of the MOS; the space maps are part of it.
    pub(crate) fn sync_txg(&mut self) -> Result<Blkptr, PoolError> {
        self.dsl.sync_datasets(&mut self.io)?;
        self.io.pass = 1;
        if self.dsl.mos_features_changed {
            self.refresh_label_features()?;
        }
        self.flush_space_map_logs()?;
        loop {
            let number = self.io.pass;
            if number == 1 || !self.io.lost.is_empty() {
                self.sync_dtls()?;
                self.sync_config()?;
            }
            self.sync_space_maps(number)?;
            if !self.dsl.mos.is_dirty() && !self.io.alloc.is_dirty() {
                break;
            }
            if number >= PASSES_MAX {
                let why = format!("the sync of txg {} does not converge", self.io.txg);
                return Err(WriteError::Invalid(why).into());
            }
            self.sync_mos()?;
            self.io.pass += 1;
        }
        self.passes = self.io.pass;
        self.io.pass = 0;
        Ok(self.dsl.mos.root())
    }

    /// Writes the MOS once; its space is charged to `$MOS`, which dirties it again.
    fn sync_mos(&mut self) -> Result<()> {
        let delta = self.dsl.mos.sync(&mut self.io)?;
        let mut used = delta.born;
        for bp in &delta.killed {
            used.sub(Space::of(bp));
            self.io.free(bp)?;
        }
        if used != Space::default() {
            self.dsl.mos_diduse(&self.io, used)?;
        }
        Ok(())
    }

    fn sync_space_maps(&mut self, number: u32) -> Result<()> {
        let pass = Pass {
            txg: self.io.txg.0,
            number,
            two_words: self.dsl.feature_active(&self.io, Feature::SPACEMAP_V2)?,
            histogram: self.dsl.feature_enabled(&self.io, Feature::SPACEMAP_HISTOGRAM)?,
        };
        // The maps lie in the MOS, which is read through `io`: the trees step aside meanwhile.
        let mut alloc = std::mem::take(&mut self.io.alloc);
        let tops = alloc.tops.iter_mut().flatten();
        let made: Result<Vec<u64>, WriteError> =
            tops.map(|top| sync_top(top, &mut self.dsl.mos, &mut self.io, &pass)).collect();
        self.io.alloc = alloc;
        self.io.alloc.recount();
        let made = made?.into_iter().sum::<u64>();
        for _ in 0..made {
            self.dsl.feature_incr(&mut self.io, Feature::SPACEMAP_HISTOGRAM)?;
        }
        Ok(())
    }

    /// Destroys the pool's space map logs: this very pass writes what they hold into the metaslabs' maps.
    fn flush_space_map_logs(&mut self) -> Result<()> {
        let zap_obj = self.objects.log_spacemap_zap;
        if zap_obj == 0 {
            return Ok(());
        }
        for entry in zap::iter(&self.dsl.mos, &self.io, ObjectId(zap_obj))? {
            let Some(object) = entry.value.as_u64().map(ObjectId) else { continue };
            let counted = self.dsl.mos.bonus(&self.io, object)?.len() >= PHYS_SIZE;
            self.dsl.mos.free_object(&mut self.io, object)?;
            zap::remove(&mut self.dsl.mos, &mut self.io, ObjectId(zap_obj), &entry.name_str())?;
            if counted {
                self.dsl.feature_decr(&mut self.io, Feature::SPACEMAP_HISTOGRAM)?;
            }
        }
        Ok(())
    }

    /// Which active features the labels must list, because readers need them to read the MOS.
    pub(crate) fn refresh_label_features(&mut self) -> Result<()> {
        let all = self.dsl.features(&self.io)?;
        let active = all
            .into_iter()
            .filter(|(guid, count)| *count > 0 && Feature::by_guid(guid).is_some_and(|f| f.mos));
        let now: BTreeSet<String> = active.map(|(guid, _)| guid).collect();
        if now != self.label_features {
            self.label_features = now;
            self.config_dirty = true;
        }
        self.dsl.mos_features_changed = false;
        Ok(())
    }

    /// Stores the configuration in the MOS if it changed (`spa_sync_nvlist`): packed, padded to blocks, its
    /// length in the bonus.
    fn sync_config(&mut self) -> Result<()> {
        if !self.config_dirty {
            return Ok(());
        }
        self.config.txg = Some(self.io.txg.0);
        self.config.features_for_read = Some(self.label_features.clone());
        let mut packed = self.config.to_nvlist().encode_xdr();
        let size = packed.len() as u64;
        packed.resize(packed.len().next_multiple_of(CONFIG_BLOCK), 0);
        let object = ObjectId(self.objects.config);
        self.dsl.mos.write(&self.io, object, 0, &packed)?;
        let dn = self.dsl.mos.edit(&self.io, object)?;
        let _ = put_u64_at(dn.bonus_mut(), 0, size);
        Ok(())
    }
}
