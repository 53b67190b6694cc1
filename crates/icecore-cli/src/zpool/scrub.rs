//! `zpool scrub`: reads every copy of every block, mends what can be mended, names what is lost.
//!
//! Of a pool imported for writing it goes on behind the commands (`crate::scan`), and is known to the pool. Of one imported
//! read-only, and with `-n`, it is this command's, leaves no trace, and ends with it.

use super::errors::{HEADING, Names};
use super::status::progress;
use crate::args::{Opt, Typed, flag, value, without_interval};
use crate::bar;
use crate::caller;
use crate::fail::{FAILED, Fail, Outcome};
use crate::human;
use crate::keys::{self, How, unlock};
use crate::mounts::Aside;
use crate::scan::{self, Ended};
use crate::session::{self, For, Open};
use crate::state::{self, Imported};
use icecore_pool::Pool;
use icecore_pool::heal::{Source, dataset_name, heal};
use icecore_pool::scrub::{DAMAGE_MAX, Damage, Scrubbed, scrub};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub const USAGE: &str =
    "scrub [-e | -s | -p | -C | -n] [-w] [-a] [--repair] [--from POOL] [--keylocation LOCATION] <pool> ...";
pub const WAIT_USAGE: &str = "wait [-t <activity>[,...]] <pool>";

const KNOWN: &[Opt] = &[
    flag('a', ""),
    flag('e', ""),
    flag('C', ""),
    flag('n', "dry-run"),
    flag('w', ""),
    flag('s', ""),
    flag('p', ""),
    flag('r', "repair"),
    value('f', "from"),
    value('K', "keylocation"),
];
/// Between two lines of progress where there is no terminal.
const LINES: Duration = Duration::from_secs(60);
/// What can be waited for (`zpool_do_wait`, zpool_main.c). Only scrubs and resilvers go on behind the commands.
const ACTIVITIES: [&str; 10] = [
    "discard",
    "free",
    "initialize",
    "replace",
    "remove",
    "resilver",
    "scrub",
    "trim",
    "raidz_expand",
    "condense",
];

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, KNOWN, USAGE)?;
    for (a, b) in [('s', 'p'), ('p', 'C'), ('s', 'C'), ('e', 'C'), ('n', 'C'), ('n', 'e')] {
        if typed.has(a) && typed.has(b) {
            let why = format!("invalid option combination: -{a} and -{b} are mutually exclusive");
            return Err(Fail::usage(why, USAGE));
        }
    }
    if typed.has('w') && (typed.has('s') || typed.has('p')) {
        return Err(Fail::usage("invalid option combination: -w cannot be used with -p or -s", USAGE));
    }
    if typed.operands.is_empty() && !typed.has('a') {
        return Err(Fail::usage("missing pool name argument", USAGE));
    }
    // Each has its turn by name, whatever becomes of the others (`for_each_pool`, zpool_iter.c).
    let mut records = BTreeMap::new();
    let mut sound = true;
    let mut tell = |f: Fail| {
        if !f.message.is_empty() {
            eprintln!("{}", f.message);
        }
        sound = false;
    };
    for name in &typed.operands {
        match state::named(name) {
            Ok(record) => drop(records.insert(record.name.clone(), record)),
            Err(f) => tell(f),
        }
    }
    if typed.has('a') && typed.operands.is_empty() {
        records = state::all()?.into_iter().map(|r| (r.name.clone(), r)).collect();
    }
    for record in records.values() {
        match one(record, &typed) {
            Ok(true) => {}
            Ok(false) => tell(Fail::said(FAILED)),
            Err(f) => tell(f),
        }
    }
    if sound { Ok(()) } else { Err(Fail::said(FAILED)) }
}

