//! What one session received, in order.

use std::collections::BTreeMap;

use super::model::Model;
use crate::history::{Event, Operation, Reply};

/// A frame that a session received.
#[derive(Clone, Copy, Debug)]
pub(super) enum Received<'a> {
    Reply(&'a Operation, &'a Reply),
    Event(&'a Event),
}

impl<'a> Received<'a> {
    pub(super) fn order(self) -> u64 {
        match self {
            Self::Reply(_, reply) => reply.order,
            Self::Event(event) => event.order,
        }
    }

    /// The header's zxid, where it says one.
    pub(super) fn zxid(self) -> Option<i64> {
        let zxid = match self {
            Self::Reply(_, reply) => reply.zxid,
            Self::Event(event) => event.zxid,
        };
        Some(zxid).filter(|zxid| *zxid > 0)
    }
}

/// What each session received.
pub(super) fn timelines<'a>(model: &Model<'a>) -> BTreeMap<i64, Vec<Received<'a>>> {
    let mut sessions: BTreeMap<i64, Vec<Received<'a>>> = BTreeMap::new();
    for operation in &model.operations {
        if let Some(reply) = &operation.reply {
            sessions.entry(operation.session).or_default().push(Received::Reply(operation, reply));
        }
    }
    for event in &model.events {
        sessions.entry(event.session).or_default().push(Received::Event(event));
    }
    for received in sessions.values_mut() {
        received.sort_by_key(|item| item.order());
    }
    sessions
}
