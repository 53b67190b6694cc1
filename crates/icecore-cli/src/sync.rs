//! `icecore sync SRC DST`: the whole backup round as one command.
//!
//! Snapshot, find the base by GUID dataset by dataset, refuse before the first byte what cannot work, send
//! (raw where encrypted), receive resumably, read back what was written, say what was proven. It destroys
//! and rolls back nothing. A run that was cut is simply run again. The source is read by the sender's thread and by
//! the planner, the destination is opened for writing, and once more to be read back; before all that both are looked
//! at once, so that a refusal does nothing at all.

mod status;

use crate::args::{Typed, flag, value};
use crate::bar;
use crate::caller;
use crate::engine::{Ahead, Reading};
use crate::fail::{FAILED, Fail, Outcome};
use crate::human;
use crate::pipe;
use crate::session::{self, Engine, For, Open};
use crate::state;
use crate::zfs::{Kind, cannot, explain_receive, explain_send, token_of};
use icecore_backup::{Mark, Plan, Step, Task, Tree, plan};
use icecore_dsl::{DslError, name};
use icecore_pool::Pool;
use icecore_service::stdio::Input;
use icecore_stream::payload_sum;
use icecore_stream::receive::{Progress, ReceiveSpec, SharedRoot, inherit_root, receive};
use icecore_stream::send::{
    PackageSpec, SendFlags, SendSpec, estimate, prepare, resolve, resolve_token, send_one, send_prepared,
};
use icecore_stream::token::ResumeToken;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use status::Meter;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub const HELP: &str =
    "usage: icecore sync [-nv] [--json] [--no-snapshot | --snapshot NAME] [--export] SRC DST

Backs up the dataset SRC and all below it to DST on another pool: snapshots SRC, sends what
DST does not have (raw where encrypted, so no key is needed), and reads back what it wrote.
Destroys and rolls back nothing. A run that was cut is simply run again.

  -n, --dry-run       show what would be done
  -v, --verbose       show the zfs commands that each step stands for
  --json              one JSON object a line: plan, snapshot, status, read_back, summary, export,
                      conflict, exit_error
  --no-snapshot       send the snapshots that are there
  --snapshot NAME     name of the new snapshots (icecore_DATE_TIMEZ)
  --export            export the pool of DST at the end, so that its drive can be unplugged
";
pub const USAGE: &str = "icecore sync [-nv] [--json] [--no-snapshot | --snapshot NAME] [--export] SRC DST";

struct Options {
    source: String,
    destination: String,
    dry: bool,
    json: bool,
    verbose: bool,
    export: bool,
    no_snapshot: bool,
    snapshot: Option<String>,
}

/// What a run did, for its last words.
#[derive(Default)]
struct Tally {
    datasets: usize,
    streams: usize,
    bytes: u64,
    read_back: u64,
    warnings: Vec<String>,
}

pub fn run(args: &[String]) -> Outcome {
    let known = [
        flag('n', "dry-run"),
        flag('v', "verbose"),
        flag('j', "json"),
        flag('N', "no-snapshot"),
        flag('E', "export"),
        value('S', "snapshot"),
    ];
    let outcome = Typed::parse(args, &known, USAGE).and_then(|typed| options(&typed)).and_then(|o| round(&o));
    if let Err(f) = &outcome
        && wants_json(args)
    {
        say_json(&json!({"message_type": "exit_error", "code": f.status, "message": f.message}));
    }
    outcome
}

/// Whether `--json` was typed, also where the rest of the line makes no sense.
fn wants_json(args: &[String]) -> bool {
    let mut options = args.iter().take_while(|a| *a != "--");
    // What follows the letter S is a name.
    let letters = |a: &str| a.split('S').next().is_some_and(|l| l.contains('j'));
    options.any(|a| a == "--json" || (a.starts_with('-') && !a.starts_with("--") && letters(a)))
}

