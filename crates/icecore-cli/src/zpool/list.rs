//! `zpool list`.

use super::get::property;
use crate::args::{Typed, flag, json_numbers, value, without_interval};
use crate::fail::{FAILED, Fail, Outcome};
use crate::numbers::Numbers;
use crate::session::{self, Why};
use crate::state::{self, Imported};
use crate::table::{Align, Table};

pub const USAGE: &str = "list [-Hp] [-j [--json-int]] [-o property[,...]] [pool] ...";

pub fn run(args: &[String]) -> Outcome {
    // How vdevs are named matters with -v only, which is `zpool status` here.
    let known = [
        flag('H', ""),
        flag('p', ""),
        value('o', ""),
        flag('j', "json"),
        flag('J', "json-int"),
        flag('g', ""),
        flag('L', ""),
        flag('P', ""),
    ];
    let typed = Typed::parse(args, &known, USAGE)?;
    json_numbers(&typed, USAGE)?;
    // Nothing is listed again and again here; the number is told of as a pool that there is not.
    without_interval(&typed.operands, USAGE)?;
    let exact = typed.has('p') || typed.has('J');
    let mut pools = serde_json::Map::new();
    let default =
        "name,size,allocated,free,checkpoint,expandsize,fragmentation,capacity,dedupratio,health,altroot";
    let columns: Vec<String> = typed
        .value('o')
        .unwrap_or(default)
        .split(',')
        .map(|p| super::get::canonical(p).to_string())
        .collect();
    if typed.value('o') == Some("") {
        return Err(Fail::usage("bad property list: no properties specified", USAGE));
    }
    if let Some(bad) = columns.iter().find(|c| !super::get::known(c)) {
        return Err(Fail::usage(format!("bad property list: invalid property '{bad}'"), USAGE));
    }
    let records = state::all()?;
    let header = columns
        .iter()
        .map(|c| {
            (
                heading(c).to_string(),
                if matches!(c.as_str(), "name" | "health" | "altroot") { Align::Left } else { Align::Right },
            )
        })
        .collect();
    let mut table = Table::new(header);
    let mut failed = Vec::new();
    let missing = state::missing(&records, &typed.operands);
    for r in records.iter().filter(|r| typed.operands.is_empty() || typed.operands.contains(&r.name)) {
        match session::try_look(r) {
            Ok(pool) => {
                let values: Vec<_> = columns.iter().map(|c| property(&pool, r, c)).collect();
                let numbers = Numbers::of(&typed);
                let known = columns.iter().zip(&values).filter(|(c, _)| *c != "name");
                let properties =
                    known.filter_map(|(c, v)| Some((c.clone(), super::json::property(v.as_ref()?, numbers))));
                pools.insert(r.name.clone(), super::json::pool(&pool, r, numbers, properties.collect()));
                table.row(values.iter().map(|v| v.as_ref().map_or("-".into(), |v| v.shown(exact))).collect());
            }
            // That its devices are gone is a state of the pool; the rest is a failure to tell.
            Err(n) => {
                table.row(columns.iter().map(|c| unopened(r, n.why, c)).collect());
                if !matches!(n.why, Why::Missing | Why::Suspended) {
                    failed.push(format!("cannot open '{}': {}", r.name, n.fail.message));
                }
            }
        }
    }
    if typed.has('j') {
        super::json::print("zpool list", pools);
    } else if !table.is_empty() {
        print!("{}", table.render(typed.has('H')));
    } else if failed.is_empty() && missing.is_empty() {
        eprintln!("no pools available");
    }
    missing.iter().for_each(|line| eprintln!("{line}"));
    // Of several that were named, those that are there are enough (`zpool_do_list`, zpool_main.c).
    let none = !missing.is_empty() && missing.len() == typed.operands.len();
    match failed.is_empty() {
        true if none => Err(Fail::said(FAILED)),
        true => Ok(()),
        false => Err(Fail::new(failed.join("\n"))),
    }
}

/// What is known of a pool that cannot be opened.
fn unopened(record: &Imported, why: Why, column: &str) -> String {
    match column {
        "name" => record.name.clone(),
        "health" if why == Why::Missing => "UNAVAIL".into(),
        "health" if why == Why::Suspended => super::status::SUSPENDED.into(),
        "guid" => record.guid.to_string(),
        "readonly" => if record.readonly { "on" } else { "off" }.into(),
        "altroot" if !record.altroot.is_empty() => record.altroot.clone(),
        _ => "-".into(),
    }
}

fn heading(c: &str) -> String {
    match c {
        "allocated" => "ALLOC".into(),
        "checkpoint" => "CKPOINT".into(),
        "expandsize" => "EXPANDSZ".into(),
        "fragmentation" => "FRAG".into(),
        "capacity" => "CAP".into(),
        "dedupratio" => "DEDUP".into(),
        other => other.to_uppercase(),
    }
}
