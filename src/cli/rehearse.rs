//! `rollcall rehearse`.

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;

use super::arguments::RehearseArguments;
use super::failure::Failure;
use super::lookup::{decode, freshness, print_json, refused};
use super::output::{Format, print, printable, table};
use super::sidecar_client::{SidecarClient, percent_encoded};
use crate::registry::LAST_RESORT;

/// `GET /api/v1/rehearse`.
#[derive(Debug, Deserialize)]
struct RehearsalBody {
    age_ms: Option<u64>,
    stale: bool,
    losses: Vec<String>,
    services: Vec<ServiceBody>,
}

#[derive(Debug, Deserialize)]
struct ServiceBody {
    namespace: String,
    name: String,
    lost: Vec<String>,
    now: AnswerBody,
    expired: AnswerBody,
    probed: AnswerBody,
    settled: AnswerBody,
}

#[derive(Debug, PartialEq, Deserialize)]
struct AnswerBody {
    tier: Option<u32>,
    offered: Vec<OfferBody>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct OfferBody {
    id: String,
    share: f64,
    lost: bool,
}

/// Who is named of those that are offered.
const NAMED_MAX: usize = 8;

/// Plays a loss on the sidecar's present view.
pub(super) async fn run(arguments: RehearseArguments) -> Result<(), Failure> {
    let client = SidecarClient::new(&arguments.sidecar.http_addr)?;
    let losses = arguments.lose.iter().map(|loss| format!("lose={}", percent_encoded(&loss.to_string())));
    let path = format!("/api/v1/rehearse?{}", losses.collect::<Vec<_>>().join("&"));
    let answer = client.get(&path, None, Duration::ZERO).await?;
    if answer.status != StatusCode::OK {
        return Err(refused(&client, &answer));
    }
    match arguments.output.output {
        Format::Json => print_json(&client, &answer),
        Format::Table => {
            let body: RehearsalBody = decode(&client, &answer)?;
            print(&text(&body))
        }
    }
}

fn text(body: &RehearsalBody) -> String {
    let touched: Vec<_> = body.services.iter().filter(|service| service.is_touched()).collect();
    let rows = touched.iter().flat_map(|service| service.rows()).collect();
    let untouched = body.services.len() - touched.len();
    let fresh = freshness(body.age_ms, body.stale);
    let losses: Vec<_> = body.losses.iter().map(|loss| printable(loss)).collect();
    let mut text = String::new();
    if !touched.is_empty() {
        text = format!("{}\n", table(&["SERVICE", "WHEN", "TIER", "OFFERED", "WHO"], rows));
    }
    if body.losses.iter().any(|loss| loss == "ensemble") {
        text += "without the ensemble nobody hears of a loss: what is answered stays as it is\n";
    }
    let untouched = match untouched {
        1 => "1 service is not touched".to_owned(),
        untouched => format!("{untouched} services are not touched"),
    };
    text + &format!("without {}: {untouched}; {fresh}", losses.join(", "))
}

impl ServiceBody {
    fn is_touched(&self) -> bool {
        !self.lost.is_empty() || self.now != self.settled
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let stages = [
            ("now", &self.now),
            ("when their sessions have expired", &self.expired),
            ("when they were probed", &self.probed),
            ("in the end", &self.settled),
        ];
        let row = |(index, (when, answer)): (usize, (&str, &AnswerBody))| {
            let name = format!("{}.{}", printable(&self.name), printable(&self.namespace));
            let name = if index == 0 { name } else { String::new() };
            vec![name, when.to_owned(), answer.tier(), answer.count(), answer.names()]
        };
        stages.into_iter().enumerate().map(row).collect()
    }
}

impl AnswerBody {
    fn tier(&self) -> String {
        match self.tier {
            None => "-".to_owned(),
            Some(LAST_RESORT) => "last resort".to_owned(),
            Some(tier) => tier.to_string(),
        }
    }

    fn count(&self) -> String {
        match self.offered.iter().filter(|offer| offer.lost).count() {
            0 => self.offered.len().to_string(),
            lost => format!("{}, {lost} lost", self.offered.len()),
        }
    }

    fn names(&self) -> String {
        let name = |offer: &OfferBody| format!("{} {:.0} %", printable(&offer.id), offer.share * 100.0);
        let mut names: Vec<_> = self.offered.iter().take(NAMED_MAX).map(name).collect();
        if self.offered.len() > NAMED_MAX {
            names.push(format!("and {} more", self.offered.len() - NAMED_MAX));
        }
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_touched_is_shown_in_its_stages() {
        let json = r#"{"age_ms":5,"stale":false,"losses":["zone=a"],"services":[
            {"namespace":"default","name":"api","lost":[],"now":{"tier":0,"offered":[]},"expired":{"tier":0,"offered":[]},
             "probed":{"tier":0,"offered":[]},"settled":{"tier":0,"offered":[]}},
            {"namespace":"default","name":"web","lost":["a"],
             "now":{"tier":0,"offered":[{"id":"a","weight":1,"share":0.5,"lost":true},{"id":"b","weight":1,"share":0.5,"lost":false}]},
             "expired":{"tier":0,"offered":[{"id":"a","weight":1,"share":0.5,"lost":true},{"id":"b","weight":1,"share":0.5,"lost":false}]},
             "probed":{"tier":0,"offered":[{"id":"b","weight":1,"share":0.5,"lost":false}]},
             "settled":{"tier":65536,"offered":[]}}]}"#;
        let told = text(&serde_json::from_str(json).unwrap());
        let lines: Vec<_> = told.lines().collect();
        assert!(
            lines[1].starts_with("web.default  now") && lines[1].ends_with("2, 1 lost  a 50 %, b 50 %"),
            "{told}"
        );
        assert!(lines[3].ends_with("1          b 50 %"), "{told}");
        assert!(lines[4].contains("last resort"), "{told}");
        assert!(lines[5].starts_with("without zone=a: 1 service is not touched;"), "{told}");
    }
}
