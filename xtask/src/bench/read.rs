//! `cargo xtask bench read`: reading everything back, measured as ratios within one run.
//!
//! One pool of [`FILES`] small files and [`BIG`] large ones is scrubbed, against `zdb -bcc` of it and against reading as many bytes
//! and summing them; its small files are copied out, against `zdb -r` of single files; another of [`DATASETS`] ×
//! [`SNAPSHOTS`] snapshots is opened and listed, against reading its labels and the blocks that say what is listed, as they have
//! to be read: each by its pointer, verified and decompressed, once.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use icecore_check::{blocks, files, zdb};
use icecore_format::Blkptr;
use icecore_transform::checksum::{self, fletcher::fletcher4};
use icecore_transform::compress::decompress;
use rustix::fs::{SeekFrom, seek};

use super::measure::{Best, Cost, Sink, measure};
use super::table::{Amount, Row, Table, mib, seconds};
use super::{Bench, MIB, ROUNDS};
use crate::shell::{Outcome, output, program, run as shell};

/// Small files, of 1 to 16 KiB.
const FILES: usize = 10_000;
/// Large files, of [`BIG_MIB`].
const BIG: usize = 6;
const BIG_MIB: u64 = 128;
/// Data sets, and the snapshots of each.
const DATASETS: usize = 100;
const SNAPSHOTS: usize = 100;
/// zdb needs its time: it is not asked as often as the others.
const ROUNDS_ZDB: usize = 2;

/// Runs the comparison and prints its table.
pub fn read() -> Outcome {
    super::compare(all)
}

/// Its last part alone: a listing.
pub fn listing() -> Outcome {
    super::compare(|bench| {
        let mut table = Table::default();
        table.note(bench.circumstances());
        list(bench, &mut table)?;
        Ok(table)
    })
}

fn all(bench: &Bench) -> Outcome<Table> {
    let mut table = Table::default();
    table.note(bench.circumstances());
    make_files(bench)?;
    scrub(bench, &mut table)?;
    copy(bench, &mut table)?;
    bench.destroy()?;
    list(bench, &mut table)?;
    Ok(table)
}

