//! `zfs mount` and `zfs unmount` (`share_mount_one`, `unshare_unmount`, zfs_main.c; `zfs_mount_at`, `zfs_unmount`,
//! libzfs_mount.c).
//!
//! `-f` is taken and changes nothing: what is in use stays mounted, as it does on Linux (`do_unmount`, os/linux/libzfs_mount_os.c).

use super::Named;
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::keys::How as KeyHow;
use crate::mounts::{self, Home, How, Mount};
use crate::session::{self, For};
use crate::state;
use serde_json::json;
use std::path::Path;

pub const USAGE: &str = "mount [-j]\n\tmount [-flvO] [-o opts] <-a|-R filesystem|filesystem>";
pub const UNMOUNT_USAGE: &str = "unmount [-fu] <-a | filesystem|mountpoint>";

pub fn run(args: &[String]) -> Outcome {
    let known = [
        flag('a', ""),
        flag('R', ""),
        flag('v', ""),
        flag('O', ""),
        flag('l', ""),
        flag('f', ""),
        flag('j', "json"),
        value('o', ""),
        value('@', "at"),
    ];
    let typed = Typed::parse(args, &known, USAGE)?;
    if typed.values('o').any(str::is_empty) {
        return Err(Fail::usage("empty mount options (-o) specified", USAGE));
    }
    let how = match (how(&typed), typed.operands.as_slice()) {
        (Ok(how), _) => how,
        (Err(word), [name]) => {
            let why = format!("cannot mount '{name}': Invalid argument\n(there is no mount option '{word}')");
            return Err(Fail::new(why));
        }
        (Err(word), _) if typed.has('a') || typed.has('R') => {
            return Err(Fail::new(format!("invalid mount option '{word}'")));
        }
        // Refused for its operands.
        (Err(_), _) => How::default(),
    };
    match (typed.has('a'), typed.has('R'), typed.operands.as_slice()) {
        (true, _, []) => all(&typed, how),
        (true, ..) => Err(Fail::usage("too many arguments", USAGE)),
        (_, true, []) => Err(Fail::usage("no dataset provided", USAGE)),
        (_, true, names) => {
            let mut well = true;
            for name in names {
                well &= many(name, &typed, how)?;
            }
            if well { Ok(()) } else { Err(Fail::said(1)) }
        }
        (_, _, []) if typed.value('o').is_some() => {
            Err(Fail::usage("missing filesystem argument (specify -a for all)", USAGE))
        }
        (_, _, []) => list(typed.has('j')),
        (_, _, [_, _, ..]) => Err(Fail::usage("too many arguments", USAGE)),
        (_, _, [_]) if typed.has('j') => Err(Fail::usage("too many arguments", USAGE)),
        (_, _, [name]) => match typed.value('@') {
            Some(dir) => at(name, dir, &typed, how),
            None => one(name, &typed, how),
        },
    }
}

/// The words for [`run`] of a call as `mount.zfs [-fnsv] [-o OPTIONS] DATASET DIR`, which is how mount(8) asks; as `mount.fuse.zfs`, with
/// `-t TYPE` after that, when something is mounted already.
pub fn helper(args: Vec<String>) -> Vec<String> {
    let mut words = vec!["mount".to_string()];
    let mut operands = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-o" => words.extend(["-o".into(), args.next().unwrap_or_default()]),
            flag if flag.starts_with('-') => {}
            _ => operands.push(arg),
        }
    }
    let mut operands = operands.into_iter();
    let name = operands.next();
    // Without a directory there is nothing that could be mistaken for one.
    words.push(format!("--at={}", operands.next().unwrap_or_default()));
    words.extend(name);
    words
}

/// Whether what is mounted already is to be mounted otherwise.
fn remounts(typed: &Typed) -> bool {
    typed.values('o').any(|o| o.split(',').any(|w| w == "remount"))
}

/// Where mount(8) wants it: of a snapshot, or a file system whose mountpoint is `legacy` (`main`, mount_zfs.c).
fn at(name: &str, dir: &str, typed: &Typed, mut how: How) -> Outcome {
    let cannot = |why: &str| Fail::new(format!("cannot mount '{name}': {why}"));
    if !dir.starts_with('/') {
        return Err(cannot("there is no directory given"));
    }
    if remounts(typed) {
        let real = crate::fuse::real_path(Path::new(dir));
        let there = mounts::all().into_iter().find(|m| m.dir() == real && m.named().is_ok_and(|n| n == name));
        return there.ok_or_else(|| cannot("not currently mounted there"))?.remount(how.said);
    }
    // mount(8) says `rw` where nobody said anything.
    how.said.read_only = how.said.read_only.filter(|read_only| *read_only);
    let home = {
        let pool = session::open(name, For::Read)?;
        if name.contains('@') { mounts::snapshot(&pool, name)? } else { mounts::home(&pool, name)? }
    };
    let Some(home) = home else {
        return Err(Fail::new(format!("filesystem '{name}' cannot be mounted: it is no file system")));
    };
    let zfsutil = typed.values('o').any(|o| o.split(',').any(|w| w == "zfsutil"));
    if home.mountpoint != "legacy" && !zfsutil {
        return Err(Fail::new(format!(
            "filesystem '{name}' cannot be mounted using 'mount'.\nUse 'zfs set mountpoint=legacy' or 'zfs mount {name}'.\nSee zfs(8) for more information."
        )));
    }
    if home.mounted {
        return Err(cannot("filesystem already mounted"));
    }
    if !home.unlocked {
        return Err(cannot("encryption key not loaded"));
    }
    // Let go before the path is touched: it may lie in this very pool.
    let owned = session::open(name, For::Read)?.owned().cloned();
    match owned {
        Some(owned) => home.mount_at(&owned, Path::new(dir), How { overlay: true, ..how }),
        None => Err(cannot("no service has its pool")),
    }
}

