//! What `zfs get` and `zfs list` show: settable properties, statistics, and the rules by which libzfs
//! joins them (`dsl_prop_nvlist_add_uint64`, dsl_prop.c; `get_numeric_property`, libzfs_dataset.c).

use super::table::{self, BOOK, FS, PROPS, Prop, SNAP, Type, VOL};
use super::{OwnProp, Source, Value, default_of};
use crate::error::{DslError, Result};
use crate::lookup::{DatasetRef, Found, Kind, Known};
use crate::phys::{Brief, DD_FLAG_USED_BREAKDOWN, DS_FLAG_DEFER_DESTROY, DS_FLAG_INCONSISTENT, Used};
use crate::{BookmarkPhys, Dsl};
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockStore, Objset, ReadError, Want};
use icecore_format::ObjectId;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

/// One line of `zfs get`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PropRow {
    /// Property.
    pub name: Cow<'static, str>,
    /// Value as scripts want it (`-p`).
    pub value: String,
    /// Value as people want it. Times stay numbers: the edge knows the time zone.
    pub human: String,
    /// Where it comes from.
    pub source: Source,
}

/// The value of one property, not yet put into words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer<'a> {
    shown: Shown<'a>,
    /// Where it comes from.
    pub source: Source,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Shown<'a> {
    Text(Cow<'a, str>),
    /// Of a limit that there is none: a number to scripts, a word to people.
    NoLimit,
    /// In hundredths.
    Ratio(u64),
    /// A number that is shown as it is.
    Plain(u64),
    Bytes(u64),
    Count(u64),
}

impl Answer<'_> {
    fn text(text: &str) -> Answer<'_> {
        Answer { shown: Shown::Text(text.into()), source: Source::None }
    }
    /// Writes it as scripts want it (`exact`), or people.
    pub fn write(&self, exact: bool, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = match (&self.shown, exact) {
            (Shown::Text(text), _) => out.write_str(text),
            (Shown::NoLimit, true) => out.write_str("0"),
            (Shown::NoLimit, false) => out.write_str("none"),
            (Shown::Ratio(n), _) => write!(out, "{}.{:02}{}", n / 100, n % 100, if exact { "" } else { "x" }),
            (Shown::Plain(n), _) | (Shown::Bytes(n) | Shown::Count(n), true) => {
                out.push_str(itoa::Buffer::new().format(*n));
                Ok(())
            }
            (Shown::Bytes(n), false) => nice(*n, BYTES, out),
            (Shown::Count(n), false) => nice(*n, COUNTS, out),
        };
    }
    /// The number that is shown as it is: of times, seconds since 1970.
    #[must_use]
    pub fn plain(&self) -> Option<u64> {
        if let Shown::Plain(n) = self.shown { Some(n) } else { None }
    }
    fn row(self, name: Cow<'static, str>) -> PropRow {
        let (mut value, mut human) = (String::new(), String::new());
        self.write(true, &mut value);
        self.write(false, &mut human);
        PropRow { name, value, human, source: self.source }
    }
}

/// A value with the source the kernel would report: `None` means «no word about it».
type Stat = (Value, Option<Source>);
type Stats = BTreeMap<Cow<'static, str>, Stat>;

/// A question about properties that is put to one dataset after another: what they have in common is read once.
pub struct Asking<'a> {
    dsl: &'a Dsl,
    io: &'a dyn BlockStore,
    /// The only properties that are asked for, in their order; `None` for any.
    wanted: Option<Vec<(&'a str, Option<&'static Prop>)>>,
    /// The same where the object of a snapshot tells all of them.
    told: Option<Vec<Told>>,
    /// What is inherited from a directory, by heads or by snapshots.
    inherited: RefCell<BTreeMap<(u64, bool), Rc<Stats>>>,
}

/// Directories whose legacy is kept in memory.
const INHERITED_MAX: usize = 64;

