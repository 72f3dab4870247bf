//! Sessions that ask for far more than they read: what waits for them is memory of the member, which must stay bounded.

use std::time::Duration;

use rollcall::clock;

use crate::support::process::resident_kb;
use crate::support::raw_client::{int, text};
use crate::support::{Dev, RawClient, wait_until};

const GET_DATA: i32 = 4;
const SESSIONS: usize = 16;
const REQUESTS: i32 = 200;
const DATA_BYTES: usize = 1_000_000;
/// What may wait for all clients, what is on its way there, and the rest of the process.
const RESIDENT_MAX_KB: u64 = 350 * 1024;
/// Once nobody asks any more.
const RESIDENT_AFTER_KB: u64 = 100 * 1024;
/// glibc's allocator takes long blocks of any length from its heap once one was freed, where those that live keep the freed ones
/// between them resident: up to half as much again was seen. What the member holds shows if it gives such blocks back.
const KEEPS_NOTHING: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=131072");

#[test]
fn memory_stays_bounded_and_others_are_served_while_sessions_do_not_read() {
    let mut dev = Dev::start_with_environment(&[KEEPS_NOTHING]);
    let mut canary = dev.connect();
    canary.create("/long", Some(&vec![b'x'; DATA_BYTES]), 0).expect("it is created");
    let mut greedy: Vec<_> = (0..SESSIONS).map(|_| dev.connect()).collect();
    // 3.2 GB of replies, if they were all made.
    let body = [text("/long"), vec![0]].concat();
    for client in &mut greedy {
        for xid in 1..=REQUESTS {
            // One that is closed meanwhile cannot ask any more.
            let _closed = client.send_frame(&[&int(xid), &int(GET_DATA), &body[..]].concat());
        }
    }
    let (began, mut most) = (clock::now(), 0);
    while began.elapsed() < Duration::from_secs(3) {
        canary.ping().expect("the canary is served");
        assert_eq!(canary.get("/long").expect("it is read").map(|data| data.len()), Some(DATA_BYTES));
        most = most.max(resident_kb(dev.process().id()));
    }
    assert!(most < RESIDENT_MAX_KB, "{most} KB were resident");
    assert!(dev.log().contains("closing the connection with the most"), "{}", dev.log());
    // Whoever does read gets all that he asked for, even if it is much.
    let mut reader = RawClient::connect(&dev.client.address(), 10_000).expect("a session");
    for xid in 1..=20 {
        reader.send_frame(&[&int(xid), &int(GET_DATA), &body[..]].concat()).expect("it is sent");
    }
    for _ in 1..=20 {
        assert!(reader.receive_frame().expect("a reply").len() > DATA_BYTES);
    }
    drop(greedy);
    wait_until("what waited is free again", Duration::from_secs(20), || {
        resident_kb(dev.process().id()) < RESIDENT_AFTER_KB
    });
}
