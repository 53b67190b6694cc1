//! Histories of datasets on a store in memory, each txg checked against what a walk over all blocks finds:
//! nothing leaked, nothing freed too early, and every sum of the accounting right.

mod limits;
mod promote;
mod quota;

use crate::destroy::Walk;
use crate::phys::{DS_FLAG_UNIQUE_ACCURATE, Used};
use crate::prop::SetSource;
use crate::{Chance, DatasetRef, Dsl, DslError, Feature, Found, PoolInfo, RootDataset, Value, Who};
use icecore_dmu::mem::MemStore;
use icecore_dmu::{BlockStore, NewObject};
use icecore_format::{Blkptr, ObjectId, ObjectType};
use std::collections::{BTreeMap, BTreeSet};

struct Counter(u64);
impl Chance for Counter {
    fn now(&mut self) -> (u64, u32) {
        self.0 += 1;
        (1_700_000_000 + self.0, 5)
    }
    fn fill(&mut self, out: &mut [u8]) {
        for b in out {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *b = (self.0 >> 33) as u8;
        }
    }
}

const FEATURES: &[Feature] = &[
    Feature::EMPTY_BPOBJ,
    Feature::LZ4_COMPRESS,
    Feature::ZSTD_COMPRESS,
    Feature::ENABLED_TXG,
    Feature::HOLE_BIRTH,
    Feature::EXTENSIBLE_DATASET,
    Feature::BOOKMARKS,
    Feature::BOOKMARK_V2,
    Feature::BOOKMARK_WRITTEN,
    Feature::LARGE_BLOCKS,
    Feature::ENCRYPTION,
    Feature::FS_SS_LIMIT,
];

/// Not the administrator.
const USER: Who = Who { uid: 1000, gid: 1001 };

struct Pool {
    io: MemStore,
    dsl: Dsl,
}

impl Pool {
    fn new() -> Self {
        let mut io = MemStore::default();
        let info = PoolInfo { name: "p".into(), version: 5000, usable: 1 << 30, at_once: 1 << 25 };
        let root = RootDataset { who: USER, ..RootDataset::default() };
        let dsl = Dsl::create(&mut io, info, Box::new(Counter(1)), FEATURES, &root).unwrap();
        let mut pool = Self { io, dsl };
        pool.commit();
        pool
    }

    /// Writes everything, checks everything, opens anew, goes on to the next txg.
    fn commit(&mut self) {
        self.dsl.sync_datasets(&mut self.io).unwrap();
        while self.dsl.mos.is_dirty() {
            let delta = self.dsl.mos.sync(&mut self.io).unwrap();
            for bp in &delta.killed {
                icecore_dmu::BlockWriter::free(&mut self.io, bp).unwrap();
            }
        }
        let root = self.dsl.mos.root();
        let info = self.dsl.info.clone();
        self.dsl = Dsl::open(&self.io, &root, info, Box::new(Counter(self.io.txg().0 * 1000))).unwrap();
        self.dsl.who = USER;
        self.check();
        self.io.advance();
    }

    fn head(&self, name: &str) -> DatasetRef {
        self.dsl.lookup_dataset(&self.io, name).unwrap()
    }

