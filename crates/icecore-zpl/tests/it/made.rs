//! Old znodes, and what only a hostile pool has: loops, names that are paths, sizes and counts without end.

use icecore_check::files::{self, NewFile};
use icecore_dmu::mem::MemStore;
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockWriter, Form, NewBlock, NewObject, Objset, Policy, ReadError, Want};
use icecore_dsl::Who;
use icecore_dsl::zpl::{MASTER_NODE, ZplProps, create_empty};
use icecore_format::objset::ObjsetType;
use icecore_format::{Blkptr, Bookmark, Checksum, Compress, Dnode, ObjectId, ObjectType, Txg};
use icecore_zpl::{Content, FileKind, Filesystem, Follow, Step, Time, Walk, ZplError};
use zerocopy::IntoBytes;

struct Made {
    io: MemStore,
    os: Objset,
    root: ObjectId,
}

fn made() -> Made {
    let mut io = MemStore::default();
    let mut os = Objset::create(21, ObjsetType::Zfs, Policy::default(), Want::Logical);
    create_empty(&mut io, &mut os, &ZplProps::default(), Who::default(), (1_700_000_000, 0)).unwrap();
    let root = files::prepare(&mut os, &mut io).unwrap();
    Made { io, os, root }
}

impl Made {
    fn add(&mut self, dir: ObjectId, name: &str, file: &NewFile<'_>) -> ObjectId {
        files::add(&mut self.os, &mut self.io, dir, name, file).unwrap()
    }
    fn link(&mut self, dir: ObjectId, name: &str, to: ObjectId) {
        files::link(&mut self.os, &mut self.io, dir, name, to, 0o40755).unwrap();
    }
    fn fs(&self) -> Filesystem {
        Filesystem::open(&self.io, self.os.clone()).unwrap()
    }
    fn synced(mut self) -> Self {
        self.os.sync(&mut self.io).unwrap();
        self.io.advance();
        assert!(!self.os.is_dirty());
        self
    }
    /// Paths and failures of a walk from the root, sorted.
    fn walk(&self) -> (Vec<String>, Vec<String>) {
        let fs = self.fs();
        let mut walk = Walk::new(&fs, &self.io, fs.znode(&self.io, self.root).unwrap()).unwrap();
        let (mut paths, mut failed, mut left) = (Vec::new(), Vec::new(), 0);
        let mut directories = 1;
        while let Some(step) = walk.next(&fs, &self.io) {
            match step {
                Step::File { path, znode } => {
                    directories += usize::from(znode.kind == FileKind::Directory);
                    paths.push(String::from_utf8(path).unwrap());
                }
                Step::Leave { .. } => left += 1,
                Step::Failed { path, error } => {
                    failed.push(format!("{}: {error}", String::from_utf8(path).unwrap()));
                }
            }
        }
        assert_eq!(left, directories, "every directory told is left");
        paths.sort();
        failed.sort();
        (paths, failed)
    }
}

fn read(m: &Made, path: &str) -> Vec<u8> {
    let fs = m.fs();
    let file = fs.resolve(&m.io, path.as_bytes(), Follow::Last).unwrap();
    fs.content(&file.znode).unwrap().read_all(fs.objset(), &m.io, 1 << 20).unwrap()
}

