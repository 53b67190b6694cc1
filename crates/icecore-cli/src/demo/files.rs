//! The demo's folder: made the same each time, compared byte by byte, and the bit that flips.
//!
//! Invariant: nothing but the demo's own folder is written.

use crate::fail::{Fail, Outcome};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where a device's data begins: behind two labels and the boot block (`VDEV_LABEL_START_SIZE`, vdev_impl.h).
const DATA_START: u64 = 4 << 20;
const SECTOR: usize = 4096;

/// Bytes that look random and are the same each time (xorshift).
fn noise(bytes: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    });
    words.flatten().take(bytes).collect()
}

/// Makes the folder: a photo that does not compress, letters that do, a link.
pub fn make(dir: &Path) -> Outcome {
    fs::create_dir_all(dir.join("letters"))?;
    fs::write(dir.join("photo.raw"), noise(2 << 20))?;
    fs::write(dir.join("letters/long.txt"), "All that is gold does not glitter.\n".repeat(20_000))?;
    fs::write(dir.join("letters/short.txt"), "hello\n")?;
    std::os::unix::fs::symlink("letters/short.txt", dir.join("latest"))?;
    Ok(())
}

/// Flips one bit in the middle of the longest run of sectors that hold something and are the same on both
/// sides of a mirror: that is the photo.
pub fn flip(side: &Path, other: &Path) -> Outcome {
    let (mut a, mut b) = (File::open(side)?, File::open(other)?);
    a.seek(SeekFrom::Start(DATA_START))?;
    b.seek(SeekFrom::Start(DATA_START))?;
    let (mut x, mut y) = ([0; SECTOR], [0; SECTOR]);
    let (mut at, mut run, mut best) = (DATA_START, 0_u64, (0_u64, 0_u64));
    let end = a.metadata()?.len();
    while at + SECTOR as u64 <= end {
        a.read_exact(&mut x)?;
        b.read_exact(&mut y)?;
        at += SECTOR as u64;
        run = if x == y && x.iter().any(|v| *v != 0) { run + 1 } else { 0 };
        if run > best.0 {
            best = (run, at);
        }
    }
    if best.0 == 0 {
        return Err(Fail::new("no data was found on the drive"));
    }
    let target = best.1 - best.0 / 2 * SECTOR as u64 - SECTOR as u64 / 2;
    let file = File::options().read(true).write(true).open(side)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, target)?;
    file.write_all_at(&[byte[0] ^ 0x10], target)?;
    (&file).flush()?;
    Ok(())
}

/// Compares two folders, names, kinds and bytes: (files, bytes).
pub fn same(left: &Path, right: &Path) -> Outcome<(u64, u64)> {
    let names = |dir: &Path| -> Outcome<Vec<std::ffi::OsString>> {
        let mut all = fs::read_dir(dir)?.map(|e| e.map(|e| e.file_name())).collect::<Result<Vec<_>, _>>()?;
        all.sort();
        Ok(all)
    };
    let differs = |what: &Path| Fail::new(format!("{} is not the original's", what.display()));
    let ours = names(left)?;
    if ours != names(right)? {
        return Err(differs(right));
    }
    let (mut files, mut bytes) = (0, 0);
    for name in ours {
        let (l, r) = (left.join(&name), right.join(&name));
        let (a, b) = (fs::symlink_metadata(&l)?, fs::symlink_metadata(&r)?);
        if a.file_type() != b.file_type() {
            return Err(differs(&r));
        }
        if a.is_dir() {
            let below = same(&l, &r)?;
            files += below.0;
            bytes += below.1;
            continue;
        }
        let equal = if a.is_symlink() {
            fs::read_link(&l)? == fs::read_link(&r)?
        } else {
            fs::read(&l)? == fs::read(&r)?
        };
        if !equal {
            return Err(differs(&r));
        }
        files += 1;
        bytes += if a.is_symlink() { 0 } else { a.len() };
    }
    Ok((files, bytes))
}
