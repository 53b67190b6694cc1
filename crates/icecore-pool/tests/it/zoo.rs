//! Pools made by OpenZFS: every block of the MOS is read and checked.

use crate::support::{env, host, judge};
use icecore_dmu::{BlockStore, Objset, Want};
use icecore_env::Device;
use icecore_format::{Bookmark, ObjectId, ObjectType};
use icecore_pool::{Mode, OpenSpec, Pool, PoolError};
use icecore_sim::SimDisk;
use std::path::PathBuf;
use std::sync::Arc;

fn images() -> Vec<(String, Vec<PathBuf>)> {
    let pool = |name: &str, files: &[&str]| -> Option<(String, Vec<PathBuf>)> {
        let found: Option<Vec<PathBuf>> =
            files.iter().map(|f| icecore_check::fixture::zoo(&format!("{f}.img"))).collect();
        Some((name.to_owned(), found?))
    };
    let all = [
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
    ];
    all.into_iter().flatten().collect()
}

fn open(files: &[PathBuf], mode: Mode) -> Result<Pool, PoolError> {
    let found = icecore_vdev::probe::probe(files, &*env(1).workers);
    let devices: Vec<Arc<dyn Device>> = found.candidates.into_iter().map(|c| c.device).collect();
    let spec = OpenSpec { devices, pool: None, mode, force: true, host: host(), max_txg: None };
    Pool::open(env(1), spec)
}

fn read_mos(pool: &Pool) -> (u64, u64) {
    let (mos, io): (_, &dyn BlockStore) = (&pool.dsl.mos, pool.io());
    let (mut objects, mut blocks) = (0, 0);
    let mut at = ObjectId(0);
    while let Some(object) = mos.next_object(io, at).unwrap() {
        at = object;
        objects += 1;
        let dn = mos.dnode(io, object).unwrap();
        for blkid in 0..=dn.maxblkid() {
            blocks += u64::from(mos.block(io, object, &dn, blkid).unwrap().is_some());
        }
    }
    (objects, blocks)
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

/// Every block of every dataset, in logical form where no key is needed.
fn read_datasets(name: &str, pool: &Pool) -> (u64, u64) {
    let (mos, io): (_, &dyn BlockStore) = (&pool.dsl.mos, pool.io());
    let (mut datasets, mut blocks) = (0, 0);
    let mut at = ObjectId(0);
    while let Some(object) = mos.next_object(io, at).unwrap() {
        at = object;
        let dn = mos.dnode(io, object).unwrap();
        if dn.bonus_type() != ObjectType::DSL_DATASET {
            continue;
        }
        let ds = pool.dsl.dataset(io, object.0).unwrap();
        if ds.bp.is_hole() {
            continue;
        }
        let want = if ds.bp.uses_crypt() { Want::NoKey } else { Want::Logical };
        let os = Objset::open(io, object.0, &ds.bp, want).unwrap_or_else(|e| panic!("{name}: {e}"));
        datasets += 1;
        let mut at = ObjectId(0);
        while let Some(id) = os.next_object(io, at).unwrap_or_else(|e| panic!("{name}: {e}")) {
            at = id;
            blocks += read_object(name, &os, io, id);
        }
    }
    (datasets, blocks)
}

fn read_object(name: &str, os: &Objset, io: &dyn BlockStore, id: ObjectId) -> u64 {
    let dn = os.dnode(io, id).unwrap();
    let mut blocks = 0;
    // sparse files have more block numbers than blocks
    for blkid in (0..=dn.maxblkid()).take(4000) {
        let bp = os.blkptr(io, id, &dn, 0, blkid).unwrap_or_else(|e| panic!("{name} {id} {blkid}: {e}"));
        if bp.is_hole() || bp.is_redacted() {
            continue;
        }
        let at = Bookmark { objset: os.id(), object: id, level: 0, blkid };
        let want = if bp.is_encrypted() { Want::Stored } else { os.want() };
        let data = io.read(&bp, &at, want).unwrap_or_else(|e| panic!("{name}: {e}"));
        let expected = if want == Want::Stored { bp.psize() } else { bp.lsize() };
        assert_eq!(data.len() as u64, expected);
        blocks += 1;
    }
    blocks
}

#[test]
fn every_block_of_every_dataset() {
    for (name, files) in images() {
        let Ok(pool) = open(&files, Mode::ReadOnly) else { continue };
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
