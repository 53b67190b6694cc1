//! Whose an object of a file system is, as the accounting of space asks (`zpl_get_file_info`, zfs_quota.c; offsets in
//! zfs_sa.h, `znode_phys_t` in zfs_znode.h).
//!
//! Invariant: this looks where OpenZFS looks, at fixed places of the attributes, and not in the dataset's table of
//! layouts: both must come to the same owner even where a table is damaged.

use icecore_dmu::objset::accounts::Owners;
use icecore_format::ObjectType;

/// `SA_MAGIC`.
const MAGIC: u32 = 0x002f_505a;
/// Attributes come in one order in every file system; these are their places after the head.
const UID_AT: usize = 24;
const GID_AT: usize = 32;
const FLAGS_AT: usize = 48;
const PROJECT_AT: usize = 128;
/// `ZFS_PROJID`: the object has a project.
const FLAG_PROJECT: u64 = 0x8000_0000_0000;
/// Places in a `znode_phys_t`.
const OLD_UID_AT: usize = 128;
const OLD_GID_AT: usize = 136;

/// The owners in a bonus (or in a spill block, where the bonus is empty); `None` for what is no file.
#[must_use]
pub fn owners_of(kind: ObjectType, bytes: &[u8]) -> Option<Owners> {
    let word = |at: usize, swap: bool| {
        let end = at.checked_add(8)?;
        let word = u64::from_le_bytes(bytes.get(at..end)?.try_into().ok()?);
        Some(if swap { word.swap_bytes() } else { word })
    };
    if kind == ObjectType::ZNODE {
        return Some(Owners { user: word(OLD_UID_AT, false)?, group: word(OLD_GID_AT, false)?, project: 0 });
    }
    if kind != ObjectType::SA {
        return None;
    }
    let magic = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    if magic == 0 {
        // A file whose attributes are not there yet.
        return Some(Owners::default());
    }
    let swap = magic == MAGIC.swap_bytes();
    if magic != MAGIC && !swap {
        return None;
    }
    let info = u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?);
    let info = if swap { info.swap_bytes() } else { info };
    let head = usize::from(info >> 10).checked_mul(8).filter(|len| *len >= 8)?;
    let at = |place: usize| word(head.saturating_add(place), swap);
    let project = if at(FLAGS_AT)? & FLAG_PROJECT != 0 { at(PROJECT_AT)? } else { 0 };
    Some(Owners { user: at(UID_AT)?, group: at(GID_AT)?, project })
}
