//! `zfs receive`.

use super::Named;
use crate::args::{Typed, flag, value};
use crate::caller;
use crate::engine::{Ahead, Reading};
use crate::fail::{Fail, Outcome};
use crate::human;
use crate::keys::{CryptoProps, root_of};
use crate::pipe;
use crate::session::{self, Engine, For};
use icecore_dmu::WriteError;
use icecore_dsl::{DslError, Kind};
use icecore_format::stream::{Begin, MAGIC, Order, RECORD_SIZE, Record, StreamErrorKind, feature};
use icecore_stream::payload_sum;
use icecore_stream::receive::{Encryption, Naming, Progress, ReceiveError, ReceiveSpec, abort, receive};
use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

pub const USAGE: &str = "receive [-vMnsFhu] [-o <property>=<value>] ... [-x <property>] ...\n\t    <filesystem|volume|snapshot>\n\treceive [-vMnsFhu] [-o <property>=<value>] ... [-x <property>] ... \n\t    [-d | -e] <filesystem>\n\treceive -c [-nv] <filesystem|volume|snapshot>\n\treceive -A <filesystem|volume>";

pub fn run(args: &[String]) -> Outcome {
    let known = [
        flag('F', ""),
        flag('A', ""),
        flag('c', ""),
        flag('d', ""),
        flag('e', ""),
        flag('h', ""),
        flag('M', ""),
        flag('n', ""),
        value('o', ""),
        flag('s', ""),
        flag('u', ""),
        flag('v', ""),
        value('x', ""),
    ];
    let typed = Typed::parse(args, &known, USAGE)?;
    let (mut spec, crypto) = spec(&typed)?;
    let target = match typed.operands.as_slice() {
        [target] => target,
        [] => return Err(Fail::usage("missing snapshot argument", USAGE)),
        _ => return Err(Fail::usage("too many arguments", USAGE)),
    };
    if typed.has('d') && typed.has('e') {
        let why = "invalid option combination: -d and -e are mutually exclusive";
        return Err(Fail::usage(why, USAGE));
    }
    if typed.has('A') && ['d', 'e', 'n', 's', 'u'].into_iter().any(|c| typed.has(c)) {
        return Err(Fail::usage("invalid option", USAGE));
    }
    spec.target.clone_from(target);
    if typed.has('A') {
        super::open(target, Named::Dataset, For::Read)
            .and_then(|pool| {
                let found = pool.dsl.lookup_head(pool.io(), target);
                found.map_err(|e| super::cannot("open", target, &e))
            })
            .map_err(|f| Fail::usage(f.message, USAGE))?;
        let mut engine = Engine::open(target)?;
        return abort(&mut engine, target).map_err(|e| match e {
            ReceiveError::NothingToAbort(name) => {
                Fail::new(format!("'{name}' does not have any resumable receive state to abort"))
            }
            e => Fail::new(e.to_string()),
        });
    }
    if caller::stdin_is_terminal() {
        return Err(Fail::new(
            "Error: Backup stream can not be read from a terminal.\nYou must redirect standard input.",
        ));
    }
    // Nothing is asked of the pool before there is a stream: in a pipe the sender may need a moment.
    let mut stdin = pipe::input().map_err(|e| Fail::new(format!("cannot receive: {e}")))?;
    let head = first_record(&mut stdin)?;
    if typed.has('c') {
        let Some(begin) = begin_of(&head) else {
            return Err(Fail::new("cannot receive: invalid stream (bad first record)"));
        };
        let other = ['d', 'e', 'F', 's', 'u', 'h'].iter().any(|c| typed.has(*c));
        return super::heal::heal(&spec, &begin, &Ahead::new(stdin, head), other, typed.has('v'));
    }
    let mut engine = destination(&spec, kind_of(&head))?;
    if crypto.asks() && may_encrypt(&head) {
        spec.crypt = encryption(&mut engine, &spec, &crypto)
            .map_err(|f| Fail { message: format!("{}: {}", Stream::Full.failed(), f.message), ..f })?;
    }
    let kind = kind_of(&head);
    let ahead = Ahead::new(stdin, head);
    engine.listen(&ahead);
    let done = run_receive(&mut engine, &mut Reading(ahead), &spec, typed.has('v'), kind);
    let back = engine.end().back();
    done.and(back)?;
    let target = target.split('@').next().unwrap_or(target);
    if typed.has('u') || typed.has('n') { Ok(()) } else { crate::mounts::received(target) }
}

