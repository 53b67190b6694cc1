//! The proofs against real OpenZFS, in both directions.
//!
//! The story is the project's own: a source pool made by OpenZFS, a backup pool made by icecore, raw replication, a
//! month later an increment. Then OpenZFS, in a virtual machine, reads the backup back with the passphrase and
//! compares every snapshot with what it had recorded of the source; adds an increment of its own; icecore adds one
//! more; OpenZFS reads again. Between the acts zdb judges each image on this machine.
//!
//! Guest scripts are `interop/*.sh`; each prints one line a check and ends with their number.

mod day;
mod mounted;
mod scrub;
mod walked;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use icecore_check::fixture::{fixture_copy, repo_root, target_dir, tests_data};
use icecore_check::zdb;

use crate::shell::{Outcome, build_icecore, program, run as shell};

/// Our keeper of real OpenZFS: its tools, and its kernel module in a virtual machine.
pub const HARNESS: &str = "interop/openzfs-vm";

#[derive(Clone, Copy, PartialEq)]
pub enum Length {
    /// One boot: OpenZFS reads what icecore wrote and receives what it sent.
    Short,
    /// The whole story.
    Full,
    /// Only the act "day": files that icecore wrote.
    Day,
    /// Only the act "mounted": files that came through mounts.
    Mounted,
    /// Only the act "scrub": scrubs that the other system finishes.
    Scrub,
}

pub fn run(length: Length) -> Outcome {
    let stage = Stage::new()?;
    match length {
        Length::Day => return stage.day(),
        Length::Mounted => return stage.mounted(),
        Length::Scrub => return stage.scrub(),
        Length::Short | Length::Full => {}
    }
    stage.first_backup()?;
    stage.judge("backup")?;
    stage.streams_for_openzfs(length)?;
    stage.guest(
        "read-backup.sh",
        &["expected", "full.zfs", "incremental.zfs", "plain.zfs"],
        &["backup.img"],
    )?;
    if length == Length::Full {
        let out = stage.guest("month-three.sh", &[], &["backup.img", "main.img"])?;
        stage.adopt_expected(&out.join("expected"))?;
        stage.second_increment()?;
        stage.judge("backup")?;
        stage.guest("read-again.sh", &["expected"], &["backup.img"])?;
        stage.day()?;
        stage.mounted()?;
        stage.scrub()?;
        stage.walked()?;
    }
    eprintln!("interop: all acts passed");
    Ok(())
}

/// Lets OpenZFS judge the moments that a walk kept in a folder.
pub fn walked(kept: &Path) -> Outcome {
    Stage::new()?.moments(kept)
}

/// The folder of one run: images, streams, icecore's state.
struct Stage {
    dir: PathBuf,
    icecore: PathBuf,
}

impl Stage {
    fn new() -> Outcome<Stage> {
        shell(program(HARNESS).arg("setup"))?;
        let icecore = build_icecore()?;
        let dir = target_dir().join("interop");
        let fresh = || -> std::io::Result<()> {
            if dir.exists() {
                fs::remove_dir_all(&dir)?;
            }
            fs::create_dir_all(dir.join("state"))?;
            copy_folder(&tests_data().join("cold/main.expected"), &dir.join("expected"))?;
            File::create(dir.join("backup.img"))?.set_len(256 << 20)
        };
        fresh().map_err(|e| format!("{}: {e}", dir.display()))?;
        fixture_copy("cold/main.img", &dir.join("main.img"));
        Ok(Stage { dir, icecore })
    }

    /// The mission, as its user types it.
    fn first_backup(&self) -> Outcome {
        self.icecore(&["zpool", "import", "-N", "-o", "readonly=on", "-d", &self.path("main.img"), "main"])?;
        self.icecore(&["zpool", "create", "-m", "none", "backup", &self.path("backup.img")])?;
        self.pipe(&["send", "-w", "-R", "main@root"], &["receive", "-u", "-F", "backup"])?;
        self.pipe(
            &["send", "-w", "-R", "-I", "main@root", "main@newsnapshot"],
            &["receive", "-u", "-F", "backup"],
        )?;
        self.icecore(&["zfs", "list", "-r", "-t", "all", "backup"])?;
        self.export_both()
    }

    /// OpenZFS wrote to both pools since: one more increment must still fit.
    fn second_increment(&self) -> Outcome {
        self.icecore(&["zpool", "import", "-N", "-o", "readonly=on", "-d", &self.path("main.img"), "main"])?;
        self.icecore(&["zpool", "import", "-N", "-d", &self.path("backup.img"), "backup"])?;
        self.pipe(
            &["send", "-w", "-R", "-I", "main@month3", "main@month4"],
            &["receive", "-u", "-F", "backup"],
        )?;
        self.export_both()
    }

