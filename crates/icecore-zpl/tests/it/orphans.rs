//! Files without a name: kept while somebody has them open, freed afterwards or by whoever opens the file system next,
//! large ones in steps.

use crate::write::Bench;
use icecore_check::accounts;
use icecore_dmu::zap;
use icecore_format::ObjectId;
use icecore_zpl::ZplError;
use icecore_zpl::write::{Options, What, Writer, XattrFlags, XattrForm};

fn waiting(b: &mut Bench) -> Vec<ObjectId> {
    b.op(|w, os, io, _| w.orphans(os, io)).unwrap()
}
fn is_gone(b: &mut Bench, id: ObjectId) -> bool {
    b.op(|_, os, io, _| Ok(os.dnode(io, id).is_err())).unwrap()
}

#[test]
fn what_is_open_stays() {
    let mut b = Bench::counted("orphan", "main/plain");
    let root = b.root();
    b.writer.set_options(Options { xattrs: XattrForm::Dir, ..Options::default() });
    let id = b.create(root, "file", What::Regular).unwrap();
    b.op(|w, os, io, now| w.write(os, io, id, 0, &[7; 5000], now)).unwrap();
    let any = XattrFlags::default();
    b.op(|w, os, io, now| w.set_xattr(os, io, id, b"user.a", Some(b"x"), any, now)).unwrap();
    b.op(|w, os, io, now| w.link(os, io, id, root, b"second", now)).unwrap();
    assert!(!b.op(|w, os, io, now| w.orphan(os, io, root, b"second", now)).unwrap(), "it has another name");
    assert!(b.op(|w, os, io, now| w.orphan(os, io, root, b"file", now)).unwrap());
    assert!(b.op(|w, os, io, _| w.reap(os, io, root)).unwrap(), "not in the set: left alone");
    b.pool.commit().unwrap();
    // Still a file: it is written, counted and marked for whoever comes after a crash.
    b.op(|w, os, io, now| w.write(os, io, id, 5000, &[8; 5000], now)).unwrap();
    b.pool.commit().unwrap();
    accounts::check(b.pool.io(), &b.fs()).unwrap();
    assert_eq!(waiting(&mut b), [id]);
    let fs = b.fs();
    let z = fs.znode(b.pool.io(), id).unwrap();
    assert_eq!((z.links, z.size), (0, 10_000));
    assert!(b.op(|w, os, io, _| w.drain(os, io, &|open| open == id)).unwrap(), "open: not freed");
    assert_eq!(waiting(&mut b), [id]);
    assert!(b.op(|w, os, io, _| w.reap(os, io, id)).unwrap());
    assert!(is_gone(&mut b, id) && waiting(&mut b).is_empty());
    b.pool.commit().unwrap();
    accounts::check(b.pool.io(), &b.fs()).unwrap();
    // A name that another takes.
    let (one, two) = (b.create(root, "one", What::Regular), b.create(root, "two", What::Regular));
    let (one, two) = (one.unwrap(), two.unwrap());
    let kept = b.op(|w, os, io, now| w.rename_keeping(os, io, (root, b"one"), (root, b"two"), now)).unwrap();
    assert_eq!((kept, waiting(&mut b)), (Some(two), vec![two]));
    assert!(!is_gone(&mut b, one));
    // The next to open it frees what is there.
    b.pool.commit().unwrap();
    b.writer = b.op(|_, os, io, _| Writer::open(io, os, 128 << 10)).unwrap();
    while !b.op(|w, os, io, _| w.drain(os, io, &|_| false)).unwrap() {}
    assert!(is_gone(&mut b, two));
    b.pool.commit().unwrap();
    accounts::check(b.pool.io(), &b.fs()).unwrap();
    b.judge();
}

