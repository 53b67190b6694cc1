//! Streams in and out: the descriptors themselves, and pipes as wide as allowed.
//!
//! The standard library's standard output looks for line ends in what passes, its standard input copies through a
//! small buffer; both are for text.

use crate::caller;
use icecore_service::stdio::{Input, Output};
use rustix::fs::FileType;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// What a pipe is widened to: what a user without privileges may ask for by default (fs.pipe-max-size, pipe(7)).
const WIDTH: usize = 1 << 20;

/// Lets a pipe hold more, so that the two programs at its ends take turns less often (as
/// `libzfs_set_pipe_max` does). Anything else, and a pipe that may not grow, stays as it is.
pub fn widen(end: impl AsFd) {
    let narrow = rustix::pipe::fcntl_getpipe_size(&end).is_ok_and(|now| now < WIDTH);
    if narrow {
        let _ = rustix::pipe::fcntl_setpipe_size(&end, WIDTH);
    }
}

/// Standard output for a stream.
pub fn output() -> io::Result<Output> {
    let out = caller::stdout()?;
    widen(&out);
    Ok(out)
}

/// Standard input for a stream.
pub fn input() -> io::Result<Input> {
    let input = caller::stdin()?;
    if caller::current().is_some() && lies_in_a_mount(&input) {
        return pumped(input);
    }
    widen(&input);
    Ok(input)
}

/// Whether this is a file of a mount, perhaps one of ours: reading it may wait for a pool.
fn lies_in_a_mount(fd: impl AsFd) -> bool {
    const FUSE: i64 = 0x6573_5546;
    let regular = |s: rustix::fs::Stat| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile;
    rustix::fs::fstat(&fd).is_ok_and(regular) && rustix::fs::fstatfs(&fd).is_ok_and(|s| s.f_type == FUSE)
}

/// The same through a pipe, filled by a thread that holds no pool: who holds one sees whether there is something to read, and
/// waits for no mount. A failure to read ends the stream early.
fn pumped(mut from: Input) -> io::Result<Input> {
    let (reader, mut writer) = io::pipe()?;
    widen(&writer);
    std::thread::Builder::new().name("pump".into()).spawn(move || io::copy(&mut from, &mut writer))?;
    Ok(Input::new(File::from(OwnedFd::from(reader)), caller::line()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_grow_and_files_do_not_mind() {
        let (reader, writer) = io::pipe().unwrap();
        widen(&writer);
        // A user over his share of pipe memory keeps what he has.
        assert!(rustix::pipe::fcntl_getpipe_size(&reader).unwrap() >= 4096);
        widen(std::fs::File::open("/proc/self/exe").unwrap());
    }
}
