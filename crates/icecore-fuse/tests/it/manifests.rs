//! Whole trees through a mount, compared with what OpenZFS's own mount showed: names, types, modes, owners, sizes,
//! times, links, contents, extended attributes and access control lists.

use crate::support::{Mount, can_mount, main_expected, main_pool};
use icecore_check::{manifest, zoo};
use icecore_fuse::What;
use icecore_pool::{Pool, Shared};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Compares every manifest of the folder: those of snapshots in `.zfs/snapshot`, those of heads with what is mounted
/// below them. Gives how many were equal.
fn compare(pool: Pool, folder: &Path) -> usize {
    let shared = Shared::new(pool);
    let mut heads: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(name) = name.strip_suffix(".manifest") {
            let name = name.replace('%', "/");
            let head = name.split('@').next().unwrap().to_string();
            heads.entry(head).or_default().push(name);
        }
    }
    let mut equal = 0;
    for (head, names) in heads {
        let mount = Mount::new(&shared, &What::Tree(head));
        for name in names {
            let path = match name.split_once('@') {
                None => mount.path().to_path_buf(),
                Some((_, snapshot)) => mount.path().join(".zfs/snapshot").join(snapshot),
            };
            let expected =
                std::fs::read(folder.join(format!("{}.manifest", name.replace('/', "%")))).unwrap();
            let found = manifest::of_folder(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(manifest::difference(&expected, &found), None, "{name}");
            equal += 1;
        }
        mount.unmount();
    }
    equal
}

#[test]
fn the_pool_of_the_repository() {
    if can_mount() {
        assert_eq!(compare(main_pool(), &main_expected()), 24);
    }
}

#[test]
fn every_pool_of_the_zoo() {
    let Some((images, expected)) = zoo::folders() else {
        eprintln!("SKIPPED: ICECORE_ZOO is not set");
        return;
    };
    if !can_mount() {
        return;
    }
    let mut equal = 0;
    for image in zoo::IMAGES {
        let files: Option<Vec<PathBuf>> =
            image.files.iter().map(|f| zoo::find(&images, &format!("{f}.img"))).collect();
        let Some(folder) = zoo::find(&expected, &format!("{}.expected", image.pool)) else { continue };
        let mut pool = zoo::open(&files.expect("its image")).unwrap();
        zoo::load_keys(&mut pool, &expected);
        let count = compare(pool, &folder);
        eprintln!("{}: {count} manifests", image.pool);
        equal += count;
    }
    eprintln!("{equal} manifests are equal through the mount");
    assert!(equal > 0);
}
