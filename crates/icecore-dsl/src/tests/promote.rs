//! Promotions: single ones with what they must leave behind, and random histories of clones of clones.

use super::Pool;
use crate::{DslError, Feature};
use icecore_dmu::BlockStore;
use icecore_format::ObjectId;
use std::collections::{BTreeMap, BTreeSet};

fn content(p: &Pool, name: &str) -> Vec<u8> {
    let r = p.dsl.lookup_dataset(&p.io, name).unwrap();
    let os = p.dsl.objset(&p.io, r.obj, icecore_dmu::Want::Logical).unwrap();
    let io: &dyn BlockStore = &p.io;
    if os.dnode(io, ObjectId(10)).is_err() {
        return Vec::new();
    }
    os.read(io, ObjectId(10), 0, 4096 * 24).unwrap()
}

/// What the links between datasets must be: clones in both tables, origins with names.
fn links(p: &Pool) {
    let (dsl, io) = (&p.dsl, &p.io);
    let mut clones_of_dir: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut nexts: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut children: BTreeMap<u64, u64> = BTreeMap::new();
    let all = dsl.descendants(io, "p").unwrap();
    for name in &all {
        let head = p.head(name);
        let dd = dsl.dir(io, head.dir).unwrap();
        let origin = dsl.dataset(io, dd.origin_obj).unwrap();
        clones_of_dir.entry(origin.dir_obj).or_default().insert(head.obj);
        let mut obj = head.obj;
        loop {
            let ds = dsl.dataset(io, obj).unwrap();
            assert_eq!(ds.dir_obj, head.dir, "{name}: {obj} is of another directory");
            *children.entry(ds.prev_snap_obj).or_default() += 1;
            if ds.prev_snap_obj == dd.origin_obj {
                nexts.entry(dd.origin_obj).or_default().insert(obj);
                break;
            }
            assert_eq!(dsl.dataset(io, ds.prev_snap_obj).unwrap().next_snap_obj, obj);
            obj = ds.prev_snap_obj;
        }
    }
    for name in &all {
        let head = p.head(name);
        let dd = dsl.dir(io, head.dir).unwrap();
        let table = |zap: u64| -> BTreeSet<u64> {
            dsl.zap_list_u64(io, zap).unwrap().into_iter().map(|(_, v)| v).collect()
        };
        assert_eq!(table(dd.clones), clones_of_dir.remove(&head.dir).unwrap_or_default(), "clones of {name}");
        for (snap, r) in dsl.snapshots(io, name).unwrap() {
            let ds = dsl.dataset(io, r.obj).unwrap();
            assert_eq!(table(ds.next_clones_obj), nexts.remove(&r.obj).unwrap_or_default(), "{name}@{snap}");
            assert_eq!(Some(&ds.num_children), children.get(&r.obj), "{name}@{snap}");
        }
    }
}

#[test]
fn a_promoted_clone_owns_the_snapshots_and_the_rest_is_as_it_was() {
    let mut p = Pool::new();
    p.dsl.create_filesystem(&mut p.io, "p/a", &[]).unwrap();
    p.write("p/a", 10, 0..6, 1);
    p.commit();
    p.snap("p/a@1");
    p.dsl.bookmark_create(&mut p.io, "p/a#early", "p/a@1").unwrap();
    p.write("p/a", 10, 2..8, 2);
    p.commit();
    p.snap("p/a@2");
    p.dsl.bookmark_create(&mut p.io, "p/a#two", "p/a@2").unwrap();
    let two = p.head("p/a@2");
    p.dsl.clone_snapshot(&mut p.io, two, "p/c").unwrap();
    p.write("p/a", 10, 0..3, 3);
    p.commit();
    p.snap("p/a@3");
    p.dsl.bookmark_create(&mut p.io, "p/a#late", "p/a@3").unwrap();
    p.write("p/c", 10, 7..12, 4);
    p.commit();
    p.snap("p/c@own");
    let before: Vec<Vec<u8>> =
        ["p/a", "p/a@1", "p/a@2", "p/a@3", "p/c", "p/c@own"].iter().map(|n| content(&p, n)).collect();
    p.dsl.promote(&mut p.io, "p/c").unwrap();
    p.commit();
    links(&p);
    let after: Vec<Vec<u8>> =
        ["p/a", "p/c@1", "p/c@2", "p/a@3", "p/c", "p/c@own"].iter().map(|n| content(&p, n)).collect();
    assert_eq!(before, after);
    let origin = |p: &Pool, n: &str| p.dsl.prop(&p.io, n, "origin").unwrap().map(|r| r.value);
    assert_eq!(origin(&p, "p/a").as_deref(), Some("p/c@2"));
    assert_eq!(origin(&p, "p/c").as_deref(), None);
    let marks = |p: &Pool, n: &str| -> Vec<String> {
        p.dsl.bookmarks(&p.io, n).unwrap().into_iter().map(|(n, _)| n).collect()
    };
    assert_eq!(
        (marks(&p, "p/c"), marks(&p, "p/a")),
        (vec!["early".into(), "two".into()], vec!["late".into()])
    );
    for f in [Feature::BOOKMARK_WRITTEN, Feature::BOOKMARK_V2] {
        assert_eq!(p.dsl.feature_refcount(&p.io, f).unwrap(), Some(3), "{}", f.name);
    }
    // And back again.
    p.dsl.promote(&mut p.io, "p/a").unwrap();
    p.commit();
    links(&p);
    assert_eq!(origin(&p, "p/c").as_deref(), Some("p/a@2"));
    assert!(matches!(p.dsl.promote(&mut p.io, "p/a"), Err(DslError::Invalid(_))));
}

