//! `zpool set` (`zpool_do_set`, zpool_main.c; `zpool_set_prop`, `zpool_valid_proplist`, libzfs_pool.c).

use super::get::{canonical, known, number_of, words_of};
use super::vdevs::ASHIFT;
use crate::args::Typed;
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use crate::state;
use icecore_dsl::Feature;
use icecore_dsl::prop::is_user;
use icecore_pool::features::{Support, support};

pub const USAGE: &str = "set <property=value> <pool>";

/// Longest remark (`ZPROP_MAX_COMMENT`).
const COMMENT_MAX: usize = 32;
/// Bytes that a user's property's name and value must stay below (`ZAP_MAXNAMELEN`, `ZFS_MAXPROPLEN`).
const NAME_MAX: usize = 256;
const VALUE_MAX: usize = 4096;
/// What can be set when a pool is made or imported, and not later.
const ONCE: &[&str] = &["altroot", "tname"];
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
            state::named(pool)?;
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
    let Some(record) = state::find(name)? else {
        return Err(Fail { status: NOT_A_POOL, message: format!("cannot open '{name}': is not a pool") });
    };
    let fail = |why: String| Fail::new(format!("cannot set property for '{name}': {why}"));
    let prop = canonical(prop);
    let change = change(prop, text).map_err(fail)?;
    let mut pool = session::open_record(&record, For::Write).map_err(|f| fail(f.message))?;
    match change {
        Change::Number(n) => pool.set_property(prop, n)?,
        Change::Comment(c) => pool.set_comment(c),
        Change::User(text) => pool.set_user_property(prop, &text)?,
        Change::Nothing => {}
        Change::Feature(f) => {
            let (io, dsl) = pool.parts();
            for guid in f.depends {
                if let Some(d) = Feature::by_guid(guid)
                    && !dsl.feature_enabled(io, d)?
                {
                    return Err(fail(format!(
                        "feature@{} needs feature@{}: enable that first",
                        f.name, d.name
                    )));
                }
            }
            if !dsl.feature_enabled(io, f)? {
                dsl.feature_enable(io, f)?;
            }
        }
    }
    pool.commit()?;
    Ok(())
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
    if ONCE.contains(&prop) {
        return Err(format!("property '{prop}' can only be set during pool creation or import"));
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
            let n: u64 = text.parse().map_err(|_| format!("bad numeric value '{text}'"))?;
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
        "cachefile" => {
            Err("property 'cachefile' can only be empty or 'none' here: there is no cache file".into())
        }
        "version" => match text.parse::<u64>() {
            Ok(n) => Err(format!("property 'version' number {n} is invalid.")),
            Err(_) => Err(format!("bad numeric value '{text}'")),
        },
        "bootfs" | "compatibility" => Err(format!("property '{prop}' cannot be set here")),
        "readonly" => Err("property 'readonly' can only be set at import time".into()),
        p if known(p) => Err(format!("'{p}' is readonly")),
        p => Err(format!("invalid property '{p}'")),
    }
}
