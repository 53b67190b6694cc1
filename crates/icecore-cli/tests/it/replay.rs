//! Intent logs: claimed and replayed when a pool is imported for writing.
//!
//! The logs of the first tests are written here, block by block, as OpenZFS lays them out (zil.h); that of the last one was
//! left by OpenZFS when its machine lost power.

use crate::support::Desk;
use icecore_check::fixture::zoo;
use icecore_check::zdb;
use icecore_dmu::{BlockStore, Objset};
use icecore_env::{Access, Device, Env, FileDevice};
use icecore_format::zil::ZilHeaderPhys;
use icecore_format::{Blkptr, Checksum, Compress, Dva, ObjectType, Txg};
use icecore_pool::leaks::{balance, metaslabs};
use icecore_pool::{Host, Mode, OpenSpec, Pool};
use icecore_transform::checksum::embedded::zil_seal;
use icecore_zpl::{Dataset, Filesystem, Follow};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use zerocopy::IntoBytes;

const KIB: u64 = 1 << 10;
/// Where a device's allocatable space begins.
const DATA_START: u64 = 4 << 20;

fn open(image: &Path, mode: Mode) -> Pool {
    let access = if mode == Mode::Write { Access::Exclusive } else { Access::ReadOnly };
    let device: Arc<dyn Device> = Arc::new(FileDevice::open(image, access).unwrap());
    let spec = OpenSpec {
        devices: vec![device],
        pool: None,
        mode,
        force: true,
        host: Host { id: 0, name: "test".into() },
        max_txg: None,
    };
    Pool::open(Env::os(), spec).unwrap()
}

/// A record.
fn record(kind: u64, seq: u64, txg: u64, words: &[u64], tail: &[u8]) -> Vec<u8> {
    let len = 32 + words.len() * 8 + tail.len();
    let head = [kind, len.next_multiple_of(8) as u64, txg, seq];
    let mut out: Vec<u8> = head.iter().chain(words).flat_map(|w| w.to_le_bytes()).collect();
    out.extend_from_slice(tail);
    out.resize(len.next_multiple_of(8), 0);
    out
}

fn pointer(place: u64, size: u64, txg: u64, kind: ObjectType, checksum: Checksum) -> Blkptr {
    let mut bp = Blkptr::default();
    bp.dva[0] = Dva::new(0, place, size.next_multiple_of(4096), false);
    bp.set_lsize(size);
    bp.set_psize(size);
    bp.set_compress(Compress::OFF);
    bp.set_checksum(checksum);
    bp.set_type(kind);
    bp.set_level(0);
    bp.set_little_endian(true);
    bp.set_birth(Txg(txg));
    bp
}

/// Space that the pool's space maps call free, far from where anything will be put first.
fn free_place(pool: &Pool) -> u64 {
    let mut last = 0;
    metaslabs(pool, &mut |slab| {
        for free in slab.free.iter().filter(|f| f.len >= 512 * KIB) {
            last = free.start + free.len - 512 * KIB;
        }
    })
    .unwrap();
    assert!(last > 0);
    last.next_multiple_of(4096)
}

/// What a test puts into a log.
struct Plan {
    /// The txg that will come next.
    next: u64,
    /// Place of a data block, written already.
    data: Blkptr,
    /// The first block of `old`.
    old: Blkptr,
}

