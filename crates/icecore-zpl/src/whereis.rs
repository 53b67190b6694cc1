//! From an object to a path that leads to it (`zfs_obj_to_path`, zfs_znode.c): for naming what is damaged.

use crate::error::{Result, ZplError};
use crate::filesystem::Filesystem;
use icecore_dmu::BlockStore;
use icecore_format::ObjectId;

/// Directories above each other that are followed; more is a knot.
const DEPTH_MAX: usize = 2048;

impl Filesystem {
    /// The path of object `id` from the root, `/` first: the name it was made under or moved to. Of an extended
    /// attribute it is the file's, with `<xattrdir>` and the attribute behind it, as OpenZFS shows it.
    ///
    /// # Errors
    /// The object is no file, or damage hides a directory above it, or the directory does not know it any more
    /// (a file that was deleted while open).
    pub fn path_of(&self, io: &dyn BlockStore, id: ObjectId) -> Result<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut at = self.znode(io, id)?;
        while at.id != self.root() {
            if parts.len() > DEPTH_MAX {
                return Err(ZplError::corrupt("path", id, "directories without end"));
            }
            let parent = self.znode(io, at.parent)?;
            // The hidden directory of a file's extended attributes has no name of its own.
            let part = if at.flags.is_xattr() && parent.kind != crate::FileKind::Directory {
                b"<xattrdir>".to_vec()
            } else {
                self.name_in(io, &parent, at.id)?
            };
            parts.push(part);
            at = parent;
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Ok(path)
    }

    fn name_in(&self, io: &dyn BlockStore, dir: &crate::Znode, id: ObjectId) -> Result<Vec<u8>> {
        let mut cursor = self.entries(io, dir)?;
        while let Some(entries) = cursor.next_batch(self, io)? {
            if let Some(found) = entries.into_iter().find(|e| e.object == id) {
                return Ok(found.name);
            }
        }
        Err(ZplError::NotFound(format!("object {id} in directory {}", dir.id)))
    }
}
