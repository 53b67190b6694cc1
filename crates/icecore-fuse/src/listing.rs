//! Names of a directory in the order and at the places a program was told.
//!
//! Invariants:
//! 1. The names of a directory of up to [`WHOLE_MAX`] entries are taken once, when its reading begins: what is made or
//!    removed meanwhile moves no other name. Longer ones are read a leaf at a time, and from their beginning after a txg.
//! 2. A name that no file can have is not handed to the kernel.

use crate::ino::{Node, ViewId};
use crate::views::{Open, Snapdir, Views};
use fuser::FileType;
use icecore_format::ObjectId;
use icecore_pool::Pool;
use icecore_zpl::{DirCursor, Result, is_safe_name};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Entries of directories that are listed at once.
const WHOLE_MAX: u64 = 1 << 17;

/// A name to be shown.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    /// The name.
    pub name: Vec<u8>,
    /// What it leads to, where that is told without looking.
    pub node: Option<Node>,
    /// Its type.
    pub kind: FileType,
}

/// An open directory.
#[derive(Default)]
pub(crate) struct Listing {
    /// Place of the first of `names`.
    base: u64,
    names: VecDeque<Shown>,
    rest: Option<Rest>,
    begun: bool,
}

struct Rest {
    open: Arc<Open>,
    view: ViewId,
    cursor: DirCursor,
    /// Names that others hide.
    hidden: BTreeSet<Vec<u8>>,
    whole: bool,
}

fn shown(name: &str, node: Node) -> Shown {
    Shown { name: name.as_bytes().to_vec(), node: Some(node), kind: FileType::Directory }
}

impl Listing {
    /// The names from place `from` on, as many as are at hand; none at the end.
    pub fn names(&mut self, pool: &Pool, views: &Views, node: Node, from: u64) -> Result<Vec<Shown>> {
        let moved = match &self.rest {
            Some(rest) if !rest.whole => views.open(pool, rest.view)?.id != rest.open.id,
            _ => false,
        };
        if !self.begun || from == 0 || from < self.base || moved {
            self.begin(pool, views, node)?;
        }
        loop {
            let skip = from.saturating_sub(self.base);
            if skip < self.names.len() as u64 {
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                return Ok(self.names.iter().skip(skip).take(1024).cloned().collect());
            }
            if !self.more(pool)? {
                return Ok(Vec::new());
            }
        }
    }

    fn begin(&mut self, pool: &Pool, views: &Views, node: Node) -> Result<()> {
        *self = Self { begun: true, ..Self::default() };
        self.names.push_back(shown(".", node));
        match node {
            Node::Control(view) => {
                self.names.push_back(shown("..", views.root(pool, view)?));
                self.names.push_back(shown("snapshot", Node::Snapshots(view)));
                return Ok(());
            }
            Node::Snapshots(view) => {
                self.names.push_back(shown("..", Node::Control(view)));
                for name in views.snapshots(pool, view)? {
                    self.names.push_back(Shown { node: None, ..shown(&name, node) });
                }
                return Ok(());
            }
            Node::Top | Node::Object(..) => {}
        }
        let Some((view, id, open)) = views.place(pool, node)? else { return Ok(()) };
        let z = open.fs.znode(pool.io(), id)?;
        let mut hidden = BTreeSet::new();
        if id == open.fs.root() {
            self.names.push_back(shown("..", views.root(pool, views.above(view))?));
            if open.snapdir == Snapdir::Visible {
                self.names.push_back(shown(".zfs", Node::Control(view)));
            }
            hidden.insert(b".zfs".to_vec());
            for name in views.children(pool, &open)? {
                self.names.push_back(Shown { node: None, ..shown(&name, node) });
                hidden.insert(name.into_bytes());
            }
        } else {
            self.names.push_back(shown("..", object(&open, view, z.parent)));
        }
        let cursor = open.fs.entries(pool.io(), &z)?;
        let whole = z.size <= WHOLE_MAX;
        self.rest = Some(Rest { open, view, cursor, hidden, whole });
        while whole && self.more(pool)? {}
        Ok(())
    }

    /// Takes the next leaf; false after the last.
    fn more(&mut self, pool: &Pool) -> Result<bool> {
        let Some(rest) = &mut self.rest else { return Ok(false) };
        let Some(batch) = rest.cursor.next_batch(&rest.open.fs, pool.io())? else {
            self.rest = None;
            return Ok(false);
        };
        if !rest.whole {
            self.base += self.names.len() as u64;
            self.names.clear();
        }
        for e in batch {
            if is_safe_name(&e.name) && !rest.hidden.contains(&e.name) {
                let kind = e.kind.map_or(FileType::RegularFile, crate::attr::file_type);
                let node = Some(object(&rest.open, rest.view, e.object));
                self.names.push_back(Shown { name: e.name, node, kind });
            }
        }
        Ok(true)
    }
}

fn object(open: &Open, view: ViewId, id: ObjectId) -> Node {
    if view == 0 && id == open.fs.root() { Node::Top } else { Node::Object(view, id) }
}
