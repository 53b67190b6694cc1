//! `zfs userspace`, `groupspace`, `projectspace` (`zfs_do_userspace`, zfs_main.c), and the properties by owner:
//! `userused@…`, `userquota@…` and their kin (`userquota_propname_decode`, libzfs_dataset.c).

use super::select::mounted_at;
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::keys::{Ask, How};
use crate::session::{For, Open};
use crate::table::{Align, Table};
use icecore_dsl::prop::{self, PropRow, Source, nice_bytes, nice_number};
use icecore_pool::Pool;
use icecore_zpl::space::{self, ByOwner, Who};
use icecore_zpl::{Dataset, ZplError};
use std::cmp::Ordering;
use std::collections::BTreeMap;

pub const USER_USAGE: &str = "userspace [-Hinp] [-o field[,...]]\n\t    [-s field] ... [-S field] ... [-t type[,...]]\n\t    <filesystem|snapshot|path>";
pub const GROUP_USAGE: &str = "groupspace [-Hinp] [-o field[,...]]\n\t    [-s field] ... [-S field] ... [-t type[,...]]\n\t    <filesystem|snapshot|path>";
pub const PROJECT_USAGE: &str = "projectspace [-Hp] [-o field[,...]]\n\t    [-s field] ... [-S field] ...\n\t    <filesystem|snapshot|path>";

const FIELDS: [&str; 6] = ["type", "name", "used", "quota", "objused", "objquota"];
const HEADINGS: [&str; 6] = ["TYPE", "NAME", "USED", "QUOTA", "OBJUSED", "OBJQUOTA"];
/// Words for `-t`, and what each lists; nothing here knows owners of foreign domains.
const TYPES: [(&str, &[Who]); 7] = [
    ("posixuser", &[Who::User]),
    ("smbuser", &[]),
    ("posixgroup", &[Who::Group]),
    ("smbgroup", &[]),
    ("user", &[Who::User]),
    ("group", &[Who::Group]),
    ("all", &[Who::User, Who::Group]),
];

pub fn users(args: &[String]) -> Outcome {
    run(args, Who::User, USER_USAGE)
}

pub fn groups(args: &[String]) -> Outcome {
    run(args, Who::Group, GROUP_USAGE)
}

pub fn projects(args: &[String]) -> Outcome {
    run(args, Who::Project, PROJECT_USAGE)
}

/// One owner's line.
struct Row {
    who: Who,
    id: u64,
    name: String,
    /// used, quota, objused, objquota; `None` where the file system knows neither of a pair.
    values: [Option<u64>; 4],
}

/// By which fields lines are sorted, and whether the other way.
type Order = Vec<(usize, bool)>;

fn run(args: &[String], who: Who, usage: &str) -> Outcome {
    let mut known = vec![flag('H', ""), flag('p', ""), value('o', ""), value('s', ""), value('S', "")];
    if who != Who::Project {
        known.extend([flag('n', ""), flag('i', ""), value('t', "")]);
    }
    let typed = Typed::parse_plain(args, &known, usage)?;
    let [name] = typed.operands.as_slice() else {
        let what = if typed.operands.is_empty() { "missing dataset name" } else { "too many arguments" };
        return Err(Fail::usage(what, usage));
    };
    let fields = fields(typed.value('o'))?;
    let order = order(args, usage)?;
    let wanted = match typed.value('t') {
        None => vec![who],
        Some(list) => types(list)?,
    };
    let numbers = who == Who::Project || typed.has('n');
    let name = &if name.starts_with(['/', '.']) { mounted_at(name)? } else { name.clone() };
    let mut pool = super::open(name, super::Named::NoBookmark, For::Read)?;
    let fs = filesystem(&mut pool, name)?;
    if !space::is_accounted(fs.objset(), pool.io())? {
        // Of projects nothing is said then (`zfs_userspace`, libzfs_dataset.c).
        if who == Who::Project {
            return Ok(());
        }
        return Err(Fail::new(format!(
            "cannot get used/quota for {name}: its space is not accounted by owner: OpenZFS begins with that when it mounts it"
        )));
    }
    let mut rows = Vec::new();
    for who in wanted {
        rows.extend(owners(&fs, &pool, who, numbers)?);
    }
    rows.sort_by(|a, b| compare(a, b, &order));
    if rows.is_empty() {
        return Ok(());
    }
    let align = |f: usize| if f < 2 { Align::Left } else { Align::Right };
    let mut table = Table::new(fields.iter().map(|f| (HEADINGS[*f].into(), align(*f))).collect());
    for row in &rows {
        table.row(fields.iter().map(|f| row.field(*f, typed.has('p'))).collect());
    }
    print!("{}", table.render(typed.has('H')));
    Ok(())
}

