//! `zpool import`.

use super::get::{canonical, known};
use super::set::{Change, change};
use super::{import_list, salvage};
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use crate::state::{self, Imported};
use icecore_dsl::prop::is_user;
use icecore_env::{Access, Device, Env};
use icecore_format::nvlist::NvValue;
use icecore_format::{NvList, Txg};
use icecore_pool::{Mode, OpenSpec, Pool, PoolError};
use icecore_vdev::config::PoolConfig;
use icecore_vdev::label::read_uberblocks;
use icecore_vdev::probe::{self, FoundPool, Unlabelled};
use icecore_vdev::tree::Health;
use icecore_vdev::{PoolState, VdevConfig, VdevSet};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const USAGE: &str = "import [-d dir|device] ... [-c cachefile] [-D] [-l] [-o property=value] ... [-R root] [-N] [-f]\n\t    [-F [-nX]] [-T txg] [-t] [-a | <pool | id> [newpool]]";

const ALREADY: &str = "a pool with that name already exists\nuse the form 'zpool import <pool | id> <newpool>' to give it a new name";

/// Where devices are looked for when nothing is said (`zpool_default_search_paths`).
const SEARCH: &[&str] = &["/dev/disk/by-vdev", "/dev/disk/by-id", "/dev/disk/by-path", "/dev"];

/// `--rewind-to-checkpoint`, which has no letter.
const CHECKPOINT: char = '\u{1}';

pub fn run(args: &[String]) -> Outcome {
    let options = [
        value('d', ""),
        value('c', ""),
        value('o', ""),
        value('R', ""),
        flag('N', ""),
        flag('f', ""),
        flag('a', ""),
        flag('F', ""),
        flag('D', ""),
        flag('l', ""),
        flag('n', ""),
        flag('t', ""),
        value('T', ""),
        // -F goes back as far as there is anything to go back to; this asks for no more.
        flag('X', ""),
        flag(CHECKPOINT, "rewind-to-checkpoint"),
        // Of no meaning here: nothing is put together from parts, and devices are always searched for.
        flag('m', ""),
        flag('s', ""),
    ];
    let typed = Typed::parse(args, &options, USAGE)?;
    for other in ['d', 's'] {
        if typed.has('c') && typed.has(other) {
            return Err(Fail::usage(format!("-c is incompatible with -{other}"), USAGE));
        }
    }
    if (typed.has('n') || typed.has('X')) && !typed.has('F') {
        return Err(Fail::usage("-n or -X only meaningful with -F", USAGE));
    }
    let asked = properties(&typed)?;
    let back = match (typed.value('T'), typed.has('F')) {
        (Some(txg), _) => {
            // As `strtoull` reads it, nothing is none.
            let txg = if txg.is_empty() { Ok(0) } else { txg.parse() };
            let txg = txg.map_err(|_| Fail::usage("invalid txg value", USAGE))?;
            Back::To(Txg(txg))
        }
        (None, true) => Back::AsFarAsNeeded,
        (None, false) => Back::No,
    };
    if typed.operands.len() > if typed.has('a') { 0 } else { 2 } {
        return Err(Fail::usage("too many arguments", USAGE));
    }
    let Seen { found, unlabelled, absent } = search(&typed)?;
    let gone = typed.has('D');
    let mut new_name = None;
    let wanted: Vec<&FoundPool> = match typed.operands.as_slice() {
        [] if typed.has('a') => found.iter().filter(|f| !imported(f) && destroyed(f) == gone).collect(),
        [] => return list(&found, &unlabelled, gone, &absent),
        [name, new @ ..] => {
            let found = choose(&found, name, gone, &absent)?;
            new_name = new.first().map(String::as_str);
            new_name
                .map_or(Ok(()), super::create::check_name)
                .map_err(|why| Fail::new(format!("cannot import '{}': {why}", new_name.unwrap_or(name))))?;
            vec![found]
        }
    };
    let mount = !typed.has('N');
    let how = How {
        force: typed.has('f'),
        back,
        salvage: typed.has('F'),
        dry: typed.has('n'),
        new_name,
        temporary: typed.has('t'),
        checkpoint: typed.has(CHECKPOINT),
    };
    let mut well = true;
    for f in wanted {
        let props = Props::of(&asked).map_err(|why| {
            let what = typed.operands.first().map_or(String::new(), |name| format!(" pool '{name}'"));
            Fail::new(format!("cannot import{what}: {why}"))
        })?;
        import(f, how, &props)?;
        if how.dry {
            continue;
        }
        let name = new_name.unwrap_or(&f.name);
        // A key that is not to be had keeps nothing else from being mounted.
        if typed.has('l')
            && let Err(f) = crate::zfs::load_keys(name)
        {
            eprintln!("{}", f.message);
            well = false;
        }
        well &= !mount || crate::mounts::settle_below(name)?;
    }
    if well { Ok(()) } else { Err(Fail::said(1)) }
}

