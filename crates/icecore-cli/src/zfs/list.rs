//! `zfs list`.

use super::select::{Query, Selected, Types, depth, property_list, together};
use crate::args::{Typed, flag, json_numbers, value};
use crate::fail::{Fail, Outcome};
use crate::numbers::Numbers;
use crate::table::{Align, Cells, Table};
use icecore_dsl::DslError;
use icecore_dsl::prop::{Asking, PropRow, table as props};
use std::cmp::Ordering;
use std::iter::Peekable;
use std::slice::Iter;

pub const USAGE: &str = "list [-Hp] [-j [--json-int]] [-r|-d max] [-o property[,...]] [-s property]...\n\t    [-S property]... [-t type[,...]] [filesystem|volume|snapshot] ...";

/// Characters of a value that are shown.
const VALUE_MAX: usize = 8191;

/// One property of one dataset.
struct Column {
    shown: String,
    /// The row it was made from: none for the name, and where a dash is shown.
    row: Option<PropRow>,
}

impl Column {
    fn exact(&self) -> &str {
        self.row.as_ref().map_or(&self.shown, |row| &row.value)
    }
}

pub fn run(args: &[String]) -> Outcome {
    let known = [
        flag('H', ""),
        flag('p', ""),
        flag('r', ""),
        value('d', ""),
        value('o', ""),
        value('s', ""),
        value('S', ""),
        value('t', ""),
        flag('j', "json"),
        flag('J', "json-int"),
    ];
    let typed = Typed::parse_plain(args, &known, USAGE)?;
    json_numbers(&typed, USAGE)?;
    let columns = columns(&typed)?;
    let types = typed.value('t').map(|t| Types::parse(t, USAGE)).transpose()?;
    let depth = depth(&typed, USAGE)?;
    let query =
        Query { types, recursive: typed.has('r') || depth.is_some(), depth, named: Types::NO_BOOKMARKS };
    let sort: Vec<(bool, String)> = typed
        .ordered()
        .iter()
        .filter(|(c, _)| matches!(c, 's' | 'S'))
        .map(|(c, p)| match known_property(p, USAGE) {
            // What is told of one user or snapshot is shown, but does not sort (`zfs_do_list`, zfs_main.c).
            Ok(full) if !full.contains('@') => Ok((*c == 'S', full)),
            _ => Err(Fail::usage(format!("invalid property '{p}'"), USAGE)),
        })
        .collect::<Outcome<_>>()?;
    let wanted: Vec<&str> = columns.iter().chain(sort.iter().map(|(_, p)| p)).map(String::as_str).collect();
    let (exact, json) = (typed.has('p') || typed.has('J'), typed.has('j'));
    let numbers = Numbers::of(&typed);
    if sort.is_empty() && !json {
        let cells = |out: &mut Cells| found_cells(&typed.operands, &query, &wanted, exact, out);
        return print_table(&columns, typed.has('H'), cells);
    }
    let mut rows: Vec<(Vec<String>, Vec<String>, serde_json::Value)> = Vec::new();
    let outcome = together(&typed.operands, &query, |pool, found| {
        let asked: Vec<&str> = wanted.iter().copied().filter(|p| *p != "name").collect();
        let asking = pool.dsl.asking(pool.io(), &asked);
        let mut lost = Vec::new();
        for s in found {
            match fetch(&asking, s, &wanted, exact) {
                Ok(mut shown) => {
                    let keys = shown.split_off(columns.len()).iter().map(|c| c.exact().to_string()).collect();
                    let json = if json {
                        describe(pool, s, &columns, &shown, numbers)
                    } else {
                        serde_json::Value::Null
                    };
                    rows.push((shown.into_iter().map(|c| c.shown).collect(), keys, json));
                }
                Err(f) => lost.push(f),
            }
        }
        lost
    });
    rows.sort_by(|a, b| {
        sort.iter()
            .enumerate()
            .map(|(i, (down, _))| compare(&a.1[i], &b.1[i], *down))
            .find(|o| o.is_ne())
            .unwrap_or(Ordering::Equal)
    });
    if typed.has('j') {
        print_json("zfs list", rows.into_iter().map(|r| (named(&r.2), r.2)));
        return outcome;
    }
    print_table(&columns, typed.has('H'), |out| {
        for text in rows.into_iter().flat_map(|r| r.0) {
            out.text.push_str(&text);
            out.end();
        }
        outcome
    })
}

