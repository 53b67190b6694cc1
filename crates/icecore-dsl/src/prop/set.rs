//! Setting, inheriting and receiving properties (`dsl_prop_set_sync_impl`, dsl_prop.c;
//! `zfs_prop_set_special`, zfs_ioctl.c).

use super::Value;
use super::parse::{self, Subject};
use super::table::{self, Prop};
use crate::Dsl;
use crate::error::{DslError, Result};
use crate::lookup::{DatasetRef, Kind};
use crate::phys::{DS_FLAG_UNIQUE_ACCURATE, Used};
use icecore_dmu::{BlockWriter, Space};
use icecore_format::units::{MAX_BLOCK, OLD_MAX_BLOCK};

/// How a value is set (`zprop_source_t`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetSource {
    /// By the user.
    Local,
    /// By a stream.
    Received,
}

impl Dsl {
    /// Sets `prop` of `name` to the text a user typed.
    pub fn prop_set(&mut self, io: &mut dyn BlockWriter, name: &str, prop: &str, text: &str) -> Result<()> {
        let r = self.lookup_dataset(io, name)?;
        let mut value = self.prop_parse(io, r, prop, text)?;
        if prop == "keylocation" {
            self.keylocation_check(io, r)?;
        }
        if let Some(f) = parse::needs(prop, &value)
            && !self.feature_enabled(io, f)?
        {
            let why = "pool and or dataset must be upgraded to set this property or value";
            return Err(DslError::Unsupported(why.into()));
        }
        if value == Value::Number(parse::AUTO) && prop == "refreservation" {
            let (size, block) = self.volume_size(io, r)?;
            value = Value::Number(crate::volume::reservation(size, block, 1));
        }
        if prop == "volsize" {
            self.volume_reserve(io, r, value.number())?;
        }
        self.prop_set_raw(io, r, prop, &value, SetSource::Local)
    }

    /// The stored form of a typed value, checked against the table.
    pub fn prop_parse(
        &self,
        io: &dyn icecore_dmu::BlockStore,
        r: DatasetRef,
        prop: &str,
        text: &str,
    ) -> Result<Value> {
        let kind = self.kind(io, r)?;
        let mask = match kind {
            Kind::Filesystem => table::FS,
            Kind::Volume => table::VOL,
            _ => table::SNAP,
        };
        let sized = kind == Kind::Volume && prop == "volsize";
        let subject = Subject {
            mask,
            snapshot: r.snapshot,
            encrypted: Some(self.is_encrypted(io, r)?),
            volblocksize: if sized { self.volume_size(io, r)?.1 } else { 0 },
            max_block: self.max_block(io)?,
        };
        parse::parse(&subject, prop, text)
    }

    /// The largest block that the pool's features allow, in bytes (`spa_maxblocksize`, spa_misc.c).
    pub(crate) fn max_block(&self, io: &dyn icecore_dmu::BlockStore) -> Result<u64> {
        Ok(if self.feature_enabled(io, crate::Feature::LARGE_BLOCKS)? { MAX_BLOCK } else { OLD_MAX_BLOCK })
    }

    fn keylocation_check(&self, io: &dyn icecore_dmu::BlockStore, r: DatasetRef) -> Result<()> {
        match self.encryption_root(io, r.dir)? {
            Some(root) if root != r.dir => {
                Err(DslError::Invalid("keylocation may only be set on encryption roots".into()))
            }
            _ => Ok(()),
        }
    }

    /// Sets a value in its stored form. Quotas and reservations take effect.
    pub fn prop_set_raw(
        &mut self,
        io: &mut dyn BlockWriter,
        r: DatasetRef,
        prop: &str,
        value: &Value,
        source: SetSource,
    ) -> Result<()> {
        if !r.snapshot && self.prop_special(io, r, prop, value, source)? {
            return Ok(());
        }
        self.stale_policies = true;
        let zap = self.prop_zap_for_write(io, r)?;
        match source {
            SetSource::Local => {
                self.zap_del(io, zap, &format!("{prop}$inherit"))?;
                self.prop_put_local(io, zap, prop, value)
            }
            SetSource::Received => self.zap_put(io, zap, &format!("{prop}$recvd"), &value.to_zap()),
        }
    }

