//! `zfs send`.

use super::Named;
use crate::args::{Typed, flag, value};
use crate::caller;
use crate::fail::{FAILED, Fail, Outcome};
use crate::human;
use crate::keys::{Ask, How, unlock};
use crate::pipe;
use crate::session::{self, For, Open};
use icecore_dmu::ReadError;
use icecore_dsl::DslError;
use icecore_pool::Pool;
use icecore_stream::send::{
    PackageSpec, SendError, SendFlags, SendSpec, Source, estimate, estimate_of, estimate_package, prepare,
    resolve_saved, resolve_token, send_one, send_prepared,
};
use icecore_stream::token::ResumeToken;
use std::io::Write;
use std::time::{Duration, Instant};

pub const USAGE: &str = "send [-DLPbcehnpVvw] [-i|-I snapshot] [--keylocation <keylocation>] <snapshot>
	send [-DLPUbcehnpsVvw] [-i|-I snapshot] [-X dataset[,dataset]...] -R
	    [--keylocation <keylocation>] <snapshot>
	send [-DnVvPLecw] [-i snapshot|bookmark] [--keylocation <keylocation>]
	    <filesystem|volume|snapshot>
	send [-nVvPe] [--keylocation <keylocation>] -t <receive_resume_token>
	send [-PnVv] [--keylocation <keylocation>] --saved <filesystem|volume>";

pub fn run(args: &[String]) -> Outcome {
    let known = [
        flag('D', "dedup"),
        flag('L', "large-block"),
        flag('P', "parsable"),
        flag('R', "replicate"),
        flag('V', "proctitle"),
        flag('b', "backup"),
        flag('c', "compressed"),
        flag('e', "embed"),
        flag('h', "holds"),
        value('i', ""),
        value('I', ""),
        flag('n', "dryrun"),
        flag('p', "props"),
        flag('s', "skip-missing"),
        value('t', ""),
        flag('v', "verbose"),
        flag('w', "raw"),
        flag('U', "no-preserve-encryption"),
        value('d', "redact"),
        value('X', "exclude"),
        value('K', "keylocation"),
        flag('S', "saved"),
    ];
    let typed = Typed::parse(args, &known, USAGE)?;
    if typed.has('D') {
        eprintln!(
            "WARNING: deduplicated send is no longer supported.  A regular,\nnon-deduplicated stream will be generated.\n"
        );
    }
    check(&typed)?;
    if !typed.has('n') && caller::stdout_is_terminal() {
        return Err(Fail::new(
            "Error: Stream can not be written to a terminal.\nYou must redirect standard output.",
        ));
    }
    if let Some(token) = typed.value('t') {
        return resume(token, &typed);
    }
    let [to] = typed.operands.as_slice() else { return Err(Fail::usage("too many arguments", USAGE)) };
    if typed.has('S') {
        return saved(to, &typed);
    }
    let open = |name: &str, wanted| {
        super::valid(name, wanted).map_err(|why| Fail::new(format!("cannot open '{name}': {why}")))
    };
    open(to, Named::NoBookmark)?;
    let spec = spec(to, &typed)?;
    let many = typed.has('R') || typed.has('I');
    if many && typed.has('d') {
        return Err(Fail::new("Error: multiple snapshots cannot be sent redacted."));
    }
    match &spec.send.from {
        Some(from) if !many && from.contains('@') => open(from, Named::Any)?,
        Some(from) if !many && super::valid(from, Named::Any).is_err() => {
            return Err(Fail::new(format!("warning: cannot send '{to}': Invalid argument")));
        }
        _ => {}
    }
    // Of many the dataset is opened, and not its snapshot.
    let path = to.split('@').next().unwrap_or(to);
    let mut pool = session::open(if many { path } else { to }, For::Read)?;
    if many {
        pool.dsl.lookup_head(pool.io(), path).map_err(|e| super::cannot("open", path, &e))?;
        same_file_system(&pool, path, &spec)?;
    }
    if package(&typed) && !to.contains('@') {
        pool.dsl.lookup_head(pool.io(), to).map_err(|e| super::cannot("open", to, &e))?;
        return Err(Fail::new(format!(
            "cannot send {to}@: snapshot {to}@ does not exist\nwarning: cannot send '{to}': backup failed"
        )));
    }
    is_earlier(&pool, &spec)?;
    typed.value('d').map_or(Ok(()), |bookmark| redacted(&pool, &spec.send, bookmark))?;
    if typed.has('v') || typed.has('P') || typed.has('V') {
        announce(&pool, &spec, &typed)?;
    } else if typed.has('n') {
        // A dry run without a word still says by its exit status whether the real one could start.
        estimate_package(pool.io(), &pool.dsl, &spec).map_err(|e| explain(to, &e))?;
    }
    if typed.has('n') {
        return Ok(());
    }
    not_mounted(&pool, to)?;
    give_keys(&mut pool, &spec, &typed)?;
    let mut meter = Meter::new(to, typed.has('v'), typed.has('P'));
    let mut out = output(to)?;
    let prepared = prepare(pool.io(), &pool.dsl, &spec).map_err(|e| explain(to, &e))?;
    let store = pool.into_store(prepared.objects());
    let sent =
        send_prepared(&store, &prepared, &mut out, &mut |n| meter.at(n)).map_err(|e| explain(to, &e))?;
    out.flush().map_err(|e| explain(to, &SendError::Io(e)))?;
    // What was left out was left out by -s: a word, no failure.
    sent.warnings.iter().for_each(|w| eprintln!("WARNING: {w}"));
    Ok(())
}

