//! The line of one server: where it is found, and whether it votes.

use crate::ensemble::{HostPort, MemberAddress, MemberRole};

/// `host:quorumPort:electionPort[:participant|observer][;[clientHost:]clientPort]`, IPv6 hosts in brackets.
pub(super) fn parse_server(value: &str) -> Option<MemberAddress> {
    let (servers, client) = match value.split_once(';') {
        Some((servers, client)) => (servers, Some(client)),
        None => (value, None),
    };
    let mut first = servers.split('|').next()?.trim();
    let host = if let Some(rest) = first.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        first = rest.strip_prefix(':')?;
        host
    } else {
        let (host, rest) = first.split_once(':')?;
        first = rest;
        host
    };
    let mut parts = first.split(':');
    let port = |text: Option<&str>| text?.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let (quorum_port, election_port) = (port(parts.next())?, port(parts.next())?);
    let role = match parts.next().map(str::trim) {
        None | Some("participant") => MemberRole::Voter,
        Some(role) if role.eq_ignore_ascii_case("observer") => MemberRole::Observer,
        Some(_) => return None,
    };
    let at = |port| HostPort { host: host.to_owned(), port };
    let client = match client.map(|client| {
        client.trim().rsplit_once(':').map_or((None, client), |(host, port)| (Some(host), port))
    }) {
        None => None,
        Some((client_host, client_port)) => {
            let host = client_host.unwrap_or("0.0.0.0").trim_matches(['[', ']']).to_owned();
            Some(HostPort { host, port: port(Some(client_port))? })
        }
    };
    let is_whole = parts.next().is_none() && !host.is_empty();
    is_whole.then(|| MemberAddress { quorum: at(quorum_port), election: at(election_port), client, role })
}