/// Contents that do not compress and are not the same twice.
pub fn noise(seed: usize, len: usize) -> Vec<u8> {
    let mut x = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn small(i: usize) -> Vec<u8> {
    noise(i, 1024 * (1 + i % 16))
}

fn make_files(bench: &Bench) -> Outcome {
    bench.create(2048)?;
    bench.icecore(&["zfs", "create", "bench/small"])?;
    bench.icecore(&["zfs", "create", "bench/big"])?;
    bench.icecore(&["zpool", "export", "bench"])?;
    let image = bench.dir.join("pool/bench.img");
    files::fill(&image, "bench/small", FILES, small)?;
    let len = usize::try_from(BIG_MIB * MIB).map_err(|e| e.to_string())?;
    files::fill(&image, "bench/big", BIG, |i| noise(FILES + i, len))?;
    bench.import()
}

fn scrub(bench: &Bench, table: &mut Table) -> Outcome {
    let image = bench.dir.join("pool/bench.img");
    let (mut scrub, mut floor, mut judge) = (Best::default(), f64::MAX, Best::default());
    let allocated = allocated(bench)?;
    for round in 0..ROUNDS {
        scrub.take(measure(bench.command().args(["zpool", "scrub", "bench"]), Sink::Null)?);
        floor = floor.min(read_and_sum(&image, allocated)?);
        if round < ROUNDS_ZDB && zdb::zdb_available() {
            bench.icecore(&["zpool", "export", "bench"])?;
            let mut command = program("zdb");
            command.args(["-e", "-p"]).arg(bench.dir.join("pool")).args(["-bcc", "bench"]);
            judge.take(measure(command.stderr(Stdio::null()), Sink::Null)?);
            bench.import()?;
        }
    }
    let scrub = scrub.cost()?;
    let what = format!("scrub of {} MiB, {FILES} small files", allocated / MIB);
    match judge.cost() {
        Ok(judge) => {
            table.row(Row::at_most(&what, seconds(scrub), "zdb -bcc", seconds(judge), 1.0 / 15.0));
            table.row(Row::at_most("  its peak memory", mib(scrub), "zdb -bcc", mib(judge), 0.2));
        }
        Err(_) => table.note("zdb -bcc: SKIPPED, zdb is not installed".into()),
    }
    let floor = Amount::Seconds(floor, floor);
    table.row(Row::at_most(&what, seconds(scrub), "reading and summing as much", floor, 1.5));
    Ok(())
}

fn allocated(bench: &Bench) -> Outcome<u64> {
    let text = output(bench.command().args(["zpool", "get", "-Hp", "-o", "value", "allocated", "bench"]))?;
    text.trim().parse().map_err(|e| format!("allocated: {e}"))
}

/// Seconds that reading `bytes` of a file takes, and summing them as most blocks are. Holes are passed by: they cost
/// nothing to read.
fn read_and_sum(path: &Path, bytes: u64) -> Outcome<f64> {
    let mut file = File::open(path).map_err(|e| e.to_string())?;
    let mut buffer = vec![0; 1 << 20];
    let (start, mut left, mut at) = (Instant::now(), bytes, 0);
    let mut sums = 0;
    while left > 0 {
        at = seek(&file, SeekFrom::Data(at)).map_err(|e| format!("{left} bytes too few: {e}"))?;
        let end = seek(&file, SeekFrom::Hole(at)).map_err(|e| e.to_string())?;
        file.seek(std::io::SeekFrom::Start(at)).map_err(|e| e.to_string())?;
        while at < end && left > 0 {
            let len = (end - at).min(left).min(buffer.len() as u64);
            let part = buffer.get_mut(..len as usize).ok_or("buffer")?;
            file.read_exact(part).map_err(|e| e.to_string())?;
            sums ^= fletcher4(part, true)[0];
            (at, left) = (at + len, left - len);
        }
    }
    std::hint::black_box(sums);
    Ok(start.elapsed().as_secs_f64())
}

fn copy(bench: &Bench, table: &mut Table) -> Outcome {
    let mut goals = Vec::new();
    for (dataset, count, bytes) in [
        ("bench/small", FILES, (0..FILES).map(|i| small(i).len() as u64).sum::<u64>()),
        ("bench/big", BIG, BIG as u64 * BIG_MIB * MIB),
    ] {
        let (mut ours, mut theirs) = (Best::default(), Best::default());
        for round in 0..ROUNDS {
            let out = bench.dir.join("out");
            let command = &mut bench.command();
            ours.take(measure(command.args(["cp", "-r", dataset]).arg(&out), Sink::Null)?);
            fs::remove_dir_all(&out).map_err(|e| e.to_string())?;
            if round < ROUNDS_ZDB && zdb::zdb_available() {
                bench.icecore(&["zpool", "export", "bench"])?;
                let mut command = program("zdb");
                command.args(["-e", "-p"]).arg(bench.dir.join("pool"));
                let one = bench.dir.join("one");
                theirs.take(measure(command.args(["-r", dataset, "file-1"]).arg(&one), Sink::Null)?);
                fs::remove_file(&one).map_err(|e| e.to_string())?;
                bench.import()?;
            }
        }
        goals.push((dataset, count, bytes, ours.cost()?, theirs.cost().ok()));
    }
    for (dataset, count, bytes, ours, theirs) in goals {
        let Some(theirs) = theirs else {
            table.note("zdb -r: SKIPPED, zdb is not installed".into());
            return Ok(());
        };
        let (what, part) = match count {
            FILES => ("1,000 files", 1000.0 / count as f64),
            _ => ("100 MiB", 100.0 / (bytes / MIB) as f64),
        };
        let each = |c: Cost, part: f64| Amount::Seconds(c.seconds * part, c.cpu_seconds * part);
        let of_one = if count == FILES { 1000.0 } else { part * count as f64 };
        let name = format!("cp -r {dataset}, {what}");
        table.row(Row::at_most(&name, each(ours, part), "zdb -r of one file", each(theirs, of_one), 1.0));
    }
    Ok(())
}

fn make_snapshots(bench: &Bench) -> Outcome {
    bench.create(512)?;
    for i in 0..DATASETS {
        bench.icecore(&["zfs", "create", &format!("bench/fs-{i}")])?;
    }
    for i in 0..SNAPSHOTS {
        bench.icecore(&["zfs", "snapshot", "-r", &format!("bench@daily-{i}")])?;
    }
    Ok(())
}

fn list(bench: &Bench, table: &mut Table) -> Outcome {
    make_snapshots(bench)?;
    let image = bench.dir.join("pool/bench.img");
    bench.icecore(&["zpool", "export", "bench"])?;
    // As it is now: what comes to the pool later may overwrite what the pointers tell of.
    let frozen = bench.dir.join("frozen.img");
    shell(program("cp").arg("--sparse=always").arg(&image).arg(&frozen))?;
    let blocks = blocks::of_snapshot_list(&frozen)?;
    bench.import()?;
    let (mut list, mut all, mut floor, mut peer) =
        (Best::default(), Best::default(), f64::MAX, Best::default());
    for round in 0..ROUNDS {
        if round < ROUNDS_ZDB && zdb::zdb_available() {
            bench.icecore(&["zpool", "export", "bench"])?;
            let mut command = program("zdb");
            command.args(["-e", "-p"]).arg(bench.dir.join("pool")).args(["-d", "bench"]);
            peer.take(measure(&mut command, Sink::Pipe)?);
            bench.import()?;
        }
        let command = &mut bench.command();
        list.take(measure(command.args(["zfs", "list", "-t", "snapshot", "-H"]), Sink::Pipe)?);
        let command = &mut bench.command();
        all.take(measure(command.args(["zfs", "get", "-H", "-t", "snapshot", "all"]), Sink::Pipe)?);
        floor = floor.min(read_each(&frozen, &blocks)?);
    }
    let count = DATASETS * SNAPSHOTS;
    let what = format!("zfs list of {count} snapshots");
    let list = list.cost()?;
    if let Ok(peer) = peer.cost() {
        table.row(Row::at_most(&what, seconds(list), "zdb -d", seconds(peer), 1.0));
    }
    let floor = Amount::Seconds(floor, floor);
    table.row(Row::at_most(&what, seconds(list), "reading the blocks involved", floor, 2.0));
    let all = all.cost()?;
    table.note(format!("zfs get all of {count} snapshots: {:.3} s", all.seconds));
    let stored: u64 = blocks.iter().map(Blkptr::psize).sum();
    let logical: u64 = blocks.iter().map(Blkptr::lsize).sum();
    let (stored, logical) = (stored as f64 / MIB as f64, logical as f64 / MIB as f64);
    table.note(format!("blocks involved: {}, {stored:.1} MiB, {logical:.1} MiB unpacked", blocks.len()));
    bench.destroy()
}

/// Seconds that it takes to read the labels of a device and to verify their configurations, and then to read each of these blocks
/// by its pointer, to verify and to unpack it, one after another.
fn read_each(path: &Path, blocks: &[Blkptr]) -> Outcome<f64> {
    /// Offset 0 of a pointer lies behind two labels and the boot block.
    const FRONT: u64 = 4 << 20;
    const LABEL: u64 = 256 << 10;
    /// Of a label, behind what boot loaders own: the configuration, and the ring of uberblocks.
    const CONFIG: std::ops::Range<usize> = 16 << 10..128 << 10;
    let file = File::open(path).map_err(|e| e.to_string())?;
    let size = file.metadata().map_err(|e| e.to_string())?.len() / LABEL * LABEL;
    let start = Instant::now();
    let mut label = vec![0; LABEL as usize];
    for at in [0, LABEL, size - 2 * LABEL, size - LABEL] {
        let part = label.get_mut(CONFIG.start..).ok_or("label")?;
        file.read_exact_at(part, at + CONFIG.start as u64).map_err(|e| e.to_string())?;
        let config = label.get(CONFIG).ok_or("label")?;
        checksum::embedded::label_verify(config, at + CONFIG.start as u64).map_err(|e| e.to_string())?;
    }
    for bp in blocks {
        let dva = bp.dvas().first().ok_or("a pointer without a place")?;
        let mut stored = vec![0; bp.psize() as usize];
        file.read_exact_at(&mut stored, FRONT + dva.offset()).map_err(|e| e.to_string())?;
        checksum::verify(bp, &stored, None).map_err(|e| e.to_string())?;
        let logical = decompress(bp.compress(), &stored, bp.lsize() as usize).map_err(|e| e.to_string())?;
        std::hint::black_box(logical);
    }
    Ok(start.elapsed().as_secs_f64())
}
