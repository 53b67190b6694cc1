//! `zfs diff`: what changed between a snapshot and a later one, or now (`zfs_do_diff`, zfs_main.c; libzfs_diff.c).
//!
//! OpenZFS takes a snapshot of a head to compare with; here nothing writes beside a command, so the head is read as it
//! is. Nothing need be mounted: paths begin with the `mountpoint` of the file system, or with nothing where it has none.

use super::Named;
use crate::args::{Typed, flag, value};
use crate::caller;
use crate::fail::{FAILED, Fail, Outcome};
use crate::files::out::Out;
use crate::keys::{Ask, How, unlock};
use crate::session::{self, For};
use icecore_dsl::{DatasetRef, DslError};
use icecore_format::Txg;
use icecore_pool::Pool;
use icecore_zpl::{Change, Dataset, Difference, FileKind, Filesystem, Finding, ZplError};
use std::fmt::Write as _;

pub const USAGE: &str = "diff [-FHth] [--keylocation <keylocation>] <snapshot> [snapshot|filesystem]";

/// What is compared, by full names.
#[derive(PartialEq, Eq, Debug)]
struct Pair {
    /// The file system whose history it is: the later one's.
    head: String,
    from: String,
    to: String,
}

pub fn run(args: &[String]) -> Outcome {
    let known = [flag('F', ""), flag('H', ""), flag('h', ""), flag('t', ""), value('K', "keylocation")];
    let typed = Typed::parse(args, &known, USAGE)?;
    let (from, to) = match typed.operands.as_slice() {
        [] => return Err(Fail::usage("must provide at least one snapshot name", USAGE)),
        [from] => (from.as_str(), None),
        [from, to] => (from.as_str(), Some(to.as_str())),
        _ => return Err(Fail::usage("too many arguments", USAGE)),
    };
    let first = match (from.strip_prefix('@'), to) {
        (None, _) => from,
        (Some(_), Some(to)) => to,
        (Some(_), None) => {
            return Err(Fail { status: crate::fail::USAGE, message: format!("usage:\n\t{USAGE}") });
        }
    };
    let first = first.split('@').next().unwrap_or(first);
    let mut pool = super::open(first, Named::Dataset, For::Read)?;
    file_system(&pool, first)?;
    let pair = pair(from, to)?;
    if pair.head != first {
        related(&pool, &pair, first)?;
    }
    let (earlier, later, since) = line(&pool, &pair)?;
    for name in [&pair.from, &pair.to] {
        let how = How { location: typed.value('K'), ask: Ask::Input, ..How::default() };
        unlock(&mut pool, name, how)
            .map_err(|f| Fail { message: format!("cannot diff '{name}': {}", f.message), ..f })?;
    }
    let (earlier, later) = (files(&pool, &pair.from, earlier)?, files(&pool, &pair.to, later)?);
    let print = Print {
        classify: typed.has('F'),
        scripted: typed.has('H'),
        raw: typed.has('h'),
        times: typed.has('t'),
        colors: colors(),
        mountpoint: mountpoint(&pool, &pair.head)?,
    };
    tell(&pool, &pair, (&earlier, &later, since), &print)
}

/// Compares, and prints what is found as it is found.
fn tell(
    pool: &Pool,
    pair: &Pair,
    (from, to, since): (&Filesystem, &Filesystem, Txg),
    print: &Print,
) -> Outcome {
    let mut out = Out::new()?;
    let mut damaged = false;
    let ended = icecore_zpl::diff(pool.io(), from, to, since, &mut |finding| match finding {
        Finding::File(d) => out.bytes(&print.line(&d)).map_err(Stop::Out),
        Finding::Unknown { object, earlier, error } => {
            let dataset = if earlier { &pair.from } else { &pair.to };
            let reason = match &error {
                // The number of its directory belongs to a file now.
                ZplError::NotDirectory(_) => "Invalid argument".to_string(),
                e => {
                    damaged = true;
                    e.to_string()
                }
            };
            eprintln!("Unable to determine path or stats for object {} in {dataset}: {reason}", object.0);
            Ok(())
        }
    });
    match ended {
        Ok(()) => out.finish()?,
        Err(Stop::Out(fail)) => return Err(fail),
        Err(Stop::Zpl(e)) => {
            out.finish()?;
            return Err(Fail::new(format!("Unable to obtain diffs: {e}")));
        }
    }
    // OpenZFS ends well here; but then a script takes the lines for all there are.
    if damaged { Err(Fail::said(FAILED)) } else { Ok(()) }
}

