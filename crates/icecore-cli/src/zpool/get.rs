//! `zpool get`, and the pool properties themselves.

use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::human;
use crate::numbers::Numbers;
use crate::session::{self, For};
use crate::state::{self, Imported};
use crate::table::{Align, Table};
use icecore_dsl::prop::is_user;
use icecore_pool::Pool;

pub const USAGE: &str =
    "get [-Hp] [-j [--json-int]] [-o \"all\" | field[,...]] <\"all\" | property[,...]> <pool> ...";

/// Properties in the order of `zpool get all`.
const PROPS: &[&str] = &[
    "size",
    "capacity",
    "altroot",
    "health",
    "guid",
    "version",
    "bootfs",
    "delegation",
    "autoreplace",
    "cachefile",
    "failmode",
    "listsnapshots",
    "autoexpand",
    "dedupratio",
    "free",
    "allocated",
    "readonly",
    "ashift",
    "comment",
    "expandsize",
    "freeing",
    "fragmentation",
    "leaked",
    "multihost",
    "checkpoint",
    "load_guid",
    "autotrim",
    "compatibility",
    "bcloneused",
    "bclonesaved",
    "bcloneratio",
    "dedup_table_size",
    "dedup_table_quota",
    "last_scrubbed_txg",
];

/// Properties that are one of a few words: stored as the number of the word, with the default's number
/// (`zpool_prop_init`, zpool_prop.c).
const WORDS: &[(&str, &[&str], u64)] = &[
    ("delegation", &["off", "on"], 1),
    ("autoreplace", &["off", "on"], 0),
    ("failmode", &["wait", "continue", "panic"], 0),
    ("listsnapshots", &["off", "on"], 0),
    ("autoexpand", &["off", "on"], 0),
    ("multihost", &["off", "on"], 0),
    ("autotrim", &["off", "on"], 0),
];

/// Whether a property is one of a few words; then the number its word `value` is stored as, if it is one of them.
pub fn number_of(p: &str, value: &str) -> Option<Option<u64>> {
    let (_, words, _) = WORDS.iter().find(|(name, ..)| *name == p)?;
    Some(words.iter().position(|w| *w == value).map(|n| n as u64))
}

/// Those words, as they are listed (`off` and `on` the other way round, as in zfs_prop.c).
pub fn words_of(p: &str) -> String {
    let words = WORDS.iter().find(|(name, ..)| *name == p).map_or(&[][..], |(_, words, _)| words);
    if words == ["off", "on"] { "on | off".into() } else { words.join(" | ") }
}

/// One value, exact and for people, with its source.
#[derive(Clone, Debug)]
pub struct Value {
    exact: String,
    human: String,
    source: &'static str,
}

impl Value {
    /// A text, for everybody.
    pub fn text(t: impl Into<String>, source: &'static str) -> Self {
        let exact = t.into();
        Self { human: exact.clone(), exact, source }
    }
    /// Bytes.
    pub fn bytes(n: u64) -> Self {
        Self { exact: n.to_string(), human: human::bytes(n), source: "-" }
    }
    fn number(n: u64) -> Self {
        Self { exact: n.to_string(), human: human::number(n), source: "-" }
    }
    /// Percent.
    pub fn percent(n: u64) -> Self {
        Self { exact: n.to_string(), human: format!("{n}%"), source: "-" }
    }
    fn ratio(hundredths: u64) -> Self {
        let exact = format!("{}.{:02}", hundredths / 100, hundredths % 100);
        Self { human: format!("{exact}x"), exact, source: "-" }
    }
    /// Where it comes from: `-`, `default` or `local`.
    #[must_use]
    pub fn source(&self) -> &'static str {
        self.source
    }
    /// The text to show.
    #[must_use]
    pub fn shown(&self, exact: bool) -> String {
        if exact { self.exact.clone() } else { self.human.clone() }
    }
}

/// Long names of columns.
#[must_use]
pub fn canonical(p: &str) -> &str {
    match p {
        "alloc" => "allocated",
        "cap" => "capacity",
        "frag" => "fragmentation",
        "ckpoint" => "checkpoint",
        "expandsz" => "expandsize",
        "dedup" => "dedupratio",
        "listsnaps" => "listsnapshots",
        other => other,
    }
}

