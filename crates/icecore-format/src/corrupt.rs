//! What is wrong with bytes that passed their checksum, or with bytes nobody vouches for.

use std::fmt;

/// Bytes that make no sense, with the place. Never used for «not supported».
#[derive(Clone, PartialEq, Eq)]
pub struct Corrupt {
    /// Which structure: `"blkptr"`, `"nvlist"`, …
    pub what: &'static str,
    /// Which rule it broke, in words.
    pub why: String,
}

impl Corrupt {
    /// A complaint about structure `what`.
    pub fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "damaged {}: {}", self.what, self.why)
    }
}
impl fmt::Debug for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl std::error::Error for Corrupt {}
