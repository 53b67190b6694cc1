//! Objects, the pointers to their blocks, and single blocks.

use super::{JSON, operands};
use crate::args::{Opt, Typed, flag};
use crate::fail::{FAILED, Fail, Outcome};
use crate::human;
use crate::session::{self, For};
use crate::table::{Align, Table};
use icecore_dmu::{BlockStore, Objset, Want};
use icecore_format::{Blkptr, Bookmark, Dnode, ObjectId};
use icecore_pool::Pool;
use icecore_pool::walk::blocks_of;
use serde_json::json;
use std::io::Write;

pub const OBJECTS_USAGE: &str = "inspect objects [--json] [--mos] <dataset> [<object>] ...";
pub const POINTERS_USAGE: &str = "inspect pointers [--json] [--mos] <dataset> <object>";
pub const BLOCK_USAGE: &str = "inspect block [--raw|--data] [--mos] <dataset> <object> <level> <block>";

const MOS: Opt = flag('M', "mos");

/// The objset asked for: a dataset's, or the pool's own. Its contents need no key.
fn objset(pool: &Pool, name: &str, typed: &Typed) -> Outcome<Objset> {
    let fail = |e: &dyn std::fmt::Display| Fail::new(format!("cannot inspect '{name}': {e}"));
    if typed.has('M') {
        let root = pool.uberblock().rootbp;
        return Objset::open(pool.io(), 0, &root, Want::NoKey).map_err(|e| fail(&e));
    }
    let r = pool.dsl.lookup_dataset(pool.io(), name).map_err(|e| crate::zfs::cannot("inspect", name, &e))?;
    pool.dsl.objset(pool.io(), r.obj, Want::NoKey).map_err(|e| fail(&e))
}

fn number(text: &str, what: &str, usage: &str) -> Outcome<u64> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| Fail::usage(format!("{what} '{text}' is not a number"), usage))
}

fn dnode(pool: &Pool, os: &Objset, object: u64) -> Outcome<Dnode> {
    os.dnode(pool.io(), ObjectId(object)).map_err(|e| Fail::new(format!("object {object}: {e}")))
}

fn describe(object: u64, dn: &Dnode) -> serde_json::Value {
    json!({
        "object": object, "type": dn.kind().text(), "levels": dn.nlevels(), "block_size": dn.block_size(),
        "indirect_block_size": 1_u64 << dn.indblkshift(), "max_block": dn.maxblkid(),
        "allocated": dn.used_bytes(), "dnode_size": dn.slots() * icecore_format::dnode::SLOT,
        "bonus_type": dn.bonus_type().text(), "bonus_size": dn.bonuslen(), "spill": dn.has_spill(),
        "checksum": format!("{:?}", dn.checksum()), "compression": format!("{:?}", dn.compress()),
    })
}

/// Every object of an objset, or the ones named.
pub fn objects(args: &[String]) -> Outcome {
    let typed = operands(args, &[JSON[0], MOS], OBJECTS_USAGE)?;
    let (name, numbers) =
        typed.operands.split_first().ok_or_else(|| Fail::usage("missing argument", OBJECTS_USAGE))?;
    let pool = session::open(name, For::Read)?;
    let os = objset(&pool, name, &typed)?;
    let mut found = Vec::new();
    let mut bad = Vec::new();
    let mut take = |object: u64| match dnode(&pool, &os, object) {
        Ok(dn) => found.push((object, dn)),
        Err(f) => bad.push(f.message),
    };
    if numbers.is_empty() {
        let mut at = ObjectId(0);
        loop {
            match os.next_object(pool.io(), at) {
                Ok(Some(next)) => {
                    at = next;
                    take(at.0);
                }
                Ok(None) => break,
                Err(e) => return Err(Fail::new(format!("after object {}: {e}", at.0))),
            }
        }
    } else {
        for text in numbers {
            take(number(text, "object", OBJECTS_USAGE)?);
        }
    }
    if typed.has('J') {
        let list: Vec<_> = found.iter().map(|(o, dn)| describe(*o, dn)).collect();
        println!("{}", json!({ "objset": os.id(), "objects": list }));
    } else {
        print!("{}", table(&found));
    }
    if bad.is_empty() { Ok(()) } else { Err(Fail::new(bad.join("\n"))) }
}

fn table(found: &[(u64, Dnode)]) -> String {
    let columns = ["OBJECT", "LEVELS", "IBLK", "DBLK", "BLOCKS", "ALLOC", "DNSIZE", "BONUS", "TYPE"];
    let align = |i: usize| if i == columns.len() - 1 { Align::Left } else { Align::Right };
    let header = columns.iter().enumerate().map(|(i, c)| ((*c).to_string(), align(i))).collect();
    let mut table = Table::new(header);
    for (object, dn) in found {
        table.row(vec![
            object.to_string(),
            dn.nlevels().to_string(),
            human::bytes(1 << dn.indblkshift()),
            human::bytes(dn.block_size()),
            dn.maxblkid().saturating_add(1).to_string(),
            human::bytes(dn.used_bytes()),
            (dn.slots() * icecore_format::dnode::SLOT).to_string(),
            dn.bonuslen().to_string(),
            match dn.bonuslen() {
                0 => dn.kind().text().to_string(),
                _ => format!("{}, bonus {}", dn.kind().text(), dn.bonus_type().text()),
            },
        ]);
    }
    table.render(false)
}

