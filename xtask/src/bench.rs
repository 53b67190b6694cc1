//! `cargo xtask bench spine`: raw send and receive, measured as ratios within one run.
//!
//! A number of seconds says little on somebody else's machine, a ratio to `cat` or `cp` of the same bytes says much. So
//! every contender and its yardstick run in turn, [`ROUNDS`] times, on the same memory file system, into the same sink,
//! and the best of each is compared. Streams are made by `streamgen` (no kernel needed); pools by the `icecore` binary.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use icecore_check::zdb;

use crate::shell::{Outcome, build_icecore, output, program, run as shell};
use crate::streamgen::{BLOCK_BYTES, Source, enlarge};

const ROUNDS: usize = 5;
const MIB: u64 = 1 << 20;

pub fn spine() -> Outcome {
    let bench = Bench::new()?;
    let outcome = bench.all();
    fs::remove_dir_all(&bench.dir).map_err(|e| e.to_string())?;
    outcome
}

/// Writes the stream that [`spine`] works with to standard output.
pub fn stream(source: Source, mib: &str) -> Outcome {
    let mib: u64 = mib.parse().map_err(|e| format!("{mib}: {e}"))?;
    enlarge(source, mib * MIB / BLOCK_BYTES, BufWriter::with_capacity(1 << 20, std::io::stdout().lock()))
}

struct Bench {
    dir: PathBuf,
    icecore: PathBuf,
}

/// What one run of a program cost.
#[derive(Clone, Copy)]
struct Cost {
    seconds: f64,
    bytes: u64,
    peak_mib: f64,
}

impl Bench {
    fn new() -> Outcome<Bench> {
        let icecore = build_icecore()?;
        let base =
            std::env::var_os("ICECORE_BENCH_DIR").map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
        let dir = base.join(format!("icecore-bench-{}", std::process::id()));
        fs::create_dir_all(dir.join("state")).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(Bench { dir, icecore })
    }

    fn all(&self) -> Outcome {
        println!("all on {}, best of {ROUNDS} rounds each\n", self.dir.display());
        let large = self.stream_file("large.zfs", Source::Full, 640 * MIB)?;
        let received = self.receive_against_cp(&large)?;
        self.send_against_cat(&large)?;
        let sent = self.timed(|| self.send(&["-w", "bench/docs@root"]), 1)?;
        self.small_increment()?;
        self.destroy()?;
        fs::remove_file(&large).map_err(|e| e.to_string())?;
        self.memory(received, sent)
    }

    /// (b) raw receive against `cp` of the stream. Leaves the pool of the last round.
    fn receive_against_cp(&self, stream: &Path) -> Outcome<Cost> {
        let copy = self.dir.join("copy");
        let mut receive: Option<Cost> = None;
        let mut cp: Option<Cost> = None;
        for round in 0..ROUNDS {
            let mut command = program("cp");
            command.arg(stream).arg(&copy);
            keep_best(&mut cp, measure(&mut command)?);
            fs::remove_file(&copy).map_err(|e| e.to_string())?;
            if round > 0 {
                self.destroy()?;
            }
            self.create(2048 * MIB)?;
            keep_best(&mut receive, self.receive_file(stream)?);
        }
        let (cp, receive) = (cp.ok_or("no rounds")?, receive.ok_or("no rounds")?);
        let bytes = stream.metadata().map_err(|e| e.to_string())?.len();
        report("raw receive of 640 MiB", receive, bytes);
        report("  cp of the same stream", cp, bytes);
        println!("  receive takes {:.2} times cp\n", receive.seconds / cp.seconds);
        Ok(receive)
    }

