//! A real device: an image file or a block device.
//!
//! Invariants:
//! 1. A device open for writing is held exclusively: files by an advisory lock, block devices by `O_EXCL`
//!    (which the kernel also refuses while the device is mounted or in use by md, dm or ZFS).
//! 2. The size is taken once, at open; a file that shrinks below us gives read errors, never a panic.
//! 3. A flush that failed is never reported as done later: the error latches, because the kernel may drop
//!    dirty pages after reporting a failure once.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::device::{Device, DeviceError, What, check_range};

/// How a device is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reading, beside other readers.
    ReadOnly,
    /// Reading without any lock, to look at what others hold: probing.
    Probe,
    /// Reading and writing, alone.
    Exclusive,
}

/// An image file or block device.
pub struct FileDevice {
    file: File,
    path: PathBuf,
    size: AtomicU64,
    sector: u32,
    physical_sector: u32,
    access: Access,
    block: bool,
    flush_failed: AtomicBool,
}

impl FileDevice {
    /// Opens `path`.
    pub fn open(path: impl AsRef<Path>, access: Access) -> Result<Self, DeviceError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let fail = |e: &io::Error| DeviceError::new(kind_of(e, What::Open), name.clone(), e.to_string());
        // A fifo or a terminal would block in open: look before.
        let kind = std::fs::metadata(path).map_err(|e| fail(&e))?.file_type();
        let block = kind.is_block_device();
        if !block && !kind.is_file() {
            return Err(DeviceError::new(What::Open, name, "neither a regular file nor a block device"));
        }
        let mut flags = OFlags::CLOEXEC;
        if block && access == Access::Exclusive {
            flags |= OFlags::EXCL;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(access == Access::Exclusive)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .map_err(|e| fail(&e))?;
        if !block {
            lock(&file, access, &name)?;
        }
        #[cfg(feature = "power-cuts")]
        if access == Access::Exclusive {
            crate::power::opened(&file).map_err(|e| fail(&e))?;
        }
        let size = file.seek(SeekFrom::End(0)).map_err(|e| fail(&e))?;
        let (sector, physical_sector) = if block { sectors_of(&file) } else { (512, 512) };
        let (size, flush_failed) = (AtomicU64::new(size), AtomicBool::new(false));
        Ok(Self { file, path: path.to_owned(), size, sector, physical_sector, access, block, flush_failed })
    }

    /// Makes a new sparse file of `size` bytes and opens it exclusively; fails if it exists.
    pub fn create(path: impl AsRef<Path>, size: u64) -> Result<Self, DeviceError> {
        let path = path.as_ref();
        let made = OpenOptions::new().write(true).create_new(true).open(path).and_then(|f| f.set_len(size));
        made.map_err(|e| {
            DeviceError::new(kind_of(&e, What::Open), path.display().to_string(), e.to_string())
        })?;
        Self::open(path, Access::Exclusive)
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a block device.
    #[must_use]
    pub fn is_block(&self) -> bool {
        self.block
    }

    fn fail(&self, e: &io::Error, doing: What, offset: u64, len: usize) -> DeviceError {
        DeviceError::new(kind_of(e, doing), self.name(), e.to_string()).at(offset, len)
    }
}

impl Device for FileDevice {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }
    fn measure(&self) -> u64 {
        // What it has lost is found when it is read.
        let now = (&self.file).seek(SeekFrom::End(0)).unwrap_or(0);
        self.size.fetch_max(now, Ordering::AcqRel).max(now)
    }
    fn sector(&self) -> u32 {
        self.sector
    }
    fn physical_sector(&self) -> u32 {
        self.physical_sector
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        check_range(&self.name(), self.size(), offset, out.len())?;
        self.file.read_exact_at(out, offset).map_err(|e| self.fail(&e, What::Read, offset, out.len()))
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        if self.read_only() {
            return Err(DeviceError::new(What::ReadOnly, self.name(), "").at(offset, data.len()));
        }
        check_range(&self.name(), self.size(), offset, data.len())?;
        let failed = |e: io::Error| self.fail(&e, What::Write, offset, data.len());
        #[cfg(feature = "power-cuts")]
        let _turn = crate::power::write(&self.file, offset, data).map_err(failed)?;
        self.file.write_all_at(data, offset).map_err(failed)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        if self.flush_failed.load(Ordering::Acquire) {
            return Err(DeviceError::new(What::Flush, self.name(), "an earlier flush failed: reopen"));
        }
        if self.read_only() {
            return Ok(());
        }
        let failed = |e: io::Error| {
            self.flush_failed.store(true, Ordering::Release);
            self.fail(&e, What::Flush, 0, 0)
        };
        #[cfg(feature = "power-cuts")]
        let turn = crate::power::flush();
        self.file.sync_data().map_err(failed)?;
        #[cfg(feature = "power-cuts")]
        turn.map_or(Ok(()), |turn| turn.flushed(&self.file)).map_err(failed)?;
        Ok(())
    }
    fn name(&self) -> String {
        self.path.display().to_string()
    }
    fn read_only(&self) -> bool {
        self.access != Access::Exclusive
    }
    fn is_file(&self) -> bool {
        !self.block
    }
}

