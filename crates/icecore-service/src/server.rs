//! The service's end: listens, looks who asks, gives each request a thread, and ends when it is no longer needed.
//!
//! Invariants:
//! 1. Who is neither the owner nor root is told so and nothing else.
//! 2. A request that was accepted is answered, or the process has died.
//! 3. Every thread has its own current folder and umask: its caller's.
//! 4. A signal that asks it to end is as good as [`Request::Stop`]: what was acknowledged is durable first.

use crate::place::{Lock, Place};
use crate::wire::{Answer, Request, receive_with, send};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How often the service looks whether its folder is still there.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// How long requests that run may take to end when the service is stopped.
const STOP_MAX: Duration = Duration::from_secs(30);
/// How long a caller may take to say what it wants.
const REQUEST_MAX: Duration = Duration::from_secs(10);

/// What the service does.
pub trait Work: Send + Sync + 'static {
    /// Carries a request out on a thread of its own; the socket is the caller's line. Gives status and last words.
    fn run(&self, request: Request, fds: Vec<OwnedFd>, line: &UnixStream) -> Answer;
    /// Whether there is any reason to stay. Asked when nothing runs.
    fn is_needed(&self) -> bool;
    /// The system may end it any moment now: what is not durable yet becomes so.
    fn hurry(&self);
}

struct Shared<W> {
    work: W,
    running: AtomicUsize,
    stopping: AtomicBool,
    /// Written to when a request ends.
    wake: UnixStream,
}

/// Takes the caller's folder and umask for this thread alone.
pub fn settle(folder: &OwnedFd, umask: u32) -> io::Result<()> {
    own_folder()?;
    rustix::process::fchdir(folder)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask & 0o777));
    Ok(())
}

/// Separates this thread's current folder and umask from the other threads' (`CLONE_FS`, unshare(2)).
#[expect(unsafe_code, reason = "no safe wrapper: other flags could close descriptors under their owners")]
fn own_folder() -> io::Result<()> {
    // SAFETY: `CLONE_FS` only gives this thread its own copy of root, current folder and umask; no descriptor, memory or
    // namespace that others hold changes.
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }?)
}

/// Serves until there is nothing to do. Says on `tell` when it listens.
pub fn serve(place: &Place, lock: &Lock, work: impl Work, mut tell: impl Write) -> io::Result<()> {
    let listener = place.listen(lock)?;
    listener.set_nonblocking(true)?;
    let (wake, woken) = UnixStream::pair()?;
    woken.set_nonblocking(true)?;
    let shared =
        Arc::new(Shared { work, running: AtomicUsize::new(0), stopping: AtomicBool::new(false), wake });
    let signals = signals()?;
    let _ = tell.write_all(b"ready\n");
    drop(tell);
    let mut served = false;
    loop {
        served |= accept(&listener, &shared)?;
        let idle = shared.running.load(Ordering::SeqCst) == 0;
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
        // The first request may be on its way still.
        if idle && served && !shared.work.is_needed() {
            break;
        }
        let mut fds = [&listener as &dyn AsFd, &woken, &signals]
            .map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN));
        let ready = poll(&mut fds, Some(&LOOK)).unwrap_or(0);
        if (&signals).read(&mut [0; 64]).is_ok_and(|n| n > 0) {
            shared.work.hurry();
            shared.stopping.store(true, Ordering::SeqCst);
            break;
        }
        let _ = (&woken).read(&mut [0; 64]);
        if ready == 0 {
            if !place.exists() {
                return Ok(()); // Our folder is gone, and with it all that refers to us.
            }
            served |= idle;
        }
    }
    end(place, &listener, &shared)
}

/// What can be read of it says that a signal came that asks for the end.
fn signals() -> io::Result<UnixStream> {
    let (told, signals) = UnixStream::pair()?;
    signals.set_nonblocking(true)?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, told.try_clone()?)?;
    }
    // A file that may not grow is an error of who writes it.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    Ok(signals)
}

/// Ends: nobody can come any more, and who came is served.
fn end<W: Work>(place: &Place, listener: &UnixListener, shared: &Arc<Shared<W>>) -> io::Result<()> {
    place.unlink()?;
    accept(listener, shared)?;
    let until = Instant::now() + STOP_MAX;
    while shared.running.load(Ordering::SeqCst) > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Takes all who are waiting; whether there was anyone.
fn accept<W: Work>(listener: &UnixListener, shared: &Arc<Shared<W>>) -> io::Result<bool> {
    let mut any = false;
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                any = true;
                shared.running.fetch_add(1, Ordering::SeqCst);
                let mine = Running(Arc::clone(shared));
                let spawned = std::thread::Builder::new().name("request".into()).spawn(move || {
                    if let Err(e) = one(&mine.0, &socket) {
                        eprintln!("request: {e}");
                    }
                    drop(socket);
                    drop(mine);
                });
                if let Err(e) = spawned {
                    eprintln!("no thread for a request: {e}");
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(any),
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
            Err(e) => {
                // Out of descriptors, say: those who wait come in when others have gone.
                eprintln!("accept: {e}");
                std::thread::sleep(Duration::from_millis(50));
                return Ok(any);
            }
        }
    }
}

/// A request under way.
struct Running<W: Work>(Arc<Shared<W>>);

impl<W: Work> Drop for Running<W> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        let _ = (&self.0.wake).write(&[0]);
    }
}

fn one<W: Work>(shared: &Shared<W>, socket: &UnixStream) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    let peer = rustix::net::sockopt::socket_peercred(socket.as_fd())?;
    if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
        return send(socket, &Answer::NotYours);
    }
    socket.set_read_timeout(Some(REQUEST_MAX))?;
    let (request, fds) = receive_with::<Request>(socket)?;
    if shared.stopping.load(Ordering::SeqCst) {
        return Ok(()); // Not accepted: the caller starts another.
    }
    send(socket, &Answer::Accepted)?;
    let stop = request == Request::Stop;
    let answer = shared.work.run(request, fds, socket);
    if stop && matches!(answer, Answer::Done { status: 0, .. }) {
        shared.stopping.store(true, Ordering::SeqCst);
    }
    send(socket, &answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_folders_and_umasks_of_their_own() {
        let here = std::env::current_dir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let inside = path.clone();
        std::thread::spawn(move || {
            let folder = OwnedFd::from(std::fs::File::open(&inside).unwrap());
            settle(&folder, 0o77).unwrap();
            assert_eq!(std::env::current_dir().unwrap(), inside);
            std::fs::write("file", "x").unwrap();
            // And so have the threads it starts.
            std::thread::spawn(move || assert_eq!(std::env::current_dir().unwrap(), inside)).join().unwrap();
        })
        .join()
        .unwrap();
        assert_eq!(std::env::current_dir().unwrap(), here);
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path.join("file")).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }
}
