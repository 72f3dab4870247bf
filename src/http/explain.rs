//! What an explanation says over HTTP. Pure.
//!
//! `GET /api/v1/explain/{namespace}/{service}`:
//!
//! ```json
//! {"namespace":"default","name":"web","zxid":"0x1","age_ms":12,"stale":false,"min_healthy":1,
//!  "tiers":[{"priority":0,"instances":2,"up":1,"chosen":true}],
//!  "instances":[{"id":"web-1","offered":true,"reason":"up, in the tier that is offered","share":1.0,"standing":"registered",
//!                "status":"up","priority":0,"effective_priority":0,"weight":1,"zone":null,"owner":"9f…","incarnation":"c2…",
//!                "registered_at_ms":1764115200000,"mzxid":"0x1","session":"0x1"}]}
//! ```
//!
//! With `?at=` there is `at_ms`, ms since 1970, and no age. `share` is the part of this zone's lookups in which the instance stands
//! first, from 0 to 1. `standing` is `registered`, or, when the record has vanished, `limbo`, `suspect` or `silent`. The priority of the
//! tier of those who are silent is 65536, below all others.

use serde::Serialize;

use super::lookup::{Freshness, to_json};
use crate::registry::explain::{Tier, Verdict, explain, reason};
use crate::registry::{Instance, Label, Service, Standing, Status};

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
            .collect(),
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

impl TierBody {
    fn of(tier: &Tier) -> Self {
        let Tier { priority, instances, up, is_chosen } = *tier;
        Self { priority, instances, up, chosen: is_chosen }
    }
}

impl<'a> InstanceBody<'a> {
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

    #[test]
    fn every_instance_is_told_with_its_reason_and_its_origin() {
        let view = sample::view();
        let (_, web) = view.services.first_key_value().unwrap();
        let fresh = Freshness { age: None, is_stale: true };
        let body: serde_json::Value = serde_json::from_slice(&explanation(web, fresh, None)).unwrap();
        assert_eq!(
            body["tiers"],
            serde_json::json!([{"priority": 0, "instances": 2, "up": 1, "chosen": true},
                               {"priority": 9, "instances": 1, "up": 1, "chosen": false}])
        );
        let reasons: Vec<_> = body["instances"].as_array().unwrap().iter().map(|it| &it["reason"]).collect();
        assert_eq!(
            reasons,
            ["up, in the tier that is offered", "it is leaving", "up, but tier 0 is offered"]
        );
        assert_eq!((&body["stale"], &body["age_ms"]), (&true.into(), &serde_json::Value::Null));
        assert!(body["instances"][0]["mzxid"].is_string() && body["instances"][0]["owner"].is_string());
    }
}
