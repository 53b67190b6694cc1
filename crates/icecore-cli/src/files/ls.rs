//! `icecore ls`.

use super::out::Out;
use super::place::{Place, Pools, complain};
use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use icecore_pool::Io;
use icecore_zpl::{FileKind, Filesystem, Follow, Step, Time, Walk, Znode};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;

pub const USAGE: &str = "ls [-adilRX] [--json] POOL/FS[@SNAP][:PATH] ...";

#[derive(Clone, Copy)]
struct Query {
    /// Names that begin with a dot too.
    all: bool,
    /// Directories themselves, not what is in them.
    directory: bool,
    inode: bool,
    long: bool,
    recursive: bool,
    /// Extended attributes and access control lists below each file.
    attributes: bool,
    json: bool,
}

pub fn run(args: &[String]) -> Outcome {
    let known = [
        flag('a', "all"),
        flag('d', "directory"),
        flag('i', "inode"),
        flag('l', ""),
        flag('R', "recursive"),
        flag('X', "attributes"),
        flag('1', ""),
        flag('j', "json"),
    ];
    let typed = Typed::parse(args, &known, USAGE)?;
    if typed.operands.is_empty() {
        return Err(Fail::usage("missing dataset", USAGE));
    }
    let query = Query {
        all: typed.has('a'),
        directory: typed.has('d'),
        inode: typed.has('i'),
        long: typed.has('l'),
        recursive: typed.has('R'),
        attributes: typed.has('X'),
        json: typed.has('j'),
    };
    let mut pools = Pools::default();
    let mut out = Out::new()?;
    let mut failed = false;
    let many = typed.operands.len() > 1;
    for (i, operand) in typed.operands.iter().enumerate() {
        let place = pools.place(operand)?;
        let (io, fs, told) = (pools.io(&place)?, place.filesystem()?, BTreeSet::new());
        let mut list = List { query, io, fs, out: &mut out, fine: true, told };
        let outcome = list.place(&place, many, i > 0);
        failed |= !list.fine;
        match outcome {
            Err(f) if !f.message.is_empty() => {
                complain("ls", operand, &f.message);
                failed = true;
            }
            other => other?,
        }
    }
    out.finish()?;
    if failed { Err(Fail::said(1)) } else { Ok(()) }
}

struct List<'a> {
    query: Query,
    io: &'a Io,
    fs: &'a Filesystem,
    out: &'a mut Out,
    fine: bool,
    /// Paths that failed and were told.
    told: BTreeSet<Vec<u8>>,
}

