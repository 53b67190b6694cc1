//! `zfs get`.

use super::list::{heading, json_dataset, known_property, print_json};
use super::select::{Query, Selected, Types, depth, property_list, together};
use crate::args::{Typed, flag, json_numbers, value};
use crate::fail::{Fail, Outcome};
use crate::numbers::Numbers;
use crate::table::{Align, Table};
use icecore_dsl::prop::{Asking, PropRow, Source};

pub const USAGE: &str = "get [-rHp] [-j [--json-int]] [-d max] [-o \"all\" | field[,...]] [-t type[,...]]\n\t    [-s source[,...]] <\"all\" | property[,...]> [filesystem|volume|snapshot|bookmark] ...";

/// Fields that a line can have (`ZFS_GET_NCOLS`).
const FIELDS_MAX: usize = 5;

pub fn run(args: &[String]) -> Outcome {
    let known = [
        flag('H', ""),
        flag('p', ""),
        flag('r', ""),
        value('d', ""),
        value('o', ""),
        value('s', ""),
        value('t', ""),
        flag('j', "json"),
        flag('J', "json-int"),
    ];
    let typed = Typed::parse(args, &known, USAGE)?;
    json_numbers(&typed, USAGE)?;
    let Some((asked, names)) = typed.operands.split_first() else {
        return Err(Fail::usage("missing property argument", USAGE));
    };
    let fields = fields(typed.value('o'))?;
    let sources: Option<Vec<&str>> = typed.value('s').map(|s| s.split(',').collect());
    let known = ["local", "default", "inherited", "received", "temporary", "none"];
    if let Some(bad) = sources.iter().flatten().find(|s| !known.contains(s)) {
        return Err(Fail::usage(format!("invalid source '{bad}'"), USAGE));
    }
    let depth = depth(&typed, USAGE)?;
    let recursive = typed.has('r') || depth.is_some();
    let types = match typed.value('t') {
        Some(t) => Some(Types::parse(t, USAGE)?),
        None if recursive || names.is_empty() => Some(Types::ALL),
        None => None,
    };
    let wanted: Option<Vec<String>> = if asked == "all" {
        None
    } else {
        Some(property_list(asked, USAGE)?.map(|p| known_property(p, USAGE)).collect::<Outcome<_>>()?)
    };
    let exact = typed.has('p') || typed.has('J');
    // Values have at least the width of what stands above them in a list (`zprop_print_headers`, libzfs_util.c).
    let widest = wanted.iter().flatten().map(|p| heading(p).len()).max().unwrap_or(0);
    let head = |(at, f): (usize, &&str)| match *f {
        "value" if at + 1 < fields.len() => (format!("{:widest$}", "VALUE"), Align::Left),
        f => (f.to_uppercase(), Align::Left),
    };
    let mut table = Table::new(fields.iter().enumerate().map(head).collect());
    let mut json = Vec::new();
    let numbers = Numbers::of(&typed);
    let asked: Vec<&str> = wanted.iter().flatten().map(String::as_str).filter(|p| is_stored(p)).collect();
    let outcome = together(names, &Query { types, recursive, depth, named: Types::ALL }, |pool, found| {
        let asking = match &wanted {
            Some(_) => pool.dsl.asking(pool.io(), &asked),
            None => pool.dsl.asking_all(pool.io()),
        };
        let mut lost = Vec::new();
        for s in found {
            let mut rows = match rows(pool, &asking, s, wanted.as_deref()) {
                Ok(rows) => rows,
                Err(f) => {
                    lost.push(f);
                    continue;
                }
            };
            rows.iter_mut().for_each(|row| as_mounted(pool, &s.name, row));
            let received = match s.known().filter(|_| fields.contains(&"received")) {
                Some(known) => match pool.dsl.received_props(pool.io(), known.r) {
                    Ok(received) => received,
                    Err(e) => {
                        lost.push(super::cannot("open", &s.name, &e));
                        continue;
                    }
                },
                None => Vec::new(),
            };
            let mut properties = serde_json::Map::new();
            for row in rows.iter().filter(|r| sources.as_ref().is_none_or(|s| s.contains(&class(&r.source))))
            {
                let show =
                    |row: &PropRow| if exact { row.value.clone() } else { crate::human::property(row) };
                let shown = show(row);
                if typed.has('j') {
                    properties.insert(row.name.to_string(), json_value(shown, &row.source, numbers));
                } else {
                    let came = received.iter().find(|r| r.name == row.name).map_or("-".into(), show);
                    table.row(fields.iter().map(|f| field(f, &s.name, row, &shown, &came)).collect());
                }
            }
            if typed.has('j') {
                json.push((s.name.clone(), json_dataset(pool, s, properties, numbers)));
            }
        }
        lost
    });
    if typed.has('j') {
        print_json("zfs get", json.into_iter());
    } else if !table.is_empty() {
        print!("{}", table.render(typed.has('H')));
    }
    outcome
}

