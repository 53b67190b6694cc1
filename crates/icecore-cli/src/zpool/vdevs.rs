//! Vdev specifications, as `zpool create` and `zpool add` take them (zpool_vdev.c): devices are named, looked at and compared
//! before the first is written.

use crate::args::Typed;
use crate::fail::{Fail, Outcome};
use crate::state;
use icecore_env::{Access, Device, Env, FileDevice};
use icecore_pool::Pool;
use icecore_vdev::VdevError;
use icecore_vdev::create::{self, NewKind, NewLeaf, NewTop, NewTree};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Devices of a mirror may differ by this many bytes (`ZPOOL_FUZZ`).
const FUZZ: u64 = 16 << 20;

/// Sector sizes that vdevs can have, as powers of two (`ASHIFT_MIN`, `ASHIFT_MAX`, zfs.h).
pub const ASHIFT: std::ops::RangeInclusive<u64> = 9..=16;

/// Top-level vdevs with their devices.
pub type Groups = Vec<(NewKind, Vec<Member>)>;

/// How devices are taken.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// What they hold may be overwritten.
    pub in_use: bool,
    /// Top-level vdevs may be as unlike each other as they like.
    pub mismatch: bool,
    /// Nothing will be written.
    pub dry: bool,
    /// The pool they are to be added to.
    pub pool: Option<&'a Pool>,
}

/// The devices that `words` name, each fit to be taken.
pub fn members(words: &[String], terms: Terms<'_>) -> Outcome<Groups> {
    let (mut groups, mut wrong, mut seen) = (Groups::new(), Vec::new(), Vec::new());
    let (mut shapes, mut not_here) = (Vec::new(), None);
    for Asked { word, paths } in layout(words, terms)? {
        let mut members = Vec::new();
        for path in paths {
            // What is named twice is opened once; that it is twice is found later.
            let same = identity(&path);
            if let Some((_, device)) = seen.iter().find(|(known, _)| *known == same) {
                let member = Member { device: Arc::clone(device), path, whole_disk: None };
                members.push(member);
                continue;
            }
            match Member::look(&path, terms.in_use, terms.dry)? {
                Ok(member) => {
                    seen.push((same, Arc::clone(&member.device)));
                    members.push(member);
                }
                Err(line) => wrong.push(line),
            }
        }
        if !CLASSES.contains(&word) {
            shapes.push(Shape::of(word, &members));
        }
        match word {
            "" => groups.push((NewKind::Single, members)),
            "mirror" => groups.push((NewKind::Mirror, members)),
            _ => not_here = not_here.or(Some(word)),
        }
    }
    if wrong.is_empty() && !terms.mismatch {
        mismatches(shapes, terms.pool, &mut wrong);
    }
    match not_here {
        _ if !wrong.is_empty() => Err(stands_against(&wrong, terms.in_use)),
        Some(word) => Err(Fail::new(format!(
            "invalid vdev specification: '{word}' is not supported yet; single disks and mirrors are"
        ))),
        None => Ok(groups),
    }
}

/// A group of devices as it was typed.
struct Asked<'a> {
    /// What it begins with; nothing of a device by itself.
    word: &'a str,
    paths: Vec<PathBuf>,
}

/// What keeps devices that are fit from being a pool's.
#[derive(Debug)]
pub enum Unfit {
    /// Two are the same.
    Same(PathBuf),
    /// Less than 64 MiB.
    Small(PathBuf),
    /// In words.
    Other(String),
}

impl Unfit {
    /// As `zpool_create` says it (libzfs_pool.c), and of which device.
    pub fn of_new_pool(&self) -> String {
        match self {
            Self::Same(path) => format!(
                "one or more vdevs refer to the same device, or one of\nthe devices is part of an active md or lvm device\n({} is named more than once)",
                path.display()
            ),
            Self::Small(path) => format!(
                "one or more devices is less than the minimum size (64M)\n({} is too small)",
                path.display()
            ),
            Self::Other(why) => why.clone(),
        }
    }
    /// As `zpool_add` says it.
    pub fn of_old_pool(&self) -> String {
        match self {
            Self::Same(path) => {
                format!(
                    "one or more vdevs refer to the same device\n({} is named more than once)",
                    path.display()
                )
            }
            Self::Small(path) => {
                format!("device is less than the minimum size (64M)\n({} is too small)", path.display())
            }
            Self::Other(why) => why.clone(),
        }
    }
}

