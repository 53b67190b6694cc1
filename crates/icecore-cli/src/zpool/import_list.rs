//! What `zpool import` without a pool says of each pool it found (`show_import`, zpool_main.c).
//!
//! The pool is opened for reading where that works, as OpenZFS does: only the MOS knows what a top-level vdev is
//! for, which were removed, and the spares. Where it does not, the labels must do, and why is said.

use super::import::display_name;
use super::status::errata_lines;
use crate::session;
use icecore_env::Env;
use icecore_pool::metaslab::Class;
use icecore_pool::{Mode, OpenSpec, Pool, PoolError};
use icecore_vdev::probe::{FoundPool, Unlabelled};
use icecore_vdev::tree::Health;
use icecore_vdev::{PoolState, VdevConfig, VdevKind, VdevSet};
use std::fmt::Write;

/// The text on one pool.
pub fn show(found: &FoundPool, unlabelled: &[Unlabelled]) -> String {
    let opened = open(found);
    let report = Report::new(found, &opened);
    let mut out = String::new();
    let _ = report.write(&mut out, unlabelled);
    out
}

/// Opens it with the devices already at hand; nothing is locked or written.
fn open(found: &FoundPool) -> Result<Pool, PoolError> {
    let devices = found.devices.values().map(|c| c.device.clone()).collect();
    let pool = Some(found.guid.to_string());
    let spec =
        OpenSpec { devices, pool, mode: Mode::ReadOnly, force: true, host: session::host(), max_txg: None };
    Pool::open(Env::os(), spec)
}

struct Report<'a> {
    found: &'a FoundPool,
    pool: Result<&'a Pool, &'a PoolError>,
    vdevs: &'a VdevSet,
    health: Health,
}

/// What stands out about a pool, the gravest first (`check_status`, libzfs_status.c).
#[derive(PartialEq)]
enum Reason {
    OtherHost,
    Version,
    Features(Vec<String>),
    Missing,
    Faulted,
    Damaged(String),
    Offline,
    OldVersion,
    Errata(u64),
    Nothing,
}

impl<'a> Report<'a> {
    fn new(found: &'a FoundPool, opened: &'a Result<Pool, PoolError>) -> Self {
        let pool = opened.as_ref();
        let vdevs = pool.map_or(&found.vdevs, |p| p.io().vdevs());
        let health = if pool.is_ok() { vdevs.health() } else { Health::Unavail };
        Self { found, pool, vdevs, health }
    }

    fn reason(&self) -> Reason {
        let leaves = self.vdevs.leaves();
        let on = |field: Option<u64>| field.is_some_and(|v| v != 0);
        if self.found.other_host(session::host().id).is_some() {
            return Reason::OtherHost;
        }
        match self.pool {
            Err(PoolError::Version(_)) => return Reason::Version,
            Err(PoolError::UnsupportedRead(features)) => return Reason::Features(features.clone()),
            Err(PoolError::Devices(_)) => return Reason::Missing,
            Err(other) => return Reason::Damaged(other.to_string()),
            Ok(_) => {}
        }
        let gone = |l: &&icecore_vdev::Leaf| l.device().is_none() && !l.config.out_of_service();
        if leaves.iter().any(|l| on(l.config.faulted)) {
            Reason::Faulted
        } else if leaves.iter().any(|l| gone(&l)) {
            Reason::Missing
        } else if leaves.iter().any(|l| on(l.config.offline)) {
            Reason::Offline
        } else if self.found.version < 5000 {
            Reason::OldVersion
        } else {
            self.pool.ok().and_then(Pool::errata).map_or(Reason::Nothing, Reason::Errata)
        }
    }

    fn write(&self, out: &mut String, unlabelled: &[Unlabelled]) -> std::fmt::Result {
        let found = self.found;
        let destroyed = if found.state == PoolState::DESTROYED { " (DESTROYED)" } else { "" };
        writeln!(out, "  pool: {}\n    id: {}\n state: {}{destroyed}", found.name, found.guid, self.health)?;
        let reason = self.reason();
        if let Some(status) = self.status(&reason) {
            writeln!(out, "status: {status}")?;
        }
        writeln!(out, "action: {}", self.action(&reason))?;
        if let Some(comment) = &found.config.comment {
            writeln!(out, "comment: {comment}")?;
        }
        writeln!(out, "config:\n")?;
        self.config(out)?;
        self.remarks(out, unlabelled)
    }

