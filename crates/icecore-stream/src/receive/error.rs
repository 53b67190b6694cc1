//! Why a receive was refused or failed. Every variant carries the facts of both sides; the words users see
//! are the command line's.

use super::keydata::KeyRefusal;
use super::rules::Refusal;
use icecore_dsl::DslError;
use icecore_format::stream::StreamError;
use std::fmt;

/// Why a receive was refused or failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReceiveError {
    /// What is to be replaced is in use, and cannot be set aside: why.
    InUse(String),
    /// The stream cannot be read, is cut, or has a wrong checksum.
    Stream(StreamError),
    /// A record says what it must not. Nothing of it was applied.
    Record {
        /// Number of the record in the stream, from 0.
        number: u64,
        /// Byte offset of the record.
        offset: u64,
        /// What is wrong.
        refusal: Refusal,
    },
    /// The key a raw stream carries is not acceptable.
    Key(KeyRefusal),
    /// Something else about BEGIN or its list makes no sense.
    BadStream(String),
    /// Feature bits of the stream that nobody here knows.
    UnknownFeatures(u64),
    /// Deduplicated streams have to be converted with `zstream redup`.
    Deduplicated,
    /// The pool lacks a feature that the stream needs.
    PoolFeature(&'static str),
    /// A raw stream of a sender too old to flag spill blocks.
    SpillFlagMissing,
    /// A name that no dataset or snapshot can have.
    Name(String),
    /// The dataset exists, and the stream would have to replace it (only with `-F`).
    Exists(String),
    /// The snapshot exists with another guid.
    SnapshotExists(String),
    /// The dataset to be replaced has snapshots.
    HasSnapshots {
        /// The dataset.
        dataset: String,
        /// One of them.
        snapshot: String,
    },
    /// The dataset to be replaced is a clone.
    IsClone(String),
    /// A volume cannot take the place of a root dataset or of one with children; nothing can be below one.
    WrongParent(String),
    /// `-F` cannot replace an encrypted dataset, nor put an encrypted one in the place of another.
    ForceOverEncrypted(String),
    /// The dataset an incremental stream is for does not exist.
    NoDestination(String),
    /// The parent of the dataset to be made does not exist.
    NoParent(String),
    /// No snapshot of the dataset has the guid the stream builds on.
    NoIncrementalBase {
        /// The dataset.
        dataset: String,
        /// The guid wanted.
        want: u64,
        /// The snapshots there are: name and guid.
        have: Vec<(String, u64)>,
    },
    /// The dataset changed after the snapshot the stream builds on, or has later snapshots.
    Modified {
        /// The dataset.
        dataset: String,
        /// The snapshot the stream builds on.
        since: String,
        /// Later snapshots; empty if only the live dataset changed.
        newer: Vec<String>,
    },
    /// A receive was interrupted here and can be resumed or aborted.
    PartialState(String),
    /// A raw stream cannot build on a dataset that is not encrypted.
    RawOverPlain(String),
    /// A stream that is not raw would break the line of IV sets: no raw stream could follow.
    IvsetDiverges {
        /// The snapshot it builds on, received raw.
        since: String,
    },
    /// One of the two sides does not know its IV set.
    IvsetMissing {
        /// What the stream says; 0 for nothing.
        stream: u64,
        /// What the local snapshot says; 0 for nothing.
        local: u64,
    },
    /// The IV sets differ: the snapshot is not the one that was sent.
    IvsetMismatch {
        /// What the stream says.
        stream: u64,
        /// What the local snapshot says.
        local: u64,
    },
    /// The stream's key is not that of the dataset.
    KeyMismatch {
        /// The stream's key guid.
        stream: u64,
        /// The dataset's key guid.
        local: u64,
    },
    /// A stream that is not raw, for a dataset whose key is not loaded.
    KeyNotLoaded(String),
    /// Embedded blocks cannot go into an encrypted dataset: send without `-e`.
    EmbeddedIntoEncrypted(String),
    /// The dataset was received with large blocks, the stream has none: send with `-L`.
    LargeBlockMismatch(String),
    /// The clone's origin is not here.
    NoOrigin {
        /// The guid wanted.
        want: u64,
    },
    /// Several snapshots have the origin's guid: name one.
    AmbiguousOrigin {
        /// The guid wanted.
        want: u64,
        /// The snapshots that have it.
        found: Vec<String>,
    },
    /// The snapshot named as origin is not the one the stream builds on.
    OriginMismatch {
        /// The guid wanted.
        want: u64,
        /// The guid of the snapshot named.
        have: u64,
    },
    /// A full stream can only be received as a clone if it says what is not in it.
    NoFreeRecords,
    /// The redaction of the stream does not fit that of the snapshot it builds on.
    RedactionMismatch,
    /// Nothing to resume, or another receive was interrupted here.
    NotResumable(String),
    /// Resuming would replace an existing dataset: only with `-F`.
    ResumeExists(String),
    /// The stream resumes elsewhere than where the last attempt ended.
    ResumePoint {
        /// Object and offset of the stream.
        stream: (u64, u64),
        /// Object and offset stored.
        stored: (u64, u64),
    },
    /// No partially received state to abort.
    NothingToAbort(String),
    /// A property that the user set or left out cannot be set or left out, or not to that value.
    Property(String),
    /// Not done by us.
    Unsupported(String),
    /// The DSL refused or failed.
    Dsl(DslError),
    /// A write failed; the open txg was abandoned.
    Write(icecore_dmu::WriteError),
    /// The commit failed.
    Commit(String),
}

