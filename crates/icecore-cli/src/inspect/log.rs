//! `icecore inspect log`: what the intent logs of a pool promise that is not yet in its datasets (as `zdb -i`).

use super::operands;
use crate::args::flag;
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use icecore_format::zil::record::{Body, LogRecord, kind_name};
use icecore_pool::Pool;
use icecore_pool::zil;
use std::collections::BTreeMap;

pub const USAGE: &str = "inspect log [-v] <pool> ...";

pub fn run(args: &[String]) -> Outcome {
    let typed = operands(args, &[flag('v', "verbose")], USAGE)?;
    for name in &typed.operands {
        let pool = session::open(name, For::Read)?;
        let fail = |e: &dyn std::fmt::Display| Fail::new(format!("cannot inspect '{name}': {e}"));
        let mut found = false;
        for dataset in pool.dsl.descendants(pool.io(), pool.name())? {
            found |= one(&pool, &dataset, typed.has('v')).map_err(|e| fail(&e.message))?;
        }
        if !found {
            println!("{name}: no intent log holds anything");
        }
    }
    Ok(())
}

/// One dataset; false if its log holds nothing.
fn one(pool: &Pool, dataset: &str, verbose: bool) -> Outcome<bool> {
    let head = pool.dsl.lookup_head(pool.io(), dataset)?;
    let Some(header) = zil::header(pool, head.obj)? else { return Ok(false) };
    let mut kinds: BTreeMap<u64, u64> = BTreeMap::new();
    let mut lines = Vec::new();
    let walked = zil::walk(pool, head.obj, &mut |record| {
        *kinds.entry(record.kind).or_default() += 1;
        if verbose {
            lines.push(line(record));
        }
        true
    })?;
    if walked.blocks == 0 {
        return Ok(false);
    }
    let claimed = match header.claim_txg.get() {
        0 => "not claimed".to_string(),
        txg => format!("claimed in txg {txg}"),
    };
    if walked.locked {
        println!("{dataset}: {} blocks, {claimed}; the records are encrypted", walked.blocks);
        return Ok(true);
    }
    println!("{dataset}: {} records in {} blocks, {claimed}", walked.records, walked.blocks);
    lines.iter().for_each(|l| println!("\t{l}"));
    for (kind, count) in kinds {
        println!("\t{:<20} {count}", name(kind));
    }
    Ok(true)
}

fn name(kind: u64) -> String {
    kind_name(kind).map_or_else(|| format!("type {kind}"), String::from)
}

fn line(r: &LogRecord<'_>) -> String {
    let text = |b: &[u8]| String::from_utf8_lossy(b).escape_debug().to_string();
    let what = match &r.body {
        Body::Create { dir, new, name, link, .. } => {
            let link = link.map(|l| format!(" -> {}", text(l))).unwrap_or_default();
            format!("object {} in {dir}: {}{link}", new.object, text(name))
        }
        Body::Remove { dir, name, .. } => format!("in {dir}: {}", text(name)),
        Body::Link { dir, object, name } => format!("object {object} in {dir}: {}", text(name)),
        Body::Rename { from, to, old, new, .. } => {
            format!("from {from} to {to}: {} => {}", text(old), text(new))
        }
        Body::Write { object, offset, length, .. }
        | Body::Grow { object, offset, length }
        | Body::Truncate { object, offset, length }
        | Body::Clone { object, offset, length, .. } => {
            format!("object {object}, {length} bytes at {offset}")
        }
        Body::SetAttr { object, mask, .. } => format!("object {object}, attributes {mask:#x}"),
        Body::SetXattr { object, name, value } => {
            format!("object {object}, {}, {} bytes", text(name), value.len())
        }
        Body::SetAcl { object, acl } => format!("object {object}, {} entries", acl.count),
        _ => String::new(),
    };
    format!("{} txg {}, seq {}: {what}", name(r.kind), r.txg, r.seq)
}