/// Whether there is such a property.
#[must_use]
pub fn known(p: &str) -> bool {
    p == "name"
        || PROPS.contains(&p)
        || is_user(p)
        || p.strip_prefix("feature@").is_some_and(|f| icecore_dsl::Feature::by_name(f).is_some())
}

/// One property of an open pool.
pub fn property(pool: &Pool, record: &Imported, p: &str) -> Option<Value> {
    let space = pool.space();
    let free = space.size.saturating_sub(space.allocated);
    Some(match p {
        "name" => Value::text(pool.name(), "-"),
        "size" => Value::bytes(space.size),
        "allocated" => Value::bytes(space.allocated),
        "free" => Value::bytes(free),
        "capacity" => Value::percent((space.allocated * 100).checked_div(space.size).unwrap_or(0)),
        "health" => Value::text(super::status::health(pool.io().vdevs()).to_string(), "-"),
        "guid" => Value::text(pool.guid().to_string(), "-"),
        "readonly" => Value::text(if record.readonly { "on" } else { "off" }, "-"),
        "altroot" if record.altroot.is_empty() => Value::text("-", "default"),
        "altroot" => Value::text(record.altroot.clone(), "local"),
        "dedupratio" => Value::ratio(pool.dedup_ratio().ok()?),
        "freeing" => Value::number(pool.dsl.freeing(pool.io()).ok()?),
        "leaked" => Value::number(pool.dsl.leaked(pool.io()).ok()?),
        "load_guid" => Value::text(pool.load_guid().to_string(), "-"),
        "fragmentation" => match pool.fragmentation().ok()? {
            Some(n) => Value::percent(n),
            None => Value::text("-", "-"),
        },
        "dedup_table_size" => Value::number(pool.dedup_table_size().ok()?),
        "dedup_table_quota" => match pool.property(p).ok()? {
            None | Some(u64::MAX) => Value::text("auto", "default"),
            Some(0) => Value { exact: "0".into(), human: "none".into(), source: "local" },
            Some(n) => Value { source: "local", ..Value::number(n) },
        },
        "last_scrubbed_txg" => Value::text(pool.last_scrubbed().ok()?.to_string(), "-"),
        // What was asked for, not what the vdevs have: 0 is whatever suits a new device.
        "ashift" => match pool.property(p).ok()? {
            Some(n) if n != 0 => Value::text(n.to_string(), "local"),
            _ => Value::text("0", "default"),
        },
        "compatibility" => match &pool.config().compatibility {
            Some(c) => Value::text(c.clone(), "local"),
            None => Value::text("off", "default"),
        },
        "bcloneused" => Value::bytes(pool.cloned().ok()?.used),
        "bclonesaved" => Value::bytes(pool.cloned().ok()?.saved),
        "bcloneratio" => {
            let c = pool.cloned().ok()?;
            Value::ratio(
                c.used.saturating_add(c.saved).saturating_mul(100).checked_div(c.used).unwrap_or(100),
            )
        }
        "comment" => match &pool.config().comment {
            Some(c) => Value::text(c.clone(), "local"),
            None => Value::text("-", "default"),
        },
        "version" => match pool.config().version {
            Some(5000) | None => Value::text("-", "default"),
            Some(v) => Value::text(v.to_string(), "local"),
        },
        "bootfs" => match pool.property(p).ok()? {
            Some(objset) if objset != 0 => {
                Value::text(icecore_pool::heal::dataset_name(pool, objset), "local")
            }
            _ => Value::text("-", "default"),
        },
        "cachefile" => Value::text("-", "default"),
        "checkpoint" => match pool.checkpoint_space().ok()? {
            Some(n) => Value::bytes(n),
            None => Value::text("-", "-"),
        },
        "expandsize" => Value::text("-", "-"),
        p if WORDS.iter().any(|(name, ..)| *name == p) => {
            let (_, words, default) = WORDS.iter().find(|(name, ..)| *name == p)?;
            let n = pool.property(p).ok()?.unwrap_or(*default);
            let word = usize::try_from(n).ok().and_then(|n| words.get(n)).copied().unwrap_or("-");
            Value::text(word, if n == *default { "default" } else { "local" })
        }
        p if is_user(p) => {
            let set = pool.user_property(p).ok()?;
            set.map_or_else(|| Value::text("-", "default"), |text| Value::text(text, "local"))
        }
        p => {
            let f = icecore_dsl::Feature::by_name(p.strip_prefix("feature@")?)?;
            let refs = pool.dsl.feature_refcount(pool.io(), f).ok()?;
            Value::text(refs.map_or("disabled", |n| if n > 0 { "active" } else { "enabled" }), "local")
        }
    })
}

