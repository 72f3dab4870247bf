//! A sidecar as `rollcall sidecar` puts it together, without its sockets, and the application beside it.

use std::path::PathBuf;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::{Method, Request, StatusCode};
use rollcall::client::{Client, ClientSettings};
use rollcall::clock::{self, Moment};
use rollcall::http::{Command, Control, Done, Router};
use rollcall::id::SessionId;
use rollcall::registry::{
    BrakePlan, Cache, CheckKey, Layout, Mirror, OwnService, Registrar, RegistrarSettings, Registration,
    SavedView, ServiceDefaults, Source, Subscription, TtlReports, ViewKeeper, resolve_services,
};
use rollcall::telemetry::Metrics;
use rollcall::znode::SubscriberName;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::application::{Application, FALL, RISE, TTL};
use crate::line::Line;
use crate::member::Member;
use crate::record::{Lookups, Record};
use crate::told::get;
use crate::world::{Pod, SESSION_TIMEOUT, label, web_key};

/// One pod. Dropped, it is killed: nobody says goodbye, and its session lives on until it expires.
#[derive(Debug)]
pub(crate) struct Sidecar {
    pub(crate) client: Client,
    pub(crate) registrar: Registrar,
    pub(crate) line: Line,
    pub(crate) record: Record,
    /// Where there is an instance.
    pub(crate) application: Option<Application>,
    router: Arc<Router>,
    _tasks: JoinSet<()>,
}

impl Sidecar {
    pub(crate) fn start(
        pod: &Pod,
        member: &Member,
        state_dir: Option<PathBuf>,
        lookups: Lookups,
        seed: u64,
    ) -> Self {
        let (layout, line) = (Layout::default(), Line::to(member));
        // The address means nothing to the dialer; as one it needs no look-up.
        let servers = ClientSettings::for_servers(["127.0.0.1:2181"]);
        let settings = ClientSettings { dialer: Some(line.dialer()), ..servers };
        let client = Client::start(settings.with_session_timeout(SESSION_TIMEOUT));
        let cache = Arc::new(match saved(state_dir.as_ref(), &layout) {
            Some(saved) => {
                let age = saved.age(clock::unix_ms());
                Cache::with_saved(saved.view, age, clock::now())
            }
            None => Cache::new(clock::now()),
        });
        let reports = TtlReports::default();
        let settings = RegistrarSettings {
            state_dir: state_dir.clone().map(Into::into),
            ttl_reports: reports.clone(),
            ..RegistrarSettings::new(layout.clone(), format!("owner-of-{}", pod.id))
        };
        let registrations = pod.priority.map(|priority| registration(&service_of(pod, priority)));
        let registrations = registrations.into_iter().collect();
        let (registrar, task) = Registrar::new(client.clone(), cache.clone(), settings, registrations)
            .expect("what was left behind can be read");
        let subscription = Subscription::new(client.clone(), SubscriberName::parse(pod.id).expect("a name"));
        let mirror = Mirror::new(client.clone(), &cache, Source::all(layout.clone()), BrakePlan::default());
        let mirror = mirror.with_subscription(&subscription);
        let router = Router::new(cache.clone(), Arc::new(Metrics::new()), CancellationToken::new());
        let router = Arc::new(router.with_control(control_of(registrar.clone())));
        let never = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run());
        tasks.spawn(mirror.run(never.clone()));
        tasks.spawn(subscription.run(never.clone()));
        if let Some(folder) = state_dir {
            tasks.spawn(ViewKeeper::new(cache.clone(), folder, layout).run(never));
        }
        let record = Record::start(cache, router.clone(), lookups);
        let application = pod.priority.map(|_| Application::start(reports, check_key(pod), seed));
        Self { client, registrar, line, record, application, router, _tasks: tasks }
    }

    /// The application of a pod that has one.
    pub(crate) fn application(&self) -> &Application {
        self.application.as_ref().expect("it has an instance")
    }

    /// The session that it lives by now.
    pub(crate) fn session(&self) -> SessionId {
        let session = self.client.state().borrow().session();
        session.expect("it is connected").0
    }

    /// What `rollcall failback default/web` does: how many were held off.
    pub(crate) async fn fail_back(&self) -> u64 {
        let request = Request::builder().method(Method::POST).uri("/api/v1/failback/default/web");
        let response = self.router.answer(&request.body(()).expect("a request")).await;
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().await.expect("it is in memory").to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        body["released"].as_u64().expect("a number")
    }

    /// What `rollcall explain web` tells to be unreadable.
    pub(crate) async fn unreadable(&self) -> Vec<String> {
        let body = get(&self.router, "/api/v1/explain/default/web").await.expect("it is known");
        let unreadable = body["unreadable"].as_array().expect("a list");
        unreadable.iter().map(|it| it["id"].as_str().expect("an id").to_owned()).collect()
    }

    /// Leaves in order, as on SIGTERM.
    pub(crate) async fn leave(self) {
        self.registrar.drain(std::time::Duration::from_secs(5)).await.expect("there is time enough");
        self.client.clone().close().await.expect("the member is there");
    }
}

fn saved(state_dir: Option<&PathBuf>, layout: &Layout) -> Option<SavedView> {
    SavedView::load(state_dir?, layout, Moment::read()).expect("it is whole")
}

/// What the sidecar has its HTTP listener do; the other commands are not given here.
fn control_of(registrar: Registrar) -> Control {
    Control::new(move |command| {
        let registrar = registrar.clone();
        Box::pin(async move {
            let Command::FailBack(service) = command else { panic!("{command:?} is not given") };
            registrar.fail_back(service).await.map(Done::Released)
        })
    })
}

fn service_of(pod: &Pod, priority: u16) -> String {
    let ttl_ms = TTL.as_millis();
    format!(
        "{{name: web, id: {}, address: 127.1.0.{}, port: 9, priority: {priority}, checks: [
            {{kind: ttl, ttl: {ttl_ms}ms, rise: {RISE}, fall: {FALL}}}]}}",
        pod.id, pod.number
    )
}

/// The service that the text of the settings describes.
pub(crate) fn registration(text: &str) -> Registration {
    let service: OwnService = serde_yaml::from_str(text).expect("settings of a service");
    let defaults = ServiceDefaults::default();
    resolve_services(&[service], "services", &defaults).expect("nothing is wrong with them").remove(0)
}

fn check_key(pod: &Pod) -> CheckKey {
    CheckKey { service: web_key(), id: label(pod.id), check: label("ttl") }
}