impl ReceiveError {
    /// Whether the stream ended or broke in transit, so that a new attempt may succeed.
    #[must_use]
    pub fn is_transport(&self) -> bool {
        use icecore_format::stream::StreamErrorKind as K;
        let Self::Stream(e) = self else { return false };
        matches!(e.kind, K::Io(_) | K::Truncated { .. } | K::Checksum { .. })
    }
}

impl From<StreamError> for ReceiveError {
    fn from(e: StreamError) -> Self {
        Self::Stream(e)
    }
}
impl From<DslError> for ReceiveError {
    fn from(e: DslError) -> Self {
        Self::Dsl(e)
    }
}
impl From<KeyRefusal> for ReceiveError {
    fn from(e: KeyRefusal) -> Self {
        Self::Key(e)
    }
}
impl From<icecore_dmu::WriteError> for ReceiveError {
    fn from(e: icecore_dmu::WriteError) -> Self {
        Self::Write(e)
    }
}
impl From<icecore_dmu::ReadError> for ReceiveError {
    fn from(e: icecore_dmu::ReadError) -> Self {
        Self::Write(e.into())
    }
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(e) => write!(f, "{e}"),
            Self::Record { number, offset, refusal } => {
                write!(f, "stream record {number} at byte {offset}: {refusal}")
            }
            Self::Key(k) => write!(f, "{k}"),
            Self::BadStream(why) | Self::Property(why) | Self::Unsupported(why) | Self::Commit(why) => {
                write!(f, "{why}")
            }
            Self::UnknownFeatures(bits) => {
                write!(f, "stream has unsupported features, feature flags = {bits:x}")
            }
            Self::Deduplicated => {
                write!(f, "deduplicated send streams are no longer supported; use \"zstream redup\"")
            }
            Self::PoolFeature(name) => {
                write!(f, "pool must be upgraded to receive this stream (feature {name})")
            }
            Self::SpillFlagMissing => write!(f, "Spill block flag missing for raw send"),
            Self::Name(name) => write!(f, "invalid name '{name}'"),
            Self::Exists(name) => write!(f, "destination '{name}' exists\nmust specify -F to overwrite it"),
            Self::SnapshotExists(_) => write!(f, "destination already exists"),
            Self::HasSnapshots { snapshot, .. } => {
                write!(f, "destination has snapshots (eg. {snapshot})\nmust destroy them to overwrite it")
            }
            Self::IsClone(name) => {
                write!(f, "destination '{name}' is a clone\nmust destroy it to overwrite it")
            }
            Self::WrongParent(name) => write!(f, "parent '{name}' is not a filesystem"),
            Self::ForceOverEncrypted(_) => write!(
                f,
                "zfs receive -F cannot be used to destroy an encrypted filesystem or overwrite an unencrypted one with an encrypted one"
            ),
            Self::NoDestination(name) | Self::NoParent(name) => {
                write!(f, "destination '{name}' does not exist")
            }
            Self::NoIncrementalBase { dataset, .. } => {
                write!(f, "most recent snapshot of {dataset} does not\nmatch incremental source")
            }
            Self::Modified { dataset, .. } => {
                write!(f, "destination {dataset} has been modified\nsince most recent snapshot")
            }
            Self::PartialState(name) => {
                write!(f, "destination {name} contains partially-complete state from \"zfs receive -s\".")
            }
            Self::RawOverPlain(_) => {
                write!(f, "cannot perform raw receive on top of existing unencrypted dataset")
            }
            Self::IvsetDiverges { since } => write!(
                f,
                "'{since}' was received as a raw stream, but this incremental is not raw; no later raw incremental could follow it"
            ),
            Self::IvsetMissing { .. } => write!(f, "IV set guid missing"),
            Self::IvsetMismatch { .. } => write!(f, "IV set guid mismatch"),
            Self::InUse(why) => write!(f, "{why}"),
            Self::KeyMismatch { .. } => write!(f, "encryption key does not match existing key"),
            Self::KeyNotLoaded(_) => write!(f, "inherited key must be loaded"),
            Self::EmbeddedIntoEncrypted(_) => {
                write!(f, "incompatible embedded data stream feature with encrypted receive.")
            }
            Self::LargeBlockMismatch(_) => {
                write!(f, "incremental send stream requires -L (--large-block), to match previous receive.")
            }
            Self::NoOrigin { want } => write!(f, "local origin for clone does not exist (guid {want:#x})"),
            Self::AmbiguousOrigin { want, found } => {
                write!(f, "several snapshots have the origin's guid {want:#x}: {}", found.join(", "))
            }
            Self::OriginMismatch { want, have } => {
                write!(f, "the origin has guid {have:#x}, the stream builds on {want:#x}")
            }
            Self::NoFreeRecords => write!(f, "this full stream cannot be received as a clone"),
            Self::RedactionMismatch => write!(f, "the stream is redacted differently from its source"),
            Self::NotResumable(name) => write!(f, "'{name}' has no receive that this stream resumes"),
            Self::ResumeExists(_) => write!(f, "Resuming recv on existing dataset without force"),
            Self::ResumePoint { stream, stored } => write!(
                f,
                "the stream resumes at object {} offset {}, the receive stopped at object {} offset {}",
                stream.0, stream.1, stored.0, stored.1
            ),
            Self::NothingToAbort(name) => {
                write!(f, "'{name}' does not have any resumable receive state to abort")
            }
            Self::Dsl(e) => write!(f, "{e}"),
            Self::Write(e) => write!(f, "{e}"),
        }
    }
}
impl std::error::Error for ReceiveError {}