fn options(typed: &Typed) -> Outcome<Options> {
    let [source, destination] = typed.operands.as_slice() else {
        return Err(Fail::usage("sync takes a source and a destination", USAGE));
    };
    if let Some(bad) = [source, destination].into_iter().find(|n| n.contains(['@', '#'])) {
        return Err(Fail::usage(format!("sync takes datasets, and '{bad}' is not one"), USAGE));
    }
    for dataset in [source, destination] {
        name::check(dataset).map_err(|e| Fail::usage(format!("'{dataset}': {e}"), USAGE))?;
    }
    if typed.has('N') && typed.has('S') {
        return Err(Fail::usage("--no-snapshot and --snapshot exclude each other", USAGE));
    }
    if let Some(snap) = typed.value('S') {
        name::check(&format!("{source}@{snap}"))
            .map_err(|e| Fail::usage(format!("'{snap}' cannot be a snapshot's name: {e}"), USAGE))?;
    }
    if session::pool_of(source) == session::pool_of(destination) {
        return Err(Fail::new(
            "source and destination are on the same pool: a backup belongs on another drive",
        ));
    }
    let json = typed.has('j');
    Ok(Options {
        source: source.clone(),
        destination: destination.clone(),
        dry: typed.has('n'),
        json,
        verbose: typed.has('v'),
        export: typed.has('E'),
        no_snapshot: typed.has('N'),
        snapshot: typed.value('S').map(String::from),
    })
}

fn round(o: &Options) -> Outcome {
    let start = Instant::now();
    let fresh = takes_snapshot(o)?;
    let there = {
        // What cannot work is refused before anything is done, the snapshot included: the plan is made as if
        // that were there.
        let there = {
            let destination = session::open(&o.destination, For::Read)?;
            can_receive(o, &destination)?;
            destination_tree(o, &destination)?
        };
        let source = session::open(&o.source, For::Read)?;
        let mut here = source_tree(o, &source)?;
        let snap = fresh.then(|| snapshot_name(o, &here, &there)).transpose()?;
        if let Some(snap) = &snap {
            here = here.with_snapshot(snap);
        }
        let survey = Survey::make(o, &source, &here, there);
        if o.dry || !survey.plan.conflicts.is_empty() {
            if let Some(snap) = snap.filter(|_| survey.plan.conflicts.is_empty()) {
                say_snapshot(o, &snap, here.datasets.len());
            }
            survey.show(o);
            return refuse(&survey.plan, "nothing was done");
        }
        survey.there
    };
    if fresh {
        snapshot(o, &there)?;
    }
    let mut tally = Tally::default();
    let mut written = Vec::new();
    {
        let mut destination = Engine::open(&o.destination)?;
        std::thread::scope(|scope| {
            let (sender, jobs) = mpsc::channel();
            let caller = caller::current();
            scope.spawn(move || caller::inherit(caller, || serve(&o.source, &jobs)));
            let mut run = Run { o, destination: &mut destination, sender, tally: &mut tally };
            run.all(&mut written)
        })?;
        let there = destination_tree(o, destination.pool())?;
        destination.let_go();
        let source = session::open(&o.source, For::Read)?;
        let here = source_tree(o, &source)?;
        if !plan(&here, &there).is_up_to_date() {
            return Err(Fail::new("the destination is still behind the source after the run; run it again"));
        }
    }
    if !written.is_empty() {
        tally.read_back = read_back(o, &written)?;
        if o.json {
            say_json(
                &json!({"message_type": "read_back", "datasets": written.len(), "bytes": tally.read_back}),
            );
        }
    }
    summary(o, &tally, start);
    if o.export {
        let pool = session::pool_of(&o.destination);
        crate::zpool::export(pool, false)?;
        say(o, &format!("{pool} is exported: the drive can be unplugged"));
        if o.json {
            say_json(&json!({"message_type": "export", "pool": pool}));
        }
    }
    Ok(())
}

/// Whether the destination can take datasets at all: its pool is writable, and its parent is there.
fn can_receive(o: &Options, destination: &Pool) -> Outcome {
    let dst = &o.destination;
    if state::find(session::pool_of(dst))?.is_some_and(|record| record.readonly) {
        return Err(Fail::new(format!("cannot back up to '{dst}': its pool was imported with readonly=on")));
    }
    match dst.rsplit_once('/') {
        Some((parent, _)) if destination.dsl.lookup_head(destination.io(), parent).is_err() => {
            Err(Fail::new(format!(
                "cannot back up to '{dst}': dataset '{parent}' does not exist\nmake it with 'zfs create -p {parent}'"
            )))
        }
        _ => Ok(()),
    }
}

