//! The resolvers that applications have, with a sidecar as their only nameserver: what programs get when they look names up as they
//! always do, with a search list as Kubernetes writes it.
//!
//! ```text
//! glibc, musl, Python, Node, dig ─► /etc/resolv.conf ─► 127.0.0.1:53, rollcall ─┬► registry
//!                                                                               └► Knot DNS: every other name there is
//! ```
//!
//! All of it runs in network and mount namespaces that each test makes.

mod dig;
mod glibc;
mod musl;
mod node;
mod pod;
mod python;
