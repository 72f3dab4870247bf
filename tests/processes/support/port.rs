//! Ports that stay ours while a server is down.

use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// A port of loopback that was free for TCP and UDP, reserved among the tests of this machine until dropped.
///
/// It lies below the range that the kernel hands to outgoing connections, so that a server that was killed gets
/// it back.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    /// Locked while we live; the lock goes with the process.
    _reservation: File,
}

impl Port {
    /// Reserves a free port.
    pub(crate) fn free() -> Self {
        let folder = std::env::temp_dir().join("rollcall-test-ports");
        std::fs::create_dir_all(&folder).expect("the folder of reservations can be made");
        let first = spread(std::process::id());
        for step in 0..2_000_u16 {
            let number = FIRST + (first + step) % COUNT;
            let reservation =
                File::create(folder.join(number.to_string())).expect("a reservation can be written");
            let is_ours = flock(&reservation, FlockOperation::NonBlockingLockExclusive).is_ok();
            if is_ours && is_free(number) {
                return Self { number, _reservation: reservation };
            }
        }
        panic!("no port is free between {FIRST} and {}", FIRST + COUNT);
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

const FIRST: u16 = 10_000;
const COUNT: u16 = 9_000;

/// Spreads processes over the range.
fn spread(seed: u32) -> u16 {
    u16::try_from(seed.wrapping_mul(2_654_435_761) >> 16).expect("sixteen bits are left") % COUNT
}

fn is_free(number: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok()
        && UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).is_ok()
}