/// `zpool wait`.
pub fn wait(args: &[String]) -> Outcome {
    let typed = Typed::parse_plain(args, &[value('t', "")], WAIT_USAGE)?;
    let asked: Vec<&str> = typed.values('t').flat_map(|t| t.split(',')).collect();
    if let Some(bad) = asked.iter().find(|a| !ACTIVITIES.contains(a)) {
        return Err(Fail::usage(format!("invalid activity '{bad}'"), WAIT_USAGE));
    }
    let name = match without_interval(&typed.operands, WAIT_USAGE)? {
        [name] => name,
        [] => return Err(Fail::usage("missing 'pool' argument", WAIT_USAGE)),
        _ => return Err(Fail::usage("too many arguments", WAIT_USAGE)),
    };
    let record = state::named(name)?;
    let any = |of: &[&str]| asked.is_empty() || of.iter().any(|a| asked.contains(a));
    let (scrub, sides) = (any(&["scrub"]), any(&["resilver", "replace"]));
    if record.readonly || !scrub && !sides {
        return Ok(());
    }
    let mut pool = session::open_record(&record, For::Read)?;
    let Some(owned) = pool.owned().cloned() else { return Ok(()) };
    pool.away(|| {
        if sides {
            scan::wait_for_sides(&owned)?;
        }
        if scrub { scan::wait(&owned, || {}).map(|_| ()) } else { Ok(()) }
    })?
}

/// What may be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// Nothing.
    Look,
    /// Repairs, if the pool is imported for writing.
    Usual,
    /// Repairs in place, even of a pool imported read-only.
    Repair,
}

fn ask(typed: &Typed) -> Ask {
    match (typed.has('n'), typed.has('r')) {
        (true, _) => Ask::Look,
        (_, true) => Ask::Repair,
        _ => Ask::Usual,
    }
}

/// Does to one pool what is asked for; false if a scrub that this command saw to its end found something lost. That is no
/// failure of `-w`, as with OpenZFS.
fn one(record: &Imported, typed: &Typed) -> Outcome<bool> {
    let name = &record.name;
    let stops = typed.has('s') || typed.has('p');
    if stops {
        let verb = if typed.has('s') { "cancel" } else { "pause" };
        let fail = |e: &str| Fail::new(format!("cannot {verb} scrubbing {name}: {e}"));
        if record.readonly {
            return Err(fail("there is no active scrub"));
        }
        let mut pool = session::open_record(record, For::Write).map_err(|f| fail(&f.message))?;
        // Pausing what is not there is none (`zpool_scan_range`, libzfs_pool.c).
        if typed.has('p') && !pool.is_scanning() {
            return Ok(true);
        }
        let done = if typed.has('s') { pool.scan_cancel() } else { pool.scan_pause() };
        return done.map(|()| true).map_err(|e| fail(&e.to_string()));
    }
    let fail = |e: &dyn std::fmt::Display| Fail::new(format!("cannot scrub {name}: {e}"));
    if record.readonly && (typed.has('e') || typed.has('C')) {
        return Err(fail(&"pool is read-only"));
    }
    if record.readonly || typed.has('n') {
        return alone(record, typed).map_err(|f| if f.message.is_empty() { f } else { fail(&f.message) });
    }
    let mut pool = session::open_record(record, For::Write).map_err(|f| fail(&f.message))?;
    let began = Instant::now();
    if typed.has('e') {
        let Some(found) = pool.scrub_errors(&mut || !caller::cancelled()).map_err(|e| fail(&e))? else {
            return Ok(true);
        };
        tell(&mut pool, &found, typed, began.elapsed(), 0);
        return Ok(true);
    }
    let start = if typed.has('C') { Pool::scan_start_since_last } else { Pool::scan_start };
    start(&mut pool).map_err(|e| fail(&e))?;
    let from = typed.value('f');
    let bar = bar::bytes("scrubbing", true);
    bar.set_message(name.clone());
    let mut lines = Lines::new(&bar);
    let ended = if let Some(owned) = pool.owned().cloned() {
        scan::go_on(&owned, from);
        if !typed.has('w') && from.is_none() {
            return Ok(true);
        }
        pool.away(|| scan::wait(&owned, || lines.show_of(&owned)))?
    } else {
        scan::carry_out(&mut pool, from, &mut |pool| {
            lines.show(pool);
            !caller::cancelled()
        })
    };
    bar.finish_and_clear();
    let Some(Ended { found, fetched }) = ended.map_err(|f| fail(&f.message))? else { return Ok(true) };
    tell(&mut pool, &found, typed, began.elapsed(), fetched);
    Ok(typed.has('w') && from.is_none() || found.lost == 0 && found.unseen.is_empty())
}

