//! Pools made by OpenZFS: every block of the MOS is read and checked.

use crate::support::{env, judge, judge_dir};
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

/// Intent logs that power left are claimed by opening for writing: with the first commit their blocks are allocated,
/// nothing is leaked, and they wait to be replayed.
#[test]
fn unreplayed_logs_are_claimed() {
    use icecore_env::{Access, Device, FileDevice};
    use icecore_pool::OpenSpec;
    use icecore_pool::leaks::balance;
    for (_, files) in images().into_iter().filter(|(name, _)| name == "dirty") {
        let dir = std::env::temp_dir().join(format!("icecore-claimed-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let image = dir.join("dirty.img");
        // zdb finds pools in files, but no partitions there.
        let disk: Arc<dyn Device> = Arc::new(FileDevice::open(&files[0], Access::ReadOnly).unwrap());
        let part = icecore_vdev::gpt::zfs_partitions(&disk).pop().unwrap();
        let mut bytes = vec![0; part.size() as usize];
        part.read_at(0, &mut bytes).unwrap();
        std::fs::write(&image, &bytes).unwrap();
        let open = |mode| {
            let devices: Vec<Arc<dyn Device>> =
                vec![Arc::new(FileDevice::open(&image, Access::Exclusive).unwrap())];
            let host = crate::support::host();
            Pool::open(env(1), OpenSpec { devices, pool: None, mode, force: true, host, max_txg: None })
                .unwrap()
        };
        let mut pool = open(Mode::Write);
        let (name, logs) = (pool.name().to_owned(), pool.logs());
        assert_eq!(logs.values().copied().collect::<Vec<_>>(), [97, 98]);
        for objset in logs.keys() {
            assert!(pool.dsl.check_idle(*objset).is_err());
        }
        // Opening writes nothing.
        assert!(std::fs::read(&image).unwrap() == bytes);
        let free = pool.space().free();
        let (io, dsl) = pool.parts();
        dsl.create_filesystem(io, &format!("{name}/made"), &[]).unwrap();
        pool.commit().unwrap();
        assert!(pool.space().free() < free);
        drop(pool);
        judge_dir(&dir, &name);
        for round in 0..4 {
            let mut pool = open(Mode::Write);
            assert_eq!(pool.logs(), logs);
            let books = balance(&pool).unwrap();
            assert!(books.leaked.is_empty() && books.unallocated.is_empty(), "{books:?}");
            let (io, dsl) = pool.parts();
            dsl.create_filesystem(io, &format!("{name}/made{round}"), &[]).unwrap();
            pool.commit().unwrap();
        }
        let mut pool = open(Mode::Write);
        let locked = *logs.keys().last().unwrap();
        let refused = pool.replay_log(locked, &mut |_, _, _| Ok(()));
        assert!(matches!(refused, Err(PoolError::Read(icecore_dmu::ReadError::KeyUnavailable { .. }))));
        let open_one = *logs.keys().next().unwrap();
        let mut seen = 0;
        pool.replay_log(open_one, &mut |_, _, record| {
            seen += 1;
            if record.seq == 50 { Err("enough".into()) } else { Ok(()) }
        })
        .expect_err("a record that is not replayed is no success");
        assert_eq!(seen, 50);
        drop(pool);
        // Let go of, without a word of it applied: the blocks come back, and no others.
        let mut pool = open(Mode::Write);
        assert_eq!(pool.replay_log(open_one, &mut |_, _, _| Ok(())).unwrap(), 97);
        pool.commit().unwrap();
        pool.export().unwrap();
        judge_dir(&dir, &name);
        std::fs::remove_dir_all(&dir).unwrap();
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
                    Body::Rename { old, new, exchange: false, whiteout: None, .. } => {
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
