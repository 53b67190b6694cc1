//! `zpool status -j` (`status_callback_json`, zpool_main.c): pools, what stands in the way of their use, the last scan, the
//! tree of vdevs, and what was lost. Numbers that are zero or that nobody here keeps are left out where OpenZFS leaves out
//! zeros.

use super::errors;
use super::import::display_name;
use super::json::head;
use super::status::{Seen, errors_of, state_of, unopened};
use crate::args::Typed;
use crate::human;
use crate::numbers::Numbers;
use crate::state::Imported;
use icecore_format::Guid;
use icecore_pool::metaslab::Class;
use icecore_pool::scan::ScanStatus;
use icecore_pool::scan::phys::{CANCELED, FINISHED, RESILVER, SCANNING, SCRUB};
use icecore_vdev::VdevConfig;
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// Prints these pools.
pub fn print(asked: &[&Imported], typed: &Typed) {
    let mut pools = Object::new();
    for record in asked {
        if let Some(pool) = pool(record, typed) {
            let key = if typed.has('G') { record.guid.to_string() } else { record.name.clone() };
            pools.insert(key, pool.into());
        }
    }
    super::json::print("zpool status", pools);
}

/// One pool; `None` if it is healthy and only trouble was asked for.
fn pool(record: &Imported, typed: &Typed) -> Option<Object> {
    let numbers = Numbers::of(typed);
    let seen = match Seen::of(record) {
        Ok(seen) => seen,
        Err(n) => {
            let mut out = Object::new();
            out.insert("name".into(), record.name.clone().into());
            out.insert("state".into(), super::status::state_unopened(n.why).into());
            out.insert("pool_guid".into(), numbers.exact(record.guid));
            out.extend(reason(&unopened(record, &n)));
            return Some(out);
        }
    };
    if typed.has('x') && seen.is_well() {
        return None;
    }
    let mut out = head(seen.pool(), record, numbers);
    out.extend(reason(&seen.reason()));
    if let Some(scan) = &seen.scan {
        out.insert("scan_stats".into(), scan_stats(scan, numbers).into());
    }
    let tree = Tree { seen: &seen, numbers, flat: typed.has('F') };
    tree.all(&record.name, &mut out);
    out.insert("error_count".into(), numbers.shown(seen.lost, human::number));
    if seen.lost > 0 && typed.has('v') {
        let list = match errors::files(seen.pool()) {
            Ok(files) => files.into(),
            Err(e) => Value::from(e.to_string()),
        };
        out.insert("errlist".into(), list);
    }
    Some(out)
}

/// The lines of `zpool status` that begin with `status:`, `action:` and `see:`.
fn reason(text: &str) -> Object {
    let mut out = Object::new();
    let mut last = None;
    for line in text.lines() {
        let (key, said) = match line.trim_start().split_once(": ") {
            Some((key @ ("status" | "action" | "see"), said)) => (Some(key), said),
            Some(("pool" | "state", _)) => (None, ""),
            _ => (last, line.trim_start()),
        };
        match key.and_then(|k| out.get_mut(k)) {
            Some(Value::String(said_before)) => *said_before += &format!(" {said}"),
            _ => drop(key.map(|k| out.insert(k.into(), said.into()))),
        }
        last = key;
    }
    if let Some(Value::String(see)) = out.remove("see") {
        out.insert("msgid".into(), see.rsplit('/').next().unwrap_or_default().into());
        out.insert("moreinfo".into(), see.into());
    }
    out
}

