//! The service, as far as commands go: which of them run in it, how they get there, and what it does with them.
//!
//! While a pool is imported one process owns it, which the first command that needs it starts. Commands hand their line to
//! it with their standard streams, and it runs the code that they would have run themselves.
//!
//! Invariants:
//! 1. What needs no pool runs in the process that was called.
//! 2. The environment a command looks at is named in [`ENV`]; nothing else of it leaves the caller.
//! 3. A command that panics is its caller's failure and nobody else's.

use crate::caller::{self, Caller};
use crate::commands::Command;
use crate::fail::{FAILED, Fail, Outcome};
use crate::{pools, state};
use icecore_service::client::{self, Ended};
use icecore_service::place::Place;
use icecore_service::server::{self, Work};
use icecore_service::stdio::Line;
use icecore_service::wire::{Answer, Request, Run, Tool};
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Variables that commands look at.
const ENV: &[&str] = &[
    "COLUMNS",
    "ICECORE_MOUNT",
    "LANG",
    "NO_COLOR",
    "POSIXLY_CORRECT",
    "SSL_CA_CERT_FILE",
    "SSL_CA_CERT_PATH",
    "SSL_CLIENT_CERT_FILE",
    "SSL_CLIENT_KEY_FILE",
    "TERM",
    "TZ",
    "ZFS_COLOR",
    "ZPOOL_IMPORT_PATH",
];
/// What glibc's allocator is told: a process of many threads needs few arenas, and the buffer of 16 MiB that each thread of a
/// mount has comes from the kernel, page by page as it is used, and not from a heap where all of it would be zeroed.
const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_MMAP_THRESHOLD_", "8388608"),
    ("MALLOC_TRIM_THRESHOLD_", "67108864"),
];
/// How long `service stop` waits for the commands that run.
const STOP_MAX: Duration = Duration::from_secs(40);
const VERSION: &str = env!("CARGO_PKG_VERSION");

const STATUS_USAGE: &str = "service status";
const STOP_USAGE: &str = "service stop";

const COMMANDS: &[Command] =
    &[(&["status"], status, STATUS_USAGE), (&["stop"], stop, STOP_USAGE), (&["run"], serve, "service run")];

/// Runs `icecore service ARGS`.
pub fn run(args: &[String]) -> Outcome {
    crate::commands::run("icecore service", COMMANDS, &[], args)
}

fn place() -> Outcome<Place> {
    let folder = std::path::absolute(state::folder()?).map_err(|e| Fail::new(e.to_string()))?;
    Ok(Place::new(folder))
}

/// Where the service is that this command line is for; `None` if it is none of the service's business.
pub fn wanted(tool: Tool, args: &[String]) -> Option<Place> {
    if pools::serving() || std::env::var_os("ICECORE_SERVICE").is_some_and(|v| v == "off") {
        return None;
    }
    let command = args.first()?.as_str();
    if args.iter().skip(1).take_while(|a| *a != "--").any(|a| matches!(a.as_str(), "--help" | "-?")) {
        return None;
    }
    let (tool, command, rest) = match (tool, command) {
        (Tool::Icecore, "zfs") => (Tool::Zfs, args.get(1)?.as_str(), &args[2..]),
        (Tool::Icecore, "zpool") => (Tool::Zpool, args.get(1)?.as_str(), &args[2..]),
        other => (other.0, other.1, &args[1..]),
    };
    let begins_one = match (tool, command) {
        (Tool::Icecore, "sync" | "inspect" | "ls" | "cat" | "cp" | "find" | "du") => false,
        (Tool::Icecore, "mkdir" | "rm" | "import-tree") => false,
        (Tool::Icecore, _) | (_, "help" | "version" | "-V" | "--version" | "-?" | "-h" | "--help") => {
            return None;
        }
        (Tool::Zpool, "create") => true,
        (Tool::Zpool, "import") => imports(rest),
        // Nobody's pool yet, or none any more.
        (Tool::Zpool, "labelclear") => return None,
        _ => false,
    };
    // A state that cannot be read is the command's to complain of.
    let there = || state::all().is_ok_and(|all| !all.is_empty());
    if begins_one || there() { place().ok() } else { None }
}

/// Whether `zpool import` with these arguments imports a pool, or shows what could be.
fn imports(args: &[String]) -> bool {
    let mut names = false;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-d" | "-o" | "-R" | "-T" => drop(args.next()),
            "--" => names |= args.next().is_some(),
            a if a.starts_with('-') && !a.starts_with("--") => names |= a.contains('a'),
            _ => names = true,
        }
    }
    names
}