/// All that is wanted of one dataset, asked for at once.
fn fetch(asking: &Asking<'_>, s: &Selected, wanted: &[&str], exact: bool) -> Outcome<Vec<Column>> {
    let rows = if wanted.iter().all(|p| *p == "name") {
        Vec::new()
    } else {
        asking.rows(&s.name, s.known()).map_err(|e| super::cannot("open", &s.name, &e))?
    };
    let mut rows = rows.into_iter();
    let column = |prop: &&str| {
        let row = if *prop == "name" { None } else { rows.next().flatten() };
        let mut shown = match &row {
            Some(row) if exact => row.value.clone(),
            Some(row) => crate::human::property(row),
            None => (if *prop == "name" { &*s.name } else { "-" }).to_string(),
        };
        shorten(&mut shown, 0);
        Column { shown, row }
    };
    Ok(wanted.iter().map(column).collect())
}

/// Cuts what of `text` begins at `start` to what is shown of a value: OpenZFS's buffer for one is that long
/// (`ZFS_MAXPROPLEN`), lists of many clones end there.
fn shorten(text: &mut String, start: usize) {
    if text.len() - start > VALUE_MAX
        && let Some((end, _)) = text.get(start..).unwrap_or_default().char_indices().nth(VALUE_MAX)
    {
        text.truncate(start + end);
    }
}

/// All cells in the order in which datasets are found, each written where it is printed from: there may be very many.
fn found_cells(
    operands: &[String],
    query: &Query,
    columns: &[&str],
    exact: bool,
    out: &mut Cells,
) -> Outcome {
    let asked: Vec<&str> = columns.iter().copied().filter(|p| *p != "name").collect();
    together(operands, query, |pool, found| {
        let asking = pool.dsl.asking(pool.io(), &asked);
        let mut lost = Vec::new();
        for s in found {
            let before = out.mark();
            if let Err(e) = row(&asking, s, columns, exact, out) {
                out.back_to(before);
                lost.push(super::cannot("open", &s.name, &e));
            }
        }
        lost
    })
}

/// One dataset's cells.
fn row(
    asking: &Asking<'_>,
    s: &Selected,
    columns: &[&str],
    exact: bool,
    out: &mut Cells,
) -> Result<(), DslError> {
    let mut rest = columns.iter().peekable();
    let names = |rest: &mut Peekable<Iter<'_, &str>>, out: &mut Cells| {
        while rest.next_if(|p| **p == "name").is_some() {
            out.text.push_str(&s.name);
            out.end();
        }
    };
    names(&mut rest, out);
    if rest.peek().is_none() {
        return Ok(());
    }
    asking.answers(&s.name, s.known(), &mut |answer| {
        let start = out.text.len();
        match (answer, rest.next()) {
            (Some(answer), Some(_)) if exact => answer.write(true, &mut out.text),
            (Some(answer), Some(prop)) => crate::human::answer(prop, &answer, &mut out.text),
            _ => out.text.push('-'),
        }
        shorten(&mut out.text, start);
        out.end();
        names(&mut rest, out);
    })
}

fn print_table(columns: &[String], scripted: bool, fill: impl FnOnce(&mut Cells) -> Outcome) -> Outcome {
    let mut cells = if scripted { Cells::scripted(columns.len()) } else { Cells::default() };
    let outcome = fill(&mut cells);
    if scripted {
        print!("{}", cells.text);
        return outcome;
    }
    let align = |c: &String| if numeric(c) { Align::Right } else { Align::Left };
    let table = Table::of(columns.iter().map(|c| (heading(c), align(c))).collect(), cells);
    if !table.is_empty() {
        print!("{}", table.render(false));
    } else if outcome.is_ok() {
        eprintln!("no datasets available");
    }
    outcome
}

fn columns(typed: &Typed) -> Outcome<Vec<String>> {
    let asked = typed.value('o').unwrap_or("name,used,available,referenced,mountpoint");
    let mut out = Vec::new();
    for p in property_list(asked, USAGE)? {
        if p == "space" {
            out.extend(
                [
                    "name",
                    "available",
                    "used",
                    "usedbysnapshots",
                    "usedbydataset",
                    "usedbyrefreservation",
                    "usedbychildren",
                ]
                .map(String::from),
            );
            continue;
        }
        out.push(known_property(p, USAGE)?);
    }
    Ok(out)
}

/// The full name of a property, if it is one.
pub fn known_property(p: &str, usage: &str) -> Outcome<String> {
    let full = canonical(p);
    let user = full.contains(':');
    let fits = full == "name"
        || props::find(full).is_some()
        || user
        || full.starts_with("written@")
        || full.starts_with("written#")
        || is_of_user(full);
    if fits {
        Ok(full.to_string())
    } else {
        Err(Fail::usage(format!("bad property list: invalid property '{p}'"), usage))
    }
}