/// The first record, if it can be one: BEGIN has a number in its second word that tells its byte order.
fn first_record(input: &mut dyn Read) -> Outcome<Vec<u8>> {
    let fail = |why: &str| Err(Fail::new(format!("cannot receive: {why}")));
    let mut head = Vec::with_capacity(RECORD_SIZE);
    if let Err(e) = input.take(RECORD_SIZE as u64).read_to_end(&mut head) {
        return fail(&format!("failed to read from stream: {e}"));
    }
    if head.is_empty() {
        return fail("failed to read from stream");
    }
    match head.get(8..16).and_then(|b| <[u8; 8]>::try_from(b).ok()) {
        Some(magic) if [u64::from_le_bytes(magic), u64::from_be_bytes(magic)].contains(&MAGIC) => Ok(head),
        _ if head.len() < RECORD_SIZE => {
            fail("failed to read from stream\n(it ends before its first record does)")
        }
        _ => {
            fail("invalid stream (bad magic number)\n(what comes in is no send stream; nothing was changed)")
        }
    }
}

/// The pool that the stream is to go to, where there is one (`zfs_receive_one`, libzfs_sendrecv.c).
fn destination(spec: &ReceiveSpec, kind: Stream) -> Outcome<Engine> {
    let target = &spec.target;
    let fail = |why: &str| Err(Fail::new(format!("cannot receive: {why}")));
    let below = spec.naming != Naming::Exact;
    let missing = format!("specified fs ({target}) does not exist");
    if below && target.contains('@') {
        return fail(&missing);
    }
    if super::valid(target, Named::NoBookmark).is_err() {
        return fail(if below { &missing } else { "invalid name" });
    }
    let path = target.split('@').next().unwrap_or(target);
    if crate::state::find(session::pool_of(path))?.is_none() {
        return match path.rsplit_once('/') {
            _ if below => fail(&missing),
            Some((parent, _)) if kind == Stream::Full => Err(no_parent(parent, kind)),
            _ => Err(Fail::new(format!("{}: destination '{path}' does not exist", kind.failed()))),
        };
    }
    let mut engine = Engine::open(target)?;
    if !below && spec.origin.is_none() {
        return Ok(engine);
    }
    let pool = engine.pool();
    if below {
        let Ok(head) = pool.dsl.lookup_head(pool.io(), path) else { return fail(&missing) };
        // What is to be made above it is, before a dry run would end (`create_parents`, libzfs_dataset.c).
        let volume = pool.dsl.kind(pool.io(), head)? != Kind::Filesystem;
        if volume && spec.naming == Naming::Prefix && !spec.dry_run {
            let why = format!("{}: unable to restore to destination", kind.failed());
            return Err(Fail::new(format!("{}\n{why}", super::wrong_kind(path).message)));
        }
    }
    match &spec.origin {
        Some(origin) if pool.dsl.lookup_dataset(pool.io(), origin).is_err() => {
            fail(&format!("specified origin fs ({origin}) does not exist"))
        }
        Some(origin) if !origin.contains('@') => {
            Err(bad_stream(Stream::Full, &format!("'{origin}' is not a snapshot")))
        }
        _ => Ok(engine),
    }
}

fn no_parent(parent: &str, kind: Stream) -> Fail {
    Fail::new(format!(
        "cannot open '{parent}': dataset does not exist\n{}: unable to restore to destination",
        kind.failed()
    ))
}

/// What OpenZFS's kernel finds fault with and calls the stream's, and what it is.
pub fn bad_stream(kind: Stream, why: &str) -> Fail {
    Fail::new(format!("{}: invalid backup stream\n({why})", kind.failed()))
}

