use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http_body_util::BodyExt;

use hyper::header::{ALLOW, CONTENT_TYPE};

use super::*;
use crate::http::respond::{JSON_TYPE, METRICS_TYPE, TEXT_TYPE};
use crate::http::sample;
use crate::registry::View;

#[tokio::test]
async fn every_path_of_the_table_is_answered() {
    let router = started();
    for (path, content_type) in [
        ("/api/v1/services", JSON_TYPE),
        ("/api/v1/services/default/web", JSON_TYPE),
        ("/api/v1/services/shop/empty", JSON_TYPE),
        ("/api/v1/explain/default/web", JSON_TYPE),
        ("/api/v1/explain/default/web?at=0s", JSON_TYPE),
        ("/api/v1/rehearse?lose=zone%3Da&lose=web/1", JSON_TYPE),
        ("/livez", TEXT_TYPE),
        ("/readyz", TEXT_TYPE),
        ("/metrics", METRICS_TYPE),
        ("/api/v1/status", JSON_TYPE),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let response = router.answer(&request(method, path, None)).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(response.headers()[CONTENT_TYPE], content_type, "{path}");
        }
    }
}

#[tokio::test]
async fn errors_are_json_with_a_hint() {
    let router = started();
    for (method, path, status) in [
        (Method::GET, "/", 404),
        (Method::GET, "/api/v1/services/", 404),
        (Method::GET, "/api/v1/services/default", 404),
        (Method::GET, "/api/v1/services/default/web/x", 404),
        (Method::GET, "/api/v1/services/default/nobody", 404),
        (Method::GET, "/api/v1/services/Default/web%20", 404),
        (Method::POST, "/nowhere", 404),
        (Method::POST, "/api/v1/services", 405),
        (Method::DELETE, "/api/v1/services/default/web", 405),
        (Method::GET, "/api/v1/services?wait=1s", 400),
        (Method::GET, "/api/v1/services/default/web?wiat=1s", 400),
        (Method::GET, "/api/v1/services/default/web?wait", 400),
        (Method::GET, "/api/v1/services/default/web?wait=soon", 400),
        (Method::GET, "/api/v1/services/default/web?wait=601s", 400),
        (Method::GET, "/api/v1/services/default/web?wait=1s&wait=1s", 400),
        (Method::GET, "/api/v1/status?wait=1s", 400),
        (Method::POST, "/api/v1/status", 405),
        (Method::GET, "/api/v1/explain/default/web?at=1h", 404),
        (Method::GET, "/api/v1/explain/default/nobody?at=0s", 404),
        (Method::GET, "/api/v1/explain/default/web?at=2999-01-01T00:00:00Z", 400),
        (Method::GET, "/api/v1/explain/default/web?at=noon", 400),
        (Method::GET, "/api/v1/rehearse", 400),
        (Method::GET, "/api/v1/rehearse?lose=web", 400),
        (Method::GET, "/api/v1/rehearse?lose=wbe/1", 404),
        (Method::GET, "/api/v1/rehearse?lose=web/1&lose=zone%3Db", 404),
        (Method::POST, "/api/v1/rehearse?lose=web/1", 405),
    ] {
        let response = router.answer(&request(method.clone(), path, None)).await;
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        assert_eq!(response.headers().contains_key(ALLOW), status == 405);
        let body: serde_json::Value = serde_json::from_slice(&body(response).await).unwrap();
        assert!(body["error"].is_string() && body["hint"].is_string(), "{body}");
    }
}

