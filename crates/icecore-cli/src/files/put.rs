//! Files into a dataset: `icecore mkdir`, `rm`, `import-tree`, and `cp` with a dataset as its destination.
//!
//! Invariant: what is committed is whole: a command that ends half-way (killed, an unreadable file, no space) leaves a
//! tree in which every file that has its time of change has its contents too; the next run goes on from there.

use super::copy_in::Copy;
use super::place::complain;
use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::keys::{Ask, How, unlock};
use crate::session::{self, For, Open};
use icecore_dsl::{DatasetRef, Kind};
use icecore_format::ObjectId;
use icecore_zpl::write::{New, Stat, What, Writer};
use icecore_zpl::{FileKind, Time};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub const MKDIR_USAGE: &str = "mkdir [-p] POOL/FS:PATH ...";
pub const RM_USAGE: &str = "rm [-rf] POOL/FS:PATH ...";
pub const IMPORT_USAGE: &str = "import-tree DIR POOL/FS[:PATH]";

/// Bytes and changes between two commits.
const COMMIT_BYTES: u64 = 256 << 20;
const COMMIT_CHANGES: u64 = 20_000;

/// Bytes between two commits of this pool, which may be too small for [`COMMIT_BYTES`].
pub(super) fn commit_bytes(pool: &Open) -> u64 {
    COMMIT_BYTES.min(pool.dsl.info.at_once)
}

/// A file system open for writing.
pub struct Target {
    pool: Open,
    dataset: u64,
    pub(super) writer: Writer,
    pub(super) bytes: u64,
    changes: u64,
}

/// The dataset and path of `POOL/FS:PATH`, if it begins with an imported pool's name.
pub fn split(typed: &str) -> Option<(&str, &str)> {
    let (dataset, path) = typed.split_once(':')?;
    let known = crate::state::find(session::pool_of(dataset)).ok().flatten().is_some();
    known.then_some((dataset, path))
}

pub(super) fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time { seconds: i64::try_from(since.as_secs()).unwrap_or(0), nanos: since.subsec_nanos() }
}

fn name_in(path: &str) -> Vec<&str> {
    path.split('/').filter(|p| !p.is_empty() && *p != ".").collect()
}

fn cannot_open(dataset: &str, why: &dyn std::fmt::Display) -> Fail {
    Fail::new(format!("cannot open '{dataset}': {why}"))
}

/// Opens a head of this kind for changes to its contents: with its key, and its intent log replayed.
pub(super) fn open_head(dataset: &str, kind: Kind) -> Outcome<(Open, DatasetRef)> {
    let cannot = |why: &dyn std::fmt::Display| cannot_open(dataset, why);
    if dataset.contains(['@', '#']) {
        return Err(cannot(&"snapshots cannot be changed"));
    }
    let mut pool = session::open(dataset, For::Write)?;
    let head = pool.dsl.lookup_head(pool.io(), dataset);
    let head = head.map_err(|e| crate::zfs::cannot("open", dataset, &e))?;
    match pool.dsl.kind(pool.io(), head)? {
        is if is == kind => {}
        Kind::Volume => return Err(cannot(&"a volume has no files")),
        _ => return Err(cannot(&"a file system has files: its name, a colon and a path name one")),
    }
    if pool.dsl.dataset(pool.io(), head.obj)?.is_inconsistent() {
        return Err(cannot(&"it was received only in part"));
    }
    if pool.dsl.prop_number(pool.io(), head, "readonly")? != 0 {
        let what = if kind == Kind::Volume { "volume" } else { "file system" };
        return Err(cannot(&format!("the {what} is read-only (property readonly)")));
    }
    unlock(&mut pool, dataset, How { location: None, ask: Ask::Input, ..How::default() })
        .map_err(|f| Fail { message: cannot(&f.message).message, ..f })?;
    crate::replay::now(&mut pool).map_err(|e| cannot(&e))?;
    Ok((pool, head))
}

impl Target {
    pub fn open(dataset: &str) -> Outcome<Self> {
        let (mut pool, head) = open_head(dataset, Kind::Filesystem)?;
        let (io, dsl) = pool.parts();
        let writer = Writer::of_head(dsl, io, head).map_err(|e| cannot_open(dataset, &e))?;
        let mut target = Self { pool, dataset: head.obj, writer, bytes: 0, changes: 0 };
        target.drain()?;
        Ok(target)
    }