/// What the options ask for; or the one that is none.
fn how(typed: &Typed) -> Result<How, String> {
    let mut how = How { overlay: typed.has('O'), ..How::default() };
    for word in typed.values('o').flat_map(|o| o.split(',')).filter(|w| !w.is_empty()) {
        let said = &mut how.said;
        match word {
            "ro" => said.read_only = Some(true),
            "rw" => said.read_only = Some(false),
            "atime" => said.atime = Some(true),
            "noatime" => said.atime = Some(false),
            "dev" | "devices" => said.devices = Some(true),
            "nodev" | "nodevices" => said.devices = Some(false),
            "exec" => said.exec = Some(true),
            "noexec" => said.exec = Some(false),
            "suid" | "setuid" => said.setuid = Some(true),
            "nosuid" | "nosetuid" => said.setuid = Some(false),
            // What is so anyhow, or has no meaning here.
            "defaults" | "relatime" | "norelatime" | "xattr" | "noxattr" | "remount" | "nonbmand"
            | "zfsutil" => {}
            other => return Err(other.to_string()),
        }
    }
    Ok(how)
}

/// Active mounts.
fn list(as_json: bool) -> Outcome {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut done = Ok(());
    for mount in mounts::all().iter().filter(|m| !m.is_snapshot()) {
        match mount.named() {
            Ok(name) => rows.push((name, mount.dir().display().to_string())),
            Err(f) => done = Err(f),
        }
    }
    if !as_json {
        rows.iter().for_each(|(name, dir)| println!("{name:<30}  {dir}"));
        return done;
    }
    let version = json!({"command": "zfs mount", "vers_major": 0, "vers_minor": 1});
    let sets: serde_json::Map<String, serde_json::Value> = rows
        .into_iter()
        .map(|(name, dir)| (name.clone(), json!({"filesystem": name, "mountpoint": dir})))
        .collect();
    println!("{}", json!({"output_version": version, "datasets": sets}));
    done
}

fn all(typed: &Typed, how: How) -> Outcome {
    let mut well = true;
    for pool in state::all()? {
        well &= many(&pool.name, typed, how)?;
    }
    if well { Ok(()) } else { Err(Fail::said(1)) }
}

/// Mounts what belongs mounted from `name` down. What fails is told, and the others go on.
fn many(name: &str, typed: &Typed, how: How) -> Outcome<bool> {
    let (homes, mut well) = super::open(name, Named::Dataset, For::Read)
        .and_then(|pool| match mounts::home(&pool, name)? {
            Some(_) => mounts::homes(&pool, name),
            None => Err(super::wrong_kind(name)),
        })
        .map_err(|f| Fail::usage(f.message, USAGE))?;
    for home in homes.iter().filter(|h| !h.stays_out(typed.has('l'))) {
        if let Err(f) = mount(home, how) {
            eprintln!("{}", f.message);
            well = false;
        }
    }
    Ok(well)
}

fn one(name: &str, typed: &Typed, how: How) -> Outcome {
    let cannot = |why: &str| Fail::new(format!("cannot mount '{name}': {why}"));
    let home = mounts::home(&*super::open(name, Named::Dataset, For::Read)?, name)?;
    let Some(home) = home else { return Err(super::wrong_kind(name)) };
    match home.mountpoint.as_str() {
        "legacy" => return Err(cannot("legacy mountpoint\nuse mount(8) to mount this filesystem")),
        "none" => return Err(cannot("no mountpoint set")),
        _ => {}
    }
    if home.canmount == "off" {
        return Err(cannot("'canmount' property is set to 'off'"));
    }
    if !home.unlocked && !typed.has('l') {
        return Err(cannot("encryption key not loaded"));
    }
    if home.partial {
        return Err(cannot(
            "Contains partially-completed state from \"zfs receive -s\", which can be resumed with \"zfs send -t\"",
        ));
    }
    if home.mounted {
        if remounts(typed) {
            let own = mounts::exactly(&*session::open(name, For::Read)?, name);
            return own.iter().try_for_each(|m| m.remount(how.said));
        }
        return Err(cannot("filesystem already mounted"));
    }
    mount(&home, how)
}