#[test]
fn names_that_are_taken_stand_in_the_way_of_a_promotion() {
    let mut p = Pool::new();
    p.dsl.create_filesystem(&mut p.io, "p/a", &[]).unwrap();
    p.commit();
    p.snap("p/a@1");
    p.snap("p/a@2");
    p.dsl.bookmark_create(&mut p.io, "p/a#m", "p/a@1").unwrap();
    let two = p.head("p/a@2");
    p.dsl.clone_snapshot(&mut p.io, two, "p/c").unwrap();
    p.commit();
    p.snap("p/c@1");
    p.dsl.bookmark_create(&mut p.io, "p/c#m", "p/c@1").unwrap();
    p.commit();
    let names = match p.dsl.promote(&mut p.io, "p/c") {
        Err(DslError::Conflict(names)) => names,
        other => panic!("{other:?}"),
    };
    assert_eq!(names, ["1", "m"]);
    assert!(!p.dsl.is_dirty());
    p.dsl.destroy_snapshot(&mut p.io, "p/c@1", false).unwrap();
    p.dsl.bookmark_destroy(&mut p.io, "p/c#m").unwrap();
    p.commit();
    p.write("p/a", 10, 0..9, 1);
    p.commit();
    p.dsl.promote(&mut p.io, "p/c").unwrap();
    p.commit();
    p.snap("p/a@3");
    let three = p.head("p/a@3");
    p.dsl.clone_snapshot(&mut p.io, three, "p/d").unwrap();
    p.dsl.prop_set(&mut p.io, "p/d", "quota", "8K").unwrap();
    p.commit();
    assert!(matches!(p.dsl.promote(&mut p.io, "p/d"), Err(DslError::NoSpace)));
    assert!(!p.dsl.is_dirty());
}

struct Dice(u64);
impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

/// Every txg of these histories is held against a walk over all blocks ([`Pool::commit`]), the links, and the
/// contents of all that should be there.
#[test]
fn random_histories_of_clones_of_clones() {
    for seed in 1..=6 {
        let (mut p, mut dice) = (Pool::new(), Dice(seed));
        let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let (mut promoted, mut serial) = (0, 0);
        p.dsl.create_filesystem(&mut p.io, "p/a", &[]).unwrap();
        p.commit();
        for step in 0..160 {
            let heads: Vec<String> =
                p.dsl.descendants(&p.io, "p").unwrap().into_iter().filter(|n| n != "p").collect();
            let snaps: Vec<String> = heads
                .iter()
                .flat_map(|h| {
                    p.dsl.snapshots(&p.io, h).unwrap().into_iter().map(move |(s, _)| format!("{h}@{s}"))
                })
                .collect();
            let head = heads[dice.below(heads.len())].clone();
            let snap = snaps.get(dice.below(snaps.len())).cloned();
            serial += 1;
            match (dice.below(12), snap) {
                (0..=2, _) => {
                    let from = dice.below(16) as u64;
                    p.write(&head, 10, from..from + 1 + dice.below(8) as u64, dice.below(250) as u8);
                    p.commit();
                    model.insert(head.clone(), content(&p, &head));
                }
                (3..=4, _) => p.snap(&format!("{head}@s{serial}")),
                (5, Some(snap)) if heads.len() < 9 => {
                    let r = p.head(&snap);
                    let parent = if dice.below(2) == 0 { "p" } else { &head };
                    let name = format!("{parent}/c{serial}");
                    p.dsl.clone_snapshot(&mut p.io, r, &name).unwrap();
                }
                (6, _) => {
                    let prop = ["reservation", "refreservation"][dice.below(2)];
                    let value = ["none", "40K", "1M"][dice.below(3)];
                    p.dsl.prop_set(&mut p.io, &head, prop, value).unwrap();
                }
                (7, Some(snap)) => drop(p.dsl.destroy_snapshot(&mut p.io, &snap, dice.below(3) == 0)),
                (8, _) if heads.len() > 2 => drop(p.dsl.destroy_head(&mut p.io, &head)),
                (9, Some(snap)) => {
                    let path = snap.split('@').next().unwrap();
                    p.dsl.bookmark_create(&mut p.io, &format!("{path}#b{serial}"), &snap).unwrap();
                    if let Some((old, _)) = p.dsl.bookmarks(&p.io, &head).unwrap().first() {
                        p.dsl.bookmark_destroy(&mut p.io, &format!("{head}#{old}")).unwrap();
                    }
                }
                _ => {
                    if p.dsl.promote(&mut p.io, &head).is_ok() {
                        promoted += 1;
                    }
                }
            }
            p.commit();
            links(&p);
            // By guid: names move, contents do not.
            let mut now = BTreeMap::new();
            for h in p.dsl.descendants(&p.io, "p").unwrap() {
                for (s, r) in p.dsl.snapshots(&p.io, &h).unwrap() {
                    let guid = p.dsl.dataset(&p.io, r.obj).unwrap().guid;
                    now.insert(format!("{guid}"), content(&p, &format!("{h}@{s}")));
                }
                now.insert(h.clone(), content(&p, &h));
            }
            for (name, bytes) in &now {
                if let Some(then) = model.get(name) {
                    assert!(then == bytes, "seed {seed} step {step}: {name} changed");
                }
            }
            model = now;
        }
        assert!(promoted > 3, "seed {seed}: {promoted} promotions");
    }
}
