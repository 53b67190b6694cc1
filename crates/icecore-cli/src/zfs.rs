//! The `zfs` command.

mod bookmark;
mod clone;
mod create;
mod destroy;
mod diff;
mod get;
mod heal;
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

use crate::commands::{Absent, Command};
use crate::fail::{Fail, Outcome, USAGE};
use crate::session::{self, For, Open};
use icecore_dsl::prop::table;
use icecore_dsl::{DslError, KeyError};
use icecore_pool::Pool;
use std::fmt::Write;

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

/// What OpenZFS has besides.
const ABSENT: &[Absent] = &[
    (
        &["allow", "unallow"],
        "rights are not delegated; who may open a pool's devices may do everything with it",
    ),
    (&["share", "unshare"], "no server is told of file systems; use exports(5) or smb.conf(5)"),
    (&["program"], "no programs are run within a transaction; give the commands one by one"),
    (&["redact"], "snapshots are sent whole"),
    (&["project"], "projects are inherited, not set; 'zfs projectspace' shows them"),
    (&["wait"], "nothing is deleted in the background, so there is nothing to wait for"),
    (&["jail", "unjail", "zone", "unzone"], "there are no zones"),
    (&["rewrite"], "files are not rewritten in place; send and receive them"),
];

/// Runs `zfs ARGS`.
pub fn run(args: &[String]) -> Outcome {
    let done = crate::commands::run("zfs", COMMANDS, ABSENT, args);
    match (done, args) {
        // Who asks without a word wants to know what there is (`usage`, zfs_main.c).
        (Err(f), [only]) if f.status == USAGE && ["get", "set", "inherit"].contains(&only.as_str()) => {
            Err(Fail { message: format!("{}\n\n{}", f.message, properties()), ..f })
        }
        (done, _) => done,
    }
}

/// The native properties: which can be set and which are inherited, and their values.
fn properties() -> String {
    let mut all: Vec<_> = table::PROPS.iter().filter(|p| p.visible).collect();
    all.sort_by_key(|p| (!p.readonly(), p.name));
    let mut text = String::from("The following properties are supported:\n\n");
    let mut line = |name: &str, edit: &str, inherit: &str, values: &str| {
        let _ = writeln!(text, "\t{name:<24}{edit:<6}{inherit:<9}{values}");
    };
    let said = |yes: bool| if yes { "YES" } else { "NO" };
    line("PROPERTY", "EDIT", "INHERIT", "VALUES");
    for p in all {
        line(p.name, said(!p.readonly()), said(p.inheritable()), values_of(p));
    }
    for owner in ["user", "group", "project"] {
        for used in ["used", "objused"] {
            line(&format!("{owner}{used}@..."), "NO", "NO", "<size>");
        }
        for quota in ["quota", "objquota"] {
            line(&format!("{owner}{quota}@..."), "YES", "NO", "<size> | none");
        }
    }
    line("written@<snapshot>", "NO", "NO", "<size>");
    text.push_str("\nProperties of your own have a colon (:) in their names.");
    text
}

fn values_of(p: &table::Prop) -> &'static str {
    match (p.kind, p.name) {
        (table::Type::Index(..), name) => table::values(name),
        (_, "mountpoint") => "<path> | legacy | none",
        (_, "keylocation") => "prompt | file://<path> | http[s]://<address> | none",
        (_, "sharenfs" | "sharesmb") => "on | off | <options>",
        (table::Type::Bytes(_), "quota" | "refquota" | "reservation" | "refreservation") => "<size> | none",
        (table::Type::Bytes(_), _) => "<size>",
        (table::Type::Count(_), "filesystem_limit" | "snapshot_limit") => "<count> | none",
        (table::Type::Count(_), _) => "<number>",
        (table::Type::Text(_), _) => "<text>",
    }
}