fn scan_stats(scan: &ScanStatus, numbers: Numbers) -> Object {
    let phys = &scan.phys;
    let function = match phys.func {
        SCRUB => "SCRUB",
        RESILVER => "RESILVER",
        _ => "NONE",
    };
    let state = match phys.state {
        SCANNING => "SCANNING",
        FINISHED => "FINISHED",
        CANCELED => "CANCELED",
        _ => "NONE",
    };
    let time = |n: u64| numbers.shown(n, |n| if n == 0 { "-".into() } else { human::time_with_zone(n) });
    let bytes = |n: u64| numbers.shown(n, human::bytes);
    let mut out = Object::new();
    for (key, value) in [
        ("function", function.into()),
        ("state", state.into()),
        ("start_time", time(phys.start)),
        ("end_time", time(phys.end)),
        ("to_examine", bytes(phys.to_examine)),
        ("examined", bytes(phys.examined)),
        ("skipped", bytes(phys.skipped)),
        ("processed", bytes(phys.processed)),
        ("errors", numbers.shown(phys.errors, human::number)),
        ("bytes_per_scan", bytes(scan.pass_exam)),
        ("pass_start", numbers.exact(scan.pass_start)),
        ("scrub_pause", time(scan.paused.unwrap_or(0))),
        ("scrub_spent_paused", numbers.exact(scan.spent_paused)),
        ("issued_bytes_per_scan", bytes(scan.pass_issued)),
        ("issued", bytes(scan.issued)),
    ] {
        out.insert(key.into(), value);
    }
    out
}

/// The vdevs of a pool on their way into JSON.
struct Tree<'a> {
    seen: &'a Seen,
    numbers: Numbers,
    /// `--json-flat-vdevs`: each vdev by itself too, with its parent's name.
    flat: bool,
}

