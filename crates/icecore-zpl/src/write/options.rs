//! What the properties of a dataset say about files that are written.

use super::Writer;
use crate::error::Result;
use icecore_dmu::BlockStore;
use icecore_dsl::{DatasetRef, Dsl};

/// Where extended attributes go (property `xattr`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrForm {
    /// Users' are refused (`off`); those of the system go into files.
    Off,
    /// Into the files of a hidden directory (`dir`, `on`).
    Dir,
    /// Into the file's own attributes, as far as there is room (`sa`).
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
