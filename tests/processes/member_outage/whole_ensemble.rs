//! All three members are gone at once, for minutes in the full form, and the sidecar itself is killed within.

use std::thread;
use std::time::Duration;

use super::samples::{Ages, Sampler};
use super::{EXPIRY, INSTANCES, LIMIT, answers, is_fresh, start_sidecar};
use crate::support::{Trio, WebServer, wait_until};

#[test]
fn answers_go_on_while_all_members_are_gone_and_after_a_kill_of_the_sidecar_meanwhile() {
    // Sessions live for 4 s: in both forms all of them have expired.
    let is_full = std::env::var_os("ROLLCALL_FULL").is_some_and(|value| value == "1");
    let half = Duration::from_secs(if is_full { 90 } else { 6 });
    let web = WebServer::start_on("127.0.0.1");
    let mut ensemble = Trio::start();
    let mut sidecar = start_sidecar(&ensemble.addresses(), &web);
    wait_until("the sidecar answers", LIMIT, || answers(&sidecar) == INSTANCES);
    let view = sidecar.state_dir().join("view");
    let has_instance = || std::fs::read_to_string(&view).is_ok_and(|text| text.contains("\"id\":\"one\""));
    wait_until("the view is saved", LIMIT, has_instance);

    let sampler = Sampler::start(&sidecar);
    ensemble.kill();
    thread::sleep(half);
    let samples = sampler.stop();
    samples.expect_no_gap();

    sidecar.restart();
    let restarted = wait_until("it answers again", LIMIT, || answers(&sidecar) == INSTANCES);
    let (sampler, ages) = (Sampler::start(&sidecar), Ages::start(sidecar.http.number()));
    thread::sleep(half);
    ensemble.restart();
    let current = wait_until("its view is current again", LIMIT, || is_fresh(&sidecar));
    // What was left of the session before must not take anything away when it expires.
    thread::sleep(EXPIRY);
    let (others, oldest) = (sampler.stop(), ages.stop());
    eprintln!(
        "{samples}; it answered {restarted:?} after it was started again; {others}, the oldest from a view of {oldest:?} ago, which was \
         current {current:?} after the ensemble was back"
    );
    others.expect_no_gap();
    assert!(samples.stale > 0 && others.stale > 0, "it is told that answers may be behind");
    assert!(oldest > half * 2 * 9 / 10, "the view is as old as the outage, whoever has saved it: {oldest:?}");
    wait_until("the view is current", LIMIT, || is_fresh(&sidecar));
}