impl Tree<'_> {
    /// The tree of data devices, and those with a class of their own.
    fn all(&self, name: &str, out: &mut Object) {
        let pool = self.seen.pool();
        let tops = &pool.io().vdevs().config().children;
        let mut vdevs = Object::new();
        self.root(name, tops, &mut vdevs);
        let mut classes: Vec<(&str, Object)> = Vec::new();
        for (group, class) in [("dedup", "dedup"), ("special", "special"), ("logs", "log")] {
            let mut of_class = Object::new();
            for top in tops.iter().filter(|t| !t.is_hole() && self.class(t) == class) {
                self.vdev(top, class, None, &mut of_class);
            }
            classes.push((group, of_class));
        }
        for (group, class, aux) in [("l2cache", "l2cache", pool.caches()), ("spares", "spare", pool.spares())]
        {
            let mut of_class = Object::new();
            for v in aux.unwrap_or_default() {
                let mut entry = self.head(&v, class);
                entry.insert("state".into(), if class == "spare" { "AVAIL" } else { "ONLINE" }.into());
                of_class.insert(display_name(&v, pool.io().vdevs()), entry.into());
            }
            classes.push((group, of_class));
        }
        for (group, of_class) in classes.into_iter().filter(|(_, c)| !c.is_empty()) {
            match self.flat {
                true => vdevs.extend(of_class),
                false => drop(out.insert(group.into(), of_class.into())),
            }
        }
        out.insert("vdevs".into(), vdevs.into());
    }

    fn root(&self, name: &str, tops: &[VdevConfig], into: &mut Object) {
        let pool = self.seen.pool();
        let mut out = Object::new();
        out.insert("name".into(), name.into());
        out.insert("vdev_type".into(), "root".into());
        out.insert("guid".into(), self.numbers.exact(pool.guid().0));
        out.insert("class".into(), "normal".into());
        out.insert("state".into(), word(&super::status::health(pool.io().vdevs()).to_string()).into());
        let sum = (0..tops.len())
            .filter_map(|i| pool.space_of(i))
            .fold([0; 3], |sum: [u64; 3], s| [sum[0] + s.allocated, sum[1] + s.size, sum[2] + s.dspace]);
        self.space(&mut out, sum);
        self.errors(&mut out, None);
        let mut below = Object::new();
        for top in tops.iter().filter(|t| !t.is_hole() && self.class(t) == "normal") {
            if self.flat {
                self.vdev(top, "normal", Some(name), into);
            }
            self.vdev(top, "normal", Some(name), &mut below);
        }
        out.insert("vdevs".into(), below.into());
        into.insert(name.into(), out.into());
    }

    /// What a top-level vdev is for.
    fn class(&self, top: &VdevConfig) -> &'static str {
        let index = top.id.and_then(|id| usize::try_from(id).ok());
        match index.and_then(|i| self.seen.pool().class(i)) {
            _ if top.holds_log() => "log",
            Some(Class::Special) => "special",
            Some(Class::Dedup) => "dedup",
            Some(Class::Log) => "log",
            _ => "normal",
        }
    }

    fn head(&self, v: &VdevConfig, class: &str) -> Object {
        let mut out = Object::new();
        out.insert("name".into(), display_name(v, self.seen.pool().io().vdevs()).into());
        out.insert("vdev_type".into(), v.kind.name().into());
        out.insert("guid".into(), self.numbers.exact(v.guid.0));
        for (key, text) in [("path", &v.path), ("phys_path", &v.phys_path), ("devid", &v.devid)] {
            if let Some(text) = text {
                out.insert(key.into(), text.clone().into());
            }
        }
        out.insert("class".into(), class.into());
        out
    }

    /// Adds a vdev and what is below it.
    fn vdev(&self, v: &VdevConfig, class: &str, parent: Option<&str>, into: &mut Object) {
        let pool = self.seen.pool();
        let vdevs = pool.io().vdevs();
        let top = vdevs.tops().iter().position(|t| t.config.guid == v.guid);
        if top.is_some_and(|i| vdevs.tops()[i].is_indirect()) {
            return;
        }
        let (state, note) = state_of(v, vdevs);
        let mut out = self.head(v, class);
        let name = display_name(v, vdevs);
        out.insert("state".into(), word(&state).into());
        if let Some(parent) = parent.filter(|_| self.flat) {
            out.insert("parent".into(), parent.into());
        }
        if let Some(space) = top.and_then(|i| pool.space_of(i)) {
            self.space(&mut out, [space.allocated, space.size, space.dspace]);
        }
        let leaf = vdevs.leaves().iter().find(|l| l.guid == v.guid);
        if let Some(device) = leaf.and_then(|l| l.device()) {
            out.insert("phys_space".into(), self.numbers.shown(device.size(), human::bytes));
        }
        self.errors(&mut out, Some(v.guid));
        if leaf.is_some() {
            out.insert("slow_ios".into(), self.numbers.exact(0));
        }
        if let Some(aux) = aux(&note) {
            out.insert("aux".into(), aux.into());
        }
        let mut below = Object::new();
        for child in &v.children {
            if self.flat {
                self.vdev(child, below_class(class), Some(&name), into);
            }
            self.vdev(child, below_class(class), Some(&name), &mut below);
        }
        if !below.is_empty() {
            out.insert("vdevs".into(), below.into());
        }
        into.insert(name, out.into());
    }

    fn space(&self, out: &mut Object, numbers: [u64; 3]) {
        for (key, n) in ["alloc_space", "total_space", "def_space"].into_iter().zip(numbers) {
            if n > 0 {
                out.insert(key.into(), self.numbers.shown(n, human::bytes));
            }
        }
    }

    fn errors(&self, out: &mut Object, guid: Option<Guid>) {
        let numbers = errors_of(self.seen.counted.io().vdevs(), guid);
        for (key, n) in ["read_errors", "write_errors", "checksum_errors"].into_iter().zip(numbers) {
            out.insert(key.into(), self.numbers.shown(n, human::number));
        }
    }
}

/// What is below a log is not marked as such (`fill_vdev_info`, zpool_main.c).
fn below_class(class: &str) -> &str {
    if class == "log" { "normal" } else { class }
}

/// The word for a state of a vdev: what people read as UNAVAIL goes by another name here.
fn word(state: &str) -> &str {
    if state == "UNAVAIL" { "CANT_OPEN" } else { state }
}

/// Why it is so.
fn aux(note: &str) -> Option<&'static str> {
    match note {
        "cannot open" => Some("OPEN_FAILED"),
        "invalid label" => Some("BAD_LABEL"),
        "insufficient replicas" => Some("NO_REPLICAS"),
        _ => None,
    }
}
