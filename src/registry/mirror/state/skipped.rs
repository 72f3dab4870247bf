//! What is there and cannot be understood. Pure, but for the log.

use std::fmt::Display;
use std::sync::Arc;

use tracing::warn;

use super::MirrorState;
use crate::id::{SessionId, Zxid};
use crate::registry::name::{Label, ServiceKey};
use crate::registry::stored_settings::DamagedSettings;
use crate::registry::unreadable::Unreadable;
use crate::registry::view::Service;

impl MirrorState {
    /// What cannot be understood changes nothing: what was last understood of it stays.
    pub(super) fn skip(&mut self, what: &dyn Display, error: &dyn Display) {
        self.unreadable += 1;
        warn!(%what, error = %error, "skipped a znode that cannot be read");
    }

    /// The same of an instance; `written` is where it was read, if it was.
    pub(super) fn skip_instance(
        &mut self,
        service: &ServiceKey,
        id: &Label,
        error: &dyn Display,
        written: Option<(Zxid, SessionId)>,
    ) {
        self.skip(&format_args!("{id} of {service}"), error);
        let unreadable = Unreadable::new(&error.to_string(), written);
        let is_news = |known: &Service| known.takes_unreadable(id, &unreadable);
        if let Some(known) = self.view.services.get_mut_if(service, is_news) {
            Arc::make_mut(known).unreadable.insert(id.clone(), unreadable);
            self.has_changed = true;
        }
        if let Some((mzxid, _)) = written {
            self.raise_zxid(service, mzxid);
        }
    }

    /// It is understood again, or gone.
    pub(super) fn forget_unreadable(&mut self, service: &ServiceKey, id: &Label) {
        let is_there = |known: &Service| known.unreadable.contains_key(id);
        if let Some(known) = self.view.services.get_mut_if(service, is_there) {
            Arc::make_mut(known).unreadable.remove(id);
            self.has_changed = true;
        }
    }

    /// Settings that are not obeyed, with the remedy.
    pub(super) fn skip_settings(&mut self, service: &ServiceKey, damage: &DamagedSettings) {
        self.unreadable += 1;
        warn!(
            %service,
            path = self.layout.service(service),
            error = %damage,
            remedy = damage.remedy(service, &self.layout),
            "the settings of a service are damaged, and not obeyed; those that were read last are, or the defaults"
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::clock;
    use crate::registry::layout::{Layout, Place};
    use crate::registry::mirror::state::ReadOutcome;
    use crate::registry::mirror::state::tests::*;
    use crate::registry::sample::logged;
    use crate::znode::OpError;

    #[test]
    fn what_cannot_be_read_is_skipped_and_counted() {
        let mut state = state();
        state.on_read(&instance("web", "a"), &found(&record(80), 5), clock::now());
        state.take_changed(clock::now());
        state.on_read(&instance("web", "a"), &found("{", 6), clock::now());
        state.on_read(&instance("web", "b"), &found("null", 7), clock::now());
        state.on_read(&instance("web", "a"), &ReadOutcome::Refused(OpError::NoAuth), clock::now());
        state.on_read(&Place::Service(key("web")), &found("[]]", 8), clock::now());
        assert_eq!(state.unreadable(), 4);
        assert_eq!(ids(state.take_changed(clock::now()).as_ref().unwrap(), "web"), ["a"]);
    }

    #[test]
    fn damaged_settings_leave_those_that_were_read_last_and_are_told_with_their_remedy() {
        let mut state = state().with_layout(Layout::new("/a").unwrap());
        let mut read = |data: &str, mzxid| {
            state.on_read(&Place::Service(key("web")), &found(data, mzxid), clock::now());
            let view = state.take_changed(clock::now()).unwrap();
            (view.services[&key("web")].settings.min_healthy, view.services[&key("web")].zxid)
        };
        let told = logged(|| {
            assert_eq!(read("{", 4), (1, zxid(4)), "the service is known all the same");
            assert_eq!(read(r#"{"min_healthy":2}"#, 5), (2, zxid(5)));
            assert_eq!(read(r#"{"min_healthy":"3"}"#, 6), (2, zxid(6)));
        });
        assert_eq!(state.unreadable(), 2);
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 2, "{told}");
        for (line, remedy) in lines.iter().zip(["zk set /a/default/web ''", "--unset min_healthy --root /a"])
        {
            assert!(line.contains("path=\"/a/default/web\"") && line.contains(remedy), "{line}");
        }
    }
}
