//! What a rehearsal says over HTTP. Pure.
//!
//! `GET /api/v1/rehearse?lose=zone%3Da&lose=web/2`:
//!
//! ```json
//! {"age_ms":12,"stale":false,"losses":["zone=a","web.default/2"],
//!  "services":[{"namespace":"default","name":"web","lost":["web-1"],
//!    "now":    {"tier":0,"offered":[{"id":"web-1","weight":1,"share":0.5,"lost":true},…]},
//!    "expired":{…},"probed":{…},"settled":{…}}]}
//! ```
//!
//! `expired`: once the sessions of the lost have ended; `probed`: once who is looked up was probed; `settled`: in the end. `tier` is
//! `null` when there is nobody, and 65536 for the last resort; `share` the part of this zone's lookups in which the instance
//! stands first.

use serde::Serialize;

use super::lookup::{Freshness, to_json};
use crate::registry::Label;
use crate::registry::rehearse::{Answer, Loss, Offer, Rehearsal};

/// What would become of every service.
pub fn rehearsal(played: &[Rehearsal], losses: &[Loss], freshness: Freshness) -> Vec<u8> {
    to_json(&RehearsalBody {
        age_ms: freshness.age_ms(),
        stale: freshness.is_stale,
        losses: losses.iter().map(ToString::to_string).collect(),
        services: played.iter().map(ServiceBody::of).collect(),
    })
}

#[derive(Serialize)]
struct RehearsalBody<'a> {
    age_ms: Option<u64>,
    stale: bool,
    losses: Vec<String>,
    services: Vec<ServiceBody<'a>>,
}

#[derive(Serialize)]
struct ServiceBody<'a> {
    namespace: &'a Label,
    name: &'a Label,
    lost: Vec<&'a Label>,
    now: AnswerBody<'a>,
    expired: AnswerBody<'a>,
    probed: AnswerBody<'a>,
    settled: AnswerBody<'a>,
}

#[derive(Serialize)]
struct AnswerBody<'a> {
    tier: Option<u32>,
    offered: Vec<OfferBody<'a>>,
}

#[derive(Serialize)]
struct OfferBody<'a> {
    id: &'a Label,
    weight: u16,
    share: f64,
    lost: bool,
}

impl<'a> ServiceBody<'a> {
    fn of(played: &'a Rehearsal) -> Self {
        Self {
            namespace: &played.service.namespace,
            name: &played.service.name,
            lost: played.lost.iter().collect(),
            now: AnswerBody::of(&played.now),
            expired: AnswerBody::of(&played.expired),
            probed: AnswerBody::of(&played.probed),
            settled: AnswerBody::of(&played.settled),
        }
    }
}

impl<'a> AnswerBody<'a> {
    fn of(answer: &'a Answer) -> Self {
        let body = |Offer { id, weight, share, is_lost }: &'a Offer| {
            let (weight, share, lost) = (*weight, *share, *is_lost);
            OfferBody { id, weight, share, lost }
        };
        Self { tier: answer.tier, offered: answer.offered.iter().map(body).collect() }
    }
}
