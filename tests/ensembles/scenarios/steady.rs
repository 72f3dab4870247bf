//! Nothing happens: what the load and the checkers say of a healthy ensemble.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{APACHE, APACHE_AND_TWO, OURS, OURS_AND_TWO};
use crate::cluster::{Profile, go_on_for};
use crate::history::Record;
use crate::load::{LOAD_W, Workload};
use crate::member::Kind;
use crate::run::{Run, expired};

fn run(kinds: &[Kind]) {
    let mut run = Run::start("steady", kinds, Profile::PATIENT);
    run.cluster.make_last_lead();
    let load = run.load(Workload { registrants: 10, ..LOAD_W });
    load.wait_for_registrants(10, Duration::from_secs(60));
    go_on_for(Duration::from_secs(5));
    let history = run.finish(load);
    assert_eq!(expired(&history), 0);
    // The checkers demand that digests of one zxid are equal: here are some, of all members.
    let mut told: BTreeMap<i64, BTreeSet<&str>> = BTreeMap::new();
    for record in &history.records {
        if let Record::Digest { server, zxid, .. } = record {
            told.entry(*zxid).or_default().insert(server);
        }
    }
    assert!(told.values().any(|servers| servers.len() == kinds.len()), "nothing was compared: {told:?}");
}

#[test]
fn a_healthy_ensemble_of_ours_keeps_every_promise() {
    run(&OURS);
}

#[test]
fn a_healthy_mixed_ensemble_keeps_every_promise_under_our_leader() {
    run(&OURS_AND_TWO);
}

#[test]
fn a_healthy_mixed_ensemble_keeps_every_promise_under_apaches_leader() {
    run(&APACHE_AND_TWO);
}

/// The load asks for nothing that Apache does not do.
#[test]
fn a_healthy_apache_ensemble_keeps_every_promise() {
    run(&APACHE);
}
