//! `zpool status`.

use super::errors;
use super::import::Naming;
use super::import_list::state;
use crate::args::{Opt, Typed, flag, value, without_interval};
use crate::fail::{Fail, Outcome};
use crate::human;
use crate::session::{self, For, NotOpen, Open, Why};
use crate::state::{self, Imported};
use icecore_format::Guid;
use icecore_pool::scan::ScanStatus;
use icecore_pool::scan::phys::{CANCELED, FINISHED, RESILVER, SCRUB};
use icecore_vdev::tree::Health;
use icecore_vdev::{VdevConfig, VdevSet};
use std::fmt::Write as _;

pub const USAGE: &str =
    "status [-j [--json-int, --json-flat-vdevs, --json-pool-key-guid]] [-egLpPvx] [-T d|u] [pool] ...";

const KNOWN: &[Opt] = &[
    flag('v', ""),
    flag('x', ""),
    flag('P', ""),
    flag('p', ""),
    flag('e', ""),
    flag('g', ""),
    flag('L', ""),
    value('T', ""),
    value('c', ""),
    flag('j', "json"),
    flag('J', "json-int"),
    flag('F', "json-flat-vdevs"),
    flag('G', "json-pool-key-guid"),
];

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse_plain(args, KNOWN, USAGE)?;
    let of_json = [('F', "--json-flat-vdevs"), ('J', "--json-int"), ('G', "json-pool-key-guid")];
    if let Some((_, name)) = of_json.iter().find(|(o, _)| typed.has(*o) && !typed.has('j')) {
        return Err(Fail::usage(format!("'{name}' only works with '-j' option"), USAGE));
    }
    if typed.has('c') {
        let why = match rustix::process::geteuid().is_root() {
            true => "Can't run -c with root privileges unless ZPOOL_SCRIPTS_AS_ROOT is set.",
            false => "no scripts are run here",
        };
        return Err(Fail::new(why));
    }
    super::timestamp(&typed, USAGE)?;
    without_interval(&typed.operands, USAGE)?;
    let records = state::all()?;
    if let Some(line) = state::missing(&records, &typed.operands).into_iter().next() {
        return Err(Fail::new(line));
    }
    let named = !typed.operands.is_empty();
    let asked: Vec<&Imported> =
        records.iter().filter(|r| !named || typed.operands.contains(&r.name)).collect();
    if typed.has('j') {
        super::status_json::print(&asked, &typed);
        return Ok(());
    }
    let mut shown = Vec::new();
    for record in &asked {
        match status(record, &typed) {
            Some(text) => shown.push(text),
            None if named => shown.push(format!("pool '{}' is healthy\n", record.name)),
            None => {}
        }
    }
    match (asked.is_empty(), shown.is_empty()) {
        (true, _) => println!("no pools available"),
        (false, true) => println!("all pools are healthy"),
        _ => print!("{}", shown.join("\n")),
    }
    Ok(())
}

/// The state of a pool as it is shown: one of whose devices is behind the others can lose less than it should.
pub fn health(vdevs: &VdevSet) -> Health {
    match vdevs.health() {
        Health::Online if vdevs.leaves().iter().any(behind) => Health::Degraded,
        health => health,
    }
}

/// Here, but without what was written while it was not, and nobody sees to it.
fn behind(leaf: &icecore_vdev::tree::Leaf) -> bool {
    leaf.is_stale() && !leaf.is_filling() && leaf.device().is_some()
}

/// One pool; `None` if it is healthy and only trouble was asked for.
fn status(record: &Imported, typed: &Typed) -> Option<String> {
    let seen = match Seen::of(record) {
        Ok(seen) => seen,
        Err(n) => return Some(unopened(record, &n)),
    };
    if typed.has('x') && seen.is_well() {
        return None;
    }
    let (counted, pool, scan, lost) = (&seen.counted, seen.pool(), &seen.scan, seen.lost);
    let vdevs = pool.io().vdevs();
    let health = health(vdevs);
    let mut out = format!("  pool: {}\n state: {health}\n{}", record.name, seen.reason());
    if let Some(line) = scan.as_ref().and_then(scan_line) {
        let _ = writeln!(out, "  scan: {line}");
    }
    out.push_str("config:\n\n");
    let mut rows =
        vec![Row { guid: None, name: record.name.clone(), state: health.to_string(), note: String::new() }];
    for v in &vdevs.config().children {
        row(v, 1, (vdevs, Naming::of(typed)), &mut rows);
    }
    if typed.has('e') {
        // What has nothing wrong is left out, the pool itself is not.
        let well = |r: &Row| r.state == "ONLINE" && errors_of(counted.io().vdevs(), r.guid) == [0; 3];
        rows.retain(|r| r.guid.is_none() || !well(r));
    }
    let width = rows.iter().map(|r| r.name.chars().count()).max().unwrap_or(0).max(10);
    let _ = writeln!(out, "\t{:width$}  {:<8} {:>5} {:>5} {:>5}", "NAME", "STATE", "READ", "WRITE", "CKSUM");
    for r in rows {
        let [read, write, sum] = errors_of(counted.io().vdevs(), r.guid).map(human::number);
        let line = format!("{:width$}  {:<8} {read:>5} {write:>5} {sum:>5}  {}", r.name, r.state, r.note);
        let _ = writeln!(out, "\t{}", line.trim_end());
    }
    out.push('\n');
    out.push_str(&errors::lines(pool, lost, typed.has('v')));
    Some(out)
}

