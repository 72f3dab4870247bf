//! What the forwarder says in the log.

use super::*;

#[test]
fn authorities_that_cannot_be_read_are_told_at_the_start_where_an_upstream_needs_them() {
    let folder = tempfile::tempdir().unwrap();
    let (log, ca) = (folder.path().join("log"), folder.path().join("ca.pem"));
    for (upstream, is_told) in [("tls://192.0.2.1#dns.example", true), ("192.0.2.1", false)] {
        let file = fs_err::File::create(&log).unwrap().into_file();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(Arc::new(file)).finish();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _inside = runtime.enter();
        tracing::subscriber::with_default(subscriber, || {
            let plan = ForwardPlan {
                upstreams: Some(vec![upstream.parse().unwrap()]),
                resolv_conf: "/dev/null".into(),
                trust: Trust::Authorities(ca.clone()),
                ..ForwardPlan::default()
            };
            let own = SocketAddr::from(([127, 0, 0, 1], 1));
            Forwarder::new(plan, own, Arc::new(Metrics::new()), CancellationToken::new());
        });
        let text = fs_err::read_to_string(&log).unwrap();
        let line = text.lines().find(|line| line.contains("WARN") && line.contains("ca.pem"));
        assert_eq!(line.is_some_and(|line| line.contains("dns.forward.ca")), is_told, "{upstream}: {text}");
    }
}
