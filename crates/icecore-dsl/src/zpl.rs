//! The objects of an empty file system: master node, attribute registry and layout, delete queue, root
//! directory (`zfs_create_fs`, zfs_znode_os.c; `sa_attr_register_sync`, `sa_add_layout_entry`, sa.c).
//!
//! Files are no business of this crate: this is only what a dataset needs to be mountable by OpenZFS.
//! Project quota accounting is not begun here, so the root has no project id; OpenZFS adds it at mount.

use crate::Who;
use crate::error::{DslError, Result};
use crate::prop::table;
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockWriter, NewObject, Objset};
use icecore_format::{ObjectId, ObjectType};

/// The master node is always the first object.
pub const MASTER_NODE: ObjectId = ObjectId(1);
/// The only version of the ZPL we make (`ZPL_VERSION`).
pub const ZPL_VERSION: u64 = 5;

/// Properties fixed at creation that live in the master node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ZplProps {
    /// Refuse names that are not UTF-8.
    pub utf8only: bool,
    /// Index value of `normalization`.
    pub normalization: u64,
    /// Index value of `casesensitivity`.
    pub casesensitivity: u64,
    /// `utf8only=off` was asked for.
    any_bytes: bool,
}

impl ZplProps {
    /// Takes one of its own properties from what the user typed; false for any other.
    pub fn take(&mut self, name: &str, value: &str) -> Result<bool> {
        if !["utf8only", "normalization", "casesensitivity"].contains(&name) {
            return Ok(false);
        }
        let n = table::find(name)
            .and_then(|p| p.index(value))
            .ok_or_else(|| DslError::Invalid(format!("'{name}' must be one of '{}'", table::values(name))))?;
        match name {
            "utf8only" => {
                self.utf8only = n != 0;
                self.any_bytes = n == 0;
            }
            "normalization" => {
                self.normalization = n;
                self.utf8only |= n != 0;
            }
            _ => self.casesensitivity = n,
        }
        // Normalized comparison makes sense for valid names only (`zfs_valid_proplist`, libzfs_dataset.c).
        if self.any_bytes && self.normalization != 0 {
            return Err(DslError::Invalid("'utf8only' must be set 'on' if normalization chosen".into()));
        }
        Ok(true)
    }
    /// Whether names are compared without case, always or sometimes.
    #[must_use]
    pub fn folds_case(&self) -> bool {
        self.casesensitivity != 0
    }
    fn norm(&self) -> u64 {
        self.normalization | if self.folds_case() { zap::NORM_TOUPPER } else { 0 }
    }
}

/// The attributes a file can have, by number: name, length (0: varies), byte order class
/// (`zfs_attr_table`, zfs_sa.c).
const ATTRS: [(&str, u16, u8); 22] = [
    ("ZPL_ATIME", 16, 0),
    ("ZPL_MTIME", 16, 0),
    ("ZPL_CTIME", 16, 0),
    ("ZPL_CRTIME", 16, 0),
    ("ZPL_GEN", 8, 0),
    ("ZPL_MODE", 8, 0),
    ("ZPL_SIZE", 8, 0),
    ("ZPL_PARENT", 8, 0),
    ("ZPL_LINKS", 8, 0),
    ("ZPL_XATTR", 8, 0),
    ("ZPL_RDEV", 8, 0),
    ("ZPL_FLAGS", 8, 0),
    ("ZPL_UID", 8, 0),
    ("ZPL_GID", 8, 0),
    ("ZPL_PAD", 32, 0),
    ("ZPL_ZNODE_ACL", 88, 3),
    ("ZPL_DACL_COUNT", 8, 0),
    ("ZPL_SYMLINK", 0, 3),
    ("ZPL_SCANSTAMP", 32, 3),
    ("ZPL_DACL_ACES", 0, 4),
    ("ZPL_DXATTR", 0, 3),
    ("ZPL_PROJID", 8, 0),
];

/// Attributes of the root directory in their order: mode, size, gen, uid, gid, parent, flags, four times,
/// links, number of ACEs, ACEs.
const ROOT_LAYOUT: [u16; 14] = [5, 6, 4, 12, 13, 7, 11, 0, 1, 2, 3, 8, 16, 19];
/// The first number for layouts; 0 and 1 are taken by the old znode and by attribute buffers.
const ROOT_LAYOUT_NUMBER: u16 = 2;
const SA_MAGIC: u32 = 0x002f_505a;

/// Archive, modified, trivial ACL, nobody denied execution.
const ROOT_FLAGS: u64 = 0x0000_0408_0000_0144;
const ROOT_MODE: u64 = 0o40755;

/// The ACEs of mode 0755: owner, owning group, everyone (each: type, flags, mask).
const ROOT_ACES: [(u16, u16, u32); 3] =
    [(0, 0x1000, 0x001e_01ff), (0, 0x2040, 0x0012_00a9), (0, 0x4000, 0x0012_00a9)];

