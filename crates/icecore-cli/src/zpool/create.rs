//! `zpool create` for single disks and mirrors.

use super::get::{canonical, number_of};
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::keys::CryptoProps;
use crate::state::{self, Imported};
use crate::{pools, session};
use icecore_dsl::{Feature, RootDataset};
use icecore_env::{Access, Device, Env, FileDevice};
use icecore_pool::features::{Unsaid, chosen};
use icecore_pool::{CreateSpec, Pool};
use icecore_vdev::create::{self, NewKind, NewLeaf, NewTop};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const USAGE: &str = "create [-dfn] [-o property=value] ... [-O file-system-property=value] ...\n\t    [-m mountpoint] [-R root] <pool> <vdev> ...";

pub fn run(args: &[String]) -> Outcome {
    let known = [
        flag('f', ""),
        flag('n', ""),
        flag('d', ""),
        value('o', ""),
        value('O', ""),
        value('m', ""),
        value('R', ""),
    ];
    let typed = Typed::parse(args, &known, USAGE)?;
    let [name, vdevs @ ..] = typed.operands.as_slice() else {
        return Err(Fail::usage("missing pool name argument", USAGE));
    };
    let fail = |why: String| Fail::new(format!("cannot create '{name}': {why}"));
    if vdevs.is_empty() {
        return Err(Fail::usage("missing vdev specification", USAGE));
    }
    if state::find(name)?.is_some() {
        return Err(fail("pool already exists".into()));
    }
    let unsaid = if typed.has('d') { Unsaid::Disabled } else { Unsaid::Enabled };
    let Options { ashift, comment, features, stored } = pool_options(&typed)?;
    let features = chosen(&features, unsaid).map_err(fail)?;
    let mut props: Vec<(String, String)> = Vec::new();
    for o in typed.values('O') {
        let (p, v) = crate::zfs::split(o).map_err(|f| Fail::usage(f.message, USAGE))?;
        props.push((p.into(), v.into()));
    }
    if let Some(m) = typed.value('m') {
        props.push(("mountpoint".into(), m.into()));
    }
    // Before anything is written to a device.
    let (mut crypto, mut root) =
        (CryptoProps::default(), RootDataset { who: session::who(), ..RootDataset::default() });
    let mut later: Vec<(String, String)> = Vec::new();
    for (p, v) in &props {
        let taken = crypto.take(p, v).map_err(|f| fail(f.message))?;
        if taken || root.zpl.take(p, v).map_err(|e| fail(e.to_string()))? {
            continue;
        }
        icecore_dsl::prop::parse_new(p, v).map_err(|e| fail(format!("property '{p}': {e}")))?;
        later.push((p.clone(), v.clone()));
    }
    let suite = crypto.root_suite(features.contains(&Feature::ENCRYPTION)).map_err(|f| fail(f.message))?;
    check_name(name).map_err(fail)?;
    for (p, m) in &props {
        if p == "mountpoint" && !(m.starts_with('/') || m == "legacy" || m == "none") {
            return Err(fail(format!(
                "invalid mountpoint '{m}': must be an absolute path, 'legacy', or 'none'"
            )));
        }
    }
    let groups = layout(vdevs)?;
    let (force, dry) = (typed.has('f'), typed.has('n'));
    let groups = check(groups, ashift, |path| Member::open(path, force, dry))?;
    if dry {
        println!("would create '{name}' with the following layout:\n\n\t{name}");
        groups.iter().for_each(show);
        return Ok(());
    }
    state::can_remember(name).map_err(|f| fail(f.message))?;
    if let Some(suite) = suite.filter(|_| !dry) {
        root.key = Some(crypto.new_key(None, suite).map_err(|f| fail(f.message))?);
    }
    // From here on devices are written.
    let mut tops = Vec::new();
    let mut paths = Vec::new();
    for (kind, members) in groups {
        paths.extend(members.iter().map(|m| m.path.clone()));
        let leaves = members.into_iter().map(Member::take).collect::<Outcome<_>>()?;
        tops.push(NewTop { kind, leaves, log: false, ashift });
    }
    let env = Env::os();
    let tree = create::build(tops, &*env.entropy).map_err(|e| fail(e.to_string()))?;
    let spec = CreateSpec {
        name: name.clone(),
        root: tree.root,
        devices: tree.devices,
        host: session::host(),
        comment,
        features,
    };
    let mut pool = Pool::create_with(env, spec, &root).map_err(|e| fail(e.to_string()))?;
    for (p, n) in &stored {
        pool.set_property(p, *n).map_err(|e| fail(format!("property '{p}': {e}")))?;
    }
    if !later.is_empty() {
        let (io, dsl) = pool.parts();
        for (p, v) in &later {
            dsl.prop_set(io, name, p, v).map_err(|e| fail(format!("property '{p}': {e}")))?;
        }
    }
    // The first record of a pool's history stays for ever: how it was made.
    if let Some((line, uid)) = crate::caller::command_line() {
        let _ = pool.log_command(&line, uid);
    }
    pool.commit()?;
    let record = Imported {
        name: name.clone(),
        guid: pool.guid().0,
        devices: paths,
        readonly: false,
        altroot: typed.value('R').unwrap_or("").into(),
        max_txg: None,
        salvage: false,
    };
    state::remember(&record)?;
    pools::adopt(&record, pool)?;
    crate::mounts::settle_below(&record.name)?;
    Ok(())
}

