//! What `zfs get` and `zfs list` show: settable properties, statistics, and the rules by which libzfs
//! joins them (`dsl_prop_nvlist_add_uint64`, dsl_prop.c; `get_numeric_property`, libzfs_dataset.c).

use super::table::{self, BOOK, FS, PROPS, Prop, SNAP, Type, VOL};
use super::{Source, Value, default_of};
use crate::error::{DslError, Result};
use crate::lookup::{DatasetRef, Found, Kind, Known};
use crate::phys::{DD_FLAG_USED_BREAKDOWN, Dataset, Used};
use crate::{BookmarkPhys, Dsl};
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockStore, Objset, ReadError, Want};
use icecore_format::ObjectId;
use std::collections::BTreeMap;

/// One line of `zfs get`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PropRow {
    /// Property.
    pub name: String,
    /// Value as scripts want it (`-p`).
    pub value: String,
    /// Value as people want it. Times stay numbers: the edge knows the time zone.
    pub human: String,
    /// Where it comes from.
    pub source: Source,
}

/// A value with the source the kernel would report: `None` means «no word about it».
type Stat = (Value, Option<Source>);
type Stats = BTreeMap<String, Stat>;

/// What the rules need to know of the dataset that is asked about.
struct Subject {
    name: String,
    kind: Kind,
    stats: Stats,
    /// The only properties that will be asked for; `None` for any.
    wanted: Option<Vec<String>>,
    mounted: bool,
    altroot: String,
}

impl Subject {
    fn new(name: &str, kind: Kind, wanted: Option<&[&str]>) -> Self {
        let mut s = Self {
            name: name.into(),
            kind,
            stats: Stats::new(),
            wanted: None,
            mounted: false,
            altroot: String::new(),
        };
        let fits = |p: &&&str| table::find(p).is_none_or(|p| p.types & s.mask() != 0);
        s.wanted = wanted.map(|all| all.iter().filter(fits).map(|p| (*p).to_string()).collect());
        s
    }
    /// Whether any of these will be asked for: what costs reading is left out otherwise.
    fn wants(&self, props: &[&str]) -> bool {
        self.wanted.as_ref().is_none_or(|all| all.iter().any(|p| props.contains(&p.as_str())))
    }
    /// Whether anything will be asked for that can be set.
    fn wants_set(&self) -> bool {
        let set = |p: &String| table::find(p).is_none_or(|p| !p.readonly() || p.setonce());
        self.wanted.as_ref().is_none_or(|all| all.iter().any(set))
    }
    fn mask(&self) -> u8 {
        match self.kind {
            Kind::Filesystem => FS,
            Kind::Volume => VOL,
            Kind::Snapshot | Kind::VolumeSnapshot => SNAP,
            Kind::Bookmark => BOOK,
        }
    }
    fn head_mask(&self) -> u8 {
        match self.kind {
            Kind::Volume | Kind::VolumeSnapshot => VOL,
            _ => FS,
        }
    }
    fn is_snapshot(&self) -> bool {
        matches!(self.kind, Kind::Snapshot | Kind::VolumeSnapshot)
    }
    fn number(&mut self, name: &str, value: u64) {
        if !self.wants(&[name]) {
            return;
        }
        let default = default_of(name) == Some(Value::Number(value));
        let old = self.stats.remove(name).and_then(|(_, s)| s);
        let source = if default { Some(Source::Default) } else { old };
        self.stats.insert(name.into(), (Value::Number(value), source));
    }
    fn text(&mut self, name: &str, value: String) {
        self.stats.insert(name.into(), (Value::Text(value), None));
    }
}

/// What [`Dsl::crypt_stats`] tells.
const CRYPT_STATS: [&str; 8] = [
    "keystatus",
    "encryption",
    "keyguid",
    "keyformat",
    "pbkdf2salt",
    "pbkdf2iters",
    "ivsetguid",
    "encryptionroot",
];
/// What [`Dsl::objset_stats`] tells.
const OBJSET_STATS: [&str; 6] =
    ["volsize", "volblocksize", "version", "utf8only", "normalization", "casesensitivity"];

