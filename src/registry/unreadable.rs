//! Znodes in the place of instances that tell nothing.

use super::view::Service;
use crate::id::{SessionId, Zxid};
use crate::registry::name::Label;

/// Why the znode of an instance tells nothing. What was understood of it before still counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// In words.
    pub reason: Box<str>,
    /// When it was written, and the session that it lives by; none if the server does not let us read it, or it is of a foreign format.
    pub written: Option<(Zxid, SessionId)>,
}

/// So many are remembered of a service: anybody who may write there can write any number.
const UNREADABLE_MAX: usize = 100;

impl Service {
    /// Takes that one cannot be read now; returns whether that is new.
    pub(super) fn note_unreadable(&mut self, id: &Label, unreadable: Unreadable) -> bool {
        let is_known = self.unreadable.get(id) == Some(&unreadable);
        let has_room = self.unreadable.len() < UNREADABLE_MAX || self.unreadable.contains_key(id);
        if is_known || !has_room {
            return false;
        }
        self.unreadable.insert(id.clone(), unreadable);
        true
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
        let unreadable = |reason: &str| Unreadable { reason: reason.into(), written: None };
        for number in 0..2 * UNREADABLE_MAX {
            let is_new = service.note_unreadable(&label(&format!("a{number}")), unreadable("garbage"));
            assert_eq!(is_new, number < UNREADABLE_MAX);
        }
        assert!(!service.note_unreadable(&label("a1"), unreadable("garbage")));
        assert!(service.note_unreadable(&label("a1"), unreadable("other garbage")));
        assert_eq!(service.unreadable.len(), UNREADABLE_MAX);
    }
}
