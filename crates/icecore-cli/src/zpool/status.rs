//! `zpool status`.

use super::import::display_name;
use super::import_list::state;
use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::human;
use crate::session::{self, For};
use crate::state::{self, Imported};
use icecore_pool::scrub::LastScan;
use icecore_vdev::VdevConfig;
use icecore_vdev::tree::Health;

pub const USAGE: &str = "status [-vxP] [pool] ...";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('v', ""), flag('x', ""), flag('P', "")], USAGE)?;
    let records = state::all()?;
    if let Some(bad) = typed.operands.iter().find(|n| !records.iter().any(|r| r.name == **n)) {
        return Err(Fail::new(format!("cannot open '{bad}': no such pool")));
    }
    let asked: Vec<&Imported> =
        records.iter().filter(|r| typed.operands.is_empty() || typed.operands.contains(&r.name)).collect();
    let mut shown = 0;
    for record in &asked {
        shown += usize::from(status(record, typed.has('x'))?);
    }
    match (asked.is_empty(), shown) {
        (true, _) => println!("no pools available"),
        (false, 0) => println!("all pools are healthy"),
        _ => {}
    }
    Ok(())
}

/// Prints one pool; false if it was healthy and only trouble was asked for.
fn status(record: &Imported, only_trouble: bool) -> Outcome<bool> {
    let pool = match session::open_record(record, For::Read) {
        Ok(pool) => pool,
        Err(f) => {
            println!(
                "  pool: {}\n state: UNAVAIL\nstatus: {}\naction: Attach the missing devices, then run the command again.",
                record.name, f.message
            );
            return Ok(true);
        }
    };
    let vdevs = pool.io().vdevs();
    if only_trouble && vdevs.health() == Health::Online {
        return Ok(false);
    }
    println!("  pool: {}\n state: {}", record.name, vdevs.health());
    if let Some(line) = pool.last_scan().ok().flatten().as_ref().and_then(scan_line) {
        println!("  scan: {line}");
    }
    println!("config:\n");
    println!("\t{:<28}{:<9}{:>5} {:>5} {:>5}", "NAME", "STATE", "READ", "WRITE", "CKSUM");
    println!("\t{:<28}{:<9}{:>5} {:>5} {:>5}", record.name, vdevs.health().to_string(), 0, 0, 0);
    for v in vdevs.config().children.iter() {
        row(v, 1, vdevs);
    }
    println!("\nerrors: No known data errors");
    Ok(true)
}

fn row(v: &VdevConfig, depth: usize, vdevs: &icecore_vdev::VdevSet) {
    if v.is_hole() {
        return;
    }
    let state = state(v, vdevs);
    let (word, note) = state.split_once(' ').unwrap_or((&state, ""));
    let stale = vdevs.leaves().iter().any(|l| l.guid == v.guid && l.is_stale() && l.device().is_some());
    let note = if stale { "has missed writes" } else { note };
    println!(
        "\t{:<28}{word:<9}{:>5} {:>5} {:>5}  {}",
        format!("{}{}", "  ".repeat(depth), display_name(v, vdevs)),
        0,
        0,
        0,
        note.trim()
    );
    v.children.iter().for_each(|c| row(c, depth + 1, vdevs));
}

/// The last scrub or resilver in the words of `print_scan_scrub_resilver_status` (zpool_main.c).
fn scan_line(scan: &LastScan) -> Option<String> {
    let (verb, did) = match scan.func {
        1 => ("scrub", "repaired"),
        2 => ("resilver", "resilvered"),
        _ => return None,
    };
    match scan.state {
        2 => {
            let span = human::duration(scan.end.saturating_sub(scan.start));
            let (bytes, when) = (human::bytes(scan.repaired), human::time_with_seconds(scan.end));
            let first = if scan.func == 1 { format!("{verb} {did}") } else { did.to_string() };
            Some(format!("{first} {bytes} in {span} with {} errors on {when}", scan.errors))
        }
        3 => Some(format!("{verb} canceled on {}", human::time_with_seconds(scan.end))),
        _ => Some(format!("{verb} in progress since {}", human::time_with_seconds(scan.start))),
    }
}