    fn write(&mut self, name: &str, obj: u64, blocks: std::ops::Range<u64>, fill: u8) {
        let head = self.head(name);
        let io = &self.io;
        let os = self.dsl.open_dataset(io, head.obj).unwrap();
        if os.dnode(io, ObjectId(obj)).is_err() {
            os.claim(io, ObjectId(obj), &NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, 4096)).unwrap();
        }
        for b in blocks {
            let data: Vec<u8> = (0..4096_u64).map(|i| (i * (b + 3) + u64::from(fill)) as u8 | 1).collect();
            os.write(io, ObjectId(obj), b * 4096, &data).unwrap();
        }
    }

    fn snap(&mut self, name: &str) {
        self.dsl.snapshot(&mut self.io, &[name], &[]).unwrap();
        self.commit();
    }

    fn blocks(&self, obj: u64, bp: &Blkptr) -> BTreeMap<u64, u64> {
        let found = Walk::new(obj, 0, bp).batch(&self.io).unwrap();
        found.iter().filter(|b| !b.is_embedded()).map(|b| (b.dva[0].offset(), b.asize())).collect()
    }

    fn check(&self) {
        let dsl = &self.dsl;
        let io = &self.io;
        let mut all: BTreeSet<u64> = self.blocks(0, &dsl.mos.root()).into_keys().collect();
        let mut sets: BTreeMap<u64, BTreeMap<u64, u64>> = BTreeMap::new();
        let mut dirs: Vec<u64> = Vec::new();
        let mut todo = vec![dsl.root_dir()];
        while let Some(d) = todo.pop() {
            dirs.push(d);
            let dd = dsl.dir(io, d).unwrap();
            todo.extend(dsl.zap_list_u64(io, dd.child_dir_zapobj).unwrap().into_iter().map(|e| e.1));
            if dd.head_dataset_obj == 0 {
                continue;
            }
            let mut of = vec![dd.head_dataset_obj];
            let head = dsl.dataset(io, dd.head_dataset_obj).unwrap();
            of.extend(dsl.zap_list_u64(io, head.snapnames_zapobj).unwrap().into_iter().map(|e| e.1));
            for obj in of {
                let ds = dsl.dataset(io, obj).unwrap();
                let blocks = if ds.bp.is_hole() { BTreeMap::new() } else { self.blocks(obj, &ds.bp) };
                all.extend(blocks.keys());
                sets.insert(obj, blocks);
            }
        }
        assert_eq!(all.len(), io.len(), "blocks held and blocks reachable, txg {}", io.txg());
        let mut holders: BTreeMap<u64, usize> = BTreeMap::new();
        for set in sets.values() {
            for b in set.keys() {
                *holders.entry(*b).or_default() += 1;
            }
        }
        for (obj, set) in &sets {
            let ds = dsl.dataset(io, *obj).unwrap();
            assert_eq!(ds.referenced_bytes, set.values().sum::<u64>(), "referenced of {obj}");
            let prev = sets.get(&ds.prev_snap_obj);
            let unique: u64 = if ds.is_snapshot() {
                set.iter().filter(|(b, _)| holders[b] == 1).map(|(_, s)| s).sum()
            } else {
                set.iter().filter(|(b, _)| !prev.is_some_and(|p| p.contains_key(b))).map(|(_, s)| s).sum()
            };
            // A snapshot with clones counts its blocks as its own only while the clones hold them not.
            assert!(ds.flags & DS_FLAG_UNIQUE_ACCURATE != 0 || ds.is_snapshot());
            if ds.num_children <= 1 {
                assert_eq!(ds.unique_bytes, unique, "unique of {obj}");
            }
            if let Some(p) = prev {
                let dead: u64 = p.iter().filter(|(b, _)| !set.contains_key(b)).map(|(_, s)| s).sum();
                let list = dsl.deadlist_space(io, ds.deadlist_obj).unwrap().used;
                assert_eq!(list as u64, dead, "deadlist of {obj}");
                assert_eq!(
                    dsl.deadlist_sum(io, ds.deadlist_obj).unwrap().used,
                    list,
                    "sums of deadlist of {obj}"
                );
            }
        }
        for d in dirs {
            let dd = dsl.dir(io, d).unwrap();
            assert_eq!(dd.used_bytes, dd.used_breakdown.iter().sum::<u64>(), "breakdown of directory {d}");
            let children: u64 = dsl
                .zap_list_u64(io, dd.child_dir_zapobj)
                .unwrap()
                .into_iter()
                .map(|(_, c)| dsl.dir(io, c).unwrap())
                .map(|c| c.used_bytes.max(c.reserved))
                .sum();
            let by = |u: Used| dd.used_breakdown[u as usize];
            assert_eq!(by(Used::Child) + by(Used::ChildRsrv), children, "children of directory {d}");
            if dd.head_dataset_obj == 0 {
                continue;
            }
            let head = dsl.dataset(io, dd.head_dataset_obj).unwrap();
            let mut own: BTreeMap<u64, u64> = BTreeMap::new();
            let mut of = vec![dd.head_dataset_obj];
            of.extend(dsl.zap_list_u64(io, head.snapnames_zapobj).unwrap().into_iter().map(|e| e.1));
            for obj in &of {
                own.extend(sets[obj].clone());
            }
            if let Some(origin) = sets.get(&dd.origin_obj) {
                own.retain(|b, _| !origin.contains_key(b));
            }
            assert_eq!(by(Used::Head) + by(Used::Snap), own.values().sum::<u64>(), "used of directory {d}");
            let live: u64 =
                own.iter().filter(|(b, _)| sets[&dd.head_dataset_obj].contains_key(b)).map(|(_, s)| s).sum();
            assert_eq!(by(Used::Head), live, "used by the dataset of directory {d}");
        }
    }
}

