//! `zfs load-key`, `zfs unload-key`, `zfs change-key`.
//!
//! No service keeps keys between commands yet, so a key can be checked and changed, but not stay loaded.

use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::keys::{Ask, CryptoProps, How, right_key, root_of, unlock};
use crate::session::{self, For};
use crate::state;
use icecore_pool::Pool;
use icecore_transform::crypt::Suite;

pub const LOAD_USAGE: &str = "load-key [-rn] [-L <keylocation>] <-a | filesystem|volume>";
pub const UNLOAD_USAGE: &str = "unload-key [-r] <-a | filesystem|volume>";
pub const CHANGE_USAGE: &str = "change-key [-l] [--keylocation <keylocation>] [-o keyformat=<value>]\n\t    [-o keylocation=<value>] [-o pbkdf2iters=<value>]\n\t    <filesystem|volume>\n\tchange-key -i [-l] [--keylocation <keylocation>] <filesystem|volume>";

const NO_SERVICE: &str = "no process keeps keys between commands here, so nothing can stay loaded\n'zfs load-key -n' checks a key; commands that need one read it from keylocation=file:///PATH,\nfrom --keylocation file:///PATH, or ask for it";

pub fn load(args: &[String]) -> Outcome {
    let known = [flag('a', ""), flag('r', ""), flag('n', ""), value('L', "keylocation")];
    let typed = Typed::parse(args, &known, LOAD_USAGE)?;
    let names = names(&typed, LOAD_USAGE)?;
    let recursive = typed.has('r') || typed.has('a');
    if recursive && typed.value('L').is_some_and(|l| l != "prompt") {
        return Err(Fail::usage("alternate keylocation may only be 'prompt' with -r or -a", LOAD_USAGE));
    }
    if !typed.has('n') {
        let which = names.join("', '");
        return Err(Fail::new(format!("Key load error: cannot load the key of '{which}': {NO_SERVICE}")));
    }
    let how = How { location: typed.value('L'), ask: Ask::Input, otherwise: "" };
    let (mut tried, mut failed) = (0, Vec::new());
    for name in &names {
        let pool = session::open(name, For::Read)?;
        for root in roots(&pool, name, recursive)? {
            tried += 1;
            if let Err(f) = right_key(&pool, &root, how) {
                failed.push(format!("Key load error: {}", f.message));
            }
        }
    }
    println!("{} / {tried} key(s) successfully verified", tried - failed.len());
    if failed.is_empty() { Ok(()) } else { Err(Fail::new(failed.join("\n"))) }
}

pub fn unload(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('a', ""), flag('r', "")], UNLOAD_USAGE)?;
    let recursive = typed.has('r') || typed.has('a');
    let mut loaded = Vec::new();
    for name in names(&typed, UNLOAD_USAGE)? {
        let pool = session::open(&name, For::Read)?;
        loaded.extend(roots(&pool, &name, recursive)?);
    }
    // With -r and -a what is not loaded is passed over; alone it is an error, as in OpenZFS.
    match loaded.first() {
        Some(root) if !recursive => {
            Err(Fail::new(format!("Key unload error: Key already unloaded for '{root}'.")))
        }
        _ => Ok(()),
    }
}

fn names(typed: &Typed, usage: &str) -> Outcome<Vec<String>> {
    match (typed.has('a'), typed.operands.as_slice()) {
        (true, []) => Ok(state::all()?.into_iter().map(|p| p.name).collect()),
        (true, _) => Err(Fail::usage("Cannot specify dataset with -a option", usage)),
        (false, []) => Err(Fail::usage("Missing dataset argument or -a option", usage)),
        (false, names) => Ok(names.to_vec()),
    }
}

