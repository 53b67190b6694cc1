//! The zoo as a table: of each pool that real OpenZFS made, whether it opens, whether `zfs list`, `zfs get` and the
//! manifests of all datasets and snapshots are what OpenZFS itself printed, whether all copies of all blocks are whole,
//! and whether it shows the same without each set of devices that it may miss.

use std::path::{Path, PathBuf};

use icecore_check::fixture;
use icecore_check::zoo::{self, Verdict};

use crate::shell::Outcome;

/// Differences shown of each kind and pool.
const SHOWN: usize = 5;

/// Where the zoo lies that the repository has a part of, seen from its root.
const WHOLE: &str = "../shared/zoo";

/// The folder of images that the environment names, unpacked.
pub fn named() -> Outcome<Option<PathBuf>> {
    std::env::var_os("ICECORE_ZOO").map(|zoo| unpacked(Path::new(&zoo))).transpose()
}

fn unpacked(zoo: &Path) -> Outcome<PathBuf> {
    fixture::unpacked(zoo).map_err(|e| format!("{}: {e}", zoo.display()))
}

/// `folders` are those of images and of expectations; without them the images of the repository are asked, and those in
/// the folders that the environment names, as for tests, or of the whole zoo where it is there. Images may be packed.
pub fn run(folders: &[&str]) -> Outcome {
    let mut cases = Vec::new();
    let mut add = |images: PathBuf, expected: PathBuf| {
        let found = zoo::cases(&images, &expected);
        let none = found.is_empty().then(|| format!("no pool found in {}", images.display()));
        cases.extend(found);
        none.map_or(Ok(()), Err)
    };
    match folders {
        [] => {
            add(fixture::images(), fixture::tests_data())?;
            let whole = fixture::repo_root().join(WHOLE);
            match (named()?, std::env::var_os("ICECORE_ZOO_EXPECTED")) {
                (Some(images), Some(expected)) => add(images, expected.into())?,
                (Some(images), None) => add(images.clone(), images)?,
                (None, _) if whole.is_dir() => {
                    let images = unpacked(&whole)?;
                    add(images.clone(), images)?;
                }
                (None, _) => {}
            }
        }
        [images] => {
            let images = unpacked(Path::new(images))?;
            add(images.clone(), images)?;
        }
        [images, expected, ..] => add(unpacked(Path::new(images))?, PathBuf::from(expected))?,
    }
    println!(
        "{:16} {:>6} {:>6} {:>6} {:>6} {:>10} {:>8} {:>12}",
        "pool", "opens", "list", "get", "txgs", "manifests", "blocks", "missing sets"
    );
    let mut reasons = Vec::new();
    let mut faulty = Vec::new();
    for case in &cases {
        let verdict = zoo::judge(case);
        println!("{}", row(&verdict));
        if !verdict.is_green() {
            faulty.push(case.pool.clone());
        }
        explain(&verdict, &mut reasons);
    }
    if !reasons.is_empty() {
        println!("\n{}", reasons.join("\n"));
    }
    println!(
        "\nlist, get: lines that differ; txgs: how long before the export OpenZFS was asked for them; blocks: all copies\n\
         of each; missing sets: of devices, with which the files are the same; -: OpenZFS's word is not there"
    );
    if faulty.is_empty() { Ok(()) } else { Err(format!("differences in {}", faulty.join(", "))) }
}

fn row(v: &Verdict) -> String {
    let pool = &v.pool;
    if v.opens.is_some() {
        return format!("{pool:16} {:>6}", "no");
    }
    let told = |text: String| if v.told { text } else { "-".into() };
    let lines = |l: &[String]| told(if l.is_empty() { "equal".into() } else { l.len().to_string() });
    let (equal, all) = v.equal();
    let of = |bad: usize, all: u64| if bad == 0 { all.to_string() } else { format!("{bad} bad") };
    format!(
        "{pool:16} {:>6} {:>6} {:>6} {:>6} {:>10} {:>8} {:>12}",
        "yes",
        lines(&v.list),
        lines(&v.get),
        told(v.back.to_string()),
        told(format!("{equal}/{all}")),
        of(v.bad_blocks.len(), v.blocks),
        of(v.degraded.len(), v.sets as u64),
    )
}

fn explain(v: &Verdict, out: &mut Vec<String>) {
    let pool = &v.pool;
    if let Some(why) = &v.opens {
        out.push(format!("{pool}: does not open: {why}"));
    }
    let manifests: Vec<String> =
        v.manifests.iter().filter_map(|(name, r)| Some(format!("{name}: {}", r.as_ref().err()?))).collect();
    let kinds = [
        ("list", &v.list),
        ("get", &v.get),
        ("manifest", &manifests),
        ("blocks", &v.bad_blocks),
        ("degraded", &v.degraded),
    ];
    for (what, lines) in kinds {
        out.extend(lines.iter().take(SHOWN).map(|l| format!("{pool}: {what}: {l}")));
        if lines.len() > SHOWN {
            out.push(format!("{pool}: {what}: and {} more", lines.len() - SHOWN));
        }
    }
}