enum Stop {
    Zpl(ZplError),
    Out(Fail),
}
impl From<ZplError> for Stop {
    fn from(e: ZplError) -> Self {
        Self::Zpl(e)
    }
}

/// The names that are meant (`get_snapshot_names`, libzfs_diff.c).
fn pair(from: &str, to: Option<&str>) -> Outcome<Pair> {
    let bad = |what: &str, why: &str| Fail::new(format!("{what}: {why}"));
    let Some(to) = to else {
        let what = format!("Badly formed snapshot name {from}");
        let Some((head, snap)) = from.split_once('@') else {
            return Err(bad(&what, "missing '@' delimiter in snapshot name"));
        };
        if snap.is_empty() {
            return Err(bad(&what, "empty component or misplaced '@' or '#' delimiter in name"));
        }
        if snap.contains(['@', '#']) {
            return Err(bad(&what, "multiple '@' and/or '#' delimiters in name"));
        }
        super::valid(from, Named::Snapshot).map_err(|why| bad(&what, &why))?;
        return Ok(Pair { head: head.into(), from: from.into(), to: head.into() });
    };
    let split = |name: &'_ str| {
        let at = name.find('@').unwrap_or(name.len());
        (name[..at].to_string(), name[at..].to_string())
    };
    let ((from_head, from_snap), (to_head, to_snap)) = (split(from), split(to));
    if from_snap.len() <= 1 || to_snap.len() == 1 || (from_head.is_empty() && to_head.is_empty()) {
        return Err(bad("Unable to determine which snapshots to compare", "invalid name"));
    }
    let or = |a: &String, b: &String| if a.is_empty() { b.clone() } else { a.clone() };
    let (from_head, to_head) = (or(&from_head, &to_head), or(&to_head, &from_head));
    Ok(Pair { from: format!("{from_head}{from_snap}"), to: format!("{to_head}{to_snap}"), head: to_head })
}

/// The later file system is a clone, if it is not the earlier one. Which of its origins the earlier snapshot must precede
/// is seen by [`line`].
fn related(pool: &Pool, pair: &Pair, first: &str) -> Outcome {
    let stranger = || Fail::new("Not an earlier snapshot from the same fs: invalid name");
    let other = session::pool_of(&pair.head);
    let cannot = |why: &str| {
        let message = format!("cannot open '{}': {why}\n{}", pair.head, stranger().message);
        Err(Fail::new(message))
    };
    if let Err(why) = super::valid(&pair.head, Named::Dataset) {
        return cannot(&why);
    }
    if session::pool_of(first) != other {
        return match crate::state::find(other)? {
            Some(_) => Err(stranger()),
            None => cannot("dataset does not exist"),
        };
    }
    let head = file_system(pool, &pair.head)?;
    let dir = pool.dsl.dir(pool.io(), head.dir)?;
    if pool.dsl.is_clone(&dir) { Ok(()) } else { Err(stranger()) }
}

/// The head `name`, which must be a file system (`zfs_open` for one of `ZFS_TYPE_FILESYSTEM`).
fn file_system(pool: &Pool, name: &str) -> Outcome<DatasetRef> {
    let cannot = |e: DslError| super::cannot("open", name, &e);
    let head = pool.dsl.lookup_head(pool.io(), name).map_err(cannot)?;
    match pool.dsl.kind(pool.io(), head).map_err(cannot)? {
        icecore_dsl::Kind::Filesystem => Ok(head),
        _ => Err(super::wrong_kind(name)),
    }
}

/// Both ends, if the first is in the past of the second (`dmu_diff`, dmu_diff.c), and the txg of the first.
fn line(pool: &Pool, pair: &Pair) -> Outcome<(DatasetRef, DatasetRef, Txg)> {
    let (io, dsl) = (pool.io(), &pool.dsl);
    let fail = |why: &str| Fail::new(format!("Unable to obtain diffs: {why}"));
    let find = |name: &str| {
        dsl.lookup_dataset(io, name).map_err(|e| match e {
            DslError::NotFound(_) => fail("No such file or directory"),
            DslError::Name(_) | DslError::Invalid(_) => fail("Invalid argument"),
            e => fail(&e.to_string()),
        })
    };
    let (to, from) = (find(&pair.to)?, find(&pair.from)?);
    if !dsl.is_before(io, to.obj, from.obj, None)? {
        return Err(fail("\n   Not an earlier snapshot from the same fs"));
    }
    Ok((from, to, Txg(dsl.dataset(io, from.obj)?.creation_txg)))
}

