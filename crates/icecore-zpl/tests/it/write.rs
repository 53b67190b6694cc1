//! Files written by us: a seeded walk over all operations against a model, read back by our readers after each commit
//! and judged by zdb; and what users can get wrong.

use icecore_check::fixture::{fixture_copy, tests_data};
use icecore_check::{zdb, zoo};
use icecore_env::{Access, Env, FileDevice};
use icecore_format::ObjectId;
use icecore_pool::{Host, Mode, OpenSpec, Pool};
use icecore_zpl::write::{Change, New, What, Writer};
use icecore_zpl::{Dataset, FileKind, Filesystem, Step, Time, Walk, ZplError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub struct Bench {
    pub dir: PathBuf,
    pub pool: Pool,
    pub writer: Writer,
    pub dataset: u64,
    now: i64,
    home: Option<ObjectId>,
}

fn open(image: &Path) -> Pool {
    let device = FileDevice::open(image, Access::Exclusive).unwrap();
    let spec = OpenSpec {
        devices: vec![Arc::new(device)],
        pool: None,
        mode: Mode::Write,
        force: false,
        host: Host { id: 0, name: "test".into() },
        max_txg: None,
    };
    let mut pool = Pool::open(Env::os(), spec).unwrap();
    zoo::load_keys(&mut pool, &tests_data());
    pool
}

impl Bench {
    /// A new file system in a copy of the repository's pool.
    pub fn new(name: &str, dataset: &str, props: &[(&str, &str)], record: u64) -> Self {
        let dir = std::env::temp_dir().join(format!("icecore-write-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let image = dir.join("main.img");
        fixture_copy("cold/main.img", &image);
        let mut pool = open(&image);
        let (io, dsl) = pool.parts();
        let head = dsl.create_filesystem(io, dataset, props).unwrap();
        if let Some(keys) = dsl.master_keys(io, head.dir).unwrap() {
            io.add_key(head.obj, keys);
        }
        pool.commit().unwrap();
        Self::over(dir, pool, head.obj, record)
    }
    /// A file system of the pool that OpenZFS had mounted, so that it accounts for its users.
    pub fn counted(name: &str, dataset: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("icecore-write-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        fixture_copy("cold/main.img", &dir.join("main.img"));
        let pool = open(&dir.join("main.img"));
        let head = pool.dsl.lookup_head(pool.io(), dataset).unwrap().obj;
        Self::over(dir, pool, head, 128 << 10)
    }
    fn over(dir: PathBuf, mut pool: Pool, dataset: u64, record: u64) -> Self {
        let (io, dsl) = pool.parts();
        let os = dsl.open_dataset(io, dataset).unwrap();
        let writer = Writer::open(io, os, record).unwrap();
        Self { dir, pool, writer, dataset, now: 1_700_000_000, home: None }
    }
    pub fn time(&mut self) -> Time {
        self.now += 1;
        Time { seconds: self.now, nanos: 5 }
    }
    pub fn fs(&self) -> Filesystem {
        match icecore_zpl::open_object(self.pool.io(), &self.pool.dsl, self.dataset).unwrap() {
            Dataset::Filesystem(fs) => *fs,
            Dataset::Volume(_) => panic!("a volume"),
        }
    }
    pub fn root(&self) -> ObjectId {
        self.home.unwrap_or(self.writer.root())
    }
    /// What counts as the root from now on.
    pub fn home(&mut self, dir: ObjectId) {
        self.home = Some(dir);
    }
    pub fn create(&mut self, dir: ObjectId, name: &str, what: What) -> Result<ObjectId, ZplError> {
        let now = self.time();
        let (io, dsl) = self.pool.parts();
        let os = dsl.open_dataset(io, self.dataset).unwrap();
        let mode = if what == What::Directory { 0o755 } else { 0o644 };
        self.writer.create(os, io, dir, name.as_bytes(), &New { what, mode, uid: 1000, gid: 100, now })
    }
    /// Any other operation.
    pub fn op<T>(
        &mut self,
        f: impl FnOnce(
            &mut Writer,
            &mut icecore_dmu::Objset,
            &mut dyn icecore_dmu::BlockWriter,
            Time,
        ) -> Result<T, ZplError>,
    ) -> Result<T, ZplError> {
        let now = self.time();
        let (io, dsl) = self.pool.parts();
        let os = dsl.open_dataset(io, self.dataset).unwrap();
        f(&mut self.writer, os, io, now)
    }
    pub fn judge(mut self) {
        self.pool.commit().unwrap();
        self.pool.export().unwrap();
        if zdb::zdb_available() {
            zdb::zdb_clean(&self.dir, "main").unwrap();
        }
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// What a path is in the model: a directory, a file by its number, a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Is {
    Dir,
    File(usize),
    Link(String),
}

/// The tree as it should be.
#[derive(Default)]
pub struct Model {
    pub names: BTreeMap<String, (Is, ObjectId)>,
    files: Vec<Vec<u8>>,
}

impl Model {
    fn children(&self, path: &str) -> impl Iterator<Item = (&String, &(Is, ObjectId))> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        self.names.iter().filter(move |(p, _)| {
            p.strip_prefix(prefix.as_str()).is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
        })
    }
    /// Compares everything with what our readers see of the committed pool.
    fn same(&self, bench: &Bench) {
        let (fs, io) = (bench.fs(), bench.pool.io());
        let mut walk = Walk::new(&fs, io, fs.znode(io, fs.root()).unwrap()).unwrap();
        let mut seen = 0;
        while let Some(step) = walk.next(&fs, io) {
            let (path, z) = match step {
                Step::File { path, znode } => (String::from_utf8(path).unwrap(), znode),
                Step::Leave { .. } => continue,
                Step::Failed { path, error } => panic!("{}: {error}", String::from_utf8_lossy(&path)),
            };
            seen += 1;
            let (is, id) = self.names.get(&path).unwrap_or_else(|| panic!("{path} should not be there"));
            assert_eq!(z.id, *id, "{path}");
            match is {
                Is::Dir => {
                    let (all, dirs) = self.children(&path).fold((0, 0), |(all, dirs), (_, (is, _))| {
                        (all + 1, dirs + u64::from(*is == Is::Dir))
                    });
                    assert_eq!((z.kind, z.size, z.links), (FileKind::Directory, all + 2, dirs + 2), "{path}");
                }
                Is::File(n) => {
                    let links = self.names.values().filter(|(i, _)| i == is).count() as u64;
                    assert_eq!((z.kind, z.links), (FileKind::Regular, links), "{path}");
                    let data = fs.content(&z).unwrap().read_all(fs.objset(), io, 1 << 30).unwrap();
                    assert!(data == self.files[*n], "{path}: {} bytes, {}", data.len(), self.files[*n].len());
                }
                Is::Link(target) => assert_eq!(fs.readlink(io, &z).unwrap(), target.as_bytes(), "{path}"),
            }
            let parent = path.rsplit_once('/').map_or(fs.root(), |(p, _)| self.names[p].1);
            // A file keeps the directory of the name it got last, also when that name goes (`zfs_link_destroy`).
            if *is == Is::Dir {
                assert_eq!(z.parent, parent, "{path}");
            }
        }
        assert_eq!(seen, self.names.len());
        let dirs = self.children("").filter(|(_, (is, _))| *is == Is::Dir).count() as u64;
        let root = fs.znode(io, fs.root()).unwrap();
        assert_eq!((root.size, root.links), (self.children("").count() as u64 + 2, dirs + 2));
    }
}

pub struct Dice(pub u64);
impl Dice {
    pub fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n.max(1)
    }
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.roll(from.len() as u64) as usize)
    }
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        match self.roll(3) {
            0 => vec![0; len],
            1 => vec![self.roll(255) as u8 + 1; len],
            _ => (0..len).map(|_| self.roll(256) as u8).collect(),
        }
    }
}