/// The `@SNAP` or `#MARK` of a `written@SNAP` or `written#MARK`.
fn written_since(prop: &str) -> Option<String> {
    let snapshot = prop.strip_prefix("written@").map(|s| format!("@{s}"));
    snapshot.or_else(|| prop.strip_prefix("written#").map(|s| format!("#{s}")))
}

fn named_row(subject: &Subject, prop: &str) -> Option<PropRow> {
    if let Some(p) = table::find(prop) {
        return row(subject, p);
    }
    match subject.stats.get(prop) {
        Some((Value::Text(t), source)) if super::is_user(prop) => Some(PropRow {
            name: prop.into(),
            value: t.clone(),
            human: t.clone(),
            source: source.clone().unwrap_or(Source::None),
        }),
        _ => None,
    }
}

impl Dsl {
    /// Every property of `name` that `zfs get all` shows, in its order.
    pub fn props(&self, io: &dyn BlockStore, name: &str) -> Result<Vec<PropRow>> {
        let subject = self.subject(io, name, None, None)?;
        let mut out: Vec<PropRow> =
            PROPS.iter().filter(|p| p.visible).filter_map(|p| row(&subject, p)).collect();
        for (prop, (value, source)) in &subject.stats {
            if super::is_user(prop)
                && let Value::Text(t) = value
            {
                let source = source.clone().unwrap_or(Source::None);
                out.push(PropRow { name: prop.clone(), value: t.clone(), human: t.clone(), source });
            }
        }
        Ok(out)
    }

    /// One property of `name`, hidden ones and `written@SNAP`, `written#MARK` too. `None` where `zfs get`
    /// prints a dash.
    pub fn prop(&self, io: &dyn BlockStore, name: &str, prop: &str) -> Result<Option<PropRow>> {
        Ok(self.props_named(io, name, &[prop])?.pop().flatten())
    }

    /// As [`Dsl::prop`] for each of `props`, in their order; what they have in common is read once.
    pub fn props_named(
        &self,
        io: &dyn BlockStore,
        name: &str,
        props: &[&str],
    ) -> Result<Vec<Option<PropRow>>> {
        self.props_known(io, name, None, props)
    }

    /// As [`Dsl::props_named`], of a dataset that has been looked up already.
    pub fn props_known(
        &self,
        io: &dyn BlockStore,
        name: &str,
        known: Option<&Known>,
        props: &[&str],
    ) -> Result<Vec<Option<PropRow>>> {
        let mut subject: Option<Subject> = None;
        let mut out = Vec::with_capacity(props.len());
        for prop in props {
            if let Some(from) = written_since(prop) {
                out.push(self.written_row(io, name, prop, &from)?);
                continue;
            }
            if subject.is_none() {
                subject = Some(self.subject(io, name, known, Some(props))?);
            }
            out.push(subject.as_ref().and_then(|s| named_row(s, prop)));
        }
        Ok(out)
    }

    /// `None` where there is no such snapshot or bookmark, or it is no earlier state of the dataset: a dash, not a
    /// failure (`get_callback`, zfs_main.c). Where there is, libzfs calls the value's source local.
    fn written_row(
        &self,
        io: &dyn BlockStore,
        name: &str,
        prop: &str,
        from: &str,
    ) -> Result<Option<PropRow>> {
        let r = self.lookup_dataset(io, name)?;
        let path = name.split('@').next().unwrap_or(name);
        // `written@pool/fs@snap` and `written@snap` are both allowed.
        let bare = from.get(1..).unwrap_or("");
        let full = if bare.contains(['@', '#']) { bare.to_string() } else { format!("{path}{from}") };
        let space = match self.lookup(io, &full) {
            Ok(Found::Dataset(old)) => self.space_written(io, old.obj, r.obj),
            Ok(Found::Bookmark { phys, .. }) => self.space_written_bookmark(io, &phys, r.obj),
            Err(e) => Err(e),
        };
        let space = match space {
            Ok(space) => space,
            Err(e @ DslError::Read(_)) => return Err(e),
            Err(_) => return Ok(None),
        };
        let n = u64::try_from(space.used).unwrap_or(0);
        let (value, human) = (n.to_string(), nice_bytes(n));
        Ok(Some(PropRow { name: prop.into(), value, human, source: Source::Local }))
    }

