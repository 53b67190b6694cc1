//! Pools made by OpenZFS: every block of the MOS is read and checked.

use crate::support::{env, judge};
use crate::walk::{open, read_datasets, read_mos, zoo};
use icecore_dmu::BlockStore;
use icecore_pool::{Mode, Pool, PoolError};
use icecore_sim::SimDisk;
use std::path::PathBuf;
use std::sync::Arc;

fn images() -> Vec<(String, Vec<PathBuf>)> {
    let pool = |name: &str, files: &[&str]| Some((name.to_owned(), zoo(files)?));
    let all = vec![
        pool("main", &["main"]),
        pool("crypt", &["crypt"]),
        pool("codecs", &["codecs"]),
        pool("shapes", &["shapes"]),
        pool("nofeat", &["nofeat"]),
        pool("v28", &["v28"]),
        pool("gang", &["gang"]),
        pool("ckpt", &["ckpt"]),
        pool("mir2", &["m-0", "m-1"]),
        pool("mir3", &["m3-0", "m3-1", "m3-2"]),
        pool("stripe", &["st-0", "st-1"]),
        pool("rz1", &["rz1-0", "rz1-1", "rz1-2"]),
        pool("rz2", &["rz2-0", "rz2-1", "rz2-2", "rz2-3"]),
        pool("expanded", &["ex-0", "ex-1", "ex-2", "ex-3"]),
        pool("special", &["sp-0", "sp-1", "sp-2"]),
        pool("gptdisk", &["gptdisk"]),
        pool("dirty", &["dirty"]),
        pool("rz3", &["rz3-0", "rz3-1", "rz3-2", "rz3-3", "rz3-4"]),
        pool("dr", &["dr-0", "dr-1", "dr-2", "dr-3", "dr-4"]),
        pool("removed", &["rm-0", "rm-1"]),
    ];
    all.into_iter().flatten().collect()
}

#[test]
fn every_block_of_the_mos() {
    for (name, files) in images() {
        let pool = open(&files, Mode::ReadOnly).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (objects, blocks) = read_mos(&pool);
        eprintln!("{name}: txg {} {objects} objects {blocks} blocks {:?}", pool.synced(), pool.space());
        assert!(objects > 20 && blocks > 20, "{name}");
    }
}

/// A copy of a zoo image in memory.
fn copy(files: &[PathBuf]) -> Vec<Arc<SimDisk>> {
    files.iter().map(|f| Arc::new(SimDisk::load(f).unwrap())).collect()
}

/// Our txgs on top of pools OpenZFS made, its space map logs included; `zdb` judges the result.
#[test]
fn written_on_top() {
    let writable = ["main", "crypt", "codecs", "mir2", "mir3", "stripe"];
    for (name, files) in images().into_iter().filter(|(name, _)| writable.contains(&name.as_str())) {
        let disks = copy(&files);
        for round in 0..3 {
            let mut pool = crate::support::open(env(round), &disks, Mode::Write)
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            let before = pool.space().allocated;
            for _ in 0..3 {
                let path = format!("{}/made{}", pool.name(), pool.io().txg());
                let (io, dsl) = pool.parts();
                dsl.create_filesystem(io, &path, &[]).unwrap();
                pool.commit().unwrap();
            }
            assert!(pool.space().allocated > before);
            assert!(!pool.io().has_unflushed());
            if round == 1 {
                pool.export().unwrap();
            }
        }
        let own = open_again(&disks).name().to_owned();
        judge(&own, &disks);
    }
}

fn open_again(disks: &[Arc<SimDisk>]) -> Pool {
    crate::support::open(env(7), disks, Mode::ReadOnly).unwrap()
}

/// What we do not write to is refused with the reason.
#[test]
fn refused_for_writing() {
    let expected = [
        ("v28", "feature flags"),
        ("nofeat", "lz4_compress"),
        ("ckpt", "checkpoint"),
        ("rz1", "raidz"),
        ("special", "special"),
        ("expanded", "raidz"),
        ("shapes", "block_cloning"),
        ("dr", "draid"),
    ];
    for (name, files) in images() {
        let Some((_, reason)) = expected.iter().find(|(n, _)| *n == name) else { continue };
        match crate::support::open(env(1), &copy(&files), Mode::Write) {
            Err(PoolError::ReadOnlyOnly(why)) => {
                eprintln!("{name}: {why:?}");
                assert!(why.iter().any(|w| w.contains(reason)), "{name}: {why:?}");
            }
            Err(other) => panic!("{name}: {other}"),
            Ok(_) => panic!("{name} was opened for writing"),
        }
    }
}

#[test]
fn history_of_openzfs() {
    for (name, files) in images().into_iter().filter(|(name, _)| name == "main") {
        let pool = open(&files, Mode::ReadOnly).unwrap();
        let commands: Vec<String> = pool
            .history()
            .unwrap()
            .iter()
            .filter_map(|r| r.str("history command").map(str::to_owned))
            .collect();
        assert!(commands.len() > 10, "{name}");
        assert!(commands[0].starts_with("zpool create"), "{}", commands[0]);
    }
}

#[test]
fn every_block_of_every_dataset() {
    for (name, files) in images() {
        let pool = open(&files, Mode::ReadOnly).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (datasets, blocks) = read_datasets(&name, &pool);
        eprintln!("{name}: {datasets} datasets {blocks} blocks");
        assert!(datasets > 0 && blocks > 10, "{name}");
    }
}

/// An intent log that was never claimed forbids writing; reading is fine.
#[test]
fn unreplayed_log_forbids_writing() {
    for (_, files) in images().into_iter().filter(|(name, _)| name == "dirty") {
        match open(&files, Mode::Write) {
            Err(PoolError::ReadOnlyOnly(why)) => {
                assert_eq!(why.iter().filter(|w| w.contains("intent log")).count(), 2, "{why:?}");
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("opened for writing"),
        }
    }
}
