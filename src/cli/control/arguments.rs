//! What can be asked for of own instances.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::super::arguments::{OutputArguments, SidecarAddress};
use super::super::name::NameArgument;
use crate::config::duration;
use crate::registry::Reason;

#[derive(Debug, Args)]
pub(crate) struct OwnArguments {
    /// `web`, `web.shop` or `web.shop.rollcall.internal`; without a namespace it is `default` [default: all services]
    pub(super) name: Option<NameArgument>,
    #[command(flatten)]
    pub(super) sidecar: SidecarAddress,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    /// `web`, `web.shop` or `web.shop.rollcall.internal`; without a namespace it is `default` [default: all services]
    pub(super) name: Option<NameArgument>,
    /// Return once the instances are out of the answers of all sidecars that the ensemble reaches, and fail when they could not
    /// be taken out in this time, 30s if none is given
    #[arg(
        long,
        value_name = "TIME",
        value_parser = duration::parse,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "30s"
    )]
    pub(super) wait: Option<Duration>,
    /// Let the instances serve again
    #[arg(long, conflicts_with = "wait")]
    pub(super) undo: bool,
    #[command(flatten)]
    pub(super) sidecar: SidecarAddress,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(crate) struct MaintenanceArguments {
    #[command(subcommand)]
    pub(super) action: MaintenanceAction,
}

#[derive(Debug, Subcommand)]
pub(super) enum MaintenanceAction {
    /// Take instances out until `off`, also over restarts of a sidecar that has a `state_dir`
    On {
        #[command(flatten)]
        whose: OwnArguments,
        /// Why, for whoever asks `show` or `rollcall status`; without it a reason that was given before stays
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = Reason::parse)]
        reason: Reason,
    },
    /// Offer instances again as their checks say
    Off {
        #[command(flatten)]
        whose: OwnArguments,
    },
    /// List the instances in maintenance
    Show {
        #[command(flatten)]
        whose: OwnArguments,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    pub(super) sidecar: SidecarAddress,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}
