//! Four-letter words: the questions in plain text that monitoring asks on a ZooKeeper port.
//!
//! A client that sends one of them as its first four bytes is answered with text, and the connection is closed. Only words on
//! the list of [`MemberSettings::four_letter_words`](super::MemberSettings) are answered, `srvr` alone by default.
//!
//! Source: `FourLetterCommands.java`, `command/SrvrCommand.java`, `command/MonitorCommand.java` of Apache ZooKeeper, whose
//! texts these are.

pub(super) mod inspection;
mod place;

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use super::settings::MemberSettings;
use super::stats::MemberStats;
use crate::zab::ServerState;

/// A word that this member can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FourLetterWord {
    /// `conf`: its settings.
    Conf,
    /// `cons`: the connections of its clients.
    Cons,
    /// `dump`: sessions, and the ephemerals that they own.
    Dump,
    /// `envi`: what it runs on.
    Envi,
    /// `hash`: digests of the tree by zxid.
    Hash,
    /// `isro`: whether the member is read-only.
    Isro,
    /// `mntr`: counters and gauges, one a line.
    Mntr,
    /// `ruok`: whether the process is there.
    Ruok,
    /// `srvr`: a short report for people.
    Srvr,
    /// `stat`: the same with the connections.
    Stat,
    /// `wchc`: watched paths by session.
    Wchc,
    /// `wchp`: sessions by watched path.
    Wchp,
    /// `wchs`: how much is watched.
    Wchs,
}

impl FourLetterWord {
    /// Those that can be listed.
    pub const ALL: [Self; 13] = [
        Self::Conf,
        Self::Cons,
        Self::Dump,
        Self::Envi,
        Self::Hash,
        Self::Isro,
        Self::Mntr,
        Self::Ruok,
        Self::Srvr,
        Self::Stat,
        Self::Wchc,
        Self::Wchp,
        Self::Wchs,
    ];

    /// The word itself.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Conf => "conf",
            Self::Cons => "cons",
            Self::Dump => "dump",
            Self::Envi => "envi",
            Self::Hash => "hash",
            Self::Isro => "isro",
            Self::Mntr => "mntr",
            Self::Ruok => "ruok",
            Self::Srvr => "srvr",
            Self::Stat => "stat",
            Self::Wchc => "wchc",
            Self::Wchp => "wchp",
            Self::Wchs => "wchs",
        }
    }

    /// The word with these letters, if it can be answered.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for FourLetterWord {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FourLetterWord".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "enum": Self::ALL.map(Self::as_str)})
    }
}

/// Every word of Apache ZooKeeper: none of them can be the length of a frame, since they are far too long for one.
const KNOWN: [&str; 18] = [
    "conf", "cons", "crst", "dirs", "dump", "envi", "gtmk", "hash", "isro", "mntr", "ruok", "srst", "srvr",
    "stat", "stmk", "wchc", "wchp", "wchs",
];

/// What is said to a four-letter word.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Text(String),
    /// What [`inspection::answer`] says.
    Inspection(FourLetterWord),
}

/// The answer to a connection's first bytes, if they are a four-letter word; `port` is the one that it came to.
pub(super) fn answer(
    first: &[u8; 4],
    settings: &MemberSettings,
    port: u16,
    stats: &MemberStats,
) -> Option<Answer> {
    let word = KNOWN.into_iter().find(|word| word.as_bytes() == first)?;
    let Some(word) = FourLetterWord::parse(word).filter(|word| settings.four_letter_words.contains(word))
    else {
        return Some(Answer::Text(format!("{word} is not executed because it is not in the whitelist.\n")));
    };
    let is_answering = stats.is_serving.load(Relaxed) || stats.is_read_only.load(Relaxed);
    Some(Answer::Text(match word {
        // What a client that reads from a read-only member asks the others, until one says that it takes writes.
        FourLetterWord::Isro if stats.is_serving.load(Relaxed) => "rw".to_owned(),
        FourLetterWord::Isro if stats.is_read_only.load(Relaxed) => "ro".to_owned(),
        FourLetterWord::Isro => "null".to_owned(),
        FourLetterWord::Ruok => "imok".to_owned(),
        FourLetterWord::Envi => place::envi(),
        _ if !is_answering => NOT_SERVING.to_owned(),
        FourLetterWord::Conf => place::conf(settings, port),
        FourLetterWord::Srvr => srvr(stats),
        FourLetterWord::Mntr => mntr(stats),
        FourLetterWord::Cons
        | FourLetterWord::Dump
        | FourLetterWord::Hash
        | FourLetterWord::Stat
        | FourLetterWord::Wchc
        | FourLetterWord::Wchp
        | FourLetterWord::Wchs => return Some(Answer::Inspection(word)),
    }))
}

