//! The registry: services and their instances, as znodes, as the view that lookups read, and in between.

mod cache;
mod name;
mod record;
mod view;

pub use cache::Cache;
pub use name::{Label, LabelError, ServiceKey};
pub use record::{Port, Protocol, Record, RecordError, Status};
pub use view::{Instance, Service, ServiceSettings, View};
