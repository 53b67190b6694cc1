//! `icecore inspect`: what people use `zdb` for, in words or as JSON. Reads only.

mod log;
mod objects;
mod spacemaps;

use crate::args::{Opt, Typed, flag};
use crate::commands::Command;
use crate::fail::{FAILED, Fail, Outcome};
use crate::human;
use crate::session::{self, For};
use crate::table::{Align, Table};
use icecore_env::{Access, Device};
use icecore_format::nvlist;
use icecore_pool::heal::dataset_name;
use icecore_pool::leaks::{Place, Tally, balance};
use icecore_vdev::label::{Labels, read_uberblocks};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

const LABEL_USAGE: &str = "inspect label <device|file> ...";
const UBERBLOCK_USAGE: &str = "inspect uberblocks [--json] <device|file> ...";
const CONFIG_USAGE: &str = "inspect config <pool>";
const BLOCKS_USAGE: &str = "inspect blocks [--json] <pool>";

const COMMANDS: &[Command] = &[
    (&["label", "labels"], labels, LABEL_USAGE),
    (&["uberblocks", "uberblock"], uberblocks, UBERBLOCK_USAGE),
    (&["config"], config, CONFIG_USAGE),
    (&["blocks"], blocks, BLOCKS_USAGE),
    (&["spacemaps", "metaslabs"], spacemaps::run, spacemaps::USAGE),
    (&["objects", "object"], objects::objects, objects::OBJECTS_USAGE),
    (&["pointers"], objects::pointers, objects::POINTERS_USAGE),
    (&["block"], objects::block, objects::BLOCK_USAGE),
    (&["log"], log::run, log::USAGE),
];

const JSON: &[Opt] = &[flag('J', "json")];

/// Runs `icecore inspect ARGS`.
pub fn run(args: &[String]) -> Outcome {
    crate::commands::run("icecore inspect", COMMANDS, &[], args)
}

fn operands(args: &[String], known: &[Opt], usage: &str) -> Outcome<Typed> {
    let typed = Typed::parse(args, known, usage)?;
    if typed.operands.is_empty() {
        return Err(Fail::usage("missing argument", usage));
    }
    Ok(typed)
}

fn devices(name: &str) -> Outcome<Vec<Arc<dyn Device>>> {
    session::open_devices(Path::new(name), Access::ReadOnly)
}

fn print_list(list: &nvlist::NvList) -> Outcome {
    let mut text = String::new();
    nvlist::print(list, &mut text)?;
    print!("{text}");
    Ok(())
}

/// The four labels of each device; equal ones are shown once.
fn labels(args: &[String]) -> Outcome {
    let mut sound = true;
    for name in &operands(args, &[], LABEL_USAGE)?.operands {
        for device in devices(name)? {
            let labels = Labels::read(&*device);
            let mut shown: Vec<(usize, nvlist::NvList)> = Vec::new();
            for (number, label) in labels.each.iter().enumerate() {
                println!("{name}: LABEL {number}");
                match label {
                    Ok(config) => match shown.iter().find(|(_, list)| list == config.raw()) {
                        Some((same, _)) => println!("the same as label {same}\n"),
                        None => {
                            print_list(config.raw())?;
                            println!();
                            shown.push((number, config.raw().clone()));
                        }
                    },
                    Err(why) => {
                        sound = false;
                        println!("cannot be read: {why}\n");
                    }
                }
            }
        }
    }
    if sound { Ok(()) } else { Err(Fail::said(FAILED)) }
}

/// Every sound uberblock, the newest last.
fn uberblocks(args: &[String]) -> Outcome {
    let typed = operands(args, JSON, UBERBLOCK_USAGE)?;
    let mut rows = Vec::new();
    for name in &typed.operands {
        for device in devices(name)? {
            let mut found = read_uberblocks(&*device, None);
            found.sort_by_key(|u| (u.txg(), u.label, u.slot));
            for u in found {
                rows.push((name.clone(), u));
            }
        }
    }
    if typed.has('J') {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, u)| {
                json!({
                    "device": name, "label": u.label, "slot": u.slot, "txg": u.txg().0,
                    "timestamp": u.uberblock.timestamp.get(), "version": u.uberblock.version.get(),
                    "guid_sum": u.uberblock.guid_sum.get(), "big_endian": u.foreign,
                    "rootbp": format!("{:?}", u.uberblock.rootbp),
                })
            })
            .collect();
        println!("{}", json!({ "uberblocks": rows }));
    } else {
        let columns =
            [("TXG", Align::Right), ("TIME", Align::Left), ("LABEL", Align::Right), ("SLOT", Align::Right)];
        let mut table = Table::new(columns.map(|(n, a)| (n.to_string(), a)).to_vec());
        for (_, u) in &rows {
            table.row(vec![
                u.txg().to_string(),
                human::time_with_seconds(u.uberblock.timestamp.get()),
                u.label.to_string(),
                u.slot.to_string(),
            ]);
        }
        print!("{}", table.render(false));
    }
    if rows.is_empty() { Err(Fail::new("there is no uberblock with a sound checksum")) } else { Ok(()) }
}

