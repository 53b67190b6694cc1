//! `zpool set` (`zpool_do_set`, zpool_main.c; `zpool_set_prop`, `zpool_valid_proplist`, libzfs_pool.c).

use super::get::{canonical, known, number_of, words_of};
use super::vdevs::ASHIFT;
use crate::args::Typed;
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use crate::state;
use icecore_dsl::prop::is_user;
use icecore_dsl::{Feature, Kind};
use icecore_pool::Pool;
use icecore_pool::features::{Support, support};
use std::path::Path;

pub const USAGE: &str = "set <property=value> <pool>";

/// Longest remark (`ZPROP_MAX_COMMENT`).
const COMMENT_MAX: usize = 32;
/// Bytes that a user's property's name and value must stay below (`ZAP_MAXNAMELEN`, `ZFS_MAXPROPLEN`).
const NAME_MAX: usize = 256;
const VALUE_MAX: usize = 4096;
/// `EINVAL`, which is what the command ends with where a pool is no pool.
const NOT_A_POOL: i32 = 22;

/// What setting a property means here.
pub enum Change {
    Number(u64),
    Comment(Option<String>),
    /// A user's property; empty to take it away.
    User(String),
    Feature(Feature),
    /// Accepted, and without effect: there is no such thing here.
    Nothing,
}

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[], USAGE)?;
    let (pair, name) = match typed.operands.as_slice() {
        [] => return Err(Fail::usage("missing property=value argument", USAGE)),
        [_] => return Err(Fail::usage("missing pool name", USAGE)),
        [pair, name] => (pair, name),
        [_, pool, vdev] => {
            state::find(pool)?.ok_or_else(|| no_pool(pool))?;
            return Err(Fail {
                status: NOT_A_POOL,
                message: format!(
                    "cannot find '{vdev}' in '{pool}': device not in pool\n(properties of vdevs cannot be set here)"
                ),
            });
        }
        _ => return Err(Fail::usage("too many pool names", USAGE)),
    };
    let Some((prop, text)) = pair.split_once('=') else {
        return Err(Fail::usage("missing value in property=value argument", USAGE));
    };
    let record = state::find(name)?.ok_or_else(|| no_pool(name))?;
    let fail = |why: String| Fail::new(format!("cannot set property for '{name}': {why}"));
    let prop = canonical(prop);
    if prop == "compatibility" {
        compatible(text)?;
    }
    let change = match prop {
        "bootfs" => bootable(&record, text).map(Change::Number),
        _ => change(prop, text),
    };
    let change = change.map_err(fail)?;
    let mut pool = session::open_record(&record, For::Write).map_err(|f| fail(f.message))?;
    change.make(&mut pool, prop).map_err(|f| fail(f.message))?;
    pool.commit()?;
    Ok(())
}

impl Change {
    /// Changes the property `prop` of a pool so; the commit is the caller's.
    pub fn make(&self, pool: &mut Pool, prop: &str) -> Outcome {
        match self {
            Self::Number(n) => pool.set_property(prop, *n)?,
            Self::Comment(text) => pool.set_comment(text.clone()),
            Self::User(text) => pool.set_user_property(prop, text)?,
            Self::Nothing => {}
            Self::Feature(f) => {
                let (io, dsl) = pool.parts();
                for guid in f.depends {
                    if let Some(d) = Feature::by_guid(guid)
                        && !dsl.feature_enabled(io, d)?
                    {
                        let (name, first) = (f.name, d.name);
                        return Err(Fail::new(format!(
                            "feature@{name} needs feature@{first}: enable that first"
                        )));
                    }
                }
                if !dsl.feature_enabled(io, *f)? {
                    dsl.feature_enable(io, *f)?;
                }
            }
        }
        Ok(())
    }
}

fn no_pool(name: &str) -> Fail {
    Fail { status: NOT_A_POOL, message: format!("cannot open '{name}': is not a pool") }
}

/// Whether that is a set of features. Files that list some are not read here, so there are none
/// (`zpool_do_load_compat`, zpool_main.c).
pub fn compatible(text: &str) -> Outcome {
    match text {
        "" | "off" | "legacy" => Ok(()),
        files => Err(Fail::new(format!(
            "Error: could not read/parse feature file(s): {}\n(features are chosen one by one here, with feature@NAME=enabled)",
            files.replace(',', " ")
        ))),
    }
}