/// A source that is named in full is of the same dataset, or its origin (`zfs_do_send`, zfs_main.c).
fn same_file_system(pool: &Pool, path: &str, spec: &PackageSpec) -> Outcome {
    let Some(from) = spec.send.from.as_ref().filter(|from| !from.starts_with(&format!("{path}@"))) else {
        return Ok(());
    };
    let origin = pool.dsl.prop(pool.io(), path, "origin").map_err(|e| super::cannot("open", path, &e))?;
    match origin.is_some_and(|origin| origin.value == *from) {
        true => Ok(()),
        false => Err(Fail::usage("incremental source must be in same filesystem", USAGE)),
    }
}

/// Why it is not sent redacted, in the order in which that is found (`zfs_send_one_cb_impl`, libzfs_sendrecv.c).
fn redacted(pool: &Pool, send: &SendSpec, bookmark: &str) -> Outcome {
    let fail = |why: &str| Err(Fail::new(format!("warning: cannot send '{}': {why}", send.to)));
    pool.dsl.lookup(pool.io(), &send.to).map_err(|e| super::cannot("open", &send.to, &e))?;
    if let Some(from) = send.from.as_ref().filter(|from| from.contains('@')) {
        pool.dsl.lookup_snapshot(pool.io(), from).map_err(|e| super::cannot("open", from, &e))?;
    }
    let Some((path, _)) = send.to.split_once('@') else {
        return fail("cannot do a redacted send to a filesystem");
    };
    let bookmark = bookmark.split_once('#').map_or(bookmark, |(_, short)| short);
    let name = format!("{path}#{bookmark}");
    let valid = match name.contains('@') {
        true => Err("snapshot delimiter '@' is not expected here".into()),
        false => super::valid(&name, Named::Any),
    };
    valid.map_err(|why| Fail::new(format!("cannot open '{name}': {why}")))?;
    let open = |e: &DslError| super::cannot("open", &name, e);
    let head = pool.dsl.lookup_head(pool.io(), path).map_err(|e| open(&e))?;
    let Some(phys) = pool.dsl.bookmark(pool.io(), head, bookmark).map_err(|e| open(&e))? else {
        return Err(open(&DslError::NotFound(name.clone())));
    };
    match phys.redaction_obj {
        0 => fail("not a redaction bookmark"),
        _ => fail("streams are not redacted here\n(send the snapshot whole, or the redacted one)"),
    }
}

