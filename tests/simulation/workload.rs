//! What clients ask for: few znodes that all of them fight for, so that versions, sequences and watches matter.

use bytes::Bytes;
use fastrand::Rng;
use rollcall::wire::{CreateRequest, MultiOp, Request};
use rollcall::znode::CreateMode;

use crate::canon::Canon;
use crate::network::Site;

/// The next requests of a client, to be sent at once.
pub(crate) fn next(rng: &mut Rng, site: Site, names: &mut u32, canon: &Canon) -> Vec<Request> {
    *names += 1;
    let path = any_path(rng);
    let watch = rng.u8(0..3) == 0;
    let data = Bytes::from(format!("{site}.{names}{}", ".".repeat(rng.usize(0..60))));
    vec![match rng.u8(0..100) {
        0..22 => create(rng, path, data),
        22..42 => Request::SetData { version: version(rng, &path, canon), path, data: Some(data) },
        42..52 => Request::Delete { version: version(rng, &path, canon), path },
        52..58 => multi(rng, path, data),
        58..68 => Request::GetData { path, watch },
        68..76 => Request::Exists { path, watch },
        76..84 => Request::GetChildren2 { path, watch },
        84..98 => return vec![Request::Sync { path: path.clone() }, Request::GetData { path, watch }],
        98.. => {
            // Its end comes while it still writes.
            let create = CreateRequest::open(
                format!("/n{}/c{}", rng.u8(0..4), rng.u8(0..3)),
                data,
                CreateMode::Ephemeral,
            );
            return vec![Request::Create(create), Request::CloseSession];
        }
    }]
}

fn any_path(rng: &mut Rng) -> String {
    let top = rng.u8(0..4);
    if rng.bool() { format!("/n{top}") } else { format!("/n{top}/c{}", rng.u8(0..3)) }
}

fn create(rng: &mut Rng, path: String, data: Bytes) -> Request {
    let is_below = path.matches('/').count() > 1;
    match rng.u8(0..5) {
        0 if is_below => Request::Create2(CreateRequest::open(path, data, CreateMode::Ephemeral)),
        1 if is_below => {
            let path = format!("{path}-");
            Request::Create(CreateRequest::open(path, data, CreateMode::EphemeralSequential))
        }
        2 => {
            Request::Create2(CreateRequest::open(format!("{path}s"), data, CreateMode::PersistentSequential))
        }
        _ => Request::Create(CreateRequest::open(path, data, CreateMode::Persistent)),
    }
}

/// Any, or the one that there probably is.
fn version(rng: &mut Rng, path: &str, canon: &Canon) -> i32 {
    if rng.bool() { -1 } else { canon.tree.node(path).map_or(0, |node| node.stat().version) }
}

/// Operations of which all or none happen.
fn multi(rng: &mut Rng, path: String, data: Bytes) -> Request {
    let other = any_path(rng);
    let create = CreateRequest::open(format!("{path}m"), data.clone(), CreateMode::Ephemeral);
    Request::Multi(vec![
        MultiOp::Check { path: path.clone(), version: -1 },
        MultiOp::SetData { path, data: Some(data), version: -1 },
        if rng.bool() { MultiOp::Create(create) } else { MultiOp::Delete { path: other, version: -1 } },
    ])
}
