//! `zfs rollback`.

use super::cannot;
use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};

pub const USAGE: &str = "rollback [-rRf] <snapshot>";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('r', ""), flag('R', ""), flag('f', "")], USAGE)?;
    let [name] = typed.operands.as_slice() else {
        return Err(Fail::usage("missing dataset argument", USAGE));
    };
    let Some((path, snap)) = name.split_once('@') else {
        return Err(Fail::usage(format!("'{name}' is not a snapshot"), USAGE));
    };
    let mut pool = session::open(name, For::Write)?;
    let (io, dsl) = pool.parts();
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
    if !newer.is_empty() && !typed.has('r') && !typed.has('R') {
        return Err(Fail::new(format!(
            "cannot rollback to '{name}': more recent snapshots or bookmarks exist\nuse '-r' to force deletion of the following snapshots and bookmarks:\n{}",
            newer.join("\n")
        )));
    }
    for n in newer.iter().rev() {
        let gone = if n.contains('#') {
            dsl.bookmark_destroy(io, n).map(|()| true)
        } else {
            dsl.destroy_snapshot(io, n, false)
        };
        gone.map_err(|e| Fail::new(format!("cannot rollback to '{name}': {n}: {}", super::reason(&e))))?;
    }
    dsl.rollback(io, path, Some(snap)).map_err(|e| cannot("rollback", path, &e))?;
    pool.commit()?;
    Ok(())
}
