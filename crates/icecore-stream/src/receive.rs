//! Receive: a stream of `zfs send` becomes snapshots of a pool.
//!
//! `rules` says what a record may say, `apply` turns records into changes, `begin` and `finish` are the
//! two ends of a dataset's receive, `package` is for streams of many snapshots, `props` for what travels
//! beside the data, `keydata` for the keys of raw streams, `roots` for whose wrapping they are under.
//!
//! Invariants:
//! 1. A record is applied only after the checksum of the next one has proven it.
//! 2. Nothing of a receive is visible before its last commit, and that makes all of it visible: a cut
//!    anywhere leaves the datasets as they were, beside partial state that is marked as such.
//! 3. A receive that fails leaves partial state only if it was asked to be resumable and had passed its
//!    first checks. Otherwise the pool is as before. Where no more data fits, it leaves all that did.
//! 4. One parser for receiving, skipping and dry runs.
//! 5. Memory: one batch of blocks, one record ahead, and the dirty metadata of less than
//!    [`DIRTY_MAX`] bytes.

pub mod apply;
mod begin;
pub mod error;
mod finish;
pub mod keydata;
mod package;
mod props;
mod roots;
pub mod rules;

pub use error::ReceiveError;
pub use roots::{SharedRoot, inherit_root};

use apply::{Applier, ApplyError};
use begin::{Ask, Place, Receiving};
use icecore_dmu::{BlockStore, BlockWriter, WriteError};
use icecore_dsl::resume::{Point, RECV_CLONE};
use icecore_dsl::{Dsl, DslError, Feature, Hold, NewCrypt, NewKey};
use icecore_format::NvList;
use icecore_format::fletcher::{Fletcher4, HashFn};
use icecore_format::objset::ObjsetType;
use icecore_format::stream::{Begin, Entry, Record, StreamReader, begin_flag, feature};
use icecore_transform::crypt::{MasterKeys, Suite};
use roots::Renewed;
use std::io::Read;
use std::sync::Arc;

type Result<T, E = ReceiveError> = std::result::Result<T, E>;

/// Bytes of dirty metadata that force a commit.
pub const DIRTY_MAX: u64 = 48 << 20;
/// Bytes of data after which a commit makes what was received durable.
pub const DATA_MAX: u64 = 512 << 20;
/// Nanoseconds after which a receive that can be resumed commits, however little came: so much is lost if
/// its process is killed.
pub const RESUME_NS: u64 = 5_000_000_000;
/// Records between two looks at the dirty metadata.
const DIRTY_LOOK: u64 = 512;
/// Largest buffer prepared for a payload before any of it was read.
const PAYLOAD_GUESS_MAX: usize = 1 << 20;

/// What receive needs of an open pool.
pub trait Engine {
    /// The pool's blocks and its datasets.
    fn parts(&mut self) -> (&mut dyn BlockWriter, &mut Dsl);
    /// Commits the open txg.
    fn commit(&mut self) -> Result<(), String>;
    /// Forgets the open txg: the pool is opened again as it was after the last commit.
    fn abandon(&mut self) -> Result<(), String>;
    /// Nanoseconds from an arbitrary start, never going back: the pool's own clock.
    fn now_ns(&mut self) -> u64;
    /// A dataset was made whose blocks are to be encrypted with these keys: the block store needs them.
    /// Only called where the key of its encryption root is loaded.
    fn add_keys(&mut self, objset: u64, keys: Arc<MasterKeys>);
    /// A buffer for about `len` bytes of a block to come, if one is at hand.
    fn buffer(&mut self, len: usize) -> Vec<u8> {
        self.parts().0.buffer(len)
    }
    /// These datasets are about to be destroyed, renamed or replaced: what has them in use lets go of them, as far as it can.
    /// Everything is committed; the pool may have been let go meanwhile. An error names one that stays in use.
    fn set_aside(&mut self, _datasets: &[String]) -> Result<(), String> {
        Ok(())
    }
    /// Whether others should have the pool now: they wait, and this receive has had it long enough or has nothing to
    /// do until more of its stream comes. Asked between records.
    fn should_rest(&mut self) -> bool {
        false
    }
    /// Lets others have the pool, everything being committed, until [`Engine::parts`] is called again. It may have been
    /// opened again meanwhile.
    fn rest(&mut self) {}
}

