//! Properties and holds that travel with a package (`zfs send -p`, `-R`), and those the user adds or
//! leaves out (`-o`, `-x`).
//!
//! Facts: `zfs_receive_one`, `zfs_setup_cmdline_props`, libzfs_sendrecv.c; `extract_delay_props`,
//! `zfs_ioc_recv_impl`, zfs_ioctl.c.
//!
//! Rules of our own, since a stream may come from anybody:
//! 1. `keylocation` is never taken: it would make the next load-key read a file or address of the sender's
//!    choice.
//! 2. What mounts, shares, or loosens what files may do is stored as received, but does not rule until
//!    the user asks for it (`zfs inherit -S`), unless the receive is told to trust the stream.
//! 3. Names and values that the table does not know are left out with a warning.

use super::begin::Ask;
use super::error::ReceiveError;
use super::{Context, Encryption, ReceiveSpec};
use icecore_dmu::BlockWriter;
use icecore_dsl::prop::{SetSource, is_user, parse_new, parse_new_volume, table};
use icecore_dsl::{DatasetRef, Dsl, Value};
use icecore_format::NvList;
use icecore_format::nvlist::NvValue;

type Result<T, E = ReceiveError> = std::result::Result<T, E>;

/// Never taken from a stream.
const NEVER: &[&str] = &["keylocation", "encryption", "keyformat", "pbkdf2iters", "volsize", "type", "zoned"];
/// Kept, but not in force, as [`rules_not`] says.
const HIDDEN: &[&str] =
    &["mountpoint", "canmount", "sharenfs", "sharesmb", "exec", "setuid", "devices", "overlay", "mlslabel"];
/// Set when the data is there: before, they could be exceeded.
const DELAYED: &[&str] = &["quota", "refquota", "reservation", "refreservation"];
/// Longest value of a user property.
const TEXT_MAX: usize = 8192;

/// Chosen when a dataset is encrypted; raw streams bring their own.
const ENCRYPTION: &[&str] = &["encryption", "keyformat", "pbkdf2iters", "pbkdf2salt"];

/// What of the stream at hand decides which properties the user may set.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    /// A raw stream.
    pub raw: bool,
    /// It makes a dataset, rather than adding to one.
    pub new: bool,
    /// It is one of a package.
    pub package: bool,
    /// It is of a volume.
    pub volume: bool,
}

/// Refuses names that no receive can set or leave out (`zfs_receive_checkprops`, libzfs_sendrecv.c).
pub(crate) fn check_names(spec: &ReceiveSpec) -> Result<()> {
    for name in spec.set.iter().map(|(name, _)| name).chain(&spec.exclude) {
        if is_user(name) || name == "origin" || ENCRYPTION.contains(&name.as_str()) {
            continue;
        }
        let fixed = name == "version" || name == "volsize";
        if fixed || table::find(name).is_none_or(|p| p.readonly()) {
            return Err(ReceiveError::Property(format!("invalid property '{name}'")));
        }
    }
    Ok(())
}

/// Refuses what cannot be set with this stream, before anything is written (`zfs_setup_cmdline_props`,
/// libzfs_sendrecv.c). Laxer than OpenZFS: `encryption=off` may be said again with an increment.
pub(crate) fn check_asked(spec: &ReceiveSpec, kind: Kind) -> Result<()> {
    let refuse = |why: String| Err(ReceiveError::Property(why));
    let excluded = spec.exclude.iter().find(|n| kind.raw && ENCRYPTION.contains(&n.as_str()));
    if let Some(name) = excluded {
        return refuse(format!("encryption property '{name}' cannot be set or excluded for raw streams."));
    }
    for (name, text) in &spec.set {
        if ENCRYPTION.contains(&name.as_str()) {
            if kind.raw {
                return refuse(format!(
                    "encryption property '{name}' cannot be set or excluded for raw streams."
                ));
            }
            if name == "encryption" && text == "off" || kind.package && !kind.new {
                continue;
            }
            if !kind.new {
                return refuse(format!(
                    "encryption property '{name}' cannot be set for incremental streams."
                ));
            }
            continue;
        }
        if name == "keylocation" {
            // Where an increment of a package comes to, its first stream has said it.
            if !kind.raw && (kind.new || kind.package) {
                continue;
            }
            return Err(ReceiveError::Unsupported(
                "'keylocation' is not set while receiving: set it afterwards with 'zfs set'".into(),
            ));
        }
        if !applies(name, kind.volume) {
            if kind.package {
                continue;
            }
            return refuse(format!("property '{name}' does not apply to datasets of this type"));
        }
        parse_local(kind.volume, name, text).map_err(|e| ReceiveError::Property(e.to_string()))?;
    }
    Ok(())
}

/// Whether datasets of that kind have the property.
fn applies(name: &str, volume: bool) -> bool {
    let kinds = if volume { table::VOL } else { table::FS };
    is_user(name) || table::find(name).is_some_and(|p| p.types & kinds != 0)
}

/// Whether datasets below take the property over.
fn inheritable(name: &str) -> bool {
    is_user(name) || table::find(name).is_some_and(|p| p.inheritable())
}

