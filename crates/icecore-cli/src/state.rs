//! Which pools are imported: one small file a pool in the state folder, so that the next command finds
//! its devices. Nothing secret is kept here.
//!
//! The folder is `$ICECORE_STATE_DIR`, else `/var/lib/icecore` for root, else `$XDG_STATE_HOME/icecore`
//! (`~/.local/state/icecore`).

use crate::fail::{Fail, Outcome};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// An imported pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Imported {
    /// The name it goes by here.
    pub name: String,
    /// Pool GUID.
    pub guid: u64,
    /// The devices it was found on.
    pub devices: Vec<PathBuf>,
    /// Imported with `-o readonly=on`.
    pub readonly: bool,
    /// `-R`, or empty.
    #[serde(default)]
    pub altroot: String,
    /// Imported for reading as it was after this txg (`-T`, `-F`).
    #[serde(default)]
    pub max_txg: Option<u64>,
    /// Imported for what can still be read of it (`-F` of a pool that is not whole).
    #[serde(default)]
    pub salvage: bool,
}

/// The state folder.
pub fn folder() -> Outcome<PathBuf> {
    if let Some(dir) = std::env::var_os("ICECORE_STATE_DIR") {
        return Ok(dir.into());
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/icecore".into());
    }
    if let Some(dir) = std::env::var_os("XDG_STATE_HOME") {
        return Ok(PathBuf::from(dir).join("icecore"));
    }
    match std::env::var_os("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".local/state/icecore")),
        None => Err(Fail::new("cannot tell where to keep state: set ICECORE_STATE_DIR or HOME")),
    }
}

fn file(name: &str) -> Outcome<PathBuf> {
    Ok(folder()?.join("pools").join(format!("{name}.json")))
}

/// All imported pools, by name.
pub fn all() -> Outcome<Vec<Imported>> {
    all_in(&folder()?)
}

/// All pools that a state folder knows, by name.
pub fn all_in(folder: &Path) -> Outcome<Vec<Imported>> {
    let dir = folder.join("pools");
    let mut out = Vec::new();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(out),
        Err(e) => return Err(Fail::new(format!("cannot read {}: {e}", dir.display()))),
    };
    for entry in entries.flatten() {
        if entry.path().extension().is_some_and(|x| x == "json") {
            let text = fs::read_to_string(entry.path())
                .map_err(|e| Fail::new(format!("cannot read {}: {e}", entry.path().display())))?;
            let pool = serde_json::from_str(&text).map_err(|e| {
                Fail::new(format!(
                    "{} is damaged ({e}): remove it and import the pool again",
                    entry.path().display()
                ))
            })?;
            out.push(pool);
        }
    }
    out.sort_by(|a: &Imported, b| a.name.cmp(&b.name));
    Ok(out)
}

/// The imported pool called `name`.
pub fn find(name: &str) -> Outcome<Option<Imported>> {
    Ok(all()?.into_iter().find(|p| p.name == name))
}

/// The same, where there has to be one (`zpool_open`, libzfs_pool.c).
pub fn named(name: &str) -> Outcome<Imported> {
    let fail = |why: &str| Fail::new(format!("cannot open '{name}': {why}"));
    icecore_dsl::name::check_pool(name).map_err(|e| fail(&e.to_string()))?;
    find(name)?.ok_or_else(|| fail("no such pool"))
}

/// What keeps pools of these names from being looked at, line by line.
pub fn missing<'a>(records: &[Imported], names: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let unknown = names.into_iter().filter(|n| !records.iter().any(|r| r.name == **n));
    unknown.filter_map(|n| named(n).err()).map(|f| f.message).collect()
}

/// Makes sure that a pool of this name can be remembered, before anything is written to its devices.
pub fn can_remember(name: &str) -> Outcome {
    let path = file(name)?;
    let write = || -> std::io::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let temp = path.with_extension("new");
        let mut f = fs::File::create(&temp)?;
        std::io::Write::write_all(&mut f, &[b' '; 4096])?;
        f.sync_all()?;
        fs::remove_file(&temp)
    };
    write().map_err(|e| {
        Fail::new(format!(
            "pool '{name}' could not be remembered in {}, so nothing was done: {e}",
            path.display()
        ))
    })
}

/// Makes what was named or removed in a folder durable.
fn settle(dir: Option<&Path>) -> std::io::Result<()> {
    dir.map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

/// Remembers an imported pool. Written beside and renamed, so that a crash leaves the old or the new. What a crash brings back
/// or takes does no harm: the labels of the devices say whose the pool is.
pub fn remember(pool: &Imported) -> Outcome {
    let path = file(&pool.name)?;
    let text = serde_json::to_string_pretty(pool).map_err(|e| Fail::new(e.to_string()))?;
    let write = || -> std::io::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let temp = path.with_extension("new");
        let mut f = fs::File::create(&temp)?;
        std::io::Write::write_all(&mut f, text.as_bytes())?;
        f.sync_all()?;
        fs::rename(&temp, &path)?;
        settle(path.parent())
    };
    write().map_err(|e| Fail::new(format!("cannot remember pool '{}' in {}: {e}", pool.name, path.display())))
}

/// Forgets an exported pool.
pub fn forget(name: &str) -> Outcome {
    let path = file(name)?;
    match fs::remove_file(&path).and_then(|()| settle(path.parent())) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Fail::new(format!("cannot remove {}: {e}", path.display()))),
    }
}