/// Progress: a bar on a terminal, a line now and then elsewhere.
pub struct Lines<'a> {
    bar: &'a indicatif::ProgressBar,
    next: Instant,
}

impl<'a> Lines<'a> {
    /// On that bar.
    pub fn new(bar: &'a indicatif::ProgressBar) -> Self {
        Self { bar, next: Instant::now() + LINES }
    }
    /// How far the scan is that is under way.
    pub fn show(&mut self, pool: &Pool) {
        let Ok(Some(s)) = pool.scan_status() else { return };
        if !self.bar.is_hidden() {
            bar::show(self.bar, s.issued, s.phys.to_examine);
        } else if Instant::now() >= self.next {
            self.next = Instant::now() + LINES;
            eprintln!("{}: {}", pool.name(), progress(&s).replace("\n\t", ", "));
        }
    }
    fn show_of(&mut self, owned: &std::sync::Arc<crate::pools::Owned>) {
        if (!self.bar.is_hidden() || Instant::now() >= self.next)
            && let Ok(pool) = owned.read()
        {
            self.show(&pool);
        }
    }
}

/// The pool as far as it can be opened for a scrub of this command's own: for repairs only, or for reading.
fn open(record: &Imported, ask: Ask) -> Outcome<(Open, For)> {
    let how = if ask == Ask::Repair && record.readonly { For::Repair } else { For::Read };
    Ok((session::open_record(record, how)?, how))
}

/// A scrub that this command carries out by itself, leaving no trace in the pool but repairs.
fn alone(record: &Imported, typed: &Typed) -> Outcome<bool> {
    // A repair has the devices alone: what is mounted comes back after it.
    let repairs = record.readonly && ask(typed) == Ask::Repair;
    let aside = if repairs { Aside::of(&record.name)? } else { Aside::default() };
    let done = examined(record, typed);
    let back = aside.back();
    done.and_then(|sound| back.map(|()| sound))
}

fn examined(record: &Imported, typed: &Typed) -> Outcome<bool> {
    let (ask, from) = (ask(typed), typed.value('f'));
    let name = &record.name;
    let (mut pool, how) = open(record, ask)?;
    // To look only, what is open for writing is opened once more; meanwhile nobody changes it.
    let _unchanged;
    if pool.owned().is_some() {
        _unchanged = std::mem::replace(&mut pool, session::view(record)?);
    }
    if how == For::Read && ask == Ask::Usual {
        eprintln!("{name} is imported read-only: damage is named, not repaired (--repair mends it in place)");
    }
    let began = Instant::now();
    let bar = bar::bytes("scrubbing", true);
    bar.set_message(name.to_owned());
    let mut found = scrub(&mut pool, &mut |p| {
        bar::show(&bar, p.bytes, p.total);
        !caller::cancelled()
    })?;
    bar.finish_and_clear();
    let fetched = match from {
        Some(from) if how != For::Read && found.lost > 0 => fetch(&mut pool, &mut found, from)?,
        _ => 0,
    };
    tell(&mut pool, &found, typed, began.elapsed(), fetched);
    Ok(found.lost == 0 && found.unseen.is_empty())
}

fn tell(pool: &mut Open, found: &Scrubbed, typed: &Typed, took: Duration, fetched: u64) {
    if let Some(location) = typed.value('K') {
        give_keys(pool, found, location);
    }
    report(pool, found, took);
    if fetched > 0 {
        println!("{fetched} blocks were fetched from {}", typed.value('f').unwrap_or_default());
    }
}

/// Puts back what is lost from another imported pool that has the same snapshots.
fn fetch(pool: &mut Pool, found: &mut Scrubbed, from: &str) -> Outcome<u64> {
    let other = session::open(from, For::Read)?;
    let source = Source::new(&other);
    let mut fetched = 0;
    for damage in found.damage.iter_mut().filter(|d| d.seen.lost) {
        if heal(pool, &source, damage) {
            damage.seen.lost = false;
            damage.seen.repaired += 1;
            found.lost -= 1;
            found.repaired_bytes += damage.bp.psize();
            fetched += 1;
        }
    }
    if fetched > 0 {
        pool.io_mut().flush_repairs().map_err(|e| Fail::new(e.to_string()))?;
    }
    Ok(fetched)
}

