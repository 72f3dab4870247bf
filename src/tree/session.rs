//! The sessions that the ensemble knows, with their timeouts.

use std::collections::BTreeMap;

use crate::id::SessionId;

/// Sessions by id, with the timeout that each was granted.
///
/// This is the replicated part of a session alone: when it was last heard of is known to no txn.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SessionTable {
    timeouts_ms: BTreeMap<SessionId, i32>,
}

impl SessionTable {
    /// The timeout of a session, in ms; `None` when there is no such session.
    pub fn get(&self, session: SessionId) -> Option<i32> {
        self.timeouts_ms.get(&session).copied()
    }

    /// Whether there is such a session.
    pub fn contains(&self, session: SessionId) -> bool {
        self.timeouts_ms.contains_key(&session)
    }

    /// The number of sessions.
    pub fn len(&self) -> usize {
        self.timeouts_ms.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.timeouts_ms.is_empty()
    }

    /// Every session with its timeout in ms, by id.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, i32)> {
        self.timeouts_ms.iter().map(|(session, timeout_ms)| (*session, *timeout_ms))
    }

    pub(super) fn insert(&mut self, session: SessionId, timeout_ms: i32) {
        self.timeouts_ms.insert(session, timeout_ms);
    }

    pub(super) fn remove(&mut self, session: SessionId) {
        self.timeouts_ms.remove(&session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_there_from_its_opening_to_its_close() {
        let mut sessions = SessionTable::default();
        sessions.insert(SessionId(7), 4000);
        sessions.insert(SessionId(3), 6000);
        assert_eq!(sessions.iter().collect::<Vec<_>>(), [(SessionId(3), 6000), (SessionId(7), 4000)]);
        sessions.remove(SessionId(3));
        assert_eq!((sessions.len(), sessions.contains(SessionId(3))), (1, false));
        assert_eq!((sessions.get(SessionId(7)), sessions.get(SessionId(3))), (Some(4000), None));
    }
}
