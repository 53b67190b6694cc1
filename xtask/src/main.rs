//! Builds, checks, oracle runs and benchmarks of Icecore: `cargo xtask COMMAND`.
//!
//! What the machine needs is installed where that may be done (root and apt), and said loudly where it may not.

mod bench;
mod ci;
mod fuzz;
mod interop;
mod load;
mod peers;
mod posix;
mod shell;
mod stand;
mod streamgen;
mod tidy;
mod walk;
mod zoo;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask COMMAND
  test [ARGS]          all tests; ARGS go to cargo test
  tidy                 the repository's own rules
  ci                   all that must hold: format, clippy, tidy, test, interop --short
  interop [--short|--day|--mounted|--scrub|--walked DIR]   prove both directions against real OpenZFS in a virtual
                       machine; --day: files only, --mounted: those that came through mounts only, --scrub: scrubs
                       that the other system finishes, --walked: pools that a walk kept in DIR only
                       (ICECORE_BIN=PROGRAM is tried instead of a release build)
  zoo [IMAGES [EXPECTED]]   what we see in the pools OpenZFS made, against what it saw: a table
  peers [--keep] [syncoid|sanoid|zfs_autobackup|bzfs|zts [GROUP...]]
                       others' tools, unchanged, on our zfs and zpool: a table (in a sandbox, as root;
                       ICECORE_BIN=PROGRAM is tried instead of a release build)
  posix [SECONDS]      pjdfstest, fsx, git, cargo and SQLite on a mount (as root)
  load [SECONDS]       eight processes at once on one pool, through its mount and by commands (as root)
  walk [--keep|--vm] [--power|--lies] [STEPS [SEED]]
                       a random walk over all commands against a model, judged by zdb after each step;
                       --vm: every 100th pool by OpenZFS in the virtual machine, too; --keep: such are kept for it;
                       --power: every other step is a power cut, with lost, torn and reordered writes;
                       --lies: and flushes keep nothing, so that it has to fail
                       (ICECORE_BIN=PROGRAM is tried instead of one made with the feature power-cuts)
  fuzz [SECONDS [TARGET...]]   each fuzz target for 600 or so many seconds, with AddressSanitizer (needs cargo-fuzz)
  judge DIR POOL       let zdb judge an exported pool whose files lie in DIR
  bench spine          raw send and receive against cat, cp and zdb -B, in one run
  bench read           scrub, copying out and listing against zdb and plain reading, in one run
  bench list           listing only
  bench fs             files through a mount against passthrough FUSE, and a thousand data sets
  bench stream full|increment MIB     the raw stream that spine receives, to standard output";

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(name) = peers::shim::called_as(&name) {
        return peers::shim::become_it(name, &args.collect::<Vec<_>>());
    }
    let args: Vec<String> = args.map(|a| a.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["test", rest @ ..] => ci::test(rest),
        ["tidy"] => tidy::run(),
        ["ci"] => ci::run(),
        ["interop"] => interop::run(interop::Length::Full),
        ["interop", "--short"] => interop::run(interop::Length::Short),
        ["interop", "--day"] => interop::run(interop::Length::Day),
        ["interop", "--mounted"] => interop::run(interop::Length::Mounted),
        ["interop", "--scrub"] => interop::run(interop::Length::Scrub),
        ["interop", "--walked", dir] => interop::walked(Path::new(dir)),
        ["zoo", folders @ ..] if folders.len() < 3 => zoo::run(folders),
        ["bench", "spine"] => bench::spine(),
        ["bench", "read"] => bench::read(),
        ["bench", "list"] => bench::listing(),
        ["bench", "fs"] => bench::mounts(),
        ["bench", "stream", "full", mib] => bench::stream(streamgen::Source::Full, mib),
        ["bench", "stream", "increment", mib] => bench::stream(streamgen::Source::Increment(10), mib),
        ["peers", rest @ ..] => peers::run(rest),
        ["posix", rest @ ..] => posix::run(rest),
        ["load", rest @ ..] => load::run(rest),
        ["walk", rest @ ..] if rest.len() < 5 => walk::walk(rest),
        ["fuzz", rest @ ..] => fuzz::fuzz(rest),
        ["judge", dir, pool] => judge(Path::new(dir), pool),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask {}: {why}", words[0]);
            ExitCode::FAILURE
        }
    }
}

fn judge(dir: &Path, pool: &str) -> shell::Outcome {
    icecore_check::zdb::zdb_clean(dir, pool)?;
    println!("zdb: {pool} is clean: no errors, no leaks");
    Ok(())
}
