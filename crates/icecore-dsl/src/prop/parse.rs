//! What a user typed for a property, checked against the table and brought into its stored form
//! (`zfs_valid_proplist`, libzfs_dataset.c; `zprop_parse_value` and `zfs_nicestrtonum`, libzfs_util.c;
//! `zfs_check_settable`, zfs_ioctl.c). Refusals are in libzfs's words.
//!
//! Invariant: nothing here changes anything; what passes may still fail for want of space.

use super::table::{self, Prop, Type};
use super::{Value, is_user};
use crate::Feature;
use crate::error::{DslError, Result};
use icecore_format::units::{MAX_BLOCK, MIN_BLOCK};

/// Longest value (`ZAP_MAXVALUELEN`), its terminator included.
const VALUE_LEN_MAX: usize = 8192;
/// Longest name of a property (`ZAP_MAXNAMELEN`), its terminator included.
const PROP_NAME_LEN_MAX: usize = 256;
/// Longest component of a mountpoint (`mountpoint_namecheck`, zfs_namecheck.c).
const MOUNT_PART_LEN_MAX: usize = 256;
/// `refreservation=auto` of a volume, until it is known how much that is.
pub(crate) const AUTO: u64 = u64::MAX;

/// What a property is to be set on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    /// Bit of its type in [`table`].
    pub(crate) mask: u8,
    /// A snapshot.
    pub(crate) snapshot: bool,
    /// It exists and is encrypted, or not; `None` where it is being made.
    pub(crate) encrypted: Option<bool>,
    /// Bytes of a block of an existing volume, else 0.
    pub(crate) volblocksize: u64,
    /// Largest block the pool's features allow, in bytes.
    pub(crate) max_block: u64,
}

/// The stored form of a property of a file system that is being made.
pub fn parse_new(prop: &str, text: &str) -> Result<Value> {
    parse(&new(table::FS), prop, text)
}

/// [`parse_new`] for a volume.
pub fn parse_new_volume(prop: &str, text: &str) -> Result<Value> {
    parse(&new(table::VOL), prop, text)
}

/// [`parse_new`] for a snapshot: it has none but users' own.
pub fn parse_new_snapshot(prop: &str, text: &str) -> Result<Value> {
    parse(&Subject { snapshot: true, ..new(table::SNAP) }, prop, text)
}

fn new(mask: u8) -> Subject {
    Subject { mask, snapshot: false, encrypted: None, volblocksize: 0, max_block: MAX_BLOCK }
}

fn bad<T>(why: String) -> Result<T> {
    Err(DslError::Invalid(why))
}

pub(crate) fn parse(subject: &Subject, prop: &str, text: &str) -> Result<Value> {
    if is_user(prop) {
        if prop.len() >= PROP_NAME_LEN_MAX {
            return bad(format!("property name '{prop}' is too long"));
        }
        if text.len() >= VALUE_LEN_MAX {
            return bad("property value too long".into());
        }
        return Ok(Value::Text(text.into()));
    }
    if subject.snapshot {
        return bad("this property can not be modified for snapshots".into());
    }
    if prop.starts_with("written@") || prop.starts_with("written#") {
        return bad(format!("'{prop}' is readonly"));
    }
    let Some(p) = table::find(prop) else {
        return bad(format!("invalid property '{prop}'"));
    };
    if p.types & subject.mask == 0 {
        return bad(format!("'{prop}' does not apply to datasets of this type"));
    }
    if p.readonly() {
        return bad(format!("'{prop}' is readonly"));
    }
    let value = parse_value(subject, p, text)?;
    check(subject, p, &value)?;
    Ok(value)
}

fn parse_value(subject: &Subject, p: &Prop, text: &str) -> Result<Value> {
    match p.kind {
        Type::Text(_) if text.len() >= VALUE_LEN_MAX => bad(format!("'{}' is too long", p.name)),
        Type::Text(_) => Ok(Value::Text(text.into())),
        Type::Index(..) => match p.index(text) {
            Some(n) => Ok(Value::Number(n)),
            None => bad(format!("'{}' must be one of '{}'", p.name, table::values(p.name))),
        },
        Type::Bytes(_) | Type::Count(_) => number(subject, p, text).map(Value::Number),
    }
}