    fn subject(
        &self,
        io: &dyn BlockStore,
        name: &str,
        known: Option<&Known>,
        wanted: Option<&[&str]>,
    ) -> Result<Subject> {
        if let Some(Known { r, kind, phys }) = known {
            return self.dataset_subject(io, Subject::new(name, *kind, wanted), *r, phys.as_deref());
        }
        match self.lookup(io, name)? {
            Found::Dataset(r) => {
                let kind = self.kind(io, r)?;
                self.dataset_subject(io, Subject::new(name, kind, wanted), r, None)
            }
            Found::Bookmark { phys, .. } => {
                let mut s = bookmark_subject(name, &phys);
                if phys.redaction_obj != 0 {
                    let list: Vec<String> =
                        self.redaction_snaps(io, &phys)?.iter().map(u64::to_string).collect();
                    s.text("redact_snaps", list.join(","));
                }
                Ok(s)
            }
        }
    }

    fn dataset_subject(
        &self,
        io: &dyn BlockStore,
        mut s: Subject,
        r: DatasetRef,
        phys: Option<&Dataset>,
    ) -> Result<Subject> {
        let read;
        let ds = match phys {
            Some(ds) => ds,
            None => {
                read = self.dataset(io, r.obj)?;
                &read
            }
        };
        if s.wants_set() {
            s.stats = self.set_props(io, r)?;
        }
        s.mounted = self.busy().is_mounted(r.obj);
        s.altroot.clone_from(&self.altroot);
        self.dataset_stats(io, r, ds, &mut s)?;
        if !r.snapshot {
            self.dir_stats(io, r, &mut s)?;
        }
        self.objset_stats(io, r, &mut s)?;
        Ok(s)
    }

    /// Everything set here or above, with its source (`dsl_prop_get_all_ds`).
    fn set_props(&self, io: &dyn BlockStore, r: DatasetRef) -> Result<Stats> {
        let mut out = Stats::new();
        let mut add = |dsl: &Self, of: DatasetRef, from: Option<&str>| -> Result<()> {
            for p in dsl.own_props(io, of, false)? {
                let native = table::find(&p.name);
                let inherits = native.is_none_or(Prop::inheritable);
                let fits = !r.snapshot || native.is_none_or(|n| n.types & SNAP != 0);
                if (from.is_some() && !inherits) || !fits || out.contains_key(&p.name) {
                    continue;
                }
                let source = match (from, p.received) {
                    (Some(from), _) => Source::Inherited(from.into()),
                    (None, true) => Source::Received,
                    (None, false) => Source::Local,
                };
                out.insert(p.name, (p.value, Some(source)));
            }
            Ok(())
        };
        if r.snapshot {
            add(self, r, None)?;
        }
        let (mut dir, mut own) = (r.dir, !r.snapshot);
        for _ in 0..crate::name::NESTING_MAX + 2 {
            if dir == 0 {
                break;
            }
            let at = DatasetRef { obj: 0, dir, snapshot: false };
            if own {
                add(self, at, None)?;
            } else {
                add(self, at, Some(&self.dir_name(io, dir)?))?;
            }
            (dir, own) = (self.dir(io, dir)?.parent_obj, false);
        }
        Ok(out)
    }