    fn export_both(&self) -> Outcome {
        self.icecore(&["zpool", "export", "backup"])?;
        self.icecore(&["zpool", "export", "main"])
    }

    fn streams_for_openzfs(&self, length: Length) -> Outcome {
        self.icecore(&["zpool", "import", "-N", "-o", "readonly=on", "-d", &self.path("main.img"), "main"])?;
        self.send_to_file("full.zfs", &["-w", "-R", "main@root"])?;
        self.send_to_file("incremental.zfs", &["-w", "-R", "-I", "main@root", "main@newsnapshot"])?;
        if length == Length::Full {
            self.send_to_file("plain.zfs", &["-R", "main/plain@newsnapshot"])?;
        }
        self.icecore(&["zpool", "export", "main"])
    }

    /// zdb wants a folder of its own for each pool it looks for.
    fn judge(&self, pool: &str) -> Outcome {
        let folder = self.dir.join("judged");
        let image = format!("{pool}.img");
        let place = || -> std::io::Result<()> {
            fs::create_dir_all(&folder)?;
            fs::rename(self.dir.join(&image), folder.join(&image))
        };
        place().map_err(|e| e.to_string())?;
        let verdict = zdb::zdb_clean(&folder, pool);
        fs::rename(folder.join(&image), self.dir.join(&image)).map_err(|e| e.to_string())?;
        verdict?;
        eprintln!("zdb: {pool} is clean");
        Ok(())
    }

    /// Boots the guest with a script, inputs and disks of this stage; returns the folder of what the script left.
    fn guest(&self, script: &str, inputs: &[&str], disks: &[&str]) -> Outcome<PathBuf> {
        let name = script.trim_end_matches(".sh");
        let (input, output) = (self.dir.join(format!("{name}.in")), self.dir.join(format!("{name}.out")));
        let fill = || -> std::io::Result<()> {
            fs::create_dir_all(&input)?;
            let root = repo_root();
            fs::copy(root.join("interop").join(script), input.join("run.sh"))?;
            fs::copy(root.join("interop/guest.sh"), input.join("guest.sh"))?;
            fs::copy(root.join("tests-data/recipes/lib.sh"), input.join("lib.sh"))?;
            for name in inputs {
                let from = self.dir.join(name);
                if from.is_dir() {
                    copy_folder(&from, &input.join(name))?;
                } else if from.exists() {
                    fs::copy(from, input.join(name))?;
                }
            }
            Ok(())
        };
        fill().map_err(|e| format!("{}: {e}", input.display()))?;
        let mut vm = program(HARNESS);
        vm.arg("run").arg(&input).arg(&output).args(disks.iter().map(|disk| self.dir.join(disk)));
        shell(&mut vm)?;
        Ok(output)
    }

    fn adopt_expected(&self, from: &Path) -> Outcome {
        copy_folder(from, &self.dir.join("expected")).map_err(|e| format!("{}: {e}", from.display()))
    }

    fn icecore(&self, args: &[&str]) -> Outcome {
        shell(self.command().args(args))
    }

    fn pipe(&self, send: &[&str], receive: &[&str]) -> Outcome {
        eprintln!("$ icecore zfs {} | icecore zfs {}", send.join(" "), receive.join(" "));
        let failed = |e: std::io::Error| e.to_string();
        let mut sender =
            self.command().arg("zfs").args(send).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let stream = sender.stdout.take().ok_or("no pipe")?;
        let received = self.command().arg("zfs").args(receive).stdin(stream).status().map_err(failed)?;
        let sent = sender.wait().map_err(failed)?;
        if sent.success() && received.success() {
            Ok(())
        } else {
            Err(format!("send: {sent}; receive: {received}"))
        }
    }

    fn send_to_file(&self, file: &str, args: &[&str]) -> Outcome {
        let stream = File::create(self.dir.join(file)).map_err(|e| format!("{file}: {e}"))?;
        shell(self.command().args(["zfs", "send"]).args(args).stdout(stream))
    }

    fn command(&self) -> Command {
        let mut command = program(&self.icecore);
        command.env("ICECORE_STATE_DIR", self.dir.join("state")).env("ICECORE_MOUNT", "off");
        command
    }

    fn path(&self, file: &str) -> String {
        self.dir.join(file).to_string_lossy().into_owned()
    }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
