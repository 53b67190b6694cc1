//! `zfs set` and `zfs inherit` (`zfs_do_set`, `zfs_do_inherit`, zfs_main.c; `zfs_setprop_error`,
//! libzfs_dataset.c). All properties of one line are set on a dataset, or none.

use super::{Named, cannot};
use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::session::For;
use icecore_dsl::prop::{is_user, table};
use icecore_dsl::{Dsl, DslError, Kind};
use icecore_pool::Io;
use std::collections::BTreeSet;

pub const USAGE: &str = "set [-u] <property=value> ... <filesystem|volume|snapshot> ...";
pub const INHERIT_USAGE: &str = "inherit [-rS] <property> <filesystem|volume|snapshot> ...";

/// Longest name of a property (`ZAP_MAXNAMELEN`, less its end).
const NAME_MAX: usize = 255;

/// What is no inherited property but has its own way to be undone.
const LIMITS: &[&str] = &["quota", "reservation", "refquota", "refreservation"];

/// `name=value`, split; the name in full.
pub fn split(text: &str) -> Outcome<(&str, &str)> {
    text.split_once('=')
        .map(|(p, v)| (super::list::canonical(p), v))
        .ok_or_else(|| Fail::new("missing '=' for property=value argument"))
}

/// The properties of `-o`, each once (`parseprop`, zfs_main.c).
pub fn pairs(typed: &Typed) -> Outcome<Vec<(&str, &str)>> {
    let mut out: Vec<(&str, &str)> = Vec::new();
    for o in typed.values('o') {
        let (p, v) = split(o)?;
        if out.iter().any(|(known, _)| *known == p) {
            return Err(Fail::new(format!("property '{p}' specified multiple times")));
        }
        out.push((p, v));
    }
    Ok(out)
}

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('u', "")], USAGE)?;
    let (first, more) = match typed.operands.as_slice() {
        [] => return Err(Fail::usage("missing arguments", USAGE)),
        [only] if !only.contains('=') => {
            return Err(Fail::usage("missing property=value argument(s)", USAGE));
        }
        all => all.split_at(all.iter().take_while(|o| o.contains('=')).count()),
    };
    if more.is_empty() {
        return Err(Fail::usage("missing dataset name(s)", USAGE));
    }
    // Where no property stands first, all that follow are taken for datasets (`zfs_do_set`).
    if !first.is_empty() && more.iter().any(|o| o.contains('=')) {
        return Err(Fail::usage("invalid argument order", USAGE));
    }
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for pair in first {
        let (prop, text) = split(pair)?;
        if pairs.iter().any(|(p, _)| *p == prop) {
            return Err(Fail::new(format!("property '{prop}' specified multiple times")).negative());
        }
        pairs.push((prop, text));
    }
    let value = |prop: &str| pairs.iter().rev().find(|(p, _)| *p == prop).map(|(_, v)| *v);
    let moves = Moves::by(typed.has('u'), value("mountpoint").is_some(), value("canmount"));
    each_there(more, |name| {
        if pairs.is_empty() {
            return Ok(());
        }
        around(name, moves, || {
            let mut pool = super::open(name, Named::NoBookmark, For::Write)?;
            for (prop, text) in &pairs {
                let fail =
                    |why: String| Fail::new(format!("cannot set property for '{name}': {why}")).negative();
                if super::userspace::set(&mut pool, name, prop, text).map_err(|f| fail(f.message))? {
                    continue;
                }
                let (io, dsl) = pool.parts();
                if applies(dsl, io, prop, name)? {
                    super::of_no_use(&pool, prop, text);
                }
                let (io, dsl) = pool.parts();
                dsl.prop_set(io, name, prop, text).map_err(|e| fail(unset(prop, &e)))?;
            }
            pool.commit()?;
            Ok(())
        })?;
        crate::mounts::follow(name, value("readonly").is_some())
    })
}

/// What setting properties does to mounts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moves {
    /// Nothing but flags.
    None,
    /// All from here down move where they belong, and are mounted there.
    Move,
    /// The file system itself is unmounted; those below step aside for it.
    Out,
}

impl Moves {
    /// `canmount` is only followed when it becomes `off` (`zfs_prop_set_list_flags`, libzfs_dataset.c).
    fn by(stay: bool, mountpoint: bool, canmount: Option<&str>) -> Self {
        match (stay, mountpoint, canmount) {
            (true, ..) => Self::None,
            (_, true, _) => Self::Move,
            (_, _, Some("off")) => Self::Out,
            _ => Self::None,
        }
    }
}

/// Runs `f`, which changes where `name` and what is below belong.
fn around(name: &str, moves: Moves, f: impl FnOnce() -> Outcome) -> Outcome {
    if moves == Moves::None || !crate::pools::serving() || name.contains('@') {
        return f();
    }
    let aside = match moves {
        Moves::Out => crate::mounts::Aside::inside(name)?,
        _ => crate::mounts::Aside::of(name)?,
    };
    let done = f();
    let back = aside.back();
    done?;
    back?;
    // Who says where something belongs wants it there, also what was not mounted (`changelist_postfix`, libzfs_changelist.c).
    if moves == Moves::Move { crate::mounts::settle_heirs(name) } else { Ok(()) }
}

