//! Pools of every layout with devices missing: whatever the layout survives reads in whole, and what it does not
//! is refused with the names of what is missing. Made by OpenZFS (`ICECORE_ZOO`), or by its `ztest`
//! (`ICECORE_ZTEST`, a folder with one folder for each pool; see tests-data/recipes/ztest.sh).

use crate::support::env;
use crate::walk::{open, read_datasets, read_mos, zoo};
use icecore_format::Guid;
use icecore_pool::{Mode, PoolError};
use icecore_vdev::PoolState;
use icecore_vdev::probe::{FoundPool, assemble, probe};
use std::path::{Path, PathBuf};

/// Reads all of the pool on `files`; objects of the MOS, datasets, blocks.
fn walk(name: &str, files: &[PathBuf]) -> (u64, u64, u64) {
    let pool = open(files, Mode::ReadOnly).unwrap_or_else(|e| panic!("{name} on {files:?}: {e}"));
    let (objects, blocks) = read_mos(&pool);
    let (datasets, more) = read_datasets(name, &pool);
    (objects, datasets, blocks + more)
}

fn subsets(files: &[PathBuf]) -> Vec<Vec<PathBuf>> {
    let pick = |bits: usize| {
        let chosen = files.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
        chosen.map(|(_, f)| f.clone()).collect()
    };
    (1..1 << files.len()).map(pick).collect()
}

/// Leaves by the order of `files`: guid and the path in the labels.
fn leaves(files: &[PathBuf]) -> Vec<(Guid, String)> {
    let leaf = |f: &PathBuf| {
        let labels = probe(std::slice::from_ref(f), &*env(1).workers).candidates;
        let config = labels[0].config(icecore_format::Txg(u64::MAX)).unwrap().clone();
        let guid = Guid(config.guid.unwrap());
        let path = config.vdev_tree.unwrap().find(guid).unwrap().path.clone().unwrap();
        (guid, path)
    };
    files.iter().map(leaf).collect()
}

/// `enough` says whether a set of devices (by index) must do.
fn check(name: &str, files: &[&str], enough: &dyn Fn(&[bool]) -> bool) {
    let Some(files) = zoo(files) else { return };
    let whole = walk(name, &files);
    let leaves = leaves(&files);
    let (mut read, mut refused) = (0, 0);
    for subset in subsets(&files) {
        let here: Vec<bool> = files.iter().map(|f| subset.contains(f)).collect();
        if enough(&here) {
            assert_eq!(walk(name, &subset), whole, "{name} {here:?}");
            read += 1;
            continue;
        }
        match open(&subset, Mode::ReadOnly) {
            Err(PoolError::Devices(why)) => {
                refused += 1;
                // Only the MOS names the devices of other top-level vdevs. If it is on these, labels tell how
                // many there are and no more.
                if why.contains("no device of top-level vdev") {
                    continue;
                }
                let gone = leaves.iter().zip(&here).filter(|(_, here)| !**here).map(|(l, _)| l);
                let named = gone.filter(|(g, p)| why.contains(&g.to_string()) && why.contains(p.as_str()));
                assert!(named.count() > 0, "{name} {here:?} names nothing that is missing: {why}");
                assert!(why.contains("needed"), "{name} {here:?}: {why}");
            }
            Err(other) => panic!("{name} {here:?}: {other}"),
            Ok(_) => panic!("{name} {here:?} was opened"),
        }
    }
    eprintln!("{name}: {whole:?}; {read} sets of devices read in whole, {refused} refused");
}

fn at_least(n: usize) -> impl Fn(&[bool]) -> bool {
    move |here| here.iter().filter(|h| **h).count() >= n
}

