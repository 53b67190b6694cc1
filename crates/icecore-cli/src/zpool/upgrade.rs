//! `zpool upgrade`: which features there are, which pools lack some, and enabling these (`zpool_do_upgrade`, zpool_main.c).
//!
//! A pool gets what a new pool gets: what is more it could only lose by, for once OpenZFS used that it could not be
//! written to here. Pools of the numbered versions are not upgraded.

use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use crate::state::{self, Imported};
use icecore_dsl::Feature;
use icecore_pool::Pool;
use icecore_pool::features::of_new_pools;

pub const USAGE: &str = "upgrade\n\tupgrade -v\n\tupgrade [-V version] <-a | pool ...>";

/// The version of pools with feature flags (`SPA_VERSION_FEATURES`).
const FEATURES: u64 = 5000;
/// The last version before them (`SPA_VERSION_BEFORE_FEATURES`).
const NUMBERED_MAX: u64 = 28;

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('a', ""), flag('v', ""), value('V', "")], USAGE)?;
    let (names, all) = (&typed.operands, typed.has('a'));
    let version = match typed.value('V').map(|v| (v, v.parse::<u64>())) {
        None => FEATURES,
        Some((_, Ok(n))) if (1..=NUMBERED_MAX).contains(&n) || n == FEATURES => n,
        Some((text, _)) => return Err(Fail::usage(format!("invalid version '{text}'"), USAGE)),
    };
    let refused = |what: &str| Err(Fail::usage(what, USAGE));
    if typed.has('V') && !all && names.is_empty() {
        return refused("-V option is incompatible with other arguments");
    }
    if typed.has('v') && (all || !names.is_empty()) {
        return refused("-v option is incompatible with other arguments");
    }
    if all && !names.is_empty() {
        return refused("-a option should not be used along with a pool name");
    }
    println!("This system supports ZFS pool feature flags.\n");
    if typed.has('v') {
        versions();
        return Ok(());
    }
    if !all && names.is_empty() {
        return list();
    }
    let records = state::all()?;
    let mut failed = state::missing(&records, names);
    let mut changed = 0;
    for record in records.iter().filter(|r| all || names.contains(&r.name)) {
        match one(record, version, all) {
            Ok(new) => changed += new,
            Err(f) => failed.push(format!("cannot upgrade '{}': {}", record.name, f.message)),
        }
    }
    if all && changed == 0 && failed.is_empty() {
        println!("All pools are already formatted using feature flags.\n");
        println!("Every feature flags pool already has all supported and requested features enabled.");
    }
    if failed.is_empty() { Ok(()) } else { Err(Fail::new(failed.join("\n"))) }
}

/// Enables what a pool lacks; how much that was.
fn one(record: &Imported, version: u64, all: bool) -> Outcome<usize> {
    let name = &record.name;
    let own = version_of(&*session::open_record(record, For::Read)?);
    if own > version {
        if !all {
            println!("Pool '{name}' is already formatted using more current version '{own}'.\n");
        }
        return Ok(0);
    }
    if own < FEATURES {
        return Err(Fail::new(format!("pools of version {own} are not upgraded here")));
    }
    let mut pool = session::open_record(record, For::Write)?;
    let lacking = lacking(&pool)?;
    if lacking.is_empty() {
        if !all {
            println!("Pool '{name}' already has all supported and requested features enabled.");
        }
        return Ok(0);
    }
    let (io, dsl) = pool.parts();
    for feature in &lacking {
        // Another may have brought it along.
        dsl.feature_enable(io, *feature)?;
    }
    pool.commit()?;
    println!("Enabled the following features on '{name}':");
    lacking.iter().for_each(|f| println!("  {}", f.name));
    println!();
    Ok(lacking.len())
}

fn version_of(pool: &Pool) -> u64 {
    pool.config().version.unwrap_or(FEATURES)
}

/// What a new pool would have and this one has not.
fn lacking(pool: &Pool) -> Outcome<Vec<Feature>> {
    let mut out = Vec::new();
    for feature in of_new_pools() {
        if !pool.dsl.feature_enabled(pool.io(), feature)? {
            out.push(feature);
        }
    }
    Ok(out)
}

fn list() -> Outcome {
    let (mut old, mut lack) = (Vec::new(), Vec::new());
    for record in state::all()? {
        let pool = session::open_record(&record, For::Read)
            .map_err(|f| Fail::new(format!("cannot open '{}': {}", record.name, f.message)))?;
        let version = version_of(&pool);
        let lacking = if version < FEATURES { Vec::new() } else { lacking(&pool)? };
        if version < FEATURES {
            old.push(format!("{version:2}   {}", record.name));
        } else if !lacking.is_empty() {
            lack.push(record.name.clone());
            lack.extend(lacking.iter().map(|f| format!("      {}", f.name)));
        }
    }
    if old.is_empty() {
        println!("All pools are formatted using feature flags.\n");
    } else {
        println!(
            "The following pools are formatted with legacy version numbers. They are not upgraded here.\n"
        );
        println!("VER  POOL\n---  ------------\n{}\n", old.join("\n"));
        println!("Use 'zpool upgrade -v' for a list of available legacy versions.");
    }
    if lack.is_empty() {
        println!("Every feature flags pool has all supported and requested features enabled.");
    } else {
        println!(
            "\nSome supported features are not enabled on the following pools. Software that does not\n\
             know a feature may not open a pool any more in which it is enabled. See zpool-features(7).\n"
        );
        println!("POOL  FEATURE\n---------------\n{}\n", lack.join("\n"));
    }
    Ok(())
}

fn versions() {
    println!("The following features are supported:\n\nFEAT DESCRIPTION\n{}", "-".repeat(61));
    for f in of_new_pools() {
        let compatible = if f.readonly_compat { " (read-only compatible)" } else { "" };
        println!("{:<37}{compatible}\n     {}", f.name, f.description);
    }
    println!(
        "\nPools of the legacy versions 1 to {NUMBERED_MAX} can be read.\n\n\
         For more information on a particular version, including supported releases,\n\
         see the ZFS Administration Guide.\n"
    );
}
