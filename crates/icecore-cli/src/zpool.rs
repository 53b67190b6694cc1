//! The `zpool` command.

mod add;
mod clear;
mod create;
mod errors;
mod export;
mod get;
mod history;
mod import;
mod import_list;
mod json;
mod labelclear;
mod list;
mod mirror;
mod reguid;
mod salvage;
mod scrub;
mod set;
mod status;
mod status_json;
mod sync;
mod upgrade;
mod vdevs;

use crate::args::Typed;
use crate::commands::{Absent, Command};
use crate::fail::{Fail, Outcome};

pub use export::export;

const COMMANDS: &[Command] = &[
    (&["create"], create::run, create::USAGE),
    (&["add"], add::run, add::USAGE),
    (&["clear"], clear::run, clear::USAGE),
    (&["labelclear"], labelclear::run, labelclear::USAGE),
    (&["list"], list::run, list::USAGE),
    (&["status"], status::run, status::USAGE),
    (&["import"], import::run, import::USAGE),
    (&["export"], export::run, export::USAGE),
    (&["destroy"], export::destroy, export::DESTROY_USAGE),
    (&["get"], get::run, get::USAGE),
    (&["set"], set::run, set::USAGE),
    (&["history"], history::run, history::USAGE),
    (&["sync"], sync::run, sync::USAGE),
    (&["attach"], mirror::attach, mirror::ATTACH_USAGE),
    (&["detach"], mirror::detach, mirror::DETACH_USAGE),
    (&["replace"], mirror::replace, mirror::REPLACE_USAGE),
    (&["offline"], mirror::offline, mirror::OFFLINE_USAGE),
    (&["online"], mirror::online, mirror::ONLINE_USAGE),
    (&["scrub"], scrub::run, scrub::USAGE),
    (&["reguid"], reguid::run, reguid::USAGE),
    (&["upgrade"], upgrade::run, upgrade::USAGE),
    (&["wait"], scrub::wait, scrub::WAIT_USAGE),
    (&["version"], crate::version, "version [-j]"),
];

/// What OpenZFS has besides.
const ABSENT: &[Absent] = &[
    (&["events"], "no events are kept; 'zpool status' and 'zpool history -i' tell what happened"),
    (&["iostat"], "I/O is not counted by pool"),
    (&["reopen"], "'zpool clear' opens the devices of a suspended pool again"),
    (&["resilver"], "a side of a mirror that lacks something is resilvered without being told to"),
    (&["trim", "initialize"], "free space is not written to"),
    (&["checkpoint"], "pools with a checkpoint are only read"),
    (&["remove"], "vdevs stay in their pool; 'zpool detach' takes sides of mirrors out"),
    (&["split"], "'zpool detach' takes sides of mirrors out; to copy a pool use 'icecore sync'"),
    (&["prefetch", "ddtprune"], "pools with deduplicated blocks are only read"),
];

/// What `-T` puts before all else: the time, as a date or in seconds (`print_timestamp`, statcommon.c).
fn timestamp(typed: &Typed, usage: &str) -> Outcome {
    let now = icecore_env::Env::os().clock.now();
    match typed.value('T') {
        None => {}
        Some("u") => println!("{now}"),
        Some("d") => println!("{}", crate::human::time_with_seconds(now)),
        Some(_) => return Err(Fail::usage("invalid argument for 'T' option", usage)),
    }
    Ok(())
}

/// Runs `zpool ARGS`.
pub fn run(args: &[String]) -> Outcome {
    crate::commands::run("zpool", COMMANDS, ABSENT, args)
}