/// The version of Apache ZooKeeper whose protocol and files these are, which is what clients want to know, and our own.
const VERSION: &str = concat!("3.8.0-rollcall-", env!("CARGO_PKG_VERSION"));

const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";

fn mode(stats: &MemberStats) -> &'static str {
    if stats.is_alone.load(Relaxed) {
        "standalone"
    } else if stats.is_read_only.load(Relaxed) {
        "read-only"
    } else {
        stats.state().as_str()
    }
}

fn srvr(stats: &MemberStats) -> String {
    format!("Zookeeper version: {VERSION}\n{}", report(stats))
}

/// What `srvr` and `stat` have in common.
fn report(stats: &MemberStats) -> String {
    let latency = stats.latency();
    format!(
        "Latency min/avg/max: {}/{:?}/{}\n\
         Received: {}\n\
         Sent: {}\n\
         Connections: {}\n\
         Outstanding: {}\n\
         Zxid: {}\n\
         Mode: {}\n\
         Node count: {}\n",
        latency.min_ms,
        latency.average_ms,
        latency.max_ms,
        stats.received.load(Relaxed),
        stats.sent.load(Relaxed),
        stats.connections.load(Relaxed),
        stats.outstanding.load(Relaxed),
        stats.last_zxid(),
        mode(stats),
        stats.znodes.load(Relaxed),
    )
}

