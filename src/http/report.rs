//! Reports of applications to ttl checks.
//!
//! `PUT /api/v1/checks/{namespace}/{service}/{id}/{check}/pass` or `…/fail`; the body, if there is one, is a note that
//! says why, as text. 200 when it was taken, 404 when no such check is run, 413 for a body that is no note.
//!
//! Only PUT: a browser asks before it sends one to another site, so that no web page can report.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::{Method, StatusCode};

use super::listener::HttpResponse;
use super::respond::{error, method_not_allowed, text};
use crate::clock;
use crate::registry::{CheckKey, Label, ServiceKey, TtlReports, Verdict};

/// A report as its path names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReportPath<'a> {
    namespace: &'a str,
    service: &'a str,
    id: &'a str,
    check: &'a str,
    verdict: Verdict,
}

impl<'a> ReportPath<'a> {
    /// `None` for another path.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let mut parts = path.strip_prefix("/api/v1/checks/")?.split('/');
        let (namespace, service) = (parts.next()?, parts.next()?);
        let (id, check) = (parts.next()?, parts.next()?);
        let verdict = match parts.next()? {
            "pass" => Verdict::Pass,
            "fail" => Verdict::Fail,
            _ => return None,
        };
        parts.next().is_none().then_some(Self { namespace, service, id, check, verdict })
    }

    fn key(&self) -> Option<CheckKey> {
        let label = |text| Label::parse(text).ok();
        let service = ServiceKey { namespace: label(self.namespace)?, name: label(self.service)? };
        Some(CheckKey { service, id: label(self.id)?, check: label(self.check)? })
    }

    /// Takes the report; its note is read for [`BODY_TIMEOUT`] at most.
    pub(super) async fn answer<B>(&self, reports: &TtlReports, method: &Method, body: B) -> HttpResponse
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if *method != Method::PUT {
            return method_not_allowed(method, "PUT");
        }
        let body = Limited::new(body, TtlReports::NOTE_BYTES_MAX).collect();
        let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(cause)) if cause.is::<LengthLimitError>() => {
                let message = format!("the note is longer than {} bytes", TtlReports::NOTE_BYTES_MAX);
                return error(StatusCode::PAYLOAD_TOO_LARGE, &message, "send a shorter one, or none");
            }
            Ok(Err(_)) => {
                return error(StatusCode::BAD_REQUEST, "the note did not come", "send the whole body");
            }
            Err(_) => {
                return error(
                    StatusCode::REQUEST_TIMEOUT,
                    "the note did not come in time",
                    "send it at once",
                );
            }
        };
        let note = String::from_utf8_lossy(&body);
        let taken = self.key().map(|key| reports.report(&key, self.verdict, &note, clock::now()));
        match taken {
            Some(Ok(())) => text(StatusCode::OK, "ok\n"),
            Some(Err(unknown)) => not_found(&unknown.to_string()),
            None => not_found("no check has such a name"),
        }
    }
}

fn not_found(message: &str) -> HttpResponse {
    let hint = "the settings name namespace, service, id and check; the check's kind must be ttl";
    error(StatusCode::NOT_FOUND, message, hint)
}

/// How long a note may take: it comes from this machine, and is short.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::Full;
    use hyper::header::{ALLOW, HeaderValue};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::http::{ListenerSettings, Router, serve};
    use crate::registry::Cache;
    use crate::telemetry::Metrics;

    #[test]
    fn only_whole_paths_are_reports() {
        let path = ReportPath::parse("/api/v1/checks/default/web/web-0/app/fail").unwrap();
        assert_eq!((path.service, path.check, path.verdict), ("web", "app", Verdict::Fail));
        for other in [
            "/api/v1/checks/default/web/web-0/app",
            "/api/v1/checks/a/b/c/d/warn",
            "/api/v1/checks/a/b/c/d/pass/",
        ] {
            assert_eq!(ReportPath::parse(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_report_reaches_its_check_with_its_note() {
        let (reports, key) = (TtlReports::default(), sample_path("app").key().unwrap());
        let _receiver = reports.register(key.clone());
        let put = |check: &'static str, note: Vec<u8>| {
            let reports = reports.clone();
            async move { sample_path(check).answer(&reports, &Method::PUT, Full::from(note)).await.status() }
        };
        assert_eq!(put("app", b"disk \xff".to_vec()).await, StatusCode::OK);
        let last = reports.last(&key).unwrap();
        assert_eq!((last.verdict, last.note.as_str()), (Verdict::Fail, "disk \u{fffd}"));
        assert_eq!(put("app", Vec::new()).await, StatusCode::OK);
        assert_eq!(reports.last(&key).unwrap().note, "");
        assert_eq!(put("other", Vec::new()).await, StatusCode::NOT_FOUND);
        assert_eq!(put("No_Label", Vec::new()).await, StatusCode::NOT_FOUND);
        assert_eq!(put("app", vec![b'x'; 1_025]).await, StatusCode::PAYLOAD_TOO_LARGE);
        let posted = sample_path("app").answer(&reports, &Method::POST, Full::from("")).await;
        assert_eq!(
            (posted.status().as_u16(), &posted.headers()[ALLOW]),
            (405, &HeaderValue::from_static("PUT"))
        );
    }

    #[tokio::test]
    async fn the_listener_takes_reports_and_keeps_the_connection() {
        let (cache, metrics, stop) =
            (Cache::new(clock::now()), Arc::new(Metrics::new()), CancellationToken::new());
        let reports = TtlReports::default();
        let key = sample_path("app").key().unwrap();
        let _receiver = reports.register(key.clone());
        let router =
            Router::new(Arc::new(cache), metrics.clone(), stop.clone()).with_reports(reports.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let settings = ListenerSettings::default();
        let server = tokio::spawn(serve(listener, router.into_answer(), settings, metrics, stop.clone()));
        for (verdict, note) in [("fail", "full"), ("pass", "")] {
            let request = format!(
                "PUT /api/v1/checks/default/web/web-0/app/{verdict} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{note}",
                note.len()
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut response = Vec::new();
            while !response.ends_with(b"ok\n") {
                assert!(stream.read_buf(&mut response).await.unwrap() > 0, "{response:?}");
            }
            assert_eq!(reports.last(&key).unwrap().note, note);
        }
        assert_eq!(reports.last(&key).unwrap().verdict, Verdict::Pass);
        stop.cancel();
        server.await.unwrap();
    }

    fn sample_path(check: &str) -> ReportPath<'_> {
        ReportPath { namespace: "default", service: "web", id: "web-0", check, verdict: Verdict::Fail }
    }
}