/// What each `-o` says of `ashift`, which is all that devices of a pool that is there may be told.
pub fn ashift_options<'a>(typed: &'a Typed, usage: &'a str) -> impl Iterator<Item = Outcome<&'a str>> {
    typed.values('o').enumerate().map(move |(at, o)| match o.split_once('=') {
        None => Err(Fail::usage(super::create::missing_equals('o').message, usage)),
        Some(("ashift", _)) if at > 0 => {
            Err(Fail::usage("property 'ashift' specified multiple times", usage))
        }
        Some(("ashift", text)) => Ok(text),
        Some((p, _)) => Err(Fail::usage(format!("property '{p}' cannot be set here"), usage)),
    })
}

/// The value of `-o ashift`; `None` for what suits the devices.
pub fn ashift(text: &str) -> Outcome<Option<u64>> {
    let n = icecore_dsl::prop::size(text).map_err(|_| Fail::new("ashift must be a number."))?;
    if n != 0 && !ASHIFT.contains(&n) {
        return Err(Fail::new(format!(
            "invalid 'ashift={n}' property: only values between {} and {} are allowed.",
            ASHIFT.start(),
            ASHIFT.end()
        )));
    }
    Ok((n != 0).then_some(n))
}

/// Whether the layout can be had: none is named twice, none is too small.
pub fn check(groups: &Groups, ashift: Option<u64>) -> Result<(), Unfit> {
    let mut seen = Vec::new();
    for member in groups.iter().flat_map(|(_, members)| members) {
        let same = identity(&member.path);
        if seen.contains(&same) {
            return Err(Unfit::Same(member.path.clone()));
        }
        seen.push(same);
        let parted = member.whole_disk == Some(true);
        let device = &member.device;
        let least = icecore_vdev::SPA_MINDEVSIZE;
        if device.size() < least
            || (parted && icecore_vdev::gpt::data_partition(device.size(), device.sector()).is_none())
        {
            return Err(Unfit::Small(member.path.clone()));
        }
    }
    built(groups, ashift).map(|_| ()).map_err(|e| Unfit::Other(e.to_string()))
}

/// The sector sizes, as powers of two, that the new top-level vdevs would have.
pub fn ashifts(groups: &Groups, ashift: Option<u64>) -> Vec<u64> {
    let root = built(groups, ashift).map(|tree| tree.root.children).unwrap_or_default();
    root.iter().filter_map(|top| top.ashift).collect()
}

/// The tree they would be, with whole disks as they are now.
fn built(groups: &Groups, ashift: Option<u64>) -> Result<NewTree, VdevError> {
    let tops = groups.iter().map(|(kind, members)| NewTop {
        kind: *kind,
        leaves: members.iter().map(|m| m.leaf(m.device.clone())).collect(),
        log: false,
        ashift,
    });
    create::build(tops.collect(), &*Env::os().entropy)
}

/// Takes them: whole disks are partitioned. Also the paths they are to be found by.
pub fn take(groups: Groups, ashift: Option<u64>) -> Outcome<(Vec<NewTop>, Vec<PathBuf>)> {
    let (mut tops, mut paths) = (Vec::new(), Vec::new());
    for (kind, members) in groups {
        paths.extend(members.iter().map(|m| m.path.clone()));
        let leaves = members.into_iter().map(Member::take).collect::<Outcome<_>>()?;
        tops.push(NewTop { kind, leaves, log: false, ashift });
    }
    Ok((tops, paths))
}

