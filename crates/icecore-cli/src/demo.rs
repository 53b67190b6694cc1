//! `icecore demo [DIR]`: the whole story on drives that are files, told by the commands themselves.
//!
//! Invariants:
//! 1. The line that is shown is what is run, by this very program; `$D` is the demo's folder.
//! 2. What is called proven was looked at: a check that fails ends the demo with status 1 and what was seen.
//! 3. Nothing outside the folder is touched: the state, and so the service, are the demo's own.

mod files;

use crate::args::Typed;
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use icecore_format::stream::{Record, StreamReader};
use icecore_pool::Pool;
use icecore_stream::send::{SendFlags, SendSpec, resolve, send_one};
use std::fs::{self, File};
use std::io::{BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

pub const USAGE: &str = "demo [DIR]";

pub const HELP: &str = "usage: icecore demo [DIR]

Makes a pool with an encrypted dataset, backs it up raw onto two drives, prunes, heals a
flipped bit, sets right a backup that was written on, restores, and compares; then copies
a pool that OpenZFS made. The drives are files in DIR, which stay there; without DIR in a
temporary folder that is removed. Nothing else is touched; no root is needed.
";

/// A pool that OpenZFS 2.3.2 made (the recipe lies beside it).
const POOL: &[u8] = include_bytes!("../../../tests-data/cold/main.img.zst");
/// Bytes of that pool's device.
const POOL_BYTES: u64 = 256 << 20;
/// Bytes of the other drives.
const DRIVE_BYTES: u64 = 128 << 20;

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
    if dir.join("main").exists() || dir.join("folder").exists() {
        return Err(Fail::new(format!(
            "{} holds drives of an earlier demo: remove them or name another folder",
            dir.display()
        )));
    }
    std::fs::create_dir_all(&dir).map_err(|e| Fail::new(format!("cannot make {}: {e}", dir.display())))?;
    let dir = std::path::absolute(&dir).unwrap_or(dir);
    let exe = std::env::current_exe().map_err(|e| Fail::new(format!("cannot find this program: {e}")))?;
    let demo = Demo {
        exe,
        bold: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        dir,
    };
    let outcome = demo.story();
    let _ = demo.command("service stop", Stdio::null()).output();
    if typed.operands.is_empty() {
        let _ = std::fs::remove_dir_all(&demo.dir);
    }
    outcome
}

