//! Properties: where a value comes from (dsl_prop.c), how it is set, how `zfs get` shows it
//! (`zfs_prop_get`, libzfs_dataset.c).
//!
//! On disk a property ZAP has up to four entries a name: `name` (local), `name$recvd` (received),
//! `name$inherit` (explicitly inherited: hides the received one), `name$iuv` (a newer value that hides
//! `name`, for those who know it). `$hasrecvd` says that properties were received.
//!
//! Invariants:
//! 1. A value set below hides what is above: own local, own received (unless explicitly inherited), then
//!    the parent's, for what is inheritable; then the default.
//! 2. Quotas and reservations live in the directory too; setting one changes both.

mod parse;
mod set;
mod stats;
pub mod table;

pub(crate) use parse::block_size;
pub use parse::{parse_new, parse_new_snapshot, parse_new_volume, parse_size, size};
pub use set::SetSource;
pub use stats::{Answer, Asking, PropRow, nice_bytes, nice_number};

use crate::error::Result;
use crate::{DatasetRef, Dsl};
use icecore_dmu::zap::ZapValue;
use icecore_dmu::{BlockStore, Policy};
use icecore_format::{Checksum, Compress, Corrupt};
use table::Prop;

/// A property's value as stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A number or the number of a word.
    Number(u64),
    /// Text.
    Text(String),
}

impl Value {
    fn from_zap(name: &str, v: &ZapValue) -> Result<Self> {
        match v {
            ZapValue::U64(v) if !v.is_empty() => Ok(Self::Number(v[0])),
            ZapValue::U8(b) => {
                let text = b.split(|c| *c == 0).next().unwrap_or(&[]);
                Ok(Self::Text(String::from_utf8_lossy(text).into_owned()))
            }
            _ => Err(Corrupt::new("property", format!("{name} is neither a number nor text")).into()),
        }
    }
    fn to_zap(&self) -> ZapValue {
        match self {
            Self::Number(n) => ZapValue::U64(vec![*n]),
            Self::Text(t) => {
                let mut b = t.as_bytes().to_vec();
                b.push(0);
                ZapValue::U8(b)
            }
        }
    }
    /// The number, 0 for text.
    #[must_use]
    pub fn number(&self) -> u64 {
        match self {
            Self::Number(n) => *n,
            Self::Text(_) => 0,
        }
    }
}

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// Computed: no source.
    None,
    /// Nobody set it.
    Default,
    /// Set here.
    Local,
    /// Set at this ancestor.
    Inherited(String),
    /// Received with a stream.
    Received,
    /// Of the mount only.
    Temporary,
}

impl Source {
    /// As `zfs get` prints it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::None => "-".into(),
            Self::Default => "default".into(),
            Self::Local => "local".into(),
            Self::Inherited(from) => format!("inherited from {from}"),
            Self::Received => "received".into(),
            Self::Temporary => "temporary".into(),
        }
    }
}

/// A property set on a dataset itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnProp {
    /// Name.
    pub name: String,
    /// Value as stored.
    pub value: Value,
    /// Received, not set locally.
    pub received: bool,
}

/// A user property has a colon in its name (`zfs_prop_user`).
#[must_use]
pub fn is_user(name: &str) -> bool {
    name.contains(':')
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_.:".contains(&c))
}

fn inheritable(name: &str) -> bool {
    table::find(name).map_or_else(|| is_user(name), Prop::inheritable)
}

impl Dsl {
    /// The value set in one property ZAP: local or, unless inherited explicitly, received.
    fn prop_in(&self, io: &dyn BlockStore, zap: u64, name: &str) -> Result<Option<(Value, bool)>> {
        if let Some(v) = self.zap_get(io, zap, &format!("{name}$iuv"))? {
            let v = Value::from_zap(name, &v)?;
            if table::find(name).is_some_and(|p| p.word(v.number()).is_some()) {
                return Ok(Some((v, false)));
            }
        }
        if let Some(v) = self.zap_get(io, zap, name)? {
            return Ok(Some((Value::from_zap(name, &v)?, false)));
        }
        if self.zap_get(io, zap, &format!("{name}$inherit"))?.is_none()
            && let Some(v) = self.zap_get(io, zap, &format!("{name}$recvd"))?
        {
            return Ok(Some((Value::from_zap(name, &v)?, true)));
        }
        Ok(None)
    }