/// The properties of `-o` and `-R`, all such as pools have.
fn properties(typed: &Typed) -> Outcome<Vec<(&str, &str)>> {
    let mut out: Vec<(&str, &str)> = Vec::new();
    for (letter, o) in typed.ordered().iter().filter(|(letter, _)| ['o', 'R'].contains(letter)) {
        let pair = if *letter == 'R' { Some(("altroot", o.as_str())) } else { o.split_once('=') };
        // Mount options have no `=`.
        let (p, v) = pair.unwrap_or(("", o));
        let p = canonical(p);
        if !p.is_empty() && (is_user(p) || !known(p) && !p.starts_with("feature@")) {
            return Err(Fail::new(format!("property '{p}' is not a valid pool or vdev property")));
        }
        if out.iter().any(|(known, _)| *known == p) {
            return Err(Fail::new(format!("property '{p}' specified multiple times")));
        }
        out.push((p, v));
    }
    Ok(out)
}

/// What they mean (`zpool_valid_proplist`, libzfs_pool.c).
#[derive(Default)]
struct Props<'a> {
    readonly: bool,
    altroot: &'a str,
    /// What is set in the pool, unless it is only read.
    changes: Vec<(&'a str, Change)>,
}

impl<'a> Props<'a> {
    fn of(asked: &[(&'a str, &'a str)]) -> Result<Self, String> {
        let mut props = Self::default();
        for &(p, v) in asked {
            match (p, v) {
                ("", options) => return Err(format!("mount options ('{options}') are not taken here")),
                ("readonly", "on" | "off") => props.readonly = v == "on",
                ("readonly", _) => return Err("'readonly' must be one of 'on | off'".into()),
                ("altroot", path) if path.starts_with('/') => props.altroot = path,
                ("altroot", path) => return Err(format!("bad alternate root '{path}'")),
                ("bootfs", _) => {
                    return Err("property 'bootfs' cannot be set at creation or import time".into());
                }
                ("compatibility", "off" | "legacy" | "") => {}
                _ => props.changes.push((p, change(p, v)?)),
            }
        }
        Ok(props)
    }
}

fn imported(f: &FoundPool) -> bool {
    state::all().is_ok_and(|all| all.iter().any(|p| p.guid == f.guid.0))
}

fn destroyed(f: &FoundPool) -> bool {
    f.state == PoolState::DESTROYED
}

/// The pool of that name or guid; with `-D` among the destroyed ones, else among the others.
fn choose<'f>(found: &'f [FoundPool], name: &str, gone: bool, absent: &[PathBuf]) -> Outcome<&'f FoundPool> {
    let guid = name.parse::<u64>().ok();
    let fits = |f: &&FoundPool| (Some(f.guid.0) == guid || f.name == name) && destroyed(f) == gone;
    let fitting: Vec<&FoundPool> = found.iter().filter(fits).collect();
    match fitting.as_slice() {
        [one] => Ok(one),
        [] => {
            let why = match state::find(name)? {
                Some(_) => ALREADY.to_string(),
                None => format!("no such pool available{}", not_there(absent)),
            };
            Err(Fail::new(format!("cannot import '{name}': {why}")))
        }
        many => {
            let guids: Vec<String> = many.iter().map(|f| f.guid.to_string()).collect();
            Err(Fail::new(format!(
                "cannot import '{name}': more than one matching pool\nimport by numeric ID instead: {}",
                guids.join(", ")
            )))
        }
    }
}

/// Whether a pool is taken as it was earlier. It is only read then, since what came later is still on its devices.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Back {
    No,
    /// At the newest txg whose metadata can be read (`-F`).
    AsFarAsNeeded,
    /// At this txg, or the newest before it (`-T`).
    To(Txg),
}

