//! `zpool list`.

use super::get::{Value, property};
use super::import::Naming;
use crate::args::{Typed, flag, json_numbers, value, without_interval};
use crate::fail::{FAILED, Fail, Outcome};
use crate::numbers::Numbers;
use crate::session::{self, Why};
use crate::state::{self, Imported};
use crate::table::{Align, Table};
use icecore_pool::Pool;
use icecore_vdev::{VdevConfig, VdevKind};

pub const USAGE: &str = "list [-HpvgLP] [-j [--json-int]] [-o property[,...]] [-T d|u] [pool] ...";

pub fn run(args: &[String]) -> Outcome {
    let known = [
        flag('H', ""),
        flag('p', ""),
        flag('v', ""),
        value('o', ""),
        flag('j', "json"),
        flag('J', "json-int"),
        flag('g', ""),
        flag('L', ""),
        flag('P', ""),
        value('T', ""),
    ];
    let typed = Typed::parse(args, &known, USAGE)?;
    json_numbers(&typed, USAGE)?;
    // What is not there is told before what cannot be shown.
    if typed.has('v') && typed.has('j') && typed.operands.iter().all(|name| state::named(name).is_ok()) {
        return Err(Fail::usage("vdevs are shown as JSON by 'zpool status -j'", USAGE));
    }
    super::timestamp(&typed, USAGE)?;
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
                if typed.has('v') {
                    for vdev in vdevs(&pool) {
                        table.row(columns.iter().map(|c| vdev.column(&pool, c, &typed)).collect());
                    }
                }
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

/// A vdev of the tree.
struct Vdev<'a> {
    config: &'a VdevConfig,
    /// Its number, if it is a top-level one.
    top: Option<usize>,
}

/// Those of a pool as they are listed: top-level vdevs, and below each its children.
fn vdevs<'a>(pool: &'a Pool) -> Vec<Vdev<'a>> {
    let tops = pool.io().vdevs().config().children.iter().enumerate();
    let shown = tops.filter(|(_, top)| !top.is_hole() && !matches!(top.kind, VdevKind::Indirect));
    let below = |(i, top): (usize, &'a VdevConfig)| {
        let children = top.walk().into_iter().skip(1).map(|config| Vdev { config, top: None });
        std::iter::once(Vdev { config: top, top: Some(i) }).chain(children)
    };
    shown.flat_map(below).collect()
}

impl Vdev<'_> {
    /// What stands in a column (`collect_list_stats`, zpool_main.c).
    fn column(&self, pool: &Pool, column: &str, typed: &Typed) -> String {
        let exact = typed.has('p') || typed.has('J');
        let space = self.top.and_then(|top| pool.space_of(top));
        let leaf = self.config.kind.is_leaf();
        let value = match column {
            "name" => return self.name(pool, typed),
            "health" => return super::status::state_of(self.config, pool.io().vdevs()).0,
            // Of a device all that it has.
            "size" if leaf => {
                let device = pool.io().vdevs().leaves().iter().find(|l| l.guid == self.config.guid);
                device.and_then(|l| Some(Value::bytes(l.device()?.size())))
            }
            "altroot" => return String::new(),
            "size" => space.map(|s| Value::bytes(s.size)),
            "allocated" => space.map(|s| Value::bytes(s.allocated)),
            "free" => space.map(|s| Value::bytes(s.size.saturating_sub(s.allocated))),
            "capacity" => space.map(|s| share(s.allocated, s.size, exact)),
            "fragmentation" => self.top.and_then(|top| pool.fragmentation_of(top)).map(Value::percent),
            _ => None,
        };
        value.map_or("-".into(), |v| v.shown(exact))
    }

    /// Its name, for people moved to the right by its depth, for scripts behind a TAB.
    fn name(&self, pool: &Pool, typed: &Typed) -> String {
        let name = Naming::of(typed).name(self.config, pool.io().vdevs());
        match (typed.has('H'), self.top) {
            (true, _) => format!("\t{name}"),
            (false, Some(_)) => format!("  {name}"),
            (false, None) => format!("    {name}"),
        }
    }
}

/// A share in percent, with as many places as OpenZFS gives people.
fn share(part: u64, whole: u64, exact: bool) -> Value {
    let hundredths = (u128::from(part) * 10_000).checked_div(whole.into()).unwrap_or(0) as u64;
    let places = match hundredths {
        _ if exact => return Value::percent(hundredths / 100),
        0..1000 => 2,
        1000..10_000 => 1,
        _ => 0,
    };
    Value::text(format!("{:.places$}%", hundredths as f64 / 100.0), "-")
}

/// What is known of a pool that cannot be opened.
fn unopened(record: &Imported, why: Why, column: &str) -> String {
    match column {
        "name" => record.name.clone(),
        "health" if matches!(why, Why::Missing | Why::Suspended) => super::status::state_unopened(why).into(),
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
