//! `rollcall sidecar`.

use std::sync::Arc;

use super::arguments::SidecarArguments;
use super::failure::{Failure, chain};
use super::file_limit;
use crate::config::{Environment, FileWatch, load_text, parse, read};
use crate::shutdown;
use crate::sidecar::{Listeners, Reading, SettingsFile, Sidecar, SidecarSettings};
use crate::telemetry::{Metrics, init_logging};

/// Runs until a signal comes or a part fails.
pub(super) async fn run(arguments: SidecarArguments) -> Result<(), Failure> {
    let (file, environment) = (&arguments.config, Environment::of_process());
    let text = read(file)?;
    let plan = load_text(file, &text, &environment, SidecarSettings::plan)?;
    let log = init_logging(&plan.log).map_err(|error| Failure::usage(error.to_string()))?;
    file_limit::raise_for(&plan);
    let stop = shutdown::on_signals().map_err(|error| Failure::failed(error.to_string()))?;
    let listeners = Listeners::bind(&plan).map_err(|error| {
        let key = error.listener.key();
        let file = arguments.config.display();
        Failure::failed(format!("{error}; stop what listens there, or change {key} in {file}"))
    })?;
    let settings = SettingsFile::new(FileWatch::start(file, &text), log, move |text| {
        let plan = parse(text, &environment, SidecarSettings::plan)?;
        Ok(Reading { plan, restart: Vec::new() })
    });
    let settings = settings.told_by_hangup();
    let sidecar = Sidecar::start(plan, Some(settings), listeners, Arc::new(Metrics::new()))
        .map_err(|error| Failure::failed(chain(&error)))?;
    sidecar.run(stop).await.map_err(|error| Failure::failed(chain(&error)))
}
