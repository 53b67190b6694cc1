//! A pool with one block after the other rotten in all its copies: what is left can be read, and is right.

use icecore_check::fixture;
use icecore_check::manifest::Hasher;
use icecore_dmu::BlockStore;
use icecore_env::{Access, Device, Env, FileDevice};
use icecore_format::{Blkptr, Bookmark, ObjectId, ObjectType, Txg};
use icecore_pool::{Host, Mode, OpenSpec, Pool};
use icecore_zpl::{Dataset, FileKind, Follow, Step, Walk};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where what is allocatable begins (`VDEV_LABEL_START_SIZE`).
const START: u64 = 4 << 20;

fn open(image: &Path, mode: Mode, max_txg: Option<Txg>) -> Result<Pool, String> {
    let device: Arc<dyn Device> = Arc::new(FileDevice::open(image, Access::ReadOnly).unwrap());
    let host = Host::default();
    let spec = OpenSpec { devices: vec![device], pool: None, mode, force: true, host, max_txg };
    Pool::open(Env::os(), spec).map_err(|e| e.to_string())
}

/// What was read of a pool: objects and contents of files by dataset and path, and what failed.
#[derive(Default)]
struct Seen {
    files: BTreeMap<(String, Vec<u8>), (ObjectId, String)>,
    failed: Vec<String>,
}

impl Seen {
    fn of(pool: &Pool) -> Self {
        let mut seen = Self::default();
        let io = pool.io();
        let mut names = vec![pool.name().to_owned()];
        let mut at = 0;
        while let Some(name) = names.get(at).cloned() {
            at += 1;
            match pool.dsl.children(io, &name) {
                Ok(children) => names.extend(children),
                Err(e) => seen.failed.push(format!("{name}: {e}")),
            }
        }
        for name in names.clone() {
            match pool.dsl.snapshots(io, &name) {
                Ok(all) => names.extend(all.into_iter().map(|(s, _)| format!("{name}@{s}"))),
                Err(e) => seen.failed.push(format!("{name}: {e}")),
            }
        }
        names.iter().for_each(|name| seen.dataset(pool, name));
        seen
    }

    fn dataset(&mut self, pool: &Pool, name: &str) {
        let io = pool.io();
        let fs = match icecore_zpl::open(io, &pool.dsl, name) {
            Ok(Dataset::Filesystem(fs)) => fs,
            Ok(_) => return,
            Err(e) => return self.failed.push(format!("{name}: {e}")),
        };
        let top = match fs.resolve(io, b"", Follow::Never) {
            Ok(top) => top.znode,
            Err(e) => return self.failed.push(format!("{name}: {e}")),
        };
        let mut walk = Walk::new(&fs, io, top).unwrap();
        while let Some(step) = walk.next(&fs, io) {
            match step {
                Step::File { path, znode } if znode.kind == FileKind::Regular => {
                    let content = fs.content(&znode).and_then(|c| hash(c, fs.objset(), io));
                    match content {
                        Ok(sum) => drop(self.files.insert((name.to_owned(), path), (znode.id, sum))),
                        Err(e) => self.failed.push(format!("{name}:{}: {e}", String::from_utf8_lossy(&path))),
                    }
                }
                Step::Failed { path, error } => {
                    self.failed.push(format!("{name}:{}: {error}", String::from_utf8_lossy(&path)));
                }
                _ => {}
            }
        }
    }

    /// By dataset and object, which no damage to directories changes.
    fn by_object(&self) -> BTreeMap<(String, ObjectId), String> {
        self.files.iter().map(|((name, _), (id, sum))| ((name.clone(), *id), sum.clone())).collect()
    }
}

fn hash(
    mut content: icecore_zpl::Content,
    os: &icecore_dmu::Objset,
    io: &dyn BlockStore,
) -> icecore_zpl::Result<String> {
    let mut sum = Hasher::default();
    loop {
        let window = content.next_window(os, io)?;
        if window.is_empty() {
            return Ok(sum.finish(content.size()));
        }
        window.iter().for_each(|e| sum.extent(e));
    }
}

/// Turns bits in every copy of a block; done twice it is as it was.
fn rot(image: &Path, bp: &Blkptr) {
    let file = std::fs::File::options().read(true).write(true).open(image).unwrap();
    use std::os::unix::fs::FileExt;
    for dva in bp.dvas() {
        let at = START + dva.offset() + bp.psize() / 2;
        let mut bytes = [0; 16];
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes.iter_mut().for_each(|b| *b ^= 0x5a);
        file.write_all_at(&bytes, at).unwrap();
    }
}

fn image() -> PathBuf {
    fixture::fixture("states/salvage.img")
}

#[test]
fn any_one_block_rotten_in_all_its_copies() {
    let whole = open(&image(), Mode::ReadOnly, None).unwrap();
    let before = Seen::of(&whole);
    assert!(before.failed.is_empty() && before.files.len() > 20, "{:?}", before.failed);
    let all = before.by_object();
    let mut blocks: Vec<(Blkptr, Bookmark)> = Vec::new();
    let unseen = icecore_pool::walk::every_block(&whole, &mut |bp, at| {
        blocks.push((*bp, *at));
        true
    });
    assert!(unseen.is_empty(), "{unseen:?}");
    let mut shut = Vec::new();
    let damaged = fixture::target_dir().join("tmp/salvage-one.img");
    fixture::fixture_copy("states/salvage.img", &damaged);
    let mut files = 0;
    for (bp, at) in &blocks {
        // Of blocks of files a few will do.
        files += usize::from(bp.kind() == ObjectType::PLAIN_FILE_CONTENTS);
        if bp.kind() == ObjectType::PLAIN_FILE_CONTENTS && files % 16 != 0 {
            continue;
        }
        rot(&damaged, bp);
        let pool = match open(&damaged, Mode::Salvage, None) {
            Ok(pool) => pool,
            Err(why) => {
                assert_eq!(at.objset, 0, "{at}: {why}");
                shut.push(format!("{at} {:?}: {why}", bp.kind()));
                rot(&damaged, bp);
                continue;
            }
        };
        let after = Seen::of(&pool);
        let left = after.by_object();
        for (key, sum) in &left {
            assert_eq!(all.get(key), Some(sum), "{at}: {key:?} has other contents");
        }
        let lost: BTreeSet<&(String, ObjectId)> = all.keys().filter(|k| !left.contains_key(k)).collect();
        if !lost.is_empty() {
            assert!(!after.failed.is_empty(), "{at}: {lost:?} are lost, and nothing tells of it");
        }
        // A block of a file is that file's; one of a directory is no file's.
        if at.objset != 0 && bp.kind() == ObjectType::PLAIN_FILE_CONTENTS {
            assert!(lost.iter().all(|(_, id)| *id == at.object), "{at}: {lost:?}");
        }
        if at.objset != 0 && bp.kind() == ObjectType::DIRECTORY_CONTENTS {
            assert!(lost.is_empty(), "{at} {lost:?} {:?}", after.failed);
        }
        // What the pool keeps of its own is no file's, but for the objects' heads.
        if at.objset == 0 && bp.kind() != ObjectType::DNODE {
            assert!(lost.is_empty(), "{at} {lost:?} {:?}", after.failed);
        }
        rot(&damaged, bp);
        let first = after.failed.first().map_or("", |f| f);
        eprintln!("{at} {:?}: {} lost of {}, {first}", bp.kind(), lost.len(), all.len());
    }
    eprintln!("not opened at this txg with {} of {} blocks:\n{}", shut.len(), blocks.len(), shut.join("\n"));
    assert!(shut.len() < 8, "only the way from the uberblock to the object directory");
}
