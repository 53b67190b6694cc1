//! The sides of pool `one`.

use super::{Outcome, POOLS, Step, Walk};

/// Files of the sides, in the order they came.
#[derive(Clone, Debug)]
pub(crate) struct Sides {
    names: Vec<String>,
    /// One of them is offline.
    away: Option<String>,
}

impl Default for Sides {
    fn default() -> Self {
        Self { names: vec!["one/a.img".into()], away: None }
    }
}

impl Walk {
    fn side(&self, name: &str) -> String {
        self.desk.path(name).display().to_string()
    }

    fn new_side(&mut self) -> Outcome<(String, String)> {
        let name = format!("one/{}.img", self.fresh("side"));
        let path = self.desk.drive(&name)?;
        Ok((name, path))
    }

    /// One change to the sides: attach, detach, replace, offline, online.
    pub fn sides(&mut self) -> Outcome<Step> {
        let pool = POOLS[0];
        self.touch(pool);
        if let Some(away) = self.sides.away.take() {
            self.desk.ok(&["zpool", "online", pool, &self.side(&away)])?;
            return Ok(Step::Done);
        }
        let last = self.sides.names.last().cloned().unwrap_or_default();
        match self.rng.below(4) {
            0 | 1 if self.sides.names.len() < 3 => {
                let (name, path) = self.new_side()?;
                self.desk.ok(&["zpool", "attach", pool, &self.side(&last), &path])?;
                self.sides.names.push(name);
            }
            0 | 1 => {
                let at = self.rng.below(self.sides.names.len() as u64) as usize;
                let gone = self.sides.names.remove(at);
                self.desk.ok(&["zpool", "detach", pool, &self.side(&gone)])?;
                std::fs::remove_file(self.desk.path(&gone)).map_err(|e| e.to_string())?;
            }
            2 => {
                let at = self.rng.below(self.sides.names.len() as u64) as usize;
                let (name, path) = self.new_side()?;
                let old = std::mem::replace(&mut self.sides.names[at], name);
                self.desk.ok(&["zpool", "replace", pool, &self.side(&old), &path])?;
                std::fs::remove_file(self.desk.path(&old)).map_err(|e| e.to_string())?;
            }
            _ if self.sides.names.len() > 1 => {
                self.desk.ok(&["zpool", "offline", pool, &self.side(&last)])?;
                self.sides.away = Some(last);
            }
            _ => return Ok(Step::Skipped),
        }
        Ok(Step::Done)
    }

    /// The only side there is cannot go.
    pub fn last_side(&mut self) -> Outcome<Step> {
        if self.sides.names.len() > 1 {
            return Ok(Step::Skipped);
        }
        let side = self.side(&self.sides.names[0]);
        for verb in ["detach", "offline"] {
            if self.desk.run(&["zpool", verb, POOLS[0], &side])?.ok() {
                return Err(format!("zpool {verb} of the only side"));
            }
        }
        Ok(Step::Refused)
    }

    pub fn scrub(&mut self) -> Outcome<Step> {
        let pool = POOLS[self.rng.below(2) as usize];
        self.desk.ok(&["zpool", "scrub", "-w", pool])?;
        let said = self.desk.ok(&["zpool", "status", pool])?;
        if !said.contains("with 0 errors") || !said.contains("No known data errors") {
            return Err(format!("a scrub of {pool} found something:\n{said}"));
        }
        self.touch(pool);
        Ok(Step::Done)
    }

    pub fn export_import(&mut self) -> Outcome<Step> {
        let pool = POOLS[self.rng.below(2) as usize];
        self.desk.ok(&["zpool", "export", pool])?;
        let dir = self.desk.path(pool).display().to_string();
        self.desk.ok(&["zpool", "import", "-N", "-d", &dir, pool])?;
        self.touch(pool);
        Ok(Step::Done)
    }
}