/// What `-o` may say.
#[derive(Default)]
struct Options {
    ashift: Option<u64>,
    comment: Option<String>,
    /// Short names, and whether they are wanted.
    features: Vec<(String, bool)>,
    /// Properties to be stored, each with the number for its value.
    stored: Vec<(String, u64)>,
}

fn pool_options(typed: &Typed) -> Outcome<Options> {
    let mut options = Options::default();
    for o in typed.values('o') {
        let (p, v) = crate::zfs::split(o).map_err(|f| Fail::usage(f.message, USAGE))?;
        match p {
            "ashift" => {
                let n: u64 =
                    v.parse().map_err(|_| Fail::new(format!("bad property value '{v}' for 'ashift'")))?;
                if n != 0 && !(9..=16).contains(&n) {
                    return Err(Fail::new(format!(
                        "invalid 'ashift={n}' property: only values between 9 and 16 are allowed."
                    )));
                }
                options.ashift = (n != 0).then_some(n);
            }
            "comment" => options.comment = Some(v.to_string()),
            // There is no cache file here, and no host but this one reads along.
            "cachefile" if v == "none" => {}
            "cachefile" => {
                return Err(Fail::new(
                    "property 'cachefile' can only be 'none' here: there is no cache file",
                ));
            }
            "compatibility" if v == "off" => {}
            "compatibility" => {
                return Err(Fail::new(
                    "property 'compatibility' can only be 'off' here: choose features by '-o feature@NAME=enabled'",
                ));
            }
            "multihost" if v == "on" => {
                return Err(Fail::new(
                    "property 'multihost' cannot be 'on' here: Icecore does not write for it",
                ));
            }
            p if p.starts_with("feature@") => {
                let on = match v {
                    "enabled" => true,
                    "disabled" => false,
                    _ => {
                        return Err(Fail::new(format!(
                            "property '{p}' can only be set to 'enabled' or 'disabled'"
                        )));
                    }
                };
                options.features.push((p["feature@".len()..].to_string(), on));
            }
            p if number_of(canonical(p), v).is_some() => match number_of(canonical(p), v).flatten() {
                Some(n) => options.stored.push((canonical(p).to_string(), n)),
                None => return Err(Fail::new(format!("bad property value '{v}' for '{p}'"))),
            },
            p => return Err(Fail::new(format!("property '{p}' is not a valid pool or vdev property"))),
        }
    }
    Ok(options)
}

