//! Running other programs: each is shown before it runs, and failing is an error with its name.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use icecore_check::fixture::{repo_root, target_dir};

/// What an xtask command ends with; the text says what is wrong.
pub type Outcome<T = ()> = Result<T, String>;

/// A program to be started in the repository's root, with root's folders on its PATH (Debian puts zdb there).
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.current_dir(repo_root()).env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// This toolchain's cargo.
pub fn cargo() -> Command {
    program(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs it to its end, showing its output, and takes any exit status but 0 as an error.
pub fn run(command: &mut Command) -> Outcome {
    let shown = show(command);
    eprintln!("$ {shown}");
    let status = command.status().map_err(|e| format!("{shown}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown}: {status}")) }
}

/// Runs it and returns its standard output; its errors go to ours.
pub fn output(command: &mut Command) -> Outcome<String> {
    let shown = show(command);
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("{shown}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{shown}: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|e| format!("{shown}: {e}"))
}

/// Builds the command line program the way users run it, and returns where it is; `ICECORE_BIN` names one that is
/// there already.
pub fn build_icecore() -> Outcome<PathBuf> {
    if let Some(path) = std::env::var_os("ICECORE_BIN") {
        return Ok(path.into());
    }
    run(cargo().args(["build", "--release", "--locked", "--package", "icecore-cli"]))?;
    Ok(target_dir().join("release/icecore"))
}

/// Runs one step of a longer command under a heading, and says how long it took.
pub fn step(name: &str, work: impl FnOnce() -> Outcome) -> Outcome {
    eprintln!("\n== {name}");
    let start = Instant::now();
    let outcome = work();
    let verdict = if outcome.is_ok() { "passed" } else { "FAILED" };
    eprintln!("== {name}: {verdict} after {} s", start.elapsed().as_secs());
    outcome.map_err(|why| format!("{name}: {why}"))
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