impl List<'_> {
    fn place(&mut self, place: &Place, titled: bool, blank: bool) -> Outcome {
        let follow = if self.query.long || self.query.directory { Follow::Never } else { Follow::Last };
        let found = place.resolve(self.io, follow)?;
        if found.znode.kind != FileKind::Directory || self.query.directory {
            return self.file(place.typed.as_bytes(), &found.path(), &found.znode);
        }
        let top = found.path();
        if !self.query.recursive {
            if titled && !self.query.json {
                self.title(place.typed.as_bytes(), blank)?;
            }
            return self.directory(&top, found.znode);
        }
        // Each directory under its name, as met.
        let mut todo = vec![(place.typed.as_bytes().to_vec(), top.clone(), found.znode.clone())];
        let prefix = place.prefix();
        let mut walk = Walk::new(self.fs, self.io, found.znode)?;
        while let Some(step) = walk.next(self.fs, self.io) {
            match step {
                Step::File { path, znode } if znode.kind == FileKind::Directory => {
                    if !self.query.all && hidden(last(&path)) {
                        walk.skip();
                        continue;
                    }
                    todo.push(([prefix.as_bytes(), &path].concat(), join(&top, &path), *znode));
                }
                Step::File { .. } | Step::Leave { .. } => {}
                Step::Failed { path, error } => self.failed(&join(&top, &path), &error),
            }
        }
        todo.sort_by(|a, b| a.0.split(|c| *c == b'/').cmp(b.0.split(|c| *c == b'/')));
        for (i, (shown, path, dir)) in todo.into_iter().enumerate() {
            if !self.query.json {
                self.title(&shown, blank || i > 0)?;
            }
            self.directory(&path, dir)?;
        }
        Ok(())
    }

    fn title(&mut self, name: &[u8], blank: bool) -> Outcome {
        if blank {
            self.out.bytes(b"\n")?;
        }
        self.out.name(name)?;
        self.out.bytes(b":\n")
    }

    /// Each path once: a tree is gone through twice.
    fn failed(&mut self, path: &[u8], why: &dyn std::fmt::Display) {
        self.fine = false;
        if self.told.insert(path.to_vec()) {
            let shown = if path.is_empty() { "/".into() } else { String::from_utf8_lossy(path) };
            complain("ls", &shown, why);
        }
    }

    /// All names of a directory in the order of their bytes.
    fn directory(&mut self, path: &[u8], dir: Znode) -> Outcome {
        let mut cursor = self.fs.entries(self.io, &dir)?;
        let mut entries = Vec::new();
        loop {
            match cursor.next_batch(self.fs, self.io) {
                Ok(Some(batch)) => {
                    entries.extend(batch.into_iter().filter(|e| self.query.all || !hidden(&e.name)));
                }
                Ok(None) => break,
                Err(error) if error.is_damage() => self.failed(path, &error),
                Err(error) => return Err(error.into()),
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let plain = !(self.query.long || self.query.json || self.query.attributes);
        for part in entries.chunks(256) {
            if plain {
                for e in part {
                    self.inode(e.object.0)?;
                    self.out.name(&e.name)?;
                    self.out.bytes(b"\n")?;
                }
                continue;
            }
            let ids: Vec<_> = part.iter().map(|e| e.object).collect();
            for (e, z) in part.iter().zip(self.fs.znodes(self.io, &ids)) {
                let full = join(path, &e.name);
                match z {
                    Ok(z) => self.file(&e.name, &full, &z)?,
                    Err(error) => self.failed(&full, &error),
                }
            }
        }
        Ok(())
    }

    fn inode(&mut self, id: u64) -> Outcome {
        if self.query.inode { self.out.bytes(format!("{id:>7} ").as_bytes()) } else { Ok(()) }
    }

    fn file(&mut self, name: &[u8], path: &[u8], z: &Znode) -> Outcome {
        if self.query.json {
            let line = match self.describe(path, z) {
                Ok(value) => value.to_string(),
                Err(error) => {
                    self.failed(path, &error);
                    return Ok(());
                }
            };
            self.out.bytes(line.as_bytes())?;
            return self.out.bytes(b"\n");
        }
        self.inode(z.id.0)?;
        if self.query.long {
            self.out.bytes(long(z).as_bytes())?;
        }
        self.out.name(name)?;
        if self.query.long && z.kind == FileKind::Symlink {
            match self.fs.readlink(self.io, z) {
                Ok(target) => {
                    self.out.bytes(b" -> ")?;
                    self.out.name(&target)?;
                }
                Err(error) => self.failed(path, &error),
            }
        }
        self.out.bytes(b"\n")?;
        if self.query.attributes {
            self.attributes(path, z)?;
        }
        Ok(())
    }

    fn attributes(&mut self, path: &[u8], z: &Znode) -> Outcome {
        match self.fs.acl(self.io, z) {
            Ok(acl) if !z.flags.has_trivial_acl() => {
                for ace in acl {
                    self.out.bytes(format!("\t{ace}\n").as_bytes())?;
                }
            }
            Ok(_) => {}
            Err(error) => self.failed(path, &error),
        }
        match self.fs.xattrs(self.io, z) {
            Ok(all) => {
                for x in all {
                    self.out.bytes(b"\t")?;
                    self.out.name(&x.linux_name().unwrap_or(x.name))?;
                    self.out.bytes(format!("\t{}\n", x.value.len()).as_bytes())?;
                }
            }
            Err(error) => self.failed(path, &error),
        }
        Ok(())
    }

    /// A file as one line of JSON; with `-l` also what takes further reading.
    fn describe(&self, path: &[u8], z: &Znode) -> icecore_zpl::Result<Value> {
        let mut o = Map::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        o.insert("path".into(), json!(text(path)));
        if std::str::from_utf8(path).is_err() {
            o.insert("path_hex".into(), json!(hex(path)));
        }
        o.insert("object".into(), json!(z.id.0));
        o.insert("type".into(), json!(z.kind.find_letter()));
        o.insert("mode".into(), json!(format!("{:04o}", z.mode & 0o7777)));
        o.insert("uid".into(), json!(Filesystem::posix_id(z.uid)));
        o.insert("gid".into(), json!(Filesystem::posix_id(z.gid)));
        o.insert("size".into(), json!(z.size));
        o.insert("allocated".into(), json!(z.allocated()));
        o.insert("links".into(), json!(z.links));
        o.insert("generation".into(), json!(z.generation));
        for (name, t) in [("atime", z.atime), ("mtime", z.mtime), ("ctime", z.ctime), ("crtime", z.crtime)] {
            o.insert(name.into(), json!({ "seconds": t.seconds, "nanoseconds": t.nanos }));
        }
        if matches!(z.kind, FileKind::CharDevice | FileKind::BlockDevice) {
            o.insert("device".into(), json!(z.device()));
        }
        if let Some(project) = z.project {
            o.insert("project".into(), json!(project));
        }
        let flags: Vec<&str> = z.flags.names().collect();
        if !flags.is_empty() {
            o.insert("flags".into(), json!(flags));
        }
        if z.kind == FileKind::Symlink {
            o.insert("target".into(), json!(text(&self.fs.readlink(self.io, z)?)));
        }
        if self.query.long || self.query.attributes {
            let acl: Vec<String> = self.fs.acl(self.io, z)?.iter().map(ToString::to_string).collect();
            o.insert("acl".into(), json!(acl));
            let mut xattrs = Map::new();
            for x in self.fs.xattrs(self.io, z)? {
                xattrs.insert(text(&x.linux_name().unwrap_or(x.name)), json!(hex(&x.value)));
            }
            o.insert("xattrs_hex".into(), Value::Object(xattrs));
        }
        Ok(Value::Object(o))
    }
}

fn hidden(name: &[u8]) -> bool {
    name.starts_with(b".")
}
fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|b| *b == b'/').next().unwrap_or(path)
}
fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}
fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        let _ = write!(out, "{b:02x}");
    }
    out
}

