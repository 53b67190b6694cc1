//! What is asked of a pool that OpenZFS made: the verdict on it.
//!
//! Of every pool whose images are found: does it open; does every block pass its checksum; does it open and show the same
//! files with any devices missing that it may miss. Where a `NAME.expected` folder says what OpenZFS saw: do `zfs list`
//! and `zfs get` say the same; is every manifest (of each mounted file system and each snapshot) the same.
//!
//! OpenZFS was asked while the pool was in use: some txgs came after, with the times that reading the files for the
//! manifests had changed, and what the export itself wrote. So sizes may be those of an earlier txg, in which the pool is
//! opened then. Where none has them, the difference stands.

use super::{Compared, Image, find};
use crate::zoo;
use icecore_dmu::BlockStore;
use icecore_format::{Guid, Txg};
use icecore_pool::Pool;
use icecore_vdev::{Leaf, VdevConfig, VdevKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Uberblocks gone back at most for what `zfs list` and `zfs get` said.
const BACK: u64 = 8;
/// Sets of missing devices tried at most of one pool.
const SETS_MAX: usize = 60;

/// A pool, and where what OpenZFS saw in it is told.
#[derive(Clone, Debug)]
pub struct Case {
    /// The pool's name.
    pub pool: String,
    /// Its images.
    pub files: Vec<PathBuf>,
    /// Its `NAME.expected` folder.
    pub expected: Option<PathBuf>,
    /// The folder with key files in or below it.
    pub keys: PathBuf,
    /// It was damaged before it was exported: `NAME.errors` has what `zpool status -v` says of it.
    pub damaged: bool,
}

impl Case {
    /// The case of a pool of the zoo; `None` if its files are not there.
    #[must_use]
    pub fn of(image: &Image, images: &Path, expected: &Path) -> Option<Self> {
        let files: Option<Vec<PathBuf>> =
            image.files.iter().map(|f| find(images, &format!("{f}.img"))).collect();
        Some(Self::new(image.pool.to_owned(), files?, expected))
    }

    fn new(pool: String, files: Vec<PathBuf>, expected: &Path) -> Self {
        let folder = find(expected, &format!("{pool}.expected"));
        let damaged = find(expected, &format!("{pool}.errors")).is_some();
        Self { pool, files, expected: folder, keys: expected.to_path_buf(), damaged }
    }
}

/// The pools that the images (`*.img`) in or below a folder make up, by name.
#[must_use]
pub fn cases(images: &Path, expected: &Path) -> Vec<Case> {
    let mut pools: BTreeMap<Guid, (String, Txg, Vec<PathBuf>)> = BTreeMap::new();
    for file in zoo::files_below(images, ".img") {
        let devices = zoo::devices(std::slice::from_ref(&file)).unwrap_or_default();
        for found in icecore_pool::find(&devices) {
            let entry = pools.entry(found.guid).or_insert_with(|| (found.name.clone(), Txg(0), Vec::new()));
            if found.config.written() > entry.1 {
                (entry.0, entry.1) = (found.name.clone(), found.config.written());
            }
            entry.2.push(file.clone());
        }
    }
    let mut out: Vec<Case> =
        pools.into_values().map(|(name, _, files)| Case::new(name, files, expected)).collect();
    out.sort_by(|a, b| a.pool.cmp(&b.pool));
    out
}

/// What came of one pool.
#[derive(Default)]
pub struct Verdict {
    /// The pool.
    pub pool: String,
    /// Why it does not open.
    pub opens: Option<String>,
    /// OpenZFS's word is there to compare with.
    pub told: bool,
    /// `zfs list`: lines that differ.
    pub list: Vec<String>,
    /// `zfs get all`: lines that differ.
    pub get: Vec<String>,
    /// Txgs between what `zfs list` and `zfs get` said and the export.
    pub back: u64,
    /// Manifest by manifest.
    pub manifests: Vec<Compared>,
    /// Blocks examined, all copies of each.
    pub blocks: u64,
    /// What is wrong with blocks.
    pub bad_blocks: Vec<String>,
    /// Sets of missing devices tried.
    pub sets: usize,
    /// What went wrong with some of them missing.
    pub degraded: Vec<String>,
}

impl Verdict {
    /// What is wrong with its opening and its files.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        if let Some(why) = &self.opens {
            return vec![why.clone()];
        }
        let differ = self.manifests.iter().filter_map(|(m, r)| Some(format!("{m}: {}", r.as_ref().err()?)));
        let mut faults: Vec<String> = differ.collect();
        if self.told && self.manifests.is_empty() {
            faults.push("nothing was compared".into());
        }
        faults
    }

    /// Manifests that are equal, and all.
    #[must_use]
    pub fn equal(&self) -> (usize, usize) {
        (self.manifests.iter().filter(|(_, r)| r.is_ok()).count(), self.manifests.len())
    }

    /// Whether nothing at all is wrong.
    #[must_use]
    pub fn is_green(&self) -> bool {
        let lists = [&self.list, &self.get, &self.bad_blocks, &self.degraded];
        self.faults().is_empty() && lists.iter().all(|l| l.is_empty())
    }
}

