//! What users, groups and projects use of a file system, and may use: `userused@…`, `userquota@…` and their kin
//! (`zfs_userspace_one`, `zfs_userspace_many`, `zfs_set_userquota`, zfs_quota.c).
//!
//! Sums are those of the accounting (`icecore_dmu::objset::accounts`); quotas stand in ZAPs that the master node names,
//! by the owner's number in hexadecimal. Owners of foreign domains are not known here: they are left out.

use crate::error::{Result, ZplError};
use icecore_dmu::objset::accounts::{GROUPUSED, OBJECTS_PREFIX, PROJECTUSED, USERUSED};
use icecore_dmu::{BlockStore, BlockWriter, Objset, ReadError, zap};
use icecore_format::{ObjectId, ObjectType};

const MASTER_NODE: ObjectId = ObjectId(1);
/// The first version of file systems that accounts by owner (`ZPL_VERSION_USERSPACE`).
const VERSION_USERSPACE: u64 = 4;

/// Whose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Who {
    /// A user's.
    User,
    /// A group's.
    Group,
    /// A project's.
    Project,
}

/// One of the properties by owner, without the owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByOwner {
    /// Whose.
    pub who: Who,
    /// Of how many objects, not bytes.
    pub objects: bool,
    /// What may be used, not what is.
    pub quota: bool,
}

impl ByOwner {
    /// From the part of a property's name before the `@`.
    #[must_use]
    pub fn parse(kind: &str) -> Option<Self> {
        let all = [("user", Who::User), ("group", Who::Group), ("project", Who::Project)];
        let (rest, who) = all.into_iter().find_map(|(name, who)| Some((kind.strip_prefix(name)?, who)))?;
        let (objects, quota) = match rest {
            "used" => (false, false),
            "quota" => (false, true),
            "objused" => (true, false),
            "objquota" => (true, true),
            _ => return None,
        };
        Some(Self { who, objects, quota })
    }

    /// The name of its ZAP of quotas in the master node (`zfs_userquota_prop_prefixes`, zfs_prop.c).
    fn entry(self) -> &'static str {
        match (self.who, self.objects) {
            (Who::User, false) => "userquota@",
            (Who::Group, false) => "groupquota@",
            (Who::Project, false) => "projectquota@",
            (Who::User, true) => "userobjquota@",
            (Who::Group, true) => "groupobjquota@",
            (Who::Project, true) => "projectobjquota@",
        }
    }

    fn sums(self) -> ObjectId {
        match self.who {
            Who::User => USERUSED,
            Who::Group => GROUPUSED,
            Who::Project => PROJECTUSED,
        }
    }

    /// The ZAP it stands in; `None` where there is none yet.
    fn table(self, os: &Objset, io: &dyn BlockStore) -> Result<Option<ObjectId>> {
        if self.quota {
            let there = zap::lookup_u64(os, io, MASTER_NODE, self.entry())?;
            return Ok(there.filter(|n| *n != 0).map(ObjectId));
        }
        match os.dnode(io, self.sums()) {
            Ok(_) => Ok(Some(self.sums())),
            Err(ReadError::NoObject(_)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// What stands before the owner's number: objects and bytes that are used share a ZAP.
    fn prefix(self) -> &'static str {
        if self.objects && !self.quota { OBJECTS_PREFIX } else { "" }
    }
}

/// Whether space is accounted by owner in a file system at all.
pub fn is_accounted(os: &Objset, io: &dyn BlockStore) -> Result<bool> {
    let used = ByOwner { who: Who::User, objects: false, quota: false };
    Ok(used.table(os, io)?.is_some())
}

/// The value of one owner: 0 where there is none.
pub fn one(os: &Objset, io: &dyn BlockStore, what: ByOwner, owner: u64) -> Result<u64> {
    let Some(table) = what.table(os, io)? else { return Ok(0) };
    Ok(zap::lookup_u64(os, io, table, &format!("{}{owner:x}", what.prefix()))?.unwrap_or(0))
}

/// The values of all owners.
pub fn all(os: &Objset, io: &dyn BlockStore, what: ByOwner) -> Result<Vec<(u64, u64)>> {
    let Some(table) = what.table(os, io)? else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    let mut cursor = zap::Cursor::new(os, io, table, os.dnode(io, table)?)?;
    while let Some(entries) = cursor.next_leaf(os, io)? {
        for e in entries {
            let name = e.name_str();
            let owner = match (name.strip_prefix(OBJECTS_PREFIX), what.prefix()) {
                (Some(owner), p) if !p.is_empty() => owner,
                (None, "") => name.as_str(),
                _ => continue,
            };
            let number = u64::from_str_radix(owner, 16).ok().filter(|n| u32::try_from(*n).is_ok());
            if let (Some(owner), Some(value)) = (number, e.value.as_u64()) {
                out.push((owner, value));
            }
        }
    }
    Ok(out)
}

/// Sets the quota of one owner; 0 takes it away.
pub fn set_quota(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    what: ByOwner,
    owner: u64,
    quota: u64,
) -> Result<()> {
    let version = zap::lookup_u64(os, io, MASTER_NODE, "VERSION")?.unwrap_or(1);
    if version < VERSION_USERSPACE {
        return Err(ZplError::Unsupported(format!("quotas by owner in a file system of version {version}")));
    }
    let projects = ByOwner { who: Who::Project, objects: false, quota: false };
    if what.who == Who::Project && projects.table(os, io)?.is_none() {
        return Err(ZplError::Unsupported("quotas of projects where none are accounted".into()));
    }
    let name = format!("{owner:x}");
    match (what.table(os, io)?, quota) {
        (None, 0) => {}
        (Some(table), 0) => {
            zap::remove(os, io, table, &name)?;
        }
        (there, quota) => {
            let table = match there {
                Some(table) => table,
                None => {
                    let table = zap::create(os, io, ObjectType::USERGROUP_QUOTA, None, 0)?;
                    zap::add(os, io, MASTER_NODE, what.entry(), &zap::ZapValue::u64(table.0))?;
                    table
                }
            };
            zap::update(os, io, table, &name, &zap::ZapValue::u64(quota))?;
        }
    }
    Ok(())
}
