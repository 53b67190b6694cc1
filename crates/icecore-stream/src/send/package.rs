//! Packages: several snapshots and datasets in one stream, with a list of what they are
//! (`zfs send -R`, `-I`, `-p`, `-h`, `-b`; `zfs_send` and `gather_nvlist`, libzfs_sendrecv.c).
//!
//! Invariants:
//! 1. The list is complete before the first byte goes out; what makes it impossible is an error by then.
//! 2. Datasets come after their parents and after what they were cloned from; of a dataset its snapshots in
//!    the order of their making, each building on the one before.
//! 3. Siblings come in the order of a ZAP cursor, as OpenZFS meets them.

use super::estimate::PlannedStream;
use super::source::{ancestor_snapshot, source_of};
use super::{Progress, SendError, SendSpec, Sent, resolve, send_stream, stream_writer};
use crate::package::key;
use icecore_dmu::{BlockStore, Objset};
use icecore_dsl::prop::{Value, is_user, table};
use icecore_dsl::{DatasetRef, Dsl, DslError};
use icecore_format::ObjectId;
use icecore_format::nvlist::NvList;
use icecore_format::stream::{Begin, COMPOUND, End, PayloadLen, ToName, feature};
use icecore_format::{stream::MAX_BEGIN_PAYLOAD, zap::Key};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

/// What to send, and with what around it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PackageSpec {
    /// Snapshot, incremental source, flags.
    pub send: SendSpec,
    /// `-R`: all datasets below, with properties, clones and all their snapshots up to this one.
    pub replicate: bool,
    /// `-I`: the snapshots between source and target as well.
    pub intermediates: bool,
    /// `-p`: properties.
    pub properties: bool,
    /// `-b`: received property values instead of local ones.
    pub backup: bool,
    /// `-h`: holds.
    pub holds: bool,
    /// `-s`: datasets below that lack the snapshot are left out.
    pub skip_missing: bool,
    /// `-U`: encrypted datasets may go decrypted although properties go with them.
    pub no_preserve_encryption: bool,
    /// `-X`: datasets left out with all below them.
    pub exclude: Vec<String>,
}

impl PackageSpec {
    fn has_head(&self) -> bool {
        self.replicate || self.intermediates || self.properties || self.backup || self.holds
    }
}

