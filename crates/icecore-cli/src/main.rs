//! The binary `icecore`. Called through a link named `zfs` or `zpool` it behaves as that command.

#[macro_use]
mod out;

mod args;
mod bar;
mod borrow;
mod caller;
mod commands;
mod demo;
mod engine;
mod fail;
mod files;
mod fuse;
mod human;
mod inspect;
mod keys;
mod limits;
mod mounts;
mod numbers;
mod pipe;
mod pools;
mod replay;
mod scan;
mod service;
mod session;
mod state;
mod stream;
mod sync;
mod table;
mod zfs;
mod zpool;

use fail::{Fail, Outcome, USAGE};
use icecore_service::wire::Tool;
use std::process::ExitCode;

const USAGE_TEXT: &str = "usage: icecore COMMAND ...

  icecore zpool ...       as zpool: create, import, export, list, status, get, labelclear
  icecore zfs ...         as zfs: list, get, set, snapshot, send, receive, destroy, ...
  icecore sync SRC DST    back up a dataset tree: snapshot, send raw, receive, read back
  icecore demo [DIR]      the whole story on file-backed drives, in under a minute
  icecore stream ...      verify and dump stream files, without a pool
  icecore inspect ...     labels, uberblocks, configuration, blocks and leaks of a pool
  icecore ls|cat|cp|find|du POOL/FS[@SNAP][:PATH]
                          files in a pool, without mounting it
  icecore mkdir|rm|cp|import-tree ... POOL/FS:PATH
                          files into a dataset of a pool; cp FILE POOL/VOLUME: an image into a volume
  icecore mount [-fr] POOL[/FS[@SNAP]] DIR
                          files in a pool, mounted for reading; -r with the file systems below,
                          -f served by this process. Ends with: icecore unmount DIR
  icecore service ...     status, stop: the process that owns the imported pools
  icecore version

Called through a link named zfs or zpool it behaves as that command; as /sbin/mount.zfs and
/sbin/mount.fuse.zfs it serves mount(8).
";

/// Names of links under which mount(8) calls it: for what is to be mounted, and for what is mounted already.
const HELPERS: [&str; 2] = ["mount.zfs", "mount.fuse.zfs"];

/// Characters of a command line that go into a pool's history (`HIS_MAX_RECORD_LEN` leaves room for more).
const HISTORY_LINE: usize = 1024;

fn main() -> ExitCode {
    let mut args = std::env::args_os().map(|a| a.to_string_lossy().into_owned());
    let name = args.next().unwrap_or_default();
    let mut args: Vec<String> = args.collect();
    let called = name.rsplit('/').next().unwrap_or("");
    if HELPERS.contains(&called) {
        args = zfs::mount::helper(args);
    }
    let tool = match called {
        "zfs" => Tool::Zfs,
        "zpool" => Tool::Zpool,
        helper if HELPERS.contains(&helper) => Tool::Zfs,
        _ => Tool::Icecore,
    };
    let outcome = match service::wanted(tool, &args) {
        Some(place) => service::call(&place, tool, &args),
        None => dispatch(tool, &args),
    };
    out::flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Fail { status, message }) => {
            if !message.is_empty() {
                eprintln!("{}", message.trim_end());
            }
            ExitCode::from(u8::try_from(status).unwrap_or(1))
        }
    }
}

/// Carries a command line out, in this process.
fn dispatch(tool: Tool, args: &[String]) -> Outcome {
    let (name, run): (_, fn(&[String]) -> Outcome) = match tool {
        Tool::Zfs => ("zfs", zfs::run),
        Tool::Zpool => ("zpool", zpool::run),
        Tool::Icecore => ("icecore", icecore),
    };
    // As `zfs_save_arguments` puts it together for the history (libzfs_util.c), and no longer than that.
    let line = std::iter::once(name).chain(args.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
    caller::as_command(line.chars().take(HISTORY_LINE).collect(), || run(args))
}

fn icecore(args: &[String]) -> Outcome {
    let Some((command, rest)) = args.split_first() else {
        return Err(Fail { status: USAGE, message: USAGE_TEXT.into() });
    };
    let help = rest.iter().take_while(|a| *a != "--").any(|a| matches!(a.as_str(), "--help" | "-h" | "-?"));
    match command.as_str() {
        "mount" if help => usage(&format!("usage:\n\ticecore {}\n", fuse::MOUNT_USAGE)),
        "unmount" | "umount" if help => usage(&format!("usage:\n\ticecore {}\n", fuse::UNMOUNT_USAGE)),
        "sync" if help => usage(sync::HELP),
        "demo" if help => usage(demo::HELP),
        "zfs" => zfs::run(rest),
        "zpool" => zpool::run(rest),
        "sync" => sync::run(rest),
        "stream" => stream::run(rest),
        "inspect" => inspect::run(rest),
        "demo" => demo::run(rest),
        "mount" => fuse::mount(rest),
        "unmount" | "umount" => fuse::unmount(rest),
        "service" => service::run(rest),
        "version" | "--version" | "-V" => version(rest),
        "help" | "--help" | "-h" => match rest.first().map(String::as_str) {
            Some("sync") => usage(sync::HELP),
            Some("demo") => usage(demo::HELP),
            _ => usage(USAGE_TEXT),
        },
        other => files::run(other, rest).unwrap_or_else(|| {
            Err(Fail { status: USAGE, message: format!("unrecognized command '{other}'\n{USAGE_TEXT}") })
        }),
    }
}

fn usage(text: &str) -> Outcome {
    print!("{text}");
    Ok(())
}

/// `version`: the first line begins as OpenZFS's does, since tools read a version of ZFS from it.
fn version(args: &[String]) -> Outcome {
    let known = [args::flag('j', "json"), args::flag('h', "help")];
    let typed = args::Typed::parse(args, &known, "version [-j]")?;
    if !typed.operands.is_empty() {
        return Err(Fail::usage("too many arguments", "version [-j]"));
    }
    if typed.has('j') {
        let command = caller::command_line()
            .map_or("zfs", |(l, _)| if l.starts_with("zpool") { "zpool" } else { "zfs" });
        let version =
            serde_json::json!({"command": format!("{command} version"), "vers_major": 0, "vers_minor": 1});
        let userland = format!("zfs-2.3.0-icecore-{}", env!("CARGO_PKG_VERSION"));
        // Tools read both; here they are one.
        let zfs = serde_json::json!({"userland": userland, "kernel": userland});
        println!("{}", serde_json::json!({"output_version": version, "zfs_version": zfs}));
        return Ok(());
    }
    println!("zfs-2.3.0-icecore-{}", env!("CARGO_PKG_VERSION"));
    println!("icecore-{}", env!("CARGO_PKG_VERSION"));
    Ok(())
}
