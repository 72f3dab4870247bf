//! An answer that has to be waited for, and what it waits for.

use std::time::Instant;

use super::answer::Answer;
use super::forward::Pending;
use super::original::Original;
use crate::registry::Held;

/// An answer that has to be waited for.
#[derive(Debug)]
pub struct Later {
    pub(super) awaited: Awaited,
    pub(super) begun: Instant,
}

/// What an answer waits for.
#[derive(Debug)]
pub(super) enum Awaited {
    /// A service's instances, which are being read; with what upstreams have said, if that leads to it.
    Held(Held, Option<Box<Told>>),
    /// Upstreams, which are being asked.
    Forwarded(Box<Forwarded>),
}

/// A query that upstreams are asked, and the answer to it but for what they say.
#[derive(Debug)]
pub(super) struct Forwarded {
    pub(super) pending: Pending,
    pub(super) asked: Original,
}

/// What upstreams have said to a query.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) asked: Original,
    pub(super) answer: Answer,
}

/// What was waited for.
#[derive(Debug)]
pub struct Ready {
    pub(super) told: Option<Box<Told>>,
    pub(super) was_held: bool,
    pub(super) begun: Instant,
}

impl Later {
    /// Waits, a bounded time.
    pub async fn ready(self) -> Ready {
        let Self { awaited, begun } = self;
        match awaited {
            Awaited::Held(held, told) => {
                held.ready().await;
                Ready { told, was_held: true, begun }
            }
            Awaited::Forwarded(forwarded) => {
                let Forwarded { pending, asked } = *forwarded;
                let answer = pending.answer().await;
                Ready { told: Some(Box::new(Told { asked, answer })), was_held: false, begun }
            }
        }
    }
}