/// Why a property could not be set; for quotas and reservations "out of space" means something else
/// (`zfs_setprop_error`, libzfs_util.c).
fn unset(prop: &str, e: &DslError) -> String {
    match (prop, e) {
        ("quota" | "refquota", DslError::NoSpace) => {
            "size is less than current used or reserved space".into()
        }
        ("reservation" | "refreservation", DslError::NoSpace) => {
            "size is greater than available space".into()
        }
        _ => super::reason(e),
    }
}

/// Every dataset is tried; what failed is told at once, and the status is that of the worst.
pub fn each(names: &[String], mut one: impl FnMut(&str) -> Outcome) -> Outcome {
    let mut last = Ok(());
    for name in names {
        last = and(last, one(name));
    }
    last
}

/// The same of datasets that are there: all are looked up first, and then have their turn by name (`zfs_for_each`,
/// zfs_iter.c).
fn each_there(names: &[String], mut one: impl FnMut(&str) -> Outcome) -> Outcome {
    let mut there = BTreeSet::new();
    let mut last = each(names, |name| {
        let pool = super::open(name, Named::NoBookmark, For::Read)?;
        pool.dsl.lookup_dataset(pool.io(), name).map_err(|e| cannot("open", name, &e))?;
        there.insert(name.to_string());
        Ok(())
    });
    for name in &there {
        last = and(last, one(name));
    }
    last
}

/// Both outcomes: of two failures the first is told now.
fn and(last: Outcome, next: Outcome) -> Outcome {
    match (last, next) {
        (last, Ok(())) => last,
        (Ok(()), next) => next,
        (Err(Fail { status, message }), Err(fail)) => {
            eprintln!("{message}");
            Err(Fail { status: fail.status | status, ..fail })
        }
    }
}

pub fn inherit(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('r', ""), flag('S', "")], INHERIT_USAGE)?;
    let [prop, names @ ..] = typed.operands.as_slice() else {
        return Err(Fail::usage("missing property argument", INHERIT_USAGE));
    };
    if names.is_empty() {
        return Err(Fail::usage("missing dataset argument", INHERIT_USAGE));
    }
    let prop = super::list::canonical(prop);
    let received = typed.has('S');
    inheritable(prop, received)?;
    // What no property can be called (`zfs_prop_inherit`, libzfs_dataset.c, of what does not fit into a call).
    if prop.len() > NAME_MAX {
        let why = |name: &str| format!("cannot inherit {prop} for '{name}': dataset name is too long");
        return each_there(names, |name| Err(Fail::new(why(name))));
    }
    let moves = Moves::by(false, prop == "mountpoint", None);
    each_there(names, |name| {
        around(name, moves, || inherit_one(name, prop, typed.has('r'), received))?;
        crate::mounts::follow(name, prop == "readonly")
    })
}

fn inherit_one(name: &str, prop: &str, below: bool, received: bool) -> Outcome {
    let mut pool = super::open(name, Named::NoBookmark, For::Write)?;
    let (io, dsl) = pool.parts();
    let mut todo = vec![name.to_string()];
    if below {
        let all = dsl.descendants(io, name).map_err(|e| cannot("open", name, &e))?;
        todo.extend(all.into_iter().filter(|d| d != name));
    }
    for ds in todo {
        let r = dsl.lookup_dataset(io, &ds).map_err(|e| cannot("open", &ds, &e))?;
        if !applies(dsl, io, prop, &ds)? {
            if below {
                continue;
            }
            return Err(Fail::new(format!(
                "cannot inherit {prop} for '{ds}': property doesn't apply to datasets of this type"
            )));
        }
        if prop == "mlslabel" {
            // Nobody may, where labels mean nothing (`zfs_secpolicy_inherit_prop`, zfs_ioctl.c).
            return Err(Fail::new(format!("cannot inherit {prop} for '{ds}': permission denied")));
        }
        dsl.prop_inherit(io, r, prop, received)
            .map_err(|e| Fail::new(format!("cannot inherit {prop} for '{ds}': {}", unset(prop, &e))))?;
    }
    pool.commit()?;
    Ok(())
}

/// Whether the property may be inherited at all, or go back to what was received.
fn inheritable(prop: &str, received: bool) -> Outcome {
    let Some(p) = table::find(prop) else {
        if is_user(prop) {
            return Ok(());
        }
        return Err(Fail::usage(format!("invalid property '{prop}'"), INHERIT_USAGE));
    };
    if p.readonly() {
        return Err(Fail::new(format!("{prop} property is read-only")));
    }
    if !p.inheritable() && !received {
        let mut why = format!("'{prop}' property cannot be inherited");
        if LIMITS.contains(&prop) {
            why += &format!(
                "\nuse 'zfs set {prop}=none' to clear\nuse 'zfs inherit -S {prop}' to revert to received value"
            );
        }
        return Err(Fail::new(why));
    }
    if received && ["volsize", "version"].contains(&prop) {
        return Err(Fail::new(format!("'{prop}' property cannot be reverted to a received value")));
    }
    Ok(())
}

fn applies(dsl: &Dsl, io: &Io, prop: &str, name: &str) -> Outcome<bool> {
    let Some(p) = table::find(prop) else { return Ok(true) };
    let r = dsl.lookup_dataset(io, name).map_err(|e| cannot("open", name, &e))?;
    let mask = match dsl.kind(io, r)? {
        Kind::Filesystem => table::FS,
        Kind::Volume => table::VOL,
        _ => table::SNAP,
    };
    Ok(p.types & mask != 0)
}
