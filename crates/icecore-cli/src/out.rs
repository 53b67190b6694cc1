//! Printing that ends the program quietly when nobody reads any more, as `zfs list | head` does.
//!
//! The standard macros panic there, and know nothing of the service's callers. These shadow them in this crate: what a
//! command changes in a pool is committed or not, whatever its words do.

use crate::caller;
use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Writes to standard output; a reader that went away ends the program with status 1.
pub fn stdout(text: Arguments<'_>) {
    match caller::current() {
        Some(c) => c.say(false, &text.to_string()),
        None => finish(std::io::stdout().lock().write_fmt(text)),
    }
}

/// Writes to standard error. Nobody can be told where that fails.
pub fn stderr(text: Arguments<'_>) {
    match caller::current() {
        Some(c) => c.say(true, &text.to_string()),
        None => drop(std::io::stderr().lock().write_fmt(text)),
    }
}

/// Writes out what standard output still holds; for the end of `main`.
pub fn flush() {
    match caller::current() {
        Some(c) => c.flush(),
        None => finish(std::io::stdout().lock().flush()),
    }
}

fn finish(written: std::io::Result<()>) {
    if let Err(e) = written {
        if e.kind() != ErrorKind::BrokenPipe {
            stderr(format_args!("cannot write to standard output: {e}\n"));
        }
        std::process::exit(crate::fail::FAILED);
    }
}

macro_rules! print {
    ($($arg:tt)*) => { $crate::out::stdout(format_args!($($arg)*)) };
}
macro_rules! println {
    () => { $crate::out::stdout(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::out::stdout(format_args!("{}\n", format_args!($($arg)*))) };
}
macro_rules! eprintln {
    ($($arg:tt)*) => { $crate::out::stderr(format_args!("{}\n", format_args!($($arg)*))) };
}
