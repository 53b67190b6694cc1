//! Others' tools, unchanged, with our `zfs` and `zpool` in the place of OpenZFS's: syncoid, sanoid, zfs_autobackup, bzfs, and
//! groups of OpenZFS's own test suite.
//!
//! Each runs in a throw-away copy of this machine (`interop/peers/sandbox.sh`), as root, by its script in `interop/peers`. The
//! commands it calls are links to this program (`shim`), which notes the call and becomes icecore. What a script reports and
//! what was called make the table; `interop/peers/kept.txt` names what has passed before.
//!
//! Invariants:
//! 1. Nothing of a peer runs outside the sandbox.
//! 2. A case passes only if it called our commands, and nothing is counted that passes with commands that do nothing. Of a
//!    suite that runs in one process (python's unittest) only the whole can be seen calling; tests known to run no zfs are left out.
//! 3. What cannot be had (no root, no network, no package) is said, and is never a pass.

mod class;
mod report;
pub mod shim;
mod zts;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use icecore_check::fixture::{repo_root, target_dir};

use crate::shell::{Outcome, build_icecore, output, program, run as shell};
use report::{Case, Verdict};

/// A tool, and how its cases are had.
struct Peer {
    name: &'static str,
    /// Debian packages without which there is nothing to run.
    apt: &'static [&'static str],
    /// Debian packages without which some of its tests cannot run.
    helpful: &'static [&'static str],
    /// From PyPI.
    pip: &'static [&'static str],
    /// Its own tests where its package has none: folder, repository, commit.
    source: Option<(&'static str, &'static str, &'static str)>,
}

const PEERS: &[Peer] = &[
    Peer {
        name: "syncoid",
        apt: &["sanoid"],
        helpful: &["libcapture-tiny-perl", "libconfig-inifiles-perl", "pv", "mbuffer", "lzop"],
        pip: &[],
        source: Some(("sanoid", "https://github.com/jimsalterjrs/sanoid", "8e1d11e")),
    },
    Peer { name: "sanoid", apt: &["sanoid"], helpful: &[], pip: &[], source: None },
    Peer {
        name: "zfs_autobackup",
        apt: &[],
        helpful: &["pv", "mbuffer", "lzop"],
        pip: &["zfs_autobackup==3.3", "mock"],
        source: Some(("zfs_autobackup", "https://github.com/psy0rz/zfs_autobackup", "a805889")),
    },
    Peer {
        name: "bzfs",
        apt: &[],
        helpful: &["pv", "zstd", "mbuffer", "sudo"],
        pip: &["bzfs==1.25.0"],
        source: None,
    },
    Peer {
        name: "zts",
        apt: &["zfs-test", "ksh", "sudo"],
        helpful: &["fio", "bc", "jq", "acl", "attr", "rsync", "xxhash"],
        pip: &[],
        source: None,
    },
];

/// `peers [--keep] [PEER [GROUP…]]`: with `--keep` what passes and is not yet kept is added to the list.
pub fn run(words: &[&str]) -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return Err("the peers' sandbox needs root; nothing was run".into());
    }
    let keep = words.contains(&"--keep");
    let words: Vec<&str> = words.iter().copied().filter(|w| *w != "--keep").collect();
    let (asked, groups) = words.split_first().map_or((None, &[][..]), |(p, g)| (Some(*p), g));
    let peers: Vec<&Peer> = PEERS.iter().filter(|p| asked.is_none_or(|a| a == p.name)).collect();
    if peers.is_empty() || (asked != Some("zts") && !groups.is_empty()) {
        let known: Vec<&str> = PEERS.iter().map(|p| p.name).collect();
        return Err(format!("peers are {}; only zts has groups", known.join(", ")));
    }
    let stage = Stage::new()?;
    let mut cases = Vec::new();
    let mut unavailable = Vec::new();
    for peer in peers {
        match stage.peer(peer, groups) {
            Ok(found) => cases.extend(found),
            Err(why) => unavailable.push(format!("{}: {why}", peer.name)),
        }
    }
    print!("{}", report::table(&cases));
    unavailable.iter().for_each(|u| println!("\nNOT RUN: {u}"));
    let list = repo_root().join("interop/peers/kept.txt");
    let kept = report::Kept::read(&list)?;
    if keep {
        kept.with(&cases).write(&list)?;
    }
    let lost = kept.lost(&cases);
    if !lost.is_empty() {
        return Err(format!("passed before and not now:\n  {}", lost.join("\n  ")));
    }
    if unavailable.is_empty() { Ok(()) } else { Err(format!("not run: {}", unavailable.join("; "))) }
}

/// The folder that the sandbox shows as `/peers`.
struct Stage {
    dir: PathBuf,
}

