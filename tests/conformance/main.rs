//! The DNS server held against the RFCs, clause by clause: raw octets in, octets out, over its real listeners.
//!
//! ```text
//! query: octets ─► client ─► UDP, TCP listeners ─► handler ─► view of registry
//!                     └────► message: decoded here, and its layout checked
//! ```
//!
//! Each test has the name of its section. Neither side of it uses the DNS library that the server uses, so that they cannot share a
//! mistake. Where the project has decided otherwise than an RFC recommends, the test says so.

#[path = "../common/resolver.rs"]
mod resolver;

mod client;
mod cookies;
mod edns;
mod extended_errors;
mod header;
mod message;
mod names;
mod negative;
mod query;
mod question;
mod registry;
mod shares;
mod size;
mod srv;
mod stream;
mod world;