    /// Values that older software does not know go beside a default it does (`dsl_prop_set_iuv`).
    fn prop_put_local(
        &mut self,
        io: &mut dyn BlockWriter,
        zap: u64,
        prop: &str,
        value: &Value,
    ) -> Result<()> {
        let newer = matches!(
            (prop, value),
            ("redundant_metadata", Value::Number(2 | 3)) | ("snapdir", Value::Number(2))
        );
        let iuv = format!("{prop}$iuv");
        if newer {
            self.zap_put(io, zap, &iuv, &value.to_zap())?;
            let default = table::find(prop).map_or(0, Prop::default_number);
            return self.zap_put_u64(io, zap, prop, default);
        }
        self.zap_del(io, zap, &iuv)?;
        self.zap_put(io, zap, prop, &value.to_zap())
    }

    fn prop_zap_for_write(&mut self, io: &mut dyn BlockWriter, r: DatasetRef) -> Result<u64> {
        if !r.snapshot {
            return Ok(self.dir(io, r.dir)?.props_zapobj);
        }
        let mut ds = self.dataset(io, r.obj)?;
        if ds.props_obj == 0 {
            ds.props_obj = self.zap_new(io, icecore_format::ObjectType::DSL_PROPS)?;
            self.put_dataset(io, r.obj, &ds)?;
        }
        Ok(ds.props_obj)
    }

    /// Back to what is inherited or default (`zfs inherit`), or with `to_received` to what was received
    /// (`zfs inherit -S`).
    pub fn prop_inherit(
        &mut self,
        io: &mut dyn BlockWriter,
        r: DatasetRef,
        prop: &str,
        to_received: bool,
    ) -> Result<()> {
        let zap = self.props_zap(io, r)?;
        if zap == 0 {
            return Ok(());
        }
        if !r.snapshot && ["quota", "reservation", "refreservation", "refquota"].contains(&prop) {
            let received = match (to_received, self.zap_get(io, zap, &format!("{prop}$recvd"))?) {
                (true, Some(v)) => Value::from_zap(prop, &v)?,
                _ => Value::Number(0),
            };
            self.prop_special(io, r, prop, &received, SetSource::Local)?;
        }
        self.stale_policies = true;
        self.zap_del(io, zap, prop)?;
        self.zap_del(io, zap, &format!("{prop}$iuv"))?;
        if to_received {
            self.zap_del(io, zap, &format!("{prop}$inherit"))?;
        } else if self.has_received_props(io, r.dir)? {
            self.zap_put_u64(io, zap, &format!("{prop}$inherit"), 0)?;
        }
        self.prop_zap_tidy(io, r, zap)
    }

    /// Removes every trace of a property: local, received, explicit inheritance.
    pub fn prop_clear(
        &mut self,
        io: &mut dyn BlockWriter,
        r: DatasetRef,
        prop: &str,
        received_only: bool,
    ) -> Result<()> {
        let zap = self.props_zap(io, r)?;
        if zap == 0 {
            return Ok(());
        }
        if !received_only {
            self.zap_del(io, zap, prop)?;
            self.zap_del(io, zap, &format!("{prop}$inherit"))?;
            self.zap_del(io, zap, &format!("{prop}$iuv"))?;
        }
        self.zap_del(io, zap, &format!("{prop}$recvd"))?;
        self.prop_zap_tidy(io, r, zap)
    }

    fn prop_zap_tidy(&mut self, io: &mut dyn BlockWriter, r: DatasetRef, zap: u64) -> Result<()> {
        if r.snapshot && self.zap_count(io, zap)? == 0 {
            let mut ds = self.dataset(io, r.obj)?;
            ds.props_obj = 0;
            self.put_dataset(io, r.obj, &ds)?;
            self.free_obj(io, zap)?;
        }
        Ok(())
    }

    /// Notes that properties were received (`dsl_prop_set_hasrecvd`).
    pub fn set_has_received_props(&mut self, io: &mut dyn BlockWriter, dir: u64) -> Result<()> {
        let zap = self.dir(io, dir)?.props_zapobj;
        if self.zap_get(io, zap, "$hasrecvd")?.is_none() {
            self.zap_put_u64(io, zap, "$hasrecvd", 0)?;
        }
        Ok(())
    }