/// Before the first byte: an error if any dataset cannot be backed up as it is; `state` says what was done.
fn refuse(plan: &Plan, state: &str) -> Outcome {
    match plan.conflicts.len() {
        0 => Ok(()),
        1 => Err(Fail::new(format!("{state}: 1 dataset cannot be backed up as it is"))),
        n => Err(Fail::new(format!("{state}: {n} datasets cannot be backed up as they are"))),
    }
}

fn say(o: &Options, text: &str) {
    if !o.json {
        println!("{text}");
    }
}

fn say_json(object: &Value) {
    println!("{object}");
}

fn say_snapshot(o: &Options, snap: &str, datasets: usize) {
    let full = format!("{}@{snap}", o.source);
    if o.json {
        say_json(&json!({"message_type": "snapshot", "name": full, "datasets": datasets, "dry_run": o.dry}));
    } else if o.verbose || o.dry {
        println!("# zfs snapshot -r {full}");
    }
}

/// Whether this run snapshots the source first.
fn takes_snapshot(o: &Options) -> Outcome<bool> {
    if o.no_snapshot {
        return Ok(false);
    }
    let Some(record) = state::find(session::pool_of(&o.source))? else {
        return Err(session::no_pool(&o.source));
    };
    if !record.readonly {
        return Ok(true);
    }
    if let Some(snap) = &o.snapshot {
        return Err(Fail::new(format!(
            "cannot create snapshot '{}@{snap}': {} is imported read-only\n\
             Leave out --snapshot to back up the snapshots that are there.",
            o.source, record.name
        )));
    }
    say(o, &format!("{} is imported read-only: backing up the snapshots that are there", record.name));
    Ok(false)
}

/// What the new snapshots are called: as asked for, or by the time in UTC, with a number where another run
/// was there within the same second. Neither side has any of that name.
fn snapshot_name(o: &Options, here: &Tree, there: &Tree) -> Outcome<String> {
    if let Some(snap) = &o.snapshot {
        if let Some(ds) = here.datasets.iter().find(|d| d.snapshots.iter().any(|s| s.name == *snap)) {
            let full = format!("{}@{snap}", full_name(&o.source, &ds.path));
            return Err(cannot("create snapshot", &full, &DslError::Exists(full.clone())));
        }
        return Ok(snap.clone());
    }
    let time = jiff::Timestamp::now().strftime("icecore_%Y-%m-%d_%H%M%SZ").to_string();
    Ok(free_name(&time, |name| here.has_snapshot(name) || there.has_snapshot(name)))
}

/// `name`, or the first of `name-1`, `name-2`, … that is not taken.
fn free_name(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (1_u64..).map(|n| format!("{name}-{n}"));
    std::iter::once(name.to_string()).chain(numbered).find(|n| !taken(n)).unwrap_or_default()
}

/// Snapshots the source and all below it. The name is looked for again now that nobody else can take it.
fn snapshot(o: &Options, there: &Tree) -> Outcome {
    let mut pool = session::open(&o.source, For::Write)?;
    let (io, dsl) = pool.parts();
    let here = Tree::read(dsl, io, &o.source)?;
    let snap = snapshot_name(o, &here, there)?;
    let names = dsl.snapshot_names_below(io, &o.source, &snap)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let full = format!("{}@{snap}", o.source);
    dsl.snapshot(io, &names, &[]).map_err(|e| cannot("create snapshot", &full, &e))?;
    pool.commit()?;
    say_snapshot(o, &snap, names.len());
    Ok(())
}

/// What the source has.
fn source_tree(o: &Options, source: &Pool) -> Outcome<Tree> {
    let here = Tree::read(&source.dsl, source.io(), &o.source)?;
    if here.datasets.is_empty() {
        return Err(Fail::new(format!("cannot open '{}': dataset does not exist", o.source)));
    }
    Ok(here)
}

