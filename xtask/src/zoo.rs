//! The zoo as a table: of each pool that real OpenZFS made, whether it opens, and whether `zfs list`, `zfs get` and the
//! manifests of all datasets and snapshots are what OpenZFS itself printed.

use std::path::PathBuf;

use icecore_check::zoo::{self, IMAGES, Verdict};

use crate::shell::Outcome;

/// Differences shown of each kind and pool.
const SHOWN: usize = 5;

/// `folders` are those of images and of expectations; without them the environment names them, as for tests.
pub fn run(folders: &[&str]) -> Outcome {
    let (images, expected) = match folders {
        [] => zoo::folders().ok_or("name the folder of unpacked images, or set ICECORE_ZOO")?,
        [images] => (PathBuf::from(images), PathBuf::from(images)),
        [images, expected, ..] => (PathBuf::from(images), PathBuf::from(expected)),
    };
    println!("{:10} {:>6} {:>6} {:>6} {:>11}", "pool", "opens", "list", "get", "manifests");
    let mut reasons = Vec::new();
    let mut faulty = Vec::new();
    let mut absent = Vec::new();
    for image in IMAGES {
        let Some(verdict) = zoo::judge(*image, &images, &expected) else {
            absent.push(image.pool);
            continue;
        };
        println!("{}", row(&verdict));
        if !verdict.faults().is_empty() || !verdict.list.is_empty() || !verdict.get.is_empty() {
            faulty.push(image.pool);
        }
        explain(&verdict, &mut reasons);
    }
    if !reasons.is_empty() {
        println!("\n{}", reasons.join("\n"));
    }
    if !absent.is_empty() {
        println!("\nnot in {}: {}", images.display(), absent.join(", "));
    }
    match (absent.len() == IMAGES.len(), faulty.is_empty()) {
        (true, _) => Err(format!("no image found in {}", images.display())),
        (false, true) => Ok(()),
        (false, false) => Err(format!("differences in {}", faulty.join(", "))),
    }
}

fn row(v: &Verdict) -> String {
    let pool = v.image.pool;
    if v.opens.is_err() {
        return format!("{pool:10} {:>6}", "no");
    }
    let lines = |l: &[String]| if l.is_empty() { "equal".to_string() } else { l.len().to_string() };
    let (equal, all) = v.equal();
    format!(
        "{pool:10} {:>6} {:>6} {:>6} {:>11}",
        "yes",
        lines(&v.list),
        lines(&v.get),
        format!("{equal}/{all}")
    )
}

fn explain(v: &Verdict, out: &mut Vec<String>) {
    let pool = v.image.pool;
    if let Err(why) = &v.opens {
        out.push(format!("{pool}: does not open: {why}"));
    }
    let manifests: Vec<String> =
        v.manifests.iter().filter_map(|(name, r)| Some(format!("{name}: {}", r.as_ref().err()?))).collect();
    for (what, lines) in [("list", &v.list), ("get", &v.get), ("manifest", &manifests)] {
        out.extend(lines.iter().take(SHOWN).map(|l| format!("{pool}: {what}: {l}")));
        if lines.len() > SHOWN {
            out.push(format!("{pool}: {what}: and {} more", lines.len() - SHOWN));
        }
    }
}
