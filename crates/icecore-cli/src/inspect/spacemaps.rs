//! Metaslabs: how much of each is free, in how many pieces.

use super::{JSON, operands};
use crate::args::flag;
use crate::fail::{Fail, Outcome};
use crate::human;
use crate::session::{self, For};
use crate::table::{Align, Table};
use icecore_pool::leaks::{Slab, metaslabs};
use serde_json::json;

pub const USAGE: &str = "inspect spacemaps [--json] [-v] <pool>";

/// Every metaslab of the pools named; with `-v` every free range.
pub fn run(args: &[String]) -> Outcome {
    let typed = operands(args, &[JSON[0], flag('v', "")], USAGE)?;
    for name in &typed.operands {
        let pool = session::open(name, For::Read)?;
        let mut slabs: Vec<Row> = Vec::new();
        metaslabs(&pool, &mut |slab| slabs.push(Row::new(slab, typed.has('v'))))
            .map_err(|e| Fail::new(format!("cannot inspect '{name}': {e}")))?;
        if typed.has('J') {
            let list: Vec<_> = slabs.iter().map(|s| describe(s, typed.has('v'))).collect();
            println!("{}", json!({"pool": name, "metaslabs": list}));
            continue;
        }
        let columns =
            ["VDEV", "METASLAB", "OFFSET", "OBJECT", "MAP", "SIZE", "FREE", "PIECES", "LARGEST", "LOGGED"];
        let header = columns.iter().map(|c| ((*c).to_string(), Align::Right)).collect();
        let mut table = Table::new(header);
        for s in &slabs {
            table.row(vec![
                s.slab.place.vdev.to_string(),
                s.slab.number.to_string(),
                format!("{:#x}", s.slab.place.start),
                s.slab.object.to_string(),
                human::bytes(s.slab.length),
                human::bytes(s.slab.place.len),
                human::bytes(s.space),
                s.pieces.to_string(),
                human::bytes(s.largest),
                if s.slab.unflushed { "yes" } else { "-" }.into(),
            ]);
        }
        print!("{}", table.render(false));
        if typed.has('v') {
            for (s, place) in slabs.iter().flat_map(|s| s.slab.free.iter().map(move |p| (s, p))) {
                println!(
                    "vdev {} metaslab {}: free {:#x}, {} bytes",
                    place.vdev, s.slab.number, place.start, place.len
                );
            }
        }
    }
    Ok(())
}

/// A metaslab, its free space summed up; the ranges only where they are to be shown.
struct Row {
    slab: Slab,
    space: u64,
    pieces: usize,
    largest: u64,
}

impl Row {
    fn new(slab: &Slab, ranges: bool) -> Self {
        let lens = || slab.free.iter().map(|p| p.len);
        let (space, pieces, largest) = (lens().sum(), slab.free.len(), lens().max().unwrap_or(0));
        let mut slab = slab.clone();
        if !ranges {
            slab.free = Vec::new();
        }
        Self { slab, space, pieces, largest }
    }
}

fn describe(s: &Row, ranges: bool) -> serde_json::Value {
    let mut out = json!({
        "vdev": s.slab.place.vdev, "metaslab": s.slab.number, "offset": s.slab.place.start,
        "size": s.slab.place.len, "object": s.slab.object, "map_bytes": s.slab.length, "free": s.space,
        "pieces": s.pieces, "largest": s.largest, "unflushed": s.slab.unflushed,
    });
    if ranges {
        let list: Vec<_> = s.slab.free.iter().map(|p| json!({"offset": p.start, "size": p.len})).collect();
        out["ranges"] = list.into();
    }
    out
}