/// How the name of a received dataset follows from the one it was sent from.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Naming {
    /// The target is the dataset that was sent; what was below it comes below the target.
    #[default]
    Exact,
    /// `-d`: all but the sender's pool name is put below the target; missing parents are made.
    Prefix,
    /// `-e`: only the last component of the dataset sent.
    Tail,
}

/// How a new dataset is encrypted that a stream makes which is not raw.
#[derive(Clone, Default)]
pub enum Encryption {
    /// As its parent: then the parent's key must be loaded.
    #[default]
    Inherit,
    /// Not at all, nor are the datasets that come with it.
    Off,
    /// Under its parent's key, with a suite of its own.
    Suite(Suite),
    /// As an encryption root.
    Root(Arc<NewKey>),
}

impl Encryption {
    fn as_new(&self) -> NewCrypt<'_> {
        match self {
            Self::Inherit => NewCrypt::Inherit,
            Self::Off => NewCrypt::Off,
            Self::Suite(suite) => NewCrypt::Suite(*suite),
            Self::Root(key) => NewCrypt::Root(key),
        }
    }
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inherit => "Inherit",
            Self::Off => "Off",
            Self::Suite(_) => "Suite",
            Self::Root(_) => "Root",
        })
    }
}

/// What to receive, where, and how.
#[derive(Clone, Default, Debug)]
pub struct ReceiveSpec {
    /// `pool/dataset` or `pool/dataset@snapshot`.
    pub target: String,
    /// `-d`, `-e`.
    pub naming: Naming,
    /// `-F`: roll back, replace an empty-handed dataset, and with packages destroy what the sender has not.
    pub force: bool,
    /// `-s`: keep partial state.
    pub resumable: bool,
    /// `-n`: check only.
    pub dry_run: bool,
    /// `-o origin=`.
    pub origin: Option<String>,
    /// `-o property=value`. What they say of encryption is in `crypt` too.
    pub set: Vec<(String, String)>,
    /// `-o encryption=…` and the properties of keys.
    pub crypt: Encryption,
    /// `-x property`.
    pub exclude: Vec<String>,
    /// `-h`: no holds from the stream.
    pub skip_holds: bool,
    /// Properties that mount, share, or loosen what files may do take effect as OpenZFS lets them.
    /// Without it they are kept as received values that do not rule (`zfs inherit -S` makes them).
    pub trust_props: bool,
    /// Commit after so many bytes of data; 0 for [`DATA_MAX`].
    pub commit_bytes: u64,
    /// Let a stream that is not raw follow a raw one; no raw stream can follow then.
    pub allow_ivset_divergence: bool,
}

/// What a receive tells while it runs.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A stream begins.
    Begin {
        /// The sender's name of the snapshot.
        from: &'a str,
        /// Ours.
        into: &'a str,
        /// It builds on another snapshot.
        incremental: bool,
    },
    /// So many bytes of the input were read. Told before a stream's `Begin` without its BEGIN record, and
    /// before its `Done` with its END: the difference is the stream.
    Bytes(u64),
    /// The snapshot is here already; its stream is read and dropped.
    Present(&'a str),
    /// A snapshot is complete.
    Done(&'a str),
    /// Something the user should know.
    Warning(String),
}

/// One snapshot received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReceivedSnapshot {
    /// Its full name.
    pub name: String,
    /// Its guid.
    pub guid: u64,
    /// Bytes of its stream.
    pub bytes: u64,
    /// Its stream built on another snapshot.
    pub incremental: bool,
}