/// Loads the keys of datasets with damage, so that their files can be named. One that does not open is no failure: its
/// files are named by number.
fn give_keys(pool: &mut Open, found: &Scrubbed, location: &str) {
    let objsets: BTreeSet<u64> = found.damage.iter().map(|d| d.at.objset).filter(|o| *o != 0).collect();
    for objset in objsets {
        let name = dataset_name(pool, objset);
        let how = How { location: Some(location), ask: keys::Ask::Terminal, ..How::default() };
        if let Err(f) = unlock(pool, &name, how) {
            eprintln!("the files of '{name}' are named by number: {}", f.message);
        }
    }
}

fn report(pool: &Pool, found: &Scrubbed, took: Duration) {
    let secs = took.as_secs();
    let rate = (found.bytes as f64 / took.as_secs_f64().max(0.001)) as u64;
    println!(
        "{}: {} blocks, {} examined in {} ({}/s), repaired {}, {} errors",
        pool.name(),
        found.blocks,
        human::bytes(found.bytes),
        human::duration(secs),
        human::bytes(rate),
        human::bytes(found.repaired_bytes),
        found.lost
    );
    if found.labels > 0 {
        let left =
            if found.labels_left > 0 { format!(", {} still are", found.labels_left) } else { String::new() };
        println!("\t{} labels and uberblocks were damaged{left}", found.labels);
    }
    for (guid, first, last) in pool.io().behind() {
        let leaf = pool.io().vdevs().leaves().iter().find(|l| l.guid == guid);
        let device = leaf.map_or_else(|| guid.to_string(), |l| l.name());
        println!(
            "\t{device} missed txgs {first} to {last}: it is brought up to date when the pool is imported for writing"
        );
    }
    if found.awaited > 0 {
        println!("\t{} blocks wait for that on it, and are not damaged", found.awaited);
    }
    // One line a file: a file may have lost many blocks.
    let mut names = Names::new(pool);
    // Blocks, and how many of them still have a bad copy.
    let mut mended: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut lost: BTreeMap<String, Vec<&Damage>> = BTreeMap::new();
    for damage in &found.damage {
        let place = names.place(&damage.at);
        if damage.seen.lost {
            lost.entry(place).or_default().push(damage);
        } else {
            let (blocks, left) = mended.entry(place).or_default();
            *blocks += 1;
            *left += u64::from(damage.seen.bad > damage.seen.repaired);
        }
    }
    for (place, (blocks, left)) in &mended {
        let unmended =
            if *left > 0 { format!(", {left} of them with a bad copy left") } else { String::new() };
        let verb = if left == blocks { "damaged, with good copies left" } else { "repaired" };
        let unmended = if left == blocks { "" } else { &unmended };
        println!("\t{place}: {blocks} blocks {verb}{unmended}");
    }
    if !lost.is_empty() {
        println!("{HEADING}\n");
        for (place, blocks) in &lost {
            println!("        {place}");
            for d in blocks.iter().take(4) {
                let at = d.at.blkid.saturating_mul(d.bp.lsize());
                if d.at.level == 0 && d.at.blkid != icecore_format::Bookmark::SPILL {
                    println!("            {} bytes at {at}", d.bp.lsize());
                } else {
                    println!("            a block of its metadata (level {})", d.at.level);
                }
            }
            if blocks.len() > 4 {
                println!("            and {} more blocks", blocks.len() - 4);
            }
        }
    }
    for u in &found.unseen {
        println!("{}:<{:#x}>: not seen: {}", dataset_name(pool, u.at.objset), u.at.object.0, u.why);
    }
    if found.damaged > DAMAGE_MAX as u64 {
        println!("... and {} more damaged blocks", found.damaged - DAMAGE_MAX as u64);
    }
}
