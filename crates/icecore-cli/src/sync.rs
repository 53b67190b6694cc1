//! `icecore sync SRC DST`: the whole backup round as one command.
//!
//! Snapshot, find the base by GUID dataset by dataset, refuse before the first byte what cannot work, send
//! (raw where encrypted), receive resumably, read back what was written, say what was proven. It destroys
//! and rolls back nothing. A run that was cut is simply run again. Each pool is opened once: the source by
//! the sender's thread and by the planner, both reading; the destination for writing, and once more to be
//! read back; before all that both are looked at once, so that a refusal does nothing at all.

use crate::args::{Typed, flag, value};
use crate::fail::{FAILED, Fail, Outcome};
use crate::human;
use crate::pipe;
use crate::session::{self, Engine, For};
use crate::state;
use crate::zfs::{explain_receive, explain_send, token_of};
use icecore_backup::{Conflict, Plan, Step, Task, Tree, plan};
use icecore_pool::Pool;
use icecore_stream::payload_sum;
use icecore_stream::receive::{Progress, ReceiveSpec, SharedRoot, inherit_root, receive};
use icecore_stream::send::{
    PackageSpec, SendFlags, SendSpec, estimate, resolve, resolve_token, send_one, send_package,
};
use icecore_stream::token::ResumeToken;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::sync::mpsc;
use std::time::Instant;

pub const HELP: &str =
    "usage: icecore sync [-nv] [--json] [--no-snapshot | --snapshot NAME] [--export] SRC DST

Backs up the dataset SRC and all below it to DST on another pool: snapshots SRC, sends what
DST does not have (raw where encrypted, so no key is needed), and reads back what it wrote.
Destroys and rolls back nothing. A run that was cut is simply run again.

  -n, --dry-run       show what would be done
  -v, --verbose       show the zfs commands that each step stands for
  --json              one JSON object a line: plan, status, summary, conflict, exit_error
  --no-snapshot       send the snapshots that are there
  --snapshot NAME     name of the new snapshots (icecore_DATE_TIMEZ)
  --export            export the pool of DST at the end, so that its drive can be unplugged
";
pub const USAGE: &str = "sync [-nv] [--json] [--no-snapshot] [--export] [--snapshot NAME] SRC DST";

struct Options {
    source: String,
    destination: String,
    dry: bool,
    json: bool,
    verbose: bool,
    quiet_bar: bool,
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
    let typed = Typed::parse(args, &known, USAGE)?;
    let [source, destination] = typed.operands.as_slice() else {
        return Err(Fail::usage("sync takes a source and a destination", USAGE));
    };
    if session::pool_of(source) == session::pool_of(destination) {
        return Err(Fail::new(
            "source and destination are on the same pool: a backup belongs on another drive",
        ));
    }
    let json = typed.has('j');
    let o = Options {
        source: source.clone(),
        destination: destination.clone(),
        dry: typed.has('n'),
        json,
        verbose: typed.has('v'),
        quiet_bar: json || !std::io::stderr().is_terminal(),
    };
    let outcome = round(&o, &typed);
    if let Err(f) = &outcome
        && json
    {
        println!("{}", json!({"message_type": "exit_error", "code": f.status, "message": f.message}));
    }
    outcome
}

