//! `zfs create` of file systems and volumes, also encrypted ones (`zfs_do_create`, zfs_main.c; `zfs_create`,
//! libzfs_dataset.c; `zfs_crypto_create`, libzfs_crypto.c).

use super::{Named, cannot, userspace};
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::keys::{CryptoProps, How, root_of, unlock};
use crate::session::{self, For, Open};
use crate::state;
use icecore_dsl::{DatasetRef, DslError, Kind, NewContents, NewCrypt, prop, volume, zpl};
use icecore_pool::Pool;
use icecore_transform::crypt::Suite;

pub const USAGE: &str = "create [-Pnpuv] [--keylocation <keylocation>] [-o property=value] ... <filesystem>\n\tcreate [-Pnpsv] [--keylocation <keylocation>] [-b blocksize] [-o property=value] ... -V <size> <volume>";

/// What OpenZFS says of an encryption root whose key is not there (`zfs_create`, libzfs_dataset.c).
pub const MISSING: &str = "encryption root's key is not loaded or provided";

/// What is to be made.
struct New<'a> {
    contents: NewContents,
    /// Other properties, as typed.
    props: Vec<(&'a str, String)>,
    /// Quotas by owner, as typed.
    owners: Vec<(&'a str, &'a str)>,
    crypto: CryptoProps,
}

impl New<'_> {
    /// A file system that is like what is above it.
    fn filesystem() -> Self {
        Self {
            contents: NewContents::Filesystem,
            props: Vec::new(),
            owners: Vec::new(),
            crypto: CryptoProps::default(),
        }
    }

    /// Whether the properties can be what they are to be: all that a dry run looks at.
    fn check(&self) -> Outcome {
        self.owners.iter().filter_map(|(p, v)| userspace::quota(p, v)).try_for_each(|q| q.map(drop))?;
        if let (Some((p, _)), NewContents::Volume { .. }) = (self.owners.first(), &self.contents) {
            return Err(Fail::new(format!("'{p}' does not apply to datasets of this type")));
        }
        let mut fixed = zpl::ZplProps::default();
        for (p, v) in &self.props {
            let filesystem = self.contents == NewContents::Filesystem;
            let checked = match filesystem {
                true if fixed.take(p, v)? => continue,
                true => prop::parse_new(p, v),
                false => prop::parse_new_volume(p, v),
            };
            checked.map_err(|e| Fail::new(super::reason(&e)))?;
        }
        Ok(())
    }
}

pub fn run(args: &[String]) -> Outcome {
    let known = [
        flag('p', ""),
        flag('u', ""),
        flag('n', ""),
        flag('v', ""),
        flag('P', ""),
        flag('s', ""),
        value('V', ""),
        value('b', ""),
        value('o', ""),
        value('K', "keylocation"),
    ];
    let typed = Typed::parse_with(args, &known, USAGE, |_| "missing size argument".into())?;
    size_of(&typed, 'V', "size")?;
    size_of(&typed, 'b', "block size")?;
    let volume = typed.value('V').is_some();
    if !volume && (typed.has('s') || typed.value('b').is_some()) {
        return Err(Fail::usage("'-s' and '-b' can only be used when creating a volume", USAGE));
    }
    if volume && typed.has('u') {
        return Err(Fail::usage("'-u' can only be used when creating a filesystem", USAGE));
    }
    let name = match typed.operands.as_slice() {
        [name] => name,
        [] => {
            let what = if volume { "volume" } else { "filesystem" };
            return Err(Fail::usage(format!("missing {what} argument"), USAGE));
        }
        _ => return Err(Fail::usage("too many arguments", USAGE)),
    };
    let dry = typed.has('n');
    let what = if dry { "verify" } else { "create" };
    let fail = |f: Fail| Fail { message: format!("cannot {what} '{name}': {}", f.message), ..f };
    if dry || volume {
        state::named(session::pool_of(name))?;
    }
    let new = wanted(&typed, fail)?;
    if !dry {
        super::may_name(name, Named::Dataset).map_err(|why| fail(Fail::new(why)))?;
        // With -p what is there is no failure, and be it a pool.
        if !typed.has('p') || state::find(name)?.is_none() {
            super::parent_of(name).map_err(fail)?;
        }
    }
    let open = if dry { (session::pool_of(name), For::Read) } else { (name.as_str(), For::Write) };
    let mut pool = session::open(open.0, open.1)?;
    let how = How { location: typed.value('K'), missing: MISSING, ..How::default() };
    if dry {
        new.check().map_err(fail)?;
    }
    let verbose = typed.has('v') || typed.has('P');
    if typed.has('p') {
        let kind = if volume { Kind::Volume } else { Kind::Filesystem };
        let there = pool.dsl.lookup_head(pool.io(), name);
        if there.is_ok_and(|r| pool.dsl.kind(pool.io(), r).is_ok_and(|k| k == kind)) {
            return Ok(());
        }
        if verbose {
            match (typed.has('P'), dry) {
                (true, _) => println!("create_ancestors\t{name}"),
                (_, true) => println!("would create ancestors of {name}"),
                _ => println!("create ancestors of {name}"),
            }
        }
        if !dry {
            parents(&mut pool, name, how)?;
        }
    }
    if verbose {
        announce(name, &new, typed.has('P'), dry);
    }
    if dry {
        return Ok(());
    }
    create(&mut pool, name, &new, how).map_err(fail)?;
    pool.commit()?;
    drop(pool);
    if typed.has('u') { Ok(()) } else { mount_new(name, typed.has('p')) }
}

