//! A tree of directories, walked once, from the top down.
//!
//! Invariants:
//! 1. A directory is entered once, whatever entries lead to it: OpenZFS never has two, a hostile pool may tie a knot.
//! 2. At most [`DEPTH_MAX`] levels, held in a list and not on the stack.
//! 3. What cannot be read is one failed step; the walk goes on beside it, in a directory behind it, and below a directory
//!    whose attributes are lost.

use crate::dir::{DirCursor, DirEntry};
use crate::error::{Result, ZplError};
use crate::filesystem::Files;
use crate::name::is_safe_name;
use crate::znode::{FileKind, Znode};
use icecore_dmu::BlockStore;
use icecore_format::ObjectId;
use std::collections::{BTreeSet, VecDeque};

/// Levels of directories below the start of a walk.
pub const DEPTH_MAX: usize = 2048;
/// Files whose attributes are read at once.
const BATCH: usize = 256;

/// What a walk comes to next. Paths are relative to its start.
#[derive(Debug)]
pub enum Step {
    /// A file or directory. A directory's files follow, unless [`Walk::skip`] is called.
    File {
        /// Path from the start of the walk, without a leading `/`.
        path: Vec<u8>,
        /// Its attributes.
        znode: Box<Znode>,
    },
    /// Everything in this directory has been told. Every directory that is not skipped is left, also one that failed.
    Leave {
        /// Path from the start of the walk; empty for the start itself.
        path: Vec<u8>,
        /// Its attributes.
        znode: Box<Znode>,
    },
    /// Something could not be read, or may not be followed.
    Failed {
        /// Path from the start of the walk; the last name may be one no file can have.
        path: Vec<u8>,
        /// Why.
        error: ZplError,
    },
}

struct Level {
    dir: Znode,
    path: Vec<u8>,
    /// `None` when there is nothing more to read, or nothing more that can be.
    cursor: Option<DirCursor>,
    entries: VecDeque<DirEntry>,
    ready: VecDeque<(DirEntry, Result<Znode>)>,
}

/// A walk in progress.
pub struct Walk {
    levels: Vec<Level>,
    seen: BTreeSet<ObjectId>,
    enter: Option<(Znode, Vec<u8>)>,
    /// A directory that was told as failed and is told now, in so far as it can be entered.
    lost: Option<(Znode, Vec<u8>)>,
}

impl Walk {
    /// A walk of what is below directory `top`.
    pub fn new(fs: &Files<'_>, io: &dyn BlockStore, top: Znode) -> Result<Self> {
        let mut walk = Self { levels: Vec::new(), seen: BTreeSet::new(), enter: None, lost: None };
        match walk.descend(fs, io, top, Vec::new()) {
            None => Ok(walk),
            Some(error) => Err(error),
        }
    }

    /// Does not enter the directory told last.
    pub fn skip(&mut self) {
        self.enter = None;
    }

    /// How many directories the last step lies below the start; 1 for its own files.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Files of the present directory that come next and whose attributes are known already: what to read ahead.
    pub fn ahead(&self) -> impl Iterator<Item = &Znode> {
        self.levels.last().into_iter().flat_map(|l| l.ready.iter()).filter_map(|(_, z)| z.as_ref().ok())
    }

    /// Enters a directory, if only to leave it: what hinders is returned.
    fn descend(
        &mut self,
        fs: &Files<'_>,
        io: &dyn BlockStore,
        dir: Znode,
        path: Vec<u8>,
    ) -> Option<ZplError> {
        let cursor = if self.levels.len() > DEPTH_MAX {
            Err(ZplError::TooLarge(format!("more than {DEPTH_MAX} directories in each other")))
        } else if !self.seen.insert(dir.id) {
            Err(ZplError::corrupt("directory", dir.id, "it has been met under another name already"))
        } else {
            fs.entries(io, &dir)
        };
        let (cursor, error) = match cursor {
            Ok(cursor) => (Some(cursor), None),
            Err(error) => (None, Some(error)),
        };
        self.levels.push(Level { dir, path, cursor, entries: VecDeque::new(), ready: VecDeque::new() });
        error
    }

    /// The next step; `None` after the start was left.
    pub fn next(&mut self, fs: &Files<'_>, io: &dyn BlockStore) -> Option<Step> {
        if let Some((dir, path)) = self.lost.take() {
            self.enter = Some((dir.clone(), path.clone()));
            return Some(Step::File { path, znode: Box::new(dir) });
        }
        if let Some((dir, path)) = self.enter.take()
            && let Some(error) = self.descend(fs, io, dir, path.clone())
        {
            return Some(Step::Failed { path, error });
        }
        let level = self.levels.last_mut()?;
        let (entry, znode) = match level.next(fs, io) {
            Ok(Some(next)) => next,
            Ok(None) => {
                let done = self.levels.pop()?;
                return Some(Step::Leave { path: done.path, znode: Box::new(done.dir) });
            }
            Err(error) => return Some(Step::Failed { path: level.path.clone(), error }),
        };
        let mut path = level.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&entry.name);
        if !is_safe_name(&entry.name) {
            let name = String::from_utf8_lossy(&entry.name).escape_debug().to_string();
            return Some(Step::Failed { path, error: ZplError::UnsafeName(name) });
        }
        match znode {
            Err(error) => {
                let lost = fs.directory_or(entry.object, entry.kind, Err(error.clone()));
                self.lost = lost.ok().map(|dir| (dir, path.clone()));
                Some(Step::Failed { path, error })
            }
            Ok(znode) => {
                if znode.kind == FileKind::Directory {
                    self.enter = Some((znode.clone(), path.clone()));
                }
                Some(Step::File { path, znode: Box::new(znode) })
            }
        }
    }
}

impl Level {
    fn next(&mut self, fs: &Files<'_>, io: &dyn BlockStore) -> Result<Option<(DirEntry, Result<Znode>)>> {
        loop {
            if let Some(next) = self.ready.pop_front() {
                return Ok(Some(next));
            }
            if self.entries.is_empty() {
                let Some(cursor) = &mut self.cursor else { return Ok(None) };
                match cursor.next_batch(fs, io)? {
                    Some(batch) => self.entries.extend(batch),
                    None => return Ok(None),
                }
                // Neighbours on disk are neighbours in number.
                self.entries.make_contiguous().sort_by_key(|e| e.object);
            }
            let now: Vec<DirEntry> = self.entries.drain(..self.entries.len().min(BATCH)).collect();
            let ids: Vec<ObjectId> = now.iter().map(|e| e.object).collect();
            self.ready.extend(now.into_iter().zip(fs.znodes(io, &ids)));
        }
    }
}
