//! What goes over the socket: one request with descriptors, then answers. Each is a length and JSON.
//!
//! Invariants:
//! 1. A message longer than [`MESSAGE_MAX`] is an error before memory is made for it.
//! 2. Descriptors come with a request's first byte, and at most [`FDS_MAX`] of them; all are closed on exec.
//! 3. No key goes over the socket: who asks for one reads it through the caller's descriptors.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Bytes of a message at most: a command line and an environment (`ARG_MAX` is 2 MiB by default).
const MESSAGE_MAX: usize = 4 << 20;
/// Standard input, output, error, the current folder, the terminal.
const FDS_MAX: usize = 5;

/// Which command was typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// `zfs`.
    Zfs,
    /// `zpool`.
    Zpool,
    /// `icecore`.
    Icecore,
}

/// What the service is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Run a command line. Standard input, output and error, the current folder and, where there is one, the terminal
    /// come along.
    Run(Run),
    /// Say what there is.
    Status,
    /// End.
    Stop,
}

/// A command line and what it was typed in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The version of the program that asks: the service must be of the same.
    pub version: String,
    /// Which command.
    pub tool: Tool,
    /// What follows its name.
    pub args: Vec<String>,
    /// What of the environment commands look at.
    pub env: BTreeMap<String, String>,
    /// The caller's umask.
    pub umask: u32,
    /// Whether a terminal came along.
    pub tty: bool,
}

/// What it answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The request is going to be carried out. If nothing follows, the service died.
    Accepted,
    /// The command ended.
    Done {
        /// Its exit status.
        status: i32,
        /// Last words for standard error.
        message: String,
    },
    /// The service runs another version of the program.
    OtherVersion(String),
    /// The caller may not ask.
    NotYours,
}

fn frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    let len = u32::try_from(body.len()).ok().filter(|l| *l as usize <= MESSAGE_MAX);
    let len = len.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the command line is too long"))?;
    Ok([&len.to_le_bytes()[..], &body].concat())
}

/// Sends a message.
pub fn send(mut socket: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    socket.write_all(&frame(message)?)
}

/// Sends a message with descriptors.
pub fn send_with(
    mut socket: &UnixStream,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = frame(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "too many descriptors"));
    }
    let sent = sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    socket.write_all(&bytes[sent..])
}

/// Receives a message; `None` at the end.
pub fn receive<T: DeserializeOwned>(mut socket: &UnixStream) -> io::Result<Option<T>> {
    let mut len = [0; 4];
    match socket.read_exact(&mut len) {
        Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
            return Ok(None);
        }
        other => other?,
    }
    body(socket, u32::from_le_bytes(len)).map(Some)
}

fn body<T: DeserializeOwned>(socket: &UnixStream, len: u32) -> io::Result<T> {
    let len = len as usize;
    if len > MESSAGE_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("a message of {len} bytes")));
    }
    let mut bytes = Vec::new();
    socket.take(len as u64).read_to_end(&mut bytes)?;
    if bytes.len() < len {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&bytes)?)
}

/// Receives a message and the descriptors that come with it.
pub fn receive_with<T: DeserializeOwned>(mut socket: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut len = [0; 4];
    let got =
        recvmsg(socket, &mut [IoSliceMut::new(&mut len)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    socket.read_exact(&mut len[got..])?;
    Ok((body(socket, u32::from_le_bytes(len))?, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_request_arrives_with_its_descriptors() {
        let (a, b) = UnixStream::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        let run = Run {
            version: "1".into(),
            tool: Tool::Zfs,
            args: vec!["send".into(), "p@\u{2603}".into()],
            env: BTreeMap::from([("TZ".into(), "UTC".into())]),
            umask: 0o22,
            tty: false,
        };
        let request = Request::Run(run);
        send_with(&a, &request, &[writer.as_fd()]).unwrap();
        drop(writer);
        let (got, fds): (Request, _) = receive_with(&b).unwrap();
        assert_eq!((got, fds.len()), (request, 1));
        std::fs::File::from(fds.into_iter().next().unwrap()).write_all(b"hello").unwrap();
        let mut text = String::new();
        { reader }.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        send(&b, &Answer::Done { status: 1, message: "no".into() }).unwrap();
        assert_eq!(receive(&a).unwrap(), Some(Answer::Done { status: 1, message: "no".into() }));
        drop(b);
        assert_eq!(receive::<Answer>(&a).unwrap(), None);
    }

    #[test]
    fn nonsense_is_refused_without_memory_for_it() {
        for bytes in
            [&[0xff; 64][..], &[3, 0, 0, 0, b'{', b'}', b'x'], &[0, 0, 0, 0], b"GET / HTTP/1.1\r\n\r\n", &[9]]
        {
            let (a, b) = UnixStream::pair().unwrap();
            { a }.write_all(bytes).unwrap();
            assert!(receive_with::<Request>(&b).is_err(), "{bytes:?}");
        }
    }
}
