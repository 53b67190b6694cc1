//! Extended attributes: packed in a system attribute (`xattr=sa`), or as files of a hidden directory (`xattr=dir`); a
//! file can have both kinds (zpl_xattr.c). POSIX ACLs are two of them.

use crate::error::{Result, ZplError};
use crate::filesystem::Files;
use crate::sa::Attr;
use crate::znode::{FileKind, Znode};
use icecore_dmu::BlockStore;
use icecore_format::reader::u64_at;
use icecore_format::{NvList, NvValue, ObjectId};
use std::collections::BTreeMap;

/// Longest value of an attribute that is read. Linux has 64 KiB; Solaris knows no limit.
pub const VALUE_MAX: u64 = 16 << 20;
/// Bytes of all names and values of one file.
const TOTAL_MAX: u64 = 64 << 20;

/// An extended attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Xattr {
    /// The name as stored.
    pub name: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

impl Xattr {
    /// The name as Linux shows it: one without a name space counts as the user's. `None` for those that FreeBSD keeps
    /// for its system (`zpl_xattr_permission`).
    #[must_use]
    pub fn linux_name(&self) -> Option<Vec<u8>> {
        let known = [&b"user."[..], b"trusted.", b"security."].iter().any(|p| self.name.starts_with(p));
        if known || self.is_posix_acl() {
            return Some(self.name.clone());
        }
        if self.name.starts_with(b"freebsd:") {
            return None;
        }
        Some([&b"user."[..], &self.name].concat())
    }
    /// Whether it is a POSIX access control list, which is shown only with `acltype=posix`.
    #[must_use]
    pub fn is_posix_acl(&self) -> bool {
        matches!(self.name.as_slice(), b"system.posix_acl_access" | b"system.posix_acl_default")
    }
}

impl Files<'_> {
    /// All extended attributes of a file by stored name. One that is there in both forms counts as the packed one.
    pub fn xattrs(&self, io: &dyn BlockStore, z: &Znode) -> Result<Vec<Xattr>> {
        let (packed, dir) = self.with_attrs(io, z, |attr| {
            let dir = attr(Attr::Xattr).map(|w| u64_at(&w, 0)).filter(|d| *d != 0);
            Ok((attr(Attr::Dxattr), dir))
        })?;
        let mut all = BTreeMap::new();
        if let Some(dir) = dir {
            self.xattr_files(io, z, ObjectId(dir), &mut all)?;
        }
        if let Some(packed) = packed.filter(|p| !p.is_empty()) {
            let (list, _) = NvList::decode(&packed)?;
            for (name, value) in list.iter() {
                let NvValue::ByteArray(value) = value else {
                    return Err(ZplError::corrupt(
                        "extended attributes",
                        z.id,
                        format!("{name} is not bytes"),
                    ));
                };
                all.insert(name.as_bytes().to_vec(), value.clone());
            }
        }
        Ok(all.into_iter().map(|(name, value)| Xattr { name, value }).collect())
    }

    fn xattr_files(
        &self,
        io: &dyn BlockStore,
        z: &Znode,
        dir: ObjectId,
        all: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<()> {
        let dir = self.znode(io, dir)?;
        let mut cursor = self.entries(io, &dir)?;
        let mut total = 0_u64;
        while let Some(batch) = cursor.next_batch(self, io)? {
            for e in batch {
                let file = self.znode(io, e.object)?;
                if file.kind != FileKind::Regular {
                    let why = format!("{:?} where a value belongs", file.kind);
                    return Err(ZplError::corrupt("extended attributes", file.id, why));
                }
                total = total.saturating_add(file.size).saturating_add(e.name.len() as u64 + 64);
                if file.size > VALUE_MAX || total > TOTAL_MAX {
                    let why = format!("object {}: extended attributes of more than {total} bytes", z.id);
                    return Err(ZplError::TooLarge(why));
                }
                let value = self.content(&file)?.read_all(self.objset(), io, VALUE_MAX)?;
                all.insert(e.name, value);
            }
        }
        Ok(())
    }
}