#[test]
fn a_new_pool_has_its_special_directories_and_an_empty_root() {
    let p = Pool::new();
    assert_eq!(p.dsl.descendants(&p.io, "p").unwrap(), ["p"]);
    let head = p.head("p");
    let ds = p.dsl.dataset(&p.io, head.obj).unwrap();
    assert_eq!((ds.prev_snap_obj, ds.prev_snap_txg, ds.creation_txg), (p.dsl.origin_snap(), 1, 1));
    assert_eq!(p.dsl.props(&p.io, "p").unwrap().iter().find(|r| r.name == "version").unwrap().value, "5");
    assert!(matches!(p.dsl.lookup(&p.io, "p/none"), Err(DslError::NotFound(_))));
    assert!(matches!(p.dsl.lookup(&p.io, "q"), Err(DslError::NotFound(_))));
}

#[test]
fn snapshots_hold_what_the_head_lets_go_and_give_it_back_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0], [0, 2, 1], [2, 0, 1]] {
        let mut p = Pool::new();
        p.dsl.create_filesystem(&mut p.io, "p/a", &[]).unwrap();
        p.commit();
        for (i, name) in ["p/a@0", "p/a@1", "p/a@2"].into_iter().enumerate() {
            p.write("p/a", 10, i as u64 * 3..i as u64 * 3 + 8, i as u8);
            p.commit();
            p.snap(name);
        }
        p.write("p/a", 10, 2..5, 9);
        p.commit();
        for i in order {
            assert!(p.dsl.destroy_snapshot(&mut p.io, &format!("p/a@{i}"), false).unwrap());
            p.commit();
        }
        assert!(p.dsl.snapshots(&p.io, "p/a").unwrap().is_empty());
        p.dsl.destroy_head(&mut p.io, "p/a").unwrap();
        p.commit();
        assert_eq!(p.dsl.dir(&p.io, p.dsl.root_dir()).unwrap().used_breakdown[Used::Child as usize], 0);
    }
}

#[test]
fn data_and_its_snapshot_may_share_a_txg() {
    let mut p = Pool::new();
    p.write("p", 10, 0..4, 1);
    p.dsl.snapshot(&mut p.io, &["p@s"], &[("org.x:note", "hi")]).unwrap();
    p.commit();
    p.write("p", 10, 1..2, 2);
    p.commit();
    assert!(p.dsl.modified_since_snapshot(&p.io, p.head("p")).unwrap());
    let row = p.dsl.prop(&p.io, "p@s", "org.x:note").unwrap().unwrap();
    assert_eq!((row.value.as_str(), row.source), ("hi", crate::Source::Local));
    assert!(matches!(p.dsl.snapshot(&mut p.io, &["p@s"], &[]), Err(DslError::Exists(_))));
}

