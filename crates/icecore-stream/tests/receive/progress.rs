//! What is told of a receive while it runs, and what a process that is killed in the middle of one keeps.

use crate::make::{put_together, raw_full, raw_next, resumed};
use crate::support::{SimPool, force, kinds, to};
use icecore_dmu::BlockWriter;
use icecore_dsl::Dsl;
use icecore_env::Clock;
use icecore_format::fletcher::Fletcher4;
use icecore_sim::{SimClock, SimDisk};
use icecore_stream::receive::{Engine, Progress, ReceiveError, ReceiveSpec, receive};
use icecore_transform::crypt::MasterKeys;
use std::io::Read;
use std::sync::Arc;

#[test]
fn the_bytes_told_of_a_stream_are_its_own() {
    let mut pool = SimPool::new("count");
    let (full, next) = (put_together(&raw_full()), put_together(&raw_next(9)));
    for (stream, target, single) in [
        (full, "count/x", true),
        (next.clone(), "count/x", true),
        (next, "count/x", false),
        (kinds(), "count/k", false),
    ] {
        let (mut read, mut began, mut told) = (0, 0, Vec::new());
        let got = receive(&mut pool, &mut stream.as_slice(), &to(target), Fletcher4::of, &mut |p| match p {
            Progress::Bytes(n) => read = n,
            Progress::Begin { .. } => began = read,
            Progress::Done(_) => told.push(read - began),
            _ => {}
        })
        .unwrap();
        assert_eq!(read, stream.len() as u64, "all that was read is told in the end");
        assert_eq!(told, got.snapshots.iter().map(|s| s.bytes).collect::<Vec<_>>());
        if single {
            assert_eq!(told, [stream.len() as u64]);
        }
        assert!(told.iter().all(|n| *n >= 624), "{told:?}");
    }
}

/// A pool whose receive goes by a clock of its own.
struct Timed {
    pool: SimPool,
    clock: Arc<SimClock>,
}

impl Engine for Timed {
    fn parts(&mut self) -> (&mut dyn BlockWriter, &mut Dsl) {
        self.pool.parts()
    }
    fn commit(&mut self) -> Result<(), String> {
        self.pool.commit()
    }
    fn abandon(&mut self) -> Result<(), String> {
        self.pool.abandon()
    }
    fn now_ns(&mut self) -> u64 {
        self.clock.monotonic_ns()
    }
    fn add_keys(&mut self, objset: u64, keys: Arc<MasterKeys>) {
        self.pool.add_keys(objset, keys);
    }
}

/// A sender that takes `secs` for every kibibyte, and the disk as a kill would find it near the end.
struct Slow<'a> {
    stream: &'a [u8],
    at: usize,
    secs: u64,
    clock: Arc<SimClock>,
    disk: Arc<SimDisk>,
    killed: Option<SimDisk>,
}

impl Read for Slow<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = out.len().min(1024).min(self.stream.len() - self.at);
        out[..n].copy_from_slice(&self.stream[self.at..self.at + n]);
        self.at += n;
        self.clock.advance_ns(self.secs * 1_000_000_000 * n as u64 / 1024);
        if self.at + 1000 > self.stream.len() && self.killed.is_none() {
            self.killed = Some(self.disk.crash_losing_nothing());
        }
        Ok(n)
    }
}

#[test]
fn a_kill_costs_seconds_not_megabytes() {
    let records = raw_full();
    let stream = put_together(&records);
    for (name, secs, resumable, kept) in
        [("slow", 1, true, true), ("quick", 0, true, false), ("once", 1, false, false)]
    {
        let pool = SimPool::new(name);
        let target = format!("{name}/x");
        let clock = Arc::new(SimClock::new(0, 0));
        let mut input = Slow {
            stream: &stream,
            at: 0,
            secs,
            clock: clock.clone(),
            disk: pool.disk.clone(),
            killed: None,
        };
        let mut engine = Timed { pool, clock };
        let spec = ReceiveSpec { resumable, ..to(&target) };
        receive(&mut engine, &mut input, &spec, Fletcher4::of, &mut |_| {}).unwrap();
        // Commits are told by time alone, so runs can be had again.
        let killed = input.killed.expect("the stream was read to its end");
        let mut pool = SimPool::on(name, Arc::new(killed), 2);
        let exists = pool.names().contains(&target);
        assert_eq!(exists, kept, "{name}");
        let Some((object, offset)) = exists.then(|| pool.stopped_at(&target).unwrap()) else { continue };
        assert!((object, offset) > (0, 0));
        pool.receive(&put_together(&resumed(&records, object, offset)), &spec).unwrap();
        let whole = engine.pool.contents(&format!("{target}@one"));
        assert_eq!(pool.contents(&format!("{target}@one")), whole);
        pool.judge_blocks();
    }
}

/// As `zfs receive`: only in a package is a full stream skipped because its snapshot is here.
#[test]
fn a_full_stream_of_what_is_here_needs_room_made_for_it() {
    let mut pool = SimPool::new("again");
    let stream = put_together(&raw_full());
    pool.receive(&stream, &to("again/x")).unwrap();
    let before = pool.names();
    for dry_run in [true, false] {
        let got = pool.receive(&stream, &ReceiveSpec { dry_run, ..to("again/x") }).unwrap_err();
        assert!(matches!(&got, ReceiveError::Exists(n) if n == "again/x"), "{got:?}");
        let got = pool.receive(&stream, &ReceiveSpec { dry_run, ..force("again/x") }).unwrap_err();
        assert!(matches!(got, ReceiveError::HasSnapshots { .. }), "{got:?}");
    }
    assert_eq!(pool.names(), before);
    let package = kinds();
    pool.receive(&package, &to("again/k")).unwrap();
    assert_eq!(pool.receive(&package, &to("again/k")).unwrap().present.len(), 1);
}