    /// `dsl_dataset_stats`.
    fn dataset_stats(&self, io: &dyn BlockStore, r: DatasetRef, ds: &Dataset, s: &mut Subject) -> Result<()> {
        let refratio = ratio(ds.uncompressed_bytes, ds.compressed_bytes);
        s.number("refcompressratio", refratio);
        s.number("logicalreferenced", ds.uncompressed_bytes);
        if r.snapshot {
            s.number("compressratio", refratio);
            s.number("used", ds.unique_bytes);
        } else {
            let dd = self.dir(io, r.dir)?;
            s.number("compressratio", ratio(dd.uncompressed_bytes, dd.compressed_bytes));
            s.number("used", dd.used_bytes);
        }
        s.number("referenced", ds.referenced_bytes);
        s.number("creation", ds.creation_time);
        s.number("createtxg", ds.creation_txg);
        s.number("guid", ds.guid);
        s.number("unique", ds.unique_bytes);
        s.number("objsetid", r.obj);
        if s.wants(&["userrefs"]) {
            s.number("userrefs", self.zap_count(io, ds.userrefs_obj)?);
        }
        s.number("defer_destroy", u64::from(ds.is_defer_destroy()));
        s.number("inconsistent", u64::from(ds.is_inconsistent()));
        if r.snapshot {
            s.number("numclones", ds.num_children.saturating_sub(1));
            if s.wants(&["clones"]) && ds.num_children > 1 {
                let clones = self.clone_names(io, r)?;
                if !clones.is_empty() {
                    s.text("clones", clones.join(","));
                }
            }
        } else {
            if s.wants(&["available"]) {
                s.number("available", self.available(io, r)?);
            }
            for p in ["refquota", "refreservation"] {
                if s.wants(&[p]) {
                    let n = self.prop_number(io, r, p)?;
                    s.number(p, n);
                }
            }
            if s.wants(&["prevsnap"]) && ds.prev_snap_obj != 0 && ds.prev_snap_obj != self.origin_snap {
                s.text("prevsnap", self.name(io, self.by_object(io, ds.prev_snap_obj)?)?);
            }
            if s.wants(&["receive_resume_token"])
                && let Some(token) = self.resume_token(io, r)?
            {
                s.text("receive_resume_token", token);
            }
        }
        if ds.prev_snap_obj != 0 && s.wants(&["written"]) {
            let space = self.space_written(io, ds.prev_snap_obj, r.obj)?;
            s.number("written", u64::try_from(space.used).unwrap_or(0));
        }
        if s.wants(&["redact_snaps", "redacted"])
            && let Some(ZapValue::U64(guids)) =
                self.field(io, r.obj, crate::Feature::REDACTED_DATASETS.guid)?
        {
            let list: Vec<String> = guids.iter().map(u64::to_string).collect();
            s.text("redact_snaps", list.join(","));
            s.number("redacted", 1);
        }
        if s.wants(&CRYPT_STATS) { self.crypt_stats(io, r, s) } else { Ok(()) }
    }

    fn crypt_stats(&self, io: &dyn BlockStore, r: DatasetRef, s: &mut Subject) -> Result<()> {
        let Some(k) = self.key_stats(io, r.dir)? else { return Ok(()) };
        s.number("keystatus", if k.available { 2 } else { 1 });
        s.number("encryption", k.suite);
        s.number("keyguid", k.guid);
        s.number("keyformat", k.keyformat);
        s.number("pbkdf2salt", k.salt);
        s.number("pbkdf2iters", k.iters);
        if let Some(ivset) = self.ivset_guid(io, r.obj)? {
            s.number("ivsetguid", ivset);
        }
        s.text("encryptionroot", self.dir_name(io, k.root_dir)?);
        Ok(())
    }