/// What users, groups and projects use and may use (`zfs_prop_userquota`, zfs_prop.c).
fn is_of_user(p: &str) -> bool {
    let Some((kind, who)) = p.split_once('@') else { return false };
    let rest = ["user", "group", "project"].iter().find_map(|k| kind.strip_prefix(k));
    !who.is_empty() && rest.is_some_and(|r| ["used", "quota", "objused", "objquota"].contains(&r))
}

/// Short column names (`zprop_name_to_prop`).
pub fn canonical(p: &str) -> &str {
    match p {
        "avail" => "available",
        "refer" => "referenced",
        "ratio" => "compressratio",
        "refratio" => "refcompressratio",
        "compress" => "compression",
        "recsize" => "recordsize",
        "volblock" => "volblocksize",
        "reserv" => "reservation",
        "refreserv" => "refreservation",
        "usedsnap" => "usedbysnapshots",
        "usedds" => "usedbydataset",
        "usedchild" => "usedbychildren",
        "usedrefreserv" => "usedbyrefreservation",
        "lused" => "logicalused",
        "lrefer" => "logicalreferenced",
        "rdonly" => "readonly",
        "dnsize" => "dnodesize",
        other => other,
    }
}

pub fn heading(p: &str) -> String {
    match p {
        "available" => "AVAIL".into(),
        "referenced" => "REFER".into(),
        "compressratio" => "RATIO".into(),
        "refcompressratio" => "REFRATIO".into(),
        "compression" => "COMPRESS".into(),
        "recordsize" => "RECSIZE".into(),
        "volblocksize" => "VOLBLOCK".into(),
        "reservation" => "RESERV".into(),
        "refreservation" => "REFRESERV".into(),
        "usedbysnapshots" => "USEDSNAP".into(),
        "usedbydataset" => "USEDDS".into(),
        "usedbychildren" => "USEDCHILD".into(),
        "usedbyrefreservation" => "USEDREFRESERV".into(),
        "logicalused" => "LUSED".into(),
        "logicalreferenced" => "LREFER".into(),
        "readonly" => "RDONLY".into(),
        other => other.to_uppercase(),
    }
}

fn numeric(p: &str) -> bool {
    p.starts_with("written")
        || matches!(props::find(p).map(|p| p.kind), Some(props::Type::Bytes(_) | props::Type::Count(_)))
}

fn compare(a: &str, b: &str, down: bool) -> Ordering {
    let order = match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(x), Ok(y)) => x.partial_cmp(&y).unwrap_or(Ordering::Equal),
        _ => a.cmp(b),
    };
    if down { order.reverse() } else { order }
}

/// One dataset as `zfs list -j` and `zfs get -j` show it.
fn describe(
    pool: &icecore_pool::Pool,
    s: &Selected,
    columns: &[String],
    shown: &[Column],
    numbers: Numbers,
) -> serde_json::Value {
    let mut properties = serde_json::Map::new();
    for (prop, c) in columns.iter().zip(shown) {
        if let Some(row) = &c.row {
            properties.insert(prop.clone(), super::get::json_value(c.shown.clone(), &row.source, numbers));
        }
    }
    json_dataset(pool, s, properties, numbers)
}

/// The envelope of one dataset in JSON output.
pub fn json_dataset(
    pool: &icecore_pool::Pool,
    s: &Selected,
    properties: serde_json::Map<String, serde_json::Value>,
    numbers: Numbers,
) -> serde_json::Value {
    let mut out =
        serde_json::json!({"name": s.name, "type": s.kind.text().to_uppercase(), "pool": pool.name()});
    if let Some((dataset, snap)) = s.name.split_once('@') {
        out["dataset"] = dataset.into();
        out["snapshot_name"] = snap.into();
    }
    if let Ok(Some(row)) = pool.dsl.prop(pool.io(), &s.name, "createtxg") {
        out["createtxg"] = numbers.text(row.value);
    }
    out["properties"] = properties.into();
    out
}

fn named(dataset: &serde_json::Value) -> String {
    dataset["name"].as_str().unwrap_or_default().to_string()
}

/// The whole JSON answer of a command about datasets.
pub fn print_json(command: &str, datasets: impl Iterator<Item = (String, serde_json::Value)>) {
    let map: serde_json::Map<String, serde_json::Value> = datasets.collect();
    let version = serde_json::json!({"command": command, "vers_major": 0, "vers_minor": 1});
    println!("{}", serde_json::json!({"output_version": version, "datasets": map}));
}
