//! How a command ends badly: what it says on standard error, and its exit status.

use std::fmt;

/// Exit status for an operation that failed.
pub const FAILED: i32 = 1;
/// Exit status for a command line that makes no sense.
pub const USAGE: i32 = 2;

/// Exit status where OpenZFS's command returns -1 to its `main`.
pub const NEGATIVE: i32 = 255;

/// A failure on its way to `main`.
#[derive(Debug)]
pub struct Fail {
    /// Exit status.
    pub status: i32,
    /// Lines for standard error; may be empty when everything has been said.
    pub message: String,
}

impl Fail {
    /// An operation that failed.
    pub fn new(message: impl Into<String>) -> Self {
        Self { status: FAILED, message: message.into() }
    }
    /// A wrong command line, with the command's usage below the complaint.
    pub fn usage(message: impl fmt::Display, usage: &str) -> Self {
        Self { status: USAGE, message: format!("{message}\nusage:\n\t{usage}") }
    }
    /// The same, where OpenZFS's command returns -1.
    #[must_use]
    pub fn negative(self) -> Self {
        Self { status: NEGATIVE, ..self }
    }
    /// Everything was said already.
    #[must_use]
    pub fn said(status: i32) -> Self {
        Self { status, message: String::new() }
    }
}

impl<E: std::error::Error> From<E> for Fail {
    fn from(e: E) -> Self {
        Self::new(e.to_string())
    }
}

/// The outcome of a command.
pub type Outcome<T = ()> = Result<T, Fail>;