fn round(o: &Options, typed: &Typed) -> Outcome {
    let start = Instant::now();
    let fresh = !typed.has('N');
    {
        // What cannot work is refused before anything is done, the snapshot included.
        let source = session::open(&o.source, For::Read)?;
        let destination = session::open(&o.destination, For::Read)?;
        let mut plan = make_plan(o, &source, &destination)?.0;
        can_receive(o, &destination)?;
        if fresh {
            plan.conflicts.retain(|(_, c)| *c != Conflict::NoSnapshot);
        }
        if !plan.conflicts.is_empty() || o.dry {
            if o.dry && fresh {
                snapshot(o, typed.value('S'))?;
            }
            show_plan(o, &plan);
            return refuse(&plan);
        }
    }
    if fresh {
        snapshot(o, typed.value('S'))?;
    }
    let source = session::open(&o.source, For::Read)?;
    let mut tally = Tally::default();
    let mut written = Vec::new();
    {
        let mut destination = Engine::open(&o.destination)?;
        std::thread::scope(|scope| {
            let (sender, jobs) = mpsc::channel();
            scope.spawn(move || serve(&o.source, &jobs));
            let mut run =
                Run { o, source: &source, destination: &mut destination, sender, tally: &mut tally };
            run.all(&mut written)
        })?;
        let checked = make_plan(o, &source, destination.pool())?.0;
        if !checked.is_up_to_date() {
            return Err(Fail::new("the destination is still behind the source after the run; run it again"));
        }
    }
    if !written.is_empty() {
        tally.read_back = read_back(o, &written)?;
    }
    summary(o, &tally, start);
    if typed.has('E') {
        crate::zpool::export(session::pool_of(&o.destination))?;
        say(o, &format!("{} is exported: the drive can be unplugged", session::pool_of(&o.destination)));
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

/// Before the first byte: an error if any dataset cannot be backed up as it is.
fn refuse(plan: &Plan) -> Outcome {
    match plan.conflicts.len() {
        0 => Ok(()),
        n => Err(Fail::new(format!("nothing was done: {n} of the datasets cannot be backed up as they are"))),
    }
}

fn say(o: &Options, text: &str) {
    if !o.json {
        println!("{text}");
    }
}

/// Snapshots the source and all below it, if it can be written.
fn snapshot(o: &Options, name: Option<&str>) -> Outcome {
    let Some(record) = state::find(session::pool_of(&o.source))? else {
        return Err(session::no_pool(&o.source));
    };
    if record.readonly {
        say(o, &format!("{} is imported read-only: backing up the snapshots that are there", record.name));
        return Ok(());
    }
    let name = name.map_or_else(
        || jiff::Timestamp::now().strftime("icecore_%Y-%m-%d_%H%M%SZ").to_string(),
        String::from,
    );
    let full = format!("{}@{name}", o.source);
    if o.verbose || o.dry {
        say(o, &format!("# zfs snapshot -r {full}"));
    }
    if o.dry {
        return Ok(());
    }
    let mut pool = session::open_record(&record, For::Write)?;
    let (io, dsl) = pool.parts();
    let names = dsl.snapshot_names_below(io, &o.source, &name)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    dsl.snapshot(io, &names, &[]).map_err(|e| Fail::new(format!("cannot create snapshot '{full}': {e}")))?;
    pool.commit()?;
    Ok(())
}

fn make_plan(o: &Options, source: &Pool, destination: &Pool) -> Outcome<(Plan, Tree)> {
    let here = Tree::read(&source.dsl, source.io(), &o.source)?;
    if here.datasets.is_empty() {
        return Err(Fail::new(format!("cannot open '{}': dataset does not exist", o.source)));
    }
    let there = Tree::read(&destination.dsl, destination.io(), &o.destination)?;
    let mut plan = plan(&here, &there);
    for task in &mut plan.tasks {
        task.estimate = 0;
        for step in &task.steps {
            task.estimate += match step {
                Step::Resume { .. } => 0,
                step => {
                    estimate(source.io(), &source.dsl, &send_spec(o, task.raw, &task.path, step)).unwrap_or(0)
                }
            };
        }
    }
    Ok((plan, there))
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
        Step::Resume { token } => {
            format!("zfs send -t {}… | zfs receive -s -u {dst}", &token[..token.len().min(20)])
        }
        Step::Full { to } => format!("zfs send {w} {src}@{to} | zfs receive -s -u {dst}"),
        Step::Incremental { from, to } => {
            format!("zfs send {w} -i {} {src}@{to} | zfs receive -s -u {dst}", from.typed())
        }
    }
}

fn show_plan(o: &Options, plan: &Plan) {
    for (path, conflict) in &plan.conflicts {
        let (src, dst) = (full_name(&o.source, path), full_name(&o.destination, path));
        if o.json {
            println!(
                "{}",
                json!({"message_type": "conflict", "source": src, "destination": dst, "reason": conflict.to_string()})
            );
        } else {
            eprintln!("cannot back up {src} to {dst}: {conflict}");
        }
    }
    for task in &plan.tasks {
        let (src, dst) = (full_name(&o.source, &task.path), full_name(&o.destination, &task.path));
        if o.json {
            let lines: Vec<String> = task.steps.iter().map(|s| typed_line(o, task, s)).collect();
            println!(
                "{}",
                json!({"message_type": "plan", "source": src, "destination": dst, "raw": task.raw, "reason": task.reason, "bytes": task.estimate, "zfs": lines})
            );
            continue;
        }
        println!(
            "{src} -> {dst}: {}{}",
            task.reason,
            if task.estimate > 0 {
                format!(", about {}", human::bytes(task.estimate))
            } else {
                String::new()
            }
        );
        if o.verbose || o.dry {
            task.steps.iter().for_each(|s| println!("# {}", typed_line(o, task, s)));
        }
    }
}

/// A run with both pools open.
struct Run<'a> {
    o: &'a Options,
    source: &'a Pool,
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
        let (plan, there) = make_plan(self.o, self.source, self.destination.pool())?;
        show_plan(self.o, &plan);
        refuse(&plan)?;
        self.tasks(plan.tasks.clone(), &there, written)?;
        // A stream that was cut has come to its end; what comes after it is planned anew.
        if plan.tasks.iter().any(|t| t.steps.iter().any(|s| matches!(s, Step::Resume { .. }))) {
            let (rest, there) = make_plan(self.o, self.source, self.destination.pool())?;
            show_plan(self.o, &rest);
            if !rest.conflicts.is_empty() {
                return Err(Fail::new(
                    "the resumed stream is complete; what follows it cannot be sent, see above",
                ));
            }
            self.tasks(rest.tasks, &there, written)?;
        }
        Ok(())
    }

    fn tasks(&mut self, tasks: Vec<Task>, there: &Tree, written: &mut Vec<Task>) -> Outcome {
        for task in tasks {
            if !task.steps.is_empty() {
                self.execute(&task, there)?;
            }
            // Also of what is up to date: a run may have been cut between the two.
            if task.raw && !task.path.is_empty() {
                self.adopt_root(&task)?;
            }
            if !task.steps.is_empty() {
                written.push(task);
            }
        }
        Ok(())
    }

    fn execute(&mut self, task: &Task, there: &Tree) -> Outcome {
        let o = self.o;
        let dst = full_name(&o.destination, &task.path);
        let bar = bar(o, task);
        for step in &task.steps {
            let before = self.tally.bytes;
            self.transfer(task, step, there, &dst, &bar)?;
            self.tally.streams += 1;
            if o.json {
                println!(
                    "{}",
                    json!({"message_type": "status", "destination": dst, "zfs": typed_line(o, task, step), "bytes": self.tally.bytes - before})
                );
            }
        }
        bar.finish_and_clear();
        self.tally.datasets += 1;
        Ok(())
    }

    /// One stream, from the sender's thread through a pipe into the receiver.
    fn transfer(&mut self, task: &Task, step: &Step, there: &Tree, dst: &str, bar: &ProgressBar) -> Outcome {
        let o = self.o;
        let (reader, out) = std::io::pipe().map_err(|e| Fail::new(format!("cannot make a pipe: {e}")))?;
        pipe::widen(&out);
        let stream = match step {
            Step::Resume { token } => Stream::Resume(token.clone()),
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
        let sent_before = bar.position();
        let mut received_bytes = 0;
        let mut input = pipe::records(reader);
        let received = receive(self.destination, &mut input, &spec, payload_sum, &mut |p| {
            if let Progress::Bytes(n) = p {
                received_bytes = n;
                bar.set_position(sent_before + n);
            }
        });
        // A sender that is not finished must see that nobody reads any more.
        drop(input);
        self.tally.bytes += received_bytes;
        let received = match received {
            Ok(done) => {
                self.tally.warnings.extend(done.warnings);
                Ok(())
            }
            Err(e) => Err(explain_receive(dst, &e, token_of(self.destination, dst).as_deref())),
        };
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
        let (io, dsl) = (self.source.io(), &self.source.dsl);
        let head = dsl.lookup_head(io, &full_name(&self.o.source, &task.path))?;
        let shared = match dsl.encryption_root(io, head.dir)?.filter(|root| *root != head.dir) {
            Some(root) => dsl.key_object(io, root)?.zip(dsl.key_object(io, head.dir)?),
            None => None,
        };
        if let Some((root, dataset)) = shared {
            let sent = SharedRoot { root, dataset };
            inherit_root(self.destination, &dst, Some(&sent)).map_err(|e| explain_receive(&dst, &e, None))?;
        }
        Ok(())
    }
}

