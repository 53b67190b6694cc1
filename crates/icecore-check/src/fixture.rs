//! Where a test finds the pools and streams that real OpenZFS made.
//!
//! The repository keeps them compressed under `tests-data/` (its README says how each was made); a test wants plain
//! files. Invariants:
//!
//! 1. A file under `target/fixtures` appears whole or not at all: it is unpacked beside its place and renamed.
//! 2. What [`fixture`] returns is shared by all tests and never written to; a test that writes takes [`fixture_copy`].
//! 3. Runs of zero bytes become holes, so a 256 MiB image costs what it holds.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

/// The root of the repository this crate was built in.
pub fn repo_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// The folder of the compressed fixtures and of what OpenZFS said of them (`cold/main.expected` and such).
pub fn tests_data() -> PathBuf {
    repo_root().join("tests-data")
}

/// Cargo's target folder of this run.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => repo_root().join(dir),
        None => repo_root().join("target"),
    }
}

/// The plain file of `tests-data/NAME.zst` (`"cold/main.img"`), unpacked once for each target folder. Read only.
///
/// # Panics
/// When there is no such fixture or it cannot be unpacked: a test can do nothing about it.
pub fn fixture(name: &str) -> PathBuf {
    let packed = tests_data().join(format!("{name}.zst"));
    let plain = target_dir().join("fixtures").join(name);
    unpack(&packed, &plain).unwrap_or_else(|e| panic!("fixture {name}: {e} ({})", packed.display()));
    plain
}

/// The folder of all images of the repository, unpacked.
///
/// # Panics
/// As [`fixture`] does.
pub fn images() -> PathBuf {
    for folder in folders_of(&tests_data()) {
        let kind = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(image) = name.strip_suffix(".zst").filter(|n| n.ends_with(".img")) {
                fixture(&format!("{kind}/{image}"));
            }
        }
    }
    target_dir().join("fixtures")
}

/// A sparse copy of the fixture at `dest`, for a test that writes to it.
///
/// # Panics
/// As [`fixture`] does.
pub fn fixture_copy(name: &str, dest: &Path) {
    let plain = fixture(name);
    File::open(&plain)
        .and_then(|from| copy_sparse(from, &File::create(dest)?))
        .unwrap_or_else(|e| panic!("fixture {name} to {}: {e}", dest.display()));
}

/// A file by its own name (`"shapes.img"`) or below the zoo (`"send/estimates"`): from the repository's fixtures
/// where it is there, else from the folder that `ICECORE_ZOO` names, or one of the folders in that. Where it is
/// nowhere, says so on standard error: a test that then does less must not look as if it did all.
pub fn zoo(name: &str) -> Option<PathBuf> {
    for folder in folders_of(&tests_data()) {
        if folder.join(format!("{name}.zst")).exists() {
            let kind = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Some(fixture(&format!("{kind}/{name}")));
        }
    }
    let zoo = std::env::var_os("ICECORE_ZOO").map(PathBuf::from);
    let places = zoo.iter().flat_map(|zoo| std::iter::once(zoo.clone()).chain(folders_of(zoo)));
    let found = places.map(|folder| folder.join(name)).find(|file| file.exists());
    if found.is_none() {
        let why = if zoo.is_some() { "is not there" } else { "is not set" };
        eprintln!("SKIPPED: {name}, made by OpenZFS, is not in the repository, and ICECORE_ZOO {why}");
    }
    found
}

/// A folder of images and of what OpenZFS said of them, unpacked if any of it is packed: below the target folder, with links to
/// what needs no unpacking. What is there already is left.
///
/// # Errors
/// Something cannot be read, unpacked or linked.
pub fn unpacked(zoo: &Path) -> io::Result<PathBuf> {
    let zoo = fs::canonicalize(zoo)?;
    let packed = |folder: &PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|e| e.path()).any(|path| path.extension().is_some_and(|x| x == "zst"))
    };
    if !std::iter::once(zoo.clone()).chain(folders_of(&zoo)).any(|folder| packed(&folder)) {
        return Ok(zoo);
    }
    let name = zoo.to_string_lossy().trim_matches('/').replace('/', "-");
    let to = target_dir().join("unpacked").join(name);
    unpack_folder(&zoo, &to)?;
    Ok(to)
}