    /// Properties with an effect beyond their entry. True if the entry is not wanted either.
    fn prop_special(
        &mut self,
        io: &mut dyn BlockWriter,
        r: DatasetRef,
        prop: &str,
        value: &Value,
        source: SetSource,
    ) -> Result<bool> {
        let n = value.number();
        // A local value hides a received one: then only the entry is stored.
        if source == SetSource::Received {
            let zap = self.dir(io, r.dir)?.props_zapobj;
            if self.zap_get(io, zap, prop)?.is_some() {
                return Ok(false);
            }
        }
        match prop {
            "quota" => {
                let mut dd = self.dir(io, r.dir)?;
                if n != 0 && (n < dd.reserved || n < dd.used_bytes) {
                    return Err(DslError::NoSpace);
                }
                dd.quota = n;
                self.put_dir(io, r.dir, &dd)?;
                Ok(false)
            }
            "reservation" => {
                self.set_reservation(io, r.dir, n)?;
                Ok(false)
            }
            "refreservation" => {
                self.set_refreservation(io, r, n)?;
                Ok(false)
            }
            "refquota" => {
                let ds = self.dataset(io, r.obj)?;
                let reserved = self.prop_number(io, r, "refreservation")?;
                if n != 0 && (n < ds.referenced_bytes || n < reserved) {
                    return Err(DslError::NoSpace);
                }
                Ok(false)
            }
            "filesystem_limit" | "snapshot_limit" if n != u64::MAX => {
                self.limit_activate(io, r.dir)?;
                Ok(false)
            }
            // The version stands in the file system itself.
            "version" if source == SetSource::Local => match n {
                crate::zpl::ZPL_VERSION => Ok(true),
                _ => Err(DslError::Invalid(format!(
                    "Can not downgrade; already at version {}",
                    crate::zpl::ZPL_VERSION
                ))),
            },
            // A received size is what the stream's own objects say already.
            "volsize" if source == SetSource::Local => {
                self.volume_resize(io, r, n)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// `dsl_dir_set_reservation_check`, `dsl_dir_set_reservation_sync_impl`: the parent is charged with the part
    /// not used yet, and must have it.
    pub(crate) fn set_reservation(&mut self, io: &mut dyn BlockWriter, dir: u64, value: u64) -> Result<()> {
        let mut dd = self.dir(io, dir)?;
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let delta = signed(dd.used_bytes.max(value)) - signed(dd.used_bytes.max(dd.reserved));
        let left = match dd.parent_obj {
            0 => self.info.usable.saturating_sub(dd.used_bytes),
            parent => self.dir_available(io, parent)?,
        };
        if delta > 0 && (u64::try_from(delta).unwrap_or(0) > left || (dd.quota > 0 && value > dd.quota)) {
            return Err(DslError::NoSpace);
        }
        dd.reserved = value;
        self.put_dir(io, dir, &dd)?;
        if dd.parent_obj != 0 {
            let space = Space { used: delta, ..Space::default() };
            self.diduse(io, dd.parent_obj, Used::ChildRsrv, space)?;
        }
        Ok(())
    }

    /// `dsl_dataset_set_refreservation_check`, `dsl_dataset_set_refreservation_sync_impl`.
    pub(crate) fn set_refreservation(
        &mut self,
        io: &mut dyn BlockWriter,
        head: DatasetRef,
        value: u64,
    ) -> Result<()> {
        let old = self.prop_number(io, head, "refreservation")?;
        let ds = self.dataset(io, head.obj)?;
        let unique = if ds.flags & DS_FLAG_UNIQUE_ACCURATE != 0 { ds.unique_bytes } else { 0 };
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let delta = signed(value.saturating_sub(unique)) - signed(old.saturating_sub(unique));
        if delta > 0 {
            let quota = self.prop_number(io, head, "refquota")?;
            let more = u64::try_from(delta).unwrap_or(0);
            if more > self.dir_available(io, head.dir)? || (quota > 0 && value > quota) {
                return Err(DslError::NoSpace);
            }
        }
        self.diduse(io, head.dir, Used::RefRsrv, Space { used: delta, ..Space::default() })
    }
}
