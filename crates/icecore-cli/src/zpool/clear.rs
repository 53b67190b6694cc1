//! `zpool clear`: goes on with a pool or devices that had failed, and counts errors anew (`zpool_do_clear`, zpool_main.c).

use super::import;
use super::mirror::{self, POWER};
use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use crate::state::Imported;
use crate::{pools, state};

pub const USAGE: &str = "clear [-F [-nX]] <pool> [device]";

pub fn run(args: &[String]) -> Outcome {
    let known = [flag('F', ""), flag('n', ""), flag('X', ""), flag(POWER, "power")];
    let typed = Typed::parse_plain(args, &known, USAGE)?;
    let (name, device) = match typed.operands.as_slice() {
        [name] => (name, None),
        [name, device] => (name, Some(device)),
        [] => return Err(Fail::usage("missing pool name", USAGE)),
        _ => return Err(Fail::usage("too many arguments", USAGE)),
    };
    if (typed.has('n') || typed.has('X')) && !typed.has('F') {
        return Err(Fail::usage("-n or -X only meaningful with -F", USAGE));
    }
    let record = state::named(name)?;
    let fail = |f: Fail| Fail::new(format!("cannot clear errors for {name}: {}", f.message));
    let what_for = if record.readonly { For::Read } else { For::Write };
    let opened = pools::clear(&record).and_then(|_| session::open_record(&record, what_for));
    let mut pool = match opened {
        Ok(pool) => pool,
        Err(f) if typed.has('F') => return back(&record, typed.has('n'), f).map_err(fail),
        Err(f) => return Err(fail(f)),
    };
    mirror::bring_back(&mut pool).map_err(fail)?;
    let vdevs = pool.io().vdevs();
    if let Some(device) = device {
        let only = mirror::leaf(&pool, device);
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

/// A pool that does not open as it was left (`why`) is taken as it was earlier, as by `zpool import -F`: for reading only, since
/// what came later is still on its devices.
fn back(record: &Imported, dry: bool, why: Fail) -> Outcome {
    let Some((pool, at)) = import::earlier(record)? else { return Err(why) };
    if dry {
        import::would_return(&pool);
        return Ok(());
    }
    drop(pool);
    pools::forget(&record.name);
    state::remember(&Imported { readonly: true, max_txg: Some(at.0), ..record.clone() })
}
