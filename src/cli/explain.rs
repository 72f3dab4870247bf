//! `rollcall explain`.

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;

use super::arguments::ExplainArguments;
use super::failure::Failure;
use super::lookup::{decode, freshness, never_heard_of, print_json, refused};
use super::output::{Format, print, printable, table};
use super::sidecar_client::{SidecarClient, percent_encoded};
use crate::config::timestamp;
use crate::registry::LAST_RESORT;

/// `GET /api/v1/explain/{namespace}/{service}`.
#[derive(Debug, Deserialize)]
struct ExplanationBody {
    #[serde(default)]
    at_ms: Option<i64>,
    age_ms: Option<u64>,
    stale: bool,
    min_healthy: u32,
    tiers: Vec<TierBody>,
    instances: Vec<InstanceBody>,
    /// An older sidecar tells of none.
    #[serde(default)]
    unreadable: Vec<UnreadableBody>,
}

#[derive(Debug, Deserialize)]
struct UnreadableBody {
    id: String,
    reason: String,
    mzxid: Option<String>,
    session: Option<String>,
}

#[derive(Debug, Deserialize)]
struct TierBody {
    priority: u32,
    instances: usize,
    up: usize,
    chosen: bool,
}

#[derive(Debug, Deserialize)]
struct InstanceBody {
    id: String,
    offered: bool,
    reason: String,
    share: f64,
    owner: String,
    registered_at_ms: i64,
    mzxid: String,
}

/// Tells why a lookup answers what it answers.
pub(super) async fn run(arguments: ExplainArguments) -> Result<(), Failure> {
    let ExplainArguments { lookup: arguments, at } = arguments;
    let client = SidecarClient::new(&arguments.sidecar.http_addr)?;
    let key = arguments.name.0;
    let query = at.as_ref().map_or_else(String::new, |at| format!("?at={}", percent_encoded(at)));
    let path = format!("/api/v1/explain/{}/{}{query}", key.namespace, key.name);
    let answer = client.get(&path, None, Duration::ZERO).await?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND if answer.refusal().is_some() && at.is_none() => {
            return Err(never_heard_of(&client, &key));
        }
        _ => return Err(refused(&client, &answer)),
    }
    match arguments.output.output {
        Format::Json => print_json(&client, &answer),
        Format::Table => {
            let body: ExplanationBody = decode(&client, &answer)?;
            let fresh = match body.at_ms {
                None => freshness(body.age_ms, body.stale),
                Some(at_ms) if body.stale => {
                    format!("as of {}, when the view was stale", timestamp::text(at_ms))
                }
                Some(at_ms) => format!("as of {}", timestamp::text(at_ms)),
            };
            print(&format!("{}\n{}\n{}{key}: {fresh}", tiers(&body), instances(&body), unreadable(&body)))
        }
    }
}

fn tiers(body: &ExplanationBody) -> String {
    let lines = body.tiers.iter().map(|tier| {
        let (mark, reason) = match (tier.chosen, tier.up >= body.min_healthy.max(1) as usize) {
            (true, true) => ("*", "the first with enough"),
            (true, false) => ("*", "none has enough, and this has the most"),
            (false, true) => ("", "a tier before it is offered"),
            (false, false) => ("", "not enough"),
        };
        let up = format!("{} of {}", tier.up, tier.instances);
        let priority =
            if tier.priority == LAST_RESORT { "last resort".to_owned() } else { tier.priority.to_string() };
        vec![mark.to_owned(), priority, up, reason.to_owned()]
    });
    let needed = format!("UP (NEEDS {})", body.min_healthy.max(1));
    table(&["", "TIER", &needed, "WHY"], lines.collect())
}

/// Nothing, or lines.
fn unreadable(body: &ExplanationBody) -> String {
    let lines = body.unreadable.iter().map(|it| {
        let or_dash = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), printable);
        vec![printable(&it.id), printable(&it.reason), or_dash(&it.session), or_dash(&it.mzxid)]
    });
    let lines: Vec<_> = lines.collect();
    if lines.is_empty() {
        return String::new();
    }
    format!("{}\n", table(&["UNREADABLE", "WHY", "SESSION", "ZXID"], lines))
}

fn instances(body: &ExplanationBody) -> String {
    let lines = body.instances.iter().map(|it| {
        vec![
            if it.offered { "*" } else { "" }.to_owned(),
            printable(&it.id),
            if it.offered { format!("{:.1} %", it.share * 100.0) } else { String::new() },
            printable(&it.reason),
            printable(&it.owner),
            // A record need not say.
            if it.registered_at_ms == 0 { "-".to_owned() } else { timestamp::text(it.registered_at_ms) },
            printable(&it.mzxid),
        ]
    });
    table(&["", "ID", "SHARE", "WHY", "OWNER", "REGISTERED", "ZXID"], lines.collect())
}
