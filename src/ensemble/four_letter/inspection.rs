//! The words whose answers the driver has: connections, sessions, watches and digests.
//!
//! Their length is that of what they tell of, and the driver does nothing else meanwhile: as with Apache's, they are answered
//! only where the settings list them.
//!
//! Source: `StatCommand`, `ConsCommand`, `DumpCommand`, `WatchCommand`, `HashCommand`, `ServerCnxn.dumpConnectionInfo`,
//! `WatchManager`, `LearnerSessionTracker`, `DataTree.dumpEphemerals` of Apache ZooKeeper.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use super::{FourLetterWord, VERSION, report};
use crate::ensemble::stats::MemberStats;
use crate::id::SessionId;
use crate::replica::{ConnectionId, Replica};

/// A client that is connected.
pub(in crate::ensemble) struct Connected {
    pub(in crate::ensemble) id: ConnectionId,
    pub(in crate::ensemble) peer: SocketAddr,
    /// Since when, in ms since 1970.
    pub(in crate::ensemble) since_ms: i64,
    /// Frames that came, those of them that are not answered yet, and frames sent.
    pub(in crate::ensemble) counts: (u64, u64, u64),
}

/// What is said to `word`; nothing to one that is answered elsewhere.
pub(in crate::ensemble) fn answer(
    word: FourLetterWord,
    replica: &Replica,
    stats: &MemberStats,
    mut connected: Vec<Connected>,
) -> String {
    connected.sort_unstable_by_key(|connected| connected.id);
    let mut text = String::new();
    match word {
        FourLetterWord::Stat => stat(&mut text, replica, stats, &connected),
        FourLetterWord::Cons => cons(&mut text, replica, &connected),
        FourLetterWord::Dump => dump(&mut text, replica),
        FourLetterWord::Hash => hash(&mut text, replica),
        FourLetterWord::Wchs => wchs(&mut text, replica),
        FourLetterWord::Wchp => wchp(&mut text, replica),
        FourLetterWord::Wchc => wchc(&mut text, replica),
        FourLetterWord::Conf
        | FourLetterWord::Envi
        | FourLetterWord::Isro
        | FourLetterWord::Mntr
        | FourLetterWord::Ruok
        | FourLetterWord::Srvr => Ok(()),
    }
    .expect("a String takes whatever is written");
    text
}

fn stat(text: &mut String, replica: &Replica, stats: &MemberStats, connected: &[Connected]) -> fmt::Result {
    writeln!(text, "Zookeeper version: {VERSION}")?;
    if stats.is_read_only.load(Relaxed) {
        writeln!(text, "READ-ONLY mode; serving only read-only clients")?;
    }
    writeln!(text, "Clients:")?;
    for connected in connected {
        connection(text, replica, connected, true)?;
    }
    writeln!(text)?;
    text.push_str(&report(stats));
    Ok(())
}

fn cons(text: &mut String, replica: &Replica, connected: &[Connected]) -> fmt::Result {
    for connected in connected {
        connection(text, replica, connected, false)?;
    }
    writeln!(text)
}

fn connection(text: &mut String, replica: &Replica, connected: &Connected, is_brief: bool) -> fmt::Result {
    let Connected { id, peer, since_ms, counts: (received, unanswered, sent) } = *connected;
    // Sockets are always read here, which is 1 to Apache.
    write!(text, " /{peer}[1](queued={unanswered},recved={received},sent={sent}")?;
    if let Some(session) = replica.session_of(id).filter(|_| !is_brief) {
        write!(text, ",sid={session},est={since_ms}")?;
        if let Some(timeout) = replica.session_timeout(session) {
            write!(text, ",to={}", timeout.as_millis())?;
        }
    }
    writeln!(text, ")")
}

fn dump(text: &mut String, replica: &Replica) -> fmt::Result {
    let tree = replica.tree();
    writeln!(text, "SessionTracker dump:")?;
    let local: Vec<_> = replica.local_session_timeouts().collect();
    if !local.is_empty() {
        writeln!(text, "Local Sessions({}):", local.len())?;
        for (session, timeout) in local {
            writeln!(text, "{session}\t{}ms", timeout.as_millis())?;
        }
    }
    writeln!(text, "Global Sessions({}):", tree.sessions().len())?;
    for (session, timeout_ms) in tree.sessions().iter() {
        writeln!(text, "{session}\t{timeout_ms}ms")?;
    }
    writeln!(text, "ephemeral nodes dump:")?;
    writeln!(text, "Sessions with Ephemerals ({}):", tree.ephemeral_owners().count())?;
    for session in tree.ephemeral_owners() {
        writeln!(text, "{session}:")?;
        for path in tree.ephemerals(session) {
            writeln!(text, "\t{path}")?;
        }
    }
    Ok(())
}

fn hash(text: &mut String, replica: &Replica) -> fmt::Result {
    for (zxid, digest) in replica.digests() {
        writeln!(text, "{:x}: {}", zxid.raw(), digest.cast_signed())?;
    }
    Ok(())
}

fn wchs(text: &mut String, replica: &Replica) -> fmt::Result {
    let (mut watching, mut paths, mut watches) = (BTreeSet::new(), 0, 0);
    for (_, watchers) in replica.watches() {
        paths += 1;
        for connection in watchers {
            watches += 1;
            watching.insert(connection);
        }
    }
    writeln!(text, "{} connections watching {paths} paths\nTotal watches:{watches}", watching.len())
}

fn wchp(text: &mut String, replica: &Replica) -> fmt::Result {
    for (path, watchers) in replica.watches() {
        writeln!(text, "{path}")?;
        for session in watchers.filter_map(|connection| replica.session_of(connection)) {
            writeln!(text, "\t{session}")?;
        }
    }
    writeln!(text)
}

fn wchc(text: &mut String, replica: &Replica) -> fmt::Result {
    let mut by_session: BTreeMap<SessionId, Vec<&str>> = BTreeMap::new();
    for (path, watchers) in replica.watches() {
        for session in watchers.filter_map(|connection| replica.session_of(connection)) {
            by_session.entry(session).or_default().push(path);
        }
    }
    for (session, paths) in by_session {
        writeln!(text, "{session}")?;
        for path in paths {
            writeln!(text, "\t{path}")?;
        }
    }
    writeln!(text)
}
