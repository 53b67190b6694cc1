//! `zpool reguid` (`zpool_do_reguid`, zpool_main.c; `zpool_set_guid`, libzfs_pool.c).
//!
//! Between the commit and the note of it in the state folder a crash leaves a pool that is to be imported again.

use crate::args::{Typed, value};
use crate::fail::{Fail, Outcome};
use crate::pools;
use crate::session::{self, For};
use crate::state::{self, Imported};
use icecore_env::Env;
use icecore_format::Guid;

pub const USAGE: &str = "reguid [-g guid] <pool>";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse_plain(args, &[value('g', "")], USAGE)?;
    let asked = match typed.value('g').map(|text| (text, text.parse::<u64>())) {
        None => None,
        Some((_, Ok(guid))) => Some(guid),
        // As `strtoull` reads it, nothing is none.
        Some(("", _)) => Some(0),
        Some((text, Err(_))) => return Err(Fail::usage(format!("invalid GUID: {text}"), USAGE)),
    };
    let name = match typed.operands.as_slice() {
        [name] => name,
        [] => return Err(Fail::usage("missing pool name", USAGE)),
        _ => return Err(Fail::usage("too many arguments", USAGE)),
    };
    let record = state::named(name)?;
    reguid(&record, asked).map_err(|f| Fail::new(format!("cannot reguid '{name}': {}", f.message)).negative())
}

fn reguid(record: &Imported, asked: Option<u64>) -> Outcome {
    if asked == Some(0) {
        return Err(Fail::new("invalid argument for this pool operation"));
    }
    let guid = asked.unwrap_or_else(|| Env::os().entropy.guid());
    if state::all()?.iter().any(|other| other.guid == guid) {
        return Err(Fail::new("pool already exists"));
    }
    let renamed = Imported { guid, ..record.clone() };
    if pools::serving() && !record.readonly {
        pools::reguid(record, Guid(guid))?;
        return state::remember(&renamed);
    }
    let mut pool = session::open_record(record, For::Write)?;
    pool.set_guid(Guid(guid))?;
    pool.commit()?;
    state::remember(&renamed)
}