/// A top-level vdev as a dry run prints it.
pub fn show((kind, members): &(NewKind, Vec<Member>), full: bool) {
    let indent = if *kind == NewKind::Mirror {
        println!("\t  mirror");
        4
    } else {
        2
    };
    members.iter().for_each(|m| println!("\t{:indent$}{}", "", m.name(full)));
}

/// `[mirror] DEV…`: the top-level vdevs asked for, each device by its full path (`construct_spec`).
fn layout<'a>(words: &'a [String], terms: Terms<'_>) -> Outcome<Vec<Asked<'a>>> {
    let bad = |why: String| Fail::new(format!("invalid vdev specification: {why}"));
    let mut out: Vec<Asked<'a>> = Vec::new();
    let mut rest = words;
    for once in ["log", "spare", "cache"] {
        if words.iter().filter(|w| *w == once).count() > 1 {
            return Err(bad(format!("'{once}' can be specified only once")));
        }
    }
    if words.iter().all(|w| matches!(w.as_str(), "log" | "special" | "dedup")) {
        return Err(bad("at least one toplevel vdev must be specified".into()));
    }
    while let Some((word, after)) = rest.split_first() {
        let Some(least) = grouping(word) else {
            out.push(Asked { word: "", paths: vec![resolve(word)?] });
            rest = after;
            continue;
        };
        let end = after.iter().position(|w| grouping(w).is_some()).unwrap_or(after.len());
        let devices = after[..end].iter().map(|w| resolve(w)).collect::<Outcome<Vec<_>>>()?;
        // What holds no data by itself may begin with a mirror of its own.
        let inner = after.first().filter(|w| {
            CLASSES[..3].contains(&word.as_str()) && !CLASSES.contains(&w.as_str()) && grouping(w).is_some()
        });
        if let Some((inner, least)) = inner.and_then(|w| Some((w, grouping(w)?))) {
            if after[1..].iter().take_while(|w| grouping(w).is_none()).count() < least {
                return Err(bad(format!("{inner} requires at least {least} devices")));
            }
        } else if devices.len() < least {
            let devices =
                if matches!(word.as_str(), "log" | "special" | "dedup") { "device" } else { "devices" };
            return Err(bad(format!("{word} requires at least {least} {devices}")));
        }
        // What stands first of these holds all that follows (`num_normal_vdevs`).
        if terms.pool.is_none() && out.is_empty() && CLASSES.contains(&word.as_str()) {
            let none = "at least one general top-level vdev must be specified";
            return Err(stands_against(&[none.to_string()], terms.in_use));
        }
        out.push(Asked { word, paths: devices });
        rest = &after[end..];
    }
    Ok(out)
}

/// Words for vdevs that hold no data by themselves.
const CLASSES: [&str; 5] = ["log", "special", "dedup", "cache", "spare"];

/// The least number of devices of what begins a group (`is_grouping`).
fn grouping(word: &str) -> Option<usize> {
    match word {
        "mirror" => return Some(2),
        "spare" | "log" | "special" | "dedup" | "cache" => return Some(1),
        _ => {}
    }
    let parity = match word.strip_prefix("raidz") {
        Some(parity) => parity,
        None => word.strip_prefix("draid")?.split(':').next().unwrap_or(""),
    };
    match parity {
        "" | "1" => Some(2),
        "2" => Some(3),
        "3" => Some(4),
        _ => None,
    }
}

/// The full path of a device, which must be one (`make_leaf_vdev`). A path that is not absolute is one from the caller's
/// folder, which OpenZFS does not know.
pub fn resolve(word: &str) -> Outcome<PathBuf> {
    let path = full_path(word);
    let found = match std::fs::metadata(&path) {
        Ok(found) => found,
        Err(_) if word.starts_with('/') => return Err(Fail::new(format!("cannot resolve path '{word}'"))),
        Err(_) => {
            return Err(Fail::new(format!(
                "cannot open '{word}': no such device in /dev\nmust be a full path or shorthand device name"
            )));
        }
    };
    if found.file_type().is_block_device() || found.is_file() {
        return Ok(path);
    }
    Err(Fail::new(format!("cannot use '{}': must be a block device or regular file", path.display())))
}