    /// (a) raw send against `cat` of the same stream and against `zdb -B`, each into a pipe that is drained.
    fn send_against_cat(&self, stream: &Path) -> Outcome {
        let send = self.timed(|| self.send(&["-w", "bench/docs@root"]), ROUNDS)?;
        let cat = self.timed(|| measure(program("cat").arg(stream)), ROUNDS)?;
        report("raw send of 640 MiB", send, send.bytes);
        report("  cat of the same stream", cat, cat.bytes);
        println!("  send takes {:.2} times cat", send.seconds / cat.seconds);
        if !zdb::zdb_available() {
            println!("  zdb -B: SKIPPED, zdb is not installed\n");
            return Ok(());
        }
        self.icecore(&["zpool", "export", "bench"])?;
        let pool = self.dir.join("pool");
        let listing = output(program("zdb").args(["-e", "-p"]).arg(&pool).args(["-d", "bench"]))?;
        let id = listing.lines().find_map(|line| line.strip_prefix("Dataset bench/docs@root [ZPL], ID "));
        let id = id.and_then(|rest| rest.split(',').next()).ok_or("zdb -d does not list bench/docs@root")?;
        let objset = format!("bench/{id}");
        let zdb = self.timed(
            || measure(program("zdb").args(["-e", "-p"]).arg(&pool).args(["-B", &objset, "w"])),
            ROUNDS,
        )?;
        report("  zdb -B of the same snapshot", zdb, zdb.bytes);
        println!("  send takes {:.2} times zdb -B\n", send.seconds / zdb.seconds);
        self.import()
    }

    /// (c) what a month without changes costs on a large dataset.
    fn small_increment(&self) -> Outcome {
        let increment = self.stream_file("increment.zfs", Source::Increment, 640 * MIB)?;
        let received = self.receive_file(&increment)?;
        let send = self.timed(|| self.send(&["-w", "-i", "@root", "bench/docs@2023-09-27"]), ROUNDS)?;
        report("raw increment, sent from a dataset of 640 MiB", send, send.bytes);
        report("  and received onto one", received, send.bytes);
        println!();
        Ok(())
    }

    /// Peak memory must not grow with the stream.
    fn memory(&self, received: Cost, sent: Cost) -> Outcome {
        let available = available_mib();
        println!(
            "peak memory: receive of 640 MiB {:.0} MiB, send {:.0} MiB",
            received.peak_mib, sent.peak_mib
        );
        for mib in [256, 4096] {
            if available < 2 * mib + 1024 {
                println!("peak memory at {mib} MiB: SKIPPED, {available} MiB of memory are free");
                continue;
            }
            self.create((mib + mib / 4 + 512) * MIB)?;
            let received = self.receive_made(mib * MIB)?;
            let sent = self.send(&["-w", "bench/docs@root"])?;
            println!(
                "peak memory at {mib} MiB: receive {:.0} MiB, send {:.0} MiB",
                received.peak_mib, sent.peak_mib
            );
            self.destroy()?;
        }
        Ok(())
    }

    fn stream_file(&self, name: &str, source: Source, bytes: u64) -> Outcome<PathBuf> {
        let path = self.dir.join(name);
        let file = File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        enlarge(source, bytes / BLOCK_BYTES, BufWriter::with_capacity(1 << 20, file))?;
        Ok(path)
    }

    fn create(&self, bytes: u64) -> Outcome {
        let image = self.dir.join("pool/bench.img");
        let place = || -> std::io::Result<()> {
            fs::create_dir_all(self.dir.join("pool"))?;
            File::create(&image)?.set_len(bytes)
        };
        place().map_err(|e| format!("{}: {e}", image.display()))?;
        shell(self.command().args(["zpool", "create", "-m", "none", "bench"]).arg(&image))
    }

    fn import(&self) -> Outcome {
        shell(self.command().args(["zpool", "import", "-N", "-d"]).arg(self.dir.join("pool")).arg("bench"))
    }

    fn destroy(&self) -> Outcome {
        self.icecore(&["zpool", "export", "bench"])?;
        fs::remove_dir_all(self.dir.join("pool")).map_err(|e| e.to_string())
    }

