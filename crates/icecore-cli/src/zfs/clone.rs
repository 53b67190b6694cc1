//! `zfs clone`.

use super::{Named, cannot, userspace};
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::keys::How;
use crate::session::{self, For};

pub const USAGE: &str = "clone [-pu] [-o property=value] ... <snapshot> <filesystem|volume>";

/// Keys are the origin's (`zfs_crypto_clone_check`, libzfs_crypto.c).
const OF_ORIGIN: &[&str] = &["keyformat", "keylocation", "pbkdf2iters"];

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse_plain(args, &[flag('p', ""), flag('u', ""), value('o', "")], USAGE)?;
    let [snapshot, name] = typed.operands.as_slice() else {
        let what = match typed.operands.len() {
            0 => "missing source dataset argument",
            1 => "missing target dataset argument",
            _ => "too many arguments",
        };
        return Err(Fail::usage(what, USAGE));
    };
    let fail = |why: &str| Fail::new(format!("cannot create '{name}': {why}"));
    let props = super::set::pairs(&typed)?;
    let mut pool = super::open(snapshot, Named::Snapshot, For::Write)?;
    let origin = pool.dsl.lookup_snapshot(pool.io(), snapshot).map_err(|e| cannot("open", snapshot, &e))?;
    super::may_name(name, Named::Dataset).map_err(|why| fail(&why))?;
    let parent = super::parent_of(name).map_err(|f| fail(&f.message))?;
    // So is the suite, which only creation sets (`zfs_valid_proplist`, libzfs_dataset.c).
    if props.iter().any(|(p, _)| *p == "encryption") {
        return Err(fail("'encryption' is readonly"));
    }
    let plain = !pool.dsl.is_encrypted(pool.io(), origin)?;
    if plain && props.iter().any(|(p, v)| *p == "keylocation" && *v != "none") {
        return Err(fail("keylocation must be 'none' for unencrypted datasets"));
    }
    if props.iter().any(|(p, _)| OF_ORIGIN.contains(p)) {
        return Err(fail("Encryption properties must inherit from origin dataset."));
    }
    let quotas = props.iter().filter_map(|(p, v)| userspace::quota(p, v));
    quotas.into_iter().try_for_each(|q| q.map(drop)).map_err(|f| fail(&f.message))?;
    if session::pool_of(snapshot) != session::pool_of(name) {
        return Err(fail("source and target pools differ"));
    }
    if typed.has('p') {
        if pool.dsl.lookup_head(pool.io(), name).is_ok() {
            return Ok(());
        }
        super::create::parents(&mut pool, name, How { missing: super::create::MISSING, ..How::default() })?;
    }
    super::check_parent(&pool, parent).map_err(|f| fail(&f.message))?;
    let (io, dsl) = pool.parts();
    dsl.clone_snapshot(io, origin, name).map_err(|e| cannot("create", name, &e))?;
    for (p, v) in props {
        if userspace::set(&mut pool, name, p, v).map_err(|f| fail(&f.message))? {
            continue;
        }
        let (io, dsl) = pool.parts();
        dsl.prop_set(io, name, p, v).map_err(|e| cannot("create", name, &e))?;
    }
    pool.commit()?;
    drop(pool);
    if typed.has('u') { Ok(()) } else { super::create::mount_new(name, typed.has('p')) }
}