impl Back {
    fn txg(self) -> Option<Txg> {
        match self {
            Self::To(txg) => Some(txg),
            Self::No | Self::AsFarAsNeeded => None,
        }
    }
}

#[derive(Clone, Copy)]
struct How<'a> {
    force: bool,
    back: Back,
    /// What it is called from now on; of a pool that is only read, here.
    new_name: Option<&'a str>,
    /// Here only, until it is exported (`-t`).
    temporary: bool,
    /// Also if the pool is not whole at any txg, for what is left of it (`-F`).
    salvage: bool,
    /// Only says what going back would bring (`-n`).
    dry: bool,
    /// As it was at its checkpoint.
    checkpoint: bool,
}

fn import(f: &FoundPool, how: How<'_>, props: &Props<'_>) -> Outcome {
    let How { force, back, .. } = how;
    let readonly = props.readonly || back != Back::No;
    let (name, guid) = (how.new_name.unwrap_or(&f.name).to_string(), f.guid.0);
    let fail = |why: String| Fail::new(format!("cannot import '{}': {why}", f.name));
    if let Some(known) = state::find(&name)? {
        // Its devices had failed, and are back.
        if known.guid == guid && crate::pools::clear(&known).map_err(|f| fail(f.message))? {
            return Ok(());
        }
        return Err(fail(if known.guid == guid {
            ALREADY.into()
        } else if how.new_name.is_some() {
            return Err(Fail::new(format!("cannot import '{}' as '{name}': pool already exists", f.name)));
        } else {
            ALREADY.into()
        }));
    }
    if state::all()?.iter().any(|p| p.guid == guid) {
        return Err(fail(ALREADY.into()));
    }
    kernel_has(guid).map_err(fail)?;
    state::can_remember(&name).map_err(|f| fail(f.message))?;
    let access = if readonly { Access::ReadOnly } else { Access::Exclusive };
    let mut paths: Vec<PathBuf> =
        f.devices.values().filter_map(|c| c.source.as_ref()).map(|s| absolute(&s.path)).collect();
    paths.sort();
    paths.dedup();
    let mut devices = Vec::new();
    for path in &paths {
        devices.extend(session::open_devices(path, access).map_err(|f| fail(f.message))?);
    }
    let mode = if readonly { Mode::ReadOnly } else { Mode::Write };
    let open_in = |mode, max_txg| {
        let (devices, pool) = (devices.clone(), Some(guid.to_string()));
        Pool::open(Env::os(), OpenSpec { devices, pool, mode, force, host: session::host(), max_txg })
    };
    let open = |max_txg| open_in(mode, max_txg);
    let opened = match back {
        Back::No => open(None).map(|pool| (pool, None)),
        Back::To(txg) => open(Some(txg)).map(|pool| (pool, Some(txg))),
        Back::AsFarAsNeeded => newest_readable(&uberblocks(&devices), open),
    };
    let mut salvage = false;
    let opened = opened.or_else(|e| {
        salvage = how.salvage && salvage::may_help(&e);
        if salvage {
            salvage::open(&uberblocks(&devices), back.txg(), open_in).map_err(|_| e)
        } else {
            Err(e)
        }
    });
    let (mut pool, max_txg) = opened.map_err(|e| fail(explain(&e, &name, how.salvage)))?;
    if how.checkpoint {
        return Err(fail(match pool.checkpoint_space().map_err(|e| fail(e.to_string()))? {
            None => "checkpoint does not exist".into(),
            Some(_) => "pools with a checkpoint are only read here, as they are now".into(),
        }));
    }
    if how.dry {
        match max_txg {
            Some(_) => would_return(&pool),
            None => println!("{name} can be imported as it is."),
        }
        return Ok(());
    }
    if max_txg.is_some() {
        tell_what_is_left_out(&pool, &uberblocks(&devices));
    }
    match how.new_name {
        Some(_) if how.temporary || readonly => pool.call(&name),
        Some(_) => pool.rename(&name),
        None => {}
    }
    if salvage {
        salvage::tell_what_is_lost(&pool);
    }
    if !readonly {
        // Others must see it in use, before anything is written to it.
        pool.claim();
        pool.note_command(crate::caller::command_line());
        for (p, change) in &props.changes {
            change.make(&mut pool, p).map_err(|f| fail(f.message))?;
        }
        let replayed = crate::replay::all(&mut pool);
        replayed.and_then(|_| pool.commit()).map_err(|e| fail(e.to_string()))?;
    }
    let record = Imported {
        name: name.clone(),
        guid,
        devices: paths,
        readonly,
        altroot: props.altroot.into(),
        max_txg: max_txg.map(|t| t.0),
        salvage,
    };
    state::remember(&record)?;
    crate::pools::adopt(&record, pool)
}