    fn status(&self, reason: &Reason) -> Option<String> {
        Some(match reason {
            Reason::OtherHost => match self.found.other_host(session::host().id) {
                Some((id, name)) => {
                    format!("The pool was last accessed by another system ({name}, hostid={id:x}).")
                }
                None => "The pool was last accessed by another system.".into(),
            },
            Reason::Version => "The pool is formatted using an incompatible version.".into(),
            Reason::Features(names) => format!(
                "The pool uses the following feature(s) not supported on this system:\n\t{}",
                names.join("\n\t")
            ),
            Reason::Missing => "One or more devices are missing from the system.".into(),
            Reason::Faulted => "One or more devices are faulted.".into(),
            Reason::Damaged(why) => format!("The pool cannot be read.\n\t{why}"),
            Reason::Offline => "One or more devices are offlined.".into(),
            Reason::OldVersion => "The pool is formatted using a legacy on-disk version.".into(),
            Reason::Errata(n) => errata_lines(*n)?.0.into(),
            Reason::Nothing => return None,
        })
    }

    fn action(&self, reason: &Reason) -> &'static str {
        match (self.health, reason) {
            (Health::Online, Reason::OtherHost) => {
                "The pool can be imported using its name or numeric identifier and\n\tthe '-f' flag."
            }
            (Health::Online, Reason::OldVersion) => {
                "The pool can be imported using its name or numeric identifier, though\n\t\
                 some features will not be available without an explicit 'zpool upgrade'."
            }
            (Health::Online, Reason::Errata(n)) if errata_lines(*n).is_some() => {
                errata_lines(*n).map_or("", |(_, action)| action)
            }
            (Health::Online, _) => "The pool can be imported using its name or numeric identifier.",
            (Health::Degraded, _) => {
                "The pool can be imported despite missing or damaged devices.  The\n\t\
                 fault tolerance of the pool may be compromised if imported."
            }
            (Health::Unavail, Reason::Missing) => {
                "The pool cannot be imported. Attach the missing\n\tdevices and try again."
            }
            (Health::Unavail, Reason::Version | Reason::Features(_)) => {
                "The pool cannot be imported. Access it on a system with newer software."
            }
            (Health::Unavail, _) => "The pool cannot be imported due to damaged devices or data.",
        }
    }

    /// The tree: what holds everything first, then each class under its own heading, then caches and spares.
    fn config(&self, out: &mut String) -> std::fmt::Result {
        let root = self.vdevs.config();
        let class = |i: usize, c: &VdevConfig| match self.pool {
            Ok(pool) => pool.class(i),
            Err(_) => c.holds_log().then_some(Class::Log),
        };
        let tops: Vec<(Option<Class>, &VdevConfig)> =
            root.children.iter().enumerate().map(|(i, c)| (class(i, c), c)).collect();
        let width = root.children.iter().map(|c| widest(c, 2, self.vdevs)).max().unwrap_or(0);
        let width = width.max(self.found.name.len()).max(10);
        let why = if self.health == Health::Unavail { "  missing device" } else { "" };
        writeln!(out, "\t{:width$}  {}{why}", self.found.name, self.health)?;
        let normal = |c: &Option<Class>| matches!(c, None | Some(Class::Normal));
        for (_, top) in tops.iter().filter(|(c, _)| normal(c)) {
            self.vdev(out, top, 2, width)?;
        }
        for (heading, device) in [("cache", true), ("spares", false)] {
            let devices = self.pool.ok().and_then(|p| if device { p.caches() } else { p.spares() }.ok());
            let devices = devices.unwrap_or_default();
            if !devices.is_empty() {
                writeln!(out, "\t{heading}")?;
            }
            devices.iter().try_for_each(|d| writeln!(out, "\t  {}", display_name(d, self.vdevs)))?;
        }
        for (wanted, heading) in [(Class::Dedup, "dedup"), (Class::Special, "special"), (Class::Log, "logs")]
        {
            let mut of_class = tops.iter().filter(|(c, _)| *c == Some(wanted)).peekable();
            if of_class.peek().is_some() {
                writeln!(out, "\t{heading}\t")?;
            }
            of_class.try_for_each(|(_, top)| self.vdev(out, top, 2, width))?;
        }
        Ok(())
    }

    fn vdev(&self, out: &mut String, v: &VdevConfig, depth: usize, width: usize) -> std::fmt::Result {
        if v.is_hole() || v.kind == VdevKind::Missing {
            return Ok(());
        }
        writeln!(
            out,
            "\t{:depth$}{:w$}  {}",
            "",
            display_name(v, self.vdevs),
            state(v, self.vdevs),
            w = width - depth
        )?;
        v.children.iter().try_for_each(|c| self.vdev(out, c, depth + 2, width))
    }

    /// What OpenZFS does not say: which devices, by path and guid, and what is odd about them.
    fn remarks(&self, out: &mut String, unlabelled: &[Unlabelled]) -> std::fmt::Result {
        let mut lines = Vec::new();
        if let Err(PoolError::Devices(why)) = self.pool {
            lines.push(why.clone());
        }
        for leaf in self.vdevs.leaves() {
            let path = leaf.config.path.as_deref().unwrap_or("no path");
            if leaf.device().is_none() {
                lines.push(format!("missing: {path} (guid {}): {}", leaf.guid, leaf.absence()));
            } else if leaf.is_stale() {
                lines.push(format!("behind: {} (guid {}) has missed writes", leaf.name(), leaf.guid));
            }
        }
        for d in self.found.damaged_labels() {
            let faults: Vec<String> = d.faults.iter().map(|(l, why)| format!("{l} ({why})")).collect();
            lines.push(format!("damaged: labels {} of {} (guid {})", faults.join(", "), d.device, d.guid));
        }
        for device in unlabelled.iter().filter(|u| self.found.may_own(u)) {
            let path = device.path.display();
            lines.push(format!(
                "damaged: {path} seems to be one of the missing devices; none of its labels is sound"
            ));
        }
        for l in &self.found.left_over {
            lines.push(format!("not used: {} (guid {}): {}", l.device, l.guid, l.why));
        }
        if !lines.is_empty() {
            writeln!(out)?;
        }
        lines.iter().try_for_each(|l| writeln!(out, "\t{l}"))
    }
}

