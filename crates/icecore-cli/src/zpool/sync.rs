//! `zpool sync` (`zpool_do_sync`, zpool_main.c): what was done so far is on the devices.
//!
//! Every command here commits before it ends, so there is nothing left to do but to look: a pool that cannot be had is
//! told.

use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use crate::state;

pub const USAGE: &str = "sync [-f] [pool] ...";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('f', "")], USAGE)?;
    let all = state::all()?;
    let mut failed = state::missing(&all, &typed.operands);
    for r in all.iter().filter(|r| !r.readonly) {
        if !typed.operands.is_empty() && !typed.operands.contains(&r.name) {
            continue;
        }
        let synced = session::open_record(r, For::Write).and_then(|mut pool| Ok(pool.commit()?));
        if let Err(f) = synced {
            failed.push(format!("sync '{}' failed: {}", r.name, f.message));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Fail::new(failed.join("\n"))) }
}
