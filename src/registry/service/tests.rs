use super::*;
use crate::registry::check::{CheckSource, CheckTarget};

#[test]
fn a_name_and_a_port_are_enough() {
    let registrations = resolve("[{name: web, port: 8080}]").unwrap();
    let [web] = registrations.as_slice() else { panic!("{registrations:?}") };
    assert_eq!((web.service.to_string(), web.id.as_str()), ("web.default".to_owned(), "host-7-8080"));
    assert_eq!(web.ports[0].name.as_str(), "default");
    assert_eq!((web.weight, web.degraded_weight, web.priority), (1, 1, 0));
    let server = "127.0.0.1:8080".parse().unwrap();
    let CheckSource::Asked(asking) = &web.checks[0].source else { panic!("{web:?}") };
    assert_eq!(asking.target, CheckTarget::Tcp { server });
    let record = web.record(Status::Up, "me", "1", 5);
    assert_eq!(Record::decode(&record.encode().unwrap()).unwrap(), record);
}

#[test]
fn every_mistake_is_reported_with_its_path() {
    let mistakes = resolve(
        "[{name: Web, namespace: a_b, id: '', port: 0, addresses: [1.2.3, 0.0.0.0], tags: [x, X, x], zone: ''},
          {name: all, checks: [{kind: tcp, interval: 2}]},
          {name: web, address: 10.0.0.1, addresses: [10.0.0.1], port: 1, ports: [{name: a, port: 1}, {name: a, port: 2}]},
          {name: dns, ports: [{name: dns, port: 53, protocol: udp}]},
          {name: dns, ports: [{name: dns, port: 53, protocol: udp}], checks: [{kind: http}]}]",
    )
    .unwrap_err();
    let paths: Vec<_> = mistakes.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "services[0].name",
            "services[0].namespace",
            "services[0].addresses[0]",
            "services[0].addresses[1]",
            "services[0].port",
            "services[0].id",
            "services[0].tags[1]",
            "services[0].tags[2]",
            "services[0].zone",
            "services[1].name",
            "services[1]",
            "services[1].checks[0].interval",
            "services[2].address",
            "services[2].addresses[0]",
            "services[2].port",
            "services[2].ports[1].name",
            "services[3]",
            "services[4].checks[0].port",
        ],
        "{mistakes:#?}"
    );
}

#[test]
fn an_id_is_no_word_with_a_meaning_of_its_own() {
    for word in ServiceKey::RESERVED {
        let mistakes = resolve(&format!("[{{name: web, id: {word}, port: 80}}]")).unwrap_err();
        let texts: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        let text = format!(
            "services[0].id: {word} has a meaning of its own in DNS names; use a name other than primary, standby, all, tag, az"
        );
        assert_eq!(texts, [text]);
        assert!(resolve(&format!("[{{name: web, id: {word}-1, tags: [{word}], port: 80}}]")).is_ok());
    }
}

#[test]
fn one_id_is_given_once_within_a_service() {
    let mistakes = resolve("[{name: web, port: 80}, {name: web, port: 80}]").unwrap_err();
    assert_eq!(mistakes[0].path, "services[1].id");
    assert!(mistakes[0].message.contains("services[0]"), "{mistakes:?}");
    assert!(resolve("[{name: web, port: 80}, {name: api, port: 80}]").is_ok());
}

#[test]
fn a_degraded_instance_gets_no_more_than_a_healthy_one() {
    let weights = |yaml| {
        let web = resolve(&format!("[{{name: web, port: 80, {yaml}}}]"))?.remove(0);
        Ok::<_, Vec<Mistake>>((web.weight, web.degraded_weight))
    };
    assert_eq!(weights("weight: 100"), Ok((100, 1)));
    assert_eq!(weights("weight: 0"), Ok((0, 0)));
    assert_eq!(weights("weight: 100, degraded_weight: 0"), Ok((100, 0)));
    let mistakes = weights("degraded_weight: 2").unwrap_err();
    assert_eq!((mistakes.len(), mistakes[0].path.as_str()), (1, "services[0].degraded_weight"));
}

#[test]
fn a_record_that_would_be_too_long_is_refused() {
    let meta = "y".repeat(Record::BYTES_MAX);
    let mistakes = resolve(&format!("[{{name: web, port: 80, meta: {{x: {meta}}}}}]")).unwrap_err();
    assert_eq!(mistakes[0].path, "services[0]");
}

#[test]
fn without_an_address_of_its_own_the_sidecar_asks_for_one() {
    let service = OwnService { name: "web".to_owned(), port: Some(80), ..OwnService::default() };
    let mistakes = resolve_services(&[service], "services", &ServiceDefaults::default()).unwrap_err();
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(mistakes[0].remedy.contains("address"));
}

#[test]
fn unknown_keys_are_refused() {
    let error = serde_yaml::from_str::<OwnService>("{name: web, prot: 80}").unwrap_err();
    assert!(error.to_string().contains("prot"), "{error}");
}

#[test]
fn any_host_name_gives_an_id() {
    for (host, id) in
        [("web-0", "web-0-80"), ("Node_1.example.org", "node-1-80"), ("", "80"), ("---", "80"), ("ü", "80")]
    {
        assert_eq!(default_id(host, 80).as_str(), id);
    }
    assert_eq!(default_id(&"x".repeat(80), 65535).as_str().len(), Label::BYTES_MAX);
}

fn resolve(yaml: &str) -> Result<Vec<Registration>, Vec<Mistake>> {
    let services: Vec<OwnService> = serde_yaml::from_str(yaml).unwrap();
    let defaults = ServiceDefaults {
        address: Some("127.0.0.1".parse().unwrap()),
        host_name: "host-7.example".to_owned(),
        ..ServiceDefaults::default()
    };
    resolve_services(&services, "services", &defaults)
}
