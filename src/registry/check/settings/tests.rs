use std::net::Ipv4Addr;
use std::time::Duration;

use hyper::Method;
use hyper::header::HeaderMap;

use super::*;
use crate::registry::check::{Asking, ExecTarget, GrpcTarget, HttpTarget, StatusRange};
use crate::tls::Trust;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn defaults_are_those_that_are_documented() {
    let check = resolve("kind: http").unwrap();
    let target = HttpTarget {
        server: SocketAddr::new(ADDRESS, 80),
        tls: None,
        method: Method::GET,
        host: "127.0.0.1:80".to_owned(),
        path: "/".to_owned(),
        headers: HeaderMap::new(),
        status: StatusRange::DEFAULT,
        body: None,
        load_header: None,
    };
    let asking = Asking {
        target: CheckTarget::Http(Box::new(target)),
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        jitter: Duration::from_millis(200),
    };
    let (name, source) = (Label::parse("http").unwrap(), CheckSource::Asked(asking));
    assert_eq!(
        check,
        Check { name, is_critical: true, source, start_delay: Duration::ZERO, rise: 2, fall: 3 }
    );
    let short = asking_of("{kind: tcp, interval: 300ms}");
    assert_eq!((short.timeout, short.jitter), (Duration::from_millis(300), Duration::ZERO));
    let check = resolve("{kind: ttl, ttl: 30s}").unwrap();
    assert_eq!(check.source, CheckSource::Reported { ttl: Duration::from_secs(30) });
    assert_eq!((check.rise, check.fall), (1, 1));
    assert!(!resolve("{kind: tcp, critical: false}").unwrap().is_critical);
}

#[test]
fn every_mistake_is_reported_with_its_path() {
    let settings = "{kind: tcp, path: /x, name: A b, interval: 2, timeout: soon, start_delay: 1d, rise: 0, fall: 0, port: 0,
                     address: here, status: 99}";
    let keys = "path status name address port interval timeout start_delay rise fall";
    assert_eq!(mistaken_keys(settings), keys.split(' ').collect::<Vec<_>>());
    let settings = "{kind: https, path: x, host: 'a b', method: get, status: 99, body: '', server_name: 'a b', ca: /a.pem,
                     tls_skip_verify: true, headers: {'a b': 1, Host: x, ok: \"1\\n2\"}}";
    let keys = "method path host headers.Host headers.a b headers.ok status body ca server_name";
    assert_eq!(mistaken_keys(settings).join(" "), keys);
}

#[test]
fn a_body_that_is_no_regular_expression_is_told_with_what_to_do() {
    assert!(resolve(r"{kind: http, body: '^(ok|up)$'}").is_ok());
    let [mistake] = &resolve(r#"{kind: http, body: '{"status":"up"}'}"#).unwrap_err()[..] else {
        panic!("one")
    };
    assert!(mistake.path.ends_with("body") && mistake.remedy.contains(r"\{"), "{mistake:?}");
}

#[test]
fn a_key_of_another_kind_is_refused() {
    for (settings, key) in [
        ("{kind: tcp, method: GET}", "method"),
        ("{kind: tcp, headers: {a: b}}", "headers"),
        ("{kind: http, service: a}", "service"),
        ("{kind: grpc, path: /}", "path"),
        ("{kind: exec, command: [a], port: 80}", "port"),
        ("{kind: tcp, command: [a]}", "command"),
        ("{kind: tcp, env: {A: b}}", "env"),
        ("{kind: tcp, ttl: 30s}", "ttl"),
        ("{kind: ttl, ttl: 30s, interval: 5s}", "interval"),
        ("{kind: ttl, ttl: 30s, port: 80}", "port"),
        ("{kind: ttl}", "ttl"),
        ("{kind: ttl, ttl: 10ms}", "ttl"),
        ("{kind: ttl, ttl: 2d}", "ttl"),
        ("{kind: http, ca: /ca.pem}", "ca"),
        ("{kind: http, tls_skip_verify: false}", "tls_skip_verify"),
        ("{kind: http, server_name: a}", "server_name"),
        ("{kind: https, tls: true}", "tls"),
        ("{kind: http, tls: false}", "tls"),
        ("{kind: grpc, ca: /ca.pem}", "ca"),
        ("{kind: grpc, tls: false, server_name: a}", "server_name"),
        ("{kind: grpc, tls_skip_verify: true}", "tls_skip_verify"),
        ("{kind: grpc, tls: true, ca: /ca.pem, tls_skip_verify: true}", "ca"),
        ("{kind: grpc, tls: true, server_name: 'a b'}", "server_name"),
    ] {
        assert_eq!(mistaken_keys(settings), [key], "{settings}");
    }
}

#[test]
fn times_must_fit_into_one_another() {
    for (settings, path) in [
        ("{kind: tcp, interval: 10ms}", "c.interval"),
        ("{kind: tcp, interval: 1s, timeout: 2s}", "c.timeout"),
        ("{kind: tcp, timeout: 0s}", "c.timeout"),
        ("{kind: tcp, interval: 2s, timeout: 1500ms, jitter: 600ms}", "c.jitter"),
        ("{kind: http, path: health}", "c.path"),
        ("{kind: http, host: 'a b'}", "c.host"),
        ("{kind: http, host: ''}", "c.host"),
        ("{kind: grpc, host: '[::1'}", "c.host"),
        ("{kind: grpc, host: 'a:b:c'}", "c.host"),
    ] {
        let mistakes = resolve(settings).unwrap_err();
        assert_eq!(mistakes[0].path, path, "{settings}: {mistakes:?}");
    }
}