    /// `dsl_dir_stats`.
    fn dir_stats(&self, io: &dyn BlockStore, r: DatasetRef, s: &mut Subject) -> Result<()> {
        let dd = self.dir(io, r.dir)?;
        s.number("quota", dd.quota);
        s.number("reservation", dd.reserved);
        s.number("logicalused", dd.uncompressed_bytes);
        if dd.flags & DD_FLAG_USED_BREAKDOWN != 0 {
            let by = |u: Used| dd.used_breakdown[u as usize];
            s.number("usedbysnapshots", by(Used::Snap));
            s.number("usedbydataset", by(Used::Head));
            s.number("usedbyrefreservation", by(Used::RefRsrv));
            s.number("usedbychildren", by(Used::Child).saturating_add(by(Used::ChildRsrv)));
        }
        for (prop, field) in [
            ("filesystem_count", "com.joyent:filesystem_count"),
            ("snapshot_count", "com.joyent:snapshot_count"),
        ] {
            if let Some(n) = self.field_u64(io, r.dir, field)? {
                s.number(prop, n);
            }
        }
        if let Some(t) = self.field_u64(io, r.dir, "com.ixsystems:snapshots_changed")? {
            s.number("snapshots_changed", t);
        }
        if self.is_clone(&dd) {
            s.text("origin", self.name(io, self.by_object(io, dd.origin_obj)?)?);
        }
        Ok(())
    }

    /// What stands in the objset itself: of a volume its size, of a file system its master node
    /// (`zvol_get_stats`, `zfs_get_zplprop`). Left out where it cannot be read without a key.
    fn objset_stats(&self, io: &dyn BlockStore, r: DatasetRef, s: &mut Subject) -> Result<()> {
        if !s.wants(&OBJSET_STATS) {
            return Ok(());
        }
        let ds = self.dataset(io, r.obj)?;
        if ds.bp.is_hole() || ds.is_inconsistent() {
            return Ok(());
        }
        let os = Objset::open(io, r.obj, &ds.bp, Want::NoKey)?;
        if matches!(s.kind, Kind::Volume | Kind::VolumeSnapshot) {
            if let Some(size) = readable(zap::lookup_u64(&os, io, ObjectId(2), "size"))?.flatten() {
                s.number("volsize", size);
            }
            if let Some(dn) = readable(os.dnode(io, ObjectId(1)))? {
                s.number("volblocksize", dn.block_size());
            }
            return Ok(());
        }
        for (entry, prop) in [
            ("VERSION", "version"),
            ("utf8only", "utf8only"),
            ("normalization", "normalization"),
            ("casesensitivity", "casesensitivity"),
        ] {
            let value = readable(zap::lookup_u64(&os, io, ObjectId(1), entry))?;
            match value {
                // Entries that are absent have their default (`zfs_get_zplprop`), but not the version.
                Some(None) if prop != "version" => s.text_free_number(prop, 0),
                Some(Some(n)) => s.text_free_number(prop, n),
                _ => {}
            }
        }
        Ok(())
    }

    fn clone_names(&self, io: &dyn BlockStore, r: DatasetRef) -> Result<Vec<String>> {
        let ds = self.dataset(io, r.obj)?;
        let mut out = Vec::new();
        if ds.next_clones_obj == 0 {
            // Pools before version 11 keep no list: the datasets tell what they come from.
            for name in self.descendants(io, &self.info.name)? {
                if self.dir(io, self.lookup_dir(io, &name)?)?.origin_obj == r.obj {
                    out.push(name);
                }
            }
            out.sort();
            return Ok(out);
        }
        for (_, obj) in self.zap_list_u64(io, ds.next_clones_obj)? {
            // The next of a clone's past may be one of its snapshots.
            let dir = self.dataset(io, obj)?.dir_obj;
            out.push(self.dir_name(io, dir)?);
        }
        out.sort();
        out.dedup();
        Ok(out)
    }
}

impl Subject {
    /// A number without a source, whatever its default.
    fn text_free_number(&mut self, name: &str, value: u64) {
        self.stats.insert(name.into(), (Value::Number(value), None));
    }
}

