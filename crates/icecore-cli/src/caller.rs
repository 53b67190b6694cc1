//! Whoever typed the command: standard streams, terminal, environment.
//!
//! In a process of its own that is the process itself. In the service it is somebody at the other end of a socket, and
//! each command has a thread; what the thread (and those it starts, with [`inherit`]) prints, reads, asks and looks up
//! goes to its caller. The current folder and umask are per thread in the service, so paths need nothing from here.
//!
//! Invariants:
//! 1. Commands use no standard stream, terminal or environment but through here, `out` and `pipe`.
//! 2. While a thread holds a pool's lock its words wait in memory: whoever reads them may be slow.
//! 3. A caller who is gone is noticed by every read, write and [`cancelled`]; none of them waits for it.

use crate::pools::Owned;
use icecore_service::stdio::{Input, Line, Output};
use indicatif::{ProgressDrawTarget, TermLike};
use rustix::termios::isatty;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A caller at the other end of a socket.
pub struct Caller {
    stdin: File,
    stdout: File,
    stderr: File,
    tty: Option<File>,
    env: BTreeMap<String, String>,
    line: Line,
    words: Mutex<Words>,
    /// Nobody reads what is printed any more.
    deaf: AtomicBool,
}

/// What is still to be said.
struct Words {
    out: Output,
    err: Output,
    /// In the order it was said; true is standard error.
    waiting: Vec<(bool, Vec<u8>)>,
}

thread_local! {
    static CALLER: RefCell<Option<Arc<Caller>>> = const { RefCell::new(None) };
    /// The command line that this thread carries out.
    static COMMAND: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Pools that this thread holds.
    static HELD: RefCell<Vec<Arc<Owned>>> = const { RefCell::new(Vec::new()) };
}

