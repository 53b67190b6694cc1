//! The random walk over all commands, long: see `icecore_check::walk`.

use std::fs;
use std::path::{Path, PathBuf};

use icecore_check::fixture::target_dir;
use icecore_check::walk::{Keep, Plan, run};

use crate::interop;
use crate::shell::{Outcome, build_icecore, cargo, run as shell};

/// Contents are compared every so many steps.
const LOOK_EVERY: u32 = 25;
/// Moments are kept every so many.
const KEEP_EVERY: u32 = 100;

/// Which walk.
#[derive(Clone, Copy)]
pub struct Length {
    pub steps: u32,
    pub seed: u64,
    /// Every other step is a power cut.
    pub power: bool,
    /// And no flush helps.
    pub lies: bool,
}

/// The program with the device files that forget, beside the one without.
fn build_for_power_cuts() -> Outcome<PathBuf> {
    if let Some(path) = std::env::var_os("ICECORE_BIN") {
        return Ok(path.into());
    }
    let folder = target_dir().join("power-cuts");
    let build = ["build", "--release", "--locked", "--package", "icecore-cli", "--features", "power-cuts"];
    shell(cargo().args(build).arg("--target-dir").arg(&folder))?;
    Ok(folder.join("release/icecore"))
}

/// `cargo xtask walk [--keep|--vm] [--power|--lies] [STEPS [SEED]]`.
pub fn walk(words: &[&str]) -> Outcome {
    let (flags, words): (Vec<&str>, Vec<&str>) = words.iter().partition(|w| w.starts_with("--"));
    let has = |flag: &str| flags.contains(&flag);
    if let Some(other) = flags.iter().find(|f| !["--keep", "--vm", "--power", "--lies"].contains(f)) {
        return Err(format!("walk: what is {other}?"));
    }
    let (vm, power, lies) = (has("--vm"), has("--power") || has("--lies"), has("--lies"));
    let number = |at: usize, otherwise: u64| -> Outcome<u64> {
        words.get(at).map_or(Ok(otherwise), |w| w.parse().map_err(|e| format!("{w}: {e}")))
    };
    let (steps, seed) = (number(0, 2000)?, number(1, 1)?);
    let steps = u32::try_from(steps).map_err(|e| e.to_string())?;
    let kept = target_dir().join(format!("walk-{seed}-kept"));
    fresh(&kept)?;
    let program = if power { build_for_power_cuts()? } else { build_icecore()? };
    let keep = (vm || has("--keep")).then(|| kept.clone());
    go(&program, Length { steps, seed, power, lies }, keep)?;
    if vm {
        interop::walked(&kept)?;
        fs::remove_dir_all(&kept).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Walks; moments are kept in `kept`.
pub fn go(program: &Path, Length { steps, seed, power, lies }: Length, kept: Option<PathBuf>) -> Outcome {
    let folder = target_dir().join(format!("walk-{seed}"));
    fresh(&folder)?;
    let plan = Plan {
        program: program.to_path_buf(),
        folder,
        seed,
        steps,
        look_every: LOOK_EVERY,
        keep: kept.map(|folder| Keep { folder, every: KEEP_EVERY }),
        power,
        lies,
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