/// What the rules need to know of the dataset that is asked about.
struct Subject<'a> {
    name: &'a str,
    kind: Kind,
    stats: Stats,
    asking: &'a Asking<'a>,
    mounted: bool,
}

impl<'a> Subject<'a> {
    fn new(name: &'a str, kind: Kind, asking: &'a Asking<'a>) -> Self {
        Self { name, kind, stats: Stats::new(), asking, mounted: false }
    }
    /// Whether a property that may be asked for, and that this kind of dataset has, is one of those meant.
    fn wants_any(&self, meant: impl Fn(&str, Option<&Prop>) -> bool) -> bool {
        let fits = |p: &Option<&Prop>| p.is_none_or(|p| p.types & self.mask() != 0);
        let wanted = self.asking.wanted.as_ref();
        wanted.is_none_or(|all| all.iter().any(|(name, p)| fits(p) && meant(name, *p)))
    }
    /// Whether any of these will be asked for: what costs reading is left out otherwise.
    fn wants(&self, props: &[&str]) -> bool {
        self.wants_any(|name, _| props.contains(&name))
    }
    /// Whether anything will be asked for that can be set.
    fn wants_set(&self) -> bool {
        self.wants_any(|_, p| p.is_none_or(|p| !p.readonly() || p.setonce()))
    }
    fn mask(&self) -> u8 {
        match self.kind {
            Kind::Filesystem => FS,
            Kind::Volume => VOL,
            Kind::Snapshot | Kind::VolumeSnapshot => SNAP,
            Kind::Bookmark => BOOK,
        }
    }
    fn is_snapshot(&self) -> bool {
        matches!(self.kind, Kind::Snapshot | Kind::VolumeSnapshot)
    }
    fn number(&mut self, name: &'static str, value: u64) {
        if !self.wants(&[name]) {
            return;
        }
        let default = default_of(name) == Some(Value::Number(value));
        let old = self.stats.remove(name).and_then(|(_, s)| s);
        let source = if default { Some(Source::Default) } else { old };
        self.stats.insert(name.into(), (Value::Number(value), source));
    }
    fn text(&mut self, name: &'static str, value: String) {
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

/// Numbers that the object of a dataset tells by itself.
const OF_OBJECT: [&str; 13] = [
    "refcompressratio",
    "logicalreferenced",
    "compressratio",
    "used",
    "referenced",
    "creation",
    "createtxg",
    "guid",
    "unique",
    "objsetid",
    "defer_destroy",
    "inconsistent",
    "numclones",
];

/// What tells a number by the object of a dataset; `None` of a head where its directory tells it.
type Teller = fn(DatasetRef, &Brief) -> Option<u64>;

/// The teller of one of [`OF_OBJECT`].
fn teller(name: &str) -> Option<Teller> {
    Some(match name {
        "refcompressratio" => |_, ds| Some(ratio(ds.uncompressed_bytes, ds.compressed_bytes)),
        "logicalreferenced" => |_, ds| Some(ds.uncompressed_bytes),
        "compressratio" => |r, ds| r.snapshot.then(|| ratio(ds.uncompressed_bytes, ds.compressed_bytes)),
        "used" => |r, ds| r.snapshot.then_some(ds.unique_bytes),
        "referenced" => |_, ds| Some(ds.referenced_bytes),
        "creation" => |_, ds| Some(ds.creation_time),
        "createtxg" => |_, ds| Some(ds.creation_txg),
        "guid" => |_, ds| Some(ds.guid),
        "unique" => |_, ds| Some(ds.unique_bytes),
        "objsetid" => |r, _| Some(r.obj),
        "defer_destroy" => |_, ds| Some(u64::from(ds.flags & DS_FLAG_DEFER_DESTROY != 0)),
        "inconsistent" => |_, ds| Some(u64::from(ds.flags & DS_FLAG_INCONSISTENT != 0)),
        "numclones" => |r, ds| r.snapshot.then(|| ds.num_children.saturating_sub(1)),
        _ => return None,
    })
}

/// A property as the object of a snapshot tells it by itself, worked out once for all that are asked about.
struct Told {
    prop: &'static Prop,
    form: Form,
    /// `None` where only heads have the property.
    teller: Option<Teller>,
}

impl Told {
    /// `None` where more has to be asked than the object.
    fn of(p: &'static Prop) -> Option<Self> {
        let has = p.types & SNAP != 0;
        let teller = if has { Some(teller(p.name)?) } else { None };
        Some(Self { prop: p, form: Form::of(p), teller })
    }
    /// As [`answer`] finds it.
    fn answer(&self, kind: Kind, r: DatasetRef, ds: &Brief) -> Option<Answer<'static>> {
        let p = self.prop;
        let n = self.teller.filter(|_| p.types == SNAP || p.types & head_mask(kind) != 0)?(r, ds)?;
        Some(Answer { shown: self.form.shown(p, n)?, source: Source::None })
    }
}

/// The bit of the kind of dataset that `kind` is, or is a snapshot of.
fn head_mask(kind: Kind) -> u8 {
    match kind {
        Kind::Volume | Kind::VolumeSnapshot => VOL,
        _ => FS,
    }
}

/// The `@SNAP` or `#MARK` of a `written@SNAP` or `written#MARK`.
fn written_since(prop: &str) -> Option<String> {
    let snapshot = prop.strip_prefix("written@").map(|s| format!("@{s}"));
    snapshot.or_else(|| prop.strip_prefix("written#").map(|s| format!("#{s}")))
}

fn named<'a>(subject: &'a Subject<'_>, prop: &str, native: Option<&'static Prop>) -> Option<Answer<'a>> {
    if let Some(p) = native {
        return answer(subject, p);
    }
    match subject.stats.get(prop) {
        Some((Value::Text(t), source)) if super::is_user(prop) => {
            Some(Answer { source: source.clone().unwrap_or(Source::None), ..Answer::text(t) })
        }
        _ => None,
    }
}

