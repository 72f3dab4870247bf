//! The registry: services and their instances, as znodes, as the view that lookups read, and in between.

pub mod brake;
mod cache;
pub mod check;
pub mod explain;
mod failback;
mod hold_file;
mod layout;
pub mod mirror;
mod name;
mod owner;
mod record;
pub mod registrar;
mod report;
mod saved_view;
pub mod select;
mod service;
mod state_file;
mod view;
mod view_keeper;

pub use brake::{BrakePlan, BrakeSettings};
pub use cache::Cache;
pub use failback::{Failback, HELD_PRIORITY, Lead};
pub use hold_file::HoldFile;
pub use layout::{Layout, Place};
pub use mirror::{Mirror, MirrorStats};
pub use name::{Label, LabelError, ServiceKey};
pub use owner::{owner_id, random_id};
pub use record::{Port, Protocol, Record, RecordError, Status};
pub use registrar::{Registrar, RegistrarSettings};
pub use report::{CheckKey, ReportReceiver, TtlReport, TtlReports, UnknownCheck, Verdict};
pub use saved_view::{SavedView, SavedViewError};
pub use service::{OwnService, PortSettings, Registration, ServiceDefaults, resolve_services};
pub use view::{FailbackMode, Instance, LAST_RESORT, LookupMark, Service, ServiceSettings, Standing, View};
pub use view_keeper::{ViewKeeper, ViewKeeperStats};
