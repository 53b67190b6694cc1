//! A file system: an objset whose master node leads to its files (zfs_vfsops.c, zfs_znode_os.c).

use crate::error::{Result, ZplError};
use crate::name::Folding;
use crate::nameless::ByParent;
use crate::sa::{self, Attrs, Registry};
use crate::znode::{FileKind, Znode, has_znode};
use icecore_dmu::objset::slot_starts;
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockStore, Objset, ReadError};
use icecore_format::dnode::{SLOT, SLOTS_PER_BLOCK};
use icecore_format::objset::ObjsetType;
use icecore_format::{Bookmark, Dnode, ObjectId, ObjectType};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The master node is always the first object (`MASTER_NODE_OBJ`).
const MASTER_NODE: ObjectId = ObjectId(1);
/// Newest version of the ZPL we know (`ZPL_VERSION`).
const VERSION_MAX: u64 = 5;
/// First version with system attributes (`ZPL_VERSION_SA`).
const VERSION_SA: u64 = 5;
/// Blocks of dnodes kept: 4 MiB.
const DNODE_BLOCKS_MAX: usize = 256;

/// How a file system compares letters (property `casesensitivity`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Case {
    /// `A` and `a` differ.
    Sensitive,
    /// They do not.
    Insensitive,
    /// They differ, except for callers that ask otherwise (CIFS); here they differ.
    Mixed,
}

/// What the master node says of a file system. It stays as it is while the file system lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub version: u64,
    pub root: ObjectId,
    pub case: Case,
    pub folding: Folding,
    pub utf8_only: bool,
    pub fuid_table: Option<ObjectId>,
    pub delete_queue: Option<ObjectId>,
    pub shares: Option<ObjectId>,
}

impl Shape {
    pub fn of(master: &BTreeMap<String, u64>) -> Result<Self> {
        let number = |name: &str| master.get(name).copied();
        let object = |name: &str| number(name).filter(|n| *n != 0).map(ObjectId);
        let version = number("VERSION").unwrap_or(1);
        if !(1..=VERSION_MAX).contains(&version) {
            return Err(ZplError::Unsupported(format!("file system version {version}")));
        }
        let root = object("ROOT").ok_or_else(|| ZplError::corrupt("master node", MASTER_NODE, "no ROOT"))?;
        let case = match number("casesensitivity").unwrap_or(0) {
            0 => Case::Sensitive,
            1 => Case::Insensitive,
            2 => Case::Mixed,
            n => return Err(ZplError::corrupt("master node", MASTER_NODE, format!("casesensitivity {n}"))),
        };
        let norm = number("normalization").unwrap_or(0);
        let folding = Folding::new(norm, case == Case::Insensitive);
        let folding = folding.ok_or_else(|| {
            ZplError::corrupt("master node", MASTER_NODE, format!("normalization {norm:#x}"))
        })?;
        Ok(Self {
            version,
            root,
            case,
            folding,
            utf8_only: number("utf8only").unwrap_or(0) != 0,
            fuid_table: object("FUID"),
            delete_queue: object("DELETE_QUEUE"),
            shares: object("SHARES"),
        })
    }
}

/// A file system: of an objset of its own, or of one that is open for change elsewhere, changes not yet committed included
/// ([`crate::write::Writer::files`]).
pub struct Files<'a> {
    os: Cow<'a, Objset>,
    registry: Cow<'a, Registry>,
    shape: Shape,
    dnode_blocks: Mutex<BTreeMap<u64, Arc<[u8]>>>,
    parents: OnceLock<Arc<ByParent>>,
}

/// A file system with an objset of its own.
pub type Filesystem = Files<'static>;

impl Filesystem {
    /// The file system in `os`, opened with its key if it is encrypted.
    pub fn open(io: &dyn BlockStore, os: Objset) -> Result<Self> {
        if os.phys().kind() != ObjsetType::Zfs {
            return Err(ZplError::Unsupported(format!(
                "an objset of type {:?} has no files",
                os.phys().kind()
            )));
        }
        let master = read_master(&os, io)?;
        let shape = Shape::of(&master)?;
        let attributes = master.get("SA_ATTRS").copied().unwrap_or(0);
        let registry = match shape.version >= VERSION_SA && attributes != 0 {
            true => Registry::read(&os, io, ObjectId(attributes))?,
            false => Registry::default(),
        };
        let (os, registry) = (Cow::Owned(os), Cow::Owned(registry));
        Ok(Self { registry, shape, dnode_blocks: Mutex::default(), parents: OnceLock::new(), os })
    }
}