#[test]
fn clones_share_with_their_origin_and_keep_it() {
    let mut p = Pool::new();
    p.dsl.create_filesystem(&mut p.io, "p/a", &[]).unwrap();
    p.write("p/a", 10, 0..6, 1);
    p.commit();
    p.snap("p/a@1");
    p.write("p/a", 10, 0..2, 2);
    p.commit();
    p.snap("p/a@2");
    let origin = p.head("p/a@2");
    p.dsl.clone_snapshot(&mut p.io, origin, "p/c").unwrap();
    p.commit();
    p.write("p/c", 10, 4..9, 3);
    p.commit();
    p.snap("p/c@x");
    p.write("p/c", 10, 5..6, 4);
    p.commit();
    assert!(
        matches!(p.dsl.destroy_snapshot(&mut p.io, "p/a@2", false), Err(DslError::Dependents(n)) if n == ["p/c"])
    );
    assert!(!p.dsl.destroy_snapshot(&mut p.io, "p/a@2", true).unwrap());
    p.commit();
    // The snapshot before the origin goes: its key leaves the clone's deadlists too.
    assert!(p.dsl.destroy_snapshot(&mut p.io, "p/a@1", false).unwrap());
    p.commit();
    assert!(p.dsl.destroy_snapshot(&mut p.io, "p/c@x", false).unwrap());
    p.commit();
    p.dsl.destroy_head(&mut p.io, "p/c").unwrap();
    p.commit();
    // The last clone took the marked origin with it.
    assert!(p.dsl.snapshots(&p.io, "p/a").unwrap().is_empty());
}

#[test]
fn rollback_returns_to_the_newest_snapshot() {
    let mut p = Pool::new();
    p.dsl.create_filesystem(&mut p.io, "p/a", &[]).unwrap();
    p.write("p/a", 10, 0..6, 1);
    p.commit();
    p.snap("p/a@1");
    p.write("p/a", 10, 0..9, 2);
    p.commit();
    let before = p.dsl.dataset(&p.io, p.head("p/a@1").obj).unwrap();
    p.dsl.rollback(&mut p.io, "p/a", Some("1")).unwrap();
    p.commit();
    let after = p.dsl.dataset(&p.io, p.head("p/a").obj).unwrap();
    assert_eq!((after.bp, after.unique_bytes), (before.bp, 0));
    p.write("p/a", 10, 0..1, 7);
    p.commit();
    p.snap("p/a@2");
    assert!(matches!(p.dsl.rollback(&mut p.io, "p/a", Some("1")), Err(DslError::NotLatest(_))));
}

#[test]
fn a_receive_swaps_its_clone_in() {
    let mut p = Pool::new();
    p.dsl.create_filesystem(&mut p.io, "p/a", &[]).unwrap();
    p.write("p/a", 10, 0..6, 1);
    p.commit();
    p.snap("p/a@1");
    let (head, origin) = (p.head("p/a"), p.head("p/a@1"));
    let clone = p.dsl.create_for_receive(&mut p.io, "p/a/%recv", Some(origin), false).unwrap();
    p.dsl.activate_feature(&mut p.io, clone.obj, Feature::LARGE_BLOCKS).unwrap();
    p.commit();
    assert!(p.dsl.dataset(&p.io, clone.obj).unwrap().is_inconsistent());
    assert_eq!(p.dsl.children(&p.io, "p/a").unwrap(), Vec::<String>::new());
    p.write("p/a/%recv", 10, 3..9, 2);
    p.commit();
    p.dsl.swap_and_destroy(&mut p.io, clone, head).unwrap();
    let snap = p.dsl.snapshot_received(&mut p.io, head, "2").unwrap();
    p.dsl.set_snapshot_identity(&p.io, snap.obj, 77, 12345).unwrap();
    p.commit();
    assert_eq!(p.dsl.receive_clone(&p.io, head).unwrap(), None);
    assert_eq!(p.dsl.find_guid(&p.io, "p", 77).unwrap().as_deref(), Some("p/a@2"));
    assert_eq!(p.dsl.dataset_features(&p.io, head.obj).unwrap(), [Feature::LARGE_BLOCKS]);
    assert_eq!(p.dsl.dataset_features(&p.io, snap.obj).unwrap(), [Feature::LARGE_BLOCKS]);
    assert_eq!(p.dsl.feature_refcount(&p.io, Feature::LARGE_BLOCKS).unwrap(), Some(2));
    p.dsl.destroy_snapshot(&mut p.io, "p/a@1", false).unwrap();
    p.commit();
}

