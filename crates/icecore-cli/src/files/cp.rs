//! `icecore cp`: files out of a dataset into a folder of this machine (the other way: `put`, and `image` for volumes).
//!
//! Holes stay holes, symbolic and hard links stay links. With `-p` also owner, all of the mode, times and extended
//! attributes, as far as the system lets us: what it refuses is said once a kind, at the end.

use super::dest::{self, Done};
use super::place::{Place, Pools, complain};
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use icecore_pool::Io;
use icecore_zpl::{Content, Extent, FileKind, Filesystem, Follow, Step, Walk, Znode};
use rustix::fs::Mode;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

pub const USAGE: &str = "cp [-rp] POOL/FS[@SNAP][:PATH]|POOL/VOLUME[@SNAP] ... DEST\n\ticecore cp [-r] FILE ... POOL/FS:PATH\n\ticecore cp [--offset BYTES] FILE POOL/VOLUME";

/// Bytes of small files that are read at once.
const AHEAD_BYTES: u64 = 16 << 20;

pub fn run(args: &[String]) -> Outcome {
    let known = [
        flag('r', "recursive"),
        flag('R', ""),
        flag('p', "preserve"),
        flag('a', "archive"),
        value('o', "offset"),
    ];
    let typed = Typed::parse(args, &known, USAGE)?;
    let Some((dest, sources)) = typed.operands.split_last().filter(|(_, s)| !s.is_empty()) else {
        return Err(Fail::usage("a source and a destination are needed", USAGE));
    };
    let recursive = typed.has('r') || typed.has('R') || typed.has('a');
    let preserve = typed.has('p') || typed.has('a');
    if let Some(volume) = image_target(sources, dest) {
        let [source] = sources else {
            return Err(Fail::usage("a volume takes one file", USAGE));
        };
        let offset = typed.value('o').map_or(Ok(0), icecore_dsl::prop::size);
        let offset = offset.map_err(|e| Fail::usage(format!("bad offset: {e}"), USAGE))?;
        return super::image::cp(Path::new(source), volume, offset);
    }
    if typed.has('o') {
        return Err(Fail::usage("--offset is for a file that is copied into a volume", USAGE));
    }
    if let Some((dataset, path)) = super::put::split(dest) {
        return super::put::cp(sources, dataset, path, recursive);
    }
    for source in sources {
        crate::mounts::refuse(Path::new(dest), pool_in(source))?;
    }
    let target = Target::find(dest, sources.len())?;
    // A directory in depth is an open file.
    crate::limits::raise_files();
    let mut pools = Pools::default();
    let mut failed = false;
    for source in sources {
        let place = pools.place(source)?;
        let io = pools.io(&place)?;
        let name = target.name_for(&place);
        let outcome = match place.volume()? {
            Some(volume) => copy_volume(io, volume.objset(), volume.content(), target.fd.as_fd(), &name),
            None => {
                let mut copy = Copy::new(io, place.filesystem()?, &target, preserve);
                let outcome = copy.place(&place, recursive, &name);
                failed |= copy.report();
                outcome
            }
        };
        if let Err(f) = outcome {
            complain("cp", source, &f.message);
            failed = true;
        }
    }
    if failed { Err(Fail::said(1)) } else { Ok(()) }
}

/// The volume that `dest` names, if files of this machine are to be written into one.
fn image_target<'a>(sources: &[String], dest: &'a str) -> Option<&'a str> {
    let known = |typed: &str| crate::state::find(pool_in(typed)).ok().flatten().is_some();
    (!sources.iter().any(|s| known(s)) && super::image::is_target(dest)).then_some(dest)
}

/// The pool's name in `POOL/FS[@SNAP][:PATH]`.
fn pool_in(typed: &str) -> &str {
    crate::session::pool_of(typed).split(':').next().unwrap_or("")
}

/// Where copies go: names in an open directory.
struct Target {
    fd: OwnedFd,
    /// The name of the one copy, if the destination was not a directory.
    name: Option<Vec<u8>>,
}

