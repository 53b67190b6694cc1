//! `zfs destroy` of snapshots (also ranges), bookmarks, file systems and volumes (`zfs_do_destroy`,
//! zfs_main.c).
//!
//! Invariant: one command is one txg, however much it destroys: everything it names goes, or nothing.

use super::{Named, cannot};
use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::human;
use crate::mounts::Mount;
use crate::session::{self, For, Open};
use crate::state;
use icecore_dsl::resume::RECV_CLONE;
use icecore_dsl::{Dsl, DslError};
use icecore_pool::{Io, Pool};
use std::collections::BTreeSet;
use std::sync::Arc;

pub const USAGE: &str = "destroy [-fnpRrv] <filesystem|volume>\n\tdestroy [-dnpRrv] <filesystem|volume>@<snap>[%<snap>][,...]\n\tdestroy <filesystem|volume>#<bookmark>";

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
        let none = typed.operands.is_empty();
        return Err(Fail::usage(if none { "missing dataset argument" } else { "too many arguments" }, USAGE));
    };
    let dry = typed.has('n');
    let what_for = if dry { For::Read } else { For::Write };
    let Some((path, spec)) = name.split_once('@') else {
        if name.contains('#') {
            return bookmark(name, &typed);
        }
        let wanted = if typed.has('d') { Named::Snapshot } else { Named::Dataset };
        return head(super::open(name, wanted, what_for)?, name, &typed);
    };
    let pool = super::open(path, Named::Dataset, what_for)?;
    let doomed = expand(&pool, path, spec, typed.has('r') || typed.has('R'))?;
    if doomed.is_empty() {
        return Err(Fail::new("could not find any snapshots to destroy; check snapshot names."));
    }
    let clones = clones_of(&pool, &doomed, &typed)?;
    report(&pool, &doomed, &typed)?;
    announce(&clones, &typed);
    if dry {
        return Ok(());
    }
    let mounted: Vec<_> = clones.iter().flat_map(|n| crate::mounts::exactly(&pool, n)).collect();
    if mounted.is_empty() {
        return snapshots(pool, clones, &doomed, typed.has('d'));
    }
    without(pool, mounted, || snapshots(session::open(name, For::Write)?, clones, &doomed, typed.has('d')))
}

/// Lets the pool go, and runs `f`, with which these mounts and their directories go. They are back if it fails.
pub fn without(pool: Open, mounts: Vec<Arc<Mount>>, f: impl FnOnce() -> Outcome) -> Outcome {
    let dirs = crate::mounts::dirs_of(&pool, &mounts);
    drop(pool);
    crate::mounts::unmount_all(mounts.clone(), false)?;
    let gone = f();
    match gone {
        Ok(()) => crate::mounts::remove_dirs(dirs),
        Err(_) => crate::mounts::again_all(&mounts),
    }
    gone
}

fn bookmark(name: &str, typed: &Typed) -> Outcome {
    let unfit = [('n', "dryrun"), ('d', "defer destroy"), ('r', "recursive")];
    let asked = |c: char| typed.has(c) || (c == 'r' && typed.has('R'));
    if let Some((_, what)) = unfit.iter().find(|(c, _)| asked(*c)) {
        return Err(Fail::new(format!("{what} is not supported with bookmark")).negative());
    }
    // A name that cannot be is that of nothing.
    let missing = || Fail::new(format!("bookmark '{name}' does not exist."));
    if super::valid(name, Named::Any).is_err() || state::find(session::pool_of(name))?.is_none() {
        return Err(missing());
    }
    let mut pool = session::open(name, For::Write)?;
    let (io, dsl) = pool.parts();
    dsl.bookmark_destroy(io, name).map_err(|e| match e {
        DslError::NotFound(_) => missing(),
        e => cannot("destroy bookmark", name, &e),
    })?;
    pool.commit()?;
    Ok(())
}

