//! One line on the terminal that tells how far a measurement is; nothing where stderr is none.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::tally::as_f64;

/// How often the line is drawn.
pub(super) const DRAW_EVERY: Duration = Duration::from_millis(200);
const BAR_CELLS: usize = 24;

/// The line.
#[derive(Debug)]
pub(super) struct Progress {
    is_terminal: bool,
    drawn: Option<(Instant, u64)>,
}

impl Progress {
    pub(super) fn on_stderr() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), drawn: None }
    }

    /// Draws `what`, how much of it is over (0 to 1), and the rate at which `done` has grown since the last time.
    pub(super) fn draw(&mut self, now: Instant, what: &str, share: f64, done: u64) {
        if !self.is_terminal || self.drawn.is_some_and(|(at, _)| now < at + DRAW_EVERY) {
            return;
        }
        let rate = self.drawn.map_or(0.0, |(at, before)| {
            as_f64(done.saturating_sub(before)) / now.saturating_duration_since(at).as_secs_f64()
        });
        self.drawn = Some((now, done));
        self.write(&line(what, share, rate));
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            self.write("");
        }
    }

    fn write(&self, line: &str) {
        // To the beginning of the line, and nothing of what stood there stays. Whoever cannot see it misses nothing.
        let _unseen = write!(io::stderr(), "\r\x1b[K{line}").and_then(|()| io::stderr().flush());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between no cell and all of them"
)]
fn line(what: &str, share: f64, rate: f64) -> String {
    let filled = (share.clamp(0.0, 1.0) * as_f64(BAR_CELLS as u64)).round() as usize;
    format!("{what}  [{}{}]  {rate:.0} ops/s", "#".repeat(filled), "-".repeat(BAR_CELLS - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_up() {
        assert_eq!(line("set", 0.0, 0.0), format!("set  [{}]  0 ops/s", "-".repeat(24)));
        assert_eq!(line("set", 0.5, 99.6), format!("set  [{}{}]  100 ops/s", "#".repeat(12), "-".repeat(12)));
        assert_eq!(line("set", 7.0, 1.0), format!("set  [{}]  1 ops/s", "#".repeat(24)));
    }
}