impl Stage {
    fn new() -> Outcome<Self> {
        let icecore = build_icecore()?;
        let dir = target_dir().join("peers");
        let io = |e: std::io::Error| format!("{}: {e}", dir.display());
        for fresh in ["out", "real", "sbin", "scripts"] {
            let fresh = dir.join(fresh);
            if fresh.exists() {
                fs::remove_dir_all(&fresh).map_err(io)?;
            }
            fs::create_dir_all(&fresh).map_err(io)?;
        }
        fs::create_dir_all(dir.join("src")).map_err(io)?;
        let me = std::env::current_exe().map_err(io)?;
        for (from, name) in [(icecore, "icecore"), (me, "xtask")] {
            let to = dir.join(name);
            let _ = fs::remove_file(&to);
            fs::copy(&from, &to).map_err(|e| format!("{}: {e}", from.display()))?;
        }
        for name in ["zfs", "zpool", "icecore", "mount.zfs", "mount.fuse.zfs"] {
            symlink("/peers/xtask", dir.join("sbin").join(name)).map_err(io)?;
            symlink("../icecore", dir.join("real").join(name)).map_err(io)?;
        }
        symlink("/peers/scripts/zdb.sh", dir.join("sbin/zdb")).map_err(io)?;
        let scripts = repo_root().join("interop/peers");
        for entry in fs::read_dir(&scripts).map_err(io)?.flatten() {
            fs::copy(entry.path(), dir.join("scripts").join(entry.file_name())).map_err(io)?;
        }
        Ok(Self { dir })
    }

    /// Runs a peer; what its cases came to.
    fn peer(&self, peer: &Peer, groups: &[&str]) -> Outcome<Vec<Case>> {
        install(peer.apt)?;
        if let Err(why) = install(peer.helpful) {
            eprintln!("SKIPPED: some tests of {} will not run: {why}", peer.name);
        }
        if !peer.pip.is_empty() {
            // Each alone: one of them brings a module that stands before python's own.
            let folder = self.dir.join("py").join(peer.name);
            if !folder.exists() {
                let part = folder.with_extension("part");
                let mut pip = program("python3");
                pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"]).arg(&part);
                shell(pip.args(peer.pip))?;
                fs::rename(&part, &folder).map_err(|e| e.to_string())?;
            }
        }
        if let Some((folder, url, commit)) = peer.source
            && let Err(why) = self.source(folder, url, commit)
        {
            eprintln!("SKIPPED: the own tests of {}: {why}", peer.name);
        }
        if peer.name == "zts" {
            return zts::run(self, groups);
        }
        self.sandbox(&[&format!("/peers/scripts/{}.sh", peer.name)])?;
        let results = fs::read_to_string(self.out("results")).map_err(|e| format!("no results: {e}"))?;
        let _ = fs::remove_file(self.out("results"));
        let calls = self.calls()?;
        let called = |case: &str| calls.iter().any(|c| c.case == case || c.case.is_empty());
        Ok(results
            .lines()
            .filter_map(|l| Case::parse(peer.name, l))
            .map(|c| c.unless_called(called))
            .collect())
    }

    /// A checkout of a peer's sources; `ICECORE_PEERS_SRC` may have one already.
    fn source(&self, folder: &str, url: &str, commit: &str) -> Outcome {
        let to = self.dir.join("src").join(folder);
        if to.exists() {
            return Ok(());
        }
        if let Some(have) = std::env::var_os("ICECORE_PEERS_SRC") {
            return shell(program("cp").arg("-r").arg(Path::new(&have).join(folder)).arg(&to));
        }
        let part = to.with_extension("part");
        let _ = fs::remove_dir_all(&part);
        shell(program("git").args(["clone", "--quiet", url]).arg(&part))?;
        shell(program("git").arg("-C").arg(&part).args(["checkout", "--quiet", commit]))?;
        fs::rename(&part, &to).map_err(|e| e.to_string())
    }

    /// Runs a command in the sandbox. How it ends says nothing: its results do.
    fn sandbox(&self, words: &[&str]) -> Outcome {
        let mut unshare = program("unshare");
        unshare.args(["-m", "-p", "-f", "-i", "-u", "--kill-child"]);
        unshare.arg(self.dir.join("scripts/sandbox.sh")).arg(&self.dir).args(words);
        let ended = shell(&mut unshare);
        if let Err(why) = ended {
            eprintln!("{why}");
        }
        Ok(())
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.join("out").join(name)
    }

    /// What was called of ours since the last look.
    fn calls(&self) -> Outcome<Vec<shim::Call>> {
        let path = self.out("calls");
        let text = fs::read(&path).map_err(|e| format!("none of our commands was called ({e})"))?;
        let _ = fs::remove_file(&path);
        Ok(String::from_utf8_lossy(&text).lines().map(shim::Call::parse).collect())
    }
}

/// Installs what is missing of these Debian packages.
fn install(packages: &[&str]) -> Outcome {
    let here = |p: &&str| {
        let asked =
            output(program("dpkg-query").args(["-W", "-f=${Status}", p]).stderr(std::process::Stdio::null()));
        asked.is_ok_and(|s| s.ends_with("ok installed"))
    };
    let missing: Vec<&str> = packages.iter().copied().filter(|p| !here(p)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut apt = program("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "-q", "--no-install-recommends"]);
    shell(apt.args(&missing)).map_err(|e| format!("{} cannot be installed: {e}", missing.join(" ")))
}

impl Case {
    /// A pass without a call of ours is none.
    fn unless_called(mut self, called: impl Fn(&str) -> bool) -> Self {
        if self.verdict == Verdict::Pass && !called(&self.name) {
            self.verdict = Verdict::Nothing;
            self.why = "never called our commands".into();
        }
        self
    }
}
