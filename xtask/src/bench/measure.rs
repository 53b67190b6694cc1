//! What a run of a program costs: time, bytes put out, bytes read, and the high-water mark of its memory.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::shell::Outcome;

/// Pipes of all contenders have this width; `icecore` would widen its own, which is no merit over `cat`.
const PIPE_BYTES: usize = 1 << 20;

/// What one run of a program cost.
#[derive(Clone, Copy)]
pub struct Cost {
    pub seconds: f64,
    /// Processor time of all its threads, in itself and in the kernel: what a busy machine does not stretch.
    pub cpu_seconds: f64,
    /// Bytes that came out; as many as went into its input where the output is not looked at.
    pub bytes: u64,
    pub peak_mib: f64,
    /// What it asked the kernel to read, from caches too.
    pub read_mib: f64,
}

/// Where output goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// A pipe, drained and counted.
    Pipe,
    /// `/dev/null`; the bytes are counted by the kernel.
    Null,
}

/// The shortest time of several runs, and the most memory any of them took.
#[derive(Default)]
pub struct Best(Option<Cost>);

impl Best {
    pub fn take(&mut self, cost: Cost) {
        let best = self.0.map_or(cost, |best| {
            let faster = if cost.seconds < best.seconds { cost } else { best };
            Cost { peak_mib: best.peak_mib.max(cost.peak_mib), ..faster }
        });
        self.0 = Some(best);
    }
    pub fn cost(&self) -> Outcome<Cost> {
        self.0.ok_or_else(|| "nothing was measured".to_string())
    }
}

/// Runs it to its end.
pub fn measure(command: &mut Command, sink: Sink) -> Outcome<Cost> {
    let name = command.get_program().to_string_lossy().into_owned();
    let stdout = if sink == Sink::Pipe { Stdio::piped() } else { Stdio::null() };
    let child = command.stdout(stdout).spawn().map_err(|e| format!("{name}: {e}"))?;
    watch(child, &name)
}

/// Drains a program's output, if that is a pipe, and waits for its end.
pub fn watch(mut child: Child, name: &str) -> Outcome<Cost> {
    let start = Instant::now();
    let id = child.id();
    let peak_kib = AtomicU64::new(0);
    let (seconds, drained) = thread::scope(|scope| -> Outcome<(f64, Option<u64>)> {
        scope.spawn(|| watch_memory(id, &peak_kib));
        let drained = match child.stdout.take() {
            Some(out) => Some(drain(out).map_err(|e| format!("{name}: {e}"))?),
            None => None,
        };
        // Not yet waited for: what the kernel has counted can still be asked.
        while !ended(id) {
            thread::sleep(Duration::from_micros(100));
        }
        Ok((start.elapsed().as_secs_f64(), drained))
    })?;
    let cpu_seconds = cpu_of(id).ok_or_else(|| format!("/proc does not tell the time of {name}"))?;
    let counts = fs::read_to_string(format!("/proc/{id}/io")).unwrap_or_default();
    let status = child.wait().map_err(|e| format!("{name}: {e}"))?;
    if !status.success() {
        return Err(format!("{name}: {status}"));
    }
    let counted = |what| field(&counts, what).ok_or_else(|| format!("/proc counts no {what}"));
    Ok(Cost {
        seconds,
        cpu_seconds,
        bytes: drained.map_or_else(|| counted("wchar:"), Ok)?,
        peak_mib: peak_kib.into_inner() as f64 / 1024.0,
        read_mib: counted("rchar:")? as f64 / f64::from(1 << 20),
    })
}

fn drain(mut out: impl Read + std::os::fd::AsFd) -> std::io::Result<u64> {
    let _ = rustix::pipe::fcntl_setpipe_size(&out, PIPE_BYTES);
    let mut sink = vec![0; PIPE_BYTES];
    let mut bytes = 0;
    loop {
        match out.read(&mut sink)? {
            0 => return Ok(bytes),
            n => bytes += n as u64,
        }
    }
}

/// Whether the process has ended but for being waited for.
fn ended(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; the state follows it.
    stat.rsplit(')').next().is_none_or(|rest| matches!(rest.trim().chars().next(), Some('Z') | None))
}

/// User and system time (fields 14 and 15 of `/proc/ID/stat`; Linux counts them in hundredths for everybody).
fn cpu_of(id: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) as f64 / 100.0)
}

/// What waits for a processor, on the average of the last minute.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_string()
}

/// Asks for the high-water mark of a process's memory until it has ended (`VmHWM` is what `ru_maxrss` is made from,
/// but without what the forking parent held). The last milliseconds are not seen, which a mark that only rises forgives.
fn watch_memory(id: u32, peak_kib: &AtomicU64) {
    while let Some(now) =
        fs::read_to_string(format!("/proc/{id}/status")).ok().and_then(|text| field(&text, "VmHWM:"))
    {
        peak_kib.fetch_max(now, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(2));
    }
}

/// Memory that could be used, in MiB.
pub fn available_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    field(&text, "MemAvailable:").unwrap_or(0) / 1024
}

/// The number behind a name in one of /proc's texts.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_measured() {
        let mut command = Command::new("head");
        command.args(["-c", "3000000", "/dev/zero"]);
        for sink in [Sink::Pipe, Sink::Null] {
            let cost = measure(&mut command, sink).expect("head runs");
            assert!(cost.bytes >= 3_000_000 && cost.bytes < 3_100_000, "{}", cost.bytes);
            assert!(cost.read_mib > 2.8 && cost.seconds > 0.0, "{} {}", cost.read_mib, cost.seconds);
        }
        assert!(measure(&mut Command::new("false"), Sink::Null).is_err());
    }
}