    fn receive_file(&self, stream: &Path) -> Outcome<Cost> {
        let input = File::open(stream).map_err(|e| e.to_string())?;
        measure(self.command().args(["zfs", "receive", "-u", "bench/docs"]).stdin(input))
    }

    /// Receives a stream that is made while it is received, and so needs no room.
    fn receive_made(&self, bytes: u64) -> Outcome<Cost> {
        let mut command = self.command();
        command.args(["zfs", "receive", "-u", "bench/docs"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().map_err(|e| e.to_string())?;
        let stream = child.stdin.take().ok_or("no pipe")?;
        let maker = thread::spawn(move || {
            enlarge(Source::Full, bytes / BLOCK_BYTES, BufWriter::with_capacity(1 << 20, stream))
        });
        let cost = watch(child, "icecore zfs receive")?;
        maker.join().map_err(|_| "the maker of the stream panicked")??;
        Ok(cost)
    }

    fn send(&self, args: &[&str]) -> Outcome<Cost> {
        measure(self.command().args(["zfs", "send"]).args(args))
    }

    fn icecore(&self, args: &[&str]) -> Outcome {
        shell(self.command().args(args))
    }

    fn command(&self) -> Command {
        let mut command = program(&self.icecore);
        command.env("ICECORE_STATE_DIR", self.dir.join("state"));
        command
    }

    fn timed(&self, run: impl Fn() -> Outcome<Cost>, rounds: usize) -> Outcome<Cost> {
        let mut best = None;
        for _ in 0..rounds {
            keep_best(&mut best, run()?);
        }
        best.ok_or_else(|| "no rounds".to_string())
    }
}

/// Runs it with its output drained and counted.
fn measure(command: &mut Command) -> Outcome<Cost> {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command.stdout(Stdio::piped()).spawn().map_err(|e| format!("{name}: {e}"))?;
    watch(child, &name)
}

fn watch(mut child: Child, name: &str) -> Outcome<Cost> {
    let start = Instant::now();
    let id = child.id();
    let peak = thread::spawn(move || peak_of(id));
    let mut bytes = 0;
    if let Some(mut out) = child.stdout.take() {
        let mut sink = vec![0; 1 << 20];
        loop {
            match out.read(&mut sink).map_err(|e| format!("{name}: {e}"))? {
                0 => break,
                n => bytes += n as u64,
            }
        }
    }
    let status = child.wait().map_err(|e| format!("{name}: {e}"))?;
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("{name}: {status}"));
    }
    let peak_mib = peak.join().map_err(|_| "the watcher of memory panicked")?;
    Ok(Cost { seconds, bytes, peak_mib })
}

/// The high-water mark of a process's memory, asked until it is gone. The last milliseconds are not seen, which a mark
/// that only rises forgives.
fn peak_of(id: u32) -> f64 {
    let mut peak_kib = 0;
    while let Some(now) =
        fs::read_to_string(format!("/proc/{id}/status")).ok().and_then(|text| field(&text, "VmHWM:"))
    {
        peak_kib = peak_kib.max(now);
        thread::sleep(Duration::from_millis(2));
    }
    peak_kib as f64 / 1024.0
}

fn available_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    field(&text, "MemAvailable:").unwrap_or(0) / 1024
}

/// The number behind a name in one of /proc's texts.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn keep_best(best: &mut Option<Cost>, cost: Cost) {
    if best.is_none_or(|b| cost.seconds < b.seconds) {
        *best =
            Some(Cost { peak_mib: best.map_or(cost.peak_mib, |b| b.peak_mib.max(cost.peak_mib)), ..cost });
    }
}

fn report(what: &str, cost: Cost, bytes: u64) {
    let rate = bytes as f64 / 1e9 / cost.seconds;
    println!("{what:46} {:8.3} s  {rate:6.2} GB/s  peak {:5.0} MiB", cost.seconds, cost.peak_mib);
    std::io::stdout().flush().ok();
}
