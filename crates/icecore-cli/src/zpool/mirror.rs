//! `zpool attach`, `detach`, `replace`, `offline`, `online` (zpool_main.c; their errors `zpool_vdev_attach`,
//! `zpool_vdev_detach`, `zpool_vdev_offline`, libzfs_pool.c).
//!
//! A resilver is done when the command ends, as with `-w`. Meanwhile others use the pool.

use super::scrub::Lines;
use super::vdevs::{self, Member, full_path};
use crate::args::{Typed, flag, value};
use crate::bar;
use crate::fail::{Fail, Outcome};
use crate::scan;
use crate::session::{self, For, Open};
use crate::state::{self, Imported};
use icecore_env::{Access, FileDevice};
use icecore_format::{Guid, Txg};
use icecore_pool::Pool;
use icecore_vdev::VdevConfig;
use icecore_vdev::label::Labels;
use std::path::{Path, PathBuf};

pub const ATTACH_USAGE: &str = "attach [-fsw] <pool> <device> <new-device>";
pub const REPLACE_USAGE: &str = "replace [-fsw] <pool> <device> [new-device]";
pub const DETACH_USAGE: &str = "detach <pool> <device>";
pub const OFFLINE_USAGE: &str = "offline <pool> <device> ...";
pub const ONLINE_USAGE: &str = "online [-e] <pool> <device> ...";

/// What powering a slot ends with where there is none (`EBADSLT`).
const NO_SLOT: i32 = 57;

/// `--power`, which has no letter: slots cannot be powered here.
pub const POWER: char = '\u{1}';

/// The imported pool `name`, open for writing.
fn open(name: &str) -> Outcome<(Imported, Open)> {
    let record = state::named(name)?;
    let pool = session::open_record(&record, For::Write)
        .map_err(|f| Fail { message: format!("cannot open '{name}': {}", f.message), ..f })?;
    Ok((record, pool))
}

/// The leaf that a person calls `name`: by its path, the end of it, or its guid.
pub fn leaf(pool: &Pool, name: &str) -> Option<Guid> {
    // A side that is being filled is not in the configuration yet.
    let leaves = pool.io().vdevs().config().leaves();
    let full = full_path(name);
    let here = |l: &&&icecore_vdev::VdevConfig| {
        let open = pool.io().vdevs().leaves().iter().find(|o| o.guid == l.guid);
        let known = [l.path.clone(), open.map(icecore_vdev::tree::Leaf::name)];
        known.into_iter().flatten().any(|p| p == name || Path::new(&p) == full)
    };
    let by_path = leaves.iter().find(here);
    let by_end =
        || leaves.iter().find(|l| l.path.as_deref().is_some_and(|p| p.rsplit('/').next() == Some(name)));
    let by_guid = || leaves.iter().find(|l| name.parse() == Ok(l.guid.0));
    by_path.or_else(by_end).or_else(by_guid).map(|l| l.guid)
}

/// The vdev made of several that goes by `name`, as `mirror-0`.
fn group(pool: &Pool, name: &str) -> Option<Guid> {
    let tops = pool.config().vdev_tree.iter().flat_map(|tree| &tree.children);
    let mut groups = tops.filter(|top| !top.kind.is_leaf());
    groups.find(|top| top.name(top.id.unwrap_or(0)) == name).map(|top| top.guid)
}

/// The sector size, as a power of two, of the top-level vdev that a leaf is in.
fn ashift_of(pool: &Pool, leaf: Guid) -> Option<u64> {
    let tree = pool.config().vdev_tree.as_ref()?;
    tree.children.iter().find(|top| top.find(leaf).is_some())?.ashift
}

/// The first device of a vdev.
fn first_leaf(pool: &Pool, vdev: Guid) -> Option<Guid> {
    Some(pool.config().vdev_tree.as_ref()?.find(vdev)?.leaves().first()?.guid)
}

fn operands<'a>(typed: &'a Typed, min: usize, max: usize, usage: &str) -> Outcome<(&'a str, &'a [String])> {
    // Those that take many devices call them so (`zpool_do_offline`, zpool_main.c).
    let (no_pool, no_device) = match max {
        usize::MAX if usage != DETACH_USAGE => ("missing pool name", "missing device name"),
        _ => ("missing pool name argument", "missing <device> specification"),
    };
    let [pool, devices @ ..] = typed.operands.as_slice() else { return Err(Fail::usage(no_pool, usage)) };
    if devices.is_empty() {
        return Err(Fail::usage(no_device, usage));
    }
    if devices.len() < min {
        return Err(Fail::usage("missing <new_device> specification", usage));
    }
    if devices.len() > max {
        return Err(Fail::usage("too many arguments", usage));
    }
    Ok((pool, devices))
}

pub fn attach(args: &[String]) -> Outcome {
    add(args, ATTACH_USAGE, false)
}

