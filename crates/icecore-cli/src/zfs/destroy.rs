//! `zfs destroy` of snapshots (also ranges) and bookmarks.

use super::cannot;
use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::human;
use crate::session::{self, For};
use icecore_dsl::{Dsl, DslError};
use icecore_pool::Pool;

pub const USAGE: &str =
    "destroy [-dnpRrv] <filesystem|volume>@<snap>[%<snap>][,...]\n\tdestroy <filesystem|volume>#<bookmark>";

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
        if !dry {
            let (io, dsl) = pool.parts();
            dsl.bookmark_destroy(io, name).map_err(|e| match e {
                DslError::NotFound(_) => Fail::new(format!("bookmark '{name}' does not exist")),
                e => cannot("destroy bookmark", name, &e),
            })?;
            pool.commit()?;
        }
        return Ok(());
    }
    let Some((path, spec)) = name.split_once('@') else {
        return Err(Fail::new(format!(
            "cannot destroy '{name}': destroying file systems and volumes is not supported yet; only their snapshots and bookmarks"
        )));
    };
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

fn explain(snap: &str, e: &DslError) -> Fail {
    match e {
        DslError::Busy(why) if why.contains("held") => Fail::new(format!(
            "cannot destroy snapshot {snap}: it's being held. Run 'zfs holds -r {snap}' to see holders."
        )),
        DslError::Dependents(clones) => Fail::new(format!(
            "cannot destroy '{snap}': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\n{}",
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
