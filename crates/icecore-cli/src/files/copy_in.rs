//! Files of this machine on their way into a dataset: `icecore import-tree`, and `cp` with a dataset as its destination.
//!
//! Invariants:
//! 1. What is there stays until its successor is whole; a file that could not be copied leaves nothing.
//! 2. What is the same is not written: neither contents, nor links, nor the attributes of files and folders.

use super::place::complain;
use super::put::{Target, now};
use super::xattrs;
use crate::fail::{Fail, Outcome};
use icecore_format::ObjectId;
use icecore_zpl::write::{Attributes, Change, New, What, Writer, XattrFlags};
use icecore_zpl::{FileKind, Time};
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes read at once.
const CHUNK: u64 = 8 << 20;

/// Files of this machine on their way into a dataset.
pub(super) struct Copy<'a> {
    target: &'a mut Target,
    /// Files of several names: device and number here, object there.
    linked: BTreeMap<(u64, u64), ObjectId>,
    /// Folders to be entered.
    folders: Vec<(PathBuf, ObjectId)>,
    /// Directories with the times they get once all below them is there.
    times: Vec<(ObjectId, Change)>,
    failures: u64,
}

fn time(seconds: i64, nanos: i64) -> Time {
    Time { seconds, nanos: u32::try_from(nanos).unwrap_or(0) }
}

fn change_of(meta: &Metadata) -> Change {
    Change {
        mode: Some(meta.mode() & 0o7777),
        uid: Some(meta.uid()),
        gid: Some(meta.gid()),
        atime: Some(time(meta.atime(), meta.atime_nsec())),
        mtime: Some(time(meta.mtime(), meta.mtime_nsec())),
    }
}

/// A device number as Linux's kernel has it.
fn device(rdev: u64) -> u64 {
    u64::from(rustix::fs::major(rdev)) << 20 | u64::from(rustix::fs::minor(rdev))
}

impl<'a> Copy<'a> {
    pub(super) fn new(target: &'a mut Target) -> Self {
        Self { target, linked: BTreeMap::new(), folders: Vec::new(), times: Vec::new(), failures: 0 }
    }
    pub(super) fn failed(&mut self, path: &Path, why: &dyn std::fmt::Display) {
        complain("cp", &path.display().to_string(), why);
        self.failures += 1;
    }

    /// Everything in a folder.
    pub(super) fn folder(&mut self, folder: &Path, dir: ObjectId) -> Outcome {
        let meta = std::fs::metadata(folder).map_err(|e| Fail::new(format!("{}: {e}", folder.display())))?;
        if !meta.is_dir() {
            return Err(Fail::new(format!("{}: not a directory", folder.display())));
        }
        self.dress(folder, &meta, dir)
    }

