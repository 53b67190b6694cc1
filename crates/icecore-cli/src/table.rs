//! Columns: aligned for people, one TAB for scripts.

use std::fmt::Write as _;

/// How a column is aligned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a header.
#[derive(Debug, Default)]
pub struct Table {
    header: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with the given columns.
    #[must_use]
    pub fn new(header: Vec<(String, Align)>) -> Self {
        Self { header, rows: Vec::new() }
    }
    /// Adds a row: one text a column.
    pub fn row(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }
    /// Whether there are rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
    /// The text: with `scripted`, no header and TABs.
    #[must_use]
    pub fn render(&self, scripted: bool) -> String {
        let mut out = String::new();
        if scripted {
            for row in &self.rows {
                for (c, text) in row.iter().enumerate() {
                    out.push_str(if c > 0 { "\t" } else { "" });
                    out.push_str(text);
                }
                out.push('\n');
            }
            return out;
        }
        let columns = self.header.len();
        let widths: Vec<usize> = (0..columns)
            .map(|c| {
                self.rows
                    .iter()
                    .map(|r| r[c].chars().count())
                    .chain([self.header[c].0.chars().count()])
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let header: Vec<String> = self.header.iter().map(|h| h.0.clone()).collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = String::new();
            for (c, text) in row.iter().enumerate() {
                let pad = " ".repeat(widths[c].saturating_sub(text.chars().count()));
                if c > 0 {
                    line.push_str("  ");
                }
                match self.header[c].1 {
                    Align::Right => line.push_str(&format!("{pad}{text}")),
                    Align::Left if c + 1 == columns => line.push_str(text),
                    Align::Left => line.push_str(&format!("{text}{pad}")),
                }
            }
            let _ = writeln!(out, "{}", line.trim_end_matches('\u{0}'));
        }
        out
    }
}