/// Mounts a new file system, and with `above` those that were made above it.
pub fn mount_new(name: &str, above: bool) -> Outcome {
    if above {
        mount_above(name)?;
    }
    crate::mounts::created(name)
}

/// Mounts what was made above `name`.
pub fn mount_above(name: &str) -> Outcome {
    if !crate::mounts::automatic() {
        return Ok(());
    }
    name.match_indices('/').try_for_each(|(at, _)| crate::mounts::created(&name[..at]))
}

fn announce(name: &str, new: &New<'_>, script: bool, dry: bool) {
    match (script, dry) {
        (true, _) => println!("create\t{name}"),
        (_, true) => println!("would create {name}"),
        _ => println!("create {name}"),
    }
    let say = |prop: &str, value: &str| {
        if script { println!("property\t{prop}\t{value}") } else { println!("\t{prop}={value}") }
    };
    if let NewContents::Volume { size, block } = new.contents {
        say("volsize", &size.to_string());
        if block != volume::DEFAULT_BLOCK {
            say("volblocksize", &block.to_string());
        }
    }
    for (prop, value) in &new.props {
        say(prop, value);
    }
}

/// The size that an option gives of a volume.
fn size_of(typed: &Typed, option: char, what: &str) -> Outcome<Option<u64>> {
    let bad = |text: &str, e: DslError| Fail::new(format!("bad volume {what} '{text}': {e}"));
    typed.value(option).map(|text| prop::size(text).map_err(|e| bad(text, e))).transpose()
}

/// What the line asks for. Of a volume the size is rounded up to whole blocks, and its reservation is added
/// unless `-s` says no.
fn wanted<'a>(typed: &'a Typed, fail: impl Fn(Fail) -> Fail) -> Outcome<New<'a>> {
    let mut new = New::filesystem();
    let mut seen: Vec<&str> = Vec::new();
    let number = |text: &str| prop::size(text).map_err(|e| Fail::new(e.to_string()));
    let mut size = size_of(typed, 'V', "size")?;
    let block = size_of(typed, 'b', "block size")?;
    if block.is_some() {
        seen.push("volblocksize");
    }
    let mut block = block.unwrap_or(volume::DEFAULT_BLOCK);
    if size.is_some() {
        seen.push("volsize");
    }
    for o in typed.values('o') {
        let (p, v) = super::set::split(o)?;
        if seen.contains(&p) {
            return Err(Fail::new(format!("property '{p}' specified multiple times")));
        }
        seen.push(p);
        match p {
            "volblocksize" if size.is_some() => block = number(v).map_err(&fail)?,
            _ if new.crypto.take(p, v).map_err(&fail)? => {}
            _ if userspace::decode(p).is_some() => new.owners.push((p, v)),
            _ => new.props.push((p, v.to_string())),
        }
    }
    if let Some(size) = &mut size {
        if !block.is_power_of_two() {
            // Said as the engine says it of sizes that are powers of two, but out of bounds.
            return Err(fail(Fail::new("'volblocksize' must be power of 2 from 512B to 16M")));
        }
        if *size == 0 {
            return Err(fail(Fail::new("volume size cannot be zero")));
        }
        let Some(whole) = size.checked_next_multiple_of(block) else {
            return Err(fail(Fail::new("numeric value is too large")));
        };
        new.contents = NewContents::Volume { size: whole, block };
        reserve(&mut new, whole, block, typed.has('s'));
    }
    Ok(new)
}

/// The reservation of a volume: all it may ever need, unless it is sparse or the line says how much.
fn reserve(new: &mut New<'_>, size: u64, block: u64, sparse: bool) {
    let copies = new.props.iter().find(|(p, _)| *p == "copies").and_then(|(_, v)| v.parse().ok());
    let full = volume::reservation(size, block, copies.unwrap_or(1)).to_string();
    match new.props.iter_mut().find(|(p, _)| *p == "refreservation") {
        Some((_, v)) if v == "auto" => *v = full,
        Some(_) => {}
        None if sparse => {}
        None => new.props.push(("refreservation", full)),
    }
}

