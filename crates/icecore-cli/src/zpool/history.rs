//! `zpool history`: the commands that changed the pool (`zpool_do_history`, `print_history_records`, zpool_main.c).

use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::human;
use crate::session::{self, For};
use crate::state;
use icecore_format::nvlist::{self, NvList, NvValue};
use std::fmt::Write as _;

pub const USAGE: &str = "history [-il] [<pool>] ...";

/// What old pools have numbers for (`history_internal_events_t`, fs/zfs.h).
const EVENTS: [&str; 41] = [
    "invalid event",
    "pool create",
    "vdev add",
    "pool remove",
    "pool destroy",
    "pool export",
    "pool import",
    "vdev attach",
    "vdev replace",
    "vdev detach",
    "vdev online",
    "vdev offline",
    "vdev upgrade",
    "pool clear",
    "pool scrub",
    "pool property set",
    "create",
    "clone",
    "destroy",
    "destroy_begin_sync",
    "inherit",
    "property set",
    "quota set",
    "permission update",
    "permission remove",
    "permission who remove",
    "promote",
    "receive",
    "rename",
    "reservation set",
    "replay_inc_sync",
    "replay_full_sync",
    "rollback",
    "snapshot",
    "filesystem version upgrade",
    "refquota set",
    "refreservation set",
    "pool scrub done",
    "user hold",
    "user release",
    "pool split",
];

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('i', ""), flag('l', "")], USAGE)?;
    let mut names = typed.operands.clone();
    if names.is_empty() {
        names = state::all()?.into_iter().map(|p| p.name).collect();
        if names.is_empty() {
            eprintln!("no pools available");
        }
    }
    let mut failed = Vec::new();
    for name in &names {
        let record = match state::named(name) {
            Ok(record) => record,
            Err(f) => {
                failed.push(f.message);
                continue;
            }
        };
        let pool = session::open_record(&record, For::Read)
            .map_err(|f| Fail::new(format!("cannot open '{name}': {}", f.message)))?;
        let mut out = format!("History for '{name}':\n");
        for r in pool.history()? {
            show(&r, typed.has('i'), typed.has('l'), &mut out);
        }
        println!("{out}");
    }
    if failed.is_empty() { Ok(()) } else { Err(Fail::new(failed.join("\n"))) }
}

/// One record, if it is one that was asked for.
fn show(r: &NvList, internal: bool, long: bool, out: &mut String) {
    let mut time = r.u64("history time").map(human::time_of_history).unwrap_or_default();
    if let Some(ns) = r.i64("elapsed_ns") {
        let _ = write!(time, " ({}ms)", ns / 1_000_000);
    }
    let txg = || r.u64("history txg").unwrap_or(0);
    let text = || r.str("history internal str").unwrap_or_default();
    let event = r.u64("history internal event");
    if let Some(command) = r.str("history command") {
        let _ = write!(out, "{time} {command}");
    } else if !internal {
        return;
    } else if let Some(name) = event.and_then(|n| EVENTS.get(usize::try_from(n).ok()?)) {
        let _ = write!(out, "{time} [internal {name} txg:{}] {}", txg(), text());
    } else if let Some(name) = r.str("internal_name").filter(|_| event.is_none()) {
        let _ = write!(out, "{time} [txg:{}] {name}", txg());
        if let Some(dataset) = r.str("dsname") {
            let _ = write!(out, " {dataset} ({})", r.u64("dsid").unwrap_or(0));
        }
        let _ = write!(out, " {}", text());
    } else if let Some(ioctl) = r.str("ioctl") {
        let _ = writeln!(out, "{time} ioctl {ioctl}");
        for (key, title) in [("in_nvl", "input"), ("out_nvl", "output")] {
            if let Some(NvValue::List(list)) = r.get(key) {
                let _ = writeln!(out, "    {title}:");
                let _ = nvlist::dump(list, 8, out);
            }
        }
        if let Some(size) = r.i64("out_size") {
            let _ = writeln!(out, "    output nvlist omitted; original size: {}KB", size / 1024);
        }
        if let Some(n) = r.i64("errno") {
            let _ = writeln!(out, "    errno: {n}");
        }
    } else {
        let _ = writeln!(out, "{time} unrecognized record:");
        let _ = nvlist::dump(r, 4, out);
        if event.is_some() {
            return;
        }
    }
    if long {
        out.push_str(" [");
        if let Some(who) = r.u64("history who") {
            let _ = write!(out, "user {who} ");
            if let Some(name) = user(who) {
                let _ = write!(out, "({name}) ");
            }
        }
        if let Some(host) = r.str("history hostname") {
            let _ = write!(out, "on {host}");
        }
        if let Some(zone) = r.str("history zone") {
            let _ = write!(out, ":{zone}");
        }
        out.push(']');
    }
    out.push('\n');
}

/// The name of a user of this machine, as far as `/etc/passwd` knows.
fn user(uid: u64) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|l| {
        let mut fields = l.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_string())
    })
}
