//! What the kernel keeps of a mount's files, and the files that are open: told by its own lookups, opens and forgets.
//!
//! It serves two ends: caches are emptied name by name when a command changed the dataset under the mount, and a file that
//! loses its last name while open stays until it is closed.

use crate::ino::Node;
use fuser::INodeNo;
use icecore_format::ObjectId;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

struct Name {
    lookups: u64,
    parent: u64,
    name: Vec<u8>,
}

/// Files the kernel knows, by number: where it last found them.
#[derive(Default)]
pub(crate) struct Known(BTreeMap<u64, Name>);

impl Known {
    /// The kernel was told what `name` in `parent` is.
    pub fn told(&mut self, ino: INodeNo, parent: INodeNo, name: &[u8]) {
        let known = self.0.entry(ino.0);
        let known = known.or_insert(Name { lookups: 0, parent: parent.0, name: Vec::new() });
        known.lookups += 1;
        if known.parent != parent.0 || known.name != name {
            (known.parent, known.name) = (parent.0, name.to_vec());
        }
    }
    /// It forgets so many tellings.
    pub fn forgets(&mut self, ino: INodeNo, lookups: u64) {
        if let Some(known) = self.0.get_mut(&ino.0) {
            known.lookups = known.lookups.saturating_sub(lookups);
            if known.lookups == 0 {
                self.0.remove(&ino.0);
            }
        }
    }
    /// All that lie in the dataset at the top, in which others are mounted at `mounts`.
    pub fn all(&self, mounts: &[PathBuf]) -> Vec<Place> {
        let on_the_way = self.on_the_way(mounts);
        let top = |n: u64| matches!(Node::from_number(n), Some(Node::Top | Node::Object(0, _)));
        let all = self.0.iter().filter(|(ino, _)| top(**ino));
        let place = |(ino, n): (&u64, &Name)| Place {
            ino: INodeNo(*ino),
            parent: INodeNo(n.parent),
            name: n.name.clone(),
            leads_to_mount: on_the_way.contains(ino),
        };
        all.map(place).collect()
    }
    /// Directories that are mounted upon, and those above them.
    fn on_the_way(&self, mounts: &[PathBuf]) -> BTreeSet<u64> {
        let mut out = BTreeSet::new();
        if mounts.is_empty() {
            return out;
        }
        let by_name: BTreeMap<(u64, &[u8]), u64> =
            self.0.iter().map(|(ino, n)| ((n.parent, n.name.as_slice()), *ino)).collect();
        for path in mounts {
            let mut at = INodeNo::ROOT.0;
            for part in path {
                let Some(ino) = by_name.get(&(at, part.as_bytes())) else { break };
                out.insert(*ino);
                at = *ino;
            }
        }
        out
    }
}

/// Where a file was last found.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub ino: INodeNo,
    pub parent: INodeNo,
    pub name: Vec<u8>,
    /// Something is mounted there or below.
    pub leads_to_mount: bool,
}

/// Files of the dataset at the top that are open.
#[derive(Default)]
pub(crate) struct Opened {
    count: BTreeMap<u64, usize>,
    orphans: BTreeSet<u64>,
}

impl Opened {
    pub fn open(&mut self, id: ObjectId) {
        *self.count.entry(id.0).or_default() += 1;
    }
    /// One handle less; whether that was the last of a file without a name.
    pub fn close(&mut self, id: ObjectId) -> bool {
        match self.count.get_mut(&id.0) {
            Some(n) if *n > 1 => {
                *n -= 1;
                false
            }
            _ => {
                self.count.remove(&id.0);
                self.orphans.remove(&id.0)
            }
        }
    }
    pub fn is_open(&self, id: ObjectId) -> bool {
        self.count.contains_key(&id.0)
    }
    /// An open file lost its last name.
    pub fn orphan(&mut self, id: ObjectId) {
        self.orphans.insert(id.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_and_known_is_counted() {
        let mut k = Known::default();
        k.told(INodeNo(40), INodeNo(1), b"a");
        k.told(INodeNo(40), INodeNo(1), b"b");
        k.told(INodeNo(1 << 50 | 40), INodeNo(1), b"of a snapshot");
        k.forgets(INodeNo(40), 1);
        k.told(INodeNo(41), INodeNo(40), b"c");
        let place = |ino, parent, name: &[u8], leads_to_mount| Place {
            ino: INodeNo(ino),
            parent: INodeNo(parent),
            name: name.to_vec(),
            leads_to_mount,
        };
        assert_eq!(k.all(&[]), [place(40, 1, b"b", false), place(41, 40, b"c", false)]);
        assert_eq!(k.all(&["b".into()]), [place(40, 1, b"b", true), place(41, 40, b"c", false)]);
        assert_eq!(k.all(&["b/c/d".into()]), [place(40, 1, b"b", true), place(41, 40, b"c", true)]);
        k.forgets(INodeNo(41), 1);
        k.forgets(INodeNo(40), 1);
        assert_eq!(k.all(&[]), []);
        let (mut o, id) = (Opened::default(), ObjectId(7));
        o.open(id);
        o.open(id);
        o.orphan(id);
        assert!(!o.close(id) && o.is_open(id) && o.close(id) && !o.is_open(id));
    }
}
