//! Where log lines go and what they look like.

use std::io::{self, IsTerminal};

use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

/// Settings of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// What a line looks like. Default `auto`: text on a terminal, JSON elsewhere.
    pub format: LogFormat,
    /// What is logged, in the language of `tracing`'s filters, such as `info` or `rollcall::dns=debug`.
    /// Default `info`, and that of `rollcall dev` is what becomes of the instances, and warnings. The variable `ROLLCALL_LOG` goes before it. `trace` logs every message: for debugging only.
    pub filter: Option<String>,
}

impl LogSettings {
    /// Whether [`init_logging`] will take the filter.
    ///
    /// # Errors
    ///
    /// When the filter is malformed.
    pub fn check_filter(&self) -> Result<(), LoggingError> {
        filter(self.filter.as_deref()).map(drop)
    }
}

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter cannot be read.
    #[error("{text:?} is no log filter ({source}); use a level such as info, or target=level,…")]
    Filter {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The filter of the environment cannot be read.
    #[error("the variable {FILTER_VARIABLE}: {0}")]
    Variable(#[source] Box<Self>),
    /// There is a log already.
    #[error("logging was started twice in one process")]
    Started,
}

/// The environment variable that goes before the settings' filter.
const FILTER_VARIABLE: &str = "ROLLCALL_LOG";

/// The log that was started, whose filter can be changed.
#[derive(Clone, Debug)]
pub struct LogHandle(Handle<EnvFilter, Registry>);

impl LogHandle {
    /// Goes on with the filter of these settings, unless the environment has one. The format stays.
    ///
    /// # Errors
    ///
    /// When the filter is malformed.
    pub fn refilter(&self, settings: &LogSettings) -> Result<(), LoggingError> {
        let filter = filter_of(settings)?;
        // The subscriber lives as long as the process.
        self.0.reload(filter).map_err(|_| LoggingError::Started)
    }
}

/// Starts logging to stderr for the whole process.
///
/// # Errors
///
/// When the filter is malformed, or logging was started before.
pub fn init_logging(settings: &LogSettings) -> Result<LogHandle, LoggingError> {
    let (filter, handle) = reload::Layer::new(filter_of(settings)?);
    let is_terminal = io::stderr().is_terminal();
    let is_text = match settings.format {
        LogFormat::Auto => is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = if is_text {
        // Asking for colors would go over NO_COLOR (no-color.org), which tracing heeds by itself.
        if is_terminal { lines.boxed() } else { lines.with_ansi(false).boxed() }
    } else {
        lines.json().flatten_event(true).boxed()
    };
    let log = tracing_subscriber::registry().with(filter).with(lines);
    log.try_init().map(|()| LogHandle(handle)).map_err(|_| LoggingError::Started)
}

/// The environment's filter, or else that of the settings.
fn filter_of(settings: &LogSettings) -> Result<EnvFilter, LoggingError> {
    let from_environment = std::env::var(FILTER_VARIABLE).ok().filter(|text| !text.is_empty());
    match from_environment {
        Some(text) => filter(Some(&text)).map_err(|error| LoggingError::Variable(Box::new(error))),
        None => filter(settings.filter.as_deref()),
    }
}

/// Libraries that would log every query keep to warnings, and one that warns about what packets say, as often as somebody sends them, to
/// errors, unless they are named.
fn filter(wanted: Option<&str>) -> Result<EnvFilter, LoggingError> {
    let wanted = wanted.unwrap_or("info");
    let text = format!("hickory_server=warn,hickory_proto=error,{wanted}");
    EnvFilter::builder()
        .parse(text)
        .map_err(|source| LoggingError::Filter { text: wanted.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_log_each_query_are_quiet_unless_named() {
        assert_eq!(directives(None), ["hickory_proto=error", "hickory_server=warn", "info"]);
        let named = directives(Some("debug,hickory_proto=trace"));
        assert_eq!(named, ["debug", "hickory_proto=trace", "hickory_server=warn"]);
    }

    #[test]
    fn a_malformed_filter_is_quoted_in_the_error() {
        let error = filter(Some("rollcall=loud")).unwrap_err().to_string();
        assert!(error.contains("\"rollcall=loud\""), "{error}");
    }

    fn directives(wanted: Option<&str>) -> Vec<String> {
        let mut directives: Vec<_> =
            filter(wanted).unwrap().to_string().split(',').map(str::to_owned).collect();
        directives.sort_unstable();
        directives
    }
}
