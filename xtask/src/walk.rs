//! The random walk over all commands, long: see `icecore_check::walk`.

use icecore_check::fixture::target_dir;
use icecore_check::walk::{Plan, run};

use crate::shell::{Outcome, build_icecore};

/// Contents are compared every so many steps.
const LOOK_EVERY: u32 = 25;

/// `cargo xtask walk [STEPS [SEED]]`.
pub fn walk(words: &[&str]) -> Outcome {
    let number = |at: usize, otherwise: u64| -> Outcome<u64> {
        words.get(at).map_or(Ok(otherwise), |w| w.parse().map_err(|e| format!("{w}: {e}")))
    };
    let (steps, seed) = (number(0, 2000)?, number(1, 1)?);
    let steps = u32::try_from(steps).map_err(|e| e.to_string())?;
    let folder = target_dir().join(format!("walk-{seed}"));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let plan = Plan { program: build_icecore()?, folder, seed, steps, look_every: LOOK_EVERY, verbose: true };
    let report = run(&plan)?;
    println!("{}", report.table());
    std::fs::remove_dir_all(&plan.folder).map_err(|e| e.to_string())
}
