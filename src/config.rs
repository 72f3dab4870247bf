//! Settings files: reading, checking, reporting.