/// All that is wrong with devices (`vdev_error`).
fn stands_against(lines: &[String], forced: bool) -> Fail {
    let head = match forced {
        false => "use '-f' to override the following errors:",
        true => "the following errors must be manually repaired:",
    };
    Fail::new(format!("invalid vdev specification\n{head}\n{}", lines.join("\n")))
}

/// A device that may become part of a pool; nothing was written to it yet.
pub struct Member {
    pub device: Arc<dyn Device>,
    path: PathBuf,
    /// For block devices: whether it is a disk to be partitioned.
    whole_disk: Option<bool>,
}

impl Member {
    /// Opens the device that `word` names, if nothing stands against that.
    pub fn open(word: &str, force: bool) -> Outcome<Self> {
        if let Some(least) = grouping(word) {
            let why = match CLASSES[..3].contains(&word) {
                true => "at least one toplevel vdev must be specified".to_string(),
                false => format!("{word} requires at least {least} devices"),
            };
            return Err(Fail::new(format!("invalid vdev specification: {why}")));
        }
        Self::look(&resolve(word)?, force, false)?.map_err(|line| stands_against(&[line], force))
    }

    /// Opens it; or the line that says what stands against that.
    fn look(path: &Path, force: bool, dry: bool) -> Outcome<Result<Self, String>> {
        if let Some(at) = icecore_env::mounted_at(path) {
            return Err(Fail::new(format!(
                "cannot use '{}': it is mounted at {}",
                path.display(),
                at.display()
            )));
        }
        if let Some(pool) = imported_on(path)? {
            // Not even with -f: that pool is in use here, and its next command would find its data gone.
            return Ok(Err(format!("{} is part of active pool '{pool}'", path.display())));
        }
        let access = if dry { Access::ReadOnly } else { Access::Exclusive };
        let device = FileDevice::open(path, access)
            .map_err(|e| Fail::new(format!("cannot use '{}': {e}", path.display())))?;
        if let Some(holds) = create::holds(&device).filter(|_| !force) {
            return Ok(Err(format!("{} {holds}", path.display())));
        }
        let block = std::fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device());
        let whole_disk = block.then(|| is_whole_disk(path));
        Ok(Ok(Self { device: Arc::new(device), path: path.to_path_buf(), whole_disk }))
    }

    fn leaf(&self, device: Arc<dyn Device>) -> NewLeaf {
        NewLeaf { device, path: self.path.display().to_string(), whole_disk: self.whole_disk }
    }

    /// Partitions it, if it is a whole disk.
    pub fn take(self) -> Outcome<NewLeaf> {
        if self.whole_disk != Some(true) {
            return Ok(self.leaf(self.device.clone()));
        }
        let part = icecore_vdev::gpt::write(&self.device, &*Env::os().entropy)
            .map_err(|e| Fail::new(format!("cannot use '{}': {e}", self.path.display())))?;
        Ok(self.leaf(Arc::new(part)))
    }

    /// As `zpool status` would name it, or its full path.
    fn name(&self, full: bool) -> String {
        match (full, self.path.strip_prefix("/dev").ok().and_then(Path::file_name)) {
            (false, Some(name)) => name.to_string_lossy().into_owned(),
            _ => self.path.display().to_string(),
        }
    }
}

/// What matters of a top-level vdev where they are compared.
struct Shape {
    /// What it is, if it is of several.
    group: Option<&'static str>,
    /// File or disk, and its size, where that is known.
    sides: Vec<(&'static str, Option<u64>)>,
}

impl Shape {
    /// Of new devices behind `word`.
    fn of(word: &str, members: &[Member]) -> Self {
        let groups = ["mirror", "raidz", "draid"];
        let side = |m: &Member| (file(m.whole_disk.is_some()), Some(m.device.size()));
        Self {
            group: groups.into_iter().find(|g| word.starts_with(g)),
            sides: members.iter().map(side).collect(),
        }
    }
}

fn file(disk: bool) -> &'static str {
    if disk { "disk" } else { "file" }
}