/// What the destination has.
fn destination_tree(o: &Options, destination: &Pool) -> Outcome<Tree> {
    Ok(Tree::read(&destination.dsl, destination.io(), &o.destination)?)
}

/// A plan, what it was made from, and how much it is.
struct Survey {
    plan: Plan,
    there: Tree,
    /// A guess at the bytes of each step of each task; 0 where there is none.
    sizes: Vec<Vec<u64>>,
}

impl Survey {
    fn make(o: &Options, source: &Pool, here: &Tree, there: Tree) -> Self {
        let plan = plan(here, &there);
        let guess = |task: &Task| task.steps.iter().map(|s| guess(o, source, task, s)).collect();
        Self { sizes: plan.tasks.iter().map(guess).collect(), plan, there }
    }

    fn total(&self) -> u64 {
        self.sizes.iter().flatten().sum()
    }
}

/// About how many bytes the stream has; 0 if that cannot be known, as of a snapshot still to be taken.
fn guess(o: &Options, source: &Pool, task: &Task, step: &Step) -> u64 {
    let (io, dsl) = (source.io(), &source.dsl);
    let spec = match step {
        Step::Resume { token, .. } => {
            let token = ResumeToken::parse(token).ok();
            token.and_then(|t| resolve_token(io, dsl, &t).ok()).map(|(spec, _)| spec)
        }
        step => Some(send_spec(o, task.raw, &task.path, step)),
    };
    spec.and_then(|spec| estimate(io, dsl, &spec).ok()).unwrap_or(0)
}

fn full_name(root: &str, path: &str) -> String {
    if path.is_empty() { root.to_string() } else { format!("{root}/{path}") }
}

fn send_spec(o: &Options, raw: bool, path: &str, step: &Step) -> SendSpec {
    let ds = full_name(&o.source, path);
    // Plain datasets go as they lie on disk too: the copy's blocks are the source's.
    let flags = SendFlags { raw, large_block: true, embed: !raw, compress: true };
    let (to, from) = match step {
        Step::Full { to } => (format!("{ds}@{to}"), None),
        Step::Incremental { from, to } => (format!("{ds}@{to}"), Some(format!("{ds}{}", from.typed()))),
        Step::Resume { .. } => (String::new(), None),
    };
    SendSpec { to, from, flags, ..SendSpec::default() }
}

/// The `zfs` line that a step stands for.
fn typed_line(o: &Options, task: &Task, step: &Step) -> String {
    let (src, dst) = (full_name(&o.source, &task.path), full_name(&o.destination, &task.path));
    let w = if task.raw { "-w -p" } else { "-L -e -c -p" };
    match step {
        Step::Resume { token, .. } => {
            format!("zfs send -t {}… | zfs receive -s -u {dst}", &token[..token.len().min(20)])
        }
        Step::Full { to } => format!("zfs send {w} {src}@{to} | zfs receive -s -u {dst}"),
        Step::Incremental { from, to } => {
            format!("zfs send {w} -i {} {src}@{to} | zfs receive -s -u {dst}", from.typed())
        }
    }
}

impl Survey {
    fn show(&self, o: &Options) {
        for (path, conflict) in &self.plan.conflicts {
            let (src, dst) = (full_name(&o.source, path), full_name(&o.destination, path));
            let reason = conflict.describe(&dst);
            if o.json {
                say_json(
                    &json!({"message_type": "conflict", "source": src, "destination": dst, "reason": reason}),
                );
            } else {
                eprintln!("cannot back up {src} to {dst}: {reason}");
            }
        }
        for (task, sizes) in self.plan.tasks.iter().zip(&self.sizes) {
            show_task(o, task, sizes.iter().sum());
        }
    }
}

