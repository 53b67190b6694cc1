//! Files put into an objset by hand, for tests and measurements of what reads them. Not a file system's writer: no
//! accounting, no link counts, nothing is refused. That is its use: it makes what OpenZFS never would.

use icecore_env::{Access, Env, FileDevice};
use icecore_pool::{Host, Mode, OpenSpec, Pool};
use std::path::Path;
use std::sync::Arc;

use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockWriter, NewObject, Objset, WriteError};
use icecore_format::{ObjectId, ObjectType};

/// The layout of a file, and that of the root as `icecore_dsl::zpl::create_empty` makes it: mode, size, generation,
/// owner, group, parent, flags, four times, links, number of ACEs, ACEs.
const FILE_LAYOUT: u16 = 2;
/// The same with a symbolic link's target at the end instead of ACEs.
const LINK_LAYOUT: u16 = 3;
const LINK_ATTRS: [u16; 13] = [5, 6, 4, 12, 13, 7, 11, 0, 1, 2, 3, 8, 17];
const SA_MAGIC: u32 = 0x002f_505a;
const MASTER_NODE: ObjectId = ObjectId(1);

/// What a file is made with.
#[derive(Clone, Debug)]
pub struct NewFile<'a> {
    /// Mode with format bits.
    pub mode: u32,
    /// Contents; a symbolic link's target.
    pub data: &'a [u8],
    /// Size that is told; `None` for that of the contents.
    pub size: Option<u64>,
    /// Names that are told.
    pub links: u64,
    /// A `znode_phys_t` in place of system attributes.
    pub legacy: bool,
    /// Block size of the contents.
    pub block_size: u64,
    /// The 88 bytes of an old access control list.
    pub old_acl: Option<&'a [u8]>,
}

impl Default for NewFile<'_> {
    fn default() -> Self {
        let none = (0o100_644, &[][..], None, 1);
        let (mode, data, size, links) = none;
        Self { mode, data, size, links, legacy: false, block_size: 512, old_acl: None }
    }
}

impl<'a> NewFile<'a> {
    /// A regular file of one block, or of as many of 128 KiB as it needs.
    #[must_use]
    pub fn regular(data: &'a [u8]) -> Self {
        let block_size = (data.len() as u64).next_multiple_of(512).clamp(512, 128 << 10);
        Self { data, block_size, ..Self::default() }
    }
    /// An empty directory.
    #[must_use]
    pub fn directory() -> Self {
        Self { mode: 0o40755, size: Some(2), links: 2, ..Self::default() }
    }
    /// A symbolic link.
    #[must_use]
    pub fn symlink(target: &'a [u8]) -> Self {
        Self { mode: 0o120_777, ..Self::regular(target) }
    }
    fn is_directory(&self) -> bool {
        self.mode >> 12 == 4
    }
    fn is_symlink(&self) -> bool {
        self.mode >> 12 == 10
    }

    fn words(&self, parent: ObjectId) -> [u64; 16] {
        let size = self.size.unwrap_or(self.data.len() as u64);
        let flags = 0x0408_0000_0144;
        let t = 1_700_000_000;
        [u64::from(self.mode), size, 5, 1000, 100, parent.0, flags, t, 1, t, 2, t, 3, t, 4, self.links]
    }

    fn bonus(&self, parent: ObjectId) -> (ObjectType, Vec<u8>) {
        if self.legacy {
            return (ObjectType::ZNODE, self.znode(parent));
        }
        let (layout, varying) =
            if self.is_symlink() { (LINK_LAYOUT, self.data.to_vec()) } else { (FILE_LAYOUT, Vec::new()) };
        let mut b = SA_MAGIC.to_le_bytes().to_vec();
        b.extend((layout | 1 << 10).to_le_bytes());
        b.extend(u16::try_from(varying.len()).unwrap_or(u16::MAX).to_le_bytes());
        b.extend(self.words(parent).iter().flat_map(|w| w.to_le_bytes()));
        if !self.is_symlink() {
            b.extend(0_u64.to_le_bytes());
        }
        b.extend(varying);
        (ObjectType::SA, b)
    }

    /// `znode_phys_t`: times, generation, mode, size, parent, links, xattr, rdev, flags, uid, gid, pad, ACL.
    fn znode(&self, parent: ObjectId) -> Vec<u8> {
        let w = self.words(parent);
        let head =
            [w[7], w[8], w[9], w[10], w[11], w[12], w[13], w[14], w[2], w[0], w[1], w[5], w[15], 0, 0, w[6]];
        let mut b: Vec<u8> = head.iter().chain(&[w[3], w[4]]).flat_map(|w| w.to_le_bytes()).collect();
        b.resize(176, 0);
        b.extend_from_slice(self.old_acl.unwrap_or(&[0; 88]));
        if self.is_symlink() && self.data.len() <= 56 {
            b.extend_from_slice(self.data);
        }
        b
    }
}

