//! The kernel's requests, one by one.

use crate::Served;
use crate::change::{Wanted, what_of};
use crate::listing::Shown;
use crate::reading;
use crate::serve::{Answer, Entry, File, Handle, Server, answer_xattr, locked, told, unseen};
use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use icecore_zpl::write::What;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::SystemTime;

/// Bytes the kernel may read ahead, and write at once.
const KERNEL_AHEAD: u32 = 1 << 20;
const WRITE_MAX: u32 = 1 << 20;
/// Requests of the kernel's own (reading ahead) at once.
const BACKGROUND: u16 = 32;
/// Longest name (`MAXNAMELEN` less its end).
const NAME_MAX: u32 = 255;
/// `SEEK_DATA` and `SEEK_HOLE`, `O_DSYNC` (part of `O_SYNC`), `XATTR_REPLACE` of Linux.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
const O_DSYNC: i32 = 0o10000;
const XATTR_REPLACE: i32 = 2;

fn answer(reply: ReplyEmpty, done: Answer<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

impl Server {
    fn answer_entry(&self, parent: INodeNo, name: &OsStr, found: Answer<Entry>, reply: ReplyEntry) {
        match found {
            Ok(e) => {
                locked(&self.known).told(e.attr.ino, parent, name.as_bytes());
                reply.entry(&e.ttl, &e.attr, Generation(e.generation));
            }
            Err(e) => reply.error(e),
        }
    }
}

impl Filesystem for Served {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_MAX_PAGES
            | InitFlags::FUSE_AUTO_INVAL_DATA
            | InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_ASYNC_DIO;
        // What an old kernel does not have it does without.
        let _ = config.add_capabilities(wanted & config.capabilities());
        if let Err(most) = config.set_max_readahead(KERNEL_AHEAD) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(BACKGROUND);
        let _ = config.set_max_write(WRITE_MAX);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.with(parent, |cx, node| {
            let found = self.find(cx, node, name.as_bytes())?;
            self.entry(cx, found)
        });
        self.answer_entry(parent, name, found, reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        locked(&self.known).forgets(ino, lookups);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.with(ino, |cx, node| self.entry(cx, node)) {
            Ok(e) => reply.attr(&e.ttl, &e.attr),
            Err(e) => reply.error(e),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.with_file(ino, |cx, at, z| at.fs().readlink(cx.pool.io(), z)) {
            Ok(Some(target)) => reply.data(&target),
            Ok(None) => reply.error(Errno::EINVAL),
            Err(e) => reply.error(e),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.open_file(ino) {
            Ok(fh) => reply.opened(fh, FopenFlags::FOPEN_KEEP_CACHE),
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
        let Handle::File(file) = &*handle else { return reply.error(Errno::EBADF) };
        let read = self.with_file(ino, |cx, at, z| {
            reading::read(&self.blocks, at, cx.pool.io(), z, &file.reader, offset, size)
        });
        match read {
            Ok(Some(data)) => reply.data(&data),
            Ok(None) => reply.error(Errno::EISDIR),
            Err(e) => reply.error(e),
        }
        if file.reader.is_due() {
            // Nobody's failure.
            let _ = self.with_file(ino, |cx, at, z| {
                reading::ahead(&self.blocks, at, cx.pool.io(), z, &file.reader);
                Ok(())
            });
        }
        self.was_read(ino, file);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let strip = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let written = self.write_file(ino, offset, data, strip);
        let durable = written.and_then(|()| if flags.0 & O_DSYNC != 0 { self.commit() } else { Ok(()) });
        match durable {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(e) => reply.error(e),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, self.sync_handle(fh));
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, self.sync_handle(fh));
    }

    /// Nothing waits for the closing of a file; said once, the kernel asks no more.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let made = self.make(req, parent, name, What::Regular, (mode, umask), true);
        match made {
            Ok((e, Some(fh))) => {
                locked(&self.known).told(e.attr.ino, parent, name.as_bytes());
                let generation = Generation(e.generation);
                reply.created(&e.ttl, &e.attr, generation, fh, FopenFlags::FOPEN_KEEP_CACHE);
            }
            Ok((_, None)) => reply.error(Errno::EIO),
            Err(e) => reply.error(e),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let made = match what_of(mode, rdev) {
            Some(what) => self.make(req, parent, name, what, (mode, umask), false).map(|made| made.0),
            None => Err(Errno::EINVAL),
        };
        self.answer_entry(parent, name, made, reply);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let made = self.make(req, parent, name, What::Directory, (mode, umask), false);
        self.answer_entry(parent, name, made.map(|made| made.0), reply);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let what = What::Symlink(target.as_os_str().as_bytes().to_vec());
        let made = self.make(req, parent, name, what, (0o777, 0), false);
        self.answer_entry(parent, name, made.map(|made| made.0), reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let linked = self.link_file(ino, parent, name);
        self.answer_entry(parent, name, linked, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let gone = self.unlink_file(parent, name);
        let large = matches!(gone, Ok(true));
        answer(reply, gone.map(drop));
        if large {
            self.drain();
        }
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.remove_dir(parent, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer(reply, self.rename_file((parent, name), (new_parent, new_name), flags));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let wanted = Wanted { mode, uid, gid, size, atime, mtime };
        match self.set_attributes(req, ino, &wanted) {
            Ok(e) => reply.attr(&e.ttl, &e.attr),
            Err(e) => reply.error(e),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer(reply, self.allocate(ino, (offset, len), mode));
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        answer(reply, self.set_xattr(ino, name, Some(value), flags));
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.set_xattr(ino, name, None, XATTR_REPLACE));
    }

    fn destroy(&mut self) {
        self.0.ended();
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let Ok(from) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        if !matches!(whence, SEEK_DATA | SEEK_HOLE) {
            return reply.error(Errno::EINVAL);
        }
        let found = self
            .with_file(ino, |cx, at, z| reading::seek(at.fs(), cx.pool.io(), z, from, whence == SEEK_HOLE));
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
        let handle = self.drop_handle(fh);
        reply.ok();
        if let Some(Handle::File(File { object: Some(id), .. })) = handle.as_deref() {
            self.closed(*id);
        }
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.with(ino, |cx, node| self.entry(cx, node)) {
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
        let entries = self.with(ino, |cx, _| {
            let entry = |shown: &Shown| match shown.node {
                Some(node) if !matches!(shown.name.as_slice(), b"." | b"..") => self.entry(cx, node).ok(),
                _ => None,
            };
            Ok(names.iter().map(entry).collect::<Vec<_>>())
        });
        for ((place, shown), entry) in (offset + 1..).zip(names).zip(entries.unwrap_or_default()) {
            let number = told(shown, place);
            let seen = entry.is_some();
            let e = entry.unwrap_or_else(|| unseen(number, shown.kind));
            let name = OsStr::from_bytes(&shown.name);
            if reply.add(number, place, name, &e.ttl, &e.attr, Generation(e.generation)) {
                break;
            }
            if seen {
                locked(&self.known).told(number, ino, &shown.name);
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.drop_handle(fh);
        reply.ok();
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        match self.with(ino, |cx, node| self.statfs_words(cx, node)) {
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