impl Dsl {
    /// A question about `props`.
    #[must_use]
    pub fn asking<'a>(&'a self, io: &'a dyn BlockStore, props: &[&'a str]) -> Asking<'a> {
        let wanted: Vec<_> = props.iter().map(|p| (*p, table::find(p))).collect();
        let told = wanted.iter().map(|(_, p)| Told::of((*p)?)).collect();
        Asking { wanted: Some(wanted), told, ..self.asking_all(io) }
    }

    /// A question about all properties.
    #[must_use]
    pub fn asking_all<'a>(&'a self, io: &'a dyn BlockStore) -> Asking<'a> {
        Asking { dsl: self, io, wanted: None, told: None, inherited: RefCell::default() }
    }

    /// Every property of `name` that `zfs get all` shows, in its order.
    pub fn props(&self, io: &dyn BlockStore, name: &str) -> Result<Vec<PropRow>> {
        self.asking_all(io).all(name, None)
    }

    /// One property of `name`, hidden ones and `written@SNAP`, `written#MARK` too. `None` where `zfs get`
    /// prints a dash.
    pub fn prop(&self, io: &dyn BlockStore, name: &str, prop: &str) -> Result<Option<PropRow>> {
        Ok(self.asking(io, &[prop]).rows(name, None)?.pop().flatten())
    }

    /// What was received of the properties of `r`, in force or not (`zfs_prop_get_recvd`, libzfs_dataset.c).
    pub fn received_props(&self, io: &dyn BlockStore, r: DatasetRef) -> Result<Vec<PropRow>> {
        let row = |own: OwnProp| {
            let shown = match (own.value, table::find(&own.name)) {
                (Value::Number(n), Some(p)) => Form::of(p).shown(p, n)?,
                (Value::Number(n), None) => Shown::Plain(n),
                (Value::Text(text), _) => Shown::Text(text.into()),
            };
            Some(Answer { shown, source: Source::Received }.row(own.name.into()))
        };
        Ok(self.own_props(io, r, true)?.into_iter().filter_map(row).collect())
    }

    /// `None` where there is no such snapshot or bookmark, or it is no earlier state of the dataset: a dash, not a
    /// failure (`get_callback`, zfs_main.c). Where there is, libzfs calls the value's source local.
    fn written_answer(&self, io: &dyn BlockStore, name: &str, from: &str) -> Result<Option<Answer<'static>>> {
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
        Ok(Some(Answer { shown: Shown::Bytes(n), source: Source::Local }))
    }
}