/// The same answers from memory and from disk: reading sees what has not been synced yet.
#[test]
fn files_before_and_after_a_sync() {
    let mut m = made();
    let root = m.root;
    let dir = m.add(root, "dir", &NewFile::directory());
    m.add(dir, "a", &NewFile::regular(b"hello"));
    let mut holes = vec![0; 5000];
    holes[3000] = 7;
    m.add(dir, "holes", &NewFile { data: &holes, ..NewFile::default() });
    m.add(root, "link", &NewFile::symlink(b"./dir//a"));
    m.add(dir, "up", &NewFile::symlink(b"../dir/a"));
    for m in [&made_clone(&m), &m.synced()] {
        assert_eq!(
            m.walk(),
            (["dir", "dir/a", "dir/holes", "dir/up", "link"].map(String::from).into(), vec![])
        );
        assert_eq!(read(m, "dir/a"), b"hello");
        assert_eq!(read(m, "link"), b"hello");
        assert_eq!(read(m, "/dir/./up"), b"hello");
        assert_eq!(read(m, "dir/holes"), holes);
        let fs = m.fs();
        let z = fs.resolve(&m.io, b"dir/holes", Follow::Never).unwrap().znode;
        assert_eq!((z.size, z.links, z.uid, z.gid, z.mode), (5000, 1, 1000, 100, 0o100_644));
        assert_eq!(z.mtime, Time { seconds: 1_700_000_000, nanos: 2 });
        let mut content = fs.content(&z).unwrap();
        let extents = content.next_window(fs.objset(), &m.io).unwrap();
        assert!(content.next_window(fs.objset(), &m.io).unwrap().is_empty());
        if !fs.objset().is_dirty() {
            assert_eq!(extents.iter().map(|e| e.offset).collect::<Vec<_>>(), [2560]);
        }
    }
}

fn made_clone(m: &Made) -> Made {
    Made { io: m.io.clone(), os: m.os.clone(), root: m.root }
}

#[test]
fn wrong_paths_say_what_is_wrong() {
    let mut m = made();
    let root = m.root;
    let dir = m.add(root, "dir", &NewFile::directory());
    m.add(dir, "file", &NewFile::regular(b"x"));
    m.add(root, "loop", &NewFile::symlink(b"loop"));
    m.add(root, "out", &NewFile::symlink(b"../etc/passwd"));
    m.add(root, "absolute", &NewFile::symlink(b"/dir/file"));
    m.add(root, "dangling", &NewFile::symlink(b"dir/none"));
    let m = m.synced();
    let fs = m.fs();
    let error = |path: &str| fs.resolve(&m.io, path.as_bytes(), Follow::Last).map(|_| ()).unwrap_err();
    assert!(matches!(error("none"), ZplError::NotFound(p) if p == "none"));
    assert!(matches!(error("dir/none/x"), ZplError::NotFound(p) if p == "dir/none"));
    assert!(matches!(error("dir/file/x"), ZplError::NotDirectory(p) if p == "dir/file"));
    assert!(matches!(error("dir/file/"), ZplError::NotDirectory(_)));
    assert!(matches!(error("loop"), ZplError::TooManyLinks(_)));
    assert!(matches!(error("out"), ZplError::LeadsOut(p) if p == "out"));
    assert!(matches!(error("absolute"), ZplError::LeadsOut(_)));
    assert!(matches!(error("dir/../.."), ZplError::LeadsOut(_)));
    assert!(matches!(error("dangling"), ZplError::NotFound(p) if p == "dir/none"));
    for link in ["loop", "out", "absolute", "dangling"] {
        let z = fs.resolve(&m.io, link.as_bytes(), Follow::Never).unwrap().znode;
        assert_eq!(z.kind, FileKind::Symlink);
    }
    assert_eq!(fs.resolve(&m.io, b"", Follow::Last).unwrap().znode.id, m.root);
    assert_eq!(fs.resolve(&m.io, b"dir/..", Follow::Last).unwrap().names.len(), 0);
}

#[test]
fn directories_tied_in_a_knot_are_walked_once() {
    let mut m = made();
    let root = m.root;
    let a = m.add(root, "a", &NewFile::directory());
    let b = m.add(a, "b", &NewFile::directory());
    m.add(b, "file", &NewFile::regular(b"x"));
    m.link(b, "to-root", root);
    m.link(b, "to-itself", b);
    m.link(root, "b-again", b);
    let m = m.synced();
    let (paths, failed) = m.walk();
    assert_eq!(paths.iter().filter(|p| p.ends_with("file")).count(), 1);
    assert_eq!(failed.len(), 3);
    assert!(failed.iter().all(|f| f.contains("met under another name")), "{failed:?}");
}

