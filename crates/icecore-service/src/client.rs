//! The caller's end: finds the service, or starts it, and asks.

use crate::place::Place;
use crate::wire::{Answer, Request, receive, send, send_with};
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a service may take to begin, or one that ends to be gone.
const START_MAX: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// How a request ended.
#[derive(Debug)]
pub enum Ended {
    /// It was answered.
    Answered(Answer),
    /// The service died over it.
    Died,
}

/// Asks the service, which `start` starts if there is none.
///
/// # Errors
/// Says what to do where no service can be had.
pub fn ask(
    place: &Place,
    request: &Request,
    fds: &[BorrowedFd<'_>],
    start: impl Fn() -> Command,
) -> Result<Ended, String> {
    let until = Instant::now() + START_MAX;
    loop {
        let connected = place.connect().map_err(|e| cannot(place, &e.to_string()))?;
        if let Some(socket) = connected
            && let Some(ended) = ask_at(&socket, request, fds).map_err(|e| cannot(place, &e.to_string()))?
        {
            return Ok(ended);
        }
        // None, or one that was about to end.
        if Instant::now() > until {
            return Err(cannot(place, "it does not answer"));
        }
        match place.is_taken() {
            Ok(false) => spawn(place, start()).map_err(|why| cannot(place, &why))?,
            Ok(true) => std::thread::sleep(LOOK),
            Err(e) => return Err(cannot(place, &e.to_string())),
        }
    }
}

/// Asks the service if there is one.
pub fn ask_running(place: &Place, request: &Request) -> Result<Option<Ended>, String> {
    let connected = place.connect().map_err(|e| cannot(place, &e.to_string()))?;
    let Some(socket) = connected else { return Ok(None) };
    ask_at(&socket, request, &[]).map_err(|e| cannot(place, &e.to_string()))
}

/// Waits until the service is gone; false if it is not within `limit`.
pub fn wait_gone(place: &Place, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    while place.is_taken().unwrap_or(false) {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

fn cannot(place: &Place, why: &str) -> String {
    format!(
        "the service that owns the imported pools cannot be reached ({}): {why}\n\
         'icecore service status' tells more; with ICECORE_SERVICE=off a command does its work without it, alone",
        place.folder().display()
    )
}

/// `None` if the service ended before it took the request.
fn ask_at(socket: &UnixStream, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<Option<Ended>> {
    let sent = if fds.is_empty() { send(socket, request) } else { send_with(socket, request, fds) };
    match sent {
        Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
        other => other?,
    }
    let mut accepted = false;
    loop {
        match receive::<Answer>(socket) {
            Ok(Some(Answer::Accepted)) => accepted = true,
            Ok(Some(answer)) => return Ok(Some(Ended::Answered(answer))),
            Ok(None) if accepted => return Ok(Some(Ended::Died)),
            Ok(None) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
}

/// Starts the service and waits until it listens.
fn spawn(place: &Place, mut command: Command) -> Result<(), String> {
    let text = |e: io::Error| e.to_string();
    place.make().map_err(text)?;
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(place.log()).map_err(text)?;
    let (mut ready, tell) = io::pipe().map_err(text)?;
    command.stdin(Stdio::null()).stdout(tell).stderr(log).current_dir("/");
    command.spawn().map_err(|e| format!("it cannot be started: {e}"))?;
    drop(command); // our end of `tell` with it
    let mut said = String::new();
    ready.read_to_string(&mut said).map_err(text)?;
    match said.trim() {
        "ready" | "taken" => Ok(()),
        "" => Err(format!("it ended at once; {} may say why", place.log().display())),
        why => Err(why.to_string()),
    }
}
