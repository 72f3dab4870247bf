//! Judges a history that a test of `tests/ensembles` left: `cargo run --example check_history FILE...`
//!
//! Prints every broken promise and ends with status 1 if there is one.

#[path = "../tests/ensembles/checkers/mod.rs"]
mod checkers;
#[path = "../tests/ensembles/history.rs"]
mod history;

use std::fs::File;
use std::io::{BufReader, Write};
use std::process::ExitCode;

fn main() -> std::io::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let mut is_kept = true;
    for path in std::env::args_os().skip(1) {
        let history = history::History::read_lines(BufReader::new(File::open(&path)?))?;
        let violations = checkers::check(&history);
        is_kept &= violations.is_empty();
        let name = path.display();
        writeln!(out, "{name}: {} records, {} violations", history.records.len(), violations.len())?;
        for violation in violations {
            writeln!(out, "  {violation}")?;
        }
    }
    Ok(if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