#[allow(clippy::too_many_lines)] // one arm an operation
pub fn step(b: &mut Bench, m: &mut Model, dice: &mut Dice, n: u64) {
    let paths: Vec<String> = m.names.keys().cloned().collect();
    let dirs: Vec<String> = std::iter::once(String::new())
        .chain(m.names.iter().filter(|(_, (is, _))| *is == Is::Dir).map(|(p, _)| p.clone()))
        .collect();
    let root = b.root();
    let id = |m: &Model, p: &str| if p.is_empty() { root } else { m.names[p].1 };
    let split = |m: &Model, p: &str| match p.rsplit_once('/') {
        Some((dir, name)) => (id(m, dir), name.to_string()),
        None => (root, p.to_string()),
    };
    let dir = dice.pick(&dirs).unwrap().clone();
    let long = if dice.roll(4) == 0 { "-with-a-name-that-no-micro-zap-has-room-for-at-all" } else { "" };
    let fresh = format!("n{n}{long}");
    let path = if dir.is_empty() { fresh.clone() } else { format!("{dir}/{fresh}") };
    let is_file = |m: &Model, p: &String| matches!(m.names[p].0, Is::File(_));
    match dice.roll(12) {
        0 | 1 => {
            let made = b.create(id(m, &dir), &fresh, What::Directory).unwrap();
            m.names.insert(path, (Is::Dir, made));
        }
        2..=4 => {
            let made = b.create(id(m, &dir), &fresh, What::Regular).unwrap();
            m.names.insert(path, (Is::File(m.files.len()), made));
            m.files.push(Vec::new());
        }
        5 => {
            let target = "t".repeat(1 + dice.roll(if n.is_multiple_of(3) { 3000 } else { 60 }) as usize);
            let made = b.create(id(m, &dir), &fresh, What::Symlink(target.clone().into_bytes())).unwrap();
            m.names.insert(path, (Is::Link(target), made));
        }
        6..=8 => {
            let files: Vec<&String> = paths.iter().filter(|p| is_file(m, p)).collect();
            let Some(p) = dice.pick(&files) else { return };
            let (Is::File(n), object) = m.names[*p].clone() else { return };
            let offset = dice.roll(3) * dice.roll(200_000);
            let shift = 4 + dice.roll(14);
            let len = 1 + dice.roll(1 << shift) as usize;
            let data = dice.bytes(len);
            b.op(|w, os, io, now| w.write(os, io, object, offset, &data, now)).unwrap();
            let (at, end) = (offset as usize, offset as usize + data.len());
            let file = &mut m.files[n];
            file.resize(file.len().max(end), 0);
            file[at..end].copy_from_slice(&data);
        }
        9 => {
            let files: Vec<&String> = paths.iter().filter(|p| is_file(m, p)).collect();
            let Some(p) = dice.pick(&files) else { return };
            let (Is::File(n), object) = m.names[*p].clone() else { return };
            if dice.roll(2) == 0 {
                let size = dice.roll(2) * dice.roll(300_000);
                b.op(|w, os, io, now| w.truncate(os, io, object, size, now)).unwrap();
                m.files[n].resize(size as usize, 0);
            } else {
                let (offset, len) = (dice.roll(200_000), dice.roll(200_000));
                b.op(|w, os, io, now| w.punch_hole(os, io, object, (offset, len), now)).unwrap();
                let size = m.files[n].len();
                let (from, to) = ((offset as usize).min(size), ((offset + len) as usize).min(size));
                m.files[n][from..to].fill(0);
            }
        }
        10 => {
            let Some(p) = dice.pick(&paths).cloned() else { return };
            let (parent, name) = split(m, &p);
            if m.names[&p].0 == Is::Dir {
                let empty = m.children(&p).next().is_none();
                let done = b.op(|w, os, io, now| w.rmdir(os, io, parent, name.as_bytes(), now));
                assert_eq!(done.is_ok(), empty, "{p}");
                if !empty {
                    assert!(matches!(done, Err(ZplError::NotEmpty(_))));
                    return;
                }
            } else if is_file(m, &p) && dice.roll(2) == 0 {
                let object = m.names[&p].1;
                let to = id(m, &dir);
                b.op(|w, os, io, now| w.link(os, io, object, to, fresh.as_bytes(), now)).unwrap();
                let same = m.names[&p].clone();
                m.names.insert(path, same);
                return;
            } else {
                b.op(|w, os, io, now| w.unlink(os, io, parent, name.as_bytes(), now)).unwrap();
            }
            m.names.remove(&p);
        }
        _ => {
            let Some(p) = dice.pick(&paths).cloned() else { return };
            let (parent, name) = split(m, &p);
            let to = id(m, &dir);
            let inside = dir == p || dir.starts_with(&format!("{p}/"));
            let moved = b.op(|w, os, io, now| {
                w.rename(os, io, (parent, name.as_bytes()), (to, fresh.as_bytes()), now)
            });
            assert_eq!(moved.is_err(), inside, "{p} to {path}: {moved:?}");
            if !inside {
                let below: Vec<String> =
                    m.names.keys().filter(|k| **k == p || k.starts_with(&format!("{p}/"))).cloned().collect();
                for old in below {
                    let is = m.names.remove(&old).unwrap();
                    m.names.insert(format!("{path}{}", &old[p.len()..]), is);
                }
            }
        }
    }
}