impl Asking<'_> {
    /// Every property of `name` that `zfs get all` shows, in its order. What is known of it need not be looked up.
    pub fn all(&self, name: &str, known: Option<&Known>) -> Result<Vec<PropRow>> {
        let subject = self.subject(name, known)?;
        let mut out: Vec<PropRow> = PROPS
            .iter()
            .filter(|p| p.visible)
            .filter_map(|p| Some(answer(&subject, p)?.row(p.name.into())))
            .collect();
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

    /// As [`Dsl::prop`] of `name` for each property that is asked for, in their order.
    pub fn rows(&self, name: &str, known: Option<&Known>) -> Result<Vec<Option<PropRow>>> {
        let wanted = self.wanted.as_deref().unwrap_or_default();
        let mut names = wanted.iter().map(|(prop, native)| match native {
            Some(p) => Cow::Borrowed(p.name),
            None => Cow::Owned((*prop).to_string()),
        });
        let mut out = Vec::with_capacity(wanted.len());
        self.answers(name, known, &mut |answer| {
            let name = names.next().unwrap_or_default();
            out.push(answer.map(|answer| answer.row(name)));
        })?;
        Ok(out)
    }

    /// Calls `take` with the answer for each property that is asked for, in their order; `None` for a dash.
    pub fn answers(
        &self,
        name: &str,
        known: Option<&Known>,
        take: &mut dyn FnMut(Option<Answer<'_>>),
    ) -> Result<()> {
        if let Some(told) = &self.told
            && let Some(Known { r, kind, brief }) = known.filter(|known| known.r.snapshot)
        {
            let ds = self.brief(*r, brief.as_ref())?;
            told.iter().for_each(|told| take(told.answer(*kind, *r, &ds)));
            return Ok(());
        }
        let mut subject: Option<Subject<'_>> = None;
        for (prop, native) in self.wanted.as_deref().unwrap_or_default() {
            if let Some(from) = written_since(prop) {
                take(self.dsl.written_answer(self.io, name, &from)?);
                continue;
            }
            if subject.is_none() {
                subject = Some(self.subject(name, known)?);
            }
            take(subject.as_ref().and_then(|s| named(s, prop, *native)));
        }
        Ok(())
    }

    fn subject<'a>(&'a self, name: &'a str, known: Option<&Known>) -> Result<Subject<'a>> {
        let (dsl, io) = (self.dsl, self.io);
        if let Some(Known { r, kind, brief }) = known {
            return self.dataset_subject(Subject::new(name, *kind, self), *r, brief.as_ref());
        }
        match dsl.lookup(io, name)? {
            Found::Dataset(r) => self.dataset_subject(Subject::new(name, dsl.kind(io, r)?, self), r, None),
            Found::Bookmark { phys, .. } => {
                let mut s = Subject::new(name, Kind::Bookmark, self);
                bookmark_stats(&mut s, &phys);
                if phys.redaction_obj != 0 {
                    let list: Vec<String> =
                        dsl.redaction_snaps(io, &phys)?.iter().map(u64::to_string).collect();
                    s.text("redact_snaps", list.join(","));
                }
                Ok(s)
            }
        }
    }

    /// What the object of `r` says, unless it is known.
    fn brief(&self, r: DatasetRef, known: Option<&Brief>) -> Result<Brief> {
        match known {
            Some(brief) => Ok(*brief),
            None => Ok(Brief::of(&self.dsl.dataset(self.io, r.obj)?)),
        }
    }

    fn dataset_subject<'a>(
        &self,
        mut s: Subject<'a>,
        r: DatasetRef,
        brief: Option<&Brief>,
    ) -> Result<Subject<'a>> {
        let (dsl, io) = (self.dsl, self.io);
        let ds = self.brief(r, brief)?;
        if s.wants_set() {
            s.stats = self.set_props(r, &ds)?;
        }
        s.mounted = dsl.busy().is_mounted(r.obj);
        dsl.dataset_stats(io, r, &ds, &mut s)?;
        if !r.snapshot {
            dsl.dir_stats(io, r, &mut s)?;
        }
        dsl.objset_stats(io, r, &mut s)?;
        Ok(s)
    }

    /// Everything set here or above, with its source (`dsl_prop_get_all_ds`).
    fn set_props(&self, r: DatasetRef, ds: &Brief) -> Result<Stats> {
        let mut out = Stats::new();
        if !r.snapshot || ds.props_obj != 0 {
            self.add_own(&mut out, r, None, r.snapshot)?;
        }
        let above = if r.snapshot { r.dir } else { self.dsl.dir(self.io, r.dir)?.parent_obj };
        for (prop, stat) in &*self.inherited(above, r.snapshot)? {
            if !out.contains_key(prop) {
                out.insert(prop.clone(), stat.clone());
            }
        }
        Ok(out)
    }

    /// What a head below the directory `dir`, or a snapshot in it, inherits from it and from all above.
    fn inherited(&self, dir: u64, snapshot: bool) -> Result<Rc<Stats>> {
        if let Some(known) = self.inherited.borrow().get(&(dir, snapshot)) {
            return Ok(Rc::clone(known));
        }
        let (mut out, mut above) = (Stats::new(), dir);
        for _ in 0..crate::name::NESTING_MAX + 2 {
            if above == 0 {
                break;
            }
            let from = self.dsl.dir_name(self.io, above)?;
            let at = DatasetRef { obj: 0, dir: above, snapshot: false };
            self.add_own(&mut out, at, Some(&from), snapshot)?;
            above = self.dsl.dir(self.io, above)?.parent_obj;
        }
        let out = Rc::new(out);
        let mut kept = self.inherited.borrow_mut();
        if kept.len() >= INHERITED_MAX {
            kept.clear();
        }
        kept.insert((dir, snapshot), Rc::clone(&out));
        Ok(out)
    }

    /// Adds what is set on `of` itself and not yet there; as an inheritance `from` it, what is inheritable.
    fn add_own(&self, out: &mut Stats, of: DatasetRef, from: Option<&str>, snapshot: bool) -> Result<()> {
        for p in self.dsl.own_props(self.io, of, false)? {
            let native = table::find(&p.name);
            let inherits = native.is_none_or(Prop::inheritable);
            let fits = !snapshot || native.is_none_or(|n| n.types & SNAP != 0);
            if (from.is_some() && !inherits) || !fits || out.contains_key(p.name.as_str()) {
                continue;
            }
            let source = match (from, p.received) {
                (Some(from), _) => Source::Inherited(from.into()),
                (None, true) => Source::Received,
                (None, false) => Source::Local,
            };
            out.insert(p.name.into(), (p.value, Some(source)));
        }
        Ok(())
    }
}

