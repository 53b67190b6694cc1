//! `icecore sync SRC DST`: the whole backup round as one command.
//!
//! Snapshot, find the base by GUID dataset by dataset, refuse before the first byte what cannot work, send
//! (raw where encrypted), receive resumably, read back what was written, say what was proven. It destroys
//! and rolls back nothing. A run that was cut is simply run again.

use crate::args::{Typed, flag, value};
use crate::fail::{FAILED, Fail, Outcome};
use crate::human;
use crate::pipe;
use crate::session::{self, Engine, For};
use crate::state;
use crate::zfs::{explain_receive, explain_send};
use icecore_backup::{Plan, Step, Task, Tree, plan};
use icecore_stream::payload_sum;
use icecore_stream::receive::{Progress, ReceiveSpec, inherit_root, receive};
use icecore_stream::send::{
    PackageSpec, SendFlags, SendSpec, estimate, resolve, resolve_token, send_one, send_package,
};
use icecore_stream::token::ResumeToken;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::time::Instant;

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
    if !typed.has('N') {
        snapshot(o, typed.value('S'))?;
    }
    let (plan, there) = make_plan(o)?;
    show_plan(o, &plan);
    if !plan.conflicts.is_empty() {
        return Err(Fail::new(format!(
            "nothing was done: {} of the datasets cannot be backed up as they are",
            plan.conflicts.len()
        )));
    }
    if o.dry {
        return Ok(());
    }
    let mut tally = Tally::default();
    for task in &plan.tasks {
        execute(o, task, &there, &mut tally)?;
    }
    // A stream that was cut has come to its end; what comes after it is planned anew.
    if plan.tasks.iter().any(|t| t.steps.iter().any(|s| matches!(s, Step::Resume { .. }))) {
        let (rest, there) = make_plan(o)?;
        show_plan(o, &rest);
        if !rest.conflicts.is_empty() {
            return Err(Fail::new(
                "the resumed stream is complete; what follows it cannot be sent, see above",
            ));
        }
        for task in &rest.tasks {
            execute(o, task, &there, &mut tally)?;
        }
    }
    let checked = make_plan(o)?.0;
    if !checked.is_up_to_date() {
        return Err(Fail::new("the destination is still behind the source after the run; run it again"));
    }
    summary(o, &tally, start);
    if typed.has('E') {
        crate::zpool::export(session::pool_of(&o.destination))?;
        say(o, &format!("{} is exported: the drive can be unplugged", session::pool_of(&o.destination)));
    }
    Ok(())
}

fn say(o: &Options, text: &str) {
    if !o.json {
        println!("{text}");
    }
}

