//! A whole member without I/O.
