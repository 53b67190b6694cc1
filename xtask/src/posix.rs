//! `cargo xtask posix [SECONDS]`: whether a mount behaves as a file system should, by others' judgement.
//!
//! On an encrypted file system, mounted by the service: pjdfstest (the known suite of POSIX behaviour, from crates.io), fsx (random
//! reads, writes, truncations and mappings of one file against a model) for as many seconds as said, git, cargo and SQLite at
//! work. In the end the pool is exported and `zdb` judges what was written.
//!
//! Invariant: a program that cannot be had is a line of its own that says so, and never a pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use icecore_check::fixture::{repo_root, target_dir};

use crate::shell::{Outcome, build_icecore, cargo, program, run as shell};
use crate::stand::{Stand, no_mounts};

/// Programs from crates.io, and their versions.
const PJDFSTEST: (&str, &str) = ("pjdfstest", "0.2.2");
const FSX: (&str, &str) = ("fsx", "0.3.2");
const POOL_MIB: u64 = 2048;
const FILE_SYSTEM: &str = "posix/fs";

/// What fsx does, by name and record size: every operation that it knows, on a file of eight records, on one that lies in a
/// single block, and on one whose pointers have three levels.
const FSX_PLANS: &[(&str, &str, &str)] = &[
    ("records", "128K", "flen = 1048576\n[opsize]\nmax = 65536\n"),
    ("one block", "128K", "flen = 100000\n[opsize]\nmax = 30000\n"),
    ("three levels", "4K", "flen = 33554432\n[opsize]\nmax = 65536\n"),
];
const FSX_WEIGHTS: &str = "[weights]\nclose_open = 1\ninvalidate = 1\nread = 10\nwrite = 10\nmapread = 10\n\
    mapwrite = 10\ntruncate = 4\nfsync = 1\nfdatasync = 1\nposix_fallocate = 1\npunch_hole = 4\nsendfile = 2\n\
    posix_fadvise = 1\ncopy_file_range = 2\n";
const FSX_OPERATIONS: &str = "20000";

const SQLITE: &str = r#"
import sqlite3, sys
for journal in "delete", "wal":
    db = sqlite3.connect(f"{sys.argv[1]}/{journal}.db")
    db.execute(f"pragma journal_mode={journal}")
    db.execute("create table t(a integer primary key, b blob)")
    for i in range(200):
        with db:
            db.executemany("insert into t(b) values(randomblob(?))", [(j * 7 % 3000,) for j in range(20)])
            db.execute("delete from t where a % 7 = ?", (i % 7,))
    assert db.execute("pragma integrity_check").fetchone() == ("ok",), journal
    assert db.execute("select count(*) from t").fetchone()[0] > 40
    db.close()
"#;

/// What came of one program.
enum Verdict {
    Passed(String),
    Failed(String),
    NotRun(String),
}