/// Options of a mount stand for properties while it lasts (`get_numeric_property`, libzfs_dataset.c).
fn as_mounted(pool: &icecore_pool::Pool, name: &str, row: &mut PropRow) {
    let Some(on) = crate::mounts::temporary(pool, name, &row.name) else { return };
    let value = if on { "on" } else { "off" };
    if row.value != value {
        (row.value, row.human, row.source) = (value.into(), value.into(), Source::Temporary);
    }
}

/// Whether the dataset itself tells of a property: not of its own name, and not of what users have in it.
fn is_stored(p: &str) -> bool {
    p != "name" && !is_of_users(p)
}

fn is_of_users(p: &str) -> bool {
    p.contains('@') && super::userspace::decode(p).is_some()
}

/// All rows of one dataset; of those that are `wanted` the stored ones have been asked for in their order.
fn rows(
    pool: &icecore_pool::Pool,
    asking: &Asking<'_>,
    s: &Selected,
    wanted: Option<&[String]>,
) -> Outcome<Vec<PropRow>> {
    let err = |e| super::cannot("open", &s.name, &e);
    let Some(wanted) = wanted else { return asking.all(&s.name, s.known()).map_err(err) };
    let mut stored = if wanted.iter().any(|p| is_stored(p)) {
        asking.rows(&s.name, s.known()).map_err(err)?.into_iter()
    } else {
        Vec::new().into_iter()
    };
    let text = |p: &str, value: &str| PropRow {
        name: p.to_string().into(),
        value: value.into(),
        human: value.into(),
        source: Source::None,
    };
    let row = |p: &String| match p.as_str() {
        "name" => text(p, &s.name),
        p if is_of_users(p) => super::userspace::row(pool, &s.name, p).unwrap_or_else(|| text(p, "-")),
        p => stored.next().flatten().unwrap_or_else(|| text(p, "-")),
    };
    Ok(wanted.iter().map(row).collect())
}

fn fields(asked: Option<&str>) -> Outcome<Vec<&str>> {
    match asked {
        None => Ok(vec!["name", "property", "value", "source"]),
        Some("all") => Ok(vec!["name", "property", "value", "received", "source"]),
        Some(list) => {
            let mut out = Vec::new();
            for f in list.split(',') {
                match f {
                    _ if out.len() == FIELDS_MAX => {
                        return Err(Fail::usage("too many fields given to -o option", USAGE));
                    }
                    "name" | "property" | "value" | "received" | "source" => out.push(f),
                    "all" if out.is_empty() => {
                        return Err(Fail::usage("too many fields given to -o option", USAGE));
                    }
                    "all" => {
                        let why = "\"all\" conflicts with specific fields given to -o option";
                        return Err(Fail::usage(why, USAGE));
                    }
                    other => return Err(Fail::usage(format!("invalid column name '{other}'"), USAGE)),
                }
            }
            Ok(out)
        }
    }
}

fn field(f: &str, name: &str, row: &PropRow, shown: &str, received: &str) -> String {
    match f {
        "name" => name.into(),
        "property" => row.name.to_string(),
        "value" => shown.into(),
        "received" => received.into(),
        _ => row.source.text(),
    }
}

/// The word for a source in `-s`.
fn class(source: &Source) -> &'static str {
    match source {
        Source::None => "none",
        Source::Default => "default",
        Source::Local => "local",
        Source::Inherited(_) => "inherited",
        Source::Received => "received",
        Source::Temporary => "temporary",
    }
}

/// A property's value and source as JSON.
pub fn json_value(shown: String, source: &Source, numbers: Numbers) -> serde_json::Value {
    let data = match source {
        Source::Inherited(from) => from.as_str(),
        _ => "-",
    };
    serde_json::json!({"value": numbers.text(shown), "source": {"type": class(source).to_uppercase(), "data": data}})
}
