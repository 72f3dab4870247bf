//! What a key means that sets nothing here: nothing at all, or something that one must not do without.
//!
//! A key whose loss would cost data or safety is refused; where Apache ZooKeeper compares with one word, so does this.

/// What to do about a key and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// What is wrong with it here, and what to do.
    Refused(&'static str, &'static str),
    /// It is known, and what it tunes is not there, or is always so.
    WithoutEffect,
    /// It asks for what is done anyway.
    AsHere,
    /// Nobody knows it.
    Unknown,
}

impl Meaning {
    /// Of `key` without `zookeeper.` before it.
    pub(super) fn of(key: &str, value: &str) -> Self {
        let is_known = |known: &&str| key == *known || known.ends_with(['.', '_']) && key.starts_with(known);
        match refusal(key) {
            Some((is_refused, message, remedy)) if is_refused(value) => Self::Refused(message, remedy),
            Some(_) => Self::AsHere,
            None if WITHOUT_EFFECT.iter().any(is_known) => Self::WithoutEffect,
            None => Self::Unknown,
        }
    }
}

/// Which values are refused, why, and what to do.
type Refusal = (fn(&str) -> bool, &'static str, &'static str);

/// Which values of a key are refused, if any.
fn refusal(key: &str) -> Option<Refusal> {
    // What is switched on by anything but false is not left to a misspelling.
    let on: fn(&str) -> bool = |value| !value.eq_ignore_ascii_case("false");
    let any: fn(&str) -> bool = |_| true;
    Some(match key {
        "electionAlg" => (|value| value != "3", "there is one election algorithm, 3", "remove it"),
        "leaderServes" => (
            |value| value == "no",
            "here a leader always serves clients",
            "remove it, and keep clients away by their connect strings",
        ),
        "forceSync" => (
            |value| value == "no",
            "without syncs an acknowledged write is lost at a power failure, which is never offered here",
            "remove it",
        ),
        "skipACL" => (|value| value == "yes", "ACLs are always checked here", "remove it"),
        "closeSessionTxn.enabled" => (
            |value| !value.eq_ignore_ascii_case("true"),
            "members that log ends of sessions without their ephemerals misread those of others",
            "remove it on every member",
        ),
        "reconfigEnabled" => (
            on,
            "members cannot be changed while they run, so far",
            "remove it; to change them, stop all members, and start each once with the new list and --accept-members: two lists \
             at a time may lose what was acknowledged",
        ),
        "portUnification" => {
            (on, "one port for plain and TLS members is not offered", "switch every member to TLS at once")
        }
        "secureClientPort" | "secureClientPortAddress" => (
            any,
            "TLS for clients is not offered yet: they would be turned away",
            "remove it, and serve them on clientPort",
        ),
        "snapshot.trust.empty" => (
            on,
            "logs without a snapshot are never trusted here: files are missing then",
            "remove it, after Apache ZooKeeper has written a snapshot",
        ),
        "snapshot.compression.method" => (
            |value| matches!(value, "gz" | "snappy"),
            "compressed snapshots are not read here",
            "remove it, and let Apache ZooKeeper write a plain snapshot first",
        ),
        "quorum.auth.enableSasl" | "quorum.auth.learnerRequireSasl" | "quorum.auth.serverRequireSasl" => (
            on,
            "members are not authenticated by SASL here: anybody could join",
            "remove it, and authenticate them by TLS: sslQuorum",
        ),
        "enforce.auth.enabled" | "sessionRequireClientSASLAuth" => (
            on,
            "clients are not authenticated here yet: anybody could read and write",
            "remove it once nobody else reaches the client port",
        ),
        "ssl.quorum.crl" | "ssl.quorum.ocsp" => (
            on,
            "whether a certificate was revoked is not looked up here",
            "remove it, and give certificates short lives, or the members an authority of their own",
        ),
        "oraclePath" => {
            (any, "an oracle that decides between two members is not offered", "use three voters")
        }
        _ if key.starts_with("group.") || key.starts_with("weight.") => (
            any,
            "hierarchical quorums are not offered yet",
            "remove groups and weights: every voter counts the same",
        ),
        _ => return None,
    })
}

