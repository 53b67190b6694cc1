//! What the peers' cases came to: the table, and the list of what has passed before.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use super::class::Class;
use crate::shell::Outcome;

/// How a case ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Pass,
    Fail,
    /// It cannot be asked of us.
    NotApplicable,
    /// It says nothing of us: it skipped itself, or never called our commands.
    Nothing,
}

/// One case of one peer.
#[derive(Clone, Debug)]
pub struct Case {
    pub peer: String,
    pub name: String,
    pub verdict: Verdict,
    /// Why not, in a line.
    pub why: String,
    /// What it needs, where that is told apart.
    pub class: Option<Class>,
}

impl Case {
    /// A line of a script's results: `PASS|FAIL|NA<TAB>CASE[<TAB>WHY]`.
    pub fn parse(peer: &str, line: &str) -> Option<Self> {
        let mut words = line.splitn(3, '\t');
        let verdict = match words.next()? {
            "PASS" => Verdict::Pass,
            "FAIL" => Verdict::Fail,
            "NA" => Verdict::NotApplicable,
            _ => return None,
        };
        let name = words.next()?.to_string();
        let why = words.next().unwrap_or_default().trim().into();
        Some(Self { peer: peer.into(), name, verdict, why, class: None })
    }
    fn key(&self) -> String {
        format!("{} {}", self.peer, self.name)
    }
}

/// The table: every case that did not pass, with the reason, and the sums.
pub fn table(cases: &[Case]) -> String {
    let mut out = String::new();
    let width = cases.iter().map(|c| c.key().len()).max().unwrap_or(0).min(70);
    for case in cases {
        let verdict = match case.verdict {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::NotApplicable => "n/a",
            Verdict::Nothing => "-",
        };
        let _ = writeln!(out, "{:width$}  {verdict:4}  {}", case.key(), case.why);
    }
    let _ = writeln!(out, "\n{:40} {:>5} {:>5} {:>5} {:>5}", "", "pass", "fail", "n/a", "-");
    // Of the suite's tests the group is said; of tools the tool.
    let group = |c: &Case| match c.name.rsplit_once('/') {
        Some((group, _)) => format!("{} {group}", c.peer),
        None => c.peer.clone(),
    };
    let groups: BTreeSet<String> = cases.iter().map(group).collect();
    for g in &groups {
        let of = |v| cases.iter().filter(|c| group(c) == *g && c.verdict == v).count();
        let (pass, fail) = (of(Verdict::Pass), of(Verdict::Fail));
        let (not, nothing) = (of(Verdict::NotApplicable), of(Verdict::Nothing));
        let _ = writeln!(out, "{g:40} {pass:>5} {fail:>5} {not:>5} {nothing:>5}");
    }
    let classed: Vec<&Case> = cases.iter().filter(|c| c.class.is_some()).collect();
    if !classed.is_empty() {
        let _ =
            writeln!(out, "\npassed, of all that say something:{:7} {:>9} {:>9} {:>9}", "", "A", "B", "C");
        for g in &groups {
            let own: Vec<&Case> = classed.iter().copied().filter(|c| group(c) == *g).collect();
            if !own.is_empty() {
                let [a, b, c] = Class::ALL.map(|class| Share::of(&own, class).to_string());
                let _ = writeln!(out, "{g:40} {a:>9} {b:>9} {c:>9}");
            }
        }
        for class in Class::ALL {
            let share = Share::of(&classed, class);
            let goal = class.goal().map_or(String::new(), |g| format!(", goal {g} %"));
            let asked: Vec<&Case> =
                classed.iter().copied().filter(|c| c.verdict != Verdict::NotApplicable).collect();
            let asked = Share::of(&asked, class);
            let _ = writeln!(
                out,
                "class {class:?}: {share} ({} %{goal}); of those that can be asked here {asked} ({} %)",
                share.percent(),
                asked.percent()
            );
        }
    }
    out
}

/// How many of a class passed, of those that say something.
struct Share {
    pass: usize,
    all: usize,
}

impl Share {
    fn of(cases: &[&Case], class: Class) -> Self {
        let counted = || cases.iter().filter(|c| c.class == Some(class) && c.verdict != Verdict::Nothing);
        Self { pass: counted().filter(|c| c.verdict == Verdict::Pass).count(), all: counted().count() }
    }
    fn percent(&self) -> usize {
        (100 * self.pass).checked_div(self.all).unwrap_or(0)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.pass, self.all))
    }
}

/// The cases that have passed: `PEER CASE`, one a line.
pub struct Kept(BTreeSet<String>);

impl Kept {
    pub fn read(path: &Path) -> Outcome<Self> {
        let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self(text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).map(String::from).collect()))
    }
    /// Those that were run and did not pass.
    pub fn lost(&self, cases: &[Case]) -> Vec<String> {
        let lost = cases.iter().filter(|c| c.verdict != Verdict::Pass && self.0.contains(&c.key()));
        lost.map(|c| format!("{}: {}", c.key(), c.why)).collect()
    }
    /// With those that pass now.
    pub fn with(&self, cases: &[Case]) -> Self {
        let new = cases.iter().filter(|c| c.verdict == Verdict::Pass).map(Case::key);
        Self(self.0.iter().cloned().chain(new).collect())
    }
    pub fn write(&self, path: &Path) -> Outcome {
        let head = "# Cases of others' tools that pass with our zfs and zpool: `cargo xtask peers` fails where one of these does.\n\
                    # Added to by `cargo xtask peers --keep`.\n";
        let lines: Vec<&str> = self.0.iter().map(String::as_str).collect();
        fs::write(path, format!("{head}{}\n", lines.join("\n")))
            .map_err(|e| format!("{}: {e}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_a_class_leave_out_what_says_nothing() {
        let case = |line: &str, class| Case { class: Some(class), ..Case::parse("zts", line).unwrap() };
        let skipped = Case { verdict: Verdict::Nothing, ..case("NA\tg/d", Class::A) };
        let cases =
            [case("PASS\tg/a", Class::A), case("NA\tg/b", Class::A), case("FAIL\tg/c", Class::B), skipped];
        let text = table(&cases);
        assert!(
            text.contains(
                "class A: 1/2 (50 %, goal 90 %); of those that can be asked here 1/1 (100 %)\nclass B: 0/1"
            ),
            "{text}"
        );
        let row = text.lines().rfind(|l| l.starts_with("zts g ")).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["zts", "g", "1/2", "0/1", "0/0"]);
    }

    #[test]
    fn what_passed_before_is_missed_when_it_fails_or_cannot_be_asked_any_more() {
        let case = |line| Case::parse("tool", line).unwrap();
        let before = Kept(BTreeSet::new()).with(&[case("PASS\ta"), case("PASS\tb"), case("FAIL\tc\tno")]);
        assert!(before.lost(&[case("PASS\ta"), case("FAIL\tc\tno")]).is_empty());
        let now = [case("FAIL\ta\twhy not"), case("NA\tb"), case("FAIL\tc\tno")];
        assert_eq!(before.lost(&now), ["tool a: why not", "tool b: "]);
        assert!(Case::parse("tool", "anything else").is_none());
    }
}
