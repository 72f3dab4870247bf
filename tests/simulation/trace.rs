//! The last things that happened, for people. Nothing is written down unless a story is told for its trace.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::rc::Rc;

use crate::time::{MS, Nanos};

/// A trace that several hold, or none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    lines: Option<Rc<RefCell<VecDeque<String>>>>,
}

const LINES_MAX: usize = 200;
const LINE_CHARS_MAX: usize = 220;

impl Trace {
    /// Nothing is written down.
    pub(crate) fn off() -> Self {
        Self::default()
    }

    pub(crate) fn on() -> Self {
        Self { lines: Some(Rc::default()) }
    }

    pub(crate) fn line(&self, now: Nanos, text: impl FnOnce() -> String) {
        let Some(lines) = &self.lines else { return };
        self.push(lines, format!("{:>10.3} ms {}", now as f64 / MS as f64, text()));
    }

    /// Takes over what the code under test has logged.
    pub(crate) fn take_log_lines(&self) {
        let Some(lines) = &self.lines else { return };
        for line in crate::alarm::take_lines() {
            self.push(lines, format!("                   {line}"));
        }
    }

    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.lines.as_ref().map(|lines| lines.borrow().iter().cloned().collect()).unwrap_or_default()
    }

    fn push(&self, lines: &RefCell<VecDeque<String>>, mut line: String) {
        if let Some((at, _)) = line.char_indices().nth(LINE_CHARS_MAX) {
            line.truncate(at);
        }
        let mut lines = lines.borrow_mut();
        lines.push_back(line);
        if lines.len() > lines_max() {
            lines.pop_front();
        }
    }
}

/// More than a screenful is for whoever asks for it.
fn lines_max() -> usize {
    std::env::var("ROLLCALL_SIM_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(LINES_MAX)
}

/// A value without the bytes that say nothing.
pub(crate) fn show(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    match text.find("payload: b\"") {
        Some(at) => format!("{}…", &text[..at]),
        None => text,
    }
}
