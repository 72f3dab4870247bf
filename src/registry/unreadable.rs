//! Znodes in the place of instances that tell nothing.

use std::sync::Arc;

use super::name::Label;
use super::view::Service;
use crate::id::{SessionId, Zxid};

/// Why the znode of an instance tells nothing. What was understood of it before still counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// In words, not many of them: they may quote what stands there.
    pub reason: Arc<str>,
    /// When it was written, and the session that it lives by; none if the server does not let us read it, or it is of a foreign format.
    pub written: Option<(Zxid, SessionId)>,
}

/// So many are remembered of a service: anybody who may write there can write any number.
const UNREADABLE_MAX: usize = 100;
/// Characters of a reason that are kept.
const REASON_MAX: usize = 200;

impl Unreadable {
    /// Why, in any number of words; and when it was written by whom, if that is known.
    pub fn new(reason: &str, written: Option<(Zxid, SessionId)>) -> Self {
        let end = reason.char_indices().nth(REASON_MAX).map_or(reason.len(), |(end, _)| end);
        Self { reason: reason[..end].into(), written }
    }
}

impl Service {
    /// Whether it is new that one cannot be read now, and there is room to remember it.
    pub(super) fn takes_unreadable(&self, id: &Label, unreadable: &Unreadable) -> bool {
        let has_room = self.unreadable.len() < UNREADABLE_MAX || self.unreadable.contains_key(id);
        has_room && self.unreadable.get(id) != Some(unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::ServiceKey;

    #[test]
    fn what_is_remembered_is_bounded_and_told_once() {
        let label = |text: &str| Label::parse(text).unwrap();
        let key = ServiceKey { namespace: label("default"), name: label("web") };
        let mut service = Service::new(key);
        let unreadable = |reason: &str| Unreadable::new(reason, None);
        for number in 0..UNREADABLE_MAX {
            let id = label(&format!("a{number}"));
            assert!(service.takes_unreadable(&id, &unreadable("garbage")));
            service.unreadable.insert(id, unreadable("garbage"));
        }
        assert!(!service.takes_unreadable(&label("b"), &unreadable("garbage")));
        assert!(!service.takes_unreadable(&label("a1"), &unreadable("garbage")));
        assert!(service.takes_unreadable(&label("a1"), &unreadable("other garbage")));
        assert_eq!(unreadable(&"ü".repeat(10_000)).reason.chars().count(), REASON_MAX);
    }
}