/// The sender: opens the source once and sends what it is told to, until nobody is left to tell it.
fn serve(source: &str, jobs: &mpsc::Receiver<Job>) {
    let mut pool: Option<Pool> = None;
    for Job { stream, mut out, done } in jobs {
        let sent = match &mut pool {
            Some(pool) => send(pool, &stream, &mut out),
            none => session::open(source, For::Read).and_then(|p| send(none.insert(p), &stream, &mut out)),
        };
        // The pipe's end is the receiver's end of input: it comes before the answer.
        drop(out);
        let _ = done.send(sent);
    }
}

fn send(pool: &Pool, stream: &Stream, out: &mut dyn Write) -> Outcome {
    let (io, dsl) = (pool.io(), &pool.dsl);
    match stream {
        Stream::Resume(token) => {
            let token = ResumeToken::parse(token).map_err(|e| Fail::new(e.to_string()))?;
            let (spec, source) =
                resolve_token(io, dsl, &token).map_err(|e| explain_send(&token.toname, &e))?;
            send_one(io, &source, spec.flags, spec.packing, out, &mut |_| {})
                .map_err(|e| explain_send(&spec.to, &e))?;
        }
        Stream::New(spec) => {
            send_package(io, dsl, spec, out, &mut |_| {}).map_err(|e| explain_send(&spec.send.to, &e))?;
        }
    }
    Ok(())
}