#[test]
fn bookmarks_outlive_their_snapshots_and_count_what_was_freed() {
    let mut p = Pool::new();
    p.dsl.create_filesystem(&mut p.io, "p/a", &[]).unwrap();
    p.write("p/a", 10, 0..6, 1);
    p.commit();
    p.snap("p/a@1");
    p.dsl.bookmark_create(&mut p.io, "p/a#b", "p/a@1").unwrap();
    p.dsl.bookmark_create(&mut p.io, "p/a#c", "p/a#b").unwrap();
    p.commit();
    p.write("p/a", 10, 0..2, 2);
    p.commit();
    p.snap("p/a@2");
    p.write("p/a", 10, 2..3, 3);
    p.commit();
    let by_snap = p.dsl.prop(&p.io, "p/a", "written@1").unwrap().unwrap().value;
    let by_mark = p.dsl.prop(&p.io, "p/a", "written#b").unwrap().unwrap().value;
    assert_eq!(by_snap, by_mark);
    p.dsl.destroy_snapshot(&mut p.io, "p/a@1", false).unwrap();
    p.commit();
    assert_eq!(p.dsl.prop(&p.io, "p/a", "written#b").unwrap().unwrap().value, by_mark);
    assert!(matches!(p.dsl.lookup(&p.io, "p/a#c").unwrap(), Found::Bookmark { .. }));
    for mark in ["p/a#b", "p/a#c"] {
        p.dsl.bookmark_destroy(&mut p.io, mark).unwrap();
        p.commit();
    }
    p.dsl.destroy_snapshot(&mut p.io, "p/a@2", false).unwrap();
    p.commit();
    for f in [Feature::BOOKMARKS, Feature::BOOKMARK_V2, Feature::BOOKMARK_WRITTEN] {
        assert_eq!(p.dsl.feature_refcount(&p.io, f).unwrap(), Some(0), "{}", f.name);
    }
}

#[test]
fn holds_keep_a_snapshot_until_the_last_release() {
    let mut p = Pool::new();
    p.snap("p@s");
    p.dsl.hold(&mut p.io, "p@s", "one").unwrap();
    p.dsl.hold(&mut p.io, "p@s", "two").unwrap();
    assert!(matches!(p.dsl.hold(&mut p.io, "p@s", "one"), Err(DslError::Exists(_))));
    p.commit();
    assert!(matches!(p.dsl.destroy_snapshot(&mut p.io, "p@s", false), Err(DslError::Busy(_))));
    assert!(!p.dsl.destroy_snapshot(&mut p.io, "p@s", true).unwrap());
    assert_eq!(p.dsl.prop(&p.io, "p@s", "userrefs").unwrap().unwrap().value, "2");
    p.dsl.release(&mut p.io, "p@s", "one").unwrap();
    p.commit();
    p.dsl.release(&mut p.io, "p@s", "two").unwrap();
    p.commit();
    assert!(p.dsl.snapshots(&p.io, "p").unwrap().is_empty());
}

