//! Whether the sums of space and objects by owner that a file system keeps are those of its files. Owners are read here
//! through the table of layouts, by the readers of files, and not as the accounting reads them.

use icecore_dmu::objset::accounts::{GROUPUSED, OBJECTS_PREFIX, PROJECTUSED, USERUSED};
use icecore_dmu::{BlockStore, Objset, zap};
use icecore_format::dnode::{FLAG_USEROBJUSED_ACCOUNTED, FLAG_USERUSED_ACCOUNTED};
use icecore_format::{ObjectId, ObjectType};
use icecore_pool::Pool;
use icecore_zpl::write::{Change, New, What, Writer};
use icecore_zpl::{Dataset, Filesystem, Time, ZplError};
use std::collections::BTreeMap;

/// Sums by owner, under the names that the ZAPs have for them.
pub type Sums = BTreeMap<String, u64>;

/// The sums of users, groups and projects as the file system keeps them; empty where it keeps none.
///
/// # Errors
/// What could not be read.
pub fn kept(io: &dyn BlockStore, os: &Objset) -> Result<[Sums; 3], String> {
    let mut all = [Sums::new(), Sums::new(), Sums::new()];
    for (table, sums) in [USERUSED, GROUPUSED, PROJECTUSED].into_iter().zip(&mut all) {
        if os.dnode(io, table).is_ok() {
            for e in zap::iter(os, io, table).map_err(|e| e.to_string())? {
                sums.insert(e.name_str(), e.value.as_u64().ok_or("a sum that is no number")?);
            }
        }
    }
    Ok(all)
}

/// The sums as the heads of all files have them.
///
/// # Errors
/// What could not be read, and heads that are not marked as counted.
pub fn counted(io: &dyn BlockStore, fs: &Filesystem) -> Result<[Sums; 3], String> {
    let os = fs.objset();
    let mut all = [Sums::new(), Sums::new(), Sums::new()];
    let mut at = ObjectId(0);
    while let Some(id) = os.next_object(io, at).map_err(|e| e.to_string())? {
        at = id;
        let dn = os.dnode(io, id).map_err(|e| e.to_string())?;
        if !matches!(dn.bonus_type(), ObjectType::SA | ObjectType::ZNODE) {
            continue;
        }
        let marks = FLAG_USERUSED_ACCOUNTED | FLAG_USEROBJUSED_ACCOUNTED;
        if dn.flags() & marks != marks {
            return Err(format!("object {id} is not marked as counted: flags {:#x}", dn.flags()));
        }
        let z = fs.znode(io, id).map_err(|e| e.to_string())?;
        for (owner, sums) in [z.uid, z.gid, z.project.unwrap_or(0)].into_iter().zip(&mut all) {
            *sums.entry(format!("{owner:x}")).or_default() += 512 + dn.used_bytes();
            *sums.entry(format!("{OBJECTS_PREFIX}{owner:x}")).or_default() += 1;
        }
    }
    Ok(all)
}

/// Compares the two.
///
/// # Errors
/// Where they differ.
pub fn check(io: &dyn BlockStore, fs: &Filesystem) -> Result<(), String> {
    let (kept, counted) = (kept(io, fs.objset())?, counted(io, fs)?);
    if kept == counted { Ok(()) } else { Err(format!("kept {kept:?}\nbut it is {counted:?}")) }
}

fn file_system(pool: &Pool, dataset: &str) -> Result<Filesystem, String> {
    match icecore_zpl::open(pool.io(), &pool.dsl, dataset).map_err(|e| e.to_string())? {
        Dataset::Filesystem(fs) => Ok(*fs),
        Dataset::Volume(_) => Err(format!("{dataset} is a volume")),
    }
}

/// [`check`] for a dataset or snapshot of a pool.
///
/// # Errors
/// Where the sums differ.
pub fn check_dataset(pool: &Pool, dataset: &str) -> Result<(), String> {
    check(pool.io(), &file_system(pool, dataset)?)
}

/// Whether a dataset is as one whose objects nobody ever counted.
///
/// # Errors
/// What it keeps of sums or marks.
pub fn is_uncounted(pool: &Pool, dataset: &str) -> Result<(), String> {
    let (fs, io) = (file_system(pool, dataset)?, pool.io());
    let (os, mut at) = (fs.objset(), ObjectId(0));
    let kept = kept(io, os)?;
    if kept.iter().any(|sums| !sums.is_empty()) {
        return Err(format!("it keeps {kept:?}"));
    }
    while let Some(id) = os.next_object(io, at).map_err(|e| e.to_string())? {
        at = id;
        let flags = os.dnode(io, id).map_err(|e| e.to_string())?.flags();
        if flags & (FLAG_USERUSED_ACCOUNTED | FLAG_USEROBJUSED_ACCOUNTED) != 0 {
            return Err(format!("object {id} is marked: flags {flags:#x}"));
        }
    }
    Ok(())
}

/// Changes of every kind that matter to the sums, in the head of a dataset, in two txgs: new files of several owners,
/// contents, other owners, and all that was in the root before removed, as far as it is no directory.
///
/// # Errors
/// What the writer says.
pub fn work(pool: &mut Pool, dataset: &str) -> Result<(), String> {
    let now = Time { seconds: 1_700_000_000, nanos: 0 };
    let (io, dsl) = pool.parts();
    let head = dsl.lookup_head(io, dataset).map_err(|e| e.to_string())?.obj;
    let os = dsl.open_dataset(io, head).map_err(|e| e.to_string())?;
    let mut w = Writer::open(io, os, 128 << 10).map_err(|e| e.to_string())?;
    let root = w.root();
    let before = zap::iter(os, io, root).map_err(|e| e.to_string())?;
    let mut made = Vec::new();
    for n in 0..12_u32 {
        let what = if n % 4 == 3 { What::Directory } else { What::Regular };
        let new = New { what, mode: 0o644, uid: 1000 + n % 5, gid: 100 + n % 3, now };
        let name = format!("worked {n}");
        made.push(w.create(os, io, root, name.as_bytes(), &new).map_err(|e| e.to_string())?);
    }
    for (n, id) in (0_u8..).zip(&made).filter(|(n, _)| n % 4 != 3) {
        let data: Vec<u8> = (0..40_000 * usize::from(n)).map(|i| (i >> 5) as u8 ^ n).collect();
        w.write(os, io, *id, 0, &data, now).map_err(|e| e.to_string())?;
    }
    pool.commit().map_err(|e| e.to_string())?;
    let (io, dsl) = pool.parts();
    let os = dsl.open_dataset(io, head).map_err(|e| e.to_string())?;
    for id in made.iter().step_by(3) {
        let change = Change { uid: Some(7), gid: Some(8), ..Change::default() };
        w.set_attributes(os, io, *id, &change, now).map_err(|e| e.to_string())?;
    }
    for e in before {
        match w.unlink(os, io, root, &e.name, now) {
            Ok(()) | Err(ZplError::IsDirectory(_)) => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    w.truncate(os, io, made[10], 1000, now).map_err(|e| e.to_string())?;
    pool.commit().map(drop).map_err(|e| e.to_string())
}
