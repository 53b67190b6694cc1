//! Standard output for names from a disk: as they are into a pipe, harmless on a terminal.

use crate::caller;
use crate::fail::{Fail, Outcome};
use icecore_service::stdio::Output;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::time::{Duration, Instant};

/// Standard output.
pub struct Out {
    to: BufWriter<Patient>,
    terminal: bool,
}

impl Out {
    /// Takes standard output.
    pub fn new() -> Outcome<Self> {
        let stdout = caller::stdout().map_err(failed)?;
        let terminal = caller::stdout_is_terminal();
        Ok(Self { to: BufWriter::with_capacity(1 << 16, Patient(stdout)), terminal })
    }
    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Outcome {
        self.to.write_all(bytes).map_err(failed)
    }
    /// A name or path; on a terminal without control characters.
    pub fn name(&mut self, name: &[u8]) -> Outcome {
        if self.terminal { self.bytes(escaped(name).as_bytes()) } else { self.bytes(name) }
    }
    /// Zeros.
    pub fn zeros(&mut self, mut n: u64) -> Outcome {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        while n > 0 {
            let take = n.min(ZEROS.len() as u64);
            self.bytes(&ZEROS[..take as usize])?;
            n -= take;
        }
        Ok(())
    }
    /// Everything out.
    pub fn finish(mut self) -> Outcome {
        self.to.flush().map_err(failed)
    }
}

/// How long a reader of the output may keep others from the pool that is read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Standard output, while a pool is held.
struct Patient(Output);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wanted_since = None;
        self.0.room(100, &mut || {
            if !caller::holds_wanted() {
                wanted_since = None;
                return true;
            }
            wanted_since.get_or_insert_with(Instant::now).elapsed() < PATIENCE
        })?;
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A reader that has gone away has had enough: no message, but no success either.
fn failed(e: io::Error) -> Fail {
    match e.kind() {
        ErrorKind::BrokenPipe => Fail::said(141),
        ErrorKind::TimedOut => Fail::new("standard output is not read, and others wait for the pool"),
        _ => Fail::new(format!("standard output: {e}")),
    }
}

/// A name with control characters and bytes that are not UTF-8 as escapes.
pub fn escaped(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            // Characters that turn the direction of writing can make one name look like another.
            if c.is_control()
                || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for b in chunk.invalid() {
            out.push_str(&format!("\\x{b:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_move_the_cursor() {
        assert_eq!(escaped(b"a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(escaped("caf\u{e9} \u{202e}gpj".as_bytes()), "caf\u{e9} \\u{202e}gpj");
        assert_eq!(escaped(b"\xff\n"), "\\xff\\n");
    }
}
