//! `cargo xtask bench spine`: raw send and receive, measured as ratios within one run.
//!
//! A number of seconds says little on somebody else's machine, a ratio to `cat` or `cp` of the same bytes says much. So
//! every contender and its yardstick take turns, [`ROUNDS`] times, on the same memory file system, into the same sink,
//! and the best of each is compared. Streams are made by `streamgen` (no kernel needed); pools by the `icecore` binary.
//!
//! A goal that is missed is shown, and is no error: another machine, or a neighbour on this one, may miss it honestly.

mod measure;
mod mounts;
mod read;
mod table;

pub use mounts::mounts;
pub use read::{listing, noise, read};

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use icecore_check::zdb;

use crate::shell::{Outcome, build_icecore, output, program, run as shell};
use crate::streamgen::{BLOCK_BYTES, Source, enlarge};
use measure::{Best, Cost, Sink, measure, watch};
use table::{Amount, Row, Table, mib, seconds};

const ROUNDS: usize = 9;
const MIB: u64 = 1 << 20;
/// Size of the main comparison, in MiB.
const LARGE: u64 = 640;
/// The two sizes whose costs must not differ, in MiB.
const SMALLER: u64 = 256;
const LARGER: u64 = 4096;
/// Blocks that differ in the small increment.
const CHANGED: u64 = 10;
/// The most memory a send or receive may take, in MiB.
const MEMORY_MAX: f64 = 256.0;
/// "The same", said of memory and of bytes read: allocators and read-ahead are no clockwork.
const SAME: f64 = 1.25;

pub fn spine() -> Outcome {
    compare(Bench::all)
}