fn number(subject: &Subject, p: &Prop, text: &str) -> Result<u64> {
    match text {
        // No limit is the greatest number, no quota and no reservation the least.
        "none" if ["filesystem_limit", "snapshot_limit"].contains(&p.name) => Ok(u64::MAX),
        "none" => Ok(0),
        "auto" if p.name != "refreservation" => bad(format!("'auto' is invalid value for '{}'", p.name)),
        "auto" if subject.mask & table::VOL == 0 => bad(format!("'{}=auto' only allowed on volumes", p.name)),
        "auto" => Ok(AUTO),
        _ => match nicenum(text)? {
            0 if ["quota", "refquota"].contains(&p.name) => {
                bad("use 'none' to disable quota/refquota".into())
            }
            n => Ok(n),
        },
    }
}

/// What is allowed beyond the type of the value.
fn check(subject: &Subject, p: &Prop, value: &Value) -> Result<()> {
    let n = value.number();
    let fits = |max: u64| n.is_power_of_two() && (MIN_BLOCK..=max).contains(&n);
    match (p.name, value) {
        ("recordsize", _) if !fits(subject.max_block) => bad(block_size(p.name, subject.max_block)),
        ("special_small_blocks", _) if n != 0 && !fits(MAX_BLOCK) => bad(format!(
            "invalid '{}={n}' property: must be zero or a power of 2 from 512B to {}",
            p.name,
            super::nice_bytes(MAX_BLOCK)
        )),
        ("volsize", _) if subject.volblocksize != 0 => volume_size(p.name, n, subject.volblocksize),
        ("mlslabel", _) => bad("mlslabels are unsupported".into()),
        ("mountpoint", Value::Text(path)) => mountpoint(path),
        ("sharenfs", Value::Text(options)) if !nfs_options(options) => {
            bad("'sharenfs' cannot be set to invalid options".into())
        }
        ("sharesmb", Value::Text(options)) if !["on", "off"].contains(&options.as_str()) => {
            bad("'sharesmb' cannot be set to invalid options".into())
        }
        ("keylocation", Value::Text(place)) => keylocation(subject, place),
        ("copies", _) if n > 2 && subject.encrypted == Some(true) => {
            bad("encrypted datasets cannot have 3 copies".into())
        }
        _ => Ok(()),
    }
}

/// What is said of a block size that cannot be.
pub(crate) fn block_size(prop: &str, max: u64) -> String {
    format!("'{prop}' must be power of 2 from 512B to {}", super::nice_bytes(max))
}

fn volume_size(prop: &str, size: u64, block: u64) -> Result<()> {
    if !size.is_multiple_of(block) {
        let block = super::nice_bytes(block);
        return bad(format!("'{prop}' must be a multiple of volume block size ({block})"));
    }
    if size == 0 { bad(format!("'{prop}' cannot be zero")) } else { Ok(()) }
}

fn mountpoint(path: &str) -> Result<()> {
    if path == "none" || path == "legacy" {
        return Ok(());
    }
    if !path.starts_with('/') {
        return bad("'mountpoint' must be an absolute path, 'none', or 'legacy'".into());
    }
    if path.split('/').any(|part| part.len() >= MOUNT_PART_LEN_MAX) {
        return bad("component of 'mountpoint' is too long".into());
    }
    Ok(())
}

/// Options of an export that Linux or Solaris has a meaning for.
const NFS: &[&str] = &[
    "anon",
    "anongid",
    "anonuid",
    "async",
    "all_squash",
    "crossmnt",
    "fsid",
    "fsuid",
    "hide",
    "insecure",
    "insecure_locks",
    "mountpoint",
    "mp",
    "no_acl",
    "no_all_squash",
    "no_auth_nlm",
    "no_root_squash",
    "no_subtree_check",
    "no_wdelay",
    "nohide",
    "nosub",
    "refer",
    "replicas",
    "ro",
    "root",
    "root_mapping",
    "root_squash",
    "rw",
    "sec",
    "secure",
    "secure_locks",
    "subtree_check",
    "sync",
    "wdelay",
];

/// Whether `sharenfs` may say this (`nfs_validate_shareopts`, libshare).
fn nfs_options(text: &str) -> bool {
    ["on", "off"].contains(&text)
        || text.split(',').all(|o| NFS.contains(&o.split_once('=').map_or(o, |(name, _)| name)))
}

