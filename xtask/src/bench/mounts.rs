//! `cargo xtask bench fs`: files through a mount, and many data sets, measured as ratios within one run.
//!
//! A file of [`FILE_MIB`] of noise is written into an encrypted file system through its mount and made durable, and read back
//! through a fresh mount; the yardstick is the passthrough file system of `crates/icecore-fuse/examples`, on the same FUSE
//! library with the same settings over the same disk. Then [`DATASETS`] data sets are snapshotted at once, again and again,
//! and the snapshots listed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use icecore_check::fixture::target_dir;

use super::measure::{Best, Sink, measure};
use super::read::noise;
use super::table::{Amount, Row, Table, seconds};
use super::{Bench, MIB, ROUNDS};
use crate::shell::{Outcome, cargo, output, program, run as shell};
use crate::stand::{Stand, no_mounts};

const FILE_SYSTEM: &str = "bench/fs";
const FILE_MIB: u64 = 512;
/// Room for what was removed and is not free yet.
const POOL_MIB: u64 = 6144;
const DATASETS: usize = 1000;
/// Snapshots of each data set, in the end.
const SNAPSHOTS: usize = 10;
/// A mount has to be at least this fast, measured by the passthrough's speed.
const SPEED: f64 = 0.6;
/// Ten times as much may take ten times as long, and this.
const LINEAR: f64 = 1.25;
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the comparison and prints its table.
pub fn mounts() -> Outcome {
    super::compare(all)
}

fn all(bench: &Bench) -> Outcome<Table> {
    let mut table = Table::default();
    table.note(bench.circumstances());
    match no_mounts() {
        None => one_file(bench, &mut table)?,
        Some(why) => table.note(format!("mounts: SKIPPED, {why}")),
    }
    data_sets(bench, &mut table)?;
    Ok(table)
}

fn one_file(bench: &Bench, table: &mut Table) -> Outcome {
    let source = bench.dir.join("noise");
    let len = usize::try_from(FILE_MIB * MIB).map_err(|e| e.to_string())?;
    fs::write(&source, noise(1, len)).map_err(|e| format!("{}: {e}", source.display()))?;
    let stand = Stand::new(bench.icecore.clone(), bench.dir.join("stand"))?;
    stand.pool("bench", POOL_MIB)?;
    let dir = stand.encrypted(FILE_SYSTEM, &[])?;
    let through = Passthrough::new(bench)?;
    let (mut write, mut read) = ([Best::default(), Best::default()], [Best::default(), Best::default()]);
    for _ in 0..ROUNDS {
        write[0].take(measure(&mut written(&source, &dir), Sink::Null)?);
        stand.remount(FILE_SYSTEM, &dir)?;
        read[0].take(measure(&mut reread(&dir), Sink::Null)?);
        same(&source, &dir.join("file"))?;
        fs::remove_file(dir.join("file")).map_err(|e| e.to_string())?;
        let mut server = through.mount()?;
        write[1].take(measure(&mut written(&source, &through.dir), Sink::Null)?);
        through.unmount(&mut server)?;
        server = through.mount()?;
        read[1].take(measure(&mut reread(&through.dir), Sink::Null)?);
        same(&source, &through.dir.join("file"))?;
        through.unmount(&mut server)?;
    }
    for (what, [ours, theirs]) in [("write", write), ("read", read)] {
        let what = format!("{what} {FILE_MIB} MiB through a mount, encrypted");
        let (ours, theirs) = (ours.cost()?, theirs.cost()?);
        table.row(Row::at_most(&what, seconds(ours), "passthrough FUSE", seconds(theirs), 1.0 / SPEED));
    }
    fs::remove_file(source).map_err(|e| e.to_string())
}

/// Writes the file and waits until it is durable.
fn written(source: &Path, dir: &Path) -> Command {
    let mut dd = program("dd");
    dd.arg(format!("if={}", source.display())).arg(format!("of={}", dir.join("file").display()));
    dd.args(["bs=1M", "conv=fsync", "status=none"]);
    dd
}

