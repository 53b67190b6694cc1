//! `zfs bookmark`.

use super::Named;
use crate::args::Typed;
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use icecore_dsl::DslError;

pub const USAGE: &str = "bookmark <snapshot|bookmark> <newbookmark>";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[], USAGE)?;
    // Words may follow: nobody reads them (`zfs_do_bookmark`).
    let [source, new, ..] = typed.operands.as_slice() else {
        let what =
            if typed.operands.is_empty() { "missing source argument" } else { "missing bookmark argument" };
        return Err(Fail::usage(what, USAGE));
    };
    if !source.contains(['@', '#']) {
        return Err(Fail::usage(format!("invalid source name '{source}': must contain a '@' or '#'"), USAGE));
    }
    if !new.contains('#') {
        return Err(Fail::usage(format!("invalid bookmark name '{new}': must contain a '#'"), USAGE));
    }
    // Either may be given without its dataset, which is then the other's.
    let path = |full: &str| full.split(['@', '#']).next().unwrap_or("").to_string();
    let (source, new) = match (source.starts_with(['@', '#']), new.starts_with('#')) {
        (true, true) => {
            let what = "either source or bookmark must be specified as full dataset paths";
            return Err(Fail::usage(what, USAGE));
        }
        (true, false) => (format!("{}{source}", path(new)), new.clone()),
        (false, true) => (source.clone(), format!("{}{new}", path(source))),
        (false, false) => (source.clone(), new.clone()),
    };
    let missing = |f: Fail| Fail::usage(f.message, USAGE);
    let wanted = if source.contains('@') { Named::Snapshot } else { Named::Any };
    let mut pool = super::open(&source, wanted, For::Write).map_err(missing)?;
    let (io, dsl) = pool.parts();
    dsl.lookup(io, &source).map_err(|e| missing(super::cannot("open", &source, &e)))?;
    if super::may_name(&new, Named::Any).is_err() {
        return Err(Fail::new(format!("cannot create bookmark '{new}': invalid argument")));
    }
    if session::pool_of(&source) != session::pool_of(&new) {
        let why = match crate::state::find(session::pool_of(&new))? {
            Some(_) => "bookmark is in a different pool",
            None => "dataset does not exist",
        };
        return Err(Fail::new(format!("cannot create bookmark '{new}': {why}")));
    }
    dsl.bookmark_create(io, &new, &source).map_err(|e| match e {
        DslError::Exists(_) => Fail::new(format!("cannot create bookmark '{new}': bookmark exists")),
        DslError::Name(_) => Fail::new(format!("cannot create bookmark '{new}': invalid argument")),
        e => super::cannot("create bookmark", &new, &e),
    })?;
    pool.commit()?;
    Ok(())
}
