//! Names of a directory in the order and at the places a program was told.
//!
//! Invariants:
//! 1. The names of a directory of up to [`WHOLE_MAX`] entries are taken once, when its reading begins: what is made or
//!    removed meanwhile moves no other name. Longer ones, where nobody changes them, are read a leaf at a time, and from their
//!    beginning after a txg.
//! 2. A name that no file can have is not handed to the kernel.

use crate::ino::{Node, ViewId};
use crate::views::{Cx, Open, Snapdir};
use fuser::FileType;
use icecore_format::ObjectId;
use icecore_zpl::{DirCursor, DirEntry, Files, Result, ZplError, is_safe_name};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Entries of directories that are listed at once.
const WHOLE_MAX: u64 = 1 << 17;
/// Of a dataset that is open for change more are: what was removed since must not move the places of the others.
const WHOLE_MAX_LIVE: u64 = 1 << 22;

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
}

fn shown(name: &str, node: Node) -> Shown {
    Shown { name: name.as_bytes().to_vec(), node: Some(node), kind: FileType::Directory }
}

impl Listing {
    /// The names from place `from` on, as many as are at hand; none at the end.
    pub fn names(&mut self, cx: &Cx<'_>, node: Node, from: u64) -> Result<Vec<Shown>> {
        let moved = match &self.rest {
            Some(rest) => cx.views.open(cx.pool, rest.view)?.facts.id != rest.open.facts.id,
            _ => false,
        };
        if !self.begun || from == 0 || from < self.base || moved {
            self.begin(cx, node)?;
        }
        loop {
            let skip = from.saturating_sub(self.base);
            if skip < self.names.len() as u64 {
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                return Ok(self.names.iter().skip(skip).take(1024).cloned().collect());
            }
            if !self.more(cx)? {
                return Ok(Vec::new());
            }
        }
    }

    fn begin(&mut self, cx: &Cx<'_>, node: Node) -> Result<()> {
        let (pool, views) = (cx.pool, cx.views);
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
        let Some((view, id, at)) = cx.place(node)? else { return Ok(()) };
        let fs = at.fs();
        let z = fs.znode(pool.io(), id)?;
        let mut hidden = BTreeSet::new();
        if id == fs.root() {
            self.names.push_back(shown("..", views.root(pool, views.above(view))?));
            if at.facts.snapdir == Snapdir::Visible {
                self.names.push_back(shown(".zfs", Node::Control(view)));
            }
            hidden.insert(b".zfs".to_vec());
            for name in views.children(pool, &at.facts)? {
                self.names.push_back(Shown { node: None, ..shown(&name, node) });
                hidden.insert(name.into_bytes());
            }
        } else {
            self.names.push_back(shown("..", object(fs.root(), view, z.parent)));
        }
        let mut cursor = fs.entries(pool.io(), &z)?;
        match at.kept() {
            Some(open) if z.size > WHOLE_MAX => {
                self.rest = Some(Rest { open: open.clone(), view, cursor, hidden });
            }
            None if z.size > WHOLE_MAX_LIVE => {
                return Err(ZplError::TooLarge(format!("a directory of {} names", z.size)));
            }
            _ => {
                while let Some(batch) = cursor.next_batch(fs, pool.io())? {
                    self.take(batch, fs, view, &hidden);
                }
            }
        }
        Ok(())
    }

    /// Takes the next leaf; false after the last.
    fn more(&mut self, cx: &Cx<'_>) -> Result<bool> {
        let Some(mut rest) = self.rest.take() else { return Ok(false) };
        let Some(batch) = rest.cursor.next_batch(&rest.open.fs, cx.pool.io())? else { return Ok(false) };
        self.base += self.names.len() as u64;
        self.names.clear();
        self.take(batch, &rest.open.fs, rest.view, &rest.hidden);
        self.rest = Some(rest);
        Ok(true)
    }

    fn take(&mut self, batch: Vec<DirEntry>, fs: &Files<'_>, view: ViewId, hidden: &BTreeSet<Vec<u8>>) {
        for e in batch {
            if is_safe_name(&e.name) && !hidden.contains(&e.name) {
                let kind = e.kind.map_or(FileType::RegularFile, crate::attr::file_type);
                let node = Some(object(fs.root(), view, e.object));
                self.names.push_back(Shown { name: e.name, node, kind });
            }
        }
    }
}

fn object(root: ObjectId, view: ViewId, id: ObjectId) -> Node {
    if view == 0 && id == root { Node::Top } else { Node::Object(view, id) }
}
