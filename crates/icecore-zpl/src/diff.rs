//! What is different between an earlier and a later state of one file system (`zfs diff`: `write_inuse_diffs_one` and
//! `write_free_diffs`, libzfs_diff.c; `zfs_obj_to_stats`, zfs_znode.c).
//!
//! Invariants:
//! 1. Every object that is in a block of dnodes written since, and every one that lost its number, is looked at
//!    once, in ascending order; nothing else is.
//! 2. What cannot be named is told as such, and the comparison goes on; only a block of dnodes that cannot be
//!    read ends it.
//! 3. Memory is bounded by what [`Names`] keeps, however many files changed.

use crate::error::{Result, ZplError};
use crate::filesystem::Files;
use crate::newer::{self, Piece};
use crate::whereis::Names;
use crate::znode::{FileKind, Time, Znode, has_znode};
use icecore_dmu::{BlockStore, ReadError, zap};
use icecore_format::{ObjectId, Txg};

/// The path of a file that was deleted while open: it has none. It does not begin with `/`.
const ON_DELETE_QUEUE: &[u8] = b"(on_delete_queue)";

/// How a file changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Contents or attributes.
    Modified,
    /// Names were made or removed; the number of them, never 0.
    Links(i64),
    /// It has another path now.
    Renamed(Vec<u8>),
}

/// A file that changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// How.
    pub change: Change,
    /// Its path from the root of the file system, `/` first; the earlier one where it was renamed or removed.
    /// `(on_delete_queue)` of a file that was deleted while open.
    pub path: Vec<u8>,
    /// What it is; what it was if it is gone.
    pub kind: FileKind,
    /// When it was last changed, as its attributes say: the later of both states that has it.
    pub ctime: Time,
}

/// What a comparison comes to.
#[derive(Clone, Debug)]
pub enum Finding {
    /// A file is different.
    File(Difference),
    /// An object may be different, but where it is or what cannot be told.
    Unknown {
        /// The object.
        object: ObjectId,
        /// In the earlier state, not in the later one.
        earlier: bool,
        /// Why.
        error: ZplError,
    },
}

/// One object in one of the states.
struct Look {
    /// Its attributes, if it is a file.
    znode: Option<Znode>,
    /// Its path, if it is a file and has one.
    path: Option<Vec<u8>>,
    /// It is on the list of files to be deleted.
    queued: bool,
    error: Option<ZplError>,
}

struct Side<'a> {
    fs: &'a Files<'a>,
    names: Names,
}

impl Side<'_> {
    fn look(&mut self, io: &dyn BlockStore, id: ObjectId) -> Look {
        let mut look = Look { znode: None, path: None, queued: false, error: None };
        if let Err(e) = self.fill(io, id, &mut look)
            && !is_absence(&e)
        {
            look.error = Some(e);
        }
        look
    }

    fn fill(&mut self, io: &dyn BlockStore, id: ObjectId, look: &mut Look) -> Result<()> {
        if !is_file(self.fs, io, id)? {
            return Ok(());
        }
        let z = look.znode.insert(self.fs.znode(io, id)?);
        if let Some(queue) = self.fs.delete_queue() {
            let name = format!("{:x}", id.0);
            look.queued = zap::lookup(self.fs.objset(), io, queue, &name)?.is_some();
        }
        if look.queued {
            look.path = Some(ON_DELETE_QUEUE.to_vec());
            return Ok(());
        }
        // The parent's number may have gone to something else since a link was removed: that is no damage.
        if z.parent != id && !is_file(self.fs, io, z.parent)? {
            return Ok(());
        }
        look.path = Some(self.fs.path_kept(io, z, &mut self.names)?);
        Ok(())
    }
}

fn is_file(fs: &Files<'_>, io: &dyn BlockStore, id: ObjectId) -> Result<bool> {
    fs.dnode(io, id).map(|dn| !dn.is_free() && has_znode(&dn))
}

/// Neither damage nor worth a word: the object, its parent or its name is not there.
fn is_absence(e: &ZplError) -> bool {
    matches!(e, ZplError::NotFound(_) | ZplError::Read(ReadError::NoObject(_)))
}

