//! `rollcall check-config`.

use std::path::Path;

use super::arguments::CheckConfigArguments;
use super::dev::DevSettings;
use super::failure::Failure;
use super::output::print;
use crate::config::{ConfigError, Environment, load};
use crate::sidecar::SidecarSettings;

/// Reads the file as each role would, and reports on the one that it fits best.
pub(super) fn run(arguments: &CheckConfigArguments) -> Result<(), Failure> {
    let file = &arguments.file;
    let environment = Environment::of_process();
    let sidecar = load(file, &environment, SidecarSettings::plan).map(|plan| plan.registrations.len());
    let dev = load(file, &environment, DevSettings::plan).map(|plan| plan.sidecar.registrations.len());
    let (role, services) = best(file, sidecar, dev)?;
    let noun = if services == 1 { "service" } else { "services" };
    print(&format!("{}: ok ({role} settings, {services} {noun})", file.display()))
}

type Checked = Result<usize, ConfigError>;

fn best(file: &Path, sidecar: Checked, dev: Checked) -> Result<(&'static str, usize), ConfigError> {
    let mistakes = |checked: &Checked| match checked {
        Ok(_) => 0,
        Err(ConfigError::Mistakes { mistakes, .. }) => mistakes.len(),
        Err(ConfigError::Read(_) | ConfigError::TooLong(_) | ConfigError::NotText(_)) => usize::MAX,
    };
    // Where both fit as well, the name may tell.
    let is_called_dev = file.file_stem().is_some_and(|stem| stem.to_string_lossy().contains("dev"));
    let is_dev = match mistakes(&dev).cmp(&mistakes(&sidecar)) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Equal => is_called_dev,
        std::cmp::Ordering::Greater => false,
    };
    if is_dev { Ok(("dev", dev?)) } else { Ok(("sidecar", sidecar?)) }
}