/// An open pool, and what is known of its state.
pub struct Seen {
    /// What is counted, its owner knows.
    pub counted: Open,
    /// A pool that is being written goes on without the devices that it lacks: whether they are gone or behind, a look at
    /// them tells.
    looked_at: Option<Open>,
    /// So does how far a scan is.
    pub scan: Option<ScanStatus>,
    /// Entries of the log of lost blocks.
    pub lost: u64,
}

impl Seen {
    /// Opens a pool.
    pub fn of(record: &Imported) -> Result<Self, NotOpen> {
        let counted = session::try_open(record, For::Read)?;
        let lacks = counted.owned().is_some() && !counted.io().vdevs().absent().is_empty();
        let looked_at = if lacks { session::view(record).ok() } else { None };
        let scan = counted.scan_status().ok().flatten();
        let mut seen = Self { counted, looked_at, scan, lost: 0 };
        seen.lost = seen.pool().dsl.errlog_count(seen.pool().io()).unwrap_or(0);
        Ok(seen)
    }
    /// The pool.
    pub fn pool(&self) -> &Open {
        self.looked_at.as_ref().unwrap_or(&self.counted)
    }
    /// Whether there is no trouble.
    pub fn is_well(&self) -> bool {
        let healthy = health(self.pool().io().vdevs()) == Health::Online;
        healthy && self.lost == 0 && !self.has_errors() && self.pool().errata().is_none()
    }
    /// Whether a device failed or gave wrong bytes since the pool was opened, or errors were cleared.
    fn has_errors(&self) -> bool {
        self.counted.io().vdevs().leaves().iter().any(|l| l.counts().numbers() != [0; 3])
    }
    /// Whether a device failed for which no other has the same.
    fn has_lost_io(&self) -> bool {
        let vdevs = self.counted.io().vdevs();
        let failed = |t: &icecore_vdev::tree::Top| {
            let alone = t.config.kind.is_leaf().then(|| errors_of(vdevs, Some(t.config.guid)));
            let ([read, write, _], [own_read, own_write, _]) =
                (t.counts().numbers(), alone.unwrap_or([0; 3]));
            read + write + own_read + own_write > 0
        };
        vdevs.tops().iter().any(failed)
    }
    /// The status and action lines.
    pub fn reason(&self) -> String {
        let errata = self.pool().errata().and_then(errata_lines);
        match (self.lost > 0, trouble(self.pool().io().vdevs()), errata) {
            (true, ..) => errors::STATUS.into(),
            (false, "", _) if self.has_lost_io() => FAULTED.into(),
            (false, "", _) if self.has_errors() => FAILING.into(),
            (false, "", Some((status, action))) => format!("status: {status}\naction: {action}\n"),
            (false, trouble, _) => trouble.into(),
        }
    }
}

/// The state of a pool whose devices failed while it was in use (`zpool_get_state_str`, libzfs_pool.c).
const SUSPENDED: &str = "SUSPENDED";

/// The state of a pool that cannot be opened.
pub fn state_unopened(why: Why) -> &'static str {
    if why == Why::Suspended { SUSPENDED } else { "UNAVAIL" }
}

/// What is said of a pool that cannot be opened.
pub fn unopened(record: &Imported, n: &NotOpen) -> String {
    let name = &record.name;
    match n.why {
        Why::Busy => format!(
            "  pool: {name}\n state: -\nstatus: Another command is using the pool: {}\naction: Wait for it to end, then run this command again.\n",
            n.fail.message.lines().next().unwrap_or_default()
        ),
        Why::Missing => format!(
            "  pool: {name}\n state: UNAVAIL\nstatus: {}\naction: Attach the missing devices, then run the command again.\n\t\
             If they are gone for good, 'zpool export -f {name}' forgets the pool.\n",
            n.fail.message
        ),
        Why::Suspended => format!(
            "  pool: {name}\n state: {SUSPENDED}\nstatus: One or more devices are faulted in response to IO failures.\n\t{}\n\
             action: Make sure the affected devices are connected, then run 'zpool clear'.\n",
            n.fail.message.lines().nth(1).unwrap_or_default()
        ),
        Why::Other => format!("  pool: {name}\n state: UNAVAIL\nstatus: {}\n", n.fail.message),
    }
}