    /// Frees files without a name: those that a crash left, and large ones that were just removed. Not while somebody
    /// uses the file system, who may have them open.
    pub(super) fn drain(&mut self) -> Outcome {
        while !self.pool.dsl.busy().is(self.dataset) {
            if self.look(|w, os, io| w.drain(os, io, &|_| false))? {
                break;
            }
            self.commit()?;
        }
        Ok(())
    }

    /// Runs one change.
    pub(super) fn change<T>(
        &mut self,
        f: impl FnOnce(
            &mut Writer,
            &mut icecore_dmu::Objset,
            &mut dyn icecore_dmu::BlockWriter,
        ) -> icecore_zpl::Result<T>,
    ) -> Outcome<T> {
        self.changes += 1;
        self.look(f)
    }
    /// Asks something of the tree as it is by now.
    pub(super) fn look<T>(
        &mut self,
        f: impl FnOnce(
            &mut Writer,
            &mut icecore_dmu::Objset,
            &mut dyn icecore_dmu::BlockWriter,
        ) -> icecore_zpl::Result<T>,
    ) -> Outcome<T> {
        let (io, dsl) = self.pool.parts();
        let os = dsl.open_dataset(io, self.dataset)?;
        Ok(f(&mut self.writer, os, io)?)
    }

    /// Commits now and then, between whole files.
    pub(super) fn breathe(&mut self) -> Outcome {
        if self.bytes >= commit_bytes(&self.pool) || self.changes >= COMMIT_CHANGES {
            self.commit()?;
        }
        Ok(())
    }
    pub fn commit(&mut self) -> Outcome {
        (self.bytes, self.changes) = (0, 0);
        self.pool.commit()?;
        Ok(())
    }

    pub(super) fn child(&mut self, dir: ObjectId, name: &[u8]) -> Outcome<Option<ObjectId>> {
        self.look(|w, os, io| w.lookup(os, io, dir, name))
    }

    fn stat(&mut self, id: ObjectId) -> Outcome<Stat> {
        self.look(|w, os, io| w.stat(os, io, id))
    }

    /// The directory that the parts lead to; links are not followed.
    fn walk(&mut self, parts: &[&str]) -> Outcome<ObjectId> {
        let mut at = self.writer.root();
        for part in parts {
            if *part == ".." {
                return Err(Fail::new("'..' has no place in a path to be written"));
            }
            let found = self.child(at, part.as_bytes())?;
            at = found.ok_or_else(|| Fail::new(format!("{part}: no such file or directory")))?;
            if self.stat(at)?.kind != FileKind::Directory {
                return Err(Fail::new(format!("{part}: not a directory")));
            }
        }
        Ok(at)
    }

    fn make_dir(&mut self, dir: ObjectId, name: &[u8], mode: u32) -> Outcome<ObjectId> {
        let (uid, gid) = ids();
        let new = New { what: What::Directory, mode, uid, gid, now: now() };
        self.change(|w, os, io| w.create(os, io, dir, name, &new))
    }

    /// Removes a name and, if `deep`, what is below it.
    fn remove(&mut self, dir: ObjectId, name: &[u8], id: ObjectId, deep: bool) -> Outcome {
        if self.stat(id)?.kind != FileKind::Directory {
            return self.change(|w, os, io| w.unlink(os, io, dir, name, now()));
        }
        if !deep {
            return Err(Fail::new("is a directory (-r removes directories)"));
        }
        // Down to the leaves and up again; a directory is looked at anew after each that is removed below it.
        let mut open: Vec<(ObjectId, Vec<u8>, ObjectId)> = vec![(dir, name.to_vec(), id)];
        while let Some((parent, name, id)) = open.last().cloned() {
            let names = self.look(|_, os, io| Ok(icecore_dmu::zap::iter(os, io, id)?))?;
            let mut below = None;
            for e in names {
                let Some(child) = self.child(id, &e.name)? else { continue };
                if self.stat(child)?.kind == FileKind::Directory {
                    below = Some((id, e.name, child));
                    break;
                }
                self.change(|w, os, io| w.unlink(os, io, id, &e.name, now()))?;
                self.breathe()?;
            }
            match below {
                Some(next) => open.push(next),
                None => {
                    self.change(|w, os, io| w.rmdir(os, io, parent, &name, now()))?;
                    open.pop();
                }
            }
        }
        Ok(())
    }
}

