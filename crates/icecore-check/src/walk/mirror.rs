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

    /// One change to the sides, attach, detach, replace, offline or online: the command, for what they are from now on.
    pub(super) fn change_of_sides(&mut self) -> Outcome<Option<Vec<String>>> {
        let line = |verb: &str, sides: &[String]| {
            let words = ["zpool", verb, POOLS[0]].map(str::to_string);
            Ok(Some(words.into_iter().chain(sides.iter().cloned()).collect()))
        };
        if let Some(away) = self.sides.away.take() {
            return line("online", &[self.side(&away)]);
        }
        let last = self.sides.names.last().cloned().unwrap_or_default();
        match self.rng.below(4) {
            0 | 1 if self.sides.names.len() < 3 => {
                let (name, path) = self.new_side()?;
                self.sides.names.push(name);
                line("attach", &[self.side(&last), path])
            }
            0 | 1 => {
                let at = self.rng.below(self.sides.names.len() as u64) as usize;
                let gone = self.sides.names.remove(at);
                line("detach", &[self.side(&gone)])
            }
            2 => {
                let at = self.rng.below(self.sides.names.len() as u64) as usize;
                let (name, path) = self.new_side()?;
                let old = std::mem::replace(&mut self.sides.names[at], name);
                line("replace", &[self.side(&old), path])
            }
            _ if self.sides.names.len() > 1 => {
                self.sides.away = Some(last.clone());
                line("offline", &[self.side(&last)])
            }
            _ => Ok(None),
        }
    }

    /// Files that are no sides go.
    pub(super) fn tidy_sides(&self) -> Outcome {
        let failed = |e: std::io::Error| format!("the sides: {e}");
        for entry in std::fs::read_dir(self.desk.path(POOLS[0])).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = format!("{}/{}", POOLS[0], entry.file_name().to_string_lossy());
            if !self.sides.names.contains(&name) {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The sides are those, in use or offline.
    pub(super) fn compare_sides(&self) -> Outcome {
        // One that a crash left behind is brought up to date by itself.
        self.desk.ok(&["zpool", "wait", "-t", "resilver", POOLS[0]])?;
        let said = self.desk.ok(&["zpool", "status", "-P", POOLS[0]])?;
        let mut is: Vec<(String, String)> = said
            .lines()
            .filter_map(|l| l.trim().split_once(".img"))
            .map(|(path, rest)| (format!("{path}.img"), rest.trim().to_string()))
            .filter(|(path, _)| path.starts_with('/'))
            .collect();
        let state = |name: &String| if self.sides.away.as_ref() == Some(name) { "OFFLINE" } else { "ONLINE" };
        let mut must: Vec<(String, String)> = self
            .sides
            .names
            .iter()
            .map(|n| (self.side(n), format!("{}       0     0     0", state(n))))
            .collect();
        is.iter_mut()
            .chain(&mut must)
            .for_each(|(_, rest)| *rest = rest.split_whitespace().collect::<Vec<_>>().join(" "));
        is.sort();
        must.sort();
        if is == must { Ok(()) } else { Err(format!("the sides are {is:?}, not {must:?}:\n{said}")) }
    }

    pub fn change_sides(&mut self) -> Outcome<Step> {
        let Some(line) = self.change_of_sides()? else { return Ok(Step::Skipped) };
        self.touch(POOLS[0]);
        self.desk.ok(&line.iter().map(String::as_str).collect::<Vec<_>>())?;
        self.tidy_sides()?;
        self.compare_sides()?;
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