impl Demo {
    fn story(&self) -> Outcome {
        let start = Instant::now();
        println!("D={}", self.dir.display());
        self.title("A pool on a mirror of two drives, and an encrypted dataset with a folder in it");
        for drive in ["main/left", "main/right", "a/disk", "b/disk", "rescue/disk"] {
            let path = self.dir.join(format!("{drive}.img"));
            fs::create_dir_all(path.parent().unwrap_or(&self.dir))?;
            File::create(&path)?.set_len(DRIVE_BYTES)?;
        }
        fs::write(self.dir.join("passphrase"), "correct horse battery staple\n")?;
        files::make(&self.dir.join("folder"))?;
        self.ok("zpool create -m none main mirror $D/main/left.img $D/main/right.img")?;
        self.ok("zfs create -o encryption=on -o keyformat=passphrase main/encrypted < $D/passphrase")?;
        self.ok("icecore import-tree $D/folder main/encrypted")?;
        self.ok("zfs snapshot -r main@root")?;

        self.title("The first copy, onto two drives: ciphertext as it lies on disk");
        for drive in ["a", "b"] {
            self.ok(&format!("zpool create -m none backup-{drive} $D/{drive}/disk.img"))?;
            self.ok(&format!("zfs send -w -R main@root | zfs receive -F backup-{drive}/main"))?;
        }

        self.title("Work goes on: only what changed is sent");
        self.change("monday")?;
        for drive in ["a", "b"] {
            self.ok(&format!("zfs send -w -R -I main@root main@monday | zfs receive backup-{drive}/main"))?;
        }

        self.title("Old snapshots go; @monday stays, the common ancestor");
        for pool in ["main", "backup-a/main", "backup-b/main"] {
            self.ok(&format!("zfs destroy -r {pool}@root"))?;
            let left = self.ok(&format!("zfs list -H -r -t snapshot -o name {pool}"))?;
            let mut left: Vec<&str> = left.lines().collect();
            left.sort_unstable();
            let wanted = [format!("{pool}/encrypted@monday"), format!("{pool}@monday")];
            self.check(left == wanted, "only @monday is left", &left.join(" "))?;
        }

        self.title("One bit flips on the left drive");
        files::flip(&self.dir.join("main/left.img"), &self.dir.join("main/right.img"))?;
        let said = self.ok("zpool scrub -w main")?;
        self.check(!said.contains("repaired 0B") && said.contains(", 0 errors"), "found and healed", &said)?;
        let said = self.ok("zpool scrub -w main")?;
        self.check(said.contains("repaired 0B, 0 errors"), "nothing is left to heal", &said)?;

        self.title(
            "Somebody wrote on the backup by hand: the increment is refused, then the drive set right",
        );
        self.ok("zfs load-key backup-a/main/encrypted < $D/passphrase")?;
        self.ok("icecore rm backup-a/main/encrypted:photo.raw")?;
        self.ok("zfs unload-key backup-a/main/encrypted")?;
        self.change("tuesday")?;
        let send = "zfs send -w -R -I main@monday main@tuesday | zfs receive";
        let said = self.refused(&format!("{send} backup-a/main"))?;
        self.check(said.contains("has been modified"), "refused: destination has been modified", &said)?;
        self.ok("zfs rollback backup-a/main/encrypted@monday")?;
        self.ok(&format!("{send} backup-a/main"))?;
        self.ok(&format!("{send} backup-b/main"))?;

        self.title("The machine is lost: a new pool from the backup");
        self.ok("zfs unload-key -a")?;
        self.ok("zpool export main")?;
        self.ok("zpool create -m none rescue $D/rescue/disk.img")?;
        self.ok("zfs send -w -R backup-a/main@tuesday | zfs receive -F rescue/main")?;
        self.ok("zfs load-key rescue/main/encrypted < $D/passphrase")?;
        self.ok("icecore cp -rp rescue/main/encrypted@tuesday: $D/restored")?;
        let (count, bytes) = files::same(&self.dir.join("folder"), &self.dir.join("restored"))?;
        self.check(
            count > 0,
            &format!("{count} files, {}: every byte the same", crate::human::bytes(bytes)),
            "",
        )?;
        self.ok("zfs unload-key -a")?;
        let keys = self.ok("zfs get -H -r -o value keystatus rescue backup-a backup-b")?;
        self.check(!keys.lines().any(|k| k == "available"), "no key is loaded", &keys)?;
        for pool in ["rescue", "backup-a", "backup-b"] {
            self.ok(&format!("zpool export {pool}"))?;
        }

        self.title("A pool that OpenZFS made, copied without its passphrase");
        fs::create_dir_all(self.dir.join("openzfs"))?;
        unpack(&self.dir.join("openzfs/main.img"))?;
        fs::create_dir_all(self.dir.join("copy"))?;
        File::create(self.dir.join("copy/disk.img"))?.set_len(POOL_BYTES)?;
        self.ok("zpool import -d $D/openzfs -o readonly=on main")?;
        self.ok("zpool create -m none copy $D/copy/disk.img")?;
        self.ok("zfs send -w -R main@root | zfs receive -F copy")?;
        self.ok("zfs send -w -R -I main@root main@newsnapshot | zfs receive copy")?;
        let (snapshots, blocks, size) = self.compare()?;
        let size = crate::human::bytes(size);
        self.check(
            snapshots > 0,
            &format!("{snapshots} snapshots, {blocks} blocks, {size}: the same on both"),
            "",
        )?;
        self.ok("zpool export copy")?;
        self.ok("zpool export main")?;

        let judged = self.judge()?;
        self.title("Proven");
        println!(
            "  raw copies on two drives, made and pruned without the key; an increment finds its base by GUID;"
        );
        println!(
            "  a flipped bit was healed from the mirror; a modified backup was refused, then set right;"
        );
        println!(
            "  {count} files restored from a backup are the original's, byte by byte; no key stayed loaded;"
        );
        println!("  a pool of OpenZFS was copied, {blocks} blocks of {snapshots} snapshots compared.");
        println!("{judged}");
        println!("Took {:.1} s.", start.elapsed().as_secs_f64());
        Ok(())
    }

    /// Work on the folder, brought into the dataset, and a snapshot of it.
    fn change(&self, snap: &str) -> Outcome {
        fs::write(
            self.dir.join(format!("folder/letters/{snap}.txt")),
            format!("written on {snap}\n").repeat(4000),
        )?;
        self.ok("icecore import-tree $D/folder main/encrypted")?;
        self.ok(&format!("zfs snapshot -r main@{snap}"))?;
        Ok(())
    }