fn ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Runs `one` for each operand, complaining and going on; commits what was done in the end.
fn each(
    command: &str,
    operands: &[String],
    usage: &str,
    mut one: impl FnMut(&mut Target, &str) -> Outcome,
) -> Outcome {
    if operands.is_empty() {
        return Err(Fail::usage("missing path", usage));
    }
    let mut failed = false;
    for operand in operands {
        let Some((dataset, path)) = split(operand) else {
            return Err(Fail::usage(format!("'{operand}' is not POOL/FS:PATH of an imported pool"), usage));
        };
        let mut target = Target::open(dataset)?;
        match one(&mut target, path) {
            Ok(()) => {
                target.commit()?;
                target.drain()?;
            }
            Err(f) => {
                complain(command, operand, &f.message);
                failed = true;
            }
        }
    }
    if failed { Err(Fail::said(1)) } else { Ok(()) }
}

pub fn mkdir(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('p', "parents")], MKDIR_USAGE)?;
    each("mkdir", &typed.operands, MKDIR_USAGE, |target, path| {
        let parts = name_in(path);
        let Some((last, above)) = parts.split_last() else { return Err(Fail::new("file exists")) };
        let mut dir = target.writer.root();
        if typed.has('p') {
            for part in &parts {
                dir = match target.child(dir, part.as_bytes())? {
                    Some(id) if target.stat(id)?.kind == FileKind::Directory => id,
                    Some(_) => return Err(Fail::new(format!("{part}: not a directory"))),
                    None => target.make_dir(dir, part.as_bytes(), 0o755)?,
                };
            }
            return Ok(());
        }
        dir = target.walk(above)?;
        target.make_dir(dir, last.as_bytes(), 0o755).map(drop)
    })
}

pub fn rm(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('r', "recursive"), flag('f', "force")], RM_USAGE)?;
    each("rm", &typed.operands, RM_USAGE, |target, path| {
        let parts = name_in(path);
        let Some((last, above)) = parts.split_last() else {
            return Err(Fail::new("the root of a dataset cannot be removed"));
        };
        let dir = target.walk(above)?;
        match target.child(dir, last.as_bytes())? {
            Some(id) => target.remove(dir, last.as_bytes(), id, typed.has('r')),
            None if typed.has('f') => Ok(()),
            None => Err(Fail::new(format!("{last}: no such file or directory"))),
        }
    })
}

pub fn import_tree(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[], IMPORT_USAGE)?;
    let [from, to] = typed.operands.as_slice() else {
        return Err(Fail::usage("a folder and a file system are needed", IMPORT_USAGE));
    };
    let (dataset, path) = split(to).unwrap_or((to, ""));
    crate::mounts::refuse(Path::new(from), session::pool_of(dataset))?;
    let mut target = Target::open(dataset)?;
    let dir = target.walk(&name_in(path))?;
    let mut copy = Copy::new(&mut target);
    copy.folder(Path::new(from), dir)?;
    copy.finish("import-tree")
}

/// `icecore cp SOURCE ... POOL/FS:PATH`.
pub fn cp(sources: &[String], dataset: &str, path: &str, recursive: bool) -> Outcome {
    for source in sources {
        if split(source).is_some() && std::fs::symlink_metadata(source).is_err() {
            return Err(Fail::new(format!(
                "cannot copy '{source}': files are not copied from one dataset into another\n\
                 copy it to this machine first, or mount one of the two ('zfs mount', 'icecore mount')"
            )));
        }
        crate::mounts::refuse(Path::new(source), session::pool_of(dataset))?;
    }
    let mut target = Target::open(dataset)?;
    let parts = name_in(path);
    // Into a directory that is there, or under a new name.
    let (dir, name) = match (target.walk(&parts), parts.split_last()) {
        (Ok(dir), _) => (dir, None),
        (Err(_), Some((last, above))) if sources.len() == 1 && !path.ends_with('/') => {
            (target.walk(above)?, Some(last.as_bytes().to_vec()))
        }
        (Err(f), _) => return Err(f),
    };
    let mut copy = Copy::new(&mut target);
    for source in sources {
        let source = Path::new(source);
        let own = source.file_name().map(|n| n.as_bytes().to_vec());
        let Some(name) = name.clone().or(own) else {
            return Err(Fail::new(format!("{}: has no name", source.display())));
        };
        let meta = if recursive { source.symlink_metadata() } else { source.metadata() };
        match meta {
            Ok(meta) if meta.is_dir() && !recursive => {
                copy.failed(source, &"is a directory (-r copies directories)");
            }
            Ok(meta) => copy.entry(source, &meta, dir, &name)?,
            Err(e) => copy.failed(source, &e),
        }
    }
    copy.finish("cp")
}
