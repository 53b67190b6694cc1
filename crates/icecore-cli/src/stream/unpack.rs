//! `stream ls`, `cat` and `extract`: files out of a stream, or out of a chain of them, without a pool of one's own.
//!
//! The streams are received into a pool in one sparse file in the temporary folder, which is removed in the end; what
//! is shown is what a restore would give. Every step is a command of this program, so nothing is decoded twice.

use super::open;
use crate::args::{Opt, Typed, flag, value};
use crate::fail::{Fail, Outcome};
use icecore_format::stream::{Record, StreamReader};
use icecore_stream::payload_sum;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub const LS_USAGE: &str = "stream ls [-l] [--at DATASET[@SNAP][:PATH]] <file> ...";
pub const CAT_USAGE: &str = "stream cat --at DATASET[@SNAP]:PATH <file> ...";
pub const EXTRACT_USAGE: &str = "stream extract [--at DATASET[@SNAP][:PATH]] <file> ... <destination folder>";

/// Space beside the data, for what a pool keeps back.
const ROOM: u64 = 1 << 30;

const AT: Opt = value('@', "at");

pub fn run_ls(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('l', ""), AT], LS_USAGE)?;
    let unpacked = Unpacked::of(&typed.operands, LS_USAGE)?;
    let flags = if typed.has('l') { "-alR" } else { "-aR" };
    for place in unpacked.places(&typed)? {
        unpacked.run(&["ls", flags, &place], Stdio::inherit())?;
    }
    Ok(())
}

pub fn run_cat(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[AT], CAT_USAGE)?;
    let Some(place) = typed.value('@') else { return Err(Fail::usage("missing --at", CAT_USAGE)) };
    let unpacked = Unpacked::of(&typed.operands, CAT_USAGE)?;
    unpacked.run(&["cat", &unpacked.newest(place)?], Stdio::inherit())
}

pub fn run_extract(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[AT], EXTRACT_USAGE)?;
    let Some((to, files)) = typed.operands.split_last() else {
        return Err(Fail::usage("missing file argument", EXTRACT_USAGE));
    };
    let unpacked = Unpacked::of(files, EXTRACT_USAGE)?;
    for place in unpacked.places(&typed)? {
        // Datasets lie below each other in the folder as they do in the pool; `cp` adds the last name itself.
        let dataset = place.split('@').next().unwrap_or(&place);
        let below = match (typed.value('@'), dataset.rsplit_once('/')) {
            (None, Some((above, _))) => Path::new(to).join(above),
            _ => PathBuf::from(to),
        };
        fs::create_dir_all(&below)
            .map_err(|e| Fail::new(format!("cannot make '{}': {e}", below.display())))?;
        let below = below.to_string_lossy().into_owned();
        let contents = if place.contains(':') { place } else { format!("{place}:/.") };
        unpacked.run(&["cp", "-rp", &contents, &below], Stdio::inherit())?;
    }
    Ok(())
}

/// Streams received into a pool that goes away with this.
struct Unpacked {
    dir: PathBuf,
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Unpacked {
    fn of(files: &[String], usage: &str) -> Outcome<Self> {
        let Some(first) = files.first() else { return Err(Fail::usage("missing file argument", usage)) };
        let mut bytes = ROOM;
        for file in files {
            let len = fs::metadata(file).map_err(|e| Fail::new(format!("cannot open '{file}': {e}")))?.len();
            bytes = bytes.saturating_add(len.saturating_mul(2));
        }
        let pool = pool_of(first)?;
        let dir = std::env::temp_dir().join(format!("icecore-stream-{}", std::process::id()));
        fs::create_dir(&dir).map_err(|e| Fail::new(format!("cannot make {}: {e}", dir.display())))?;
        let unpacked = Self { dir };
        let image = unpacked.dir.join("image");
        let made = File::create(&image).and_then(|f| f.set_len(bytes & !0xffff));
        made.map_err(|e| Fail::new(format!("cannot make {}: {e}", image.display())))?;
        let quiet = || Stdio::null();
        unpacked.run(&["zpool", "create", "-m", "none", &pool, &image.to_string_lossy()], quiet())?;
        for file in files {
            let mut command = unpacked.command(&["zfs", "receive", "-u", "-F", "-d", &pool])?;
            let input = File::open(file).map_err(|e| Fail::new(format!("cannot open '{file}': {e}")))?;
            let status = command.stdin(input).stdout(quiet()).status()?;
            if !status.success() {
                return Err(Fail::new(format!(
                    "cannot unpack '{file}': give the whole chain, the full stream first and then its increments"
                )));
            }
        }
        Ok(unpacked)
    }

    fn command(&self, args: &[&str]) -> Outcome<Command> {
        let exe = std::env::current_exe().map_err(|e| Fail::new(format!("cannot find this program: {e}")))?;
        let mut command = Command::new(exe);
        command.args(args).env("ICECORE_STATE_DIR", self.dir.join("state"));
        Ok(command)
    }

    fn run(&self, args: &[&str], out: Stdio) -> Outcome {
        let status = self.command(args)?.stdout(out).status()?;
        match status.code() {
            Some(0) => Ok(()),
            code => Err(Fail::said(code.unwrap_or(crate::fail::FAILED))),
        }
    }

    fn list(&self, args: &[&str]) -> Outcome<Vec<String>> {
        let out = self.command(args)?.stderr(Stdio::inherit()).output()?;
        Ok(String::from_utf8_lossy(&out.stdout).lines().map(String::from).collect())
    }

    /// What was asked for, or the newest snapshot of every file system.
    fn places(&self, typed: &Typed) -> Outcome<Vec<String>> {
        if let Some(place) = typed.value('@') {
            return Ok(vec![self.newest(place)?]);
        }
        let mut out = Vec::new();
        for fs in self.list(&["zfs", "list", "-H", "-o", "name", "-t", "filesystem"])? {
            if let Some(snapshot) = self.last_snapshot(&fs)? {
                out.push(snapshot);
            }
        }
        Ok(out)
    }

    fn last_snapshot(&self, fs: &str) -> Outcome<Option<String>> {
        let all = self.list(&["zfs", "list", "-H", "-o", "name", "-t", "snapshot", "-s", "createtxg", fs])?;
        Ok(all.into_iter().next_back())
    }

    /// The place, in the newest snapshot if it names none.
    fn newest(&self, place: &str) -> Outcome<String> {
        let (dataset, path) = place.split_once(':').map_or((place, None), |(d, p)| (d, Some(p)));
        let dataset = if dataset.contains('@') {
            dataset.to_string()
        } else {
            self.last_snapshot(dataset)?
                .ok_or_else(|| Fail::new(format!("the streams have no snapshot of '{dataset}'")))?
        };
        Ok(path.map_or(dataset.clone(), |path| format!("{dataset}:{path}")))
    }
}

/// The pool that a stream comes from.
fn pool_of(file: &str) -> Outcome<String> {
    let mut reader = StreamReader::new(open(file)?, payload_sum);
    let first = reader.next(&mut Vec::new()).map_err(|e| Fail::new(format!("{file}: {e}")))?;
    let name = match first.map(|e| e.record) {
        Some(Record::Begin(b)) => b.toname.as_str().map(String::from),
        _ => None,
    };
    let pool = name.as_deref().and_then(|n| n.split(['/', '@']).next()).filter(|n| !n.is_empty());
    pool.map(String::from)
        .ok_or_else(|| Fail::new(format!("{file}: the stream does not say where it comes from")))
}