fn lock(file: &File, access: Access, name: &str) -> Result<(), DeviceError> {
    let locked = match access {
        Access::Probe => return Ok(()),
        Access::ReadOnly => file.try_lock_shared(),
        Access::Exclusive => file.try_lock(),
    };
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(DeviceError::new(What::Busy, name, "another process holds this image"))
        }
        // File systems without locks (some FUSE and network ones) must not make images unusable.
        Err(TryLockError::Error(e)) if matches!(e.kind(), ErrorKind::Unsupported) => Ok(()),
        Err(TryLockError::Error(e)) if e.raw_os_error() == Some(Errno::NOLCK.raw_os_error()) => Ok(()),
        Err(TryLockError::Error(e)) => Err(DeviceError::new(What::Open, name, e.to_string())),
    }
}

fn sectors_of(file: &File) -> (u32, u32) {
    let sane = |n: u32| if n.is_power_of_two() && (512..=1 << 16).contains(&n) { Some(n) } else { None };
    let logical = rustix::fs::ioctl_blksszget(file).ok().and_then(sane).unwrap_or(512);
    let physical = rustix::fs::ioctl_blkpbszget(file).ok().and_then(sane).unwrap_or(logical);
    (logical, physical.max(logical))
}

fn kind_of(e: &io::Error, doing: What) -> What {
    match e.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NXIO | Errno::NODEV | Errno::NOMEDIUM) => What::Gone,
        Some(Errno::NOSPC | Errno::DQUOT) => What::NoSpace,
        Some(Errno::BUSY) => What::Busy,
        Some(Errno::ROFS) => What::ReadOnly,
        Some(Errno::ACCESS | Errno::PERM) => What::Denied,
        _ => doing,
    }
}

/// Where a block device, or a partition of it, is mounted according to `/proc/self/mountinfo`; for refusing
/// to make a pool on it. `None` for regular files and where the table cannot be read.
#[must_use]
pub fn mounted_at(path: &Path) -> Option<PathBuf> {
    let meta = std::fs::metadata(path).ok()?;
    if !meta.file_type().is_block_device() {
        return None;
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = device_number(meta.rdev());
    let mut numbers = partitions_of(&own);
    numbers.push(own);
    mount_point_in(&table, &numbers)
}

fn device_number(rdev: u64) -> String {
    format!("{}:{}", rustix::fs::major(rdev), rustix::fs::minor(rdev))
}

/// The device numbers of a disk's partitions, by sysfs.
fn partitions_of(number: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(format!("/sys/dev/block/{number}")) else { return Vec::new() };
    let inner = entries.flatten().filter(|e| e.path().join("partition").exists());
    let numbers = inner.filter_map(|e| std::fs::read_to_string(e.path().join("dev")).ok());
    let mut numbers: Vec<String> = numbers.map(|n| n.trim().to_owned()).collect();
    numbers.sort();
    numbers
}

fn mount_point_in(table: &str, numbers: &[String]) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let mut words = line.split(' ');
        let number = words.nth(2)?;
        let point = words.nth(1)?;
        numbers.iter().any(|n| n == number).then(|| PathBuf::from(point.replace("\\040", " ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_are_matched_by_device_number() {
        let table = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 8:17 / /mnt/a\\040b rw - vfat /dev/sdb1 rw\n";
        assert_eq!(mount_point_in(table, &["8:17".into()]), Some("/mnt/a b".into()));
        assert_eq!(mount_point_in(table, &["8:2".into()]), None);
        assert_eq!(mount_point_in("short\n", &["8:2".into()]), None);
    }

    #[test]
    fn writers_are_alone_and_readers_share() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let dev = FileDevice::create(&path, 1 << 20).unwrap();
        dev.write_at(4096, b"hello").unwrap();
        dev.flush().unwrap();
        assert_eq!(FileDevice::open(&path, Access::ReadOnly).err().unwrap().what, What::Busy);
        assert_eq!(FileDevice::open(&path, Access::Exclusive).err().unwrap().what, What::Busy);
        assert!(FileDevice::open(&path, Access::Probe).is_ok());
        drop(dev);
        let one = FileDevice::open(&path, Access::ReadOnly).unwrap();
        let two = FileDevice::open(&path, Access::ReadOnly).unwrap();
        let mut b = [0; 5];
        two.read_at(4096, &mut b).unwrap();
        assert_eq!(&b, b"hello");
        assert_eq!(one.write_at(0, b"x").err().unwrap().what, What::ReadOnly);
        assert_eq!(FileDevice::open(&path, Access::Exclusive).err().unwrap().what, What::Busy);
    }

    #[test]
    fn ranges_past_the_end_and_shrunk_files_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let dev = FileDevice::create(&path, 8192).unwrap();
        assert_eq!(dev.read_at(8190, &mut [0; 4]).err().unwrap().what, What::OutOfRange);
        assert_eq!(dev.write_at(u64::MAX, &[0; 4]).err().unwrap().what, What::OutOfRange);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
        assert_eq!(dev.read_at(4096, &mut [0; 4]).err().unwrap().what, What::Read);
        assert_eq!(FileDevice::open(dir.path(), Access::ReadOnly).err().unwrap().what, What::Open);
    }

    #[test]
    fn a_full_device_says_so() {
        if let Ok(dev) = OpenOptions::new().write(true).open("/dev/full") {
            let e = dev.write_at(&[1], 0).err().unwrap();
            assert_eq!(kind_of(&e, What::Write), What::NoSpace);
        }
    }
}
