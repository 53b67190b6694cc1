//! The server of a mount: what a request needs to be answered. The requests themselves are in `requests`, those that change
//! something end in `change`.
//!
//! Locks are taken in this order: the pool, the live head, a handle, one of the small tables. None but the pool is waited for
//! with another request's work under it.

use crate::attr;
use crate::blocks::Blocks;
use crate::change::entry_of;
use crate::errno::errno;
use crate::ino::Node;
use crate::known::{Known, Opened};
use crate::listing::{Listing, Shown};
use crate::live::Live;
use crate::reading::Reader;
use crate::views::{At, Cx, Facts, Snapdir, Views};
use fuser::{Errno, FileAttr, FileHandle, INodeNo, ReplyXattr};
use icecore_dsl::Hold;
use icecore_format::ObjectId;
use icecore_pool::{Pool, Shared};
use icecore_zpl::{Znode, ZplError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// How long the kernel may believe what it was told of a dataset that can change.
pub(crate) const BRIEFLY: Duration = Duration::from_secs(1);
/// And of one that cannot.
const LONG: Duration = Duration::from_secs(3600);
/// Times that a request looks for a head that others change under it.
const TRIES: u32 = 8;

/// An open file.
pub(crate) struct File {
    /// Of the dataset at the top: the object.
    pub object: Option<ObjectId>,
    pub reader: Reader,
    /// Its time of reading was looked after.
    pub accessed: AtomicBool,
    /// Losses of the pool that its fsync told, or that were before it.
    pub losses: AtomicU64,
}

pub(crate) enum Handle {
    File(File),
    Dir(Mutex<Listing>),
}

/// The server of one mount.
pub(crate) struct Server {
    /// The pool; none while its devices have failed.
    pub shared: RwLock<Option<Arc<Shared>>>,
    pub views: Views,
    /// The head at the top, as dataset object and guid, where that can be changed at all.
    pub head: Option<(u64, u64)>,
    /// It may be changed.
    pub writable: AtomicBool,
    /// The dataset is in use.
    pub hold: Mutex<Option<Hold>>,
    pub live: RwLock<Option<Live>>,
    pub known: Mutex<Known>,
    pub opened: Mutex<Opened>,
    pub blocks: Mutex<Blocks>,
    handles: Mutex<BTreeMap<u64, Arc<Handle>>>,
    next_handle: AtomicU64,
}

pub(crate) type Answer<T> = Result<T, Errno>;

/// What a name leads to.
pub(crate) struct Entry {
    pub attr: FileAttr,
    pub generation: u64,
    pub ttl: Duration,
}

pub(crate) fn locked<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in here is a cache or a place: as good after a panic elsewhere as before.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn ttl(facts: &Facts) -> Duration {
    if facts.frozen { LONG } else { BRIEFLY }
}

impl Server {
    pub fn new(shared: Arc<Shared>, views: Views, head: Option<(u64, u64)>, writable: bool) -> Self {
        Self {
            shared: RwLock::new(Some(shared)),
            views,
            head,
            writable: AtomicBool::new(writable),
            hold: Mutex::default(),
            live: RwLock::default(),
            known: Mutex::default(),
            opened: Mutex::default(),
            blocks: Mutex::default(),
            handles: Mutex::default(),
            next_handle: AtomicU64::new(1),
        }
    }

    pub fn pool(&self) -> Answer<Arc<Shared>> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Errno::EIO)
    }

    /// Runs a request with the pool at hand.
    pub fn with<T>(&self, ino: INodeNo, f: impl FnOnce(&Cx<'_>, Node) -> Result<T, ZplError>) -> Answer<T> {
        let node = Node::from_number(ino.0).ok_or(Errno::ESTALE)?;
        let shared = self.pool()?;
        let live_wanted = self.head.is_some() && node.view() == 0;
        for _ in 0..TRIES {
            let pool = shared.read();
            let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
            let fresh = live
                .as_ref()
                .filter(|l| l.epoch == shared.epoch() && pool.dsl.peek(l.facts.dataset.obj).is_some());
            if fresh.is_some() || !live_wanted {
                let cx = Cx { pool: &pool, views: &self.views, live: fresh };
                return f(&cx, node).map_err(|e| errno(&e));
            }
            drop((live, pool));
            let mut pool = shared.files();
            self.refresh(&shared, &mut pool)?;
        }
        Err(Errno::EAGAIN)
    }

    /// Opens the head at the top anew, if a command may have changed it.
    pub fn refresh(&self, shared: &Shared, pool: &mut Pool) -> Answer<()> {
        let Some(head) = self.head else { return Ok(()) };
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let fresh = live.as_ref().is_some_and(|l| l.epoch == shared.epoch());
        if fresh && pool.dsl.peek(head.0).is_some() {
            return Ok(());
        }
        *live = None;
        *live = Some(Live::open(pool, head, shared.epoch()).map_err(|e| errno(&e))?);
        Ok(())
    }

    /// Runs a request about a file.
    pub fn with_file<T>(
        &self,
        ino: INodeNo,
        f: impl FnOnce(&Cx<'_>, &At<'_>, &Znode) -> Result<T, ZplError>,
    ) -> Answer<Option<T>> {
        self.with(ino, |cx, node| {
            let Some((_, id, at)) = cx.place(node)? else { return Ok(None) };
            let z = at.fs().znode(cx.pool.io(), id)?;
            f(cx, &at, &z).map(Some)
        })
    }

    pub fn entry(&self, cx: &Cx<'_>, node: Node) -> Result<Entry, ZplError> {
        if let Some((view, id, at)) = cx.place(node)? {
            return entry_of(&at, cx.pool.io(), view, id);
        }
        let (Node::Control(view) | Node::Snapshots(view)) = node else {
            return Err(ZplError::NotFound(String::new()));
        };
        let at = cx.at(view)?;
        let root = entry_of(&at, cx.pool.io(), view, at.fs().root())?;
        Ok(Entry { attr: attr::made_up(node, &root.attr), generation: 0, ttl: BRIEFLY })
    }

    /// What `name` in directory `node` is.
    pub fn find(&self, cx: &Cx<'_>, node: Node, name: &[u8]) -> Result<Node, ZplError> {
        let none = || ZplError::NotFound(String::new());
        match node {
            Node::Control(view) if name == b"snapshot" => return Ok(Node::Snapshots(view)),
            Node::Control(_) => return Err(none()),
            Node::Snapshots(view) => {
                let name = std::str::from_utf8(name).map_err(|_| none())?;
                return self.views.snapshot(cx.pool, view, name);
            }
            Node::Top | Node::Object(..) => {}
        }
        let (view, id, at) = cx.place(node)?.ok_or_else(none)?;
        if id == at.fs().root() {
            if name == b".zfs" {
                let absent = at.facts.snapdir == Snapdir::Absent;
                return if absent { Err(none()) } else { Ok(Node::Control(view)) };
            }
            if let Some(child) = self.views.child(cx.pool, view, &at.facts, name)? {
                return Ok(child);
            }
        }
        let io = cx.pool.io();
        let dir = at.fs().znode(io, id)?;
        match at.fs().lookup(io, &dir, name)? {
            Some(found) => Ok(Node::Object(view, found.object)),
            // Longer names are found where a pool has them (`longname`); nothing here makes them.
            None if name.len() > icecore_zpl::write::NAME_MAX => {
                Err(ZplError::NameTooLong(String::from_utf8_lossy(name).into_owned()))
            }
            None => Err(none()),
        }
    }

    pub fn new_handle(&self, handle: Handle) -> FileHandle {
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        locked(&self.handles).insert(number, Arc::new(handle));
        FileHandle(number)
    }
    pub fn drop_handle(&self, fh: FileHandle) -> Option<Arc<Handle>> {
        locked(&self.handles).remove(&fh.0)
    }
    pub fn handle(&self, fh: FileHandle) -> Option<Arc<Handle>> {
        locked(&self.handles).get(&fh.0).cloned()
    }

    pub fn list(&self, ino: INodeNo, fh: FileHandle, from: u64) -> Answer<Vec<Shown>> {
        let handle = self.handle(fh).ok_or(Errno::EBADF)?;
        let Handle::Dir(listing) = &*handle else { return Err(Errno::EBADF) };
        // The pool first, then the handle: a request that waits for the pool holds nothing.
        self.with(ino, |cx, node| locked(listing).names(cx, node, from))
    }

    pub fn statfs_words(&self, cx: &Cx<'_>, node: Node) -> Result<[u64; 5], ZplError> {
        /// Unit of the counts (`SPA_MINBLOCKSIZE`).
        const UNIT: u64 = 512;
        let facts = cx.at(node.view())?.facts;
        let (io, dsl) = (cx.pool.io(), &cx.pool.dsl);
        let ds = dsl.dataset(io, facts.dataset.obj)?;
        let grown =
            cx.live.and_then(|l| dsl.peek(l.facts.dataset.obj)).map_or(0, icecore_dmu::Objset::growth);
        let available = match facts.dataset.snapshot {
            true => 0,
            false => dsl.available(io, facts.dataset)?.saturating_sub(grown),
        };
        let blocks = ds.referenced_bytes.saturating_add(available) / UNIT;
        let free = available / UNIT;
        let used_files = ds.bp.fill();
        let free_files = icecore_format::dnode::MAX_OBJECT.saturating_sub(used_files).min(free);
        let record = dsl.prop_number(io, facts.dataset, "recordsize").unwrap_or(128 << 10);
        Ok([blocks, free, used_files.saturating_add(free_files), free_files, record])
    }

    pub fn xattr(&self, ino: INodeNo, name: &[u8]) -> Answer<Vec<u8>> {
        let found = self.with_file(ino, |cx, at, z| {
            let all = crate::names::shown(at, cx.pool.io(), z)?;
            Ok(all.into_iter().find(|(n, _)| n == name).map(|(_, value)| value))
        })?;
        found.flatten().ok_or(Errno::ENODATA)
    }

    pub fn xattr_names(&self, ino: INodeNo) -> Answer<Vec<u8>> {
        let names = self.with_file(ino, |cx, at, z| {
            let all = crate::names::shown(at, cx.pool.io(), z)?;
            Ok(all
                .into_iter()
                .flat_map(|(mut n, _)| {
                    n.push(0);
                    n
                })
                .collect())
        })?;
        Ok(names.unwrap_or_default())
    }
}

/// What is told of an entry that was not looked at, or cannot be: believed for no time at all, so that who asks for it
/// gets the truth, or the reason.
pub(crate) fn unseen(number: INodeNo, kind: fuser::FileType) -> Entry {
    let t = std::time::UNIX_EPOCH;
    let attr = FileAttr {
        ino: number,
        size: 0,
        blocks: 0,
        atime: t,
        mtime: t,
        ctime: t,
        crtime: t,
        kind,
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 512,
        flags: 0,
    };
    Entry { attr, generation: 0, ttl: Duration::ZERO }
}

/// The number told with the name at a place.
pub(crate) fn told(shown: &Shown, place: u64) -> INodeNo {
    INodeNo(shown.node.map_or(Node::unseen(place), Node::number))
}

pub(crate) fn answer_xattr(reply: ReplyXattr, size: u32, value: Answer<Vec<u8>>) {
    match value {
        Err(e) => reply.error(e),
        Ok(value) => match u32::try_from(value.len()) {
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len <= size => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        },
    }
}
