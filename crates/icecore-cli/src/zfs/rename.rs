//! `zfs rename` of datasets and snapshots.

use super::cannot;
use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::keys::How;
use crate::session::{self, For};
use icecore_dsl::DslError;

pub const USAGE: &str = "rename [-fu] <filesystem|volume> <filesystem|volume>\n\trename [-fu] -p <filesystem|volume> <filesystem|volume>\n\trename -r <snapshot> <snapshot>\n\trename <snapshot> <snapshot>";

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
    if from.contains('#') || to.contains('#') {
        return Err(Fail::new(format!("cannot rename '{from}': bookmarks cannot be renamed")));
    }
    match from.split_once('@') {
        Some((path, snap)) => snapshot(path, snap, to, typed.has('r')),
        None if typed.has('r') => {
            Err(Fail::usage("source dataset for recursive rename must be a snapshot", USAGE))
        }
        None if typed.has('u') => dataset(from, to, typed.has('p')),
        None => {
            // Only if their mountpoints follow the name.
            let aside = crate::mounts::Aside::of(from, typed.has('f'))?;
            let renamed = dataset(from, to, typed.has('p'));
            let back = aside.back();
            renamed.and(back)?;
            if typed.has('p') { super::create::mount_new(to, true) } else { Ok(()) }
        }
    }
}

fn dataset(from: &str, to: &str, parents: bool) -> Outcome {
    let fail = |why: &str| Fail::new(format!("cannot rename '{from}': {why}"));
    if to.contains('@') {
        return Err(fail("a dataset cannot become a snapshot"));
    }
    super::may_name(to).map_err(|why| fail(&why))?;
    if session::pool_of(from) != session::pool_of(to) {
        return Err(fail("datasets must be within same pool"));
    }
    let mut pool = session::open(from, For::Write)?;
    pool.dsl.lookup_head(pool.io(), from).map_err(|e| cannot("open", from, &e))?;
    if parents {
        super::create::parents(&mut pool, to, How { missing: super::create::MISSING, ..How::default() })?;
    }
    let (io, dsl) = pool.parts();
    let parent = to.rsplit_once('/').map_or("", |(p, _)| p);
    if dsl.lookup_head(io, parent).is_err() {
        return Err(fail(&format!("'{parent}': parent does not exist")));
    }
    dsl.rename(io, from, to).map_err(|e| match e {
        DslError::Exists(_) => fail(&format!("'{to}': dataset already exists")),
        e => cannot("rename", from, &e),
    })?;
    pool.commit()?;
    Ok(())
}

fn snapshot(path: &str, snap: &str, to: &str, recursive: bool) -> Outcome {
    let full = format!("{path}@{snap}");
    let fail = |why: &str| Fail::new(format!("cannot rename '{full}': {why}"));
    // `@new` and `new` are short for the same dataset (`zfs_rename`, libzfs_dataset.c).
    let new = match to.split_once('@') {
        Some(("", new)) => new,
        Some((other, new)) if other == path => new,
        Some(_) => return Err(fail("snapshots must be part of same dataset")),
        None => to,
    };
    super::may_name(&format!("{path}@{new}")).map_err(|why| fail(&why))?;
    let mut pool = session::open(path, For::Write)?;
    let (io, dsl) = pool.parts();
    dsl.lookup_snapshot(io, &full).map_err(|e| cannot("open", &full, &e))?;
    let mut paths = vec![path.to_string()];
    if recursive {
        paths = dsl.descendants(io, path).map_err(|e| cannot("open", path, &e))?;
        paths.retain(|p| dsl.lookup_snapshot(io, &format!("{p}@{snap}")).is_ok());
    }
    for p in &paths {
        dsl.rename_snapshot(io, p, snap, new).map_err(|e| match e {
            DslError::Exists(_) => fail(&format!("'{p}@{new}': dataset already exists")),
            e => cannot("rename", &format!("{p}@{snap}"), &e),
        })?;
    }
    pool.commit()?;
    Ok(())
}
