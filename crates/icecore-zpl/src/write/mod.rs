//! Changing the files of a head: names, contents and attributes, as OpenZFS stores them (zfs_vnops.c, zfs_dir.c,
//! zfs_znode_os.c, sa.c).
//!
//! Invariants:
//! 1. Everything is asked before anything is changed: what a user can get wrong (names, kinds, what exists) is an error
//!    that leaves the objset as it was. After [`ZplError::Write`] the open txg must be abandoned.
//! 2. Nothing is committed here. Between two calls the tree is whole: every name leads to a file, every file has as many
//!    names as it counts, a directory's size is its entries and 2, its links are its directories and 2.
//! 3. Whole blocks are written when they come, the rest of a file's block stays in memory until the sync.
//! 4. Space is not accounted by user here, so a file system whose accounting has begun is refused ([`Writer::open`]):
//!    OpenZFS begins it when it mounts one of ours.

mod data;
mod names;
mod node;
mod remove;

use crate::error::{Result, ZplError};
use crate::filesystem::read_master;
use crate::sa::Registry;
use icecore_dmu::{BlockStore, Objset};
use icecore_format::ObjectId;
use icecore_format::objset::{
    FLAG_PROJECTQUOTA_COMPLETE, FLAG_USERACCOUNTING_COMPLETE, FLAG_USEROBJACCOUNTING_COMPLETE, ObjsetType,
};

pub use names::Stat;
pub use node::{Change, New, What};

/// Longest name (`ZAP_MAXNAMELEN` and the systems' own limit).
pub const NAME_MAX: usize = 255;

/// What writing needs to know of a file system. Stays valid while only this changes it.
pub struct Writer {
    registry: Registry,
    layouts: ObjectId,
    root: ObjectId,
    utf8_only: bool,
    record: u64,
}

impl Writer {
    /// For the file system in `os`, whose files get blocks of up to `record` bytes (property `recordsize`).
    pub fn open(io: &dyn BlockStore, os: &Objset, record: u64) -> Result<Self> {
        let unsupported = |why: &str| Err(ZplError::Unsupported(format!("writing to {why}")));
        if os.phys().kind() != ObjsetType::Zfs {
            return unsupported("what is no file system");
        }
        if os.is_raw() {
            return Err(ZplError::KeyNotLoaded(format!("dataset object {}", os.id())));
        }
        let counted =
            FLAG_USERACCOUNTING_COMPLETE | FLAG_USEROBJACCOUNTING_COMPLETE | FLAG_PROJECTQUOTA_COMPLETE;
        if os.phys().flags() & counted != 0 || !os.phys().userused_dnode()?.is_free() {
            return unsupported(
                "a file system whose space is accounted by user: one that OpenZFS had mounted",
            );
        }
        let master = read_master(os, io)?;
        let number = |name: &str| master.get(name).copied().unwrap_or(0);
        if number("VERSION") != 5 || number("SA_ATTRS") == 0 || number("ROOT") == 0 {
            return unsupported("a file system of an old version");
        }
        if number("normalization") != 0 || number("casesensitivity") != 0 {
            return unsupported("a file system that normalizes names or folds their case");
        }
        let sa = ObjectId(number("SA_ATTRS"));
        let layouts = icecore_dmu::zap::lookup_u64(os, io, sa, "LAYOUTS")?;
        let layouts = layouts.ok_or_else(|| ZplError::corrupt("SA master node", sa, "no LAYOUTS"))?;
        if record == 0 || !record.is_power_of_two() || record > icecore_format::units::MAX_BLOCK {
            return Err(ZplError::Unsupported(format!("records of {record} bytes")));
        }
        Ok(Self {
            registry: Registry::read(os, io, sa)?,
            layouts: ObjectId(layouts),
            root: ObjectId(number("ROOT")),
            utf8_only: number("utf8only") != 0,
            record,
        })
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> ObjectId {
        self.root
    }

    fn check_name(&self, name: &[u8]) -> Result<()> {
        let shown = || String::from_utf8_lossy(name).into_owned();
        if !crate::is_safe_name(name) || (self.utf8_only && std::str::from_utf8(name).is_err()) {
            return Err(ZplError::UnsafeName(shown()));
        }
        if name.len() > NAME_MAX {
            return Err(ZplError::NameTooLong(shown()));
        }
        Ok(())
    }
}
