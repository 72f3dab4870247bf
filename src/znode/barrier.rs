//! The paths by which subscribers tell how far they are. They name no znodes: a member answers reads of them by itself, and a
//! server that does not know them has no such znode.
//!
//! | Path below `/zookeeper/rollcall` | Request | Meaning |
//! | --- | --- | --- |
//! | `subscribers/NAME` | a persistent watch | this connection follows changes, and says so when it is asked; events of changes come with the znodes that they are about ([`CarriedZnode`](super::CarriedZnode)) |
//! | `subscribers/NAME/ZXID` | `exists` | from NAME's own connection: it has applied all up to ZXID. From another: has it, and is it connected? The stat names its session as the owner |
//! | `subscribers/NAME/ZXID/elsewhere/SESSION` | `exists` | in this session NAME has said so to another member |
//! | `barriers/ZXID/PATH…` | `getData` | who follows PATH, and has applied all up to ZXID? Whoever has not is asked |
//!
//! A subscriber is asked by an event on its own path, "data changed", that carries ZXID. It comes behind the events of all
//! changes up to there. ZXIDs and SESSIONs are 16 hexadecimal digits.

use std::fmt;

use super::ZnodePath;
use crate::id::{SessionId, Zxid};

/// Everything below belongs to the members; nobody creates znodes there.
pub const MEMBERS_OWN_PATH: &str = "/zookeeper/rollcall";

/// A path that a member answers by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BarrierPath {
    /// Where a subscriber is asked.
    Subscriber(SubscriberName),
    /// That a subscriber has applied all up to there.
    Standing(SubscriberName, Zxid),
    /// That it has said so elsewhere, in this session.
    Elsewhere(SubscriberName, Zxid, SessionId),
    /// Whether all who follow what stands at this path have.
    Barrier(Zxid, ZnodePath),
}

/// What a subscriber is called: 1 to 128 letters, digits, `.`, `_` and `-`, not all of them dots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberName(Box<str>);

impl SubscriberName {
    /// The longest, in bytes.
    pub const BYTES_MAX: usize = 128;

    /// `None` for what is no name.
    pub fn parse(text: &str) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_name = text.len() <= Self::BYTES_MAX
            && text.bytes().all(is_allowed)
            && text.bytes().any(|byte| byte != b'.');
        is_name.then(|| Self(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubscriberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl BarrierPath {
    /// `None` for a path that means nothing to members.
    pub fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix(MEMBERS_OWN_PATH)?;
        if let Some(rest) = rest.strip_prefix("/barriers/") {
            let (zxid, _) = rest.split_once('/')?;
            let path = ZnodePath::parse(&rest[zxid.len()..]).ok()?;
            return Some(Self::Barrier(parse_zxid(zxid)?, path));
        }
        let mut parts = rest.strip_prefix("/subscribers/")?.split('/');
        let name = SubscriberName::parse(parts.next()?)?;
        let parts: Vec<_> = parts.take(PARTS_MAX).collect();
        match *parts {
            [] => Some(Self::Subscriber(name)),
            [zxid] => Some(Self::Standing(name, parse_zxid(zxid)?)),
            [zxid, "elsewhere", session] => {
                Some(Self::Elsewhere(name, parse_zxid(zxid)?, SessionId(parse_hex(session)?)))
            }
            [_, _, ..] => None,
        }
    }
}

impl fmt::Display for BarrierPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subscriber(name) => write!(f, "{MEMBERS_OWN_PATH}/subscribers/{name}"),
            Self::Standing(name, zxid) => {
                write!(f, "{MEMBERS_OWN_PATH}/subscribers/{name}/{:016x}", zxid.raw())
            }
            Self::Elsewhere(name, zxid, SessionId(session)) => {
                write!(
                    f,
                    "{MEMBERS_OWN_PATH}/subscribers/{name}/{:016x}/elsewhere/{session:016x}",
                    zxid.raw()
                )
            }
            Self::Barrier(zxid, path) => {
                let path = if path.is_root() { "/" } else { path.as_str() };
                write!(f, "{MEMBERS_OWN_PATH}/barriers/{:016x}{path}", zxid.raw())
            }
        }
    }
}

/// Whether a path is the members' own, or below it.
pub fn is_members_own(path: &str) -> bool {
    path.strip_prefix(MEMBERS_OWN_PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// One more than any path has behind a name.
const PARTS_MAX: usize = 4;

/// No zxid that was ever given to a txn is negative.
fn parse_zxid(text: &str) -> Option<Zxid> {
    parse_hex(text).filter(|raw| *raw >= 0).map(Zxid::from_raw)
}

fn parse_hex(text: &str) -> Option<i64> {
    let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let raw = u64::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
    Some(i64::from_be_bytes(raw.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_they_are_written() {
        let (name, zxid) = (SubscriberName::parse("web-1.3f").unwrap(), Zxid::from_raw(0x5_0000_0003));
        let barrier = |path: &str| BarrierPath::Barrier(zxid, ZnodePath::parse(path).unwrap());
        for (path, text) in [
            (BarrierPath::Subscriber(name.clone()), "subscribers/web-1.3f"),
            (BarrierPath::Standing(name.clone(), zxid), "subscribers/web-1.3f/0000000500000003"),
            (
                BarrierPath::Elsewhere(name, zxid, SessionId(-2)),
                "subscribers/web-1.3f/0000000500000003/elsewhere/fffffffffffffffe",
            ),
            (barrier("/a/b"), "barriers/0000000500000003/a/b"),
            (barrier("/"), "barriers/0000000500000003/"),
        ] {
            assert_eq!(path.to_string(), format!("/zookeeper/rollcall/{text}"));
            assert_eq!(BarrierPath::parse(&path.to_string()), Some(path));
        }
    }

    #[test]
    fn other_paths_mean_nothing() {
        for path in [
            "",
            "/subscribers/a",
            "/zookeeper/rollcall",
            "/zookeeper/rollcall/subscribers",
            "/zookeeper/rollcall/subscribers/",
            "/zookeeper/rollcall/subscribers/..",
            "/zookeeper/rollcall/subscribers/a b",
            "/zookeeper/rollcall/subscribers/\"",
            "/zookeeper/rollcall/subscribers/a/5",
            "/zookeeper/rollcall/subscribers/a/+000000500000003",
            "/zookeeper/rollcall/subscribers/a/8000000000000000",
            "/zookeeper/rollcall/subscribers/a/0000000500000003/x",
            "/zookeeper/rollcall/subscribers/a/0000000500000003/elsewhere",
            "/zookeeper/rollcall/subscribers/a/0000000500000003/elsewhere/x",
            "/zookeeper/rollcall/subscribers/a/0000000500000003/elsewhere/0000000000000001/x",
            "/zookeeper/rollcall/barriers/0000000500000003",
            "/zookeeper/rollcall/barriers/0000000500000003/a//b",
            "/zookeeper/rollcalls/subscribers/a",
        ] {
            assert_eq!(BarrierPath::parse(path), None, "{path}");
        }
        assert_eq!(SubscriberName::parse(&"a".repeat(129)), None);
        assert!(is_members_own("/zookeeper/rollcall") && is_members_own("/zookeeper/rollcall/a"));
        assert!(!is_members_own("/zookeeper/rollcalls") && !is_members_own("/zookeeper"));
    }
}