pub fn replace(args: &[String]) -> Outcome {
    add(args, REPLACE_USAGE, true)
}

fn add(args: &[String], usage: &str, instead: bool) -> Outcome {
    // With -s as without it: what is copied is verified, so no scrub has to follow.
    let known = [flag('f', ""), flag('s', ""), flag('w', ""), value('o', "")];
    let typed = Typed::parse_plain(args, &known, usage)?;
    let (name, devices) = operands(&typed, if instead { 1 } else { 2 }, 2, usage)?;
    let mut ashift = None;
    for text in vdevs::ashift_options(&typed, usage) {
        ashift = Some(vdevs::ashift(text?)?);
    }
    let old = &devices[0];
    let new = devices.get(1).unwrap_or(old);
    let what = if instead {
        format!("cannot replace {old} with {new}")
    } else {
        format!("cannot attach {new} to {old}")
    };
    crate::mounts::refuse(&full_path(new), name)?;
    let (record, mut pool) = open(name)?;
    let path = full_path(new);
    // What is wrong with the new device alone is told first, as where OpenZFS's command looks at it before its kernel does.
    let member = Member::open(new, typed.has('f'))?;
    let fail = |e: &dyn std::fmt::Display| Fail::new(format!("{what}: {e}")).negative();
    let guid = leaf(&pool, old).ok_or_else(|| match (group(&pool, old).is_some(), instead) {
        (false, _) => fail(&"no such device in pool"),
        (true, true) => fail(&"already in replacing/spare config; wait for completion or use 'zpool detach'"),
        (true, false) => fail(&"can only attach to mirrors and top-level disks"),
    })?;
    if ashift.flatten().is_some_and(|wish| ashift_of(&pool, guid) != Some(wish)) {
        return Err(fail(&"a side has the sectors of its mirror, so 'ashift' can only be what that has"));
    }
    pool.fits(guid, &*member.device).map_err(|e| fail(&e))?;
    state::can_remember(name)?;
    // From here on the new device is written.
    let side = member.take()?;
    resilver(&mut pool, |pool| pool.begin_side(guid, side, instead).map(|()| true))
        .map_err(|f| fail(&f.message))?;
    drop(pool);
    remember(record, Some(path))
}

pub fn detach(args: &[String]) -> Outcome {
    let typed = Typed::parse_plain(args, &[], DETACH_USAGE)?;
    let (name, devices) = operands(&typed, 1, usize::MAX, DETACH_USAGE)?;
    let what = format!("cannot detach {}", devices[0]);
    let (record, mut pool) = open(name)?;
    let fail = |e: &dyn std::fmt::Display| Fail::new(format!("{what}: {e}")).negative();
    let guid = leaf(&pool, &devices[0]).ok_or_else(|| match group(&pool, &devices[0]).is_some() {
        true => fail(&"only applicable to mirror and replacing vdevs"),
        false => fail(&"no such device in pool"),
    })?;
    // OpenZFS detaches the first and says nothing of the others.
    let side = |top: &&VdevConfig| !top.kind.is_leaf() && top.find(guid).is_some();
    let is_side = pool.config().vdev_tree.iter().flat_map(|tree| &tree.children).any(|top| side(&top));
    if devices.len() > 1 && is_side {
        return Err(Fail::usage("too many arguments", DETACH_USAGE));
    }
    pool.detach(guid).map_err(|e| fail(&e))?;
    drop(pool);
    remember(record, None)
}

pub fn offline(args: &[String]) -> Outcome {
    let known = [flag('f', ""), flag('t', ""), flag(POWER, "power")];
    let typed = Typed::parse_plain(args, &known, OFFLINE_USAGE)?;
    for other in ['f', 't'] {
        if typed.has(POWER) && typed.has(other) {
            return Err(Fail::usage(format!("-0 and -{other} cannot be used together"), OFFLINE_USAGE));
        }
    }
    if typed.has(POWER) {
        let (name, devices) = operands(&typed, 1, usize::MAX, OFFLINE_USAGE)?;
        state::named(name)?;
        let line = |device: &String| format!("unable to power off slot for {device} {NO_SLOT}");
        let message = devices.iter().map(line).collect::<Vec<_>>().join("\n");
        return Err(Fail { status: NO_SLOT, message });
    }
    let verb = if typed.has('f') { "fault" } else { "offline" };
    each(&typed, OFFLINE_USAGE, verb, |pool, guid| {
        let not_here = |what: &str| Err(Fail::new(format!("{what}; 'zpool offline' takes it out")));
        match () {
            () if typed.has('f') => not_here("devices are not called faulted here"),
            () if typed.has('t') => {
                pool.other_side(guid)?;
                not_here("it cannot be for a while only")
            }
            () => Ok(pool.offline(guid)?),
        }
    })
}

