//! `zfs snapshot` (`zfs_do_snapshot`, zfs_main.c; `zfs_snapshot_nvl`, libzfs_dataset.c). All snapshots of one line are
//! taken in one txg, or none.

use super::{Named, cannot};
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use std::collections::BTreeSet;

pub const USAGE: &str = "snapshot [-r] [-o property=value] ... <filesystem|volume>@<snap> ...";

/// What is said of two snapshots of one file system.
const SAME_FS: &str = "cannot create snapshots : multiple snapshots of same fs not allowed";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse_plain(args, &[flag('r', ""), value('o', "")], USAGE)?;
    let Some(first) = typed.operands.first() else {
        return Err(Fail::usage("missing snapshot argument", USAGE));
    };
    let props = super::set::pairs(&typed)?;
    let many = typed.has('r') || typed.operands.len() > 1;
    let none = |f: Fail| match many {
        true => Fail { message: format!("{}\nno snapshots were created", f.message), ..f },
        false => f,
    };
    for name in &typed.operands {
        let Some((path, _)) = name.split_once('@') else {
            return Err(Fail::usage(format!("invalid snapshot name '{name}'"), USAGE));
        };
        super::open(path, Named::Dataset, For::Read)
            .and_then(|pool| pool.dsl.lookup_head(pool.io(), path).map_err(|e| cannot("open", path, &e)))
            .map_err(|f| Fail::usage(f.message, USAGE))?;
    }
    for name in &typed.operands {
        super::may_name(name, Named::Snapshot)
            .map_err(|why| none(Fail::new(format!("cannot create snapshot '{name}': {why}"))))?;
    }
    for (p, v) in &props {
        icecore_dsl::prop::parse_new_snapshot(p, v)
            .map_err(|e| none(Fail::new(format!("cannot create snapshots : {}", super::reason(&e)))))?;
    }
    if typed.operands.iter().any(|n| session::pool_of(n) != session::pool_of(first)) {
        // The words for this too (`EXDEV`).
        return Err(none(Fail::new(SAME_FS)));
    }
    let mut pool = session::open(first, For::Write)?;
    let (io, dsl) = pool.parts();
    let mut names = Vec::new();
    for name in &typed.operands {
        let (path, snap) = name.split_once('@').unwrap_or((name, ""));
        if typed.has('r') {
            let below = dsl.snapshot_names_below(io, path, snap);
            names.extend(below.map_err(|e| cannot("create snapshot", name, &e))?);
        } else {
            names.push(name.clone());
        }
    }
    // Named twice is named once.
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let heads: BTreeSet<&str> = names.iter().filter_map(|n| n.split('@').next()).collect();
    if heads.len() < names.len() {
        return Err(none(Fail::new(SAME_FS)));
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