/// Snapshots, and first the clones that hang on them.
fn snapshots(mut pool: Open, clones: Vec<String>, doomed: &[String], defer: bool) -> Outcome {
    let _visits = crate::mounts::visits(&pool, doomed);
    let (io, dsl) = pool.parts();
    remove_all(dsl, io, clones).map_err(|(n, e)| explain(&n, &e))?;
    for snap in doomed {
        // A clone of one of them may have had the other's name before it: gone is gone.
        match dsl.destroy_snapshot(io, snap, defer) {
            Ok(_) | Err(DslError::NotFound(_)) => {}
            Err(e) => return Err(explain(snap, &e)),
        }
    }
    pool.commit()?;
    Ok(())
}

/// What hangs on the snapshots that are to go: with `-R` it goes first, with `-d` they wait for it, and
/// else it is named and nothing is done.
fn clones_of(pool: &Pool, snaps: &[String], typed: &Typed) -> Outcome<Vec<String>> {
    let (io, dsl) = (pool.io(), &pool.dsl);
    let mut all = Found::default();
    for snap in snaps {
        let mut found = Found::default();
        found.below(dsl, io, snap, true)?;
        let (partial, found): (Vec<_>, Vec<_>) =
            found.names.into_iter().partition(|n| n.ends_with(RECV_CLONE));
        if typed.has('d') && !typed.has('R') {
            continue;
        }
        if !typed.has('R') && !found.is_empty() {
            return Err(Fail::new(format!(
                "cannot destroy '{snap}': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\n{}",
                found.join("\n")
            )));
        }
        if !partial.is_empty() {
            return Err(explain(snap, &DslError::Dependents(partial)));
        }
        all.names.extend(found.into_iter().filter(|n| all.seen.insert(n.clone())));
    }
    Ok(all.names)
}

/// All that hangs on these snapshots, whatever depends on another before it, and what of it is mounted.
pub fn hanging_on(pool: &Pool, snaps: &[String]) -> Outcome<(Vec<String>, Vec<Arc<Mount>>)> {
    let mut found = Found::default();
    for snap in snaps {
        found.below(&pool.dsl, pool.io(), snap, true)?;
    }
    let mounts = found.names.iter().flat_map(|n| crate::mounts::exactly(pool, n)).collect();
    Ok((found.names, mounts))
}

/// Destroys what [`hanging_on`] named.
pub fn remove(pool: &mut Pool, names: Vec<String>) -> Outcome {
    let (io, dsl) = pool.parts();
    remove_all(dsl, io, names).map_err(|(n, e)| explain(&n, &e))
}

/// A file system or volume, with `-r` and all below it, with `-R` all clones of that too.
fn head(pool: Open, name: &str, typed: &Typed) -> Outcome {
    let doomed = doomed(&pool, name, typed)?;
    announce(&doomed, typed);
    if typed.has('n') {
        return Ok(());
    }
    let mounted: Vec<_> = doomed.iter().flat_map(|n| crate::mounts::exactly(&pool, n)).collect();
    without(pool, mounted, || destroy(name, doomed))
}

fn destroy(name: &str, doomed: Vec<String>) -> Outcome {
    let mut pool = session::open(name, For::Write)?;
    let (io, dsl) = pool.parts();
    remove_all(dsl, io, doomed).map_err(|(n, e)| explain(&n, &e))?;
    pool.commit()?;
    Ok(())
}

