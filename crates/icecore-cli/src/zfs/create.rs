//! `zfs create` of file systems, also encrypted ones.

use super::cannot;
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::keys::{Ask, CryptoProps, How, root_of, unlock};
use crate::session::{self, For, Open};
use icecore_dsl::{DatasetRef, DslError};
use icecore_pool::Pool;
use icecore_transform::crypt::Suite;

pub const USAGE: &str = "create [-pu] [--keylocation <keylocation>] [-o property=value] ... <filesystem>";

pub fn run(args: &[String]) -> Outcome {
    let known = [flag('p', ""), flag('u', ""), value('o', ""), value('K', "keylocation")];
    let typed = Typed::parse(args, &known, USAGE)?;
    let [name] = typed.operands.as_slice() else {
        return Err(Fail::usage("missing filesystem argument", USAGE));
    };
    let fail = |f: Fail| Fail { message: format!("cannot create '{name}': {}", f.message), ..f };
    let mut crypto = CryptoProps::default();
    let mut props = Vec::new();
    for o in typed.values('o') {
        let (p, v) = super::set::split(o, USAGE)?;
        if !crypto.take(p, v).map_err(fail)? {
            props.push((p, v));
        }
    }
    let mut pool = session::open(name, For::Write)?;
    let how = How { location: typed.value('K'), ask: Ask::Input, otherwise: "" };
    if typed.has('p') {
        parents(&mut pool, name, how)?;
        if pool.dsl.lookup_head(pool.io(), name).is_ok() {
            pool.commit()?;
            return Ok(());
        }
    }
    create(&mut pool, name, &props, &crypto, how).map_err(fail)?;
    pool.commit()?;
    Ok(())
}

/// Makes the missing datasets above `name` (`-p`).
pub fn parents(pool: &mut Open, name: &str, how: How<'_>) -> Outcome {
    let mut path = session::pool_of(name).to_string();
    for part in name.split('/').skip(1).take(name.matches('/').count().saturating_sub(1)) {
        path = format!("{path}/{part}");
        if pool.dsl.lookup_head(pool.io(), &path).is_err() {
            create(pool, &path, &[], &CryptoProps::default(), how)
                .map_err(|f| Fail { message: format!("cannot create '{path}': {}", f.message), ..f })?;
            // Each for itself, as OpenZFS does it (`create_parents`, libzfs_dataset.c): a key may be asked for next.
            pool.commit()?;
        }
    }
    Ok(())
}

fn create(
    pool: &mut Open,
    name: &str,
    props: &[(&str, &str)],
    crypto: &CryptoProps,
    how: How<'_>,
) -> Outcome {
    // Asking for a key comes after all that can be refused without it.
    let parent = name.rsplit_once('/').map_or(name, |(p, _)| p);
    if pool.dsl.lookup_head(pool.io(), name).is_ok() {
        return Err(Fail::new("dataset already exists"));
    }
    if pool.dsl.lookup_head(pool.io(), parent).is_err() {
        return Err(Fail::new("parent does not exist"));
    }
    let inherited = root_of(pool, parent)?;
    let made = match wanted(pool, parent, inherited.as_deref(), crypto)? {
        Some(suite) => {
            let key = pool.away(|| crypto.new_key(Some(name), suite))??;
            let (io, dsl) = pool.parts();
            dsl.create_encrypted(io, name, props, &key)
        }
        None => {
            if inherited.is_some() {
                unlock(pool, parent, how)?;
            }
            let (io, dsl) = pool.parts();
            dsl.create_filesystem(io, name, props)
        }
    };
    let made = made.map_err(|e| Fail::new(super::reason(&e)))?;
    give_key(pool, made)
}

/// The suite of a new encryption root; `None` where the dataset takes what its parent has
/// (`zfs_crypto_create`, libzfs_crypto.c).
fn wanted(
    pool: &Pool,
    parent: &str,
    inherited: Option<&str>,
    crypto: &CryptoProps,
) -> Outcome<Option<Suite>> {
    let above = match inherited {
        Some(_) => {
            let value = pool.dsl.prop(pool.io(), parent, "encryption")?.map(|p| p.value);
            value.and_then(|v| Suite::from_name(&v))
        }
        None => None,
    };
    let suite = crypto.suite.unwrap_or(above);
    let Some(suite) = suite else {
        if crypto.keyformat.is_some() || crypto.keylocation.is_some() || crypto.iters.is_some() {
            return Err(Fail::new("Encryption must be turned on to set encryption properties."));
        }
        return match inherited {
            Some(root) => Err(Fail::new(format!(
                "datasets that are not encrypted are not made below an encrypted one here ('{root}')"
            ))),
            None => Ok(None),
        };
    };
    let own_key = crypto.keyformat.is_some() || crypto.keylocation.is_some();
    match (inherited, own_key) {
        (_, true) => Ok(Some(suite)),
        (None, false) => Err(Fail::new("Keyformat required for new encryption root.")),
        (Some(root), false) if crypto.iters.is_some() => Err(Fail::new(format!(
            "pbkdf2iters belongs to a key of its own; this dataset takes that of '{root}'"
        ))),
        (Some(_), false) if Some(suite) != above => Err(Fail::new(format!(
            "a dataset that takes its parent's key takes its encryption here: {} is not that of '{parent}'",
            suite.name()
        ))),
        (Some(_), false) => Ok(None),
    }
}

/// What the new dataset holds is encrypted when it is written: the block store needs its keys.
fn give_key(pool: &mut Pool, made: DatasetRef) -> Outcome {
    let (io, dsl) = pool.parts();
    if let Some(keys) = dsl.master_keys(io, made.dir).map_err(|e: DslError| cannot("open", "", &e))? {
        io.add_key(made.obj, keys);
    }
    Ok(())
}
