//! How a command fails.

use std::process::ExitCode;

use crate::config::ConfigError;

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
    /// It was asked for wrongly.
    #[error("{0}")]
    Usage(String),
    /// The settings file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nobody reads stdout any more, as with `rollcall services | head -1`.
    #[error("stdout is closed")]
    OutputClosed,
}

impl Failure {
    pub(super) fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    #[expect(clippy::print_stderr, reason = "the place where a command says why it failed")]
    pub(super) fn print(&self) {
        match self {
            Self::Failed(text) | Self::Usage(text) => eprintln!("rollcall: {text}"),
            // Lines of the form FILE:LINE:COLUMN: stand alone, so that editors can follow them.
            Self::Config(error) => eprintln!("{error}"),
            Self::OutputClosed => {}
        }
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Failed(_) => ExitCode::from(1),
            Self::Usage(_) | Self::Config(_) => ExitCode::from(2),
            Self::OutputClosed => ExitCode::SUCCESS,
        }
    }
}

/// An error and what caused it, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors repeat their cause in their own text.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_each_cause_once() {
        let config = ConfigError::Read(std::io::Error::other("gone"));
        assert_eq!(chain(&config), "gone; give the path of a file that can be read");
        assert_eq!(chain(&std::io::Error::other("gone")), "gone");
    }
}