/// How redundant a top-level vdev is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Level {
    kind: &'static str,
    sides: usize,
}

/// What differs among new top-level vdevs, and from those of the pool, if those are alike (`check_replication`).
fn mismatches(new: Vec<Shape>, pool: Option<&Pool>, wrong: &mut Vec<String>) {
    let mut of_pool = Vec::new();
    let current = pool.and_then(|pool| {
        let open = pool.io().vdevs().leaves();
        let size = |guid| Some(open.iter().find(|o| o.guid == guid)?.device()?.size());
        let tree = pool.config().vdev_tree.as_ref()?;
        let shapes = tree.children.iter().filter(|t| t.is_log != Some(1)).map(|top| Shape {
            group: (!top.kind.is_leaf()).then_some("mirror"),
            sides: top.leaves().iter().map(|l| (file(l.whole_disk.is_some()), size(l.guid))).collect(),
        });
        compare(shapes, &mut of_pool)
    });
    let Some(last) = compare(new.into_iter(), wrong) else { return };
    let Some(current) = current.filter(|_| of_pool.is_empty() && wrong.is_empty()) else { return };
    if current.kind != last.kind {
        wrong.push(format!(
            "mismatched replication level: pool uses {} and new vdev is {}",
            current.kind, last.kind
        ));
    } else if current.sides != last.sides {
        wrong.push(format!(
            "mismatched replication level: pool uses {}-way {} and new vdev uses {}-way {}",
            current.sides, current.kind, last.sides, last.kind
        ));
    }
}

/// The level of the last, and what differs within and among them (`get_replication`).
fn compare(shapes: impl Iterator<Item = Shape>, wrong: &mut Vec<String>) -> Option<Level> {
    let mut last: Option<Level> = None;
    for shape in shapes {
        let kind = match shape.group {
            Some(group) => group,
            None => shape.sides.first()?.0,
        };
        let level = Level { kind, sides: shape.sides.len() };
        for pair in shape.sides.windows(2) {
            let differ = pair[0].1.zip(pair[1].1).is_some_and(|(a, b)| a.abs_diff(b) > FUZZ);
            if pair[0].0 != pair[1].0 {
                wrong.push(format!("mismatched replication level: {kind} contains both files and devices"));
                break;
            }
            if differ {
                wrong.push(format!("{kind} contains devices of different sizes"));
                break;
            }
        }
        match last {
            Some(last) if last.kind != level.kind => wrong.push(format!(
                "mismatched replication level: both {} and {} vdevs are present",
                last.kind, level.kind
            )),
            Some(last) if last.sides != level.sides => wrong.push(format!(
                "mismatched replication level: both {}-way and {}-way {} vdevs are present",
                last.sides, level.sides, level.kind
            )),
            _ => {}
        }
        last = Some(level);
    }
    last
}

pub fn full_path(name: &str) -> PathBuf {
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
        let (good, small, other) = (file("good", 96), file("small", 66), file("other", 96));
        let disk = |path: &Path| {
            let member = Member::look(path, false, false).unwrap().unwrap();
            Member { whole_disk: Some(true), ..member }
        };
        let said = |second: &Path| {
            let groups = vec![(NewKind::Mirror, vec![disk(&good), disk(second)])];
            check(&groups, None).map(|()| groups)
        };
        assert!(matches!(said(&small), Err(Unfit::Small(path)) if path == small));
        let same = Member::look(&good, false, true).unwrap().unwrap();
        assert!(matches!(check(&vec![(NewKind::Mirror, vec![same, disk(&other)])], None), Ok(())));
        assert!(std::fs::read(&good).unwrap().iter().all(|b| *b == 0), "it was written to");
        let (_, members) = said(&other).unwrap().remove(0);
        members.into_iter().for_each(|m| drop(m.take().unwrap()));
        for path in [&good, &other] {
            assert_eq!(std::fs::read(path).unwrap()[512..520], *b"EFI PART");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
