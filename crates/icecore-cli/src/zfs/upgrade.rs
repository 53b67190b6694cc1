//! `zfs upgrade`: which versions there are, and which file systems are older (`zfs_do_upgrade`, zfs_main.c). None is
//! upgraded here.

use super::select::{Query, Types, each};
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};

pub const USAGE: &str = "upgrade [-v]\n\tupgrade [-r] [-V version] <-a | filesystem ...>";

/// The version of file systems made here (`ZPL_VERSION`).
const CURRENT: u64 = 5;

const VERSIONS: &str = "The following filesystem versions are supported:

VER  DESCRIPTION
---  --------------------------------------------------------
 1   Initial ZFS filesystem version
 2   Enhanced directory entries
 3   Case insensitive and filesystem user identifier (FUID)
 4   userquota, groupquota properties
 5   System attributes

For more information on a particular version, including supported releases,
see the ZFS Administration Guide.

";

pub fn run(args: &[String]) -> Outcome {
    let known = [flag('r', ""), flag('v', ""), flag('a', ""), value('V', "")];
    let typed = Typed::parse_plain(args, &known, USAGE)?;
    let (names, all) = (&typed.operands, typed.has('a'));
    let version = match typed.value('V').map(|v| (v, v.parse::<u64>())) {
        None => None,
        Some((_, Ok(n))) if (1..=CURRENT).contains(&n) => Some(n),
        Some((text, _)) => return Err(Fail::usage(format!("invalid version {text}"), USAGE)),
    };
    let changes = all || !names.is_empty();
    let alone = typed.has('v');
    if (!changes && (typed.has('r') || version.is_some()))
        || (alone && (typed.has('r') || version.is_some() || changes))
        || (all && !names.is_empty())
    {
        return Err(Fail::usage("invalid combination of options", USAGE));
    }
    if alone {
        print!("{VERSIONS}");
        return Ok(());
    }
    let only = Types { filesystem: true, ..Types::default() };
    let query = Query { types: Some(only), recursive: !changes || typed.has('r'), depth: None, named: only };
    let wanted = version.unwrap_or(CURRENT);
    let (mut older, mut newer, mut same) = (Vec::new(), 0, 0);
    each(names, &query, |pool, s| {
        let row =
            pool.dsl.prop(pool.io(), &s.name, "version").map_err(|e| super::cannot("open", &s.name, &e))?;
        let version: u64 = row.and_then(|r| r.value.parse().ok()).unwrap_or(CURRENT);
        if version < wanted {
            older.push((s.name.clone(), version));
        } else if version > wanted && changes {
            println!("{}: can not be downgraded; it is already at version {version}", s.name);
            newer += 1;
        } else {
            same += 1;
        }
        Ok(())
    })?;
    if changes {
        for (name, version) in &older {
            eprintln!("cannot upgrade '{name}': file systems of version {version} are not upgraded here");
        }
        println!("0 filesystems upgraded");
        if same > 0 {
            println!("{same} filesystems already at this version");
        }
        return if older.is_empty() && newer == 0 { Ok(()) } else { Err(Fail::said(1)) };
    }
    println!("This system is currently running ZFS filesystem version {CURRENT}.\n");
    if older.is_empty() {
        println!("All filesystems are formatted with the current version.");
    } else {
        println!(
            "The following filesystems are out of date, and can be upgraded.\n\nVER  FILESYSTEM\n---  ------------"
        );
        older.iter().for_each(|(name, version)| println!("{version:2}   {name}"));
    }
    Ok(())
}
