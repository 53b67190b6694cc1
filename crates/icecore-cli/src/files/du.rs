//! `icecore du`: what files take on disk, a file of several names counted once.

use super::out::Out;
use super::place::{Place, Pools, complain};
use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use icecore_pool::Io;
use icecore_zpl::{FileKind, Follow, Step, Walk, Znode};
use std::collections::BTreeSet;

pub const USAGE: &str = "du [-abhs] POOL/FS[@SNAP][:PATH] ...";

struct Query {
    /// Files too, not directories only.
    all: bool,
    /// Sizes instead of space.
    apparent: bool,
    human: bool,
    /// Only the sum.
    summary: bool,
}

pub fn run(args: &[String]) -> Outcome {
    let known = [flag('a', "all"), flag('b', "bytes"), flag('h', "human-readable"), flag('s', "summarize")];
    let typed = Typed::parse(args, &known, USAGE)?;
    if typed.operands.is_empty() {
        return Err(Fail::usage("missing dataset", USAGE));
    }
    let query = Query {
        all: typed.has('a'),
        apparent: typed.has('b'),
        human: typed.has('h'),
        summary: typed.has('s'),
    };
    let mut pools = Pools::default();
    let mut out = Out::new()?;
    let mut failed = false;
    for typed in &typed.operands {
        let place = pools.place(typed)?;
        failed |= !one(&place, pools.io(&place)?, &query, &mut out)?;
    }
    out.finish()?;
    if failed { Err(Fail::said(1)) } else { Ok(()) }
}

impl Query {
    fn of(&self, z: &Znode) -> u64 {
        match (self.apparent, z.kind) {
            (true, FileKind::Regular | FileKind::Symlink) => z.size,
            (true, _) => 0,
            (false, _) => z.allocated(),
        }
    }
    fn line(&self, out: &mut Out, bytes: u64, path: &[u8]) -> Outcome {
        let amount = match (self.human, self.apparent) {
            (true, _) => crate::human::bytes(bytes),
            (false, true) => bytes.to_string(),
            (false, false) => bytes.div_ceil(1024).to_string(),
        };
        out.bytes(amount.as_bytes())?;
        out.bytes(b"\t")?;
        out.name(path)?;
        out.bytes(b"\n")
    }
}

fn one(place: &Place, io: &Io, query: &Query, out: &mut Out) -> Outcome<bool> {
    let fs = place.filesystem()?;
    let top = place.resolve(io, Follow::Never)?.znode;
    let own = query.of(&top);
    if top.kind != FileKind::Directory {
        query.line(out, own, place.typed.as_bytes())?;
        return Ok(true);
    }
    let prefix = place.prefix();
    let full = |path: &[u8]| [prefix.as_bytes(), path].concat();
    let mut seen = BTreeSet::new();
    let mut fine = true;
    // Sums of the directories from the start down to the present one.
    let mut sums = vec![own];
    let mut walk = Walk::new(fs, io, top)?;
    while let Some(step) = walk.next(fs, io) {
        match step {
            Step::File { path, znode } => {
                let bytes = query.of(&znode);
                if znode.kind == FileKind::Directory {
                    sums.push(bytes);
                } else if znode.links < 2 || seen.insert(znode.id) {
                    if let Some(sum) = sums.last_mut() {
                        *sum = sum.saturating_add(bytes);
                    }
                    if query.all && !query.summary {
                        query.line(out, bytes, &full(&path))?;
                    }
                }
            }
            Step::Leave { path, .. } => {
                let sum = sums.pop().unwrap_or(0);
                if let Some(above) = sums.last_mut() {
                    *above = above.saturating_add(sum);
                }
                if path.is_empty() {
                    query.line(out, sum, place.typed.as_bytes())?;
                } else if !query.summary {
                    query.line(out, sum, &full(&path))?;
                }
            }
            Step::Failed { path, error } => {
                complain("du", &String::from_utf8_lossy(&full(&path)), &error);
                fine = false;
            }
        }
    }
    Ok(fine)
}
