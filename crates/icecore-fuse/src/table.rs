//! The kernel's table of mounts.

use rustix::fs::{Mode, OFlags};
use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mount of any kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Number of the mount.
    pub id: u64,
    /// Device number of its file system: major, minor.
    pub device: (u32, u32),
    /// Where.
    pub dir: PathBuf,
    /// Type of its file system, as `fuse.zfs`.
    pub kind: Vec<u8>,
}

/// All mounts that this process sees; none where there is no `/proc`.
#[must_use]
pub fn all() -> Vec<Line> {
    parse(&std::fs::read("/proc/self/mountinfo").unwrap_or_default())
}

/// The mount that is entered at `dir`, if one is made there: of several, the one on top. No file system is asked.
#[must_use]
pub fn top(dir: &Path) -> Option<Line> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::open(dir, flags, Mode::empty()).ok()?;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", place.as_raw_fd())).ok()?;
    let id = info.lines().find_map(|l| l.strip_prefix("mnt_id:")?.trim().parse().ok())?;
    all().into_iter().find(|line| line.id == id && line.dir == dir)
}

fn parse(table: &[u8]) -> Vec<Line> {
    let line = |line: &[u8]| {
        let mut fields = line.split(|b| *b == b' ');
        let id = number(fields.next()?)?;
        let (major, minor) = std::str::from_utf8(fields.nth(1)?).ok()?.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        let dir = fields.nth(1).map(unescaped)?;
        let kind = fields.skip_while(|f| *f != b"-").nth(1)?.to_vec();
        Some(Line { id, device, dir: OsString::from_vec(dir).into(), kind })
    };
    table.split(|b| *b == b'\n').filter_map(line).collect()
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// A field of the table: blanks and such are backslash and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, more)) = rest.split_first() {
        let code = more.get(..3).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match code.filter(|_| *first == b'\\') {
            Some(byte) => {
                out.push(byte);
                rest = more.get(3..).unwrap_or(&[]);
            }
            None => {
                out.push(*first);
                rest = more;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernels_table() {
        let text =
            b"36 35 0:44 / /mnt/my\\040pool\\134x rw,nosuid shared:1 - fuse.zfs tank/fs rw\nnonsense\n";
        let dir = "/mnt/my pool\\x".into();
        let line = Line { id: 36, device: (0, 44), dir, kind: b"fuse.zfs".to_vec() };
        assert_eq!(parse(text), [line]);
        assert_eq!(unescaped(br"/mnt/x\\9"), br"/mnt/x\\9");
    }
}