impl Row {
    fn field(&self, field: usize, exact: bool) -> String {
        match field {
            0 => match self.who {
                Who::User => "POSIX User".into(),
                Who::Group => "POSIX Group".into(),
                Who::Project => "Project".into(),
            },
            1 => self.name.clone(),
            f => self.values[f - 2].map_or_else(|| "-".into(), |n| shown(n, f % 2 == 1, f > 3, exact)),
        }
    }
}

fn shown(n: u64, quota: bool, objects: bool, exact: bool) -> String {
    match (exact, n) {
        (true, n) => n.to_string(),
        (false, 0) if quota => "none".into(),
        (false, n) if objects => nice_number(n),
        (false, n) => nice_bytes(n),
    }
}

fn fields(asked: Option<&str>) -> Outcome<Vec<usize>> {
    let Some(list) = asked else { return Ok((0..FIELDS.len()).collect()) };
    let one = |f: &str| {
        FIELDS
            .iter()
            .position(|known| *known == f)
            .ok_or_else(|| Fail::new(format!("invalid type '{f}' for -o option")).negative())
    };
    list.split(',').map(one).collect()
}

fn types(list: &str) -> Outcome<Vec<Who>> {
    let mut out = Vec::new();
    for t in list.split(',') {
        let Some((_, kinds)) = TYPES.iter().find(|(name, _)| *name == t) else {
            return Err(Fail::new(format!("invalid type '{t}' for -t option")).negative());
        };
        out.extend(kinds.iter().filter(|k| !out.contains(*k)).copied().collect::<Vec<_>>());
    }
    Ok(out)
}

/// `-s` and `-S` in the order they were typed, then type and name.
fn order(args: &[String], usage: &str) -> Outcome<Order> {
    let mut out = Order::new();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let Some(letters) = word.strip_prefix('-').filter(|l| !l.starts_with('-')) else { break };
        let Some(at) = letters.find(['s', 'S', 'o', 't']) else { continue };
        let (option, rest) = (letters.as_bytes()[at], &letters[at + 1..]);
        let text = if rest.is_empty() { words.next().map_or("", String::as_str) } else { rest };
        if matches!(option, b's' | b'S') {
            let field = FIELDS.iter().position(|f| *f == text);
            let field = field.ok_or_else(|| Fail::usage(format!("invalid field '{text}'"), usage))?;
            out.push((field, option == b'S'));
        }
    }
    out.extend([(0, false), (1, false)]);
    Ok(out)
}

fn compare(a: &Row, b: &Row, order: &Order) -> Ordering {
    let by = |(field, reverse): &(usize, bool)| {
        let ordering = match field {
            0 => a.who.cmp(&b.who),
            // Numbers before names, as they are compared.
            1 => match (a.name.parse::<u64>(), b.name.parse::<u64>()) {
                (Ok(x), Ok(y)) => x.cmp(&y),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                _ => a.name.cmp(&b.name),
            },
            f => a.values[f - 2].cmp(&b.values[f - 2]),
        };
        if *reverse { ordering.reverse() } else { ordering }
    };
    order.iter().map(by).find(|o| *o != Ordering::Equal).unwrap_or_else(|| a.id.cmp(&b.id))
}

fn owners(fs: &icecore_zpl::Filesystem, pool: &Pool, who: Who, numbers: bool) -> Outcome<Vec<Row>> {
    let mut found: BTreeMap<u64, [Option<u64>; 4]> = BTreeMap::new();
    for (at, (objects, quota)) in
        [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate()
    {
        for (id, n) in space::all(fs.objset(), pool.io(), ByOwner { who, objects, quota })? {
            found.entry(id).or_default()[at] = Some(n);
        }
    }
    let name = |id: u64| names(who).filter(|_| !numbers).and_then(|file| name_in(file, id));
    // Who has a use has a quota, if of 0, and the other way round (`userspace_cb`).
    for pair in found.values_mut().flat_map(|values| values.chunks_exact_mut(2)) {
        if pair.iter().any(Option::is_some) {
            pair.iter_mut().for_each(|n| *n = Some(n.unwrap_or(0)));
        }
    }
    let row = |(id, values)| Row { who, id, name: name(id).unwrap_or_else(|| id.to_string()), values };
    Ok(found.into_iter().map(row).collect())
}

/// Opens the file system or snapshot `name`; with its key, if it needs one.
fn filesystem(pool: &mut Open, name: &str) -> Outcome<icecore_zpl::Filesystem> {
    let open = |e: &icecore_dsl::DslError| super::cannot("open", name, e);
    pool.dsl.lookup_dataset(pool.io(), name).map_err(|e| open(&e))?;
    crate::keys::unlock(pool, name, How { location: None, ask: Ask::Terminal, ..How::default() })?;
    match icecore_zpl::open(pool.io(), &pool.dsl, name)? {
        Dataset::Filesystem(fs) => Ok(*fs),
        Dataset::Volume(_) if !name.contains('@') => Err(super::wrong_kind(name)),
        Dataset::Volume(_) => {
            Err(Fail::new("operation is only applicable to filesystems and their snapshots"))
        }
    }
}

/// The file that knows names of users or groups of this machine.
fn names(who: Who) -> Option<&'static str> {
    match who {
        Who::User => Some("/etc/passwd"),
        Who::Group => Some("/etc/group"),
        Who::Project => None,
    }
}

