//! Why something could not be sent, split by what one can do about it.

use icecore_dmu::ReadError;
use icecore_dsl::DslError;
use icecore_format::{Bookmark, Corrupt};
use std::fmt;
use std::io;

/// Why a snapshot could not be sent.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendError {
    /// A block could not be read.
    Read(ReadError),
    /// The name tree could not be read, or something is not there.
    Dsl(DslError),
    /// The receiver of the bytes does not take them.
    Io(io::Error),
    /// What is to be sent does not exist.
    NoSnapshot(String),
    /// The incremental source does not exist.
    NoSource {
        /// What was to be sent.
        to: String,
        /// What is missing.
        from: String,
    },
    /// The incremental source is not in the history of what is to be sent, or not earlier.
    NotEarlier {
        /// What was to be sent.
        to: String,
        /// What it was to build on.
        from: String,
    },
    /// A block without encryption in an encrypted dataset: block cloning or the intent log of some OpenZFS
    /// releases made such blocks; they cannot be sent.
    UnencryptedBlock {
        /// Where it is.
        at: Bookmark,
    },
    /// Blocks must be sent whole (`-L` or `-w`): the dataset has large directory blocks.
    LargeMicrozap {
        /// What was to be sent.
        snapshot: String,
    },
    /// An encrypted dataset is sent with its properties only raw.
    EncryptedWithProperties {
        /// The snapshot that was asked for.
        sending: String,
        /// The encrypted dataset.
        dataset: String,
    },
    /// A dataset below lacks the snapshot and is older than it.
    MissingBelow {
        /// What was to be sent.
        sending: String,
        /// The snapshot that is missing.
        missing: String,
    },
    /// The object to go on with is not there.
    ResumeObject {
        /// What was to be sent.
        snapshot: String,
        /// The object.
        object: u64,
    },
    /// The snapshot of a resume token has been destroyed and perhaps replaced.
    ResumeGone {
        /// Its name.
        name: String,
        /// Something of that name is there, but not the same snapshot.
        replaced: bool,
    },
    /// The incremental source of a resume token is gone.
    ResumeSourceGone {
        /// Its guid.
        guid: u64,
    },
    /// Nothing of what was asked for could be sent.
    Nothing(String),
    /// An option that does not go with the others.
    Options(&'static str),
    /// A name is too long for a stream.
    Name(String),
    /// The list of snapshots and properties is too long for receivers.
    ListTooLarge,
    /// The store returned another length than the block pointer says.
    ShortRead,
    /// Something we do not send (yet).
    Unsupported(String),
}

impl From<ReadError> for SendError {
    fn from(e: ReadError) -> Self {
        Self::Read(e)
    }
}
impl From<Corrupt> for SendError {
    fn from(c: Corrupt) -> Self {
        Self::Read(ReadError::Corrupt(c))
    }
}
impl From<DslError> for SendError {
    fn from(e: DslError) -> Self {
        match e {
            DslError::Read(e) => Self::Read(e),
            e => Self::Dsl(e),
        }
    }
}
impl From<io::Error> for SendError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(e) => write!(f, "{e}"),
            Self::Dsl(e) => write!(f, "{e}"),
            Self::Io(e) => write!(f, "writing the stream: {e}"),
            Self::NoSnapshot(name) => write!(f, "{name} does not exist"),
            Self::NoSource { from, .. } => write!(f, "incremental source ({from}) does not exist"),
            Self::NotEarlier { to, from } => {
                write!(f, "incremental source ({from}) is not earlier than {to} in its history")
            }
            Self::UnencryptedBlock { at } => write!(f, "unencrypted block in an encrypted dataset: {at}"),
            Self::LargeMicrozap { snapshot } => {
                write!(f, "{snapshot} has large micro ZAP blocks: send with -L or -w")
            }
            Self::EncryptedWithProperties { sending, dataset } => write!(
                f,
                "cannot send {sending}: encrypted dataset {dataset} may not be sent with properties without the \
                 raw flag"
            ),
            Self::MissingBelow { sending, missing } => {
                write!(f, "cannot send {sending} recursively: snapshot {missing} does not exist")
            }
            Self::ResumeObject { snapshot, object } => {
                write!(f, "cannot resume send: {snapshot} has no object {object}")
            }
            Self::ResumeGone { name, replaced: true } => {
                write!(
                    f,
                    "cannot resume send: '{name}' is no longer the same snapshot used in the initial send"
                )
            }
            Self::ResumeGone { name, .. } => {
                write!(f, "cannot resume send: '{name}' used in the initial send no longer exists")
            }
            Self::ResumeSourceGone { guid } => {
                write!(f, "cannot resume send: incremental source {guid:#x} no longer exists")
            }
            Self::Nothing(why) => write!(f, "{why}"),
            Self::Options(why) => write!(f, "{why}"),
            Self::Name(name) => write!(f, "{name}: name too long"),
            Self::ListTooLarge => {
                write!(f, "the list of snapshots and properties is too large to be received")
            }
            Self::ShortRead => write!(f, "a block has another length than its pointer says"),
            Self::Unsupported(what) => write!(f, "not supported: {what}"),
        }
    }
}
impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(e) => Some(e),
            Self::Io(e) => Some(e),
            Self::Dsl(e) => Some(e),
            _ => None,
        }
    }
}
