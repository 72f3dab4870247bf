//! ZooKeeper's client protocol: what stands in the frames between a client and a server.
//!
//! ```text
//! client ── ConnectRequest ──────────────► server
//!        ◄─ ConnectResponse ──────────────
//!        ── RequestHeader + Request ─────►        (each a length-prefixed frame)
//!        ◄─ ReplyHeader + Response ───────
//!        ◄─ ReplyHeader(-1) + WatchedEvent
//! ```
//!
//! Both directions of every record are here, since the server and our own client share them. The bytes are
//! Apache ZooKeeper's 3.8 (`zookeeper.jute`); what requests do is the business of `replica`.

mod connect;
mod frame;
mod request;
mod response;

pub use connect::{ConnectRequest, ConnectResponse};
pub use frame::{FRAME_BYTES_MAX, FrameError, split_frame, write_frame};
pub use request::{CreateRequest, MultiOp, Request, RequestHeader, SetWatches};
pub use response::{OpResult, ReplyHeader, Response};
