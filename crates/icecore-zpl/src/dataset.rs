//! From a dataset or snapshot of a pool to its files or its volume.

use crate::content::Content;
use crate::error::{Result, ZplError};
use crate::filesystem::Filesystem;
use icecore_dmu::{BlockStore, Objset, Want, zap};
use icecore_dsl::volume::{CONTENTS, PROPS};
use icecore_dsl::{DatasetRef, Dsl, DslError};
use icecore_format::Dnode;
use icecore_format::objset::ObjsetType;

/// What a dataset holds.
pub enum Dataset {
    /// Files.
    Filesystem(Box<Filesystem>),
    /// One run of bytes.
    Volume(Box<Volume>),
}

/// A volume.
pub struct Volume {
    os: Objset,
    dn: Dnode,
    size: u64,
}

impl Volume {
    /// The volume in `os`, opened with its key if it is encrypted (zvol.c).
    pub fn open(io: &dyn BlockStore, os: Objset) -> Result<Self> {
        if os.phys().kind() != ObjsetType::Zvol {
            return Err(ZplError::Unsupported(format!(
                "an objset of type {:?} is no volume",
                os.phys().kind()
            )));
        }
        let size = zap::lookup_u64(&os, io, PROPS, "size")?;
        let size = size.ok_or_else(|| ZplError::corrupt("volume", PROPS, "no size"))?;
        let dn = os.dnode(io, CONTENTS)?;
        Ok(Self { os, dn, size })
    }
    /// Property `volsize`, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
    /// The objset.
    #[must_use]
    pub fn objset(&self) -> &Objset {
        &self.os
    }
    /// Its bytes, from the first.
    #[must_use]
    pub fn content(&self) -> Content {
        Content::new(CONTENTS, self.dn.clone(), self.size)
    }
}

/// Opens the dataset or snapshot `name`. [`ZplError::KeyNotLoaded`] names it if it is encrypted and its key is missing.
pub fn open(io: &dyn BlockStore, dsl: &Dsl, name: &str) -> Result<Dataset> {
    open_ref(io, dsl, dsl.lookup_dataset(io, name)?).map_err(|e| match e {
        ZplError::KeyNotLoaded(_) => ZplError::KeyNotLoaded(name.into()),
        e => e,
    })
}

/// Opens the head or snapshot in object `obj` of the MOS.
pub fn open_object(io: &dyn BlockStore, dsl: &Dsl, obj: u64) -> Result<Dataset> {
    open_ref(io, dsl, dsl.by_object(io, obj)?)
}

fn open_ref(io: &dyn BlockStore, dsl: &Dsl, r: DatasetRef) -> Result<Dataset> {
    match dsl.key_loaded(io, r.dir) {
        Ok(true) => {}
        Ok(false) => return Err(ZplError::KeyNotLoaded(String::new())),
        // Whether there is a key cannot be told: if there is, the first encrypted block says so.
        Err(DslError::Read(_)) => {}
        Err(e) => return Err(e.into()),
    }
    let os = dsl.objset(io, r.obj, Want::Logical)?;
    match os.phys().kind() {
        ObjsetType::Zvol => Volume::open(io, os).map(|v| Dataset::Volume(Box::new(v))),
        _ => Filesystem::open(io, os).map(|f| Dataset::Filesystem(Box::new(f))),
    }
}
