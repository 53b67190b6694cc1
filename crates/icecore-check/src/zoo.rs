//! The pools that real OpenZFS made, and whether we see in them what it saw.
//!
//! `ICECORE_ZOO` is the folder of unpacked images; `ICECORE_ZOO_EXPECTED` that of the `NAME.expected` folders and key
//! files (`*.key`), where it is another one. Both are searched a few levels deep. What is asked of a pool: [`judge`].

mod cases;

pub use cases::{Case, Verdict, Words, cases, judge, words};

use crate::manifest::{self, Mounted};
use icecore_dsl::{DslError, Kind};
use icecore_env::{Access, Device, Env, FileDevice};
use icecore_format::Txg;
use icecore_pool::{Host, Mode, OpenSpec, Pool};
use icecore_stream::token::ResumeToken;
use icecore_zpl::Dataset;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Images that belong together: one pool.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// The pool's name; `NAME.expected` says what OpenZFS saw.
    pub pool: &'static str,
    /// Files, without `.img`.
    pub files: &'static [&'static str],
}

const fn image(pool: &'static str, files: &'static [&'static str]) -> Image {
    Image { pool, files }
}

/// Every pool of the zoo that has an `.expected` folder.
pub const IMAGES: &[Image] = &[
    image("main", &["main"]),
    image("codecs", &["codecs"]),
    image("crypt", &["crypt"]),
    image("shapes", &["shapes"]),
    image("mir2", &["m-0", "m-1"]),
    image("mir3", &["m3-0", "m3-1", "m3-2"]),
    image("stripe", &["st-0", "st-1"]),
    image("rz1", &["rz1-0", "rz1-1", "rz1-2"]),
    image("rz2", &["rz2-0", "rz2-1", "rz2-2", "rz2-3"]),
    image("rz3", &["rz3-0", "rz3-1", "rz3-2", "rz3-3", "rz3-4"]),
    image("dr", &["dr-0", "dr-1", "dr-2", "dr-3", "dr-4"]),
    image("special", &["sp-0", "sp-1", "sp-2"]),
    // The removal did not happen when it was made: both devices are in use, none is indirect.
    image("removed", &["rm-0", "rm-1"]),
    image("expanded", &["ex-0", "ex-1", "ex-2", "ex-3"]),
    image("v28", &["v28"]),
    image("nofeat", &["nofeat"]),
    image("ckpt", &["ckpt"]),
    image("gang", &["gang"]),
    image("gptdisk", &["gptdisk"]),
];

/// Passphrases of the zoo, as its README tells them.
const PASSPHRASES: [&str; 4] =
    ["correct horse battery staple", "winter is for backups", "changed since then", "dirty pw 1234"];
/// How deep folders are searched.
const DEPTH: u32 = 3;

/// The folders the environment names: of images, and of what is expected.
#[must_use]
pub fn folders() -> Option<(PathBuf, PathBuf)> {
    let images = PathBuf::from(std::env::var_os("ICECORE_ZOO")?);
    let expected = std::env::var_os("ICECORE_ZOO_EXPECTED").map_or_else(|| images.clone(), PathBuf::from);
    Some((images, expected))
}

/// The file or folder called `name` in `folder` or not far below it.
#[must_use]
pub fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    find_within(folder, name, DEPTH)
}

fn find_within(folder: &Path, name: &str, depth: u32) -> Option<PathBuf> {
    let here = folder.join(name);
    if here.exists() {
        return Some(here);
    }
    if depth == 0 {
        return None;
    }
    let mut below: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path()).collect();
    below.retain(|p| p.is_dir() && p.extension().is_none_or(|x| x != "expected"));
    below.sort();
    below.into_iter().find_map(|p| find_within(&p, name, depth - 1))
}

/// A manifest's name, and how it differs.
pub type Compared = (String, Result<(), String>);

/// All files below `folder` whose name ends so, in order.
#[must_use]
pub fn files_below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    collect_below(folder, ending, DEPTH, &mut out);
    out.sort();
    out
}

fn collect_below(folder: &Path, ending: &str, depth: u32, out: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()) {
        if path.is_dir() && depth > 0 {
            collect_below(&path, ending, depth - 1, out);
        } else if path.is_file() && path.to_string_lossy().ends_with(ending) {
            out.push(path);
        }
    }
}

/// Opens the pool on these files, for reading.
pub fn open(files: &[PathBuf]) -> Result<Pool, String> {
    open_at(files, None)
}

/// As [`open`], as it was in the last txg up to this one.
pub fn open_at(files: &[PathBuf], max_txg: Option<Txg>) -> Result<Pool, String> {
    let spec = OpenSpec {
        devices: devices(files)?,
        pool: None,
        mode: Mode::ReadOnly,
        force: true,
        host: Host { id: 0, name: String::new() },
        max_txg,
    };
    Pool::open(Env::os(), spec).map_err(|e| e.to_string())
}