/// Lets the service carry a command line out.
pub fn call(place: &Place, tool: Tool, args: &[String]) -> Outcome {
    let tty =
        rustix::fs::open("/dev/tty", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty()).ok();
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(".", folder, Mode::empty())
        .map_err(|e| Fail::new(format!("cannot open the current folder: {e}")))?;
    let mask = rustix::process::umask(Mode::empty());
    rustix::process::umask(mask);
    let passed = |name: &String| ENV.contains(&name.as_str()) || name.starts_with("LC_");
    let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let request = Request::Run(Run {
        version: VERSION.into(),
        tool,
        args: args.to_vec(),
        env: env.filter(|(name, _)| passed(name)).collect(),
        umask: mask.as_raw_mode(),
        tty: tty.is_some(),
    });
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let mut fds = vec![stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), folder.as_fd()];
    fds.extend(tty.as_ref().map(AsFd::as_fd));
    let start = || {
        let exe = std::env::current_exe().unwrap_or_else(|_| "icecore".into());
        let mut command = std::process::Command::new(exe);
        command.arg0("icecore").args(["service", "run"]).env("ICECORE_STATE_DIR", place.folder());
        command.envs(ALLOCATOR);
        command
    };
    match client::ask(place, &request, &fds, start).map_err(Fail::new)? {
        Ended::Answered(answer) => told(answer),
        Ended::Died => Err(Fail::new(
            "the service ended while the command ran: the pool is as its last commit left it.\n\
             Run the command again; it starts the service anew. Keys that were loaded must be loaded again.",
        )),
    }
}

fn told(answer: Answer) -> Outcome {
    match answer {
        Answer::Done { status: 0, .. } => Ok(()),
        Answer::Done { status, message } => Err(Fail { status, message }),
        Answer::OtherVersion(v) => Err(Fail::new(format!(
            "the running service is icecore {v}, this program is {VERSION}\n\
             End it with 'icecore service stop'; the next command starts this one's."
        ))),
        Answer::NotYours => Err(Fail::new("permission denied: the imported pools belong to another user")),
        Answer::Accepted => Err(Fail::new("the service gave no answer")),
    }
}

/// Neither takes anything.
fn nothing(args: &[String], usage: &str) -> Outcome {
    let typed = crate::args::Typed::parse(args, &[], usage)?;
    if typed.operands.is_empty() { Ok(()) } else { Err(Fail::usage("too many arguments", usage)) }
}

fn status(args: &[String]) -> Outcome {
    nothing(args, STATUS_USAGE)?;
    let place = place()?;
    match client::ask_running(&place, &Request::Status).map_err(Fail::new)? {
        Some(Ended::Answered(Answer::Done { status: 0, message })) => {
            print!("{message}");
            Ok(())
        }
        Some(Ended::Answered(answer)) => told(answer),
        Some(Ended::Died) | None => {
            println!("the service is not running");
            Ok(())
        }
    }
}

fn stop(args: &[String]) -> Outcome {
    nothing(args, STOP_USAGE)?;
    let place = place()?;
    match client::ask_running(&place, &Request::Stop).map_err(Fail::new)? {
        Some(Ended::Answered(answer)) => told(answer)?,
        Some(Ended::Died) => {}
        None => {
            println!("the service is not running");
            return Ok(());
        }
    }
    match client::wait_gone(&place, STOP_MAX) {
        true => Ok(()),
        false => {
            Err(Fail::new("the service still waits for commands that run; it ends with the last of them"))
        }
    }
}

/// `icecore service run`: is the service. Standard output is a pipe that is told when it listens.
fn serve(_: &[String]) -> Outcome {
    let fail = |e: io::Error| Fail::new(format!("service: {e}"));
    let place = place()?;
    place.make().map_err(fail)?;
    let Some(lock) = place.lock().map_err(fail)? else {
        println!("taken");
        return Ok(());
    };
    // Signals of the terminal it was started at are not for it. One that leads its process group already stays there.
    let _ = rustix::process::setsid();
    // Keys are in this memory: it is not written to a file when something goes wrong.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    crate::limits::raise_all();
    pools::serve();
    crate::mounts::restore();
    let tell = io::stdout().as_fd().try_clone_to_owned().map_err(fail)?;
    // Whoever started us waits for the end of this pipe.
    let null = File::options().write(true).open("/dev/null").map_err(fail)?;
    rustix::stdio::dup2_stdout(&null).map_err(|e| fail(e.into()))?;
    let work = Commands { since: Instant::now(), running: Mutex::new(BTreeMap::new()) };
    let served = server::serve(&place, &lock, work, File::from(tell)).map_err(fail);
    // Before the lock: who takes it next finds the devices free.
    pools::close();
    drop(lock);
    served
}

