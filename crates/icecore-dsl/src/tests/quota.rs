//! Quotas, reservations and a full pool, for what is written and for what is set.

use super::Pool;
use crate::DslError;
use icecore_dmu::{Form, NewObject, WriteError};
use icecore_format::{Compress, ObjectId, ObjectType};
use std::ops::Range;

const BLOCK: usize = 4096;

fn bytes(seed: u64) -> Vec<u8> {
    (0..BLOCK as u64).map(|i| (i * (seed + 3)) as u8 | 1).collect()
}

impl Pool {
    pub(super) fn with(names: &[&str]) -> Self {
        let mut p = Self::new();
        for name in names {
            p.dsl.create_filesystem(&mut p.io, name, &[]).unwrap();
        }
        p.commit();
        p
    }

    pub(super) fn set(&mut self, name: &str, prop: &str, value: &str) -> Result<(), DslError> {
        let r = self.dsl.prop_set(&mut self.io, name, prop, value);
        self.commit();
        r
    }

    /// Blocks of object 10 as a receive writes them: at once, or as a file's writes: with the commit.
    fn try_write(&mut self, name: &str, mut blocks: Range<u64>, at_once: bool) -> Result<(), WriteError> {
        let head = self.head(name);
        let io = &mut self.io;
        let os = self.dsl.open_dataset(io, head.obj).unwrap();
        let obj = ObjectId(10);
        if os.dnode(io, obj).is_err() {
            let shape = NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, BLOCK as u64);
            os.claim(io, obj, &shape).unwrap();
        }
        if at_once {
            let form = Form::Logical { compress: Compress::OFF, level: 0, encrypt: false };
            return os.write_through(io, obj, blocks.map(|b| (b, bytes(b), form)).collect());
        }
        blocks.try_for_each(|b| os.write(io, obj, b * BLOCK as u64, &bytes(b)))
    }

    /// Sets a limit of so many bytes above what is used. (Nothing is compressed here: metadata is large.)
    fn limit(&mut self, name: &str, prop: &str, more: u64) -> Result<(), DslError> {
        let value = self.used(name) + more;
        self.set(name, prop, &value.to_string())
    }

    fn used(&self, name: &str) -> u64 {
        self.dsl.dir(&self.io, self.head(name).dir).unwrap().used_bytes
    }
}

#[test]
fn a_quota_stops_data_and_leaves_the_dataset_as_it_was() {
    for at_once in [true, false] {
        for (prop, limited) in [("quota", "p/a"), ("quota", "p/a/b"), ("refquota", "p/a/b")] {
            let mut p = Pool::with(&["p/a", "p/a/b", "p/other"]);
            p.try_write("p/a/b", 0..20, at_once).unwrap();
            p.commit();
            p.limit(limited, prop, 400 << 10).unwrap();
            let (used, blocks) = (p.used("p/a/b"), p.io.len());
            let refused = p.try_write("p/a/b", 20..300, at_once);
            assert!(matches!(refused, Err(WriteError::Quota)), "{prop} of {limited}: {refused:?}");
            assert_eq!(p.io.len(), blocks, "what was written before the refusal is given back");
            p.commit();
            assert!(at_once == (p.used("p/a/b") == used), "nothing, or what was buffered before");
            // Others do not mind; nor does the dataset, within its limit.
            p.try_write("p/other", 0..300, at_once).unwrap();
            if at_once {
                p.try_write("p/a/b", 20..40, true).unwrap();
                p.commit();
            }
            // What is full can be emptied, and written again.
            let head = p.head("p/a/b");
            p.dsl.open_dataset(&p.io, head.obj).unwrap().free_object(&mut p.io, ObjectId(10)).unwrap();
            p.commit();
            p.try_write("p/a/b", 0..60, at_once).unwrap();
            p.commit();
        }
    }
}

