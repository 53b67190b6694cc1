//! The kernel's end of a mount.
//!
//! Root mounts by itself, under the type `fuse.zfs` and the dataset's name, which is what `df`, `findmnt` and `mount` show;
//! others through `fusermount3`. What only stands in the place of a file system ([`crate::cover`]) has a type of its own.

use crate::{Options, Said};
use fuser::{BackgroundSession, Config, Filesystem, MountOption, Session, SessionACL};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// What mounts are, as tools show it after `fuse.`.
pub(crate) const ZFS: &str = "zfs";

/// Flags of a mount.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags {
    pub read_only: bool,
    pub atime: bool,
    pub devices: bool,
    pub exec: bool,
    pub setuid: bool,
}

impl Flags {
    fn bits(self) -> MountFlags {
        let mut bits = MountFlags::empty();
        for (off, flag) in [
            (self.read_only, MountFlags::RDONLY),
            (!self.atime, MountFlags::NOATIME),
            (!self.devices, MountFlags::NODEV),
            (!self.exec, MountFlags::NOEXEC),
            (!self.setuid, MountFlags::NOSUID),
        ] {
            if off {
                bits |= flag;
            }
        }
        bits
    }
    fn options(self, name: &str, kind: &str) -> Vec<MountOption> {
        let or = |on: bool, yes: MountOption, no: MountOption| if on { yes } else { no };
        vec![
            MountOption::FSName(name.into()),
            MountOption::Subtype(kind.into()),
            MountOption::DefaultPermissions,
            or(self.read_only, MountOption::RO, MountOption::RW),
            or(self.devices, MountOption::Dev, MountOption::NoDev),
            or(self.exec, MountOption::Exec, MountOption::NoExec),
            or(self.setuid, MountOption::Suid, MountOption::NoSuid),
            or(self.atime, MountOption::Atime, MountOption::NoAtime),
        ]
    }
}

/// Whether `fusermount3` lets users who are not root make mounts that others may enter (fuse.conf(5)). Without that not even
/// `fusermount3` enters, so that nothing can be mounted below such a mount.
pub(crate) fn users_may_allow_others() -> bool {
    let conf = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    conf.lines().any(|l| l.trim() == "user_allow_other")
}

fn config(options: &Options) -> Config {
    let mut config = Config::default();
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(options.threads.max(1));
    config
}

/// Mounts, and begins to serve.
pub(crate) fn mount<F: Filesystem + Send + 'static>(
    server: F,
    (name, kind): (&str, &str),
    dir: &Path,
    flags: Flags,
    options: &Options,
) -> io::Result<BackgroundSession> {
    let mut config = config(options);
    if !rustix::process::geteuid().is_root() {
        config.mount_options = flags.options(name, kind);
        return Session::new(server, dir, &config)?.spawn();
    }
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let other = if options.allow_other { ",allow_other" } else { "" };
    let data =
        format!("fd={},rootmode=40000,user_id=0,group_id=0,default_permissions{other}", device.as_raw_fd());
    let data = CString::new(data).map_err(|_| io::ErrorKind::InvalidInput)?;
    rustix::mount::mount(name, dir, format!("fuse.{kind}"), flags.bits(), Some(data.as_c_str()))?;
    let session = Session::from_fd(server, device, config.acl, config).and_then(Session::spawn);
    session.inspect_err(|_| {
        let _ = rustix::mount::unmount(dir, UnmountFlags::DETACH);
    })
}

/// Ends connection `number` of the kernel's: whoever uses its mounts gets errors.
pub(crate) fn abort(number: u32) -> io::Result<()> {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    if std::fs::write(format!("/sys/fs/fuse/connections/{number}/abort"), "1").is_ok() {
        return Ok(());
    }
    // The file system of the connections is not mounted here: for this moment it is.
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("icecore-fusectl-{}-{serial}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounted = rustix::mount::mount("none", &dir, "fusectl", flags, None);
    let done = match mounted {
        Ok(()) => {
            let done = std::fs::write(dir.join(number.to_string()).join("abort"), "1");
            rustix::mount::unmount(&dir, UnmountFlags::DETACH)?;
            done
        }
        Err(e) => Err(e.into()),
    };
    std::fs::remove_dir(&dir)?;
    done
}

/// Sets what is said; the other flags stay.
pub(crate) fn remount(dir: &Path, said: &Said) -> io::Result<()> {
    use rustix::fs::{StatVfsMountFlags as Has, statvfs};
    let now = statvfs(dir)?.f_flag;
    let on = |said: Option<bool>, off: Has| said.unwrap_or(!now.contains(off));
    let flags = Flags {
        read_only: said.read_only.unwrap_or(now.contains(Has::RDONLY)),
        atime: on(said.atime, Has::NOATIME),
        devices: on(said.devices, Has::NODEV),
        exec: on(said.exec, Has::NOEXEC),
        setuid: on(said.setuid, Has::NOSUID),
    };
    Ok(rustix::mount::mount_remount(dir, flags.bits(), c"")?)
}