/// The status and action lines where a device failed that others do not stand in for (`ZPOOL_STATUS_IO_FAILURE_WAIT`).
const FAULTED: &str = "status: One or more devices are faulted in response to IO failures.\n\
    action: Make sure the affected devices are connected, then run 'zpool clear'.\n\t\
    If they are gone for good, 'zpool export -f' forgets the pool.\n";

/// The same where errors were met and mended (`ZPOOL_STATUS_FAILING_DEV`).
const FAILING: &str = "status: One or more devices has experienced an unrecoverable error.  An\n\t\
    attempt was made to correct the error.  Applications are unaffected.\n\
    action: Determine if the device needs to be replaced, and clear the errors\n\t\
    using 'zpool clear' or replace the device with 'zpool replace'.\n";

/// The status and action lines of an open pool.
fn trouble(vdevs: &VdevSet) -> &'static str {
    if vdevs.leaves().iter().any(|l| l.device().is_none()) {
        if vdevs.leaves().iter().all(|l| l.device().is_some() || l.config.offline.unwrap_or(0) != 0) {
            return "status: One or more devices has been taken offline by the administrator.\n\t\
                    Sufficient replicas exist for the pool to continue functioning in a\n\tdegraded state.\n\
                    action: Online the device using 'zpool online' or replace the device with\n\t'zpool replace'.\n";
        }
        "status: One or more devices could not be opened. The pool goes on without them.\n\
         action: Attach the missing devices.\n"
    } else if vdevs.leaves().iter().any(icecore_vdev::tree::Leaf::is_filling) {
        "status: One or more devices is currently being resilvered.  The pool will\n\tcontinue to function, possibly in a \
         degraded state.\naction: Wait for the resilver to complete.\n"
    } else if vdevs.leaves().iter().any(behind) {
        "status: One or more devices have missed writes, and hold old data.\n\
         action: Import the pool for writing: what they missed is copied to them then.\n\t\
         Until then the pool depends on the other devices.\n"
    } else {
        ""
    }
}

/// What an errata means, and what to do about it (`print_status_config`, zpool_main.c).
pub fn errata_lines(errata: u64) -> Option<(&'static str, &'static str)> {
    match errata {
        3 => Some((
            "Errata #3 detected.\n\tEncrypted datasets were made by a version of ZFS before 0.8.0, in a form that\n\t\
             no release reads and writes any more.",
            "Copy them into new encrypted datasets, not raw, and destroy the old ones.",
        )),
        4 => Some((
            "Errata #4 detected.\n\tEncrypted snapshots and bookmarks lack what tells raw increments apart.\n\t\
             Receiving raw increments upon them may corrupt data.",
            "Enable the bookmark_v2 feature, and replace encrypted snapshots and bookmarks\n\tthat increments shall \
             be sent from or received upon by new ones.",
        )),
        _ => None,
    }
}

/// Errors of a vdev since it was opened or cleared: reads, writes, checksums.
pub fn errors_of(vdevs: &VdevSet, guid: Option<Guid>) -> [u64; 3] {
    let Some(guid) = guid else { return [0; 3] };
    let leaf = vdevs.leaves().iter().find(|l| l.guid == guid).map(|l| l.counts());
    let top = || vdevs.tops().iter().find(|t| t.config.guid == guid).map(|t| t.counts());
    leaf.or_else(top).map_or([0; 3], |c| c.numbers())
}

/// One line of the tree.
struct Row {
    guid: Option<Guid>,
    name: String,
    state: String,
    note: String,
}

/// Adds a vdev and what is below it.
fn row(v: &VdevConfig, depth: usize, (vdevs, naming): (&VdevSet, Naming), rows: &mut Vec<Row>) {
    if v.is_hole() {
        return;
    }
    let (state, note) = state_of(v, vdevs);
    let name = format!("{}{}", "  ".repeat(depth), naming.name(v, vdevs));
    rows.push(Row { guid: Some(v.guid), name, state, note });
    v.children.iter().for_each(|c| row(c, depth + 1, (vdevs, naming), rows));
}

