//! What lookups are told while instances fail, come back and leave, in virtual time: real sidecars without their sockets, on a real
//! replica without its sockets and disk.
//!
//! ```text
//! application ──► ttl check ──► registrar ──► client ══ line ══► member (replica)
//!                                                                  │ watch events
//! Record ◄── selection, DNS, HTTP ◄── cache ◄── mirror ◄── client ══ line
//! ```
//!
//! All of it runs on one thread whose clock is paused: time stands still while anything is to be done, and then jumps to the next
//! timer. A bound in ms is therefore exact, and an hour takes seconds. Lines are pipes in memory, since time would jump over bytes
//! that are under way in the kernel.

mod application;
mod bursts;
mod carried;
mod expectation;
mod failback;
mod line;
mod member;
mod record;
mod repairs;
mod sessions;
mod sidecar;
mod told;
mod withheld;
mod world;
