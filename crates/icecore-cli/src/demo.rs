//! `icecore demo [DIR]`: a real OpenZFS pool backed up onto a new drive, in full and by increment, and checked.
//!
//! Every step is a command anyone could type; it is shown, then run by this very program. The drives are
//! files. The passphrase of the encrypted datasets is never given: backing up does not need it.

use crate::args::Typed;
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use icecore_format::stream::{Record, StreamReader};
use icecore_pool::Pool;
use icecore_stream::send::{SendFlags, SendSpec, resolve, send_one};
use std::io::{BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

pub const USAGE: &str = "demo [DIR]";

pub const HELP: &str = "usage: icecore demo [DIR]

Backs up a pool made by OpenZFS onto a new drive, first in full, then what changed, and
compares both block by block. The drives are files in DIR, which stay there; without DIR
in a temporary folder that is removed. Nothing else is touched; no root is needed.
";

/// A pool that OpenZFS 2.3.2 made (the recipe lies beside it).
const POOL: &[u8] = include_bytes!("../../../tests-data/cold/main.img.zst");
/// Bytes of that pool's device.
const POOL_BYTES: u64 = 256 << 20;

struct Demo {
    dir: PathBuf,
    exe: PathBuf,
    bold: bool,
}

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[], USAGE)?;
    let dir = match typed.operands.as_slice() {
        [] => std::env::temp_dir().join(format!("icecore-demo-{}", std::process::id())),
        [dir] => PathBuf::from(dir),
        _ => return Err(Fail::usage("too many arguments", USAGE)),
    };
    if dir.join("main.img").exists() || dir.join("drive.img").exists() {
        return Err(Fail::new(format!(
            "{} holds drives of an earlier demo: remove them or name another folder",
            dir.display()
        )));
    }
    std::fs::create_dir_all(&dir).map_err(|e| Fail::new(format!("cannot make {}: {e}", dir.display())))?;
    let dir = std::path::absolute(&dir).unwrap_or(dir);
    let exe = std::env::current_exe().map_err(|e| Fail::new(format!("cannot find this program: {e}")))?;
    let demo = Demo { exe, bold: std::io::stdout().is_terminal(), dir };
    let outcome = demo.story();
    if typed.operands.is_empty() {
        let _ = std::fs::remove_dir_all(&demo.dir);
    }
    outcome
}

impl Demo {
    fn story(&self) -> Outcome {
        let start = Instant::now();
        self.title(
            "A pool made by OpenZFS: encrypted documents, photos and a volume. Its passphrase stays unsaid.",
        );
        unpack(&self.dir.join("main.img"))?;
        let dir = self.dir.display().to_string();
        self.zpool(&["import", "-d", &dir, "-o", "readonly=on", "main"])?;
        self.zfs(&["list", "-o", "name,used,refer,encryption,keystatus"])?;

        self.title("A new drive.");
        let drive = self.dir.join("drive.img");
        let made = std::fs::File::create(&drive).and_then(|f| f.set_len(POOL_BYTES));
        made.map_err(|e| Fail::new(format!("cannot make {}: {e}", drive.display())))?;
        self.zpool(&["create", "-o", "ashift=12", "-m", "none", "backup", &drive.display().to_string()])?;

        self.title("The first copy: everything up to @root, ciphertext as it lies on disk.");
        self.pipe(&["send", "-w", "-R", "main@root"], &["receive", "-F", "backup"])?;

        self.title("Some weeks later: only what changed, with every snapshot in between.");
        self.pipe(&["send", "-w", "-R", "-I", "main@root", "main@newsnapshot"], &["receive", "backup"])?;
        self.zfs(&["list", "-r", "-t", "all", "-o", "name,used,refer", "backup"])?;

        self.title("Is the copy the original? Both sides are read back and compared, block by block.");
        let (snapshots, blocks, bytes) = self.compare()?;
        println!(
            "{snapshots} snapshots, {blocks} blocks, {} of ciphertext and metadata: the same on both.",
            crate::human::bytes(bytes)
        );

        self.title("Unplug.");
        self.zpool(&["export", "backup"])?;
        self.zpool(&["export", "main"])?;
        self.title("Proven:");
        println!(
            "  a pool of OpenZFS was read, sent and received without a kernel module, without root, without the key;"
        );
        println!("  the increment found its base by GUID and left the first copy as it was;");
        println!(
            "  every block of every snapshot was read back from the new drive, its checksum right, its bytes the source's."
        );
        println!("  Any OpenZFS imports {} and unlocks it with the source's passphrase.", drive.display());
        println!("Took {:.1} s.", start.elapsed().as_secs_f64());
        Ok(())
    }

    fn title(&self, text: &str) {
        if self.bold { println!("\n\x1b[1m{text}\x1b[0m") } else { println!("\n{text}") }
    }

    fn command(&self, tool: &str, args: &[&str]) -> Command {
        let mut c = Command::new(&self.exe);
        c.arg(tool).args(args).env("ICECORE_STATE_DIR", self.dir.join("state"));
        c
    }

