//! `zfs rollback`.

use super::{Named, cannot, destroy};
use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::session::{self, For, Open};
use icecore_dsl::DslError;
use icecore_pool::Pool;

pub const USAGE: &str = "rollback [-rRf] <snapshot>";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('r', ""), flag('R', ""), flag('f', "")], USAGE)?;
    let [name] = typed.operands.as_slice() else {
        let none = typed.operands.is_empty();
        return Err(Fail::usage(if none { "missing dataset argument" } else { "too many arguments" }, USAGE));
    };
    let pool = super::open(name, Named::Snapshot, For::Write)?;
    let path = name.split('@').next().unwrap_or(name);
    let newer = newer(&pool, path, name)?;
    if !newer.is_empty() && !typed.has('r') && !typed.has('R') {
        return Err(Fail::new(format!(
            "cannot rollback to '{name}': more recent snapshots or bookmarks exist\nuse '-r' to force deletion of the following snapshots and bookmarks:\n{}",
            newer.join("\n")
        )));
    }
    let snaps: Vec<String> = newer.iter().filter(|n| !n.contains('#')).cloned().collect();
    let (clones, mounts) = destroy::hanging_on(&pool, &snaps)?;
    if !clones.is_empty() && !typed.has('R') {
        return Err(Fail::new(format!(
            "cannot rollback to '{name}': clones of previous snapshots exist\nuse '-R' to force deletion of the following clones and dependents:\n{}",
            clones.join("\n")
        )));
    }
    if mounts.is_empty() {
        return back(pool, name, &newer, clones);
    }
    destroy::without(pool, mounts, || back(session::open(name, For::Write)?, name, &newer, clones))
}

/// Snapshots and bookmarks that are newer than the target.
fn newer(pool: &Pool, path: &str, name: &str) -> Outcome<Vec<String>> {
    let (io, dsl) = (pool.io(), &pool.dsl);
    let target = dsl.lookup_snapshot(io, name).map_err(|e| cannot("open", name, &e))?;
    let txg = dsl.dataset(io, target.obj)?.creation_txg;
    let mut newer = Vec::new();
    for (s, r) in dsl.snapshots(io, path).map_err(|e| cannot("open", path, &e))? {
        if dsl.dataset(io, r.obj)?.creation_txg > txg {
            newer.push(format!("{path}@{s}"));
        }
    }
    let marks = dsl.bookmarks(io, path).map_err(|e| cannot("open", path, &e))?;
    newer.extend(marks.into_iter().filter(|(_, b)| b.creation_txg > txg).map(|(m, _)| format!("{path}#{m}")));
    Ok(newer)
}

/// Destroys what is in the way, and goes back: all in one txg, or nothing.
fn back(mut pool: Open, name: &str, newer: &[String], clones: Vec<String>) -> Outcome {
    let _visits = crate::mounts::visits(&pool, newer);
    destroy::remove(&mut pool, clones)?;
    let (io, dsl) = pool.parts();
    for n in newer.iter().rev() {
        let gone = if n.contains('#') {
            dsl.bookmark_destroy(io, n).map(|()| true)
        } else {
            dsl.destroy_snapshot(io, n, false)
        };
        // A clone that went may have had it.
        match gone {
            Ok(_) | Err(DslError::NotFound(_)) => {}
            Err(DslError::Busy(_)) => {
                return Err(Fail::new(format!("cannot destroy '{n}': dataset is busy")));
            }
            Err(e) => return Err(Fail::new(format!("cannot destroy '{n}': {}", super::reason(&e)))),
        }
    }
    let (path, snap) = name.split_once('@').unwrap_or((name, ""));
    dsl.rollback(io, path, Some(snap)).map_err(|e| cannot("rollback", path, &e))?;
    pool.commit()?;
    Ok(())
}
