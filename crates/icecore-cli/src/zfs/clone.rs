//! `zfs clone`.

use super::cannot;
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::keys::How;
use crate::session::{self, For};
use icecore_dsl::DslError;

pub const USAGE: &str = "clone [-pu] [-o property=value] ... <snapshot> <filesystem|volume>";

/// Keys are the origin's (`zfs_crypto_clone_check`, libzfs_crypto.c).
const OF_ORIGIN: &[&str] = &["keyformat", "keylocation", "pbkdf2iters"];

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('p', ""), flag('u', ""), value('o', "")], USAGE)?;
    let [snapshot, name] = typed.operands.as_slice() else {
        let what = match typed.operands.len() {
            0 => "missing source dataset argument",
            1 => "missing target dataset argument",
            _ => "too many arguments",
        };
        return Err(Fail::usage(what, USAGE));
    };
    let fail = |why: &str| Fail::new(format!("cannot create '{name}': {why}"));
    let props = typed.values('o').map(super::set::split).collect::<Outcome<Vec<_>>>()?;
    if let Some((p, _)) = props.iter().enumerate().find_map(|(i, p)| props[..i].iter().find(|o| o.0 == p.0)) {
        return Err(Fail::new(format!("property '{p}' specified multiple times")));
    }
    super::may_name(name).map_err(|why| fail(&why))?;
    if !snapshot.contains('@') {
        return Err(super::not_a_snapshot(snapshot));
    }
    let mut pool = session::open(snapshot, For::Write)?;
    let origin = pool.dsl.lookup_snapshot(pool.io(), snapshot).map_err(|e| cannot("open", snapshot, &e))?;
    // So is the suite, which only creation sets (`zfs_valid_proplist`, libzfs_dataset.c).
    if props.iter().any(|(p, _)| *p == "encryption") {
        return Err(fail("'encryption' is readonly"));
    }
    if props.iter().any(|(p, _)| OF_ORIGIN.contains(p)) {
        return Err(fail("Encryption properties must inherit from origin dataset."));
    }
    if session::pool_of(snapshot) != session::pool_of(name) {
        return Err(fail("source and target pools differ"));
    }
    if typed.has('p') {
        if pool.dsl.lookup_head(pool.io(), name).is_ok() {
            return Ok(());
        }
        super::create::parents(&mut pool, name, How { missing: super::create::MISSING, ..How::default() })?;
    }
    let (io, dsl) = pool.parts();
    dsl.clone_snapshot(io, origin, name).map_err(|e| match e {
        DslError::NotFound(_) => fail("parent does not exist"),
        e => cannot("create", name, &e),
    })?;
    for (p, v) in props {
        dsl.prop_set(io, name, p, v).map_err(|e| cannot("create", name, &e))?;
    }
    pool.commit()?;
    drop(pool);
    if typed.has('u') { Ok(()) } else { super::create::mount_new(name, typed.has('p')) }
}
