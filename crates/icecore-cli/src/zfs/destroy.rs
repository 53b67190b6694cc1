//! `zfs destroy` of snapshots (also ranges), bookmarks, file systems and volumes.
//!
//! Clones are never destroyed (`-R`): what others depend on is refused, by name.

use super::cannot;
use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::human;
use crate::session::{self, For, Open};
use icecore_dsl::resume::RECV_CLONE;
use icecore_dsl::{Dsl, DslError};
use icecore_pool::{Io, Pool};

pub const USAGE: &str = "destroy [-fnprv] <filesystem|volume>\n\tdestroy [-dnprv] <filesystem|volume>@<snap>[%<snap>][,...]\n\tdestroy <filesystem|volume>#<bookmark>";

pub fn run(args: &[String]) -> Outcome {
    let known = [
        flag('d', ""),
        flag('n', ""),
        flag('p', ""),
        flag('r', ""),
        flag('R', ""),
        flag('v', ""),
        flag('f', ""),
    ];
    let typed = Typed::parse(args, &known, USAGE)?;
    let [name] = typed.operands.as_slice() else {
        return Err(Fail::usage("missing dataset argument", USAGE));
    };
    if typed.has('R') {
        return Err(Fail::new(format!(
            "cannot destroy '{name}': -R (destroying clones) is not supported yet"
        )));
    }
    let dry = typed.has('n');
    let mut pool = session::open(name, if dry { For::Read } else { For::Write })?;
    if name.contains('#') {
        let unfit = [('n', "dryrun"), ('d', "defer destroy"), ('r', "recursive")];
        if let Some((_, what)) = unfit.iter().find(|(c, _)| typed.has(*c)) {
            return Err(Fail::new(format!("{what} is not supported with bookmark")));
        }
        let (io, dsl) = pool.parts();
        dsl.bookmark_destroy(io, name).map_err(|e| match e {
            DslError::NotFound(_) => Fail::new(format!("bookmark '{name}' does not exist")),
            e => cannot("destroy bookmark", name, &e),
        })?;
        pool.commit()?;
        return Ok(());
    }
    let Some((path, spec)) = name.split_once('@') else { return head(pool, name, &typed) };
    let doomed = expand(&pool, path, spec, typed.has('r'))?;
    if doomed.is_empty() {
        return Err(Fail::new("could not find any snapshots to destroy; check snapshot names."));
    }
    report(&pool, &doomed, &typed)?;
    if dry {
        return Ok(());
    }
    let (io, dsl) = pool.parts();
    for snap in &doomed {
        dsl.destroy_snapshot(io, snap, typed.has('d')).map_err(|e| explain(snap, &e))?;
    }
    pool.commit()?;
    Ok(())
}

/// A file system or volume, with `-r` and all below it.
fn head(mut pool: Open, name: &str, typed: &Typed) -> Outcome {
    let fail = |why: String| Fail::new(format!("cannot destroy '{name}': {why}"));
    let (io, dsl) = (pool.io(), &pool.dsl);
    let target = dsl.lookup_head(io, name).map_err(|e| cannot("open", name, &e))?;
    let kind = dsl.kind(io, target)?.text();
    if typed.has('d') {
        return Err(cannot("open", name, &DslError::Invalid("-d is for snapshots".into())));
    }
    if !name.contains('/') {
        return Err(fail(format!(
            "operation does not apply to pools\nuse 'zfs destroy -r {name}/DATASET' for the datasets in the pool"
        )));
    }
    let doomed = tree(dsl, io, name)?;
    let inside = |n: &String| doomed.contains(n);
    let mut clones = Vec::new();
    for snap in doomed.iter().filter(|n| n.contains('@')) {
        let r = dsl.lookup_snapshot(io, snap)?;
        clones.extend(dsl.clones(io, r)?.into_iter().filter(|c| !inside(c) && !c.ends_with(RECV_CLONE)));
        if !dsl.holds(io, r)?.is_empty() {
            return Err(Fail::new(format!(
                "cannot destroy snapshot {snap}: it's being held. Run 'zfs holds -r {snap}' to see holders."
            )));
        }
    }
    let below: Vec<String> = doomed.iter().filter(|n| *n != name).cloned().collect();
    if !typed.has('r') && !below.is_empty() {
        return Err(fail(format!(
            "{kind} has children\nuse '-r' to destroy the following datasets:\n{}",
            below.join("\n")
        )));
    }
    if !clones.is_empty() {
        return Err(fail(format!(
            "{kind} has dependent clones\ndestroy or promote these first, nothing was destroyed:\n{}",
            clones.join("\n")
        )));
    }
    if typed.has('v') || typed.has('p') {
        let would = if typed.has('n') { "would" } else { "will" };
        for n in doomed.iter().rev() {
            if typed.has('p') { println!("destroy\t{n}") } else { println!("{would} destroy {n}") }
        }
    }
    if typed.has('n') {
        return Ok(());
    }
    let (io, dsl) = pool.parts();
    remove_all(dsl, io, doomed).map_err(|(n, e)| explain(&n, &e))?;
    pool.commit()?;
    Ok(())
}

/// `name`, what is below it, and all their snapshots: whatever a name depends on comes before it.
fn tree(dsl: &Dsl, io: &Io, name: &str) -> Outcome<Vec<String>> {
    let mut out = Vec::new();
    for ds in dsl.descendants(io, name).map_err(|e| cannot("open", name, &e))? {
        let snaps = dsl.snapshots(io, &ds).map_err(|e| cannot("open", &ds, &e))?;
        out.push(ds.clone());
        out.extend(snaps.into_iter().map(|(s, _)| format!("{ds}@{s}")));
    }
    Ok(out)
}