/// Without the rule that a directory is entered once, this has 2^40 paths.
#[test]
fn a_lattice_of_directories_is_no_bomb() {
    let mut m = made();
    let mut dir = m.root;
    for _ in 0..40 {
        let next = m.add(dir, "left", &NewFile::directory());
        m.link(dir, "right", next);
        dir = next;
    }
    let (paths, failed) = m.synced().walk();
    assert_eq!((paths.len(), failed.len()), (80, 40));
}

#[test]
fn names_that_are_paths_are_told_and_not_handed_on() {
    let mut m = made();
    let root = m.root;
    m.add(root, "good", &NewFile::regular(b"x"));
    for name in ["..", ".", "../up", "/etc/passwd", "a/b"] {
        m.add(root, name, &NewFile::regular(b"evil"));
    }
    let (paths, failed) = m.synced().walk();
    assert_eq!(paths, ["good"]);
    assert_eq!(failed.len(), 5);
    assert!(failed.iter().all(|f| f.contains("not a name a file can have")), "{failed:?}");
}

#[test]
fn entries_that_lead_nowhere_fail_alone() {
    let mut m = made();
    let root = m.root;
    m.add(root, "good", &NewFile::regular(b"x"));
    m.link(root, "absent", ObjectId(900_000));
    m.link(root, "beyond", ObjectId((1 << 48) - 1));
    m.link(root, "meta", ObjectId(0));
    m.link(root, "master", MASTER_NODE);
    let odd = m.add(root, "mode", &NewFile { mode: 0o170_644, ..NewFile::regular(b"x") });
    assert!(odd.0 > 0);
    let m = m.synced();
    let (paths, failed) = m.walk();
    assert_eq!(paths, ["good"]);
    assert_eq!(failed.len(), 5, "{failed:?}");
    // A file that says it is a directory is none.
    let mut m = made();
    let root = m.root;
    let file = m.add(root, "file", &NewFile { mode: 0o40755, ..NewFile::directory() });
    m.os.edit(&m.io, file).unwrap().set_kind(ObjectType::PLAIN_FILE_CONTENTS);
    let (paths, failed) = m.synced().walk();
    assert_eq!(paths, ["file"]);
    assert!(failed[0].contains("its contents are of type"), "{failed:?}");
}

#[test]
fn sizes_without_end_cost_nothing() {
    let mut m = made();
    let root = m.root;
    let huge = NewFile { size: Some(u64::MAX), ..NewFile::regular(b"x") };
    m.add(root, "huge", &huge);
    m.add(root, "longlink", &NewFile { size: Some(u64::MAX), legacy: true, ..NewFile::symlink(b"x") });
    let m = m.synced();
    let fs = m.fs();
    let z = fs.resolve(&m.io, b"huge", Follow::Never).unwrap().znode;
    let mut content: Content = fs.content(&z).unwrap();
    let first = content.next_window(fs.objset(), &m.io).unwrap();
    assert_eq!((first.len(), first[0].bytes().len()), (1, 512));
    assert!(content.next_window(fs.objset(), &m.io).unwrap().is_empty());
    let all = fs.content(&z).unwrap().read_all(fs.objset(), &m.io, 1 << 20);
    assert!(matches!(all, Err(ZplError::TooLarge(_))));
    let z = fs.resolve(&m.io, b"longlink", Follow::Never).unwrap().znode;
    assert!(fs.readlink(&m.io, &z).is_err());
}