/// `[mirror] DEV…`: the top-level vdevs asked for.
fn layout(words: &[String]) -> Outcome<Vec<(NewKind, Vec<String>)>> {
    let mut out: Vec<(NewKind, Vec<String>)> = Vec::new();
    let mut grouped = false;
    for w in words {
        match w.as_str() {
            "mirror" => {
                out.push((NewKind::Mirror, Vec::new()));
                grouped = true;
            }
            "raidz" | "raidz1" | "raidz2" | "raidz3" | "draid" | "log" | "cache" | "spare" | "special"
            | "dedup" => {
                return Err(Fail::new(format!(
                    "invalid vdev specification: '{w}' is not supported for new pools yet; single disks and mirrors are"
                )));
            }
            dev if grouped => {
                if let Some(last) = out.last_mut() {
                    last.1.push(dev.into());
                }
            }
            dev => out.push((NewKind::Single, vec![dev.into()])),
        }
    }
    match out.iter().find(|(k, m)| *k == NewKind::Mirror && m.len() < 2) {
        Some(_) => Err(Fail::new("invalid vdev specification: mirror requires at least 2 devices")),
        None => Ok(out),
    }
}

/// A device that may become part of the pool; nothing was written to it yet.
pub(super) struct Member {
    pub(super) device: Arc<dyn Device>,
    path: PathBuf,
    /// For block devices: whether it is a disk to be partitioned.
    whole_disk: Option<bool>,
}

impl Member {
    /// Opens it, if nothing stands against that.
    pub(super) fn open(path: &Path, force: bool, dry: bool) -> Outcome<Self> {
        let fail = |why: String| Fail::new(format!("cannot use '{}': {why}", path.display()));
        if let Some(at) = icecore_env::mounted_at(path) {
            return Err(fail(format!("it is mounted at {}", at.display())));
        }
        if let Some(pool) = imported_on(path)? {
            // Not even with -f: that pool is in use here, and its next command would find its data gone.
            return Err(fail(format!(
                "it is part of pool '{pool}', which is imported here; export or forget that pool first"
            )));
        }
        let access = if dry { Access::ReadOnly } else { Access::Exclusive };
        let device: Arc<dyn Device> =
            Arc::new(FileDevice::open(path, access).map_err(|e| fail(e.to_string()))?);
        if !force {
            create::check_unused(&*device).map_err(|e| {
                Fail::new(format!(
                    "invalid vdev specification\nuse '-f' to override the following errors:\n{}: {e}",
                    path.display()
                ))
            })?;
        }
        let block = std::fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device());
        let whole_disk = block.then(|| is_whole_disk(path));
        Ok(Self { device, path: path.to_path_buf(), whole_disk })
    }

    fn leaf(&self, device: Arc<dyn Device>) -> NewLeaf {
        NewLeaf { device, path: self.path.display().to_string(), whole_disk: self.whole_disk }
    }

    /// Partitions it, if it is a whole disk.
    pub(super) fn take(self) -> Outcome<NewLeaf> {
        if self.whole_disk != Some(true) {
            return Ok(self.leaf(self.device.clone()));
        }
        let part = icecore_vdev::gpt::write(&self.device, &*Env::os().entropy)
            .map_err(|e| Fail::new(format!("cannot use '{}': {e}", self.path.display())))?;
        Ok(self.leaf(Arc::new(part)))
    }
}

/// Opens and checks all devices before the first is written: each alone, that none is named twice, and whether the
/// layout can be had.
fn check(
    groups: Vec<(NewKind, Vec<String>)>,
    ashift: Option<u64>,
    open: impl Fn(&Path) -> Outcome<Member>,
) -> Outcome<Vec<(NewKind, Vec<Member>)>> {
    let mut seen = Vec::new();
    let mut out = Vec::new();
    for (kind, names) in groups {
        let mut members = Vec::new();
        for name in names {
            let path = full_path(&name);
            let same = identity(&path);
            if seen.contains(&same) {
                return Err(Fail::new(format!(
                    "invalid vdev specification: '{}' is named more than once",
                    path.display()
                )));
            }
            seen.push(same);
            let member = open(&path)?;
            if member.whole_disk == Some(true)
                && icecore_vdev::gpt::data_partition(member.device.size(), member.device.sector()).is_none()
            {
                return Err(Fail::new(format!("cannot use '{}': device is too small", path.display())));
            }
            members.push(member);
        }
        out.push((kind, members));
    }
    let tops = out.iter().map(|(kind, members): &(NewKind, Vec<Member>)| NewTop {
        kind: *kind,
        leaves: members.iter().map(|m| m.leaf(m.device.clone())).collect(),
        log: false,
        ashift,
    });
    create::build(tops.collect(), &*Env::os().entropy)
        .map_err(|e| Fail::new(format!("invalid vdev specification: {e}")))?;
    Ok(out)
}