/// The files as devices; of those with partitions of ZFS these.
fn devices(files: &[PathBuf]) -> Result<Vec<Arc<dyn Device>>, String> {
    let mut devices: Vec<Arc<dyn Device>> = Vec::new();
    for path in files {
        let device = FileDevice::open(path, Access::ReadOnly).map_err(|e| e.to_string())?;
        let device: Arc<dyn Device> = Arc::new(device);
        let parts = icecore_vdev::gpt::zfs_partitions(&device);
        if parts.is_empty() {
            devices.push(device);
        }
        devices.extend(parts.into_iter().map(|p| Arc::new(p) as Arc<dyn Device>));
    }
    Ok(devices)
}

/// Loads every key of the zoo that fits. What stays locked shows when it is read.
pub fn load_keys(pool: &mut Pool, folder: &Path) {
    let mut keys: Vec<Vec<u8>> = PASSPHRASES.iter().map(|p| p.as_bytes().to_vec()).collect();
    let files: Vec<Vec<u8>> =
        files_below(folder, ".key").iter().filter_map(|f| std::fs::read(f).ok()).collect();
    // A passphrase ends with its line.
    keys.extend(files.iter().filter_map(|k| Some(k.strip_suffix(b"\n")?.to_vec())));
    keys.extend(files);
    let root = pool.name().to_string();
    let (io, dsl) = pool.parts();
    for name in dsl.descendants(io, &root).unwrap_or_default() {
        for key in &keys {
            match dsl.load_key(io, &name, key) {
                Ok(opened) => {
                    for (objset, keys) in opened {
                        io.add_key(objset, keys);
                    }
                    break;
                }
                Err(DslError::Key(_)) => {}
                Err(_) => break,
            }
        }
    }
}

/// Values that differ between a mounted dataset of a pool in use and the same at rest: the export itself changed the
/// pool's own space, and some things are in OpenZFS's memory only.
fn at_rest(name: &str, prop: &str) -> bool {
    let root = !name.contains(['/', '@', '#']);
    let by_mos = ["used", "usedbychildren", "logicalused", "compressratio"];
    ["mounted", "available", "keystatus", "snapshots_changed"].contains(&prop)
        || root && by_mos.contains(&prop)
}

const LIST_COLUMNS: [&str; 13] = [
    "name",
    "type",
    "guid",
    "createtxg",
    "creation",
    "used",
    "available",
    "referenced",
    "logicalreferenced",
    "logicalused",
    "written",
    "compressratio",
    "refcompressratio",
];

fn compare_list(pool: &Pool, expected: &str) -> Vec<String> {
    let mut bad = Vec::new();
    for line in expected.lines() {
        let mut fields = line.split('\t');
        let name = fields.next().unwrap_or_default();
        for (prop, theirs) in LIST_COLUMNS.iter().skip(1).zip(fields) {
            let ours = match pool.dsl.prop(pool.io(), name, prop) {
                Ok(row) => row.map_or("-".to_string(), |r| r.value),
                Err(e) => e.to_string(),
            };
            if ours != theirs && !at_rest(name, prop) {
                bad.push(format!("{name} {prop}: theirs {theirs}, ours {ours}"));
            }
        }
    }
    if expected.is_empty() {
        bad.push("there is no list.tsv".into());
    }
    bad
}

/// Lines of `zfs get` (a `get.tsv`) that we print otherwise, not at all, alone, or in another order.
#[must_use]
pub fn compare_get(pool: &Pool, expected: &str) -> Vec<String> {
    let mut theirs: BTreeMap<&str, Vec<(&str, &str, &str)>> = BTreeMap::new();
    for line in expected.lines() {
        if let [name, prop, value, source] = line.split('\t').collect::<Vec<_>>()[..] {
            theirs.entry(name).or_default().push((prop, value, source));
        }
    }
    let mut bad = Vec::new();
    for (name, rows) in theirs {
        let ours = match pool.dsl.props(pool.io(), name) {
            Ok(ours) => ours,
            Err(e) => {
                bad.push(format!("{name}: {e}"));
                continue;
            }
        };
        for prop in ours.iter().map(|r| &*r.name).filter(|prop| !rows.iter().any(|(p, ..)| p == prop)) {
            bad.push(format!("{name} {prop}: only ours"));
        }
        let known: Vec<&str> = rows.iter().map(|r| r.0).collect();
        let mine: Vec<&str> = ours.iter().map(|r| &*r.name).filter(|p| known.contains(p)).collect();
        if known.iter().filter(|p| mine.contains(p)).ne(mine.iter()) {
            bad.push(format!("{name}: properties in another order"));
        }
        for (prop, value, source) in rows {
            let row = ours.iter().find(|r| r.name == prop);
            let same = row.is_some_and(|r| same_value(prop, &r.value, value) && r.source.text() == source);
            // Mounting read-only or without devices shows as «temporary».
            let excused = at_rest(name, prop) || source == "temporary";
            if !same && !excused {
                let ours = row.map(|r| format!("{} {}", r.value, r.source.text()));
                bad.push(format!("{name} {prop}: theirs {value} {source}, ours {ours:?}"));
            }
        }
    }
    if expected.is_empty() {
        bad.push("there is no get.tsv".into());
    }
    bad
}

