//! `zpool scrub`: reads every copy of every block, mends what can be mended, names what is lost.
//!
//! It runs to its end in this command: there is no service yet that could go on in the background.

use super::errors::{HEADING, Names};
use crate::args::{Opt, Typed, flag, value};
use crate::bar;
use crate::caller;
use crate::fail::{FAILED, Fail, Outcome};
use crate::human;
use crate::keys::{self, How, unlock};
use crate::session::{self, For, Open};
use crate::state::{self, Imported};
use icecore_pool::Pool;
use icecore_pool::heal::{Source, dataset_name, heal};
use icecore_pool::scrub::{DAMAGE_MAX, Damage, Scrubbed, scrub};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub const USAGE: &str = "scrub [-nw] [--repair] [--from POOL] [--keylocation LOCATION] <pool> ...";

const KNOWN: &[Opt] = &[
    flag('n', "dry-run"),
    flag('w', ""),
    flag('s', ""),
    flag('p', ""),
    flag('r', "repair"),
    value('f', "from"),
    value('K', "keylocation"),
];

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, KNOWN, USAGE)?;
    if typed.operands.is_empty() {
        return Err(Fail::usage("missing pool name argument", USAGE));
    }
    let mut sound = true;
    for name in &typed.operands {
        let Some(record) = state::find(name)? else {
            return Err(Fail::new(format!("cannot open '{name}': no such pool")));
        };
        if typed.has('s') || typed.has('p') {
            let verb = if typed.has('s') { "cancel" } else { "pause" };
            return Err(Fail::new(format!("cannot {verb} scrubbing {name}: there is no active scrub")));
        }
        sound &= one(&record, &typed)?;
    }
    if sound { Ok(()) } else { Err(Fail::said(FAILED)) }
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

/// The pool as far as it can be opened: for writing, for repairs only, or for reading.
fn open(record: &Imported, ask: Ask) -> Outcome<(Open, For)> {
    let how = match ask {
        Ask::Look => For::Read,
        Ask::Usual if record.readonly => For::Read,
        Ask::Repair if record.readonly => For::Repair,
        _ => For::Write,
    };
    Ok((session::open_record(record, how)?, how))
}

/// Scrubs one pool; false if something is lost.
fn one(record: &Imported, typed: &Typed) -> Outcome<bool> {
    let (ask, from) = (ask(typed), typed.value('f'));
    let name = &record.name;
    let fail = |e: &dyn std::fmt::Display| Fail::new(format!("cannot scrub {name}: {e}"));
    let (mut pool, how) = open(record, ask).map_err(|f| fail(&f.message))?;
    // To look only, what is open for writing is opened once more; meanwhile nobody changes it.
    let _unchanged;
    if how == For::Read && pool.owned().is_some() {
        _unchanged = std::mem::replace(&mut pool, session::view(record).map_err(|f| fail(&f.message))?);
    }
    if how == For::Read && ask == Ask::Usual {
        eprintln!("{name} is imported read-only: damage is named, not repaired (--repair mends it in place)");
    }
    let clock = pool.io().env().clock.clone();
    let (start, began) = (clock.now(), clock.monotonic_ns());
    let bar = bar::bytes("scrubbing", true);
    bar.set_message(name.to_owned());
    let mut found = scrub(&mut pool, &mut |p| {
        bar::show(&bar, p.bytes, p.total);
        !caller::cancelled()
    })
    .map_err(|e| fail(&e))?;
    bar.finish_and_clear();
    let fetched = match from {
        Some(from) if how != For::Read && found.lost > 0 => fetch(&mut pool, &mut found, from)?,
        _ => 0,
    };
    let took = Duration::from_nanos(clock.monotonic_ns().saturating_sub(began));
    if how == For::Write {
        pool.record_scrub(start, clock.now(), &found).map_err(|e| fail(&e))?;
    }
    if let Some(location) = typed.value('K') {
        give_keys(&mut pool, &found, location);
    }
    report(&pool, &found, took);
    if fetched > 0 {
        println!("{fetched} blocks were fetched from {}", from.unwrap_or_default());
    }
    Ok(found.lost == 0 && found.unseen.is_empty())
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