/// Snapshots in between begin with one that is earlier (`zfs_send`, libzfs_sendrecv.c).
fn is_earlier(pool: &Pool, spec: &PackageSpec) -> Outcome {
    let Some(from) = spec.send.from.as_ref().filter(|_| spec.intermediates && !spec.replicate) else {
        return Ok(());
    };
    let born = |name: &str| {
        let r = pool.dsl.lookup_snapshot(pool.io(), name).ok()?;
        Some(pool.dsl.dataset(pool.io(), r.obj).ok()?.creation_txg)
    };
    match (born(from), born(&spec.send.to)) {
        (Some(from_txg), Some(to_txg)) if from_txg >= to_txg => {
            let why = if from_txg == to_txg { "is not earlier than it" } else { "does not exist" };
            let to = &spec.send.to;
            Err(Fail::new(format!("WARNING: could not send {to}:\nincremental source ({from}) {why}")))
        }
        _ => Ok(()),
    }
}

/// A head that is mounted changes while it is sent (`dmu_send`, dmu_send.c).
fn not_mounted(pool: &Pool, to: &str) -> Outcome {
    let head = pool.dsl.lookup_head(pool.io(), to).ok().filter(|_| !to.contains(['@', '#']));
    match head.is_some_and(|r| pool.dsl.busy().is_mounted(r.obj)) {
        true => Err(Fail::new(format!(
            "warning: cannot send '{to}': target is busy; if a filesystem, it must not be mounted"
        ))),
        false => Ok(()),
    }
}

/// What does not go together on a command line (`zfs_do_send`, zfs_main.c).
fn check(typed: &Typed) -> Outcome {
    let usage = |what: &str| Err(Fail::usage(what, USAGE));
    let package = package(typed);
    if let Some(bad) =
        excluded(typed).find(|x| !x.contains('/') || super::valid(x, Named::NoBookmark).is_err())
    {
        return usage(&format!("-X {bad}: not a valid non-root dataset name."));
    }
    if typed.values('i').chain(typed.values('I')).count() > 1 {
        return usage("only one of -i and -I can be given");
    }
    if typed.has('t') {
        if package || typed.has('i') || typed.has('S') || typed.has('d') {
            return usage("invalid flags combined with -t");
        }
        return if typed.operands.is_empty() { Ok(()) } else { usage("too many arguments") };
    }
    let Some(to) = typed.operands.first() else { return usage("missing snapshot argument") };
    if typed.has('S') {
        if package || ['i', 'L', 'e', 'c', 'w', 'd'].iter().any(|c| typed.has(*c)) {
            return usage("incompatible flags combined with saved send flag");
        }
        if to.contains('@') {
            return usage("saved send must specify the dataset with partially-received state");
        }
    }
    if typed.has('w') && typed.has('d') {
        return Err(Fail::new("Error: raw sends may not be redacted."));
    }
    if typed.has('X') && !typed.has('R') {
        return Err(Fail::new("Cannot specify dataset exclusion (-X) on a non-recursive send."));
    }
    if typed.has('s') && !typed.has('R') {
        return usage("skip-missing flag can only be used in conjunction with replicate");
    }
    if (typed.has('R') || typed.has('I')) && !to.contains('@') {
        return Err(Fail::new("Error: Unsupported flag with filesystem or bookmark."));
    }
    Ok(())
}

/// Whether records stand before the stream.
fn package(typed: &Typed) -> bool {
    ['R', 'I', 'p', 'b', 'h'].iter().any(|c| typed.has(*c))
}

fn excluded(typed: &Typed) -> impl Iterator<Item = String> + '_ {
    typed.values('X').flat_map(|x| x.split(',')).map(String::from)
}

