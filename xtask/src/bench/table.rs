//! The result: a line for each goal, with what was measured, its yardstick, their ratio, and whether that will do.

use std::fmt;

use super::measure::Cost;

/// A number with its unit.
#[derive(Clone, Copy)]
pub enum Amount {
    /// From start to end, and of that on a processor.
    Seconds(f64, f64),
    Mib(f64),
    Count(f64),
}

impl Amount {
    fn value(self) -> f64 {
        match self {
            Amount::Seconds(v, _) | Amount::Mib(v) | Amount::Count(v) => v,
        }
    }
}

impl From<f64> for Amount {
    fn from(mib: f64) -> Amount {
        Amount::Mib(mib)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Amount::Seconds(v, cpu) => format!("{v:.3} s (CPU {cpu:.2})"),
            Amount::Mib(v) => format!("{v:.1} MiB"),
            Amount::Count(v) => format!("{v}"),
        };
        f.pad(&text)
    }
}

pub fn seconds(cost: Cost) -> Amount {
    Amount::Seconds(cost.seconds, cost.cpu_seconds)
}

pub fn mib(cost: Cost) -> Amount {
    Amount::Mib(cost.peak_mib)
}

pub struct Row {
    what: String,
    measured: Amount,
    yardstick: String,
    against: Amount,
    goal: f64,
}

impl Row {
    /// `measured` should be at most `goal` times `against`.
    pub fn at_most(what: &str, measured: Amount, yardstick: &str, against: Amount, goal: f64) -> Row {
        Row { what: what.into(), measured, yardstick: yardstick.into(), against, goal }
    }
    fn ratio(&self) -> f64 {
        self.measured.value() / self.against.value()
    }
    fn met(&self) -> bool {
        self.ratio() <= self.goal
    }
}

#[derive(Default)]
pub struct Table {
    notes: Vec<String>,
    rows: Vec<Row>,
}

impl Table {
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }
    /// Adds a row, and shows at once that it has been measured.
    pub fn row(&mut self, row: Row) {
        eprintln!("{}: {}", row.what.trim(), row.measured);
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| what | measured | yardstick | | ratio | goal | met |\n|---|---|---|---|---|---|---|"
        )?;
        for r in &self.rows {
            let (ratio, met) = (r.ratio(), if r.met() { "yes" } else { "**no**" });
            let Row { what, measured, yardstick, against, goal } = r;
            writeln!(
                f,
                "| {what:40} | {measured:>18} | {yardstick:17} | {against:>18} | {ratio:5.2} | ≤ {goal:4.2} | {met} |"
            )?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "\n{note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_whether_its_goal_is_met() {
        let mut table = Table::default();
        // More time than was asked for is a miss, whatever the processor time.
        for measured in [1.9, 2.1] {
            table.row(Row::at_most(
                "x",
                Amount::Seconds(measured, 0.5),
                "cat",
                Amount::Seconds(1.0, 1.0),
                2.0,
            ));
        }
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[3].ends_with("|  1.90 | ≤ 2.00 | yes |"), "{text}");
        assert!(lines[4].ends_with("|  2.10 | ≤ 2.00 | **no** |"), "{text}");
    }
}