pub fn online(args: &[String]) -> Outcome {
    let typed = Typed::parse_plain(args, &[flag('e', ""), flag(POWER, "power")], ONLINE_USAGE)?;
    if typed.has(POWER) {
        let (name, _) = operands(&typed, 1, usize::MAX, ONLINE_USAGE)?;
        state::named(name)?;
        return Err(Fail { status: NO_SLOT, message: "slots cannot be powered on here".into() });
    }
    let expand = typed.has('e');
    each(&typed, ONLINE_USAGE, if expand { "expand" } else { "online" }, |pool, guid| {
        for (leaf, path) in pool.left_alone().into_iter().filter(|(leaf, _)| *leaf == guid) {
            open_anew(pool, leaf, path.as_deref());
        }
        resilver(pool, |pool| pool.begin_online(guid))?;
        if expand {
            pool.expand(guid)?;
        }
        Ok(())
    })
}

/// Goes on with the devices that are back (`zpool clear`). What they missed is copied to them behind the commands.
pub fn bring_back(pool: &mut Open) -> Outcome {
    let Some(owned) = pool.owned().cloned() else { return Ok(()) };
    for (leaf, path) in pool.left_alone() {
        open_anew(pool, leaf, path.as_deref());
    }
    pool.resilver_returned()?;
    scan::go_on(&owned, None);
    Ok(())
}

/// Opens the device of a leaf that is left alone anew: what was pulled out and plugged in again is another device to the system. It
/// is where the pool's configuration says, or among the devices that the pool was imported from; else what is open stays.
fn open_anew(pool: &mut Pool, leaf: Guid, path: Option<&str>) {
    let imported = state::find(pool.name()).ok().flatten().map_or(Vec::new(), |record| record.devices);
    for path in path.map(PathBuf::from).into_iter().chain(imported) {
        let there = session::open_devices(&path, Access::Probe).unwrap_or_default();
        if !there.iter().any(|device| pool.is_labelled(leaf, &**device)) {
            continue;
        }
        // It cannot be open twice.
        pool.let_device_go(leaf);
        let found = session::open_devices(&path, Access::Exclusive).unwrap_or_default();
        if found.into_iter().any(|device| pool.take_device(leaf, device)) {
            return;
        }
    }
}

/// A resilver, with its progress.
fn resilver(pool: &mut Open, begin: impl FnOnce(&mut Pool) -> icecore_pool::Result<bool>) -> Outcome {
    let bar = bar::bytes("resilvering", true);
    bar.set_message(pool.name().to_owned());
    let mut lines = Lines::new(&bar);
    let done = scan::fill(pool, begin, &mut |pool| lines.show(pool));
    bar.finish_and_clear();
    done.map(|_| ())
}

/// Does the same to each device named; what fails is told, and the others go on (`zpool_do_offline`, zpool_main.c).
fn each(typed: &Typed, usage: &str, verb: &str, mut one: impl FnMut(&mut Open, Guid) -> Outcome) -> Outcome {
    let (name, devices) = operands(typed, 1, usize::MAX, usage)?;
    let (_, mut pool) = open(name)?;
    let mut wrong = Vec::new();
    for device in devices {
        // Of a mirror that is to grow any side will do.
        let side =
            || group(&pool, device).filter(|_| verb == "expand").and_then(|guid| first_leaf(&pool, guid));
        let done = match leaf(&pool, device).or_else(side) {
            Some(guid) => one(&mut pool, guid).map_err(|f| format!("cannot {verb} {device}: {}", f.message)),
            None if usage == ONLINE_USAGE => {
                Err(format!("couldn't find device \"{device}\" in pool \"{name}\""))
            }
            None => Err(match (group(&pool, device), verb) {
                // By its guid, and nothing of what is not there (`zpool_vdev_fault`).
                (Some(guid), "fault") => {
                    format!("cannot {verb} {guid}: operation not supported on this type of pool")
                }
                (Some(_), _) => {
                    format!("cannot {verb} {device}: operation not supported on this type of pool")
                }
                (None, "fault") => String::new(),
                (None, _) => format!("cannot {verb} {device}: no such device in pool"),
            }),
        };
        wrong.extend(done.err());
    }
    if wrong.is_empty() { Ok(()) } else { Err(Fail::new(wrong.join("\n"))) }
}

/// Keeps the list of the pool's devices: those that left it go, `new` comes.
fn remember(mut record: Imported, new: Option<PathBuf>) -> Outcome {
    let guid = record.guid;
    // What cannot be read now may be back tomorrow.
    record.devices.retain(|path| {
        let Ok(devices) = session::open_devices(path, Access::Probe) else { return true };
        devices.iter().any(|d| {
            Labels::read(&**d).best(Txg(u64::MAX)).is_some_and(|config| config.pool_guid == Some(guid))
        })
    });
    if let Some(path) = new
        && FileDevice::open(&path, Access::Probe).is_ok()
        && !record.devices.contains(&path)
    {
        record.devices.push(path);
    }
    state::remember(&record)
}