/// Opens a pool for reading and compares all that is known of it.
#[must_use]
pub fn judge(case: &Case) -> Verdict {
    let mut verdict = Verdict { pool: case.pool.clone(), ..Verdict::default() };
    let mut pool = match zoo::open(&case.files) {
        Ok(pool) => pool,
        Err(why) => {
            verdict.opens = Some(why);
            return verdict;
        }
    };
    zoo::load_keys(&mut pool, &case.keys);
    if let Some(folder) = &case.expected {
        verdict.told = true;
        Words { list: verdict.list, get: verdict.get, back: verdict.back } = words(case, &pool, folder);
        verdict.manifests = zoo::compare_manifests(&pool, folder);
    }
    let missing = degraded(case, &pool, &mut verdict);
    examine(&mut pool, &mut verdict, missing);
    if case.damaged {
        verdict.bad_blocks.clear();
    }
    verdict
}

/// What OpenZFS printed otherwise than we do, in the txg in which it was asked.
#[derive(Default)]
pub struct Words {
    /// Lines of `zfs list` that differ.
    pub list: Vec<String>,
    /// Lines of `zfs get all` that differ.
    pub get: Vec<String>,
    /// Txgs from there to the export.
    pub back: u64,
}

/// Compares `zfs list` and `zfs get`.
#[must_use]
pub fn words(case: &Case, pool: &Pool, folder: &Path) -> Words {
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let (list, get) = (text("list.tsv"), text("get.tsv"));
    let compare = |pool: &Pool, back| {
        let (list, get) = (zoo::compare_list(pool, &list), zoo::compare_get(pool, &get));
        Words { list, get, back }
    };
    let mut best = compare(pool, 0);
    let newest = pool.io().txg().0;
    let mut txg = newest;
    for _ in 0..BACK {
        if txg < 2 || best.list.is_empty() && best.get.is_empty() {
            break;
        }
        let Ok(mut earlier) = zoo::open_at(&case.files, Some(Txg(txg - 1))) else { break };
        txg = earlier.io().txg().0;
        zoo::load_keys(&mut earlier, &case.keys);
        // One was asked after the other.
        let found = compare(&earlier, newest - txg);
        if found.list.len() < best.list.len() {
            (best.list, best.back) = (found.list, found.back);
        }
        if found.get.len() < best.get.len() {
            (best.get, best.back) = (found.get, found.back);
        }
    }
    best
}

