//! Which datasets a command is about: names, types, recursion (`zfs_for_each`, cmd/zfs/zfs_iter.c).

use super::{Named, cannot};
use crate::args::Typed;
use crate::fail::{Fail, Outcome};
use crate::session::{self, For, Open, Why};
use crate::state;
use icecore_dsl::{DatasetRef, DslError, Found, Kind, Known};
use icecore_format::Corrupt;
use icecore_pool::Pool;
use std::collections::BTreeSet;

/// Kinds of datasets asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Types {
    /// File systems.
    pub filesystem: bool,
    /// Volumes.
    pub volume: bool,
    /// Snapshots of either.
    pub snapshot: bool,
    /// Bookmarks.
    pub bookmark: bool,
}

impl Types {
    /// Everything.
    pub const ALL: Self = Self { filesystem: true, volume: true, snapshot: true, bookmark: true };
    /// Everything but bookmarks.
    pub const NO_BOOKMARKS: Self = Self { bookmark: false, ..Self::ALL };
    /// File systems and volumes.
    pub const HEADS: Self = Self { filesystem: true, volume: true, snapshot: false, bookmark: false };

    /// From `-t`.
    pub fn parse(text: &str, usage: &str) -> Outcome<Self> {
        let mut out = Self::default();
        for word in text.split(',') {
            match word {
                "filesystem" | "fs" => out.filesystem = true,
                "volume" | "vol" => out.volume = true,
                "snapshot" | "snap" => out.snapshot = true,
                "bookmark" => out.bookmark = true,
                "all" => out = Self::ALL,
                other => return Err(Fail::usage(format!("invalid type '{other}'"), usage)),
            }
        }
        Ok(out)
    }
    /// Whether `kind` was asked for.
    #[must_use]
    pub fn has(self, kind: Kind) -> bool {
        match kind {
            Kind::Filesystem => self.filesystem,
            Kind::Volume => self.volume,
            Kind::Snapshot | Kind::VolumeSnapshot => self.snapshot,
            Kind::Bookmark => self.bookmark,
        }
    }
}

/// What was asked for on the command line.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Kinds to show; `None` where none were named.
    pub types: Option<Types>,
    /// With everything below.
    pub recursive: bool,
    /// At most this far below.
    pub depth: Option<usize>,
    /// Kinds that may be named where none were asked for.
    pub named: Types,
}

impl Query {
    /// Whether `name` may be named at all (`zfs_for_each`, zfs_iter.c).
    fn admits(&self, name: &str) -> Result<(), String> {
        let types = self.types.unwrap_or(self.named);
        if types.bookmark && !types.snapshot && name.contains('@') {
            return Err("snapshot delimiter '@' is not expected here".into());
        }
        super::valid(
            name,
            match (types.snapshot, types.bookmark) {
                (_, true) => Named::Any,
                (true, false) => Named::NoBookmark,
                (false, false) => Named::Dataset,
            },
        )
    }
    /// Whether a file system or volume itself has to be of what was asked for: not where that is looked for below it.
    fn wants_head(&self) -> bool {
        !self.recursive && self.types.is_some_and(|t| !t.snapshot && !t.bookmark)
    }
}

/// The value of `-d`.
pub fn depth(typed: &Typed, usage: &str) -> Outcome<Option<usize>> {
    let parse = |d: &str| match d.parse::<i64>().map(usize::try_from) {
        Ok(Ok(n)) => Ok(n),
        Ok(Err(_)) => Err(Fail::usage("Depth can not be negative.", usage)),
        Err(_) => Err(Fail::usage(format!("{d} is not an integer"), usage)),
    };
    typed.value('d').map(parse).transpose()
}

/// One selected name.
#[derive(Clone, Debug)]
pub struct Selected {
    /// Full name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Where it was found; `None` of a bookmark.
    pub found: Option<Known>,
}

impl Selected {
    /// What need not be looked up again.
    #[must_use]
    pub fn known(&self) -> Option<&Known> {
        self.found.as_ref()
    }
}

/// Shows the names in the pools asked for, one after another, in the order of the tree.
pub fn each(names: &[String], query: &Query, mut show: impl FnMut(&Pool, &Selected) -> Outcome) -> Outcome {
    together(names, query, |pool, found| found.iter().filter_map(|s| show(pool, s).err()).collect())
}

