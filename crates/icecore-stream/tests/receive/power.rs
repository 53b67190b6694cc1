//! Power cut at every write and flush of a receive, full and then incremental: the pool opens at the last
//! committed txg or the one in flight, and a restart (resumed, or from the start) finishes the job.

use crate::damage::single;
use crate::make::{put_together, raw_full, raw_next, resumed};
use crate::support::{SimPool, kinds, to};
use icecore_format::stream::Record;
use icecore_stream::receive::ReceiveSpec;
use std::sync::Arc;

type Records = Vec<(Record, Vec<u8>)>;

fn snap_of(records: &Records) -> String {
    let Record::Begin(b) = &records[0].0 else { panic!("no BEGIN") };
    b.toname.as_str().unwrap().split_once('@').unwrap().1.to_string()
}

fn spec(target: &str) -> ReceiveSpec {
    ReceiveSpec { resumable: true, commit_bytes: 250_000, ..to(target) }
}

/// Receives `records` onto what `base` holds, power ending after `cut` operations. Whether that was early enough.
fn cut_at(name: &str, base: &SimPool, records: &Records, want: &[u8], cut: u64) -> bool {
    let target = format!("{name}/x");
    let full = format!("{target}@{}", snap_of(records));
    let stream = put_together(records);
    let mut pool = SimPool::on(name, Arc::new(base.disk.fork()), 1);
    let before = pool.names();
    pool.disk.cut_after(cut);
    let done = pool.receive(&stream, &spec(&target)).is_ok();
    let disk = pool.disk.clone();
    drop(pool);
    for seed in 0..2 {
        let mut pool = SimPool::on(name, Arc::new(disk.crash(seed + 2 * cut)), 2);
        let visible = pool.names().contains(&full);
        assert!(visible || !done, "cut {cut}: an acknowledged snapshot is gone");
        let rest = match pool.stopped_at(&target) {
            _ if visible => None,
            Some((object, offset)) => Some(put_together(&resumed(records, object, offset))),
            None => {
                assert_eq!(pool.names(), before, "cut {cut}: something is left that cannot be resumed");
                Some(stream.clone())
            }
        };
        if let Some(rest) = rest {
            pool.receive(&rest, &spec(&target)).unwrap_or_else(|e| panic!("cut {cut}, seed {seed}: {e:?}"));
        }
        assert_eq!(format!("{:?}", pool.contents(&full)).into_bytes(), want, "cut {cut}, seed {seed}");
        if cut % 40 == 7 && seed == 0 {
            pool.judge();
        }
    }
    !done
}

fn sweep(name: &str, base: &SimPool, records: &Records) -> u64 {
    let mut whole = SimPool::on(name, Arc::new(base.disk.fork()), 3);
    whole.receive(&put_together(records), &spec(&format!("{name}/x"))).unwrap();
    let want = format!("{:?}", whole.contents(&format!("{name}/x@{}", snap_of(records)))).into_bytes();
    let mut cut = 0;
    while cut_at(name, base, records, &want, cut) {
        cut += 1;
    }
    cut
}

#[test]
fn a_full_and_a_raw_incremental_receive_survive_a_cut_at_every_write() {
    let mut base = SimPool::new("powerraw");
    let cuts = sweep("powerraw", &base, &raw_full());
    assert!(cuts > 50, "{cuts} writes in a receive: was anything cut?");
    base.receive(&put_together(&raw_full()), &to("powerraw/x")).unwrap();
    let cuts = sweep("powerraw", &base, &raw_next(9));
    assert!(cuts > 50, "{cuts} writes in an incremental receive: was anything cut?");
}

#[test]
fn a_plain_receive_survives_a_cut_at_every_write() {
    let base = SimPool::new("powerplain");
    let cuts = sweep("powerplain", &base, &single(&kinds()));
    assert!(cuts > 50, "{cuts} writes in a receive: was anything cut?");
}
