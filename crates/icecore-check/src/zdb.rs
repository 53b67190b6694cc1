//! OpenZFS's own `zdb` as the judge of a pool we wrote.
//!
//! What counts as clean: `zdb` ends with 0, both of its walks print nothing that it prints only about damage, and the
//! walk over all blocks ends with "No leaks (block sum matches space maps exactly)". The words of damage were read
//! off `cmd/zdb/zdb.c`. Trust in the judge comes from the tests below, where it goes red on a damaged copy.
//!
//! `zdb` spends most of its time on a small pool waiting at the end for buffers it prefetched to become old enough to
//! be thrown away: 1 s after `-dddd`, 6 s after `-bcc` (`arc_fini` in `module/zfs/arc.c`). Only the clock has to be
//! satisfied, so [`command`] lets it run a hundred times as fast where `faketime` is installed. What is read and
//! checked stays the same, and where the package is missing the same `zdb` waits.
//!
//! Invariant: a missing `zdb` is never silence. Either the test fails (`ICECORE_ZDB` is set, as `cargo xtask test`
//! does) or it says on standard error that nothing was judged.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Set by `cargo xtask test`: `zdb` judges everywhere, and a test that finds none fails. The one variable of
/// all crates' tests.
pub const REQUIRE_ZDB: &str = "ICECORE_ZDB";

const CLEAN_SUM: &str = "No leaks (block sum matches space maps exactly)";

/// Phrases of `zdb` that stand for damage wherever they are printed.
const DAMAGE: &[&str] = &[
    "leaked",
    "Error counts",
    "Got error",
    "got error",
    "block claim error",
    "refcount mismatch",
    "count mismatch",
    "mismatch on",
    " failed",
    "failed to ",
    "Tried to ",
    "BRT leak",
    "DDT leak",
    "Invalid cksum",
    "Invalid log block",
    "invalid bonus type",
    "invalid dva",
    "ASSERT",
    "Call trace",
];

/// Whether `zdb` is on this machine. Says so loudly where it is not; panics where [`REQUIRE_ZDB`] is set.
///
/// # Panics
/// When `zdb` is missing though the environment requires it.
pub fn zdb_available() -> bool {
    let found = in_path("zdb").arg("-h").output().is_ok();
    if !found {
        let text = "zdb is not installed: NOTHING WAS JUDGED BY OPENZFS HERE (package zfsutils-linux)";
        assert!(std::env::var_os(REQUIRE_ZDB).is_none(), "{text}");
        eprintln!("SKIPPED: {text}");
    }
    found
}

/// Lets `zdb` judge the exported pool whose devices or files lie in `dir`.
///
/// # Errors
/// The command that found fault, and the lines that say what.
pub fn zdb_clean(dir: &Path, pool: &str) -> Result<(), String> {
    clean_by(dir, pool, "-bcc")?;
    clean_by(dir, pool, "-dddd")
}

/// Lets one walk of `zdb` judge: `-bcc` over all blocks, or `-dddd` over all objects.
///
/// # Errors
/// As [`zdb_clean`].
pub fn clean_by(dir: &Path, pool: &str, flags: &str) -> Result<(), String> {
    let said = run(dir, pool, flags)?;
    if flags.starts_with("-b") && !said.contains(CLEAN_SUM) {
        return Err(format!("zdb {flags} {pool}: never said \"{CLEAN_SUM}\":\n{}", tail(&said)));
    }
    Ok(())
}

/// Runs `zdb -e -p DIR FLAGS POOL`, and returns what it printed when that is free of damage.
///
/// # Errors
/// The exit status or the lines that stand for damage.
pub fn run(dir: &Path, pool: &str, flags: &str) -> Result<String, String> {
    let what = format!("zdb -e -p {} {flags} {pool}", dir.display());
    let output = command().args(["-e", "-p"]).arg(dir).args([flags, pool]).output();
    let output = output.map_err(|e| format!("{what}: {e}"))?;
    let text = text_of(&output);
    if !output.status.success() {
        return Err(format!("{what}: {}\n{}", output.status, tail(&text)));
    }
    let damage: Vec<&str> = damage_in(&text).take(40).collect();
    if damage.is_empty() { Ok(text) } else { Err(format!("{what}: reports damage\n{}", damage.join("\n"))) }
}

/// `zdb` with the arguments still to come, on a fast clock where that can be had.
pub fn command() -> Command {
    let (hurry, how) = FAST_CLOCK;
    if !fast_clock_works() {
        return in_path("zdb");
    }
    let mut command = in_path(hurry);
    command.args(how).arg("zdb");
    command
}