fn files(pool: &Pool, name: &str, dataset: DatasetRef) -> Outcome<Filesystem> {
    match icecore_zpl::open_object(pool.io(), &pool.dsl, dataset.obj) {
        Ok(Dataset::Filesystem(fs)) => Ok(*fs),
        Ok(Dataset::Volume(_)) => {
            Err(Fail::new(format!("cannot open '{name}': operation not applicable to datasets of this type")))
        }
        Err(e) => Err(Fail::new(format!("cannot open '{name}': {e}"))),
    }
}

/// What paths begin with.
fn mountpoint(pool: &Pool, head: &str) -> Outcome<String> {
    let row = pool.dsl.prop(pool.io(), head, "mountpoint").map_err(|e| super::cannot("open", head, &e))?;
    let path = row.map(|r| r.value).filter(|v| v.starts_with('/')).unwrap_or_default();
    Ok(if path == "/" { String::new() } else { path })
}

/// Whether lines are coloured (`use_color`, libzfs_util.c).
fn colors() -> bool {
    let set = |name: &str| {
        caller::var(name).is_some_and(|v| {
            let number = v.parse::<u64>().is_ok_and(|n| n > 0);
            number || v.eq_ignore_ascii_case("yes") || v.eq_ignore_ascii_case("on")
        })
    };
    caller::stdout_is_terminal()
        && set("ZFS_COLOR")
        && !set("NO_COLOR")
        && caller::var("TERM").is_some_and(|t| t != "dumb" && t != "unknown")
}

/// How lines look.
struct Print {
    classify: bool,
    scripted: bool,
    raw: bool,
    times: bool,
    colors: bool,
    mountpoint: String,
}

impl Print {
    fn line(&self, d: &Difference) -> Vec<u8> {
        let (letter, color) = match d.change {
            Change::Added => ('+', "\x1b[0;32m"),
            Change::Removed => ('-', "\x1b[0;31m"),
            Change::Modified | Change::Links(_) => ('M', "\x1b[0;33m"),
            Change::Renamed(_) => ('R', "\x1b[1;34m"),
        };
        let color = if self.colors { color } else { "" };
        let mut head = color.to_string();
        if self.times {
            let _ = write!(head, "{:>10}.{:09}\t", d.ctime.seconds, d.ctime.nanos);
        }
        let _ = write!(head, "{letter}\t");
        if self.classify {
            let _ = write!(head, "{}\t", class(d.kind));
        }
        let mut line = head.into_bytes();
        self.path(&mut line, &d.path);
        match &d.change {
            Change::Links(n) => line.extend_from_slice(format!("\t({n:+})").as_bytes()),
            Change::Renamed(to) => {
                line.extend_from_slice(if self.scripted { b"\t" } else { b" -> " });
                self.path(&mut line, to);
            }
            _ => {}
        }
        line.push(b'\n');
        if self.colors {
            line.extend_from_slice(b"\x1b[0m");
        }
        line
    }

    /// A path with what is neither a letter, digit nor sign of ASCII in octal, unless it is wanted raw
    /// (`stream_bytes`).
    fn path(&self, line: &mut Vec<u8>, path: &[u8]) {
        for b in self.mountpoint.bytes().chain(path.iter().copied()) {
            if self.raw || (b.is_ascii_graphic() && b != b'\\') {
                line.push(b);
            } else {
                line.extend_from_slice(format!("\\{b:04o}").as_bytes());
            }
        }
    }
}

/// The sign of `-F` (`get_what`).
fn class(kind: FileKind) -> char {
    match kind {
        FileKind::BlockDevice => 'B',
        FileKind::CharDevice => 'C',
        FileKind::Directory => '/',
        FileKind::Fifo => '|',
        FileKind::Symlink => '@',
        FileKind::Socket => '=',
        FileKind::Regular => 'F',
    }
}