fn reread(dir: &Path) -> Command {
    let mut dd = program("dd");
    dd.arg(format!("if={}", dir.join("file").display())).args(["of=/dev/null", "bs=1M", "status=none"]);
    dd
}

fn same(a: &Path, b: &Path) -> Outcome {
    shell(program("cmp").arg("-s").arg(a).arg(b))
}

struct Passthrough {
    program: PathBuf,
    folder: PathBuf,
    dir: PathBuf,
}

impl Passthrough {
    fn new(bench: &Bench) -> Outcome<Self> {
        let args =
            ["build", "--release", "--locked", "--package", "icecore-fuse", "--example", "passthrough"];
        shell(cargo().args(args))?;
        let (folder, dir) = (bench.dir.join("folder"), bench.dir.join("through"));
        for made in [&folder, &dir] {
            fs::create_dir_all(made).map_err(|e| format!("{}: {e}", made.display()))?;
        }
        Ok(Self { program: target_dir().join("release/examples/passthrough"), folder, dir })
    }
    fn mount(&self) -> Outcome<Child> {
        let marker = self.folder.join("here");
        File::create(&marker).map_err(|e| e.to_string())?;
        let child =
            program(&self.program).arg(&self.folder).arg(&self.dir).spawn().map_err(|e| e.to_string())?;
        let start = Instant::now();
        while !self.dir.join("here").exists() {
            if start.elapsed() > PATIENCE {
                return Err("the passthrough file system does not come up".into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(child)
    }
    fn unmount(&self, server: &mut Child) -> Outcome {
        shell(program("umount").arg(&self.dir))?;
        server.wait().map(|_| ()).map_err(|e| e.to_string())
    }
}

fn data_sets(bench: &Bench, table: &mut Table) -> Outcome {
    bench.create(512)?;
    for i in 0..DATASETS {
        bench.icecore(&["zfs", "create", &format!("bench/fs-{i}")])?;
    }
    let mut lists = Vec::new();
    for i in 0..SNAPSHOTS {
        let name = format!("bench@daily-{i}");
        bench.icecore(&["zfs", "snapshot", "-r", &name])?;
        if i == 0 {
            let txgs = Amount::Count(txgs_of_snapshots(bench)?);
            let what = format!("snapshot -r of {DATASETS} data sets, txgs");
            table.row(Row::at_most(&what, txgs, "limit", Amount::Count(1.0), 1.0));
        }
        if i == 0 || i + 1 == SNAPSHOTS {
            lists.push(listed(bench, (DATASETS + 1) * (i + 1))?);
        }
    }
    let [few, many] = lists.as_slice() else { return Err("two lists were to be measured".into()) };
    let factor = SNAPSHOTS as f64;
    let ten_fold = Amount::Seconds(few.seconds * factor, few.cpu_seconds * factor);
    let what = format!("list -t snapshot of {} snapshots", (DATASETS + 1) * SNAPSHOTS);
    let yardstick = format!("{SNAPSHOTS} × a list of {}", DATASETS + 1);
    table.row(Row::at_most(&what, seconds(*many), &yardstick, ten_fold, LINEAR));
    bench.destroy()
}

fn txgs_of_snapshots(bench: &Bench) -> Outcome<f64> {
    let args = ["zfs", "list", "-Hp", "-t", "snapshot", "-o", "createtxg"];
    let text = output(bench.command().args(args))?;
    if text.lines().count() != DATASETS + 1 {
        return Err(format!("{} snapshots are listed, not {}", text.lines().count(), DATASETS + 1));
    }
    Ok(text.lines().collect::<BTreeSet<_>>().len() as f64)
}

fn listed(bench: &Bench, count: usize) -> Outcome<super::measure::Cost> {
    let mut best = Best::default();
    let args = ["zfs", "list", "-H", "-t", "snapshot"];
    let lines = output(bench.command().args(args))?.lines().count();
    if lines != count {
        return Err(format!("{lines} snapshots are listed, not {count}"));
    }
    for _ in 0..ROUNDS {
        best.take(measure(bench.command().args(args), Sink::Null)?);
    }
    best.cost()
}
