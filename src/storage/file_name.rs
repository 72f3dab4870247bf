//! Names of the files in a data folder. Numbers are lower-case hexadecimal without leading zeros; files are
//! ordered by their number, not by their text.
//!
//! Source: `Util.java` of Apache ZooKeeper.

use crate::id::Zxid;

/// What a file of the folder is by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileName {
    /// A log whose first record has this zxid.
    Log(Zxid),
    /// A snapshot that holds all txns up to this zxid, and perhaps parts of later ones.
    Snapshot(Zxid, Compression),
    /// A snapshot that was taken out of the history.
    SetAside(Zxid),
    /// A snapshot that takes the place of a whole history; see [`super::install`].
    Installing { zxid: Zxid, replaced: Zxid },
    /// An atomic write that did not end.
    Temporary,
    /// Anything else: left alone.
    Other,
}

/// How a snapshot is compressed, by its last name part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// Not at all; the only kind that is read and written here.
    None,
    Gzip,
    Snappy,
}

/// The epoch up to which the member will follow nobody older.
pub(super) const ACCEPTED_EPOCH: &str = "acceptedEpoch";
/// The epoch in which the member was last synchronized with a leader.
pub(super) const CURRENT_EPOCH: &str = "currentEpoch";
/// The members that have a vote.
pub(super) const VOTERS: &str = "voters";
/// Up to where the history is known to be committed.
pub(super) const COMMITTED: &str = "committed";
/// Where the logs lie, if not here.
pub(super) const LOG_FOLDER: &str = "logFolder";
/// How the name of every log begins, and of nothing else.
pub(super) const LOG_PREFIX: &str = "log.";

impl FileName {
    pub(super) fn parse(name: &str) -> Self {
        if let Some(name) = name.strip_suffix(TEMPORARY) {
            let is_text = matches!(name, ACCEPTED_EPOCH | CURRENT_EPOCH | VOTERS | LOG_FOLDER);
            let is_ours = is_text || Self::parse(name) != Self::Other;
            return if is_ours { Self::Temporary } else { Self::Other };
        }
        if let Some(name) = name.strip_prefix(SET_ASIDE) {
            return match Self::parse(name) {
                Self::Snapshot(zxid, _) => Self::SetAside(zxid),
                Self::Log(_)
                | Self::SetAside(_)
                | Self::Installing { .. }
                | Self::Temporary
                | Self::Other => Self::Other,
            };
        }
        let mut parts = name.split('.');
        let kind = parts.next();
        let Some(zxid) = parts.next().and_then(parse_zxid) else { return Self::Other };
        match (kind, parts.next(), parts.next()) {
            (Some("log"), None, None) => Self::Log(zxid),
            (Some("snapshot"), None, None) => Self::Snapshot(zxid, Compression::None),
            (Some("snapshot"), Some("gz"), None) => Self::Snapshot(zxid, Compression::Gzip),
            (Some("snapshot"), Some("snappy"), None) => Self::Snapshot(zxid, Compression::Snappy),
            (Some("installing"), Some(replaced), None) => {
                parse_zxid(replaced).map_or(Self::Other, |replaced| Self::Installing { zxid, replaced })
            }
            _ => Self::Other,
        }
    }
}

pub(super) fn log_name(zxid: Zxid) -> String {
    format!("{LOG_PREFIX}{:x}", zxid.raw())
}

pub(super) fn snapshot_name(zxid: Zxid) -> String {
    format!("snapshot.{:x}", zxid.raw())
}

/// The name of a snapshot that is to take the place of a history that ends at `replaced`.
pub(super) fn installing_name(zxid: Zxid, replaced: Zxid) -> String {
    format!("installing.{:x}.{:x}", zxid.raw(), replaced.raw())
}

/// The name of a snapshot that no longer belongs to the history. Apache takes whatever begins with `snapshot.` for
/// a snapshot, so this does not.
pub(super) fn set_aside_name(name: &str) -> String {
    format!("{SET_ASIDE}{name}")
}

/// The name under which a file is written before it is complete.
pub(super) fn temporary(name: &str) -> String {
    format!("{name}{TEMPORARY}")
}

const TEMPORARY: &str = ".tmp";
const SET_ASIDE: &str = "truncated.";

/// `from_str_radix` would take a sign.
fn parse_zxid(hex: &str) -> Option<Zxid> {
    let is_hex = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    i64::from_str_radix(hex, 16).ok().filter(|_| is_hex).map(Zxid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let zxid = Zxid::from_raw(0x1_0000_00ff);
        assert_eq!(log_name(zxid), "log.1000000ff");
        assert_eq!(FileName::parse("log.1000000ff"), FileName::Log(zxid));
        assert_eq!(FileName::parse(&snapshot_name(zxid)), FileName::Snapshot(zxid, Compression::None));
        assert_eq!(FileName::parse("snapshot.0.gz"), FileName::Snapshot(Zxid::ZERO, Compression::Gzip));
        assert_eq!(FileName::parse("snapshot.0.snappy"), FileName::Snapshot(Zxid::ZERO, Compression::Snappy));
        assert_eq!(FileName::parse(&temporary("snapshot.0")), FileName::Temporary);
        assert_eq!(FileName::parse("currentEpoch.tmp"), FileName::Temporary);
        assert_eq!(FileName::parse("voters.tmp"), FileName::Temporary);
        assert_eq!(FileName::parse("logFolder.tmp"), FileName::Temporary);
        let replaced = Zxid::from_raw(0x2_0000_0000);
        let installing = FileName::Installing { zxid, replaced };
        assert_eq!(FileName::parse(&installing_name(zxid, replaced)), installing);
        for name in ["snapshot.1000000ff", "snapshot.1000000ff.gz"] {
            assert_eq!(FileName::parse(&set_aside_name(name)), FileName::SetAside(zxid));
        }
        for other in [
            "currentEpoch",
            "committed",
            "notes.tmp",
            "log",
            "log.",
            "log.xyz",
            "log.-1",
            "log.+1",
            "log.1.bak",
            "installing.1",
            "installing.1.x",
            "truncated.log.1",
            "snapshot.1.truncated",
            "snapshot.1.zip",
        ] {
            assert_eq!(FileName::parse(other), FileName::Other, "{other}");
        }
    }
}