    pub(super) fn finish(mut self, command: &str) -> Outcome {
        while let Some((folder, dir)) = self.folders.pop() {
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(e) => {
                    self.failed(&folder, &e);
                    continue;
                }
            };
            for entry in entries {
                let entry = entry?;
                match entry.path().symlink_metadata() {
                    Ok(meta) => self.entry(&entry.path(), &meta, dir, entry.file_name().as_bytes())?,
                    Err(e) => self.failed(&entry.path(), &e),
                }
            }
        }
        for (dir, change) in std::mem::take(&mut self.times) {
            self.attributes(dir, &change)?;
            self.target.breathe()?;
        }
        self.target.commit()?;
        self.target.drain()?;
        if self.failures > 0 {
            eprintln!("icecore {command}: {} could not be copied", self.failures);
            return Err(Fail::said(1));
        }
        Ok(())
    }

    /// Gives a file the attributes it is to have, if it has others. The time of the last read alone is no reason.
    fn attributes(&mut self, id: ObjectId, change: &Change) -> Outcome {
        let has = self.target.look(|w, os, io| w.attributes(os, io, id))?;
        let same = change.mode.is_none_or(|m| m == has.mode)
            && change.uid.is_none_or(|u| u64::from(u) == has.uid)
            && change.gid.is_none_or(|g| u64::from(g) == has.gid)
            && change.mtime.is_none_or(|t| t == has.mtime);
        if same {
            return Ok(());
        }
        self.target.change(|w, os, io| w.set_attributes(os, io, id, change, now()))
    }

    /// Gives a file the extended attributes and access control lists of its source; those it has besides are taken away.
    fn xattrs(&mut self, path: &Path, id: ObjectId) -> Outcome {
        let options = self.target.writer.options();
        let wanted = match xattrs::of(path, options) {
            Ok(wanted) => wanted,
            Err(e) => {
                self.failed(path, &e);
                return Ok(());
            }
        };
        let has = self.target.look(|w, os, io| w.list_xattrs(os, io, id))?;
        let has: Vec<xattrs::Named> =
            has.into_iter().filter_map(|x| x.linux_name().map(|n| (n, x.value))).collect();
        let gone = has.iter().map(|(n, _)| n).filter(|n| xattrs::is_ours(n, options));
        let gone = gone.filter(|n| !wanted.iter().any(|(w, _)| w == *n)).map(|n| (n.clone(), None));
        let new = wanted.iter().filter(|pair| !has.contains(pair)).map(|(n, v)| (n.clone(), Some(v.clone())));
        for (name, value) in gone.chain(new) {
            let set =
                |w: &mut Writer, os: &mut icecore_dmu::Objset, io: &mut dyn icecore_dmu::BlockWriter| {
                    w.set_xattr(os, io, id, &name, value.as_deref(), XattrFlags::default(), now())
                };
            if let Err(f) = self.target.change(set) {
                self.failed(path, &format!("{}: {}", String::from_utf8_lossy(&name), f.message));
            }
        }
        Ok(())
    }

    /// Whether what is there needs no new contents.
    fn is_same(has: &Attributes, meta: &Metadata, what: &What) -> bool {
        match what {
            What::Regular => {
                let time = time(meta.mtime(), meta.mtime_nsec());
                has.kind == FileKind::Regular && has.size == meta.len() && has.mtime == time
            }
            What::Directory => has.kind == FileKind::Directory,
            What::Symlink(target) => has.kind == FileKind::Symlink && has.target == *target,
            What::Fifo => has.kind == FileKind::Fifo,
            What::Socket => has.kind == FileKind::Socket,
            What::CharDevice(n) => has.kind == FileKind::CharDevice && has.device == *n,
            What::BlockDevice(n) => has.kind == FileKind::BlockDevice && has.device == *n,
        }
    }

    /// One file or folder. What is there already and is the same is kept.
    pub(super) fn entry(&mut self, path: &Path, meta: &Metadata, dir: ObjectId, name: &[u8]) -> Outcome {
        let Some(what) = what(path, meta)? else {
            self.failed(path, &"neither file, folder, link, device, pipe nor socket");
            return Ok(());
        };
        let key = (meta.dev(), meta.ino());
        let several = meta.nlink() > 1 && !meta.is_dir();
        let first = self.linked.get(&key).copied().filter(|_| several);
        let here = self.target.child(dir, name)?;
        if let Some(id) = here {
            let has = self.target.look(|w, os, io| w.attributes(os, io, id))?;
            if Self::is_same(&has, meta, &what) && first.is_none_or(|k| k == id) {
                if several {
                    self.linked.insert(key, id);
                }
                return self.dress(path, meta, id);
            }
            if has.kind == FileKind::Directory || meta.is_dir() {
                self.failed(path, &"something of another kind has this name in the dataset");
                return Ok(());
            }
        }
        if let Some(first) = first {
            if here.is_some() {
                self.target.change(|w, os, io| w.unlink(os, io, dir, name, now()))?;
            }
            return self.target.change(|w, os, io| w.link(os, io, first, dir, name, now()));
        }
        let mut source = None;
        if meta.is_file() {
            // Only what can be read is begun.
            match open(path) {
                Ok(file) => source = Some(file),
                Err(e) => {
                    self.failed(path, &e);
                    return Ok(());
                }
            }
        }
        // What is there stays until the new file is whole; nothing is committed before.
        let made = match here {
            Some(_) => self.spare_name(dir)?,
            None => name.to_vec(),
        };
        let new = New { what, mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid(), now: now() };
        let id = match self.target.change(|w, os, io| w.create(os, io, dir, &made, &new)) {
            Ok(id) => id,
            Err(f) => {
                self.failed(path, &f.message);
                return Ok(());
            }
        };
        if let Some(file) = source
            && let Err(f) = self.contents(file, id)
        {
            self.failed(path, &f.message);
            return self.target.change(|w, os, io| w.unlink(os, io, dir, &made, now()));
        }
        if made != name {
            self.target.change(|w, os, io| w.rename(os, io, (dir, &made), (dir, name), now()))?;
        }
        if several {
            self.linked.insert(key, id);
        }
        self.dress(path, meta, id)?;
        self.target.breathe()
    }

    /// Extended attributes, attributes and times of a file whose contents are there; a folder is entered first.
    fn dress(&mut self, path: &Path, meta: &Metadata, id: ObjectId) -> Outcome {
        if !meta.is_symlink() {
            self.xattrs(path, id)?;
        }
        if meta.is_dir() {
            self.times.push((id, change_of(meta)));
            self.folders.push((path.to_path_buf(), id));
            return Ok(());
        }
        let mode = change_of(meta).mode.filter(|_| !meta.is_symlink());
        self.attributes(id, &Change { mode, ..change_of(meta) })
    }

    /// A name that nothing in `dir` has.
    fn spare_name(&mut self, dir: ObjectId) -> Outcome<Vec<u8>> {
        let mut n = 0_u64;
        loop {
            let name = format!(".icecore-{n}").into_bytes();
            if self.target.child(dir, &name)?.is_none() {
                return Ok(name);
            }
            n += 1;
        }
    }

    fn contents(&mut self, mut file: File, id: ObjectId) -> Outcome {
        let size = self.target.writer.record().max(CHUNK);
        let mut buf = vec![0; usize::try_from(size).unwrap_or(1 << 20)];
        let mut at = 0_u64;
        loop {
            let mut filled = 0;
            while let Some(rest) = buf.get_mut(filled..).filter(|r| !r.is_empty()) {
                match file.read(rest)? {
                    0 => break,
                    n => filled += n,
                }
            }
            let data = buf.get(..filled).unwrap_or(&[]);
            if data.is_empty() {
                return Ok(());
            }
            self.target.change(|w, os, io| w.write(os, io, id, at, data, now()))?;
            at += filled as u64;
            self.target.bytes += filled as u64;
        }
    }
}

fn what(path: &Path, meta: &Metadata) -> Outcome<Option<What>> {
    let kind = meta.file_type();
    Ok(Some(match () {
        () if kind.is_file() => What::Regular,
        () if kind.is_dir() => What::Directory,
        () if kind.is_symlink() => What::Symlink(std::fs::read_link(path)?.as_os_str().as_bytes().to_vec()),
        () if kind.is_fifo() => What::Fifo,
        () if kind.is_socket() => What::Socket,
        () if kind.is_char_device() => What::CharDevice(device(meta.rdev())),
        () if kind.is_block_device() => What::BlockDevice(device(meta.rdev())),
        () => return Ok(None),
    }))
}

/// The file itself, not what a link that took its place leads to.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(std::io::Error::other("it is no longer a file")),
    }
}
