//! `zfs promote` (`zfs_do_promote`, zfs_main.c; `zfs_promote`, libzfs_dataset.c).

use super::{Named, cannot};
use crate::args::Typed;
use crate::fail::{Fail, Outcome};
use crate::session::For;
use icecore_dsl::DslError;

pub const USAGE: &str = "promote <clone-filesystem>";

pub fn run(args: &[String]) -> Outcome {
    // No options are looked for, not even their end (`zfs_do_promote`).
    if let Some(option) = args.first().and_then(|word| word.strip_prefix('-')) {
        return Err(Fail::usage(format!("invalid option '{}'", option.chars().next().unwrap_or(' ')), USAGE));
    }
    let typed = Typed::parse(args, &[], USAGE)?;
    let [name] = typed.operands.as_slice() else {
        let what = if typed.operands.is_empty() {
            "missing clone filesystem argument"
        } else {
            "too many arguments"
        };
        return Err(Fail::usage(what, USAGE));
    };
    let mut pool = super::open(name, Named::Dataset, For::Write)?;
    let (io, dsl) = pool.parts();
    let head = dsl.lookup_head(io, name).map_err(|e| cannot("open", name, &e))?;
    let origin = dsl.dir(io, head.dir)?.origin_obj;
    if name.contains('%') && dsl.is_clone(&dsl.dir(io, head.dir)?) {
        return Err(Fail::new(format!("cannot promote '{name}': invalid character % in name")));
    }
    dsl.promote(io, name).map_err(|e| match e {
        DslError::Conflict(names) => {
            let parent = dsl.by_object(io, origin).and_then(|o| dsl.name(io, o)).unwrap_or_default();
            let first = names.first().map_or("", String::as_str);
            Fail::new(format!(
                "cannot promote '{name}': conflicting snapshot '{first}' from parent '{parent}'"
            ))
        }
        e => cannot("promote", name, &e),
    })?;
    pool.commit()?;
    Ok(())
}
