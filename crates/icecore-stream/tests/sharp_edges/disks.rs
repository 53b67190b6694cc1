//! Bad disks under a receive: full, failing, gone. And what is no disk of ours.
//!
//! Of each: a clear error, no panic, and after opening the pool again it is as it was before, or holds what a
//! resumable receive may keep. `zdb` judges what is left.

use crate::make::{
    Records, begin, chunk, end, file, free_objects, noise, put_together, range, raw_begin, raw_full,
    raw_next, raw_object, raw_write, resumed, take_apart,
};
use crate::support::{SimPool, host, sim_env, to};
use icecore_env::Device;
use icecore_pool::{Mode, OpenSpec, Pool, PoolError};
use icecore_sim::SimDisk;
use icecore_stream::receive::{ReceiveError, ReceiveSpec, abort, receive_plain};
use std::io::Read;
use std::sync::Arc;

/// Small enough to be filled in no time.
const SMALL: u64 = 80 << 20;

/// Something happens when a stream has been read so far.
struct Trip<'a> {
    stream: &'a [u8],
    at: usize,
    left: usize,
    happens: Option<Box<dyn FnOnce() + 'a>>,
}
impl<'a> Trip<'a> {
    fn new(stream: &'a [u8], left: usize, happens: impl FnOnce() + 'a) -> Self {
        Self { stream, at: 0, left, happens: Some(Box::new(happens)) }
    }
}
impl Read for Trip<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.at >= self.left
            && let Some(happens) = self.happens.take()
        {
            happens();
        }
        let stop = if self.happens.is_some() { self.left } else { self.stream.len() };
        let n = out.len().min(stop - self.at);
        out[..n].copy_from_slice(&self.stream[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// A raw stream of `mib` MiB in one file of random blocks.
fn big(toname: &str, guids: (u64, u64), ivsets: (u64, u64), mib: u64) -> Vec<u8> {
    let g = guids.1;
    let blocks = mib * 8;
    let mut out: Records = vec![raw_begin(toname, guids, ivsets, 9), range(g, 32, 3)];
    out.push(raw_object(g, 40, 131_072, 3, blocks - 1));
    out.extend((0..blocks).map(|b| raw_write(g, 40, b * 131_072, 131_072, 131_072)));
    out.push(end(g));
    put_together(&out)
}

fn no_space(e: &ReceiveError) {
    assert!(e.to_string().contains("out of space"), "{e:?}");
}

#[test]
fn full_in_the_middle_of_a_receive() {
    let stream = big("a@one", (0, 0x10), (0, 0x51), 96);
    for (name, commit_bytes) in [("fullone", 0), ("fullmany", 4 << 20)] {
        let mut pool = SimPool::made(name, 1, &[SMALL], 12);
        let target = format!("{name}/x");
        let before = pool.state();
        let got = pool.receive(&stream, &ReceiveSpec { commit_bytes, ..to(&target) }).unwrap_err();
        no_space(&got);
        let now = pool.state();
        assert_eq!((&now.0, &now.1), (&before.0, &before.1), "{got}");
        pool.commit_and_reopen();
        let now = pool.state();
        assert_eq!((&now.0, &now.1), (&before.0, &before.1));
        assert!(now.2 < before.2 + (2 << 20), "{} and before {}", now.2, before.2);
        pool.judge_blocks();
        // There is room for what fits.
        pool.receive(&put_together(&raw_full()), &to(&target)).unwrap();
        pool.judge_blocks();
    }
}

#[test]
fn full_in_the_middle_of_a_resumable_receive() {
    let stream = big("a@one", (0, 0x10), (0, 0x51), 96);
    let mut pool = SimPool::made("fullres", 1, &[SMALL], 12);
    let before = pool.state();
    let spec = ReceiveSpec { resumable: true, commit_bytes: 4 << 20, ..to("fullres/x") };
    no_space(&pool.receive(&stream, &spec).unwrap_err());
    pool.reopen();
    // What was committed is kept, marked, and can be given up though the pool is full.
    let point = pool.resume_point("fullres/x");
    assert!(point.0 == 40 && point.1 > 0, "{point:?}");
    assert!(pool.snapshots().is_empty());
    pool.judge_blocks();
    // On a larger disk it would go on. On this one it stops again, and nothing is lost by that.
    let all: Records = take_apart(&stream).into_iter().map(|(_, r, p)| (r, p)).collect();
    let rest = put_together(&resumed(&all, point.0, point.1));
    no_space(&pool.receive(&rest, &spec).unwrap_err());
    pool.reopen();
    assert!(pool.resume_point("fullres/x") >= point);
    abort(&mut pool, "fullres/x").unwrap();
    pool.commit_and_reopen();
    let now = pool.state();
    assert_eq!((&now.0, &now.1), (&before.0, &before.1));
    pool.judge_blocks();
}

#[test]
fn full_in_the_middle_of_an_increment() {
    let next = big("a@two", (0x1000, 0x2000), (0x51, 0x52), 96);
    for (name, resumable, commit_bytes) in
        [("fullinc", false, 0), ("fullincm", false, 4 << 20), ("fullincr", true, 4 << 20)]
    {
        let mut pool = SimPool::made(name, 1, &[SMALL], 12);
        let target = format!("{name}/x");
        pool.receive(&put_together(&raw_full()), &to(&target)).unwrap();
        let (names, want, key) = (pool.names(), pool.contents(&target), pool.key(&target));
        let spec = ReceiveSpec { resumable, commit_bytes, ..to(&target) };
        no_space(&pool.receive(&next, &spec).unwrap_err());
        pool.reopen();
        assert_eq!((pool.contents(&target), pool.key(&target)), (want.clone(), key));
        if resumable {
            assert!(pool.stopped_at(&target).is_some());
            abort(&mut pool, &target).unwrap();
        }
        assert_eq!(pool.names(), names);
        pool.judge_blocks();
        pool.receive(&put_together(&raw_next(9)), &to(&target)).unwrap();
        pool.judge_blocks();
    }
}

/// A plain stream: blocks are compressed and summed here, and metadata is read back in between.
fn plain_full() -> Records {
    let g = 7;
    let mut out: Records = vec![(begin("a@s", g, 0, 0).into(), vec![])];
    for object in 8..60 {
        out.push(file(object, 4096, 5, g));
        out.extend((0..3).map(|b| chunk(object, b * 4096, 4096, object as u8 + b as u8, g)));
    }
    out.extend([free_objects(g, 60, 100), end(g)]);
    out
}

type Break = (&'static str, fn(&SimDisk));
const BREAKS: [Break; 4] = [
    ("unplugged", |d| d.unplug()),
    ("unwritable", |d| d.plan(|f| f.unwritable.push(0..u64::MAX))),
    ("unreadable", |d| d.plan(|f| f.unreadable.push(0..u64::MAX))),
    ("full below", |d| d.plan(|f| f.sectors_max = Some(0))),
];

fn mend(disk: &SimDisk) {
    disk.set_faults(icecore_sim::Faults::none());
    disk.replug();
}

/// The only disk fails while a stream comes in, at every record (B39: an error anywhere is an error, not a
/// panic): what was there is there, and a new attempt goes through.
#[test]
fn the_only_disk_fails_at_any_record() {
    let cases: [(&str, Records, bool); 3] =
        [("badfull", raw_full(), false), ("badinc", raw_next(9), true), ("badplain", plain_full(), false)];
    let mut leftovers = 0;
    for (name, records, incremental) in cases {
        let mut base = SimPool::made(name, 1, &[SMALL], 12);
        let target = format!("{name}/x");
        if incremental {
            base.receive(&put_together(&raw_full()), &to(&target)).unwrap();
        }
        let stream = put_together(&records);
        let ends: Vec<u64> = take_apart(&stream).iter().map(|(at, ..)| *at).collect();
        let mut failed = 0;
        for (n, i) in (0..ends.len()).step_by((ends.len() / 24).max(1)).enumerate() {
            let at = ends[i];
            let (what, breaks) = BREAKS[n % BREAKS.len()];
            let mut pool = SimPool::on(name, Arc::new(base.disk.fork()), 5);
            let before = pool.state();
            let disk = pool.disk.clone();
            let mut input = Trip::new(&stream, at as usize, || breaks(&disk));
            let resumable = n % 8 < 4;
            let spec = ReceiveSpec { resumable, commit_bytes: 30_000, ..to(&target) };
            let got = receive_plain(&mut pool, &mut input, &spec);
            pool.close();
            mend(&disk);
            pool.reopen();
            match got {
                Ok(_) => assert!(pool.state().1.len() > before.1.len(), "{what} at {at}"),
                Err(e) => {
                    failed += 1;
                    // Not a word about the stream: it is the disk.
                    assert!(!e.is_transport() && !e.to_string().is_empty(), "{what} at {at}: {e:?}");
                    match pool.stopped_at(&target) {
                        Some(_) if resumable => abort(&mut pool, &target).unwrap(),
                        Some(_) => panic!("{what} at {at}: a resume point that nobody asked for"),
                        None => {}
                    }
                    // Nothing could be cleaned up on a disk that takes no writes: what an attempt committed is
                    // there, marked as incomplete, and goes with the next attempt.
                    let hidden = if incremental { format!("{target}/%recv") } else { target.clone() };
                    let names = pool.names();
                    let mut now: Vec<String> = names.clone();
                    if !before.0.contains(&hidden) && names.contains(&hidden) {
                        assert!(!resumable, "{what} at {at}");
                        incomplete(&mut pool, &hidden);
                        leftovers += 1;
                        now.retain(|n| *n != hidden);
                    }
                    assert_eq!((&now, &pool.snapshots()), (&before.0, &before.1), "{what} at {at}: {e}");
                    pool.receive(&stream, &to(&target))
                        .unwrap_or_else(|e| panic!("{what} at {at}: again {e:?}"));
                    assert!(!pool.names().iter().any(|n| n.contains('%')));
                }
            }
            if n % 6 == 0 {
                pool.judge_blocks();
            }
        }
        assert!(failed > 3, "{name}: {failed} of {} failed", ends.len());
    }
    assert!(leftovers > 0, "no attempt ever left anything: was that tested?");
}

/// What a receive could not remove after its disk failed does not look whole.
fn incomplete(pool: &mut SimPool, hidden: &str) {
    let (io, dsl) = pool.pool().parts();
    let head = dsl.lookup_head(io, hidden).unwrap();
    assert!(dsl.dataset(io, head.obj).unwrap().is_inconsistent(), "{hidden} looks whole");
    assert!(dsl.snapshots(io, hidden).unwrap().is_empty());
}

/// One side of a mirror goes: the receive does not, and what it wrote is whole.
#[test]
fn one_side_of_a_mirror_fails_in_the_middle() {
    for (i, (what, breaks)) in BREAKS.into_iter().enumerate() {
        for side in 0..2 {
            let name = format!("mir{i}{side}");
            let target = format!("{name}/x");
            let mut pool = SimPool::made(&name, 3, &[SMALL, SMALL], 12);
            pool.receive(&put_together(&raw_full()), &to(&target)).unwrap();
            let next = put_together(&raw_next(9));
            let disk = if side == 0 { pool.disk.clone() } else { pool.more[0].clone() };
            let mut input = Trip::new(&next, next.len() / 2, || breaks(&disk));
            let spec = ReceiveSpec { commit_bytes: 30_000, ..to(&target) };
            receive_plain(&mut pool, &mut input, &spec)
                .unwrap_or_else(|e| panic!("{what}, side {side}: {e:?}"));
            let want = pool.contents(&format!("{target}@two"));
            if what != "unreadable" {
                assert_eq!(pool.pool().missing().len(), 1, "{what}, side {side}");
            }
            pool.close();
            // The good side alone.
            let (good, bad) = if side == 0 {
                (pool.more[0].clone(), pool.disk.clone())
            } else {
                (pool.disk.clone(), pool.more[0].clone())
            };
            let mut alone = SimPool::on(&name, Arc::new(good.fork()), 9);
            assert_eq!(alone.contents(&format!("{target}@two")), want, "{what}, side {side}, alone");
            alone.close();
            // And with the side that was away, mended: it is not believed where it is behind.
            mend(&bad);
            pool.reopen();
            assert_eq!(pool.contents(&format!("{target}@two")), want, "{what}, side {side}, together");
            let behind = pool.pool().missing().len();
            assert_eq!(behind, usize::from(what != "unreadable"), "{what}, side {side}: its time log");
            pool.snapshot(&format!("{target}@after"));
            pool.judge_blocks();
        }
    }
}

/// Reads fail on one side all the time: the other one answers.
#[test]
fn a_mirror_with_a_side_that_cannot_be_read() {
    let mut pool = SimPool::made("mirread", 3, &[SMALL, SMALL], 12);
    pool.receive(&put_together(&raw_full()), &to("mirread/x")).unwrap();
    pool.reopen();
    // The labels can be read, nothing else.
    pool.more[0].plan(|f| f.unreadable.push((4 << 20)..SMALL - (1 << 20)));
    pool.reopen();
    pool.receive(&put_together(&raw_next(9)), &to("mirread/x")).unwrap();
    let want = pool.contents("mirread/x@two");
    pool.more[0].set_faults(icecore_sim::Faults::none());
    pool.reopen();
    assert_eq!(pool.contents("mirread/x@two"), want);
    pool.judge_blocks();
}

/// What is no disk of a pool: refused with a reason, and not written to.
#[test]
fn garbage_as_a_disk() {
    let pool = SimPool::made("garbage", 1, &[SMALL], 12);
    let good = pool.disk.to_bytes();
    let mut disks: Vec<(&str, Vec<u8>)> = vec![
        ("zeros", vec![0; SMALL as usize]),
        ("noise", noise(5, SMALL as usize)),
        ("too small", noise(5, 4096)),
        ("empty", Vec::new()),
    ];
    let mut labels = good.clone();
    for at in [0, 256 << 10, SMALL as usize - (512 << 10), SMALL as usize - (256 << 10)] {
        labels[at..at + (256 << 10)].copy_from_slice(&noise(at as u64, 256 << 10));
    }
    disks.push(("no label left", labels));
    let mut rings = good.clone();
    for at in [0, 256 << 10, SMALL as usize - (512 << 10), SMALL as usize - (256 << 10)] {
        rings[at + (128 << 10)..at + (256 << 10)].fill(0x5a);
    }
    disks.push(("labels without uberblocks", rings));
    let mut body = good.clone();
    let end = body.len() - (512 << 10);
    body[512 << 10..end].fill(0xa5);
    disks.push(("labels around garbage", body));
    let stream = put_together(&raw_full());
    let mut as_disk = stream.clone();
    as_disk.resize(SMALL as usize, 0);
    disks.push(("a stream", as_disk));
    for (what, bytes) in disks {
        for mode in [Mode::ReadOnly, Mode::Write] {
            let disk = Arc::new(SimDisk::from_bytes(what, &bytes));
            let before = disk.fingerprint();
            let spec = OpenSpec {
                devices: vec![disk.clone() as Arc<dyn Device>],
                pool: None,
                mode,
                force: true,
                host: host(),
                max_txg: None,
            };
            let got = Pool::open(sim_env(1), spec).map(|_| ()).unwrap_err();
            assert!(!got.to_string().is_empty(), "{what}");
            let known = matches!(
                got,
                PoolError::NotAPool(_)
                    | PoolError::Devices(_)
                    | PoolError::Vdev(_)
                    | PoolError::Read(_)
                    | PoolError::Invalid(_)
            );
            assert!(known, "{what}: {got:?}");
            assert_eq!(disk.fingerprint(), before, "{what} was written to");
        }
    }
}
