//! The pool's lost blocks in the words of `zpool status` (`print_error_log`, zpool_main.c; `zpool_obj_to_path`,
//! libzfs_pool.c).

use icecore_dsl::DslError;
use icecore_format::{Bookmark, ObjectId};
use icecore_pool::Pool;
use icecore_pool::heal::dataset_name;
use icecore_zpl::{Dataset, Filesystem, open_object};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What stands over the list.
pub const HEADING: &str = "errors: Permanent errors have been detected in the following files:";

/// What is said of a pool with lost blocks (`ZPOOL_STATUS_CORRUPT_DATA`).
pub const STATUS: &str = "status: One or more devices has experienced an error resulting in data\n\t\
    corruption.  Applications may be affected.\n\
    action: Restore the file in question if possible.  Otherwise restore the\n\tentire pool from backup.\n   \
    see: https://openzfs.github.io/openzfs-docs/msg/ZFS-8000-8A\n";

/// The last line of `zpool status`, or the list with `-v`. `count` is what the log's entries are.
pub fn lines(pool: &Pool, count: u64, verbose: bool) -> String {
    if count == 0 {
        return "errors: No known data errors\n".into();
    }
    if !verbose {
        return format!("errors: {count} data errors, use '-v' for a list\n");
    }
    let mut out = format!("{HEADING}\n\n");
    match files(pool) {
        Ok(files) => files.iter().for_each(|f| out.push_str(&format!("        {f}\n"))),
        Err(e) => {
            let _ = writeln!(out, "        the list cannot be read: {e}");
        }
    }
    out
}

/// The files that lost blocks.
pub fn files(pool: &Pool) -> Result<Vec<String>, DslError> {
    let mut logged: Vec<Bookmark> = pool.dsl.errlog(pool.io())?.into_iter().collect();
    // They are sorted: each file once, however many blocks it lost.
    logged.dedup_by_key(|at| (at.objset, at.object));
    let mut names = Names::new(pool);
    Ok(logged.iter().map(|at| names.place(at)).collect())
}

/// The files that blocks belong to: by path where the file system can be read (it is not encrypted, or its key is
/// loaded), by number where not.
pub struct Names<'a> {
    pool: &'a Pool,
    filesystems: BTreeMap<u64, Option<Filesystem>>,
    paths: BTreeMap<(u64, ObjectId), Option<String>>,
}

impl<'a> Names<'a> {
    /// Of the blocks of this pool.
    pub fn new(pool: &'a Pool) -> Self {
        Self { pool, filesystems: BTreeMap::new(), paths: BTreeMap::new() }
    }

    /// `DATASET:PATH`, or as much as can be said.
    pub fn place(&mut self, at: &Bookmark) -> String {
        let dataset = dataset_name(self.pool, at.objset);
        match self.path(at.objset, at.object) {
            Some(path) => format!("{dataset}:{path}"),
            None => format!("{dataset}:<{:#x}>", at.object.0),
        }
    }

    fn path(&mut self, objset: u64, object: ObjectId) -> Option<String> {
        if objset == 0 || object.0 == 0 {
            return None;
        }
        let (io, dsl) = (self.pool.io(), &self.pool.dsl);
        let fs = self.filesystems.entry(objset).or_insert_with(|| match open_object(io, dsl, objset) {
            Ok(Dataset::Filesystem(fs)) => Some(*fs),
            _ => None,
        });
        let fs = fs.as_ref()?;
        let found = self.paths.entry((objset, object)).or_insert_with(|| {
            let path = fs.path_of(io, object).ok()?;
            Some(String::from_utf8_lossy(&path).escape_debug().to_string())
        });
        found.clone()
    }
}