impl Dsl {
    /// `dsl_dataset_stats`.
    fn dataset_stats(
        &self,
        io: &dyn BlockStore,
        r: DatasetRef,
        ds: &Brief,
        s: &mut Subject<'_>,
    ) -> Result<()> {
        for name in OF_OBJECT {
            if let Some(n) = teller(name).and_then(|tell| tell(r, ds)) {
                s.number(name, n);
            }
        }
        if !r.snapshot {
            let dd = self.dir(io, r.dir)?;
            s.number("compressratio", ratio(dd.uncompressed_bytes, dd.compressed_bytes));
            s.number("used", dd.used_bytes);
        }
        if s.wants(&["userrefs"]) {
            s.number("userrefs", self.zap_count(io, ds.userrefs_obj)?);
        }
        if r.snapshot {
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

    fn crypt_stats(&self, io: &dyn BlockStore, r: DatasetRef, s: &mut Subject<'_>) -> Result<()> {
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
    fn dir_stats(&self, io: &dyn BlockStore, r: DatasetRef, s: &mut Subject<'_>) -> Result<()> {
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
            if s.wants(&[prop])
                && let Some(n) = self.field_u64(io, r.dir, field)?
            {
                s.number(prop, n);
            }
        }
        if s.wants(&["snapshots_changed"])
            && let Some(t) = self.field_u64(io, r.dir, "com.ixsystems:snapshots_changed")?
        {
            s.number("snapshots_changed", t);
        }
        if self.is_clone(&dd) && s.wants(&["origin"]) {
            s.text("origin", self.name(io, self.by_object(io, dd.origin_obj)?)?);
        }
        Ok(())
    }

    /// What stands in the objset itself: of a volume its size, of a file system its master node
    /// (`zvol_get_stats`, `zfs_get_zplprop`). Left out where it cannot be read without a key.
    fn objset_stats(&self, io: &dyn BlockStore, r: DatasetRef, s: &mut Subject<'_>) -> Result<()> {
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

impl Subject<'_> {
    /// A number without a source, whatever its default.
    fn text_free_number(&mut self, name: &'static str, value: u64) {
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

fn bookmark_stats(s: &mut Subject<'_>, b: &BookmarkPhys) {
    s.number("guid", b.guid);
    s.number("createtxg", b.creation_txg);
    s.number("creation", b.creation_time);
    s.number("ivsetguid", b.ivset_guid);
    if b.has_freed_before_next() {
        s.number("referenced", b.referenced[0]);
        s.number("logicalreferenced", b.referenced[2]);
        s.number("refcompressratio", ratio(b.referenced[2], b.referenced[1]));
    }
}

/// Hundredths of logical over physical, 100 where there is nothing.
fn ratio(logical: u64, physical: u64) -> u64 {
    logical.saturating_mul(100).checked_div(physical).unwrap_or(100)
}

/// The answer, or `None` where `zfs get` has nothing to say (`zfs_prop_get`).
fn answer<'a>(s: &'a Subject<'_>, p: &'static Prop) -> Option<Answer<'a>> {
    if p.types & s.mask() == 0 {
        return None;
    }
    match p.name {
        "type" => return Some(Answer::text(s.kind.text())),
        "name" => return Some(Answer::text(s.name)),
        "mounted" => return Some(Answer::text(if s.mounted { "yes" } else { "no" })),
        "mountpoint" => return Some(mountpoint(s, p)),
        _ => {}
    }
    match p.kind {
        Type::Text(default) => Some(match s.stats.get(p.name) {
            Some((Value::Text(t), source)) => {
                Answer { source: source.clone().unwrap_or(Source::None), ..Answer::text(t) }
            }
            _ => Answer { source: Source::Default, ..Answer::text(default?) },
        }),
        _ => {
            let (n, source) = numeric(s, p)?;
            Some(Answer { shown: Form::of(p).shown(p, n)?, source })
        }
    }
}

fn numeric(s: &Subject<'_>, p: &Prop) -> Option<(u64, Source)> {
    if s.is_snapshot() && p.types != SNAP && p.types & head_mask(s.kind) == 0 {
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

/// How a number is shown.
#[derive(Clone, Copy, Debug)]
enum Form {
    Ratio,
    /// A limit of bytes: none is 0.
    Limit,
    /// A limit of datasets: none is the largest number.
    CountLimit,
    Plain,
    Bytes,
    Count,
    Word,
}

impl Form {
    fn of(p: &Prop) -> Self {
        match p.name {
            "compressratio" | "refcompressratio" => Self::Ratio,
            "quota" | "refquota" | "reservation" | "refreservation" => Self::Limit,
            "filesystem_limit" | "snapshot_limit" | "filesystem_count" | "snapshot_count" => Self::CountLimit,
            "guid" | "keyguid" | "ivsetguid" | "createtxg" | "objsetid" | "pbkdf2iters" | "creation"
            | "snapshots_changed" | "pbkdf2salt" => Self::Plain,
            "recordsize"
            | "volsize"
            | "volblocksize"
            | "written"
            | "logicalused"
            | "logicalreferenced"
            | "special_small_blocks" => Self::Count,
            _ => match p.kind {
                Type::Index(..) => Self::Word,
                Type::Bytes(_) => Self::Bytes,
                _ => Self::Count,
            },
        }
    }
    fn shown(self, p: &Prop, n: u64) -> Option<Shown<'static>> {
        Some(match self {
            Self::Ratio => Shown::Ratio(n),
            Self::Limit if n == 0 => Shown::NoLimit,
            Self::CountLimit if n == u64::MAX => Shown::Text("none".into()),
            Self::Plain => Shown::Plain(n),
            Self::Limit | Self::Bytes => Shown::Bytes(n),
            Self::Count | Self::CountLimit => Shown::Count(n),
            Self::Word => Shown::Text(p.word(n)?.into()),
        })
    }
}

/// The path a file system would be mounted at: the inherited one goes on with the rest of the name.
fn mountpoint<'a>(s: &'a Subject<'_>, p: &Prop) -> Answer<'a> {
    let (set, source) = match s.stats.get(p.name) {
        Some((Value::Text(t), source)) => (t.clone(), source.clone().unwrap_or(Source::None)),
        _ => ("/".into(), Source::Default),
    };
    let value = if set.starts_with('/') {
        let rest = match &source {
            Source::Inherited(from) => {
                s.name.get(from.len()..).unwrap_or("").trim_start_matches('/').to_string()
            }
            Source::Default => s.name.to_string(),
            _ => String::new(),
        };
        let path = match (set.as_str(), rest.as_str()) {
            (_, "") => set,
            ("/", rest) => format!("/{rest}"),
            (set, rest) => format!("{set}/{rest}"),
        };
        match (s.asking.dsl.altroot.trim_end_matches('/'), path.as_str()) {
            ("", _) => path,
            (root, "/") => root.into(),
            (root, path) => format!("{root}{path}"),
        }
    } else {
        set
    };
    Answer { shown: Shown::Text(value.into()), source }
}

const BYTES: [&str; 7] = ["B", "K", "M", "G", "T", "P", "E"];
const COUNTS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];

/// At most five characters: `1.21G`, `0B`, `96K` (`zfs_nicebytes`).
#[must_use]
pub fn nice_bytes(n: u64) -> String {
    let mut out = String::new();
    let _ = nice(n, BYTES, &mut out);
    out
}

/// The same without a unit for small numbers (`zfs_nicenum`).
#[must_use]
pub fn nice_number(n: u64) -> String {
    let mut out = String::new();
    let _ = nice(n, COUNTS, &mut out);
    out
}

#[allow(clippy::cast_precision_loss)]
fn nice(n: u64, units: [&str; 7], out: &mut String) -> std::fmt::Result {
    let index = (0..7).rev().find(|i| n >> (10 * i) != 0).unwrap_or(0);
    let unit = units[index];
    let whole = 1_u64 << (10 * index);
    if index == 0 || n.is_multiple_of(whole) {
        out.push_str(itoa::Buffer::new().format(n >> (10 * index)));
        out.push_str(unit);
        return Ok(());
    }
    let (value, start) = (n as f64 / whole as f64, out.len());
    for precision in (0..=2).rev() {
        // Cut, not rounded, where rounding would reach the next unit is libzfs's way only from 2.0 on:
        // it prints with the precision that fits five characters.
        write!(out, "{value:.precision$}{unit}")?;
        if out.len() - start <= 5 {
            return Ok(());
        }
        out.truncate(start);
    }
    write!(out, "{value:.0}{unit}")
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
