//! Paths: from the root of a file system through directories and symbolic links to one file.
//!
//! Symbolic links are followed within the dataset only. An absolute target, or one that climbs above the root, leads to
//! files that are not in the dataset: that is an error and not another file that happens to have the same path here.

use crate::error::{Result, ZplError};
use crate::filesystem::Files;
use crate::znode::{FileKind, Znode};
use icecore_dmu::BlockStore;
use std::collections::VecDeque;

/// Symbolic links that are followed on one path, as Linux does (`MAXSYMLINKS`).
const LINKS_MAX: u32 = 40;

/// Whether a symbolic link at the end of a path is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follow {
    /// It is.
    Last,
    /// It is the file meant.
    Never,
}

/// A file and how it was reached.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The file.
    pub znode: Znode,
    /// Its names from the root, links followed, as the directories spell them. Empty for the root.
    pub names: Vec<Vec<u8>>,
}

impl Resolved {
    /// The names joined with `/`.
    #[must_use]
    pub fn path(&self) -> Vec<u8> {
        self.names.join(&b'/')
    }
}

impl Files<'_> {
    /// The file at `path` from the root; empty parts and a leading `/` mean nothing, a trailing one wants a directory.
    pub fn resolve(&self, io: &dyn BlockStore, path: &[u8], follow: Follow) -> Result<Resolved> {
        let root = self.directory_or(self.root(), Some(FileKind::Directory), self.znode(io, self.root()))?;
        let mut here = vec![(Vec::new(), root)];
        let mut todo = parts(path);
        let wants_dir = path.ends_with(b"/");
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            let Some((_, dir)) = here.last() else { break };
            if dir.kind != FileKind::Directory {
                return Err(ZplError::NotDirectory(shown(&here, &[])));
            }
            if part == b".." {
                if here.len() == 1 {
                    return Err(ZplError::LeadsOut(String::from_utf8_lossy(path).into_owned()));
                }
                here.pop();
                continue;
            }
            let found =
                self.lookup(io, dir, &part)?.ok_or_else(|| ZplError::NotFound(shown(&here, &part)))?;
            let z = self.directory_or(found.object, found.kind, self.znode(io, found.object))?;
            let last = todo.is_empty();
            if z.kind == FileKind::Symlink && (!last || follow == Follow::Last || wants_dir) {
                links += 1;
                if links > LINKS_MAX {
                    return Err(ZplError::TooManyLinks(shown(&here, &part)));
                }
                let target = self.readlink(io, &z)?;
                if target.starts_with(b"/") {
                    return Err(ZplError::LeadsOut(shown(&here, &part)));
                }
                for step in parts(&target).into_iter().rev() {
                    todo.push_front(step);
                }
                continue;
            }
            here.push((found.name, z));
        }
        let path = shown(&here, &[]);
        let mut names: Vec<Vec<u8>> = Vec::with_capacity(here.len());
        let mut znode = None;
        for (name, z) in here {
            names.push(name);
            znode = Some(z);
        }
        names.remove(0);
        match znode {
            Some(z) if wants_dir && z.kind != FileKind::Directory => Err(ZplError::NotDirectory(path)),
            Some(znode) => Ok(Resolved { znode, names }),
            None => Err(ZplError::NotFound(path)),
        }
    }
}

/// The parts of a path that say something.
fn parts(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|b| *b == b'/').filter(|p| !matches!(*p, b"" | b".")).map(<[u8]>::to_vec).collect()
}

fn shown(here: &[(Vec<u8>, Znode)], next: &[u8]) -> String {
    let mut all: Vec<&[u8]> = here.iter().skip(1).map(|(name, _)| name.as_slice()).collect();
    if !next.is_empty() {
        all.push(next);
    }
    if all.is_empty() { "/".into() } else { String::from_utf8_lossy(&all.join(&b'/')).into_owned() }
}
