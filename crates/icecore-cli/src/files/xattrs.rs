//! Extended attributes and POSIX access control lists of this machine's files, on their way into a dataset.

use icecore_zpl::write::{Options, POSIX_ACL_ACCESS, POSIX_ACL_DEFAULT, XattrForm};
use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;
use std::path::Path;

/// Longest list of names and longest value that Linux has (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MAX: usize = 65536;

/// Name and value.
pub type Named = (Vec<u8>, Vec<u8>);

/// Whether an attribute is one that is copied: users' and, where the dataset takes them, access control lists.
pub fn is_ours(name: &[u8], options: Options) -> bool {
    let acl = name == POSIX_ACL_ACCESS || name == POSIX_ACL_DEFAULT;
    (name.starts_with(b"user.") && options.xattrs != XattrForm::Off) || (acl && options.posix_acls)
}

/// Name and value of those of a file. A file system without extended attributes has none.
pub fn of(path: &Path, options: Options) -> Result<Vec<Named>, Errno> {
    let mut buffer = vec![0_u8; MAX];
    let len = match llistxattr(path, &mut buffer[..]) {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let names: Vec<Vec<u8>> = buffer
        .get(..len)
        .unwrap_or(&[])
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty() && is_ours(name, options))
        .map(<[u8]>::to_vec)
        .collect();
    let mut all = Vec::new();
    for name in names {
        match lgetxattr(path, name.as_slice(), &mut buffer[..]) {
            Ok(len) => all.push((name, buffer.get(..len).unwrap_or(&[]).to_vec())),
            // Taken away meanwhile.
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}
