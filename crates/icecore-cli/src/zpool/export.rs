//! `zpool export` and `zpool destroy`.

use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::pools;
use crate::session::{self, For, NotOpen, Why};
use crate::state::{self, Imported};
use icecore_env::Access;
use icecore_format::Txg;
use icecore_pool::Pool;

pub const USAGE: &str = "export [-af] <pool> ...";
pub const DESTROY_USAGE: &str = "destroy [-f] <pool>";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('a', ""), flag('f', "")], USAGE)?;
    let names: Vec<String> = if typed.has('a') {
        state::all()?.into_iter().map(|p| p.name).collect()
    } else {
        typed.operands.clone()
    };
    if typed.has('a') && !typed.operands.is_empty() {
        return Err(Fail::usage("too many arguments", USAGE));
    }
    if names.is_empty() && !typed.has('a') {
        return Err(Fail::usage("missing pool argument", USAGE));
    }
    let force = typed.has('f');
    // One that cannot be exported does not keep the others.
    let failed: Vec<String> = names
        .iter()
        .filter_map(|n| if force { abandon(n) } else { export(n, false) }.err())
        .map(|f| f.message)
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(Fail::new(failed.join("\n"))) }
}

/// Exports `name`: everything is on its devices and says so; then it is forgotten here.
pub fn export(name: &str, force: bool) -> Outcome {
    leave(name, "export", pools::export, Pool::mark_exported, force)
}

/// `zpool destroy` (`zpool_do_destroy`, zpool_main.c): the labels say that the pool is destroyed. Its blocks stay.
pub fn destroy(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('f', "")], DESTROY_USAGE)?;
    let name = match typed.operands.as_slice() {
        [name] => name,
        [] => return Err(Fail::usage("missing pool argument", DESTROY_USAGE)),
        _ => return Err(Fail::usage("too many arguments", DESTROY_USAGE)),
    };
    let there = state::named(name).map_err(|f| match name.contains('/') {
        true => Fail::new(format!("{}\nuse 'zfs destroy' to destroy a dataset", f.message)),
        false => f,
    })?;
    if there.readonly {
        return Err(Fail::new(format!("cannot destroy '{name}': one or more devices is read only")));
    }
    // What is in use stays, with `-f` too, as on Linux.
    leave(name, "destroy", pools::destroy, Pool::mark_destroyed, false).map_err(|f| {
        match f.message.starts_with("cannot unmount") {
            true => {
                Fail::new(format!("{}\ncould not destroy '{name}': could not unmount datasets", f.message))
            }
            false => f,
        }
    })
}

/// Marks the pool on its devices and forgets it here.
fn leave(
    name: &str,
    verb: &str,
    owned: fn(&Imported, bool) -> Outcome,
    alone: fn(&mut Pool) -> icecore_pool::Result<Txg>,
    force: bool,
) -> Outcome {
    let record = state::named(name)?;
    if pools::serving() || !record.readonly {
        let refused = |n: NotOpen| {
            let hint = match n.why {
                Why::Busy => String::new(),
                _ => format!("\nif they are gone for good, 'zpool export -f {name}' forgets the pool"),
            };
            Fail::new(format!("cannot {verb} '{name}': {}{hint}", n.fail.message))
        };
        if pools::serving() {
            if !record.readonly {
                pools::get(&record).map_err(refused)?;
            }
            let fail = |f: Fail| match f.message.starts_with("cannot unmount") {
                true => f,
                false => Fail::new(format!("cannot {verb} '{name}': {}", f.message)),
            };
            owned(&record, force).map_err(fail)?;
        } else {
            let mut pool = session::open_alone(&record, Access::Exclusive, For::Write).map_err(refused)?;
            pool.note_command(crate::caller::command_line());
            alone(&mut pool).map_err(|e| Fail::new(format!("cannot {verb} '{name}': {e}")))?;
        }
    }
    state::forget(name)
}

/// The same, but a pool whose devices are gone or cannot be used is forgotten all the same. One that another command
/// holds is not: that command would go on writing.
fn abandon(name: &str) -> Outcome {
    let record = state::named(name)?;
    let why = match session::try_open(&record, if record.readonly { For::Read } else { For::Write }) {
        Ok(pool) => {
            drop(pool);
            match export(name, true) {
                // They failed on the way.
                Err(f) if pools::is_failed(name) => {
                    let cannot = format!("cannot export '{name}': ");
                    Fail::new(f.message.strip_prefix(&cannot).unwrap_or(&f.message))
                }
                done => return done,
            }
        }
        Err(n) if n.why == Why::Busy => {
            return Err(Fail::new(format!("cannot export '{name}': {}", n.fail.message)));
        }
        Err(n) => n.fail,
    };
    state::forget(name)?;
    let unmounted = pools::abandon(name);
    eprintln!("'{name}' is forgotten here, but could not be exported: {}", why.message);
    if !record.readonly {
        eprintln!(
            "its devices still say that it is in use by this system: elsewhere, 'zpool import -f {name}' takes it"
        );
    }
    unmounted
}
