//! `zfs load-key`, `zfs unload-key`, `zfs change-key`.
//!
//! Keys stay loaded in the service; without it they can be checked and changed.

use super::Named;
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::keys::{CryptoProps, How, right_key, root_of, unlock};
use crate::session::{self, For, Open};
use crate::state;
use icecore_dsl::{DslError, KeyError};
use icecore_pool::Pool;
use icecore_transform::crypt::Suite;

pub const LOAD_USAGE: &str = "load-key [-rn] [-L <keylocation>] <-a | filesystem|volume>";
pub const UNLOAD_USAGE: &str = "unload-key [-r] <-a | filesystem|volume>";
pub const CHANGE_USAGE: &str = "change-key [-l] [--keylocation <keylocation>] [-o keyformat=<value>]\n\t    [-o keylocation=<value>] [-o pbkdf2iters=<value>]\n\t    <filesystem|volume>\n\tchange-key -i [-l] [--keylocation <keylocation>] <filesystem|volume>";

const NOT_KEPT: &str = "no process keeps its keys, so nothing can stay loaded: that takes the service\n'zfs load-key -n' checks a key; commands that need one read it from keylocation=file:///PATH,\nfrom --keylocation file:///PATH, or ask for it";

pub fn load(args: &[String]) -> Outcome {
    let known = [flag('a', ""), flag('r', ""), flag('n', ""), value('L', "keylocation")];
    let typed = Typed::parse_plain(args, &known, LOAD_USAGE)?;
    let names = names(&typed, LOAD_USAGE)?;
    let recursive = typed.has('r') || typed.has('a');
    if recursive && typed.value('L').is_some_and(|l| l != "prompt") {
        return Err(Fail::usage("alternate keylocation may only be 'prompt' with -r or -a", LOAD_USAGE));
    }
    let how = How { location: typed.value('L'), missing: "", ..How::default() };
    let mut count = Count::default();
    for name in &names {
        let Some(mut pool) = count.opened(super::open(name, Named::Dataset, For::Read)) else { continue };
        let Some(roots) = count.opened(roots(&pool, name, recursive)) else { continue };
        for root in roots {
            // Of many, those that are loaded already are passed over (`load_key_callback`, zfs_main.c).
            if recursive && !typed.has('n') && is_kept(&pool, &root)? {
                continue;
            }
            let loaded = is_root(&pool, &root, "loaded")
                .and_then(|()| load_one(&mut pool, &root, how, typed.has('n')));
            count.add(loaded, "Key load error");
        }
        drop(pool);
        if !typed.has('n') {
            crate::replay::with_new_key(name)?;
        }
    }
    let verb = if typed.has('n') { "verified" } else { "loaded" };
    let tell = typed.has('n') || recursive && count.tried > 0;
    count.end(verb, tell)
}

/// Loads the key of the root of `name` to stay (`zfs mount -l`).
pub fn load_root_of(name: &str, how: How<'_>) -> Outcome {
    let mut pool = session::open(name, For::Read)?;
    let Some(root) = root_of(&pool, name)? else { return Ok(()) };
    if !is_kept(&pool, &root)? {
        load_one(&mut pool, &root, How { missing: "", ..how }, false)
            .map_err(|f| Fail::new(format!("Key load error: {}", f.message)))?;
    }
    drop(pool);
    crate::replay::with_new_key(name)
}

/// Unloads the key of the root of `name` (`zfs unmount -u`).
pub fn unload_root_of(name: &str) -> Outcome {
    let mut pool = session::open(name, For::Read)?;
    match root_of(&pool, name)? {
        Some(root) if is_kept(&pool, &root)? => {
            unload_one(&mut pool, &root).map_err(|f| Fail::new(format!("Key unload error: {}", f.message)))
        }
        _ => Ok(()),
    }
}

/// Loads all keys from `name` down that are not loaded, as far as that can be done (`zpool import -l`).
pub fn load_below(name: &str) -> Outcome {
    let how = How { missing: "", ..How::default() };
    let mut count = Count::default();
    let mut pool = session::open(name, For::Read)?;
    for root in roots(&pool, name, true)? {
        if !is_kept(&pool, &root)? {
            count.add(load_one(&mut pool, &root, how, false), "Key load error");
        }
    }
    drop(pool);
    crate::replay::with_new_key(name)?;
    println!("{} / {} keys successfully loaded", count.tried - count.failed, count.tried);
    count.end("loaded", false).map_err(|f| Fail::new(f.message))
}