#[test]
fn properties_come_from_here_from_above_from_a_stream_or_from_the_table() {
    let mut p = Pool::new();
    p.dsl.create_filesystem(&mut p.io, "p/a", &[("atime", "off")]).unwrap();
    p.dsl.create_filesystem(&mut p.io, "p/a/b", &[]).unwrap();
    let b = p.head("p/a/b");
    p.dsl.prop_set(&mut p.io, "p", "compression", "zstd-7").unwrap();
    p.dsl.prop_set_raw(&mut p.io, b, "recordsize", &Value::Number(1 << 20), SetSource::Received).unwrap();
    p.dsl.set_has_received_props(&mut p.io, b.dir).unwrap();
    p.commit();
    let get = |p: &Pool, name: &str, prop: &str| {
        let row = p.dsl.prop(&p.io, name, prop).unwrap().unwrap();
        (row.value, row.source.text())
    };
    let row = |v: &str, s: &str| (v.to_string(), s.to_string());
    assert_eq!(get(&p, "p/a/b", "atime"), row("off", "inherited from p/a"));
    assert_eq!(get(&p, "p/a/b", "compression"), row("zstd-7", "inherited from p"));
    assert_eq!(get(&p, "p/a/b", "recordsize"), row("1048576", "received"));
    assert_eq!(get(&p, "p/a/b", "mountpoint"), row("/p/a/b", "default"));
    p.dsl.prop_inherit(&mut p.io, b, "recordsize", false).unwrap();
    assert_eq!(get(&p, "p/a/b", "recordsize"), row("131072", "default"));
    p.dsl.prop_inherit(&mut p.io, b, "recordsize", true).unwrap();
    assert_eq!(get(&p, "p/a/b", "recordsize"), row("1048576", "received"));
    p.dsl.prop_set(&mut p.io, "p", "mountpoint", "/back").unwrap();
    assert_eq!(get(&p, "p/a/b", "mountpoint"), row("/back/a/b", "inherited from p"));
    p.dsl.prop_set(&mut p.io, "p/a", "redundant_metadata", "none").unwrap();
    assert_eq!(get(&p, "p/a/b", "redundant_metadata"), row("none", "inherited from p/a"));
    for (prop, value) in [("used", "1"), ("nonsense", "1"), ("atime", "maybe"), ("recordsize", "1000")] {
        assert!(p.dsl.prop_set(&mut p.io, "p/a", prop, value).is_err(), "{prop}={value}");
    }
    p.commit();
}

#[test]
fn reservations_are_charged_above_and_absorb_what_is_written() {
    let mut p = Pool::new();
    p.dsl.create_filesystem(&mut p.io, "p/a", &[]).unwrap();
    p.commit();
    p.dsl.prop_set(&mut p.io, "p/a", "reservation", "1M").unwrap();
    p.dsl.prop_set(&mut p.io, "p/a", "refreservation", "512K").unwrap();
    p.commit();
    p.write("p/a", 10, 0..60, 1);
    p.commit();
    p.snap("p/a@1");
    p.write("p/a", 10, 0..200, 2);
    p.commit();
    let used = |p: &Pool| p.dsl.dir(&p.io, p.dsl.root_dir()).unwrap().used_bytes;
    let before = used(&p);
    p.dsl.destroy_snapshot(&mut p.io, "p/a@1", false).unwrap();
    p.commit();
    assert!(used(&p) < before);
    p.dsl.destroy_head(&mut p.io, "p/a").unwrap();
    p.commit();
    let dd = p.dsl.dir(&p.io, p.dsl.root_dir()).unwrap();
    assert_eq!(dd.used_breakdown[Used::ChildRsrv as usize] + dd.used_breakdown[Used::Child as usize], 0);
}

#[test]
fn directories_move_with_their_space() {
    let mut p = Pool::new();
    for name in ["p/a", "p/a/x", "p/b"] {
        p.dsl.create_filesystem(&mut p.io, name, &[]).unwrap();
    }
    p.write("p/a/x", 10, 0..9, 1);
    p.commit();
    p.dsl.rename(&mut p.io, "p/a/x", "p/b/y").unwrap();
    p.commit();
    assert_eq!(p.dsl.descendants(&p.io, "p").unwrap(), ["p", "p/a", "p/b", "p/b/y"]);
    assert!(p.dsl.rename(&mut p.io, "p/b", "p/b/y/z").is_err());
    assert!(p.dsl.rename(&mut p.io, "p/b", "p/a").is_err());
}
