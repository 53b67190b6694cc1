//! Symbolic links: the target is an attribute, or follows an old znode in the bonus, or is the object's first block
//! (`zfs_readlink`, zfs_vnops.c; `zfs_sa_readlink`, zfs_sa.c).

use crate::content::Content;
use crate::error::{Result, ZplError};
use crate::filesystem::Files;
use crate::sa::Attr;
use crate::znode::{FileKind, Znode};
use icecore_dmu::BlockStore;

/// Longest target that is read; systems allow 4096 (`PATH_MAX`).
const TARGET_MAX: u64 = 64 << 10;

impl Files<'_> {
    /// The target of a symbolic link.
    pub fn readlink(&self, io: &dyn BlockStore, z: &Znode) -> Result<Vec<u8>> {
        if z.kind != FileKind::Symlink {
            return Err(ZplError::NoContents(format!("object {}", z.id)));
        }
        let target = match z.is_legacy() {
            true => {
                usize::try_from(z.size).ok().and_then(|len| z.legacy_tail().get(..len)).map(<[u8]>::to_vec)
            }
            false => self.with_attrs(io, z, |attr| Ok(attr(Attr::Symlink)))?,
        };
        let target = match target {
            Some(target) => target,
            None => Content::new(z.id, z.dnode().clone(), z.size).read_all(self.objset(), io, TARGET_MAX)?,
        };
        if target.is_empty() || target.contains(&0) || target.len() as u64 > TARGET_MAX {
            return Err(ZplError::corrupt(
                "symbolic link",
                z.id,
                format!("a target of {} bytes", target.len()),
            ));
        }
        Ok(target)
    }
}
