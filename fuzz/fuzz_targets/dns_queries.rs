//! Packets from clients: the first byte says over what, the rest is one packet.
#![no_main]

mod dns;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rollcall::dns::{Handler, Transport};

static HANDLER: LazyLock<Handler> = LazyLock::new(dns::handler);

fuzz_target!(|data: &[u8]| {
    let Some((first, packet)) = data.split_first() else { return };
    let transport = if first & 1 == 0 { Transport::Udp } else { Transport::Tcp };
    // Again, since it may have been kept.
    let answers = [0, 1, 2].map(|_| dns::answer(&HANDLER, packet, transport));
    // How many records fit depends on who is drawn; what is said of them does not.
    let heads = answers.map(|answer| answer.map(|octets| octets[..4].to_vec()));
    assert!(heads.iter().all(|head| *head == heads[0]), "what was kept differs: {heads:?}");
});