/// Tells how `to` differs from `from`, which is an earlier state of the same file system taken at txg `since`. Both are
/// compared as they lie on disk. `tell` ends the comparison with an error of its own.
///
/// # Errors
/// A block of dnodes could not be read, or makes no sense.
pub fn diff<E: From<ZplError>>(
    io: &dyn BlockStore,
    from: &Files<'_>,
    to: &Files<'_>,
    since: Txg,
    tell: &mut dyn FnMut(Finding) -> Result<(), E>,
) -> Result<(), E> {
    let shares = to.shares();
    let mut from = Side { fs: from, names: Names::default() };
    let mut to_side = Side { fs: to, names: Names::default() };
    newer::walk(io, to.objset(), since, &mut |piece| match piece {
        Piece::Used(id) if Some(id) == shares => Ok(()),
        Piece::Used(id) => compare(io, id, &mut from, &mut to_side, tell),
        Piece::Free(first, last) => {
            let mut before = ObjectId(first.0.saturating_sub(1));
            loop {
                let next = from.fs.objset().next_object(io, before).map_err(ZplError::from)?;
                let Some(id) = next.filter(|id| *id <= last) else { return Ok(()) };
                if Some(id) != shares {
                    gone(io, id, &mut from, tell)?;
                }
                before = id;
            }
        }
    })
}

type Tell<'a, E> = &'a mut dyn FnMut(Finding) -> Result<(), E>;

/// The number `id` belongs to nothing any more.
fn gone<E: From<ZplError>>(
    io: &dyn BlockStore,
    id: ObjectId,
    from: &mut Side<'_>,
    tell: Tell<'_, E>,
) -> Result<(), E> {
    let look = from.look(io, id);
    if let Some(error) = look.error {
        return tell(Finding::Unknown { object: id, earlier: true, error });
    }
    match (look.znode, look.path) {
        (Some(z), Some(path)) if !look.queued => tell(file(Change::Removed, path, &z)),
        _ => Ok(()),
    }
}

fn compare<E: From<ZplError>>(
    io: &dyn BlockStore,
    id: ObjectId,
    from: &mut Side<'_>,
    to: &mut Side<'_>,
    tell: Tell<'_, E>,
) -> Result<(), E> {
    let (mut old, mut new) = (from.look(io, id), to.look(io, id));
    // One word for one object.
    let error = old.error.take().map(|e| (e, true)).or_else(|| new.error.take().map(|e| (e, false)));
    if let Some((error, earlier)) = error {
        // A parent that is no directory any more: a link was removed, and its number went to a file. Of what is
        // damaged in one state nothing is said: it would look like added or removed.
        let stale = matches!(error, ZplError::NotDirectory(_));
        tell(Finding::Unknown { object: id, earlier, error })?;
        if !stale {
            return Ok(());
        }
    }
    let change = match (&old.znode, &new.znode) {
        (Some(f), Some(t)) => link_change(f, t),
        _ => 0,
    };
    let (old, new) = match (old, new) {
        (Look { path: None, .. }, Look { path: None, .. }) => return Ok(()),
        // A name is found in one state only: so it does where the link it was known by is gone.
        (Look { path: None, .. }, Look { znode: Some(t), path: Some(path), .. }) => {
            let how = if change == 0 { Change::Added } else { Change::Links(change) };
            return tell(file(how, path, &t));
        }
        (Look { znode: Some(f), path: Some(path), .. }, Look { path: None, .. }) => {
            let how = if change == 0 { Change::Removed } else { Change::Links(change) };
            return tell(file(how, path, &f));
        }
        (Look { znode: Some(f), path: Some(a), .. }, Look { znode: Some(t), path: Some(b), .. }) => {
            ((f, a), (t, b))
        }
        _ => return Ok(()),
    };
    let ((f, old_path), (t, new_path)) = (old, new);
    if f.generation != t.generation || f.kind != t.kind {
        tell(file(Change::Removed, old_path, &f))?;
        return tell(file(Change::Added, new_path, &t));
    }
    if f.ctime == t.ctime {
        return Ok(());
    }
    if change != 0 {
        let path = if change > 0 { old_path } else { new_path };
        return tell(file(Change::Links(change), path, &t));
    }
    if old_path == new_path {
        return tell(file(Change::Modified, old_path, &t));
    }
    tell(file(Change::Renamed(new_path), old_path, &t))
}

/// Links won or lost; 0 for directories, whose links are their directories, and for what has none left.
fn link_change(f: &Znode, t: &Znode) -> i64 {
    if f.kind == FileKind::Directory || t.kind == FileKind::Directory || f.links == 0 || t.links == 0 {
        return 0;
    }
    #[allow(clippy::cast_possible_wrap)] // the difference of two counts, negative where there are fewer
    let change = t.links.wrapping_sub(f.links) as i64;
    change
}

fn file(change: Change, path: Vec<u8>, z: &Znode) -> Finding {
    Finding::File(Difference { change, path, kind: z.kind, ctime: z.ctime })
}
