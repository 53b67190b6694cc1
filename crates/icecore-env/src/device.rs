//! A block device as the engine sees it, and what can go wrong with one.
//!
//! Invariants:
//! 1. A read or write does its whole range or fails; after a failed write the range holds anything.
//! 2. Ranges past the end fail with [`What::OutOfRange`]; nothing grows.

use std::fmt;
use std::sync::Arc;

/// One leaf device. Shared by threads; positional, so there is no cursor to fight over.
pub trait Device: Send + Sync {
    /// Bytes on it.
    fn size(&self) -> u64;
    /// Looks again how large it is: what a file or disk has grown by counts from then on.
    fn measure(&self) -> u64 {
        self.size()
    }
    /// Logical sector size in bytes: the smallest write the device does itself.
    fn sector(&self) -> u32;
    /// Physical sector size in bytes: the smallest write it does without reading first.
    fn physical_sector(&self) -> u32 {
        self.sector()
    }
    /// Fills `out` from `offset`.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), DeviceError>;
    /// Writes all of `data` at `offset`.
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError>;
    /// Makes everything written so far durable.
    fn flush(&self) -> Result<(), DeviceError>;
    /// What to call it in messages: a path, usually.
    fn name(&self) -> String;
    /// Whether writes are refused.
    fn read_only(&self) -> bool {
        false
    }
    /// Whether it is a plain file rather than a disk.
    fn is_file(&self) -> bool {
        true
    }
}

impl<D: Device + ?Sized> Device for Arc<D> {
    fn size(&self) -> u64 {
        (**self).size()
    }
    fn measure(&self) -> u64 {
        (**self).measure()
    }
    fn sector(&self) -> u32 {
        (**self).sector()
    }
    fn physical_sector(&self) -> u32 {
        (**self).physical_sector()
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        (**self).read_at(offset, out)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        (**self).write_at(offset, data)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        (**self).flush()
    }
    fn name(&self) -> String {
        (**self).name()
    }
    fn read_only(&self) -> bool {
        (**self).read_only()
    }
    fn is_file(&self) -> bool {
        (**self).is_file()
    }
}

/// What failed, in the terms a caller can act on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum What {
    /// It could not be opened: another copy may do.
    Open,
    /// A read failed: another copy may do.
    Read,
    /// A write failed: stop writing to this device.
    Write,
    /// A flush failed: nothing since the last good one is known to be durable.
    Flush,
    /// The device is no longer there.
    Gone,
    /// It was opened for reading only.
    ReadOnly,
    /// The file system below an image file is full.
    NoSpace,
    /// Somebody else holds it.
    Busy,
    /// The range is not within the device.
    OutOfRange,
    /// The caller may not.
    Denied,
}

/// A failed device operation, with its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceError {
    /// What failed.
    pub what: What,
    /// First byte of the range.
    pub offset: u64,
    /// Length of the range; 0 where there is none.
    pub len: u64,
    /// The device's name.
    pub device: String,
    /// What the system said.
    pub message: String,
}

impl DeviceError {
    /// An error without a range.
    pub fn new(what: What, device: impl Into<String>, message: impl Into<String>) -> Self {
        Self { what, offset: 0, len: 0, device: device.into(), message: message.into() }
    }
    /// The same at a range.
    #[must_use]
    pub fn at(mut self, offset: u64, len: usize) -> Self {
        self.offset = offset;
        self.len = len as u64;
        self
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = match self.what {
            What::Open => "cannot open",
            What::Read => "cannot read",
            What::Write => "cannot write",
            What::Flush => "cannot flush",
            What::Gone => "device is gone:",
            What::ReadOnly => "opened read-only:",
            What::NoSpace => "no space below",
            What::Busy => "in use:",
            What::OutOfRange => "past the end of",
            What::Denied => "not permitted:",
        };
        write!(f, "{doing} {}", self.device)?;
        if self.len > 0 {
            write!(f, " at offset {}, {} bytes", self.offset, self.len)?;
        }
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}
impl std::error::Error for DeviceError {}

/// Fails unless `offset..offset + len` lies within `size`.
pub fn check_range(device: &str, size: u64, offset: u64, len: usize) -> Result<(), DeviceError> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= size => Ok(()),
        _ => Err(DeviceError::new(What::OutOfRange, device, format!("it has {size} bytes")).at(offset, len)),
    }
}