fn widest(v: &VdevConfig, depth: usize, vdevs: &VdevSet) -> usize {
    let below = v.children.iter().map(|c| widest(c, depth + 2, vdevs)).max().unwrap_or(0);
    below.max(depth + display_name(v, vdevs).len())
}

/// The state of a vdev, and of one that is not online what is wrong.
pub fn state(v: &VdevConfig, vdevs: &VdevSet) -> String {
    let on = |field: Option<u64>| field.is_some_and(|v| v != 0);
    if v.kind.is_leaf() {
        let leaf = vdevs.leaves().iter().find(|l| l.guid == v.guid);
        return match leaf {
            Some(l) if l.device().is_some() => "ONLINE",
            _ if on(v.offline) => "OFFLINE",
            _ if on(v.faulted) => "FAULTED",
            _ if on(v.removed) => "REMOVED",
            Some(l) if l.absence().starts_with("too small") => "UNAVAIL  invalid label",
            _ => "UNAVAIL  cannot open",
        }
        .into();
    }
    match vdevs.health_of(v.guid) {
        Some(Health::Unavail) | None => "UNAVAIL  insufficient replicas".into(),
        Some(health) => health.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use icecore_vdev::probe::{assemble, probe};
    use std::path::{Path, PathBuf};

    /// The lines of a `config:` block: depth, last part of the name, state.
    fn tree(text: &str) -> Vec<(usize, String, String)> {
        let block = text.split("config:\n\n").nth(1).unwrap().split("\n\n").next().unwrap();
        let lines = block.lines().filter_map(|l| l.strip_prefix('\t'));
        lines
            .filter(|l| !l.starts_with("NAME"))
            .map(|l| {
                let depth = l.len() - l.trim_start().len();
                let mut words = l.split_whitespace();
                let name = words.next().unwrap_or("").rsplit('/').next().unwrap_or("").to_owned();
                (depth, name, words.next().unwrap_or("").to_owned())
            })
            .collect()
    }

    fn below(dir: &Path, name: &str) -> Option<PathBuf> {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(dir).ok()?.map(|e| e.unwrap().path()).collect();
        entries.sort();
        let here = entries.iter().find(|p| p.file_name().is_some_and(|n| n == name));
        here.cloned().or_else(|| entries.iter().find_map(|p| below(p, name)))
    }

    /// The trees we show of pools to be imported are those that `zpool status` showed before they were exported.
    #[test]
    fn trees_are_those_of_zpool_status() {
        let (Some(zoo), Some(expected)) =
            (std::env::var_os("ICECORE_ZOO"), std::env::var_os("ICECORE_ZOO_EXPECTED"))
        else {
            eprintln!(
                "SKIPPED: ICECORE_ZOO and ICECORE_ZOO_EXPECTED do not name images and what OpenZFS said of them"
            );
            return;
        };
        let (zoo, expected) = (Path::new(&zoo), Path::new(&expected));
        let numbered = |stem: &str, n: usize| (0..n).map(|i| format!("{stem}-{i}.img")).collect::<Vec<_>>();
        for (pool, images) in [
            ("mir2", numbered("m", 2)),
            ("mir3", numbered("m3", 3)),
            ("stripe", numbered("st", 2)),
            ("rz1", numbered("rz1", 3)),
            ("rz2", numbered("rz2", 4)),
            ("rz3", numbered("rz3", 5)),
            ("dr", numbered("dr", 5)),
            ("special", numbered("sp", 3)),
            ("removed", numbered("rm", 2)),
            ("expanded", numbered("ex", 4)),
            ("v28", vec!["v28.img".into()]),
        ] {
            let paths: Vec<PathBuf> =
                images.iter().map(|i| below(zoo, i).unwrap_or_else(|| panic!("no {i}"))).collect();
            let seen = probe(&paths, &*Env::os().workers);
            let found = assemble(&seen.candidates).0;
            assert_eq!(found.len(), 1, "{pool}");
            let text = show(&found[0], &seen.unlabelled);
            let status = below(expected, &format!("{pool}.expected")).unwrap().join("status.txt");
            let status = std::fs::read_to_string(status).unwrap();
            // `zpool import` gives spares no state.
            let mut theirs = tree(&status);
            theirs.iter_mut().filter(|l| l.2 == "AVAIL").for_each(|l| l.2 = String::new());
            assert_eq!(tree(&text), theirs, "{text}");
            assert!(text.starts_with(&format!("  pool: {pool}\n    id: {}\n state: ", found[0].guid)));
        }
    }

    /// Each missing device is named by path and guid; one whose labels are all gone is recognised by its uberblocks.
    #[test]
    fn what_is_missing_or_damaged_is_named() {
        let dir = std::env::temp_dir().join(format!("icecore-import-list-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let paths = mirror(&dir);
        for (cut, must) in [
            (vec![0], "damaged: labels 0 (bad checksum) of"),
            (vec![0, 1, 2], "damaged: labels 0 (bad checksum), 1 (bad checksum), 2 (bad checksum) of"),
            (vec![0, 1, 2, 3], "none of its labels is sound"),
        ] {
            let damaged = dir.join("damaged.img");
            std::fs::copy(&paths[1], &damaged).unwrap();
            damage(&damaged, &cut);
            let seen = probe(&[paths[0].clone(), damaged.clone()], &*Env::os().workers);
            let found = assemble(&seen.candidates).0;
            assert_eq!(found.len(), 1);
            let text = show(&found[0], &seen.unlabelled);
            assert!(text.contains(must) && text.contains("damaged.img"), "{text}");
            let degraded = cut.len() == 4;
            assert_eq!(text.contains(" state: DEGRADED"), degraded, "{text}");
            assert_eq!(text.contains("UNAVAIL  cannot open"), degraded, "{text}");
        }
        let seen = probe(&paths[..1], &*Env::os().workers);
        let text = show(&assemble(&seen.candidates).0[0], &seen.unlabelled);
        assert!(text.contains("status: One or more devices are missing from the system."), "{text}");
        assert!(text.contains("missing: /sim/b.img (guid "), "{text}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    /// Overwrites the configuration in some labels of an image.
    fn damage(path: &Path, labels: &[u64]) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        let size = file.metadata().unwrap().len();
        for l in labels {
            let label = icecore_format::label::label_offset(size, *l).unwrap();
            let at = label + icecore_format::label::CONFIG_AT;
            file.write_all_at(&[0xa5; 64], at + 100).unwrap();
        }
    }

    /// A mirror made here, exported.
    fn mirror(dir: &Path) -> Vec<PathBuf> {
        use icecore_env::{Access, Device, FileDevice};
        use icecore_vdev::create::{NewKind, NewLeaf, NewTop, build};
        let paths = vec![dir.join("a.img"), dir.join("b.img")];
        let env = Env::os();
        let leaves = paths.iter().zip(["/sim/a.img", "/sim/b.img"]).map(|(file, path)| {
            std::fs::File::create(file).unwrap().set_len(64 << 20).unwrap();
            let device: std::sync::Arc<dyn Device> =
                std::sync::Arc::new(FileDevice::open(file, Access::Exclusive).unwrap());
            NewLeaf { device, path: path.into(), whole_disk: None }
        });
        let top = NewTop { kind: NewKind::Mirror, leaves: leaves.collect(), log: false, ashift: Some(12) };
        let tree = build(vec![top], &*env.entropy).unwrap();
        let spec = icecore_pool::CreateSpec {
            name: "pair".into(),
            root: tree.root,
            devices: tree.devices,
            host: session::host(),
            comment: None,
            features: icecore_pool::features::of_new_pools().collect(),
        };
        Pool::create(env, spec).unwrap().export().unwrap();
        paths
    }
}
