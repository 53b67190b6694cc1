//! The standard streams of somebody else: descriptors that came over the socket.
//!
//! Invariants:
//! 1. Nothing here waits longer than the caller lives: every wait also watches the caller's socket.
//! 2. The caller's descriptors keep their flags: they share an open file description with other programs, which
//!    must not find it non-blocking. A pipe is opened once more instead, through `/proc/self/fd`.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// What `poll` promises that a pipe takes without blocking (`PIPE_BUF`, pipe(7)).
const SURE: usize = 4096;

/// How long one wait for room lasts before it is begun anew, in milliseconds.
const STEP_MS: u64 = 60_000;

/// The caller's end of the conversation: hung up when the caller is gone.
#[derive(Clone, Debug)]
pub struct Line(Arc<OwnedFd>);

impl Line {
    /// The socket that the request came by.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self(Arc::new(socket))
    }
    /// Whether the caller is gone.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        let mut fds = [self.watch()];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|n| n > 0)
    }
    fn watch(&self) -> PollFd<'_> {
        PollFd::new(&*self.0, PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until `fd` is ready for `what`; false if the time was over first. Without a line it waits for `fd` alone.
fn wait(fd: BorrowedFd<'_>, what: PollFlags, line: Option<&Line>, millis: Option<u64>) -> io::Result<bool> {
    let limit = millis.map(|ms| Timespec {
        tv_sec: (ms / 1000).cast_signed(),
        tv_nsec: (ms % 1000 * 1_000_000).cast_signed() as _,
    });
    let mut fds = vec![PollFd::new(&fd, what)];
    fds.extend(line.map(Line::watch));
    loop {
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if fds.get(1).is_some_and(|f| !f.revents().is_empty()) {
        return Err(io::Error::new(ErrorKind::BrokenPipe, "the caller is gone"));
    }
    Ok(!fds[0].revents().is_empty())
}

/// Somebody's standard input, or a terminal.
#[derive(Debug)]
pub struct Input {
    from: File,
    line: Option<Line>,
}

impl Input {
    /// Reads from `from` as long as the caller at the end of `line` lives.
    #[must_use]
    pub fn new(from: File, line: Option<Line>) -> Self {
        Self { from, line }
    }
    /// Whether there is something to read, or the end of it; waits so many milliseconds for it.
    pub fn ready(&self, millis: u64) -> io::Result<bool> {
        wait(self.from.as_fd(), PollFlags::IN, self.line.as_ref(), Some(millis))
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }
}

impl Read for Input {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.line.is_some() {
            wait(self.from.as_fd(), PollFlags::IN, self.line.as_ref(), None)?;
        }
        self.from.read(out)
    }
}

/// How an output is written to without getting stuck in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// It never waits for a reader.
    Plain,
    /// Our own, non-blocking description of a pipe.
    NonBlocking,
    /// As much as is sure to fit, when there is room.
    Pieces,
}

/// Somebody's standard output or standard error.
#[derive(Debug)]
pub struct Output {
    to: File,
    how: How,
    line: Option<Line>,
}

impl Output {
    /// Writes to `to` as long as the caller at the end of `line` lives.
    #[must_use]
    pub fn new(to: File, line: Option<Line>) -> Self {
        if line.is_none() {
            return Self { to, how: How::Plain, line };
        }
        let kind = rustix::fs::fstat(&to).map(|s| FileType::from_raw_mode(s.st_mode));
        let (to, how) = match kind {
            Ok(FileType::RegularFile) => (to, How::Plain),
            Ok(FileType::Fifo) => match again(&to) {
                Ok(own) => (own, How::NonBlocking),
                Err(_) => (to, How::Pieces),
            },
            _ => (to, How::Pieces),
        };
        Self { to, how, line }
    }
    /// Waits until something can be written, in steps of so many milliseconds as long as `patient` says so.
    pub fn room(&self, step: u64, patient: &mut dyn FnMut() -> bool) -> io::Result<()> {
        if self.line.is_none() {
            return Ok(());
        }
        while !wait(self.to.as_fd(), PollFlags::OUT, self.line.as_ref(), Some(step))? {
            if !patient() {
                return Err(ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}

/// The pipe behind `end`, opened once more for ourselves.
fn again(end: &File) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", end.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.to.as_fd()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.how {
            How::Plain => {
                if self.line.as_ref().is_some_and(Line::is_dead) {
                    return Err(io::Error::new(ErrorKind::BrokenPipe, "the caller is gone"));
                }
                self.to.write(bytes)
            }
            How::NonBlocking => loop {
                self.room(STEP_MS, &mut || true)?;
                match self.to.write(bytes) {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    other => return other,
                }
            },
            How::Pieces => {
                self.room(STEP_MS, &mut || true)?;
                self.to.write(&bytes[..bytes.len().min(SURE)])
            }
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    fn file(fd: impl Into<OwnedFd>) -> File {
        File::from(fd.into())
    }

    /// A line, and the caller's end of it.
    fn line() -> (Line, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Line::new(ours.into()), theirs)
    }

    #[test]
    fn a_reader_that_takes_nothing_holds_nobody_whose_caller_is_gone() {
        let (line, caller) = line();
        let (reader, writer) = io::pipe().unwrap();
        let mut out = Output::new(file(writer), Some(line.clone()));
        assert_eq!(out.how, How::NonBlocking);
        let started = Instant::now();
        let ended = std::thread::spawn(move || {
            loop {
                if let Err(e) = out.write_all(&[7; 1 << 16]) {
                    return e;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!ended.is_finished(), "the pipe is full and its writer waits");
        drop(caller);
        assert_eq!(ended.join().unwrap().kind(), ErrorKind::BrokenPipe);
        assert!(started.elapsed() < Duration::from_secs(5) && line.is_dead());
        drop(reader);
    }

    #[test]
    fn the_callers_own_pipe_stays_blocking() {
        let (line, _caller) = line();
        let (_reader, writer) = io::pipe().unwrap();
        let copy = writer.try_clone().unwrap();
        let _out = Output::new(file(writer), Some(line));
        assert!(!rustix::fs::fcntl_getfl(&copy).unwrap().contains(OFlags::NONBLOCK));
    }

    #[test]
    fn what_is_written_arrives_whole_through_a_pipe_and_a_socket() {
        let data: Vec<u8> = (0..1_000_000_u32).map(|i| i as u8).collect();
        let (pipe_in, pipe_out) = io::pipe().unwrap();
        let (sock_in, sock_out) = UnixStream::pair().unwrap();
        for (from, to) in [(file(pipe_in), file(pipe_out)), (file(sock_in), file(sock_out))] {
            let (line, _caller) = line();
            let mut input = Input::new(from, Some(line.clone()));
            let sent = data.clone();
            let writer = std::thread::spawn(move || Output::new(to, Some(line)).write_all(&sent));
            let mut got = Vec::new();
            input.read_to_end(&mut got).unwrap();
            writer.join().unwrap().unwrap();
            assert!(got == data);
        }
    }

    #[test]
    fn input_says_whether_something_is_there() {
        let (line, caller) = line();
        let (reader, mut writer) = io::pipe().unwrap();
        let mut input = Input::new(file(reader), Some(line));
        assert!(!input.ready(1).unwrap());
        writer.write_all(b"x").unwrap();
        assert!(input.ready(1000).unwrap());
        assert_eq!(input.read(&mut [0; 8]).unwrap(), 1);
        drop(caller);
        assert_eq!(input.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