/// Every copy of every block; none may be bad if all devices are there and up to date.
fn examine(pool: &mut Pool, verdict: &mut Verdict, excused: bool) {
    match icecore_pool::scrub::scrub(pool, &mut |_| true) {
        Ok(found) => {
            verdict.blocks = found.blocks;
            let bad = found.damage.iter().filter(|d| d.seen.lost || !excused);
            verdict.bad_blocks = bad.map(|d| format!("{} of {:?}", d.seen.bad, d.at)).collect();
            verdict.bad_blocks.extend(found.unseen.iter().map(|u| format!("{u:?}")));
        }
        Err(e) => verdict.bad_blocks.push(e.to_string()),
    }
}

/// Opens the pool without each set of devices that it may miss, up to a number of sets, and compares the files again. Says
/// whether devices are missing or behind already.
fn degraded(case: &Case, whole: &Pool, verdict: &mut Verdict) -> bool {
    let vdevs = whole.io().vdevs();
    let sound = |l: &&Leaf| l.device().is_some() && !l.is_stale();
    let sound: BTreeSet<Guid> = vdevs.leaves().iter().filter(sound).map(|l| l.guid).collect();
    let wounded = sound.len() < vdevs.leaves().len();
    let guids = guids(&case.files);
    let told = case.expected.as_deref();
    let mut sets = 0;
    for size in 1..case.files.len() {
        let before = sets;
        for gone in subsets(case.files.len(), size) {
            if sets == SETS_MAX {
                break;
            }
            let here = (0..case.files.len()).filter(|i| !gone.contains(i)).map(|i| case.files[i].clone());
            let here: Vec<PathBuf> = here.collect();
            let lost: Vec<Guid> = gone.iter().filter_map(|i| guids[*i]).collect();
            let left: BTreeSet<Guid> = sound.iter().filter(|g| !lost.contains(g)).copied().collect();
            if !survives(vdevs.config(), &left) {
                continue;
            }
            sets += 1;
            let what = || {
                gone.iter()
                    .filter_map(|i| case.files[*i].file_name()?.to_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            match zoo::open(&here) {
                Ok(mut pool) => {
                    zoo::load_keys(&mut pool, &case.keys);
                    let compared = told.map(|f| zoo::compare_manifests(&pool, f)).unwrap_or_default();
                    let wrong = compared.into_iter().filter_map(|(n, r)| Some(format!("{n}: {}", r.err()?)));
                    verdict.degraded.extend(wrong.map(|w| format!("without {}: {w}", what())));
                }
                Err(e) => verdict.degraded.push(format!("without {}: {e}", what())),
            }
        }
        if sets == before {
            break;
        }
    }
    verdict.sets = sets;
    wounded
}

/// The device that each file is.
fn guids(files: &[PathBuf]) -> Vec<Option<Guid>> {
    let of = |file: &PathBuf| {
        let devices = zoo::devices(std::slice::from_ref(file)).ok()?;
        icecore_pool::find(&devices).first()?.devices.keys().next().copied()
    };
    files.iter().map(of).collect()
}

/// Whether a vdev can be read with these devices, which are whole: what its layout promises.
fn survives(vdev: &VdevConfig, here: &BTreeSet<Guid>) -> bool {
    let lost = vdev.children.iter().filter(|c| !survives(c, here)).count();
    match vdev.kind {
        VdevKind::Disk | VdevKind::File => here.contains(&vdev.guid),
        VdevKind::Mirror | VdevKind::Replacing | VdevKind::Spare => lost < vdev.children.len(),
        VdevKind::Raidz | VdevKind::Draid => lost as u64 <= vdev.nparity.unwrap_or(1),
        VdevKind::Root => lost == 0,
        VdevKind::Indirect | VdevKind::Hole => true,
        _ => false,
    }
}

/// The subsets of 0..n with `size` members.
fn subsets(n: usize, size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let with = |first: usize| {
        let rest = subsets(n - first - 1, size - 1).into_iter();
        rest.map(move |r| std::iter::once(first).chain(r.into_iter().map(|i| i + first + 1)).collect())
    };
    (0..n).flat_map(with).collect()
}
