//! `zfs hold`, `zfs holds`, `zfs release`.

use super::{Named, cannot};
use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::human;
use crate::session::For;
use crate::table::{Align, Table};
use icecore_dsl::{DatasetRef, Dsl, DslError};
use icecore_pool::{Io, Pool};

pub const HOLD_USAGE: &str = "hold [-r] <tag> <snapshot> ...";
pub const HOLDS_USAGE: &str = "holds [-rHp] <snapshot> ...";
pub const RELEASE_USAGE: &str = "release [-r] <tag> <snapshot> ...";

pub fn hold(args: &[String]) -> Outcome {
    change(args, HOLD_USAGE, |dsl, io, asked, all, tag| {
        let mut there = Vec::new();
        for name in all {
            there.extend(find(dsl, io, name)?.map(|_| name));
        }
        if there.is_empty() {
            return Err(Fail::new(format!("cannot hold snapshot '{asked}': dataset does not exist")));
        }
        there.into_iter().try_for_each(|name| hold_one(dsl, io, name, tag))
    })
}

fn hold_one(dsl: &mut Dsl, io: &mut Io, name: &str, tag: &str) -> Outcome {
    dsl.hold(io, name, tag).map_err(|e| match e {
        DslError::Exists(_) => {
            Fail::new(format!("cannot hold snapshot '{name}': tag already exists on this dataset"))
        }
        DslError::Name(_) if tag.is_empty() => {
            Fail::new("cannot hold: operation not applicable to datasets of this type")
        }
        DslError::Name(_) => Fail::new(format!("cannot hold snapshot '{name}': tag too long")),
        e => cannot("hold snapshot", name, &e),
    })
}

/// Holds of that tag go where they are; only where none is, that is a failure (`zfs_release`, libzfs_dataset.c).
pub fn release(args: &[String]) -> Outcome {
    change(args, RELEASE_USAGE, |dsl, io, asked, all, tag| {
        let mut missing = false;
        let mut held = Vec::new();
        for name in all {
            match find(dsl, io, name)? {
                Some(r) if dsl.holds(io, r)?.iter().any(|(t, _)| t == tag) => held.push(name),
                found => missing |= found.is_none(),
            }
        }
        if held.is_empty() {
            let why = if missing { "dataset does not exist" } else { "no such tag on this dataset" };
            return Err(Fail::new(format!("cannot release hold from snapshot '{asked}': {why}")));
        }
        held.into_iter().try_for_each(|name| {
            dsl.release(io, name, tag).map_err(|e| cannot("release hold from snapshot", name, &e))
        })
    })
}

/// Does `f` to each snapshot named: it gets the name, and with `-r` the names of all that may be so called below.
fn change(
    args: &[String],
    usage: &str,
    f: impl Fn(&mut Dsl, &mut Io, &str, &[String], &str) -> Outcome,
) -> Outcome {
    let typed = Typed::parse(args, &[flag('r', "")], usage)?;
    let [tag, names @ ..] = typed.operands.as_slice() else {
        return Err(Fail::usage("missing tag argument", usage));
    };
    if names.is_empty() {
        return Err(Fail::usage("missing snapshot argument", usage));
    }
    // OpenZFS keeps these for itself (`zfs_do_hold_rele_impl`, zfs_main.c).
    if usage == HOLD_USAGE && tag.starts_with('.') {
        return Err(Fail::usage("tag may not start with '.'", usage));
    }
    // Each for itself, so that what can be done is.
    super::set::each(names, |name| {
        let (path, _) = name.split_once('@').ok_or_else(|| no_snapshot(name))?;
        let mut pool = super::open(path, Named::Dataset, For::Write)?;
        pool.dsl.lookup_head(pool.io(), path).map_err(|e| cannot("open", path, &e))?;
        let all = expand(&pool, name, typed.has('r'))?;
        let (io, dsl) = pool.parts();
        f(dsl, io, name, &all, tag)?;
        pool.commit()?;
        Ok(())
    })
}

/// The snapshot, if there is one of that name.
fn find(dsl: &Dsl, io: &Io, name: &str) -> Outcome<Option<DatasetRef>> {
    match dsl.lookup_snapshot(io, name) {
        Ok(r) => Ok(Some(r)),
        Err(DslError::NotFound(_) | DslError::Name(_)) => Ok(None),
        Err(e) => Err(cannot("open", name, &e)),
    }
}

fn no_snapshot(name: &str) -> Fail {
    Fail::new(format!("'{name}' is not a snapshot"))
}

/// The snapshot's name, or with `-r` what it is called in its dataset and in all below, whether they have it or not.
fn expand(pool: &Pool, name: &str, recursive: bool) -> Outcome<Vec<String>> {
    let (path, snap) = name.split_once('@').ok_or_else(|| no_snapshot(name))?;
    if !recursive {
        return Ok(vec![name.to_string()]);
    }
    let below = pool.dsl.descendants(pool.io(), path).map_err(|e| cannot("open", path, &e))?;
    let all = std::iter::once(path.to_string()).chain(below.into_iter().filter(|d| d != path));
    Ok(all.map(|d| format!("{d}@{snap}")).collect())
}

pub fn holds(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('r', ""), flag('H', ""), flag('p', "")], HOLDS_USAGE)?;
    if typed.operands.is_empty() {
        return Err(Fail::usage("missing snapshot argument", HOLDS_USAGE));
    }
    let mut table = Table::new(["NAME", "TAG", "TIMESTAMP"].map(|c| (c.to_string(), Align::Left)).to_vec());
    let mut any = false;
    let done = super::set::each(&typed.operands, |name| {
        if !name.contains('@') {
            return Err(no_snapshot(name));
        }
        let path = name.split('@').next().unwrap_or(name);
        let pool = match typed.has('r') {
            true => super::open(path, Named::Dataset, For::Read)?,
            false => super::open(name, Named::Snapshot, For::Read)?,
        };
        for snap in expand(&pool, name, typed.has('r'))? {
            let r = match find(&pool.dsl, pool.io(), &snap)? {
                Some(r) => r,
                None if typed.has('r') => continue,
                None => return Err(Fail::new(format!("cannot open '{snap}': dataset does not exist"))),
            };
            any = true;
            for (tag, time) in pool.dsl.holds(pool.io(), r).map_err(|e| cannot("open", &snap, &e))? {
                table.row(vec![
                    snap.clone(),
                    tag,
                    if typed.has('p') { time.to_string() } else { human::time(time) },
                ]);
            }
        }
        Ok(())
    });
    if !table.is_empty() || !typed.has('H') {
        print!("{}", table.render(typed.has('H')));
    }
    if any {
        return done;
    }
    const NONE: &str = "no datasets available";
    match done {
        Ok(()) => eprintln!("{NONE}"),
        Err(f) => return Err(Fail { message: format!("{}\n{NONE}", f.message), ..f }),
    }
    Ok(())
}
