//! `zpool create` for single disks and mirrors.

use super::get::{canonical, known};
use super::set::Change;
use super::vdevs::{self, Terms};
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome, USAGE as USAGE_STATUS};
use crate::keys::CryptoProps;
use crate::state::{self, Imported};
use crate::{pools, session};
use icecore_dsl::prop::table::FS;
use icecore_dsl::{DslError, Feature, RootDataset};
use icecore_env::Env;
use icecore_pool::features::{Unsaid, chosen};
use icecore_pool::{CreateSpec, Pool};
use icecore_vdev::create;

pub const USAGE: &str = "create [-dfn] [-o property=value] ... [-O file-system-property=value] ...\n\t    [-m mountpoint] [-R root] [-t tempname] <pool> <vdev> ...";

/// Pools of this version or a newer one have features (`SPA_VERSION_FEATURES`).
const WITH_FEATURES: u64 = 5000;

pub fn run(args: &[String]) -> Outcome {
    let known = [
        flag('f', ""),
        flag('n', ""),
        flag('d', ""),
        value('o', ""),
        value('O', ""),
        value('m', ""),
        value('R', ""),
        value('t', ""),
    ];
    let typed = Typed::parse(args, &known, USAGE)?;
    if let Some(name) = typed.values('t').find(|name| name.contains('/')) {
        let why = "invalid character '/' in temporary name\nuse 'zfs create' to create a dataset";
        return Err(Fail::new(format!("cannot create '{name}': {why}")));
    }
    let asked = pool_options(&typed)?;
    let said = |p: &str| asked.iter().find(|(known, _)| *known == p).map(|(_, v)| *v);
    let ashift = said("ashift").map_or(Ok(None), vdevs::ashift)?;
    let props = root_options(&typed)?;
    let [name, words @ ..] = typed.operands.as_slice() else {
        return Err(Fail::usage("missing pool name argument", USAGE));
    };
    let fail = |why: String| Fail::new(format!("cannot create '{name}': {why}"));
    if words.is_empty() {
        return Err(Fail::usage("missing vdev specification", USAGE));
    }
    if name.contains('/') {
        return Err(fail("invalid character '/' in pool name\nuse 'zfs create' to create a dataset".into()));
    }
    // Before anything is written to a device.
    let (force, dry) = (typed.has('f'), typed.has('n'));
    let groups = vdevs::members(words, Terms { in_use: force, mismatch: force, dry, pool: None })?;
    let altroot = said("altroot").unwrap_or("");
    if said("altroot").is_some() && !altroot.starts_with('/') {
        return Err(Fail::new(format!("invalid alternate root '{altroot}': must be an absolute path")));
    }
    place_for_root(name, altroot, &props)?;
    if dry {
        println!("would create '{name}' with the following layout:\n\n\t{name}");
        groups.iter().for_each(|group| vdevs::show(group, false));
        return Ok(());
    }
    said("compatibility").map_or(Ok(()), super::set::compatible)?;
    // All features are asked for besides, unless the version is one without them; as `strtoull` reads it, nothing is 0.
    let old = |text: &str| text.is_empty() || text.parse::<u64>().is_ok_and(|n| n < WITH_FEATURES);
    if said("version").is_some_and(|text| !old(text)) && !typed.has('d') {
        return Err(Fail { status: USAGE_STATUS, message: NOT_BOTH.into() });
    }
    check_name(name).map_err(|why| fail(format!("{why}\npool name may have been omitted")))?;
    let Options { comment, features, stored, users } = values(&asked).map_err(fail)?;
    let unsaid = if typed.has('d') { Unsaid::Disabled } else { Unsaid::Enabled };
    let features = chosen(&features, unsaid).map_err(fail)?;
    let (mut crypto, mut root) =
        (CryptoProps::default(), RootDataset { who: session::who(), ..RootDataset::default() });
    let mut later: Vec<(String, String)> = Vec::new();
    for (p, v) in &props {
        let taken = crypto.take(p, v).map_err(|f| fail(f.message))?;
        if taken || root.zpl.take(p, v).map_err(|e| fail(e.to_string()))? {
            continue;
        }
        icecore_dsl::prop::parse_new(p, v).map_err(|e| fail(crate::zfs::reason(&e)))?;
        later.push((p.clone(), v.clone()));
    }
    let suite = crypto.root_suite(features.contains(&Feature::ENCRYPTION)).map_err(|f| fail(f.message))?;
    // What it goes by here until it is exported.
    let here = typed.value('t').unwrap_or(name);
    icecore_dsl::name::check_pool(here).map_err(|e| fail(e.to_string()))?;
    if state::find(here)?.is_some() {
        return Err(fail("pool already exists".into()));
    }
    vdevs::check(&groups, ashift).map_err(|unfit| fail(unfit.of_new_pool()))?;
    state::can_remember(here).map_err(|f| fail(f.message))?;
    if let Some(suite) = suite {
        root.key = Some(crypto.new_key(None, suite).map_err(|f| fail(f.message))?);
    }
    // From here on devices are written.
    let (tops, paths) = vdevs::take(groups, ashift)?;
    let env = Env::os();
    let tree = create::build(tops, &*env.entropy).map_err(|e| fail(e.to_string()))?;
    let spec = CreateSpec {
        name: name.clone(),
        root: tree.root,
        devices: tree.devices,
        host: session::host(),
        comment,
        features,
    };
    let mut pool = Pool::create_with(env, spec, &root).map_err(|e| fail(e.to_string()))?;
    pool.call(here);
    for (p, text) in &users {
        pool.set_user_property(p, text)?;
    }
    for (p, n) in &stored {
        pool.set_property(p, *n).map_err(|e| fail(format!("property '{p}': {e}")))?;
    }
    if !later.is_empty() {
        let (io, dsl) = pool.parts();
        for (p, v) in &later {
            dsl.prop_set(io, here, p, v).map_err(|e| {
                fail(match e {
                    DslError::NoSpace => "one or more devices is out of space".into(),
                    e => crate::zfs::reason(&e),
                })
            })?;
        }
    }
    // The first record of a pool's history stays for ever: how it was made.
    if let Some((line, uid)) = crate::caller::command_line() {
        let _ = pool.log_command(&line, uid);
    }
    pool.commit()?;
    let record = Imported {
        name: here.to_string(),
        guid: pool.guid().0,
        devices: paths,
        readonly: false,
        altroot: altroot.into(),
        max_txg: None,
        salvage: false,
    };
    state::remember(&record)?;
    pools::adopt(&record, pool)?;
    crate::mounts::settle_below(&record.name)?;
    Ok(())
}

