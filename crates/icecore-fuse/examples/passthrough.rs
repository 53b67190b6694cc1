//! `passthrough FOLDER MOUNTPOINT`: shows the files of a folder through FUSE and does nothing else.
//!
//! The yardstick of `cargo xtask bench fs`: what the FUSE library, the kernel and the disk below cost by themselves, with the
//! same settings as the mounts of a pool. Enough of a file system for files in one folder to be made, written and read.

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the kernel may believe what it is told: the settings of a pool's mount.
const TTL: Duration = Duration::from_secs(1);
const READ_AHEAD: u32 = 1 << 20;
const WRITE_MAX: u32 = 1 << 20;
const BACKGROUND: u16 = 32;
const THREADS: usize = 4;

#[derive(Default)]
struct Passthrough {
    folder: PathBuf,
    /// Names by the numbers that the kernel was told.
    names: Mutex<BTreeMap<u64, OsString>>,
    open: Mutex<BTreeMap<u64, Arc<File>>>,
    next: AtomicU64,
}

fn locked<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seconds(secs: i64, nanos: i64) -> SystemTime {
    UNIX_EPOCH + Duration::new(secs.unsigned_abs(), u32::try_from(nanos).unwrap_or(0))
}

impl Passthrough {
    fn path(&self, ino: INodeNo) -> io::Result<PathBuf> {
        if ino == INodeNo::ROOT {
            return Ok(self.folder.clone());
        }
        let names = locked(&self.names);
        let name = names.get(&ino.0).ok_or_else(|| io::Error::from_raw_os_error(2))?;
        Ok(self.folder.join(name))
    }

    fn attr(&self, ino: INodeNo) -> io::Result<FileAttr> {
        Ok(attr_of(ino, &fs::symlink_metadata(self.path(ino)?)?))
    }

    fn find(&self, name: &OsStr) -> io::Result<FileAttr> {
        let found = fs::symlink_metadata(self.folder.join(name))?;
        let ino = INodeNo(found.ino());
        locked(&self.names).insert(ino.0, name.to_os_string());
        Ok(attr_of(ino, &found))
    }

    fn opened(&self, file: File) -> FileHandle {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        locked(&self.open).insert(handle, Arc::new(file));
        FileHandle(handle)
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        locked(&self.open).get(&handle.0).cloned().ok_or_else(|| io::Error::from_raw_os_error(9))
    }
}

fn attr_of(ino: INodeNo, m: &Metadata) -> FileAttr {
    FileAttr {
        ino,
        size: m.size(),
        blocks: m.blocks(),
        atime: seconds(m.atime(), m.atime_nsec()),
        mtime: seconds(m.mtime(), m.mtime_nsec()),
        ctime: seconds(m.ctime(), m.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: if m.is_dir() { FileType::Directory } else { FileType::RegularFile },
        perm: (m.mode() & 0o7777) as u16,
        nlink: u32::try_from(m.nlink()).unwrap_or(1),
        uid: m.uid(),
        gid: m.gid(),
        rdev: 0,
        blksize: 1 << 17,
        flags: 0,
    }
}

fn errno(e: io::Error) -> Errno {
    e.into()
}

impl Filesystem for Passthrough {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_WRITEBACK_CACHE
            | InitFlags::FUSE_MAX_PAGES;
        let _ = config.add_capabilities(wanted & config.capabilities());
        if let Err(most) = config.set_max_readahead(READ_AHEAD) {
            let _ = config.set_max_readahead(most);
        }
        if let Err(most) = config.set_max_write(WRITE_MAX) {
            let _ = config.set_max_write(most);
        }
        let _ = config.set_max_background(BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(name) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let cut = || -> io::Result<FileAttr> {
            if let Some(size) = size {
                OpenOptions::new().write(true).open(self.path(ino)?)?.set_len(size)?;
            }
            self.attr(ino)
        };
        match cut() {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn unlink(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        match fs::remove_file(self.folder.join(name)) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn create(&self, _: &Request, _: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let path = self.folder.join(name);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        match file.and_then(|file| Ok((self.find(name)?, file))) {
            Ok((attr, file)) => {
                reply.created(&TTL, &attr, Generation(0), self.opened(file), FopenFlags::empty());
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let file = self.path(ino).and_then(|path| OpenOptions::new().read(true).write(true).open(path));
        match file {
            Ok(file) => reply.opened(self.opened(file), FopenFlags::empty()),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = || -> io::Result<Vec<u8>> {
            let mut data = vec![0; size as usize];
            let n = self.file(fh)?.read_at(&mut data, offset)?;
            data.truncate(n);
            Ok(data)
        };
        match read() {
            Ok(data) => reply.data(&data),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.file(fh).and_then(|file| file.write_all_at(data, offset)) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(0)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.file(fh).and_then(|file| file.sync_all()) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
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
        locked(&self.open).remove(&fh.0);
        reply.ok();
    }
}

fn main() -> io::Result<()> {
    let mut words = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(dir)) = (words.next(), words.next()) else {
        return Err(io::Error::other("usage: passthrough FOLDER MOUNTPOINT"));
    };
    let server = Passthrough { folder: fs::canonicalize(folder)?, ..Passthrough::default() };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("passthrough".into()), MountOption::DefaultPermissions];
    config.acl = SessionACL::Owner;
    config.n_threads = Some(THREADS);
    Session::new(server, &dir, &config)?.run()
}
