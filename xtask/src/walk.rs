//! The random walk over all commands, long: see `icecore_check::walk`.

use std::fs;
use std::path::{Path, PathBuf};

use icecore_check::fixture::target_dir;
use icecore_check::walk::{Keep, Plan, run};

use crate::interop;
use crate::shell::{Outcome, build_icecore};

/// Contents are compared every so many steps.
const LOOK_EVERY: u32 = 25;
/// Moments are kept every so many.
const KEEP_EVERY: u32 = 100;

/// `cargo xtask walk [--keep|--vm] [STEPS [SEED]]`.
pub fn walk(words: &[&str]) -> Outcome {
    let (flags, words): (Vec<&str>, Vec<&str>) = words.iter().partition(|w| w.starts_with("--"));
    let (keep, vm) = match flags.as_slice() {
        [] => (false, false),
        ["--keep"] => (true, false),
        ["--vm"] => (true, true),
        _ => return Err(format!("walk: what is {}?", flags.join(" "))),
    };
    let number = |at: usize, otherwise: u64| -> Outcome<u64> {
        words.get(at).map_or(Ok(otherwise), |w| w.parse().map_err(|e| format!("{w}: {e}")))
    };
    let (steps, seed) = (number(0, 2000)?, number(1, 1)?);
    let steps = u32::try_from(steps).map_err(|e| e.to_string())?;
    let kept = target_dir().join(format!("walk-{seed}-kept"));
    fresh(&kept)?;
    go(&build_icecore()?, steps, seed, keep.then(|| kept.clone()))?;
    if vm {
        interop::walked(&kept)?;
        fs::remove_dir_all(&kept).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Walks; moments are kept in `kept`.
pub fn go(program: &Path, steps: u32, seed: u64, kept: Option<PathBuf>) -> Outcome {
    let folder = target_dir().join(format!("walk-{seed}"));
    fresh(&folder)?;
    let plan = Plan {
        program: program.to_path_buf(),
        folder,
        seed,
        steps,
        look_every: LOOK_EVERY,
        keep: kept.map(|folder| Keep { folder, every: KEEP_EVERY }),
        verbose: true,
    };
    let report = run(&plan)?;
    println!("{}", report.table());
    fs::remove_dir_all(&plan.folder).map_err(|e| e.to_string())
}

fn fresh(folder: &Path) -> Outcome {
    match folder.exists() {
        true => fs::remove_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display())),
        false => Ok(()),
    }
}