/// Keys that are known and change nothing; those that end in a dot or an underscore stand for all that begin so.
const WITHOUT_EFFECT: &[&str] = &[
    "DigestAuthenticationProvider.digestAlg",
    "DigestAuthenticationProvider.enabled",
    "X509AuthenticationProvider.superUser",
    "admin.",
    "allowSaslFailedClients",
    "audit.",
    "authProvider",
    "authProvider.",
    "autopurge.purgeInterval",
    "bitHashCacheSize",
    "client.portUnification",
    "clientCnxnSocket",
    "clientPortListenBacklog",
    "clientTcpKeepAlive",
    "cnxTimeoutRetries",
    "commitProcessor.",
    "connectToLearnerMasterLimit",
    "connection_throttle_",
    "datadir.autocreate",
    "db.autocreate",
    "digest.enabled",
    "dynamicConfigFile",
    "electionPortBindRetry",
    "emulate353TTLNodes",
    "enableEagerACLCheck",
    "enforce.auth.schemes",
    "enforceQuota",
    "extendedTypesEnabled",
    "fastleader.",
    "flushDelay",
    "follower.",
    "forceSnapshotSync",
    "forward_learner_requests_to_commit_processor_disabled",
    "fsync.warningthresholdms",
    "globalOutstandingLimit",
    "intBufferStartingSizeBytes",
    "jvm.",
    "kerberos.",
    "largeRequestMaxBytes",
    "largeRequestThreshold",
    "leader.",
    "leaderConnectDelayDuringRetryMs",
    "learner.",
    "maxBatchSize",
    "maxGetChildrenResponseCacheSize",
    "maxInProcessingDeadWatchers",
    "maxResponseCacheSize",
    "messageTracker.",
    "metricsProvider.",
    "multiAddress.",
    "netty.",
    "nio.",
    "nioSelectorThreads",
    "nioWorkerThreads",
    "observer.",
    "observerMaster.",
    "observerMasterPort",
    "pathStats.",
    "peerType",
    "preAllocSize",
    "quorum.auth.",
    "quorum.cnxn.threads.size",
    "quorumCnxnTimeoutMs",
    "request_stale_connection_check",
    "request_stale_latency_check",
    "request_throttle_",
    "request_throttler.",
    "serverCnxnFactory",
    "snapshot.",
    "snapshotSizeFactor",
    "ssl.",
    "sslQuorumReloadCertFiles",
    "syncEnabled",
    "tcpKeepAlive",
    "throttled_op_wait_time",
    "txnLogSizeLimitInKb",
    "watchManagerName",
    "watcherCleanIntervalInSeconds",
    "watcherCleanThreadsNum",
    "watcherCleanThreshold",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_less_safety_is_refused_and_the_same_key_otherwise_is_not() {
        let pairs = [
            ("forceSync", "no", "yes"),
            ("skipACL", "yes", "no"),
            ("closeSessionTxn.enabled", "false", "true"),
            ("electionAlg", "1", "3"),
            ("quorum.auth.enableSasl", "true", "false"),
            ("enforce.auth.enabled", "True", "FALSE"),
            ("ssl.quorum.crl", "yes", "false"),
            ("snapshot.compression.method", "gz", "none"),
            ("reconfigEnabled", "ture", "false"),
        ];
        for (key, refused, allowed) in pairs {
            assert!(matches!(Meaning::of(key, refused), Meaning::Refused(..)), "{key}={refused}");
            assert_eq!(Meaning::of(key, allowed), Meaning::AsHere, "{key}={allowed}");
        }
    }

    #[test]
    fn names_are_known_whole_or_by_their_first_part() {
        for key in [
            "admin.enableServer",
            "audit.enable",
            "ssl.protocol",
            "preAllocSize",
            "quorum.auth.kerberos.servicePrincipal",
        ] {
            assert_eq!(Meaning::of(key, "x"), Meaning::WithoutEffect, "{key}");
        }
        for key in ["adminServer", "preAllocSizes", "myKey", "group"] {
            assert_eq!(Meaning::of(key, "x"), Meaning::Unknown, "{key}");
        }
    }
}
