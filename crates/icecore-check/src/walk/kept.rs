//! Moments of a walk, kept for OpenZFS's kernel to judge (`interop/walked.sh`).
//!
//! A moment is a tar: a folder of drives for each pool, the folder of keys, and in `moment` what the model knows:
//! `step`, when that was; `roots`, a line for each encryption root (its name, the file of its key); `trees`, a line for each head and for the
//! oldest and newest snapshot of each (its number, `fs` or `volume`, `surely` or `perhaps` to be opened, its name); and for
//! each number a file with a sorted line for each entry: `d PATH`, `f SHA256 PATH` or `l PATH TARGET`.

use super::model::{Entry, Tree};
use super::{COLD, Outcome, POOLS, Walk};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which moments are kept, and where.
#[derive(Clone, Debug)]
pub struct Keep {
    /// A folder; a moment is `STEP.tar` in it.
    pub folder: PathBuf,
    /// Every so many steps.
    pub every: u32,
}

fn lines_of(tree: &Tree) -> String {
    let line = |(path, entry): (&String, &Entry)| match entry {
        Entry::Dir => format!("d {path}"),
        Entry::File(_, hash) => format!("f {hash} {path}"),
        Entry::Link(to) => format!("l {path} {to}"),
    };
    let mut lines: Vec<String> = tree.iter().map(line).collect();
    lines.sort();
    lines.iter().map(|l| format!("{l}\n")).collect()
}

impl Walk {
    /// Keeps this moment. The pools are exported meanwhile, and judged as they lie there.
    pub(super) fn keep(&mut self, step: u32, folder: &Path) -> Outcome {
        let failed = |e: std::io::Error| format!("keeping step {step}: {e}");
        fs::create_dir_all(folder).map_err(failed)?;
        let notes = self.desk.path("moment");
        if notes.exists() {
            fs::remove_dir_all(&notes).map_err(failed)?;
        }
        fs::create_dir(&notes).map_err(failed)?;
        let (mut roots, mut trees) = (BTreeMap::new(), String::new());
        let mut number = 0;
        for (name, ds) in &self.model.sets {
            if let Some(key) = &ds.key {
                roots.entry(self.root_of(name)?).or_insert_with(|| key.file.clone());
            }
            let ends = [ds.snaps.first(), ds.snaps.last().filter(|_| ds.snaps.len() > 1)];
            let snaps = ends.into_iter().flatten().map(|s| (format!("{name}@{}", s.name), &*s.tree));
            for (name, tree) in snaps.chain([(name.clone(), &ds.tree)]) {
                number += 1;
                fs::write(notes.join(number.to_string()), lines_of(tree)).map_err(failed)?;
                let kind = if ds.volume { "volume" } else { "fs" };
                let open = if ds.estranged { "perhaps" } else { "surely" };
                let _ = writeln!(trees, "{number} {kind} {open} {name}");
            }
        }
        let roots: String = roots.iter().map(|(root, file)| format!("{root} {file}\n")).collect();
        fs::write(notes.join("roots"), roots).map_err(failed)?;
        fs::write(notes.join("trees"), trees).map_err(failed)?;
        fs::write(notes.join("step"), format!("{step}\n")).map_err(failed)?;
        let pools = || POOLS.into_iter().chain([COLD]);
        for pool in pools() {
            self.desk.ok(&["zpool", "export", pool])?;
            self.judge(pool, "-bcc")?;
        }
        let tar = Command::new("tar")
            .args(["--sparse", "-cf"])
            .arg(folder.join(format!("{step:05}.tar")))
            .arg("-C")
            .arg(self.desk.path(""))
            .args(pools().chain(["keys", "moment"]))
            .status();
        if !tar.map_err(failed)?.success() {
            return Err(format!("keeping step {step}: tar failed"));
        }
        for pool in pools() {
            let dir = self.desk.path(pool).display().to_string();
            self.desk.ok(&["zpool", "import", "-N", "-d", &dir, pool])?;
        }
        self.report.kept += 1;
        Ok(())
    }
}