/// `drwxr-sr-t+ links uid gid size time `.
fn long(z: &Znode) -> String {
    let size = match z.kind {
        FileKind::CharDevice | FileKind::BlockDevice => {
            let (major, minor) = z.device();
            format!("{major}, {minor}")
        }
        _ => z.size.to_string(),
    };
    let acl = if z.flags.has_trivial_acl() { ' ' } else { '+' };
    let (uid, gid) = (Filesystem::posix_id(z.uid), Filesystem::posix_id(z.gid));
    format!("{}{acl}{:>3} {uid:>5} {gid:>5} {size:>12} {} ", mode(z), z.links, time(z.mtime))
}

fn mode(z: &Znode) -> String {
    let mut out = String::from(z.kind.ls_letter());
    for (shift, special, with, without) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = z.mode >> shift;
        out.push(if bits & 4 != 0 { 'r' } else { '-' });
        out.push(if bits & 2 != 0 { 'w' } else { '-' });
        out.push(match (z.mode & special != 0, bits & 1 != 0) {
            (true, true) => with,
            (true, false) => without,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    out
}

fn time(t: Time) -> String {
    match jiff::Timestamp::from_second(t.seconds) {
        Ok(at) => at.to_zoned(crate::caller::time_zone()).strftime("%Y-%m-%d %H:%M").to_string(),
        Err(_) => t.seconds.to_string(),
    }
}