/// The encryption root `name`, or with `recursive` all roots from it down.
fn roots(pool: &Pool, name: &str, recursive: bool) -> Outcome<Vec<String>> {
    if recursive {
        let below = pool.dsl.descendants(pool.io(), name).map_err(|e| super::cannot("open", name, &e))?;
        let mut out = Vec::new();
        for ds in below {
            if root_of(pool, &ds)?.as_ref() == Some(&ds) {
                out.push(ds);
            }
        }
        return Ok(out);
    }
    match root_of(pool, name)? {
        None => Err(Fail::new(format!("Key load error: '{name}' is not encrypted."))),
        Some(root) if root != name => Err(Fail::new(format!(
            "Key load error: Keys must be loaded for encryption root of '{name}' ({root})."
        ))),
        Some(root) => Ok(vec![root]),
    }
}

pub fn change(args: &[String]) -> Outcome {
    let known = [flag('l', ""), flag('i', ""), value('o', ""), value('K', "keylocation")];
    let typed = Typed::parse(args, &known, CHANGE_USAGE)?;
    let [name] = typed.operands.as_slice() else {
        let what = if typed.operands.is_empty() { "Missing dataset argument" } else { "Too many arguments" };
        return Err(Fail::usage(what, CHANGE_USAGE));
    };
    let fail = |why: String| Fail::new(format!("Key change error: {why}"));
    let mut crypto = CryptoProps::default();
    let mut user = Vec::new();
    for o in typed.values('o') {
        let (p, v) = super::split(o, CHANGE_USAGE)?;
        let inherits = typed.has('i');
        let allowed = icecore_dsl::prop::is_user(p) || (!inherits && p != "encryption");
        if allowed && crypto.take(p, v).map_err(|f| fail(f.message))? {
            continue;
        }
        if !icecore_dsl::prop::is_user(p) {
            return Err(fail(if inherits {
                "Only user properties may be set with 'zfs change-key -i'".into()
            } else {
                "Only keyformat, keylocation, pbkdf2iters, and user properties may be set with this command."
                    .into()
            }));
        }
        user.push((p, v));
    }
    let mut pool = session::open(name, For::Write)?;
    let Some(root) = root_of(&pool, name)? else { return Err(fail("Dataset not encrypted.".into())) };
    let how = How { location: typed.value('K'), ask: Ask::Input, otherwise: "" };
    unlock(&mut pool, name, how).map_err(|f| fail(f.message))?;
    if typed.has('i') {
        inherit(&mut pool, name, &root).map_err(|f| fail(f.message))?;
    } else {
        rewrap(&mut pool, name, root == *name, crypto).map_err(|f| fail(f.message))?;
    }
    let (io, dsl) = pool.parts();
    for (p, v) in user {
        dsl.prop_set(io, name, p, v).map_err(|e| super::cannot("set property for", name, &e))?;
    }
    pool.commit()?;
    Ok(())
}

/// A new key; what the command line leaves open stays as it is at an encryption root.
fn rewrap(pool: &mut Pool, name: &str, is_root: bool, mut crypto: CryptoProps) -> Outcome {
    if is_root {
        let head = pool.dsl.lookup_head(pool.io(), name)?;
        if crypto.keyformat.is_none() {
            crypto.keyformat = Some(pool.dsl.key_form(pool.io(), head.dir)?.keyformat);
        }
        if crypto.keylocation.is_none() {
            crypto.keylocation = pool.dsl.prop_text(pool.io(), head, "keylocation")?;
        }
    }
    // The suite is of the data and stays; the engine takes it from there.
    let new = crypto.new_key(Some(name), Suite::Aes256Gcm)?;
    let (io, dsl) = pool.parts();
    Ok(dsl.change_key(io, name, new)?)
}

fn inherit(pool: &mut Pool, name: &str, root: &str) -> Outcome {
    if root != name {
        return Err(Fail::new("Key inheritting can only be performed on encryption roots."));
    }
    let Some((parent, _)) = name.rsplit_once('/') else {
        return Err(Fail::new("Root dataset cannot inherit key."));
    };
    if root_of(pool, parent)?.is_none() {
        return Err(Fail::new("Parent must be encrypted."));
    }
    unlock(pool, parent, How { location: None, ask: Ask::Input, otherwise: "" })?;
    let (io, dsl) = pool.parts();
    Ok(dsl.change_key_inherit(io, name)?)
}
