//! `zpool clear`: goes on with a pool whose devices had failed.

use crate::args::Typed;
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use crate::{pools, state};

pub const USAGE: &str = "clear <pool>";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[], USAGE)?;
    let name = match typed.operands.as_slice() {
        [name] => name,
        [] => return Err(Fail::usage("missing pool name", USAGE)),
        _ => return Err(Fail::usage("too many arguments", USAGE)),
    };
    let Some(record) = state::find(name)? else {
        return Err(Fail::new(format!("cannot open '{name}': no such pool")));
    };
    let fail = |f: Fail| Fail::new(format!("cannot clear errors for {name}: {}", f.message));
    if !pools::clear(&record).map_err(fail)? {
        // Nothing had failed: at least it must open.
        session::open_record(&record, For::Read).map_err(fail)?;
    }
    Ok(())
}