fn show_task(o: &Options, task: &Task, bytes: u64) {
    let (src, dst) = (full_name(&o.source, &task.path), full_name(&o.destination, &task.path));
    let lines: Vec<String> = task.steps.iter().map(|s| typed_line(o, task, s)).collect();
    if o.json {
        say_json(&json!({"message_type": "plan", "source": src, "destination": dst, "raw": task.raw,
                         "reason": task.reason, "bytes": bytes, "more_bytes_unknown": task.pending, "zfs": lines}));
        return;
    }
    let size = match (bytes, task.pending) {
        (0, false) => String::new(),
        (0, true) => ", bytes unknown until the snapshot exists".into(),
        (n, false) => format!(", about {}", human::bytes(n)),
        (n, true) => format!(", about {} and what the new snapshot brings", human::bytes(n)),
    };
    println!("{src} -> {dst}: {}{size}", task.reason);
    if o.verbose || o.dry {
        lines.iter().for_each(|line| println!("# {line}"));
    }
}

/// A run. Of the two pools at most one is held at a time.
struct Run<'a> {
    o: &'a Options,
    destination: &'a mut Engine,
    sender: mpsc::Sender<Job>,
    tally: &'a mut Tally,
}

/// One stream to be sent, and where to.
struct Job {
    stream: Stream,
    out: std::io::PipeWriter,
    done: mpsc::Sender<Outcome>,
}

enum Stream {
    Resume(String),
    New(Box<PackageSpec>),
}

