//! Where the service of a state folder is found: `service.sock` in it, beside the lock that makes it one.
//!
//! Invariants:
//! 1. The folder is its owner's alone (0700), the socket too (0600).
//! 2. Who holds the lock is the service; the lock goes with the process, however it ends.

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// What a socket's path may be long (`sun_path`, unix(7)), its end included.
const PATH_MAX: usize = 108;
const SOCKET: &str = "service.sock";
const LOCK: &str = "service.lock";

/// The state folder that a service is of.
#[derive(Clone, Debug)]
pub struct Place {
    folder: PathBuf,
}

/// The lock on a place: whoever has it is the service.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "locked as long as it is open")] File);

impl Place {
    /// The place in a state folder, given absolute.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }
    /// The state folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
    /// Where the service writes what nobody is there to hear.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("service.log")
    }
    /// Makes the folder, its owner's alone.
    pub fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let meta = std::fs::metadata(&self.folder)?;
        if meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 != 0 {
            std::fs::set_permissions(&self.folder, Permissions::from_mode(0o700))?;
        }
        Ok(())
    }
    /// Becomes the service, unless there is one.
    pub fn lock(&self) -> io::Result<Option<Lock>> {
        let path = self.folder.join(LOCK);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
    /// Whether there is a service.
    pub fn is_taken(&self) -> io::Result<bool> {
        match OpenOptions::new().write(true).open(self.folder.join(LOCK)) {
            Ok(file) => match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(false),
                Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
                Err(e) => Err(e.into()),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
    /// Listens. What an earlier service left is removed: only who has the lock comes here.
    pub fn listen(&self, _lock: &Lock) -> io::Result<UnixListener> {
        self.unlink()?;
        let listener = self.by_path(|path| UnixListener::bind(path))?;
        std::fs::set_permissions(self.folder.join(SOCKET), Permissions::from_mode(0o600))?;
        Ok(listener)
    }
    /// Removes the socket.
    pub fn unlink(&self) -> io::Result<()> {
        match std::fs::remove_file(self.folder.join(SOCKET)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
    /// Whether the socket is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.folder.join(SOCKET).exists()
    }
    /// Connects to the service; `None` if there is none.
    pub fn connect(&self) -> io::Result<Option<UnixStream>> {
        match self.by_path(|path| UnixStream::connect(path)) {
            Ok(socket) => Ok(Some(socket)),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
    /// The socket's path, or where it does not fit into an address, one that leads there.
    fn by_path<T>(&self, f: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let path = self.folder.join(SOCKET);
        if path.as_os_str().len() < PATH_MAX {
            return f(&path);
        }
        let folder: OwnedFd = rustix::fs::open(
            &self.folder,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        f(&PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_service_a_folder_that_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        // Longer than an address may be.
        let place = Place::new(dir.path().join("x".repeat(120)).join("state"));
        assert!(!place.is_taken().unwrap());
        place.make().unwrap();
        let lock = place.lock().unwrap().unwrap();
        assert!(place.lock().unwrap().is_none() && place.is_taken().unwrap());
        assert!(place.connect().unwrap().is_none());
        let listener = place.listen(&lock).unwrap();
        assert!(place.connect().unwrap().is_some());
        let mode = |p: &Path| std::fs::metadata(p).unwrap().mode() & 0o777;
        assert_eq!((mode(place.folder()), mode(&place.folder().join(SOCKET))), (0o700, 0o600));
        drop((listener, lock));
        // A socket that nobody listens at is no service, and in nobody's way.
        assert!(place.connect().unwrap().is_none() && !place.is_taken().unwrap());
        let lock = place.lock().unwrap().unwrap();
        let _listener = place.listen(&lock).unwrap();
        assert!(place.connect().unwrap().is_some());
    }
}