#[test]
fn a_header_is_sent_but_not_told() {
    let check = asking_of("{kind: http, headers: {Authorization: Bearer s3cret, X-Depth: 2}}");
    let CheckTarget::Http(target) = &check.target else { panic!("{check:?}") };
    assert_eq!(target.headers["authorization"], "Bearer s3cret");
    assert_eq!(target.headers["x-depth"], "2");
    assert!(!format!("{check:?}").contains("s3cret"));
    let many: Vec<_> = (0..33).map(|number| format!("h{number}: x")).collect();
    assert_eq!(mistaken_keys(&format!("{{kind: http, headers: {{{}}}}}", many.join(", "))), ["headers"]);
}

#[test]
fn tls_proves_the_name_of_the_host_against_the_machines_authorities() {
    for (settings, trust, name) in [
        ("{kind: https}", Trust::System, "127.0.0.1"),
        ("{kind: https, host: 'app.example:8443'}", Trust::System, "app.example"),
        ("{kind: https, host: '[::1]:8443'}", Trust::System, "::1"),
        ("{kind: https, host: a, server_name: b, ca: /ca.pem}", Trust::Authorities("/ca.pem".into()), "b"),
        ("{kind: https, tls_skip_verify: true}", Trust::Anyone, "127.0.0.1"),
    ] {
        for settings in [settings.to_owned(), settings.replace("kind: https", "kind: grpc, tls: true")] {
            let target = asking_of(&settings).target;
            let tls = target.tls().unwrap_or_else(|| panic!("{settings}"));
            assert_eq!((&tls.trust, tls.server_name.as_str()), (&trust, name), "{settings}");
        }
    }
}

#[test]
fn a_grpc_check_asks_for_the_server_as_a_whole_unless_told_otherwise() {
    let server = SocketAddr::new(ADDRESS, 80);
    let target = |yaml| asking_of(yaml).target;
    let (host, service) = ("127.0.0.1:80".to_owned(), String::new());
    let expected = GrpcTarget { server, tls: None, host, service };
    assert_eq!(target("{kind: grpc}"), CheckTarget::Grpc(expected.clone()));
    assert_eq!(target("{kind: grpc, tls: false}"), CheckTarget::Grpc(expected.clone()));
    let expected = GrpcTarget { host: "app".to_owned(), service: "shop.Cart".to_owned(), ..expected };
    assert_eq!(target("{kind: grpc, host: app, service: shop.Cart}"), CheckTarget::Grpc(expected));
    let long = "x".repeat(256);
    assert_eq!(mistaken_keys(&format!("{{kind: grpc, host: 'a b', service: {long}}}")), ["host", "service"]);
}

#[test]
fn an_exec_check_needs_a_program_and_no_port() {
    let settings: CheckSettings =
        serde_yaml::from_str("{kind: exec, command: [/x, -n, 5], env: {A: 1}}").unwrap();
    let mut mistakes = Vec::new();
    let check = settings.resolve("c", None, None, &mut mistakes).expect("neither address nor port is needed");
    let expected = ExecTarget {
        command: ["/x", "-n", "5"].map(str::to_owned).into(),
        env: [("A".to_owned(), "1".to_owned())].into(),
    };
    let CheckSource::Asked(asking) = &check.source else { panic!("{check:?}") };
    assert_eq!(asking.target, CheckTarget::Exec(expected));
    assert!(!format!("{check:?}").contains("-n"), "arguments may be secrets");
    for (settings, key) in [
        ("{kind: exec}", "command"),
        ("{kind: exec, command: []}", "command"),
        ("{kind: exec, command: ['', a]}", "command"),
        ("{kind: exec, command: [bin/check]}", "command"),
        ("{kind: exec, command: [a, \"b\\0\"]}", "command"),
        ("{kind: exec, command: [a], env: {A=B: c}}", "env.A=B"),
    ] {
        assert_eq!(mistaken_keys(settings), [key], "{settings}");
    }
}

#[test]
fn every_check_of_a_service_has_a_name_of_its_own() {
    let named = |yaml| {
        let mut mistakes = Vec::new();
        let settings: Vec<CheckSettings> = serde_yaml::from_str(yaml).unwrap();
        let checks = resolve_checks(&settings, "c", Some(ADDRESS), Some(80), &mut mistakes);
        let names: Vec<_> = checks.iter().map(|check| check.name.to_string()).collect();
        (names, mistakes)
    };
    let (names, mistakes) = named("[{kind: tcp}, {kind: http}, {kind: tcp}, {kind: http, name: tcp-2}]");
    assert_eq!((names.join(" "), mistakes.len()), ("tcp http tcp-3 tcp-2".to_owned(), 0));
    let (_, mistakes) = named("[{kind: tcp, name: a}, {kind: http, name: a}]");
    assert_eq!((mistakes[0].path.as_str(), mistakes.len()), ("c[1].name", 1));
}

fn resolve(yaml: &str) -> Result<Check, Vec<Mistake>> {
    let settings: CheckSettings = serde_yaml::from_str(yaml).unwrap();
    let mut mistakes = Vec::new();
    settings.resolve("c", Some(ADDRESS), Some(80), &mut mistakes).ok_or(mistakes)
}

fn asking_of(yaml: &str) -> Asking {
    match resolve(yaml).unwrap().source {
        CheckSource::Asked(asking) => asking,
        CheckSource::Reported { ttl } => panic!("reported within {ttl:?}"),
    }
}

fn mistaken_keys(yaml: &str) -> Vec<String> {
    let mistakes = resolve(yaml).expect_err(yaml);
    mistakes.iter().map(|mistake| mistake.path.strip_prefix("c.").unwrap().to_owned()).collect()
}