/// Keys for what leaves decrypted. A raw stream needs none.
fn give_keys(pool: &mut Open, spec: &PackageSpec, typed: &Typed) -> Outcome {
    if spec.send.flags.raw {
        return Ok(());
    }
    let to = &spec.send.to;
    let path = to.split('@').next().unwrap_or(to);
    let all = if spec.replicate {
        if !spec.no_preserve_encryption {
            return Ok(()); // refused below, by name, before any key is asked for
        }
        pool.dsl.descendants(pool.io(), path).map_err(|e| super::cannot("open", path, &e))?
    } else {
        vec![path.to_string()]
    };
    // Before any key is asked for.
    pool.dsl.lookup(pool.io(), to).map_err(|e| super::cannot("open", to, &e))?;
    for ds in all.iter().filter(|d| !spec.exclude.contains(d)) {
        // One stream is asked for by another call, and refused by another word (`zfs_send_one_cb_impl`, `dump_ioctl`).
        let what = if spec.replicate || spec.intermediates { "source" } else { "dataset" };
        unlock(pool, ds, how(typed)).map_err(|f| locked(to, what, ds, &f))?;
    }
    Ok(())
}

/// Why what is not raw cannot leave.
fn locked(to: &str, what: &str, dataset: &str, why: &Fail) -> Fail {
    let dataset = dataset.split('@').next().unwrap_or(dataset);
    Fail::new(format!(
        "warning: cannot send '{to}': {what} key must be loaded\ndataset '{dataset}' is encrypted: {}",
        why.message
    ))
}

fn how(typed: &Typed) -> How<'_> {
    How {
        location: typed.value('K'),
        // Standard input belongs to whoever stands before us in a pipe, unless we are told to read the key there.
        ask: if typed.has('K') { Ask::Input } else { Ask::Terminal },
        otherwise: "\nname it with --keylocation file:///PATH, or send raw with -w, which needs no key",
        ..How::default()
    }
}

fn output(to: &str) -> Outcome<icecore_service::stdio::Output> {
    pipe::output().map_err(|e| Fail::new(format!("cannot send '{to}': {e}")))
}

fn spec(to: &str, typed: &Typed) -> Outcome<PackageSpec> {
    let path = to.split('@').next().unwrap_or(to);
    let short = typed.value('i').or(typed.value('I'));
    let from = short.map(|f| match f.chars().next() {
        Some('@' | '#') => format!("{path}{f}"),
        _ if f.contains(['@', '#']) => f.to_string(),
        _ => {
            if typed.has('i') && !typed.has('R') {
                eprintln!(
                    "Warning: incremental source didn't specify type, assuming snapshot. Use '@' or '#' prefix to avoid ambiguity."
                );
            }
            format!("{path}@{f}")
        }
    });
    if (typed.has('I') || typed.has('R')) && from.as_ref().is_some_and(|f| f.contains('#')) {
        return Err(Fail::new("Error: multiple snapshots cannot be sent from a bookmark."));
    }
    if short.is_some_and(|from| ["", "@"].contains(&from)) && typed.has('I') {
        return Err(Fail::new(format!("cannot send '{path}': zero-length incremental source")));
    }
    let replicate = typed.has('R');
    Ok(PackageSpec {
        send: SendSpec { to: to.into(), from, flags: flags(typed), ..SendSpec::default() },
        replicate,
        intermediates: typed.has('I'),
        properties: typed.has('p') || replicate || typed.has('b'),
        backup: typed.has('b'),
        holds: typed.has('h'),
        skip_missing: typed.has('s'),
        no_preserve_encryption: typed.has('U'),
        exclude: excluded(typed).collect(),
    })
}

fn flags(typed: &Typed) -> SendFlags {
    SendFlags {
        raw: typed.has('w'),
        large_block: typed.has('L'),
        embed: typed.has('e'),
        compress: typed.has('c'),
    }
}