/// Sends what `spec` asks for: a package, or a bare stream where nothing in `spec` needs one.
pub fn send_package(
    io: &dyn BlockStore,
    dsl: &Dsl,
    spec: &PackageSpec,
    out: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<Sent, SendError> {
    send_prepared(io, &prepare(io, dsl, spec)?, out, progress)
}

/// All that a send takes from the names and properties of datasets; what is left to read are the snapshots' own blocks,
/// which nothing changes.
#[derive(Debug)]
pub struct Prepared {
    /// The package's BEGIN with its list; `None` for a bare stream.
    head: Option<(Begin, Vec<u8>)>,
    sources: Vec<super::Source>,
    send: SendSpec,
    warnings: Vec<String>,
}

impl Prepared {
    /// The dataset objects that are going to be read.
    pub fn objects(&self) -> impl Iterator<Item = u64> {
        self.sources.iter().map(|s| s.to.obj)
    }
}

/// The first half of [`send_package`].
pub fn prepare(io: &dyn BlockStore, dsl: &Dsl, spec: &PackageSpec) -> Result<Prepared, SendError> {
    let send = spec.send.clone();
    if spec.replicate || spec.intermediates {
        let mut plan = Plan::new(io, dsl, spec)?;
        let sources = plan.jobs.iter().map(|job| plan.source(job)).collect::<Result<_, _>>()?;
        let warnings = std::mem::take(&mut plan.warnings);
        return Ok(Prepared { head: Some(plan.head()?), sources, send, warnings });
    }
    let sources = vec![resolve(io, dsl, &spec.send)?];
    let head = if spec.has_head() { Some(Plan::head_only(io, dsl, spec)?.head()?) } else { None };
    Ok(Prepared { head, sources, send, warnings: Vec::new() })
}

/// The second half of [`send_package`].
pub fn send_prepared(
    io: &dyn BlockStore,
    prepared: &Prepared,
    out: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<Sent, SendError> {
    let mut writer = stream_writer(out);
    let mut sent = Sent { warnings: prepared.warnings.clone(), ..Sent::default() };
    if let Some((begin, payload)) = &prepared.head {
        writer.write(&begin.clone().into(), payload)?;
        writer.write(&End::default().into(), &[])?;
    }
    let (flags, packing) = (prepared.send.flags, prepared.send.packing);
    for source in &prepared.sources {
        sent.features = send_stream(io, source, flags, packing, &mut writer, progress)?;
        sent.snapshots += 1;
    }
    if prepared.head.is_some() {
        writer.write(&End::default().into(), &[])?;
    }
    writer.flush()?;
    sent.bytes = writer.offset();
    Ok(sent)
}

/// The streams a package will consist of, not yet estimated.
pub(crate) fn package_streams(
    io: &dyn BlockStore,
    dsl: &Dsl,
    spec: &PackageSpec,
) -> Result<Vec<PlannedStream>, SendError> {
    let stream = |to: &str, previous: Option<String>, from: Option<String>| PlannedStream {
        to: to.to_owned(),
        previous,
        from,
        bytes: 0,
    };
    if !spec.replicate && !spec.intermediates {
        return Ok(vec![stream(&spec.send.to, spec.send.from.clone(), spec.send.from.clone())]);
    }
    let plan = Plan::new(io, dsl, spec)?;
    let planned = plan.jobs.iter().map(|job| {
        let from = job.from.as_ref().map(|f| f.0.clone());
        let previous = if job.from_origin { None } else { from.clone() };
        stream(&job.to.0, previous, from)
    });
    Ok(planned.collect())
}

type Named = (String, DatasetRef);

/// One stream to come.
struct Job {
    to: Named,
    from: Option<Named>,
    /// `from` is what the dataset was cloned from.
    from_origin: bool,
}

/// A dataset of the package.
struct Fs {
    path: String,
    head: DatasetRef,
    /// Guid of the parent's incremental source (or of its target, when it is new).
    parent_from: u64,
    /// Guid of the snapshot it was cloned from; 0 if it was not.
    origin: u64,
    /// Its part of the list, under its guid.
    list: (String, NvList),
    snaps: Vec<(String, u64)>,
    sent: bool,
}

struct Plan<'a> {
    io: &'a dyn BlockStore,
    dsl: &'a Dsl,
    spec: &'a PackageSpec,
    path: String,
    to: String,
    from: Option<String>,
    /// Build on the origin although not replicating.
    from_origin: bool,
    recursive: bool,
    all: bool,
    fss: Vec<Fs>,
    seen_from: bool,
    seen_to: bool,
    jobs: Vec<Job>,
    warnings: Vec<String>,
}

/// What a dataset hands down to its children while the list is gathered.
#[derive(Clone, Copy, Default)]
struct Above {
    parent_from: u64,
    to_txg: u64,
}

impl<'a> Plan<'a> {
    fn empty(io: &'a dyn BlockStore, dsl: &'a Dsl, spec: &'a PackageSpec) -> Result<Self, SendError> {
        let (path, to) =
            spec.send.to.split_once('@').ok_or_else(|| SendError::NoSnapshot(spec.send.to.clone()))?;
        Ok(Self {
            io,
            dsl,
            spec,
            path: path.to_owned(),
            to: to.to_owned(),
            from: None,
            from_origin: false,
            recursive: spec.replicate,
            all: spec.intermediates || (spec.replicate && spec.send.from.is_none()),
            fss: Vec::new(),
            seen_from: false,
            seen_to: false,
            jobs: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// For one stream with properties or holds.
    fn head_only(io: &'a dyn BlockStore, dsl: &'a Dsl, spec: &'a PackageSpec) -> Result<Self, SendError> {
        let mut plan = Self::empty(io, dsl, spec)?;
        plan.gather(&plan.path.clone(), Above::default())?;
        Ok(plan)
    }

    fn new(io: &'a dyn BlockStore, dsl: &'a Dsl, spec: &'a PackageSpec) -> Result<Self, SendError> {
        let mut plan = Self::empty(io, dsl, spec)?;
        if spec.send.resume.is_some() {
            return Err(SendError::Options("a package cannot be resumed"));
        }
        if plan.snapshot(&plan.path, &plan.to)?.is_none() {
            return Err(SendError::NoSnapshot(spec.send.to.clone()));
        }
        plan.resolve_from()?;
        if spec.replicate || spec.properties || spec.holds {
            plan.gather(&plan.path.clone(), Above::default())?;
        }
        plan.order()?;
        if plan.jobs.is_empty() {
            return Err(match plan.warnings.pop() {
                Some(why) => SendError::Nothing(why),
                None => SendError::NoSnapshot(spec.send.to.clone()),
            });
        }
        Ok(plan)
    }

    fn resolve_from(&mut self) -> Result<(), SendError> {
        let Some(from) = &self.spec.send.from else { return Ok(()) };
        if from.contains('#') {
            return Err(SendError::Options("multiple snapshots cannot be sent from a bookmark"));
        }
        let (path, snap) = from.split_once('@').unwrap_or((self.path.as_str(), from.as_str()));
        let head = self.dsl.lookup_head(self.io, &self.path)?;
        if let Some((origin, _)) = self.origin(head)?
            && origin == *from
        {
            self.from_origin = true;
            self.all |= self.spec.replicate;
            return Ok(());
        }
        if !path.is_empty() && path != self.path {
            return Err(SendError::Options("incremental source must be in same filesystem"));
        }
        if self.snapshot(&self.path, snap)?.is_none() {
            let from = format!("{}@{snap}", self.path);
            return Err(SendError::NoSource { to: self.spec.send.to.clone(), from });
        }
        self.from = Some(snap.to_owned());
        Ok(())
    }

    fn snapshot(&self, path: &str, snap: &str) -> Result<Option<DatasetRef>, SendError> {
        match self.dsl.lookup_snapshot(self.io, &format!("{path}@{snap}")) {
            Ok(r) => Ok(Some(r)),
            Err(DslError::NotFound(_)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
    /// Creation txg of the snapshot; 0 if there is none.
    fn snapshot_txg(&self, path: &str, snap: Option<&String>) -> Result<u64, SendError> {
        let Some(snap) = snap else { return Ok(0) };
        match self.snapshot(path, snap)? {
            Some(r) => Ok(self.dsl.dataset(self.io, r.obj)?.creation_txg),
            None => Ok(0),
        }
    }
    /// What the dataset was cloned from.
    fn origin(&self, head: DatasetRef) -> Result<Option<Named>, SendError> {
        let dir = self.dsl.dir(self.io, head.dir)?;
        if !self.dsl.is_clone(&dir) {
            return Ok(None);
        }
        let r = self.dsl.by_object(self.io, dir.origin_obj)?;
        Ok(Some((self.dsl.name(self.io, r)?, r)))
    }

    /// Adds `path` and, when recursive, all below it (`send_iterate_fs`).
    fn gather(&mut self, path: &str, mut above: Above) -> Result<(), SendError> {
        if self.spec.exclude.iter().any(|e| e == path) {
            return Ok(());
        }
        let head = self.dsl.lookup_head(self.io, path)?;
        let ds = self.dsl.dataset(self.io, head.obj)?;
        let from_txg = self.snapshot_txg(path, self.from.as_ref())?;
        let to_txg = self.snapshot_txg(path, Some(&self.to))?;
        if to_txg != 0 {
            above.to_txg = to_txg;
        } else {
            let missing = format!("{path}@{}", self.to);
            if above.to_txg != 0 && ds.creation_txg > above.to_txg {
                return Ok(());
            }
            if self.spec.skip_missing {
                self.warnings.push(format!(
                    "skipping dataset {path} and its children: snapshot {missing} does not exist"
                ));
                return Ok(());
            }
            return Err(SendError::MissingBelow { sending: self.spec.send.to.clone(), missing });
        }

        let mut list = NvList::new();
        list.set(key::NAME, path).set(key::PARENT_FROM, above.parent_from);
        let origin = self.origin(head)?;
        let origin_guid = match &origin {
            Some((_, r)) => self.dsl.dataset(self.io, r.obj)?.guid,
            None => 0,
        };
        if origin.is_some() {
            list.set(key::ORIGIN, origin_guid);
        }
        if self.spec.properties || self.spec.backup || self.recursive {
            list.set(key::PROPS, self.props(head)?);
        }
        self.encryption(path, head, &mut list)?;
        let parent_from = above.parent_from;
        above.parent_from = 0;
        let snaps = self.gather_snapshots(path, head, (from_txg, to_txg), &mut above, &mut list)?;
        self.fss.push(Fs {
            path: path.to_owned(),
            head,
            parent_from,
            origin: origin_guid,
            list: (format!("{:#x}", ds.guid), list),
            snaps,
            sent: false,
        });
        if self.recursive {
            for child in self.children(path, head)? {
                self.gather(&child, above)?;
            }
        }
        Ok(())
    }

    fn encryption(&self, path: &str, head: DatasetRef, list: &mut NvList) -> Result<(), SendError> {
        let Some(root) = self.dsl.encryption_root(self.io, head.dir)? else { return Ok(()) };
        if root == head.dir {
            list.set_flag(key::IS_ENCROOT);
        }
        if !self.spec.send.flags.raw && !self.spec.no_preserve_encryption {
            let sending = self.spec.send.to.clone();
            return Err(SendError::EncryptedWithProperties { sending, dataset: path.to_owned() });
        }
        Ok(())
    }

    /// The lists of a dataset's snapshots (`send_iterate_snap`).
    fn gather_snapshots(
        &mut self,
        path: &str,
        head: DatasetRef,
        (from_txg, to_txg): (u64, u64),
        above: &mut Above,
        list: &mut NvList,
    ) -> Result<Vec<(String, u64)>, SendError> {
        let (mut names, mut props, mut holds) = (NvList::new(), NvList::new(), NvList::new());
        let mut found = Vec::new();
        let several = self.all || self.spec.replicate;
        if !several && self.from.is_some() {
            self.seen_from = true;
        }
        let bounded = several && !self.spec.replicate;
        let min = if bounded { from_txg } else { 0 };
        for (snap, r) in self.snapshots_of(path, head)? {
            let ds = self.dsl.dataset(self.io, r.obj)?;
            let outside = ds.creation_txg < min || (bounded && to_txg != 0 && ds.creation_txg > to_txg);
            if outside || (!several && snap != self.to) {
                continue;
            }
            if above.to_txg != 0 && ds.creation_txg > above.to_txg {
                continue;
            }
            names.set(snap.as_str(), ds.guid);
            found.push((snap.clone(), ds.guid));
            let (is_from, is_to) = (self.from.as_ref() == Some(&snap), self.to == snap);
            if is_from || (above.parent_from == 0 && is_to) {
                above.parent_from = ds.guid;
            }
            if !self.recursive && !self.takes_properties(is_from, is_to) {
                continue;
            }
            props.set(snap.as_str(), self.props(r)?);
            if self.spec.holds {
                let mut tags = NvList::new();
                for (tag, when) in self.dsl.holds(self.io, r)? {
                    tags.set(tag, when);
                }
                holds.set(snap.as_str(), tags);
            }
        }
        list.set(key::SNAPS, names).set(key::SNAPPROPS, props);
        if self.spec.holds {
            list.set(key::SNAPHOLDS, holds);
        }
        Ok(found)
    }

    /// Whether a snapshot's properties are listed when only one dataset is sent: those after the source, up
    /// to the target.
    fn takes_properties(&mut self, is_from: bool, is_to: bool) -> bool {
        if self.all && self.from.is_none() {
            self.seen_from = true;
        }
        if !self.seen_from && is_from {
            self.seen_from = true;
            return false;
        }
        let to_without_from = is_to && self.from.is_none();
        if (self.seen_to || !self.seen_from) && !to_without_from {
            return false;
        }
        self.seen_to |= is_to;
        true
    }

    fn snapshots_of(&self, path: &str, _head: DatasetRef) -> Result<Vec<Named>, SendError> {
        Ok(self.dsl.snapshots(self.io, path)?)
    }

    /// Properties set on the dataset itself, those that can be set again (`send_iterate_prop`).
    fn props(&self, r: DatasetRef) -> Result<NvList, SendError> {
        let mut list = NvList::new();
        if self.spec.backup && !self.dsl.has_received_props(self.io, r.dir)? {
            return Ok(list);
        }
        for p in self.dsl.own_props(self.io, r, self.spec.backup)? {
            let native = table::find(&p.name);
            let travels = is_user(&p.name) || native.is_some_and(|n| !n.readonly());
            let space = matches!(p.name.as_str(), "quota" | "reservation" | "refquota" | "refreservation");
            if !travels || (space && r.snapshot) {
                continue;
            }
            match p.value {
                Value::Number(n) => list.set(p.name, n),
                Value::Text(t) => list.set(p.name, t),
            };
        }
        Ok(list)
    }

    /// Children in the order of a ZAP cursor over the directory's table: by hash.
    fn children(&self, path: &str, head: DatasetRef) -> Result<Vec<String>, SendError> {
        let names = self.dsl.children(self.io, path)?;
        let table = ObjectId(self.dsl.dir(self.io, head.dir)?.child_dir_zapobj);
        let (salt, flags) = zap_salt(self.io, &self.dsl.mos, table)?;
        let mut out: Vec<(u64, String)> = names
            .into_iter()
            .map(|n| (Key::name(n.rsplit('/').next().unwrap_or("").as_bytes()).hash(salt, flags), n))
            .collect();
        out.sort();
        Ok(out.into_iter().map(|(_, n)| n).collect())
    }

    /// Fills `jobs` (`dump_filesystems`).
    fn order(&mut self) -> Result<(), SendError> {
        if !self.spec.replicate {
            let head = self.dsl.lookup_head(self.io, &self.path)?;
            return self.dataset_jobs(&self.path.clone(), head, &BTreeSet::new());
        }
        let mut by_guid = BTreeMap::new();
        for (i, fs) in self.fss.iter().enumerate() {
            for (name, guid) in &fs.snaps {
                by_guid.entry(*guid).or_insert((i, name.clone()));
            }
        }
        let mut origins = BTreeSet::new();
        for fs in &self.fss {
            if let Some((i, name)) = by_guid.get(&fs.origin) {
                origins.insert((*i, name.clone()));
            }
        }
        let owner = |guid: u64| by_guid.get(&guid).map(|(i, _)| *i);
        loop {
            let (mut again, mut progress) = (false, false);
            for i in 0..self.fss.len() {
                let Some(fs) = self.fss.get(i) else { continue };
                if fs.sent {
                    continue;
                }
                let waits_for = |guid: u64| {
                    owner(guid).and_then(|o| self.fss.get(o)).is_some_and(|o| !o.sent && o.path != fs.path)
                };
                if waits_for(fs.parent_from) || waits_for(fs.origin) {
                    again = true;
                    continue;
                }
                let (path, head) = (fs.path.clone(), fs.head);
                let keep = origins.iter().filter(|(o, _)| *o == i).map(|(_, n)| n.clone()).collect();
                self.dataset_jobs(&path, head, &keep)?;
                if let Some(fs) = self.fss.get_mut(i) {
                    fs.sent = true;
                }
                progress = true;
            }
            if !again {
                return Ok(());
            }
            if !progress {
                return Err(SendError::Unsupported("datasets cloned from one another in a circle".into()));
            }
        }
    }

    /// The streams of one dataset (`dump_filesystem`, `dump_snapshot`). `keep` are snapshots that clones in
    /// the package need.
    fn dataset_jobs(
        &mut self,
        path: &str,
        head: DatasetRef,
        keep: &BTreeSet<String>,
    ) -> Result<(), SendError> {
        if self.snapshot(path, &self.to)?.is_none() {
            self.warnings.push(format!("could not send {path}@{}: does not exist", self.to));
            return Ok(());
        }
        let from = match &self.from {
            Some(f) if !(self.spec.replicate && self.snapshot(path, f)?.is_none()) => Some(f.clone()),
            _ => None,
        };
        let (mut seen_from, mut seen_to) = (from.is_none(), false);
        let mut previous: Option<Named> = None;
        for (snap, r) in self.snapshots_of(path, head)? {
            let is_from = from.as_ref() == Some(&snap);
            let named = (format!("{path}@{snap}"), r);
            if !seen_from && is_from {
                seen_from = true;
                previous = Some(named);
                continue;
            }
            if seen_to || !seen_from {
                continue;
            }
            let is_to = self.to == snap;
            seen_to |= is_to;
            let wanted = self.all || is_from || is_to || (self.spec.replicate && keep.contains(&snap));
            if !wanted {
                continue;
            }
            let base = match &previous {
                Some(p) => Some(p.clone()),
                None if self.from_origin || self.spec.replicate => self.origin(head)?,
                None => None,
            };
            let from_origin = previous.is_none();
            self.jobs.push(Job { to: named.clone(), from: base, from_origin });
            previous = Some(named);
        }
        if !seen_to {
            let source = from.unwrap_or_default();
            self.warnings.push(format!(
                "could not send {path}@{}:\nincremental source ({path}@{source}) is not earlier than it",
                self.to
            ));
        }
        Ok(())
    }

    fn source(&self, job: &Job) -> Result<super::Source, SendError> {
        let mut source = source_of(self.io, self.dsl, &job.to.0, job.to.1)?;
        if let Some(from) = &job.from {
            let (to, from) = ((job.to.0.as_str(), job.to.1), (from.0.as_str(), from.1));
            source.from = Some(ancestor_snapshot(self.io, self.dsl, to, from)?);
        }
        Ok(source)
    }

    /// BEGIN with the list, before its END (`send_prelim_records`).
    fn head(&self) -> Result<(Begin, Vec<u8>), SendError> {
        let mut payload = Vec::new();
        if !self.fss.is_empty() {
            let mut head = NvList::new();
            if let Some(from) = &self.from {
                head.set(key::FROMSNAP, from.as_str());
            }
            head.set(key::TOSNAP, self.to.as_str());
            if !self.recursive {
                head.set_flag(key::NOT_RECURSIVE);
            }
            if self.spec.send.flags.raw {
                head.set_flag(key::RAW);
            }
            let mut fss = NvList::new();
            for fs in &self.fss {
                fss.set(fs.list.0.as_str(), fs.list.1.clone());
            }
            head.set(key::FSS, fss);
            payload = head.encode_xdr();
        }
        if payload.len() as u64 > MAX_BEGIN_PAYLOAD {
            return Err(SendError::ListTooLarge);
        }
        let mut begin = Begin::new(COMPOUND, if self.spec.holds { feature::HOLDS } else { 0 });
        let name = &self.spec.send.to;
        begin.toname = ToName::new(name).ok_or_else(|| SendError::Name(name.clone()))?;
        begin.payload_len = PayloadLen(u32::try_from(payload.len()).map_err(|_| SendError::ListTooLarge)?);
        Ok((begin, payload))
    }
}

/// Salt and flags that decide the hash of names in a ZAP.
fn zap_salt(io: &dyn BlockStore, mos: &Objset, obj: ObjectId) -> Result<(u64, u64), SendError> {
    use icecore_format::zap::{HeaderPhys, Kind, kind, micro};
    let dn = mos.dnode(io, obj)?;
    let Some(block) = mos.block(io, obj, &dn, 0)? else { return Ok((0, 0)) };
    Ok(match kind(&block)? {
        Kind::Micro => (micro::parse(&block)?.0, 0),
        Kind::Fat => {
            let head = HeaderPhys::parse(&block)?;
            (head.salt.get(), head.flags.get())
        }
    })
}