/// Snapshots the source and all below it, if it can be written.
fn snapshot(o: &Options, name: Option<&str>) -> Outcome {
    let Some(record) = state::find(session::pool_of(&o.source))? else {
        return Err(Fail::new(format!("cannot open '{}': no such pool or dataset", o.source)));
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

fn make_plan(o: &Options) -> Outcome<(Plan, Tree)> {
    let source = session::open(&o.source, For::Read)?;
    let here = Tree::read(&source.dsl, source.io(), &o.source)?;
    if here.datasets.is_empty() {
        return Err(Fail::new(format!("cannot open '{}': dataset does not exist", o.source)));
    }
    let destination = session::open(&o.destination, For::Read)?;
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

fn execute(o: &Options, task: &Task, there: &Tree, tally: &mut Tally) -> Outcome {
    let dst = full_name(&o.destination, &task.path);
    let bar = bar(o, task);
    for step in &task.steps {
        let before = tally.bytes;
        transfer(o, task, step, there, &dst, &bar, tally)?;
        tally.streams += 1;
        if o.json {
            println!(
                "{}",
                json!({"message_type": "status", "destination": dst, "zfs": typed_line(o, task, step), "bytes": tally.bytes - before})
            );
        }
    }
    bar.finish_and_clear();
    if task.steps.is_empty() {
        return Ok(());
    }
    tally.datasets += 1;
    if task.raw && !task.path.is_empty() {
        adopt_root(o, task, &dst)?;
    }
    tally.read_back += read_back(&dst, task)?;
    Ok(())
}

fn bar(o: &Options, task: &Task) -> ProgressBar {
    if o.quiet_bar || task.steps.is_empty() {
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

/// One stream, from a sender in a thread of its own through a pipe into the receiver.
fn transfer(
    o: &Options,
    task: &Task,
    step: &Step,
    there: &Tree,
    dst: &str,
    bar: &ProgressBar,
    tally: &mut Tally,
) -> Outcome {
    let (reader, writer) = std::io::pipe().map_err(|e| Fail::new(format!("cannot make a pipe: {e}")))?;
    pipe::widen(&writer);
    let spec = ReceiveSpec {
        target: dst.into(),
        resumable: true,
        // Only ever over a dataset that the plan saw to be empty and without snapshots.
        force: matches!(step, Step::Full { .. }) && there.get(&task.path).is_some(),
        ..ReceiveSpec::default()
    };
    let sent_before = bar.position();
    let mut received_bytes = 0;
    let (sent, received) = std::thread::scope(|scope| {
        let sender = scope.spawn(move || send(o, task, step, writer));
        let received = (|| -> Outcome {
            let mut engine = Engine::open(dst)?;
            let mut input = pipe::records(reader);
            let done = receive(&mut engine, &mut input, &spec, payload_sum, &mut |p| {
                if let Progress::Bytes(n) = p {
                    received_bytes = n;
                    bar.set_position(sent_before + n);
                }
            });
            done.map(|d| tally.warnings.extend(d.warnings)).map_err(|e| explain_receive(dst, &e, true))
        })();
        (sender.join().unwrap_or_else(|_| Err(Fail::new("the sender stopped"))), received)
    });
    tally.bytes += received_bytes;
    // The receiver knows better what went wrong, unless it only saw the sender end.
    match (sent, received) {
        (Ok(()), r) => r,
        (Err(s), Ok(())) => Err(s),
        (Err(s), Err(r)) => Err(Fail::new(format!("{}\n{}", s.message, r.message))),
    }
}

fn send(o: &Options, task: &Task, step: &Step, mut out: impl Write) -> Outcome {
    let pool = session::open(&o.source, For::Read)?;
    let (io, dsl) = (pool.io(), &pool.dsl);
    if let Step::Resume { token } = step {
        let token = ResumeToken::parse(token).map_err(|e| Fail::new(e.to_string()))?;
        let (spec, source) = resolve_token(io, dsl, &token).map_err(|e| explain_send(&token.toname, &e))?;
        send_one(io, &source, spec.flags, spec.packing, &mut out, &mut |_| {})
            .map_err(|e| explain_send(&spec.to, &e))?;
        return Ok(());
    }
    let spec = PackageSpec {
        send: send_spec(o, task.raw, &task.path, step),
        properties: true,
        ..PackageSpec::default()
    };
    send_package(io, dsl, &spec, &mut out, &mut |_| {}).map_err(|e| explain_send(&spec.send.to, &e))?;
    Ok(())
}

/// A dataset that shares its parent's encryption root at the source shares it on the copy: one passphrase
/// opens all.
fn adopt_root(o: &Options, task: &Task, dst: &str) -> Outcome {
    let shares = {
        let source = session::open(&o.source, For::Read)?;
        let head = source.dsl.lookup_head(source.io(), &full_name(&o.source, &task.path))?;
        source.dsl.encryption_root(source.io(), head.dir)? != Some(head.dir)
    };
    if shares {
        let mut engine = Engine::open(dst)?;
        inherit_root(&mut engine, dst).map_err(|e| explain_receive(dst, &e, false))?;
    }
    Ok(())
}

/// Reads everything the task wrote back from the device, past the page cache, and checks every checksum.
fn read_back(dst: &str, task: &Task) -> Outcome<u64> {
    let record = state::find(session::pool_of(dst))?
        .ok_or_else(|| Fail::new("the destination is no longer imported"))?;
    for path in &record.devices {
        if let Ok(file) = std::fs::File::open(path) {
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }
    let pool = session::open_record(&record, For::Read)?;
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