/// Fills an objset that has nothing in it yet; the root directory is of `who`. `now` is seconds and nanoseconds since 1970.
pub fn create_empty(
    io: &mut dyn BlockWriter,
    os: &mut Objset,
    props: &ZplProps,
    who: Who,
    now: (u64, u32),
) -> Result<()> {
    os.claim(io, MASTER_NODE, &NewObject::plain(ObjectType::MASTER_NODE, 512))?;
    zap::init(os, io, MASTER_NODE, 0)?;
    let sa = zap::create(os, io, ObjectType::SA_MASTER_NODE, None, 0)?;
    let queue = zap::create(os, io, ObjectType::UNLINKED_SET, None, 0)?;
    let root = root_directory(io, os, props, who, now)?;
    let registry = zap::create(os, io, ObjectType::SA_ATTR_REGISTRATION, None, 0)?;
    let layouts = zap::create(os, io, ObjectType::SA_ATTR_LAYOUTS, None, 0)?;
    for (name, value) in [
        ("utf8only", u64::from(props.utf8only)),
        ("normalization", props.normalization),
        ("casesensitivity", props.casesensitivity),
        ("VERSION", ZPL_VERSION),
        ("SA_ATTRS", sa.0),
        ("DELETE_QUEUE", queue.0),
        ("ROOT", root.0),
    ] {
        zap::update(os, io, MASTER_NODE, name, &ZapValue::u64(value))?;
    }
    zap::update(os, io, sa, "REGISTRY", &ZapValue::u64(registry.0))?;
    zap::update(os, io, sa, "LAYOUTS", &ZapValue::u64(layouts.0))?;
    for (number, (name, len, bswap)) in ATTRS.iter().enumerate() {
        let value = u64::from(*len) << 24 | u64::from(*bswap) << 16 | number as u64;
        zap::update(os, io, registry, name, &ZapValue::u64(value))?;
    }
    let layout = ZapValue::U16(ROOT_LAYOUT.to_vec());
    zap::update(os, io, layouts, &ROOT_LAYOUT_NUMBER.to_string(), &layout)?;
    Ok(())
}

fn root_directory(
    io: &mut dyn BlockWriter,
    os: &mut Objset,
    props: &ZplProps,
    who: Who,
    now: (u64, u32),
) -> Result<ObjectId> {
    let len = root_bonus(0, 0, who, now).len();
    let new = Some((ObjectType::SA, u16::try_from(len).unwrap_or(u16::MAX)));
    let root = zap::create(os, io, ObjectType::DIRECTORY_CONTENTS, new, props.norm())?;
    let bonus = root_bonus(root.0, io.txg().0, who, now);
    let to = os.edit(io, root)?.bonus_mut();
    if to.len() != bonus.len() {
        return Err(DslError::Invalid("the root directory's bonus has the wrong size".into()));
    }
    to.copy_from_slice(&bonus);
    Ok(root)
}

/// The system attributes of an empty root directory of `who`.
fn root_bonus(id: u64, txg: u64, who: Who, now: (u64, u32)) -> Vec<u8> {
    let mut b = Vec::new();
    b.extend(SA_MAGIC.to_le_bytes());
    // Header size in units of 8 bytes above the layout number; then the one variable length.
    b.extend((ROOT_LAYOUT_NUMBER | 1 << 10).to_le_bytes());
    let aces: Vec<u8> = ROOT_ACES
        .iter()
        .flat_map(|(t, f, m)| [&t.to_le_bytes()[..], &f.to_le_bytes()[..], &m.to_le_bytes()[..]].concat())
        .collect();
    b.extend(u16::try_from(aces.len()).unwrap_or(0).to_le_bytes());
    let mut words = vec![ROOT_MODE, 2, txg, who.uid.into(), who.gid.into(), id, ROOT_FLAGS];
    for _ in 0..4 {
        words.extend([now.0, u64::from(now.1)]);
    }
    words.extend([2, ROOT_ACES.len() as u64]);
    for w in words {
        b.extend(w.to_le_bytes());
    }
    b.extend(aces);
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The root's bonus as OpenZFS 2.3.2 wrote it for a new file system (main/plain of the zoo), but for
    /// the project id, the size and times changed since, and the two flags that go with them.
    #[test]
    fn the_root_is_as_openzfs_makes_it() {
        let golden = "5a502f0002041800ed41000000000000020000000000000014000000000000000000000000000000\
                      0000000000000000220000000000000044010000080400\
                      00845d036b0000000003fe801400000000845d036b0000000003fe801400000000845d036b0000000003fe801400000000\
                      845d036b0000000003fe801400000000020000000000000003000000000000000000\
                      0010ff011e0000004020a90012000000\
                      0040a9001200";
        let golden: String = golden.split_whitespace().collect();
        let ours: String = root_bonus(34, 20, Who::default(), (0x6b03_5d84, 0x1480_fe03))
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(ours, golden);
    }
}
