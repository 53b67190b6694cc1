//! Owners: a FUID is a number (low half) in a domain (high half, an index into the dataset's table of Windows domains;
//! 0 for POSIX numbers) (zfs_fuid.c).

use crate::content::Content;
use crate::error::{Result, ZplError};
use crate::filesystem::Files;
use icecore_dmu::BlockStore;
use icecore_format::reader::u64_at;
use icecore_format::{NvList, NvValue};

/// What Linux calls everybody it has no number for.
const NOBODY: u32 = 65534;
/// Longest packed table that is read.
const TABLE_MAX: u64 = 4 << 20;

impl Files<'_> {
    /// The POSIX number of an owner or group; 65534 for those of Windows domains (`zfs_fuid_map_id` without an identity
    /// service).
    #[must_use]
    pub fn posix_id(fuid: u64) -> u32 {
        u32::try_from(fuid).unwrap_or(NOBODY)
    }

    /// The domains of the dataset with their indices: the packed list that the master node's `FUID` leads to.
    pub fn fuid_domains(&self, io: &dyn BlockStore) -> Result<Vec<(u64, String)>> {
        let Some(object) = self.fuid_table() else { return Ok(Vec::new()) };
        let dn = self.dnode(io, object)?;
        let size = u64_at(dn.bonus(), 0);
        let bytes = Content::new(object, dn, size).read_all(self.objset(), io, TABLE_MAX)?;
        let (list, _) = NvList::decode(&bytes)?;
        let Some(NvValue::ListArray(rows)) = list.get("fuid_nvlist") else { return Ok(Vec::new()) };
        let row = |row: &NvList| Some((row.u64("fuid_idx")?, row.str("fuid_domain")?.to_string()));
        let bad = || ZplError::corrupt("FUID table", object, "an entry without index or domain");
        rows.iter().map(|r| row(r).ok_or_else(bad)).collect()
    }
}