/// What is to go, whatever depends on another before it.
fn doomed(pool: &Pool, name: &str, typed: &Typed) -> Outcome<Vec<String>> {
    let fail = |why: String| Fail::new(format!("cannot destroy '{name}': {why}"));
    let (io, dsl) = (pool.io(), &pool.dsl);
    let target = dsl.lookup_head(io, name).map_err(|e| cannot("open", name, &e))?;
    let kind = dsl.kind(io, target)?.text();
    let recursive = typed.has('r') || typed.has('R');
    if !name.contains('/') && !recursive {
        return Err(fail(format!(
            "operation does not apply to pools\nuse 'zfs destroy -r {name}' to destroy all datasets in the pool\nuse 'zpool destroy {name}' to destroy the pool itself"
        )));
    }
    let mut found = Found::default();
    found.below(dsl, io, name, true)?;
    let inside =
        |n: &str| n.strip_prefix(name).is_some_and(|rest| rest.starts_with('/') || rest.starts_with('@'));
    let (below, elsewhere): (Vec<String>, Vec<String>) =
        found.names.iter().filter(|n| !n.ends_with(RECV_CLONE)).cloned().partition(|n| inside(n));
    if !recursive && !below.is_empty() {
        return Err(fail(format!(
            "{kind} has children\nuse '-r' to destroy the following datasets:\n{}",
            below.join("\n")
        )));
    }
    if !typed.has('R') && !elsewhere.is_empty() {
        return Err(fail(format!(
            "{kind} has dependent clones\nuse '-R' to destroy the following datasets:\n{}",
            elsewhere.join("\n")
        )));
    }
    if let Some(head) = found.cycle {
        return Err(Fail::new(format!(
            "cannot determine dependent datasets: recursive dependency at '{head}'"
        )));
    }
    let mut doomed: Vec<String> =
        found.names.into_iter().filter(|n| !partial_of(n).is_some_and(|p| p == name || inside(p))).collect();
    // The root of a pool stays, empty.
    if name.contains('/') {
        doomed.push(name.to_string());
    }
    Ok(doomed)
}

fn announce(doomed: &[String], typed: &Typed) {
    if !typed.has('v') && !typed.has('p') {
        return;
    }
    for n in doomed {
        match (typed.has('p'), typed.has('n')) {
            (true, _) => println!("destroy\t{n}"),
            (_, true) => println!("would destroy {n}"),
            _ => println!("will destroy {n}"),
        }
    }
}

/// What depends on a dataset or snapshot, each name once, whatever depends on another before it
/// (`zfs_iter_dependents`, libzfs_iter.c).
#[derive(Default)]
struct Found {
    names: Vec<String>,
    seen: BTreeSet<String>,
    /// Heads on the way down to where the search is.
    above: Vec<String>,
    /// A head that depends on itself: a clone that has its origin below it, or the other way round.
    cycle: Option<String>,
}

impl Found {
    fn below(&mut self, dsl: &Dsl, io: &Io, name: &str, first: bool) -> Outcome {
        if self.above.iter().any(|head| head == name) {
            self.cycle.get_or_insert(name.to_string());
        }
        if !self.seen.insert(name.to_string()) {
            return Ok(());
        }
        let failed = |e: DslError| cannot("open", name, &e);
        if name.contains('@') {
            let snap = dsl.lookup_snapshot(io, name).map_err(failed)?;
            for clone in dsl.clones(io, snap).map_err(failed)? {
                self.below(dsl, io, &clone, false)?;
            }
        } else if !name.ends_with(RECV_CLONE) {
            self.above.push(name.to_string());
            for child in dsl.children(io, name).map_err(failed)? {
                self.below(dsl, io, &child, false)?;
            }
            for (snap, _) in dsl.snapshots(io, name).map_err(failed)? {
                self.below(dsl, io, &format!("{name}@{snap}"), false)?;
            }
            self.above.pop();
        }
        if !first {
            self.names.push(name.to_string());
        }
        Ok(())
    }
}

/// Destroys in order; what cannot go yet since a clone hangs on it is tried again after the others.
fn remove_all(dsl: &mut Dsl, io: &mut Io, mut left: Vec<String>) -> Result<(), (String, DslError)> {
    // What hangs on snapshots that are to go as well goes before them.
    let heads: BTreeSet<String> = left.iter().filter(|n| !n.contains('@')).cloned().collect();
    for head in &heads {
        partial(dsl, io, head).map_err(|e| (head.clone(), e))?;
    }
    left.retain(|n| !partial_of(n).is_some_and(|p| heads.contains(p)));
    while !left.is_empty() {
        let before = left.len();
        let mut stuck = Vec::new();
        let mut why = None;
        for name in left {
            let gone = if name.contains('@') {
                dsl.destroy_snapshot(io, &name, false).map(|_| ())
            } else {
                dsl.destroy_head(io, &name)
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