    fn zpool(&self, args: &[&str]) -> Outcome {
        self.step("zpool", args)
    }
    fn zfs(&self, args: &[&str]) -> Outcome {
        self.step("zfs", args)
    }
    fn step(&self, tool: &str, args: &[&str]) -> Outcome {
        println!("$ {tool} {}", args.join(" "));
        let status = self.command(tool, args).status().map_err(|e| Fail::new(e.to_string()))?;
        if status.success() {
            Ok(())
        } else {
            Err(Fail::new(format!("{tool} {} failed ({status})", args.join(" "))))
        }
    }

    fn pipe(&self, send: &[&str], receive: &[&str]) -> Outcome {
        println!("$ zfs {} | zfs {}", send.join(" "), receive.join(" "));
        let io = |e: std::io::Error| Fail::new(e.to_string());
        let mut from = self.command("zfs", send).stdout(Stdio::piped()).spawn().map_err(io)?;
        let stdin = from.stdout.take().map_or(Stdio::null(), Stdio::from);
        let to = self.command("zfs", receive).stdin(stdin).status().map_err(io)?;
        let from = from.wait().map_err(io)?;
        if from.success() && to.success() {
            Ok(())
        } else {
            Err(Fail::new(format!("send ended with {from}, receive with {to}")))
        }
    }

    /// Streams every snapshot of both pools and compares what the blocks hold: (snapshots, blocks, bytes).
    fn compare(&self) -> Outcome<(usize, u64, u64)> {
        // The pools' owner lets them go; this process looks for itself.
        let stopped = self.command("service", &["stop"]).stdout(Stdio::null()).status();
        if !stopped.is_ok_and(|s| s.success()) {
            return Err(Fail::new("the service could not be stopped"));
        }
        let state = self.dir.join("state");
        let open = |name: &str| session::open_in(&state, name, For::Read);
        let (main, backup) = (open("main")?, open("backup")?);
        let (mut snapshots, mut blocks, mut bytes) = (0, 0, 0);
        for ds in main.dsl.descendants(main.io(), "main")? {
            let copy = ds.replacen("main", "backup", 1);
            for (snap, _) in main.dsl.snapshots(main.io(), &ds)? {
                let ours = contents(&main, &format!("{ds}@{snap}"))?;
                let theirs = contents(&backup, &format!("{copy}@{snap}"))?;
                if ours != theirs {
                    return Err(Fail::new(format!("{copy}@{snap} differs from {ds}@{snap}")));
                }
                snapshots += 1;
                blocks += ours.blocks;
                bytes += ours.bytes;
            }
        }
        Ok((snapshots, blocks, bytes))
    }
}

/// What a snapshot holds: a sum over its objects and blocks, in order.
#[derive(PartialEq, Eq, Debug)]
struct Contents {
    blocks: u64,
    bytes: u64,
    sum: [u64; 4],
}

fn contents(pool: &Pool, name: &str) -> Outcome<Contents> {
    let flags = SendFlags { raw: true, large_block: true, embed: true, compress: true };
    let spec = SendSpec { to: name.into(), flags, ..SendSpec::default() };
    let source = resolve(pool.io(), &pool.dsl, &spec).map_err(|e| crate::zfs::explain_send(name, &e))?;
    let mut stream = Vec::new();
    send_one(pool.io(), &source, flags, spec.packing, &mut stream, &mut |_| {})
        .map_err(|e| crate::zfs::explain_send(name, &e))?;
    let mut out = Contents { blocks: 0, bytes: 0, sum: [0; 4] };
    let mut reader = StreamReader::new(BufReader::new(stream.as_slice()), icecore_stream::payload_sum);
    let mut payload = Vec::new();
    while let Some(entry) = reader.next(&mut payload).map_err(|e| Fail::new(e.to_string()))? {
        if matches!(
            entry.record,
            Record::Object(_) | Record::Write(_) | Record::Spill(_) | Record::WriteEmbedded(_)
        ) {
            let sum = icecore_transform::checksum::sha256(
                &[payload.as_slice(), &out.sum.map(u64::to_le_bytes).concat()].concat(),
            );
            out.sum = sum;
            out.blocks += 1;
            out.bytes += payload.len() as u64;
        }
    }
    Ok(out)
}

fn unpack(to: &Path) -> Outcome {
    let fail = |e: std::io::Error| Fail::new(format!("cannot unpack the demo pool to {}: {e}", to.display()));
    let mut decoder = zstd::Decoder::new(POOL).map_err(fail)?;
    let mut file = std::fs::File::create(to).map_err(fail)?;
    let mut block = vec![0; 1 << 20];
    let mut at = 0_u64;
    loop {
        let n = std::io::Read::read(&mut decoder, &mut block).map_err(fail)?;
        if n == 0 {
            break;
        }
        // Holes stay holes.
        if block[..n].iter().any(|b| *b != 0) {
            std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(at)).map_err(fail)?;
            std::io::Write::write_all(&mut file, &block[..n]).map_err(fail)?;
        }
        at += n as u64;
    }
    file.set_len(POOL_BYTES).map_err(fail)
}