#[test]
fn mirrors() {
    check("mir2", &["m-0", "m-1"], &at_least(1));
    // m3-2 was taken offline before the last writes: it can help nobody, but it knows an older pool.
    let Some(files) = zoo(&["m3-0", "m3-1", "m3-2"]) else { return };
    let whole = walk("mir3", &files);
    for subset in subsets(&files) {
        let old = subset.len() == 1 && subset[0] == files[2];
        let pool = open(&subset, Mode::ReadOnly).unwrap();
        assert_eq!(pool.synced() < open(&files, Mode::ReadOnly).unwrap().synced(), old, "{subset:?}");
        assert_eq!(walk("mir3", &subset) == whole, !old, "{subset:?}");
    }
}

#[test]
fn stripe() {
    check("stripe", &["st-0", "st-1"], &at_least(2));
}

#[test]
fn raidz1() {
    check("rz1", &["rz1-0", "rz1-1", "rz1-2"], &at_least(2));
}

#[test]
fn raidz2() {
    check("rz2", &["rz2-0", "rz2-1", "rz2-2", "rz2-3"], &at_least(2));
}

#[test]
fn raidz3() {
    check("rz3", &["rz3-0", "rz3-1", "rz3-2", "rz3-3", "rz3-4"], &at_least(2));
}

#[test]
fn raidz_expanded() {
    check("expanded", &["ex-0", "ex-1", "ex-2", "ex-3"], &at_least(3));
}

#[test]
fn draid() {
    check("dr", &["dr-0", "dr-1", "dr-2", "dr-3", "dr-4"], &at_least(4));
}

/// The log device may be missing: what it holds is not needed to read.
#[test]
fn special_and_log() {
    check("special", &["sp-0", "sp-1", "sp-2"], &|here| here[0] && here[1]);
}

/// After a power cut the pool is as its last uberblock says; what only the intent log has is not shown.
#[test]
fn a_power_cut() {
    let Some(files) = zoo(&["dirty"]) else { return };
    let before = files[0].metadata().unwrap().modified().unwrap();
    let found = probe(&files, &*env(1).workers).candidates;
    let rings = icecore_vdev::label::read_uberblocks(&*found[0].device, None);
    let newest = rings.iter().map(|u| u.txg()).max().unwrap();
    let pool = open(&files, Mode::ReadOnly).unwrap();
    assert_eq!(pool.synced(), newest);
    assert_eq!(pool.config().pool_state(), PoolState::ACTIVE);
    assert!(read_mos(&pool).1 > 20 && read_datasets("dirty", &pool).0 > 3);
    assert_eq!(files[0].metadata().unwrap().modified().unwrap(), before);
}

/// Pools of `ztest`: removed vdevs that lead to others that were removed, mirrors of them, draids with more
/// parity and spares.
#[test]
fn of_ztest() {
    let Some(dir) = std::env::var_os("ICECORE_ZTEST") else {
        eprintln!("SKIPPED: ICECORE_ZTEST does not name a folder of pools made by ztest");
        return;
    };
    let mut looked_at = 0;
    for folder in std::fs::read_dir(Path::new(&dir)).unwrap().map(|e| e.unwrap().path()) {
        if !folder.is_dir() {
            continue;
        }
        let files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        let found = probe(&files, &*env(1).workers);
        // Beside the pool itself ztest leaves pieces of others that it made and destroyed on the way.
        let pools = assemble(&found.candidates).0.into_iter();
        for pool in pools.filter(|p| p.state != PoolState::DESTROYED && p.devices.len() > p.absent.len()) {
            let files = paths(&pool);
            let tops: Vec<String> =
                pool.config.vdev_tree.as_ref().unwrap().children.iter().map(|t| t.kind.to_string()).collect();
            let whole = walk(&pool.name, &files);
            looked_at += 1;
            eprintln!("{}: {whole:?} {tops:?}", pool.name);
        }
    }
    assert!(looked_at > 0);
}

fn paths(pool: &FoundPool) -> Vec<PathBuf> {
    pool.devices.values().map(|c| c.source.as_ref().unwrap().path.clone()).collect()
}
