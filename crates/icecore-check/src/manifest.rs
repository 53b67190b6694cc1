//! What a tree of files looks like, line for line as the recipes of the zoo record it with `find`, `sha256sum` and
//! `getfattr` (`manifest` in `tests-data/recipes/lib.sh`).
//!
//! For each entry `type mode uid gid size mtime links path<TAB>link target`; then `# sha256` of each file that takes no
//! more than 99 MiB; then `# xattr` of files and directories. All of it is built in memory: for tests and comparisons.

use icecore_dmu::BlockStore;
use icecore_zpl::{Extent, FileKind, Filesystem, Result, Step, Walk, Xattr, Znode};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Files above this are not hashed (`-size -100M` counts begun mebibytes).
const HASHED_MAX: u64 = 99 << 20;

/// A file system as it is mounted: other file systems may be mounted on directories of it.
pub struct Mounted {
    /// The file system.
    pub fs: Filesystem,
    /// Property `acltype` is `posix`: access control lists show as extended attributes.
    pub posix_acl: bool,
    /// Directories (paths from this root) that others cover.
    pub below: Vec<(Vec<u8>, Mounted)>,
}

#[derive(Default)]
struct Lists {
    /// Path, tab, target; and the whole line.
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    hashes: Vec<(Vec<u8>, String)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The manifest of what is below the root of `top`. The first thing that cannot be read is an error.
pub fn manifest(io: &dyn BlockStore, top: &Mounted) -> Result<Vec<u8>> {
    let mut lists = Lists::default();
    lists.add(io, top, b"./")?;
    Ok(lists.text())
}

/// The manifest of what is below a folder of this machine.
pub fn of_folder(folder: &Path) -> io::Result<Vec<u8>> {
    let mut lists = Lists::default();
    let mut folders = vec![(folder.to_path_buf(), b"./".to_vec())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let path = [&prefix, entry.file_name().as_bytes()].concat();
            lists.file(&entry.path(), &path)?;
            if entry.file_type()?.is_dir() {
                folders.push((entry.path(), [&path, &b"/"[..]].concat()));
            }
        }
    }
    Ok(lists.text())
}

/// Extended attributes of a file of this machine, links not followed.
fn xattrs_of(file: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    /// Linux allows no more names or values (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
    const XATTR_MAX: usize = 64 << 10;
    let mut names = vec![0; XATTR_MAX];
    let len = rustix::fs::llistxattr(file, &mut names[..])?;
    names.truncate(len);
    let mut out = Vec::new();
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0; XATTR_MAX];
        let len = rustix::fs::lgetxattr(file, name, &mut value[..])?;
        value.truncate(len);
        out.push((name.to_vec(), value));
    }
    out.sort();
    Ok(out)
}

impl Lists {
    fn text(mut self) -> Vec<u8> {
        self.entries.sort();
        self.hashes.sort();
        self.xattrs.sort();
        let mut out = Vec::new();
        for (_, line) in &self.entries {
            out.extend_from_slice(line);
        }
        out.extend_from_slice(b"# sha256\n");
        for (path, hash) in &self.hashes {
            let quoted = quote_sum(path);
            if quoted != *path {
                out.push(b'\\');
            }
            out.extend_from_slice(hash.as_bytes());
            out.extend_from_slice(b"  ");
            out.extend_from_slice(&quoted);
            out.push(b'\n');
        }
        out.extend_from_slice(b"# xattr\n");
        for (_, block) in &self.xattrs {
            out.extend_from_slice(block);
        }
        out
    }

