//! Which paths may hold a pool's device: block devices below `/dev`, image files elsewhere.
//!
//! Invariants:
//! 1. Paths come out in the order of the search, each device once: under the first name it was met by.
//! 2. Nothing is opened; what cannot be looked at is left out.

use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Smallest file worth a look: the smallest device of a pool.
const FILE_MIN: u64 = 64 << 20;

/// Where to search if nothing is said: stable names first (`zpool_default_search_paths`,
/// zutil_import_os.c).
#[must_use]
pub fn default_dirs() -> Vec<PathBuf> {
    let dirs = [
        "/dev/disk/by-vdev",
        "/dev/mapper",
        "/dev/disk/by-partlabel",
        "/dev/disk/by-partuuid",
        "/dev/disk/by-label",
        "/dev/disk/by-uuid",
        "/dev/disk/by-id",
        "/dev/disk/by-path",
        "/dev",
    ];
    dirs.iter().map(PathBuf::from).collect()
}

/// The devices and images among `search`: files and devices named there, and those directly in
/// directories named there.
#[must_use]
pub fn candidates(search: &[PathBuf]) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for path in search {
        if path.is_dir() {
            for entry in sorted_entries(path) {
                if usable(&entry, Named::ByDirectory) {
                    take(entry, &mut seen, &mut out);
                }
            }
        } else if usable(path, Named::ByUser) {
            take(path.clone(), &mut seen, &mut out);
        }
    }
    out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    ByUser,
    ByDirectory,
}

fn sorted_entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    paths
}

fn take(path: PathBuf, seen: &mut BTreeSet<PathBuf>, out: &mut Vec<PathBuf>) {
    let real = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
    if seen.insert(real) {
        out.push(path);
    }
}

fn usable(path: &Path, named: Named) -> bool {
    let Ok(meta) = std::fs::metadata(path) else { return false };
    let kind = meta.file_type();
    if kind.is_block_device() {
        // Reading these may wait for a medium, or never end.
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let odd = ["fd", "sr", "ram", "watchdog"]
            .iter()
            .any(|p| name.strip_prefix(p).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit())));
        return named == Named::ByUser || !odd;
    }
    let in_dev = path.starts_with("/dev");
    kind.is_file() && (named == Named::ByUser || !in_dev && meta.len() >= FILE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_once_under_its_first_name() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("b.img");
        std::fs::File::create(&image).unwrap().set_len(FILE_MIN).unwrap();
        std::fs::File::create(dir.path().join("small")).unwrap();
        let link = dir.path().join("a.img");
        std::os::unix::fs::symlink(&image, &link).unwrap();
        assert_eq!(candidates(&[dir.path().to_owned()]), [link]);
        assert_eq!(candidates(&[image.clone(), dir.path().to_owned()]), [image]);
        assert_eq!(candidates(&[dir.path().join("small")]).len(), 1);
        assert!(candidates(&[dir.path().join("none")]).is_empty());
    }
}
