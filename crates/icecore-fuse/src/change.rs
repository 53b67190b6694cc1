//! Requests that change files.
//!
//! Invariants:
//! 1. A request holds the pool alone while it changes anything, for that one change. It is committed later, unless durability
//!    is asked for ([`icecore_pool::shared`]).
//! 2. A request that is refused has changed nothing; one that breaks off half-way (damage on the way) takes the pool back to
//!    its last commit, and whoever asks for durability next is told.
//! 3. Only the dataset at the top changes: snapshots and children of a tree are `EROFS`, directories on no disk refuse.
//! 4. A file that loses its last name while it is open stays until it is closed; its number is in the file system's own set
//!    of such files, so that a crash leaves nothing behind.

use crate::attr;
use crate::errno::errno;
use crate::ino::{Node, ViewId};
use crate::live::{Atime, Sync};
use crate::reading::Reader;
use crate::serve::{Answer, Entry, File, Handle, Server, locked, ttl};
use crate::views::{At, Cx};
use fuser::{Errno, FileHandle, INodeNo, RenameFlags, Request, TimeOrNow};
use icecore_dmu::{BlockStore, Objset, WriteError};
use icecore_format::ObjectId;
use icecore_pool::shared::Load;
use icecore_pool::{Io, Pool, Shared};
use icecore_zpl::write::{Change, New, What, Writer, XattrFlags};
use icecore_zpl::{FileKind, Result, Time, Znode, ZplError};
use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a change of a name weighs towards the next commit.
const NAME_WEIGHT: u64 = 6 << 10;
/// Seconds after which a time of reading is renewed in any case.
const DAY: i64 = 24 * 60 * 60;
const XATTR_CREATE: i32 = 1;
const XATTR_REPLACE: i32 = 2;
const KEEP_SIZE: i32 = 1;
const PUNCH_HOLE: i32 = 2;
const ZERO_RANGE: i32 = 16;
const SETGID: u32 = 0o2000;

/// What a request changes.
pub(crate) struct Tx<'a> {
    w: &'a mut Writer,
    os: &'a mut Objset,
    io: &'a mut Io,
    now: Time,
}

/// Attributes to be set.
pub(crate) struct Wanted {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeOrNow>,
    pub mtime: Option<TimeOrNow>,
}

fn time_of(t: SystemTime) -> Time {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => Time { seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nanos: d.subsec_nanos() },
        Err(before) => {
            let d = before.duration();
            let seconds = i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
            match d.subsec_nanos() {
                0 => Time { seconds: -seconds, nanos: 0 },
                n => Time { seconds: -seconds - 1, nanos: 1_000_000_000 - n },
            }
        }
    }
}

fn now(pool: &Pool) -> Time {
    let (seconds, nanos) = pool.io().env().clock.wall();
    Time { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos }
}

/// What a mode of mknod(2) makes.
pub(crate) fn what_of(mode: u32, rdev: u32) -> Option<What> {
    let (major, minor) = (rdev >> 8 & 0xfff, rdev & 0xff | rdev >> 12 & 0xf_ff00);
    let device = u64::from(major) << 20 | u64::from(minor);
    Some(match FileKind::from_mode(mode.into())? {
        FileKind::Regular => What::Regular,
        FileKind::Fifo => What::Fifo,
        FileKind::Socket => What::Socket,
        FileKind::CharDevice => What::CharDevice(device),
        FileKind::BlockDevice => What::BlockDevice(device),
        FileKind::Directory | FileKind::Symlink => return None,
    })
}

/// What is told of an object.
pub(crate) fn entry_of(at: &At<'_>, io: &dyn BlockStore, view: ViewId, id: ObjectId) -> Result<Entry> {
    let z = at.fs().znode(io, id)?;
    // What is in a snapshot never changes, but its name may be another's the next moment.
    let named = view != 0 && at.facts.frozen && id == at.fs().root();
    let ttl = if named { Duration::ZERO } else { ttl(&at.facts) };
    Ok(Entry { attr: attr::of(at, view, &z), generation: z.generation, ttl })
}

impl Tx<'_> {
    fn znode(&self, id: ObjectId) -> Result<Znode> {
        self.w.files(self.os).znode(self.io, id)
    }
    /// The object of a name; `None` if there is none.
    fn lookup(&self, dir: ObjectId, name: &[u8]) -> Result<Option<ObjectId>> {
        self.w.lookup(self.os, self.io, dir, name)
    }
}

