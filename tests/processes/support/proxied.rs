//! What a reverse proxy that finds the instances of a fleet by DNS does as these come and go.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Fleet, Sidecar, dig, http, wait_until};

/// Ten times and more what any of the steps takes: a check, a TTL, and the proxy's own interval.
const LIMIT: Duration = Duration::from_secs(60);
/// One of two instances that are drawn alike answers none of so many in one round of 128.
const REQUESTS: usize = 8;

/// Leads `fleet`, of which one instance is there, through all that may happen to it, and demands that the requests sent to the
/// proxy on each of `ports`, which asks `reader`, go where they should, and that none of them fails while an instance can be had.
pub(crate) fn follow(fleet: &mut Fleet, reader: &Sidecar, ports: &[u16]) {
    let is_alone = |port: &u16| serving(*port) == Ok(names(&["127.0.0.1"]));
    wait_until("the first instance appears", LIMIT, || ports.iter().all(is_alone));
    let addresses_of =
        |name: &str| dig(reader.dns.number(), &[&format!("{name}.default.rollcall.internal")]).answers("A");
    let expect = |what: &str, wanted: &[&str]| {
        let took = wait_until(what, LIMIT, || {
            ports.iter().all(|port| {
                let answered = serving(*port);
                answered.unwrap_or_else(|error| panic!("a request failed, until {what}: {error}"))
                    == names(wanted)
            })
        });
        eprintln!("{what}: {took:?}");
    };

    fleet.grow("two", "127.0.0.2", "weight: 768");
    fleet.grow("three", "127.0.0.3", "priority: 10");
    wait_until("the standby is there", LIMIT, || addresses_of("standby.web") == ["127.0.0.3"]);
    expect("a second primary appears, and the standby waits", &["127.0.0.1", "127.0.0.2"]);

    fleet.instances[0].tell(&["drain"]);
    expect("one that drains gets nothing any more", &["127.0.0.2"]);

    // The server goes on answering, so that it is the check alone that tells.
    fleet.instances[1].web.fall_ill();
    expect("the standby takes over when the check of the last primary fails", &["127.0.0.3"]);
    fleet.instances[1].web.recover();
    expect("the primary is back", &["127.0.0.2"]);

    fleet.instances[0].tell(&["drain", "--undo"]);
    expect("one that drains no more serves again", &["127.0.0.1", "127.0.0.2"]);
    // Nobody says so: its connections are refused until its check has failed.
    fleet.instances[0].web.kill();
    expect("one whose server has died is passed over", &["127.0.0.2"]);
    wait_until("its check has failed", LIMIT, || addresses_of("web") == ["127.0.0.2"]);
    fleet.instances[0].web.restart();
    expect("one whose server is back serves again", &["127.0.0.1", "127.0.0.2"]);

    fleet.instances[1].leave();
    expect("one that leaves gets nothing any more", &["127.0.0.1"]);
    fleet.instances[0].tell(&["maintenance", "on"]);
    expect("the standby stands in for the last primary", &["127.0.0.3"]);
    fleet.instances[2].leave();
    wait_until("nobody is left", LIMIT, || ports.iter().all(|port| serving(*port).is_err()));
    fleet.instances[0].tell(&["maintenance", "off"]);
    wait_until("the first is back", LIMIT, || ports.iter().all(is_alone));
}

/// Who answers requests that are sent through the proxy.
///
/// # Errors
///
/// When one is not answered with success.
pub(crate) fn serving(port: u16) -> Result<BTreeSet<String>, String> {
    (0..REQUESTS).map(|_| served_by(port)).collect()
}

/// Who answers a request.
pub(crate) fn served_by(port: u16) -> Result<String, String> {
    let answer = http::get(port, "/name").map_err(|error| error.to_string())?;
    if answer.status == 200 { Ok(answer.body) } else { Err(format!("{}: {}", answer.status, answer.body)) }
}

fn names(hosts: &[&str]) -> BTreeSet<String> {
    hosts.iter().map(|host| (*host).to_owned()).collect()
}