/// One property of a stream, checked.
struct Given {
    name: String,
    value: Value,
}

/// The properties of `list` that may be stored, and a line for each that may not.
fn take(list: &NvList, volume: bool, warnings: &mut Vec<String>) -> Vec<Given> {
    let mut out = Vec::new();
    for (name, value) in list.iter() {
        let Some(name) = name.as_str() else {
            warnings.push("a property whose name is no text was left out".into());
            continue;
        };
        if NEVER.contains(&name) {
            continue;
        }
        match checked(name, value, volume) {
            Some(value) => out.push(Given { name: name.into(), value }),
            None => warnings.push(format!("property '{name}' of the stream was left out")),
        }
    }
    out
}

fn checked(name: &str, value: &NvValue, volume: bool) -> Option<Value> {
    let text = |v: &icecore_format::nvlist::NvStr| {
        v.as_str().filter(|t| t.len() < TEXT_MAX && !t.contains('\0')).map(|t| Value::Text(t.into()))
    };
    if is_user(name) {
        return match value {
            NvValue::Str(v) if name.len() < 256 => text(v),
            _ => None,
        };
    }
    let p = table::find(name)?;
    let kinds = if volume { table::VOL } else { table::FS };
    if p.readonly() || p.types & kinds == 0 {
        return None;
    }
    match (p.kind, value) {
        (table::Type::Text(_), NvValue::Str(v)) => text(v),
        (table::Type::Index(..), NvValue::U64(n)) => p.word(*n).map(|_| Value::Number(*n)),
        (table::Type::Bytes(_) | table::Type::Count(_), NvValue::U64(n)) => {
            let fits = match name {
                "recordsize" | "volblocksize" => n.is_power_of_two() && (512..=16 << 20).contains(n),
                "copies" => (1..=3).contains(n),
                _ => true,
            };
            fits.then_some(Value::Number(*n))
        }
        _ => None,
    }
}

/// Whether a stream that is not raw makes a dataset that is not encrypted wherever it comes to lie: one sent with its
/// properties was plain at the sender (an encrypted one goes with them only raw), and nobody says otherwise
/// (`zfs_receive_one`, libzfs_sendrecv.c).
pub(crate) fn says_plain(spec: &ReceiveSpec, context: Option<Context<'_>>) -> bool {
    let asked = !matches!(spec.crypt, Encryption::Inherit) || spec.exclude.iter().any(|n| n == "encryption");
    of_context(context).is_some() && !asked
}

/// The properties that a package has for a dataset.
fn of_context(context: Option<Context<'_>>) -> Option<&NvList> {
    context.and_then(|c| c.fs.list("props"))
}

/// Whether a received value is kept without being in force: what forbids more than the table does no harm.
fn rules_not(given: &Given) -> bool {
    let forbids =
        ["exec", "setuid", "devices"].contains(&given.name.as_str()) && given.value == Value::Number(0);
    HIDDEN.contains(&given.name.as_str()) && !forbids
}

/// Stores a received value; one that could do harm is stored but does not rule.
fn store(
    dsl: &mut Dsl,
    io: &mut dyn BlockWriter,
    ds: DatasetRef,
    given: &Given,
    spec: &ReceiveSpec,
) -> Result<()> {
    let unwanted = spec.exclude.contains(&given.name);
    // What is set here rules anyhow.
    let own = dsl.own_props(io, ds, false)?.iter().any(|p| p.name == given.name && !p.received);
    if unwanted && !own && !inheritable(&given.name) {
        return Ok(());
    }
    dsl.prop_set_raw(io, ds, &given.name, &given.value, SetSource::Received)?;
    let hidden = !spec.trust_props && rules_not(given);
    if (hidden || unwanted) && !own {
        dsl.prop_inherit(io, ds, &given.name, false)?;
    }
    Ok(())
}

/// What the user sets: on the dataset that the receive is for; those below it inherit what they can.
fn local(
    dsl: &mut Dsl,
    io: &mut dyn BlockWriter,
    ds: DatasetRef,
    spec: &ReceiveSpec,
    ask: &Ask<'_>,
    delayed: bool,
) -> Result<()> {
    for (name, text) in &spec.set {
        let at_creation =
            ["origin", "keylocation"].contains(&name.as_str()) || ENCRYPTION.contains(&name.as_str());
        if at_creation || DELAYED.contains(&name.as_str()) != delayed || !applies(name, ask.zvol()) {
            continue;
        }
        if ask.top {
            let value = parse_local(ask.zvol(), name, text)?;
            dsl.prop_set_raw(io, ds, name, &value, SetSource::Local)?;
        } else if inheritable(name) {
            // In the place of what was received.
            dsl.set_has_received_props(io, ds.dir)?;
            dsl.prop_inherit(io, ds, name, false)?;
        }
    }
    Ok(())
}

/// The kind of a dataset that is still empty is not known to the DSL: the stream says it.
fn parse_local(volume: bool, name: &str, text: &str) -> Result<Value> {
    if name == "mountpoint" && !text.starts_with('/') && !["none", "legacy"].contains(&text) {
        return Err(ReceiveError::Property(
            "'mountpoint' must be an absolute path, 'none', or 'legacy'".into(),
        ));
    }
    Ok(if volume { parse_new_volume(name, text)? } else { parse_new(name, text)? })
}