/// The configuration that the pool keeps of itself.
fn config(args: &[String]) -> Outcome {
    for name in &operands(args, &[], CONFIG_USAGE)?.operands {
        print_list(session::open(name, For::Read)?.config().raw())?;
    }
    Ok(())
}

/// Blocks by type, and whether the space maps agree with them.
fn blocks(args: &[String]) -> Outcome {
    let typed = operands(args, JSON, BLOCKS_USAGE)?;
    let mut sound = true;
    for name in &typed.operands {
        let pool = session::open(name, For::Read)?;
        let found = balance(&pool).map_err(|e| Fail::new(format!("cannot inspect '{name}': {e}")))?;
        // Shared blocks are counted by each pointer and allocated once, which is no fault.
        let fits = found.leaked.is_empty() && found.unallocated.is_empty();
        sound &= fits && found.unseen.is_empty();
        let rows: Vec<(String, Tally)> =
            found.kinds.iter().map(|((kind, level), t)| (format!("L{level} {}", kind.text()), *t)).collect();
        if typed.has('J') {
            let kinds: Vec<_> = rows
                .iter()
                .map(|(n, t)| {
                    json!({"type": n, "blocks": t.blocks, "logical": t.logical, "physical": t.physical,
                           "allocated": t.allocated})
                })
                .collect();
            let places = |all: &[Place]| -> Vec<_> {
                all.iter().map(|p| json!({"vdev": p.vdev, "offset": p.start, "size": p.len})).collect()
            };
            println!(
                "{}",
                json!({"pool": name, "types": kinds, "space_maps": found.allocated, "pointers": found.used,
                       "shared": found.shared, "leaked": places(&found.leaked),
                       "unallocated": places(&found.unallocated), "unseen": found.unseen.len()})
            );
            continue;
        }
        let columns = ["TYPE", "BLOCKS", "LSIZE", "PSIZE", "ASIZE", "COMP"];
        let align = |i: usize| if i == 0 { Align::Left } else { Align::Right };
        let header = columns.iter().enumerate().map(|(i, c)| ((*c).to_string(), align(i))).collect();
        let mut table = Table::new(header);
        let total = rows.iter().fold(Tally::default(), |sum, (_, t)| Tally {
            blocks: sum.blocks + t.blocks,
            logical: sum.logical + t.logical,
            physical: sum.physical + t.physical,
            allocated: sum.allocated + t.allocated,
        });
        for (name, t) in rows.iter().map(|(n, t)| (n.as_str(), t)).chain([("Total", &total)]) {
            table.row(vec![
                name.to_string(),
                t.blocks.to_string(),
                human::bytes(t.logical),
                human::bytes(t.physical),
                human::bytes(t.allocated),
                format!("{:.2}", t.logical as f64 / t.physical.max(1) as f64),
            ]);
        }
        print!("{}", table.render(false));
        for (what, places) in [
            ("leaked: allocated, and nothing points there", &found.leaked),
            ("IN DANGER: in use, and free according to the space maps", &found.unallocated),
        ] {
            for p in places {
                println!("vdev {} offset {:#x}, {}: {what}", p.vdev, p.start, human::bytes(p.len));
            }
        }
        for u in &found.unseen {
            println!("{}:<{:#x}> was not seen: {}", dataset_name(&pool, u.at.objset), u.at.object.0, u.why);
        }
        if found.shared > 0 {
            println!("{} places are shared by several pointers (dedup, clones of blocks)", found.shared);
        }
        if fits {
            println!("no leaks: the space maps and the pointers agree on {} bytes", found.allocated);
        }
    }
    if sound { Ok(()) } else { Err(Fail::said(FAILED)) }
}