/// Txg and time of every sound uberblock, the newest first.
fn uberblocks(devices: &[Arc<dyn Device>]) -> Vec<(Txg, u64)> {
    let found = devices.iter().flat_map(|d| read_uberblocks(&**d, None));
    let mut all: Vec<(Txg, u64)> = found.map(|u| (u.txg(), u.uberblock.timestamp.get())).collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    all.dedup_by_key(|(txg, _)| *txg);
    all
}

/// The pool at the newest txg at which it opens and the root of every dataset can be read.
fn newest_readable(
    uberblocks: &[(Txg, u64)],
    open: impl Fn(Option<Txg>) -> icecore_pool::Result<Pool>,
) -> icecore_pool::Result<(Pool, Option<Txg>)> {
    let mut first_error = None;
    for (at, (txg, _)) in uberblocks.iter().enumerate() {
        let opened = open(Some(*txg)).and_then(|pool| pool.check_roots().map(|()| pool));
        match opened {
            Ok(pool) => return Ok((pool, (at > 0).then_some(*txg))),
            Err(e) => {
                first_error.get_or_insert(e);
            }
        }
    }
    Err(first_error.unwrap_or_else(|| PoolError::NotAPool("no uberblock has a sound checksum".into())))
}

/// The pool of `record` as it was earlier, where it does not open as it was left; with the txg.
pub fn earlier(record: &Imported) -> Outcome<Option<(Pool, Txg)>> {
    let mut devices = Vec::new();
    for path in &record.devices {
        devices.extend(session::open_devices(path, Access::ReadOnly).unwrap_or_default());
    }
    let open = |max_txg| {
        let spec = session::open_spec(record, devices.clone(), For::Read);
        Pool::open(Env::os(), OpenSpec { max_txg, ..spec })
    };
    let (mut pool, at) = newest_readable(&uberblocks(&devices), open)?;
    pool.call(&record.name);
    Ok(at.map(|at| (pool, at)))
}

/// What `-Fn` says of a pool that going back would make importable (`zpool_rewind_exclaim`, libzfs_pool.c).
pub fn would_return(pool: &Pool) {
    let then = crate::human::time_with_seconds(pool.uberblock().timestamp.get());
    println!("Would be able to return {} to its state as of {then}.", pool.name());
}

