//! Streams cut and flipped anywhere: nothing is left behind. And resumed ones: nothing is missing.

use crate::make::{put_together, raw_full, raw_next, resumed, take_apart};
use crate::support::{SimPool, kinds, to};
use icecore_format::stream::Record;
use icecore_stream::receive::{ReceiveError, ReceiveSpec};

pub fn single(stream: &[u8]) -> Vec<(Record, Vec<u8>)> {
    // The first stream of a package stands alone as well.
    let all = take_apart(stream);
    let from = all.iter().position(|(_, r, _)| matches!(r, Record::Begin(b) if !b.is_compound())).unwrap();
    let len = all[from..].iter().position(|(_, r, _)| matches!(r, Record::End(_))).unwrap();
    all[from..=from + len].iter().map(|(_, r, p)| (r.clone(), p.clone())).collect()
}

#[test]
fn cut_anywhere_leaves_nothing() {
    for (name, records) in [("cutplain", single(&kinds())), ("cutraw", raw_full())] {
        let stream = put_together(&records);
        let mut pool = SimPool::new(name);
        let (before, space) = (pool.names(), pool.pool().space().allocated);
        for (offset, record, payload) in take_apart(&stream) {
            let end = offset + 312 + payload.len() as u64;
            for cut in [end - 1, end, end + 1] {
                let Some(part) = stream.get(..cut as usize).filter(|p| p.len() < stream.len()) else {
                    continue;
                };
                let got = pool.receive(part, &to(&format!("{name}/x")));
                assert!(got.as_ref().is_err_and(ReceiveError::is_transport), "{record:?} {cut}: {got:?}");
                assert_eq!((pool.names(), pool.pool().space().allocated), (before.clone(), space));
            }
        }
        pool.receive(&stream, &to(&format!("{name}/x"))).unwrap();
        pool.judge();
    }
}

#[test]
fn a_flipped_bit_leaves_nothing() {
    for (name, records) in [("flipplain", single(&kinds())), ("flipraw", raw_full())] {
        let stream = put_together(&records);
        let mut pool = SimPool::new(name);
        let before = pool.names();
        for (offset, record, payload) in take_apart(&stream) {
            let len = 312 + payload.len();
            for at in [0, 4, 8, 17, 40, 120, 279, 290, 311, 312, len - 1] {
                if at >= len {
                    continue;
                }
                let mut bad = stream.clone();
                bad[offset as usize + at] ^= 0x10;
                let got = pool.receive(&bad, &to(&format!("{name}/x")));
                let harmless = matches!(record, Record::End(_)) && at >= 40;
                assert!(got.is_err() || harmless, "{record:?} byte {at}: {got:?}");
                if got.is_err() {
                    assert_eq!(pool.names(), before, "{record:?} byte {at}");
                } else {
                    pool.destroy(&format!("{name}/x"));
                }
            }
        }
        pool.receive(&stream, &to(&format!("{name}/x"))).unwrap();
        pool.judge();
    }
}

fn resumable(target: &str) -> ReceiveSpec {
    ReceiveSpec { resumable: true, commit_bytes: 20_000, ..to(target) }
}

#[test]
fn resumed_after_a_cut_anywhere_is_the_same() {
    for (name, records) in [("resplain", single(&kinds())), ("resraw", raw_full())] {
        let stream = put_together(&records);
        let mut whole = SimPool::new(name);
        whole.receive(&stream, &to(&format!("{name}/x"))).unwrap();
        let Record::Begin(b) = &records[0].0 else { panic!() };
        let snap = b.toname.as_str().unwrap().split_once('@').unwrap().1.to_string();
        let full = format!("{name}/x@{snap}");
        let want = whole.contents(&full);
        let mut pool = SimPool::new(name);
        for (i, (offset, _, _)) in take_apart(&stream).iter().enumerate().skip(2) {
            let target = format!("{name}/x");
            let err = pool.receive(&stream[..*offset as usize], &resumable(&target)).unwrap_err();
            assert!(err.is_transport(), "{err:?}");
            pool.reopen();
            let (object, point) = pool.resume_point(&target);
            // A stream that resumes elsewhere, and one that starts anew, are refused.
            let other = put_together(&resumed(&records, object, point + 512));
            let refused = pool.receive(&other, &resumable(&target)).unwrap_err();
            assert!(matches!(refused, ReceiveError::ResumePoint { .. }), "{refused:?}");
            let refused = pool.receive(&stream, &resumable(&target)).unwrap_err();
            assert!(matches!(refused, ReceiveError::Exists(_)), "{refused:?}");
            let rest = put_together(&resumed(&records, object, point));
            pool.receive(&rest, &resumable(&target)).unwrap_or_else(|e| panic!("record {i}: {e:?}"));
            assert_eq!(pool.contents(&full), want, "cut at record {i}");
            if i % 16 == 2 {
                pool.judge();
            }
            pool.destroy(&target);
        }
    }
}

#[test]
fn an_interrupted_receive_can_be_given_up() {
    let records = raw_full();
    let stream = put_together(&records);
    let mut pool = SimPool::new("abort");
    let before = pool.names();
    let cut = &stream[..stream.len() / 2];
    pool.receive(cut, &resumable("abort/x")).unwrap_err();
    assert_ne!(pool.names(), before);
    icecore_stream::receive::abort(&mut pool, "abort/x").unwrap();
    assert_eq!(pool.names(), before);
    let nothing = icecore_stream::receive::abort(&mut pool, "abort").unwrap_err();
    assert!(matches!(nothing, ReceiveError::NothingToAbort(_)));
    // The same over a dataset that exists: it stays as it is.
    pool.receive(&stream, &to("abort/x")).unwrap();
    let (names, want) = (pool.names(), pool.contents("abort/x"));
    let next = put_together(&raw_next(9));
    pool.receive(&next[..next.len() - 400], &resumable("abort/x")).unwrap_err();
    assert_eq!(pool.contents("abort/x"), want);
    let refused = pool.receive(&next, &to("abort/x")).unwrap_err();
    assert!(matches!(refused, ReceiveError::PartialState(_)), "{refused:?}");
    icecore_stream::receive::abort(&mut pool, "abort/x").unwrap();
    assert_eq!((pool.names(), pool.contents("abort/x")), (names, want));
    pool.receive(&next, &to("abort/x")).unwrap();
    pool.judge();
}

/// A power cut at any moment of a receive: after it the dataset is there as before, or complete.
#[test]
fn a_raw_incremental_is_all_or_nothing() {
    let mut pool = SimPool::new("atomic");
    pool.receive(&put_together(&raw_full()), &to("atomic/x")).unwrap();
    let before = pool.contents("atomic/x");
    let next = put_together(&raw_next(9));
    let base = pool.disk.fork();
    pool.receive(&next, &ReceiveSpec { commit_bytes: 1, ..to("atomic/x") }).unwrap();
    let after = pool.contents("atomic/x");
    assert_ne!(before, after);
    pool.judge();
    let mut seen = [0; 2];
    for n in (1..200).step_by(7) {
        pool.disk = std::sync::Arc::new(base.fork());
        pool.reopen();
        pool.disk.cut_after(n);
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.receive(&next, &ReceiveSpec { commit_bytes: 1, ..to("atomic/x") })
        }));
        pool.disk = std::sync::Arc::new(pool.disk.crash(n));
        pool.reopen();
        let now = pool.contents("atomic/x");
        assert!(now == before || now == after, "cut after write {n}");
        seen[usize::from(now == after)] += 1;
    }
    assert!(seen[0] > 0, "{seen:?}");
}
