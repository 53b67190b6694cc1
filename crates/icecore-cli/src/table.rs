//! Columns: aligned for people, one TAB for scripts.

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
    cells: Cells,
}

/// Texts one behind the other, for tables of very many rows.
#[derive(Debug, Default)]
pub struct Cells {
    /// What all of them say. What is written here belongs to the cell that is ended next.
    pub text: String,
    /// How many were ended.
    len: usize,
    /// Where each ends, for people.
    ends: Vec<usize>,
    /// For scripts: so many to a row, TABs and ends of lines are in `text`.
    row_of: Option<usize>,
}

impl Cells {
    /// Cells as scripts read them, `columns` to a row.
    #[must_use]
    pub fn scripted(columns: usize) -> Self {
        Self { row_of: Some(columns.max(1)), ..Self::default() }
    }
    /// Ends a cell.
    pub fn end(&mut self) {
        self.len += 1;
        match self.row_of {
            Some(columns) => self.text.push(if self.len.is_multiple_of(columns) { '\n' } else { '\t' }),
            None => self.ends.push(self.text.len()),
        }
    }
    /// How many there are, and how long their texts are.
    #[must_use]
    pub fn mark(&self) -> (usize, usize) {
        (self.len, self.text.len())
    }
    /// Forgets what came after [`Cells::mark`].
    pub fn back_to(&mut self, (len, text): (usize, usize)) {
        self.len = len;
        self.ends.truncate(len);
        self.text.truncate(text);
    }
    fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(start, end)| self.text.get(*start..*end).unwrap_or_default())
    }
}

impl Table {
    /// A table with the given columns.
    #[must_use]
    pub fn new(header: Vec<(String, Align)>) -> Self {
        Self { header, cells: Cells::default() }
    }
    /// The same with its rows, as many cells as columns each.
    #[must_use]
    pub fn of(header: Vec<(String, Align)>, cells: Cells) -> Self {
        Self { header, cells }
    }
    /// Adds a row: one text a column.
    pub fn row(&mut self, row: Vec<String>) {
        for text in row {
            self.cells.text.push_str(&text);
            self.cells.end();
        }
    }
    /// Whether there are rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.len == 0
    }
    /// The text: with `scripted`, no header and TABs.
    #[must_use]
    pub fn render(&self, scripted: bool) -> String {
        let columns = self.header.len().max(1);
        let mut out = String::with_capacity(self.cells.text.len() + self.cells.len);
        if scripted {
            for (i, text) in self.cells.iter().enumerate() {
                out.push_str(text);
                out.push(if (i + 1) % columns == 0 { '\n' } else { '\t' });
            }
            return out;
        }
        let header = || self.header.iter().map(|h| h.0.as_str());
        let mut widths = vec![0; columns];
        for (i, text) in header().chain(self.cells.iter()).enumerate() {
            let width: &mut usize = &mut widths[i % columns];
            *width = text.chars().count().max(*width);
        }
        for (i, text) in header().chain(self.cells.iter()).enumerate() {
            let c = i % columns;
            let pad = widths[c].saturating_sub(text.chars().count());
            let left = if self.header[c].1 == Align::Right { pad } else { 0 };
            out.push_str(if c > 0 { "  " } else { "" });
            out.extend(std::iter::repeat_n(' ', left));
            out.push_str(text);
            if c + 1 == columns {
                out.push('\n');
            } else {
                out.extend(std::iter::repeat_n(' ', pad - left));
            }
        }
        out
    }
}