impl Caller {
    /// The caller at the other end of `line`, with standard input, output and error, and terminal if there is one.
    pub fn new(
        line: Line,
        [stdin, stdout, stderr]: [File; 3],
        tty: Option<File>,
        env: BTreeMap<String, String>,
    ) -> io::Result<Arc<Self>> {
        let words = Words {
            out: Output::new(stdout.try_clone()?, Some(line.clone())),
            err: Output::new(stderr.try_clone()?, Some(line.clone())),
            waiting: Vec::new(),
        };
        let (words, deaf) = (Mutex::new(words), AtomicBool::new(false));
        Ok(Arc::new(Self { stdin, stdout, stderr, tty, env, line, words, deaf }))
    }
    /// Whether standard output could not be written to.
    pub fn is_deaf(&self) -> bool {
        self.deaf.load(Ordering::Relaxed)
    }
    /// Says something; at once, if this thread holds no pool.
    pub fn say(&self, err: bool, text: &str) {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        match words.waiting.last_mut() {
            Some((e, bytes)) if *e == err => bytes.extend_from_slice(text.as_bytes()),
            _ => words.waiting.push((err, text.as_bytes().to_vec())),
        }
        if !holds_any() {
            self.speak(&mut words);
        }
    }
    fn speak(&self, words: &mut Words) {
        let Words { out, err, waiting } = words;
        for (to_err, bytes) in std::mem::take(waiting) {
            if to_err {
                // Nobody can be told where that fails.
                let _ = err.write_all(&bytes);
            } else if !self.is_deaf() && out.write_all(&bytes).is_err() {
                self.deaf.store(true, Ordering::Relaxed);
            }
        }
    }
    /// Says what waited.
    pub fn flush(&self) {
        if !holds_any() {
            self.speak(&mut self.words.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// The caller of this thread's command; `None` in a process of its own.
pub fn current() -> Option<Arc<Caller>> {
    CALLER.with_borrow(Clone::clone)
}

/// Runs `f` for `caller`: for threads that a command starts, with what [`current`] gave.
pub fn inherit<T>(caller: Option<Arc<Caller>>, f: impl FnOnce() -> T) -> T {
    struct Back(Option<Arc<Caller>>);
    impl Drop for Back {
        fn drop(&mut self) {
            CALLER.set(self.0.take());
        }
    }
    let _back = Back(CALLER.replace(caller));
    f()
}

/// A thread's hold on a pool's lock, as far as its words are concerned.
pub struct Held(Arc<Owned>);

impl Held {
    /// From now on words wait.
    pub fn new(pool: &Arc<Owned>) -> Self {
        HELD.with_borrow_mut(|held| held.push(Arc::clone(pool)));
        Self(Arc::clone(pool))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| {
            let at = held.iter().position(|pool| Arc::ptr_eq(pool, &self.0));
            at.map(|at| held.swap_remove(at))
        });
        if let Some(caller) = current() {
            caller.flush();
        }
    }
}

/// Runs `f` as the work of this command line.
pub fn as_command<T>(line: String, f: impl FnOnce() -> T) -> T {
    let before = COMMAND.replace(Some(line));
    let done = f();
    COMMAND.set(before);
    done
}

/// The command line this thread carries out, and whose pools it changes: for the pools' history.
pub fn command_line() -> Option<(String, u64)> {
    let uid = u64::from(rustix::process::geteuid().as_raw());
    COMMAND.with_borrow(|line| line.clone().map(|line| (line, uid)))
}

/// Whether this thread holds a pool.
pub fn holds_any() -> bool {
    HELD.with_borrow(|held| !held.is_empty())
}

/// Whether others wait for a pool that this thread holds.
pub fn holds_wanted() -> bool {
    HELD.with_borrow(|held| held.iter().any(|pool| pool.wanted()))
}

/// Whether the caller is gone, so that nobody waits for what the command does.
pub fn cancelled() -> bool {
    CALLER.with_borrow(|c| c.as_ref().is_some_and(|c| c.line.is_dead()))
}

/// Standard input.
pub fn stdin() -> io::Result<Input> {
    match current() {
        Some(c) => Ok(Input::new(c.stdin.try_clone()?, Some(c.line.clone()))),
        None => Ok(Input::new(io::stdin().as_fd().try_clone_to_owned()?.into(), None)),
    }
}

/// Standard output, for bytes.
pub fn stdout() -> io::Result<Output> {
    match current() {
        Some(c) => {
            c.flush();
            Ok(Output::new(c.stdout.try_clone()?, Some(c.line.clone())))
        }
        None => Ok(Output::new(io::stdout().as_fd().try_clone_to_owned()?.into(), None)),
    }
}

/// What tells that the caller is gone, for waits that are not for the caller's own streams.
pub fn line() -> Option<Line> {
    current().map(|c| c.line.clone())
}

/// The terminal to ask on.
pub fn tty() -> io::Result<(File, Option<Line>)> {
    match current() {
        Some(c) => match &c.tty {
            Some(tty) => Ok((tty.try_clone()?, Some(c.line.clone()))),
            None => Err(io::ErrorKind::NotFound.into()),
        },
        None => Ok((OpenOptions::new().read(true).write(true).open("/dev/tty")?, None)),
    }
}

/// Whether standard input is a terminal.
pub fn stdin_is_terminal() -> bool {
    current().map_or_else(|| isatty(io::stdin()), |c| isatty(&c.stdin))
}

/// Whether standard output is a terminal.
pub fn stdout_is_terminal() -> bool {
    current().map_or_else(|| isatty(io::stdout()), |c| isatty(&c.stdout))
}

/// Whether standard error is a terminal.
pub fn stderr_is_terminal() -> bool {
    current().map_or_else(|| isatty(io::stderr()), |c| isatty(&c.stderr))
}

/// A variable of the caller's environment, if it is one of those that commands look at.
pub fn var(name: &str) -> Option<String> {
    match current() {
        Some(caller) => caller.env.get(name).cloned(),
        None => std::env::var(name).ok(),
    }
}

/// The caller's time zone.
pub fn time_zone() -> jiff::tz::TimeZone {
    use jiff::tz::TimeZone;
    let Some(caller) = current() else { return TimeZone::system() };
    let Some(name) = caller.env.get("TZ") else { return TimeZone::system() };
    let name = name.strip_prefix(':').unwrap_or(name);
    if name.is_empty() {
        return TimeZone::UTC;
    }
    let named = TimeZone::get(name).or_else(|_| TimeZone::posix(name));
    named.unwrap_or(TimeZone::UTC)
}

/// Where progress bars are drawn: the caller's standard error.
pub fn draw_target() -> ProgressDrawTarget {
    match current() {
        Some(c) => ProgressDrawTarget::term_like(Box::new(Screen(c))),
        None => ProgressDrawTarget::stderr(),
    }
}

/// The caller's terminal, for progress bars.
struct Screen(Arc<Caller>);

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Screen")
    }
}

impl Screen {
    fn control(&self, n: usize, letter: char) -> io::Result<()> {
        if n > 0 { self.write_str(&format!("\x1b[{n}{letter}")) } else { Ok(()) }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        rustix::termios::tcgetwinsize(&self.0.stderr).map_or(80, |w| w.ws_col.max(20))
    }
    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.control(n, 'A')
    }
    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.control(n, 'B')
    }
    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.control(n, 'C')
    }
    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.control(n, 'D')
    }
    fn write_line(&self, s: &str) -> io::Result<()> {
        self.write_str(&format!("{s}\r\n"))
    }
    fn write_str(&self, s: &str) -> io::Result<()> {
        // Drawn now or never: a bar is no word that waits.
        let mut words = self.0.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.err.write_all(s.as_bytes())
    }
    fn clear_line(&self) -> io::Result<()> {
        self.write_str("\r\x1b[2K")
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
