//! `zpool clear`: goes on with a pool or devices that had failed, and counts errors anew.

use crate::args::Typed;
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use crate::{pools, state};

pub const USAGE: &str = "clear <pool> [device]";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[], USAGE)?;
    let (name, device) = match typed.operands.as_slice() {
        [name] => (name, None),
        [name, device] => (name, Some(device)),
        [] => return Err(Fail::usage("missing pool name", USAGE)),
        _ => return Err(Fail::usage("too many arguments", USAGE)),
    };
    let record = state::named(name)?;
    let fail = |f: Fail| Fail::new(format!("cannot clear errors for {name}: {}", f.message));
    pools::clear(&record).map_err(fail)?;
    let what_for = if record.readonly { For::Read } else { For::Write };
    let mut pool = session::open_record(&record, what_for).map_err(fail)?;
    super::mirror::bring_back(&mut pool).map_err(fail)?;
    let vdevs = pool.io().vdevs();
    if let Some(device) = device {
        let only = super::mirror::leaf(&pool, device);
        let Some(only) = vdevs.leaves().iter().find(|l| Some(l.guid) == only) else {
            return Err(Fail::new(format!("cannot clear errors for {device}: no such device in pool")));
        };
        only.counts().reset();
        return Ok(());
    }
    vdevs.leaves().iter().for_each(|l| l.counts().reset());
    vdevs.tops().iter().for_each(|t| t.counts().reset());
    Ok(())
}
