//! What stands as `zfs`, `zpool` and `icecore` in the sandbox: notes the call and for whom it was, and becomes the program.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Where the sandbox shows the stage.
const STAGE: &str = "/peers";
/// Processes above a call that are looked at.
const GENERATIONS: usize = 16;

/// A call that was noted.
pub struct Call {
    /// The case it was made for, as far as that can be told: its name, or the path of a test of OpenZFS's suite.
    pub case: String,
}

impl Call {
    /// One line of the file of calls.
    pub fn parse(line: &str) -> Self {
        Self { case: line.split('\t').next().unwrap_or_default().into() }
    }
}

/// Whether this program was called in the place of a command, and then as which.
pub fn called_as(name: &str) -> Option<&str> {
    let name = name.rsplit('/').next()?;
    ["zfs", "zpool", "icecore", "mount.zfs", "mount.fuse.zfs"].contains(&name).then_some(name)
}

/// Notes the call and becomes the program of that name.
pub fn become_it(name: &str, args: &[OsString]) -> ExitCode {
    let words: Vec<String> = args.iter().map(|a| a.to_string_lossy().replace(['\n', '\t'], " ")).collect();
    let line = format!("{}\t{name}\t{}\n", case(), words.join(" "));
    let log = OpenOptions::new().append(true).create(true).open(Path::new(STAGE).join("out/calls"));
    let noted = log.and_then(|mut f| {
        // Whoever calls: the file is everybody's.
        let _ = fs::set_permissions(
            Path::new(STAGE).join("out/calls"),
            std::os::unix::fs::PermissionsExt::from_mode(0o666),
        );
        f.write_all(line.as_bytes())
    });
    if let Err(e) = noted {
        eprintln!("{name}: the call could not be noted: {e}");
    }
    let mut program = Command::new(Path::new(STAGE).join("real").join(name));
    if rustix::process::geteuid().is_root() && std::env::var_os("ICECORE_STATE_DIR").is_none() {
        program.env("ICECORE_STATE_DIR", "/run/icecore-peers");
    }
    let e = program.arg0(name).args(args).exec();
    eprintln!("{name}: {e}");
    ExitCode::FAILURE
}

/// The case that this call is for: said by the environment, or the test script among the processes above.
fn case() -> String {
    if let Ok(case) = std::env::var("PEERS_CASE") {
        return case;
    }
    let mut pid = std::process::id();
    for _ in 0..GENERATIONS {
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { break };
        let line = String::from_utf8_lossy(&line).into_owned();
        if let Some(test) = line.split('\0').find_map(|w| w.split_once("/tests/functional/")) {
            return test.1.trim_end_matches(".ksh").to_string();
        }
        // The name in stat may hold anything; what follows its last bracket does not.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { break };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        match parent {
            Some(parent) if parent > 1 => pid = parent,
            _ => break,
        }
    }
    String::new()
}
