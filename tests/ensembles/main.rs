//! Ensembles of real processes, ours and Apache ZooKeeper's, and what their clients may rely on while members die,
//! stop and come back.

mod certificates;
mod checkers;
mod client;
mod cluster;
mod disk;
mod dump;
mod history;
mod links;
mod load;
mod member;
#[expect(dead_code, reason = "its text form is of 127.0.0.1, and members have addresses of their own")]
#[path = "../processes/support/port.rs"]
mod port;
mod probe;
mod process;
mod recorder;
mod run;
mod scenarios;
mod slow_sync;
mod throttle;
#[path = "../processes/support/wait.rs"]
mod wait;