/// What a receive did (or, as a dry run, would do).
#[derive(Clone, Default, Debug)]
pub struct Received {
    /// Snapshots received, in order.
    pub snapshots: Vec<ReceivedSnapshot>,
    /// Snapshots that were here already.
    pub present: Vec<String>,
    /// Snapshots and datasets destroyed because of `-F`.
    pub destroyed: Vec<String>,
    /// Datasets and snapshots renamed because of `-F`.
    pub renamed: Vec<(String, String)>,
    /// What could not be done, or was done otherwise, without making the receive fail.
    pub warnings: Vec<String>,
    /// Bytes read.
    pub bytes: u64,
    /// The dataset that the first stream went to.
    pub top: Option<String>,
}

/// Receives a stream or a package of streams. `hash` sums payloads; [`Fletcher4::of`] will do.
pub fn receive(
    engine: &mut dyn Engine,
    input: &mut dyn Read,
    spec: &ReceiveSpec,
    hash: HashFn,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Received> {
    let mut run = Run {
        engine,
        reader: StreamReader::new(input, hash),
        spec,
        progress,
        done: Received::default(),
        guess: 0,
        began: 0,
        package: false,
        arrived: roots::Arrived::default(),
        made: Vec::new(),
        uncommitted: false,
        holds: Vec::new(),
    };
    match run.all() {
        Ok(()) => Ok(run.done),
        Err(failure) => {
            // What was done around the streams and is not committed must not wait for a later commit. If
            // the pool cannot be opened again, the failure that led here says why.
            if run.uncommitted {
                let _ = run.abandon();
            }
            Err(failure)
        }
    }
}

/// Receives with the plain checksum function.
pub fn receive_plain(engine: &mut dyn Engine, input: &mut dyn Read, spec: &ReceiveSpec) -> Result<Received> {
    receive(engine, input, spec, Fletcher4::of, &mut |_| {})
}

/// Removes what an interrupted receive left at `path` (`zfs receive -A`).
pub fn abort(engine: &mut dyn Engine, path: &str) -> Result<()> {
    let (io, dsl) = engine.parts();
    let head = dsl.lookup_head(io, path)?;
    let gone = match dsl.receive_clone(io, head)? {
        Some(_) => format!("{path}/{RECV_CLONE}"),
        None => {
            if !dsl.dataset(io, head.obj)?.is_inconsistent() {
                return Err(ReceiveError::NothingToAbort(path.into()));
            }
            path.to_string()
        }
    };
    dsl.destroy_head(io, &gone)?;
    engine.commit().map_err(ReceiveError::Commit)
}

/// A packed list with its padding; no list for no bytes.
fn decode_list(payload: &[u8]) -> Result<NvList> {
    if payload.is_empty() {
        return Ok(NvList::new());
    }
    let (list, _) = NvList::decode(payload).map_err(|c| ReceiveError::BadStream(c.to_string()))?;
    Ok(list)
}

/// What a package says about the stream at hand.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The entry of its file system.
    pub fs: &'a NvList,
    /// Which file system of the package was its encryption root.
    pub root: Option<usize>,
}

pub(crate) struct Run<'a> {
    engine: &'a mut dyn Engine,
    reader: StreamReader<&'a mut dyn Read>,
    spec: &'a ReceiveSpec,
    progress: &'a mut dyn FnMut(Progress<'_>),
    done: Received,
    /// Where the stream at hand begins in the input.
    began: u64,
    /// The stream at hand is one of a package.
    package: bool,
    /// Length of the last payload: the next buffer gets that size at once.
    guess: usize,
    /// Keys of the raw streams so far.
    arrived: roots::Arrived,
    /// Parents made for the stream at hand.
    made: Vec<String>,
    /// The open txg holds changes that are not part of a stream.
    uncommitted: bool,
    /// What the stream at hand goes into, kept from others between its transactions.
    holds: Vec<Hold>,
}