/// All that a pool has, in OpenZFS's order.
fn all_of(pool: &Pool) -> Outcome<Vec<String>> {
    let features = icecore_dsl::Feature::ALL.iter().map(|f| format!("feature@{}", f.name));
    Ok(PROPS.iter().map(|p| (*p).to_string()).chain(pool.user_property_names()?).chain(features).collect())
}

pub fn run(args: &[String]) -> Outcome {
    let options = [flag('H', ""), flag('p', ""), value('o', ""), flag('j', "json"), flag('J', "json-int")];
    // An option without its value is passed over (`zpool_do_get`).
    let typed = Typed::parse_with(args, &options, USAGE, |_| "missing property argument".into())?;
    let exact = typed.has('p') || typed.has('J');
    let mut pools = serde_json::Map::new();
    let Some((asked, names)) = typed.operands.split_first() else {
        return Err(Fail::usage("missing property argument", USAGE));
    };
    let is_pool = |name: &String| state::find(name).is_ok_and(|found| found.is_some());
    if names.first().is_some_and(is_pool) && !names.iter().all(is_pool) {
        let kind = |name: &String| if is_pool(name) { "pool" } else { "unknown" };
        let got: Vec<String> = names[1..].iter().map(|n| format!("\t{n} ({})", kind(n))).collect();
        let why = format!("Expected a list of vdevs in \"{}\", but got:\n{}", names[0], got.join("\n"));
        return Err(Fail::usage(why, USAGE));
    }
    let fields: Vec<&str> = match typed.value('o') {
        None | Some("all") => vec!["name", "property", "value", "source"],
        Some(list) => list.split(',').collect(),
    };
    if let Some(bad) = fields.iter().find(|f| !["name", "property", "value", "source"].contains(f)) {
        return Err(Fail::usage(format!("invalid column name '{bad}'"), USAGE));
    }
    let named: Option<Vec<String>> =
        (asked != "all").then(|| asked.split(',').map(|p| canonical(p).to_string()).collect());
    if asked.is_empty() {
        return Err(Fail::usage("bad property list: no properties specified", USAGE));
    }
    if let Some(bad) = named.iter().flatten().find(|p| !known(p)) {
        return Err(Fail::usage(format!("bad property list: invalid property '{bad}'"), USAGE));
    }
    let names: Vec<String> =
        if names.is_empty() { state::all()?.into_iter().map(|p| p.name).collect() } else { names.to_vec() };
    let mut table = Table::new(fields.iter().map(|f| (f.to_uppercase(), Align::Left)).collect());
    for name in &names {
        let missing = || Fail::new(format!("Cannot get properties of {name}: no such pool available."));
        let record = state::find(name)?.ok_or_else(missing)?;
        let pool = session::open_record(&record, For::Read)
            .map_err(|f| Fail::new(format!("cannot open '{name}': {}", f.message)))?;
        let mut properties = serde_json::Map::new();
        let wanted = named.clone().map_or_else(|| all_of(&pool), Ok)?;
        for p in &wanted {
            if let Some(v) = property(&pool, &record, p) {
                properties.insert(p.clone(), super::json::property(&v, Numbers::of(&typed)));
                let p: &str = p;
                let cell = |f: &&str| match *f {
                    "name" => name.clone(),
                    "property" => p.to_string(),
                    "value" => v.shown(exact),
                    _ => v.source.to_string(),
                };
                table.row(fields.iter().map(cell).collect());
            }
        }
        pools.insert(name.clone(), super::json::pool(&pool, &record, Numbers::of(&typed), properties));
    }
    if typed.has('j') {
        super::json::print("zpool get", pools);
        return Ok(());
    }
    print!("{}", table.render(typed.has('H')));
    Ok(())
}
