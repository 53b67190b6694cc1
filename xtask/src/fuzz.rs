//! The fuzz targets of `icecore_check::fuzz` under libFuzzer with AddressSanitizer: `cargo xtask fuzz`.
//!
//! `cargo-fuzz` builds them on this stable toolchain (`RUSTC_BOOTSTRAP=1`, for the instrumentation only). Inputs that
//! reached something new stay in `target/fuzz/corpus`, so each run goes on where the last one ended; an input that
//! breaks something stays in `target/fuzz/broken` and ends in a test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use icecore_check::fixture::{repo_root, target_dir};
use icecore_check::fuzz::{TARGETS, Target, target};

use crate::shell::{Outcome, cargo, run as shell};

/// Seconds for each target: what a target has to stand before a release.
const SECONDS: u64 = 600;
/// No input may take longer, nor the process more memory.
const LIMITS: [&str; 5] =
    ["-timeout=120", "-rss_limit_mb=3072", "-max_len=65536", "-len_control=0", "-print_final_stats=1"];

/// `cargo xtask fuzz [SECONDS [TARGET...]]`.
pub fn fuzz(words: &[&str]) -> Outcome {
    let (seconds, names) = match words.split_first() {
        Some((first, names)) if first.parse::<u64>().is_ok() => (first.parse().unwrap_or(SECONDS), names),
        _ => (SECONDS, words),
    };
    let known = |name: &&str| target(name).ok_or_else(|| format!("no such target: {name}"));
    let chosen: Vec<&Target> = if names.is_empty() {
        TARGETS.iter().collect()
    } else {
        names.iter().map(known).collect::<Result<_, _>>()?
    };
    let binary = build()?;
    println!("{:<10} {:>8} {:>12} {:>9} {:>9}  result", "target", "seconds", "executions", "edges", "corpus");
    let mut broken = Vec::new();
    for target in chosen {
        let outcome = one(&binary, target, seconds)?;
        println!("{outcome}");
        if !outcome.clean {
            broken.push(target.name);
        }
    }
    if broken.is_empty() {
        Ok(())
    } else {
        Err(format!("broken: {} (see target/fuzz/broken)", broken.join(", ")))
    }
}

fn build() -> Outcome<PathBuf> {
    if !cargo().args(["fuzz", "--version"]).output().is_ok_and(|done| done.status.success()) {
        return Err("cargo-fuzz is missing: cargo install cargo-fuzz --locked".into());
    }
    let folder = target_dir().join("fuzz/build");
    shell(
        cargo()
            .args(["fuzz", "build", "any", "--fuzz-dir"])
            .arg(repo_root().join("fuzz"))
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", &folder),
    )?;
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    Ok(folder.join(triple).join("release/any"))
}

/// What came of one target.
struct Run {
    name: &'static str,
    seconds: u64,
    executions: String,
    edges: String,
    corpus: usize,
    clean: bool,
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, seconds, executions, edges, corpus, clean } = self;
        let result = if *clean { "clean" } else { "BROKEN" };
        write!(f, "{name:<10} {seconds:>8} {executions:>12} {edges:>9} {corpus:>9}  {result}")
    }
}

fn one(binary: &Path, target: &Target, seconds: u64) -> Outcome<Run> {
    let home = target_dir().join("fuzz");
    let (corpus, broken) = (home.join("corpus").join(target.name), home.join("broken"));
    for folder in [&corpus, &broken] {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    for (i, seed) in (target.seeds)().iter().enumerate() {
        std::fs::write(corpus.join(format!("seed-{i:03}")), seed).map_err(|e| e.to_string())?;
    }
    let log = home.join(format!("{}.log", target.name));
    let file = std::fs::File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let status = Command::new(binary)
        .env("ICECORE_FUZZ", target.name)
        .args(LIMITS)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/{}-", broken.display(), target.name))
        .arg(&corpus)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .status()
        .map_err(|e| format!("{}: {e}", binary.display()))?;
    let said = std::fs::read(&log).map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&said);
    let after = |label: &str| said.rsplit_once(label).and_then(|(_, rest)| rest.split_whitespace().next());
    Ok(Run {
        name: target.name,
        seconds,
        executions: after("stat::number_of_executed_units:").unwrap_or("?").into(),
        edges: after(" cov: ").unwrap_or("?").into(),
        corpus: std::fs::read_dir(&corpus).map_or(0, Iterator::count),
        clean: status.success(),
    })
}