fn readable<T>(r: std::result::Result<T, ReadError>) -> Result<Option<T>> {
    match r {
        Ok(v) => Ok(Some(v)),
        Err(ReadError::KeyUnavailable { .. } | ReadError::NoObject(_)) => Ok(None),
        Err(e) => Err(DslError::Read(e)),
    }
}

fn bookmark_subject(name: &str, b: &BookmarkPhys) -> Subject {
    let mut s = Subject::new(name, Kind::Bookmark, None);
    s.number("guid", b.guid);
    s.number("createtxg", b.creation_txg);
    s.number("creation", b.creation_time);
    s.number("ivsetguid", b.ivset_guid);
    if b.has_freed_before_next() {
        s.number("referenced", b.referenced[0]);
        s.number("logicalreferenced", b.referenced[2]);
        s.number("refcompressratio", ratio(b.referenced[2], b.referenced[1]));
    }
    s
}

/// Hundredths of logical over physical, 100 where there is nothing.
fn ratio(logical: u64, physical: u64) -> u64 {
    logical.saturating_mul(100).checked_div(physical).unwrap_or(100)
}

/// One line, or `None` where `zfs get` has nothing to say (`zfs_prop_get`).
fn row(s: &Subject, p: &Prop) -> Option<PropRow> {
    if p.types & s.mask() == 0 {
        return None;
    }
    match p.name {
        "type" => return Some(plain(p, s.kind.text())),
        "name" => return Some(plain(p, &s.name)),
        "mounted" => return Some(plain(p, if s.mounted { "yes" } else { "no" })),
        "mountpoint" => return Some(mountpoint(s, p)),
        _ => {}
    }
    match p.kind {
        Type::Text(default) => {
            let (value, source) = match s.stats.get(p.name) {
                Some((Value::Text(t), source)) => (t.clone(), source.clone().unwrap_or(Source::None)),
                _ => (default?.to_string(), Source::Default),
            };
            Some(PropRow { name: p.name.into(), human: value.clone(), value, source })
        }
        _ => {
            let (n, source) = numeric(s, p)?;
            let (value, human) = words(p, n)?;
            Some(PropRow { name: p.name.into(), value, human, source })
        }
    }
}

fn plain(p: &Prop, text: &str) -> PropRow {
    PropRow { name: p.name.into(), value: text.into(), human: text.into(), source: Source::None }
}

fn numeric(s: &Subject, p: &Prop) -> Option<(u64, Source)> {
    if s.is_snapshot() && p.types != SNAP && p.types & s.head_mask() == 0 {
        return None;
    }
    if ["version", "normalization", "utf8only", "casesensitivity"].contains(&p.name) {
        return s.stats.get(p.name).map(|(v, _)| (v.number(), Source::None));
    }
    let (n, source) = match s.stats.get(p.name) {
        Some((v, source)) => (v.number(), source.clone()),
        None => (p.default_number(), Some(Source::Default)),
    };
    let limits = [
        "canmount",
        "volsize",
        "quota",
        "refquota",
        "reservation",
        "refreservation",
        "filesystem_limit",
        "snapshot_limit",
        "filesystem_count",
        "snapshot_count",
    ];
    let source = match source {
        None if limits.contains(&p.name) => Source::Local,
        None => Source::None,
        Some(Source::Default) if p.readonly() && !p.setonce() && !limits.contains(&p.name) => return None,
        Some(source) => source,
    };
    if p.name == "snapshots_changed" && n == 0 {
        return None;
    }
    Some((n, source))
}