/// As OpenZFS leaves them: a file, the directory of its extended attributes for itself, one of those, and an entry whose
/// object is gone. And what it never leaves: an entry for a file that has names.
#[test]
fn leftovers_of_openzfs() {
    let mut b = Bench::counted("leftovers", "main/plain");
    let root = b.root();
    b.writer.set_options(Options { xattrs: XattrForm::Dir, ..Options::default() });
    let any = XattrFlags::default();
    let file = b.create(root, "file", What::Regular).unwrap();
    let kept = b.create(root, "kept", What::Regular).unwrap();
    for name in [&b"user.a"[..], b"user.b"] {
        b.op(|w, os, io, now| w.set_xattr(os, io, file, name, Some(b"x"), any, now)).unwrap();
    }
    b.pool.commit().unwrap();
    let queue = |os: &icecore_dmu::Objset, io: &dyn icecore_dmu::BlockStore| {
        ObjectId(zap::lookup_u64(os, io, ObjectId(1), "DELETE_QUEUE").unwrap().unwrap())
    };
    let (dir, value) = b
        .op(|w, os, io, now| {
            let names: Vec<ObjectId> = {
                let mut at = ObjectId(0);
                let mut all = Vec::new();
                while let Some(id) = os.next_object(io, at)? {
                    at = id;
                    all.push(id);
                }
                all
            };
            // The two made last but one are directory and files of attributes: file, kept, dir, a, b.
            let from = names.iter().position(|n| *n == kept).unwrap();
            let (dir, value) = (names[from + 1], names[from + 2]);
            w.orphan(os, io, root, b"file", now)?;
            w.orphan(os, io, dir, b"user.a", now)?;
            let q = queue(os, io);
            for id in [ObjectId(0xffff), kept] {
                zap::add(os, io, q, &format!("{:x}", id.0), &zap::ZapValue::u64(id.0))?;
            }
            Ok((dir, value))
        })
        .unwrap();
    b.pool.commit().unwrap();
    while !b.op(|w, os, io, _| w.drain(os, io, &|_| false)).unwrap() {}
    assert!([file, dir, value].into_iter().all(|id| is_gone(&mut b, id)));
    assert_eq!(waiting(&mut b), [kept], "a file that has names stays");
    assert!(!is_gone(&mut b, kept));
    assert!(matches!(b.op(|w, os, io, _| w.reap(os, io, kept)), Err(ZplError::Corrupt(_))));
    b.op(|_, os, io, _| {
        let q = queue(os, io);
        Ok(zap::remove(os, io, q, &format!("{:x}", kept.0))?)
    })
    .unwrap();
    b.pool.commit().unwrap();
    accounts::check(b.pool.io(), &b.fs()).unwrap();
    b.judge();
}

#[test]
fn large_files_go_in_steps() {
    let mut b = Bench::new("steps", "main/new", &[("compression", "lz4"), ("recordsize", "512")], 512);
    let root = b.root();
    let id = b.create(root, "large", What::Regular).unwrap();
    // 80,000 blocks of data and, far off, some more: the tail is found by counts, not by places.
    let piece: Vec<u8> = (0..1 << 20).map(|n: u32| (n >> 9) as u8 | 1).collect();
    for n in 0..39_u64 {
        b.op(|w, os, io, now| w.write(os, io, id, n << 20, &piece, now)).unwrap();
    }
    b.op(|w, os, io, now| w.write(os, io, id, 1 << 40, &piece, now)).unwrap();
    b.pool.commit().unwrap();
    b.op(|w, os, io, now| w.unlink(os, io, root, b"large", now)).unwrap();
    assert_eq!(waiting(&mut b), [id]);
    b.pool.commit().unwrap();
    let mut steps = 0;
    while !b.op(|w, os, io, _| w.drain(os, io, &|_| false)).unwrap() {
        steps += 1;
        b.pool.commit().unwrap();
        let gone = is_gone(&mut b, id);
        assert_eq!(gone, waiting(&mut b).is_empty());
        let blocks = b.op(|_, os, io, _| Ok(os.dnode(io, id).map_or(0, |dn| dn.blkptr(0).fill()))).unwrap();
        assert!(gone || (blocks > 0 && blocks < 1 << 16), "{blocks} blocks after step {steps}");
    }
    assert_eq!(steps, 2);
    b.judge();
}
