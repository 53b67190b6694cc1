//! Extended attributes under the names Linux gives them (zpl_xattr.c).

use icecore_dmu::BlockStore;
use icecore_zpl::{Result, Xattr, Znode};

use crate::views::At;

/// Name as shown, and value, of all that are shown: no access control lists unless `acltype` is `posix`, nothing of
/// FreeBSD's system.
pub(crate) fn shown(at: &At<'_>, io: &dyn BlockStore, z: &Znode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let name = |x: &Xattr| if x.is_posix_acl() && !at.facts.posix_acl { None } else { x.linux_name() };
    let all = at.fs().xattrs(io, z)?;
    Ok(all.into_iter().filter_map(|x| Some((name(&x)?, x.value))).collect())
}