/// The reason in OpenZFS's words (`zfs_standard_error`, libzfs_util.c).
pub fn reason(e: &DslError) -> String {
    match e {
        DslError::NotFound(name) if name.contains('#') => "no such pool or dataset".into(),
        DslError::NotFound(_) => "dataset does not exist".into(),
        DslError::Exists(_) => "dataset already exists".into(),
        DslError::Busy(why) if why.is_empty() => "dataset is busy".into(),
        DslError::Busy(why) => format!("dataset is busy: {why}"),
        DslError::NoSpace | DslError::Quota => "out of space".into(),
        DslError::Key(KeyError::NotLoaded(_)) => "encryption key not loaded".into(),
        other => other.to_string(),
    }
}

/// What a name may point to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Named {
    /// A file system or volume.
    Dataset,
    /// A snapshot.
    Snapshot,
    /// Either.
    NoBookmark,
    /// Anything.
    Any,
}

/// Whether `name` is one of what is wanted; if not, why not (`zfs_validate_name`, libzfs_dataset.c).
pub fn valid(name: &str, wanted: Named) -> Result<(), String> {
    delimiters(name, wanted)?;
    icecore_dsl::name::check(name).map_err(|e| e.to_string())
}

/// [`valid`] of what is to get this name: names with `%` are OpenZFS's own.
pub fn may_name(name: &str, wanted: Named) -> Result<(), String> {
    delimiters(name, wanted)?;
    if name.contains('%') {
        return Err("invalid character % in name".into());
    }
    valid(name, wanted)
}

fn delimiters(name: &str, wanted: Named) -> Result<(), String> {
    let why = match wanted {
        Named::Dataset if name.contains('@') => "snapshot delimiter '@' is not expected here",
        Named::Snapshot if !name.contains('@') => "missing '@' delimiter in snapshot name",
        Named::Dataset | Named::Snapshot | Named::NoBookmark if name.contains('#') => {
            "bookmark delimiter '#' is not expected here"
        }
        _ => return Ok(()),
    };
    Err(why.into())
}

/// Opens the pool of `name`, which has to be one of what is wanted.
pub fn open(name: &str, wanted: Named, what_for: For) -> Outcome<Open> {
    valid(name, wanted).map_err(|why| Fail::new(format!("cannot open '{name}': {why}")))?;
    session::open(name, what_for)
}

/// What is above the new dataset `name`, in a pool that is there (`check_parents`, libzfs_dataset.c).
pub fn parent_of(name: &str) -> Outcome<&str> {
    let (parent, _) = name.rsplit_once('/').ok_or_else(|| Fail::new("missing dataset name"))?;
    match crate::state::find(session::pool_of(name))? {
        Some(_) => Ok(parent),
        None => Err(Fail::new(format!("no such pool '{}'", session::pool_of(name)))),
    }
}

/// Whether something can be made below `parent` (`check_parents`, libzfs_dataset.c).
pub fn check_parent(pool: &Pool, parent: &str) -> Outcome {
    let Ok(above) = pool.dsl.lookup_head(pool.io(), parent) else {
        return Err(Fail::new("parent does not exist"));
    };
    match pool.dsl.kind(pool.io(), above)? {
        icecore_dsl::Kind::Filesystem => Ok(()),
        _ => Err(Fail::new("parent is not a filesystem")),
    }
}

/// Says of a property that only some pools make something of that this one does not (`zfs_valid_proplist`,
/// libzfs_dataset.c).
pub fn of_no_use(pool: &Pool, prop: &str, text: &str) {
    let active = || {
        let classes = icecore_dsl::Feature::by_name("allocation_classes")?;
        pool.dsl.feature_refcount(pool.io(), classes).ok()?.filter(|n| *n > 0)
    };
    let number = icecore_dsl::prop::size(text).is_ok();
    if prop == "special_small_blocks" && number && active().is_none() {
        eprintln!("{prop}: property requires a special device in the pool");
    }
}

/// What is there, but is not of the kind that is wanted.
pub fn wrong_kind(name: &str) -> Fail {
    Fail::new(format!("cannot open '{name}': operation not applicable to datasets of this type"))
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
