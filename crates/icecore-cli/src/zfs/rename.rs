//! `zfs rename` of datasets and snapshots (`zfs_do_rename`, zfs_main.c; `zfs_rename`, libzfs_dataset.c).

use super::{Named, cannot};
use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::keys::How;
use crate::session::{self, For};
use icecore_dsl::{DslError, Kind};

pub const USAGE: &str = "rename [-f] <filesystem|volume|snapshot> <filesystem|volume|snapshot>\n\trename -p [-f] <filesystem|volume> <filesystem|volume>\n\trename -u [-f] <filesystem> <filesystem>\n\trename -r <snapshot> <snapshot>";

pub fn run(args: &[String]) -> Outcome {
    let known = [flag('f', ""), flag('u', ""), flag('p', ""), flag('r', "")];
    let typed = Typed::parse(args, &known, USAGE)?;
    let [from, to] = typed.operands.as_slice() else {
        let what = match typed.operands.len() {
            0 => "missing source dataset argument",
            1 => "missing target dataset argument",
            _ => "too many arguments",
        };
        return Err(Fail::usage(what, USAGE));
    };
    let (recursive, parents, stay) = (typed.has('r'), typed.has('p'), typed.has('u'));
    let wrong = match (recursive, parents, stay) {
        (true, true, _) => Some("-p and -r options are mutually exclusive"),
        (_, true, true) => Some("-u and -p options are mutually exclusive"),
        (true, ..) if !from.contains('@') => Some("source dataset for recursive rename must be a snapshot"),
        _ => None,
    };
    if let Some(what) = wrong {
        return Err(Fail::usage(what, USAGE));
    }
    exists(from, stay, parents)?;
    // The same name is no change.
    if from == to {
        return Ok(());
    }
    if let Some((path, snap)) = from.split_once('@') {
        return snapshot(path, snap, to, recursive);
    }
    if stay {
        return dataset(from, to, parents);
    }
    may_become(from, to)?;
    // Only if their mountpoints follow the name.
    let aside = crate::mounts::Aside::of(from)?;
    let renamed = dataset(from, to, parents);
    // What steps back belongs in what is new.
    let above = if parents && renamed.is_ok() { super::create::mount_above(to) } else { Ok(()) };
    let back = aside.back();
    renamed.and(above).and(back)?;
    if parents { crate::mounts::created(to) } else { Ok(()) }
}

/// What is to be renamed is there, and of a kind that can be.
fn exists(from: &str, stay: bool, parents: bool) -> Outcome {
    let wanted = if stay || parents { Named::Dataset } else { Named::NoBookmark };
    let pool = super::open(from, wanted, For::Read)?;
    let r = pool.dsl.lookup_dataset(pool.io(), from).map_err(|e| cannot("open", from, &e))?;
    let volume = pool.dsl.kind(pool.io(), r).map_err(|e| cannot("open", from, &e))? == Kind::Volume;
    if stay && volume { Err(super::wrong_kind(from)) } else { Ok(()) }
}

/// Whether a dataset may get the name `to`, as far as names and pools tell.
fn may_become(from: &str, to: &str) -> Outcome {
    let fail = |why: &str| Fail::new(format!("cannot rename to '{to}': {why}"));
    super::may_name(from, Named::Dataset).map_err(|why| fail(&why))?;
    super::may_name(to, Named::Dataset).map_err(|why| fail(&why))?;
    super::parent_of(to).map_err(|f| Fail::new(format!("cannot create '{to}': {}", f.message)))?;
    if session::pool_of(from) != session::pool_of(to) || !from.contains('/') {
        return Err(fail("datasets must be within same pool"));
    }
    Ok(())
}

fn dataset(from: &str, to: &str, parents: bool) -> Outcome {
    may_become(from, to)?;
    let parent = super::parent_of(to)?;
    let mut pool = session::open(from, For::Write)?;
    if parents {
        super::create::parents(&mut pool, to, How { missing: super::create::MISSING, ..How::default() })?;
    }
    super::check_parent(&pool, parent)
        .map_err(|f| Fail::new(format!("cannot create '{to}': {}", f.message)))?;
    if to.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
        return Err(Fail::new(format!(
            "cannot rename to '{to}': New dataset name cannot be a descendant of current dataset name"
        )));
    }
    let (io, dsl) = pool.parts();
    dsl.rename(io, from, to).map_err(|e| cannot("rename", from, &e))?;
    pool.commit()?;
    Ok(())
}

fn snapshot(path: &str, snap: &str, to: &str, recursive: bool) -> Outcome {
    let full = format!("{path}@{snap}");
    // `@new` and `new` are short for the same dataset.
    let new = match to.split_once('@') {
        Some(("", new)) => new,
        Some((other, new)) if other == path => new,
        Some(_) => {
            return Err(Fail::new(format!(
                "cannot rename to '{to}': snapshots must be part of same dataset"
            )));
        }
        None => to,
    };
    let target = format!("{path}@{new}");
    super::may_name(&target, Named::Snapshot)
        .map_err(|why| Fail::new(format!("cannot rename to '{to}': {why}")))?;
    let mut pool = session::open(path, For::Write)?;
    let (io, dsl) = pool.parts();
    let mut paths = vec![path.to_string()];
    if recursive {
        paths = dsl.descendants(io, path).map_err(|e| cannot("open", path, &e))?;
        paths.retain(|p| dsl.lookup_snapshot(io, &format!("{p}@{snap}")).is_ok());
    }
    for p in &paths {
        dsl.rename_snapshot(io, p, snap, new).map_err(|e| match e {
            DslError::Exists(_) if recursive => Fail::new(format!(
                "cannot rename '{p}@{snap}': a child dataset already has a snapshot with the new name"
            )),
            e => cannot("rename", if recursive { path } else { &full }, &e),
        })?;
    }
    pool.commit()?;
    Ok(())
}
