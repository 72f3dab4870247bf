//! One token that stops everything.