impl Target {
    fn find(dest: &str, sources: usize) -> Outcome<Self> {
        let say = |e: rustix::io::Errno| Fail::new(format!("cannot copy to '{dest}': {e}"));
        match dest::open_typed(dest) {
            Ok(fd) => return Ok(Self { fd, name: None }),
            Err(e) if sources > 1 || dest.ends_with('/') => return Err(say(e)),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
            Err(e) => return Err(say(e)),
        }
        let (dir, name) = dest.rsplit_once('/').unwrap_or((".", dest));
        let dir = if dir.is_empty() { "/" } else { dir };
        let fd = dest::open_typed(dir).map_err(say)?;
        Ok(Self { fd, name: Some(name.as_bytes().to_vec()) })
    }
    /// The last part of the path, or of the dataset's name for its root.
    fn name_for(&self, place: &Place) -> Vec<u8> {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let dataset = place.dataset.split('@').next().unwrap_or(&place.dataset);
        let own = place.path.rsplit('/').find(|p| !p.is_empty()).filter(|p| !matches!(*p, "." | ".."));
        own.or_else(|| dataset.rsplit('/').next()).unwrap_or(dataset).as_bytes().to_vec()
    }
}

fn copy_volume(
    io: &Io,
    os: &icecore_dmu::Objset,
    content: Content,
    parent: BorrowedFd<'_>,
    name: &[u8],
) -> Outcome {
    let file = dest::file(parent, name)?;
    fill(io, os, content, &file)?;
    dest::set_mode(&file, 0o600, Some(Mode::empty()))?;
    Ok(())
}

fn fill(io: &Io, os: &icecore_dmu::Objset, mut content: Content, to: &File) -> Outcome {
    loop {
        let window = content.next_window(os, io)?;
        if window.is_empty() {
            to.set_len(content.size())?;
            return Ok(());
        }
        for e in &window {
            to.write_all_at(e.bytes(), e.offset)?;
        }
    }
}

/// A regular file of one block at most.
fn is_small(z: &Znode) -> bool {
    z.kind == FileKind::Regular && z.size <= z.dnode().block_size()
}

type Read = icecore_zpl::Result<Vec<Extent>>;

struct Copy<'a> {
    io: &'a Io,
    fs: &'a Filesystem,
    top: BorrowedFd<'a>,
    preserve: bool,
    umask: Option<Mode>,
    /// Where files of several names were copied first.
    first: BTreeMap<u64, Vec<u8>>,
    /// Small files read before their turn.
    ahead: BTreeMap<u64, Option<Read>>,
    failures: u64,
    /// What could not be kept: kind, and how often.
    lost: BTreeMap<(&'static str, String), u64>,
}

impl<'a> Copy<'a> {
    fn new(io: &'a Io, fs: &'a Filesystem, target: &'a Target, preserve: bool) -> Self {
        let mask = rustix::process::umask(Mode::empty());
        rustix::process::umask(mask);
        Self {
            io,
            fs,
            top: target.fd.as_fd(),
            preserve,
            umask: (!preserve).then_some(mask),
            first: BTreeMap::new(),
            ahead: BTreeMap::new(),
            failures: 0,
            lost: BTreeMap::new(),
        }
    }

    fn place(&mut self, place: &Place, recursive: bool, name: &[u8]) -> Outcome {
        // Without -r a link stands for its file, as with cp.
        let follow = if recursive { Follow::Never } else { Follow::Last };
        let z = place.resolve(self.io, follow)?.znode;
        match z.kind {
            FileKind::Directory if recursive => self.tree(z, name),
            FileKind::Directory => Err(Fail::new("is a directory (-r copies directories)")),
            _ => self.file(self.top, name, name, &z, None),
        }
    }

    /// Says what was left behind; true if files were.
    fn report(&mut self) -> bool {
        for ((what, why), n) in &self.lost {
            eprintln!("icecore cp: {what} of {n} {} not kept: {why}", if *n == 1 { "file" } else { "files" });
        }
        self.failures > 0
    }

    fn failed(&mut self, path: &[u8], why: &dyn std::fmt::Display) {
        complain("cp", &String::from_utf8_lossy(path), why);
        self.failures += 1;
    }

    fn keep(&mut self, what: &'static str, done: Done) {
        if let Err(e) = done {
            *self.lost.entry((what, e.to_string())).or_default() += 1;
        }
    }