/// Leaves a log of these records with the head of `dataset`, as if power had gone.
fn leave_log(image: &Path, dataset: &str, old: &str, records: impl Fn(&Plan) -> Vec<Vec<u8>>) {
    let mut pool = open(image, Mode::Write);
    let head = pool.dsl.lookup_head(pool.io(), dataset).unwrap();
    let file = std::fs::File::options().write(true).open(image).unwrap();
    let start = free_place(&pool);
    // The commit of the header, and then the txgs whose changes were lost.
    let next = pool.synced().0 + 2;
    let block: Vec<u8> = (0..128 * KIB).map(|i| (i / 7) as u8).collect();
    let mut data = pointer(start, 128 * KIB, next, ObjectType::PLAIN_FILE_CONTENTS, Checksum::FLETCHER_4);
    data.set_cksum(icecore_transform::checksum::fletcher::fletcher4(&block, true));
    data.set_fill(1);
    file.write_all_at(&block, DATA_START + start).unwrap();
    let old = match icecore_zpl::open(pool.io(), &pool.dsl, dataset).unwrap() {
        Dataset::Filesystem(fs) => {
            let found = fs.resolve(pool.io(), old.as_bytes(), Follow::Last).unwrap().znode;
            let dn = fs.objset().dnode(pool.io(), found.id).unwrap();
            fs.objset().blkptr(pool.io(), found.id, &dn, 0, 0).unwrap()
        }
        Dataset::Volume(_) => Blkptr::default(),
    };
    let plan = Plan { next, data, old };
    let all = records(&plan);
    // Two blocks of records, and one allocated ahead.
    let words = |seq: u64| [0x1234_5678, 0x9abc_def0, head.obj, seq];
    let places: Vec<u64> = (0..3).map(|i| start + (256 + 64 * i) * KIB).collect();
    let bp = |i: usize| {
        let mut bp =
            pointer(places[i], 64 * KIB, next + i as u64 % 2, ObjectType::INTENT_LOG, Checksum::ZILOG2);
        bp.set_cksum(words(i as u64 + 1));
        bp
    };
    let halves = all.split_at(all.len() / 2);
    for (i, half) in [halves.0, halves.1].into_iter().enumerate() {
        let body = half.concat();
        let mut block = vec![0; 64 * KIB as usize];
        block[8..136].copy_from_slice(bp(i + 1).as_bytes());
        block[136..144].copy_from_slice(&(184 + body.len() as u64).to_le_bytes());
        block[184..184 + body.len()].copy_from_slice(&body);
        zil_seal(&bp(i), &mut block).unwrap();
        file.write_all_at(&block, DATA_START + places[i]).unwrap();
    }
    let header = ZilHeaderPhys { log: bp(0), ..ZilHeaderPhys::default() };
    let (io, dsl) = pool.parts();
    let os: &mut Objset = dsl.open_dataset(io, head.obj).unwrap();
    os.phys_mut().zil_header_mut().copy_from_slice(header.as_bytes());
    assert_eq!(pool.commit().unwrap().0 + 1, next);
}

/// The file system as it is on disk.
fn files(image: &Path, dataset: &str) -> (Pool, Box<Filesystem>) {
    let pool = open(image, Mode::ReadOnly);
    match icecore_zpl::open(pool.io(), &pool.dsl, dataset).unwrap() {
        Dataset::Filesystem(fs) => (pool, fs),
        Dataset::Volume(_) => panic!("a volume"),
    }
}

const CREATE: u64 = 1;
const MKDIR: u64 = 2;
const MKXATTR: u64 = 3;
const SYMLINK: u64 = 4;
const REMOVE: u64 = 5;
const RMDIR: u64 = 6;
const LINK: u64 = 7;
const RENAME: u64 = 8;
const WRITE: u64 = 9;
const TRUNCATE: u64 = 10;
const SETATTR: u64 = 11;
const ACL: u64 = 13;
const CREATE_ATTR: u64 = 15;
const WRITE2: u64 = 20;
const SETSAXATTR: u64 = 21;
const EXCHANGE: u64 = 22;
const WHITEOUT: u64 = 23;
const CLONE: u64 = 24;

/// Files made here get these numbers.
const NEW: u64 = 200;
const WHEN: u64 = 1_600_000_000;

/// A pool with a file system `tank/fs` that has `old` (100,000 bytes), `gone`, `dir` and `empty`; exported.
fn prepared() -> Desk {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create tank/fs");
    let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i / 3) as u8).collect();
    std::fs::write(desk.path("old"), bytes).unwrap();
    std::fs::write(desk.path("gone"), b"gone").unwrap();
    for name in ["old", "gone"] {
        desk.ok(&format!("icecore cp {} tank/fs:/{name}", desk.path(name).display()));
    }
    desk.ok("icecore mkdir tank/fs:/dir tank/fs:/empty");
    desk.ok("zpool export tank");
    desk
}

fn object(image: &Path, path: &str) -> u64 {
    let (pool, fs) = files(image, "tank/fs");
    fs.resolve(pool.io(), path.as_bytes(), Follow::Last).unwrap().znode.id.0
}