fn begin_of(head: &[u8]) -> Option<Begin> {
    let head = head.get(..RECORD_SIZE).and_then(|h| <&[u8; RECORD_SIZE]>::try_from(h).ok())?;
    let order = if head[8..16] == MAGIC.to_le_bytes() { Order::Little } else { Order::Big };
    match Record::parse(head, order) {
        Ok(Record::Begin(begin)) => Some(begin),
        _ => None,
    }
}

/// What kind of stream begins so; packages are called full.
fn kind_of(head: &[u8]) -> Stream {
    match begin_of(head) {
        Some(begin) if begin.fromguid != 0 => Stream::Incremental,
        _ => Stream::Full,
    }
}

/// Whether a stream that begins so may make a dataset that is encrypted here: it is not raw, and no increment.
fn may_encrypt(head: &[u8]) -> bool {
    begin_of(head).is_some_and(|b| !b.has(feature::RAW) && b.fromguid == 0)
}

/// How a new dataset is to be encrypted (`zfs_crypto_create`, libzfs_crypto.c). A key cannot be typed here: the stream has
/// standard input.
fn encryption(engine: &mut Engine, spec: &ReceiveSpec, crypto: &CryptoProps) -> Outcome<Encryption> {
    let target = spec.target.split('@').next().unwrap_or(&spec.target);
    let above = match (spec.naming, target.rsplit_once('/')) {
        (Naming::Exact, Some((parent, _))) => parent,
        _ => target,
    };
    let pool = engine.pool();
    if pool.dsl.lookup_head(pool.io(), above).is_err() {
        // The receive will say so.
        return Ok(Encryption::Inherit);
    }
    let root = root_of(pool, above)?;
    let Some(suite) = super::create::suite(pool, above, root.as_deref(), crypto)? else {
        return Ok(Encryption::Off);
    };
    if crypto.keyformat.is_none() && crypto.keylocation.is_none() {
        return Ok(Encryption::Suite(suite));
    }
    if crypto.keylocation.as_deref().is_none_or(|l| l == "prompt") {
        return Err(Fail::new("Cannot use 'prompt' keylocation because stdin is in use."));
    }
    // A key file may lie in a mount.
    engine.let_go();
    Ok(Encryption::Root(Arc::new(crypto.new_key(Some(target), suite)?)))
}

/// What the options say; the target is yet to come.
fn spec(typed: &Typed) -> Outcome<(ReceiveSpec, CryptoProps)> {
    let mut crypto = CryptoProps::default();
    let mut spec = ReceiveSpec {
        naming: if typed.has('d') {
            Naming::Prefix
        } else if typed.has('e') {
            Naming::Tail
        } else {
            Naming::Exact
        },
        force: typed.has('F'),
        resumable: typed.has('s'),
        dry_run: typed.has('n'),
        skip_holds: typed.has('h'),
        ..ReceiveSpec::default()
    };
    let mut named = BTreeSet::new();
    let mut once = |name: &str| match named.insert(name.to_string()) {
        true => Ok(()),
        false => Err(Fail::usage(format!("property '{name}' specified multiple times"), USAGE)),
    };
    for x in typed.values('x') {
        if x.contains('=') {
            return Err(Fail::usage("invalid character '=' in property argument", USAGE));
        }
        let x = super::list::canonical(x);
        once(x)?;
        spec.exclude.push(x.into());
    }
    for o in typed.values('o') {
        let (p, v) = super::split(o).map_err(|f| Fail::usage(f.message, USAGE))?;
        once(p)?;
        if p == "origin" {
            spec.origin = Some(v.into());
        } else {
            let new = Stream::Full.failed();
            let wrong = |why: &str| Fail::new(format!("{new}: {why}\n{new}: invalid property value"));
            crypto.take(p, v).map_err(|f| wrong(&f.message))?;
            spec.set.push((p.into(), v.into()));
        }
    }
    Ok((spec, crypto))
}