#[tokio::test]
async fn nothing_learnt_is_said_and_not_mistaken_for_nothing_there() {
    let cache = Arc::new(Cache::new(clock::now()));
    let router = Router::new(cache, Arc::new(Metrics::new()), CancellationToken::new());
    for path in [
        "/api/v1/services",
        "/api/v1/services/default/web",
        "/api/v1/explain/default/web",
        "/api/v1/explain/default/web?at=0s",
        "/api/v1/rehearse?lose=web/1",
    ] {
        let response = router.answer(&request(Method::GET, path, None)).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
    let ready = router.answer(&request(Method::GET, "/readyz", None)).await;
    assert_eq!(ready.status(), StatusCode::OK, "readiness does not wait for the ensemble");
}

#[tokio::test]
async fn readiness_ends_when_shutdown_begins() {
    let router = started();
    router.shutdown.cancel();
    let ready = router.answer(&request(Method::GET, "/readyz", None)).await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(router.answer(&request(Method::GET, "/livez", None)).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_past_is_told_as_it_was_and_a_loss_as_it_would_be() {
    let router = started();
    let before_ms = clock::unix_ms();
    while clock::unix_ms() == before_ms {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut changed = sample::view();
    Arc::make_mut(changed.services.get_mut(&sample::key("default", "web")).unwrap()).instances.take_nth(0);
    router.cache.publish(changed);
    let get = async |path: &str| -> serde_json::Value {
        let response = router.answer(&request(Method::GET, path, None)).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        serde_json::from_slice(&body(response).await).unwrap()
    };
    let now = get("/api/v1/explain/default/web").await;
    assert_eq!((now["instances"].as_array().unwrap().len(), now.get("at_ms")), (2, None));
    let time = timestamp::text(before_ms);
    let then = get(&format!("/api/v1/explain/default/web?at={time}")).await;
    assert_eq!(then["instances"].as_array().unwrap().len(), 3);
    assert_eq!(then["at_ms"], before_ms);

    let played = get("/api/v1/rehearse?lose=web/1").await;
    assert_eq!(played["losses"], serde_json::json!(["web.default/1"]));
    let web = &played["services"][0];
    assert_eq!((&web["name"], &web["lost"]), (&"web".into(), &serde_json::json!(["web-3"])));
    // It lives by no session, so that nothing ever tells of its end.
    let settled = &web["settled"];
    assert_eq!((&settled["tier"], &settled["offered"][0]["lost"]), (&9.into(), &true.into()));
}

#[tokio::test]
async fn a_known_tag_is_not_modified() {
    let router = started();
    let first = router.answer(&request(Method::GET, WEB, None)).await;
    let etag = first.headers()[ETAG].to_str().unwrap().to_owned();
    let again = router.answer(&request(Method::GET, WEB, Some(&etag))).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(again.headers()[ETAG], etag.as_str());
    assert!(body(again).await.is_empty());
    let other = router.answer(&request(Method::GET, WEB, Some("\"other\""))).await;
    assert_eq!(other.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_long_poll_waits_for_a_change_of_its_service() {
    let router = started();
    let etag = etag(&router).await;
    let request = request(Method::GET, &format!("{WEB}?wait=10m"), Some(&etag));
    let mut poll = pin!(router.answer(&request));
    assert!(is_pending(poll.as_mut()));

    let mut other_changed = View::clone(&router.cache.load());
    other_changed.services.remove(&sample::key("shop", "empty"));
    router.cache.publish(other_changed.clone());
    assert!(is_pending(poll.as_mut()), "another service's change wakes nobody");

    let web = other_changed.services.get_mut(&sample::key("default", "web")).unwrap();
    Arc::make_mut(web).instances.take_nth(1);
    router.cache.publish(other_changed);
    let response = within(poll).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_ne!(response.headers()[ETAG], etag.as_str());
    let body: serde_json::Value = serde_json::from_slice(&body(response).await).unwrap();
    assert_eq!(body["instances"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_long_poll_ends_with_304_after_its_wait() {
    let router = started();
    let etag = etag(&router).await;
    let before = clock::now();
    let request = request(Method::GET, &format!("{WEB}?wait=50ms"), Some(&etag));
    let response = router.answer(&request).await;
    assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
    assert!(clock::now() - before >= Duration::from_millis(50));
}

#[tokio::test]
async fn a_long_poll_does_not_wait_without_or_with_an_old_tag() {
    let router = started();
    for tag in [None, Some("\"old\"")] {
        let request = request(Method::GET, &format!("{WEB}?wait=30s"), tag);
        let mut poll = pin!(router.answer(&request));
        assert!(!is_pending(poll.as_mut()));
    }
}

#[tokio::test]
async fn a_long_poll_ends_at_shutdown_and_when_its_service_is_forgotten() {
    let router = started();
    let etag = etag(&router).await;
    let request = request(Method::GET, &format!("{WEB}?wait=10m"), Some(&etag));
    let mut forgotten = pin!(router.answer(&request));
    assert!(is_pending(forgotten.as_mut()));
    let view = View::clone(&router.cache.load());
    router.cache.publish(View { services: crate::registry::Services::default(), ..view.clone() });
    assert_eq!(within(forgotten).await.status(), StatusCode::NOT_FOUND);

    router.cache.publish(view);
    let mut shut_down = pin!(router.answer(&request));
    assert!(is_pending(shut_down.as_mut()));
    router.shutdown.cancel();
    assert_eq!(within(shut_down).await.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn what_is_not_followed_is_asked_for_waited_for_and_not_taken_for_empty() {
    let (all, key) = (sample::view(), sample::key("default", "web"));
    let mut names = all.clone();
    let web = Arc::make_mut(names.services.get_mut(&key).unwrap());
    (web.is_followed, web.instances) = (false, crate::registry::Instances::new());
    let demand = Arc::<Demand>::default();
    let router = started().with_demand(Some(demand.clone()));
    let rehearsal = "/api/v1/rehearse?lose=web/1";
    for path in [WEB, "/api/v1/explain/default/web", rehearsal] {
        router.cache.publish(names.clone());
        let response = router.answer(&request(Method::GET, path, None)).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        let told: serde_json::Value = serde_json::from_slice(&body(response).await).unwrap();
        assert!(told["error"].as_str().unwrap().contains("could not be read in time"), "{told}");

        let request = request(Method::GET, path, None);
        let mut held = pin!(router.answer(&request));
        assert!(is_pending(held.as_mut()), "{path}");
        router.cache.publish(all.clone());
        assert_eq!(within(held).await.status(), StatusCode::OK, "{path}");
    }
    assert_eq!((demand.held(), demand.unready()), (6, 3));

    router.cache.publish(names);
    // Of what nobody asks about, nothing is rehearsed; nobody is asked for a name that is not known.
    let response = router.answer(&request(Method::GET, "/api/v1/rehearse?lose=ensemble", None)).await;
    let told: serde_json::Value = serde_json::from_slice(&body(response).await).unwrap();
    let services = told["services"].as_array().unwrap();
    assert!(services.iter().all(|service| service["name"] == "empty"), "{told}");
    for path in ["/api/v1/rehearse?lose=zone%3Da", "/api/v1/rehearse?lose=nobody/1"] {
        let response = router.answer(&request(Method::GET, path, None)).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let past = router.answer(&request(Method::GET, "/api/v1/explain/default/web?at=0s", None)).await;
    assert_eq!(past.status(), StatusCode::NOT_FOUND);
    let told: serde_json::Value = serde_json::from_slice(&body(past).await).unwrap();
    assert!(told["error"].as_str().unwrap().contains("was not followed"), "{told}");
    assert_eq!(demand.held(), 6);
}

#[tokio::test]
async fn a_long_poll_keeps_its_service_in_use() {
    let router = started();
    let etag = etag(&router).await;
    let lookups = router.cache.load().services[&sample::key("default", "web")].lookups.clone();
    assert!(lookups.take_use() && !lookups.take_use());
    let request = request(Method::GET, &format!("{WEB}?wait=10m"), Some(&etag));
    {
        let mut poll = pin!(router.answer(&request));
        assert!(is_pending(poll.as_mut()));
        assert!(lookups.take_use() && lookups.take_use(), "however long it waits");
    }
    assert!(!lookups.take_use());
}

#[tokio::test]
async fn requests_and_the_view_show_in_the_metrics() {
    let router = started();
    observe_view(&router.metrics, &router.cache).unwrap();
    router.answer(&request(Method::GET, "/api/v1/services/default/nobody", None)).await;
    let metrics = router.answer(&request(Method::GET, "/metrics", None)).await;
    let text = String::from_utf8(body(metrics).await).unwrap();
    for line in [
        "rollcall_http_requests_total{route=\"service\",status=\"404\"} 1\n",
        "rollcall_registry_view_services 2\n",
        "rollcall_registry_view_followed_services 2\n",
        "rollcall_registry_view_instances 3\n",
        "rollcall_registry_view_stale 1\n",
        "rollcall_process_resident_memory_bytes ",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("view_age_seconds"), "absent until the view was proved current");
    router.cache.prove_current(clock::now());
    let text = String::from_utf8(router.metrics.render()).unwrap();
    assert!(text.contains("\nrollcall_registry_view_age_seconds "), "{text}");
}

const WEB: &str = "/api/v1/services/default/web";

fn started() -> Router {
    let cache = Cache::new(clock::now());
    cache.publish(sample::view());
    let router = Router::new(Arc::new(cache), Arc::new(Metrics::new()), CancellationToken::new());
    router.with_status(StatusSource::new(sample::status))
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("within 20 s")
}

async fn etag(router: &Router) -> String {
    let response = router.answer(&request(Method::GET, WEB, None)).await;
    response.headers()[ETAG].to_str().unwrap().to_owned()
}

fn request(method: Method, path: &str, if_none_match: Option<&str>) -> Request<()> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(tag) = if_none_match {
        request = request.header(IF_NONE_MATCH, tag);
    }
    request.body(()).unwrap()
}

fn is_pending<T>(future: Pin<&mut impl Future<Output = T>>) -> bool {
    matches!(future.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending)
}

async fn body(response: HttpResponse) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}