fn random_walk(name: &str, dataset: &str, props: &[(&str, &str)], record: u64, seed: u64) {
    let mut bench = Bench::new(name, dataset, props, record);
    let (mut model, mut dice) = (Model::default(), Dice(seed));
    for n in 0..400 {
        step(&mut bench, &mut model, &mut dice, n);
        if n % 40 == 39 {
            bench.pool.commit().unwrap();
            model.same(&bench);
        }
    }
    bench.pool.commit().unwrap();
    model.same(&bench);
    bench.judge();
}

#[test]
fn any_order_of_operations() {
    random_walk("plain", "main/new", &[("compression", "lz4")], 128 << 10, 1);
}

#[test]
fn any_order_with_small_records_uncompressed() {
    random_walk("small", "main/new", &[("compression", "off"), ("recordsize", "4k")], 4 << 10, 2);
}

#[test]
fn any_order_encrypted() {
    random_walk("crypt", "main/encrypted/new", &[], 128 << 10, 3);
}

#[test]
fn block_sizes_grow_as_openzfs_lets_them() {
    let mut b = Bench::new("grow", "main/new", &[("compression", "off")], 128 << 10);
    let root = b.root();
    let mut size_after = |writes: &[(u64, usize)]| {
        let name = format!("f{}", b.now);
        let id = b.create(root, &name, What::Regular).unwrap();
        for (offset, len) in writes {
            b.op(|w, os, io, now| w.write(os, io, id, *offset, &vec![7; *len], now)).unwrap();
        }
        b.pool.commit().unwrap();
        let fs = b.fs();
        fs.znode(b.pool.io(), id).unwrap().dnode().block_size()
    };
    assert_eq!(size_after(&[(0, 10)]), 512);
    assert_eq!(size_after(&[(0, 5000)]), 5120);
    assert_eq!(size_after(&[(0, 5000), (5000, 1)]), 5120);
    assert_eq!(size_after(&[(0, 100), (90_000, 100)]), 90_112);
    assert_eq!(size_after(&[(0, 131_072)]), 131_072);
    assert_eq!(size_after(&[(0, 10), (1 << 20, 10)]), 131_072);
    b.judge();
}