/// Whether two values are the same. Resume tokens are packed lists, and another zlib packs otherwise: what they say counts.
fn same_value(prop: &str, ours: &str, theirs: &str) -> bool {
    let token = |text| ResumeToken::parse(text).ok();
    ours == theirs || prop == "receive_resume_token" && token(ours).is_some() && token(ours) == token(theirs)
}

/// The datasets and snapshots that a folder has manifests of.
fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".manifest")?.replace('%', "/")))
        .collect();
    names.sort();
    names
}

/// The datasets and snapshots of `pool` that a folder with `NAME.expected` somewhere in it has manifests of.
#[must_use]
pub fn manifests_of(folder: &Path, pool: &str) -> Vec<String> {
    find(folder, &format!("{pool}.expected")).map(|folder| names_in(&folder)).unwrap_or_default()
}

/// Compares every `*.manifest` of the folder. A dataset was mounted if it has one.
#[must_use]
pub fn compare_manifests(pool: &Pool, folder: &Path) -> Vec<Compared> {
    let names = names_in(folder);
    let compare = |name: &String| -> Result<(), String> {
        let path = folder.join(format!("{}.manifest", name.replace('/', "%")));
        let expected = std::fs::read(path).map_err(|e| e.to_string())?;
        let mounted = mount(pool, name, &names)?;
        let found = manifest::manifest(pool.io(), &mounted).map_err(|e| e.to_string())?;
        manifest::difference(&expected, &found).map_or(Ok(()), Err)
    };
    names.iter().map(|name| (name.clone(), compare(name))).collect()
}

/// Compares the snapshots of `copy` and what is below it, received somewhere else, with the manifests of `original`'s.
pub fn compare_received(
    pool: &Pool,
    folder: &Path,
    copy: &str,
    original: &str,
) -> Result<Vec<Compared>, String> {
    let (io, dsl) = (pool.io(), &pool.dsl);
    let mut out = Vec::new();
    for name in dsl.descendants(io, copy).map_err(|e| e.to_string())? {
        for (snapshot, r) in dsl.snapshots(io, &name).map_err(|e| e.to_string())? {
            if dsl.kind(io, r).map_err(|e| e.to_string())? != Kind::Snapshot {
                continue;
            }
            let full = format!("{name}@{snapshot}");
            let theirs = full.replacen(copy, original, 1).replace('/', "%");
            let compare = || -> Result<(), String> {
                let path = folder.join(format!("{theirs}.manifest"));
                let expected = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                let found = manifest::manifest(io, &mount(pool, &full, &[])?).map_err(|e| e.to_string())?;
                manifest::difference(&expected, &found).map_or(Ok(()), Err)
            };
            let outcome = compare();
            out.push((full, outcome));
        }
    }
    Ok(out)
}

/// A file system with those of `mounted` that lie below its mount point; a snapshot alone.
fn mount(pool: &Pool, name: &str, mounted: &[String]) -> Result<Mounted, String> {
    let text = |e: &dyn std::fmt::Display| format!("{name}: {e}");
    let (io, dsl) = (pool.io(), &pool.dsl);
    let r = dsl.lookup_dataset(io, name).map_err(|e| text(&e))?;
    let posix = icecore_dsl::prop::table::find("acltype").and_then(|p| p.index("posix"));
    let acltype = dsl.prop_number(io, r, "acltype").map_err(|e| text(&e))?;
    let Dataset::Filesystem(fs) = icecore_zpl::open(io, dsl, name).map_err(|e| text(&e))? else {
        return Err(format!("{name} is no file system"));
    };
    let mut below = Vec::new();
    if dsl.kind(io, r).map_err(|e| text(&e))? == Kind::Filesystem {
        let here = mountpoint(pool, name)?;
        // A child that another child covers in turn belongs to that one.
        let children = mounted.iter().filter(|m| {
            m.strip_prefix(name).is_some_and(|rest| rest.starts_with('/') && !rest.contains('@'))
        });
        let children: Vec<&String> = children.collect();
        for child in &children {
            let nested = children.iter().any(|c| {
                c != child && child.strip_prefix(c.as_str()).is_some_and(|rest| rest.starts_with('/'))
            });
            if nested {
                continue;
            }
            let at = mountpoint(pool, child)?;
            let at = at.strip_prefix(&here).map(|p| p.trim_start_matches('/').as_bytes().to_vec());
            let at = at.ok_or_else(|| format!("{child} is not mounted below {here}"))?;
            below.push((at, mount(pool, child, mounted)?));
        }
    }
    Ok(Mounted { fs: *fs, posix_acl: Some(acltype) == posix, below })
}

fn mountpoint(pool: &Pool, name: &str) -> Result<String, String> {
    let row = pool.dsl.prop(pool.io(), name, "mountpoint").map_err(|e| format!("{name}: {e}"))?;
    row.map(|r| r.value).ok_or_else(|| format!("{name} has no mountpoint"))
}