fn resume(text: &str, typed: &Typed) -> Outcome {
    let token =
        ResumeToken::parse(text).map_err(|e| Fail::new(format!("cannot resume send: {e}")).negative())?;
    let verbose = typed.has('v') || typed.has('P') || typed.has('V');
    let say = Say { parsable: typed.has('P'), dry: typed.has('n'), full: true };
    if verbose {
        say.token(&token);
    }
    let fail = |e: &SendError| match explain(&token.toname, e) {
        quiet if quiet.message.is_empty() => quiet,
        // The engine's own words may begin so already.
        _ => {
            let why = e.to_string();
            let why = why.strip_prefix("cannot resume send: ").unwrap_or(&why);
            Fail::new(format!("cannot resume send: {why}")).negative()
        }
    };
    let mut pool = session::open(&token.toname, For::Read).map_err(Fail::negative)?;
    let (spec, source) = resolve_token(pool.io(), &pool.dsl, &token).map_err(|e| fail(&e))?;
    if verbose {
        let bytes = estimate(pool.io(), &pool.dsl, &spec).map_err(|e| fail(&e))?;
        say.stream(&spec.to, spec.from.as_deref(), bytes);
        say.total(bytes);
    }
    if typed.has('n') {
        return Ok(());
    }
    if !spec.flags.raw {
        unlock(&mut pool, &spec.to, how(typed))
            .map_err(|f| locked(&spec.to, "source", &spec.to, &f).negative())?;
    }
    send_source(pool, &spec, &source, typed).map_err(|e| fail(&e))
}

fn send_source(pool: Open, spec: &SendSpec, source: &Source, typed: &Typed) -> Result<(), SendError> {
    let mut meter = Meter::new(&spec.to, typed.has('v'), typed.has('P'));
    let mut out = pipe::output()?;
    let store = pool.into_store(std::iter::once(source.to.obj));
    send_one(&store, source, spec.flags, spec.packing, &mut out, &mut |n| meter.at(n))?;
    Ok(())
}

/// `zfs send --saved`: a stream that was cut off when it was received is sent on as far as it came. It ends where it was
/// cut, so whoever receives it is to keep it (`zfs receive -s`), and goes on with a token from there.
fn saved(to: &str, typed: &Typed) -> Outcome {
    let mut pool = super::open(to, Named::NoBookmark, For::Read)?;
    let found = resolve_saved(pool.io(), &pool.dsl, to).map_err(|e| explain(to, &e))?;
    let Some((spec, source)) = found else {
        return Err(Fail::new(format!("saved send failed: '{to}' has no partially received state")));
    };
    if typed.has('v') || typed.has('P') || typed.has('V') {
        let say = Say { parsable: typed.has('P'), dry: typed.has('n'), full: true };
        let head = pool.dsl.lookup_head(pool.io(), to)?;
        let text = pool.dsl.resume_token(pool.io(), head)?.unwrap_or_default();
        let mut token = ResumeToken::parse(&text)?;
        (token.object, token.offset, token.bytes, token.toname) = (0, 0, 0, to.into());
        token.list = token.to_list();
        say.token(&token);
        let bytes = estimate_of(pool.io(), &pool.dsl, &spec, &source).map_err(|e| explain(to, &e))?;
        say.stream(to, spec.from.as_deref(), bytes);
        say.total(bytes);
    }
    if typed.has('n') {
        return Ok(());
    }
    if !spec.flags.raw {
        unlock(&mut pool, to, how(typed)).map_err(|f| locked(to, "source", to, &f))?;
    }
    send_source(pool, &spec, &source, typed).map_err(|e| explain(to, &e))
}

/// What is going to be sent, with sizes.
fn announce(pool: &Pool, spec: &PackageSpec, typed: &Typed) -> Outcome {
    let say =
        Say { parsable: typed.has('P'), dry: typed.has('n'), full: !spec.replicate && !spec.intermediates };
    let streams = estimate_package(pool.io(), &pool.dsl, spec).map_err(|e| explain(&spec.send.to, &e))?;
    let mut total = 0;
    for s in &streams {
        total += s.bytes;
        say.stream(&s.to, s.previous.as_deref(), s.bytes);
    }
    say.total(total);
    Ok(())
}