fn mntr(stats: &MemberStats) -> String {
    let latency = stats.latency();
    let counts: [(&str, u64); 16] = [
        ("max_latency", latency.max_ms),
        ("min_latency", latency.min_ms),
        ("packets_received", stats.received.load(Relaxed)),
        ("packets_sent", stats.sent.load(Relaxed)),
        ("num_alive_connections", stats.connections.load(Relaxed)),
        ("outstanding_requests", stats.outstanding.load(Relaxed)),
        ("znode_count", stats.znodes.load(Relaxed)),
        ("watch_count", stats.watched_paths.load(Relaxed)),
        ("global_sessions", stats.sessions.load(Relaxed)),
        ("commit_count", stats.commits.load(Relaxed)),
        ("local_sessions", stats.local_sessions.load(Relaxed)),
        ("outstanding_changes_queued", stats.proposals.load(Relaxed)),
        ("looking_count", stats.losses.load(Relaxed)),
        ("digest_mismatches_count", stats.digest_mismatches.load(Relaxed)),
        ("diff_count", stats.syncs_by_mode[0].load(Relaxed)),
        ("snap_count", stats.syncs_by_mode[2].load(Relaxed)),
    ];
    let mut text = format!(
        "zk_version\t{VERSION}\nzk_server_state\t{}\nzk_avg_latency\t{:?}\n",
        mode(stats),
        latency.average_ms
    );
    if stats.state() == ServerState::Leading && !stats.is_alone.load(Relaxed) {
        let (learners, followers) = (stats.learners.load(Relaxed), stats.followers.load(Relaxed));
        let counts = [
            ("learners", learners),
            ("synced_followers", followers),
            ("synced_non_voting_followers", 0),
            ("synced_observers", learners - followers),
            ("pending_syncs", 0),
        ];
        for (name, count) in counts {
            writeln!(text, "zk_{name}\t{count}").expect("a String takes whatever is written");
        }
    }
    for (name, count) in counts {
        writeln!(text, "zk_{name}\t{count}").expect("a String takes whatever is written");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_listed_words_are_answered_and_only_words_are_words() {
        let stats = MemberStats::default();
        let ask = |word: &[u8; 4]| answer(word, &listing(&[FourLetterWord::Ruok]), 2181, &stats);
        assert_eq!(ask(b"ruok"), Some(Answer::Text("imok".to_owned())));
        let refusal =
            |word| Answer::Text(format!("{word} is not executed because it is not in the whitelist.\n"));
        assert_eq!(ask(b"srvr"), Some(refusal("srvr")));
        assert_eq!(ask(b"wchp"), Some(refusal("wchp")));
        assert_eq!(ask(&44_i32.to_be_bytes()), None, "the length of a first frame");
        assert_eq!(ask(b"GET "), None);
    }

    #[test]
    fn a_member_that_takes_no_writes_says_so() {
        let stats = MemberStats::default();
        let ask = |word| text_of(word, &stats);
        assert_eq!(ask(b"isro"), "null");
        stats.is_read_only.store(true, Relaxed);
        assert_eq!(ask(b"isro"), "ro");
        assert!(ask(b"srvr").contains("\nMode: read-only\n"), "{}", ask(b"srvr"));
        assert!(ask(b"mntr").contains("\nzk_server_state\tread-only\n"), "{}", ask(b"mntr"));
        stats.is_read_only.store(false, Relaxed);
        stats.is_serving.store(true, Relaxed);
        assert_eq!(ask(b"isro"), "rw");
    }

    #[test]
    fn srvr_has_apaches_lines() {
        let stats = serving();
        stats.is_alone.store(true, Relaxed);
        stats.zxid.store(0x1_0000_0007, Relaxed);
        stats.received.store(3, Relaxed);
        stats.outstanding.store(3, Relaxed);
        stats.count_reply(Duration::from_millis(2));
        stats.count_reply(Duration::from_micros(4_500));
        let text = text_of(b"srvr", &stats);
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "Latency min/avg/max: 2/3.25/4",
                "Received: 3",
                "Sent: 2",
                "Connections: 0",
                "Outstanding: 1",
                "Zxid: 0x100000007",
                "Mode: standalone",
                "Node count: 0"
            ]
        );
    }

    #[test]
    fn mntr_is_names_and_values_with_tabs() {
        let stats = serving();
        stats.state.store(ServerState::Leading as u8, Relaxed);
        stats.learners.store(3, Relaxed);
        stats.followers.store(2, Relaxed);
        let text = text_of(b"mntr", &stats);
        assert!(text.lines().all(|line| line.starts_with("zk_") && line.split('\t').count() == 2), "{text}");
        assert!(text.contains("\nzk_server_state\tleader\nzk_avg_latency\t0.0\n"), "{text}");
        assert!(
            text.contains("\nzk_synced_followers\t2\n") && text.contains("\nzk_synced_observers\t1\n"),
            "{text}"
        );
    }

    #[test]
    fn a_member_without_a_leader_says_that_it_serves_nobody() {
        for word in [b"srvr", b"mntr", b"conf", b"cons", b"hash"] {
            let text = text_of(word, &MemberStats::default());
            assert_eq!(text, "This ZooKeeper instance is not currently serving requests\n");
        }
        assert!(
            text_of(b"envi", &MemberStats::default()).starts_with("Environment:\nzookeeper.version=3.8.0")
        );
    }

    fn listing(words: &[FourLetterWord]) -> MemberSettings {
        MemberSettings { four_letter_words: words.to_vec(), ..MemberSettings::default() }
    }

    fn text_of(word: &[u8; 4], stats: &MemberStats) -> String {
        match answer(word, &listing(&FourLetterWord::ALL), 2181, stats) {
            Some(Answer::Text(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    fn serving() -> MemberStats {
        let stats = MemberStats::default();
        stats.is_serving.store(true, Relaxed);
        stats
    }
}
