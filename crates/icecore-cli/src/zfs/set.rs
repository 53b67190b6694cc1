//! `zfs set` and `zfs inherit`.

use super::cannot;
use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use icecore_dsl::DslError;

pub const USAGE: &str = "set [-u] <property=value> ... <filesystem|volume|snapshot> ...";
pub const INHERIT_USAGE: &str = "inherit [-rS] <property> <filesystem|volume|snapshot> ...";

/// `name=value`, split.
pub fn split<'a>(text: &'a str, usage: &str) -> Outcome<(&'a str, &'a str)> {
    text.split_once('=')
        .ok_or_else(|| Fail::usage(format!("missing '=' for property=value argument '{text}'"), usage))
}

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('u', "")], USAGE)?;
    let (pairs, names): (Vec<_>, Vec<_>) = typed.operands.iter().partition(|o| o.contains('='));
    if pairs.is_empty() {
        return Err(Fail::usage("missing property=value argument", USAGE));
    }
    if names.is_empty() {
        return Err(Fail::usage("missing dataset name", USAGE));
    }
    for name in names {
        let mut pool = session::open(name, For::Write)?;
        let (io, dsl) = pool.parts();
        for pair in &pairs {
            let (prop, text) = split(pair, USAGE)?;
            dsl.prop_set(io, name, prop, text)
                .map_err(|e| Fail::new(format!("cannot set property for '{name}': {}", refusal(prop, &e))))?;
        }
        pool.commit()?;
    }
    Ok(())
}

/// Why a property cannot be set; for quotas and reservations "out of space" means something else
/// (`zfs_setprop_error`, libzfs_util.c).
fn refusal(prop: &str, e: &DslError) -> String {
    match (prop, e) {
        ("quota" | "refquota", DslError::NoSpace) => {
            "size is less than current used or reserved space".into()
        }
        ("reservation" | "refreservation", DslError::NoSpace) => {
            "size is greater than available space".into()
        }
        _ => super::reason(e),
    }
}

pub fn inherit(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('r', ""), flag('S', "")], INHERIT_USAGE)?;
    let [prop, names @ ..] = typed.operands.as_slice() else {
        return Err(Fail::usage("missing property argument", INHERIT_USAGE));
    };
    if names.is_empty() {
        return Err(Fail::usage("missing dataset argument", INHERIT_USAGE));
    }
    for name in names {
        let mut pool = session::open(name, For::Write)?;
        let (io, dsl) = pool.parts();
        let mut todo = vec![name.clone()];
        if typed.has('r') {
            todo.extend(
                dsl.descendants(io, name)
                    .map_err(|e| cannot("open", name, &e))?
                    .into_iter()
                    .filter(|d| d != name),
            );
        }
        for ds in todo {
            let r = dsl.lookup_dataset(io, &ds).map_err(|e| cannot("open", &ds, &e))?;
            dsl.prop_inherit(io, r, prop, typed.has('S'))
                .map_err(|e| cannot("inherit property for", &ds, &e))?;
        }
        pool.commit()?;
    }
    Ok(())
}
