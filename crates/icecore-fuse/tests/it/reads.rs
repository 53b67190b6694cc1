//! What single requests answer.

use crate::support::{Mount, can_mount, main_pool};
use icecore_fuse::{Options, What};
use icecore_pool::Shared;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

const DOCS: &str = "main/encrypted/docs";

/// A regular file of at least `min` bytes.
fn file_of(dir: &std::path::Path, min: u64) -> std::path::PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    let found = files.filter(|e| e.metadata().unwrap().is_file() && e.metadata().unwrap().len() >= min);
    found.map(|e| e.path()).min().expect("a file of that size")
}

#[test]
fn a_locked_file_system_is_not_mounted_and_nothing_stays() {
    if !can_mount() {
        return;
    }
    let image = icecore_check::fixture::fixture("cold/main.img");
    let shared = Shared::new(icecore_check::zoo::open(&[image]).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let what = What::Dataset(DOCS.into());
    let refused = icecore_fuse::mount(shared.clone(), &what, dir.path(), &Options::default());
    assert_eq!(refused.err().unwrap().to_string(), "encryption key not loaded");
    // In a tree it stays out, as `zfs mount -a` leaves it out.
    let tree = Mount::new(&shared, &What::Tree("main".into()));
    let names: Vec<_> = fs::read_dir(tree.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().any(|n| n == "plain"), "{names:?}");
    assert!(fs::read_dir(tree.path().join("encrypted")).map_or(true, |mut d| d.next().is_none()));
    tree.unmount();
}

#[test]
fn numbers_are_the_objects_and_those_of_snapshots_their_own() {
    if !can_mount() {
        return;
    }
    let shared = Shared::new(main_pool());
    let first = Mount::dataset(&shared, DOCS);
    let meta = |p: std::path::PathBuf| p.symlink_metadata().unwrap();
    let root = meta(first.path().to_path_buf());
    let fs_root = {
        let pool = shared.read();
        match icecore_zpl::open(pool.io(), &pool.dsl, DOCS).unwrap() {
            icecore_zpl::Dataset::Filesystem(fs) => fs.root().0,
            icecore_zpl::Dataset::Volume(_) => unreachable!("docs is a file system"),
        }
    };
    assert_eq!(root.ino(), fs_root);
    let file = file_of(first.path(), 1);
    let name = file.file_name().unwrap().to_owned();
    let in_snapshot = first.path().join(".zfs/snapshot/newsnapshot").join(&name);
    let numbers = (meta(file).ino(), meta(in_snapshot).ino());
    assert_ne!(numbers.0, numbers.1);
    assert_eq!(numbers.0, numbers.1 & ((1 << 48) - 1), "the same object");
    first.unmount();
    let again = Mount::dataset(&shared, DOCS);
    let later = again.path().join(".zfs/snapshot/newsnapshot").join(&name);
    assert_eq!((meta(again.path().join(&name)).ino(), meta(later).ino()), numbers);
    assert!(again.path().join(".zfs/snapshot/no-such").symlink_metadata().is_err());
    assert!(!fs::read_dir(again.path()).unwrap().any(|e| e.unwrap().file_name() == ".zfs"), "it is hidden");
    again.unmount();
}

#[test]
fn nothing_can_be_written() {
    if !can_mount() {
        return;
    }
    let shared = Shared::new(main_pool());
    let mount = Mount::dataset(&shared, "main/plain");
    const EROFS: i32 = 30;
    assert_eq!(fs::write(mount.path().join("new"), "x").unwrap_err().raw_os_error(), Some(EROFS));
    assert_eq!(fs::create_dir(mount.path().join("new")).unwrap_err().raw_os_error(), Some(EROFS));
    mount.unmount();
}

#[test]
fn reads_at_any_place_by_many_at_once() {
    if !can_mount() {
        return;
    }
    let shared = Shared::new(main_pool());
    let mount = Mount::dataset(&shared, DOCS);
    let path = file_of(mount.path(), 20_000);
    let whole = fs::read(&path).unwrap();
    let file = Arc::new(File::open(&path).unwrap());
    std::thread::scope(|scope| {
        for seed in 0..8_u64 {
            let (file, whole) = (file.clone(), &whole);
            scope.spawn(move || {
                let mut at = seed * 977;
                for _ in 0..200 {
                    at = (at * 6_364_136_223 + 1_442_695) % (whole.len() as u64 + 5000);
                    let mut buf = vec![0; (at % 9000) as usize + 1];
                    let n = file.read_at(&mut buf, at).unwrap();
                    let from = (at as usize).min(whole.len());
                    let to = (from + buf.len()).min(whole.len());
                    assert_eq!(buf[..n], whole[from..to], "at {at}");
                }
            });
        }
    });
    drop(file);
    mount.unmount();
}

#[test]
fn a_snapshot_is_mounted_by_its_name() {
    if !can_mount() {
        return;
    }
    let shared = Shared::new(main_pool());
    let mount = Mount::dataset(&shared, "main/plain@newsnapshot");
    assert!(fs::read_dir(mount.path()).unwrap().count() > 0);
    assert!(mount.path().join(".zfs").symlink_metadata().is_err());
    mount.unmount();
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default();
    let volume = {
        let pool = shared.read();
        let all = pool.dsl.descendants(pool.io(), "main").unwrap();
        all.into_iter().find(|n| n.contains("vol"))
    };
    if let Some(volume) = volume {
        let refused = icecore_fuse::mount(shared.clone(), &What::Dataset(volume), dir.path(), &options);
        assert_eq!(refused.err().unwrap().to_string(), "a volume has no files");
    }
}