/// Shows the names in the pools asked for, in the order of the tree, very many of one operand in parts. What could not be shown
/// is told at the end.
pub fn together(
    names: &[String],
    query: &Query,
    mut show: impl FnMut(&Pool, &[Selected]) -> Vec<Fail>,
) -> Outcome {
    let all: Vec<String>;
    let named = !names.is_empty();
    let (names, query) = if !named {
        all = state::all()?.into_iter().map(|p| p.name).collect();
        (all.as_slice(), Query { recursive: true, ..*query })
    } else {
        (names, *query)
    };
    let mut failed = Vec::new();
    let mut open: Option<Open> = None;
    for name in names {
        // A path stands for the file system that is mounted there (`zfs_path_to_zhandle`, libzfs_util.c).
        let name = &match name.starts_with(['/', '.']) {
            false => name.clone(),
            true => {
                // No path of a mount is touched with a pool in hand.
                open = None;
                match mounted_at(name) {
                    Ok(name) => name,
                    Err(f) => {
                        failed.push(f.message);
                        continue;
                    }
                }
            }
        };
        if let Err(why) = query.admits(name) {
            failed.push(format!("cannot open '{name}': {why}"));
            continue;
        }
        // Never two at once: who holds one does not wait for another.
        let same = open.take().filter(|pool| pool.name() == session::pool_of(name));
        let pool = match same {
            Some(pool) => pool,
            None => match pool_for(name) {
                Ok(pool) => pool,
                // Of all pools, those that are not there are left out, as by `zfs_iter_root` (libzfs_config.c).
                Err((Why::Missing | Why::Suspended, f)) if !named => {
                    eprintln!("{}", f.message);
                    continue;
                }
                Err((_, f)) => {
                    failed.push(f.message);
                    continue;
                }
            },
        };
        // What damage hides is told; the rest is shown.
        let mut out = Walked { pool: &pool, found: Vec::new(), lost: Vec::new(), show: &mut show };
        if let Err(f) = select(name, &query, &mut out) {
            out.lost.push(f);
        }
        failed.extend(out.end().into_iter().map(|f| f.message));
        failed.dedup();
        open = Some(pool);
    }
    if failed.is_empty() { Ok(()) } else { Err(Fail::new(failed.join("\n"))) }
}

/// The file system that is mounted where `path` is.
pub(super) fn mounted_at(path: &str) -> Outcome<String> {
    let real = std::fs::canonicalize(path)
        .map_err(|e| Fail::new(format!("cannot open '{path}': {}", crate::human::os_error(&e))))?;
    let mounts = crate::mounts::all();
    let inner = mounts.iter().filter(|m| real.starts_with(m.dir())).max_by_key(|m| m.dir().as_os_str().len());
    inner.and_then(|m| m.named().ok()).ok_or_else(|| Fail::new(format!("'{path}': not a ZFS filesystem")))
}

/// The names of properties in a list that has some (`zprop_expand_list`, libzfs_util.c).
pub fn property_list<'a>(list: &'a str, usage: &str) -> Outcome<std::str::Split<'a, char>> {
    match list {
        "" => Err(Fail::usage("bad property list: no properties specified", usage)),
        list => Ok(list.split(',')),
    }
}

/// The pool that `name` lies in, or why it cannot be had.
fn pool_for(name: &str) -> Result<Open, (Why, Fail)> {
    let record = match state::find(session::pool_of(name)) {
        Ok(Some(record)) => record,
        Ok(None) => return Err((Why::Other, session::no_pool(name))),
        Err(f) => return Err((Why::Other, f)),
    };
    session::try_open(&record, For::Read)
        .map_err(|n| (n.why, Fail::new(format!("cannot open '{name}': {}", n.fail.message))))
}

/// The names below `name` that the query asks for, as far as they can be read.
fn select(name: &str, query: &Query, out: &mut Walked<'_>) -> Outcome {
    let pool = out.pool;
    let found = pool.dsl.lookup(pool.io(), name).map_err(|e| cannot("open", name, &e))?;
    match found {
        Found::Bookmark { .. } => {
            let wanted = query.types.unwrap_or(Types::ALL).bookmark;
            out.push(wanted, name.to_string(), Kind::Bookmark, None);
        }
        Found::Dataset(r) => {
            let kind = pool.dsl.kind(pool.io(), r).map_err(|e| cannot("open", name, &e))?;
            if r.snapshot {
                let types = query.types.unwrap_or(Types::ALL);
                if !types.has(kind) {
                    return Err(super::wrong_kind(name));
                }
                out.push(true, name.to_string(), kind, Some(Known { r, kind, brief: None }));
            } else {
                let depth = if query.recursive {
                    query.depth.unwrap_or(usize::MAX)
                } else {
                    query.depth.unwrap_or(0)
                };
                if query.wants_head() && query.types.is_some_and(|t| !t.has(kind)) {
                    return Err(super::wrong_kind(name));
                }
                // Snapshots of a dataset that was itself named are shown when asked for by type.
                let types = query.types.unwrap_or(Types::HEADS);
                let only_below = query.types.is_some() && !types.filesystem && !types.volume && depth == 0;
                let depth = if only_below { 1 } else { depth };
                walk(Head { name: name.to_string(), r, depth }, types, only_below, out);
            }
        }
    }
    Ok(())
}