#[test]
fn a_quota_that_is_used_up_takes_nothing_more() {
    let mut p = Pool::with(&["p/a"]);
    p.try_write("p/a", 0..100, false).unwrap();
    p.commit();
    let used = p.used("p/a");
    p.set("p/a", "quota", &used.to_string()).unwrap();
    for at_once in [true, false] {
        assert!(matches!(p.try_write("p/a", 100..101, at_once), Err(WriteError::Quota)));
    }
    p.commit();
    // Blocks that only the head has may be replaced while there is room at all.
    p.set("p/a", "quota", &(used + 30_000).to_string()).unwrap();
    p.try_write("p/a", 0..100, true).unwrap();
    p.commit();
    p.snap("p/a@kept");
    assert!(matches!(p.try_write("p/a", 0..100, true), Err(WriteError::Quota)), "the snapshot keeps them");
    p.commit();
}

#[test]
fn what_two_datasets_write_in_one_txg_counts_together() {
    let mut p = Pool::with(&["p/a", "p/a/x", "p/a/y"]);
    p.limit("p/a", "quota", 1 << 20).unwrap();
    p.try_write("p/a/x", 0..150, true).unwrap();
    assert!(matches!(p.try_write("p/a/y", 0..150, true), Err(WriteError::Quota)));
    p.try_write("p/a/y", 0..50, true).unwrap();
    p.commit();
}

#[test]
fn a_reservation_is_room_for_its_dataset_and_for_no_other() {
    for (prop, holder) in [("reservation", "p/a"), ("refreservation", "p/a/x"), ("reservation", "p/a/x")] {
        let mut p = Pool::with(&["p/a", "p/a/x", "p/b"]);
        for name in ["p/a/x", "p/b"] {
            p.try_write(name, 0..1, true).unwrap();
        }
        p.commit();
        p.dsl.info.usable = p.used("p") + (2 << 20);
        p.limit(holder, prop, 1 << 20).unwrap();
        assert!(matches!(p.try_write("p/b", 1..300, true), Err(WriteError::NoSpace)), "{prop} of {holder}");
        p.try_write("p/b", 1..100, true).unwrap();
        p.try_write("p/a/x", 1..250, true).unwrap();
        assert!(matches!(p.try_write("p/a/x", 250..600, false), Err(WriteError::NoSpace)));
        p.commit();
    }
}

#[test]
fn limits_that_do_not_fit_are_not_set() {
    let mut p = Pool::with(&["p/a", "p/a/x"]);
    p.try_write("p/a/x", 0..100, true).unwrap();
    p.commit();
    p.dsl.info.usable = p.used("p") + (1 << 20);
    let below = |p: &Pool, name: &str| (p.used(name) - 1000).to_string();
    for name in ["p/a", "p/a/x"] {
        let value = below(&p, name);
        assert!(matches!(p.set(name, "quota", &value), Err(DslError::NoSpace)), "quota of {name}");
    }
    let value = below(&p, "p/a/x");
    assert!(matches!(p.set("p/a/x", "refquota", &value), Err(DslError::NoSpace)));
    for (name, prop) in [("p/a/x", "reservation"), ("p/a/x", "refreservation"), ("p", "reservation")] {
        assert!(matches!(p.limit(name, prop, 2 << 20), Err(DslError::NoSpace)), "{prop} of {name}");
        p.limit(name, prop, 300 << 10).unwrap();
        p.set(name, prop, "none").unwrap();
    }
    p.limit("p/a/x", "reservation", 600 << 10).unwrap();
    assert!(matches!(p.limit("p/a/x", "quota", 500 << 10), Err(DslError::NoSpace)), "below the reservation");
    p.limit("p/a/x", "refquota", 500 << 10).unwrap();
    assert!(
        matches!(p.limit("p/a/x", "refreservation", 600 << 10), Err(DslError::NoSpace)),
        "above refquota"
    );
    p.limit("p/a/x", "refreservation", 400 << 10).unwrap();
    let value = (p.used("p/a/x") - (100 << 10)).to_string();
    assert!(matches!(p.set("p/a/x", "refquota", &value), Err(DslError::NoSpace)), "below refreservation");
    p.limit("p/a", "quota", 700 << 10).unwrap();
    assert!(matches!(p.limit("p/a", "reservation", 800 << 10), Err(DslError::NoSpace)), "above the quota");
    for prop in ["quota", "refquota", "reservation", "refreservation"] {
        p.set("p/a/x", prop, "none").unwrap();
    }
}
