//! `zfs send`.

use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::human;
use crate::pipe;
use crate::session::{self, For};
use icecore_pool::Pool;
use icecore_stream::send::{
    PackageSpec, SendError, SendFlags, SendSpec, estimate, estimate_package, resolve_token, send_one,
    send_package,
};
use icecore_stream::token::ResumeToken;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

pub const USAGE: &str = "send [-DLPbcehnpsVvw] [-i|-I snapshot] [-R [-X dataset[,dataset]...]] <snapshot>\n\tsend [-DnVvPLecw] [-i snapshot|bookmark] <filesystem|volume|snapshot>\n\tsend [-PnVv] -t <receive_resume_token>";

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
    ];
    let typed = Typed::parse(args, &known, USAGE)?;
    if typed.has('V') && typed.operands.is_empty() && !typed.has('t') {
        return Err(Fail::usage("missing snapshot argument", USAGE));
    }
    if !typed.has('n') && std::io::stdout().is_terminal() {
        return Err(Fail::new(
            "Error: Stream can not be written to a terminal.\nYou must redirect standard output.",
        ));
    }
    if let Some(token) = typed.value('t') {
        return resume(token, &typed);
    }
    let [to] = typed.operands.as_slice() else { return Err(Fail::usage("missing snapshot argument", USAGE)) };
    let spec = spec(to, &typed)?;
    let pool = session::open(to, For::Read).map_err(|f| Fail { message: f.message, ..f })?;
    if typed.has('v') || typed.has('P') {
        announce(&pool, &spec, &typed)?;
    } else if typed.has('n') {
        // A dry run without a word still says by its exit status whether the real one could start.
        estimate_package(pool.io(), &pool.dsl, &spec).map_err(|e| explain(to, &e))?;
    }
    if typed.has('n') {
        return Ok(());
    }
    let mut meter = Meter::new(to, typed.has('v'), typed.has('P'));
    let mut out = output(to)?;
    let sent = send_package(pool.io(), &pool.dsl, &spec, &mut out, &mut |n| meter.at(n))
        .map_err(|e| explain(to, &e))?;
    out.flush().map_err(|e| Fail::new(format!("cannot send '{to}': {e}")))?;
    sent.warnings.iter().for_each(|w| eprintln!("warning: {w}"));
    if sent.warnings.is_empty() { Ok(()) } else { Err(Fail::said(crate::fail::FAILED)) }
}

fn output(to: &str) -> Outcome<std::fs::File> {
    pipe::output().map_err(|e| Fail::new(format!("cannot send '{to}': {e}")))
}

fn spec(to: &str, typed: &Typed) -> Outcome<PackageSpec> {
    if !to.contains('@') {
        return Err(Fail::new(format!("cannot send '{to}': only snapshots can be sent yet; make one first")));
    }
    let path = to.split('@').next().unwrap_or(to);
    let short = typed.value('i').or(typed.value('I'));
    let from = short.map(|f| match f.chars().next() {
        Some('@' | '#') => format!("{path}{f}"),
        _ if f.contains(['@', '#']) => f.to_string(),
        _ => format!("{path}@{f}"),
    });
    let replicate = typed.has('R');
    Ok(PackageSpec {
        send: SendSpec { to: to.into(), from, flags: flags(typed), ..SendSpec::default() },
        replicate,
        intermediates: typed.has('I'),
        properties: typed.has('p') || replicate || typed.has('b'),
        backup: typed.has('b'),
        holds: typed.has('h'),
        ..PackageSpec::default()
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
    let token = ResumeToken::parse(text)
        .map_err(|e| Fail { status: 255, message: format!("cannot resume send: {e}") })?;
    if typed.has('v') && typed.has('n') {
        println!("resume token contents:\nnvlist version: 0");
        for (name, v) in token.list.iter() {
            println!("\t{name} = {}", super::token_value(v));
        }
    }
    let fail = |e: &SendError| Fail { status: 255, message: format!("cannot resume send: {e}") };
    let pool =
        session::open(&token.toname, For::Read).map_err(|f| Fail { status: 255, message: f.message })?;
    let (spec, source) = resolve_token(pool.io(), &pool.dsl, &token).map_err(|e| fail(&e))?;
    if typed.has('n') {
        let bytes = estimate(pool.io(), &pool.dsl, &spec).map_err(|e| fail(&e))?;
        line(&spec.to, spec.from.as_deref(), bytes, typed.has('P'), typed.has('n'));
        return Ok(());
    }
    let mut meter = Meter::new(&spec.to, typed.has('v'), typed.has('P'));
    let mut out = output(&spec.to)?;
    send_one(pool.io(), &source, spec.flags, spec.packing, &mut out, &mut |n| meter.at(n))
        .map_err(|e| fail(&e))?;
    Ok(())
}

/// What is going to be sent, with sizes: on standard output for a dry run, else on standard error.
fn announce(pool: &Pool, spec: &PackageSpec, typed: &Typed) -> Outcome {
    let (parsable, dry) = (typed.has('P'), typed.has('n'));
    let streams = estimate_package(pool.io(), &pool.dsl, spec).map_err(|e| explain(&spec.send.to, &e))?;
    let mut total = 0;
    for s in &streams {
        total += s.bytes;
        line(&s.to, s.previous.as_deref(), s.bytes, parsable, dry);
    }
    let text = if parsable {
        format!("size\t{total}")
    } else {
        format!("total estimated size is {}", human::bytes(total))
    };
    if dry {
        println!("{text}")
    } else {
        eprintln!("{text}")
    }
    Ok(())
}

fn line(to: &str, from: Option<&str>, bytes: u64, parsable: bool, dry: bool) {
    let short = |f: &str| f[f.find(['@', '#']).unwrap_or(0)..].to_string();
    let text = match (from, parsable) {
        (None, true) => format!("full\t{to}\t{bytes}"),
        (Some(f), true) => format!("incremental\t{}\t{to}\t{bytes}", short(f).trim_start_matches('@')),
        (None, false) => format!("full send of {to} estimated size is {}", human::bytes(bytes)),
        (Some(f), false) => {
            format!("send from {} to {to} estimated size is {}", short(f), human::bytes(bytes))
        }
    };
    if dry { println!("{text}") } else { eprintln!("{text}") }
}

pub fn explain(to: &str, e: &SendError) -> Fail {
    match e {
        SendError::NoSnapshot(name) => Fail::new(format!("cannot open '{name}': dataset does not exist")),
        SendError::NoSource { from, .. } => {
            Fail::new(format!("cannot send '{to}': incremental source ({from}) does not exist"))
        }
        SendError::NotEarlier { from, .. } => Fail::new(format!(
            "warning: cannot send '{to}': not an earlier snapshot from the same fs ({from})"
        )),
        e => Fail::new(format!("cannot send '{to}': {e}")),
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
        let now = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
        if self.parsable {
            eprintln!("{now}\t{bytes}\t{}", self.name);
        } else {
            eprintln!("{now}   {:>5}   {}", human::bytes(bytes), self.name);
        }
    }
}
