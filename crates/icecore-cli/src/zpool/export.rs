//! `zpool export`.

use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::pools;
use crate::session::{self, For, NotOpen, Why};
use crate::state;
use icecore_env::Access;

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
    let force = typed.has('f');
    // One that cannot be exported does not keep the others.
    let failed: Vec<String> = names
        .iter()
        .filter_map(|n| if force { abandon(n) } else { export(n) }.err())
        .map(|f| f.message)
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(Fail::new(failed.join("\n"))) }
}

/// Exports `name`: everything is on its devices and says so; then it is forgotten here.
pub fn export(name: &str) -> Outcome {
    let Some(record) = state::find(name)? else {
        return Err(Fail::new(format!("cannot open '{name}': no such pool")));
    };
    if !record.readonly {
        let refused = |n: NotOpen| {
            let hint = match n.why {
                Why::Busy => String::new(),
                _ => format!("\nif they are gone for good, 'zpool export -f {name}' forgets the pool"),
            };
            Fail::new(format!("cannot export '{name}': {}{hint}", n.fail.message))
        };
        if pools::serving() {
            pools::get(&record).map_err(refused)?;
            let fail = |f: Fail| Fail::new(format!("cannot export '{name}': {}", f.message));
            pools::export(&record).map_err(fail)?;
        } else {
            let pool = session::open_alone(&record, Access::Exclusive, For::Write).map_err(refused)?;
            pool.export().map_err(|e| Fail::new(format!("cannot export '{name}': {e}")))?;
        }
    }
    state::forget(name)
}

/// The same, but a pool whose devices are gone or cannot be used is forgotten all the same. One that another command
/// holds is not: that command would go on writing.
fn abandon(name: &str) -> Outcome {
    let Some(record) = state::find(name)? else {
        return Err(Fail::new(format!("cannot open '{name}': no such pool")));
    };
    match session::try_open(&record, if record.readonly { For::Read } else { For::Write }) {
        Ok(pool) => {
            drop(pool);
            export(name)
        }
        Err(n) if n.why == Why::Busy => Err(Fail::new(format!("cannot export '{name}': {}", n.fail.message))),
        Err(n) => {
            state::forget(name)?;
            pools::forget(name);
            eprintln!("'{name}' is forgotten here, but could not be exported: {}", n.fail.message);
            if !record.readonly {
                eprintln!(
                    "its devices still say that it is in use by this system: elsewhere, 'zpool import -f {name}' takes it"
                );
            }
            Ok(())
        }
    }
}