pub(super) fn full_path(name: &str) -> PathBuf {
    if name.contains('/') {
        std::path::absolute(name).unwrap_or_else(|_| name.into())
    } else {
        Path::new("/dev").join(name)
    }
}

/// What tells a device from others, by whatever name it goes.
fn identity(path: &Path) -> (u64, u64, PathBuf) {
    match std::fs::metadata(path) {
        Ok(m) if m.file_type().is_block_device() => (0, m.rdev(), PathBuf::new()),
        Ok(m) => (m.dev(), m.ino(), PathBuf::new()),
        Err(_) => (0, 0, path.to_path_buf()),
    }
}

/// A top-level vdev as `zpool create -n` prints it.
fn show((kind, members): &(NewKind, Vec<Member>)) {
    let indent = if *kind == NewKind::Mirror {
        println!("\t  mirror");
        4
    } else {
        2
    };
    members.iter().for_each(|m| println!("\t{:indent$}{}", "", m.path.display()));
}

/// Names that no new pool may have: those of `pool_namecheck`, and what begins like a vdev (`zpool_name_valid`,
/// libzfs_pool.c).
pub(super) fn check_name(name: &str) -> Result<(), String> {
    icecore_dsl::name::check_pool(name).map_err(|e| e.to_string())?;
    let vdev_like = ["mirror", "raidz", "draid", "spare"].iter().any(|p| name.starts_with(p));
    if vdev_like || name == "log" { Err("name is reserved".into()) } else { Ok(()) }
}

/// The imported pool that has the device at `path`, by whatever name.
pub fn imported_on(path: &Path) -> Outcome<Option<String>> {
    let real = |p: &Path| std::fs::canonicalize(p).unwrap_or_else(|_| p.to_path_buf());
    let path = real(path);
    Ok(state::all()?.into_iter().find(|p| p.devices.iter().any(|d| real(d) == path)).map(|p| p.name))
}

/// A disk that can be partitioned, as against a partition or a volume: the kernel lists it so.
fn is_whole_disk(path: &Path) -> bool {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let Some(name) = real.file_name() else { return false };
    let sys = Path::new("/sys/class/block").join(name);
    sys.join("device").exists() && !sys.join("partition").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Disks are only partitioned when all of them will do.
    #[test]
    fn no_disk_is_written_before_all_are_checked() {
        let dir = std::env::temp_dir().join(format!("icecore-create-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = |name: &str, mib: u64| {
            let path = dir.join(name);
            std::fs::File::create(&path).unwrap().set_len(mib << 20).unwrap();
            path
        };
        let (good, small) = (file("good", 96), file("small", 66));
        let disk =
            |path: &Path| Member::open(path, false, false).map(|m| Member { whole_disk: Some(true), ..m });
        let pair = |second: &Path| {
            let names = [&good, second].map(|p| p.display().to_string()).to_vec();
            check(vec![(NewKind::Mirror, names)], None, disk)
        };
        for (second, must) in
            [(small.as_path(), "too small"), (&dir.join("none"), "none"), (&good, "more than once")]
        {
            let said = pair(second).err().expect("refused").message;
            assert!(said.contains(must), "{said}");
            assert!(std::fs::read(&good).unwrap().iter().all(|b| *b == 0), "{said}: it was written to");
        }
        let other = file("other", 96);
        let (_, members) = pair(&other).unwrap().remove(0);
        members.into_iter().for_each(|m| drop(m.take().unwrap()));
        for path in [&good, &other] {
            assert_eq!(std::fs::read(path).unwrap()[512..520], *b"EFI PART");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