pub fn run(words: &[&str]) -> Outcome {
    let seconds = match words {
        [] => 20,
        [seconds] => seconds.parse().map_err(|e| format!("{seconds}: {e}"))?,
        _ => return Err("usage: posix [SECONDS]".into()),
    };
    if let Some(why) = no_mounts() {
        return Err(format!("{why}; nothing was run"));
    }
    let stand = Stand::new(build_icecore()?, target_dir().join("posix"))?;
    stand.pool("posix", POOL_MIB)?;
    let dir = stand.encrypted(FILE_SYSTEM, &["acltype=posix", "xattr=sa"])?;
    let mut results = vec![("pjdfstest", pjdfstest(&stand, &dir))];
    results.push(("fsx", fsx(&stand, &dir, Duration::from_secs(seconds))));
    results.push(("git", git(&dir)));
    results.push(("cargo", cargo_build(&dir)));
    results.push(("sqlite", sqlite(&stand, &dir)));
    results.push(("zdb", told(stand.judged("posix").map(|()| "-bcc and -dddd: clean".into()))));
    println!("\n| what | verdict | |\n|---|---|---|");
    let mut failed = Vec::new();
    for (name, verdict) in &results {
        let (word, why) = match verdict {
            Verdict::Passed(said) => ("pass", said),
            Verdict::Failed(why) => ("**FAIL**", why),
            Verdict::NotRun(why) => ("not run", why),
        };
        println!("| {name} | {word} | {} |", why.lines().next().unwrap_or_default());
        if let Verdict::Failed(why) = verdict {
            failed.push(format!("{name}: {why}"));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

fn told(outcome: Outcome<String>) -> Verdict {
    outcome.map_or_else(Verdict::Failed, Verdict::Passed)
}

/// A program from crates.io, installed into the target folder.
fn tool((name, version): (&str, &str)) -> Outcome<PathBuf> {
    let root = target_dir().join("tools");
    let path = root.join("bin").join(name);
    if !path.exists() {
        let mut install = cargo();
        install.args(["install", "--quiet", "--locked", "--version", version, "--root"]).arg(&root);
        // Its build is its own: what this workspace sets is not for it.
        shell(install.arg("--target-dir").arg(root.join("build")).arg(name))?;
    }
    Ok(path)
}

/// Its output, and whether it ended with 0.
fn said(command: &mut Command) -> Outcome<(bool, String)> {
    let output = command.output().map_err(|e| format!("{}: {e}", command.get_program().to_string_lossy()))?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

fn pjdfstest(stand: &Stand, dir: &Path) -> Verdict {
    let program = match tool(PJDFSTEST) {
        Ok(program) => program,
        Err(why) => return Verdict::NotRun(why),
    };
    let suite = || -> Outcome<String> {
        let group = |user: &str| -> Outcome<String> {
            let (ok, name) = said(crate::shell::program("id").args(["-gn", user]))?;
            if ok { Ok(name.trim().to_string()) } else { Err(name) }
        };
        let users: Vec<String> = ["nobody", "daemon"]
            .iter()
            .map(|user| Ok(format!("[\"{user}\", \"{}\"]", group(user)?)))
            .collect::<Outcome<_>>()?;
        let settings = stand.dir.join("pjdfstest.toml");
        let text = format!(
            "[features]\nposix_fallocate = {{}}\nutime_now = {{}}\nutimensat = {{}}\n[settings]\nnaptime = 0.01\n\
             allow_remount = false\n[dummy_auth]\nentries = [{}]\n",
            users.join(", ")
        );
        fs::write(&settings, text).map_err(|e| e.to_string())?;
        let work = dir.join("pjdfstest");
        fs::create_dir(&work).map_err(|e| e.to_string())?;
        let (ok, text) = said(Command::new(&program).arg("-c").arg(settings).arg("-p").arg(work))?;
        let summary = text.lines().rev().find(|l| l.starts_with("Summary: ")).ok_or_else(|| text.clone())?;
        let failed: Vec<&str> = text.lines().filter(|l| l.trim_end().ends_with("FAILED")).collect();
        if ok { Ok(summary.to_string()) } else { Err(format!("{summary}\n{}", failed.join("\n"))) }
    };
    told(suite())
}

fn fsx(stand: &Stand, dir: &Path, time: Duration) -> Verdict {
    let program = match tool(FSX) {
        Ok(program) => program,
        Err(why) => return Verdict::NotRun(why),
    };
    let rounds = || -> Outcome<String> {
        let (start, mut seed) = (Instant::now(), 0_u64);
        while start.elapsed() < time || seed < FSX_PLANS.len() as u64 {
            for (name, records, plan) in FSX_PLANS {
                seed += 1;
                stand.icecore(&["zfs", "set", &format!("recordsize={records}"), FILE_SYSTEM])?;
                let settings = stand.dir.join("fsx.toml");
                fs::write(&settings, format!("{plan}{FSX_WEIGHTS}")).map_err(|e| e.to_string())?;
                let file = dir.join(format!("fsx-{seed}"));
                let mut fsx = Command::new(&program);
                fsx.arg("-f").arg(&settings).args(["-N", FSX_OPERATIONS, "-S", &seed.to_string()]);
                let (ok, text) = said(fsx.arg("-P").arg(&stand.dir).arg(&file))?;
                if !ok {
                    let lines: Vec<&str> = text.lines().collect();
                    let end = lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n");
                    return Err(format!("{name}, seed {seed}\n{end}"));
                }
                fs::remove_file(&file).map_err(|e| e.to_string())?;
            }
        }
        Ok(format!("{seed} × {FSX_OPERATIONS} operations in {} s", start.elapsed().as_secs()))
    };
    told(rounds())
}

fn git(dir: &Path) -> Verdict {
    let work = || -> Outcome<String> {
        let clone = dir.join("clone");
        shell(program("git").args(["clone", "--quiet", "--no-hardlinks"]).arg(repo_root()).arg(&clone))?;
        shell(program("git").arg("-C").arg(&clone).args(["fsck", "--full", "--no-progress"]))?;
        shell(program("git").arg("-C").arg(&clone).args(["gc", "--quiet"]))?;
        let (_, changed) = said(program("git").arg("-C").arg(&clone).args(["status", "--porcelain"]))?;
        if changed.is_empty() { Ok("clone, fsck, gc, status".into()) } else { Err(changed) }
    };
    told(work())
}

fn cargo_build(dir: &Path) -> Verdict {
    let work = || -> Outcome<String> {
        let folder = dir.join("hello");
        let io = |e: std::io::Error| e.to_string();
        fs::create_dir_all(folder.join("src")).map_err(io)?;
        fs::write(
            folder.join("Cargo.toml"),
            "[package]\nname = \"hello\"\nedition = \"2021\"\n[workspace]\n",
        )
        .map_err(io)?;
        fs::write(folder.join("src/main.rs"), "fn main() { println!(\"built in a mount\"); }\n")
            .map_err(io)?;
        let mut run = cargo();
        run.current_dir(&folder).env("CARGO_TARGET_DIR", folder.join("target")).args([
            "run",
            "--quiet",
            "--offline",
        ]);
        match said(&mut run)? {
            (true, text) if text.contains("built in a mount") => Ok("built and run".into()),
            (_, text) => Err(text),
        }
    };
    told(work())
}

fn sqlite(stand: &Stand, dir: &Path) -> Verdict {
    let script = stand.dir.join("sqlite.py");
    let here = said(program("python3").args(["-c", "import sqlite3"]));
    if !here.is_ok_and(|(ok, _)| ok) {
        return Verdict::NotRun("python3 with sqlite3 is not installed".into());
    }
    let work = || -> Outcome<String> {
        fs::write(&script, SQLITE).map_err(|e| e.to_string())?;
        let folder = dir.join("sqlite");
        fs::create_dir(&folder).map_err(|e| e.to_string())?;
        match said(program("python3").arg(&script).arg(folder))? {
            (true, _) => Ok("400 transactions, rollback journal and WAL, integrity_check ok".into()),
            (false, text) => Err(text),
        }
    };
    told(work())
}
