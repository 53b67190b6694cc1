//! `icecore mount` and `icecore unmount`: the files of a dataset or snapshot where every program finds them.
//!
//! Without `-f` the mount is served by a process of its own, which ends when it is unmounted and holds the pool for
//! reading until then.

use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::keys::{Ask, How, unlock};
use crate::session::{self, For};
use icecore_fuse::{Options, What};
use icecore_pool::Shared;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub const MOUNT_USAGE: &str = "mount [-fr] POOL[/FS[@SNAP]] DIR";
pub const UNMOUNT_USAGE: &str = "unmount [-f] DIR ...";
/// What the process in the background says on standard output when the mount is there.
const READY: &str = "mounted";

/// `icecore mount`.
pub fn mount(args: &[String]) -> Outcome {
    let known = [flag('f', "foreground"), flag('r', "recursive"), flag('B', "background")];
    let typed = Typed::parse(args, &known, MOUNT_USAGE)?;
    let [name, dir] = typed.operands.as_slice() else {
        return Err(Fail::usage("a dataset or snapshot and a directory are needed", MOUNT_USAGE));
    };
    if !typed.has('f') && !typed.has('B') {
        return in_background(args);
    }
    let dir = std::path::absolute(dir)?;
    let cannot = |why: &dyn std::fmt::Display| Fail::new(format!("cannot mount '{name}': {why}"));
    let mut pool = session::open(name, For::Read)?;
    pool.dsl.lookup_dataset(pool.io(), name).map_err(|e| crate::zfs::cannot("open", name, &e))?;
    let how = How { location: None, ask: Ask::Input, ..How::default() };
    unlock(&mut pool, name, how).map_err(|f| Fail { message: cannot(&f.message).message, ..f })?;
    let what = if typed.has('r') { What::Tree(name.clone()) } else { What::Dataset(name.clone()) };
    let Some(pool) = pool.into_own() else {
        return Err(cannot(
            &"the pool is imported for writing (mounts are of pools imported with -o readonly=on)",
        ));
    };
    let mounted = icecore_fuse::mount(Shared::new(pool), &what, &dir, &Options::default());
    let mounted = mounted.map_err(|e| cannot(&e))?;
    if typed.has('B') {
        leave_terminal()?;
    }
    Ok(mounted.wait()?)
}

/// Runs this command again as a process that stays, and waits until it has mounted or failed.
fn in_background(args: &[String]) -> Outcome {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["mount", "-B"])
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| Fail::new(format!("cannot start the process of the mount: {e}")))?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    if line.trim_end() == READY {
        return Ok(());
    }
    // It said why on standard error.
    Err(Fail::said(child.wait()?.code().unwrap_or(1)))
}

/// Tells who started us that the mount is there, and lets go of terminal and pipes.
fn leave_terminal() -> Outcome {
    let lost = |e: rustix::io::Errno| Fail::new(format!("cannot leave the terminal: {e}"));
    // Fails for a leader of a process group, which is none of ours.
    let _ = rustix::process::setsid();
    let mut out = std::io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null).map_err(lost)?;
    rustix::stdio::dup2_stdout(&null).map_err(lost)?;
    rustix::stdio::dup2_stderr(&null).map_err(lost)
}

/// `icecore unmount`.
pub fn unmount(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('f', "force")], UNMOUNT_USAGE)?;
    if typed.operands.is_empty() {
        return Err(Fail::usage("missing directory", UNMOUNT_USAGE));
    }
    let mut failed = false;
    for dir in &typed.operands {
        let path = std::path::absolute(dir)?;
        let done = if is_ours(&path) {
            icecore_fuse::unmount(&path, typed.has('f')).map_err(|e| match e.kind() {
                std::io::ErrorKind::ResourceBusy => "pool or dataset is busy".to_string(),
                _ => e.to_string(),
            })
        } else {
            Err("not currently mounted".into())
        };
        if let Err(why) = done {
            eprintln!("cannot unmount '{dir}': {why}");
            failed = true;
        }
    }
    if failed { Err(Fail::said(1)) } else { Ok(()) }
}

/// Whether a mount of ours is on `dir`. Asks the kernel's table: a mount whose process is gone answers nothing itself.
pub fn is_ours(dir: &Path) -> bool {
    let real = real_path(dir);
    icecore_fuse::table::all().iter().any(|l| icecore_fuse::stage::is_ours(&l.kind) && l.dir == real)
}

/// The path with links resolved in all but its last part, which may be a dead mount.
pub fn real_path(dir: &Path) -> PathBuf {
    match (dir.parent().and_then(|p| p.canonicalize().ok()), dir.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => dir.to_path_buf(),
    }
}
