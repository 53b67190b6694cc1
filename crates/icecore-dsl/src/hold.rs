//! User holds: tags that keep a snapshot from being destroyed (dsl_userhold.c). Temporary holds die with
//! the process that made them in OpenZFS; we never make any, but list and release them.

use crate::error::{DslError, Result};
use crate::lookup::DatasetRef;
use crate::{DIRECTORY, Dsl};
use icecore_dmu::{BlockStore, BlockWriter};
use icecore_format::ObjectType;

/// Longest tag.
const TAG_LEN_MAX: usize = 255;

impl Dsl {
    /// The holds of a snapshot in the order of tags: tag, and when it was set.
    pub fn holds(&self, io: &dyn BlockStore, snap: DatasetRef) -> Result<Vec<(String, u64)>> {
        let ds = self.dataset(io, snap.obj)?;
        self.zap_list_u64(io, ds.userrefs_obj)
    }

    /// Number of holds of a snapshot (`ds_userrefs`).
    pub(crate) fn userrefs(&self, io: &dyn BlockStore, snap: u64) -> Result<u64> {
        let ds = self.dataset(io, snap)?;
        self.zap_count(io, ds.userrefs_obj)
    }

    /// Holds snapshot `name` with `tag`.
    pub fn hold(&mut self, io: &mut dyn BlockWriter, name: &str, tag: &str) -> Result<()> {
        let snap = self.lookup_snapshot(io, name)?;
        if tag.is_empty() || tag.len() > TAG_LEN_MAX {
            return Err(DslError::Name("tag name is empty or too long".into()));
        }
        let mut ds = self.dataset(io, snap.obj)?;
        if self.zap_u64(io, ds.userrefs_obj, tag)?.is_some() {
            return Err(DslError::Exists(format!("tag '{tag}' on {name}")));
        }
        if ds.userrefs_obj == 0 {
            ds.userrefs_obj = self.zap_new(io, ObjectType::USERREFS)?;
            self.put_dataset(io, snap.obj, &ds)?;
        }
        let now = self.chance.now().0;
        self.zap_put_u64(io, ds.userrefs_obj, tag, now)
    }

    /// Releases `tag` of snapshot `name`; the last release of a snapshot marked for destruction destroys it.
    pub fn release(&mut self, io: &mut dyn BlockWriter, name: &str, tag: &str) -> Result<()> {
        let snap = self.lookup_snapshot(io, name)?;
        let ds = self.dataset(io, snap.obj)?;
        if self.zap_u64(io, ds.userrefs_obj, tag)?.is_none() {
            return Err(DslError::NotFound(format!("tag '{tag}' on {name}")));
        }
        if let Some(tmp) = self.zap_u64(io, DIRECTORY, "tmp_userrefs")? {
            self.zap_del(io, tmp, &format!("{:x}-{tag}", snap.obj))?;
        }
        self.zap_del(io, ds.userrefs_obj, tag)?;
        if ds.is_defer_destroy() && ds.num_children == 1 && self.userrefs(io, snap.obj)? == 0 {
            self.destroy_snapshot_object(io, snap.obj)?;
        }
        Ok(())
    }
}
