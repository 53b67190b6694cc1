//! What can go wrong between a DVA and its devices, in the terms a caller can act on.

use std::fmt;

use icecore_env::DeviceError;
use icecore_format::{Corrupt, Guid};

use crate::tree::BadCopy;

/// Why a vdev operation failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum VdevError {
    /// One device failed.
    Device(DeviceError),
    /// No copy passed the check: which were tried, and what was wrong with each.
    NoGoodCopy(Vec<BadCopy>),
    /// Some children did not take a write or flush. `done` leaves did.
    Partial {
        /// Leaves that took it.
        done: usize,
        /// Leaves that did not.
        failed: Vec<BadCopy>,
    },
    /// The address is not within the top-level vdev, or there is no such vdev: damaged pointer.
    BadAddress {
        /// Number of the top-level vdev.
        vdev: u64,
        /// Offset within it.
        offset: u64,
        /// Bytes wanted.
        len: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A kind of vdev this version cannot read or write.
    Unsupported {
        /// Its kind.
        kind: String,
        /// Its guid.
        guid: Guid,
    },
    /// The configuration makes no sense.
    Corrupt(Corrupt),
    /// Too many devices of a top-level vdev are missing.
    Missing {
        /// The top-level vdev, as `zpool status` names it.
        name: String,
        /// Its guid.
        guid: Guid,
        /// Children of it that are there.
        here: usize,
        /// Children that must be there.
        needed: usize,
        /// Children it has.
        of: usize,
        /// The absent leaves: guid, last known path, and why it is not used.
        leaves: Vec<(Guid, String, String)>,
    },
    /// The device is smaller than a vdev must be, or than the configuration says.
    TooSmall {
        /// The device.
        device: String,
        /// What it has.
        size: u64,
        /// What it would need.
        needed: u64,
    },
    /// The device holds something; force is needed to overwrite it.
    InUse {
        /// The device.
        device: String,
        /// What it holds, in words.
        holds: String,
    },
    /// A label does not fit its 112 KiB.
    LabelTooLarge {
        /// Bytes of the packed configuration.
        size: usize,
    },
    /// A requested layout cannot be made.
    BadLayout(String),
}

impl fmt::Display for VdevError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(e) => e.fmt(f),
            Self::NoGoodCopy(bad) => {
                f.write_str("no good copy")?;
                bad.iter().try_for_each(|b| write!(f, "; {b}"))
            }
            Self::Partial { done, failed } => {
                write!(f, "done on {done} devices, failed on {}", failed.len())?;
                failed.iter().try_for_each(|b| write!(f, "; {b}"))
            }
            Self::BadAddress { vdev, offset, len, why } => {
                write!(f, "no such address: vdev {vdev}, offset {offset:#x}, {len} bytes: {why}")
            }
            Self::Unsupported { kind, guid } => write!(f, "vdev kind «{kind}» ({guid}) is not supported"),
            Self::Corrupt(c) => c.fmt(f),
            Self::Missing { name, guid, here, needed, of, leaves } => {
                write!(
                    f,
                    "vdev {name} (guid {guid}) cannot be read: {needed} of its {of} devices are needed, "
                )?;
                write!(f, "{here} are here")?;
                let mut before = "; missing: ";
                leaves.iter().try_for_each(|(guid, path, why)| {
                    write!(f, "{before}{path} (guid {guid}, {why})")?;
                    before = ", ";
                    Ok(())
                })
            }
            Self::TooSmall { device, size, needed } => {
                write!(f, "{device} is too small: {size} bytes, {needed} needed")
            }
            Self::InUse { device, holds } => write!(f, "{device} {holds}"),
            Self::LabelTooLarge { size } => write!(f, "the label would take {size} bytes"),
            Self::BadLayout(why) => f.write_str(why),
        }
    }
}
impl std::error::Error for VdevError {}

impl From<DeviceError> for VdevError {
    fn from(e: DeviceError) -> Self {
        Self::Device(e)
    }
}
impl From<Corrupt> for VdevError {
    fn from(e: Corrupt) -> Self {
        Self::Corrupt(e)
    }
}
