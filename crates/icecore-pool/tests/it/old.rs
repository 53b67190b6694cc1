//! Pools of OpenZFS's own test suite (`tests/zfs-tests/**/blockfiles`, unpacked), versions 1 to 15 and a few with
//! a history, in the folder that `ICECORE_OPENZFS_TESTDATA` names. They are CDDL and not in this repository.

use crate::support::env;
use crate::walk::{open, read_datasets, read_mos};
use icecore_pool::Mode;
use icecore_vdev::probe::{assemble, probe};
use icecore_vdev::tree::Health;
use std::path::{Path, PathBuf};

fn files(names: &[&str]) -> Option<Vec<PathBuf>> {
    let Some(dir) = std::env::var_os("ICECORE_OPENZFS_TESTDATA") else {
        eprintln!(
            "SKIPPED: {names:?}: ICECORE_OPENZFS_TESTDATA does not name a folder of OpenZFS's test pools"
        );
        return None;
    };
    let files: Vec<PathBuf> = names.iter().map(|n| Path::new(&dir).join(n)).collect();
    files.iter().for_each(|f| assert!(f.exists(), "{}", f.display()));
    Some(files)
}

fn stamps(files: &[PathBuf]) -> Vec<std::time::SystemTime> {
    files.iter().map(|f| f.metadata().unwrap().modified().unwrap()).collect()
}

/// Opens read-only and reads every block; nothing is written.
fn reads_in_whole(names: &[&str]) {
    let Some(files) = files(names) else { return };
    let before = stamps(&files);
    let pool = open(&files, Mode::ReadOnly).unwrap_or_else(|e| panic!("{names:?}: {e}"));
    let mos = read_mos(&pool);
    let datasets = read_datasets(names[0], &pool);
    eprintln!("{}: version {:?} MOS {mos:?} datasets {datasets:?}", names[0], pool.config().version);
    assert!(mos.0 > 10 && datasets.0 > 0);
    assert_eq!(stamps(&files), before, "{names:?}");
}

#[test]
fn every_version_reads_in_whole() {
    for v in 1..=15 {
        reads_in_whole(&[&format!("zfs-pool-v{v}.dat")]);
    }
}

#[test]
fn every_layout_of_the_first_versions_reads_in_whole() {
    for set in [
        "v1mirror",
        "v1raidz",
        "v1stripe",
        "v2mirror",
        "v2raidz",
        "v2stripe",
        "v3mirror",
        "v3raidz",
        "v3raidz2",
        "v3stripe",
        "v3hotspare",
    ] {
        let names: Vec<String> = (1..=3).map(|i| format!("zfs-pool-{set}{i}.dat")).collect();
        reads_in_whole(&names.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// Pools that once tripped OpenZFS: the first encryption format, missing IV set guids, a log never replayed, a
/// bug with spilled dedup.
#[test]
fn pools_with_a_history_read_in_whole() {
    for name in ["cryptv0.dat", "missing_ivset.dat", "unclean_export.dat", "13709_reproducer"] {
        reads_in_whole(&[name]);
    }
}

/// Named so by OpenZFS, used by none of its tests, and sound to `zdb -bcc`.
#[test]
fn a_pool_named_broken_is_sound() {
    reads_in_whole(&["zfs-pool-vBROKEN.dat"]);
}

#[test]
fn a_version_of_the_future_is_refused() {
    let Some(files) = files(&["zfs-pool-v999.dat"]) else { return };
    let refused = open(&files, Mode::ReadOnly).err().map(|e| e.to_string());
    assert_eq!(refused.as_deref(), Some("pool version 999 is not supported"));
}

/// One side is shorter than its labels say: the pool is degraded, and reads from the other.
#[test]
fn a_mirror_with_a_side_cut_short_reads_from_the_other() {
    let names = ["zfs-broken-mirror1.dat", "zfs-broken-mirror2.dat"];
    let Some(files) = files(&names) else { return };
    let found = assemble(&probe(&files, &*env(1).workers).candidates).0;
    let [pool] = found.as_slice() else { panic!("{} pools", found.len()) };
    assert_eq!((pool.health(), pool.absent.len()), (Health::Degraded, 1));
    assert!(pool.absent[0].path.ends_with("zfs-broken-mirror1.dat"));
    assert!(pool.absent[0].why.starts_with("too small"), "{}", pool.absent[0].why);
    reads_in_whole(&names);
}