/// One record of each kind that Linux writes, replayed by an import, and read back.
#[test]
fn every_kind_of_record_is_replayed() {
    let desk = prepared();
    let image = desk.path("tank/drive.img");
    let (root, old, dir) = (object(&image, "/"), object(&image, "/old"), object(&image, "/dir"));
    leave_log(&image, "tank/fs", "/old", |plan| {
        let mut all = Vec::new();
        let mut say = |kind: u64, words: &[u64], tail: &[u8]| {
            let seq = all.len() as u64 + 1;
            all.push(record(kind, seq, plan.next, words, tail));
        };
        let make = |id: u64, mode: u64, rdev: u64| [root, NEW + id, mode, 1000, 100, 77, WHEN, 5, rdev];
        let written = |id: u64, offset: u64, len: u64, bp: &Blkptr| -> Vec<u8> {
            let words = [id, offset, len, 0];
            let mut out: Vec<u8> = words.iter().flat_map(|w: &u64| w.to_le_bytes()).collect();
            out.extend_from_slice(bp.as_bytes());
            out
        };
        let none = Blkptr::default();
        say(CREATE, &make(0, 0o100_640, 0), b"file\0");
        say(WRITE, &[], &[&written(NEW, 0, 11, &none)[..], b"hello world"].concat());
        // A whole block on disk, of which 100,000 bytes count by now; the next says that all do.
        say(CREATE, &make(1, 0o100_600, 0), b"big\0");
        say(WRITE, &[], &written(NEW + 1, 0, 100_000, &plan.data));
        say(WRITE2, &[], &written(NEW + 1, 100_000, 20_000, &none));
        say(MKDIR, &make(2, 0o40_755, 0), b"newdir\0");
        say(SYMLINK, &make(3, 0o120_777, 0), b"link\0where\0");
        say(CREATE, &make(4, 0o20_600, 5 << 20 | 1), b"tty\0");
        say(LINK, &[NEW + 2, NEW], b"again\0");
        say(RENAME, &[root, NEW + 2], b"gone\0moved\0");
        say(RMDIR, &[root], b"empty\0");
        say(TRUNCATE, &[old, 50_000, 0], b"");
        say(TRUNCATE, &[old, 1_000, 4_096], b"");
        say(SETATTR, &[old, 1 | 2 | 32, 0o100_444, 33, 0, 0, 0, 0, WHEN, 9], b"");
        say(SETSAXATTR, &[old, 5], b"user.note\0value");
        say(SETSAXATTR, &[old, 1], b"user.away\0x");
        say(SETSAXATTR, &[old, 0], b"user.away\0");
        // A directory of extended attributes with one in it.
        say(MKXATTR, &[NEW, NEW + 5, 0o40_700, 0, 0, 78, WHEN, 5, 0], b"\0");
        say(CREATE, &[NEW + 5, NEW + 6, 0o100_600, 0, 0, 79, WHEN, 5, 0], b"user.dir\0");
        say(WRITE, &[], &[&written(NEW + 6, 0, 3, &none)[..], b"abc"].concat());
        // Copied, not shared.
        say(CREATE, &make(7, 0o100_600, 0), b"clone\0");
        say(CLONE, &[NEW + 7, 0, 100_000, plan.old.lsize(), 1], plan.old.as_bytes());
        let immutable =
            [&3_u32.to_le_bytes()[..], &0x40_u32.to_le_bytes(), &[0; 8], &0x40_u64.to_le_bytes(), &[0; 48]];
        say(CREATE_ATTR, &make(8, 0o100_600, 0), &[&immutable.concat()[..], b"fixed\0"].concat());
        say(EXCHANGE, &[root, root], b"dir\0tty\0");
        let white = [root, NEW + 2, NEW + 9, 0o20_000, 0, 0, 80, WHEN, 5, 0];
        say(WHITEOUT, &white, b"clone\0cloned\0");
        // Of what is gone, or was in the objset before: passed over.
        say(WRITE, &[], &[&written(9_999, 0, 3, &none)[..], b"abc"].concat());
        all.push(record(REMOVE, all.len() as u64 + 1, plan.next - 1, &[root], b"old\0"));
        let seq = all.len() as u64 + 1;
        all.push(record(CREATE, seq, plan.next, &make(10, 0o100_600, 0), b"temp\0"));
        all.push(record(REMOVE, seq + 1, plan.next, &[root], b"temp\0"));
        all
    });
    desk.ok(&format!("zpool import -f -d {} tank", desk.path("tank").display()));
    assert!(desk.ok("icecore inspect log tank").contains("no intent log holds anything"));
    desk.export_and_judge("tank");

    let (pool, fs) = files(&image, "tank/fs");
    let io: &dyn BlockStore = pool.io();
    let find = |path: &str| fs.resolve(io, path.as_bytes(), Follow::Never);
    let at = |path: &str| find(path).unwrap_or_else(|e| panic!("{path}: {e}")).znode;
    let read = |path: &str| fs.content(&at(path)).unwrap().read_all(fs.objset(), io, 1 << 20).unwrap();
    let xattrs = |path: &str| -> Vec<(String, String)> {
        let all = fs.xattrs(io, &at(path)).unwrap().into_iter();
        let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
        all.map(|x| (text(x.name), text(x.value))).collect()
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let file = at("/file");
    assert_eq!((file.id.0, file.links, file.mode & 0o7777, file.uid, file.gid), (NEW, 2, 0o640, 1000, 100));
    assert_eq!((file.crtime.seconds, file.crtime.nanos), (WHEN as i64, 5));
    assert_eq!(read("/file"), b"hello world");
    assert_eq!(at("/newdir/again").id, file.id);
    assert_eq!(xattrs("/file"), [pair("user.dir", "abc")]);
    let big: Vec<u8> = (0..120_000).map(|i| (i / 7) as u8).collect();
    assert_eq!(read("/big"), big);
    assert_eq!(read("/newdir/moved"), b"gone");
    assert!(["/gone", "/empty", "/temp"].iter().all(|path| find(path).is_err()));
    let mut expected: Vec<u8> = (0..50_000_u32).map(|i| (i / 3) as u8).collect();
    expected[1_000..5_096].fill(0);
    assert_eq!(read("/old"), expected);
    let changed = at("/old");
    assert_eq!((changed.mode & 0o7777, changed.uid), (0o444, 33));
    assert_eq!((changed.mtime.seconds, changed.mtime.nanos), (WHEN as i64, 9));
    assert_eq!(xattrs("/old"), [pair("user.note", "value")]);
    let clone: Vec<u8> = (0..100_000_u32).map(|i| (i / 3) as u8).collect();
    assert_eq!(read("/newdir/cloned"), clone);
    assert_eq!(at("/clone").id.0, NEW + 9);
    assert_eq!(at("/tty").id.0, dir, "what was /dir");
    assert_eq!((at("/dir").id.0, at("/dir").rdev), (NEW + 4, 5 << 20 | 1));
    assert!(at("/fixed").flags.0 & 1 << 36 != 0);
}

/// What cannot be replayed is named, and nothing is changed: not by an import, and not by a second one.
#[test]
fn what_cannot_be_replayed_refuses_the_import() {
    for (kind, words, tail, name) in [
        (ACL, vec![0; 6], &b""[..], "TX_ACL"),
        (LINK, vec![34, 9_999], b"nothing\0", "TX_LINK"),
        (CREATE, vec![34, NEW, 0o100_600, 1 << 32, 0, 1, 1, 1, 0], b"domain\0name\0", "TX_CREATE"),
    ] {
        let desk = prepared();
        let image = desk.path("tank/drive.img");
        leave_log(&image, "tank/fs", "/old", |plan| {
            vec![
                record(TRUNCATE, 1, plan.next, &[9_999, 0, 0], b""),
                record(kind, 2, plan.next, &words, tail),
            ]
        });
        let before = std::fs::read(&image).unwrap();
        let line = format!("zpool import -f -d {} tank", desk.path("tank").display());
        desk.refused(&line, 1, &["cannot import 'tank': tank/fs cannot be replayed", name]);
        assert!(std::fs::read(&image).unwrap() == before, "{name}: something was written");
        desk.ok(&format!("zpool import -o readonly=on -f -d {} tank", desk.path("tank").display()));
        assert!(desk.ok("icecore inspect log -v tank").contains(name));
    }
}

/// A volume's log.
#[test]
fn volumes_are_replayed() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create -V 1M tank/v");
    desk.ok("zpool export tank");
    let image = desk.path("tank/drive.img");
    leave_log(&image, "tank/v", "", |plan| {
        let write = |offset: u64, len: u64, bp: &Blkptr, data: &[u8]| {
            let words = [1, offset, len, 0];
            let head: Vec<u8> = words.iter().flat_map(|w: &u64| w.to_le_bytes()).collect();
            [&head[..], bp.as_bytes(), data].concat()
        };
        let none = Blkptr::default();
        vec![
            record(WRITE, 1, plan.next, &[], &write(128 * KIB, 128 * KIB, &plan.data, b"")),
            record(WRITE, 2, plan.next, &[], &write(1_000, 5, &none, b"words")),
            record(WRITE, 3, plan.next, &[], &write(512 * KIB, 5, &none, b"again")),
            record(TRUNCATE, 4, plan.next, &[1, 130 * KIB, 60 * KIB], b""),
        ]
    });
    desk.ok(&format!("zpool import -f -d {} tank", desk.path("tank").display()));
    let mut expected = vec![0; 1 << 20];
    for (at, byte) in expected.iter_mut().skip(128 * KIB as usize).take(128 * KIB as usize).enumerate() {
        *byte = (at / 7) as u8;
    }
    expected[130 * KIB as usize..190 * KIB as usize].fill(0);
    expected[1_000..1_005].copy_from_slice(b"words");
    expected[512 * KIB as usize..512 * KIB as usize + 5].copy_from_slice(b"again");
    assert!(desk.bytes("icecore cat tank/v") == expected);
    desk.export_and_judge("tank");
}

