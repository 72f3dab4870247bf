//! The built program as its users meet it: processes, sockets, signals, and peers that are not ours.
//!
//! One test crate, so that it is linked once. A peer that is missing fails the test that needs it, with the
//! names of the packages to install; `tests/run` installs them.

#[path = "../common/apache.rs"]
mod apache;
#[path = "../common/resolver.rs"]
mod resolver;
mod support;

mod abuse;
mod adopted;
mod all_addresses;
mod apache_command_line;
mod bad_frames;
mod bad_questions;
mod bench;
mod bench_dns;
mod data_directories;
mod dev;
mod drain_barrier;
mod failback;
mod forwarding;
mod greedy_clients;
mod haproxy;
mod kazoo;
mod kill_under_load;
mod knot;
mod log_directory;
mod lookups;
mod mass_expiry;
mod member_outage;
mod nginx;
mod on_demand;
mod prometheus;
mod resident;
mod resolvers;
mod rust_client;
mod same_answers;
mod settings;
mod state_directory;
mod swarm;
mod takeover;