#[test]
fn attributes_as_set() {
    let mut b = Bench::new("attrs", "main/new", &[], 128 << 10);
    let root = b.root();
    let id = b.create(root, "file", What::Regular).unwrap();
    let device = b.create(root, "null", What::CharDevice(1 << 20 | 3)).unwrap();
    let t = Time { seconds: -5, nanos: 999_999_999 };
    let change = Change { mode: Some(0o4711), uid: Some(7), gid: Some(8), atime: Some(t), mtime: Some(t) };
    b.op(|w, os, io, now| w.set_attributes(os, io, id, &change, now)).unwrap();
    b.pool.commit().unwrap();
    let (fs, io) = (b.fs(), b.pool.io());
    let z = fs.znode(io, id).unwrap();
    assert_eq!((z.mode, z.uid, z.gid, z.atime, z.mtime), (0o104_711, 7, 8, t, t));
    assert_eq!(z.ctime.seconds, b.now);
    let acl: Vec<String> = fs.acl(io, &z).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(
        acl,
        [
            "owner@:rwxp--aARWcCos:-------:allow",
            "group@:--x---a-R-c--s:-------:allow",
            "everyone@:--x---a-R-c--s:-------:allow"
        ]
    );
    assert_eq!(fs.znode(io, device).unwrap().device(), (1, 3));
    b.judge();
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut b = Bench::new("refused", "main/new", &[], 128 << 10);
    let root = b.root();
    let dir = b.create(root, "dir", What::Directory).unwrap();
    let file = b.create(dir, "file", What::Regular).unwrap();
    b.pool.commit().unwrap();
    let err = |r: Result<ObjectId, ZplError>| r.unwrap_err().to_string();
    assert_eq!(err(b.create(root, "dir", What::Regular)), "dir: file exists");
    assert_eq!(err(b.create(root, "a/b", What::Regular)), "a/b: not a name a file can have");
    assert!(matches!(b.create(root, &"x".repeat(256), What::Regular), Err(ZplError::NameTooLong(_))));
    assert!(matches!(b.create(file, "x", What::Regular), Err(ZplError::NotDirectory(_))));
    assert!(matches!(b.create(root, "l", What::Symlink(Vec::new())), Err(ZplError::NameTooLong(_))));
    let refused = [
        b.op(|w, os, io, now| w.unlink(os, io, root, b"dir", now)),
        b.op(|w, os, io, now| w.rmdir(os, io, root, b"dir", now)),
        b.op(|w, os, io, now| w.rmdir(os, io, dir, b"file", now)),
        b.op(|w, os, io, now| w.unlink(os, io, root, b"none", now)),
        b.op(|w, os, io, now| w.link(os, io, dir, root, b"second", now)),
        b.op(|w, os, io, now| w.write(os, io, dir, 0, b"x", now)),
        b.op(|w, os, io, now| w.write(os, io, file, u64::MAX, b"x", now)),
        b.op(|w, os, io, now| w.truncate(os, io, file, u64::MAX, now)),
        b.op(|w, os, io, now| w.rename(os, io, (root, b"dir"), (dir, b"in"), now)),
        b.op(|w, os, io, now| w.rename(os, io, (dir, b"file"), (root, b"dir"), now)),
    ];
    for r in refused {
        assert!(r.is_err() && !matches!(r, Err(ZplError::Write(_) | ZplError::Corrupt(_))), "{r:?}");
    }
    assert!(!b.pool.dsl.is_dirty(), "nothing is to be written");
    b.judge();
}