fn unpack_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let extension = path.extension().unwrap_or_default();
        if extension == "zst" {
            unpack(&path, &to.join(&name).with_extension(""))?;
        } else if path.is_dir() && extension != "expected" {
            unpack_folder(&path, &to.join(&name))?;
        } else if to.join(&name).symlink_metadata().is_err() {
            std::os::unix::fs::symlink(&path, to.join(&name))?;
        }
    }
    Ok(())
}

fn folders_of(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).map(|list| list.flatten().map(|e| e.path()).collect());
    let mut folders: Vec<PathBuf> = entries.unwrap_or_default();
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders
}

fn unpack(packed: &Path, plain: &Path) -> io::Result<()> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let newer = |a: &Path, b: &Path| -> io::Result<bool> {
        Ok(a.metadata()?.modified()? >= b.metadata()?.modified()?)
    };
    if plain.exists() && newer(plain, packed)? {
        return Ok(());
    }
    let folder = plain.parent().unwrap_or(plain);
    fs::create_dir_all(folder)?;
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let part = plain.with_extension(format!("part-{}-{serial}", process::id()));
    copy_sparse(zstd::Decoder::new(File::open(packed)?)?, &File::create(&part)?)?;
    fs::rename(&part, plain)
}

/// Copies all of `from`, leaving holes where a block holds only zeros.
fn copy_sparse(mut from: impl Read, mut to: &File) -> io::Result<()> {
    const BLOCK_BYTES: usize = 64 * 1024;
    let mut block = vec![0u8; BLOCK_BYTES];
    let mut copied: u64 = 0;
    loop {
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            match from.read(&mut block[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        if filled == 0 {
            break;
        }
        if block[..filled].iter().any(|&b| b != 0) {
            to.seek(SeekFrom::Start(copied))?;
            to.write_all(&block[..filled])?;
        }
        copied += filled as u64;
    }
    to.set_len(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixture_is_unpacked_whole_and_sparse() {
        use std::os::unix::fs::MetadataExt;
        let image = fixture("cold/main.img");
        let meta = image.metadata().expect("stat");
        assert_eq!(meta.len(), 256 << 20);
        assert!(meta.blocks() * 512 < 64 << 20, "holes were written out: {} blocks", meta.blocks());
    }

    #[test]
    fn a_packed_zoo_is_unpacked_and_a_plain_one_is_left() {
        let zoo = unpacked(&tests_data()).expect("unpack");
        assert_eq!(zoo.join("cold/main.img").metadata().expect("image").len(), 256 << 20);
        assert!(zoo.join("cold/main.expected").is_dir());
        assert_eq!(unpacked(&zoo).expect("again"), fs::canonicalize(&zoo).expect("path"));
        assert_eq!(unpacked(&tests_data()).expect("and again"), zoo);
        assert!(unpacked(Path::new("/no such zoo")).is_err());
    }

    #[test]
    fn what_the_repository_has_needs_no_zoo() {
        assert_eq!(zoo("main.img"), Some(fixture("cold/main.img")));
        assert_eq!(zoo("no such file of any zoo.img"), None);
    }

    #[test]
    fn a_copy_equals_its_fixture() {
        let name = "cold/docs-kept-newsnapshot.raw-i.zfs";
        let dest = target_dir().join("fixtures").join(format!("copy-{}", process::id()));
        fixture_copy(name, &dest);
        assert_eq!(fs::read(&dest).expect("copy"), fs::read(fixture(name)).expect("original"));
        fs::remove_file(dest).expect("remove");
    }
}
