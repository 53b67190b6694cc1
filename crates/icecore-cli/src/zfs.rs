//! The `zfs` command.

mod bookmark;
mod clone;
mod create;
mod destroy;
mod diff;
mod get;
mod hold;
mod key;
mod list;
pub mod mount;
mod promote;
mod receive;
mod rename;
mod rollback;
mod select;
mod send;
mod set;
mod snapshot;
mod upgrade;
mod userspace;

use crate::commands::Command;
use crate::fail::{Fail, Outcome};
use icecore_dsl::{DslError, KeyError};

pub use key::load_below as load_keys;
pub use receive::{Stream as Kind, explain_stream as explain_receive, token_of};
pub use send::explain as explain_send;
pub use set::split;

/// Names, what runs, and the usage line of each.
const COMMANDS: &[Command] = &[
    (&["create"], create::run, create::USAGE),
    (&["destroy"], destroy::run, destroy::USAGE),
    (&["snapshot", "snap"], snapshot::run, snapshot::USAGE),
    (&["rollback"], rollback::run, rollback::USAGE),
    (&["clone"], clone::run, clone::USAGE),
    (&["promote"], promote::run, promote::USAGE),
    (&["rename"], rename::run, rename::USAGE),
    (&["bookmark"], bookmark::run, bookmark::USAGE),
    (&["list"], list::run, list::USAGE),
    (&["get"], get::run, get::USAGE),
    (&["diff"], diff::run, diff::USAGE),
    (&["set"], set::run, set::USAGE),
    (&["inherit"], set::inherit, set::INHERIT_USAGE),
    (&["send"], send::run, send::USAGE),
    (&["receive", "recv"], receive::run, receive::USAGE),
    (&["hold"], hold::hold, hold::HOLD_USAGE),
    (&["holds"], hold::holds, hold::HOLDS_USAGE),
    (&["release"], hold::release, hold::RELEASE_USAGE),
    (&["load-key"], key::load, key::LOAD_USAGE),
    (&["unload-key"], key::unload, key::UNLOAD_USAGE),
    (&["change-key"], key::change, key::CHANGE_USAGE),
    (&["mount"], mount::run, mount::USAGE),
    (&["unmount", "umount"], mount::unmount, mount::UNMOUNT_USAGE),
    (&["upgrade"], upgrade::run, upgrade::USAGE),
    (&["userspace"], userspace::users, userspace::USER_USAGE),
    (&["groupspace"], userspace::groups, userspace::GROUP_USAGE),
    (&["projectspace"], userspace::projects, userspace::PROJECT_USAGE),
    (&["version"], crate::version, "version [-j]"),
];

/// Runs `zfs ARGS`.
pub fn run(args: &[String]) -> Outcome {
    crate::commands::run("zfs", COMMANDS, args)
}

/// The reason in OpenZFS's words (`zfs_standard_error`, libzfs_util.c).
pub fn reason(e: &DslError) -> String {
    match e {
        DslError::NotFound(_) => "dataset does not exist".into(),
        DslError::Exists(_) => "dataset already exists".into(),
        DslError::Busy(why) if why.is_empty() => "dataset is busy".into(),
        DslError::Busy(why) => format!("dataset is busy: {why}"),
        DslError::NoSpace | DslError::Quota => "out of space".into(),
        DslError::Key(KeyError::NotLoaded(_)) => "encryption key not loaded".into(),
        other => other.to_string(),
    }
}

/// The name of a snapshot or bookmark where a file system or volume is wanted (`zfs_validate_name`,
/// libzfs_dataset.c).
pub fn not_a_dataset(name: &str) -> Fail {
    let (what, mark) = if name.contains('@') { ("snapshot", '@') } else { ("bookmark", '#') };
    Fail::new(format!("cannot open '{name}': {what} delimiter '{mark}' is not expected here"))
}

/// The name of something else where a snapshot is wanted (`zfs_validate_name`, libzfs_dataset.c).
pub fn not_a_snapshot(name: &str) -> Fail {
    Fail::new(format!("cannot open '{name}': missing '@' delimiter in snapshot name"))
}

/// Why a user may not give something this name, though OpenZFS itself may (`zfs_validate_name` when modifying,
/// libzfs_dataset.c): names with `%` are its own.
pub fn may_name(name: &str) -> Result<(), String> {
    icecore_dsl::name::check(name).map_err(|e| e.to_string())?;
    if name.contains('%') { Err("invalid character % in name".into()) } else { Ok(()) }
}

/// `cannot VERB 'NAME': REASON`.
pub fn cannot(verb: &str, name: &str, e: &DslError) -> Fail {
    Fail::new(format!("cannot {verb} '{name}': {}", reason(e)))
}

/// A value of a resume token as `zfs send -nvt` prints it.
fn token_value(v: &icecore_format::nvlist::NvValue) -> String {
    use icecore_format::nvlist::NvValue as V;
    match v {
        V::U64(n) => format!("{n:#x}"),
        V::Str(s) => s.to_string(),
        V::Flag => "1".into(),
        other => format!("{other:?}"),
    }
}