    /// A file of this machine.
    fn file(&mut self, file: &Path, path: &[u8]) -> io::Result<()> {
        let meta = file.symlink_metadata()?;
        let kind = FileKind::from_mode(u64::from(meta.mode()))
            .ok_or_else(|| io::Error::other(format!("mode {:o}", meta.mode())))?;
        let target = match kind {
            FileKind::Symlink => std::fs::read_link(file)?.as_os_str().as_bytes().to_vec(),
            _ => Vec::new(),
        };
        let key = [path, b"\t", &target].concat();
        let head = format!(
            "{} {:o} {} {} {} {}.{:09}0 {} ",
            kind.find_letter(),
            meta.mode() & 0o7777,
            meta.uid(),
            meta.gid(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.nlink()
        );
        let line = [head.as_bytes(), &key, b"\n"].concat();
        self.entries.push((key, line));
        if kind == FileKind::Regular && meta.size() <= HASHED_MAX {
            self.hashes.push((path.to_vec(), sha256_of(&std::fs::read(file)?)));
        }
        if matches!(kind, FileKind::Regular | FileKind::Directory) {
            let shown = xattrs_of(file)?;
            if !shown.is_empty() {
                self.xattrs.push((path.to_vec(), xattr_block(path, &shown)));
            }
        }
        Ok(())
    }

    fn add(&mut self, io: &dyn BlockStore, top: &Mounted, prefix: &[u8]) -> Result<()> {
        let fs = &top.fs;
        let mut walk = Walk::new(fs, io, fs.znode(io, fs.root())?)?;
        while let Some(step) = walk.next(fs, io) {
            let (path, z) = match step {
                Step::File { path, znode } => (path, znode),
                Step::Leave { .. } => continue,
                Step::Failed { error, .. } => return Err(error),
            };
            let full = [prefix, &path].concat();
            if let Some((_, mount)) = top.below.iter().find(|(at, _)| *at == path) {
                walk.skip();
                let root = mount.fs.znode(io, mount.fs.root())?;
                self.entry(io, mount, &full, &root)?;
                self.add(io, mount, &[&full, &b"/"[..]].concat())?;
            } else {
                self.entry(io, top, &full, &z)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, io: &dyn BlockStore, on: &Mounted, path: &[u8], z: &Znode) -> Result<()> {
        let fs = &on.fs;
        let target = if z.kind == FileKind::Symlink { fs.readlink(io, z)? } else { Vec::new() };
        let key = [path, b"\t", &target].concat();
        let head = format!(
            "{} {:o} {} {} {} {}.{:09}0 {} ",
            z.kind.find_letter(),
            z.mode & 0o7777,
            Filesystem::posix_id(z.uid),
            Filesystem::posix_id(z.gid),
            z.size,
            z.mtime.seconds,
            z.mtime.nanos,
            z.links
        );
        let line = [head.as_bytes(), &key, b"\n"].concat();
        self.entries.push((key, line));
        if z.kind == FileKind::Regular && z.size <= HASHED_MAX {
            self.hashes.push((path.to_vec(), sha256(io, fs, z)?));
        }
        if matches!(z.kind, FileKind::Regular | FileKind::Directory) {
            let mut shown: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            for x in fs.xattrs(io, z)? {
                if let Some(name) = name_shown(&x, on.posix_acl) {
                    shown.push((name, x.value));
                }
            }
            shown.sort();
            if !shown.is_empty() {
                self.xattrs.push((path.to_vec(), xattr_block(path, &shown)));
            }
        }
        Ok(())
    }
}

fn name_shown(x: &Xattr, posix_acl: bool) -> Option<Vec<u8>> {
    if x.is_posix_acl() && !posix_acl { None } else { x.linux_name() }
}

fn xattr_block(path: &[u8], shown: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut block = [b"# file: ", path, b"\n"].concat();
    for (name, value) in shown {
        block.extend_from_slice(name);
        block.extend_from_slice(b"=0x");
        block.extend_from_slice(hex(value).as_bytes());
        block.push(b'\n');
    }
    block.push(b'\n');
    block
}

/// Names as `sha256sum` prints them: a line end and a backslash would make the line ambiguous.
fn quote_sum(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for b in path {
        match b {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b => out.push(*b),
        }
    }
    out
}

/// The SHA-256 of a regular file in hexadecimal digits.
pub fn sha256(io: &dyn BlockStore, fs: &Filesystem, z: &Znode) -> Result<String> {
    let mut content = fs.content(z)?;
    let mut sum = Hasher::default();
    loop {
        let window = content.next_window(fs.objset(), io)?;
        if window.is_empty() {
            return Ok(sum.finish(content.size()));
        }
        for e in &window {
            sum.extent(e);
        }
    }
}

/// The SHA-256 of some bytes in hexadecimal digits.
#[must_use]
pub fn sha256_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A SHA-256 over extents, holes as zeros.
#[derive(Default)]
pub struct Hasher {
    sum: Sha256,
    at: u64,
}

impl Hasher {
    /// Adds the next data; what lies before it and was not given is zeros.
    pub fn extent(&mut self, e: &Extent) {
        self.zeros(e.offset);
        self.sum.update(e.bytes());
        self.at = e.offset + e.bytes().len() as u64;
    }
    fn zeros(&mut self, until: u64) {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.at < until {
            let n = (until - self.at).min(ZEROS.len() as u64);
            self.sum.update(&ZEROS[..n as usize]);
            self.at += n;
        }
    }
    /// The digits of the sum of `size` bytes.
    #[must_use]
    pub fn finish(mut self, size: u64) -> String {
        self.zeros(size);
        hex(&self.sum.finalize())
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        let _ = write!(out, "{b:02x}");
    }
    out
}

/// The first lines in which two manifests differ, for people; `None` if they are equal.
#[must_use]
pub fn difference(expected: &[u8], found: &[u8]) -> Option<String> {
    if expected == found {
        return None;
    }
    let (mut e, mut f) = (expected.split(|b| *b == b'\n'), found.split(|b| *b == b'\n'));
    let mut at = 0;
    loop {
        at += 1;
        let (one, other) = (e.next(), f.next());
        if one != other {
            let show = |l: Option<&[u8]>| {
                l.map(|l| String::from_utf8_lossy(l).chars().take(200).collect::<String>())
            };
            return Some(format!("line {at}: expected {:?}, found {:?}", show(one), show(other)));
        }
        if one.is_none() {
            return Some("they differ in nothing but their ends".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_seen_wherever_it_is() {
        let text = b"f 644 0 0 2 1.0 1 ./a\t\n# sha256\nabc  ./a\n# xattr\n";
        assert_eq!(difference(text, text), None);
        for at in 0..text.len() {
            let mut other = text.to_vec();
            other[at] ^= 1;
            assert!(difference(text, &other).is_some(), "{at}");
            assert!(difference(text, &text[..at]).is_some(), "{at}");
        }
    }

    #[test]
    fn names_are_quoted_as_sha256sum_does() {
        assert_eq!(quote_sum(b"a b\xff"), b"a b\xff");
        assert_eq!(quote_sum(b"a\\b\nc\r"), b"a\\\\b\\nc\\r");
    }
}