    /// The effective value of a settable property and its source; `None` where it has not even a default.
    pub fn prop_get(
        &self,
        io: &dyn BlockStore,
        r: DatasetRef,
        name: &str,
    ) -> Result<Option<(Value, Source)>> {
        let inherits = inheritable(name);
        if r.snapshot {
            let zap = self.dataset(io, r.obj)?.props_obj;
            if let Some((v, received)) = self.prop_in(io, zap, name)? {
                return Ok(Some((v, if received { Source::Received } else { Source::Local })));
            }
        }
        let (mut dir, mut own) = (r.dir, !r.snapshot);
        for _ in 0..crate::name::NESTING_MAX + 2 {
            if dir == 0 || (!own && !inherits) {
                break;
            }
            let dd = self.dir(io, dir)?;
            if let Some((v, received)) = self.prop_in(io, dd.props_zapobj, name)? {
                let source = match (own, received) {
                    (true, true) => Source::Received,
                    (true, false) => Source::Local,
                    (false, _) => Source::Inherited(self.dir_name(io, dir)?),
                };
                return Ok(Some((v, source)));
            }
            (dir, own) = (dd.parent_obj, false);
        }
        Ok(default_of(name).map(|v| (v, Source::Default)))
    }

    /// The effective number of a native property.
    pub fn prop_number(&self, io: &dyn BlockStore, r: DatasetRef, name: &str) -> Result<u64> {
        Ok(self.prop_get(io, r, name)?.map_or(0, |(v, _)| v.number()))
    }

    /// The effective text of a property, if it has one.
    pub fn prop_text(&self, io: &dyn BlockStore, r: DatasetRef, name: &str) -> Result<Option<String>> {
        Ok(match self.prop_get(io, r, name)? {
            Some((Value::Text(t), _)) => Some(t),
            _ => None,
        })
    }

    /// Properties set on the dataset itself: local ones, and received ones that no local one hides. With
    /// `received_only` the received ones, hidden or not (`zfs send -b`).
    pub fn own_props(&self, io: &dyn BlockStore, r: DatasetRef, received_only: bool) -> Result<Vec<OwnProp>> {
        let zap = self.props_zap(io, r)?;
        let all = self.zap_list(io, zap)?;
        let has = |name: &str| all.binary_search_by(|(n, _)| n.as_str().cmp(name)).is_ok();
        let mut out = Vec::new();
        for (entry, v) in &all {
            let (name, received) = match entry.split_once('$') {
                None => (entry.as_str(), false),
                Some((name, "recvd")) => (name, true),
                Some((name, "iuv")) => (name, false),
                Some(_) => continue,
            };
            if name.is_empty() || received_only != received && received_only {
                continue;
            }
            let value = Value::from_zap(name, v)?;
            let hidden = if received {
                !received_only && (has(name) || has(&format!("{name}$inherit")))
            } else {
                entry == name && has(&format!("{name}$iuv"))
            };
            if !hidden {
                out.push(OwnProp { name: name.into(), value, received });
            }
        }
        Ok(out)
    }

    /// The ZAP object with the properties set on `r` itself; 0 if none were ever set.
    fn props_zap(&self, io: &dyn BlockStore, r: DatasetRef) -> Result<u64> {
        Ok(if r.snapshot { self.dataset(io, r.obj)?.props_obj } else { self.dir(io, r.dir)?.props_zapobj })
    }

    /// Whether properties were ever received (`$hasrecvd`).
    pub fn has_received_props(&self, io: &dyn BlockStore, dir: u64) -> Result<bool> {
        let dd = self.dir(io, dir)?;
        Ok(self.zap_get(io, dd.props_zapobj, "$hasrecvd")?.is_some())
    }

    /// How blocks of a head are to be written, by its properties.
    pub fn policy(&self, io: &dyn BlockStore, head: DatasetRef) -> Result<Policy> {
        let lz4 = self.feature_active(io, crate::Feature::LZ4_COMPRESS)?;
        let default_compress = if lz4 { Compress::LZ4 } else { Compress::LZJB };
        let compression = self.prop_number(io, head, "compression")?;
        let algorithm = Compress(u8::try_from(compression & 0x7f).unwrap_or(2));
        let checksum = Checksum(u8::try_from(self.prop_number(io, head, "checksum")?).unwrap_or(1));
        let encrypted = self.crypto_obj(io, head.dir)?.is_some();
        Ok(Policy {
            checksum: checksum.select(Checksum::ON),
            compress: if algorithm == Compress::ON || algorithm == Compress::INHERIT {
                default_compress
            } else {
                algorithm
            },
            level: u8::try_from(compression >> 7 & 0xff).unwrap_or(0),
            meta_compress: default_compress,
            copies: u8::try_from(self.prop_number(io, head, "copies")?).unwrap_or(1).clamp(1, 3),
            redundant_metadata: u8::try_from(self.prop_number(io, head, "redundant_metadata")?).unwrap_or(0),
            encrypted,
            embed: !encrypted && self.feature_active(io, crate::Feature::EMBEDDED_DATA)?,
        })
    }
}

/// The default of a settable native property (`dodefault`).
fn default_of(name: &str) -> Option<Value> {
    let p = table::find(name)?;
    if p.readonly() && !p.setonce() {
        return None;
    }
    match p.kind {
        table::Type::Text(d) => d.map(|d| Value::Text(d.into())),
        _ => Some(Value::Number(p.default_number())),
    }
}