/// A number as scripts and as people want it.
fn words(p: &Prop, n: u64) -> Option<(String, String)> {
    let same = |t: String| Some((t.clone(), t));
    match p.name {
        "compressratio" | "refcompressratio" => {
            let t = format!("{}.{:02}", n / 100, n % 100);
            return Some((t.clone(), format!("{t}x")));
        }
        "quota" | "refquota" | "reservation" | "refreservation" if n == 0 => {
            return Some(("0".into(), "none".into()));
        }
        "filesystem_limit" | "snapshot_limit" | "filesystem_count" | "snapshot_count" if n == u64::MAX => {
            return same("none".into());
        }
        "guid" | "keyguid" | "ivsetguid" | "createtxg" | "objsetid" | "pbkdf2iters" | "creation"
        | "snapshots_changed" | "pbkdf2salt" => return same(n.to_string()),
        _ => {}
    }
    match p.kind {
        Type::Index(..) => same(p.word(n)?.to_string()),
        Type::Bytes(_)
            if [
                "recordsize",
                "volsize",
                "volblocksize",
                "written",
                "logicalused",
                "logicalreferenced",
                "special_small_blocks",
            ]
            .contains(&p.name) =>
        {
            Some((n.to_string(), nice_number(n)))
        }
        Type::Bytes(_) => Some((n.to_string(), nice_bytes(n))),
        _ => Some((n.to_string(), nice_number(n))),
    }
}

/// The path a file system would be mounted at: the inherited one goes on with the rest of the name.
fn mountpoint(s: &Subject, p: &Prop) -> PropRow {
    let (set, source) = match s.stats.get(p.name) {
        Some((Value::Text(t), source)) => (t.clone(), source.clone().unwrap_or(Source::None)),
        _ => ("/".into(), Source::Default),
    };
    let value = if set.starts_with('/') {
        let rest = match &source {
            Source::Inherited(from) => {
                s.name.get(from.len()..).unwrap_or("").trim_start_matches('/').to_string()
            }
            Source::Default => s.name.clone(),
            _ => String::new(),
        };
        let path = match (set.as_str(), rest.as_str()) {
            (_, "") => set,
            ("/", rest) => format!("/{rest}"),
            (set, rest) => format!("{set}/{rest}"),
        };
        match (s.altroot.trim_end_matches('/'), path.as_str()) {
            ("", _) => path,
            (root, "/") => root.into(),
            (root, path) => format!("{root}{path}"),
        }
    } else {
        set
    };
    PropRow { name: p.name.into(), human: value.clone(), value, source }
}

/// At most five characters: `1.21G`, `0B`, `96K` (`zfs_nicebytes`).
#[must_use]
pub fn nice_bytes(n: u64) -> String {
    nice(n, ["B", "K", "M", "G", "T", "P", "E"])
}

/// The same without a unit for small numbers (`zfs_nicenum`).
#[must_use]
pub fn nice_number(n: u64) -> String {
    nice(n, ["", "K", "M", "G", "T", "P", "E"])
}

#[allow(clippy::cast_precision_loss)]
fn nice(n: u64, units: [&str; 7]) -> String {
    let index = (0..7).rev().find(|i| n >> (10 * i) != 0).unwrap_or(0);
    let unit = units[index];
    let whole = 1_u64 << (10 * index);
    if index == 0 || n.is_multiple_of(whole) {
        return format!("{}{unit}", n >> (10 * index));
    }
    let value = n as f64 / whole as f64;
    for precision in (0..=2).rev() {
        // Cut, not rounded, where rounding would reach the next unit is libzfs's way only from 2.0 on:
        // it prints with the precision that fits five characters.
        let text = format!("{value:.precision$}{unit}");
        if text.len() <= 5 {
            return text;
        }
    }
    format!("{value:.0}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fit_five_characters() {
        for (n, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1K"),
            (98304, "96K"),
            (1_299_227_607, "1.21G"),
            (106_496, "104K"),
            (22_900_736, "21.8M"),
            (1536, "1.50K"),
            (1_047_552, "1023K"),
        ] {
            assert_eq!(nice_bytes(n), text, "{n}");
        }
        assert_eq!(nice_number(512), "512");
    }
}