    fn tree(&mut self, top: Znode, name: &[u8]) -> Outcome {
        // Directories from the top down to the present one; none where one could not be made.
        let mut open = vec![Some(dest::directory(self.top, name)?)];
        let mut walk = Walk::new(self.fs, self.io, top)?;
        while let Some(step) = walk.next(self.fs, self.io) {
            match step {
                Step::File { path, znode } => {
                    let Some(Some(parent)) = open.last() else { continue };
                    let own = path.rsplit(|b| *b == b'/').next().unwrap_or(&path);
                    let full = [name, b"/", &path].concat();
                    if znode.kind != FileKind::Directory {
                        let parent = parent.as_fd();
                        if let Err(f) = self.file(parent, own, &full, &znode, Some(&walk)) {
                            self.failed(&full, &f.message);
                        }
                        continue;
                    }
                    match dest::directory(parent.as_fd(), own) {
                        Ok(fd) => open.push(Some(fd)),
                        Err(e) => {
                            walk.skip();
                            self.failed(&full, &e);
                        }
                    }
                }
                Step::Leave { path, znode } => {
                    if let Some(fd) = open.pop().flatten()
                        && let Err(f) = self.finish(&fd, &znode)
                    {
                        self.failed(&[name, b"/", &path].concat(), &f.message);
                    }
                }
                Step::Failed { path, error } => self.failed(&[name, b"/", &path].concat(), &error),
            }
        }
        Ok(())
    }

    /// Owner, mode, attributes and times of what is open, in the order in which one does not undo another.
    fn finish(&mut self, fd: impl AsFd, z: &Znode) -> Outcome {
        let mut mode = z.mode;
        if self.preserve {
            let owner = dest::set_owner(&fd, Filesystem::posix_id(z.uid), Filesystem::posix_id(z.gid));
            if owner.is_err() {
                mode &= 0o1777; // what would run as someone must not run as us
            }
            self.keep("owner", owner);
        }
        dest::set_mode(&fd, mode, self.umask)?;
        if self.preserve {
            for x in self.fs.xattrs(self.io, z)? {
                self.keep("extended attributes", dest::set_xattr(&fd, &x));
            }
            self.keep("times", dest::set_times(&fd, z));
        }
        Ok(())
    }

    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        full: &[u8],
        z: &Znode,
        walk: Option<&Walk>,
    ) -> Outcome {
        if z.links > 1 {
            if let Some(first) = self.first.get(&z.id.0) {
                return Ok(dest::hard_link(self.top, first, parent, name)?);
            }
            self.first.insert(z.id.0, full.to_vec());
        }
        let made = match z.kind {
            FileKind::Regular => self.regular(parent, name, z, walk),
            FileKind::Symlink => {
                let target = self.fs.readlink(self.io, z)?;
                dest::symlink(parent, name, &target)?;
                self.finish_at(parent, name, z)
            }
            _ => {
                dest::special(parent, name, z)?;
                self.finish_at(parent, name, z)
            }
        };
        if made.is_err() {
            self.first.remove(&z.id.0);
        }
        made
    }

    fn finish_at(&mut self, parent: BorrowedFd<'_>, name: &[u8], z: &Znode) -> Outcome {
        if self.preserve {
            let (uid, gid) = (Filesystem::posix_id(z.uid), Filesystem::posix_id(z.gid));
            self.keep("owner", dest::set_owner_at(parent, name, uid, gid));
        }
        if z.kind != FileKind::Symlink {
            dest::set_mode_at(parent, name, z.mode, self.umask)?;
        }
        if self.preserve {
            self.keep("times", dest::set_times_at(parent, name, z));
        }
        Ok(())
    }

    fn regular(&mut self, parent: BorrowedFd<'_>, name: &[u8], z: &Znode, walk: Option<&Walk>) -> Outcome {
        if is_small(z) && !self.ahead.contains_key(&z.id.0) {
            self.read_ahead(z, walk);
        }
        let read = self.ahead.remove(&z.id.0).flatten();
        // Only what can be read is begun.
        let small = read.transpose()?;
        let file = dest::file(parent, name)?;
        match small {
            Some(extents) => {
                for e in &extents {
                    file.write_all_at(e.bytes(), e.offset)?;
                }
                let end = extents.last().map_or(0, |e| e.offset + e.bytes().len() as u64);
                if end != z.size {
                    file.set_len(z.size)?;
                }
            }
            None => fill(self.io, self.fs.objset(), self.fs.content(z)?, &file)?,
        }
        self.finish(&file, z)
    }

    /// Reads this file and those that come next, as far as they are small.
    fn read_ahead(&mut self, z: &Znode, walk: Option<&Walk>) {
        let mut files = vec![z];
        let mut left = AHEAD_BYTES.saturating_sub(z.dnode().block_size());
        for next in walk.into_iter().flat_map(Walk::ahead) {
            let bytes = next.dnode().block_size();
            if !is_small(next) {
                continue;
            }
            if bytes > left {
                break;
            }
            left -= bytes;
            files.push(next);
        }
        let read = self.fs.contents_small(self.io, &files);
        self.ahead = files.iter().map(|f| f.id.0).zip(read).collect();
    }
}