/// Makes the missing datasets above `name` (`-p`).
pub fn parents(pool: &mut Open, name: &str, how: How<'_>) -> Outcome {
    let mut path = session::pool_of(name).to_string();
    for part in name.split('/').skip(1).take(name.matches('/').count().saturating_sub(1)) {
        path = format!("{path}/{part}");
        if pool.dsl.lookup_head(pool.io(), &path).is_err() {
            let parent = super::parent_of(&path)?;
            super::check_parent(pool, parent)
                .map_err(|f| Fail { message: format!("cannot create '{name}': {}", f.message), ..f })?;
            create(pool, &path, &New::filesystem(), how)
                .map_err(|f| Fail { message: format!("cannot create '{path}': {}", f.message), ..f })?;
            // Each for itself, as OpenZFS does it (`create_parents`, libzfs_dataset.c): a key may be asked for next.
            pool.commit()?;
        }
    }
    Ok(())
}

fn create(pool: &mut Open, name: &str, new: &New<'_>, how: How<'_>) -> Outcome {
    // Asking for a key comes after all that can be refused without it.
    let parent = super::parent_of(name)?;
    super::check_parent(pool, parent)?;
    if pool.dsl.lookup_head(pool.io(), name).is_ok() {
        return Err(Fail::new("dataset already exists"));
    }
    let crypto = &new.crypto;
    let inherited = root_of(pool, parent)?;
    let suite = suite(pool, parent, inherited.as_deref(), crypto)?;
    let own = crypto.keyformat.is_some() || crypto.keylocation.is_some();
    let key = match suite {
        Some(suite) if own => Some(pool.away(|| crypto.new_key(Some(name), suite))??),
        _ => None,
    };
    let crypt = match (suite, &key) {
        (_, Some(key)) => NewCrypt::Root(key),
        (None, None) => NewCrypt::Off,
        (Some(suite), None) => {
            unlock(pool, parent, how)?;
            NewCrypt::Suite(suite)
        }
    };
    let copies = new.props.iter().any(|(p, v)| *p == "copies" && v == "3");
    if suite.is_some() && copies {
        return Err(Fail::new("encrypted datasets cannot have 3 copies"));
    }
    new.props.iter().for_each(|(p, v)| super::of_no_use(pool, p, v));
    new.check()?;
    let props = new.props.iter().map(|(p, v)| (*p, v.as_str()));
    let (limits, props): (Vec<_>, Vec<_>) = props.partition(|(p, _)| ["quota", "refquota"].contains(p));
    let (io, dsl) = pool.parts();
    let made = dsl.create_dataset(io, name, new.contents, &props, crypt);
    let made = made.map_err(|e| Fail::new(super::reason(&e)))?;
    give_key(pool, made)?;
    for (p, v) in &new.owners {
        userspace::set(pool, name, p, v)?;
    }
    if limits.is_empty() { Ok(()) } else { limit(pool, name, &limits) }
}

/// Sets quotas of the new dataset, which goes again where they are less than what it takes. That is known once it is
/// written: OpenZFS too makes datasets first and then sets their properties (`zfs_ioc_create`, zfs_ioctl.c).
fn limit(pool: &mut Open, name: &str, limits: &[(&str, &str)]) -> Outcome {
    pool.commit()?;
    let (io, dsl) = pool.parts();
    let set = limits.iter().try_for_each(|(p, v)| dsl.prop_set(io, name, p, v));
    if set.is_err() {
        dsl.destroy_head(io, name)?;
        pool.commit()?;
    }
    set.map_err(|e| Fail::new(super::reason(&e)))
}

/// The suite of the new dataset, `None` where it is not to be encrypted (`zfs_crypto_create`).
pub fn suite(
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
    let Some(suite) = crypto.suite.unwrap_or(above) else {
        if crypto.keyformat.is_some() || crypto.keylocation.is_some() || crypto.iters.is_some() {
            return Err(Fail::new("Encryption must be turned on to set encryption properties."));
        }
        return Ok(None);
    };
    let own_key = crypto.keyformat.is_some() || crypto.keylocation.is_some();
    match (inherited, own_key) {
        (None, false) => Err(Fail::new("Keyformat required for new encryption root.")),
        (Some(root), false) if crypto.iters.is_some() => Err(Fail::new(format!(
            "pbkdf2iters belongs to a key of its own; this dataset takes that of '{root}'"
        ))),
        _ => Ok(Some(suite)),
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
