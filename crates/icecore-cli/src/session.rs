//! Opening a pool for one command: from the state folder to a [`Pool`].
//!
//! In the service a command borrows the pool that is open there, to read it beside others or to change it alone. In a
//! process of its own it opens the devices: readers take a shared lock on them, writers an exclusive one; so commands on
//! one pool follow each other, and two writers never meet.

use crate::fail::{Fail, Outcome};
use crate::pools;
use crate::state::{self, Imported};

pub use crate::borrow::{Has, Open};
pub use crate::engine::Engine;
use icecore_dsl::Who;
use icecore_env::{Access, Device, DeviceError, Env, FileDevice, What};
use icecore_format::Txg;
use icecore_pool::{Host, Mode, OpenSpec, Pool, PoolError};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a command needs the pool for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum For {
    /// Reading only.
    Read,
    /// Changing it.
    Write,
    /// Rewriting damaged copies in their places and nothing else: any layout that can be read will do.
    Repair,
}

/// The pool part of a dataset's, snapshot's or bookmark's name.
#[must_use]
pub fn pool_of(name: &str) -> &str {
    name.split(['/', '@', '#']).next().unwrap_or(name)
}

/// This machine, as OpenZFS would name it: `/etc/hostid` or the address-made id, and the node name.
#[must_use]
pub fn host() -> Host {
    let from_file = std::fs::read("/etc/hostid")
        .ok()
        .and_then(|b| b.get(..4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Host { id: u64::from(from_file.unwrap_or(0)), name }
}

/// The devices at `path`: the ZFS partitions of a partitioned disk, or the whole.
pub fn open_devices(path: &Path, access: Access) -> Outcome<Vec<Arc<dyn Device>>> {
    devices_at(path, access).map_err(|e| cannot_open(&e))
}

fn devices_at(path: &Path, access: Access) -> Result<Vec<Arc<dyn Device>>, DeviceError> {
    let device: Arc<dyn Device> = Arc::new(FileDevice::open(path, access)?);
    let parts = icecore_vdev::gpt::zfs_partitions(&device);
    if parts.is_empty() {
        return Ok(vec![device]);
    }
    Ok(parts.into_iter().map(|p| Arc::new(p) as Arc<dyn Device>).collect())
}

/// Why a device cannot be had; of one in use also what that means.
fn cannot_open(e: &DeviceError) -> Fail {
    if e.what != What::Busy {
        return Fail::new(e.to_string());
    }
    Fail::new(format!(
        "{} is in use by another command (or another program holds it)\n\
         A process that changes a pool holds its devices alone, for a pool has one writer.",
        e.device
    ))
}

/// Opens the imported pool that `name` (a pool, dataset, snapshot or bookmark) lies in.
pub fn open(name: &str, what_for: For) -> Outcome<Open> {
    let fail = |why: String| Fail::new(format!("cannot open '{name}': {why}"));
    icecore_dsl::name::check(name).map_err(|e| fail(e.to_string()))?;
    let Some(record) = state::find(pool_of(name))? else { return Err(no_pool(name)) };
    open_record(&record, what_for)
        .map_err(|f| Fail { message: format!("cannot open '{name}': {}", f.message), ..f })
}

/// [`open`], with the state folder named: alone, whoever else has it.
pub fn open_in(state_dir: &Path, name: &str, what_for: For) -> Outcome<Open> {
    match state::all_in(state_dir)?.into_iter().find(|p| p.name == pool_of(name)) {
        Some(record) => open_record(&record, what_for),
        None => Err(no_pool(name)),
    }
}

/// There is no such pool, as far as this machine's commands know.
pub fn no_pool(name: &str) -> Fail {
    Fail::new(format!(
        "cannot open '{name}': dataset does not exist\n(no pool '{}' is imported here: 'zpool import' shows what can be)",
        pool_of(name)
    ))
}

/// Why a pool that is imported cannot be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Another command holds its devices.
    Busy,
    /// Devices are gone.
    Missing,
    /// Devices failed while the pool was in use.
    Suspended,
    /// Something else.
    Other,
}

/// A pool that cannot be opened: why, and the words for it.
#[derive(Debug)]
pub struct NotOpen {
    /// The class of the reason.
    pub why: Why,
    /// What to say.
    pub fail: Fail,
}

/// Opens an imported pool.
pub fn open_record(record: &Imported, what_for: For) -> Outcome<Open> {
    try_open(record, what_for).map_err(|n| n.fail)
}

/// How long a command that only looks waits for one that changes the pool.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(50);

/// [`try_open`] for reading, by a command that shows pools: while another command changes the pool it waits a while.
pub fn try_look(record: &Imported) -> Result<Open, NotOpen> {
    let start = Instant::now();
    let mut told = false;
    loop {
        match try_open(record, For::Read) {
            Err(n) if n.why == Why::Busy && start.elapsed() < PATIENCE => {
                if !std::mem::replace(&mut told, true) {
                    eprintln!(
                        "{} is in use by another command; waiting up to {} s",
                        record.name,
                        PATIENCE.as_secs()
                    );
                }
                std::thread::sleep(LOOK);
            }
            other => return other,
        }
    }
}

/// [`open_record`], telling apart why not.
pub fn try_open(record: &Imported, what_for: For) -> Result<Open, NotOpen> {
    if what_for == For::Write && record.readonly {
        let fail = Fail::new("pool is read-only: it was imported with readonly=on");
        return Err(NotOpen { why: Why::Other, fail });
    }
    if pools::serving() && what_for == For::Repair {
        pools::close_for_repair(record).map_err(|fail| NotOpen { why: Why::Busy, fail })?;
    } else if pools::serving() {
        let owned = pools::get(record)?;
        return Open::of(owned, what_for).map_err(|fail| NotOpen { why: Why::Other, fail });
    }
    let access = if what_for == For::Read { Access::ReadOnly } else { Access::Exclusive };
    let mut pool = open_alone(record, access, what_for)?;
    if what_for == For::Write {
        pool.note_command(crate::caller::command_line());
    }
    Ok(Open { has: Has::Own(Box::new(pool)), loans: Vec::new() })
}

/// The pool as it was last committed, opened once more for reading beside its owner: what it reads comes from the devices,
/// and nothing is written to them. Good as long as nobody changes the pool.
pub fn view(record: &Imported) -> Outcome<Open> {
    let pool = open_alone(record, Access::Probe, For::Read).map_err(|n| n.fail)?;
    Ok(Open { has: Has::Own(Box::new(pool)), loans: Vec::new() })
}

/// Opens the pool's devices, and the pool on them.
pub fn open_alone(record: &Imported, access: Access, what_for: For) -> Result<Pool, NotOpen> {
    let not = |why, fail| Err(NotOpen { why, fail });
    let mut devices = Vec::new();
    let mut missing = Vec::new();
    for path in &record.devices {
        match devices_at(path, access) {
            Ok(found) => devices.extend(found),
            // Half a mirror that somebody else holds is not half a mirror that is gone: both would write.
            Err(e) if e.what == What::Busy => return not(Why::Busy, cannot_open(&e)),
            Err(e) => missing.push(e.to_string()),
        }
    }
    if devices.is_empty() {
        let fail = Fail::new(format!("its devices cannot be opened: {}", missing.join("; ")));
        return not(Why::Missing, fail);
    }
    let spec = open_spec(record, devices, what_for);
    let why = if missing.is_empty() { Why::Other } else { Why::Missing };
    let opened = Pool::open(Env::os(), spec).and_then(|mut pool| {
        dress(&mut pool, record);
        if what_for == For::Write {
            crate::replay::now(&mut pool)?;
        }
        Ok(pool)
    });
    opened.map_err(|e| NotOpen { why, fail: pool_fail(&e, &missing) })
}

/// How who owns an imported pool has its devices, and what for.
pub fn by_owner(record: &Imported) -> (Access, For) {
    if record.readonly { (Access::ReadOnly, For::Read) } else { (Access::Exclusive, For::Write) }
}

/// What an open pool does not know of itself: where it is mounted, who changes it, and its name where it is imported for
/// reading only under another one, for then its labels have the old one.
pub fn dress(pool: &mut Pool, record: &Imported) {
    pool.dsl.altroot.clone_from(&record.altroot);
    pool.dsl.who = who();
    // Its labels may have another: of one that has this for now only, or is only read.
    pool.call(&record.name);
}

/// Who changes pools here: the service is of one user.
pub fn who() -> Who {
    Who { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
}

/// How an imported pool is opened on these devices.
pub fn open_spec(record: &Imported, devices: Vec<Arc<dyn Device>>, what_for: For) -> OpenSpec {
    OpenSpec {
        devices,
        pool: Some(record.guid.to_string()),
        mode: match what_for {
            For::Write => Mode::Write,
            _ if record.salvage => Mode::Salvage,
            _ => Mode::ReadOnly,
        },
        // An import for reading leaves no mark on the devices: that it was allowed (perhaps with -f) is all there is.
        force: record.readonly && what_for == For::Read,
        host: host(),
        max_txg: record.max_txg.map(Txg),
    }
}

fn pool_fail(e: &PoolError, missing: &[String]) -> Fail {
    if missing.is_empty() {
        Fail::new(e.to_string())
    } else {
        Fail::new(format!("{e} ({})", missing.join("; ")))
    }
}