/// `NAME:…:ID:…`, in both files.
fn lines(file: &str) -> Vec<(String, u64)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = |l: &str| {
        let mut parts = l.split(':');
        Some((parts.next()?.to_string(), parts.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn name_in(file: &str, id: u64) -> Option<String> {
    lines(file).into_iter().find(|(_, n)| *n == id).map(|(name, _)| name)
}

/// `kind@owner` as a property by owner; `None` where it is none, an error where the owner is nobody.
pub fn decode(name: &str) -> Option<Outcome<(ByOwner, u64)>> {
    let (kind, owner) = name.split_once('@')?;
    let what = ByOwner::parse(kind)?;
    let known = names(what.who).and_then(|file| lines(file).into_iter().find(|(n, _)| n == owner));
    let id = known.map(|(_, id)| id).or_else(|| owner.parse::<u32>().ok().map(u64::from));
    Some(id.map(|id| (what, id)).ok_or_else(|| Fail::new(format!("'{name}' has an invalid user/group name"))))
}

/// The value of a property by owner, as `zfs get` shows it; a dash where nothing is known.
pub fn row(pool: &Pool, dataset: &str, name: &str) -> Option<PropRow> {
    let dash = || PropRow {
        name: name.to_string().into(),
        value: "-".into(),
        human: "-".into(),
        source: Source::None,
    };
    let (what, id) = match decode(name)? {
        Ok(found) => found,
        Err(_) => return Some(dash()),
    };
    let Ok(Dataset::Filesystem(fs)) = icecore_zpl::open(pool.io(), &pool.dsl, dataset) else {
        return Some(dash());
    };
    let Ok(n) = space::one(fs.objset(), pool.io(), what, id) else { return Some(dash()) };
    if !what.quota && !space::is_accounted(fs.objset(), pool.io()).unwrap_or(false) {
        return Some(dash());
    }
    let human = shown(n, what.quota, what.objects, false);
    Some(PropRow { name: name.to_string().into(), value: n.to_string(), human, source: Source::Local })
}

/// A quota by owner and its value, 0 for none; `None` where the property is none of these (`zfs_valid_proplist`,
/// libzfs_dataset.c).
pub fn quota(name: &str, text: &str) -> Option<Outcome<(ByOwner, u64, u64)>> {
    let (what, id) = match decode(name)? {
        Ok(found) => found,
        Err(f) => return Some(Err(f)),
    };
    if !what.quota {
        return Some(Err(Fail::new(format!("'{name}' is readonly"))));
    }
    let limit = match text {
        "none" => Ok(0),
        text => prop::size(text).map_err(|e| Fail::new(super::reason(&e))),
    };
    Some(limit.map(|limit| (what, id, limit)))
}

/// Sets a quota by owner; false where the property is none of these.
pub fn set(pool: &mut Open, dataset: &str, name: &str, text: &str) -> Outcome<bool> {
    let Some(quota) = quota(name, text) else { return Ok(false) };
    let (what, id, quota) = quota?;
    let r = pool.dsl.lookup_dataset(pool.io(), dataset)?;
    if r.snapshot {
        return Err(Fail::new("this property can not be modified for snapshots"));
    }
    if pool.dsl.kind(pool.io(), r)? != icecore_dsl::Kind::Filesystem {
        return Err(Fail::new(format!("invalid property value\n('{name}' is of file systems)")));
    }
    crate::keys::unlock(pool, dataset, How { location: None, ask: Ask::Terminal, ..How::default() })?;
    let (io, dsl) = pool.parts();
    let os = dsl.open_dataset(io, r.obj)?;
    match space::set_quota(os, io, what, id, quota) {
        Ok(()) => Ok(true),
        Err(ZplError::Unsupported(_)) => {
            Err(Fail::new("pool and or dataset must be upgraded to set this property or value"))
        }
        Err(e) => Err(e.into()),
    }
}
