//! Whether the sums of space and objects by owner that a file system keeps are those of its files. Owners are read here
//! through the table of layouts, by the readers of files, and not as the accounting reads them.

use icecore_dmu::objset::accounts::{GROUPUSED, OBJECTS_PREFIX, PROJECTUSED, USERUSED};
use icecore_dmu::{BlockStore, Objset, zap};
use icecore_format::dnode::{FLAG_USEROBJUSED_ACCOUNTED, FLAG_USERUSED_ACCOUNTED};
use icecore_format::{ObjectId, ObjectType};
use icecore_zpl::Filesystem;
use std::collections::BTreeMap;

/// Sums by owner, under the names that the ZAPs have for them.
pub type Sums = BTreeMap<String, u64>;

/// The sums of users, groups and projects as the file system keeps them; empty where it keeps none.
///
/// # Errors
/// What could not be read.
pub fn kept(io: &dyn BlockStore, os: &Objset) -> Result<[Sums; 3], String> {
    let mut all = [Sums::new(), Sums::new(), Sums::new()];
    for (table, sums) in [USERUSED, GROUPUSED, PROJECTUSED].into_iter().zip(&mut all) {
        if os.dnode(io, table).is_ok() {
            for e in zap::iter(os, io, table).map_err(|e| e.to_string())? {
                sums.insert(e.name_str(), e.value.as_u64().ok_or("a sum that is no number")?);
            }
        }
    }
    Ok(all)
}

/// The sums as the heads of all files have them.
///
/// # Errors
/// What could not be read, and heads that are not marked as counted.
pub fn counted(io: &dyn BlockStore, fs: &Filesystem) -> Result<[Sums; 3], String> {
    let os = fs.objset();
    let mut all = [Sums::new(), Sums::new(), Sums::new()];
    let mut at = ObjectId(0);
    while let Some(id) = os.next_object(io, at).map_err(|e| e.to_string())? {
        at = id;
        let dn = os.dnode(io, id).map_err(|e| e.to_string())?;
        if !matches!(dn.bonus_type(), ObjectType::SA | ObjectType::ZNODE) {
            continue;
        }
        let marks = FLAG_USERUSED_ACCOUNTED | FLAG_USEROBJUSED_ACCOUNTED;
        if dn.flags() & marks != marks {
            return Err(format!("object {id} is not marked as counted: flags {:#x}", dn.flags()));
        }
        let z = fs.znode(io, id).map_err(|e| e.to_string())?;
        for (owner, sums) in [z.uid, z.gid, z.project.unwrap_or(0)].into_iter().zip(&mut all) {
            *sums.entry(format!("{owner:x}")).or_default() += 512 + dn.used_bytes();
            *sums.entry(format!("{OBJECTS_PREFIX}{owner:x}")).or_default() += 1;
        }
    }
    Ok(all)
}

/// Compares the two.
///
/// # Errors
/// Where they differ.
pub fn check(io: &dyn BlockStore, fs: &Filesystem) -> Result<(), String> {
    let (kept, counted) = (kept(io, fs.objset())?, counted(io, fs)?);
    if kept == counted { Ok(()) } else { Err(format!("kept {kept:?}\nbut it is {counted:?}")) }
}
