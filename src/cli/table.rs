//! Rows in columns, for people.

use std::io::{self, Write};

/// Characters of a cell that are shown; what is longer is cut, so that no single value makes a page of blanks of all rows.
const CELL_CHARS_MAX: usize = 500;

/// Writes rows with every column but the last padded to its widest cell.
pub(super) fn write<const N: usize>(out: &mut impl Write, rows: &[[String; N]]) -> io::Result<()> {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| shown(cell))).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// The cell, cut where it is too long; control characters are shown, never sent to a terminal.
fn shown(cell: &str) -> String {
    let mut shown = String::new();
    for c in cell.chars().take(CELL_CHARS_MAX) {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    let length = cell.chars().count();
    if length > CELL_CHARS_MAX {
        shown.push_str(&format!("... ({length} characters)"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_cell_is_cut_and_the_others_stay_in_their_columns() {
        let rows = [["a".repeat(70_000), "b".to_owned()], ["c\u{1b}[31m".to_owned(), "d".to_owned()]];
        let mut out = Vec::new();
        write(&mut out, &rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("aaa... (70000 characters)  b"), "{text}");
        assert_eq!(lines[0].len(), lines[1].len());
        assert!(lines[1].starts_with("c\\u{1b}[31m "), "{text}");
        assert!(text.len() < 2 * 600, "{}", text.len());
    }
}