    fn title(&self, text: &str) {
        println!("\n{}", self.paint("1", text));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.bold { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// Says that something is so, or fails with what was seen instead.
    fn check(&self, so: bool, what: &str, seen: &str) -> Outcome {
        if !so {
            return Err(Fail::new(format!("not so: {what}; seen was:\n{seen}")));
        }
        println!("    {} {what}", self.paint("32", "ok"));
        Ok(())
    }

    /// Runs a line that has to work; what its last command printed.
    fn ok(&self, line: &str) -> Outcome<String> {
        let (worked, said) = self.run(line)?;
        if worked { Ok(said) } else { Err(Fail::new(format!("failed: {line}\n{said}"))) }
    }

    /// Runs a line that has to be refused; what it complained of.
    fn refused(&self, line: &str) -> Outcome<String> {
        let (worked, said) = self.run(line)?;
        if worked { Err(Fail::new(format!("was not refused: {line}"))) } else { Ok(said) }
    }

    /// Shows a line, `LEFT | RIGHT` or `COMMAND [< FILE]`, runs it, and shows how long it took.
    fn run(&self, line: &str) -> Outcome<(bool, String)> {
        print!("  $ {line:<88}");
        crate::out::flush();
        let start = Instant::now();
        let (line, input) = match line.split_once(" < ") {
            Some((line, file)) => (line, Stdio::from(File::open(self.expand(file))?)),
            None => (line, Stdio::null()),
        };
        let (worked, said) = match line.split_once(" | ") {
            None => text(self.command(line, input).output()?),
            Some((left, right)) => {
                let errors = self.dir.join("send.log");
                let mut from = self
                    .command(left, input)
                    .stdout(Stdio::piped())
                    .stderr(File::create(&errors)?)
                    .spawn()?;
                let pipe = from.stdout.take().map_or(Stdio::null(), Stdio::from);
                let to = self.command(right, pipe).output();
                let sent = from.wait()?;
                let (received, said) = text(to?);
                (received && sent.success(), said + &fs::read_to_string(&errors)?)
            }
        };
        println!(" {:>5.1} s", start.elapsed().as_secs_f64());
        Ok((worked, said))
    }

    fn expand(&self, word: &str) -> String {
        word.replace("$D", &self.dir.display().to_string())
    }

    fn command(&self, line: &str, input: Stdio) -> Command {
        let mut c = Command::new(&self.exe);
        let line = line.strip_prefix("icecore ").unwrap_or(line);
        c.args(line.split(' ').map(|w| self.expand(w))).stdin(input);
        // Nothing of the story may appear among the machine's own folders.
        c.env("ICECORE_STATE_DIR", self.dir.join("state"))
            .env("ICECORE_MOUNT", "off")
            .env_remove("ICECORE_SERVICE");
        c
    }

    /// Lets zdb judge every pool that was written.
    fn judge(&self) -> Outcome<String> {
        let path = format!("{}:/usr/sbin:/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
        for (dir, pool) in
            [("main", "main"), ("a", "backup-a"), ("b", "backup-b"), ("rescue", "rescue"), ("copy", "copy")]
        {
            let mut zdb = Command::new("zdb");
            zdb.env("PATH", &path).args(["-e", "-p"]).arg(self.dir.join(dir)).args(["-bcc", pool]);
            let done = match zdb.stdin(Stdio::null()).output() {
                Ok(done) => done,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    return Ok("  zdb is not installed here: OpenZFS was not asked.".into());
                }
                Err(e) => return Err(Fail::new(format!("cannot run zdb: {e}"))),
            };
            let (worked, said) = text(done);
            if !worked || !said.contains("No leaks (block sum matches space maps exactly)") {
                return Err(Fail::new(format!("zdb does not find {pool} clean:\n{said}")));
            }
        }
        Ok("  OpenZFS's zdb -bcc read all five pools that were written: every checksum right, no leak."
            .into())
    }

    /// Streams every snapshot of both pools and compares what the blocks hold: (snapshots, blocks, bytes).
    fn compare(&self) -> Outcome<(usize, u64, u64)> {
        // The pools' owner lets them go; this process looks for itself.
        let stopped = self.command("service stop", Stdio::null()).stdout(Stdio::null()).status();
        if !stopped.is_ok_and(|s| s.success()) {
            return Err(Fail::new("the service could not be stopped"));
        }
        let state = self.dir.join("state");
        let open = |name: &str| session::open_in(&state, name, For::Read);
        let (main, copied) = (open("main")?, open("copy")?);
        let (mut snapshots, mut blocks, mut bytes) = (0, 0, 0);
        for ds in main.dsl.descendants(main.io(), "main")? {
            let copy = ds.replacen("main", "copy", 1);
            for (snap, _) in main.dsl.snapshots(main.io(), &ds)? {
                let ours = contents(&main, &format!("{ds}@{snap}"))?;
                let theirs = contents(&copied, &format!("{copy}@{snap}"))?;
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

fn text(done: Output) -> (bool, String) {
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&said).into_owned())
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
