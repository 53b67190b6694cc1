//! The pool's own properties, as far as they are kept in the MOS (`spa_sync_props`, `spa_prop_get`, spa.c).

use crate::error::Result;
use crate::open::DIRECTORY;
use crate::pool::Pool;
use icecore_dmu::zap::{self, ZapValue};
use icecore_dsl::prop::is_user;
use icecore_dsl::{DatasetEvent, Feature};
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

/// The number of the dataset that the pool would boot from.
const BOOTFS: &str = "bootfs";

fn no_place() -> crate::PoolError {
    crate::PoolError::Invalid("the pool has no object for properties".into())
}

impl Pool {
    /// A number that tells this opening of the pool from all others (`spa_load_guid`, spa_misc.c).
    #[must_use]
    pub fn load_guid(&self) -> u64 {
        *self.load_guid.get_or_init(|| self.io.env.entropy.guid())
    }

    /// The number stored for a property, or `None`: then it has its default.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn property(&self, name: &str) -> Result<Option<u64>> {
        let Some(props) = self.props_object()? else {
            return Ok(None);
        };
        Ok(zap::lookup_u64(&self.dsl.mos, &self.io, props, name)?)
    }

    /// The ZAP of the pool's properties, where it has one.
    fn props_object(&self) -> Result<Option<ObjectId>> {
        Ok(self.dsl.directory_entry(&self.io, "pool_props")?.filter(|o| *o != 0).map(ObjectId))
    }

    /// Stores a number for a property; the caller knows what it may be.
    ///
    /// # Errors
    /// As any write; pools made here always have a place for properties, others may not yet.
    pub fn set_property(&mut self, name: &str, value: u64) -> Result<()> {
        let props = self.props_object()?.ok_or_else(no_place)?;
        zap::update(&mut self.dsl.mos, &mut self.io, props, name, &ZapValue::u64(value))?;
        Ok(())
    }

    /// What the pool would boot from is destroyed in this txg (`spa_prop_clear_bootfs`, spa.c).
    pub(crate) fn forget_bootfs(&mut self, events: &[DatasetEvent]) -> Result<()> {
        let gone = |o: &u64| {
            events.iter().any(|e| matches!(e, DatasetEvent::Destroyed { object, .. } if object == o))
        };
        match events.is_empty() {
            false if self.property(BOOTFS)?.filter(|o| *o != 0).is_some_and(|o| gone(&o)) => {
                self.set_property(BOOTFS, 0)
            }
            _ => Ok(()),
        }
    }

    /// The text of a user's property of the pool itself (`spa_prop_get`, spa.c).
    ///
    /// # Errors
    /// What cannot be read.
    pub fn user_property(&self, name: &str) -> Result<Option<String>> {
        let Some(props) = self.props_object()? else { return Ok(None) };
        let value = zap::lookup(&self.dsl.mos, &self.io, props, name)?;
        Ok(value.and_then(|v| v.as_str().map(str::to_string)))
    }

    /// The names of all of them, in the order in which they are stored.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn user_property_names(&self) -> Result<Vec<String>> {
        let Some(props) = self.props_object()? else { return Ok(Vec::new()) };
        let all = zap::iter(&self.dsl.mos, &self.io, props)?.into_iter();
        let user = all.filter(|e| e.value.as_str().is_some()).map(|e| e.name_str());
        Ok(user.filter(|name| is_user(name)).collect())
    }

    /// Sets a user's property, or takes it away where the text is empty (`spa_sync_props`, spa.c).
    ///
    /// # Errors
    /// As any write; a name that no user's property has.
    pub fn set_user_property(&mut self, name: &str, text: &str) -> Result<()> {
        let props = self.props_object()?.ok_or_else(no_place)?;
        if !is_user(name) {
            return Err(crate::PoolError::Invalid(format!("'{name}' is no user's property")));
        }
        let (mos, io) = (&mut self.dsl.mos, &mut self.io);
        if text.is_empty() {
            zap::remove(mos, io, props, name)?;
        } else {
            zap::update(mos, io, props, name, &ZapValue::string(text))?;
        }
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

    /// The txg up to which the last scrub that came to its end has read the pool, 0 if there was none
    /// (`spa_get_last_scrubbed_txg`, spa_misc.c).
    ///
    /// # Errors
    /// What cannot be read.
    pub fn last_scrubbed(&self) -> Result<u64> {
        Ok(self.dsl.directory_entry(&self.io, crate::scan::LAST_SCRUBBED)?.unwrap_or(0))
    }

    /// How fragmented the free space is, in percent; `None` where the pool keeps no histograms of it
    /// (`metaslab_class_fragmentation`, metaslab.c).
    ///
    /// # Errors
    /// What cannot be read.
    pub fn fragmentation(&self) -> Result<Option<u64>> {
        let kept = self.dsl.feature_enabled(&self.io, Feature::SPACEMAP_HISTOGRAM)?;
        Ok(self.io.alloc.fragmentation().filter(|_| kept))
    }

    /// Bytes that all dedup tables and their logs take (`ddt_get_ddt_dsize`, ddt_stats.c). The tables are named in the pool's
    /// directory, or, where there are logs, in a directory of each checksum (`DMU_POOL_DDT`, `DMU_POOL_DDT_DIR`, dmu.h).
    ///
    /// # Errors
    /// What cannot be read.
    pub fn dedup_table_size(&self) -> Result<u64> {
        let mut sum = 0_u64;
        for (name, object) in self.dedup_entries(DIRECTORY)? {
            if name.matches('-').count() > 1 {
                sum = sum.saturating_add(self.sectors_of(object)?);
                continue;
            }
            for (_, object) in self.dedup_entries(object)? {
                sum = sum.saturating_add(self.sectors_of(object)?);
            }
        }
        Ok(sum)
    }

    /// Entries for dedup tables, and for directories of them.
    fn dedup_entries(&self, directory: ObjectId) -> Result<Vec<(String, ObjectId)>> {
        let all = zap::iter(&self.dsl.mos, &self.io, directory)?.into_iter();
        let table = |e: zap::ZapEntry| Some((e.name_str(), ObjectId(e.value.as_u64()?)));
        Ok(all.filter_map(table).filter(|(n, _)| n.starts_with("DDT-") && n != "DDT-statistics").collect())
    }

    /// Bytes an object takes, in whole sectors (`dmu_object_info`).
    fn sectors_of(&self, object: ObjectId) -> Result<u64> {
        let used = self.dsl.mos.dnode(&self.io, object)?.used_bytes();
        Ok((used.saturating_add(256) >> 9) << 9)
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
