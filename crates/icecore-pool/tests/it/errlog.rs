//! The pool's error log, in both forms OpenZFS has, through what happens to the datasets whose blocks it names.

use crate::support::{create_with, disks, env, judge, open};
use icecore_dmu::zap;
use icecore_dsl::{ErrorLog, Feature};
use icecore_format::{Blkptr, Bookmark, ObjectId, ObjectType, Txg};
use icecore_pool::walk::every_block;
use icecore_pool::{Mode, Pool, features};
use icecore_vdev::create::NewKind;
use std::collections::BTreeSet;

/// A data block of the objset, and what it is.
fn a_block(pool: &Pool, objset: u64) -> (Bookmark, Blkptr) {
    let mut found = None;
    every_block(pool, &mut |bp, at| {
        if at.objset == objset && at.level == 0 && at.object.0 != 0 && at.object.0 < 1 << 40 {
            found = Some((*at, *bp));
        }
        found.is_none()
    });
    found.unwrap()
}

fn objsets(pool: &Pool) -> BTreeSet<String> {
    let named = pool.dsl.errlog(pool.io()).unwrap();
    named.iter().map(|at| icecore_pool::heal::dataset_name(pool, at.objset)).collect()
}

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|n| (*n).to_string()).collect()
}

/// Names of the entries of a log in the MOS.
fn raw(pool: &Pool, object: u64) -> Vec<String> {
    let all = zap::iter(&pool.dsl.mos, pool.io(), ObjectId(object)).unwrap();
    all.iter().map(|e| e.name_str()).collect()
}

fn through_the_years(name: &str, by_heads: bool) {
    let disks = disks(1, 80 << 20);
    let features = features::of_new_pools().filter(|f| by_heads || *f != Feature::HEAD_ERRLOG).collect();
    let mut pool = create_with(env(3), name, &disks, NewKind::Single, 12, features);
    let (fs, clone) = (format!("{name}/fs"), format!("{name}/clone"));
    let snap = format!("{fs}@old");
    let (io, dsl) = pool.parts();
    dsl.create_filesystem(io, &fs, &[]).unwrap();
    pool.commit().unwrap();
    let (io, dsl) = pool.parts();
    dsl.snapshot(io, &[snap.as_str()], &[]).unwrap();
    let origin = dsl.lookup_snapshot(io, &snap).unwrap();
    dsl.clone_snapshot(io, origin, &clone).unwrap();
    pool.commit().unwrap();

    let oldest = pool.dsl.lookup_dataset(pool.io(), &snap).unwrap().obj;
    let head = pool.dsl.lookup_dataset(pool.io(), &fs).unwrap().obj;
    let (at, bp) = a_block(&pool, oldest);
    let (io, dsl) = pool.parts();
    for _ in 0..2 {
        dsl.errlog_add(io, ErrorLog::Scrub, &at, bp.physical_birth()).unwrap();
    }
    // One that has been overwritten since, and one of the MOS.
    dsl.errlog_add(io, ErrorLog::Scrub, &Bookmark { blkid: 77, ..at }, bp.physical_birth()).unwrap();
    dsl.errlog_add(io, ErrorLog::Scrub, &Bookmark::root(0), Txg(5)).unwrap();
    dsl.errlog_rotate(io).unwrap();
    pool.commit().unwrap();
    drop(pool);

    let mut pool = open(env(5), &disks, Mode::Write).unwrap();
    let entry = |pool: &Pool, name| pool.dsl.directory_entry(pool.io(), name).unwrap();
    let last = entry(&pool, "errlog_last").unwrap();
    assert_eq!(entry(&pool, "errlog_scrub"), Some(0));
    assert_eq!(pool.dsl.mos.dnode(pool.io(), ObjectId(last)).unwrap().kind(), ObjectType::ERROR_LOG);
    let written = raw(&pool, last);
    if by_heads {
        let of_head = zap::lookup_u64(&pool.dsl.mos, pool.io(), ObjectId(last), &format!("{head:x}"));
        let name = format!("{:x}:0:{:x}:{:x}", at.object.0, at.blkid, bp.birth().0);
        assert!(raw(&pool, of_head.unwrap().unwrap()).contains(&name), "{name}");
        assert!(written.contains(&"0".to_string()), "{written:?}");
        assert_eq!(objsets(&pool), names(&["<metadata>", &fs, &snap, &clone]));
    } else {
        let name = format!("{:x}:{:x}:0:{:x}", at.objset, at.object.0, at.blkid);
        assert!(written.contains(&name), "{written:?}");
        assert!(written.contains(&"0:0:ffffffffffffffff:0".to_string()), "{written:?}");
        assert_eq!(objsets(&pool), names(&["<metadata>", &snap]));
    }
    assert_eq!(pool.dsl.errlog_count(pool.io()).unwrap(), 3);

    let (io, dsl) = pool.parts();
    dsl.promote(io, &clone).unwrap();
    pool.commit().unwrap();
    let moved = format!("{clone}@old");
    if by_heads {
        assert_eq!(objsets(&pool), names(&["<metadata>", &fs, &moved, &clone]));
    }
    let (io, dsl) = pool.parts();
    dsl.destroy_head(io, &fs).unwrap();
    pool.commit().unwrap();
    if by_heads {
        assert_eq!(objsets(&pool), names(&["<metadata>", &moved, &clone]));
    }
    let (io, dsl) = pool.parts();
    dsl.errlog_rotate(io).unwrap();
    pool.commit().unwrap();
    assert_eq!(objsets(&pool), BTreeSet::new());
    assert_eq!(pool.dsl.errlog_count(pool.io()).unwrap(), 0);
    drop(pool);
    judge(name, &disks);
}

#[test]
fn lost_blocks_are_logged_by_heads() {
    through_the_years("heads", true);
}

#[test]
fn lost_blocks_are_logged_by_bookmark_where_the_pool_is_older() {
    through_the_years("flat", false);
}

/// A log whose entries point anywhere harms nothing, whatever is done with it.
#[test]
fn a_log_without_sense_harms_nothing() {
    let disks = disks(1, 80 << 20);
    let features = features::of_new_pools().collect();
    let mut pool = create_with(env(3), "odd", &disks, NewKind::Single, 12, features);
    let root = pool.dsl.lookup_dataset(pool.io(), "odd").unwrap().obj;
    let (io, dsl) = pool.parts();
    dsl.errlog_add(io, ErrorLog::Last, &Bookmark { objset: root, ..Bookmark::default() }, Txg(4)).unwrap();
    let last = dsl.directory_entry(io, "errlog_last").unwrap().unwrap();
    let of_head = zap::lookup_u64(&dsl.mos, io, ObjectId(last), &format!("{root:x}")).unwrap().unwrap();
    for (name, object) in
        [("5", 1), ("6", of_head), ("7", last), ("x", 3), ("8", u64::MAX), ("9:1:1:1", root)]
    {
        zap::update(&mut dsl.mos, io, ObjectId(last), name, &zap::ZapValue::u64(object)).unwrap();
    }
    pool.commit().unwrap();
    assert!(pool.dsl.errlog(pool.io()).unwrap().contains(&Bookmark { objset: root, ..Bookmark::default() }));
    pool.dsl.errlog_count(pool.io()).unwrap();
    let (io, dsl) = pool.parts();
    dsl.errlog_rotate(io).unwrap();
    pool.commit().unwrap();
    drop(pool);
    judge("odd", &disks);
}