/// Properties of a new dataset, before its objset is made: they rule how the stream is stored.
pub(crate) fn apply_new(
    dsl: &mut Dsl,
    io: &mut dyn BlockWriter,
    ds: DatasetRef,
    ask: &Ask<'_>,
    context: Option<Context<'_>>,
    spec: &ReceiveSpec,
) -> Result<()> {
    let volume = ask.zvol();
    if let Some(list) = of_context(context) {
        dsl.set_has_received_props(io, ds.dir)?;
        for given in take(list, volume, &mut Vec::new()) {
            if !DELAYED.contains(&given.name.as_str()) {
                store(dsl, io, ds, &given, spec)?;
            }
        }
    }
    for name in &spec.exclude {
        let has = of_context(context).is_some_and(|l| l.contains(name));
        if !has && table::find(name).is_some_and(|p| p.inheritable()) {
            dsl.set_has_received_props(io, ds.dir)?;
            dsl.prop_inherit(io, ds, name, false)?;
        }
    }
    local(dsl, io, ds, spec, ask, false)
}

/// Properties and holds once the snapshot is made. Gives warnings.
pub(crate) fn apply_finished(
    dsl: &mut Dsl,
    io: &mut dyn BlockWriter,
    ask: &Ask<'_>,
    existed: bool,
    context: Option<Context<'_>>,
    spec: &ReceiveSpec,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let head = dsl.lookup_head(io, ask.path)?;
    let volume = ask.zvol();
    if let Some(list) = of_context(context) {
        let given = take(list, volume, &mut warnings);
        if existed {
            dsl.set_has_received_props(io, head.dir)?;
            for old in dsl.own_props(io, head, true)? {
                if !given.iter().any(|g| g.name == old.name) {
                    dsl.prop_clear(io, head, &old.name, true)?;
                }
            }
        }
        for g in given.iter().filter(|g| existed || DELAYED.contains(&g.name.as_str())) {
            if let Err(e) = store(dsl, io, head, g, spec) {
                soft(&mut warnings, &format!("cannot receive {} property on {}", g.name, ask.path), e)?;
            }
        }
    }
    if existed {
        local(dsl, io, head, spec, ask, false)?;
    }
    if let Err(e) = local(dsl, io, head, spec, ask, true) {
        soft(&mut warnings, &format!("cannot set properties on {}", ask.path), e)?;
    }
    if let Some(c) = context {
        snapshot_extras(dsl, io, ask, c, spec, &mut warnings)?;
    }
    Ok(warnings)
}

/// User properties and holds of the snapshot.
fn snapshot_extras(
    dsl: &mut Dsl,
    io: &mut dyn BlockWriter,
    ask: &Ask<'_>,
    context: Context<'_>,
    spec: &ReceiveSpec,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let full = format!("{}@{}", ask.path, ask.snap);
    let of = |what: &str| context.fs.list(what).and_then(|l| l.list(sent_name(ask)));
    snapshot_props(dsl, io, &full, context.fs, sent_name(ask), warnings)?;
    if let Some(holds) = of("snapholds").filter(|_| !spec.skip_holds) {
        for (tag, _) in holds.iter() {
            let Some(tag) = tag.as_str() else { continue };
            if let Err(e) = dsl.hold(io, &full, tag) {
                soft(warnings, &format!("cannot hold {full}"), e.into())?;
            }
        }
    }
    Ok(())
}

/// User properties that a package has for the snapshot `full`, by its own name at the sender. Whether there are any.
pub(crate) fn snapshot_props(
    dsl: &mut Dsl,
    io: &mut dyn BlockWriter,
    full: &str,
    fs: &NvList,
    sent: &str,
    warnings: &mut Vec<String>,
) -> Result<bool> {
    let Some(list) = fs.list("snapprops").and_then(|l| l.list(sent)) else { return Ok(false) };
    let given: Vec<Given> = take(list, false, warnings).into_iter().filter(|g| is_user(&g.name)).collect();
    let snap = dsl.lookup_snapshot(io, full)?;
    for g in &given {
        dsl.prop_set_raw(io, snap, &g.name, &g.value, SetSource::Received)?;
    }
    Ok(!given.is_empty())
}

/// The snapshot's own name at the sender.
fn sent_name<'a>(ask: &Ask<'a>) -> &'a str {
    ask.begin.toname.as_str().and_then(|n| n.split_once('@')).map_or("", |(_, s)| s)
}

/// An error that does not make the receive fail, unless the txg is lost with it.
fn soft(warnings: &mut Vec<String>, what: &str, e: ReceiveError) -> Result<()> {
    use icecore_dsl::DslError::{NoSpace, Quota};
    if super::is_write(&e) && !matches!(e, ReceiveError::Dsl(NoSpace | Quota)) {
        return Err(e);
    }
    warnings.push(format!("{what}: {e}"));
    Ok(())
}