/// Eleven levels of indirect blocks, each 32 times the one below it, and no data under any: 32^11 steps for who counts.
#[test]
fn a_tree_without_leaves_is_damage_and_soon_found_so() {
    let mut m = made();
    let shape =
        NewObject { indblkshift: 12, nlevels: 12, ..NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, 512) };
    let id = m.os.allocate(&m.io, &shape).unwrap();
    let mut m = m.synced();
    let mut bp = Blkptr::hole(Txg(3), ObjectType::PLAIN_FILE_CONTENTS, 0, 512);
    for level in 1..12 {
        let new = NewBlock {
            at: Bookmark { objset: 21, object: id, level: level as i8, blkid: 0 },
            kind: ObjectType::PLAIN_FILE_CONTENTS,
            level,
            lsize: 4096,
            data: bp.as_bytes().repeat(32),
            form: Form::Logical { compress: Compress::OFF, level: 0, encrypt: false },
            checksum: Checksum::FLETCHER_4,
            copies: 1,
            fill: 1,
            may_embed: false,
            may_keep: false,
            old: Blkptr::default(),
        };
        bp = m.io.write_batch(vec![new]).unwrap()[0];
    }
    let mut dn = m.os.dnode(&m.io, id).unwrap();
    dn.set_blkptr(0, &bp);
    dn.set_maxblkid(u64::MAX);
    let scan = m.os.data_blocks(&m.io, id, &dn, 0, 10);
    assert!(matches!(scan, Err(ReadError::Corrupt(_))), "{scan:?}");
}

#[test]
fn data_blocks_between_holes() {
    let mut m = made();
    let shape = NewObject { indblkshift: 12, ..NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, 512) };
    let id = m.os.allocate(&m.io, &shape).unwrap();
    m.os.write(&m.io, id, 512 * 40, b"x").unwrap();
    m.os.write(&m.io, id, 512 * 3000, b"z").unwrap();
    let mut m = m.synced();
    let mut dn = m.os.dnode(&m.io, id).unwrap();
    let found = |m: &Made, dn: &Dnode, from, limit| -> Vec<(u64, bool)> {
        let blocks = m.os.data_blocks(&m.io, id, dn, from, limit).unwrap();
        blocks.iter().map(|b| (b.blkid, b.bp.is_some())).collect()
    };
    assert_eq!(dn.nlevels(), 3);
    assert_eq!(found(&m, &dn, 0, 10), [(40, true), (3000, true)]);
    assert_eq!(found(&m, &dn, 0, 1), [(40, true)]);
    assert_eq!(found(&m, &dn, 41, 10), [(3000, true)]);
    assert_eq!(found(&m, &dn, 3001, 10), []);
    assert_eq!(found(&m, &dn, u64::MAX, 10), []);
    dn.set_nlevels(4);
    assert!(m.os.data_blocks(&m.io, id, &dn, 0, 10).is_err(), "a pointer of another level is followed");
    // Changes in memory are seen, under holes too.
    dn.set_nlevels(3);
    m.os.write(&m.io, id, 512 * 3, b"y").unwrap();
    m.os.write(&m.io, id, 512 * 40, b"y").unwrap();
    assert_eq!(found(&m, &dn, 0, 10), [(3, false), (40, false), (3000, true)]);
    assert_eq!(found(&m, &dn, 0, 2), [(3, false), (40, false)]);
}