/// Whether a pool could boot from that (`bootfs_name_valid`, libzfs_pool.c; `spa_prop_validate`, spa.c).
/// Its number, 0 for none.
fn bootable(record: &state::Imported, text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let valid = crate::zfs::valid(text, crate::zfs::Named::NoBookmark).is_ok();
    if !valid || text.split('/').next() != Some(record.name.as_str()) {
        return Err(format!("'{text}' is an invalid name"));
    }
    let pool = session::open_record(record, For::Read).map_err(|f| f.message)?;
    let found = pool.dsl.lookup_dataset(pool.io(), text);
    match found.and_then(|r| Ok((r.obj, pool.dsl.kind(pool.io(), r)?))) {
        Ok((object, Kind::Filesystem | Kind::Snapshot)) => Ok(object),
        Ok(_) => Err("operation not supported on this type of pool".into()),
        Err(_) => Err("no such pool or dataset".into()),
    }
}

/// The same of a value that was typed; or why it cannot be.
pub fn change(prop: &str, text: &str) -> Result<Change, String> {
    if let Some(feature) = prop.strip_prefix("feature@") {
        let known =
            Feature::by_name(feature).ok_or_else(|| format!("feature '{feature}' unsupported by kernel"))?;
        return match text {
            "enabled" if support(known.guid) == Support::Write => Ok(Change::Feature(known)),
            "enabled" => Err(format!(
                "feature@{feature} cannot be enabled here: once it is used the pool could not be written to any more"
            )),
            "disabled" => Err(format!("property '{prop}' can only be set to 'disabled' at creation time")),
            _ => Err(format!("property '{prop}' can only be set to 'enabled' or 'disabled'")),
        };
    }
    if is_user(prop) {
        return match (prop.len() < NAME_MAX, text.len() < VALUE_MAX) {
            (false, _) => Err(format!("property name '{prop}' is too long")),
            (_, false) => Err(format!("property value '{text}' is too long")),
            _ => Ok(Change::User(text.to_string())),
        };
    }
    match prop {
        "altroot" => return Err("property 'altroot' can only be set during pool creation or import".into()),
        "tname" => return Err("property 'tname' can only be set at creation time".into()),
        _ => {}
    }
    if prop == "multihost" && text == "on" {
        return Err("property 'multihost' cannot be 'on' here: Icecore does not write for it".into());
    }
    if let Some(number) = number_of(prop, text) {
        let n = number.ok_or_else(|| format!("'{prop}' must be one of '{}'", words_of(prop)))?;
        return Ok(Change::Number(n));
    }
    match prop {
        "ashift" => {
            let n = icecore_dsl::prop::size(text).map_err(|e| e.to_string())?;
            if n != 0 && !ASHIFT.contains(&n) {
                return Err(format!(
                    "property '{prop}' number {n} is invalid, only values between {} and {} are allowed.",
                    ASHIFT.start(),
                    ASHIFT.end()
                ));
            }
            Ok(Change::Number(n))
        }
        "comment" if text.chars().any(|c| !(' '..='~').contains(&c)) => {
            Err("comment may only have printable characters".into())
        }
        "comment" if text.len() > COMMENT_MAX => {
            Err(format!("comment must not exceed {COMMENT_MAX} characters"))
        }
        "comment" => Ok(Change::Comment((!text.is_empty()).then(|| text.to_string()))),
        "cachefile" if text.is_empty() || text == "none" => Ok(Change::Nothing),
        "cachefile" if !text.starts_with('/') => {
            Err("property 'cachefile' must be empty, an absolute path, or 'none'".into())
        }
        "cachefile" if !Path::new(text).parent().is_some_and(Path::is_dir) => {
            let parent = text.rsplit_once('/').map_or(text, |(parent, _)| parent);
            Err(format!("'{parent}' is not a valid directory"))
        }
        "cachefile" => {
            Err("property 'cachefile' can only be empty or 'none' here: there is no cache file".into())
        }
        "version" => match icecore_dsl::prop::size(text) {
            Ok(n) => Err(format!("property 'version' number {n} is invalid.")),
            Err(e) => Err(e.to_string()),
        },
        "dedup_table_quota" if !["none", "auto"].contains(&text) => match icecore_dsl::prop::size(text) {
            Ok(_) => Err(format!("property '{prop}' cannot be set here")),
            Err(e) => Err(e.to_string()),
        },
        "bootfs" | "compatibility" | "dedup_table_quota" => {
            Err(format!("property '{prop}' cannot be set here"))
        }
        "readonly" => Err("property 'readonly' can only be set at import time".into()),
        // Properties that nobody is shown (`zpool_prop_init`, zpool_prop.c).
        "maxblocksize" | "maxdnodesize" => Err(format!("'{prop}' is readonly")),
        p if known(p) => Err(format!("'{p}' is readonly")),
        p => Err(format!("invalid property '{p}'")),
    }
}