fn run_receive(
    engine: &mut Engine,
    input: &mut dyn Read,
    spec: &ReceiveSpec,
    verbose: bool,
    mut kind: Stream,
) -> Outcome {
    let mut one = Instant::now();
    let mut began_at = 0;
    let mut read = 0;
    let mut last = spec.target.clone();
    let outcome = receive(engine, input, spec, payload_sum, &mut |p| match p {
        Progress::Begin { from, into, incremental } => {
            one = Instant::now();
            began_at = read;
            last = into.to_string();
            kind = if incremental { Stream::Incremental } else { Stream::Full };
            if verbose {
                let (verb, kind) = (
                    if spec.dry_run { "would receive" } else { "receiving" },
                    if incremental { "incremental" } else { "full" },
                );
                println!("{verb} {kind} stream of {from} into {into}");
            }
        }
        Progress::Bytes(n) => read = n,
        Progress::Present(name) => {
            if verbose {
                println!("snap {name} already exists; ignoring");
            }
        }
        Progress::Done(_) => {
            if verbose && !spec.dry_run {
                let (bytes, secs) = (read.saturating_sub(began_at), one.elapsed().as_secs_f64().max(0.01));
                println!(
                    "received {} stream in {secs:.2} seconds ({}/sec)",
                    human::bytes(bytes),
                    human::bytes((bytes as f64 / secs) as u64)
                );
            }
        }
        Progress::Warning(w) => eprintln!("warning: {w}"),
    });
    match outcome {
        Ok(done) => {
            let (destroyed, renamed) =
                if spec.dry_run { ("would destroy", "would rename") } else { ("destroyed", "renamed") };
            done.destroyed.iter().for_each(|d| eprintln!("{destroyed} {d}"));
            done.renamed.iter().for_each(|(a, b)| eprintln!("{renamed} {a} to {b}"));
            Ok(())
        }
        Err(e) => {
            let saved = if spec.resumable { token_of(engine, &last) } else { None };
            let name = if is_no_space(&e) || is_quota(&e) { &last } else { &spec.target };
            let mut fail = explain_stream(name, &e, saved.as_deref(), kind);
            if let ReceiveError::Exists(at) = &e
                && token_of(engine, at).is_some()
            {
                fail.message += &format!(
                    "\n(it holds what came of a stream that was cut off: go on with 'zfs send -t TOKEN', or drop it with 'zfs receive -A {at}')"
                );
            }
            Err(fail)
        }
    }
}

/// The token that partial state at the dataset of `name` goes on with.
pub fn token_of(engine: &mut Engine, name: &str) -> Option<String> {
    let path = name.split('@').next().unwrap_or(name);
    let (io, dsl) = engine.pool().parts();
    let head = dsl.lookup_head(io, path).ok()?;
    dsl.resume_token(io, head).ok()?
}

/// What kind of stream failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// It makes a dataset.
    Full,
    /// It builds on a snapshot.
    Incremental,
}

impl Stream {
    /// How a failure of it begins.
    pub fn failed(self) -> &'static str {
        match self {
            Self::Full => "cannot receive new filesystem stream",
            Self::Incremental => "cannot receive incremental stream",
        }
    }
}

/// Whether the pool is full.
fn is_no_space(e: &ReceiveError) -> bool {
    matches!(e, ReceiveError::Write(WriteError::NoSpace) | ReceiveError::Dsl(DslError::NoSpace))
}

/// Whether a quota of the dataset, or of one above it, is used up.
fn is_quota(e: &ReceiveError) -> bool {
    matches!(e, ReceiveError::Write(WriteError::Quota) | ReceiveError::Dsl(DslError::Quota))
}

