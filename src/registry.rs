//! The registry: services and their instances, as znodes, as the view that lookups read, and in between.

mod barrier;
pub mod brake;
mod cache;
mod change;
pub mod check;
mod chunked;
mod demand;
pub mod explain;
mod failback;
pub mod formats;
mod history;
mod hold_file;
mod host_address;
mod interest;
mod layout;
mod maintenance;
mod meta;
pub mod mirror;
mod name;
mod own;
mod owner;
mod record;
pub mod registrar;
mod registration;
pub mod rehearse;
mod report;
#[cfg(test)]
mod sample;
mod saved_view;
pub mod select;
mod service;
mod services;
mod state_dir;
mod state_file;
mod stored_settings;
mod tally;
mod unreadable;
mod view;
mod view_keeper;
mod view_settings;
mod zones;

pub use brake::{BrakePlan, BrakeSettings};
pub use cache::Cache;
pub use change::{
    Change, ChangeError, Departure, Drain, Evidence, Keeping, MaintenanceChange, SubscriberReport,
};
pub use demand::{Demand, HELD_MAX, HOLD_MAX, Held};
pub use failback::{Failback, HELD_PRIORITY, Lead};
pub use history::{NoHistory, Past};
pub use hold_file::HoldFile;
pub(crate) use host_address::host_address;
pub use layout::{Layout, Place};
pub use maintenance::{Maintenance, MaintenanceFile, Reason, ReasonError};
pub use meta::Meta;
pub use mirror::{Adopted, Mirror, MirrorStats, Source, Subscription};
pub use name::{Label, LabelError, ServiceKey};
pub use own::{OwnCheck, OwnInstance, OwnStatus, RegistrationState};
pub use owner::{owner_id, random_id};
pub use record::{Port, Protocol, Record, RecordError, Status};
pub use registrar::{Registrar, RegistrarSettings};
pub use registration::Registration;
pub use report::{CheckKey, ReportReceiver, TtlReport, TtlReports, UnknownCheck, Verdict};
pub use saved_view::{SavedView, SavedViewError};
pub use service::{OwnService, PortSettings, ServiceDefaults, reserved, resolve_services};
pub use services::Services;
pub use state_dir::{StateDir, StateDirError, StateFolder};
pub use stored_settings::{DamagedSettings, stored_settings};
pub use tally::Tally;
pub use unreadable::Unreadable;
pub use view::{
    FailbackMode, Instance, Instances, LAST_RESORT, LookupMark, Service, ServiceSettings, Standing, View,
    Waiting,
};
pub use view_keeper::{ViewKeeper, ViewKeeperStats};
pub use view_settings::{LiveViewSettings, ViewSettings};
pub use zones::{Home, ZonePlan};
