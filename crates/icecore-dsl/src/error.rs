//! What can go wrong in the DSL, split by what a caller can do about it.

use icecore_dmu::{ReadError, WriteError};
use icecore_format::Corrupt;
use std::fmt;

/// Why an operation on directories and datasets was refused or failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DslError {
    /// The name breaks the rules; the text says which.
    Name(String),
    /// No such dataset, snapshot, bookmark or hold.
    NotFound(String),
    /// Something of that name is there already.
    Exists(String),
    /// Held, half-received, or in use.
    Busy(String),
    /// Other datasets depend on it: names of clones or children.
    Dependents(Vec<String>),
    /// Names that what is to be taken over shares with what is there already.
    Conflict(Vec<String>),
    /// It would leave its encryption root; the text says how.
    OutsideRoot(String),
    /// Newer snapshots or bookmarks stand in the way.
    NotLatest(String),
    /// The encryption key is not loaded, or a given key does not fit.
    Key(KeyError),
    /// Makes no sense for what it was asked of.
    Invalid(String),
    /// The pool's features or version do not allow it, or we do not do it yet.
    Unsupported(String),
    /// The pool is full, or what is asked for does not fit what is there.
    NoSpace,
    /// A quota is used up.
    Quota,
    /// A block or object could not be read.
    Read(ReadError),
    /// A write failed: the open txg must be abandoned.
    Write(WriteError),
}

/// What is wrong with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// The dataset is not encrypted.
    NotEncrypted,
    /// Keys are loaded at the encryption root, which is this one.
    NotRoot(String),
    /// Wrong key or passphrase.
    Wrong,
    /// It is not loaded.
    NotLoaded(String),
    /// It is loaded already.
    Loaded,
    /// The key given has the wrong length or form for the dataset's keyformat.
    Form(String),
}

/// Results of this crate.
pub type Result<T, E = DslError> = std::result::Result<T, E>;

impl From<ReadError> for DslError {
    fn from(e: ReadError) -> Self {
        Self::Read(e)
    }
}
impl From<WriteError> for DslError {
    fn from(e: WriteError) -> Self {
        match e {
            WriteError::NoSpace => Self::NoSpace,
            WriteError::Quota => Self::Quota,
            WriteError::Read(e) => Self::Read(e),
            e => Self::Write(e),
        }
    }
}
impl From<Corrupt> for DslError {
    fn from(e: Corrupt) -> Self {
        Self::Read(ReadError::Corrupt(e))
    }
}

impl fmt::Display for DslError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(why) if why.is_empty() => write!(f, "dataset is busy"),
            Self::Name(why)
            | Self::Invalid(why)
            | Self::Unsupported(why)
            | Self::Busy(why)
            | Self::OutsideRoot(why) => {
                write!(f, "{why}")
            }
            Self::NotFound(what) => write!(f, "{what} does not exist"),
            Self::Exists(what) => write!(f, "{what} exists already"),
            Self::Dependents(names) => write!(f, "others depend on it: {}", names.join(", ")),
            Self::Conflict(names) => write!(f, "names that are taken: {}", names.join(", ")),
            Self::NotLatest(what) => write!(f, "{what} is not the most recent one"),
            Self::Key(k) => write!(f, "{k}"),
            Self::NoSpace => write!(f, "out of space"),
            Self::Quota => write!(f, "space quota exceeded"),
            Self::Read(e) => write!(f, "{e}"),
            Self::Write(e) => write!(f, "{e}"),
        }
    }
}
impl std::error::Error for DslError {}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEncrypted => write!(f, "the dataset is not encrypted"),
            Self::NotRoot(root) => write!(f, "the key belongs to the encryption root {root}"),
            Self::Wrong => write!(f, "incorrect key provided"),
            Self::NotLoaded(name) => write!(f, "encryption key of {name} is not loaded"),
            Self::Loaded => write!(f, "key already loaded"),
            Self::Form(why) => write!(f, "{why}"),
        }
    }
}
