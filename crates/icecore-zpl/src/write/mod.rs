//! Changing the files of a head: names, contents and attributes, as OpenZFS stores them (zfs_vnops.c, zfs_dir.c,
//! zfs_znode_os.c, sa.c).
//!
//! Invariants:
//! 1. Everything is asked before anything is changed: what a user can get wrong (names, kinds, what exists) is an error
//!    that leaves the objset as it was. After [`ZplError::Write`] the open txg must be abandoned.
//! 2. Nothing is committed here. Between two calls the tree is whole: every name leads to a file, every file has as many
//!    names as it counts, a directory's size is its entries and 2, its links are its directories and 2.
//! 3. Whole blocks are written when they come, the rest of a file's block stays in memory until the sync.
//! 4. Space by owner is the objset's business ([`icecore_dmu::objset::accounts`]): it needs the attributes in the order in
//!    which OpenZFS has them, and is kept up where OpenZFS has begun it, which it does when it mounts one of ours.

mod data;
mod names;
mod node;
mod options;
mod orphans;
mod posix_acl;
mod quota;
mod remove;
mod replay;
mod volume;
mod xattr;

use crate::error::{Result, ZplError};
use crate::filesystem::{Files, Shape, read_master};
use crate::sa::{Attr, Registry};
use icecore_dmu::{BlockStore, Objset};
use icecore_format::ObjectId;
use icecore_format::objset::ObjsetType;

pub use names::{Attributes, Stat};
pub use node::{Change, New, What};
pub use options::{Options, XattrForm};
pub use posix_acl::{ACCESS as POSIX_ACL_ACCESS, DEFAULT as POSIX_ACL_DEFAULT};
pub use replay::Replay;
pub use volume::VolumeWriter;
pub use xattr::XattrFlags;

/// Longest name (`ZAP_MAXNAMELEN` and the systems' own limit).
pub const NAME_MAX: usize = 255;

/// What writing needs to know of a file system. Stays valid while only this changes it.
pub struct Writer {
    registry: Registry,
    layouts: ObjectId,
    shape: Shape,
    root: ObjectId,
    utf8_only: bool,
    record: u64,
    options: Options,
    /// New files have a project.
    projects: bool,
    queue: Option<ObjectId>,
    /// ZAPs of quotas by owner, as far as there are any.
    quotas: Vec<(&'static quota::QuotaKind, ObjectId)>,
    /// Orphans that cannot be freed.
    damaged: std::collections::BTreeSet<ObjectId>,
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
        let registry = Registry::read(os, io, sa)?;
        Ok(Self {
            projects: registry.number(Attr::Projid).is_some() && !os.phys().projectused_dnode()?.is_free(),
            registry,
            layouts: ObjectId(layouts),
            shape: Shape::of(&master)?,
            root: ObjectId(number("ROOT")),
            utf8_only: number("utf8only") != 0,
            record,
            options: Options::default(),
            quotas: quota::KINDS
                .iter()
                .map(|kind| (kind, ObjectId(number(kind.name))))
                .filter(|(_, zap)| zap.0 != 0)
                .collect(),
            queue: Some(ObjectId(number("DELETE_QUEUE"))).filter(|q| q.0 != 0),
            damaged: std::collections::BTreeSet::new(),
        })
    }

    /// The files as they are by now, for reading.
    #[must_use]
    pub fn files<'a>(&'a self, os: &'a Objset) -> Files<'a> {
        Files::over(os, &self.registry, self.shape)
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