/// What the service does for its callers.
struct Commands {
    since: Instant,
    /// Command lines under way, by number.
    running: Mutex<BTreeMap<u64, String>>,
}

impl Work for Commands {
    fn run(&self, request: Request, fds: Vec<OwnedFd>, line: &UnixStream) -> Answer {
        match request {
            Request::Run(run) if run.version != VERSION => Answer::OtherVersion(VERSION.into()),
            Request::Run(run) => self.command(run, fds, line),
            Request::Status => Answer::Done { status: 0, message: self.status() },
            Request::Stop => Answer::Done { status: 0, message: String::new() },
        }
    }
    fn hurry(&self) {
        pools::commit();
    }
    fn is_needed(&self) -> bool {
        state::all().is_ok_and(|all| !all.is_empty())
    }
}

impl Commands {
    fn command(&self, run: Run, fds: Vec<OwnedFd>, line: &UnixStream) -> Answer {
        let number = {
            let mut running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let number = running.keys().next_back().map_or(0, |n| n + 1);
            running.insert(number, words(&run));
            number
        };
        let outcome = caller_of(&run, fds, line).and_then(|caller| {
            let outcome = caller::inherit(Some(caller.clone()), || {
                crate::mounts::tell();
                catch_unwind(AssertUnwindSafe(|| crate::dispatch(run.tool, &run.args)))
            });
            caller.flush();
            match outcome {
                Ok(Ok(())) if caller.is_deaf() => Err(Fail::said(FAILED)),
                Ok(outcome) => outcome,
                Err(_) => {
                    Err(Fail::new("internal error: the command panicked (the service's log has where)"))
                }
            }
        });
        crate::mounts::closed::follow();
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&number);
        match outcome {
            Ok(()) => Answer::Done { status: 0, message: String::new() },
            Err(Fail { status, message }) => Answer::Done { status, message },
        }
    }

    fn status(&self) -> String {
        let secs = self.since.elapsed().as_secs();
        let mut out = format!(
            "the service is running: process {}, icecore {VERSION}, for {}\n",
            std::process::id(),
            crate::human::duration(secs)
        );
        for (name, trouble) in pools::all() {
            out += &match trouble {
                None => format!("pool {name}: open\n"),
                Some(why) => format!("pool {name}: suspended ({why})\n"),
            };
        }
        let keys = icecore_secret::state();
        if keys.unlocked > 0 {
            out += "keys: NOT in locked memory: the limit is too low (ulimit -l)\n";
        } else if keys.used > 0 {
            out += "keys: in locked memory\n";
        }
        for line in self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner).values() {
            out += &format!("running: {line}\n");
        }
        out
    }
}

/// A command line as typed; without what options say, which may be long.
fn words(run: &Run) -> String {
    let tool = match run.tool {
        Tool::Zfs => "zfs",
        Tool::Zpool => "zpool",
        Tool::Icecore => "icecore",
    };
    let line: Vec<&str> = std::iter::once(tool).chain(run.args.iter().map(String::as_str)).collect();
    line.join(" ").chars().take(200).collect()
}

/// This thread becomes the caller's: its folder, umask and streams.
fn caller_of(run: &Run, fds: Vec<OwnedFd>, line: &UnixStream) -> Outcome<std::sync::Arc<Caller>> {
    let fail = |e: io::Error| Fail::new(format!("service: {e}"));
    let mut fds = fds.into_iter();
    let (Some(stdin), Some(stdout), Some(stderr), Some(folder)) =
        (fds.next(), fds.next(), fds.next(), fds.next())
    else {
        return Err(Fail::new("service: the request came without its streams"));
    };
    let tty = fds.next().filter(|_| run.tty).map(File::from);
    server::settle(&folder, run.umask).map_err(fail)?;
    let line = Line::new(line.as_fd().try_clone_to_owned().map_err(fail)?);
    let streams = [File::from(stdin), File::from(stdout), File::from(stderr)];
    Caller::new(line, streams, tty, run.env.clone()).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_imports_are_the_services() {
        let one = |line: &str| {
            let args: Vec<String> = line.split_whitespace().map(String::from).collect();
            imports(&args)
        };
        assert!(one("-d /x tank") && one("tank") && one("-a") && one("-Na -d dir") && one("-f -- p"));
        assert!(one("-o readonly=on tank") && one("-T 5 tank"));
        assert!(!one("") && !one("-d /x") && !one("-o readonly=on") && !one("-T 5"));
    }
}
