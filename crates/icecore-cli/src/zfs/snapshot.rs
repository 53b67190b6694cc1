//! `zfs snapshot` (`zfs_do_snapshot`, zfs_main.c; `zfs_snapshot_nvl`, libzfs_dataset.c). All snapshots of one line are
//! taken in one txg, or none.

use super::{cannot, may_name};
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};

pub const USAGE: &str = "snapshot [-r] [-o property=value] ... <filesystem|volume>@<snap> ...";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('r', ""), value('o', "")], USAGE)?;
    let Some(first) = typed.operands.first() else {
        return Err(Fail::usage("missing snapshot argument", USAGE));
    };
    let props = typed.values('o').map(super::set::split).collect::<Outcome<Vec<_>>>()?;
    let many = typed.has('r') || typed.operands.len() > 1;
    let none = |f: Fail| match many {
        true => Fail { message: format!("{}\nno snapshots were created", f.message), ..f },
        false => f,
    };
    for name in &typed.operands {
        if !name.contains('@') {
            return Err(Fail::usage(format!("invalid snapshot name '{name}'"), USAGE));
        }
        may_name(name).map_err(|why| none(Fail::new(format!("cannot create snapshot '{name}': {why}"))))?;
    }
    if typed.operands.iter().any(|n| session::pool_of(n) != session::pool_of(first)) {
        // The words for this too (`EXDEV`).
        return Err(none(Fail::new("cannot create snapshots : multiple snapshots of same fs not allowed")));
    }
    let mut pool = session::open(first, For::Write)?;
    let (io, dsl) = pool.parts();
    let mut names = Vec::new();
    for name in &typed.operands {
        let (path, snap) = name.split_once('@').unwrap_or((name, ""));
        dsl.lookup_head(io, path).map_err(|e| Fail::usage(cannot("open", path, &e).message, USAGE))?;
        if typed.has('r') {
            let below = dsl.snapshot_names_below(io, path, snap);
            names.extend(below.map_err(|e| cannot("create snapshot", name, &e))?);
        } else {
            names.push(name.clone());
        }
    }
    // Who stands in the way is named.
    let there: Vec<String> = names
        .iter()
        .filter(|n| dsl.lookup_snapshot(io, n).is_ok())
        .map(|n| format!("cannot create snapshot '{n}': dataset already exists"))
        .collect();
    if !there.is_empty() {
        return Err(none(Fail::new(there.join("\n"))));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    dsl.snapshot(io, &names, &props).map_err(|e| {
        none(match many {
            true => Fail::new(format!("cannot create snapshots : {}", super::reason(&e))),
            false => cannot("create snapshot", first, &e),
        })
    })?;
    pool.commit()?;
    Ok(())
}