impl Server {
    /// The object of the dataset at the top that a number stands for.
    fn own(&self, ino: INodeNo) -> Answer<ObjectId> {
        if self.head.is_none() || !self.writable.load(Ordering::Relaxed) {
            return Err(Errno::EROFS);
        }
        match Node::from_number(ino.0).ok_or(Errno::ESTALE)? {
            Node::Top => self.with(ino, |cx, _| Ok(cx.at(0)?.fs().root())),
            Node::Object(0, id) => Ok(id),
            Node::Object(..) => Err(Errno::EROFS),
            // As OpenZFS, unless its `zfs_admin_snapshot` is set (`zfsctl_snapdir_mkdir`, zfs_ctldir.c).
            Node::Snapshots(_) => Err(Errno::EACCES),
            Node::Control(_) => Err(Errno::EPERM),
        }
    }

    /// Makes one change. The weight is what `f` says besides.
    fn change<T>(&self, f: impl FnOnce(&mut Tx<'_>) -> Result<(T, u64)>) -> Answer<T> {
        let shared = self.pool()?;
        let mut pool = shared.files();
        self.change_in(&shared, &mut pool, f)
    }

    fn change_in<T>(
        &self,
        shared: &Arc<Shared>,
        pool: &mut Pool,
        f: impl FnOnce(&mut Tx<'_>) -> Result<(T, u64)>,
    ) -> Answer<T> {
        if pool.io().suspended().is_some() {
            return Err(Errno::EIO);
        }
        self.refresh(shared, pool)?;
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let Some(live) = live.as_mut() else { return Err(Errno::ESTALE) };
        let now = now(pool);
        let (io, dsl) = pool.parts();
        let os = dsl.open_dataset(io, live.facts.dataset.obj).map_err(|e| errno(&e.into()))?;
        let (before, placed) = (os.touched(), os.placed());
        let mut tx = Tx { w: &mut live.writer, os, io, now };
        let done = f(&mut tx);
        let touched = tx.os.touched() != before;
        let placed = tx.os.placed().saturating_sub(placed);
        match done {
            Ok((done, weight)) => {
                if touched {
                    shared.changed(pool, Load { weight, placed }).map_err(|_| Errno::EIO)?;
                    if live.sync == Sync::Always {
                        shared.commit_under(pool).map_err(|_| Errno::EIO)?;
                    }
                }
                Ok(done)
            }
            Err(e) => {
                // What finds no room for data leaves what it found (`Writer::write`).
                let no_room = matches!(e, ZplError::Write(WriteError::NoSpace | WriteError::Quota));
                if touched && !no_room {
                    eprintln!(
                        "a change of files broke off half-way, its pool goes back to its last commit: {e}"
                    );
                    shared.torn(pool);
                } else if touched {
                    shared.changed(pool, Load { weight: NAME_WEIGHT, placed }).map_err(|_| Errno::EIO)?;
                }
                Err(errno(&e))
            }
        }
    }

    /// Makes everything durable that was changed.
    pub fn commit(&self) -> Answer<()> {
        let disabled = {
            let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
            live.as_ref().is_some_and(|l| l.sync == Sync::Disabled)
        };
        if disabled || self.head.is_none() {
            return Ok(());
        }
        self.pool()?.commit_files().map_err(|_| Errno::EIO)
    }

    /// The same for an open file or directory, which is told once of what was lost.
    pub fn sync_handle(&self, fh: FileHandle) -> Answer<()> {
        self.commit()?;
        if let Some(Handle::File(file)) = self.handle(fh).as_deref() {
            let losses = self.pool()?.losses();
            if file.losses.swap(losses, Ordering::Relaxed) != losses {
                return Err(Errno::EIO);
            }
        }
        Ok(())
    }

    fn file_handle(&self, object: Option<ObjectId>) -> Answer<FileHandle> {
        let losses = AtomicU64::new(self.pool()?.losses());
        if let Some(id) = object {
            locked(&self.opened).open(id);
        }
        let file = File { object, reader: Reader::default(), accessed: AtomicBool::new(false), losses };
        Ok(self.new_handle(Handle::File(file)))
    }

    pub fn open_file(&self, ino: INodeNo) -> Answer<FileHandle> {
        let opened = self.with(ino, |cx: &Cx<'_>, node| {
            let Some((view, id, at)) = cx.place(node)? else {
                return Err(ZplError::IsDirectory(String::new()));
            };
            if at.fs().znode(cx.pool.io(), id)?.kind == FileKind::Directory {
                return Err(ZplError::IsDirectory(String::new()));
            }
            // Under the pool's lock: who takes its last name away sees it open.
            Ok(self.file_handle((view == 0).then_some(id)))
        });
        opened?
    }

    /// An open file was closed: what has no name any more goes.
    pub fn closed(&self, id: ObjectId) {
        let Ok(shared) = self.pool() else { return };
        let mut pool = shared.files();
        if !locked(&self.opened).close(id) {
            return;
        }
        // In steps, if it is large.
        while let Ok(false) =
            self.change_in(&shared, &mut pool, |tx| Ok((tx.w.reap(tx.os, tx.io, id)?, NAME_WEIGHT)))
        {
            if shared.commit_under(&mut pool).is_err() {
                return;
            }
        }
    }

    /// Frees files without a name that nobody has open: those that a crash left, and large ones just removed.
    pub fn drain(&self) {
        let Ok(shared) = self.pool() else { return };
        loop {
            let mut pool = shared.files();
            let done = self.change_in(&shared, &mut pool, |tx| {
                let open = |id: ObjectId| locked(&self.opened).is_open(id);
                Ok((tx.w.drain(tx.os, tx.io, &open)?, NAME_WEIGHT))
            });
            if !matches!(done, Ok(false)) || shared.commit_under(&mut pool).is_err() {
                return;
            }
        }
    }

    /// The kernel is done with the mount: everything is committed, and nothing open.
    pub fn ended(&self) {
        *locked(&self.opened) = crate::known::Opened::default();
        if self.writable.load(Ordering::Relaxed) {
            self.drain();
        }
        if let Ok(shared) = self.pool() {
            let _ = shared.commit_files();
        }
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = None;
        drop(locked(&self.hold).take());
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn make(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        what: What,
        (mode, umask): (u32, u32),
        open: bool,
    ) -> Answer<(Entry, Option<FileHandle>)> {
        let (dir, name) = (self.own_dir(parent, name)?, name.as_bytes());
        let (uid, gid) = (req.uid(), req.gid());
        let made = self.change(|tx| {
            let above = tx.znode(dir)?;
            let directory = what == What::Directory;
            let mut new = New { what, mode: mode & 0o7777, uid, gid, now: tx.now };
            if !matches!(new.what, What::Symlink(_)) && !tx.w.hands_on_acl(tx.os, tx.io, dir)? {
                new.mode &= !umask;
            }
            if above.mode & SETGID != 0 {
                new.gid = icecore_zpl::Filesystem::posix_id(above.gid);
                new.mode |= if directory { SETGID } else { 0 };
            }
            // Who is not of the group makes no program that acts for it.
            if !directory && new.mode & (SETGID | 0o10) == SETGID | 0o10 && uid != 0 && new.gid != gid {
                new.mode &= !SETGID;
            }
            let id = tx.w.create(tx.os, tx.io, dir, name, &new)?;
            if open {
                locked(&self.opened).open(id);
            }
            Ok((id, NAME_WEIGHT))
        })?;
        let handle = match open {
            true => {
                let fh = self.file_handle(Some(made))?;
                // Counted twice: for the time between, and for the handle.
                locked(&self.opened).close(made);
                Some(fh)
            }
            false => None,
        };
        Ok((self.own_entry(made)?, handle))
    }

    /// A directory of the dataset at the top, in which `name` can be made or taken away.
    fn own_dir(&self, parent: INodeNo, name: &OsStr) -> Answer<ObjectId> {
        let dir = self.own(parent)?;
        if name == ".zfs" && matches!(Node::from_number(parent.0), Some(Node::Top)) {
            return Err(Errno::EEXIST);
        }
        Ok(dir)
    }

    fn own_entry(&self, id: ObjectId) -> Answer<Entry> {
        let node = Node::Object(0, id);
        self.with(INodeNo(node.number()), |cx, node| self.entry(cx, node))
    }

    pub fn link_file(&self, ino: INodeNo, parent: INodeNo, name: &OsStr) -> Answer<Entry> {
        let (id, dir) = (self.own(ino)?, self.own_dir(parent, name)?);
        self.change(|tx| {
            if tx.znode(id)?.links == 0 {
                return Err(ZplError::NotFound(String::new()));
            }
            tx.w.link(tx.os, tx.io, id, dir, name.as_bytes(), tx.now)?;
            Ok(((), NAME_WEIGHT))
        })?;
        self.own_entry(id)
    }

    /// Takes a name away. Whether files without a name wait to be freed.
    pub fn unlink_file(&self, parent: INodeNo, name: &OsStr) -> Answer<bool> {
        let (dir, name) = (self.own_dir(parent, name)?, name.as_bytes());
        self.change(|tx| {
            let id = tx.lookup(dir, name)?.ok_or_else(|| ZplError::NotFound(String::new()))?;
            let large = tx.znode(id)?.allocated() > 64 << 20;
            if locked(&self.opened).is_open(id) {
                if tx.w.orphan(tx.os, tx.io, dir, name, tx.now)? {
                    locked(&self.opened).orphan(id);
                }
                return Ok((false, NAME_WEIGHT));
            }
            tx.w.unlink(tx.os, tx.io, dir, name, tx.now)?;
            Ok((large, NAME_WEIGHT))
        })
    }

    pub fn remove_dir(&self, parent: INodeNo, name: &OsStr) -> Answer<()> {
        let (dir, name) = (self.own_dir(parent, name)?, name.as_bytes());
        self.change(|tx| {
            tx.w.rmdir(tx.os, tx.io, dir, name, tx.now)?;
            Ok(((), NAME_WEIGHT))
        })
    }

    pub fn rename_file(
        &self,
        (parent, name): (INodeNo, &OsStr),
        (new_parent, new_name): (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Answer<()> {
        let from = (self.own_dir(parent, name)?, name.as_bytes());
        let to = (self.own_dir(new_parent, new_name)?, new_name.as_bytes());
        let (exchange, keep) = (RenameFlags::RENAME_EXCHANGE, RenameFlags::RENAME_NOREPLACE);
        if !(flags - exchange - keep).is_empty() || flags.contains(exchange | keep) {
            return Err(Errno::EINVAL);
        }
        self.change(|tx| {
            if flags.contains(exchange) {
                tx.w.exchange(tx.os, tx.io, from, to, tx.now)?;
                return Ok(((), NAME_WEIGHT));
            }
            let old = tx.lookup(to.0, to.1)?;
            if flags.contains(keep) && old.is_some() {
                return Err(ZplError::Exists(String::new()));
            }
            match old.filter(|old| locked(&self.opened).is_open(*old)) {
                Some(_) => {
                    if let Some(kept) = tx.w.rename_keeping(tx.os, tx.io, from, to, tx.now)? {
                        locked(&self.opened).orphan(kept);
                    }
                }
                None => tx.w.rename(tx.os, tx.io, from, to, tx.now)?,
            }
            Ok(((), NAME_WEIGHT))
        })
    }

    pub fn write_file(&self, ino: INodeNo, offset: u64, data: &[u8], strip: bool) -> Answer<()> {
        let id = self.own(ino)?;
        let shrinks = Cell::new(false);
        let write = |tx: &mut Tx<'_>| {
            shrinks.set(tx.os.shrinks_later());
            if strip {
                tx.w.strip_set_ids(tx.os, tx.io, id)?;
            }
            let before = tx.os.buffers(id);
            tx.w.write(tx.os, tx.io, id, offset, data, tx.now)?;
            let block = tx.os.dnode(tx.io, id)?.block_size();
            let held = (tx.os.buffers(id).saturating_sub(before) as u64).saturating_mul(block);
            Ok(((), 1024 + held + data.len() as u64 / 16))
        };
        match self.change(write) {
            // What was removed in this txg may make room once that is over (`dmu_tx_wait`, dmu_tx.c).
            Err(Errno::EDQUOT) if shrinks.get() => {
                self.pool()?.commit_files().map_err(|_| Errno::EIO)?;
                self.change(write)
            }
            done => done,
        }
    }

    pub fn allocate(&self, ino: INodeNo, (offset, len): (u64, u64), mode: i32) -> Answer<()> {
        let id = self.own(ino)?;
        let end = offset.checked_add(len).filter(|end| i64::try_from(*end).is_ok()).ok_or(Errno::EFBIG)?;
        let known = KEEP_SIZE | PUNCH_HOLE | ZERO_RANGE;
        if mode & !known != 0 || mode & PUNCH_HOLE != 0 && mode & KEEP_SIZE == 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        self.change(|tx| {
            let size = tx.znode(id)?.size;
            if mode & (PUNCH_HOLE | ZERO_RANGE) != 0 {
                tx.w.punch_hole(tx.os, tx.io, id, (offset, len), tx.now)?;
            } else {
                // Nothing is reserved, as in OpenZFS; but what cannot fit is refused.
                tx.os.check_room(end.saturating_sub(size))?;
            }
            if mode & KEEP_SIZE == 0 && end > size {
                tx.w.truncate(tx.os, tx.io, id, end, tx.now)?;
            }
            Ok(((), NAME_WEIGHT))
        })
    }

    pub fn set_attributes(&self, req: &Request, ino: INodeNo, wanted: &Wanted) -> Answer<Entry> {
        let id = self.own(ino)?;
        let time = |t: Option<TimeOrNow>, now: Time| {
            t.map(|t| match t {
                TimeOrNow::Now => now,
                TimeOrNow::SpecificTime(t) => time_of(t),
            })
        };
        self.change(|tx| {
            let change = Change {
                mode: wanted.mode,
                uid: wanted.uid,
                gid: wanted.gid,
                atime: time(wanted.atime, tx.now),
                mtime: time(wanted.mtime, tx.now),
            };
            let given = change.uid.is_some() || change.gid.is_some();
            if let Some(size) = wanted.size {
                tx.w.truncate(tx.os, tx.io, id, size, tx.now)?;
            }
            // Programs that acted for their owner do not for another, nor with contents of others.
            if (given && change.mode.is_none()) || (wanted.size.is_some() && req.uid() != 0) {
                tx.w.strip_set_ids(tx.os, tx.io, id)?;
            }
            if change != Change::default() {
                tx.w.set_attributes(tx.os, tx.io, id, &change, tx.now)?;
            }
            Ok(((), NAME_WEIGHT))
        })?;
        self.with(ino, |cx, node| self.entry(cx, node))
    }

    pub fn set_xattr(&self, ino: INodeNo, name: &OsStr, value: Option<&[u8]>, flags: i32) -> Answer<()> {
        let (id, name) = (self.own(ino)?, name.as_bytes());
        let kinds: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system.posix_acl_"];
        if !kinds.iter().any(|kind| name.starts_with(kind)) {
            return Err(Errno::EOPNOTSUPP);
        }
        let how = XattrFlags { create: flags & XATTR_CREATE != 0, replace: flags & XATTR_REPLACE != 0 };
        self.change(|tx| {
            tx.w.set_xattr(tx.os, tx.io, id, name, value, how, tx.now)?;
            Ok(((), NAME_WEIGHT + value.map_or(0, <[u8]>::len) as u64))
        })
    }

    /// A file was read: its time of reading follows, once for each opening.
    pub fn was_read(&self, ino: INodeNo, file: &File) {
        let Some(id) = file.object else { return };
        if file.accessed.swap(true, Ordering::Relaxed) || !self.writable.load(Ordering::Relaxed) {
            return;
        }
        let atime = {
            let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
            live.as_ref().map_or(Atime::Never, |l| l.atime)
        };
        let due = match atime {
            Atime::Never => false,
            Atime::Always => true,
            Atime::Relative => self
                .with_file(ino, |cx, _, z| {
                    let now = now(cx.pool);
                    Ok(z.atime <= z.mtime || z.atime <= z.ctime || z.atime.seconds < now.seconds - DAY)
                })
                .is_ok_and(|due| due == Some(true)),
        };
        if due {
            // Not worth a failure of its own.
            let _ = self.change(|tx| {
                tx.w.accessed(tx.os, tx.io, id, tx.now)?;
                Ok(((), NAME_WEIGHT))
            });
        }
    }
}
