//! The JSON Schemas of the settings files.
//!
//! The program prints what is checked in, so that it need not carry what makes them; a test makes them anew from the types that
//! read the files, and compares.

use super::super::arguments::SchemaRole;

/// The schema of a role's file, in JSON.
pub(super) const fn text(role: SchemaRole) -> &'static str {
    match role {
        SchemaRole::Sidecar => include_str!("../../../config/schema/sidecar.json"),
        SchemaRole::Ensemble => include_str!("../../../config/schema/ensemble.json"),
        SchemaRole::Dev => include_str!("../../../config/schema/dev.json"),
    }
}

#[cfg(test)]
mod tests;