fn pointer_json(bp: &Blkptr, at: &Bookmark) -> serde_json::Value {
    let places: Vec<_> = bp
        .dvas()
        .iter()
        .map(|d| json!({"vdev": d.vdev(), "offset": d.offset(), "size": d.asize(), "gang": d.is_gang()}))
        .collect();
    json!({
        "level": at.level, "block": at.blkid, "type": bp.kind().text(), "places": places,
        "logical": bp.lsize(), "physical": bp.psize(), "birth": bp.birth().0,
        "physical_birth": bp.physical_birth().0, "fill": bp.fill(),
        "checksum": format!("{:?}", bp.checksum()), "compression": format!("{:?}", bp.compress()),
        "encrypted": bp.uses_crypt(), "dedup": bp.is_dedup(),
        "sum": bp.cksum().map(|w| format!("{w:016x}")).join(":"),
    })
}

fn place_text(at: &Bookmark) -> String {
    if at.blkid == Bookmark::SPILL { "spill".into() } else { format!("L{} {}", at.level, at.blkid) }
}

/// Every block pointer of one object, from the top down.
pub fn pointers(args: &[String]) -> Outcome {
    let typed = operands(args, &[JSON[0], MOS], POINTERS_USAGE)?;
    let [name, object] = typed.operands.as_slice() else {
        return Err(Fail::usage("wrong number of arguments", POINTERS_USAGE));
    };
    let object = number(object, "object", POINTERS_USAGE)?;
    let pool = session::open(name, For::Read)?;
    let os = objset(&pool, name, &typed)?;
    let dn = dnode(&pool, &os, object)?;
    let mut list = Vec::new();
    let unseen = blocks_of(pool.io(), os.id(), object, &dn, &mut |bp, at| {
        if typed.has('J') {
            list.push(pointer_json(bp, at));
        } else {
            println!("{:>12}  {bp:?}", place_text(at));
        }
        true
    });
    if typed.has('J') {
        println!("{}", json!({ "object": describe(object, &dn), "pointers": list }));
    }
    for u in &unseen {
        eprintln!("{} was not seen: {}", place_text(&u.at), u.why);
    }
    if unseen.is_empty() { Ok(()) } else { Err(Fail::said(FAILED)) }
}

/// One block: its pointer and what its copies are like, or its bytes.
pub fn block(args: &[String]) -> Outcome {
    let typed = operands(args, &[flag('R', "raw"), flag('D', "data"), MOS], BLOCK_USAGE)?;
    let [name, object, level, blkid] = typed.operands.as_slice() else {
        return Err(Fail::usage("wrong number of arguments", BLOCK_USAGE));
    };
    let (object, blkid) = (number(object, "object", BLOCK_USAGE)?, number(blkid, "block", BLOCK_USAGE)?);
    let at_level = i8::try_from(number(level, "level", BLOCK_USAGE)?);
    let at_level = at_level.map_err(|_| Fail::usage("there is no such level", BLOCK_USAGE))?;
    let level = at_level.unsigned_abs();
    let pool = session::open(name, For::Read)?;
    let os = objset(&pool, name, &typed)?;
    let dn = dnode(&pool, &os, object)?;
    let top = dn.nlevels().saturating_sub(1);
    let blocks = dn.maxblkid().checked_shr(dn.epbs().saturating_mul(u32::from(level))).unwrap_or(0);
    if level > top || blkid > blocks {
        return Err(Fail::new(format!(
            "object {object} has levels 0 to {top}, and of level {level} blocks up to {blocks}"
        )));
    }
    let fail = |e: &dyn std::fmt::Display| Fail::new(format!("object {object} L{level} {blkid}: {e}"));
    let bp = os.blkptr(pool.io(), ObjectId(object), &dn, level, blkid).map_err(|e| fail(&e))?;
    if bp.is_hole() {
        println!("{bp:?}: a hole, nothing is stored");
        return Ok(());
    }
    let at = Bookmark { objset: os.id(), object: ObjectId(object), level: at_level, blkid };
    if typed.has('R') || typed.has('D') {
        let want = if typed.has('R') { Want::Stored } else { Want::Logical };
        let bytes = pool.io().read(&bp, &at, want).map_err(|e| fail(&e))?;
        let mut out = crate::pipe::output()?;
        return out.write_all(&bytes).map_err(|e| fail(&e));
    }
    println!("{bp:?}");
    if bp.is_embedded() {
        println!("the bytes lie in the pointer itself");
        return Ok(());
    }
    let seen = pool.io().examine(&bp);
    println!(
        "copies: {}, bad: {}{}",
        bp.dvas().len(),
        seen.bad,
        if seen.lost { ", none is good" } else { "" }
    );
    if seen.bad == 0 { Ok(()) } else { Err(Fail::said(FAILED)) }
}
