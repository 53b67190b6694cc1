//! Files of file systems in a pool: `icecore ls`, `cat`, `cp`, `find` and `du`, and into one `mkdir`, `rm`, `cp` and
//! `import-tree`. Nothing is mounted.

mod cat;
mod copy_in;
mod cp;
mod dest;
mod du;
mod find;
mod image;
mod ls;
pub mod out;
mod place;
mod put;
mod xattrs;

use crate::commands::Command;

/// The commands, for `main`.
pub const COMMANDS: &[Command] = &[
    (&["ls"], ls::run, ls::USAGE),
    (&["cat"], cat::run, cat::USAGE),
    (&["cp"], cp::run, cp::USAGE),
    (&["find"], find::run, find::USAGE),
    (&["du"], du::run, du::USAGE),
    (&["mkdir"], put::mkdir, put::MKDIR_USAGE),
    (&["rm"], put::rm, put::RM_USAGE),
    (&["import-tree"], put::import_tree, put::IMPORT_USAGE),
];

/// Runs `COMMAND ARGS` if it is one of these.
pub fn run(command: &str, args: &[String]) -> Option<crate::fail::Outcome> {
    let (_, run, usage) = COMMANDS.iter().find(|(names, ..)| names.contains(&command))?;
    if matches!(args, [only] if only == "--help" || only == "-?") {
        println!("usage:\n\ticecore {usage}");
        return Some(Ok(()));
    }
    Some(run(args))
}