/// Checks the key of one root and, unless that was all, loads it to stay.
fn load_one(pool: &mut Open, root: &str, how: How<'_>, check_only: bool) -> Outcome {
    if !check_only {
        if pool.owned().is_none() {
            return Err(Fail::new(format!("cannot load the key of '{root}': {NOT_KEPT}")));
        }
        if is_kept(pool, root)? {
            return Err(Fail::new(format!("Key already loaded for '{root}'.")));
        }
    }
    let material = right_key(pool, root, how)?;
    if check_only {
        return Ok(());
    }
    match crate::keys::load(pool, root, &material) {
        Ok(()) => Ok(()),
        Err(DslError::Key(KeyError::Loaded)) => {
            let dir = pool.dsl.lookup_head(pool.io(), root)?.dir;
            // A command has it for itself: from now on it stays.
            match pool.owned().is_some_and(|owned| owned.keep(dir)) {
                true => Ok(()),
                false => Err(Fail::new(format!("Key already loaded for '{root}'."))),
            }
        }
        Err(e) => Err(Fail::new(e.to_string())),
    }
}

/// Whether the key of a root is loaded, and to stay.
fn is_kept(pool: &Open, root: &str) -> Outcome<bool> {
    let dir = pool.dsl.lookup_head(pool.io(), root)?.dir;
    Ok(pool.dsl.key_loaded(pool.io(), dir)? && !pool.owned().is_some_and(|owned| owned.is_lent(dir)))
}

pub fn unload(args: &[String]) -> Outcome {
    let typed = Typed::parse_plain(args, &[flag('a', ""), flag('r', "")], UNLOAD_USAGE)?;
    let recursive = typed.has('r') || typed.has('a');
    let mut count = Count::default();
    for name in names(&typed, UNLOAD_USAGE)? {
        let Some(mut pool) = count.opened(super::open(&name, Named::Dataset, For::Read)) else { continue };
        let Some(roots) = count.opened(roots(&pool, &name, recursive)) else { continue };
        for root in roots {
            // With -r and -a what is not loaded is passed over; alone it is an error, as in OpenZFS.
            let unloaded = match is_root(&pool, &root, "unloaded") {
                Ok(()) if is_kept(&pool, &root)? => unload_one(&mut pool, &root),
                Ok(()) if recursive => continue,
                Ok(()) => Err(Fail::new(format!("Key already unloaded for '{root}'."))),
                not_one => not_one,
            };
            count.add(unloaded, "Key unload error");
        }
    }
    let tell = recursive && count.tried > 0;
    count.end("unloaded", tell)
}

fn unload_one(pool: &mut Open, root: &str) -> Outcome {
    let unloaded = pool.in_memory(|pool| {
        let (io, dsl) = pool.parts();
        for objset in dsl.unload_key(io, root)? {
            io.remove_key(objset);
        }
        Ok(())
    })?;
    unloaded.map_err(|e: DslError| match e {
        DslError::Busy(_) => Fail::new(format!("'{root}' is busy.")),
        e => Fail::new(e.to_string()),
    })
}

/// How many keys were tried, and what went wrong.
#[derive(Default)]
struct Count {
    tried: usize,
    failed: usize,
    messages: Vec<String>,
}

