//! A seeded random walk over the commands, as a person would type them, with a model beside and `zdb` as the judge.
//!
//! Invariants:
//! 1. A step is one command (or one pipe). What must work by the rules of OpenZFS has to work; what may be refused has to
//!    be refused in words, not with status 0, and has to leave everything as it was.
//! 2. After each step that can have written, `zdb -bc` finds neither errors nor leaks in the pools it touched; where
//!    contents are compared it is `zdb -bcc`, which reads data too (and spends five seconds more on waiting for its own
//!    cache to age).
//! 3. Names are compared after each step; contents of heads and snapshots now and then, and all of them at the end. The
//!    model knows contents by hash from what was put in, never by asking the engine.
//! 4. The same seed takes the same steps, whatever is kept of them.

mod deaths;
mod desk;
mod kept;
mod keys;
mod look;
mod mirror;
mod model;
mod mounted;
mod ops;
mod power;
mod streams;
mod volumes;

use crate::zdb;
use desk::Desk;
use icecore_sim::Rng;
pub use kept::Keep;
use model::Model;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// What to walk.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program `icecore`.
    pub program: PathBuf,
    /// An empty folder for pools, keys and files.
    pub folder: PathBuf,
    /// Which walk.
    pub seed: u64,
    /// How long.
    pub steps: u32,
    /// Every so many steps contents are compared.
    pub look_every: u32,
    /// Moments that are kept.
    pub keep: Option<Keep>,
    /// Every other step is a power cut: `program` was made with the feature `power-cuts`.
    pub power: bool,
    /// The drives' flushes keep nothing: a walk with power cuts has to fail.
    pub lies: bool,
    /// Print each step on standard error.
    pub verbose: bool,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By kind of step: how many were done, and how many were refused as they may be.
    pub kinds: BTreeMap<&'static str, (u32, u32)>,
    /// Contents of heads and snapshots compared.
    pub looked: u32,
    /// Pools that `zdb` found clean.
    pub judged: u32,
    /// Moments kept.
    pub kept: u32,
    /// Sectors that were written and lost with power.
    pub lost: u64,
}

impl Report {
    /// A table of it.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{:<18} {:>6} {:>8}", "step", "done", "refused");
        for (kind, (done, refused)) in &self.kinds {
            let _ = writeln!(text, "{kind:<18} {done:>6} {refused:>8}");
        }
        let _ = writeln!(
            text,
            "{} trees compared, {} pools judged clean by zdb, {} moments kept, {} sectors lost with power",
            self.looked, self.judged, self.kept, self.lost
        );
        text
    }
}

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// There was nothing to do it with.
    Skipped,
    /// Done; the model knows.
    Done,
    /// Refused, as may be.
    Refused,
}

pub(crate) type Outcome<T = ()> = Result<T, String>;

/// The two pools of a walk.
pub(crate) const POOLS: [&str; 2] = ["one", "two"];
/// The pool that only `icecore sync` writes to.
pub(crate) const COLD: &str = "cold";

pub(crate) struct Walk {
    pub desk: Desk,
    pub rng: Rng,
    pub model: Model,
    pub report: Report,
    /// Pools written to since they were last judged.
    pub touched: Vec<&'static str>,
    pub sides: mirror::Sides,
    counter: u32,
    power: bool,
}

/// Takes the walk.
///
/// # Errors
/// The first thing that was not as it has to be, with the commands of the last steps.
pub fn run(plan: &Plan) -> Result<Report, String> {
    let mut walk = Walk::begin(plan)?;
    for step in 1..=plan.steps {
        let name = walk.step().map_err(|why| walk.told(plan, step, &why))?;
        if plan.verbose {
            eprintln!("step {step}: {name}: {}", walk.desk.last());
        }
        let look = step % plan.look_every.max(1) == 0;
        walk.check(look).map_err(|why| walk.told(plan, step, &why))?;
        if let Some(keep) = plan.keep.as_ref().filter(|k| step.is_multiple_of(k.every)) {
            walk.keep(step, &keep.folder).map_err(|why| walk.told(plan, step, &why))?;
        }
    }
    walk.finish().map_err(|why| walk.told(plan, plan.steps, &why))?;
    Ok(walk.report)
}

impl Walk {
    fn begin(plan: &Plan) -> Outcome<Self> {
        let desk = Desk::new(&plan.program, &plan.folder)?;
        if plan.lies {
            std::fs::write(desk.power().join("lies"), "").map_err(|e| e.to_string())?;
        }
        for pool in POOLS.into_iter().chain([COLD]) {
            let drive = desk.drive(&format!("{pool}/a.img"))?;
            desk.ok(&["zpool", "create", "-o", "ashift=12", "-O", "mountpoint=none", pool, &drive])?;
        }
        Ok(Self {
            desk,
            rng: Rng::new(plan.seed),
            model: Model::new(&POOLS),
            report: Report::default(),
            touched: vec![POOLS[0], POOLS[1], COLD],
            sides: mirror::Sides::default(),
            counter: 0,
            power: plan.power,
        })
    }

    /// A name that was never used.
    pub fn fresh(&mut self, letter: &str) -> String {
        self.counter += 1;
        format!("{letter}{}", self.counter)
    }

    pub fn touch(&mut self, name: &str) {
        let pool = model::pool_of(name);
        if let Some(pool) = POOLS.into_iter().chain([COLD]).find(|p| *p == pool)
            && !self.touched.contains(&pool)
        {
            self.touched.push(pool);
        }
    }

    fn step(&mut self) -> Outcome<&'static str> {
        // Skipped ones are not steps; some kind always has something to do.
        for _ in 0..1000 {
            let (name, work) = ops::choose(self);
            let outcome = work(self).map_err(|why| format!("{name}: {why}"))?;
            let count = self.report.kinds.entry(name).or_default();
            match outcome {
                Step::Skipped => continue,
                Step::Done => count.0 += 1,
                Step::Refused => count.1 += 1,
            }
            return Ok(name);
        }
        Err("nothing left to do".into())
    }

    fn check(&mut self, look: bool) -> Outcome {
        self.compare_names()?;
        if look {
            self.compare_some()?;
        }
        for pool in std::mem::take(&mut self.touched) {
            self.judge(pool, if look { "-bcc" } else { "-bc" })?;
        }
        Ok(())
    }

    fn judge(&mut self, pool: &str, flags: &str) -> Outcome {
        if zdb::zdb_available() {
            zdb::clean_by(&self.desk.path(pool), pool, flags)?;
            self.report.judged += 1;
        }
        Ok(())
    }

    fn finish(&mut self) -> Outcome {
        self.compare_all()?;
        for pool in POOLS.into_iter().chain([COLD]) {
            self.desk.ok(&["zpool", "export", pool])?;
            self.judge(pool, "-bcc")?;
            self.judge(pool, "-dddd")?;
        }
        Ok(())
    }

    fn told(&self, plan: &Plan, step: u32, why: &str) -> String {
        format!(
            "seed {}, step {step}: {why}\nthe last commands were:\n{}\n(folder {})",
            plan.seed,
            self.desk.history(),
            plan.folder.display()
        )
    }
}
