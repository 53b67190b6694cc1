//! `zpool export`.

use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use crate::state;

pub const USAGE: &str = "export [-af] <pool> ...";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('a', ""), flag('f', "")], USAGE)?;
    let names: Vec<String> = if typed.has('a') {
        state::all()?.into_iter().map(|p| p.name).collect()
    } else {
        typed.operands.clone()
    };
    if names.is_empty() && !typed.has('a') {
        return Err(Fail::usage("missing pool argument", USAGE));
    }
    names.iter().try_for_each(|n| export(n))
}

/// Exports `name`: everything is on its devices and says so; then it is forgotten here.
pub fn export(name: &str) -> Outcome {
    let Some(record) = state::find(name)? else {
        return Err(Fail::new(format!("cannot open '{name}': no such pool")));
    };
    if !record.readonly {
        let pool = session::open_record(&record, For::Write)
            .map_err(|f| Fail::new(format!("cannot export '{name}': {}", f.message)))?;
        pool.export().map_err(|e| Fail::new(format!("cannot export '{name}': {e}")))?;
    }
    state::forget(name)
}