/// The state of a vdev, and what is said of it: one with a device behind it below can lose less than it should.
pub fn state_of(v: &VdevConfig, vdevs: &VdevSet) -> (String, String) {
    fn stale(v: &VdevConfig, vdevs: &VdevSet) -> bool {
        vdevs.leaves().iter().any(|l| l.guid == v.guid && behind(l))
            || v.children.iter().any(|c| stale(c, vdevs))
    }
    let text = state(v, vdevs);
    let (word, note) = text.split_once(' ').unwrap_or((&text, ""));
    if vdevs.leaves().iter().any(|l| l.guid == v.guid && l.is_filling()) {
        return (word.into(), "(resilvering)".into());
    }
    match (stale(v, vdevs), v.kind.is_leaf()) {
        (true, true) => (word.into(), "has missed writes".into()),
        (true, false) if word == "ONLINE" => (Health::Degraded.to_string(), note.trim().into()),
        _ => (word.into(), note.trim().into()),
    }
}

/// The last scan, or the one under way, in the words of `print_scan_scrub_resilver_status` (zpool_main.c).
fn scan_line(scan: &ScanStatus) -> Option<String> {
    let phys = &scan.phys;
    let (verb, did) = match phys.func {
        SCRUB => ("scrub", "repaired"),
        RESILVER => ("resilver", "resilvered"),
        _ => return None,
    };
    let time = human::time_with_seconds;
    let head = match phys.state {
        FINISHED => {
            let span = human::duration(phys.end.saturating_sub(phys.start));
            let (bytes, when) = (human::bytes(phys.processed), time(phys.end));
            let first = if phys.func == SCRUB { format!("{verb} {did}") } else { did.to_string() };
            return Some(format!("{first} {bytes} in {span} with {} errors on {when}", phys.errors));
        }
        CANCELED => return Some(format!("{verb} canceled on {}", time(phys.end))),
        _ => match scan.paused {
            Some(since) => {
                format!("{verb} paused since {}\n\t{verb} started on {}", time(since), time(phys.start))
            }
            None => format!("{verb} in progress since {}", time(phys.start)),
        },
    };
    Some(format!("{head}\n\t{}", progress(scan)))
}

/// The same of how far it is: two lines.
pub fn progress(scan: &ScanStatus) -> String {
    /// Below that rate nothing is foretold.
    const RATE_MIN: u64 = 10 << 20;
    let phys = &scan.phys;
    let bytes = human::bytes;
    let total = phys.to_examine.saturating_sub(phys.skipped);
    let running = scan.paused.is_none();
    let at = |n: u64| {
        let rate = n / scan.elapsed.max(1);
        if running && rate > 0 { format!(" at {}/s", bytes(rate)) } else { String::new() }
    };
    let did = if phys.func == SCRUB { "repaired" } else { "resilvered" };
    let percent = if total == 0 { 0.0 } else { 100.0 * scan.issued as f64 / total as f64 };
    let rate = scan.pass_issued / scan.elapsed.max(1);
    let rest = if !running {
        String::new()
    } else if total >= scan.issued && rate >= RATE_MIN && scan.issued > 0 {
        format!(", {} to go", human::duration((total - scan.issued) / rate))
    } else {
        ", no estimated completion time".into()
    };
    format!(
        "{} / {} scanned{}, {} / {} issued{}\n\t{} {did}, {percent:.2}% done{rest}",
        bytes(phys.examined),
        bytes(phys.to_examine),
        at(scan.pass_exam),
        bytes(scan.issued),
        bytes(total),
        at(scan.pass_issued),
        bytes(phys.processed),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use icecore_pool::scan::phys::{SCANNING, ScanPhys};

    #[test]
    fn a_scrub_under_way_is_told_as_openzfs_does() {
        const MIB: u64 = 1 << 20;
        let phys = ScanPhys {
            func: SCRUB,
            state: SCANNING,
            to_examine: 1000 * MIB,
            examined: 600 * MIB,
            processed: 4096,
            ..ScanPhys::default()
        };
        let scan = ScanStatus {
            phys,
            issued: 500 * MIB,
            pass_issued: 500 * MIB,
            pass_exam: 600 * MIB,
            elapsed: 5,
            ..ScanStatus::default()
        };
        assert_eq!(
            progress(&scan),
            "600M / 1000M scanned at 120M/s, 500M / 1000M issued at 100M/s\n\t4K repaired, 50.00% done, 00:00:05 to go"
        );
        let paused = ScanStatus { paused: Some(7), ..scan };
        assert_eq!(
            progress(&paused),
            "600M / 1000M scanned, 500M / 1000M issued\n\t4K repaired, 50.00% done"
        );
        assert!(scan_line(&paused).unwrap().starts_with("scrub paused since "));
    }
}
