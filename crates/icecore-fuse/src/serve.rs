//! The kernel's requests, one by one.

use crate::attr;
use crate::blocks::Blocks;
use crate::errno::errno;
use crate::ino::{Node, ViewId};
use crate::listing::{Listing, Shown};
use crate::reading::{self, Reader};
use crate::views::{Open, Snapdir, Views};
use fuser::{
    Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use icecore_format::ObjectId;
use icecore_pool::{Pool, Shared};
use icecore_zpl::{FileKind, Znode, ZplError};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the kernel may believe what it was told of a dataset that can change.
const BRIEFLY: Duration = Duration::from_secs(1);
/// And of one that cannot.
const LONG: Duration = Duration::from_secs(3600);
/// Bytes the kernel may read ahead.
const KERNEL_AHEAD: u32 = 1 << 20;
/// Requests of the kernel's own (reading ahead) at once.
const BACKGROUND: u16 = 32;
/// Longest name (`MAXNAMELEN` less its end).
const NAME_MAX: u32 = 255;
/// `SEEK_DATA` and `SEEK_HOLE` of Linux.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

enum Handle {
    File(Mutex<Reader>),
    Dir(Mutex<Listing>),
}

/// The server of one mount.
pub(crate) struct Server {
    shared: Arc<Shared>,
    views: Views,
    blocks: Mutex<Blocks>,
    handles: Mutex<BTreeMap<u64, Arc<Handle>>>,
    next_handle: AtomicU64,
}

type Answer<T> = Result<T, Errno>;

/// What a name leads to.
struct Entry {
    attr: FileAttr,
    generation: u64,
    ttl: Duration,
}

fn locked<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in here is a cache or a place: as good after a panic elsewhere as before.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ttl(open: &Open) -> Duration {
    if open.frozen { LONG } else { BRIEFLY }
}

impl Server {
    pub fn new(shared: Arc<Shared>, views: Views) -> Self {
        let (blocks, handles) = (Mutex::default(), Mutex::default());
        Self { shared, views, blocks, handles, next_handle: AtomicU64::new(1) }
    }

    /// Runs a request with the pool at hand.
    fn with<T>(&self, ino: INodeNo, f: impl FnOnce(&Pool, Node) -> Result<T, ZplError>) -> Answer<T> {
        let node = Node::from_number(ino.0).ok_or(Errno::ESTALE)?;
        let pool = self.shared.read();
        f(&pool, node).map_err(|e| errno(&e))
    }

    /// Runs a request about a file.
    fn with_file<T>(
        &self,
        ino: INodeNo,
        f: impl FnOnce(&Pool, &Open, &Znode) -> Result<T, ZplError>,
    ) -> Answer<Option<T>> {
        self.with(ino, |pool, node| {
            let Some((_, id, open)) = self.views.place(pool, node)? else { return Ok(None) };
            let z = open.fs.znode(pool.io(), id)?;
            f(pool, &open, &z).map(Some)
        })
    }

    fn object(&self, pool: &Pool, view: ViewId, id: ObjectId, open: &Open) -> Result<Entry, ZplError> {
        let z = open.fs.znode(pool.io(), id)?;
        Ok(Entry { attr: attr::of(open, view, &z), generation: z.generation, ttl: ttl(open) })
    }

    fn entry(&self, pool: &Pool, node: Node) -> Result<Entry, ZplError> {
        if let Some((view, id, open)) = self.views.place(pool, node)? {
            return self.object(pool, view, id, &open);
        }
        let (Node::Control(view) | Node::Snapshots(view)) = node else {
            return Err(ZplError::NotFound(String::new()));
        };
        let open = self.views.open(pool, view)?;
        let root = self.object(pool, view, open.fs.root(), &open)?;
        Ok(Entry { attr: attr::made_up(node, &root.attr), generation: 0, ttl: BRIEFLY })
    }

    /// What `name` in directory `node` is.
    fn find(&self, pool: &Pool, node: Node, name: &[u8]) -> Result<Node, ZplError> {
        let none = || ZplError::NotFound(String::new());
        match node {
            Node::Control(view) if name == b"snapshot" => return Ok(Node::Snapshots(view)),
            Node::Control(_) => return Err(none()),
            Node::Snapshots(view) => {
                let name = std::str::from_utf8(name).map_err(|_| none())?;
                return self.views.snapshot(pool, view, name);
            }
            Node::Top | Node::Object(..) => {}
        }
        let (view, id, open) = self.views.place(pool, node)?.ok_or_else(none)?;
        if id == open.fs.root() {
            if name == b".zfs" {
                return if open.snapdir == Snapdir::Absent { Err(none()) } else { Ok(Node::Control(view)) };
            }
            if let Some(child) = self.views.child(pool, view, &open, name)? {
                return Ok(child);
            }
        }
        let dir = open.fs.znode(pool.io(), id)?;
        let found = open.fs.lookup(pool.io(), &dir, name)?.ok_or_else(none)?;
        Ok(Node::Object(view, found.object))
    }

    fn new_handle(&self, handle: Handle) -> FileHandle {
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        locked(&self.handles).insert(number, Arc::new(handle));
        FileHandle(number)
    }
    fn handle(&self, fh: FileHandle) -> Option<Arc<Handle>> {
        locked(&self.handles).get(&fh.0).cloned()
    }

    fn list(&self, ino: INodeNo, fh: FileHandle, from: u64) -> Answer<Vec<Shown>> {
        let handle = self.handle(fh).ok_or(Errno::EBADF)?;
        let Handle::Dir(listing) = &*handle else { return Err(Errno::EBADF) };
        // The pool first, then the handle: a request that waits for the pool holds nothing.
        self.with(ino, |pool, node| locked(listing).names(pool, &self.views, node, from))
    }

    fn statfs_words(&self, pool: &Pool, node: Node) -> Result<[u64; 5], ZplError> {
        /// Unit of the counts (`SPA_MINBLOCKSIZE`).
        const UNIT: u64 = 512;
        let view = match node {
            Node::Top => 0,
            Node::Object(view, _) | Node::Control(view) | Node::Snapshots(view) => view,
        };
        let open = self.views.open(pool, view)?;
        let (io, dsl) = (pool.io(), &pool.dsl);
        let ds = dsl.dataset(io, open.dataset.obj)?;
        let available = match open.dataset.snapshot {
            true => 0,
            false => dsl.available(io, open.dataset)?,
        };
        let blocks = ds.referenced_bytes.saturating_add(available) / UNIT;
        let free = available / UNIT;
        let used_files = ds.bp.fill();
        let free_files = icecore_format::dnode::MAX_OBJECT.saturating_sub(used_files).min(free);
        let record = dsl.prop_number(io, open.dataset, "recordsize").unwrap_or(128 << 10);
        Ok([blocks, free, used_files.saturating_add(free_files), free_files, record])
    }

    fn xattr(&self, ino: INodeNo, name: &[u8]) -> Answer<Vec<u8>> {
        let found = self.with_file(ino, |pool, open, z| {
            let all = crate::names::shown(open, pool.io(), z)?;
            Ok(all.into_iter().find(|(n, _)| n == name).map(|(_, value)| value))
        })?;
        found.flatten().ok_or(Errno::ENODATA)
    }

    fn xattr_names(&self, ino: INodeNo) -> Answer<Vec<u8>> {
        let names = self.with_file(ino, |pool, open, z| {
            let all = crate::names::shown(open, pool.io(), z)?;
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
fn unseen(number: INodeNo, kind: fuser::FileType) -> Entry {
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
fn told(shown: &Shown, place: u64) -> INodeNo {
    INodeNo(shown.node.map_or(Node::unseen(place), Node::number))
}

fn answer_xattr(reply: ReplyXattr, size: u32, value: Answer<Vec<u8>>) {
    match value {
        Err(e) => reply.error(e),
        Ok(value) => match u32::try_from(value.len()) {
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len <= size => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        },
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_MAX_PAGES;
        // What an old kernel does not have it does without.
        let _ = config.add_capabilities(wanted & config.capabilities());
        if let Err(most) = config.set_max_readahead(KERNEL_AHEAD) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.with(parent, |pool, node| {
            let found = self.find(pool, node, name.as_bytes())?;
            self.entry(pool, found)
        });
        match found {
            Ok(e) => reply.entry(&e.ttl, &e.attr, Generation(e.generation)),
            Err(e) => reply.error(e),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.with(ino, |pool, node| self.entry(pool, node)) {
            Ok(e) => reply.attr(&e.ttl, &e.attr),
            Err(e) => reply.error(e),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.with_file(ino, |pool, open, z| open.fs.readlink(pool.io(), z)) {
            Ok(Some(target)) => reply.data(&target),
            Ok(None) => reply.error(Errno::EINVAL),
            Err(e) => reply.error(e),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let frozen = self.with_file(ino, |_, open, z| match z.kind {
            FileKind::Directory => Err(ZplError::IsDirectory(String::new())),
            _ => Ok(open.frozen),
        });
        match frozen {
            Ok(Some(frozen)) => {
                let flags = if frozen { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
                reply.opened(self.new_handle(Handle::File(Mutex::default())), flags);
            }
            Ok(None) => reply.error(Errno::EISDIR),
            Err(e) => reply.error(e),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(handle) = self.handle(fh) else { return reply.error(Errno::EBADF) };
        let Handle::File(reader) = &*handle else { return reply.error(Errno::EBADF) };
        let read = self.with_file(ino, |pool, open, z| {
            let mut reader = locked(reader);
            reading::read(&self.blocks, open, pool.io(), z, &mut reader, offset, size)
        });
        match read {
            Ok(Some(data)) => reply.data(&data),
            Ok(None) => reply.error(Errno::EISDIR),
            Err(e) => reply.error(e),
        }
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let Ok(from) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        if !matches!(whence, SEEK_DATA | SEEK_HOLE) {
            return reply.error(Errno::EINVAL);
        }
        let found =
            self.with_file(ino, |pool, open, z| reading::seek(open, pool.io(), z, from, whence == SEEK_HOLE));
        match found {
            Ok(Some(Some(at))) => match i64::try_from(at) {
                Ok(at) => reply.offset(at),
                Err(_) => reply.error(Errno::EOVERFLOW),
            },
            Ok(_) => reply.error(Errno::ENXIO),
            Err(e) => reply.error(e),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        locked(&self.handles).remove(&fh.0);
        reply.ok();
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.with(ino, |pool, node| self.entry(pool, node)) {
            Ok(_) => reply.opened(self.new_handle(Handle::Dir(Mutex::default())), FopenFlags::empty()),
            Err(e) => reply.error(e),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.list(ino, fh, offset) {
            Ok(names) => {
                for (place, shown) in (offset + 1..).zip(&names) {
                    if reply.add(told(shown, place), place, shown.kind, OsStr::from_bytes(&shown.name)) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(e) => reply.error(e),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let names = match self.list(ino, fh, offset) {
            Ok(names) => names,
            Err(e) => return reply.error(e),
        };
        // One request holds about this many.
        let names = names.get(..names.len().min(64)).unwrap_or(&names);
        let entries = self.with(ino, |pool, _| {
            let entry = |shown: &Shown| match shown.node {
                Some(node) if !matches!(shown.name.as_slice(), b"." | b"..") => self.entry(pool, node).ok(),
                _ => None,
            };
            Ok(names.iter().map(entry).collect::<Vec<_>>())
        });
        for ((place, shown), entry) in (offset + 1..).zip(names).zip(entries.unwrap_or_default()) {
            let number = told(shown, place);
            let e = entry.unwrap_or_else(|| unseen(number, shown.kind));
            let name = OsStr::from_bytes(&shown.name);
            if reply.add(number, place, name, &e.ttl, &e.attr, Generation(e.generation)) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        locked(&self.handles).remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        match self.with(ino, |pool, node| self.statfs_words(pool, node)) {
            Ok([blocks, free, files, free_files, record]) => {
                let record = u32::try_from(record).unwrap_or(u32::MAX);
                reply.statfs(blocks, free, free, files, free_files, record, NAME_MAX, 512);
            }
            Err(e) => reply.error(e),
        }
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        answer_xattr(reply, size, self.xattr(ino, name.as_bytes()));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        answer_xattr(reply, size, self.xattr_names(ino));
    }
}
