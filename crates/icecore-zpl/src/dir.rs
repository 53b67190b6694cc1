//! Directories: ZAPs from names to objects (zfs_dir.c). A value is one word: object number in the low 48 bits, type in
//! the high 4 (0 in file systems of version 1). Other users of a dataset (Lustre) may put more words behind it.
//!
//! A directory that is damaged still has the files whose own attributes name it as their parent: those that its readable
//! part does not name are shown by number ([`crate::nameless`]).

use crate::error::{Result, ZplError};
use crate::filesystem::Files;
use crate::name::Folding;
use crate::znode::{FileKind, Znode};
use icecore_dmu::BlockStore;
use icecore_dmu::zap::{self, ZapEntry, ZapValue};
use icecore_format::{ObjectId, ObjectType};

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// The name: any bytes (see [`crate::is_safe_name`]).
    pub name: Vec<u8>,
    /// What it leads to.
    pub object: ObjectId,
    /// What kind of file that is, as the entry says.
    pub kind: Option<FileKind>,
}

impl DirEntry {
    fn new(dir: ObjectId, e: ZapEntry) -> Result<Self> {
        let word = match &e.value {
            ZapValue::U64(words) => words.first().copied(),
            _ => None,
        };
        let word = word.ok_or_else(|| {
            let name = e.name_str();
            ZplError::corrupt("directory", dir, format!("{} does not lead to an object", name.escape_debug()))
        })?;
        let object = ObjectId(word & ((1 << 48) - 1));
        Ok(Self { name: e.name, object, kind: FileKind::from_mode(word >> 48) })
    }
}

/// A place in a directory.
pub struct DirCursor {
    dir: ObjectId,
    zap: Option<Box<zap::Cursor>>,
    /// Why there is no `zap`, to be told first.
    fault: Option<Box<ZplError>>,
    /// Names were lost: what they led to follows at the end.
    damaged: bool,
}

impl DirCursor {
    /// The next names in the order they have on disk, a leaf at a time and perhaps none; `None` after the last. After an
    /// error that is damage the next call goes on behind it; what lost its name comes last, by number.
    pub fn next_batch(&mut self, fs: &Files<'_>, io: &dyn BlockStore) -> Result<Option<Vec<DirEntry>>> {
        match self.next_leaf(fs, io) {
            Ok(Some(entries)) => Ok(Some(entries)),
            Ok(None) if std::mem::take(&mut self.damaged) => Ok(Some(fs.nameless(io, self.dir))),
            Ok(None) => Ok(None),
            Err(error) => {
                self.damaged = error.is_damage();
                if !self.damaged {
                    self.zap = None;
                }
                Err(error)
            }
        }
    }

    /// The same of what can be read only.
    pub(crate) fn next_leaf(&mut self, fs: &Files<'_>, io: &dyn BlockStore) -> Result<Option<Vec<DirEntry>>> {
        if let Some(fault) = self.fault.take() {
            return Err(*fault);
        }
        let Some(zap) = &mut self.zap else { return Ok(None) };
        let Some(entries) = zap.next_leaf(fs.objset(), io)? else { return Ok(None) };
        entries.into_iter().map(|e| DirEntry::new(self.dir, e)).collect::<Result<_>>().map(Some)
    }
}

impl Files<'_> {
    /// The names in a directory, from the first.
    pub fn entries(&self, io: &dyn BlockStore, dir: &Znode) -> Result<DirCursor> {
        if dir.kind != FileKind::Directory {
            return Err(ZplError::NotDirectory(format!("object {}", dir.id)));
        }
        let kind = dir.dnode().kind();
        let zap = match kind {
            ObjectType::DIRECTORY_CONTENTS => {
                let zap = zap::Cursor::new(self.objset(), io, dir.id, dir.dnode().clone());
                zap.map_err(ZplError::from)
            }
            ObjectType::NONE => Err(ZplError::corrupt("directory", dir.id, "its attributes are lost")),
            _ => {
                return Err(ZplError::corrupt(
                    "directory",
                    dir.id,
                    format!("its contents are of type {kind:?}"),
                ));
            }
        };
        match zap {
            Ok(zap) => Ok(DirCursor { dir: dir.id, zap: Some(Box::new(zap)), fault: None, damaged: false }),
            Err(e) if e.is_damage() => {
                Ok(DirCursor { dir: dir.id, zap: None, fault: Some(Box::new(e)), damaged: true })
            }
            Err(e) => Err(e),
        }
    }

    /// What `name` in `dir` leads to, compared as the file system compares names (`zfs_match_find`, zfs_dir.c).
    ///
    /// Where names are folded the directory is read through: the hash of a folded name depends on Unicode tables of the
    /// system that wrote it.
    ///
    /// What lost its name to damage is found by the number it is shown under.
    pub fn lookup(&self, io: &dyn BlockStore, dir: &Znode, name: &[u8]) -> Result<Option<DirEntry>> {
        let found = self.lookup_named(io, dir, name);
        if !matches!(found, Ok(Some(_))) && crate::nameless::is_number(name) {
            let nameless = self.nameless(io, dir.id).into_iter().find(|e| e.name == name);
            return nameless.map_or(found, |e| Ok(Some(e)));
        }
        found
    }

    fn lookup_named(&self, io: &dyn BlockStore, dir: &Znode, name: &[u8]) -> Result<Option<DirEntry>> {
        let mut cursor = self.entries(io, dir)?;
        if self.folding().is_exact() && self.case() == crate::Case::Sensitive {
            let value = zap::lookup_bytes(self.objset(), io, dir.id, name)?;
            return value
                .map(|value| DirEntry::new(dir.id, ZapEntry { name: name.to_vec(), value }))
                .transpose();
        }
        let folding: Folding = self.folding();
        let wanted = folding.fold(name);
        let mut same = None;
        while let Some(batch) = cursor.next_batch(self, io)? {
            for e in batch {
                if e.name == name {
                    return Ok(Some(e));
                }
                if same.is_none() && folding.fold(&e.name) == wanted {
                    same = Some(e);
                }
            }
        }
        Ok(same)
    }
}
