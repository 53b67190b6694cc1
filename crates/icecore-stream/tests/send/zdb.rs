//! `zdb -B` as judge: it sends any snapshot of any layout at hand. With `ICECORE_ZDB` set.

use crate::support::*;
use icecore_stream::send::SendError;
use std::path::{Path, PathBuf};

fn zdb_stream(dir: &Path, pool: &str, objset: u64, flags: &str) -> Vec<u8> {
    let what = format!("{pool}/{objset}");
    let mut zdb = icecore_check::zdb::command();
    zdb.arg("-e").arg("-p").arg(dir).arg("-B").arg(what).args((!flags.is_empty()).then_some(flags));
    zdb.output().unwrap().stdout
}

#[test]
fn every_snapshot_of_every_layout() {
    if std::env::var_os("ICECORE_ZDB").is_none() {
        return eprintln!("SKIPPED: ICECORE_ZDB is not set, zdb sends nothing to compare with");
    }
    let pools: [(&str, &[&str]); 13] = [
        ("main", &["main"]),
        ("codecs", &["codecs"]),
        ("crypt", &["crypt"]),
        ("shapes", &["shapes"]),
        ("nofeat", &["nofeat"]),
        ("gang", &["gang"]),
        ("ckpt", &["ckpt"]),
        ("mir2", &["m-0", "m-1"]),
        ("mir3", &["m3-0", "m3-1", "m3-2"]),
        ("stripe", &["st-0", "st-1"]),
        ("rz1", &["rz1-0", "rz1-1", "rz1-2"]),
        ("rz2", &["rz2-0", "rz2-1", "rz2-2", "rz2-3"]),
        ("rz3", &["rz3-0", "rz3-1", "rz3-2", "rz3-3", "rz3-4"]),
    ];
    let mut bad = Vec::new();
    let mut compared = 0;
    for (_, files) in pools {
        let found: Option<Vec<PathBuf>> = files.iter().map(|f| zoo(&format!("{f}.img"))).collect();
        let Some(files) = found else { continue };
        let dir = files[0].parent().unwrap().to_path_buf();
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let pool = open(&files);
        let (io, dsl) = (pool.io(), &pool.dsl);
        for path in dsl.descendants(io, pool.name()).unwrap() {
            for (snap, r) in dsl.snapshots(io, &path).unwrap() {
                for (letters, flags) in [("", PLAIN), ("Lec", LEC), ("w", RAW)] {
                    let name = format!("{path}@{snap}");
                    let made = match send(&pool, &spec(None, &name, flags)) {
                        Ok(made) => made,
                        Err(SendError::Read(icecore_dmu::ReadError::KeyUnavailable { .. })) => continue,
                        Err(e) => {
                            bad.push(format!("{name} {letters}: {e}"));
                            continue;
                        }
                    };
                    let want = zdb_stream(&dir, pool.name(), r.obj, letters);
                    let differs = made.iter().zip(&want).position(|(a, b)| a != b);
                    if (made.len(), differs) != (want.len(), None) {
                        bad.push(format!(
                            "{name} {letters}: {} of {} bytes, {differs:?}",
                            made.len(),
                            want.len()
                        ));
                    }
                    compared += 1;
                }
            }
        }
        eprintln!("{}: {compared} streams so far, {} bad", pool.name(), bad.len());
    }
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(compared > 3, "{compared}");
}
