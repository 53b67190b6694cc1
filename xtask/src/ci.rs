//! The gate every change passes, and the test command it shares with the README.
//!
//! Order: cheap checks first, the virtual machine last. Its set-up (about ten minutes, mostly compiling OpenZFS's
//! module) runs beside the checks, since each of them uses little of the second core.

use std::fs::{self, File};
use std::process::{Child, Stdio};

use icecore_check::fixture::target_dir;
use icecore_check::zdb;

use crate::interop::{self, HARNESS};
use crate::shell::{Outcome, cargo, program, run as shell, step};
use crate::tidy;
use crate::zoo;

pub fn run() -> Outcome {
    for (component, flag) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        let there = cargo().args([component, "--version"]).stdout(Stdio::null()).status();
        if !there.is_ok_and(|s| s.success()) {
            return Err(format!("cargo {component} is missing: rustup component add {flag}"));
        }
    }
    step("packages", || shell(program(HARNESS).arg("tools")))?;
    let setup = VmSetup::start()?;
    step("format", || shell(cargo().args(["fmt", "--all", "--check"])))?;
    step("tidy", tidy::run)?;
    step("clippy", || {
        shell(cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
    })?;
    step("cargo xtask test", || test(&[]))?;
    step("openzfs-vm setup", || setup.finish())?;
    step("cargo xtask interop --short", || interop::run(interop::Length::Short))?;
    eprintln!("\nci: all passed");
    Ok(())
}

/// All tests. With `zdb` there (installed if it can be), OpenZFS judges everywhere: one variable, [`zdb::REQUIRE_ZDB`],
/// is read by the tests of all crates, and a test that should be judged and cannot be is a failure.
pub fn test(args: &[&str]) -> Outcome {
    if let Err(why) = shell(program(HARNESS).arg("tools")) {
        eprintln!("\n******** could not install OpenZFS's tools: {why}");
        eprintln!(
            "******** SKIPPED in this run: every judgement by zdb and zstream. Install zfsutils-linux (Debian:"
        );
        eprintln!("******** contrib of backports) and run again.\n");
    }
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--locked", "--no-fail-fast"]).args(args);
    if let Some(zoo) = zoo::named()? {
        tests.env("ICECORE_ZOO", zoo);
    }
    if zdb::zdb_available() {
        // Debian puts zdb where only root's PATH looks.
        let path = std::env::var("PATH").unwrap_or_default();
        tests.env(zdb::REQUIRE_ZDB, "1").env("PATH", format!("{path}:/usr/sbin:/sbin:/usr/local/sbin"));
    }
    shell(&mut tests)
}

/// `openzfs-vm setup` in the background, its output in a file.
struct VmSetup {
    child: Child,
    log: std::path::PathBuf,
}

impl VmSetup {
    fn start() -> Outcome<VmSetup> {
        let log = target_dir().join("openzfs-vm-setup.log");
        let open = || -> std::io::Result<(File, File)> {
            fs::create_dir_all(target_dir())?;
            let out = File::create(&log)?;
            Ok((out.try_clone()?, out))
        };
        let (out, err) = open().map_err(|e| format!("{}: {e}", log.display()))?;
        let child = program(HARNESS).arg("setup").stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.map_err(|e| format!("{HARNESS} setup: {e}"))?;
        Ok(VmSetup { child, log })
    }

    fn finish(mut self) -> Outcome {
        let status = self.child.wait().map_err(|e| e.to_string())?;
        if status.success() {
            return Ok(());
        }
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        Err(format!("{status}, its log ends with:\n{}", lines[lines.len().saturating_sub(40)..].join("\n")))
    }
}