/// Says how much of the pool's last time is not shown.
fn tell_what_is_left_out(pool: &Pool, uberblocks: &[(Txg, u64)]) {
    let at = pool.synced();
    let then = pool.uberblock().timestamp.get();
    let newest = uberblocks.first().map_or((at, then), |u| *u);
    eprintln!(
        "{} is shown as it was at {} (txg {at}), for reading only.",
        pool.name(),
        crate::human::time_with_seconds(then)
    );
    if newest.0 > at {
        let span = crate::human::duration(newest.1.saturating_sub(then));
        eprintln!(
            "What was written in the {span} after that, up to txg {}, is left out; it stays on the devices.",
            newest.0
        );
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// What stands in the way, and what to do about it; `tried` if reading what is left was tried.
fn explain(e: &PoolError, name: &str, tried: bool) -> String {
    match e {
        PoolError::InUse { hostname, hostid, last_access } => format!(
            "pool was previously in use from another system.\nLast accessed by {hostname} (hostid={hostid:x}) at {}\n\
             The pool can be imported, use 'zpool import -f {name}' to import the pool.",
            crate::human::time(*last_access)
        ),
        PoolError::ReadOnlyOnly(reasons) => format!(
            "it can only be read here: {}\nImport it with '-o readonly=on' to read it.",
            reasons.join("; ")
        ),
        PoolError::UnsupportedRead(features) => {
            format!(
                "unsupported version or feature\nThis pool uses the following feature(s) not supported by this system:\n\t{}",
                features.join("\n\t")
            )
        }
        PoolError::Destroyed => "the pool was destroyed, use '-f' to import it all the same".into(),
        other => {
            let mut text = match other {
                PoolError::NotAPool(why) => {
                    format!("one or more devices is currently unavailable\n({why})")
                }
                other => other.to_string(),
            };
            if !tried && salvage::may_help(other) {
                text += &format!(
                    "\n'zpool import -F {name}' reads what is left of it, and says what is lost; nothing is written."
                );
            }
            text
        }
    }
}

/// Refuses a pool that the kernel's own ZFS has imported: two writers would destroy it.
fn kernel_has(guid: u64) -> Result<(), String> {
    let Ok(pools) = std::fs::read_dir("/proc/spl/kstat/zfs") else { return Ok(()) };
    for pool in pools.flatten().filter(|p| p.path().is_dir()) {
        if std::fs::read_to_string(pool.path().join("guid")).is_ok_and(|g| g.trim() == guid.to_string()) {
            return Err(format!(
                "the kernel's ZFS has it imported as '{}'; export it there first",
                pool.file_name().to_string_lossy()
            ));
        }
    }
    Ok(())
}

/// Bytes of a cache file at most: one of a thousand pools has a few millions.
const CACHE_MAX: u64 = 64 << 20;

/// What a search found.
struct Seen {
    found: Vec<FoundPool>,
    unlabelled: Vec<Unlabelled>,
    /// Places that were named, and are not there.
    absent: Vec<PathBuf>,
}

fn search(typed: &Typed) -> Outcome<Seen> {
    if let Some(file) = typed.value('c') {
        return cached(file, typed.operands.first());
    }
    let mut asked: Vec<PathBuf> = typed.values('d').map(PathBuf::from).collect();
    if asked.is_empty()
        && let Some(path) = crate::caller::var("ZPOOL_IMPORT_PATH")
    {
        // As many folders as there are colons, and one more (zpool_main.c); those that are not there are passed over.
        asked = path.split(':').map(PathBuf::from).filter(|p| p.exists()).collect();
    }
    let dirs = if asked.is_empty() {
        SEARCH.iter().map(PathBuf::from).filter(|p| p.exists()).collect()
    } else {
        asked.clone()
    };
    let mut absent = Vec::new();
    let mut paths: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for dir in dirs {
        if dir.is_dir() {
            let entries = std::fs::read_dir(&dir)
                .map_err(|e| Fail::new(format!("cannot open '{}': {e}", dir.display())))?;
            entries.flatten().filter(|e| usable(&e.path())).for_each(|e| remember_path(&mut paths, e.path()));
        } else if dir.exists() {
            remember_path(&mut paths, dir);
        } else {
            absent.push(dir);
        }
    }
    Ok(Seen { absent, ..look(paths) })
}

fn look(paths: BTreeMap<PathBuf, PathBuf>) -> Seen {
    let paths: Vec<PathBuf> = paths.into_values().collect();
    // What cannot be read at all cannot be imported either; a search goes past it.
    let seen = probe::probe(&paths, &*Env::os().workers);
    Seen { found: probe::assemble(&seen.candidates).0, unlabelled: seen.unlabelled, absent: Vec::new() }
}

/// The pools that a cache file lists (`zpool_find_import_cached`, zutil_import.c), found where it says that their devices are,
/// and in the folders of these. What it says else is not asked: labels know better.
fn cached(file: &str, name: Option<&String>) -> Outcome<Seen> {
    let missing = |fail: String| match name {
        Some(name) => Fail::new(format!("{fail}\ncannot import '{name}': no such pool available")),
        None => Fail::new(fail),
    };
    let failed =
        |e: std::io::Error| missing(format!("failed to open cache file: {}", crate::human::os_error(&e)));
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    let read = opened.take(CACHE_MAX).read_to_end(&mut bytes);
    read.map_err(|_| missing("failed to read cache file contents: invalid or missing cache file".into()))?;
    let decoded = NvList::decode(&bytes).ok().map(|(list, _)| list);
    let Some(list) = decoded.filter(|list| list.iter().next().is_some()) else {
        return Err(missing("invalid or corrupt cache file contents: invalid or missing cache file".into()));
    };
    let configs = list.iter().filter_map(|(_, value)| match value {
        NvValue::List(config) => PoolConfig::parse(config).ok(),
        _ => None,
    });
    let (mut guids, mut paths, mut folders) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
    for config in configs {
        guids.extend(config.pool_guid);
        let leaves = config.vdev_tree.iter().flat_map(VdevConfig::leaves);
        for path in leaves.filter_map(|leaf| leaf.path.as_ref()).map(PathBuf::from) {
            folders.extend(path.parent().map(Path::to_path_buf));
            if usable(&path) {
                remember_path(&mut paths, path);
            }
        }
    }
    let whole = |seen: &Seen| {
        guids.iter().all(|g| seen.found.iter().any(|f| f.guid.0 == *g && f.health() == Health::Online))
    };
    let mut seen = look(paths.clone());
    if !whole(&seen) {
        let entries = folders.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
        entries.map(|e| e.path()).filter(|p| usable(p)).for_each(|p| remember_path(&mut paths, p));
        seen = look(paths);
    }
    seen.found.retain(|f| guids.contains(&f.guid.0));
    Ok(seen)
}

/// A line more where a pool was not found: places that are not there are passed over, as by OpenZFS.
fn not_there(absent: &[PathBuf]) -> String {
    absent.iter().map(|dir| format!("\n('{}' is not there)", dir.display())).collect()
}

/// Files and block devices of a useful size; one path for each, however many links lead to it.
fn usable(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path)
        .is_ok_and(|m| m.file_type().is_block_device() || m.is_file() && m.len() >= 64 << 20)
}

fn remember_path(paths: &mut BTreeMap<PathBuf, PathBuf>, path: PathBuf) {
    let real = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
    paths.entry(real).or_insert(path);
}

fn list(found: &[FoundPool], unlabelled: &[Unlabelled], gone: bool, absent: &[PathBuf]) -> Outcome {
    let shown = found.iter().filter(|f| !imported(f) && destroyed(f) == gone);
    // Of a pool that has no device any more there is nothing to say: only that some device left it.
    let texts: Vec<String> =
        shown.filter(|f| !f.devices.is_empty()).map(|f| import_list::show(f, unlabelled)).collect();
    if texts.is_empty() {
        eprintln!("no pools available to import{}", not_there(absent));
    } else {
        print!("{}", texts.join("\n"));
    }
    Ok(())
}

/// How vdevs are called (`-g`, `-L`, `-P`).
#[derive(Clone, Copy, Default)]
pub struct Naming {
    guid: bool,
    real: bool,
    full: bool,
}

impl Naming {
    /// As the options say.
    pub fn of(typed: &Typed) -> Self {
        Self { guid: typed.has('g'), real: typed.has('L'), full: typed.has('P') }
    }

    /// What a vdev is called.
    pub fn name(self, v: &VdevConfig, vdevs: &VdevSet) -> String {
        let path = v.path.as_ref().filter(|_| v.kind.is_leaf());
        let real = || {
            let path = std::fs::canonicalize(path?).ok()?;
            let short = path.strip_prefix("/dev").ok().filter(|_| !self.full);
            Some(short.unwrap_or(&path).display().to_string())
        };
        match path {
            _ if self.guid => v.guid.to_string(),
            Some(path) if self.full && !self.real => path.clone(),
            _ => real().filter(|_| self.real).unwrap_or_else(|| display_name(v, vdevs)),
        }
    }
}

/// As `zpool status` names a vdev: the last part of the path of a device, the whole path of a file, which is
/// where it lies now and not where its label says it lay.
pub fn display_name(v: &VdevConfig, vdevs: &VdevSet) -> String {
    let here = vdevs.leaves().iter().find(|l| l.guid == v.guid).and_then(|l| l.device());
    if let Some(image) = here.filter(|d| d.is_file()) {
        return image.name();
    }
    match (&v.path, v.kind.is_leaf()) {
        (Some(path), true) if path.starts_with("/dev/") => {
            Path::new(path).file_name().map_or(path.clone(), |n| n.to_string_lossy().into_owned())
        }
        (Some(path), true) => path.clone(),
        (None, true) => v.guid.to_string(),
        _ => v.name(v.id.unwrap_or(0)),
    }
}