/// Prepares a file system made by `icecore_dsl::zpl::create_empty` for symbolic links; gives its root.
pub fn prepare(os: &mut Objset, io: &mut dyn BlockWriter) -> Result<ObjectId, WriteError> {
    let number =
        |os: &Objset, io: &dyn BlockWriter, obj: ObjectId, name: &str| -> Result<ObjectId, WriteError> {
            let found = zap::lookup_u64(os, io, obj, name)?;
            found.map(ObjectId).ok_or_else(|| WriteError::Invalid(format!("no {name}")))
        };
    let sa = number(os, io, MASTER_NODE, "SA_ATTRS")?;
    let layouts = number(os, io, sa, "LAYOUTS")?;
    zap::update(os, io, layouts, &LINK_LAYOUT.to_string(), &ZapValue::U16(LINK_ATTRS.to_vec()))?;
    number(os, io, MASTER_NODE, "ROOT")
}

/// A file without a name. Contents are written as they are, holes where they are zero.
pub fn object(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    parent: ObjectId,
    file: &NewFile<'_>,
) -> Result<ObjectId, WriteError> {
    let (bonus_type, bonus) = file.bonus(parent);
    let len = u16::try_from(bonus.len()).map_err(|_| WriteError::Invalid("a long bonus".into()))?;
    let id = if file.is_directory() {
        zap::create(os, io, ObjectType::DIRECTORY_CONTENTS, Some((bonus_type, len)), 0)?
    } else {
        let slots = if len > 320 { 8 } else { 1 };
        let new = NewObject {
            slots,
            nblkptr: 1,
            ..NewObject::plain(ObjectType::PLAIN_FILE_CONTENTS, file.block_size).with_bonus(bonus_type, len)
        };
        os.allocate(io, &new)?
    };
    os.edit(io, id)?.bonus_mut().copy_from_slice(&bonus);
    let in_bonus = file.is_symlink() && (!file.legacy || file.data.len() <= 56);
    if !file.is_directory() && !in_bonus && !file.data.is_empty() {
        os.write(io, id, 0, file.data)?;
    }
    Ok(id)
}

/// A name for an object; `mode` says the entry's type.
pub fn link(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    dir: ObjectId,
    name: &str,
    to: ObjectId,
    mode: u32,
) -> Result<(), WriteError> {
    zap::add(os, io, dir, name, &ZapValue::u64(u64::from(mode >> 12) << 60 | to.0))
}

/// A file with a name.
pub fn add(
    os: &mut Objset,
    io: &mut dyn BlockWriter,
    dir: ObjectId,
    name: &str,
    file: &NewFile<'_>,
) -> Result<ObjectId, WriteError> {
    let id = object(os, io, dir, file)?;
    link(os, io, dir, name, id, file.mode)?;
    Ok(id)
}

/// Puts `count` small regular files `file-0`, … into the root of `dataset` of the pool on the file `image`, in one txg,
/// and exports the pool.
pub fn fill(
    image: &Path,
    dataset: &str,
    count: usize,
    data: impl Fn(usize) -> Vec<u8>,
) -> Result<(), String> {
    let device = FileDevice::open(image, Access::Exclusive).map_err(|e| e.to_string())?;
    let spec = OpenSpec {
        devices: vec![Arc::new(device)],
        pool: None,
        mode: Mode::Write,
        force: false,
        host: Host { id: 0, name: "icecore-check".into() },
        max_txg: None,
    };
    let mut pool = Pool::open(Env::os(), spec).map_err(|e| e.to_string())?;
    let (io, dsl) = pool.parts();
    let head = dsl.lookup_head(io, dataset).map_err(|e| e.to_string())?;
    let os = dsl.open_dataset(io, head.obj).map_err(|e| e.to_string())?;
    let root = prepare(os, io).map_err(|e| e.to_string())?;
    for i in 0..count {
        add(os, io, root, &format!("file-{i}"), &NewFile::regular(&data(i))).map_err(|e| e.to_string())?;
    }
    pool.commit().map_err(|e| e.to_string())?;
    pool.export().map(|_| ()).map_err(|e| e.to_string())
}