/// Destroys from the leaves up; clones within the tree go before what they were cloned from.
fn remove_all(dsl: &mut Dsl, io: &mut Io, mut left: Vec<String>) -> Result<(), (String, DslError)> {
    while !left.is_empty() {
        let before = left.len();
        let mut stuck = Vec::new();
        let mut why = None;
        for name in left.into_iter().rev() {
            let gone = if name.contains('@') {
                dsl.destroy_snapshot(io, &name, false).map(|_| ())
            } else {
                partial(dsl, io, &name).and_then(|()| dsl.destroy_head(io, &name))
            };
            match gone {
                Ok(()) => {}
                Err(e @ DslError::Dependents(_)) => {
                    why = Some((name.clone(), e));
                    stuck.push(name);
                }
                Err(e) => return Err((name, e)),
            }
        }
        stuck.reverse();
        if stuck.len() == before {
            return why.map_or(Ok(()), Err);
        }
        left = stuck;
    }
    Ok(())
}

/// What a cut receive left below a dataset goes with it (`zfs_ioc_destroy`, zfs_ioctl.c).
fn partial(dsl: &mut Dsl, io: &mut Io, path: &str) -> Result<(), DslError> {
    let head = dsl.lookup_head(io, path)?;
    match dsl.receive_clone(io, head)? {
        Some(_) => dsl.destroy_head(io, &format!("{path}/{RECV_CLONE}")),
        None => Ok(()),
    }
}

/// The dataset that this hidden clone is a partial receive into.
fn partial_of(clone: &str) -> Option<&str> {
    clone.strip_suffix(RECV_CLONE)?.strip_suffix('/')
}

fn explain(snap: &str, e: &DslError) -> Fail {
    match e {
        DslError::Busy(why) if why.contains("held") => Fail::new(format!(
            "cannot destroy snapshot {snap}: it's being held. Run 'zfs holds -r {snap}' to see holders."
        )),
        DslError::Dependents(clones) if clones.iter().any(|c| partial_of(c).is_some()) => {
            let partial: Vec<&str> = clones.iter().filter_map(|c| partial_of(c)).collect();
            Fail::new(format!(
                "cannot destroy '{snap}': a receive that was cut short continues from it\nfinish that, or drop what it has received with:{}",
                partial.iter().map(|ds| format!("\n\tzfs receive -A {ds}")).collect::<String>()
            ))
        }
        DslError::Dependents(clones) => Fail::new(format!(
            "cannot destroy '{snap}': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\n{}\n(which is not supported here: destroy them one by one)",
            clones.join("\n")
        )),
        e => Fail::new(format!("cannot destroy snapshot {snap}: {}", super::reason(e))),
    }
}

/// The snapshots that `a,b%d,%e` of `path` (and with `-r` of everything below) names, oldest first.
fn expand(pool: &Pool, path: &str, spec: &str, recursive: bool) -> Outcome<Vec<String>> {
    let (io, dsl): (_, &Dsl) = (pool.io(), &pool.dsl);
    let mut paths = vec![path.to_string()];
    dsl.lookup_head(io, path).map_err(|e| cannot("open", path, &e))?;
    if recursive {
        paths.extend(
            dsl.descendants(io, path)
                .map_err(|e| cannot("open", path, &e))?
                .into_iter()
                .filter(|d| d != path),
        );
    }
    let mut out = Vec::new();
    for path in paths {
        let all: Vec<String> = dsl
            .snapshots(io, &path)
            .map_err(|e| cannot("open", &path, &e))?
            .into_iter()
            .map(|s| s.0)
            .collect();
        let at = |name: &str| all.iter().position(|s| s == name);
        let mut chosen = vec![false; all.len()];
        for part in spec.split(',') {
            match part.split_once('%') {
                None => {
                    if let Some(i) = at(part) {
                        chosen[i] = true;
                    }
                }
                Some((first, last)) => {
                    let from = if first.is_empty() { Some(0) } else { at(first) };
                    let to = if last.is_empty() { all.len().checked_sub(1) } else { at(last) };
                    if let (Some(from), Some(to)) = (from, to) {
                        (from..=to).for_each(|i| chosen[i] = true);
                    }
                }
            }
        }
        out.extend(all.iter().zip(&chosen).filter(|(_, c)| **c).map(|(s, _)| format!("{path}@{s}")));
    }
    Ok(out)
}

fn report(pool: &Pool, doomed: &[String], typed: &Typed) -> Outcome {
    if !typed.has('v') && !typed.has('p') {
        return Ok(());
    }
    let would = if typed.has('n') { "would " } else { "will " };
    let mut reclaim = 0_u64;
    let mut runs: Vec<(String, u64, u64)> = Vec::new();
    for snap in doomed {
        let r = pool.dsl.lookup_snapshot(pool.io(), snap).map_err(|e| cannot("open", snap, &e))?;
        let path = snap.split('@').next().unwrap_or("").to_string();
        match runs.last_mut() {
            Some((p, _, last))
                if *p == path && pool.dsl.dataset(pool.io(), r.obj)?.prev_snap_obj == *last =>
            {
                *last = r.obj
            }
            _ => runs.push((path, r.obj, r.obj)),
        }
        if typed.has('p') {
            println!("destroy\t{snap}");
        } else {
            println!("{would}destroy {snap}");
        }
    }
    for (_, first, last) in runs {
        reclaim += u64::try_from(pool.dsl.space_would_free(pool.io(), first, last)?.used).unwrap_or(0);
    }
    if typed.has('p') {
        println!("reclaim\t{reclaim}");
    } else {
        println!("{would}reclaim {}", human::bytes(reclaim));
    }
    Ok(())
}
