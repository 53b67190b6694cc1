//! Typing commands.

use super::Outcome;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Size of a drive.
const DRIVE: u64 = 512 << 20;
/// Commands kept for the report of a failure.
const HISTORY: usize = 30;

pub(crate) struct Desk {
    program: PathBuf,
    folder: PathBuf,
    history: RefCell<VecDeque<String>>,
}

/// How a command ended.
pub(crate) struct Done {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    fn check(&self, line: &str) -> Outcome {
        if self.err.contains("panicked") || !matches!(self.status, 0..=2 | 255) {
            return Err(format!("{line}\nended with {}:\n{}", self.status, self.err));
        }
        Ok(())
    }
    pub fn ok(&self) -> bool {
        self.status == 0
    }
}

impl Desk {
    pub fn new(program: &Path, folder: &Path) -> Outcome<Self> {
        for sub in ["keys", "files", "out", "power"] {
            fs::create_dir_all(folder.join(sub)).map_err(|e| e.to_string())?;
        }
        let (program, folder) = (program.to_path_buf(), folder.to_path_buf());
        Ok(Self { program, folder, history: RefCell::default() })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A new sparse drive; its path.
    pub fn drive(&self, name: &str) -> Outcome<String> {
        let path = self.path(name);
        let made = fs::create_dir_all(path.parent().unwrap_or(&self.folder))
            .and_then(|()| File::create(&path))
            .and_then(|f| f.set_len(DRIVE));
        made.map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(path.display().to_string())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut c = Command::new(&self.program);
        c.args(words)
            .env("ICECORE_STATE_DIR", self.path("state"))
            .env("ICECORE_MOUNT", "off")
            .env("ICECORE_AUTOMOUNT", "off")
            .env("ICECORE_POWER_DIR", self.power())
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        c
    }

    fn remember(&self, line: String) {
        let mut history = self.history.borrow_mut();
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(line);
    }

    /// The last commands.
    pub fn history(&self) -> String {
        self.history.borrow().iter().map(|l| format!("  {l}\n")).collect()
    }
    /// The last one.
    pub fn last(&self) -> String {
        self.history.borrow().back().cloned().unwrap_or_default()
    }

    /// Types a command: `zfs …`, `zpool …` or one of ours.
    pub fn run(&self, words: &[&str]) -> Outcome<Done> {
        self.with_input(words, b"")
    }

    pub fn with_input(&self, words: &[&str], input: &[u8]) -> Outcome<Done> {
        let line = words.join(" ");
        self.remember(line.clone());
        let failed = |e: std::io::Error| format!("{line}: {e}");
        let mut child = self.command(words).stdin(Stdio::piped()).spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // Who asks for nothing may be gone already.
            let _ = stdin.write_all(input);
        }
        let done = ended(child.wait_with_output().map_err(failed)?);
        done.check(&line)?;
        Ok(done)
    }

    /// One that has to work; what it printed.
    pub fn ok(&self, words: &[&str]) -> Outcome<String> {
        let done = self.run(words)?;
        if done.ok() { Ok(done.out) } else { Err(format!("{}\nfailed:\n{}", words.join(" "), done.err)) }
    }

    /// `left | right`.
    pub fn pipe(&self, left: &[&str], right: &[&str]) -> Outcome<(Done, Done)> {
        let line = format!("{} | {}", left.join(" "), right.join(" "));
        self.remember(line.clone());
        let failed = |e: std::io::Error| format!("{line}: {e}");
        let errors = self.path("files/left.err");
        let file = File::create(&errors).map_err(failed)?;
        let mut from = self.command(left).stderr(file).spawn().map_err(failed)?;
        let stream = from.stdout.take().map_or_else(Stdio::null, Stdio::from);
        let to = self.command(right).stdin(stream).spawn().map_err(failed)?;
        let right = ended(to.wait_with_output().map_err(failed)?);
        let status = from.wait().map_err(failed)?.code().unwrap_or(-1);
        let err = fs::read_to_string(&errors).map_err(failed)?;
        let left = Done { status, out: String::new(), err };
        left.check(&line)?;
        right.check(&line)?;
        Ok((left, right))
    }

    /// Kills the service, if there is one, with no word of warning.
    pub fn kill_service(&self) -> Outcome {
        let failed = |e: std::io::Error| format!("killing the service: {e}");
        let said = self.command(&["service", "status"]).output().map_err(failed)?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        if let Some((_, rest)) = said.split_once("process ") {
            let pid = rest.split(',').next().unwrap_or_default().trim();
            let _ = Command::new("kill").args(["-9", pid]).status().map_err(failed)?;
        }
        Ok(())
    }

    /// Starts a command and waits for it, with what happens to the service meanwhile: whether it was acknowledged.
    pub fn doomed(
        &self,
        words: &[&str],
        input: Option<&Path>,
        fate: impl FnOnce() -> Outcome,
    ) -> Outcome<bool> {
        let line = words.join(" ");
        self.remember(format!("{line}   (the service dies)"));
        let failed = |e: std::io::Error| format!("{line}: {e}");
        let stdin = input.map(File::open).transpose().map_err(failed)?;
        let child =
            self.command(words).stdin(stdin.map_or_else(Stdio::null, Stdio::from)).spawn().map_err(failed)?;
        fate()?;
        Ok(ended(child.wait_with_output().map_err(failed)?).ok())
    }

    /// What a command prints, into a file.
    pub fn to_file(&self, words: &[&str], file: &Path) -> Outcome {
        let line = words.join(" ");
        self.remember(format!("{line} > {}", file.display()));
        let failed = |e: std::io::Error| format!("{line}: {e}");
        let out = File::create(file).map_err(failed)?;
        let done = ended(self.command(words).stdout(out).output().map_err(failed)?);
        if done.ok() { Ok(()) } else { Err(format!("{line}\nfailed:\n{}", done.err)) }
    }

    /// The folder in which a program made for it writes down what power may take (`icecore_env`, feature `power-cuts`).
    pub fn power(&self) -> PathBuf {
        self.path("power")
    }
}

fn ended(o: std::process::Output) -> Done {
    Done {
        status: o.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&o.stdout).into_owned(),
        err: String::from_utf8_lossy(&o.stderr).into_owned(),
    }
}
