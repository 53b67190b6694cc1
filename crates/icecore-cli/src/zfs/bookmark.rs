//! `zfs bookmark`.

use crate::args::Typed;
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use icecore_dsl::DslError;

pub const USAGE: &str = "bookmark <snapshot|bookmark> <newbookmark>";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[], USAGE)?;
    let [source, new] = typed.operands.as_slice() else {
        return Err(Fail::usage("missing source or bookmark argument", USAGE));
    };
    // Either may be given without its dataset, which is then the other's (`zfs_do_bookmark`).
    let path = |full: &str| full.split(['@', '#']).next().unwrap_or("").to_string();
    let source =
        if source.starts_with(['@', '#']) { format!("{}{source}", path(new)) } else { source.clone() };
    let new = if new.starts_with('#') { format!("{}{new}", path(&source)) } else { new.clone() };
    if !new.contains('#') {
        return Err(Fail::usage(format!("invalid bookmark name '{new}': must contain a '#'"), USAGE));
    }
    if !source.contains(['@', '#']) {
        return Err(Fail::usage(format!("invalid source name '{source}': must contain a '@' or '#'"), USAGE));
    }
    let mut pool = session::open(&source, For::Write)?;
    let (io, dsl) = pool.parts();
    dsl.lookup(io, &source).map_err(|e| Fail::usage(super::cannot("open", &source, &e).message, USAGE))?;
    dsl.bookmark_create(io, &new, &source).map_err(|e| match e {
        DslError::Exists(_) => Fail::new(format!("cannot create bookmark '{new}': bookmark exists")),
        e => super::cannot("create bookmark", &new, &e),
    })?;
    pool.commit()?;
    Ok(())
}
