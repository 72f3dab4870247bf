//! What an explanation says over HTTP. Pure.
//!
//! `GET /api/v1/explain/{namespace}/{service}`:
//!
//! ```json
//! {"namespace":"default","name":"web","zxid":"0x1","age_ms":12,"stale":false,"min_healthy":1,
//!  "tiers":[{"priority":0,"instances":2,"up":1,"chosen":true}],
//!  "instances":[{"id":"web-1","offered":true,"reason":"up, in the tier that is offered","share":1.0,"standing":"registered",
//!                "status":"up","priority":0,"effective_priority":0,"weight":1,"zone":null,"owner":"9f…","incarnation":"c2…",
//!                "registered_at_ms":1764115200000,"mzxid":"0x1","session":"0x1"}],
//!  "unreadable":[{"id":"web-2","reason":"not an instance record","mzxid":"0x2","session":"0x1"}]}
//! ```
//!
//! What is unreadable are znodes in the place of instances that are no records, or that the server does not let us read, which then have neither
//! `mzxid` nor `session`; what was understood of them before still counts. Of a service that is looked back at none are known.
//! With `?at=` there is `at_ms`, ms since 1970, and no age. `share` is the part of this zone's lookups in which the instance stands
//! first, from 0 to 1. `standing` is `registered`, or, when the record has vanished, `limbo`, `suspect` or `silent`. The priority of the
//! tier of those who are silent is 65536, below all others.

use serde::Serialize;

use super::lookup::{Freshness, to_json};
use crate::registry::explain::{Tier, Verdict, explain, reason};
use crate::registry::{Instance, Label, Service, Standing, Status, Unreadable};

/// One service, and why each instance is offered or not; `at_ms` when that is how it was then.
pub fn explanation(service: &Service, freshness: Freshness, at_ms: Option<i64>) -> Vec<u8> {
    let explanation = explain(service);
    to_json(&ExplanationBody {
        namespace: &service.key.namespace,
        name: &service.key.name,
        zxid: service.zxid.to_string(),
        at_ms,
        age_ms: freshness.age_ms(),
        stale: freshness.is_stale,
        min_healthy: service.settings.min_healthy,
        tiers: explanation.tiers.iter().map(TierBody::of).collect(),
        instances: explanation
            .instances
            .iter()
            .zip(&explanation.shares)
            .map(|((it, verdict), share)| InstanceBody::of(it, *verdict, *share))
            .map(|body| body.with_unreadable(service))
            .collect(),
        unreadable: service.unreadable.iter().map(UnreadableBody::of).collect(),
    })
}

#[derive(Serialize)]
struct ExplanationBody<'a> {
    namespace: &'a Label,
    name: &'a Label,
    zxid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_ms: Option<i64>,
    age_ms: Option<u64>,
    stale: bool,
    min_healthy: u32,
    tiers: Vec<TierBody>,
    instances: Vec<InstanceBody<'a>>,
    unreadable: Vec<UnreadableBody<'a>>,
}

#[derive(Serialize)]
struct TierBody {
    priority: u32,
    instances: usize,
    up: usize,
    chosen: bool,
}

#[derive(Serialize)]
struct InstanceBody<'a> {
    id: &'a Label,
    offered: bool,
    reason: String,
    share: f64,
    standing: Standing,
    status: Status,
    priority: u16,
    effective_priority: u16,
    weight: u16,
    zone: Option<&'a str>,
    owner: &'a str,
    incarnation: &'a str,
    registered_at_ms: i64,
    mzxid: String,
    session: String,
}

#[derive(Serialize)]
struct UnreadableBody<'a> {
    id: &'a Label,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mzxid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
}

impl<'a> UnreadableBody<'a> {
    fn of((id, unreadable): (&'a Label, &'a Unreadable)) -> Self {
        let Unreadable { reason, written } = unreadable;
        let (mzxid, session) =
            written.map(|(mzxid, session)| (mzxid.to_string(), session.to_string())).unzip();
        Self { id, reason, mzxid, session }
    }
}

impl TierBody {
    fn of(tier: &Tier) -> Self {
        let Tier { priority, instances, up, is_chosen } = *tier;
        Self { priority, instances, up, chosen: is_chosen }
    }
}

impl<'a> InstanceBody<'a> {
    fn with_unreadable(mut self, service: &Service) -> Self {
        if service.unreadable.contains_key(self.id) {
            self.reason.push_str("; its znode is unreadable now, and what it said before counts");
        }
        self
    }

    fn of(instance: &'a Instance, verdict: Verdict, share: f64) -> Self {
        let record = &instance.record;
        Self {
            id: &instance.id,
            offered: verdict.is_offered(),
            reason: reason(instance, verdict),
            share,
            standing: instance.standing,
            status: record.status,
            priority: record.priority,
            effective_priority: record.effective_priority(),
            weight: record.weight,
            zone: record.zone.as_deref(),
            owner: &record.owner,
            incarnation: &record.incarnation,
            registered_at_ms: record.registered_at_ms,
            mzxid: instance.mzxid.to_string(),
            session: instance.session.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::sample;
    use crate::id::{SessionId, Zxid};

    #[test]
    fn every_instance_is_told_with_its_reason_and_its_origin() {
        let view = sample::view();
        let mut web = view.services.values().next().unwrap().clone();
        let unreadable = Unreadable::new("not an instance record", Some((Zxid::from_raw(9), SessionId(1))));
        let id = web.instances[1].id.clone();
        std::sync::Arc::make_mut(&mut web).unreadable.insert(id.clone(), unreadable);
        let fresh = Freshness { age: None, is_stale: true };
        let body: serde_json::Value = serde_json::from_slice(&explanation(&web, fresh, None)).unwrap();
        assert_eq!(
            body["tiers"],
            serde_json::json!([{"priority": 0, "instances": 2, "up": 1, "chosen": true},
                               {"priority": 9, "instances": 1, "up": 1, "chosen": false}])
        );
        let reasons: Vec<_> = body["instances"].as_array().unwrap().iter().map(|it| &it["reason"]).collect();
        assert_eq!(
            reasons,
            [
                "up, in the tier that is offered",
                "it is leaving; its znode is unreadable now, and what it said before counts",
                "up, but tier 0 is offered"
            ]
        );
        assert_eq!(
            body["unreadable"],
            serde_json::json!([{"id": id, "reason": "not an instance record", "mzxid": "0x9", "session": "0x1"}])
        );
        assert_eq!((&body["stale"], &body["age_ms"]), (&true.into(), &serde_json::Value::Null));
        assert!(body["instances"][0]["mzxid"].is_string() && body["instances"][0]["owner"].is_string());
    }
}
