//! `cargo xtask load [SECONDS]`: eight processes at once on one pool, through a mount and by commands.
//!
//! Three write, rename, cut, remove and read back files of their own through the mount; one takes and destroys snapshots; one sends
//! increments into a second pool; one sends raw to nowhere; one makes, fills and destroys file systems; one lists all the time.
//! In the end each file is what its writer left, the service has taken bounded memory, and `zdb` finds both pools clean.
//!
//! Invariants:
//! 1. A writer compares each file it touches with what it remembers; the first difference ends the run.
//! 2. What a command is refused for because of another (a snapshot that went meanwhile) is counted, and is no success.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use icecore_check::fixture::target_dir;

use crate::bench::noise;
use crate::shell::{Outcome, build_icecore, run as shell};
use crate::stand::{Stand, no_mounts};

const WRITERS: u64 = 3;
/// Files that a writer has at most, and their size.
const FILES: u64 = 200;
const SIZE_MAX: u64 = 600 << 10;
const POOL_MIB: u64 = 4096;
/// The service may take so much, whatever goes on.
const MEMORY_MAX_MIB: f64 = 512.0;

pub fn run(words: &[&str]) -> Outcome {
    match words {
        ["--writer", dir, seed, seconds] => {
            let number = |w: &str| w.parse::<u64>().map_err(|e| format!("{w}: {e}"));
            return Writer::new(Path::new(dir), number(seed)?).work(Duration::from_secs(number(seconds)?));
        }
        [] | [_] => {}
        _ => return Err("usage: load [SECONDS]".into()),
    }
    let seconds: u64 = words.first().map_or(Ok(60), |w| w.parse()).map_err(|e| format!("{words:?}: {e}"))?;
    if let Some(why) = no_mounts() {
        return Err(format!("{why}; nothing was run"));
    }
    let stand = Stand::new(build_icecore()?, target_dir().join("load"))?;
    stand.pool("load", POOL_MIB)?;
    stand.pool("copy", POOL_MIB)?;
    let dir = stand.encrypted("load/fs", &[])?;
    let writers: Vec<Child> = (0..WRITERS).map(|w| writer(&dir, w, seconds)).collect::<Outcome<_>>()?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let jobs: [(&str, Job); 5] = [
        ("snapshots", snapshots),
        ("increments", increments),
        ("sends", sends),
        ("file systems", file_systems),
        ("lists", lists),
    ];
    let counts: Vec<(&str, Outcome<Count>)> = thread::scope(|scope| {
        let started: Vec<_> =
            jobs.iter().map(|(name, job)| (*name, scope.spawn(|| job(&stand, end)))).collect();
        started
            .into_iter()
            .map(|(name, job)| (name, job.join().unwrap_or_else(|_| Err("panicked".into()))))
            .collect()
    });
    let mut failed = Vec::new();
    println!("\n| who | done | refused |\n|---|---|---|");
    for (name, count) in counts {
        match count {
            Ok(count) => println!("| {name} | {} | {} |", count.done, count.refused),
            Err(why) => failed.push(format!("{name}: {why}")),
        }
    }
    for (number, mut child) in writers.into_iter().enumerate() {
        let told = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines().last();
        let status = child.wait().map_err(|e| e.to_string())?;
        println!(
            "| writer {number} | {} | |",
            told.transpose().map_err(|e| e.to_string())?.unwrap_or_default()
        );
        if !status.success() {
            failed.push(format!("writer {number}: {status}"));
        }
    }
    let peak = stand.service_peak_mib()?;
    println!("\nThe service took {peak:.0} MiB at most (limit {MEMORY_MAX_MIB:.0}).");
    if peak > MEMORY_MAX_MIB {
        failed.push(format!("the service took {peak:.0} MiB"));
    }
    for pool in ["load", "copy"] {
        if let Err(why) = stand.judged(pool) {
            failed.push(why);
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

fn writer(dir: &Path, seed: u64, seconds: u64) -> Outcome<Child> {
    let folder = dir.join(format!("writer-{seed}"));
    fs::create_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut command = Command::new(std::env::current_exe().map_err(|e| e.to_string())?);
    command.args(["load", "--writer"]).arg(&folder).args([seed.to_string(), seconds.to_string()]);
    command.stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())
}

/// What a file should hold: its noise, and where that ends.
#[derive(Clone, Copy)]
struct Held {
    seed: usize,
    len: u64,
}

/// One process that writes, and remembers.
struct Writer {
    dir: PathBuf,
    random: u64,
    held: BTreeMap<u64, Held>,
}

impl Writer {
    fn new(dir: &Path, seed: u64) -> Self {
        Self {
            dir: dir.to_path_buf(),
            random: (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            held: BTreeMap::new(),
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below
    }

    fn path(&self, file: u64) -> PathBuf {
        self.dir.join(format!("file-{file}"))
    }

    fn work(mut self, time: Duration) -> Outcome {
        let (start, mut steps) = (Instant::now(), 0_u64);
        while start.elapsed() < time {
            let file = self.random(FILES);
            self.step(file).map_err(|why| format!("{}: {why}", self.path(file).display()))?;
            steps += 1;
        }
        for file in 0..FILES {
            self.compare(file).map_err(|why| format!("{}: {why}", self.path(file).display()))?;
        }
        println!("{steps} steps, {} files in the end, each as it was left", self.held.len());
        Ok(())
    }

    fn step(&mut self, file: u64) -> Outcome {
        self.compare(file)?;
        let (io, path) = (|e: std::io::Error| e.to_string(), self.path(file));
        match (self.random(8), self.held.get(&file).copied()) {
            (0, Some(_)) => {
                fs::remove_file(path).map_err(io)?;
                self.held.remove(&file);
            }
            (1, Some(held)) => {
                let to = self.random(FILES);
                fs::rename(&path, self.path(to)).map_err(io)?;
                self.held.remove(&file);
                self.held.insert(to, held);
            }
            (2, Some(held)) => {
                let len = self.random(held.len + 1);
                OpenOptions::new().write(true).open(path).and_then(|f| f.set_len(len)).map_err(io)?;
                self.held.insert(file, Held { len, ..held });
            }
            (3, Some(held)) => {
                // The same bytes in the middle once more: blocks are rewritten in place.
                let data = noise(held.seed, usize::try_from(held.len).map_err(|e| e.to_string())?);
                let at = usize::try_from(self.random(held.len + 1)).map_err(|e| e.to_string())?;
                let f = OpenOptions::new().write(true).open(path).map_err(io)?;
                f.write_all_at(data.get(at..).unwrap_or_default(), at as u64).map_err(io)?;
            }
            _ => {
                let held = Held { seed: self.random(1 << 30) as usize, len: self.random(SIZE_MAX) };
                let mut f = File::create(path).map_err(io)?;
                f.write_all(&noise(held.seed, usize::try_from(held.len).map_err(|e| e.to_string())?))
                    .map_err(io)?;
                if self.random(4) == 0 {
                    f.sync_all().map_err(io)?;
                }
                self.held.insert(file, held);
            }
        }
        Ok(())
    }

    fn compare(&self, file: u64) -> Outcome {
        let there = match fs::read(self.path(file)) {
            Ok(data) => Some(data),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(e.to_string()),
        };
        let should = match self.held.get(&file) {
            Some(held) => Some(noise(held.seed, usize::try_from(held.len).map_err(|e| e.to_string())?)),
            None => None,
        };
        if there == should {
            return Ok(());
        }
        let len = |d: Option<Vec<u8>>| d.map_or("no file".to_string(), |d| format!("{} bytes", d.len()));
        Err(format!("differs: {} were written, {} are there", len(should), len(there)))
    }
}

#[derive(Default)]
struct Count {
    done: u64,
    refused: u64,
}

impl Count {
    fn take(&mut self, well: bool) {
        *(if well { &mut self.done } else { &mut self.refused }) += 1;
    }
}

type Job = fn(&Stand, Instant) -> Outcome<Count>;

/// Runs a command without showing it; whether it went well.
fn quietly(command: &mut Command) -> Outcome<bool> {
    let output = command.output().map_err(|e| e.to_string())?;
    if output.status.code().is_none() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    Ok(output.status.success())
}

/// Takes snapshots; all but the last few go again.
fn snapshots(stand: &Stand, end: Instant) -> Outcome<Count> {
    const KEPT: u64 = 5;
    let (mut count, mut number) = (Count::default(), 0_u64);
    while Instant::now() < end {
        count.take(quietly(stand.command().args(["zfs", "snapshot", "-r", &format!("load@s{number}")]))?);
        if let Some(old) = number.checked_sub(KEPT) {
            count.take(quietly(stand.command().args(["zfs", "destroy", "-r", &format!("load@s{old}")]))?);
        }
        number += 1;
        thread::sleep(Duration::from_millis(300));
    }
    Ok(count)
}

/// `zfs send ARGS | zfs receive TO`: whether both ends went well.
fn piped(stand: &Stand, send: &[&str], to: &str) -> Outcome<bool> {
    let mut sender = stand.command();
    sender.args(["zfs", "send"]).args(send).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut sender = sender.spawn().map_err(|e| e.to_string())?;
    let stream = sender.stdout.take().ok_or("no pipe")?;
    let received = quietly(stand.command().args(["zfs", "receive", "-u", to]).stdin(stream))?;
    Ok(sender.wait().map_err(|e| e.to_string())?.success() && received)
}

/// Keeps a raw copy in the other pool up to date, by snapshots of its own that nobody destroys.
fn increments(stand: &Stand, end: Instant) -> Outcome<Count> {
    let (mut count, mut number) = (Count::default(), 0_u64);
    while Instant::now() < end {
        let name = format!("load/fs@copy{number}");
        shell(stand.command().args(["zfs", "snapshot", &name]))?;
        let base = number.checked_sub(1).map(|base| format!("@copy{base}"));
        let mut words = vec!["-w"];
        base.iter().for_each(|base| words.extend(["-i", base]));
        words.push(&name);
        // Nothing stands in the way of these: they are never refused.
        if !piped(stand, &words, "copy/fs")? {
            return Err(format!("zfs send {} | zfs receive copy/fs failed", words.join(" ")));
        }
        count.take(true);
        number += 1;
    }
    Ok(count)
}

/// Sends whatever snapshot there is to nowhere.
fn sends(stand: &Stand, end: Instant) -> Outcome<Count> {
    let mut count = Count::default();
    while Instant::now() < end {
        let list = stand.ask(&["zfs", "list", "-H", "-t", "snapshot", "-o", "name", "load/fs"])?;
        match list.lines().next_back() {
            Some(name) => {
                let mut send = stand.command();
                count.take(quietly(send.args(["zfs", "send", "-w", name]).stdout(Stdio::null()))?);
            }
            None => thread::sleep(Duration::from_millis(100)),
        }
    }
    Ok(count)
}

/// Makes file systems, puts files into them and destroys them.
fn file_systems(stand: &Stand, end: Instant) -> Outcome<Count> {
    let mut count = Count::default();
    let mut number = 0_u64;
    while Instant::now() < end {
        let name = format!("load/fs/child{number}");
        let dir = stand.dir.join("mnt").join("load-fs").join(format!("child{number}"));
        count.take(quietly(stand.command().args(["zfs", "create", &name]))?);
        for i in 0..20 {
            fs::write(dir.join(format!("f{i}")), noise(i, 5000 * i))
                .map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        count.take(quietly(stand.command().args(["zfs", "destroy", "-r", &name]))?);
        number += 1;
    }
    Ok(count)
}

fn lists(stand: &Stand, end: Instant) -> Outcome<Count> {
    let mut count = Count::default();
    while Instant::now() < end {
        for words in
            [&["zfs", "list", "-t", "all"][..], &["zpool", "status"], &["zfs", "get", "all", "load/fs"]]
        {
            count.take(quietly(stand.command().args(words))?);
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(count)
}