/// `-O` and `-m`, each property once; `mountpoint` may be given twice, and the last one counts.
fn root_options(typed: &Typed) -> Outcome<Vec<(String, String)>> {
    let mut props: Vec<(String, String)> = Vec::new();
    let mut mountpoint = None;
    for (letter, text) in typed.ordered() {
        match letter {
            'm' => mountpoint = Some(text.clone()),
            'O' => {
                let (p, v) = text.split_once('=').ok_or_else(|| missing_equals('O'))?;
                if p == "mountpoint" {
                    mountpoint = Some(v.into());
                    continue;
                }
                let fits = icecore_dsl::prop::table::find(p);
                if !fits.map_or_else(|| icecore_dsl::prop::is_user(p), |f| f.types & FS != 0) {
                    return Err(Fail::new(format!("property '{p}' is not a valid filesystem property")));
                }
                if props.iter().any(|(known, _)| known == p) {
                    return Err(Fail::new(format!("property '{p}' specified multiple times")));
                }
                props.push((p.into(), v.into()));
            }
            _ => {}
        }
    }
    props.extend(mountpoint.map(|m| ("mountpoint".to_string(), m)));
    Ok(props)
}

/// Whether the root can be mounted where it belongs: nothing may be there yet.
fn place_for_root(name: &str, altroot: &str, props: &[(String, String)]) -> Outcome {
    let asked = props.iter().find(|(p, _)| p == "mountpoint").map(|(_, v)| v.as_str());
    let path = match asked {
        Some("legacy" | "none") => return Ok(()),
        Some(path) if !path.starts_with('/') => {
            return Err(Fail::new(format!(
                "invalid mountpoint '{path}': must be an absolute path, 'legacy', or 'none'"
            )));
        }
        Some(path) => format!("{altroot}{path}"),
        None => format!("{altroot}/{name}"),
    };
    if !crate::mounts::automatic() {
        return Ok(());
    }
    let why = match std::fs::read_dir(&path).map(|mut entries| entries.next().is_some()) {
        Ok(false) => return Ok(()),
        Ok(true) => format!("mountpoint '{path}' exists and is not empty"),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => format!("mountpoint '{path}' : {}", crate::human::os_error(&e)),
    };
    Err(Fail::new(format!("{why}\nuse '-m' option to provide a different default")))
}

