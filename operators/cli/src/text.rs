//! Text as people read it: aligned tables, YAML, counted nouns. And writing it without falling over a closed pipe.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Columns padded to the widest cell and two blanks, as kubectl prints them.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut lines: Vec<[String; N]> = vec![header.map(str::to_owned)];
    lines.extend(rows);
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(row, "{cell:<width$}  ");
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// A value in YAML.
pub(crate) fn yaml(value: &Value) -> Result<String> {
    let options = serde_saphyr::ser_options! { compact_list_indent: true };
    serde_saphyr::to_string_with_options(value, options).context("cannot print the object as YAML")
}

/// Indents every line.
pub(crate) fn indented(text: &str, by: usize) -> String {
    text.lines().flat_map(|line| [" ".repeat(by), line.to_owned(), "\n".to_owned()]).collect()
}

/// `1 pod`, `2 pods`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Writes to standard output. A reader that has gone (`| head`) surfaces as `BrokenPipe`, which ends the program
/// quietly.
pub(crate) fn out(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes a line to standard error. That it cannot be written is no reason to stop.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let rows = [["1".to_owned(), String::new()], ["1000000000".to_owned(), "x y".to_owned()]];
        assert_eq!(table(["A", "BB"], rows.into_iter()), "A           BB\n1\n1000000000  x y\n");
    }

    #[test]
    fn nouns_are_counted() {
        assert_eq!([count(0, "pod"), count(1, "pod"), count(2, "pod")], ["0 pods", "1 pod", "2 pods"]);
    }
}