fn mount(home: &Home, how: How) -> Outcome {
    if !home.unlocked {
        super::key::load_root_of(&home.name, KeyHow::default())?;
    }
    let owned = session::open(&home.name, For::Read)?.owned().cloned();
    let Some(owned) = owned else {
        return Err(Fail::new(format!(
            "cannot mount '{}': no process serves its mounts, which takes the service\n\
             'icecore mount {} DIR' mounts for reading",
            home.name, home.name
        )));
    };
    home.mount(&owned, how)
}

pub fn unmount(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('a', ""), flag('f', ""), flag('u', "")], UNMOUNT_USAGE)?;
    match (typed.has('a'), typed.operands.as_slice()) {
        (true, []) => unmount_every(typed.has('u')),
        (true, _) | (_, [_, _, ..]) => Err(Fail::usage("too many arguments", UNMOUNT_USAGE)),
        (false, []) => Err(Fail::usage("missing filesystem argument", UNMOUNT_USAGE)),
        (false, [path]) if path.starts_with('/') => unmount_path(path, typed.has('u')),
        (false, [name]) => unmount_name(name, typed.has('u')),
    }
}

/// The deepest first; what is in use stays, and the rest goes on.
fn unmount_every(keys: bool) -> Outcome {
    mounts::closed::forget_all();
    let mut mounts = mounts::all();
    mounts.retain(|m| !m.is_snapshot());
    mounts.sort_by(|a, b| b.dir().cmp(a.dir()));
    // What fails for all is told once.
    let mut told: Vec<String> = Vec::new();
    for m in mounts {
        if let Err(f) = unmount_of_all(&m, keys)
            && !told.contains(&f.message)
        {
            told.push(f.message);
        }
    }
    if told.is_empty() { Ok(()) } else { Err(Fail::new(told.join("\n"))) }
}

/// One of all, unless it is to be unmounted by name only.
fn unmount_of_all(m: &Mount, keys: bool) -> Outcome {
    let name = m.named()?;
    let home = mounts::home(&*session::open(&name, For::Read)?, &name)?;
    if home.is_some_and(|h| h.mountpoint == "legacy" || h.canmount == "noauto") {
        return Ok(());
    }
    mounts::unmount(m, false)?;
    unload(&name, keys)
}

fn unload(name: &str, keys: bool) -> Outcome {
    if keys { super::key::unload_root_of(name) } else { Ok(()) }
}

/// Unloads the key of what is an encryption root itself.
fn unload_own(name: &str, keys: bool) -> Outcome {
    let root = if keys { crate::keys::root_of(&*session::open(name, For::Read)?, name)? } else { None };
    if root.as_deref() == Some(name) { unload(name, keys) } else { Ok(()) }
}

fn unmount_path(path: &str, keys: bool) -> Outcome {
    let fail = |why: &str| Fail::new(format!("cannot unmount '{path}': {why}"));
    let real = crate::fuse::real_path(Path::new(path));
    let Some(m) = mounts::all().into_iter().find(|m| m.dir() == real) else {
        if mounts::closed::forget_at(&real) {
            return Ok(());
        }
        return Err(match std::fs::symlink_metadata(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Fail::new(format!("cannot open '{path}': {}", crate::human::os_error(&e)))
            }
            Err(_) => fail("not a mountpoint"),
            Ok(_) if mounts::all().iter().any(|m| real.starts_with(m.dir())) => fail("not a mountpoint"),
            Ok(_) => fail("not a ZFS filesystem"),
        });
    };
    match m.named() {
        Ok(name) if !m.is_snapshot() => unmount_name(&name, keys),
        _ => mounts::unmount(&m, false),
    }
}

/// A file system, and what is mounted of those below it.
fn unmount_name(name: &str, keys: bool) -> Outcome {
    let fail = |why: &str| Fail::new(format!("cannot unmount '{name}': {why}"));
    let (home, below, guids) = {
        let pool = super::open(name, Named::Dataset, For::Read)?;
        let (all, _) = mounts::homes(&pool, name)?;
        (
            mounts::home(&pool, name)?,
            mounts::below(&pool, name),
            all.iter().map(Home::guid).collect::<Vec<_>>(),
        )
    };
    let Some(home) = home else { return Err(super::wrong_kind(name)) };
    if home.mountpoint == "legacy" {
        return Err(fail("legacy mountpoint\nuse umount(8) to unmount this filesystem"));
    }
    let forget_closed = || mounts::closed::forget(session::pool_of(name), |guid, _| guids.contains(&guid));
    if !home.mounted {
        return if forget_closed() { Ok(()) } else { Err(fail("not currently mounted")) };
    }
    let mut names = below.iter().map(|m| m.named()).collect::<Outcome<Vec<String>>>()?;
    mounts::unmount_all(below.clone(), false)?;
    forget_closed();
    // Of those that have a key of their own too, what lies below first.
    names.sort();
    let mut inner = names.iter().rev().filter(|n| *n != name);
    let unloaded = inner.try_for_each(|n| unload_own(n, keys)).and_then(|()| unload(name, keys));
    if unloaded.is_err() {
        mounts::again_all(&below);
    }
    unloaded
}
