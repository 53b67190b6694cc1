//! The `zpool` command.

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

use crate::commands::Command;
use crate::fail::Outcome;

pub use export::export;

const COMMANDS: &[Command] = &[
    (&["create"], create::run, create::USAGE),
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

/// Runs `zpool ARGS`.
pub fn run(args: &[String]) -> Outcome {
    crate::commands::run("zpool", COMMANDS, args)
}
