//! Pools made by OpenZFS: every block of the MOS is read and checked.

use crate::support::{env, judge};
use crate::walk::{open, read_datasets, read_mos, zoo};
use icecore_dmu::BlockStore;
use icecore_pool::{Mode, Pool, PoolError};
use icecore_sim::SimDisk;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

fn images() -> Vec<(String, Vec<PathBuf>)> {
    let judged = icecore_check::zoo::IMAGES.iter().map(|image| (image.pool, image.files));
    // What OpenZFS saw of it is known only after its replay.
    let all = judged.chain([("dirty", &["dirty"][..])]);
    all.filter_map(|(name, files)| Some((name.to_owned(), zoo(files)?))).collect()
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

/// The records of the logs that power left behind: those zdb lists, and the files they promise are those that OpenZFS
/// had after its replay (`dirty-*.after-replay.manifest`). Without the key only the chain of an encrypted one is seen.
#[test]
fn intent_logs_are_read() {
    use icecore_check::zoo::load_keys;
    use icecore_format::zil::record::Body;
    use icecore_pool::zil;
    for (_, files) in images().into_iter().filter(|(name, _)| name == "dirty") {
        let mut pool = open(&files, Mode::ReadOnly).unwrap();
        for (name, wanted) in [("dirty/data", 97), ("dirty/enc", 98)] {
            let objset = pool.dsl.lookup_head(pool.io(), name).unwrap().obj;
            if name == "dirty/enc" {
                let locked = zil::walk(&pool, objset, &mut |_| panic!("a record without the key")).unwrap();
                assert!(locked.locked && locked.blocks > 1 && locked.records == 0, "{locked:?}");
                load_keys(&mut pool, &files[0]);
                let open = zil::walk(&pool, objset, &mut |_| true).unwrap();
                assert_eq!(open.blocks, locked.blocks, "the chain is seen whole without the key");
            }
            let (mut seqs, mut names) = (Vec::new(), Vec::new());
            let mut sizes = std::collections::BTreeMap::new();
            let walked = zil::walk(&pool, objset, &mut |r| {
                seqs.push(r.seq);
                assert_eq!(r.txg, 24);
                match &r.body {
                    Body::Create { name, link, new, .. } => {
                        assert_eq!(new.slots, 1);
                        let link = link.map(|l| format!(" -> {}", String::from_utf8_lossy(l)));
                        names.push(String::from_utf8_lossy(name).into_owned() + &link.unwrap_or_default());
                    }
                    Body::Rename { old, new, exchange: false, whiteout: false, .. } => {
                        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                        names.push(format!("{} => {}", text(old), text(new)));
                    }
                    Body::Write { object, offset, length, data, pointer } => {
                        assert!(!pointer.is_hole() || data.len() as u64 == *length);
                        let size = sizes.entry(*object).or_insert(0);
                        assert_eq!(offset, size, "each write goes on where the last one ended");
                        *size += length;
                    }
                    other => panic!("{name}: {other:?}"),
                }
                true
            });
            let walked = walked.unwrap();
            assert_eq!((walked.records, walked.locked), (wanted, false));
            assert_eq!(seqs, (1..=wanted).collect::<Vec<_>>());
            assert_eq!(names, ["fsynced", "newdir", "committed => moved", "big", "link -> fsynced", "last"]);
            // The file that was synced, and `newdir/big`.
            assert_eq!(sizes.into_values().collect::<BTreeSet<_>>(), BTreeSet::from([39_729, 200_000]));
        }
    }
}