impl Run<'_> {
    fn all(&mut self) -> Result<()> {
        props::check_names(self.spec)?;
        let Some((entry, payload)) = self.next()? else {
            return Err(ReceiveError::BadStream("no stream".into()));
        };
        let Record::Begin(begin) = entry.record else {
            return Err(ReceiveError::BadStream("the stream does not begin with BEGIN".into()));
        };
        let list = decode_list(&payload)?;
        if begin.is_compound() {
            self.package = true;
            self.package(&begin, &list)?;
        } else {
            let top = begin.toname.as_str().unwrap_or("").split('@').next().unwrap_or("").to_string();
            self.stream(&begin, &list, &top, None)?;
        }
        self.done.bytes = self.reader.offset();
        (self.progress)(Progress::Bytes(self.done.bytes));
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.engine.commit().map_err(ReceiveError::Commit)?;
        self.uncommitted = false;
        Ok(())
    }

    fn abandon(&mut self) -> Result<()> {
        self.engine.abandon().map_err(ReceiveError::Commit)?;
        self.uncommitted = false;
        Ok(())
    }

    /// Lets others have the pool if they should, where no stream is being applied.
    fn rest(&mut self) -> Result<()> {
        if self.holds.is_empty() && self.engine.should_rest() {
            self.commit()?;
            self.engine.rest();
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<(Entry, Vec<u8>)>> {
        self.rest()?;
        let mut payload = self.engine.buffer(self.guess);
        if payload.is_empty() {
            payload.reserve_exact(self.guess);
        }
        let at = self.reader.offset();
        let entry = self.reader.next(&mut payload)?;
        if matches!(&entry, Some(e) if matches!(e.record, Record::Begin(_))) {
            self.began = at;
        }
        self.guess = payload.len().min(PAYLOAD_GUESS_MAX);
        if payload.capacity() > payload.len().saturating_mul(2).max(4096) {
            payload.shrink_to_fit();
        }
        Ok(entry.map(|e| (e, payload)))
    }

    fn warn(&mut self, what: String) {
        (self.progress)(Progress::Warning(what.clone()));
        self.done.warnings.push(what);
    }

    /// Receives the stream that `begin` opens. `sent` is the dataset that `zfs send` was called for.
    fn stream(
        &mut self,
        begin: &Begin,
        list: &NvList,
        sent: &str,
        context: Option<Context<'_>>,
    ) -> Result<()> {
        let start = self.began;
        let toname = begin.toname.as_str().unwrap_or("").to_string();
        let new = begin.fromguid == 0 || begin.flags & begin_flag::CLONE != 0 || self.spec.origin.is_some();
        let new = new && !is_resuming(begin);
        let kind = props::Kind {
            raw: begin.has(feature::RAW),
            new,
            package: self.package,
            volume: ObjsetType::from_raw(begin.objset_type.into()) == ObjsetType::Zvol,
        };
        props::check_asked(self.spec, kind)?;
        let (path, snap) = self.place_name(begin, &toname, sent, context)?;
        let full = format!("{path}@{snap}");
        let moved = self.done.renamed.iter().map(|(from, _)| from).filter(|f| new || f.contains('@'));
        let gone: Vec<String> = self.done.destroyed.iter().chain(moved).cloned().collect();
        let above = path.rsplit_once('/').map(|(above, _)| above);
        let stays_plain = !kind.raw && new && props::says_plain(self.spec, context);
        // What the user says of encryption is said of the first dataset; those below it follow it.
        let top = self.done.top.as_ref().is_none_or(|t| *t == path);
        let off = matches!(self.spec.crypt, Encryption::Off);
        let crypt = match (stays_plain, top || off) {
            (true, _) => NewCrypt::Off,
            (false, true) => self.spec.crypt.as_new(),
            (false, false) => NewCrypt::Inherit,
        };
        let ask = Ask {
            begin,
            list,
            path: &path,
            snap: &snap,
            top,
            origin: self.spec.origin.as_deref(),
            force: self.spec.force,
            resumable: self.spec.resumable,
            crypt,
            allow_ivset_divergence: self.spec.allow_ivset_divergence,
            single: !self.package,
            gone: if self.spec.dry_run { &gone } else { &[] },
        };
        let limits = {
            let (io, dsl) = self.engine.parts();
            begin::limits(dsl, io)?
        };
        if !self.spec.dry_run {
            self.uncommitted |= self.remove_leftover(&path)?;
        }
        let checked = {
            let (io, dsl) = self.engine.parts();
            begin::check(dsl, io, &ask)
        };
        let (place, key) = match checked {
            Err(e) if self.would_be_there(&e, begin, &path) => (Place::New { origin: None }, None),
            other => other?,
        };
        let replaces = matches!(place, Place::Existing { from: None, .. }) && !self.spec.dry_run;
        let (place, key) = if replaces {
            // What uses it would find other files there (`zfs_receive_one`). Others may have had the pool then.
            self.commit()?;
            self.engine.set_aside(std::slice::from_ref(&path)).map_err(ReceiveError::InUse)?;
            let (io, dsl) = self.engine.parts();
            begin::check(dsl, io, &ask)?
        } else {
            (place, key)
        };
        if self.done.top.is_none() {
            self.done.top = Some(path.clone());
        }
        if matches!(place, Place::Present) {
            (self.progress)(Progress::Present(&full));
            self.done.present.push(full);
            self.skip(begin, limits)?;
            return self.note_key(&path, list, context);
        }
        if let (true, Place::New { origin: None }, Some(above)) = (stays_plain, &place, above) {
            let (io, dsl) = self.engine.parts();
            let hidden = dsl.lookup_head(io, above).is_ok_and(|d| dsl.is_encrypted(io, d).unwrap_or(false));
            if hidden {
                self.warn(format!(
                    "{path} is not encrypted, as it was sent, although {above} is; receive it with -x encryption to encrypt it"
                ));
            }
        }
        let incremental = begin.fromguid != 0;
        (self.progress)(Progress::Bytes(start));
        (self.progress)(Progress::Begin { from: &toname, into: &full, incremental });
        if self.spec.dry_run {
            self.skip(begin, limits)?;
        } else {
            self.receive_into(&ask, &place, key, context, limits)?;
        }
        self.made.clear();
        self.note_key(&path, list, context)?;
        let end = self.reader.offset();
        (self.progress)(Progress::Bytes(end));
        (self.progress)(Progress::Done(&full));
        let bytes = end.saturating_sub(start);
        self.done.snapshots.push(ReceivedSnapshot { name: full, guid: begin.toguid, bytes, incremental });
        Ok(())
    }

    /// Removes what a receive left that cannot be resumed and could not clean up, since power or its disk
    /// went. OpenZFS does so when it imports a pool (`dsl_destroy_inconsistent`).
    fn remove_leftover(&mut self, path: &str) -> Result<bool> {
        let (io, dsl) = self.engine.parts();
        let Ok(head) = dsl.lookup_head(io, path) else { return Ok(false) };
        let clone = dsl.receive_clone(io, head)?;
        let left = clone.unwrap_or(head);
        if !dsl.dataset(io, left.obj)?.is_inconsistent() || dsl.resume_state(io, left.obj)?.is_some() {
            return Ok(false);
        }
        let gone = if clone.is_some() { format!("{path}/{RECV_CLONE}") } else { path.to_string() };
        dsl.destroy_head(io, &gone)?;
        Ok(true)
    }

    /// Whether a dry run misses only what the streams before this one would have made.
    fn would_be_there(&self, e: &ReceiveError, begin: &Begin, path: &str) -> bool {
        let mut made = self.done.snapshots.iter();
        self.spec.dry_run
            && match e {
                ReceiveError::NoDestination(_) | ReceiveError::NoIncrementalBase { .. } => made.any(|s| {
                    s.guid == begin.fromguid && s.name.split_once('@').is_some_and(|(ds, _)| ds == path)
                }),
                ReceiveError::NoParent(parent) => {
                    self.spec.naming == Naming::Prefix
                        || made.any(|s| s.name.split_once('@').is_some_and(|(ds, _)| ds == parent))
                }
                ReceiveError::NoOrigin { want } => made.any(|s| s.guid == *want),
                _ => false,
            }
    }

    /// Remembers the key that came with a stream of a package, and its root at the sender.
    fn note_key(&mut self, path: &str, list: &NvList, context: Option<Context<'_>>) -> Result<()> {
        let key = list.list("crypt_keydata").and_then(|l| keydata::WrappedKey::parse(l).ok());
        let (Some(context), Some(key)) = (context, key.filter(|_| !self.spec.dry_run)) else { return Ok(()) };
        let (io, dsl) = self.engine.parts();
        let dir = dsl.lookup_head(io, path)?.dir;
        self.arrived.keys.insert(dir, (roots::key_object(&key), context.root));
        Ok(())
    }

    /// Reads a stream to its END with all checks, and drops it.
    fn skip(&mut self, begin: &Begin, limits: rules::Limits) -> Result<()> {
        let mut rules = rules::Rules::new(begin, limits);
        while let Some((entry, _)) = self.next()? {
            if matches!(entry.record, Record::End(_)) {
                return Ok(());
            }
            rules.check(&entry.record).map_err(|refusal| record_error(&entry, refusal))?;
        }
        Err(ReceiveError::BadStream("the stream ends without END".into()))
    }

    /// Makes the dataset, applies the records, makes the snapshot; on an error undoes what it did.
    fn receive_into(
        &mut self,
        ask: &Ask<'_>,
        place: &Place,
        key: Option<keydata::KeyData>,
        context: Option<Context<'_>>,
        limits: rules::Limits,
    ) -> Result<()> {
        let receiving = match self.start(ask, place, key, context) {
            Ok(r) => r,
            Err(e) => {
                self.made.clear();
                // An engine that cannot be opened again is of no use; the error that led here says why.
                let _ = self.abandon();
                return Err(e);
            }
        };
        let mut committed = matches!(place, Place::Resume { .. });
        let (_, dsl) = self.engine.parts();
        let used = [Some(receiving.ds), receiving.over].into_iter().flatten();
        self.holds = used.map(|r| dsl.busy().hold(r.obj)).collect();
        let result = self
            .records(ask, &receiving, limits, ask.resumable || committed, &mut committed)
            .and_then(|()| self.complete(ask, &receiving, context));
        let Err(failure) = result else { return Ok(()) };
        self.clean_up(ask, &receiving, &failure, committed, matches!(place, Place::Resume { .. }))?;
        Err(failure)
    }

    /// Makes the dataset, and opens the objset that the records go to.
    fn start(
        &mut self,
        ask: &Ask<'_>,
        place: &Place,
        key: Option<keydata::KeyData>,
        context: Option<Context<'_>>,
    ) -> Result<Receiving> {
        let spec = self.spec;
        let (io, dsl) = self.engine.parts();
        let receiving = begin::start(dsl, io, ask, place, key, &mut |dsl, io, ds| {
            props::apply_new(dsl, io, ds, ask, context, spec)
        })?;
        if receiving.key.is_none()
            && let Some(keys) = dsl.master_keys(io, receiving.ds.dir)?
        {
            self.engine.add_keys(receiving.ds.obj, keys);
        }
        let (io, dsl) = self.engine.parts();
        begin::open_objset(dsl, io, ask, receiving.ds, receiving.key.as_ref())?;
        Ok(receiving)
    }

    /// Applies all records up to END.
    fn records(
        &mut self,
        ask: &Ask<'_>,
        r: &Receiving,
        limits: rules::Limits,
        resumable: bool,
        committed: &mut bool,
    ) -> Result<()> {
        let begin = ask.begin;
        let mut applier = Applier::new(begin, self.reader.order(), limits);
        let result = self.apply_all(&mut applier, ask, r, resumable, committed);
        // What was applied before an error counts: it is where a resumed stream goes on.
        match &result {
            Err(e) if is_full(e) => self.note(&applier, r)?,
            Err(e) if is_write(e) => {}
            _ => self.flush(&mut applier, ask, r)?,
        }
        result?;
        if begin.fromguid == 0 && r.from.is_some() {
            let (io, dsl) = self.engine.parts();
            let os = reopened(dsl, io, ask, r)?;
            applier.free_the_rest(io, os).map_err(plain_error)?;
        }
        Ok(())
    }

    fn apply_all(
        &mut self,
        applier: &mut Applier,
        ask: &Ask<'_>,
        r: &Receiving,
        resumable: bool,
        committed: &mut bool,
    ) -> Result<()> {
        // OpenZFS counts from after the BEGIN record: its list is in, its 312 bytes are not.
        let start = self.reader.offset().saturating_sub(ask.begin.payload_len.0.into());
        let mut pending: Option<(Entry, Vec<u8>)> = None;
        let mut since_commit = 0;
        let data_max = if self.spec.commit_bytes == 0 { DATA_MAX } else { self.spec.commit_bytes };
        let data_max = data_max.min(self.engine.parts().1.info.at_once);
        let mut last_commit = if resumable { self.engine.now_ns() } else { 0 };
        loop {
            if self.engine.should_rest() {
                self.flush(applier, ask, r)?;
                self.commit()?;
                *committed = true;
                self.engine.rest();
                since_commit = 0;
                last_commit = if resumable { self.engine.now_ns() } else { 0 };
            }
            let Some((entry, payload)) = self.next()? else {
                return Err(ReceiveError::BadStream("the stream ends without END".into()));
            };
            let proven = pending.replace((entry, payload));
            let ends = matches!(pending, Some((Entry { record: Record::End(_), .. }, _)));
            if let Some((entry, payload)) = proven {
                let bytes = r.bytes + entry.offset.saturating_sub(start) + 312;
                let (io, dsl) = self.engine.parts();
                let os = reopened(dsl, io, ask, r)?;
                applier.apply(io, os, &entry, payload, bytes).map_err(|e| match e {
                    ApplyError::Refused(refusal) => record_error(&entry, refusal),
                    ApplyError::Write(e) => ReceiveError::Write(e),
                })?;
                since_commit += applier.take_written();
                // Counting what is dirty walks over it: not for every record.
                let crowded = entry.number.is_multiple_of(DIRTY_LOOK) && os.dirty_bytes() >= DIRTY_MAX;
                // What is dropped by a kill must be little in time too, where the sender is slow.
                let late = resumable && self.engine.now_ns().saturating_sub(last_commit) >= RESUME_NS;
                if since_commit >= data_max || crowded || late {
                    self.flush(applier, ask, r)?;
                    self.commit()?;
                    *committed = true;
                    since_commit = 0;
                    last_commit = if resumable { self.engine.now_ns() } else { 0 };
                }
                (self.progress)(Progress::Bytes(self.reader.offset()));
            }
            if ends {
                return Ok(());
            }
        }
    }

    /// Writes what waits and notes how far the receive has come.
    fn flush(&mut self, applier: &mut Applier, ask: &Ask<'_>, r: &Receiving) -> Result<()> {
        let (io, dsl) = self.engine.parts();
        let os = reopened(dsl, io, ask, r)?;
        let written = applier.flush(io, os).map_err(plain_error);
        if written.as_ref().err().is_none_or(is_full) {
            self.note(applier, r)?;
        }
        written
    }

    /// Notes how far the receive has come.
    fn note(&mut self, applier: &Applier, r: &Receiving) -> Result<()> {
        let (io, dsl) = self.engine.parts();
        let ds = r.ds;
        let point = applier.point();
        if point.object != 0 {
            let apply::Point { object, offset, bytes } = point;
            dsl.set_resume_point(ds.obj, Point { object, offset, bytes });
        }
        let seen = applier.seen();
        let features = [
            (seen.zstd, Feature::ZSTD_COMPRESS),
            (seen.large_dnode, Feature::LARGE_DNODE),
            (seen.large_block, Feature::LARGE_BLOCKS),
        ];
        for (_, f) in features.into_iter().filter(|(on, _)| *on) {
            dsl.activate_feature(io, ds.obj, f)?;
        }
        Ok(())
    }

    /// The last txg.
    fn complete(&mut self, ask: &Ask<'_>, r: &Receiving, context: Option<Context<'_>>) -> Result<()> {
        let spec = self.spec;
        let (io, dsl) = self.engine.parts();
        // Others may have had the pool since the first checks.
        if let Some(head) = r.over {
            begin::check_unchanged(dsl, io, ask, head, r.from)?;
        }
        self.holds.clear();
        let done = finish::finish(dsl, io, r, ask.path, ask.snap, ask.begin)?;
        let mut warnings = props::apply_finished(dsl, io, ask, r.over.is_some(), context, spec)?;
        self.commit()?;
        match done.key {
            Renewed::KeptOurs => warnings.push(format!(
                "{}: the key was wrapped anew here since it was received, or not received by us; it stays as it is",
                ask.path
            )),
            // The end of a package looks once more.
            Renewed::Waits if context.is_none() => warnings.push(format!(
                "{}: the sender wrapped the key anew, but not yet for all that share its root here; until then the old key stays in force",
                ask.path
            )),
            Renewed::Waits | Renewed::Done => {}
        }
        self.done.destroyed.extend(done.destroyed);
        for w in warnings {
            self.warn(w);
        }
        Ok(())
    }

    /// After a failure: keeps partial state if that was asked for and makes sense, else removes it.
    fn clean_up(
        &mut self,
        ask: &Ask<'_>,
        r: &Receiving,
        failure: &ReceiveError,
        committed: bool,
        resumed: bool,
    ) -> Result<()> {
        let resumable = self.spec.resumable || resumed;
        self.engine.parts();
        self.holds.clear();
        let keeps = is_full(failure) || !is_write(failure) && !matches!(failure, ReceiveError::Dsl(_));
        if resumable && keeps {
            match self.commit() {
                // There was no room for this either: what the last commit has stays.
                Err(_) if is_full(failure) => {}
                done => return done,
            }
        }
        let made = std::mem::take(&mut self.made);
        if self.abandon().is_err() || resumable || !committed {
            // A pool that cannot be opened again has nothing that could be removed: it is as its last
            // commit left it, and the failure says why.
            return Ok(());
        }
        let gone = if r.over.is_some() { format!("{}/{RECV_CLONE}", ask.path) } else { ask.path.to_string() };
        let (io, dsl) = self.engine.parts();
        dsl.destroy_head(io, &gone)?;
        for parent in made.iter().rev() {
            dsl.destroy_head(io, parent)?;
        }
        self.commit()
    }
}

/// Errors after which the open txg is of no use.
fn is_write(e: &ReceiveError) -> bool {
    matches!(e, ReceiveError::Write(_) | ReceiveError::Commit(_))
        || matches!(
            e,
            ReceiveError::Dsl(DslError::Write(_) | DslError::NoSpace | DslError::Quota | DslError::Read(_))
        )
}

/// No more data fits. Nothing of what did not was changed, so the open txg is sound ([`icecore_dmu::WriteError`]).
fn is_full(e: &ReceiveError) -> bool {
    matches!(e, ReceiveError::Write(WriteError::NoSpace | WriteError::Quota))
}

/// The objset that the records go to. Whoever had the pool meanwhile may have opened it again.
fn reopened<'d>(
    dsl: &'d mut Dsl,
    io: &mut dyn BlockWriter,
    ask: &Ask<'_>,
    r: &Receiving,
) -> Result<&'d mut icecore_dmu::Objset> {
    if dsl.opened(r.ds.obj).is_none() {
        begin::open_objset(dsl, io, ask, r.ds, r.key.as_ref())?;
    }
    dsl.opened(r.ds.obj).ok_or_else(|| {
        ReceiveError::Write(WriteError::Invalid("the dataset received into is not open".into()))
    })
}

fn record_error(entry: &Entry, refusal: rules::Refusal) -> ReceiveError {
    ReceiveError::Record { number: entry.number, offset: entry.offset, refusal }
}

fn plain_error(e: ApplyError) -> ReceiveError {
    match e {
        ApplyError::Refused(r) => ReceiveError::BadStream(r.to_string()),
        ApplyError::Write(e) => ReceiveError::Write(e),
    }
}

/// Whether `begin` is of a stream that goes on with another.
pub(crate) fn is_resuming(begin: &Begin) -> bool {
    begin.has(feature::RESUMING)
}

/// Whether a dataset of that name exists.
pub(crate) fn exists(dsl: &Dsl, io: &dyn BlockStore, path: &str) -> bool {
    dsl.lookup_head(io, path).is_ok()
}
