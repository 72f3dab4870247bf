//! What the code under test logs: an error is a bug, and so is a peer that is said to have broken the protocol. When a story is
//! told again, the rest is part of the trace.

use std::cell::RefCell;
use std::fmt::{Debug, Write};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

thread_local! {
    static LOG: RefCell<Log> = const { RefCell::new(Log { alarms: Vec::new(), lines: Vec::new() }) };
}

struct Log {
    alarms: Vec<String>,
    lines: Vec<String>,
}

/// Takes what this thread logs.
#[derive(Debug)]
pub(crate) struct Listener {
    /// How much of it is wanted.
    pub(crate) level: LevelFilter,
}

/// What was logged and must not be, since the last look.
pub(crate) fn take_alarms() -> Vec<String> {
    LOG.with_borrow_mut(|log| std::mem::take(&mut log.alarms))
}

/// Everything that was logged since the last look.
pub(crate) fn take_lines() -> Vec<String> {
    LOG.with_borrow_mut(|log| std::mem::take(&mut log.lines))
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && metadata.target().starts_with("rollcall")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let level = *event.metadata().level();
        let line = format!("{level} {}{}", text.message, text.fields);
        let is_breach = text.has_breach && !text.fields.contains("proposes epoch");
        LOG.with_borrow_mut(|log| {
            if level == Level::ERROR || is_breach {
                log.alarms.push(line.clone());
            }
            if self.level >= LevelFilter::INFO {
                log.lines.push(line);
            }
        });
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
    has_breach: bool,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.has_breach |= field.name() == "breach";
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        written.expect("writing to a string cannot fail");
    }
}