/// The failure in OpenZFS's words where tools look for them (`zfs_receive_one`, libzfs_sendrecv.c).
pub fn explain_stream(target: &str, e: &ReceiveError, token: Option<&str>, kind: Stream) -> Fail {
    let (new, inc, this) = (Stream::Full.failed(), Stream::Incremental.failed(), kind.failed());
    Fail::new(match e {
        ReceiveError::Exists(_) | ReceiveError::WrongParent(_) => format!("{new}: {e}"),
        ReceiveError::NoDestination(_) => format!("{inc}: {e}"),
        ReceiveError::NoParent(name) => return no_parent(name, kind),
        ReceiveError::OriginMismatch { .. } => {
            let dataset = target.split('@').next().unwrap_or(target);
            format!("{new}: most recent snapshot of {dataset} does not\nmatch incremental source\n({e})")
        }
        ReceiveError::Name(name) if name.contains('%') => {
            return bad_stream(kind, &format!("'{name}': invalid character % in name"));
        }
        ReceiveError::Name(name) => format!("cannot receive: invalid name\n('{name}')"),
        ReceiveError::Property(why) if !why.starts_with("invalid property") => {
            format!("{this}: {why}\n{this}: invalid property value")
        }
        // Told of by one who tells of another's telling (`zfs_receive_checkprops`).
        ReceiveError::Property(why) => format!("cannot receive: cannot receive: {why}"),
        ReceiveError::SnapshotExists(name) => format!("cannot restore to {name}: destination already exists"),
        ReceiveError::HasSnapshots { .. } => format!("{new}: {e}"),
        ReceiveError::Modified { dataset, since, newer } => {
            let tail = if newer.is_empty() {
                format!(
                    "look at what changed, then undo it with 'zfs rollback {dataset}@{}'",
                    since.split('@').next_back().unwrap_or(since)
                )
            } else {
                format!("snapshots after {since}: {}", newer.join(", "))
            };
            format!("{inc}: destination {dataset} has been modified\nsince most recent snapshot\n{tail}")
        }
        ReceiveError::NoIncrementalBase { dataset, want, have } => {
            let have: Vec<String> = have.iter().map(|(n, g)| format!("\n\t{n} ({g:#x})")).collect();
            format!(
                "{inc}: most recent snapshot of {dataset} does not\nmatch incremental source\nthe stream builds on {want:#x}; here are:{}",
                have.concat()
            )
        }
        ReceiveError::PartialState(name) => {
            format!(
                "{this}: destination {name} contains partially-complete state from \"zfs receive -s\".\nGo on with 'zfs send -t TOKEN', or drop it with 'zfs receive -A {name}'."
            )
        }
        ReceiveError::IvsetMismatch { stream, local } => {
            format!(
                "{inc}: IV set guid mismatch. See https://openzfs.github.io/openzfs-docs/msg/ZFS-8000-ER\nthe stream says {stream:#x}, here is {local:#x}: the snapshot here was not received raw from this source"
            )
        }
        ReceiveError::IvsetMissing { .. } => format!("{inc}: IV set guid missing: {e}"),
        ReceiveError::ForceOverEncrypted(_) => {
            format!(
                "{new}: zfs receive -F cannot be used to destroy an encrypted filesystem or overwrite an unencrypted one with an encrypted one"
            )
        }
        ReceiveError::KeyMismatch { .. } => format!("{inc}: encryption key does not match existing key"),
        ReceiveError::KeyNotLoaded(name) => {
            format!("{this}: inherited key must be loaded\n('{name}': encryption key not loaded)")
        }
        ReceiveError::Stream(s) if e.is_transport() => {
            let Some(token) = token else {
                let what = match s.kind {
                    StreamErrorKind::Checksum { .. } => "checksum mismatch",
                    _ => "incomplete stream",
                };
                return Fail::new(format!("{this}: {what}\n({s})"));
            };
            format!(
                "{this}: checksum mismatch or incomplete stream.\n({s})\nPartially received snapshot is saved.\nA resuming stream can be generated on the sending system by running:\n    zfs send -t {token}"
            )
        }
        e if is_no_space(e) || is_quota(e) => {
            let dataset = target.split('@').next().unwrap_or(target);
            let mut text = if is_quota(e) {
                format!("{this}: destination {dataset} space quota exceeded.")
            } else {
                format!(
                    "{this}: out of space\n'{dataset}' has no room for the stream: the pool is full, or reserved for others."
                )
            };
            match token {
                Some(token) => text.push_str(&format!(
                    "\nPartially received snapshot is saved. When there is room, go on with a stream that is made on the sending system by:\n    zfs send -t {token}\nor drop it with 'zfs receive -A {dataset}'."
                )),
                None => text.push_str("\nNothing of it was kept: make room and receive it again (with -s, what has come is kept)."),
            }
            text
        }
        ReceiveError::InUse(why) => why.clone(),
        e => format!("cannot receive: {e}"),
    })
}
