//! The pool's own properties, as far as they are kept in the MOS (`spa_sync_props`, `spa_prop_get`, spa.c).

use crate::error::Result;
use crate::pool::Pool;
use icecore_dmu::zap::{self, ZapValue};
use icecore_format::ObjectId;
use icecore_format::reader::u64_at;

/// Space that cloned blocks take and save, in bytes (`brt_get_used`, `brt_get_saved`, brt.c).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cloned {
    /// Allocated once for all who share it.
    pub used: u64,
    /// What copies would have taken in addition.
    pub saved: u64,
}

impl Pool {
    /// The number stored for a property, or `None`: then it has its default.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn property(&self, name: &str) -> Result<Option<u64>> {
        let Some(props) = self.dsl.directory_entry(&self.io, "pool_props")?.filter(|o| *o != 0) else {
            return Ok(None);
        };
        Ok(zap::lookup_u64(&self.dsl.mos, &self.io, ObjectId(props), name)?)
    }

    /// Stores a number for a property; the caller knows what it may be.
    ///
    /// # Errors
    /// As any write; pools made here always have a place for properties, others may not yet.
    pub fn set_property(&mut self, name: &str, value: u64) -> Result<()> {
        let Some(props) = self.dsl.directory_entry(&self.io, "pool_props")?.filter(|o| *o != 0) else {
            return Err(crate::PoolError::Invalid("the pool has no object for properties".into()));
        };
        zap::update(&mut self.dsl.mos, &mut self.io, ObjectId(props), name, &ZapValue::u64(value))?;
        Ok(())
    }

    /// Sets the administrator's remark, or takes it away. It is part of the configuration, so every label has it
    /// (`spa_sync_props`, spa.c).
    pub fn set_comment(&mut self, comment: Option<String>) {
        self.config.comment = comment;
        self.config_dirty = true;
    }

    /// What cloned blocks take and save, added up over the top-level vdevs (`brt_vdev_phys_t`, brt_impl.h).
    ///
    /// # Errors
    /// What cannot be read.
    pub fn cloned(&self) -> Result<Cloned> {
        let mut sum = Cloned::default();
        for top in self.io.vdevs().tops() {
            let name = format!("com.fudosecurity:brt:vdev:{}", top.id);
            if let Some(object) = self.dsl.directory_entry(&self.io, &name)? {
                let words = self.dsl.mos.bonus(&self.io, ObjectId(object))?;
                sum.used = sum.used.saturating_add(u64_at(&words, 40));
                sum.saved = sum.saved.saturating_add(u64_at(&words, 48));
            }
        }
        Ok(sum)
    }

    /// A hundred times what deduplicated blocks would take over what they take: the histograms of all tables
    /// (`ddt_histogram_t`, ddt.h), added up.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn dedup_ratio(&self) -> Result<u64> {
        const WORDS: usize = 8;
        let Some(object) = self.dsl.directory_entry(&self.io, "DDT-statistics")? else { return Ok(100) };
        let (mut taken, mut referenced) = (0_u64, 0_u64);
        for entry in zap::iter(&self.dsl.mos, &self.io, ObjectId(object))? {
            let ZapValue::U64(words) = entry.value else { continue };
            for bucket in words.chunks_exact(WORDS) {
                taken = taken.saturating_add(bucket[3]);
                referenced = referenced.saturating_add(bucket[7]);
            }
        }
        Ok(referenced.saturating_mul(100).checked_div(taken).unwrap_or(100))
    }
}
