//! `zpool history`: the commands that changed the pool (`zpool_do_history`, `print_history_records`, zpool_main.c).

use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::human;
use crate::session::{self, For};
use crate::state;
use icecore_format::nvlist::NvList;
use std::fmt::Write as _;

pub const USAGE: &str = "history [-il] [<pool>] ...";

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
        let Some(record) = state::find(name)? else {
            failed.push(format!("cannot open '{name}': no such pool"));
            continue;
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
    let time = r.u64("history time").map(human::time_of_history).unwrap_or_default();
    let txg = || r.u64("history txg").unwrap_or(0);
    if let Some(command) = r.str("history command") {
        let _ = write!(out, "{time} {command}");
    } else if !internal {
        return;
    } else if let Some(name) = r.str("history internal name") {
        let _ = write!(out, "{time} [txg:{}] {name}", txg());
        if let Some(dataset) = r.str("dsname") {
            let _ = write!(out, " {dataset} ({})", r.u64("dsid").unwrap_or(0));
        }
        let _ = write!(out, " {}", r.str("history internal str").unwrap_or_default());
    } else if let Some(ioctl) = r.str("ioctl") {
        let _ = write!(out, "{time} ioctl {ioctl}");
    } else {
        let _ = write!(out, "{time} unrecognized record");
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
