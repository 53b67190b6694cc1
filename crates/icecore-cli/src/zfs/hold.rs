//! `zfs hold`, `zfs holds`, `zfs release`.

use super::{Named, cannot};
use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::human;
use crate::session::{self, For};
use crate::table::{Align, Table};
use icecore_dsl::{Dsl, DslError};
use icecore_pool::{Io, Pool};

pub const HOLD_USAGE: &str = "hold [-r] <tag> <snapshot> ...";
pub const HOLDS_USAGE: &str = "holds [-rHp] <snapshot> ...";
pub const RELEASE_USAGE: &str = "release [-r] <tag> <snapshot> ...";

pub fn hold(args: &[String]) -> Outcome {
    change(args, HOLD_USAGE, |dsl, io, name, tag| {
        dsl.hold(io, name, tag).map_err(|e| match e {
            DslError::Exists(_) => {
                Fail::new(format!("cannot hold snapshot '{name}': tag already exists on this dataset"))
            }
            DslError::Invalid(_) if tag.is_empty() => {
                Fail::new("cannot hold: operation not applicable to datasets of this type")
            }
            DslError::Invalid(_) => Fail::new(format!("cannot hold snapshot '{name}': tag too long")),
            DslError::Name(_) => Fail::new(format!("cannot hold snapshot '{name}': dataset does not exist")),
            e => cannot("hold snapshot", name, &e),
        })
    })
}

pub fn release(args: &[String]) -> Outcome {
    change(args, RELEASE_USAGE, |dsl, io, name, tag| {
        dsl.release(io, name, tag).map_err(|e| match e {
            DslError::NotFound(_) if dsl.lookup_snapshot(io, name).is_ok() => {
                Fail::new(format!("cannot release hold from snapshot '{name}': no such tag on this dataset"))
            }
            e => cannot("release hold from snapshot", name, &e),
        })
    })
}

fn change(args: &[String], usage: &str, f: impl Fn(&mut Dsl, &mut Io, &str, &str) -> Outcome) -> Outcome {
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
        // With -r, where nobody has a snapshot of this name, that of the first is missing.
        let all = if all.is_empty() { vec![name.to_string()] } else { all };
        all.iter().try_for_each(|n| f(dsl, io, n, tag))?;
        pool.commit()?;
        Ok(())
    })
}

fn no_snapshot(name: &str) -> Fail {
    Fail::new(format!("'{name}' is not a snapshot"))
}

/// The snapshot, or with `-r` those of its name in all datasets below that have it.
fn expand(pool: &Pool, name: &str, recursive: bool) -> Outcome<Vec<String>> {
    let (path, snap) = name.split_once('@').ok_or_else(|| no_snapshot(name))?;
    if !recursive {
        return Ok(vec![name.to_string()]);
    }
    let below = pool.dsl.descendants(pool.io(), path).map_err(|e| cannot("open", path, &e))?;
    let names = std::iter::once(path.to_string())
        .chain(below.into_iter().filter(|d| d != path))
        .map(|d| format!("{d}@{snap}"));
    Ok(names.filter(|n| pool.dsl.lookup_snapshot(pool.io(), n).is_ok()).collect())
}

pub fn holds(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('r', ""), flag('H', ""), flag('p', "")], HOLDS_USAGE)?;
    if typed.operands.is_empty() {
        return Err(Fail::usage("missing snapshot argument", HOLDS_USAGE));
    }
    let mut table = Table::new(["NAME", "TAG", "TIMESTAMP"].map(|c| (c.to_string(), Align::Left)).to_vec());
    for name in &typed.operands {
        let pool = session::open(name, For::Read)?;
        for snap in expand(&pool, name, typed.has('r'))? {
            let r = pool.dsl.lookup_snapshot(pool.io(), &snap).map_err(|e| cannot("open", &snap, &e))?;
            for (tag, time) in pool.dsl.holds(pool.io(), r).map_err(|e| cannot("open", &snap, &e))? {
                table.row(vec![
                    snap.clone(),
                    tag,
                    if typed.has('p') { time.to_string() } else { human::time(time) },
                ]);
            }
        }
    }
    if !table.is_empty() || !typed.has('H') {
        print!("{}", table.render(typed.has('H')));
    }
    Ok(())
}