fn bar(o: &Options, task: &Task) -> ProgressBar {
    if o.quiet_bar {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{msg} {bytes}/{total_bytes} [{bar:30}] {binary_bytes_per_sec} ETA {eta}",
    );
    let bar = ProgressBar::new(task.estimate);
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_message(full_name(&o.source, &task.path));
    bar
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
    let mut bytes = 0;
    for task in written {
        bytes += read_task(&pool, &full_name(&o.destination, &task.path), task)?;
    }
    Ok(bytes)
}

fn read_task(pool: &Pool, dst: &str, task: &Task) -> Outcome<u64> {
    let (io, dsl) = (pool.io(), &pool.dsl);
    let snapshots = dsl.snapshots(io, dst)?;
    let mut bytes = 0;
    for step in &task.steps {
        let (to, from) = match step {
            Step::Full { to } => (to.clone(), None),
            Step::Incremental { from, to } => {
                let guid = from.mark().guid;
                let base =
                    snapshots.iter().find(|(_, r)| dsl.dataset(io, r.obj).is_ok_and(|d| d.guid == guid));
                (to.clone(), base.map(|(n, _)| format!("{dst}@{n}")))
            }
            Step::Resume { .. } => match snapshots.last() {
                Some((name, _)) => (name.clone(), None),
                None => continue,
            },
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
        "{} datasets, {} streams, {} in {secs:.1} s ({}/s); {} read back from the device, every checksum right",
        t.datasets,
        t.streams,
        human::bytes(t.bytes),
        human::bytes((t.bytes as f64 / secs) as u64),
        human::bytes(t.read_back)
    );
}
