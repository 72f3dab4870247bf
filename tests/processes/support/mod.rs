//! What the tests of this crate share: processes, ports, waiting, and small clients of our own.

pub(crate) mod dev;
pub(crate) mod dig;
pub(crate) mod dns;
pub(crate) mod fleet;
pub(crate) mod http;
pub(crate) mod knotd;
pub(crate) mod message;
pub(crate) mod namespace;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod proxied;
pub(crate) mod raw_client;
pub(crate) mod server;
pub(crate) mod sidecar;
pub(crate) mod trio;
pub(crate) mod wait;
pub(crate) mod web_server;

pub(crate) use dev::Dev;
pub(crate) use dig::{Dig, dig, dig_with};
pub(crate) use fleet::{Fleet, Instance};
pub(crate) use knotd::{KnotZone, start_knot};
pub(crate) use namespace::Namespace;
pub(crate) use port::Port;
pub(crate) use process::Process;
pub(crate) use raw_client::RawClient;
pub(crate) use server::{Kind, Server};
pub(crate) use sidecar::Sidecar;
pub(crate) use trio::Trio;
pub(crate) use wait::{wait_for, wait_until};
pub(crate) use web_server::WebServer;

/// A file that users copy, with the addresses and intervals of a test instead of those that stand there.
///
/// # Panics
///
/// When it has one of them nowhere.
pub(crate) fn adapted(text: &str, changes: &[(&str, String)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (written, ours)| {
        assert!(text.contains(written), "{written} is nowhere in\n{text}");
        text.replace(written, ours)
    })
}
