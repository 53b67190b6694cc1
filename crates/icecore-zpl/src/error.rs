//! What can go wrong with files, split by what a caller can do about it.

use icecore_dmu::{ReadError, WriteError};
use icecore_dsl::DslError;
use icecore_format::{Corrupt, ObjectId};
use std::fmt;

/// Why a file or dataset could not be read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ZplError {
    /// No such file; the path as far as it was followed.
    NotFound(String),
    /// Something on the way is no directory.
    NotDirectory(String),
    /// A directory where a file was wanted.
    IsDirectory(String),
    /// Neither a regular file nor a volume: it has no contents to read.
    NoContents(String),
    /// Too many symbolic links on the way.
    TooManyLinks(String),
    /// A symbolic link that is absolute or climbs above the dataset's root.
    LeadsOut(String),
    /// A name no file can have: empty, `.`, `..`, or with `/` or NUL in it.
    UnsafeName(String),
    /// A name of more bytes than a directory takes.
    NameTooLong(String),
    /// Something of that name is there already.
    Exists(String),
    /// No such extended attribute; its name.
    NoAttribute(String),
    /// A directory with names in it.
    NotEmpty(String),
    /// A directory into itself, a name for a directory besides its own.
    NotPossible(String),
    /// A write failed: the open txg must be abandoned.
    Write(WriteError),
    /// The dataset's key is not loaded; its name, or its number where the name is not known.
    KeyNotLoaded(String),
    /// More than we are willing to hold in memory.
    TooLarge(String),
    /// A version or feature of the file system that we do not read.
    Unsupported(String),
    /// Verified bytes that make no sense.
    Corrupt(Corrupt),
    /// A block or object could not be read.
    Read(ReadError),
    /// Datasets, names and keys.
    Dsl(Box<DslError>),
}

/// Results of this crate.
pub type Result<T, E = ZplError> = std::result::Result<T, E>;

impl ZplError {
    /// Whether something on disk could not be read or makes no sense, so that what is beside it may still be had.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt(_) | Self::Read(_))
    }

    /// Damage in object `id`.
    pub(crate) fn corrupt(what: &'static str, id: ObjectId, why: impl fmt::Display) -> Self {
        Self::Corrupt(Corrupt::new(what, format!("object {id}: {why}")))
    }
}

impl From<Corrupt> for ZplError {
    fn from(c: Corrupt) -> Self {
        Self::Corrupt(c)
    }
}
impl From<ReadError> for ZplError {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::KeyUnavailable { objset } => Self::KeyNotLoaded(format!("dataset object {objset}")),
            ReadError::Corrupt(c) => Self::Corrupt(c),
            ReadError::Unsupported(why) => Self::Unsupported(why),
            e => Self::Read(e),
        }
    }
}
impl From<WriteError> for ZplError {
    fn from(e: WriteError) -> Self {
        Self::Write(e)
    }
}
impl From<DslError> for ZplError {
    fn from(e: DslError) -> Self {
        match e {
            DslError::Read(e) => e.into(),
            e => Self::Dsl(Box::new(e)),
        }
    }
}

impl fmt::Display for ZplError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(path) => write!(f, "{path}: no such file or directory"),
            Self::NotDirectory(path) => write!(f, "{path}: not a directory"),
            Self::IsDirectory(path) => write!(f, "{path}: is a directory"),
            Self::NoContents(path) => write!(f, "{path}: neither a regular file nor a volume"),
            Self::TooManyLinks(path) => write!(f, "{path}: too many levels of symbolic links"),
            Self::LeadsOut(link) => write!(f, "{link}: the symbolic link leads out of the dataset"),
            Self::UnsafeName(name) => write!(f, "{name}: not a name a file can have"),
            Self::NameTooLong(name) => write!(f, "{name}: file name too long"),
            Self::Exists(path) => write!(f, "{path}: file exists"),
            Self::NoAttribute(name) => write!(f, "{name}: no such attribute"),
            Self::NotEmpty(path) => write!(f, "{path}: directory not empty"),
            Self::NotPossible(why) => write!(f, "{why}"),
            Self::Write(WriteError::Quota) => write!(f, "disk quota exceeded"),
            Self::Write(e) => write!(f, "{e}"),
            Self::KeyNotLoaded(name) => write!(f, "{name}: the encryption key is not loaded"),
            Self::TooLarge(why) => write!(f, "{why}"),
            Self::Unsupported(why) => write!(f, "not supported: {why}"),
            Self::Corrupt(c) => write!(f, "{c}"),
            Self::Read(e) => write!(f, "{e}"),
            Self::Dsl(e) => write!(f, "{e}"),
        }
    }
}
impl std::error::Error for ZplError {}