fn keylocation(subject: &Subject, place: &str) -> Result<()> {
    let valid = ["none", "prompt"].contains(&place)
        || ["file:///", "https://", "http://"].iter().any(|p| place.len() > p.len() && place.starts_with(p));
    match (valid, subject.encrypted) {
        (false, _) => bad("invalid keylocation".into()),
        (_, Some(false)) if place != "none" => {
            bad("keylocation must be 'none' for unencrypted datasets".into())
        }
        (_, Some(true)) if place == "none" => {
            bad("keylocation must not be 'none' for encrypted datasets".into())
        }
        _ => Ok(()),
    }
}

/// The feature without which the pool takes no such value.
pub(crate) fn needs(prop: &str, value: &Value) -> Option<Feature> {
    let n = value.number();
    match prop {
        "compression" => match n & 0x7f {
            15 => Some(Feature::LZ4_COMPRESS),
            16 => Some(Feature::ZSTD_COMPRESS),
            _ => None,
        },
        "checksum" | "dedup" => match n & 0xff {
            11 => Some(Feature::SHA512),
            12 => Some(Feature::SKEIN),
            13 => Some(Feature::EDONR),
            14 => Some(Feature::BLAKE3),
            _ => None,
        },
        "dnodesize" if n != 0 => Some(Feature::LARGE_DNODE),
        _ => None,
    }
}

/// `10`, `128K`, `1.5G`, `3MB`, `4GiB`; no number says why.
fn nicenum(text: &str) -> Result<u64> {
    let too_large = || bad("numeric value is too large".into());
    if !text.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return bad(format!("bad numeric value '{text}'"));
    }
    let whole = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, mut rest) = text.split_at(whole);
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        rest = &fraction[end..];
        let value = format!("0{digits}.{}0", &fraction[..end]).parse::<f64>().unwrap_or(f64::MAX);
        let shift = shift(rest)?;
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        return match value * (2_f64).powi(i32::try_from(shift).unwrap_or(0)) {
            v if v >= u64::MAX as f64 => too_large(),
            v => Ok(v as u64),
        };
    }
    let Ok(n) = digits.parse::<u64>() else { return too_large() };
    let shift = shift(rest)?;
    match n.checked_shl(shift).filter(|v| v >> shift == n) {
        Some(v) => Ok(v),
        None => too_large(),
    }
}

fn shift(suffix: &str) -> Result<u32> {
    let upper = suffix.to_ascii_uppercase();
    let unit = match upper.as_str() {
        "" => return Ok(0),
        "B" => "B",
        u => match u.strip_suffix("IB").or_else(|| u.strip_suffix('B')).unwrap_or(u) {
            "B" => "",
            unit => unit,
        },
    };
    match ["B", "K", "M", "G", "T", "P", "E", "Z"].iter().position(|u| *u == unit) {
        Some(i) => Ok(u32::try_from(i).unwrap_or(0) * 10),
        None => bad(format!("invalid numeric suffix '{suffix}'")),
    }
}

/// A size as typed; `None` if it is none.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    nicenum(text).ok()
}

/// The same, saying what is wrong with it.
pub fn size(text: &str) -> Result<u64> {
    nicenum(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_typed() {
        for (text, n) in [
            ("10", 10),
            ("128K", 131_072),
            ("1.5g", 1_610_612_736),
            ("4GiB", 4 << 30),
            ("512B", 512),
            (".5k", 512),
            ("0", 0),
        ] {
            assert_eq!(parse_size(text), Some(n), "{text}");
        }
        for (text, why) in [
            ("", "bad numeric value ''"),
            ("K", "bad numeric value 'K'"),
            ("-1", "bad numeric value '-1'"),
            ("1X", "invalid numeric suffix 'X'"),
            ("1BB", "invalid numeric suffix 'BB'"),
            ("1BiB", "invalid numeric suffix 'BiB'"),
            ("1..5K", "invalid numeric suffix '.5K'"),
            ("99999E", "numeric value is too large"),
            ("99999999999999999999", "numeric value is too large"),
            ("1Z", "numeric value is too large"),
            ("16.5E", "numeric value is too large"),
        ] {
            assert_eq!(size(text).map_err(|e| e.to_string()), Err(why.into()), "{text}");
        }
    }
}
