//! Why a pool could not be opened, created or committed, split by what one can do.

use icecore_dmu::{ReadError, WriteError};
use icecore_dsl::DslError;
use icecore_format::{Corrupt, Guid, Txg};
use icecore_vdev::VdevError;
use std::fmt;

/// Results of this crate.
pub type Result<T, E = PoolError> = std::result::Result<T, E>;

/// What can go wrong with a whole pool.
#[derive(Debug)]
#[non_exhaustive]
pub enum PoolError {
    /// No label, or no sound uberblock, was found on any device: not a pool, or not this one.
    NotAPool(String),
    /// Several pools answer to the name: name the guid.
    Ambiguous(Vec<(String, Guid)>),
    /// Devices are missing, too few to read everything.
    Devices(String),
    /// Another system has it or had it, and did not export it: force is needed.
    InUse {
        /// Its hostname, if known.
        hostname: String,
        /// Its hostid.
        hostid: u64,
        /// When it last wrote, unix seconds.
        last_access: u64,
    },
    /// It was destroyed.
    Destroyed,
    /// Features without which the pool cannot be read.
    UnsupportedRead(Vec<String>),
    /// The pool can be opened read-only, for these reasons not for writing.
    ReadOnlyOnly(Vec<String>),
    /// The on-disk version is newer or older than what we know.
    Version(u64),
    /// The vdevs do not add up, or cannot be made.
    Vdev(VdevError),
    /// Reading failed.
    Read(ReadError),
    /// Writing failed; if `txg` is given, that txg was not committed, and the pool must be opened again.
    Write {
        /// What happened.
        error: WriteError,
        /// The txg in question.
        txg: Option<Txg>,
    },
    /// A dataset operation within opening, creating or committing failed.
    Dsl(DslError),
    /// The request makes no sense.
    Invalid(String),
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPool(why) | Self::Devices(why) | Self::Invalid(why) => f.write_str(why),
            Self::Ambiguous(pools) => {
                write!(f, "more than one matching pool; use its numeric identifier:")?;
                pools.iter().try_for_each(|(name, guid)| write!(f, " {name} ({guid})"))
            }
            Self::InUse { hostname, hostid, .. } => {
                write!(f, "pool was previously in use from another system: {hostname} (hostid={hostid:x})")
            }
            Self::Destroyed => write!(f, "the pool was destroyed"),
            Self::UnsupportedRead(names) => {
                write!(f, "the pool uses features that are not supported: {}", names.join(", "))
            }
            Self::ReadOnlyOnly(reasons) => {
                write!(f, "the pool can only be opened read-only: {}", reasons.join("; "))
            }
            Self::Version(v) => write!(f, "pool version {v} is not supported"),
            Self::Vdev(e) => e.fmt(f),
            Self::Read(e) => e.fmt(f),
            Self::Write { error, txg: Some(txg) } => write!(f, "txg {txg} was not committed: {error}"),
            Self::Write { error, txg: None } => error.fmt(f),
            Self::Dsl(e) => e.fmt(f),
        }
    }
}
impl std::error::Error for PoolError {}

impl From<ReadError> for PoolError {
    fn from(e: ReadError) -> Self {
        Self::Read(e)
    }
}
impl From<Corrupt> for PoolError {
    fn from(e: Corrupt) -> Self {
        Self::Read(ReadError::Corrupt(e))
    }
}
impl From<WriteError> for PoolError {
    fn from(error: WriteError) -> Self {
        Self::Write { error, txg: None }
    }
}
impl From<DslError> for PoolError {
    fn from(e: DslError) -> Self {
        Self::Dsl(e)
    }
}
impl From<VdevError> for PoolError {
    fn from(e: VdevError) -> Self {
        Self::Vdev(e)
    }
}