/// As many are shown at once.
const PART: usize = 1024;

/// What was found and not yet shown, and what could not be.
struct Walked<'a> {
    pool: &'a Pool,
    found: Vec<Selected>,
    lost: Vec<Fail>,
    show: &'a mut dyn FnMut(&Pool, &[Selected]) -> Vec<Fail>,
}

impl Walked<'_> {
    fn push(&mut self, wanted: bool, name: String, kind: Kind, found: Option<Known>) {
        if wanted {
            self.found.push(Selected { name, kind, found });
        }
        if self.found.len() >= PART {
            self.show_found();
        }
    }
    fn show_found(&mut self) {
        if !self.found.is_empty() {
            self.lost.extend((self.show)(self.pool, &self.found));
            self.found.clear();
        }
    }
    /// Shows the rest. What could not be read or shown.
    fn end(mut self) -> Vec<Fail> {
        self.show_found();
        self.lost
    }
    /// What was got; nothing where it could not be read, and that is noted.
    fn or_note<T>(&mut self, name: &str, got: Result<Vec<T>, DslError>) -> Vec<T> {
        got.unwrap_or_else(|e| {
            self.lost.push(cannot("open", name, &e));
            Vec::new()
        })
    }
}

/// A head, and how far below it is looked.
struct Head {
    name: String,
    r: DatasetRef,
    depth: usize,
}

/// `top` and, not if `flat`, the heads below it, with what hangs on each. Snapshots of all are read together.
fn walk(top: Head, types: Types, flat: bool, out: &mut Walked<'_>) {
    let (io, dsl) = (out.pool.io(), &out.pool.dsl);
    let mut heads = Vec::new();
    let mut seen = BTreeSet::new();
    let mut next = vec![top];
    while let Some(head) = next.pop() {
        if !seen.insert(head.r.dir) {
            let twice = Corrupt::new("DSL directory", format!("{} has two names", head.r.dir));
            out.lost.push(cannot("open", &head.name, &twice.into()));
            continue;
        }
        if !flat && head.depth > 0 {
            let below = below(&head, out);
            next.extend(below.into_iter().rev());
        }
        heads.push(head);
    }
    let refs: Vec<DatasetRef> = heads.iter().map(|head| head.r).collect();
    let kinds = dsl.kinds(io, &refs);
    let of_snapshots = |(head, kind): (&Head, &Result<Kind, DslError>)| {
        let wanted = types.snapshot && head.depth > 0;
        let kind = *kind.as_ref().ok().filter(|_| wanted)?;
        Some((head.r, if kind == Kind::Volume { Kind::VolumeSnapshot } else { Kind::Snapshot }))
    };
    let with_snapshots: Vec<(DatasetRef, Kind)> = heads.iter().zip(&kinds).filter_map(of_snapshots).collect();
    let mut snapshots = dsl.snapshots_known(io, &with_snapshots);
    for (Head { name, r, depth }, kind) in heads.into_iter().zip(kinds) {
        let kind = match kind {
            Ok(kind) => kind,
            Err(e) => {
                out.lost.push(cannot("open", &name, &e));
                continue;
            }
        };
        out.push(types.has(kind), name.clone(), kind, Some(Known { r, kind, brief: None }));
        if types.snapshot && depth > 0 {
            for (snap, known) in out.or_note(&name, snapshots.next().unwrap_or_else(|| Ok(Vec::new()))) {
                out.push(true, [&name, "@", &snap].concat(), known.kind, Some(known));
            }
        }
        if types.bookmark && depth > 0 {
            for (mark, _) in out.or_note(&name, dsl.bookmarks(io, &name)) {
                out.push(true, format!("{name}#{mark}"), Kind::Bookmark, None);
            }
        }
    }
}

/// The heads one level below `head`.
fn below(head: &Head, out: &mut Walked<'_>) -> Vec<Head> {
    let (io, dsl) = (out.pool.io(), &out.pool.dsl);
    let mut all = Vec::new();
    for (child, dir) in out.or_note(&head.name, dsl.children_of(io, head.r.dir)) {
        let name = format!("{}/{child}", head.name);
        // The rules for names end the nesting that damage could make endless.
        let found = icecore_dsl::name::check(&name).and_then(|()| dsl.head_in(io, dir));
        match found.and_then(|r| r.ok_or_else(|| DslError::NotFound(name.clone()))) {
            Ok(r) => all.push(Head { name, r, depth: head.depth - 1 }),
            Err(e) => out.lost.push(cannot("open", &name, &e)),
        }
    }
    all
}