/// File systems of before system attributes.
#[test]
fn old_znodes() {
    let mut m = made();
    let root = m.root;
    let old = |file: NewFile<'static>| NewFile { legacy: true, ..file };
    let dir = m.add(root, "dir", &old(NewFile::directory()));
    m.add(dir, "file", &old(NewFile::regular(b"contents")));
    m.add(root, "short", &old(NewFile::symlink(b"dir/file")));
    let long: &'static [u8] = b"dir/././././././././././././././././././././././././././././././file";
    m.add(root, "long", &old(NewFile::symlink(long)));
    // Version 0: who, mask, flags, type. Version 1: type, flags, mask, who.
    let mut v0 = [&0_u64.to_le_bytes()[..], &1_u32.to_le_bytes(), &0_u16.to_le_bytes(), &[0; 2]].concat();
    v0.extend([&7_u32.to_le_bytes()[..], &1_u32.to_le_bytes(), &[0, 0, 1, 0]].concat());
    v0.resize(88, 0);
    m.add(root, "acl0", &NewFile { old_acl: Some(&v0), legacy: true, ..NewFile::regular(b"") });
    let aces = [&0_u16.to_le_bytes()[..], &0x1000_u16.to_le_bytes(), &3_u32.to_le_bytes()].concat();
    let shape = NewObject::plain(ObjectType::ACL, 512);
    let outside = m.os.allocate(&m.io, &shape).unwrap();
    m.os.write(&m.io, outside, 0, &aces).unwrap();
    let mut v1 = [&outside.0.to_le_bytes()[..], &8_u32.to_le_bytes(), &1_u16.to_le_bytes(), &[1, 0]].concat();
    v1.resize(88, 0);
    m.add(root, "acl1", &NewFile { old_acl: Some(&v1), legacy: true, ..NewFile::regular(b"") });
    let mut bad = v1.clone();
    bad[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    m.add(root, "acl-endless", &NewFile { old_acl: Some(&bad), legacy: true, ..NewFile::regular(b"") });
    // The version that has no SA_ATTRS; the root stays as it is, and is made anew as an old one.
    zap::update(&mut m.os, &mut m.io, MASTER_NODE, "VERSION", &ZapValue::u64(4)).unwrap();
    let old_root = files::object(&mut m.os, &mut m.io, root, &old(NewFile::directory())).unwrap();
    for e in zap::iter(&m.os, &m.io, root).unwrap() {
        zap::add(&mut m.os, &mut m.io, old_root, &e.name_str(), &e.value).unwrap();
    }
    zap::update(&mut m.os, &mut m.io, MASTER_NODE, "ROOT", &ZapValue::u64(old_root.0)).unwrap();
    m.root = old_root;
    let m = m.synced();
    let fs = m.fs();
    assert_eq!(fs.version(), 4);
    assert_eq!(read(&m, "dir/file"), b"contents");
    assert_eq!(read(&m, "short"), b"contents");
    assert_eq!(read(&m, "long"), b"contents");
    let z = |name: &str| fs.resolve(&m.io, name.as_bytes(), Follow::Never).unwrap().znode;
    assert_eq!(fs.readlink(&m.io, &z("long")).unwrap(), long);
    let file = z("dir/file");
    assert_eq!((file.uid, file.gid, file.size, file.generation), (1000, 100, 8, 5));
    assert_eq!(file.crtime, Time { seconds: 1_700_000_000, nanos: 4 });
    let acl =
        |name: &str| fs.acl(&m.io, &z(name)).map(|l| l.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(acl("acl0").unwrap(), ["user:7:r-------------:-------:deny"]);
    assert_eq!(acl("acl1").unwrap(), ["owner@:rw------------:-------:allow"]);
    assert!(matches!(acl("acl-endless"), Err(ZplError::TooLarge(_))));
    assert!(fs.xattrs(&m.io, &file).unwrap().is_empty());
}

#[test]
fn versions_we_do_not_know_are_refused() {
    for version in [0, 6, u64::MAX] {
        let mut m = made();
        zap::update(&mut m.os, &mut m.io, MASTER_NODE, "VERSION", &ZapValue::u64(version)).unwrap();
        let refused = Filesystem::open(&m.io, m.os.clone());
        assert!(matches!(refused.map(|_| ()), Err(ZplError::Unsupported(_))), "{version}");
    }
}

/// Every byte of a file's attributes turned over, one at a time: an answer or an error, never a panic.
#[test]
fn any_byte_of_a_bonus_may_be_wrong() {
    let mut m = made();
    let root = m.root;
    let link = m.add(root, "link", &NewFile::symlink(b"target"));
    let old = m.add(root, "old", &NewFile { legacy: true, ..NewFile::symlink(b"target") });
    let mut answers = 0;
    for id in [link, old] {
        let len = m.os.dnode(&m.io, id).unwrap().bonus().len();
        for at in 0..len {
            for bits in [0xff, 1, 0x80] {
                m.os.edit(&m.io, id).unwrap().bonus_mut()[at] ^= bits;
                let fs = m.fs();
                if let Ok(z) = fs.znode(&m.io, id) {
                    let _ = fs.readlink(&m.io, &z);
                    let _ = fs.acl(&m.io, &z);
                    let _ = fs.xattrs(&m.io, &z);
                    answers += 1;
                }
                m.os.edit(&m.io, id).unwrap().bonus_mut()[at] ^= bits;
            }
        }
    }
    assert!(answers > 500, "{answers}");
}