impl<'a> Files<'a> {
    pub(crate) fn over(os: &'a Objset, registry: &'a Registry, shape: Shape) -> Self {
        let (os, registry) = (Cow::Borrowed(os), Cow::Borrowed(registry));
        Self { os, registry, shape, dnode_blocks: Mutex::default(), parents: OnceLock::new() }
    }

    /// The objset.
    #[must_use]
    pub fn objset(&self) -> &Objset {
        &self.os
    }
    /// Version of the ZPL, 1 to 5.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.shape.version
    }
    /// The root directory.
    #[must_use]
    pub fn root(&self) -> ObjectId {
        self.shape.root
    }
    /// How letters compare.
    #[must_use]
    pub fn case(&self) -> Case {
        self.shape.case
    }
    /// Whether names that are not UTF-8 were refused.
    #[must_use]
    pub fn is_utf8_only(&self) -> bool {
        self.shape.utf8_only
    }
    pub(crate) fn folding(&self) -> Folding {
        self.shape.folding
    }
    pub(crate) fn fuid_table(&self) -> Option<ObjectId> {
        self.shape.fuid_table
    }
    /// The ZAP of files that were deleted while open (`ZFS_UNLINKED_SET`).
    pub(crate) fn delete_queue(&self) -> Option<ObjectId> {
        self.shape.delete_queue
    }
    /// The hidden directory of shares (`ZFS_SHARES_DIR`).
    pub(crate) fn shares(&self) -> Option<ObjectId> {
        self.shape.shares
    }

    /// The attributes of object `id`; [`ZplError::Corrupt`] if it is no file.
    pub fn znode(&self, io: &dyn BlockStore, id: ObjectId) -> Result<Znode> {
        let dn = self.dnode(io, id)?;
        self.znode_of(io, id, dn)
    }

    /// Attributes of many objects, each answered for itself; the blocks they lie in are read as one batch.
    pub fn znodes(&self, io: &dyn BlockStore, ids: &[ObjectId]) -> Vec<Result<Znode>> {
        self.load_dnode_blocks(io, ids);
        ids.iter().map(|id| self.znode(io, *id)).collect()
    }

    fn znode_of(&self, io: &dyn BlockStore, id: ObjectId, dn: Dnode) -> Result<Znode> {
        if !has_znode(&dn) {
            let why = format!("a bonus of type {:?} is no file's", dn.bonus_type());
            return Err(ZplError::corrupt("znode", id, why));
        }
        let empty = Attrs::default();
        if dn.bonus_type() == ObjectType::ZNODE {
            let attrs = sa::parse_legacy(dn.bonus())?;
            return Znode::new(id, dn.clone(), &attrs, &empty);
        }
        let bonus = self.registry.native(dn.bonus())?;
        let attrs = self.registry.parse(&bonus)?;
        if Znode::complete(&attrs) || !dn.has_spill() {
            return Znode::new(id, dn.clone(), &attrs, &empty);
        }
        let spill = self.os.spill(io, id, &dn)?;
        let spill = self.registry.native(spill.as_deref().unwrap_or(&[]))?;
        Znode::new(id, dn.clone(), &attrs, &self.registry.parse(&spill)?)
    }

    /// Calls `f` with the attributes in bonus and spill.
    pub(crate) fn with_attrs<T>(
        &self,
        io: &dyn BlockStore,
        z: &Znode,
        f: impl FnOnce(&dyn Fn(sa::Attr) -> Option<Vec<u8>>) -> Result<T>,
    ) -> Result<T> {
        if z.is_legacy() {
            let attrs = sa::parse_legacy(z.dn.bonus())?;
            return f(&|attr| attrs.get(attr).map(<[u8]>::to_vec));
        }
        let bonus = self.registry.native(z.dn.bonus())?;
        let attrs = self.registry.parse(&bonus)?;
        let spill = self.os.spill(io, z.id, &z.dn)?;
        let spill = self.registry.native(spill.as_deref().unwrap_or(&[]))?;
        let more = self.registry.parse(&spill)?;
        f(&|attr| attrs.get(attr).or_else(|| more.get(attr)).map(<[u8]>::to_vec))
    }

    pub(crate) fn parents(&self) -> &OnceLock<Arc<ByParent>> {
        &self.parents
    }

    /// The attributes of what a directory entry leads to, or the root; of a directory of which they are lost what it takes
    /// to look into it.
    pub(crate) fn directory_or(
        &self,
        id: ObjectId,
        kind: Option<FileKind>,
        got: Result<Znode>,
    ) -> Result<Znode> {
        match got {
            // An entry that leads to no object was never a directory.
            Err(ZplError::Read(ReadError::NoObject(_))) => got,
            Err(ZplError::Read(_)) if kind == Some(FileKind::Directory) => Ok(Znode::lost_directory(id)),
            _ => got,
        }
    }

    pub(crate) fn dnode(&self, io: &dyn BlockStore, id: ObjectId) -> Result<Dnode> {
        if id.0 == 0 || id.0 >= icecore_format::dnode::MAX_OBJECT {
            return Err(ReadError::NoObject(id).into());
        }
        if self.os.is_dirty() {
            return Ok(self.os.dnode(io, id)?);
        }
        let blkid = id.0 / SLOTS_PER_BLOCK;
        let known = self.kept().get(&blkid).cloned();
        let block = match known {
            Some(block) => block,
            None => {
                let block = self.os.block(io, ObjectId(0), self.os.meta(), blkid);
                let block = block?.ok_or(ReadError::NoObject(id))?;
                self.keep_dnode_block(blkid, &block);
                block
            }
        };
        let slot = (id.0 % SLOTS_PER_BLOCK) as usize;
        let starts = slot_starts(&block)?;
        let bytes = starts.iter().find(|(at, _)| *at == slot).and_then(|_| block.get(slot * SLOT..));
        Ok(Dnode::parse(bytes.ok_or(ReadError::NoObject(id))?)?)
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<[u8]>>> {
        // Blocks come and go whole: what a panic elsewhere left is as good as before.
        self.dnode_blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_dnode_block(&self, blkid: u64, block: &Arc<[u8]>) {
        let mut blocks = self.kept();
        if blocks.len() >= DNODE_BLOCKS_MAX {
            blocks.clear();
        }
        blocks.insert(blkid, block.clone());
    }

    /// Reads the blocks of dnodes that `ids` lie in and that are not here yet, at most as many as are kept. What
    /// cannot be read is left for the one who asks for it.
    fn load_dnode_blocks(&self, io: &dyn BlockStore, ids: &[ObjectId]) {
        let wanted: BTreeSet<u64> = ids.iter().map(|id| id.0 / SLOTS_PER_BLOCK).collect();
        let missing: Vec<u64> = {
            let blocks = self.kept();
            wanted.into_iter().filter(|b| !blocks.contains_key(b)).take(DNODE_BLOCKS_MAX).collect()
        };
        if self.os.is_dirty() || missing.len() < 2 {
            return;
        }
        let mut batch = Vec::with_capacity(missing.len());
        for blkid in missing {
            if let Ok(bp) = self.os.blkptr(io, ObjectId(0), self.os.meta(), 0, blkid)
                && !bp.is_hole()
            {
                batch.push((bp, Bookmark { objset: self.os.id(), object: ObjectId(0), level: 0, blkid }));
            }
        }
        if self.kept().len() + batch.len() > DNODE_BLOCKS_MAX {
            self.kept().clear();
        }
        for ((_, at), read) in batch.iter().zip(io.read_many(&batch, self.os.want())) {
            if let Ok(block) = read {
                self.keep_dnode_block(at.blkid, &block);
            }
        }
    }
}

/// The entries of the master node that are one number. What else it holds is passed over.
pub(crate) fn read_master(os: &Objset, io: &dyn BlockStore) -> Result<BTreeMap<String, u64>> {
    const WANTED: [&str; 15] = [
        "VERSION",
        "ROOT",
        "SA_ATTRS",
        "FUID",
        "DELETE_QUEUE",
        "SHARES",
        "casesensitivity",
        "normalization",
        "utf8only",
        "userquota@",
        "groupquota@",
        "projectquota@",
        "userobjquota@",
        "groupobjquota@",
        "projectobjquota@",
    ];
    let mut all = BTreeMap::new();
    let mut cursor = zap::Cursor::new(os, io, MASTER_NODE, os.dnode(io, MASTER_NODE)?)?;
    while let Some(entries) = cursor.next_leaf(os, io)? {
        for e in entries {
            let name = e.name_str();
            if let (true, ZapValue::U64(words)) = (WANTED.contains(&name.as_str()), &e.value)
                && let Some(word) = words.first()
            {
                all.insert(name, *word);
            }
        }
    }
    Ok(all)
}