impl Count {
    fn add(&mut self, outcome: Outcome, error: &str) {
        self.tried += 1;
        if let Err(f) = outcome {
            self.failed += 1;
            self.messages.push(format!("{error}: {}", f.message));
        }
    }
    /// What could be opened; what not is no key that was tried, and does not keep the others from it.
    fn opened<T>(&mut self, outcome: Outcome<T>) -> Option<T> {
        outcome.map_err(|f| self.messages.push(f.message)).ok()
    }
    /// A key that was refused makes the command end with -1 (`load_unload_keys`, zfs_main.c).
    fn end(self, verb: &str, tell: bool) -> Outcome {
        if tell {
            println!("{} / {} key(s) successfully {verb}", self.tried - self.failed, self.tried);
        }
        let fail = Fail::new(self.messages.join("\n"));
        match (self.failed, self.messages.is_empty()) {
            (0, true) => Ok(()),
            (0, false) => Err(fail),
            _ => Err(fail.negative()),
        }
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

/// The dataset `name`, or with `recursive` all encryption roots from it down.
fn roots(pool: &Pool, name: &str, recursive: bool) -> Outcome<Vec<String>> {
    let open = |e: &DslError| super::cannot("open", name, e);
    if !recursive {
        pool.dsl.lookup_head(pool.io(), name).map_err(|e| open(&e))?;
        return Ok(vec![name.into()]);
    }
    let mut out = Vec::new();
    for ds in pool.dsl.descendants(pool.io(), name).map_err(|e| open(&e))? {
        if root_of(pool, &ds)?.as_ref() == Some(&ds) {
            out.push(ds);
        }
    }
    Ok(out)
}

/// Keys belong to encryption roots.
fn is_root(pool: &Pool, name: &str, verb: &str) -> Outcome {
    match root_of(pool, name)? {
        None => Err(Fail::new(format!("'{name}' is not encrypted."))),
        Some(root) if root != name => {
            Err(Fail::new(format!("Keys must be {verb} for encryption root of '{name}' ({root}).")))
        }
        Some(_) => Ok(()),
    }
}

pub fn change(args: &[String]) -> Outcome {
    let known = [flag('l', ""), flag('i', ""), value('o', ""), value('K', "keylocation")];
    let typed = Typed::parse_plain(args, &known, CHANGE_USAGE)?;
    let [name] = typed.operands.as_slice() else {
        let what = if typed.operands.is_empty() { "Missing dataset argument" } else { "Too many arguments" };
        return Err(Fail::usage(what, CHANGE_USAGE));
    };
    let given = super::set::pairs(&typed)?;
    if typed.has('i') && !given.is_empty() {
        return Err(Fail::usage("Properties not allowed for inheriting", CHANGE_USAGE));
    }
    if let Err(f) = super::open(name, Named::Dataset, For::Read).and_then(|pool| roots(&pool, name, false)) {
        return Err(Fail::usage(f.message, CHANGE_USAGE));
    }
    // What it refuses from here on ends it with -1 (`zfs_do_change_key`, zfs_main.c).
    change_key(name, &typed, &given).map_err(Fail::negative)
}

fn change_key(name: &str, typed: &Typed, given: &[(&str, &str)]) -> Outcome {
    let fail = |why: String| Fail::new(format!("Key change error: {why}"));
    // What libzfs says of a value it refuses, and then of the whole.
    let twice = |f: &Fail| fail(format!("{}\nKey change error: encryption failure", f.message));
    let mut pool = session::open(name, For::Write)?;
    let Some(root) = root_of(&pool, name)? else {
        return Err(match typed.has('l') {
            true => Fail::new(format!("Key load error: '{name}' is not encrypted.")),
            false => fail("Dataset not encrypted.".into()),
        });
    };
    let dir = pool.dsl.lookup_head(pool.io(), name)?.dir;
    if pool.dsl.is_clone(&pool.dsl.dir(pool.io(), dir)?) {
        return Err(fail("Keys cannot be changed on clones.".into()));
    }
    let mut crypto = CryptoProps::default();
    for &(p, v) in given {
        let taken = p != "encryption" && crypto.take(p, v).map_err(|f| twice(&f))?;
        if !taken {
            return Err(fail(
                "Only keyformat, keylocation and pbkdf2iters may be set with this command.".into(),
            ));
        }
    }
    if typed.has('i') {
        may_inherit(&pool, name, &root).map_err(|f| fail(f.message))?;
    }
    let how = How { location: typed.value('K'), missing: "Key must be loaded.", ..How::default() };
    unlock(&mut pool, name, how).map_err(|f| fail(f.message))?;
    if typed.has('l') {
        let dir = pool.dsl.lookup_head(pool.io(), &root)?.dir;
        pool.owned().map(|owned| owned.keep(dir));
    }
    if typed.has('i') {
        inherit(&mut pool, name).map_err(|f| fail(f.message))?;
    } else {
        rewrap(&mut pool, name, root == name, crypto).map_err(|f| fail(f.message))?;
    }
    pool.commit()?;
    Ok(())
}

/// A new key; what the command line leaves open stays as it is at an encryption root.
fn rewrap(pool: &mut Open, name: &str, is_root: bool, mut crypto: CryptoProps) -> Outcome {
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
    let new = pool.away(|| crypto.new_key(Some(name), Suite::Aes256Gcm))??;
    let (io, dsl) = pool.parts();
    Ok(dsl.change_key(io, name, new)?)
}

fn may_inherit(pool: &Pool, name: &str, root: &str) -> Outcome {
    if root != name {
        return Err(Fail::new("Key inheritting can only be performed on encryption roots."));
    }
    let Some((parent, _)) = name.rsplit_once('/') else {
        return Err(Fail::new("Root dataset cannot inherit key."));
    };
    match root_of(pool, parent)? {
        Some(_) => Ok(()),
        None => Err(Fail::new("Parent must be encrypted.")),
    }
}

fn inherit(pool: &mut Open, name: &str) -> Outcome {
    let parent = name.rsplit_once('/').map_or(name, |(parent, _)| parent);
    unlock(pool, parent, How { missing: "Parent key must be loaded.", ..How::default() })?;
    let (io, dsl) = pool.parts();
    Ok(dsl.change_key_inherit(io, name)?)
}