/// The variant for threads (`-m`), and real time times 100. Not faster: an I/O that takes 3 s of a loaded machine
/// still ends before the 300 s after which OpenZFS calls it hung.
const FAST_CLOCK: (&str, [&str; 3]) = ("faketime", ["-m", "-f", "+0 x100"]);

fn fast_clock_works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let (hurry, how) = FAST_CLOCK;
        in_path(hurry).args(how).arg("true").output().is_ok_and(|done| done.status.success())
    })
}

/// Debian puts `zdb` where only root's PATH looks.
fn in_path(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin:/usr/local/sbin"));
    command
}

fn text_of(output: &Output) -> String {
    // Progress on standard error overwrites itself with carriage returns; each is a line to us.
    let both = [output.stdout.as_slice(), b"\n", output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).replace('\r', "\n")
}

fn damage_in(text: &str) -> impl Iterator<Item = &str> {
    // Names and values that users chose are printed too: a file called "leaked" is not damage.
    let harmless = |line: &str| {
        line.starts_with("\tpath\t/") || line.contains(" = ") || line.ends_with("verify nothing leaked ...")
    };
    text.lines().filter(move |line| !harmless(line) && DAMAGE.iter().any(|phrase| line.contains(phrase)))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;

    use super::*;
    use crate::fixture::{fixture_copy, target_dir};

    fn scratch(name: &str) -> PathBuf {
        let dir = target_dir().join("fixtures").join(format!("zdb-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("scratch folder");
        dir
    }

    #[test]
    fn a_pool_made_by_openzfs_is_clean() {
        if !zdb_available() {
            return;
        }
        let dir = scratch("clean");
        fixture_copy("cold/main.img", &dir.join("main.img"));
        assert_eq!(zdb_clean(&dir, "main"), Ok(()));
        fs::remove_dir_all(dir).expect("remove");
    }

    /// A judge that has never failed is not believed: rot a stretch of allocated data and see it go red.
    #[test]
    fn a_rotten_pool_is_not() {
        if !zdb_available() {
            return;
        }
        let dir = scratch("rotten");
        let image = dir.join("main.img");
        fixture_copy("cold/main.img", &image);
        let disk = OpenOptions::new().write(true).open(&image).expect("open");
        for at in (5 << 20..8 << 20).step_by(4096) {
            disk.write_all_at(&[0xa5; 512], at).expect("rot");
        }
        let verdict = zdb_clean(&dir, "main");
        assert!(verdict.is_err(), "zdb_clean said {verdict:?} of a rotten pool");
        fs::remove_dir_all(dir).expect("remove");
    }

    /// The clock changes when `zdb` ends and nothing of what it says.
    #[test]
    fn a_fast_clock_hides_nothing() {
        if !zdb_available() || !fast_clock_works() {
            return eprintln!("SKIPPED: zdb or faketime is missing, there is nothing to compare");
        }
        let dir = scratch("clock");
        let image = dir.join("main.img");
        fixture_copy("cold/main.img", &image);
        let says = |mut zdb: Command| {
            let done = zdb.args(["-e", "-p"]).arg(&dir).args(["-bcc", "main"]).output().expect("zdb");
            let text = String::from_utf8_lossy(&done.stdout).into_owned();
            // It reads blocks at once, and names the bad ones in the order in which reads end.
            let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
            lines.sort();
            (done.status.code(), lines)
        };
        let healthy = says(command());
        assert_eq!(healthy, says(in_path("zdb")));
        let disk = OpenOptions::new().write(true).open(&image).expect("open");
        disk.write_all_at(&[0xa5; 1 << 20], 6 << 20).expect("rot");
        let rotten = says(command());
        assert_eq!(rotten, says(in_path("zdb")));
        assert!(rotten != healthy && rotten.1.iter().any(|line| line.contains("Got error")), "{rotten:?}");
        fs::remove_dir_all(dir).expect("remove");
    }

    #[test]
    fn names_chosen_by_users_are_not_damage() {
        assert_eq!(damage_in("\tpath\t/my failed exam, leaked.txt\n\t\tleaked = 5").count(), 0);
        assert_eq!(damage_in("leaked space: vdev 0, offset 0x4000, size 512").count(), 1);
        assert_eq!(
            damage_in("Traversing all blocks to verify checksums and verify nothing leaked ...").count(),
            0
        );
    }
}