impl Run<'_> {
    /// Carries the plan out; `written` gets what there is to read back.
    fn all(&mut self, written: &mut Vec<Task>) -> Outcome {
        let there = destination_tree(self.o, self.destination.pool())?;
        self.destination.let_go();
        let survey = {
            let source = session::open(&self.o.source, For::Read)?;
            Survey::make(self.o, &source, &source_tree(self.o, &source)?, there)
        };
        survey.show(self.o);
        // Only where somebody changed the destination since the first look.
        refuse(&survey.plan, "nothing was sent")?;
        let meter = Meter::new(survey.total());
        // One for the whole run: what is left of it is what a user waits for.
        let bar = bar::bytes("backing up", !self.o.json);
        for (task, sizes) in survey.plan.tasks.into_iter().zip(&survey.sizes) {
            if !task.steps.is_empty() {
                bar.set_message(full_name(&self.o.source, &task.path));
                self.execute(&task, sizes, &survey.there, &bar, &meter)?;
            }
            // Also of what is up to date: a run may have been cut between the two.
            if task.raw && !task.path.is_empty() {
                self.adopt_root(&task)?;
            }
            if !task.steps.is_empty() {
                written.push(task);
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn execute(
        &mut self,
        task: &Task,
        sizes: &[u64],
        there: &Tree,
        bar: &ProgressBar,
        meter: &Meter,
    ) -> Outcome {
        let o = self.o;
        let dst = full_name(&o.destination, &task.path);
        for (step, size) in task.steps.iter().zip(sizes) {
            meter.begin(*size);
            let outcome = if o.json {
                say_json(&meter.status(&dst));
                std::thread::scope(|scope| {
                    // Dropped at the end of this block, also on the way out: then the other thread ends.
                    let (_running, stop) = mpsc::channel::<()>();
                    let dst = &dst;
                    let caller = caller::current();
                    let report = move || meter.report(dst, Duration::from_secs(1), &stop, say_json);
                    scope.spawn(move || caller::inherit(caller, report));
                    self.transfer(task, step, there, dst, bar, meter)
                })
            } else {
                self.transfer(task, step, there, &dst, bar, meter)
            };
            let bytes = meter.end();
            meter.show(bar);
            self.tally.bytes += bytes;
            outcome?;
            self.tally.streams += 1;
            if o.json {
                let mut status = meter.status(&dst);
                status["zfs"] = typed_line(o, task, step).into();
                status["bytes"] = bytes.into();
                say_json(&status);
            }
        }
        self.tally.datasets += 1;
        Ok(())
    }

    /// One stream, from the sender's thread through a pipe into the receiver.
    fn transfer(
        &mut self,
        task: &Task,
        step: &Step,
        there: &Tree,
        dst: &str,
        bar: &ProgressBar,
        meter: &Meter,
    ) -> Outcome {
        let o = self.o;
        let (reader, out) = std::io::pipe().map_err(|e| Fail::new(format!("cannot make a pipe: {e}")))?;
        pipe::widen(&out);
        let stream = match step {
            Step::Resume { token, .. } => Stream::Resume(token.clone()),
            step => Stream::New(Box::new(PackageSpec {
                send: send_spec(o, task.raw, &task.path, step),
                properties: true,
                ..PackageSpec::default()
            })),
        };
        let gone = || Fail::new("the sender stopped");
        let (done, sent) = mpsc::channel();
        self.sender.send(Job { stream, out, done }).map_err(|_| gone())?;
        let spec = ReceiveSpec {
            target: dst.into(),
            resumable: true,
            // Only ever over a dataset that the plan saw to be empty and without snapshots.
            force: matches!(step, Step::Full { .. }) && there.get(&task.path).is_some(),
            ..ReceiveSpec::default()
        };
        let ahead = Ahead::new(Input::new(OwnedFd::from(reader).into(), caller::line()), Vec::new());
        self.destination.listen(&ahead);
        let mut input = Reading(ahead);
        let received = receive(self.destination, &mut input, &spec, payload_sum, &mut |p| {
            if let Progress::Bytes(n) = p {
                meter.at(n);
                meter.show(bar);
            }
        });
        let kind = match step {
            Step::Incremental { .. } => Kind::Incremental,
            // What a token goes on with is known to the receiver's state only; a new dataset has no snapshot yet.
            Step::Resume { .. } if there.get(&task.path).is_some_and(|d| !d.snapshots.is_empty()) => {
                Kind::Incremental
            }
            Step::Full { .. } | Step::Resume { .. } => Kind::Full,
        };
        // A sender that is not finished must see that nobody reads any more.
        self.destination.deaf();
        drop(input);
        let received = match received {
            Ok(done) => {
                self.tally.warnings.extend(done.warnings);
                Ok(())
            }
            Err(e) => Err(explain_receive(dst, &e, token_of(self.destination, dst).as_deref(), kind)),
        };
        self.destination.let_go();
        // The receiver knows better what went wrong, unless it only saw the sender end.
        match (sent.recv().unwrap_or_else(|_| Err(gone())), received) {
            (Ok(()), r) => r,
            (Err(s), Err(r)) if s.message.is_empty() => Err(r),
            (Err(s), Err(r)) => Err(Fail::new(format!("{}\n{}", s.message, r.message))),
            (Err(s), Ok(())) => Err(s),
        }
    }

    /// A dataset that shares its parent's encryption root at the source shares it on the copy: one passphrase
    /// opens all.
    fn adopt_root(&mut self, task: &Task) -> Outcome {
        let dst = full_name(&self.o.destination, &task.path);
        let shared = {
            let source = session::open(&self.o.source, For::Read)?;
            let (io, dsl) = (source.io(), &source.dsl);
            let head = dsl.lookup_head(io, &full_name(&self.o.source, &task.path))?;
            match dsl.encryption_root(io, head.dir)?.filter(|root| *root != head.dir) {
                Some(root) => dsl.key_object(io, root)?.zip(dsl.key_object(io, head.dir)?),
                None => None,
            }
        };
        if let Some((root, dataset)) = shared {
            let sent = SharedRoot { root, dataset };
            inherit_root(self.destination, &dst, Some(&sent))
                .map_err(|e| Fail::new(format!("cannot inherit key for '{dst}': {e}")))?;
            self.destination.let_go();
        }
        Ok(())
    }
}

/// The sender: sends what it is told to, until nobody is left to tell it.
fn serve(source: &str, jobs: &mpsc::Receiver<Job>) {
    for Job { stream, mut out, done } in jobs {
        let sent = session::open(source, For::Read).and_then(|p| send(p, &stream, &mut out));
        // The pipe's end is the receiver's end of input: it comes before the answer.
        drop(out);
        let _ = done.send(sent);
    }
}

fn send(pool: Open, stream: &Stream, out: &mut dyn Write) -> Outcome {
    let (io, dsl) = (pool.io(), &pool.dsl);
    match stream {
        Stream::Resume(token) => {
            let token = ResumeToken::parse(token).map_err(|e| Fail::new(e.to_string()))?;
            let (spec, source) =
                resolve_token(io, dsl, &token).map_err(|e| explain_send(&token.toname, &e))?;
            let store = pool.into_store(std::iter::once(source.to.obj));
            send_one(&store, &source, spec.flags, spec.packing, out, &mut |_| {})
                .map_err(|e| explain_send(&spec.to, &e))?;
        }
        Stream::New(spec) => {
            let fail = |e| explain_send(&spec.send.to, &e);
            let prepared = prepare(io, dsl, spec).map_err(fail)?;
            let store = pool.into_store(prepared.objects());
            send_prepared(&store, &prepared, out, &mut |_| {}).map_err(fail)?;
        }
    }
    Ok(())
}

/// Reads everything that was written back from the device, past the page cache, and checks every checksum.
fn read_back(o: &Options, written: &[Task]) -> Outcome<u64> {
    let record = state::find(session::pool_of(&o.destination))?
        .ok_or_else(|| Fail::new("the destination is no longer imported"))?;
    for path in &record.devices {
        if let Ok(file) = std::fs::File::open(path) {
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }
    let pool = session::open_record(&record, For::Read)?;
    pool.io().forget_blocks();
    let mut bytes = 0;
    for task in written {
        bytes += read_task(&pool, &full_name(&o.destination, &task.path), task)?;
    }
    Ok(bytes)
}

fn read_task(pool: &Pool, dst: &str, task: &Task) -> Outcome<u64> {
    let (io, dsl) = (pool.io(), &pool.dsl);
    let snapshots = dsl.snapshots(io, dst)?;
    let named = |mark: &Mark| {
        let mut all = snapshots.iter();
        all.find(|(_, r)| dsl.dataset(io, r.obj).is_ok_and(|d| d.guid == mark.guid)).map(|(n, _)| n.clone())
    };
    let mut bytes = 0;
    for step in &task.steps {
        let (to, from) = match step {
            Step::Full { to } => (to.clone(), None),
            Step::Incremental { from, to } => (to.clone(), named(from.mark()).map(|n| format!("{dst}@{n}"))),
            // Whole, for what was written before the cut was not read back either.
            Step::Resume { to, .. } => (named(to).unwrap_or_else(|| to.name.clone()), None),
        };
        let flags = SendFlags { raw: task.raw, large_block: true, embed: !task.raw, compress: true };
        let spec = SendSpec { to: format!("{dst}@{to}"), from, flags, ..SendSpec::default() };
        let fail = |e| Fail {
            status: FAILED,
            message: format!("what was written does not read back: {}", explain_send(&spec.to, &e).message),
        };
        let source = resolve(io, dsl, &spec).map_err(fail)?;
        bytes += send_one(io, &source, spec.flags, spec.packing, &mut std::io::sink(), &mut |_| {})
            .map_err(fail)?
            .bytes;
    }
    Ok(bytes)
}

fn summary(o: &Options, t: &Tally, start: Instant) {
    let secs = start.elapsed().as_secs_f64().max(0.001);
    if o.json {
        println!(
            "{}",
            json!({"message_type": "summary", "datasets": t.datasets, "streams": t.streams, "bytes": t.bytes, "read_back": t.read_back,
                   "seconds": secs, "warnings": t.warnings})
        );
        return;
    }
    t.warnings.iter().for_each(|w| eprintln!("warning: {w}"));
    if t.streams == 0 {
        println!("up to date: {} has every snapshot of {}", o.destination, o.source);
        return;
    }
    println!(
        "{}, {}, {} in {secs:.1} s ({}/s); {} read back from the device, every checksum right",
        count(t.datasets, "dataset"),
        count(t.streams, "stream"),
        human::bytes(t.bytes),
        human::bytes((t.bytes as f64 / secs) as u64),
        human::bytes(t.read_back)
    );
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_counts() {
        assert_eq!(free_name("t", |_| false), "t");
        assert_eq!(free_name("t", |n| ["t", "t-1"].contains(&n)), "t-2");
        assert_eq!(count(1, "stream"), "1 stream");
        assert_eq!(count(2, "stream") + &count(0, "dataset"), "2 streams0 datasets");
    }
}
