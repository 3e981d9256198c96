//! A table of any number of rows.
//!
//! `comfy_table` keeps every cell by itself and measures it several times: 100,000 connections took half a second and
//! 260 MB. Here the cells are one text, measured as they come, and printed line by line. What needs more than that,
//! as a column that must wrap, is still laid out there.

use std::io::{self, Write};
use std::iter;

use super::output;

/// Header and rows, the same number of cells in each.
pub(super) struct Rows {
    /// Of all cells, one after the other.
    text: String,
    /// Where each ends.
    ends: Vec<usize>,
    /// Of each column, in characters.
    widths: Vec<usize>,
    /// A byte is a character, and each takes one place in a line.
    is_plain: bool,
}

impl Rows {
    /// Only a header.
    pub(super) fn new(header: &[&str]) -> Self {
        let mut rows = Self {
            text: String::new(),
            ends: Vec::new(),
            widths: vec![0; header.len()],
            is_plain: true,
        };
        rows.add(header);
        rows
    }

    /// Adds a row.
    pub(super) fn add(&mut self, row: &[impl AsRef<str>]) {
        assert_eq!(row.len(), self.widths.len(), "a cell for each column");
        for (cell, width) in row.iter().map(AsRef::as_ref).zip(&mut self.widths) {
            *width = cell.len().max(*width);
            self.is_plain &= cell.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            self.text.push_str(cell);
            self.ends.push(self.text.len());
        }
    }

    /// Writes all as [`output::table`] lays them out in a terminal of so many columns; `None` is no terminal.
    pub(super) fn write(&self, terminal: Option<u16>, to: &mut impl Write) -> io::Result<()> {
        let needed: usize = self.widths.iter().map(|width| width + 2).sum();
        if !self.is_plain || terminal.is_some_and(|width| usize::from(width) < needed) {
            return writeln!(to, "{}", self.arranged(terminal));
        }
        let mut cells = self.cells();
        let mut line = String::with_capacity(needed);
        for _ in 0..self.ends.len() / self.widths.len() {
            line.clear();
            for (width, cell) in self.widths.iter().zip(&mut cells) {
                line.push(' ');
                line.push_str(cell);
                line.extend(iter::repeat_n(' ', width - cell.len() + 1));
            }
            writeln!(to, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn arranged(&self, terminal: Option<u16>) -> String {
        let cells: Vec<&str> = self.cells().collect();
        let (header, rows) = cells.split_at(self.widths.len());
        let mut table = output::table(header);
        if let Some(width) = terminal {
            table.set_width(width);
        }
        table.add_rows(rows.chunks(self.widths.len()));
        table.trim_fmt()
    }

    fn cells(&self) -> impl Iterator<Item = &str> {
        let starts = iter::once(&0).chain(&self.ends);
        let cells = starts.zip(&self.ends);
        cells.map(|(start, end)| &self.text[*start..*end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(cells: &[[&str; 3]]) -> Rows {
        let mut rows = Rows::new(&["NAME", "ADDRESS", "REASON"]);
        cells.iter().for_each(|row| rows.add(row));
        rows
    }

    fn written(rows: &Rows, terminal: Option<u16>) -> String {
        let mut to = Vec::new();
        rows.write(terminal, &mut to).unwrap();
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn any_rows_look_as_the_table_does_at_any_width() {
        for cells in [
            &[][..],
            &[["nginx[12]", "10.0.0.1:80", "-"], ["a", "", ""]],
            &[["", " two words ", "a longer reason, which wraps"]],
            &[["größer", "10.0.0.1:80", "日本"], ["a", "b", "c"]],
            &[["two\nlines", "a\tb", "\u{1b}[1mbold"]],
        ] {
            let rows = rows(cells);
            for terminal in [None].into_iter().chain((1..80).map(Some)) {
                let expected = format!("{}\n", rows.arranged(terminal));
                assert_eq!(written(&rows, terminal), expected, "{cells:?} {terminal:?}");
            }
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = rows(&[["a", "10.0.0.1:80", "-"]]);
        let expected = " NAME  ADDRESS      REASON\n a     10.0.0.1:80  -\n";
        assert_eq!(written(&rows, None), expected);
    }
}
