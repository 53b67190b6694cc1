//! Quotas of users, groups and projects, as OpenZFS set them (`zfs_id_overblockquota`, `zfs_id_overobjquota`,
//! zfs_quota.c).
//!
//! Invariant: what is asked are the sums of the last commit, so that a quota may be passed within one txg, as in OpenZFS;
//! who has reached one writes nothing more and makes no more files.

use super::Writer;
use crate::error::Result;
use icecore_dmu::objset::accounts::{GROUPUSED, OBJECTS_PREFIX, Owners, PROJECTUSED, USERUSED};
use icecore_dmu::{BlockStore, Objset, ReadError, WriteError, zap};
use icecore_format::ObjectId;

/// A ZAP of quotas by owner: whether it counts objects, the sums it is about, and its name in the master node.
pub(super) struct QuotaKind {
    objects: bool,
    used: ObjectId,
    pub(super) name: &'static str,
}

const fn kind(name: &'static str, used: ObjectId, objects: bool) -> QuotaKind {
    QuotaKind { objects, used, name }
}

/// All kinds (`zfs_userquota_prop_prefixes`, zfs_prop.c).
pub(super) static KINDS: [QuotaKind; 6] = [
    kind("userquota@", USERUSED, false),
    kind("groupquota@", GROUPUSED, false),
    kind("projectquota@", PROJECTUSED, false),
    kind("userobjquota@", USERUSED, true),
    kind("groupobjquota@", GROUPUSED, true),
    kind("projectobjquota@", PROJECTUSED, true),
];

impl Writer {
    /// Refuses what these owners may no longer do: write, or (`new`) have one more file.
    ///
    /// # Errors
    /// [`WriteError::Quota`].
    pub(super) fn check_quota(
        &self,
        os: &Objset,
        io: &dyn BlockStore,
        owners: Owners,
        new: bool,
    ) -> Result<()> {
        for (kind, quotas) in self.quotas.iter().filter(|(kind, _)| new || !kind.objects) {
            let owner = match kind.used {
                USERUSED => owners.user,
                GROUPUSED => owners.group,
                // Whoever has no project is in no project's quota.
                _ if owners.project == 0 => continue,
                _ => owners.project,
            };
            let Some(quota) = zap::lookup_u64(os, io, *quotas, &format!("{owner:x}"))? else { continue };
            let prefix = if kind.objects { OBJECTS_PREFIX } else { "" };
            let used = match zap::lookup_u64(os, io, kind.used, &format!("{prefix}{owner:x}")) {
                Err(ReadError::NoObject(_)) => continue,
                used => used?.unwrap_or(0),
            };
            // Sums that are out of step may have fallen below zero.
            if used >= quota && used.cast_signed() >= 0 {
                return Err(WriteError::Quota.into());
            }
        }
        Ok(())
    }
}
