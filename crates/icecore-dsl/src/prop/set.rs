//! Setting, inheriting and receiving properties (`dsl_prop_set_sync_impl`, dsl_prop.c;
//! `zfs_prop_set_special`, zfs_ioctl.c).

use super::table::{self, Attr, Prop, Type};
use super::{Value, is_user};
use crate::Dsl;
use crate::error::{DslError, Result};
use crate::lookup::{DatasetRef, Kind};
use crate::phys::{DS_FLAG_UNIQUE_ACCURATE, Used};
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockWriter, Space};
use icecore_format::ObjectId;
use icecore_format::units::{MAX_BLOCK, MIN_BLOCK};

/// Longest value (`ZAP_MAXVALUELEN`).
const VALUE_LEN_MAX: usize = 8192;
/// Longest name of a property.
const PROP_NAME_LEN_MAX: usize = 256;

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
        let value = self.prop_parse(io, r, prop, text)?;
        if prop == "keylocation" {
            self.keylocation_check(io, r, text)?;
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
        parse_for(mask, r.snapshot, prop, text)
    }

    fn keylocation_check(&self, io: &dyn icecore_dmu::BlockStore, r: DatasetRef, text: &str) -> Result<()> {
        match self.encryption_root(io, r.dir)? {
            None if text == "none" => Ok(()),
            None => Err(DslError::Invalid("keylocation can only be 'none' for unencrypted datasets".into())),
            Some(root) if root != r.dir => {
                Err(DslError::Invalid("keylocation can only be set on the encryption root".into()))
            }
            Some(_) if text == "prompt" || text.starts_with("file:///") => Ok(()),
            Some(_) => Err(DslError::Invalid(format!("invalid keylocation '{text}'"))),
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
        if !r.snapshot && ["quota", "reservation", "refreservation"].contains(&prop) {
            self.prop_special(io, r, prop, &Value::Number(0), SetSource::Local)?;
        }
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
            // A received size is what the stream's own objects say already.
            "volsize" if source == SetSource::Local => {
                self.require_key(io, r)?;
                let os = self.open_dataset(io, r.obj)?;
                zap::update(os, io, ObjectId(2), "size", &ZapValue::u64(n))?;
                Ok(false)
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

/// The stored form of a property of a file system that is being made.
pub fn parse_new(prop: &str, text: &str) -> Result<Value> {
    parse_for(table::FS, false, prop, text)
}

/// [`parse_new`] for a volume.
pub fn parse_new_volume(prop: &str, text: &str) -> Result<Value> {
    parse_for(table::VOL, false, prop, text)
}

fn parse_for(mask: u8, snapshot: bool, prop: &str, text: &str) -> Result<Value> {
    let bad = |why: String| Err(DslError::Invalid(why));
    if text.len() >= VALUE_LEN_MAX || prop.len() >= PROP_NAME_LEN_MAX {
        return bad(format!("property '{prop}' or its value is too long"));
    }
    if is_user(prop) {
        return Ok(Value::Text(text.into()));
    }
    let Some(p) = table::find(prop) else {
        return bad(format!("invalid property '{prop}'"));
    };
    if p.readonly() {
        return bad(format!("'{prop}' is readonly"));
    }
    if p.types & mask == 0 || snapshot {
        return bad(format!("'{prop}' does not apply to datasets of this type"));
    }
    parse_value(p, text)
}

fn parse_value(p: &Prop, text: &str) -> Result<Value> {
    let bad = || Err(DslError::Invalid(format!("'{}' cannot be '{text}'", p.name)));
    match p.kind {
        Type::Text(_) => Ok(Value::Text(text.into())),
        Type::Index(..) => match p.index(text) {
            Some(n) => Ok(Value::Number(n)),
            None => bad(),
        },
        Type::Bytes(_) | Type::Count(_) => {
            let n = match text {
                "none" if p.attr == Attr::Default => p.default_number(),
                _ => match parse_size(text) {
                    Some(n) => n,
                    None => return bad(),
                },
            };
            if p.name == "recordsize" && !(n.is_power_of_two() && (MIN_BLOCK..=MAX_BLOCK).contains(&n)) {
                return bad();
            }
            Ok(Value::Number(n))
        }
    }
}

/// `10`, `128K`, `1.5G`, `3MB`, `4GiB` (`zfs_nicestrtonum`).
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let unit = unit.to_ascii_uppercase();
    let unit = unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B')).unwrap_or(&unit);
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        "E" => 60,
        _ => return None,
    };
    if let Ok(n) = digits.parse::<u64>() {
        return n.checked_shl(shift).filter(|v| v >> shift == n);
    }
    let value = digits.parse::<f64>().ok()? * (1_u64 << shift) as f64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    if value.is_finite() && (0.0..u64::MAX as f64).contains(&value) { Some(value as u64) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_typed() {
        for (text, n) in
            [("10", 10), ("128K", 131_072), ("1.5g", 1_610_612_736), ("4GiB", 4 << 30), ("512B", 512)]
        {
            assert_eq!(parse_size(text), Some(n), "{text}");
        }
        for text in ["", "K", "1X", "-1", "99999E", "1..5K"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