const NOT_BOTH: &str = "'feature@' and 'version' properties cannot be specified together";

/// An option `-o` or `-O` without a value.
pub(super) fn missing_equals(letter: char) -> Fail {
    Fail::new(format!("missing '=' for -{letter} option"))
}

/// What `-o` may say.
#[derive(Default)]
struct Options {
    comment: Option<String>,
    /// Short names, and whether they are wanted.
    features: Vec<(String, bool)>,
    /// Properties to be stored, each with the number for its value.
    stored: Vec<(String, u64)>,
    /// Users' properties.
    users: Vec<(String, String)>,
}

/// The properties of `-o`, which are all such as pools have, each once; `-R` is one of them.
fn pool_options(typed: &Typed) -> Outcome<Vec<(&str, &str)>> {
    let mut out: Vec<(&str, &str)> = Vec::new();
    for (letter, o) in typed.ordered().iter().filter(|(letter, _)| ['o', 'R'].contains(letter)) {
        let pair = if *letter == 'R' { Some(("altroot", o.as_str())) } else { o.split_once('=') };
        let (p, v) = pair.ok_or_else(|| missing_equals('o'))?;
        let p = canonical(p);
        if !known(p) && !p.starts_with("feature@") {
            return Err(Fail::new(format!("property '{p}' is not a valid pool or vdev property")));
        }
        let is_feature = |p: &str| p.starts_with("feature@");
        let excludes =
            |other: &str| p == "version" && is_feature(other) || is_feature(p) && other == "version";
        if out.iter().any(|(known, _)| excludes(known)) {
            return Err(Fail::new(NOT_BOTH));
        }
        if out.iter().any(|(known, _)| *known == p) {
            return Err(Fail::new(format!("property '{p}' specified multiple times")));
        }
        out.push((p, v));
    }
    Ok(out)
}

/// What their values mean (`zpool_valid_proplist`, libzfs_pool.c).
fn values(asked: &[(&str, &str)]) -> Result<Options, String> {
    let mut options = Options::default();
    for &(p, v) in asked {
        if let Some(feature) = p.strip_prefix("feature@") {
            options.features.push((
                feature.to_string(),
                match v {
                    "enabled" => true,
                    "disabled" => false,
                    _ => return Err(format!("property '{p}' can only be set to 'enabled' or 'disabled'")),
                },
            ));
            continue;
        }
        match p {
            // Looked at before.
            "altroot" => {}
            "ashift" => {
                let asked = vdevs::ashift(v).map_err(|f| f.message)?;
                options.stored.extend(asked.map(|n| (p.to_string(), n)));
            }
            "compatibility" if ["", "off"].contains(&v) => {}
            "compatibility" => return Err("property 'compatibility' can only be 'off' here".into()),
            "multihost" if v == "on" => {
                return Err("property 'multihost' cannot be 'on' here: Icecore does not write for it".into());
            }
            "bootfs" => return Err("property 'bootfs' cannot be set at creation or import time".into()),
            _ => match super::set::change(p, v)? {
                Change::Number(n) => options.stored.push((p.to_string(), n)),
                Change::Comment(text) => options.comment = text,
                Change::User(text) => options.users.push((p.to_string(), text)),
                Change::Feature(_) | Change::Nothing => {}
            },
        }
    }
    Ok(options)
}

/// Names that no new pool may have: those of `pool_namecheck`, and what begins like a vdev (`zpool_name_valid`,
/// libzfs_pool.c).
pub(super) fn check_name(name: &str) -> Result<(), String> {
    icecore_dsl::name::check_pool(name).map_err(|e| e.to_string())?;
    let vdev_like = ["mirror", "raidz", "draid", "spare"].iter().any(|p| name.starts_with(p));
    if vdev_like || name == "log" { Err("name is reserved".into()) } else { Ok(()) }
}