/// The lines of `send -v` and `-P` (`send_print_verbose`, libzfs_sendrecv.c): on standard output for a dry
/// run, else on standard error.
#[derive(Clone, Copy)]
struct Say {
    parsable: bool,
    dry: bool,
    /// Sources by their full names: OpenZFS shortens them only in packages.
    full: bool,
}

impl Say {
    fn line(self, text: &str) {
        if self.dry { println!("{text}") } else { eprintln!("{text}") }
    }
    fn token(self, token: &ResumeToken) {
        self.line("resume token contents:\nnvlist version: 0");
        for (name, v) in token.list.iter() {
            self.line(&format!("\t{name} = {}", super::token_value(v)));
        }
    }
    fn stream(self, to: &str, from: Option<&str>, bytes: u64) {
        let from = from.map(|f| if self.full { f } else { &f[f.find('@').unwrap_or(0)..] });
        self.line(&match (from, self.parsable) {
            (None, true) => format!("full\t{to}\t{bytes}"),
            (Some(f), true) => format!("incremental\t{}\t{to}\t{bytes}", f.trim_start_matches('@')),
            (None, false) => format!("full send of {to} estimated size is {}", human::bytes(bytes)),
            (Some(f), false) => format!("send from {f} to {to} estimated size is {}", human::bytes(bytes)),
        });
    }
    fn total(self, bytes: u64) {
        self.line(&if self.parsable {
            format!("size\t{bytes}")
        } else {
            format!("total estimated size is {}", human::bytes(bytes))
        });
    }
}

pub fn explain(to: &str, e: &SendError) -> Fail {
    match e {
        SendError::NoSnapshot(name) => Fail::new(format!("cannot open '{name}': dataset does not exist")),
        // A snapshot is opened first, a bookmark only looked for (`zfs_send_one_cb_impl`, libzfs_sendrecv.c).
        SendError::NoSource { from, .. } if from.contains('@') => {
            Fail::new(format!("cannot open '{from}': dataset does not exist"))
        }
        SendError::NoSource { from, .. } => {
            Fail::new(format!("warning: cannot send '{to}': incremental source ({from}) does not exist"))
        }
        SendError::NotEarlier { .. } => {
            Fail::new(format!("warning: cannot send '{to}': not an earlier snapshot from the same fs"))
        }
        // Whoever read the stream has gone, and says why itself.
        SendError::Io(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Fail::said(FAILED),
        SendError::Read(ReadError::KeyUnavailable { .. }) => Fail::new(format!(
            "warning: cannot send '{to}': dataset key must be loaded\ndataset '{}' is encrypted: encryption key not loaded\nsend it raw with -w, which needs no key",
            to.split('@').next().unwrap_or(to)
        )),
        SendError::Nothing(why) => Fail::new(format!("WARNING: {why}")),
        // Some of the engine's words are OpenZFS's whole line already.
        e => match e.to_string() {
            whole if whole.starts_with("cannot send ") => Fail::new(whole),
            why => Fail::new(format!("cannot send '{to}': {why}")),
        },
    }
}

/// A line a second with what has gone out, as `zfs send -v` prints it.
struct Meter<'a> {
    name: &'a str,
    on: bool,
    parsable: bool,
    last: Instant,
    header: bool,
}

impl<'a> Meter<'a> {
    fn new(name: &'a str, on: bool, parsable: bool) -> Self {
        Self { name, on, parsable, last: Instant::now(), header: false }
    }
    fn at(&mut self, bytes: u64) {
        if !self.on || self.last.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.last = Instant::now();
        if !self.header && !self.parsable {
            eprintln!("TIME        SENT   SNAPSHOT {}", self.name);
            self.header = true;
        }
        let now = jiff::Timestamp::now().to_zoned(caller::time_zone()).strftime("%H:%M:%S").to_string();
        if self.parsable {
            eprintln!("{now}\t{bytes}\t{}", self.name);
        } else {
            eprintln!("{now}   {:>5}   {}", human::bytes(bytes), self.name);
        }
    }
}