/// Runs a comparison in a folder of its own, which is removed, and prints its table.
fn compare(all: fn(&Bench) -> Outcome<Table>) -> Outcome {
    let bench = Bench::new()?;
    let outcome = all(&bench);
    fs::remove_dir_all(&bench.dir).map_err(|e| e.to_string())?;
    print!("{}", outcome?);
    Ok(())
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

/// What one size of dataset costs.
struct Sized {
    receive: Cost,
    send: Cost,
    increment: Cost,
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

    fn all(&self) -> Outcome<Table> {
        let mut table = Table::default();
        table.note(self.circumstances());
        let large = self.stream_file("large.zfs", Source::Full, LARGE)?;
        self.receive_against_cp(&large, &mut table)?;
        self.send_against_cat(&large, &mut table)?;
        fs::remove_file(&large).map_err(|e| e.to_string())?;
        self.send_against_zdb(&mut table)?;
        self.destroy()?;
        self.sizes(&mut table)?;
        Ok(table)
    }

    fn circumstances(&self) -> String {
        let cores = thread::available_parallelism().map_or(0, usize::from);
        let (load, base) = (measure::load(), self.dir.parent().unwrap_or(&self.dir).display());
        format!("{cores} cores, load average {load}, data on {base}, best of {ROUNDS} rounds")
    }

    /// Raw receive against `cp` of the stream. Leaves the pool of the last round.
    fn receive_against_cp(&self, stream: &Path, table: &mut Table) -> Outcome {
        let copy = self.dir.join("copy");
        let (mut receive, mut cp) = (Best::default(), Best::default());
        for round in 0..ROUNDS {
            cp.take(measure(program("cp").arg(stream).arg(&copy), Sink::Null)?);
            fs::remove_file(&copy).map_err(|e| e.to_string())?;
            if round > 0 {
                self.destroy()?;
            }
            self.create(2048)?;
            receive.take(self.receive_file(stream)?);
        }
        let (receive, cp) = (receive.cost()?, cp.cost()?);
        let what = format!("receive -u of {LARGE} MiB");
        table.row(Row::at_most(&what, seconds(receive), "cp of the stream", seconds(cp), 2.0));
        table.row(Row::at_most("  its peak memory", mib(receive), "limit", MEMORY_MAX.into(), 1.0));
        Ok(())
    }

    /// Raw send against `cat` of the same stream.
    fn send_against_cat(&self, stream: &Path, table: &mut Table) -> Outcome {
        for (sink, name) in [(Sink::Pipe, "a drained pipe"), (Sink::Null, "/dev/null")] {
            let (mut send, mut cat) = (Best::default(), Best::default());
            for _ in 0..ROUNDS {
                send.take(self.send(&["-w", "bench/docs@root"], sink)?);
                cat.take(measure(program("cat").arg(stream), sink)?);
            }
            let (send, cat) = (send.cost()?, cat.cost()?);
            if send.bytes != cat.bytes {
                return Err(format!("{} bytes were received and {} are sent", cat.bytes, send.bytes));
            }
            let what = format!("send -w of {LARGE} MiB into {name}");
            table.row(Row::at_most(&what, seconds(send), "cat of the stream", seconds(cat), 2.0));
            table.row(Row::at_most("  its peak memory", mib(send), "limit", MEMORY_MAX.into(), 1.0));
        }
        Ok(())
    }

    /// Raw send against `zdb -B`, which wants the pool exported.
    fn send_against_zdb(&self, table: &mut Table) -> Outcome {
        if !zdb::zdb_available() {
            table.note("zdb -B: SKIPPED, zdb is not installed".into());
            return Ok(());
        }
        let pool = self.dir.join("pool");
        let (mut send, mut zdb) = (Best::default(), Best::default());
        for _ in 0..ROUNDS {
            send.take(self.send(&["-w", "bench/docs@root"], Sink::Pipe)?);
            self.icecore(&["zpool", "export", "bench"])?;
            let listing = output(program("zdb").args(["-e", "-p"]).arg(&pool).args(["-d", "bench"]))?;
            let id = listing.lines().find_map(|line| line.strip_prefix("Dataset bench/docs@root [ZPL], ID "));
            let id = id.and_then(|rest| rest.split(',').next()).ok_or("zdb does not list bench/docs@root")?;
            let objset = format!("bench/{id}");
            let mut command = program("zdb");
            command.args(["-e", "-p"]).arg(&pool).args(["-B", &objset, "w"]);
            zdb.take(measure(&mut command, Sink::Pipe)?);
            self.import()?;
        }
        let (send, zdb) = (send.cost()?, zdb.cost()?);
        // zdb names the pool and the snapshot otherwise; all else is the same.
        if send.bytes != zdb.bytes {
            return Err(format!("zdb -B sends {} bytes, icecore {}", zdb.bytes, send.bytes));
        }
        let what = format!("send -w of {LARGE} MiB");
        table.row(Row::at_most(&what, seconds(send), "zdb -B", seconds(zdb), 1.0));
        Ok(())
    }

    /// What must not depend on how much a dataset holds.
    fn sizes(&self, table: &mut Table) -> Outcome {
        let smaller = self.sized(SMALLER)?;
        let (needed, available) = (LARGER * 5 / 4 + 2048, measure::available_mib());
        if available < needed {
            table.note(format!("{LARGER} MiB: SKIPPED, {available} MiB of memory are free, not {needed}"));
            return Ok(());
        }
        let larger = self.sized(LARGER)?;
        let at = |what: &str| format!("{what}, {LARGER} MiB");
        let yardstick = format!("at {SMALLER} MiB");
        let mut row = |what: &str, of: Amount, than: Amount, goal: f64| {
            table.row(Row::at_most(&at(what), of, &yardstick, than, goal));
        };
        row("receive, peak memory", mib(larger.receive), mib(smaller.receive), SAME);
        row("send, peak memory", mib(larger.send), mib(smaller.send), SAME);
        let (here, there) = (larger.increment, smaller.increment);
        row("send of 10 changed blocks", seconds(here), seconds(there), 2.0);
        row("  bytes it reads", here.read_mib.into(), there.read_mib.into(), SAME);
        for (what, cost) in [("receive", larger.receive), ("send", larger.send)] {
            let what = at(&format!("{what}, peak memory"));
            table.row(Row::at_most(&what, mib(cost), "limit", MEMORY_MAX.into(), 1.0));
        }
        Ok(())
    }

    fn sized(&self, size: u64) -> Outcome<Sized> {
        self.create(size + size / 4 + 512)?;
        let receive = self.receive_made(size)?;
        let send = self.send(&["-w", "bench/docs@root"], Sink::Null)?;
        let stream = self.stream_file("increment.zfs", Source::Increment(CHANGED), size)?;
        self.receive_file(&stream)?;
        let mut increment = Best::default();
        for _ in 0..ROUNDS {
            increment.take(self.send(&["-w", "-i", "@root", "bench/docs@2023-09-27"], Sink::Pipe)?);
        }
        let increment = increment.cost()?;
        let expected = stream.metadata().map_err(|e| e.to_string())?.len();
        if increment.bytes != expected {
            return Err(format!("an increment of {expected} bytes is sent as {}", increment.bytes));
        }
        fs::remove_file(&stream).map_err(|e| e.to_string())?;
        self.destroy()?;
        Ok(Sized { receive, send, increment })
    }

    fn stream_file(&self, name: &str, source: Source, mib: u64) -> Outcome<PathBuf> {
        let path = self.dir.join(name);
        let file = File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        enlarge(source, mib * MIB / BLOCK_BYTES, BufWriter::with_capacity(1 << 20, file))?;
        Ok(path)
    }

    fn create(&self, mib: u64) -> Outcome {
        let image = self.dir.join("pool/bench.img");
        let place = || -> std::io::Result<()> {
            fs::create_dir_all(self.dir.join("pool"))?;
            File::create(&image)?.set_len(mib * MIB)
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
        measure(self.command().args(["zfs", "receive", "-u", "bench/docs"]).stdin(input), Sink::Null)
    }

    /// Receives a stream that is made while it is received, and so needs no room.
    fn receive_made(&self, mib: u64) -> Outcome<Cost> {
        let mut command = self.command();
        command.args(["zfs", "receive", "-u", "bench/docs"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().map_err(|e| e.to_string())?;
        let stream = child.stdin.take().ok_or("no pipe")?;
        let maker = thread::spawn(move || {
            enlarge(Source::Full, mib * MIB / BLOCK_BYTES, BufWriter::with_capacity(1 << 20, stream))
        });
        let cost = watch(child, "icecore zfs receive")?;
        maker.join().map_err(|_| "the maker of the stream panicked")??;
        Ok(cost)
    }

    fn send(&self, args: &[&str], sink: Sink) -> Outcome<Cost> {
        measure(self.command().args(["zfs", "send"]).args(args), sink)
    }

    fn icecore(&self, args: &[&str]) -> Outcome {
        shell(self.command().args(args))
    }

    fn command(&self) -> Command {
        let mut command = program(&self.icecore);
        // Time and memory are the engine's: it works in the process that is measured, not in a service.
        command.env("ICECORE_STATE_DIR", self.dir.join("state")).env("ICECORE_SERVICE", "off");
        command
    }
}