/// The pool that a machine with OpenZFS left when its power went: one dataset replayed by the import, the encrypted one
/// when its key comes; what is there then is what was there before (`dirty-*.after-replay.manifest`). But for what is in
/// no log, by `zdb -i` neither: one file was cut to 5,000 bytes without a sync of it, and has the name that was logged and
/// the contents that were committed.
#[test]
fn what_openzfs_left() {
    let Some(source) = zoo("disks/dirty.img") else { return };
    let desk = Desk::new();
    std::fs::create_dir(desk.path("dirty")).unwrap();
    let image = desk.path("dirty/dirty.img");
    // zdb finds pools in files, but no partitions there.
    let disk: Arc<dyn Device> = Arc::new(FileDevice::open(&source, Access::ReadOnly).unwrap());
    let part = icecore_vdev::gpt::zfs_partitions(&disk).pop().unwrap();
    let mut bytes = vec![0; part.size() as usize];
    part.read_at(0, &mut bytes).unwrap();
    std::fs::write(&image, &bytes).unwrap();
    desk.ok(&format!("zpool import -o readonly=on -f -d {} dirty", desk.path("dirty").display()));
    let committed = icecore_check::manifest::sha256_of(&desk.bytes("icecore cat dirty/data:/committed"));
    desk.ok("zpool export dirty");
    let done = desk.run(&format!("zpool import -f -d {} dirty", desk.path("dirty").display()));
    assert_eq!(done.status, 0, "{}", done.err);
    let wanted = |name: &str| {
        let list = source.with_file_name(format!("dirty-{name}.after-replay.manifest"));
        let text = std::fs::read_to_string(list).unwrap();
        let sums =
            text.lines().filter_map(|l| l.split_once("  ./")).map(|(s, p)| (p.to_owned(), s.to_owned()));
        let mut sums: std::collections::BTreeMap<_, _> = sums.collect();
        sums.insert("newdir/moved".into(), committed.clone());
        sums
    };
    let found = |name: &str| {
        let mut all = std::collections::BTreeMap::new();
        for path in wanted(name).keys() {
            let bytes = desk.bytes(&format!("icecore cat dirty/{name}:/{path}"));
            all.insert(path.clone(), icecore_check::manifest::sha256_of(&bytes));
        }
        all
    };
    assert!(wanted("data").len() > 5);
    assert_eq!(found("data"), wanted("data"));
    // Claimed, and waiting.
    assert!(desk.ok("icecore inspect log dirty").contains("dirty/enc"));
    for (line, words) in [("icecore mkdir dirty/enc:/x", "key"), ("zfs rollback dirty/enc@before", "busy")] {
        let done = desk.run(line);
        assert!(done.status != 0 && done.err.contains(words), "{line}: {}", done.err);
    }
    if zdb::zdb_available() {
        desk.ok("zpool export dirty");
        assert_eq!(zdb::zdb_clean(&desk.path("dirty"), "dirty"), Ok(()));
        desk.ok(&format!("zpool import -d {} dirty", desk.path("dirty").display()));
    }
    desk.feed("zfs load-key dirty/enc", b"dirty pw 1234\n");
    assert_eq!(found("enc"), wanted("enc"));
    assert!(desk.ok("icecore inspect log dirty").contains("no intent log holds anything"));
    desk.ok("icecore mkdir dirty/enc:/x dirty/data:/x");
    desk.export_and_judge("dirty");
    let books = balance(&open(&image, Mode::ReadOnly)).unwrap();
    assert!(books.leaked.is_empty() && books.unallocated.is_empty(), "{books:?}");
}
