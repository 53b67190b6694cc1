//! A window of a device seen as a device: a partition inside a disk image.

use std::sync::Arc;

use crate::device::{Device, DeviceError, What, check_range};

/// `len` bytes of another device from `start` on. Cannot reach outside its window.
pub struct SubDevice {
    parent: Arc<dyn Device>,
    start: u64,
    len: u64,
    label: String,
}

impl SubDevice {
    /// The window `start..start + len` of `parent`, named `PARENT` + `suffix`.
    pub fn new(parent: Arc<dyn Device>, start: u64, len: u64, suffix: &str) -> Result<Self, DeviceError> {
        let label = format!("{}{suffix}", parent.name());
        if start.checked_add(len).is_none_or(|end| end > parent.size()) {
            let why = format!("window {start}+{len} of {} bytes", parent.size());
            return Err(DeviceError::new(What::OutOfRange, label, why));
        }
        Ok(Self { parent, start, len, label })
    }

    /// Where the window starts in its parent.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The device it is a window of.
    #[must_use]
    pub fn parent(&self) -> &Arc<dyn Device> {
        &self.parent
    }
}

impl Device for SubDevice {
    fn size(&self) -> u64 {
        self.len
    }
    fn sector(&self) -> u32 {
        self.parent.sector()
    }
    fn physical_sector(&self) -> u32 {
        self.parent.physical_sector()
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        check_range(&self.label, self.len, offset, out.len())?;
        self.parent.read_at(self.start + offset, out)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        check_range(&self.label, self.len, offset, data.len())?;
        self.parent.write_at(self.start + offset, data)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.parent.flush()
    }
    fn name(&self) -> String {
        self.label.clone()
    }
    fn read_only(&self) -> bool {
        self.parent.read_only()
    }
    fn is_file(&self) -> bool {
        self.parent.is_file()
    }
}
