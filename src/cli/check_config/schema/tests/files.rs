//! Settings files in which everything is tried everywhere.

use serde_json::{Value, json};

use crate::cli::arguments::SchemaRole;

/// Every key of each role, as the role accepts it, in pieces that are soon read.
pub(super) const WHOLE: [(SchemaRole, &str); 14] = [
    (
        SchemaRole::Sidecar,
        "{root: /rollcall/services, namespace: shop, address: 10.0.0.1, zone: a, prefer_zone: true, node: n, state_dir: /s}",
    ),
    (
        SchemaRole::Sidecar,
        "{ensemble: {servers: ['a:2181', '[::1]:2181'], session_timeout: 10s}, http: {address: '127.0.0.1:8500'},
          log: {format: auto, filter: info}}",
    ),
    (
        SchemaRole::Sidecar,
        "dns: {address: '127.0.0.1:8600', zone: rollcall.internal., ttl: 2s, negative_ttl: 1s, stale_ttl: 1s}",
    ),
    (
        SchemaRole::Sidecar,
        "dns: {forward: {enabled: true, upstreams: [10.0.0.53, '[::1]:5353', 'tls://10.0.0.54#dns.example'], domains: {corp.example: [10.0.0.55]},
          resolv_conf: /etc/resolv.conf, timeout: 1s, attempts: 2, randomize_case: true, stale_max: 1d, cache_entries_max: 0,
          cache_bytes_max: 1000, waiting_max: 10, client_waiting_max: 10, ca: /etc/ca.pem}}",
    ),
    (
        SchemaRole::Sidecar,
        "{brake: {enabled: true, share: 30%, window: 10s, hold_max: 5m}, subscribe: {mode: namespaces, namespaces: [shop]},
          adopt: [{format: serverset, root: /aurora/hello, namespace: aurora, service: hello}]}",
    ),
    (
        SchemaRole::Sidecar,
        "services: [{name: web, namespace: shop, id: a, address: 10.0.0.2, ports: [{name: http, port: 80, protocol: tcp}], weight: 10,
          degraded_weight: 1, load_weight_min: 1, priority: 0, zone: a, node: n, tags: [blue], meta: {version: '1'}},
          {name: api, addresses: [10.0.0.3], port: 81}]",
    ),
    (
        SchemaRole::Sidecar,
        "services: [{name: web, address: '::1', port: 80, checks: [{kind: https, name: a, critical: true, port: 443, address: 127.0.0.1,
          method: GET, path: /, host: web, headers: {X-A: b}, status: 200-399, body: UP, load_header: X-Load, ca: /etc/ca.pem,
          server_name: web.example, start_delay: 0s, interval: 2s, timeout: 1s, rise: 2, fall: 3, jitter: 100ms}]}]",
    ),
    (
        SchemaRole::Sidecar,
        "services: [{name: web, address: '::1', port: 80, checks: [{kind: grpc, service: shop.Cart, tls: true, ca: /ca.pem}, {kind: https, tls_skip_verify: true},
          {kind: exec, command: [/app/check, --deep, 5], env: {MODE: check}}, {kind: ttl, ttl: 30s}]}]",
    ),
    (
        SchemaRole::Sidecar,
        "services: [{name: web, address: '::1', ports: [{name: http, port: 80}, {name: tls, port: 443}], formats: [
          {format: curator, root: /services, port: http, name: web, ssl_port: tls, payload: blue},
          {format: serverset, root: /s, shard: 0}]}]",
    ),
    (
        SchemaRole::Ensemble,
        "{server_id: 1, data_dir: /nowhere/rollcall, status_address: '127.0.0.1:8501', client: {address: '127.0.0.1:2181',
          connections_max: 10, handshake_timeout: 10s, frame_bytes_max: 1048575, four_letter_words: [srvr]}}",
    ),
    (
        SchemaRole::Ensemble,
        "{data_dir: /nowhere, server_id: 1, log: {format: json, filter: info}, members: [{id: 2, host: b},
          {id: 1, host: a, quorum_port: 2888, election_port: 3888, client_port: 2181, role: voter}]}",
    ),
    (
        SchemaRole::Ensemble,
        "{data_dir: /nowhere, quorum: {listen_host: 0.0.0.0, init_limit: 10, sync_limit: 5, connect_timeout: 5s,
          finalize_wait: 200ms, commit_log_count: 500, link_bytes_max: 67108864, snapshot_bytes_max: 2147483648,
          tls: {cert: c, key: k, ca: a, client_auth: need, verify_hostname: true}}}",
    ),
    (
        SchemaRole::Ensemble,
        "{data_dir: /nowhere, member: {tick: 2s, session_timeout_min: 4s, session_timeout_max: 40s, snapshot_txns: 100000,
          snapshots_kept: 3, read_only_mode: false, local_sessions: true, local_sessions_upgrading: true}}",
    ),
    (
        SchemaRole::Dev,
        "{root: /r, namespace: shop, data_dir: /nowhere, address: 10.0.0.1, zone: a, prefer_zone: true, node: n,
          ensemble: {client_port: 0, tick: 2s, session_timeout: 10s, snapshot_txns: 100000, snapshots_kept: 3}, dns: {ttl: 2s},
          adopt: [{format: curator}], brake: {share: 30%}, http: {address: '127.0.0.1:8500'}, log: {format: auto},
          services: [{name: web, port: 80}]}",
    ),
];

/// What is put everywhere.
pub(super) fn values() -> Vec<Value> {
    let texts = [
        "",
        "x",
        "${V}",
        "a${V}",
        "$${V}",
        "2s",
        "1m30s",
        " 2s ",
        "1500ms",
        "0s",
        "30%",
        "+7%",
        "007%",
        "100%",
        "-5",
        "80",
        "200-399",
        "+200",
        "10.0.0.1",
        "::1",
        "127.0.0.1:0",
        "[fe80::1%1]:80",
        "a:1",
        "a_b:+1",
        "[::1]:1",
        "web-1",
        "Web",
        "/",
        "/a b",
        "/x?y",
        "POST",
        "post",
        "tcp",
        "udp",
        "http",
        "grpc",
        "curator",
        "nerve",
        "all",
        "observer",
        "want",
        "none",
        "text",
        "isro",
        "true",
        "null",
        "1.5",
        "warn,a=debug",
        "a.b.",
    ];
    let numbers = [
        json!(0),
        json!(1),
        json!(-1),
        json!(200),
        json!(255),
        json!(65_535),
        json!(65_536),
        json!(1.5),
        json!(2e9),
        json!(200.0),
        json!(1_u64 << 40),
    ];
    let others = [
        json!(null),
        json!(true),
        json!(false),
        json!([]),
        json!({}),
        json!([[]]),
        json!(["a"]),
        json!(["a:1"]),
        json!(["${V}"]),
        json!([null]),
        json!({"a": "b"}),
        json!({"a": 1}),
        json!({"a": null}),
    ];
    texts.into_iter().map(Value::from).chain(numbers).chain(others).collect()
}
