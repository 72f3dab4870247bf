//! TLS between members, both sides with certificates, with Apache's own among them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{APACHE_AND_ONE, OURS, OURS_AND_ONE};
use crate::cluster::Profile;
use crate::load::{LOAD_W, Workload};
use crate::member::Kind;
use crate::run::{Run, expired};

const PATIENCE: Duration = Duration::from_secs(30);
const REGISTRANTS: usize = 10;

/// Kills the leader, and a follower after it, while clients hold registrations; and strangers knock in vain.
pub(super) fn kill_members(kinds: &[Kind]) {
    let mut run = Run::start("tls", kinds, Profile { is_encrypted: true, ..Profile::DEFAULT });
    let load = run.load(Workload { registrants: REGISTRANTS, ..LOAD_W });
    load.wait_for_registrants(REGISTRANTS, PATIENCE);
    for member in &run.cluster.members {
        member.peer_addresses().into_iter().for_each(assert_is_closed_to_strangers);
    }
    load.wait_for_writes(50, PATIENCE);
    for step in [0, 1] {
        let index = (run.cluster.wait_until_all_serve() + step) % kinds.len();
        run.cluster.kill(index);
        load.wait_for_writes(50, PATIENCE);
        run.cluster.restart(index);
        run.cluster.wait_until_all_serve();
    }
    let history = run.finish(load);
    assert_eq!(expired(&history), 0, "sessions were lost");
}

/// Who speaks in the clear is not answered, and let go.
fn assert_is_closed_to_strangers(address: SocketAddr) {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) else {
        // Only a leader listens for learners.
        return;
    };
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    // As an election connection of protocol version -65536 begins, which is nothing of TLS.
    let sent = stream.write_all(&(-65_536_i64).to_be_bytes()).and_then(|()| stream.write_all(&[0; 64]));
    let mut answer = Vec::new();
    match sent.and_then(|()| stream.read_to_end(&mut answer)) {
        // At most an alert (RFC 8446 section 6): its type is 21.
        Ok(_) => assert!(answer.is_empty() || answer[0] == 21, "{address} answers {answer:?}"),
        // What was sent first is refused by then, or only what is sent next.
        Err(error) => {
            assert!(
                matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                "{address}: {error}"
            );
        }
    }
}

#[test]
fn members_with_certificates_lose_nothing_and_strangers_are_let_go() {
    kill_members(&OURS);
}

#[test]
fn ours_lead_one_of_apaches_over_tls() {
    kill_members(&OURS_AND_ONE);
}

#[test]
fn apaches_leads_one_of_ours_over_tls() {
    kill_members(&APACHE_AND_ONE);
}
