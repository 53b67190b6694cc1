//! What the properties of a dataset say about files that are written.

use super::Writer;
use crate::error::Result;
use icecore_dmu::BlockStore;
use icecore_dsl::{DatasetRef, Dsl, Feature};

/// Where extended attributes go (property `xattr`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrForm {
    /// Users' are refused (`off`); those of the system go into files.
    Off,
    /// Into the files of a hidden directory (`dir`).
    Dir,
    /// Into the file's own attributes, as far as there is room (`sa`, `on`).
    Sa,
}

/// Choices for what is written from now on; what is there is read in any form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Property `xattr`.
    pub xattrs: XattrForm,
    /// Property `acltype` is `posix`: directories hand on default lists, and modes and lists keep in step.
    pub posix_acls: bool,
    /// Slots of 512 bytes for the heads of new files, 1 to 32 (property `dnodesize`). More than one needs the
    /// dataset's feature `large_dnode` to be active.
    pub dnode_slots: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self { xattrs: XattrForm::Sa, posix_acls: false, dnode_slots: 1 }
    }
}

impl Options {
    /// As the properties of a head say (`xattr_changed_cb`, `acltype_changed_cb`, zfs_vfsops.c;
    /// `dnodesize_changed_cb`, dmu_objset.c).
    ///
    /// # Errors
    /// Properties that cannot be read.
    pub fn of(dsl: &Dsl, io: &dyn BlockStore, head: DatasetRef) -> Result<Self> {
        let number = |name: &str| dsl.prop_number(io, head, name);
        let xattrs = match number("xattr")? {
            0 => XattrForm::Off,
            1 => XattrForm::Dir,
            _ => XattrForm::Sa,
        };
        let dnode_slots = match number("dnodesize")? {
            0 => 1,
            // "auto" is 1 KiB.
            1 => 2,
            bytes => u8::try_from(bytes / 512).unwrap_or(1).clamp(1, 32),
        };
        Ok(Self { xattrs, posix_acls: number("acltype")? == 1, dnode_slots })
    }
}

impl Writer {
    /// For the head `head` as its properties say; features that its files may come to need become active with the next
    /// sync.
    ///
    /// # Errors
    /// As [`Writer::open`]; properties that cannot be read.
    pub fn of_head(dsl: &mut Dsl, io: &dyn BlockStore, head: DatasetRef) -> Result<Self> {
        let mut record = dsl.prop_number(io, head, "recordsize")?;
        if let Some(f) = icecore_dsl::block_size_feature(record) {
            if dsl.feature_enabled(io, f)? {
                dsl.activate_feature_later(head.obj, f);
            } else {
                record = icecore_format::units::OLD_MAX_BLOCK;
            }
        }
        let mut options = Options::of(dsl, io, head)?;
        if options.dnode_slots > 1 {
            if dsl.feature_enabled(io, Feature::LARGE_DNODE)? {
                dsl.activate_feature_later(head.obj, Feature::LARGE_DNODE);
            } else {
                options.dnode_slots = 1;
            }
        }
        let os = dsl.open_dataset(io, head.obj)?;
        let mut writer = Self::open(io, os, record)?;
        writer.options = options;
        Ok(writer)
    }
    /// Sets the choices; [`Options::default`] until then.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }
    /// The choices.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }
}
