//! Limits on the number of file systems and snapshots, and the counts they are held against.

use super::Pool;
use crate::{DslError, Who};

const FS: &str = "com.joyent:filesystem_count";
const SNAPS: &str = "com.joyent:snapshot_count";

impl Pool {
    fn counts(&self, name: &str) -> Option<(u64, u64)> {
        let dir = self.dsl.lookup_dir(&self.io, name).unwrap();
        let field = |f| self.dsl.field_u64(&self.io, dir, f).unwrap();
        Some((field(FS)?, field(SNAPS)?))
    }

    /// Every count is that of what is there.
    fn recount(&self, when: &str) {
        for name in self.dsl.descendants(&self.io, "p").unwrap() {
            let below = self.dsl.descendants(&self.io, &name).unwrap();
            let snaps: usize = below.iter().map(|n| self.dsl.snapshots(&self.io, n).unwrap().len()).sum();
            if let Some(counts) = self.counts(&name) {
                assert_eq!(counts, (below.len() as u64 - 1, snaps as u64), "{when}: {name}");
                assert!(below.iter().all(|n| self.counts(n).is_some()), "{when}: below {name}");
            }
        }
    }
}

#[test]
fn counts_begin_with_the_first_limit_and_follow_everything() {
    let mut p = Pool::with(&["p/a", "p/a/b", "p/a/b/c", "p/x"]);
    p.snap("p/a/b@1");
    p.snap("p/x@1");
    assert_eq!(p.counts("p/a"), None);
    p.set("p/a", "filesystem_limit", "10").unwrap();
    assert_eq!((p.counts("p"), p.counts("p/a"), p.counts("p/x")), (None, Some((2, 1)), None));
    assert_eq!(p.counts("p/a/b/c"), Some((0, 0)));
    let io = &mut p.io;
    // A clone, a rename within, one from where nothing is counted, one to there and back, a promotion.
    let origin = p.dsl.lookup_dataset(io, "p/x@1").unwrap();
    p.dsl.clone_snapshot(io, origin, "p/a/clone").unwrap();
    p.commit();
    p.recount("cloned");
    p.dsl.rename(&mut p.io, "p/a/b/c", "p/a/c").unwrap();
    p.commit();
    p.recount("renamed within");
    p.dsl.promote(&mut p.io, "p/a/clone").unwrap();
    p.commit();
    p.recount("promoted");
    assert_eq!(p.counts("p/a"), Some((3, 2)));
    p.dsl.rename(&mut p.io, "p/x", "p/a/x").unwrap();
    p.commit();
    p.recount("came in");
    p.dsl.rename(&mut p.io, "p/a/b", "p/b").unwrap();
    p.commit();
    p.recount("went out");
    assert_eq!(p.counts("p/a"), Some((3, 1)));
    p.snap("p/a/c@later");
    p.dsl.destroy_snapshot(&mut p.io, "p/a/c@later", false).unwrap();
    p.commit();
    p.recount("destroyed a snapshot");
    p.dsl.destroy_head(&mut p.io, "p/a/c").unwrap();
    p.commit();
    p.recount("destroyed a file system");
    assert_eq!(p.counts("p/a"), Some((2, 1)));
    p.dsl.snapshot(&mut p.io, &["p/b@mine"], &[]).unwrap();
    p.commit();
    p.dsl.rollback(&mut p.io, "p/b", None).unwrap();
    p.commit();
    p.recount("rolled back");
}

#[test]
fn limits_bind_what_comes_by_any_way() {
    let mut p = Pool::with(&["p/a", "p/a/b", "p/x", "p/x/y"]);
    p.snap("p/x@1");
    p.set("p/a", "filesystem_limit", "1").unwrap();
    p.set("p/a", "snapshot_limit", "1").unwrap();
    p.recount("set");
    let full =
        |r: Result<(), DslError>, what: &str| assert!(matches!(r, Err(DslError::Quota)), "{what}: {r:?}");
    let made = p.dsl.create_filesystem(&mut p.io, "p/a/c", &[]).map(drop);
    full(made, "created");
    let origin = p.dsl.lookup_dataset(&p.io, "p/x@1").unwrap();
    let made = p.dsl.clone_snapshot(&mut p.io, origin, "p/a/b/c").map(drop);
    full(made, "cloned, two levels below");
    full(p.dsl.rename(&mut p.io, "p/x", "p/a/x"), "renamed");
    p.commit();
    p.recount("refused");
    // Two at once are one too many; one goes, and is the last.
    let both = p.dsl.snapshot(&mut p.io, &["p/a@1", "p/a/b@1"], &[]).map(drop);
    full(both, "two snapshots");
    p.snap("p/a/b@1");
    let one = p.dsl.snapshot(&mut p.io, &["p/a@1"], &[]).map(drop);
    full(one, "another snapshot");
    // Within the limit's own tree nothing is gained.
    p.dsl.rename(&mut p.io, "p/a/b", "p/a/z").unwrap();
    p.commit();
    // A lower limit stays, and is only for what comes; who may lift it is not bound; lifted, it is gone.
    p.set("p/a", "filesystem_limit", "0").unwrap();
    p.dsl.who = Who::default();
    p.dsl.create_filesystem(&mut p.io, "p/a/c", &[]).unwrap();
    p.commit();
    p.recount("by the administrator");
    p.set("p/a", "filesystem_limit", "none").unwrap();
    p.dsl.create_filesystem(&mut p.io, "p/a/d", &[]).unwrap();
    p.commit();
    p.recount("lifted");
    assert_eq!(p.counts("p/a"), Some((3, 1)));
}

/// A promotion brings the snapshots below the clone's limit.
#[test]
fn a_promotion_may_bring_too_many_snapshots() {
    let mut p = Pool::with(&["p/x", "p/a"]);
    for s in ["1", "2", "3"] {
        p.snap(&format!("p/x@{s}"));
    }
    let origin = p.dsl.lookup_dataset(&p.io, "p/x@3").unwrap();
    p.dsl.clone_snapshot(&mut p.io, origin, "p/a/clone").unwrap();
    p.commit();
    p.set("p/a", "snapshot_limit", "2").unwrap();
    let r = p.dsl.promote(&mut p.io, "p/a/clone");
    assert!(matches!(r, Err(DslError::Quota)), "{r:?}");
    p.commit();
    p.set("p/a", "snapshot_limit", "3").unwrap();
    p.dsl.promote(&mut p.io, "p/a/clone").unwrap();
    p.commit();
    p.recount("promoted");
}
