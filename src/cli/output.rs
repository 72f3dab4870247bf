//! What commands print.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};

use super::failure::Failure;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Writes a text and a line break to stdout.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    write(text.as_bytes(), true)
}

/// Writes bytes as they are to stdout, and a line break if `ends_line`.
pub(super) fn write(bytes: &[u8], ends_line: bool) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(bytes)
        .and_then(|()| if ends_line { stdout.write_all(b"\n") } else { Ok(()) })
        .and_then(|()| stdout.flush());
    written.map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::OutputClosed;
        }
        Failure::failed(format!("cannot write to stdout: {error}"))
    })
}

/// Tells the person something that is no result.
#[expect(clippy::print_stderr, reason = "notes to the person, beside the results on stdout")]
pub(super) fn note(text: &str) {
    eprintln!("rollcall: {text}");
}

/// A table without borders: columns two blanks apart, headings in capitals.
pub(super) fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<_> = table.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// A text of foreign origin that cannot steer a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_aligned_columns_and_no_borders() {
        let rows =
            vec![vec!["web-1".to_owned(), "up".to_owned()], vec!["w".to_owned(), "failing".to_owned()]];
        assert_eq!(table(&["ID", "STATUS"], rows), "ID     STATUS\nweb-1  up\nw      failing");
    }
}
